package api_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
)

// TestCheckOfOwnUsers verifies what a check of an access key of this service finds, and that the
// engine does not begin a rotation against it: a key that another principal has switched off or
// deleted is not made good by a rotation.
func TestCheckOfOwnUsers(t *testing.T) {
	t.Parallel()
	const name = "acs/ram/user/robot"
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, w *world, keyID string)
		want string
		may  string // why a rotation may not begin; empty if it may
	}{
		{"fresh", func(*testing.T, *world, string) {}, "overlap safe", ""},
		{"two keys", func(t *testing.T, w *world, _ string) {
			w.must(t, "CreateAccessKey", "UserName", "robot")
		}, "overlap impossible, key-limit", "Delete the access key that is not in use."},
		{"an unknown consent", func(t *testing.T, w *world, _ string) {
			w.refused(t, "InvalidParameter", "it has: key-disabled",
				"ConfigureRotation", "SecretName", name, "Consent.1", "hash")
		}, "overlap safe", ""},
		{"switched off", func(t *testing.T, w *world, id string) {
			w.must(t, "UpdateAccessKey", "UserName", "robot", "UserAccessKeyId", id, "Status", "Inactive")
		}, "overlap safe-with-consent, key-disabled", "--consent=key-disabled"},
		{"agreed", func(t *testing.T, w *world, id string) {
			w.must(t, "UpdateAccessKey", "UserName", "robot", "UserAccessKeyId", id, "Status", "Inactive")
			w.must(t, "ConfigureRotation", "SecretName", name, "Consent.1", "key-disabled")
		}, "overlap safe, key-disabled", ""},
		{"deleted", func(t *testing.T, w *world, id string) {
			w.must(t, "DeleteAccessKey", "UserName", "robot", "UserAccessKeyId", id)
		}, "overlap impossible, key-missing", "no longer has the access key"},
		{"another user of the name", func(t *testing.T, w *world, id string) {
			w.must(t, "DeleteAccessKey", "UserName", "robot", "UserAccessKeyId", id)
			w.must(t, "DeleteUser", "UserName", "robot")
			w.must(t, "CreateUser", "UserName", "robot")
		}, "overlap impossible, no-user", "no longer exists"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w, _ := rotating(t)
			w.must(t, "CreateUser", "UserName", "robot")
			key := w.must(t, "CreateAccessKey", "UserName", "robot").(*ram.CreateAccessKeyResponse).AccessKey
			w.must(t, "CreateSecret", "SecretName", "$Auto", "SecretType", kms.TypeRAMCredentials, "VersionId", "v1",
				"SecretData", fmt.Sprintf(`{"AccessKeys":[{"AccessKeyId":%q,"AccessKeySecret":%q}]}`, key.AccessKeyID,
					key.AccessKeySecret.Reveal()), "ExtendedConfig", `{"SecretSubType":"RamUserAccessKey","UserName":"robot"}`)
			tt.do(t, w, key.AccessKeyID)
			out := w.check(t, name)
			if got := verdicts(out); got != tt.want || out.Strategies[0].Window == "" {
				t.Errorf("%s, want %s", got, tt.want)
			}
			for _, f := range out.Findings {
				if strings.Contains(f.Text+f.Fix, "NAME") {
					t.Errorf("%s does not name the secret: %s %s", f.Code, f.Text, f.Fix)
				}
			}
			w.inState(t, name, rotation.Prepared)
			w.put(t, name, func(_ *secret.Secret, r *rotation.Record) { r.Strategy = "overlap" })
			turn, ok, err := w.gate.Engine(1).Load(t.Context(), account, name)
			if err != nil || !ok {
				t.Fatalf("load: %v, %v", ok, err)
			}
			system, err := turn.Open()
			if err != nil {
				t.Fatal(err)
			}
			_, err = turn.MayBegin(t.Context(), system, rotation.Event{})
			if tt.may == "" && err != nil ||
				tt.may != "" && (fault.KindOf(err) != fault.InUse || !strings.Contains(fmt.Sprint(err), tt.may)) {
				t.Errorf("may begin: %v; want %q", err, tt.may)
			}
		})
	}
}
