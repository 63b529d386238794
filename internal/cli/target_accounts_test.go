package cli

import (
	"bytes"
	"testing"

	"github.com/keyturn/keyturn/kms"
)

// TestPreparedButNotProven verifies that logins that are equal are not called different where a
// check finds that a rotation is impossible, and what is left to agree to before a rotation begins.
func TestPreparedButNotProven(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		answer kms.PrepareTargetAccountsResponse
		want   string
	}{
		{
			kms.PrepareTargetAccountsResponse{Applied: true, Databases: []string{"shop"}},
			"Done. Both logins are shown to be equal in database shop, but a rotation is not possible yet.\n",
		},
		{
			kms.PrepareTargetAccountsResponse{
				Applied: true, Proven: true, SecretName: "db", Databases: []string{"shop"},
				Consents: []string{"session-user", "role-reset"},
			},
			"Done. Both logins are shown to be equal in database shop. Secret db has their credentials.\n" +
				"Before its first rotation, point the applications of app to db: the present password of app " +
				"stops working when the grace period of that rotation ends.\n" +
				"No rotation begins before you agree to what a check finds (session-user, role-reset):\n" +
				"  keyturn rotation configure db --consent session-user --consent role-reset\n",
		},
		{kms.PrepareTargetAccountsResponse{Applied: true}, "Done, but the logins are not equal.\n"},
		{
			kms.PrepareTargetAccountsResponse{Refused: "Another secret rotates it."},
			"Nothing was changed, and --apply would be refused: Another secret rotates it.\n",
		},
	} {
		var out bytes.Buffer
		e := &env{globals: globals{Output: "table"}, stdout: &out}
		err := (&targetPrepareAccounts{Account: "app"}).print(e, &tt.answer)
		if err != nil || out.String() != tt.want {
			t.Errorf("printed %q, %v; want %q", out.String(), err, tt.want)
		}
	}
}
