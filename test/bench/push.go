package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// Bounds on push.
const (
	// from the call that stores a new version to the answer of who waits for it, at 10,000 waiters
	maxPushP99     = 100 * time.Millisecond
	maxWaiterPlain = 64  // KB of resident memory of the server for each waiter, over HTTP
	maxWaiterTLS   = 160 // and over TLS, each with a connection of its own
)

const (
	pushWaiters    = 10_000
	pushWaitersTLS = 1_000
	pushSecrets    = 1_000 // so ten wait for each
	pushChanges    = 300
	pushTimeout    = 3 * time.Minute
)

// push measures how soon a change reaches who waits for it, with 10,000 waiters, each with a
// connection of its own, and what a waiter costs. Over TLS it is another server: memory that
// waiters before have left would be used again.
func push(binary string) error {
	ctx, cancel := context.WithTimeout(context.Background(), pushTimeout)
	defer cancel()
	var latencies []time.Duration
	each, err := withCrowd(ctx, binary, pushWaiters, false, func(c *crowd, by *kms.Client) (err error) {
		latencies, err = c.latencies(ctx, by)
		return err
	})
	if err != nil {
		return err
	}
	eachTLS, err := withCrowd(ctx, binary, pushWaitersTLS, true, func(*crowd, *kms.Client) error { return nil })
	if err != nil {
		return err
	}
	at := func(q float64) time.Duration { return latencies[int(q*float64(len(latencies)-1))] }
	figure("push_waiters", pushWaiters)
	figure("push_median_ms", milliseconds(at(.5)))
	figure("push_p99_ms", milliseconds(at(.99)))
	figure("push_max_ms", milliseconds(at(1)))
	figure("push_memory_kb_per_waiter", each)
	figure("push_memory_kb_per_waiter_tls", eachTLS)
	var errs []error
	if at(.99) > maxPushP99 {
		errs = append(errs,
			fmt.Errorf("a change reaches who waits within %v at the 99th percentile; the bound is %v", at(.99), maxPushP99))
	}
	if each > maxWaiterPlain || eachTLS > maxWaiterTLS {
		errs = append(errs, fmt.Errorf("a waiter costs %.0f KB, over TLS %.0f; the bounds "+
			"are %d and %d", each, eachTLS, maxWaiterPlain, maxWaiterTLS))
	}
	return errors.Join(errs...)
}

// withCrowd starts a server and waiters, does something with them, and returns what each of them
// has cost, in KB.
func withCrowd(
	ctx context.Context,
	binary string,
	n int,
	overTLS bool,
	do func(*crowd, *kms.Client) error,
) (kb float64, err error) {
	dir, err := os.MkdirTemp("", "keyturn-bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	p, _, err := launch(binary, dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	by, roots, err := administrator(dir)
	if err != nil {
		return 0, err
	}
	client, err := kms.NewClient(kms.Config{Endpoint: "http://" + p.plain, Credentials: by})
	if err != nil {
		return 0, err
	}
	if err := (&subject{credentials: by, client: client}).create(0, pushSecrets); err != nil {
		return 0, err
	}
	before := residentSize(p.cmd.Process.Pid)
	endpoint := "http://" + p.plain
	if overTLS {
		endpoint = "https://" + p.other
	}
	ctx, leave := context.WithCancel(ctx)
	c, err := gather(ctx, endpoint, by, roots, n)
	if err == nil {
		err = waiting(ctx, p, n)
	}
	if err == nil {
		kb = (residentSize(p.cmd.Process.Pid) - before) * 1024 / float64(n)
		err = do(c, client)
	}
	leave()
	if c != nil {
		c.wg.Wait()
		c.transport.CloseIdleConnections()
	}
	return kb, err
}

// administrator reads the access key of a new server, and whom to trust.
func administrator(dir string) (sign.Credentials, *x509.CertPool, error) {
	file, err := os.ReadFile(filepath.Join(dir, "admin.json"))
	if err != nil {
		return sign.Credentials{}, nil, err
	}
	var admin struct {
		AccessKeyID     string `json:"access_key_id"`
		AccessKeySecret string `json:"access_key_secret"`
		CAFile          string `json:"ca_file"`
	}
	if json.Unmarshal(file, &admin) != nil {
		return sign.Credentials{}, nil, errors.New("admin.json cannot be read")
	}
	pem, err := os.ReadFile(admin.CAFile)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return sign.Credentials{
		AccessKeyID:     admin.AccessKeyID,
		AccessKeySecret: sensitive.New(admin.AccessKeySecret),
	}, roots, err
}

// crowd is many waiters.
type crowd struct {
	client    *kms.Client
	transport *http.Transport
	told      chan arrival
	wg        sync.WaitGroup
}

// arrival is an answer that a waiter has received.
type arrival struct {
	version string
	at      time.Time
	err     error
}

// gather starts waiters, each with a connection of its own.
func gather(ctx context.Context, endpoint string, by sign.Credentials, roots *x509.CertPool, n int) (*crowd, error) {
	c := &crowd{transport: &http.Transport{MaxIdleConnsPerHost: n, MaxIdleConns: n}, told: make(chan arrival, n)}
	if roots != nil {
		c.transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	var err error
	c.client, err = kms.NewClient(kms.Config{
		Endpoint:    endpoint,
		Credentials: by,
		HTTPClient:  &http.Client{Transport: c.transport, Timeout: time.Minute},
	})
	if err != nil {
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	gate := make(chan struct{}, connections) // who comes at once is let in by turns
	for i := range n {
		c.wg.Go(func() { c.wait(ctx, i%pushSecrets, gate) })
	}
	return c, nil
}

func watch(from, n int) []kms.WatchedSecret {
	list := make([]kms.WatchedSecret, n)
	for i := range list {
		list[i] = kms.WatchedSecret{SecretName: name(from + i)}
	}
	return list
}

// wait waits for changes of one secret until the context ends. What it is at first is no change.
func (c *crowd) wait(ctx context.Context, secret int, gate chan struct{}) {
	in := &kms.WatchSecretsRequest{Secrets: watch(secret, 1)}
	gate <- struct{}{}
	out, err := c.client.WatchSecrets(ctx, in) // what it is at present
	<-gate
	for in.WaitSeconds = 50; ctx.Err() == nil; out, err = c.client.WatchSecrets(ctx, in) {
		switch {
		case err != nil:
			c.told <- arrival{err: err}
			return
		case len(out.Changes) > 0 && in.Secrets[0].Revision != "":
			c.told <- arrival{version: out.Changes[0].VersionID, at: time.Now()}
			fallthrough
		case len(out.Changes) > 0:
			in.Secrets[0].Revision = out.Changes[0].Revision
		}
	}
}

// latencies changes secrets one after the other, and measures for each of their waiters the time
// from the call to its answer.
func (c *crowd) latencies(ctx context.Context, by *kms.Client) ([]time.Duration, error) {
	var list []time.Duration
	for i := range pushChanges {
		version := fmt.Sprint("n", i)
		begin := time.Now()
		if _, err := by.PutSecretValue(ctx, &kms.PutSecretValueRequest{
			SecretName: name(i % pushSecrets),
			VersionID:  version,
			SecretData: sensitive.New(version),
		}); err != nil {
			return nil, err
		}
		for range pushWaiters / pushSecrets {
			select {
			case a := <-c.told:
				if a.err != nil || a.version != version {
					return nil, fmt.Errorf("a waiter was notified of %q; want %q: %w", a.version, version, a.err)
				}
				list = append(list, a.at.Sub(begin))
			case <-ctx.Done():
				return nil, errors.New("a change did not reach all who waited")
			}
		}
	}
	slices.Sort(list)
	return list, nil
}

// waiting waits until so many wait at the server.
func waiting(ctx context.Context, p *process, n int) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if got, err := metric("http://"+p.plain+"/metrics", "keyturn_watching"); err != nil || int(got) == n {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("there were never %d waiters", n)
		}
	}
}

// metric reads one figure of a server.
func metric(url, name string) (float64, error) {
	resp, err := http.Get(url)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(page)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(rest), 64)
		}
	}
	return 0, fmt.Errorf("there is no metric %s", name)
}
