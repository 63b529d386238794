package fault_test

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/fault"
)

// TestMessagesAreShort verifies that no message repeats a long text as a whole, and that none is
// cut inside a character.
func TestMessagesAreShort(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", 100_000)
	for _, err := range []*fault.Error{
		fault.New(fault.InUse, "no %q", long), fault.Parameter("P", "no %s", long),
		fault.Coded(fault.InUse, "c", "no %s", errors.New(long)), fault.Wrap(fault.InUse, nil, "no %s", long),
	} {
		if len(err.Msg) > 2200 || !utf8.ValidString(err.Msg) || !strings.HasPrefix(err.Msg, "no ") {
			t.Errorf("%d bytes: %.60s", len(err.Msg), err.Msg)
		}
	}
}

// TestOwnTextsAreWhole verifies that a message does not cut a text of Keyturn's own, the end of
// which may be the command that resolves the refusal.
func TestOwnTextsAreWhole(t *testing.T) {
	t.Parallel()
	own := fault.Text(strings.Repeat("x", 5000) + " end")
	if got := fault.New(fault.InUse, "%s.", own).Msg; got != string(own)+"." {
		t.Errorf("%d bytes", len(got))
	}
}

// TestCommandsOfMessages verifies that a name which looks like a flag is none in the commands of a
// message, and that a shell takes a name for one word.
func TestCommandsOfMessages(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ format, name, want string }{
		{"keyturn rotation resume %s resumes it.", "app", "keyturn rotation resume app resumes it."},
		{"keyturn rotation resume %s resumes it.", "--all", "keyturn rotation resume -- --all resumes it."},
		{"keyturn rotation status %s.", "-h", "keyturn rotation status -- -h."},
		{"keyturn rotation status %s.", "a b", "keyturn rotation status 'a b'."},
		{"keyturn rotation status %s.", "-it's", `keyturn rotation status -- '-it'\''s'.`},
		{"keyturn secret delete %s --now (any other)", "--all", "keyturn secret delete --now -- --all (any other)"},
		{"keyturn secret delete %s --now detaches", "-x", "keyturn secret delete --now -- -x detaches"},
		{"keyturn rotation configure %s --target=TARGET attaches", "app",
			"keyturn rotation configure app --target=TARGET attaches"},
		{"keyturn rotation configure %s --target=TARGET attaches", "--all",
			"keyturn rotation configure --target=TARGET -- --all attaches"},
		{"keyturn rotation configure %s --strategy=single, or", "--all",
			"keyturn rotation configure --strategy=single -- --all, or"},
		{"keyturn target remove %s --detach", "--de", "keyturn target remove --detach -- --de"},
		{"keyturn target update %s --set=tls.server_name=NAME.", "-x",
			"keyturn target update --set=tls.server_name=NAME -- -x."},
		{"keyturn target update %s --set='require_auth=[\"md5\"]'.", "-x",
			"keyturn target update --set='require_auth=[\"md5\"]' -- -x."},
		{"keyturn target update %[1]s --tls-off, of %[1]q", "-x", `keyturn target update --tls-off -- -x, of "-x"`},
		{"100 %% of it: keyturn rotation status %s", "-x", "100 % of it: keyturn rotation status -- -x"},
		{"Secret %q", "--all", `Secret "--all"`},
		{"%s", "keyturn rotation resume --all", "keyturn rotation resume --all"}, // a finished text
	} {
		if got := fault.New(fault.InUse, tt.format, tt.name).Msg; got != tt.want {
			t.Errorf("%s; want %s", got, tt.want)
		}
		named := strings.NewReplacer("%s", "NAME", "%[1]s", "NAME").Replace(tt.format)
		if strings.ContainsAny(named, "%") || tt.format == "%s" {
			continue
		}
		if got := fault.Named(named, tt.name); got != tt.want {
			t.Errorf("with NAME: %s; want %s", got, tt.want)
		}
	}
	got := fault.Message("%s, with %q: keyturn rotation configure %s --consent=%s, %d", "a", "b", "-x", "c", 4)
	if want := `a, with "b": keyturn rotation configure --consent=c -- -x, 4`; got != want {
		t.Errorf("%s; want %s", got, want)
	}
}

// TestTargeted verifies that a command with TARGET for its name gets the name of the target,
// wherever flags stand, and that nothing else changes.
func TestTargeted(t *testing.T) {
	t.Parallel()
	const text = "TARGET: keyturn target update TARGET --set account_host=HOST chooses one, keyturn target show TARGET. " +
		"keyturn rotation configure NAME --target=TARGET"
	for name, want := range map[string]string{
		"": text,
		"pg main": "TARGET: keyturn target update 'pg main' --set account_host=HOST chooses one, keyturn target show " +
			"'pg main'. keyturn rotation configure NAME --target=TARGET",
		"-x": "TARGET: keyturn target update --set account_host=HOST -- -x chooses one, keyturn target show -- -x. " +
			"keyturn rotation configure NAME --target=TARGET",
	} {
		if got := fault.Targeted(text, name); got != want {
			t.Errorf("%s; want %s", got, want)
		}
	}
}

// TestCommand verifies that a command is about its name whatever name and flags are.
func TestCommand(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, want string
		flags      []string
	}{
		{"app", "keyturn rotation configure app", nil},
		{"app", "keyturn rotation configure app --consent change-plugin", []string{"--consent", "change-plugin"}},
		{"--all", "keyturn rotation configure --consent change-plugin -- --all", []string{"--consent", "change-plugin"}},
		{"-a b", "keyturn rotation configure '--account=g *' -- '-a b'", []string{"--account=g *"}},
		{"", "keyturn rotation configure ''", nil},
	} {
		if got := fault.Command("rotation configure", tt.name, tt.flags...); got != tt.want {
			t.Errorf("%s; want %s", got, tt.want)
		}
	}
}

// TestShellWord verifies that a shell takes a quoted word for that word.
func TestShellWord(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":               "''",
		"/tmp/a-b_c.pem": "/tmp/a-b_c.pem",
		"127.0.0.1:80":   "127.0.0.1:80",
		"a b":            "'a b'",
		"it's $HOME":     `'it'\''s $HOME'`,
	} {
		if got := fault.ShellWord(in); got != want {
			t.Errorf("fault.ShellWord(%q) = %s, want %s", in, got, want)
		}
	}
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skipf("skipped: %v", err)
	}
	const odd = `a 'b' "c" $(d) \e`
	out, err := exec.Command(shell, "-c", "printf %s "+fault.ShellWord(odd)).Output()
	if err != nil || string(out) != odd {
		t.Errorf("a shell reads %q, %v", out, err)
	}
}
