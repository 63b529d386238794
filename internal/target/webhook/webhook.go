// Package webhook is the kind "webhook": an HTTPS endpoint of the user's own changes the
// credentials. Each step of package plugin is one POST. docs/plugin.md says what an endpoint has to
// do, docs/webhook-openapi.yaml says it to programs, and examples/webhook-target is one.
//
// Configuration:
//
//	url                   where the requests go: https, or http on loopback or with tls.off.
//	                      Required.
//	tls                   ca, server_name, off: see target.TLS.
//	strategy              the one that the endpoint implements: "single", "overlap" or "double".
//	                      Required.
//	headers               an object of further headers, such as {"X-Team": "payments"}. They are no
//	                      place for secrets.
//	generate              true when the endpoint makes new credentials itself; default false:
//	                      passwords by the rule.
//	check                 true when the endpoint has the step check; default false.
//	password_length       12 to 128, default 32.
//	password_punctuation  characters beside letters and digits; default none.
//
// The administrator's credential is the secret that signs the requests, at least 16 characters: its
// account is not used. The endpoint holds whatever rights the change itself takes; Keyturn needs
// none.
package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/plugin"
	"github.com/keyturn/keyturn/internal/target/rest"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

const minKey = 16

// Kind returns the kind "webhook".
func Kind() target.Kind {
	strategies := []target.Strategy{target.Overlap, target.Single, target.Double}
	return target.NewKind("webhook", strategies, parse, open).WithAdmin().Consenting(plugin.Consents).
		Leaving(plugin.Leaves)
}

type config struct {
	URL     string            `json:"url"`
	TLS     target.TLS        `json:"tls"`
	Headers map[string]string `json:"headers,omitempty"`
	plugin.Settings
}

// Addresses returns the URL of the endpoint.
func (c config) Addresses() []string { return []string{c.URL} }

func parse(raw json.RawMessage) (config, error) {
	var c config
	if err := target.Decode(raw, &c); err != nil {
		return c, err
	}
	return c, errors.Join(
		rest.CheckURL("url", c.URL, c.TLS), c.TLS.Check(), checkHeaders(c.Headers), c.Settings.Check(),
	)
}

// own are headers that a configuration cannot set: those that carry the protocol, and those that
// the transport makes.
var own = []string{
	sign.WebhookTimestamp,
	sign.WebhookSignature,
	sign.WebhookSignatureV2,
	"Content-Type",
	"Content-Length",
	"Content-Encoding",
	"Accept",
	"Host",
	"Connection",
	"Transfer-Encoding",
	"Trailer",
	"Upgrade",
	"Expect",
	"Te",
}

func checkHeaders(headers map[string]string) error {
	var errs []error
	for name, value := range headers {
		switch {
		case strings.Trim(name, target.Alphabet+"-_") != "" || name == "" || strings.ContainsFunc(value, notInHeader):
			errs = append(errs, fmt.Errorf("headers: %q is not a header", name))
		case slices.Contains(own, textproto.CanonicalMIMEHeaderKey(name)):
			errs = append(errs, fmt.Errorf("headers: %s cannot be set", textproto.CanonicalMIMEHeaderKey(name)))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

func notInHeader(r rune) bool { return r < ' ' || r > '~' }

func open(c config, s target.Settings) (target.Target, error) {
	if s.Admin.Secret.Len() < minKey {
		return nil, fmt.Errorf(
			"the secret that signs the requests of target %s is shorter than %d characters", s.Name, minKey,
		)
	}
	h := &hook{
		config: c,
		name:   s.Name,
		key:    s.Admin.Secret,
		dial:   s.Dialer(),
		now:    time.Now,
	}
	return &plugin.Target{
		Settings: c.Settings,
		Name:     s.Name,
		Admin:    s.Admin,
		Call:     h.call,
	}, nil
}

type hook struct {
	config config
	name   string
	key    sensitive.Value
	dial   egress.DialFunc
	now    func() time.Time
}

func (h *hook) call(
	ctx context.Context, step plugin.Step, body []byte, secrets []sensitive.Value,
) (plugin.Answer, error) {
	what := fmt.Sprintf("%s of target %s", step, h.name)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.config.URL, bytes.NewReader(body))
	if err != nil {
		return plugin.Answer{}, target.Failed(target.Denied, "", what+": url is not a URL", secrets...)
	}
	for name, value := range h.config.Headers {
		req.Header.Set(name, value)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	if err := sign.SignWebhookRequest(req, h.key.Reveal(), h.now(), body); err != nil {
		return plugin.Answer{}, target.Failed(target.Denied, "", what+": "+err.Error(), secrets...)
	}
	got, err := rest.Do(req, h.dial, h.config.TLS, what, secrets...)
	if err != nil {
		return plugin.Answer{}, err
	}
	status := rest.Code(got.Status)
	// A server error may come from before, behind or beside the endpoint, whatever its body says.
	if got.Status != http.StatusOK && (got.Status < 400 || got.Status > 499) {
		return plugin.Answer{}, target.Failed(
			target.Unknown, status, what+": the endpoint answered with a status that tells nothing", secrets...,
		)
	}
	if !got.JSON {
		return plugin.Answer{}, target.Failed(
			target.Unknown, status, what+": the answer is not of type application/json", secrets...,
		)
	}
	answer := plugin.Answer{JSON: got.Body, MayBeOK: got.Status == http.StatusOK, Proven: got.Proven}
	if !answer.MayBeOK {
		answer.Code = status
	}
	return answer, nil
}
