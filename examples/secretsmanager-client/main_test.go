package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// TestExample: the example reads a value, and refuses a server whose certificate is of another CA.
func TestExample(t *testing.T) {
	t.Parallel()
	s, other := keyturntest.Start(t), keyturntest.Start(t)
	_, err := s.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: "app/db",
		VersionID:  "v1",
		SecretData: sensitive.New("a value"),
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.DataDir, "admin.json")
	if got, err := run(file, "app/db"); err != nil || got != "a value" {
		t.Errorf("the example reads %d bytes, %v", len(got), err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var admin map[string]string
	if err := json.Unmarshal(data, &admin); err != nil {
		t.Fatal(err)
	}
	admin["ca_file"] = other.CAFile
	wrong := filepath.Join(t.TempDir(), "admin.json")
	if data, err = json.Marshal(admin); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(wrong, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := run(wrong, "app/db"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("with another CA: %v; want a refused certificate", err)
	}
}

// TestPage: the page for Go shows the code of this example as it is.
func TestPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/clients/go.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(page), "```go verified\n")
	block, _, ok := strings.Cut(after, "\n```")
	if !ok || !strings.Contains(string(source), block) || !strings.Contains(block, "func (v *verified) GetSecretValue") {
		t.Error("docs/clients/go.md does not show what main.go has")
	}
}
