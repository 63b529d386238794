package users

import "time"

// systemPolicies are the policies that come with the service, as the reference prints them, without
// what they say of services that are not here (RDS and ECS instances, service-linked roles).
var systemPolicies = []Policy{
	system("AdministratorAccess", "v1", "Everything.", 2016,
		`{"Version":"1","Statement":[{"Action":"*","Resource":"*","Effect":"Allow"}]}`),
	system("AliyunKMSFullAccess", "v3", "Everything in the Key Management Service.", 2018,
		`{"Version":"1","Statement":[{"Action":"kms:*","Resource":"*","Effect":"Allow"}]}`),
	system("AliyunKMSReadOnlyAccess", "v3", "Lists and metadata of the Key Management Service, without values.", 2018,
		`{"Version":"1","Statement":[{"Action":["kms:List*","kms:Describe*","kms:GetPublicKey",`+
			`"kms:GetUploadBackupDataInfo",`+
			`"kms:GetKmsInstanceSharedAccounts","kms:GetKmsInstanceQuotaInfos","kms:GetCheckAssociateResourceTaskResults",`+
			`"kms:GetKeyPolicy","kms:GetKeyDefaultPolicy","kms:GetSecretPolicy","kms:GetSecretDefaultPolicy",`+
			`"kms:GetKmsInstance","kms:GetDefaultKmsInstance"],"Resource":"*","Effect":"Allow"}]}`),
	system("AliyunKMSSecretAdminAccess", "v5", "Everything with secrets.", 2020,
		`{"Version":"1","Statement":[{"Action":"kms:*","Resource":"acs:kms:*:*:secret*","Effect":"Allow"},`+
			`{"Action":"kms:GetRandomPassword","Resource":"*","Effect":"Allow"}]}`),
	system("AliyunKMSSecretUserAccess", "v1", "Values and metadata of secrets.", 2020,
		`{"Statement":[{"Effect":"Allow","Action":["kms:GetSecretValue"],"Resource":"*"},`+
			`{"Effect":"Allow","Action":["kms:DescribeSecret","kms:ListSecretVersionIds"],"Resource":"*"}],"Version":"1"}`),
}

func system(name, version, description string, year int, document string) Policy {
	at := time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
	return Policy{
		Account:     "system",
		Type:        System,
		Name:        name,
		Description: description,
		CreatedAt:   at,
		UpdatedAt:   at,
		Default:     version,
		Versions:    []Version{{ID: version, Document: document, CreatedAt: at}},
	}
}

// SystemPolicies are the policies that come with the service, in the order of names.
func SystemPolicies() []Policy { return systemPolicies }

// SystemPolicy finds one of them.
func SystemPolicy(name string) (Policy, bool) {
	for i := range systemPolicies {
		if systemPolicies[i].Name == name {
			return systemPolicies[i], true
		}
	}
	return Policy{}, false
}
