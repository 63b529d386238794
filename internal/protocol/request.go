package protocol

import (
	"log/slog"
	"net/netip"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/sign"
)

// Request is one call as a door hands it to a gate.
type Request struct {
	// ID names the call in the answer, the audit trail and the log: a lower-case UUID.
	ID string
	// Principal is the verified caller; zero while there is none.
	Principal policy.Principal
	// Method is the HTTP method; empty for callers inside this process.
	Method string
	// Action and Version are the operation that the request names, whether or not it exists.
	Action, Version string
	// Params are the parameters that the signature covers, and no others.
	Params sign.Params
	// Source is the address of the peer.
	Source netip.Addr
	// Secure reports that the request came over TLS.
	Secure    bool
	UserAgent string
}

var _ slog.LogValuer = Request{}

// LogValue keeps a request out of a log but for its ID and operation: parameters hold values.
func (r Request) LogValue() slog.Value {
	return slog.GroupValue(slog.String("request_id", r.ID), slog.String("operation", Clip(r.Action)))
}

// Clip shortens what a caller claims to 64 bytes, for a record or a log.
func Clip(s string) string { return s[:min(len(s), 64)] }

// Denial is the detail of a refusal by policy that the caller gets.
type Denial struct {
	AuthAction               string `json:"AuthAction"`
	AuthPrincipalType        string `json:"AuthPrincipalType"`
	AuthPrincipalOwnerID     string `json:"AuthPrincipalOwnerId"`
	AuthPrincipalDisplayName string `json:"AuthPrincipalDisplayName"`
	NoPermissionType         string `json:"NoPermissionType"`
	PolicyType               string `json:"PolicyType"`
}

// DeniedError is a refusal by policy with its detail.
type DeniedError struct {
	// Fault is of kind Denied.
	Fault  *fault.Error
	Detail Denial
}

// Error names the action that was refused.
func (e *DeniedError) Error() string { return "denied: " + e.Detail.AuthAction }

// Unwrap returns Fault.
func (e *DeniedError) Unwrap() error { return e.Fault }
