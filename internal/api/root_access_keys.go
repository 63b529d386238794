package api

import (
	"errors"

	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/users"
)

// The root account has access keys like a user: at most two, so that one can replace the other.
// They are managed by the operations for access keys without UserName, when the root account itself
// calls. No policy can give that to another principal: a user with every right is not root, and
// must not be able to become it.

// keyOwner reads the user whose access keys a call is about. An empty name is the root account, as
// a user without a name.
func (c *Call) keyOwner(tx *store.Tx, name string) (users.User, error) {
	if name != "" {
		return c.user(tx, name)
	}
	if c.Principal.Kind != policy.KindAccount {
		return users.User{}, errors.New("only the root account is without a user name")
	}
	account, ok, err := tx.Account(c.Account())
	if err == nil && !ok {
		err = errors.New("the caller's account has no record")
	}
	if err != nil {
		return users.User{}, err
	}
	root := users.User{Account: account.ID, ID: account.ID, Keys: account.Keys}
	if len(root.Keys) > 0 {
		return root, nil
	}
	root.Keys, err = listRootKeys(tx, account.ID)
	return root, err
}

// listRootKeys finds the access keys of a root account whose record does not list them: releases
// before 0.2 kept no list.
func listRootKeys(tx *store.Tx, account string) (list []users.Key, err error) {
	err = tx.AccessKeys(func(k store.AccessKey) bool {
		if k.Principal.Kind == policy.KindAccount && k.Principal.Account == account {
			list = append(list, users.Key{ID: k.ID, Disabled: k.Disabled, CreatedAt: k.CreatedAt})
		}
		return true
	})
	return list, err
}

// putKeyOwner writes the user whose access keys have changed.
func (c *Call) putKeyOwner(tx *store.Tx, u users.User) error {
	if u.Name != "" {
		return tx.PutUser(u)
	}
	account, _, err := tx.Account(u.Account)
	if err != nil {
		return err
	}
	account.Keys = u.Keys
	return tx.PutAccount(account)
}

// keyPrincipal is who calls with an access key of u.
func keyPrincipal(u users.User) policy.Principal {
	if u.Name == "" {
		return policy.Principal{Kind: policy.KindAccount, Account: u.Account, ID: u.Account}
	}
	return policy.Principal{Kind: policy.KindRAMUser, Account: u.Account, Name: u.Name, ID: u.ID}
}
