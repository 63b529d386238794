package server_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/test/support"
)

// TestRestoredStoreIsReported restores a copy in which an access key exists that was deleted since.
// The key works again, and the operator learns of it.
func TestRestoredStoreIsReported(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	s := keyturntest.Start(t, keyturntest.WithDataDir(dir))
	users := ram.New(s.Client)
	if _, err := users.CreateUser(t.Context(), &ram.CreateUserRequest{UserName: "left"}); err != nil {
		t.Fatal(err)
	}
	made, err := users.CreateAccessKey(t.Context(), &ram.CreateAccessKeyRequest{UserName: "left"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "store")
	if out, err := exec.Command("cp", "-a", filepath.Join(dir, "store"), copied).CombinedOutput(); err != nil {
		t.Fatalf("copy: %v: %s", err, out)
	}
	s = keyturntest.Start(t, keyturntest.WithDataDir(dir))
	if _, err := ram.New(s.Client).DeleteAccessKey(t.Context(),
		&ram.AccessKeyRequest{UserName: "left", UserAccessKeyID: made.AccessKey.AccessKeyID}); err != nil {
		t.Fatal(err)
	}
	create(t, s, "later", "value")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "store")); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", copied, filepath.Join(dir, "store")).CombinedOutput(); err != nil {
		t.Fatalf("restore: %v: %s", err, out)
	}
	var log support.Log
	s = keyturntest.Start(t, keyturntest.WithDataDir(dir),
		server.Change(func(c *server.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) }))
	if text := log.String(); !strings.Contains(text, "level=ERROR") ||
		!strings.Contains(text, "restored from a copy") ||
		!strings.Contains(text, "enabled_access_keys=2") {
		t.Errorf("the log does not report the restored store and its two keys:\n%s", text)
	}
	resp, err := http.Get("http://" + s.HTTPEndpoint + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if page, err := io.ReadAll(resp.Body); err != nil || !bytes.Contains(page, []byte("keyturn_store_restored 1")) {
		t.Errorf("the metric does not say so: %v", err)
	}
	if _, err := s.Client.ListSecrets(t.Context(), &kms.ListSecretsRequest{}); err != nil {
		t.Error(err)
	}
}
