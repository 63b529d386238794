package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/internal/target/webhook"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
	"github.com/keyturn/keyturn/test/servers"
)

const sharedSecret = "a-secret-that-only-the-two-know"

// example is the program of this folder, running.
type example struct {
	addr, ca, keys string
	client         *http.Client
	accounts       atomic.Int32
}

func start(t *testing.T) *example {
	t.Helper()
	dir := t.TempDir()
	ca := servers.NewLocalCA(t)
	cert, key := ca.Issue(t, dir, "127.0.0.1")
	e := &example{ca: ca.PEM, keys: filepath.Join(dir, "keys")}
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte(sharedSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, []string{
			"-listen", "127.0.0.1:0", "-cert", cert, "-key", key, "-keys", e.keys, "-secret-file", secret,
		}, w)
		_ = w.CloseWithError(io.EOF)
		ended <- err
	}()
	if _, err := fmt.Fscanln(r, &e.addr); err != nil {
		t.Fatalf("the example does not start: %v", <-ended)
	}
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	tls := target.TLS{CA: ca.PEM}
	e.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: tls.Config("127.0.0.1")}}
	return e
}

func (e *example) config(strategy target.Strategy, addr string) string {
	ca, _ := json.Marshal(e.ca)
	return fmt.Sprintf(`{"url":"https://%s/keyturn","tls":{"ca":%s},"strategy":%q,"check":true}`, addr, ca, strategy)
}

func (e *example) login(ctx context.Context, c target.Credential) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+e.addr+"/whoami", nil)
	if err != nil {
		return false, err
	}
	req.Header.Set("Authorization", "Bearer "+c.Secret.Reveal())
	resp, err := e.client.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	name, err := io.ReadAll(resp.Body)
	return resp.StatusCode == http.StatusOK && string(name) == c.Account+"\n", err
}

// account adds an account, with one signed request.
func (e *example) account(t *testing.T) target.Credential {
	n := e.accounts.Add(1)
	c := credential{fmt.Sprintf(`app "%d" ü`, n), fmt.Sprintf("first-api-key-of-account-%d", n)}
	body, _ := json.Marshal(map[string]any{
		"protocol": 1,
		"step":     "set",
		"attempt":  c.Account,
		"strategy": "overlap",
		"new":      c,
	})
	if status, got := e.post(t, time.Now(), body); status != http.StatusOK {
		t.Fatalf("status %d: %s", status, got)
	}
	return target.Credential{Account: c.Account, Secret: sensitive.New(c.Secret)}
}

func (e *example) post(t *testing.T, at time.Time, body []byte) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+e.addr+"/keyturn",
		bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if err := sign.SignWebhookRequest(req, sharedSecret, at, body); err != nil {
		t.Fatal(err)
	}
	resp, err := e.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(got)
}

func TestKeyturnRotatesTheKeys(t *testing.T) {
	t.Parallel()
	e := start(t)
	for _, strategy := range webhook.Kind().Strategies {
		t.Run(string(strategy), func(t *testing.T) {
			kind := webhook.Kind()
			kind.Strategies = []target.Strategy{strategy}
			targettest.Run(t, targettest.Harness{
				Unguarded:      "the endpoint is not asked what an account is",
				Kind:           kind,
				Addr:           e.addr,
				Config:         func(addr string) string { return e.config(strategy, addr) },
				Admin:          target.Credential{Account: "keyturn", Secret: sensitive.New(sharedSecret)},
				NoAdminAccount: true,
				Account:        e.account,
				Login:          e.login,
				Refused: func(account string) target.Credential {
					return target.Credential{Account: account, Secret: sensitive.New("too-short-key")}
				},
			})
		})
	}
}

func TestReplaysAreRefused(t *testing.T) {
	t.Parallel()
	e := start(t)
	body := []byte(`{"protocol":1,"step":"set","attempt":"A1","strategy":"overlap",` +
		`"new":{"account":"a","secret":"aaaaaaaaaaaaaaaaaaaaaaaa"}}`)
	for _, step := range []struct {
		what   string
		at     time.Time
		status int
		want   string
	}{
		{"too old", time.Now().Add(-6 * time.Minute), http.StatusUnauthorized, "signature"},
		{"too far ahead", time.Now().Add(6 * time.Minute), http.StatusUnauthorized, "signature"},
		{"the first time", time.Now(), http.StatusOK, `"ok"`},
		{"the same attempt again", time.Now(), http.StatusConflict, "replay"},
	} {
		if status, got := e.post(t, step.at, body); status != step.status || !strings.Contains(got, step.want) {
			t.Errorf("%s: status %d, %s; want %d, %s", step.what, status, got, step.status, step.want)
		}
	}
	if b, err := os.ReadFile(e.keys); err != nil || bytes.Contains(b, []byte("aaaaaaaa")) {
		t.Errorf("the file of keys holds a key in clear, or is not there: %v", err)
	}
}
