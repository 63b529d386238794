package store

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
)

const (
	tick            = 10   // milliseconds, of a member that is alone
	election        = 100  // milliseconds
	clusterTick     = 100  // milliseconds
	clusterElection = 1000 // milliseconds
	dialTimeout     = 5 * time.Second
)

// Config says where the records are, and sets the limits of an embedded store.
type Config struct {
	// Dir is the data directory of the embedded member. It is created with mode 0700.
	Dir string
	// Endpoints names an etcd cluster to use instead of the embedded member.
	Endpoints []string
	// TLS, Username and Password are used with Endpoints.
	TLS                *tls.Config
	Username, Password string
	// Prefix stands before every key, so that an etcd cluster can serve other programs too; empty
	// means "keyturn/".
	Prefix string
	// Cluster makes the embedded member one of several; nil means that it is alone.
	Cluster *Cluster
	// MirrorBytes is about how much memory recently read records may take; 0 means 320 MiB.
	MirrorBytes int
	// Quota is the most bytes that the embedded store may take; 0 means 8 GiB.
	Quota int64
	// Reserve is how many bytes must be free on the disk of the embedded store for changes to be
	// taken. 0 means 128 MiB; a negative value disables the check.
	Reserve int64
	// NoSync leaves out fsync. It is for disposable stores, such as in tests.
	NoSync bool
	// Logger receives the warnings of etcd. If nil, nothing is logged.
	Logger *slog.Logger
}

func (c Config) prefix() string {
	if c.Prefix == "" {
		return "keyturn/"
	}
	return c.Prefix
}

// openEmbedded starts a member without a listener for clients, because this process is its only
// client: no socket must be guarded, and the path of the data directory may be long. A member that
// is alone has no listener at all.
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
		dir:        c.Dir,
		reserve:    cmp.Or(c.Reserve, DefaultReserve),
		quota:      c.quota(),
		log:        c.Logger,
		client:     client,
		member:     uint64(member.MemberID()),
		defragment: func() error { return member.Backend().Defrag() },
		flush:      func() { member.Backend().ForceCommit() },
		measuring:  make(chan struct{}, 1),
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
		Endpoints:            c.Endpoints,
		TLS:                  c.TLS,
		Username:             c.Username,
		Password:             c.Password,
		DialTimeout:          dialTimeout,
		DialKeepAliveTime:    dialTimeout,
		DialKeepAliveTimeout: dialTimeout,
		Logger:               zap.New(bridge{log: c.Logger, start: &startLog{over: true}}),
	})
	if err != nil {
		return nil, nil, nil, fmt.Errorf("connect to the store at %q: %w", c.Endpoints, err)
	}
	return client, nil, client.Close, nil
}
