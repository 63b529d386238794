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
	users      []string
}

// NewCandidate makes a candidate by the target's own rules. Nothing is stored, and nothing is changed at the target.
func (t *Turn) NewCandidate(ctx context.Context, system target.Target) (*Candidate, error) {
	strategy, err := t.Secret.Strategy(t.strategies(system))
	if err != nil {
		return nil, err
	}
	if t.Registered && t.Target.AdminSecret == t.Secret.Name && strategy != target.Double {
		return nil, fault.New(fault.InUse, "Secret %q is the only way into target %q; only the strategy double may rotate an administrator.", t.Secret.Name, t.Target.Name)
	}
	c := &Candidate{Strategy: strategy, Base: t.Secret.Stages[secret.Current]}
	current, stored, err := t.version(c.Base)
	if err != nil {
		return nil, err
	}
	account := current[0].Account
	c.users = []string{account}
	if strategy == target.Double {
		if account, err = t.env.otherAccount(t.tx, t.Secret, current); err != nil {
			return nil, err
		}
		if err := t.Secret.Tells(stored, account); err != nil {
			return nil, err
		}
		c.users = append(c.users, account)
	}
	for _, account := range c.users {
		if err := mayUse(t.Secret, target.Credential{Account: account}); err != nil {
			return nil, err
		}
	}
	if t.Registered { // what the accounts are, the target is asked before a candidate is sent
		if err := t.env.allows(t.tx, t.Target, t.Secret.Name, c.users); err != nil {
			return nil, err
		}
	}
	if g, ok := system.(target.Generator); ok {
		c.Credential, err = g.Generate(ctx, account, current[0], rand.Reader)
	} else {
		c.Credential, err = target.PasswordRule{}.Generate(ctx, account, current[0], rand.Reader)
	}
	c.value = t.Secret.Value(stored, c.Credential)
	return c, err
}

// prepare stores the candidate of a rotation, and claims its accounts and its group's turn.
func (c *Call) prepare(tx *store.Tx, s secret.Secret, r *rotation.Record, version string, candidate *Candidate) (secret.Secret, map[string][]byte, error) {
	if s.Stages[secret.Current] != candidate.Base {
		return s, nil, ErrMoved
	}
	if err := c.claim(tx, s, candidate.users); err != nil {
		return s, nil, err
	}
	if g := s.Settings(); g.Group != "" && r.Trigger != rotation.Emergency {
		spacing, err := tx.Spacing(s.Account, g.Group)
		if err != nil {
			return s, nil, err
		}
		if free := spacing.Last.Add(g.Gap); spacing.Secret != s.Name && c.At.Before(free) {
			return s, nil, &TooSoonError{Until: free}
		}
		if err := tx.PutSpacing(store.Spacing{Account: s.Account, Group: g.Group, Last: c.At, Secret: s.Name}); err != nil {
			return s, nil, err
		}
	}
	key, err := loadKey(tx, s.Account, s.KeyID)
	if err != nil {
		return s, nil, err
	}
	v, box, err := c.seal(key, s.Name, secret.Version{ID: version, DataType: kms.DataText}, candidate.value)
	if err != nil {
		return s, nil, err
	}
	if s, err = s.Prepare(v, c.At); err != nil {
		return s, nil, err
	}
	return s, map[string][]byte{version: box}, nil
}

// TooSoonError means that another member of the group rotated a moment ago.
type TooSoonError struct{ Until time.Time }

func (e *TooSoonError) Error() string {
	return "another secret of its group rotates; waiting until " + e.Until.UTC().Format(time.RFC3339)
}
