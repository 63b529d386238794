package api

import (
	"context"
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
	return u, mustExist(ok, err, ram.CodeUserNotExist)
}

func (c *Call) group(tx *store.Tx, name string) (users.Group, error) {
	g, ok, err := tx.Group(c.Account(), name)
	return g, mustExist(ok, err, ram.CodeGroupNotExist)
}

// policy reads a policy. For a policy that comes with the service the store has only the number of
// attachments.
func (c *Call) policy(tx *store.Tx, kind, name string) (users.Policy, error) {
	p, ok, err := tx.Policy(c.Account(), kind, name)
	if kind == users.System {
		attached := p
		p, ok = users.SystemPolicy(name)
		p.Users, p.Groups = attached.Users, attached.Groups
	}
	return p, mustExist(ok, err, ram.CodePolicyNotExist)
}

// mustExist returns err, or an error with that code for a record that does not exist.
func mustExist(exists bool, err error, code string) error {
	if err == nil && !exists {
		err = fault.Coded(fault.NotFound, code, "")
	}
	return err
}

// mustBeFree returns err, or an error with that code for a name that is taken.
func mustBeFree(taken bool, err error, code string) error {
	if err == nil && taken {
		err = fault.Coded(fault.Exists, code, "")
	}
	return err
}

// alterRecord reads one record, changes it by a rule and writes it, in one transaction.
func alterRecord[T any](
	ctx context.Context, c *Call,
	read func(*store.Tx) (T, error), rule func(*store.Tx, T) (T, error), write func(*store.Tx, T) error,
) (T, error) {
	return store.Update(ctx, c.DB, func(tx *store.Tx) (T, error) {
		record, err := read(tx)
		if err != nil {
			return record, err
		}
		if record, err = rule(tx, record); err != nil {
			return record, err
		}
		return record, write(tx, record)
	})
}

// marker returns the opaque token that continues a list after one name.
func marker(after string) string {
	return base64.RawURLEncoding.EncodeToString([]byte("after:" + after))
}

func parseMarker(parameter, s string) (string, error) {
	if s == "" {
		return "", nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(s)
	after, ok := strings.CutPrefix(string(raw), "after:")
	if err != nil || !ok {
		return "", fault.Parameter(parameter, "use the %s of the page before, as it is.",
			strings.ToLower(strings.TrimPrefix(parameter, "Next")))
	}
	return after, nil
}

// page collects at most most rows of a list, from the name after which it begins on. The row after
// them shows that there are more.
type page[T any] struct {
	after string
	rows  []T
	most  int
	last  string
	more  bool
}

// newPage returns the page that a token continues; token is the value of a parameter.
func newPage[T any](parameter, token string, most int) (*page[T], error) {
	after, err := parseMarker(parameter, token)
	return &page[T]{after: after, rows: []T{}, most: most}, err
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

// limited returns err, or an error with that code when count has reached most.
func limited(count int, err error, most int, code string) error {
	if err == nil && count >= most {
		err = fault.Coded(fault.LimitExceeded, code, "At most %d.", most)
	}
	return err
}
