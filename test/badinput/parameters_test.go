package badinput_test

import (
	"fmt"
	"net/url"
	"strings"
)

type params = map[string]string

// with is base with more, for a call that is good but for that.
func with(base params, more ...string) params {
	p := params{}
	for name, value := range base {
		p[name] = value
	}
	for i := 0; i < len(more); i += 2 {
		p[more[i]] = more[i+1]
	}
	return p
}

func secretParameters(k kit) []row {
	var (
		create = params{"SecretName": "new", "VersionId": "v1", "SecretData": marker}
		put    = params{"SecretName": "good", "VersionId": "v2", "SecretData": marker}
		named  = params{"SecretName": "good"}
		rows   []row
	)
	add := func(name, action string, p params, want string) {
		rows = append(rows, row{action + " " + name, k.v3(action, p, nil), want})
	}
	for _, r := range []struct{ name, secret, want string }{
		{"without a name", "", missing},
		{"with a name of 193 characters", strings.Repeat("n", 193), invalid},
		{"with a name of 100 KB", strings.Repeat("n", 100_000), invalid},
		{"with NUL in the name", "good\x00", invalid},
		{"with a space in the name", "go od", invalid},
		{"with a colon in the name", "good:v1", invalid},
		{"with a look-alike name", "gооd", invalid},
		{"with a percent sign in the name", "good%", invalid},
		{"with a line break in the name", "good\n", invalid},
		{"with emoji in the name", "🔑", invalid},
		{"with a name up the tree", "../../accesskey", notFound},
		{"with a name in capitals", "GOOD", notFound},
		{"with an ARN of another region", "acs:kms:elsewhere:" + k.s.AccountID + ":secret/good", notFound},
		{"with an ARN of another account", "acs:kms:" + k.s.Region + ":1111111111111111:secret/good", notFound},
		{"with an ARN of a key", "acs:kms:" + k.s.Region + ":" + k.s.AccountID + ":key/good", notFound},
		{"with an ARN without a name", "acs:kms:" + k.s.Region + ":" + k.s.AccountID + ":secret/", invalid},
		{"with a bad name in an ARN", "acs:kms:" + k.s.Region + ":" + k.s.AccountID + ":secret/a b", invalid},
		{"with half an ARN", "acs:kms:", notFound},
		{"with an ARN of 100 KB", "acs:kms:" + strings.Repeat(":", 100_000), notFound},
	} {
		for _, action := range []string{"GetSecretValue", "DeleteSecret"} {
			add(r.name, action, params{"SecretName": r.secret}, r.want)
		}
	}
	add("of a name that is taken", "CreateSecret", with(create, "SecretName", "good"), exists)
	add("with an ARN", "CreateSecret",
		with(create, "SecretName", "acs:kms:"+k.s.Region+":"+k.s.AccountID+":secret/new"), invalid)
	add("with a reserved name", "CreateSecret", with(create, "SecretName", "acs/new"), invalid)
	add("with $Auto", "CreateSecret", with(create, "SecretName", "$Auto"), invalid)
	add("without a value", "CreateSecret", with(create, "SecretData", ""), missing)
	add("with a value of 30721 bytes", "CreateSecret",
		with(create, "SecretData", marker+strings.Repeat("x", 30721-len(marker))), invalid)
	add("with a value of 15361 letters of two bytes", "CreateSecret",
		with(create, "SecretData", strings.Repeat("é", 15361)), invalid)
	add("with a value of 900 KB", "CreateSecret", with(create, "SecretData", strings.Repeat(marker, 60_000)), invalid)
	add("without a version", "CreateSecret", with(create, "VersionId", ""), missing)
	add("with a version of 65 characters", "CreateSecret", with(create, "VersionId", strings.Repeat("v", 65)), invalid)
	add("with a colon in the version", "CreateSecret", with(create, "VersionId", "a:b"), invalid)
	add("with another data type", "CreateSecret", with(create, "SecretDataType", "json"), invalid)
	add("with a data type in capitals", "CreateSecret", with(create, "SecretDataType", "TEXT"), invalid)
	add("with another type", "CreateSecret", with(create, "SecretType", "Oracle"), invalid)
	add("with a type in lower case", "CreateSecret", with(create, "SecretType", "generic"), invalid)
	add("with a description of 8193 characters", "CreateSecret",
		with(create, "Description", strings.Repeat("é", 8193)), invalid)
	add("with another master key", "CreateSecret", with(create, "EncryptionKeyId", "no-such-key"), noKey)
	add("with a configuration for Generic", "CreateSecret", with(create, "ExtendedConfig", "{}"), invalid)
	add("of Rds without a configuration", "CreateSecret", with(create, "SecretType", "Rds"), missing)
	rds := with(create, "SecretType", "Rds", "ExtendedConfig", `{"SecretSubType":"SingleUser","DBInstanceId":"i"}`)
	add("of Rds with a configuration that is no JSON", "CreateSecret", with(rds, "ExtendedConfig", "{"+marker), invalid)
	add("of Rds with a list as configuration", "CreateSecret", with(rds, "ExtendedConfig", "[]"), invalid)
	add("of Rds with null as configuration", "CreateSecret", with(rds, "ExtendedConfig", "null"), invalid)
	add("of Rds with a configuration of 1025 characters", "CreateSecret",
		with(rds, "ExtendedConfig", `{"a":"`+strings.Repeat("x", 1017)+`"}`), invalid)
	add("of Rds with data that is no JSON", "CreateSecret", rds, invalid)
	add("of Rds that is binary", "CreateSecret", with(rds, "SecretDataType", "binary"), invalid)
	add("of Rds with rotation and no interval", "CreateSecret", with(rds, "EnableAutomaticRotation", "true"), missing)
	add("of Rds with an interval of 5h", "CreateSecret",
		with(rds, "EnableAutomaticRotation", "true", "RotationInterval", "5h"), invalid)
	add("of Rds with an interval of 20 digits", "CreateSecret",
		with(rds, "EnableAutomaticRotation", "true", "RotationInterval", strings.Repeat("9", 20)+"d"), invalid)
	add("of ECS with a name of another kind", "CreateSecret", with(create,
		"SecretType", "ECS",
		"SecretData", `{"UserName":"u","Password":"`+marker+`"}`,
		"ExtendedConfig", `{"SecretSubType":"Password","RegionId":"r","InstanceId":"i"}`), invalid)
	add("of Redis without $Auto", "CreateSecret", with(create,
		"SecretType", "Redis",
		"ExtendedConfig", `{"SecretSubType":"DoubleUsers","RegionId":"r","InstanceId":"i",`+
			`"AccountName":"a","CloneAccountName":"a_clone","AccountPrivilege":"p"}`), invalid)
	add("with a switch that is neither", "CreateSecret", with(create, "EnableAutomaticRotation", "yes"), invalid)
	add("with tags that are no JSON", "CreateSecret", with(create, "Tags", "k=v"), invalid)
	add("with an object as tags", "CreateSecret", with(create, "Tags", `{"TagKey":"k"}`), invalid)
	add("with a mistyped member of a tag", "CreateSecret",
		with(create, "Tags", `[{"Tagkey2":"k","TagValue":"v"}]`), invalid)
	add("with a number as tag", "CreateSecret", with(create, "Tags", `[{"TagKey":1,"TagValue":"v"}]`), invalid)
	add("with something behind the tags", "CreateSecret", with(create, "Tags", `[] []`), invalid)
	add("with an empty tag key", "CreateSecret", with(create, "Tags", `[{"TagKey":"","TagValue":"v"}]`), invalid)
	add("with a reserved tag key", "CreateSecret", with(create, "Tags", `[{"TagKey":"acs:k","TagValue":"v"}]`), invalid)
	add("with a tag of 129 characters", "CreateSecret",
		with(create, "Tags", `[{"TagKey":"k","TagValue":"`+strings.Repeat("v", 129)+`"}]`), invalid)
	add("with 21 tags", "CreateSecret", with(create, "Tags", tags(21)), limit)
	add("with a policy that is no JSON", "CreateSecret", with(create, "Policy", marker), invalid)
	add("with a policy over 32 KB", "CreateSecret",
		with(create, "Policy", `{"Version":"1","x":"`+strings.Repeat("x", 32768)+`"}`), invalid)
	add("with a policy nested 5,000 deep", "CreateSecret",
		with(create, "Policy", strings.Repeat(`{"a":`, 5000)+"1"+strings.Repeat("}", 5000)), invalid)
	add("with an instance of 129 characters", "CreateSecret",
		with(create, "DKMSInstanceId", strings.Repeat("d", 129)), invalid)

	add("of a secret that is not there", "PutSecretValue", with(put, "SecretName", "none"), notFound)
	add("with another value for a version", "PutSecretValue",
		with(put, "VersionId", "v1", "SecretData", "other "+marker), exists)
	add("without a value", "PutSecretValue", with(put, "SecretData", ""), missing)
	add("with a value too large", "PutSecretValue", with(put, "SecretData", strings.Repeat("x", 30721)), invalid)
	for name, stages := range map[string]string{
		"labels that are no JSON":             "ACSCurrent",
		"a number as label":                   "[1]",
		"an empty label":                      `[""]`,
		"ACSPrevious":                         `["ACSPrevious"]`,
		"a label with a space":                `["a b"]`,
		"a label of 65 characters":            `["` + strings.Repeat("l", 65) + `"]`,
		"labels in an object of another form": `{"Stage":["a"]}`,
		"a string in the object":              `{"VersionStage":"a"}`,
		"two members in the object":           `{"VersionStage":["a"],"x":["b"]}`,
		"labels nested":                       `[["a"]]`,
		"something behind the labels":         `["a"]x`,
	} {
		add("with "+name, "PutSecretValue", with(put, "VersionStages", stages), invalid)
	}
	add("with seven labels", "PutSecretValue", with(put, "VersionStages", `["a","b","c","d","e","f","g"]`), limit)
	add("with seven labels and a bad one", "PutSecretValue",
		with(put, "VersionStages", `["a","b","c","d","e","f","g","z z"]`), invalid)
	add("with 1000 labels", "PutSecretValue", with(put, "VersionStages", labels(1000)), limit)

	move := with(named, "VersionStage", "a")
	add("without a label", "UpdateSecretVersionStage", with(named, "MoveToVersion", "v1"), missing)
	add("without a version", "UpdateSecretVersionStage", move, invalid)
	nowhere := params{"SecretName": "none"}
	add("without a version, of a secret that is not there", "UpdateSecretVersionStage",
		with(nowhere, "VersionStage", "a"), invalid)
	add("that takes ACSPrevious away, of a secret that is not there", "UpdateSecretVersionStage",
		with(nowhere, "VersionStage", "ACSPrevious", "RemoveFromVersion", "v1"), invalid)
	add("of a secret that is not there", "UpdateSecretVersionStage",
		with(nowhere, "VersionStage", "a", "MoveToVersion", "v1"), notFound)
	add("to a version that is not there", "UpdateSecretVersionStage", with(move, "MoveToVersion", "v9"), notFound)
	add("from a version without it", "UpdateSecretVersionStage", with(move, "RemoveFromVersion", "v1"), invalid)
	add("that takes ACSCurrent away", "UpdateSecretVersionStage",
		with(named, "VersionStage", "ACSCurrent", "RemoveFromVersion", "v1"), invalid)
	add("of ACSPrevious onto the current version", "UpdateSecretVersionStage",
		with(named, "VersionStage", "ACSPrevious", "MoveToVersion", "v1"), invalid)
	add("with a label of 65 characters", "UpdateSecretVersionStage",
		with(named, "VersionStage", strings.Repeat("l", 65), "MoveToVersion", "v1"), invalid)
	add("with a label with a space", "UpdateSecretVersionStage",
		with(named, "VersionStage", "a b", "MoveToVersion", "v1"), invalid)
	add("with a version of 65 characters", "UpdateSecretVersionStage",
		with(move, "MoveToVersion", strings.Repeat("v", 65)), invalid)

	add("of a version that is not there", "GetSecretValue", with(named, "VersionId", "v9"), notFound)
	add("of a label that is not there", "GetSecretValue", with(named, "VersionStage", "none"), notFound)
	add("of a version without the label", "GetSecretValue",
		with(named, "VersionId", "v1", "VersionStage", "ACSPrevious"), notFound)
	add("of a label of 65 characters", "GetSecretValue", with(named, "VersionStage", strings.Repeat("l", 65)), invalid)
	add("with a version that holds another key", "GetSecretValue", with(named, "VersionId", "v1/../../x"), notFound)
	add("as a dry run", "GetSecretValue", with(named, "DryRun", "true"), "400 DryRunOperationError")
	add("as a dry run of nothing", "GetSecretValue", params{"SecretName": "none", "DryRun": "true"}, "400 ValidationError")
	add("with a switch that is neither", "GetSecretValue", with(named, "FetchExtendedConfig", "1"), invalid)

	for name, days := range map[string]string{
		"6":                "6",
		"31":               "31",
		"minus one":        "-1",
		"seven and a half": "7.5",
		"plus seven":       "+7",
		"0x7":              "0x7",
		"20 digits":        strings.Repeat("9", 20),
		"other digits":     "７",
		"a space":          " 7",
	} {
		add("in "+name+" days", "DeleteSecret", with(named, "RecoveryWindowInDays", days), invalid)
	}
	add("with force maybe", "DeleteSecret", with(named, "ForceDeleteWithoutRecovery", "maybe"), invalid)
	add("of a live secret", "RestoreSecret", named, inUse)
	add("of nothing", "RestoreSecret", params{"SecretName": "none"}, notFound)
	return rows
}

func labels(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf(`"l%d"`, i))
	}
	return "[" + strings.Join(list, ",") + "]"
}

func tags(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf(`{"TagKey":"k%d","TagValue":"v"}`, i))
	}
	return "[" + strings.Join(list, ",") + "]"
}

func otherParameters(k kit) []row {
	var rows []row
	named := params{"SecretName": "good"}
	add := func(name, action string, p params, want string) {
		rows = append(rows, row{action + " " + name, k.v3(action, p, func(a *acs) {
			if len(p["Policy"]) > 0 || action == "TagResources" {
				a.contentType, a.body, a.query = formType, k.form(p), nil
			}
		}), want})
	}
	for name, n := range map[string]string{
		"0":          "0",
		"minus one":  "-1",
		"a word":     "one",
		"20 digits":  strings.Repeat("9", 20),
		"a fraction": "1.5",
		"e notation": "1e3",
	} {
		add("page "+name, "ListSecrets", params{"PageNumber": n}, invalid)
		add("of size "+name, "ListSecretVersionIds", with(named, "PageSize", n), invalid)
	}
	add("of 101 rows", "ListSecrets", params{"PageSize": "101"}, invalid)
	add("with filters that are no JSON", "ListSecrets", params{"Filters": "SecretName=a"}, invalid)
	add("with an object as filters", "ListSecrets", params{"Filters": `{"Key":"SecretName"}`}, invalid)
	add("with an unknown filter", "ListSecrets", params{
		"Filters": `[{"Key":"SecretData","Values":["` + marker + `"]}]`,
	}, invalid)
	add("with 11 filters", "ListSecrets", params{
		"Filters": "[" + strings.TrimSuffix(strings.Repeat(`{"Key":"SecretName","Values":[]},`, 11), ",") + "]",
	}, invalid)
	add("with 11 values", "ListSecrets", params{
		"Filters": `[{"Key":"SecretName","Values":["1","2","3","4","5","6","7","8","9","10","11"]}]`,
	}, invalid)
	add("with FetchTags 2", "ListSecrets", params{"FetchTags": "2"}, invalid)

	for name, n := range map[string]string{"7": "7", "129": "129", "a word": "long", "minus eight": "-8"} {
		add("of length "+name, "GetRandomPassword", params{"PasswordLength": n}, invalid)
	}
	add("from nothing", "GetRandomPassword", params{
		"ExcludeLowercase":   "true",
		"ExcludeUppercase":   "true",
		"ExcludeNumbers":     "true",
		"ExcludePunctuation": "true",
	}, invalid)
	add("without digits that needs one", "GetRandomPassword", params{
		"ExcludeCharacters":       "0123456789",
		"RequireEachIncludedType": "true",
	}, invalid)
	add("with 101 characters left out", "GetRandomPassword", params{
		"ExcludeCharacters": strings.Repeat("a", 101),
	}, invalid)

	add("of a description of 8193 characters", "UpdateSecret",
		with(named, "Description", strings.Repeat("d", 8193)), invalid)
	add("of data for a Generic secret", "UpdateSecret", with(named, "ExtendedConfig.CustomData", `{"a":"b"}`), invalid)
	add("of data in two forms", "UpdateSecret",
		with(named, "ExtendedConfig.CustomData", `{"a":"b"}`, "ExtendedConfig.CustomData.a", "b"), invalid)
	add("of data that is a list", "UpdateSecret", with(named, "ExtendedConfig.CustomData", `["a"]`), invalid)

	add("of a Generic secret", "RotateSecret", with(named, "VersionId", "v2"), notHere)
	add("without a version", "RotateSecret", named, missing)
	add("of a Generic secret", "UpdateSecretRotationPolicy",
		with(named, "EnableAutomaticRotation", "true", "RotationInterval", "7d"), notHere)
	add("without a switch", "UpdateSecretRotationPolicy", named, missing)

	add("of another name", "GetSecretPolicy", with(named, "PolicyName", "other"), notFound)
	add("without a policy", "SetSecretPolicy", named, missing)
	add("of another name", "SetSecretPolicy", with(named, "PolicyName", "other", "Policy",
		`{"Version":"1","Statement":[{"Effect":"Allow","Principal":{"RAM":["acs:ram::`+k.s.AccountID+
			`:*"]},"Action":["kms:*"],"Resource":["*"]}]}`), notFound)
	for name, policy := range map[string]string{
		"that is no JSON": "{" + marker, "that is a list": "[]", "of no statement": `{"Version":"1","Statement":[]}`,
		"of another version": `{"Version":"2","Statement":[]}`,
		"of another service": `{"Version":"1","Statement":[{"Effect":"Allow","Principal":{"RAM":["acs:ram::` +
			k.s.AccountID + `:*"]},"Action":["ecs:*"],"Resource":["*"]}]}`,
		"that locks everyone out": `{"Version":"1","Statement":[{"Effect":"Deny","Principal":{"RAM":["*"]},` +
			`"Action":["kms:*"],"Resource":["*"]}]}`,
		"with something behind it": `{"Version":"1","Statement":[]} x`,
		"of 33 KB":                 `{"Version":"1","Statement":[],"x":"` + strings.Repeat("x", 33_000) + `"}`,
		"nested 20,000 deep":       strings.Repeat("[", 15_000) + strings.Repeat("]", 15_000),
		"with an effect in lower case": `{"Version":"1","Statement":[{"Effect":"allow","Principal":{"RAM":["acs:ram::` +
			k.s.AccountID + `:*"]},"Action":["kms:*"],"Resource":["*"]}]}`,
	} {
		add(name, "SetSecretPolicy", with(named, "Policy", policy), invalid)
	}

	add("of nothing", "TagResource", params{"Tags": tags(1)}, invalid)
	add("of two things", "TagResource", with(named, "KeyId", "k", "Tags", tags(1)), invalid)
	add("of a key", "TagResource", params{"KeyId": "k", "Tags": tags(1)}, noKey)
	add("of a certificate", "TagResource", params{"CertificateId": "c", "Tags": tags(1)}, notFound)
	add("of an ARN", "TagResource", params{
		"SecretName": "acs:kms:" + k.s.Region + ":" + k.s.AccountID + ":secret/good",
		"Tags":       tags(1),
	}, invalid)
	add("without tags", "TagResource", named, missing)
	add("with 21 tags", "TagResource", with(named, "Tags", tags(21)), limit)
	add("with keys that are no JSON", "UntagResource", with(named, "TagKeys", `["a"`), invalid)
	add("of a key", "ListResourceTags", params{"KeyId": "k"}, noKey)
	add("of nothing", "ListResourceTags", nil, missing)

	several := params{
		"RegionId":     "local",
		"ResourceType": "secret",
		"ResourceId.1": "good",
		"Tag.1.Key":    "k",
		"Tag.1.Value":  "v",
	}
	without := func(name string) params { p := with(several); delete(p, name); return p }
	add("without a region", "TagResources", without("RegionId"), missing)
	add("without a type", "TagResources", without("ResourceType"), missing)
	add("without a resource", "TagResources", without("ResourceId.1"), missing)
	add("without a key", "TagResources", without("Tag.1.Key"), invalid)
	add("of another type", "TagResources", with(several, "ResourceType", "disk"), invalid)
	add("of resource 0", "TagResources", with(several, "ResourceId.0", "good"), invalid)
	add("of resource 01", "TagResources", with(several, "ResourceId.01", "good"), invalid)
	add("of resource -1", "TagResources", with(several, "ResourceId.-1", "good"), invalid)
	add("of resource x", "TagResources", with(several, "ResourceId.x", "good"), invalid)
	add("of resource 2 to the 64", "TagResources", with(several, "ResourceId.18446744073709551616", "good"), invalid)
	add("of an empty resource", "TagResources", with(several, "ResourceId.2", ""), invalid)
	add("of a resource with a bad name", "TagResources", with(several, "ResourceId.2", "a b"), invalid)
	add("of a resource that is not there", "TagResources", with(several, "ResourceId.2", "none"), notFound)
	add("of a key", "TagResources", with(several, "ResourceType", "key"), noKey)
	many, manyTags := with(several), with(several)
	for i := range 51 {
		many[fmt.Sprint("ResourceId.", i+1)] = "good"
	}
	for i := range 21 {
		manyTags[fmt.Sprintf("Tag.%d.Key", i+1)] = fmt.Sprint("k", i)
	}
	add("of 51 resources", "TagResources", many, invalid)
	add("with 21 tags", "TagResources", manyTags, invalid)
	add("of nothing in particular", "UntagResources", params{
		"RegionId":     "local",
		"ResourceType": "secret",
		"ResourceId.1": "good",
	}, missing)
	add("with a token that is none", "ListTagResources", params{
		"RegionId":     "local",
		"ResourceType": "secret",
		"NextToken":    marker,
	}, invalid)
	return rows
}

// form is the parameters as a body.
func (k kit) form(p params) string {
	values := make([]string, 0, len(p))
	for name, value := range p {
		values = append(values, url.QueryEscape(name)+"="+url.QueryEscape(value))
	}
	return strings.Join(values, "&")
}
