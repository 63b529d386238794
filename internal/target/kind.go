package target

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/egress"
)

// ActionRegisterCommand is the action of kinds whose targets run programs on the server.
const ActionRegisterCommand = "kms:RegisterCommandTarget"

// Kind describes one kind of target. [NewKind] makes one.
type Kind struct {
	// Name is the name by which callers choose the kind, such as "postgresql".
	Name string
	// Strategies lists the strategies of the kind, the best one for a single account first.
	Strategies []Strategy
	// NeedsAdmin says that a target must name a secret with an administrator's credential.
	NeedsAdmin bool
	// Action is the action that registering or changing a target of this kind needs besides the
	// ordinary ones, such as [ActionRegisterCommand]; empty when the ordinary ones are enough.
	Action string
	// Logins are the members of a secret's [Login] that targets of this kind follow.
	Logins []LoginField
	// Consents are the codes of the findings that an operator can agree to, each of which is the token
	// that does. One that ends with an asterisk stands for all that begin so.
	Consents []string
	// Leaves has sentences about what of an account an emergency leaves at a target of this kind, with
	// NAME for the secret in commands, see [fault.Named]. [OpenSessions] is one.
	Leaves []string
	// Addresses lists where a target with a checked configuration sends credentials: host:port, the
	// origin of a URL, or the path of a program. It needs no network.
	Addresses func(config json.RawMessage) []string
	// Endpoints lists where a target with a checked configuration logs in with a credential.
	Endpoints func(config json.RawMessage) EndpointList
	// Canonical returns the one spelling of an account that a target with that configuration takes
	// for the same account as others; nil where each spelling is another account.
	Canonical func(config json.RawMessage, account string) string
	// Check returns an error that names every mistake of a configuration. It needs no network.
	Check func(config json.RawMessage) error
	// Open makes a target. It does not connect yet.
	Open func(s Settings) (Target, error)
}

// Config is the checked configuration of a target.
type Config interface {
	// Addresses returns what [Kind.Addresses] returns for this configuration.
	Addresses() []string
}

// Placed is a configuration whose target logs in at some of its addresses only, or in an order or
// with roles that matter. Without it, a target logs in at all addresses.
type Placed interface {
	// LoginEndpoints returns the endpoints at which the target logs in.
	LoginEndpoints() EndpointList
}

// Naming is a configuration whose system takes several spellings for one account. Kinds without it
// compare names exactly: roles of PostgreSQL, users of Redis, RabbitMQ and SSH hosts, client IDs of
// OAuth; a plug-in decides for itself. Two users of a host with one uid have passwords of their
// own, and a rotation of keys changes no other line of a file that they share. Package targettest
// tries other spellings at each real server.
type Naming interface {
	// CanonicalAccount returns the one spelling for all that mean the same account.
	CanonicalAccount(account string) string
}

// CanonicalAccount returns the name under which a target knows an account, whatever its spelling.
func (k Kind) CanonicalAccount(config json.RawMessage, account string) string {
	if k.Canonical == nil {
		return account
	}
	return k.Canonical(config, account)
}

// endpointsOf returns where a target with a configuration logs in.
func endpointsOf(c Config) EndpointList {
	if p, ok := c.(Placed); ok {
		return p.LoginEndpoints()
	}
	return WritersAt(c.Addresses())
}

// Parser returns a function that reads a configuration strictly and then completes it: complete
// fills in defaults and returns every mistake.
func Parser[C Config](complete func(*C) error) func(json.RawMessage) (C, error) {
	return func(raw json.RawMessage) (C, error) {
		var c C
		err := Decode(raw, &c)
		if err == nil {
			err = complete(&c)
		}
		return c, err
	}
}

// NewKind returns the kind whose targets have a configuration of type C. parse reads one, usually
// by [Parser]; open makes the target.
func NewKind[C Config](
	name string,
	strategies []Strategy,
	parse func(json.RawMessage) (C, error),
	open func(C, Settings) (Target, error),
) Kind {
	return Kind{
		Name:       name,
		Strategies: strategies,
		Addresses: func(raw json.RawMessage) []string {
			c, err := parse(raw)
			if err != nil {
				return nil
			}
			return c.Addresses()
		},
		Endpoints: func(raw json.RawMessage) EndpointList {
			c, err := parse(raw)
			if err != nil {
				return nil
			}
			return endpointsOf(c)
		},
		Canonical: func(raw json.RawMessage, account string) string {
			c, err := parse(raw)
			if n, ok := any(c).(Naming); ok && err == nil {
				return n.CanonicalAccount(account)
			}
			return account
		},
		Check: func(raw json.RawMessage) error {
			_, err := parse(raw)
			return err
		},
		Open: func(s Settings) (Target, error) {
			c, err := parse(s.Config)
			if err != nil {
				return nil, err
			}
			return open(c, s)
		},
	}
}

// WithAdmin returns the kind with NeedsAdmin set. It does not open a target without an
// administrator's credential.
func (k Kind) WithAdmin() Kind {
	k.NeedsAdmin = true
	open := k.Open
	k.Open = func(s Settings) (Target, error) {
		if s.Admin.Secret.IsZero() {
			return nil, fmt.Errorf("target %s of kind %s needs an administrator's credential", s.Name, k.Name)
		}
		return open(s)
	}
	return k
}

// Following returns the kind with Logins set.
func (k Kind) Following(fields ...LoginField) Kind {
	k.Logins = fields
	return k
}

// Consenting returns the kind with Consents set.
func (k Kind) Consenting(tokens ...string) Kind {
	k.Consents = slices.Sorted(slices.Values(tokens))
	return k
}

// OpenSessions is the sentence of the kinds whose sessions outlast the credential that opened them.
const OpenSessions = "Sessions that were open before stay open: docs/rotation.md#sessions says how to end them."

// Leaving returns the kind with Leaves set.
func (k Kind) Leaving(sentences ...string) Kind {
	k.Leaves = sentences
	return k
}

// CheckConsent returns an error that lists the tokens of the kind if it does not know one.
func (k Kind) CheckConsent(token string) error {
	known := slices.ContainsFunc(k.Consents, func(c string) bool {
		prefix, all := strings.CutSuffix(c, "*")
		return c == token || all && strings.HasPrefix(token, prefix)
	})
	switch {
	case known:
		return nil
	case len(k.Consents) == 0:
		return fmt.Errorf("no finding of a target of kind %s needs a consent", k.Name)
	}
	return fmt.Errorf("a target of kind %s has no consent %q; it has: %s", k.Name, token, strings.Join(k.Consents, ", "))
}

// Settings are one target's settings.
type Settings struct {
	// Name is the name under which the target is registered.
	Name string
	// Config is the checked configuration: a JSON object in the form of the kind.
	Config json.RawMessage
	// Admin is the credential that changes others; zero for a kind that needs none.
	Admin Credential
	// Login is how the application whose secret is rotated connects.
	Login Login
	// Consent lists what the operator has agreed to for the secret that is rotated: each is the
	// Consent of a [Finding]. Without it a target keeps the form of a credential, or refuses.
	Consent []string
	// Dial makes every connection to the target; nil means the dialer of
	// [egress.Default].
	Dial egress.DialFunc
	// Sending is called before a credential is handed to a receiver without a connection, such as a
	// program. An error forbids it; nil permits every receiver.
	Sending func(ctx context.Context, receiver string) error
}

// Dialer returns the function that connects to the target. A kind must not reach the network in
// another way: this one enforces the egress rules, records where credentials go, and bounds what
// the target may send ([MaxReceived]).
func (s Settings) Dialer() egress.DialFunc {
	dial := s.Dial
	if dial == nil {
		dial = egress.Default.DialContext
	}
	return Bounded(dial, MaxReceived)
}

// AddressesOf lists where a target of this kind with that configuration sends credentials, without
// duplicates. It is empty for a configuration that cannot be read.
func (k Kind) AddressesOf(config json.RawMessage) []string {
	if k.Addresses == nil {
		return nil
	}
	var list []string
	for _, a := range k.Addresses(config) {
		if a = origin(a); a != "" && !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}

// EndpointsOf lists where a target of this kind with that configuration logs in. It is empty for a
// configuration that cannot be read.
func (k Kind) EndpointsOf(config json.RawMessage) EndpointList {
	if k.Endpoints == nil {
		return nil
	}
	return k.Endpoints(config)
}

// origin returns scheme, host and port of a URL, because the rest may contain a token. It returns
// any other address unchanged.
func origin(address string) string {
	u, err := url.Parse(address)
	switch {
	case !strings.Contains(address, "://"):
		return address
	case err != nil:
		return ""
	}
	return u.Scheme + "://" + u.Host
}
