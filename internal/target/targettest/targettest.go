// Package targettest tests the behavior that a rotation relies on. Every kind of target runs it
// against a real server.
package targettest

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/target"
)

// timeout bounds one call of a target; patience bounds a call that gets no answer.
const (
	timeout  = 20 * time.Second
	patience = 700 * time.Millisecond
)

// Harness describes one kind and its real server to the suite.
type Harness struct {
	Kind target.Kind
	// Unguarded says why the kind cannot report the standing of an account; empty for a kind that
	// implements [target.Guarded].
	Unguarded string
	// Addr is host:port of the real server. Empty for a kind that is not reached over a network; the
	// tests that need one are skipped.
	Addr string
	// Config returns the configuration of a target that is reached at addr, which is the server or a
	// proxy before it.
	Config func(addr string) string
	// Admin is the administrator's credential; zero for a kind that needs none.
	Admin target.Credential
	// Account makes a new account at the server and returns the one credential that it accepts.
	Account func(t *testing.T) target.Credential
	// Login tries a login without the code under test.
	Login Login
	// Refused makes a credential for the account that the server's rules refuse. Nil where there
	// are no such rules.
	Refused func(account string) target.Credential
	// Session opens a session with the credential and returns a check that it is still usable. Nil
	// where sessions do not outlive a request.
	Session func(t *testing.T, c target.Credential) (usable func() error)
	// Eventually is how long a change may take until it is accepted everywhere; 0 means at once.
	Eventually time.Duration
	// Standing says which accounts are more than ordinary ones. Nil for a target that does not
	// implement [target.Guarded].
	Standing *Standing
	// NoAdminAccount says that the administrator has a token or signs requests instead of logging in:
	// a wrong one locks no account, and its refusal may be like any other.
	NoAdminAccount bool
	// ByHand gives an account another password, as its owner does. It is required for a kind that
	// implements [target.Evictor].
	ByHand func(t *testing.T, c target.Credential)
	// ForeignUnread says why the administrator does not see whether an account has another password;
	// empty for one that does.
	ForeignUnread string
	// Unread says why a check does not read the account at the target; empty for a kind that does.
	Unread string

	secrets *secrets // of all credentials that the suite has made
}

// Run verifies that a kind behaves as package target requires.
func Run(t *testing.T, h Harness) {
	h.secrets = &secrets{}
	h.secrets.add(h.Admin)
	account := h.Account
	h.Account = func(t *testing.T) target.Credential {
		t.Helper()
		return h.secrets.add(account(t))
	}
	for _, strategy := range h.Kind.Strategies {
		t.Run(string(strategy), func(t *testing.T) {
			t.Run("rotates", func(t *testing.T) { t.Parallel(); h.rotates(t, strategy) })
			t.Run("applies twice", func(t *testing.T) { t.Parallel(); h.appliesTwice(t, strategy) })
			t.Run("retires only the old", func(t *testing.T) { t.Parallel(); h.retiresOnlyOld(t, strategy) })
			t.Run("lost reply", func(t *testing.T) { t.Parallel(); h.lostReply(t, strategy) })
			t.Run("evicts", func(t *testing.T) { t.Parallel(); h.evicts(t, strategy) })
			t.Run("evicts beside", func(t *testing.T) { t.Parallel(); h.evictsBeside(t, strategy) })
		})
	}
	t.Run("wrong credential", func(t *testing.T) { t.Parallel(); h.wrongCredential(t) })
	t.Run("one account", func(t *testing.T) { t.Parallel(); h.oneAccount(t) })
	t.Run("no verdict", func(t *testing.T) { t.Parallel(); h.noVerdict(t) })
	t.Run("unreachable", func(t *testing.T) { t.Parallel(); h.unreachable(t) })
	t.Run("silent", func(t *testing.T) { t.Parallel(); h.silent(t) })
	t.Run("wrong administrator", func(t *testing.T) { t.Parallel(); h.wrongAdmin(t) })
	t.Run("standing", func(t *testing.T) { t.Parallel(); h.standing(t) })
	t.Run("check", func(t *testing.T) { t.Parallel(); h.check(t) })
	t.Run("logins of applications", func(t *testing.T) { t.Parallel(); h.follows(t) })
	t.Run("another service", func(t *testing.T) { t.Parallel(); h.otherService(t) })
	t.Run("addresses", func(t *testing.T) { t.Parallel(); h.addresses(t) })
	t.Run("unknown setting", func(t *testing.T) { t.Parallel(); h.unknownSetting(t) })
	if h.Refused != nil {
		t.Run("refused by rules", func(t *testing.T) { t.Parallel(); h.refused(t) })
	}
}

// overNetwork skips a test of network faults for a kind without a network.
func (h Harness) overNetwork(t *testing.T) {
	t.Helper()
	if h.Addr == "" {
		t.Skip("this kind is not reached over a network")
	}
}

// Open opens the target of a harness at an address.
func (h Harness) Open(t testing.TB, addr string) target.Target {
	t.Helper()
	return h.open(t, addr, h.Admin)
}

func (h Harness) open(t testing.TB, addr string, admin target.Credential) target.Target {
	t.Helper()
	return Open(t, h.Kind, h.Config(addr), admin)
}

// change returns a change for a strategy; for Double, of the account that is not in use.
func (h Harness) change(t *testing.T, tt target.Target, s target.Strategy) target.Change {
	t.Helper()
	old := h.Account(t)
	account, example := old.Account, old
	if s == target.Double {
		example = h.Account(t)
		account = example.Account
	}
	c := target.Change{
		ID:       fmt.Sprintf("t%d", time.Now().UnixNano()),
		Strategy: s,
		Old:      old,
	}
	h.do(t, "Generate", func(ctx context.Context) (err error) {
		c.New, err = Generate(ctx, tt, account, example)
		h.secrets.add(c.New)
		return err
	})
	return c
}

// applyNext applies the change that follows c in the next rotation, and returns it.
func (h Harness) applyNext(t *testing.T, tt target.Target, c target.Change) target.Change {
	t.Helper()
	next := target.Change{ID: c.ID + "n", Strategy: c.Strategy, Old: c.New}
	account := c.New.Account
	if c.Strategy == target.Double {
		account = c.Old.Account
	}
	h.do(t, "Generate", func(ctx context.Context) (err error) {
		next.New, err = Generate(ctx, tt, account, c.New)
		h.secrets.add(next.New)
		return err
	})
	h.do(t, "the next Apply", func(ctx context.Context) error { return tt.Apply(ctx, next) })
	return next
}

// wrong returns credential c with the secret of another account.
func (h Harness) wrong(t *testing.T, c target.Credential) target.Credential {
	t.Helper()
	other := h.Account(t)
	c.Secret, c.ID, c.Public = other.Secret, other.ID, other.Public
	return c
}

// closedPort returns the address of a port on loopback at which nothing listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	Must(t, err)
	Must(t, l.Close())
	return l.Addr().String()
}

func (h Harness) do(t *testing.T, what string, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	if err := f(ctx); err != nil {
		h.secrets.absent(t, err)
		t.Fatalf("%s: %v", what, err)
	}
}

// works asserts whether a credential authenticates, by the harness's own login, by Verify, and by
// Inspect where there is one.
func (h Harness) works(t *testing.T, tt target.Target, when string, c target.Credential, want bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout+h.Eventually)
	defer cancel()
	for {
		in, err := h.Login(ctx, c)
		if err != nil {
			t.Fatalf("%s: login as %q: %v", when, c.Account, err)
		}
		if in == want {
			break
		}
		if deadline, _ := ctx.Deadline(); time.Until(deadline) < timeout {
			t.Fatalf("%s: the credential of %q authenticates: %v, want %v", when, c.Account, in, want)
		}
	}
	switch err := tt.Verify(ctx, c); {
	case want && err != nil:
		t.Fatalf("%s: Verify: %v", when, err)
	case !want && target.ClassOf(err) != target.Rejected:
		t.Fatalf("%s: Verify of a dead credential: %v of class %v, want rejected", when, err, target.ClassOf(err))
	case !want:
		h.secrets.absent(t, err)
	}
	if i, ok := tt.(target.Inspector); ok {
		seen, err := i.Inspect(ctx, []target.Credential{c})
		if err != nil {
			t.Fatalf("%s: Inspect: %v", when, err)
		}
		wrong := target.Live
		if want {
			wrong = target.Dead
		}
		if len(seen) != 1 || seen[0] == wrong {
			t.Fatalf("%s: Inspect = %v, and the credential authenticates: %v", when, seen, want)
		}
	}
}

func (h Harness) rotates(t *testing.T, s target.Strategy) {
	tt := h.Open(t, h.Addr)
	c := h.change(t, tt, s)
	var usable func() error
	if h.Session != nil {
		usable = h.Session(t, c.Old)
	}
	h.works(t, tt, "before", c.New, false)
	h.do(t, "Apply", func(ctx context.Context) error { return tt.Apply(ctx, c) })
	h.works(t, tt, "after Apply", c.New, true)
	h.works(t, tt, "after Apply, the old one", c.Old, s != target.Single)
	if s != target.Single {
		h.do(t, "Retire", func(ctx context.Context) error { return tt.Retire(ctx, c) })
		h.works(t, tt, "after Retire, the old one", c.Old, false)
		h.works(t, tt, "after Retire", c.New, true)
	}
	if usable != nil {
		if err := usable(); err != nil {
			t.Errorf("an open session was disturbed: %v", err)
		}
	}
}

func (h Harness) appliesTwice(t *testing.T, s target.Strategy) {
	tt := h.Open(t, h.Addr)
	c := h.change(t, tt, s)
	for range 3 {
		h.do(t, "Apply", func(ctx context.Context) error { return tt.Apply(ctx, c) })
	}
	h.works(t, tt, "after Apply, again", c.New, true)
	h.works(t, tt, "after Apply, again, the old one", c.Old, s != target.Single)
	if s == target.Single {
		return
	}
	for range 2 {
		h.do(t, "Retire", func(ctx context.Context) error { return tt.Retire(ctx, c) })
	}
	h.works(t, tt, "after Retire, again", c.New, true)
	h.works(t, tt, "after Retire, again, the old one", c.Old, false)
	next := h.applyNext(t, tt, c)
	h.works(t, tt, "after the next Apply", next.New, true)
	h.works(t, tt, "after the next Apply, its old one", next.Old, true)
	if s == target.Double {
		h.works(t, tt, "after the next Apply, what was retired", c.Old, false)
	}
}

// retiresOnlyOld verifies that a stale engine cannot retire a credential that has replaced the one
// that it knows.
func (h Harness) retiresOnlyOld(t *testing.T, s target.Strategy) {
	if s == target.Single {
		return
	}
	tt := h.Open(t, h.Addr)
	c := h.change(t, tt, s)
	h.do(t, "Apply", func(ctx context.Context) error { return tt.Apply(ctx, c) })
	h.do(t, "Retire", func(ctx context.Context) error { return tt.Retire(ctx, c) })
	next := h.applyNext(t, tt, c)
	h.do(t, "the stale Retire", func(ctx context.Context) error { return tt.Retire(ctx, c) })
	h.works(t, tt, "after a stale Retire", next.New, true)
	h.works(t, tt, "after a stale Retire, the one in use", next.Old, true)
}

func (h Harness) wrongCredential(t *testing.T) {
	tt := h.Open(t, h.Addr)
	good := h.Account(t)
	wrong := h.wrong(t, good)
	h.works(t, tt, "right", good, true)
	h.works(t, tt, "wrong", wrong, false)
	missing := wrong
	missing.Account = absent
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	err := tt.Verify(ctx, missing)
	if target.ClassOf(err) != target.Rejected {
		t.Errorf("an account that does not exist: %v of class %v, want rejected", err, target.ClassOf(err))
	}
	h.secrets.absent(t, err)
}

func (h Harness) wrongAdmin(t *testing.T) {
	if !h.Kind.NeedsAdmin {
		return
	}
	wrong := h.wrong(t, h.Admin)
	c := h.change(t, h.Open(t, h.Addr), h.Kind.Strategies[0])
	tt := h.open(t, h.Addr, wrong)
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	err := tt.Apply(ctx, c)
	if target.ClassOf(err) != target.Denied {
		t.Errorf("Apply with a wrong administrator: %v of class %v, want denied", err, target.ClassOf(err))
	}
	if !h.NoAdminAccount && !target.IsAdminRejected(err) {
		t.Errorf("Apply with a wrong administrator: %v does not say that the administrator was rejected", err)
	}
	h.secrets.absent(t, err)
	h.works(t, h.Open(t, h.Addr), "after a denied Apply", c.Old, true)
}

// addresses verifies that the kind reports where a target sends credentials, for the egress rules
// and the audit trail.
func (h Harness) addresses(t *testing.T) {
	list := h.Kind.AddressesOf([]byte(h.Config(h.Addr)))
	if !slices.ContainsFunc(list, func(a string) bool {
		return strings.Contains(a, h.Addr) || filepath.IsAbs(a) // the path of a program
	}) {
		t.Errorf("the addresses %q lack %s", list, h.Addr)
	}
	if list := h.Kind.AddressesOf([]byte("{")); list != nil {
		t.Errorf("the kind reports %q for a configuration that cannot be read", list)
	}
}

func (h Harness) unknownSetting(t *testing.T) {
	config := h.Config(h.Addr)
	config = strings.TrimSuffix(strings.TrimSpace(config), "}") + `,"no_such_setting":1}`
	if err := h.Kind.Check([]byte(config)); err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("a configuration with a setting that does not exist: %v", err)
	}
	if err := h.Kind.Check([]byte(`{}`)); err == nil {
		t.Error("an empty configuration is accepted")
	}
}

func (h Harness) refused(t *testing.T) {
	tt := h.Open(t, h.Addr)
	c := h.change(t, tt, h.Kind.Strategies[0])
	c.New = h.secrets.add(h.Refused(c.New.Account))
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	err := tt.Apply(ctx, c)
	if target.ClassOf(err) != target.Refused {
		t.Fatalf("Apply of a credential against the rules: %v of class %v, want refused", err, target.ClassOf(err))
	}
	h.secrets.absent(t, err)
	h.works(t, tt, "after a refusal, the old one", c.Old, true)
	h.works(t, tt, "after a refusal, the refused one", c.New, false)
}
