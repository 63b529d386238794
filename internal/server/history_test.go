package server_test

import (
	"crypto/rand"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sign"
)

// TestRestartAcceptsNoReplay plays an attacker who has captured requests and sends them again after
// the server has restarted, and a client that calls right after the start.
func TestRestartAcceptsNoReplay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := keyturntest.Start(t, keyturntest.WithDataDir(dir))
	var captured []*http.Request
	capture := func(nonce string, at time.Time) *http.Request {
		r, err := http.NewRequest(http.MethodPost, "http://kms.test/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Credentials.SignHTTP(r, sign.Call{
			Action:  "DescribeRegions",
			Version: kms.Version,
			Time:    at,
			Nonce:   nonce,
		}); err != nil {
			t.Fatal(err)
		}
		r.Host = "kms.test"
		return r
	}
	send := func(r *http.Request) string {
		t.Helper()
		again := r.Clone(t.Context())
		again.URL.Host = s.HTTPEndpoint
		resp, err := http.DefaultClient.Do(again)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode == http.StatusOK {
			return "OK"
		}
		return string(body)
	}
	for _, ahead := range []time.Duration{0, -10 * time.Minute, time.Minute} {
		r := capture(rand.Text(), time.Now().Add(ahead))
		if got := send(r); got != "OK" {
			t.Fatalf("%v: %s", ahead, got)
		}
		captured = append(captured, r)
	}
	unused := capture(rand.Text(), time.Now())
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	s = keyturntest.Start(t, keyturntest.WithDataDir(dir))
	for _, r := range captured {
		if got := send(r); !strings.Contains(got, "SignatureNonceUsed") {
			t.Errorf("a captured request after the restart: %s", got)
		}
	}
	if got := send(unused); got != "OK" {
		t.Errorf("a request that was signed before the restart and not used: %s", got)
	}
	if got := send(capture(rand.Text(), time.Now())); got != "OK" {
		t.Errorf("a new request: %s", got)
	}
}
