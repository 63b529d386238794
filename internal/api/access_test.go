package api_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// client calls a server with an access key, over TLS unless plain.
func client(t *testing.T, s *keyturntest.Server, key ram.AccessKey, plain bool) (*kms.Client, *spy) {
	t.Helper()
	endpoint := s.Endpoint
	if plain {
		endpoint = "http://" + s.HTTPEndpoint
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.RootCAs, MinVersion: tls.VersionTLS13}}
	seen := &spy{transport: transport}
	c, err := kms.NewClient(kms.Config{
		Endpoint: endpoint, MaxAttempts: 1, HTTPClient: &http.Client{Transport: seen},
		Credentials: sign.Credentials{AccessKeyID: key.AccessKeyID, AccessKeySecret: key.AccessKeySecret},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return c, seen
}

// spy keeps the body of the last answer.
type spy struct {
	transport http.RoundTripper
	body      []byte
}

func (s *spy) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := s.transport.RoundTrip(r)
	if err != nil {
		return resp, err
	}
	s.body, err = io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(bytes.NewReader(s.body))
	return resp, err
}

// detail is what an answer says of a refusal.
func (s *spy) detail(t *testing.T) map[string]string {
	t.Helper()
	var e struct{ AccessDeniedDetail map[string]string }
	if err := json.Unmarshal(s.body, &e); err != nil {
		t.Fatal(err)
	}
	return e.AccessDeniedDetail
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// newUser makes a user with an access key and custom policies of the given documents.
func newUser(t *testing.T, admin *ram.Client, name string, documents ...string) ram.AccessKey {
	t.Helper()
	must[*ram.UserResponse](t)(admin.CreateUser(t.Context(), &ram.CreateUserRequest{UserName: name}))
	return newKey(t, admin, name, documents...)
}

// newKey gives a user an access key and custom policies of the given documents.
func newKey(t *testing.T, admin *ram.Client, name string, documents ...string) ram.AccessKey {
	t.Helper()
	ctx := t.Context()
	for i, d := range documents {
		p := fmt.Sprintf("%s-%d", name, i)
		must[*ram.CreatePolicyResponse](t)(
			admin.CreatePolicy(ctx, &ram.CreatePolicyRequest{PolicyName: p, PolicyDocument: d}))
		must[*ram.EmptyResponse](t)(admin.AttachPolicyToUser(ctx, &ram.UserPolicyRequest{
			UserName:   name,
			PolicyName: p,
			PolicyType: ram.TypeCustom,
		}))
	}
	return must[*ram.CreateAccessKeyResponse](t)(
		admin.CreateAccessKey(ctx, &ram.CreateAccessKeyRequest{UserName: name})).AccessKey
}

func document(statements ...string) string {
	return `{"Version":"1","Statement":[` + strings.Join(statements, ",") + `]}`
}

func statement(effect, action, resource string, condition ...string) string {
	s := `{"Effect":"` + effect + `","Action":"` + action + `","Resource":"` + resource + `"`
	if len(condition) > 0 {
		s += `,"Condition":` + condition[0]
	}
	return s + "}"
}

func allow(action, resource string, condition ...string) string {
	return statement("Allow", action, resource, condition...)
}

func deny(action, resource string, condition ...string) string {
	return statement("Deny", action, resource, condition...)
}

// try does one operation on a secret.
type try func(ctx context.Context, c *kms.Client, name string) error

func get(ctx context.Context, c *kms.Client, name string) error {
	_, err := c.GetSecretValue(ctx, &kms.GetSecretValueRequest{SecretName: name})
	return err
}

func describe(ctx context.Context, c *kms.Client, name string) error {
	_, err := c.DescribeSecret(ctx, &kms.DescribeSecretRequest{SecretName: name})
	return err
}

func put(ctx context.Context, c *kms.Client, name string) error {
	_, err := c.PutSecretValue(ctx, &kms.PutSecretValueRequest{
		SecretName: name,
		VersionID:  "put",
		SecretData: sensitive.New("x"),
	})
	return err
}

func createNew(ctx context.Context, c *kms.Client, name string) error {
	_, err := c.CreateSecret(ctx, &kms.CreateSecretRequest{
		SecretName: name + "-new",
		VersionID:  "v1",
		SecretData: sensitive.New("x"),
	})
	return err
}

func list(ctx context.Context, c *kms.Client, _ string) error {
	_, err := c.ListSecrets(ctx, &kms.ListSecretsRequest{})
	return err
}

func password(ctx context.Context, c *kms.Client, _ string) error {
	_, err := c.GetRandomPassword(ctx, &kms.GetRandomPasswordRequest{})
	return err
}

func setPolicy(ctx context.Context, c *kms.Client, name string) error {
	_, err := c.SetSecretPolicy(ctx, &kms.SetSecretPolicyRequest{SecretName: name, Policy: "{}"})
	if errors.Is(err, kms.ErrInvalidParameter) {
		return nil // allowed, and then found wrong
	}
	return err
}

func missing(f try) try {
	return func(ctx context.Context, c *kms.Client, name string) error {
		err := f(ctx, c, name+"-missing")
		if errors.Is(err, kms.ErrResourceNotFound) {
			return nil // allowed to know
		}
		return err
	}
}

func tagBoth(ctx context.Context, c *kms.Client, name string) error {
	_, err := c.TagResources(ctx, &kms.TagResourcesRequest{
		RegionID:     "local",
		ResourceType: kms.ResourceSecret,
		ResourceIDs:  []string{name, name + "2"},
		Tags:         []kms.ResourceTag{{Key: "k", Value: "v"}},
	})
	return err
}

func listUsers(ctx context.Context, c *kms.Client, _ string) error {
	_, err := ram.New(c).ListUsers(ctx, &ram.ListUsersRequest{})
	return err
}

func getSystem(ctx context.Context, c *kms.Client, _ string) error {
	_, err := ram.New(c).GetPolicy(ctx, &ram.PolicyRequest{PolicyType: ram.TypeSystem, PolicyName: "AdministratorAccess"})
	return err
}

func identity(ctx context.Context, c *kms.Client, _ string) error {
	_, err := c.GetCallerIdentity(ctx, &kms.GetCallerIdentityRequest{})
	return err
}

// TestDecisions asks a real server what real users may. In a text $S is the name of a secret that
// exists, with the tag env=prod, $D the folder that it is in, $A the account and $U the user.
func TestDecisions(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	admin := ram.New(s.Client)
	must[*ram.UserResponse](t)(admin.CreateUser(t.Context(), &ram.CreateUserRequest{UserName: "somebody"}))
	const (
		folder = "acs:kms:*:*:secret/$D/*"
		this   = "acs:kms:*:*:secret/$S"
		value  = "kms:GetSecretValue"
		secret = "kms:*"
		no     = kms.CodeNoPermission
	)
	own := `{"Effect":"Allow","Principal":{"RAM":"acs:ram::$A:*"},"Action":"kms:*","Resource":"*"}`
	grant := func(effect, principal, action string) string {
		return `{"Effect":"` + effect + `","Principal":{"RAM":"acs:ram::$A:` + principal + `"},"Action":"` + action +
			`","Resource":"*"}`
	}
	for i, tt := range []struct {
		name     string
		user     []string // statements, one policy each
		group    []string // likewise, of a group that the user is in
		system   string
		secret   []string // statements of the secret's own policy
		plain    bool
		do       try
		want     string
		explicit bool
	}{
		{name: "no policy", do: get, want: no},
		{name: "no policy, missing secret", do: missing(get), want: no},
		{name: "no policy, list", do: list, want: no},
		{name: "no policy, who am I", do: identity},
		{name: "folder, get", user: []string{allow(value, folder)}, do: get},
		{name: "folder, missing secret", user: []string{allow(value, folder)}, do: missing(get)},
		{name: "folder, describe", user: []string{allow(value, folder)}, do: describe, want: no},
		{name: "folder, put", user: []string{allow(value, folder)}, do: put, want: no},
		{name: "folder, everything on a secret", user: []string{allow(secret, folder)}, do: put},
		{name: "objects are not the container: create", user: []string{allow(secret, folder)}, do: createNew, want: no},
		{
			name: "objects are not the container: list",
			user: []string{allow(secret, "acs:kms:*:*:secret/*")},
			do:   list,
			want: no,
		},
		{name: "the container: list", user: []string{allow("kms:ListSecrets", "acs:kms:*:*:secret")}, do: list},
		{name: "the container: create", user: []string{allow("kms:CreateSecret", "acs:kms:local:$A:secret")}, do: createNew},
		{name: "the container is no object", user: []string{allow(secret, "acs:kms:*:*:secret")}, do: get, want: no},
		{name: "one secret", user: []string{allow(value, this)}, do: get},
		{name: "one secret, its neighbour", user: []string{allow(value, this)}, do: missing(get), want: no},
		{name: "another region", user: []string{allow(value, "acs:kms:other:*:secret/*")}, do: get, want: no},
		{name: "another account", user: []string{allow(value, "acs:kms:*:1111222233334444:secret/*")}, do: get, want: no},
		{name: "another service", user: []string{allow("oss:*", "*")}, do: get, want: no},
		{name: "action in another case", user: []string{allow("KMS:getsecretvalue", folder)}, do: get},
		{name: "resource in another case", user: []string{allow(value, "acs:kms:*:*:SECRET/$D/*")}, do: get, want: no},
		{
			name:     "deny wins over allow",
			user:     []string{allow(secret, "*"), deny(value, this)},
			do:       get,
			want:     no,
			explicit: true,
		},
		{name: "deny of one action", user: []string{allow(secret, "*"), deny("kms:Put*", "*")}, do: get},
		{
			name:     "deny wins over a system policy",
			system:   "AdministratorAccess",
			user:     []string{deny(value, folder)},
			do:       get,
			want:     no,
			explicit: true,
		},
		{name: "through a group", group: []string{allow(value, folder)}, do: get},
		{name: "through a group, not more", group: []string{allow(value, folder)}, do: put, want: no},
		{
			name:     "deny through a group",
			user:     []string{allow(value, folder)},
			group:    []string{deny("*", "*")},
			do:       get,
			want:     no,
			explicit: true,
		},
		{name: "system: administrator", system: "AdministratorAccess", do: listUsers},
		{name: "system: full access, get", system: "AliyunKMSFullAccess", do: get},
		{name: "system: full access, users", system: "AliyunKMSFullAccess", do: listUsers, want: ram.CodeNoPermission},
		{name: "system: read only, describe", system: "AliyunKMSReadOnlyAccess", do: describe},
		{name: "system: read only, no value", system: "AliyunKMSReadOnlyAccess", do: get, want: no},
		{name: "system: secret user", system: "AliyunKMSSecretUserAccess", do: get},
		{name: "system: secret user, put", system: "AliyunKMSSecretUserAccess", do: put, want: no},
		{name: "system: secret administrator, create", system: "AliyunKMSSecretAdminAccess", do: createNew},
		{name: "system: secret administrator, password", system: "AliyunKMSSecretAdminAccess", do: password},
		{
			name: "no resource needs *",
			user: []string{allow("kms:GetRandomPassword", "acs:kms:*:*:*")},
			do:   password,
			want: no,
		},
		{name: "secret policy grants a user", secret: []string{own, grant("Allow", "user/$U", value)}, do: get},
		{
			name:   "secret policy grants no more",
			secret: []string{own, grant("Allow", "user/$U", value)},
			do:     describe,
			want:   no,
		},
		{name: "secret policy delegates, no policy allows", secret: []string{own}, do: get, want: no},
		{
			name:   "secret policy delegates, a policy allows",
			secret: []string{own},
			user:   []string{allow(value, folder)},
			do:     get,
		},
		{
			name:     "secret policy denies a user",
			secret:   []string{own, grant("Deny", "user/$U", value)},
			user:     []string{allow(value, "*")},
			do:       get,
			want:     no,
			explicit: true,
		},
		{
			name:   "secret policy denies another user",
			secret: []string{own, grant("Deny", "user/somebody", value)},
			user:   []string{allow(value, "*")},
			do:     get,
		},
		{
			name:     "a policy denies what the secret policy grants",
			secret:   []string{own, grant("Allow", "user/$U", value)},
			user:     []string{deny(value, "*")},
			do:       get,
			want:     no,
			explicit: true,
		},
		{
			name:     "a denied user may not lift the Deny",
			secret:   []string{own, grant("Deny", "user/$U", "kms:*")},
			user:     []string{allow("kms:SetSecretPolicy", folder)},
			do:       setPolicy,
			want:     no,
			explicit: true,
		},
		{
			name: "source in the block",
			user: []string{allow(value, folder, `{"IpAddress":{"acs:SourceIp":["127.0.0.0/8"]}}`)},
			do:   get,
		},
		{
			name: "source outside the block",
			user: []string{allow(value, folder, `{"IpAddress":{"acs:SourceIp":["10.0.0.0/8"]}}`)},
			do:   get,
			want: no,
		},
		{
			name:     "deny outside the block",
			user:     []string{allow(value, folder), deny("*", "*", `{"NotIpAddress":{"acs:SourceIp":"10.0.0.0/8"}}`)},
			do:       get,
			want:     no,
			explicit: true,
		},
		{name: "TLS wanted, TLS", user: []string{allow(value, folder, `{"Bool":{"acs:SecureTransport":"true"}}`)}, do: get},
		{
			name:  "TLS wanted, plain",
			user:  []string{allow(value, folder, `{"Bool":{"acs:SecureTransport":"true"}}`)},
			plain: true,
			do:    get,
			want:  no,
		},
		{
			name:     "plain denied, plain",
			user:     []string{allow(value, folder), deny("*", "*", `{"Bool":{"acs:SecureTransport":"false"}}`)},
			plain:    true,
			do:       get,
			want:     no,
			explicit: true,
		},
		{name: "tag matches", user: []string{allow(value, "*", `{"StringEquals":{"kms:tag/env":"prod"}}`)}, do: get},
		{
			name: "tag differs",
			user: []string{allow(value, "*", `{"StringEquals":{"kms:tag/env":"test"}}`)},
			do:   get,
			want: no,
		},
		{
			name: "tag of a missing secret",
			user: []string{allow(value, "*", `{"StringEquals":{"kms:tag/env":"prod"}}`)},
			do:   missing(get),
			want: no,
		},
		{
			name:     "deny by tag",
			user:     []string{allow(secret, "*"), deny("kms:Put*", "*", `{"StringLike":{"kms:tag/env":"pr*"}}`)},
			do:       put,
			want:     no,
			explicit: true,
		},
		{
			name:     "deny without tag",
			user:     []string{allow(secret, "*"), deny("*", "*", `{"StringNotEquals":{"kms:tag/team":"a"}}`)},
			do:       get,
			want:     no,
			explicit: true,
		},
		{
			name: "time is over",
			user: []string{allow(value, folder, `{"DateLessThan":{"acs:CurrentTime":"2001-01-01T00:00:00Z"}}`)},
			do:   get,
			want: no,
		},
		{
			name: "no second factor",
			user: []string{allow(value, folder, `{"Bool":{"acs:MFAPresent":"true"}}`)},
			do:   get,
			want: no,
		},
		{name: "several resources, all allowed", user: []string{allow("kms:TagResources", folder)}, do: tagBoth},
		{name: "several resources, one not", user: []string{allow("kms:TagResources", this)}, do: tagBoth, want: no},
		{name: "users of the account", user: []string{allow("ram:ListUsers", "acs:ram:*:$A:user/*")}, do: listUsers},
		{
			name: "policies of the account are not policies of the service",
			user: []string{allow("ram:*", "acs:ram:*:$A:*")},
			do:   getSystem,
			want: ram.CodeNoPermission,
		},
		{name: "policies of the service", user: []string{allow("ram:GetPolicy", "acs:ram:*:system:policy/*")}, do: getSystem},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, user, dir := t.Context(), fmt.Sprintf("u%d", i), fmt.Sprintf("d%d", i)
			name := dir + "/app"
			fill := strings.NewReplacer("$S", name, "$D", dir, "$A", s.AccountID, "$U", user).Replace
			must[*ram.UserResponse](t)(admin.CreateUser(ctx, &ram.CreateUserRequest{UserName: user}))
			for _, n := range []string{name, name + "2"} {
				in := &kms.CreateSecretRequest{
					SecretName: n,
					VersionID:  "v1",
					SecretData: sensitive.New("x"),
					Tags:       []kms.Tag{{TagKey: "env", TagValue: "prod"}},
				}
				if len(tt.secret) > 0 {
					in.Policy = fill(document(tt.secret...))
				}
				must[*kms.CreateSecretResponse](t)(s.Client.CreateSecret(ctx, in))
			}
			var documents []string
			for _, st := range tt.user {
				documents = append(documents, fill(document(st)))
			}
			key := newKey(t, admin, user, documents...)
			if tt.system != "" {
				must[*ram.EmptyResponse](t)(admin.AttachPolicyToUser(ctx, &ram.UserPolicyRequest{
					UserName:   user,
					PolicyName: tt.system,
					PolicyType: ram.TypeSystem,
				}))
			}
			for j, st := range tt.group {
				g, p := fmt.Sprintf("g%d-%d", i, j), fmt.Sprintf("gp%d-%d", i, j)
				must[*ram.GroupResponse](t)(admin.CreateGroup(ctx, &ram.CreateGroupRequest{GroupName: g}))
				must[*ram.CreatePolicyResponse](t)(
					admin.CreatePolicy(ctx, &ram.CreatePolicyRequest{PolicyName: p, PolicyDocument: fill(document(st))}))
				must[*ram.EmptyResponse](t)(admin.AttachPolicyToGroup(ctx, &ram.GroupPolicyRequest{
					GroupName:  g,
					PolicyName: p,
					PolicyType: ram.TypeCustom,
				}))
				must[*ram.EmptyResponse](t)(admin.AddUserToGroup(ctx, &ram.MembershipRequest{UserName: user, GroupName: g}))
			}
			c, seen := client(t, s, key, tt.plain)
			err := tt.do(ctx, c, name)
			if kms.CodeOf(err) != tt.want || tt.want == "" && err != nil {
				t.Fatalf("answered %v; want code %q", err, tt.want)
			}
			if tt.want == "" {
				return
			}
			var e *kms.Error
			if !errors.As(err, &e) || e.HTTPStatus != http.StatusForbidden {
				t.Errorf("status of %v; want 403", err)
			}
			got, kind := seen.detail(t), "ImplicitDeny"
			if tt.explicit {
				kind = "ExplicitDeny"
			}
			if got["NoPermissionType"] != kind ||
				got["AuthPrincipalType"] != "SubUser" ||
				got["AuthPrincipalDisplayName"] != user ||
				got["AuthPrincipalOwnerId"] != s.AccountID {
				t.Errorf("AccessDeniedDetail %v; want %s for %s", got, kind, user)
			}
			if want := "ResourceBasedPolicy"; tt.name == "secret policy denies a user" && got["PolicyType"] != want {
				t.Errorf("PolicyType %s; want %s", got["PolicyType"], want)
			}
		})
	}
}
