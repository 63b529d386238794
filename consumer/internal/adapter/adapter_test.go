package adapter_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/consumertest"
	"github.com/keyturn/keyturn/consumer/internal/adapter"
)

const within = 10 * time.Minute

func promote(t *testing.T, e *consumertest.Endpoint, c *consumer.Consumer, version string) {
	t.Helper()
	e.Put("db", version, version)
	if err := c.Refresh(t.Context(), "db"); err != nil {
		t.Fatal(err)
	}
}

func count(conns []*adapter.Conn) (due int) {
	for _, c := range conns {
		if c.Due() {
			due++
		}
	}
	return due
}

// TestSpread verifies that connections of the previous version become due one after the other, none
// before one half of the limit and all by its end, and that connections of the current version
// never do.
func TestSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, c := consumertest.New(t, "db", "v1", "v1")
		p := newAdapter(t, c)
		var conns []*adapter.Conn
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

// TestNotCurrentWhenOpened verifies that a connection opened with the candidate is not due, also
// after the candidate has become current.
func TestNotCurrentWhenOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, c := consumertest.New(t, "db", "v1", "v1")
		p := newAdapter(t, c)
		_ = p.Opened("v1").Due()
		time.Sleep(3 * within)
		candidate, previous := p.Opened("v2"), p.Opened("v0")
		if candidate.Due() || previous.Due() {
			t.Error("a connection is due as soon as it is opened")
		}
		promote(t, e, c, "v2")
		time.Sleep(within + time.Second)
		if candidate.Due() || !previous.Due() {
			t.Errorf("of the candidate that was promoted %v, want false; of the former %v, want true",
				candidate.Due(), previous.Due())
		}
	})
}

// TestSeldomLookedAt verifies that the limit counts from the promotion and not from the first check
// after it.
func TestSeldomLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, c := consumertest.New(t, "db", "v1", "v1")
		conn := newAdapter(t, c).Opened("v1")
		promote(t, e, c, "v2")
		time.Sleep(within + time.Second)
		if !conn.Due() {
			t.Error("it is not due, though the limit is over")
		}
	})
}

func TestHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, c := consumertest.New(t, "db", "v1", "v1")
		p := newAdapter(t, c)
		first, second := p.Opened("v1"), p.Opened("v1")
		promote(t, e, c, "v2")
		first.Closed()
		first.Closed() // counts once
		if held := consumertest.Held(t, c, "db"); held != "v1" {
			t.Errorf("with one of two open %q is held, want v1", held)
		}
		second.Closed()
		if held := consumertest.Held(t, c, "db"); held != "" {
			t.Errorf("%q is held, want no hold", held)
		}
	})
}

// TestNew verifies that New names what is wrong, with the package of the adapter, and completes the
// options.
func TestNew(t *testing.T) {
	t.Parallel()
	_, c := consumertest.New(t, "db", "v1", "v1")
	rejected := func(error) bool { return true }
	a, err := adapter.New("xauth", c, "db", nil, rejected)
	if err != nil || a.Options.DrainWithin != adapter.DefaultDrainWithin || a.Options.Rejected == nil {
		t.Errorf("the options are not completed: %+v, %v", a, err)
	}
	for want, try := range map[string]func() (*adapter.Adapter, error){
		"xauth: the consumer is missing": func() (*adapter.Adapter, error) {
			return adapter.New("xauth", nil, "db", nil, rejected)
		},
		"xauth: the name of the secret is missing": func() (*adapter.Adapter, error) {
			return adapter.New("xauth", c, "", nil, rejected)
		},
		"xauth: DrainWithin is -1ns": func() (*adapter.Adapter, error) {
			return adapter.New("xauth", c, "db", &adapter.Options{DrainWithin: -1}, rejected)
		},
	} {
		if _, err := try(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want an error that begins with %q", err, want)
		}
	}
}

func newAdapter(t testing.TB, c *consumer.Consumer) *adapter.Adapter {
	t.Helper()
	a, err := adapter.New("test", c, "db", &adapter.Options{DrainWithin: within}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func BenchmarkDue(b *testing.B) {
	_, c := consumertest.New(b, "db", "v1", "v1")
	conn := newAdapter(b, c).Opened("v1")
	b.ReportAllocs()
	for b.Loop() {
		if conn.Due() {
			b.Fatal("due")
		}
	}
}
