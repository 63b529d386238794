package rotation_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/cli"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/target/webhook"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/support"
)

// startOneLogin is a server with one login, app, that owns a table.
func startOneLogin(t *testing.T) (*keyturntest.Server, *database) {
	t.Helper()
	s, d := start(t), startDatabase(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := d.Exec(ctx, "postgres", "DROP ROLE app_clone; CREATE TABLE mine (n int); ALTER TABLE mine OWNER TO app; "+
		"GRANT CREATE ON SCHEMA public TO app"); err != nil {
		t.Fatal(err)
	}
	register(t, s, d)
	return s, d
}

func preparation(d *database) *kms.PrepareTargetAccountsRequest {
	return &kms.PrepareTargetAccountsRequest{
		TargetName:       "pg-main",
		AccountName:      "app",
		CloneAccountName: "app_clone",
		AccountPassword:  sensitive.New(d.app.AccountPassword),
		Apply:            true,
		SecretName:       "db",
		VersionID:        "v1",
	}
}

// One login becomes two while it is in use: it keeps its password, the secret has it before, and
// rotations follow.
func TestPrepareAccounts(t *testing.T) {
	t.Parallel()
	s, d := startOneLogin(t)
	shown, err := s.Client.PrepareTargetAccounts(t.Context(), &kms.PrepareTargetAccountsRequest{
		TargetName:       "pg-main",
		AccountName:      "app",
		CloneAccountName: "app_clone",
	})
	if err != nil {
		t.Fatal(err)
	}
	if shown.Applied || shown.Proven || shown.OwnerName != "app" || len(shown.Statements) != 2 ||
		shown.Statements[0].Statement != `CREATE ROLE "app_clone" LOGIN INHERIT IN ROLE "app"` || len(shown.Findings) == 0 {
		t.Errorf("shown: %+v", shown)
	}
	for _, st := range shown.Statements {
		if strings.Contains(st.Statement, "SCRAM") {
			t.Error("a statement holds a verifier")
		}
	}
	if out, err := s.Client.ListSecrets(t.Context(), &kms.ListSecretsRequest{}); err != nil || out.TotalCount != 1 {
		t.Errorf("a look has made a secret: %+v, %v", out, err)
	}
	if d.login(t.Context(), login{"app_clone", ""}) == nil {
		t.Error("a look has made a login")
	}
	done, err := s.Client.PrepareTargetAccounts(t.Context(), preparation(d))
	if err != nil {
		t.Fatal(err)
	}
	if !done.Applied ||
		!done.Proven ||
		done.SecretName != "db" ||
		fmt.Sprint(done.Databases) != "[postgres]" ||
		fmt.Sprint(done.Statements) != fmt.Sprint(shown.Statements) {
		t.Errorf("done: %+v", done)
	}
	if version, l := current(t, s, "db"); version != "v1" || l != d.app {
		t.Errorf("the secret's value is of %q in version %q, and not the one in use", l.AccountName, version)
	}
	if err := d.login(t.Context(), d.app); err != nil {
		t.Errorf("the login that was in use: %v", err)
	}
	for i, name := range []string{"app_clone", "app"} {
		id := fmt.Sprintf("v%d", i+2)
		rotate(t, s, "db", id)
		until(t, s, "db", "grace")
		version, l := current(t, s, "db")
		if version != id || l.AccountName != name {
			t.Errorf("rotated to %q of %q", version, l.AccountName)
		}
		if err := d.login(t.Context(), l); err != nil {
			t.Error(err)
		}
		if _, err := s.Client.EndRotationGrace(t.Context(), &kms.SecretNameRequest{SecretName: "db"}); err != nil {
			t.Fatal(err)
		}
		until(t, s, "db", "done")
	}
	// A secret that has been rotated since holds other passwords.
	if _, err := s.Client.PrepareTargetAccounts(t.Context(), preparation(d)); err == nil {
		t.Error("the same call after two rotations succeeds")
	}
}

// A change that the target refuses, as a whole, leaves both credentials stored and nothing
// changed; when the target is fixed, the same call continues with the same passwords.
func TestPrepareAccountsCutOff(t *testing.T) {
	t.Parallel()
	s, d := startOneLogin(t)
	ctx := t.Context()
	// Only a superuser may give this setting, and the new login has to have it too.
	if err := d.Exec(ctx, "postgres", "ALTER ROLE app SET log_duration = 'off'"); err != nil {
		t.Fatal(err)
	}
	_, err := s.Client.PrepareTargetAccounts(ctx, preparation(d))
	if !errors.Is(err, kms.ErrResourceInUse) ||
		!strings.Contains(err.Error(), "log_duration") ||
		!strings.Contains(err.Error(), `Both credentials are in secret "db"`) {
		t.Fatalf("a setting that the administrator may not give: %v", err)
	}
	if _, l := current(t, s, "db"); l != d.app || d.login(ctx, l) != nil {
		t.Error("the secret's current credential is not the one that works")
	}
	paused, err := s.Client.DescribeRotation(ctx, &kms.SecretNameRequest{SecretName: "db"})
	if err != nil || !paused.Paused || len(paused.CheckFindings) != 1 ||
		!strings.Contains(paused.CheckFindings[0].Text, "log_duration") ||
		!strings.Contains(paused.CheckFindings[0].Fix, "keyturn target prepare-accounts pg-main --account=") {
		t.Errorf("the rotation of the secret is not paused with a reason: %+v, %v", paused, err)
	}
	checked, err := s.Client.CheckRotation(ctx, &kms.SecretNameRequest{SecretName: "db"})
	if err != nil || checked.Verdict != "impossible" {
		t.Fatalf("a check before there is a clone: %+v, %v", checked, err)
	}
	if err := d.Exec(ctx, "postgres", "ALTER ROLE app RESET log_duration"); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Client.PrepareTargetAccounts(ctx, preparation(d)); err != nil || !out.Proven {
		t.Fatalf("the same call again: %+v, %v", out, err)
	}
	out, err := s.Client.DescribeRotation(ctx, &kms.SecretNameRequest{SecretName: "db"})
	if err != nil || out.Paused {
		t.Errorf("the rotation of the secret is still paused: %+v, %v", out, err)
	}
	for _, f := range out.CheckFindings {
		if len(f.Strategies) == 0 || f.Strategies[0] == "double" {
			t.Errorf("a finding of before is shown: %+v", f)
		}
	}
}

// A proof that does not hold leaves the credential in use readable and the rotation paused, and
// can be made again.
func TestPrepareAccountsAgain(t *testing.T) {
	t.Parallel()
	s, d := startOneLogin(t)
	ctx := t.Context()
	in := preparation(d)
	in.Databases = []string{"nowhere"}
	_, err := s.Client.PrepareTargetAccounts(ctx, in)
	if !errors.Is(err, kms.ErrResourceInUse) || !strings.Contains(err.Error(), `there is no database "nowhere"`) {
		t.Fatalf("a proof that cannot hold: %v", err)
	}
	if d.login(ctx, login{"app_clone", ""}) == nil {
		t.Error("the target was changed, though nothing can be compared there")
	}
	if _, l := current(t, s, "db"); l != d.app {
		t.Error("the secret does not hold the credential in use")
	}
	if _, err := s.Client.RotateSecret(ctx, &kms.RotateSecretRequest{SecretName: "db", VersionID: "v2"}); err == nil ||
		!strings.Contains(err.Error(), "paused") {
		t.Errorf("a rotation before the proof: %v", err)
	}
	other := preparation(d)
	other.CloneAccountName = "another"
	if _, err := s.Client.PrepareTargetAccounts(ctx, other); !errors.Is(err, kms.ErrResourceExist) {
		t.Errorf("another preparation into the same secret: %v", err)
	}
	again, err := s.Client.PrepareTargetAccounts(ctx, preparation(d))
	if err != nil || !again.Applied || !again.Proven {
		t.Fatalf("the call that can hold: %+v, %v", again, err)
	}
	rotate(t, s, "db", "v2")
	until(t, s, "db", "grace")
	if _, l := current(t, s, "db"); l.AccountName != "app_clone" || d.login(ctx, l) != nil {
		t.Errorf("rotated to %q, which does not get in", l.AccountName)
	}
}

func TestPrepareAccountsRefused(t *testing.T) {
	t.Parallel()
	s, d := startOneLogin(t)
	for name, tt := range map[string]struct {
		change func(*kms.PrepareTargetAccountsRequest)
		want   string
	}{
		"no secret": {func(in *kms.PrepareTargetAccountsRequest) { in.SecretName = "" }, "SecretName"},
		"no password": {
			func(in *kms.PrepareTargetAccountsRequest) { in.AccountPassword = sensitive.Value{} },
			"AccountPassword",
		},
		"one account":   {func(in *kms.PrepareTargetAccountsRequest) { in.CloneAccountName = "app" }, "CloneAccountName"},
		"without apply": {func(in *kms.PrepareTargetAccountsRequest) { in.Apply = false }, "for a call with Apply true"},
		"no such account": {
			func(in *kms.PrepareTargetAccountsRequest) { in.AccountName = "nobody" },
			`there is no role "nobody"`,
		},
		"no such target": {func(in *kms.PrepareTargetAccountsRequest) { in.TargetName = "none" }, "no target"},
	} {
		in := preparation(d)
		tt.change(in)
		_, err := s.Client.PrepareTargetAccounts(t.Context(), in)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "password-of-app") {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	// Nothing was stored and nothing changed.
	if out, err := s.Client.ListSecrets(t.Context(), &kms.ListSecretsRequest{}); err != nil || out.TotalCount != 1 {
		t.Errorf("%d secrets, %v", out.TotalCount, err)
	}
	if err := d.login(t.Context(), d.app); err != nil {
		t.Error(err)
	}
	// An account that another secret rotates is not taken from it.
	create(t, s, "single", "SingleUser", d.app)
	in := preparation(d)
	if _, err := s.Client.PrepareTargetAccounts(t.Context(), in); !errors.Is(err, kms.ErrResourceExist) {
		t.Errorf("an account that another secret rotates: %v", err)
	}
}

// TestPrepareAccountsGuessesFew verifies that a wrong password stores nothing, and that the account
// has no other login for a minute.
func TestPrepareAccountsGuessesFew(t *testing.T) {
	t.Parallel()
	s, d := startOneLogin(t)
	for _, want := range []string{"Try again after", "the next one may be made at"} {
		in := preparation(d)
		in.AccountPassword = sensitive.New("not-the-password")
		_, err := s.Client.PrepareTargetAccounts(t.Context(), in)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "not-the-password") {
			t.Errorf("a wrong password: %v, want %q", err, want)
		}
	}
	if out, err := s.Client.ListSecrets(t.Context(), &kms.ListSecretsRequest{}); err != nil || out.TotalCount != 1 {
		t.Errorf("%d secrets, %v", out.TotalCount, err)
	}
}

// connect lets commands find a server.
func connect(t *testing.T, s *keyturntest.Server) {
	t.Helper()
	for name, value := range map[string]string{
		"ENDPOINT": s.Endpoint, "ACCESS_KEY_ID": s.Credentials.AccessKeyID,
		"ACCESS_KEY_SECRET": s.Credentials.AccessKeySecret.Reveal(),
		"CA_FILE":           s.CAFile, "CONFIG_DIR": t.TempDir(),
	} {
		t.Setenv("KEYTURN_"+name, value)
	}
}

// Not parallel: commands read the environment.
func TestPrepareAccountsCommand(t *testing.T) {
	s, d := startOneLogin(t)
	connect(t, s)
	var stdin io.Reader // instead of a text
	keyturn := func(text string, args ...string) (int, string) {
		var out bytes.Buffer
		code := cli.Run(t.Context(), append([]string{
			"target", "prepare-accounts", "pg-main", "--account", "app", "--clone", "app_clone",
		}, args...), cmp.Or[io.Reader](stdin, strings.NewReader(text)), &out, &out)
		return code, out.String()
	}
	if code, out := keyturn(""); code != 0 || !strings.Contains(out, "-- in database postgres, in one transaction\n"+
		"CREATE ROLE \"app_clone\" LOGIN INHERIT IN ROLE \"app\";\n") || !strings.Contains(out, "Nothing was changed") {
		t.Errorf("shown, %d:\n%s", code, out)
	}
	if code, out := keyturn("", "--apply"); code != 2 || !strings.Contains(out, "--apply needs --secret") {
		t.Errorf("without a secret, %d: %s", code, out)
	}
	if code, out := keyturn("", "--apply", "--secret", "db"); code != 1 ||
		!strings.Contains(out, "give it on standard input or with --password-file") {
		t.Errorf("without a password, %d: %s", code, out)
	}
	if code, out := keyturn(d.app.AccountPassword, "--apply", "--secret", "db"); code != 0 ||
		!strings.Contains(out, "equal in database postgres. Secret db has their credentials") ||
		strings.Contains(out, d.app.AccountPassword) {
		t.Errorf("applied, %d:\n%s", code, out)
	}
	code, out := keyturn("", "--apply", "--secret", "db")
	if code != 0 || !strings.Contains(out, "shown to be equal") || strings.Contains(out, "nothing has to be done") ||
		!strings.Contains(out, "-- app_clone acts as app already, and was given the password that secret db has for it") ||
		strings.Contains(out, "Standard input") {
		t.Errorf("repeated without the password, %d:\n%s", code, out)
	}
	unused, err := os.CreateTemp(t.TempDir(), "password")
	if err != nil {
		t.Fatal(err)
	}
	defer unused.Close()
	stdin = unused
	code, out = keyturn("", "--apply", "--secret", "db")
	if stdin = nil; code != 0 || !strings.Contains(out, "Standard input was not read: secret db has the password of app") {
		t.Errorf("with a password that is not used, %d:\n%s", code, out)
	}
	if code, out := keyturn(""); code != 0 || !strings.Contains(out, "nothing has to be") ||
		strings.Contains(out, "--apply") {
		t.Errorf("with nothing to do, %d:\n%s", code, out)
	}
}

// TestPrepareAccountsNamesConsents verifies that logins that are equal, and of which no rotation
// begins without a consent, end with that consent and the command that gives it. Not parallel:
// commands read the environment.
func TestPrepareAccountsNamesConsents(t *testing.T) {
	s, d := startOneLogin(t)
	connect(t, s)
	if err := d.Exec(t.Context(), "postgres", "CREATE VIEW who AS SELECT session_user AS u FROM mine; "+
		"GRANT SELECT ON who TO app"); err != nil {
		t.Fatal(err)
	}
	keyturn := func(text, command string) (int, string) {
		var out bytes.Buffer
		code := cli.Run(t.Context(), strings.Fields(command), strings.NewReader(text), &out, &out)
		return code, out.String()
	}
	const prepare, agree = "target prepare-accounts pg-main --account app --clone app_clone --apply --secret db",
		"rotation configure db --consent session-user"
	code, out := keyturn(d.app.AccountPassword, prepare)
	if code != 0 || !strings.Contains(out, "shown to be equal") || !strings.Contains(out, "-- session-user: ") ||
		!strings.HasSuffix(out, "(session-user):\n  keyturn "+agree+"\n") {
		t.Errorf("a consent is open, %d:\n%s", code, out)
	}
	if code, out := keyturn("", agree); code != 0 {
		t.Fatalf("the command, %d:\n%s", code, out)
	}
	if code, out := keyturn("", prepare); code != 0 || !strings.Contains(out, "has their credentials.\n") ||
		strings.Contains(out, "(session-user)") {
		t.Errorf("no consent is open, %d:\n%s", code, out)
	}
	if code, out := keyturn("", "rotation rotate db --wait"); code != 0 {
		t.Errorf("a rotation, %d:\n%s", code, out)
	}
}

// TestMD5NamesTheSetting verifies that each command that meets a password stored as MD5 names the
// setting that allows it, also where the administrator cannot read how it is stored. Not parallel:
// commands read the environment.
func TestMD5NamesTheSetting(t *testing.T) {
	s, d := start(t), startDatabase(t)
	connect(t, s)
	path := filepath.Join(d.Data(), "pg_hba.conf")
	lines, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(lines, []byte("scram-sha-256"), []byte("md5")), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := md5.Sum([]byte(d.app.AccountPassword + "app"))
	if err := d.Exec(t.Context(), "postgres", "SELECT pg_reload_conf(); REVOKE SELECT ON pg_authid FROM rotator; "+
		"ALTER ROLE app PASSWORD 'md5"+hex.EncodeToString(sum[:])+"'"); err != nil {
		t.Fatal(err)
	}
	register(t, s, d)
	create(t, s, "db", "SingleUser", d.app)
	const want = `keyturn target update pg-main --set 'require_auth=["scram-sha-256","md5"]'`
	for _, command := range []string{"target test pg-main --secret db", "rotation check db", "rotation probe db"} {
		var out bytes.Buffer
		cli.Run(t.Context(), strings.Fields(command), strings.NewReader(""), &out, &out)
		if strings.Count(out.String(), want) != 1 {
			t.Errorf("%s does not name the setting once:\n%s", command, out.String())
		}
	}
}

// A clone is removed when no secret rotates it, and the account stays.
func TestPrepareAccountsUndo(t *testing.T) {
	t.Parallel()
	s, d := startOneLogin(t)
	ctx := t.Context()
	if out, err := s.Client.PrepareTargetAccounts(ctx, preparation(d)); err != nil || !out.Proven {
		t.Fatalf("%+v, %v", out, err)
	}
	undo := preparation(d)
	undo.Undo = true
	if _, err := s.Client.PrepareTargetAccounts(ctx, undo); !errors.Is(err, kms.ErrInvalidParameter) {
		t.Errorf("with a secret and a password: %v", err)
	}
	undo.SecretName, undo.VersionID, undo.AccountPassword = "", "", sensitive.Value{}
	if _, err := s.Client.PrepareTargetAccounts(ctx, undo); !errors.Is(err, kms.ErrResourceInUse) {
		t.Errorf("while a secret rotates the clone: %v", err)
	}
	if _, err := s.Client.DeleteSecret(ctx, &kms.DeleteSecretRequest{
		SecretName:                 "db",
		ForceDeleteWithoutRecovery: true,
	}); err != nil {
		t.Fatal(err)
	}
	undo.Apply = false
	shown, err := s.Client.PrepareTargetAccounts(ctx, undo)
	if err != nil || shown.Applied || len(shown.Statements) != 1 ||
		shown.Statements[0].Statement != `DROP ROLE "app_clone"` {
		t.Errorf("shown: %+v, %v", shown, err)
	}
	undo.Apply = true
	if out, err := s.Client.PrepareTargetAccounts(ctx, undo); err != nil || !out.Applied {
		t.Errorf("undone: %+v, %v", out, err)
	}
	if err := d.login(ctx, d.app); err != nil {
		t.Errorf("the account: %v", err)
	}
	again, err := s.Client.PrepareTargetAccounts(ctx, undo)
	if err != nil || len(again.Statements) != 0 {
		t.Errorf("undone again: %+v, %v", again, err)
	}
}

func TestPrepareAccountsOfAnotherKind(t *testing.T) {
	t.Parallel()
	s := start(t, server.Change(func(c *server.Config) { c.Kinds = append(c.Kinds, webhook.Kind()) }))
	if _, err := s.Client.RegisterTarget(t.Context(), &kms.RegisterTargetRequest{
		TargetName:      "pg-main",
		Kind:            "webhook",
		Config:          `{"url":"https://127.0.0.1:1/","strategy":"single"}`,
		AdminSecretName: signingKey(t, s),
	}); err != nil {
		t.Fatal(err)
	}
	in := &kms.PrepareTargetAccountsRequest{TargetName: "pg-main", AccountName: "app", CloneAccountName: "app_clone"}
	if _, err := s.Client.PrepareTargetAccounts(t.Context(), in); !errors.Is(err, kms.ErrUnsupportedOperation) ||
		!strings.Contains(err.Error(), `kind "webhook"`) {
		t.Errorf("a webhook: %v", err)
	}
}

func signingKey(t *testing.T, s *keyturntest.Server) string {
	t.Helper()
	if _, err := s.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: "signing",
		VersionID:  "v1",
		SecretData: sensitive.New("a-key-that-signs-requests-of-32-bytes"),
	}); err != nil {
		t.Fatal(err)
	}
	return "signing"
}

// TestPrepareAccountsAtTheLimit verifies that the right password is not called wrong when the
// connection limit leaves no session, and that the same call succeeds with one free session.
func TestPrepareAccountsAtTheLimit(t *testing.T) {
	t.Parallel()
	s, d := startOneLogin(t)
	ctx := t.Context()
	if err := d.Exec(ctx, "postgres", "ALTER ROLE app CONNECTION LIMIT 0"); err != nil {
		t.Fatal(err)
	}
	_, err := s.Client.PrepareTargetAccounts(ctx, preparation(d))
	if !errors.Is(err, kms.ErrResourceInUse) ||
		!strings.Contains(err.Error(), "(53300)") ||
		!strings.Contains(err.Error(), "The password is right") {
		t.Fatalf("at the limit of connections: %v", err)
	}
	if out, err := s.Client.ListSecrets(ctx, &kms.ListSecretsRequest{}); err != nil || out.TotalCount != 1 {
		t.Errorf("a secret was made: %+v, %v", out, err)
	}
	if err := d.Exec(ctx, "postgres", "ALTER ROLE app CONNECTION LIMIT 1"); err != nil {
		t.Fatal(err)
	}
	// The server counts a session for a moment after its end. The error says to repeat the call.
	support.Until(t, "a preparation with one free session", func() bool {
		out, err := s.Client.PrepareTargetAccounts(ctx, preparation(d))
		if err != nil && !strings.Contains(err.Error(), "repeat the call to continue") {
			t.Fatalf("with one free session: %v", err)
		}
		return err == nil && out.Proven
	})
}

// The page of PostgreSQL names the commands of the way back from two logins. Not parallel: commands
// read the environment.
func TestPrepareAccountsWayBack(t *testing.T) {
	s, d := startOneLogin(t)
	connect(t, s)
	keyturn := func(want int, stdin, command string) string {
		t.Helper()
		var out bytes.Buffer
		if code := cli.Run(t.Context(), strings.Fields(command), strings.NewReader(stdin), &out, &out); code != want {
			t.Fatalf("%s: exit code %d, want %d:\n%s", command, code, want, &out)
		}
		return out.String()
	}
	const prepare = "target prepare-accounts pg-main --account app --clone app_clone "
	if out := keyturn(0, "", prepare+"--undo --apply"); !strings.Contains(out, "there is no app_clone") ||
		strings.Contains(out, "Done") {
		t.Errorf("without a clone:\n%s", out)
	}
	keyturn(0, d.app.AccountPassword, prepare+"--apply --secret db")
	keyturn(0, "", "rotation rotate db --wait")
	keyturn(0, "", "rotation end-grace db --yes")
	until(t, s, "db", "done")
	for _, flags := range []string{"--undo", "--undo --apply"} {
		if out := keyturn(1, "", prepare+flags); !strings.Contains(out, "rotation rotate db --wait") ||
			!strings.Contains(out, "keyturn secret delete db --now") || strings.Contains(out, "--yes") {
			t.Errorf("while a secret rotates the clone:\n%s", out)
		}
	}
	keyturn(0, "", "rotation rotate db --wait")
	keyturn(0, "", "rotation end-grace db --yes")
	until(t, s, "db", "done")
	value := keyturn(0, "", "secret get db")
	keyturn(0, value, "secret put db_app")
	keyturn(0, "", "secret delete db --now --yes")
	keyturn(0, "", prepare+"--undo")
	if out := keyturn(0, "", prepare+"--undo --apply"); !strings.Contains(out, "Done. app_clone is removed.") {
		t.Errorf("undone:\n%s", out)
	}
	keyturn(0, "", "rotation configure db_app --target pg-main --strategy single")
	keyturn(0, "", "rotation rotate db_app --wait")
	if _, l := current(t, s, "db_app"); l.AccountName != "app" || d.login(t.Context(), l) != nil {
		t.Errorf("the credential of %q does not work", l.AccountName)
	}
}
