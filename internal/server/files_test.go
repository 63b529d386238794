package server_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/ownfile"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/keyturntest"
)

const stranger = 65534

// refused starts a server that must refuse, and returns why it did.
func refused(t *testing.T, c server.Config) string {
	t.Helper()
	c.ListenHTTP, c.Listen = "127.0.0.1:0", "127.0.0.1:0"
	_, err := server.New(t.Context(), c)
	if err == nil {
		t.Fatal("the server started")
	}
	return err.Error()
}

// TestPlantedFiles is another user of the machine who writes into a data directory before the first
// start, or may write to a file of a server that has run. Neither becomes the administrator or the
// root key.
func TestPlantedFiles(t *testing.T) {
	t.Parallel()
	admin := `{"account_id":"1111111111111111","access_key_id":"planted","access_key_secret":"planted-secret"}`
	for name, tt := range map[string]struct {
		plant func(dir string) error
		want  string
	}{
		"directory for all": {func(dir string) error { return os.Chmod(dir, 0o777) }, "chmod go-w "},
		"admin.json":        {func(dir string) error { return plant(filepath.Join(dir, "admin.json"), admin) }, "chown 0 "},
		"root.key":          {func(dir string) error { return plant(filepath.Join(dir, "root.key"), "AAAA") }, "chown 0 "},
		"a linked root.key": {func(dir string) error {
			outside := filepath.Join(filepath.Dir(dir), "outside.key")
			return errors.Join(plant(outside, "AAAA"), os.Symlink(outside, filepath.Join(dir, "root.key")))
		}, "chown 0 "},
		"store": {func(dir string) error {
			return errors.Join(os.MkdirAll(filepath.Join(dir, "store", "etcd"), 0o700),
				os.Chown(filepath.Join(dir, "store", "etcd"), stranger, stranger))
		}, "chown 0 "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if os.Geteuid() != 0 && name != "directory for all" {
				t.Skip("only root can make files of another user")
			}
			dir := filepath.Join(t.TempDir(), "data")
			if err := errors.Join(os.Mkdir(dir, 0o700), tt.plant(dir)); err != nil {
				t.Fatal(err)
			}
			if why := refused(t, server.Config{DataDir: dir}); !strings.Contains(why, tt.want) {
				t.Errorf("refused with %q, want the command %q", why, tt.want)
			}
			if _, err := os.Stat(filepath.Join(dir, "audit")); err == nil {
				t.Error("the server made files before it checked the existing ones")
			}
		})
	}
}

func plant(path, content string) error {
	return errors.Join(os.WriteFile(path, []byte(content), 0o600), os.Chown(path, stranger, stranger))
}

// TestFileModes verifies that a server that has run refuses files that others may write, and
// secrets that others may read.
func TestFileModes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := keyturntest.Start(t, keyturntest.WithDataDir(dir)).Stop(); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		mode fs.FileMode
		want string
	}{
		"admin.json":      {0o604, "chmod 600 "},
		"root.key":        {0o640, "chmod 600 "},
		"tls/ca-key.pem":  {0o644, "chmod 600 "},
		"tls/ca.pem":      {0o666, "chmod go-w "},
		"audit":           {0o777, "chmod go-w "},
		"store/etcd":      {0o770, "chmod go-w "},
		"store-mark.json": {0o620, "chmod go-w "},
	} {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		if why := refused(t, server.Config{DataDir: dir}); !strings.Contains(why, tt.want+path) {
			t.Errorf("%s of mode %04o: refused with %q, want %q", name, tt.mode, why, tt.want+path)
		}
		if err := os.Chmod(path, info.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
	keyturntest.Start(t, keyturntest.WithDataDir(dir))
}

// TestFileGroup changes a data directory as Kubernetes does for the fsGroup of a pod, and starts in
// it with and without the setting that says so.
func TestFileGroup(t *testing.T) {
	t.Parallel()
	dir, group := t.TempDir(), os.Getegid()
	if err := keyturntest.Start(t, keyturntest.WithDataDir(dir)).Stop(); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		mode := fs.FileMode(0o660)
		if d.IsDir() {
			mode = 0o770 | fs.ModeSetgid
		}
		return errors.Join(err, os.Chmod(path, mode))
	})
	if err != nil {
		t.Fatal(err)
	}
	if why := refused(t, server.Config{DataDir: dir}); !strings.Contains(why, "chmod go-w "+dir) {
		t.Errorf("without the group: refused with %q", why)
	}
	keyturntest.Start(t, keyturntest.WithDataDir(dir),
		server.Change(func(c *server.Config) { c.Trust = ownfile.Trust{Groups: []int{group}} }))
}

// TestEtcdPassword verifies that the password of an etcd cluster does not cross a network in clear.
func TestEtcdPassword(t *testing.T) {
	t.Parallel()
	for endpoint, ok := range map[string]bool{
		"https://etcd.example.test:2379": true,
		"http://127.0.0.1:2379":          true,
		"localhost:2379":                 true,
		"http://[::1]:2379/":             true,
		"http://etcd.example.test:2379":  false,
		"etcd.example.test:2379":         false,
		"203.0.113.9:2379":               false,
		"http://etcd.example.test":       false,
	} {
		c := server.Config{
			DataDir:    "d",
			ListenHTTP: "127.0.0.1:0",
			Etcd:       server.Etcd{Endpoints: []string{endpoint}, Username: "u", Password: "p"},
		}
		if err := c.Check(); (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "in clear") {
			t.Errorf("%s: %v, want it accepted: %v", endpoint, err, ok)
		}
		c.Etcd.Password = ""
		if err := c.Check(); err != nil {
			t.Errorf("%s without a password: %v", endpoint, err)
		}
	}
}
