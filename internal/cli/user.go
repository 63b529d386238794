package cli

import (
	"errors"
	"fmt"

	"github.com/keyturn/keyturn/internal/command"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/ram"
)

type userCommand struct {
	globals
	List   userList   `cmd:"" help:"List users."`
	Show   userShow   `cmd:"" help:"Show a user with keys, policies and groups."`
	Create userCreate `cmd:"" help:"Create a user, who has no rights at first."`
	Delete userDelete `cmd:"" help:"Delete a user."`
	Key    userKey    `cmd:"" help:"Manage a user's access keys: at most two, so that one can replace the other."`
	Attach userAttach `cmd:"" help:"Attach a policy to a user."`
	Detach userDetach `cmd:"" help:"Detach a policy from a user."`
}

type userKey struct {
	Create  keyCreate  `cmd:"" help:"Create an access key, and print it once or save it as a profile."`
	List    keyList    `cmd:"" help:"List a user's access keys, and when they were last used."`
	Disable keyDisable `cmd:"" help:"Disable an access key, from the next call on."`
	Enable  keyEnable  `cmd:"" help:"Enable an access key again."`
	Delete  keyDelete  `cmd:"" help:"Delete an access key."`
}

type userList struct{}

func (c *userList) Run(e *env) error {
	client, err := e.users()
	if err != nil {
		return err
	}
	all := &ram.ListUsersResponse{Users: []ram.User{}}
	err = everyPage(func(marker string) (string, bool, error) {
		page, err := client.ListUsers(e.ctx, &ram.ListUsersRequest{MaxItems: pageSize, Marker: marker})
		if err != nil {
			return "", false, err
		}
		all.Users, all.RequestID = append(all.Users, page.Users...), page.RequestID
		return page.Marker, page.IsTruncated, nil
	})
	if err != nil {
		return err
	}
	if e.json() {
		return printResponse(e.stdout, all)
	}
	t := newTable("NAME", "DISPLAY NAME", "CREATED", "COMMENTS")
	for _, u := range all.Users {
		t.row(u.UserName, u.DisplayName, when(u.CreateDate), u.Comments)
	}
	return t.write(e.stdout)
}

type userShow struct {
	Name string `arg:"" help:"Name of the user."`
}

func (c *userShow) Run(e *env) error {
	client, err := e.users()
	if err != nil {
		return err
	}
	u, err := client.GetUser(e.ctx, &ram.GetUserRequest{UserName: c.Name})
	if err != nil {
		return err
	}
	if e.json() {
		return printResponse(e.stdout, u)
	}
	keys, err := client.ListAccessKeys(e.ctx, &ram.ListAccessKeysRequest{UserName: c.Name})
	if err != nil {
		return err
	}
	policies, err := client.ListPoliciesForUser(e.ctx, &ram.ListPoliciesForUserRequest{UserName: c.Name})
	if err != nil {
		return err
	}
	groups, err := client.ListGroupsForUser(e.ctx, &ram.ListGroupsForUserRequest{UserName: c.Name})
	if err != nil {
		return err
	}
	t := newTable()
	t.facts(userFacts(u.User)...)
	for _, k := range keys.AccessKeys {
		t.row("access key", k.AccessKeyID, k.Status)
	}
	for _, p := range policies.Policies {
		t.row("policy", p.PolicyName, p.PolicyType)
	}
	for _, g := range groups.Groups {
		t.row("group", g.GroupName)
	}
	return t.write(e.stdout)
}

func userFacts(u ram.User) [][2]string {
	return [][2]string{
		{"name", u.UserName},
		{"id", u.UserID},
		{"display name", u.DisplayName},
		{"email", u.Email},
		{"phone", u.MobilePhone},
		{"comments", u.Comments},
		{"created", when(u.CreateDate)},
		{"updated", when(u.UpdateDate)},
	}
}

type userCreate struct {
	Name        string `arg:"" help:"Name of the user: letters, digits and . _ -"`
	DisplayName string `help:"Display name (the name)." placeholder:"NAME"`
	Email       string `help:"Email address." placeholder:"ADDRESS"`
	Comments    string `help:"Purpose of the user." placeholder:"TEXT"`
}

func (c *userCreate) Run(e *env) error {
	return e.callUsers(func(client *ram.Client) (any, error) {
		return client.CreateUser(e.ctx, &ram.CreateUserRequest{
			UserName:    c.Name,
			DisplayName: c.DisplayName,
			Email:       c.Email,
			Comments:    c.Comments,
		})
	}, "Created user %[1]s, who may do nothing yet; keyturn user attach %[1]s POLICY gives them a policy.", c.Name)
}

type userDelete struct {
	Name  string `arg:"" help:"Name of the user."`
	Force bool   `help:"Delete their access keys, detach their policies and leave their groups first."`
	Yes   bool   `help:"Do not ask." short:"y"`
}

func (c *userDelete) Run(e *env) error {
	if !c.Yes {
		if err := e.confirm(fmt.Sprintf("Delete user %s?", c.Name)); err != nil {
			return err
		}
	}
	client, err := e.users()
	if err != nil {
		return err
	}
	if c.Force {
		if err := c.strip(e, client); err != nil {
			return err
		}
	}
	out, err := client.DeleteUser(e.ctx, &ram.DeleteUserRequest{UserName: c.Name})
	if err != nil {
		return err
	}
	return e.done(out, "User %s is deleted.", c.Name)
}

// strip removes everything from a user, the keys first, so that no call can be made in their name
// meanwhile.
func (c *userDelete) strip(e *env, client *ram.Client) error {
	keys, err := client.ListAccessKeys(e.ctx, &ram.ListAccessKeysRequest{UserName: c.Name})
	if err != nil {
		return err
	}
	for _, k := range keys.AccessKeys {
		if _, err := client.DeleteAccessKey(e.ctx,
			&ram.AccessKeyRequest{UserName: c.Name, UserAccessKeyID: k.AccessKeyID}); err != nil {
			return err
		}
	}
	policies, err := client.ListPoliciesForUser(e.ctx, &ram.ListPoliciesForUserRequest{UserName: c.Name})
	if err != nil {
		return err
	}
	for _, p := range policies.Policies {
		if _, err := client.DetachPolicyFromUser(e.ctx, &ram.UserPolicyRequest{
			UserName:   c.Name,
			PolicyName: p.PolicyName,
			PolicyType: p.PolicyType,
		}); err != nil {
			return err
		}
	}
	groups, err := client.ListGroupsForUser(e.ctx, &ram.ListGroupsForUserRequest{UserName: c.Name})
	if err != nil {
		return err
	}
	for _, g := range groups.Groups {
		if _, err := client.RemoveUserFromGroup(e.ctx,
			&ram.MembershipRequest{UserName: c.Name, GroupName: g.GroupName}); err != nil {
			return err
		}
	}
	return nil
}

type keyCreate struct {
	User        string `arg:"" help:"Name of the user."`
	ProfileName string `help:"Save the key as a new profile of this name instead of printing it." placeholder:"NAME"`
}

// Run makes the key. A profile that is there already is refused before, since a key that cannot be
// saved is lost.
func (c *keyCreate) Run(e *env) error {
	p, err := command.Resolve(e.Profile)
	if err != nil {
		return err
	}
	if err := c.checkProfile(); err != nil {
		return err
	}
	client, err := p.Client(userAgent)
	if err != nil {
		return err
	}
	out, err := ram.New(client).CreateAccessKey(e.ctx, &ram.CreateAccessKeyRequest{UserName: c.User})
	if err != nil {
		return err
	}
	key := out.AccessKey
	if c.ProfileName != "" {
		p.AccessKeyID, p.AccessKeySecret, p.SecurityToken = key.AccessKeyID, key.AccessKeySecret.Reveal(), ""
		return e.addProfile(c.ProfileName, p)
	}
	if e.json() {
		return printResponse(e.stdout, out)
	}
	fmt.Fprintln(e.stderr, "The secret is shown this once.")
	t := newTable()
	t.row("access key id", key.AccessKeyID)
	t.row("access key secret", key.AccessKeySecret.Reveal())
	return t.write(e.stdout)
}

// checkProfile verifies that the profile to save is a new one.
func (c *keyCreate) checkProfile() error {
	if c.ProfileName == "" {
		return nil
	}
	all, _, err := command.ReadProfiles()
	if err != nil {
		return err
	}
	if _, ok := all.Profiles[c.ProfileName]; ok {
		return errors.New(fault.Message("there is a profile %q already; keyturn profile remove %s removes it",
			c.ProfileName, c.ProfileName))
	}
	return nil
}

// addProfile saves a profile without making it the current one.
func (e *env) addProfile(name string, p command.Profile) error {
	all, path, err := command.ReadProfiles()
	if err != nil {
		return err
	}
	all.Profiles[name] = p
	if err := all.Write(path); err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "Profile %s reaches %s with access key %s; use it with --profile %s.\n", name,
		p.Endpoint, p.AccessKeyID, name)
	return err
}

type keyList struct {
	User string `arg:"" help:"Name of the user."`
}

func (c *keyList) Run(e *env) error {
	client, err := e.users()
	if err != nil {
		return err
	}
	keys, err := client.ListAccessKeys(e.ctx, &ram.ListAccessKeysRequest{UserName: c.User})
	switch {
	case err != nil:
		return err
	case e.json():
		return printResponse(e.stdout, keys)
	}
	t := newTable("ACCESS KEY", "STATUS", "CREATED", "LAST USED")
	for _, k := range keys.AccessKeys {
		used, err := client.GetAccessKeyLastUsed(e.ctx,
			&ram.AccessKeyRequest{UserName: c.User, UserAccessKeyID: k.AccessKeyID})
		if err != nil {
			return err
		}
		t.row(k.AccessKeyID, k.Status, when(k.CreateDate), when(used.AccessKeyLastUsed.LastUsedDate))
	}
	return t.write(e.stdout)
}

// keyName are the arguments of a command on one access key.
type keyName struct {
	User string `arg:"" help:"Name of the user."`
	ID   string `arg:"" name:"access-key-id" help:"ID of the access key."`
}

func (c *keyName) set(e *env, status, word string) error {
	return e.callUsers(func(client *ram.Client) (any, error) {
		return client.UpdateAccessKey(e.ctx, &ram.UpdateAccessKeyRequest{
			UserName:        c.User,
			UserAccessKeyID: c.ID,
			Status:          status,
		})
	}, "Access key %s of %s is %s.", c.ID, c.User, word)
}

type keyDisable struct {
	keyName
}

func (c *keyDisable) Run(e *env) error { return c.set(e, ram.KeyInactive, "switched off") }

type keyEnable struct {
	keyName
}

func (c *keyEnable) Run(e *env) error { return c.set(e, ram.KeyActive, "switched on") }

type keyDelete struct {
	keyName
	Yes bool `help:"Do not ask." short:"y"`
}

func (c *keyDelete) Run(e *env) error {
	if !c.Yes {
		if err := e.confirm(fmt.Sprintf("Delete access key %s of %s?", c.ID, c.User)); err != nil {
			return err
		}
	}
	return e.callUsers(func(client *ram.Client) (any, error) {
		return client.DeleteAccessKey(e.ctx, &ram.AccessKeyRequest{UserName: c.User, UserAccessKeyID: c.ID})
	}, "Access key %s of %s is deleted.", c.ID, c.User)
}

// userPolicy are the arguments of a command on a policy of a user.
type userPolicy struct {
	User   string `arg:"" help:"Name of the user."`
	Policy string `arg:"" help:"Name of the policy."`
}

type userAttach struct {
	userPolicy
}

func (c *userAttach) Run(e *env) error {
	return e.policyOf(c.Policy, "attached to user "+c.User,
		func(client *ram.Client, kind string) (*ram.EmptyResponse, error) {
			return client.AttachPolicyToUser(e.ctx, &ram.UserPolicyRequest{
				UserName:   c.User,
				PolicyName: c.Policy,
				PolicyType: kind,
			})
		})
}

type userDetach struct {
	userPolicy
}

func (c *userDetach) Run(e *env) error {
	return e.policyOf(c.Policy, "taken from user "+c.User,
		func(client *ram.Client, kind string) (*ram.EmptyResponse, error) {
			return client.DetachPolicyFromUser(e.ctx, &ram.UserPolicyRequest{
				UserName:   c.User,
				PolicyName: c.Policy,
				PolicyType: kind,
			})
		})
}
