package ssh_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	driver "golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/shacrypt"
	"github.com/keyturn/keyturn/internal/target/ssh"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
)

var counter atomic.Int64

func admin(s *servers.SSH) target.Credential {
	return target.Credential{Account: s.User, Secret: sensitive.New(s.AdminKey)}
}

// config is a configuration with further members.
func config(s *servers.SSH, addr string, more ...string) string {
	key := strings.TrimSpace(string(driver.MarshalAuthorizedKey(s.HostKey)))
	return fmt.Sprintf(`{"address":%q,"host_keys":[%q]%s}`, addr, key, strings.Join(append([]string{""}, more...), ","))
}

func open(t *testing.T, config string, admin target.Credential) target.Target {
	t.Helper()
	return targettest.Open(t, ssh.Kind(), config, admin)
}

// keyAccount makes an account with one key.
func keyAccount(t *testing.T, s *servers.SSH, shell string) (target.Credential, servers.Account) {
	t.Helper()
	a := s.NewAccount(t, shell, "*")
	private, public := servers.NewSSHKey(t)
	s.Authorize(t, a, string(driver.MarshalAuthorizedKey(public)))
	return target.Credential{Account: a.Name, Secret: sensitive.New(private)}, a
}

// passwordAccount makes an account with a password.
func passwordAccount(t *testing.T, s *servers.SSH) target.Credential {
	t.Helper()
	password := sensitive.New(fmt.Sprintf("first-password-%d", counter.Add(1)))
	a := s.NewAccount(t, "/bin/sh", shacrypt.Hash(password, "saltsalt"))
	return target.Credential{Account: a.Name, Secret: password}
}

// dial logs in without the code under test.
func dial(ctx context.Context, s *servers.SSH, c target.Credential) (*driver.Client, error) {
	auth := driver.Password(c.Secret.Reveal())
	if key, err := driver.ParsePrivateKey([]byte(c.Secret.Reveal())); err == nil {
		auth = driver.PublicKeys(key)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.Addr())
	if err != nil {
		return nil, err
	}
	sc, channels, requests, err := driver.NewClientConn(conn, s.Addr(), &driver.ClientConfig{
		User: c.Account, Auth: []driver.AuthMethod{auth}, HostKeyCallback: driver.FixedHostKey(s.HostKey),
	})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return driver.NewClient(sc, channels, requests), nil
}

func login(s *servers.SSH) targettest.Login {
	return func(ctx context.Context, c target.Credential) (bool, error) {
		client, err := dial(ctx, s, c)
		if err != nil && strings.Contains(err.Error(), "unable to authenticate") {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		return true, client.Close()
	}
}

// change makes the change of an account as the engine does.
func change(t *testing.T, tt target.Target, old target.Credential) target.Change {
	t.Helper()
	candidate, err := targettest.Generate(t.Context(), tt, old.Account, old)
	targettest.Must(t, err)
	c := target.Change{ID: fmt.Sprintf("c%d", counter.Add(1)), Strategy: target.Overlap, Old: old, New: candidate}
	if !strings.Contains(candidate.Secret.Reveal(), "BEGIN") {
		c.Strategy = target.Single
	}
	return c
}

func TestSSH(t *testing.T) {
	t.Parallel()
	s := servers.StartSSH(t)
	harness := targettest.Harness{
		Kind: ssh.Kind(), Addr: s.Addr(), Config: func(addr string) string { return config(s, addr) }, Admin: admin(s),
		Login: login(s),
		Session: func(t *testing.T, c target.Credential) func() error {
			client, err := dial(t.Context(), s, c)
			targettest.Must(t, err)
			return func() error {
				defer client.Close()
				session, err := client.NewSession()
				if err != nil {
					return err
				}
				return session.Run("true")
			}
		},
		Standing: standing(s),
	}
	harness.Kind.NeedsAdmin = true // as it does here
	t.Run("keys", func(t *testing.T) {
		t.Parallel()
		h := harness
		h.Kind.Strategies = []target.Strategy{target.Overlap}
		h.Account = func(t *testing.T) target.Credential { c, _ := keyAccount(t, s, "/bin/sh"); return c }
		targettest.Run(t, h)
	})
	t.Run("passwords", func(t *testing.T) {
		t.Parallel()
		h := harness
		h.Kind.Strategies = []target.Strategy{target.Single}
		h.Account = func(t *testing.T) target.Credential { return passwordAccount(t, s) }
		h.Refused = func(account string) target.Credential {
			return target.Credential{Account: account, Secret: sensitive.New("with-a\nline-end")}
		}
		targettest.Run(t, h)
	})
	for name, f := range map[string]func(*testing.T, *servers.SSH){
		"the file stays": testFileStays, "concurrent edits": testConcurrentEdits, "key types": testKeyTypes, "host keys": testHostKeys,
		"shells": testShells, "unfit accounts": testUnfitAccounts, "sudo": testSudo, "absolute path": testAbsolutePath, "self": testSelf,
		"odd characters": testOddCharacters, "wrong strategies": testWrongStrategies, "no secrets on the host": testNoSecrets,
		"broken login": testBrokenLogin, "inspect": testInspect, "IPv6": testIPv6,
		"standing of root's other name": testStandingOfAlias, "standing without root": testStandingWithoutRoot,
		"foreign words":        testForeignWords,
		"several lines":        testSeveralLines,
		"unusual files":        testUnusualFiles,
		"check of the account": testCheckOwner,
		"login from elsewhere": testFrom,
		"login shells":         testLoginShells,
		"check of keys":        testCheckKeys,
		"check of passwords":   testCheckPasswords, "key as authority": testAuthority,
		"standing of oneself": testStandingOfSelf, "standing without a shell": testStandingWithoutShell,
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); f(t, s) })
	}
}

// testFileStays holds that everything but the one line is left as it is.
func testFileStays(t *testing.T, s *servers.SSH) {
	old, a := keyAccount(t, s, "/bin/sh")
	_, other := servers.NewSSHKey(t)
	signer, err := driver.ParsePrivateKey([]byte(old.Secret.Reveal()))
	targettest.Must(t, err)
	oldLine := strings.TrimSpace(string(driver.MarshalAuthorizedKey(signer.PublicKey())))
	otherLine := strings.TrimSpace(string(driver.MarshalAuthorizedKey(other)))
	before := "# of the team: \\t $HOME `id`\n\n" + otherLine + " other  with  spaces\r\n"
	options := `  no-pty,environment="X=a b",command="x \"y  z"	`
	after := `restrict,command="echo 'a b' \"c\"" ` + otherLine + " again\n# " + oldLine + "\n" + otherLine + " without a line end"
	path := s.Authorize(t, a, before+options+oldLine+" old\n"+after)
	targettest.Must(t, os.Chmod(path, 0o640))
	tt := open(t, config(s, s.Addr()), admin(s))
	c := change(t, tt, old)
	targettest.Must(t, tt.Apply(targettest.Within(t), c))
	login(s).Works(t, "new", c.New, true)
	login(s).Works(t, "old", c.Old, true)
	targettest.Must(t, tt.Retire(targettest.Within(t), c))
	login(s).Works(t, "new, after Retire", c.New, true)
	login(s).Works(t, "old, after Retire", c.Old, false)
	content, err := os.ReadFile(path)
	targettest.Must(t, err)
	if want := before + options + c.New.Public + "\n" + after + "\n"; string(content) != want {
		t.Errorf("the file is\n%q, want\n%q", content, want)
	}
	info, err := os.Stat(path)
	targettest.Must(t, err)
	home, err := os.Stat(a.Home)
	targettest.Must(t, err)
	if owner := info.Sys().(*syscall.Stat_t).Uid; info.Mode().Perm() != 0o640 ||
		owner != home.Sys().(*syscall.Stat_t).Uid {
		t.Errorf("the file has mode %v and owner %d", info.Mode(), owner)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files are left beside it, %v", len(entries)-1, err)
	}
	// A file that there is not yet is made, for the account alone; a link stays one.
	targettest.Must(t, os.RemoveAll(filepath.Dir(path)))
	err = tt.Apply(targettest.Within(t), c)
	targettest.Expect(t, err, target.Denied, "is in none of .ssh/authorized_keys, .ssh/authorized_keys2", "key_options")
	tt = open(t, config(s, s.Addr(), `"key_options":""`), admin(s))
	targettest.Must(t, tt.Apply(targettest.Within(t), c))
	info, err = os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 ||
		info.Sys().(*syscall.Stat_t).Uid != home.Sys().(*syscall.Stat_t).Uid {
		t.Errorf("a new file: %v, %v", info, err)
	}
	targettest.Must(t, os.Rename(path, path+".real"))
	targettest.Must(t, os.Symlink(path+".real", path))
	targettest.Must(
		t,
		tt.Retire(targettest.Within(t), target.Change{ID: c.ID, Strategy: c.Strategy, Old: c.New, New: c.Old}),
	)
	if content, err := os.ReadFile(path + ".real"); err != nil || len(content) != 0 {
		t.Errorf("what the link leads to has %d bytes, %v", len(content), err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", info, err)
	}
}

// testConcurrentEdits lets several changes and somebody else edit one file at once: no line is
// lost.
func testConcurrentEdits(t *testing.T, s *servers.SSH) {
	old, a := keyAccount(t, s, "/bin/sh")
	path := filepath.Join(a.Home, ".ssh", "authorized_keys")
	tt := open(t, config(s, s.Addr()), admin(s))
	changes := make([]target.Change, 4)
	var all sync.WaitGroup
	for i := range changes {
		changes[i] = change(t, tt, old)
		all.Go(func() {
			if err := tt.Apply(targettest.Within(t), changes[i]); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, c := range changes {
		login(s).Works(t, "after edits at once", c.New, true)
	}
	for i := range changes {
		all.Go(func() {
			c := target.Change{ID: changes[i].ID, Strategy: target.Overlap, Old: changes[i].New, New: old}
			if err := tt.Retire(targettest.Within(t), c); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	content, err := os.ReadFile(path)
	if n := bytes.Count(content, []byte("\n")); err != nil || n != 1 {
		t.Errorf("%d lines are left, %v; want the first one", n, err)
	}
	login(s).Works(t, "the one that was never changed", old, true)
}

func testKeyTypes(t *testing.T, s *servers.SSH) {
	old, _ := keyAccount(t, s, "/bin/sh")
	for keyType, form := range map[string]struct{ header, public string }{
		"ed25519":  {"-----BEGIN OPENSSH PRIVATE KEY-----", "ssh-ed25519 "},
		"rsa-2048": {"-----BEGIN RSA PRIVATE KEY-----", "ssh-rsa "},
		"rsa-3072": {"-----BEGIN RSA PRIVATE KEY-----", "ssh-rsa "},
	} {
		tt := open(t, config(s, s.Addr(), fmt.Sprintf(`"key_type":%q`, keyType)), admin(s))
		c := change(t, tt, old)
		if !strings.HasPrefix(c.New.Secret.Reveal(), form.header) || !strings.HasPrefix(c.New.Public, form.public) ||
			!strings.HasSuffix(c.New.Public, " keyturn") {
			t.Errorf(
				"%s: a key begins with %.40q, its public half is %.20q…",
				keyType,
				c.New.Secret.Reveal()[:27],
				c.New.Public,
			)
		}
		targettest.Must(t, tt.Apply(targettest.Within(t), c))
		targettest.Must(t, tt.Verify(targettest.Within(t), c.New))
		like, err := targettest.Generate(t.Context(), open(t, config(s, s.Addr()), admin(s)), old.Account, c.New)
		targettest.Must(t, err)
		if !strings.HasPrefix(like.Secret.Reveal(), form.header) || len(like.Public) != len(c.New.Public) {
			t.Errorf("%s: a key after one of that type is another one", keyType)
		}
	}
	if _, err := open(t, config(s, s.Addr()), admin(s)).(target.Generator).Generate(t.Context(), "a", target.Credential{}, rand.Reader); err != nil {
		t.Error(err)
	}
}

func testHostKeys(t *testing.T, s *servers.SSH) {
	old, _ := keyAccount(t, s, "/bin/sh")
	_, other := servers.NewSSHKey(t)
	pinned := func(lines ...string) string {
		b, err := json.Marshal(map[string]any{"address": s.Addr(), "host_keys": lines})
		targettest.Must(t, err)
		return string(b)
	}
	right, wrong := string(driver.MarshalAuthorizedKey(s.HostKey)), string(driver.MarshalAuthorizedKey(other))
	tt := open(t, pinned(wrong), admin(s))
	c := change(t, tt, old)
	targettest.Expect(
		t,
		tt.Apply(targettest.Within(t), c),
		target.Denied,
		"none of host_keys",
		driver.FingerprintSHA256(s.HostKey),
	)
	targettest.Expect(t, tt.Verify(targettest.Within(t), old), target.Denied, "none of host_keys")
	rsa := "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC/fmX5hXx3kJ0mJ8LJr0Fv5ZQ0rsBeHB2fWj1Hh1cK6w== old"
	if err := ssh.Kind().Check([]byte(pinned(rsa))); err == nil ||
		!strings.Contains(err.Error(), "host_keys: number 1") {
		t.Errorf("a damaged host key: %v", err)
	}
	tt = open(t, pinned(wrong, right), admin(s))
	targettest.Must(t, tt.Apply(targettest.Within(t), c))
	targettest.Must(t, tt.Verify(targettest.Within(t), c.New))
}

// testShells is about accounts that can log in and run nothing.
func testShells(t *testing.T, s *servers.SSH) {
	old, _ := keyAccount(t, s, "/usr/sbin/nologin")
	tt := open(t, config(s, s.Addr()), admin(s))
	c := change(t, tt, old)
	targettest.Must(t, tt.Apply(targettest.Within(t), c)) // the administrator does it as the account, without its shell
	targettest.Expect(
		t,
		tt.Verify(targettest.Within(t), c.New),
		target.Denied,
		"the login works",
		"not available",
		`check to ""`,
	)
	targettest.Must(t, open(t, config(s, s.Addr(), `"check":""`), admin(s)).Verify(targettest.Within(t), c.New))
	targettest.Expect(
		t,
		open(
			t,
			config(s, s.Addr(), `"self":true`),
			target.Credential{},
		).Apply(
			targettest.Within(t),
			change(t, tt, c.New),
		),
		target.Denied,
		"has not run the commands",
		"not available",
	)
	forced, a := keyAccount(t, s, "/bin/sh")
	content, err := os.ReadFile(filepath.Join(a.Home, ".ssh", "authorized_keys"))
	targettest.Must(t, err)
	s.Authorize(t, a, `command="internal-sftp" `+string(content))
	targettest.Expect(
		t,
		open(
			t,
			config(s, s.Addr(), `"self":true`),
			target.Credential{},
		).Apply(
			targettest.Within(t),
			change(t, tt, forced),
		),
		target.Denied,
		"has not run the commands",
	)
	checked, _ := keyAccount(t, s, "/bin/sh")
	targettest.Must(
		t,
		open(t, config(s, s.Addr(), `"check":"test \"$HOME\" != /"`), admin(s)).Verify(targettest.Within(t), checked),
	)
	targettest.Expect(
		t,
		open(
			t,
			config(s, s.Addr(), `"check":"echo no such service >&2; exit 3"`),
			admin(s),
		).Verify(
			targettest.Within(t),
			checked,
		),
		target.Denied,
		"status 3",
		"no such service",
	)
}

func testUnfitAccounts(t *testing.T, s *servers.SSH) {
	tt := open(t, config(s, s.Addr()), admin(s))
	locked := passwordAccount(t, s)
	private, _ := servers.NewSSHKey(t)
	for account, text := range map[string]string{"nobody-of-that-name": "does not exist", "a b": "not a name", "$(id)": "not a name", "": "not a name", "../x": "not a name"} {
		targettest.Expect(
			t,
			tt.Apply(
				targettest.Within(t),
				change(t, tt, target.Credential{Account: account, Secret: sensitive.New(private)}),
			),
			target.Denied,
			text,
		)
		targettest.Expect(
			t,
			tt.Apply(
				targettest.Within(t),
				change(t, tt, target.Credential{Account: account, Secret: sensitive.New("a-password")}),
			),
			target.Denied,
			text,
		)
	}
	if out, err := exec.Command("usermod", "-L", locked.Account).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	targettest.Expect(t, tt.Apply(targettest.Within(t), change(t, tt, locked)), target.Denied, "is locked")
	login(s).Works(t, "a locked account", locked, false)
	damaged, a := keyAccount(t, s, "/bin/sh")
	path := filepath.Join(a.Home, ".ssh", "authorized_keys")
	targettest.Must(t, os.Remove(path))
	targettest.Must(t, os.Mkdir(path, 0o700))
	targettest.Expect(t, tt.Apply(targettest.Within(t), change(t, tt, damaged)), target.Denied, "is in none of")
	targettest.Must(t, os.Remove(path))
	targettest.Must(t, os.Chown(filepath.Dir(path), 0, 0))
	targettest.Expect(t, tt.Apply(targettest.Within(t), change(t, tt, damaged)), target.Denied, "authorized_keys")
	protected := damaged
	protected.Secret = sensitive.New("-----BEGIN OPENSSH PRIVATE KEY-----\nno key\n-----END OPENSSH PRIVATE KEY-----\n")
	targettest.Expect(t, tt.Verify(targettest.Within(t), protected), target.Denied, "not one that SSH uses")
}

// testSudo is about an administrator who is not root.
func testSudo(t *testing.T, s *servers.SSH) {
	keeper, _ := keyAccount(t, s, "/bin/sh")
	old, _ := keyAccount(t, s, "/bin/sh")
	tt := open(t, config(s, s.Addr()), keeper)
	c := change(t, tt, old)
	targettest.Expect(t, tt.Apply(targettest.Within(t), c), target.Denied, "sudo")
	login(s).Works(t, "after a refusal", c.New, false)
	if _, err := exec.LookPath("sudo"); err != nil {
		t.Skip("sudo is not installed (Debian package sudo)")
	}
	sh, err := exec.LookPath("sh")
	targettest.Must(t, err)
	rule := filepath.Join("/etc/sudoers.d", keeper.Account)
	targettest.Must(
		t,
		os.WriteFile(rule, fmt.Appendf(nil, "%s ALL=(%s) NOPASSWD: %s -s\n", keeper.Account, old.Account, sh), 0o440),
	)
	t.Cleanup(func() { targettest.Must(t, os.Remove(rule)) })
	targettest.Must(t, tt.Apply(targettest.Within(t), c))
	targettest.Must(t, tt.Retire(targettest.Within(t), c))
	login(s).Works(t, "new, by sudo", c.New, true)
	login(s).Works(t, "old, by sudo", c.Old, false)
	// That rule is for one account alone.
	password := passwordAccount(t, s)
	targettest.Expect(t, tt.Apply(targettest.Within(t), change(t, tt, password)), target.Denied, "sudo")
	login(s).Works(t, "after a refusal", password, true)
	seen, err := tt.(target.Inspector).Inspect(targettest.Within(t), []target.Credential{c.New, c.Old, password})
	if err != nil || fmt.Sprint(seen) != fmt.Sprint([]target.Liveness{target.Live, target.NotKnown, target.NotKnown}) {
		t.Errorf("Inspect = %v, %v", seen, err)
	}
}

func testAbsolutePath(t *testing.T, s *servers.SSH) {
	a := s.NewAccount(t, "/bin/sh", "*")
	private, public := servers.NewSSHKey(t)
	path := filepath.Join(s.Keys(), a.Name)
	targettest.Must(t, os.WriteFile(path, driver.MarshalAuthorizedKey(public), 0o644))
	old := target.Credential{Account: a.Name, Secret: sensitive.New(private)}
	tt := open(t, config(s, s.Addr(), fmt.Sprintf(`"authorized_keys":%q`, s.Keys()+"/%u")), admin(s))
	c := change(t, tt, old)
	targettest.Must(t, tt.Apply(targettest.Within(t), c))
	targettest.Must(t, tt.Retire(targettest.Within(t), c))
	login(s).Works(t, "new", c.New, true)
	login(s).Works(t, "old", c.Old, false)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 || info.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("the file is %v, %v", info, err)
	}
}

// testSelf is about an account that changes its own keys: that of this process, which need not be
// root.
func testSelf(t *testing.T, s *servers.SSH) {
	private, public := servers.NewSSHKey(t)
	path := filepath.Join(t.TempDir(), "authorized_keys")
	targettest.Must(t, os.WriteFile(path, driver.MarshalAuthorizedKey(public), 0o600))
	own := servers.StartSSH(t, "AuthorizedKeysFile "+path)
	old := target.Credential{Account: own.User, Secret: sensitive.New(private)}
	tt := open(
		t,
		config(own, own.Addr(), `"self":true`, fmt.Sprintf(`"authorized_keys":%q`, path)),
		target.Credential{},
	)
	c := change(t, tt, old)
	for range 2 {
		targettest.Must(t, tt.Apply(targettest.Within(t), c))
	}
	targettest.Must(t, tt.Verify(targettest.Within(t), c.New))
	for range 2 {
		targettest.Must(t, tt.Retire(targettest.Within(t), c))
	}
	login(own).Works(t, "new", c.New, true)
	login(own).Works(t, "old", c.Old, false)
	targettest.Expect(
		t,
		tt.Apply(targettest.Within(t), target.Change{ID: "x", Strategy: target.Overlap, Old: c.Old, New: c.Old}),
		target.Denied,
		"unable to authenticate",
	)
	seen, err := tt.(target.Inspector).Inspect(targettest.Within(t), []target.Credential{c.New, c.Old})
	if err != nil || seen[0] != target.NotKnown || seen[1] != target.NotKnown {
		t.Errorf("Inspect = %v, %v", seen, err)
	}
	password := target.Change{
		ID:       "x",
		Strategy: target.Single,
		New:      target.Credential{Account: old.Account, Secret: sensitive.New("a-new-password")},
	}
	targettest.Expect(t, tt.Apply(targettest.Within(t), password), target.Denied, "administrator")
}

func testOddCharacters(t *testing.T, s *servers.SSH) {
	tt := open(t, config(s, s.Addr()), admin(s))
	old := passwordAccount(t, s)
	for _, password := range []string{"space and\ttab", `quote " ' \ back`, "$HOME `id` $(id)", "EOF", "a:b:c", "pässwörd ☃", strings.Repeat("x", 128)} {
		c := target.Change{
			ID:       fmt.Sprintf("c%d", counter.Add(1)),
			Strategy: target.Single,
			Old:      old,
			New:      target.Credential{Account: old.Account, Secret: sensitive.New(password)},
		}
		targettest.Must(t, tt.Apply(targettest.Within(t), c))
		login(s).Works(t, "new", c.New, true)
		login(s).Works(t, "old", c.Old, false)
		old = c.New
	}
}

func testWrongStrategies(t *testing.T, s *servers.SSH) {
	tt := open(t, config(s, s.Addr()), admin(s))
	private, _ := servers.NewSSHKey(t)
	key := target.Credential{Account: "a", Secret: sensitive.New(private)}
	password := target.Credential{Account: "a", Secret: sensitive.New("a-password")}
	targettest.Expect(
		t,
		tt.Apply(targettest.Within(t), target.Change{Strategy: target.Single, New: key, Old: key}),
		target.Denied,
		"overlap",
	)
	targettest.Expect(
		t,
		tt.Apply(targettest.Within(t), target.Change{Strategy: target.Overlap, New: password, Old: password}),
		target.Denied,
		"single",
	)
	targettest.Expect(
		t,
		tt.Retire(targettest.Within(t), target.Change{Strategy: target.Overlap, New: password, Old: password}),
		target.Denied,
		"single",
	)
}

// testNoSecrets watches the list of processes of the host during changes.
func testNoSecrets(t *testing.T, s *servers.SSH) {
	if _, err := os.Stat("/proc/self/cmdline"); err != nil {
		t.Skip("there is no /proc to read the list of processes from")
	}
	tt := open(t, config(s, s.Addr()), admin(s))
	first := sensitive.New("first-password-of-yescrypt")
	c := change(t, tt, target.Credential{
		Account: s.NewAccount(t, "/bin/sh", cryptOf(t, first.Reveal(), "$y$j9T$")).Name, Secret: first,
	})
	finished := make(chan struct{})
	var watch sync.WaitGroup
	seen := map[string]bool{}
	watch.Go(func() {
		for {
			lists, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, l := range lists {
				line, _ := os.ReadFile(l) // of a process that has ended there is none
				if bytes.HasPrefix(line, []byte("perl")) || bytes.HasPrefix(line, []byte("chpasswd")) {
					seen[string(line)] = true
				}
			}
			select {
			case <-finished:
				return
			default:
			}
		}
	})
	for range 5 {
		targettest.Must(t, tt.Apply(targettest.Within(t), c))
		c = change(t, tt, c.New)
	}
	close(finished)
	watch.Wait()
	for line := range seen {
		if strings.Contains(line, "$y$") || strings.Contains(line, c.Old.Secret.Reveal()) ||
			strings.Contains(line, c.New.Secret.Reveal()) {
			t.Error("the list of processes shows a secret")
		}
	}
	if len(seen) == 0 {
		t.Error("no process of a change was seen")
	}
	if strings.Contains(s.Log.String(), c.New.Secret.Reveal()) {
		t.Error("the log of the server shows a secret")
	}
}

func testInspect(t *testing.T, s *servers.SSH) {
	tt := open(t, config(s, s.Addr()), admin(s))
	for options, want := range map[string]target.Liveness{
		"": target.Live, "restrict ": target.Live, `from="10.0.0.0/8" `: target.NotKnown,
		`expiry-time="20200101" `: target.NotKnown, "cert-authority ": target.NotKnown, "# ": target.NotKnown,
	} {
		c, a := keyAccount(t, s, "/bin/sh")
		path := filepath.Join(a.Home, ".ssh", "authorized_keys")
		content, err := os.ReadFile(path)
		targettest.Must(t, err)
		s.Authorize(t, a, "# comment\n"+options+string(content))
		seen, err := tt.(target.Inspector).Inspect(targettest.Within(t), []target.Credential{c})
		if err != nil || seen[0] != want {
			t.Errorf("with options %q: Inspect = %v, %v; want %v", options, seen, err, want)
		}
	}
	missing := target.Credential{Account: "nobody-of-that-name", Secret: sensitive.New("a-password")}
	seen, err := tt.(target.Inspector).Inspect(targettest.Within(t), []target.Credential{missing})
	if err != nil || seen[0] != target.NotKnown {
		t.Errorf("of a missing account: Inspect = %v, %v", seen, err)
	}
}

// testBrokenLogin cuts the connection closely around the answer to a good credential: from the end
// of the replies backwards, to where the credential is not offered yet.
func testBrokenLogin(t *testing.T, s *servers.SSH) {
	p := targettest.NewProxy(t, s.Addr())
	tt := open(t, config(s, p.Addr(), `"check":""`), admin(s))
	targettest.Must(t, tt.Verify(targettest.Within(t), admin(s)))
	_, length, _ := p.Passed()
	broken := 0
	for after := length; after > 0; after -= 16 {
		p.Set(targettest.Fault{}, targettest.Fault{After: after, Kind: targettest.Reset})
		err := tt.Verify(targettest.Within(t), admin(s))
		class := target.ClassOf(err)
		if err != nil && class == target.Unreachable {
			break
		}
		if err != nil && class != target.Unknown {
			t.Errorf("cut after %d of %d bytes of replies: %v of class %v, want no verdict", after, length, err, class)
		}
		if err != nil {
			broken++
		}
	}
	if broken == 0 {
		t.Error("no cut was between the credential and its answer")
	}
}

func testIPv6(t *testing.T, _ *servers.SSH) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("there is no IPv6 on this machine: %v", err)
	}
	targettest.Must(t, l.Close())
	s := servers.StartSSH(t, "ListenAddress ::1")
	tt := open(t, config(s, net.JoinHostPort("::1", fmt.Sprint(s.Port))), admin(s))
	targettest.Must(t, tt.Verify(targettest.Within(t), admin(s)))
}

// TestOtherMethods is about hosts that ask for more than, or other things than, a key or a
// password.
func TestOtherMethods(t *testing.T) {
	t.Parallel()
	two := servers.StartSSH(t, "AuthenticationMethods publickey,password")
	tt := open(t, config(two, two.Addr()), admin(two))
	targettest.Expect(t, tt.Verify(targettest.Within(t), admin(two)), target.Admitted, "more than one proof", "password")
	noPasswords := servers.StartSSH(t, "PasswordAuthentication no")
	tt = open(t, config(noPasswords, noPasswords.Addr()), admin(noPasswords))
	targettest.Expect(
		t,
		tt.Verify(targettest.Within(t), target.Credential{Account: "any", Secret: sensitive.New("a-password")}),
		target.Denied,
		"takes no passwords",
		"publickey",
	)
}

// TestAsksInDialogue is about hosts that ask for a password in a dialogue, as those with PAM do.
func TestAsksInDialogue(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/etc/pam.d/sshd"); err != nil || os.Geteuid() != 0 {
		t.Skip("no PAM service sshd on this machine, or not root")
	}
	s := servers.StartSSH(
		t,
		"PasswordAuthentication no",
		"KbdInteractiveAuthentication yes",
		"UsePAM yes",
		"LogLevel INFO",
	)
	tt := open(t, config(s, s.Addr()), admin(s))
	old := passwordAccount(t, s)
	targettest.Must(t, tt.Verify(targettest.Within(t), old))
	c := change(t, tt, old)
	targettest.Must(t, tt.Apply(targettest.Within(t), c))
	targettest.Must(t, tt.Verify(targettest.Within(t), c.New))
	targettest.Expect(t, tt.Verify(targettest.Within(t), c.Old), target.Rejected)
	failures := func() int { return strings.Count(s.Log.String(), "PAM: Authentication failure") }
	for deadline := time.Now().Add(5 * time.Second); failures() == 0 && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond) // the host writes its log after its answer
	}
	if n := failures(); n != 1 {
		t.Errorf("one rejected login was %d for the host", n)
	}
	// An administrator may be one with a password.
	targettest.Expect(
		t,
		open(t, config(s, s.Addr()), c.New).Apply(targettest.Within(t), change(t, tt, old)),
		target.Denied,
		"sudo",
	)
	// A password that has expired is right, and of no use.
	if out, err := exec.Command("chage", "-d", "0", old.Account).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	targettest.Expect(t, tt.Verify(targettest.Within(t), c.New), target.Denied, "asks more than for a password")
}

// TestLimitOfLogins verifies that a session which PAM refuses after the login proves the
// credential.
func TestLimitOfLogins(t *testing.T) {
	t.Parallel()
	const limits = "/etc/security/limits.d"
	if _, err := os.Stat("/etc/pam.d/sshd"); err != nil || os.Geteuid() != 0 {
		t.Skip("no PAM service sshd on this machine, or not root")
	}
	if _, err := os.Stat(limits); err != nil {
		t.Skip("no pam_limits on this machine")
	}
	s := servers.StartSSH(t, "UsePAM yes")
	tt := open(t, config(s, s.Addr()), admin(s))
	old, a := keyAccount(t, s, "/bin/sh")
	targettest.Must(t, tt.Verify(targettest.Within(t), old))
	file := filepath.Join(limits, a.Name+".conf")
	targettest.Must(t, os.WriteFile(file, fmt.Appendf(nil, "%s hard maxlogins 0\n", a.Name), 0o644))
	t.Cleanup(func() { targettest.Must(t, os.Remove(file)) })
	targettest.Expect(t, tt.Verify(targettest.Within(t), old), target.Admitted, "gets no session")
	other, _ := keyAccount(t, s, "/bin/sh")
	other.Account = old.Account
	targettest.Expect(t, tt.Verify(targettest.Within(t), other), target.Rejected)
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for config, want := range map[string][]string{
		`{"address":"h"}`: {"host_keys is required"},
		`{"address":"a b","host_keys":["x"],"key_type":"dsa","password_length":1,"authorized_keys":"%d/x","verify":["/"]}`: {
			"a b", "number 1", "key_type", "password_length", "%u", `"/"`,
		},
		`{"address":"h","host_keys":["x"],"key_options":"ssh-ed25519 AAAA"}`: {"key_options"},
		`{"address":"h","host_keys":["x"],"authorized_keys":[]}`:             {"authorized_keys must be"},
		`{"address":"h","host_keys":["x"],"key_options":"cert-authority"}`:   {"key_options"},
		`{"address":"h","host_keys":1}`:                                      {"host_keys is of type number"},
		`{"address":"h","host_keys":"x"}`:                                    {"host_keys: number 1"},
	} {
		err := ssh.Kind().Check([]byte(config))
		for _, w := range want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want %q", config, err, w)
			}
		}
	}
	_, public := servers.NewSSHKey(t)
	good := fmt.Sprintf(`{"address":"::1","host_keys":[%q]`, driver.MarshalAuthorizedKey(public))
	if _, err := ssh.Kind().Open(target.Settings{Config: []byte(good + "}")}); err == nil {
		t.Error("a target with neither an administrator nor self is opened")
	}
	if _, err := ssh.Kind().Open(target.Settings{Config: []byte(good + `,"self":true}`), Admin: target.Credential{Account: "a", Secret: sensitive.New("s")}}); err == nil {
		t.Error("a target with an administrator and self is opened")
	}
}
