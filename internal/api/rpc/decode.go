package rpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/sign"
)

const (
	maxBody   = 1 << 20
	maxParams = 2000
)

// input is a request taken apart: what each place carried, and their union.
type input struct {
	query sign.Params
	form  sign.Params // from the query and a form body: all that signature version 1 covers
	all   sign.Params // with the members of a JSON body
	body  []byte
	json  bool
}

// decode takes a request apart (protocol.md section 2): the query, then a form body, then the members of a JSON body.
// The same name twice is refused: no official client does it, and version 1 would sign only one of them.
func decode(r *http.Request) (input, error) {
	var in input
	var err error
	if in.query, err = parseQuery(nil, r.URL.RawQuery); err != nil {
		return in, err
	}
	in.form, in.all = in.query, in.query
	if in.body, err = readBody(r); err != nil || len(in.body) == 0 {
		return in, errors.Join(err, unique(in.all))
	}
	switch kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind {
	case "application/x-www-form-urlencoded":
		in.form, err = parseQuery(in.query[:len(in.query):len(in.query)], string(in.body))
		in.all = in.form
	case "application/json":
		in.json = true
		in.all, err = parseJSON(in.query[:len(in.query):len(in.query)], in.body)
	default:
		return in, fault.New(fault.Malformed, "The Content-Type of the body must be application/x-www-form-urlencoded or application/json.")
	}
	return in, errors.Join(err, unique(in.all))
}

func readBody(r *http.Request) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, fault.Wrap(fault.Malformed, err, "The body could not be read to its end.")
	case len(body) > maxBody:
		return nil, fault.New(fault.Malformed, "The body is larger than 1 MiB.")
	}
	return body, nil
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
		if to = append(to, sign.Param{Name: name, Value: value}); len(to) > maxParams {
			return nil, fault.New(fault.Malformed, "The request has more than %d parameters.", maxParams)
		}
	}
	return to, nil
}

var errEncoding = errors.New("not UTF-8")

func unescape(s string) (string, error) {
	s, err := url.QueryUnescape(s)
	if err == nil && !utf8.ValidString(s) {
		err = errEncoding
	}
	return s, err
}

// parseJSON reads the members of an object: strings as they are, numbers and booleans in their JSON spelling, objects
// and lists as compact JSON text. null is absent.
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
