package flood

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// attack is one kind of flood.
type attack struct {
	name string
	// connections are how many attack at the same time, and perSecond how much they do together at
	// most.
	connections, perSecond int
	// long says that it takes half a minute to show: the store opens files every 30 seconds.
	long bool
	run  run

	from string           // the address of loopback that it comes from
	key  sign.Credentials // an access key without any policy
}

// run attacks until ctx ends and counts in sent what it sends.
type run func(ctx context.Context, t *testing.T, p *process, a attack, sent *atomic.Int64)

func attacks() []attack {
	return []attack{
		{name: "idle", long: true, connections: 1100, perSecond: 1000, run: raw(idle)},
		{name: "slow_headers", connections: 400, perSecond: 1000, run: raw(slowHeaders)},
		{name: "slow_bodies", connections: 400, perSecond: 1000, run: raw(slowBodies)},
		{name: "large_requests", connections: 300, perSecond: 100, run: raw(largeRequests)},
		{name: "handshakes", connections: 20, perSecond: 500, run: raw(handshake)},
		{name: "streams", connections: 600, perSecond: 1000, run: streams},
		{name: "unsigned", connections: 32, perSecond: 5000, run: raw(unsigned)},
		{name: "wrong_signatures", connections: 32, perSecond: 1000, run: calls(wrongSignature)},
		{name: "denied", connections: 32, perSecond: 1000, run: calls(denied)},
		{name: "nonces", connections: 32, perSecond: 1000, run: calls(nonces)},
		{name: "leaving", connections: 8, perSecond: 100, run: calls(leaving)},
		{name: "waiting", connections: 700, perSecond: 100, run: calls(waiting)},
	}
}

// raw returns an attack over plain connections. do uses one connection until it ends. Before each
// thing that it sends, do calls turn, which counts it and waits for the rate of the attack.
func raw(do func(ctx context.Context, p *process, c net.Conn, turn func() bool)) run {
	return func(ctx context.Context, _ *testing.T, p *process, a attack, sent *atomic.Int64) {
		pace := rate.NewLimiter(rate.Limit(a.perSecond), 1)
		turn := func() bool {
			if pace.Wait(ctx) != nil {
				return false
			}
			sent.Add(1)
			return true
		}
		var all sync.WaitGroup
		for range a.connections {
			all.Go(func() {
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(a.from)}, Timeout: time.Second}
				for turn() {
					c, err := d.DialContext(ctx, "tcp", p.plain)
					if err != nil {
						continue // it is refused, or out of ports
					}
					stop := context.AfterFunc(ctx, func() { _ = c.Close() })
					do(ctx, p, c, turn)
					stop()
					_ = c.Close()
				}
			})
		}
		all.Wait()
	}
}

// idle asks for a page and keeps the connection.
func idle(_ context.Context, _ *process, c net.Conn, _ func() bool) {
	if _, err := io.WriteString(c, page); err == nil {
		_, _ = io.Copy(io.Discard, c)
	}
}

// drip sends a byte every second.
func drip(ctx context.Context, c net.Conn) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if _, err := io.WriteString(c, "a"); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func slowHeaders(ctx context.Context, _ *process, c net.Conn, _ func() bool) {
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nX-A: ")
	drip(ctx, c)
}

func slowBodies(ctx context.Context, _ *process, c net.Conn, _ func() bool) {
	_, _ = io.WriteString(c,
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000000\r\n\r\n")
	drip(ctx, c)
}

// largeRequests sends a query and a body of almost 1 MiB each, but for the last byte.
func largeRequests(_ context.Context, _ *process, c net.Conn, _ func() bool) {
	const size = 1_000_000
	filler := strings.Repeat("a", size)
	_, err := fmt.Fprintf(c, "POST /?a=%s HTTP/1.1\r\nHost: x\r\nContent-Type: "+
		"application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", filler, size+1, filler)
	if err == nil {
		_, _ = io.Copy(io.Discard, c)
	}
}

func handshake(ctx context.Context, p *process, _ net.Conn, turn func() bool) {
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 2, 1)}, Timeout: time.Second}
	d := tls.Dialer{NetDialer: &from, Config: &tls.Config{RootCAs: p.roots, MinVersion: tls.VersionTLS13}}
	for turn() {
		if c, err := d.DialContext(ctx, "tcp", p.tls); err == nil {
			_ = c.Close()
		}
	}
}

// unsigned sends requests without a signature whose records would be as long as can be.
func unsigned(_ context.Context, _ *process, c net.Conn, turn func() bool) {
	request := "GET /?Action=GetSecretValue&Version=2016-01-20 HTTP/1.1\r\nHost: x\r\nUser-Agent: " +
		strings.Repeat("\x80", 800) + "\r\n\r\n"
	answers := bufio.NewReader(c)
	for turn() {
		if _, err := io.WriteString(c, request); err != nil {
			return
		}
		r, err := http.ReadResponse(answers, nil)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
	}
}

// streams opens as many requests at once as one client can, whose bodies do not end.
func streams(ctx context.Context, _ *testing.T, p *process, a attack, sent *atomic.Int64) {
	transport := p.transport(a.from)
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	pace := rate.NewLimiter(rate.Limit(a.perSecond), 1)
	var all sync.WaitGroup
	for range a.connections {
		all.Go(func() {
			for pace.Wait(ctx) == nil {
				body, more := io.Pipe()
				stop := context.AfterFunc(ctx, func() { _ = more.Close() })
				r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+p.tls+"/", body)
				if err != nil {
					return
				}
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				sent.Add(1)
				go func() { _, _ = io.WriteString(more, strings.Repeat("a", 200_000)) }()
				_ = drain(client.Do(r)) // it is to fail
				_ = more.Close()
				stop()
			}
		})
	}
	all.Wait()
}

// calls returns an attack by calls of a client.
func calls(prepare func(c *kms.Config) func(ctx context.Context, c *kms.Client)) run {
	return func(ctx context.Context, t *testing.T, p *process, a attack, sent *atomic.Int64) {
		pace := rate.NewLimiter(rate.Limit(a.perSecond), 1)
		var all sync.WaitGroup
		for range a.connections {
			var call func(context.Context, *kms.Client)
			client := p.client(t, a.from, a.key, func(c *kms.Config) { call = prepare(c) })
			all.Go(func() {
				for pace.Wait(ctx) == nil {
					sent.Add(1)
					call(ctx, client)
				}
			})
		}
		all.Wait()
	}
}

func wrongSignature(c *kms.Config) func(context.Context, *kms.Client) {
	c.Credentials.AccessKeySecret = sensitive.New("wrong")
	return denied(c)
}

func denied(*kms.Config) func(context.Context, *kms.Client) {
	return func(ctx context.Context, c *kms.Client) {
		_, _ = c.GetSecretValue(ctx, &kms.GetSecretValueRequest{SecretName: "victim/a"}) // it is to fail
	}
}

// nonces uses up nonces, of times that are ahead as far as may be.
func nonces(c *kms.Config) func(context.Context, *kms.Client) {
	c.Now = func() time.Time { return time.Now().Add(110 * time.Second) }
	return func(ctx context.Context, c *kms.Client) {
		_, _ = c.DescribeRegions(ctx, &kms.DescribeRegionsRequest{}) // whether it succeeds does not matter
	}
}

// leaving says of instances that they leave, for secrets that the key may not read.
func leaving(*kms.Config) func(context.Context, *kms.Client) {
	in := &kms.WatchSecretsRequest{Leaving: true}
	for i := range 250 {
		in.Secrets = append(in.Secrets, kms.WatchedSecret{SecretName: fmt.Sprint("name-", i)})
	}
	in.Secrets[0].SecretName = "victim/a"
	return func(ctx context.Context, c *kms.Client) {
		call := *in
		call.Consumer = fmt.Sprint("instance-", time.Now().UnixNano())
		_, _ = c.WatchSecrets(ctx, &call) // whether it succeeds does not matter
	}
}

// waiting holds connections by calls that wait.
func waiting(*kms.Config) func(context.Context, *kms.Client) {
	return func(ctx context.Context, c *kms.Client) {
		in := &kms.WatchSecretsRequest{Secrets: []kms.WatchedSecret{{SecretName: "none"}}}
		if now, err := c.WatchSecrets(ctx, in); err == nil && len(now.Changes) == 1 {
			in.Secrets[0].Revision, in.WaitSeconds = now.Changes[0].Revision, 50
			_, _ = c.WatchSecrets(ctx, in) // it ends with the attack
		}
	}
}
