// Package target is what a rotation needs of a system whose credentials it changes.
//
// A kind of target (PostgreSQL, Redis, an SSH host…) is a folder below this one with a Kind value;
// the wiring names the kinds and passes them in. Package targettest holds the behaviour that is
// expected of every kind.
//
// The engine acts on what a target answered, never on silence, so the class of an error matters
// more than its text: see Class. A method never retries by itself, never waits past its context,
// and never puts a secret into an error.
package target

import (
	"context"
	"io"

	"github.com/keyturn/keyturn/sensitive"
)

// Strategy is how a credential is replaced without an outage.
type Strategy string

// The strategies. What each costs an application is in docs/rotation.md.
const (
	// Single replaces the one credential of the one account. The old one stops working when the new
	// one starts, so reads of the secret are held through the change.
	Single Strategy = "single"
	// Overlap gives the one account a second credential, and takes the first one away later.
	Overlap Strategy = "overlap"
	// Double uses two accounts of equal rights in turn: the one that is not in use gets a new
	// credential.
	Double Strategy = "double"
)

// Credential is what a target accepts: the content of one version of a secret.
type Credential struct {
	// Account is whose credential it is: a role, a user, a client ID.
	Account string
	// Secret is the password, client secret, private key (PEM) or access key secret.
	Secret sensitive.Value
	// ID names the credential where credentials have names of their own: an access key ID. Else
	// empty.
	ID string
	// Public is the public half where there is one: a line of authorized_keys. Else empty.
	Public string
}

// IsZero reports whether there is no credential.
func (c Credential) IsZero() bool { return c.Account == "" && c.Secret.IsZero() && c.ID == "" }

// Change is one credential taking the place of another.
type Change struct {
	// ID is the same in every attempt at one change, and in no other: 1 to 64 letters, digits,
	// hyphens and underscores. A target may use it to recognise its own earlier attempt.
	ID       string
	Strategy Strategy
	// New is the candidate.
	New Credential
	// Old is what New replaces. With Single and Overlap it is of the same account and works when
	// the change begins. With Double it is the credential in use, which is of the other account. In
	// a repair, where a target is given again what it should have, Old equals New.
	Old Credential
}

// Target is one system. Its methods may be called from several goroutines. Every error is, or
// wraps, an *Error; what is not counts as of class Unknown.
type Target interface {
	// Apply makes the target accept c.New. With Overlap, c.Old goes on working; with Double, c.Old
	// is not touched; with Single, New is the account's only credential afterwards. Applying the
	// same change twice is the same as once, also when the first time got no answer. It must not
	// disturb the sessions that are open.
	Apply(ctx context.Context, c Change) error
	// Retire makes c.Old useless and leaves c.New working. Nothing but exactly c.Old is taken away:
	// an account that has another credential by now keeps it, where the target can tell. Twice is
	// the same as once. With Single there is nothing to retire, and it is not called.
	Retire(ctx context.Context, c Change) error
	// Verify opens a fresh connection with the credential at every endpoint that the configuration
	// declares, and closes it. At most one login for each endpoint. It returns nil when all accept
	// it, and an error of class Rejected when one that answered does not.
	Verify(ctx context.Context, c Credential) error
	// Close releases what the target holds.
	Close() error
}

// Liveness is what a target says of a credential.
type Liveness uint8

// What can be known of a credential.
const (
	NotKnown Liveness = iota
	Live              // it authenticates
	Dead              // it does not
)

// Inspector is a target that can tell which credentials it accepts from its own state, so that no
// login is tried and none can fail.
type Inspector interface {
	// Inspect answers for each credential. NotKnown means that this one cannot be told so; a login
	// may.
	Inspect(ctx context.Context, credentials []Credential) ([]Liveness, error)
}

// Generator is a target with credentials of its own form: key pairs, access keys, passwords by
// rules of its own.
type Generator interface {
	// Generate makes a new credential for the account. old is the credential in use, as an example
	// of form and length. random is a cryptographic source. It changes nothing at the target.
	Generate(ctx context.Context, account string, old Credential, random io.Reader) (Credential, error)
}

// Reverter is a target where an attempt can leave something half done, such as a prepared
// transaction.
type Reverter interface {
	// Revert takes back what an attempt at c may have left. It is called before a change is given
	// up, when c.New is known not to be accepted.
	Revert(ctx context.Context, c Change) error
}

// Tester is a target that can try its administrator's way in, and what the administrator needs,
// without changing anything.
type Tester interface {
	Test(ctx context.Context) error
}

// Limited is a target whose configuration says which of its kind's strategies it has.
type Limited interface {
	// Strategies are those of this target, the best one for a single account first. Apply and
	// Retire of another are Denied.
	Strategies() []Strategy
}
