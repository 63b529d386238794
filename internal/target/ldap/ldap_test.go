package ldap_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	driver "github.com/go-ldap/ldap/v3"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/ldap"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
)

var accounts atomic.Int64

// account makes an entry below a base with one password.
func account(t *testing.T, s *servers.LDAP, base string) target.Credential {
	t.Helper()
	uid := fmt.Sprintf("app%d", accounts.Add(1))
	c := target.Credential{Account: "uid=" + uid + "," + base, Secret: sensitive.New("first-password-of-" + uid)}
	s.Add(
		t,
		c.Account,
		map[string][]string{
			"objectClass":  {"account", "simpleSecurityObject"},
			"uid":          {uid},
			"userPassword": {c.Secret.Reveal()},
		},
	)
	return c
}

// login tries a password without the code under test.
func login(s *servers.LDAP) targettest.Login {
	return func(ctx context.Context, c target.Credential) (bool, error) {
		conn, err := s.Bind(ctx, c.Account, c.Secret.Reveal())
		if driver.IsErrorAnyOf(err, driver.LDAPResultInvalidCredentials) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		return true, conn.Close()
	}
}

func admin(s *servers.LDAP) target.Credential {
	return target.Credential{Account: s.AdminDN, Secret: sensitive.New(s.Password)}
}

// plain is a configuration without TLS and with further members.
func plain(addr string, more ...string) string {
	return fmt.Sprintf(`{"address":%q,"tls":{"off":true}%s}`, addr, strings.Join(append([]string{""}, more...), ","))
}

func open(t *testing.T, config string, admin target.Credential) target.Target {
	t.Helper()
	return targettest.Open(t, ldap.Kind(), config, admin)
}

func change(strategy target.Strategy, old target.Credential, to string) target.Change {
	return target.Change{
		ID:       fmt.Sprintf("c%d", accounts.Add(1)),
		Strategy: strategy,
		Old:      old,
		New:      target.Credential{Account: old.Account, Secret: sensitive.New(to)},
	}
}

func TestLDAP(t *testing.T) {
	t.Parallel()
	s := servers.StartLDAP(t)
	t.Run("conformance", func(t *testing.T) {
		t.Parallel()
		targettest.Run(t, targettest.Harness{
			Kind: ldap.Kind(), Addr: s.Addr, Config: func(addr string) string { return plain(addr) }, Admin: admin(s),
			Account: func(t *testing.T) target.Credential { return account(t, s, s.Base) },
			Login:   login(s),
			Session: func(t *testing.T, c target.Credential) func() error {
				conn, err := s.Bind(t.Context(), c.Account, c.Secret.Reveal())
				targettest.Must(t, err)
				return func() error { defer conn.Close(); _, err := conn.WhoAmI(nil); return err }
			},
			Standing: standing(s),
		})
	})
	for name, f := range map[string]func(*testing.T, *servers.LDAP){
		"TLS": testTLS, "odd characters": testOddCharacters, "schemes": testSchemes, "stored schemes": testStoredSchemes,
		"lookup": testLookup, "administrators": testAdministrators,
		"check of values": testCheckValues, "check of entries": testCheckEntries, "check of policies": testCheckPolicies,
		"foreign names": testForeignNames,
		"others stay":   testOthersStay, "policy": testPolicy,
		"lock-out": testLockOut, "server hashes": testServerHashes, "missing accounts": testMissingAccounts, "empty password": testEmptyPassword,
		"standing": testStanding, "standing of administrators": testStandingOfAdmin, "standing leaves no failed login": testStandingAndPolicy,
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); f(t, s) })
	}
}

func testTLS(t *testing.T, s *servers.LDAP) {
	c := change(target.Overlap, account(t, s, s.Base), "second-password")
	config := func(addr string, starttls bool, ca, name string) string {
		b, err := json.Marshal(
			map[string]any{
				"address":  addr,
				"starttls": starttls,
				"tls":      map[string]string{"ca": ca, "server_name": name},
			},
		)
		targettest.Must(t, err)
		return string(b)
	}
	for _, good := range []string{config(s.TLSAddr, false, s.Authority.CA, ""), config(s.Addr, true, s.Authority.CA, "localhost")} {
		tt := open(t, good, admin(s))
		targettest.Must(t, tt.Apply(targettest.Within(t), c))
		targettest.Must(t, tt.Verify(targettest.Within(t), c.New))
	}
	for what, bad := range map[string]string{
		"a wrong name":                       config(s.TLSAddr, false, s.Authority.CA, "other.example"),
		"an unknown authority":               config(s.TLSAddr, false, "", ""),
		"a wrong name, StartTLS":             config(s.Addr, true, s.Authority.CA, "other.example"),
		"an unknown authority, StartTLS":     config(s.Addr, true, "", ""),
		"TLS at a port that speaks plain":    config(s.Addr, false, s.Authority.CA, ""),
		"StartTLS at a port that speaks TLS": config(s.TLSAddr, true, s.Authority.CA, ""),
	} {
		tt := open(t, bad, admin(s))
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		for call, err := range map[string]error{"Apply": tt.Apply(ctx, c), "Verify": tt.Verify(ctx, c.New)} {
			if target.ClassOf(err) != target.Unreachable {
				t.Errorf("%s: %s: %v of class %v, want unreachable", what, call, err, target.ClassOf(err))
			}
		}
	}
}

func testOddCharacters(t *testing.T, s *servers.LDAP) {
	tt := open(t, plain(s.Addr), admin(s))
	old := account(t, s, s.Base)
	for _, password := range []string{
		"space and\ttab", `quote " ' \ back`, "line\nend\r\n", "{", "*)(uid=*", "pässwörd ☃", "\xff",
	} {
		c := change(target.Overlap, old, password)
		targettest.Must(t, tt.Apply(targettest.Within(t), c))
		login(s).Works(t, "new", c.New, true)
		targettest.Must(t, tt.Retire(targettest.Within(t), c))
		login(s).Works(t, "new, after Retire", c.New, true)
		login(s).Works(t, "old", c.Old, false)
		old = c.New
	}
	for _, password := range []string{"zero\x00byte", "{CRYPT}$6$x"} {
		err := tt.Apply(targettest.Within(t), change(target.Overlap, old, password))
		targettest.Expect(t, err, target.Refused, "zero byte", "{…}")
	}
	byHash := open(t, plain(s.Addr, `"scheme":"crypt"`), admin(s))
	err := byHash.Apply(targettest.Within(t), change(target.Overlap, old, "zero\x00byte"))
	targettest.Expect(t, err, target.Refused, "zero byte")
	c := change(target.Overlap, old, "{CRYPT}$6$x")
	targettest.Must(t, byHash.Apply(targettest.Within(t), c))
	login(s).Works(t, "a password that looks like a hash", c.New, true)
	login(s).Works(t, "after a refusal", old, true)
}

// testSchemes verifies that slapd without further modules takes what is stored.
func testSchemes(t *testing.T, s *servers.LDAP) {
	for scheme, prefix := range map[string]string{"": "second-password", "crypt": "{CRYPT}$6$", "ssha": "{SSHA}"} {
		for _, strategy := range ldap.Kind().Strategies {
			c := change(strategy, account(t, s, s.Base), "second-password")
			tt := open(t, plain(s.Addr, fmt.Sprintf(`"scheme":%q`, scheme)), admin(s))
			for range 2 {
				targettest.Must(t, tt.Apply(targettest.Within(t), c))
			}
			login(s).Works(t, scheme, c.New, true)
			values := s.Values(t, c.New.Account, "userPassword")
			if n := len(slices.DeleteFunc(slices.Clone(values), func(v string) bool { return !strings.HasPrefix(v, prefix) })); n != 1 {
				t.Errorf(
					"scheme %q, %s: %d of %d values begin with %s, want 1",
					scheme,
					strategy,
					n,
					len(values),
					prefix,
				)
			}
		}
	}
}

// testStoredSchemes holds that a password is recognised in a value that something else has stored,
// and not taken away where it cannot be told.
func testStoredSchemes(t *testing.T, s *servers.LDAP) {
	// All of the password "secret".
	for value, want := range map[string]target.Liveness{
		"secret":                              target.Live,
		"{CLEARTEXT}secret":                   target.NotKnown,
		"{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=":   target.Live,
		"{SSHA256}" + strings.Repeat("A", 48): target.Dead,
		"{MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==":       target.Live,
		"{crypt}$6$saltsalt$" + cryptOfSecret: target.Live,
		"{CRYPT}$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7": target.NotKnown,
		"{PBKDF2-SHA512}10000$c2FsdHNhbHQ$aGFzaA":                                          target.Dead,
		"{PBKDF2_SHA256}AAAnEA==":                                                          target.NotKnown,
		"{SASL}app@EXAMPLE.ORG":                                                            target.NotKnown,
		"{SHA}not base 64":                                                                 target.NotKnown,
	} {
		old := account(t, s, s.Base)
		old.Secret = sensitive.New("secret")
		s.Modify(t, old.Account, "userPassword", value)
		tt := open(t, plain(s.Addr), admin(s))
		seen, err := tt.(target.Inspector).Inspect(targettest.Within(t), []target.Credential{old})
		if err != nil || seen[0] != want {
			t.Errorf("%s: Inspect = %v, %v; want %v", value, seen, err, want)
		}
		c := change(target.Overlap, old, "second-password")
		if want == target.NotKnown {
			targettest.Expect(t, tt.Apply(targettest.Within(t), c), target.Denied, "is stored", "hash-changes")
			tt = open(t, plain(s.Addr, `"scheme":"crypt"`), admin(s))
		}
		targettest.Must(t, tt.Apply(targettest.Within(t), c))
		err = tt.Retire(targettest.Within(t), c)
		left := len(s.Values(t, old.Account, "userPassword"))
		switch want {
		case target.Live:
			if err != nil || left != 1 {
				t.Errorf("%s: Retire: %v, %d values are left", value, err, left)
			}
		case target.NotKnown:
			targettest.Expect(t, err, target.Denied, "cannot be compared", "{")
			if left != 2 {
				t.Errorf("%s: %d values are left of 2", value, left)
			}
		}
	}
}

const cryptOfSecret = "TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1"

func testLookup(t *testing.T, s *servers.LDAP) {
	dn := account(t, s, s.Base)
	uid, _, _ := strings.Cut(strings.TrimPrefix(dn.Account, "uid="), ",")
	for _, more := range []string{
		fmt.Sprintf(`"user_dn_template":"uid={account},%s"`, s.Base),
		`"base":"dc=example,dc=org","filter":"(&(objectClass=account)(uid={account}))"`,
	} {
		c := change(target.Overlap, target.Credential{Account: uid, Secret: dn.Secret}, "second-password")
		tt := open(t, plain(s.Addr, more), admin(s))
		targettest.Must(t, tt.Apply(targettest.Within(t), c))
		targettest.Must(t, tt.Verify(targettest.Within(t), c.New))
		login(s).Works(t, more, target.Credential{Account: dn.Account, Secret: c.New.Secret}, true)
		targettest.Must(
			t,
			tt.Retire(targettest.Within(t), target.Change{ID: c.ID, Strategy: c.Strategy, Old: c.New, New: c.Old}),
		)
		for _, odd := range []string{"*", uid + ",ou=other", "x)(uid=" + uid, ""} {
			c.New.Account = odd
			targettest.Expect(t, tt.Apply(targettest.Within(t), c), target.Denied)
			targettest.Expect(t, tt.Verify(targettest.Within(t), c.New), target.Rejected)
		}
	}
	tt := open(
		t,
		plain(s.Addr, `"base":"dc=example,dc=org","filter":"(|(cn=reader)(cn=writer)(uid={account}))"`),
		admin(s),
	)
	targettest.Expect(
		t,
		tt.Apply(
			targettest.Within(t),
			change(target.Overlap, target.Credential{Account: uid, Secret: dn.Secret}, "second-password"),
		),
		target.Denied,
		"more than one entry",
	)
}

func testAdministrators(t *testing.T, s *servers.LDAP) {
	old := account(t, s, s.Base)
	reader := open(t, plain(s.Addr), target.Credential{Account: s.ReaderDN, Secret: sensitive.New(s.Password)})
	targettest.Expect(
		t,
		open(t, plain(s.Addr, `"scheme":"crypt"`), target.Credential{Account: s.ReaderDN, Secret: sensitive.New(s.Password)}).
			Apply(targettest.Within(t), change(target.Single, old, "second-password")),
		target.Denied,
		"Insufficient Access Rights",
		"(50)",
	)
	targettest.Expect(
		t,
		reader.Apply(targettest.Within(t), change(target.Overlap, old, "second-password")),
		target.Denied,
		"can read",
	)
	targettest.Expect(
		t,
		reader.Retire(targettest.Within(t), change(target.Overlap, old, "second-password")),
		target.Denied,
		"can read",
	)
	writer := open(t, plain(s.Addr), target.Credential{Account: s.WriterDN, Secret: sensitive.New(s.Password)})
	targettest.Expect(
		t,
		writer.Apply(targettest.Within(t), change(target.Overlap, old, "second-password")),
		target.Denied,
		"can read",
		"single",
	)
	c := change(target.Single, old, "second-password")
	targettest.Expect(t, writer.Apply(targettest.Within(t), c), target.Denied, "cannot read", "scheme")
	withScheme := target.Credential{Account: s.WriterDN, Secret: sensitive.New(s.Password)}
	writer = open(t, plain(s.Addr, `"scheme":"ssha"`), withScheme)
	targettest.Must(t, writer.Apply(targettest.Within(t), c))
	login(s).Works(t, "by an administrator who cannot read", c.New, true)
	login(s).Works(t, "by an administrator who cannot read", c.Old, false)
	seen, err := writer.(target.Inspector).Inspect(targettest.Within(t), []target.Credential{c.New, c.Old})
	if err != nil || seen[0] != target.NotKnown || seen[1] != target.NotKnown {
		t.Errorf("Inspect without read = %v, %v", seen, err)
	}
	wrong := open(t, plain(s.Addr), target.Credential{Account: s.AdminDN, Secret: sensitive.New("wrong-password")})
	targettest.Expect(
		t,
		wrong.Apply(targettest.Within(t), c),
		target.Denied,
		"administrator",
		"Invalid Credentials",
		"(49)",
	)
}

func testOthersStay(t *testing.T, s *servers.LDAP) {
	old := account(t, s, s.Base)
	other := target.Credential{Account: old.Account, Secret: sensitive.New("set-by-somebody-else")}
	s.Modify(t, old.Account, "userPassword", old.Secret.Reveal(), other.Secret.Reveal(), "{CRYPT}*")
	c := change(target.Overlap, old, "second-password")
	tt := open(t, plain(s.Addr), admin(s))
	targettest.Must(t, tt.Apply(targettest.Within(t), c))
	targettest.Must(t, tt.Retire(targettest.Within(t), c))
	login(s).Works(t, "after Retire, the other one", other, true)
	login(s).Works(t, "after Retire", c.Old, false)
	single := change(target.Single, c.New, "third-password")
	targettest.Must(t, tt.Apply(targettest.Within(t), single))
	login(s).Works(t, "after Single", single.New, true)
	login(s).Works(t, "after Single, the other one", other, false)
}

// testPolicy is about a server that allows one password at a time.
func testPolicy(t *testing.T, s *servers.LDAP) {
	old := account(t, s, s.PolicyBase)
	tt := open(t, plain(s.Addr), admin(s))
	targettest.Expect(
		t,
		tt.Apply(targettest.Within(t), change(target.Overlap, old, "second-password")),
		target.Denied,
		"constraint",
		"use the strategy single",
		"(19)",
	)
	login(s).Works(t, "after a refusal", old, true)
	c := change(target.Single, old, "second-password")
	targettest.Must(t, tt.Apply(targettest.Within(t), c))
	targettest.Must(t, tt.Verify(targettest.Within(t), c.New))
	login(s).Works(t, "after Single", c.Old, false)
	s.Modify(t, old.Account, "pwdPolicySubentry", s.StrictPolicy)
	targettest.Expect(
		t,
		tt.Apply(targettest.Within(t), change(target.Single, c.New, "third-password")),
		target.Denied,
		"quality",
		`scheme "server"`,
		"(19)",
	)
	login(s).Works(t, "after a refusal of a hash", c.New, true)
}

// testLockOut holds that asking after dead credentials costs no failed login, and that a lock is
// not taken for a rejection.
func testLockOut(t *testing.T, s *servers.LDAP) {
	good := account(t, s, s.PolicyBase)
	wrong := target.Credential{Account: good.Account, Secret: sensitive.New("wrong-password")}
	tt := open(t, plain(s.Addr), admin(s))
	for range 5 {
		seen, err := tt.(target.Inspector).Inspect(targettest.Within(t), []target.Credential{wrong, good})
		if err != nil || seen[0] != target.Dead || seen[1] != target.Live {
			t.Fatalf("Inspect = %v, %v", seen, err)
		}
	}
	if n := len(s.Values(t, good.Account, "pwdFailureTime")); n != 0 {
		t.Errorf("Inspect caused %d failed logins", n)
	}
	targettest.Expect(t, tt.Verify(targettest.Within(t), wrong), target.Rejected, "Invalid Credentials", "(49)")
	if n := len(s.Values(t, good.Account, "pwdFailureTime")); n != 1 {
		t.Errorf("one Verify caused %d failed logins", n)
	}
	for range 2 {
		_, err := login(s)(targettest.Within(t), wrong)
		targettest.Must(t, err)
	}
	login(s).Works(t, "locked", good, false)
	targettest.Expect(
		t,
		tt.Verify(targettest.Within(t), good),
		target.Denied,
		"locked by the password policy",
		"unlock",
	)
}

func testServerHashes(t *testing.T, s *servers.LDAP) {
	tt := open(t, plain(s.Addr, `"scheme":"server"`), admin(s))
	old := account(t, s, s.PolicyBase)
	targettest.Expect(
		t,
		tt.Apply(targettest.Within(t), change(target.Overlap, old, "second-password")),
		target.Denied,
		"single",
	)
	targettest.Expect(t, tt.Apply(targettest.Within(t), change(target.Single, old, "2short")), target.Refused, "(19)")
	login(s).Works(t, "after a refusal", old, true)
	c := change(target.Single, old, "second-password")
	for range 2 {
		targettest.Must(t, tt.Apply(targettest.Within(t), c))
	}
	login(s).Works(t, "new", c.New, true)
	login(s).Works(t, "old", c.Old, false)
	if v := s.Values(t, old.Account, "userPassword"); len(v) != 1 || !strings.HasPrefix(v[0], "{SSHA}") {
		t.Errorf("the server stores %d values, and not as it hashes itself", len(v))
	}
}

func testMissingAccounts(t *testing.T, s *servers.LDAP) {
	tt := open(t, plain(s.Addr), admin(s))
	for account, text := range map[string]string{"uid=missing," + s.Base: "no such entry", "not a dn": "is not a DN", "": "is not a DN"} {
		c := change(
			target.Overlap,
			target.Credential{Account: account, Secret: sensitive.New("some-password")},
			"second-password",
		)
		targettest.Expect(t, tt.Apply(targettest.Within(t), c), target.Denied, text)
		targettest.Expect(t, tt.Retire(targettest.Within(t), c), target.Denied, text)
		targettest.Expect(t, tt.Verify(targettest.Within(t), c.New), target.Rejected)
		seen, err := tt.(target.Inspector).Inspect(targettest.Within(t), []target.Credential{c.New})
		if err != nil || seen[0] != target.NotKnown {
			t.Errorf("Inspect of %q = %v, %v", account, seen, err)
		}
	}
}

// testEmptyPassword holds that the success of an anonymous bind is not taken for a login.
func testEmptyPassword(t *testing.T, s *servers.LDAP) {
	c := account(t, s, s.Base)
	c.Secret = sensitive.Value{}
	targettest.Expect(t, open(t, plain(s.Addr), admin(s)).Verify(targettest.Within(t), c), target.Rejected, "required")
}

// TestWindow verifies that the window of strategy single names the replicas in verify, and none for
// a target without one.
func TestWindow(t *testing.T) {
	t.Parallel()
	window := func(verify string) string {
		tt := open(t, plain("ldap1:389", verify), target.Credential{Account: "cn=admin", Secret: sensitive.New("p")})
		return tt.(target.Windower).Window(target.Single)
	}
	const alone = "One modification: a bind with the old password is refused after it."
	if got := window(`"verify":["ldap3:389"]`); got != alone {
		t.Errorf("without a replica: %q", got)
	}
	const late = " The new one is refused at replica ldap2:389 (lag 30s) until it has caught up."
	if got := window(`"verify":[{"address":"ldap2:389","role":"replica","lag":"30s"}]`); got != alone+late {
		t.Errorf("with a replica: %q", got)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for config, want := range map[string][]string{
		`{"address":"h","scheme":"md5","password_length":3,"starttls":true,"tls":{"off":true}}`: {"scheme", "password_length", "starttls"},
		`{"address":"h","base":"dc=x"}`:                                                           {"base and filter go together"},
		`{"address":"h","base":"x","filter":"uid={account}"}`:                                     {"base", "filter"},
		`{"address":"h","base":"dc=x","filter":"(uid=fixed)"}`:                                    {"{account}"},
		`{"address":"h","user_dn_template":"uid=fixed","base":"dc=x","filter":"(uid={account})"}`: {"{account}", "not both"},
		`{"address":"h","user_dn_template":"{account}"}`:                                          {"user_dn_template"},
		`{"verify":["a b"]}`: {"address is required", "a b"},
	} {
		err := ldap.Kind().Check([]byte(config))
		for _, w := range want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want %q", config, err, w)
			}
		}
	}
	if err := ldap.Kind().Check([]byte(`{"address":"h","verify":["i:1"],"user_dn_template":"uid={account},dc=x","scheme":"ssha512"}`)); err != nil {
		t.Error(err)
	}
	if _, err := ldap.Kind().Open(target.Settings{Config: []byte(`{"address":"h"}`)}); err == nil {
		t.Error("a target without an administrator is opened")
	}
}
