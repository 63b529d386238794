package main

import (
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
)

// TestExample runs what the README shows, twice: the secret exists the second time.
func TestExample(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	for range 2 {
		if err := run(filepath.Join(s.DataDir, "admin.json")); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Client.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: "example/sdk"})
	if err != nil || got.SecretData.Reveal() != "from the SDK" {
		t.Errorf("what the example stored: %+v, %v", got, err)
	}
}
