package drain_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/internal/drain"
	"github.com/keyturn/keyturn/consumer/internal/standin"
)

const within = 10 * time.Minute

func promote(t *testing.T, e *standin.Endpoint, c *consumer.Consumer, version string) {
	t.Helper()
	e.Promote(version, version)
	if err := c.Refresh(t.Context(), "db"); err != nil {
		t.Fatal(err)
	}
}

func count(conns []*drain.Conn) (due int) {
	for _, c := range conns {
		if c.Due() {
			due++
		}
	}
	return due
}

// TestSpread holds that connections of a former version are due one after the other, none before one half of the limit and all
// at its end, and that those of the current one never are.
func TestSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, c := standin.New(t, "db", "v1", "v1")
		p := drain.New(c, "db", within)
		var conns []*drain.Conn
		for range 200 {
			conns = append(conns, p.Opened("v1"))
		}
		time.Sleep(3 * within)
		if due := count(conns); due > 0 {
			t.Errorf("%d connections of the current version are due", due)
		}
		promote(t, e, c, "v2")
		young := p.Opened("v2")
		time.Sleep(within/2 - time.Second)
		if due := count(conns); due > 0 {
			t.Errorf("%d are due before one half of the limit", due)
		}
		last, most := 0, 0
		for range 10 {
			time.Sleep(within / 20)
			due := count(conns)
			most = max(most, due-last)
			last = due
		}
		if most > 60 {
			t.Errorf("%d of 200 are due within one tenth of the time", most)
		}
		time.Sleep(2 * time.Second)
		if due := count(conns); due != len(conns) || young.Due() {
			t.Errorf("%d of %d are due in the end, one of the current version: %v", due, len(conns), young.Due())
		}
	})
}

// TestNotCurrentWhenOpened holds that a connection that was opened with the candidate lives, and is not due once that is current.
func TestNotCurrentWhenOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, c := standin.New(t, "db", "v1", "v1")
		p := drain.New(c, "db", within)
		_ = p.Opened("v1").Due()
		time.Sleep(3 * within)
		candidate, previous := p.Opened("v2"), p.Opened("v0")
		if candidate.Due() || previous.Due() {
			t.Error("a connection is due as soon as it is opened")
		}
		promote(t, e, c, "v2")
		time.Sleep(within + time.Second)
		if candidate.Due() || !previous.Due() {
			t.Errorf("of the candidate that was promoted %v, want false; of the former %v, want true", candidate.Due(), previous.Due())
		}
	})
}

// TestSeldomLookedAt holds that the time does not count from when somebody looks.
func TestSeldomLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, c := standin.New(t, "db", "v1", "v1")
		conn := drain.New(c, "db", within).Opened("v1")
		promote(t, e, c, "v2")
		time.Sleep(within + time.Second)
		if !conn.Due() {
			t.Error("it is not due, though the limit is over")
		}
	})
}

func TestHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, c := standin.New(t, "db", "v1", "v1")
		p := drain.New(c, "db", within)
		first, second := p.Opened("v1"), p.Opened("v1")
		promote(t, e, c, "v2")
		first.Closed()
		first.Closed() // counts once
		if held := standin.Held(t, c, "db"); held != "v1" {
			t.Errorf("with one of two open %q is held, want v1", held)
		}
		second.Closed()
		if held := standin.Held(t, c, "db"); held != "" {
			t.Errorf("%q is held by nobody", held)
		}
	})
}

func TestWithin(t *testing.T) {
	t.Parallel()
	if d, err := drain.Within(0); d != drain.DefaultWithin || err != nil {
		t.Errorf("%v, %v", d, err)
	}
	if _, err := drain.Within(-1); err == nil {
		t.Error("a negative limit is accepted")
	}
}

func BenchmarkDue(b *testing.B) {
	_, c := standin.New(b, "db", "v1", "v1")
	conn := drain.New(c, "db", within).Opened("v1")
	b.ReportAllocs()
	for b.Loop() {
		if conn.Due() {
			b.Fatal("due")
		}
	}
}
