package api

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// Candidate is a new credential, ready to be stored.
type Candidate struct {
	Strategy   target.Strategy
	Base       string
	Credential target.Credential
	value      sensitive.Value
	accounts   []string
}

// method is how the next credential of a secret is made.
type method struct {
	strategy target.Strategy
	base     string            // the current version
	current  target.Credential // the credential of base
	stored   sensitive.Value   // the value of base
	account  string            // the account of the next credential
	accounts []string          // the accounts that the rotation changes
}

// methodFor returns how the next credential of a secret is made at a target that has these
// strategies. It refuses a secret that could not be rotated there: no such strategy, no credential
// in its value, or no second account where the strategy needs one.
func (e *Env) methodFor(
	tx *store.Tx, s secret.Secret, t store.Target, has []target.Strategy,
) (m method, err error) {
	if m.strategy, err = s.Strategy(has); err != nil {
		return m, err
	}
	if t.AdminSecret == s.Name && m.strategy != target.Double {
		return m, fault.New(fault.InUse,
			"Secret %q is the only way into target %q; only the strategy double may rotate an administrator.", s.Name, t.Name)
	}
	v, list, stored, err := e.inUse(tx, s)
	if err != nil {
		return m, err
	}
	m.base, m.current, m.stored = v.ID, list[0], stored
	m.account, m.accounts = list[0].Account, []string{list[0].Account}
	if m.strategy != target.Double {
		return m, nil
	}
	if m.account, err = e.otherAccount(tx, s, list); err != nil {
		return m, err
	}
	m.accounts = append(m.accounts, m.account)
	return m, s.CheckNamesAccount(stored, m.account)
}

// NewCandidate makes a candidate by the target's own rules. It stores nothing, and changes nothing
// at the target.
func (t *Turn) NewCandidate(ctx context.Context, system target.Target) (*Candidate, error) {
	m, err := t.env.methodFor(t.tx, t.Secret, t.Target, t.strategies(system))
	if err != nil {
		return nil, err
	}
	if err := mayUse(t.Secret, m.accounts...); err != nil {
		return nil, err
	}
	if t.Registered { // before a candidate is sent, the target is asked too what the accounts are
		if err := t.env.allows(t.tx, t.Target, t.Secret.Name, m.accounts); err != nil {
			return nil, err
		}
	}
	generate := target.PasswordRule{}.Generate
	if g, ok := system.(target.Generator); ok {
		generate = g.Generate
	}
	credential, err := generate(ctx, m.account, m.current, rand.Reader)
	return &Candidate{
		Strategy:   m.strategy,
		Base:       m.base,
		Credential: credential,
		value:      t.Secret.Value(m.stored, credential),
		accounts:   m.accounts,
	}, err
}

// prepare stores the candidate of a rotation under version, and claims its accounts and its group's
// turn.
func (c *Call) prepare(
	tx *store.Tx, s secret.Secret, r *rotation.Record, version string, candidate *Candidate,
) (secret.Secret, map[string][]byte, error) {
	if s.Stages[secret.Current] != candidate.Base {
		return s, nil, ErrMoved
	}
	if err := c.claim(tx, s, candidate.accounts); err != nil {
		return s, nil, err
	}
	if r.Trigger != rotation.Emergency { // an emergency does not wait for other members of its group
		if err := c.takeGroupTurn(tx, s); err != nil {
			return s, nil, err
		}
	}
	v, box, err := c.sealFor(tx, s, secret.Version{ID: version, DataType: kms.DataText}, candidate.value)
	if err != nil {
		return s, nil, err
	}
	s, err = s.Prepare(v, c.At)
	return s, map[string][]byte{version: box}, err
}

// takeGroupTurn records that the secret rotates now, or refuses it while another member of its
// group has rotated less than the group's gap ago.
func (c *Call) takeGroupTurn(tx *store.Tx, s secret.Secret) error {
	g := s.Settings()
	if g.Group == "" {
		return nil
	}
	spacing, err := tx.Spacing(s.Account, g.Group)
	if err != nil {
		return err
	}
	if free := spacing.Last.Add(g.Gap); spacing.Secret != s.Name && c.At.Before(free) {
		return &TooSoonError{Until: free}
	}
	return tx.PutSpacing(store.Spacing{Account: s.Account, Group: g.Group, Last: c.At, Secret: s.Name})
}

// TooSoonError means that another member of the group rotated a moment ago.
type TooSoonError struct{ Until time.Time }

// Error says until when the rotation waits.
func (e *TooSoonError) Error() string {
	return "another secret of its group rotates; waiting until " + e.Until.UTC().Format(time.RFC3339)
}
