// Package applications has one application for each kind of target: unmodified clients (psql and a
// pool of pgx; mariadb and a pool of go-sql-driver; redis-cli; ssh; ldapsearch; amqp091) with the
// configuration that a user would write, and work that notices a lost or a gained right and not
// only a login. The work leaves nothing behind.
//
// The tests make what the work is about: tables, keys, entries and queues under the names that the
// file of the kind gives.
package applications

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"
)

// Outcome is what each piece of work answered, by its name. Under [Login] it is [In], or what the
// client said.
type Outcome map[string]string

// Login is the piece of work that all clients have, and In its answer when the server let it in.
const (
	Login = "login"
	In    = "in"
)

// Config says how an application connects. It can be sent to another process.
type Config struct {
	// Kind is the kind of target: postgresql, mariadb, mysql, redis, ssh, ldap or rabbitmq.
	Kind string
	// Address is host:port of the server, the pooler or the proxy.
	Address string
	// Database is the database, or the virtual host of RabbitMQ.
	Database string
	// CA, Certificate and Key are files in PEM. Without CA there is no TLS.
	CA, Certificate, Key string
	// Source is the address of loopback that the application comes from; empty for any. Programs
	// that cannot choose theirs are left out.
	Source string
	// Role is what the application takes after its login.
	Role string
	// Name is what the application calls its own: the role that owns its tables, or the prefix of
	// its keys and queues.
	Name string
	// HostKey is the key of an SSH host, as in known_hosts.
	HostKey string
}

// Client is a program, or a library, with work of its own.
type Client struct {
	Name string
	// Program is set when each call starts a process.
	Program bool
	// Work does it once with the value of a secret. The error says that the client could not be run,
	// or that no answer came.
	Work func(ctx context.Context, value string) (Outcome, error)
}

// Application is what a secret is for.
type Application struct {
	Clients []Client
	open    opener
	config  Config
}

// opener opens a session and returns what ends it. Its error is [ErrRejected] when the server has
// rejected the credential.
type opener func(ctx context.Context, c Config, v Value) (end func() error, err error)

// ErrRejected means that a server does not accept a credential.
var ErrRejected = errors.New("the server does not accept the credential")

// kind is how applications of a kind are made.
type kind struct {
	clients []client
	open    opener
}

// client is a [Client] before its configuration.
type client struct {
	name string
	// program is the executable, and debian its package; empty for a library.
	program, debian string
	// anywhere is set when the client can choose its source address.
	anywhere bool
	work     func(ctx context.Context, c Config, v Value) (Outcome, error)
}

var kinds = map[string]kind{
	"postgresql": {clients: postgresqlClients, open: openPostgreSQL},
	"mariadb":    {clients: mysqlClients, open: openMySQL},
	"mysql":      {clients: mysqlClients, open: openMySQL},
	"redis":      {clients: redisClients, open: openRedis},
	"ssh":        {clients: sshClients, open: openSSH},
	"ldap":       {clients: ldapClients, open: openLDAP},
	"rabbitmq":   {clients: rabbitmqClients, open: openRabbitMQ},
}

// Has reports whether there is an application of a kind of target.
func Has(name string) bool { return kinds[name].open != nil }

// Require skips the test where a program of a kind's application is not installed.
func Require(t testing.TB, name string) {
	t.Helper()
	for _, c := range kinds[name].clients {
		if c.program == "" {
			continue
		}
		if _, err := exec.LookPath(c.program); err != nil {
			t.Skipf("%s is not installed (Debian package %s, scripts/test-deps)", c.program, c.debian)
		}
	}
}

// New returns the application of c.Kind, which must be one that [Has] knows.
func New(c Config) *Application {
	k := kinds[c.Kind]
	a := &Application{open: k.open, config: c}
	for _, one := range k.clients {
		if c.Source != "" && !one.anywhere {
			continue
		}
		a.Clients = append(a.Clients, Client{
			Name:    one.name,
			Program: one.program != "",
			Work: func(ctx context.Context, value string) (Outcome, error) {
				v, err := Parse(value)
				if err != nil {
					return nil, err
				}
				return one.work(ctx, c, v)
			},
		})
	}
	return a
}

// Work has all clients do their work. The outcome of one that was not let in stands for all.
func (a *Application) Work(ctx context.Context, value string) (Outcome, error) {
	all := Outcome{}
	for _, c := range a.Clients {
		out, err := c.Work(ctx, value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
		if out[Login] != In {
			return Outcome{Login: c.Name + ": " + out[Login]}, nil
		}
		maps.Copy(all, out)
	}
	return all, nil
}

// loginTimeout bounds a login, and patience a connection.
const (
	loginTimeout = 30 * time.Second
	patience     = 10 * time.Second
)

// Open opens a session with the value of a secret and returns what ends it.
func (a *Application) Open(ctx context.Context, value string) (end func() error, err error) {
	v, err := Parse(value)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	return a.open(ctx, a.config, v)
}

// Login logs in with the value of a secret and ends the session. It returns false when the server
// has rejected the credential, and an error when it did not let in for another reason.
func (a *Application) Login(ctx context.Context, value string) (bool, error) {
	end, err := a.Open(ctx, value)
	if errors.Is(err, ErrRejected) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, end()
}

// Value is what GetSecretValue returns; each type of secret has some of the members.
type Value struct {
	AccountName, AccountPassword   string
	UserName, Password, PrivateKey string
}

// Parse reads the value of a secret.
func Parse(value string) (v Value, err error) {
	if json.Unmarshal([]byte(value), &v) != nil {
		return v, errors.New("the value is not JSON")
	}
	if v.AccountName == "" {
		v.AccountName = v.UserName
	}
	if v.AccountPassword == "" {
		v.AccountPassword = v.Password
	}
	return v, nil
}

// dialer returns one that comes from the source address.
func (c Config) dialer() *net.Dialer {
	d := &net.Dialer{Timeout: patience}
	if c.Source != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(c.Source)}
	}
	return d
}

// dial connects, over TLS if there is a CA, with the deadline of the context.
func (c Config) dial(ctx context.Context) (net.Conn, error) {
	secure, err := c.tls()
	if err != nil {
		return nil, err
	}
	conn, err := c.dialer().DialContext(ctx, "tcp", c.Address)
	if err != nil {
		return nil, err
	}
	if at, ok := ctx.Deadline(); ok {
		err = conn.SetDeadline(at)
	}
	if secure != nil {
		return tls.Client(conn, secure), err
	}
	return conn, err
}

// tls returns the settings of TLS; nil for none.
func (c Config) tls() (*tls.Config, error) {
	if c.CA == "" {
		return nil, nil
	}
	text, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, err
	}
	out := &tls.Config{RootCAs: x509.NewCertPool()}
	if !out.RootCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate", c.CA)
	}
	if out.ServerName, _, err = net.SplitHostPort(c.Address); err != nil {
		return nil, err
	}
	if c.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
		if err != nil {
			return nil, err
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}
