package server_test

import (
	"io"
	"net"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/oauth"
	"github.com/keyturn/keyturn/internal/target/redis"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/support"
)

// TestTargetsReachNoForbiddenAddress verifies that a caller who may register targets cannot make
// the server connect to its own listeners, to the metadata service of a cloud, or to what the
// operator denies; and learns no more of a closed port than of a service that speaks another
// protocol.
func TestTargetsReachNoForbiddenAddress(t *testing.T) {
	t.Parallel()
	denied, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer denied.Close()
	banner := banners(t, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{\"error\":\"banner-marker\"}")
	rule, err := egress.ParseRule(denied.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s := keyturntest.Start(t, func(c *server.Config) {
		c.Kinds = []target.Kind{redis.Kind(), oauth.Kind()}
		c.Egress.Deny = []egress.Rule{rule}
	})
	create(t, s, "admin", `{"AccountName":"admin","AccountPassword":"password-of-the-admin"}`)
	test := func(address string) (result, message string) {
		t.Helper()
		name := "t" + strings.NewReplacer(".", "-", ":", "-", "[", "", "]", "").Replace(address)
		_, err := s.Client.RegisterTarget(t.Context(), &kms.RegisterTargetRequest{
			TargetName: name, Kind: "redis", Config: `{"address":"` + address + `","tls":{"off":true}}`, AdminSecretName: "admin",
		})
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Client.TestTarget(t.Context(), &kms.TestTargetRequest{TargetName: name})
		if err != nil {
			t.Fatal(err)
		}
		return out.Result, strings.ReplaceAll(out.Message, name, "NAME") + out.Code
	}
	for _, address := range []string{
		s.Endpoint, s.HTTPEndpoint, strings.Replace(s.HTTPEndpoint, "127.0.0.1", "localhost", 1), strings.Replace(s.HTTPEndpoint, "127.0.0.1", "[::ffff:127.0.0.1]", 1),
		"169.254.169.254:80", "100.100.100.200:80", "0.0.0.0:1", denied.Addr().String(),
	} {
		if result, message := test(address); result != "denied" || !strings.Contains(message, "egress rules do not permit") {
			t.Errorf("%s: %s, %s", address, result, message)
		}
	}
	closed, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	result, message := test(closed.Addr().String())
	if r, m := test(banner); r != result || m != message || strings.Contains(m, "marker") {
		t.Errorf("of another service a test tells %s, %s; of a closed port %s, %s", r, m, result, message)
	}
}

// banners is the address of a service that says the same to everybody.
func banners(t *testing.T, text string) string {
	t.Helper()
	return support.Serve(t, func(c net.Conn) { _, _ = io.WriteString(c, text) }).String()
}
