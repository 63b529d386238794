package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/auth"
	"github.com/keyturn/keyturn/internal/conns"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/limit"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/rotator"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
)

const (
	openTimeout    = 30 * time.Second
	clusterTimeout = 5 * time.Minute // for a majority of the nodes to come up
)

// Server is one Keyturn node.
type Server struct {
	config     Config
	db         *store.DB
	keyring    *envelope.Keyring
	keys       *rekeying
	trail      *audit.Log
	heads      heads
	sinks      []*audit.Forwarder
	restored   string // why the store counts as restored from a copy; empty when it does not
	gate       *api.Gate
	auth       *auth.Authenticator
	history    *auth.History // of used nonces; nil until it is opened
	limit      *limit.Limiter
	conns      *conns.Guard
	refusals   *limit.Pacer // of sources
	useless    *limit.Pacer // of access keys
	uses       *api.KeyUses
	consumers  *api.Consumers
	stopping   chan struct{} // closed when no call may wait any longer
	rotator    *rotator.Rotator
	metrics    *metrics
	account    string
	admin      Admin
	firstAdmin bool
	offline    bool // no listener and no loops: for Offline
	caFile     string
	ca         *authority      // nil without one
	own        *ownCertificate // nil with the local CA
	tls, plain net.Listener
	pages      net.Listener // of the metrics
	ready      chan struct{}
}

// New opens the store and the trail, sets a new store up, and listens; nothing is served before
// Run. What it has opened is closed again when it fails.
func New(ctx context.Context, c Config) (*Server, error) { return open(ctx, c, false) }

func open(ctx context.Context, c Config, offline bool) (_ *Server, err error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	// Paths are written down for others to use, who may stand in another directory.
	if c.DataDir, err = filepath.Abs(c.DataDir); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	c = c.withDefaults()
	timeout := openTimeout
	if c.Cluster != nil {
		timeout = clusterTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	start := c.Now()
	if c.MaxConnections, err = maxConnections(c.MaxConnections); err != nil {
		return nil, err
	}
	s := &Server{config: c, offline: offline, ready: make(chan struct{}), stopping: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release())
		}
	}()
	if err := s.openData(ctx); err != nil {
		return nil, err
	}
	if !offline {
		if err := s.checkMark(ctx, s.firstAdmin); err != nil {
			return nil, err
		}
		if err := s.openHistory(start); err != nil {
			return nil, err
		}
	}
	s.assemble()
	return s, nil
}

// openData opens the listeners, the store and the trail.
func (s *Server) openData(ctx context.Context) error {
	c := s.config
	if s.offline && len(c.Etcd.Endpoints) == 0 {
		if _, err := os.Stat(filepath.Join(c.DataDir, "store")); err != nil {
			return errNoStore
		}
	}
	if err := makeDataDir(c); err != nil {
		return err
	}
	// The trail's lock comes first: its error says that another server uses this directory.
	var err error
	if s.trail, err = audit.Lock(audit.Config{Dir: c.AuditDir, Now: c.Now, Logger: c.Logger}); err != nil {
		return err
	}
	if !s.offline {
		if err := s.listen(); err != nil {
			return err
		}
	}
	if s.db, err = store.Open(ctx, c.store()); err != nil {
		return err
	}
	if s.offline { // a command must not take the way back to the older release away
		if err := store.CheckUpgraded(ctx, s.db); err != nil {
			return err
		}
	}
	if err := s.setUp(ctx); err != nil {
		return err
	}
	if err := s.resumeTrail(ctx); err != nil || s.offline {
		return err
	}
	return store.Upgrade(ctx, s.db, c.Logger)
}

// store is the part of the configuration that is for the store.
func (c Config) store() store.Config {
	return store.Config{
		Dir:         filepath.Join(c.DataDir, "store"),
		NoSync:      c.NoSync,
		Logger:      c.Logger,
		Endpoints:   c.Etcd.Endpoints,
		TLS:         c.Etcd.TLS,
		Username:    c.Etcd.Username,
		Password:    c.Etcd.Password,
		Prefix:      c.Etcd.Prefix,
		Cluster:     c.Cluster,
		MirrorBytes: c.ReadMemory << 20,
		Quota:       int64(c.StoreQuota) << 20,
		Reserve:     int64(c.StoreReserve) << 20,
	}
}

func (s *Server) listen() error {
	c := s.config
	s.conns = conns.New(conns.Config{Total: c.MaxConnections, PerSource: c.MaxPerSource, Trusted: c.Proxies.Trusts})
	if c.ListenMetrics != "" {
		l, err := listenAt("listen-metrics", c.ListenMetrics)
		if err != nil {
			return err
		}
		s.pages = conns.New(conns.Config{Total: conns.Least, Trusted: func(netip.Addr) bool { return true }}).Listener(l)
	}
	if c.ListenHTTP != "" {
		l, err := listenAt("listen-http", c.ListenHTTP)
		if err != nil {
			return err
		}
		s.plain = s.conns.Listener(l)
	}
	if c.Listen == "" {
		return nil
	}
	config, own, ca, err := tlsConfig(c)
	if err != nil {
		return err
	}
	l, err := listenAt("listen", c.Listen)
	if err != nil {
		return err
	}
	s.tls, s.own, s.ca = tls.NewListener(s.conns.Listener(l), config), own, ca
	if ca != nil {
		s.caFile = ca.file
	}
	return nil
}

// listenAt opens the listener of a setting.
func listenAt(setting, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("another program listens at %s: stop it, or choose another address with --%s",
			address, setting)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	return l, nil
}

// assemble makes the parts that requests go through.
func (s *Server) assemble() {
	c := s.config
	s.uses = api.NewKeyUses(s.db, c.Logger)
	s.consumers = api.NewConsumers(s.db, c.Now, c.Logger)
	targets, receivers := s.dialers()
	env := s.env()
	env.Dial = targets.DialContext
	s.gate = api.NewGate(env, recorder{s.trail, &s.heads})
	s.auth = auth.New(auth.Config{
		Keys:     &accessKeys{db: s.db, keyring: s.keyring},
		Now:      c.Now,
		Log:      c.Logger,
		Nonces:   c.NonceLimit,
		History:  s.history,
		Ahead:    c.ClockAhead,
		RefuseV1: c.RefuseV1,
		Regions:  append([]string{c.Region}, c.SignatureRegions...),
		Service:  protocol.Service,
		Harmless: protocol.Harmless,
	})
	s.limit = limit.New(c.Limit)
	s.refusals, s.useless = limit.NewPacer(c.RefusalRate), limit.NewPacer(2*c.RefusalRate)
	s.metrics = newMetrics(s)
	engine := c.Rotator
	engine.Dial = receivers.DialContext
	engine.Node, engine.Region, engine.Logger, engine.Observe = s.node(), c.Region, c.Logger, s.metrics
	s.rotator = rotator.New(s.db, s.gate, c.Now, engine)
}

// env is the world of the handlers, but for the dialer of targets.
func (s *Server) env() *api.Env {
	c := s.config
	env := &api.Env{
		DB:             s.db,
		Keyring:        s.keyring,
		Region:         c.Region,
		Now:            c.Now,
		Random:         c.Random,
		Log:            c.Logger,
		Uses:           s.uses,
		Consumers:      s.consumers,
		Trail:          s.trail,
		RootKeys:       s.keys,
		RotateCA:       s.rotateCA,
		RootKeyDeleted: s.rootKeyDeleted,
		Stopping:       s.stopping,
		Kinds:          map[string]target.Kind{},
		Rotation:       c.Rotation,
		TestTime:       c.TestTime,
	}
	env.Rotation.Events = len(c.Rotator.Receivers) > 0
	for _, k := range c.Kinds {
		env.Kinds[k.Name] = k
	}
	if env.Random == nil {
		env.Random = rand.Reader
	}
	return env
}

func address(l net.Listener) string {
	if l == nil {
		return ""
	}
	return l.Addr().String()
}

// Reload makes the server read again what can change while it runs: the operator's certificate. It
// does not wait; the log has the result. Before Run, it takes effect when Run begins.
func (s *Server) Reload() {
	if s.own == nil {
		s.config.Logger.Info("there is nothing to reload: settings take effect at the next start")
		return
	}
	s.config.Logger.Info("reading the TLS certificate again; other settings take effect at the next start")
	s.own.reload()
}

// Endpoint is host:port of the TLS listener, as a client on this machine uses it; empty without a
// listener. A listener on every address is called by the first name of the settings or of the
// operator's own certificate, because a certificate has no name such as "::".
func (s *Server) Endpoint() string {
	names := s.config.TLSNames
	if len(names) == 0 && s.own != nil {
		names = s.own.leaf().DNSNames
	}
	for _, name := range names {
		if !strings.HasPrefix(name, "*.") {
			return clientAddress(s.tls, name)
		}
	}
	return clientAddress(s.tls, loopback)
}

// HTTPEndpoint is host:port of the plain listener, as a client on this machine uses it; empty
// without a listener.
func (s *Server) HTTPEndpoint() string { return clientAddress(s.plain, loopback) }

const loopback = "127.0.0.1"

// clientAddress is the address of a listener; one on every address is called by name.
func clientAddress(l net.Listener, name string) string {
	at := address(l)
	host, port, err := net.SplitHostPort(at)
	if err != nil {
		return at
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort(name, port)
	}
	return at
}

// MetricsEndpoint is host:port of the listener of the metrics; empty without one.
func (s *Server) MetricsEndpoint() string { return address(s.pages) }

// Admin returns the administrator of admin.json, and whether this start has created it.
func (s *Server) Admin() (admin Admin, first bool) { return s.admin, s.firstAdmin }

// Account is the ID of the account.
func (s *Server) Account() string { return s.account }

// Watching is how many callers wait for a change.
func (s *Server) Watching() int { return s.db.Following() }

// CAFile is the certificate to trust; empty when the server has one of the operator's own.
func (s *Server) CAFile() string { return s.caFile }

// Ready is closed when the server serves.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// release closes what New has opened.
func (s *Server) release() error {
	var errs []error
	for _, l := range []net.Listener{s.tls, s.plain, s.pages} {
		if l != nil {
			if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	if s.history != nil {
		errs = append(errs, s.history.Close())
	}
	if s.trail != nil {
		errs = append(errs, s.trail.Close())
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	return errors.Join(errs...)
}

// node names this node in the store.
func (s *Server) node() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d", host, os.Getpid())
}
