package rpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/api/rpc"
	"github.com/keyturn/keyturn/internal/auth"
	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// elsewhere is a gate whose calls are answered by another endpoint.
type elsewhere struct{ err error }

func (g elsewhere) Call(context.Context, *operation.Op, protocol.Request) (any, error) {
	return nil, g.err
}

func (g elsewhere) Refuse(_ context.Context, _ protocol.Request, _ string, err error) error {
	return err
}

// TestErrorOfAnotherEndpoint verifies that the answer of another endpoint reaches the caller as it
// came, and is no fault of ours in the log.
func TestErrorOfAnotherEndpoint(t *testing.T) {
	t.Parallel()
	answer := &kms.Error{
		HTTPStatus: http.StatusTooManyRequests, Code: kms.CodeThrottling, Message: "Slow down.", RequestID: "theirs",
		Header: http.Header{"X-Acs-Retry-After": {"700"}},
	}
	var log bytes.Buffer
	door := &rpc.Door{
		Gate: elsewhere{answer}, Auth: auth.New(auth.Config{
			Keys:    goldenKeys(),
			Now:     time.Now,
			Service: protocol.Service,
		}), Log: slog.New(slog.NewTextHandler(&log, nil)),
	}
	r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:7483/", strings.NewReader(""))
	c := sign.Credentials{AccessKeyID: "testid", AccessKeySecret: sensitive.New("testsecret")}
	if err := c.SignHTTP(r, sign.Call{
		Action:  "GetSecretValue",
		Version: kms.Version,
		Time:    time.Now(),
		Nonce:   "nonce",
	}); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	door.ServeHTTP(w, r)
	var got struct{ Code, Message, RequestId string }
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatalf("answer %q: %v", w.Body, err)
	}
	if w.Code != 429 ||
		got.Code != kms.CodeThrottling ||
		got.Message != "Slow down." ||
		got.RequestId != "theirs" ||
		w.Header().Get("X-Acs-Retry-After") != "700" {
		t.Errorf("answer %d %q, retry after %q; want the answer of the other endpoint", w.Code, w.Body,
			w.Header().Get("X-Acs-Retry-After"))
	}
	if log.Len() > 0 {
		t.Errorf("the log says %q; it is no fault of ours", log.String())
	}
}
