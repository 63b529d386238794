package agent

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"slices"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/internal/auth"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sign"
)

// nonces is how many nonces the wire API remembers. The programs of one machine make fewer requests
// in half an hour.
const nonces = 1 << 18

// getter returns the values that the agent holds.
type getter interface {
	Get(ctx context.Context, name string) (*consumer.Secret, error)
}

// upstream passes a call on. *kms.Client does it.
type upstream interface {
	Do(ctx context.Context, call kms.Call) ([]byte, error)
	Endpoint() string
}

// scope says which secrets callers may use.
type scope interface {
	// anySecret reports whether callers may read all that the agent's access key may read.
	anySecret() bool
	// serves reports whether callers may use the secret with that name or ARN.
	serves(name string) bool
}

// Gate answers the wire API on this machine: values from memory, other reads from the server, and
// no changes. The server judges passed-on calls by the rights of the agent, so the gate passes on
// only calls about secrets in its scope, and never what a caller says about consumers.
type Gate struct {
	held   getter
	server upstream
	scope  scope
	leases *leases
	log    *slog.Logger
}

// request is a decoded call.
type request struct {
	id string
	op *operation.Op
	in any // a pointer to the request struct of op
}

// Call carries out one operation for a verified caller. op is nil when the request names no
// operation.
func (g *Gate) Call(ctx context.Context, op *operation.Op, call protocol.Request) (any, error) {
	if op == nil {
		return nil, protocol.NotFound(call.Version, call.Action)
	}
	if op.Mutates {
		return nil, fault.New(fault.Unsupported,
			"This is an agent, which only reads. Send %s to the server itself, %s.", op.Name, g.server.Endpoint())
	}
	in, err := op.Decode(call.Params)
	if err != nil {
		return nil, err
	}
	r := request{id: call.ID, op: op, in: in}
	if err := g.check(r); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, op.Deadline)
	defer cancel()
	switch in := in.(type) {
	case *kms.GetSecretValueRequest:
		return g.value(ctx, r, in)
	case *kms.WatchSecretsRequest:
		g.leases.note(in)
	}
	return g.pass(ctx, r)
}

// check refuses a request about anything other than secrets in the scope, and one by which a caller
// would act as a consumer at the server.
func (g *Gate) check(r request) error {
	if name, ok := r.refused(); ok {
		return fault.New(fault.Unsupported, "An agent itself reports to the server which versions are in use, "+
			"so %s must not be set here.", name)
	}
	if g.scope.anySecret() {
		return nil
	}
	names, ok := about(r)
	if !ok {
		return fault.New(fault.Denied, "This agent serves calls about the secrets that its configuration names, "+
			"and %s is about more. Set kms.any_secret to serve all that its access key may read.", r.op.Name)
	}
	for _, name := range names {
		if !g.scope.serves(name) {
			return fault.New(fault.Denied, "The configuration of this agent does not name the secret; "+
				"add it to secrets, or set kms.any_secret.")
		}
	}
	return nil
}

// about returns the secrets that a request is about, each by name or ARN. ok is false for a request
// about anything else.
func about(r request) (names []string, ok bool) {
	if name, ok := r.op.Secret(r.in); ok {
		return []string{name}, true
	}
	if in, ok := r.in.(*kms.WatchSecretsRequest); ok {
		for _, w := range in.Secrets {
			names = append(names, w.SecretName)
		}
		return names, true
	}
	return nil, r.op.Impersonal
}

// Refuse logs a request that does not reach Call.
func (g *Gate) Refuse(ctx context.Context, r protocol.Request, accessKeyID string, err error) error {
	g.log.DebugContext(ctx, "request refused", "request", r, "access_key_id", accessKeyID, "err", err)
	return err
}

// value answers GetSecretValue. The agent holds the version with ACSCurrent. It asks the server for
// any other version, and when the server is unavailable returns the held one if that is the
// requested version.
func (g *Gate) value(ctx context.Context, r request, in *kms.GetSecretValueRequest) (any, error) {
	current := in.VersionID == "" && (in.VersionStage == "" || in.VersionStage == kms.StageCurrent)
	if current && !in.DryRun {
		return g.current(ctx, r, in)
	}
	out, err := g.pass(ctx, r)
	if err == nil || in.DryRun || !away(err) {
		return out, err
	}
	held, heldErr := g.held.Get(ctx, in.SecretName)
	if heldErr != nil || !satisfies(held, in) {
		return nil, err
	}
	return answerOf(held, in, r.id), nil
}

// satisfies reports whether a version is the requested one, as far as the agent knows without the
// server.
func satisfies(held *consumer.Secret, in *kms.GetSecretValueRequest) bool {
	return (in.VersionID == "" || in.VersionID == held.VersionID) &&
		(in.VersionStage == "" || slices.Contains(held.Stages, in.VersionStage))
}

// current returns the held version. When the agent holds none, or can hold no more secrets, it
// returns the answer of the server.
func (g *Gate) current(ctx context.Context, r request, in *kms.GetSecretValueRequest) (any, error) {
	held, err := g.held.Get(ctx, in.SecretName)
	if errors.Is(err, consumer.ErrAbsent) || errors.Is(err, consumer.ErrDenied) || errors.Is(err, errFull) {
		if out, passErr := g.pass(ctx, r); passErr == nil || !away(passErr) {
			return out, passErr
		}
	}
	if err != nil {
		return nil, outcome(err)
	}
	return answerOf(held, in, r.id), nil
}

// answerOf returns what the server would answer. The consumer reads ExtendedConfig with every
// value; answerOf leaves it out unless the caller asks for it.
func answerOf(held *consumer.Secret, in *kms.GetSecretValueRequest, id string) *kms.GetSecretValueResponse {
	answer := held.Raw()
	answer.RequestID = id
	if !in.FetchExtendedConfig {
		answer.ExtendedConfig = ""
	}
	return answer
}

// outcome returns the answer for an error of the consumer: the answer of the server, or that no
// value is available now.
func outcome(err error) error {
	var said *kms.Error
	switch {
	case errors.Is(err, consumer.ErrExpired):
		return fault.Wrap(fault.Unavailable, err,
			"The server does not answer, and the last known value is older than the agent's max_stale allows.")
	case errors.As(err, &said):
		return said
	case errors.Is(err, consumer.ErrAbsent):
		return fault.Wrap(fault.NotFound, err, "")
	case errors.Is(err, consumer.ErrDenied):
		return fault.Wrap(fault.Denied, err, "")
	}
	return fault.Wrap(fault.Unavailable, err, "The server does not answer, and the agent has no last known value.")
}

// away reports whether an error means that the server could not be reached, rather than that it has
// answered.
func away(err error) bool {
	var said *kms.Error
	if errors.As(err, &said) {
		return said.Temporary()
	}
	return fault.KindOf(err) == fault.Unavailable
}

// refused returns a parameter of the request that an agent refuses. By some parameters a consumer
// speaks of itself, and to the server all programs of this machine are one consumer, the agent.
func (r request) refused() (name string, ok bool) {
	params := wire.Encode(r.in)
	for _, p := range r.op.Params() {
		if _, given := params.Get(p.Name); given && p.Agent == wire.AgentRefuses {
			return p.Name, true
		}
	}
	return "", false
}

// passed returns the parameters that the agent passes on.
func (r request) passed() sign.Params {
	params := wire.Encode(r.in)
	for _, p := range r.op.Params() {
		if p.Agent == wire.AgentDrops {
			params = slices.DeleteFunc(params, func(q sign.Param) bool { return q.Name == p.Name })
		}
	}
	return params
}

// pass sends a request to the server, signed by the agent, with the checked parameters and no
// others. It decodes the answer, because the caller may have asked for XML.
func (g *Gate) pass(ctx context.Context, r request) (any, error) {
	body, err := g.server.Do(ctx, kms.Call{
		Action:     r.op.Name,
		Version:    r.op.Version,
		Params:     r.passed(),
		Idempotent: r.op.Retryable,
	})
	var said *kms.Error
	switch {
	case errors.As(err, &said):
		return nil, said
	case err != nil:
		return nil, fault.Wrap(fault.Unavailable, err, "The server does not answer the agent.")
	}
	out := reflect.New(r.op.Response())
	if err := wire.DecodeResponse(body, out.Interface()); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "The server's answer to the agent is not one of this API.")
	}
	return out.Interface(), nil
}

// localKeys holds the access keys that callers of the wire API sign with, by ID.
type localKeys map[string]auth.Key

// Find returns the key with that ID.
func (k localKeys) Find(_ context.Context, id string) (auth.Key, bool, error) {
	key, ok := k[id]
	return key, ok, nil
}

func newLocalKeys(credentials []sign.Credentials) localKeys {
	k := localKeys{}
	for _, c := range credentials {
		k[c.AccessKeyID] = auth.Key{
			ID:        c.AccessKeyID,
			Principal: policy.Principal{Kind: policy.KindSystem, Name: "agent"},
			Secret:    sign.NewKey(c.AccessKeySecret),
			Token:     c.SecurityToken,
		}
	}
	return k
}
