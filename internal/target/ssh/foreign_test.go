package ssh_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/test/servers"
)

// testForeignWords verifies that what a host prints is not shown as a command of Keyturn.
func testForeignWords(t *testing.T, s *servers.SSH) {
	dir, err := os.MkdirTemp("", "keyturn-shell")
	targettest.Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	targettest.Must(t, os.Chmod(dir, 0o755))
	shell, words := filepath.Join(dir, "shell"), filepath.Join(dir, "words")
	targettest.Must(t, os.WriteFile(words, []byte(targettest.HostileName), 0o644))
	targettest.Must(t, os.WriteFile(shell, []byte("#!/bin/sh\ncat "+words+" >&2; exit 1\n"), 0o755))
	c, _ := keyAccount(t, s, shell)
	targettest.Harmless(t, nil, open(t, config(s, s.Addr()), admin(s)).Verify(targettest.Within(t), c))
}
