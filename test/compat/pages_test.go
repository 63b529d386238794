package compat_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/agents"
)

const pageTimeout = time.Minute

// example is a block of a page in docs/clients: what stands behind the name of its language.
func example(t *testing.T, page, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "clients", page))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(string(text), "\n```")[1:] {
		info, block, _ := strings.Cut(part, "\n")
		if _, have, _ := strings.Cut(info, " "); have == name {
			return block + "\n"
		}
	}
	t.Fatalf("%s has no block %s", page, name)
	return ""
}

// bench is a server with the secret that the pages read, and an agent of it.
type bench struct {
	server *keyturntest.Server
	agent  *agents.Agent
	dir    string
}

func newBench(t *testing.T, tools ...string) *bench {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed, so this page is not tested", tool)
		}
	}
	b := &bench{server: keyturntest.Start(t), dir: t.TempDir()}
	_, err := b.server.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: "app/db",
		VersionID:  "v1",
		SecretData: sensitive.New("a value"),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.agent = agents.Start(t, b.server, "app/db")
	return b
}

// file writes a block of a page.
func (b *bench) file(t *testing.T, page, name string) string {
	t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.WriteFile(path, []byte(example(t, page, name)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// run runs a program as a page says, and returns what it writes. more are variables on top of those that the pages name.
func (b *bench) run(t *testing.T, endpoint string, more []string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), pageTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(),
		"KEYTURN_ENDPOINT="+endpoint, "KEYTURN_ACCESS_KEY_ID="+b.server.Credentials.AccessKeyID,
		"KEYTURN_ACCESS_KEY_SECRET="+b.server.Credentials.AccessKeySecret.Reveal(),
		"KEYTURN_AGENT=http://"+b.agent.HTTP, "KEYTURN_TOKEN_FILE="+b.agent.TokenFile,
	)
	cmd.Env = append(cmd.Env, more...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// writes holds what a program writes.
func (b *bench) writes(t *testing.T, want, endpoint string, more []string, args ...string) {
	t.Helper()
	if out, err := b.run(t, endpoint, more, args...); err != nil || !strings.HasSuffix(out, want+"\n") {
		t.Errorf("%s: %v, %q; want %q", filepath.Base(args[len(args)-1]), err, out, want)
	}
}

// TestNodePage runs the code of docs/clients/node.md against a server and against an agent, which goes on while the server is away.
func TestNodePage(t *testing.T) {
	t.Parallel()
	b := newBench(t, "node", "npm")
	install(t)
	modules, err := filepath.Abs("node/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	read := b.file(t, "node.md", "read.js")
	consumers := b.file(t, "node.md", "consumers.js")
	agent := b.file(t, "node.md", "agent.js")
	trust := func(ca string) []string { return []string{"NODE_PATH=" + modules, "NODE_EXTRA_CA_CERTS=" + ca} }

	b.writes(t, "v1 7 characters", b.server.Endpoint, trust(b.server.CAFile), "node", read)
	b.writes(t, "v1 7 characters", b.agent.KMS, trust(b.agent.CAFile), "node", read)
	if out, err := b.run(t, b.server.Endpoint, trust(b.agent.CAFile), "node", read); err == nil ||
		!strings.Contains(out, "certificate") {
		t.Errorf("read.js with another CA: %v, %q; want a refused certificate", err, out)
	}
	out, err := b.run(t, b.server.Endpoint, trust(b.server.CAFile), "node", consumers)
	if err != nil || !strings.HasSuffix(out, " v1\n") || strings.Contains(out, "undefined") {
		t.Errorf("consumers.js: %v, %q; want the agent, which has v1", err, out)
	}
	if err := b.server.Stop(); err != nil {
		t.Fatal(err)
	}
	b.writes(t, "v1 7 characters", b.agent.KMS, trust(b.agent.CAFile), "node", read)
	b.writes(t, "v1 7 characters", "", nil, "node", agent)
}

// TestPythonPage runs the code of docs/clients/python.md that needs no package.
func TestPythonPage(t *testing.T) {
	t.Parallel()
	b := newBench(t, "python3")
	file := b.file(t, "python.md", "agent.py")
	b.writes(t, "v1 7 characters", "", []string{"http_proxy=http://127.0.0.1:9"}, "python3", file)
	if err := b.server.Stop(); err != nil {
		t.Fatal(err)
	}
	b.writes(t, "v1 7 characters", "", nil, "python3", file)
	other := filepath.Join(b.dir, "other")
	if err := os.WriteFile(other, []byte(strings.Repeat("x", 40)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := b.run(t, "", []string{"KEYTURN_TOKEN_FILE=" + other}, "python3", file); err == nil ||
		!strings.Contains(out, "secret app/db: 401 ") {
		t.Errorf("with another token: %v, %q; want status 401", err, out)
	}
}

// TestJavaPage runs the code of docs/clients/java.md that needs no package, and has a JVM trust the local CA as the page says.
func TestJavaPage(t *testing.T) {
	t.Parallel()
	b := newBench(t, "java", "javac", "keytool", "sh")
	file := b.file(t, "java.md", "Agent.java")
	b.writes(t, "7 characters", "", nil, "java", file)

	const trying = `public class Try { public static void main(String[] args) throws Exception {
		System.out.println(((javax.net.ssl.HttpsURLConnection) new java.net.URL(args[0]).openConnection()).getResponseCode());
	} }`
	for name, text := range map[string]string{
		"Try.java": trying,
		"trust.sh": example(t, "java.md", "trust") + "java Try.java \"$1\"\n",
	} {
		if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ca, err := os.ReadFile(b.server.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "ca.pem"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	url := "https://" + b.server.Endpoint + "/healthz"
	b.writes(t, "200", "", nil, "sh", "-e", "trust.sh", url)
	if out, err := b.run(t, "", nil, "java", "Try.java", url); err == nil || !strings.Contains(out, "PKIX") {
		t.Errorf("without the trust store: %v, %q; want a refused certificate", err, out)
	}
}
