package sshauth_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/consumertest"
	"github.com/keyturn/keyturn/consumer/credential"
	"github.com/keyturn/keyturn/consumer/sshauth"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/servers"
)

func value(members ...string) string {
	all := map[string]string{}
	for i := 0; i < len(members); i += 2 {
		all[members[i]] = members[i+1]
	}
	b, _ := json.Marshal(all)
	return string(b)
}

// host is an SSH server of this process that accepts one password or key of the user app.
type host struct {
	addr string
	key  ssh.PublicKey

	mu       sync.Mutex
	password string
	accepts  string // public key
	attempts int
	conns    int
}

func (h *host) accept(password, key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.password, h.accepts = password, key
}

func (h *host) check(user string, ok bool) (*ssh.Permissions, error) {
	if h.attempts++; user != "app" || !ok {
		return nil, errors.New("no")
	}
	return nil, nil
}

func startHost(t *testing.T, interactive bool) *host {
	t.Helper()
	private, public := servers.NewSSHKey(t)
	signer, err := ssh.ParsePrivateKey([]byte(private))
	if err != nil {
		t.Fatal(err)
	}
	h := &host{key: public}
	config := &ssh.ServerConfig{}
	config.AddHostKey(signer)
	config.PublicKeyCallback = func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.check(c.User(), string(key.Marshal()) == h.accepts)
	}
	if interactive {
		config.KeyboardInteractiveCallback = func(
			c ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge,
		) (*ssh.Permissions, error) {
			answers, err := ask("", "", []string{"Password: "}, []bool{false})
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.check(c.User(), err == nil && answers[0] == h.password)
		}
	} else {
		config.PasswordCallback = func(c ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.check(c.User(), string(password) == h.password)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.addr = l.Addr().String()
	var work sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); work.Wait() })
	work.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			h.mu.Lock()
			h.conns++
			h.mu.Unlock()
			work.Go(func() {
				defer conn.Close()
				server, channels, requests, err := ssh.NewServerConn(conn, config)
				if err != nil {
					return
				}
				go ssh.DiscardRequests(requests)
				go func() {
					for c := range channels {
						_ = c.Reject(ssh.Prohibited, "nothing is here")
					}
				}()
				_ = server.Wait()
			})
		}
	})
	return h
}

func (h *host) config() *ssh.ClientConfig {
	return &ssh.ClientConfig{User: "app", HostKeyCallback: ssh.FixedHostKey(h.key), Timeout: 10 * time.Second}
}

// versions are two credentials of one kind, as secret values, and how to have the host accept the
// second.
type versions struct {
	name          string
	interactive   bool
	first, second string
	accept        func(*host)
}

func kinds(t *testing.T) []versions {
	t.Helper()
	private1, _ := servers.NewSSHKey(t)
	private2, public2 := servers.NewSSHKey(t)
	return []versions{
		{
			"key", false, value("UserName", "app", "PublicKey", "-", "PrivateKey",
				private1), value("UserName", "app", "PublicKey", "-", "PrivateKey", private2),
			func(h *host) { h.accept("", string(public2.Marshal())) },
		},
		{
			"password", false, value("UserName", "app", "Password", "p1"), value("UserName", "app", "Password", "p2"),
			func(h *host) { h.accept("p2", "") },
		},
		{
			"interactive", true, value("UserName", "app", "Password", "p1"), value("UserName", "app", "Password", "p2"),
			func(h *host) { h.accept("p2", "") },
		},
	}
}

// TestRejected verifies that a caller does not notice that the host no longer accepts a credential.
func TestRejected(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds(t) {
		for stage, change := range map[string]func(*consumertest.Endpoint, string){
			"promoted":  func(e *consumertest.Endpoint, v string) { e.Put("host", "v2", v) },
			"candidate": func(e *consumertest.Endpoint, v string) { e.SetStage("host", kms.StagePending, "v2", v) },
			"previous":  func(e *consumertest.Endpoint, v string) { e.SetStage("host", kms.StagePrevious, "v0", v) },
		} {
			for _, dial := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/%s/dial=%v", kind.name, stage, dial), func(t *testing.T) {
					t.Parallel()
					h := startHost(t, kind.interactive)
					e, c := consumertest.New(t, "host", "v1", kind.first)
					change(e, kind.second)
					kind.accept(h)
					options := &sshauth.Options{KeyboardInteractive: kind.interactive}
					client := h.open(t, c, options, dial)
					defer client.Close()
					if _, _, err := client.SendRequest("keepalive@openssh.com", true, nil); err != nil {
						t.Error(err)
					}
					if rejected := c.Counters().Logins[consumer.LoginRejected]; rejected != 1 ||
						h.conns != map[bool]int{true: 2, false: 1}[dial] {
						t.Errorf("%d rejections on %d connections", rejected, h.conns)
					}
				})
			}
		}
	}
}

// open logs in by Dial, or with AuthMethods.
func (h *host) open(t *testing.T, c *consumer.Consumer, options *sshauth.Options, dial bool) *ssh.Client {
	t.Helper()
	config := h.config()
	if dial {
		config.User = "of the value"
		client, err := sshauth.Dial(t.Context(), c, "host", sshauth.Host{Addr: h.addr, Config: config}, options)
		if err != nil {
			t.Fatal(err)
		}
		return client
	}
	var err error
	if config.Auth, err = sshauth.AuthMethods(t.Context(), c, "host", options); err != nil {
		t.Fatal(err)
	}
	client, err := ssh.Dial("tcp", h.addr, config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestNothingWorks(t *testing.T) {
	t.Parallel()
	h := startHost(t, false)
	_, c := consumertest.New(t, "host", "v1", value("UserName", "app", "Password", "marker"))
	_, err := sshauth.Dial(t.Context(), c, "host", sshauth.Host{Addr: h.addr, Config: h.config()}, nil)
	if !sshauth.Rejected(err) || strings.Contains(err.Error(), "marker") || h.attempts != 1 {
		t.Errorf("after %d attempts: %v", h.attempts, err)
	}
	config := h.config()
	_, other := servers.NewSSHKey(t)
	config.HostKeyCallback = ssh.FixedHostKey(other)
	if _, err := sshauth.Dial(t.Context(), c, "host", sshauth.Host{Addr: h.addr, Config: config}, nil); err == nil ||
		sshauth.Rejected(err) || h.attempts != 1 {
		t.Errorf("a host with another key gets %d attempts: %v", h.attempts, err)
	}
	config = h.config()
	if config.Auth, err = sshauth.AuthMethods(t.Context(), c, "host", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := ssh.Dial("tcp", h.addr, config); err == nil || strings.Contains(err.Error(), "marker") ||
		h.attempts != 2 {
		t.Errorf("after %d attempts: %v", h.attempts, err)
	}
}

// TestHeld verifies that a connection holds its version until either side closes it.
func TestHeld(t *testing.T) {
	t.Parallel()
	h := startHost(t, false)
	h.accept("p1", "")
	e, c := consumertest.New(t, "host", "v1", value("UserName", "app", "Password", "p1"))
	client := h.open(t, c, nil, true)
	e.Put("host", "v2", value("UserName", "app", "Password", "p2"))
	if err := c.Refresh(t.Context(), "host"); err != nil {
		t.Fatal(err)
	}
	if held := consumertest.Held(t, c, "host"); held != "v1" {
		t.Errorf("%q is held while the connection is open", held)
	}
	_ = client.Close()
	if held := consumertest.Held(t, c, "host"); held != "" {
		t.Errorf("%q is held after it", held)
	}
}

// TestSilent verifies that Dial gives up on a host that accepts connections and sends nothing.
func TestSilent(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, c := consumertest.New(t, "host", "v1", value("UserName", "app", "Password", "p1"))
	h := startHost(t, false)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if _, err := sshauth.Dial(ctx, c, "host", sshauth.Host{
		Addr:   l.Addr().String(),
		Config: h.config(),
	}, nil); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > 5*time.Second {
		t.Errorf("after %v: %v", time.Since(begun), err)
	}
}

func TestSigner(t *testing.T) {
	t.Parallel()
	private, public := servers.NewSSHKey(t)
	for _, tt := range []struct{ value, want string }{
		{value("UserName", "app", "PrivateKey", private), ""},
		{value("UserName", "app", "Password", "marker"), "no private key"},
		{
			value("UserName", "app", "PrivateKey",
				"-----BEGIN OPENSSH PRIVATE KEY-----\nmarker\n-----END OPENSSH PRIVATE KEY-----"),
			"cannot be read",
		},
	} {
		_, c := consumertest.New(t, "host", "v1", tt.value)
		s, err := c.Get(t.Context(), "host")
		if err != nil {
			t.Fatal(err)
		}
		key, err := sshauth.Signer(s, credential.Format{})
		if tt.want == "" {
			if err != nil || string(key.PublicKey().Marshal()) != string(public.Marshal()) {
				t.Errorf("the key is another one, %v", err)
			}
		} else if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "marker") {
			t.Errorf("got %v, want an error that says %q", err, tt.want)
		}
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	_, c := consumertest.New(t, "host", "v1", value("UserName", "app", "Password", "p"))
	insecure := ssh.InsecureIgnoreHostKey()
	for want, config := range map[string]*ssh.ClientConfig{
		"HostKeyCallback": {}, "leave Auth empty": {HostKeyCallback: insecure, Auth: []ssh.AuthMethod{ssh.Password("x")}},
	} {
		host := sshauth.Host{Addr: "127.0.0.1:1", Config: config}
		if _, err := sshauth.Dial(t.Context(), c, "host", host, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error that says %q", err, want)
		}
	}
}

// TestOpenSSH rotates a key at a real host.
func TestOpenSSH(t *testing.T) {
	t.Parallel()
	s := servers.StartSSH(t)
	next, public := servers.NewSSHKey(t)
	e, c := consumertest.New(t, "host", "v1", value("UserName", s.User, "PrivateKey", s.AdminKey))
	config := &ssh.ClientConfig{HostKeyCallback: ssh.FixedHostKey(s.HostKey)}
	for range 2 {
		client, err := sshauth.Dial(t.Context(), c, "host", sshauth.Host{Addr: s.Addr(), Config: config}, nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = client.Close()
		if err := os.WriteFile(filepath.Join(s.Keys(), s.User), ssh.MarshalAuthorizedKey(public), 0o600); err != nil {
			t.Fatal(err)
		}
		e.Put("host", "v2", value("UserName", s.User, "PrivateKey", next))
	}
	if rejected := c.Counters().Logins[consumer.LoginRejected]; rejected != 1 {
		t.Errorf("%d rejections, want one", rejected)
	}
}

// TestStrongestSignature verifies that an RSA key logs in at a host that takes one algorithm from
// the account, although it names more.
func TestStrongestSignature(t *testing.T) {
	t.Parallel()
	s := servers.StartSSH(t, "Match User *", "PubkeyAcceptedAlgorithms rsa-sha2-512")
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	block, err1 := ssh.MarshalPrivateKey(key, "")
	public, err2 := ssh.NewPublicKey(&key.PublicKey)
	err3 := os.WriteFile(filepath.Join(s.Keys(), s.User), ssh.MarshalAuthorizedKey(public), 0o600)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	_, c := consumertest.New(t, "host", "v1", value("UserName", s.User, "PrivateKey", string(pem.EncodeToMemory(block))))
	config := &ssh.ClientConfig{HostKeyCallback: ssh.FixedHostKey(s.HostKey)}
	client, err := sshauth.Dial(t.Context(), c, "host", sshauth.Host{Addr: s.Addr(), Config: config}, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = client.Close()
}
