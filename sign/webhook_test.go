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
