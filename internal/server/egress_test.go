package server_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/rotator"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/ldap"
	"github.com/keyturn/keyturn/internal/target/oauth"
	"github.com/keyturn/keyturn/internal/target/redis"
	"github.com/keyturn/keyturn/internal/target/webhook"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
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

// TestTargetsForgeNoAuditRecord verifies that a team, which may register targets and read its own
// secrets, cannot write to the operator's audit sinks and receivers of events through a target: not
// under any spelling of their addresses. The records of the server itself still arrive.
func TestTargetsForgeNoAuditRecord(t *testing.T) {
	t.Parallel()
	const forged = "forged-by-a-team"
	syslog, httpSink, receiver := newTap(t), newTap(t), newTap(t)
	s := keyturntest.Start(t, func(c *server.Config) {
		c.Kinds = []target.Kind{ldap.Kind(), webhook.Kind()}
		c.AuditSinks = []audit.Sink{&audit.Syslog{Address: syslog.address}, &audit.HTTP{URL: "http://" + httpSink.address + "/sink"}}
		c.Rotator.Receivers = []rotator.Receiver{{URL: "http://" + receiver.address + "/events"}}
	})
	credentials := userWith(t, s, `{"Version":"1","Statement":[
		{"Effect":"Allow","Action":["kms:RegisterTarget","kms:CreateSecret"],"Resource":["acs:kms:*:*:target","acs:kms:*:*:secret"]},
		{"Effect":"Allow","Action":"kms:*","Resource":["acs:kms:*:*:target/team-*","acs:kms:*:*:secret/team/*"]}]}`)
	team, err := kms.NewClient(kms.Config{Endpoint: s.Endpoint, Credentials: credentials, RootCAs: s.RootCAs, MaxAttempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = team.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: "team/admin", VersionID: "v1",
		SecretData: sensitive.New(`{"AccountName":"cn=x","AccountPassword":"x\n<110>1 2026-01-01T00:00:00Z h keyturn - - - ` + forged + `\n"}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, tap := range []*tap{syslog, httpSink, receiver} {
		_, port, err := net.SplitHostPort(tap.address)
		if err != nil {
			t.Fatal(err)
		}
		for j, host := range []string{"127.0.0.1", "localhost", "127.0.0.2", "[::ffff:127.0.0.1]", "0.0.0.0"} {
			for kind, config := range map[string]string{
				"ldap":    `{"address":"ADDR","tls":{"off":true},"scheme":"ssha"}`,
				"webhook": `{"url":"http://ADDR/","strategy":"overlap","tls":{"off":true}}`,
			} {
				name := fmt.Sprintf("team-%s-%d-%d", kind, i, j)
				_, err := team.RegisterTarget(t.Context(), &kms.RegisterTargetRequest{
					TargetName: name, Kind: kind, AdminSecretName: "team/admin",
					Config: strings.ReplaceAll(config, "ADDR", host+":"+port),
				})
				if err != nil {
					t.Fatal(err)
				}
				out, err := team.TestTarget(t.Context(), &kms.TestTargetRequest{TargetName: name})
				if err != nil {
					t.Fatal(err)
				}
				if out.Result == "ok" {
					t.Errorf("%s at %s:%s: the test succeeded", kind, host, port)
				}
			}
		}
	}
	select {
	case <-syslog.first:
	case <-t.Context().Done():
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	for name, tap := range map[string]*tap{"syslog server": syslog, "HTTP sink": httpSink, "receiver of events": receiver} {
		if text := tap.text(); strings.Contains(text, forged) {
			t.Errorf("the %s has a forged record", name)
		} else if name == "receiver of events" && text != "" {
			t.Errorf("the receiver of events was connected to: %q", text)
		}
	}
	if !strings.Contains(syslog.text(), "RegisterTarget") {
		t.Error("the syslog server has no record of the server's own")
	}
}

// tap is a server that notes what it is sent.
type tap struct {
	address string
	first   chan struct{} // closed when something has arrived

	mu  sync.Mutex
	got []byte
}

func newTap(t *testing.T) *tap {
	t.Helper()
	p := &tap{first: make(chan struct{})}
	p.address = support.Serve(t, func(c net.Conn) { _, _ = io.Copy(p, c) }).String()
	return p
}

func (p *tap) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.got) == 0 {
		close(p.first)
	}
	p.got = append(p.got, b...)
	return len(b), nil
}

func (p *tap) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.got)
}

// banners is the address of a service that says the same to everybody.
func banners(t *testing.T, text string) string {
	t.Helper()
	return support.Serve(t, func(c net.Conn) { _, _ = io.WriteString(c, text) }).String()
}
