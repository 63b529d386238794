package ldap_test

import (
	"fmt"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
)

// testForeignNames verifies that neither a DN nor a value of the directory is shown as a command.
func testForeignNames(t *testing.T, s *servers.LDAP) {
	password := "first-password-of-foreign"
	dn := "uid=" + targettest.HostileCommand + "," + s.Base
	s.Add(t, dn, map[string][]string{
		"objectClass":  {"account", "simpleSecurityObject"},
		"uid":          {targettest.HostileCommand},
		"description":  {"foreign"},
		"userPassword": {"{" + targettest.HostileCommand + "}AAAA"},
	})
	tt := open(t, plain(s.Addr, fmt.Sprintf(`"base":%q,"filter":"(description={account})"`, s.Base)), admin(s))
	c := target.Credential{Account: "foreign", Secret: sensitive.New(password)}
	targettest.Harmless(t, targettest.Findings(t, tt, target.CheckRequest{Current: c}))
	err := tt.Apply(targettest.Within(t), change(target.Single, c, "second-password-of-foreign"))
	targettest.Harmless(t, nil, err)
	targettest.Harmless(t, nil, tt.Verify(targettest.Within(t), c))
}
