// Package audit keeps the trail of calls: one JSON line per record, each with the hash of the one
// before, in segment files that are only ever appended to.
//
// Verify recomputes the chain over the bytes on disk, so a changed byte and a line removed,
// inserted or moved show, even to a reader who does not trust this program. A trail with a key also
// has a MAC in each line, so that only the holder of the key can write a line. The chain cannot
// show that whole lines were cut from the very end, or that everything was rewritten. Both show
// against the trail's [Head], which the caller keeps elsewhere and hands to [Log.Resume] and
// [Verification]. A record with a durable Append is on disk when Append returns; any other has left
// the process then and is on disk within Config.SyncEvery.
//
// The caller decides which calls to record, and what happens to a call that cannot be recorded. No
// value, key, signature, token or digest of one has a field here.
package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Phase distinguishes the records of one call.
type Phase string

// A change is recorded as an Intent before its effect and as an Outcome after it; a read or a
// refused call is one Call.
const (
	Intent  Phase = "intent"
	Outcome Phase = "outcome"
	Call    Phase = "call"
)

// Decision is what the policies said. It is empty where none was asked.
type Decision string

// The decisions.
const (
	Allow Decision = "allow"
	Deny  Decision = "deny"
)

// Recovered is the operation of the record that Open appends after it cut off an unfinished last
// line.
const Recovered = "audit.recovered"

// TimeFormat is how Time is written: RFC 3339 in UTC, always with milliseconds.
const TimeFormat = "2006-01-02T15:04:05.000Z"

// Longer members are cut, since a stranger may choose them and a trail must not be filled by one
// call.
const (
	maxUserAgent = 256
	maxMember    = 1024

	// MaxDetails bounds all names and values of a record's details together, in bytes.
	MaxDetails = 16 << 10
)

// Detail is one fact about a call.
type Detail struct{ Name, Value string }

// Details are facts about a call that have no member of their own, such as the address of a target.
// They are written as one JSON object. No secret value may be in them. Beyond MaxDetails bytes in
// all they are cut, and "cut" says so.
type Details []Detail

// MarshalJSON writes an object, in order.
func (d Details) MarshalJSON() ([]byte, error) { return d.append(nil), nil }

// UnmarshalJSON reads such an object.
func (d *Details) UnmarshalJSON(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return errors.New("details are not an object")
	}
	*d = nil
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return err
		}
		var value string
		if err := dec.Decode(&value); err != nil {
			return err
		}
		*d = append(*d, Detail{name.(string), value})
	}
	return nil
}

func (d Details) append(dst []byte) []byte {
	dst = append(dst, '{')
	for i, m := range d {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendText(dst, m.Name), ':')
		dst = appendText(dst, m.Value)
	}
	return append(dst, '}')
}

// Get returns the value of a detail; empty when it is not there.
func (d Details) Get(name string) string {
	for _, m := range d {
		if m.Name == name {
			return m.Value
		}
	}
	return ""
}

// bounded returns the details that fit into MaxDetails bytes. The last one that fits in part is
// shortened.
func (d Details) bounded() Details {
	left := MaxDetails
	for i, m := range d {
		left -= len(m.Name) + len(m.Value)
		if left >= 0 {
			continue
		}
		out := append(Details{}, d[:i]...)
		if keep := len(m.Value) + left; keep > 0 {
			out = append(out, Detail{m.Name, cut(m.Value, keep)})
		}
		return append(out, Detail{"cut", "true"})
	}
	return d
}

// Record is one line. Append fills V, Seq, Time, Prev, MAC and Hash, and they stand at the two ends
// of the line.
type Record struct {
	V             int       `json:"v,omitempty"` // format of the line; 0 means 1
	Seq           uint64    `json:"seq,omitempty"`
	Time          time.Time `json:"time,omitzero"`
	RequestID     string    `json:"request_id,omitempty"`
	Phase         Phase     `json:"phase,omitempty"`
	Principal     string    `json:"principal,omitempty"` // ARN
	PrincipalType string    `json:"principal_type,omitempty"`
	AccessKeyID   string    `json:"access_key_id,omitempty"`
	Account       string    `json:"account,omitempty"`
	Source        string    `json:"source,omitempty"` // address
	UserAgent     string    `json:"user_agent,omitempty"`
	Service       string    `json:"service,omitempty"`
	APIVersion    string    `json:"api_version,omitempty"`
	Operation     string    `json:"operation,omitempty"`
	Action        string    `json:"action,omitempty"`   // the action on Resource, where it is not the operation's own
	Resource      string    `json:"resource,omitempty"` // ARN
	VersionID     string    `json:"version_id,omitempty"`
	VersionStage  string    `json:"version_stage,omitempty"`
	Decision      Decision  `json:"decision,omitempty"`
	Outcome       string    `json:"outcome,omitempty"` // "ok", "unknown" or the error code
	Note          string    `json:"note,omitempty"`
	Details       Details   `json:"details,omitempty"`
	Prev          string    `json:"prev,omitempty"`
	MAC           string    `json:"mac,omitempty"`
	Hash          string    `json:"hash,omitempty"`
}

var (
	errPhase     = errors.New("audit: phase is not intent, outcome or call")
	errDecision  = errors.New("audit: decision is not allow, deny or empty")
	errOperation = errors.New("audit: record has no operation")
)

func (r *Record) check() error {
	switch r.Phase {
	case Intent, Outcome, Call:
	default:
		return errPhase
	}
	switch r.Decision {
	case Allow, Deny, "":
	default:
		return errDecision
	}
	if r.Operation == "" {
		return errOperation
	}
	return nil
}

// prepare bounds the members that a caller fills.
func (r *Record) prepare() {
	r.UserAgent = cut(r.UserAgent, maxUserAgent)
	for _, s := range []*string{
		&r.RequestID, &r.Principal, &r.PrincipalType, &r.AccessKeyID, &r.Account, &r.Source, &r.Service, &r.APIVersion,
		&r.Operation, &r.Action, &r.Resource, &r.VersionID, &r.VersionStage, &r.Outcome, &r.Note,
	} {
		*s = cut(*s, maxMember)
	}
	r.Details = r.Details.bounded()
}

// appendMembers appends the middle part of a line: the members that a caller fills, as
// encoding/json writes them.
func (r *Record) appendMembers(dst []byte) []byte {
	start := len(dst)
	for _, m := range [...]struct{ key, value string }{
		{`"request_id":`, r.RequestID},
		{`"phase":`, string(r.Phase)},
		{`"principal":`, r.Principal},
		{`"principal_type":`, r.PrincipalType},
		{`"access_key_id":`, r.AccessKeyID},
		{`"account":`, r.Account},
		{`"source":`, r.Source},
		{`"user_agent":`, r.UserAgent},
		{`"service":`, r.Service},
		{`"api_version":`, r.APIVersion},
		{`"operation":`, r.Operation},
		{`"action":`, r.Action},
		{`"resource":`, r.Resource},
		{`"version_id":`, r.VersionID},
		{`"version_stage":`, r.VersionStage},
		{`"decision":`, string(r.Decision)},
		{`"outcome":`, r.Outcome},
		{`"note":`, r.Note},
	} {
		if m.value == "" {
			continue
		}
		if len(dst) > start {
			dst = append(dst, ',')
		}
		dst = appendText(append(dst, m.key...), m.value)
	}
	if len(r.Details) > 0 {
		if len(dst) > start {
			dst = append(dst, ',')
		}
		dst = r.Details.append(append(dst, `"details":`...))
	}
	return dst
}

// appendText appends s as a JSON string. What is not plain is left to encoding/json.
func appendText(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return appendEscaped(dst, s)
		}
	}
	return append(append(append(dst, '"'), s...), '"')
}

func appendEscaped(dst []byte, s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string cannot fail
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte{'\n'})...)
}

// cut shortens s to at most n bytes without splitting a character. The copy lets go of a long
// original.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return strings.Clone(s[:n])
}

func recoveredRecord(file string, n int64) Record {
	return Record{
		Phase: Call, PrincipalType: "system", Operation: Recovered, Outcome: "ok",
		Note: fmt.Sprintf("cut %d bytes of an unfinished last line from %s", n, file),
	}
}
