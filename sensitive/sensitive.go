// Package sensitive holds strings that must not be seen: secret values, access key secrets, tokens.
//
// A Value prints as [redacted] and refuses to be marshalled, so that a struct holding one can be logged or put in an
// error without a thought. Reveal is the only way in, and reviewers search for it. The package does not wipe memory:
// a Go string may be copied by the runtime, and a promise about it could not be kept.
package sensitive

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Redacted is what a Value shows of itself.
const Redacted = "[redacted]"

var errMarshal = errors.New("sensitive: a value is not marshalled; call Reveal where it must leave")

// Value is a string that does not show itself. The zero Value is the empty string. It cannot be compared with ==,
// which would not take constant time.
type Value struct {
	_ [0]func()
	// A pointer, because fmt calls no method on a Value in an unexported field or under %p: it walks the fields,
	// and of a pointer to a string it prints the address.
	s *string
}

// New returns a Value holding s.
func New(s string) Value {
	if s == "" {
		return Value{}
	}
	return Value{s: &s}
}

// Reveal returns the string.
func (v Value) Reveal() string {
	if v.s == nil {
		return ""
	}
	return *v.s
}

// Len returns the length in bytes.
func (v Value) Len() int { return len(v.Reveal()) }

// IsZero reports whether the string is empty. Members tagged omitzero are left out by it.
func (v Value) IsZero() bool { return v.Len() == 0 }

// Equal reports whether both hold the same string, in a time that depends on the lengths alone.
func (v Value) Equal(o Value) bool {
	return subtle.ConstantTimeCompare([]byte(v.Reveal()), []byte(o.Reveal())) == 1
}

// Format writes [redacted] under every verb, flag and width.
func (v Value) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// String returns [redacted].
func (v Value) String() string { return Redacted }

// GoString returns [redacted].
func (v Value) GoString() string { return Redacted }

// LogValue returns [redacted].
func (v Value) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalJSON returns an error.
func (v Value) MarshalJSON() ([]byte, error) { return nil, errMarshal }

// MarshalText returns an error. It stops the XML, YAML and TOML encoders too.
func (v Value) MarshalText() ([]byte, error) { return nil, errMarshal }

// MarshalBinary returns an error.
func (v Value) MarshalBinary() ([]byte, error) { return nil, errMarshal }

// GobEncode returns an error.
func (v Value) GobEncode() ([]byte, error) { return nil, errMarshal }
