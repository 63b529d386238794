// Package protocol is what everything that speaks the RPC protocol shares, without the code that
// serves it: every operation by version and name, the request that a door hands to a gate, and the
// codes of errors. The server, the agent and the command line use it.
package protocol

import (
	"slices"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
)

var operations = operation.Join(kms.Operations(), ram.Operations())

// notHere lists the operations that the cloud has under the version of KMS and this server has not:
// they are refused as unsupported, not as unknown.
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

// ramNotHere lists the operations of the user service that this server has not.
var ramNotHere = []string{
	"AttachPolicyToRole", "BindMFADevice", "ChangePassword", "ClearAccountAlias", "CreateLoginProfile", "CreateRole",
	"CreateVirtualMFADevice", "DecodeDiagnosticMessage", "DeleteLoginProfile", "DeleteRole", "DeleteVirtualMFADevice",
	"DetachPolicyFromRole", "GetAccountAlias", "GetLoginProfile", "GetPasswordPolicy", "GetRole",
	"GetSecurityPreference", "GetUserMFAInfo", "ListPoliciesForRole", "ListRoles", "ListTagResources",
	"ListVirtualMFADevices", "SetAccountAlias", "SetPasswordPolicy", "SetSecurityPreference", "TagResources",
	"UnbindMFADevice", "UntagResources", "UpdateLoginProfile", "UpdateRole",
}

// Operations returns every operation of every service.
func Operations() []*operation.Op { return operations.All() }

// Named returns the operation of that name; nil when there is none.
func Named(name string) *operation.Op { return operations.Named(name) }

// OfAction returns the operation whose own action that is, such as kms:GetSecretValue; nil for an
// action that operations need besides their own.
func OfAction(action string) *operation.Op { return operations.OfAction(action) }

// Find returns the operation of that version and name; nil when there is none.
func Find(version, name string) *operation.Op {
	if o := operations.Named(name); o != nil && o.Version == version {
		return o
	}
	return nil
}

// NotFound returns the error of a call that names no operation.
func NotFound(version, name string) error {
	switch {
	case Service(version) == "":
		return fault.New(fault.Version, "Use %s, %s for the token service, or %s for the user service.",
			kms.Version, kms.STSVersion, ram.Version)
	case name == "":
		return fault.New(fault.NoAction, "The request names no Action.")
	case version == kms.Version && slices.Contains(notHere, name),
		version == ram.Version && slices.Contains(ramNotHere, name):
		return fault.New(fault.Unsupported, "This server does not have the operation %s.", name)
	}
	return fault.New(fault.NoAction, "")
}

// Service returns the name of the service that has an API version; "" when none has.
func Service(version string) string { return services[version] }

var services = func() map[string]string {
	names := map[string]string{}
	for _, o := range Operations() {
		names[o.Version] = o.Service.Name
	}
	return names
}()

// common are the parameters of version 1 that belong to no operation and are no secret.
var common = []string{
	"Action", "Version", "Format", "AccessKeyId", "SignatureMethod", "SignatureVersion", "SignatureNonce",
	"SignatureType", "Signature", "Timestamp", "RegionId",
}

// harmless are the names of the parameters that hold no secret in any operation.
var harmless = func() map[string]bool {
	names := map[string]bool{}
	for _, name := range common {
		names[name] = true
	}
	for _, o := range Operations() {
		for _, p := range o.Params() {
			_, known := names[p.Name]
			names[p.Name] = !p.Secret && p.Type != "json" && (!known || names[p.Name])
		}
	}
	return names
}()

// Harmless reports whether a parameter of that name is known and never holds a secret. JSON
// documents may hold anything.
func Harmless(name string) bool { return harmless[name] }
