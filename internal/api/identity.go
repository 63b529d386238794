package api

import (
	"fmt"
	"sync"

	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/users"
)

// identity holds the policies of a caller: the ones that are attached to the user, and the ones of
// the user's groups.
type identity struct {
	documents []policy.Document
	sources   []source // where each document comes from
}

// noPolicies is the identity of every caller without policies. It is shared and must not change.
var noPolicies = &identity{}

type source struct{ kind, name, group string }

// systemDocuments returns the parsed documents of the policies that come with the service, by name.
var systemDocuments = sync.OnceValue(func() map[string]policy.Document {
	m := map[string]policy.Document{}
	for _, p := range users.SystemPolicies() {
		d, err := policy.ParseIdentity(p.Document())
		if err != nil {
			panic("api: the policy " + p.Name + " that comes with the service: " + err.Error())
		}
		m[p.Name] = d
	}
	return m
})

// loadIdentity reads the policies of a principal, and the secret that the call is about, in the
// snapshot of the call. It takes two round trips, and a third for a user whose groups have custom
// policies. A principal whose user was deleted has no policies, even if a new user has the name.
func loadIdentity(tx *store.Tx, p policy.Principal, secret string) (*identity, error) {
	if p.Kind != policy.KindRAMUser {
		return noPolicies, nil // root needs no policies, and the engine has none
	}
	id := &identity{}
	if err := tx.AheadUser(p.Account, p.Name, secret); err != nil {
		return nil, err
	}
	u, ok, err := tx.User(p.Account, p.Name)
	if err != nil || !ok || u.ID != p.ID {
		return id, err
	}
	groups := make([]string, len(u.Groups))
	for i, m := range u.Groups {
		groups[i] = m.GroupID
	}
	if err := tx.AheadPolicies(p.Account, groups, custom(u.Policies)); err != nil {
		return nil, err
	}
	if err := id.add(tx, p.Account, "", u.Policies); err != nil {
		return nil, err
	}
	return id, id.addGroups(tx, p.Account, groups)
}

func (id *identity) addGroups(tx *store.Tx, account string, ids []string) error {
	groups := make([]users.GroupRights, 0, len(ids))
	var policies []string
	for _, groupID := range ids {
		g, err := rightsOf(tx, account, groupID)
		if err != nil {
			return err
		}
		groups, policies = append(groups, g), append(policies, custom(g.Policies)...)
	}
	if err := tx.AheadPolicies(account, nil, policies); err != nil {
		return err
	}
	for _, g := range groups {
		if err := id.add(tx, account, g.Name, g.Policies); err != nil {
			return err
		}
	}
	return nil
}

// rightsOf reads the rights of a group that the record of a user names.
func rightsOf(tx *store.Tx, account, groupID string) (users.GroupRights, error) {
	g, ok, err := tx.GroupRights(account, groupID)
	if err == nil && !ok {
		err = fmt.Errorf("the group with ID %s of a user is missing from the store", groupID)
	}
	return g, err
}

func custom(list []users.Attachment) []string {
	var names []string
	for _, a := range list {
		if a.Type == users.Custom {
			names = append(names, a.Name)
		}
	}
	return names
}

// add adds the documents of attached policies. It fails when one is missing, because the document
// may contain a Deny.
func (id *identity) add(tx *store.Tx, account, group string, list []users.Attachment) error {
	for _, a := range list {
		d, ok := systemDocuments()[a.Name]
		if a.Type == users.Custom {
			var err error
			if d, ok, err = tx.PolicyDocument(account, a.Name); err != nil {
				return err
			}
		}
		if !ok {
			return fmt.Errorf("the attached %s policy %q is not there", a.Type, a.Name)
		}
		id.documents = append(id.documents, d)
		id.sources = append(id.sources, source{kind: a.Type, name: a.Name, group: group})
	}
	return nil
}

// grantable returns the actions that the policy of a secret may allow.
func grantable() []string {
	var list []string
	for _, o := range protocol.Operations() {
		if o.Grantable {
			list = append(list, o.Action)
		}
	}
	return list
}

// asking returns the question whether the caller may do action on r, in the context of the call.
func (c *Call) asking(action string, r resource) question {
	return question{c.Principal, c.identity, action, r, c.policyContext()}
}

// policyContext returns what conditions of policies see of the call; not the tags of a secret.
func (c *Call) policyContext() policy.Context {
	return policy.Context{Now: c.At, SourceIP: c.Source, SecureTransport: c.Secure}
}

// question is one decision to make.
type question struct {
	principal policy.Principal
	identity  *identity
	action    string
	resource  resource
	context   policy.Context // without the tags
}

// decide evaluates the identity policies together with the policy of the secret. Conditions of both
// see the tags of the secret. A missing secret, and a secret without a policy, count as having the
// default policy: the answer is the same as without a policy, and the time of a refusal does not
// reveal which of them it was.
func (q question) decide(tx *store.Tx) (policy.Decision, error) {
	r := policy.Request{
		Principal: q.principal,
		Action:    q.action,
		Resource:  q.resource.arn,
		Context:   q.context,
	}
	if o := protocol.OfAction(q.action); o != nil {
		r.Grantable, r.Repairs, r.ByName = o.Grantable, o.Repairs, o.ByName
	}
	if q.resource.secret == "" {
		return policy.Evaluate(r, q.identity.documents, nil), nil
	}
	s, ok, err := tx.Secret(q.principal.Account, q.resource.secret, q.context.Now)
	if err != nil {
		return policy.Decision{}, err
	}
	if !ok {
		s = secret.Secret{Account: q.principal.Account, Name: q.resource.secret}
	}
	r.Context.Tags = s.Tags
	own, err := tx.SecretPolicy(s)
	if err != nil {
		return policy.Decision{}, err
	}
	return policy.Evaluate(r, q.identity.documents, &own), nil
}
