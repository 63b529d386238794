// Package audit keeps the trail of calls: one JSON line per record, each with the hash of the one before, in segment
// files that are only ever appended to.
//
// Verify recomputes the chain over the bytes on disk, so a changed byte and a line removed, inserted or moved show,
// even to somebody who does not trust this program. Two things it cannot show: that whole lines were cut from the very
// end, and that everything was rewritten. Both show to whoever kept an earlier Report. A record with a durable Append
// is on disk when Append returns; any other has left the process then and is on disk within Config.SyncEvery.
//
// What is recorded, and what happens to a call that cannot be, is for the caller to decide. No value, key, signature,
// token or digest of one has a field here.
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

// Phase tells the records of one call apart.
type Phase string

// A change is recorded as an Intent before its effect and as an Outcome after it; a read or a refused call is one Call.
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

// Recovered is the operation of the record that Open appends after it cut off an unfinished last line.
const Recovered = "audit.recovered"

// TimeFormat is how Time is written: RFC 3339 in UTC, always with milliseconds.
const TimeFormat = "2006-01-02T15:04:05.000Z"

// Longer members are cut, since a stranger may choose them and a trail must not be filled by one call.
const (
	maxUserAgent = 256
	maxMember    = 1024
)

// Record is one line. Append fills Seq, Time, Prev and Hash, and they stand at the two ends of the line.
type Record struct {
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
	Prev          string    `json:"prev,omitempty"`
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
}

// appendMembers appends the middle part of a line: the members that a caller fills, as encoding/json writes them.
func (r *Record) appendMembers(dst []byte) []byte {
	start := len(dst)
	for _, m := range [...]struct{ key, value string }{
		{`"request_id":`, r.RequestID}, {`"phase":`, string(r.Phase)}, {`"principal":`, r.Principal},
		{`"principal_type":`, r.PrincipalType}, {`"access_key_id":`, r.AccessKeyID}, {`"account":`, r.Account},
		{`"source":`, r.Source}, {`"user_agent":`, r.UserAgent}, {`"service":`, r.Service}, {`"api_version":`, r.APIVersion},
		{`"operation":`, r.Operation}, {`"action":`, r.Action}, {`"resource":`, r.Resource}, {`"version_id":`, r.VersionID},
		{`"version_stage":`, r.VersionStage}, {`"decision":`, string(r.Decision)}, {`"outcome":`, r.Outcome}, {`"note":`, r.Note},
	} {
		if m.value == "" {
			continue
		}
		if len(dst) > start {
			dst = append(dst, ',')
		}
		dst = appendText(append(dst, m.key...), m.value)
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

// cut shortens s to at most n bytes without splitting a character. The copy lets go of a long original.
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
