package tamper_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"

	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/support"
)

// edit opens the store of a stopped server and changes it.
func edit(t *testing.T, dataDir string, change func(ctx context.Context, kv *clientv3.Client)) {
	t.Helper()
	c := embed.NewConfig()
	c.Name = "keyturn"
	c.Dir = filepath.Join(dataDir, "store", "etcd")
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	c.ListenClientUrls, c.ListenPeerUrls = nil, nil
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.TickMs, c.ElectionMs = 10, 100
	e, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(support.Patience):
		t.Fatal("the store did not open")
	}
	kv := v3client.New(e.Server)
	defer kv.Close()
	change(t.Context(), kv)
}

// TestEmbedded flips bytes in the embedded store of a stopped server, one sort of record after
// the other, and starts it.
func TestEmbedded(t *testing.T) {
	t.Parallel()
	random, dir := seed(t), t.TempDir()
	s := keyturntest.Start(t, keyturntest.WithDataDir(dir))
	create(t, s.Client, s.AccountID, "a")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		kind string
		bit  func(record []byte) int
	}{
		{"value/" + s.AccountID + "/a:v1", func(b []byte) int { return 8*(len(b)-1) + random.IntN(8) }},
		{"value/" + s.AccountID + "/a:v1", func(b []byte) int { return random.IntN(8 * len(b)) }},
		{"secret/" + s.AccountID + "/a", behind(random, `"stages":{"`, 10)},
		{"secret/" + s.AccountID + "/a", behind(random, `"name":"`, 1)},
		{"cmk/", behind(random, `"material":"`, 40)},
		{"accesskey/", behind(random, `"secret":"`, 40)},
	} {
		var key string
		var whole []byte
		edit(t, dir, func(ctx context.Context, kv *clientv3.Client) {
			r, err := kv.Get(ctx, "keyturn/"+tt.kind, clientv3.WithPrefix())
			if err != nil || len(r.Kvs) != 1 {
				t.Fatalf("records %s: %v, %v", tt.kind, r, err)
			}
			key, whole = string(r.Kvs[0].Key), r.Kvs[0].Value
			changed, at := bytes.Clone(whole), tt.bit(whole)
			changed[at/8] ^= 1 << (at % 8)
			if _, err := kv.Put(ctx, key, string(changed)); err != nil {
				t.Fatal(err)
			}
		})
		s = keyturntest.Start(t, keyturntest.WithDataDir(dir))
		got, err := s.Client.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: "a"})
		if err == nil || kms.CodeOf(err) != kms.CodeInternalFailure || strings.Contains(err.Error(), marker) {
			t.Errorf("a byte of %s flipped: %+v, %v; want %s", tt.kind, got, err, kms.CodeInternalFailure)
		}
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		edit(t, dir, func(ctx context.Context, kv *clientv3.Client) {
			if _, err := kv.Put(ctx, key, string(whole)); err != nil {
				t.Fatal(err)
			}
		})
	}
	s = keyturntest.Start(t, keyturntest.WithDataDir(dir))
	if got, err := s.Client.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: "a"}); err != nil ||
		got.SecretData.Reveal() != value(s.AccountID, "a", "v1") {
		t.Errorf("with the original bytes restored: %v", err)
	}
}

// behind chooses a bit of the few bytes that follow text in a record.
func behind(random *rand.Rand, text string, few int) func([]byte) int {
	return func(record []byte) int {
		return 8*(bytes.Index(record, []byte(text))+len(text)) + random.IntN(8*few)
	}
}
