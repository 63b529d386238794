package redis_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/redis"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
	"github.com/keyturn/keyturn/test/support"
)

// openAs opens a target with further settings for the secret of an application.
func openAs(t *testing.T, s *servers.Redis, more string, login target.Login) target.Target {
	t.Helper()
	config := fmt.Sprintf(`{"address":%q,"tls":{"off":true}%s}`, s.Addr, more)
	tt, err := redis.Kind().Open(target.Settings{Name: "r", Config: []byte(config), Admin: admin(s), Login: login})
	targettest.Must(t, err)
	t.Cleanup(func() { _ = tt.Close() })
	return tt
}

// TestApplicationLogin verifies that logins follow the application's, and which answers prove the
// password.
func TestApplicationLogin(t *testing.T) {
	t.Parallel()
	s, copied := servers.StartRedis(t), servers.StartRedis(t)
	c := account(t, s)
	in := func(database string) error {
		return openAs(t, s, "", target.Login{Database: database}).Verify(targettest.Within(t), c)
	}
	targettest.Expect(t, in("1"), target.Admitted, "NOPERM")
	s.Do(t, "ACL", "SETUSER", c.Account, "+select")
	targettest.Must(t, in("1"))
	targettest.Expect(t, in("99"), target.Admitted, "out of range")
	targettest.Expect(t, in("cache"), target.Denied, "must be a number")
	wrong := target.Credential{Account: c.Account, Secret: sensitive.New("a-wrong-password")}
	err := openAs(t, s, "", target.Login{Database: "99"}).Verify(targettest.Within(t), wrong)
	targettest.Expect(t, err, target.Rejected, "WRONGPASS")
	// A replica has a list of its own. It neither decides nor hides that it rejects.
	more := fmt.Sprintf(`,"verify":[{"address":%q,"role":"replica","lag":"3s"}]`, copied.Addr)
	tt := openAs(t, s, more, target.Login{})
	targettest.Must(t, tt.Verify(targettest.Within(t), c))
	copies := tt.(target.Copied)
	targettest.Expect(t, copies.VerifyCopies(targettest.Within(t), c), target.Rejected, "WRONGPASS")
	copied.Do(t, "ACL", "SETUSER", c.Account, "on", ">"+c.Secret.Reveal())
	targettest.Must(t, copies.VerifyCopies(targettest.Within(t), c))
	if lag := copies.Lag().String(); lag != "3s" {
		t.Errorf("the lag is %s", lag)
	}
	only := openAs(t, s, more, target.Login{Endpoints: []string{s.Addr}}).(target.Copied)
	if only.Lag() != 0 {
		t.Error("a login at one endpoint does not leave out the replica")
	}
	gone := openAs(t, s, "", target.Login{Endpoints: []string{"127.0.0.1:1"}})
	targettest.Expect(t, gone.Verify(targettest.Within(t), c), target.Denied, "no login endpoint")
}

// found returns the verdict and the code of what a check finds.
func found(t *testing.T, tt target.Target, c target.Credential, partner string) string {
	t.Helper()
	return targettest.Codes(targettest.Findings(t, tt, target.CheckRequest{
		Current: c, Partner: partner, Strategies: redis.Kind().Strategies,
	}))
}

// TestCheckAccount verifies what a check finds about users at two nodes without replication.
func TestCheckAccount(t *testing.T) {
	t.Parallel()
	one, two := servers.StartRedis(t), servers.StartRedis(t)
	tt := open(t, fmt.Sprintf(`{"nodes":[%q,%q],"tls":{"off":true}}`, one.Addr, two.Addr), admin(one))
	users := func(name string, rules ...any) {
		for _, s := range []*servers.Redis{one, two} {
			s.Do(t, append([]any{"ACL", "SETUSER", name}, rules...)...)
		}
	}
	c := target.Credential{Account: "app", Secret: sensitive.New("the-password-of-app")}
	users("app", "on", ">"+c.Secret.Reveal(), "~*", "+get")
	users("partner", "on", ">another-password", "~*", "+get")
	users("other", "on", ">another-password", "~*", "+get", "+set")
	expect := func(what, partner, want string) {
		t.Helper()
		if got := found(t, tt, c, partner); got != want {
			t.Errorf("%s: the check finds %q, want %q", what, got, want)
		}
	}
	expect("a user", "", "")
	expect("an equal partner", "partner", "")
	expect("a partner with other rules", "other", "needs-consent partner-differs, needs-consent partner-differs")
	expect("no partner", "missing", "impossible unfit, impossible unfit")
	two.Do(t, "ACL", "SETUSER", "app", "(~x +set)")
	expect("a selector at one node", "", "note nodes-differ")
	two.Do(t, "ACL", "SETUSER", "app", "clearselectors", ">a-further-password")
	expect("a further password", "", "note further-passwords outlasts")
	graced := target.CheckRequest{Current: c, Previous: target.Credential{
		Account: "app", Secret: sensitive.New("a-further-password"),
	}}
	if list := targettest.Findings(t, tt, graced); len(list) > 0 {
		t.Errorf("in a grace period: %+v", list)
	}
	two.Do(t, "ACL", "SETUSER", "app", "resetpass", ">a-further-password")
	expect("another password at one node", "", "impossible password-missing, note further-passwords outlasts")
	two.Do(t, "ACL", "SETUSER", "app", ">"+c.Secret.Reveal(), "off")
	expect("off at one node", "", "impossible unfit, note further-passwords outlasts, note nodes-differ")
	two.Do(t, "ACL", "DELUSER", "app")
	expect("missing at one node", "", "impossible unfit")
	if list := targettest.Findings(t, tt, target.CheckRequest{Current: c}); !list[0].Missing {
		t.Errorf("a user that does not exist at a node is not probed: %+v", list)
	}
	for _, s := range redis.Kind().Strategies {
		if window := tt.(target.Windower).Window(s); !strings.HasSuffix(window, ".") {
			t.Errorf("the window of %s is %q", s, window)
		}
	}
}

// TestAnswersOfLogins verifies what the answer to AUTH means: WRONGPASS alone rejects the password.
func TestAnswersOfLogins(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]target.Class{
		"-WRONGPASS invalid username-password pair or user is disabled.": target.Rejected,
		"-ERR the proxy knows no such user":                              target.Unclear,
		"-NOPERM this user may not AUTH":                                 target.Unclear,
		"-LOADING Redis is loading the dataset in memory":                target.Unreachable,
		"-ERR max number of clients reached":                             target.Unreachable,
	} {
		addr := answers(t, answer)
		err := open(t, plain(addr), target.Credential{Account: "a", Secret: sensitive.New("password-of-a")}).Verify(
			targettest.Within(t), target.Credential{Account: "app", Secret: sensitive.New("password-of-app")})
		if got := target.ClassOf(err); got != want {
			t.Errorf("%s: %v of class %v, want %v", answer, err, got, want)
		}
	}
}

// answers starts a server that gives one answer to every AUTH, and knows no other command.
func answers(t *testing.T, answer string) (addr string) {
	t.Helper()
	return support.Serve(t, func(c net.Conn) {
		for in := bufio.NewScanner(c); in.Scan(); {
			switch word := strings.ToUpper(in.Text()); word {
			case "AUTH":
				_, _ = io.WriteString(c, answer+"\r\n")
			case "HELLO":
				_, _ = io.WriteString(c, "-ERR unknown command 'HELLO'\r\n")
			}
		}
	}).String()
}
