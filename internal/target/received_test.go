package target

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// TestTwoReadersOfABoundedConnection reads from two goroutines at once, as pgx does after a
// timeout: each may exceed the limit by one read at most, and the race detector must find nothing.
func TestTwoReadersOfABoundedConnection(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	const limit, block = 1 << 20, 32 << 10 // the second is what io.Copy reads at most
	dial := Bounded(func(context.Context, string, string) (net.Conn, error) { return near, nil }, limit)
	conn, err := dial(t.Context(), "tcp", "db:1")
	if err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	var received atomic.Int64
	for range 2 {
		readers.Go(func() {
			n, _ := io.Copy(io.Discard, conn)
			received.Add(n)
		})
	}
	if _, err := far.Write(make([]byte, 2*limit)); err == nil {
		t.Error("the target could send twice the limit")
	}
	_ = far.Close()
	readers.Wait()
	if n := received.Load(); n < limit || n > limit+2*block {
		t.Errorf("received %d bytes, want %d, and one read more for each reader at most", n, limit)
	}
}

// TestBoundedConnectionEnds verifies that a target that sends without end is cut off after a number
// of bytes.
func TestBoundedConnectionEnds(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20
	dial := Bounded(func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go func() { // ends when the connection is closed
			defer far.Close()
			for block, n := make([]byte, 4096), 0; n < 2*limit; n += len(block) {
				if _, err := far.Write(block); err != nil {
					return
				}
			}
		}()
		return near, nil
	}, limit)
	conn, err := dial(t.Context(), "tcp", "db:1")
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, conn)
	if n != limit || err == nil {
		t.Errorf("received %d bytes and %v, want %d and an error", n, err, limit)
	}
	if _, err := conn.Write([]byte("x")); err == nil {
		t.Error("the connection is still open")
	}
}
