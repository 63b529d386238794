package durability_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/linear/model"
)

const (
	writers = 6
	each    = 3 // secrets of a writer
)

// writer is one client. No other client changes its secrets, so it knows what must be there, but
// for one change that was under way when the server died.
type writer struct {
	id      int
	random  *rand.Rand
	state   map[string]*model.Secret
	pending *model.Op
	made    int
	size    int // of a value, beyond a few bytes
	acked   []ack
	// happened counts the changes without an answer that were found done.
	happened int
}

// ack is a change that the server has answered: made, or refused by its rules.
type ack struct {
	id, code string
	op       model.Op
}

// now is the time of the model: the secrets' own times do not matter here.
var now = time.Time{}.Add(time.Hour)

func newWriters(seed uint64) []*writer {
	list := make([]*writer, writers)
	for i := range list {
		list[i] = &writer{id: i, random: rand.New(rand.NewPCG(seed, uint64(i))), state: map[string]*model.Secret{}}
	}
	return list
}

func (w *writer) names() []string {
	var list []string
	for i := range each {
		list = append(list, fmt.Sprintf("writer-%d/secret-%d", w.id, i))
	}
	return list
}

// next chooses a call that mostly has an effect.
func (w *writer) next() model.Op {
	name := w.names()[w.random.IntN(each)]
	s := w.state[name]
	o := model.Op{Name: name, Kind: model.Get}
	w.made++
	fresh := func(kind model.Kind) model.Op {
		data := fmt.Sprintf("value %d of %s %s", w.made, name, strings.Repeat("x", w.random.IntN(200)+w.size))
		return model.Op{Kind: kind, Name: name, Version: fmt.Sprint("v", w.made), Data: data}
	}
	ids := s.Versions()
	switch n := w.random.IntN(100); {
	case s == nil:
		return fresh(model.Create)
	case s.Waits() && n < 70:
		o.Kind = model.Restore
	case n < 50:
		o = fresh(model.Put)
		if w.random.IntN(3) == 0 {
			o.Labels = []string{[]string{"blue", "green", "ACSCurrent"}[w.random.IntN(3)]}
		}
	case n < 75:
		o.Kind, o.To = model.Move, ids[w.random.IntN(len(ids))]
		o.Label = []string{"ACSCurrent", "ACSPrevious", "blue"}[w.random.IntN(3)]
	case n < 82:
		o.Kind, o.Window = model.Delete, 7
	case n < 86:
		o.Kind, o.Force = model.Delete, true
	}
	return o
}

// once makes one call and holds its answer against the model. It returns what is known of the call.
func (w *writer) once(ctx context.Context, c *kms.Client, o model.Op) (model.Outcome, error) {
	reply, id, known, err := model.Send(ctx, c, o)
	if known != model.Answered {
		if o.Changes() && known == model.Unknown {
			w.pending = &o
		}
		return known, err
	}
	next, want := w.state[o.Name].Apply(o, now)
	if d := cmp.Diff(want.Timeless(), reply.Timeless()); d != "" {
		return known, fmt.Errorf("%v, request %s, answers otherwise than the reference (-reference +server):\n%s", o, id, d)
	}
	w.state[o.Name] = next
	if o.Changes() {
		w.acked = append(w.acked, ack{id, reply.Code, o})
	}
	return known, nil
}

// work makes calls until one gets no answer.
func (w *writer) work(ctx context.Context, c *kms.Client) error {
	for {
		if known, err := w.once(ctx, c, w.next()); known != model.Answered {
			return nil // the server was killed, which is what this test is about
		} else if err != nil {
			return err
		}
	}
}

// work has all writers work until the server answers no more.
func work(t *testing.T, c *kms.Client, list []*writer) (wait func()) {
	var all sync.WaitGroup
	for _, w := range list {
		all.Go(func() {
			if err := w.work(context.WithoutCancel(t.Context()), c); err != nil {
				t.Error(err)
			}
		})
	}
	return all.Wait
}

// settle holds what is stored against the books: every acknowledged change is there, and the one
// that was under way is there wholly or not at all. It returns how many reads it took, and notes
// which of the two it was.
func (w *writer) settle(ctx context.Context, c *kms.Client) (reads int, happened *model.Op, err error) {
	pending := w.pending
	w.pending = nil
	for _, name := range w.names() {
		candidates := []*model.Secret{w.state[name]}
		if pending != nil && pending.Name == name {
			after, _ := w.state[name].Apply(*pending, now)
			candidates = append(candidates, after)
		}
		found, n, err := look(ctx, c, name)
		reads += n
		if err != nil {
			return reads, nil, err
		}
		var diffs []error
		for i, candidate := range candidates {
			d := compare(candidate, name, found)
			if d == "" {
				w.state[name] = candidate
				if i == 1 {
					happened = pending
					w.happened++
				}
				diffs = nil
				break
			}
			diffs = append(diffs,
				fmt.Errorf("%s (-reference +server):\n%s", []string{"as acknowledged", "with the change under way"}[i], d))
		}
		if diffs != nil {
			return reads, nil, fmt.Errorf("%s, change under way %v: %w", name, pending, errors.Join(diffs...))
		}
	}
	return reads, happened, nil
}

// sight is what reads of one secret have answered.
type sight struct {
	op    model.Op
	reply model.Reply
}

// look reads all there is of a secret: its versions with their labels, the current value, the
// value of each version.
func look(ctx context.Context, c *kms.Client, name string) (found []sight, reads int, err error) {
	ops := []model.Op{{Kind: model.List, Name: name, Deprecated: true}, {Kind: model.Get, Name: name}}
	for len(ops) > 0 {
		o := ops[0]
		ops = ops[1:]
		reply, _, known, err := model.Send(ctx, c, o)
		if known != model.Answered {
			return nil, reads, fmt.Errorf("%v: %w", o, err)
		}
		reads++
		found = append(found, sight{o, reply.Timeless()})
		for _, row := range reply.Rows {
			ops = append(ops, model.Op{Kind: model.Get, Name: name, Version: row.Version})
		}
	}
	return found, reads, nil
}

func compare(s *model.Secret, name string, found []sight) string {
	var all strings.Builder
	for _, f := range found {
		_, want := s.Apply(f.op, now)
		if d := cmp.Diff(want.Timeless(), f.reply); d != "" {
			fmt.Fprintf(&all, "%v: %s\n", f.op, d)
		}
	}
	return all.String()
}

// trail reads an audit trail as it grows.
type trail struct {
	dir     string
	offsets map[string]int64
	phases  map[string]map[audit.Phase]audit.Record // by request
	intents map[string]bool                         // operation, resource and version
	seen    map[uint64]string                       // hash by number
	last    audit.Report
}

func newTrail(dir string) *trail {
	return &trail{
		dir:     dir,
		offsets: map[string]int64{},
		phases:  map[string]map[audit.Phase]audit.Record{},
		intents: map[string]bool{},
		seen:    map[uint64]string{},
	}
}

// check verifies the chain, that it goes on from where it was, and that each change has its
// intent and its outcome. No client may write meanwhile.
func (a *trail) check(list []*writer) (records uint64, err error) {
	r, err := audit.Verify(a.dir)
	if err != nil {
		return 0, err
	}
	if err := a.read(); err != nil {
		return 0, err
	}
	if a.last.Records > 0 && a.seen[a.last.LastSeq] != a.last.LastHash {
		return 0, fmt.Errorf("record %d was changed or deleted", a.last.LastSeq)
	}
	a.last = r
	for _, w := range list {
		for _, k := range w.acked {
			if err := a.has(k); err != nil {
				return 0, err
			}
		}
	}
	return r.Records, nil
}

func (a *trail) read() error {
	files, err := filepath.Glob(filepath.Join(a.dir, "*.jsonl"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := a.readFile(file); err != nil {
			return err
		}
	}
	return nil
}

func (a *trail) readFile(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Seek(a.offsets[file], io.SeekStart); err != nil {
		return err
	}
	lines := bufio.NewReader(f)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		var r audit.Record
		if err = errors.Join(err, json.Unmarshal(line, &r)); err != nil {
			return err
		}
		a.offsets[file] += int64(len(line))
		a.seen[r.Seq] = r.Hash
		if a.phases[r.RequestID] == nil {
			a.phases[r.RequestID] = map[audit.Phase]audit.Record{}
		}
		a.phases[r.RequestID][r.Phase] = r
		if r.Phase == audit.Intent {
			a.intents[r.Operation+" "+r.VersionID] = true
		}
	}
}

// has verifies that the trail has an intent and an outcome for a change that was answered.
func (a *trail) has(k ack) error {
	intent, ok := a.phases[k.id][audit.Intent]
	outcome, ok2 := a.phases[k.id][audit.Outcome]
	want := k.code
	if want == "" {
		want = "ok"
	}
	switch {
	case !ok || !ok2:
		return fmt.Errorf("request %s, %v, has intent %v and outcome %v in the trail", k.id, k.op, ok, ok2)
	case intent.Operation != string(k.op.Kind) || outcome.Operation != string(k.op.Kind) || outcome.Outcome != want:
		return fmt.Errorf("request %s, %v, is in the trail as %s with outcome %q; want %q", k.id, k.op,
			outcome.Operation, outcome.Outcome, want)
	case !strings.HasSuffix(outcome.Resource, ":secret/"+k.op.Name):
		return fmt.Errorf("request %s, %v, is in the trail with resource %q", k.id, k.op, outcome.Resource)
	case k.op.Version != "" && (intent.VersionID != k.op.Version || outcome.VersionID != k.op.Version):
		return fmt.Errorf("request %s, %v, is in the trail with version %q", k.id, k.op, outcome.VersionID)
	case intent.Seq >= outcome.Seq:
		return fmt.Errorf("request %s has its outcome before its intent", k.id)
	}
	return nil
}

// settleAll compares store and trail with the books of all writers. No client may write meanwhile.
func settleAll(t *testing.T, c *kms.Client, list []*writer, a *trail) (reads int, records uint64) {
	t.Helper()
	var done []model.Op // of those that were under way
	for _, w := range list {
		n, happened, err := w.settle(t.Context(), c)
		reads += n
		if err != nil {
			t.Fatal(err)
		}
		if happened != nil {
			done = append(done, *happened)
		}
	}
	records, err := a.check(list)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range done {
		if o.Version != "" && !a.intents[string(o.Kind)+" "+o.Version] {
			t.Errorf("%v has happened without an intent in the trail", o)
		}
	}
	return reads, records
}
