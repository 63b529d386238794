package api

import (
	"fmt"
	"testing"
)

// TestNoteQueueShares verifies that a full queue keeps the notes of a key with few, admits notes of
// other keys, and gives each key its part of a batch.
func TestNoteQueueShares(t *testing.T) {
	t.Parallel()
	q := newNoteQueue[string](100)
	id := func(key string, i int) consumerID {
		return consumerID{key: key, instance: fmt.Sprint(i), account: "a", secret: "s"}
	}
	q.put(id("early", 0), "early")
	lost := 0
	for i := range 1000 {
		own, _ := q.put(id("flood", i), "flood")
		lost += own
	}
	if q.count != 100 || lost != 901 {
		t.Fatalf("%d notes, %d found no room", q.count, lost)
	}
	for i := range 10 {
		if own, other := q.put(id("late", i), "late"); own != 0 || other != 1 {
			t.Fatal("a flood keeps the notes of another key out")
		}
	}
	if _, ok := q.get(id("early", 0)); !ok {
		t.Error("a flood displaces the note of another key")
	}
	got := map[string]int{}
	for _, key := range q.take(21, nil) {
		got[key]++
	}
	if got["early"] != 1 || got["late"] < 7 {
		t.Errorf("a batch of 21 has %v", got)
	}
	if rest := q.take(1000, nil); len(rest) != 79 || q.count != 0 || len(q.by) != 0 {
		t.Errorf("%d are left, then %d of %d keys", len(rest), q.count, len(q.by))
	}
}
