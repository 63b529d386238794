// Package sensitive keeps strings such as secret values, access key secrets and tokens out of logs
// and errors.
//
// A [Value] prints as [redacted] and refuses to be marshalled, so a struct that contains one can be
// logged or put in an error. [Value.Reveal] is the only access to the string, and reviewers search
// for it. The package does not wipe memory, because the Go runtime may copy a string at any time.
package sensitive

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Redacted is the text that a [Value] prints.
const Redacted = "[redacted]"

var errMarshal = errors.New("sensitive: a value is not marshalled; call Reveal where it must leave")

// Value is a string that does not print itself. The zero Value is the empty string. Values cannot
// be compared with ==, which would not take constant time; use [Value.Equal].
type Value struct {
	_ [0]func()
	// A pointer, because fmt calls no method on a Value in an unexported field or under %p. It then
	// prints the fields, and for a pointer to a string that is the address.
	s *string
}

// New returns a Value with the string s.
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

// IsZero reports whether the string is empty. encoding/json uses it for the tag omitzero.
func (v Value) IsZero() bool { return v.Len() == 0 }

// Equal reports whether both strings are equal, in a time that depends only on their lengths.
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

// MarshalText returns an error. The XML, YAML and TOML encoders use it too.
func (v Value) MarshalText() ([]byte, error) { return nil, errMarshal }

// MarshalBinary returns an error.
func (v Value) MarshalBinary() ([]byte, error) { return nil, errMarshal }

// GobEncode returns an error.
func (v Value) GobEncode() ([]byte, error) { return nil, errMarshal }
