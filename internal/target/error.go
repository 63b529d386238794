package target

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"

	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/sensitive"
)

// Class is what an error says of the world. Only a target that answered moves a rotation; the
// classes keep the three apart: answered no, was not reached, did not answer.
type Class uint8

// The classes. The zero value is the careful one.
const (
	// Unknown means that no answer came: the effect may or may not have happened.
	Unknown Class = iota
	// Unreachable means that the target was certainly not asked, so nothing has happened: no
	// connection was made, or the target said that it does not serve now before it took the
	// request.
	Unreachable
	// Refused means that the target answered that it does not take this credential, by its rules
	// for credentials (length, history, strength). Nothing has happened, and the same credential
	// would be refused again.
	Refused
	// Rejected means that the target answered that this credential does not authenticate.
	Rejected
	// Denied means that the target answered that the administrator may not, or does not
	// authenticate, or that the account or setting in question does not exist. Nothing has
	// happened; a person is needed, who may mend it without Keyturn.
	Denied
)

// String is the class in one word.
func (c Class) String() string {
	switch c {
	case Unreachable:
		return "unreachable"
	case Refused:
		return "refused"
	case Rejected:
		return "rejected"
	case Denied:
		return "denied"
	default:
		return "unknown"
	}
}

// Error is what went wrong at a target, in the target's own words.
type Error struct {
	Class Class
	// Code is the target's own code, such as 28P01, or [CodeEgress]; empty when there is none.
	Code string
	// Text says what was attempted and what the target answered. It holds no secret: see Scrub.
	Text string
	// Detail is for the operator's log alone: the network's own words, and what a peer said that
	// has not proved who it is. A caller who could read it could use a target as a port scanner and
	// as a reader of other services' banners.
	Detail string
}

func (e *Error) Error() string {
	if e.Code == "" {
		return e.Text
	}
	return e.Text + " (" + e.Code + ")"
}

// Failed returns an error of a class. Every secret that the attempt knew goes into secrets, so that
// a target which quotes its input gives nothing away.
func Failed(class Class, code, text string, secrets ...sensitive.Value) *Error {
	return &Error{Class: class, Code: bounded(Scrub(code, secrets...)), Text: bounded(Scrub(text, secrets...))}
}

// Errorf returns an error of the class without a code, for a text that quotes no secret.
func (c Class) Errorf(format string, args ...any) *Error {
	return Failed(c, "", fmt.Sprintf(format, args...))
}

// maxText is the length of the longest text of an error, in characters.
const maxText = 1000

// bounded makes a text one line of at most maxText characters.
func bounded(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if r := []rune(text); len(r) > maxText {
		return string(r[:maxText]) + "…"
	}
	return text
}

// ForCaller returns what a caller learns about an error: class, code and text, without detail. If
// withheld is true, that is only "no answer". It is so for everything that a system of the target's
// kind has not said, so that no call tells what listens at an address, nor whether anything does.
func ForCaller(err error) (told Error, withheld bool) {
	var e *Error
	if !errors.As(err, &e) || e.Class == Unknown || e.Class == Unreachable && e.Detail != "" {
		return Error{Class: Unreachable, Text: "no answer; the server's log says more"}, true
	}
	return Error{Class: e.Class, Code: e.Code, Text: e.Text}, false
}

// TextForCaller returns the text of [ForCaller], with the code if there is one.
func TextForCaller(err error) string {
	told, _ := ForCaller(err)
	return told.Error()
}

// Withholds reports whether callers learn less about an error than the operator's log should hold.
func Withholds(err error) bool {
	if !errors.As(err, new(*Error)) {
		return false
	}
	_, withheld := ForCaller(err)
	return withheld || DetailOf(err) != ""
}

// DetailOf returns what the operator's log should hold about an error besides its text; empty when
// there is nothing.
func DetailOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Detail
	}
	return ""
}

// inGeneral is what a caller learns about an answer whose sender has not proved who it is.
var inGeneral = map[Class]string{
	Unknown:     "no answer that tells what happened",
	Unreachable: "it does not serve",
	Refused:     "the credential is refused",
	Rejected:    "the credential does not authenticate",
	Denied:      "it is denied",
}

// Unproven is [Error.Unproven] of the *Error that err is or wraps.
func Unproven(attempt string, err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	return e.Unproven(attempt)
}

// Unproven moves what a peer said into the detail of its error: without TLS anything may answer at
// an address. The class and the code stay.
func (e *Error) Unproven(attempt string) *Error {
	out := *e
	out.Text = attempt + ": " + inGeneral[e.Class] + "; without TLS, what it said is in the server's log"
	out.Detail = strings.TrimPrefix(e.Detail+"; "+e.Text, "; ")
	return &out
}

// ClassOf is the class of an error: Unknown for one that no target has classified.
func ClassOf(err error) Class {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return Unknown
}

// CodeEgress is the code of an error that the server's own egress rules made: the target was not
// asked.
const CodeEgress = "EgressRefused"

// NotSent classifies an error of making a connection: Unreachable, because nothing was asked
// yet; Denied when the server's rules refuse the address that the caller has named. A name that
// the rules refuse is as one that does not exist: callers must not learn which names the server
// can resolve. Why there is no connection is for the operator alone.
func NotSent(attempt string, err error, secrets ...sensitive.Value) *Error {
	class, code, text := Unreachable, "", "no answer"
	var refused *egress.RefusedError
	if errors.As(err, &refused) && refused.Literal() {
		class, code, text = Denied, CodeEgress, "the server's egress rules do not permit this address"
	}
	e := Failed(class, code, attempt+": "+text, secrets...)
	e.Detail = bounded(Scrub(plain(err), secrets...))
	return e
}

// NoAnswer classifies an error after a request has been sent: Unknown.
func NoAnswer(attempt string, err error, secrets ...sensitive.Value) *Error {
	e := Failed(Unknown, "", attempt+": no answer", secrets...)
	e.Detail = bounded(Scrub(plain(err), secrets...))
	return e
}

// AsAdmin is the error of an administrator's login as the error of the change that it was for:
// nothing was asked of the target yet, so nothing has happened.
func AsAdmin(err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	out := *e
	switch e.Class {
	case Rejected:
		out.Class, out.Text = Denied, "the administrator: "+e.Text
	case Unknown:
		out.Class = Unreachable
	}
	return &out
}

// plain is the text of an error; of a URL error only its cause, since it quotes the URL.
func plain(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	return err.Error()
}

// Scrub replaces every occurrence of a secret in a text, also as a URL or JSON would spell it. A
// secret of less than four characters is left: it would take ordinary words with it.
func Scrub(text string, secrets ...sensitive.Value) string {
	for _, s := range secrets {
		secret := s.Reveal()
		if len(secret) < 4 {
			continue
		}
		for _, spelling := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret), quoted(secret)} {
			text = strings.ReplaceAll(text, spelling, sensitive.Redacted)
		}
	}
	return text
}

// maxClean is how much of a text Clean leaves, in characters.
const maxClean = 300

// Clean makes a line of an error's text from what a target wrote: secrets scrubbed first, then
// control characters replaced and the rest cut off, so that no cut can leave a part of a secret.
func Clean(text string, secrets ...sensitive.Value) string {
	line := oneLine(text, secrets)
	if r := []rune(line); len(r) > maxClean {
		return string(r[:maxClean]) + "…"
	}
	return line
}

// CleanEnd is Clean for texts whose end matters: the beginning is cut off.
func CleanEnd(text string, secrets ...sensitive.Value) string {
	line := oneLine(text, secrets)
	if r := []rune(line); len(r) > maxClean {
		return "…" + string(r[len(r)-maxClean:])
	}
	return line
}

func oneLine(text string, secrets []sensitive.Value) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(Scrub(text, secrets...), "?"))
	return strings.Join(strings.Fields(text), " ")
}
