package server_test

import (
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

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
	banner := banners(t,
		"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{\"error\":\"banner-marker\"}")
	rule, err := egress.ParseRule(denied.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s := keyturntest.Start(t, server.Change(func(c *server.Config) {
		c.Kinds = []target.Kind{redis.Kind(), oauth.Kind()}
		c.Egress.Deny = []egress.Rule{rule}
		c.TestTime = testTime
	}))
	create(t, s, "admin", `{"AccountName":"admin","AccountPassword":"password-of-the-admin"}`)
	test := func(address string) (result, message string) {
		t.Helper()
		name := "t" + strings.NewReplacer(".", "-", ":", "-", "[", "", "]", "").Replace(address)
		_, err := s.Client.RegisterTarget(t.Context(), &kms.RegisterTargetRequest{
			TargetName:      name,
			Kind:            "redis",
			Config:          `{"address":"` + address + `","tls":{"off":true}}`,
			AdminSecretName: "admin",
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
		s.Endpoint, s.HTTPEndpoint, strings.Replace(s.HTTPEndpoint, "127.0.0.1", "[::ffff:127.0.0.1]", 1),
		"169.254.169.254:80", "100.100.100.200:80", "0.0.0.0:1", denied.Addr().String(),
	} {
		if result, message := test(address); result != "denied" || !strings.Contains(message, "egress rules do not permit") {
			t.Errorf("%s: %s, %s", address, result, message)
		}
	}
	result, message := test(closedPort(t))
	for name, address := range map[string]string{
		"another service":          banner,
		"a service without a word": silent(t),
		// The answer reveals neither whether a name exists nor whether the rules refuse it.
		"a name of the server itself": strings.Replace(s.HTTPEndpoint, "127.0.0.1", "localhost", 1),
		"a name that does not exist":  "no-such-name.invalid:80",
	} {
		began := time.Now()
		r, m := test(address)
		if r != result || m != message || strings.Contains(m, "marker") {
			t.Errorf("of %s a test reveals %s, %s; of a closed port %s, %s", name, r, m, result, message)
		}
		if took := time.Since(began); took < testTime || took > 10*time.Second {
			t.Errorf("a test of %s took %s, want %s: its duration reveals what listens there", name, took, testTime)
		}
	}
	began := time.Now()
	test("127.0.0.1:1")
	if took := time.Since(began); took < testTime {
		t.Errorf("a test of a closed port took %s, want %s", took, testTime)
	}
}

// testTime is how long a test of a target takes that gets no answer.
const testTime = 300 * time.Millisecond

func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	return l.Addr().String()
}

// silent is the address of a service that reads and says nothing.
func silent(t *testing.T) string {
	t.Helper()
	return support.Serve(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }).String()
}

// teamPolicy lets a team manage targets and secrets of its own.
const teamPolicy = `{"Version":"1","Statement":[
	{
		"Effect":"Allow",
		"Action":["kms:RegisterTarget","kms:CreateSecret"],
		"Resource":["acs:kms:*:*:target","acs:kms:*:*:secret"]
	},
	{
		"Effect":"Allow",
		"Action":"kms:*",
		"Resource":["acs:kms:*:*:target/team-*","acs:kms:*:*:secret/team/*"]
	}]}`

// TestRotationsAreNoPortScanners verifies that the state of a rotation, its reason and its
// steps, and the time to configure it, are the same for a target where nothing listens and for one
// where another service does.
func TestRotationsAreNoPortScanners(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t, server.Change(func(c *server.Config) {
		c.Kinds = []target.Kind{redis.Kind(), webhook.Kind()}
		c.TestTime = testTime
	}))
	credentials := userWith(t, s, teamPolicy)
	team, err := kms.NewClient(kms.Config{
		Endpoint:    s.Endpoint,
		Credentials: credentials,
		RootCAs:     s.RootCAs,
		MaxAttempts: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	check := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// learned is what a team learns of a rotation at an address, without names and times.
	learned := func(kind, config string) string {
		id := strings.ReplaceAll(rand.Text(), "-", "")
		name, app := "team-"+id, "team/"+id
		for secret, value := range map[string]string{
			app:            `{"AccountName":"app","AccountPassword":"password-of-the-app"}`,
			app + "/admin": `{"AccountName":"admin","AccountPassword":"password-of-the-admin"}`,
		} {
			check(team.CreateSecret(ctx, &kms.CreateSecretRequest{
				SecretName: secret,
				VersionID:  "v1",
				SecretData: sensitive.New(value),
			}))
		}
		admin, configure := app+"/admin", kms.ConfigureRotationRequest{SecretName: app, TargetName: name}
		if kind == "self" { // the secret of the administrator itself is rotated
			kind, admin, configure.Strategy, configure.CloneAccountName = "redis", app, "double", "app2"
		}
		check(team.RegisterTarget(ctx, &kms.RegisterTargetRequest{
			TargetName:      name,
			Kind:            kind,
			Config:          config,
			AdminSecretName: admin,
		}))
		began := time.Now()
		check(team.ConfigureRotation(ctx, &configure))
		if took := time.Since(began); kind == "redis" && admin != app && took < testTime {
			t.Errorf("ConfigureRotation at %s took %s, want %s: its duration reveals what listens there",
				config, took, testTime)
		}
		check(team.RotateSecret(ctx, &kms.RotateSecretRequest{SecretName: app, VersionID: "v2"}))
		var out *kms.DescribeRotationResponse
		waitFor(t, "a try at "+config, func() bool {
			out, err = team.DescribeRotation(ctx, &kms.SecretNameRequest{SecretName: app})
			check(out, err)
			return out.Reason != ""
		})
		text := fmt.Sprint(out.State, " ", out.Reason, " ", out.CredentialState)
		for _, step := range out.Steps {
			// A try that was repeated is no other answer.
			if s := fmt.Sprint("; ", step.State, " ", step.Event, " ", step.Text); !strings.Contains(text, s) {
				text += s
			}
		}
		return text
	}
	for kind, config := range map[string]string{
		"redis":   `{"address":"ADDR","tls":{"off":true}}`,
		"self":    `{"address":"ADDR","tls":{"off":true}}`,
		"webhook": `{"url":"http://ADDR/","strategy":"single","tls":{"off":true}}`,
	} {
		at := func(address string) string { return learned(kind, strings.ReplaceAll(config, "ADDR", address)) }
		closed := at(closedPort(t))
		for service, address := range map[string]string{
			"SSH":  banners(t, "SSH-2.0-OpenSSH_9.6\r\n"),
			"HTTP": banners(t, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
		} {
			if got := at(address); got != closed {
				t.Errorf("%s: of %s a rotation reveals\n%s\nand of a closed port\n%s", kind, service, got, closed)
			}
		}
	}
}

// TestTargetsForgeNoAuditRecord verifies that a team, which may register targets and read its own
// secrets, cannot write to the operator's audit sinks and receivers of events through a target: not
// under any spelling of their addresses. The records of the server itself still arrive.
func TestTargetsForgeNoAuditRecord(t *testing.T) {
	t.Parallel()
	const forged = "forged-by-a-team"
	syslog, httpSink, receiver := newTap(t), newTap(t), newTap(t)
	s := keyturntest.Start(t, server.Change(func(c *server.Config) {
		c.Kinds = []target.Kind{ldap.Kind(), webhook.Kind()}
		c.TestTime = testTime
		c.AuditSinks = []audit.Sink{
			&audit.Syslog{Address: syslog.address}, &audit.HTTP{URL: "http://" + httpSink.address + "/sink"},
		}
		c.Rotator.Receivers = []rotator.Receiver{{URL: "http://" + receiver.address + "/events"}}
	}))
	credentials := userWith(t, s, teamPolicy)
	team, err := kms.NewClient(kms.Config{
		Endpoint:    s.Endpoint,
		Credentials: credentials,
		RootCAs:     s.RootCAs,
		MaxAttempts: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = team.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: "team/admin", VersionID: "v1",
		SecretData: sensitive.New(
			`{"AccountName":"cn=x","AccountPassword":"x\n<110>1 2026-01-01T00:00:00Z h keyturn - - - ` + forged + `\n"}`),
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
					TargetName:      name,
					Kind:            kind,
					AdminSecretName: "team/admin",
					Config:          strings.ReplaceAll(config, "ADDR", host+":"+port),
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
	waitFor(t, "the syslog server to get a record", func() bool {
		select {
		case <-syslog.first:
			return true
		default:
			return false
		}
	})
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	for name, tap := range map[string]*tap{"syslog server": syslog, "HTTP sink": httpSink,
		"receiver of events": receiver} {
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
