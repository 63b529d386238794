package ssh_test

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/target/ssh"
)

// TestScriptEndsWithoutTheEndOfItsInput verifies that a script which has come whole ends, and gives
// up its lock, when the connection goes silent before the end of the input is sent. Others would
// wait for the lock until the host finds that the connection is dead, which takes hours.
func TestScriptEndsWithoutTheEndOfItsInput(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "authorized_keys")
	if err := os.WriteFile(file, []byte("ssh-ed25519 AAAA other\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, action := range []string{"add", "append", "remove"} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, "sh", "-s")
		input, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer input.Close()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		script := ssh.EditKeys(action, file, "app", "ssh-ed25519 AAAA other", "ssh-ed25519 BBBB ours")
		if _, err := io.WriteString(input, script); err != nil {
			t.Fatal(err)
		}
		if _, err := cmd.Process.Wait(); err != nil || ctx.Err() != nil {
			t.Fatalf("%s: the shell waits for more input: %v, %v", action, err, ctx.Err())
		}
	}
}
