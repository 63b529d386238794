package envelope

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/cmk"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/sensitive"
)

func keyring(t testing.TB) (*Keyring, cmk.Key) {
	t.Helper()
	k, err := root.New(bytes.Repeat([]byte{7}, 32), "test")
	if err != nil {
		t.Fatal(err)
	}
	r := New(k)
	key, err := r.NewKey("1", "k1", cmk.DefaultCreator, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	return r, key
}

func TestSealOpen(t *testing.T) {
	t.Parallel()
	r, key := keyring(t)
	where := Binding{Account: "1", Secret: "app/db", Version: "v1"}
	box, err := r.Seal(key, where, sensitive.New("value"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(box, []byte("value")) {
		t.Error("the value is in the box in clear")
	}
	fresh := New(r.root) // no unwrapped key in memory, as after a restart
	if got, err := fresh.Open(key, where, box); err != nil || got.Reveal() != "value" {
		t.Errorf("Open = %v; want the value", err)
	}
	for _, other := range []Binding{
		{"2", "app/db", "v1"}, {"1", "app/d", "bv1"}, {"1", "app/db", "v2"}, {"1", "app", "/dbv1"}, {},
	} {
		if _, err := r.Open(key, other, box); !errors.Is(err, ErrDamaged) {
			t.Errorf("moved to %+v: %v, want ErrDamaged", other, err)
		}
	}
	_, otherKey := keyring(t)
	if _, err := r.Open(otherKey, where, box); !errors.Is(err, ErrDamaged) {
		t.Errorf("under another key: %v", err)
	}
}

func TestTampered(t *testing.T) {
	t.Parallel()
	r, key := keyring(t)
	where := Binding{Account: "1", Secret: "app/db", Version: "v1"}
	box, err := r.Seal(key, where, sensitive.New("value"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Open(key, where, box); err != nil { // its data key is remembered from here on
		t.Fatal(err)
	}
	for i := range box {
		bad := bytes.Clone(box)
		bad[i] ^= 1
		if _, err := r.Open(key, where, bad); !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d changed: %v, want ErrDamaged", i, err)
		}
		if _, err := r.Open(key, where, box[:i]); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut at byte %d: %v, want ErrDamaged", i, err)
		}
	}
}

// TestDataKeys holds that a remembered data key opens no other record's box, and that only so many
// are remembered.
func TestDataKeys(t *testing.T) {
	t.Parallel()
	r, key := keyring(t)
	where := Binding{Account: "1", Secret: "app/db", Version: "v1"}
	for i := range 3 * maxDataKeys {
		box, err := r.Seal(key, where, sensitive.New("value"))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got, err := r.Open(key, where, box); err != nil || got.Reveal() != "value" {
				t.Fatalf("box %d: %v", i, err)
			}
		}
		for _, other := range []Binding{{"2", "app/db", "v1"}, {"1", "app/dc", "v1"}, {"1", "app/db", "v2"}} {
			if _, err := r.Open(key, other, box); !errors.Is(err, ErrDamaged) {
				t.Fatalf("box %d opens as %v", i, other)
			}
		}
	}
	if n := len(r.data.young) + len(r.data.old); n <= maxDataKeys || n > 2*maxDataKeys {
		t.Errorf("%d data keys are remembered, want at most two generations of %d", n, maxDataKeys)
	}
}

func TestDigest(t *testing.T) {
	t.Parallel()
	r, key := keyring(t)
	where := Binding{Account: "1", Secret: "a", Version: "v1"}
	digest := func(k cmk.Key, b Binding, v string) [32]byte {
		d, err := r.Digest(k, b, sensitive.New(v))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if again := digest(key, where, "x"); again != digest(key, where, "x") {
		t.Error("equal values have different digests")
	}
	otherRing, otherKey := keyring(t)
	other, err := otherRing.Digest(otherKey, where, sensitive.New("x"))
	if err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string][32]byte{
		"another value": digest(key, where, "y"), "another version": digest(key, Binding{"1", "a", "v2"}, "x"),
		"another key": other,
	} {
		if d == digest(key, where, "x") {
			t.Errorf("%s has the same digest", name)
		}
	}
}

func TestDisabledKey(t *testing.T) {
	t.Parallel()
	r, key := keyring(t)
	key.State = "Disabled"
	if _, err := r.Seal(key, Binding{}, sensitive.New("x")); fault.KindOf(err) != fault.KeyDisabled {
		t.Errorf("Seal: %v", err)
	}
	if _, err := r.Open(key, Binding{}, nil); fault.KindOf(err) != fault.KeyDisabled {
		t.Errorf("Open: %v", err)
	}
}

func TestAccessKey(t *testing.T) {
	t.Parallel()
	r, _ := keyring(t)
	sealed := r.SealAccessKey("id", "secret", sensitive.New("x"))
	if got, err := r.OpenAccessKey("id", "secret", sealed); err != nil || got.Reveal() != "x" {
		t.Errorf("OpenAccessKey: %v", err)
	}
	if _, err := r.OpenAccessKey("other", "secret", sealed); err == nil {
		t.Error("it opens for another key")
	}
	if _, err := r.OpenAccessKey("id", "token", sealed); err == nil {
		t.Error("it opens as another part")
	}
}

func TestRecords(t *testing.T) {
	t.Parallel()
	r, _ := keyring(t)
	records, sealed, err := r.NewRecords()
	if err != nil {
		t.Fatal(err)
	}
	tag := records.Tag(0, "a", []byte("bc"))
	if again, err := r.OpenRecords(map[uint32][]byte{0: sealed}); err != nil ||
		!bytes.Equal(again.Tag(0, "a", []byte("bc")), tag) {
		t.Errorf("opened again, it makes another tag: %v", err)
	}
	for _, other := range [][]byte{records.Tag(0, "ab", []byte("c")), records.Tag(0, "b", []byte("bc")),
		records.Tag(0, "a", []byte("bd")), records.Tag(0, "", []byte("abc"))} {
		if bytes.Equal(other, tag) {
			t.Error("another record has the same tag")
		}
	}
	if store, _, err := r.NewRecords(); err != nil || bytes.Equal(store.Tag(0, "a", []byte("bc")), tag) {
		t.Errorf("another store of the same root key makes the same tag: %v", err)
	}
	other, err := root.New(bytes.Repeat([]byte{8}, 32), "test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(other).OpenRecords(map[uint32][]byte{0: sealed}); err == nil ||
		!strings.Contains(err.Error(), "another root key") {
		t.Errorf("with another root key: %v", err)
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := r.OpenRecords(map[uint32][]byte{0: sealed}); err == nil {
		t.Error("a damaged key opens")
	}
}
