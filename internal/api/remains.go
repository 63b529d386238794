package api

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
)

// remains says what stays at the target of a secret that is deleted, and which command removes it;
// empty for a secret that is not rotated, or not bound to its target. r is its rotation, and inUse
// the state of its two accounts.
func remains(s secret.Secret, r rotation.Record, inUse accountsInUse) string {
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
		if inUse.retired != "" {
			text = fmt.Sprintf("Nothing changes at target %q: accounts %s stay. %q is in use, and %q has no password. The "+
				"password in use is in this secret alone: %s shows it until the secret is deleted.", s.TargetName(),
				strings.Join(quoted, " and "), inUse.current, inUse.retired, reading(s))
		} else if inUse.current != "" {
			text += fmt.Sprintf(" %q is in use.", inUse.current)
		}
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

// reading returns the commands that read the value of a secret, also of one that is to be deleted.
func reading(s secret.Secret) string {
	get := fault.Command("secret get", s.Name)
	if s.DeleteAt.IsZero() {
		return get
	}
	return fault.Command("secret restore", s.Name) + ", and then " + get + ","
}

// accountsInUse is the state of the two accounts of a secret.
type accountsInUse struct {
	current string // its login works; empty where that is not known
	retired string // has no password; empty for none
}

// accountsInUse reads which of the two accounts of a secret is in use. It leaves out what it cannot
// read.
func (c *Call) accountsInUse(s secret.Secret, r rotation.Record) (a accountsInUse) {
	if b := s.Rotation.Binding; b == nil || len(b.Accounts) != 2 || s.TargetName() == secret.OwnUsers {
		return a
	}
	a.current = c.accountIn(c.Snapshot, s, s.Stages[secret.Current])
	if retired := c.accountIn(c.Snapshot, s, r.Retired); !r.GoesOn() && retired != a.current {
		a.retired = retired
	}
	return a
}

// accountIn returns the account that a version logs in with; empty where that cannot be read.
func (e *Env) accountIn(tx *store.Tx, s secret.Secret, version string) string {
	v, ok := s.Versions[version]
	if !ok {
		return ""
	}
	list, _, err := credentials(e, tx, s, v)
	if err != nil {
		return ""
	}
	return list[0].Account
}
