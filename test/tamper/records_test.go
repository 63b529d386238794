// Package tamper_test changes what is stored behind the server's back: bytes flipped, records moved. The server must answer
// with an error, never with another value, and say nothing of any value.
package tamper_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// marker is part of every value; nothing but a right answer may hold it.
const marker = "marker-7f3c9a"

func seed(t *testing.T) *rand.Rand {
	t.Helper()
	n := rand.Uint64()
	if s := os.Getenv("KEYTURN_SEED"); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("KEYTURN_SEED: %v", err)
		}
	}
	t.Logf("KEYTURN_SEED=%d", n)
	return rand.New(rand.NewPCG(n, 1))
}

// logBuffer is the operator's log.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// take returns what was logged since the last call.
func (l *logBuffer) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.text.String()
	l.text.Reset()
	return s
}

// etcd starts an etcd server in this process. The servers under test keep their records in it, so that a test can change
// them while they run.
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
	log         *logBuffer
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, prefix: strings.ReplaceAll(t.Name(), "/", "-") + "/", key: root.File{Path: filepath.Join(t.TempDir(), "root.key")}, log: &logBuffer{}}
	s.kv, s.endpoint = etcd()
	if _, err := s.key.Load(true); err != nil {
		t.Fatal(err)
	}
	return s
}

// serve starts a server with nothing in memory yet. It may fail when records that it reads at its start are damaged.
func (s *site) serve() (c *kms.Client, stop func(), err error) {
	dir, err := os.MkdirTemp("", "keyturn-tamper-")
	if err != nil {
		s.t.Fatal(err)
	}
	remove := func() { _ = os.RemoveAll(dir) } // a directory in the system's place for such
	node, err := server.New(s.t.Context(), server.Config{
		DataDir: dir, ListenHTTP: "127.0.0.1:0", RootKey: s.key, Etcd: server.Etcd{Endpoints: []string{s.endpoint}, Prefix: s.prefix},
		Logger: slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
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
		s.account, s.credentials = admin.AccountID, sign.Credentials{AccessKeyID: admin.AccessKeyID, AccessKeySecret: admin.AccessKeySecret}
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
	c, err = s.connect(node.HTTPEndpoint(), s.credentials, transport)
	return c, stop, err
}

func (s *site) connect(endpoint string, credentials sign.Credentials, transport *http.Transport) (*kms.Client, error) {
	return kms.NewClient(kms.Config{Endpoint: "http://" + endpoint, Credentials: credentials, MaxAttempts: 1, HTTPClient: &http.Client{Transport: transport, Timeout: 20 * time.Second}})
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
	_, err := c.CreateSecret(t.Context(), &kms.CreateSecretRequest{SecretName: name, VersionID: "v0", SecretData: sensitive.New(value(account, name, "v0"))})
	if err == nil {
		_, err = c.PutSecretValue(t.Context(), &kms.PutSecretValueRequest{SecretName: name, VersionID: "v1", SecretData: sensitive.New(value(account, name, "v1"))})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// outcome reads the current value and holds what must be true of any answer: a value is the one that was stored under the
// version that the answer names, and an error says nothing of a value. It returns the code of an error, "right" for the
// current value, and "another version" for a true value that is not the current one.
func (s *site) outcome(c *kms.Client, account, name string) (string, error) {
	got, err := c.GetSecretValue(s.t.Context(), &kms.GetSecretValueRequest{SecretName: name})
	log := s.log.take()
	switch {
	case strings.Contains(log, marker):
		return "", fmt.Errorf("a value is in the log:\n%s", log)
	case strings.Contains(log, "panicked"):
		return "", fmt.Errorf("the server panicked:\n%s", log)
	case err == nil && got.SecretData.Reveal() == value(account, name, "v1") && got.VersionID == "v1":
		return "right", nil
	case err == nil && got.SecretData.Reveal() == value(account, name, got.VersionID):
		return "another version", nil
	case err == nil:
		return "", fmt.Errorf("the answer for version %q is a value of another record", got.VersionID)
	}
	var e *kms.Error
	if !errors.As(err, &e) {
		return "", fmt.Errorf("no answer: %w", err)
	}
	if strings.Contains(fmt.Sprint(e.Code, e.Message, e.HostID, e.Recommend, e.Header), marker) {
		return "", errors.New("a value is in the answer: " + e.Code)
	}
	return e.Code, nil
}

// flips calls visit with copies of data that have one bit changed: a random bit of each byte, or of so many of them.
func flips(random *rand.Rand, data []byte, most int, visit func(changed []byte, at int)) {
	for _, at := range random.Perm(len(data))[:min(most, len(data))] {
		changed := bytes.Clone(data)
		changed[at] ^= 1 << random.IntN(8)
		visit(changed, at)
	}
}

func tally(t *testing.T, what string, outcomes map[string]int) {
	t.Helper()
	total := 0
	for _, n := range outcomes {
		total += n
	}
	var list []string
	for _, o := range slices.Sorted(maps.Keys(outcomes)) {
		list = append(list, fmt.Sprintf("%s %d", o, outcomes[o]))
	}
	t.Logf("%s: %d changes: %s", what, total, strings.Join(list, ", "))
}

// TestSealedValue flips a bit of every byte of a sealed value, and cuts it short.
func TestSealedValue(t *testing.T) {
	t.Parallel()
	s, random := newSite(t), seed(t)
	c, _, err := s.serve()
	if err != nil {
		t.Fatal(err)
	}
	create(t, c, s.account, "a")
	key := "value/" + s.account + "/a:v1"
	whole, outcomes := s.read(key), map[string]int{}
	check := func(what string, changed []byte) {
		t.Helper()
		s.write(key, changed)
		code, err := s.outcome(c, s.account, "a")
		if err != nil || code != kms.CodeInternalFailure {
			t.Fatalf("%s: %s, %v; want %s", what, code, err, kms.CodeInternalFailure)
		}
		outcomes[code]++
	}
	flips(random, whole, len(whole), func(changed []byte, at int) { check(fmt.Sprintf("byte %d of %d flipped", at, len(whole)), changed) })
	for n := range len(whole) {
		check(fmt.Sprintf("cut to %d bytes", n), whole[:n])
	}
	check("one byte more", append(bytes.Clone(whole), 0))
	s.write(key, whole)
	if code, err := s.outcome(c, s.account, "a"); code != "right" {
		t.Errorf("put back as it was: %s, %v", code, err)
	}
	tally(t, "sealed value", outcomes)
}

// TestSecretRecord flips each byte of the record of a secret, which is not sealed: some changes leave the value as it is.
func TestSecretRecord(t *testing.T) {
	t.Parallel()
	s, random := newSite(t), seed(t)
	c, _, err := s.serve()
	if err != nil {
		t.Fatal(err)
	}
	create(t, c, s.account, "a")
	key := "secret/" + s.account + "/a"
	whole, outcomes := s.read(key), map[string]int{}
	flips(random, whole, len(whole), func(changed []byte, at int) {
		s.write(key, changed)
		code, err := s.outcome(c, s.account, "a")
		if err != nil {
			t.Fatalf("byte %d flipped, %q: %v", at, around(changed, at), err)
		}
		if outcomes[code]++; outcomes[code] <= 3 && code != kms.CodeInternalFailure && code != "right" {
			t.Logf("%s after %q", code, around(changed, at))
		}
	})
	tally(t, "secret record", outcomes)
	if outcomes[kms.CodeResourceNotFound] > 0 {
		t.Errorf("a damaged secret answers as if it were not there, %d times", outcomes[kms.CodeResourceNotFound])
	}
	// A limit: the labels are not sealed. Whoever can write the store can point one at another version of the same secret,
	// and the answer then says truly which version it is.
	s.write(key, bytes.Replace(whole, []byte(`"ACSCurrent":"v1"`), []byte(`"ACSCurrent":"v0"`), 1))
	if code, err := s.outcome(c, s.account, "a"); code != "another version" {
		t.Errorf("with ACSCurrent pointed at v0: %s, %v; want version v0 under its own name", code, err)
	}
}

func around(b []byte, at int) []byte { return b[max(0, at-20):min(len(b), at+20)] }

// TestKeyRecords flips bytes of the records of master key and access key. Each change meets a server that has nothing in
// memory.
func TestKeyRecords(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"cmk", "accesskey", "account", "meta"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s, random := newSite(t), seed(t)
			c, stop, err := s.serve()
			if err != nil {
				t.Fatal(err)
			}
			create(t, c, s.account, "a")
			stop()
			r, err := s.kv.Get(t.Context(), s.prefix+kind, clientv3.WithPrefix())
			if err != nil || len(r.Kvs) != 1 {
				t.Fatalf("records of kind %s: %v, %v", kind, r, err)
			}
			key, whole, outcomes := strings.TrimPrefix(string(r.Kvs[0].Key), s.prefix), r.Kvs[0].Value, map[string]int{}
			flips(random, whole, 120, func(changed []byte, at int) {
				s.write(key, changed)
				c, stop, err := s.serve()
				if err != nil {
					outcomes["no start"]++
					if strings.Contains(err.Error(), marker) {
						t.Errorf("a value is in the error: %v", err)
					}
					return
				}
				defer stop()
				code, err := s.outcome(c, s.account, "a")
				if err != nil || code == "another version" {
					t.Fatalf("byte %d flipped, %q: %s, %v", at, around(changed, at), code, err)
				}
				if outcomes[code]++; outcomes[code] <= 3 && code != kms.CodeInternalFailure && code != "right" {
					t.Logf("%s after %q", code, around(changed, at))
				}
			})
			tally(t, kind+" record", outcomes)
		})
	}
}

// secondAccount makes another account with an access key, as a later release will by its own operations.
func (s *site) secondAccount(id string) sign.Credentials {
	s.t.Helper()
	ctx := s.t.Context()
	db, err := store.Open(ctx, store.Config{Endpoints: []string{s.endpoint}, Prefix: s.prefix})
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	key, err := s.key.Load(false)
	if err != nil {
		s.t.Fatal(err)
	}
	credentials := sign.Credentials{AccessKeyID: "KTsecond", AccessKeySecret: sensitive.New("second secret")}
	_, err = store.Update(ctx, db, func(tx *store.Tx) (struct{}, error) {
		return struct{}{}, errors.Join(tx.PutAccount(store.Account{ID: id, CreatedAt: time.Now()}), tx.PutAccessKey(store.AccessKey{
			ID: credentials.AccessKeyID, CreatedAt: time.Now(), Principal: policy.Principal{Kind: policy.KindAccount, Account: id, ID: id},
			Secret: envelope.New(key).SealAccessKey(credentials.AccessKeyID, "secret", credentials.AccessKeySecret),
		}))
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return credentials
}

// TestMoved puts sealed values in each other's place: between versions, secrets and accounts.
func TestMoved(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c, stop, err := s.serve()
	if err != nil {
		t.Fatal(err)
	}
	first, second := s.account, "2222222222222222"
	create(t, c, first, "a")
	create(t, c, first, "b")
	stop()
	mine := s.credentials
	s.credentials = s.secondAccount(second)
	theirs, stop, err := s.serve()
	if err != nil {
		t.Fatal(err)
	}
	create(t, theirs, second, "a")
	defer stop()
	s.credentials = mine
	if c, _, err = s.serve(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, from, to string }{
		{"an older version of the same secret", "value/" + first + "/a:v0", "value/" + first + "/a:v1"},
		{"another secret", "value/" + first + "/b:v1", "value/" + first + "/a:v1"},
		{"another account", "value/" + second + "/a:v1", "value/" + first + "/a:v1"},
		{"the master key of another account", s.only("cmk/" + second + "/"), s.only("cmk/" + first + "/")},
		{"the record of another secret", "secret/" + first + "/b", "secret/" + first + "/a"},
		{"the record of the same name in another account", "secret/" + second + "/a", "secret/" + first + "/a"},
		{"the access key of another account", "accesskey/KTsecond", "accesskey/" + mine.AccessKeyID},
	} {
		whole := s.read(tt.to)
		s.write(tt.to, s.read(tt.from))
		code, err := s.outcome(c, first, "a")
		if err != nil || code != kms.CodeInternalFailure {
			t.Errorf("%s: %s, %v; want %s", tt.name, code, err, kms.CodeInternalFailure)
		}
		s.write(tt.to, whole)
		if code, err = s.outcome(c, first, "a"); code != "right" {
			t.Fatalf("%s, put back: %s, %v", tt.name, code, err)
		}
	}
	if code, err := s.outcome(theirs, second, "a"); code != "right" {
		t.Errorf("the other account, untouched: %s, %v", code, err)
	}
}

// only is the one record whose key begins with prefix.
func (s *site) only(prefix string) string {
	s.t.Helper()
	r, err := s.kv.Get(s.t.Context(), s.prefix+prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil || len(r.Kvs) != 1 {
		s.t.Fatalf("records %q: %v, %v", prefix, r, err)
	}
	return strings.TrimPrefix(string(r.Kvs[0].Key), s.prefix)
}
