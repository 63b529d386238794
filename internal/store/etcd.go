package store

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/keyturn/keyturn/internal/egress"
)

const (
	tick            = 10   // milliseconds; of a member that is alone
	election        = 100  // milliseconds
	clusterTick     = 100  // milliseconds
	clusterElection = 1000 // milliseconds
	dialTimeout     = 5 * time.Second
)

// Config says where the records are.
type Config struct {
	// Dir is the data directory of the embedded member, made with mode 0700.
	Dir string
	// Endpoints names an etcd cluster to use instead of the embedded member.
	Endpoints []string
	// TLS, Username and Password are for Endpoints.
	TLS                *tls.Config
	Username, Password string
	// Prefix stands before every key, so that a cluster can serve others too; empty means "keyturn/".
	Prefix string
	// Cluster makes the embedded member one of several; nil means that it is alone.
	Cluster *Cluster
	// MirrorBytes is about how much memory may hold records that were read lately; 0 means 320 MiB.
	MirrorBytes int
	// Quota is how many bytes the embedded store may take; 0 means 8 GiB.
	Quota int64
	// Reserve is how many bytes must be left on the disk of the embedded store for a change to be taken; 0 means 128 MiB,
	// less disables the check.
	Reserve int64
	// NoSync leaves out fsync: for throw-away stores only, such as those of tests.
	NoSync bool
	// Logger receives what etcd warns of. Nil means nothing is logged.
	Logger *slog.Logger
}

// Cluster says which members there are and how they reach each other.
type Cluster struct {
	// Name is this member's.
	Name string
	// Peers are the URLs of all members by name, this one's included: https://host:port, or http:// on loopback.
	Peers map[string]string
	// Listen is host:port where this member listens for the others; empty means that of its own URL.
	Listen string
	// CertFile, KeyFile and CAFile are PEM; each member proves to the others who it is. Empty for http.
	CertFile, KeyFile, CAFile string
	// AllowedCN and AllowedHostname restrict the certificates of other members to that common name, or to those that are
	// valid for that host name; empty means any certificate of CAFile. At most one is set.
	AllowedCN, AllowedHostname string
}

// Check reports every mistake at once.
func (c Cluster) Check() error {
	var errs []error
	own, ok := c.Peers[c.Name]
	if !ok {
		errs = append(errs, fmt.Errorf("cluster-peers does not have this node, %q", c.Name))
	}
	if len(c.Peers) < 3 {
		errs = append(errs, errors.New("cluster-peers has fewer than three nodes: none could be lost"))
	}
	for name, peer := range c.Peers {
		u, err := url.Parse(peer)
		switch {
		case err != nil || u.Host == "" || u.Port() == "" || u.Scheme != "https" && u.Scheme != "http":
			errs = append(errs, fmt.Errorf("cluster-peers: %s=%q is not https://host:port", name, peer))
		case u.Scheme == "http" && !egress.IsLoopback(u.Hostname()):
			errs = append(errs, fmt.Errorf("cluster-peers: %s=%q is not https and not on loopback", name, peer))
		}
	}
	if https := strings.HasPrefix(own, "https://"); https != (c.CertFile != "" && c.KeyFile != "" && c.CAFile != "") {
		errs = append(errs, errors.New("peer-cert-file, peer-key-file and peer-ca-file go with https peers, all three"))
	}
	if c.AllowedCN != "" && c.AllowedHostname != "" {
		errs = append(errs, errors.New("peer-allowed-cn and peer-allowed-hostname exclude each other"))
	}
	if c.AllowedCN+c.AllowedHostname != "" && c.CAFile == "" {
		errs = append(errs, errors.New("peer-allowed-cn and peer-allowed-hostname need https peers"))
	}
	return errors.Join(errs...)
}

// apply makes the member one of the cluster. Between machines etcd's own timing is used: ticks of 0.1 s.
func (c Cluster) apply(e *embed.Config) error {
	own, err := url.Parse(c.Peers[c.Name])
	if err != nil {
		return fmt.Errorf("cluster-peers: %w", err)
	}
	listen := *own
	if c.Listen != "" {
		listen.Host = c.Listen
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(c.Peers)) {
		all = append(all, name+"="+c.Peers[name])
	}
	e.Name, e.InitialCluster, e.InitialClusterToken = c.Name, strings.Join(all, ","), "keyturn"
	e.ListenPeerUrls, e.AdvertisePeerUrls = []url.URL{listen}, []url.URL{*own}
	e.TickMs, e.ElectionMs = clusterTick, clusterElection
	if own.Scheme == "https" {
		e.PeerTLSInfo = transport.TLSInfo{
			CertFile:         c.CertFile,
			KeyFile:          c.KeyFile,
			TrustedCAFile:    c.CAFile,
			ClientCertAuth:   true,
			AllowedCNs:       given(c.AllowedCN),
			AllowedHostnames: given(c.AllowedHostname),
		}
	}
	return nil
}

func given(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func (c Config) prefix() string {
	if c.Prefix == "" {
		return "keyturn/"
	}
	return c.Prefix
}

// openEmbedded starts a member that has no listener for clients: this process is its only client, so there is no socket to
// guard and no limit on the length of the data directory's path. A member that is alone listens nowhere.
func openEmbedded(ctx context.Context, c Config) (*clientv3.Client, *space, func() error, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, nil, nil, fmt.Errorf("data directory: %w", err)
	}
	start := &startLog{}
	failed := true
	defer func() { start.end(failed) }()
	config, err := embeddedConfig(c, start)
	if err != nil {
		return nil, nil, nil, err
	}
	member, err := embed.StartEtcd(config)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("start the store in %s: %w", c.Dir, err)
	}
	client := v3client.New(member.Server)
	stop := func() error {
		err := client.Close()
		member.Close()
		if errors.Is(err, context.Canceled) {
			err = nil
		}
		return err
	}
	select {
	case <-member.Server.ReadyNotify():
		failed = false
		return client, c.newSpace(client, member.Server), stop, nil
	case err := <-member.Err():
		return nil, nil, nil, errors.Join(fmt.Errorf("start the store in %s: %w", c.Dir, err), stop())
	case <-ctx.Done():
		return nil, nil, nil, errors.Join(fmt.Errorf("start the store in %s: %w", c.Dir, ctx.Err()), stop())
	}
}

func (c Config) newSpace(client *clientv3.Client, member *etcdserver.EtcdServer) *space {
	return &space{
		dir: c.Dir, reserve: cmp.Or(c.Reserve, DefaultReserve), quota: c.quota(), log: c.Logger,
		client: client, member: uint64(member.MemberID()), defragment: func() error { return member.Backend().Defrag() },
		flush: func() { member.Backend().ForceCommit() }, measuring: make(chan struct{}, 1),
	}
}

func (c Config) quota() int64 { return cmp.Or(c.Quota, DefaultQuota) }

func embeddedConfig(c Config, start *startLog) (*embed.Config, error) {
	e := embed.NewConfig()
	e.Name = "keyturn"
	e.Dir = filepath.Join(c.Dir, "etcd")
	e.ListenClientUrls, e.ListenPeerUrls = nil, nil
	local := url.URL{Scheme: "http", Host: "localhost:0"}
	e.AdvertiseClientUrls, e.AdvertisePeerUrls = []url.URL{local}, []url.URL{local}
	e.InitialCluster = e.InitialClusterFromName(e.Name)
	e.TickMs, e.ElectionMs = tick, election
	e.UnsafeNoFsync = c.NoSync
	e.QuotaBackendBytes = c.quota() + headRoom(c.quota())
	e.AutoCompactionMode, e.AutoCompactionRetention = embed.CompactorModePeriodic, "1h"
	e.MaxRequestBytes = 4 << 20
	e.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(bridge{log: c.Logger, start: start}))
	if c.Cluster != nil {
		return e, c.Cluster.apply(e)
	}
	return e, nil
}

func connect(_ context.Context, c Config) (*clientv3.Client, *space, func() error, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints: c.Endpoints, TLS: c.TLS, Username: c.Username, Password: c.Password,
		DialTimeout: dialTimeout, DialKeepAliveTime: dialTimeout, DialKeepAliveTimeout: dialTimeout,
		Logger: zap.New(bridge{log: c.Logger, start: &startLog{over: true}}),
	})
	if err != nil {
		return nil, nil, nil, fmt.Errorf("connect to the store at %q: %w", c.Endpoints, err)
	}
	return client, nil, client.Close, nil
}

// bridge hands what etcd logs from Warn on to slog. While a member starts, etcd warns of things that are as they should
// be here, an empty store among them; those lines are kept back, and shown only when the start fails.
type bridge struct {
	log    *slog.Logger
	start  *startLog
	fields []zapcore.Field
}

// startLog keeps lines back until it is known whether they matter.
type startLog struct {
	mu    sync.Mutex
	over  bool     // guarded by mu
	lines []func() // guarded by mu
}

func (s *startLog) add(line func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		line()
		return
	}
	s.lines = append(s.lines, line)
}

// end shows or drops what was kept back; from now on lines are shown as they come.
func (s *startLog) end(show bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.lines {
		if show {
			line()
		}
	}
	s.over, s.lines = true, nil
}

func (b bridge) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

func (b bridge) With(fields []zapcore.Field) zapcore.Core {
	b.fields = append(b.fields[:len(b.fields):len(b.fields)], fields...)
	return b
}

func (b bridge) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if b.Enabled(e.Level) {
		return ce.AddCore(e, b)
	}
	return ce
}

// harmless are lines about a store in which nothing was written yet; etcd says them once and mends it with the first write.
var harmless = map[string]bool{"Failed to detect schema version": true, "failed to update storage version": true}

// Write keeps the message and the error and drops the other fields: etcd's may hold keys and sizes of requests.
func (b bridge) Write(e zapcore.Entry, fields []zapcore.Field) error {
	if harmless[e.Message] {
		return nil
	}
	attrs := []any{"event", e.Message}
	for _, f := range append(b.fields[:len(b.fields):len(b.fields)], fields...) {
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			attrs = append(attrs, "err", err.Error())
		}
	}
	level := slog.LevelWarn
	if e.Level > zapcore.WarnLevel {
		level = slog.LevelError
	}
	b.start.add(func() { b.log.Log(context.Background(), level, "store", attrs...) })
	return nil
}

func (b bridge) Sync() error { return nil }
