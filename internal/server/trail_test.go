package server_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/cli"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
)

// trailFile is the only segment of a small trail.
func trailFile(dir string) string { return filepath.Join(dir, "audit", "00000000000000000001.jsonl") }

// onceRun starts a server in dir, makes a secret, reads it, and stops.
func onceRun(t *testing.T, dir, name string) {
	t.Helper()
	s := keyturntest.Start(t, keyturntest.WithDataDir(dir))
	create(t, s, name, "value")
	if _, err := s.Client.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: name}); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
}

// auditVerify runs `keyturn audit verify` against the store of a server that is stopped.
func auditVerify(t *testing.T, dir string, args ...string) (code int, output string) {
	t.Helper()
	var out bytes.Buffer
	args = append([]string{"audit", "verify", filepath.Join(dir, "audit"), "--data-dir", dir}, args...)
	code = cli.Run(t.Context(), args, strings.NewReader(""), &out, &out)
	return code, out.String()
}

func metric(t *testing.T, s *keyturntest.Server, name string) string {
	t.Helper()
	resp, err := http.Get("http://" + s.HTTPEndpoint + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("there is no metric %s", name)
	return ""
}

// TestTrailLoss takes records of a real server's trail away while it is stopped. The command finds
// it, a strict server does not start, any other starts, says so and records it, and the command
// finds that record until it is named.
func TestTrailLoss(t *testing.T) {
	t.Parallel()
	for name, attack := range map[string]func(t *testing.T, dir string, older []byte){
		"last lines cut": func(t *testing.T, dir string, _ []byte) {
			text, err := os.ReadFile(trailFile(dir))
			if err != nil {
				t.Fatal(err)
			}
			lines := slices.Collect(bytes.Lines(text))
			if err := os.WriteFile(trailFile(dir), bytes.Join(lines[:len(lines)-3], nil), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"everything deleted": func(t *testing.T, dir string, _ []byte) {
			if err := os.RemoveAll(filepath.Join(dir, "audit")); err != nil {
				t.Fatal(err)
			}
		},
		"older copy restored": func(t *testing.T, dir string, older []byte) {
			if err := os.WriteFile(trailFile(dir), older, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			onceRun(t, dir, "a")
			older, err := os.ReadFile(trailFile(dir))
			if err != nil {
				t.Fatal(err)
			}
			onceRun(t, dir, "b")
			if code, out := auditVerify(t, dir); code != 0 || !strings.Contains(out, "The MACs of ") {
				t.Fatalf("before: %d, %s", code, out)
			}
			attack(t, dir, older)
			if code, out := auditVerify(t, dir); code == 0 {
				t.Errorf("the command does not find it: %s", out)
			}
			_, err = server.New(t.Context(), server.Config{
				DataDir:     dir,
				ListenHTTP:  "127.0.0.1:0",
				NoSync:      true,
				AuditStrict: true,
			})
			if loss := new(audit.LossError); !errors.As(err, &loss) {
				t.Errorf("a strict server: %v", err)
			}
			s := keyturntest.Start(t, keyturntest.WithDataDir(dir))
			if got := metric(t, s, "keyturn_audit_losses_total"); got != "1" {
				t.Errorf("%s losses in the metrics", got)
			}
			if out, err := s.Client.DescribeAuditTrail(t.Context(), &kms.DescribeAuditTrailRequest{}); err != nil ||
				out.Losses != 1 {
				t.Errorf("%+v, %v", out, err)
			}
			if err := s.Stop(); err != nil {
				t.Fatal(err)
			}
			code, out := auditVerify(t, dir)
			_, after, ok := strings.Cut(out, "records were lost; record ")
			if number, _, _ := strings.Cut(after, " "); code == 0 || !ok {
				t.Errorf("the command does not find the record of it: %s", out)
			} else if code, out := auditVerify(t, dir, "--known-gap", number); code != 0 ||
				!strings.Contains(out, "reports a loss") {
				t.Errorf("with the gap named: %d, %s", code, out)
			} else if code, out := auditVerify(t, dir, "--known-gap", number, "--known-gap", "100000"); code == 0 ||
				!strings.Contains(out, "record 100000 is not the record of a loss; the records of a loss are "+number) {
				t.Errorf("with another record named: %d, %s", code, out)
			}
			onceRun(t, dir, "c")
		})
	}
}

// TestTrailOnline compares the trail of a running server with what the server says of it.
func TestTrailOnline(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := keyturntest.Start(t, keyturntest.WithDataDir(dir))
	create(t, s, "a", "value")
	head, err := s.Client.DescribeAuditTrail(t.Context(), &kms.DescribeAuditTrailRequest{})
	if err != nil || head.Node != "local" || head.Sequence < 3 || head.FirstSequence != 1 || head.KeyedFrom != 1 {
		t.Fatalf("%+v, %v", head, err)
	}
	known := audit.Head{Node: head.Node, Seq: uint64(head.Sequence), Hash: head.Hash, First: 1, KeyedFrom: 1}
	v := audit.Verification{Head: &known, InUse: true}
	if _, err := v.Verify(filepath.Join(dir, "audit")); err != nil {
		t.Error(err)
	}
	if code, out := auditVerify(t, dir); code == 0 || !strings.Contains(out, "--online") {
		t.Errorf("offline, with a running server: %d, %s", code, out)
	}
	known.Hash = strings.Repeat("0", 64)
	if _, err := v.Verify(filepath.Join(dir, "audit")); err == nil ||
		!strings.Contains(err.Error(), "the trail was rewritten") {
		t.Errorf("against another hash: %v", err)
	}
}

// TestStoredTrailRefusesAnotherRootKey: the MACs are not verified with a key that is not the
// trail's.
func TestStoredTrailRefusesAnotherRootKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	onceRun(t, dir, "a")
	other := filepath.Join(t.TempDir(), "root.key")
	if _, err := (root.File{Path: other}).Load(true); err != nil {
		t.Fatal(err)
	}
	if code, out := auditVerify(t, dir, "--root-key-file", other); code == 0 ||
		!strings.Contains(out, "another root key") {
		t.Errorf("%d, %s", code, out)
	}
}

// TestTrailOfFirstRelease starts with the trail that release 0.1.0 left.
func TestTrailOfFirstRelease(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old := os.DirFS(filepath.Join("..", "audit", "testdata", "format1"))
	if err := os.CopyFS(filepath.Join(dir, "audit"), old); err != nil {
		t.Fatal(err)
	}
	onceRun(t, dir, "a")
	onceRun(t, dir, "b")
	code, out := auditVerify(t, dir)
	if code != 0 || !strings.Contains(out, "records 1 to ") {
		t.Errorf("%d, %s", code, out)
	}
	if text := trail(t, dir); !strings.Contains(text, `"operation":"`+audit.Adopted+`"`) ||
		strings.Contains(text, audit.Gap) {
		t.Errorf("trail:\n%s", text)
	}
}

// TestRestoreIsRecorded puts an older copy of the store back.
func TestRestoreIsRecorded(t *testing.T) {
	t.Parallel()
	dir, saved := t.TempDir(), filepath.Join(t.TempDir(), "store")
	onceRun(t, dir, "a")
	if err := os.CopyFS(saved, os.DirFS(filepath.Join(dir, "store"))); err != nil {
		t.Fatal(err)
	}
	onceRun(t, dir, "b")
	if err := os.RemoveAll(filepath.Join(dir, "store")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "store"), os.DirFS(saved)); err != nil {
		t.Fatal(err)
	}
	onceRun(t, dir, "c")
	if text := trail(t, dir); !strings.Contains(text, `"operation":"store.restored"`) {
		t.Error("the restore is not recorded")
	}
	if code, out := auditVerify(t, dir); code != 0 {
		t.Errorf("a trail that is ahead of a restored store: %d, %s", code, out)
	}
}

// TestTrailAfterRootKeyRotation: the trail's key stays the same under another root key.
func TestTrailAfterRootKeyRotation(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := keyturntest.Start(t, keyturntest.WithDataDir(dir))
	create(t, s, "a", "value")
	rotateRoot(t, s)
	settled(t, s, filepath.Join(dir, "root.key"))
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	onceRun(t, dir, "b")
	if code, out := auditVerify(t, dir); code != 0 || strings.Contains(out, "reports a loss") {
		t.Errorf("%d, %s", code, out)
	}
}

// TestTrailLossWithFullDisk fills the disk of the store below its reserve, where changes are
// refused: records of reads that are cut off after an orderly stop are missed all the same.
func TestTrailLossWithFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	onceRun(t, dir, "a")
	free, ok := store.FreeSpace(dir)
	if !ok {
		t.Skip("the free space is not known here")
	}
	full := func(c *server.Config) { c.StoreReserve = int(2 * free >> 20) }
	s := keyturntest.Start(t, keyturntest.WithDataDir(dir), server.Change(full))
	older, err := os.ReadFile(trailFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	if got := metric(t, s, "keyturn_changes_refused"); got != "1" {
		t.Fatalf("keyturn_changes_refused is %s", got)
	}
	if _, err := s.Client.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: "a"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(trailFile(dir), older, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := auditVerify(t, dir); code == 0 {
		t.Errorf("the command does not find it: %s", out)
	}
	s = keyturntest.Start(t, keyturntest.WithDataDir(dir), server.Change(full))
	if got := metric(t, s, "keyturn_audit_losses_total"); got != "1" {
		t.Errorf("%s losses in the metrics", got)
	}
}

// TestUnfinishedRunIsReported verifies that the next start reports a run whose end is not in the
// store.
func TestUnfinishedRunIsReported(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	onceRun(t, dir, "a")
	s := keyturntest.Start(t, keyturntest.WithDataDir(dir))
	create(t, s, "b", "value")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	const told = `"head_of_last_run":"not stored"`
	if text := trail(t, dir); strings.Contains(text, told) {
		t.Errorf("after an orderly stop:\n%s", text)
	}
	if err := server.MarkRunning(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	onceRun(t, dir, "c")
	if text := trail(t, dir); strings.Count(text, told) != 1 {
		t.Errorf("after a crash:\n%s", text)
	}
}
