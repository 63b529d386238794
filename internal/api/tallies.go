package api

import (
	"context"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/time/rate"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/conns"
)

const (
	// tallyInterval is how often counted calls are recorded.
	tallyInterval = 10 * time.Second
	tallyTick     = time.Second
	// maxTallies bounds how many sources, and how many access keys, are counted separately.
	maxTallies = 256
	// maxClaim and maxUnverifiedAgent bound what the trail keeps of an unverified request, in bytes
	// of the line.
	maxClaim           = 48
	maxUnverifiedAgent = 64
	maxAgent           = 256
)

// others is the subject under which all calls beyond maxTallies are counted.
const others = ""

// tallies decides which calls have an audit record of their own, and counts the others. It is for
// calls that had no effect and revealed nothing: refused calls, and calls that need no right. It
// bounds the size of the trail whatever is sent.
//
// Each subject, a source or an access key, may write records at a rate. Calls beyond the rate are
// counted, and the count is recorded after tallyInterval.
type tallies struct {
	rate  rate.Limit
	burst int
	all   *rate.Limiter // of all subjects together; nil for no bound

	mu sync.Mutex
	by map[string]*tally // guarded by mu
}

// tally is the count of one subject.
type tally struct {
	bucket *rate.Limiter
	last   audit.Record // the last call that was counted
	since  time.Time    // the first one since the last record
	seen   time.Time
	count  int
}

func newTallies(r rate.Limit, burst int, all *rate.Limiter) *tallies {
	return &tallies{rate: r, burst: burst, all: all, by: map[string]*tally{}}
}

// alone reports whether a call has a record of its own; when it has not, it was counted.
func (t *tallies) alone(subject string, r audit.Record, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	own := t.ofLocked(subject, now)
	own.seen = now
	if own.bucket.AllowN(now, 1) && (t.all == nil || t.all.AllowN(now, 1)) {
		return true
	}
	if own.count == 0 {
		own.since = now
	}
	own.last = r
	own.count++
	return false
}

func (t *tallies) ofLocked(subject string, now time.Time) *tally {
	own, ok := t.by[subject]
	if ok {
		return own
	}
	if len(t.by) >= maxTallies {
		t.forgetLocked(now)
	}
	if len(t.by) >= maxTallies {
		subject = others
		if own, ok = t.by[others]; ok {
			return own
		}
	}
	own = &tally{bucket: rate.NewLimiter(t.rate, t.burst)}
	t.by[subject] = own
	return own
}

// forgetLocked drops subjects that have not been seen for some time and have nothing to record.
func (t *tallies) forgetLocked(now time.Time) {
	for subject, own := range t.by {
		if own.count == 0 && now.Sub(own.seen) > tallyInterval {
			delete(t.by, subject)
		}
	}
}

// due takes what is to be recorded now: the numbers that are old enough, or all of them.
func (t *tallies) due(now time.Time, all bool) (list []audit.Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for subject, own := range t.by {
		if own.count == 0 || !all && now.Sub(own.since) < tallyInterval {
			continue
		}
		r := own.last
		if subject == others {
			r.Source, r.AccessKeyID, r.Principal, r.PrincipalType, r.Account, r.UserAgent = "", "", "", "", "", ""
		}
		r.Note = fmt.Sprintf("%d calls since %s; this is the last one", own.count,
			own.since.UTC().Format(audit.TimeFormat))
		list = append(list, r)
		own.count, own.last = 0, audit.Record{}
	}
	return list
}

// RunTallies records the counts of calls, until ctx ends and once more then.
func (g *Gate) RunTallies(ctx context.Context) {
	every(ctx, tallyTick,
		func() { g.writeTallies(ctx, false) },
		func(bounded context.Context) { g.writeTallies(bounded, true) })
}

// writeTallies records what is due. A record that cannot be written is kept for the next time;
// until it is written, every call needs a record of its own.
func (g *Gate) writeTallies(ctx context.Context, all bool) {
	now := g.env.Now().UTC()
	list := append(g.late, append(g.strangers.due(now, all), g.keys.due(now, all)...)...)
	g.late = nil
	for i, r := range list {
		if err := g.audit.Append(context.WithoutCancel(ctx), r, false); err != nil {
			g.unrecorded.Store(true)
			g.late = list[i:min(len(list), i+2*maxTallies)]
			g.env.Log.Error("numbers of calls not written to the audit trail; they are tried again",
				"records", len(list)-i, "err", err)
			return
		}
	}
	g.unrecorded.Store(false)
}

// note writes the record of a call that had no effect, or counts the call.
func (g *Gate) note(ctx context.Context, c *Call, d audit.Decision, outcome string) error {
	r := recordOf(c, audit.Call, d, outcome)
	list, subject := g.keys, c.Principal.AccessKeyID
	if c.unverified {
		r.AccessKeyID = clippedText(r.AccessKeyID, maxClaim)
		r.Operation = clippedText(r.Operation, maxClaim)
		r.APIVersion = clippedText(r.APIVersion, maxClaim/2)
		r.UserAgent = clippedText(r.UserAgent, maxUnverifiedAgent)
		list, subject = g.strangers, conns.Source(c.Source).String()
	}
	if subject != "" && !g.unrecorded.Load() && !list.alone(subject, r, g.env.Now()) {
		return nil
	}
	return g.append(ctx, c, r, false)
}

// clippedText shortens s so that it takes at most n bytes as a JSON string, quotes left out.
func clippedText(s string, n int) string {
	for i, r := range s {
		size := utf8.RuneLen(r)
		switch {
		case r == utf8.RuneError, r < ' ', r == '\u2028', r == '\u2029':
			size = 6
		case r == '"', r == '\\':
			size = 2
		}
		if n -= size; n < 0 {
			return s[:i]
		}
	}
	return s
}
