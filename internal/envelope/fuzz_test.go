package envelope

import (
	"bytes"
	"errors"
	"testing"

	"github.com/keyturn/keyturn/sensitive"
)

// FuzzOpen offers boxes that were not sealed: none opens but the one that was, and each is refused
// as damaged.
func FuzzOpen(f *testing.F) {
	r, key := keyring(f)
	where := Binding{Account: "1", Secret: "app/db", Version: "v1"}
	good, err := r.Seal(key, where, sensitive.New("value"))
	if err != nil {
		f.Fatal(err)
	}
	// Keys are drawn anew each time, so a kept input knows them not; the place of a box's parts is
	// what it shows.
	f.Add(good, uint16(0), byte(0))
	f.Add(good[:len(good)-1], uint16(3), byte(1))
	f.Add([]byte{format}, uint16(0), byte(0))
	f.Add([]byte{format, 255}, uint16(0), byte(0))
	f.Add(append([]byte{format, 0}, make([]byte, wrappedSize)...), uint16(0), byte(0))
	f.Fuzz(func(t *testing.T, box []byte, at uint16, flip byte) {
		changed := bytes.Clone(good)
		changed[int(at)%len(changed)] ^= flip
		for _, b := range [][]byte{box, changed, append(bytes.Clone(good), box...), append(bytes.Clone(box), good...),
			append(bytes.Clone(good[:2+len(key.Primary)]), box...)} {
			v, err := r.Open(key, where, b)
			switch {
			case bytes.Equal(b, good):
				if err != nil || v.Reveal() != "value" {
					t.Fatalf("the box that was sealed: %v", err)
				}
			case !errors.Is(err, ErrDamaged):
				t.Fatalf("a box of %d bytes that was not sealed: %v; want ErrDamaged", len(b), err)
			}
		}
	})
}

// FuzzAdditional holds that two lists of parts never make the same additional data.
func FuzzAdditional(f *testing.F) {
	f.Add("1", "app/db", "1", "app/db")
	f.Add("1", "app", "1a", "pp")
	f.Add("", "\x01a", "\x01", "a")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		if same := a == c && b == d; bytes.Equal(additional("x", a, b), additional("x", c, d)) != same {
			t.Fatalf("(%q, %q) and (%q, %q) are told apart: %v", a, b, c, d, same)
		}
		if bytes.Equal(additional("x", a, b), additional("x", a+b)) {
			t.Fatalf("two parts are the same as one: %q, %q", a, b)
		}
	})
}
