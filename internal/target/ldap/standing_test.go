package ldap_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/ldap"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
)

// standing tells the suite about the entries of a server whose administrator is
// cn=keyturn,dc=example,dc=org.
func standing(s *servers.LDAP) *targettest.Standing {
	return &targettest.Standing{
		Spellings: adminSpellings,
		Others: []string{
			"cn=keyturn,dc=example,dc=com", "cn=keyturn,ou=people,dc=example,dc=org", "cn=key turn,dc=example,dc=org",
			"uid=keyturn,dc=example,dc=org", `cn=keyturn\,dc=example,dc=org`, "keyturn", "",
		},
		Privileged: func(t *testing.T) string { return named(t, s, "Manager").Account },
		Trace: func(t *testing.T, account string) string {
			return fmt.Sprint(s.Values(t, account, "userPassword"), s.Values(t, account, "entryCSN"))
		},
	}
}

// adminSpellings are names that slapd takes for the administrator's.
var adminSpellings = []string{
	"CN=KEYTURN,DC=Example,DC=ORG",
	"cn = keyturn , dc = example , dc = org",
	"cn=  keyturn  ,dc=example,dc=org",
	"commonName=keyturn,domainComponent=example,dc=org",
	"2.5.4.3=keyturn,0.9.2342.19200300.100.1.25=example,dc=org",
	`cn=\6b\65yturn,dc=example,dc=org`,
	`cn=keyturn;dc=example;dc=org`,
	"cn=\uff4beyturn,dc=example,dc=org",
}

// named makes an entry with a name, below an organizational unit of its own.
func named(t *testing.T, s *servers.LDAP, name string) target.Credential {
	t.Helper()
	unit := fmt.Sprintf("ou=unit%d,%s", accounts.Add(1), s.Base)
	s.Add(t, unit, map[string][]string{"objectClass": {"organizationalUnit"}})
	c := target.Credential{Account: "cn=" + name + "," + unit, Secret: sensitive.New("first-password")}
	s.Add(t, c.Account, map[string][]string{
		"objectClass":  {"organizationalRole", "simpleSecurityObject"},
		"userPassword": {c.Secret.Reveal()},
	})
	return c
}

func judge(t *testing.T, config string, s *servers.LDAP, account string) target.Standing {
	t.Helper()
	got, err := open(t, config, admin(s)).(target.Guarded).Standing(targettest.Within(t), account)
	if err != nil {
		t.Fatalf("%q: %v", account, err)
	}
	return got
}

// testStanding verifies which entries are privileged.
func testStanding(t *testing.T, s *servers.LDAP) {
	member, other := account(t, s, s.Base), account(t, s, s.Base)
	for group, of := range map[string]string{"Domain  Admins": member.Account, "admins of nothing": other.Account} {
		s.Add(t, "cn="+group+","+s.Base, map[string][]string{"objectClass": {"groupOfNames"}, "member": {of}})
	}
	for dn, want := range map[string]string{
		named(t, s, "ADMIN").Account:                    "has a name",
		named(t, s, "Directory Manager").Account:        "has a name",
		named(t, s, "replication  manager").Account:     "has a name",
		named(t, s, "administration").Account:           "",
		named(t, s, "rooter").Account:                   "",
		"cn=root,dc=example,dc=org":                     "has a name", // without an entry
		"commonName=\uff32oot,dc=example,dc=org":        "has a name",
		"uid=chief,dc=other,dc=org":                     "by its configuration", // without an entry
		"userid = CHIEF , dc=other , dc=org":            "by its configuration",
		"uid=chief,dc=example,dc=org":                   "",
		"cn=config":                                     "belongs to the directory's configuration",
		"CN=anything, CN=Config":                        "belongs to the directory's configuration",
		"ou=admin+cn=x,dc=example,dc=org":               "has a name",
		"cn=admin2,ou=admin,dc=example,dc=org":          "",
		member.Account:                                  "is a member of a group",
		strings.ToUpper(member.Account):                 "is a member of a group",
		other.Account:                                   "",
		"uid=nobody-at-all,ou=people,dc=nowhere,dc=net": "",
		"uid=nobody-at-all,ou=people,dc=example,dc=org": "",
		"not a DN": "",
	} {
		got := judge(t, plain(s.Addr), s, dn)
		if (got.Privileged == "") != (want == "") || !strings.Contains(got.Privileged, want) {
			t.Errorf("%q: %+v, want %q", dn, got, want)
		}
	}
	// An administrator who may not read the configuration still gets an answer: it is by names.
	writer := target.Credential{Account: s.WriterDN, Secret: sensitive.New(s.Password)}
	got, err := open(t, plain(s.Addr), writer).(target.Guarded).Standing(
		targettest.Within(t),
		"cn=root,dc=example,dc=org",
	)
	if err != nil || got.Privileged == "" {
		t.Errorf("as another administrator: %+v, %v", got, err)
	}
}

// testStandingOfAdmin verifies that the administrator is found by each way from an account to a DN,
// under each spelling with which the server lets it in.
func testStandingOfAdmin(t *testing.T, s *servers.LDAP) {
	for _, dn := range adminSpellings {
		c := target.Credential{Account: dn, Secret: sensitive.New(s.Password)}
		login(s).Works(t, "a spelling of the administrator", c, true)
	}
	template := plain(s.Addr, `"user_dn_template":"commonName={account},dc=example,dc=org"`)
	search := plain(s.Addr, `"base":"dc=example,dc=org","filter":"(cn={account})"`)
	for _, config := range []string{template, search} {
		for name, want := range map[string]bool{
			"keyturn":         true,
			" KeyTurn  ":      true,
			"\uff4beyturn":    true,
			"keyturn2":        false,
			"writer":          false,
			"no such account": false,
		} {
			if got := judge(t, config, s, name); got.Administrator != want {
				t.Errorf("%s: %q: %+v, want the administrator: %v", config, name, got, want)
			}
		}
	}
	if got := judge(t, search, s, s.AdminDN); !got.Administrator {
		t.Errorf("the administrator's DN where accounts are searched for: %+v", got)
	}
	if got := judge(t, template, s, "root"); got.Privileged == "" {
		t.Errorf("a manager by a template: %+v", got)
	}
	ambiguous := plain(s.Addr, `"base":"dc=example,dc=org","filter":"(|(cn={account})(cn=keyturn))"`)
	_, err := open(t, ambiguous, admin(s)).(target.Guarded).Standing(targettest.Within(t), "writer")
	targettest.Expect(t, err, target.Denied, "more than one entry")
	if _, err := ldap.Kind().Open(target.Settings{Config: []byte(plain(s.Addr))}); err == nil {
		t.Error("a target without an administrator is opened")
	}
}

// testStandingAndPolicy verifies that the password policy counts no failed login.
func testStandingAndPolicy(t *testing.T, s *servers.LDAP) {
	c := account(t, s, s.PolicyBase)
	judge(t, plain(s.Addr), s, c.Account)
	if failures := s.Values(t, c.Account, "pwdFailureTime"); len(failures) != 0 {
		t.Errorf("%d failed logins are counted", len(failures))
	}
}
