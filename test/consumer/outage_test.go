package consumer

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/support"
)

// meter notes the calls of all consumers.
type meter struct {
	from http.RoundTripper

	mu    sync.Mutex
	calls []call // guarded by mu
}

type call struct {
	at       time.Time
	instance int
}

// of sends the calls of one instance.
func (m *meter) of(instance int) http.RoundTripper {
	return sender(func(r *http.Request) (*http.Response, error) {
		m.mu.Lock()
		m.calls = append(m.calls, call{time.Now(), instance})
		m.mu.Unlock()
		return m.from.RoundTrip(r)
	})
}

type sender func(*http.Request) (*http.Response, error)

func (f sender) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// since is how many calls there were from a time on, from how many instances, and the most within
// one second of them.
func (m *meter) since(from time.Time) (all, instances, peak int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := map[int]bool{}
	var in []time.Time
	for _, c := range m.calls {
		if !c.at.Before(from) {
			in = append(in, c.at)
			seen[c.instance] = true
		}
	}
	begin := 0
	for i, at := range in {
		for at.Sub(in[begin]) >= time.Second {
			begin++
		}
		peak = max(peak, i-begin+1)
	}
	return len(in), len(seen), peak
}

// crowd is many instances of an application.
type crowd struct {
	list      []*consumer.Consumer
	transport *http.Transport
	meter     *meter

	reads, failed atomic.Int64
	stop          chan struct{}
	work          sync.WaitGroup
}

const secretsOfCrowd = 3

func nameOf(i int) string { return fmt.Sprintf("app/%d", i) }

// newCrowd starts instances that read all the time.
func newCrowd(t *testing.T, p place, n int) *crowd {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 4 * n}
	w := &crowd{transport: transport, meter: &meter{from: transport}, stop: make(chan struct{})}
	for i := range n {
		config := p.config(t)
		config.HTTPClient = &http.Client{Transport: w.meter.of(i)}
		w.list = append(w.list, p.consumer(t, config, fmt.Sprintf("instance-%d", i), nil))
	}
	ctx, cancel := context.WithTimeout(t.Context(), support.Patience)
	defer cancel()
	for _, c := range w.list {
		good(t, c.WaitReady(ctx))
		w.work.Go(func() { w.use(t, c) })
	}
	return w
}

func (p place) consumer(t *testing.T, config kms.Config, instance string, disk *consumer.LastGood) *consumer.Consumer {
	t.Helper()
	client, err := consumer.NewClient(config)
	good(t, err)
	var names []string
	for i := range secretsOfCrowd {
		names = append(names, nameOf(i))
	}
	c, err := consumer.New(t.Context(), consumer.Config{
		Client: client, Secrets: names, Instance: instance, LastGood: disk, Logger: slog.New(slog.DiscardHandler),
	})
	good(t, err)
	return c
}

func (w *crowd) use(t *testing.T, c *consumer.Consumer) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond) // a read must not wait
		s, err := c.Get(ctx, nameOf(n%secretsOfCrowd))
		cancel()
		w.reads.Add(1)
		if err != nil || s.Value().Len() == 0 {
			if w.failed.Add(1) <= 5 {
				t.Errorf("a read: %v", err)
			}
		}
		select {
		case <-tick.C:
		case <-w.stop:
			return
		}
	}
}

func (w *crowd) end(t *testing.T) {
	t.Helper()
	close(w.stop)
	w.work.Wait()
	var work sync.WaitGroup
	for _, c := range w.list {
		work.Go(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	w.transport.CloseIdleConnections()
}

// have reports whether all instances have that version of a secret.
func (w *crowd) have(t *testing.T, name, version string) bool {
	t.Helper()
	for _, c := range w.list {
		if s, err := c.Get(t.Context(), name); err != nil || s.VersionID != version {
			return false
		}
	}
	return true
}

// TestOutage kills the server under many instances of an application, and starts it again. It is
// alone, because it counts goroutines.
func TestOutage(t *testing.T) {
	p := newPlace(t)
	kill := p.start(t)
	admin, err := kms.NewClient(p.config(t))
	good(t, err)
	put := func(name, version string) {
		t.Helper()
		good(t, second(admin.PutSecretValue(t.Context(), &kms.PutSecretValueRequest{
			SecretName: name,
			VersionID:  version,
			SecretData: sensitive.New("value of " + version),
		})))
	}
	for i := range secretsOfCrowd {
		good(t, second(admin.CreateSecret(t.Context(), &kms.CreateSecretRequest{
			SecretName: nameOf(i),
			VersionID:  "v1",
			SecretData: sensitive.New("value of v1"),
		})))
	}
	before := runtime.NumGoroutine()
	kept := &consumer.LastGood{
		Dir: filepath.Join(t.TempDir(), "kept"),
		Key: consumer.KeyFile(filepath.Join(t.TempDir(), "key")),
	}
	one := p.consumer(t, p.config(t), "writer", kept)
	ctx, cancel := context.WithTimeout(t.Context(), support.Patience)
	defer cancel()
	good(t, one.WaitReady(ctx))
	good(t, one.Close())

	n := pick(200, 30)
	w := newCrowd(t, p, n)
	working := runtime.NumGoroutine()
	kill()
	away := time.Now()
	startAway(t, p, kept)
	time.Sleep(time.Until(away.Add(pick(time.Minute, time.Second)))) // the outage
	if during := runtime.NumGoroutine(); during > working+n {
		t.Errorf("%d goroutines during the outage, %d before it", during, working)
	}
	kill = p.start(t)
	back := time.Now()
	if !support.Eventually(func() bool { _, instances, _ := w.meter.since(back); return instances == n }) {
		t.Error("after the return of the server not all come back")
	}
	reached := time.Since(back)
	all, _, peak := w.meter.since(back)
	put(nameOf(0), "v2")
	if !support.Eventually(func() bool { return w.have(t, nameOf(0), "v2") }) {
		t.Error("after the return of the server a change does not reach all")
	}
	reads, failed := int(w.reads.Load()), int(w.failed.Load())
	w.end(t)
	after := settled(before)
	figures.Count("outage_reads", reads)
	figures.Count("outage_reads_failed", failed)
	figures.Count("outage_consumers", n)
	figures.Count("outage_peak_rate", peak)
	figures.Count("outage_peak_bound", peakBound(n))
	figures.Count("outage_all_back_ms", int(reached.Milliseconds()))
	figures.Count("outage_goroutines_leaked", max(0, after-before))
	t.Logf("%d reads, %d failed; after the return %d calls in %v, at most %d in one second; goroutines %d, %d and %d",
		reads, failed, all, reached, peak, before, working, after)
	if failed > 0 || reads < n {
		t.Errorf("%d of %d reads failed", failed, reads)
	}
	if peak > peakBound(n) {
		t.Errorf("%d calls came within one second after the return, want at most %d", peak, peakBound(n))
	}
	if after > before {
		t.Errorf("%d goroutines are left over", after-before)
	}
	kill()
}

// peakBound is what may come within one second after the return. If all came at once, that would
// be a long poll and a read of each secret of each instance. After an outage of a second, as in
// the cut, they have not drifted apart far.
func peakBound(consumers int) int { return pick(consumers/4, 2*consumers) }

// settled is the number of goroutines once those that are about to end have ended, or once there
// are no more than wanted.
func settled(wanted int) (least int) {
	least = runtime.NumGoroutine()
	for n := 0; n < 100 && least > wanted; n++ {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		time.Sleep(look) // there is nothing to wait on
		least = min(least, runtime.NumGoroutine())
	}
	return least
}

// startAway starts an application while the server is away, with what an earlier process has kept.
func startAway(t *testing.T, p place, kept *consumer.LastGood) {
	t.Helper()
	begun := time.Now()
	c := p.consumer(t, p.config(t), "reader", kept)
	defer c.Close()
	s, err := c.Get(t.Context(), nameOf(1))
	good(t, err)
	took := time.Since(begun)
	if s.Value().Reveal() != "value of v1" || s.Source != consumer.SourceDisk || took > 30*time.Second {
		t.Errorf("from the disk after %v: version %s from %s", took, s.VersionID, s.Source)
	}
	if err := c.Ready(); err == nil {
		t.Error("it says that it is ready, without the server")
	}
	figures.Count("outage_start_from_disk_ms", int(took.Milliseconds()))
}
