package rpc_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/users"
)

const (
	ramPolicy = `{"Version":"1","Statement":[{"Effect":"Allow","Action":"kms:GetSecretValue","Resource":"acs:kms:*:*:secret/app/<*> & \"é\""}]}`
	denyAll   = `{"Version":"1","Statement":[{"Sid":"no","Effect":"Deny","Action":"*","Resource":"*"}]}`
)

var (
	makeUser   = call{"CreateUser", []string{"UserName", "robot", "DisplayName", "The Röbot", "MobilePhone", "86-18600008888", "Email", "robot@example.test", "Comments", "tests & more"}}
	makeKey    = call{"CreateAccessKey", []string{"UserName", "robot"}}
	makeGroup  = call{"CreateGroup", []string{"GroupName", "team", "Comments", "é <all>"}}
	makePolicy = call{"CreatePolicy", []string{"PolicyName", "read", "PolicyDocument", ramPolicy, "Description", "reads", "Tag.1.Key", "k", "Tag.1.Value", "v"}}
	addVersion = call{"CreatePolicyVersion", []string{"PolicyName", "read", "PolicyDocument", denyAll}}
	join       = call{"AddUserToGroup", []string{"UserName", "robot", "GroupName", "team"}}
	userRead   = []string{"UserName", "robot", "PolicyName", "read", "PolicyType", "Custom"}
	groupRead  = []string{"GroupName", "team", "PolicyName", "read", "PolicyType", "Custom"}
	giveUser   = call{"AttachPolicyToUser", userRead}
	giveGroup  = call{"AttachPolicyToGroup", groupRead}
	customRead = []string{"PolicyName", "read", "PolicyType", "Custom"}
	everything = []call{makeUser, makeKey, makeGroup, makePolicy, join, giveUser, giveGroup}
)

// ramGoldens have one call of every operation of the user service. $KEY is the ID of the last access key that was made.
var ramGoldens = []golden{
	{makeUser, nil},
	{call{"GetUser", []string{"UserName", "robot"}}, []call{makeUser}},
	{call{"ListUsers", []string{"MaxItems", "1"}}, []call{makeUser, {"CreateUser", []string{"UserName", "second"}}}},
	{call{"UpdateUser", []string{"UserName", "robot", "NewUserName", "machine", "NewComments", ""}}, []call{makeUser}},
	{call{"DeleteUser", []string{"UserName", "robot"}}, []call{makeUser}},
	{makeKey, []call{makeUser}},
	{call{"ListAccessKeys", []string{"UserName", "robot"}}, []call{makeUser, makeKey, {"UpdateAccessKey", []string{"UserName", "robot", "UserAccessKeyId", "$KEY", "Status", "Inactive"}}, makeKey}},
	{call{"UpdateAccessKey", []string{"UserName", "robot", "UserAccessKeyId", "$KEY", "Status", "Inactive"}}, []call{makeUser, makeKey}},
	{call{"DeleteAccessKey", []string{"UserName", "robot", "UserAccessKeyId", "$KEY"}}, []call{makeUser, makeKey}},
	{call{"GetAccessKeyLastUsed", []string{"UserName", "robot", "UserAccessKeyId", "$KEY"}}, []call{makeUser, makeKey}},
	{makeGroup, nil},
	{call{"GetGroup", []string{"GroupName", "team"}}, []call{makeGroup}},
	{call{"ListGroups", []string{"MaxItems", "1"}}, []call{makeGroup, {"CreateGroup", []string{"GroupName", "two"}}}},
	{call{"UpdateGroup", []string{"GroupName", "team", "NewGroupName", "crew", "NewComments", "x"}}, everything},
	{call{"DeleteGroup", []string{"GroupName", "team"}}, []call{makeGroup}},
	{join, []call{makeUser, makeGroup}},
	{call{"RemoveUserFromGroup", []string{"UserName", "robot", "GroupName", "team"}}, []call{makeUser, makeGroup, join}},
	{call{"ListUsersForGroup", []string{"GroupName", "team"}}, everything},
	{call{"ListGroupsForUser", []string{"UserName", "robot"}}, everything},
	{makePolicy, nil},
	{call{"GetPolicy", customRead}, []call{makePolicy}},
	{call{"ListPolicies", []string{"PolicyType", "Custom"}}, everything},
	{call{"UpdatePolicyDescription", []string{"PolicyName", "read", "NewDescription", "reads <all>"}}, []call{makePolicy}},
	{call{"DeletePolicy", []string{"PolicyName", "read", "CascadingDelete", "true"}}, []call{makePolicy, addVersion}},
	{call{"CreatePolicyVersion", []string{"PolicyName", "read", "PolicyDocument", denyAll, "SetAsDefault", "true"}}, []call{makePolicy}},
	{call{"GetPolicyVersion", append([]string{"VersionId", "v2"}, customRead...)}, []call{makePolicy, addVersion}},
	{call{"ListPolicyVersions", customRead}, []call{makePolicy, addVersion}},
	{call{"SetDefaultPolicyVersion", []string{"PolicyName", "read", "VersionId", "v2"}}, []call{makePolicy, addVersion}},
	{call{"DeletePolicyVersion", []string{"PolicyName", "read", "VersionId", "v2"}}, []call{makePolicy, addVersion}},
	{giveUser, []call{makeUser, makePolicy}},
	{call{"DetachPolicyFromUser", userRead}, everything},
	{giveGroup, []call{makeGroup, makePolicy}},
	{call{"DetachPolicyFromGroup", groupRead}, everything},
	{call{"ListPoliciesForUser", []string{"UserName", "robot"}}, everything},
	{call{"ListPoliciesForGroup", []string{"GroupName", "team"}}, everything},
	{call{"ListEntitiesForPolicy", customRead}, everything},
	{call{"SimulatePolicy", []string{"UserName", "robot", "Operation", "GetSecretValue", "SecretName", "app/db"}}, []call{makeUser, makeGroup, makePolicy, join, {"CreatePolicyVersion", []string{"PolicyName", "read", "PolicyDocument", denyAll, "SetAsDefault", "true"}}, giveGroup}},
}

// many are n calls of one operation, in whose parameters # is the number.
func many(n int, op string, params ...string) (list []call) {
	for i := range n {
		c := call{op: op}
		for _, p := range params {
			c.params = append(c.params, strings.ReplaceAll(p, "#", fmt.Sprint(i)))
		}
		list = append(list, c)
	}
	return list
}

var (
	manyPolicies = many(users.MaxCustomPolicies+1, "CreatePolicy", "PolicyName", "p#", "PolicyDocument", denyAll)
	tooMany      = fmt.Sprint("p", users.MaxCustomPolicies)
)

// ramRefusals have one way to each code of the user service, but for the limits of users, groups and policies of an account:
// they are thousands.
var ramRefusals = []struct {
	code   string
	before []call
	last   call
}{
	{users.CodeChars, nil, call{"CreateUser", []string{"UserName", "a/b"}}},
	{users.CodeLength, nil, call{"CreateGroup", []string{"GroupName", strings.Repeat("g", 65)}}},
	{users.CodeFormat, nil, call{"CreateUser", []string{"UserName", "robot", "Email", "nobody"}}},
	{users.CodePolicyType, nil, call{"GetPolicy", []string{"PolicyName", "read", "PolicyType", "Inline"}}},
	{users.CodeMalformed, nil, call{"CreatePolicy", []string{"PolicyName", "read", "PolicyDocument", `{"Version":"1","Statement":[{"Effect":"<Allow>"}]}`}}},
	{users.CodeNoUser, nil, call{"GetUser", []string{"UserName", "robot"}}},
	{users.CodeNoKey, []call{makeUser}, call{"DeleteAccessKey", []string{"UserName", "robot", "UserAccessKeyId", "x"}}},
	{users.CodeNoUserPolicy, []call{makeUser, makePolicy}, call{"DetachPolicyFromUser", userRead}},
	{users.CodeNoUserGroup, []call{makeUser, makeGroup}, call{"RemoveUserFromGroup", []string{"UserName", "robot", "GroupName", "team"}}},
	{users.CodeNoGroup, nil, call{"GetGroup", []string{"GroupName", "team"}}},
	{users.CodeNoGroupPolicy, []call{makeGroup, makePolicy}, call{"DetachPolicyFromGroup", groupRead}},
	{users.CodeNoPolicy, nil, call{"GetPolicy", customRead}},
	{users.CodeNoVersion, []call{makePolicy}, call{"SetDefaultPolicyVersion", []string{"PolicyName", "read", "VersionId", "v9"}}},
	{users.CodeUserExists, []call{makeUser}, makeUser},
	{users.CodeUserGroupExists, []call{makeUser, makeGroup, join}, join},
	{users.CodeUserPolicyExists, []call{makeUser, makePolicy, giveUser}, giveUser},
	{users.CodeGroupExists, []call{makeGroup}, makeGroup},
	{users.CodeGroupPolicyExists, []call{makeGroup, makePolicy, giveGroup}, giveGroup},
	{users.CodePolicyExists, []call{makePolicy}, makePolicy},
	{users.CodeUserHasKey, []call{makeUser, makeKey}, call{"DeleteUser", []string{"UserName", "robot"}}},
	{users.CodeUserHasPolicy, []call{makeUser, makePolicy, giveUser}, call{"DeleteUser", []string{"UserName", "robot"}}},
	{users.CodeUserHasGroup, []call{makeUser, makeGroup, join}, call{"DeleteUser", []string{"UserName", "robot"}}},
	{users.CodeGroupHasUser, []call{makeUser, makeGroup, join}, call{"DeleteGroup", []string{"GroupName", "team"}}},
	{users.CodeGroupHasPolicy, []call{makeGroup, makePolicy, giveGroup}, call{"DeleteGroup", []string{"GroupName", "team"}}},
	{users.CodePolicyHasUser, []call{makeUser, makePolicy, giveUser}, call{"DeletePolicy", []string{"PolicyName", "read"}}},
	{users.CodePolicyHasGroup, []call{makeGroup, makePolicy, giveGroup}, call{"DeletePolicy", []string{"PolicyName", "read"}}},
	{users.CodePolicyHasVersion, []call{makePolicy, addVersion}, call{"DeletePolicy", []string{"PolicyName", "read"}}},
	{users.CodeDefaultVersion, []call{makePolicy}, call{"DeletePolicyVersion", []string{"PolicyName", "read", "VersionId", "v1"}}},
	{users.CodeKeyLimit, []call{makeUser, makeKey, makeKey}, makeKey},
	{users.CodeUserGroupLimit, slices.Concat([]call{makeUser}, many(users.MaxGroupsOfUser+1, "CreateGroup", "GroupName", "g#"), many(users.MaxGroupsOfUser, "AddUserToGroup", "UserName", "robot", "GroupName", "g#")),
		call{"AddUserToGroup", []string{"UserName", "robot", "GroupName", fmt.Sprint("g", users.MaxGroupsOfUser)}}},
	{users.CodeUserPolicyLimit, slices.Concat([]call{makeUser}, manyPolicies, many(users.MaxCustomPolicies, "AttachPolicyToUser", "UserName", "robot", "PolicyType", "Custom", "PolicyName", "p#")),
		call{"AttachPolicyToUser", []string{"UserName", "robot", "PolicyType", "Custom", "PolicyName", tooMany}}},
	{users.CodeGroupPolicyLimit, slices.Concat([]call{makeGroup}, manyPolicies, many(users.MaxCustomPolicies, "AttachPolicyToGroup", "GroupName", "team", "PolicyType", "Custom", "PolicyName", "p#")),
		call{"AttachPolicyToGroup", []string{"GroupName", "team", "PolicyType", "Custom", "PolicyName", tooMany}}},
	{users.CodeVersionLimit, []call{makePolicy, addVersion, addVersion, addVersion, addVersion}, addVersion},
}

// ramFile is the name of the golden of a refusal.
func ramFile(code string) string { return "error-ram-" + strings.Replace(code, "*", "Parameter", 1) }

// TestGoldenRAMErrors holds a refusal of every code of the user service against a file, in JSON and in XML.
func TestGoldenRAMErrors(t *testing.T) {
	t.Parallel()
	for _, g := range ramRefusals {
		t.Run(g.code, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.prepare(t, g.before)
			var b strings.Builder
			fmt.Fprintf(&b, "%s %s\n", g.last.op, strings.Join(g.last.params, " "))
			for _, asXML := range []bool{false, true} {
				w := f.answer(f.signed(t, g.last, admin, goldenTime, asXML))
				head, _, _ := strings.Cut(g.code, "*")
				if w.Code < http.StatusBadRequest || w.Code >= http.StatusInternalServerError || !strings.Contains(w.Body.String(), head) {
					t.Errorf("%d %s; want the code %s", w.Code, w.Body, g.code)
				}
				writeAnswer(&b, w)
			}
			compare(t, ramFile(g.code), b.String())
		})
	}
	t.Run(users.CodeNoPermission, func(t *testing.T) {
		t.Parallel()
		f := newFixture(t)
		var b strings.Builder
		b.WriteString("ListUsers by a user without a policy\n")
		for _, asXML := range []bool{false, true} {
			writeAnswer(&b, f.answer(f.signed(t, call{"ListUsers", nil}, key("userid"), goldenTime, asXML)))
		}
		compare(t, ramFile(users.CodeNoPermission), b.String())
	})
}
