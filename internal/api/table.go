package api

import (
	"slices"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/kms"
)

// operations is every operation of the API, each one line: name, resource, function.
var operations = []Op{
	change(op("CreateSecret", container[kms.CreateSecretRequest](), createSecret)),
	change(op("DeleteSecret", named(func(in *kms.DeleteSecretRequest) *string { return &in.SecretName }), deleteSecret)),
	change(op("RestoreSecret", named(func(in *kms.RestoreSecretRequest) *string { return &in.SecretName }), restoreSecret)),
	op("DescribeSecret", named(func(in *kms.DescribeSecretRequest) *string { return &in.SecretName }), describeSecret),
	op("GetRandomPassword", nothing[kms.GetRandomPasswordRequest](), getRandomPassword),
	op("GetSecretValue", named(func(in *kms.GetSecretValueRequest) *string { return &in.SecretName }), getSecretValue),
	op("ListSecrets", container[kms.ListSecretsRequest](), listSecrets),
	op("ListSecretVersionIds", named(func(in *kms.ListSecretVersionIdsRequest) *string { return &in.SecretName }), listSecretVersionIds),
	change(op("PutSecretValue", named(func(in *kms.PutSecretValueRequest) *string { return &in.SecretName }), putSecretValue)),
	change(op("UpdateSecret", named(func(in *kms.UpdateSecretRequest) *string { return &in.SecretName }), updateSecret)),
	change(op("UpdateSecretVersionStage", named(func(in *kms.UpdateSecretVersionStageRequest) *string { return &in.SecretName }), updateSecretVersionStage)),
	change(op("RotateSecret", named(func(in *kms.RotateSecretRequest) *string { return &in.SecretName }), rotateSecret)),
	change(op("UpdateSecretRotationPolicy", named(func(in *kms.UpdateSecretRotationPolicyRequest) *string { return &in.SecretName }), updateSecretRotationPolicy)),
	op("GetSecretPolicy", named(func(in *kms.GetSecretPolicyRequest) *string { return &in.SecretName }), getSecretPolicy),
	only("POST", change(op("SetSecretPolicy", named(func(in *kms.SetSecretPolicyRequest) *string { return &in.SecretName }), setSecretPolicy))),

	change(op("TagResource", tagged(func(in *kms.TagResourceRequest) (string, string, string) {
		return in.KeyID, in.SecretName, in.CertificateID
	}), tagResource)),
	change(op("UntagResource", tagged(func(in *kms.UntagResourceRequest) (string, string, string) {
		return in.KeyID, in.SecretName, in.CertificateID
	}), untagResource)),
	op("ListResourceTags", key(func(in *kms.ListResourceTagsRequest) string { return in.KeyID }), listResourceTags),
	change(op("TagResources", listed(func(in *kms.TagResourcesRequest) (string, []string) { return in.ResourceType, in.ResourceIDs }), tagResources)),
	change(op("UntagResources", listed(func(in *kms.UntagResourcesRequest) (string, []string) { return in.ResourceType, in.ResourceIDs }), untagResources)),
	op("ListTagResources", listed(func(in *kms.ListTagResourcesRequest) (string, []string) { return in.ResourceType, in.ResourceIDs }), listTagResources),

	open(op("DescribeRegions", nothing[kms.DescribeRegionsRequest](), describeRegions)),
	op("DescribeAccountKmsStatus", nothing[kms.DescribeAccountKmsStatusRequest](), describeAccountKmsStatus),
	open(sts(op("GetCallerIdentity", nothing[kms.GetCallerIdentityRequest](), getCallerIdentity))),
}

// notHere are the operations of this API version that the server does not have: known, and refused as unsupported.
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
	case version != kms.Version && version != kms.STSVersion:
		return nil, fault.New(fault.Version, "Use %s, or %s for the token service.", kms.Version, kms.STSVersion)
	case name == "":
		return nil, fault.New(fault.NoAction, "The request names no Action.")
	case version == kms.Version && slices.Contains(notHere, name):
		return nil, fault.New(fault.Unsupported, "This server does not have the operation %s.", name)
	}
	return nil, fault.New(fault.NoAction, "")
}

// Known reports whether there is such an operation.
func Known(version, name string) bool { return index[version+"/"+name] != nil }
