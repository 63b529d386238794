package targettest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/target"
)

// absent is the name of an account that no server has.
const absent = "no-account-of-that-name"

// Standing says which accounts of a server are more than ordinary ones.
type Standing struct {
	// Spellings lists names, besides the one in use, that the server takes for the administrator's
	// account.
	Spellings []string
	// Others lists names that resemble the administrator's and belong to other accounts.
	Others []string
	// Privileged makes an account that can change others or the system, and returns its name.
	Privileged func(t *testing.T) string
	// Trace returns what the server stores of the account, and which logins as it have failed.
	Trace func(t *testing.T, account string) string
}

// standing verifies that a target implements [target.Guarded] correctly, or that the harness says
// why it does not implement it.
func (h Harness) standing(t *testing.T) {
	if _, ok := h.Open(t, h.Addr).(target.Guarded); !ok {
		if h.Standing != nil {
			t.Fatal("the harness has a Standing, and the target does not implement target.Guarded")
		}
		if h.Unguarded == "" {
			t.Fatal("the kind must implement target.Guarded, or Unguarded of its harness must say why it cannot")
		}
		t.Skip("only names are compared: " + h.Unguarded)
	}
	if h.Standing == nil {
		t.Fatal("the target implements target.Guarded, and the harness has no Standing")
	}
	t.Run("administrator", h.standingOfAdmin)
	t.Run("privileged", h.standingOfPrivileged)
	t.Run("ordinary", h.standingOfOrdinary)
	t.Run("leaves no trace", h.standingLeavesNoTrace)
	t.Run("faults", h.standingUnderFaults)
	t.Run("wrong administrator", h.standingWithWrongAdmin)
}

// guarded opens the target at an address as the administrator.
func (h Harness) guarded(t *testing.T, addr string, admin target.Credential) target.Guarded {
	t.Helper()
	return h.open(t, addr, admin).(target.Guarded)
}

// judge returns the standing of an account.
func (h Harness) judge(t *testing.T, account string) target.Standing {
	t.Helper()
	g := h.guarded(t, h.Addr, h.Admin)
	var got target.Standing
	h.do(t, "Standing of "+account, func(ctx context.Context) (err error) {
		got, err = g.Standing(ctx, account)
		return err
	})
	if strings.HasSuffix(got.Privileged, ".") || strings.TrimSpace(got.Privileged) != got.Privileged {
		t.Errorf("Standing of %q: %q does not continue a sentence", account, got.Privileged)
	}
	return got
}

func (h Harness) standingOfAdmin(t *testing.T) {
	if !h.Kind.NeedsAdmin {
		t.Skip("this kind has no administrator")
	}
	for _, name := range append([]string{h.Admin.Account}, h.Standing.Spellings...) {
		if got := h.judge(t, name); !got.Administrator {
			t.Errorf("%q is the administrator %q, and Standing = %+v", name, h.Admin.Account, got)
		}
	}
	for _, name := range h.Standing.Others {
		if got := h.judge(t, name); got.Administrator {
			t.Errorf("%q is not the administrator %q, and Standing = %+v", name, h.Admin.Account, got)
		}
	}
}

func (h Harness) standingOfPrivileged(t *testing.T) {
	account := h.Standing.Privileged(t)
	if got := h.judge(t, account); got.Privileged == "" || got.Administrator {
		t.Errorf("%q can change others, and Standing = %+v", account, got)
	}
}

func (h Harness) standingOfOrdinary(t *testing.T) {
	for _, account := range []string{h.Account(t).Account, absent} {
		if got := h.judge(t, account); got != (target.Standing{}) {
			t.Errorf("%q is ordinary, and Standing = %+v", account, got)
		}
	}
}

func (h Harness) standingLeavesNoTrace(t *testing.T) {
	good := h.Account(t)
	for _, account := range []string{good.Account, h.Standing.Privileged(t)} {
		before := h.Standing.Trace(t, account)
		if before == "" {
			t.Fatalf("Trace of the harness returns nothing for %q", account)
		}
		h.judge(t, account)
		if after := h.Standing.Trace(t, account); after != before {
			t.Errorf("Standing of %q has left a trace:\n%s\nbefore:\n%s", account, after, before)
		}
	}
	h.works(t, h.Open(t, h.Addr), "after Standing", good, true)
}

// standingUnderFaults verifies that a privileged account never counts as ordinary because an answer
// was lost.
func (h Harness) standingUnderFaults(t *testing.T) {
	h.overNetwork(t)
	account := h.Standing.Privileged(t)
	p := NewProxy(t, h.Addr)
	through := h.guarded(t, p.Addr(), h.Admin)
	h.do(t, "Standing through the proxy", func(ctx context.Context) error {
		_, err := through.Standing(ctx, account)
		return err
	})
	_, length, _ := p.Passed()
	const cuts = 12
	for i := range cuts {
		after := length * i / cuts
		p.Set(Fault{}, Fault{After: after, Kind: Reset})
		through = h.guarded(t, p.Addr(), h.Admin) // another may have a connection from before
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		got, err := through.Standing(ctx, account)
		cancel()
		h.noVerdictOf(t, got, err)
		if t.Failed() {
			t.Fatalf("the replies were cut after %d of %d bytes", after, length)
		}
	}
	p.Set(Fault{}, Fault{Kind: Silence})
	through = h.guarded(t, p.Addr(), h.Admin)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	began := time.Now()
	got, err := through.Standing(ctx, account)
	if err == nil {
		t.Error("a silent server gives a standing")
	}
	h.noVerdictOf(t, got, err)
	if took := time.Since(began); took > patience+5*time.Second {
		t.Errorf("Standing at a silent server took %v with a context of %v", took, patience)
	}
	_, err = h.guarded(t, closedPort(t), h.Admin).Standing(t.Context(), account)
	if target.ClassOf(err) != target.Unreachable {
		t.Errorf("Standing at a closed port: %v of class %v, want unreachable", err, target.ClassOf(err))
	}
	h.secrets.absent(t, err)
}

// noVerdictOf asserts that a fault gave either the right standing of a privileged account or no
// standing.
func (h Harness) noVerdictOf(t *testing.T, got target.Standing, err error) {
	t.Helper()
	class := target.ClassOf(err)
	switch {
	case err == nil && got.Privileged == "":
		t.Error("a fault makes a privileged account an ordinary one")
	case err != nil && class != target.Unknown && class != target.Unreachable:
		t.Errorf("a fault: %v of class %v, want no verdict", err, class)
	}
	h.secrets.absent(t, err)
}

func (h Harness) standingWithWrongAdmin(t *testing.T) {
	if !h.Kind.NeedsAdmin {
		t.Skip("this kind has no administrator")
	}
	wrong := h.wrong(t, h.Admin)
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	_, err := h.guarded(t, h.Addr, wrong).Standing(ctx, h.Account(t).Account)
	if target.ClassOf(err) != target.Denied {
		t.Errorf("Standing with a wrong administrator: %v of class %v, want denied", err, target.ClassOf(err))
	}
	h.secrets.absent(t, err)
}
