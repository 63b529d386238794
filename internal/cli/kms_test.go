package cli

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/internal/protocol"
)

// TestKmsRepeatsWhatIsRetryable verifies for every operation that keyturn kms repeats a call
// without a known outcome exactly when the operation is declared Retryable, as the Go client does.
func TestKmsRepeatsWhatIsRetryable(t *testing.T) {
	var sent atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		sent.Add(1)
		w.Header().Set("X-Acs-Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(`{"Code":"ServiceUnavailableTemporary","RequestId":"r"}`))
	}))
	t.Cleanup(server.Close)
	t.Setenv("KEYTURN_ENDPOINT", server.URL)
	t.Setenv("KEYTURN_ACCESS_KEY_ID", "id")
	t.Setenv("KEYTURN_ACCESS_KEY_SECRET", "secret")
	for _, o := range protocol.Operations() {
		args := []string{"kms", o.Name}
		for _, p := range o.Params() {
			if p.Required {
				args = append(args, "--"+p.Name, "1")
			}
		}
		sent.Store(0)
		var out, errs bytes.Buffer
		code := Run(t.Context(), args, strings.NewReader(""), &out, &errs)
		if n := sent.Load(); code != exitFailed || n == 0 || n > 1 != o.Retryable {
			t.Errorf("%s, Retryable: %t: sent %d times, exit code %d: %s", o.Name, o.Retryable, n, code, &errs)
		}
	}
}
