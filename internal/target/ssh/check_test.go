package ssh_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	driver "golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/ssh"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
)

// codes returns what a check finds: the verdict and the code of each finding but the notes that are
// not asked for.
func codes(t *testing.T, tt target.Target, c target.Credential, strategies ...target.Strategy) (found []string) {
	t.Helper()
	return codesOf(t, tt, target.CheckRequest{Current: c, Strategies: strategies})
}

func codesOf(t *testing.T, tt target.Target, request target.CheckRequest) (found []string) {
	t.Helper()
	c := request.Current
	for _, f := range targettest.Findings(t, tt, request, "AAAA") { // as keys begin
		if f.Account != c.Account {
			t.Errorf("%s is about the account %q", f.Code, f.Account)
		}
		code := string(f.Verdict) + " " + f.Code
		if f.Outlasts {
			code += " outlasts"
		}
		found = append(found, code)
	}
	return found
}

func expectCodes(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: the check finds %q, want %q", what, got, want)
	}
}

// testCheckKeys verifies what a check finds about keys.
func testCheckKeys(t *testing.T, s *servers.SSH) {
	daemon := fmt.Sprintf(`"sshd_config":%q`, filepath.Join(s.Dir, "sshd_config"))
	tt := open(t, config(s, s.Addr(), daemon), admin(s))
	old, a := keyAccount(t, s, "/bin/sh")
	key := public(t, old)
	_, authority := servers.NewSSHKey(t)
	for content, want := range map[string][]string{
		key:                                    nil,
		"restrict,from=\"127.0.0.1\" " + key:   {"note key-options", "note key-from"},
		"expiry-time=\"20200101\" " + key:      {"note key-options", "note key-expires", "impossible key-expired"},
		"expiry-time=\"209901011200Z\" " + key: {"note key-options", "note key-expires"},
		"cert-authority " + key + "\n" + key:   {"note key-is-authority outlasts"},
		"# " + key:                             {"impossible key-not-listed"},
		key + "\ncert-authority " + string(driver.MarshalAuthorizedKey(authority)): {"note certificate-authority outlasts"},
	} {
		path := s.Authorize(t, a, content+"\n")
		expectCodes(t, content, codes(t, tt, old, target.Overlap), want...)
		if read(t, path) != content+"\n" {
			t.Error("the check has changed the file")
		}
	}
	// At the end of an emergency, what the leaked key still opens.
	fresh, line := servers.NewSSHKey(t)
	renewedKey := target.Credential{Account: old.Account, Secret: sensitive.New(fresh)}
	ended := target.CheckRequest{Current: renewedKey, Leaked: old}
	renewed := string(driver.MarshalAuthorizedKey(line))
	s.Authorize(t, a, renewed+"cert-authority "+key+"\n")
	if got := codesOf(t, tt, ended); !slices.Contains(got, "note key-is-authority outlasts") {
		t.Errorf("a leaked key that is an authority: %q", got)
	}
	path := s.Authorize(t, a, key+"\n")
	expectCodes(t, "single", codes(t, tt, old, target.Overlap, target.Single), "impossible wrong-strategy")
	// Files that the target does not name, or sshd does not read.
	targettest.Must(t, os.Rename(path, path+"2"))
	narrow := open(t, config(s, s.Addr(), daemon, `"authorized_keys":".ssh/authorized_keys"`), admin(s))
	expectCodes(t, "a second file", codes(t, narrow, old), "impossible key-elsewhere outlasts",
		"impossible key-not-listed")
	targettest.Must(t, os.Rename(path+"2", path+"3"))
	wrong := open(t, config(s, s.Addr(), daemon, `"authorized_keys":".ssh/authorized_keys3"`), admin(s))
	expectCodes(t, "a file that sshd does not read", codes(t, wrong, old), "impossible file-not-read")
	// An administrator without the sudo rule.
	keeper, _ := keyAccount(t, s, "/bin/sh")
	denied := codes(t, open(t, config(s, s.Addr(), daemon), keeper), old)
	expectCodes(t, "no sudo rule", denied, "impossible keys-not-changed")
	err := open(t, config(s, s.Addr()), keeper).(target.Tester).Test(targettest.Within(t))
	targettest.Expect(t, err, target.Denied, "sudo")
	targettest.Must(t, tt.(target.Tester).Test(targettest.Within(t)))
	own := open(t, config(s, s.Addr(), `"self":true`), target.Credential{})
	expectCodes(t, "self", codes(t, own, old), "note not-read")
}

// TestCheckDaemon verifies that a check reports where sshd finds credentials besides files.
func TestCheckDaemon(t *testing.T) {
	t.Parallel()
	s := servers.StartSSH(t, "AuthorizedKeysCommand /bin/true", "AuthorizedKeysCommandUser root",
		"Match User ktest*", "ForceCommand internal-sftp", "TrustedUserCAKeys none", "Match all")
	old, _ := keyAccount(t, s, "/bin/sh")
	daemon := fmt.Sprintf(`"sshd_config":%q`, filepath.Join(s.Dir, "sshd_config"))
	tt := open(t, config(s, s.Addr(), daemon), admin(s))
	expectCodes(t, "a forced command", codes(t, tt, old), "note keys-by-program", "impossible forced-command")
	tt = open(t, config(s, s.Addr(), daemon, `"check":""`), admin(s))
	expectCodes(t, "without a check", codes(t, tt, old), "note keys-by-program")
}

// testCheckPasswords verifies what a check finds about passwords.
func testCheckPasswords(t *testing.T, s *servers.SSH) {
	tt := open(t, config(s, s.Addr()), admin(s))
	for _, tc := range []struct {
		what string
		run  []string
		want []string
	}{
		{"an ordinary account", nil, nil},
		{"a locked one", []string{"usermod", "-L"}, []string{"impossible password-locked"}},
		{"one that must change", []string{"chage", "-d", "0"}, []string{"impossible must-change"}},
		{"an expired password", []string{"chage", "-d", "2020-01-01", "-M", "30"}, []string{"impossible password-expired"}},
		{"one that expires", []string{"chage", "-M", "30"}, []string{"note password-expires"}},
		{"an expired account", []string{"chage", "-E", "2020-01-01"}, []string{"impossible account-expired"}},
		{"an obsolete hash", []string{"usermod", "-p", cryptOf(t, "x", "$1$")}, []string{"needs-consent hash-changes"}},
		{"yescrypt", []string{"usermod", "-p", cryptOf(t, "x", "$y$j9T$")}, nil},
		{"no password", []string{"usermod", "-p", ""}, []string{"impossible no-password"}},
	} {
		c := passwordAccount(t, s)
		if len(tc.run) > 0 {
			if out, err := exec.Command(tc.run[0], append(tc.run[1:], c.Account)...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		expectCodes(t, tc.what, codes(t, tt, c, target.Single), tc.want...)
		// The account serves other tests afterwards.
		if out, err := exec.Command("chage", "-d", time.Now().Format(time.DateOnly), "-M", "99999", "-E", "-1", c.Account).
			CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	c := passwordAccount(t, s)
	expectCodes(t, "overlap", codes(t, tt, c, target.Overlap), "impossible wrong-strategy")
	expectCodes(t, "a key type", codes(t, open(t, config(s, s.Addr(), `"key_type":"ed25519"`), admin(s)), c),
		"impossible key-type")
	missing := target.Credential{Account: "no-account-of-that-name", Secret: sensitive.New("a-password")}
	expectCodes(t, "no account", codes(t, tt, missing), "impossible password-not-changed")
	for _, strategy := range ssh.Kind().Strategies {
		if window := tt.(target.Windower).Window(strategy); !strings.HasSuffix(window, ".") {
			t.Errorf("the window of %s is %q", strategy, window)
		}
	}
}
