package root

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func twoKeys(t *testing.T) (first, second *Key) {
	t.Helper()
	var err error
	if first, err = New(bytes.Repeat([]byte{1}, keySize), "test"); err != nil {
		t.Fatal(err)
	}
	if second, err = New(bytes.Repeat([]byte{2}, keySize), "test"); err != nil {
		t.Fatal(err)
	}
	return first, second
}

// TestRing verifies that a ring opens what each of its keys has wrapped, in both formats, and wraps
// under the one that is used.
func TestRing(t *testing.T) {
	t.Parallel()
	first, second := twoKeys(t)
	before := NewRing(first).Wrap([]byte("old"), []byte("place"))
	r := NewRing(first, second)
	if !r.IsCurrent(before) {
		t.Error("a store whose root key was never replaced is not current")
	}
	if err := r.Use(second.ID()); err != nil {
		t.Fatal(err)
	}
	after := r.Wrap([]byte("new"), []byte("place"))
	if r.IsCurrent(before) || !r.IsCurrent(after) {
		t.Error("what the former key wrapped is current, or what the new one wrapped is not")
	}
	for box, want := range map[string]string{string(before): "old", string(after): "new"} {
		if plain, err := r.Unwrap([]byte(box), []byte("place")); err != nil || string(plain) != want {
			t.Errorf("Unwrap = %q, %v; want %q", plain, err, want)
		}
	}
	if _, err := NewRing(first).Unwrap(after, []byte("place")); err == nil || !strings.Contains(err.Error(), second.ID()) {
		t.Errorf("without the key: %v, want its ID", err)
	}
	if _, err := NewRing(second).Unwrap(before, []byte("place")); err == nil {
		t.Error("the new key opens what the former wrapped")
	}
	for i := range after {
		bad := bytes.Clone(after)
		bad[i] ^= 1
		if _, err := r.Unwrap(bad, []byte("place")); err == nil {
			t.Errorf("byte %d changed, and it opens", i)
		}
		if _, err := r.Unwrap(after[:i], []byte("place")); err == nil {
			t.Errorf("cut at byte %d, and it opens", i)
		}
	}
}

// TestRingReload gives a running ring a key that its file got meanwhile, as on the other nodes of a
// cluster.
func TestRingReload(t *testing.T) {
	t.Parallel()
	first, second := twoKeys(t)
	f := File{Path: filepath.Join(t.TempDir(), "root.key")}
	if err := f.Keep([]*Key{first}); err != nil {
		t.Fatal(err)
	}
	r, err := f.Load(false)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Keep([]*Key{first, second}); err != nil {
		t.Fatal(err)
	}
	other := NewRing(second)
	if err := other.Use(second.ID()); err != nil {
		t.Fatal(err)
	}
	if plain, err := r.Unwrap(other.Wrap([]byte("x"), nil), nil); err != nil || string(plain) != "x" {
		t.Errorf("Unwrap with a key that was added to the file: %q, %v", plain, err)
	}
	if r.Current().ID() != first.ID() {
		t.Error("the key that wraps has changed")
	}
}

func TestManyKeys(t *testing.T) {
	first, second := twoKeys(t)
	one, two := Text(first.material), Text(second.material)
	for name, tt := range map[string]struct {
		text string
		want int
	}{
		"one": {one, 1}, "two": {one + "\n" + two + "\n", 2}, "blank line between": {one + "\n\n" + two, 2},
		"twice": {one + "\n" + one, 0}, "garbage": {one + "\nx", 0}, "none": {"\n", 0},
	} {
		path := filepath.Join(t.TempDir(), "root.key")
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := File{Path: path}.Load(false)
		if (err == nil) != (tt.want > 0) || err == nil && len(r.Keys()) != tt.want {
			t.Errorf("%s: %v, want %d keys", name, err, tt.want)
		}
	}
	t.Setenv("KEYTURN_TEST_ROOT", one)
	t.Setenv("KEYTURN_TEST_ROOT"+Additional, two)
	if r, err := (Env{Variable: "KEYTURN_TEST_ROOT"}).Load(false); err != nil || len(r.Keys()) != 2 ||
		r.Current().ID() != first.ID() {
		t.Errorf("from two variables: %v", err)
	}
}
