package credential_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/consumer/credential"
	table "github.com/keyturn/keyturn/internal/credential"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// TestServerRotatesWhatAdaptersAccept verifies, for each pair of usual member names and for values
// without one, that the server finds the credential that an adapter logs in with, or refuses the
// value with the reason; and that the adapter reads from the rotated value what the target was
// given.
func TestServerRotatesWhatAdaptersAccept(t *testing.T) {
	t.Parallel()
	accounts := slices.Concat([]string{""}, table.Usual(table.Account), table.Usual(table.KeyID))
	for _, account := range accounts {
		for _, password := range append(table.Usual(table.Secret), "") {
			for _, broken := range []string{
				"", `"Password":null`, `"UserName":null`, `"user":7`, `"PublicKey":"k","key_id":"i"`,
			} {
				members := []string{}
				if account != "" {
					members = append(members, text(account)+`:"app"`)
				}
				if password != "" {
					members = append(members, text(password)+`:"hunter2"`)
				}
				if broken != "" && !strings.HasPrefix(broken, text(account)) && !strings.HasPrefix(broken, text(password)) {
					members = append(members, broken)
				}
				compare(t, "{"+strings.Join(members, ",")+"}")
			}
		}
	}
	compare(t, "hunter2")
	compare(t, `["hunter2"]`)
}

func compare(t *testing.T, value string) {
	t.Helper()
	read, err := credential.Format{}.Read(secretOf(t, value))
	if err != nil {
		return // an adapter does not log in with it
	}
	s := secret.Secret{Name: "s", Type: kms.TypeGeneric}
	list, err := s.Credentials(sensitive.New(value))
	if err != nil {
		reason := "is not a JSON object, so say whose"
		switch {
		case strings.Contains(value, `"AccessKeyId":"app"`), strings.Contains(value, `"key_id":`):
			reason = "but not the account that the key belongs to; add a member such as AccountName"
		case strings.HasPrefix(value, "{"):
			reason = "has no member that names the account"
		}
		known := strings.Contains(value, `:"app"`) && !strings.Contains(value, `"AccessKeyId":"app"`) &&
			!strings.Contains(value, `"key_id":"app"`)
		if known || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: an adapter logs in with it, and the server refuses to rotate it: %v; want %q", value, err, reason)
		}
		return
	}
	if list[0].Account != read.Account || !list[0].Secret.Equal(read.Secret) {
		t.Errorf("%s: an adapter logs in as %q, the server rotates %q, or another secret",
			value, read.Account, list[0].Account)
	}
	given := target.Credential{Account: "other", Secret: sensitive.New("correct horse"), Public: "public", ID: "id"}
	rotated := s.Value(sensitive.New(value), given)
	read, err = credential.Format{}.Read(secretOf(t, rotated.Reveal()))
	if err != nil || read.Account != given.Account || !read.Secret.Equal(given.Secret) {
		t.Errorf("%s: after a rotation an adapter reads account %q, or another secret, %v", value, read.Account, err)
	}
}

func text(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// TestAdaptersReadManagedTypes verifies that adapters find the credential in what GetSecretValue
// returns for each managed type.
func TestAdaptersReadManagedTypes(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{kms.TypeRds, kms.TypeRedis, kms.TypePolarDB, kms.TypeRAMCredentials, kms.TypeECS} {
		s := secret.Secret{Name: "s", Type: kind}
		stored := s.Value(sensitive.Value{}, target.Credential{Account: "app", ID: "app", Secret: sensitive.New("hunter2")})
		read, err := credential.Format{}.Read(secretOf(t, s.Present(secret.Version{}, stored).Reveal()))
		if err != nil || read.Account != "app" || read.Secret.Reveal() != "hunter2" {
			t.Errorf("%s: an adapter reads account %q, or another secret, %v", kind, read.Account, err)
		}
	}
}
