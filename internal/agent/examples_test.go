package agent

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/knadh/koanf/parsers/yaml"
)

// here puts the directories that an example names into one of the test's, with what is in them.
func here(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"/etc/keyturn-agent", "/var/lib/keyturn-agent", "/run/keyturn-agent",
		"/run/app-secrets"} {
		if err := os.MkdirAll(dir+name, 0o700); err != nil {
			t.Fatal(err)
		}
		text = strings.ReplaceAll(text, name+"/", dir+name+"/")
	}
	server := newSite(t)
	write(t, dir+"/etc/keyturn-agent/ca.pem", read(t, server.server.CAFile))
	return text
}

// TestExampleConfigurations verifies that the examples are configurations as --check takes them.
func TestExampleConfigurations(t *testing.T) {
	t.Parallel()
	plain := read(t, "../../examples/agent/agent.yaml")
	for name, text := range map[string]string{"agent.yaml": plain, "kubernetes-sidecar.yaml": sidecar(t)} {
		text = here(t, text)
		warnings, err := Check(write(t, filepath.Join(t.TempDir(), name), text))
		if err != nil || len(warnings) > 0 {
			t.Errorf("%s: %v, %v", name, warnings, err)
		}
		if _, err := parseConfig(name, []byte(strings.Replace(text, "endpoint:", "end_point:", 1))); err == nil {
			t.Errorf("%s with a mistake passes", name)
		}
	}
}

// sidecar is the agent's configuration in the example for Kubernetes; it holds on the way that the
// example is YAML.
func sidecar(t *testing.T) string {
	t.Helper()
	config, kinds := "", ""
	for document := range strings.SplitSeq(read(t, "../../examples/agent/kubernetes-sidecar.yaml"), "\n---\n") {
		object, err := yaml.Parser().Unmarshal([]byte(document))
		if err != nil {
			t.Fatal(err)
		}
		kinds += fmt.Sprint(object["kind"], " ")
		if data, ok := object["data"].(map[string]any); ok {
			config, _ = data["agent.yaml"].(string)
		}
	}
	if kinds != "ConfigMap Secret Deployment " || config == "" {
		t.Fatalf("the example holds %s", kinds)
	}
	return config
}

// TestExampleUnit has systemd check the example of a unit.
func TestExampleUnit(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("systemd-analyze"); errors.Is(err, exec.ErrNotFound) {
		t.Skip("this machine has no systemd-analyze")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	unit := strings.ReplaceAll(read(t, "../../examples/agent/keyturn-agent.service"), "/usr/local/bin/keyturn", self)
	check := func(text string) (string, error) {
		out, err := exec.Command("systemd-analyze", "verify", "--man=no",
			write(t, filepath.Join(t.TempDir(), "keyturn-agent.service"), text)).CombinedOutput()
		return string(out), err
	}
	if out, err := check(unit); err != nil || strings.Contains(out, "keyturn-agent.service") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	if out, _ := check(strings.Replace(unit, "RestartSec=2s", "RestartSec=two", 1)); !strings.Contains(out,
		"keyturn-agent.service") {
		t.Errorf("a unit with a mistake passes: %s", out)
	}
}
