package api_test

import (
	"testing"

	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// BenchmarkGetSecretValue compares the administrator, whom no policy is read for, with users.
func BenchmarkGetSecretValue(b *testing.B) {
	s := keyturntest.Start(b)
	ctx, admin := b.Context(), ram.New(s.Client)
	check := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	_, err := s.Client.CreateSecret(ctx, &kms.CreateSecretRequest{
		SecretName: "app",
		VersionID:  "v1",
		SecretData: sensitive.New("x"),
	})
	check(err)
	_, err = admin.CreatePolicy(ctx, &ram.CreatePolicyRequest{PolicyName: "p", PolicyDocument: readAll("app")})
	check(err)
	_, err = admin.CreateGroup(ctx, &ram.CreateGroupRequest{GroupName: "g"})
	check(err)
	_, err = admin.AttachPolicyToGroup(ctx, &ram.GroupPolicyRequest{GroupName: "g", PolicyName: "p", PolicyType: "Custom"})
	check(err)
	clients := map[string]*kms.Client{"root": s.Client}
	for _, name := range []string{"user", "member"} {
		_, err = admin.CreateUser(ctx, &ram.CreateUserRequest{UserName: name})
		check(err)
		if name == "user" {
			_, err = admin.AttachPolicyToUser(ctx, &ram.UserPolicyRequest{UserName: name, PolicyName: "p", PolicyType: "Custom"})
		} else {
			_, err = admin.AddUserToGroup(ctx, &ram.MembershipRequest{UserName: name, GroupName: "g"})
		}
		check(err)
		key, err := admin.CreateAccessKey(ctx, &ram.CreateAccessKeyRequest{UserName: name})
		check(err)
		clients[name], err = kms.NewClient(kms.Config{Endpoint: s.Endpoint, RootCAs: s.RootCAs, Credentials: sign.Credentials{
			AccessKeyID: key.AccessKey.AccessKeyID, AccessKeySecret: key.AccessKey.AccessKeySecret,
		}})
		check(err)
	}
	for _, name := range []string{"root", "user", "member"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				_, err := clients[name].GetSecretValue(ctx, &kms.GetSecretValueRequest{SecretName: "app"})
				check(err)
			}
		})
	}
}
