package redis_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/redis"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
)

// standing tells the suite about the users of a server whose administrator is "default".
func standing(s *servers.Redis) *targettest.Standing {
	return &targettest.Standing{
		Spellings: []string{""},
		Others:    []string{"Default", "default ", `"default"`, "default@%", "*"},
		Privileged: func(t *testing.T) string {
			c := account(t, s)
			s.Do(t, "ACL", "SETUSER", c.Account, "+acl|setuser")
			return c.Account
		},
		Trace: func(t *testing.T, account string) string {
			stored := fmt.Sprint(s.Do(t, "ACL", "GETUSER", account))
			log := fmt.Sprint(s.Do(t, "ACL", "LOG", "128"))
			return fmt.Sprint(stored, strings.Count(log, "username "+account+" "))
		},
	}
}

// testStanding verifies which rules make a user privileged.
func testStanding(t *testing.T, s *servers.Redis) {
	g := open(t, plain(s.Addr), admin(s)).(target.Guarded)
	for rules, want := range map[string]string{
		"off -@all":                          "",
		"+@read +@write -@dangerous ~*":      "",
		"+@all -@admin -@dangerous -@slow":   "",
		"+@all -@dangerous":                  "",
		"+acl|whoami +config|resetstat +get": "",
		"+cluster|slots":                     "",
		"off +@all":                          "may run ACL DELUSER",
		"+@all -acl -config -module":         "may run CLUSTER ADDSLOTS",
		"+@slow -@admin +debug":              "may run DEBUG",
		"+@admin -@all +acl|setuser":         "may run ACL SETUSER",
		"-@all +@dangerous -acl -cluster":    "may run CONFIG GET",
		"+config|set":                        "may run CONFIG SET",
		"+module|load":                       "may run MODULE LOAD",
		"+psync +replconf +ping":             "may run PSYNC",
		"-@all (+get ~a) (+acl|setuser)":     "may run ACL SETUSER",
	} {
		c := account(t, s)
		arguments := []any{"ACL", "SETUSER", c.Account, "reset"}
		inSelector := false
		for r := range strings.FieldsSeq(rules) {
			if inSelector {
				arguments[len(arguments)-1] = fmt.Sprint(arguments[len(arguments)-1], " ", r)
			} else {
				arguments = append(arguments, r)
			}
			inSelector = (inSelector || strings.HasPrefix(r, "(")) && !strings.HasSuffix(r, ")")
		}
		s.Do(t, arguments...)
		got, err := g.Standing(targettest.Within(t), c.Account)
		if err != nil || got != (target.Standing{Privileged: want}) {
			t.Errorf("%s: %+v, %v; want %q", rules, got, err, want)
		}
	}
}

// TestStandingAtEveryNode makes a user privileged at the second of two nodes alone.
func TestStandingAtEveryNode(t *testing.T) {
	t.Parallel()
	a, b := servers.StartRedis(t), servers.StartRedis(t)
	c := account(t, a)
	b.Do(t, "ACL", "SETUSER", c.Account, "+@all")
	nodes := fmt.Sprintf(`{"nodes":[%q,%q],"tls":{"off":true}}`, a.Addr, b.Addr)
	got, err := open(t, nodes, admin(a)).(target.Guarded).Standing(targettest.Within(t), c.Account)
	if err != nil || got.Privileged == "" {
		t.Errorf("Standing = %+v, %v", got, err)
	}
}

// testStandingUnreadable is about an administrator who may not read users, and one who is not the
// default user.
func testStandingUnreadable(t *testing.T, s *servers.Redis) {
	blind := target.Credential{Account: "blind", Secret: sensitive.New("blind-password")}
	s.Do(t, "ACL", "SETUSER", blind.Account, "on", ">"+blind.Secret.Reveal(), "+acl|setuser")
	g := open(t, plain(s.Addr), blind).(target.Guarded)
	_, err := g.Standing(targettest.Within(t), account(t, s).Account)
	targettest.Expect(t, err, target.Denied, "ACL SETUSER blind +acl|getuser")
	s.Do(t, "ACL", "SETUSER", blind.Account, "+acl|getuser")
	for name, want := range map[string]target.Standing{
		"":        {Privileged: "is the user of every connection that has not logged in"},
		"default": {Privileged: "is the user of every connection that has not logged in"},
		"blind":   {Administrator: true, Privileged: "may run ACL GETUSER"},
	} {
		if got, err := g.Standing(targettest.Within(t), name); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", name, got, err, want)
		}
	}
}

// testRules compares the categories and random sequences of rules with what the server says of
// them.
func testRules(t *testing.T, s *servers.Redis) {
	categories := s.Do(t, "ACL", "CAT").([]any)
	var commands [][]any
	for command, subcommands := range redis.Powers {
		if subcommands == nil {
			subcommands = []string{""}
		}
		for _, sub := range subcommands {
			name := strings.TrimSuffix(command+"|"+sub, "|")
			if s.Do(t, "COMMAND", "INFO", name).([]any)[0] == nil {
				t.Errorf("the server has no command %s", name)
			}
			commands = append(commands, append([]any{command}, words(sub)...))
			for _, c := range categories {
				holds := slices.Contains(s.Do(t, "ACL", "CAT", c).([]any), any(name))
				if holds != slices.Contains(redis.PowerCategories, c.(string)) {
					t.Errorf("%s is in category %s: %v", name, c, holds)
				}
			}
		}
	}
	rules := []string{"allcommands", "nocommands", "+get", "-set", "+select|0"}
	for _, c := range categories {
		if !slices.Contains(redis.PowerCategories, c.(string)) && !slices.Contains(redis.OtherCategories, c.(string)) {
			t.Errorf("the category %s is in neither list", c)
		}
		rules = append(rules, "+@"+c.(string), "-@"+c.(string))
	}
	for _, c := range commands {
		name := c[0].(string)
		rules = append(rules, "+"+name, "-"+name)
		if len(c) > 1 {
			rules = append(rules, "+"+name+"|"+c[1].(string), "-"+name+"|"+c[1].(string))
		}
	}
	user := account(t, s).Account
	random := rand.New(rand.NewPCG(1, 2))
	privileged := 0
	const histories = 300
	for range histories {
		arguments := []any{"ACL", "SETUSER", user, "reset"}
		for range random.IntN(7) {
			arguments = append(arguments, rules[random.IntN(len(rules))])
		}
		s.Do(t, arguments...)
		stored := s.Do(t, "ACL", "GETUSER", user).([]any)
		text := stored[slices.Index(stored, any("commands"))+1].(string)
		want := slices.ContainsFunc(commands, func(c []any) bool { return permits(t, s, user, c) })
		if got := redis.Power(text) != ""; got != want {
			t.Fatalf(
				"%v, stored as %q: power %q, and the server permits one: %v",
				arguments[4:],
				text,
				redis.Power(text),
				want,
			)
		}
		if want {
			privileged++
		}
	}
	if privileged == 0 || privileged == histories {
		t.Errorf("%d of %d users are privileged", privileged, histories)
	}
	for _, rule := range []string{"+@newcategory", "?what"} {
		if redis.Power("-@all "+rule) == "" {
			t.Errorf("%s, which is not known, permits nothing", rule)
		}
	}
}

// permits asks the server whether a user may run a command with as many arguments as it takes.
func permits(t *testing.T, s *servers.Redis, user string, command []any) bool {
	t.Helper()
	dry := append([]any{"ACL", "DRYRUN", user}, command...)
	info := s.Do(t, "COMMAND", "INFO", strings.Join(texts(command), "|"))
	arity := info.([]any)[0].([]any)[1].(int64)
	for n := int64(len(command)); n < max(arity, -arity); n++ {
		dry = append(dry, "1")
	}
	answer := fmt.Sprint(s.Do(t, dry...))
	if answer != "OK" && !strings.Contains(answer, "has no permissions to run") {
		t.Fatalf("%v: %s", dry, answer)
	}
	return answer == "OK"
}

func words(s string) []any {
	if s == "" {
		return nil
	}
	return []any{s}
}

func texts(values []any) []string {
	var out []string
	for _, v := range values {
		out = append(out, fmt.Sprint(v))
	}
	return out
}
