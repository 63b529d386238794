package auth_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/auth"
	"github.com/keyturn/keyturn/internal/fault"
)

func newNonces(limit int) *auth.Nonces { return auth.NewNonces(limit, nil, time.Time{}, nil) }

// memory is a nonce memory under test.
type memory struct{ *auth.Nonces }

func (m memory) use(key, nonce string, at, now time.Time) fault.Kind {
	return fault.KindOf(m.Use(key, nonce, at, now))
}

// fill makes n requests of a key at a time and returns how many were accepted.
func (m memory) fill(key string, n int, at, now time.Time) (accepted int) {
	for i := range n {
		if m.use(key, fmt.Sprint(key, at.Unix(), i), at, now) == fault.OK {
			accepted++
		}
	}
	return accepted
}

func TestNonceIsFreeAfterTheWindow(t *testing.T) {
	t.Parallel()
	m := memory{newNonces(0)}
	later := now.Add(time.Hour)
	if a, b, c := m.use("k", "a", now, now), m.use("k", "a", now, now), m.use("k", "a", later, later); a != fault.OK ||
		b != fault.Replayed || c != fault.OK {
		t.Errorf("kinds %d, %d, %d", a, b, c)
	}
	if m.Len() != 1 {
		t.Errorf("%d nonces are remembered, want 1", m.Len())
	}
}

// TestFloodHarmsItselfAlone verifies that a key that fills the memory, with times of now or as far
// ahead as is accepted, is throttled, and that no request of another key is refused.
func TestFloodHarmsItselfAlone(t *testing.T) {
	t.Parallel()
	const limit = 1000
	for _, ahead := range []time.Duration{0, -5 * time.Minute, auth.DefaultAhead} {
		t.Run(ahead.String(), func(t *testing.T) {
			t.Parallel()
			m := memory{newNonces(limit)}
			victims := 0
			for minute := range 40 {
				at := now.Add(time.Duration(minute) * time.Minute)
				m.fill("flood", 5*limit, at.Add(ahead), at)
				for _, skew := range []time.Duration{-10 * time.Minute, -time.Minute, 0, time.Minute} {
					nonce := fmt.Sprint(minute, skew)
					if kind := m.use("victim", nonce, at.Add(skew), at); kind != fault.OK {
						t.Fatalf("minute %d: a request of another key %v from now: kind %d", minute, skew, kind)
					}
					if kind := m.use("victim", nonce, at.Add(skew), at); kind != fault.Replayed {
						t.Fatalf("minute %d: its replay: kind %d, want Replayed", minute, kind)
					}
					victims++
				}
				if m.Len() > limit {
					t.Fatalf("%d nonces are remembered, the limit is %d", m.Len(), limit)
				}
			}
			t.Logf("%d requests of the victim were accepted once", victims)
		})
	}
}

// TestFullMemoryThrottles verifies that a key that is alone and fills the memory gets an error that
// clients retry, goes on with recent requests, and that nothing it sent is accepted a second time.
func TestFullMemoryThrottles(t *testing.T) {
	t.Parallel()
	const limit = 100
	m := memory{newNonces(limit)}
	if n := m.fill("k", limit, now, now); n != limit {
		t.Fatalf("%d of %d were accepted", n, limit)
	}
	if kind := m.use("k", "one more", now, now); kind != fault.Throttled {
		t.Errorf("one more than fits: kind %d, want Throttled", kind)
	}
	later := now.Add(2 * time.Minute)
	if kind := m.use("k", "later", later, later); kind != fault.OK {
		t.Errorf("a request two minutes later: kind %d; the older ones make room", kind)
	}
	for i := range limit {
		if kind := m.use("k", fmt.Sprint("k", now.Unix(), i), now, later); kind == fault.OK {
			t.Fatalf("request %d was accepted again", i)
		}
	}
	if kind := m.use("k", "unused, of a time that was forgotten", now, later); kind != fault.Throttled {
		t.Errorf("an older time: kind %d, want Throttled", kind)
	}
}

// TestNonceHistories makes random requests of several keys under a small memory and a clock that
// jumps, and verifies that none is accepted twice.
func TestNonceHistories(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 1))
		m := memory{newNonces(1 + random.IntN(50))}
		type request struct {
			key, nonce string
			at         time.Time
		}
		accepted := map[request]bool{}
		var sent []request
		clock := now
		for range 5000 {
			switch random.IntN(50) {
			case 0:
				clock = clock.Add(time.Duration(random.IntN(7200)-3600) * time.Second)
			default:
				clock = clock.Add(time.Duration(random.IntN(4)) * time.Second)
			}
			var r request
			if len(sent) > 0 && random.IntN(3) == 0 {
				r = sent[random.IntN(len(sent))]
			} else {
				at := clock.Add(time.Duration(random.IntN(1020)-900) * time.Second)
				r = request{fmt.Sprint(random.IntN(5)), fmt.Sprint(len(sent)), at}
				sent = append(sent, r)
			}
			if r.at.Before(clock.Add(-auth.Window)) || r.at.After(clock.Add(auth.DefaultAhead)) {
				continue
			}
			if m.use(r.key, r.nonce, r.at, clock) == fault.OK {
				if accepted[r] {
					t.Fatalf("seed %d: %v was accepted twice", seed, r)
				}
				accepted[r] = true
			}
		}
		if len(accepted) == 0 {
			t.Errorf("seed %d: nothing was accepted", seed)
		}
	}
}

// TestClockJump holds that a clock that runs ahead and comes back stops nobody, and lets no replay
// through.
func TestClockJump(t *testing.T) {
	t.Parallel()
	n := newNonces(0)
	use := func(nonce string, at, now time.Time) fault.Kind { return fault.KindOf(n.Use("k", nonce, at, now)) }
	ahead, back := now.Add(24*time.Hour), now.Add(time.Minute)
	for _, step := range []struct {
		nonce   string
		at, now time.Time
		want    fault.Kind
	}{
		{"a", now, now, fault.OK}, {"b", ahead, ahead, fault.OK}, {"c", back, back, fault.OK},
		{"a", now, back, fault.Expired}, {"c", back, back, fault.Replayed},
	} {
		if got := use(step.nonce, step.at, step.now); got != step.want {
			t.Errorf("nonce %s of %v at %v: kind %d, want %d", step.nonce, step.at, step.now, got, step.want)
		}
	}
}
