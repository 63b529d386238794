package prove

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	sshdriver "golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/sandbox"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/shacrypt"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/applications"
	"github.com/keyturn/keyturn/test/servers"
)

func provePostgreSQL(t *testing.T) {
	p, run := startPostgres(t)
	f := fixture{
		kind: "postgresql", addr: p.Addr(), door: door{Kind: "postgresql", Address: p.Addr(), Database: "postgres"},
		own:    func(d *door, account string) { d.Name = account },
		config: plain, admin: compact(engineAdmin),
		byHand: func(t testing.TB, name, password string) {
			run(t, fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'", name, password))
		},
	}
	made := func(t testing.TB, name string) account {
		a := first(name)
		run(t, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", a.AccountName, a.AccountPassword))
		run(t, fmt.Sprintf("CREATE SCHEMA %[1]s AUTHORIZATION %[1]s", name))
		for _, statements := range []string{
			applications.PostgreSQLObjects(name, name),
			applications.PostgreSQLRowSecurity(name),
			applications.PostgreSQLLent(name, name),
		} {
			run(t, statements)
		}
		return a
	}
	single, double := f, f
	single.name, single.strategy = "postgresql_single", target.Single
	single.secret = func(t testing.TB, _ *process, n int) (kms.CreateSecretRequest, kms.ConfigureRotationRequest) {
		return rds(single.name, made(t, fmt.Sprintf("s%d", n)))
	}
	double.name, double.strategy = "postgresql_double", target.Double
	double.stated = []string{"ends its own sessions"}
	double.secret = func(t testing.TB, _ *process, n int) (kms.CreateSecretRequest, kms.ConfigureRotationRequest) {
		a := made(t, fmt.Sprintf("d%d", n))
		clone := first(a.AccountName + "_clone") // as PrepareTargetAccounts makes it
		run(t, fmt.Sprintf("CREATE ROLE %[1]s LOGIN INHERIT PASSWORD '%[2]s' IN ROLE %[3]s; "+
			"ALTER ROLE %[1]s SET role = '%[3]s'",
			clone.AccountName, clone.AccountPassword, a.AccountName))
		return rds(double.name, a, clone)
	}
	prove(t, single, parts{oracle: true, drift: true})
	prove(t, double, parts{oracle: true, drift: true, brief: true})
}

// engineAdmin is the administrator that the engine uses at databases.
var engineAdmin = account{"rotator", "the-administrators"}

// startPostgres starts a server with an administrator, and returns what runs statements there.
func startPostgres(t testing.TB) (*sandbox.Postgres, func(testing.TB, string)) {
	t.Helper()
	p := servers.StartPostgres(t, sandbox.PostgresConfig{
		HBA:      []string{"host all all 127.0.0.1/32 scram-sha-256"},
		Settings: []string{"max_prepared_transactions=64", "max_connections=200"},
	})
	run := func(t testing.TB, statements string) {
		t.Helper()
		good(t, p.Exec(t.Context(), "postgres", statements))
	}
	run(t, "CREATE ROLE rotator LOGIN CREATEROLE PASSWORD 'the-administrators'; GRANT SELECT ON pg_authid TO rotator")
	run(t, "CREATE ROLE readers; CREATE ROLE writers")
	return p, run
}

func proveMariaDB(t *testing.T) {
	m := servers.StartMariaDB(t, nil)
	run := func(t testing.TB, statements ...string) {
		t.Helper()
		good(t, m.Exec(t.Context(), statements...))
	}
	run(t, applications.MySQLShared...)
	m.Administrator(t, engineAdmin.AccountPassword)
	f := fixture{
		kind: "mariadb", addr: m.Addr, door: door{Kind: "mariadb", Address: m.Addr}, own: ownDatabase,
		config: plain, admin: compact(engineAdmin),
		byHand: func(t testing.TB, name, password string) {
			run(t, fmt.Sprintf("ALTER USER %s@'%%' IDENTIFIED BY '%s'", name, password))
		},
	}
	made := func(t testing.TB, names ...string) []account { return mysqlAccounts(t, m, names...) }
	overlap, double := f, f
	overlap.name, overlap.strategy = "mariadb_overlap", target.Overlap
	overlap.secret = func(t testing.TB, _ *process, n int) (kms.CreateSecretRequest, kms.ConfigureRotationRequest) {
		return rds(overlap.name, made(t, fmt.Sprintf("o%d", n))...)
	}
	double.name, double.strategy = "mariadb_double", target.Double
	double.secret = func(t testing.TB, _ *process, n int) (kms.CreateSecretRequest, kms.ConfigureRotationRequest) {
		return rds(double.name, made(t, fmt.Sprintf("d%d", n), fmt.Sprintf("d%d_clone", n))...)
	}
	prove(t, overlap, parts{oracle: true, drift: *full})
	prove(t, double, parts{oracle: *full, drift: *full, brief: true})
}

// ownDatabase is where an application of MySQL or MariaDB has its tables.
func ownDatabase(d *door, account string) { d.Database = "of_" + account }

// mysqlAccounts makes accounts with equal rights, and the tables of the first one's application.
func mysqlAccounts(t testing.TB, m *servers.MariaDB, names ...string) (list []account) {
	t.Helper()
	var d door
	ownDatabase(&d, names[0])
	good(t, m.Exec(t.Context(), applications.MySQLObjects(d.Database)...))
	for _, name := range names {
		a := first(name)
		good(t, m.Exec(t.Context(),
			fmt.Sprintf("CREATE USER %s@'%%' IDENTIFIED BY '%s'", a.AccountName, a.AccountPassword),
			applications.MySQLGrant(d.Database, name+"@'%'"),
			fmt.Sprintf("GRANT SELECT (id) ON shared.t TO %s@'%%'", name)))
		list = append(list, a)
	}
	return list
}

func proveMySQL(t *testing.T) {
	m := servers.StartMySQL(t, nil)
	run := func(t testing.TB, statements ...string) {
		t.Helper()
		good(t, m.Exec(t.Context(), statements...))
	}
	run(t, applications.MySQLShared...)
	m.Administrator(t, engineAdmin.AccountPassword)
	f := fixture{
		name: "mysql_overlap", strategy: target.Overlap,
		kind: "mysql", addr: m.Addr, door: door{Kind: "mariadb", Address: m.Addr}, own: ownDatabase,
		config: plain, admin: compact(engineAdmin),
		byHand: func(t testing.TB, name, password string) {
			run(t, fmt.Sprintf("ALTER USER %s@'%%' IDENTIFIED BY '%s'", name, password),
				fmt.Sprintf("ALTER USER %s@'%%' DISCARD OLD PASSWORD", name))
		},
	}
	f.secret = func(t testing.TB, _ *process, n int) (kms.CreateSecretRequest, kms.ConfigureRotationRequest) {
		return rds(f.name, mysqlAccounts(t, m, fmt.Sprintf("o%d", n))...)
	}
	prove(t, f, parts{oracle: *full, drift: *full, brief: true})
}

func proveRedis(t *testing.T) {
	r := servers.StartRedis(t, servers.WithACLFile)
	user := func(t testing.TB, a account, rules ...any) {
		t.Helper()
		r.Do(t, append([]any{"ACL", "SETUSER", a.AccountName, "on", "resetpass", ">" + a.AccountPassword}, rules...)...)
	}
	rules := func(name string) []any {
		return []any{"~" + name + ":*", "%R~shared:*", "resetchannels", "&" + name + ":*", "+@all", "-@admin", "-@dangerous"}
	}
	r.Do(t, "SET", "shared:1", "one")
	f := fixture{
		kind: "redis", addr: r.Addr, door: door{Kind: "redis", Address: r.Addr},
		own:    func(d *door, account string) { d.Name = account },
		config: plain, admin: compact(account{"default", r.Password}),
		byHand: func(t testing.TB, name, password string) { user(t, account{name, password}) },
	}
	overlap, double := f, f
	overlap.name, overlap.strategy = "redis_overlap", target.Overlap
	overlap.secret = func(t testing.TB, _ *process, n int) (kms.CreateSecretRequest, kms.ConfigureRotationRequest) {
		a := first(fmt.Sprintf("o%d", n))
		user(t, a, rules(a.AccountName)...)
		return generic("of-"+a.AccountName, overlap.name, a, "")
	}
	double.name, double.strategy = "redis_double", target.Double
	double.secret = func(t testing.TB, _ *process, n int) (kms.CreateSecretRequest, kms.ConfigureRotationRequest) {
		a := first(fmt.Sprintf("d%d", n))
		clone := first(a.AccountName + "_clone")
		user(t, a, rules(a.AccountName)...)
		user(t, clone, rules(a.AccountName)...)
		return generic("of-"+a.AccountName, double.name, a, clone.AccountName)
	}
	prove(t, overlap, parts{oracle: true, drift: true})
	prove(t, double, parts{oracle: *full, drift: *full, brief: true})
}

func proveLDAP(t *testing.T) {
	l := servers.StartLDAP(t)
	f := fixture{
		name: "ldap_overlap", kind: "ldap", addr: l.Addr, strategy: target.Overlap, config: plain,
		door:   door{Kind: "ldap", Address: l.Addr, Database: l.AdminDN}, // an entry it may not read
		admin:  compact(account{l.AdminDN, l.Password}),
		byHand: func(t testing.TB, name, password string) { l.Modify(t, name, "userPassword", password) },
	}
	f.secret = func(t testing.TB, _ *process, n int) (kms.CreateSecretRequest, kms.ConfigureRotationRequest) {
		uid := fmt.Sprintf("o%d", n)
		a := first("uid=" + uid + "," + l.Base)
		l.Add(t, a.AccountName, map[string][]string{
			"objectClass": {"account", "simpleSecurityObject"}, "uid": {uid}, "userPassword": {a.AccountPassword},
		})
		return generic("of-"+uid, f.name, a, "")
	}
	prove(t, f, parts{oracle: true, drift: *full})
	t.Run("lockout", func(t *testing.T) {
		t.Parallel()
		lockoutLDAP(t, l)
	})
}

func proveSSH(t *testing.T) {
	s := servers.StartSSH(t, "MaxStartups 200")
	host := strings.TrimSpace(string(sshdriver.MarshalAuthorizedKey(s.HostKey)))
	f := fixture{
		kind: "ssh", addr: s.Addr(), slow: 8000, turn: 100, door: door{Kind: "ssh", Address: s.Addr(), HostKey: host},
		config: func(addr string) string { return fmt.Sprintf(`{"address":%q,"host_keys":[%q]}`, addr, host) },
		admin:  compact(map[string]string{"UserName": s.User, "PrivateKey": s.AdminKey}),
	}
	ecs := func(name, targetName, subType string, value any) (kms.CreateSecretRequest, kms.ConfigureRotationRequest) {
		return kms.CreateSecretRequest{
			SecretName: "acs/ecs/" + name, SecretType: kms.TypeECS, VersionID: "v1", SecretData: sensitive.New(compact(value)),
			ExtendedConfig: compact(map[string]string{"SecretSubType": subType, "RegionId": "local", "InstanceId": targetName}),
		}, kms.ConfigureRotationRequest{}
	}
	keys, password := f, f
	keys.name, keys.strategy = "ssh_keys_overlap", target.Overlap
	keys.secret = func(t testing.TB, _ *process, n int) (kms.CreateSecretRequest, kms.ConfigureRotationRequest) {
		a := s.NewAccount(t, "/bin/sh", "*")
		private, public := servers.NewSSHKey(t)
		line := strings.TrimSpace(string(sshdriver.MarshalAuthorizedKey(public)))
		s.Authorize(t, a, line+"\n")
		return ecs(fmt.Sprintf("keys-%d", n), keys.name, "SSHKey", map[string]string{
			"UserName": a.Name, "PublicKey": line, "PrivateKey": private,
		})
	}
	// The key of a restored store is in no file, so the options that its line had are not known.
	keys.refusal = "key_options"
	keys.change = func(t testing.TB, c *process) {
		config := fmt.Sprintf(`{"address":%q,"host_keys":[%q],"key_options":""}`, s.Addr(), host)
		good(t, second(c.UpdateTarget(t.Context(), &kms.UpdateTargetRequest{TargetName: keys.name, Config: config})))
	}
	password.name, password.strategy = "ssh_password_single", target.Single
	password.secret = func(t testing.TB, _ *process, n int) (kms.CreateSecretRequest, kms.ConfigureRotationRequest) {
		first := fmt.Sprintf("first-password-%d", n)
		a := s.NewAccount(t, "/bin/sh", shacrypt.Hash(sensitive.New(first), "saltsalt"))
		return ecs(fmt.Sprintf("password-%d", n), password.name, "Password", map[string]string{
			"UserName": a.Name,
			"Password": first,
		})
	}
	prove(t, keys, parts{oracle: *full, drift: *full, brief: true})
	prove(t, password, parts{oracle: *full, drift: *full, brief: true})
}

func proveRabbitMQ(t *testing.T) {
	if !*full {
		t.Skip("RabbitMQ takes long to start: it is in the full run alone")
	}
	r := servers.StartRabbitMQ(t)
	call := func(t testing.TB, path, body string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+r.API+path, strings.NewReader(body))
		good(t, err)
		req.Header.Set("Content-Type", "application/json")
		req.SetBasicAuth(r.User, r.Password)
		resp, err := http.DefaultClient.Do(req)
		good(t, err)
		defer resp.Body.Close()
		if resp.StatusCode/100 != 2 {
			t.Fatalf("PUT %s: status %d", path, resp.StatusCode)
		}
	}
	user := func(t testing.TB, a account, tags, own string) {
		t.Helper()
		call(t, "/api/users/"+url.PathEscape(a.AccountName), compact(map[string]string{
			"password": a.AccountPassword,
			"tags":     tags,
		}))
		call(t, "/api/permissions/%2F/"+url.PathEscape(a.AccountName), compact(map[string]string{
			"configure": own,
			"write":     own + "|^amq[.]topic$",
			"read":      ".*",
		}))
	}
	admin := account{"keyturn", "password-of-keyturn"}
	user(t, admin, "administrator", "")
	f := fixture{
		name: "rabbitmq_double", kind: "rabbitmq", addr: r.API, own: func(d *door, account string) { d.Name = account },
		door: door{Kind: "rabbitmq", Address: r.AMQP, Database: "/"}, strategy: target.Double, admin: compact(admin),
		config: func(addr string) string { return fmt.Sprintf(`{"api":"http://%s","amqp":["amqp://%s"]}`, addr, r.AMQP) },
		byHand: func(t testing.TB, name, password string) {
			user(t, account{name, password}, "monitoring", "^"+strings.TrimSuffix(name, "_clone")+"-.*")
		},
	}
	f.secret = func(t testing.TB, _ *process, n int) (kms.CreateSecretRequest, kms.ConfigureRotationRequest) {
		a := first(fmt.Sprintf("d%d", n))
		clone := first(a.AccountName + "_clone")
		own := "^" + a.AccountName + "-.*"
		user(t, a, "monitoring", own)
		user(t, clone, "monitoring", own)
		return generic("of-"+a.AccountName, f.name, a, clone.AccountName)
	}
	prove(t, f, parts{oracle: true, drift: true})
}
