package rotation_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/kms"
)

// TestSingleProvesFirst rotates the only credential of an account with which no session can be
// opened: the rotation ends, the target has the credential that readers get, and reads go on.
func TestSingleProvesFirst(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name           string
		broken, mended string
		session        bool // the application holds its one session
		changed        bool // the target may have changed
	}{
		{name: "no login", broken: "ALTER ROLE app NOLOGIN", mended: "ALTER ROLE app LOGIN"},
		{
			name:    "no right to connect",
			broken:  "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC",
			mended:  "GRANT CONNECT ON DATABASE postgres TO PUBLIC",
			changed: true,
		},
		{
			name:    "all sessions in use",
			broken:  "ALTER ROLE app CONNECTION LIMIT 1",
			mended:  "ALTER ROLE app CONNECTION LIMIT -1",
			session: true,
			changed: true,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := startDatabase(t)
			x := d.system("single")
			s := x.run(t)
			untilLive(t, s, "app")
			before, first := x.stored(t, "app"), read(t, s, "app", "", "")
			if tt.session {
				url := fmt.Sprintf("postgres://%s:%s@%s/postgres?sslmode=disable",
					first.AccountName, first.AccountPassword, d.Addr())
				conn, err := pgx.Connect(t.Context(), url)
				must(t, err)
				defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }() // the test is over
			}
			d.run(t, "GRANT CONNECT ON DATABASE postgres TO "+d.admin.AccountName)
			d.run(t, tt.broken)
			must(t, second(s.Client.RotateSecret(t.Context(), &kms.RotateSecretRequest{SecretName: "app", VersionID: "v2"})))
			r := untilRotation(t, s, "app", "v2", "prepared", "abandoned", "done")
			after := read(t, s, "app", "", "")
			if !tt.changed && (x.stored(t, "app") != before || after != first) {
				t.Errorf("in state %s (%s) the credential has changed", r.State, r.Reason)
			}
			if tt.changed && r.State == "prepared" {
				r = untilRotation(t, s, "app", "v2", "abandoned", "done")
			}
			d.run(t, tt.mended)
			if !tt.session {
				x.works(t, "what readers get in state "+r.State, read(t, s, "app", "", ""), true)
			}
		})
	}
}
