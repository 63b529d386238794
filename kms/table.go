package kms

import (
	"time"

	"github.com/keyturn/keyturn/internal/operation"
)

var (
	service      = operation.Service{Name: "Kms", Version: Version}
	tokenService = operation.Service{Name: "Sts", Version: STSVersion}
)

// operations declares every operation once. The client, the server, the agent and the command line
// read it.
var operations = operation.NewTable(
	declare[CreateSecretRequest, CreateSecretResponse]("CreateSecret").On("secret").Mutates().
		AlsoNeeds("kms:SetSecretPolicy", "secret/${SecretName}").Rotates(),
	declare[DeleteSecretRequest, DeleteSecretResponse]("DeleteSecret").Mutates().Grantable(),
	declare[RestoreSecretRequest, SecretNameResponse]("RestoreSecret").Mutates().Grantable(),
	declare[DescribeSecretRequest, DescribeSecretResponse]("DescribeSecret").Grantable(),
	declare[GetRandomPasswordRequest, GetRandomPasswordResponse]("GetRandomPassword").On("*").Impersonal(),
	declare[GetSecretValueRequest, GetSecretValueResponse]("GetSecretValue").Grantable().DryRun(),
	declare[ListSecretsRequest, ListSecretsResponse]("ListSecrets").On("secret"),
	declare[ListSecretVersionIdsRequest, ListSecretVersionIdsResponse]("ListSecretVersionIds").Grantable(),
	declare[PutSecretValueRequest, PutSecretValueResponse]("PutSecretValue").Mutates().Retryable().Grantable(),
	declare[UpdateSecretRequest, SecretNameResponse]("UpdateSecret").Mutates().Retryable().Grantable(),
	declare[UpdateSecretVersionStageRequest, SecretNameResponse]("UpdateSecretVersionStage").Mutates().Grantable(),
	declare[RotateSecretRequest, RotateSecretResponse]("RotateSecret").Mutates().Retryable().Grantable().Rotates().
		Sends(),
	declare[UpdateSecretRotationPolicyRequest, SecretNameResponse]("UpdateSecretRotationPolicy").Mutates().
		Retryable().Grantable().Rotates().Sends(),
	declare[GetSecretPolicyRequest, GetSecretPolicyResponse]("GetSecretPolicy").Repairs(),
	declare[SetSecretPolicyRequest, EmptyResponse]("SetSecretPolicy").Mutates().Retryable().Repairs().Only("POST"),
	declare[WatchSecretsRequest, WatchSecretsResponse]("WatchSecrets").On("*").AnyCaller().Waits(50*time.Second),
	declare[ListSecretConsumersRequest, ListSecretConsumersResponse]("ListSecretConsumers").Grantable(),
	declare[RegisterTargetRequest, TargetNameResponse]("RegisterTarget").On("target").
		And("secret/${AdminSecretName}").Mutates().Grantable().Sends().Programs(),
	declare[TargetNameRequest, DescribeTargetResponse]("DescribeTarget"),
	declare[ListTargetsRequest, ListTargetsResponse]("ListTargets").On("target"),
	declare[UpdateTargetRequest, TargetNameResponse]("UpdateTarget").And("secret/${AdminSecretName}").Mutates().
		Retryable().Grantable().Sends().Programs(),
	declare[DeregisterTargetRequest, TargetNameResponse]("DeregisterTarget").Mutates().
		AlsoNeeds("kms:RemoveRotation", "secret/${SecretName}"),
	declare[TestTargetRequest, TestTargetResponse]("TestTarget").And("secret/${SecretName}").Mutates().Retryable().
		Grantable().AsksTarget(),
	declare[PrepareTargetAccountsRequest, PrepareTargetAccountsResponse]("PrepareTargetAccounts").And("secret").
		Mutates().Retryable().Rotates().AsksTarget(),
	declare[ConfigureRotationRequest, DescribeRotationResponse]("ConfigureRotation").And("target/${TargetName}").
		Mutates().Retryable().Grantable().Rotates().Sends(),
	declare[SecretNameRequest, SecretNameResponse]("RemoveRotation").Mutates().Retryable().Grantable(),
	declare[SecretNameRequest, DescribeRotationResponse]("DescribeRotation").Grantable(),
	declare[RotateRootKeyRequest, RootKeyResponse]("RotateRootKey").On("rootkey").Mutates().ByName(),
	declare[RotateLocalCARequest, RotateLocalCAResponse]("RotateLocalCA").On("localca").Mutates().ByName(),
	declare[DescribeRootKeyRequest, RootKeyResponse]("DescribeRootKey").On("rootkey"),
	declare[ListRotationsRequest, ListRotationsResponse]("ListRotations").On("secret"),
	declare[PauseRotationRequest, EmptyResponse]("PauseRotation").OnFound("secret, target or *").Mutates().
		Retryable().Grantable(),
	declare[PauseRotationRequest, EmptyResponse]("ResumeRotation").OnFound("secret, target or *").Mutates().
		Retryable().Grantable(),
	declare[PauseRotationRequest, EmptyResponse]("ProbeRotation").OnFound("secret, target or *").Mutates().
		Retryable().Grantable().AsksTarget(),
	declare[VersionedRequest, RotateSecretResponse]("RehearseRotation").Mutates().Retryable().Grantable().
		Rotates().Sends(),
	declare[EmergencyRotationRequest, EmergencyRotationResponse]("EmergencyRotation").Mutates().Retryable().
		Grantable().Rotates().Sends(),
	declare[SecretNameRequest, SecretNameResponse]("EndRotationGrace").Mutates().Retryable().Grantable().Rotates().
		Sends(),
	declare[SecretNameRequest, SecretNameResponse]("UndoRotation").Mutates().Grantable().Rotates().Sends(),
	declare[SecretNameRequest, DescribeRotationResponse]("CancelRotation").Mutates().Grantable().Rotates().Sends(),
	declare[RepairRotationRequest, DescribeRotationResponse]("RepairRotation").Mutates().Grantable().Rotates().
		Sends().AsksTarget(),
	declare[TagResourceRequest, EmptyResponse]("TagResource").OnFound("key or secret").Mutates().Retryable().
		Grantable(),
	declare[UntagResourceRequest, EmptyResponse]("UntagResource").OnFound("key or secret").Mutates().Retryable().
		Grantable(),
	declare[ListResourceTagsRequest, ListResourceTagsResponse]("ListResourceTags"),
	declare[TagResourcesRequest, EmptyResponse]("TagResources").OnFound("each").Mutates().Retryable().Grantable(),
	declare[UntagResourcesRequest, EmptyResponse]("UntagResources").OnFound("each").Mutates().Retryable().Grantable(),
	declare[ListTagResourcesRequest, ListTagResourcesResponse]("ListTagResources").OnFound("each").Grantable(),
	declare[DescribeAuditTrailRequest, DescribeAuditTrailResponse]("DescribeAuditTrail").On("*"),
	declare[DescribeRegionsRequest, DescribeRegionsResponse]("DescribeRegions").On("*").AnyCaller().Impersonal(),
	declare[DescribeAccountKmsStatusRequest, DescribeAccountKmsStatusResponse]("DescribeAccountKmsStatus").On("*").
		Impersonal(),
	declareToken[GetCallerIdentityRequest, GetCallerIdentityResponse]("GetCallerIdentity").On("*").AnyCaller().
		Impersonal(),
)

func declare[In, Out any](name string) operation.Declaration {
	return operation.Declare[In, Out](service, name)
}

func declareToken[In, Out any](name string) operation.Declaration {
	return operation.Declare[In, Out](tokenService, name)
}

// Operations returns the description of every operation of this package. Its type may change from
// release to release: it is for the commands and the server of this module.
func Operations() *operation.Table { return operations }
