package secrecy_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
	"github.com/keyturn/keyturn/test/support"
)

// The values. The second one has all that some form of writing escapes.
const (
	marker  = "mKq7Zm4RkX2vB9tLw"
	special = `mark & "quoted" <é>/+%41 \ end`
)

// both is a value that holds both, so that whatever it is cut to is found.
const both = marker + special + marker

// step is a call that is to succeed, or to be refused with a code. Its parameters are name and
// value in turns.
type step struct {
	action string
	code   string
	params []string
}

const policyDocument = `{"Version":"1","Statement":[{"Effect":"Allow","Action":"kms:ListSecrets","Resource":"*"}]}`

// steps reach every operation of the table.
func steps() []step {
	do := func(action string, params ...string) step { return step{action, "", params} }
	return []step{
		do("CreateSecret", "SecretName", "a", "VersionId", "v1", "SecretData", both),
		{
			"CreateSecret",
			kms.CodeResourceExist,
			[]string{"SecretName", "a", "VersionId", "v2", "SecretData", both + "another"},
		},
		do("PutSecretValue", "SecretName", "a", "VersionId", "v2", "SecretData", special+marker),
		do("PutSecretValue", "SecretName", "a", "VersionId", "v2", "SecretData", special+marker),
		{"PutSecretValue", kms.CodeResourceExist, []string{"SecretName", "a", "VersionId", "v2", "SecretData", both}},
		do("GetSecretValue", "SecretName", "a"),
		do("DescribeSecret", "SecretName", "a", "FetchTags", "true"),
		do("ListSecrets"),
		do("ListSecretVersionIds", "SecretName", "a", "IncludeDeprecated", "true"),
		do("UpdateSecret", "SecretName", "a", "Description", "described"),
		do("UpdateSecretVersionStage", "SecretName", "a", "VersionStage", "ACSCurrent", "MoveToVersion", "v1"),
		do("GetRandomPassword", "PasswordLength", "32"),
		{"RotateSecret", kms.CodeUnsupportedOperation, []string{"SecretName", "a", "VersionId", "v3"}},
		{
			"UpdateSecretRotationPolicy",
			kms.CodeUnsupportedOperation,
			[]string{"SecretName", "a", "EnableAutomaticRotation", "true", "RotationInterval", "7d"},
		},
		do("CreateSecret", "SecretName", "admin", "VersionId", "v1", "SecretData",
			`{"AccountName":"root","AccountPassword":"`+marker+`"}`),
		do("CreateSecret", "SecretName", "r", "VersionId", "v1", "SecretData",
			`{"AccountName":"app","AccountPassword":"`+marker+`","other":"`+marker+`"}`),
		do("RegisterTarget", "TargetName", "t", "Kind", "redis", "AdminSecretName", "admin", "Config",
			`{"nodes":["127.0.0.1:1"],"tls":{"off":true}}`),
		{
			"RegisterTarget",
			kms.CodeInvalidParameter,
			[]string{"TargetName", "u", "Kind", "redis", "AdminSecretName", "admin", "Config", `{"password":"` + marker + `"}`},
		},
		do("DescribeTarget", "TargetName", "t"),
		do("ListTargets"),
		do("UpdateTarget", "TargetName", "t", "Description", "d"),
		do("TestTarget", "TargetName", "t"),
		do("ConfigureRotation", "SecretName", "r", "TargetName", "t", "GracePeriod", "0s"),
		do("TestTarget", "TargetName", "t", "SecretName", "r"),
		do("CheckRotation", "SecretName", "r"),
		{
			"PrepareTargetAccounts",
			kms.CodeUnsupportedOperation,
			[]string{"TargetName", "t", "AccountName", "app", "CloneAccountName", "clone", "AccountPassword", both},
		},
		do("RotateRootKey", "ReencryptValues", "true"),
		do("DescribeRootKey"),
		do("RotateLocalCA"),
		do("ProbeRotation"),
		do("PauseRotation"),
		do("ResumeRotation"),
		do("PauseRotation", "SecretName", "r"),
		do("ResumeRotation", "SecretName", "r"),
		{"UndoRotation", kms.CodeResourceInUse, []string{"SecretName", "r"}},
		{"EndRotationGrace", kms.CodeResourceInUse, []string{"SecretName", "r"}},
		{"CancelRotation", kms.CodeResourceInUse, []string{"SecretName", "r"}},
		{"RepairRotation", kms.CodeResourceInUse, []string{
			"SecretName", "r", "RepairAction", "adopt", "VersionId", "v9",
			"SecretData", `{"AccountName":"app","AccountPassword":"` + marker + `"}`,
		}},
		do("RotateSecret", "SecretName", "r", "VersionId", "v2"),
		{"RehearseRotation", kms.CodeResourceInUse, []string{"SecretName", "r", "VersionId", "v3"}},
		do("EmergencyRotation", "SecretName", "r", "VersionId", "v4"),
		do("DescribeRotation", "SecretName", "r"),
		do("ListRotations"),
		do("WatchSecrets", "Secret.1.SecretName", "r", "Secret.1.VersionId", "v1", "Consumer", "app-1"),
		do("ListSecretConsumers", "SecretName", "r"),
		do("DescribeAuditTrail"),
		{"RemoveRotation", kms.CodeResourceInUse, []string{"SecretName", "r"}},
		{"DeregisterTarget", kms.CodeResourceInUse, []string{"TargetName", "t"}},
		do("SetSecretPolicy", "SecretName", "a", "Policy",
			`{"Version":"1","Statement":[{"Effect":"Allow","Action":["kms:Get*"],"Resource":["*"],`+
				`"Principal":{"RAM":["acs:ram::ACCOUNT:*"]}}]}`),
		do("GetSecretPolicy", "SecretName", "a"),
		do("TagResource", "SecretName", "a", "Tags", `[{"TagKey":"k","TagValue":"v"}]`),
		do("UntagResource", "SecretName", "a", "TagKeys", `["k"]`),
		{"ListResourceTags", kms.CodeKeyNotFound, []string{"KeyId", "none"}},
		do("TagResources", "RegionId", "local", "ResourceType", "secret", "ResourceId.1", "a",
			"Tag.1.Key", "k", "Tag.1.Value", "v"),
		do("ListTagResources", "RegionId", "local", "ResourceType", "secret"),
		do("UntagResources", "RegionId", "local", "ResourceType", "secret", "ResourceId.1", "a", "All", "true"),
		do("DescribeRegions"),
		do("DescribeAccountKmsStatus"),
		do("GetCallerIdentity"),
		do("CreateUser", "UserName", "ann"),
		do("GetUser", "UserName", "ann"),
		do("ListUsers"),
		do("UpdateUser", "UserName", "ann", "NewComments", "c"),
		do("CreateAccessKey", "UserName", "ann"),
		do("ListAccessKeys", "UserName", "ann"),
		do("UpdateAccessKey", "UserName", "ann", "UserAccessKeyId", "KEY", "Status", "Active"),
		do("GetAccessKeyLastUsed", "UserName", "ann", "UserAccessKeyId", "KEY"),
		do("CreateGroup", "GroupName", "g"),
		do("GetGroup", "GroupName", "g"),
		do("ListGroups"),
		do("UpdateGroup", "GroupName", "g", "NewComments", "c"),
		do("AddUserToGroup", "UserName", "ann", "GroupName", "g"),
		do("ListUsersForGroup", "GroupName", "g"),
		do("ListGroupsForUser", "UserName", "ann"),
		do("CreatePolicy", "PolicyName", "p", "PolicyDocument", policyDocument),
		do("GetPolicy", "PolicyName", "p", "PolicyType", "Custom"),
		do("ListPolicies"),
		do("UpdatePolicyDescription", "PolicyName", "p", "NewDescription", "d"),
		do("CreatePolicyVersion", "PolicyName", "p", "PolicyDocument", policyDocument),
		do("GetPolicyVersion", "PolicyName", "p", "PolicyType", "Custom", "VersionId", "v2"),
		do("ListPolicyVersions", "PolicyName", "p", "PolicyType", "Custom"),
		do("SetDefaultPolicyVersion", "PolicyName", "p", "VersionId", "v2"),
		do("DeletePolicyVersion", "PolicyName", "p", "VersionId", "v1"),
		do("AttachPolicyToUser", "UserName", "ann", "PolicyName", "p", "PolicyType", "Custom"),
		do("ListPoliciesForUser", "UserName", "ann"),
		do("AttachPolicyToGroup", "GroupName", "g", "PolicyName", "p", "PolicyType", "Custom"),
		do("ListPoliciesForGroup", "GroupName", "g"),
		do("ListEntitiesForPolicy", "PolicyName", "p", "PolicyType", "Custom"),
		do("SimulatePolicy", "UserName", "ann", "Operation", "GetSecretValue", "SecretName", "a"),
		{"SimulatePolicy", "", []string{"UserName", "ann", "Operation", "ListSecrets"}},
	}
}

// last undo what steps have made.
func last() []step {
	do := func(action string, params ...string) step { return step{action, "", params} }
	return []step{
		do("DetachPolicyFromUser", "UserName", "ann", "PolicyName", "p", "PolicyType", "Custom"),
		do("DetachPolicyFromGroup", "GroupName", "g", "PolicyName", "p", "PolicyType", "Custom"),
		do("DeletePolicy", "PolicyName", "p"),
		do("RemoveUserFromGroup", "UserName", "ann", "GroupName", "g"),
		do("DeleteGroup", "GroupName", "g"),
		do("DeleteAccessKey", "UserName", "ann", "UserAccessKeyId", "KEY"),
		do("DeleteUser", "UserName", "ann"),
		do("DeleteSecret", "SecretName", "a", "RecoveryWindowInDays", "7"),
		{"GetSecretValue", kms.CodeResourceInDeleteWindow, []string{"SecretName", "a"}},
		do("RestoreSecret", "SecretName", "a"),
		do("DeleteSecret", "SecretName", "a", "ForceDeleteWithoutRecovery", "true"),
	}
}

// caller sends requests as they are, and keeps what must be found nowhere: signatures, and the
// secrets in right answers.
type caller struct {
	endpoint string
	account  string
	http     *http.Client
	secrets  map[string]string // by what they are
	errors   support.Log       // every error answer, with its headers
	key      sign.Credentials  // the access key that was made last
}

func newCaller(endpoint, account string) *caller {
	return &caller{
		endpoint: endpoint,
		account:  account,
		http:     &http.Client{Timeout: support.Patience},
		secrets:  map[string]string{},
	}
}

var signature = regexp.MustCompile(`Signature=([0-9a-f]{64})`)

// send sends a request and returns the code of the answer; "" for a right one.
func (c *caller) send(r *http.Request) (code string, body []byte, err error) {
	if m := signature.FindStringSubmatch(r.Header.Get("Authorization")); m != nil {
		c.secrets[fmt.Sprint("signature ", len(c.secrets))] = m[1]
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return "", nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode == http.StatusOK {
		return "", body, err
	}
	fmt.Fprintln(&c.errors, resp.Status, resp.Header, string(body))
	var e struct{ Code string }
	if json.Unmarshal(body, &e) != nil || e.Code == "" {
		e.Code = resp.Status
	}
	return e.Code, body, nil
}

func (c *caller) url(query string) string { return "http://" + c.endpoint + "/?" + query }

func form(params []string) url.Values {
	v := url.Values{}
	for i := 0; i < len(params); i += 2 {
		v.Add(params[i], params[i+1])
	}
	return v
}

// signed makes a request with a signature of version 3 over a form; change changes it before it
// is signed.
func (c *caller) signed(
	key sign.Credentials,
	o *operation.Op,
	method, contentType, body, query string,
) (*http.Request, error) {
	r, err := http.NewRequest(method, c.url(query), strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	return r, key.SignHTTP(r, sign.Call{
		Action:  o.Name,
		Version: o.Version,
		Body:    []byte(body),
		Time:    time.Now(),
		Nonce:   rand.Text(),
	})
}

const formType = "application/x-www-form-urlencoded"

// call makes a call that is as it should be.
func (c *caller) call(key sign.Credentials, o *operation.Op, params []string) (code string, err error) {
	params = slices.Clone(params)
	for i, p := range params {
		if p == "KEY" {
			params[i] = c.key.AccessKeyID
		}
		params[i] = strings.ReplaceAll(params[i], "ACCOUNT", c.account)
	}
	r, err := c.signed(key, o, http.MethodPost, formType, form(params).Encode(), "")
	if err != nil {
		return "", err
	}
	code, body, err := c.send(r)
	if err == nil && code == "" {
		err = c.note(o.Name, body)
	}
	return code, err
}

// note keeps the secrets of a right answer.
func (c *caller) note(action string, body []byte) error {
	var answer struct {
		RandomPassword string
		AccessKey      struct{ AccessKeyId, AccessKeySecret string }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return err
	}
	if answer.RandomPassword != "" {
		c.secrets["a password of "+action] = answer.RandomPassword
	}
	if k := answer.AccessKey; k.AccessKeySecret != "" {
		c.secrets["the secret of an access key"] = k.AccessKeySecret
		c.key = sign.Credentials{AccessKeyID: k.AccessKeyId, AccessKeySecret: sensitive.New(k.AccessKeySecret)}
	}
	return nil
}

// bad are the ways to send an operation wrong, each with values in it. Each must be refused.
func (c *caller) bad(key sign.Credentials, o *operation.Op, params []string) map[string]func() (*http.Request, error) {
	filled := append(slices.Clone(params), "Misspelt", both)
	if !slices.Contains(filled, "SecretData") {
		filled = append(filled, "SecretData", both)
	}
	good := form(filled).Encode()
	wrong := sign.Credentials{AccessKeyID: key.AccessKeyID, AccessKeySecret: sensitive.New(both)}
	stranger := sign.Credentials{AccessKeyID: "KTstranger", AccessKeySecret: sensitive.New(both)}
	v3 := func(k sign.Credentials, method, contentType, body, query string) func() (*http.Request, error) {
		return func() (*http.Request, error) { return c.signed(k, o, method, contentType, body, query) }
	}
	tokened := key
	tokened.SecurityToken = sensitive.New(both)
	ways := map[string]func() (*http.Request, error){
		"a wrong signature":         v3(wrong, "POST", formType, good, ""),
		"a wrong signature, in URL": v3(wrong, "GET", "", "", good),
		"a stranger's key":          v3(stranger, "POST", formType, good, ""),
		"a token of no key":         v3(tokened, "POST", formType, good, ""),
		"a wrong method":            v3(key, "PUT", formType, good, ""),
		"JSON that ends early":      v3(key, "POST", "application/json", `{"SecretData":"`+both, ""),
		"JSON of a number":          v3(key, "POST", "application/json", `{"SecretData":`+marker+`}`, ""),
		"JSON in a list":            v3(key, "POST", "application/json", `["`+marker+`"]`, ""),
		"a parameter twice":         v3(key, "POST", formType, good+"&SecretData="+marker, ""),
		"a bad escape":              v3(key, "POST", formType, good+"&X=%zz"+marker, ""),
		"another content type":      v3(key, "POST", "text/"+marker, both, ""),
		"no signature": func() (*http.Request, error) {
			return http.NewRequest("GET", c.url(good+"&Action="+o.Name), nil)
		},
		"version 1, wrong":      func() (*http.Request, error) { return c.v1(wrong, o, filled, time.Now()) },
		"version 1, stale":      func() (*http.Request, error) { return c.v1(key, o, filled, time.Now().Add(-time.Hour)) },
		"a body over its limit": v3(key, "POST", formType, "SecretData="+strings.Repeat(marker, 1<<20/len(marker)+1), ""),
		"changed behind the signature": func() (*http.Request, error) {
			r, err := c.signed(key, o, "POST", formType, good, "")
			if err == nil {
				r.Body = io.NopCloser(strings.NewReader(strings.Replace(good, "SecretData", "SecretDate", 1)))
			}
			return r, err
		},
	}
	for _, p := range o.Params() {
		if p.Type == "string" && len(p.Enum) == 0 && p.Name != "SecretData" {
			continue // a name: it may be said again
		}
		body := form(filled)
		body.Set(p.Name, strings.Repeat(both, 2000))
		if p.Type == "list" {
			continue // its members have other names
		}
		ways["a bad "+p.Name] = v3(key, "POST", formType, body.Encode(), "")
	}
	return ways
}

// v1 makes a request with a signature of version 1 in its URL, which is where such clients put
// values.
func (c *caller) v1(key sign.Credentials, o *operation.Op, params []string, at time.Time) (*http.Request, error) {
	list := sign.Params{
		{Name: "Action", Value: o.Name}, {Name: "Version", Value: o.Version}, {Name: "Format", Value: "JSON"},
	}
	for i := 0; i < len(params); i += 2 {
		list = append(list, sign.Param{Name: params[i], Value: params[i+1]})
	}
	all, err := key.SignV1(http.MethodGet, list, at, rand.Text())
	if err != nil {
		return nil, err
	}
	query := url.Values{}
	for _, p := range all {
		query.Add(p.Name, p.Value)
		if p.Name == "Signature" {
			c.secrets[fmt.Sprint("signature ", len(c.secrets))] = p.Value
		}
	}
	return http.NewRequest(http.MethodGet, c.url(query.Encode()), bytes.NewReader(nil))
}
