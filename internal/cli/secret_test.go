package cli

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// TestDeleteReadsTheRotationFirst verifies that a deletion by a caller who may not read the
// rotation succeeds, and that a server which does not answer is not asked for the deletion as well.
func TestDeleteReadsTheRotationFirst(t *testing.T) {
	var mu sync.Mutex
	var actions []string
	var status int
	var code string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		action := r.Header.Get("X-Acs-Action")
		mu.Lock()
		defer mu.Unlock()
		actions = append(actions, action)
		if action == "DescribeRotation" {
			w.Header().Set("X-Acs-Retry-After", "1")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(`{"Code":"` + code + `","RequestId":"r"}`))
			return
		}
		_, _ = w.Write([]byte(`{"SecretName":"db","RequestId":"r"}`))
	}))
	t.Cleanup(server.Close)
	t.Setenv("KEYTURN_ENDPOINT", server.URL)
	t.Setenv("KEYTURN_ACCESS_KEY_ID", "id")
	t.Setenv("KEYTURN_ACCESS_KEY_SECRET", "secret")
	for _, tt := range []struct {
		status  int
		code    string
		deletes bool
	}{
		{http.StatusForbidden, "Forbidden.NoPermission", true},
		{http.StatusServiceUnavailable, "ServiceUnavailableTemporary", false},
		{http.StatusNotFound, "Forbidden.ResourceNotFound", false},
	} {
		actions, status, code = nil, tt.status, tt.code
		var out, errs bytes.Buffer
		args := []string{"secret", "delete", "db", "--now", "--yes"}
		exit := Run(t.Context(), args, strings.NewReader(""), &out, &errs)
		deleted := strings.Contains(strings.Join(actions, " "), "DeleteSecret")
		if deleted != tt.deletes || (exit == 0) != tt.deletes {
			t.Errorf("%s: asked for %v, exit code %d: %s%s", tt.code, actions, exit, &out, &errs)
		}
	}
}
