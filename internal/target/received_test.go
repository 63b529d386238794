package target

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
)

// TestTwoReadersOfABoundedConnection reads from two goroutines at once, as pgx does after a
// timeout. The race detector must find nothing.
func TestTwoReadersOfABoundedConnection(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	dial := Bounded(func(context.Context, string, string) (net.Conn, error) { return near, nil }, 1<<20)
	conn, err := dial(t.Context(), "tcp", "db:1")
	if err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() { _, _ = io.Copy(io.Discard, conn) })
	}
	if _, err := far.Write(make([]byte, 64<<10)); err != nil {
		t.Error(err)
	}
	_ = far.Close()
	readers.Wait()
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
