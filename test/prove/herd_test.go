package prove

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/support"
)

// counted is a kind of target that accepts everything and writes down when it was changed: what
// is held against the rate is how often a target is asked, whatever it is.
func counted(calls string) target.Kind {
	var mu sync.Mutex
	return target.Kind{
		Name: "counted", Strategies: []target.Strategy{target.Overlap},
		Check: func(json.RawMessage) error { return nil },
		Open: func(target.Settings) (target.Target, error) {
			return countedTarget{calls: calls, mu: &mu}, nil
		},
	}
}

type countedTarget struct {
	calls string
	mu    *sync.Mutex
}

func (c countedTarget) Apply(context.Context, target.Change) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, err := os.OpenFile(c.calls, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintln(f, time.Now().UnixMilli())
	return err
}

func (countedTarget) Retire(context.Context, target.Change) error     { return nil }
func (countedTarget) Verify(context.Context, target.Credential) error { return nil }
func (countedTarget) Close() error                                    { return nil }

const (
	herdRate  = 20
	herdBurst = 10
	// herdWorkers are how many rotations are worked on at once: those may be let through and then be
	// late.
	herdWorkers = 8
	oneDay      = 24 * time.Hour
)

// TestHerd has a day pass while the server is down, so that everything is overdue when it starts.
func TestHerd(t *testing.T) {
	t.Parallel()
	secrets := pick(2000, 100)
	p, calls := newPlace(t), filepath.Join(t.TempDir(), "calls")
	c := p.start(t, order{Calls: calls})
	ctx := t.Context()
	good(t, second(c.RegisterTarget(ctx, &kms.RegisterTargetRequest{TargetName: "herd", Kind: "counted", Config: "{}"})))
	var work sync.WaitGroup
	next := make(chan int)
	for range 8 {
		work.Go(func() {
			for n := range next {
				name := fmt.Sprintf("of-%d", n)
				_, err := c.CreateSecret(ctx, &kms.CreateSecretRequest{
					SecretName: name,
					VersionID:  "v1",
					SecretData: sensitive.New(compact(first(name))),
				})
				if err == nil {
					_, err = c.ConfigureRotation(ctx, &kms.ConfigureRotationRequest{
						SecretName: name, TargetName: "herd", GracePeriod: "0s", RotationInterval: "23h",
					})
				}
				if err != nil {
					t.Errorf("create %s: %v", name, err)
				}
			}
		})
	}
	for n := range secrets {
		next <- n
	}
	close(next)
	work.Wait()
	c.Stop(t)
	if _, err := os.Stat(calls); err == nil {
		t.Fatal("something rotated before it was due")
	}
	c = p.start(t, order{
		Calls:   calls,
		Ahead:   int(oneDay.Milliseconds()),
		Rate:    herdRate,
		Burst:   herdBurst,
		Workers: herdWorkers,
	})
	deadline := time.Now().Add(support.Patience + time.Duration(secrets/herdRate)*time.Second*3)
	for done := 0; done < secrets; {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d rotations have ended; log: %s", done, secrets, c.Log.Tail())
		}
		time.Sleep(100 * time.Millisecond)
		done = c.rotated(t)
	}
	times := readTimes(t, calls)
	if len(times) != secrets {
		t.Errorf("the target was changed %d times for %d secrets", len(times), secrets)
	}
	figures.Count("herd_secrets", len(times))
	// A bucket of herdBurst that fills at herdRate lets that much through in a second, or in ten.
	for seconds, name := range map[int]string{1: "second", 10: "ten_seconds"} {
		n, bound := densest(times, time.Duration(seconds)*time.Second), herdRate*seconds+herdBurst+herdWorkers
		figures.Count("herd_rate_max_per_"+name, n)
		figures.Count("herd_rate_bound_per_"+name, bound)
		if n > bound {
			t.Errorf("%d changes within %d s, want at most %d", n, seconds, bound)
		}
	}
}

// rotated counts the rotations that have ended well.
func (c *process) rotated(t *testing.T) (done int) {
	t.Helper()
	in := kms.ListRotationsRequest{State: "done"}
	for {
		out, err := c.ListRotations(t.Context(), &in)
		good(t, err)
		done += len(out.Rotations)
		if in.NextToken = out.NextToken; in.NextToken == "" {
			return done
		}
	}
}

func readTimes(t *testing.T, path string) (times []int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	good(t, err)
	for line := range strings.Lines(string(b)) {
		at, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		good(t, err)
		times = append(times, at)
	}
	slices.Sort(times)
	return times
}

// densest is how many of the times lie within the most crowded stretch of that length.
func densest(times []int64, window time.Duration) (n int) {
	first := 0
	for i, at := range times {
		for at-times[first] >= window.Milliseconds() {
			first++
		}
		n = max(n, i-first+1)
	}
	return n
}
