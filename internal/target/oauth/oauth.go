// Package oauth is the kind "oauth": the secret of an OAuth 2.0 client at a provider whose
// administrative API sets it.
//
// Configuration, here for Ory Hydra:
//
//	{
//	  "token_urls": ["https://id.internal/oauth2/token"],
//	  "admin_auth": "none",
//	  "set": {
//	    "method": "PATCH",
//	    "url": "https://hydra-admin.internal/admin/clients/{client_id}",
//	    "body": [{"op": "replace", "path": "/client_secret", "value": "{secret}"}]
//	  }
//	}
//
//	token_urls    the token endpoints at which a client must be able to authenticate, 1 to 10:
//	              URLs, or objects with address, role and lag. Required.
//	client_auth   how it does: "basic" (default; client_secret_basic) or "post"
//	              (client_secret_post).
//	scope         the scope to ask for; default none.
//	audience      the audience to ask for; default none.
//	admitted      the errors, such as "invalid_scope", with which the provider answers only a client
//	              that it has authenticated; default none.
//	get           where the administrator reads a client: url with {client_id}; secrets, a JSON
//	              pointer to the list of its secrets; max_secrets, how many the provider keeps.
//	set           the call that gives a client a secret. Required.
//	remove        the call that takes one secret of a client away, for a provider that keeps two:
//	              its body must name the secret to remove. With it the strategy is overlap, set must
//	              leave the other secret alone, and both calls must be repeatable. Without it, it is
//	              single.
//	admin_auth    how the administrator authenticates: "bearer" (default; the secret of the
//	              administrator's credential is the token), "basic" (account and secret), or "none".
//	tls           ca, server_name, off, for every address: see target.TLS.
//	password_length, password_punctuation   see target.PasswordRule.
//
// A call has method (POST, PUT, PATCH or DELETE), url, body (any JSON), content_type (default
// application/json), and ok (the statuses that mean success; default 200, 201 and 204). {client_id}
// in the url, and {client_id} and {secret} within strings of the body, are replaced: as a part of a
// URL and as a part of a JSON string, so a value cannot become syntax. A secret in a URL is
// refused. When set is a PUT to the URL of get, it replaces the client: the client is read first,
// and the body is a JSON Merge Patch (RFC 7396) on it, so that nothing else changes.
//
// The administrator needs to be able to change the secret of the clients in question, and to read
// them for get, and nothing else. Verify gets a token by the client credentials grant, which the
// client must be allowed, and throws it away: it stays valid until it expires.
//
// There is no mode for RFC 7592 (management by the client's own registration token), on purpose.
// There the server alone chooses secrets (section 2.2 forbids a client to set one), and any reply,
// even to a read, may bring a new secret or a new registration token (section 3). When that reply
// is lost, the live credential exists nowhere but at the provider, as a hash: what must never
// happen. Where secrets are made by the provider, its administrator stores them with PutSecretValue
// (docs/rotation.md). A provider that answers a set with another secret than the one it was given
// is found out, and said to be unusable.
package oauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/rest"
	"github.com/keyturn/keyturn/sensitive"
)

// Kind returns the kind "oauth".
func Kind() target.Kind {
	strategies := []target.Strategy{target.Overlap, target.Single}
	return target.NewKind("oauth", strategies, parse, open).
		Following(target.LoginEndpoints, target.LoginDatabase, target.LoginRole).
		Consenting(consentToReplace, consentToRemove, consentToUnread, consentUncounted).
		Leaving("Other secrets of the client may still work, and its keys (jwks) do: where the target has the call get, "+
			"keyturn rotation check NAME shows whether there are any.",
			"Access tokens that were issued before stay valid until they expire or the provider revokes them.")
}

type config struct {
	TokenURLs  target.EndpointList `json:"token_urls"`
	ClientAuth string              `json:"client_auth,omitempty"`
	Scope      string              `json:"scope,omitempty"`
	Audience   string              `json:"audience,omitempty"`
	Admitted   []string            `json:"admitted,omitempty"`
	Get        *lookUp             `json:"get,omitempty"`
	Set        *call               `json:"set"`
	Remove     *call               `json:"remove,omitempty"`
	AdminAuth  string              `json:"admin_auth,omitempty"`
	TLS        target.TLS          `json:"tls"`
	target.PasswordRule
}

const maxTokenURLs = 10

// Addresses returns the URLs of every call.
func (c config) Addresses() []string {
	list := append(c.TokenURLs.Addresses(), c.Set.URL)
	if c.Get != nil {
		list = append(list, c.Get.URL)
	}
	if c.Remove != nil {
		list = append(list, c.Remove.URL)
	}
	return list
}

// LoginEndpoints returns the token endpoints.
func (c config) LoginEndpoints() target.EndpointList { return c.TokenURLs }

func parse(raw json.RawMessage) (config, error) {
	var c config
	if err := target.Decode(raw, &c); err != nil {
		return c, err
	}
	errs := []error{c.TLS.Check(), c.PasswordRule.Check(), c.checkTokens()}
	if !slices.Contains([]string{"", "basic", "post"}, c.ClientAuth) {
		errs = append(errs, fmt.Errorf("client_auth %q is none of basic and post", c.ClientAuth))
	}
	if !slices.Contains([]string{"", "bearer", "basic", "none"}, c.AdminAuth) {
		errs = append(errs, fmt.Errorf("admin_auth %q is none of bearer, basic and none", c.AdminAuth))
	}
	if c.Set == nil {
		errs = append(errs, errors.New("set is required: the call that gives a client a secret"))
	} else {
		errs = append(errs, c.Set.check("set", c.TLS))
	}
	if c.Remove != nil {
		errs = append(errs, c.Remove.check("remove", c.TLS))
	}
	if c.Get != nil {
		errs = append(errs, c.Get.check(c.TLS))
	}
	if c.replacesClient() && !isObject(c.Set.Body) {
		errs = append(errs, errors.New("set: body must be an object, because it is merged into the client that get reads"))
	}
	return c, errors.Join(errs...)
}

// checkTokens returns an error that names every mistake about token requests.
func (c config) checkTokens() error {
	var errs []error
	if n := len(c.TokenURLs); n == 0 || n > maxTokenURLs {
		errs = append(errs, fmt.Errorf("token_urls is required: 1 to %d token endpoints", maxTokenURLs))
	}
	for _, e := range c.TokenURLs {
		errs = append(errs, rest.CheckURL("token_urls", e.Address, c.TLS))
	}
	if len(c.TokenURLs) > 0 && len(c.TokenURLs.Deciding()) == 0 {
		errs = append(errs, errors.New("token_urls needs an endpoint that is no replica"))
	}
	for _, word := range c.Admitted {
		if !errorForm.MatchString(word) || word == invalidClient {
			errs = append(errs, fmt.Errorf("admitted: %q is not an error of an authenticated client, such as "+
				"unauthorized_client or invalid_scope", word))
		}
	}
	return errors.Join(errs...)
}

func open(c config, s target.Settings) (target.Target, error) {
	if c.AdminAuth != "none" && s.Admin.Secret.IsZero() {
		return nil, fmt.Errorf(
			"target %s has no administrator's credential; name a secret with one, or set admin_auth to none",
			s.Name,
		)
	}
	return &provider{
		PasswordRule: c.PasswordRule,
		config:       c,
		name:         s.Name,
		admin:        s.Admin,
		application:  s.Login,
		dial:         s.Dialer(),
	}, nil
}

type provider struct {
	target.PasswordRule // Generate
	config              config
	name                string
	admin               target.Credential
	application         target.Login
	dial                egress.DialFunc
}

// Strategies returns the one that the configuration has calls for.
func (p *provider) Strategies() []target.Strategy {
	if p.config.Remove != nil {
		return []target.Strategy{target.Overlap}
	}
	return []target.Strategy{target.Single}
}

// Close has nothing to release: every call closes its connection.
func (p *provider) Close() error { return nil }

// Apply sets the new secret.
func (p *provider) Apply(ctx context.Context, c target.Change) error {
	what := "set a secret at " + p.name
	if !slices.Contains(p.Strategies(), c.Strategy) {
		return target.Denied.Errorf("%s: its strategy is %s, not %s", what, p.Strategies()[0], c.Strategy)
	}
	err := p.set(ctx, what, c)
	if target.ClassOf(err) != target.Refused {
		return err
	}
	// A provider that remembers former secrets refuses the one that an earlier attempt has set: a
	// refusal alone does not prove that the secret is dead.
	switch verr := p.Verify(ctx, c.New); {
	case verr == nil, target.ClassOf(verr) == target.Admitted:
		return nil
	case target.ClassOf(verr) == target.Rejected:
		return err
	default:
		return target.Failed(
			target.Unknown, "", fmt.Sprintf("%v; whether it was set before is not known: %v", err, verr),
			c.New.Secret, c.Old.Secret,
		)
	}
}

// Retire removes the old secret, which the call names.
func (p *provider) Retire(ctx context.Context, c target.Change) error {
	what := "remove a secret at " + p.name
	if p.config.Remove == nil {
		return target.Denied.Errorf("%s: there is no call remove in its configuration", what)
	}
	return p.do(ctx, p.config.Remove, what, c.Old, c.New)
}

// set gives the client the new secret. A call that replaces the client carries over what get reads.
func (p *provider) set(ctx context.Context, what string, c target.Change) error {
	if !p.config.replacesClient() {
		return p.do(ctx, p.config.Set, what, c.New, c.Old)
	}
	secrets := []sensitive.Value{c.New.Secret, c.Old.Secret, p.admin.Secret}
	now, err := p.client(ctx, c.New.Account, secrets)
	if err != nil {
		return err
	}
	req, err := p.config.Set.request(ctx, c.New, now.members)
	if err != nil {
		return target.Failed(target.Denied, "", what+": "+err.Error(), secrets...)
	}
	if now.etag != "" {
		req.Header.Set("If-Match", now.etag)
	}
	return p.send(req, p.config.Set, what, c.New, secrets)
}

// do makes an administrator's call about one credential. other is not sent, and must not appear in
// errors.
func (p *provider) do(ctx context.Context, call *call, what string, c, other target.Credential) error {
	secrets := []sensitive.Value{c.Secret, other.Secret, p.admin.Secret}
	req, err := call.request(ctx, c, nil)
	if err != nil {
		return target.Failed(target.Denied, "", what+": "+err.Error(), secrets...)
	}
	return p.send(req, call, what, c, secrets)
}

func (p *provider) send(
	req *http.Request, call *call, what string, c target.Credential, secrets []sensitive.Value,
) error {
	if err := p.authenticate(req, what, secrets); err != nil {
		return err
	}
	got, err := rest.Do(req, p.dial, p.config.TLS, what, secrets...)
	if err != nil {
		return err
	}
	if !call.succeeded(got.Status) {
		if got.Status == http.StatusUnauthorized {
			return notAuthenticated(what, got, secrets)
		}
		return answered(class(got.Status), what, got, secrets)
	}
	return sameSecret(got, what, c, secrets)
}

// authenticate puts the administrator's credential into a request.
func (p *provider) authenticate(req *http.Request, what string, secrets []sensitive.Value) error {
	switch p.config.AdminAuth {
	case "", "bearer":
		if strings.ContainsFunc(p.admin.Secret.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }) {
			return target.Failed(
				target.Denied, "", what+": the administrator's token has characters that a header cannot carry",
				secrets...,
			)
		}
		req.Header.Set("Authorization", "Bearer "+p.admin.Secret.Reveal())
	case "basic":
		req.SetBasicAuth(p.admin.Account, p.admin.Secret.Reveal())
	}
	return nil
}

// notAuthenticated is the answer to a call whose administrator the provider does not authenticate
// (RFC 9110, section 15.5.2). An administrator that lacks a right is answered with the status 403.
func notAuthenticated(what string, got rest.Reply, secrets []sensitive.Value) error {
	return target.AsAdmin(answered(target.Rejected, what, got, secrets))
}

// class returns the class of an administrator's call that failed. A status that is not a plain
// refusal by the provider itself counts as no answer.
func class(status int) target.Class {
	switch status {
	case http.StatusBadRequest, http.StatusConflict, http.StatusUnprocessableEntity:
		return target.Refused
	case http.StatusForbidden,
		http.StatusNotFound,
		http.StatusMethodNotAllowed,
		http.StatusGone,
		http.StatusUnsupportedMediaType:
		return target.Denied
	case http.StatusTooManyRequests, http.StatusPreconditionFailed: // another has changed the client meanwhile
		return target.Unreachable
	default:
		return target.Unknown
	}
}

// answered returns the error for a provider's answer, with the members that OAuth 2.0 defines.
func answered(class target.Class, what string, got rest.Reply, secrets []sensitive.Value) *target.Error {
	var said struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	text, words := what+": the provider answered with an error", ""
	if got.JSON && json.Unmarshal(got.Body, &said) == nil {
		words = target.Said(said.Error+" "+said.Description, secrets...)
	}
	return rest.Answered(class, got, text, words, secrets)
}

// sameSecret returns an error if the provider's answer shows another secret than the one it was
// given.
func sameSecret(got rest.Reply, what string, c target.Credential, secrets []sensitive.Value) error {
	var client struct {
		Secret string `json:"client_secret"`
	}
	if got.JSON && json.Unmarshal(got.Body, &client) == nil && client.Secret != "" &&
		!sensitive.New(client.Secret).Equal(c.Secret) {
		return target.Failed(
			target.Unknown,
			"",
			what+": the provider chose another secret than the one that it was given, and no copy of that "+
				"is kept; this kind cannot be used with it",
			append(secrets, sensitive.New(client.Secret))...)
	}
	return nil
}

// encode is JSON without the escapes for HTML.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}
