// Package rotation_test drives the rotation engine as its users do: through the API, against real
// servers.
package rotation_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/rotator"
	"github.com/keyturn/keyturn/internal/sandbox"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/postgresql"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
	"github.com/keyturn/keyturn/test/support"
)

const patience = support.Patience

// start starts a server with PostgreSQL targets.
func start(t *testing.T, options ...keyturntest.Option) *keyturntest.Server {
	t.Helper()
	kinds := server.Change(func(c *server.Config) {
		c.Kinds = []target.Kind{postgresql.Kind()}
		c.Rotator = rotator.Config{Lead: 20 * time.Millisecond}
		if testing.Verbose() {
			c.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
		}
	})
	return keyturntest.Start(t, append([]keyturntest.Option{kinds}, options...)...)
}

// database is a PostgreSQL server with an administrator for the engine and two equal roles.
type database struct {
	*sandbox.Postgres
	admin, app, clone login
}

type login struct {
	AccountName     string
	AccountPassword string
}

func (l login) json() string {
	b, _ := json.Marshal(l)
	return string(b)
}

func startDatabase(t *testing.T, settings ...string) *database {
	t.Helper()
	d := &database{
		Postgres: servers.StartPostgres(t, sandbox.PostgresConfig{
			HBA:      []string{"host all all 127.0.0.1/32 scram-sha-256"},
			Settings: settings,
		}),
		admin: login{"rotator", "the-administrators-password"},
		app:   login{"app", "first-password-of-app"},
		clone: login{"app_clone", "first-password-of-clone"},
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, l := range []login{d.admin, d.app, d.clone} {
		if err := d.Exec(ctx, "postgres",
			fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", l.AccountName, l.AccountPassword)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Exec(ctx, "postgres", "ALTER ROLE rotator CREATEROLE; GRANT SELECT ON pg_authid TO rotator"); err != nil {
		t.Fatal(err)
	}
	return d
}

// login opens a connection and closes it.
func (d *database) login(ctx context.Context, l login) error {
	config, err := pgx.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d dbname=postgres sslmode=disable", d.Port))
	if err != nil {
		return err
	}
	config.User, config.Password = l.AccountName, l.AccountPassword
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// register makes the database a target named pg-main.
func register(t *testing.T, s *keyturntest.Server, d *database) {
	t.Helper()
	ctx := t.Context()
	if _, err := s.Client.CreateSecret(ctx, &kms.CreateSecretRequest{
		SecretName: "pg-admin",
		VersionID:  "v1",
		SecretData: sensitive.New(d.admin.json()),
	}); err != nil {
		t.Fatal(err)
	}
	_, err := s.Client.RegisterTarget(ctx, &kms.RegisterTargetRequest{
		TargetName:      "pg-main",
		Kind:            "postgresql",
		AdminSecretName: "pg-admin",
		Config:          fmt.Sprintf(`{"address":%q,"tls":{"off":true}}`, d.Addr()),
	})
	if err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, s *keyturntest.Server, name, subType string, accounts ...login) {
	t.Helper()
	data, _ := json.Marshal(map[string]any{"Accounts": accounts})
	_, err := s.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: name, SecretType: kms.TypeRds, VersionID: "v1", SecretData: sensitive.New(string(data)),
		ExtendedConfig: fmt.Sprintf(`{"SecretSubType":%q,"DBInstanceId":"pg-main"}`, subType),
	})
	if err != nil {
		t.Fatal(err)
	}
}

func current(t *testing.T, s *keyturntest.Server, name string) (string, login) {
	t.Helper()
	out, err := s.Client.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: name})
	if err != nil {
		t.Fatal(err)
	}
	var l login
	if err := json.Unmarshal([]byte(out.SecretData.Reveal()), &l); err != nil {
		t.Fatal("the value is not JSON")
	}
	return out.VersionID, l
}

// until waits until a rotation is in one of the states.
func until(t *testing.T, s *keyturntest.Server, name string, want ...string) *kms.DescribeRotationResponse {
	t.Helper()
	return untilRotation(t, s, name, "", want...)
}

// untilRotation is until for the rotation with that ID.
func untilRotation(
	t *testing.T, s *keyturntest.Server, name, id string, want ...string,
) (out *kms.DescribeRotationResponse) {
	t.Helper()
	support.Retry(t, func() (err error) {
		out, err = s.Client.DescribeRotation(t.Context(), &kms.SecretNameRequest{SecretName: name})
		must(t, err)
		if !slices.Contains(want, out.State) || id != "" && out.RotationID != id {
			return fmt.Errorf("rotation %q of %q is %s (%s), want %q in %v; steps %+v",
				out.RotationID, name, out.State, out.Reason, id, want, out.Steps)
		}
		return nil
	})
	return out
}

func rotate(t *testing.T, s *keyturntest.Server, name, version string) {
	t.Helper()
	if _, err := s.Client.RotateSecret(t.Context(), &kms.RotateSecretRequest{
		SecretName: name,
		VersionID:  version,
	}); err != nil {
		t.Fatal(err)
	}
}

func TestDoubleUsers(t *testing.T) {
	t.Parallel()
	s, d := start(t), startDatabase(t)
	register(t, s, d)
	create(t, s, "db", "DoubleUsers", d.app, d.clone)
	rotate(t, s, "db", "v2")
	until(t, s, "db", "grace")
	version, l := current(t, s, "db")
	if version != "v2" || l.AccountName != "app_clone" || l.AccountPassword == d.clone.AccountPassword {
		t.Errorf("after the first rotation version %q of account %q", version, l.AccountName)
	}
	for _, l := range []login{l, d.app} {
		if err := d.login(t.Context(), l); err != nil {
			t.Errorf("in grace, %q: %v", l.AccountName, err)
		}
	}
	if _, err := s.Client.EndRotationGrace(t.Context(), &kms.SecretNameRequest{SecretName: "db"}); err != nil {
		t.Fatal(err)
	}
	until(t, s, "db", "done")
	if d.login(t.Context(), d.app) == nil {
		t.Error("the retired credential still works")
	}
	rotate(t, s, "db", "v3")
	out := until(t, s, "db", "grace")
	if version, l = current(t, s, "db"); version != "v3" || l.AccountName != "app" {
		t.Errorf("after the second rotation version %q of account %q", version, l.AccountName)
	}
	if err := d.login(t.Context(), l); err != nil {
		t.Error(err)
	}
	for _, step := range out.Steps {
		t.Log(step.Time.Format("15:04:05.000"), step.State, step.Event, step.Text)
	}
}

func TestSingleUser(t *testing.T) {
	t.Parallel()
	s, d := start(t), startDatabase(t)
	register(t, s, d)
	create(t, s, "db", "SingleUser", d.app)
	for i := range 3 {
		version := fmt.Sprintf("v%d", i+2)
		rotate(t, s, "db", version)
		out := until(t, s, "db", "done")
		got, l := current(t, s, "db")
		if got != version || l.AccountName != "app" || out.Strategy != "single" {
			t.Errorf("version %q of account %q by strategy %q", got, l.AccountName, out.Strategy)
		}
		if err := d.login(t.Context(), l); err != nil {
			t.Error(err)
		}
	}
}
