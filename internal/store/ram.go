package store

import (
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/users"
)

func userPrefix(account string) string         { return "user/" + account + "/" }
func groupPrefix(account string) string        { return "group/" + account + "/" }
func policyPrefix(account string) string       { return "policy/" + account + "/" }
func systemPrefix(account string) string       { return "systempolicy/" + account + "/" }
func documentKey(account, n string) string     { return "policydoc/" + account + "/" + n }
func keyUseKey(id string) string               { return "keyuse/" + id }
func userKey(account, name string) string      { return userPrefix(account) + name }
func groupKey(account, name string) string     { return groupPrefix(account) + name }
func groupRightsKey(account, id string) string { return "grouprights/" + account + "/" + id }
func policyKey(account, kind, n string) string {
	if kind == users.System {
		return systemPrefix(account) + n
	}
	return policyPrefix(account) + n
}

// User reads a user. It must not be changed in place: callers share it.
func (tx *Tx) User(account, name string) (users.User, bool, error) {
	return load[users.User](tx, userKey(account, name))
}

// PutUser writes a user.
func (tx *Tx) PutUser(u users.User) error { return save(tx, userKey(u.Account, u.Name), u) }

// DeleteUser removes the record of a user.
func (tx *Tx) DeleteUser(account, name string) { tx.write(userKey(account, name), nil) }

// Users calls visit for each user of an account, in the order of names, from the name after (exclusive) on, until visit
// returns false.
func (tx *Tx) Users(account, after string, visit func(users.User) bool) error {
	return tx.scanNames(userPrefix(account), after, func(start, end string) error { return scan(tx, start, end, visit) })
}

// CountUsers is how many users an account has.
func (tx *Tx) CountUsers(account string) (int, error) { return tx.count(userPrefix(account)) }

// Group reads a group. It must not be changed in place: callers share it.
func (tx *Tx) Group(account, name string) (users.Group, bool, error) {
	return load[users.Group](tx, groupKey(account, name))
}

// GroupRights reads what decides of the group with that ID. It must not be changed in place: callers share it.
func (tx *Tx) GroupRights(account, id string) (users.GroupRights, bool, error) {
	return load[users.GroupRights](tx, groupRightsKey(account, id))
}

// PutGroup writes a group. What decides of it has a record of its own beside it, under the ID by which its users name it.
func (tx *Tx) PutGroup(g users.Group) error {
	if err := save(tx, groupRightsKey(g.Account, g.ID), g.Rights()); err != nil {
		return err
	}
	return save(tx, groupKey(g.Account, g.Name), g)
}

// RenameGroup writes a group that had another name. Its users' records stay as they are, however many there are.
func (tx *Tx) RenameGroup(from string, g users.Group) error {
	tx.write(groupKey(g.Account, from), nil)
	return tx.PutGroup(g)
}

// DeleteGroup removes a group.
func (tx *Tx) DeleteGroup(g users.Group) {
	tx.write(groupKey(g.Account, g.Name), nil)
	tx.write(groupRightsKey(g.Account, g.ID), nil)
}

// Groups visits the groups of an account, as Users does.
func (tx *Tx) Groups(account, after string, visit func(users.Group) bool) error {
	return tx.scanNames(groupPrefix(account), after, func(start, end string) error { return scan(tx, start, end, visit) })
}

// CountGroups is how many groups an account has.
func (tx *Tx) CountGroups(account string) (int, error) { return tx.count(groupPrefix(account)) }

// Policy reads a policy. Of a policy that comes with the service the store knows only how often it is attached.
func (tx *Tx) Policy(account, kind, name string) (users.Policy, bool, error) {
	return load[users.Policy](tx, policyKey(account, kind, name))
}

// PutPolicy writes a policy of an account. The document that counts has a record of its own beside it, for the calls that
// are decided by it.
func (tx *Tx) PutPolicy(account string, p users.Policy) error {
	if p.Type == users.System {
		return save(tx, policyKey(account, p.Type, p.Name), users.Policy{Account: account, Type: p.Type, Name: p.Name, Users: p.Users, Groups: p.Groups})
	}
	if err := save(tx, documentKey(account, p.Name), p.Document()); err != nil {
		return err
	}
	return save(tx, policyKey(account, p.Type, p.Name), p)
}

// DeletePolicy removes a custom policy.
func (tx *Tx) DeletePolicy(account, name string) {
	tx.write(policyKey(account, users.Custom, name), nil)
	tx.write(documentKey(account, name), nil)
}

// Policies visits the custom policies of an account, as Users does.
func (tx *Tx) Policies(account, after string, visit func(users.Policy) bool) error {
	return tx.scanNames(policyPrefix(account), after, func(start, end string) error { return scan(tx, start, end, visit) })
}

// CountPolicies is how many custom policies an account has.
func (tx *Tx) CountPolicies(account string) (int, error) { return tx.count(policyPrefix(account)) }

// PolicyDocument reads the document of a custom policy that counts, parsed.
func (tx *Tx) PolicyDocument(account, name string) (policy.Document, bool, error) {
	return recall(tx, &tx.db.documents, documentKey(account, name), func(key string, data []byte) (policy.Document, error) {
		text, err := decode[string](tx.db, key, data)
		if err != nil {
			return policy.Document{}, err
		}
		d, err := policy.ParseIdentity(text)
		if err != nil {
			return d, fmt.Errorf("stored record %q: %w", key, err)
		}
		return d, nil
	})
}

// AheadUser reads a user together with a secret that will be asked for, in one round trip; secret may be empty.
func (tx *Tx) AheadUser(account, user, secret string) error {
	if secret == "" {
		return tx.ahead(userKey(account, user))
	}
	return tx.ahead(userKey(account, user), secretKey(account, secret))
}

// AheadPolicies reads the rights of groups, by their IDs, and documents of custom policies in one round trip.
func (tx *Tx) AheadPolicies(account string, groupIDs, policies []string) error {
	keys := make([]string, 0, len(groupIDs)+len(policies))
	for _, id := range groupIDs {
		keys = append(keys, groupRightsKey(account, id))
	}
	for _, p := range policies {
		keys = append(keys, documentKey(account, p))
	}
	if len(keys) < 2 {
		return nil
	}
	return tx.ahead(keys...)
}

// KeyUse tells when an access key was last used, as far as it was written down; zero for never.
func (tx *Tx) KeyUse(id string) (time.Time, error) {
	at, _, err := load[time.Time](tx, keyUseKey(id))
	return at, err
}

// PutKeyUse writes down when an access key was last used.
func (tx *Tx) PutKeyUse(id string, at time.Time) error { return save(tx, keyUseKey(id), at) }

// scanNames turns a prefix and the last name of the page before into a range of keys.
func (tx *Tx) scanNames(prefix, after string, scan func(start, end string) error) error {
	start := prefix
	if after != "" {
		start = prefix + after + "\x00"
	}
	return scan(start, clientv3.GetPrefixRangeEnd(prefix))
}

func (tx *Tx) count(prefix string) (int, error) {
	resp, err := tx.db.kv.Get(tx.ctx, prefix, tx.options(clientv3.WithPrefix(), clientv3.WithCountOnly())...)
	if err != nil {
		return 0, unavailable(err)
	}
	tx.seen(resp)
	return int(resp.Count), nil
}

// userOf reads the user with that ARN; the zero User when there is none, and for an ARN of anything else.
func (tx *Tx) userOf(account, arn string) (users.User, error) {
	parts, _ := policy.ParseARN(arn)
	name, ok := strings.CutPrefix(parts.Relative, "user/")
	if !ok || parts.Account != account {
		return users.User{}, nil
	}
	u, _, err := tx.User(account, name)
	return u, err
}
