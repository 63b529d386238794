package consumer

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/kms"
)

// named is a fake with an endpoint of its own.
type named struct {
	*fake
	endpoint string
}

func (n named) Endpoint() string { return n.endpoint }

type place struct{ dir, key string }

func newPlace(t *testing.T) place {
	t.Helper()
	root := t.TempDir()
	return place{filepath.Join(root, "data"), filepath.Join(root, "keys", "key")}
}

func (p place) edit(c *Config) {
	c.NoPush = true
	c.LastGood = &LastGood{Dir: p.dir, Key: KeyFile(p.key)}
}

func (p place) files(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(p.dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestStartWhileAway verifies that the values of an earlier process are served, complete, while the
// server is unavailable, that Ready reports this, and that the server's values replace them later.
func TestStartWhileAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, f := newPlace(t), newFake()
		f.put("db", "v1", `{"password":"hunter2"}`, func(s *kms.GetSecretValueResponse) {
			s.ExtendedConfig = "{}"
			s.NextRotationDate = time.Unix(2e9, 0).UTC()
		})
		f.put("other", "v1", "hunter2")
		pinned := func(c *Config) { p.edit(c); c.Secrets = []string{"db"} }
		c, _ := start(t, f, pinned)
		if err := c.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustGet(t, c, "other", "v1")
		want := mustGet(t, c, "db", "v1").Raw()
		c.Close()

		if len(p.files(t)) != 2 {
			t.Errorf("files %v, want one for each secret", p.files(t))
		}
		for _, path := range append(p.files(t), p.dir, p.key) {
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s: %v, %v", path, info, err)
			}
			if body, _ := os.ReadFile(path); bytes.Contains(body, []byte("hunter2")) || bytes.Contains(body, []byte(`"db"`)) {
				t.Errorf("%s shows what it holds", path)
			}
		}

		f.fail("", errAway)
		time.Sleep(time.Hour)
		c, l := start(t, f, pinned)
		begin := time.Now()
		s := mustGet(t, c, "db", "v1")
		got := s.Raw()
		if time.Since(begin) != 0 || s.Source != SourceDisk || got.SecretData.Reveal() != `{"password":"hunter2"}` ||
			got.ExtendedConfig != "{}" || !got.NextRotationDate.Equal(want.NextRotationDate) ||
			!got.CreateTime.Equal(want.CreateTime) {
			t.Errorf("from disk after %v: %+v", time.Since(begin), got)
		}
		mustGet(t, c, "other", "v1")
		if st := c.Status()[0]; st.State != StateStale || st.Source != SourceDisk || st.AgeSeconds != 3600 ||
			!strings.Contains(st.LastError, "refused") {
			t.Errorf("status %+v", st)
		}
		if err := c.Ready(); err == nil || !strings.Contains(err.Error(), `secret "db" was not confirmed by the server`) {
			t.Errorf("Ready = %v, want that it is not", err)
		}
		if _, err := c.Get(t.Context(), "third"); !errors.Is(err, ErrUnavailable) {
			t.Errorf("Get of what was never read = %v", err)
		}
		if !strings.Contains(l.String(), "served from disk") || strings.Contains(l.String(), "hunter2") {
			t.Errorf("log %s", l)
		}
		f.fail("", nil)
		f.put("db", "v2", "two")
		if err := c.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := mustGet(t, c, "db", "v2"); s.Source != SourceServer {
			t.Errorf("source %s", s.Source)
		}
		f.fail("", errAway)
		time.Sleep(24 * time.Hour)
		if err := c.Ready(); err != nil {
			t.Errorf("Ready during an outage = %v, want nil: the value can be used", err)
		}
	})
}

// TestServerIsPreferredToDisk verifies that a value on disk is served only if the server fails or
// does not answer in time.
func TestServerIsPreferredToDisk(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, f := newPlace(t), newFake()
		f.put("db", "v1", "one")
		c, _ := start(t, f, p.edit)
		mustGet(t, c, "db", "v1")
		c.Close()
		f.put("db", "v2", "two")
		for latency, want := range map[time.Duration]string{2 * time.Second: "v2", 20 * time.Second: "v1"} {
			os.CopyFS(p.dir+"2", os.DirFS(p.dir))
			os.Chmod(p.dir+"2", 0o700)
			q := place{p.dir + "2", p.key}
			f.slow(latency)
			c, _ := start(t, f, q.edit)
			begin := time.Now()
			mustGet(t, c, "db", want)
			if d := time.Since(begin); d != min(latency, diskDelay) {
				t.Errorf("latency %v: Get took %v", latency, d)
			}
			time.Sleep(latency)
			synctest.Wait()
			mustGet(t, c, "db", "v2")
			c.Close()
			os.RemoveAll(q.dir)
		}
	})
}

// TestTakenAwayFromDisk verifies that a value that two answers of the server have taken away is
// deleted from disk, and that one answer is not enough, also right after a start.
func TestTakenAwayFromDisk(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, f := newPlace(t), newFake()
		f.put("db", "v1", "one")
		c, _ := start(t, f, p.edit)
		mustGet(t, c, "db", "v1")
		c.Close()
		f.fail("db", problem(403, kms.CodeNoPermission))
		c, _ = start(t, f, p.edit)
		mustGet(t, c, "db", "v1")
		if len(p.files(t)) != 1 {
			t.Errorf("files %v after one answer", p.files(t))
		}
		time.Sleep(confirmGap)
		synctest.Wait()
		if _, err := c.Get(t.Context(), "db"); !errors.Is(err, ErrDenied) || len(p.files(t)) != 0 {
			t.Errorf("Get = %v, files %v", err, p.files(t))
		}
	})
}

func TestMaxStaleOfDisk(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, f := newPlace(t), newFake()
		f.noWatch = nil
		bounded := func(c *Config) {
			p.edit(c)
			c.MaxStale, c.NoPush, c.Secrets = time.Hour, false, []string{"db"}
		}
		f.put("db", "v1", "one")
		c, _ := start(t, f, bounded)
		mustGet(t, c, "db", "v1")
		time.Sleep(10 * time.Hour) // push confirms, and reads keep the disk young enough
		f.fail("", errAway)
		c.Close()
		time.Sleep(20 * time.Minute)
		c, _ = start(t, f, bounded)
		mustGet(t, c, "db", "v1")
		time.Sleep(time.Hour)
		if _, err := c.Get(t.Context(), "db"); !errors.Is(err, ErrExpired) {
			t.Errorf("Get = %v, want ErrExpired", err)
		}
		if err := c.Ready(); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("Ready = %v", err)
		}
	})
}

// TestDamagedFiles verifies that a file that was changed, moved, cut, emptied, or encrypted with
// another key or for another endpoint is reported, ignored and replaced.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	flip := func(i int) func(*testing.T, place) {
		return func(t *testing.T, p place) {
			path := p.files(t)[0]
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[(i+len(b))%len(b)] ^= 1
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, damage := range map[string]func(*testing.T, place){
		"format":  flip(0),
		"nonce":   flip(1),
		"content": flip(40),
		"tag":     flip(-1),
		"cut":     func(t *testing.T, p place) { must(t, os.Truncate(p.files(t)[0], 20)) },
		"empty":   func(t *testing.T, p place) { must(t, os.Truncate(p.files(t)[0], 0)) },
		"key":     func(t *testing.T, p place) { must(t, os.Remove(p.key)) },
		"moved": func(t *testing.T, p place) {
			d := &disk{dir: p.dir, endpoint: "https://a/"}
			must(t, os.Rename(d.path("db"), d.path("other")))
		},
		"endpoint": func(t *testing.T, p place) {
			d, other := &disk{dir: p.dir, endpoint: "https://a/"}, &disk{dir: p.dir, endpoint: "https://b/"}
			must(t, os.Rename(d.path("db"), other.path("db")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p, f := newPlace(t), newFake()
				f.put("db", "v1", "one")
				f.put("other", "v9", "nine")
				c, _ := start(t, named{f, "https://a/"}, p.edit)
				mustGet(t, c, "db", "v1")
				c.Close()
				damage(t, p)
				secret, endpoint := "db", "https://a/"
				switch name {
				case "moved":
					secret = "other"
				case "endpoint":
					endpoint = "https://b/"
				}
				f.fail("", errAway)
				c, l := start(t, named{f, endpoint}, p.edit)
				if _, err := c.Get(t.Context(), secret); !errors.Is(err, ErrUnavailable) {
					t.Errorf("Get = %v, want none", err)
				}
				if c.Counters().DiskFailures != 1 || !strings.Contains(l.String(), "it is ignored") {
					t.Errorf("counters %+v, log %s", c.Counters(), l)
				}
				f.fail("", nil)
				time.Sleep(time.Minute)
				version := mustGet(t, c, secret, f.secrets[secret].VersionID).VersionID
				c.Close()
				f.fail("", errAway)
				c, _ = start(t, named{f, endpoint}, p.edit)
				mustGet(t, c, secret, version)
				c.Close()
			})
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestDiskFull verifies that a value that cannot be written is counted and served.
func TestDiskFull(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, f := newPlace(t), newFake()
		f.put("db", "v1", "one")
		c, _ := start(t, f, p.edit)
		must(t, os.RemoveAll(p.dir))
		mustGet(t, c, "db", "v1")
		synctest.Wait()
		if c.Counters().DiskFailures != 1 {
			t.Errorf("counters %+v", c.Counters())
		}
		must(t, os.Mkdir(p.dir, 0o700))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if len(p.files(t)) != 1 {
			t.Errorf("files %v, want that the next read is written", p.files(t))
		}
	})
}

func TestLastGoodConfig(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("no modes on windows")
	}
	root := t.TempDir()
	wide, short, link := filepath.Join(root, "wide"), filepath.Join(root, "short"), filepath.Join(root, "link")
	must(t, os.Mkdir(wide, 0o755))
	must(t, os.WriteFile(short, []byte("x"), 0o600))
	readable := filepath.Join(root, "readable")
	must(t, os.WriteFile(readable, make([]byte, 32), 0o640))
	data := filepath.Join(root, "data")
	must(t, os.Mkdir(data, 0o700))
	must(t, os.Symlink(data, link))
	for _, tt := range []struct {
		l    LastGood
		want string
	}{
		{LastGood{Dir: data}, "needs a Dir and a Key"},
		{LastGood{Key: KeyFile(short)}, "needs a Dir and a Key"},
		{LastGood{
			Dir: wide,
			Key: KeyFile(filepath.Join(root, "k")),
		}, "has mode 0755; others must not look into it: chmod 700"},
		{LastGood{Dir: short, Key: KeyFile(filepath.Join(root, "k"))}, "create LastGood.Dir"},
		{LastGood{Dir: data, Key: KeyFile(filepath.Join(data, "k"))}, "lies in the directory that it protects"},
		{LastGood{Dir: data, Key: KeyFile(filepath.Join(data, "below", "k"))}, "lies in the directory that it protects"},
		{LastGood{Dir: link, Key: KeyFile(filepath.Join(data, "k"))}, "lies in the directory that it protects"},
		{LastGood{Dir: data, Key: KeyFile(filepath.Join(link, "k"))}, "lies in the directory that it protects"},
		{LastGood{Dir: data, Key: KeyFile(readable)}, "has mode 0640; others must not read it: chmod 600"},
		{LastGood{Dir: data, Key: KeyFile(short)}, "has 1 bytes; it must have 32 to 4096"},
		{LastGood{Dir: data, Key: KeyFile("")}, "not a path"},
		{LastGood{Dir: data, Key: KeyFile(wide)}, "is not a regular file"},
		{LastGood{Dir: data, Key: SystemdCredential("key")}, "CREDENTIALS_DIRECTORY is not set"},
		{LastGood{Dir: data, Key: SystemdCredential("../key")}, "not the name of a credential"},
	} {
		if _, err := New(t.Context(), Config{
			Client:   newFake(),
			LastGood: &tt.l,
		}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("New with %+v = %v, want %q", tt.l, err, tt.want)
		}
	}
}

func TestSystemdCredential(t *testing.T) {
	root := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", root)
	must(t, os.WriteFile(filepath.Join(root, "key"), bytes.Repeat([]byte("k"), 32), 0o440))
	key, err := SystemdCredential("key").Load(root)
	if err != nil || key.Len() != 32 {
		t.Errorf("Load = %v, %v", key, err)
	}
	if _, err := SystemdCredential("other").Load(root); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load of what is not there = %v", err)
	}
}

// TestKeyFileIsMadeOnce verifies that processes that start together agree on one key, and leave no
// other file behind.
func TestKeyFileIsMadeOnce(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	must(t, os.Mkdir(p.dir, 0o700))
	keys := make([]string, 20)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			key, err := KeyFile(p.key).Load(p.dir)
			if err != nil {
				t.Error(err)
			}
			keys[i] = key.Reveal()
		})
	}
	wg.Wait()
	for _, key := range keys {
		if key != keys[0] || len(key) != 32 {
			t.Error("two keys were made")
		}
	}
	if list, err := os.ReadDir(filepath.Dir(p.key)); err != nil || len(list) != 1 {
		t.Errorf("beside the key: %v, %v", list, err)
	}
}

func TestSweep(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	must(t, os.Mkdir(p.dir, 0o700))
	old, young := filepath.Join(p.dir, tempPrefix+"1"), filepath.Join(p.dir, tempPrefix+"2")
	for _, path := range []string{old, young} {
		must(t, os.WriteFile(path, nil, 0o600))
	}
	must(t, os.Chtimes(old, time.Time{}, time.Now().Add(-2*time.Hour)))
	if _, err := (&LastGood{Dir: p.dir, Key: KeyFile(p.key)}).open(""); err != nil {
		t.Fatal(err)
	}
	if list, _ := os.ReadDir(p.dir); len(list) != 1 || list[0].Name() != tempPrefix+"2" {
		t.Errorf("remains: %v", list)
	}
}
