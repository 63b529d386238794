package escalate

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
)

// foundation is what every world begins with: an administrator, an application and a user with a
// grant in a secret's policy, the operator's secrets and targets, and two users without rights. The
// target "later" is not registered yet.
const foundation = `
root CreateUser UserName=boss
root CreateUser UserName=app
root CreateUser UserName=alice
root CreateUser UserName=mallory
root CreateUser UserName=eve
root AttachPolicyToUser UserName=boss PolicyType=System PolicyName=AdministratorAccess
allow app kms:GetSecretValue on secret/prod/*
root CreateSecret SecretName=prod/admin VersionId=v1
... SecretData={"AccountName":"keyturn","AccountPassword":"password-of-the-administrator"}
root RegisterTarget TargetName=cache Kind=admin Config={"address":"op:1"} AdminSecretName=prod/admin
root RegisterTarget TargetName=store Kind=plain Config={"address":"op:1"} AdminSecretName=prod/admin
root CreateSecret SecretName=prod/app VersionId=v1 SecretType=Rds
... ExtendedConfig={"SecretSubType":"SingleUser","DBInstanceId":"cache"}
... SecretData={"Accounts":[{"AccountName":"app","AccountPassword":"password-of-the-application"}]}
root CreateSecret SecretName=prod/client VersionId=v1
... SecretData={"client_id":"idp","client_secret":"password-of-the-client"}
root RegisterTarget TargetName=idp Kind=self Config={"address":"op:2"}
root ConfigureRotation SecretName=prod/client TargetName=idp
root CreateSecret SecretName=prod/plain VersionId=v1 SecretData=plain-value-of-the-operator
root CreateSecret SecretName=shared/alice VersionId=v1 SecretData=plain-value-for-alice
root SetSecretPolicy SecretName=shared/alice
... Policy={"Version":"1","Statement":[{"Effect":"Allow","Principal":{"RAM":["acs:ram::ACCOUNT:user/alice"]},"Action":["kms:GetSecretValue"],"Resource":["*"]}]}
engine
`

func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// compact is JSON of values that cannot fail.
func compact(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// notSecret are the members of a value that say whose it is.
var notSecret = []string{"AccountName", "UserName", "client_id", "AccessKeyId", "GenerateTimestamp"}

// leaves are the secret texts in a JSON value.
func leaves(text string) []string {
	var v any
	if json.Unmarshal([]byte(text), &v) != nil {
		return nil
	}
	return leavesOf(v, nil)
}

func leavesOf(v any, list []string) []string {
	switch v := v.(type) {
	case string:
		list = append(list, v)
	case []any:
		for _, item := range v {
			list = leavesOf(item, list)
		}
	case map[string]any:
		for name, item := range v {
			if !slices.Contains(notSecret, name) {
				list = leavesOf(item, list)
			}
		}
	}
	return list
}
