package fault_test

import (
	"errors"
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

// TestCommands verifies that a name which looks like a flag is none in the commands of a message.
func TestCommands(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ format, name, want string }{
		{"keyturn rotation resume %s resumes it.", "app", "keyturn rotation resume app resumes it."},
		{"keyturn rotation resume %s resumes it.", "--all", "keyturn rotation resume -- --all resumes it."},
		{"keyturn rotation status %s.", "-h", "keyturn rotation status -- -h."},
		{"keyturn secret delete %s --now (any other)", "--all", "keyturn secret delete --now -- --all (any other)"},
		{"keyturn rotation configure %s --target TARGET attaches", "--all",
			"keyturn rotation configure --target TARGET -- --all attaches"},
		{"keyturn target remove %s --detach", "--de", "keyturn target remove --detach -- --de"},
		{"keyturn target update %s --set tls.server_name=NAME", "-x",
			"keyturn target update --set tls.server_name=NAME -- -x"},
		{"keyturn secret delete %s --now detaches", "-x", "keyturn secret delete --now -- -x detaches"},
		{"Secret %q", "--all", `Secret "--all"`},
	} {
		if got := fault.New(fault.InUse, tt.format, tt.name).Msg; got != tt.want {
			t.Errorf("%s; want %s", got, tt.want)
		}
	}
}
