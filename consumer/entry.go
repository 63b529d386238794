package consumer

import (
	"sync"
	"sync/atomic"
	"time"
)

// entry is one secret. Its goroutine ([Consumer.keepFresh]) makes all reads of it, one after the
// other.
type entry struct {
	name   string
	pinned bool // named by Config.Secrets, so it is kept without a value and without calls of Get

	value

	wakeup   chan struct{} // makes the goroutine compute anew when the next read is due
	fallback chan struct{} // closed when the value from disk is served

	mu     sync.Mutex
	gone   error // guarded by mu, as all below; why the goroutine has ended
	use    usage
	logins logins // has its own mutex
	schedule
	poll

	// Only the goroutine uses the fields below.
	saved     *Secret // the value on disk
	forbidden bool    // the value was taken away, and may still be on disk
}

// value is the part of an entry that [Consumer.Get] reads, without a lock.
type value struct {
	current   atomic.Pointer[Secret]
	confirmed atomic.Pointer[time.Time] // when the server last confirmed current; nil only if current is nil
	freshFor  atomic.Int64              // how long after a confirmation the value counts as fresh
	warned    atomic.Bool               // a warning was logged that the value is stale
}

// schedule is the part of an entry that decides when to read, with the results of the last reads.
// The mutex of the entry guards it.
type schedule struct {
	waiting    *fetch    // the next read, not started
	running    *fetch    // the read in progress
	lastAsked  time.Time // when a caller last needed a read
	read       time.Time // start of the last read
	draw       float64   // random factor of the current period
	interval   time.Duration
	precaution time.Duration // the interval while push works

	failures int       // since the last success
	err      error     // of the last read
	retryAt  time.Time // zero if the last read succeeded
	earliest time.Time // the server has asked not to be called before

	suspected   finding // absent or denied, after one read with that result
	suspectedAt time.Time
	missing     finding // absent or denied, after two reads with that result
	verified    bool    // the server has sent or confirmed a value since the start
	hadValue    bool

	disk     *Secret   // the last known good value, until the first read has ended
	diskTime time.Time // when the server confirmed it
}

// poll is the part of an entry that long polls use. The mutex of the entry guards it.
type poll struct {
	group       *group // whose long poll includes the secret
	push        bool   // the group's long poll works
	revision    string // the last one from the server
	changes     uint64 // number of changes that the server has announced
	changesSeen uint64 // the last of them that a successful read includes
	reported    report // what the last poll has reported
}

func (c *Consumer) newEntry(name string, pinned bool) *entry {
	precaution := pushInterval
	if bound := c.config.MaxStale; bound > 0 && c.disk != nil {
		precaution = min(precaution, bound/2) // a read also renews the value on disk
	}
	e := &entry{
		name:     name,
		pinned:   pinned,
		wakeup:   make(chan struct{}, 1),
		fallback: make(chan struct{}),
		schedule: schedule{
			interval:   c.config.Interval,
			precaution: precaution,
			draw:       1,
			lastAsked:  time.Now(),
		},
	}
	if pinned {
		e.waiting = &fetch{done: make(chan struct{}), begin: e.lastAsked}
	}
	return e
}

// setCurrentLocked replaces the value, or removes it if s is nil. confirmed is when the server
// confirmed s.
func (e *entry) setCurrentLocked(s *Secret, confirmed time.Time) {
	version := ""
	if s != nil {
		version = s.VersionID
		e.confirmed.Store(&confirmed) // before current: Get reads it whenever current is not nil
	}
	e.current.Store(s)
	e.use.setCurrent(version)
}
