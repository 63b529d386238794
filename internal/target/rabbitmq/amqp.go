package rabbitmq

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/keyturn/keyturn/internal/target"
)

const (
	dialTimeout  = 5 * time.Second
	loginTimeout = 15 * time.Second // of one endpoint, where the context has more
)

// Verify logs in by AMQP 0-9-1 at every endpoint and opens the virtual host, as an application
// does.
func (b *broker) Verify(ctx context.Context, c target.Credential) error {
	return target.VerifyEach(ctx, b.config.endpoints, func(ctx context.Context, e endpoint) error {
		return b.login(ctx, e, c)
	})
}

func (b *broker) login(ctx context.Context, e endpoint, c target.Credential) error {
	what := fmt.Sprintf("log in as %q at %s (%s)", c.Account, b.name, e.addr)
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	conn, err := b.dial(ctx, e)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return target.NotSent(what, err, c.Secret)
	}
	defer conn.Close()
	// The library waits by itself without a context.
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
	if err != nil {
		err = judge(ctx, what, err, c)
		if !e.tls {
			err = target.Unproven(what, err)
		}
		return err
	}
	_ = session.Close() // the login has succeeded, whatever becomes of the farewell
	return nil
}

func (b *broker) dial(ctx context.Context, e endpoint) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := b.dialTCP(ctx, "tcp", e.addr)
	if err != nil || !e.tls {
		return conn, err
	}
	secure := tls.Client(conn, b.config.TLS.Config(e.host))
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // nothing was asked
		return nil, err
	}
	return secure, nil
}

// judge says what a failed login means. Only a server that said so has rejected it: the library
// reports a connection that was cut during the login as a wrong password too.
func judge(ctx context.Context, what string, err error, c target.Credential) error {
	var said *amqp.Error
	switch {
	case errors.As(err, &said) && said.Server:
	case ctx.Err() != nil:
		return target.NoAnswer(what, ctx.Err(), c.Secret)
	default:
		return target.Failed(target.Unknown, "", what+": the connection ended without an answer to the login", c.Secret)
	}
	class := target.Unknown
	switch said.Code {
	case amqp.AccessRefused:
		class = target.Rejected
	case amqp.NotAllowed: // the virtual host; the login has succeeded
		class = target.Denied
	}
	return target.Failed(class, strconv.Itoa(said.Code), what+": "+target.Clean(said.Reason, c.Secret), c.Secret)
}

// plain is the SASL mechanism PLAIN. It also asks the server to say when it refuses a login instead
// of hanging up, which the library does not ask for: Response is called after the library has set
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
