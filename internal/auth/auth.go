// Package auth establishes the identity of a caller. It finds the access key, verifies the
// signature in constant time, refuses a stale time and a replayed nonce, and returns the principal
// with the parameters that the signature covers. It knows nothing of HTTP beyond headers by name.
//
// Operations get parameters only from here: a parameter that the signature does not cover is
// dropped. The bytes that are signed are the bytes that are interpreted.
package auth

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

const (
	// Window is how far the time of a request may be in the past (protocol.md section 10).
	Window = 15 * time.Minute
	// DefaultAhead is how far the time of a request may be in the future unless Config says
	// otherwise.
	DefaultAhead = 2 * time.Minute
	// anyRegion is the region of a version 4 scope when a client has none, as official SDKs write
	// it.
	anyRegion = "center"
)

// Claim is what a request states about itself before anything is verified.
type Claim struct {
	AccessKeyID, Action, Version string
	// Format is the parameter Format, from the query or a form.
	Format string
}

// Result is what is known of a request. Without an error the claim is verified, and the other
// fields are set.
type Result struct {
	Claim

	Principal policy.Principal
	// Params are all parameters that the signature covers, and no others.
	Params sign.Params
}

// take fills the claim from the parameters of version 1.
func (c *Claim) take(p sign.Params) {
	c.AccessKeyID, c.Action = value(p, "AccessKeyId"), value(p, "Action")
	c.Version, c.Format = value(p, "Version"), value(p, "Format")
}

// Key is an access key, unsealed.
type Key struct {
	ID        string
	Principal policy.Principal
	Disabled  bool
	Secret    *sign.Key
	// Token belongs to a temporary key and is empty for a permanent one.
	Token sensitive.Value
	// ExpiresAt is zero for a permanent key.
	ExpiresAt time.Time
}

// Keys finds access keys. One that does not exist is found false; an error means that it could not
// be looked for.
type Keys interface {
	Find(ctx context.Context, id string) (key Key, found bool, err error)
}

// Config says how requests are verified.
type Config struct {
	// Keys finds access keys. Required.
	Keys Keys
	// Now is the clock. Required.
	Now func() time.Time
	// Nonces bounds how many nonces are remembered; 0 means DefaultNonces.
	Nonces int
	// Ahead is how far the time of a request may be in the future, at most Window; 0 means
	// DefaultAhead.
	Ahead time.Duration
	// RefuseV1 refuses signature version 1, whose usual algorithm is HMAC-SHA1.
	RefuseV1 bool
	// Regions are the regions that the scope of version 4 may name, beside "center"; nil means any.
	Regions []string
	// Service returns the service of an API version, which the scope of version 4 must name; ""
	// means that there is no such version. Required.
	Service func(version string) string
	// Harmless reports whether a parameter of that name never holds a secret, so that an error
	// message may repeat it. nil means that no parameter is harmless.
	Harmless func(name string) bool
	// History keeps used nonces over a restart; nil means that they are in memory alone.
	History *History
	// Start is when the process began: without a History, requests with times before that second
	// are refused, since they may have been accepted before. Zero means that none can have been.
	Start time.Time
	// Log is for the operator; nil means that nothing is logged.
	Log *slog.Logger
}

// Authenticator verifies requests. It is safe for concurrent use.
type Authenticator struct {
	config Config
	nonces *Nonces
}

// New returns an authenticator.
func New(c Config) *Authenticator {
	if c.Ahead <= 0 {
		c.Ahead = DefaultAhead
	}
	return &Authenticator{config: c, nonces: NewNonces(c.Nonces, c.History, c.Start, c.Log)}
}

// Nonces returns how many nonces are remembered.
func (a *Authenticator) Nonces() int { return a.nonces.Len() }

// Authenticate verifies a request. The error is a *fault.Error whose kind says what is wrong; what
// the request claims to be is returned in any case.
func (a *Authenticator) Authenticate(ctx context.Context, r Request) (Result, error) {
	query, err := parseQuery(nil, r.Query)
	if err == nil {
		err = unique(query)
	}
	if err != nil {
		return Result{}, err
	}
	authorization, err := r.single("authorization")
	if err != nil {
		return Result{}, err
	}
	claim := Claim{Format: value(query, "Format")}
	var v verified
	if strings.HasPrefix(authorization, "ACS3-") || strings.HasPrefix(authorization, "ACS4-") {
		v, err = a.header(ctx, &r, query, authorization, &claim)
	} else {
		v, err = a.parameters(ctx, &r, query, &claim)
	}
	if err != nil {
		return Result{Claim: claim}, err
	}
	return Result{Claim: claim, Principal: v.principal, Params: v.params}, nil
}

// verified is a caller and what the signature covers.
type verified struct {
	principal policy.Principal
	params    sign.Params
}

func value(p sign.Params, name string) string {
	s, _ := p.Get(name)
	return s
}

func (a *Authenticator) find(ctx context.Context, id string) (Key, error) {
	key, found, err := a.config.Keys.Find(ctx, id)
	if err == nil && !found {
		err = fault.New(fault.UnknownKey, "Specified access key is not found.")
	}
	return key, err
}

// accept checks what is left once the signature has verified: the state of the key, its token, time
// and nonce. The nonce comes last, so that only the caller can use it up.
func (a *Authenticator) accept(key Key, token string, at time.Time, nonce string) (policy.Principal, error) {
	now := a.config.Now()
	temporary := !key.Token.IsZero()
	switch {
	case key.Disabled:
		return policy.Principal{}, fault.New(fault.DisabledKey, "This AccessKey is not enabled.")
	case temporary && token == "":
		return policy.Principal{}, fault.New(fault.MissingToken, "SecurityToken is mandatory for this action.")
	case temporary && !key.Token.Equal(sensitive.New(token)), !temporary && token != "":
		return policy.Principal{}, fault.New(fault.WrongToken,
			"The specified SecurityToken does not match the AccessKeyId.")
	case !key.ExpiresAt.IsZero() && !now.Before(key.ExpiresAt):
		return policy.Principal{}, fault.New(fault.ExpiredToken, "The specified SecurityToken is expired.")
	case at.Before(now.Add(-Window)) || at.After(now.Add(a.config.Ahead)):
		return policy.Principal{}, fault.New(fault.Expired,
			"Specified time stamp or date value is expired. The server's time is %s.",
			now.UTC().Format(wire.TimeFormat))
	}
	if err := checkNonce(nonce); err != nil {
		return policy.Principal{}, err
	}
	p := key.Principal
	p.AccessKeyID = key.ID
	return p, a.nonces.Use(key.ID, nonce, at, now)
}

// parseTime reads the one layout that requests may use. time.Parse alone would take fractions too.
func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(wire.TimeFormat, s)
	if err != nil || len(s) != len(wire.TimeFormat) {
		return t, fault.New(fault.NoTimestamp, `The input parameter "Timestamp" that is mandatory for processing `+
			`this request is not supplied. It has the form YYYY-MM-DDThh:mm:ssZ.`)
	}
	return t, nil
}

func clip(s string) string { return s[:min(len(s), 64)] }
