package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/command"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/settings"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
)

type adminCommand struct {
	globals
	offlineFlags
	List    adminList    `cmd:"" help:"List the access keys of the root account."`
	Rotate  adminRotate  `cmd:"" help:"Replace the access key of the root account."`
	Disable adminDisable `cmd:"" help:"Disable access keys of the root account."`
	Enable  adminEnable  `cmd:"" help:"Enable an access key of the root account."`
	Delete  adminDelete  `cmd:"" help:"Delete an access key of the root account."`
}

// offlineFlags reach the store of a server that is stopped, without an access key: the root key
// proves the right to do so.
type offlineFlags struct {
	Offline bool `help:"Open the store of a stopped server with its root key, instead of calling a server."`
	settingFlags
}

func newOfflineFlags(table settings.Table) offlineFlags {
	return offlineFlags{settingFlags: newSettingFlags("With --offline: ", []*settings.Setting{
		table.Find("config"), table.Find("data-dir"), table.Find("root-key-file"), table.Find("root-key-env"),
	})}
}

// rootKeys are the operations on access keys that the root account has for itself, online and
// offline.
type rootKeys interface {
	ListAccessKeys(context.Context, *ram.ListAccessKeysRequest) (*ram.ListAccessKeysResponse, error)
	CreateAccessKey(context.Context, *ram.CreateAccessKeyRequest) (*ram.CreateAccessKeyResponse, error)
	UpdateAccessKey(context.Context, *ram.UpdateAccessKeyRequest) (*ram.EmptyResponse, error)
	DeleteAccessKey(context.Context, *ram.AccessKeyRequest) (*ram.EmptyResponse, error)
}

// with calls do with the store of a stopped server, or with the server of the profile, which must
// be the root account's.
func (g *adminCommand) with(e *env, do func(rootKeys, *server.Offline) error) error {
	if g.Offline {
		return g.stopped(e, func(o *server.Offline) error { return do(o, o) })
	}
	if len(g.given()) > 0 {
		return coded{exitUsage, "--" + strings.Join(g.names, ", --") + " are for --offline"}
	}
	client, err := g.rootClient(e, e.Profile)
	if err != nil {
		return err
	}
	return do(client, nil)
}

// rootClient verifies that the profile is the root account's: for a user, the same calls change the
// user's own keys.
func (g *adminCommand) rootClient(e *env, name string) (*ram.Client, error) {
	p, err := command.Resolve(name)
	if err != nil {
		return nil, err
	}
	client, err := p.Client(userAgent)
	if err != nil {
		return nil, err
	}
	who, err := client.GetCallerIdentity(e.ctx, &kms.GetCallerIdentityRequest{})
	if err != nil {
		return nil, err
	}
	if who.IdentityType != "Account" {
		return nil, fmt.Errorf(
			"the profile is of %s; only the root account manages its access keys, or --offline on the server", who.ARN)
	}
	return ram.New(client), nil
}

func (g *adminCommand) stopped(e *env, do func(*server.Offline) error) error {
	set, err := loadSettings(e, g.given())
	if err != nil {
		return err
	}
	return server.WithOffline(e.ctx, set.Config, do)
}

type adminList struct{}

func (c *adminList) Run(e *env, group *adminCommand) error {
	return group.with(e, func(keys rootKeys, _ *server.Offline) error {
		list, err := keys.ListAccessKeys(e.ctx, &ram.ListAccessKeysRequest{})
		switch {
		case err != nil:
			return err
		case e.json():
			return printResponse(e.stdout, list)
		}
		t := newTable("ACCESS KEY", "STATUS", "CREATED")
		for _, k := range list.AccessKeys {
			t.row(k.AccessKeyID, k.Status, when(k.CreateDate))
		}
		return t.write(e.stdout)
	})
}

type adminRotate struct {
	DeleteOld bool `help:"Delete the other access keys of the root account at once: calls that still use one are refused."`
}

// Run makes the second key, keeps it where the first one was, and uses it once. The first one is
// deleted only then.
func (c *adminRotate) Run(e *env, group *adminCommand) error {
	name := ""
	if !group.Offline {
		if os.Getenv("KEYTURN_ENDPOINT") != "" && e.Profile == "" {
			return coded{exitUsage, "the new access key is saved in the profile that is in use: name one with --profile"}
		}
		all, _, err := command.ReadProfiles()
		if err != nil {
			return err
		}
		if name, _, err = all.Find(e.Profile); err != nil {
			return err
		}
	}
	return group.with(e, func(keys rootKeys, o *server.Offline) error {
		old, err := c.room(e, keys, o != nil)
		if err != nil {
			return err
		}
		made, err := keys.CreateAccessKey(e.ctx, &ram.CreateAccessKeyRequest{})
		if err != nil {
			return err
		}
		if keys, err = c.keep(e, group, o, keys, name, made.AccessKey); err != nil {
			return err
		}
		return c.finish(e, keys, old, made.AccessKey.AccessKeyID)
	})
}

// room returns the keys that there are, and makes room for one more.
func (c *adminRotate) room(e *env, keys rootKeys, offline bool) ([]ram.ListedAccessKey, error) {
	list, err := keys.ListAccessKeys(e.ctx, &ram.ListAccessKeysRequest{})
	if err != nil {
		return nil, err
	}
	if len(list.AccessKeys) < 2 {
		return list.AccessKeys, nil
	}
	if !offline || !c.DeleteOld {
		return nil, fmt.Errorf(
			"the root account has two access keys, %s and %s: delete the one that is not in use (keyturn admin delete ID)",
			list.AccessKeys[0].AccessKeyID, list.AccessKeys[1].AccessKeyID)
	}
	first := list.AccessKeys[0].AccessKeyID
	if _, err := keys.DeleteAccessKey(e.ctx, &ram.AccessKeyRequest{UserAccessKeyID: first}); err != nil {
		return nil, err
	}
	fmt.Fprintf(e.stdout, "Access key %s is deleted.\n", first)
	return list.AccessKeys[1:], nil
}

// keep saves the new key and returns a client that uses it. It deletes a key that cannot be saved:
// its secret would be lost.
func (c *adminRotate) keep(
	e *env, group *adminCommand, o *server.Offline, keys rootKeys, name string, key ram.AccessKey,
) (rootKeys, error) {
	place, err := c.save(o, name, key)
	if err != nil {
		_, undo := keys.DeleteAccessKey(context.WithoutCancel(e.ctx), &ram.AccessKeyRequest{UserAccessKeyID: key.AccessKeyID})
		return nil, errors.Join(fmt.Errorf("the new access key %s could not be saved: %w", key.AccessKeyID, err), undo)
	}
	fmt.Fprintf(e.stdout, "The root account has the new access key %s; it is in %s.\n", key.AccessKeyID, place)
	if o != nil {
		return keys, nil
	}
	client, err := group.rootClient(e, name)
	if err != nil {
		return nil, fmt.Errorf("the new access key %s does not work, and the others were left as they are: %w",
			key.AccessKeyID, err)
	}
	return client, nil
}

func (c *adminRotate) save(o *server.Offline, name string, key ram.AccessKey) (place string, err error) {
	if o != nil {
		return o.WriteAdmin(key.AccessKeyID, key.AccessKeySecret)
	}
	all, path, err := command.ReadProfiles()
	if err != nil {
		return "", err
	}
	p, ok := all.Profiles[name]
	if !ok {
		return "", fmt.Errorf("the profile %q has just been removed", name)
	}
	p.AccessKeyID, p.AccessKeySecret, p.SecurityToken = key.AccessKeyID, key.AccessKeySecret.Reveal(), ""
	all.Profiles[name] = p
	return "profile " + name, all.Write(path)
}

// finish deletes the old keys, or prints how to delete them.
func (c *adminRotate) finish(e *env, keys rootKeys, old []ram.ListedAccessKey, made string) error {
	for _, k := range old {
		if k.AccessKeyID == made {
			continue
		}
		if !c.DeleteOld {
			fmt.Fprintf(e.stdout, "Access key %s still works. When it is no longer used: keyturn admin delete %s\n",
				k.AccessKeyID, k.AccessKeyID)
			continue
		}
		if _, err := keys.DeleteAccessKey(e.ctx, &ram.AccessKeyRequest{UserAccessKeyID: k.AccessKeyID}); err != nil {
			return err
		}
		fmt.Fprintf(e.stdout, "Access key %s is deleted.\n", k.AccessKeyID)
	}
	return nil
}

type adminDisable struct {
	ID  string `arg:"" optional:"" name:"access-key-id" help:"ID of the access key (all of the root account)."`
	Yes bool   `help:"Do not ask." short:"y"`
}

// Run switches the key that it works with off last.
func (c *adminDisable) Run(e *env, group *adminCommand) error {
	if c.ID == "" && !c.Yes {
		const question = "Switch every access key of the root account off? Only keyturn admin enable --offline, on the " +
			"stopped server, switches one on again."
		if err := e.confirm(question); err != nil {
			return err
		}
	}
	own := ""
	if !group.Offline {
		p, err := command.Resolve(e.Profile)
		if err != nil {
			return err
		}
		own = p.AccessKeyID
	}
	return group.with(e, func(keys rootKeys, _ *server.Offline) error {
		list, err := keys.ListAccessKeys(e.ctx, &ram.ListAccessKeysRequest{})
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(list.AccessKeys, func(k ram.ListedAccessKey) bool { return k.AccessKeyID == own }); i >= 0 {
			list.AccessKeys = append(slices.Delete(slices.Clone(list.AccessKeys), i, i+1), list.AccessKeys[i])
		}
		return setRootKeys(e, keys, list.AccessKeys, c.ID, ram.KeyInactive, "off")
	})
}

type adminEnable struct {
	ID string `arg:"" optional:"" name:"access-key-id" help:"ID of the access key (all of the root account)."`
}

func (c *adminEnable) Run(e *env, group *adminCommand) error {
	return group.with(e, func(keys rootKeys, _ *server.Offline) error {
		list, err := keys.ListAccessKeys(e.ctx, &ram.ListAccessKeysRequest{})
		if err != nil {
			return err
		}
		return setRootKeys(e, keys, list.AccessKeys, c.ID, ram.KeyActive, "on")
	})
}

// setRootKeys sets the status of the key with that ID, or of all.
func setRootKeys(e *env, keys rootKeys, list []ram.ListedAccessKey, id, status, word string) error {
	if id != "" {
		list = []ram.ListedAccessKey{{AccessKeyID: id}}
	}
	if len(list) == 0 {
		return errors.New("the root account has no access key; keyturn admin rotate --offline makes one")
	}
	for _, k := range list {
		if _, err := keys.UpdateAccessKey(e.ctx,
			&ram.UpdateAccessKeyRequest{UserAccessKeyID: k.AccessKeyID, Status: status}); err != nil {
			return err
		}
		fmt.Fprintf(e.stdout, "Access key %s of the root account is switched %s.\n", k.AccessKeyID, word)
	}
	return nil
}

type adminDelete struct {
	ID  string `arg:"" name:"access-key-id" help:"ID of the access key."`
	Yes bool   `help:"Do not ask." short:"y"`
}

func (c *adminDelete) Run(e *env, group *adminCommand) error {
	if !c.Yes {
		if err := e.confirm(fmt.Sprintf("Delete access key %s of the root account?", c.ID)); err != nil {
			return err
		}
	}
	return group.with(e, func(keys rootKeys, _ *server.Offline) error {
		if _, err := keys.DeleteAccessKey(e.ctx, &ram.AccessKeyRequest{UserAccessKeyID: c.ID}); err != nil {
			return err
		}
		_, err := fmt.Fprintf(e.stdout, "Access key %s of the root account is deleted.\n", c.ID)
		return err
	})
}
