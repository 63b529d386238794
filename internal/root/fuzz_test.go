package root

import (
	"strings"
	"testing"
)

// FuzzParse reads root keys as people keep them. An error must not quote what may be most of a key.
func FuzzParse(f *testing.F) {
	good := Text(make([]byte, keySize))
	for _, s := range []string{good, good + "\n", strings.TrimPrefix(good, prefix), good[:40], prefix, "", "  ", prefix +
		good} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		k, err := parse(text, "test")
		if err != nil {
			if s := strings.TrimSpace(text); len(s) > 12 && strings.Contains(err.Error(), s) && !strings.HasPrefix(prefix, s) {
				t.Fatal("the error quotes the key")
			}
			return
		}
		plain, err := k.Unwrap(k.Wrap([]byte("x"), nil), nil)
		if err != nil || string(plain) != "x" {
			t.Fatalf("an accepted key does not open what it has wrapped: %v", err)
		}
	})
}

// FuzzUnwrap offers what was not wrapped.
func FuzzUnwrap(f *testing.F) {
	k, err := New(make([]byte, keySize), "test")
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{}, []byte{})
	f.Add([]byte{version}, []byte("x"))
	f.Add(make([]byte, 64), []byte("x"))
	f.Fuzz(func(t *testing.T, wrapped, additional []byte) {
		if plain, err := k.Unwrap(wrapped, additional); err == nil {
			t.Fatalf("%d bytes that nobody wrapped open as %d bytes", len(wrapped), len(plain))
		}
	})
}
