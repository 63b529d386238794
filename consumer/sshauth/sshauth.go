// Package sshauth logs in at SSH hosts with the private key or the password in a secret, and goes on over rotations.
//
//	client, err := sshauth.Dial(ctx, c, "acs/ecs/web", "tcp", "web.example.com:22", &ssh.ClientConfig{HostKeyCallback: known}, nil)
//
// What it does:
//
//   - Dial logs in with the current version. When the host rejects it, the secret is read again once and the login repeated
//     with what is current then, with the candidate of a rotation that is under way, and with the version before, by
//     consumer.Login; its limit of rejected logins holds. The connection holds its version (consumer.Hold) until it is closed.
//   - AuthMethods is for code that dials by itself: the methods offer the same versions in the same order within one
//     handshake. They do not know what became of the connection, so they hold nothing.
//
// An SSH connection is seldom pooled, and outlives a rotation: the host asks for the credential at the login alone.
package sshauth

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/credential"
	"github.com/keyturn/keyturn/sensitive"
)

// Options are what can be set; nil stands for the zero Options.
type Options struct {
	// Format says where in the value the credential is. Zero finds the usual members.
	Format credential.Format
	// KeyboardInteractive answers the questions of a host that asks for the password in that way, instead of the method
	// "password".
	KeyboardInteractive bool
}

// Rejected reports whether err is how package ssh says that a host did not accept a credential.
func Rejected(err error) bool {
	return errors.Is(err, errRejected) || err != nil && strings.Contains(err.Error(), "ssh: unable to authenticate")
}

var errRejected = errors.New("sshauth: the host did not accept the credential")

// Signer returns the private key in a version of a secret. Its errors hold nothing of the value.
func Signer(s *consumer.Secret, format credential.Format) (ssh.Signer, error) {
	cred, err := format.Read(s)
	if err != nil {
		return nil, err
	}
	if !isKey(cred.Secret) {
		return nil, fmt.Errorf("sshauth: version %s of secret %q holds no private key in PEM", s.VersionID, s.Name)
	}
	return signer(s, cred)
}

func isKey(v sensitive.Value) bool {
	return strings.HasPrefix(strings.TrimSpace(v.Reveal()), "-----BEGIN ")
}

func signer(s *consumer.Secret, cred credential.Credential) (ssh.Signer, error) {
	key, err := ssh.ParsePrivateKey([]byte(cred.Secret.Reveal()))
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		return nil, fmt.Errorf("sshauth: the private key in version %s of secret %q has a passphrase; store it without one", s.VersionID, s.Name)
	case err != nil:
		return nil, fmt.Errorf("sshauth: the private key in version %s of secret %q cannot be read", s.VersionID, s.Name)
	}
	return key, nil
}

// method is how to log in with one credential.
func (o Options) method(s *consumer.Secret, cred credential.Credential) (ssh.AuthMethod, error) {
	switch {
	case isKey(cred.Secret):
		key, err := signer(s, cred)
		if err != nil {
			return nil, err
		}
		return ssh.PublicKeys(key), nil
	case o.KeyboardInteractive:
		return ssh.KeyboardInteractive(func(_, _ string, questions []string, echo []bool) ([]string, error) {
			return answers(cred.Secret, questions, echo)
		}), nil
	}
	return ssh.Password(cred.Secret.Reveal()), nil
}

// answers gives the password to a question whose answer is not shown. Others are not asked by hosts that want a password.
func answers(password sensitive.Value, questions []string, echo []bool) ([]string, error) {
	list := make([]string, len(questions))
	for i := range questions {
		if echo[i] {
			return nil, errors.New("sshauth: the host asks for something that is not a password")
		}
		list[i] = password.Reveal()
	}
	return list, nil
}

const defaultTimeout = 15 * time.Second

// Dial connects and logs in. The user is the one in the value, or that of config where the value names none. Without
// config.Timeout and a deadline of ctx, each attempt is given up after 15 seconds.
func Dial(ctx context.Context, c *consumer.Consumer, secret, network, addr string, config *ssh.ClientConfig, options *Options) (*ssh.Client, error) {
	if options == nil {
		options = &Options{}
	}
	switch {
	case c == nil:
		return nil, errors.New("sshauth: the consumer is missing")
	case config == nil || config.HostKeyCallback == nil:
		return nil, errors.New("sshauth: the configuration needs a HostKeyCallback, to tell the host by")
	case len(config.Auth) > 0:
		return nil, errors.New("sshauth: leave Auth out of the configuration; the secret is what to log in with")
	}
	var client *ssh.Client
	_, err := c.Login(ctx, secret, Rejected, func(ctx context.Context, s *consumer.Secret) error {
		cred, err := options.Format.Read(s)
		if err != nil {
			return err
		}
		method, err := options.method(s, cred)
		if err != nil {
			return err
		}
		with := *config
		with.Auth = []ssh.AuthMethod{method}
		if cred.Account != "" {
			with.User = cred.Account
		}
		client, err = connect(ctx, network, addr, &with, func() func() { return c.Hold(secret, s.VersionID) })
		return err
	})
	if err != nil {
		return nil, err
	}
	return client, nil
}

// connect makes one connection, and calls hold once it is logged in.
func connect(ctx context.Context, network, addr string, config *ssh.ClientConfig, hold func() func()) (*ssh.Client, error) {
	timeout := config.Timeout
	if _, bounded := ctx.Deadline(); timeout <= 0 && !bounded {
		timeout = defaultTimeout
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, fmt.Errorf("sshauth: %w", err)
	}
	held := &heldConn{Conn: conn}
	stop := context.AfterFunc(ctx, func() { _ = held.Close() })
	sshConn, channels, requests, err := ssh.NewClientConn(held, addr, config)
	if !stop() && err == nil {
		_ = sshConn.Close() // it has been closed below already
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = held.Close() // it is of no use
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		return nil, fmt.Errorf("sshauth: log in at %s: %w", addr, err)
	}
	held.hold(hold())
	return ssh.NewClient(sshConn, channels, requests), nil
}

// heldConn is a connection that holds its version until it is closed, by whichever side.
type heldConn struct {
	net.Conn

	mu      sync.Mutex
	closed  bool   // guarded by mu
	release func() // guarded by mu
}

func (c *heldConn) hold(release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		release()
	} else {
		c.release = release
	}
}

func (c *heldConn) Close() error {
	c.mu.Lock()
	c.closed = true
	if c.release != nil {
		c.release()
	}
	c.mu.Unlock()
	return c.Conn.Close()
}

// maxOffers is the current version before and after it was read again, the candidate and the version before.
const maxOffers = 4

// AuthMethods returns what to put into ssh.ClientConfig.Auth for one connection; the user is for the caller to set. Each time
// that the host rejects a version, the next one is offered on the same connection, as far as the host allows several attempts
// (OpenSSH: six). Rejections count for the limit of consumer.Config.LoginLimit. ctx bounds the handshake.
func AuthMethods(ctx context.Context, c *consumer.Consumer, secret string, options *Options) ([]ssh.AuthMethod, error) {
	if options == nil {
		options = &Options{}
	}
	if c == nil {
		return nil, errors.New("sshauth: the consumer is missing")
	}
	first, err := c.Get(ctx, secret)
	if err != nil {
		return nil, err
	}
	cred, err := options.Format.Read(first)
	if err != nil {
		return nil, err
	}
	o := &offers{ctx: ctx, consumer: c, secret: secret, format: options.Format, first: first}
	var method ssh.AuthMethod
	switch {
	case isKey(cred.Secret):
		method = ssh.PublicKeysCallback(o.key)
	case options.KeyboardInteractive:
		method = ssh.KeyboardInteractive(o.interactive)
	default:
		method = ssh.PasswordCallback(o.password)
	}
	return []ssh.AuthMethod{ssh.RetryableAuthMethod(method, maxOffers)}, nil
}

// offers is the versions that are offered on one connection, one after the other: that a further one is asked for means that
// the one before was rejected.
type offers struct {
	ctx      context.Context // of one handshake
	consumer *consumer.Consumer
	secret   string
	format   credential.Format
	first    *consumer.Secret
	offered  *consumer.Secret
}

func (o *offers) next() (*consumer.Secret, credential.Credential, error) {
	s := o.first
	if o.offered != nil {
		var err error
		if s, err = o.consumer.Failed(o.ctx, o.secret, o.offered.VersionID, errRejected); err != nil {
			return nil, credential.Credential{}, err
		}
	}
	o.offered = s
	cred, err := o.format.Read(s)
	return s, cred, err
}

func (o *offers) key() ([]ssh.Signer, error) {
	s, cred, err := o.next()
	if err != nil {
		return nil, err
	}
	key, err := signer(s, cred)
	if err != nil {
		return nil, err
	}
	return []ssh.Signer{key}, nil
}

func (o *offers) password() (string, error) {
	_, cred, err := o.next()
	return cred.Secret.Reveal(), err
}

func (o *offers) interactive(_, _ string, questions []string, echo []bool) ([]string, error) {
	if len(questions) == 0 { // hosts end with this, whether or not they accept
		return nil, nil
	}
	_, cred, err := o.next()
	if err != nil {
		return nil, err
	}
	return answers(cred.Secret, questions, echo)
}
