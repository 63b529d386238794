package rpc

import (
	"cmp"
	"errors"
	"io"
	"math"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/auth"
	"github.com/keyturn/keyturn/internal/conns"
	"github.com/keyturn/keyturn/internal/fault"
)

const (
	// maxBodies bounds the bytes of all bodies that are being read, over all connections and
	// streams.
	maxBodies = 24 << 20
	// firstBody is how much is allocated for a body before any of it has come.
	firstBody = 4 << 10
)

// errBodyAborted reports that the memory of this body was needed for others.
var errBodyAborted = errors.New("rpc: the memory for bodies is used up")

// bodies accounts for the memory of request bodies that are being read. When it is used up, the
// largest body of the source that holds the most is aborted. So a client that sends bodies and does
// not finish them, on however many connections and streams, harms only itself. The zero value is
// ready to use.
type bodies struct {
	mu     sync.Mutex
	limit  int64                      // 0 means maxBodies; guarded by mu
	held   int64                      // guarded by mu
	owners map[netip.Addr]*bodyHolder // guarded by mu
}

// bodyHolder is a source whose bodies are being read.
type bodyHolder struct {
	held    int64
	reading map[*bodyReading]struct{}
}

// bodyReading is one body that is being read.
type bodyReading struct {
	pool   *bodies
	source netip.Addr
	abort  func() // makes the current read fail
	held   int64  // guarded by pool.mu
	ended  bool   // guarded by pool.mu
}

func (b *bodies) begin(source netip.Addr, abort func()) *bodyReading {
	r := &bodyReading{pool: b, source: conns.Source(source), abort: abort}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.owners == nil {
		b.owners = map[netip.Addr]*bodyHolder{}
	}
	o := b.owners[r.source]
	if o == nil {
		o = &bodyHolder{reading: map[*bodyReading]struct{}{}}
		b.owners[r.source] = o
	}
	o.reading[r] = struct{}{}
	return r
}

// take accounts for n more bytes, and aborts other bodies, or this one, where that is too much. It
// returns false when this one was aborted.
func (r *bodyReading) take(n int64) bool {
	b := r.pool
	b.mu.Lock()
	if r.ended {
		b.mu.Unlock()
		return false
	}
	limit := cmp.Or(b.limit, maxBodies)
	r.held += n
	b.held += n
	b.owners[r.source].held += n
	var victims []*bodyReading
	for b.held > limit {
		v := b.largestLocked()
		v.endLocked()
		victims = append(victims, v)
	}
	ok := !r.ended
	b.mu.Unlock()
	for _, v := range victims {
		v.abort()
	}
	return ok
}

// largestLocked returns the largest body of the source that holds the most. There is one while
// bytes are held.
func (b *bodies) largestLocked() *bodyReading {
	var most *bodyHolder
	for _, o := range b.owners {
		if most == nil || o.held > most.held {
			most = o
		}
	}
	var largest *bodyReading
	for r := range most.reading {
		if largest == nil || r.held > largest.held {
			largest = r
		}
	}
	return largest
}

func (r *bodyReading) end() {
	r.pool.mu.Lock()
	defer r.pool.mu.Unlock()
	r.endLocked()
}

func (r *bodyReading) endLocked() {
	if r.ended {
		return
	}
	r.ended = true
	b := r.pool
	o := b.owners[r.source]
	b.held -= r.held
	o.held -= r.held
	delete(o.reading, r)
	if len(o.reading) == 0 {
		delete(b.owners, r.source)
	}
}

func noBody() ([]byte, error) { return nil, nil }

// body returns a function that reads the body of a request to its end, and one that releases its
// memory. release must be called before the handler returns, and may be called twice.
func (d *Door) body(
	w http.ResponseWriter, r *http.Request, source netip.Addr,
) (read func() ([]byte, error), release func()) {
	if length(r) == 0 {
		return noBody, func() {}
	}
	var held *bodyReading
	var mu sync.Mutex // excludes an abort while the handler ends: w must not be used after that
	released := false
	abort := func() {
		mu.Lock()
		defer mu.Unlock()
		if !released {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now())
		}
	}
	read = func() ([]byte, error) {
		if r.ContentLength > auth.MaxBody {
			return nil, fault.New(fault.Malformed, "The body is larger than 1 MiB.")
		}
		held = d.bodies.begin(source, abort)
		data, err := readBounded(http.MaxBytesReader(w, r.Body, auth.MaxBody), held.take)
		if err != nil && !held.take(0) {
			err = errBodyAborted
		}
		if errors.Is(err, errBodyAborted) {
			w.Header().Set("Connection", "close")
		}
		return data, bodyFault(err)
	}
	return read, func() {
		mu.Lock()
		released = true
		mu.Unlock()
		if held != nil {
			held.end()
		}
	}
}

// bodyFault returns what a caller learns of an error in reading the body; nil for nil.
func bodyFault(err error) error {
	var over *http.MaxBytesError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errBodyAborted):
		return &fault.Error{
			Kind:  fault.Throttled,
			Retry: time.Second,
			Msg:   "The server has too many unfinished requests of this client.",
		}
	case errors.As(err, &over):
		return fault.New(fault.Malformed, "The body is larger than 1 MiB.")
	}
	return fault.Wrap(fault.Malformed, err, "The body could not be read to its end.")
}

// readBounded is io.ReadAll that takes memory before it allocates it.
func readBounded(from io.Reader, take func(int64) bool) ([]byte, error) {
	if !take(firstBody) {
		return nil, errBodyAborted
	}
	data := make([]byte, 0, firstBody)
	for {
		n, err := from.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		switch {
		case errors.Is(err, io.EOF):
			return data, nil
		case err != nil:
			return nil, err
		case len(data) < cap(data):
			continue
		}
		larger := min(2*cap(data), math.MaxInt32)
		if !take(int64(larger)) { // both are there until the old one is collected
			return nil, errBodyAborted
		}
		data = append(make([]byte, 0, larger), data...)
	}
}
