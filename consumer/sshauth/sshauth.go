// Package sshauth logs in at SSH hosts with the private key or the password in a secret, also
// across rotations.
//
//	host := sshauth.Host{Addr: "web:22", Config: &ssh.ClientConfig{HostKeyCallback: known}}
//	client, err := sshauth.Dial(ctx, c, "acs/ecs/web", host, nil)
//
// # Behavior
//
//   - [Dial] logs in with the current version. If the host rejects it, Dial reads the secret again
//     and repeats the login with the version that is current then, the candidate of a rotation
//     under way, and the previous version ([consumer.Consumer.Login]), within
//     [consumer.Config.LoginLimit]. The connection holds its version ([consumer.Consumer.Hold])
//     until it is closed.
//   - [AuthMethods] is for code that dials itself. The methods offer the same versions in the same
//     order within one handshake. They cannot know how long the connection lives, so they hold
//     nothing.
//
// SSH connections are rarely pooled, and survive a rotation: the host checks the credential only at
// the login.
package sshauth

import (
	"cmp"
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
	"github.com/keyturn/keyturn/consumer/internal/adapter"
	"github.com/keyturn/keyturn/internal/sshkey"
	"github.com/keyturn/keyturn/sensitive"
)

// Options change the defaults. nil means the zero Options.
type Options struct {
	// Format says where in the value the credential is. The zero Format finds the usual members.
	Format credential.Format
	// KeyboardInteractive sends a password with the method "keyboard-interactive" instead of
	// "password".
	KeyboardInteractive bool
}

// Rejected reports whether err of package [ssh] means that a host did not accept a credential.
func Rejected(err error) bool {
	return errors.Is(err, errRejected) ||
		err != nil && strings.Contains(err.Error(), "ssh: unable to authenticate")
}

var errRejected = errors.New("sshauth: the host did not accept the credential")

// Signer returns the private key in a version of a secret. Its errors quote nothing of the value.
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
		return nil, fmt.Errorf("sshauth: the private key in version %s of secret %q has a passphrase; "+
			"store it without one", s.VersionID, s.Name)
	case err != nil:
		return nil, fmt.Errorf("sshauth: the private key in version %s of secret %q cannot be read",
			s.VersionID, s.Name)
	}
	return sshkey.Strongest(key), nil
}

// method returns the method that logs in with a credential.
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

// answers returns the password for each question whose answer the host does not echo. A host that
// wants a password asks nothing else, so answers refuses a question that the host would echo.
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

// Host is where [Dial] logs in.
type Host struct {
	// Network is "tcp", "tcp4" or "tcp6". Empty means "tcp".
	Network string
	// Addr is host:port.
	Addr string
	// Config needs a HostKeyCallback, and must leave Auth empty. Its User is used if the value
	// names no account. Without a Timeout and a deadline of the context, each attempt ends after 15
	// seconds.
	Config *ssh.ClientConfig
}

// Dial connects to a host and logs in with a version that it accepts. The connection holds the
// version until it is closed.
func Dial(
	ctx context.Context, c *consumer.Consumer, secret string, host Host, options *Options,
) (*ssh.Client, error) {
	a, options, err := newAdapter(c, secret, options)
	switch {
	case err != nil:
		return nil, err
	case host.Config == nil || host.Config.HostKeyCallback == nil:
		return nil, errors.New("sshauth: Host.Config needs a HostKeyCallback, which identifies the host")
	case len(host.Config.Auth) > 0:
		return nil, errors.New("sshauth: Host.Config must leave Auth empty; the secret is the credential")
	}
	var opened *heldConn
	var client *ssh.Client
	held, err := a.Login(ctx, func(ctx context.Context, s *consumer.Secret, cred credential.Credential) error {
		method, err := options.method(s, cred)
		if err != nil {
			return err
		}
		config := *host.Config
		config.Auth = []ssh.AuthMethod{method}
		config.User = cmp.Or(cred.Account, config.User)
		opened, client, err = connect(ctx, cmp.Or(host.Network, "tcp"), host.Addr, &config)
		return err
	})
	if err != nil {
		return nil, err
	}
	opened.hold(held.Closed)
	return client, nil
}

// newAdapter returns the shared part of all adapters, and options that are not nil.
func newAdapter(c *consumer.Consumer, secret string, o *Options) (*adapter.Adapter, *Options, error) {
	if o == nil {
		o = &Options{}
	}
	a, err := adapter.New("sshauth", c, secret, &adapter.Options{Format: o.Format}, Rejected)
	return a, o, err
}

// connect makes one connection and logs in.
func connect(ctx context.Context, network, addr string, config *ssh.ClientConfig) (*heldConn, *ssh.Client, error) {
	timeout := config.Timeout
	if _, bounded := ctx.Deadline(); timeout <= 0 && !bounded {
		timeout = defaultTimeout
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	dialled, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, nil, fmt.Errorf("sshauth: %w", err)
	}
	conn := &heldConn{Conn: dialled}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	sshConn, channels, requests, err := ssh.NewClientConn(conn, addr, config)
	if !stop() && err == nil {
		_ = sshConn.Close() // ctx ended, which has closed conn
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		return nil, nil, fmt.Errorf("sshauth: log in at %s: %w", addr, err)
	}
	return conn, ssh.NewClient(sshConn, channels, requests), nil
}

// heldConn is a connection that holds its version until either side closes it.
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

// maxOffers is the number of versions that [consumer.Consumer.Failed] can offer: the current one
// before and after a read, the candidate, and the previous one.
const maxOffers = 4

// AuthMethods returns the Auth of an ssh.ClientConfig for one connection; the caller sets the user.
// Each time that the host rejects a version, the same connection offers the next one, as long as
// the host allows further attempts (OpenSSH: six). Rejections count towards
// [consumer.Config.LoginLimit]. ctx bounds the handshake.
func AuthMethods(
	ctx context.Context, c *consumer.Consumer, secret string, options *Options,
) ([]ssh.AuthMethod, error) {
	a, options, err := newAdapter(c, secret, options)
	if err != nil {
		return nil, err
	}
	first, err := c.Get(ctx, secret)
	if err != nil {
		return nil, err
	}
	cred, err := options.Format.Read(first)
	if err != nil {
		return nil, err
	}
	o := &offers{ctx: ctx, adapter: a, first: first}
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

// offers hands out one version after the other on one connection. A request for a further version
// means that the host has rejected the last one.
type offers struct {
	ctx     context.Context // of one handshake
	adapter *adapter.Adapter
	first   *consumer.Secret
	offered *consumer.Secret
}

func (o *offers) next() (*consumer.Secret, credential.Credential, error) {
	s := o.first
	if o.offered != nil {
		var err error
		a := o.adapter
		if s, err = a.Consumer.Failed(o.ctx, a.Secret, o.offered.VersionID, errRejected); err != nil {
			return nil, credential.Credential{}, err
		}
	}
	o.offered = s
	cred, err := o.adapter.Options.Format.Read(s)
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
	if len(questions) == 0 { // the last round of a host, before it accepts or rejects
		return nil, nil
	}
	_, cred, err := o.next()
	if err != nil {
		return nil, err
	}
	return answers(cred.Secret, questions, echo)
}
