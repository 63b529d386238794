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
	text := fmt.Sprintf("Nothing changes at target %q%s", s.TargetName(), accountsStay(b.Accounts, r, inUse))
	switch {
	case r.State == rotation.Quarantined && r.Health.State() == rotation.CredentialDead:
		text += " The rotation is quarantined: the target does not accept the credential of the current version, and may " +
			"accept another one."
	case r.State == rotation.Quarantined:
		text += " The rotation is quarantined: the target may not accept the credential of the current version."
	case inUse.retired != "", s.Generated(s.Stages[secret.Current]):
		text += " The credential in use is in this secret alone" + reading(s)
	}
	if r.GoesOn() && !r.HasSentNothing() {
		text += fmt.Sprintf(" The rotation in state %s has not ended, so a second credential may work there, too.", r.State)
	}
	other := slices.IndexFunc(b.Accounts, func(account string) bool { return account != r.Clone })
	if len(b.Accounts) == 2 && slices.Contains(b.Accounts, r.Clone) {
		text += fmt.Sprintf(" If prepare-accounts has made %q, and no application uses that account, %s removes it once the "+
			"secret is deleted.", r.Clone, removingClone(s.TargetName(), b.Accounts[other], r.Clone))
	}
	return text
}

// accountsStay completes "Nothing changes at target …" for the accounts of a secret. It names no
// accounts if they are not known. In a quarantine it does not say which one is in use.
func accountsStay(accounts []string, r rotation.Record, inUse accountsInUse) string {
	var quoted []string
	for _, account := range accounts {
		quoted = append(quoted, strconv.Quote(account))
	}
	all := strings.Join(quoted, " and ")
	known := r.State != rotation.Quarantined
	switch {
	case len(quoted) == 0:
		return "."
	case len(quoted) == 1 && known:
		return fmt.Sprintf(": account %s stays, with the credential in use.", all)
	case len(quoted) == 1:
		return fmt.Sprintf(": account %s stays.", all)
	case !known:
		return fmt.Sprintf(": accounts %s stay.", all)
	case inUse.retired != "":
		return fmt.Sprintf(": accounts %s stay. %q is in use, and %q has no password.", all, inUse.current,
			inUse.retired)
	case inUse.current != "":
		return fmt.Sprintf(": accounts %s stay, with their passwords. %q is in use.", all, inUse.current)
	}
	return fmt.Sprintf(": accounts %s stay, with their passwords.", all)
}

// reading says how to read the value of a secret, also of one that is to be deleted.
func reading(s secret.Secret) string {
	get := fault.Command("secret get", s.Name)
	if s.DeleteAt.IsZero() {
		return ": " + get + " shows it."
	}
	restore := fault.Command("secret restore", s.Name)
	return fmt.Sprintf(". To read it, cancel the deletion (%s), then run %s.", restore, get)
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
