package demo

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/sensitive"
)

func startTestOAuth(t *testing.T) *oauthProvider {
	t.Helper()
	o, err := startOAuth(t.Context())
	works(t, "start", err)
	t.Cleanup(func() { works(t, "close", o.Close()) })
	return o
}

func issue(t *testing.T, o *oauthProvider) sensitive.Value {
	t.Helper()
	data, err := o.Issue()
	works(t, "issue", err)
	return data
}

// Two app secrets are valid at a time, and a third one retires the first.
func TestOAuthOverlap(t *testing.T) {
	t.Parallel()
	o := startTestOAuth(t)
	ctx := t.Context()
	unknown, err := encodeData(oauthCredential{oauthClientID, "hunter2-marker"})
	works(t, "encode", err)
	rejected(t, "before any app secret", o.Login(ctx, unknown))
	a := issue(t, o)
	works(t, "login A", o.Login(ctx, a))
	b := issue(t, o)
	works(t, "login A beside B", o.Login(ctx, a))
	works(t, "login B", o.Login(ctx, b))
	c := issue(t, o)
	rejected(t, "A after C is issued", o.Login(ctx, a))
	works(t, "login B beside C", o.Login(ctx, b))
	works(t, "login C", o.Login(ctx, c))
	rejected(t, "an unknown app secret", o.Login(ctx, unknown))
	other, err := encodeData(oauthCredential{"other app", "hunter2-marker"})
	works(t, "encode", err)
	rejected(t, "another app", o.Login(ctx, other))

	for name, text := range map[string]string{"no JSON": "hunter2-marker", "no members": "{}", "no secret": `{"ClientId":"hunter2"}`} {
		err := o.Login(ctx, sensitive.New(text))
		if err == nil || errors.Is(err, ErrRejected) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v; want a clear error without the input", name, err)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	unanswered(t, "login under an ended context", o.Login(ended, c))
	works(t, "close", o.Close())
	works(t, "close again", o.Close())
	unanswered(t, "login at a stopped provider", o.Login(ctx, c))
}

// The endpoints answer as RFC 6749 sections 5.1 and 5.2 and RFC 6750 section 3 say.
func TestOAuthWire(t *testing.T) {
	t.Parallel()
	o := startTestOAuth(t)
	var c oauthCredential
	works(t, "decode", decodeData(issue(t, o), &c))
	type want struct {
		status       int
		code, scheme string
	}
	for _, tt := range []struct {
		name, secret, grant string
		want                want
	}{
		{"good", c.ClientSecret, "client_credentials", want{200, "", ""}},
		{"wrong secret", "hunter2-marker", "client_credentials", want{401, "invalid_client", "Basic"}},
		{"no grant type", c.ClientSecret, "", want{400, "invalid_request", ""}},
		{"another grant type", c.ClientSecret, "password", want{400, "unsupported_grant_type", ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			form := strings.NewReader(url.Values{"grant_type": {tt.grant}}.Encode())
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+o.address+"/token", form)
			works(t, "request", err)
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.SetBasicAuth(c.ClientId, tt.secret)
			resp, err := o.client.Do(req)
			works(t, "call", err)
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			works(t, "read", err)
			var answer struct {
				Error     string `json:"error"`
				ExpiresIn int    `json:"expires_in"`
			}
			works(t, "decode", json.Unmarshal(body, &answer))
			scheme, _, _ := strings.Cut(resp.Header.Get("WWW-Authenticate"), " ")
			if got := (want{resp.StatusCode, answer.Error, scheme}); got != tt.want ||
				resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("answered %+v, want %+v and Cache-Control: no-store", got, tt.want)
			}
			if tt.want.status == 200 && answer.ExpiresIn != int(oauthLifetime.Seconds()) {
				t.Errorf("expires_in %d", answer.ExpiresIn)
			}
		})
	}
}

func TestOAuthToken(t *testing.T) {
	t.Parallel()
	o := startTestOAuth(t)
	now := time.Unix(1_700_000_000, 0)
	token := o.newToken(now)
	for _, tt := range []struct {
		name, token string
		at          time.Time
		want        bool
	}{
		{"fresh", token, now, true},
		{"at its last second", token, now.Add(oauthLifetime - time.Second), true},
		{"expired", token, now.Add(oauthLifetime), false},
		{"changed", "B" + token[1:], now, false},
		{"cut", token[:20], now, false},
		{"of another provider", startTestOAuth(t).newToken(now), now, false},
		{"none", "", now, false},
	} {
		if got := o.checkToken(tt.token, tt.at); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	err := o.useToken(t.Context(), sensitive.New("hunter2-marker"))
	if err == nil || !strings.Contains(err.Error(), "status 401") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a wrong token: %v", err)
	}
}
