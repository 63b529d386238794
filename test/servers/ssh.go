package servers

import (
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/sandbox"
	"github.com/keyturn/keyturn/test/support"
)

// SSH is an OpenSSH server. The account of this process logs in with AdminKey; as root there may
// be further accounts.
type SSH struct {
	*sandbox.OpenSSH
	// AdminKey is a private key in PEM.
	AdminKey string
	// Log is what the server writes.
	Log *support.Log

	dir string

	mu       sync.Mutex
	accounts []string  // all that were made
	idle     []Account // those that no test has
}

// StartSSH starts an OpenSSH server, with further lines of sshd_config. It takes passwords, and
// keys in .ssh/authorized_keys and .ssh/authorized_keys2 of an account's home directory and in the
// file that is named like the account in Keys.
func StartSSH(t testing.TB, settings ...string) *SSH {
	t.Helper()
	// Other accounts have to reach what is below it.
	dir, err := os.MkdirTemp("", "keyturn-ssh-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s := &SSH{dir: dir, Log: &support.Log{}}
	for _, d := range []string{dir, s.Keys(), filepath.Join(dir, "home")} {
		if err := errors.Join(os.MkdirAll(d, 0o755), os.Chmod(d, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	var public ssh.PublicKey
	s.AdminKey, public = NewSSHKey(t)
	blocks := slices.IndexFunc(settings, func(s string) bool { return strings.HasPrefix(s, "Match ") })
	if blocks < 0 {
		blocks = len(settings)
	}
	settings = slices.Insert(slices.Clone(settings), blocks, "AllowUsers "+accountPrefix+"*", "PasswordAuthentication yes",
		"AuthorizedKeysFile "+s.Keys()+"/%u .ssh/authorized_keys .ssh/authorized_keys2")
	s.OpenSSH, err = sandbox.StartOpenSSH(t.Context(), sandbox.OpenSSHConfig{Dir: dir, Settings: settings, Log: s.Log})
	if errors.Is(err, sandbox.ErrNoOpenSSH) {
		t.Skipf("%v (Debian package openssh-server)", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		s.removeAccounts(t)
	})
	writeFile(t, filepath.Join(s.Keys(), s.User), string(ssh.MarshalAuthorizedKey(public)))
	return s
}

// Keys is a directory of lists of keys, one for each account, that belongs to the account of this
// process.
func (s *SSH) Keys() string { return filepath.Join(s.dir, "keys") }

// NewSSHKey makes a key pair: a private key in PEM and a public key.
func NewSSHKey(t testing.TB) (string, ssh.PublicKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err1 := ssh.MarshalPrivateKey(private, "")
	key, err2 := ssh.NewPublicKey(public)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block)), key
}

const accountPrefix = "ktest"

var (
	accountNumber atomic.Int64
	accountFiles  sync.Mutex // useradd waits for its lock only a while
)

// Account is an account of this machine that ends with the server.
type Account struct {
	Name, Home string

	shell, hash string
}

// NewAccount makes an account with a shell, and a hash as chpasswd -e takes it, or "*". When the
// test ends, another one gets the account, because the system takes its time to make one. It
// skips the test when not root.
func (s *SSH) NewAccount(t testing.TB, shell, hash string) Account {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root, so there can be no further accounts")
	}
	useradd, usermod := program(t, "useradd", "passwd"), program(t, "usermod", "passwd")
	a, ok := s.idleAccount(shell, hash)
	switch {
	case !ok:
		a.Name = fmt.Sprintf("%s%dx%d", accountPrefix, os.Getpid(), accountNumber.Add(1))
		a.Home = filepath.Join(s.dir, "home", a.Name)
		// The hash is of a password of the test's, so the list of processes may show it.
		runLocked(t, useradd, "-m", "-d", a.Home, "-s", shell, "-p", hash, a.Name)
		s.mu.Lock()
		s.accounts = append(s.accounts, a.Name)
		s.mu.Unlock()
	case a.hash != "*" || hash != "*":
		runLocked(t, usermod, "-p", hash, a.Name)
	}
	a.shell, a.hash = shell, hash
	t.Cleanup(func() {
		if err := os.RemoveAll(filepath.Join(a.Home, ".ssh")); err != nil {
			t.Error(err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.idle = append(s.idle, a)
	})
	return a
}

// idleAccount takes an account that no test uses, one of the same kind if there is one.
func (s *SSH) idleAccount(shell, hash string) (Account, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	best := -1
	for i, a := range s.idle {
		if a.shell == shell && (best < 0 || (a.hash == "*") == (hash == "*")) {
			best = i
		}
	}
	if best < 0 {
		return Account{}, false
	}
	a := s.idle[best]
	s.idle = append(s.idle[:best], s.idle[best+1:]...)
	return a, true
}

func (s *SSH) removeAccounts(t testing.TB) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range s.accounts {
		runLocked(t, program(t, "userdel", "passwd"), "-f", name)
	}
}

func runLocked(t testing.TB, name string, args ...string) {
	t.Helper()
	accountFiles.Lock()
	defer accountFiles.Unlock()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Errorf("%s: %v: %s", filepath.Base(name), err, out)
	}
}

// Authorize writes .ssh/authorized_keys of an account.
func (s *SSH) Authorize(t testing.TB, a Account, content string) string {
	t.Helper()
	dir := filepath.Join(a.Home, ".ssh")
	path := filepath.Join(dir, "authorized_keys")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, content)
	if out, err := exec.Command("chown", "-R", a.Name+":", dir).CombinedOutput(); err != nil {
		t.Fatalf("chown: %v: %s", err, out)
	}
	return path
}
