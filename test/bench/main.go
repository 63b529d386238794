// Command bench measures what the project promises and prints one figure a line, name and value.
// It exits non-zero when a bound that the repository states does not hold. Speeds are ratios to a
// floor of the same run: a net/http server with a fixed reply, called by the same generator with
// the same signed requests.
package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/limit"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// Bounds that the repository states.
const (
	minGetV1     = 0.6
	minGetV3     = 0.5
	minMany      = 0.9                    // of reads spread over 100,000 secrets, to those over 100
	maxIdle      = 60                     // MB resident
	maxStart     = 300 * time.Millisecond // of a process, from its start to a 200 of /readyz
	maxTestStart = 200 * time.Millisecond // of keyturntest.Start
)

const (
	runs        = 7
	connections = 32
	requests    = 8_000
	rounds      = 11         // pairs: short ones in turn, so that what else the machine does meets both sides
	maxRounds   = 3 * rounds // when the first say that a bound does not hold
	changes     = 3_000
	manySecrets = 100_000
	floodRate   = 2_000 // requests a second of one key
	floodReads  = 1_000
	floodTime   = 20 * time.Second
	floodSecret = "flood" // both read it: who may read is not slowed down, as a caller without rights is
)

func main() {
	testing.Init()
	binary := flag.String("keyturn", "bin/keyturn", "the binary to measure")
	only := flag.String("only", "", "measure these parts alone, with commas between: "+strings.Join(parts, ", "))
	profile := flag.String("cpuprofile", "", "write a CPU profile of all that is measured in this process to a file")
	flag.Parse()
	stop, err := startProfile(*profile)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	err = run(*binary, *only)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func startProfile(name string) (stop func(), err error) {
	if name == "" {
		return func() {}, nil
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() { pprof.StopCPUProfile(); _ = f.Close() }, nil
}

// parts are what is measured, in this order.
var parts = []string{
	"start", "teststart", "reads", "writes", "many", "flood", "rotations", "push", "consumers", "agents",
}

func run(binary, only string) error {
	wanted := parts
	if only != "" {
		wanted = strings.Split(only, ",")
	}
	for _, part := range wanted {
		if !slices.Contains(parts, part) {
			return fmt.Errorf("-only %s: there is no such part; there are %s", part, strings.Join(parts, ", "))
		}
	}
	var errs []error
	for _, part := range wanted {
		switch part {
		case "start":
			errs = append(errs, starts(binary))
		case "teststart":
			errs = append(errs, testStart())
		case "reads":
			errs = append(errs, speed((*subject).reads))
		case "writes":
			errs = append(errs, speed((*subject).writes))
		case "many":
			errs = append(errs, speed((*subject).many))
		case "flood":
			errs = append(errs, flood())
		case "rotations":
			errs = append(errs, rotations())
		case "push":
			errs = append(errs, push(binary))
		case "consumers":
			errs = append(errs, consumers())
		case "agents":
			errs = append(errs, speed((*subject).agents))
		}
	}
	return errors.Join(errs...)
}

func figure(name string, value float64) {
	if value == math.Trunc(value) {
		fmt.Printf("%s %.0f\n", name, value)
		return
	}
	fmt.Printf("%s %.4g\n", name, value)
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// starts measures a new process from its start to ready: the first run, which makes account, root
// key and CA, and a later one.
func starts(binary string) error {
	var first, again []time.Duration
	var memory []float64
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
		first, again, memory = append(first, a), append(again, b), append(memory, rss)
	}
	figure("start_first_ready_ms", milliseconds(median(first)))
	figure("start_again_ready_ms", milliseconds(median(again)))
	figure("idle_memory_mb", middle(memory))
	var errs []error
	if m := max(median(first), median(again)); m > maxStart {
		errs = append(errs, fmt.Errorf("start to ready takes %v, more than %v", m, maxStart))
	}
	if m := middle(memory); m > maxIdle {
		errs = append(errs, fmt.Errorf("an idle server holds %.0f MB, more than %d", m, maxIdle))
	}
	return errors.Join(errs...)
}

// start measures one start of a process, and its resident memory once it is ready, and ends it.
func start(binary, dir string) (took time.Duration, megabytes float64, err error) {
	p, took, err := launch(binary, dir)
	if err != nil {
		return 0, 0, err
	}
	return took, residentSize(p.cmd.Process.Pid), p.stop()
}

// process is a server of its own.
type process struct {
	cmd          *exec.Cmd
	plain, other string // host:port of the plain and of the TLS listener
}

func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	return p.cmd.Wait()
}

// launch starts a server and waits until it is ready.
func launch(binary, dir string) (p *process, took time.Duration, err error) {
	plain, err := freePort()
	if err != nil {
		return nil, 0, err
	}
	encrypted, err := freePort()
	if err != nil {
		return nil, 0, err
	}
	begin := time.Now()
	p = &process{
		cmd:   exec.Command(binary, "serve", "--data-dir", dir, "--listen", encrypted, "--listen-http", plain),
		plain: plain,
		other: encrypted,
	}
	if err := p.cmd.Start(); err != nil {
		return nil, 0, err
	}
	client := &http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for time.Since(begin) < 30*time.Second {
		resp, err := client.Get("http://" + plain + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return p, time.Since(begin), nil
			}
		}
		<-tick.C
	}
	return nil, 0, errors.Join(errors.New("the server was not ready in 30 seconds"), p.stop())
}

// residentSize is the resident memory of a process in MB; 0 without /proc.
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

// speed measures one thing on a server of its own.
func speed(measure func(*subject) error) error {
	dir, err := os.MkdirTemp("", "keyturn-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	node, err := server.New(context.Background(), server.Config{
		DataDir:    dir,
		Listen:     "127.0.0.1:0",
		ListenHTTP: "127.0.0.1:0",
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	<-node.Ready()
	err = prepared(node, measure)
	stop()
	return errors.Join(err, <-done)
}

// subject is what is measured.
type subject struct {
	node        *server.Server
	credentials sign.Credentials
	client      *kms.Client
	roots       *x509.CertPool
}

// prepared makes 100 secrets first.
func prepared(node *server.Server, measure func(*subject) error) error {
	admin, _ := node.Admin()
	s := &subject{
		node:        node,
		credentials: sign.Credentials{AccessKeyID: admin.AccessKeyID, AccessKeySecret: admin.AccessKeySecret},
		roots:       x509.NewCertPool(),
	}
	pem, err := os.ReadFile(admin.CAFile)
	if err != nil {
		return err
	}
	s.roots.AppendCertsFromPEM(pem)
	if s.client, err = kms.NewClient(kms.Config{
		Endpoint:    "http://" + node.HTTPEndpoint(),
		Credentials: s.credentials,
	}); err != nil {
		return err
	}
	if err := s.create(0, 100); err != nil {
		return err
	}
	return measure(s)
}

func name(i int) string { return fmt.Sprintf("app/%06d", i) }

// create makes secrets from one number to another, many at a time.
func (s *subject) create(from, to int) error {
	value := sensitive.New(strings.Repeat("x", 100))
	var next atomic.Int64
	next.Store(int64(from))
	var wg sync.WaitGroup
	errs := make([]error, connections)
	for w := range connections {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(to) && errs[w] == nil; i = next.Add(1) - 1 {
				_, errs[w] = s.client.CreateSecret(context.Background(), &kms.CreateSecretRequest{
					SecretName: name(int(i)),
					VersionID:  "v1",
					SecretData: value,
				})
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// reads compares GetSecretValue with a server that gives the same answer to whatever it is asked.
func (s *subject) reads() error {
	reply, err := s.client.Do(context.Background(), kms.Call{
		Action: "GetSecretValue",
		Params: sign.Params{{Name: "SecretName", Value: name(0)}},
	})
	if err != nil {
		return err
	}
	plain, encrypted, stop, err := s.floors(reply)
	if err != nil {
		return err
	}
	defer stop()
	var errs []error
	for _, run := range []struct {
		name, version, floor, node string
		least                      float64
	}{
		{"get_secret_value_v1", "v1", "http://" + plain, "http://" + s.node.HTTPEndpoint(), minGetV1},
		{"get_secret_value_v3", "v3", "http://" + plain, "http://" + s.node.HTTPEndpoint(), minGetV3},
		{"get_secret_value_v3_tls", "v3", "https://" + encrypted, "https://" + s.node.Endpoint(), 0},
	} {
		errs = append(errs, s.ratio(run.name, run.version, run.floor, run.node, run.least))
	}
	return errors.Join(errs...)
}

// pairs are two loads that were measured in turn, several times.
type pairs struct{ wall, cpu []float64 }

func (p *pairs) add(base, measured outcome) {
	p.wall = append(p.wall, measured.rate/base.rate)
	p.cpu = append(p.cpu, base.cpu.Seconds()/measured.cpu.Seconds())
}

// enough reports whether no more pairs are wanted: the bound holds, or many were measured.
func (p *pairs) enough(least float64) bool {
	n := len(p.wall)
	return n >= maxRounds || n >= rounds && max(middle(p.wall), middle(p.cpu)) >= least
}

// judge prints the medians of the pairs, by the clock and by processor time, and refuses what is
// below the bound by both. Generator and server keep every processor busy, so on a quiet machine
// the two agree; on a shared machine wall-clock time includes the load of others.
func (p *pairs) judge(what string, least float64) error {
	wall, cpu := middle(p.wall), middle(p.cpu)
	figure(what, wall)
	figure(what+"_by_cpu", cpu)
	if max(wall, cpu) < least {
		return fmt.Errorf("%s is %.2f, and %.2f by processor time: less than %.2f", what, wall, cpu, least)
	}
	return nil
}

// ratio measures the node and the floor in turn, and takes the medians.
func (s *subject) ratio(what, version, floor, node string, least float64) error {
	var p pairs
	var tail, tailFloor, rates, allocs []float64
	for !p.enough(least) {
		f, err := s.load(floor, version, 1)
		if err != nil {
			return err
		}
		n, err := s.load(node, version, 1)
		if err != nil {
			return err
		}
		p.add(f, n)
		rates, allocs = append(rates, n.rate), append(allocs, n.allocs-f.allocs)
		tail, tailFloor = append(tail, milliseconds(n.p99)), append(tailFloor, milliseconds(f.p99))
	}
	figure(what+"_per_second", middle(rates))
	figure(what+"_p99_ms", middle(tail))
	figure(what+"_floor_p99_ms", middle(tailFloor))
	figure(what+"_allocs_over_floor", middle(allocs))
	return p.judge(what+"_to_floor", least)
}

// middle is the median.
func middle(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

// floors serve a fixed reply, plainly and over TLS with the node's own certificate kind.
func (s *subject) floors(reply []byte) (plain, encrypted string, stop func(), err error) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json;charset=utf-8")
		_, _ = w.Write(reply)
	})
	a, b := httptest.NewServer(handler), httptest.NewUnstartedServer(handler)
	b.EnableHTTP2 = true
	b.StartTLS()
	s.roots.AddCert(b.Certificate())
	return a.Listener.Addr().String(), b.Listener.Addr().String(), func() { a.Close(); b.Close() }, nil
}

type outcome struct {
	rate   float64 // requests a second
	p99    time.Duration
	cpu    time.Duration // of client and server together, for each request
	allocs float64       // likewise
}

// usage is what this process has used so far.
func usage() (cpu time.Duration, allocs uint64) {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // it cannot fail for the process itself
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), m.Mallocs
}

// load sends requests that were signed beforehand, each with a nonce of its own, for the first so
// many secrets in turn.
func (s *subject) load(base, version string, secrets int) (outcome, error) {
	list := make([]*http.Request, requests)
	for i := range list {
		r, err := signed(base, s.credentials, version, name(i*7919%secrets))
		if err != nil {
			return outcome{}, err
		}
		list[i] = r
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		MaxIdleConnsPerHost: connections, TLSClientConfig: &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS13},
	}}
	defer client.CloseIdleConnections()
	took := make([]time.Duration, requests)
	var next, failed atomic.Int64
	var wg sync.WaitGroup
	runtime.GC() // what the requests left behind is not counted against either side
	cpu, allocs := usage()
	begin := time.Now()
	for range connections {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < requests; i = next.Add(1) - 1 {
				at := time.Now()
				resp, err := client.Do(list[i])
				if err != nil || resp.StatusCode != http.StatusOK {
					failed.Add(1)
				}
				if err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
				took[i] = time.Since(at)
			}
		})
	}
	wg.Wait()
	all := time.Since(begin)
	cpu2, allocs2 := usage()
	if n := failed.Load(); n > 0 {
		return outcome{}, fmt.Errorf("%d of %d requests failed", n, requests)
	}
	slices.Sort(took)
	return outcome{
		requests / all.Seconds(), took[requests*99/100], (cpu2 - cpu) / requests, float64(allocs2-allocs) / requests,
	}, nil
}

func signed(base string, credentials sign.Credentials, version, secret string) (*http.Request, error) {
	params := sign.Params{{Name: "SecretName", Value: secret}}
	if version == "v1" {
		params = append(params, sign.Param{
			Name:  "Action",
			Value: "GetSecretValue",
		}, sign.Param{Name: "Version", Value: kms.Version}, sign.Param{Name: "Format", Value: "JSON"})
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
	return r, credentials.SignHTTP(r, sign.Call{
		Action:  "GetSecretValue",
		Version: kms.Version,
		Time:    time.Now(),
		Nonce:   rand.Text(),
	})
}

// writes compares PutSecretValue with the rate at which the store itself takes as many bytes,
// both from many at once.
func (s *subject) writes() error {
	dir, err := os.MkdirTemp("", "keyturn-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	db, err := store.Open(context.Background(), store.Config{Dir: dir})
	if err != nil {
		return err
	}
	defer db.Close()
	key, err := root.New(make([]byte, 32), "bench")
	if err != nil {
		return err
	}
	records, _, err := envelope.New(key).NewRecords()
	if err != nil {
		return err
	}
	db.Authenticate(records)
	raw, err := rate(func(i int) error {
		return store.Do(context.Background(), db, func(tx *store.Tx) error {
			return tx.PutAccount(store.Account{ID: strconv.Itoa(i % 100), DefaultKeyID: strings.Repeat("x", 600)})
		})
	})
	if err != nil {
		return err
	}
	value := sensitive.New(strings.Repeat("y", 100))
	puts, err := rate(func(i int) error {
		_, err := s.client.PutSecretValue(context.Background(), &kms.PutSecretValueRequest{
			SecretName: name(i % 100),
			VersionID:  fmt.Sprint("w", i),
			SecretData: value,
		})
		return err
	})
	figure("put_secret_value_to_store", puts/raw)
	figure("put_secret_value_per_second", puts)
	return err
}

// rate is how many calls a second succeed, from many callers at once.
func rate(call func(i int) error) (float64, error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, connections)
	begin := time.Now()
	for w := range connections {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < changes && errs[w] == nil; i = next.Add(1) - 1 {
				errs[w] = call(int(i))
			}
		})
	}
	wg.Wait()
	return changes / time.Since(begin).Seconds(), errors.Join(errs...)
}

// many compares reads spread over 100,000 secrets with reads spread over 100.
func (s *subject) many() error {
	few, err := s.load("http://"+s.node.HTTPEndpoint(), "v1", 100)
	if err != nil {
		return err
	}
	if err := s.create(100, manySecrets); err != nil {
		return err
	}
	var p pairs
	for !p.enough(minMany) {
		f, err := s.load("http://"+s.node.HTTPEndpoint(), "v1", 100)
		if err != nil {
			return err
		}
		n, err := s.load("http://"+s.node.HTTPEndpoint(), "v1", manySecrets)
		if err != nil {
			return err
		}
		p.add(f, n)
	}
	figure("get_100_before_per_second", few.rate)
	return p.judge("get_100000_to_get_100", minMany)
}

// flood measures what a client without back-off costs the others: the median of one caller's
// reads alone, and while another key, over its rate, sends all it can.
func flood() error {
	dir, err := os.MkdirTemp("", "keyturn-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	node, err := server.New(context.Background(), server.Config{
		DataDir:    dir,
		ListenHTTP: "127.0.0.1:0",
		Limit:      limit.Config{PerKey: floodRate},
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	<-node.Ready()
	err = measureFlood(node)
	stop()
	return errors.Join(err, <-done)
}

func measureFlood(node *server.Server) error {
	admin, _ := node.Admin()
	ctx := context.Background()
	client := func(id string, secret sensitive.Value) (*kms.Client, error) {
		return kms.NewClient(kms.Config{
			Endpoint:    "http://" + node.HTTPEndpoint(),
			MaxAttempts: 1,
			Credentials: sign.Credentials{AccessKeyID: id, AccessKeySecret: secret},
		})
	}
	good, err := client(admin.AccessKeyID, admin.AccessKeySecret)
	if err != nil {
		return err
	}
	if _, err := good.CreateSecret(ctx, &kms.CreateSecretRequest{
		SecretName: floodSecret,
		VersionID:  "v1",
		SecretData: sensitive.New("value"),
	}); err != nil {
		return err
	}
	users := ram.New(good)
	if _, err := users.CreateUser(ctx, &ram.CreateUserRequest{UserName: "flood"}); err != nil {
		return err
	}
	may := &ram.UserPolicyRequest{UserName: "flood", PolicyType: ram.TypeSystem, PolicyName: "AliyunKMSSecretUserAccess"}
	if _, err := users.AttachPolicyToUser(ctx, may); err != nil {
		return err
	}
	key, err := users.CreateAccessKey(ctx, &ram.CreateAccessKeyRequest{UserName: "flood"})
	if err != nil {
		return err
	}
	bad, err := client(key.AccessKey.AccessKeyID, key.AccessKey.AccessKeySecret)
	if err != nil {
		return err
	}
	before, err := readMedian(good)
	if err != nil {
		return err
	}
	over, end := context.WithTimeout(ctx, floodTime)
	defer end()
	var sent, refused atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for over.Err() == nil {
				sent.Add(1)
				if _, err := bad.GetSecretValue(over, &kms.GetSecretValueRequest{
					SecretName: floodSecret,
				}); kms.CodeOf(err) == kms.CodeThrottling {
					refused.Add(1)
				}
			}
		})
	}
	during, err := readMedian(good)
	end()
	wg.Wait()
	figure("flood_requests", float64(sent.Load()))
	figure("flood_refused", float64(refused.Load()))
	figure("read_during_flood_to_alone", float64(during)/float64(before))
	if err == nil && refused.Load() == 0 {
		err = errors.New("no request of the flood was over its rate: the figure says nothing")
	}
	return err
}

// readMedian is the median of reads one after the other, below the rate of one key.
func readMedian(c *kms.Client) (time.Duration, error) {
	var took []time.Duration
	for range floodReads {
		at := time.Now()
		if _, err := c.GetSecretValue(context.Background(), &kms.GetSecretValueRequest{SecretName: floodSecret}); err != nil {
			return 0, err
		}
		took = append(took, time.Since(at))
	}
	return median(took), nil
}
