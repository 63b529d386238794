package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// writePEM makes a key and a certificate for it, signed by the given authority or by itself.
func writePEM(t *testing.T, dir, name string, template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
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
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + "-key.pem": {Type: "PRIVATE KEY", Bytes: private}} {
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

// TestClusterTLS has three nodes know each other by certificates, as they must between machines.
func TestClusterTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, caKey := writePEM(t, dir, "ca", &x509.Certificate{Subject: pkix.Name{CommonName: "peers"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	writePEM(t, dir, "node", &x509.Certificate{
		Subject: pkix.Name{CommonName: "node"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, ca, caKey)
	peers := map[string]string{}
	for _, name := range []string{"a", "b", "c"} {
		peers[name] = "https://" + freeAddress(t)
	}
	key := rootKey(t)
	nodes, errs := make([]*node, 3), make([]error, 3)
	var wg sync.WaitGroup
	for i, name := range []string{"a", "b", "c"} {
		data := t.TempDir()
		wg.Go(func() {
			nodes[i], errs[i] = startNode(t, server.Config{DataDir: data, ListenHTTP: "127.0.0.1:0", RootKey: key, Cluster: &store.Cluster{
				Name: name, Peers: peers, CertFile: filepath.Join(dir, "node.pem"), KeyFile: filepath.Join(dir, "node-key.pem"), CAFile: filepath.Join(dir, "ca.pem"),
			}})
		})
	}
	wg.Wait()
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
	if _, err := nodes[0].client.CreateSecret(t.Context(), &kms.CreateSecretRequest{SecretName: "s", VersionID: "v1", SecretData: sensitive.New("value")}); err != nil {
		t.Fatal(err)
	}
	for i, n := range nodes {
		if got, err := n.client.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: "s"}); err != nil || got.SecretData.Reveal() != "value" {
			t.Errorf("node %d: %+v, %v", i, got, err)
		}
	}
}
