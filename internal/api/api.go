// Package api is what Keyturn does: one table of handlers, one gate before them, one short handler
// for each operation.
//
// A door (api/rpc, the console, the rotation engine) establishes who calls, finds the operation and
// hands both to [Gate.Call]. The gate has one order for all: decode and check the parameters,
// evaluate the policies, record the call, handle it, record the outcome. A handler takes a decoded
// request and returns a response or an error; it never sees net/http.
//
// What an operation is, its name, types and resources, is declared in packages kms and ram. This
// package binds it to a handler.
package api

import (
	"io"
	"log/slog"
	"time"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
)

// Env is what handlers work with.
type Env struct {
	DB      *store.DB
	Keyring *envelope.Keyring
	// Region is the one region of this server; it appears in ARNs.
	Region string
	// Now is the clock.
	Now func() time.Time
	// Random is a cryptographic source.
	Random io.Reader
	// Uses notes when access keys are used; nil means that nobody does.
	Uses *KeyUses
	// Consumers notes who uses which version of a secret; nil means that nobody does.
	Consumers *Consumers
	// RootKeys rotates the keys of the store; nil where there are none.
	RootKeys RootKeys
	// RotateCA makes a new local CA, which takes over after the overlap.
	RotateCA func(overlap time.Duration) (kms.RotateLocalCAResponse, error)
	// RootKeyDeleted is called with the ID of an access key of the root account that was deleted;
	// nil means nobody is.
	RootKeyDeleted func(id string)
	// Stopping is closed when the server is about to stop: whoever waits for a change is answered.
	// nil means never.
	Stopping <-chan struct{}
	// Kinds are the kinds of targets, by name.
	Kinds map[string]target.Kind
	// Dial connects to targets; nil means what [target.Settings] makes of it.
	Dial egress.DialFunc
	// TestTime is how long TestTarget and other calls that ask a target take at most, and without
	// an answer exactly; 0 means what each has for itself, 3 or 10 seconds.
	TestTime time.Duration
	// Rotation says how credentials are rotated where a secret does not.
	Rotation RotationConfig
	// Trail is the audit trail of this node; nil for a process that keeps none.
	Trail Trail
	// Log is for the operator.
	Log *slog.Logger
}

// Call is one call while it is handled.
type Call struct {
	*Env
	protocol.Request
	// At is the time of the call: everything that it writes carries it.
	At time.Time
	// Snapshot is the consistent view that the policies were evaluated on; reads go on from it.
	Snapshot *store.Tx

	gate          *Gate
	details       audit.Details // for the audit trail
	op            *endpoint
	unverified    bool        // no caller was found: what the request says of itself is a claim
	table         []*endpoint // every operation
	resource      resource    // the first one, for the audit trail
	judgedChanges []changes   // accounts that the caller's rights were judged for
	identity      *identity   // the caller's, once it was loaded
	passed        []string    // the secrets among the resources that the policies have let through
	detail        struct{ version, stage string }
	began         time.Time       // At, as it was when the call came
	gone          <-chan struct{} // closed when the caller has hung up
}

// Account is the account of the caller, which owns what it calls.
func (c *Call) Account() string { return c.Principal.Account }

// concerns notes the version and label that the call is about, for the audit trail.
func (c *Call) concerns(version, stage string) { c.detail.version, c.detail.stage = version, stage }
