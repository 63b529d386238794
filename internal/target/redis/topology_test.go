package redis_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
	"github.com/keyturn/keyturn/test/support"
)

// copies starts a replica of a server and waits until it copies.
func copies(t *testing.T, master *servers.Redis) *servers.Redis {
	t.Helper()
	host, port, _ := strings.Cut(master.Addr, ":")
	replica := servers.StartRedis(t, "replicaof "+host+" "+port, "masterauth "+master.Password)
	support.Retry(t, func() error {
		there, here := fmt.Sprint(replica.Do(t, "INFO", "replication")), fmt.Sprint(master.Do(t, "INFO", "replication"))
		if strings.Contains(there, "master_link_status:up") && strings.Contains(here, "state=online") {
			return nil
		}
		return fmt.Errorf("the replica is not in step: it says %s; its master says %s", there, here)
	})
	return replica
}

// TestUnnamedNodes verifies that a check finds servers with users of their own that the target does
// not name.
func TestUnnamedNodes(t *testing.T) {
	t.Parallel()
	master := servers.StartRedis(t, "repl-diskless-sync-delay 0")
	replica := copies(t, master)
	c := target.Credential{Account: "app", Secret: sensitive.New("the-password-of-app")}
	for _, s := range []*servers.Redis{master, replica} {
		s.Do(t, "ACL", "SETUSER", c.Account, "on", ">"+c.Secret.Reveal(), "~*", "+get")
		s.Do(t, "ACL", "SETUSER", "keyturn", "on", ">password-of-keyturn", "+acl", "+config|rewrite", "+info")
	}
	keeper := target.Credential{Account: "keyturn", Secret: sensitive.New("password-of-keyturn")}
	const unnamed = "needs-consent nodes-not-named"
	for config, want := range map[string]string{
		fmt.Sprintf(`"address":%q`, master.Addr):                                                                unnamed,
		fmt.Sprintf(`"address":%q`, replica.Addr):                                                               unnamed,
		fmt.Sprintf(`"nodes":[%q,%q]`, master.Addr, replica.Addr):                                               "",
		fmt.Sprintf(`"nodes":[%q,%q]`, replica.Addr, strings.Replace(master.Addr, "127.0.0.1", "localhost", 1)): "",
		fmt.Sprintf(`"address":%q,"verify":[{"address":%q,"role":"replica"}]`, master.Addr, replica.Addr):       "",
	} {
		tt := open(t, `{`+config+`,"tls":{"off":true}}`, keeper)
		if got := found(t, tt, c, ""); got != want {
			t.Errorf("%s: the check finds %q, want %q", config, got, want)
		}
	}
	list, err := open(t, plain(master.Addr), keeper).(target.Checker).CheckAccount(targettest.Within(t),
		target.CheckRequest{Current: c})
	targettest.Must(t, err)
	if len(list) != 1 || !strings.Contains(list[0].Text, replica.Addr) {
		t.Errorf("the finding does not name the replica: %+v", list)
	}
	master.Do(t, "ACL", "SETUSER", c.Account, "+psync")
	replica.Do(t, "ACL", "SETUSER", c.Account, "+psync")
	both := open(t, fmt.Sprintf(`{"nodes":[%q,%q],"tls":{"off":true}}`, master.Addr, replica.Addr), keeper)
	if got, want := found(t, both, c, ""), "needs-consent replication"; got != want {
		t.Errorf("a user of replicas: the check finds %q, want %q", got, want)
	}
}

// TestUnnamedClusterNodes verifies the same of a cluster.
func TestUnnamedClusterNodes(t *testing.T) {
	t.Parallel()
	one, two := servers.StartRedis(t, "cluster-enabled yes"), servers.StartRedis(t, "cluster-enabled yes")
	host, port, _ := strings.Cut(two.Addr, ":")
	_, bus, _ := strings.Cut(two.Bus, ":")
	one.Do(t, "CLUSTER", "MEET", host, port, bus)
	support.Until(t, "the nodes to know one another", func() bool {
		return strings.Count(fmt.Sprint(one.Do(t, "CLUSTER", "NODES")), "master") == 2 &&
			strings.Count(fmt.Sprint(two.Do(t, "CLUSTER", "NODES")), "master") == 2
	})
	c := target.Credential{Account: "app", Secret: sensitive.New("the-password-of-app")}
	for _, s := range []*servers.Redis{one, two} {
		s.Do(t, "ACL", "SETUSER", c.Account, "on", ">"+c.Secret.Reveal(), "~*", "+get")
	}
	if got, want := found(t, open(t, plain(one.Addr), admin(one)), c, ""), "needs-consent nodes-not-named"; got != want {
		t.Errorf("one node: the check finds %q, want %q", got, want)
	}
	nodes := fmt.Sprintf(`{"nodes":[%q,%q],"tls":{"off":true}}`, one.Addr, two.Addr)
	if got := found(t, open(t, nodes, admin(one)), c, ""); got != "" {
		t.Errorf("both nodes: the check finds %q", got)
	}
}

// TestAdministratorLacks verifies that a check finds rights that a change needs.
func TestAdministratorLacks(t *testing.T) {
	t.Parallel()
	s := servers.StartRedis(t)
	c := account(t, s)
	keeper := target.Credential{Account: "keyturn", Secret: sensitive.New("password-of-keyturn")}
	const lacks = "impossible administrator-lacks"
	const blind = ", needs-consent nodes-not-read"
	for _, row := range []struct{ rules, persist, want string }{
		{"+acl|getuser", "none", lacks + blind + ", note not-saved"},
		{"+acl|getuser +acl|setuser", "none", "needs-consent nodes-not-read, note not-saved"},
		{"+acl|getuser +acl|setuser", "auto", lacks + blind},
		{"+acl|getuser +acl|setuser", "config-rewrite", lacks + blind},
		{"+acl|getuser +acl|setuser +acl|save +info", "acl-save", ""},
		{"+acl|setuser", "none", "impossible user-not-read"},
	} {
		setUser(t, s, "ACL SETUSER "+keeper.Account+" reset on >"+keeper.Secret.Reveal()+" "+row.rules)
		tt := open(t, fmt.Sprintf(`{"address":%q,"tls":{"off":true},"persist":%q}`, s.Addr, row.persist), keeper)
		if got := found(t, tt, c, ""); got != row.want {
			t.Errorf("%+v: the check finds %q", row, got)
		}
		err := tt.(target.Tester).Test(targettest.Within(t))
		switch lacks := strings.Contains(row.want, "impossible"); {
		case !lacks && err != nil:
			t.Errorf("%+v: the test of the administrator answers %v", row, err)
		case !lacks:
		case target.ClassOf(err) != target.Denied || !strings.Contains(err.Error(), "ACL SETUSER keyturn +"):
			t.Errorf("%+v: the test of the administrator answers %v without the rule that helps", row, err)
		case target.IsAdminRejected(err):
			t.Errorf("%+v: the administrator counts as rejected: %v", row, err)
		}
	}
	keeper.Secret = sensitive.New("another")
	tt := open(t, fmt.Sprintf(`{"address":%q,"tls":{"off":true}}`, s.Addr), keeper)
	if err := tt.(target.Tester).Test(targettest.Within(t)); !target.IsAdminRejected(err) {
		t.Errorf("a rejected administrator: the test answers %v", err)
	}
	_, err := tt.(target.Checker).CheckAccount(targettest.Within(t), target.CheckRequest{Current: c})
	if !target.IsAdminRejected(err) {
		t.Errorf("a rejected administrator: the check answers %v", err)
	}
}

// TestUnreadNodes verifies that a check asks for consent where the administrator may not ask a
// server for further ones, that the rule which it names is enough, and that it still asks the
// other nodes.
func TestUnreadNodes(t *testing.T) {
	t.Parallel()
	keeper := target.Credential{Account: "keyturn", Secret: sensitive.New("password-of-keyturn")}
	alone, master := servers.StartRedis(t), servers.StartRedis(t, "repl-diskless-sync-delay 0")
	copies(t, master)
	for _, row := range []struct {
		what  string
		s     *servers.Redis
		has   string
		fixes []string
	}{
		{"a server", alone, "", []string{"ACL SETUSER keyturn +info +cluster|nodes"}},
		{"a cluster", servers.StartRedis(t, "cluster-enabled yes"), "+info", []string{"ACL SETUSER keyturn +cluster|nodes"}},
	} {
		c := account(t, row.s)
		rules := "on >" + keeper.Secret.Reveal() + " +acl|getuser +acl|setuser +config|rewrite +acl|save " + row.has
		setUser(t, row.s, "ACL SETUSER "+keeper.Account+" "+rules)
		tt := open(t, plain(row.s.Addr), keeper)
		list, err := tt.(target.Checker).CheckAccount(targettest.Within(t), target.CheckRequest{Current: c})
		targettest.Must(t, err)
		var fixes []string
		for _, f := range list {
			if f.Consent != "nodes-not-read" {
				t.Errorf("%s: the check finds %+v", row.what, f)
			}
			fixes = append(fixes, f.Fix)
			setUser(t, row.s, f.Fix)
		}
		if !slices.Equal(fixes, row.fixes) {
			t.Errorf("%s: the rules are %q, want %q", row.what, fixes, row.fixes)
		}
		if got := found(t, tt, c, ""); got != "" {
			t.Errorf("%s: with these rules the check finds %q", row.what, got)
		}
	}
	setUser(t, alone, "ACL SETUSER keyturn -info")
	setUser(t, master, "ACL SETUSER keyturn on >"+keeper.Secret.Reveal()+" +acl +config|rewrite +info")
	c := account(t, alone)
	master.Do(t, "ACL", "SETUSER", c.Account, "on", ">"+c.Secret.Reveal(), "~*", "+get")
	both := open(t, fmt.Sprintf(`{"nodes":[%q,%q],"tls":{"off":true}}`, alone.Addr, master.Addr), keeper)
	list, err := both.(target.Checker).CheckAccount(targettest.Within(t), target.CheckRequest{Current: c})
	targettest.Must(t, err)
	consents := map[string]bool{}
	for _, f := range list {
		consents[f.Consent] = true
	}
	if !consents["nodes-not-read"] || !consents["nodes-not-named"] {
		t.Errorf("a replica of another node than the unread one: the check finds %+v", list)
	}
}

// setUser runs a command of words.
func setUser(t *testing.T, s *servers.Redis, command string) {
	t.Helper()
	var words []any
	for word := range strings.FieldsSeq(command) {
		words = append(words, word)
	}
	s.Do(t, words...)
}

// TestNoACL verifies what a check says of a server without the command ACL.
func TestNoACL(t *testing.T) {
	t.Parallel()
	s := servers.StartRedis(t, `rename-command ACL ""`)
	list, err := open(t, plain(s.Addr), admin(s)).(target.Checker).CheckAccount(targettest.Within(t),
		target.CheckRequest{Current: target.Credential{Account: "app", Secret: sensitive.New("the-password-of-app")}})
	targettest.Must(t, err)
	if len(list) != 1 || list[0].Code != "user-not-read" || !strings.Contains(list[0].Fix, "do not rename") {
		t.Errorf("the check finds %+v", list)
	}
}
