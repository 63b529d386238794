package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
)

func createSecret(t *testing.T, s *keyturntest.Server, name string) {
	t.Helper()
	must[*kms.CreateSecretResponse](t)(s.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: name,
		VersionID:  "v1",
		SecretData: sensitive.New("x"),
	}))
}

func wantCode(t *testing.T, what string, err error, code string) {
	t.Helper()
	if kms.CodeOf(err) != code || code == "" && err != nil {
		t.Errorf("%s: %v; want code %q", what, err, code)
	}
}

func readAll(name string) string {
	return document(allow("kms:GetSecretValue", "acs:kms:*:*:secret/"+name))
}

// TestAccessKeyLife verifies that a change of a key takes effect with the next call.
func TestAccessKeyLife(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	ctx, admin := t.Context(), ram.New(s.Client)
	createSecret(t, s, "app")
	first := newUser(t, admin, "alice", readAll("app"))
	c, _ := client(t, s, first, false)
	wantCode(t, "first key", get(ctx, c, "app"), "")

	second := must[*ram.CreateAccessKeyResponse](t)(
		admin.CreateAccessKey(ctx, &ram.CreateAccessKeyRequest{UserName: "alice"})).AccessKey
	_, err := admin.CreateAccessKey(ctx, &ram.CreateAccessKeyRequest{UserName: "alice"})
	wantCode(t, "third key", err, ram.CodeKeyLimit)
	d, _ := client(t, s, second, false)
	wantCode(t, "second key", get(ctx, d, "app"), "")

	status := func(id, status string) {
		t.Helper()
		must[*ram.EmptyResponse](t)(admin.UpdateAccessKey(ctx, &ram.UpdateAccessKeyRequest{
			UserName:        "alice",
			UserAccessKeyID: id,
			Status:          status,
		}))
	}
	status(first.AccessKeyID, ram.KeyInactive)
	wantCode(t, "disabled key", get(ctx, c, "app"), kms.CodeAccessKeyDisabled)
	wantCode(t, "the other key", get(ctx, d, "app"), "")
	keys := must[*ram.ListAccessKeysResponse](t)(
		admin.ListAccessKeys(ctx, &ram.ListAccessKeysRequest{UserName: "alice"})).AccessKeys
	if len(keys) != 2 || keys[0].Status != ram.KeyInactive || keys[1].Status != ram.KeyActive {
		t.Errorf("keys %+v", keys)
	}
	status(first.AccessKeyID, ram.KeyActive)
	wantCode(t, "enabled again", get(ctx, c, "app"), "")
	must[*ram.EmptyResponse](t)(
		admin.DeleteAccessKey(ctx, &ram.AccessKeyRequest{UserName: "alice", UserAccessKeyID: first.AccessKeyID}))
	wantCode(t, "deleted key", get(ctx, c, "app"), kms.CodeAccessKeyNotFound)
	_, err = admin.DeleteAccessKey(ctx, &ram.AccessKeyRequest{UserName: "alice", UserAccessKeyID: first.AccessKeyID})
	wantCode(t, "deleted twice", err, ram.CodeKeyNotExist)
	_, err = admin.UpdateAccessKey(ctx, &ram.UpdateAccessKeyRequest{
		UserName:        "alice",
		UserAccessKeyID: s.Credentials.AccessKeyID,
		Status:          ram.KeyInactive,
	})
	wantCode(t, "the administrator's key as alice's", err, ram.CodeKeyNotExist)

	// A user with anything left is not deleted; without, he is, and with him the last way in.
	_, err = admin.DeleteUser(ctx, &ram.DeleteUserRequest{UserName: "alice"})
	wantCode(t, "delete with a key", err, ram.CodeDeleteUserKey)
	must[*ram.EmptyResponse](t)(
		admin.DeleteAccessKey(ctx, &ram.AccessKeyRequest{UserName: "alice", UserAccessKeyID: second.AccessKeyID}))
	_, err = admin.DeleteUser(ctx, &ram.DeleteUserRequest{UserName: "alice"})
	wantCode(t, "delete with a policy", err, ram.CodeDeleteUserPolicy)
	must[*ram.EmptyResponse](t)(admin.DetachPolicyFromUser(ctx, &ram.UserPolicyRequest{
		UserName:   "alice",
		PolicyName: "alice-0",
		PolicyType: ram.TypeCustom,
	}))
	must[*ram.EmptyResponse](t)(admin.DeleteUser(ctx, &ram.DeleteUserRequest{UserName: "alice"}))
	wantCode(t, "key of a deleted user", get(ctx, d, "app"), kms.CodeAccessKeyNotFound)
	_, err = admin.GetUser(ctx, &ram.GetUserRequest{UserName: "alice"})
	wantCode(t, "deleted user", err, ram.CodeUserNotExist)
}

// TestPolicyChangeCounts verifies that a change of a policy takes effect with the next call,
// whichever way it came about.
func TestPolicyChangeCounts(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	ctx, admin := t.Context(), ram.New(s.Client)
	createSecret(t, s, "app")
	c, _ := client(t, s, newUser(t, admin, "alice", readAll("other")), false)
	version := func(doc string, makeDefault bool) string {
		t.Helper()
		return must[*ram.PolicyVersionResponse](t)(admin.CreatePolicyVersion(ctx, &ram.CreatePolicyVersionRequest{
			PolicyName:     "alice-0",
			PolicyDocument: doc,
			SetAsDefault:   makeDefault,
		})).PolicyVersion.VersionID
	}
	wantCode(t, "v1 allows another secret", get(ctx, c, "app"), kms.CodeNoPermission)
	v2 := version(readAll("app"), false)
	wantCode(t, "v2 is not the default", get(ctx, c, "app"), kms.CodeNoPermission)
	must[*ram.EmptyResponse](t)(
		admin.SetDefaultPolicyVersion(ctx, &ram.PolicyVersionRequest{PolicyName: "alice-0", VersionID: v2}))
	wantCode(t, "v2 counts", get(ctx, c, "app"), "")
	version(readAll("other"), true)
	wantCode(t, "v3 counts", get(ctx, c, "app"), kms.CodeNoPermission)

	must[*ram.EmptyResponse](t)(admin.AttachPolicyToUser(ctx, &ram.UserPolicyRequest{
		UserName:   "alice",
		PolicyName: "AliyunKMSSecretUserAccess",
		PolicyType: ram.TypeSystem,
	}))
	wantCode(t, "attached", get(ctx, c, "app"), "")
	must[*ram.EmptyResponse](t)(admin.DetachPolicyFromUser(ctx, &ram.UserPolicyRequest{
		UserName:   "alice",
		PolicyName: "AliyunKMSSecretUserAccess",
		PolicyType: ram.TypeSystem,
	}))
	wantCode(t, "detached", get(ctx, c, "app"), kms.CodeNoPermission)

	must[*ram.GroupResponse](t)(admin.CreateGroup(ctx, &ram.CreateGroupRequest{GroupName: "team"}))
	must[*ram.EmptyResponse](t)(admin.AttachPolicyToGroup(ctx, &ram.GroupPolicyRequest{
		GroupName:  "team",
		PolicyName: "AdministratorAccess",
		PolicyType: ram.TypeSystem,
	}))
	wantCode(t, "not in the group", get(ctx, c, "app"), kms.CodeNoPermission)
	must[*ram.EmptyResponse](t)(admin.AddUserToGroup(ctx, &ram.MembershipRequest{UserName: "alice", GroupName: "team"}))
	wantCode(t, "in the group", get(ctx, c, "app"), "")
	must[*ram.GroupResponse](t)(admin.UpdateGroup(ctx, &ram.UpdateGroupRequest{GroupName: "team", NewGroupName: "crew"}))
	wantCode(t, "group renamed", get(ctx, c, "app"), "")
	_, err := admin.DeleteGroup(ctx, &ram.DeleteGroupRequest{GroupName: "crew"})
	wantCode(t, "group with a user", err, "DeleteConflict.Group.User")
	_, err = admin.DeleteUser(ctx, &ram.DeleteUserRequest{UserName: "alice"})
	wantCode(t, "user with a key and a group", err, ram.CodeDeleteUserKey)
	must[*ram.EmptyResponse](t)(
		admin.RemoveUserFromGroup(ctx, &ram.MembershipRequest{UserName: "alice", GroupName: "crew"}))
	wantCode(t, "out of the group", get(ctx, c, "app"), kms.CodeNoPermission)
}

// TestRenamedUser verifies that keys and policies follow a user to a new name, and that the old
// name is free and powerless.
func TestRenamedUser(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	ctx, admin := t.Context(), ram.New(s.Client)
	createSecret(t, s, "app")
	c, _ := client(t, s, newUser(t, admin, "alice", readAll("app")), false)
	must[*ram.UserResponse](t)(admin.UpdateUser(ctx, &ram.UpdateUserRequest{UserName: "alice", NewUserName: "bob"}))
	wantCode(t, "renamed", get(ctx, c, "app"), "")
	who := must[*kms.GetCallerIdentityResponse](t)(c.GetCallerIdentity(ctx, &kms.GetCallerIdentityRequest{}))
	bob := must[*ram.UserResponse](t)(admin.GetUser(ctx, &ram.GetUserRequest{UserName: "bob"})).User
	want := kms.GetCallerIdentityResponse{
		AccountID:    s.AccountID,
		ARN:          "acs:ram::" + s.AccountID + ":user/bob",
		IdentityType: "RAMUser",
		PrincipalID:  bob.UserID,
		UserID:       bob.UserID,
		RequestID:    who.RequestID,
	}
	if diff := cmp.Diff(want, *who); diff != "" || len(bob.UserID) != 18 {
		t.Errorf("GetCallerIdentity, user ID %s (-want +got):\n%s", bob.UserID, diff)
	}
	other := newUser(t, admin, "alice")
	d, _ := client(t, s, other, false)
	wantCode(t, "who has the old name", get(ctx, d, "app"), kms.CodeNoPermission)
	_, err := admin.UpdateUser(ctx, &ram.UpdateUserRequest{UserName: "alice", NewUserName: "bob"})
	wantCode(t, "a name that is taken", err, ram.CodeUserExists)
}

// TestNamesCannotBeProbed verifies that a caller without rights gets the same answer for what
// exists and what does not.
func TestNamesCannotBeProbed(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	ctx, admin := t.Context(), ram.New(s.Client)
	createSecret(t, s, "there")
	c, seen := client(t, s, newUser(t, admin, "nobody"), false)
	users := ram.New(c)
	var id string
	body := func(err error) string {
		var e *kms.Error
		if !errors.As(err, &e) || e.HTTPStatus != http.StatusForbidden {
			t.Errorf("%v; want status 403", err)
			return ""
		}
		id = e.RequestID
		return strings.ReplaceAll(string(seen.body), id, "")
	}
	for name, try := range map[string]func(name string) error{
		"GetSecretValue": func(n string) error { return get(ctx, c, n) },
		"DescribeSecret": func(n string) error { return describe(ctx, c, n) },
		"PutSecretValue": func(n string) error { return put(ctx, c, n) },
		"GetUser": func(n string) error {
			_, err := users.GetUser(ctx, &ram.GetUserRequest{UserName: map[string]string{"there": "nobody", "gone": "x"}[n]})
			return err
		},
		"SimulatePolicy": func(n string) error {
			_, err := users.SimulatePolicy(ctx, &ram.SimulatePolicyRequest{
				UserName:   "nobody",
				Operation:  "GetSecretValue",
				SecretName: n,
			})
			return err
		},
	} {
		if a, b := body(try("there")), body(try("gone")); a != b {
			t.Errorf("%s distinguishes:\n%s\n%s", name, a, b)
		}
	}
}

func TestSimulatePolicy(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	ctx, admin := t.Context(), ram.New(s.Client)
	must[*ram.UserResponse](t)(admin.CreateUser(ctx, &ram.CreateUserRequest{UserName: "alice"}))
	must[*kms.CreateSecretResponse](t)(s.Client.CreateSecret(ctx, &kms.CreateSecretRequest{
		SecretName: "app/db",
		VersionID:  "v1",
		SecretData: sensitive.New("x"),
		Tags:       []kms.Tag{{TagKey: "env", TagValue: "prod"}},
		Policy: document(
			`{"Sid":"granted","Effect":"Allow","Principal":{"RAM":"acs:ram::` + s.AccountID +
				`:user/alice"},"Action":"kms:DescribeSecret","Resource":"*"}`),
	}))
	newKey(t, admin, "alice", document(
		allow("kms:GetSecretValue", "acs:kms:*:*:secret/app/*", `{"IpAddress":{"acs:SourceIp":"10.0.0.0/8"}}`),
		`{"Sid":"by tag","Effect":"Deny","Action":"kms:PutSecretValue","Resource":"*",`+
			`"Condition":{"StringEquals":{"kms:tag/env":"prod"}}}`,
	))
	must[*ram.GroupResponse](t)(admin.CreateGroup(ctx, &ram.CreateGroupRequest{GroupName: "team"}))
	must[*ram.EmptyResponse](t)(admin.AddUserToGroup(ctx, &ram.MembershipRequest{UserName: "alice", GroupName: "team"}))
	must[*ram.EmptyResponse](t)(admin.AttachPolicyToGroup(ctx, &ram.GroupPolicyRequest{
		GroupName:  "team",
		PolicyName: "AliyunKMSSecretAdminAccess",
		PolicyType: ram.TypeSystem,
	}))
	must[*ram.UserResponse](t)(admin.CreateUser(ctx, &ram.CreateUserRequest{UserName: "nobody"}))
	container := "acs:kms:local:" + s.AccountID + ":secret"
	for _, tt := range []struct {
		name string
		in   ram.SimulatePolicyRequest
		want ram.SimulatePolicyResponse
	}{
		{"own policy", ram.SimulatePolicyRequest{
			UserName:        "alice",
			Operation:       "GetSecretValue",
			SecretName:      "app/db",
			ContextSourceIP: "10.1.2.3",
		},
			ram.SimulatePolicyResponse{
				Allowed:    true,
				Decision:   "Allow",
				PolicyName: "alice-0",
				PolicyType: "Custom",
				Action:     "kms:GetSecretValue",
				Resource:   container + "/app/db",
			}},
		{"through the group", ram.SimulatePolicyRequest{
			UserName:        "alice",
			Operation:       "kms:getsecretvalue",
			Resource:        container + "/app/db",
			ContextSourceIP: "11.1.2.3",
		},
			ram.SimulatePolicyResponse{
				Allowed:    true,
				Decision:   "Allow",
				PolicyName: "AliyunKMSSecretAdminAccess",
				PolicyType: "System",
				GroupName:  "team",
				Action:     "kms:GetSecretValue",
				Resource:   container + "/app/db",
			}},
		{"denied by tag", ram.SimulatePolicyRequest{UserName: "alice", Operation: "PutSecretValue", SecretName: "app/db"},
			ram.SimulatePolicyResponse{
				Decision:       "ExplicitDeny",
				PolicyName:     "alice-0",
				PolicyType:     "Custom",
				Sid:            "by tag",
				StatementIndex: 1,
				Action:         "kms:PutSecretValue",
				Resource:       container + "/app/db",
			}},
		{"a user without rights, nothing", ram.SimulatePolicyRequest{UserName: "nobody", Operation: "ListSecrets"},
			ram.SimulatePolicyResponse{
				Decision:       "ImplicitDeny",
				StatementIndex: -1,
				Action:         "kms:ListSecrets",
				Resource:       container,
			}},
		{"a user's right on users", ram.SimulatePolicyRequest{UserName: "nobody", Operation: "CreateUser"},
			ram.SimulatePolicyResponse{
				Decision:       "ImplicitDeny",
				StatementIndex: -1,
				Action:         "ram:CreateUser",
				Resource:       "acs:ram::" + s.AccountID + ":user/*",
			}},
		{"by the action of an operation", ram.SimulatePolicyRequest{
			UserName:   "nobody",
			Operation:  "kms:SetSecretPolicy",
			SecretName: "app/new",
		},
			ram.SimulatePolicyResponse{
				Decision:       "ImplicitDeny",
				StatementIndex: -1,
				Action:         "kms:SetSecretPolicy",
				Resource:       container + "/app/new",
			}},
		{"no resource", ram.SimulatePolicyRequest{UserName: "alice", Operation: "GetRandomPassword"},
			ram.SimulatePolicyResponse{
				Allowed:        true,
				Decision:       "Allow",
				PolicyName:     "AliyunKMSSecretAdminAccess",
				PolicyType:     "System",
				GroupName:      "team",
				StatementIndex: 1,
				Action:         "kms:GetRandomPassword",
				Resource:       "*",
			}},
	} {
		got := must[*ram.SimulatePolicyResponse](t)(admin.SimulatePolicy(ctx, &tt.in))
		tt.want.RequestID = got.RequestID
		tt.want.Judged = []string{tt.want.Action + " on " + tt.want.Resource}
		if diff := cmp.Diff(tt.want, *got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	for _, tt := range []struct {
		in   ram.SimulatePolicyRequest
		want string
	}{
		{ram.SimulatePolicyRequest{UserName: "x", Operation: "ListSecrets"}, ram.CodeUserNotExist},
		{ram.SimulatePolicyRequest{UserName: "alice"}, kms.CodeMissingParameter},
		{ram.SimulatePolicyRequest{UserName: "alice", Operation: "Fly"}, kms.CodeInvalidParameter},
		{ram.SimulatePolicyRequest{UserName: "alice", Operation: "DescribeRegions"}, kms.CodeInvalidParameter},
		{ram.SimulatePolicyRequest{UserName: "alice", Operation: "GetSecretValue"}, kms.CodeMissingParameter},
		{ram.SimulatePolicyRequest{UserName: "alice", Operation: "GetUser"}, kms.CodeMissingParameter},
		{ram.SimulatePolicyRequest{
			UserName:   "alice",
			Operation:  "GetSecretValue",
			SecretName: "a",
			Resource:   "*",
		}, kms.CodeInvalidParameter},
		{ram.SimulatePolicyRequest{
			UserName:  "alice",
			Operation: "GetSecretValue",
			Resource:  "app",
		}, kms.CodeInvalidParameter},
		{ram.SimulatePolicyRequest{
			UserName:        "alice",
			Operation:       "GetSecretValue",
			SecretName:      "a",
			ContextSourceIP: "here",
		}, kms.CodeInvalidParameter},
	} {
		_, err := admin.SimulatePolicy(ctx, &tt.in)
		wantCode(t, fmt.Sprintf("%+v", tt.in), err, tt.want)
	}
}

// TestSelfService verifies that a user can be allowed to manage his own keys, and only his: the
// name may then be left out.
func TestSelfService(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	ctx, admin := t.Context(), ram.New(s.Client)
	own := document(allow("ram:*AccessKey*", "acs:ram:*:"+s.AccountID+":user/alice"))
	c, _ := client(t, s, newUser(t, admin, "alice", own), false)
	alice := ram.New(c)
	made := must[*ram.CreateAccessKeyResponse](t)(alice.CreateAccessKey(ctx, &ram.CreateAccessKeyRequest{}))
	if n := len(
		must[*ram.ListAccessKeysResponse](t)(alice.ListAccessKeys(ctx, &ram.ListAccessKeysRequest{})).AccessKeys); n != 2 {
		t.Errorf("alice has %d keys; want 2", n)
	}
	must[*ram.EmptyResponse](t)(
		alice.DeleteAccessKey(ctx, &ram.AccessKeyRequest{UserAccessKeyID: made.AccessKey.AccessKeyID}))
	newUser(t, admin, "bob")
	_, err := alice.CreateAccessKey(ctx, &ram.CreateAccessKeyRequest{UserName: "bob"})
	wantCode(t, "a key for another", err, ram.CodeNoPermission)
	_, err = alice.CreateAccessKey(ctx, &ram.CreateAccessKeyRequest{UserName: "alice.b"})
	wantCode(t, "a key for one whose name begins alike", err, ram.CodeNoPermission)
}

func TestLastUsed(t *testing.T) {
	t.Parallel()
	now := time.Now().UTC().Truncate(time.Second)
	var mu sync.Mutex
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	dir := t.TempDir()
	s := keyturntest.Start(t, keyturntest.WithDataDir(dir), keyturntest.WithTime(clock))
	ctx, admin := t.Context(), ram.New(s.Client)
	key := newUser(t, admin, "alice")
	last := func(admin *ram.Client) time.Time {
		t.Helper()
		return must[*ram.GetAccessKeyLastUsedResponse](t)(
			admin.GetAccessKeyLastUsed(ctx,
				&ram.AccessKeyRequest{UserName: "alice", UserAccessKeyID: key.AccessKeyID})).AccessKeyLastUsed.LastUsedDate
	}
	if got := last(admin); !got.IsZero() {
		t.Errorf("a new key was last used at %s", got)
	}
	c, _ := client(t, s, key, false)
	wantCode(t, "a denied call is a use too", get(ctx, c, "none"), kms.CodeNoPermission)
	if got := last(admin); !got.Equal(now) {
		t.Errorf("last used at %s; want %s", got, now)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	s = keyturntest.Start(t, keyturntest.WithDataDir(dir), keyturntest.WithTime(clock))
	if got := last(ram.New(s.Client)); !got.Equal(now) {
		t.Errorf("after a restart last used at %s; want %s", got, now)
	}
}

func TestRAMErrors(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	ctx, admin := t.Context(), ram.New(s.Client)
	newUser(t, admin, "alice", readAll("app"))
	must[*ram.GroupResponse](t)(admin.CreateGroup(ctx, &ram.CreateGroupRequest{GroupName: "team"}))
	must[*ram.EmptyResponse](t)(admin.AddUserToGroup(ctx, &ram.MembershipRequest{UserName: "alice", GroupName: "team"}))
	must[*ram.EmptyResponse](t)(admin.AttachPolicyToGroup(ctx, &ram.GroupPolicyRequest{
		GroupName:  "team",
		PolicyName: "alice-0",
		PolicyType: "Custom",
	}))
	must[*ram.PolicyVersionResponse](t)(
		admin.CreatePolicyVersion(ctx, &ram.CreatePolicyVersionRequest{PolicyName: "alice-0", PolicyDocument: readAll("b")}))
	good := readAll("x")
	for _, tt := range []struct {
		action string
		params string
		status int
		code   string
		text   string
	}{
		{"CreateUser", "", 400, "MissingParameter", "UserName"},
		{
			"CreateUser", "UserName=a/b", 400, "InvalidParameter.UserName.InvalidChars",
			`The parameter - "UserName" contains invalid chars.`,
		},
		{
			"CreateUser", "UserName=" + strings.Repeat("a", 65), 400, "InvalidParameter.UserName.Length",
			"beyond the length limit",
		},
		{"CreateUser", "UserName=bob Email=x", 400, "InvalidParameter.Email.Format", "The format of the parameter - "},
		{"CreateUser", "UserName=alice", 409, "EntityAlreadyExists.User", "already EXIST"},
		{"GetUser", "UserName=bob", 404, "EntityNotExist.User", "The user does not exist."},
		{"ListUsers", "MaxItems=0", 400, "InvalidParameter", "MaxItems"},
		{"ListUsers", "Marker=x", 400, "InvalidParameter", "Marker"},
		{"UpdateUser", "UserName=alice NewUserName=a/b", 400, "InvalidParameter.NewUserName.InvalidChars", "NewUserName"},
		{"UpdateAccessKey", "UserName=alice UserAccessKeyId=x Status=On", 400, "InvalidParameter", "Active or Inactive"},
		{"UpdateAccessKey", "UserName=alice Status=Active", 400, "MissingParameter", "UserAccessKeyId"},
		{
			"GetAccessKeyLastUsed", "UserName=alice UserAccessKeyId=x", 404, "EntityNotExist.User.AccessKey",
			"access key does not exist",
		},
		{"CreateGroup", "GroupName=team", 409, "EntityAlreadyExists.Group", "already EXIST"},
		{"CreateGroup", "GroupName=a_b", 400, "InvalidParameter.GroupName.InvalidChars", "GroupName"},
		{"GetGroup", "GroupName=x", 404, "EntityNotExist.Group", "The group does not exist."},
		{"AddUserToGroup", "UserName=alice GroupName=team", 409, "EntityAlreadyExists.User.Group", "already joined"},
		{"AddUserToGroup", "UserName=alice GroupName=x", 404, "EntityNotExist.Group", "The group does not exist."},
		{"RemoveUserFromGroup", "UserName=bob GroupName=team", 404, "EntityNotExist.User", "The user does not exist."},
		{"CreatePolicy", "PolicyName=p", 400, "MissingParameter", "PolicyDocument"},
		{"CreatePolicy", "PolicyName=p PolicyDocument={}", 400, "MalformedPolicyDocument", `the Version must be "1"`},
		{
			"CreatePolicy", "PolicyName=p PolicyDocument=" + document(`{"Effect":"Allow","NotAction":"kms:*","Resource":"*"}`),
			400, "MalformedPolicyDocument", "Action is missing",
		},
		{
			"CreatePolicy",
			"PolicyName=p PolicyDocument=" + document(allow("*", "*", `{"StringLikeIfExists":{"kms:tag/a":"b"}}`)), 400,
			"MalformedPolicyDocument", `unknown operator "StringLikeIfExists"`,
		},
		{
			"CreatePolicy", "PolicyName=p PolicyDocument=" + strings.Repeat("x", 6145), 400,
			"InvalidParameter.PolicyDocument.Length", "PolicyDocument",
		},
		{"CreatePolicy", "PolicyName=alice-0 PolicyDocument=" + good, 409, "EntityAlreadyExists.Policy", "already EXIST"},
		{"GetPolicy", "PolicyName=alice-0", 400, "MissingParameter", "PolicyType"},
		{"GetPolicy", "PolicyName=alice-0 PolicyType=Inline", 400, "InvalidParameter.PolicyType", "System or Custom"},
		{"GetPolicy", "PolicyName=alice-0 PolicyType=System", 404, "EntityNotExist.Policy", "The policy does not exist."},
		{"DeletePolicy", "PolicyName=AdministratorAccess", 404, "EntityNotExist.Policy", "The policy does not exist."},
		{"DeletePolicy", "PolicyName=alice-0", 409, "DeleteConflict.Policy.User", "attached to any user"},
		{
			"CreatePolicyVersion", "PolicyName=x PolicyDocument=" + good, 404, "EntityNotExist.Policy",
			"The policy does not exist.",
		},
		{
			"CreatePolicyVersion", "PolicyName=alice-0 RotateStrategy=Sometimes PolicyDocument=" + good, 400, "InvalidParameter",
			"RotateStrategy",
		},
		{
			"SetDefaultPolicyVersion", "PolicyName=alice-0 VersionId=v9", 404, "EntityNotExist.Policy.Version",
			"version does not exist",
		},
		{"SetDefaultPolicyVersion", "PolicyName=alice-0 VersionId=9", 400, "InvalidParameter.VersionId.Format", "VersionId"},
		{
			"DeletePolicyVersion", "PolicyName=alice-0 VersionId=v1", 409, "DeleteConflict.Policy.Version.Default",
			"default policy version",
		},
		{
			"AttachPolicyToUser", "UserName=alice PolicyName=alice-0 PolicyType=Custom", 409, "EntityAlreadyExists.User.Policy",
			"already been attached",
		},
		{
			"AttachPolicyToUser", "UserName=alice PolicyName=x PolicyType=Custom", 404, "EntityNotExist.Policy",
			"The policy does not exist.",
		},
		{
			"AttachPolicyToUser", "UserName=alice PolicyName=alice-0 PolicyType=Custom ResourceGroupId=rg-1", 400,
			"InvalidParameter", "no resource groups",
		},
		{
			"AttachPolicyToGroup", "GroupName=team PolicyName=alice-0 PolicyType=Custom", 409,
			"EntityAlreadyExists.Group.Policy", "already been attached",
		},
		{
			"DetachPolicyFromUser", "UserName=alice PolicyName=AdministratorAccess PolicyType=System", 404,
			"EntityNotExist.User.Policy", "does not exist",
		},
		{
			"DetachPolicyFromGroup", "GroupName=team PolicyName=AdministratorAccess PolicyType=System", 404,
			"EntityNotExist.Group.Policy", "does not exist",
		},
		{"CreateRole", "RoleName=x", 400, "UnsupportedOperation", "does not have the operation CreateRole"},
		{"CreateSecret", "", 404, "InvalidAction.NotFound", "not found"},
	} {
		_, err := s.Client.Do(ctx, kms.Call{Action: tt.action, Version: ram.Version, Params: params(tt.params)})
		var e *kms.Error
		if !errors.As(err, &e) || e.HTTPStatus != tt.status || e.Code != tt.code || !strings.Contains(e.Message, tt.text) {
			t.Errorf("%s %.60s: %v; want %d %s with %q", tt.action, tt.params, err, tt.status, tt.code, tt.text)
		}
	}
	// Once no user has it, the only obstacle is a version too many, unless it is to go as well.
	must[*ram.EmptyResponse](t)(admin.DetachPolicyFromUser(ctx, &ram.UserPolicyRequest{
		UserName:   "alice",
		PolicyName: "alice-0",
		PolicyType: "Custom",
	}))
	_, err := admin.DeletePolicy(ctx, &ram.DeletePolicyRequest{PolicyName: "alice-0"})
	wantCode(t, "attached to a group", err, "DeleteConflict.Policy.Group")
	must[*ram.EmptyResponse](t)(admin.DetachPolicyFromGroup(ctx, &ram.GroupPolicyRequest{
		GroupName:  "team",
		PolicyName: "alice-0",
		PolicyType: "Custom",
	}))
	_, err = admin.DeletePolicy(ctx, &ram.DeletePolicyRequest{PolicyName: "alice-0"})
	wantCode(t, "two versions", err, ram.CodeDeletePolicyVersion)
	must[*ram.EmptyResponse](t)(
		admin.DeletePolicy(ctx, &ram.DeletePolicyRequest{PolicyName: "alice-0", CascadingDelete: true}))
}

// TestPages walks every paged list in pages of two.
func TestPages(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	ctx, admin := t.Context(), ram.New(s.Client)
	must[*ram.GroupResponse](t)(admin.CreateGroup(ctx, &ram.CreateGroupRequest{GroupName: "g0"}))
	want := map[string][]string{
		"policies": {
			"AdministratorAccess", "AliyunKMSFullAccess", "AliyunKMSReadOnlyAccess", "AliyunKMSSecretAdminAccess",
			"AliyunKMSSecretUserAccess",
		},
		"groups": {"g0"},
	}
	for i := range 5 {
		n := fmt.Sprint(i)
		must[*ram.UserResponse](t)(admin.CreateUser(ctx, &ram.CreateUserRequest{UserName: "u" + n}))
		must[*ram.GroupResponse](t)(admin.CreateGroup(ctx, &ram.CreateGroupRequest{GroupName: "h" + n}))
		must[*ram.CreatePolicyResponse](t)(admin.CreatePolicy(ctx, &ram.CreatePolicyRequest{
			PolicyName:     "p" + n,
			PolicyDocument: readAll("x"),
			Tags:           []ram.Tag{{Key: "n", Value: n}},
		}))
		if i != 2 {
			must[*ram.EmptyResponse](t)(admin.AddUserToGroup(ctx, &ram.MembershipRequest{UserName: "u" + n, GroupName: "g0"}))
			want["members"] = append(want["members"], "u"+n)
		}
		want["users"], want["groups"], want["policies"] = append(want["users"],
			"u"+n), append(want["groups"], "h"+n), append(want["policies"], "p"+n)
	}
	want["custom"], want["system"] = want["policies"][5:], want["policies"][:5]
	policies := func(kind string) func(ctx context.Context, marker string) (names []string, more bool, next string) {
		return func(ctx context.Context, marker string) (names []string, more bool, next string) {
			out := must[*ram.ListPoliciesResponse](t)(admin.ListPolicies(ctx, &ram.ListPoliciesRequest{
				PolicyType: kind,
				Marker:     marker,
				MaxItems:   2,
			}))
			for _, p := range out.Policies {
				names = append(names, p.PolicyName)
			}
			return names, out.IsTruncated, out.Marker
		}
	}
	users := func(out *ram.ListUsersResponse) (names []string, more bool, next string) {
		for _, u := range out.Users {
			names = append(names, u.UserName)
		}
		return names, out.IsTruncated, out.Marker
	}
	for list, page := range map[string]func(ctx context.Context, marker string) (names []string, more bool, next string){
		"users": func(ctx context.Context, marker string) ([]string, bool, string) {
			return users(
				must[*ram.ListUsersResponse](t)(admin.ListUsers(ctx, &ram.ListUsersRequest{Marker: marker, MaxItems: 2})))
		},
		"members": func(ctx context.Context, marker string) ([]string, bool, string) {
			return users(must[*ram.ListUsersResponse](t)(admin.ListUsersForGroup(ctx, &ram.ListUsersForGroupRequest{
				GroupName: "g0",
				Marker:    marker,
				MaxItems:  2,
			})))
		},
		"groups": func(ctx context.Context, marker string) (names []string, more bool, next string) {
			out := must[*ram.ListGroupsResponse](t)(admin.ListGroups(ctx, &ram.ListGroupsRequest{Marker: marker, MaxItems: 2}))
			for _, g := range out.Groups {
				names = append(names, g.GroupName)
			}
			return names, out.IsTruncated, out.Marker
		},
		"policies": policies(""), "custom": policies(ram.TypeCustom), "system": policies(ram.TypeSystem),
	} {
		var got []string
		marker := ""
		for range 20 {
			names, more, next := page(ctx, marker)
			got = append(got, names...)
			if len(names) > 2 || more != (next != "") {
				t.Errorf("%s: a page of %d, more %v, marker %q", list, len(names), more, next)
			}
			if marker = next; !more {
				break
			}
		}
		if !slices.Equal(got, want[list]) {
			t.Errorf("%s: %v; want %v", list, got, want[list])
		}
	}
	tagged := must[*ram.ListPoliciesResponse](t)(
		admin.ListPolicies(ctx, &ram.ListPoliciesRequest{Tags: []ram.Tag{{Key: "n", Value: "3"}}}))
	if len(tagged.Policies) != 1 || tagged.Policies[0].PolicyName != "p3" {
		t.Errorf("by tag: %+v", tagged.Policies)
	}
}

// TestRenameLargeGroup renames a group of more users than one transaction could write, while one of
// them calls: their rights through the group hold at every moment, and all of it goes under the new
// name alone.
func TestRenameLargeGroup(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	ctx, admin := t.Context(), ram.New(s.Client)
	const size = 200
	must[*ram.GroupResponse](t)(admin.CreateGroup(ctx, &ram.CreateGroupRequest{GroupName: "team"}))
	must[*ram.CreatePolicyResponse](t)(
		admin.CreatePolicy(ctx, &ram.CreatePolicyRequest{PolicyName: "read", PolicyDocument: readAll("app")}))
	must[*ram.EmptyResponse](t)(admin.AttachPolicyToGroup(ctx, &ram.GroupPolicyRequest{
		GroupName:  "team",
		PolicyName: "read",
		PolicyType: ram.TypeCustom,
	}))
	createSecret(t, s, "app")
	var joined sync.WaitGroup
	for worker := range 8 {
		joined.Go(func() {
			for i := worker; i < size; i += 8 {
				name := fmt.Sprintf("u%03d", i)
				_, err1 := admin.CreateUser(ctx, &ram.CreateUserRequest{UserName: name})
				_, err2 := admin.AddUserToGroup(ctx, &ram.MembershipRequest{UserName: name, GroupName: "team"})
				if err := errors.Join(err1, err2); err != nil {
					t.Error(err)
				}
			}
		})
	}
	joined.Wait()
	key := must[*ram.CreateAccessKeyResponse](t)(
		admin.CreateAccessKey(ctx, &ram.CreateAccessKeyRequest{UserName: "u007"})).AccessKey
	c, _ := client(t, s, key, false)
	done, calls := make(chan struct{}), 0
	var caller sync.WaitGroup
	caller.Go(func() {
		for {
			if err := get(ctx, c, "app"); err != nil {
				t.Errorf("call %d of a user of the group: %v", calls, err)
				return
			}
			calls++
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for range 5 {
		must[*ram.GroupResponse](t)(admin.UpdateGroup(ctx, &ram.UpdateGroupRequest{GroupName: "team", NewGroupName: "crew"}))
		must[*ram.GroupResponse](t)(admin.UpdateGroup(ctx, &ram.UpdateGroupRequest{GroupName: "crew", NewGroupName: "team"}))
	}
	must[*ram.GroupResponse](t)(admin.UpdateGroup(ctx, &ram.UpdateGroupRequest{GroupName: "team", NewGroupName: "crew"}))
	close(done)
	caller.Wait()
	if calls == 0 {
		t.Error("no call was made during the renames")
	}
	if n := len(
		must[*ram.ListUsersResponse](t)(
			admin.ListUsersForGroup(ctx, &ram.ListUsersForGroupRequest{GroupName: "crew", MaxItems: 1000})).Users); n != size {
		t.Errorf("%d users after the renames; want %d", n, size)
	}
	if groups := must[*ram.ListGroupsForUserResponse](t)(
		admin.ListGroupsForUser(ctx, &ram.ListGroupsForUserRequest{UserName: "u007"})).Groups; len(groups) != 1 ||
		groups[0].GroupName != "crew" {
		t.Errorf("the user is in %+v; want crew", groups)
	}
	_, err := admin.GetGroup(ctx, &ram.GetGroupRequest{GroupName: "team"})
	wantCode(t, "the old name", err, "EntityNotExist.Group")
	sim := must[*ram.SimulatePolicyResponse](t)(admin.SimulatePolicy(ctx, &ram.SimulatePolicyRequest{
		UserName:   "u007",
		Operation:  "GetSecretValue",
		SecretName: "app",
	}))
	if !sim.Allowed || sim.GroupName != "crew" {
		t.Errorf("decided through group %q, allowed %v; want crew", sim.GroupName, sim.Allowed)
	}
	// Another group of the old name is another group: it has no members.
	must[*ram.GroupResponse](t)(admin.CreateGroup(ctx, &ram.CreateGroupRequest{GroupName: "team"}))
	if n := len(
		must[*ram.ListUsersResponse](t)(
			admin.ListUsersForGroup(ctx, &ram.ListUsersForGroupRequest{GroupName: "team"})).Users); n != 0 {
		t.Errorf("a new group of the old name has %d users", n)
	}
	_, err = admin.UpdateGroup(ctx, &ram.UpdateGroupRequest{GroupName: "crew", NewGroupName: "team"})
	wantCode(t, "a name that is taken", err, "EntityAlreadyExists.Group")
	must[*ram.EmptyResponse](t)(
		admin.RemoveUserFromGroup(ctx, &ram.MembershipRequest{UserName: "u007", GroupName: "crew"}))
	wantCode(t, "who has left the group", get(ctx, c, "app"), kms.CodeNoPermission)
	must[*ram.EmptyResponse](t)(admin.DeleteGroup(ctx, &ram.DeleteGroupRequest{GroupName: "team"}))
	wantCode(t, "who is in the renamed group still",
		second(admin.DeleteGroup(ctx, &ram.DeleteGroupRequest{GroupName: "crew"})), "DeleteConflict.Group.User")
}

func second[T any](_ T, err error) error { return err }

// TestChangesAreAudited verifies that the trail has who was given which right.
func TestChangesAreAudited(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	ctx, admin := t.Context(), ram.New(s.Client)
	key := newUser(t, admin, "alice", readAll("app"))
	c, _ := client(t, s, key, false)
	wantCode(t, "a denied call", get(ctx, c, "other"), kms.CodeNoPermission)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	arn := "acs:ram::" + s.AccountID + ":"
	got := trail(t, s.DataDir)
	for _, want := range []string{
		"CreateUser outcome " + arn + "user/alice  ok",
		"CreatePolicy outcome " + arn + "policy/alice-0  ok",
		"AttachPolicyToUser intent " + arn + "user/alice," + arn + "policy/alice-0  ",
		"CreateAccessKey outcome " + arn + "user/alice/accesskey/" + key.AccessKeyID + "  ok",
		"GetSecretValue call acs:kms:local:" + s.AccountID + ":secret/other  Forbidden.NoPermission",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("the trail has no %q in\n%s", want, strings.Join(got, "\n"))
		}
	}
}

// TestKeyLimitHoldsUnderRace makes keys for one user from many callers at once: two are made.
func TestKeyLimitHoldsUnderRace(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	ctx, admin := t.Context(), ram.New(s.Client)
	must[*ram.UserResponse](t)(admin.CreateUser(ctx, &ram.CreateUserRequest{UserName: "alice"}))
	var wg sync.WaitGroup
	made := make(chan struct{}, 16)
	for range 16 {
		wg.Go(func() {
			_, err := admin.CreateAccessKey(ctx, &ram.CreateAccessKeyRequest{UserName: "alice"})
			if err == nil {
				made <- struct{}{}
			} else if kms.CodeOf(err) != ram.CodeKeyLimit {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	keys := must[*ram.ListAccessKeysResponse](t)(
		admin.ListAccessKeys(ctx, &ram.ListAccessKeysRequest{UserName: "alice"})).AccessKeys
	if len(made) != 2 || len(keys) != 2 {
		t.Errorf("%d keys made, %d listed; want 2", len(made), len(keys))
	}
}

// TestDeleteRacesAttach deletes a policy while it is being attached: either there is no policy, or
// it is attached.
func TestDeleteRacesAttach(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	ctx, admin := t.Context(), ram.New(s.Client)
	c, _ := client(t, s, newUser(t, admin, "alice"), false)
	for i := range 20 {
		name := fmt.Sprint("p", i)
		must[*ram.CreatePolicyResponse](t)(
			admin.CreatePolicy(ctx, &ram.CreatePolicyRequest{PolicyName: name, PolicyDocument: readAll("x")}))
		var attach, remove error
		var wg sync.WaitGroup
		wg.Go(func() {
			_, attach = admin.AttachPolicyToUser(ctx, &ram.UserPolicyRequest{
				UserName:   "alice",
				PolicyName: name,
				PolicyType: "Custom",
			})
		})
		wg.Go(func() { _, remove = admin.DeletePolicy(ctx, &ram.DeletePolicyRequest{PolicyName: name}) })
		wg.Wait()
		if (attach == nil) == (remove == nil) {
			t.Fatalf("attach %v, delete %v; want one of them", attach, remove)
		}
		wantCode(t, "what the user may", get(ctx, c, "y"), kms.CodeNoPermission)
		if attach == nil {
			must[*ram.EmptyResponse](t)(admin.DetachPolicyFromUser(ctx, &ram.UserPolicyRequest{
				UserName:   "alice",
				PolicyName: name,
				PolicyType: "Custom",
			}))
		}
	}
}

// TestSecretsOfKeysStayHidden looks for the secret of a made key in all that the server keeps on
// disk.
func TestSecretsOfKeysStayHidden(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	key := newUser(t, ram.New(s.Client), "alice")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	searchDir(t, s.DataDir, []byte(key.AccessKeySecret.Reveal()))
	if text := fmt.Sprintf("%v %+v", key, key); strings.Contains(text, key.AccessKeySecret.Reveal()) {
		t.Error("a key shows its secret when it is printed")
	}
}

// TestRequestsHaveEveryParameter compares the request types with the list of the reference.
func TestRequestsHaveEveryParameter(t *testing.T) {
	t.Parallel()
	var spec struct {
		Operations map[string]struct{ Parameters []struct{ Name string } }
	}
	if err := json.Unmarshal([]byte(ramParameters), &spec); err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, o := range operationsOf(ram.Version) {
		want, ok := spec.Operations[o.Name]
		if !ok {
			if o.Name != "SimulatePolicy" {
				t.Errorf("%s is not in the reference", o.Name)
			}
			continue
		}
		var got, names []string
		for _, p := range o.Params() {
			got = append(got, p.Name)
		}
		for _, p := range want.Parameters {
			names = append(names, p.Name)
		}
		slices.Sort(got)
		slices.Sort(names)
		if checked++; !reflect.DeepEqual(got, names) {
			t.Errorf("%s has %v; want %v", o.Name, got, names)
		}
	}
	if checked != 36 {
		t.Errorf("%d operations checked; want 36", checked)
	}
}

// TestSimulationOfContainers verifies that a simulation of an operation that makes something
// answers as the call itself: it is judged on the container, whatever name is given.
func TestSimulationOfContainers(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	ctx := t.Context()
	admin := ram.New(s.Client)
	container := "acs:kms:local:" + s.AccountID + ":"
	for user, resources := range map[string]string{
		"maker": `["acs:kms:*:*:secret","acs:kms:*:*:target"]`, "other": `["acs:kms:*:*:secret/x","acs:kms:*:*:target/x"]`,
	} {
		newUser(t, admin, user,
			`{"Version":"1","Statement":[{"Effect":"Allow","Action":["kms:CreateSecret","kms:RegisterTarget"],"Resource":`+
				resources+`}]}`)
		for _, in := range []*ram.SimulatePolicyRequest{
			{UserName: user, Operation: "CreateSecret"},
			{UserName: user, Operation: "CreateSecret", SecretName: "x"},
			{UserName: user, Operation: "CreateSecret", Resource: container + "secret/x"},
			{UserName: user, Operation: "RegisterTarget", Resource: container + "target"},
			{UserName: user, Operation: "RegisterTarget", Resource: container + "target/x"},
		} {
			out := must[*ram.SimulatePolicyResponse](t)(admin.SimulatePolicy(ctx, in))
			if want := user == "maker"; out.Allowed != want || strings.HasSuffix(out.Resource, "/x") {
				t.Errorf("%s of %q on %q by %s: allowed %v on %s", in.Operation, in.SecretName, in.Resource, user, out.Allowed,
					out.Resource)
			}
		}
	}
}
