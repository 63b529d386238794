package api_test

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/cli"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
)

// Reading a target takes the right on the target; creating the secret takes the right on the
// collection of secrets too, and on a secret that is there already.
func TestPrepareAccountsRights(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	createSecret(t, s, "there")
	const action = "kms:PrepareTargetAccounts"
	accounts := allow("kms:RotateAccount", "acs:kms:*:*:target/db/account/app") + "," +
		allow("kms:RotateAccount", "acs:kms:*:*:target/db/account/app_clone")
	onTarget, onSecrets, onSecret := allow(action,
		"acs:kms:*:*:target/db"), allow(action, "acs:kms:*:*:secret"), allow(action, "acs:kms:*:*:secret/there")
	for name, tt := range map[string]struct {
		rights []string
		target string
		apply  string // the secret to make
		code   string
	}{
		"look, no account":  {[]string{onTarget}, "db", "", kms.CodeNoPermission},
		"apply, no account": {[]string{onTarget, onSecrets}, "db", "new", kms.CodeNoPermission},
		"look": {
			[]string{onTarget, accounts}, "db", "", kms.CodeResourceNotFound,
		}, // allowed: and then there is no such target
		"look elsewhere":     {[]string{onTarget, accounts}, "other", "", kms.CodeNoPermission},
		"look, secrets only": {[]string{onSecrets}, "db", "", kms.CodeNoPermission},
		"apply, target only": {[]string{onTarget, accounts}, "db", "new", kms.CodeNoPermission},
		"apply":              {[]string{onTarget, onSecrets, accounts}, "db", "new", kms.CodeResourceNotFound},
		"again, others'":     {[]string{onTarget, onSecrets, accounts}, "db", "there", kms.CodeNoPermission},
		"again":              {[]string{onTarget, onSecrets, onSecret, accounts}, "db", "there", kms.CodeResourceNotFound},
	} {
		user := strings.NewReplacer(" ", "", ",", "", "'", "").Replace(name)
		c, _ := client(t, s, newUser(t, ram.New(s.Client), user, document(tt.rights...)), false)
		in := &kms.PrepareTargetAccountsRequest{TargetName: tt.target, AccountName: "app", CloneAccountName: "app_clone"}
		if tt.apply != "" {
			in.Apply, in.SecretName, in.VersionID, in.AccountPassword = true, tt.apply, "v1", sensitive.New("password")
		}
		_, err := c.PrepareTargetAccounts(t.Context(), in)
		wantCode(t, name, err, tt.code)
	}
}

// preparing is a target that makes two accounts from one. unproven is the answer to a proof, and
// applying runs while the plan is carried out.
type preparing struct {
	*memory
	applying func()
	refused  error
	unproven error
}

func (p *preparing) PlanAccounts(_ context.Context, r target.PlanRequest) (target.Plan, error) {
	return target.Plan{Request: r, Owner: r.Account, Steps: []target.PlanStep{{Statements: []string{"CREATE"}}}}, nil
}

func (p *preparing) ApplyPlan(context.Context, target.Plan) error {
	p.applying()
	return p.refused
}

func (p *preparing) ProveAccounts(context.Context, target.PlanRequest, target.Credential, target.Credential) (
	target.Proof, error,
) {
	return target.Proof{Databases: []string{"shop"}}, p.unproven
}

// preparation returns a world with such a target, two.
func preparation(t *testing.T) (*world, *preparing) {
	t.Helper()
	w, m := rotating(t)
	p := &preparing{memory: m, applying: func() {}}
	kind := m.kinds()[0]
	kind.Name, kind.Open = "preparing", func(target.Settings) (target.Target, error) { return p, nil }
	w.env.Kinds["preparing"] = kind
	w.must(t, "RegisterTarget", "TargetName", "two", "Kind", "preparing", "Config", toMemory, "AdminSecretName",
		"pg-admin")
	return w, p
}

// TestResumeOfAPreparation verifies that the rotation of accounts that are not prepared is not
// resumed, that everything that says so names the call that completes them, and that this call
// works whatever has become of the pause.
func TestResumeOfAPreparation(t *testing.T) {
	t.Parallel()
	const command = "keyturn target prepare-accounts two --account=app '--clone=the clone' --owner=app " +
		"--database=shop --secret=pair --version-id=first --apply"
	const giveUp = " To give up: keyturn secret delete pair --now, then keyturn target prepare-accounts two " +
		"--account=app '--clone=the clone' --undo --apply."
	for name, change := range map[string]func(r *rotation.Record){
		"paused by the call":         func(*rotation.Record) {},
		"paused by an operator, too": func(r *rotation.Record) { *r = r.WithPause(&rotation.Pause{By: "operator"}) },
		"resumed by an earlier one":  func(r *rotation.Record) { *r = r.WithPause(nil) },
	} {
		w, p := preparation(t)
		p.refused = target.Failed(target.Unreachable, "", "connect: connection refused")
		in := []string{
			"TargetName", "two", "AccountName", "app", "CloneAccountName", "the clone", "OwnerName", "app",
			"Database.1", "shop", "AccountPassword", "the-applications-password", "Apply", "true",
			"SecretName", "pair", "VersionId", "first",
		}
		w.refused(t, kms.CodeResourceInUse, "repeat the call to continue", "PrepareTargetAccounts", in...)
		w.put(t, "pair", func(_ *secret.Secret, r *rotation.Record) { change(r) })
		out := w.check(t, "pair")
		if out.Verdict != "impossible" || out.Findings[0].Fix != command+" continues."+giveUp {
			t.Errorf("%s: a check: %s, %+v", name, out.Verdict, out.Findings)
		}
		d := w.describe(t, "pair")
		for _, pause := range d.Pauses {
			if line := rotation.PausedText(pause, "pair", "two", ""); pause.Continue != command ||
				strings.Contains(line, "resume") || !strings.Contains(line, command) {
				t.Errorf("%s: the pause says %q", name, line)
			}
		}
		w.refused(t, kms.CodeResourceInUse, command+" continues that."+giveUp, "ResumeRotation", "SecretName", "pair")
		p.refused = nil
		if out := w.must(t, "PrepareTargetAccounts", in...).(*kms.PrepareTargetAccountsResponse); !out.Proven {
			t.Errorf("%s: the repeated call: %+v", name, out)
		}
		w.must(t, "ResumeRotation", "SecretName", "pair")
		if r := w.record(t, "pair"); r.Preparing != nil {
			t.Errorf("%s: once proven, it is still being prepared: %+v", name, r.Preparing)
		}
		if d := w.describe(t, "pair"); d.Paused || slices.ContainsFunc(d.CheckFindings, func(f kms.RotationFinding) bool {
			return f.Code == "accounts-not-prepared"
		}) {
			t.Errorf("%s: once proven: %+v", name, d)
		}
		if out := w.must(t, "PrepareTargetAccounts", in...).(*kms.PrepareTargetAccountsResponse); !out.Proven {
			t.Errorf("%s: the same call once more: %+v", name, out)
		}
	}
}

// TestPrintedPreparation verifies that the program takes the commands by which a preparation is
// continued and given up, as they are printed, and the one for a check that an earlier release has
// stored.
func TestPrintedPreparation(t *testing.T) {
	t.Parallel()
	w, p := preparation(t)
	p.refused = target.Failed(target.Unreachable, "", "connect: connection refused")
	w.refused(t, kms.CodeResourceInUse, "repeat the call to continue", "PrepareTargetAccounts",
		"TargetName", "two", "AccountName", "app", "CloneAccountName", "the clone", "OwnerName", "app",
		"Database.1", "shop", "AccountPassword", "the-applications-password", "Apply", "true",
		"SecretName", "pair", "VersionId", "first")
	preparing := w.record(t, "pair").Preparing
	commands := append(strings.Split(preparing.GiveUp, ", then "), preparing.Continue)
	w.put(t, "pair", func(_ *secret.Secret, r *rotation.Record) {
		r.Preparing = nil
		r.Check.Findings[0].Fix = "keyturn rotation resume pair names the command that continues, and those that give up."
	})
	commands = append(commands, w.describe(t, "pair").Pauses[0].Continue)
	if len(commands) != 4 {
		t.Fatalf("commands: %q", commands)
	}
	for _, command := range commands {
		words, err := exec.CommandContext(t.Context(), "sh", "-c", "printf '%s\\n' "+command).Output()
		if err != nil {
			t.Fatal(err)
		}
		args := strings.Split(strings.TrimSuffix(string(words), "\n"), "\n")[1:]
		var out bytes.Buffer
		args = slices.Insert(args, 2, "--profile=no-such-profile")
		code := cli.Run(t.Context(), args, strings.NewReader(""), &out, &out)
		runs := code == 1 && strings.Contains(out.String(), "no-such-profile")
		asks := strings.Contains(out.String(), "add --yes to answer yes")
		if !runs && !asks {
			t.Errorf("%s: exit code %d, %s", command, code, out.String())
		}
	}
}

// TestLongPreparation verifies that a command which continues a preparation is whole, however long
// it is, and names the accounts as they are.
func TestLongPreparation(t *testing.T) {
	t.Parallel()
	w, p := preparation(t)
	p.refused = target.Failed(target.Unreachable, "", "connect: connection refused")
	in := []string{
		"TargetName", "two", "AccountName", "app", "CloneAccountName", "the  clone",
		"AccountPassword", "the-applications-password", "Apply", "true", "SecretName", "pair", "VersionId", "first",
	}
	command := "keyturn target prepare-accounts two --account=app $'--clone=the \\040clone'"
	for i := range 12 {
		database := fmt.Sprintf("database-%d-%s", i, strings.Repeat("x", 45))
		in = append(in, fmt.Sprintf("Database.%d", i+1), database)
		command += " --database=" + database
	}
	command += " --secret=pair --version-id=first --apply"
	w.refused(t, kms.CodeResourceInUse, "", "PrepareTargetAccounts", in...)
	w.refused(t, kms.CodeResourceInUse, command+" continues that. To give up: keyturn secret delete pair --now",
		"ResumeRotation", "SecretName", "pair")
	if d := w.describe(t, "pair"); len(d.Pauses) != 1 || d.Pauses[0].Continue != command {
		t.Errorf("the pause: %+v", d.Pauses)
	}
	if fix := w.check(t, "pair").Findings[0].Fix; !strings.Contains(fix, "keyturn rotation resume pair names") {
		t.Errorf("the finding: %q", fix)
	}
}

// TestUnfinishedPreparation verifies that a rotation that is paused because a preparation has not
// proven its accounts says so, wherever the preparation has ended, and also after another check.
func TestUnfinishedPreparation(t *testing.T) {
	t.Parallel()
	noAnswer := target.Failed(target.Unreachable, "", "connect: connection refused")
	for name, tt := range map[string]struct {
		change func(p *preparing)
		fails  string // the text of the refusal; empty for none
		want   string // in the finding
	}{
		"not carried out": {func(p *preparing) { p.refused = noAnswer }, "repeat the call to continue", "is not finished"},
		"not proven":      {func(p *preparing) { p.unproven = noAnswer }, "set up but not proven", "connection refused"},
		"not equal": {
			func(p *preparing) { p.unproven = target.Failed(target.Denied, "", "app_clone lacks a right") }, "",
			"app_clone lacks a right",
		},
		"not checked": {func(p *preparing) { p.memory.refuses(noAnswer) }, "set up but not checked", "connection refused"},
	} {
		w, p := preparation(t)
		m := p.memory
		unfinished := func(f kms.RotationFinding) bool { return f.Code == "accounts-not-prepared" }
		finding := func(when string) string {
			t.Helper()
			r := w.describe(t, "pair")
			if i := slices.IndexFunc(r.CheckFindings, unfinished); r.Paused && i >= 0 {
				return r.CheckFindings[i].Text
			}
			t.Errorf("%s, %s: paused %t without a finding that says why: %+v", name, when, r.Paused, r.CheckFindings)
			return ""
		}
		p.applying = func() { finding("where a crash would end the call") }
		tt.change(p)
		in := []string{
			"TargetName", "two", "AccountName", "app", "CloneAccountName", "app_clone",
			"AccountPassword", "the-applications-password", "Apply", "true", "SecretName", "pair", "VersionId", "v1",
		}
		if tt.fails != "" {
			w.refused(t, kms.CodeResourceInUse, tt.fails, "PrepareTargetAccounts", in...)
		} else {
			w.must(t, "PrepareTargetAccounts", in...)
		}
		if text := finding("at the end"); !strings.Contains(text, tt.want) {
			t.Errorf("%s: the finding is %q, want %q in it", name, text, tt.want)
		}
		w.refused(t, kms.CodeResourceInUse, "second account is not prepared yet. keyturn target prepare-accounts two "+
			"--account=app --clone=app_clone --secret=pair", "EmergencyRotation", "SecretName", "pair", "VersionId", "e1")
		m.refuses(nil)
		w.must(t, "CheckRotation", "SecretName", "pair")
		finding("after a check")
		p.refused, p.unproven = nil, nil
		if out := w.must(t, "PrepareTargetAccounts", in...).(*kms.PrepareTargetAccountsResponse); !out.Proven {
			t.Errorf("%s: the same call when nothing stands in the way: %+v", name, out)
		}
		if r := w.describe(t, "pair"); r.Paused || slices.ContainsFunc(r.CheckFindings, unfinished) {
			t.Errorf("%s: once proven: paused %t, %+v", name, r.Paused, r.CheckFindings)
		}
	}
}

// prepare is a call with further parameters.
func prepare(further ...string) []string {
	return append([]string{
		"TargetName", "two", "AccountName", "app", "CloneAccountName", "app_clone", "Apply", "true",
		"SecretName", "pair", "VersionId", "first",
	}, further...)
}

var withPassword = []string{"AccountPassword", "the-applications-password"}

// TestRepeatedPreparation verifies that a call that is repeated takes the password from the secret,
// and that until it ends nothing says what an earlier one has met.
func TestRepeatedPreparation(t *testing.T) {
	t.Parallel()
	w, p := preparation(t)
	w.refused(t, kms.CodeMissingParameter, "AccountPassword", "PrepareTargetAccounts", prepare()...)
	p.refused = target.Failed(target.Denied, "", "permission denied to set parameter")
	w.refused(t, kms.CodeResourceInUse, "permission denied", "PrepareTargetAccounts", prepare(withPassword...)...)
	p.refused = nil
	p.applying = func() { // where a crash would end the call
		if f := w.describe(t, "pair").CheckFindings[0]; strings.Contains(f.Text, "permission denied") ||
			!strings.Contains(f.Text, "was interrupted") {
			t.Errorf("while the repeated call runs: %s", f.Text)
		}
	}
	if out := w.must(t, "PrepareTargetAccounts", prepare()...).(*kms.PrepareTargetAccountsResponse); !out.Proven {
		t.Errorf("the repeated call without the password: %+v", out)
	}
}

// TestUnequalAccounts verifies that a call whose accounts differ names what a check finds, and that
// a check shows no second way to make an account that the call makes.
func TestUnequalAccounts(t *testing.T) {
	t.Parallel()
	w, p := preparation(t)
	p.unproven = target.Failed(target.Denied, "", "they differ in rows of app.tenants")
	p.says(nil,
		target.Finding{
			Code:       "session-user",
			Verdict:    target.NeedsConsent,
			Consent:    "session-user",
			Strategies: []target.Strategy{target.Double},
			Text:       "A policy reads session_user.",
		},
		target.Finding{Code: "no-such-account", Verdict: target.Impossible, Account: "app_clone", Text: "No role."})
	out := w.must(t, "PrepareTargetAccounts", prepare(withPassword...)...).(*kms.PrepareTargetAccountsResponse)
	if text := strings.Join(out.Findings, "\n"); !strings.Contains(text, "session-user: A policy reads session_user.") ||
		!strings.Contains(text, "keyturn rotation check pair shows") {
		t.Errorf("the accounts differ:\n%s", text)
	}
	checked := w.check(t, "pair")
	if slices.ContainsFunc(checked.Findings, func(f kms.RotationFinding) bool { return f.Code == "no-such-account" }) {
		t.Errorf("findings: %+v", checked.Findings)
	}
}

// TestPlanOfATakenAccount verifies that a call without Apply says that one with it is refused,
// because another secret rotates the account.
func TestPlanOfATakenAccount(t *testing.T) {
	t.Parallel()
	w, _ := preparation(t)
	look := []string{"TargetName", "two", "AccountName", "app", "CloneAccountName", "app_clone"}
	if out := w.must(t, "PrepareTargetAccounts", look...).(*kms.PrepareTargetAccountsResponse); out.Refused != "" {
		t.Errorf("nothing rotates it: %s", out.Refused)
	}
	w.must(t, "CreateSecret", "SecretName", "taken", "SecretData",
		`{"username":"app","password":"the-applications-password"}`, "VersionId", "v1")
	w.must(t, "ConfigureRotation", "SecretName", "taken", "TargetName", "two")
	out := w.must(t, "PrepareTargetAccounts", look...).(*kms.PrepareTargetAccountsResponse)
	if !strings.Contains(out.Refused, `is rotated by secret "taken" already`) ||
		!strings.Contains(out.Refused, "keyturn rotation detach taken") {
		t.Errorf("another secret rotates it: %q", out.Refused)
	}
}
