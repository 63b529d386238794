package messy

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/test/support"
)

// mysqlTrait is something unusual about an account, with a probability of one in odds. Without a
// kind it is of both servers.
type mysqlTrait struct {
	odds  int
	kind  string
	name  string
	apply func(b *mysqlScene)
}

// option adds a clause of CREATE USER, and grant a statement, in which {} is the account.
func (b *mysqlScene) option(clause string)   { b.user.options = append(b.user.options, clause) }
func (b *mysqlScene) grant(statement string) { b.user.grants = append(b.user.grants, statement) }

var mysqlTraits = slices.Concat(mysqlLogins, mysqlHosts, mysqlLimits, mysqlRights)

// mysqlLogins are requirements of a connection; they come first in CREATE USER.
var mysqlLogins = []mysqlTrait{
	{2, "", "requirements of the connection", func(b *mysqlScene) {
		if b.authority == nil {
			return
		}
		switch b.one(b.r, "require", "SSL", "X509", "SUBJECT") {
		case "SSL":
			b.option("REQUIRE SSL")
		case "X509":
			b.option("REQUIRE X509")
			b.certify()
		case "SUBJECT":
			b.option("REQUIRE SUBJECT '/CN=localhost'")
			b.certify()
		}
	}},
	{8, "", "a name that needs quotes", func(b *mysqlScene) { b.user.name = "o'brien of_" + b.name }},
	{4, "", "the target has the application's database", func(b *mysqlScene) { b.config["database"] = b.database }},
	{4, "", "the secret has the application's database", func(b *mysqlScene) { b.configure.LoginDatabase = b.database }},
	{6, "", "a role that the application takes", func(b *mysqlScene) {
		b.grant("GRANT readers TO {}")
		b.app.Role, b.configure.LoginRole = "readers", "readers"
	}},
}

// mysqlHosts are several accounts of one name.
var mysqlHosts = []mysqlTrait{
	{5, "", "two hosts", func(b *mysqlScene) {
		b.user.rows = append(b.user.rows, row{"127.0.0.2", b.kind.plugins[b.r.IntN(len(b.kind.plugins))]})
		if b.trait(b.r, 2, "the application comes from 127.0.0.2") {
			b.app.Source = "127.0.0.2"
		}
	}},
	{6, "", "a netmask", func(b *mysqlScene) {
		b.user.rows[0].host = "127.0.0.0/255.255.255.0"
	}},
	{6, "", "a host of another name", func(b *mysqlScene) {
		b.user.rows = append(b.user.rows, row{"db1.example.test", b.user.rows[0].plugin})
	}},
	{6, "", "hosts that the target names", func(b *mysqlScene) {
		var hosts []string
		for _, r := range b.user.rows {
			hosts = append(hosts, r.host)
		}
		b.config["account_host"] = hosts
	}},
	{6, "", "a host of another application", func(b *mysqlScene) {
		if b.app.Source != "" || len(b.user.rows) > 1 {
			return
		}
		at := row{"127.0.0.3", b.user.rows[0].plugin}
		b.create(b.t, user{name: b.user.name, password: "Another-application's-1", rows: []row{at}})
	}},
}

// mysqlLimits are limits and terms of passwords.
var mysqlLimits = []mysqlTrait{
	{5, "", "limits that are far", func(b *mysqlScene) {
		b.user.limits = append(b.user.limits, "MAX_QUERIES_PER_HOUR 100000", "MAX_CONNECTIONS_PER_HOUR 10000")
	}},
	{5, "", "connections reached by the application's pool", func(b *mysqlScene) {
		if b.occupy == nil {
			n := 2 + b.r.IntN(2) // of one, the two clients would wait for each other
			b.user.limits = append(b.user.limits, fmt.Sprintf("MAX_USER_CONNECTIONS %d", n))
			b.occupy = func(value string) func() { return b.occupies(value, n) }
		}
	}},
	{5, "", "an expiry", func(b *mysqlScene) {
		b.option("PASSWORD EXPIRE " + b.one(b.r, "expires", "NEVER", "DEFAULT", "INTERVAL 1 DAY", "INTERVAL 1000 DAY"))
	}},
	{5, "mysql", "rules for new passwords", func(b *mysqlScene) {
		b.option(b.one(b.r, "rule", "PASSWORD HISTORY 4", "PASSWORD REUSE INTERVAL 100 DAY", "PASSWORD REQUIRE CURRENT"))
	}},
	{6, "mysql", "a lock after failed logins", func(b *mysqlScene) {
		b.option("FAILED_LOGIN_ATTEMPTS 20 PASSWORD_LOCK_TIME 1")
	}},
	{6, "mysql", "an attribute", func(b *mysqlScene) {
		b.option(b.one(b.r, "attribute", `ATTRIBUTE '{"team": "blue"}'`, `COMMENT 'of the blue team'`))
	}},
	{8, "mysql", "a retained password of an operator", func(b *mysqlScene) {
		b.user.after = append(b.user.after, "ALTER USER {} IDENTIFIED BY 'An-operator''s-1' RETAIN CURRENT PASSWORD")
	}},
	{8, "mariadb", "a second password of an operator", func(b *mysqlScene) {
		by := "mysql_native_password USING PASSWORD("
		b.user.after = append(b.user.after, "ALTER USER {} IDENTIFIED VIA "+by+"'An-operator''s-1') OR "+
			by+sqlText(b.user.password)+")")
		for i := range b.user.rows {
			b.user.rows[i].plugin = "mysql_native_password"
		}
	}},
}

// mysqlRights are rights that a rotation must keep.
var mysqlRights = []mysqlTrait{
	{4, "", "a right on columns", func(b *mysqlScene) { b.grant("GRANT SELECT (id) ON shared.t TO {}") }},
	{4, "", "a default role", func(b *mysqlScene) {
		b.grant("GRANT readers TO {}")
		if b.kind.name == "mariadb" && b.replica != nil && strings.Contains(b.user.name, "'") {
			return // MariaDB sends replicas the name without its quotes doubled, and they stop
		}
		b.grant(map[string]string{
			"mariadb": "SET DEFAULT ROLE readers FOR {}",
			"mysql":   "ALTER USER {} DEFAULT ROLE readers",
		}[b.kind.name])
	}},
	{6, "", "a role that it may grant", func(b *mysqlScene) { b.grant("GRANT readers TO {} WITH ADMIN OPTION") }},
	{6, "", "rights at one host alone", func(b *mysqlScene) {
		name, host := sqlText(b.user.name), sqlText(b.user.rows[0].host)
		b.grant("GRANT SELECT ON shared.* TO " + name + "@" + host)
		if b.strategy == target.Double {
			b.user.grants = b.user.grants[:len(b.user.grants)-1]
		}
	}},
	{6, "", "harmless global privileges", func(b *mysqlScene) {
		b.grant("GRANT SHOW DATABASES, PROCESS ON *.* TO {}")
		if b.kind.name == "mysql" {
			b.grant("GRANT XA_RECOVER_ADMIN ON *.* TO {}")
		}
	}},
	{6, "mysql", "a partial revoke", func(b *mysqlScene) {
		if b.authority != nil {
			b.grant("GRANT CREATE TEMPORARY TABLES ON *.* TO {}")
			b.grant("REVOKE CREATE TEMPORARY TABLES ON shared.* FROM {}")
		}
	}},
	{6, "", "a proxy", func(b *mysqlScene) {
		other := user{name: "other_" + b.name, password: "The-other's-password-1", rows: []row{{"%", b.user.rows[0].plugin}}}
		b.create(b.t, other)
		if b.trait(b.r, 2, "as which the account may act") {
			b.grant("GRANT PROXY ON " + sqlText(other.name) + "@'%' TO {}")
			return
		}
		b.grant("GRANT PROXY ON {} TO " + sqlText(other.name) + "@'%'")
	}},
}

// occupies keeps n sessions open, or fewer if the server permits no more.
func (b *mysqlScene) occupies(value string, n int) (release func()) {
	var open []func() error
	// A session that has just ended still counts, and would be free during what follows.
	for deadline := time.Now().Add(2 * time.Second); len(open) < n && time.Now().Before(deadline); {
		if end, err := b.scene.app.Open(context.Background(), value); err == nil {
			open = append(open, end)
		} else {
			time.Sleep(50 * time.Millisecond)
		}
	}
	return func() {
		for _, end := range open {
			_ = end() // nothing depends on the goodbye
		}
		// The server counts a session a little longer than its client does.
		support.Eventually(func() bool {
			left, err := b.Column(context.Background(), "SELECT USER FROM information_schema.PROCESSLIST WHERE USER IN ("+
				sqlText(b.user.name)+", "+sqlText(b.configure.CloneAccountName)+")")
			if err != nil {
				b.t.Error(err)
			}
			return len(left) == 0
		})
	}
}

var (
	// identified is how an account logs in, with its hashes, up to what follows.
	identified = regexp.MustCompile(`(?s) IDENTIFIED .*?( DEFAULT ROLE| REQUIRE| WITH MAX| PASSWORD EXPIRE|$)`)
	// waysToLogIn reads the plug-ins of an account: in MariaDB the last one, of the password that
	// stays after a grace period.
	waysToLogIn = map[string]string{
		"mariadb": "SELECT IFNULL(JSON_VALUE(Priv, CONCAT('$.auth_or[', JSON_LENGTH(Priv, '$.auth_or') - 1, '].plugin')), " +
			"JSON_VALUE(Priv, '$.plugin')) FROM mysql.global_priv WHERE user = %s AND host <> '127.0.0.3' ORDER BY host",
		"mysql": "SELECT plugin FROM mysql.user WHERE user = %s AND host <> '127.0.0.3' ORDER BY host",
	}
	// ofOthers reads what belongs to another application.
	ofOthers = map[string]string{
		"mariadb": "SELECT SHA2(Priv, 256) FROM mysql.global_priv WHERE user = %s AND host = '127.0.0.3'",
		"mysql":   "SELECT SHA2(authentication_string, 256) FROM mysql.user WHERE user = %s AND host = '127.0.0.3'",
	}
)

// seen is what the server's administrator sees of the accounts of a name: plug-ins, limits, expiry,
// attributes and rights, without hashes.
func (b *mysqlScene) seen(ctx context.Context, name string) (outcome, error) {
	read := func(query string) ([]string, error) { return b.Column(ctx, query) }
	hosts, err := read("SELECT host FROM mysql.user WHERE user = " + sqlText(name) + " ORDER BY host")
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, host := range hosts {
		if host == "127.0.0.3" {
			continue
		}
		for _, statement := range []string{"SHOW CREATE USER ", "SHOW GRANTS FOR "} {
			said, err := read(statement + sqlText(name) + "@" + sqlText(host))
			if err != nil {
				return nil, err
			}
			for _, line := range said {
				line = strings.ReplaceAll(strings.ReplaceAll(line, strings.ReplaceAll(name, "'", `\'`), "app"), name, "app")
				lines = append(lines, identified.ReplaceAllString(line, "$1"))
			}
		}
	}
	slices.Sort(lines)
	out := outcome{"account": strings.Join(lines, "; ")}
	plugins, err := read(fmt.Sprintf(waysToLogIn[b.kind.name], sqlText(name)))
	if err != nil {
		return nil, err
	}
	others, err := read(fmt.Sprintf(ofOthers[b.kind.name], sqlText(b.user.name)))
	out["plug-ins"], out["others"] = strings.Join(plugins, " "), strings.Join(others, " ")
	return out, err
}
