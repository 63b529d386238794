package server_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/conns"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sign"
)

// forwarding adds what a proxy says of a request.
type forwarding struct{ address, proto string }

func (f forwarding) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Forwarded-For", f.address)
	r.Header.Set("X-Forwarded-Proto", f.proto)
	return http.DefaultTransport.RoundTrip(r)
}

// userWith returns the access key of a new user with one policy; empty means no policy.
func userWith(t *testing.T, s *keyturntest.Server, document string) sign.Credentials {
	t.Helper()
	users, ctx := ram.New(s.Client), t.Context()
	_, err := users.CreateUser(ctx, &ram.CreateUserRequest{UserName: "user"})
	if err == nil && document != "" {
		_, err = users.CreatePolicy(ctx, &ram.CreatePolicyRequest{PolicyName: "policy", PolicyDocument: document})
		if err == nil {
			_, err = users.AttachPolicyToUser(ctx, &ram.UserPolicyRequest{
				UserName:   "user",
				PolicyName: "policy",
				PolicyType: ram.TypeCustom,
			})
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	key, err := users.CreateAccessKey(ctx, &ram.CreateAccessKeyRequest{UserName: "user"})
	if err != nil {
		t.Fatal(err)
	}
	return sign.Credentials{AccessKeyID: key.AccessKey.AccessKeyID, AccessKeySecret: key.AccessKey.AccessKeySecret}
}

// TestTrustedProxy verifies that policies and the trail see the client of a trusted proxy, and of
// any other peer the peer.
func TestTrustedProxy(t *testing.T) {
	t.Parallel()
	proxies, err := conns.ParseProxies([]string{"127.0.0.0/8"})
	if err != nil {
		t.Fatal(err)
	}
	for name, trusted := range map[string]conns.Proxies{"trusted": proxies, "not trusted": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := keyturntest.Start(t, server.Change(func(c *server.Config) { c.Proxies = trusted }))
			create(t, s, "a", "value")
			user := userWith(t, s, `{"Version":"1","Statement":[{
				"Effect":"Allow",
				"Action":"kms:GetSecretValue",
				"Resource":"*",
				"Condition":{"Bool":{"acs:SecureTransport":"true"},"IpAddress":{"acs:SourceIp":"192.0.2.0/24"}}}]}`)
			for _, f := range []forwarding{{"198.51.100.9, 192.0.2.77", "https"}, {"198.51.100.9, 192.0.2.77", "http"}} {
				c, err := kms.NewClient(kms.Config{
					Endpoint:    "http://" + s.HTTPEndpoint,
					Credentials: user,
					MaxAttempts: 1,
					HTTPClient:  &http.Client{Transport: f},
				})
				if err != nil {
					t.Fatal(err)
				}
				_, err = c.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: "a"})
				if allowed := err == nil; allowed != (trusted != nil && f.proto == "https") {
					t.Errorf("over %s: %v", f.proto, err)
				}
			}
			if found := strings.Contains(trail(t, s.DataDir), `"source":"192.0.2.77"`); found != (trusted != nil) {
				t.Errorf("the trail names the proxy's client: %v", found)
			}
			resp, err := (&http.Client{Transport: forwarding{"192.0.2.77",
				"https"}}).Get("http://" + s.HTTPEndpoint + "/metrics")
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if shown := resp.StatusCode == http.StatusOK; shown != (trusted == nil) {
				t.Errorf("metrics for the client of a proxy: %s", resp.Status)
			}
		})
	}
}

// TestMetricsListener verifies that the metrics leave the other listeners when they have their own,
// and that no call is served there.
func TestMetricsListener(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t, server.Change(func(c *server.Config) { c.ListenMetrics = "127.0.0.1:0" }))
	get := func(url string) (int, string) {
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	if code, body := get("http://" + s.MetricsEndpoint + "/metrics"); code != http.StatusOK ||
		!strings.Contains(body, "keyturn_connections ") {
		t.Errorf("metrics at their listener: %d", code)
	}
	for _, page := range []string{"/healthz", "/readyz"} {
		for _, at := range []string{s.MetricsEndpoint, s.HTTPEndpoint} {
			if code, _ := get("http://" + at + page); code != http.StatusOK {
				t.Errorf("%s at %s: %d", page, at, code)
			}
		}
	}
	if code, body := get("http://" + s.HTTPEndpoint + "/metrics"); code == http.StatusOK ||
		strings.Contains(body, "keyturn_") {
		t.Errorf("metrics at a public listener: %d", code)
	}
	if code, _ := get("http://" + s.MetricsEndpoint + "/?Action=DescribeRegions"); code != http.StatusNotFound {
		t.Errorf("a call at the listener of the metrics: %d", code)
	}
}

// TestSuites verifies that TLS 1.2 takes no suite without authenticated encryption or forward
// secrecy.
func TestSuites(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if suite.SupportedVersions[0] > tls.VersionTLS12 {
			continue
		}
		conn, err := tls.Dial("tcp", s.Endpoint, &tls.Config{
			RootCAs:      s.RootCAs,
			ServerName:   "localhost",
			MinVersion:   tls.VersionTLS12,
			MaxVersion:   tls.VersionTLS12,
			CipherSuites: []uint16{suite.ID},
		})
		if err != nil {
			continue
		}
		_ = conn.Close()
		if name := suite.Name; !strings.HasPrefix(name, "TLS_ECDHE_") ||
			!strings.Contains(name, "_GCM_") &&
				!strings.Contains(name, "POLY1305") {
			t.Errorf("%s is taken", name)
		}
	}
}
