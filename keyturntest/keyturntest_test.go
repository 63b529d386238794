package keyturntest_test

import (
	"errors"
	"testing"

	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

func TestStart(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	ctx := t.Context()
	if _, err := s.Client.CreateSecret(ctx, &kms.CreateSecretRequest{
		SecretName: "app/db",
		VersionID:  "v1",
		SecretData: sensitive.New("first"),
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Client.PutSecretValue(ctx, &kms.PutSecretValueRequest{
		SecretName: "app/db",
		VersionID:  "v2",
		SecretData: sensitive.New("second"),
	}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Client.GetSecretValue(ctx, &kms.GetSecretValueRequest{SecretName: "app/db"})
	if err != nil || got.SecretData.Reveal() != "second" || got.VersionID != "v2" {
		t.Errorf("GetSecretValue = %+v, %v; want version v2", got, err)
	}
	if _, err := s.Client.GetSecretValue(ctx,
		&kms.GetSecretValueRequest{SecretName: "none"}); !errors.Is(err, kms.ErrResourceNotFound) {
		t.Errorf("GetSecretValue of a secret that is not there: %v; want %v", err, kms.ErrResourceNotFound)
	}
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		if err := keyturntest.Start(b).Stop(); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleStart() {
	_ = func(t *testing.T) {
		s := keyturntest.Start(t) // stopped when the test ends
		_, err := s.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
			SecretName: "app/db", VersionID: "v1", SecretData: sensitive.New("s3cret"),
		})
		if err != nil {
			t.Fatal(err)
		}
		// Point the code under test at s.Endpoint (TLS, s.CAFile) or s.HTTPEndpoint, with
		// s.Credentials.
	}
}
