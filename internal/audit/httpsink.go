package audit

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// maxSinkAnswer is how much of an answer is read.
const maxSinkAnswer = 64 << 10

// HTTP sends records to an HTTP endpoint: a POST of a JSON array whose members are the lines of the
// trail. Any status of 2xx means that the endpoint has them all.
type HTTP struct {
	// URL takes the POST.
	URL string
	// TokenFile holds a bearer token; empty for none. It is read for each request, so it may be
	// rotated.
	TokenFile string
	// TLS is nil for the machine's authorities.
	TLS *tls.Config

	client *http.Client
	taken  uint64
}

// Name is "http".
func (h *HTTP) Name() string { return "http" }

// Destination is where the records go.
func (h *HTTP) Destination() string { return h.URL }

// Close ends idle connections.
func (h *HTTP) Close() error {
	if h.client != nil {
		h.client.CloseIdleConnections()
	}
	return nil
}

// newClient returns a client that follows no redirect: the records and the token are for the
// endpoint that was configured.
func (h *HTTP) newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			TLSClientConfig:        h.TLS,
			ForceAttemptHTTP2:      true,
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: maxSinkAnswer,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// request returns the POST of the lines. Its errors do not quote the URL, which may hold a token.
func (h *HTTP) request(ctx context.Context, lines []Line) (*http.Request, error) {
	body := []byte{'['}
	for i, l := range lines {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, l.Text...)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(append(body, ']')))
	if err != nil {
		return nil, errors.New("the URL of the audit sink cannot be used")
	}
	r.Header.Set("Content-Type", "application/json")
	if h.TokenFile != "" {
		token, err := os.ReadFile(h.TokenFile)
		if err != nil {
			return nil, err
		}
		r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	return r, nil
}

// Send posts the lines.
func (h *HTTP) Send(ctx context.Context, lines []Line) (taken uint64, err error) {
	if len(lines) == 0 {
		return h.taken, nil
	}
	if h.client == nil {
		h.client = h.newClient()
	}
	r, err := h.request(ctx, lines)
	if err != nil {
		return h.taken, err
	}
	resp, err := h.client.Do(r)
	if err != nil {
		var detail *url.Error
		if errors.As(err, &detail) {
			err = detail.Err // the rest quotes the URL, which may hold a token
		}
		return h.taken, err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxSinkAnswer))
	err = errors.Join(err, resp.Body.Close())
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return h.taken, fmt.Errorf("the audit sink answers with status %d", resp.StatusCode)
	}
	h.taken = lines[len(lines)-1].Seq
	return h.taken, err
}
