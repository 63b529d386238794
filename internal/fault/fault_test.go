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
