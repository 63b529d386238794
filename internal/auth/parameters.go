package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/sign"
)

// MaxBody is how many bytes a body may have.
const MaxBody = 1 << 20

const (
	maxParams = 2000
	formType  = "application/x-www-form-urlencoded"
	jsonType  = "application/json"
)

// mediaType returns the media type that a header Content-Type names, without its parameters; ""
// when it names none.
func mediaType(contentType string) string {
	kind, _, _ := mime.ParseMediaType(contentType)
	return kind
}

// errMediaType refuses a body that cannot carry parameters.
func errMediaType() error {
	return fault.New(fault.Malformed, "The Content-Type of the body must be %s or %s.", formType, jsonType)
}

// parseBody returns the parameters of the query and of a body of that type (protocol.md section 2).
func parseBody(query sign.Params, contentType string, body []byte) (sign.Params, error) {
	if len(body) == 0 {
		return query, nil
	}
	all := query[:len(query):len(query)]
	var err error
	switch mediaType(contentType) {
	case formType:
		all, err = parseQuery(all, string(body))
	case jsonType:
		all, err = parseJSON(all, body)
	default:
		err = errMediaType()
	}
	if err != nil {
		return nil, err
	}
	return all, unique(all)
}

// parseQuery decodes pairs of a query or a form. Empty values are kept: they are signed.
func parseQuery(to sign.Params, raw string) (sign.Params, error) {
	to = slices.Grow(to, min(strings.Count(raw, "&")+1, maxParams))
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, nameErr := unescape(name)
		value, valueErr := unescape(value)
		if nameErr != nil || valueErr != nil {
			return nil, fault.New(fault.Malformed, "A parameter is not percent-encoded UTF-8.")
		}
		if name == "" {
			return nil, errNoName()
		}
		if to = append(to, sign.Param{Name: name, Value: value}); len(to) > maxParams {
			return nil, fault.New(fault.Malformed, "The request has more than %d parameters.", maxParams)
		}
	}
	return to, nil
}

// errNoName refuses a parameter without a name: version 4 signs one without a value like none at
// all.
func errNoName() error { return fault.New(fault.Malformed, "A parameter has no name.") }

var errEncoding = errors.New("not UTF-8")

func unescape(s string) (string, error) {
	s, err := url.QueryUnescape(s)
	if err == nil && !utf8.ValidString(s) {
		err = errEncoding
	}
	return s, err
}

// parseJSON reads the members of an object: strings as they are, numbers and booleans in their JSON
// spelling, objects and lists as compact JSON text. null is absent.
func parseJSON(to sign.Params, body []byte) (sign.Params, error) {
	malformed := fault.New(fault.Malformed, "The body is not one JSON object in UTF-8.")
	if !utf8.Valid(body) {
		return nil, malformed
	}
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, malformed
	}
	for d.More() {
		name, err := d.Token()
		var value json.RawMessage
		if err != nil || d.Decode(&value) != nil {
			return nil, malformed
		}
		text, ok := memberText(value)
		if !ok {
			continue
		}
		if name == "" {
			return nil, errNoName()
		}
		if to = append(to, sign.Param{Name: name.(string), Value: text}); len(to) > maxParams {
			return nil, fault.New(fault.Malformed, "The request has more than %d parameters.", maxParams)
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, malformed
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, malformed
	}
	return to, nil
}

func memberText(value json.RawMessage) (string, bool) {
	switch value[0] {
	case 'n':
		return "", false
	case '"':
		var s string
		_ = json.Unmarshal(value, &s) // the decoder has checked it
		return s, true
	case '{', '[':
		var b bytes.Buffer
		_ = json.Compact(&b, value) // the decoder has checked it
		return b.String(), true
	}
	return string(value), true
}

// few is how many names are compared with each other: for so many that is faster than a map.
const few = 24

// unique refuses a name that occurs twice.
func unique(params sign.Params) error {
	if len(params) <= few {
		for i, p := range params {
			if _, again := params[:i].Get(p.Name); again {
				return twice(p.Name)
			}
		}
		return nil
	}
	seen := make(map[string]struct{}, len(params))
	for _, p := range params {
		if _, again := seen[p.Name]; again {
			return twice(p.Name)
		}
		seen[p.Name] = struct{}{}
	}
	return nil
}

func twice(name string) error {
	return fault.Parameter(name[:min(len(name), 64)], "it is given twice.")
}
