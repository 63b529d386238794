package sign_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/keyturn/keyturn/sign"
)

func TestWebhook(t *testing.T) {
	t.Parallel()
	now, body := time.Unix(1_800_000_000, 0), []byte(`{"id":"1"}`)
	const key = "a key of enough length"
	// printf 'v1\n1800000000\n{"id":"1"}' | openssl dgst -sha256 -hmac 'a key of enough length'
	const want = "v1=ba6fc1d94d11d9d5ab2aa365a9a92076a93e3292c12daa63bbcb936c5bba87e3"
	h := http.Header{}
	sign.SignWebhook(h, key, now, body)
	if got := h.Get(sign.WebhookSignature); got != want || h.Get(sign.WebhookTimestamp) != "1800000000" {
		t.Errorf("headers %v, want %s", h, want)
	}
	for name, tt := range map[string]struct {
		key  string
		now  time.Time
		body string
		want bool
	}{
		"right":         {key, now, string(body), true},
		"within window": {key, now.Add(5 * time.Minute), string(body), true},
		"too late":      {key, now.Add(5*time.Minute + time.Second), string(body), false},
		"too early":     {key, now.Add(-6 * time.Minute), string(body), false},
		"another key":   {"another", now, string(body), false},
		"another body":  {key, now, `{"id":"2"}`, false},
	} {
		if got := sign.CheckWebhook(h, tt.key, tt.now, []byte(tt.body)); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
	if sign.CheckWebhook(http.Header{}, key, now, body) {
		t.Error("a request without headers is accepted")
	}
}

// TestWebhookIsForOneEndpoint verifies that a request which Keyturn made for one endpoint is
// refused by every other one that has the same key, by another method, and without the signature of
// version 2.
func TestWebhookIsForOneEndpoint(t *testing.T) {
	t.Parallel()
	now, body := time.Unix(1_800_000_000, 0), []byte(`{"id":"1"}`)
	const key, address = "a key of enough length", "https://Hooks.example:8443/a/%7Eb?token=x"
	request := func(method, address string) *http.Request {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := request(http.MethodPost, address)
	if err := sign.SignWebhookRequest(r, key, now, body); err != nil {
		t.Fatal(err)
	}
	// printf 'v2\n1800000000\nPOST\nhttps://hooks.example:8443/a/%%7Eb?token=x\n{"id":"1"}' | openssl
	// dgst -sha256 -hmac 'a key of enough length'
	const want = "v2=0a74a3a07814fb0a5fa121c61f42fec58621b077e1cda080fe4877022b4649a9"
	if got := r.Header.Get(sign.WebhookSignatureV2); got != want {
		t.Errorf("the signature is %s, want %s", got, want)
	}
	for _, same := range []string{
		address, "HTTPS://hooks.EXAMPLE:8443/a/%7Eb?token=x", "https://user:pw@hooks.example:8443/a/%7Eb?token=x#f",
	} {
		if err := sign.VerifyWebhook(r, same, key, now, body); err != nil {
			t.Errorf("at %s: %v", same, err)
		}
	}
	for _, other := range []string{
		"https://hooks.example/a/%7Eb?token=x",
		"https://other.example:8443/a/%7Eb?token=x",
		"http://hooks.example:8443/a/%7Eb?token=x",
		"https://hooks.example:8443/a/%7Eb",
		"https://hooks.example:8443/b?token=x",
		"https://hooks.example:8443/a/%7Eb?token=y",
		"",
		"/a/%7Eb?token=x",
	} {
		if err := sign.VerifyWebhook(r, other, key, now, body); err == nil {
			t.Errorf("the endpoint %s accepts it", other)
		}
		if err := sign.VerifyWebhook(r, other, key, now, body, sign.AcceptWebhookV1()); err == nil {
			t.Errorf("the endpoint %s accepts it beside version 1", other)
		}
	}
	put := request(http.MethodPut, address)
	put.Header = r.Header
	stripped := request(http.MethodPost, address)
	stripped.Header = r.Header.Clone()
	stripped.Header.Del(sign.WebhookSignatureV2)
	for name, err := range map[string]error{
		"another method":  sign.VerifyWebhook(put, address, key, now, body),
		"version 1 alone": sign.VerifyWebhook(stripped, address, key, now, body),
		"another key":     sign.VerifyWebhook(r, address, "another", now, body),
		"another body":    sign.VerifyWebhook(r, address, key, now, []byte(`{"id":"2"}`)),
		"too late":        sign.VerifyWebhook(r, address, key, now.Add(6*time.Minute), body),
	} {
		if err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if err := sign.VerifyWebhook(stripped, address, key, now, body, sign.AcceptWebhookV1()); err != nil {
		t.Errorf("version 1 where it is accepted: %v", err)
	}
}
