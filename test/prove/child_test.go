package prove

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/rotator"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

const (
	childVariable = "KEYTURN_PROVE_CHILD"
	childServer   = "server"
	childOracle   = "oracle"
	patience      = 2 * time.Minute // the machine may be busy
	poll          = 5 * time.Millisecond
	lastPoint     = time.Second
)

// order is what a child is told on standard input.
type order struct {
	DataDir string
	// Kill ends the process by SIGKILL at the Nth point of that secret's rotation; 0 means never.
	Secret string
	Kill   int
	// Lead and Effect are the engine's times in milliseconds; 0 means the defaults of these tests.
	Lead, Effect int
	// Probe is how often credentials are probed, in milliseconds; 0 means an hour.
	Probe int
	// Rate and Burst are those of the engine.
	Rate    float64
	Burst   int
	Workers int
	// Hold is how long reads are held, in milliseconds.
	Hold int
	// CommandDir is where executables may be that are targets.
	CommandDir string
	// Pause stops the process by SIGSTOP at the Nth time that the rotation of Secret comes to the point PauseAt.
	PauseAt string
	Pause   int
	// Tell has it say where the rotation of Secret comes by.
	Tell bool
	// Etcd is an etcd server that several children share, and RootKey the file of their root key.
	Etcd, RootKey string
	// Ahead is how far the clock of the server is ahead, in milliseconds.
	Ahead int
	// Calls is a file to which the targets of kind counted write the time of each change.
	Calls string
}

func ms(n, otherwise int) time.Duration {
	if n == 0 {
		n = otherwise
	}
	return time.Duration(n) * time.Millisecond
}

// child is a server in a process of its own, which may be told to die.
func child() int {
	var o order
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		fmt.Fprintln(os.Stderr, "no order")
		return 2
	}
	c := server.Config{
		DataDir: o.DataDir, ListenHTTP: "127.0.0.1:0", Kinds: kinds(o), Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Rotation: api.RotationConfig{
			ProbeEvery:    ms(o.Probe, 3_600_000),
			LeastInterval: time.Second,
			RequestEvery:  time.Microsecond,
			Hold:          ms(o.Hold, 2000),
		},
		Rotator: rotator.Config{
			Lead:          ms(o.Lead, 5),
			EffectTimeout: ms(o.Effect, 10_000),
			Rate:          o.Rate,
			Burst:         o.Burst,
			Workers:       o.Workers,
			At:            (&points{order: o, tell: o.Tell}).at,
		},
	}
	if o.Etcd != "" {
		c.Etcd.Endpoints, c.RootKey = []string{o.Etcd}, root.File{Path: o.RootKey}
	}
	if o.Ahead != 0 {
		c.Now = func() time.Time { return time.Now().Add(ms(o.Ahead, 0)) }
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	node, err := server.New(ctx, c)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() {
		<-node.Ready()
		fmt.Println("ready", node.HTTPEndpoint())
		_, _ = io.Copy(io.Discard, os.Stdin) // the parent closes it to stop us, or by dying
		stop()
	}()
	if err := node.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// points counts where the engine comes by, and does what was ordered there.
type points struct {
	order order

	mu     sync.Mutex
	all    int  // guarded by mu
	paused int  // guarded by mu; how often it came to PauseAt
	tell   bool // guarded by mu; it says where it comes by
}

func (p *points) at(secret, point string) {
	if secret != p.order.Secret {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all++; p.all == p.order.Kill {
		fmt.Println("died", point)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	if p.tell {
		fmt.Println("passed", point)
	}
	if p.order.Pause == 0 || point != p.order.PauseAt {
		return
	}
	if p.paused++; p.paused == p.order.Pause {
		p.tell = true
		fmt.Println("stopping", point)
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	}
}

// process is a running child.
type process struct {
	*kms.Client
	admin    sign.Credentials
	endpoint string

	cmd   *exec.Cmd
	stdin io.Closer
	// died is where it killed itself; empty until ended is closed, and then also when it did not.
	died  string
	ended chan struct{}
	// passed tells where it comes by after it was stopped, and first that it stops.
	passed chan string
	log    *log
}

// log keeps what a child says.
type log struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.text.String()
	return s[max(0, len(s)-4000):]
}

// place is a data directory, for one child after the other.
type place struct {
	dir string
	// admin is the directory with the administrator's key, when another node has made it.
	admin string
}

func newPlace(t testing.TB) place {
	t.Helper()
	return place{dir: filepath.Join(t.TempDir(), "data")}
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start starts a child and waits until it is ready.
func (p place) start(t testing.TB, o order) *process {
	t.Helper()
	o.DataDir = p.dir
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &process{cmd: exec.Command(self), ended: make(chan struct{}), passed: make(chan string, 1000), log: &log{}}
	c.cmd.Env = append(os.Environ(), childVariable+"="+childServer)
	c.cmd.Stderr = c.log
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.stdin = in
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.kill() })
	if err := json.NewEncoder(in).Encode(o); err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	go func() {
		defer close(c.ended)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if addr, ok := strings.CutPrefix(lines.Text(), "ready "); ok {
				c.endpoint = addr
				close(ready)
			} else if point, ok := strings.CutPrefix(lines.Text(), "died "); ok {
				c.died = point
			} else {
				c.passed <- lines.Text()
			}
		}
		_ = c.cmd.Wait() // how it ended is what the test looks at
	}()
	select {
	case <-ready:
	case <-c.ended:
		if c.died == "" {
			t.Fatalf("the server did not start: %s", c.log)
		}
		c.endpoint = "127.0.0.1:1" // it has killed itself before it was ready: nobody answers
	case <-time.After(patience):
		t.Fatal("the server did not start in time")
	}
	c.connect(t, p, ms(o.Ahead, 0))
	return c
}

// connect makes a client by the clock of the server.
func (c *process) connect(t testing.TB, p place, ahead time.Duration) {
	t.Helper()
	if p.admin == "" {
		p.admin = p.dir
	}
	text, err := os.ReadFile(filepath.Join(p.admin, "admin.json"))
	if err != nil {
		t.Fatal(err)
	}
	var admin struct {
		AccessKeyID     string `json:"access_key_id"`
		AccessKeySecret string `json:"access_key_secret"`
	}
	if err := json.Unmarshal(text, &admin); err != nil {
		t.Fatal(err)
	}
	c.admin = sign.Credentials{AccessKeyID: admin.AccessKeyID, AccessKeySecret: sensitive.New(admin.AccessKeySecret)}
	c.Client, err = kms.NewClient(kms.Config{
		Endpoint: "http://" + c.endpoint, Credentials: c.admin,
		HTTPClient: &http.Client{Timeout: 30 * time.Second}, Now: func() time.Time { return time.Now().Add(ahead) },
	})
	if err != nil {
		t.Fatal(err)
	}
}

// kill ends the child by SIGKILL and waits for its end.
func (c *process) kill() {
	_ = c.cmd.Process.Kill() // it may have ended
	<-c.ended
}

// stop ends the child in good order.
func (c *process) stop(t testing.TB) {
	t.Helper()
	_ = c.stdin.Close()
	select {
	case <-c.ended:
	case <-time.After(patience):
		t.Fatal("the server did not stop")
	}
}

// dead waits until the child has killed itself, or until the rotation has ended without.
func (c *process) dead(t testing.TB, secret, version string) (point string, died bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		select {
		case <-c.ended:
			return c.died, true
		case <-time.After(poll):
		}
		r, err := c.DescribeRotation(t.Context(), &kms.SecretNameRequest{SecretName: secret})
		if err == nil && r.RotationID == version && ended(r.State) {
			select { // the last point comes after the end was stored
			case <-c.ended:
				return c.died, true
			case <-time.After(lastPoint):
				return "", false
			}
		}
	}
	t.Fatalf("the rotation of %s neither ended nor killed its server; log: %s", secret, c.log)
	return "", false
}

// rotate asks for a rotation.
func (c *process) rotate(t testing.TB, secret, version string) {
	t.Helper()
	good(t, second(c.RotateSecret(t.Context(), &kms.RotateSecretRequest{SecretName: secret, VersionID: version})))
}

func ended(state string) bool {
	return state == "done" || state == "abandoned" || state == "quarantined"
}

// until waits for a rotation to come to an end, and returns it.
func (c *process) until(t testing.TB, secret string, states ...string) *kms.DescribeRotationResponse {
	t.Helper()
	deadline := time.Now().Add(patience)
	var last error
	for time.Now().Before(deadline) {
		r, err := c.DescribeRotation(t.Context(), &kms.SecretNameRequest{SecretName: secret})
		last = err
		if err == nil {
			if len(states) == 0 && ended(r.State) {
				return r
			}
			for _, s := range states {
				if r.State == s {
					return r
				}
			}
			last = fmt.Errorf("state %s, reason %q, steps %+v", r.State, r.Reason, r.Steps)
		}
		time.Sleep(poll) // the public API has nothing to wait on
	}
	t.Fatalf("the rotation of %s did not come to %v: %v; log: %s", secret, states, last, c.log)
	return nil
}

// good is for calls that cannot fail.
func good(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
