package api

import (
	"context"
	"errors"

	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/users"
	"github.com/keyturn/keyturn/ram"
)

func shownGroup(g users.Group) ram.Group {
	out := namedGroup(g)
	out.CreateDate, out.UpdateDate = g.CreatedAt, g.UpdatedAt
	return out
}

// namedGroup returns a group as lists show it that say when something was attached to it.
func namedGroup(g users.Group) ram.Group {
	return ram.Group{GroupID: g.ID, GroupName: g.Name, Comments: g.Comments}
}

func createGroup(ctx context.Context, c *Call, in *ram.CreateGroupRequest) (*ram.GroupResponse, error) {
	id, err := users.NewID(c.Random)
	if err != nil {
		return nil, err
	}
	c.resource = c.ramResource("group/" + protocol.Clip(in.GroupName))
	g, err := users.NewGroup(c.Account(), id, in.GroupName, in.Comments, c.At)
	if err != nil {
		return nil, err
	}
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*ram.GroupResponse, error) {
		if err := c.freeGroup(tx, g.Name); err != nil {
			return nil, err
		}
		_, drawn, err := tx.GroupRights(c.Account(), id)
		if err == nil && drawn {
			err = errors.New("the ID of a group was drawn twice")
		}
		if err != nil {
			return nil, err
		}
		count, err := tx.CountGroups(c.Account())
		if err := limited(count, err, users.MaxGroups, ram.CodeGroupLimit); err != nil {
			return nil, err
		}
		return &ram.GroupResponse{Group: shownGroup(g)}, tx.PutGroup(g)
	})
}

func (c *Call) freeGroup(tx *store.Tx, name string) error {
	_, taken, err := tx.Group(c.Account(), name)
	return mustBeFree(taken, err, ram.CodeGroupExists)
}

func getGroup(c *Call, in *ram.GetGroupRequest) (*ram.GroupResponse, error) {
	g, err := c.group(c.Snapshot, in.GroupName)
	return &ram.GroupResponse{Group: shownGroup(g)}, err
}

func listGroups(c *Call, in *ram.ListGroupsRequest) (*ram.ListGroupsResponse, error) {
	p, err := newPage[ram.Group]("Marker", in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	err = c.Snapshot.Groups(c.Account(), p.after, func(g users.Group) bool { return p.add(g.Name, shownGroup(g)) })
	return &ram.ListGroupsResponse{IsTruncated: p.more, Marker: p.marker(), Groups: p.rows}, err
}

// updateGroup changes a group. Its users refer to it by its ID, so a new name changes the records
// of the group alone.
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
		out := &ram.GroupResponse{Group: shownGroup(g)}
		if g.Name == old.Name {
			return out, tx.PutGroup(g)
		}
		if err := c.freeGroup(tx, g.Name); err != nil {
			return nil, err
		}
		return out, tx.RenameGroup(old.Name, g)
	})
}

func deleteGroup(ctx context.Context, c *Call, in *ram.DeleteGroupRequest) (*ram.EmptyResponse, error) {
	return c.alterGroup(ctx, in.GroupName,
		func(_ *store.Tx, g users.Group) (users.Group, error) { return g, g.Deletable() },
		func(tx *store.Tx, g users.Group) error { tx.DeleteGroup(g); return nil })
}

func addUserToGroup(ctx context.Context, c *Call, in *ram.MembershipRequest) (*ram.EmptyResponse, error) {
	return c.member(ctx, in, 1, func(u users.User, groupID string) (users.User, error) { return u.Join(groupID, c.At) })
}

func removeUserFromGroup(ctx context.Context, c *Call, in *ram.MembershipRequest) (*ram.EmptyResponse, error) {
	return c.member(ctx, in, -1, users.User.Leave)
}

// member changes a user's membership and the group's count together, so that a group is not deleted
// or renamed meanwhile.
func (c *Call) member(
	ctx context.Context, in *ram.MembershipRequest, more int,
	change func(u users.User, groupID string) (users.User, error),
) (*ram.EmptyResponse, error) {
	return c.alterUser(ctx, in.UserName, func(tx *store.Tx, u users.User) (users.User, error) {
		g, err := c.group(tx, in.GroupName)
		if err != nil {
			return u, err
		}
		if u, err = change(u, g.ID); err != nil {
			return u, err
		}
		g.Members += more
		return u, tx.PutGroup(g)
	})
}

// groupRule changes a group. It may change more in the transaction that writes the group.
type groupRule func(*store.Tx, users.Group) (users.Group, error)

// alterGroup changes one group in one transaction. write stores the changed group, or deletes it.
func (c *Call) alterGroup(
	ctx context.Context, name string, rule groupRule, write func(*store.Tx, users.Group) error,
) (*ram.EmptyResponse, error) {
	read := func(tx *store.Tx) (users.Group, error) { return c.group(tx, name) }
	_, err := alterRecord(ctx, c, read, rule, write)
	return &ram.EmptyResponse{}, err
}

func listUsersForGroup(c *Call, in *ram.ListUsersForGroupRequest) (*ram.ListUsersResponse, error) {
	g, err := c.group(c.Snapshot, in.GroupName)
	if err != nil {
		return nil, err
	}
	return c.userPage(in.Marker, in.MaxItems, func(u users.User) (ram.User, bool) {
		at, ok := u.JoinedAt(g.ID)
		row := namedUser(u)
		row.JoinDate = at
		return row, ok
	})
}

func listGroupsForUser(c *Call, in *ram.ListGroupsForUserRequest) (*ram.ListGroupsForUserResponse, error) {
	u, err := c.user(c.Snapshot, in.UserName)
	if err != nil {
		return nil, err
	}
	out := &ram.ListGroupsForUserResponse{Groups: []ram.Group{}}
	for _, m := range u.Groups {
		rights, err := rightsOf(c.Snapshot, c.Account(), m.GroupID)
		if err != nil {
			return nil, err
		}
		g, err := c.group(c.Snapshot, rights.Name)
		if err != nil {
			return nil, err
		}
		row := namedGroup(g)
		row.JoinDate = m.At
		out.Groups = append(out.Groups, row)
	}
	return out, nil
}
