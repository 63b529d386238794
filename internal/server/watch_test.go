package server_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// clients are one over TLS, which speaks HTTP/2, and one without.
func clients(t *testing.T, s *keyturntest.Server) map[string]*kms.Client {
	t.Helper()
	plain, err := kms.NewClient(kms.Config{
		Endpoint:    "http://" + s.HTTPEndpoint,
		Credentials: s.Credentials,
		MaxAttempts: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]*kms.Client{"TLS": s.Client, "HTTP": plain}
}

type watched struct {
	changes []kms.SecretChange
	err     error
	took    time.Duration
}

// wait begins to wait for a change of a secret from the state that it is in.
func wait(t *testing.T, c *kms.Client, seconds int) <-chan watched {
	t.Helper()
	in := &kms.WatchSecretsRequest{Secrets: []kms.WatchedSecret{{SecretName: "s"}}}
	now, err := c.WatchSecrets(t.Context(), in)
	if err != nil || len(now.Changes) != 1 {
		t.Fatalf("%+v, %v", now, err)
	}
	in.Secrets[0].Revision, in.WaitSeconds = now.Changes[0].Revision, seconds
	done := make(chan watched, 1)
	go func() {
		start := time.Now()
		out, err := c.WatchSecrets(context.WithoutCancel(t.Context()), in)
		w := watched{err: err, took: time.Since(start)}
		if err == nil {
			w.changes = out.Changes
		}
		done <- w
	}()
	return done
}

func receive(t *testing.T, what string, done <-chan watched) watched {
	t.Helper()
	select {
	case w := <-done:
		return w
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: no answer within 20 s", what)
		panic("unreachable")
	}
}

// TestWatchOutlastsTimeouts verifies that the time limit of a request does not end a wait.
func TestWatchOutlastsTimeouts(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t, server.Change(func(c *server.Config) { c.RequestTimeout = 300 * time.Millisecond }))
	create(t, s, "s", "value")
	for name, c := range clients(t, s) {
		if w := receive(t, name, wait(t, c, 1)); w.err != nil || len(w.changes) != 0 || w.took < time.Second {
			t.Errorf("%s: %+v; want no change after a second", name, w)
		}
	}
}

// TestWatchAtStop verifies that waiting clients get an answer when the server stops, and do not
// delay it.
func TestWatchAtStop(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	create(t, s, "s", "value")
	var waiting []<-chan watched
	for _, c := range clients(t, s) {
		waiting = append(waiting, wait(t, c, 20))
	}
	waitFor(t, "both to wait", func() bool {
		r, err := http.Get("http://" + s.HTTPEndpoint + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		page, err := io.ReadAll(r.Body)
		return err == nil && strings.Contains(string(page), "\nkeyturn_watching 2\n")
	})
	begun := time.Now()
	if err := s.Stop(); err != nil || time.Since(begun) > 4*time.Second {
		t.Errorf("the stop took %v: %v", time.Since(begun), err)
	}
	for _, done := range waiting {
		if w := receive(t, "stop", done); w.err != nil || len(w.changes) != 0 {
			t.Errorf("%+v; want an answer without a change", w)
		}
	}
}

// wakes verifies that a change at one node wakes who waits at another.
func wakes(t *testing.T, at, other *node) {
	t.Helper()
	done := wait(t, other.client, 20)
	waitFor(t, "it to wait", func() bool { return other.Watching() == 1 })
	if _, err := at.client.PutSecretValue(t.Context(), &kms.PutSecretValueRequest{
		SecretName: "s",
		VersionID:  "woken",
		SecretData: sensitive.New("woken"),
	}); err != nil {
		t.Fatal(err)
	}
	if w := receive(t, "the other node", done); w.err != nil || len(w.changes) != 1 || w.changes[0].VersionID != "woken" {
		t.Errorf("the other node: %+v; want the new version", w)
	}
}
