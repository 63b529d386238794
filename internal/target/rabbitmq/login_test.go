package rabbitmq_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/rabbitmq"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/support"
)

// fromHere logs in as a user that the node lets in from its own host alone.
func (n *node) fromHere(t *testing.T) {
	if n.Outside == "" {
		t.Skip("this machine has no address but loopback")
	}
	c := target.Credential{Account: "local-only", Secret: sensitive.New("password-of-local-only")}
	n.api(t, http.MethodPut, "/api/users/local-only", `{"password":"password-of-local-only","tags":""}`)
	n.api(t, http.MethodPut, "/api/permissions/%2F/local-only", `{"configure":"","write":"","read":""}`)
	config := fmt.Sprintf(`{"api":"http://%s","amqp":["amqp://%s"],"tls":{"off":true}}`, n.API, n.Outside)
	tt := n.open(t, config)
	targettest.Expect(t, tt.Verify(t.Context(), c), target.Denied, "loopback_users")
	targettest.Expect(t, tt.Verify(t.Context(), with(c, "a-wrong-password")), target.Rejected, "403")
	targettest.Must(t, n.plain(t).Verify(t.Context(), c))
}

// certificates logs in through a listener that requires a client certificate.
func (n *node) certificates(t *testing.T) {
	addr := n.terminator(t)
	c := n.account(t)
	login := func(l target.Login) target.Target {
		config, err := json.Marshal(map[string]any{
			"api":  "https://" + n.APIS,
			"amqp": []string{"amqps://" + addr},
			"tls":  map[string]string{"ca": n.CA.PEM},
		})
		targettest.Must(t, err)
		tt, err := rabbitmq.Kind().Open(target.Settings{Name: "bus", Config: config, Admin: n.admin, Login: l})
		targettest.Must(t, err)
		t.Cleanup(func() { _ = tt.Close() })
		return tt
	}
	targettest.Expect(t, login(target.Login{}).Verify(t.Context(), c), target.Denied, "--login-certificate-secret")
	certFile, keyFile := n.CA.Issue(t, t.TempDir(), "app.internal")
	cert, err := os.ReadFile(certFile)
	targettest.Must(t, err)
	key, err := os.ReadFile(keyFile)
	targettest.Must(t, err)
	tt := login(target.Login{CertificateSecret: "app-pem", Certificate: sensitive.New(string(cert) + string(key))})
	targettest.Must(t, tt.Verify(t.Context(), c))
	targettest.Expect(t, tt.Verify(t.Context(), with(c, "a-wrong-password")), target.Rejected, "403")
}

// terminator starts a listener of AMQP with TLS that requires a client certificate.
func (n *node) terminator(t *testing.T) (addr string) {
	t.Helper()
	certFile, keyFile := n.CA.Issue(t, t.TempDir(), "127.0.0.1")
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	targettest.Must(t, err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(n.CA.PEM))
	config := &tls.Config{
		Certificates: []tls.Certificate{pair},
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
	}
	return support.Serve(t, func(c net.Conn) {
		client := tls.Server(c, config)
		defer client.Close()
		if client.HandshakeContext(t.Context()) != nil {
			_, _ = io.Copy(io.Discard, c)
			return
		}
		server, err := net.Dial("tcp", n.AMQP)
		if err != nil {
			return
		}
		var back sync.WaitGroup
		defer back.Wait()
		defer server.Close()
		back.Go(func() { _, _ = io.Copy(server, client); _ = server.Close() })
		_, _ = io.Copy(client, server)
		_ = client.Close()
	}).String()
}

// TestNodesOfACluster verifies what a check finds about the nodes of a cluster.
func TestNodesOfACluster(t *testing.T) {
	t.Parallel()
	for nodes, want := range map[string]string{
		`[{"name":"a","running":true,"partitions":[],"enabled_plugins":["rabbitmq_management"]}]`: "",
		`[{"name":"a","running":true,"partitions":["b"]},{"name":"b","running":true}]`:            "impossible partition",
		`[{"name":"a","running":true},{"name":"b","running":false}]`:                              "note node-down",
		`[{"name":"a","running":true,"enabled_plugins":["rabbitmq_auth_backend_http"]}]`:          "note other-backends",
		`[{"name":"a","running":true,"enabled_plugins":["rabbitmq_auth_backend_cache",` +
			`"rabbitmq_auth_backend_ldap"]}]`: "note logins-cached, note other-backends",
	} {
		tt := fake(t, appWith("/api/nodes", nodes))
		c := target.Credential{Account: "app", Secret: sensitive.New("password-of-app")}
		if got := found(t, tt, c, ""); got != want {
			t.Errorf("%s: the check finds %q, want %q", nodes, got, want)
		}
	}
}
