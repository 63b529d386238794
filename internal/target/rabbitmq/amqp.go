package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
)

// loginTimeout bounds the login at one endpoint, if the context allows more.
const loginTimeout = 15 * time.Second

// Verify logs in by AMQP 0-9-1 at every endpoint and opens the virtual host, like an application.
func (b *broker) Verify(ctx context.Context, c target.Credential) error {
	if len(b.config.endpoints) == 0 {
		return target.Denied.Errorf("%s: no login endpoint of the secret is an address of amqp", b.name)
	}
	return target.VerifyEach(ctx, b.config.endpoints, func(ctx context.Context, e endpoint) error {
		return b.login(ctx, e, c)
	})
}

func (b *broker) login(ctx context.Context, e endpoint, c target.Credential) error {
	what := fmt.Sprintf("log in as %s at %s (%s)", fault.Quoted(c.Account), b.name, e.addr)
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	conn, err := e.tls.Connect(ctx, b.dialTCP, e.addr, b.certificates...)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return target.NotSent(what, err, c.Secret)
	}
	defer conn.Close()
	// The library waits without a context. Closing the connection ends its wait.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName("keyturn")
	session, err := amqp.Open(conn, amqp.Config{
		SASL:       []amqp.Authentication{plain{c, properties}},
		Vhost:      b.config.VHost,
		Properties: properties,
		Locale:     "en_US",
	})
	if err == nil {
		_ = session.Close() // the login has succeeded, also if closing the session fails
		return nil
	}
	failed := judge(ctx, what, err, c)
	if e.tls.Off {
		failed = failed.Unproven(what)
	}
	if failed.Class == target.Rejected {
		return b.explained(ctx, c, failed)
	}
	return failed
}

// explained returns the error for a login that was rejected: the rejection, unless RabbitMQ's own
// database has the password, so that something else refuses the user.
func (b *broker) explained(ctx context.Context, c target.Credential, rejected *target.Error) *target.Error {
	u, err := b.user(ctx, "explain a rejection", c)
	if err != nil || u.accepts(c.Secret) != target.Live {
		return rejected
	}
	denied := *rejected
	denied.Class = target.Denied
	denied.Text += "; RabbitMQ's own database has this password, so the user may log in from the broker's host alone " +
		"(loopback_users), or another backend than the internal one decides (auth_backends)"
	return &denied
}

// judge classifies a failed login. It counts as rejected only if the server said so: the library
// also reports a wrong password when the connection was cut during the login.
func judge(ctx context.Context, what string, err error, c target.Credential) *target.Error {
	var said *amqp.Error
	switch {
	case errors.As(err, &said) && said.Server:
	case ctx.Err() != nil:
		return target.NoAnswer(what, ctx.Err(), c.Secret)
	default:
		return target.Failed(target.Unknown, "", what+": the connection ended without an answer to the login", c.Secret)
	}
	class := target.Unclear
	switch said.Code {
	case amqp.AccessRefused:
		class = target.Rejected
	case amqp.NotAllowed:
		// RabbitMQ sends it only after the login: no right to the virtual host, no such virtual host,
		// or a limit of connections.
		class = target.Admitted
	case amqp.ConnectionForced: // the node shuts down
		class = target.Unknown
	}
	return target.Failed(class, strconv.Itoa(said.Code), what+": "+target.Said(said.Reason, c.Secret), c.Secret)
}

// plain is the SASL mechanism PLAIN. It also asks the server to report a refused login before it
// closes the connection, which the library does not: the library calls Response after it has set
// the capabilities and before it sends them.
type plain struct {
	c          target.Credential
	properties amqp.Table
}

func (p plain) Mechanism() string { return "PLAIN" }

func (p plain) Response() string {
	if capabilities, ok := p.properties["capabilities"].(amqp.Table); ok {
		capabilities["authentication_failure_close"] = true
	}
	return "\x00" + p.c.Account + "\x00" + p.c.Secret.Reveal()
}
