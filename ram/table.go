package ram

import "github.com/keyturn/keyturn/internal/operation"

var service = operation.Service{Name: "Ram", Version: Version}

// operations declares every operation once. The client, the server, the agent and the command line
// read it.
var operations = operation.NewTable(
	declare[CreateUserRequest, UserResponse]("CreateUser").On("user/*").Mutates(),
	declare[GetUserRequest, UserResponse]("GetUser"),
	declare[ListUsersRequest, ListUsersResponse]("ListUsers").On("user/*"),
	declare[UpdateUserRequest, UserResponse]("UpdateUser").Mutates(),
	declare[DeleteUserRequest, EmptyResponse]("DeleteUser").Mutates(),
	declare[CreateAccessKeyRequest, CreateAccessKeyResponse]("CreateAccessKey").Mutates(),
	declare[ListAccessKeysRequest, ListAccessKeysResponse]("ListAccessKeys"),
	declare[UpdateAccessKeyRequest, EmptyResponse]("UpdateAccessKey").Mutates(),
	declare[AccessKeyRequest, EmptyResponse]("DeleteAccessKey").Mutates(),
	declare[AccessKeyRequest, GetAccessKeyLastUsedResponse]("GetAccessKeyLastUsed"),
	declare[CreateGroupRequest, GroupResponse]("CreateGroup").On("group/*").Mutates(),
	declare[GetGroupRequest, GroupResponse]("GetGroup"),
	declare[ListGroupsRequest, ListGroupsResponse]("ListGroups").On("group/*"),
	declare[UpdateGroupRequest, GroupResponse]("UpdateGroup").Mutates(),
	declare[DeleteGroupRequest, EmptyResponse]("DeleteGroup").Mutates(),
	declare[MembershipRequest, EmptyResponse]("AddUserToGroup").Mutates(),
	declare[MembershipRequest, EmptyResponse]("RemoveUserFromGroup").Mutates(),
	declare[ListUsersForGroupRequest, ListUsersResponse]("ListUsersForGroup"),
	declare[ListGroupsForUserRequest, ListGroupsForUserResponse]("ListGroupsForUser"),
	declare[CreatePolicyRequest, CreatePolicyResponse]("CreatePolicy").On("policy/*").Mutates(),
	declare[PolicyRequest, GetPolicyResponse]("GetPolicy"),
	declare[ListPoliciesRequest, ListPoliciesResponse]("ListPolicies").On("policy/*"),
	declare[UpdatePolicyDescriptionRequest, CreatePolicyResponse]("UpdatePolicyDescription").Mutates(),
	declare[DeletePolicyRequest, EmptyResponse]("DeletePolicy").Mutates(),
	declare[CreatePolicyVersionRequest, PolicyVersionResponse]("CreatePolicyVersion").Mutates(),
	declare[GetPolicyVersionRequest, PolicyVersionResponse]("GetPolicyVersion"),
	declare[PolicyRequest, ListPolicyVersionsResponse]("ListPolicyVersions"),
	declare[PolicyVersionRequest, EmptyResponse]("SetDefaultPolicyVersion").Mutates(),
	declare[PolicyVersionRequest, EmptyResponse]("DeletePolicyVersion").Mutates(),
	declare[UserPolicyRequest, EmptyResponse]("AttachPolicyToUser").Mutates(),
	declare[UserPolicyRequest, EmptyResponse]("DetachPolicyFromUser").Mutates(),
	declare[GroupPolicyRequest, EmptyResponse]("AttachPolicyToGroup").Mutates(),
	declare[GroupPolicyRequest, EmptyResponse]("DetachPolicyFromGroup").Mutates(),
	declare[ListPoliciesForUserRequest, AttachedPoliciesResponse]("ListPoliciesForUser"),
	declare[ListPoliciesForGroupRequest, AttachedPoliciesResponse]("ListPoliciesForGroup"),
	declare[PolicyRequest, ListEntitiesForPolicyResponse]("ListEntitiesForPolicy"),
	declare[SimulatePolicyRequest, SimulatePolicyResponse]("SimulatePolicy"),
)

func declare[In, Out any](name string) operation.Declaration {
	return operation.Declare[In, Out](service, name)
}

// Operations returns the description of every operation of this package. Its type may change from
// release to release: it is for the commands and the server of this module.
func Operations() *operation.Table { return operations }
