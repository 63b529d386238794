package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxQueue = 1024 // records that wait; more callers wait in Append
	maxBatch = 256  // records in one write
	// patience is how long Append waits at most.
	patience = 5 * time.Second
)

// Errors of a Log that does not run.
var (
	ErrNotRunning = errors.New("audit: the log is not running yet")
	ErrStopped    = errors.New("audit: the log has stopped")
)

// Config says where a trail is and how it is kept.
type Config struct {
	Dir          string           // of the segments and the lock; made with mode 0700 when missing
	SegmentBytes int64            // a new segment begins behind so many; 0 means 64 MiB, the most
	SyncEvery    time.Duration    // how long a record may wait for the disk; 0 means 500 ms
	Now          func() time.Time // nil means time.Now
	Logger       *slog.Logger     // logs when the trail cannot be written, and when it can again; nil logs nothing

	open func(name string, create bool) (file, error) // set by tests
}

func (c Config) withDefaults() Config {
	if c.SegmentBytes <= 0 {
		c.SegmentBytes = maxSegmentBytes
	}
	if c.SyncEvery <= 0 {
		c.SyncEvery = 500 * time.Millisecond
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.open == nil {
		c.open = openFile
	}
	return c
}

// Log is an open trail. Its methods may be called from many goroutines.
type Log struct {
	cfg   Config
	lock  *os.File
	w     *writer  // belongs to Run
	batch []*entry // belongs to Run
	queue chan *entry
	pool  sync.Pool

	key *Key // nil for a trail without one; set by Resume

	mu   sync.Mutex
	head Head // guarded by mu; without the position, which the writer has

	claimed  atomic.Bool   // by Run or Close, whichever came first
	started  chan struct{} // closed when Run takes records
	stopping chan struct{} // closed when it takes no more
	ended    chan struct{} // closed when all are answered
}

// Open takes the trail for this process and finds its end, without a key and without an anchor. A
// directory must not be open in another process, and its last line must verify.
// Call Run next, or Close.
func Open(cfg Config) (*Log, error) {
	l, err := Lock(cfg)
	if err != nil {
		return nil, err
	}
	if err := l.Resume(nil); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Lock takes the trail for this process. Call Resume and Run next, or Close.
func Lock(cfg Config) (*Log, error) {
	if cfg.Dir == "" {
		return nil, errors.New("audit: no directory is configured")
	}
	cfg = cfg.withDefaults()
	if err := checkSegmentBytes(cfg.SegmentBytes); err != nil {
		return nil, err
	}
	if err := makeDir(cfg.Dir); err != nil {
		return nil, err
	}
	held, err := lock(cfg.Dir)
	if err != nil {
		return nil, err
	}
	w := &writer{
		dir: cfg.Dir, segmentBytes: cfg.SegmentBytes, now: cfg.Now, log: cfg.Logger, open: cfg.open,
		done: make(chan error, 1), rotated: make(chan struct{}, 1), finished: make(chan struct{}, 1),
	}
	return &Log{
		cfg: cfg, lock: held, w: w,
		queue:   make(chan *entry, maxQueue),
		pool:    sync.Pool{New: func() any { return newEntry() }},
		started: make(chan struct{}), stopping: make(chan struct{}), ended: make(chan struct{}),
	}, nil
}

// Close lets go of a trail whose Run was never called. After Run it does nothing: Run has let go.
func (l *Log) Close() error {
	if l.claimed.CompareAndSwap(false, true) {
		close(l.stopping)
		close(l.ended)
		l.release()
	}
	return nil
}

// Failing reports whether the last record could not be written. The next one is tried all the same.
func (l *Log) Failing() bool { return l.w.failing.Load() }

// Ready is closed once Run takes records.
func (l *Log) Ready() <-chan struct{} { return l.started }

// Run writes what Append hands over until ctx ends. It then refuses new records, puts the others on
// disk, answers them all and lets go of the trail. It runs once.
func (l *Log) Run(ctx context.Context) error {
	if !l.claimed.CompareAndSwap(false, true) {
		return errors.New("audit: Run was called before, or the log is closed")
	}
	defer l.release()
	defer close(l.ended)
	tick := time.NewTicker(l.cfg.SyncEvery)
	defer tick.Stop()
	close(l.started)
	for {
		select {
		case e := <-l.queue:
			l.w.write(l.collect(e))
		case err := <-l.w.done:
			l.w.finish(err)
			if len(l.w.waiting) > 0 {
				l.w.startSync()
			}
		case <-tick.C:
			l.w.tick()
		case <-ctx.Done():
			return l.stop()
		}
	}
}

// collect takes what waits behind first, to go in one write.
func (l *Log) collect(first *entry) []*entry {
	l.batch = append(l.batch[:0], first)
	// On a busy machine the callers who are ready to run hand over theirs first: one write serves them
	// all. On an idle one this returns at once.
	runtime.Gosched()
	for len(l.batch) < maxBatch {
		select {
		case e := <-l.queue:
			l.batch = append(l.batch, e)
		default:
			return l.batch
		}
	}
	return l.batch
}

// stop writes what was accepted. A caller that slips one in behind the last look is answered by
// ended.
func (l *Log) stop() error {
	close(l.stopping)
	for {
		select {
		case e := <-l.queue:
			l.w.write(l.collect(e))
		default:
			return l.w.flush()
		}
	}
}

func (l *Log) release() {
	if l.w.f != nil {
		_ = l.w.f.Close() // flushed, or the error is known
	}
	_ = l.lock.Close()
}

// Append writes one record. With durable it returns when the record is on disk, and one fsync
// serves all who wait; without, when the record has left the process. It fills Seq, Time, Prev and
// Hash, and cuts overlong members. It waits until ctx ends, and at most 5 s. An error means that
// the record may be missing, not that it surely is.
func (l *Log) Append(ctx context.Context, r Record, durable bool) error {
	if err := l.running(); err != nil {
		return err
	}
	e := l.pool.Get().(*entry)
	if err := e.set(r, durable); err != nil {
		l.pool.Put(e)
		return err
	}
	e.late.Reset(patience)
	select {
	case l.queue <- e: // there is room, as nearly always: no need to check the rest
		return l.wait(ctx, e)
	default:
	}
	select {
	case l.queue <- e:
	case <-l.stopping:
		return ErrStopped
	case <-ctx.Done():
		return fmt.Errorf("audit: the record was not taken in time: %w", ctx.Err())
	case <-e.late.C:
		return fmt.Errorf("audit: the record was not taken in time: %w", context.DeadlineExceeded)
	}
	return l.wait(ctx, e)
}

func (l *Log) running() error {
	select {
	case <-l.stopping:
		return ErrStopped
	default:
	}
	select {
	case <-l.started:
		return nil
	default:
		return ErrNotRunning
	}
}

// wait returns what became of e. An entry goes back to the pool only when the writer is done with
// it for sure.
func (l *Log) wait(ctx context.Context, e *entry) error {
	select {
	case err := <-e.done:
		e.late.Stop()
		l.pool.Put(e)
		return err
	case <-ctx.Done():
		return fmt.Errorf("audit: the record was taken but not confirmed in time: %w", ctx.Err())
	case <-e.late.C:
		return fmt.Errorf("audit: the record was taken but not confirmed in time: %w", context.DeadlineExceeded)
	case <-l.ended:
	}
	select {
	case err := <-e.done:
		return err
	default:
		return ErrStopped
	}
}

// entry is a record on its way. Its members are encoded by the caller's goroutine; the writer adds
// what depends on the order.
type entry struct {
	members []byte // of the record, without braces
	durable bool
	done    chan error
	late    *time.Timer // fires when Append has waited long enough
}

func newEntry() *entry {
	e := &entry{done: make(chan error, 1), late: time.NewTimer(patience)}
	e.late.Stop()
	return e
}

func (e *entry) set(r Record, durable bool) error {
	if err := r.check(); err != nil {
		return err
	}
	r.prepare()
	e.durable, e.members = durable, r.appendMembers(e.members[:0])
	return nil
}
