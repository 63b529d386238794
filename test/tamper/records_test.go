// Package tamper_test changes what is stored behind the server's back: bytes flipped, records
// moved. The server must answer with an error, never with another value, and say nothing of any
// value.
package tamper_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"

	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/rotator"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/redis"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
	"github.com/keyturn/keyturn/test/support"
)

// marker is part of every value; nothing but a right answer may hold it.
const marker = "marker-7f3c9a"

func seed(t *testing.T) *rand.Rand {
	t.Helper()
	return rand.New(rand.NewPCG(support.Seed(t), 1))
}

// etcd starts an etcd server in this process. The servers under test keep their records in it, so
// that a test can change them while they run.
var etcd = sync.OnceValues(func() (*clientv3.Client, string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	endpoint := url.URL{Scheme: "http", Host: l.Addr().String()}
	_ = l.Close() // etcd listens there now
	dir, err := os.MkdirTemp("", "keyturn-tamper-")
	if err != nil {
		panic(err)
	}
	c := embed.NewConfig()
	c.Dir, c.UnsafeNoFsync, c.ZapLoggerBuilder = dir, true, embed.NewZapLoggerBuilder(zap.NewNop())
	c.ListenClientUrls, c.AdvertiseClientUrls, c.ListenPeerUrls = []url.URL{endpoint}, []url.URL{endpoint}, nil
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.TickMs, c.ElectionMs = 10, 100
	e, err := embed.StartEtcd(c)
	if err != nil {
		panic(err)
	}
	<-e.Server.ReadyNotify()
	stopEtcd = func() { e.Close(); _ = os.RemoveAll(dir) }
	return v3client.New(e.Server), endpoint.String()
})

var stopEtcd = func() {}

func TestMain(m *testing.M) {
	code := m.Run()
	stopEtcd()
	os.Exit(code)
}

// site is a store and what is needed to serve it.
type site struct {
	t           *testing.T
	kv          *clientv3.Client
	endpoint    string
	prefix      string
	key         root.File
	account     string
	credentials sign.Credentials
	log         *support.Log
	http        string // host:port of the server started last
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{
		t:      t,
		prefix: strings.ReplaceAll(t.Name(), "/", "-") + "/",
		key:    root.File{Path: filepath.Join(t.TempDir(), "root.key")},
		log:    &support.Log{},
	}
	s.kv, s.endpoint = etcd()
	if _, err := s.key.Load(true); err != nil {
		t.Fatal(err)
	}
	return s
}

// serve starts a server with nothing in memory yet. It may fail when records that it reads at its
// start are damaged.
func (s *site) serve() (c *kms.Client, stop func(), err error) {
	dir, err := os.MkdirTemp("", "keyturn-tamper-")
	if err != nil {
		s.t.Fatal(err)
	}
	remove := func() { _ = os.RemoveAll(dir) } // a directory in the system's place for such
	node, err := server.New(s.t.Context(), server.Config{
		DataDir:    dir,
		ListenHTTP: "127.0.0.1:0",
		RootKey:    s.key,
		Etcd:       server.Etcd{Endpoints: []string{s.endpoint}, Prefix: s.prefix},
		Logger:     slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Kinds:      []target.Kind{redis.Kind()},
		Rotator:    rotator.Config{Receivers: []rotator.Receiver{{URL: "http://127.0.0.1:1/"}}},
	})
	if err != nil {
		remove()
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	<-node.Ready()
	if admin, first := node.Admin(); first {
		s.account = admin.AccountID
		s.credentials = sign.Credentials{AccessKeyID: admin.AccessKeyID, AccessKeySecret: admin.AccessKeySecret}
	}
	transport := &http.Transport{}
	stop = sync.OnceFunc(func() {
		transport.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("stop a server: %v", err)
		}
		remove()
	})
	s.t.Cleanup(stop)
	s.http = node.HTTPEndpoint()
	c, err = s.connect(s.http, s.credentials, transport)
	return c, stop, err
}

func (s *site) connect(endpoint string, credentials sign.Credentials, transport *http.Transport) (*kms.Client, error) {
	return kms.NewClient(kms.Config{
		Endpoint:    "http://" + endpoint,
		Credentials: credentials,
		MaxAttempts: 1,
		HTTPClient:  &http.Client{Transport: transport, Timeout: 20 * time.Second},
	})
}

func (s *site) read(key string) []byte {
	s.t.Helper()
	r, err := s.kv.Get(s.t.Context(), s.prefix+key)
	if err != nil || len(r.Kvs) != 1 {
		s.t.Fatalf("record %q: %v, %v", key, r, err)
	}
	return r.Kvs[0].Value
}

func (s *site) write(key string, data []byte) {
	s.t.Helper()
	if _, err := s.kv.Put(s.t.Context(), s.prefix+key, string(data)); err != nil {
		s.t.Fatal(err)
	}
}

// value is what a version holds.
func value(account, name, version string) string {
	return fmt.Sprintf("%s %s %s %s", marker, account, name, version)
}

// create makes a secret of two versions; the second is current.
func create(t *testing.T, c *kms.Client, account, name string) {
	t.Helper()
	_, err := c.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: name,
		VersionID:  "v0",
		SecretData: sensitive.New(value(account, name, "v0")),
	})
	if err == nil {
		_, err = c.PutSecretValue(t.Context(), &kms.PutSecretValueRequest{
			SecretName: name,
			VersionID:  "v1",
			SecretData: sensitive.New(value(account, name, "v1")),
		})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// flips calls visit with copies of data that have one bit changed: a random bit of each byte.
func flips(random *rand.Rand, data []byte, visit func(changed []byte, at int)) {
	for at := range data {
		changed := bytes.Clone(data)
		changed[at] ^= 1 << random.IntN(8)
		visit(changed, at)
	}
}

func around(b []byte, at int) []byte { return b[max(0, at-20):min(len(b), at+20)] }

// unlock prepares a store for reading and writing, as a server does at its start.
func (s *site) unlock(db *store.DB) (*envelope.Keyring, error) {
	key, err := s.key.Load(false)
	if err != nil {
		return nil, err
	}
	sealed, _, err := db.RecordKey(s.t.Context())
	if err != nil {
		return nil, err
	}
	keyring := envelope.New(key)
	records, err := keyring.OpenRecords(sealed)
	if err == nil {
		db.Authenticate(records)
	}
	return keyring, err
}

// secondAccount makes another account with an access key, as a later release will by its own
// operations.
func (s *site) secondAccount(id string) sign.Credentials {
	s.t.Helper()
	ctx := s.t.Context()
	db, err := store.Open(ctx, store.Config{Endpoints: []string{s.endpoint}, Prefix: s.prefix})
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	keyring, err := s.unlock(db)
	if err != nil {
		s.t.Fatal(err)
	}
	credentials := sign.Credentials{AccessKeyID: "KTsecond", AccessKeySecret: sensitive.New("second secret")}
	err = store.Do(ctx, db, func(tx *store.Tx) error {
		return errors.Join(tx.PutAccount(store.Account{ID: id, CreatedAt: time.Now()}), tx.PutAccessKey(store.AccessKey{
			ID:        credentials.AccessKeyID,
			CreatedAt: time.Now(),
			Principal: policy.Principal{Kind: policy.KindAccount, Account: id, ID: id},
			Secret:    keyring.SealAccessKey(credentials.AccessKeyID, "secret", credentials.AccessKeySecret),
		}))
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return credentials
}
