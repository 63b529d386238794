package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

const (
	readEvery = 20 * time.Millisecond
	// patience is how long a consumer that was refused looks for a version that works; it looks
	// again after a breath.
	patience = 2 * time.Second
	breath   = 5 * time.Millisecond
	// steadyLogins show that a consumer has arrived at a version.
	steadyLogins  = 5
	steadyTimeout = 20 * time.Second
)

// version is one version of a secret as it was read or stored.
type version struct {
	id   string
	data sensitive.Value
}

// read reads the version under a label.
func read(ctx context.Context, client *kms.Client, secret, stage string) (version, error) {
	out, err := client.GetSecretValue(ctx, &kms.GetSecretValueRequest{SecretName: secret, VersionStage: stage})
	if err != nil {
		return version{}, err
	}
	return version{out.VersionID, out.SecretData}, nil
}

// consumer reads one secret again and again and logs in with what it got, as an application would.
type consumer struct {
	secret string
	client *kms.Client // without retries: each failed read counts
	login  func(context.Context, sensitive.Value) error

	mu    sync.Mutex
	tally tally
	using string // the version of the latest login with what ACSCurrent marked
	times int    // how many of those in a row
}

// tally is what a consumer saw.
type tally struct {
	reads, failedReads int
	// logins were accepted. failures are the turns that ended without a login.
	logins, failures int
	// waits are the turns that were refused at first: the time from that answer to the login that
	// worked.
	waits []time.Duration
	// trouble is the first thing that went wrong.
	trouble error
}

// run takes turns until stop is closed, then ends the turn under way. It ends at once when ctx
// does.
func (c *consumer) run(ctx context.Context, stop <-chan struct{}) {
	tick := time.NewTicker(readEvery)
	defer tick.Stop()
	for {
		c.turn(ctx)
		select {
		case <-tick.C:
		case <-stop:
			return
		case <-ctx.Done():
			return
		}
	}
}

// turn reads what is current and logs in with it. When that is refused, the credential is being
// changed right now.
func (c *consumer) turn(ctx context.Context) {
	v, err := c.read(ctx, kms.StageCurrent)
	if err != nil {
		return
	}
	switch err := c.login(ctx, v.data); {
	case err == nil:
		c.note(ctx, func(t *tally) { t.logins++; c.useLocked(v.id) })
	case errors.Is(err, ErrRejected):
		c.again(ctx, v.id, err)
	default:
		c.fail(ctx, err)
	}
}

// again looks for a version that works: the current one, which may have moved, then the one that is
// being prepared, then the current one again. A version that was refused is not tried twice.
func (c *consumer) again(ctx context.Context, refused string, reason error) {
	began := time.Now()
	tried := map[string]bool{refused: true}
	for stage := kms.StageCurrent; time.Since(began) < patience && ctx.Err() == nil; stage = other(stage) {
		v, err := c.read(ctx, stage)
		if err == nil && !tried[v.id] {
			tried[v.id] = true
			if err = c.login(ctx, v.data); err == nil {
				wait := time.Since(began)
				c.note(ctx, func(t *tally) { t.logins++; t.waits = append(t.waits, wait) })
				return
			}
			reason = err
		}
		if stage == pendingLabel {
			pause(ctx, breath)
		}
	}
	c.fail(ctx, reason)
}

func other(stage string) string {
	if stage == kms.StageCurrent {
		return pendingLabel
	}
	return kms.StageCurrent
}

// read counts. That nothing is being prepared is an answer, not a failed read.
func (c *consumer) read(ctx context.Context, stage string) (version, error) {
	v, err := read(ctx, c.client, c.secret, stage)
	c.note(ctx, func(t *tally) {
		t.reads++
		if err != nil && !(stage == pendingLabel && errors.Is(err, kms.ErrResourceNotFound)) {
			t.failedReads++
			t.trouble = cmp.Or(t.trouble, err)
		}
	})
	return v, err
}

func (c *consumer) fail(ctx context.Context, err error) {
	c.note(ctx, func(t *tally) { t.failures++; t.trouble = cmp.Or(t.trouble, err) })
}

// note changes the tally, unless the demo was interrupted: what is then cut off is nobody's
// failure.
func (c *consumer) note(ctx context.Context, change func(*tally)) {
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.tally)
}

// useLocked notes a login with what ACSCurrent marked.
func (c *consumer) useLocked(id string) {
	if c.using != id {
		c.using, c.times = id, 0
	}
	c.times++
}

// settled is what await says of a consumer that uses a version.
func settled(id string) string { return "logins with " + id }

// await waits until the consumer has logged in so many times in a row with a version that
// ACSCurrent marked. When that does not come about, it says what did.
func (c *consumer) await(ctx context.Context, id string, logins int) string {
	for began := time.Now(); ; pause(ctx, breath) {
		c.mu.Lock()
		using, times := c.using, c.times
		c.mu.Unlock()
		if using == id && times >= logins {
			return settled(id)
		}
		if time.Since(began) > steadyTimeout || ctx.Err() != nil {
			return fmt.Sprintf("%d logins with %s", times, cmp.Or(using, "any version"))
		}
	}
}

func (c *consumer) counts() tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tally
}

// pause waits, at most until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
