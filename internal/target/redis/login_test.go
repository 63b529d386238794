package redis_test

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/redis"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
)

// TestClientCertificates logs in at a server that requires a client certificate.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	s := servers.StartRedis(t, "tls-auth-clients yes")
	c := account(t, s)
	open := func(l target.Login) target.Target {
		config, err := json.Marshal(map[string]any{"address": s.TLSAddr, "tls": map[string]string{"ca": s.Authority.CA}})
		targettest.Must(t, err)
		tt, err := redis.Kind().Open(target.Settings{Name: "r", Config: config, Admin: admin(s), Login: l})
		targettest.Must(t, err)
		t.Cleanup(func() { _ = tt.Close() })
		return tt
	}
	for range 20 {
		err := open(target.Login{}).Verify(targettest.Within(t), c)
		targettest.Expect(t, err, target.Denied, "--login-certificate-secret")
	}
	cert, err := os.ReadFile(s.Authority.CertFile)
	targettest.Must(t, err)
	key, err := os.ReadFile(s.Authority.KeyFile)
	targettest.Must(t, err)
	tt := open(target.Login{CertificateSecret: "app-pem", Certificate: sensitive.New(string(cert) + string(key))})
	targettest.Must(t, tt.Verify(targettest.Within(t), c))
	wrong := target.Credential{Account: c.Account, Secret: sensitive.New("a-wrong-password")}
	targettest.Expect(t, tt.Verify(targettest.Within(t), wrong), target.Rejected, "WRONGPASS")
	for what, l := range map[string]target.Login{
		"no certificate":   {CertificateSecret: "app-pem", Certificate: sensitive.New("password")},
		"TLS is off":       {CertificateSecret: "app-pem", Certificate: sensitive.New(string(cert) + string(key))},
		"only half of one": {CertificateSecret: "app-pem", Certificate: sensitive.New(string(cert))},
	} {
		config := plain(s.Addr)
		if what != "TLS is off" {
			config = fmt.Sprintf(`{"address":%q}`, s.TLSAddr)
		}
		if _, err := redis.Kind().Open(target.Settings{Config: []byte(config), Admin: admin(s), Login: l}); err == nil {
			t.Errorf("%s: the target is opened", what)
		}
	}
}

// TestPoolers verifies that a rejection by a pooler decides nothing.
func TestPoolers(t *testing.T) {
	t.Parallel()
	s, pooler := servers.StartRedis(t), servers.StartRedis(t)
	c := account(t, s)
	tt := openAs(t, s, fmt.Sprintf(`,"verify":[{"address":%q,"role":"pooler"}]`, pooler.Addr), target.Login{})
	targettest.Expect(t, tt.Verify(targettest.Within(t), c), target.Unclear, "WRONGPASS")
	s.Do(t, "ACL", "SETUSER", c.Account, "off")
	targettest.Expect(t, tt.Verify(targettest.Within(t), c), target.Rejected, "WRONGPASS")
}
