package api

import (
	"context"

	"github.com/keyturn/keyturn/internal/fault"
	rules "github.com/keyturn/keyturn/internal/ram"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/ram"
)

func shownGroup(g rules.Group) ram.Group {
	return ram.Group{GroupID: g.ID, GroupName: g.Name, Comments: g.Comments, CreateDate: g.CreatedAt, UpdateDate: g.UpdatedAt}
}

func createGroup(ctx context.Context, c *Call, in *ram.CreateGroupRequest) (*ram.GroupResponse, error) {
	id, err := rules.NewID(c.Random)
	if err != nil {
		return nil, err
	}
	c.resource = c.ramResource("group/" + clipped(in.GroupName))
	g, err := rules.NewGroup(c.Account(), id, in.GroupName, in.Comments, c.At)
	if err != nil {
		return nil, err
	}
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*ram.GroupResponse, error) {
		if err := c.freeGroup(tx, g.Name); err != nil {
			return nil, err
		}
		count, err := tx.CountGroups(c.Account())
		if err := limited(count, err, rules.MaxGroups, rules.CodeGroupLimit); err != nil {
			return nil, err
		}
		return &ram.GroupResponse{Group: shownGroup(g)}, tx.PutGroup(g)
	})
}

func (c *Call) freeGroup(tx *store.Tx, name string) error {
	_, taken, err := tx.Group(c.Account(), name)
	if err == nil && taken {
		err = fault.Coded(fault.Exists, rules.CodeGroupExists, "")
	}
	return err
}

func getGroup(_ context.Context, c *Call, in *ram.GetGroupRequest) (*ram.GroupResponse, error) {
	g, err := c.group(c.Snapshot, in.GroupName)
	return &ram.GroupResponse{Group: shownGroup(g)}, err
}

func listGroups(_ context.Context, c *Call, in *ram.ListGroupsRequest) (*ram.ListGroupsResponse, error) {
	after, err := parseMarker(in.Marker)
	if err != nil {
		return nil, err
	}
	p := page[ram.Group]{rows: []ram.Group{}, most: in.MaxItems}
	err = c.Snapshot.Groups(c.Account(), after, func(g rules.Group) bool { return p.add(g.Name, shownGroup(g)) })
	return &ram.ListGroupsResponse{IsTruncated: p.more, Marker: p.marker(), Groups: p.rows}, err
}

// updateGroup changes a group. With a new name its record moves, and those of its users follow in the same transaction.
func updateGroup(ctx context.Context, c *Call, in *ram.UpdateGroupRequest) (*ram.GroupResponse, error) {
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*ram.GroupResponse, error) {
		old, err := c.group(tx, in.GroupName)
		if err != nil {
			return nil, err
		}
		g, err := old.Update("New", in.NewGroupName, in.NewComments, c.At)
		if err != nil {
			return nil, err
		}
		if g.Name != old.Name {
			if err := c.renameGroup(tx, old.Name, g.Name); err != nil {
				return nil, err
			}
		}
		return &ram.GroupResponse{Group: shownGroup(g)}, tx.PutGroup(g)
	})
}

func (c *Call) renameGroup(tx *store.Tx, from, to string) error {
	if err := c.freeGroup(tx, to); err != nil {
		return err
	}
	var members []string
	err := tx.Users(c.Account(), "", func(u rules.User) bool {
		if _, ok := u.JoinedAt(from); ok {
			members = append(members, u.Name)
		}
		return true
	})
	if err != nil {
		return err
	}
	tx.DeleteGroup(c.Account(), from)
	for _, name := range members { // read again, so that the change is guarded by it
		u, ok, err := tx.User(c.Account(), name)
		switch {
		case err != nil:
			return err
		case !ok:
			return fault.New(fault.Unavailable, "A user of the group was renamed at the same moment; try again.")
		}
		if err := tx.PutUser(u.GroupRenamed(from, to)); err != nil {
			return err
		}
	}
	return nil
}

func deleteGroup(ctx context.Context, c *Call, in *ram.DeleteGroupRequest) (*ram.EmptyResponse, error) {
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*ram.EmptyResponse, error) {
		g, err := c.group(tx, in.GroupName)
		if err != nil {
			return nil, err
		}
		if err := g.Deletable(); err != nil {
			return nil, err
		}
		tx.DeleteGroup(g.Account, g.Name)
		return &ram.EmptyResponse{}, nil
	})
}

func addUserToGroup(ctx context.Context, c *Call, in *ram.MembershipRequest) (*ram.EmptyResponse, error) {
	return c.member(ctx, in, 1, func(u rules.User) (rules.User, error) { return u.Join(in.GroupName, c.At) })
}

func removeUserFromGroup(ctx context.Context, c *Call, in *ram.MembershipRequest) (*ram.EmptyResponse, error) {
	return c.member(ctx, in, -1, func(u rules.User) (rules.User, error) { return u.Leave(in.GroupName) })
}

// member changes a user's membership and the group's count together, so that a group is not deleted or renamed meanwhile.
func (c *Call) member(ctx context.Context, in *ram.MembershipRequest, more int, change func(rules.User) (rules.User, error)) (*ram.EmptyResponse, error) {
	return c.alterUser(ctx, in.UserName, func(tx *store.Tx, u rules.User) (rules.User, error) {
		g, err := c.group(tx, in.GroupName)
		if err != nil {
			return u, err
		}
		if u, err = change(u); err != nil {
			return u, err
		}
		g.Members += more
		return u, tx.PutGroup(g)
	})
}

func listUsersForGroup(_ context.Context, c *Call, in *ram.ListUsersForGroupRequest) (*ram.ListUsersResponse, error) {
	if _, err := c.group(c.Snapshot, in.GroupName); err != nil {
		return nil, err
	}
	return c.userPage(in.Marker, in.MaxItems, func(u rules.User) (ram.User, bool) {
		at, ok := u.JoinedAt(in.GroupName)
		return ram.User{UserID: u.ID, UserName: u.Name, DisplayName: u.DisplayName, JoinDate: at}, ok
	})
}

func listGroupsForUser(_ context.Context, c *Call, in *ram.ListGroupsForUserRequest) (*ram.ListGroupsForUserResponse, error) {
	u, err := c.user(c.Snapshot, in.UserName)
	if err != nil {
		return nil, err
	}
	out := &ram.ListGroupsForUserResponse{Groups: []ram.Group{}}
	for _, m := range u.Groups {
		g, err := c.group(c.Snapshot, m.Group)
		if err != nil {
			return nil, err
		}
		out.Groups = append(out.Groups, ram.Group{GroupID: g.ID, GroupName: g.Name, Comments: g.Comments, JoinDate: m.At})
	}
	return out, nil
}
