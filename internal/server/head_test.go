package server

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/audit"
)

// TestReadsStopWithoutHead verifies that no read is recorded, so none is answered, while the store
// has not taken the head of the trail for longer than maxHeadAge. Changes and refusals are
// recorded.
func TestReadsStopWithoutHead(t *testing.T) {
	t.Parallel()
	trail, err := audit.Open(audit.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- trail.Run(ctx) }()
	<-trail.Ready()
	h := &heads{}
	r := recorder{trail, h}
	read := audit.Record{Phase: audit.Call, Operation: "GetSecretValue", Decision: audit.Allow, Outcome: "ok"}
	refused, change := read, read
	refused.Decision, change.Phase = audit.Deny, audit.Intent
	for _, c := range []struct {
		age  time.Duration
		want error
	}{
		{maxHeadAge - time.Minute, nil}, {maxHeadAge + time.Second, errHeadAge}, {0, nil},
	} {
		at := time.Now().Add(-c.age)
		h.keptAt.Store(&at)
		if err := r.Append(ctx, read, false); !errors.Is(err, c.want) {
			t.Errorf("a read with a head of %s: %v", c.age, err)
		}
		if err := errors.Join(r.Append(ctx, refused, false), r.Append(ctx, change, true)); err != nil {
			t.Errorf("a refusal and a change with a head of %s: %v", c.age, err)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
