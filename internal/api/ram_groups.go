package api

import (
	"context"
	"errors"
	"fmt"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/users"
	"github.com/keyturn/keyturn/ram"
)

func shownGroup(g users.Group) ram.Group {
	return ram.Group{
		GroupID:    g.ID,
		GroupName:  g.Name,
		Comments:   g.Comments,
		CreateDate: g.CreatedAt,
		UpdateDate: g.UpdatedAt,
	}
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
		_, taken, err := tx.GroupRights(c.Account(), id)
		switch {
		case err != nil:
			return nil, err
		case taken:
			return nil, errors.New("the ID of a group was drawn twice")
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
	if err == nil && taken {
		err = fault.Coded(fault.Exists, ram.CodeGroupExists, "")
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
	err = c.Snapshot.Groups(c.Account(), after, func(g users.Group) bool { return p.add(g.Name, shownGroup(g)) })
	return &ram.ListGroupsResponse{IsTruncated: p.more, Marker: p.marker(), Groups: p.rows}, err
}

// updateGroup changes a group. Its users know it by its ID, so a new name is a matter of its own
// records alone.
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
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*ram.EmptyResponse, error) {
		g, err := c.group(tx, in.GroupName)
		if err != nil {
			return nil, err
		}
		if err := g.Deletable(); err != nil {
			return nil, err
		}
		tx.DeleteGroup(g)
		return &ram.EmptyResponse{}, nil
	})
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

func listUsersForGroup(_ context.Context, c *Call, in *ram.ListUsersForGroupRequest) (*ram.ListUsersResponse, error) {
	g, err := c.group(c.Snapshot, in.GroupName)
	if err != nil {
		return nil, err
	}
	return c.userPage(in.Marker, in.MaxItems, func(u users.User) (ram.User, bool) {
		at, ok := u.JoinedAt(g.ID)
		return ram.User{UserID: u.ID, UserName: u.Name, DisplayName: u.DisplayName, JoinDate: at}, ok
	})
}

func listGroupsForUser(
	_ context.Context, c *Call, in *ram.ListGroupsForUserRequest,
) (*ram.ListGroupsForUserResponse, error) {
	u, err := c.user(c.Snapshot, in.UserName)
	if err != nil {
		return nil, err
	}
	out := &ram.ListGroupsForUserResponse{Groups: []ram.Group{}}
	for _, m := range u.Groups {
		rights, ok, err := c.Snapshot.GroupRights(c.Account(), m.GroupID)
		switch {
		case err != nil:
			return nil, err
		case !ok:
			return nil, fmt.Errorf("the group with ID %s of a user is missing from the store", m.GroupID)
		}
		g, err := c.group(c.Snapshot, rights.Name)
		if err != nil {
			return nil, err
		}
		out.Groups = append(out.Groups, ram.Group{
			GroupID:   g.ID,
			GroupName: g.Name,
			Comments:  g.Comments,
			JoinDate:  m.At,
		})
	}
	return out, nil
}
