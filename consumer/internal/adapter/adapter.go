// Package adapter is what the adapters of package consumer share: the arguments that each takes,
// the login with whichever version the target accepts, and the replacement of connections after a
// promotion.
//
// An adapter adds what only its client knows: how to open a connection with a credential, how its
// target says that a credential was not accepted, and when its pool asks whether a connection is
// still good.
package adapter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/credential"
)

// DefaultDrainWithin is well below the default grace period of a rotation, one hour, after which
// the previous credential stops working.
const DefaultDrainWithin = 5 * time.Minute

// Options are the options that adapters have in common. Adapters declare the same fields in the
// same order, so that a pointer to their Options converts to a pointer to these.
type Options struct {
	// Format finds the credential in the value.
	Format credential.Format
	// DrainWithin is when the last connection of the previous version is replaced; 0 means
	// DefaultDrainWithin.
	DrainWithin time.Duration
	// Rejected reports whether an error of a login means that the target did not accept the
	// credential.
	Rejected func(error) bool
}

// Adapter opens connections with one secret.
type Adapter struct {
	Consumer *consumer.Consumer
	Secret   string
	Options  Options // complete

	promotions promotions
}

// New checks the arguments that each adapter takes. name is the adapter's package, for error
// messages. A nil options means the zero Options, and rejected is what their Rejected defaults to.
func New(
	name string, c *consumer.Consumer, secret string, options *Options, rejected func(error) bool,
) (*Adapter, error) {
	a := &Adapter{Consumer: c, Secret: secret}
	if options != nil {
		a.Options = *options
	}
	if a.Options.DrainWithin == 0 {
		a.Options.DrainWithin = DefaultDrainWithin
	}
	if a.Options.Rejected == nil {
		a.Options.Rejected = rejected
	}
	switch {
	case c == nil:
		return nil, errors.New(name + ": the consumer is missing; consumer.New makes one")
	case secret == "":
		return nil, errors.New(name + ": the name of the secret is missing")
	case a.Options.DrainWithin < 0:
		return nil, fmt.Errorf("%s: DrainWithin is %v; it must be 0 for %v, or more",
			name, a.Options.DrainWithin, DefaultDrainWithin)
	}
	return a, nil
}

// Login calls try with the credential of one version after the other, in the order of
// [consumer.Consumer.Login], until the target accepts one. It returns a Conn for what try opened
// with that version.
func (a *Adapter) Login(
	ctx context.Context, try func(context.Context, *consumer.Secret, credential.Credential) error,
) (*Conn, error) {
	s, err := a.Consumer.Login(ctx, a.Secret, a.Options.Rejected, func(ctx context.Context, s *consumer.Secret) error {
		cred, err := a.Options.Format.Read(s)
		if err != nil {
			return err
		}
		return try(ctx, s, cred)
	})
	if err != nil {
		return nil, err
	}
	return a.Opened(s.VersionID), nil
}
