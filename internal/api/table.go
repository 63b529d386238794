package api

import (
	"fmt"
	"reflect"

	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/internal/protocol"
)

// served binds each operation to its handler, and to the function that finds resources which its
// declaration does not name. An operation without a handler, or with one of other types, panics
// here and so fails in every test.
var served = serve(
	handle("CreateSecret", createSecret, created),
	handle("DeleteSecret", deleteSecret),
	handle("RestoreSecret", restoreSecret),
	handle("DescribeSecret", describeSecret),
	handle("GetRandomPassword", getRandomPassword),
	handle("GetSecretValue", getSecretValue),
	handle("ListSecrets", listSecrets),
	handle("ListSecretVersionIds", listSecretVersionIds),
	handle("PutSecretValue", putSecretValue),
	handle("UpdateSecret", updateSecret),
	handle("UpdateSecretVersionStage", updateSecretVersionStage),
	handle("RotateSecret", rotateSecret),
	handle("UpdateSecretRotationPolicy", updateSecretRotationPolicy),
	handle("GetSecretPolicy", getSecretPolicy),
	handle("SetSecretPolicy", setSecretPolicy),
	handle("WatchSecrets", watchSecrets),
	handle("ListSecretConsumers", listSecretConsumers),
	handle("RegisterTarget", registerTarget, registered),
	handle("DescribeTarget", describeTarget),
	handle("ListTargets", listTargets),
	handle("UpdateTarget", updateTarget, retargeted),
	handle("DeregisterTarget", deregisterTarget, deregistered),
	handle("TestTarget", testTarget, tested),
	handle("PrepareTargetAccounts", prepareTargetAccounts, prepared),
	handle("ConfigureRotation", configureRotation, configured),
	handle("RemoveRotation", removeRotation),
	handle("DescribeRotation", describeRotation),
	handle("RotateRootKey", rotateRootKey),
	handle("RotateLocalCA", rotateLocalCA),
	handle("DescribeRootKey", describeRootKey),
	handle("ListRotations", listRotations),
	handle("PauseRotation", pauseRotation, pausing),
	handle("ResumeRotation", resumeRotation, pausing),
	handle("ProbeRotation", probeRotation, pausing),
	handle("RehearseRotation", rehearseRotation),
	handle("EmergencyRotation", emergencyRotation),
	handle("EndRotationGrace", endRotationGrace),
	handle("UndoRotation", undoRotation),
	handle("CancelRotation", cancelRotation),
	handle("RepairRotation", repairRotation, adopted),
	handle("TagResource", tagResource, tagged),
	handle("UntagResource", untagResource, untagged),
	handle("ListResourceTags", listResourceTags),
	handle("TagResources", tagResources, taggedIDs),
	handle("UntagResources", untagResources, untaggedIDs),
	handle("ListTagResources", listTagResources, listedIDs),
	handle("DescribeAuditTrail", describeAuditTrail),
	handle("DescribeRegions", describeRegions),
	handle("DescribeAccountKmsStatus", describeAccountKmsStatus),
	handle("GetCallerIdentity", getCallerIdentity),
	handle("CreateUser", createUser),
	handle("GetUser", getUser),
	handle("ListUsers", listUsers),
	handle("UpdateUser", updateUser),
	handle("DeleteUser", deleteUser),
	handle("CreateAccessKey", createAccessKey),
	handle("ListAccessKeys", listAccessKeys),
	handle("UpdateAccessKey", updateAccessKey),
	handle("DeleteAccessKey", deleteAccessKey),
	handle("GetAccessKeyLastUsed", getAccessKeyLastUsed),
	handle("CreateGroup", createGroup),
	handle("GetGroup", getGroup),
	handle("ListGroups", listGroups),
	handle("UpdateGroup", updateGroup),
	handle("DeleteGroup", deleteGroup),
	handle("AddUserToGroup", addUserToGroup),
	handle("RemoveUserFromGroup", removeUserFromGroup),
	handle("ListUsersForGroup", listUsersForGroup),
	handle("ListGroupsForUser", listGroupsForUser),
	handle("CreatePolicy", createPolicy),
	handle("GetPolicy", getPolicy),
	handle("ListPolicies", listPolicies),
	handle("UpdatePolicyDescription", updatePolicyDescription),
	handle("DeletePolicy", deletePolicy),
	handle("CreatePolicyVersion", createPolicyVersion),
	handle("GetPolicyVersion", getPolicyVersion),
	handle("ListPolicyVersions", listPolicyVersions),
	handle("SetDefaultPolicyVersion", setDefaultPolicyVersion),
	handle("DeletePolicyVersion", deletePolicyVersion),
	handle("AttachPolicyToUser", attachPolicyToUser),
	handle("DetachPolicyFromUser", detachPolicyFromUser),
	handle("AttachPolicyToGroup", attachPolicyToGroup),
	handle("DetachPolicyFromGroup", detachPolicyFromGroup),
	handle("ListPoliciesForUser", listPoliciesForUser),
	handle("ListPoliciesForGroup", listPoliciesForGroup),
	handle("ListEntitiesForPolicy", listEntitiesForPolicy),
	handle("SimulatePolicy", simulatePolicy),
)

// serve returns the endpoints after it has verified that every operation has one.
func serve(list ...*endpoint) []*endpoint {
	known := byOperation(list)
	for _, o := range protocol.Operations() {
		if known[o] == nil {
			panic("api: operation " + o.Name + " has no handler")
		}
	}
	if len(known) != len(list) {
		panic("api: an operation has two handlers")
	}
	return list
}

func byOperation(list []*endpoint) map[*operation.Op]*endpoint {
	known := make(map[*operation.Op]*endpoint, len(list))
	for _, e := range list {
		known[e.Op] = e
	}
	return known
}

// handle binds the operation of that name to its handler. find, at most one, finds the resources
// that the declaration leaves to the server.
func handle[In, Out any](name string, h handler[In, Out], find ...finder[In]) *endpoint {
	o := protocol.Named(name)
	switch {
	case o == nil:
		panic("api: the handler of " + name + " has no operation: declare it in package kms or ram")
	case o.Request() != reflect.TypeFor[In]() || o.Response() != reflect.TypeFor[Out]():
		panic(fmt.Sprintf("api: %s is declared with %s and %s; its handler has %s and %s",
			name, o.Request(), o.Response(), reflect.TypeFor[In](), reflect.TypeFor[Out]()))
	case o.Found() && len(find) == 0:
		panic("api: " + name + " declares resources that a function finds, and has none")
	}
	return endpointOf(o, h, find...)
}
