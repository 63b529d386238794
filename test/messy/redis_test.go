package messy

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/applications"
	"github.com/keyturn/keyturn/test/servers"
)

func TestRedis(t *testing.T) {
	t.Parallel()
	applications.Require(t, "redis")
	server := &redis{servers.StartRedis(t, servers.WithACLFile)}
	server.Do(t, "SET", "shared:1", "one")
	p := player{product: start(t, "redis", compact(pair{"default", server.Password})), label: "messy_redis"}
	p.build = func(t *testing.T, s *scene, r *rand.Rand) { server.build(t, p.product, s, r) }
	p.play(t)
}

// redis is the server that all scenes share.
type redis struct{ *servers.Redis }

// user makes a user with rules.
func (server *redis) user(t *testing.T, name string, rules []string) {
	t.Helper()
	args := []any{"ACL", "SETUSER", name}
	for _, rule := range rules {
		args = append(args, rule)
	}
	server.Do(t, args...)
}

func (server *redis) build(t *testing.T, p *product, s *scene, r *rand.Rand) {
	app, password := "app-"+s.name, "first-password-of-"+s.name
	rules := []string{"on"}
	rules = append(rules, strings.Fields(s.one(r, "keys", "~{}:*", "~*", "%R~shared:* ~{}:*", "%W~{}:* %R~{}:*"))...)
	rules = append(rules, strings.Fields(s.one(r, "commands", "+@read +@write", "+@all -@dangerous", "+get +set +del",
		"+@all -@admin -@dangerous -eval", "+get +set +config|get +del"))...)
	rules = append(rules, strings.Fields(s.one(r, "channels", "resetchannels", "&{}:*", "allchannels"))...)
	if s.trait(r, 3, "a selector") {
		rules = append(rules, "(+@read ~shared:*)", "(+strlen ~*)")
	}
	if s.trait(r, 4, "sanitize-payload off") {
		rules = append(rules, "skip-sanitize-payload")
	}
	for i, rule := range rules {
		rules[i] = strings.ReplaceAll(rule, "{}", s.name)
	}
	var other string
	if s.trait(r, 3, "another team's password") {
		other = "password-of-the-other-team-of-" + s.name
		rules = append(rules, ">"+other)
	}
	if s.trait(r, 3, "the password is stored as a hash") {
		rules = append(rules, fmt.Sprintf("#%x", sha256.Sum256([]byte(password))))
	} else {
		rules = append(rules, ">"+password)
	}
	server.user(t, app, rules)
	s.strategy = []target.Strategy{target.Overlap, target.Overlap, target.Double}[r.IntN(3)]
	s.first = compact(pair{app, password})
	configure := kms.ConfigureRotationRequest{
		TargetName:  s.name,
		Strategy:    string(s.strategy),
		GracePeriod: "1h",
		AccountName: app,
	}
	if s.strategy == target.Double {
		configure.CloneAccountName = app + "-clone"
		server.user(t, app+"-clone", append(slices.Clone(rules), "resetpass", ">another-password-of-"+s.name))
		other = "" // retiring an account of a pair removes all of its passwords
	}
	p.register(t, s.name, compact(map[string]any{"address": server.Addr, "tls": map[string]bool{"off": true}}))
	s.attach = func() (string, error) { return p.configure(t, s.first, configure) }
	s.app = applications.New(applications.Config{Kind: "redis", Address: server.Addr, Name: s.name})
	s.also = func(ctx context.Context, value string, out outcome) error {
		out["account"] = server.account(t, value)
		if other == "" {
			return nil
		}
		in, err := s.app.Login(ctx, compact(pair{app, other}))
		out["the other team"] = fmt.Sprint(in)
		return err
	}
}

// account is what the administrator sees of a user without its passwords.
func (server *redis) account(t *testing.T, value string) string {
	t.Helper()
	a, err := applications.Parse(value)
	good(t, err)
	fields, ok := server.Do(t, "ACL", "GETUSER", a.AccountName).([]any)
	if !ok {
		return "none"
	}
	rules := map[string]string{}
	for i := 0; i+1 < len(fields); i += 2 {
		if name := fmt.Sprint(fields[i]); name != "passwords" {
			rules[name] = fmt.Sprint(fields[i+1])
		}
	}
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		lines = append(lines, name+" "+rules[name])
	}
	return strings.Join(lines, "; ")
}
