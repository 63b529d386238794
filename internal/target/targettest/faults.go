package targettest

import (
	"context"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/target"
)

// lostReply cuts the connection at positions in the reply and verifies that Apply reports neither a
// success that did not happen nor, with certainty, a failure although the effect did happen.
func (h Harness) lostReply(t *testing.T, s target.Strategy) {
	h.overNetwork(t)
	direct := h.Open(t, h.Addr)
	c := h.change(t, direct, s)
	p := NewProxy(t, h.Addr)
	measure := h.Open(t, p.Addr())
	h.do(t, "Apply through the proxy", func(ctx context.Context) error { return measure.Apply(ctx, c) })
	_, length, _ := p.Passed()
	// Quarters, and positions near the end: with TLS, all but the last bytes are the handshake.
	cuts := []int{0, length / 4, length / 2, length * 3 / 4, length - 160, length - 80, length - 40, length - 1}
	for _, cut := range cuts {
		cut = max(cut, 0)
		c := h.change(t, direct, s)
		p.Set(Fault{}, Fault{After: cut, Kind: Reset})
		through := h.Open(t, p.Addr())
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		err := through.Apply(ctx, c)
		cancel()
		ctx, cancel = context.WithTimeout(t.Context(), timeout)
		in, lerr := h.Login(ctx, c.New)
		cancel()
		if lerr != nil {
			t.Fatal(lerr)
		}
		h.secrets.absent(t, err)
		if err == nil && !in {
			t.Errorf("cut after %d bytes of replies: Apply succeeded, and the credential does not authenticate", cut)
		}
		if class := target.ClassOf(err); err != nil && class != target.Unknown && in {
			t.Errorf(
				"cut after %d bytes of replies: Apply says %v (%v), and the credential authenticates", cut, class,
				err,
			)
		}
		p.Set(Fault{}, Fault{})
		through = h.Open(t, p.Addr()) // as for each step; another may have a connection from before
		h.do(t, "Apply again after a lost reply", func(ctx context.Context) error { return through.Apply(ctx, c) })
		h.works(t, direct, "after a lost reply and another Apply", c.New, true)
	}
}

// noVerdict cuts the connection at positions in the replies to a login with a good credential, and
// verifies that this does not count as a rejection.
func (h Harness) noVerdict(t *testing.T) {
	good := h.Account(t)
	p := NewProxy(t, h.Addr)
	tt := h.Open(t, p.Addr())
	h.do(t, "Verify through the proxy", func(ctx context.Context) error { return tt.Verify(ctx, good) })
	_, length, _ := p.Passed()
	const cuts = 12
	for i := range cuts {
		p.Set(Fault{}, Fault{After: length * i / cuts, Kind: Reset})
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		err := tt.Verify(ctx, good)
		cancel()
		if class := target.ClassOf(err); err != nil && class != target.Unknown && class != target.Unreachable {
			t.Errorf(
				"cut after %d of %d bytes of replies: Verify of a good credential: %v of class %v, want no verdict",
				length*i/cuts, length, err, class,
			)
		}
		h.secrets.absent(t, err)
	}
}

func (h Harness) unreachable(t *testing.T) {
	h.overNetwork(t)
	c := h.change(t, h.Open(t, h.Addr), h.Kind.Strategies[0])
	tt := h.Open(t, closedPort(t))
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	for what, err := range map[string]error{"Apply": tt.Apply(ctx, c), "Verify": tt.Verify(ctx, c.Old)} {
		if target.ClassOf(err) != target.Unreachable {
			t.Errorf("%s at a closed port: %v of class %v, want unreachable", what, err, target.ClassOf(err))
		}
		h.secrets.absent(t, err)
	}
}

// silent verifies that a call of a server that accepts connections and never answers ends with its
// context and gives no verdict.
func (h Harness) silent(t *testing.T) {
	h.overNetwork(t)
	p := NewProxy(t, h.Addr)
	p.Set(Fault{}, Fault{Kind: Silence})
	c := h.change(t, h.Open(t, h.Addr), h.Kind.Strategies[0])
	tt := h.Open(t, p.Addr())
	for what, call := range map[string]func(context.Context) error{
		"Apply":  func(ctx context.Context) error { return tt.Apply(ctx, c) },
		"Verify": func(ctx context.Context) error { return tt.Verify(ctx, c.Old) },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		began := time.Now()
		err := call(ctx)
		cancel()
		if class := target.ClassOf(err); err == nil || class != target.Unknown && class != target.Unreachable {
			t.Errorf("%s at a silent server: %v of class %v, want no verdict", what, err, class)
		}
		h.secrets.absent(t, err)
		if took := time.Since(began); took > patience+5*time.Second {
			t.Errorf("%s at a silent server took %v with a context of %v", what, took, patience)
		}
	}
}
