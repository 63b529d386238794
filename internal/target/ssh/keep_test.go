package ssh_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	driver "golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/ssh"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
)

// public is the line of a private key, without options and comment.
func public(t *testing.T, c target.Credential) string {
	t.Helper()
	signer, err := driver.ParsePrivateKey([]byte(c.Secret.Reveal()))
	targettest.Must(t, err)
	return strings.TrimSpace(string(driver.MarshalAuthorizedKey(signer.PublicKey())))
}

// output runs a command with a credential, as an application does.
func output(t *testing.T, s *servers.SSH, c target.Credential, command string) string {
	t.Helper()
	client, err := dial(targettest.Within(t), s, c)
	targettest.Must(t, err)
	defer client.Close()
	session, err := client.NewSession()
	targettest.Must(t, err)
	out, err := session.Output(command)
	targettest.Must(t, err)
	return string(out)
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	targettest.Must(t, err)
	return string(content)
}

// TestKeepsOptions verifies that a new key may do what the old one may and no more, and that no
// login of Keyturn runs the work of the application.
func TestKeepsOptions(t *testing.T) {
	t.Parallel()
	s := servers.StartSSH(t)
	old, a := keyAccount(t, s, "/bin/sh")
	options := `restrict,command="echo run >>~/runs; echo \"forced: $SSH_ORIGINAL_COMMAND\"",from="127.0.0.1,::1" `
	path := s.Authorize(t, a, options+public(t, old)+" old\n")
	tt := open(t, config(s, s.Addr()), admin(s))
	c := change(t, tt, old)
	for range 2 {
		targettest.Must(t, tt.Apply(targettest.Within(t), c))
	}
	targettest.Must(t, tt.Verify(targettest.Within(t), c.New))
	if want := options + public(t, old) + " old\n" + options + public(t, c.New) + " keyturn\n"; read(t, path) != want {
		t.Errorf("the file is\n%s\nwant\n%s", read(t, path), want)
	}
	if _, err := os.Stat(filepath.Join(a.Home, "runs")); err == nil {
		t.Error("a login of Keyturn has run the forced command")
	}
	targettest.Must(t, tt.Retire(targettest.Within(t), c))
	if got := output(t, s, c.New, "id"); got != "forced: id\n" {
		t.Errorf("the new key runs %q", got)
	}
	if read(t, path) != options+public(t, c.New)+" keyturn\n" {
		t.Errorf("the file is\n%s", read(t, path))
	}
	targettest.Must(t, os.Remove(filepath.Join(a.Home, "runs")))
}

// testSeveralLines verifies that each line of a key has its counterpart, in the same order, and
// that a line that only mentions the key is another's.
func testSeveralLines(t *testing.T, s *servers.SSH) {
	old, a := keyAccount(t, s, "/bin/sh")
	_, other := servers.NewSSHKey(t)
	key := public(t, old)
	foreign := `command="echo ` + key + `" ` + strings.TrimSpace(string(driver.MarshalAuthorizedKey(other))) +
		" " + key + "\n"
	first, second := `from="10.0.0.0/8" `, `no-pty,from="127.0.0.1" `
	path := s.Authorize(t, a, foreign+first+key+"\n"+second+key+" two words\n")
	content := first + key + "\n# between\n" + key
	targettest.Must(t, os.WriteFile(path+"2", []byte(content), 0o600))
	targettest.Must(t, exec.Command("chown", a.Name, path+"2").Run())
	tt := open(t, config(s, s.Addr()), admin(s))
	c := change(t, tt, old)
	for range 2 {
		targettest.Must(t, tt.Apply(targettest.Within(t), c))
	}
	line := public(t, c.New) + " keyturn\n"
	want := foreign + first + key + "\n" + first + line + second + key + " two words\n" + second + line
	if read(t, path) != want {
		t.Errorf("the first file is\n%s\nwant\n%s", read(t, path), want)
	}
	if want := first + key + "\n" + first + line + "# between\n" + key + "\n" + line; read(t, path+"2") != want {
		t.Errorf("the second file is\n%s\nwant\n%s", read(t, path+"2"), want)
	}
	targettest.Must(t, tt.Verify(targettest.Within(t), c.New))
	targettest.Must(t, tt.Retire(targettest.Within(t), c))
	if want := foreign + first + line + second + line; read(t, path) != want {
		t.Errorf("the first file is\n%s\nwant\n%s", read(t, path), want)
	}
	if want := first + line + "# between\n" + line; read(t, path+"2") != want {
		t.Errorf("the second file is\n%s\nwant\n%s", read(t, path+"2"), want)
	}
	login(s).Works(t, "old, after Retire", c.Old, false)
}

// TestSecondFile verifies that a key which is only in a further file of sshd is found there.
func TestSecondFile(t *testing.T) {
	t.Parallel()
	s := servers.StartSSH(t)
	old, a := keyAccount(t, s, "/bin/sh")
	path := s.Authorize(t, a, "# nothing here\n")
	targettest.Must(t, os.WriteFile(path+"2", []byte("no-pty "+public(t, old)+"\n"), 0o644))
	run(t, "chown", a.Name, path+"2")
	login(s).Works(t, "a key in the second file", old, true)
	tt := open(t, config(s, s.Addr()), admin(s))
	seen, err := tt.(target.Inspector).Inspect(targettest.Within(t), []target.Credential{old})
	if err != nil || seen[0] != target.Live {
		t.Errorf("Inspect = %v, %v", seen, err)
	}
	// A target that knows the first file alone says that it does not know, and changes nothing.
	narrow := open(t, config(s, s.Addr(), `"authorized_keys":"%h/.ssh/authorized_keys"`), admin(s))
	c := change(t, tt, old)
	seen, err = narrow.(target.Inspector).Inspect(targettest.Within(t), []target.Credential{old})
	if err != nil || seen[0] != target.NotKnown {
		t.Errorf("Inspect of one file = %v, %v", seen, err)
	}
	refused := narrow.Apply(targettest.Within(t), c)
	targettest.Expect(t, refused, target.Denied, "is in none of .ssh/authorized_keys,", "key_options")
	if read(t, path) != "# nothing here\n" {
		t.Errorf("the first file is %q", read(t, path))
	}
	// Where the operator says which options a line has, the old key outlives its retirement, and that
	// is said.
	one := `"authorized_keys":[".ssh/authorized_keys"],"key_options":"restrict,pty"`
	told := open(t, config(s, s.Addr(), one), admin(s))
	targettest.Must(t, told.Apply(targettest.Within(t), c))
	login(s).Works(t, "new", c.New, true)
	targettest.Expect(t, told.Retire(targettest.Within(t), c), target.Denied, "still logs in", "AuthorizedKeysCommand")
	if want := "# nothing here\nrestrict,pty " + c.New.Public + "\n"; read(t, path) != want {
		t.Errorf("the first file is %q, want %q", read(t, path), want)
	}
	targettest.Must(t, tt.Retire(targettest.Within(t), c))
	login(s).Works(t, "old, after Retire", old, false)
	login(s).Works(t, "new, after Retire", c.New, true)
}

// testFrom verifies that a key whose line shuts this machine out is not called wrong.
func testFrom(t *testing.T, s *servers.SSH) {
	old, a := keyAccount(t, s, "/bin/sh")
	s.Authorize(t, a, `from="192.0.2.7" `+public(t, old)+"\n")
	tt := open(t, config(s, s.Addr()), admin(s))
	targettest.Expect(t, tt.Verify(targettest.Within(t), old), target.Denied, "says nothing about the key", "from")
	s.Authorize(t, a, `from="192.0.2.7" `+public(t, old)+"\n"+public(t, old)+"\n")
	targettest.Must(t, tt.Verify(targettest.Within(t), old))
	other, _ := keyAccount(t, s, "/bin/sh")
	other.Account = old.Account
	targettest.Expect(t, tt.Verify(targettest.Within(t), other), target.Rejected, "unable to authenticate")
}

// testAuthority verifies that a line which trusts the key as an authority stays what it is.
func testAuthority(t *testing.T, s *servers.SSH) {
	old, a := keyAccount(t, s, "/bin/sh")
	authority := `command="true",CERT-Authority,principals="x" ` + public(t, old) + "\n"
	path := s.Authorize(t, a, authority+public(t, old)+"\n")
	tt := open(t, config(s, s.Addr()), admin(s))
	c := change(t, tt, old)
	targettest.Must(t, tt.Apply(targettest.Within(t), c))
	targettest.Must(t, tt.Retire(targettest.Within(t), c))
	if want := authority + c.New.Public + "\n"; read(t, path) != want {
		t.Errorf("the file is\n%s\nwant\n%s", read(t, path), want)
	}
}

// testLoginShells verifies that the administrator may have any login shell that can run sh.
func testLoginShells(t *testing.T, s *servers.SSH) {
	if _, err := exec.LookPath("sudo"); err != nil {
		t.Skip("sudo is not installed (Debian package sudo)")
	}
	sh, err := exec.LookPath("sh")
	targettest.Must(t, err)
	for _, name := range []string{"bash", "dash", "rbash", "tcsh", "fish"} {
		shell, err := exec.LookPath(name)
		if err != nil {
			t.Logf("%s is not on this machine", name)
			continue
		}
		keeper, _ := keyAccount(t, s, shell)
		rule := filepath.Join("/etc/sudoers.d", keeper.Account)
		targettest.Must(t, os.WriteFile(rule, fmt.Appendf(nil, "%s ALL=(ALL) NOPASSWD: %s -s\n", keeper.Account, sh), 0o440))
		defer os.Remove(rule)
		tt := open(t, config(s, s.Addr()), keeper)
		key, _ := keyAccount(t, s, shell)
		c := change(t, tt, key)
		targettest.Must(t, tt.Apply(targettest.Within(t), c))
		targettest.Must(t, tt.Retire(targettest.Within(t), c))
		login(s).Works(t, name+": new", c.New, true)
		login(s).Works(t, name+": old", c.Old, false)
		password := change(t, tt, passwordAccount(t, s))
		targettest.Must(t, tt.Apply(targettest.Within(t), password))
		login(s).Works(t, name+": new password", password.New, true)
	}
}

// cryptOf returns a hash by crypt(3) of this machine, with a salt that every form takes.
func cryptOf(t *testing.T, password, form string) string {
	t.Helper()
	cmd := exec.Command("perl", "-e", `chomp(my ($p, $s) = <STDIN>); print crypt($p, $s)`)
	cmd.Stdin = strings.NewReader(password + "\n" + form + strings.Repeat("a", 21) + "." + "\n")
	out, err := cmd.Output()
	if err != nil || len(out) < 20 {
		t.Skipf("crypt(3) of this machine makes no %s: %v", form, err)
	}
	return string(out)
}

// storedHash reads the hash of an account.
func storedHash(t *testing.T, account string) string {
	t.Helper()
	out, err := exec.Command("getent", "shadow", account).Output()
	targettest.Must(t, err)
	return strings.Split(string(out), ":")[1]
}

// TestKeepsHashes verifies that a password is stored in the form of the one before, and that the
// stored hash shows which password is right.
func TestKeepsHashes(t *testing.T) {
	t.Parallel()
	s := servers.StartSSH(t)
	tt := open(t, config(s, s.Addr()), admin(s))
	consenting, err := ssh.Kind().Open(target.Settings{
		Config: []byte(config(s, s.Addr())), Admin: admin(s), Consent: []string{"hash-changes"},
	})
	targettest.Must(t, err)
	for form, want := range map[string]string{
		"$y$j8T$": "$y$j8T$", "$y$j9T$": "$y$j9T$", "$gy$j9T$": "$gy$j9T$", "$7$BU..../....": "$7$BU..../....",
		"$6$": "$6$", "$6$rounds=6000$": "$6$rounds=6000$", "$5$": "$5$", "$5$rounds=2000$": "$5$rounds=2000$",
		"$2b$05$": "$2b$05$", "$2y$04$": "$2y$04$", "$1$": "$6$",
	} {
		tt := tt
		old := target.Credential{Secret: sensitive.New("first-password-of-" + strings.Trim(form, "$"))}
		old.Account = s.NewAccount(t, "/bin/sh", cryptOf(t, old.Secret.Reveal(), form)).Name
		c := change(t, tt, old)
		if form == "$1$" {
			targettest.Expect(t, tt.Apply(targettest.Within(t), c), target.Denied, "obsolete form $1$", "hash-changes")
			tt = consenting
		}
		targettest.Must(t, tt.Apply(targettest.Within(t), c))
		hash := storedHash(t, old.Account)
		if !strings.HasPrefix(hash, want) || form == "$6$" && strings.Contains(hash, "rounds") {
			t.Errorf("%s: the new hash has another form", form)
		}
		login(s).Works(t, form+": new", c.New, true)
		login(s).Works(t, form+": old", c.Old, false)
		seen, err := tt.(target.Inspector).Inspect(targettest.Within(t), []target.Credential{c.New, c.Old})
		if err != nil || seen[0] != target.Live || seen[1] != target.Dead {
			t.Errorf("%s: Inspect = %v, %v", form, seen, err)
		}
		targettest.Must(t, tt.Apply(targettest.Within(t), c))
		if storedHash(t, old.Account) != hash {
			t.Errorf("%s: a repeated attempt has stored another hash", form)
		}
	}
}
