package postgresql_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/targettest"
)

// testStoredAsMD5 verifies that a right password that the server refuses, because it is stored as
// MD5 and pg_hba.conf asks for SCRAM, is not taken for a wrong one, and that a rotation to which
// the operator has agreed repairs it.
func testStoredAsMD5(t *testing.T, c *cluster, reader, blind target.Credential) {
	const both = `"require_auth":["scram-sha-256","md5"]`
	open := func(admin target.Credential, more string, consents ...string) target.Target {
		return c.openWith(t, target.Settings{
			Config:  []byte(c.config(c.Addr(), more)),
			Admin:   admin,
			Consent: consents,
		})
	}
	tt := open(reader, both, "form-changes")
	change := newChange(t, c, tt, target.Single)
	legacy := change.Old
	c.md5(t, &legacy)
	for _, more := range []string{both, `"require_auth":["scram-sha-256"]`} {
		err := open(reader, more).Verify(targettest.Within(t), legacy)
		targettest.Expect(t, err, target.Denied, "the password is right, but it is stored as MD5", "(28P01)")
		for _, want := range []string{"to md5", "keyturn rotation configure NAME --consent=form-changes"} {
			if !strings.Contains(target.Allowing(err), want) {
				t.Errorf("the advice: %q; want %s", target.Allowing(err), want)
			}
		}
	}
	targettest.Expect(t, open(blind, both).Verify(targettest.Within(t), legacy), target.Rejected)
	wrong := legacy
	wrong.Secret = change.New.Secret
	targettest.Expect(t, tt.Verify(targettest.Within(t), wrong), target.Rejected)
	pooler := open(reader, fmt.Sprintf(`"verify":[{"address":%q,"role":"pooler"}],"admin_address":%q`, c.Addr(), c.Addr()))
	targettest.Expect(t, pooler.Verify(targettest.Within(t), legacy), target.Rejected)
	// The proof before the change, the change, and the proof after it.
	targettest.Expect(t, tt.Verify(targettest.Within(t), legacy), target.Admitted, "as agreed")
	targettest.Must(t, tt.Apply(targettest.Within(t), change))
	targettest.Must(t, tt.Verify(targettest.Within(t), change.New))
	c.works(t, change.New, true)
	c.md5(t, &change.New)
	c.alter(t, change.New, "VALID UNTIL '2001-01-01'")
	targettest.Expect(t, tt.Verify(targettest.Within(t), change.New), target.Rejected)
}

// testPoolerByRole verifies that the role of an endpoint is not taken for what answers there.
func testPoolerByRole(t *testing.T, c *cluster, reader, _ target.Credential) {
	who := c.account(t)
	for address, want := range map[string]string{
		"127.0.0.1:1": "calls 127.0.0.1:1 a pooler, and no pooler or PostgreSQL server has answered there.",
		c.Addr():      "calls " + c.Addr() + " a pooler. ",
	} {
		config := fmt.Sprintf(`"verify":[%q,{"address":%q,"role":"pooler"}]`, "localhost:"+fmt.Sprint(c.Port), address)
		got, text := findings(t, c.open(t, c.Addr(), reader, config), target.CheckRequest{Current: who})
		if got != "pooler needs-consent" || !strings.Contains(text, want) {
			t.Errorf("%s: %s: %s; want %s", address, got, text, want)
		}
	}
}

// testRoleOfLogin verifies that the advice about a role that an account may not take lets it take
// the role.
func testRoleOfLogin(t *testing.T, c *cluster, reader, _ target.Credential) {
	who := c.account(t)
	c.exec(t, `CREATE ROLE "shop ro"; CREATE ROLE "shop rw"`)
	tt := c.openAs(t, reader, target.Login{Role: "shop ro"})
	err := tt.Verify(targettest.Within(t), who)
	targettest.Expect(t, err, target.Denied, "(42501)")
	advice := target.Allowing(err)
	if !strings.Contains(advice, "keyturn rotation configure NAME --login-role=ROLE") {
		t.Errorf("the advice: %s", advice)
	}
	c.exec(t, statementsOf(t, advice, "Run ", ". If"))
	targettest.Must(t, tt.Verify(targettest.Within(t), who))
	missing := c.openAs(t, reader, target.Login{Role: "no role"}).Verify(targettest.Within(t), who)
	if advice := target.Allowing(missing); !strings.Contains(advice, `Create role "no role" and grant it to`) {
		t.Errorf("a role that does not exist: %q: %v", advice, missing)
	}
}

// testWindow verifies that the window of strategy single names the replicas that refuse a new
// password, with their lag.
func testWindow(t *testing.T, c *cluster, reader, _ target.Credential) {
	tt := c.open(t, c.Addr(), reader, fmt.Sprintf(
		`"verify":[%q,{"address":"db2:5432","role":"replica","lag":"10s"},`+
			`{"address":"db3:5432","role":"replica","lag":"1m"}]`,
		c.Addr()))
	window := tt.(target.Windower).Window
	const want = " The new one is refused at replica db2:5432 (lag 10s), replica db3:5432 (lag 1m0s) until each has " +
		"caught up."
	if got := window(target.Single); !strings.Contains(got, want) {
		t.Errorf("single: %s", got)
	}
	if got := window(target.Double); strings.Contains(got, "db2") {
		t.Errorf("double, whose promotion waits for replicas: %s", got)
	}
	one := c.openAs(t, reader, target.Login{Endpoints: []string{c.Addr()}}, fmt.Sprintf(
		`"verify":[%q,{"address":"db2:5432","role":"replica"}]`, c.Addr()))
	if got := one.(target.Windower).Window(target.Single); strings.Contains(got, "db2") {
		t.Errorf("an application that does not use the replica: %s", got)
	}
}
