package agent

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/auth"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sign"
)

// nonces is how many used nonces the wire API remembers: programs of one machine make no more requests in half an hour.
const nonces = 1 << 18

// getter is what the gate needs of a consumer.
type getter interface {
	Get(ctx context.Context, name string) (*consumer.Secret, error)
}

// upstream passes a call on. *kms.Client does it.
type upstream interface {
	Do(ctx context.Context, call kms.Call) ([]byte, error)
	Endpoint() string
}

// Gate answers the wire API on this machine: values from what the agent holds, other reads from the server, and changes not at all. Whoever
// signs with a key of the agent has the agent's rights.
type Gate struct {
	held   getter
	server upstream
	serves func(name string) bool // whether a secret is given to callers; nil means every one
	log    *slog.Logger
}

// Call does one operation for a verified caller.
func (g *Gate) Call(ctx context.Context, r api.Request) (any, error) {
	op, err := api.Find(r.Version, r.Action)
	if err != nil {
		return nil, err
	}
	if op.Change {
		return nil, fault.New(fault.Unsupported, "This is an agent, which only reads. Send %s to the server itself, %s.", op.Name, g.server.Endpoint())
	}
	for _, p := range r.Params {
		if names := p.Name == "SecretName" || strings.HasSuffix(p.Name, ".SecretName"); names && g.serves != nil && !g.serves(p.Value) {
			return nil, fault.New(fault.Denied, "The configuration of this agent does not name the secret; add it to secrets, or set kms.any_secret.")
		}
	}
	ctx, cancel := context.WithTimeout(ctx, op.Deadline)
	defer cancel()
	if op.Version == kms.Version && op.Name == "GetSecretValue" {
		return g.value(ctx, op, r)
	}
	return g.pass(ctx, op, r)
}

// Refuse notes a request that no caller was found for.
func (g *Gate) Refuse(ctx context.Context, r api.Request, accessKeyID string, err error) error {
	g.log.DebugContext(ctx, "request refused", "request", r, "access_key_id", accessKeyID, "err", err)
	return err
}

// value answers GetSecretValue. What the agent holds is the version with ACSCurrent; any other is asked for, and when the server is
// away the held one is given if it is the one that is wanted.
func (g *Gate) value(ctx context.Context, op *api.Op, r api.Request) (any, error) {
	var in kms.GetSecretValueRequest
	if err := wire.Decode(r.Params, &in); err != nil {
		return nil, err
	}
	if current := in.VersionID == "" && (in.VersionStage == "" || in.VersionStage == kms.StageCurrent); current && !in.DryRun {
		return g.current(ctx, op, r, &in)
	}
	out, err := g.pass(ctx, op, r)
	if err == nil || in.DryRun || !away(err) {
		return out, err
	}
	held, heldErr := g.held.Get(ctx, in.SecretName)
	if heldErr != nil || !satisfies(held, &in) {
		return nil, err
	}
	return answerOf(held, &in, r.ID), nil
}

// satisfies reports whether a version is the one that a request wants, as far as is known without the server.
func satisfies(held *consumer.Secret, in *kms.GetSecretValueRequest) bool {
	return (in.VersionID == "" || in.VersionID == held.VersionID) && (in.VersionStage == "" || slices.Contains(held.Stages, in.VersionStage))
}

// current gives the version that is held. That there is none is what the server says, and not what it has said before.
func (g *Gate) current(ctx context.Context, op *api.Op, r api.Request, in *kms.GetSecretValueRequest) (any, error) {
	held, err := g.held.Get(ctx, in.SecretName)
	if errors.Is(err, consumer.ErrAbsent) || errors.Is(err, consumer.ErrDenied) {
		if out, passErr := g.pass(ctx, op, r); passErr == nil || !away(passErr) {
			return out, passErr
		}
	}
	if err != nil {
		return nil, outcome(err)
	}
	return answerOf(held, in, r.ID), nil
}

// answerOf is what the server would answer. A consumer asks for ExtendedConfig with every read, as the cloud's own cache clients do; it is
// for those who ask.
func answerOf(held *consumer.Secret, in *kms.GetSecretValueRequest, id string) *kms.GetSecretValueResponse {
	answer := held.Raw()
	answer.RequestID = id
	if !in.FetchExtendedConfig {
		answer.ExtendedConfig = ""
	}
	return answer
}

// outcome is the answer to an error of the consumer: what the server has said, or that there is nothing to be had now.
func outcome(err error) error {
	var said *kms.Error
	switch {
	case errors.Is(err, consumer.ErrExpired):
		return fault.Wrap(fault.Unavailable, err, "The server does not answer, and the last known value is older than the agent's max_stale allows.")
	case errors.As(err, &said):
		return said
	case errors.Is(err, consumer.ErrAbsent):
		return fault.Wrap(fault.NotFound, err, "")
	case errors.Is(err, consumer.ErrDenied):
		return fault.Wrap(fault.Denied, err, "")
	}
	return fault.Wrap(fault.Unavailable, err, "The server does not answer, and the agent has no last known value.")
}

// away reports whether an error means that the server could not be asked, rather than that it has answered.
func away(err error) bool {
	var said *kms.Error
	if errors.As(err, &said) {
		return said.Temporary()
	}
	return fault.KindOf(err) == fault.Unavailable
}

// ofSigning are the parameters that belong to the signature of version 1 and not to the operation.
var ofSigning = []string{
	"Action", "Version", "Format", "AccessKeyId", "Signature", "SignatureMethod", "SignatureVersion", "SignatureNonce", "SignatureType", "Timestamp",
	"SecurityToken",
}

// pass sends a reading call to the server, signed by the agent. Its answer is taken apart, since the caller may have asked for XML.
func (g *Gate) pass(ctx context.Context, op *api.Op, r api.Request) (any, error) {
	var params sign.Params
	for _, p := range r.Params {
		if !slices.Contains(ofSigning, p.Name) {
			params = append(params, p)
		}
	}
	body, err := g.server.Do(ctx, kms.Call{Action: op.Name, Version: op.Version, Params: params, Idempotent: true})
	var said *kms.Error
	switch {
	case errors.As(err, &said):
		return nil, said
	case err != nil:
		return nil, fault.Wrap(fault.Unavailable, err, "The server does not answer the agent.")
	}
	out := reflect.New(op.Response())
	if err := wire.DecodeResponse(body, out.Interface()); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "The server's answer to the agent is not one of this API.")
	}
	return out.Interface(), nil
}

// localKeys are the access keys that callers of the wire API may sign with.
type localKeys map[string]auth.Key

// Find finds a key.
func (k localKeys) Find(_ context.Context, id string) (auth.Key, bool, error) {
	key, ok := k[id]
	return key, ok, nil
}

func newLocalKeys(credentials []sign.Credentials) localKeys {
	k := localKeys{}
	for _, c := range credentials {
		k[c.AccessKeyID] = auth.Key{
			ID: c.AccessKeyID, Principal: policy.Principal{Kind: policy.KindSystem, Name: "agent"}, Secret: sign.NewKey(c.AccessKeySecret), Token: c.SecurityToken,
		}
	}
	return k
}
