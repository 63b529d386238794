package consumer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/kms"
)

const (
	defaultInterval = 5 * time.Minute
	minInterval     = time.Second
	minMaxStale     = 10 * time.Second
	maxTTL          = 24 * time.Hour
	// pushInterval is how often a value is read again while push works, as a precaution.
	pushInterval = time.Hour
	// readTimeout bounds one read. The server may hold a read for some seconds while it changes the
	// only credential.
	readTimeout = 25 * time.Second
	// slack is how late a confirmation may be before a value counts as stale.
	slack       = 30 * time.Second
	maxName     = 192
	maxInstance = 64
	maxReads    = 16 // under way at once, of different secrets
)

// API is what a Consumer needs of a client. *kms.Client has it; each call must end when its context
// does.
type API interface {
	GetSecretValue(ctx context.Context, in *kms.GetSecretValueRequest) (*kms.GetSecretValueResponse, error)
	WatchSecrets(ctx context.Context, in *kms.WatchSecretsRequest) (*kms.WatchSecretsResponse, error)
}

// Config says what to read and how. Only Client is required.
type Config struct {
	// Client calls the endpoint. NewClient makes one that fits. A client that retries by itself
	// multiplies what a server that is in trouble gets to see, and its timeout must be longer than
	// 25 seconds, which is how long a long poll waits.
	Client API
	// Secrets are names or ARNs that are read from the start on. Others are from their first Get
	// on.
	Secrets []string
	// Interval is how often a value is read again without push: each time after one half to the
	// whole of it, drawn anew. 0 means 5 minutes, or a third of MaxStale when that is less; the
	// least is one second. A value that is a JSON object with a member "ttl", in milliseconds, sets
	// its own, up to 24 hours.
	Interval time.Duration
	// MaxStale is how long a value is served after the server has last confirmed it. 0 means
	// without bound: then an application runs on during an outage, however long, and a right that
	// is withdrawn meanwhile is not noticed. At least 10 seconds and twice the interval.
	MaxStale time.Duration
	// Instance names this process to the server, which lists who holds which version: 1 to 64 of
	// A-Z a-z 0-9 _ / + = . @ -. Empty means host name, process ID and something random.
	Instance string
	// LastGood keeps the values on disk, sealed, for a start while the server is away. nil means
	// that nothing is written.
	LastGood *LastGood
	// LoginLimit is how many logins of one secret Login and Failed let a target reject in one
	// minute; Login has half as many under way at once. 0 means 10. Keep it below what locks an
	// account, divided by the number of instances.
	LoginLimit int
	// NoPush leaves long polls out.
	NoPush bool
	// Logger takes warnings; no value is ever in them. nil means slog.Default().
	Logger *slog.Logger
}

// What Get answers besides errors of the server, which stay in the chain for errors.Is and
// errors.As.
var (
	// ErrExpired says that the value was not confirmed for longer than Config.MaxStale.
	ErrExpired = errors.New("the value is older than MaxStale allows")
	// ErrAbsent says that there is no such secret, or that it is planned to be deleted.
	ErrAbsent = errors.New("there is no such secret")
	// ErrDenied says that the caller may not read the secret.
	ErrDenied = errors.New("reading it is not allowed")
	// ErrUnavailable says that there is no value yet because the server could not be asked.
	ErrUnavailable = errors.New("no value could be read yet")
	// ErrClosed says that the Consumer was closed.
	ErrClosed = errors.New("the consumer is closed")
)

// Consumer holds secrets and keeps them fresh. It is safe for concurrent use.
type Consumer struct {
	config   Config
	api      API
	log      *slog.Logger
	disk     *disk          // nil for none
	draw     func() float64 // in [0, 1)
	counters counters
	slots    chan struct{}

	entries atomic.Pointer[map[string]*entry] // replaced as a whole, so that a reader takes no lock

	ctx    context.Context // ends with Close; never that of a caller
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu          sync.Mutex
	closed      bool                 // guarded by mu
	subscribers map[*subscriber]bool // guarded by mu
	groups      []*group             // guarded by mu
}

// New returns a Consumer and starts its background work, which Close ends. It loads what
// Config.LastGood holds, starts to read Config.Secrets, and does not wait for a server: only a
// configuration that cannot work is an error. ctx bounds New alone.
func New(ctx context.Context, config Config) (*Consumer, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("consumer: %w", err)
	}
	if err := config.complete(); err != nil {
		return nil, err
	}
	c := &Consumer{
		config: config, api: config.Client, log: config.Logger, draw: mathrand.Float64,
		slots: make(chan struct{}, maxReads), subscribers: map[*subscriber]bool{},
	}
	if config.LastGood != nil {
		endpoint := ""
		if e, ok := config.Client.(interface{ Endpoint() string }); ok {
			endpoint = e.Endpoint()
		}
		var err error
		if c.disk, err = config.LastGood.open(endpoint); err != nil {
			return nil, err
		}
	}
	c.ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	c.entries.Store(&map[string]*entry{})
	c.preload(config.Secrets)
	return c, nil
}

func (c *Config) complete() error {
	var problems []error
	complain := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("consumer: "+format, args...))
	}
	if c.Client == nil {
		complain("Client is missing; NewClient makes one")
	}
	if c.MaxStale != 0 && c.MaxStale < minMaxStale {
		complain("MaxStale is %v; it must be 0 for no bound, or at least %v", c.MaxStale, minMaxStale)
	}
	switch {
	case c.Interval == 0 && c.MaxStale > 0:
		c.Interval = min(defaultInterval, c.MaxStale/3)
	case c.Interval == 0:
		c.Interval = defaultInterval
	case c.Interval < minInterval:
		complain("Interval is %v; it must be at least %v", c.Interval, minInterval)
	case c.MaxStale >= minMaxStale && c.Interval > c.MaxStale/2:
		complain("Interval is %v and MaxStale %v: a value would expire between two reads; make Interval at most half of MaxStale", c.Interval, c.MaxStale)
	}
	if c.LoginLimit < 0 {
		complain("LoginLimit is %d; it must be 0 for %d, or more", c.LoginLimit, defaultLoginLimit)
	} else if c.LoginLimit == 0 {
		c.LoginLimit = defaultLoginLimit
	}
	if c.Instance == "" {
		c.Instance = instance()
	} else if len(c.Instance) > maxInstance || strings.ContainsFunc(c.Instance, notInName) {
		complain("Instance must be 1 to %d of A-Z a-z 0-9 _ / + = . @ -", maxInstance)
	}
	for _, name := range c.Secrets {
		if err := checkName(name); err != nil {
			problems = append(problems, err)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return errors.Join(problems...)
}

func notInName(r rune) bool {
	return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_/+=.@-", r)
}

// instance names this process: where it runs, and something random, because containers share host
// names and process IDs.
func instance() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	host = strings.Map(func(r rune) rune {
		if notInName(r) {
			return '-'
		}
		return r
	}, host)
	return fmt.Sprintf("%.40s-%d-%.8s", host, os.Getpid(), rand.Text())
}

func checkName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("consumer: the name of a secret has 1 to %d characters, not %d", maxName, len(name))
	}
	return nil
}

// Close ends the background work, tells the server that this instance holds nothing any more, in at
// most two seconds, and returns when all has stopped. Values that were read can still be got.
func (c *Consumer) Close() error {
	c.mu.Lock()
	again := c.closed
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.work.Wait()
	if !again {
		c.reportLeaving()
	}
	return nil
}

// Get returns the current version of a secret. After the first time it takes nanoseconds, allocates
// nothing and asks nobody. The first Get of a name waits for one read, which all who ask for that
// name meanwhile share; ctx bounds the wait, not the read. When that read fails, the error is
// remembered until the next attempt is due. The errors are ErrExpired, ErrAbsent, ErrDenied,
// ErrUnavailable and ErrClosed, those of the server below them, and that of ctx.
func (c *Consumer) Get(ctx context.Context, name string) (*Secret, error) {
	e := (*c.entries.Load())[name]
	if e == nil {
		return c.first(ctx, name)
	}
	s := e.current.Load()
	if s == nil {
		return c.first(ctx, name)
	}
	now := time.Now()
	if confirmed := *e.confirmed.Load(); now.Sub(confirmed) > time.Duration(e.freshFor.Load()) || c.config.MaxStale > 0 {
		return c.aged(e, s, now, confirmed)
	}
	return s, nil
}

// aged serves a value that may be stale or expired. Where there is a bound, the wall clock counts
// too: the other clock stands still while a machine sleeps.
func (c *Consumer) aged(e *entry, s *Secret, now, confirmed time.Time) (*Secret, error) {
	switch c.stateOf(e, now, confirmed) {
	case StateExpired:
		c.counters.expiredReads.Add(1)
		return nil, fmt.Errorf("consumer: secret %q: %w: last confirmed %s ago", s.Name, ErrExpired, now.Sub(confirmed).Round(time.Second))
	case StateStale:
		c.counters.staleReads.Add(1)
		if e.warned.CompareAndSwap(false, true) {
			c.log.Warn("a stale value is served", "secret", s.Name, "version", s.VersionID, "confirmed", confirmed)
		}
	}
	return s, nil
}

// stateOf is the state of a value that is there.
func (c *Consumer) stateOf(e *entry, now, confirmed time.Time) string {
	age := now.Sub(confirmed)
	if bound := c.config.MaxStale; bound > 0 {
		wall := now.Round(0).Sub(confirmed.Round(0))
		if max(age, wall) > bound || age < -slack { // written to disk by a clock that was ahead: no age is known
			return StateExpired
		}
	}
	if age > time.Duration(e.freshFor.Load()) {
		return StateStale
	}
	return StateFresh
}

// first is Get where there is no value to answer with.
func (c *Consumer) first(ctx context.Context, name string) (*Secret, error) {
	for {
		e, err := c.entry(name)
		if err != nil {
			return nil, err
		}
		f, err := e.ask(time.Now())
		switch {
		case errors.Is(err, errForgotten):
			continue
		case err != nil:
			return nil, err
		}
		if err := e.wait(ctx, f); err != nil && e.current.Load() == nil {
			return nil, err
		}
		if s := e.current.Load(); s != nil {
			return c.aged(e, s, time.Now(), *e.confirmed.Load())
		}
	}
}

// entry returns the entry of a name, and starts to tend it when it is new.
func (c *Consumer) entry(name string) (*entry, error) {
	if e := (*c.entries.Load())[name]; e != nil {
		return e, nil
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fmt.Errorf("consumer: secret %q: %w", name, ErrClosed)
	}
	old := *c.entries.Load()
	if e := old[name]; e != nil {
		return e, nil
	}
	e := c.newEntry(name, false)
	all := maps.Clone(old)
	all[name] = e
	c.entries.Store(&all)
	c.work.Go(func() { c.keepFresh(e) })
	return e, nil
}

// preload adds the names of the configuration, all at once.
func (c *Consumer) preload(names []string) {
	all := map[string]*entry{}
	for _, name := range names {
		if all[name] == nil {
			all[name] = c.newEntry(name, true)
		}
	}
	c.entries.Store(&all)
	for _, e := range all {
		c.work.Go(func() { c.keepFresh(e) })
	}
}

// drop takes an entry out that nobody needs.
func (c *Consumer) drop(e *entry) {
	c.leave(e)
	c.mu.Lock()
	defer c.mu.Unlock()
	all := maps.Clone(*c.entries.Load())
	if all[e.name] == e {
		delete(all, e.name)
		c.entries.Store(&all)
	}
}

// Refresh reads a secret now, and returns when a read that began after the call has ended. Calls
// are merged, and reads of one secret begin at least a second apart; while they fail, ten seconds,
// and then the error of the last one is returned.
func (c *Consumer) Refresh(ctx context.Context, name string) error {
	for {
		e, err := c.entry(name)
		if err != nil {
			return err
		}
		f, err := e.force(time.Now())
		switch {
		case errors.Is(err, errForgotten):
			continue
		case err != nil:
			return err
		}
		select {
		case <-f.done:
			return f.err
		case <-ctx.Done():
			return fmt.Errorf("consumer: refresh secret %q: %w", name, context.Cause(ctx))
		}
	}
}
