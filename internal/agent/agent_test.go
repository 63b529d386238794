package agent

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/api/rpc"
	"github.com/keyturn/keyturn/internal/auth"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
	"github.com/keyturn/keyturn/test/support"
)

// site is a server, and a directory for an agent of it.
type site struct {
	server *keyturntest.Server
	dir    string
	client *http.Client
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{server: keyturntest.Start(t), dir: t.TempDir(), client: &http.Client{Timeout: 20 * time.Second}}
	t.Cleanup(s.client.CloseIdleConnections)
	c := s.server.Credentials
	write(t, s.dir+"/key.json",
		fmt.Sprintf(`{"AccessKeyId": %q, "AccessKeySecret": %q}`, c.AccessKeyID, c.AccessKeySecret.Reveal()))
	s.put(t, "db", "v1", `{"User":"app","Password":"marker-one"}`)
	return s
}

func (s *site) put(t *testing.T, name, version, data string) {
	t.Helper()
	_, err := s.server.Client.PutSecretValue(t.Context(), &kms.PutSecretValueRequest{
		SecretName: name,
		VersionID:  version,
		SecretData: sensitive.New(data),
	})
	if errors.Is(err, kms.ErrResourceNotFound) {
		_, err = s.server.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
			SecretName: name,
			VersionID:  version,
			SecretData: sensitive.New(data),
		})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// config writes the agent's file; more is added to what every one here has.
func (s *site) config(t *testing.T, more string) string {
	t.Helper()
	return write(t, s.dir+"/agent.yaml", strings.ReplaceAll(fmt.Sprintf(`
endpoint: %s
ca_file: %s
access_key: {file: DIR/key.json}
status: {listen: "127.0.0.1:0"}
%s`, s.server.Endpoint, s.server.CAFile, more), "DIR", s.dir))
}

// running is an agent under way.
type running struct {
	at     map[string]string // role -> address
	reload chan os.Signal
	log    *support.Log
	stop   func() error
}

func (s *site) run(t *testing.T, config string) *running {
	t.Helper()
	r := &running{reload: make(chan os.Signal), log: &support.Log{}}
	ctx, cancel := context.WithCancel(context.Background())
	serving, done := make(chan map[string]string, 1), make(chan error, 1)
	go func() {
		done <- Run(ctx, Options{
			Path: config, Reload: r.reload, UserAgent: "test",
			Logger: func(Log) *slog.Logger {
				return slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			},
			Door: func(g *Gate, a *auth.Authenticator, log *slog.Logger) http.Handler {
				return &rpc.Door{Gate: g, Auth: a, Log: log}
			},
			Serving: func(at map[string]string) { serving <- at },
		})
	}()
	var result error
	stopped := false
	r.stop = func() error {
		if !stopped {
			stopped = true
			cancel()
			s.client.CloseIdleConnections()
			result = <-done
		}
		return result
	}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("the agent ended with %v", err)
		}
		if strings.Contains(r.log.String(), "marker") {
			t.Errorf("the log shows a value:\n%s", r.log)
		}
	})
	select {
	case r.at = <-serving:
	case err := <-done:
		t.Fatalf("the agent does not start: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatal("the agent does not start")
	}
	return r
}

// wire is a client of the agent's wire API.
func (s *site) wire(t *testing.T, r *running) *kms.Client {
	t.Helper()
	c, err := kms.NewClient(kms.Config{
		Endpoint:    "http://" + r.at["kms"],
		Credentials: s.server.Credentials,
		HTTPClient:  s.client,
		MaxAttempts: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *site) get(t *testing.T, url string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.client.Do(req)
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

func (s *site) report(t *testing.T, r *running) Report {
	t.Helper()
	_, body := s.get(t, "http://"+r.at["status"]+"/status.json")
	var out Report
	if err := json.Unmarshal([]byte(body), &out); err != nil {
		t.Fatalf("report %q: %v", body, err)
	}
	return out
}

func current(t *testing.T, c *kms.Client, name string) string {
	t.Helper()
	got, err := c.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: name})
	if err != nil {
		return err.Error()
	}
	return got.VersionID + " " + got.SecretData.Reveal()
}

// TestOutage is the life of an agent: it gives a value on in every way, follows a change, and gives
// on what it knows while the server is away, after a start of its own too.
func TestOutage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	config := s.config(t, `
files:
  - path: DIR/app.env
    template: 'P={{ member "db" "Password" | env }}'
http: {socket: DIR/sock, token_file: DIR/token}
kms: {listen: "127.0.0.1:0", any_secret: true}
last_good: {dir: DIR/last, key: {file: DIR/seal.key}}
`)
	r := s.run(t, config)
	await(t, func() bool { return read(t, s.dir+"/app.env") == "P=marker-one" })
	c := s.wire(t, r)
	if got := current(t, c, "db"); got != `v1 {"User":"app","Password":"marker-one"}` {
		t.Errorf("by the wire API: %s", got)
	}
	s.put(t, "db", "v2", `{"User":"app","Password":"marker-two"}`)
	await(t, func() bool { return read(t, s.dir+"/app.env") == "P=marker-two" })
	if got := current(t, c, "db"); !strings.HasPrefix(got, "v2 ") {
		t.Errorf("by the wire API after the change: %s", got)
	}
	previous, err := c.GetSecretValue(t.Context(),
		&kms.GetSecretValueRequest{SecretName: "db", VersionStage: kms.StagePrevious})
	if err != nil || previous.VersionID != "v1" {
		t.Errorf("the version before, passed on: %+v, %v", previous, err)
	}
	// The agent reports the version to the server once the file has it.
	await(t, func() bool {
		users, err := s.server.Client.ListSecretConsumers(t.Context(), &kms.ListSecretConsumersRequest{SecretName: "db"})
		return err == nil && len(users.Consumers) > 0 && users.Consumers[0].VersionID == "v2" && !users.Consumers[0].Behind
	})

	if err := s.server.Stop(); err != nil {
		t.Fatal(err)
	}
	if got := current(t, c, "db"); !strings.HasPrefix(got, "v2 ") {
		t.Errorf("while the server is away: %s", got)
	}
	// The agent also answers for a version by its ID if it has that version, and for no other.
	byID := &kms.GetSecretValueRequest{SecretName: "db", VersionID: "v2"}
	if got, err := c.GetSecretValue(t.Context(), byID); err != nil || got.VersionID != "v2" {
		t.Errorf("the held version by its name: %v", err)
	}
	for name, in := range map[string]*kms.GetSecretValueRequest{
		"another stage":   {SecretName: "db", VersionStage: kms.StagePrevious},
		"another version": {SecretName: "db", VersionID: "v1"},
		"another secret":  {SecretName: "other"},
	} {
		if _, err := c.GetSecretValue(t.Context(), in); !errors.Is(err, kms.ErrUnavailable) {
			t.Errorf("%s: %v, want that the server is away", name, err)
		}
	}

	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.dir + "/app.env"); err != nil {
		t.Fatal(err)
	}
	r = s.run(t, config)
	if got := current(t, s.wire(t, r), "db"); got != `v2 {"User":"app","Password":"marker-two"}` {
		t.Errorf("after a start while the server is away: %s", got)
	}
	await(t, func() bool { return read(t, s.dir+"/app.env") == "P=marker-two" })
	report := s.report(t, r)
	if report.NotReady == "" || report.Secrets[0].Source != "disk" {
		t.Errorf("report %+v, want one that is not ready, from the disk", report)
	}
	if list(t, s.dir+"/last") == "" ||
		strings.Contains(read(t, s.dir+"/last/"+strings.Fields(list(t, s.dir+"/last"))[0]), "marker") {
		t.Error("the last known value is not sealed")
	}
}

// TestWire verifies that the wire API takes every version of the signature, passes reads on and
// refuses changes and strangers.
func TestWire(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := s.run(t, s.config(t, `
secrets: [db, nothing]
kms: {listen: "127.0.0.1:0"}
`))
	c := s.wire(t, r)
	described, err := c.DescribeSecret(t.Context(), &kms.DescribeSecretRequest{SecretName: "db"})
	if err != nil || described.SecretName != "db" || described.ARN == "" {
		t.Errorf("DescribeSecret, passed on: %+v, %v", described, err)
	}
	_, err = c.DescribeSecret(t.Context(), &kms.DescribeSecretRequest{SecretName: "nothing"})
	var said *kms.Error
	if !errors.As(err, &said) || said.HTTPStatus != 404 || said.Code != kms.CodeResourceNotFound || said.RequestID == "" {
		t.Errorf("what the server refuses: %v", err)
	}
	_, err = c.PutSecretValue(t.Context(), &kms.PutSecretValueRequest{
		SecretName: "db",
		VersionID:  "v9",
		SecretData: sensitive.New("marker"),
	})
	if !errors.As(err, &said) ||
		said.Code != kms.CodeUnsupportedOperation ||
		!strings.Contains(said.Message, "Send PutSecretValue to the server itself, https://"+s.server.Endpoint) {
		t.Errorf("a change: %v", err)
	}
	if _, err := c.Do(t.Context(), kms.Call{Action: "Frobnicate"}); kms.CodeOf(err) != kms.CodeActionNotFound {
		t.Errorf("an unknown operation: %v", err)
	}
	if who, err := c.GetCallerIdentity(t.Context(), &kms.GetCallerIdentityRequest{}); err != nil ||
		who.AccountID != s.server.AccountID {
		t.Errorf("GetCallerIdentity, passed on: %+v, %v", who, err)
	}
	if _, err := c.GetSecretValue(t.Context(),
		&kms.GetSecretValueRequest{SecretName: "db", DryRun: true}); kms.CodeOf(err) != kms.CodeDryRunOperation {
		t.Errorf("a dry run: %v", err)
	}

	body, err := c.Do(t.Context(), kms.Call{
		Action: "GetSecretValue",
		Params: sign.Params{{Name: "SecretName", Value: "db"}},
		Accept: "application/xml",
	})
	if err != nil ||
		!strings.Contains(string(body), "<SecretData>{&#34;User&#34;") &&
			!strings.Contains(string(body), "marker-one") {
		t.Errorf("as XML: %s, %v", body, err)
	}

	// Signature version 1, as the official CLI and older SDKs send it.
	params, err := s.server.Credentials.SignV1(http.MethodGet, sign.Params{
		{Name: "Action", Value: "GetSecretValue"},
		{Name: "Version", Value: kms.Version},
		{Name: "Format", Value: "JSON"},
		{Name: "SecretName", Value: "db"},
	}, time.Now(), rand.Text())
	if err != nil {
		t.Fatal(err)
	}
	query := url.Values{}
	for _, p := range params {
		query.Set(p.Name, p.Value)
	}
	if status, body := s.get(t, "http://"+r.at["kms"]+"/?"+query.Encode()); status != 200 ||
		!strings.Contains(body, "marker-one") {
		t.Errorf("signature version 1: %d %s", status, body)
	}
	if status, body := s.get(t, "http://"+r.at["kms"]+"/?"+query.Encode()); status != 400 ||
		strings.Contains(body, "marker") {
		t.Errorf("the same request again: %d %s, want a refusal", status, body)
	}
	// Version 4.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+r.at["kms"]+"/?SecretName=db", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.server.Credentials.SignHTTP(req, sign.Call{
		Scheme:  sign.ACS4,
		Region:  "local",
		Action:  "GetSecretValue",
		Version: kms.Version,
		Time:    time.Now(),
		Nonce:   rand.Text(),
	}); err != nil {
		t.Fatal(err)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || !strings.Contains(string(body), "marker-one") {
		t.Errorf("signature version 4: %d %s", resp.StatusCode, body)
	}

	for name, credentials := range map[string]sign.Credentials{
		"another key":    {AccessKeyID: "KTother", AccessKeySecret: s.server.Credentials.AccessKeySecret},
		"another secret": {AccessKeyID: s.server.Credentials.AccessKeyID, AccessKeySecret: sensitive.New("other")},
	} {
		stranger, err := kms.NewClient(kms.Config{
			Endpoint:    "http://" + r.at["kms"],
			Credentials: credentials,
			HTTPClient:  s.client,
			MaxAttempts: 1,
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := current(t, stranger, "db"); strings.Contains(got, "marker") || !strings.Contains(got, "not ") {
			t.Errorf("%s: %s, want a refusal", name, got)
		}
	}
	status, answer := s.get(t, "http://"+r.at["kms"]+"/?Action=GetSecretValue&SecretName=db&Version="+kms.Version)
	if status != 400 || strings.Contains(answer, "marker") {
		t.Errorf("without a signature: %d %s", status, answer)
	}
}

// TestStatus verifies that the page, the report and the metrics show what an operator needs, and
// no value.
func TestStatus(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := s.run(t, s.config(t, `
secrets: [nothing]
files: [{path: DIR/app.env, template: '{{ secret "db" }}'}]
`))
	await(t, func() bool { now := s.report(t, r); return !now.Files[0].RenderedAt.IsZero() && len(now.Secrets) == 2 })
	base := "http://" + r.at["status"]
	for path, want := range map[string][]string{
		"/": {"Not ready", "<td>db</td>", ">fresh</td>", "<td>v1</td>", "<td>nothing</td>", s.dir + "/app.env",
			"db v1"},
		"/status.json": {`"name": "db"`, `"version": "v1"`, `"config": "` + s.dir},
		"/metrics": {
			`keyturn_consumer_secret_version_info{secret="db",source="server",version="v1"} 1`,
			`keyturn_consumer_secret_state{secret="db",state="fresh"} 1`,
			`keyturn_consumer_secret_age_seconds{secret="db"}`,
			`keyturn_consumer_secret_push{secret="db"}`,
			`keyturn_agent_file_ok{path="` + s.dir + `/app.env"} 1`,
			"keyturn_agent_ready 0",
			"keyturn_agent_config_ok 1",
		},
	} {
		status, body := s.get(t, base+path)
		for _, text := range want {
			if !strings.Contains(body, text) {
				t.Errorf("%s: %d without %q:\n%s", path, status, text, body)
			}
		}
		if strings.Contains(body, "marker") || strings.Contains(body, s.server.Credentials.AccessKeySecret.Reveal()) {
			t.Errorf("%s shows a value", path)
		}
	}
	if status, _ := s.get(t, base+"/healthz"); status != 200 {
		t.Errorf("healthz %d", status)
	}
	if status, body := s.get(t, base+"/readyz"); status != 503 || !strings.Contains(body, "nothing") {
		t.Errorf("readyz %d %s", status, body)
	}
	if status, _ := s.get(t, base+"/", "X-Forwarded-For", "192.0.2.1"); status != 403 {
		t.Errorf("a forwarded request: %d, want 403", status)
	}
}

// TestReload verifies that a changed file is put in force as a whole, that a bad one changes
// nothing and is reported, and that what stays the same is not interrupted.
func TestReload(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	one := `
files: [{path: DIR/one, template: '{{ member "db" "User" }}'}]
http: {listen: "127.0.0.1:0", token_file: DIR/token}
`
	r := s.run(t, s.config(t, one))
	await(t, func() bool { return read(t, s.dir+"/one") == "app" })
	reload := func() { r.reload <- syscall.SIGHUP }

	s.config(t, one+"colour: blue\n")
	reload()
	await(t, func() bool { return strings.Contains(s.report(t, r).ConfigError, "colour: unknown setting") })
	if status, _ := s.get(t, "http://"+r.at["http"]+"/readyz"); status != 200 {
		t.Errorf("readyz %d after a bad file, want what was before", status)
	}

	s.put(t, "key", "v1", "marker-key")
	s.config(t, strings.Replace(one, "User", "Password", 1)+"secrets: key\n")
	reload()
	await(t, func() bool { return read(t, s.dir+"/one") == "marker-one" && s.report(t, r).ConfigError == "" })
	token := strings.TrimSpace(read(t, s.dir+"/token"))
	if status, body := s.get(t, "http://"+r.at["http"]+"/v1/secrets/key/value", TokenHeader, token); status != 200 ||
		body != "marker-key" {
		t.Errorf("a secret that was added: %d %q", status, body)
	}
	if status, body := s.get(t, "http://"+r.at["http"]+"/readyz"); status != 200 {
		t.Errorf("readyz %d %s", status, body)
	}

	// A configuration that would lose a value is not put in force: here, an access key that the server
	// does not know.
	good := read(t, s.dir+"/key.json")
	write(t, s.dir+"/key.json", accessKey)
	reload()
	await(t, func() bool { return strings.Contains(s.report(t, r).ConfigError, "a value would be lost") })
	if status, body := s.get(t, "http://"+r.at["http"]+"/v1/secrets/key/value", TokenHeader, token); status != 200 ||
		body != "marker-key" {
		t.Errorf("with the key from before: %d %q", status, body)
	}
	write(t, s.dir+"/key.json", good)
	reload()
	await(t, func() bool { return s.report(t, r).ConfigError == "" })

	// A listener moves; a file that the configuration no longer has stays as it is.
	s.config(t, "secrets: [db, key]\nhttp: {socket: DIR/sock, token_file: DIR/token}\n")
	reload()
	await(t, func() bool { return s.report(t, r).Serves["http"] == filepath.Join(s.dir, "sock") })
	if read(t, s.dir+"/one") != "marker-one" {
		t.Error("a file that the configuration no longer has was touched")
	}
	mode := func() os.FileMode {
		info, err := os.Stat(s.dir + "/sock")
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	if mode() != 0o600 {
		t.Errorf("the socket has mode %v", mode())
	}
	s.config(t, "secrets: [db, key]\nhttp: {socket: DIR/sock, socket_mode: \"0660\", token_file: DIR/token}\n")
	reload()
	await(t, func() bool { return mode() == 0o660 })
}

// TestWireServesNamedSecretsOnly verifies that a program which may use the agent's wire API gets no
// secret that the configuration does not name, although the agent's access key may read it, and
// that a browser or a proxy gets nothing.
func TestWireServesNamedSecretsOnly(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if _, err := s.server.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: "other",
		VersionID:  "v1",
		SecretData: sensitive.New("other-marker"),
	}); err != nil {
		t.Fatal(err)
	}
	arn := "acs:kms:local:" + s.server.AccountID + ":secret/other"
	named, all := s.run(t, s.config(t, "\nsecrets: db\nkms: {listen: \"127.0.0.1:0\"}\n")), s.run(t,
		s.config(t, "\nkms: {listen: \"127.0.0.1:0\", any_secret: true}\n"))
	for name, r := range map[string]*running{"named": named, "any": all} {
		c := s.wire(t, r)
		for _, secret := range []string{"other", arn} {
			_, current := c.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: secret})
			_, version := c.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: secret, VersionID: "v1"})
			_, described := c.DescribeSecret(t.Context(), &kms.DescribeSecretRequest{SecretName: secret})
			for call, err := range map[string]error{"current": current, "version": version, "describe": described} {
				if r == named &&
					(err == nil || !strings.Contains(err.Error(), "does not name the secret")) ||
					r == all &&
						err != nil {
					t.Errorf("%s: %s of %s: %v", name, call, secret, err)
				}
			}
		}
		if _, err := c.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: "db"}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for header, value := range map[string]string{"Host": "attacker.example", "Origin": "http://127.0.0.1",
		"X-Forwarded-For": "127.0.0.1", "Sec-Fetch-Site": "cross-site"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
			"http://"+named.at["kms"]+"/?Action=GetSecretValue", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(header, value)
		if header == "Host" {
			req.Host = value
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s: status %d", header, value, resp.StatusCode)
		}
	}
}
