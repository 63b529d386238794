package linear_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"hash/maphash"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sign"
	"github.com/keyturn/keyturn/test/linear/model"
	"github.com/keyturn/keyturn/test/support"
)

const (
	clients    = 6                // at most
	checkLimit = 20 * time.Second // for the search of an order
)

var hashSeed = maphash.MakeSeed()

// result is what a client saw of a call. For a change whose outcome is not known, anything may
// have been the answer.
type result struct {
	reply   model.Reply
	unknown bool
}

// linearizable is the model of one name, for histories without times: each step is one call of
// the reference.
var linearizable = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byName := map[string][]porcupine.Operation{}
		for _, o := range history {
			name := o.Input.(model.Op).Name
			byName[name] = append(byName[name], o)
		}
		var parts [][]porcupine.Operation
		for _, part := range byName {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return (*model.Secret)(nil) },
	Step: func(state, input, output any) (bool, any) {
		next, want := state.(*model.Secret).Apply(input.(model.Op), time.Time{}.Add(time.Hour))
		got := output.(result)
		return got.unknown || cmp.Equal(want.Timeless(), got.reply), next
	},
	Hash:  func(state any) uint64 { return maphash.String(hashSeed, state.(*model.Secret).Key()) },
	Equal: func(a, b any) bool { return a.(*model.Secret).Key() == b.(*model.Secret).Key() },
	DescribeOperation: func(input, output any) string {
		got := output.(result)
		if got.unknown {
			return fmt.Sprintf("%v -> unknown", input)
		}
		return fmt.Sprintf("%v -> %v", input, got.reply)
	},
	DescribeState: func(state any) string { return state.(*model.Secret).Key() },
}

// load is clients that work on the same secrets until quit is closed, and what they saw.
type load struct {
	t       *testing.T
	targets []atomic.Pointer[kms.Client] // the nodes
	names   []string
	start   time.Time
	fresh   []atomic.Int64 // versions made, by name
	first   atomic.Int64   // of the names in use
	width   int            // how many are in use at a time
	quit    chan struct{}
	all     sync.WaitGroup

	acked, unknown, notSent atomic.Int64
	codes                   sync.Map // code -> *atomic.Int64

	mu      sync.Mutex
	history []porcupine.Operation // guarded by mu
}

// newLoad makes a load on names many secrets, width of them at a time.
func newLoad(t *testing.T, names, width int, nodes ...*kms.Client) *load {
	l := &load{
		t:       t,
		width:   width,
		targets: make([]atomic.Pointer[kms.Client], len(nodes)),
		fresh:   make([]atomic.Int64, names),
		start:   time.Now(),
		quit:    make(chan struct{}),
	}
	for i, n := range nodes {
		l.targets[i].Store(n)
	}
	for i := range names {
		l.names = append(l.names, fmt.Sprint("shared/", i))
	}
	return l
}

// run lets the clients loose, each beginning at its own node. A client that gets no answer goes
// to the next node.
func (l *load) run(seed uint64) {
	for id := range min(clients, l.width+3) {
		l.all.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(id)))
			for node := id; ; {
				select {
				case <-l.quit:
					return
				default:
				}
				if l.call(id, node, l.draw(r)) != model.Answered {
					node++
				}
			}
		})
	}
}

// draw makes calls that meet: most are about the newest few versions of a secret.
func (l *load) draw(r *rand.Rand) model.Op {
	i := int(l.first.Load()) + r.IntN(l.width)
	o := model.Op{Name: l.names[i]}
	newest := int(l.fresh[i].Load())
	recent := func() string { return fmt.Sprint("v", max(1, newest-r.IntN(4))) }
	label := func() string { return []string{"ACSCurrent", "ACSCurrent", "ACSPrevious", "a", "b"}[r.IntN(5)] }
	switch n := r.IntN(100); {
	case n < 20:
		o.Kind, o.Version, o.Data = model.Put, fmt.Sprint("v", l.fresh[i].Add(1)), fmt.Sprint("value ", r.IntN(1000))
		if r.IntN(3) == 0 {
			o.Labels = []string{label()}
		}
	case n < 25: // a version that there may be already, with one of two values
		o.Kind, o.Version, o.Data = model.Put, recent(), fmt.Sprint("value ", r.IntN(2))
	case n < 40:
		o.Kind, o.Label, o.To = model.Move, label(), recent()
		if r.IntN(3) == 0 {
			o.From = recent()
		}
	case n < 43:
		o.Kind, o.Window = model.Delete, 7
	case n < 44:
		o.Kind, o.Force = model.Delete, true
	case n < 54:
		o.Kind = model.Restore
	case n < 60:
		o.Kind, o.Version, o.Data = model.Create, fmt.Sprint("v", l.fresh[i].Add(1)), fmt.Sprint("value ", r.IntN(1000))
	case n < 80:
		o.Kind = model.Get
	case n < 86:
		o.Kind, o.Version = model.Get, recent()
	default:
		o.Kind, o.Deprecated = model.List, true
	}
	return o
}

// turnTo has the clients work on the next secrets, which are made first.
func (l *load) turnTo(first int) {
	for _, name := range l.names[first : first+l.width] {
		l.call(clients, first, model.Op{Kind: model.Create, Name: name, Version: "v0", Data: "value"})
	}
	l.first.Store(int64(first))
}

func (l *load) call(client, node int, o model.Op) model.Outcome {
	begin := time.Since(l.start)
	reply, _, known, _ := model.Send(context.WithoutCancel(l.t.Context()), l.targets[node%len(l.targets)].Load(), o)
	end := time.Since(l.start)
	op := porcupine.Operation{
		ClientId: client,
		Input:    o,
		Call:     int64(begin),
		Output:   result{reply: reply.Timeless()},
		Return:   int64(end),
	}
	switch {
	case known == model.Answered:
		l.acked.Add(1)
		n, _ := l.codes.LoadOrStore(reply.Code, new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
	case known == model.Unknown && o.Changes():
		// It may have happened, may happen yet, or never: all of that is a call that has not returned.
		op.Output, op.Return = result{unknown: true}, math.MaxInt64
		l.unknown.Add(1)
	default:
		l.notSent.Add(1)
		return known
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.history = append(l.history, op)
	return known
}

// await waits until so many more calls have been answered.
func (l *load) await(n int64) {
	l.t.Helper()
	want := l.acked.Load() + n
	support.Retry(l.t, func() error {
		if got := l.acked.Load(); got < want {
			return fmt.Errorf("only %d of %d calls were answered", got, want)
		}
		return nil
	})
}

// finish stops the clients, reads everything once more on every node, and searches an order that
// explains the history.
func (l *load) finish() {
	l.t.Helper()
	close(l.quit)
	l.all.Wait()
	for _, name := range l.names {
		for node := range l.targets {
			l.call(clients, node, model.Op{Kind: model.Restore, Name: name})
			l.call(clients, node, model.Op{Kind: model.List, Name: name, Deprecated: true})
			l.call(clients, node, model.Op{Kind: model.Get, Name: name})
		}
	}
	codes := map[string]int64{}
	l.codes.Range(func(code, n any) bool { codes[code.(string)] = n.(*atomic.Int64).Load(); return true })
	begin := time.Now()
	outcome, info := porcupine.CheckOperationsVerbose(linearizable, l.history, checkLimit)
	l.t.Logf("%d calls answered, %d changes of unknown outcome, %d without effect; codes %v; the search took %v",
		l.acked.Load(), l.unknown.Load(), l.notSent.Load(), codes, time.Since(begin).Round(time.Millisecond))
	if outcome == porcupine.Ok {
		return
	}
	path := filepath.Join(os.TempDir(), fmt.Sprintf("keyturn-history-%d.html", time.Now().UnixNano()))
	if err := porcupine.VisualizePath(linearizable, info, path); err != nil {
		l.t.Error(err)
	}
	if outcome == porcupine.Unknown {
		l.t.Fatalf("no order was found or excluded in %v; see %s", checkLimit, path)
	}
	l.t.Fatalf("the history is not linearizable: no order of the calls explains the answers; open %s in a browser", path)
}

// TestLinearizable has several clients work on one secret and on several at a time, on one node.
// After a while they go on to others: the longer the history of one secret, the longer the
// search.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	for _, width := range []int{1, 4} {
		t.Run(fmt.Sprint("secrets ", width), func(t *testing.T) {
			t.Parallel()
			const rounds = 10
			s := keyturntest.Start(t)
			l := newLoad(t, rounds*width, width, connect(t, s.HTTPEndpoint, s.Credentials, nil))
			l.run(support.Seed(t))
			for round := range rounds {
				l.turnTo(round * width)
				l.await(100 * int64(width))
			}
			l.finish()
			if n := l.unknown.Load() + l.notSent.Load(); n > 0 {
				t.Errorf("%d calls were not answered, though nothing was wrong with the server", n)
			}
		})
	}
}

// node is one of a cluster, which is stopped and started again.
type node struct {
	*server.Server
	stop func() error
}

func startNode(t *testing.T, c server.Config) (*node, error) {
	s, err := server.New(context.WithoutCancel(t.Context()), c)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	<-s.Ready()
	n := &node{s, sync.OnceValue(func() error { cancel(); return <-done })}
	t.Cleanup(func() { _ = n.stop() })
	return n, nil
}

// cluster starts three nodes that form one store.
func cluster(t *testing.T) (nodes []*node, start func(i int) (*node, error), credentials sign.Credentials) {
	t.Helper()
	names, peers, dirs := []string{"a", "b", "c"}, map[string]string{}, map[string]string{}
	key := root.File{Path: filepath.Join(t.TempDir(), "root.key")}
	if err := os.WriteFile(key.Path, []byte(base64.StdEncoding.EncodeToString(make([]byte, 32))), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		peers[name], dirs[name] = "http://"+support.FreeAddress(t), t.TempDir()
	}
	start = func(i int) (*node, error) {
		return startNode(t, server.Config{
			DataDir:    dirs[names[i]],
			ListenHTTP: "127.0.0.1:0",
			RootKey:    key,
			Cluster:    &store.Cluster{Name: names[i], Peers: peers},
		})
	}
	nodes, errs := make([]*node, len(names)), make([]error, len(names))
	var wg sync.WaitGroup
	for i := range names {
		wg.Go(func() { nodes[i], errs[i] = start(i) })
	}
	wg.Wait()
	for i, n := range nodes {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		if admin, first := n.Admin(); first {
			credentials = sign.Credentials{AccessKeyID: admin.AccessKeyID, AccessKeySecret: admin.AccessKeySecret}
		}
	}
	return nodes, start, credentials
}

// TestLinearizableCluster spreads the clients over three nodes; one is stopped and comes back
// while they work.
func TestLinearizableCluster(t *testing.T) {
	t.Parallel()
	nodes, start, credentials := cluster(t)
	var targets []*kms.Client
	for _, n := range nodes {
		targets = append(targets, connect(t, n.HTTPEndpoint(), credentials, nil))
	}
	l := newLoad(t, 9, 3, targets...)
	n := support.Seed(t)
	l.turnTo(0)
	l.run(n)
	l.await(400)
	l.turnTo(3)
	away := int(n % 3)
	if err := nodes[away].stop(); err != nil {
		t.Errorf("stop node %d: %v", away, err)
	}
	l.await(400)
	l.turnTo(6)
	back, err := start(away)
	if err != nil {
		t.Fatalf("start node %d again: %v", away, err)
	}
	l.targets[away].Store(connect(t, back.HTTPEndpoint(), credentials, nil))
	l.await(400)
	l.finish()
	if l.unknown.Load() > 200 {
		t.Errorf("%d changes of unknown outcome: the history says little", l.unknown.Load())
	}
}
