package conns

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"
)

// Run closes connections without a valid signature that have been idle for some time, until ctx
// ends.
func (g *Guard) Run(ctx context.Context) {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			g.sweep()
		case <-ctx.Done():
			return
		}
	}
}

func (g *Guard) sweep() {
	now := g.now()
	var old []*conn
	g.mu.Lock()
	for _, class := range []class{stranger, known} {
		for _, o := range g.shares[class].owners {
			for e := o.idle.Front(); e != nil; e = e.Next() {
				c := e.Value.(*conn)
				if now.Sub(c.since) < strangerIdle {
					break // the others' states have changed later
				}
				if c.served { // one that has sent nothing yet has a deadline of its own
					old = append(old, c)
				}
			}
		}
	}
	for _, c := range old {
		g.removeLocked(c)
	}
	g.mu.Unlock()
	for _, c := range old {
		_ = c.Close() // it is idle
	}
}

// relieve closes connections until the others hold a sixteenth less of unverified requests than is
// allowed. It begins with the source that holds the most bytes, and with its largest connection: a
// source that sends much displaces its own connections, and no large request of another source.
// Within a source the oldest would be no better: connections that a flood replaces all the time are
// younger than a large request that is still being sent. Whether a connection has had a valid
// signature does not count: it does not excuse what it holds now, and closing one that holds little
// would free nothing.
func (g *Guard) relieve() {
	g.mu.Lock()
	victims := g.victimsLocked(g.cfg.Pending - g.cfg.Pending/16)
	for _, c := range victims {
		g.removeLocked(c)
	}
	g.mu.Unlock()
	for _, c := range victims {
		g.evict(c)
	}
}

// victimsLocked returns the connections to close so that the others hold at most so many bytes.
func (g *Guard) victimsLocked(most int64) []*conn {
	type holder struct {
		*conn
		bytes int64
	}
	var holders []holder
	var sum int64
	totals := map[netip.Addr]int64{}
	for c := range g.open {
		h := holder{c, c.pending.Load()}
		if h.bytes == 0 {
			continue
		}
		holders = append(holders, h)
		totals[c.source] += h.bytes
		sum += h.bytes
	}
	if sum <= g.cfg.Pending {
		return nil // another call has made room
	}
	slices.SortFunc(holders, func(a, b holder) int {
		return cmp.Or(
			cmp.Compare(totals[b.source], totals[a.source]),
			a.source.Compare(b.source),
			cmp.Compare(b.bytes, a.bytes),
		)
	})
	var victims []*conn
	for _, h := range holders {
		if sum <= most {
			break
		}
		victims = append(victims, h.conn)
		sum -= h.bytes
	}
	return victims
}
