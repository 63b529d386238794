package server_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// TestQuota fills a small store to its quota: changes are refused with a code and a reason, reads
// and deletions go on, what was acknowledged is there, and with room made the same process takes
// changes again.
func TestQuota(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t, server.Change(func(c *server.Config) { c.StoreQuota, c.StoreReserve = 3, -1 }))
	client, err := kms.NewClient(kms.Config{
		Endpoint:    "http://" + s.HTTPEndpoint,
		Credentials: s.Credentials,
		MaxAttempts: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	value := func(i int) string { return fmt.Sprint(i, strings.Repeat("x", 30_000)) }
	create := func(i int) error {
		_, err := client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
			SecretName: fmt.Sprint("s", i),
			VersionID:  "v1",
			SecretData: sensitive.New(value(i)),
		})
		return err
	}
	made := 0
	for err = create(made); err == nil && made < 1000; err = create(made) {
		made++
	}
	if kms.CodeOf(err) != kms.CodeUnavailable || made < 10 {
		t.Fatalf("after %d secrets of 30 KB in 3 MiB: %v", made, err)
	}
	// The server compacts old revisions meanwhile, and that space is filled too. The change that
	// reached the quota may have been made. The store is full once changes were refused for longer
	// than the server takes to check it twice.
	refused := time.Now()
	waitFor(t, "changes to be refused with the reason", func() bool {
		err := create(made)
		if err == nil || errors.Is(err, kms.ErrResourceExist) {
			made++
			refused = time.Now()
		}
		return time.Since(refused) > 2500*time.Millisecond &&
			err != nil &&
			kms.CodeOf(err) == kms.CodeUnavailable &&
			strings.Contains(err.Error(), "quota") &&
			strings.Contains(err.Error(), "nothing was changed")
	})
	if status, page := operatorPage(t, s, "/metrics"); !strings.Contains(page, "keyturn_changes_refused 1") {
		t.Errorf("the metrics (%d) do not say that changes are refused", status)
	}
	for i := range made {
		got, err := client.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: fmt.Sprint("s", i)})
		if err != nil || got.SecretData.Reveal() != value(i) {
			t.Fatalf("secret %d of %d, acknowledged: %v", i, made, err)
		}
	}
	if _, err := client.GetSecretValue(t.Context(),
		&kms.GetSecretValueRequest{SecretName: fmt.Sprint("s", made)}); !errors.Is(err, kms.ErrResourceNotFound) {
		t.Errorf("a secret that was refused, and nothing changed: %v", err)
	}
	for i := range made / 2 {
		if _, err := client.DeleteSecret(t.Context(),
			&kms.DeleteSecretRequest{SecretName: fmt.Sprint("s", i), ForceDeleteWithoutRecovery: true}); err != nil {
			t.Fatalf("delete, to make room: %v", err)
		}
	}
	waitFor(t, "changes to be taken again", func() bool { return create(1000) == nil })
	if status, page := operatorPage(t, s, "/metrics"); !strings.Contains(page, "keyturn_changes_refused 0") {
		t.Errorf("the metrics (%d) still say that changes are refused", status)
	}
	t.Logf("%d secrets fit", made)
}

func operatorPage(t *testing.T, s *keyturntest.Server, path string) (status int, body string) {
	t.Helper()
	resp, err := http.Get("http://" + s.HTTPEndpoint + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}
