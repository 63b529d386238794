// Package policy decides whether a principal may do something. It reads RAM policy documents,
// attached to principals (identity policies) or to one secret (its secret policy), and Evaluate
// answers: denied unless allowed, and a deny wins.
//
// A document is checked when it is stored, not when it is used: an element, operator or value that
// this package does not know is refused by ParseIdentity and ParseSecret, because ignoring one that
// narrows a statement would widen it. What was accepted always evaluates.
//
// The package is pure. The caller finds the documents that apply, the tags of the resource and the
// true address of the peer, and records the decision.
package policy

import (
	"net/netip"
	"time"
)

// PrincipalKind is the kind of a caller, in the spelling of GetCallerIdentity.
type PrincipalKind string

// The kinds of principal. System is the engine itself; the others are callers from outside.
const (
	KindAccount     PrincipalKind = "Account"
	KindRAMUser     PrincipalKind = "RAMUser"
	KindAssumedRole PrincipalKind = "AssumedRoleUser"
	KindSystem      PrincipalKind = "System"
)

// Principal is a caller whose identity has been proven. Name is the name of the user, the role or
// the part of the engine; Session is set for AssumedRoleUser only. The zero Principal has no
// rights.
type Principal struct {
	Kind        PrincipalKind `json:"kind"`
	Account     string        `json:"account"`
	Name        string        `json:"name,omitempty"`
	Session     string        `json:"session,omitempty"`
	ID          string        `json:"id,omitempty"`
	AccessKeyID string        `json:"-"`
}

// ARN returns the name of the principal in messages and records. Samples of AssumeRole print other
// forms for a session; this is the one that GetCallerIdentity answers.
func (p Principal) ARN() string {
	switch p.Kind {
	case KindAccount:
		return ARN("ram", "", p.Account, "root")
	case KindRAMUser:
		return ARN("ram", "", p.Account, "user/"+p.Name)
	case KindAssumedRole:
		return ARN("ram", "", p.Account, "assumed-role/"+p.Name+"/"+p.Session)
	case KindSystem:
		return ARN("ram", "", p.Account, "system/"+p.Name)
	}
	return ""
}

// Context is what conditions may ask about a request. SourceIP comes from the connection or a
// trusted proxy, never from a parameter; when it is not valid, acs:SourceIp counts as absent. Tags
// are the tags of the resource.
type Context struct {
	Now                         time.Time
	SourceIP                    netip.Addr
	SecureTransport, MFAPresent bool
	Tags                        map[string]string
}

// Request is one question: may Principal do Action ("kms:GetSecretValue") to Resource, an ARN, or
// "*" for an operation without a resource?
type Request struct {
	Principal        Principal
	Action, Resource string
	Context          Context
	// Grantable says that an Allow of the secret policy counts for this action. A Deny counts for
	// every action.
	Grantable bool
	// Repairs says that the action reads or replaces the secret policy. A Deny of that policy does not
	// take it from root, so a policy can always be corrected.
	Repairs bool
	// ByName says that an identity policy allows the action only by a statement that names the last
	// part of the resource without a wildcard: a right on everything does not include it.
	ByName bool
}

// Decision is the answer and which statement gave it. Explicit means that a Deny decided. Policy is
// "identity" or "secret", and empty for an implicit deny and for the rights of root; then Document
// and Statement are -1. Document is an index into the identity documents, -1 for the secret policy.
type Decision struct {
	Allowed   bool
	Explicit  bool
	Policy    string
	Document  int
	Statement int
	Sid       string
}

// The values of Decision.Policy.
const (
	PolicyIdentity = "identity"
	PolicySecret   = "secret"
)
