package agent

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
)

// TokenHeader is the header in which a caller of the HTTP interface sends the token. A page in a
// browser can send it to another site only after a preflight request, which the agent refuses.
const TokenHeader = "X-Keyturn-Token"

// proxied are headers that a proxy adds to a request that it forwards. The sender of such a request
// is not the program on this machine that the interface is for.
var proxied = []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Forwarded", "Via"}

// local refuses requests that do not come from a program on this machine: those that a proxy
// forwarded, that use another name for this host, or that a page in a browser makes. anywhere
// permits every name.
func local(anywhere bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		switch {
		case r.Method != http.MethodGet:
			h.Set("Allow", http.MethodGet)
			refused(w, http.StatusMethodNotAllowed, "only GET is served here")
		case !anywhere && slices.ContainsFunc(proxied, func(name string) bool { return r.Header.Values(name) != nil }):
			refused(w, http.StatusForbidden, "a request that a proxy passed on is not served here")
		case !anywhere && !localHost(r.Host):
			refused(w, http.StatusForbidden, "the Host must be localhost, 127.0.0.1 or [::1]")
		case r.Header.Values("Origin") != nil || !ownPage(r.Header.Values("Sec-Fetch-Site")):
			refused(w, http.StatusForbidden, "a request of another site's page is not served here")
		case r.URL.RawQuery != "":
			refused(w, http.StatusBadRequest, "there are no query parameters here")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// signed refuses requests that a page in a browser makes or that a proxy passed on, and those for
// another host: an address on loopback, or with TLS the name that the client has verified the
// certificate by. They are signed, but a program of this machine can be led to sign one.
func signed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case slices.ContainsFunc(proxied, func(name string) bool { return r.Header.Values(name) != nil }):
			refused(w, http.StatusForbidden, "a request that a proxy passed on is not served here")
		case r.Header.Values("Origin") != nil || !ownPage(r.Header.Values("Sec-Fetch-Site")):
			refused(w, http.StatusForbidden, "a request of another site's page is not served here")
		case !localHost(r.Host) &&
			(r.TLS == nil || r.TLS.ServerName == "" || !strings.EqualFold(hostName(r.Host), r.TLS.ServerName)):
			refused(w, http.StatusForbidden, "the Host must be localhost, 127.0.0.1 or [::1], or the name of the TLS connection")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// localHost reports whether a Host header names this machine in one of the spellings that no DNS
// answer can take over.
func localHost(host string) bool {
	return slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, strings.ToLower(hostName(host)))
}

// hostName is a Host header without its port.
func hostName(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

// ownPage reports whether Sec-Fetch-Site marks a request by the user or by a page of the agent, or
// is absent, as for programs.
func ownPage(site []string) bool {
	return len(site) == 0 || len(site) == 1 && (site[0] == "none" || site[0] == "same-origin")
}

func refused(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	body, _ := appendJSON(map[string]string{"error": text}) // text cannot fail
	fmt.Fprintln(w, body)
}

// token is the digest of the text that callers must send. Digests have one length, so a comparison
// does not reveal the length of the text.
type token [sha256.Size]byte

// tokenBytes is what a token of our own holds.
const tokenBytes = 32

// readToken reads the token, and makes it when there is none.
func readToken(path string) (token, error) {
	data, err := readSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		if data, err = madeOnce(path, tokenBytes); err != nil {
			return token{}, fmt.Errorf("make the token: %w", err)
		}
	}
	if err != nil {
		return token{}, fmt.Errorf("token: %w", err)
	}
	text := strings.TrimSpace(string(data))
	if len(text) < tokenBytes {
		return token{}, fmt.Errorf("token: %s holds fewer than %d characters", path, tokenBytes)
	}
	if info, err := os.Stat(path); err == nil && info.Mode()&0o007 != 0 {
		return token{}, fmt.Errorf("token: %s can be read by everybody: chmod o= it", path)
	}
	return sha256.Sum256([]byte(text)), nil
}

// with refuses what does not carry the token.
func (t token) with(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent := r.Header.Values(TokenHeader)
		if len(sent) != 1 || !t.is(sent[0]) {
			refused(w, http.StatusUnauthorized, "send the token of token_file in the header "+TokenHeader)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (t token) is(text string) bool {
	digest := sha256.Sum256([]byte(text))
	return subtle.ConstantTimeCompare(digest[:], t[:]) == 1
}
