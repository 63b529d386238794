package cli

import (
	"fmt"

	"github.com/keyturn/keyturn/ram"
)

type groupCommand struct {
	globals
	List   groupList   `cmd:"" help:"List groups."`
	Show   groupShow   `cmd:"" help:"Show a group with its users and policies."`
	Create groupCreate `cmd:"" help:"Create a group."`
	Delete groupDelete `cmd:"" help:"Delete a group that has no user and no policy."`
	Add    groupAdd    `cmd:"" help:"Add a user to a group."`
	Remove groupRemove `cmd:"" help:"Remove a user from a group."`
	Attach groupAttach `cmd:"" help:"Attach a policy to a group."`
	Detach groupDetach `cmd:"" help:"Detach a policy from a group."`
}

type groupList struct{}

func (c *groupList) Run(e *env) error {
	client, err := e.users()
	if err != nil {
		return err
	}
	all := &ram.ListGroupsResponse{Groups: []ram.Group{}}
	err = everyPage(func(marker string) (string, bool, error) {
		page, err := client.ListGroups(e.ctx, &ram.ListGroupsRequest{MaxItems: pageSize, Marker: marker})
		if err != nil {
			return "", false, err
		}
		all.Groups, all.RequestID = append(all.Groups, page.Groups...), page.RequestID
		return page.Marker, page.IsTruncated, nil
	})
	if err != nil {
		return err
	}
	if e.json() {
		return printResponse(e.stdout, all)
	}
	t := newTable("NAME", "CREATED", "COMMENTS")
	for _, g := range all.Groups {
		t.row(g.GroupName, when(g.CreateDate), g.Comments)
	}
	return t.write(e.stdout)
}

type groupShow struct {
	Name string `arg:"" help:"Name of the group."`
}

func (c *groupShow) Run(e *env) error {
	client, err := e.users()
	if err != nil {
		return err
	}
	g, err := client.GetGroup(e.ctx, &ram.GetGroupRequest{GroupName: c.Name})
	switch {
	case err != nil:
		return err
	case e.json():
		return printResponse(e.stdout, g)
	}
	policies, err := client.ListPoliciesForGroup(e.ctx, &ram.ListPoliciesForGroupRequest{GroupName: c.Name})
	if err != nil {
		return err
	}
	t := newTable()
	t.facts([2]string{"name", g.Group.GroupName}, [2]string{"created", when(g.Group.CreateDate)},
		[2]string{"comments", g.Group.Comments})
	for _, p := range policies.Policies {
		t.row("policy", p.PolicyName, p.PolicyType)
	}
	err = everyPage(func(marker string) (string, bool, error) {
		page, err := client.ListUsersForGroup(e.ctx, &ram.ListUsersForGroupRequest{
			GroupName: c.Name,
			MaxItems:  pageSize,
			Marker:    marker,
		})
		if err != nil {
			return "", false, err
		}
		for _, u := range page.Users {
			t.row("user", u.UserName, when(u.JoinDate))
		}
		return page.Marker, page.IsTruncated, nil
	})
	if err != nil {
		return err
	}
	return t.write(e.stdout)
}

type groupCreate struct {
	Name     string `arg:"" help:"Name of the group: letters, digits and -"`
	Comments string `help:"Purpose of the group." placeholder:"TEXT"`
}

func (c *groupCreate) Run(e *env) error {
	return e.callUsers(func(client *ram.Client) (any, error) {
		return client.CreateGroup(e.ctx, &ram.CreateGroupRequest{GroupName: c.Name, Comments: c.Comments})
	}, "Created group %s.", c.Name)
}

type groupDelete struct {
	Name string `arg:"" help:"Name of the group."`
	Yes  bool   `help:"Do not ask." short:"y"`
}

func (c *groupDelete) Run(e *env) error {
	if !c.Yes {
		if err := e.confirm(fmt.Sprintf("Delete group %s?", c.Name)); err != nil {
			return err
		}
	}
	return e.callUsers(func(client *ram.Client) (any, error) {
		return client.DeleteGroup(e.ctx, &ram.DeleteGroupRequest{GroupName: c.Name})
	}, "Group %s is deleted.", c.Name)
}

// membership are the arguments of a command on a user in a group.
type membership struct {
	Group string `arg:"" help:"Name of the group."`
	User  string `arg:"" help:"Name of the user."`
}

type groupAdd struct {
	membership
}

func (c *groupAdd) Run(e *env) error {
	return e.callUsers(func(client *ram.Client) (any, error) {
		return client.AddUserToGroup(e.ctx, &ram.MembershipRequest{UserName: c.User, GroupName: c.Group})
	}, "User %s is in group %s.", c.User, c.Group)
}

type groupRemove struct {
	membership
}

func (c *groupRemove) Run(e *env) error {
	return e.callUsers(func(client *ram.Client) (any, error) {
		return client.RemoveUserFromGroup(e.ctx, &ram.MembershipRequest{UserName: c.User, GroupName: c.Group})
	}, "User %s is no longer in group %s.", c.User, c.Group)
}

// groupPolicy are the arguments of a command on a policy of a group.
type groupPolicy struct {
	Group  string `arg:"" help:"Name of the group."`
	Policy string `arg:"" help:"Name of the policy."`
}

type groupAttach struct {
	groupPolicy
}

func (c *groupAttach) Run(e *env) error {
	return e.policyOf(c.Policy, "attached to group "+c.Group,
		func(client *ram.Client, kind string) (*ram.EmptyResponse, error) {
			return client.AttachPolicyToGroup(e.ctx, &ram.GroupPolicyRequest{
				GroupName:  c.Group,
				PolicyName: c.Policy,
				PolicyType: kind,
			})
		})
}

type groupDetach struct {
	groupPolicy
}

func (c *groupDetach) Run(e *env) error {
	return e.policyOf(c.Policy, "taken from group "+c.Group,
		func(client *ram.Client, kind string) (*ram.EmptyResponse, error) {
			return client.DetachPolicyFromGroup(e.ctx, &ram.GroupPolicyRequest{
				GroupName:  c.Group,
				PolicyName: c.Policy,
				PolicyType: kind,
			})
		})
}
