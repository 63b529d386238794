package ssh_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/test/servers"
)

// TestFilesOfTheAccount verifies that an account which makes something else of a list of keys than
// sshd reads keeps neither a check nor a rotation of its key waiting, and that a large list is
// refused.
func TestFilesOfTheAccount(t *testing.T) {
	t.Parallel()
	s := servers.StartSSH(t)
	for what, make := range map[string]func(path string) error{
		"pipe":              func(path string) error { return syscall.Mkfifo(path, 0o666) },
		"directory":         func(path string) error { return os.Mkdir(path, 0o755) },
		"link to a device":  func(path string) error { return os.Symlink("/dev/zero", path) },
		"link to a pipe":    func(path string) error { return pipeAndLink(path) },
		"link to itself":    func(path string) error { return os.Symlink(path, path) },
		"link to no folder": func(path string) error { return os.Symlink("/none/such/keys", path) },
	} {
		t.Run(what, func(t *testing.T) {
			old, a := keyAccount(t, s, "/bin/sh")
			second := filepath.Join(a.Home, ".ssh", "authorized_keys2")
			targettest.Must(t, make(second))
			run(t, "chown", "-Rh", a.Name+":", filepath.Dir(second))
			tt := open(t, config(s, s.Addr()), admin(s))
			expectCodes(t, what, codes(t, tt, old))
			c := change(t, tt, old)
			targettest.Must(t, tt.Apply(targettest.Within(t), c))
			targettest.Must(t, tt.Verify(targettest.Within(t), c.New))
			targettest.Must(t, tt.Retire(targettest.Within(t), c))
		})
	}
	old, a := keyAccount(t, s, "/bin/sh")
	path := s.Authorize(t, a, public(t, old)+"\n"+strings.Repeat("# "+strings.Repeat("x", 1000)+"\n", 3<<10))
	tt := open(t, config(s, s.Addr()), admin(s))
	err := tt.Apply(targettest.Within(t), change(t, tt, old))
	targettest.Expect(t, err, target.Denied, path+" has more than")
	expectCodes(t, "a large list", codes(t, tt, old), "impossible keys-not-changed")
}

// pipeAndLink makes a pipe and a link to it.
func pipeAndLink(path string) error {
	if err := syscall.Mkfifo(path+".pipe", 0o666); err != nil {
		return err
	}
	return os.Symlink(path+".pipe", path)
}
