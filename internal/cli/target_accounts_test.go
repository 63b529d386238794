package cli

import (
	"bytes"
	"testing"

	"github.com/keyturn/keyturn/kms"
)

// TestPreparedButNotProven verifies that logins that are equal are not called different where a
// check finds that a rotation is impossible.
func TestPreparedButNotProven(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		databases []string
		want      string
	}{
		{[]string{"shop"}, "Done. Both logins are shown to be equal in database shop, but a rotation is not possible yet.\n"},
		{nil, "Done, but the logins are not equal.\n"},
	} {
		var out bytes.Buffer
		err := (&targetPrepareAccounts{}).print(&env{globals: globals{Output: "table"}, stdout: &out},
			&kms.PrepareTargetAccountsResponse{Applied: true, Databases: tt.databases})
		if err != nil || out.String() != tt.want {
			t.Errorf("printed %q, %v; want %q", out.String(), err, tt.want)
		}
	}
}
