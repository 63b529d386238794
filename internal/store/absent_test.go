package store

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// TestAbsentIsReadFromMemory verifies that a secret which is not there costs no more reads of the
// store than one that is, and that it is seen as soon as it is there.
func TestAbsentIsReadFromMemory(t *testing.T) {
	t.Parallel()
	db := openMirrored(t, 0)
	if _, err := count(t.Context(), db, "there"); err != nil {
		t.Fatal(err)
	}
	for ok, err := false, error(nil); !ok; runtime.Gosched() { // until the watch is there that feeds the memory
		if _, ok, err = db.mirror.barrier(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	look := func(name string) (ok bool) {
		t.Helper()
		_, ok, err := Snapshot(t.Context(), db).Secret("a", name, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	for _, name := range []string{"there", "absent"} {
		look(name)
		reads := CountReads(db)
		for range 10 {
			look(name)
		}
		if n := reads.Load(); n != 0 {
			t.Errorf("ten more reads of %q are %d reads of the store; want 0", name, n)
		}
	}
	for i := range 20 {
		name := fmt.Sprint("later/", i)
		for range 2 { // from the store, and from memory
			if look(name) {
				t.Fatalf("%s is there already", name)
			}
		}
		if _, err := count(t.Context(), db, name); err != nil {
			t.Fatal(err)
		}
		if !look(name) {
			t.Fatalf("%s was stored and is not seen", name)
		}
		err := Do(t.Context(), db, func(tx *Tx) error {
			if _, _, err := tx.Secret("a", name, time.Time{}); err != nil {
				return err
			}
			return tx.DeleteSecret("a", name)
		})
		if err != nil {
			t.Fatal(err)
		}
		if look(name) {
			t.Fatalf("%s was deleted and is seen", name)
		}
	}
}

// TestAbsentIsBounded verifies that names which are not there push out neither records nor more
// than their share of memory.
func TestAbsentIsBounded(t *testing.T) {
	t.Parallel()
	m := newMirror(nil, "", true, 0, nil)
	m.applied = 1
	m.keep("secret/a/there", []byte("record"), 1, 1)
	for i := range 3 * maxAbsent {
		m.keep(fmt.Sprint("secret/a/absent", i), nil, 1, 1)
	}
	if n := len(m.entries); n != maxAbsent+1 || m.find("secret/a/there", 1) == nil {
		t.Errorf("%d entries; want %d, one of them a record", n, maxAbsent+1)
	}
}
