// Package rabbitmq is the kind "rabbitmq": passwords of users in RabbitMQ's own database, through
// the HTTP API of its management plug-in.
//
// Configuration:
//
//	api    the address of the API, such as "https://rabbit.internal:15671"; http on loopback or with
//	       tls.off. Required.
//	amqp   1 to 10 addresses at which a user must be able to log in: "amqps://host:port", or
//	       "amqp://host:port" on loopback or with tls.off; the port defaults to 5671 and 5672. Each
//	       node and each load balancer that applications use. Required.
//	vhost  the virtual host to open after the login; default "/". The users need permissions there.
//	tls    ca, server_name, off, for every address: see target.TLS.
//	password_length, password_punctuation   see target.PasswordRule.
//
// The administrator is a user with the tag administrator, which the API demands for changing users.
//
// A user has one password, so the strategy without a gap is double: two users of equal permissions.
// This kind makes no users, and leaves tags, permissions and limits as they are. It sends a salted
// hash in the user's own algorithm (SHA-256 or SHA-512), never the password. So RabbitMQ's
// credential validators, which need the password, do not apply: use password_length and
// password_punctuation for such rules. Open connections stay open.
//
// RabbitMQ has no compare-and-set: the user is read immediately before its password is replaced or
// cleared. A change of the password or the tags by another administrator between the two is lost.
package rabbitmq

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/rest"
)

// Kind returns the kind "rabbitmq".
func Kind() target.Kind {
	strategies := []target.Strategy{target.Single, target.Double}
	return target.NewKind("rabbitmq", strategies, target.Parser((*config).complete), open).WithAdmin().
		Following(target.LoginEndpoints, target.LoginDatabase, target.LoginCertificate).
		Consenting(consentToHash, consentToLinks, consentToPartner, consentUnlinked, consentToNodes).
		Leaving("Links such as shovels keep the password that they were given: keyturn rotation check NAME shows whether "+
			"there are any. A password that another backend, such as LDAP, has for the user was not touched.",
			target.OpenSessions)
}

type config struct {
	API   string     `json:"api"`
	AMQP  []string   `json:"amqp"`
	VHost string     `json:"vhost,omitempty"`
	TLS   target.TLS `json:"tls"`
	target.PasswordRule

	endpoints []endpoint // of AMQP
}

// Addresses returns the API and every address of AMQP.
func (c config) Addresses() []string { return slices.Concat([]string{c.API}, c.AMQP) }

// LoginEndpoints returns the addresses of AMQP as the configuration names them.
func (c config) LoginEndpoints() target.EndpointList { return target.WritersAt(c.AMQP) }

// endpoint is an address of AMQP, with its own choice of TLS.
type endpoint struct {
	name string // as the configuration names it
	addr string
	tls  target.TLS
}

const maxEndpoints = 10

// complete fills in defaults, parses the addresses of AMQP, and returns every mistake.
func (c *config) complete() error {
	c.VHost = cmp.Or(c.VHost, "/")
	c.API = strings.TrimSuffix(c.API, "/")
	errs := []error{rest.CheckURL("api", c.API, c.TLS), c.TLS.Check(), c.PasswordRule.Check()}
	if strings.ContainsAny(c.API, "?") {
		errs = append(errs, errors.New("api has a query; it is the address before /api/"))
	}
	if n := len(c.AMQP); n == 0 || n > maxEndpoints {
		errs = append(errs, fmt.Errorf("amqp is required: 1 to %d addresses", maxEndpoints))
	}
	for _, s := range c.AMQP {
		e, err := parseAMQP(s, c.TLS)
		c.endpoints, errs = append(c.endpoints, e), append(errs, err)
	}
	return errors.Join(errs...)
}

// parseAMQP reads an address by the rules of [rest.CheckURL], which are the right ones for AMQP
// too: no password in it, and nothing in clear over a network unless tls.off is set.
func parseAMQP(s string, t target.TLS) (endpoint, error) {
	authority, secure := strings.CutPrefix(s, "amqps://")
	scheme, port := "https://", "5671"
	if !secure {
		var plain bool
		if authority, plain = strings.CutPrefix(s, "amqp://"); !plain {
			return endpoint{}, fmt.Errorf("amqp: %q does not begin with amqps:// or amqp://", s)
		}
		scheme, port = "http://", "5672"
	}
	u, err := url.Parse(scheme + authority)
	if err != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return endpoint{}, fmt.Errorf("amqp: %q is more than host and port", s)
	}
	if err := rest.CheckURL("amqp", scheme+authority, t); err != nil {
		return endpoint{}, errors.New(strings.NewReplacer("https", "amqps", "http", "amqp").Replace(err.Error()))
	}
	addr, err := target.Address(u.Host, port)
	if err != nil {
		return endpoint{}, fmt.Errorf("amqp: %w", err)
	}
	t.Off = !secure
	return endpoint{name: s, addr: addr, tls: t}, nil
}

func open(c config, s target.Settings) (target.Target, error) {
	c.VHost = cmp.Or(s.Login.Database, c.VHost)
	if at := s.Login.Endpoints; len(at) > 0 {
		c.endpoints = slices.DeleteFunc(c.endpoints, func(e endpoint) bool { return !slices.Contains(at, e.name) })
	}
	certificates, err := s.Login.ClientCertificate(c.TLS)
	if err != nil {
		return nil, err
	}
	return &broker{
		PasswordRule: c.PasswordRule,
		certificates: certificates,
		config:       c,
		consent:      s.Consent,
		name:         s.Name,
		admin:        s.Admin,
		dialTCP:      s.Dialer(),
	}, nil
}

type broker struct {
	target.PasswordRule // Generate
	config              config
	certificates        []tls.Certificate // of the application
	consent             []string          // see target.Settings
	name                string
	admin               target.Credential
	dialTCP             egress.DialFunc
}

// Close has nothing to release: each call closes its own connection.
func (b *broker) Close() error { return nil }

// Apply sets the password of the new credential's user.
func (b *broker) Apply(ctx context.Context, c target.Change) error {
	what := fmt.Sprintf("set the password of %s at %s", fault.Quoted(c.New.Account), b.name)
	u, err := b.user(ctx, what, c.New, c.Old)
	if err != nil {
		return err
	}
	if u.accepts(c.New.Secret) == target.Live {
		return nil
	}
	if !u.keeps() && !slices.Contains(b.consent, consentToHash) {
		return target.Denied.Errorf(
			"%s: its password has the algorithm %s, in which no hash can be made here; agree to another one with the "+
				"consent %s",
			what, target.Said(u.Algorithm), consentToHash,
		)
	}
	hash, err := newHash(u.algorithm(), c.New.Secret)
	if err != nil {
		return target.Unreachable.Errorf("%s: no randomness for the salt", what)
	}
	return b.put(ctx, what, u, hash, c.New, c.Old)
}

// Retire clears the password of the old credential's user, if it is still the old one.
func (b *broker) Retire(ctx context.Context, c target.Change) error {
	what := fmt.Sprintf("clear the password of %s at %s", fault.Quoted(c.Old.Account), b.name)
	if c.Old.Account == c.New.Account {
		return target.Denied.Errorf("%s: it is the user of the new credential too, which has one password", what)
	}
	u, err := b.user(ctx, what, c.Old, c.New)
	if errors.Is(err, errNoUser) {
		// The user in use must exist here. Otherwise this API is not the one of the applications'
		// broker, and the absence of the old user proves nothing.
		_, err = b.user(ctx, what, c.New, c.Old)
		return err
	}
	if err != nil {
		return err
	}
	switch u.accepts(c.Old.Secret) {
	case target.Dead:
		return nil
	case target.NotKnown:
		return target.Denied.Errorf(
			"%s: its password has the algorithm %s, so Keyturn cannot find out whether it is the old one; "+
				"clear it by hand",
			what,
			target.Said(u.Algorithm),
		)
	default:
		return b.put(ctx, what, u, "", c.Old, c.New)
	}
}

// Inspect compares with the stored hashes. A user that RabbitMQ's own database does not have is
// NotKnown, because another authentication backend may know it.
func (b *broker) Inspect(ctx context.Context, credentials []target.Credential) ([]target.Liveness, error) {
	out := make([]target.Liveness, len(credentials))
	for i, c := range credentials {
		u, err := b.user(ctx, fmt.Sprintf("read user %s at %s", fault.Quoted(c.Account), b.name), c)
		if errors.Is(err, errNoUser) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out[i] = u.accepts(c.Secret)
	}
	return out, nil
}
