package rotation_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// userOf returns a client of a new user, who may do the actions on the resources.
func userOf(t *testing.T, s *keyturntest.Server, name string, resources []string, actions ...string) *kms.Client {
	t.Helper()
	type statement struct {
		Effect           string
		Action, Resource []string
	}
	document, err := json.Marshal(map[string]any{
		"Version":   "1",
		"Statement": []statement{{Effect: "Allow", Action: actions, Resource: resources}},
	})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(err)
	ctx, admin := t.Context(), ram.New(s.Client)
	_, err = admin.CreateUser(ctx, &ram.CreateUserRequest{UserName: name})
	must(err)
	_, err = admin.CreatePolicy(ctx, &ram.CreatePolicyRequest{PolicyName: name, PolicyDocument: string(document)})
	must(err)
	_, err = admin.AttachPolicyToUser(ctx, &ram.UserPolicyRequest{
		UserName:   name,
		PolicyName: name,
		PolicyType: ram.TypeCustom,
	})
	must(err)
	made, err := admin.CreateAccessKey(ctx, &ram.CreateAccessKeyRequest{UserName: name})
	must(err)
	c, err := kms.NewClient(kms.Config{
		Endpoint: "http://" + s.HTTPEndpoint,
		Credentials: sign.Credentials{
			AccessKeyID:     made.AccessKey.AccessKeyID,
			AccessKeySecret: made.AccessKey.AccessKeySecret,
		},
	})
	must(err)
	return c
}

// oldScheme makes the account a member of its renamed owner, as earlier releases did.
func (d *database) oldScheme(t *testing.T) {
	t.Helper()
	if err := d.Exec(t.Context(), "postgres", `ALTER ROLE app RENAME TO app_owner; ALTER ROLE app_owner NOLOGIN;
		CREATE ROLE app LOGIN IN ROLE app_owner PASSWORD '`+d.app.AccountPassword+`'; ALTER ROLE app SET role = 'app_owner'`,
	); err != nil {
		t.Fatal(err)
	}
}

// TestPrepareAccountsRights verifies that a caller needs a right on each account that the plan
// changes: on the owner of the scheme of earlier releases, and on no owner that is not there.
func TestPrepareAccountsRights(t *testing.T) {
	t.Parallel()
	s, d := startOneLogin(t)
	account := func(name string) string { return "acs:kms:*:*:target/pg-main/account/" + name }
	user := func(name string, accounts ...string) *kms.Client {
		resources := []string{"acs:kms:*:*:target/pg-main"}
		for _, a := range accounts {
			resources = append(resources, account(a))
		}
		return userOf(t, s, name, resources, "kms:PrepareTargetAccounts", "kms:RotateAccount")
	}
	alone := userOf(t, s, "alone", []string{"*"}, "kms:PrepareTargetAccounts")
	logins, all := user("logins", "app", "app_clone"), user("all", "app", "app_clone", "app_owner")
	look := &kms.PrepareTargetAccountsRequest{TargetName: "pg-main", AccountName: "app", CloneAccountName: "app_clone"}
	look.AccountPassword = sensitive.New(d.app.AccountPassword)
	named := *look
	named.OwnerName = "app_owner"
	asks := func(what string, c *kms.Client, in *kms.PrepareTargetAccountsRequest, allowed bool) {
		t.Helper()
		out, err := c.PrepareTargetAccounts(t.Context(), in)
		if allowed != (err == nil) || !allowed && !errors.Is(err, kms.ErrNoPermission) {
			t.Errorf("%s: %+v, %v", what, out, err)
		}
	}
	asks("without a right on an account", alone, look, false)
	asks("without an owner", logins, look, true)
	d.oldScheme(t)
	asks("the old scheme, without a right on an account", alone, look, false)
	asks("migration without a right on the owner", logins, look, false)
	asks("the owner by name, without a right on it", logins, &named, false)
	asks("migration", all, look, true)
	asks("the owner by name", all, &named, true)
	update := &kms.UpdateTargetRequest{TargetName: "pg-main", Accounts: []string{"app", "app_clone"}}
	if _, err := s.Client.UpdateTarget(t.Context(), update); err != nil {
		t.Fatal(err)
	}
	if _, err := all.PrepareTargetAccounts(t.Context(), look); !errors.Is(err, kms.ErrResourceInUse) ||
		!strings.Contains(err.Error(), `does not allow account "app_owner"`) {
		t.Errorf("an owner that the account policy does not allow: %v", err)
	}
}
