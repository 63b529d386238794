package auth

import (
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/sign"
)

// Request is a request before anything of it is believed.
type Request struct {
	Method string
	// Query is the query of the URL as it came.
	Query string
	// Host is the header Host.
	Host string
	// Header returns every value of any other header by its lower-case name.
	Header func(name string) []string
	// Length is the length of the body; 0 means that there is none, -1 that it is not known.
	Length int64
	// Body reads the body, at most MaxBody bytes of it. It is called at most once, and not before the
	// caller is known as far as the version of the signature allows. The error is a *fault.Error.
	Body func() ([]byte, error)
	// Admit is called once, with the access key and operation that the request claims, before anything
	// is looked up or read. An error ends the request. It may be nil.
	Admit func(Claim) error
}

// single returns the one value of a header, in the form that is signed and interpreted: the same
// bytes serve both. A header that is sent twice, is folded, or holds anything but printable ASCII
// is refused, since two parties may read it differently.
func (r *Request) single(name string) (string, error) {
	v, times := r.header(name)
	if times > 1 || v != sign.TrimHeader(v) || !printable(v) {
		return "", fault.New(fault.BadSignature, "The header %s must be sent once, unfolded and in printable ASCII.", name)
	}
	return v, nil
}

// get returns a header that single has accepted.
func (r *Request) get(name string) string {
	v, _ := r.header(name)
	return v
}

// header returns the first value of a header, and how many times it is sent.
func (r *Request) header(name string) (value string, times int) {
	if name == "host" {
		return r.Host, 1
	}
	values := r.Header(name)
	if len(values) == 0 {
		return "", 0
	}
	return values[0], len(values)
}

// interpreted are the headers whose values decide something under versions 3 and 4, signed or not.
var interpreted = append([]string{"content-type", "x-acs-security-token", "x-acs-accesskey-id"}, requiredSigned...)

// checkForm verifies that every header that is signed or interpreted has one form.
func (r *Request) checkForm(signed []string) error {
	for _, name := range interpreted {
		if _, err := r.single(name); err != nil {
			return err
		}
	}
	for _, name := range signed {
		if slices.Contains(interpreted, name) {
			continue
		}
		if _, err := r.single(name); err != nil {
			return err
		}
	}
	return nil
}

// checkFormBody verifies that a body is a form, the only kind whose parameters version 1 covers.
func (r *Request) checkFormBody() error {
	contentType, err := r.single("content-type")
	switch kind := mediaType(contentType); {
	case err != nil:
		return err
	case kind == jsonType:
		return fault.New(fault.Malformed,
			"Signature version 1 does not cover a JSON body; send a form, or sign with version 3.")
	case kind != formType:
		return errMediaType()
	}
	return nil
}

// readForm returns the parameters of the query and of the body, a form.
func (r *Request) readForm(query sign.Params) (sign.Params, error) {
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	return parseBody(query, formType, body)
}

func (r *Request) admit(c Claim) error {
	if r.Admit == nil {
		return nil
	}
	return r.Admit(c)
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// maxNonce bounds a nonce. Official clients send 32 or 36 characters.
const maxNonce = 128

// checkNonce refuses a nonce that is not 1 to maxNonce visible ASCII characters.
func checkNonce(nonce string) error {
	if nonce == "" || len(nonce) > maxNonce || !printable(nonce) || strings.Contains(nonce, " ") {
		return fault.New(fault.BadSignature, "The signature nonce must have 1 to %d visible ASCII characters.", maxNonce)
	}
	return nil
}
