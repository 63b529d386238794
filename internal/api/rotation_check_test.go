package api_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
)

func (w *world) check(t *testing.T, name string) *kms.CheckRotationResponse {
	t.Helper()
	return w.must(t, "CheckRotation", "SecretName", name).(*kms.CheckRotationResponse)
}

// verdicts writes the verdict of each strategy, and the codes of the findings.
func verdicts(out *kms.CheckRotationResponse) string {
	var parts []string
	for _, s := range out.Strategies {
		parts = append(parts, s.Strategy+" "+s.Verdict)
	}
	for _, f := range out.Findings {
		parts = append(parts, f.Code)
	}
	return strings.Join(parts, ", ")
}

// TestCheckRotation verifies what a check says after each answer of the target, that it logs in
// once at most, and that DescribeRotation shows it.
func TestCheckRotation(t *testing.T) {
	t.Parallel()
	plugin := target.Finding{
		Code:       "plugin",
		Verdict:    target.NeedsConsent,
		Strategies: []target.Strategy{target.Single},
		Text:       "The plugin changes.",
		Consent:    "change-auth-plugin",
	}
	limit := target.Finding{Code: "limit", Verdict: target.Impossible, Text: "No room.", Fix: "ALTER ROLE."}
	locked := target.Finding{
		Code:    "locked",
		Verdict: target.Impossible,
		Text:    "It is locked.",
		Closed:  true,
		InUse:   true,
	}
	limitOf := func(s target.Strategy) target.Finding {
		f := limit
		f.Strategies = []target.Strategy{s}
		return f
	}
	const second = ", strategy-not-for-secret"
	for _, tt := range []struct {
		name, wrong string
		down        bool
		answer      error
		findings    []target.Finding
		consents    []string
		verdict     string
		want        string // of both strategies, with findings
		fix         string // ends the advice of the last finding
		logins      int
	}{
		{
			name:    "safe",
			verdict: "safe",
			want:    "single safe, double impossible" + second,
			logins:  1,
		},
		{
			name:     "consent",
			findings: []target.Finding{plugin},
			verdict:  "safe-with-consent",
			want:     "single safe-with-consent, double impossible" + second + ", plugin",
			logins:   1,
		},
		{
			name:     "two findings with one consent",
			findings: []target.Finding{plugin, plugin},
			verdict:  "safe-with-consent",
			want:     "single safe-with-consent, double impossible" + second + ", plugin",
			logins:   1,
		},
		{
			name:     "agreed",
			findings: []target.Finding{plugin},
			consents: []string{"change-auth-plugin"},
			verdict:  "safe",
			want:     "single safe, double impossible" + second + ", plugin",
			logins:   1,
		},
		{
			name:     "impossible",
			findings: []target.Finding{limit},
			verdict:  "impossible",
			want:     "single impossible, double impossible" + second + ", limit",
			logins:   1,
		},
		{
			name:     "one finding of two strategies, one by one",
			findings: []target.Finding{limitOf(target.Double), limitOf(target.Single)},
			verdict:  "impossible",
			want:     "single impossible, double impossible" + second + ", limit",
			logins:   1,
		},
		{
			name:    "rejected",
			wrong:   "changed by hand",
			verdict: "impossible",
			want:    "single impossible, double impossible" + second + ", login-rejected",
			logins:  1,
		},
		{
			name:     "rejected, and locked",
			wrong:    "changed by hand",
			findings: []target.Finding{locked},
			verdict:  "impossible",
			want:     "single impossible, double impossible" + second + ", locked, login-rejected",
			fix:      "keyturn rotation probe db shows whether the target accepts the stored credential.",
			logins:   1,
		},
		{
			name:    "no right to the database",
			answer:  target.Failed(target.Denied, "42501", "no right"),
			verdict: "impossible",
			want:    "single impossible, double impossible" + second + ", login-denied",
			logins:  1,
		},
		{
			name:    "a failure after the login",
			answer:  target.Failed(target.Denied, "42P01", "no table").AfterLogin(),
			verdict: "impossible",
			want:    "single impossible, double impossible" + second + ", login-fails",
			logins:  1,
		},
		{
			name: "a way of the target",
			answer: &target.Error{
				Class:   target.Denied,
				Text:    "it asks in another way",
				Setting: `ways=["one"]`,
			},
			verdict: "impossible",
			want:    "single impossible, double impossible" + second + ", login-denied",
			fix:     `keyturn target update pg --set 'ways=["one"]'`,
			logins:  1,
		},
		{
			name:    "a limit after authentication",
			answer:  target.Failed(target.Admitted, "53300", "too many connections for role"),
			verdict: "safe",
			want:    "single safe, double impossible" + second + ", login-not-admitted",
			logins:  1,
		},
		{
			name:    "an answer that is not known",
			answer:  target.Failed(target.Unclear, "08P01", "SASL"),
			verdict: "unknown",
			want:    "single unknown, double impossible" + second,
			logins:  1,
		},
		{
			name:    "down",
			down:    true,
			verdict: "unknown",
			want:    "single unknown, double impossible" + second,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w, m := rotating(t)
			w.env.TestTime = time.Millisecond
			w.put(t, "db", func(s *secret.Secret, _ *rotation.Record) {
				s.Rotation.Settings = &secret.RotationSettings{Consents: tt.consents}
			})
			if tt.wrong != "" {
				m.set("app", tt.wrong)
			}
			m.says(tt.answer, tt.findings...)
			m.mu.Lock()
			m.down = tt.down
			m.mu.Unlock()
			out := w.check(t, "db")
			if out.Verdict != tt.verdict || verdicts(out) != tt.want || (out.Unchecked != "") != (tt.verdict == "unknown") {
				t.Errorf("verdict %s (%s), %s;\nwant %s, %s", out.Verdict, out.Unchecked, verdicts(out), tt.verdict, tt.want)
			}
			for _, row := range out.Strategies {
				if once := slices.Compact(slices.Sorted(slices.Values(row.Consents))); len(once) != len(row.Consents) {
					t.Errorf("a consent is asked for twice: %q", row.Consents)
				}
			}
			if n := m.logins("app"); n != tt.logins {
				t.Errorf("%d logins; want %d", n, tt.logins)
			}
			if last := out.Findings[len(out.Findings)-1]; !strings.HasSuffix(last.Fix, tt.fix) {
				t.Errorf("advice %q; want %q", last.Fix, tt.fix)
			}
			shown := w.describe(t, "db")
			if len(shown.CheckFindings) != len(out.Findings) || shown.CheckStrategy != out.Strategy ||
				!shown.CheckTime.Equal(out.CheckTime) ||
				shown.CheckUnchecked != out.Unchecked {
				t.Errorf("DescribeRotation shows %+v of %v", shown.CheckFindings, shown.CheckTime)
			}
			failed := tt.wrong != "" || tt.answer != nil && target.ClassOf(tt.answer).MayBeFailedLogin()
			if got := w.record(t, "db").LoginFailedAt; got.IsZero() == failed {
				t.Errorf("the last failed login is stored at %v", got)
			}
		})
	}
}

// TestCheckWithoutALogin verifies that a check which makes no login says when one may be made only
// where that is a matter of time.
func TestCheckWithoutALogin(t *testing.T) {
	t.Parallel()
	for state, timed := range map[rotation.State]bool{rotation.Applying: false, rotation.Idle: true} {
		w, _ := rotating(t)
		w.inState(t, "db", state)
		w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) {
			r.Strategy, r.Base, r.LoginFailedAt = target.Single, "", w.now.Add(-time.Second)
		})
		out := w.check(t, "db")
		if out.Unchecked == "" || strings.Contains(out.Unchecked, "the next login may be made at") != timed ||
			strings.Contains(out.Unchecked, "now") {
			t.Errorf("%s: %q", state, out.Unchecked)
		}
		w.now = w.now.Add(time.Hour)
		if d := w.describe(t, "db"); strings.Contains(d.CheckUnchecked, "may be made now") != timed {
			t.Errorf("%s, later: %q", state, d.CheckUnchecked)
		}
	}
}

// TestCheckTakesNoResult verifies that a check during a step of a rotation leaves its result valid.
func TestCheckTakesNoResult(t *testing.T) {
	t.Parallel()
	for _, state := range []rotation.State{rotation.Prepared, rotation.Applying} {
		w, _ := rotating(t)
		w.inState(t, "db", state)
		w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) { r.Strategy, r.Base = target.Single, "v1" })
		engine, turn := w.turn(t, "db")
		w.check(t, "db")
		r, err := engine.Move(t.Context(), turn, rotation.Event{Kind: rotation.Failed}, nil)
		if err != nil || r.Check == nil {
			t.Errorf("%s: %v; the check is %v", state, err, r.Check)
		}
		turn.End()
	}
}

// TestCheckOfAnOldCredential verifies that the result of a check is not stored for a credential
// that became the current one meanwhile.
func TestCheckOfAnOldCredential(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	m.says(nil, target.Finding{Code: "limit", Verdict: target.Note, Text: "No room."})
	m.meanwhile(func() {
		w.put(t, "db", func(s *secret.Secret, _ *rotation.Record) {
			next := s.Versions["v1"]
			next.ID = "v2"
			s.Versions["v2"] = next
			s.Stages[secret.Previous], s.Stages[secret.Current] = "v1", "v2"
		})
	})
	if _, err := w.call(t, rootPrincipal, "CheckRotation", "SecretName", "db"); fault.KindOf(err) != fault.InUse {
		t.Errorf("a check during which the credential has changed: %v", err)
	}
	if got := w.record(t, "db").Check; got != nil {
		t.Errorf("the check of another credential is stored: %+v", got)
	}
}

// TestCheckKeepsTheBudget verifies that checks cause no more failed logins than the engine may, and
// that they are limited.
func TestCheckKeepsTheBudget(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	m.set("app", "changed by hand")
	w.check(t, "db")
	out := w.check(t, "db")
	if out.Verdict != "unknown" || m.logins("app") != 1 ||
		!strings.Contains(out.Unchecked, "the next login may be made at") {
		t.Errorf("a second check: %s, %q, %d logins", out.Verdict, out.Unchecked, m.logins("app"))
	}
	w.now = w.now.Add(rotation.LoginWindow)
	if w.check(t, "db"); m.logins("app") != 2 {
		t.Errorf("%d logins after a window", m.logins("app"))
	}
	for range 6 {
		w.check(t, "db")
	}
	w.refused(t, "Rejected.Throttling", `8 checks of secret "db" were asked for (rotation check, rotation configure and `+
		"target test --secret count together)", "CheckRotation", "SecretName", "db")
}

// TestCheckDuringARotation verifies that a check does not log in, and judges no credential, while
// it is being changed.
func TestCheckDuringARotation(t *testing.T) {
	t.Parallel()
	for _, state := range rotation.States() {
		w, m := rotating(t)
		w.inState(t, "db", state)
		w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) { r.Strategy = target.Single })
		w.check(t, "db")
		changing := slices.Contains([]rotation.State{
			rotation.Applying, rotation.Unknown, rotation.Applied, rotation.Verified, rotation.Retiring,
			rotation.Undoing, rotation.Reverting,
		}, state)
		if n := m.logins("app"); (n == 0) != changing {
			t.Errorf("%s: %d logins", state, n)
		}
	}
}

// TestConfigureChecks verifies that settings are refused which a check finds impossible, and that
// those which need an agreement are stored and shown.
func TestConfigureChecks(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	m.says(nil, target.Finding{
		Code:       "limit",
		Verdict:    target.Impossible,
		Strategies: []target.Strategy{target.Single},
		Text:       "No room.",
		Fix:        "ALTER ROLE gen CONNECTION LIMIT -1.",
	})
	configure := []string{"SecretName", "gen", "TargetName", "pg"}
	w.refused(t, "Rejected.ResourceInUse", "ALTER ROLE gen CONNECTION LIMIT -1.", "ConfigureRotation", configure...)
	if s := w.must(t, "DescribeSecret", "SecretName", "gen").(*kms.DescribeSecretResponse); s.AutomaticRotation != "" {
		t.Errorf("the secret is rotated after a refusal: %q", s.AutomaticRotation)
	}
	m.says(nil, target.Finding{
		Code:    "plugin",
		Verdict: target.NeedsConsent,
		Text:    "It changes.",
		Consent: "change-plugin",
	})
	out := w.must(t, "ConfigureRotation", configure...).(*kms.DescribeRotationResponse)
	if len(out.CheckFindings) != 2 || out.CheckFindings[1].Consent != "change-plugin" || out.CheckFindings[1].Agreed {
		t.Errorf("findings: %+v", out.CheckFindings)
	}
	out = w.must(t, "ConfigureRotation", append(configure, "Consent.1", "change-plugin", "Consent.2", "change-plugin",
		"LoginDatabase", "shop", "LoginEndpoint.1", "db:1")...).(*kms.DescribeRotationResponse)
	if !out.CheckFindings[1].Agreed ||
		len(out.Consents) != 1 ||
		out.LoginDatabase != "shop" ||
		!slices.Equal(out.LoginEndpoints, []string{"db:1"}) {
		t.Errorf("configured: %+v", out)
	}
	w.check(t, "gen")
	if login, asked := m.followed(); login.Database != "shop" || asked.Current.Account != "gen" {
		t.Errorf("the target follows %+v, and was asked about %q", login, asked.Current.Account)
	}
	w.must(t, "TestTarget", "TargetName", "pg", "SecretName", "gen")
	if login, _ := m.followed(); login.Database != "shop" {
		t.Errorf("a test follows %+v", login)
	}
	for text, params := range map[string][]string{
		`does not log in at "other:1"`:     {"LoginEndpoint.1", "other:1"},
		"only replicas of target":          {"LoginEndpoint.1", "standby:1"},
		"does not follow role":             {"LoginRole", "r"},
		"use tokens of lower-case letters": {"Consent.1", "No!"},
		"has no consent \"change-plugins\"; it has: change-auth-plugin, change-plugin": {"Consent.1", "change-plugins"},
	} {
		w.refused(t, "InvalidParameter", text, "ConfigureRotation", append(configure, params...)...)
	}
}

// TestClientCertificates verifies that the value of a client certificate goes to a target only for
// a caller who could read it, also when the target is pointed elsewhere or registered again.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	w.must(t, "CreateSecret", "SecretName", "pem", "SecretData", "-----BEGIN", "VersionId", "v1")
	const configures = `{"Version":"1","Statement":[{"Effect":"Allow","Action":["kms:ConfigureRotation","kms:UpdateTarget",
		"kms:RotateAccount","kms:CheckRotation","kms:TestTarget","kms:RegisterTarget","kms:RotateSecret"],"Resource":"*"},
		{"Effect":"Allow","Action":"kms:GetSecretValue",
		"Resource":["acs:kms:*:*:secret/gen","acs:kms:*:*:secret/pg-admin"]}]}`
	made := w.must(t, "CreateUser", "UserName", "mallory").(*ram.UserResponse)
	w.must(t, "CreatePolicy", "PolicyName", "p", "PolicyDocument", configures)
	w.must(t, "AttachPolicyToUser", "PolicyType", "Custom", "PolicyName", "p", "UserName", "mallory")
	thief := policy.Principal{Kind: policy.KindRAMUser, Account: account, Name: "mallory", ID: made.User.UserID}
	configure := []string{"SecretName", "gen", "TargetName", "pg", "LoginCertificateSecret", "pem"}
	denied := func(what string, err error) {
		t.Helper()
		if fault.KindOf(err) != fault.Denied {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := w.call(t, thief, "ConfigureRotation", configure...)
	denied("configure with a certificate", err)
	w.must(t, "ConfigureRotation", configure...)
	w.check(t, "gen")
	if login, _ := m.followed(); login.Certificate.Reveal() != "-----BEGIN" {
		t.Error("the login does not have the certificate")
	}
	_, err = w.call(t, thief, "UpdateTarget", "TargetName", "pg", "Config", `{"address":"elsewhere"}`)
	denied("point the target elsewhere", err)
	if _, err := w.call(t, thief, "CheckRotation", "SecretName", "gen"); err != nil {
		t.Errorf("a check of a bound secret: %v", err)
	}
	w.must(t, "SetSecretPolicy", "SecretName", "pem", "Policy", `{"Version":"1","Statement":[{"Effect":"Allow",
		"Principal":{"RAM":["acs:ram::1234567890123456:*"]},"Action":["kms:GetSecretValue"],"Resource":["*"]},
		{"Effect":"Deny",
		"Principal":{"RAM":["acs:ram::1234567890123456:*"]},
		"Action":["kms:CheckRotation","kms:TestTarget"],"Resource":["*"]}]}`)
	_, err = w.call(t, thief, "CheckRotation", "SecretName", "gen")
	denied("a check against the policy of the certificate", err)
}

// TestSentIsSentAgain verifies that what an attempt has left at the target keeps no rotation from
// sending its candidate again. An attempt that has met a lock there has left nothing, so the next
// one is checked as the first one was.
func TestSentIsSentAgain(t *testing.T) {
	t.Parallel()
	left := &memory{}
	left.says(nil, target.Finding{Code: "second-password", Verdict: target.Impossible, Text: "Two."})
	turn := &api.Turn{Record: rotation.Record{Attempt: 1, Doubtful: true}}
	if _, err := turn.MayBegin(t.Context(), left, rotation.Event{}); err != nil || left.asked.Current.Account != "" {
		t.Errorf("a second attempt is checked: %v", err)
	}
	w, m := rotating(t)
	m.says(nil, target.Finding{Code: "second-password", Verdict: target.Impossible, Text: "Two."})
	w.inState(t, "db", rotation.Prepared)
	w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) {
		for _, e := range []rotation.EventKind{rotation.Sending, rotation.Unreached} {
			r.NextAt = time.Time{}
			after, err := rotation.Next(*r, rotation.Event{Kind: e, Text: "a lock"}, w.now)
			if err != nil {
				t.Fatal(err)
			}
			*r = after
		}
	})
	turn, _, err := w.gate.Engine(1).Load(t.Context(), account, "db")
	if err != nil {
		t.Fatal(err)
	}
	_, err = turn.MayBegin(t.Context(), m, rotation.Event{})
	if fault.KindOf(err) != fault.InUse || turn.Record.Attempt != 1 {
		t.Errorf("after an attempt that was not sent: %v", err)
	}
}

// TestMayBegin verifies that the engine does not send a candidate when a check finds something in
// the way, unless the secret agrees, and that it may give a target again what it had.
func TestMayBegin(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	m.says(nil, target.Finding{Code: "plugin", Verdict: target.NeedsConsent, Text: "It changes.", Consent: "plugin"})
	var base target.Liveness
	may := func(mode rotation.Mode, consents ...string) error {
		t.Helper()
		w.inState(t, "db", rotation.Prepared)
		w.put(t, "db", func(s *secret.Secret, r *rotation.Record) {
			s.Rotation.Settings = &secret.RotationSettings{Consents: consents}
			r.Mode, r.Strategy = mode, target.Single
		})
		turn, ok, err := w.gate.Engine(1).Load(t.Context(), account, "db")
		if err != nil || !ok {
			t.Fatalf("load: %v, %v", ok, err)
		}
		e, err := turn.MayBegin(t.Context(), m, rotation.Event{})
		base = e.Base
		return err
	}
	if err := may(rotation.Rotate); fault.KindOf(err) != fault.InUse ||
		!strings.Contains(err.Error(), "configure db --consent=plugin") {
		t.Errorf("without consent: %v", err)
	}
	if base != target.NotKnown {
		t.Errorf("without consent: the base is %v", base)
	}
	if err := may(rotation.Rotate, "plugin"); err != nil {
		t.Errorf("with consent: %v", err)
	}
	m.says(nil, target.Finding{Code: "no-password", Verdict: target.Impossible, Text: "It lacks it.", Drift: true})
	if err := may(rotation.Rotate); fault.KindOf(err) != fault.InUse || base != target.Dead {
		t.Errorf("without the credential in use: the base is %v, %v", base, err)
	}
	if err := may(rotation.Reapply); err != nil {
		t.Errorf("a repair: %v", err)
	}
}

// TestEmergencyNeedsConsent verifies that an emergency is refused when it is asked for, not later,
// if a check finds something that needs a consent, also in a grace period. It names the consent. A
// target that does not answer, or a rotation that is changing the account, keeps no emergency
// waiting.
func TestEmergencyNeedsConsent(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	w.env.TestTime = time.Millisecond
	emergency := []string{"SecretName", "db", "VersionId", "e1"}
	m.says(nil, target.Finding{
		Code:    "plugin",
		Verdict: target.NeedsConsent,
		Text:    "It changes.",
		Consent: "change-plugin",
	})
	w.refused(t, "Rejected.ResourceInUse", "configure db --consent=change-plugin", "EmergencyRotation", emergency...)
	dry := w.must(t, "EmergencyRotation", append(emergency, "DryRun", "true")...).(*kms.EmergencyRotationResponse)
	if len(dry.Findings) != 1 || dry.Findings[0].Consent != "change-plugin" {
		t.Errorf("a dry run lists %+v", dry.Findings)
	}
	if r := w.record(t, "db"); r.InFlight() || m.logins("app") != 0 {
		t.Errorf("after a refusal: state %s, %d logins", r.State, m.logins("app"))
	}
	m.mu.Lock()
	m.down = true
	m.mu.Unlock()
	w.must(t, "EmergencyRotation", append(emergency, "DryRun", "true")...)
	m.mu.Lock()
	m.down = false
	m.mu.Unlock()
	sent := func(state rotation.State) {
		w.inState(t, "db", state)
		w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) { r.Attempt, r.Strategy = 1, target.Overlap })
	}
	for _, state := range []rotation.State{rotation.InGrace, rotation.Retiring, rotation.Undoing, rotation.Reverting} {
		sent(state) // the emergency begins after this rotation
		w.refused(t, "Rejected.ResourceInUse", "configure db --consent=change-plugin", "EmergencyRotation", emergency...)
	}
	sent(rotation.Applied)
	w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) { r.Mode = rotation.Rehearse })
	w.refused(t, "Rejected.ResourceInUse", "configure db --consent=change-plugin", "EmergencyRotation", emergency...)
	sent(rotation.Applied)
	w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) { r.Mode = rotation.Rotate })
	w.must(t, "EmergencyRotation", append(emergency, "DryRun", "true")...)
	w.inState(t, "db", rotation.Done)
	w.put(t, "db", func(s *secret.Secret, _ *rotation.Record) {
		s.Rotation.Settings = &secret.RotationSettings{Consents: []string{"change-plugin"}}
	})
	w.must(t, "EmergencyRotation", emergency...)
	if r := w.record(t, "db"); r.Trigger != rotation.Emergency || r.ID != "e1" {
		t.Errorf("with the consent: %s %s", r.Trigger, r.ID)
	}
	m.mu.Lock()
	m.down = true
	m.mu.Unlock()
	w.must(t, "EmergencyRotation", emergency...) // repeated: the target is not asked
}

// TestDryEmergencyStoresNothing verifies that a dry run binds no secret to a target that was
// registered anew: what is known of the credential stays.
func TestDryEmergencyStoresNothing(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) {
		r.Target = "pg"
		r.Health = rotation.Health{Live: true, ProbedAt: w.now}
	})
	w.must(t, "DeregisterTarget", "TargetName", "pg", "Detach", "true")
	w.must(t, "RegisterTarget", "TargetName", "pg", "Kind", "memory", "Config", toMemory, "AdminSecretName", "pg-admin")
	w.must(t, "EmergencyRotation", "SecretName", "db", "VersionId", "e1", "DryRun", "true")
	if h := w.record(t, "db").Health; !h.Live {
		t.Errorf("after a dry run the record has %+v", h)
	}
}

// TestEmergencyNeedsALogin verifies that an emergency with one credential at a time is refused
// where the last check was not let in: the new credential could not be proven, either, unless the
// target's own state shows it, or a login has succeeded since.
func TestEmergencyNeedsALogin(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	emergency := []string{"SecretName", "db", "VersionId", "e1", "AgreeToFindings", "true"}
	found := func(code, version string) {
		w.put(t, "db", func(s *secret.Secret, r *rotation.Record) {
			s.Rotation.Settings = &secret.RotationSettings{Strategy: target.Single}
			r.Check = &rotation.Check{At: w.now, Version: version, Findings: []target.Finding{{
				Code: code, Verdict: target.Impossible, Account: "app", Text: "No certificate.",
			}}}
		})
	}
	denied := func(version string) { found(rotation.CodeLoginDenied, version) }
	found(rotation.CodeLoginFails, "v1") // the new credential can be proven
	w.must(t, "EmergencyRotation", append(emergency, "DryRun", "true")...)
	denied("v1")
	w.refused(t, "Rejected.ResourceInUse", "No certificate. That was so at ", "EmergencyRotation", emergency...)
	dry := append(emergency, "DryRun", "true")
	denied("another")
	w.must(t, "EmergencyRotation", dry...)
	denied("v1")
	w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) {
		r.Health = rotation.Health{Live: true, ProbedAt: w.now.Add(time.Second)}
	})
	w.must(t, "EmergencyRotation", dry...)
	w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) { r.Health = rotation.Health{} })
	w.refused(t, "Rejected.ResourceInUse", "No certificate. That was so at ", "EmergencyRotation", emergency...)
	w.shows(m)
	w.must(t, "EmergencyRotation", emergency...)
}

// TestEmergencyAgrees verifies that a request can agree to what needs a consent, that the engine
// then sends the candidate whatever consent is missing, and that nothing agrees to what is
// impossible.
func TestEmergencyAgrees(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	agreed := []string{"SecretName", "db", "VersionId", "e1", "AgreeToFindings", "true"}
	m.says(nil, target.Finding{Code: "duplicate", Verdict: target.Impossible, Text: "Two."})
	w.refused(t, "Rejected.ResourceInUse", "Two.", "EmergencyRotation", agreed...)
	m.says(nil, target.Finding{
		Code: "plugin", Verdict: target.NeedsConsent, Account: "app", Text: "It changes.", Consent: "plugin",
	})
	w.must(t, "EmergencyRotation", agreed...)
	w.inState(t, "db", rotation.Prepared)
	may := func(trigger rotation.Trigger) (rotation.Event, error) {
		w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) {
			r.Mode, r.Strategy, r.Trigger = rotation.Rotate, target.Single, trigger
		})
		turn, _, err := w.gate.Engine(1).Load(t.Context(), account, "db")
		if err != nil {
			t.Fatal(err)
		}
		return turn.MayBegin(t.Context(), m, rotation.Event{})
	}
	if e, err := may(rotation.Emergency); err != nil || !strings.Contains(e.Text, "plugin of app") {
		t.Errorf("an emergency: %q, %v", e.Text, err)
	}
	if _, err := may(rotation.Manual); fault.KindOf(err) != fault.InUse {
		t.Errorf("a rotation: %v", err)
	}
	m.says(nil, target.Finding{Code: "duplicate", Verdict: target.Impossible, Text: "Two."})
	if _, err := may(rotation.Emergency); fault.KindOf(err) != fault.InUse {
		t.Errorf("an emergency with what is impossible: %v", err)
	}
	others := target.Finding{
		Code: "hosts", Verdict: target.NeedsConsent, Account: "app", Text: "Others.", Consent: "hosts", Others: true,
	}
	m.says(nil, others)
	if _, err := may(rotation.Emergency); fault.KindOf(err) != fault.InUse {
		t.Errorf("an emergency that changes accounts of others: %v", err)
	}
	w.inState(t, "db", rotation.Done)
	agreed[3] = "e2"
	w.refused(t, "Rejected.ResourceInUse", "configure db --consent=hosts", "EmergencyRotation", agreed...)
}

// TestEmergencyNamesWhatOutlastsIt verifies that the dry run, and the record until the next
// rotation, name by what the holder of the credential could become active again.
func TestEmergencyNamesWhatOutlastsIt(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	m.says(nil,
		target.Finding{Code: "jobs", Verdict: target.Note, Account: "app", Text: "A job.", Fix: "DROP 1;", Outlasts: true},
		target.Finding{Code: "limit", Verdict: target.Note, Account: "app", Text: "A limit."})
	request := []string{"SecretName", "db", "VersionId", "e1", "AgreeToFindings", "true"}
	dry := w.must(t, "EmergencyRotation", append(request, "DryRun", "true")...).(*kms.EmergencyRotationResponse)
	if len(dry.Findings) != 1 || dry.Findings[0].Code != "jobs" {
		t.Errorf("a dry run lists %+v", dry.Findings)
	}
	w.inState(t, "db", rotation.Prepared)
	for trigger, want := range map[rotation.Trigger]string{
		rotation.Emergency: "A job. DROP 1;",
		rotation.Manual:    "",
	} {
		w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) {
			r.Mode, r.Strategy, r.Trigger = rotation.Rotate, target.Single, trigger
		})
		turn, _, err := w.gate.Engine(1).Load(t.Context(), account, "db")
		if err != nil {
			t.Fatal(err)
		}
		if e, err := turn.MayBegin(t.Context(), m, rotation.Event{}); err != nil || e.Outlasts != want || !e.Checked {
			t.Errorf("%s: %q outlasts it, want %q (%v)", trigger, e.Outlasts, want, err)
		}
		if text, err := turn.Outlasts(t.Context(), m); err != nil || text != "A job. DROP 1;" {
			t.Errorf("at the end %q outlasts it (%v)", text, err)
		}
	}
}

// TestEmergencyNamesThePreviousVersion verifies that a dry run names the version before the current
// one while its credential works in a grace period, which the emergency ends.
func TestEmergencyNamesThePreviousVersion(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	dry := func(want string) {
		t.Helper()
		out := w.must(t, "EmergencyRotation", "SecretName", "db", "VersionId", "e1", "DryRun",
			"true").(*kms.EmergencyRotationResponse)
		if out.CurrentVersionID != "v1" || out.PreviousVersionID != want {
			t.Errorf("a dry run names %q and %q, want %q", out.CurrentVersionID, out.PreviousVersionID, want)
		}
	}
	dry("")
	w.inState(t, "db", rotation.InGrace)
	w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) { r.Base = "v0" })
	dry("v0")
	w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) { r.PreviousDeadAt = w.now })
	dry("")
	w.inState(t, "db", rotation.Done)
	dry("")
}

// TestEmergencyTakesOver verifies that an emergency which takes over a rotation that is changing
// the account, and so is not checked when it is sent, names what outlasts it.
func TestEmergencyTakesOver(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	m.says(nil,
		target.Finding{Code: "jobs", Verdict: target.Note, Account: "app", Text: "A job.", Fix: "DROP 1;", Outlasts: true},
		target.Finding{Code: "trace", Verdict: target.Impossible, Account: "app", Text: "A second password."})
	w.inState(t, "db", rotation.Applied)
	w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) {
		r.Mode, r.Strategy, r.Attempt = rotation.Rotate, target.Overlap, 1
	})
	request := []string{"SecretName", "db", "VersionId", "e1"}
	dry := w.must(t, "EmergencyRotation", append(request, "DryRun", "true")...).(*kms.EmergencyRotationResponse)
	if len(dry.Findings) != 1 || dry.Findings[0].Code != "jobs" || !dry.Findings[0].Outlasts {
		t.Errorf("a dry run lists %+v", dry.Findings)
	}
	w.must(t, "PutSecretValue", "SecretName", "pg-admin", "SecretData", "{}", "VersionId", "unusable")
	w.must(t, "EmergencyRotation", append(request, "DryRun", "true")...)
	w.must(t, "PutSecretValue", "SecretName", "pg-admin", "SecretData",
		`{"AccountName":"rotator","AccountPassword":"p"}`, "VersionId", "usable")
	w.must(t, "EmergencyRotation", request...)
	if r := w.record(t, "db"); r.Trigger != rotation.Emergency || r.Outlasts != "A job. DROP 1;" {
		t.Errorf("%s, %q outlasts it", r.Trigger, r.Outlasts)
	}
}

// TestAccountOfAnotherSecret verifies that a check says that a secret cannot rotate an account
// which another one rotates, and does not name that one.
func TestAccountOfAnotherSecret(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.unclaim(t, "app")
	w.managed(t, "second", "SingleUser", valueOf("app", "p"), "pg")
	out := w.check(t, "db")
	isTaken := func(f kms.RotationFinding) bool { return f.Code == "account-of-another-secret" }
	i := slices.IndexFunc(out.Findings, isTaken)
	if i < 0 || out.Findings[i].Verdict != string(target.Impossible) ||
		strings.Contains(out.Findings[i].Text+out.Findings[i].Fix, `"second"`) ||
		!strings.HasSuffix(out.Findings[i].Fix, "keyturn rotation list --target=pg lists those that you may see.") {
		t.Errorf("the check finds %+v", out.Findings)
	}
	if list := w.check(t, "second").Findings; slices.ContainsFunc(list, isTaken) {
		t.Errorf("the owner of the account: %+v", list)
	}
}

// TestRepairSendsNoOtherMember verifies that what the target has accepted of a version, or a
// rotation has made of it, counts for the members that were its credential then: with other
// settings, a repair sends nothing of it.
func TestRepairSendsNoOtherMember(t *testing.T) {
	t.Parallel()
	for _, generated := range []bool{false, true} {
		for _, tt := range []struct {
			settings []string
			want     bool
		}{
			{nil, true},
			{[]string{"GracePeriod", "1h"}, true},
			{[]string{"SecretMember", "password"}, true},
			{[]string{"SecretMember", "x"}, false},
			{[]string{"AccountMember", "u", "SecretMember", "x"}, false},
		} {
			t.Run(fmt.Sprintf("generated %v, %v", generated, tt.settings), func(t *testing.T) {
				t.Parallel()
				w, _ := rotating(t)
				w.must(t, "CreateSecret", "SecretName", "two", "VersionId", "v1",
					"SecretData", `{"username":"three","password":"p","u":"vic","x":"q"}`)
				configure := func(settings ...string) {
					t.Helper()
					w.must(t, "ConfigureRotation", append([]string{"SecretName", "two"}, settings...)...)
				}
				configure("TargetName", "pg", "SecretMember", "password")
				w.put(t, "two", func(s *secret.Secret, r *rotation.Record) {
					if generated { // the target has not accepted it yet
						s.LastOrder++
						v := s.Versions["v1"]
						v.MadeByRotation, v.Order = true, s.LastOrder
						s.Versions["v1"] = v
						return
					}
					*r = r.Seen("v1", w.now, w.now.Add(time.Hour))
				})
				if tt.settings != nil {
					configure(tt.settings...)
				}
				w.put(t, "two", func(_ *secret.Secret, r *rotation.Record) {
					*r = r.Drifted("v1", "pg", target.Single, "wrong password", w.now)
				})
				if got := slices.Contains(w.describe(t, "two").RepairActions, kms.RepairApply); got != tt.want {
					t.Errorf("a repair can send the stored credential: %t, want %t", got, tt.want)
				}
			})
		}
	}
}

// TestRestoresNoOtherMember verifies that other settings in the middle of a rotation do not make
// the engine restore a member of the base that the target has not accepted.
func TestRestoresNoOtherMember(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg")
	w.inState(t, "gen", rotation.Applied)
	w.put(t, "gen", func(_ *secret.Secret, r *rotation.Record) { r.Base, r.BaseAccepted = "v1", true })
	restorable := func() bool {
		t.Helper()
		turn, ok, err := w.gate.Engine(1).Load(t.Context(), account, "gen")
		if err != nil || !ok {
			t.Fatalf("load: %v, %v", ok, err)
		}
		return turn.Restorable()
	}
	if !restorable() {
		t.Error("the engine does not restore what the target has accepted")
	}
	w.must(t, "ConfigureRotation", "SecretName", "gen", "SecretMember", "username")
	if restorable() {
		t.Error("the engine would restore another member than the target has accepted")
	}
}

// TestTargetKeepsLogins verifies that a target is not changed in a way that leaves the application
// of a secret without an address to log in at.
func TestTargetKeepsLogins(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	configure := []string{"SecretName", "gen", "TargetName", "pg"}
	w.must(t, "ConfigureRotation", append(configure, "LoginEndpoint.1", "db:1")...)
	move := []string{"TargetName", "pg", "Config", `{"address":"elsewhere","moved":true}`}
	w.refused(t, inUse, "at which applications log in with gen. Keep these addresses in verify",
		"UpdateTarget", move...)
	w.must(t, "UpdateTarget", "TargetName", "pg", "Config", `{"address":"elsewhere"}`)
	w.must(t, "ConfigureRotation", append(configure, "Reset.1", "LoginEndpoint")...)
	w.must(t, "UpdateTarget", move...)
}

// TestDeletedCertificate verifies that a rotation whose client certificate was deleted ends before
// anything is sent, and that the reason says what to do.
func TestDeletedCertificate(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.must(t, "CreateSecret", "SecretName", "pem", "SecretData", "-----BEGIN", "VersionId", "v1")
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg", "LoginCertificateSecret", "pem")
	w.lose(t, "pem")
	turn, ok, err := w.gate.Engine(1).Load(t.Context(), account, "gen")
	if err != nil || !ok {
		t.Fatalf("load: %v, %v", ok, err)
	}
	_, err = turn.Open()
	const command = "keyturn rotation configure gen --login-certificate-secret=SECRET names another"
	if text, final := api.Impossible(err); !final || !strings.Contains(text, command) {
		t.Errorf("without the certificate: %v, final %t", err, final)
	}
}

// TestConfigureGuessesFew verifies that a caller cannot find the databases of a target by repeated
// settings: other settings of logins count as a check of the secret, the same ones do not. An
// address that is not the target's own is refused, and the refusal names no address of the target.
func TestConfigureGuessesFew(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	configure := []string{"SecretName", "gen", "TargetName", "pg"}
	for range 20 {
		w.must(t, "ConfigureRotation", append(configure, "LoginDatabase", "0")...)
	}
	for i := range 7 {
		w.must(t, "ConfigureRotation", append(configure, "LoginDatabase", strconv.Itoa(i+1))...)
	}
	w.refused(t, "Rejected.Throttling", "the next one may be asked for at", "ConfigureRotation",
		append(configure, "LoginDatabase", "8")...)
	_, err := w.call(t, rootPrincipal, "ConfigureRotation", append(configure, "LoginEndpoint.1", "other:1")...)
	if got := protocol.CodeFor(err); got.Code != "InvalidParameter" || strings.Contains(got.Message, "standby:1") {
		t.Errorf("another address: %s %s", got.Code, got.Message)
	}
}

// TestAttachedNames verifies that a refusal names the attached secrets that the caller may
// describe, and of the others only how many there are.
func TestAttachedNames(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg", "LoginEndpoint.1", "db:1")
	w.user(t, bob)
	grant := func(name, actions, resource string) {
		w.must(t, "CreatePolicy", "PolicyName", name, "PolicyDocument",
			`{"Version":"1","Statement":[{"Effect":"Allow","Action":[`+actions+`],"Resource":"`+resource+`"}]}`)
		w.must(t, "AttachPolicyToUser", "PolicyType", "Custom", "PolicyName", name, "UserName", bob.Name)
	}
	grant("targets", `"kms:UpdateTarget","kms:DeregisterTarget","kms:GetSecretValue"`, "*")
	aName := regexp.MustCompile(`[a-z-]+`)
	says := func(want, action string, params ...string) {
		t.Helper()
		_, err := w.call(t, bob, action, append([]string{"TargetName", "pg"}, params...)...)
		got := protocol.CodeFor(err)
		if got.Code != inUse || !strings.Contains(got.Message, want) {
			t.Errorf("%s: %s %s; want %s", action, got.Code, got.Message, want)
		}
		for _, name := range []string{"db", "double", "gen"} {
			if !strings.Contains(want, name) && slices.Contains(aName.FindAllString(got.Message, -1), name) {
				t.Errorf("%s names %s: %s", action, name, got.Message)
			}
		}
	}
	const moved = `{"address":"elsewhere","moved":true}`
	says(`log in with 1 secret that you may not describe (kms:DescribeSecret)`, "UpdateTarget", "Config", moved)
	says(`attached to target "pg": 3 secrets that you may not describe (kms:DescribeSecret)`, "DeregisterTarget")
	grant("one", `"kms:DescribeSecret"`, "acs:kms:*:*:secret/gen")
	says("log in with gen. Keep", "UpdateTarget", "Config", moved)
	says(`attached to target "pg": gen and 2 more`, "DeregisterTarget")
}

// TestCheckNamesTheQuarantine verifies that a check of a quarantined secret says first that and why
// it is quarantined, though no login is made within a minute of the one that has shown it.
func TestCheckNamesTheQuarantine(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	since := w.now
	w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) {
		r.LoginFailedAt = since
		*r = r.Drifted("v1", "pg", target.Single, "password authentication failed", since)
	})
	w.now = w.now.Add(10 * time.Second)
	out := w.check(t, "db")
	want := "Quarantined since " + since.UTC().Format(time.RFC3339) + ": The target does not accept the credential in " +
		"use: password authentication failed. No login with it has succeeded yet: it was stored with a mistake, or " +
		"changed outside of Keyturn. If its account was closed there, for example because it has expired, keyturn rotation " +
		"check db says so."
	if f := out.Findings[0]; f.Code != kms.FindingQuarantined || f.Text != want ||
		f.Fix != "keyturn rotation repair db explains what can be done." || out.Verdict != kms.VerdictImpossible {
		t.Errorf("%s: %+v\nwant %s", out.Verdict, f, want)
	}
	for _, f := range w.describe(t, "db").CheckFindings {
		if f.Code == kms.FindingQuarantined {
			t.Error("the quarantine is part of the stored check, which outlasts it")
		}
	}
}

// silentReplica is a target whose replica does not answer.
type silentReplica struct{ *memory }

func (silentReplica) Lag() time.Duration { return time.Second }

func (silentReplica) VerifyCopies(context.Context, target.Credential) error {
	err := target.Failed(target.Unreachable, "", "connect")
	err.Detail = "connection refused"
	return err
}

// TestSilentReplica verifies that a check names the replica that does not answer, and does not say
// that it rejects the credential.
func TestSilentReplica(t *testing.T) {
	t.Parallel()
	m := newMemory("rotator", "the-administrators-password", "app", "the-applications-password")
	kind := m.kinds()[0]
	kind.Open = func(target.Settings) (target.Target, error) { return silentReplica{m}, nil }
	w := newWorld(t, kind)
	w.env.TestTime = 100 * time.Millisecond
	w.must(t, "CreateSecret", "SecretName", "pg-admin", "SecretData", adminValue, "VersionId", "v1")
	w.must(t, "RegisterTarget", "TargetName", "pg", "Kind", "memory", "Config", toMemory, "AdminSecretName", "pg-admin")
	w.managed(t, "db", "SingleUser", appValue, "pg")
	const want = "The replica at standby:1 did not answer, so it is not known whether it lets in the credential in use."
	list := w.check(t, "db").Findings
	i := slices.IndexFunc(list, func(f kms.RotationFinding) bool { return f.Code == "replica-login" })
	if i < 0 || list[i].Text != want {
		t.Errorf("the check finds %+v", list)
	}
}
