package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/rest"
	"github.com/keyturn/keyturn/sensitive"
)

// lookUp says where the administrator reads a client.
type lookUp struct {
	URL string `json:"url"`
	// Secrets is a JSON pointer (RFC 6901) to the list of the client's secrets; empty where the
	// provider shows none.
	Secrets string `json:"secrets,omitempty"`
	// MaxSecrets is how many secrets of a client the provider keeps; 0 means two.
	MaxSecrets int `json:"max_secrets,omitempty"`
}

func (l *lookUp) check(t target.TLS) error {
	var errs []error
	if strings.Contains(l.URL, secret) {
		errs = append(errs, errors.New("get: a secret has no place in a url"))
	}
	if before, _, ok := strings.Cut(l.URL, clientID); !ok || strings.Count(before, "/") < 3 {
		errs = append(errs, fmt.Errorf("get: url must have %s in its path or query", clientID))
	}
	errs = append(errs, rest.CheckURL("get: url", strings.ReplaceAll(l.URL, clientID, "x"), t))
	if l.Secrets != "" && !strings.HasPrefix(l.Secrets, "/") {
		errs = append(errs, fmt.Errorf("get: secrets %q is not a JSON pointer, such as /secrets", l.Secrets))
	}
	if l.MaxSecrets < 0 || l.MaxSecrets > maxSecrets {
		errs = append(errs, fmt.Errorf("get: max_secrets must be 1 to %d", maxSecrets))
	}
	return errors.Join(errs...)
}

const (
	defaultSecrets = 2
	maxSecrets     = 100
)

// replacesClient reports whether set replaces what get reads.
func (c config) replacesClient() bool {
	return c.Get != nil && c.Set != nil && c.Set.Method == http.MethodPut && c.Set.URL == c.Get.URL
}

// mayDropMembers reports whether set replaces a client of which nothing is read.
func (c config) mayDropMembers() bool {
	return !c.replacesClient() && c.Set.Method == http.MethodPut && strings.HasSuffix(c.Set.URL, "/"+clientID)
}

// client is what a provider says of a client.
type client struct {
	members map[string]any
	etag    string
}

// codeNoClient is the code of an error of a provider that does not know a client.
const codeNoClient = "no-client"

// client reads a client. Its errors have the classes of a step that changes nothing.
func (p *provider) client(ctx context.Context, account string, secrets []sensitive.Value) (client, error) {
	what := fmt.Sprintf("read client %s at %s", fault.Quoted(account), p.name)
	id, err := escaped(account)
	if err != nil {
		return client{}, target.Failed(target.Denied, "", what+": "+err.Error(), secrets...)
	}
	req, err := http.NewRequestWithContext(
		ctx, http.MethodGet, strings.ReplaceAll(p.config.Get.URL, clientID, id), nil,
	)
	if err != nil {
		return client{}, target.Denied.Errorf("%s: the url of get is not a URL", what)
	}
	req.Header.Set("Accept", "application/json")
	if err := p.authenticate(req, what, secrets); err != nil {
		return client{}, err
	}
	got, err := rest.Do(req, p.dial, p.config.TLS, what, secrets...)
	switch {
	case err != nil:
		return client{}, target.AsAdmin(err)
	case got.Status == http.StatusNotFound || got.Status == http.StatusGone:
		return client{}, target.Failed(target.Denied, codeNoClient, what+": the provider does not know it", secrets...)
	case got.Status == http.StatusUnauthorized:
		return client{}, notAuthenticated(what, got, secrets)
	case got.Status == http.StatusForbidden:
		return client{}, answered(target.Denied, what, got, secrets)
	case got.Status != http.StatusOK:
		return client{}, answered(target.Unreachable, what, got, secrets)
	}
	v, err := parseJSON(got.Body)
	members, ok := v.(map[string]any)
	if err != nil || !got.JSON || !ok {
		return client{}, target.Failed(
			target.Denied, rest.Code(got.Status), what+": the answer is not a JSON object", secrets...,
		)
	}
	return client{members: members, etag: got.ETag}, nil
}

// escaped returns a client ID for a path and a query alike.
func escaped(account string) (string, error) {
	if account == "" || account == "." || account == ".." || !utf8.ValidString(account) {
		return "", fmt.Errorf("the client ID %s cannot be part of a URL", fault.Quoted(account))
	}
	return strings.ReplaceAll(url.QueryEscape(account), "+", "%20"), nil
}

// merge applies a JSON Merge Patch (RFC 7396).
func merge(to, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	out, ok := to.(map[string]any)
	if !ok {
		out = map[string]any{}
	}
	for name, v := range p {
		if v == nil {
			delete(out, name)
			continue
		}
		out[name] = merge(out[name], v)
	}
	return out
}

func isObject(b []byte) bool {
	v, err := parseJSON(b)
	_, ok := v.(map[string]any)
	return ok && err == nil
}

// at returns what a JSON pointer names.
func at(v any, pointer string) (any, bool) {
	for _, token := range strings.Split(pointer, "/")[1:] {
		token = strings.NewReplacer("~1", "/", "~0", "~").Replace(token)
		switch in := v.(type) {
		case map[string]any:
			next, ok := in[token]
			if !ok {
				return nil, false
			}
			v = next
		case []any:
			i, err := strconv.Atoi(token)
			if err != nil || i < 0 || i >= len(in) {
				return nil, false
			}
			v = in[i]
		default:
			return nil, false
		}
	}
	return v, true
}
