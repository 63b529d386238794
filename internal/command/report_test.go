package command

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/kms"
)

// TestReportOfAnUnansweredCall verifies that the error of a call that was sent and not answered
// says whether the command may be repeated, and how, unless the call changes nothing.
func TestReportOfAnUnansweredCall(t *testing.T) {
	t.Parallel()
	unanswered := func(action string, idempotent bool) error {
		return fmt.Errorf("begin: %w", &kms.UnansweredError{Action: action, Idempotent: idempotent, Err: errors.New("EOF")})
	}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{unanswered("PrepareTargetAccounts", true), "repeat the same command: that is safe"},
		{unanswered("PrepareTargetAccounts", false), "check the state before you repeat"},
		{&Repeat{Err: unanswered("RotateSecret", true), Flag: "--version-id=v9"}, "repeat the command with --version-id=v9"},
		{unanswered("DescribeRotation", true), ""},
		{&Repeat{Err: errors.New("EOF"), Flag: "--version-id=v9"}, ""},
	} {
		var out strings.Builder
		code := Report(&out, "keyturn", tt.err)
		sent := strings.Contains(out.String(), "the server may have carried it out")
		if code != ExitFailed || sent != (tt.want != "") || !strings.Contains(out.String(), tt.want) ||
			!strings.Contains(out.String(), "EOF") {
			t.Errorf("%v: %q, want %q", tt.err, out.String(), tt.want)
		}
	}
}
