package ldap_test

import (
	"context"
	"crypto/sha1"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/ldap"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
)

// TestKeepsForms verifies that a new value has scheme, cost and spelling of the old one, and that
// the server takes it.
func TestKeepsForms(t *testing.T) {
	t.Parallel()
	s := servers.StartLDAP(t)
	sum := sha1.Sum([]byte("secretsalt"))
	ssha := "{ssha}" + base64.StdEncoding.EncodeToString(append(sum[:], "salt"...))
	long := sha512.Sum512([]byte("secretsixteen bytes xx"))
	ssha512 := "{SSHA512}" + base64.StdEncoding.EncodeToString(append(long[:], "sixteen bytes xx"...))
	for value, form := range map[string]struct{ prefix, module string }{
		"{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=":   {prefix: "{SHA}"},
		"{MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==":       {prefix: "{MD5}"},
		ssha:                                  {prefix: "{ssha}"},
		ssha512:                               {prefix: "{SSHA512}", module: "pw-sha2"},
		"{crypt}$6$saltsalt$" + cryptOfSecret: {prefix: "{crypt}$6$"},
		"{CRYPT}" + cryptBy(t, "$6$rounds=6000$salt"): {prefix: "{CRYPT}$6$rounds=6000$"},
		"{CRYPT}" + cryptBy(t, "$5$salt"):             {prefix: "{CRYPT}$5$"},
		"{CRYPT}" + cryptBy(t, "$2b$05$"+bcryptSalt):  {prefix: "{CRYPT}$2b$05$"},
		"secret": {prefix: "second-password"},
	} {
		if form.module != "" && !slices.Contains(s.Schemes, form.module) {
			continue
		}
		for _, strategy := range ldap.Kind().Strategies {
			keepsForm(t, s, strategy, value, form.prefix)
		}
	}
	// The server makes these itself.
	for module, scheme := range map[string]string{"argon2": "{ARGON2}", "pw-pbkdf2": "{PBKDF2-SHA256}"} {
		if !slices.Contains(s.Schemes, module) {
			t.Logf("the server has no module %s", module)
			continue
		}
		stored := s.Hash(t, module, scheme, "secret")
		withoutKey := stored[:strings.LastIndex(stored, "$")]
		keepsForm(t, s, target.Overlap, stored, stored[:strings.LastIndex(withoutKey, "$")+1])
	}
}

const bcryptSalt = "aaaaaaaaaaaaaaaaaaaaa."

// cryptBy is the hash of "secret" by crypt(3) of this machine.
func cryptBy(t *testing.T, setting string) string {
	t.Helper()
	cmd := exec.Command("perl", "-e", `chomp(my $s = <STDIN>); print crypt("secret", $s)`)
	cmd.Stdin = strings.NewReader(setting + "\n")
	out, err := cmd.Output()
	if err != nil || len(out) < 20 {
		t.Skipf("crypt(3) of this machine makes no %s: %v", setting, err)
	}
	return string(out)
}

func keepsForm(t *testing.T, s *servers.LDAP, strategy target.Strategy, value, prefix string) {
	t.Helper()
	old := account(t, s, s.Base)
	old.Secret = sensitive.New("secret")
	s.Modify(t, old.Account, "userPassword", value)
	login(s).Works(t, prefix+": before", old, true)
	tt := open(t, plain(s.Addr), admin(s))
	c := change(strategy, old, "second-password")
	for range 2 {
		targettest.Must(t, tt.Apply(targettest.Within(t), c))
	}
	login(s).Works(t, prefix+": new", c.New, true)
	if strategy == target.Overlap {
		login(s).Works(t, prefix+": old", c.Old, true)
		targettest.Must(t, tt.Retire(targettest.Within(t), c))
	}
	login(s).Works(t, prefix+": old, at the end", c.Old, false)
	login(s).Works(t, prefix+": new, at the end", c.New, true)
	values := s.Values(t, old.Account, "userPassword")
	sameLength := strings.HasPrefix(value, prefix) && !strings.Contains(value, "$6$") && !strings.Contains(value, "$5$")
	if len(values) != 1 || !strings.HasPrefix(values[0], prefix) || sameLength && len(values[0]) != len(value) ||
		prefix == "{CRYPT}$6$" && strings.Contains(values[0], "rounds") {
		t.Errorf("%s, %s: %d values, of another form", prefix, strategy, len(values))
	}
	seen, err := tt.(target.Inspector).Inspect(targettest.Within(t), []target.Credential{c.New, c.Old})
	if err != nil || seen[0] != target.Live || seen[1] != target.Dead {
		t.Errorf("%s: Inspect = %v, %v", prefix, seen, err)
	}
}

// TestCopies verifies that a server which learns of changes later decides nothing about a password.
func TestCopies(t *testing.T) {
	t.Parallel()
	s := servers.StartLDAP(t)
	other := servers.StartLDAP(t)
	old := account(t, s, s.Base)
	uid, _, _ := strings.Cut(strings.TrimPrefix(old.Account, "uid="), ",")
	other.Add(t, old.Account, map[string][]string{
		"objectClass":  {"account", "simpleSecurityObject"},
		"uid":          {uid},
		"userPassword": {old.Secret.Reveal()},
	})
	verify := fmt.Sprintf(`"verify":[{"address":%q,"role":"replica","lag":"3s"}]`, other.Addr)
	tt := open(t, plain(s.Addr, verify), admin(s))
	copies := tt.(target.Copied)
	if copies.Lag() != 3*time.Second {
		t.Errorf("lag %v", copies.Lag())
	}
	c := change(target.Overlap, old, "second-password")
	targettest.Must(t, tt.Apply(targettest.Within(t), c))
	targettest.Must(t, tt.Verify(targettest.Within(t), c.New))
	targettest.Expect(t, copies.VerifyCopies(targettest.Within(t), c.New), target.Rejected, other.Addr)
	other.Modify(t, old.Account, "userPassword", c.New.Secret.Reveal())
	targettest.Must(t, copies.VerifyCopies(targettest.Within(t), c.New))
	// A real one learns of a change within its lag.
	tt = open(t, plain(s.Addr, fmt.Sprintf(`"verify":[{"address":%q,"role":"replica"}]`, s.Replica(t))), admin(s))
	copies = tt.(target.Copied)
	next := change(target.Overlap, c.New, "third-password")
	targettest.Must(t, tt.Apply(targettest.Within(t), next))
	ctx, cancel := context.WithTimeout(t.Context(), tt.(target.Copied).Lag())
	defer cancel()
	err := copies.VerifyCopies(ctx, next.New)
	for err != nil && ctx.Err() == nil {
		err = copies.VerifyCopies(ctx, next.New)
	}
	targettest.Must(t, err)
	// An application that uses one of the addresses is followed.
	narrow, err := ldap.Kind().Open(target.Settings{
		Config: []byte(plain(s.Addr, fmt.Sprintf(`"verify":[%q]`, other.Addr))), Admin: admin(s),
		Login: target.Login{Endpoints: []string{other.Addr}},
	})
	targettest.Must(t, err)
	targettest.Expect(t, narrow.Verify(targettest.Within(t), c.Old), target.Rejected, other.Addr)
	targettest.Must(t, narrow.Verify(targettest.Within(t), c.New))
}
