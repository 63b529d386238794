package ram

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/operation"
)

// Group is a set of users who share its policies. Which fields are set depends on the operation.
type Group struct {
	GroupID    string    `kms:"GroupId"`
	GroupName  string    `kms:"GroupName"`
	Comments   string    `kms:"Comments"`
	CreateDate time.Time `kms:"CreateDate,omitempty"`
	UpdateDate time.Time `kms:"UpdateDate,omitempty"`
	// JoinDate is set by ListGroupsForUser, AttachDate by ListEntitiesForPolicy.
	JoinDate   time.Time `kms:"JoinDate,omitempty"`
	AttachDate time.Time `kms:"AttachDate,omitempty"`
}

// CreateGroupRequest makes a group.
type CreateGroupRequest struct {
	GroupName string `kms:"GroupName"`
	Comments  string `kms:"Comments"`
}

// GroupResponse answers CreateGroup, GetGroup and UpdateGroup.
type GroupResponse struct {
	Group     Group  `kms:"Group"`
	RequestID string `kms:"RequestId"`
}

// GetGroupRequest reads a group.
type GetGroupRequest struct {
	GroupName string `kms:"GroupName,resource=group"`
}

// ListGroupsRequest lists groups in the order of names.
type ListGroupsRequest struct {
	Marker   string `kms:"Marker"`
	MaxItems int    `kms:"MaxItems,min=1,max=1000,default=100"`
}

// ListGroupsResponse answers ListGroups.
type ListGroupsResponse struct {
	IsTruncated bool    `kms:"IsTruncated"`
	Marker      string  `kms:"Marker,omitempty"`
	Groups      []Group `kms:"Groups,list=Group"`
	RequestID   string  `kms:"RequestId"`
}

// UpdateGroupRequest changes what is given.
type UpdateGroupRequest struct {
	GroupName    string  `kms:"GroupName,resource=group"`
	NewGroupName string  `kms:"NewGroupName"`
	NewComments  *string `kms:"NewComments"`
}

// DeleteGroupRequest deletes a group that has no user and no policy.
type DeleteGroupRequest struct {
	GroupName string `kms:"GroupName,resource=group"`
}

// MembershipRequest names a user and a group, for AddUserToGroup and RemoveUserFromGroup.
type MembershipRequest struct {
	UserName  string `kms:"UserName,resource=user"`
	GroupName string `kms:"GroupName,resource=group"`
}

// ListUsersForGroupRequest lists the users of a group in the order of names.
type ListUsersForGroupRequest struct {
	GroupName string `kms:"GroupName,resource=group"`
	Marker    string `kms:"Marker"`
	MaxItems  int    `kms:"MaxItems,min=1,max=1000,default=100"`
}

// ListGroupsForUserRequest lists the groups of a user.
type ListGroupsForUserRequest struct {
	UserName string `kms:"UserName,resource=user"`
}

// ListGroupsForUserResponse answers ListGroupsForUser.
type ListGroupsForUserResponse struct {
	Groups    []Group `kms:"Groups,list=Group"`
	RequestID string  `kms:"RequestId"`
}

// groupOperations declares the operations on groups.
var groupOperations = []operation.Declaration{
	declare[CreateGroupRequest, GroupResponse]("CreateGroup").On("group/*").Mutates(),
	declare[GetGroupRequest, GroupResponse]("GetGroup"),
	declare[ListGroupsRequest, ListGroupsResponse]("ListGroups").On("group/*"),
	declare[UpdateGroupRequest, GroupResponse]("UpdateGroup").Mutates(),
	declare[DeleteGroupRequest, EmptyResponse]("DeleteGroup").Mutates(),
	declare[MembershipRequest, EmptyResponse]("AddUserToGroup").Mutates(),
	declare[MembershipRequest, EmptyResponse]("RemoveUserFromGroup").Mutates(),
	declare[ListUsersForGroupRequest, ListUsersResponse]("ListUsersForGroup"),
	declare[ListGroupsForUserRequest, ListGroupsForUserResponse]("ListGroupsForUser"),
}

// CreateGroup creates a group.
func (c *Client) CreateGroup(ctx context.Context, in *CreateGroupRequest) (*GroupResponse, error) {
	return call[GroupResponse](ctx, c, "CreateGroup", in)
}

// GetGroup returns a group.
func (c *Client) GetGroup(ctx context.Context, in *GetGroupRequest) (*GroupResponse, error) {
	return call[GroupResponse](ctx, c, "GetGroup", in)
}

// ListGroups returns a page of groups.
func (c *Client) ListGroups(ctx context.Context, in *ListGroupsRequest) (*ListGroupsResponse, error) {
	return call[ListGroupsResponse](ctx, c, "ListGroups", in)
}

// UpdateGroup changes a group.
func (c *Client) UpdateGroup(ctx context.Context, in *UpdateGroupRequest) (*GroupResponse, error) {
	return call[GroupResponse](ctx, c, "UpdateGroup", in)
}

// DeleteGroup deletes a group that has no user and no policy.
func (c *Client) DeleteGroup(ctx context.Context, in *DeleteGroupRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "DeleteGroup", in)
}

// AddUserToGroup adds a user to a group.
func (c *Client) AddUserToGroup(ctx context.Context, in *MembershipRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "AddUserToGroup", in)
}

// RemoveUserFromGroup removes a user from a group.
func (c *Client) RemoveUserFromGroup(ctx context.Context, in *MembershipRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "RemoveUserFromGroup", in)
}

// ListUsersForGroup returns a page of the users of a group.
func (c *Client) ListUsersForGroup(ctx context.Context, in *ListUsersForGroupRequest) (*ListUsersResponse, error) {
	return call[ListUsersResponse](ctx, c, "ListUsersForGroup", in)
}

// ListGroupsForUser returns the groups of a user.
func (c *Client) ListGroupsForUser(
	ctx context.Context, in *ListGroupsForUserRequest,
) (*ListGroupsForUserResponse, error) {
	return call[ListGroupsForUserResponse](ctx, c, "ListGroupsForUser", in)
}
