package root

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFile(t *testing.T) {
	t.Parallel()
	f := File{Path: filepath.Join(t.TempDir(), "root.key")}
	if _, err := f.Load(false); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Fatalf("a missing key is never made over a store: %v", err)
	}
	made, err := f.Load(true)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(f.Path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	again, err := f.Load(true)
	if err != nil {
		t.Fatal(err)
	}
	box := made.Wrap([]byte("plain"), []byte("place"))
	if plain, err := again.Unwrap(box, []byte("place")); err != nil || string(plain) != "plain" {
		t.Errorf("the key read again opens what the one made has sealed: %q, %v", plain, err)
	}
	if _, err := again.Unwrap(box, []byte("other")); err == nil {
		t.Error("it opens in another place")
	}
	if err := os.Chmod(f.Path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Load(false); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others may read: %v", err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(f.Path)); len(entries) != 1 {
		t.Errorf("%d files left in the directory, want the key alone", len(entries))
	}
}

func TestUnwrapTampered(t *testing.T) {
	t.Parallel()
	k, err := New(bytes.Repeat([]byte{7}, 32), "test")
	if err != nil {
		t.Fatal(err)
	}
	box := k.Wrap([]byte("plain"), nil)
	for i := range box {
		bad := bytes.Clone(box)
		bad[i] ^= 1
		if _, err := k.Unwrap(bad, nil); err == nil {
			t.Errorf("byte %d changed, and it opens", i)
		}
		if _, err := k.Unwrap(box[:i], nil); err == nil {
			t.Errorf("cut at byte %d, and it opens", i)
		}
	}
}

func TestEnv(t *testing.T) {
	material := bytes.Repeat([]byte{7}, 32)
	for name, tt := range map[string]struct{ value, text string }{
		"unset": {"", "not set"}, "short": {"AAAA", "32"}, "not Base64": {"*secret*", "Base64"},
		"bare": {Text(material)[len(prefix):], ""}, "as in a file": {Text(material) + "\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("KEYTURN_TEST_ROOT", tt.value)
			_, err := Env{Variable: "KEYTURN_TEST_ROOT"}.Load(true)
			if (err == nil) != (tt.text == "") || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("Load = %v, want an error that says %q", err, tt.text)
			}
			if err != nil && tt.value != "" && strings.Contains(err.Error(), tt.value) {
				t.Errorf("the error quotes the key: %v", err)
			}
		})
	}
}
