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

// The resources of the user service, as the reference lists them: creating and listing is on
// user/*, and what concerns two things needs the right on both. A policy that comes with the
// service has "system" in the place of the account.

func (c *Call) ramResource(relative string) resource {
	return resource{arn: policy.ARN("ram", "", c.Account(), relative)}
}

// aboutKey sets the resource of the audit record to an access key. An access key has no ARN of its
// own: rights on it are rights on its user.
func (c *Call) aboutKey(user, id string) {
	owner := "user/" + user
	if user == "" {
		owner = "root"
	}
	c.resource = c.ramResource(owner + "/accesskey/" + id)
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

// policy reads a policy. For a policy that comes with the service the store holds only the number
// of attachments.
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

// marker returns the opaque token that continues a list after one name.
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

// page collects at most most rows of a list. The row after them shows that there are more.
type page[T any] struct {
	rows []T
	most int
	last string
	more bool
}

// add adds the row of a name, and reports whether to continue.
func (p *page[T]) add(name string, row T) bool {
	if len(p.rows) == p.most {
		p.more = true
		return false
	}
	p.rows, p.last = append(p.rows, row), name
	return true
}

// marker returns the token that continues after the page; empty on the last page.
func (p *page[T]) marker() string {
	if !p.more {
		return ""
	}
	return marker(p.last)
}

// limited returns an error when count has reached most.
func limited(count int, err error, most int, code string) error {
	if err == nil && count >= most {
		err = fault.Coded(fault.LimitExceeded, code, "At most %d.", most)
	}
	return err
}
