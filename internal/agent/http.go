package agent

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/keyturn/keyturn/kms"
)

// errNotHeld is returned for a secret that the configuration does not name.
var errNotHeld = errors.New("the agent's configuration does not name this secret")

// answer is a value with what a program may want to know of it.
type answer struct {
	Value
	Stages    []string
	FetchedAt time.Time
	Stale     bool
}

// secretReader returns the values that the configuration names.
type secretReader interface {
	read(ctx context.Context, name string) (answer, error)
	// ready returns why not every value is available and confirmed by the server; nil if all are.
	ready() error
}

// program is the HTTP interface for programs.
func program(s secretReader, t token) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /v1/secrets/{name}", t.with(valueJSON(s)))
	mux.Handle("GET /v1/secrets/{name}/value", t.with(valueAlone(s)))
	mux.HandleFunc("GET /healthz", healthz)
	mux.Handle("GET /readyz", readyz(s))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refused(w, http.StatusNotFound,
			"there are /v1/secrets/NAME, /v1/secrets/NAME/value, /healthz and /readyz; a / in a name is written %2F")
	})
	return local(false, mux)
}

func healthz(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }

func readyz(s secretReader) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := s.ready(); err != nil {
			refused(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		fmt.Fprintln(w, "ok")
	})
}

func valueJSON(s secretReader) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, err := s.read(r.Context(), r.PathValue("name"))
		if err != nil {
			readFailed(w, err)
			return
		}
		kind := "text"
		if a.Binary {
			kind = "base64"
		}
		body, err := appendJSON(map[string]any{
			"name":       a.Name,
			"version_id": a.VersionID,
			"stages":     append([]string{}, a.Stages...),
			"value":      a.Data.Reveal(),
			"encoding":   kind,
			"fetched_at": a.FetchedAt.UTC().Format(time.RFC3339),
			"stale":      a.Stale,
		})
		if err != nil {
			refused(w, http.StatusInternalServerError, "the value is not UTF-8 text")
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintln(w, body)
	})
}

// valueAlone answers the value and nothing else; of a binary one, its bytes.
func valueAlone(s secretReader) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, err := s.read(r.Context(), r.PathValue("name"))
		if err != nil {
			readFailed(w, err)
			return
		}
		w.Header().Set("X-Keyturn-Version", a.VersionID)
		w.Header().Set("Content-Type", "application/octet-stream")
		if !a.Binary {
			fmt.Fprint(w, a.Data.Reveal())
			return
		}
		bytes, err := base64.StdEncoding.DecodeString(a.Data.Reveal())
		if err != nil {
			refused(w, http.StatusInternalServerError, "the value is said to be binary and is not base64")
			return
		}
		_, _ = w.Write(bytes) // a caller that has gone needs no answer
	})
}

// readFailed answers why there is no value. The answer has nothing of another program's requests.
func readFailed(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, errNotHeld), errors.Is(err, kms.ErrResourceNotFound):
		refused(w, http.StatusNotFound, "there is no such secret here")
	case errors.Is(err, kms.ErrNoPermission):
		refused(w, http.StatusForbidden, "the agent's access key may not read this secret")
	default:
		w.Header().Set("Retry-After", "1")
		refused(w, http.StatusServiceUnavailable, "there is no value of this secret now: "+err.Error())
	}
}
