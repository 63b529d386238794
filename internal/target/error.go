package target

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"

	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/sensitive"
)

// Class says what an error means for a rotation. The classes distinguish "answered no", "was not
// reached" and "did not answer", because only an answer of the target may end a rotation.
type Class uint8

// The classes. The zero value assumes the least.
const (
	// Unknown means that no answer came: the effect may or may not have happened.
	Unknown Class = iota
	// Unreachable means that the target was certainly not asked, so nothing has happened: no
	// connection was made, or the target said before it took the request that it does not serve.
	// A later attempt may succeed.
	Unreachable
	// Refused means that the target does not accept this credential under its rules for credentials
	// (length, history, strength). Nothing has happened, and the target would refuse the same
	// credential again.
	Refused
	// Rejected means that the target answered that this credential does not authenticate.
	Rejected
	// Denied means that the administrator lacks a right or does not authenticate, or that the
	// account or setting does not exist. Nothing has happened. An operator must act, at the target
	// or in its configuration.
	Denied
	// Admitted means that the target has authenticated the credential and then refused the session:
	// a connection limit of the account, no right to this database, no such database. The login is of
	// no use, and yet it proves the credential.
	Admitted
	// Unclear means that an answer came whose meaning is not known, such as the answer of a
	// pooler that hides the answer of its server. It is shown, and decides nothing.
	Unclear
)

// String returns the class in one word.
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
	case Admitted:
		return "admitted"
	case Unclear:
		return "unclear"
	default:
		return "unknown"
	}
}

// MayBeFailedLogin reports whether a login that ended with the class may count as a failed one at
// the target: a rejection, an answer that may be one, and no answer, because the target may have
// counted what it did not answer.
func (c Class) MayBeFailedLogin() bool { return c == Rejected || c == Unclear || c == Unknown }

// Error says what went wrong at a target, in the target's own words.
type Error struct {
	Class Class
	// Code is the target's own code, such as 28P01, or [CodeEgress]; empty when there is none.
	Code string
	// Text says what was attempted and what the target answered. It contains no secret: see [Scrub].
	Text string
	// Detail is for the operator's log alone: errors of the network, and the words of a peer that
	// has not proved its identity. A caller who could read it could use a target as a port scanner
	// and to read the banners of other services.
	Detail string
	// Setting is the setting of the target, as KEY=VALUE, that would let the attempt go on; empty for
	// none. An operator decides about it.
	Setting string
	// Advice says what an operator can do about it, with NAME for the secret in commands: see
	// [fault.Named]. It is empty where the kind knows nothing better than the caller.
	Advice string
	// stranger says that the sender may be another service than a system of the target's kind.
	stranger bool
	// authenticated says that the target had accepted the credential before the attempt failed.
	authenticated bool
	// admin is what the login of the target's administrator has led to, if that is the attempt.
	admin adminLogin
}

// adminLogin is what a login of an administrator has led to.
type adminLogin int

const (
	noAdminLogin  adminLogin = iota // the attempt was another one
	adminUnknown                    // a login that was not made, or that the target has accepted
	adminFailed                     // a failed login, or one that the target may have counted as failed
	adminRejected                   // the target has rejected the credential
)

// IsAdminRejected reports whether err says that the target has rejected the credential of its
// administrator.
func IsAdminRejected(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.admin == adminRejected
}

// IsAdminFailed reports whether err is of a login of the target's administrator that the target has
// refused, or may have counted as a failed one.
func IsAdminFailed(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.admin >= adminFailed
}

// AfterLogin returns e as the failure of a step after a login: the target has accepted the
// credential.
func (e *Error) AfterLogin() *Error {
	out := *e
	out.authenticated = true
	return &out
}

// IsAuthenticated reports whether err says that the target has accepted the credential: after a
// login something else has failed, such as the statement of a check, or it has refused the session.
func IsAuthenticated(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.authenticated || e.Class == Admitted)
}

// OfStranger returns e as the answer of a sender that has not proved its identity and that does not
// answer as a system of the target's kind does. Callers learn nothing of it: see [ForCaller].
func (e *Error) OfStranger() *Error {
	out := *e
	out.stranger = true
	return &out
}

func (e *Error) Error() string {
	if e.Code == "" {
		return e.Text
	}
	return e.Text + " (" + e.Code + ")"
}

// Failed returns an error of a class. secrets must have every secret that the attempt knew, because
// targets quote their input in errors.
func Failed(class Class, code, text string, secrets ...sensitive.Value) *Error {
	return &Error{Class: class, Code: bounded(Scrub(code, secrets...)), Text: bounded(Scrub(text, secrets...))}
}

// Errorf returns an error of the class without a code, for a text that contains no secret.
func (c Class) Errorf(format string, args ...any) *Error {
	return Failed(c, "", fmt.Sprintf(format, args...))
}

// maxText is the length of the longest text of an error, in characters.
const maxText = 1000

// bounded makes a text one line of at most maxText characters.
func bounded(text string) string {
	text = printable(text)
	if r := []rune(text); len(r) > maxText {
		return string(r[:maxText]) + "…"
	}
	return text
}

// printable replaces the characters that do not print, so that a text is one line.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsControl(r), unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r): // such as marks that turn the direction of a line
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}

// ForCaller returns what a caller may read of an error: class, code and text, without detail. If
// withheld is true, that is only "no answer": everything except the answer of a system of the
// target's kind is withheld, so that no call reveals what listens at an address, or whether
// anything does.
func ForCaller(err error) (public Error, withheld bool) {
	var e *Error
	if !errors.As(err, &e) || e.stranger || e.Class == Unknown || e.Class == Unreachable && e.Detail != "" {
		return Error{Class: Unreachable, Text: "no answer; Keyturn's log says more"}, true
	}
	return Error{Class: e.Class, Code: e.Code, Text: e.Text}, false
}

// TextForCaller returns the text of [ForCaller], with the code if there is one.
func TextForCaller(err error) string {
	public, _ := ForCaller(err)
	return public.Error()
}

// Withholds reports whether the operator's log should have more of an error than callers may read.
func Withholds(err error) bool {
	if !errors.As(err, new(*Error)) {
		return false
	}
	_, withheld := ForCaller(err)
	return withheld || DetailOf(err) != ""
}

// DetailOf returns [Error.Detail] of the [*Error] that err is or wraps; otherwise "".
func DetailOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Detail
	}
	return ""
}

// SettingOf returns [Error.Setting] of the [*Error] that err is or wraps; otherwise "".
func SettingOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Setting
	}
	return ""
}

// Allowing returns the advice of the kind about an error: [Error.Advice], or to give the target the
// setting of [SettingOf], for [fault.Targeted]; empty if there is none.
func Allowing(err error) string {
	var e *Error
	if errors.As(err, &e) && e.Advice != "" {
		return e.Advice
	}
	setting := SettingOf(err)
	if setting == "" {
		return ""
	}
	return "To allow it: " + fault.Command("target update", "TARGET", "--set", setting)
}

// inGeneral replaces, for callers, the words of a peer that has not proved its identity.
var inGeneral = map[Class]string{
	Unknown:     "no answer that says what happened",
	Unreachable: "it does not serve",
	Refused:     "the credential is refused",
	Rejected:    "the credential does not authenticate",
	Denied:      "it is denied",
	Admitted:    "the credential authenticates, and the session is refused",
	Unclear:     "an answer whose meaning is not known",
}

// Unproven applies [Error.Unproven] to the [*Error] that err is or wraps.
func Unproven(attempt string, err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	return e.Unproven(attempt)
}

// Unproven returns e with the peer's words moved from the text to the detail, because anything may
// answer at an address without TLS. The class and the code stay.
func (e *Error) Unproven(attempt string) *Error {
	out := *e
	out.Text = attempt + ": " + inGeneral[e.Class] + "; without TLS, what it said is in Keyturn's log"
	out.Detail = strings.TrimPrefix(e.Detail+"; "+e.Text, "; ")
	return &out
}

// ClassOf returns the class of an error; Unknown for one that no target has classified.
func ClassOf(err error) Class {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return Unknown
}

// CodeEgress is the code of an error of the server's own egress rules: the target was not asked.
const CodeEgress = "EgressRefused"

// NotSent classifies an error before the request was sent: Unreachable, because the target was not
// asked; Denied when the server's egress rules refuse the address that the caller has named. A host
// name that the rules refuse is Unreachable, like one that does not exist: callers must not learn
// which names the server can resolve. The reason goes into the detail, for the operator alone.
func NotSent(attempt string, err error, secrets ...sensitive.Value) *Error {
	class, code, text := Unreachable, "", "no answer"
	var refused *egress.RefusedError
	if errors.As(err, &refused) && refused.Literal() {
		class, code, text = Denied, CodeEgress, "the server's egress rules do not permit this address"
	}
	if errors.As(err, new(*CertificateError)) {
		class = Denied
		text = "the server does not accept the connection without another client certificate " +
			"(keyturn rotation configure NAME --login-certificate-secret=SECRET)"
	}
	e := Failed(class, code, attempt+": "+text, secrets...)
	e.Detail = bounded(Scrub(plain(err), secrets...))
	return e
}

// NoAnswer classifies an error after a request was sent: Unknown.
func NoAnswer(attempt string, err error, secrets ...sensitive.Value) *Error {
	e := Failed(Unknown, "", attempt+": no answer", secrets...)
	e.Detail = bounded(Scrub(plain(err), secrets...))
	return e
}

// AsAdmin turns the error of the administrator's login into an error of the change that needed it.
// The change was not asked for yet, so nothing has happened: what the target said of the login
// becomes Denied, because it is not said of the candidate, and Unknown becomes Unreachable.
//
// [IsAdminRejected] holds for class Rejected, and [IsAdminFailed] for every class except
// Unreachable and Admitted. Neither does where the server's egress rules allowed no login. An error
// that has been through AsAdmin stays what it is.
func AsAdmin(err error) error {
	var e *Error
	if !errors.As(err, &e) || e.admin != noAdminLogin {
		return err
	}
	out := *e
	out.admin = adminUnknown
	switch {
	case e.Class == Rejected:
		out.admin = adminRejected
	case e.Class != Unreachable && e.Class != Admitted && e.Code != CodeEgress:
		out.admin = adminFailed
	}
	switch e.Class {
	case Rejected, Admitted, Unclear:
		out.Class, out.Text = Denied, "the administrator: "+e.Text
	case Unknown:
		out.Class = Unreachable
	}
	return &out
}

// WithAdvice appends to an error of class Denied what the operator must do; it returns any other
// error unchanged.
func WithAdvice(err error, advice string, secrets ...sensitive.Value) error {
	if ClassOf(err) != Denied {
		return err
	}
	out := Failed(Denied, "", err.Error()+"; "+advice, secrets...)
	var e *Error
	if errors.As(err, &e) {
		out.admin, out.stranger, out.authenticated = e.admin, e.stranger, e.authenticated
	}
	return out
}

// plain returns the text of an error; of a URL error only its cause, because it quotes the URL,
// which may contain a token.
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

// Scrub replaces every occurrence of a secret in a text, also in the spelling of URLs and JSON. It
// leaves secrets of less than four characters, which occur inside ordinary words.
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

// maxClean is the length of the longest text that [Clean] returns, in characters.
const maxClean = 300

// Said makes one line for a text from what a target wrote, as [Clean] does, in which nothing
// looks like a command of keyturn.
func Said(text string, secrets ...sensitive.Value) string {
	return fault.Foreign(Clean(text, secrets...))
}

// Clean makes one line of a text, in which commands of keyturn stay: see [Said]. It scrubs secrets
// before it cuts the text, because a cut could leave a part of a secret that scrubbing no longer
// recognizes.
func Clean(text string, secrets ...sensitive.Value) string {
	return cleanTo(maxClean, text, secrets)
}

// cleanTo is [Clean] with another number of characters.
func cleanTo(n int, text string, secrets []sensitive.Value) string {
	line := oneLine(text, secrets)
	if r := []rune(line); len(r) > n {
		return string(r[:n]) + "…"
	}
	return line
}

// SaidAtEnd is [Said] for texts whose end matters most: it cuts off the beginning.
func SaidAtEnd(text string, secrets ...sensitive.Value) string {
	line := fault.Foreign(oneLine(text, secrets))
	if r := []rune(line); len(r) > maxClean {
		return "…" + string(r[len(r)-maxClean:])
	}
	return line
}

func oneLine(text string, secrets []sensitive.Value) string {
	return strings.Join(strings.Fields(printable(Scrub(text, secrets...))), " ")
}
