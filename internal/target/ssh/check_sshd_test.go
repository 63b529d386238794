package ssh_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
)

// TestCheckAlgorithms verifies that a key which sshd would not accept is never made.
func TestCheckAlgorithms(t *testing.T) {
	t.Parallel()
	s := servers.StartSSH(t, "RequiredRSASize 3072",
		"Match User ktest*", "PubkeyAcceptedAlgorithms rsa-sha2-512,ssh-ed25519")
	old, _ := keyAccount(t, s, "/bin/sh")
	daemon := fmt.Sprintf(`"sshd_config":%q`, filepath.Join(s.Dir, "sshd_config"))
	for keyType, want := range map[string][]string{
		"ed25519":   nil,
		"ecdsa-256": {"impossible key-type-refused"},
		"rsa-2048":  {"impossible key-type-refused"},
		"rsa-3072":  nil,
	} {
		tt := open(t, config(s, s.Addr(), daemon, fmt.Sprintf(`"key_type":%q`, keyType)), admin(s))
		expectCodes(t, keyType, codes(t, tt, old), want...)
	}
}

// TestStrongestSignature verifies that an RSA key logs in where the host takes one algorithm from
// the account.
func TestStrongestSignature(t *testing.T) {
	t.Parallel()
	s := servers.StartSSH(t, "Match User ktest*", "PubkeyAcceptedAlgorithms rsa-sha2-512,ssh-ed25519")
	old, _ := keyAccount(t, s, "/bin/sh")
	tt := open(t, config(s, s.Addr(), `"key_type":"rsa-2048"`), admin(s))
	c := change(t, tt, old)
	targettest.Must(t, tt.Apply(targettest.Within(t), c))
	targettest.Must(t, tt.Verify(targettest.Within(t), c.New))
}

// testCheckOwner verifies what a check finds about the account itself.
func testCheckOwner(t *testing.T, s *servers.SSH) {
	daemon := fmt.Sprintf(`"sshd_config":%q`, filepath.Join(s.Dir, "sshd_config"))
	tt := open(t, config(s, s.Addr(), daemon), admin(s))
	old, _ := keyAccount(t, s, "/usr/sbin/nologin")
	expectCodes(t, "no shell", codes(t, tt, old), "impossible no-shell")
	without := open(t, config(s, s.Addr(), daemon, `"check":""`), admin(s))
	expectCodes(t, "no shell, and no check", codes(t, without, old))
	targettest.Must(t, without.Verify(targettest.Within(t), old))

	old, a := keyAccount(t, s, "/bin/sh")
	second := s.NewAccount(t, "/bin/sh", "*")
	run(t, "usermod", "-d", a.Home, second.Name)
	expectCodes(t, "one home for two", codes(t, tt, old), "needs-consent shared-keys")
	run(t, "usermod", "-d", second.Home, second.Name)
	expectCodes(t, "a home of its own", codes(t, tt, old))
}

// testUnusualFiles verifies that a list of keys keeps its mode and its owner, and that one which
// cannot is found before a rotation.
func testUnusualFiles(t *testing.T, s *servers.SSH) {
	tt := open(t, config(s, s.Addr()), admin(s))
	old, a := keyAccount(t, s, "/bin/sh")
	path := filepath.Join(a.Home, ".ssh", "authorized_keys")
	targettest.Must(t, os.Chmod(path, 0o400))
	c := change(t, tt, old)
	targettest.Must(t, tt.Apply(targettest.Within(t), c))
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("a read-only file is %v, %v", info, err)
	}
	targettest.Must(t, tt.Verify(targettest.Within(t), c.New))

	refused := func(what, text string) {
		t.Helper()
		before := read(t, path)
		got := strings.Join(codes(t, tt, c.New), " ")
		if !strings.Contains(got, "impossible keys-not-changed") {
			t.Errorf("%s: the check finds %s", what, got)
		}
		targettest.Expect(t, tt.Apply(targettest.Within(t), change(t, tt, c.New)), target.Denied, text)
		if read(t, path) != before {
			t.Errorf("%s: the file has changed", what)
		}
	}
	targettest.Must(t, os.Chown(path, 0, 0))
	targettest.Must(t, os.Chmod(path, 0o644))
	refused("a file of root", "belongs to another account")
	run(t, "chown", a.Name, path)
	if exec.Command("chattr", "+i", path).Run() == nil {
		defer run(t, "chattr", "-i", path)
		refused("an immutable file", "cannot be replaced")
	}
}

// TestOneTry verifies that a host which disconnects after one failed login has rejected the
// credential, and that one session at a time is enough.
func TestOneTry(t *testing.T) {
	t.Parallel()
	s := servers.StartSSH(t, "MaxAuthTries 1", "MaxSessions 1")
	tt := open(t, config(s, s.Addr()), admin(s))
	old, _ := keyAccount(t, s, "/bin/sh")
	c := change(t, tt, old)
	targettest.Expect(t, tt.Verify(targettest.Within(t), c.New), target.Rejected, c.New.Account)
	for range 3 {
		targettest.Must(t, tt.Apply(targettest.Within(t), c))
	}
	targettest.Must(t, tt.Verify(targettest.Within(t), c.New))
	targettest.Must(t, tt.Retire(targettest.Within(t), c))
	password := passwordAccount(t, s)
	targettest.Must(t, tt.Verify(targettest.Within(t), password))
	password.Secret = sensitive.New("another-password")
	targettest.Expect(t, tt.Verify(targettest.Within(t), password), target.Rejected, password.Account)
}

// TestKeptOut verifies that a host which rejects an account says nothing about its password.
func TestKeptOut(t *testing.T) {
	t.Parallel()
	s := servers.StartSSH(t, "Match User ktest*", "DenyUsers *")
	tt := open(t, config(s, s.Addr()), admin(s))
	password := passwordAccount(t, s)
	targettest.Expect(t, tt.Verify(targettest.Within(t), password), target.Denied, "pam_faillock")
	wrong := password
	wrong.Secret = sensitive.New("another-password")
	targettest.Expect(t, tt.Verify(targettest.Within(t), wrong), target.Rejected, password.Account)
	further := fmt.Sprintf(`"verify":[%q]`, strings.Replace(s.Addr(), "127.0.0.1", "localhost", 1))
	several := open(t, config(s, s.Addr(), further), admin(s))
	targettest.Expect(t, several.Verify(targettest.Within(t), password), target.Rejected, password.Account)
}
