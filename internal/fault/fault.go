// Package fault is the coded error of the core: an outcome that a caller can act on.
//
// A rule that refuses something returns a *fault.Error with a Kind. Everything else is a plain
// wrapped error, and KindOf returns Internal for it, so that an unexpected detail never
// reaches a caller. One table in package api turns a Kind into an HTTP status and a documented
// code; nothing else does.
package fault

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kind classifies an outcome. The zero value means success.
type Kind uint8

// The kinds, by where they arise. Each has exactly one documented code and HTTP status, in package
// api, unless Error.Code names another.
const (
	OK Kind = iota

	// Internal is a fault of our own; its text is for the log and never for the caller.
	Internal
	// Unavailable means that the store, the audit trail or the process cannot serve now. The caller
	// may retry.
	Unavailable
	// Throttled means that the caller is over a rate limit.
	Throttled

	// Malformed is a query or body that cannot be decoded.
	Malformed
	// Missing is a required parameter that is absent or empty. Param names it.
	Missing
	// Invalid is a parameter outside its range, format or combination. Param names it.
	Invalid
	// Method is an HTTP method that the operation does not take.
	Method
	// NoAction is an operation that this API does not have.
	NoAction
	// Version is a missing or unknown API version.
	Version

	// MissingKey is a request without an access key.
	MissingKey
	// BadSignature is a malformed or partial signature.
	BadSignature
	// WrongSignature is a signature that does not match.
	WrongSignature
	// UnknownKey is an access key that does not exist.
	UnknownKey
	// DisabledKey is an access key that is switched off.
	DisabledKey
	// MissingToken is a temporary key without its token.
	MissingToken
	// WrongToken is a token that belongs to another key.
	WrongToken
	// ExpiredToken is a token past its time.
	ExpiredToken
	// NoTimestamp is a missing or malformed time.
	NoTimestamp
	// Expired is a time outside the window.
	Expired
	// Replayed is a nonce that was used already.
	Replayed

	// Denied is a refusal by policy.
	Denied
	// NotFound is a secret, version or label that does not exist.
	NotFound
	// KeyNotFound is a customer master key that does not exist.
	KeyNotFound
	// Exists is a name or version that is taken.
	Exists
	// Deleting is a secret that waits in its deletion window.
	Deleting
	// InUse is a call that the state of the resource does not allow.
	InUse
	// LimitExceeded is a quota that the call would exceed.
	LimitExceeded
	// Unsupported is an operation that this kind of resource does not have.
	Unsupported
	// KeyDisabled is a customer master key that is switched off.
	KeyDisabled

	// DryRunOK ends a dry run that would have succeeded.
	DryRunOK
	// DryRunInvalid ends a dry run that the operation would have refused.
	DryRunInvalid
	// DryRunDenied ends a dry run that policy would have refused.
	DryRunDenied

	// Kinds is the number of kinds, for tables and their tests.
	Kinds
)

// Error is an outcome with a kind.
type Error struct {
	Kind Kind
	// Code is a documented code of its own, for a service that has one for each thing that it keeps;
	// package api knows its status and text. Empty means the code of the kind. A * in it stands for
	// Param.
	Code string
	// Param is the wire name of the parameter at fault, for Missing and Invalid.
	Param string
	// Msg says what to change. It is shown to the caller and never holds a secret value.
	Msg string
	// Err is the cause, for the log alone.
	Err error
	// Retry is when to come back, for Throttled; 0 when it is not known.
	Retry time.Duration
}

// New returns an error of the given kind. The message is shown to the caller; empty means the
// documented text alone.
func New(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Msg: Message(format, args...)}
}

// Parameter returns an Invalid error that names the parameter and says what to change.
func Parameter(name, format string, args ...any) *Error {
	return &Error{Kind: Invalid, Param: name, Msg: Message(format, args...)}
}

// Required returns a Missing error that names the parameter.
func Required(name string) *Error { return &Error{Kind: Missing, Param: name} }

// Coded returns an error of the given kind with a code of its own.
func Coded(kind Kind, code, format string, args ...any) *Error {
	return &Error{Kind: kind, Code: code, Msg: Message(format, args...)}
}

// Wrap returns an error of the given kind with a cause that only the log shows.
func Wrap(kind Kind, err error, format string, args ...any) *Error {
	return &Error{Kind: kind, Msg: Message(format, args...), Err: err}
}

// Message formats a message. It shortens long arguments, and writes the name of each command in the
// format, a %s behind the verbs as in "keyturn rotation status %s", as [Command] does. A flag of
// such a command has its value behind =.
func Message(format string, args ...any) string {
	format, args = withCommands(format, shortened(args))
	return fmt.Sprintf(format, args...)
}

// Text is an argument of [Message] that is not shortened: a text of Keyturn's own, in which what
// others gave is bounded already.
type Text string

// maxQuoted is how many bytes of one argument a message repeats.
const maxQuoted = 2048

// shortened cuts the arguments of a message that a caller may have given, so that a long parameter
// does not make a long refusal.
func shortened(args []any) []any {
	out := slices.Clone(args)
	for i, a := range out {
		text, ok := a.(string)
		if err, is := a.(error); is && err != nil {
			text, ok = err.Error(), true
		}
		if ok && len(text) > maxQuoted {
			out[i] = strings.ToValidUTF8(text[:maxQuoted], "") + "…"
		}
	}
	return out
}

func (e *Error) Error() string {
	s := e.Msg
	if e.Param != "" {
		s = fmt.Sprintf("parameter %s: %s", e.Param, s)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of err: OK for nil, Internal for an error that no rule has named.
func KindOf(err error) Kind {
	if err == nil {
		return OK
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}
