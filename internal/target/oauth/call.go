package oauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/rest"
)

// The placeholders.
const (
	clientID = "{client_id}"
	secret   = "{secret}"
)

// call is a request of the administrator's, as a template.
type call struct {
	Method      string          `json:"method"`
	URL         string          `json:"url"`
	Body        json.RawMessage `json:"body,omitempty"`
	ContentType string          `json:"content_type,omitempty"`
	OK          []int           `json:"ok,omitempty"`
}

func (c *call) check(name string, t target.TLS) error {
	var errs []error
	if !slices.Contains([]string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}, c.Method) {
		errs = append(errs, fmt.Errorf("%s: method %q is none of POST, PUT, PATCH and DELETE", name, c.Method))
	}
	if strings.Contains(c.URL, secret) {
		errs = append(errs, fmt.Errorf("%s: a secret has no place in a url", name))
	}
	if before, _, ok := strings.Cut(c.URL, clientID); ok && strings.Count(before, "/") < 3 {
		errs = append(errs, fmt.Errorf("%s: %s has its place in the path or query of url", name, clientID))
	}
	errs = append(errs, rest.CheckURL(name+": url", strings.ReplaceAll(c.URL, clientID, "x"), t))
	if _, _, err := mime.ParseMediaType(c.contentType()); err != nil || strings.ContainsAny(c.contentType(), "\r\n") {
		errs = append(errs, fmt.Errorf("%s: content_type %q is not a media type", name, c.ContentType))
	}
	if slices.ContainsFunc(c.OK, func(s int) bool {
		return (s < 200 || s > 299) && (name != "remove" || s != http.StatusNotFound && s != http.StatusGone)
	}) {
		errs = append(errs, fmt.Errorf("%s: ok has statuses from 200 to 299, and for remove 404 and 410", name))
	}
	if n := countPlaces(c.Body, secret); n == 0 {
		errs = append(errs, fmt.Errorf("%s: no string of body holds %s", name, secret))
	}
	if countPlaces(c.Body, clientID) == 0 && !strings.Contains(c.URL, clientID) {
		errs = append(
			errs,
			fmt.Errorf("%s: neither url nor body holds %s, so every client would be the same one", name, clientID),
		)
	}
	return errors.Join(errs...)
}

func (c *call) contentType() string {
	if c.ContentType == "" {
		return "application/json"
	}
	return c.ContentType
}

func (c *call) succeeded(status int) bool {
	if len(c.OK) > 0 {
		return slices.Contains(c.OK, status)
	}
	return status == http.StatusOK || status == http.StatusCreated || status == http.StatusNoContent
}

// request fills in the template. The body is merged into base, unless base is nil.
func (c *call) request(
	ctx context.Context, of target.Credential, base map[string]any,
) (*http.Request, error) {
	id, err := escaped(of.Account)
	if err != nil {
		return nil, err
	}
	if !utf8.ValidString(of.Secret.Reveal()) {
		return nil, errors.New("the secret is not valid UTF-8, which JSON cannot carry")
	}
	v, err := parseJSON(c.Body)
	if err != nil {
		return nil, err
	}
	v = fill(v, strings.NewReplacer(clientID, of.Account, secret, of.Secret.Reveal()))
	if base != nil {
		v = merge(base, v)
	}
	body, err := encode(v)
	if err != nil {
		return nil, errors.New("the body cannot be made")
	}
	req, err := http.NewRequestWithContext(
		ctx, c.Method, strings.ReplaceAll(c.URL, clientID, id), bytes.NewReader(body),
	)
	if err != nil {
		return nil, errors.New("the URL cannot be made")
	}
	req.Header.Set("Content-Type", c.contentType())
	req.Header.Set("Accept", "application/json")
	return req, nil
}

// parseJSON keeps numbers as they are written.
func parseJSON(b []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil && err != io.EOF {
		return nil, errors.New("the body is not JSON")
	}
	return v, nil
}

// fill replaces the placeholders in strings; not in names of members.
func fill(v any, r *strings.Replacer) any {
	switch v := v.(type) {
	case string:
		return r.Replace(v)
	case []any:
		for i := range v {
			v[i] = fill(v[i], r)
		}
	case map[string]any:
		for k := range v {
			v[k] = fill(v[k], r)
		}
	}
	return v
}

func countPlaces(b []byte, place string) int {
	v, err := parseJSON(b)
	if err != nil {
		return 0
	}
	return count(v, place)
}

func count(v any, place string) int {
	n := 0
	switch v := v.(type) {
	case string:
		n = strings.Count(v, place)
	case []any:
		for _, e := range v {
			n += count(e, place)
		}
	case map[string]any:
		for _, e := range v {
			n += count(e, place)
		}
	}
	return n
}
