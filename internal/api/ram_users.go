package api

import (
	"context"
	"errors"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/users"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
)

func shownUser(u users.User) ram.User {
	return ram.User{
		UserID:      u.ID,
		UserName:    u.Name,
		DisplayName: u.DisplayName,
		MobilePhone: u.MobilePhone,
		Email:       u.Email,
		Comments:    u.Comments,
		CreateDate:  u.CreatedAt,
		UpdateDate:  u.UpdatedAt,
	}
}

// namedUser returns a user as lists show it that say since when the user belongs to something.
func namedUser(u users.User) ram.User {
	return ram.User{UserID: u.ID, UserName: u.Name, DisplayName: u.DisplayName}
}

func createUser(ctx context.Context, c *Call, in *ram.CreateUserRequest) (*ram.UserResponse, error) {
	id, err := users.NewID(c.Random)
	if err != nil {
		return nil, err
	}
	c.resource = c.ramResource("user/" + protocol.Clip(in.UserName))
	u, err := users.NewUser(c.Account(), id, in.UserName, users.Profile{
		DisplayName: &in.DisplayName,
		MobilePhone: &in.MobilePhone,
		Email:       &in.Email,
		Comments:    &in.Comments,
	}, c.At)
	if err != nil {
		return nil, err
	}
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*ram.UserResponse, error) {
		if err := c.freeUser(tx, u.Name); err != nil {
			return nil, err
		}
		count, err := tx.CountUsers(c.Account())
		if err := limited(count, err, users.MaxUsers, ram.CodeUserLimit); err != nil {
			return nil, err
		}
		return &ram.UserResponse{User: shownUser(u)}, tx.PutUser(u)
	})
}

func (c *Call) freeUser(tx *store.Tx, name string) error {
	_, taken, err := tx.User(c.Account(), name)
	return mustBeFree(taken, err, ram.CodeUserExists)
}

func getUser(c *Call, in *ram.GetUserRequest) (*ram.UserResponse, error) {
	u, err := c.user(c.Snapshot, in.UserName)
	return &ram.UserResponse{User: shownUser(u)}, err
}

func listUsers(c *Call, in *ram.ListUsersRequest) (*ram.ListUsersResponse, error) {
	return c.userPage(in.Marker, in.MaxItems, func(u users.User) (ram.User, bool) { return shownUser(u), true })
}

// userPage lists the users for which row returns true.
func (c *Call) userPage(from string, most int, row func(users.User) (ram.User, bool)) (*ram.ListUsersResponse, error) {
	p, err := newPage[ram.User]("Marker", from, most)
	if err != nil {
		return nil, err
	}
	err = c.Snapshot.Users(c.Account(), p.after, func(u users.User) bool {
		shown, ok := row(u)
		return !ok || p.add(u.Name, shown)
	})
	return &ram.ListUsersResponse{IsTruncated: p.more, Marker: p.marker(), Users: p.rows}, err
}

// updateUser changes a user. A new name moves the record of the user, and changes the records of
// the access keys in the same transaction.
func updateUser(ctx context.Context, c *Call, in *ram.UpdateUserRequest) (*ram.UserResponse, error) {
	u, err := c.alteredUser(ctx, in.UserName, func(tx *store.Tx, old users.User) (users.User, error) {
		u, err := old.Update("New", in.NewUserName, users.Profile{
			DisplayName: in.NewDisplayName,
			MobilePhone: in.NewMobilePhone,
			Email:       in.NewEmail,
			Comments:    in.NewComments,
		}, c.At)
		if err == nil && u.Name != old.Name {
			err = c.renameUser(tx, old, u)
		}
		return u, err
	})
	return &ram.UserResponse{User: shownUser(u)}, err
}

func (c *Call) renameUser(tx *store.Tx, old, u users.User) error {
	if err := c.freeUser(tx, u.Name); err != nil {
		return err
	}
	tx.DeleteUser(old.Account, old.Name)
	for _, k := range u.Keys {
		key, err := c.accessKey(tx, k.ID)
		if err != nil {
			return err
		}
		key.Principal.Name = u.Name
		if err := tx.PutAccessKey(key); err != nil {
			return err
		}
	}
	return nil
}

func deleteUser(ctx context.Context, c *Call, in *ram.DeleteUserRequest) (*ram.EmptyResponse, error) {
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*ram.EmptyResponse, error) {
		u, err := c.user(tx, in.UserName)
		if err != nil {
			return nil, err
		}
		if err := u.Deletable(); err != nil {
			return nil, err
		}
		tx.DeleteUser(u.Account, u.Name)
		return &ram.EmptyResponse{}, nil
	})
}

// userRule changes a user. It may change more in the transaction that stores the user.
type userRule func(*store.Tx, users.User) (users.User, error)

// alteredUser changes one user in one transaction, and returns the user.
func (c *Call) alteredUser(ctx context.Context, name string, rule userRule) (users.User, error) {
	read := func(tx *store.Tx) (users.User, error) { return c.user(tx, name) }
	return alterRecord(ctx, c, read, rule, (*store.Tx).PutUser)
}

// alterUser changes one user in one transaction.
func (c *Call) alterUser(ctx context.Context, name string, rule userRule) (*ram.EmptyResponse, error) {
	_, err := c.alteredUser(ctx, name, rule)
	return &ram.EmptyResponse{}, err
}

// alterKeys changes the access keys of one user, or of the root account, in one transaction.
func (c *Call) alterKeys(ctx context.Context, name string, rule userRule) (*ram.EmptyResponse, error) {
	read := func(tx *store.Tx) (users.User, error) { return c.keyOwner(tx, name) }
	_, err := alterRecord(ctx, c, read, rule, c.putKeyOwner)
	return &ram.EmptyResponse{}, err
}

func createAccessKey(
	ctx context.Context, c *Call, in *ram.CreateAccessKeyRequest,
) (*ram.CreateAccessKeyResponse, error) {
	id, text, err := users.NewKey(c.Random)
	if err != nil {
		return nil, err
	}
	c.aboutKey(in.UserName, id)
	secret := sensitive.New(text)
	sealed := c.Keyring.SealAccessKey(id, "secret", secret)
	_, err = c.alterKeys(ctx, in.UserName, func(tx *store.Tx, u users.User) (users.User, error) {
		_, drawn, err := tx.AccessKey(id)
		if err == nil && drawn {
			err = errors.New("an access key ID was drawn twice")
		}
		if err != nil {
			return u, err
		}
		if u, err = u.AddKey(id, c.At); err != nil {
			return u, err
		}
		return u, tx.PutAccessKey(store.AccessKey{
			ID:        id,
			CreatedAt: c.At,
			Secret:    sealed,
			Principal: keyPrincipal(u),
		})
	})
	if err != nil {
		return nil, err
	}
	return &ram.CreateAccessKeyResponse{AccessKey: ram.AccessKey{
		AccessKeyID:     id,
		AccessKeySecret: secret,
		Status:          ram.KeyActive,
		CreateDate:      c.At,
	}}, nil
}

// accessKey reads the record of a key that a user's record names.
func (c *Call) accessKey(tx *store.Tx, id string) (store.AccessKey, error) {
	key, ok, err := tx.AccessKey(id)
	if err == nil && !ok {
		err = errors.New("a user's access key has no record")
	}
	return key, err
}

func listAccessKeys(c *Call, in *ram.ListAccessKeysRequest) (*ram.ListAccessKeysResponse, error) {
	u, err := c.keyOwner(c.Snapshot, in.UserName)
	out := &ram.ListAccessKeysResponse{AccessKeys: []ram.ListedAccessKey{}}
	for _, k := range u.Keys {
		row := ram.ListedAccessKey{AccessKeyID: k.ID, Status: ram.KeyActive, CreateDate: k.CreatedAt}
		if k.Disabled {
			row.Status = ram.KeyInactive
		}
		out.AccessKeys = append(out.AccessKeys, row)
	}
	return out, err
}

func updateAccessKey(ctx context.Context, c *Call, in *ram.UpdateAccessKeyRequest) (*ram.EmptyResponse, error) {
	switch {
	case in.UserAccessKeyID == "":
		return nil, fault.Required("UserAccessKeyId")
	case in.Status != ram.KeyActive && in.Status != ram.KeyInactive:
		return nil, fault.Parameter("Status", "use %s or %s.", ram.KeyActive, ram.KeyInactive)
	}
	c.aboutKey(in.UserName, protocol.Clip(in.UserAccessKeyID))
	return c.alterKeys(ctx, in.UserName, func(tx *store.Tx, u users.User) (users.User, error) {
		disabled := in.Status == ram.KeyInactive
		u, err := u.SetKey(in.UserAccessKeyID, disabled)
		if err != nil {
			return u, err
		}
		key, err := c.accessKey(tx, in.UserAccessKeyID)
		if err != nil {
			return u, err
		}
		key.Disabled = disabled
		return u, tx.PutAccessKey(key)
	})
}

func deleteAccessKey(ctx context.Context, c *Call, in *ram.AccessKeyRequest) (*ram.EmptyResponse, error) {
	if in.UserAccessKeyID == "" {
		return nil, fault.Required("UserAccessKeyId")
	}
	c.aboutKey(in.UserName, protocol.Clip(in.UserAccessKeyID))
	out, err := c.alterKeys(ctx, in.UserName, func(tx *store.Tx, u users.User) (users.User, error) {
		u, err := u.RemoveKey(in.UserAccessKeyID)
		if err == nil {
			tx.DeleteAccessKey(in.UserAccessKeyID)
		}
		return u, err
	})
	if err == nil && in.UserName == "" && c.RootKeyDeleted != nil {
		c.RootKeyDeleted(in.UserAccessKeyID)
	}
	return out, err
}

func getAccessKeyLastUsed(c *Call, in *ram.AccessKeyRequest) (*ram.GetAccessKeyLastUsedResponse, error) {
	if in.UserAccessKeyID == "" {
		return nil, fault.Required("UserAccessKeyId")
	}
	u, err := c.keyOwner(c.Snapshot, in.UserName)
	if err != nil {
		return nil, err
	}
	if _, err := u.Key(in.UserAccessKeyID); err != nil {
		return nil, err
	}
	at, err := c.Uses.Last(c.Snapshot, in.UserAccessKeyID)
	return &ram.GetAccessKeyLastUsedResponse{AccessKeyLastUsed: ram.AccessKeyLastUsed{LastUsedDate: at}}, err
}
