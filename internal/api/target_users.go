package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/users"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
)

// ownUsers is the target of RAMCredentials secrets: the users of this service. A user may have two
// access keys, so they overlap by nature. A candidate is a key with the ID that was drawn for it,
// so applying it twice is the same as once.
type ownUsers struct {
	env     *Env
	account string
	// userID is the user that the secret is bound to; empty when it was not bound yet.
	userID string
	// record keeps a record of a change of a user's keys, before and after it.
	record func(ctx context.Context, action, user, keyID string, change func(context.Context) error) error
}

// ownUsers returns the users of this service as the target of a turn. A secret of a release before
// bindings goes on only while it holds a live key of its user.
func (t *Turn) ownUsers() (target.Target, error) {
	o := &ownUsers{env: t.env, account: t.Secret.Account, record: t.recordKeyChange}
	if b := t.Secret.Rotation.Binding; b != nil {
		o.userID = b.Target
		return o, nil
	}
	c, err := t.Credential(t.Secret.Stages[secret.Current])
	if err != nil {
		return nil, err
	}
	seen, err := o.inspect(t.tx, []target.Credential{c})
	if err == nil && seen[0] != target.Live {
		err = fault.New(fault.InUse, "Secret %q does not hold an active access key of user %q; "+
			"keyturn rotation rotate %s by a principal with %s and %s on that user binds it.",
			t.Secret.Name, t.Secret.UserName(), t.Secret.Name, actionCreateAccessKey, actionDeleteAccessKey)
	}
	return o, err
}

// recordKeyChange records a change of a user's keys under the user's name, before and after it. A
// change that cannot be recorded does not happen.
func (t *Turn) recordKeyChange(
	ctx context.Context, action, user, keyID string, change func(context.Context) error,
) error {
	c := t.call(strings.TrimPrefix(action, "ram:"))
	c.Version = ram.Version
	c.op = &endpoint{Op: protocol.Named(c.Action)}
	c.aboutKey(user, keyID)
	made := false
	err := t.gate.recordTwice(ctx, c, func() error {
		made = true
		return change(ctx)
	})
	if err != nil && !made {
		return target.NotSent("access key", err)
	}
	return err
}

// Generate draws an access key.
func (o *ownUsers) Generate(
	_ context.Context, account string, _ target.Credential, random io.Reader,
) (target.Credential, error) {
	id, secret, err := users.NewKey(random)
	return target.Credential{Account: account, ID: id, Secret: sensitive.New(secret)}, err
}

// Apply gives the user the key.
func (o *ownUsers) Apply(ctx context.Context, c target.Change) error {
	now := o.env.Now().UTC()
	return o.changeKeys(ctx, actionCreateAccessKey, c.New, func(tx *store.Tx, u users.User) (users.User, error) {
		if _, err := u.Key(c.New.ID); err == nil {
			return u, nil
		}
		u, err := u.AddKey(c.New.ID, now)
		if err != nil {
			return u, target.Failed(target.Denied, "",
				fmt.Sprintf("user %q has as many access keys as a user may have; "+
					"delete the one that is not in use", u.Name))
		}
		return u, tx.PutAccessKey(store.AccessKey{
			ID:        c.New.ID,
			CreatedAt: now,
			Secret:    o.env.Keyring.SealAccessKey(c.New.ID, "secret", c.New.Secret),
			Principal: keyPrincipal(u),
		})
	})
}

// Retire takes the old key away: exactly the key of that ID with that secret.
func (o *ownUsers) Retire(ctx context.Context, c target.Change) error {
	return o.changeKeys(ctx, actionDeleteAccessKey, c.Old, func(tx *store.Tx, u users.User) (users.User, error) {
		if _, err := u.Key(c.Old.ID); err != nil {
			return u, nil
		}
		key, ok, err := tx.AccessKey(c.Old.ID)
		if err != nil || !ok {
			return u, err
		}
		stored, err := o.env.Keyring.OpenAccessKey(key.ID, "secret", key.Secret)
		if err != nil || !stored.Equal(c.Old.Secret) {
			return u, err
		}
		tx.DeleteAccessKey(c.Old.ID)
		return u.RemoveKey(c.Old.ID)
	})
}

// changeKeys changes the access keys of the user that a credential names.
func (o *ownUsers) changeKeys(ctx context.Context, action string, c target.Credential, rule userRule) error {
	return ownClass(o.record(ctx, action, c.Account, c.ID, func(ctx context.Context) error {
		return store.Do(ctx, o.env.DB, func(tx *store.Tx) error {
			u, ok, err := tx.User(o.account, c.Account)
			switch {
			case err != nil:
				return err
			case !ok || o.userID != "" && u.ID != o.userID:
				return target.Failed(target.Denied, ram.CodeUserNotExist,
					fmt.Sprintf("the user %q that the secret is bound to no longer exists", c.Account))
			}
			if u, err = rule(tx, u); err != nil {
				return err
			}
			return tx.PutUser(u)
		})
	}))
}

// ownClass classifies an error of the store: it distinguishes a change that was not made from one
// whose outcome is unknown.
func ownClass(err error) error {
	var classified *target.Error
	switch {
	case err == nil, errors.As(err, &classified), errors.Is(err, store.ErrUnknown):
		return err
	case fault.KindOf(err) == fault.Unavailable:
		return target.NotSent("access key", err)
	}
	return err
}

// Inspect reads the keys from the store.
func (o *ownUsers) Inspect(ctx context.Context, list []target.Credential) ([]target.Liveness, error) {
	return o.inspect(store.Snapshot(ctx, o.env.DB), list)
}

func (o *ownUsers) inspect(tx *store.Tx, list []target.Credential) ([]target.Liveness, error) {
	out := make([]target.Liveness, len(list))
	for i, c := range list {
		out[i] = target.Dead
		key, ok, err := tx.AccessKey(c.ID)
		if err != nil {
			return nil, ownClass(err)
		}
		p := key.Principal
		if !ok ||
			key.Disabled ||
			p.Name != c.Account ||
			p.Account != o.account ||
			o.userID != "" && p.ID != o.userID {
			continue
		}
		secret, err := o.env.Keyring.OpenAccessKey(key.ID, "secret", key.Secret)
		if err != nil {
			return nil, err
		}
		if secret.Equal(c.Secret) {
			out[i] = target.Live
		}
	}
	return out, nil
}

// Verify refuses a key whose signatures the service would not accept.
func (o *ownUsers) Verify(ctx context.Context, c target.Credential) error {
	seen, err := o.Inspect(ctx, []target.Credential{c})
	if err == nil && seen[0] != target.Live {
		err = target.Failed(target.Rejected, "",
			fmt.Sprintf("the access key of user %q does not exist, is switched off, or has another secret", c.Account))
	}
	return err
}

// Close does nothing: the store is the server's.
func (o *ownUsers) Close() error { return nil }
