package api

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// remains says what stays at the target of a secret that is deleted, and which command removes it;
// empty for a secret that is not rotated, or not bound to its target. r is its rotation.
func remains(s secret.Secret, r rotation.Record) string {
	b := s.Rotation.Binding
	if !s.IsRotated() || b == nil {
		return ""
	}
	if s.TargetName() == secret.OwnUsers {
		return fmt.Sprintf("The access keys of user %q stay, and work: %s shows them, %s removes one.", s.UserName(),
			fault.Command("user key list", s.UserName()), fault.Command("user key delete", s.UserName(), "ACCESS-KEY-ID"))
	}
	var quoted []string
	for _, account := range b.Accounts {
		quoted = append(quoted, strconv.Quote(account))
	}
	text := fmt.Sprintf("Nothing changes at target %q.", s.TargetName())
	switch len(quoted) {
	case 0: // they are not known
	case 1:
		text = fmt.Sprintf("Nothing changes at target %q: account %s stays, with the credential in use.",
			s.TargetName(), quoted[0])
	default:
		text = fmt.Sprintf("Nothing changes at target %q: accounts %s stay, with their passwords.",
			s.TargetName(), strings.Join(quoted, " and "))
	}
	if r.InFlight() && !r.HasSentNothing() {
		text += fmt.Sprintf(" The rotation in state %s has not ended, so a second credential may work there, too.", r.State)
	}
	other := slices.IndexFunc(b.Accounts, func(account string) bool { return account != r.Clone })
	if len(b.Accounts) == 2 && slices.Contains(b.Accounts, r.Clone) {
		text += fmt.Sprintf(" If prepare-accounts has made %q, and no application uses that account, %s removes it once the "+
			"secret is deleted.", r.Clone, removingClone(s.TargetName(), b.Accounts[other], r.Clone))
	}
	return text
}
