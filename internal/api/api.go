// Package api carries out the operations of the server: one table of handlers, one gate before
// them, one short handler for each operation.
//
// A door (api/rpc, the console, the rotation engine) establishes who calls, finds the operation and
// hands both to [Gate.Call]. The gate has one order for all: decode and check the parameters,
// evaluate the policies, record the call, handle it, record the outcome. A handler takes a decoded
// request and returns a response or an error; it never sees net/http.
//
// Packages kms and ram declare each operation: its name, types and resources. This package binds it
// to a handler.
package api

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/policy"
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
	// Uses notes when access keys are used; nil means that uses are not noted.
	Uses *KeyUses
	// Consumers notes which consumer uses which version of a secret; nil means that consumers are not
	// noted.
	Consumers *Consumers
	// RootKeys rotates the keys of the store; nil where there are none.
	RootKeys RootKeys
	// RotateCA makes a new local CA, which takes over after the overlap.
	RotateCA func(ctx context.Context, overlap time.Duration) (kms.RotateLocalCAResponse, error)
	// RootKeyDeleted is called with the ID of an access key of the root account that was deleted; nil
	// means no call.
	RootKeyDeleted func(id string)
	// Stopping is closed when the server is about to stop: calls that wait for a change are answered
	// then. nil means never.
	Stopping <-chan struct{}
	// Kinds are the kinds of targets, by name.
	Kinds map[string]target.Kind
	// Dial connects to targets; nil means the default of [target.Settings].
	Dial egress.DialFunc
	// TestTime is how long TestTarget and other calls that ask a target take at most, and without an
	// answer exactly; 0 means the time of each call, 3 or 10 seconds.
	TestTime time.Duration
	// Rotation says how credentials are rotated whose secret has no settings of its own.
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
	// At is the time of the call, which every record that it writes carries.
	At time.Time
	// Snapshot is the consistent view that the policies were evaluated on. Handlers read it too.
	Snapshot *store.Tx

	gate          *Gate
	details       audit.Details // for the audit trail
	op            *endpoint
	unverified    bool            // the request has no verified caller: its content is a claim
	table         []*endpoint     // every operation
	resource      resource        // the first one, for the audit trail
	judgedChanges []judgement     // accounts that the caller's rights were judged for
	admins        []administrator // those that the call may log in as
	identity      *identity       // the policies of the caller; nil until they are loaded
	passed        []string        // the secrets among the resources that the policies allow
	detail        struct{ version, stage string }
	began         time.Time       // At, as it was when the call came
	gone          <-chan struct{} // closed when the caller has hung up
}

// Account returns the account of the caller, which owns every resource that the call names.
func (c *Call) Account() string { return c.Principal.Account }

// concerns notes the version and label that the call is about, for the audit trail.
func (c *Call) concerns(version, stage string) { c.detail.version, c.detail.stage = version, stage }

// systemCall returns a call that the service itself makes, under the name of one of its parts,
// about one secret.
func (g *Gate) systemCall(part, operation, account, secretName string) *Call {
	c := &Call{
		Env:  g.env,
		gate: g,
		At:   g.env.Now().UTC(),
		Request: protocol.Request{
			ID:        uuid.NewString(),
			Action:    operation,
			Version:   kms.Version,
			Principal: policy.Principal{Kind: policy.KindSystem, Account: account, Name: part},
		},
	}
	c.resource = c.secretResource(secretName)
	return c
}
