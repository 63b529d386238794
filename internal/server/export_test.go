package server

import (
	"context"
	"net/http"
	"time"

	"github.com/keyturn/keyturn/internal/store"
)

// MaxPasses is how many passes over the store one turn of a rotation of the root key makes.
const MaxPasses = maxPasses

// RewriteAll makes passes over the store until one leaves nothing to do.
func RewriteAll(ctx context.Context, pass func(context.Context) (store.Rewritten, error)) (damaged int, err error) {
	return rewriteAll(ctx, pass)
}

// Handler is what the listeners serve.
func (s *Server) Handler() http.Handler { return s.handler() }

// ClockJumps returns a function that returns how far a clock has jumped since its last call.
func ClockJumps(now func() time.Time) func() time.Duration { return newClockWatch(now).jumped }

// ConnectionLimit is how many connections a process takes that may open so many files.
func ConnectionLimit(files uint64, wanted int) (int, error) { return connectionLimit(files, wanted) }

// MayRotate is for tests of the interval between two rotations of the root key.
var MayRotate = mayRotate

// MarkRunning leaves a data directory as a server does that crashes after its start.
func MarkRunning(ctx context.Context, dir string) error {
	s, err := New(ctx, Config{DataDir: dir, ListenHTTP: "127.0.0.1:0", NoSync: true})
	if err != nil {
		return err
	}
	s.storeRunning(ctx, true)
	return s.release()
}
