package agent

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/internal/auth"
	"github.com/keyturn/keyturn/internal/protocol"
)

const (
	// pollFiles is how often the files of the configuration are checked. Polling detects changes that
	// the kernel does not notify of: on network mounts, and of the links that Kubernetes swaps.
	pollFiles = 5 * time.Second
	// retryApply is how long after a configuration that could not be put in force it is tried again.
	retryApply = 30 * time.Second
	// takeOver bounds how long a new consumer has to get the values that the old one holds.
	takeOver = 15 * time.Second
)

// Options are what an agent is run with beside its file.
type Options struct {
	// Path is the file.
	Path string
	// Logger makes the log that the file asks for.
	Logger func(Log) *slog.Logger
	// Door is the wire API in front of a gate.
	Door func(g *Gate, a *auth.Authenticator, log *slog.Logger) http.Handler
	// UserAgent is sent to the server.
	UserAgent string
	// Reload has the file read anew.
	Reload <-chan os.Signal
	// Serving is called once with the addresses of http, kms and status; nil means not at all.
	Serving func(places map[string]string)
}

// Check reads and checks the file of an agent. It contacts nothing and writes nothing. Warnings
// stop nothing; the error is a *ConfigError.
func Check(path string) (warnings []string, err error) {
	s, err := load(path)
	if err != nil {
		return nil, err
	}
	return s.warnings, nil
}

// agent is a running agent.
type agent struct {
	options Options
	log     *slog.Logger
	source  secretSource
	keys    atomic.Pointer[localKeys]
	auth    *auth.Authenticator
	gate    *Gate
	started time.Time
	// complete is set once every value was available and every file was correct.
	complete atomic.Bool

	// The configuration in force; one goroutine changes it, and the status page reads it.
	mu        sync.Mutex
	setup     *setup                    // guarded by mu
	loadedAt  time.Time                 // guarded by mu
	trouble   string                    // guarded by mu; why the file on disk is not in force
	writers   map[string]*runningWriter // guarded by mu; by path
	listeners map[string]*listener      // guarded by mu; by role
	identity  identity                  // of the consumer
	read      map[string][32]byte       // digests of the files that the configuration consists of
	stopTold  func()                    // ends the subscription
	rearm     chan (<-chan struct{})    // of a new subscription
}

// runningWriter is a file writer with the goroutine that runs it.
type runningWriter struct {
	*fileWriter
	stop context.CancelFunc
	done chan struct{}
}

// identity is what makes a consumer another one.
type identity struct {
	endpoint, ca, key, instance string
	interval, maxStale          time.Duration
	lastGood                    LastGood
}

// Run runs an agent until ctx ends. The error is a *ConfigError, or the reason why nothing can be
// served.
func Run(ctx context.Context, o Options) error {
	s, err := load(o.Path)
	if err != nil {
		return err
	}
	a := newAgent(o, o.Logger(s.Log))
	defer a.close()
	if err := a.apply(ctx, s); err != nil {
		return err
	}
	if o.Serving != nil {
		o.Serving(a.addresses())
	}
	var work sync.WaitGroup
	defer work.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	work.Go(func() { a.announceReady(ctx) })
	work.Go(func() { a.wakeWriters(ctx) })
	a.watch(ctx)
	a.systemd("STOPPING=1")
	return nil
}

// newAgent returns an agent that serves nothing yet.
func newAgent(o Options, log *slog.Logger) *agent {
	a := &agent{
		options:   o,
		log:       log,
		started:   time.Now(),
		writers:   map[string]*runningWriter{},
		listeners: map[string]*listener{},
		rearm:     make(chan (<-chan struct{}), 1),
	}
	a.keys.Store(&localKeys{})
	a.auth = auth.New(auth.Config{
		Keys:     keyFinder{&a.keys},
		Now:      time.Now,
		Start:    a.started,
		Nonces:   nonces,
		Service:  protocol.Service,
		Harmless: protocol.Harmless,
		Log:      log,
	})
	held := &callers{secretSource: &a.source}
	a.gate = &Gate{
		held:   held,
		server: &a.source,
		scope:  &a.source,
		leases: newLeases(held.heldName, a.source.hold),
		log:    log,
	}
	return a
}

// keyFinder looks keys up in those that are in force.
type keyFinder struct{ keys *atomic.Pointer[localKeys] }

// Find finds a key.
func (f keyFinder) Find(ctx context.Context, id string) (auth.Key, bool, error) {
	return f.keys.Load().Find(ctx, id)
}

func (a *agent) systemd(state string) {
	if err := notifySystemd(state); err != nil {
		a.log.Warn("systemd was not notified", "state", state, "err", err)
	}
}

// announceReady notifies systemd once every value is available and every file is correct.
func (a *agent) announceReady(ctx context.Context) {
	if a.source.complete(ctx, false) != nil {
		return
	}
	a.mu.Lock()
	writers := slices.Collect(maps.Values(a.writers))
	a.mu.Unlock()
	for _, k := range writers {
		select {
		case <-k.first:
		case <-k.done: // another configuration has replaced it
		case <-ctx.Done():
			return
		}
	}
	a.complete.Store(true)
	a.log.Info("ready")
	a.systemd("READY=1")
}

// wakeWriters wakes the file writers whenever a secret has changed.
func (a *agent) wakeWriters(ctx context.Context) {
	var told <-chan struct{}
	for {
		select {
		case <-ctx.Done():
			return
		case told = <-a.rearm:
		case <-told:
		}
		a.mu.Lock()
		for _, k := range a.writers {
			k.wakeUp()
		}
		a.mu.Unlock()
	}
}

// watch puts a changed configuration in force, until ctx ends.
func (a *agent) watch(ctx context.Context) {
	tick := time.NewTicker(pollFiles)
	defer tick.Stop()
	var again time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.options.Reload:
			again = a.reload(ctx)
		case <-tick.C:
			if a.filesChanged() || !again.IsZero() && time.Now().After(again) {
				again = a.reload(ctx)
			}
		}
	}
}

// filesChanged reports whether the files of the configuration are not those that were read last.
func (a *agent) filesChanged() bool {
	for path, digest := range a.read {
		if digestOf(path) != digest {
			return true
		}
	}
	return false
}

func digestOf(path string) [32]byte {
	data, err := os.ReadFile(path)
	if err != nil {
		return [32]byte{}
	}
	return sha256.Sum256(data)
}

func (a *agent) addresses() map[string]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[string]string{}
	for role, l := range a.listeners {
		out[role] = l.where()
	}
	return out
}

// close stops every part after those that use it.
func (a *agent) close() {
	for _, l := range a.listeners {
		l.close()
	}
	for _, k := range a.writers {
		k.stop()
	}
	for _, k := range a.writers {
		<-k.done
	}
	a.gate.leases.close()
	if a.stopTold != nil {
		a.stopTold()
	}
	if state := a.source.state.Load(); state != nil {
		if err := state.consumer.Close(); err != nil {
			a.log.Warn("consumer not closed", "err", err)
		}
	}
	a.log.Info("stopped")
}
