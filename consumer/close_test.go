package consumer_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/kms"
)

// stuck fails the first read, and does not answer the second.
type stuck struct {
	reads  atomic.Int64
	second chan struct{}
}

func (s *stuck) GetSecretValue(ctx context.Context, _ *kms.GetSecretValueRequest) (*kms.GetSecretValueResponse, error) {
	switch s.reads.Add(1) {
	case 1:
		return nil, errors.New("connection refused")
	case 2:
		close(s.second)
	case 100:
		panic("reads go on after Close")
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

func (s *stuck) WatchSecrets(ctx context.Context, _ *kms.WatchSecretsRequest) (*kms.WatchSecretsResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestCloseDuringRetry verifies that Close ends a second attempt of a read, and that no further
// attempt follows.
func TestCloseDuringRetry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := &stuck{second: make(chan struct{})}
		c, err := consumer.New(t.Context(), consumer.Config{
			Client:  api,
			Secrets: []string{"db"},
			Logger:  slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		<-api.second
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if n := api.reads.Load(); n != 2 {
			t.Errorf("%d reads, want 2", n)
		}
	})
}
