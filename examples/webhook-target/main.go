// Command webhook-target is a small service with API keys and the endpoint that lets Keyturn rotate
// them: an example to copy from. It keeps the SHA-256 of each key in a file (keys.go).
//
//	webhook-target -listen 127.0.0.1:8443 -host 127.0.0.1 -cert cert.pem -key key.pem \
//		-keys keys.txt -secret-file shared-secret
//
// POST /keyturn is for Keyturn. GET /whoami is the service: it answers whose the key in
// "Authorization: Bearer" is.
//
// It needs nothing but the standard library and nothing of Keyturn's.
package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "webhook-target:", err)
		os.Exit(1)
	}
}

// run serves until the context ends. It prints the address that it listens on.
func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("webhook-target", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:8443", "address to listen on")
	host := flags.String("host", "127.0.0.1", "name or address by which Keyturn reaches this service")
	cert := flags.String("cert", "", "certificate, PEM")
	key := flags.String("key", "", "its private key, PEM")
	keys := flags.String("keys", "keys.txt", "file of the hashes of API keys")
	secretFile := flags.String("secret-file", "", "file that holds the secret shared with Keyturn")
	if err := flags.Parse(args); err != nil {
		return err
	}
	secret, err := os.ReadFile(*secretFile)
	if err != nil {
		return fmt.Errorf("read the shared secret: %w", err)
	}
	s := &service{secret: bytes.TrimSpace(secret), host: *host, path: *keys, attempts: map[string]time.Time{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /keyturn", s.keyturn)
	mux.HandleFunc("GET /whoami", s.whoami)
	server := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, l.Addr())
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.ServeTLS(l, *cert, *key); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

type service struct {
	secret []byte
	host   string
	path   string

	mu       sync.Mutex
	attempts map[string]time.Time // those seen within the window
}

// The protocol's messages.
type credential struct {
	Account string `json:"account"`
	Secret  string `json:"secret"`
}

type request struct {
	Protocol    int          `json:"protocol"`
	Step        string       `json:"step"`
	Attempt     string       `json:"attempt"`
	Strategy    string       `json:"strategy"`
	Account     string       `json:"account"`
	Partner     string       `json:"partner"`
	New         credential   `json:"new"`
	Old         credential   `json:"old"`
	Credentials []credential `json:"credentials"`
}

type reply struct {
	Result  string   `json:"result"`
	Code    string   `json:"code,omitempty"`
	Message string   `json:"message,omitempty"`
	States  []string `json:"states,omitempty"`

	Findings []finding `json:"findings,omitempty"`
}

const (
	window  = 5 * time.Minute // of the timestamp, either way
	maxBody = 64 << 10
	minKey  = 20
)

// keyturn takes one step. Nothing of the body counts before the signature has been verified.
func (s *service) keyturn(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return // the connection is closed, or the body is too large for a step
	}
	if !s.signed(r, body) {
		answer(w, http.StatusUnauthorized, denied("signature", "the signature or its time is wrong"))
		return
	}
	var in request
	if err := json.Unmarshal(body, &in); err != nil || in.Protocol != 1 {
		answer(w, http.StatusBadRequest, denied("protocol", "not a request of protocol 1"))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.replayed(in.Attempt, time.Now()) {
		answer(w, http.StatusConflict, denied("replay", "this attempt was made before"))
		return
	}
	answer(w, http.StatusOK, s.step(in))
}

func denied(code, message string) reply { return reply{Result: "denied", Code: code, Message: message} }

// signed verifies time, URL and signature, the last in constant time. The host is compared first: a
// request that was made for another endpoint with the same secret names that one.
func (s *service) signed(r *http.Request, body []byte) bool {
	timestamp, signature := r.Header.Get("Keyturn-Timestamp"), r.Header.Get("Keyturn-Signature-V2")
	address := url.URL{Scheme: "https", Host: strings.ToLower(r.Host)}
	if address.Hostname() != s.host {
		return false
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || time.Since(time.Unix(seconds, 0)).Abs() > window {
		return false
	}
	mac := hmac.New(sha256.New, s.secret)
	fmt.Fprintf(mac, "v2\n%s\n%s\n%s%s\n", timestamp, r.Method, address.String(), r.URL.RequestURI())
	mac.Write(body)
	return hmac.Equal([]byte("v2="+hex.EncodeToString(mac.Sum(nil))), []byte(signature))
}

// replayed remembers an attempt for as long as its timestamp could be accepted.
func (s *service) replayed(attempt string, now time.Time) bool {
	for a, seen := range s.attempts {
		if now.Sub(seen) > 2*window {
			delete(s.attempts, a)
		}
	}
	_, again := s.attempts[attempt]
	s.attempts[attempt] = now
	return again
}

func (s *service) step(in request) reply {
	list, err := s.load()
	if err != nil {
		// Nothing has been changed, so this is no "unknown".
		return reply{Result: "unavailable", Code: "storage", Message: "the file of keys cannot be read"}
	}
	switch in.Step {
	case "set":
		if len(in.New.Secret) < minKey {
			text := fmt.Sprintf("an API key must have at least %d characters", minKey)
			return reply{Result: "refused", Code: "too-short", Message: text}
		}
		list, ok := list.set(in)
		if !ok {
			return denied("rights", "the keys of the account have different rights, and the old one is not among them")
		}
		return s.save(list)
	case "retire":
		return s.save(list.retire(in))
	case "verify":
		if list.find(in.New) < 0 {
			return reply{Result: "rejected", Code: "no-such-key"}
		}
		return reply{Result: "ok"}
	case "state":
		states := make([]string, 0, len(in.Credentials))
		for _, c := range in.Credentials {
			if list.find(c) >= 0 {
				states = append(states, "live")
			} else {
				states = append(states, "dead")
			}
		}
		return reply{Result: "ok", States: states}
	case "check":
		return reply{Result: "ok", Findings: list.check(in)}
	default:
		return reply{Result: "denied", Code: "step", Message: "there is no such step"}
	}
}

func (s *service) whoami(w http.ResponseWriter, r *http.Request) {
	secret, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	list, err := s.load()
	s.mu.Unlock()
	switch {
	case err != nil:
		http.Error(w, "out of order", http.StatusInternalServerError)
		return
	case ok:
		if i := list.findSecret(secret); i >= 0 {
			fmt.Fprintln(w, list[i].account)
			return
		}
	}
	http.Error(w, "no such key", http.StatusUnauthorized)
}

func answer(w http.ResponseWriter, status int, r reply) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(r) // who has gone away needs no answer
}
