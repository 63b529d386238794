package api

import (
	"context"
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
	handle("DescribeSecret", immediate(describeSecret)),
	handle("GetRandomPassword", immediate(getRandomPassword)),
	handle("GetSecretValue", getSecretValue),
	handle("ListSecrets", immediate(listSecrets)),
	handle("ListSecretVersionIds", immediate(listSecretVersionIds)),
	handle("PutSecretValue", putSecretValue),
	handle("UpdateSecret", updateSecret),
	handle("UpdateSecretVersionStage", updateSecretVersionStage),
	handle("RotateSecret", rotateSecret),
	handle("UpdateSecretRotationPolicy", updateSecretRotationPolicy),
	handle("GetSecretPolicy", immediate(getSecretPolicy)),
	handle("SetSecretPolicy", setSecretPolicy),
	handle("WatchSecrets", watchSecrets),
	handle("ListSecretConsumers", listSecretConsumers),
	handle("RegisterTarget", registerTarget, registering),
	handle("DescribeTarget", immediate(describeTarget)),
	handle("ListTargets", immediate(listTargets)),
	handle("UpdateTarget", updateTarget, retargeted),
	handle("DeregisterTarget", deregisterTarget, deregistered),
	handle("TestTarget", testTarget, tested),
	handle("PrepareTargetAccounts", prepareTargetAccounts, prepared),
	handle("ConfigureRotation", configureRotation, configured),
	handle("CheckRotation", checkRotation),
	handle("RemoveRotation", removeRotation),
	handle("DescribeRotation", describeRotation),
	handle("RotateRootKey", rotateRootKey),
	handle("RotateLocalCA", rotateLocalCA),
	handle("DescribeRootKey", describeRootKey),
	handle("ListRotations", immediate(listRotations)),
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
	handle("ListResourceTags", immediate(listResourceTags)),
	handle("TagResources", tagResources, taggedIDs),
	handle("UntagResources", untagResources, untaggedIDs),
	handle("ListTagResources", immediate(listTagResources), listedIDs),
	handle("DescribeAuditTrail", immediate(describeAuditTrail)),
	handle("DescribeRegions", immediate(describeRegions)),
	handle("DescribeAccountKmsStatus", immediate(describeAccountKmsStatus)),
	handle("GetCallerIdentity", immediate(getCallerIdentity)),
	handle("CreateUser", createUser),
	handle("GetUser", immediate(getUser)),
	handle("ListUsers", immediate(listUsers)),
	handle("UpdateUser", updateUser),
	handle("DeleteUser", deleteUser),
	handle("CreateAccessKey", createAccessKey),
	handle("ListAccessKeys", immediate(listAccessKeys)),
	handle("UpdateAccessKey", updateAccessKey),
	handle("DeleteAccessKey", deleteAccessKey),
	handle("GetAccessKeyLastUsed", immediate(getAccessKeyLastUsed)),
	handle("CreateGroup", createGroup),
	handle("GetGroup", immediate(getGroup)),
	handle("ListGroups", immediate(listGroups)),
	handle("UpdateGroup", updateGroup),
	handle("DeleteGroup", deleteGroup),
	handle("AddUserToGroup", addUserToGroup),
	handle("RemoveUserFromGroup", removeUserFromGroup),
	handle("ListUsersForGroup", immediate(listUsersForGroup)),
	handle("ListGroupsForUser", immediate(listGroupsForUser)),
	handle("CreatePolicy", createPolicy),
	handle("GetPolicy", immediate(getPolicy)),
	handle("ListPolicies", immediate(listPolicies)),
	handle("UpdatePolicyDescription", updatePolicyDescription),
	handle("DeletePolicy", deletePolicy),
	handle("CreatePolicyVersion", createPolicyVersion),
	handle("GetPolicyVersion", immediate(getPolicyVersion)),
	handle("ListPolicyVersions", immediate(listPolicyVersions)),
	handle("SetDefaultPolicyVersion", setDefaultPolicyVersion),
	handle("DeletePolicyVersion", deletePolicyVersion),
	handle("AttachPolicyToUser", attachPolicyToUser),
	handle("DetachPolicyFromUser", detachPolicyFromUser),
	handle("AttachPolicyToGroup", attachPolicyToGroup),
	handle("DetachPolicyFromGroup", detachPolicyFromGroup),
	handle("ListPoliciesForUser", immediate(listPoliciesForUser)),
	handle("ListPoliciesForGroup", immediate(listPoliciesForGroup)),
	handle("ListEntitiesForPolicy", immediate(listEntitiesForPolicy)),
	handle("SimulatePolicy", immediate(simulatePolicy)),
)

// immediate returns the handler of an operation that waits for nothing: it reads the snapshot of
// its call alone, and so it needs no context.
func immediate[In, Out any](h func(c *Call, in *In) (*Out, error)) handler[In, Out] {
	return func(_ context.Context, c *Call, in *In) (*Out, error) { return h(c, in) }
}

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
