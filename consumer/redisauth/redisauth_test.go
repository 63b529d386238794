package redisauth_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/consumertest"
	"github.com/keyturn/keyturn/consumer/redisauth"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/servers"
)

func value(account, password string) string {
	return fmt.Sprintf(`{"AccountName":%q,"AccountPassword":%q}`, account, password)
}

func client(t *testing.T, c *consumer.Consumer, o *redis.Options, options *redisauth.Options) *redis.Client {
	t.Helper()
	if err := redisauth.Configure(o, c, "cache", options); err != nil {
		t.Fatal(err)
	}
	r := redis.NewClient(o)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func user(t *testing.T, s *servers.Redis, name string, passwords ...string) {
	t.Helper()
	args := []any{"ACL", "SETUSER", name, "reset", "on", "~*", "+@all"}
	for _, p := range passwords {
		args = append(args, ">"+p)
	}
	s.Do(t, args...)
}

func TestRedis(t *testing.T) {
	t.Parallel()
	s := servers.StartRedis(t)
	for name, test := range map[string]func(*testing.T, *servers.Redis){
		"rejected":      rejected,
		"nothing works": nothingWorks,
		"drain":         drained,
		"tls":           overTLS,
		"database":      database,
		"default user":  defaultUser,
		"rest":          atRest,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, s)
		})
	}
}

// rejected verifies that a caller does not notice that the server no longer accepts a password,
// without retries of the client.
func rejected(t *testing.T, s *servers.Redis) {
	for _, tt := range []struct {
		name   string
		change func(*consumertest.Endpoint, string)
	}{
		{"promoted", func(e *consumertest.Endpoint, v string) { e.Put("cache", "v2", v) }},
		{"candidate", func(e *consumertest.Endpoint, v string) { e.SetStage("cache", kms.StagePending, "v2", v) }},
		{"previous", func(e *consumertest.Endpoint, v string) { e.SetStage("cache", kms.StagePrevious, "v0", v) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			name := "rejected-" + tt.name
			user(t, s, name, "p2")
			e, c := consumertest.New(t, "cache", "v1", value(name, "p1"))
			tt.change(e, value(name, "p2"))
			r := client(t, c, &redis.Options{Addr: s.Addr, MaxRetries: -1, DialerRetries: 1}, nil)
			got, err := r.Do(t.Context(), "ACL", "WHOAMI").Text()
			if err != nil || got != name || c.Counters().Logins[consumer.LoginRejected] != 1 {
				t.Errorf("logged in as %q, %v, counted %v", got, err, c.Counters().Logins)
			}
		})
	}
}

func nothingWorks(t *testing.T, s *servers.Redis) {
	_, c := consumertest.New(t, "cache", "v1", value("nobody", "marker"))
	r := client(t, c, &redis.Options{Addr: s.Addr, MaxRetries: -1, DialerRetries: 1}, nil)
	err := r.Ping(t.Context()).Err()
	if !redisauth.Rejected(err) || strings.Contains(err.Error(), "marker") {
		t.Errorf("got %v, want what the server says", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	down := client(t, c, &redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1, DialerRetries: 1}, nil)
	var refused *net.OpError
	if err := down.Ping(t.Context()).Err(); !errors.As(err, &refused) || redisauth.Rejected(err) {
		t.Errorf("without a server: %v", err)
	}
}

// drained verifies that connections are closed at their age one by one, without a failure, and are
// held until then.
func drained(t *testing.T, s *servers.Redis) {
	user(t, s, "drain-a", "p1")
	user(t, s, "drain-b", "p2")
	e, c := consumertest.New(t, "cache", "v1", value("drain-a", "p1"))
	r := client(t, c, &redis.Options{
		Addr:       s.Addr,
		MaxRetries: -1,
		PoolSize:   10,
	}, &redisauth.Options{DrainWithin: 3 * time.Second})
	use := func() map[string]int {
		counts := map[string]int{}
		var mu sync.Mutex
		var work sync.WaitGroup
		for range 10 {
			work.Go(func() {
				got, err := r.Do(t.Context(), "ACL", "WHOAMI").Text()
				mu.Lock()
				defer mu.Unlock()
				counts[got]++
				if err != nil {
					t.Error(err)
				}
			})
		}
		work.Wait()
		return counts
	}
	use()
	e.Put("cache", "v2", value("drain-b", "p2"))
	if err := c.Refresh(t.Context(), "cache"); err != nil {
		t.Fatal(err)
	}
	promoted := time.Now()
	mixed := false
	for counts := use(); counts["drain-a"] > 0 || consumertest.Held(t, c, "cache") != ""; counts = use() {
		if consumertest.Held(t, c, "cache") == "" && counts["drain-a"] > 0 && use()["drain-a"] > 0 {
			t.Fatal("nothing is held, and connections of v1 are open")
		}
		mixed = mixed || counts["drain-a"] > 0 && counts["drain-b"] > 0
		if time.Since(promoted) > 10*time.Second {
			t.Fatal("connections of the former version are never replaced")
		}
	}
	if !mixed {
		t.Error("all connections were replaced at once")
	}
}

// atRest verifies that an idle connection releases its version at its age, and that a connection in
// use does not, or holds it again when it is used.
func atRest(t *testing.T, s *servers.Redis) {
	user(t, s, "rest", "p1", "p2")
	s.Do(t, "ACL", "SETUSER", "rest", "allchannels")
	start := func(t *testing.T) (*consumertest.Endpoint, *consumer.Consumer, *redis.Client) {
		t.Helper()
		e, c := consumertest.New(t, "cache", "v1", value("rest", "p1"))
		return e, c, client(t, c, &redis.Options{Addr: s.Addr}, &redisauth.Options{DrainWithin: 1500 * time.Millisecond})
	}
	promote := func(t *testing.T, e *consumertest.Endpoint, c *consumer.Consumer) {
		t.Helper()
		e.Put("cache", "v2", value("rest", "p2"))
		if err := c.Refresh(t.Context(), "cache"); err != nil {
			t.Fatal(err)
		}
	}
	released := func(t *testing.T, c *consumer.Consumer, within time.Duration) bool {
		t.Helper()
		for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
			if consumertest.Held(t, c, "cache") == "" {
				return true
			}
		}
		return false
	}
	t.Run("unused", func(t *testing.T) {
		t.Parallel()
		e, c, r := start(t)
		kept := r.Conn()
		defer kept.Close()
		if err := kept.Ping(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		promote(t, e, c)
		if !released(t, c, 10*time.Second) {
			t.Error("a connection at rest holds v1 on and on")
		}
		if err := kept.Ping(t.Context()).Err(); err != nil || consumertest.Held(t, c, "cache") != "v1" {
			t.Errorf("used again: %v, %q is held", err, consumertest.Held(t, c, "cache"))
		}
		if !released(t, c, 10*time.Second) {
			t.Error("at rest again it holds v1 on and on")
		}
	})
	t.Run("subscription", func(t *testing.T) {
		t.Parallel()
		e, c, r := start(t)
		sub := r.Subscribe(t.Context(), "news")
		if _, err := sub.Receive(t.Context()); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := sub.ReceiveMessage(t.Context())
			done <- err
		}()
		promote(t, e, c)
		if released(t, c, 4*time.Second) {
			t.Error("a connection that waits for messages holds nothing")
		}
		if err := r.Publish(t.Context(), "news", "hello").Err(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = sub.Close()
		_ = r.Close()
		if !released(t, c, 10*time.Second) {
			t.Error("after its end v1 is held")
		}
	})
}

func overTLS(t *testing.T, s *servers.Redis) {
	user(t, s, "tls", "p1")
	_, c := consumertest.New(t, "cache", "v1", value("tls", "p1"))
	ca, err := os.ReadFile(s.Authority.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	r := client(t, c, &redis.Options{
		Addr:      s.TLSAddr,
		TLSConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}, nil)
	for range 3 {
		if got, err := r.Do(t.Context(), "ACL", "WHOAMI").Text(); err != nil || got != "tls" {
			t.Fatalf("logged in as %q, %v", got, err)
		}
	}
	if stats := r.PoolStats(); stats.TotalConns != 1 {
		t.Errorf("%d connections for one command after the other, want one", stats.TotalConns)
	}
	if err := r.Close(); err != nil || consumertest.Held(t, c, "cache") != "" {
		t.Error(err)
	}
}

// database verifies what go-redis does after the login: selecting a database, setting a name,
// protocol 3, subscriptions.
func database(t *testing.T, s *servers.Redis) {
	user(t, s, "database", "p1")
	s.Do(t, "ACL", "SETUSER", "database", "allchannels")
	_, c := consumertest.New(t, "cache", "v1", value("database", "p1"))
	dialled := 0
	r := client(t, c, &redis.Options{
		Addr: "of-the-dialer:1", DB: 3, ClientName: "named", Protocol: 3,
		Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			dialled++
			if addr != "of-the-dialer:1" {
				t.Errorf("the dialer is asked for %q", addr)
			}
			return new(net.Dialer).DialContext(ctx, network, s.Addr)
		},
	}, nil)
	info, err := r.ClientInfo(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	if info.DB != 3 || info.Name != "named" || info.User != "database" || info.Resp != 3 || dialled != 1 {
		t.Errorf("database %d, name %q, user %q, protocol %d, dialled %d times",
			info.DB, info.Name, info.User, info.Resp, dialled)
	}
	sub := r.Subscribe(t.Context(), "news")
	defer sub.Close()
	if _, err := sub.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Publish(t.Context(), "news", "hello").Err(); err != nil {
		t.Fatal(err)
	}
	if m, err := sub.ReceiveMessage(t.Context()); err != nil || m.Payload != "hello" {
		t.Errorf("%v, %v", m, err)
	}
}

func defaultUser(t *testing.T, s *servers.Redis) {
	_, c := consumertest.New(t, "cache", "v1", s.Password)
	r := client(t, c, &redis.Options{Addr: s.Addr}, nil)
	if got, err := r.Do(t.Context(), "ACL", "WHOAMI").Text(); err != nil || got != "default" {
		t.Errorf("logged in as %q, %v", got, err)
	}
}

// TestSilent verifies that a server that accepts connections and sends nothing does not block a
// caller for longer than its context allows.
func TestSilent(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, c := consumertest.New(t, "cache", "v1", value("a", "p"))
	r := client(t, c, &redis.Options{
		Addr:          l.Addr().String(),
		MaxRetries:    -1,
		DialerRetries: 1,
		DialTimeout:   100 * time.Millisecond,
	}, nil)
	begun := time.Now()
	if err := r.Ping(t.Context()).Err(); err == nil || time.Since(begun) > 5*time.Second {
		t.Errorf("after %v: %v", time.Since(begun), err)
	}
}

func TestConfigureRefuses(t *testing.T) {
	t.Parallel()
	_, c := consumertest.New(t, "cache", "v1", value("a", "p"))
	for want, err := range map[string]error{
		"consumer is missing":          redisauth.Configure(&redis.Options{}, nil, "cache", nil),
		"name of the secret":           redisauth.ConfigureCluster(&redis.ClusterOptions{}, c, "", nil),
		"options of the client are mi": redisauth.Configure(nil, c, "cache", nil),
		"have credentials already":     redisauth.Configure(&redis.Options{Password: "p"}, c, "cache", nil),
		"DrainWithin is -1s": redisauth.Configure(&redis.Options{}, c, "cache",
			&redisauth.Options{DrainWithin: -time.Second}),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error that says %q", err, want)
		}
	}
	o := &redis.ClusterOptions{ConnMaxLifetime: time.Minute}
	if err := redisauth.ConfigureCluster(o, c, "cache", nil); err != nil || o.Dialer == nil ||
		o.ConnMaxLifetime != 45*time.Second || o.ConnMaxLifetimeJitter != 15*time.Second {
		t.Errorf("%v; the age is %v, %v more or less", err, o.ConnMaxLifetime, o.ConnMaxLifetimeJitter)
	}
}
