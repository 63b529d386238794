package sign

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// The headers of a request that Keyturn makes to an endpoint of the user's own: a webhook target, or a receiver of events.
const (
	WebhookTimestamp = "Keyturn-Timestamp" // seconds since 1970
	WebhookSignature = "Keyturn-Signature"
)

// WebhookWindow is how far the timestamp of such a request may be from the receiver's clock.
const WebhookWindow = 5 * time.Minute

// Webhook is the value of the signature header: "v1=" and, in lower-case hexadecimal, HMAC-SHA256 with the key over "v1", a
// line feed, the value of the timestamp header, a line feed and the body.
func Webhook(key, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(key))
	fmt.Fprintf(mac, "v1\n%s\n", timestamp)
	mac.Write(body)
	return "v1=" + hex.EncodeToString(mac.Sum(nil))
}

// SignWebhook sets both headers.
func SignWebhook(h http.Header, key string, now time.Time, body []byte) {
	timestamp := strconv.FormatInt(now.Unix(), 10)
	h.Set(WebhookTimestamp, timestamp)
	h.Set(WebhookSignature, Webhook(key, timestamp, body))
}

// CheckWebhook reports whether the headers are of somebody who has the key, and made within WebhookWindow of now. A receiver
// that must not take one request twice remembers the ID in the body for as long.
func CheckWebhook(h http.Header, key string, now time.Time, body []byte) bool {
	timestamp := h.Get(WebhookTimestamp)
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	fresh := err == nil && now.Sub(time.Unix(seconds, 0)).Abs() <= WebhookWindow
	return hmac.Equal([]byte(h.Get(WebhookSignature)), []byte(Webhook(key, timestamp, body))) && fresh
}
