package targettest

import (
	"context"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
)

// spellings returns other ways to write the name of an account.
func spellings(account string) map[string]string {
	return map[string]string{
		"in upper case":        strings.ToUpper(account),
		"with a space after":   account + " ",
		"with a space before":  " " + account,
		"in quotes":            `"` + account + `"`,
		"in single quotes":     "'" + account + "'",
		"with a host":          account + "@%",
		"with a quoted host":   "'" + account + "'@'%'",
		"with a domain before": `\` + account,
	}
}

// oneAccount verifies the first general rule: two spellings that the target takes for one account
// have one canonical name, under which a secret claims the account.
func (h Harness) oneAccount(t *testing.T) {
	tt, good := h.Open(t, h.Addr), h.Account(t)
	h.works(t, tt, "right", good, true)
	config := []byte(h.Config(h.Addr))
	name := h.Kind.CanonicalAccount(config, good.Account)
	for what, spelling := range spellings(good.Account) {
		if spelling == good.Account {
			continue
		}
		other := good
		other.Account = spelling
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		err := tt.Verify(ctx, other)
		cancel()
		h.secrets.absent(t, err)
		proven := err == nil || target.ClassOf(err) == target.Admitted
		if proven && h.Kind.CanonicalAccount(config, spelling) != name {
			t.Errorf("the account %q logs in %s, as %q, and two secrets may claim it", good.Account, what, spelling)
		}
	}
}
