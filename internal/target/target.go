// Package target defines what a rotation needs from a system whose credentials it changes.
//
// Each kind of target (PostgreSQL, Redis, an SSH host…) is a folder below this one with a function
// Kind; the wiring names the kinds and passes them in. Package targettest tests the behavior that
// every kind must have.
//
// The engine acts on what a target answered, never on silence, so the class of an error matters
// more than its text: see [Class]. A method must not retry, must not wait past its context, and
// must not put a secret into an error. The engine decides about retries, because it alone has
// recorded how far a rotation has come.
package target

import (
	"context"
	"crypto/sha256"
	"io"

	"github.com/keyturn/keyturn/sensitive"
)

// Strategy is how a credential is replaced without an outage.
type Strategy string

// The strategies. What each costs an application is in docs/rotation.md.
const (
	// Single replaces the one credential of the one account. The old one stops working when the new
	// one starts, so reads of the secret are blocked during the change.
	Single Strategy = "single"
	// Overlap gives the one account a second credential, and removes the first one later.
	Overlap Strategy = "overlap"
	// Double alternates between two accounts of equal rights: the account that is not in use gets a
	// new credential.
	Double Strategy = "double"
)

// Credential is what a target accepts: the content of one version of a secret.
type Credential struct {
	// Account owns the credential: a role, a user, a client ID.
	Account string
	// Secret is the password, client secret, private key (PEM) or access key secret.
	Secret sensitive.Value
	// ID names the credential where credentials have names, such as an access key ID; otherwise
	// empty.
	ID string
	// Public is the public half where there is one: a line of authorized_keys; otherwise empty.
	Public string
}

// IsZero reports whether there is no credential.
func (c Credential) IsZero() bool { return c.Account == "" && c.Secret.IsZero() && c.ID == "" }

// Change replaces one credential with another.
type Change struct {
	// ID is the same in every attempt at one change, and different for every other change: 1 to 64
	// letters, digits, hyphens and underscores. A target may use it to recognize its own earlier
	// attempt.
	ID       string
	Strategy Strategy
	// New is the candidate.
	New Credential
	// Old is what New replaces. With Single and Overlap it belongs to the same account and works
	// when the change begins. With Double it is the credential in use, which belongs to the other
	// account. In a repair, which gives a target again the credential that it should have, Old
	// equals New.
	Old Credential
	// Emergency says that Old may have leaked: its holder may have chosen how the target stores it.
	Emergency bool
}

// Salt returns 16 bytes that are the same in every attempt at the change and different for every
// other change, for hashes that a repeated attempt must not make anew.
func (c Change) Salt() []byte {
	sum := sha256.Sum256([]byte(c.ID + "\x00" + c.New.Account))
	return sum[:16]
}

// Target is one system. Its methods are safe for concurrent use. Every error must be, or wrap, an
// [*Error]; any other error counts as of class [Unknown].
type Target interface {
	// Apply makes the target accept c.New. With Overlap, c.Old continues to work; with Double, c.Old
	// is not touched; with Single, c.New is the account's only credential afterwards. Apply is
	// idempotent, also after an attempt that got no answer. It must not disturb open sessions.
	Apply(ctx context.Context, c Change) error
	// Retire makes c.Old useless and leaves c.New working. It must remove nothing but c.Old: an
	// account that has another credential by now keeps it, where the target can find that out.
	// Retire is idempotent. With Single there is nothing to retire, and it is not called.
	Retire(ctx context.Context, c Change) error
	// Verify opens a new connection with the credential at every endpoint in the configuration, and
	// closes it. It logs in at most once per endpoint, so that a wrong credential costs one failed
	// login. It returns nil when all endpoints accept the credential, and an error of class Rejected
	// when one that answered does not.
	Verify(ctx context.Context, c Credential) error
	// Close releases the target's resources.
	Close() error
}

// Liveness says whether a target accepts a credential.
type Liveness uint8

// The answers about a credential.
const (
	NotKnown Liveness = iota
	Live              // it authenticates
	Dead              // it does not
)

// Inspector is a target that can find out from its own state which credentials it accepts. The
// engine asks it before it tries a login that could fail, because targets lock accounts.
type Inspector interface {
	// Inspect answers for each credential, in order. NotKnown means that the stored state does not
	// answer the question; a login may.
	Inspect(ctx context.Context, credentials []Credential) ([]Liveness, error)
}

// Comparer is a target for which different texts can be one secret, such as two passwords that its
// rules for Unicode make equal, or two encodings of one key.
type Comparer interface {
	SameSecret(a, b sensitive.Value) bool
}

// SameSecret reports whether a target takes two secrets of an account for one.
func SameSecret(system Target, a, b sensitive.Value) bool {
	if c, ok := system.(Comparer); ok && c.SameSecret(a, b) {
		return true
	}
	return a.Equal(b)
}

// Generator is a target that makes its own credentials: key pairs, access keys, or passwords by its
// own rules.
type Generator interface {
	// Generate returns a new credential for the account. old is the credential in use, as an example
	// of form and length. random is a cryptographic source. Generate changes nothing at the target.
	Generate(ctx context.Context, account string, old Credential, random io.Reader) (Credential, error)
}

// Reverter is a target where an attempt can leave a change half done, such as a prepared
// transaction.
type Reverter interface {
	// Revert undoes what an attempt at c may have left. The engine calls it before it gives a change
	// up, when c.New is known not to be accepted.
	Revert(ctx context.Context, c Change) error
}

// Tester is a target that can try its administrator's login and rights.
type Tester interface {
	// Test changes nothing.
	Test(ctx context.Context) error
}

// Limited is a target whose configuration limits the strategies of its kind.
type Limited interface {
	// Strategies returns this target's strategies, the best one for a single account first. Apply
	// and Retire with another strategy fail with class Denied.
	Strategies() []Strategy
}
