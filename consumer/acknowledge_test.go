package consumer_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// TestServerKnowsTheConsumer verifies that a real server lists one consumer, with the version in
// use and the oldest held version as the consumer reported them, and infers no second one from the
// same reads. After Close it lists none.
func TestServerKnowsTheConsumer(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	ctx := t.Context()
	put := func(version string) {
		t.Helper()
		if _, err := s.Client.PutSecretValue(ctx, &kms.PutSecretValueRequest{
			SecretName: "db",
			VersionID:  version,
			SecretData: sensitive.New(version),
		}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Client.CreateSecret(ctx, &kms.CreateSecretRequest{
		SecretName: "db",
		VersionID:  "v1",
		SecretData: sensitive.New("v1"),
	}); err != nil {
		t.Fatal(err)
	}
	c, err := consumer.New(ctx, consumer.Config{Client: s.Client, Instance: "shop-1"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Get(ctx, "db"); err != nil {
		t.Fatal(err)
	}
	release := c.Hold("db", "v1")
	for _, tt := range []struct {
		do   func()
		want string
	}{
		{func() {}, "shop-1 v1 v1 acknowledged behind=false"},
		{func() { put("v2") }, "shop-1 v2 v1 acknowledged behind=true"},
		{release, "shop-1 v2 v2 acknowledged behind=false"},
		{func() { _ = c.Close() }, ""},
	} {
		tt.do()
		var got []string
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			out, err := s.Client.ListSecretConsumers(ctx, &kms.ListSecretConsumersRequest{SecretName: "db"})
			if err != nil {
				t.Fatal(err)
			}
			got = got[:0]
			for _, u := range out.Consumers {
				got = append(got, fmt.Sprintf("%s %s %s %s behind=%t",
					u.Consumer, u.VersionID, u.OldestVersionID, u.Evidence, u.Behind))
			}
			if slices.Equal(got, []string{tt.want}) || tt.want == "" && len(got) == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the server knows %q; want %q", got, tt.want)
			}
		}
	}
}
