package tamper_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/cli"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
)

// verify runs `keyturn audit verify`.
func verify(ctx context.Context, path string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = cli.Run(ctx, []string{"audit", "verify", path}, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// TestTrail changes a real server's trail and has the command check it.
func TestTrail(t *testing.T) {
	t.Parallel()
	random, dir := seed(t), t.TempDir()
	s := keyturntest.Start(t, keyturntest.WithDataDir(dir))
	create(t, s.Client, s.AccountID, "a")
	for _, name := range []string{"a", "none"} {
		if _, err := s.Client.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{
			SecretName: name,
		}); (err == nil) != (name == "a") {
			t.Fatal(err)
		}
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "audit", "*.jsonl"))
	if err != nil || len(files) != 1 {
		t.Fatalf("the trail's files: %v, %v", files, err)
	}
	whole, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(whole, []byte(marker)) {
		t.Error("a value is in the trail")
	}
	n := 0
	check := func(what string, changed []byte) {
		t.Helper()
		if err := os.WriteFile(files[0], changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if n++; n%100 != 0 { // what the command does, and quicker
			if _, err := audit.Verify(filepath.Join(dir, "audit")); err == nil || !strings.Contains(err.Error(), " line ") {
				t.Fatalf("%s: %v; want a failure that names the line", what, err)
			}
			return
		}
		code, stdout, stderr := verify(t.Context(), filepath.Join(dir, "audit"))
		if code == 0 || stdout != "" || !strings.Contains(stderr, " line ") {
			t.Fatalf("%s: exit code %d, %q, %q; want a failure that names the line", what, code, stdout, stderr)
		}
	}
	flips(random, whole, func(changed []byte, at int) {
		check(fmt.Sprintf("byte %d flipped, %q", at, around(changed, at)), changed)
	})
	lines := bytes.SplitAfter(whole, []byte("\n"))
	lines = lines[:len(lines)-1]
	for i := range lines[:len(lines)-1] {
		var without, swapped [][]byte
		without = append(append(without, lines[:i]...), lines[i+1:]...)
		swapped = append(swapped, lines...)
		swapped[i], swapped[i+1] = swapped[i+1], swapped[i]
		check(fmt.Sprintf("line %d removed", i+1), bytes.Join(without, nil))
		check(fmt.Sprintf("line %d swapped with the next", i+1), bytes.Join(swapped, nil))
		check(fmt.Sprintf("line %d twice", i+1),
			bytes.Join(append(append(append([][]byte{}, lines[:i+1]...), lines[i]), lines[i+1:]...), nil))
	}
	if err := os.WriteFile(files[0], whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := verify(t.Context(), filepath.Join(dir, "audit")); code != 0 ||
		!strings.Contains(stdout, "The chain holds") {
		t.Errorf("as it was: exit code %d, %q, %q", code, stdout, stderr)
	}
	t.Logf("%d changes of a trail of %d records, %d bytes, all found", n, len(lines), len(whole))
}
