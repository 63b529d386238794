package ram

import "context"

// CreateUser creates a user without rights.
func (c *Client) CreateUser(ctx context.Context, in *CreateUserRequest) (*UserResponse, error) {
	return call[UserResponse](ctx, c, "CreateUser", in)
}

// GetUser returns a user.
func (c *Client) GetUser(ctx context.Context, in *GetUserRequest) (*UserResponse, error) {
	return call[UserResponse](ctx, c, "GetUser", in)
}

// ListUsers returns a page of users.
func (c *Client) ListUsers(ctx context.Context, in *ListUsersRequest) (*ListUsersResponse, error) {
	return call[ListUsersResponse](ctx, c, "ListUsers", in)
}

// UpdateUser changes a user.
func (c *Client) UpdateUser(ctx context.Context, in *UpdateUserRequest) (*UserResponse, error) {
	return call[UserResponse](ctx, c, "UpdateUser", in)
}

// DeleteUser deletes a user that has no access key, policy or group.
func (c *Client) DeleteUser(ctx context.Context, in *DeleteUserRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "DeleteUser", in)
}

// CreateAccessKey creates an access key and returns its secret, once.
func (c *Client) CreateAccessKey(ctx context.Context, in *CreateAccessKeyRequest) (*CreateAccessKeyResponse, error) {
	return call[CreateAccessKeyResponse](ctx, c, "CreateAccessKey", in)
}

// ListAccessKeys returns the access keys of a user.
func (c *Client) ListAccessKeys(ctx context.Context, in *ListAccessKeysRequest) (*ListAccessKeysResponse, error) {
	return call[ListAccessKeysResponse](ctx, c, "ListAccessKeys", in)
}

// UpdateAccessKey enables or disables an access key.
func (c *Client) UpdateAccessKey(ctx context.Context, in *UpdateAccessKeyRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "UpdateAccessKey", in)
}

// DeleteAccessKey deletes an access key.
func (c *Client) DeleteAccessKey(ctx context.Context, in *AccessKeyRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "DeleteAccessKey", in)
}

// GetAccessKeyLastUsed returns when an access key was last used.
func (c *Client) GetAccessKeyLastUsed(
	ctx context.Context, in *AccessKeyRequest,
) (*GetAccessKeyLastUsedResponse, error) {
	return call[GetAccessKeyLastUsedResponse](ctx, c, "GetAccessKeyLastUsed", in)
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

// CreatePolicy creates a custom policy.
func (c *Client) CreatePolicy(ctx context.Context, in *CreatePolicyRequest) (*CreatePolicyResponse, error) {
	return call[CreatePolicyResponse](ctx, c, "CreatePolicy", in)
}

// GetPolicy returns a policy with its default version.
func (c *Client) GetPolicy(ctx context.Context, in *PolicyRequest) (*GetPolicyResponse, error) {
	return call[GetPolicyResponse](ctx, c, "GetPolicy", in)
}

// ListPolicies returns a page of policies.
func (c *Client) ListPolicies(ctx context.Context, in *ListPoliciesRequest) (*ListPoliciesResponse, error) {
	return call[ListPoliciesResponse](ctx, c, "ListPolicies", in)
}

// UpdatePolicyDescription changes the description of a custom policy.
func (c *Client) UpdatePolicyDescription(
	ctx context.Context, in *UpdatePolicyDescriptionRequest,
) (*CreatePolicyResponse, error) {
	return call[CreatePolicyResponse](ctx, c, "UpdatePolicyDescription", in)
}

// DeletePolicy deletes a custom policy.
func (c *Client) DeletePolicy(ctx context.Context, in *DeletePolicyRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "DeletePolicy", in)
}

// CreatePolicyVersion adds a version to a custom policy.
func (c *Client) CreatePolicyVersion(
	ctx context.Context, in *CreatePolicyVersionRequest,
) (*PolicyVersionResponse, error) {
	return call[PolicyVersionResponse](ctx, c, "CreatePolicyVersion", in)
}

// GetPolicyVersion returns a version of a policy.
func (c *Client) GetPolicyVersion(ctx context.Context, in *GetPolicyVersionRequest) (*PolicyVersionResponse, error) {
	return call[PolicyVersionResponse](ctx, c, "GetPolicyVersion", in)
}

// ListPolicyVersions returns the versions of a policy.
func (c *Client) ListPolicyVersions(ctx context.Context, in *PolicyRequest) (*ListPolicyVersionsResponse, error) {
	return call[ListPolicyVersionsResponse](ctx, c, "ListPolicyVersions", in)
}

// SetDefaultPolicyVersion makes a version the default. It takes effect from the next call on.
func (c *Client) SetDefaultPolicyVersion(ctx context.Context, in *PolicyVersionRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "SetDefaultPolicyVersion", in)
}

// DeletePolicyVersion deletes a version that is not the default.
func (c *Client) DeletePolicyVersion(ctx context.Context, in *PolicyVersionRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "DeletePolicyVersion", in)
}

// AttachPolicyToUser attaches a policy to a user.
func (c *Client) AttachPolicyToUser(ctx context.Context, in *UserPolicyRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "AttachPolicyToUser", in)
}

// DetachPolicyFromUser detaches a policy from a user.
func (c *Client) DetachPolicyFromUser(ctx context.Context, in *UserPolicyRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "DetachPolicyFromUser", in)
}

// AttachPolicyToGroup attaches a policy to a group.
func (c *Client) AttachPolicyToGroup(ctx context.Context, in *GroupPolicyRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "AttachPolicyToGroup", in)
}

// DetachPolicyFromGroup detaches a policy from a group.
func (c *Client) DetachPolicyFromGroup(ctx context.Context, in *GroupPolicyRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "DetachPolicyFromGroup", in)
}

// ListPoliciesForUser returns the policies that are attached to a user.
func (c *Client) ListPoliciesForUser(
	ctx context.Context, in *ListPoliciesForUserRequest,
) (*AttachedPoliciesResponse, error) {
	return call[AttachedPoliciesResponse](ctx, c, "ListPoliciesForUser", in)
}

// ListPoliciesForGroup returns the policies that are attached to a group.
func (c *Client) ListPoliciesForGroup(
	ctx context.Context, in *ListPoliciesForGroupRequest,
) (*AttachedPoliciesResponse, error) {
	return call[AttachedPoliciesResponse](ctx, c, "ListPoliciesForGroup", in)
}

// ListEntitiesForPolicy returns the users and groups that a policy is attached to.
func (c *Client) ListEntitiesForPolicy(ctx context.Context, in *PolicyRequest) (*ListEntitiesForPolicyResponse, error) {
	return call[ListEntitiesForPolicyResponse](ctx, c, "ListEntitiesForPolicy", in)
}

// SimulatePolicy returns whether a user may do something, and which statement decides.
func (c *Client) SimulatePolicy(ctx context.Context, in *SimulatePolicyRequest) (*SimulatePolicyResponse, error) {
	return call[SimulatePolicyResponse](ctx, c, "SimulatePolicy", in)
}
