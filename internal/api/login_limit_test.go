package api_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
)

// TestGuessesAreFew verifies that no way to a login lets a caller guess the password of an account,
// or lock it: after a login that failed there is none for a window, whatever secret it is for.
func TestGuessesAreFew(t *testing.T) {
	t.Parallel()
	for name, guess := range map[string]func(t *testing.T, w *world, n int) error{
		"new secrets": func(t *testing.T, w *world, n int) error {
			name := fmt.Sprint("guess", n)
			w.managed(t, name, "SingleUser", fmt.Sprintf(
				`{"Accounts":[{"AccountName":"victim","AccountPassword":"guess-%d"}]}`, n), "pg")
			_, err := w.call(t, rootPrincipal, "CheckRotation", "SecretName", name)
			w.must(t, "DeleteSecret", "SecretName", name, "ForceDeleteWithoutRecovery", "true")
			return err
		},
		"tests of a target": func(t *testing.T, w *world, n int) error {
			if n == 0 {
				w.managed(t, "guess", "SingleUser", `{"Accounts":[{"AccountName":"victim","AccountPassword":"guess"}]}`, "pg")
			}
			_, err := w.call(t, rootPrincipal, "TestTarget", "TargetName", "pg", "SecretName", "guess")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, m := rotating(t)
			m.set("victim", "right")
			for n := range 10 {
				if err := guess(t, w, n); err != nil && fault.KindOf(err) != fault.Throttled {
					t.Fatal(err)
				}
			}
			if n := m.logins("victim"); n != 1 {
				t.Errorf("%d logins in one window", n)
			}
			w.now = w.now.Add(rotation.LoginWindow)
			_ = guess(t, w, 10)
			if n := m.logins("victim"); n != 2 {
				t.Errorf("%d logins after a window; want one more", n)
			}
			if name == "tests of a target" {
				return // the allowance of checks, which is one secret's, is used up
			}
			// The clock was an hour ahead, and is set back.
			w.now = w.now.Add(-time.Hour)
			_ = guess(t, w, 11)
			if n := m.logins("victim"); n != 3 {
				t.Errorf("%d logins after the clock was set back; want one more", n)
			}
		})
	}
}

// TestChecksAtTheSameTime verifies that simultaneous calls make no more failed logins than one.
func TestChecksAtTheSameTime(t *testing.T) {
	t.Parallel()
	for _, call := range [][]string{
		{"CheckRotation", "SecretName", "db"},
		{"TestTarget", "TargetName", "pg", "SecretName", "db"},
	} {
		w, m := rotating(t)
		m.set("app", "changed by hand")
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() { _, _ = w.call(t, rootPrincipal, call[0], call[1:]...) })
		}
		all.Wait()
		if n := m.logins("app"); n != 1 {
			t.Errorf("%s: %d failed logins", call[0], n)
		}
	}
}

// TestConfigureWithARejectedAdministrator verifies that settings are stored although the target has
// rejected its administrator a moment ago, with a finding, and that a new administrator is asked.
func TestConfigureWithARejectedAdministrator(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	m.refuses(target.AsAdmin(target.Failed(target.Rejected, "28P01", "log in as rotator: no")))
	_, _ = w.call(t, rootPrincipal, "CheckRotation", "SecretName", "db")
	out := w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg").(*kms.DescribeRotationResponse)
	if len(out.CheckFindings) != 1 || out.CheckFindings[0].Code != "check-denied" ||
		!strings.Contains(out.CheckFindings[0].Text, "a new version is tried at once") {
		t.Errorf("the findings are %+v", out.CheckFindings)
	}
	if out.TargetName != "pg" || m.checked() != 1 {
		t.Errorf("attached to %q; the administrator was tried %d times", out.TargetName, m.checked())
	}
	m.refuses(nil)
	w.must(t, "PutSecretValue", "SecretName", "pg-admin", "SecretData", adminValue, "VersionId", "v2")
	out = w.must(t, "ConfigureRotation", "SecretName", "gen").(*kms.DescribeRotationResponse)
	denied := func(f kms.RotationFinding) bool { return f.Code == "check-denied" }
	if slices.ContainsFunc(out.CheckFindings, denied) || m.checked() != 2 {
		t.Errorf("with a new administrator: %+v, asked %d times", out.CheckFindings, m.checked())
	}
}

// TestRejectedAdministratorIsNotTriedAgain verifies that calls do not lock the account of an
// administrator whose password is out of date, and that a new one is tried at once.
func TestRejectedAdministratorIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	rejected := target.Failed(target.Rejected, "28P01", "log in as rotator: password authentication failed")
	m.says(nil)
	m.refuses(target.AsAdmin(rejected))
	const calls = 10
	for n := range calls {
		for _, call := range [][]string{
			{"CheckRotation", "SecretName", "db"},
			{"ConfigureRotation", "SecretName", "gen", "TargetName", "pg", "VersionId", fmt.Sprint("c", n)},
		} {
			_, _ = w.call(t, rootPrincipal, call[0], call[1:]...)
		}
	}
	if n := m.checked(); n != 1 {
		t.Errorf("the administrator was tried %d times", n)
	}
	w.must(t, "PutSecretValue", "SecretName", "pg-admin", "SecretData", adminValue, "VersionId", "v2")
	if w.check(t, "db"); m.checked() != 2 {
		t.Errorf("a new administrator was tried %d times", m.checked()-1)
	}
}

// TestRejectedAdministratorIsTriedOnceForAll verifies that an administrator that the target has
// rejected is tried neither by the probes of other secrets nor for their first settings, also after
// the target was registered anew, and by rotations once in a window for all of them.
func TestRejectedAdministratorIsTriedOnceForAll(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	m.set("one", "x")
	m.set("two", "y")
	m.refuses(target.AsAdmin(target.Failed(target.Rejected, "28P01", "log in as rotator: no")))
	step := w.steps(t)
	tried := func(what string, want int) {
		t.Helper()
		if n := m.checked(); n != want {
			t.Fatalf("%s: the administrator was tried %d times, want %d", what, n, want)
		}
	}
	probes := func() {
		for _, name := range []string{"db", "double"} {
			w.put(t, name, func(_ *secret.Secret, r *rotation.Record) { r.Health.NextAt = w.now })
			step(name)
		}
	}
	for range 5 {
		probes()
	}
	tried("probes", 1)
	const rejected = `Target "pg" has rejected a login as its administrator`
	if r := w.describe(t, "double"); !strings.Contains(r.Reason, rejected) {
		t.Errorf("a probe that is not made says %q", r.Reason)
	}
	w.now = w.now.Add(rotation.LoginWindow)
	probes()
	tried("probes after a window", 1)
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg")
	tried("the first settings after a window", 2)
	w.must(t, "RemoveRotation", "SecretName", "gen")
	w.must(t, "DeregisterTarget", "TargetName", "pg", "Detach", "true")
	w.must(t, "RegisterTarget", "TargetName", "pg", "Kind", "memory", "Config", toMemory, "AdminSecretName", "pg-admin")
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg")
	tried("a target that is registered anew", 2)

	for n := range 3 {
		w.now = w.now.Add(rotation.LoginWindow)
		for _, name := range []string{"db", "double"} {
			if n == 0 {
				w.must(t, "RotateSecret", "SecretName", name, "VersionId", "v2")
			}
			w.put(t, name, func(_ *secret.Secret, r *rotation.Record) { r.NextAt = w.now })
			step(name)
		}
		tried("rotations", 3+n)
	}
	for _, name := range []string{"db", "double"} {
		if r := w.record(t, name); !r.InFlight() || !r.NextAt.After(w.now) || r.Reason == "" {
			t.Errorf("%s is %s, goes on at %s: %q", name, r.State, r.NextAt, r.Reason)
		}
	}
	// Neither a change of the target that leaves its address, nor a call that does not ask as the
	// administrator, has it tried again.
	w.now = w.now.Add(time.Second)
	w.must(t, "UpdateTarget", "TargetName", "pg", "Description", "another", "Config", " "+toMemory)
	w.refused(t, kms.CodeThrottling, rejected, "CheckRotation", "SecretName", "db")
	w.must(t, "EmergencyRotation", "SecretName", "double", "VersionId", "e1", "DryRun", "true")
	tried("a change of the target", 5)
	w.now = w.now.Add(rotation.LoginWindow)
	w.must(t, "TestTarget", "TargetName", "pg", "SecretName", "db")
	m.refuses(nil)
	w.check(t, "gen")
	w.check(t, "gen")
	if n := m.checked(); n != 7 {
		t.Errorf("after a call that asked nothing as the administrator, it was asked %d times, want 7", n)
	}
}

// TestLoginOfATestRejectsNoAdministrator verifies that a rejected login as an application, which is
// the test of a target that cannot test its administrator, does not count as one of that.
func TestLoginOfATestRejectsNoAdministrator(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	m.set("rotator", "another")
	out := w.must(t, "TestTarget", "TargetName", "pg").(*kms.TestTargetResponse)
	if out.Result != "rejected" {
		t.Fatalf("the answer is %+v, want a rejection", out)
	}
	w.check(t, "db")
	w.must(t, "EmergencyRotation", "SecretName", "db", "VersionId", "e1")
	if n := m.checked(); n != 2 {
		t.Errorf("the target was asked %d times, want 2", n)
	}
}

// TestTestsHoldNoAdministrator verifies that a test which logs in as an application keeps no
// other caller from a rejected administrator.
func TestTestsHoldNoAdministrator(t *testing.T) {
	t.Parallel()
	for _, with := range [][]string{nil, {"SecretName", "db"}} {
		w, m := rotating(t)
		m.refuses(target.AsAdmin(target.Failed(target.Rejected, "28P01", "log in as rotator: no")))
		w.check(t, "db")
		m.refuses(nil)
		w.now = w.now.Add(rotation.LoginWindow)
		asked := 0
		m.inLogin(func() {
			w.must(t, "CheckRotation", "SecretName", "double")
			asked = m.checked()
		})
		w.must(t, "TestTarget", append([]string{"TargetName", "pg"}, with...)...)
		if asked != 2 {
			t.Errorf("TestTarget %v: a check meanwhile has asked the target %d times, want 2", with, asked)
		}
	}
}

// TestAdoptionHoldsNoAdministrator verifies that the login with a credential that is to be adopted
// keeps no other caller from a rejected administrator.
func TestAdoptionHoldsNoAdministrator(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg")
	w.inState(t, "gen", rotation.Quarantined)
	m.refuses(target.AsAdmin(target.Failed(target.Rejected, "28P01", "log in as rotator: no")))
	w.check(t, "db")
	m.refuses(nil)
	w.now = w.now.Add(rotation.LoginWindow)
	before, asked := m.checked(), 0
	m.inLogin(func() {
		w.must(t, "CheckRotation", "SecretName", "double")
		asked = m.checked() - before
	})
	w.must(t, "RepairRotation", "SecretName", "gen", "RepairAction", kms.RepairAdopt, "VersionId", "v5",
		"SecretData", `{"username":"gen","password":"p"}`)
	if asked != 1 {
		t.Errorf("a check meanwhile has asked the target %d times, want once", asked)
	}
}

// TestAcceptedAdministratorWakesAllItsTargets verifies that a login in which one target lets a
// rejected administrator in has tried again what waits for that administrator at others.
func TestAcceptedAdministratorWakesAllItsTargets(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	w.must(t, "RegisterTarget", "TargetName", "pg2", "Kind", "memory", "Config", toMemory, "AdminSecretName", "pg-admin")
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg2")
	m.refuses(target.AsAdmin(target.Failed(target.Rejected, "28P01", "log in as rotator: no")))
	w.check(t, "gen")
	w.waits(t, "db", 0, w.now, true)
	if _, err := w.call(t, rootPrincipal, "TestTarget", "TargetName", "pg"); err == nil ||
		!strings.Contains(err.Error(), `"pg" has rejected a login`) || strings.Contains(err.Error(), "another target") {
		t.Errorf("a test of the other target: %v", err)
	}
	m.refuses(nil)
	w.now = w.now.Add(rotation.LoginWindow)
	w.check(t, "gen")
	w.gate.Hurry(t.Context())
	if r := w.record(t, "db"); !r.NextAt.Equal(w.now) {
		t.Errorf("the rotation at the other target waits for another %s", r.NextAt.Sub(w.now))
	}
}

// TestCheckTriesItsAdministratorOnce verifies that a call makes no second login as an administrator
// that was rejected, for example to read the target's own state.
func TestCheckTriesItsAdministratorOnce(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	w.shows(m)
	m.refuses(target.AsAdmin(target.Failed(target.Rejected, "28P01", "log in as rotator: no")))
	for n, call := range [][]string{
		{"CheckRotation", "SecretName", "double"},
		{"ConfigureRotation", "SecretName", "gen", "TargetName", "pg"},
		{"EmergencyRotation", "SecretName", "db", "VersionId", "e1"},
	} {
		w.must(t, call[0], call[1:]...)
		if m.checked() != n+1 || m.inspections > 0 {
			t.Errorf("%s: the administrator was tried %d times", call[0], m.checked()+m.inspections-n)
		}
		w.now = w.now.Add(rotation.LoginWindow)
	}
}

// TestEmergencyWaitsForItsAdministrator verifies that an emergency begins while the target rejects
// its administrator, whether that is tried or waited for, and says that nothing was checked.
func TestEmergencyWaitsForItsAdministrator(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	m.refuses(target.AsAdmin(target.Failed(target.Rejected, "28P01", "log in as rotator: no")))
	for _, after := range []time.Duration{0, time.Second, rotation.LoginWindow} {
		w.now = w.now.Add(after)
		out := w.must(t, "EmergencyRotation", "SecretName", "db", "VersionId", "e1", "DryRun", "true").(*kms.
			EmergencyRotationResponse)
		if len(out.Findings) > 0 || !strings.Contains(out.Unchecked, "administrator") {
			t.Errorf("after %s: unchecked because of %q, findings %+v", after, out.Unchecked, out.Findings)
		}
	}
	if n := m.checked(); n != 2 {
		t.Errorf("the administrator was tried %d times, want 2", n)
	}
	w.must(t, "EmergencyRotation", "SecretName", "db", "VersionId", "e1")
	if r := w.record(t, "db"); !r.InFlight() || !strings.Contains(r.Outlasts, "could not read") {
		t.Errorf("state %s, what outlasts it: %q", r.State, r.Outlasts)
	}
	m.refuses(target.AsAdmin(target.Denied.Errorf("rotator has no right")))
	w.must(t, "PutSecretValue", "SecretName", "pg-admin", "SecretData", adminValue, "VersionId", "v2")
	w.refused(t, "Rejected.ResourceInUse", "rotator has no right", "EmergencyRotation", "SecretName", "double",
		"VersionId", "e1", "AgreeToFindings", "true")
}

// TestTurnReleasesTheAdministrator verifies that a probe which did not log in as a rejected
// administrator leaves the next try to a call.
func TestTurnReleasesTheAdministrator(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	m.set("one", "x")
	m.set("two", "y")
	m.set("app", "another")
	step := w.steps(t)
	m.refuses(target.AsAdmin(target.Failed(target.Rejected, "28P01", "log in as rotator: no")))
	w.check(t, "double")
	w.now = w.now.Add(time.Hour)
	w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) { r.Health.NextAt = w.now })
	step("db") // the target rejects its credential, so nothing else is asked
	if n := m.checked(); n != 1 {
		t.Fatalf("the administrator was tried %d times, want 1", n)
	}
	w.check(t, "double")
	if n := m.checked(); n != 2 {
		t.Errorf("the administrator was tried %d times, want 2", n)
	}
}

// TestRetirementEndsTheWaitForTheAdministrator verifies that a target which does what its
// administrator asks for ends the wait of the other secrets, also where nothing was checked.
func TestRetirementEndsTheWaitForTheAdministrator(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	step := w.steps(t)
	m.set("one", "x")
	m.set("two", "y")
	w.must(t, "RotateSecret", "SecretName", "double", "VersionId", "v2")
	step("double")
	before := m.checked()
	m.refuses(target.AsAdmin(target.Failed(target.Rejected, "28P01", "log in as rotator: no")))
	probe := func(want int, when string) {
		t.Helper()
		w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) { r.Health.NextAt = w.now })
		step("db")
		if n := m.checked() - before; n != want {
			t.Fatalf("%s: the administrator was tried %d times, want %d", when, n, want)
		}
	}
	probe(1, "the first probe")
	m.refuses(nil)
	w.now = w.now.Add(rotation.LoginWindow)
	probe(1, "a probe after a window")
	w.must(t, "EndRotationGrace", "SecretName", "double")
	step("double")
	if r := w.record(t, "double"); r.InFlight() {
		t.Fatalf("the rotation is %s: %s", r.State, r.Reason)
	}
	probe(2, "a probe after a retirement")
}

// TestAnswersThatMayBeFailedLogins verifies that a login with any answer that the target may have
// counted as a failed login is the only one in a window.
func TestAnswersThatMayBeFailedLogins(t *testing.T) {
	t.Parallel()
	for class := target.Unknown; class <= target.Unclear; class++ {
		want := 1
		if class == target.Unreachable || class == target.Denied || class == target.Refused || class == target.Admitted {
			want = 2 // the account is not locked by it
		}
		for _, call := range [][]string{
			{"CheckRotation", "SecretName", "db"},
			{"TestTarget", "TargetName", "pg", "SecretName", "db"},
		} {
			w, m := rotating(t)
			w.env.TestTime = time.Second // without an answer, a call lasts that long
			m.says(target.Failed(class, "08P01", "log in as app: no"))
			for range 20 {
				_, _ = w.call(t, rootPrincipal, call[0], call[1:]...)
			}
			if n := m.logins("app"); want == 1 && n != 1 || n < want {
				t.Errorf("%s, %s: %d logins in one window", call[0], class, n)
			}
		}
	}
}

// TestTestsAreCounted verifies that tests of a target and checks of an access key count as checks
// of the secret.
func TestTestsAreCounted(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	for _, call := range [][]string{
		{"TestTarget", "TargetName", "pg", "SecretName", "db"},
		{"CheckRotation", "SecretName", ownKey(t, w)},
	} {
		var err error
		for range 9 {
			_, err = w.call(t, rootPrincipal, call[0], call[1:]...)
		}
		if fault.KindOf(err) != fault.Throttled {
			t.Errorf("%s is not refused at the ninth call: %v", call[0], err)
		}
	}
}

// ownKey creates a secret with an access key of this service.
func ownKey(t *testing.T, w *world) string {
	t.Helper()
	w.must(t, "CreateUser", "UserName", "robot")
	key := w.must(t, "CreateAccessKey", "UserName", "robot").(*ram.CreateAccessKeyResponse).AccessKey
	w.must(t, "CreateSecret", "SecretName", "$Auto", "SecretType", kms.TypeRAMCredentials, "VersionId", "v1",
		"SecretData", fmt.Sprintf(`{"AccessKeys":[{"AccessKeyId":%q,"AccessKeySecret":%q}]}`, key.AccessKeyID,
			key.AccessKeySecret.Reveal()), "ExtendedConfig", `{"SecretSubType":"RamUserAccessKey","UserName":"robot"}`)
	return "acs/ram/user/robot"
}
