package api_test

import (
	"testing"

	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
)

// TestCreateSecretGrantsNothing verifies that the right to create secrets is no right to say who
// may use them: a policy in CreateSecret needs kms:SetSecretPolicy on the secret that is made.
func TestCreateSecretGrantsNothing(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	ctx, admin := t.Context(), ram.New(s.Client)
	own := document(
		`{"Effect":"Allow","Principal":{"RAM":["acs:ram::` + s.AccountID + `:*"]},"Action":"kms:*","Resource":"*"}`)
	key := newUser(t, admin, "creator", document(allow("kms:CreateSecret", "acs:kms:*:*:secret")))
	creator, seen := client(t, s, key, false)
	create := func(c *kms.Client, name, policy string) error {
		_, err := c.CreateSecret(ctx, &kms.CreateSecretRequest{
			SecretName: name,
			VersionID:  "v1",
			SecretData: sensitive.New("x"),
			Policy:     policy,
		})
		return err
	}
	grant := document(
		`{"Effect":"Allow","Principal":{"RAM":["acs:ram::` + s.AccountID +
			`:user/creator"]},"Action":"kms:GetSecretValue","Resource":"*"}`)
	for _, policy := range []string{own, grant} {
		wantCode(t, "a policy without the right to set one", create(creator, "mine", policy), kms.CodeNoPermission)
		if got := seen.detail(t)["AuthAction"]; got != "kms:SetSecretPolicy" {
			t.Errorf("the refusal names %q", got)
		}
	}
	if err := create(creator, "mine", ""); err != nil {
		t.Errorf("without a policy: %v", err)
	}
	_, err := creator.CreateSecret(ctx, &kms.CreateSecretRequest{
		SecretName: kms.Auto, SecretType: kms.TypeRAMCredentials, VersionID: "v1", Policy: own,
		ExtendedConfig: `{"SecretSubType":"RamUserAccessKey","UserName":"creator"}`,
		SecretData: sensitive.New(
			`{"AccessKeys":[{"AccessKeyId":"` + key.AccessKeyID + `","AccessKeySecret":"` + key.AccessKeySecret.Reveal() +
				`"}]}`),
	})
	wantCode(t, "a name that the service makes", err, kms.CodeNoPermission)

	key = newUser(t, admin, "owner",
		document(allow("kms:CreateSecret", "acs:kms:*:*:secret"), allow("kms:SetSecretPolicy", "acs:kms:*:*:secret/team/*")))
	owner, _ := client(t, s, key, false)
	if err := create(owner, "team/db", own); err != nil {
		t.Errorf("with the right on that name: %v", err)
	}
	wantCode(t, "the right on other names", create(owner, "other/db", own), kms.CodeNoPermission)
}
