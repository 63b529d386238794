package agent

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/internal/auth"
	"github.com/keyturn/keyturn/internal/ownfile"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sign"
)

const (
	// pollFiles is how often the files of the configuration are looked at. Polling sees what a notification of the kernel does not: mounts
	// over a network, and the links that Kubernetes swaps.
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
	// Serving is told, once, where things are served: http, kms and status to an address. nil means that nobody is.
	Serving func(places map[string]string)
}

// Check reads and checks the file of an agent. It contacts nothing and writes nothing. Warnings stop nothing; the error is a *ConfigError.
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
	hub     hub
	keys    atomic.Pointer[localKeys]
	auth    *auth.Authenticator
	gate    *Gate
	started time.Time
	// complete says that every value has been there and every file right, once.
	complete atomic.Bool

	// What is in force; one goroutine changes it, and the page reads it.
	mu        sync.Mutex
	setup     *setup                 // guarded by mu
	loadedAt  time.Time              // guarded by mu
	trouble   string                 // guarded by mu; why the file on disk is not in force
	keepers   map[string]*tended     // guarded by mu; by path
	listeners map[string]*listener   // guarded by mu; by role
	identity  identity               // of the consumer
	read      map[string][32]byte    // digests of the files that the configuration consists of
	stopTold  func()                 // ends the subscription
	rearm     chan (<-chan struct{}) // of a new subscription
}

// tended is a keeper with the goroutine that runs it.
type tended struct {
	*keeper
	stop context.CancelFunc
	done chan struct{}
}

// identity is what makes a consumer another one.
type identity struct {
	endpoint, ca, key, instance string
	interval, maxStale          time.Duration
	lastGood                    LastGood
}

// Run runs an agent until ctx ends. The error is a *ConfigError, or says why nothing can be served.
func Run(ctx context.Context, o Options) error {
	s, err := load(o.Path)
	if err != nil {
		return err
	}
	a := &agent{
		options: o, log: o.Logger(s.Log), started: time.Now(), keepers: map[string]*tended{}, listeners: map[string]*listener{},
		rearm: make(chan (<-chan struct{}), 1),
	}
	a.keys.Store(&localKeys{})
	a.auth = auth.New(auth.Config{
		Keys: finder{&a.keys}, Now: time.Now, Start: a.started, Nonces: nonces, Service: protocol.Service, Harmless: protocol.Harmless, Log: a.log,
	})
	held := &callers{hub: &a.hub}
	a.gate = &Gate{held: held, server: &a.hub, scope: &a.hub, leases: newLeases(held.heldName, a.hub.hold), log: a.log}
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
	work.Go(func() { a.pass(ctx) })
	a.watch(ctx)
	a.systemd("STOPPING=1")
	return nil
}

// finder looks keys up in those that are in force.
type finder struct{ keys *atomic.Pointer[localKeys] }

// Find finds a key.
func (f finder) Find(ctx context.Context, id string) (auth.Key, bool, error) {
	return f.keys.Load().Find(ctx, id)
}

func (a *agent) systemd(state string) {
	if err := notifySystemd(state); err != nil {
		a.log.Warn("systemd was not told", "state", state, "err", err)
	}
}

// announceReady tells systemd once every value is there and every file is right.
func (a *agent) announceReady(ctx context.Context) {
	if a.hub.complete(ctx, false) != nil {
		return
	}
	a.mu.Lock()
	keepers := slices.Collect(maps.Values(a.keepers))
	a.mu.Unlock()
	for _, k := range keepers {
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

// pass wakes the keepers whenever a secret has changed.
func (a *agent) pass(ctx context.Context) {
	var told <-chan struct{}
	for {
		select {
		case <-ctx.Done():
			return
		case told = <-a.rearm:
		case <-told:
		}
		a.mu.Lock()
		for _, k := range a.keepers {
			k.poke()
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

// reload reads the file, and puts it in force when it is right and can be. When it is not, everything stays as it is. again is when to
// try once more without a change; zero means never.
func (a *agent) reload(ctx context.Context) (again time.Time) {
	for path := range a.read { // what is wrong now is told once, and looked at again when it has changed
		a.read[path] = digestOf(path)
	}
	s, err := load(a.options.Path)
	if err == nil {
		if err = a.apply(ctx, s); err != nil {
			again = time.Now().Add(retryApply)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.trouble = ""
	if err != nil {
		a.trouble = err.Error()
		a.log.Error("the configuration is not put in force; the one before stays", "file", a.options.Path, "err", err)
		return again
	}
	a.log.Info("configuration put in force", "file", a.options.Path)
	return time.Time{}
}

// apply puts a configuration in force, as a whole or not at all.
func (a *agent) apply(ctx context.Context, s *setup) error {
	digests := map[string][32]byte{}
	for _, path := range s.read {
		digests[path] = digestOf(path)
	}
	next, id, fresh, err := a.supply(ctx, s)
	if err != nil {
		return err
	}
	abandon := func(err error) error {
		if fresh {
			_ = next.consumer.Close()
		}
		return err
	}
	handlers, keys, cert, err := a.handlers(s)
	if err != nil {
		return abandon(err)
	}
	opened, err := a.open(s)
	if err != nil {
		return abandon(err)
	}
	old := a.hub.state.Swap(next)
	a.keys.Store(&keys)
	a.identity, a.read = id, digests
	a.swapListeners(s, opened, handlers, cert)
	a.swapKeepers(s)
	a.mu.Lock()
	if a.setup != nil && a.setup.Log != s.Log {
		a.log.Warn("the settings of the log take effect when the agent is started again")
	}
	a.setup, a.loadedAt = s, time.Now()
	a.mu.Unlock()
	for _, w := range s.warnings {
		a.log.Warn("look at the configuration", "warning", w)
	}
	if fresh {
		a.subscribe(next.consumer)
		if old != nil {
			return old.consumer.Close()
		}
	}
	return nil
}

func (a *agent) subscribe(c *consumer.Consumer) {
	if a.stopTold != nil {
		a.stopTold()
	}
	told, stop := c.Changes()
	a.stopTold = stop
	select {
	case <-a.rearm: // one that was not taken yet
	default:
	}
	a.rearm <- told
}

// supply is the consumer for a configuration: the one that runs, if it is the same. A new one takes over once it has every value that
// the old one holds: a change of configuration loses none.
func (a *agent) supply(ctx context.Context, s *setup) (next *supply, id identity, fresh bool, err error) {
	credentials, err := s.AccessKey.read()
	if err != nil {
		return nil, id, false, fmt.Errorf("access_key: %w", err)
	}
	if id, err = s.identify(credentials); err != nil {
		return nil, id, false, err
	}
	old := a.hub.state.Load()
	if old != nil && id == a.identity {
		return &supply{old.consumer, old.client, s.secrets, s.anySecret()}, id, false, nil
	}
	next, err = s.newSupply(ctx, credentials, id.ca, a.options.UserAgent, a.log)
	if err != nil || old == nil {
		return next, id, true, err
	}
	ctx, cancel := context.WithTimeout(ctx, takeOver)
	defer cancel()
	for _, name := range s.secrets {
		if _, err := old.consumer.Get(ctx, name); err != nil {
			continue
		}
		if _, err := next.consumer.Get(ctx, name); err != nil {
			return nil, id, false, errors.Join(fmt.Errorf("with this configuration a value would be lost: %w", err), next.consumer.Close())
		}
	}
	return next, id, true, nil
}

func (s *setup) anySecret() bool { return s.KMS != nil && s.KMS.AnySecret }

func (s *setup) identify(c sign.Credentials) (identity, error) {
	id := identity{endpoint: s.Endpoint, instance: s.Instance, interval: s.Interval, maxStale: s.MaxStale}
	if s.LastGood != nil {
		id.lastGood = *s.LastGood
	}
	if s.CAFile != "" {
		pem, err := os.ReadFile(s.CAFile)
		if err != nil {
			return id, fmt.Errorf("ca_file: %w", err)
		}
		id.ca = string(pem)
	}
	digest := sha256.Sum256([]byte(c.AccessKeyID + "\x00" + c.AccessKeySecret.Reveal() + "\x00" + c.SecurityToken.Reveal()))
	id.key = hex.EncodeToString(digest[:])
	return id, nil
}

func (s *setup) newSupply(ctx context.Context, credentials sign.Credentials, ca, userAgent string, log *slog.Logger) (*supply, error) {
	config := kms.Config{Endpoint: s.Endpoint, Credentials: credentials, UserAgent: userAgent}
	if ca != "" {
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM([]byte(ca))
	}
	client, err := consumer.NewClient(config)
	if err != nil {
		return nil, err
	}
	config.MaxAttempts = 2 // a connection that was kept open may have gone
	through, err := consumer.NewClient(config)
	if err != nil {
		return nil, err
	}
	c, err := consumer.New(ctx, consumer.Config{
		Client: client, Secrets: s.secrets, Interval: s.Interval, MaxStale: s.MaxStale, Instance: s.Instance, LastGood: s.LastGood.open(), Logger: log,
	})
	if err != nil {
		return nil, err
	}
	return &supply{c, through, s.secrets, s.anySecret()}, nil
}

// handlers makes what is served, and reads what that needs.
func (a *agent) handlers(s *setup) (map[string]http.Handler, localKeys, *tls.Certificate, error) {
	handlers := map[string]http.Handler{}
	if s.HTTP != nil {
		t, err := readToken(s.HTTP.TokenFile)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("http: %w", err)
		}
		handlers["http"] = program(&a.hub, t)
	}
	if s.Status != nil {
		handlers["status"] = a.page(s.Status.AllowAnyAddress)
	}
	if s.KMS == nil {
		return handlers, nil, nil, nil
	}
	handlers["kms"] = signed(a.options.Door(a.gate, a.auth, a.log))
	sources := s.KMS.AccessKeys
	if len(sources) == 0 {
		sources = []KeySource{s.AccessKey}
	}
	var keys []sign.Credentials
	for _, source := range sources {
		key, err := source.read()
		if err != nil {
			return nil, nil, nil, fmt.Errorf("kms: access_keys: %w", err)
		}
		keys = append(keys, key)
	}
	if s.KMS.CertFile == "" {
		return handlers, newLocalKeys(keys), nil, nil
	}
	if err := ownfile.CheckSecret(s.KMS.KeyFile); err != nil {
		return nil, nil, nil, fmt.Errorf("kms: key_file: %w", err)
	}
	cert, err := tls.LoadX509KeyPair(s.KMS.CertFile, s.KMS.KeyFile)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("kms: cert_file: %w", err)
	}
	return handlers, newLocalKeys(keys), &cert, nil
}

// places are where a configuration wants things served, by role.
func (s *setup) places() map[string]place {
	out := map[string]place{}
	if h := s.HTTP; h != nil && h.Socket != "" {
		out["http"] = place{role: "http", network: "unix", address: h.Socket}
	} else if h != nil {
		out["http"] = place{role: "http", network: "tcp", address: h.Listen}
	}
	if s.KMS != nil {
		out["kms"] = place{role: "kms", network: "tcp", address: s.KMS.Listen, secure: s.KMS.CertFile != ""}
	}
	if s.Status != nil {
		out["status"] = place{role: "status", network: "tcp", address: s.Status.Listen}
	}
	return out
}

// open opens the listeners that a configuration needs and that are not there: all of them, or none.
func (a *agent) open(s *setup) (map[string]*listener, error) {
	opened := map[string]*listener{}
	for role, p := range s.places() {
		if l := a.listeners[role]; l != nil && l.place == p {
			continue
		}
		l, err := a.openOne(s, p)
		if err != nil {
			for _, l := range opened {
				l.close()
			}
			return nil, err
		}
		opened[role] = l
	}
	return opened, nil
}

func (a *agent) openOne(s *setup, p place) (*listener, error) {
	if l := a.listeners[p.role]; l != nil && l.network == p.network && l.address == p.address {
		return nil, fmt.Errorf("%s: turning TLS on or off at one address takes a restart", p.role)
	}
	return open(p, s.socketMode(), a.log)
}

// socketMode is the mode of the Unix socket; it means nothing without one.
func (s *setup) socketMode() fs.FileMode {
	if s.HTTP == nil {
		return 0
	}
	mode, _ := parseMode(cmp.Or(s.HTTP.SocketMode, "0600")) // checked when the file was read
	return mode
}

func (a *agent) swapListeners(s *setup, opened map[string]*listener, handlers map[string]http.Handler, cert *tls.Certificate) {
	wanted := s.places()
	var leaving []*listener
	a.mu.Lock()
	for role, l := range a.listeners {
		if wanted[role] != l.place {
			leaving = append(leaving, l)
			delete(a.listeners, role)
		}
	}
	maps.Copy(a.listeners, opened)
	for role, l := range a.listeners {
		l.certificate.Store(cert)
		l.serve(handlers[role])
		if l.socket != nil {
			if err := l.socket.chmod(s.socketMode()); err != nil {
				a.log.Error("mode of the socket not set", "err", err)
			}
		}
	}
	a.mu.Unlock()
	for _, l := range leaving {
		l.close()
	}
}

// swapKeepers lets keepers of files that stay as they are go on, and replaces the others.
func (a *agent) swapKeepers(s *setup) {
	wanted := map[string]*rendered{}
	for _, r := range s.files {
		wanted[r.Path] = r
	}
	a.mu.Lock()
	var leaving []*tended
	for path, k := range a.keepers {
		if r := wanted[path]; r != nil && k.rendered.same(r) {
			delete(wanted, path)
			continue
		}
		leaving = append(leaving, k)
		delete(a.keepers, path)
	}
	a.mu.Unlock()
	pending := map[string]bool{}
	for _, k := range leaving {
		k.stop()
		<-k.done
		pending[k.Path] = k.Status().Pending
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for path, r := range wanted {
		k := newKeeper(r, &a.hub, a.log)
		k.status.Pending = pending[path] && r.notify != nil // who was not told yet still is to be
		ctx, stop := context.WithCancel(context.Background())
		t := &tended{keeper: k, stop: stop, done: make(chan struct{})}
		a.keepers[path] = t
		go func() {
			defer close(t.done)
			t.run(ctx)
		}()
	}
}

func (r *rendered) same(o *rendered) bool {
	return reflect.DeepEqual(r.File, o.File) && r.source.text == o.source.text && r.uid == o.uid && r.gid == o.gid
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

// close stops everything, in the order in which nobody is left without what they use.
func (a *agent) close() {
	for _, l := range a.listeners {
		l.close()
	}
	for _, k := range a.keepers {
		k.stop()
	}
	for _, k := range a.keepers {
		<-k.done
	}
	a.gate.leases.close()
	if a.stopTold != nil {
		a.stopTold()
	}
	if state := a.hub.state.Load(); state != nil {
		if err := state.consumer.Close(); err != nil {
			a.log.Warn("consumer not closed", "err", err)
		}
	}
	a.log.Info("stopped")
}
