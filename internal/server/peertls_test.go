package server_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// writePEM makes a key and a certificate for it, signed by the given authority or self-signed.
func writePEM(
	t *testing.T, dir, name string, template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey,
) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(
		time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der},
		name + "-key.pem": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// startTLSCluster starts three nodes that know each other by certificates. names are the common
// names in them.
func startTLSCluster(t *testing.T, allowed string, names [3]string, logs *refusals) (nodes [3]*node, errs [3]error) {
	t.Helper()
	ctx, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	dir := t.TempDir()
	ca, caKey := writePEM(t, dir, "ca", &x509.Certificate{
		Subject:               pkix.Name{CommonName: "peers"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}, nil, nil)
	for _, name := range names {
		writePEM(t, dir, name, &x509.Certificate{
			Subject:     pkix.Name{CommonName: name},
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			KeyUsage:    x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}, ca, caKey)
	}
	peers := map[string]string{}
	for _, name := range []string{"a", "b", "c"} {
		peers[name] = "https://" + freeAddress(t)
	}
	key := rootKey(t)
	var wg, both sync.WaitGroup // all nodes; those that are members in any case
	both.Add(2)
	for i, name := range []string{"a", "b", "c"} {
		data, cert := t.TempDir(), filepath.Join(dir, names[i])
		wg.Go(func() {
			nodes[i], errs[i] = startNodeWithin(ctx, t, server.Config{DataDir: data, ListenHTTP: "127.0.0.1:0", RootKey: key,
				Logger: slog.New(logs), Cluster: &store.Cluster{
					Name:      name,
					Peers:     peers,
					CertFile:  cert + ".pem",
					KeyFile:   cert + "-key.pem",
					CAFile:    filepath.Join(dir, "ca.pem"),
					AllowedCN: allowed,
				}})
			if i < 2 {
				both.Done()
			}
		})
	}
	members := make(chan struct{})
	go func() { wg.Wait(); close(members) }()
	select {
	case <-members:
	case <-logs.seen:
		both.Wait()
		giveUp()
		<-members
	}
	return nodes, errs
}

// refusals sees when a member refuses another because of its name.
type refusals struct {
	once sync.Once
	seen chan struct{}
}

func (r *refusals) Enabled(context.Context, slog.Level) bool { return true }
func (r *refusals) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *refusals) WithGroup(string) slog.Handler            { return r }

func (r *refusals) Handle(_ context.Context, record slog.Record) error {
	record.Attrs(func(a slog.Attr) bool {
		if strings.Contains(a.Value.String(), "authentication failed") {
			r.once.Do(func() { close(r.seen) })
		}
		return true
	})
	return nil
}

func newRefusals() *refusals { return &refusals{seen: make(chan struct{})} }

// TestPeerAllowedCN verifies that a certificate of the peers' CA with another common name is no
// member: two nodes with the right name form a majority, and the stranger does not come up.
func TestPeerAllowedCN(t *testing.T) {
	t.Parallel()
	nodes, errs := startTLSCluster(t, "node", [3]string{"node", "node", "stranger"}, newRefusals())
	if errs[0] != nil || errs[1] != nil {
		t.Fatalf("two members with the right name: %v, %v", errs[0], errs[1])
	}
	if errs[2] == nil || nodes[2] != nil {
		t.Error("a node with another common name became a member")
	}
}

// TestClusterTLS has three nodes know each other by certificates, as they must between machines.
func TestClusterTLS(t *testing.T) {
	t.Parallel()
	nodes, errs := startTLSCluster(t, "", [3]string{"node", "node", "node"}, newRefusals())
	var credentials sign.Credentials
	for i := range nodes {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		if admin, first := nodes[i].Admin(); first {
			credentials = signCredentials(admin)
		}
	}
	for _, n := range nodes {
		n.connect(t, credentials)
	}
	if _, err := nodes[0].client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: "s",
		VersionID:  "v1",
		SecretData: sensitive.New("value"),
	}); err != nil {
		t.Fatal(err)
	}
	for i, n := range nodes {
		if got, err := n.client.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: "s"}); err != nil ||
			got.SecretData.Reveal() != "value" {
			t.Errorf("node %d: %+v, %v", i, got, err)
		}
	}
}
