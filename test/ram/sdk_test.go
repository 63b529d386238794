// Package ram_test runs the cloud's own Go SDK, unchanged and over TLS, through every operation
// of the user service that Keyturn has.
package ram_test

import (
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"

	sdkerrors "github.com/aliyun/alibaba-cloud-sdk-go/sdk/errors"
	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/ram"

	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	wanted "github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// sdk is the official client of a server, and which operations it has run.
type sdk struct {
	t      *testing.T
	client *ram.Client
	domain string
	ran    map[string]bool
}

func newSDK(t *testing.T, s *keyturntest.Server) *sdk {
	t.Helper()
	client, err := ram.NewClientWithAccessKey("local", s.Credentials.AccessKeyID, s.Credentials.AccessKeySecret.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig.RootCAs = s.RootCAs
	client.SetTransport(transport)
	t.Cleanup(transport.CloseIdleConnections)
	return &sdk{t: t, client: client, domain: s.Endpoint, ran: map[string]bool{}}
}

// request is what the SDK's own requests share.
type request interface {
	SetScheme(scheme string)
	SetDomain(domain string)
	GetActionName() string
}

// run makes one call, and fails the test unless it ends with the code; empty means success.
func run[Req request, Resp any](s *sdk, do func(Req) (Resp, error), in Req, code string) Resp {
	s.t.Helper()
	in.SetScheme("https")
	in.SetDomain(s.domain)
	out, err := do(in)
	s.ran[in.GetActionName()] = true
	var e *sdkerrors.ServerError
	switch {
	case code == "" && err != nil:
		s.t.Fatalf("%s: %v", in.GetActionName(), err)
	case code != "" && (!errors.As(err, &e) || e.ErrorCode() != code):
		s.t.Errorf("%s: %v; want %s", in.GetActionName(), err, code)
	}
	return out
}

const document = `{"Version":"1","Statement":[` +
	`{"Effect":"Allow","Action":"kms:GetSecretValue","Resource":"acs:kms:*:*:secret/app/*"}]}`

func TestSDK(t *testing.T) {
	t.Parallel()
	server := keyturntest.Start(t)
	s := newSDK(t, server)
	users(s)
	policies(s)
	groups(s)
	key := keys(s)
	read(t, server, key)
	s.leave(key.AccessKeyId)

	for _, o := range protocol.Operations() {
		if o.Version == wanted.Version && !s.ran[o.Name] && o.Name != "SimulatePolicy" {
			t.Errorf("the SDK did not run %s", o.Name)
		}
	}
}

func users(s *sdk) {
	create := ram.CreateCreateUserRequest()
	create.UserName = "app"
	create.DisplayName = "The App"
	create.Email = "app@example.test"
	create.MobilePhone = "86-18600008888"
	create.Comments = "x"
	made := run(s, s.client.CreateUser, create, "").User
	run(s, s.client.CreateUser, create, "EntityAlreadyExists.User")

	get := ram.CreateGetUserRequest()
	get.UserName = "app"
	got := run(s, s.client.GetUser, get, "").User
	got.UpdateDate, made.UpdateDate = "", ""
	if !reflect.DeepEqual(got, made) || got.UserId == "" || got.DisplayName != "The App" ||
		!strings.HasSuffix(got.CreateDate, "Z") {
		s.t.Errorf("GetUser %+v; CreateUser %+v", got, made)
	}
	update := ram.CreateUpdateUserRequest()
	update.UserName, update.NewUserName, update.NewComments = "app", "app2", "y"
	if u := run(s, s.client.UpdateUser, update, "").User; u.UserName != "app2" ||
		u.Comments != "y" ||
		u.Email != "app@example.test" {
		s.t.Errorf("UpdateUser %+v", u)
	}
	update.UserName, update.NewUserName = "app2", "app"
	run(s, s.client.UpdateUser, update, "")
	run(s, s.client.UpdateUser, update, "EntityNotExist.User")

	create.UserName = "other"
	run(s, s.client.CreateUser, create, "")
	list := ram.CreateListUsersRequest()
	list.MaxItems = requests.NewInteger(1)
	page := run(s, s.client.ListUsers, list, "")
	if !page.IsTruncated || page.Marker == "" || len(page.Users.User) != 1 || page.Users.User[0].UserName != "app" {
		s.t.Errorf("first page %+v", page.Users)
	}
	list.Marker = page.Marker
	page = run(s, s.client.ListUsers, list, "")
	if page.IsTruncated || len(page.Users.User) != 1 || page.Users.User[0].UserName != "other" {
		s.t.Errorf("second page %+v", page.Users)
	}
}

func policies(s *sdk) {
	create := ram.CreateCreatePolicyRequest()
	create.PolicyName, create.PolicyDocument, create.Description = "read-app", document, "reads"
	made := run(s, s.client.CreatePolicy, create, "").Policy
	if made.PolicyType != "Custom" || made.DefaultVersion != "v1" {
		s.t.Errorf("CreatePolicy %+v", made)
	}
	create.PolicyName, create.PolicyDocument = "bad", `{"Version":"2"}`
	run(s, s.client.CreatePolicy, create, "MalformedPolicyDocument")

	version := ram.CreateCreatePolicyVersionRequest()
	version.PolicyName, version.PolicyDocument = "read-app", document
	for range 4 {
		if v := run(s, s.client.CreatePolicyVersion, version, "").PolicyVersion; v.IsDefaultVersion ||
			v.PolicyDocument != document {
			s.t.Errorf("CreatePolicyVersion %+v", v)
		}
	}
	run(s, s.client.CreatePolicyVersion, version, "LimitExceeded.Policy.Version")
	version.RotateStrategy, version.SetAsDefault = wanted.RotateOldest, requests.NewBoolean(true)
	if v := run(s, s.client.CreatePolicyVersion, version, "").PolicyVersion; !v.IsDefaultVersion || v.VersionId != "v6" {
		s.t.Errorf("CreatePolicyVersion with rotation %+v", v)
	}
	versions := ram.CreateListPolicyVersionsRequest()
	versions.PolicyName, versions.PolicyType = "read-app", "Custom"
	if l := run(s, s.client.ListPolicyVersions, versions, "").PolicyVersions.PolicyVersion; len(l) != 5 ||
		l[0].VersionId != "v1" ||
		!l[4].IsDefaultVersion {
		s.t.Errorf("ListPolicyVersions %+v", l)
	}
	set := ram.CreateSetDefaultPolicyVersionRequest()
	set.PolicyName, set.VersionId = "read-app", "v1"
	run(s, s.client.SetDefaultPolicyVersion, set, "")
	remove := ram.CreateDeletePolicyVersionRequest()
	remove.PolicyName, remove.VersionId = "read-app", "v1"
	run(s, s.client.DeletePolicyVersion, remove, "DeleteConflict.Policy.Version.Default")
	remove.VersionId = "v6"
	run(s, s.client.DeletePolicyVersion, remove, "")
	one := ram.CreateGetPolicyVersionRequest()
	one.PolicyName, one.PolicyType, one.VersionId = "read-app", "Custom", "v1"
	if v := run(s, s.client.GetPolicyVersion, one, "").PolicyVersion; v.PolicyDocument != document || !v.IsDefaultVersion {
		s.t.Errorf("GetPolicyVersion %+v", v)
	}
	one.VersionId = "v6"
	run(s, s.client.GetPolicyVersion, one, "EntityNotExist.Policy.Version")
	describe := ram.CreateUpdatePolicyDescriptionRequest()
	describe.PolicyName, describe.NewDescription = "read-app", "reads the application's secrets"
	run(s, s.client.UpdatePolicyDescription, describe, "")
	get := ram.CreateGetPolicyRequest()
	get.PolicyName, get.PolicyType = "read-app", "Custom"
	if p := run(s, s.client.GetPolicy, get, ""); p.DefaultPolicyVersion.PolicyDocument != document ||
		p.Policy.Description != describe.NewDescription {
		s.t.Errorf("GetPolicy %+v", p)
	}
	list := ram.CreateListPoliciesRequest()
	list.PolicyType = "System"
	if l := run(s, s.client.ListPolicies, list, "").Policies.Policy; len(l) != 5 ||
		l[0].PolicyName != "AdministratorAccess" {
		s.t.Errorf("ListPolicies %+v", l)
	}

	attach := ram.CreateAttachPolicyToUserRequest()
	attach.UserName, attach.PolicyName, attach.PolicyType = "app", "read-app", "Custom"
	run(s, s.client.AttachPolicyToUser, attach, "")
	run(s, s.client.AttachPolicyToUser, attach, "EntityAlreadyExists.User.Policy")
	attached := ram.CreateListPoliciesForUserRequest()
	attached.UserName = "app"
	if l := run(s, s.client.ListPoliciesForUser, attached, "").Policies.Policy; len(l) != 1 ||
		l[0].PolicyName != "read-app" ||
		l[0].AttachDate == "" {
		s.t.Errorf("ListPoliciesForUser %+v", l)
	}
}

func groups(s *sdk) {
	create := ram.CreateCreateGroupRequest()
	create.GroupName, create.Comments = "team", "x"
	run(s, s.client.CreateGroup, create, "")
	get := ram.CreateGetGroupRequest()
	get.GroupName = "team"
	if g := run(s, s.client.GetGroup, get, "").Group; g.GroupId == "" || g.Comments != "x" {
		s.t.Errorf("GetGroup %+v", g)
	}
	update := ram.CreateUpdateGroupRequest()
	update.GroupName, update.NewGroupName = "team", "crew"
	run(s, s.client.UpdateGroup, update, "")
	if l := run(s, s.client.ListGroups, ram.CreateListGroupsRequest(), "").Groups.Group; len(l) != 1 ||
		l[0].GroupName != "crew" {
		s.t.Errorf("ListGroups %+v", l)
	}
	add := ram.CreateAddUserToGroupRequest()
	add.UserName, add.GroupName = "other", "crew"
	run(s, s.client.AddUserToGroup, add, "")
	members := ram.CreateListUsersForGroupRequest()
	members.GroupName = "crew"
	if l := run(s, s.client.ListUsersForGroup, members, "").Users.User; len(l) != 1 ||
		l[0].UserName != "other" ||
		l[0].JoinDate == "" {
		s.t.Errorf("ListUsersForGroup %+v", l)
	}
	of := ram.CreateListGroupsForUserRequest()
	of.UserName = "other"
	if l := run(s, s.client.ListGroupsForUser, of, "").Groups.Group; len(l) != 1 ||
		l[0].GroupName != "crew" ||
		l[0].JoinDate == "" {
		s.t.Errorf("ListGroupsForUser %+v", l)
	}
	attach := ram.CreateAttachPolicyToGroupRequest()
	attach.GroupName, attach.PolicyName, attach.PolicyType = "crew", "read-app", "Custom"
	run(s, s.client.AttachPolicyToGroup, attach, "")
	attached := ram.CreateListPoliciesForGroupRequest()
	attached.GroupName = "crew"
	if l := run(s, s.client.ListPoliciesForGroup, attached, "").Policies.Policy; len(l) != 1 ||
		l[0].PolicyName != "read-app" {
		s.t.Errorf("ListPoliciesForGroup %+v", l)
	}
	whom := ram.CreateListEntitiesForPolicyRequest()
	whom.PolicyName, whom.PolicyType = "read-app", "Custom"
	l := run(s, s.client.ListEntitiesForPolicy, whom, "")
	if len(l.Users.User) != 1 || l.Users.User[0].UserName != "app" || len(l.Groups.Group) != 1 ||
		l.Groups.Group[0].GroupName != "crew" {
		s.t.Errorf("ListEntitiesForPolicy %+v %+v", l.Users, l.Groups)
	}
}

func keys(s *sdk) ram.AccessKey {
	create := ram.CreateCreateAccessKeyRequest()
	create.UserName = "app"
	key := run(s, s.client.CreateAccessKey, create, "").AccessKey
	second := run(s, s.client.CreateAccessKey, create, "").AccessKey
	run(s, s.client.CreateAccessKey, create, "LimitExceeded.User.AccessKey")
	if key.AccessKeySecret == "" || key.Status != "Active" || key.CreateDate == "" {
		s.t.Errorf("CreateAccessKey: a secret of %d characters, %s, %s", len(key.AccessKeySecret), key.Status, key.CreateDate)
	}
	update := ram.CreateUpdateAccessKeyRequest()
	update.UserName, update.UserAccessKeyId, update.Status = "app", second.AccessKeyId, "Inactive"
	run(s, s.client.UpdateAccessKey, update, "")
	list := ram.CreateListAccessKeysRequest()
	list.UserName = "app"
	if l := run(s, s.client.ListAccessKeys, list, "").AccessKeys.AccessKey; len(l) != 2 ||
		l[1].Status != "Inactive" ||
		l[0].AccessKeySecret != "" {
		s.t.Errorf("ListAccessKeys: %d keys", len(l))
	}
	s.deleteKey(second.AccessKeyId)
	used := ram.CreateGetAccessKeyLastUsedRequest()
	used.UserName, used.UserAccessKeyId = "app", key.AccessKeyId
	run(s, s.client.GetAccessKeyLastUsed, used, "")
	used.UserAccessKeyId = second.AccessKeyId
	run(s, s.client.GetAccessKeyLastUsed, used, "EntityNotExist.User.AccessKey")
	return key
}

func (s *sdk) deleteKey(id string) {
	s.t.Helper()
	remove := ram.CreateDeleteAccessKeyRequest()
	remove.UserName, remove.UserAccessKeyId = "app", id
	run(s, s.client.DeleteAccessKey, remove, "")
}

// read uses what the SDK has set up: the user reads his secrets, and no other.
func read(t *testing.T, server *keyturntest.Server, key ram.AccessKey) {
	t.Helper()
	for _, name := range []string{"app/db", "other/db"} {
		if _, err := server.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
			SecretName: name,
			VersionID:  "v1",
			SecretData: sensitive.New("x"),
		}); err != nil {
			t.Fatal(err)
		}
	}
	c, err := kms.NewClient(kms.Config{Endpoint: server.Endpoint, RootCAs: server.RootCAs, Credentials: sign.Credentials{
		AccessKeyID: key.AccessKeyId, AccessKeySecret: sensitive.New(key.AccessKeySecret),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: "app/db"}); err != nil {
		t.Error(err)
	}
	if _, err := c.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{
		SecretName: "other/db",
	}); !errors.Is(err, kms.ErrNoPermission) {
		t.Errorf("a secret that no policy names: %v", err)
	}
}

// leave takes everything away again, and meets each refusal on the way.
func (s *sdk) leave(key string) {
	user := ram.CreateDeleteUserRequest()
	user.UserName = "app"
	run(s, s.client.DeleteUser, user, "DeleteConflict.User.AccessKey")
	s.deleteKey(key)
	run(s, s.client.DeleteUser, user, "DeleteConflict.User.Policy")
	policy := ram.CreateDeletePolicyRequest()
	policy.PolicyName = "read-app"
	run(s, s.client.DeletePolicy, policy, "DeleteConflict.Policy.User")
	fromUser := ram.CreateDetachPolicyFromUserRequest()
	fromUser.UserName, fromUser.PolicyName, fromUser.PolicyType = "app", "read-app", "Custom"
	run(s, s.client.DetachPolicyFromUser, fromUser, "")
	run(s, s.client.DetachPolicyFromUser, fromUser, "EntityNotExist.User.Policy")
	run(s, s.client.DeleteUser, user, "")
	run(s, s.client.DeleteUser, user, "EntityNotExist.User")

	group := ram.CreateDeleteGroupRequest()
	group.GroupName = "crew"
	run(s, s.client.DeleteGroup, group, "DeleteConflict.Group.User")
	member := ram.CreateRemoveUserFromGroupRequest()
	member.UserName, member.GroupName = "other", "crew"
	run(s, s.client.RemoveUserFromGroup, member, "")
	run(s, s.client.DeleteGroup, group, "DeleteConflict.Group.Policy")
	run(s, s.client.DeletePolicy, policy, "DeleteConflict.Policy.Group")
	fromGroup := ram.CreateDetachPolicyFromGroupRequest()
	fromGroup.GroupName, fromGroup.PolicyName, fromGroup.PolicyType = "crew", "read-app", "Custom"
	run(s, s.client.DetachPolicyFromGroup, fromGroup, "")
	run(s, s.client.DeleteGroup, group, "")
	run(s, s.client.DeletePolicy, policy, "DeleteConflict.Policy.Version")
	for _, v := range []string{"v3", "v4", "v5"} {
		version := ram.CreateDeletePolicyVersionRequest()
		version.PolicyName, version.VersionId = "read-app", v
		run(s, s.client.DeletePolicyVersion, version, "")
	}
	run(s, s.client.DeletePolicy, policy, "")
	run(s, s.client.DeletePolicy, policy, "EntityNotExist.Policy")
}
