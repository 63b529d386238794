package server_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

func create(t *testing.T, s *keyturntest.Server, name, value string) {
	t.Helper()
	if _, err := s.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: name,
		VersionID:  "v1",
		SecretData: sensitive.New(value),
	}); err != nil {
		t.Fatal(err)
	}
}

func TestAdminFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := keyturntest.Start(t, keyturntest.WithDataDir(dir))
	path := filepath.Join(dir, "admin.json")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("admin.json: %v, %v; want mode 0600", info, err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]string
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	for member, want := range map[string]string{
		"account_id":        first.AccountID,
		"access_key_id":     first.Credentials.AccessKeyID,
		"access_key_secret": first.Credentials.AccessKeySecret.Reveal(),
		"region":            "local",
		"endpoint":          first.Endpoint,
		"http_endpoint":     first.HTTPEndpoint,
		"ca_file":           first.CAFile,
	} {
		if file[member] != want || want == "" {
			t.Errorf("%s differs from the server's, or is empty", member)
		}
	}
	create(t, first, "a", "value")
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	second := keyturntest.Start(t, keyturntest.WithDataDir(dir))
	if second.AccountID != first.AccountID || second.Credentials.AccessKeyID != first.Credentials.AccessKeyID {
		t.Error("a restart made another administrator")
	}
	got, err := second.Client.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: "a"})
	if err != nil || got.SecretData.Reveal() != "value" {
		t.Errorf("after a restart: %v", err)
	}
	if a, err := server.ReadAdmin(path); err != nil || a.Endpoint != second.Endpoint {
		t.Errorf("admin.json has endpoint %s, the server %s, %v", a.Endpoint, second.Endpoint, err)
	}
}

// TestFirstRunResumes cuts the first run off at each point at which its files differ, and starts
// again.
func TestFirstRunResumes(t *testing.T) {
	t.Parallel()
	for _, cut := range []string{"root.key", "root.key tls", "root.key tls admin.json"} {
		t.Run(cut, func(t *testing.T) {
			t.Parallel()
			whole, dir := t.TempDir(), t.TempDir()
			if err := keyturntest.Start(t, keyturntest.WithDataDir(whole)).Stop(); err != nil {
				t.Fatal(err)
			}
			for _, name := range strings.Fields(cut) {
				if name == "tls" {
					err := os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(whole, name)))
					if err := errors.Join(err, os.Chmod(filepath.Join(dir, name, "ca-key.pem"), 0o600)); err != nil {
						t.Fatal(err)
					}
					continue
				}
				data, err := os.ReadFile(filepath.Join(whole, name))
				if err == nil {
					err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			s := keyturntest.Start(t, keyturntest.WithDataDir(dir))
			create(t, s, "a", "value")
			before, err := server.ReadAdmin(filepath.Join(whole, "admin.json"))
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(cut, "admin.json") && s.Credentials.AccessKeyID != before.AccessKeyID {
				t.Error("an administrator that may have been seen already was replaced")
			}
		})
	}
}

func TestRootKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := keyturntest.Start(t, keyturntest.WithDataDir(dir))
	create(t, s, "a", "value")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	start := func(c server.Config) error {
		c.DataDir, c.ListenHTTP = dir, "127.0.0.1:0"
		node, err := server.New(t.Context(), c)
		if err == nil {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			err = node.Run(ctx)
		}
		return err
	}
	key := filepath.Join(dir, "root.key")
	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	if err := start(server.Config{}); err == nil || !strings.Contains(err.Error(), "restore it from its copy") {
		t.Errorf("without its root key: %v", err)
	}
	if _, err := os.Stat(key); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a new root key was made over a store: %v", err)
	}
	other := filepath.Join(t.TempDir(), "other.key")
	if _, err := (root.File{Path: other}).Load(true); err != nil {
		t.Fatal(err)
	}
	if err := start(server.Config{RootKey: root.File{Path: other}}); err == nil ||
		!strings.Contains(err.Error(), "sealed with another root key") {
		t.Errorf("with another root key: %v", err)
	}
	if err := os.Rename(key+".away", key); err != nil {
		t.Fatal(err)
	}
	if err := start(server.Config{}); err != nil {
		t.Errorf("with the key in its place again: %v", err)
	}
}

func TestSecondServer(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	_, err := server.New(t.Context(), server.Config{DataDir: s.DataDir, ListenHTTP: "127.0.0.1:0"})
	if err == nil || !strings.Contains(err.Error(), "another keyturn uses the audit trail") {
		t.Errorf("a second server in the same directory: %v", err)
	}
}

func TestConfigReportsAll(t *testing.T) {
	t.Parallel()
	err := server.Config{
		Listen:      "nowhere",
		ListenHTTP:  "0.0.0.0:1",
		Region:      "Über",
		TLSCertFile: "x",
		NonceLimit:  -1,
	}.Check()
	for _, want := range []string{"data-dir", "host:port", "loopback", "region", "tls-key-file", "nonce-limit"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not among the mistakes: %v", want, err)
		}
	}
	if err := (server.Config{DataDir: "d", ListenHTTP: "0.0.0.0:1", AllowPlainHTTP: true}).Check(); err != nil {
		t.Errorf("plain HTTP that was asked for: %v", err)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	for _, tt := range []struct {
		version uint16
		ok      bool
	}{{tls.VersionTLS11, false}, {tls.VersionTLS12, true}, {tls.VersionTLS13, true}} {
		conn, err := tls.Dial("tcp", s.Endpoint, &tls.Config{
			RootCAs:    s.RootCAs,
			ServerName: "localhost",
			MinVersion: tls.VersionTLS10,
			MaxVersion: tt.version,
		})
		if (err == nil) != tt.ok {
			t.Errorf("TLS version %x: %v", tt.version, err)
		}
		if err == nil {
			if got := conn.ConnectionState().Version; got != tt.version {
				t.Errorf("version %x, want %x", got, tt.version)
			}
			_ = conn.Close()
		}
	}
	for _, name := range []string{"tls/ca-key.pem", "tls/ca.pem", "root.key"} {
		if info, err := os.Stat(filepath.Join(s.DataDir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", name, info.Mode(), err)
		}
	}
}

func TestOperatorPages(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	create(t, s, "secret-name-marker", "value-marker")
	get := func(path string) (int, string) {
		resp, err := http.Get("http://" + s.HTTPEndpoint + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body := get(path); code != http.StatusOK || body != "ok\n" {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	if _, err := s.Client.PauseRotation(t.Context(), &kms.PauseRotationRequest{}); err != nil {
		t.Fatal(err)
	}
	_, metrics := get("/metrics")
	if !strings.Contains(metrics, "keyturn_rotations_paused{scope=\"all\"} 1\n") {
		t.Error("the metrics do not show that all rotations are paused")
	}
	if !strings.Contains(metrics, `keyturn_requests_total{code="OK",operation="CreateSecret"} 1`) {
		t.Error("the metrics do not count the call")
	}
	if strings.Contains(metrics, "marker") {
		t.Error("a name or a value is in the metrics")
	}
	if code, body := get("/nothing"); code != http.StatusNotFound || !strings.Contains(body, "InvalidAction.NotFound") {
		t.Errorf("an unknown path: %d %s", code, body)
	}
}

// clock is a time that a test moves.
type clock struct{ at chan time.Time }

func newClock(at time.Time) *clock {
	c := &clock{make(chan time.Time, 1)}
	c.at <- at
	return c
}

func (c *clock) Now() time.Time { at := <-c.at; c.at <- at; return at }

func (c *clock) Add(d time.Duration) { c.at <- (<-c.at).Add(d) }

// TestPlannedDeletion verifies that deletion happens at its planned time, also when the server was
// down then.
func TestPlannedDeletion(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), newClock(time.Now())
	start := func() *keyturntest.Server {
		return keyturntest.Start(t, keyturntest.WithDataDir(dir), keyturntest.WithTime(now.Now))
	}
	s := start()
	create(t, s, "a", "value")
	create(t, s, "restored", "value")
	for _, name := range []string{"a", "restored"} {
		if _, err := s.Client.DeleteSecret(t.Context(),
			&kms.DeleteSecretRequest{SecretName: name, RecoveryWindowInDays: 7}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Client.RestoreSecret(t.Context(), &kms.RestoreSecretRequest{SecretName: "restored"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	now.Add(7*24*time.Hour - time.Minute)
	s = start()
	if _, err := s.Client.DescribeSecret(t.Context(), &kms.DescribeSecretRequest{SecretName: "a"}); err != nil {
		t.Errorf("a minute before its time: %v", err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	now.Add(2 * time.Minute)
	s = start()
	if _, err := s.Client.DescribeSecret(t.Context(), &kms.DescribeSecretRequest{SecretName: "a"}); !errors.Is(err,
		kms.ErrResourceNotFound) {
		t.Errorf("a minute after its time: %v", err)
	}
	if _, err := s.Client.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: "restored"}); err != nil {
		t.Errorf("a secret that was restored: %v", err)
	}
	waitFor(t, "the purge in the audit trail", func() bool {
		return strings.Contains(trail(t, dir), `"operation":"PurgeSecret","resource":"acs:kms:local:`)
	})
	create(t, s, "a", "another")
	for line := range strings.Lines(trail(t, dir)) {
		if strings.Contains(line, `"operation":"PurgeSecret"`) && strings.Contains(line, "secret/restored") {
			t.Errorf("a secret that was restored was purged: %s", line)
		}
	}
}

func trail(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	files, err := filepath.Glob(filepath.Join(dir, "audit", "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(data)
	}
	return all.String()
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// TestAuditTrail verifies what the trail says of a change, a read, a refusal and a stranger, and
// that the chain verifies.
func TestAuditTrail(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := keyturntest.Start(t, keyturntest.WithDataDir(dir))
	create(t, s, "a", "value-marker")
	_, _ = s.Client.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: "a"})
	_, _ = s.Client.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: "none"})
	stranger, err := kms.NewClient(kms.Config{
		Endpoint:    "http://" + s.HTTPEndpoint,
		Credentials: s.Credentials,
		MaxAttempts: 1,
		Now:         func() time.Time { return time.Now().Add(-time.Hour) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.ListSecrets(t.Context(),
		&kms.ListSecretsRequest{}); kms.CodeOf(err) != kms.CodeTimestampExpired {
		t.Errorf("a stale request: %v", err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(trail(t, dir)) {
		var r audit.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		got = append(got,
			fmt.Sprintf("%s %s %s %s %s %s", r.Operation, r.Phase, r.Decision, r.Outcome, r.VersionID, r.Principal))
		if own := r.PrincipalType == "System"; r.RequestID == "" || (r.Source != "127.0.0.1") != own {
			t.Errorf("record without request or source: %+v", r)
		}
	}
	root := "acs:ram::" + s.AccountID + ":root"
	want := []string{
		"server.start call  ok  ",
		"CreateSecret intent allow  v1 " + root,
		"CreateSecret outcome allow ok v1 " + root,
		"GetSecretValue call allow ok v1 " + root,
		"GetSecretValue call allow Forbidden.ResourceNotFound  " + root,
		"ListSecrets call deny InvalidTimeStamp.Expired  ",
		"server.stop call  ok  ",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("trail\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if strings.Contains(trail(t, dir), "value-marker") {
		t.Error("a value is in the trail")
	}
	if r, err := audit.Verify(filepath.Join(dir, "audit")); err != nil || r.Records != 7 {
		t.Errorf("Verify: %+v, %v", r, err)
	}
}

// TestUnfinishedRequest verifies that a client that sends nothing more hinders neither other
// clients nor an orderly stop.
func TestUnfinishedRequest(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	conn, err := net.Dial("tcp", s.HTTPEndpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: "+
		"application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nAction="); err != nil {
		t.Fatal(err)
	}
	create(t, s, "a", "value")
	if err := s.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); strings.Contains(line, " 200 ") || err == nil && line == "" {
		t.Errorf("an unfinished request was answered with %q, %v", line, err)
	}
}

// TestSlowClient verifies that a client that takes too long over its request is cut off.
func TestSlowClient(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t, server.Change(func(c *server.Config) { c.RequestTimeout = 200 * time.Millisecond }))
	for name, start := range map[string]string{
		"header": "POST / HTTP/1.1\r\nHost: x\r\n",
		"body": "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: " +
			"100\r\n\r\nAction=",
	} {
		conn, err := net.Dial("tcp", s.HTTPEndpoint)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, start); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if answer, err := io.ReadAll(conn); err != nil || strings.Contains(string(answer), " 200 ") {
			t.Errorf("%s: the server answered %q and did not close: %v", name, answer, err)
		}
	}
}

// TestTooLarge verifies the limits of request line and body: a megabyte fits, more is refused with
// a plain answer.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	post := func(query, body string) (int, string) {
		resp, err := http.Post("http://"+s.HTTPEndpoint+"/?"+query, "application/x-www-form-urlencoded",
			strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answer, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(answer)
	}
	if code, answer := post("a="+strings.Repeat("x", 1<<20-1000), ""); code != http.StatusBadRequest ||
		!strings.Contains(answer, "IncompleteSignature") {
		t.Errorf("a query of nearly 1 MiB: %d %.100s", code, answer)
	}
	if code, _ := post("a="+strings.Repeat("x", 1<<20+8192), ""); code != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a query over 1 MiB: %d", code)
	}
	if code, answer := post("", "a="+strings.Repeat("x", 1<<20-2)); code != http.StatusBadRequest ||
		!strings.Contains(answer, "IncompleteSignature") {
		t.Errorf("a body of 1 MiB: %d %.100s", code, answer)
	}
	if code, answer := post("", "a="+strings.Repeat("x", 1<<20)); code != http.StatusBadRequest ||
		!strings.Contains(answer, "larger than 1 MiB") {
		t.Errorf("a body over 1 MiB: %d %.100s", code, answer)
	}
}

// TestRateLimit verifies the answer to a client over its rate, that the client may call again when
// the answer says so, and that thousands of refusals leave only a few records.
func TestRateLimit(t *testing.T) {
	t.Parallel()
	now := newClock(time.Now())
	s := keyturntest.Start(t, keyturntest.WithTime(now.Now),
		server.Change(func(c *server.Config) { c.Limit.PerKey, c.RefusalRate = 20, 1e6 }))
	client, err := kms.NewClient(kms.Config{
		Endpoint:    "http://" + s.HTTPEndpoint,
		Credentials: s.Credentials,
		MaxAttempts: 1,
		Now:         now.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	const calls = 2000
	var refused *kms.Error
	count := 0
	for range calls {
		_, err := client.DescribeRegions(t.Context(), &kms.DescribeRegionsRequest{})
		if err != nil &&
			(!errors.As(err, &refused) ||
				refused.Code != kms.CodeThrottling ||
				refused.HTTPStatus != http.StatusTooManyRequests) {
			t.Fatalf("over the rate: %v", err)
		} else if err != nil {
			count++
		}
	}
	if count != calls-20 || refused.RetryAfter() != 50*time.Millisecond {
		t.Errorf("%d of %d refused, to come back after %v; want %d after 50ms", count, calls, refused.RetryAfter(), calls-20)
	}
	now.Add(refused.RetryAfter())
	if _, err := client.DescribeRegions(t.Context(), &kms.DescribeRegionsRequest{}); err != nil {
		t.Errorf("after the wait that was asked for: %v", err)
	}
	if n := strings.Count(trail(t, s.DataDir), kms.CodeThrottling); n < 1 || n > 21 {
		t.Errorf("%d records of %d refusals, want 20 at once and one a second", n, count)
	}
}

// TestClockJump verifies that a clock set wrong while the server runs is noticed, before what
// cannot be taken back is done.
func TestClockJump(t *testing.T) {
	t.Parallel()
	now := newClock(time.Now())
	jumps := server.ClockJumps(now.Now)
	for _, step := range []time.Duration{0, time.Minute, 30 * 24 * time.Hour, 0, -30 * 24 * time.Hour} {
		now.Add(step)
		got := jumps()
		if noticed := got != 0; noticed != (step.Abs() > time.Hour) || noticed && (got-step).Abs() > time.Minute {
			t.Errorf("a jump of %v is taken for %v", step, got)
		}
	}
}
