package messy

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/support"
)

const (
	// stuck is how long a rotation may say why it does not go on before an operator comes. For a late
	// replica it also has the lag that the target tolerates.
	stuck = 5 * time.Second
	// slack is what a busy machine adds to a bound, slackRace what it adds under the race detector.
	slack     = 3 * time.Second
	slackRace = 8 * time.Second
	glimpse   = 20 * time.Millisecond
)

func tail(r *kms.DescribeRotationResponse) string {
	var words []string
	for _, s := range r.Steps {
		words = append(words, strings.TrimSpace(s.Event+" "+s.Text))
	}
	return strings.Join(words, "; ")
}

// wait waits until the rotation is in one of the states, or has ended. It reports whether that came
// before the rotation was stuck.
func (f *performance) wait(until ...string) (r *kms.DescribeRotationResponse, ended bool) {
	f.t.Helper()
	var since time.Time
	support.Until(f.t, "the end of a rotation, or a reason why it lasts", func() bool {
		var err error
		r, err = f.DescribeRotation(f.t.Context(), &kms.SecretNameRequest{SecretName: f.secret})
		good(f.t, err)
		ended = slices.Contains(append(until, "done", "abandoned", "quarantined"), r.State)
		switch {
		case r.Reason == "":
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		}
		patient := stuck
		if n := len(r.Steps); n > 0 && r.Steps[n-1].Event == string(rotation.CopiesLate) {
			patient += target.DefaultLag
		}
		time.Sleep(glimpse)
		return ended || !since.IsZero() && time.Since(since) > patient
	})
	return r, ended
}

// watch reads the secret until it is stopped, and measures how long reads get no value.
func (f *performance) watch(what string) (stop func()) {
	ctx, cancel := context.WithCancel(f.t.Context())
	var all sync.WaitGroup
	f.hold(ctx, &all, what)
	var longest time.Duration
	all.Go(func() {
		last := time.Now()
		for ctx.Err() == nil {
			_, err := f.GetSecretValue(context.WithoutCancel(ctx), &kms.GetSecretValueRequest{SecretName: f.secret})
			longest = max(longest, time.Since(last))
			if err == nil {
				last = time.Now()
			}
			time.Sleep(glimpse)
		}
	})
	return func() {
		f.t.Helper()
		cancel()
		all.Wait()
		figures.Most(f.label+"_blocked_max_ms", int(longest.Milliseconds()))
		bound := hold + slackRace
		if *full {
			bound = hold + slack
		}
		if longest > bound {
			f.fails(f.t, "blocked_beyond_bound", "%s: no read was answered for %s", what, longest)
		}
	}
}

// hold logs in with what an application has read before, where the check says that no credential is
// refused: until the grace period ends, a value that was read before works.
func (f *performance) hold(ctx context.Context, all *sync.WaitGroup, what string) {
	if !*full || !f.windowless() || f.occupy != nil || what == graceEnds || what == emergency {
		return
	}
	value := f.current()
	all.Go(func() {
		for ctx.Err() == nil {
			switch in, err := f.app.Login(context.WithoutCancel(ctx), value); {
			case err != nil:
				f.fails(f.t, "put_out_of_work", "%s: a login with a value that was read before: %v", what, err)
				return
			case !in:
				f.fails(f.t, "put_out_of_work", "%s: a value that was read before was refused", what)
				return
			}
			f.count("window_logins", 1)
			select {
			case <-ctx.Done():
			case <-time.After(f.pause()):
			}
		}
	})
}

// pause is the time between two logins: a login at an SSH host costs more than elsewhere.
func (f *performance) pause() time.Duration {
	if f.kind == "ssh" {
		return time.Second
	}
	return 200 * time.Millisecond
}
