package ldap_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	driver "github.com/go-ldap/ldap/v3"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/ldap"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
)

// found returns what a check finds for a strategy: the verdict and the code of each finding.
func found(t *testing.T, tt target.Target, c target.Credential, strategy target.Strategy) (codes []string) {
	t.Helper()
	for _, f := range targettest.Findings(t, tt, target.CheckRequest{
		Current: c, Strategies: []target.Strategy{strategy},
	}) {
		if len(f.Strategies) == 0 || slices.Contains(f.Strategies, strategy) {
			code := string(f.Verdict) + " " + f.Code
			if f.Outlasts {
				code += " outlasts"
			}
			codes = append(codes, code)
		}
	}
	slices.Sort(codes)
	return codes
}

func expectFound(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: the check finds %q, want %q", what, got, want)
	}
}

// testCheckValues verifies what a check finds about stored values.
func testCheckValues(t *testing.T, s *servers.LDAP) {
	const ssha = "{SSHA}ZvXM0Y2pMH6XvTdn4rPs9Vv0PTJzYWx0"
	const current = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=" // of "secret"
	for _, tc := range []struct {
		what, config    string
		values          []string
		overlap, single []string
	}{
		{"a scheme that is kept", "", []string{current}, nil, nil},
		{"a further value", "", []string{current, ssha},
			[]string{"note further-values outlasts"}, []string{"needs-consent further-values"}},
		{"another system", "", []string{"{SASL}app@EXAMPLE.ORG"}, []string{"impossible password-elsewhere"},
			[]string{"impossible password-elsewhere"}},
		{"an unknown scheme", "", []string{"{PBKDF2_SHA256}AAAnEA=="},
			[]string{"impossible value-not-compared", "needs-consent hash-changes"}, []string{"needs-consent hash-changes"}},
		{"a scheme of the target", `"scheme":"ssha"`, []string{current},
			[]string{"note hash-changes"}, []string{"note hash-changes"}},
		{"the server's scheme", `"scheme":"server"`, []string{current}, []string{"impossible scheme-server"}, nil},
	} {
		c := account(t, s, s.Base)
		c.Secret = sensitive.New("secret")
		s.Modify(t, c.Account, "userPassword", tc.values...)
		more := slices.DeleteFunc([]string{tc.config}, func(m string) bool { return m == "" })
		tt := open(t, plain(s.Addr, more...), admin(s))
		expectFound(t, tc.what, found(t, tt, c, target.Overlap), tc.overlap...)
		expectFound(t, tc.what, found(t, tt, c, target.Single), tc.single...)
		if got := s.Values(t, c.Account, "userPassword"); len(got) != len(tc.values) {
			t.Errorf("%s: the check has changed the entry", tc.what)
		}
	}
	graced := account(t, s, s.Base)
	graced.Secret = sensitive.New("secret")
	s.Modify(t, graced.Account, "userPassword", current, "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=") // of "password"
	list := targettest.Findings(t, open(t, plain(s.Addr), admin(s)), target.CheckRequest{
		Current: graced, Previous: target.Credential{Account: graced.Account, Secret: sensitive.New("password")},
	})
	if slices.ContainsFunc(list, func(f target.Finding) bool { return f.Code == "further-values" }) {
		t.Errorf("in a grace period: %+v", list)
	}
	c := account(t, s, s.Base)
	s.Modify(t, c.Account, "userPassword", "{PBKDF2_SHA256}AAAnEA==")
	uid, _, _ := strings.Cut(strings.TrimPrefix(c.Account, "uid="), ",")
	for _, config := range []string{
		`"user_dn_template":"uid={account},` + s.Base + `"`, `"base":"dc=example,dc=org","filter":"(uid={account})"`,
	} {
		for _, f := range targettest.Findings(t, open(t, plain(s.Addr, config), admin(s)), target.CheckRequest{
			Current: target.Credential{Account: uid, Secret: c.Secret}, Strategies: []target.Strategy{target.Overlap},
		}) {
			if f.Account != c.Account || !f.InUse {
				t.Errorf("%s: %s about %q says that it is in use: %v", config, f.Code, f.Account, f.InUse)
			}
		}
	}
	c = account(t, s, s.Base)
	writer := open(t, plain(s.Addr), target.Credential{Account: s.WriterDN, Secret: sensitive.New(s.Password)})
	expectFound(t, "unreadable values", found(t, writer, c, target.Overlap),
		"impossible values-not-read", "needs-consent policy-not-read")
	expectFound(t, "unreadable values", found(t, writer, c, target.Single),
		"needs-consent further-values", "needs-consent hash-changes", "needs-consent policy-not-read")
}

// TestCheckSASL verifies that a password in clear is left alone where other logins than simple
// binds need it.
func TestCheckSASL(t *testing.T) {
	t.Parallel()
	for i, s := range []*servers.LDAP{servers.StartLDAP(t), servers.StartLDAPWithSASL(t)} {
		conn, err := s.Bind(t.Context(), s.AdminDN, s.Password)
		targettest.Must(t, err)
		defer conn.Close()
		dse, err := conn.Search(driver.NewSearchRequest("", driver.ScopeBaseObject, driver.NeverDerefAliases, 1, 5, false,
			"(objectClass=*)", []string{"supportedSASLMechanisms"}, nil))
		targettest.Must(t, err)
		want := "note hash-changes"
		if i == 1 && slices.Contains(dse.Entries[0].GetAttributeValues("supportedSASLMechanisms"), "DIGEST-MD5") {
			want = "needs-consent hash-changes"
		}
		c := account(t, s, s.Base)
		expectFound(t, "a password in clear", found(t, open(t, plain(s.Addr), admin(s)), c, target.Overlap),
			"note stored-in-clear")
		expectFound(t, "a scheme of the target",
			found(t, open(t, plain(s.Addr, `"scheme":"ssha"`), admin(s)), c, target.Overlap), want)
		blind := open(t, plain(s.Addr, `"scheme":"ssha"`), target.Credential{
			Account: s.WriterDN, Secret: sensitive.New(s.Password),
		})
		got := found(t, blind, c, target.Single)
		if slices.Contains(got, "needs-consent hash-changes") != (want == "needs-consent hash-changes") {
			t.Errorf("a password that the administrator cannot read: the check finds %q, with clear text %q", got, want)
		}
		consents, err := ldap.Kind().Open(target.Settings{
			Config: []byte(plain(s.Addr)), Admin: admin(s), Consent: []string{"hash-changes"},
		})
		targettest.Must(t, err)
		expectFound(t, "with consent", found(t, consents, c, target.Overlap), "note hash-changes")
		hashed := change(target.Overlap, c, "second-password")
		targettest.Must(t, consents.Apply(targettest.Within(t), hashed))
		targettest.Must(t, consents.Verify(targettest.Within(t), hashed.New))
		if slices.Contains(s.Values(t, c.Account, "userPassword"), "second-password") {
			t.Error("with the consent hash-changes a password is stored in clear")
		}
	}
}

// testCheckEntries verifies what a check finds about entries.
func testCheckEntries(t *testing.T, s *servers.LDAP) {
	tt := open(t, plain(s.Addr), admin(s))
	c := account(t, s, s.Base)
	missing := target.Credential{Account: "uid=missing," + s.Base, Secret: c.Secret}
	expectFound(t, "no entry", found(t, tt, missing, target.Overlap), "impossible no-entry")
	if list := targettest.Findings(t, tt, target.CheckRequest{Current: missing}); !list[0].Missing {
		t.Errorf("an account without an entry is not probed: %+v", list)
	}
	alias := target.Credential{Account: "uid=alias-of-it," + s.Base, Secret: c.Secret}
	s.Add(t, alias.Account, map[string][]string{
		"objectClass": {"alias", "extensibleObject"}, "uid": {"alias-of-it"}, "aliasedObjectName": {c.Account},
	})
	login(s).Works(t, "an alias", alias, false)
	expectFound(t, "an alias", found(t, tt, alias, target.Overlap), "impossible alias")
	wide := `"base":"dc=example,dc=org","filter":"(|(cn=reader)(cn=writer)(uid={account}))"`
	several := target.Credential{Account: "x", Secret: c.Secret}
	expectFound(t, "several entries", found(t, open(t, plain(s.Addr, wide), admin(s)), several, target.Overlap),
		"impossible no-entry")
	for _, strategy := range ldap.Kind().Strategies {
		if window := tt.(target.Windower).Window(strategy); !strings.HasSuffix(window, ".") {
			t.Errorf("the window of %s is %q", strategy, window)
		}
	}
	targettest.Must(t, tt.(target.Tester).Test(targettest.Within(t)))
	search := open(t, plain(s.Addr, `"base":"ou=nowhere,dc=example,dc=org","filter":"(uid={account})"`), admin(s))
	targettest.Expect(t, search.(target.Tester).Test(targettest.Within(t)), target.Denied, "ou=nowhere")
	byTemplate := open(t, plain(s.Addr, `"user_dn_template":"uid={account},`+s.Base+`"`), admin(s))
	targettest.Must(t, byTemplate.(target.Tester).Test(targettest.Within(t)))
}

// testCheckPolicies verifies that a check finds the policies under which a rotation would put an
// application out of work, and no other.
func testCheckPolicies(t *testing.T, s *servers.LDAP) {
	for _, tc := range []struct {
		attribute, value string
		want             string // besides that there is one value only
		works            bool   // what happens without the check
	}{
		{"pwdInHistory", "3", "", true},
		{"pwdMustChange", "TRUE", "needs-consent policy-must-change", true},
		{"pwdSafeModify", "TRUE", "impossible policy-safe-modify", false},
		{"pwdCheckQuality", "2", "impossible policy-no-hashes", false},
		{"pwdMaxAge", "86400", "note password-expires", true},
		{"pwdMinAge", "86400", "needs-consent password-too-young", true},
	} {
		policy := fmt.Sprintf("cn=policy%d,dc=policy,dc=org", accounts.Add(1))
		s.Add(t, policy, map[string][]string{
			"objectClass": {"device", "pwdPolicy"}, "pwdAttribute": {"userPassword"}, tc.attribute: {tc.value},
		})
		c := account(t, s, s.PolicyBase)
		s.Modify(t, c.Account, "pwdPolicySubentry", policy)
		tt := open(t, plain(s.Addr), admin(s))
		var want []string
		if tc.want != "" {
			want = []string{tc.want}
		}
		expectFound(t, tc.attribute, found(t, tt, c, target.Single), want...)
		want = slices.Sorted(slices.Values(append(want, "impossible one-value")))
		expectFound(t, tc.attribute, found(t, tt, c, target.Overlap), want...)
		done := change(target.Single, c, "second-password")
		err := tt.Apply(targettest.Within(t), done)
		if err == nil {
			err = tt.Verify(targettest.Within(t), done.New)
		}
		if (err == nil) != tc.works {
			t.Errorf("%s: a rotation without the check ends with %v", tc.attribute, err)
		}
		if tc.attribute == "pwdMinAge" {
			expectFound(t, "after a change", found(t, tt, done.New, target.Single), "impossible password-too-young")
			next := change(target.Single, done.New, "third-password")
			targettest.Expect(t, tt.Apply(targettest.Within(t), next), target.Denied, "too young")
		}
		if tc.attribute == "pwdMustChange" {
			dn, password := s.Root()
			tt = open(t, plain(s.Addr), target.Credential{Account: dn, Secret: sensitive.New(password)})
			expectFound(t, "as a manager", found(t, tt, done.New, target.Single), "impossible policy-must-change")
			next := change(target.Single, done.New, "third-password")
			targettest.Must(t, tt.Apply(targettest.Within(t), next))
			targettest.Expect(t, tt.Verify(targettest.Within(t), next.New), target.Admitted, "changed first")
		}
	}
	tt := open(t, plain(s.Addr), admin(s))
	hidden := account(t, s, s.PolicyBase)
	s.Modify(t, hidden.Account, "pwdPolicySubentry", "cn=hidden,dc=policy,dc=org")
	expectFound(t, "a policy that is not shown", found(t, tt, hidden, target.Single), "needs-consent policy-not-read")
	locked, reset := account(t, s, s.PolicyBase), account(t, s, s.PolicyBase)
	s.Modify(t, locked.Account, "pwdAccountLockedTime", "20200101000000Z")
	expectFound(t, "locked", found(t, tt, locked, target.Single), "impossible account-locked")
	if list := targettest.Findings(t, tt, target.CheckRequest{Current: locked}); !list[0].Closed {
		t.Errorf("a locked account counts as one that can log in: %+v", list)
	}
	s.Modify(t, reset.Account, "pwdReset", "TRUE")
	expectFound(t, "reset", found(t, tt, reset, target.Single), "impossible must-change")
}
