package prove

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/internal/sandbox"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/postgresql"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
)

// kinds are those that a child can register.
func kinds() []target.Kind {
	return []target.Kind{postgresql.Kind()}
}

// fixture is one kind of target with one strategy, before a real server.
type fixture struct {
	name     string // of the figures: letters, digits and underscores
	kind     string
	addr     string // of the real server
	strategy target.Strategy
	// config is the target's configuration for a server that is reached at addr, which may be a proxy.
	config func(addr string) string
	// admin is the value of the administrator's secret; empty for none.
	admin string
	// secret makes the Nth account, or pair of accounts, at the server, and says how its secret is created and configured.
	secret func(t testing.TB, n int) (kms.CreateSecretRequest, *kms.ConfigureRotationRequest)
	// login tries a value as GetSecretValue returns it, without the code under test. It returns an error when the server did not
	// answer.
	login func(ctx context.Context, value string) (bool, error)
}

// fixtures starts the servers that a test needs, by name; none means all.
func fixtures(t testing.TB) []fixture {
	t.Helper()
	var list []fixture
	list = append(list, postgresFixtures(t)...)
	return list
}

type account struct{ AccountName, AccountPassword string }

// rds makes the parameters of an Rds secret.
func rds(name, targetName, subType string, accounts ...account) kms.CreateSecretRequest {
	return kms.CreateSecretRequest{
		SecretName: name, SecretType: kms.TypeRds, VersionID: "v1",
		SecretData:     sensitive.New(compact(map[string]any{"Accounts": accounts})),
		ExtendedConfig: compact(map[string]string{"SecretSubType": subType, "DBInstanceId": targetName}),
	}
}

func postgresFixtures(t testing.TB) []fixture {
	p := servers.StartPostgres(t, sandbox.PostgresConfig{
		HBA: []string{"host all all 127.0.0.1/32 scram-sha-256"}, Settings: []string{"max_prepared_transactions=64", "max_connections=200"},
	})
	run := func(t testing.TB, statements string) {
		t.Helper()
		if err := p.Exec(t.Context(), "postgres", statements); err != nil {
			t.Fatal(err)
		}
	}
	run(t, "CREATE ROLE rotator LOGIN CREATEROLE PASSWORD 'the-administrators'; GRANT SELECT ON pg_authid TO rotator")
	login := func(ctx context.Context, value string) (bool, error) {
		var a account
		if err := json.Unmarshal([]byte(value), &a); err != nil {
			return false, errors.New("the value is not JSON")
		}
		config, err := pgx.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d dbname=postgres sslmode=disable", p.Port))
		if err != nil {
			return false, err
		}
		config.User, config.Password = a.AccountName, a.AccountPassword
		conn, err := pgx.ConnectConfig(ctx, config)
		var said *pgconn.PgError
		switch {
		case errors.As(err, &said) && said.Code == "28P01":
			return false, nil
		case err != nil:
			return false, errors.New("PostgreSQL did not answer")
		}
		return true, conn.Close(ctx)
	}
	config := func(addr string) string { return fmt.Sprintf(`{"address":%q,"tls":{"off":true}}`, addr) }
	one := func(t testing.TB, name string) account {
		a := account{name, "first-password-of-" + name}
		run(t, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", a.AccountName, a.AccountPassword))
		return a
	}
	admin := compact(account{"rotator", "the-administrators"})
	return []fixture{
		{
			name: "postgresql_single", kind: "postgresql", addr: p.Addr(), strategy: target.Single, config: config, admin: admin, login: login,
			secret: func(t testing.TB, n int) (kms.CreateSecretRequest, *kms.ConfigureRotationRequest) {
				return rds(fmt.Sprintf("pg-single-%d", n), "postgresql_single", "SingleUser", one(t, fmt.Sprintf("s%d", n))), nil
			},
		},
		{
			name: "postgresql_double", kind: "postgresql", addr: p.Addr(), strategy: target.Double, config: config, admin: admin, login: login,
			secret: func(t testing.TB, n int) (kms.CreateSecretRequest, *kms.ConfigureRotationRequest) {
				return rds(fmt.Sprintf("pg-double-%d", n), "postgresql_double", "DoubleUsers", one(t, fmt.Sprintf("d%d", n)), one(t, fmt.Sprintf("d%d_clone", n))), nil
			},
		},
	}
}
