// Command bench measures what the project promises and prints one figure a line, name and value. It exits non-zero when
// a bound that the repository states does not hold. Speeds are ratios to a floor of the same run: a net/http server with
// a fixed reply, called by the same generator with the same signed requests.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// Bounds that the repository states.
const (
	maxStart     = 300 * time.Millisecond // of a process, from its start to a 200 of /readyz
	maxTestStart = 200 * time.Millisecond // of keyturntest.Start
)

const (
	runs        = 7
	connections = 32
	requests    = 20_000
	rounds      = 3
)

func main() {
	testing.Init()
	binary := flag.String("keyturn", "bin/keyturn", "the binary to measure")
	flag.Parse()
	if err := run(*binary); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(binary string) error {
	return errors.Join(starts(binary), testStart(), speed())
}

func figure(name string, value float64) { fmt.Printf("%s %.4g\n", name, value) }

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// starts measures a new process from its start to ready: the first run, which makes account, root key and CA, and a
// later one.
func starts(binary string) error {
	var first, again []time.Duration
	var memory float64
	for range runs {
		dir, err := os.MkdirTemp("", "keyturn-bench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		a, _, err := start(binary, dir)
		if err != nil {
			return err
		}
		b, rss, err := start(binary, dir)
		if err != nil {
			return err
		}
		first, again, memory = append(first, a), append(again, b), rss
	}
	figure("start_first_ready_ms", milliseconds(median(first)))
	figure("start_again_ready_ms", milliseconds(median(again)))
	figure("idle_memory_mb", memory)
	if m := max(median(first), median(again)); m > maxStart {
		return fmt.Errorf("start to ready takes %v, more than %v", m, maxStart)
	}
	return nil
}

func start(binary, dir string) (took time.Duration, megabytes float64, err error) {
	port, err := freePort()
	if err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	cmd := exec.Command(binary, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--listen-http", port)
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		err = errors.Join(err, cmd.Wait())
	}()
	client := &http.Client{Timeout: time.Second}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for time.Since(begin) < 30*time.Second {
		resp, err := client.Get("http://" + port + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				client.CloseIdleConnections()
				return time.Since(begin), residentSize(cmd.Process.Pid), nil
			}
		}
		<-tick.C
	}
	return 0, 0, errors.New("the server was not ready in 30 seconds")
}

// residentSize is the resident memory of a process in MB; 0 where /proc does not tell.
func residentSize(pid int) float64 {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kb / 1024
		}
	}
	return 0
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func testStart() error {
	result := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			s := keyturntest.Start(b)
			b.StopTimer()
			if err := s.Stop(); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
	took := time.Duration(result.NsPerOp())
	figure("keyturntest_start_ms", milliseconds(took))
	if took == 0 || took > maxTestStart {
		return fmt.Errorf("keyturntest.Start takes %v, more than %v", took, maxTestStart)
	}
	return nil
}

// speed compares GetSecretValue, signed and audited, with the floor.
func speed() error {
	dir, err := os.MkdirTemp("", "keyturn-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	node, err := server.New(context.Background(), server.Config{DataDir: dir, ListenHTTP: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	<-node.Ready()
	err = compare(node)
	stop()
	return errors.Join(err, <-done)
}

func compare(node *server.Server) error {
	admin, _ := node.Admin()
	credentials := sign.Credentials{AccessKeyID: admin.AccessKeyID, AccessKeySecret: admin.AccessKeySecret}
	client, err := kms.NewClient(kms.Config{Endpoint: "http://" + node.HTTPEndpoint(), Credentials: credentials})
	if err != nil {
		return err
	}
	ctx := context.Background()
	if _, err := client.CreateSecret(ctx, &kms.CreateSecretRequest{SecretName: "app/db", VersionID: "v1", SecretData: sensitive.New(strings.Repeat("x", 100))}); err != nil {
		return err
	}
	reply, err := client.Do(ctx, kms.Call{Action: "GetSecretValue", Params: sign.Params{{Name: "SecretName", Value: "app/db"}}})
	if err != nil {
		return err
	}
	floor, err := startFloor(reply)
	if err != nil {
		return err
	}
	defer floor.Close()
	for _, version := range []string{"v1", "v3"} {
		var ratios []float64
		var best float64
		for range rounds {
			bottom, err := load("http://"+floor.Addr().String(), credentials, version)
			if err != nil {
				return err
			}
			rate, err := load("http://"+node.HTTPEndpoint(), credentials, version)
			if err != nil {
				return err
			}
			ratios, best = append(ratios, rate/bottom), max(best, rate)
		}
		slices.Sort(ratios)
		figure("get_secret_value_"+version+"_to_floor", ratios[rounds/2])
		figure("get_secret_value_"+version+"_per_second", best)
	}
	return nil
}

// startFloor serves a fixed reply.
func startFloor(reply []byte) (net.Listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	h := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json;charset=utf-8")
		_, _ = w.Write(reply)
	})}
	go func() { _ = h.Serve(l) }() // ends when the listener is closed
	return l, nil
}

// load sends requests that were signed beforehand, each with a nonce of its own, and returns how many a second were
// answered.
func load(base string, credentials sign.Credentials, version string) (float64, error) {
	list := make([]*http.Request, requests)
	for i := range list {
		r, err := signed(base, credentials, version)
		if err != nil {
			return 0, err
		}
		list[i] = r
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
	defer client.CloseIdleConnections()
	var next atomic.Int64
	var failed atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for range connections {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < requests; i = next.Add(1) - 1 {
				resp, err := client.Do(list[i])
				if err != nil || resp.StatusCode != http.StatusOK {
					failed.Add(1)
				}
				if err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
			}
		})
	}
	wg.Wait()
	if n := failed.Load(); n > 0 {
		return 0, fmt.Errorf("%d of %d requests failed", n, requests)
	}
	return requests / time.Since(begin).Seconds(), nil
}

func signed(base string, credentials sign.Credentials, version string) (*http.Request, error) {
	params := sign.Params{{Name: "SecretName", Value: "app/db"}}
	if version == "v1" {
		params = append(params, sign.Param{Name: "Action", Value: "GetSecretValue"}, sign.Param{Name: "Version", Value: kms.Version}, sign.Param{Name: "Format", Value: "JSON"})
		var err error
		if params, err = credentials.SignV1(http.MethodGet, params, time.Now(), rand.Text()); err != nil {
			return nil, err
		}
	}
	query := url.Values{}
	for _, p := range params {
		query.Set(p.Name, p.Value)
	}
	r, err := http.NewRequest(http.MethodGet, base+"/?"+query.Encode(), nil)
	if err != nil || version == "v1" {
		return r, err
	}
	return r, credentials.SignHTTP(sign.ACS3, "", r, nil, "GetSecretValue", kms.Version, time.Now(), rand.Text())
}
