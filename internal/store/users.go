package store

import (
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/users"
)

// User reads a user. Callers share it and must not change it in place.
func (tx *Tx) User(account, name string) (users.User, bool, error) {
	return userKind.load(tx, in(account, name))
}

// PutUser writes a user.
func (tx *Tx) PutUser(u users.User) error { return userKind.save(tx, u) }

// DeleteUser removes the record of a user.
func (tx *Tx) DeleteUser(account, name string) { userKind.delete(tx, in(account, name)) }

// Users calls visit for each user of an account in the order of names, from the name after
// (exclusive) on, until visit returns false.
func (tx *Tx) Users(account, after string, visit func(users.User) bool) error {
	return userKind.scan(tx, in(account, ""), following(in(account, ""), after), visit)
}

// CountUsers returns the number of users of an account.
func (tx *Tx) CountUsers(account string) (int, error) { return userKind.count(tx, in(account, "")) }

// Group reads a group. Callers share it and must not change it in place.
func (tx *Tx) Group(account, name string) (users.Group, bool, error) {
	return groupKind.load(tx, in(account, name))
}

// GroupRights reads the part of a group that decides about calls, by the ID of the group. Callers
// share it and must not change it in place.
func (tx *Tx) GroupRights(account, id string) (users.GroupRights, bool, error) {
	return groupRightsKind.load(tx, in(account, id))
}

// PutGroup writes a group. The part that decides about calls has a record of its own, under the ID
// by which users name their groups.
func (tx *Tx) PutGroup(g users.Group) error {
	if err := groupRightsKind.save(tx, g.Rights()); err != nil {
		return err
	}
	return groupKind.save(tx, g)
}

// RenameGroup writes a group that had the name from before. Records of users name a group by its
// ID, so they stay as they are.
func (tx *Tx) RenameGroup(from string, g users.Group) error {
	groupKind.delete(tx, in(g.Account, from))
	return tx.PutGroup(g)
}

// DeleteGroup removes a group.
func (tx *Tx) DeleteGroup(g users.Group) {
	groupKind.delete(tx, in(g.Account, g.Name))
	groupRightsKind.delete(tx, in(g.Account, g.ID))
}

// Groups calls visit for the groups of an account, as [Tx.Users] does.
func (tx *Tx) Groups(account, after string, visit func(users.Group) bool) error {
	return groupKind.scan(tx, in(account, ""), following(in(account, ""), after), visit)
}

// CountGroups returns the number of groups of an account.
func (tx *Tx) CountGroups(account string) (int, error) { return groupKind.count(tx, in(account, "")) }

// Policy reads a policy of that kind, [users.Custom] or [users.System]. For a system policy the
// store has only how often it is attached.
func (tx *Tx) Policy(account, kind, name string) (users.Policy, bool, error) {
	if kind == users.System {
		return systemPolicyKind.load(tx, in(account, name))
	}
	return policyKind.load(tx, in(account, name))
}

// PutPolicy writes a policy of an account. The document of its default version has a record of its
// own, which is all that calls read.
func (tx *Tx) PutPolicy(account string, p users.Policy) error {
	if p.Type == users.System {
		return systemPolicyKind.save(tx, users.Policy{
			Account: account,
			Type:    p.Type,
			Name:    p.Name,
			Users:   p.Users,
			Groups:  p.Groups,
		})
	}
	if err := documentKind.saveAt(tx, in(account, p.Name), p.Document()); err != nil {
		return err
	}
	return policyKind.save(tx, p)
}

// DeletePolicy removes a custom policy.
func (tx *Tx) DeletePolicy(account, name string) {
	policyKind.delete(tx, in(account, name))
	documentKind.delete(tx, in(account, name))
}

// Policies calls visit for the custom policies of an account, as [Tx.Users] does.
func (tx *Tx) Policies(account, after string, visit func(users.Policy) bool) error {
	return policyKind.scan(tx, in(account, ""), following(in(account, ""), after), visit)
}

// CountPolicies returns the number of custom policies of an account.
func (tx *Tx) CountPolicies(account string) (int, error) {
	return policyKind.count(tx, in(account, ""))
}

// PolicyDocument reads the document of the default version of a custom policy, parsed. Many calls
// read it and few change it, so its parsed form is remembered by its key and content.
func (tx *Tx) PolicyDocument(account, name string) (d policy.Document, ok bool, err error) {
	key, known := documentKind.key(in(account, name)), &tx.db.documents
	r, err := tx.get(key)
	if err != nil || r.data == nil {
		return d, false, err
	}
	if d, ok = known.get(key, r.data); ok {
		return d, true, nil
	}
	text, err := documentKind.decode(tx.db, key, r.data)
	if err != nil {
		return d, false, err
	}
	if d, err = policy.ParseIdentity(text); err != nil {
		return policy.Document{}, false, fmt.Errorf("stored record %q: %w", key, err)
	}
	known.put(key, r.data, d)
	return d, true, nil
}

// AheadUser reads a user and a secret in one round trip; [Tx.User] and [Tx.Secret] then find them.
// secret may be empty.
func (tx *Tx) AheadUser(account, user, secret string) error {
	if secret == "" {
		return tx.ahead(userKind.key(in(account, user)))
	}
	return tx.ahead(userKind.key(in(account, user)), secretKind.key(in(account, secret)))
}

// AheadPolicies reads the rights of groups, by their IDs, and documents of custom policies in one
// round trip.
func (tx *Tx) AheadPolicies(account string, groupIDs, policies []string) error {
	keys := make([]string, 0, len(groupIDs)+len(policies))
	for _, id := range groupIDs {
		keys = append(keys, groupRightsKind.key(in(account, id)))
	}
	for _, p := range policies {
		keys = append(keys, documentKind.key(in(account, p)))
	}
	if len(keys) < 2 {
		return nil
	}
	return tx.ahead(keys...)
}

// userOf reads the user with that ARN; the zero User if there is none, or the ARN is not that of a
// user.
func (tx *Tx) userOf(account, arn string) (users.User, error) {
	parts, _ := policy.ParseARN(arn)
	name, ok := strings.CutPrefix(parts.Relative, "user/")
	if !ok || parts.Account != account {
		return users.User{}, nil
	}
	u, _, err := tx.User(account, name)
	return u, err
}
