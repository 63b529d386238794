package prove

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/nodes"
	"github.com/keyturn/keyturn/test/servers"
	"github.com/keyturn/keyturn/test/support"
)

// pair is two nodes on one store.
type pair struct {
	endpoint      string
	order         order
	first, second place
}

func newPair(t *testing.T) *pair {
	t.Helper()
	key := filepath.Join(t.TempDir(), "root.key")
	good(t, os.WriteFile(key, []byte(base64.StdEncoding.EncodeToString(make([]byte, 32))), 0o600))
	endpoint, _ := nodes.StartEtcd(t)
	p := &pair{endpoint: endpoint, first: newPlace(t), second: newPlace(t)}
	p.order = order{Etcd: p.endpoint, RootKey: key}
	p.second.admin = p.first.dir
	return p
}

// revisions returns the revision of every record in the store that a rotation may change, by key.
func (p *pair) revisions(t *testing.T) map[string]int64 {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{p.endpoint}, DialTimeout: 10 * time.Second})
	good(t, err)
	defer c.Close()
	out := map[string]int64{}
	for _, prefix := range []string{"rotation/", "secret/", "value/", "wake/"} {
		r, err := c.Get(t.Context(), "keyturn/"+prefix, clientv3.WithPrefix())
		good(t, err)
		for _, kv := range r.Kvs {
			out[string(kv.Key)] = kv.ModRevision
		}
	}
	return out
}

// TestFencing stops the engine's node by SIGSTOP until another node has taken over and rotated
// twice; then it goes on where it was.
func TestFencing(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"fencing_runs", "fencing_stale_writes", "fencing_stale_effects", "fencing_wrong_ends", "fencing_takeover_ms",
	} {
		figures.Count(name, 0)
	}
	p, run := startPostgres(t)
	r := servers.StartRedis(t, servers.WithACLFile)
	postgres := fixture{
		kind:    "postgresql",
		addr:    p.Addr(),
		door:    door{Kind: "postgresql", Address: p.Addr(), Database: "postgres"},
		config:  plain,
		admin:   compact(engineAdmin),
		numbers: new(atomic.Int64),
	}
	single, double, overlap := postgres, postgres, postgres
	single.name, single.strategy = "fenced_single", target.Single
	single.secret = func(t testing.TB, _ *process, n int) (kms.CreateSecretRequest, kms.ConfigureRotationRequest) {
		a := first(fmt.Sprintf("s%d", n))
		run(t, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", a.AccountName, a.AccountPassword))
		return rds(single.name, a)
	}
	double.name, double.strategy = "fenced_double", target.Double
	double.secret = func(t testing.TB, _ *process, n int) (kms.CreateSecretRequest, kms.ConfigureRotationRequest) {
		a, b := first(fmt.Sprintf("d%d", n)), first(fmt.Sprintf("d%d_clone", n))
		run(t, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'; CREATE ROLE %s LOGIN "+
			"PASSWORD '%s'", a.AccountName, a.AccountPassword, b.AccountName, b.AccountPassword))
		return rds(double.name, a, b)
	}
	overlap.name, overlap.strategy, overlap.kind, overlap.addr = "fenced_overlap", target.Overlap, "redis", r.Addr
	overlap.door, overlap.admin = door{Kind: "redis", Address: r.Addr}, compact(account{"default", r.Password})
	overlap.secret = func(t testing.TB, _ *process, n int) (kms.CreateSecretRequest, kms.ConfigureRotationRequest) {
		a := first(fmt.Sprintf("o%d", n))
		r.Do(t, "ACL", "SETUSER", a.AccountName, "on", "resetpass", ">"+a.AccountPassword, "~*", "+get", "+set")
		return generic("of-"+a.AccountName, overlap.name, a, "")
	}
	// A rotation calls its target to give it the candidate, to verify it, and to retire what it
	// replaced.
	stops := []order{{PauseAt: "before a call", Pause: 1}, {PauseAt: "after a call", Pause: 1}}
	if *full {
		stops = append(stops,
			order{PauseAt: "after storing sending", Pause: 1},
			order{PauseAt: "before storing accepted", Pause: 1},
			order{PauseAt: "before a call", Pause: 2},
			order{PauseAt: "before storing promoted", Pause: 1},
			order{PauseAt: "before a call", Pause: 3},
			order{PauseAt: "after a call", Pause: 3})
	}
	for i, f := range []fixture{single, double, overlap} {
		for j, at := range stops {
			if !*full && (i+j)%2 > 0 || f.strategy == target.Single && at.Pause == 3 {
				continue // single has nothing to retire
			}
			t.Run(fmt.Sprintf("%s %s %d", f.name, at.PauseAt, at.Pause), func(t *testing.T) {
				t.Parallel()
				f.fence(t, at)
			})
		}
	}
	if *full {
		for _, f := range []fixture{single, double, overlap} {
			for fourth := range 4 { // of what the target answers to the first call
				t.Run(fmt.Sprintf("%s within a call %d", f.name, fourth), func(t *testing.T) {
					t.Parallel()
					f.fenceWithin(t, fourth)
				})
			}
		}
	}
	t.Run("take over", func(t *testing.T) {
		t.Parallel()
		double.takeOver(t)
	})
}

func (f fixture) fence(t *testing.T, at order) {
	p := newPair(t)
	a := p.first.start(t, p.order)
	f.register(t, a, f.addr)
	secret := f.create(t, a, "0s")
	a.untilProbed(t, secret)
	a.Stop(t)
	o := p.order
	o.Secret, o.PauseAt, o.Pause = secret, at.PauseAt, at.Pause
	a = p.first.start(t, o)
	a.untilEngine(t)
	b := p.second.start(t, p.order)
	b.rotate(t, secret, version(2))
	a.await(t, "stopping "+at.PauseAt)
	f.whole(t, b, "fencing", secret, 2, b.until(t, secret))
	f.overtake(t, p, a, b, secret, 2)
}

// overtake rotates once more, after version last, by the second node, lets the first one go on,
// and looks whether that has changed anything.
func (f fixture) overtake(t *testing.T, p *pair, a, b *process, secret string, last int) {
	t.Helper()
	second := b.value(t, secret, kms.StageCurrent)
	b.rotate(t, secret, version(last+1))
	b.untilVersion(t, secret, version(last+1))
	f.whole(t, b, "fencing", secret, last+1, b.until(t, secret))
	before := p.revisions(t)
	for len(a.passed) > 0 {
		<-a.passed // it is stopped: this is from before
	}
	good(t, a.Process.Signal(syscall.SIGCONT))
	a.await(t, "passed after storing")
	after := p.revisions(t)
	figures.Count("fencing_runs", 1)
	if compact(before) != compact(after) {
		figures.Count("fencing_stale_writes", 1)
		t.Errorf("the engine that came back late has changed the store: before %v, after %v", before, after)
	}
	live := f.mustLogin(t, b, "the current credential after the late engine", b.value(t, secret, kms.StageCurrent), true)
	dead := f.mustLogin(t, b, "the credential that the late engine was to set", second, false)
	if !live || !dead {
		figures.Count("fencing_stale_effects", 1)
	}
	b.rotate(t, secret, version(last+2))
	b.untilVersion(t, secret, version(last+2))
	f.whole(t, b, "fencing", secret, last+2, b.until(t, secret))
}

// fenceWithin stops the engine's node while it waits for a reply of the target to its first call.
func (f fixture) fenceWithin(t *testing.T, fourth int) {
	p := newPair(t)
	wire := newCable(t, f.addr)
	a := p.first.start(t, p.order)
	f.register(t, a, wire.addr())
	secret := f.create(t, a, "0s")
	a.untilProbed(t, secret)
	wire.set(harm{})
	a.rotate(t, secret, version(2))
	f.whole(t, a, "fencing", secret, 2, a.until(t, secret))
	calls := 2 // to give the candidate, and to log in
	if f.strategy != target.Single {
		calls = 3
	}
	replies := wire.counts()[1] / calls
	a.Stop(t)
	o := p.order
	o.Secret, o.Tell = secret, true
	a = p.first.start(t, o)
	a.untilEngine(t)
	b := p.second.start(t, p.order)
	wire.act = func() { _ = a.Process.Signal(syscall.SIGSTOP) }
	hit := wire.set(harm{kind: call, reply: true, after: fourth * replies / 4})
	b.rotate(t, secret, version(3))
	select {
	case <-hit:
	case <-time.After(support.Patience):
		t.Fatalf("the target was not called; log: %s", a.Log.Tail())
	}
	f.whole(t, b, "fencing", secret, 3, b.until(t, secret))
	f.overtake(t, p, a, b, secret, 3)
}

// await waits until the child says something that begins so.
func (c *process) await(t *testing.T, text string) {
	t.Helper()
	deadline := time.After(support.Patience)
	for {
		select {
		case said := <-c.passed:
			if strings.HasPrefix(said, text) {
				return
			}
		case <-c.Exited:
			t.Fatalf("the server ended; log: %s", c.Log.Tail())
		case <-deadline:
			t.Fatalf("the server does not come to %q; log: %s", text, c.Log.Tail())
		}
	}
}

// untilVersion waits until the rotation that makes a version is the one that the server describes.
func (c *process) untilVersion(t *testing.T, secret, version string) {
	t.Helper()
	good(t, second(c.endOf(t.Context(), secret, version)))
}

// untilEngine waits until the node rotates: it has made a rotation of a secret that needs no
// server.
func (c *process) untilEngine(t *testing.T) {
	t.Helper()
	good(t, second(c.RegisterTarget(t.Context(), &kms.RegisterTargetRequest{
		TargetName: "any",
		Kind:       "counted",
		Config:     "{}",
	})))
	in, configure := generic("of-any", "any", first("any"), "")
	good(t, second(c.CreateSecret(t.Context(), &in)))
	configure.SecretName = in.SecretName
	good(t, second(c.ConfigureRotation(t.Context(), &configure)))
	c.untilProbed(t, in.SecretName)
}

// takeOver stops the engine's node in good order while the other one waits.
func (f fixture) takeOver(t *testing.T) {
	p := newPair(t)
	a := p.first.start(t, p.order)
	f.register(t, a, f.addr)
	secret := f.create(t, a, "0s")
	a.untilProbed(t, secret)
	b := p.second.start(t, p.order)
	a.Stop(t)
	began := time.Now()
	b.rotate(t, secret, version(2))
	f.whole(t, b, "fencing", secret, 2, b.until(t, secret))
	took := time.Since(began)
	figures.Most("fencing_takeover_ms", int(took.Milliseconds()))
	if took > 15*time.Second {
		t.Errorf("the other node rotated %v after the stop, want less than the lease", took)
	}
}
