package sign

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The headers of a request that Keyturn makes to an endpoint of the user's own: a webhook target,
// or a receiver of events.
const (
	WebhookTimestamp = "Keyturn-Timestamp" // seconds since 1970
	// WebhookSignature has the signature of version 1, which does not cover the URL. It is sent for
	// receivers that were written before version 2.
	WebhookSignature = "Keyturn-Signature"
	// WebhookSignatureV2 has the signature of version 2.
	WebhookSignatureV2 = "Keyturn-Signature-V2"
)

// WebhookWindow is how far the timestamp of such a request may be from the receiver's clock.
const WebhookWindow = 5 * time.Minute

// WebhookV2 returns the value of the header of version 2: "v2=" and, in lower-case hexadecimal,
// HMAC-SHA256 with the key over "v2", the value of the timestamp header, the method, the URL, each
// followed by a line feed, and the body. The URL is spelled scheme://host[:port]/path[?query], with
// scheme and host in lower case and without user and fragment.
func WebhookV2(key, timestamp, method, address string, body []byte) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return "", errors.New("the URL of a webhook must have a scheme and a host") // the URL may hold a token
	}
	mac := hmac.New(sha256.New, []byte(key))
	origin := strings.ToLower(u.Scheme) + "://" + strings.ToLower(u.Host)
	fmt.Fprintf(mac, "v2\n%s\n%s\n%s%s\n", timestamp, method, origin, u.RequestURI())
	mac.Write(body)
	return "v2=" + hex.EncodeToString(mac.Sum(nil)), nil
}

// SignWebhookRequest sets the headers of a request to a webhook, with the signatures of both
// versions.
func SignWebhookRequest(r *http.Request, key string, now time.Time, body []byte) error {
	SignWebhook(r.Header, key, now, body)
	signature, err := WebhookV2(key, r.Header.Get(WebhookTimestamp), r.Method, r.URL.String(), body)
	if err != nil {
		return err
	}
	r.Header.Set(WebhookSignatureV2, signature)
	return nil
}

// ErrWebhook is returned for a request that is not signed as it must be.
var ErrWebhook = errors.New("the signature of the request, or its time, is wrong")

// WebhookOption changes what [VerifyWebhook] accepts.
type WebhookOption func(*webhookOptions)

type webhookOptions struct{ v1 bool }

// AcceptWebhookV1 also accepts requests that have a signature of version 1 alone. Such a request
// may have been made for another endpoint with the same key.
func AcceptWebhookV1() WebhookOption { return func(o *webhookOptions) { o.v1 = true } }

// VerifyWebhook verifies that a request was signed with the key, for this endpoint, within
// [WebhookWindow] of now. address is the URL of the endpoint as configured in Keyturn; do not take
// it from the request, whose Host the sender chooses. body is the body as received. A receiver that
// must not process a request twice must remember the ID in the body for [WebhookWindow].
func VerifyWebhook(
	r *http.Request, address, key string, now time.Time, body []byte, options ...WebhookOption,
) error {
	var o webhookOptions
	for _, set := range options {
		set(&o)
	}
	timestamp, signature := r.Header.Get(WebhookTimestamp), r.Header.Get(WebhookSignatureV2)
	if signature == "" && o.v1 {
		if !CheckWebhook(r.Header, key, now, body) {
			return ErrWebhook
		}
		return nil
	}
	want, err := WebhookV2(key, timestamp, r.Method, address, body)
	if err != nil {
		return err
	}
	if !hmac.Equal([]byte(signature), []byte(want)) || !freshWebhook(timestamp, now) {
		return ErrWebhook
	}
	return nil
}

func freshWebhook(timestamp string, now time.Time) bool {
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	return err == nil && now.Sub(time.Unix(seconds, 0)).Abs() <= WebhookWindow
}

// Webhook returns the value of the header of version 1: "v1=" and, in lower-case hexadecimal,
// HMAC-SHA256 with the key over "v1", a line feed, the value of the timestamp header, a line feed
// and the body. It does not cover the URL: see [WebhookV2].
func Webhook(key, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(key))
	fmt.Fprintf(mac, "v1\n%s\n", timestamp)
	mac.Write(body)
	return "v1=" + hex.EncodeToString(mac.Sum(nil))
}

// SignWebhook sets the headers of version 1 alone; use [SignWebhookRequest].
func SignWebhook(h http.Header, key string, now time.Time, body []byte) {
	timestamp := strconv.FormatInt(now.Unix(), 10)
	h.Set(WebhookTimestamp, timestamp)
	h.Set(WebhookSignature, Webhook(key, timestamp, body))
}

// CheckWebhook verifies the signature of version 1, and reports whether it is right and within
// [WebhookWindow] of now. The request may have been made for another endpoint with the same key:
// use [VerifyWebhook].
func CheckWebhook(h http.Header, key string, now time.Time, body []byte) bool {
	timestamp := h.Get(WebhookTimestamp)
	want := Webhook(key, timestamp, body)
	return hmac.Equal([]byte(h.Get(WebhookSignature)), []byte(want)) && freshWebhook(timestamp, now)
}
