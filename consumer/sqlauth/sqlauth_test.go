package sqlauth_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/consumertest"
	"github.com/keyturn/keyturn/consumer/credential"
	"github.com/keyturn/keyturn/consumer/sqlauth"
	"github.com/keyturn/keyturn/kms"
)

// database accepts passwords, and answers each query with the password that its connection was
// opened with.
type database struct {
	mu       sync.Mutex
	accepts  map[string]bool
	rejects  error
	logins   []string
	rejected int
	open     map[*session]bool
}

func newDatabase(passwords ...string) *database {
	d := &database{
		rejects: &pgconn.PgError{Severity: "FATAL", Code: "28P01", Message: "password authentication failed"},
		open:    map[*session]bool{},
	}
	d.accept(passwords...)
	return d
}

func (d *database) accept(passwords ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.accepts = map[string]bool{}
	for _, p := range passwords {
		d.accepts[p] = true
	}
}

// count is how many connections are open that were opened with a password.
func (d *database) count(password string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for s := range d.open {
		if s.password == password {
			n++
		}
	}
	return n
}

func (d *database) opener(c credential.Credential) (driver.Connector, error) {
	return connector{d, c.Account, c.Secret.Reveal()}, nil
}

type connector struct {
	*database
	account, password string
}

func (c connector) Driver() driver.Driver { return nil }

func (c connector) Connect(context.Context) (driver.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.logins = append(c.logins, c.password)
	if c.account != "app" || !c.accepts[c.password] {
		c.rejected++
		return nil, fmt.Errorf("connect: %w", c.rejects)
	}
	s := &session{database: c.database, password: c.password}
	c.open[s] = true
	return s, nil
}

// session has the least that a driver must have.
type session struct {
	*database
	password string
}

func (s *session) Prepare(query string) (driver.Stmt, error) { return &statement{s, query}, nil }
func (s *session) Begin() (driver.Tx, error)                 { return s, nil }
func (s *session) Commit() error                             { return nil }
func (s *session) Rollback() error                           { return nil }

func (s *session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open[s] {
		return errors.New("closed twice")
	}
	delete(s.open, s)
	return nil
}

type statement struct {
	session *session
	query   string
}

func (s *statement) Close() error                               { return nil }
func (s *statement) NumInput() int                              { return strings.Count(s.query, "?") }
func (s *statement) Exec([]driver.Value) (driver.Result, error) { return driver.RowsAffected(1), nil }
func (s *statement) Query([]driver.Value) (driver.Rows, error) {
	return &row{value: s.session.password}, nil
}

type row struct {
	value string
	done  bool
}

func (r *row) Columns() []string { return []string{"password"} }
func (r *row) Close() error      { return nil }

func (r *row) Next(to []driver.Value) error {
	if r.done {
		return io.EOF
	}
	r.done, to[0] = true, r.value
	return nil
}

func value(password string) string {
	return fmt.Sprintf(`{"AccountName":"app","AccountPassword":%q}`, password)
}

func open(t *testing.T, c *consumer.Consumer, d *database, options *sqlauth.Options) *sql.DB {
	t.Helper()
	db, err := sqlauth.OpenDB(c, "db", d.opener, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func asked(t *testing.T, q interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}) string {
	t.Helper()
	var password string
	if err := q.QueryRowContext(t.Context(), "SELECT ?", 1).Scan(&password); err != nil {
		t.Fatal(err)
	}
	return password
}

// TestRejected verifies that a caller does not notice that the server no longer accepts a password:
// whether the new one is current already, is the candidate, or only the previous version works.
func TestRejected(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		change  func(*consumertest.Endpoint)
		accepts string
	}{
		{"promoted", func(e *consumertest.Endpoint) { e.Put("db", "v2", value("p2")) }, "p2"},
		{"candidate", func(e *consumertest.Endpoint) { e.SetStage("db", kms.StagePending, "v2", value("p2")) }, "p2"},
		{"previous", func(e *consumertest.Endpoint) { e.SetStage("db", kms.StagePrevious, "v0", value("p0")) }, "p0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, c := consumertest.New(t, "db", "v1", value("p1"))
				d := newDatabase("p1")
				db := open(t, c, d, nil)
				time.Sleep(time.Second) // the value was read before it stops working
				d.accept(tt.accepts)
				tt.change(e)
				if got := asked(t, db); got != tt.accepts || d.rejected != 1 {
					t.Errorf("the query is answered by a connection with %q after %d rejections, want %q after one",
						got, d.rejected, tt.accepts)
				}
			})
		})
	}
}

func TestNothingWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c := consumertest.New(t, "db", "v1", value("p1"))
		d := newDatabase()
		db := open(t, c, d, nil)
		err := db.PingContext(t.Context())
		var said *pgconn.PgError
		if !errors.As(err, &said) || strings.Contains(err.Error(), "p1") {
			t.Errorf("got %v, want the server's own error", err)
		}
		d.rejects = errors.New("connection refused")
		before := len(d.logins)
		if err := db.PingContext(t.Context()); err == nil || !strings.Contains(err.Error(), "connection refused") ||
			len(d.logins) != before+1 {
			t.Errorf("an outage is answered by %v after %d logins, want one", err, len(d.logins)-before)
		}
	})
}

// TestDrain verifies that connections of the previous version are replaced one by one, and are held
// until then.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, c := consumertest.New(t, "db", "v1", value("p1"))
		d := newDatabase("p1")
		db := open(t, c, d, &sqlauth.Options{DrainWithin: 10 * time.Minute})
		db.SetMaxIdleConns(40)
		use := func() {
			var conns []*sql.Conn
			for range 40 {
				conn, err := db.Conn(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				conns = append(conns, conn)
			}
			for _, conn := range conns {
				_ = conn.Close()
			}
		}
		use()
		kept, err := db.Conn(t.Context()) // for longer than anything
		if err != nil {
			t.Fatal(err)
		}
		e.Put("db", "v2", value("p2"))
		d.accept("p1", "p2")
		if err := c.Refresh(t.Context(), "db"); err != nil {
			t.Fatal(err)
		}
		left := []int{}
		for range 11 {
			use()
			left = append(left, d.count("p1"))
			time.Sleep(time.Minute)
		}
		if left[4] != 40 || left[10] != 1 || left[7] < 5 || left[7] > 35 {
			t.Errorf("connections with the previous password after each minute: %v; "+
				"want all 40 for five minutes, then fewer, then the one in use", left)
		}
		if held := consumertest.Held(t, c, "db"); held != "v1" || asked(t, kept) != "p1" {
			t.Errorf("while a connection of v1 is in use, %q is held", held)
		}
		_ = kept.Close()
		if held := consumertest.Held(t, c, "db"); held != "" || d.count("p1") != 0 {
			t.Errorf("after its return %q is held and %d are open", held, d.count("p1"))
		}
	})
}

// TestTaken verifies that the pool does not hand out a connection that is due.
func TestTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, c := consumertest.New(t, "db", "v1", value("p1"))
		d := newDatabase("p1", "p2")
		db := open(t, c, d, nil)
		db.SetConnMaxIdleTime(0)
		_ = asked(t, db)
		e.Put("db", "v2", value("p2"))
		if err := c.Refresh(t.Context(), "db"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Minute)
		if got := asked(t, db); got != "p2" {
			t.Errorf("a query is answered by a connection with %q", got)
		}
	})
}

// TestIdle verifies that an unused pool releases the versions that it holds.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, c := consumertest.New(t, "db", "v1", value("p1"))
		d := newDatabase("p1")
		db := open(t, c, d, nil)
		_ = asked(t, db)
		e.Put("db", "v2", value("p2"))
		if err := c.Refresh(t.Context(), "db"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(11 * time.Minute)
		if held := consumertest.Held(t, c, "db"); held != "" || d.count("p1") != 0 {
			t.Errorf("%q is held by a pool that is idle, %d connections are open", held, d.count("p1"))
		}
	})
}

// TestPlainDriver verifies that conn does what database/sql would do if the driver lacks an
// ability.
func TestPlainDriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c := consumertest.New(t, "db", "v1", value("p1"))
		d := newDatabase("p1")
		db := open(t, c, d, nil)
		if _, err := db.ExecContext(t.Context(), "INSERT ?", sql.NullInt64{Int64: 1, Valid: true}); err != nil {
			t.Error(err)
		}
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if asked(t, tx) != "p1" || tx.Commit() != nil {
			t.Error("a transaction does not work")
		}
		if _, err := db.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true}); err == nil {
			t.Error("a read-only transaction is begun with a driver that has none")
		}
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		err = conn.Raw(func(inner any) error {
			if _, ok := inner.(sqlauth.Unwrapper).Unwrap().(*session); !ok {
				return errors.New("it is not the driver's connection")
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestRejectedErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{&pgconn.PgError{Code: "28P01"}, true},
		{fmt.Errorf("connect: %w", &pgconn.PgError{Code: "28000"}), true},
		{&pgconn.PgError{Code: "53300"}, false},
		{&mysql.MySQLError{Number: 1045, SQLState: [5]byte{'2', '8', '0', '0', '0'}, Message: "Access denied"}, true},
		{errors.Join(io.EOF, fmt.Errorf("x: %w", &mysql.MySQLError{Number: 1045, Message: "Access denied"})), true},
		{&mysql.MySQLError{Number: 1040, Message: "Too many connections"}, false},
		{io.EOF, false},
	} {
		if got := sqlauth.Rejected(tt.err); got != tt.want {
			t.Errorf("Rejected(%v) = %v", tt.err, got)
		}
	}
}

func TestNewConnectorRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c := consumertest.New(t, "db", "v1", value("p1"))
		d := newDatabase()
		for want, make := range map[string]func() (*sql.DB, error){
			"consumer is missing": func() (*sql.DB, error) { return sqlauth.OpenDB(nil, "db", d.opener, nil) },
			"name of the secret":  func() (*sql.DB, error) { return sqlauth.OpenDB(c, "", d.opener, nil) },
			"(Open) is missing":   func() (*sql.DB, error) { return sqlauth.OpenDB(c, "db", nil, nil) },
			"DrainWithin is -1s": func() (*sql.DB, error) {
				return sqlauth.OpenDB(c, "db", d.opener, &sqlauth.Options{DrainWithin: -time.Second})
			},
		} {
			if _, err := make(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want an error that says %q", err, want)
			}
		}
	})
}
