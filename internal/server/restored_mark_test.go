package server

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/internal/store"
)

// TestMark verifies that a store counts as restored from a copy when it is another store or is
// behind, and a data directory when its files are copies, even without any other sign. A store that
// has only moved on does not.
func TestMark(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, markName)
	at := store.Position{Cluster: 1 << 63, Revision: 100}
	if _, ok, err := readMark(path); ok || err != nil {
		t.Fatalf("there is a mark: %v", err)
	}
	for range 2 {
		if err := writeMark(path, at); err != nil {
			t.Fatal(err)
		}
	}
	m, ok, err := readMark(path)
	if err != nil || !ok {
		t.Fatalf("the mark: %v, %v", ok, err)
	}
	for _, tt := range []struct {
		p    store.Position
		file string
		want string
	}{
		{at, fileIdentity(path), ""},
		{store.Position{Cluster: 1 << 63, Revision: 101}, fileIdentity(path), ""},
		{at, "", ""},
		{store.Position{Cluster: 1 << 63, Revision: 99}, fileIdentity(path), "this node has seen a later state of it"},
		{store.Position{Cluster: 2, Revision: 100}, fileIdentity(path), "it is not the store that this node used before"},
		{at, "1-2.3", "the data directory is a copy"},
	} {
		want := tt.want
		if m.File == "" && tt.file == "1-2.3" {
			want = "" // the file system has no identities
		}
		if got := m.restored(tt.p, tt.file); got != want {
			t.Errorf("at %+v, file %q: %q, want %q", tt.p, tt.file, got, want)
		}
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if m, ok, err := readMark(path); err != nil || !ok || m.restored(at, "") == "" {
		t.Errorf("a damaged mark: %+v, %v, %v; want one of another store", m, ok, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("beside the mark there is more: %v", left)
	}
}

// TestFileIdentity: a file that is renamed stays what it is, and no copy is, in whatever way it was
// made.
func TestFileIdentity(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, copied := filepath.Join(dir, "file"), filepath.Join(dir, "copy")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	first := fileIdentity(file)
	if first == "" {
		t.Skip("this file system does not keep when a file was made")
	}
	if out, err := exec.Command("cp", "-a", file, copied).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Remove(file); err != nil { // its inode may be used again
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", copied, file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if again := fileIdentity(file); again == first || again == "" {
		t.Errorf("a copy under the name of the first has the identity %q; the first had %q", again, first)
	}
	was := fileIdentity(copied)
	if err := os.Rename(copied, file); err != nil {
		t.Fatal(err)
	}
	if now := fileIdentity(file); now != was {
		t.Errorf("renamed it is %q, and was %q", now, was)
	}
	if fileIdentity(filepath.Join(dir, "none")) != "" {
		t.Error("no file has an identity")
	}
}
