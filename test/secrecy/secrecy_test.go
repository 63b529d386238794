package secrecy_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/sign"
)

func declared(t *testing.T, name string) *operation.Op {
	t.Helper()
	for _, o := range protocol.Operations() {
		if o.Name == name {
			return o
		}
	}
	t.Fatalf("there is no operation %s", name)
	return nil
}

// take makes the calls of steps, each of which has its one right answer, and returns the
// operations and their parameters.
func take(t *testing.T, c *caller, key sign.Credentials, list []step) map[string][]string {
	t.Helper()
	done := map[string][]string{}
	for _, s := range list {
		if code, err := c.call(key, declared(t, s.action), s.params); err != nil || code != s.code {
			t.Errorf("%s %.100q: %q, %v; want %q", s.action, s.params, code, err, s.code)
		}
		done[s.action] = s.params
	}
	return done
}

// readsSecret returns the parameters of an operation that only reads a secret; nil for any other.
func readsSecret(o *operation.Op) []string {
	for _, p := range o.Params() {
		if p.Required && p.Resource == "" {
			return nil
		}
	}
	if o.Mutates || o.Resource != "secret/${SecretName}" {
		return nil
	}
	return []string{"SecretName", "a"}
}

// TestSecrecy drives the real program: every operation, every way to be refused, the command
// line. Then it searches all that was written.
func TestSecrecy(t *testing.T) {
	t.Parallel()
	p := start(t)
	c, admin := newCaller(p.admin.HTTPEndpoint, p.admin.AccountID), p.credentials()
	done := take(t, c, admin, steps())
	for _, o := range protocol.Operations() {
		if params := readsSecret(o); params != nil && done[o.Name] == nil {
			done[o.Name] = take(t, c, admin, []step{{o.Name, "", params}})[o.Name]
		}
	}
	last := last()
	for _, s := range last {
		if _, ok := done[s.action]; !ok {
			done[s.action] = s.params
		}
	}
	refused, denied := 0, 0
	for _, o := range protocol.Operations() {
		params, ok := done[o.Name]
		if !ok {
			t.Errorf("no step calls %s: add one", o.Name)
		}
		for way, request := range c.bad(admin, o, params) {
			r, err := request()
			if err != nil {
				t.Fatal(err)
			}
			code, _, err := c.send(r)
			if err != nil || code == "" {
				t.Errorf("%s with %s: %q, %v; want a refusal", o.Name, way, code, err)
			}
			refused++
		}
		// ann may list secrets, and see herself.
		if code, err := c.call(c.key, o, append(params[:len(params):len(params)], "SecretDate", both)); err != nil {
			t.Error(err)
		} else if code != "" {
			denied++
		}
	}
	strange := http.Header{"Authorization": {marker}, "X-Acs-Security-Token": {both}, "User-Agent": {"agent"}}
	for _, path := range []string{
		"/?SecretData=" + marker, "/" + marker, "/healthz?x=" + marker, "/readyz", "/metrics?" + marker,
	} {
		r, err := http.NewRequest(http.MethodGet, "http://"+c.endpoint+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = strange
		if _, _, err := c.send(r); err != nil {
			t.Error(err)
		}
	}
	cli := commandLine(p)
	take(t, c, admin, last)
	_, metrics := p.page("/metrics")
	key, err := os.ReadFile(filepath.Join(p.data(), "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	p.stop()
	h := haystack{
		"server's output": []byte(p.stdout.String()),
		"server's log":    []byte(p.server.Log.String()),
		"metrics":         []byte(metrics),
		"errors":          []byte(c.errors.String()),
		"commands":        []byte(cli),
	}
	h.walk(t, p.data())
	h.walk(t, filepath.Join(p.dir, "config"))
	c.secrets["the key that a command made"] = profileSecret(t, h["config/profiles.json"], "eve")
	n := h.search(t, needles(t, c, admin, key), map[string][]string{
		"the administrator's key": {"data/admin.json", "config/profiles.json"}, "the root key": {"data/root.key"},
		"the key that a command made": {"config/profiles.json"},
	})
	t.Logf("%d operations, %d requests refused, %d denied; %d bytes in %d places searched for %d secrets",
		len(protocol.Operations()), refused, denied, n, len(h), len(c.secrets)+4)
	if len(done) < len(protocol.Operations()) ||
		refused < 15*len(protocol.Operations()) ||
		denied < len(protocol.Operations())/2 {
		t.Error("too little was tried: the test says little")
	}
}

// needles are all that must be found nowhere else.
func needles(t *testing.T, c *caller, admin sign.Credentials, rootKey []byte) []needle {
	t.Helper()
	list := []needle{
		newNeedle("a value", marker),
		newNeedle("a value with signs", special),
		newNeedle("the administrator's key", admin.AccessKeySecret.Reveal()),
	}
	for what, text := range c.secrets {
		list = append(list, newNeedle(what, text))
	}
	if rootKey != nil {
		_, text, _ := strings.Cut(strings.TrimSpace(string(rootKey)), ":")
		material, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(material) != 32 {
			t.Fatalf("the root key: %d bytes, %v", len(material), err)
		}
		list = append(list, newNeedle("the root key", string(material)))
	}
	return list
}

func profileSecret(t *testing.T, profiles []byte, name string) string {
	t.Helper()
	var file struct {
		Profiles map[string]struct {
			Secret string `json:"access_key_secret"`
		}
	}
	if err := json.Unmarshal(profiles, &file); err != nil || file.Profiles[name].Secret == "" {
		t.Fatalf("profile %s has no secret: %v", name, err)
	}
	return file.Profiles[name].Secret
}

// commandLine runs commands with values, and returns what those have printed that may not print
// one.
func commandLine(p *product) string {
	p.t.Helper()
	var all strings.Builder
	keep := func(stdout, stderr string) { all.WriteString(stdout + stderr) }
	errs := func(_, stderr string) { all.WriteString(stderr) } // the other is a value that was asked for
	file := filepath.Join(p.dir, "value")
	if err := os.WriteFile(file, []byte(both), 0o600); err != nil {
		p.t.Fatal(err)
	}
	keep(p.run(true, "", "profile", "import", filepath.Join(p.data(), "admin.json")))
	keep(p.run(true, both, "secret", "put", "cli", "--version-id", "v1"))
	keep(p.run(false, both+"another", "secret", "put", "cli", "--version-id", "v1"))
	keep(p.run(false, strings.Repeat(both, 2000), "secret", "put", "cli"))
	keep(p.run(false, both, "secret", "put", "cli", "--colour", "red"))
	keep(p.run(false, both, "secret", "put", "bad name", "--version-id", "v1"))
	keep(p.run(false, both, "secret", "put", "other", "--endpoint", "127.0.0.1:1"))
	keep(p.run(true, "", "kms", "PutSecretValue", "--SecretName", "cli", "--VersionId", "v2", "--SecretData", both))
	keep(p.run(true, "", "kms", "PutSecretValue", "--SecretName", "cli", "--VersionId", "v3", "--SecretData-FILE", file))
	keep(p.run(false, "", "kms", "PutSecretValue", "--SecretName", "cli", "--VersionId", "v3", "--SecretData", marker))
	keep(p.run(false, "", "kms", "PutSecretValue", "--SecretName", "none", "--VersionId", "v3", "--SecretData", both))
	keep(p.run(false, "", "kms", "PutSecretValue", "--SecretName", "cli", "--VersionId", "v4", "--SecretDate", both))
	keep(p.run(false, "", "kms", "PutSecretValue", "--SecretName", "cli", "--SecretData", both))
	keep(p.run(false, "", "kms", "PutSecretValue", "--SecretName", "cli", "--SecretData", both, "--SecretData", marker))
	errs(p.run(true, "", "secret", "get", "cli"))
	errs(p.run(true, "", "kms", "GetSecretValue", "--SecretName", "cli"))
	keep(p.run(true, "", "secret", "get", "cli", "--file", "out"))
	keep(p.run(false, "", "secret", "get", "cli", "--file", "out"))
	keep(p.run(true, "", "secret", "show", "cli"))
	keep(p.run(true, "", "secret", "versions", "cli"))
	keep(p.run(true, "", "user", "create", "eve"))
	keep(p.run(true, "", "user", "key", "create", "eve", "--profile-name", "eve"))
	keep(p.run(true, "", "user", "key", "list", "eve"))
	keep(p.run(false, "", "secret", "get", "cli", "--profile", "eve"))
	keep(p.run(true, "", "profile", "list"))
	keep(p.run(true, "", "audit", "verify", filepath.Join(p.data(), "audit")))
	return all.String()
}
