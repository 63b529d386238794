// Package deadline bounds work that hardly ever waits. A context of this package starts no timer
// and allocates nothing more until a caller asks for its Done channel or derives a context from it.
package deadline

import (
	"context"
	"sync"
	"time"
)

// Context is a context with a deadline. It is safe for concurrent use.
type Context struct {
	parent context.Context
	at     time.Time

	mu     sync.Mutex
	inner  context.Context // guarded by mu; nil until it is needed
	cancel func()          // guarded by mu; nil while inner is
	err    error           // guarded by mu; why the context has ended without inner
}

// After returns a context that ends with parent, when d has passed, or with Cancel, which must be
// called.
func After(parent context.Context, d time.Duration) *Context {
	c := &Context{parent: parent, at: time.Now().Add(d)}
	if at, ok := parent.Deadline(); ok && at.Before(c.at) {
		c.at = at
	}
	return c
}

// Cancel ends the context.
func (c *Context) Cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.inner != nil:
		c.cancel()
	case c.err == nil:
		c.err = context.Canceled
	}
}

// Deadline returns when the context ends at the latest; ok is true.
func (c *Context) Deadline() (at time.Time, ok bool) { return c.at, true }

// Done returns a channel that is closed when the context ends.
func (c *Context) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inner == nil {
		c.inner, c.cancel = context.WithDeadline(c.parent, c.at)
		if c.err != nil {
			c.cancel()
		}
	}
	return c.inner.Done()
}

// Err returns nil while the context has not ended.
func (c *Context) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.inner != nil:
		return c.inner.Err()
	case c.err != nil:
	case c.parent.Err() != nil:
		c.err = c.parent.Err()
	case !time.Now().Before(c.at):
		c.err = context.DeadlineExceeded
	}
	return c.err
}

// Value returns the value of parent. A context that is derived from c finds the inner one through
// it, and needs no goroutine to end with it.
func (c *Context) Value(key any) any {
	c.mu.Lock()
	inner := c.inner
	c.mu.Unlock()
	if inner != nil {
		return inner.Value(key)
	}
	return c.parent.Value(key)
}
