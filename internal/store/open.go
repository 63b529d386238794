package store

import (
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
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	tick         = 10  // milliseconds
	election     = 100 // milliseconds
	dialTimeout  = 5 * time.Second
	defaultQuota = 8 << 30
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
	// NoSync leaves out fsync: for throw-away stores only, such as those of tests.
	NoSync bool
	// Logger receives what etcd warns of. Nil means nothing is logged.
	Logger *slog.Logger
}

func (c Config) prefix() string {
	if c.Prefix == "" {
		return "keyturn/"
	}
	return c.Prefix
}

// openEmbedded starts a member that has no listener at all: this process is its only client, so there is no socket to
// guard and no limit on the length of the data directory's path.
func openEmbedded(ctx context.Context, c Config) (*clientv3.Client, func() error, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("data directory: %w", err)
	}
	member, err := embed.StartEtcd(embeddedConfig(c))
	if err != nil {
		return nil, nil, fmt.Errorf("start the store in %s: %w", c.Dir, err)
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
		return client, stop, nil
	case err := <-member.Err():
		return nil, nil, errors.Join(fmt.Errorf("start the store in %s: %w", c.Dir, err), stop())
	case <-ctx.Done():
		return nil, nil, errors.Join(fmt.Errorf("start the store in %s: %w", c.Dir, ctx.Err()), stop())
	}
}

func embeddedConfig(c Config) *embed.Config {
	e := embed.NewConfig()
	e.Name = "keyturn"
	e.Dir = filepath.Join(c.Dir, "etcd")
	e.ListenClientUrls, e.ListenPeerUrls = nil, nil
	local := url.URL{Scheme: "http", Host: "localhost:0"}
	e.AdvertiseClientUrls, e.AdvertisePeerUrls = []url.URL{local}, []url.URL{local}
	e.InitialCluster = e.InitialClusterFromName(e.Name)
	e.TickMs, e.ElectionMs = tick, election
	e.UnsafeNoFsync = c.NoSync
	e.QuotaBackendBytes = defaultQuota
	e.AutoCompactionMode, e.AutoCompactionRetention = embed.CompactorModePeriodic, "1h"
	e.MaxRequestBytes = 4 << 20
	e.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(bridge{log: c.Logger}))
	return e
}

func connect(ctx context.Context, c Config) (*clientv3.Client, func() error, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints: c.Endpoints, TLS: c.TLS, Username: c.Username, Password: c.Password,
		DialTimeout: dialTimeout, DialKeepAliveTime: dialTimeout, DialKeepAliveTimeout: dialTimeout,
		Logger: zap.New(bridge{log: c.Logger}),
	})
	if err != nil {
		return nil, nil, fmt.Errorf("connect to the store at %q: %w", c.Endpoints, err)
	}
	return client, client.Close, nil
}

// bridge hands what etcd logs from Warn on to slog.
type bridge struct {
	log    *slog.Logger
	fields []zapcore.Field
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

// Write keeps the message and the error and drops the other fields: etcd's may hold keys and sizes of requests.
func (b bridge) Write(e zapcore.Entry, fields []zapcore.Field) error {
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
	b.log.Log(context.Background(), level, "store", attrs...)
	return nil
}

func (b bridge) Sync() error { return nil }
