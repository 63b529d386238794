package oauth

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/rest"
	"github.com/keyturn/keyturn/sensitive"
)

// Errors of token endpoints (RFC 6749, section 5.2).
const (
	invalidClient      = "invalid_client"
	unauthorizedClient = "unauthorized_client"
	invalidScope       = "invalid_scope"
)

var errorForm = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

// Verify gets a token at every token endpoint that decides.
func (p *provider) Verify(ctx context.Context, c target.Credential) error {
	return p.verify(ctx, c, p.endpoints().Deciding())
}

// VerifyCopies gets a token at the endpoints that learn of a change later.
func (p *provider) VerifyCopies(ctx context.Context, c target.Credential) error {
	return p.verify(ctx, c, p.endpoints().Replicas())
}

// Lag returns how long those endpoints may need.
func (p *provider) Lag() time.Duration { return p.endpoints().Lag() }

// endpoints returns the token endpoints of the application.
func (p *provider) endpoints() target.EndpointList { return p.application.At(p.config.TokenURLs) }

// scope and audience return those that the application asks for.
func (p *provider) scope() string { return cmp.Or(p.application.Role, p.config.Scope) }

func (p *provider) audience() string { return cmp.Or(p.application.Database, p.config.Audience) }

func (p *provider) verify(ctx context.Context, c target.Credential, endpoints target.EndpointList) error {
	return target.VerifyEach(ctx, endpoints, func(ctx context.Context, e target.Endpoint) error {
		return p.token(ctx, e.Address, c)
	})
}

func (p *provider) token(ctx context.Context, endpoint string, c target.Credential) error {
	what := fmt.Sprintf("get a token of %s for %s", p.name, fault.Quoted(c.Account))
	form := url.Values{"grant_type": {"client_credentials"}}
	if scope := p.scope(); scope != "" {
		form.Set("scope", scope)
	}
	if audience := p.audience(); audience != "" {
		form.Set("audience", audience)
	}
	if p.config.ClientAuth == "post" {
		form.Set("client_id", c.Account)
		form.Set("client_secret", c.Secret.Reveal())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return target.Denied.Errorf("%s: the token endpoint is not a URL", what)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if p.config.ClientAuth != "post" {
		// Both are form-encoded first: RFC 6749 section 2.3.1.
		req.SetBasicAuth(url.QueryEscape(c.Account), url.QueryEscape(c.Secret.Reveal()))
	}
	got, err := rest.Do(req, p.dial, p.config.TLS, what, c.Secret)
	if err != nil {
		return err
	}
	return p.judge(got, what, c)
}

// judge returns what a token endpoint's answer means. Some providers check grant and scope before
// the secret, and some answer a wrong secret with unauthorized_client. Therefore an error proves
// the secret only where the setting admitted says so. Any other answer, such as one of a gateway
// or of a server that limits requests, decides nothing.
func (p *provider) judge(got rest.Reply, what string, c target.Credential) error {
	var answer struct {
		AccessToken string `json:"access_token"`
		Error       string `json:"error"`
	}
	known := got.JSON && json.Unmarshal(got.Body, &answer) == nil
	refusal := known && got.Status >= 400 && got.Status <= 499 && got.Status != http.StatusTooManyRequests
	class := target.Unclear
	switch {
	case known && got.Status == http.StatusOK && answer.AccessToken != "":
		return nil
	case refusal && answer.Error == invalidClient &&
		(got.Status == http.StatusUnauthorized || got.Status == http.StatusBadRequest),
		// Keycloak's word for a wrong secret, with the status that RFC 6749 has for it.
		refusal && answer.Error == unauthorizedClient && got.Status == http.StatusUnauthorized:
		class = target.Rejected
	case refusal && slices.Contains(p.config.Admitted, answer.Error):
		class = target.Admitted
	}
	return answered(class, what, got, []sensitive.Value{c.Secret})
}
