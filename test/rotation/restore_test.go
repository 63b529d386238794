package rotation_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/support"
)

// copyTree copies a directory with its modes and times, as a backup does.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	must(t, os.RemoveAll(to))
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copy: %v: %s", err, out)
	}
}

// TestRestore verifies that a server whose store was restored from a copy finds every credential
// that no longer works, without a request and with no probe due. A start without a restore probes
// nothing.
func TestRestore(t *testing.T) {
	t.Parallel()
	d := startDatabase(t)
	dir := filepath.Join(t.TempDir(), "data")
	copied := dir + "-copy"
	const while = 3 * time.Minute                         // no scheduled probe falls due within nine of them
	at := func(ahead time.Duration) *keyturntest.Server { // the API has times in seconds, so each start is at another time
		return start(t, keyturntest.WithDataDir(dir), keyturntest.WithTime(func() time.Time { return time.Now().Add(ahead) }))
	}
	s := at(0)
	register(t, s, d)
	create(t, s, "db", "SingleUser", d.app)
	create(t, s, "still", "SingleUser", d.clone)
	looked := func(name string) (r *kms.DescribeRotationResponse) {
		t.Helper()
		support.Until(t, "a probe of the credential of "+name, func() bool {
			r = until(t, s, name, "idle", "done", "quarantined")
			return !r.ProbeTime.IsZero()
		})
		return r
	}
	looked("db")
	before := looked("still").ProbeTime
	must(t, s.Stop())
	s = at(while)
	rotate(t, s, "db", "v2")
	if out := until(t, s, "db", "done"); !looked("still").ProbeTime.Equal(before) || told(out) {
		t.Error("a start without a restore has probed a credential")
	}
	must(t, s.Stop())
	copyTree(t, dir, copied)
	s = at(2 * while)
	rotate(t, s, "db", "v3")
	until(t, s, "db", "done")
	must(t, s.Stop())
	for n, tt := range []struct {
		name    string
		putBack func()
		noticed bool
	}{
		{"the data directory", func() { copyTree(t, copied, dir) }, true},
		{"the store alone", func() { copyTree(t, filepath.Join(copied, "store"), filepath.Join(dir, "store")) }, true},
		{"the data directory, without its mark", func() {
			copyTree(t, copied, dir)
			must(t, os.Remove(filepath.Join(dir, "store-mark.json")))
		}, true},
		{"the whole volume, of hours ago", func() { copyTree(t, copied, dir); unnoticed(t, dir) }, false},
	} {
		clock := time.Duration(3+2*n) * while
		if !tt.noticed {
			clock = 2 * time.Hour
		}
		tt.putBack()
		s = at(clock)
		out := until(t, s, "db", "quarantined")
		if told(out) != tt.noticed || out.CredentialState != "dead" {
			t.Errorf("%s: credential %s, steps %+v", tt.name, out.CredentialState, out.Steps)
		}
		support.Until(t, tt.name+": a probe of the secret that was not rotated", func() bool {
			return looked("still").ProbeTime.After(before.Add(clock - while/2))
		})
		if out := looked("still"); out.CredentialState != "live" || out.State != "idle" {
			t.Errorf("%s: what was not rotated is %s, its credential %s", tt.name, out.State, out.CredentialState)
		}
		must(t, s.Stop())
		s = at(clock + while)
		must(t, second(s.Client.RepairRotation(t.Context(), &kms.RepairRotationRequest{
			SecretName:   "db",
			RepairAction: "apply",
		})))
		until(t, s, "db", "done") // the engine has been at work since that start
		if again := looked("still").ProbeTime; again.After(before.Add(clock + while - time.Second)) {
			t.Errorf("%s: the next start has probed again", tt.name)
		}
		if _, l := current(t, s, "db"); d.login(t.Context(), l) != nil {
			t.Errorf("%s: after the repair the credential does not work", tt.name)
		}
		must(t, s.Stop())
		d.run(t, "ALTER ROLE app PASSWORD 'that of another time'")
	}
}

// told reports whether the steps of a rotation include the restore.
func told(r *kms.DescribeRotationResponse) bool {
	return slices.ContainsFunc(r.Steps, func(s kms.RotationStep) bool { return s.Event == "store-restored" })
}

// unnoticed makes a data directory look like one that was restored from a snapshot of the volume.
func unnoticed(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, "store-mark.json")
	data, err := os.ReadFile(path)
	must(t, err)
	var m map[string]any
	must(t, json.Unmarshal(data, &m))
	delete(m, "file")
	data, err = json.Marshal(m)
	must(t, err)
	must(t, os.WriteFile(path, data, 0o600))
}
