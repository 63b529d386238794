package prove

import (
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/sandbox"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/servers"
)

func lockoutFigures() {
	for _, name := range []string{"lockout_runs", "lockout_locked", "lockout_failed_logins_max", "lockout_wrong_ends"} {
		figures.Count(name, 0)
	}
}

// lockoutLDAP rotates, loses replies, changes by hand and repairs before a directory that locks
// an account after three failed logins. Only the engine logs in: it must never fail, because the
// directory can be read.
func lockoutLDAP(t *testing.T, l *servers.LDAP) {
	lockoutFigures()
	f := fixture{
		name: "ldap_locking", kind: "ldap", addr: l.Addr,
		door: door{Kind: "ldap", Address: l.Addr}, strategy: target.Single, config: plain,
		admin: compact(account{l.AdminDN, l.Password}), numbers: new(atomic.Int64),
	}
	dn := ""
	f.secret = func(t testing.TB, _ *process, n int) (kms.CreateSecretRequest, kms.ConfigureRotationRequest) {
		uid := fmt.Sprintf("locking%d", n)
		dn = "uid=" + uid + "," + l.PolicyBase
		a := first(dn)
		l.Add(t, dn, map[string][]string{
			"objectClass": {"account", "simpleSecurityObject"}, "uid": {uid}, "userPassword": {a.AccountPassword},
		})
		in, configure := generic("of-"+uid, f.name, a, "")
		configure.Strategy = string(target.Single)
		return in, configure
	}
	wire := newCable(t, l.Addr)
	c, secret := f.begin(t, newPlace(t), order{Effect: silentFor, Probe: probe}, wire.addr(), "0s")
	n, failed := 1, 0
	look := func(what string) {
		t.Helper()
		failed = max(failed, len(l.Values(t, dn, "pwdFailureTime")))
		if len(l.Values(t, dn, "pwdAccountLockedTime")) > 0 {
			figures.Count("lockout_locked", 1)
			t.Fatalf("the account is locked after %s", what)
		}
	}
	turn := func(h harm) {
		t.Helper()
		n++
		hit := wire.set(h)
		c.rotate(t, secret, version(n))
		c.untilHarmed(t, secret, hit, h.kind)
		look("a harmed rotation")
		if h.kind != unharmed {
			wire.heal()
		}
		r := c.until(t, secret)
		look("a rotation")
		if r.State != "done" || r.RotationID != version(n) {
			figures.Count("lockout_wrong_ends", 1)
			t.Fatalf("with harm %+v: %s (%s)", h, r.State, r.Reason)
		}
		figures.Count("lockout_runs", 1)
	}
	c.untilProbed(t, secret)
	turn(harm{})
	length := wire.counts()
	positions := pick(16, 3)
	for i := range positions {
		turn(harm{kind: []harmKind{drop, cut, mute}[i%3], reply: true, after: i * length[1] / positions})
	}
	for range pick(3, 1) {
		c.untilProbed(t, secret)
		l.Modify(t, dn, "userPassword", "the-password-that-a-person-has-set")
		c.until(t, secret, "quarantined")
		look("drift")
		time.Sleep(probe * time.Millisecond) // a probe more would be one too many
		look("drift that stays")
		good(t, second(c.RepairRotation(t.Context(), &kms.RepairRotationRequest{SecretName: secret, RepairAction: "probe"})))
		c.until(t, secret, "quarantined")
		look("a probe that was asked for")
		good(t, second(c.RepairRotation(t.Context(), &kms.RepairRotationRequest{SecretName: secret, RepairAction: "apply"})))
		if r := c.until(t, secret); r.State != "done" {
			figures.Count("lockout_wrong_ends", 1)
			t.Errorf("the repair ended as %s (%s)", r.State, r.Reason)
		}
		look("a repair")
		turn(harm{})
	}
	figures.Most("lockout_failed_logins_max", failed)
	if failed > 0 {
		t.Errorf("the engine failed to log in %d times in a row at a directory that can be read", failed)
	}
}

// TestLockoutByLogin has a server whose state the administrator may not read, so that only logins
// tell. What the server rejects is counted on the wire.
func TestLockoutByLogin(t *testing.T) {
	t.Parallel()
	if !*full {
		t.Skip("it waits for the minutes between two logins: it is in the full run alone")
	}
	lockoutFigures()
	p := servers.StartPostgres(t, sandbox.PostgresConfig{HBA: []string{"host all all 127.0.0.1/32 scram-sha-256"}})
	run := func(t testing.TB, statements string) {
		t.Helper()
		good(t, p.Exec(t.Context(), "postgres", statements))
	}
	run(t, "CREATE ROLE rotator LOGIN CREATEROLE PASSWORD 'the-administrators'")
	f := fixture{
		name: "postgresql_by_login", kind: "postgresql", addr: p.Addr(),
		door: door{Kind: "postgresql", Address: p.Addr(), Database: "postgres"}, strategy: target.Single,
		config: plain, admin: compact(engineAdmin), numbers: new(atomic.Int64),
	}
	f.secret = func(t testing.TB, _ *process, n int) (kms.CreateSecretRequest, kms.ConfigureRotationRequest) {
		a := first(fmt.Sprintf("s%d", n))
		run(t, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", a.AccountName, a.AccountPassword))
		return rds(f.name, a)
	}
	f.byHand = func(t testing.TB, name, password string) {
		run(t, fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'", name, password))
	}
	for i, h := range []harm{
		{kind: drop, reply: true}, {kind: drop}, {kind: cut, reply: true}, {kind: mute, reply: true},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			f.lockoutByLogin(t, h)
		})
	}
}

// account is whose credential a secret holds.
func (f fixture) account(t testing.TB, c *process, secret string) string {
	t.Helper()
	var a account
	good(t, json.Unmarshal([]byte(c.value(t, secret, kms.StageCurrent)), &a))
	return a.AccountName
}

func (f fixture) lockoutByLogin(t *testing.T, h harm) {
	wire := newCable(t, f.addr)
	wire.watched = []byte("C28P01\x00")
	c, secret := f.begin(t, newPlace(t), order{Effect: silentFor, Probe: 5 * probe}, wire.addr(), "0s")
	c.untilProbed(t, secret)
	began := time.Now()
	positions := []int{1, 2, 3}
	length := [2]int{}
	for n, part := range append([]int{0}, positions...) {
		h.after = length[map[bool]int{true: 1}[h.reply]] * part / (len(positions) + 1)
		now := h
		if n == 0 {
			now = harm{} // to learn the length
		}
		hit := wire.set(now)
		c.rotate(t, secret, version(n+2))
		if n > 0 {
			c.untilHarmed(t, secret, hit, h.kind)
			wire.heal()
		}
		r := c.until(t, secret)
		if r.State != "done" {
			figures.Count("lockout_wrong_ends", 1)
			t.Fatalf("with harm %+v: %s (%s); %+v", h, r.State, r.Reason, r.Steps)
		}
		figures.Count("lockout_runs", 1)
		if n == 0 {
			length = wire.counts()
		}
	}
	// A probe finds what a person has changed by one login; asking again waits until another one is
	// allowed.
	before := wire.occurrences()
	f.byHand(t, f.account(t, c, secret), "the-password-that-a-person-has-set")
	c.until(t, secret, "quarantined")
	good(t, second(c.RepairRotation(t.Context(), &kms.RepairRotationRequest{SecretName: secret, RepairAction: "probe"})))
	c.until(t, secret, "unknown")
	if n := wire.occurrences() - before; n != 1 {
		t.Errorf("%d logins failed until drift was found, want 1", n)
	}
	c.until(t, secret, "quarantined")
	good(t, second(c.RepairRotation(t.Context(), &kms.RepairRotationRequest{SecretName: secret, RepairAction: "apply"})))
	if r := c.until(t, secret); r.State != "done" || wire.occurrences()-before != 2 {
		figures.Count("lockout_wrong_ends", 1)
		t.Errorf("the repair ended as %s (%s) after %d failed logins, want 2", r.State, r.Reason, wire.occurrences()-before)
	}
	// At most one in a minute, and one with the base after it.
	allowed := 2 * (int(time.Since(began)/time.Minute) + 1)
	failed := wire.occurrences()
	figures.Most("lockout_failed_logins_by_login_max", failed)
	if failed > allowed {
		t.Errorf("%d logins failed, want at most %d", failed, allowed)
	}
	wrong := door{Kind: "postgresql", Address: wire.addr(), Database: "postgres"}
	if in, err := wrong.login(t.Context(), compact(account{
		"nobody",
		"wrong",
	})); in || err != nil || wire.occurrences() != failed+1 {
		t.Errorf("a login that fails is not counted: %v, %v, %d", in, err, wire.occurrences())
	}
}
