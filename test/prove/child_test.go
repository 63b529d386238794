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
	"github.com/keyturn/keyturn/internal/rotator"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

const (
	childVariable = "KEYTURN_PROVE_CHILD"
	patience      = 60 * time.Second
	poll          = 3 * time.Millisecond
	lastPoint     = time.Second
)

// order is what a child is told on standard input.
type order struct {
	DataDir, Listen string
	// Kill ends the process by SIGKILL at the Nth point of that secret's rotation; 0 means never.
	Secret string
	Kill   int
	// Lead and Effect are the engine's times in milliseconds; 0 means the defaults of these tests.
	Lead, Effect int
	// Probe is how often credentials are probed, in milliseconds; 0 means an hour.
	Probe int
	// Rate and Burst are those of the engine.
	Rate  float64
	Burst int
	// Hold is how long reads are held, in milliseconds.
	Hold int
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
	points := 0
	var mu sync.Mutex
	c := server.Config{
		DataDir: o.DataDir, ListenHTTP: o.Listen, Kinds: kinds(), Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Rotation: api.RotationConfig{ProbeEvery: ms(o.Probe, 3_600_000), LeastInterval: time.Second, Hold: ms(o.Hold, 2000)},
		Rotator: rotator.Config{
			Lead: ms(o.Lead, 5), EffectTimeout: ms(o.Effect, 10_000), Rate: o.Rate, Burst: o.Burst,
			At: func(secret, point string) {
				mu.Lock()
				defer mu.Unlock()
				if o.Kill == 0 || secret != o.Secret {
					return
				}
				if points++; points == o.Kill {
					fmt.Println("died", point)
					_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
					select {}
				}
			},
		},
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
		fmt.Println("ready")
		_, _ = io.Copy(io.Discard, os.Stdin) // the parent closes it to stop us, or by dying
		stop()
	}()
	if err := node.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// process is a running child.
type process struct {
	*kms.Client
	cmd   *exec.Cmd
	stdin io.Closer
	// died is where it killed itself; empty until ended is closed, and then also when it did not.
	died  string
	ended chan struct{}
	log   *strings.Builder
}

// place is a data directory and an address, for one child after the other.
type place struct {
	dir, listen string
}

func newPlace(t testing.TB) place {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return place{dir: t.TempDir(), listen: l.Addr().String()}
}

// start starts a child and waits until it is ready.
func (p place) start(t testing.TB, o order) *process {
	t.Helper()
	o.DataDir, o.Listen = p.dir, p.listen
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &process{cmd: exec.Command(self), ended: make(chan struct{}), log: &strings.Builder{}}
	c.cmd.Env = append(os.Environ(), childVariable+"=1")
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
			if lines.Text() == "ready" {
				close(ready)
			} else if point, ok := strings.CutPrefix(lines.Text(), "died "); ok {
				c.died = point
			}
		}
		_ = c.cmd.Wait() // how it ended is what the test looks at
	}()
	select {
	case <-ready:
	case <-c.ended:
		t.Fatalf("the server did not start: %s", c.log)
	case <-time.After(patience):
		t.Fatal("the server did not start in time")
	}
	c.connect(t, p)
	return c
}

func (c *process) connect(t testing.TB, p place) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(p.dir, "admin.json"))
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
	c.Client, err = kms.NewClient(kms.Config{
		Endpoint: "http://" + p.listen, Credentials: sign.Credentials{AccessKeyID: admin.AccessKeyID, AccessKeySecret: sensitive.New(admin.AccessKeySecret)},
		HTTPClient: &http.Client{Timeout: 30 * time.Second},
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
func (c *process) dead(t testing.TB, secret string) (point string, died bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		select {
		case <-c.ended:
			return c.died, true
		case <-time.After(poll):
		}
		r, err := c.DescribeRotation(t.Context(), &kms.SecretNameRequest{SecretName: secret})
		if err == nil && ended(r.State) {
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
