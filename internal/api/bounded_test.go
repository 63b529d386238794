package api_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
)

// TestConsentsAreBounded verifies that calls which add consents do not fill the store, and that the
// refusal says how to withdraw them.
func TestConsentsAreBounded(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	kind := w.env.Kinds["memory"]
	w.env.Kinds["memory"] = kind.Consenting("plugin-*")
	add := func(from, count int) []string {
		params := []string{"SecretName", "db"}
		for i := range count {
			params = append(params, fmt.Sprintf("Consent.%d", i+1), fmt.Sprintf("plugin-%d", from+i))
		}
		return params
	}
	w.must(t, "ConfigureRotation", add(0, 20)...)
	w.must(t, "ConfigureRotation", add(20, 12)...)
	w.must(t, "ConfigureRotation", add(0, 20)...) // no further ones
	w.refused(t, "InvalidParameter", "the secret would have 33 consents, and keeps at most 32. keyturn rotation "+
		"configure db --reset=consent withdraws them", "ConfigureRotation", add(32, 1)...)
	if got := len(w.stored(t, "db").Settings().Consents); got != kms.MaxConsents {
		t.Errorf("%d consents are stored", got)
	}
	w.must(t, "ConfigureRotation", append(add(32, 1), "Reset.1", "Consent")...)
}

// TestRefusalsAreShort verifies that a long parameter is not repeated in a refusal.
func TestRefusalsAreShort(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	long := strings.Repeat("x", 900_000)
	for _, params := range [][]string{
		{"Reset.1", long}, {"Consent.1", long}, {"LoginEndpoint.1", long}, {"Window", long}, {"RotationInterval", long},
		{"Reset.1", strings.Repeat("x", 60)},
	} {
		_, err := w.call(t, rootPrincipal, "ConfigureRotation", append([]string{"SecretName", "db"}, params...)...)
		if text := protocol.CodeFor(err).Message; err == nil || len(text) > 600 {
			t.Errorf("%s: %d characters: %.100s", params[0], len(text), text)
		}
	}
}

// TestConfigureChecksFew verifies that ConfigureRotation does not ask the target without a limit: a
// call that is repeated is answered from the last check, and others count as checks.
func TestConfigureChecksFew(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	for range 70 {
		w.must(t, "ConfigureRotation", "SecretName", "db")
		w.now = w.now.Add(200 * time.Millisecond)
	}
	if m.checked() != 1 {
		t.Errorf("70 calls in 14 seconds have asked the target %d times", m.checked())
	}
	for i := range 7 {
		w.must(t, "ConfigureRotation", "SecretName", "db", "Reset.1", "Strategy", "LoginDatabase", fmt.Sprint(i))
	}
	w.refused(t, "Rejected.Throttling", "8 checks of secret",
		"ConfigureRotation", "SecretName", "db", "LoginDatabase", "7")
	w.must(t, "ConfigureRotation", "SecretName", "db", "GracePeriod", "1h")

	// A finding of the last check still refuses a call, and another version is checked anew.
	w.now = w.now.Add(time.Hour)
	m.says(nil, target.Finding{Code: "limit", Verdict: target.Impossible, Text: "No room."})
	w.must(t, "CheckRotation", "SecretName", "db")
	asked := m.checked()
	w.refused(t, kms.CodeResourceInUse, "No room.", "ConfigureRotation", "SecretName", "db", "GracePeriod", "2h")
	if m.checked() != asked {
		t.Errorf("the target was asked again")
	}
	m.says(nil)
	w.now = w.now.Add(time.Second)
	w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) { r.PromotedAt = w.now })
	if w.must(t, "ConfigureRotation", "SecretName", "db", "GracePeriod", "2h"); m.checked() != asked+1 {
		t.Errorf("another version was not checked")
	}

	// A check that the target has not answered stands for nothing.
	m.refuses(target.NoAnswer("ask", errors.New("reset")))
	w.now = w.now.Add(time.Hour)
	w.must(t, "CheckRotation", "SecretName", "db")
	m.refuses(nil)
	m.says(nil, target.Finding{Code: "limit", Verdict: target.Impossible, Text: "No room."})
	w.refused(t, kms.CodeResourceInUse, "No room.", "ConfigureRotation", "SecretName", "db", "GracePeriod", "3h")

	// Many calls about a target that does not answer are taken: they learn nothing.
	m.says(nil)
	m.refuses(target.Failed(target.Unreachable, "", "connect: connection refused"))
	w.now = w.now.Add(time.Hour)
	for range 12 {
		w.must(t, "ConfigureRotation", "SecretName", "db", "GracePeriod", "3h")
	}
}

// TestChangesHidePausersAndConsumers verifies that a caller who may not call DescribeRotation does
// not learn from the answer of a change who has paused rotations, and which consumers there are.
func TestChangesHidePausersAndConsumers(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.must(t, "PauseRotation", "SecretName", "db")
	w.must(t, "PauseRotation")
	w.inState(t, "db", rotation.InGrace)
	w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) {
		r.Candidate, r.GraceDeadline = "v2", w.now.Add(2*time.Hour)
	})
	err := store.Do(t.Context(), w.env.DB, func(tx *store.Tx) error {
		return tx.PutConsumer(rotation.Sighting{
			Account: account, Secret: "db", Instance: "billing-1", AccessKeyID: "k", Version: "v1", Seen: w.now,
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	rights := []string{"kms:ConfigureRotation on secret/db target/pg", "kms:RotateAccount on target/pg/account/*"}
	carol := w.holder(t, "carol", rights...)
	reader := w.holder(t, "reader", append(rights, "kms:DescribeRotation on secret/db")...)
	for _, tt := range []struct {
		who   string
		names int
	}{{"carol", 0}, {"reader", 1}} {
		p := carol
		if tt.who == "reader" {
			p = reader
		}
		got, err := w.call(t, p, "ConfigureRotation", "SecretName", "db")
		if err != nil {
			t.Fatal(err)
		}
		out := got.(*kms.DescribeRotationResponse)
		by := 0
		for _, pause := range out.Pauses {
			if pause.Principal != "" {
				by++
			}
		}
		if len(out.Pauses) != 2 || by != 2*tt.names || len(out.WaitingFor) != tt.names || out.WaitingForCount != 1 {
			t.Errorf("%s: %+v, waits for %+v of %d", tt.who, out.Pauses, out.WaitingFor, out.WaitingForCount)
		}
	}
}

// preparer is a memory that makes two accounts from one, and finds them equal unless it has an
// error.
type preparer struct {
	*memory
	unequal *error
}

func (preparer) PlanAccounts(_ context.Context, r target.PlanRequest) (target.Plan, error) {
	return target.Plan{Request: r}, nil
}

func (preparer) ApplyPlan(context.Context, target.Plan) error { return nil }

func (p preparer) ProveAccounts(
	context.Context, target.PlanRequest, target.Credential, target.Credential,
) (target.Proof, error) {
	return target.Proof{}, *p.unequal
}

// TestPreparationLiftsItsOwnPause verifies that a preparation of accounts resumes what it has
// paused itself, and not what an operator has paused meanwhile: that takes kms:ResumeRotation.
func TestPreparationLiftsItsOwnPause(t *testing.T) {
	t.Parallel()
	for _, paused := range []bool{false, true} {
		w, m := rotating(t)
		var unequal error = target.Failed(target.Denied, "", "the accounts differ")
		kind := w.env.Kinds["memory"]
		kind.Open = func(target.Settings) (target.Target, error) { return preparer{m, &unequal}, nil }
		w.env.Kinds["memory"] = kind
		carol := w.holder(t, "carol", "kms:PrepareTargetAccounts on target/pg secret secret/new",
			"kms:RotateAccount on target/pg/account/*")
		prepare := func() *kms.PrepareTargetAccountsResponse {
			t.Helper()
			out, err := w.call(t, carol, "PrepareTargetAccounts", "TargetName", "pg", "AccountName", "gen",
				"AccountPassword", "p", "CloneAccountName", "gen2", "Apply", "true", "SecretName", "new", "VersionId", "v1")
			if err != nil {
				t.Fatal(err)
			}
			return out.(*kms.PrepareTargetAccountsResponse)
		}
		if out := prepare(); out.Proven || !w.record(t, "new").Paused {
			t.Fatalf("unequal accounts: proven %t", out.Proven)
		}
		if paused {
			w.must(t, "PauseRotation", "SecretName", "new")
		}
		unequal = nil
		out := prepare()
		said := strings.Contains(strings.Join(out.Findings, "\n"), "stays paused, because another call")
		if r := w.record(t, "new"); !out.Proven || r.Paused != paused || said != paused {
			t.Errorf("paused by an operator: %t; then proven: %t, paused: %t, %q", paused, out.Proven, r.Paused, out.Findings)
		}
	}
}

// TestCommandsInRefusals verifies that a secret or a target whose name looks like a flag is named
// in a command so that the command is about it: "keyturn rotation resume --all" resumes everything.
func TestCommandsInRefusals(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.must(t, "RegisterTarget", "TargetName", "-h", "Kind", "memory", "Config", toMemory, "AdminSecretName", "pg-admin",
		"Account.1", "gen", "Account.2", "app")
	for name, user := range map[string]string{"--all": "gen", "other": "gen"} {
		w.must(t, "CreateSecret", "SecretName", name, "SecretData", `{"username":"`+user+`","password":"p"}`,
			"VersionId", "v1")
	}
	w.refused(t, kms.CodeUnsupportedOperation, "keyturn rotation configure --target=TARGET -- --all attaches it",
		"RotateSecret", "SecretName", "--all", "VersionId", "v2")
	w.must(t, "ConfigureRotation", "SecretName", "--all", "TargetName", "-h")
	w.refused(t, kms.CodeResourceExist, "keyturn rotation detach -- --all (a Generic secret) or keyturn secret delete "+
		"--now -- --all (any other)", "ConfigureRotation", "SecretName", "other", "TargetName", "-h")
	w.must(t, "PauseRotation", "TargetName", "-h")
	w.refused(t, kms.CodeResourceInUse, "keyturn target resume -- -h", "RotateSecret", "SecretName", "--all",
		"VersionId", "v2")
	w.must(t, "ResumeRotation", "TargetName", "-h")
	w.must(t, "PauseRotation", "SecretName", "--all")
	w.refused(t, kms.CodeResourceInUse, "keyturn rotation resume -- --all",
		"RotateSecret", "SecretName", "--all", "VersionId", "v2")
	w.refused(t, kms.CodeResourceInUse, "keyturn rotation probe -- --all checks the credential", "RepairRotation",
		"SecretName", "--all", "RepairAction", "apply")
	w.inState(t, "--all", rotation.Quarantined)
	if d := w.describe(t, "--all"); !strings.Contains(d.Advice, "keyturn rotation repair -- --all explains what") ||
		strings.Contains(strings.ReplaceAll(d.Advice, "-- --all", ""), "--all") {
		t.Errorf("advice: %q", d.Advice)
	}
}

// fixes returns each text with a command in the source of targets, which findings have.
func fixes(t *testing.T) (list []string) {
	t.Helper()
	var text func(ast.Expr) string
	text = func(e ast.Expr) string {
		switch e := e.(type) {
		case *ast.BasicLit:
			s, _ := strconv.Unquote(e.Value)
			return regexp.MustCompile("%[a-z]").ReplaceAllString(s, "x")
		case *ast.BinaryExpr:
			return text(e.X) + text(e.Y)
		}
		return "x"
	}
	err := filepath.WalkDir(filepath.Join("..", "target"), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Name() == "targettest":
			return fs.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			e, ok := n.(ast.Expr)
			if !ok {
				return true
			}
			switch e.(type) {
			case *ast.BinaryExpr, *ast.BasicLit:
				if s := text(e); strings.Contains(s, "keyturn ") && !strings.Contains(s, "\x00") { // that one is hashed
					list = append(list, strings.Join(strings.Fields(s), " "))
				}
				return false
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 20 {
		t.Fatalf("%d texts with a command were found", len(list))
	}
	return list
}

// TestRefusalsKeepTheirCommands verifies that the refusal of a rotation which findings keep from
// beginning ends with the commands that resolve it, however long the findings are, and that what a
// target answers names the secret.
func TestRefusalsKeepTheirCommands(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	w.env.TestTime = time.Millisecond
	var long []target.Finding
	for _, token := range []string{"one", "two", "three"} {
		long = append(long, target.Finding{
			Code:    token,
			Verdict: target.NeedsConsent,
			Text:    strings.Repeat("x", 600),
			Fix:     strings.Repeat("y", 600),
			Consent: token,
		})
	}
	m.says(nil, long...)
	w.refused(t, kms.CodeResourceInUse, "To agree: keyturn rotation configure db --consent=three. keyturn rotation "+
		"check db shows all findings. keyturn rotation emergency db asks", "EmergencyRotation", "SecretName", "db",
		"VersionId", "e1")

	shown := func(fix string) (text string) {
		w.now = w.now.Add(time.Hour)
		m.says(nil, target.Finding{Code: "x", Verdict: target.Impossible, Text: "No.", Fix: fix})
		for _, f := range w.check(t, "db").Findings {
			if f.Code == "x" {
				text = f.Fix
			}
		}
		w.refused(t, kms.CodeResourceInUse, "No. "+text+" keyturn rotation check db shows all findings.",
			"EmergencyRotation", "SecretName", "db", "VersionId", "e1")
		return text
	}
	unnamed := regexp.MustCompile(`keyturn [a-z-]+ [a-z-]+ (--\S+ )*(NAME|TARGET)\b`)
	for _, fix := range fixes(t) {
		if text := shown(fix); text == "" || unnamed.MatchString(text) {
			t.Errorf("of %q a check shows %q", fix, text)
		}
	}
	for fix, want := range map[string]string{
		"Run keyturn rotation check NAME. NAME stays.": "Run keyturn rotation check db. NAME stays.",
		"keyturn target update TARGET --set account_host=HOST chooses one.": "keyturn target update pg " +
			"--set account_host=HOST chooses one.",
		"keyturn target prepare-accounts TARGET --account=NAME --clone=CLONE makes one; keyturn rotation configure " +
			"NAME --target=TARGET": "keyturn target prepare-accounts pg --account=NAME --clone=CLONE makes one; keyturn " +
			"rotation configure db --target=TARGET",
		"ALTER ROLE x LOGIN": "ALTER ROLE x LOGIN",
	} {
		if text := shown(fix); text != want {
			t.Errorf("of %q a check shows %q, want %q", fix, text, want)
		}
	}

	m.says(target.Denied.Errorf("another password; run keyturn rotation repair NAME"))
	w.now = w.now.Add(time.Hour)
	out := w.check(t, "db")
	if text := fmt.Sprintf("%+v", out); strings.Contains(text, "NAME") ||
		!strings.Contains(text, "keyturn rotation repair db") {
		t.Errorf("a check shows %s", text)
	}
}
