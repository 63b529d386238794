package rotation_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/support"
)

// TestSingleProvesFirst rotates the only credential of an account with which no session can be
// opened: the rotation ends, the target has the credential that readers get, and reads go on.
func TestSingleProvesFirst(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name             string
		broken, repaired string
		session          bool // the application holds its one session
		changed          bool // the refusal comes after the password, and proves it
	}{
		{name: "no login", broken: "ALTER ROLE app NOLOGIN", repaired: "ALTER ROLE app LOGIN"},
		{
			name:     "no right to connect",
			broken:   "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC",
			repaired: "GRANT CONNECT ON DATABASE postgres TO PUBLIC",
			changed:  true,
		},
		{
			name:     "all sessions in use",
			broken:   "ALTER ROLE app CONNECTION LIMIT 1",
			repaired: "ALTER ROLE app CONNECTION LIMIT -1",
			session:  true,
			changed:  true,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := startDatabase(t)
			x := d.system("single")
			s := x.run(t)
			untilLive(t, s, "app")
			before, first := x.stored(t, "app"), read(t, s, "app", "", "")
			if tt.session {
				url := fmt.Sprintf("postgres://%s:%s@%s/postgres?sslmode=disable",
					first.AccountName, first.AccountPassword, d.Addr())
				conn, err := pgx.Connect(t.Context(), url)
				must(t, err)
				defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }() // the test is over
			}
			d.run(t, "GRANT CONNECT ON DATABASE postgres TO "+d.admin.AccountName)
			d.run(t, tt.broken)
			must(t, second(s.Client.RotateSecret(t.Context(), &kms.RotateSecretRequest{SecretName: "app", VersionID: "v2"})))
			r := untilRotation(t, s, "app", "v2", "prepared", "abandoned", "done")
			after := read(t, s, "app", "", "")
			if !tt.changed && (x.stored(t, "app") != before || after != first) {
				t.Errorf("in state %s (%s) the credential has changed", r.State, r.Reason)
			}
			if tt.changed && r.State == "prepared" {
				r = untilRotation(t, s, "app", "v2", "abandoned", "done")
			}
			if tt.changed && (r.State != "done" || x.stored(t, "app") == before) {
				t.Errorf("a refusal after the password has not proven the credential: state %s (%s)", r.State, r.Reason)
			}
			d.run(t, tt.repaired)
			x.works(t, "what readers get in state "+r.State, read(t, s, "app", "", ""), true)
		})
	}
}

// TestEmergencyNeedsNoLogin replaces a leaked credential with which no login is possible at one of
// the addresses now: an emergency does not wait for that, and the new credential is proven by the
// target's own state.
func TestEmergencyNeedsNoLogin(t *testing.T) {
	t.Parallel()
	d := startDatabase(t)
	x := d.system("single")
	s := x.run(t)
	untilLive(t, s, "app")
	leaked, before := read(t, s, "app", "", ""), x.stored(t, "app")
	verifyAt(t, s, "app", d.Addr(), "127.0.0.1:1")
	must(t, second(s.Client.EmergencyRotation(t.Context(), &kms.EmergencyRotationRequest{
		SecretName: "app",
		VersionID:  "v2",
	})))
	untilRotation(t, s, "app", "v2", "done")
	if x.stored(t, "app") == before {
		t.Error("the target has the leaked credential")
	}
	x.works(t, "the leaked credential", leaked, false)
	x.works(t, "the new credential", read(t, s, "app", "", ""), true)
}

// TestRetiresAfterALogin changes the new credential by hand before the previous one is retired: the
// previous one is kept, and cancel leaves it as it is.
func TestRetiresAfterALogin(t *testing.T) {
	t.Parallel()
	d := startDatabase(t)
	x := d.system("double")
	s := x.run(t)
	untilLive(t, s, "app")
	previous := read(t, s, "app", "", "")
	rotate(t, s, "app", "v2")
	until(t, s, "app", "grace")
	now := read(t, s, "app", "", "")
	d.run(t, "ALTER ROLE "+now.AccountName+" PASSWORD 'set by hand'")
	must(t, second(s.Client.EndRotationGrace(t.Context(), name("app"))))
	support.Until(t, "a login with the new credential to be rejected", func() bool {
		r, err := s.Client.DescribeRotation(t.Context(), name("app"))
		must(t, err)
		return r.Steps[len(r.Steps)-1].Event == "not-ready"
	})
	x.works(t, "the previous credential", previous, true)
	if r := until(t, s, "app", "retiring"); !strings.Contains(r.Advice, "keyturn rotation undo") {
		t.Errorf("the advice: %s", r.Advice)
	}
	must(t, second(s.Client.CancelRotation(t.Context(), name("app"))))
	until(t, s, "app", "done")
	x.works(t, "the previous credential after cancel", previous, true)
}

// TestUndoWhileRetiring makes the previous credential current again when the target no longer lets
// the administrator retire it.
func TestUndoWhileRetiring(t *testing.T) {
	t.Parallel()
	d := startDatabase(t)
	x := d.system("double")
	s := x.run(t)
	untilLive(t, s, "app")
	previous := read(t, s, "app", "", "")
	rotate(t, s, "app", "v2")
	until(t, s, "app", "grace")
	d.run(t, "ALTER ROLE "+d.admin.AccountName+" NOLOGIN")
	must(t, second(s.Client.EndRotationGrace(t.Context(), name("app"))))
	support.Until(t, "the administrator to be refused", func() bool {
		r, err := s.Client.DescribeRotation(t.Context(), name("app"))
		must(t, err)
		return r.State == "retiring" && r.Steps[len(r.Steps)-1].Event == "failed"
	})
	must(t, second(s.Client.UndoRotation(t.Context(), name("app"))))
	support.Until(t, "the previous credential to be current", func() bool {
		return read(t, s, "app", "", "") == previous
	})
	x.works(t, "the previous credential", previous, true)
}
