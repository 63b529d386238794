package prove

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
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
	"github.com/keyturn/keyturn/sign"
	"github.com/keyturn/keyturn/test/nodes"
	"github.com/keyturn/keyturn/test/support"
)

const (
	childVariable = "KEYTURN_PROVE_CHILD"
	childServer   = "server"
	childOracle   = "oracle"
	lastPoint     = 5 * time.Second // how long a child may take from the end of a rotation to its last point
)

// order configures a child; it arrives on standard input.
type order struct {
	DataDir string
	// Kill ends the process by SIGKILL at the Nth point of that secret's rotation; 0 means never.
	Secret string
	Kill   int
	// Lead and Effect are the engine's times in milliseconds; 0 means the defaults of these tests.
	Lead, Effect int
	// Probe is how often credentials are probed, in milliseconds; 0 means an hour.
	Probe int
	// Rate, Burst and Workers are settings of the engine.
	Rate    float64
	Burst   int
	Workers int
	// Hold is how long reads are blocked, in milliseconds.
	Hold int
	// CommandDir is where executables may be that are targets.
	CommandDir string
	// Pause stops the process by SIGSTOP at the Nth time that the rotation of Secret comes to the
	// point PauseAt.
	PauseAt string
	Pause   int
	// Tell makes it print each point that the rotation of Secret passes.
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

// child runs a server in a process of its own, which kills itself at a point if the order says so.
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
			ReadWait:      ms(o.Hold, 2000),
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
	return nodes.Serve(c)
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
	*support.Child
	*kms.Client
	admin    sign.Credentials
	endpoint string

	// died is where it killed itself. It is set before Exited is closed, and stays empty when it did
	// not.
	died string
	// passed gets each point that it passes after it was stopped, and first the point where it stops.
	passed chan string
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

// start starts a child and waits until it is ready.
func (p place) start(t testing.TB, o order) *process {
	t.Helper()
	o.DataDir = p.dir
	c := &process{passed: make(chan string, 1000)}
	ready := make(chan struct{})
	c.Child = support.StartSelf(t, []string{childVariable + "=" + childServer}, func(line string) {
		if addr, ok := strings.CutPrefix(line, nodes.Ready); ok {
			c.endpoint = addr
			close(ready)
		} else if point, ok := strings.CutPrefix(line, "died "); ok {
			c.died = point
		} else {
			c.passed <- line
		}
	})
	good(t, json.NewEncoder(c.Stdin).Encode(o))
	select {
	case <-ready:
	case <-c.Exited:
		if c.died == "" {
			t.Fatalf("the server did not start: %s", c.Log.Tail())
		}
		c.endpoint = "127.0.0.1:1" // it has killed itself before it was ready: no server answers there
	case <-time.After(support.Patience):
		t.Fatalf("the server did not start in time: %s", c.Log.Tail())
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
	c.admin = nodes.Credentials(nodes.ReadAdmin(t, p.admin))
	var err error
	c.Client, err = kms.NewClient(kms.Config{
		Endpoint: "http://" + c.endpoint, Credentials: c.admin,
		HTTPClient: &http.Client{Timeout: 30 * time.Second}, Now: func() time.Time { return time.Now().Add(ahead) },
	})
	if err != nil {
		t.Fatal(err)
	}
}

// dead waits until the child has killed itself, or until the rotation has ended without.
func (c *process) dead(t testing.TB, secret, version string) (point string, died bool) {
	t.Helper()
	support.Until(t, "the end of the rotation of "+secret+" or of its server", func() bool {
		if !c.Running() {
			return true
		}
		r, err := c.DescribeRotation(t.Context(), &kms.SecretNameRequest{SecretName: secret})
		return err == nil && r.RotationID == version && ended(r.State)
	})
	select { // the last point comes after the end was stored
	case <-c.Exited:
		return c.died, true
	case <-time.After(lastPoint):
		return "", false
	}
}

// rotate asks for a rotation.
func (c *process) rotate(t testing.TB, secret, version string) {
	t.Helper()
	good(t, second(c.RotateSecret(t.Context(), &kms.RotateSecretRequest{SecretName: secret, VersionID: version})))
}

func ended(state string) bool {
	return state == "done" || state == "abandoned" || state == "quarantined"
}

// until waits until a rotation is in one of the states, or in a final one if none is given.
func (c *process) until(t testing.TB, secret string, states ...string) (r *kms.DescribeRotationResponse) {
	t.Helper()
	support.Retry(t, func() (err error) {
		r, err = c.DescribeRotation(t.Context(), &kms.SecretNameRequest{SecretName: secret})
		if err != nil || slices.Contains(states, r.State) || len(states) == 0 && ended(r.State) {
			return err
		}
		return fmt.Errorf("the rotation of %s is not in %v: state %s, reason %q, steps %+v; log: %s",
			secret, states, r.State, r.Reason, r.Steps, c.Log.Tail())
	})
	return r
}

// good is for calls that cannot fail.
func good(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
