package redis_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	driver "github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/redis"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
	"github.com/keyturn/keyturn/test/support"
)

var accounts atomic.Int64

// account makes a user with one password.
func account(t *testing.T, s *servers.Redis) target.Credential {
	t.Helper()
	n := accounts.Add(1)
	c := target.Credential{Account: fmt.Sprintf("app%d", n), Secret: sensitive.New(fmt.Sprintf("first-password-%d", n))}
	s.Do(t, "ACL", "SETUSER", c.Account, "on", ">"+c.Secret.Reveal(), "~*", "+get", "+set")
	return c
}

// login tries a password at a server without the code under test.
func login(s *servers.Redis) targettest.Login {
	return func(ctx context.Context, c target.Credential) (bool, error) {
		client := s.Client("", "")
		defer client.Close()
		conn := client.Conn()
		defer conn.Close()
		err := conn.AuthACL(ctx, c.Account, c.Secret.Reveal()).Err()
		if err != nil && strings.HasPrefix(err.Error(), "WRONGPASS") {
			return false, nil
		}
		return err == nil, err
	}
}

func admin(s *servers.Redis) target.Credential {
	return target.Credential{Account: "default", Secret: sensitive.New(s.Password)}
}

func plain(addr string) string { return fmt.Sprintf(`{"address":%q,"tls":{"off":true}}`, addr) }

func open(t *testing.T, config string, admin target.Credential) target.Target {
	t.Helper()
	return targettest.Open(t, redis.Kind(), config, admin)
}

func change(old target.Credential, to string) target.Change {
	return target.Change{
		ID:       "c1",
		Strategy: target.Overlap,
		Old:      old,
		New:      target.Credential{Account: old.Account, Secret: sensitive.New(to)},
	}
}

func TestRedis(t *testing.T) {
	t.Parallel()
	s := servers.StartRedis(t)
	t.Run("conformance", func(t *testing.T) {
		t.Parallel()
		targettest.Run(t, targettest.Harness{
			Kind: redis.Kind(), Addr: s.Addr, Config: plain, Admin: admin(s),
			Account: func(t *testing.T) target.Credential { return account(t, s) },
			Login:   login(s),
			Session: func(t *testing.T, c target.Credential) func() error {
				conn := s.Client(c.Account, c.Secret.Reveal()).Conn()
				if err := conn.Set(t.Context(), "k", "v", 0).Err(); err != nil {
					t.Fatal(err)
				}
				id := "k-" + c.Account
				return func() error { defer conn.Close(); return conn.Set(t.Context(), id, "v", 0).Err() }
			},
			Standing: standing(s),
		})
	})
	t.Run("TLS", func(t *testing.T) { t.Parallel(); testTLS(t, s) })
	t.Run("odd characters", func(t *testing.T) { t.Parallel(); testOddCharacters(t, s) })
	t.Run("least administrator", func(t *testing.T) { t.Parallel(); testLeastAdministrator(t, s) })
	t.Run("unfit accounts", func(t *testing.T) { t.Parallel(); testUnfitAccounts(t, s) })
	t.Run("standing", func(t *testing.T) { t.Parallel(); testStanding(t, s) })
	t.Run("standing without rights", func(t *testing.T) { t.Parallel(); testStandingUnreadable(t, s) })
	t.Run("rules are applied as the server does", func(t *testing.T) { t.Parallel(); testRules(t, s) })
	t.Run("others stay", func(t *testing.T) { t.Parallel(); testOthersStay(t, s) })
}

func testTLS(t *testing.T, s *servers.Redis) {
	c := change(account(t, s), "second-password")
	config := func(addr, ca, name string) string {
		b, err := json.Marshal(map[string]any{"address": addr, "tls": map[string]string{"ca": ca, "server_name": name}})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	tt := open(t, config(s.TLSAddr, s.Authority.CA, ""), admin(s))
	if err := tt.Apply(targettest.Within(t), c); err != nil {
		t.Fatal(err)
	}
	if err := tt.Verify(targettest.Within(t), c.New); err != nil {
		t.Fatal(err)
	}
	for what, config := range map[string]string{
		"a wrong name":         config(s.TLSAddr, s.Authority.CA, "other.example"),
		"an unknown authority": config(s.TLSAddr, "", ""),
		"a plain port":         config(s.Addr, s.Authority.CA, ""),
	} {
		tt := open(t, config, admin(s))
		// A plain port takes a TLS greeting for half a command, and waits for the rest.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := tt.Apply(ctx, c); target.ClassOf(err) != target.Unreachable {
			t.Errorf("%s: %v of class %v, want unreachable", what, err, target.ClassOf(err))
		}
		if err := tt.Verify(ctx, c.New); target.ClassOf(err) != target.Unreachable {
			t.Errorf("%s: Verify: %v of class %v, want unreachable", what, err, target.ClassOf(err))
		}
	}
}

func testOddCharacters(t *testing.T, s *servers.Redis) {
	tt := open(t, plain(s.Addr), admin(s))
	old := account(t, s)
	for _, password := range []string{"space and\ttab", `quote " ' \ back`, "line\nend\r\n", "#" + strings.Repeat("a", 64), ">x !y ~* +@all", "pässwörd ☃", "\x00\xff"} {
		c := change(old, password)
		if err := tt.Apply(targettest.Within(t), c); err != nil {
			t.Fatalf("%q: %v", password, err)
		}
		if err := tt.Retire(targettest.Within(t), c); err != nil {
			t.Fatalf("%q: %v", password, err)
		}
		login(s).Works(t, "new", c.New, true)
		login(s).Works(t, "old", c.Old, false)
		old = c.New
	}
}

func testLeastAdministrator(t *testing.T, s *servers.Redis) {
	c := change(account(t, s), "second-password")
	keeper := target.Credential{Account: "keeper", Secret: sensitive.New("keeper-password")}
	s.Do(t, "ACL", "SETUSER", keeper.Account, "on", ">"+keeper.Secret.Reveal(), "-@all", "+acl|getuser", "+acl|setuser")
	tt := open(t, plain(s.Addr), keeper)
	targettest.Expect(t, tt.Apply(targettest.Within(t), c), target.Denied, "NOPERM", "nothing was changed", "ACL SAVE")
	login(s).Works(t, "after a refusal to write down", c.New, false)
	s.Do(t, "ACL", "SETUSER", keeper.Account, "+acl|save", "+config|rewrite")
	if err := tt.Apply(targettest.Within(t), c); err != nil {
		t.Fatal(err)
	}
	if err := tt.Retire(targettest.Within(t), c); err != nil {
		t.Fatal(err)
	}
	login(s).Works(t, "after Retire", c.New, true)
	login(s).Works(t, "after Retire", c.Old, false)
}

func testUnfitAccounts(t *testing.T, s *servers.Redis) {
	tt := open(t, plain(s.Addr), admin(s))
	missing := target.Credential{Account: "missing", Secret: sensitive.New("some-password")}
	targettest.Expect(
		t,
		tt.Apply(targettest.Within(t), change(missing, "new-password")),
		target.Denied,
		`user "missing" does not exist`,
	)
	if s.Do(t, "ACL", "GETUSER", "missing") != nil {
		t.Error("a missing user was made")
	}
	if err := tt.Retire(targettest.Within(t), change(missing, "new-password")); err != nil {
		t.Errorf("to retire what no account accepts: %v", err)
	}
	off := account(t, s)
	s.Do(t, "ACL", "SETUSER", off.Account, "off")
	targettest.Expect(t, tt.Apply(targettest.Within(t), change(off, "new-password")), target.Denied, "switched off")
	anyone := account(t, s)
	s.Do(t, "ACL", "SETUSER", anyone.Account, "nopass")
	targettest.Expect(t, tt.Apply(targettest.Within(t), change(anyone, "new-password")), target.Denied, "any password")
	targettest.Expect(t, tt.Retire(targettest.Within(t), change(anyone, "new-password")), target.Denied, "any password")
	seen, err := tt.(target.Inspector).Inspect(targettest.Within(t), []target.Credential{missing, off, anyone})
	if err != nil || fmt.Sprint(seen) != fmt.Sprint([]target.Liveness{target.Dead, target.Dead, target.Live}) {
		t.Errorf("Inspect = %v, %v", seen, err)
	}
}

// testOthersStay holds that a password which Keyturn did not set is left alone, and that none is
// sent but by a login.
func testOthersStay(t *testing.T, s *servers.Redis) {
	old := account(t, s)
	other := target.Credential{Account: old.Account, Secret: sensitive.New("set-by-somebody-else")}
	s.Do(t, "ACL", "SETUSER", other.Account, ">"+other.Secret.Reveal())
	c := change(old, "second-password")
	tt := open(t, plain(s.Addr), admin(s))
	for _, step := range []func(context.Context, target.Change) error{tt.Apply, tt.Retire} {
		if err := step(targettest.Within(t), c); err != nil {
			t.Fatal(err)
		}
	}
	login(s).Works(t, "after Retire, the other one", other, true)
	login(s).Works(t, "after Retire", old, false)
	s.Do(t, "ACL", "SETUSER", c.New.Account, "resetpass")
	targettest.Expect(t, tt.Verify(targettest.Within(t), c.New), target.Rejected, "WRONGPASS")
}

func TestRestartKeepsChanges(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ setting, config string }{
		"ACL file, auto":            {servers.WithACLFile, ""},
		"ACL file, acl-save":        {servers.WithACLFile, `,"persist":"acl-save"`},
		"configuration file, auto":  {"# nothing", ""},
		"configuration file, named": {"# nothing", `,"persist":"config-rewrite"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := servers.StartRedis(t, tt.setting)
			target1 := open(t, strings.TrimSuffix(plain(s.Addr), "}")+tt.config+"}", admin(s))
			c := change(account(t, s), "second-password")
			if err := target1.Apply(targettest.Within(t), c); err != nil {
				t.Fatal(err)
			}
			s.Restart(t)
			login(s).Works(t, "new, after Apply and a restart", c.New, true)
			login(s).Works(t, "old, after Apply and a restart", c.Old, true)
			if err := target1.Retire(targettest.Within(t), c); err != nil {
				t.Fatal(err)
			}
			s.Restart(t)
			login(s).Works(t, "new, after Retire and a restart", c.New, true)
			login(s).Works(t, "old, after Retire and a restart", c.Old, false)
		})
	}
}

// TestDefaultUser rotates the password that requirepass set.
func TestDefaultUser(t *testing.T) {
	t.Parallel()
	s := servers.StartRedis(t)
	c := change(admin(s), "second-password")
	if err := open(t, plain(s.Addr), admin(s)).Apply(targettest.Within(t), c); err != nil {
		t.Fatal(err)
	}
	if err := open(t, plain(s.Addr), c.New).Retire(targettest.Within(t), c); err != nil {
		t.Fatal(err)
	}
	login(s).Works(t, "old", c.Old, false)
	s.Password = c.New.Secret.Reveal()
	s.Restart(t)
	login(s).Works(t, "new, after a restart", c.New, true)
	login(s).Works(t, "old, after a restart", c.Old, false)
}

func TestNothingToWriteDownTo(t *testing.T) {
	t.Parallel()
	s := servers.StartRedis(t, servers.WithoutConfigFile)
	c := change(account(t, s), "second-password")
	targettest.Expect(
		t,
		open(t, plain(s.Addr), admin(s)).Apply(targettest.Within(t), c),
		target.Denied,
		"without a config file",
		"nothing was changed",
		`persist to "none"`,
	)
	login(s).Works(t, "after a refusal", c.New, false)
	acl := strings.TrimSuffix(plain(s.Addr), "}") + `,"persist":"acl-save"}`
	targettest.Expect(
		t,
		open(t, acl, admin(s)).Apply(targettest.Within(t), c),
		target.Denied,
		"not configured to use an ACL file",
	)
	login(s).Works(t, "after a refusal", c.New, false)
	none := strings.TrimSuffix(plain(s.Addr), "}") + `,"persist":"none"}`
	if err := open(t, none, admin(s)).Apply(targettest.Within(t), c); err != nil {
		t.Fatal(err)
	}
	login(s).Works(t, "with persist none", c.New, true)
	for config, want := range map[string]string{
		plain(s.Addr): "impossible no-config-file, note further-passwords outlasts",
		strings.Replace(acl, "acl-save", "config-rewrite", 1): "impossible no-config-file, note further-passwords outlasts",
		acl:  "note further-passwords outlasts",
		none: "note further-passwords outlasts, note not-saved",
	} {
		if got := found(t, open(t, config, admin(s)), c.New, ""); got != want {
			t.Errorf("%s: the check finds %q, want %q", config, got, want)
		}
	}
	// It works already, so it cannot be said that nothing has happened.
	targettest.Expect(
		t,
		open(t, plain(s.Addr), admin(s)).Apply(targettest.Within(t), c),
		target.Unknown,
		"without a config file",
		"lost when the server restarts",
	)
	login(s).Works(t, "after another attempt", c.New, true)
}

// TestWriteDownUnheard loses the last request, with which the server is to write the change down.
func TestWriteDownUnheard(t *testing.T) {
	t.Parallel()
	s := servers.StartRedis(t, servers.WithACLFile)
	c := change(account(t, s), "second-password")
	p := targettest.NewProxy(t, s.Addr)
	tt := open(t, plain(p.Addr()), admin(s))
	if err := tt.Apply(targettest.Within(t), c); err != nil {
		t.Fatal(err)
	}
	requests, _, _ := p.Passed()
	next := change(c.New, "third-password!")
	// The last request is ACL SAVE, 28 bytes; it does not arrive. The change has, and its fate is
	// unknown.
	p.Set(targettest.Fault{After: requests - 10, Kind: targettest.Reset}, targettest.Fault{})
	targettest.Expect(t, tt.Apply(targettest.Within(t), next), target.Unknown, "ACL SAVE")
	p.Set(targettest.Fault{}, targettest.Fault{})
	if err := tt.Apply(targettest.Within(t), next); err != nil {
		t.Fatal(err)
	}
	s.Restart(t)
	login(s).Works(t, "after a repeated Apply and a restart", next.New, true)
}

// TestWriteDownFailsAfterwards takes the directory of the ACL file away between the two times that
// the server writes.
func TestWriteDownFailsAfterwards(t *testing.T) {
	t.Parallel()
	s := servers.StartRedis(t, servers.WithACLFile)
	c := change(account(t, s), "second-password")
	var away sync.Once
	addr := onRequest(t, s.Addr, "SETUSER", func() {
		away.Do(func() {
			if err := os.Rename(s.ACLDir, s.ACLDir+"-away"); err != nil {
				t.Error(err)
			}
		})
	})
	tt := open(t, plain(addr), admin(s))
	targettest.Expect(t, tt.Apply(targettest.Within(t), c), target.Unknown, "ACL SAVE", "removed again")
	login(s).Works(t, "after a failure to write down", c.New, false)
	login(s).Works(t, "after a failure to write down", c.Old, true)
	targettest.Expect(t, tt.Apply(targettest.Within(t), c), target.Denied, "ACL SAVE", "nothing was changed")
	if err := os.Rename(s.ACLDir+"-away", s.ACLDir); err != nil {
		t.Fatal(err)
	}
	if err := tt.Apply(targettest.Within(t), c); err != nil {
		t.Fatal(err)
	}
	s.Restart(t)
	login(s).Works(t, "after another attempt and a restart", c.New, true)
}

// onRequest passes connections on to a server, and calls f before a request with the word.
func onRequest(t *testing.T, to, word string, f func()) (addr string) {
	t.Helper()
	return support.Serve(t, func(client net.Conn) {
		server, err := net.Dial("tcp", to)
		if err != nil {
			t.Error(err)
			return
		}
		var back sync.WaitGroup
		defer back.Wait()
		defer server.Close()
		back.Go(func() { _, _ = io.Copy(client, server) })
		buf := make([]byte, 64<<10)
		for {
			n, err := client.Read(buf)
			if err != nil {
				return
			}
			if bytes.Contains(buf[:n], []byte(word)) {
				f()
			}
			if _, err := server.Write(buf[:n]); err != nil {
				return
			}
		}
	}).String()
}

func TestNodes(t *testing.T) {
	t.Parallel()
	a, b := servers.StartRedis(t, servers.WithACLFile), servers.StartRedis(t)
	c := change(account(t, a), "second-password")
	setting := []any{"ACL", "SETUSER", c.Old.Account, "on", ">" + c.Old.Secret.Reveal(), "+get"}
	p := targettest.NewProxy(t, b.Addr)
	tt := open(t, fmt.Sprintf(`{"nodes":[%q,%q],"tls":{"off":true}}`, a.Addr, p.Addr()), admin(a))
	targettest.Expect(t, tt.Apply(targettest.Within(t), c), target.Denied, p.Addr(), "does not exist")
	login(a).Works(t, "where the account is missing at another node", c.New, false)
	b.Do(t, setting...)
	measured := change(c.Old, "measured-password")
	p.Set(targettest.Fault{}, targettest.Fault{})
	if err := tt.Apply(targettest.Within(t), measured); err != nil {
		t.Fatal(err)
	}
	_, replies, _ := p.Passed()
	for _, s := range []*servers.Redis{a, b} {
		s.Do(t, "ACL", "SETUSER", c.Old.Account, "<measured-password")
	}
	// The reply of the second node to the change is lost, and that of its ACL SAVE with it: one
	// node has the change for sure.
	p.Set(targettest.Fault{}, targettest.Fault{After: replies - 6, Kind: targettest.Reset})
	targettest.Expect(t, tt.Apply(targettest.Within(t), c), target.Unknown)
	login(a).Works(t, "after half a change", c.New, true)
	p.Refuse()
	targettest.Expect(t, tt.Apply(targettest.Within(t), c), target.Unreachable)
	b.Do(t, "ACL", "SETUSER", c.Old.Account, "resetpass", ">"+c.Old.Secret.Reveal())
	p.Set(targettest.Fault{}, targettest.Fault{})
	targettest.Expect(t, tt.Verify(targettest.Within(t), c.New), target.Rejected, p.Addr())
	seen, err := tt.(target.Inspector).Inspect(targettest.Within(t), []target.Credential{c.New, c.Old})
	if err != nil || seen[0] != target.NotKnown || seen[1] != target.Live {
		t.Errorf("Inspect of half a change = %v, %v", seen, err)
	}
	for range 2 {
		if err := tt.Apply(targettest.Within(t), c); err != nil {
			t.Fatal(err)
		}
	}
	if err := tt.Verify(targettest.Within(t), c.New); err != nil {
		t.Fatal(err)
	}
	if err := tt.Retire(targettest.Within(t), c); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*servers.Redis{a, b} {
		login(s).Works(t, "after Retire", c.New, true)
		login(s).Works(t, "after Retire", c.Old, false)
	}
}

func TestTooManyClients(t *testing.T) {
	t.Parallel()
	s := servers.StartRedis(t, "maxclients 2")
	c := change(account(t, s), "second-password")
	var open2 []*driver.Conn
	for range 2 {
		// The server counts a connection that was closed for a moment.
		support.Until(t, "a connection", func() bool {
			conn := s.Client("default", s.Password).Conn()
			if conn.Ping(t.Context()).Err() != nil {
				_ = conn.Close()
				return false
			}
			open2 = append(open2, conn)
			return true
		})
	}
	tt := open(t, plain(s.Addr), admin(s))
	targettest.Expect(t, tt.Apply(targettest.Within(t), c), target.Unreachable, "max number of clients")
	targettest.Expect(t, tt.Verify(targettest.Within(t), c.Old), target.Unreachable, "max number of clients")
	for _, conn := range open2 {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for config, want := range map[string][]string{
		`{"address":"h","persist":"maybe","password_length":3,"tls":{"off":true,"ca":"x"}}`: {"persist", "password_length", "tls"},
		`{"nodes":["a b","c d"]}`:         {"a b", "c d"},
		`{"address":"h","nodes":["i"]}`:   {"not both"},
		`{"nodes":[]}`:                    {"address is required"},
		`{"address":"h","verify":["x/"]}`: {"x/"},
		`{"address":1}`:                   {"address is of type number"},
	} {
		err := redis.Kind().Check([]byte(config))
		for _, w := range want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want %q", config, err, w)
			}
		}
	}
	if err := redis.Kind().Check([]byte(`{"nodes":["a","b:1","[::1]"],"verify":["p:2"],"password_punctuation":"-"}`)); err != nil {
		t.Error(err)
	}
	if _, err := redis.Kind().Open(target.Settings{Config: []byte(`{"address":"h"}`)}); err == nil {
		t.Error("a target without an administrator is opened")
	}
}
