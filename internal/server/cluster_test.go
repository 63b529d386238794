package server_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// node is a server that a test starts and stops.
type node struct {
	*server.Server
	client *kms.Client
	stop   func() error
}

// startNode starts a server; zero credentials stand for the ones of its own first run.
func startNode(t *testing.T, c server.Config) (*node, error) {
	t.Helper()
	return startNodeWithin(t.Context(), t, c)
}

// startNodeWithin gives up when ctx ends.
func startNodeWithin(ctx context.Context, t *testing.T, c server.Config) (*node, error) {
	t.Helper()
	s, err := server.New(ctx, c)
	if err != nil {
		return nil, err
	}
	runCtx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(runCtx) }()
	<-s.Ready()
	n := &node{Server: s, stop: sync.OnceValue(func() error { cancel(); return <-done })}
	t.Cleanup(func() { _ = n.stop() })
	return n, nil
}

func (n *node) connect(t *testing.T, credentials sign.Credentials) {
	t.Helper()
	var err error
	if n.client, err = kms.NewClient(kms.Config{Endpoint: "http://" + n.HTTPEndpoint(),
		Credentials: credentials}); err != nil {
		t.Fatal(err)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// rootKey writes the root key that the nodes of a cluster share.
func rootKey(t *testing.T) root.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "root.key")
	if err := os.WriteFile(path, []byte(base64.StdEncoding.EncodeToString(make([]byte, 32))), 0o600); err != nil {
		t.Fatal(err)
	}
	return root.File{Path: path}
}

// TestCluster has three nodes form one store: what one has acknowledged, the others know at once,
// with one node away calls are served, and a node that comes back has caught up before it answers.
func TestCluster(t *testing.T) {
	t.Parallel()
	peers := map[string]string{}
	for _, name := range []string{"a", "b", "c"} {
		peers[name] = "http://" + freeAddress(t)
	}
	key, dirs := rootKey(t), map[string]string{"a": t.TempDir(), "b": t.TempDir(), "c": t.TempDir()}
	start := func(name string) (*node, error) {
		return startNode(t, server.Config{
			DataDir:    dirs[name],
			ListenHTTP: "127.0.0.1:0",
			RootKey:    key,
			Cluster:    &store.Cluster{Name: name, Peers: peers},
		})
	}
	nodes, errs := make([]*node, 3), make([]error, 3)
	var wg sync.WaitGroup
	for i, name := range []string{"a", "b", "c"} {
		wg.Go(func() { nodes[i], errs[i] = start(name) })
	}
	wg.Wait()
	var credentials sign.Credentials
	for i := range nodes {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		if admin, first := nodes[i].Admin(); first {
			if credentials.AccessKeyID != "" {
				t.Fatal("two nodes made an administrator")
			}
			credentials = signCredentials(admin)
		}
	}
	for _, n := range nodes {
		n.connect(t, credentials)
	}
	ctx := t.Context()
	if _, err := nodes[0].client.CreateSecret(ctx, &kms.CreateSecretRequest{
		SecretName: "s",
		VersionID:  "v0",
		SecretData: sensitive.New("v0"),
	}); err != nil {
		t.Fatal(err)
	}
	put := func(n *node, id string) {
		t.Helper()
		if _, err := n.client.PutSecretValue(ctx, &kms.PutSecretValueRequest{
			SecretName: "s",
			VersionID:  id,
			SecretData: sensitive.New(id),
		}); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(n *node, id string) {
		t.Helper()
		got, err := n.client.GetSecretValue(ctx, &kms.GetSecretValueRequest{SecretName: "s"})
		if err != nil || got.SecretData.Reveal() != id {
			t.Fatalf("a node does not have %s, which was acknowledged: %+v, %v", id, got, err)
		}
	}
	for i := range 30 {
		id := fmt.Sprint("v", i+1)
		put(nodes[i%3], id)
		for _, n := range nodes {
			expect(n, id)
		}
	}
	wakes(t, nodes[0], nodes[1])
	if err := nodes[2].stop(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the two that are left to agree on a leader", func() bool {
		_, err := nodes[0].client.DescribeSecret(ctx, &kms.DescribeSecretRequest{SecretName: "s"})
		return err == nil
	})
	put(nodes[1], "without-c")
	expect(nodes[0], "without-c")
	back, err := start("c")
	if err != nil {
		t.Fatal(err)
	}
	back.connect(t, credentials)
	expect(back, "without-c")
}

func TestClusterReportsAll(t *testing.T) {
	t.Parallel()
	s := server.Config{
		DataDir:    t.TempDir(),
		ListenHTTP: "127.0.0.1:0",
		Cluster:    &store.Cluster{Name: "a", Peers: map[string]string{"a": "http://example.test:1", "b": "x"}},
	}
	for _, want := range []string{"fewer than three", "not on loopback", "b="} {
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not among the mistakes: %v", want, err)
		}
	}
}

// TestExternalStore uses an etcd server as its store, through its client API and under a prefix:
// two nodes serve from it.
func TestExternalStore(t *testing.T) {
	t.Parallel()
	endpoint := startEtcd(t)
	key := rootKey(t)
	start := func() *node {
		n, err := startNode(t, server.Config{
			DataDir:    t.TempDir(),
			ListenHTTP: "127.0.0.1:0",
			RootKey:    key,
			Etcd:       server.Etcd{Endpoints: []string{endpoint}, Prefix: "mine/"},
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	first, second := start(), start()
	admin, made := first.Admin()
	if _, again := second.Admin(); !made || again {
		t.Errorf("the administrator was made by first: %v, by second: %v", made, again)
	}
	first.connect(t, signCredentials(admin))
	second.connect(t, signCredentials(admin))
	if _, err := first.client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: "s",
		VersionID:  "v1",
		SecretData: sensitive.New("value"),
	}); err != nil {
		t.Fatal(err)
	}
	got, err := second.client.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: "s"})
	if err != nil || got.SecretData.Reveal() != "value" {
		t.Errorf("the other node: %+v, %v", got, err)
	}
	wakes(t, first, second)
}

// startEtcd starts an etcd server with a client listener, as an operator would have one.
func startEtcd(t *testing.T) (endpoint string) {
	t.Helper()
	c := embed.NewConfig()
	c.Dir, c.UnsafeNoFsync, c.ZapLoggerBuilder = t.TempDir(), true, embed.NewZapLoggerBuilder(zap.NewNop())
	client := url.URL{Scheme: "http", Host: freeAddress(t)}
	c.ListenClientUrls, c.AdvertiseClientUrls, c.ListenPeerUrls = []url.URL{client}, []url.URL{client}, nil
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.TickMs, c.ElectionMs = 10, 100
	e, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(20 * time.Second):
		t.Fatal("etcd did not start")
	}
	return client.String()
}
