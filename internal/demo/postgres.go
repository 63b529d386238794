package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/internal/sandbox"
	"github.com/keyturn/keyturn/internal/target/postgresql"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

const (
	// sqlInvalidPassword and sqlInvalidAuthorization are how PostgreSQL says no to a login.
	sqlInvalidPassword      = "28P01"
	sqlInvalidAuthorization = "28000"
)

// The roles that the engine changes others with, and the two that it changes in turn.
const (
	adminRole = "rotator"
	oneRole   = "web"
	otherRole = "web_clone"
)

// postgres is a throw-away cluster whose roles come in over TCP with SCRAM.
type postgres struct{ *sandbox.Postgres }

// postgresCredential is the secret data, in the words of the API for database accounts.
type postgresCredential struct {
	AccountName, AccountPassword string
}

// StartPostgres makes a cluster in a new directory inside dir and starts it. The context bounds the
// start only.
func StartPostgres(ctx context.Context, dir string) (Target, error) {
	server, err := sandbox.StartPostgres(ctx, sandbox.PostgresConfig{
		Dir: dir, HBA: []string{"host postgres all 127.0.0.1/32 scram-sha-256"},
	})
	if err != nil {
		return nil, err
	}
	p := &postgres{server}
	if err := p.asAdmin(ctx, "CREATE ROLE "+accountName+" LOGIN"); err != nil {
		return nil, errors.Join(fmt.Errorf("start PostgreSQL: %w", err), p.Close())
	}
	return p, nil
}

func (p *postgres) asAdmin(ctx context.Context, statement string) error {
	conn, err := p.Admin(ctx, "postgres")
	if err != nil {
		return sqlReason(ctx, err)
	}
	defer disconnect(conn)
	if _, err := conn.Exec(ctx, statement); err != nil {
		return sqlReason(ctx, err)
	}
	return nil
}

// connect opens a connection with these settings and none from the environment or a password file.
func connect(ctx context.Context, host string, port int, role, password string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig("sslmode=disable")
	if err != nil {
		return nil, errors.New("the PG* variables of the environment are not well formed; unset them")
	}
	cfg.Host, cfg.Port, cfg.Database, cfg.User, cfg.Password = host, uint16(port), "postgres", role, password
	cfg.TLSConfig, cfg.Fallbacks, cfg.ConnectTimeout = nil, nil, loginTimeout
	cfg.RuntimeParams = map[string]string{"application_name": "keyturn-demo"}
	cfg.ValidateConnect, cfg.AfterConnect = nil, nil
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, sqlReason(ctx, err)
	}
	return conn, nil
}

// disconnect says goodbye even when the context of the call has ended, but does not wait long for
// an answer.
func disconnect(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // nothing depends on the goodbye
}

// sqlReason keeps code and text of an answer of the server, and ErrRejected where the answer is no.
func sqlReason(ctx context.Context, err error) error {
	answer, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return safeReason(ctx, err)
	}
	if answer.Code == sqlInvalidPassword || answer.Code == sqlInvalidAuthorization {
		return fmt.Errorf("%w: %s (SQLSTATE %s)", ErrRejected, answer.Message, answer.Code)
	}
	return fmt.Errorf("%s (SQLSTATE %s)", answer.Message, answer.Code)
}

func (p *postgres) Name() string {
	return fmt.Sprintf("PostgreSQL %s, role %s, 127.0.0.1:%d", p.Version, accountName, p.Port)
}

func (p *postgres) Registration() string {
	return "ALTER ROLE " + accountName + " PASSWORD 'SCRAM-SHA-256$…'"
}

func (p *postgres) NewCredential(password sensitive.Value) (sensitive.Value, error) {
	if err := checkPassword(password.Reveal()); err != nil {
		return sensitive.Value{}, err
	}
	return encodeData(postgresCredential{accountName, password.Reveal()})
}

// Register stores a verifier of the password. Its salt is fresh each time, which no login can tell.
func (p *postgres) Register(ctx context.Context, data sensitive.Value) error {
	c, err := readPostgresCredential(data, accountName)
	if err != nil {
		return err
	}
	verifier, err := postgresql.Verifier(sensitive.New(c.AccountPassword))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	if err := p.asAdmin(ctx, "ALTER ROLE "+accountName+" PASSWORD "+quoted(verifier)); err != nil {
		return fmt.Errorf("register the password of role %s: %w", accountName, err)
	}
	return nil
}

// Managed makes two roles of equal rights and one that may change their passwords and read the
// verifiers.
func (p *postgres) Managed(ctx context.Context) (Managed, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	made := map[string]postgresCredential{}
	for _, role := range []string{adminRole, oneRole, otherRole} {
		made[role] = postgresCredential{role, rand.Text()}
		verifier, err := postgresql.Verifier(sensitive.New(made[role].AccountPassword))
		if err != nil {
			return Managed{}, err
		}
		if err := p.asAdmin(ctx, "CREATE ROLE "+role+" LOGIN PASSWORD "+quoted(verifier)); err != nil {
			return Managed{}, fmt.Errorf("make role %s: %w", role, err)
		}
	}
	for _, grant := range []string{
		"ALTER ROLE " + adminRole + " CREATEROLE",
		"GRANT " + oneRole + ", " + otherRole + " TO " + adminRole + " WITH ADMIN OPTION", // PostgreSQL 16 asks for it
		"GRANT SELECT (rolname, rolpassword) ON pg_catalog.pg_authid TO " + adminRole,
	} {
		if err := p.asAdmin(ctx, grant); err != nil {
			return Managed{}, fmt.Errorf("let role %s change others: %w", adminRole, err)
		}
	}
	admin, err := encodeData(made[adminRole])
	if err != nil {
		return Managed{}, err
	}
	data, err := encodeData(map[string][]postgresCredential{"Accounts": {made[oneRole], made[otherRole]}})
	return Managed{
		Name:     fmt.Sprintf("PostgreSQL %s, roles %s and %s, %s", p.Version, oneRole, otherRole, p.Addr()),
		Kind:     "postgresql",
		Config:   fmt.Sprintf(`{"address":%q,"tls":{"off":true}}`, p.Addr()),
		Admin:    admin,
		Secret:   "demo/database",
		Type:     kms.TypeRds,
		Extended: fmt.Sprintf(`{"SecretSubType":"DoubleUsers","DBInstanceId":%q}`, targetName),
		Data:     data,
		Apply:    "ALTER ROLE " + otherRole + " PASSWORD 'SCRAM-SHA-256$…'",
		Retire:   "ALTER ROLE " + oneRole + " PASSWORD NULL",
		Login: func(ctx context.Context, data sensitive.Value) error {
			return p.login(ctx, data, oneRole, otherRole)
		},
	}, err
}

func (p *postgres) Login(ctx context.Context, data sensitive.Value) error {
	return p.login(ctx, data, accountName)
}

func (p *postgres) login(ctx context.Context, data sensitive.Value, roles ...string) error {
	c, err := readPostgresCredential(data, roles...)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	conn, err := connect(ctx, "127.0.0.1", p.Port, c.AccountName, c.AccountPassword)
	if err != nil {
		return fmt.Errorf("log in to PostgreSQL as %s: %w", c.AccountName, err)
	}
	defer disconnect(conn)
	var one int
	if err := conn.QueryRow(ctx, "SELECT 1").Scan(&one); err != nil {
		return fmt.Errorf("SELECT 1 as %s: %w", c.AccountName, sqlReason(ctx, err))
	}
	return nil
}

func readPostgresCredential(data sensitive.Value, roles ...string) (postgresCredential, error) {
	var c postgresCredential
	if err := decodeData(data, &c); err != nil {
		return c, err
	}
	if !slices.Contains(roles, c.AccountName) {
		return c, fmt.Errorf("the secret data is not for this target: AccountName must be one of %q", roles)
	}
	if err := checkPassword(c.AccountPassword); err != nil {
		return c, fmt.Errorf("AccountPassword: %w", err)
	}
	return c, nil
}

// quoted returns a verifier as a literal of SQL. A verifier has no character that needs an escape.
func quoted(verifier string) string { return "'" + verifier + "'" }
