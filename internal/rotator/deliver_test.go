package rotator

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/store"
)

// TestReceiversAreJudged verifies that events are delivered by the dialer of the configuration
// alone, also after a redirect.
func TestReceiversAreJudged(t *testing.T) {
	t.Parallel()
	var arrived atomic.Int64
	inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { arrived.Add(1) }))
	defer inner.Close()
	outer := httptest.NewServer(http.RedirectHandler(inner.URL, http.StatusTemporaryRedirect))
	defer outer.Close()
	refuse := func(_ context.Context, _, address string) (net.Conn, error) {
		return nil, &egress.RefusedError{Host: address, Reason: "a test"}
	}
	d := newDeliverer(nil, Config{Dial: refuse})
	if err := d.post(t.Context(), Receiver{URL: inner.URL}, store.Event{}); err == nil {
		t.Error("an event was delivered although the dialer refuses")
	}
	d = newDeliverer(nil, Config{})
	defer d.client.CloseIdleConnections()
	if err := d.post(t.Context(), Receiver{URL: outer.URL}, store.Event{}); err == nil {
		t.Error("a redirect counts as delivered")
	}
	if arrived.Load() != 0 {
		t.Errorf("%d events arrived", arrived.Load())
	}
	if err := d.post(t.Context(), Receiver{URL: inner.URL}, store.Event{}); err != nil || arrived.Load() != 1 {
		t.Errorf("a receiver that is permitted: %v, %d arrived", err, arrived.Load())
	}
}
