package ram

import "time"

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
