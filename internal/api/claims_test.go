package api_test

import (
	"testing"

	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

// TestSpellingsAreOneAccount verifies that two secrets cannot rotate what the target takes for one
// account, whichever of them comes first, and that a claim of an earlier release counts.
func TestSpellingsAreOneAccount(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	m.set("GEN", "p")
	w.must(t, "CreateSecret", "SecretName", "loud", "SecretData", `{"username":"GEN","password":"p"}`, "VersionId", "v1")
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg")
	w.refused(t, kms.CodeResourceExist, `The account "gen" of target "pg" is rotated by secret "gen" already.`,
		"ConfigureRotation", "SecretName", "loud", "TargetName", "pg")
	w.must(t, "RemoveRotation", "SecretName", "gen")
	w.must(t, "ConfigureRotation", "SecretName", "loud", "TargetName", "pg")
	w.refused(t, kms.CodeResourceExist, `The account "gen" of target "pg" is rotated by secret "loud" already.`,
		"ConfigureRotation", "SecretName", "gen", "TargetName", "pg")
	snapshot := store.Snapshot(t.Context(), w.env.DB)
	for _, name := range []string{"gen", "GEN"} {
		if owner, err := snapshot.Claim(account, "pg", name); owner != "loud" || err != nil {
			t.Errorf("%s is claimed by %q, %v", name, owner, err)
		}
	}
}
