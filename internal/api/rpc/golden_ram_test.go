package rpc_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/users"
	"github.com/keyturn/keyturn/ram"
)

const (
	ramPolicy = `{"Version":"1","Statement":[{"Effect":"Allow","Action":"kms:GetSecretValue",` +
		`"Resource":"acs:kms:*:*:secret/app/<*> & \"é\""}]}`
	denyAll = `{"Version":"1","Statement":[{"Sid":"no","Effect":"Deny","Action":"*","Resource":"*"}]}`
)

var (
	makeUser = call{
		"CreateUser",
		[]string{
			"UserName", "robot", "DisplayName", "The Röbot", "MobilePhone", "86-18600008888", "Email", "robot@example.test",
			"Comments", "tests & more",
		},
	}
	makeKey    = call{"CreateAccessKey", []string{"UserName", "robot"}}
	makeGroup  = call{"CreateGroup", []string{"GroupName", "team", "Comments", "é <all>"}}
	makePolicy = call{
		"CreatePolicy",
		[]string{
			"PolicyName", "read", "PolicyDocument", ramPolicy, "Description", "reads", "Tag.1.Key", "k", "Tag.1.Value", "v",
		},
	}
	addVersion = call{"CreatePolicyVersion", []string{"PolicyName", "read", "PolicyDocument", denyAll}}
	join       = call{"AddUserToGroup", []string{"UserName", "robot", "GroupName", "team"}}
	userRead   = []string{"UserName", "robot", "PolicyName", "read", "PolicyType", "Custom"}
	groupRead  = []string{"GroupName", "team", "PolicyName", "read", "PolicyType", "Custom"}
	giveUser   = call{"AttachPolicyToUser", userRead}
	giveGroup  = call{"AttachPolicyToGroup", groupRead}
	customRead = []string{"PolicyName", "read", "PolicyType", "Custom"}
	everything = []call{makeUser, makeKey, makeGroup, makePolicy, join, giveUser, giveGroup}
)

// ramGoldens have one call of every operation of the user service. $KEY is the ID of the last
// access key that was made.
var ramGoldens = []golden{
	{makeUser, nil},
	{call{"GetUser", []string{"UserName", "robot"}}, []call{makeUser}},
	{call{"ListUsers", []string{"MaxItems", "1"}}, []call{makeUser, {"CreateUser", []string{"UserName", "second"}}}},
	{call{"UpdateUser", []string{"UserName", "robot", "NewUserName", "machine", "NewComments", ""}}, []call{makeUser}},
	{call{"DeleteUser", []string{"UserName", "robot"}}, []call{makeUser}},
	{makeKey, []call{makeUser}},
	{
		call{"ListAccessKeys", []string{"UserName", "robot"}},
		[]call{
			makeUser, makeKey,
			{"UpdateAccessKey", []string{"UserName", "robot", "UserAccessKeyId", "$KEY", "Status", "Inactive"}}, makeKey,
		},
	},
	{
		call{"UpdateAccessKey", []string{"UserName", "robot", "UserAccessKeyId", "$KEY", "Status", "Inactive"}},
		[]call{makeUser, makeKey},
	},
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
	{
		call{"CreatePolicyVersion", []string{"PolicyName", "read", "PolicyDocument", denyAll, "SetAsDefault", "true"}},
		[]call{makePolicy},
	},
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
	{
		call{"SimulatePolicy", []string{"UserName", "robot", "Operation", "GetSecretValue", "SecretName", "app/db"}},
		[]call{
			makeUser, makeGroup, makePolicy, join,
			{"CreatePolicyVersion", []string{"PolicyName", "read", "PolicyDocument", denyAll, "SetAsDefault", "true"}},
			giveGroup,
		},
	},
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

// ramRefusals have one way to each code of the user service, but for the limits of users, groups
// and policies of an account: they are thousands.
var ramRefusals = []struct {
	code   string
	before []call
	last   call
}{
	{users.CodeChars, nil, call{"CreateUser", []string{"UserName", "a/b"}}},
	{users.CodeLength, nil, call{"CreateGroup", []string{"GroupName", strings.Repeat("g", 65)}}},
	{users.CodeFormat, nil, call{"CreateUser", []string{"UserName", "robot", "Email", "nobody"}}},
	{ram.CodePolicyType, nil, call{"GetPolicy", []string{"PolicyName", "read", "PolicyType", "Inline"}}},
	{
		ram.CodeMalformedPolicy, nil,
		call{
			"CreatePolicy",
			[]string{"PolicyName", "read", "PolicyDocument", `{"Version":"1","Statement":[{"Effect":"<Allow>"}]}`},
		},
	},
	{ram.CodeUserNotExist, nil, call{"GetUser", []string{"UserName", "robot"}}},
	{
		ram.CodeKeyNotExist, []call{makeUser}, call{"DeleteAccessKey", []string{"UserName", "robot", "UserAccessKeyId", "x"}},
	},
	{ram.CodeUserWithoutPolicy, []call{makeUser, makePolicy}, call{"DetachPolicyFromUser", userRead}},
	{
		ram.CodeUserNotInGroup, []call{makeUser, makeGroup},
		call{"RemoveUserFromGroup", []string{"UserName", "robot", "GroupName", "team"}},
	},
	{ram.CodeGroupNotExist, nil, call{"GetGroup", []string{"GroupName", "team"}}},
	{ram.CodeGroupWithoutPolicy, []call{makeGroup, makePolicy}, call{"DetachPolicyFromGroup", groupRead}},
	{ram.CodePolicyNotExist, nil, call{"GetPolicy", customRead}},
	{
		ram.CodePolicyVersionNotExist, []call{makePolicy},
		call{"SetDefaultPolicyVersion", []string{"PolicyName", "read", "VersionId", "v9"}},
	},
	{ram.CodeUserExists, []call{makeUser}, makeUser},
	{ram.CodeUserInGroup, []call{makeUser, makeGroup, join}, join},
	{ram.CodeUserHasPolicy, []call{makeUser, makePolicy, giveUser}, giveUser},
	{ram.CodeGroupExists, []call{makeGroup}, makeGroup},
	{ram.CodeGroupHasPolicy, []call{makeGroup, makePolicy, giveGroup}, giveGroup},
	{ram.CodePolicyExists, []call{makePolicy}, makePolicy},
	{ram.CodeDeleteUserKey, []call{makeUser, makeKey}, call{"DeleteUser", []string{"UserName", "robot"}}},
	{ram.CodeDeleteUserPolicy, []call{makeUser, makePolicy, giveUser}, call{"DeleteUser", []string{"UserName", "robot"}}},
	{ram.CodeDeleteUserGroup, []call{makeUser, makeGroup, join}, call{"DeleteUser", []string{"UserName", "robot"}}},
	{ram.CodeDeleteGroupUser, []call{makeUser, makeGroup, join}, call{"DeleteGroup", []string{"GroupName", "team"}}},
	{
		ram.CodeDeleteGroupPolicy, []call{makeGroup, makePolicy, giveGroup},
		call{"DeleteGroup", []string{"GroupName", "team"}},
	},
	{
		ram.CodeDeletePolicyUser, []call{makeUser, makePolicy, giveUser},
		call{"DeletePolicy", []string{"PolicyName", "read"}},
	},
	{
		ram.CodeDeletePolicyGroup, []call{makeGroup, makePolicy, giveGroup},
		call{"DeletePolicy", []string{"PolicyName", "read"}},
	},
	{ram.CodeDeletePolicyVersion, []call{makePolicy, addVersion}, call{"DeletePolicy", []string{"PolicyName", "read"}}},
	{
		ram.CodeDeleteDefaultVersion, []call{makePolicy},
		call{"DeletePolicyVersion", []string{"PolicyName", "read", "VersionId", "v1"}},
	},
	{ram.CodeKeyLimit, []call{makeUser, makeKey, makeKey}, makeKey},
	{ram.CodeUserGroupLimit,
		slices.Concat([]call{makeUser}, many(users.MaxGroupsOfUser+1, "CreateGroup", "GroupName", "g#"),
			many(users.MaxGroupsOfUser, "AddUserToGroup", "UserName", "robot", "GroupName", "g#")),
		call{"AddUserToGroup", []string{"UserName", "robot", "GroupName", fmt.Sprint("g", users.MaxGroupsOfUser)}}},
	{ram.CodeUserPolicyLimit,
		slices.Concat([]call{makeUser}, manyPolicies,
			many(users.MaxCustomPolicies, "AttachPolicyToUser", "UserName", "robot", "PolicyType", "Custom", "PolicyName",
				"p#")),
		call{"AttachPolicyToUser", []string{"UserName", "robot", "PolicyType", "Custom", "PolicyName", tooMany}}},
	{ram.CodeGroupPolicyLimit,
		slices.Concat([]call{makeGroup}, manyPolicies,
			many(users.MaxCustomPolicies, "AttachPolicyToGroup", "GroupName", "team", "PolicyType", "Custom", "PolicyName",
				"p#")),
		call{"AttachPolicyToGroup", []string{"GroupName", "team", "PolicyType", "Custom", "PolicyName", tooMany}}},
	{ram.CodePolicyVersionLimit, []call{makePolicy, addVersion, addVersion, addVersion, addVersion}, addVersion},
}

// ramFile is the name of the golden of a refusal.
func ramFile(code string) string { return "error-ram-" + strings.Replace(code, "*", "Parameter", 1) }

// TestGoldenRAMErrors holds a refusal of every code of the user service against a file, in JSON and
// in XML.
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
				if w.Code < http.StatusBadRequest ||
					w.Code >= http.StatusInternalServerError ||
					!strings.Contains(w.Body.String(), head) {
					t.Errorf("%d %s; want the code %s", w.Code, w.Body, g.code)
				}
				writeAnswer(&b, w)
			}
			compare(t, ramFile(g.code), b.String())
		})
	}
	t.Run(ram.CodeNoPermission, func(t *testing.T) {
		t.Parallel()
		f := newFixture(t)
		var b strings.Builder
		b.WriteString("ListUsers by a user without a policy\n")
		for _, asXML := range []bool{false, true} {
			writeAnswer(&b, f.answer(f.signed(t, call{"ListUsers", nil}, key("userid"), goldenTime, asXML)))
		}
		compare(t, ramFile(ram.CodeNoPermission), b.String())
	})
}
