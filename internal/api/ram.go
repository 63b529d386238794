package api

import (
	"encoding/base64"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/users"
	"github.com/keyturn/keyturn/ram"
)

// userService moves an operation to the user service.
func userService(o Op) Op { o.Version, o.Action = ram.Version, "ram:"+o.Name; return o }

// The resources of the user service, as the reference lists them: creating and listing is on user/*, and what concerns two
// things needs the right on both. A policy that comes with the service has "system" in the place of the account.

func (c *Call) ramResource(relative string) resource {
	return resource{arn: policy.ARN("ram", "", c.Account(), relative)}
}

// aboutKey names an access key in the audit trail. It has no ARN of its own: rights on it are rights on its user.
func (c *Call) aboutKey(user, id string) {
	owner := "user/" + user
	if user == "" {
		owner = "root"
	}
	c.resource = c.ramResource(owner + "/accesskey/" + id)
}

// all is the collection of users, groups or policies.
func all[In any](kind string) on[In] {
	return on[In]{kind + "/*", func(c *Call, _ *In) ([]resource, error) { return []resource{c.ramResource(kind + "/*")}, nil }}
}

// aUser is the user that a parameter names.
func aUser[In any](field func(*In) string) on[In] {
	return on[In]{"user/${UserName}", func(c *Call, in *In) ([]resource, error) {
		name := field(in)
		return []resource{c.ramResource("user/" + name)}, users.CheckUserName("UserName", name)
	}}
}

// aUserOrSelf is the user that a parameter names, or the caller when it is left out. The parameter becomes the name; it
// stays empty for the root account.
func aUserOrSelf[In any](field func(*In) *string) on[In] {
	return on[In]{"user/${UserName}", func(c *Call, in *In) ([]resource, error) {
		name := field(in)
		if *name == "" && c.Principal.Kind == policy.KindRAMUser {
			*name = c.Principal.Name
		}
		if *name == "" && c.Principal.Kind == policy.KindAccount {
			return []resource{c.ramResource("root")}, nil
		}
		return []resource{c.ramResource("user/" + *name)}, users.CheckUserName("UserName", *name)
	}}
}

// aGroup is the group that a parameter names.
func aGroup[In any](field func(*In) string) on[In] {
	return on[In]{"group/${GroupName}", func(c *Call, in *In) ([]resource, error) {
		name := field(in)
		return []resource{c.ramResource("group/" + name)}, users.CheckGroupName("GroupName", name)
	}}
}

// aCustomPolicy is the custom policy that a parameter names.
func aCustomPolicy[In any](field func(*In) string) on[In] {
	return aPolicy(func(in *In) (string, string) { return users.Custom, field(in) })
}

// aPolicy is the policy that type and name say.
func aPolicy[In any](field func(*In) (kind, name string)) on[In] {
	return on[In]{"policy/${PolicyName}", func(c *Call, in *In) ([]resource, error) {
		kind, name := field(in)
		if err := users.CheckPolicyName("PolicyName", name); err != nil {
			return nil, err
		}
		if kind == users.System {
			return []resource{{arn: policy.ARN("ram", "", policy.SystemAccount, "policy/"+name)}}, nil
		}
		return []resource{c.ramResource("policy/" + name)}, users.CheckPolicyType(kind)
	}}
}

// both are the resources of two finders.
func both[In any](a, b on[In]) on[In] {
	return on[In]{a.text + " and " + b.text, func(c *Call, in *In) ([]resource, error) {
		first, err := a.find(c, in)
		if err != nil {
			return nil, err
		}
		second, err := b.find(c, in)
		return append(first, second...), err
	}}
}

func (c *Call) user(tx *store.Tx, name string) (users.User, error) {
	u, ok, err := tx.User(c.Account(), name)
	if err == nil && !ok {
		err = fault.Coded(fault.NotFound, ram.CodeUserNotExist, "")
	}
	return u, err
}

func (c *Call) group(tx *store.Tx, name string) (users.Group, error) {
	g, ok, err := tx.Group(c.Account(), name)
	if err == nil && !ok {
		err = fault.Coded(fault.NotFound, ram.CodeGroupNotExist, "")
	}
	return g, err
}

// policy reads a policy. Of one that comes with the service the store has only how often it is attached.
func (c *Call) policy(tx *store.Tx, kind, name string) (users.Policy, error) {
	missing := fault.Coded(fault.NotFound, ram.CodePolicyNotExist, "")
	p, ok, err := tx.Policy(c.Account(), kind, name)
	switch {
	case err != nil:
		return p, err
	case kind == users.System:
		own, ok := users.SystemPolicy(name)
		if !ok {
			return p, missing
		}
		own.Users, own.Groups = p.Users, p.Groups
		return own, nil
	case !ok:
		return p, missing
	}
	return p, nil
}

// marker continues a list after one name; it is opaque to callers.
func marker(after string) string {
	return base64.RawURLEncoding.EncodeToString([]byte("after:" + after))
}

func parseMarker(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(s)
	after, ok := strings.CutPrefix(string(raw), "after:")
	if err != nil || !ok {
		return "", fault.Parameter("Marker", "use the marker of the page before, as it is.")
	}
	return after, nil
}

// page takes at most most rows; the row after them says that there are more.
type page[T any] struct {
	rows []T
	most int
	last string
	more bool
}

// add takes a row of a name, and reports whether to go on.
func (p *page[T]) add(name string, row T) bool {
	if len(p.rows) == p.most {
		p.more = true
		return false
	}
	p.rows, p.last = append(p.rows, row), name
	return true
}

// marker continues after the page; empty when it is the last.
func (p *page[T]) marker() string {
	if !p.more {
		return ""
	}
	return marker(p.last)
}

// limited refuses what would be one too many.
func limited(count int, err error, most int, code string) error {
	if err == nil && count >= most {
		err = fault.Coded(fault.LimitExceeded, code, "At most %d.", most)
	}
	return err
}
