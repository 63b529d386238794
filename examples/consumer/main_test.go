package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// TestExample verifies that the program prints the current version and the next one.
func TestExample(t *testing.T) {
	s := keyturntest.Start(t)
	t.Setenv("KEYTURN_ENDPOINT", s.Endpoint)
	t.Setenv("KEYTURN_CA_FILE", s.CAFile)
	t.Setenv("KEYTURN_ACCESS_KEY_ID", s.Credentials.AccessKeyID)
	t.Setenv("KEYTURN_ACCESS_KEY_SECRET", s.Credentials.AccessKeySecret.Reveal())
	if _, err := s.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: "app/db",
		VersionID:  "v1",
		SecretData: sensitive.New(`{"user":"app","password":"first"}`),
	}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	in, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, out, "app/db")
		out.CloseWithError(io.EOF)
		done <- err
	}()
	lines := bufio.NewScanner(in)
	expect := func(want string) {
		t.Helper()
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("printed %q, want %q", lines.Text(), want)
		}
	}
	expect("version v1: a password of 5 bytes, [redacted]")
	if _, err := s.Client.PutSecretValue(t.Context(), &kms.PutSecretValueRequest{
		SecretName: "app/db",
		VersionID:  "v2",
		SecretData: sensitive.New(`{"user":"app","password":"second"}`),
	}); err != nil {
		t.Fatal(err)
	}
	expect("version v2: a password of 6 bytes, [redacted]")
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestDocument verifies that the document shows this program.
func TestDocument(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/consumer.md")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ := strings.Cut(string(program), "package main\n")
	if !strings.Contains(string(page), "```go\npackage main\n"+code+"```\n") {
		t.Error("docs/consumer.md does not show examples/consumer/main.go")
	}
}
