package api

import (
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
)

// actionSetSecretPolicy is what CreateSecret needs besides its own action where it sets a policy.
const actionSetSecretPolicy = "kms:SetSecretPolicy"

// operations is every operation of the API, each one line: name, resource, function.
var operations = []Op{
	rotates(also("secret/${SecretName}", actionSetSecretPolicy, change(op("CreateSecret", created(), createSecret)))),
	granted(change(op("DeleteSecret", named(func(in *kms.DeleteSecretRequest) *string { return &in.SecretName }), deleteSecret))),
	granted(change(op("RestoreSecret", named(func(in *kms.RestoreSecretRequest) *string { return &in.SecretName }), restoreSecret))),
	granted(op("DescribeSecret", named(func(in *kms.DescribeSecretRequest) *string { return &in.SecretName }), describeSecret)),
	op("GetRandomPassword", nothing[kms.GetRandomPasswordRequest](), getRandomPassword),
	granted(op("GetSecretValue", named(func(in *kms.GetSecretValueRequest) *string { return &in.SecretName }), getSecretValue)),
	op("ListSecrets", container[kms.ListSecretsRequest](), listSecrets),
	granted(op("ListSecretVersionIds", named(func(in *kms.ListSecretVersionIdsRequest) *string { return &in.SecretName }), listSecretVersionIds)),
	granted(change(op("PutSecretValue", named(func(in *kms.PutSecretValueRequest) *string { return &in.SecretName }), putSecretValue))),
	granted(change(op("UpdateSecret", named(func(in *kms.UpdateSecretRequest) *string { return &in.SecretName }), updateSecret))),
	granted(change(op("UpdateSecretVersionStage", named(func(in *kms.UpdateSecretVersionStageRequest) *string { return &in.SecretName }), updateSecretVersionStage))),
	sends(rotates(granted(change(op("RotateSecret", rotated(func(in *kms.RotateSecretRequest) *string { return &in.SecretName }), rotateSecret))))),
	sends(rotates(granted(change(op("UpdateSecretRotationPolicy", rotated(func(in *kms.UpdateSecretRotationPolicyRequest) *string { return &in.SecretName }), updateSecretRotationPolicy))))),
	repairs(op("GetSecretPolicy", named(func(in *kms.GetSecretPolicyRequest) *string { return &in.SecretName }), getSecretPolicy)),
	repairs(only("POST", change(op("SetSecretPolicy", named(func(in *kms.SetSecretPolicyRequest) *string { return &in.SecretName }), setSecretPolicy)))),

	waits(open(op("WatchSecrets", nothing[kms.WatchSecretsRequest](), watchSecrets))),
	granted(op("ListSecretConsumers", named(func(in *kms.ListSecretConsumersRequest) *string { return &in.SecretName }), listSecretConsumers)),

	programs(sends(granted(change(op("RegisterTarget", registered(), registerTarget))))),
	op("DescribeTarget", aTarget(func(in *kms.TargetNameRequest) string { return in.TargetName }), describeTarget),
	op("ListTargets", targets[kms.ListTargetsRequest](), listTargets),
	programs(sends(granted(change(op("UpdateTarget", retargeted(), updateTarget))))),
	also("secret/${SecretName}", actionRemoveRotation, change(op("DeregisterTarget", deregistered(), deregisterTarget))),
	granted(slow(change(op("TestTarget", tested(), testTarget)))),
	rotates(slow(change(op("PrepareTargetAccounts", prepared(), prepareTargetAccounts)))),
	sends(rotates(granted(change(op("ConfigureRotation", configured(), configureRotation))))),
	granted(change(op("RemoveRotation", named(func(in *kms.SecretNameRequest) *string { return &in.SecretName }), removeRotation))),
	granted(op("DescribeRotation", named(func(in *kms.SecretNameRequest) *string { return &in.SecretName }), describeRotation)),
	byName(change(op("RotateRootKey", rootKey[kms.RotateRootKeyRequest](), rotateRootKey))),
	byName(change(op("RotateLocalCA", localCA[kms.RotateLocalCARequest](), rotateLocalCA))),
	op("DescribeRootKey", rootKey[kms.DescribeRootKeyRequest](), describeRootKey),
	op("ListRotations", container[kms.ListRotationsRequest](), listRotations),
	granted(change(op("PauseRotation", pausing(), pauseRotation))),
	granted(change(op("ResumeRotation", pausing(), resumeRotation))),
	granted(slow(change(op("ProbeRotation", pausing(), probeRotation)))),
	sends(rotates(granted(change(op("RehearseRotation", rotated(func(in *kms.VersionedRequest) *string { return &in.SecretName }), rehearseRotation))))),
	sends(rotates(granted(change(op("EmergencyRotation", rotated(func(in *kms.EmergencyRotationRequest) *string { return &in.SecretName }), emergencyRotation))))),
	sends(rotates(granted(change(op("EndRotationGrace", rotated(func(in *kms.SecretNameRequest) *string { return &in.SecretName }), endRotationGrace))))),
	sends(rotates(granted(change(op("UndoRotation", rotated(func(in *kms.SecretNameRequest) *string { return &in.SecretName }), undoRotation))))),
	sends(rotates(granted(change(op("CancelRotation", rotated(func(in *kms.SecretNameRequest) *string { return &in.SecretName }), cancelRotation))))),
	sends(rotates(granted(slow(change(op("RepairRotation", repaired(), repairRotation)))))),

	granted(change(op("TagResource", tagged(func(in *kms.TagResourceRequest) (string, string, string) {
		return in.KeyID, in.SecretName, in.CertificateID
	}), tagResource))),
	granted(change(op("UntagResource", tagged(func(in *kms.UntagResourceRequest) (string, string, string) {
		return in.KeyID, in.SecretName, in.CertificateID
	}), untagResource))),
	op("ListResourceTags", key(func(in *kms.ListResourceTagsRequest) string { return in.KeyID }), listResourceTags),
	granted(change(op("TagResources", listed(func(in *kms.TagResourcesRequest) (string, []string) { return in.ResourceType, in.ResourceIDs }), tagResources))),
	granted(change(op("UntagResources", listed(func(in *kms.UntagResourcesRequest) (string, []string) { return in.ResourceType, in.ResourceIDs }), untagResources))),
	granted(op("ListTagResources", listed(func(in *kms.ListTagResourcesRequest) (string, []string) { return in.ResourceType, in.ResourceIDs }), listTagResources)),

	op("DescribeAuditTrail", nothing[kms.DescribeAuditTrailRequest](), describeAuditTrail),

	open(op("DescribeRegions", nothing[kms.DescribeRegionsRequest](), describeRegions)),
	op("DescribeAccountKmsStatus", nothing[kms.DescribeAccountKmsStatusRequest](), describeAccountKmsStatus),
	open(sts(op("GetCallerIdentity", nothing[kms.GetCallerIdentityRequest](), getCallerIdentity))),

	userService(change(op("CreateUser", all[ram.CreateUserRequest]("user"), createUser))),
	userService(op("GetUser", aUser(func(in *ram.GetUserRequest) string { return in.UserName }), getUser)),
	userService(op("ListUsers", all[ram.ListUsersRequest]("user"), listUsers)),
	userService(change(op("UpdateUser", aUser(func(in *ram.UpdateUserRequest) string { return in.UserName }), updateUser))),
	userService(change(op("DeleteUser", aUser(func(in *ram.DeleteUserRequest) string { return in.UserName }), deleteUser))),
	userService(change(op("CreateAccessKey", aUserOrSelf(func(in *ram.CreateAccessKeyRequest) *string { return &in.UserName }), createAccessKey))),
	userService(op("ListAccessKeys", aUserOrSelf(func(in *ram.ListAccessKeysRequest) *string { return &in.UserName }), listAccessKeys)),
	userService(change(op("UpdateAccessKey", aUserOrSelf(func(in *ram.UpdateAccessKeyRequest) *string { return &in.UserName }), updateAccessKey))),
	userService(change(op("DeleteAccessKey", aUserOrSelf(func(in *ram.AccessKeyRequest) *string { return &in.UserName }), deleteAccessKey))),
	userService(op("GetAccessKeyLastUsed", aUserOrSelf(func(in *ram.AccessKeyRequest) *string { return &in.UserName }), getAccessKeyLastUsed)),
	userService(change(op("CreateGroup", all[ram.CreateGroupRequest]("group"), createGroup))),
	userService(op("GetGroup", aGroup(func(in *ram.GetGroupRequest) string { return in.GroupName }), getGroup)),
	userService(op("ListGroups", all[ram.ListGroupsRequest]("group"), listGroups)),
	userService(change(op("UpdateGroup", aGroup(func(in *ram.UpdateGroupRequest) string { return in.GroupName }), updateGroup))),
	userService(change(op("DeleteGroup", aGroup(func(in *ram.DeleteGroupRequest) string { return in.GroupName }), deleteGroup))),
	userService(change(op("AddUserToGroup", both(aUser(func(in *ram.MembershipRequest) string { return in.UserName }), aGroup(func(in *ram.MembershipRequest) string { return in.GroupName })), addUserToGroup))),
	userService(change(op("RemoveUserFromGroup", both(aUser(func(in *ram.MembershipRequest) string { return in.UserName }), aGroup(func(in *ram.MembershipRequest) string { return in.GroupName })), removeUserFromGroup))),
	userService(op("ListUsersForGroup", aGroup(func(in *ram.ListUsersForGroupRequest) string { return in.GroupName }), listUsersForGroup)),
	userService(op("ListGroupsForUser", aUser(func(in *ram.ListGroupsForUserRequest) string { return in.UserName }), listGroupsForUser)),
	userService(change(op("CreatePolicy", all[ram.CreatePolicyRequest]("policy"), createPolicy))),
	userService(op("GetPolicy", aPolicy(func(in *ram.PolicyRequest) (string, string) { return in.PolicyType, in.PolicyName }), getPolicy)),
	userService(op("ListPolicies", all[ram.ListPoliciesRequest]("policy"), listPolicies)),
	userService(change(op("UpdatePolicyDescription", aCustomPolicy(func(in *ram.UpdatePolicyDescriptionRequest) string { return in.PolicyName }), updatePolicyDescription))),
	userService(change(op("DeletePolicy", aCustomPolicy(func(in *ram.DeletePolicyRequest) string { return in.PolicyName }), deletePolicy))),
	userService(change(op("CreatePolicyVersion", aCustomPolicy(func(in *ram.CreatePolicyVersionRequest) string { return in.PolicyName }), createPolicyVersion))),
	userService(op("GetPolicyVersion", aPolicy(func(in *ram.GetPolicyVersionRequest) (string, string) { return in.PolicyType, in.PolicyName }), getPolicyVersion)),
	userService(op("ListPolicyVersions", aPolicy(func(in *ram.PolicyRequest) (string, string) { return in.PolicyType, in.PolicyName }), listPolicyVersions)),
	userService(change(op("SetDefaultPolicyVersion", aCustomPolicy(func(in *ram.PolicyVersionRequest) string { return in.PolicyName }), setDefaultPolicyVersion))),
	userService(change(op("DeletePolicyVersion", aCustomPolicy(func(in *ram.PolicyVersionRequest) string { return in.PolicyName }), deletePolicyVersion))),
	userService(change(op("AttachPolicyToUser", both(aUser(func(in *ram.UserPolicyRequest) string { return in.UserName }), aPolicy(func(in *ram.UserPolicyRequest) (string, string) { return in.PolicyType, in.PolicyName })), attachPolicyToUser))),
	userService(change(op("DetachPolicyFromUser", both(aUser(func(in *ram.UserPolicyRequest) string { return in.UserName }), aPolicy(func(in *ram.UserPolicyRequest) (string, string) { return in.PolicyType, in.PolicyName })), detachPolicyFromUser))),
	userService(change(op("AttachPolicyToGroup", both(aGroup(func(in *ram.GroupPolicyRequest) string { return in.GroupName }), aPolicy(func(in *ram.GroupPolicyRequest) (string, string) { return in.PolicyType, in.PolicyName })), attachPolicyToGroup))),
	userService(change(op("DetachPolicyFromGroup", both(aGroup(func(in *ram.GroupPolicyRequest) string { return in.GroupName }), aPolicy(func(in *ram.GroupPolicyRequest) (string, string) { return in.PolicyType, in.PolicyName })), detachPolicyFromGroup))),
	userService(op("ListPoliciesForUser", aUser(func(in *ram.ListPoliciesForUserRequest) string { return in.UserName }), listPoliciesForUser)),
	userService(op("ListPoliciesForGroup", aGroup(func(in *ram.ListPoliciesForGroupRequest) string { return in.GroupName }), listPoliciesForGroup)),
	userService(op("ListEntitiesForPolicy", aPolicy(func(in *ram.PolicyRequest) (string, string) { return in.PolicyType, in.PolicyName }), listEntitiesForPolicy)),
	userService(op("SimulatePolicy", aUser(func(in *ram.SimulatePolicyRequest) string { return in.UserName }), simulatePolicy)),
}

// notHere are the operations of the KMS API that the server does not have: known, and refused as unsupported.
var notHere = []string{
	"CreateKey", "DescribeKey", "ListKeys", "EnableKey", "DisableKey", "ScheduleKeyDeletion", "CancelKeyDeletion",
	"UpdateKeyDescription", "CreateAlias", "UpdateAlias", "DeleteAlias", "ListAliases", "ListAliasesByKeyId",
	"Encrypt", "Decrypt", "ReEncrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "CreateKeyVersion",
	"ListKeyVersions", "DescribeKeyVersion", "UpdateRotationPolicy", "AsymmetricEncrypt", "AsymmetricDecrypt",
	"AsymmetricSign", "AsymmetricVerify", "GetPublicKey", "ExportDataKey", "GenerateAndExportDataKey",
	"GetParametersForImport", "ImportKeyMaterial", "DeleteKeyMaterial", "SetDeletionProtection", "GetKeyPolicy",
	"SetKeyPolicy", "OpenKmsService", "CreateCertificate", "UploadCertificate", "GetCertificate",
	"DescribeCertificate", "UpdateCertificateStatus", "DeleteCertificate", "CertificatePrivateKeySign",
	"CertificatePublicKeyVerify", "CertificatePublicKeyEncrypt", "CertificatePrivateKeyDecrypt",
	"CreateApplicationAccessPoint", "DescribeApplicationAccessPoint", "ListApplicationAccessPoints",
	"UpdateApplicationAccessPoint", "DeleteApplicationAccessPoint", "CreateClientKey", "GetClientKey", "ListClientKeys",
	"DeleteClientKey", "CreatePolicy", "DescribePolicy", "ListPolicies", "UpdatePolicy", "DeletePolicy",
	"CreateNetworkRule", "DescribeNetworkRule", "ListNetworkRules", "UpdateNetworkRule", "DeleteNetworkRule",
	"ConnectKmsInstance", "GetKmsInstance", "GetDefaultKmsInstance", "GetKmsInstanceQuotaInfos", "ListKmsInstances",
	"ReleaseKmsInstance", "UpdateKmsInstanceBindVpc",
}

// ramNotHere are those of the user service.
var ramNotHere = []string{
	"AttachPolicyToRole", "BindMFADevice", "ChangePassword", "ClearAccountAlias", "CreateLoginProfile", "CreateRole",
	"CreateVirtualMFADevice", "DecodeDiagnosticMessage", "DeleteLoginProfile", "DeleteRole", "DeleteVirtualMFADevice",
	"DetachPolicyFromRole", "GetAccountAlias", "GetLoginProfile", "GetPasswordPolicy", "GetRole", "GetSecurityPreference",
	"GetUserMFAInfo", "ListPoliciesForRole", "ListRoles", "ListTagResources", "ListVirtualMFADevices", "SetAccountAlias",
	"SetPasswordPolicy", "SetSecurityPreference", "TagResources", "UnbindMFADevice", "UntagResources", "UpdateLoginProfile",
	"UpdateRole",
}

// Operations returns the table.
func Operations() []Op { return operations }

var index = func() map[string]*Op {
	m := map[string]*Op{}
	for i := range operations {
		m[operations[i].Version+"/"+operations[i].Name] = &operations[i]
	}
	return m
}()

// lookup finds an operation by version and name.
func lookup(version, name string) (*Op, error) {
	if o, ok := index[version+"/"+name]; ok {
		return o, nil
	}
	switch {
	case version != kms.Version && version != kms.STSVersion && version != ram.Version:
		return nil, fault.New(fault.Version, "Use %s, %s for the token service, or %s for the user service.", kms.Version, kms.STSVersion, ram.Version)
	case name == "":
		return nil, fault.New(fault.NoAction, "The request names no Action.")
	case version == kms.Version && slices.Contains(notHere, name), version == ram.Version && slices.Contains(ramNotHere, name):
		return nil, fault.New(fault.Unsupported, "This server does not have the operation %s.", name)
	}
	return nil, fault.New(fault.NoAction, "")
}

// Waits reports whether an operation may take long because it waits for something to happen, and for how long at most.
func Waits(version, name string) (time.Duration, bool) {
	o := index[version+"/"+name]
	if o == nil || !o.Waits {
		return 0, false
	}
	return o.Deadline, true
}

// NeedsNoRight reports whether any access key may use an operation at will. One that waits is not among them: a consumer
// has to use it.
func NeedsNoRight(version, name string) bool {
	o := index[version+"/"+name]
	return o != nil && o.Action == "" && !o.Waits
}

// Find finds an operation by version and name. The error is the one that a call of it gets.
func Find(version, name string) (*Op, error) { return lookup(version, name) }

// Known reports whether there is such an operation.
func Known(version, name string) bool { return index[version+"/"+name] != nil }

// Service returns the name of the service that has an API version; "" when none has.
func Service(version string) string {
	switch version {
	case kms.Version:
		return "Kms"
	case kms.STSVersion:
		return "Sts"
	case ram.Version:
		return "Ram"
	}
	return ""
}

// common are the parameters of version 1 that belong to no operation and are no secret (protocol.md section 3).
var common = []string{
	"Action", "Version", "Format", "AccessKeyId", "SignatureMethod", "SignatureVersion", "SignatureNonce", "SignatureType", "Signature",
	"Timestamp", "RegionId",
}

// harmless are the names of the parameters that hold no secret in any operation.
var harmless = func() map[string]bool {
	names := map[string]bool{}
	for _, name := range common {
		names[name] = true
	}
	for i := range operations {
		for _, p := range operations[i].Params() {
			_, known := names[p.Name]
			names[p.Name] = !p.Secret && p.Type != "json" && (!known || names[p.Name])
		}
	}
	return names
}()

// Harmless reports whether a parameter of that name is known and never holds a secret. JSON documents may hold anything.
func Harmless(name string) bool { return harmless[name] }
