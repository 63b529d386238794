package api_test

import (
	"strings"
	"testing"

	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
)

// Reading a target takes the right on the target; creating the secret takes the right on the
// collection of secrets too, and on a secret that is there already.
func TestPrepareAccountsRights(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	createSecret(t, s, "there")
	const action = "kms:PrepareTargetAccounts"
	accounts := allow("kms:RotateAccount", "acs:kms:*:*:target/db/account/app") + "," +
		allow("kms:RotateAccount", "acs:kms:*:*:target/db/account/app_clone")
	onTarget, onSecrets, onSecret := allow(action,
		"acs:kms:*:*:target/db"), allow(action, "acs:kms:*:*:secret"), allow(action, "acs:kms:*:*:secret/there")
	for name, tt := range map[string]struct {
		rights []string
		target string
		apply  string // the secret to make
		code   string
	}{
		"look, no account":  {[]string{onTarget}, "db", "", kms.CodeNoPermission},
		"apply, no account": {[]string{onTarget, onSecrets}, "db", "new", kms.CodeNoPermission},
		"look": {
			[]string{onTarget, accounts}, "db", "", kms.CodeResourceNotFound,
		}, // allowed: and then there is no such target
		"look elsewhere":     {[]string{onTarget, accounts}, "other", "", kms.CodeNoPermission},
		"look, secrets only": {[]string{onSecrets}, "db", "", kms.CodeNoPermission},
		"apply, target only": {[]string{onTarget, accounts}, "db", "new", kms.CodeNoPermission},
		"apply":              {[]string{onTarget, onSecrets, accounts}, "db", "new", kms.CodeResourceNotFound},
		"again, others'":     {[]string{onTarget, onSecrets, accounts}, "db", "there", kms.CodeNoPermission},
		"again":              {[]string{onTarget, onSecrets, onSecret, accounts}, "db", "there", kms.CodeResourceNotFound},
	} {
		user := strings.NewReplacer(" ", "", ",", "", "'", "").Replace(name)
		c, _ := client(t, s, newUser(t, ram.New(s.Client), user, document(tt.rights...)), false)
		in := &kms.PrepareTargetAccountsRequest{TargetName: tt.target, AccountName: "app", CloneAccountName: "app_clone"}
		if tt.apply != "" {
			in.Apply, in.SecretName, in.VersionID, in.AccountPassword = true, tt.apply, "v1", sensitive.New("password")
		}
		_, err := c.PrepareTargetAccounts(t.Context(), in)
		wantCode(t, name, err, tt.code)
	}
}
