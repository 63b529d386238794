// Package smtpauth logs in at a mail server with the credential in a secret, also across rotations.
//
//	client, err := smtpauth.Dial(ctx, c, "mail", smtpauth.Host{Name: "mail.example.com"}, nil)
//
// If the server rejects the current version, [Dial] repeats the login with other versions
// ([consumer.Consumer.Login]). The version is held until [Client.Close].
package smtpauth

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"net/textproto"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/credential"
	"github.com/keyturn/keyturn/consumer/internal/adapter"
)

// Options change the defaults. nil means the zero Options.
type Options struct {
	// Format says where in the value the credential is. The zero Format finds the usual members.
	Format credential.Format
}

// Host is where [Dial] logs in.
type Host struct {
	// Name is the name of the server, which its certificate must have.
	Name string
	// Addr is host:port of a listener with TLS. Empty means port 465 of Name.
	Addr string
	// TLS is the configuration of the connection. nil means the zero tls.Config.
	TLS *tls.Config
}

// Client is a connection that holds its version until it is closed.
type Client struct {
	*smtp.Client
	held *adapter.Conn
}

// Close closes the connection.
func (c *Client) Close() error {
	c.held.Closed()
	return c.Client.Close()
}

// Rejected reports whether a server has answered that it does not accept a credential, with 535.
func Rejected(err error) bool {
	var e *textproto.Error
	return errors.As(err, &e) && e.Code == 535
}

// Dial connects to a server and logs in with a version that it accepts.
func Dial(
	ctx context.Context, c *consumer.Consumer, secret string, host Host, options *Options,
) (*Client, error) {
	if options == nil {
		options = &Options{}
	}
	a, err := adapter.New("smtpauth", c, secret, &adapter.Options{Format: options.Format}, Rejected)
	if err != nil {
		return nil, err
	}
	var client *smtp.Client
	held, err := a.Login(ctx, func(ctx context.Context, _ *consumer.Secret, cred credential.Credential) (err error) {
		if client, err = host.connect(ctx); err != nil {
			return err
		}
		if err = client.Auth(smtp.PlainAuth("", cred.Account, cred.Secret.Reveal(), host.Name)); err != nil {
			_ = client.Close()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Client{Client: client, held: held}, nil
}

func (h Host) connect(ctx context.Context) (*smtp.Client, error) {
	config := h.TLS.Clone()
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	config.ServerName = h.Name
	addr := h.Addr
	if addr == "" {
		addr = net.JoinHostPort(h.Name, "465")
	}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("smtpauth: %w", err)
	}
	client, err := smtp.NewClient(conn, h.Name)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("smtpauth: %w", err)
	}
	return client, nil
}
