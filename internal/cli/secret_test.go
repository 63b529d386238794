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

// TestDeleteSaysFirstWhatRemains verifies that a deletion for good says what stays at the target
// before it asks, and that a planned one says it as it is then.
func TestDeleteSaysFirstWhatRemains(t *testing.T) {
	var mu sync.Mutex
	deleted := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		remains := "The value is here: keyturn secret get db."
		if deleted = deleted || r.Header.Get("X-Acs-Action") == "DeleteSecret"; deleted {
			remains = "The value is here: keyturn secret restore db, and then keyturn secret get db."
		}
		_, _ = w.Write([]byte(`{"SecretName":"db","Remains":"` + remains + `","RequestId":"r"}`))
	}))
	t.Cleanup(server.Close)
	t.Setenv("KEYTURN_ENDPOINT", server.URL)
	t.Setenv("KEYTURN_ACCESS_KEY_ID", "id")
	t.Setenv("KEYTURN_ACCESS_KEY_SECRET", "secret")
	run := func(args ...string) (exit int, out, errs string) {
		var o, e bytes.Buffer
		exit = Run(t.Context(), append([]string{"secret", "delete", "db"}, args...), strings.NewReader(""), &o, &e)
		return exit, o.String(), e.String()
	}
	exit, _, errs := run("--now") // there is no terminal to ask at
	remains, question := strings.Index(errs, "here: keyturn secret get"), strings.Index(errs, "for good?")
	if exit == 0 || deleted || remains < 0 || question < remains {
		t.Errorf("before the question: exit code %d, deleted %v, %s", exit, deleted, errs)
	}
	if exit, out, errs := run(); exit != 0 || !strings.Contains(out, "here: keyturn secret restore db") {
		t.Errorf("a planned deletion: exit code %d, %s%s", exit, out, errs)
	}
}

// TestDeleteAsksWhereApplicationsRead verifies that a planned deletion asks where the secret is
// rotated, or was read lately, because reads are refused from then on; and that --yes answers.
func TestDeleteAsksWhereApplicationsRead(t *testing.T) {
	var mu sync.Mutex
	var rotation, consumers string
	deleted := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		answer := `{"SecretName":"db","RequestId":"r"` + rotation + `}`
		switch r.Header.Get("X-Acs-Action") {
		case "DeleteSecret":
			deleted = true
		case "ListSecretConsumers":
			answer = `{"SecretName":"db","RequestId":"r","Consumers":{"Consumer":[` + consumers + `]}}`
		}
		_, _ = w.Write([]byte(answer))
	}))
	t.Cleanup(server.Close)
	t.Setenv("KEYTURN_ENDPOINT", server.URL)
	t.Setenv("KEYTURN_ACCESS_KEY_ID", "id")
	t.Setenv("KEYTURN_ACCESS_KEY_SECRET", "secret")
	const rotated, consumer = `,"TargetName":"pg","Remains":"The account stays."`, `{"Consumer":"app"}`
	for _, tt := range []struct {
		rotation, consumers string
		args                []string
		asks                string // printed before the question
	}{
		{"", "", nil, ""},
		{rotated, "", nil, "The account stays."},
		{"", consumer, nil, "error when they read it again: 1; keyturn secret consumers db lists them."},
		{rotated, consumer, []string{"--yes"}, ""},
	} {
		mu.Lock()
		rotation, consumers, deleted = tt.rotation, tt.consumers, false
		mu.Unlock()
		var out, errs bytes.Buffer
		exit := Run(t.Context(), append([]string{"secret", "delete", "db"}, tt.args...), strings.NewReader(""), &out, &errs)
		mu.Lock()
		done := deleted
		mu.Unlock()
		if asked := !done && exit != 0; asked != (tt.asks != "") || !strings.Contains(errs.String(), tt.asks) {
			t.Errorf("%+v: exit code %d, deleted %t\n%s%s", tt, exit, done, &out, &errs)
		}
		if done && !strings.Contains(out.String(), "Reads of its value are refused from now on.") {
			t.Errorf("%+v: printed\n%s", tt, &out)
		}
	}
}
