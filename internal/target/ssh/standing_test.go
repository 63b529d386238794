package ssh_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/ssh"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/test/servers"
)

// group adds an account to a group of the host until the test ends. It skips the test on a host
// without the group.
func group(t *testing.T, account, name string) {
	t.Helper()
	if out, err := exec.Command("getent", "group", name).CombinedOutput(); err != nil {
		t.Skipf("the host has no group %s: %s", name, out)
	}
	run(t, "gpasswd", "-a", account, name)
	t.Cleanup(func() { run(t, "gpasswd", "-d", account, name) })
}

func run(t *testing.T, name string, arguments ...string) {
	t.Helper()
	if out, err := exec.Command(name, arguments...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(arguments, " "), err, out)
	}
}

// standing tells the suite about the accounts of a host whose administrator is the account of this
// process.
func standing(s *servers.SSH) *targettest.Standing {
	return &targettest.Standing{
		Others: []string{"Root", "ROOT", "root2"},
		Privileged: func(t *testing.T) string {
			c, _ := keyAccount(t, s, "/bin/sh")
			group(t, c.Account, "sudo")
			return c.Account
		},
		Trace: func(t *testing.T, account string) string {
			shadow, err := exec.Command("getent", "shadow", account).Output()
			targettest.Must(t, err)
			home, err := exec.Command("sh", "-c", "echo ~"+account).Output()
			targettest.Must(t, err)
			keys, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(home)), ".ssh", "authorized_keys"))
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			logins := strings.Count(s.Log.String(), " for "+account+" ") // Accepted, Failed
			return fmt.Sprintf("%s%s%d", shadow, keys, logins)
		},
	}
}

// judge asks a target, and asserts that it answers.
func judge(t *testing.T, tt target.Target, account string) target.Standing {
	t.Helper()
	got, err := tt.(target.Guarded).Standing(targettest.Within(t), account)
	if err != nil {
		t.Fatalf("%q: %v", account, err)
	}
	return got
}

// testStandingOfAlias makes a second name for root.
func testStandingOfAlias(t *testing.T, s *servers.SSH) {
	if os.Geteuid() != 0 {
		t.Skip("not root, so there can be no further accounts")
	}
	alias := fmt.Sprintf("ktestalias%d", os.Getpid())
	run(t, "useradd", "-o", "-u", "0", "-M", "-N", "-g", "nogroup", "-d", t.TempDir(), alias)
	t.Cleanup(func() {
		// userdel refuses a user ID that has processes, and every process of root's has this one.
		run(t, "userdel", "-f", alias)
	})
	got := judge(t, open(t, config(s, s.Addr()), admin(s)), alias)
	if !got.Administrator || got.Privileged != "has the user ID 0" {
		t.Errorf("Standing = %+v", got)
	}
	keeper, _ := keyAccount(t, s, "/bin/sh")
	got = judge(t, open(t, config(s, s.Addr()), keeper), alias)
	if got.Administrator || got.Privileged != "has the user ID 0" {
		t.Errorf("Standing for another administrator = %+v", got)
	}
}

// testStandingWithoutRoot is about an administrator who is not root, and has no right on any
// account.
func testStandingWithoutRoot(t *testing.T, s *servers.SSH) {
	keeper, _ := keyAccount(t, s, "/bin/sh")
	ordinary, _ := keyAccount(t, s, "/usr/sbin/nologin")
	shadow, _ := keyAccount(t, s, "/bin/sh")
	group(t, shadow.Account, "shadow")
	tt := open(t, config(s, s.Addr()), keeper)
	for account, want := range map[string]target.Standing{
		keeper.Account:       {Administrator: true},
		ordinary.Account:     {},
		shadow.Account:       {Privileged: `is in the group "shadow", whose members can become root`},
		"root":               {Privileged: "has the user ID 0"},
		"nobody-of-any-name": {},
	} {
		if got := judge(t, tt, account); got != want {
			t.Errorf("%q: %+v, want %+v", account, got, want)
		}
	}
	for _, account := range []string{"", "a b", "$(id)", "../root", "-u", "root\x00"} {
		_, err := tt.(target.Guarded).Standing(targettest.Within(t), account)
		targettest.Expect(t, err, target.Denied, "not a name")
	}
}

// testStandingOfSelf is about accounts that change their own keys: nobody can look.
func testStandingOfSelf(t *testing.T, s *servers.SSH) {
	before := s.Log.String()
	ordinary, _ := keyAccount(t, s, "/bin/sh")
	tt := open(t, config(s, s.Addr(), `"self":true`), target.Credential{})
	for account, privileged := range map[string]bool{"root": true, "toor": true, "Root": true, ordinary.Account: false} {
		if got := judge(t, tt, account); got.Administrator || (got.Privileged != "") != privileged {
			t.Errorf("%q: %+v, want privileged: %v", account, got, privileged)
		}
	}
	if log := strings.TrimPrefix(s.Log.String(), before); strings.Contains(log, ordinary.Account) {
		t.Errorf("somebody logged in as %s", ordinary.Account)
	}
}

// testStandingWithoutShell is about an administrator who may run nothing: that gives no verdict.
func testStandingWithoutShell(t *testing.T, s *servers.SSH) {
	keeper, _ := keyAccount(t, s, "/usr/sbin/nologin")
	_, err := open(t, config(s, s.Addr()), keeper).(target.Guarded).Standing(targettest.Within(t), "root")
	targettest.Expect(t, err, target.Denied, "has not run the commands")
}

// TestJudge verifies what is made of a host's answer, one that is not whole included.
func TestJudge(t *testing.T) {
	t.Parallel()
	in := func(group string) string {
		return fmt.Sprintf("is in the group %q, whose members can become root", group)
	}
	for text, want := range map[string]target.Standing{
		"me 1000\nuid 1001\ngids 1001 100\nnames app users\n":    {},
		"me 1000\nuid 1000\ngids 1000\nnames app\n":              {Administrator: true},
		"me 1000\nuid 1001\ngids 1001\nnames \n":                 {},
		"me 1000\nuid 1001\ngids 1001 0\nnames app wheel\n":      {Privileged: "is in the group of root"},
		"me 1000\nuid 1001\ngids 1001 9\nnames app Wheel\n":      {Privileged: in("Wheel")},
		"me 1000\nuid 1001\ngids 1001 9\nnames app docker\n":     {Privileged: in("docker")},
		"me 0\nuid 0\ngids 0\nnames root\n":                      {Administrator: true, Privileged: "has the user ID 0"},
		"me 1000\nuid \ngids \nnames \n":                         {},
		"me 1000\nuid 18446744073709551615\ngids 1\nnames app\n": {},
	} {
		if got, err := ssh.Judge(text, "app", "keeper"); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "me 1000\n", "me 1000\nuid 0\n", "me 1000\nuid 1\ngids 1\n", "me 1000\nuid 1\ngids \nnames \n",
		"me \nuid 1\ngids 1\nnames a\n", "me x\nuid 1\ngids 1\nnames a\n", "me 1\nuid -1\ngids 1\nnames a\n",
		"uid 1\nme 1\ngids 1\nnames a\n", "me 1\nuid 1\ngids 1\nnames a\nuid 0\n", "motd\nme 1\nuid 1\ngids 1\nnames a\n",
	} {
		if got, err := ssh.Judge(text, "app", "keeper"); err == nil {
			t.Errorf("%q: %+v, want an error", text, got)
		}
	}
	if got, err := ssh.Judge("me 1000\nuid \ngids \nnames \n", "keeper", "keeper"); err != nil || !got.Administrator {
		t.Errorf("the administrator by name: %+v, %v", got, err)
	}
}

// TestSharedKeysArePrivileged verifies that no account is ordinary where all accounts have one file
// of keys, and that the look at it needs no login.
func TestSharedKeysArePrivileged(t *testing.T) {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN4CU7zTXxhu1L+xGCdFjvhKmhCXk9ug3CgMWpS4EANU"
	for path, shared := range map[string]bool{"/etc/ssh/keys": true, "/etc/ssh/keys/%u": false, ".ssh/authorized_keys": false} {
		config := fmt.Sprintf(
			`{"address":"host.example.test","self":true,"host_keys":[%q],"authorized_keys":%q}`,
			key,
			path,
		)
		host, err := ssh.Kind().Open(target.Settings{Name: "host", Config: []byte(config)})
		if err != nil {
			t.Fatal(err)
		}
		got, err := host.(target.Guarded).Standing(t.Context(), "app")
		if err != nil || (got.Privileged != "") != shared {
			t.Errorf("%s: %+v, %v", path, got, err)
		}
	}
}
