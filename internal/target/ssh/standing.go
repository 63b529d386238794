package ssh

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
)

// powerGroups are groups whose members become root on common systems: by sudo or su, through a
// container or a virtual machine, by the disk or the memory of the host, or by reading the hashes
// of passwords.
var powerGroups = []string{
	"admin",
	"disk",
	"docker",
	"incus",
	"incus-admin",
	"kmem",
	"libvirt",
	"lxd",
	"root",
	"shadow",
	"sudo",
	"wheel",
}

// superusers are the names that root has by custom.
var superusers = []string{"root", "toor"}

// lookUp prints the user ID of the administrator, and of the account the user ID, the group IDs and
// the groups' names. No user ID means that there is no such account. An account that id does not
// find and the host's databases do not deny is not taken for an absent one.
const lookUp = `
me=$(id -u) || fail "id does not tell who is logged in"
if uid=$(id -u -- "$account" 2>/dev/null); then
  gids=$(id -G -- "$account") || fail "id does not list the groups of $account"
  names=$(id -Gn -- "$account" 2>/dev/null) || names=
else
  uid= gids= names=
  if command -v getent >/dev/null 2>&1; then
    getent passwd "$account" >/dev/null 2>&1
    [ $? -eq 2 ] || fail "the host cannot tell whether there is an account $account"
  fi
fi
printf 'me %s\nuid %s\ngids %s\nnames %s\n' "$me" "$uid" "$gids" "$names"
`

// sharedKeys returns the file of keys that all accounts of the target have, so that a key of one of
// them opens every other; empty if there is none.
func (h *host) sharedKeys() string {
	for _, path := range h.AuthorizedKeys {
		if strings.HasPrefix(path, "/") && !strings.Contains(path, "%u") {
			return path
		}
	}
	return ""
}

// Standing reports what an account is on the host: the administrator has the user ID that the
// administrator's login has, and a privileged account has the user ID 0 or is in a group that leads
// there. Where accounts change their own keys nobody can look without logging in as the account;
// there the names of root count.
func (h *host) Standing(ctx context.Context, account string) (target.Standing, error) {
	if !validAccount.MatchString(account) {
		return target.Standing{}, target.Denied.Errorf(
			"account %q is not a name of letters, digits, dots, hyphens and underscores", account,
		)
	}
	if h.sharedKeys() != "" {
		return target.Standing{
			Privileged: "shares its file of keys, " + h.sharedKeys() + ", with every other account of the target",
		}, nil
	}
	if h.Self {
		return target.Standing{Privileged: byName(account)}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := h.session(ctx, account, target.Credential{})
	if err != nil {
		return target.Standing{}, err
	}
	defer s.close()
	attempt := "find out what " + account + " is"
	text, err := s.run(ctx, attempt, asLogin, script(lookUp, "account", account))
	if err != nil {
		return target.Standing{}, err
	}
	found, err := parseLookUp(text)
	if err != nil {
		said := fault.Foreign(err.Error())
		return target.Standing{}, target.Failed(target.Denied, "", s.addr+": "+attempt+": "+said, s.secrets...)
	}
	return found.standing(account, h.admin.Account), nil
}

// byName says why an account is privileged by its name alone.
func byName(account string) string {
	if slices.Contains(superusers, strings.ToLower(account)) {
		return "is root by its name"
	}
	return ""
}

// found is what a host says of an account.
type found struct {
	administrator uint64 // the user ID of the administrator's login
	exists        bool
	uid           uint64
	groupIDs      []string
	groups        []string
}

// parseLookUp reads what lookUp prints.
func parseLookUp(text string) (found, error) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	var values []string
	for i, label := range []string{"me", "uid", "gids", "names"} {
		if i >= len(lines) {
			return found{}, fmt.Errorf("the host's answer has no line %q", label)
		}
		value, ok := strings.CutPrefix(lines[i], label+" ")
		if !ok {
			return found{}, fmt.Errorf("line %d of the host's answer does not begin with %q", i+1, label)
		}
		values = append(values, value)
	}
	if len(lines) != len(values) {
		return found{}, fmt.Errorf("the host's answer has %d lines instead of %d", len(lines), len(values))
	}
	f := found{exists: values[1] != "", groupIDs: strings.Fields(values[2]), groups: strings.Fields(values[3])}
	var err error
	if f.administrator, err = strconv.ParseUint(values[0], 10, 64); err != nil {
		return found{}, fmt.Errorf("%q is no user ID", values[0])
	}
	if !f.exists {
		return f, nil
	}
	if f.uid, err = strconv.ParseUint(values[1], 10, 64); err != nil {
		return found{}, fmt.Errorf("%q is no user ID", values[1])
	}
	if len(f.groupIDs) == 0 {
		return found{}, fmt.Errorf("an account without a group")
	}
	return f, nil
}

// standing judges an account.
func (f found) standing(account, administrator string) target.Standing {
	if !f.exists {
		return target.Standing{Administrator: account == administrator, Privileged: byName(account)}
	}
	s := target.Standing{Administrator: account == administrator || f.uid == f.administrator}
	switch {
	case f.uid == 0:
		s.Privileged = "has the user ID 0"
	case slices.Contains(f.groupIDs, "0"):
		s.Privileged = "is in the group of root"
	}
	for _, group := range f.groups {
		if s.Privileged == "" && slices.Contains(powerGroups, strings.ToLower(group)) {
			s.Privileged = fmt.Sprintf("is in the group %s, whose members can become root", fault.Quoted(group))
		}
	}
	return s
}

var _ target.Guarded = (*host)(nil)
