package consumer

import (
	"testing"
	"time"
)

func TestUsage(t *testing.T) {
	t.Parallel()
	var u usage
	want := func(current, oldest string) {
		t.Helper()
		if u.current != current || u.oldest() != oldest {
			t.Errorf("current %q, oldest %q; want %q, %q (%v)", u.current, u.oldest(), current, oldest, u.order)
		}
	}
	want("", "")
	u.setCurrent("v1")
	u.add("v1")
	u.add("v1")
	want("v1", "")
	u.setCurrent("v2")
	want("v2", "v1")
	u.add("v2")
	u.setCurrent("v3")
	want("v3", "v1")
	u.remove("v1")
	want("v3", "v1")
	u.remove("v1")
	want("v3", "v2")
	u.setCurrent("v2") // rolled back
	want("v2", "")
	u.add("v0") // opened while it was replaced
	want("v2", "v0")
	u.remove("v0")
	u.candidate = "v4"
	u.add("v4")
	want("v2", "")
	u.setCurrent("v4")
	want("v4", "v2")
	u.setCurrent("")
	want("", "v2")
	u.remove("v2")
	u.remove("v4")
	want("", "")
	if len(u.held) != 0 || len(u.order) != 0 {
		t.Errorf("held %v, order %v remain", u.held, u.order)
	}
}

func TestHold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake()
		f.put("db", "v1", "one")
		c, _ := start(t, f, func(c *Config) { c.NoPush = true })
		c.Hold("never read", "v1")()
		mustGet(t, c, "db", "v1")
		release := c.Hold("db", "v1")
		f.put("db", "v2", "two")
		if err := c.Refresh(t.Context(), "db"); err != nil {
			t.Fatal(err)
		}
		if s := c.Status()[0]; s.VersionID != "v2" || s.OldestVersionID != "v1" {
			t.Errorf("status %+v", s)
		}
		for range 2 {
			release()
		}
		if s := c.Status()[0]; s.OldestVersionID != "" {
			t.Errorf("status %+v after the release", s)
		}
	})
}

func TestChanges(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake()
		f.put("a", "v1", "one")
		f.put("b", "v1", "one")
		c, _ := start(t, f, func(c *Config) { c.NoPush = true })
		mustGet(t, c, "a", "v1")
		mustGet(t, c, "b", "v1")
		all, stopAll := c.Changes()
		onlyB, stopB := c.Changes("b")
		defer stopAll()
		signals := func(ch <-chan struct{}) int {
			select {
			case <-ch:
				return 1
			default:
				return 0
			}
		}
		step := func(what string, wantAll, wantB int) {
			t.Helper()
			time.Sleep(time.Second)
			if a, b := signals(all), signals(onlyB); a != wantAll || b != wantB {
				t.Errorf("%s: signals %d and %d, want %d and %d", what, a, b, wantAll, wantB)
			}
		}
		refresh := func(name string) { time.Sleep(time.Second); _ = c.Refresh(t.Context(), name) }
		refresh("a")
		step("nothing new", 0, 0)
		f.put("a", "v2", "two")
		refresh("a")
		step("a", 1, 0)
		f.put("b", "v2", "two")
		refresh("b")
		f.put("b", "v3", "three")
		refresh("b")
		step("b twice", 1, 1)
		f.fail("b", problem(404, "Forbidden.ResourceNotFound"))
		refresh("b")
		step("one answer that it is absent", 0, 0)
		time.Sleep(confirmGap)
		step("two", 1, 1)
		stopB()
		f.fail("b", nil)
		time.Sleep(5 * time.Minute)
		step("back, and stopped", 1, 0)
	})
}
