package prove

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
	"github.com/keyturn/keyturn/test/applications"
	"github.com/keyturn/keyturn/test/support"
)

// watch configures an oracle; it arrives on standard input.
type watch struct {
	Endpoint, KeyID, KeySecret string
	Secrets                    []watched
	// Every is the time between two turns, in milliseconds.
	Every int
	// Ages are how long ago, in milliseconds, the values were read with which it logs in; 0 reads
	// and then logs in at once.
	Ages []int
	// Promise is how long after it was read a value must work, in milliseconds.
	Promise int
}

// watched is a secret and the application that it is for.
type watched struct {
	Secret string
	Door   door
	// Stated are pieces of work that the page of the kind says differ.
	Stated []string
}

// seen is what an oracle has seen.
type seen struct {
	// Connections counts what was done with a value, by client; a bare login is one too. Work counts
	// the pieces of work that were done.
	Connections map[string]int
	Work        int
	// Failures are logins refused within the promise, by age; Late are those refused after it, which
	// are no failure. Rights counts work that had another answer than before the first rotation.
	Failures     map[int]int
	Late, Rights int
	// Unread and Unanswered are reads, and logins, that got no answer.
	Unread, Unanswered int
	Notes              []string
}

const oracleAtOnce = 24

// watcher is a running oracle.
type watcher struct {
	watch  watch
	client *kms.Client
	users  []*user

	mu    sync.Mutex
	seen  seen                 // guarded by mu
	reads map[string][]reading // guarded by mu
}

// reading is a value, and when it was asked for: it was current at that time or later.
type reading struct {
	at    time.Time
	value string
}

// oracle is an application in a process of its own: it opens a new connection in each turn with a
// value that a consumer holds. It prints a line when it knows what the application can do.
func oracle() int {
	w := &watcher{seen: seen{Connections: map[string]int{}, Failures: map[int]int{}}, reads: map[string][]reading{}}
	err := json.NewDecoder(os.Stdin).Decode(&w.watch)
	if err == nil {
		w.client, err = kms.NewClient(kms.Config{
			Endpoint:    "http://" + w.watch.Endpoint,
			Credentials: sign.Credentials{AccessKeyID: w.watch.KeyID, AccessKeySecret: sensitive.New(w.watch.KeySecret)},
		})
	}
	for _, secret := range w.watch.Secrets {
		if err == nil {
			err = w.meet(secret)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "the order of the oracle cannot be followed:", err)
		return 2
	}
	fmt.Println(oracleReady)
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	w.run(ctx)
	fmt.Println(compact(w.seen))
	return 0
}

const oracleReady = "ready"

// run takes turns until the context ends.
func (w *watcher) run(ctx context.Context) {
	tick := time.NewTicker(ms(w.watch.Every, 10))
	defer tick.Stop()
	var work sync.WaitGroup
	defer work.Wait()
	slots := make(chan struct{}, oracleAtOnce)
	for turn := 0; ctx.Err() == nil; turn++ {
		select {
		case <-tick.C:
			slots <- struct{}{}
			work.Go(func() {
				defer func() { <-slots }()
				w.look(turn)
			})
		case <-ctx.Done():
		}
	}
}

// look does one turn.
func (w *watcher) look(turn int) {
	u := w.users[turn%len(w.users)]
	age := w.watch.Ages[turn/len(w.users)%len(w.watch.Ages)]
	var r reading
	var ok bool
	if age == 0 {
		r, ok = w.read(u.secret)
	} else {
		r, ok = w.old(u.secret, time.Duration(age)*time.Millisecond)
	}
	if !ok {
		return
	}
	client, release := u.client(turn)
	out, err := client.Work(context.Background(), r.value)
	took := time.Since(r.at)
	release()
	within := took < ms(w.watch.Promise, 0)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen.Connections[client.Name]++
	switch {
	case err != nil:
		w.seen.Unanswered++
		w.note("%s at %s: %v", client.Name, u.secret, err)
	case out[applications.Login] != applications.In && !within:
		w.seen.Late++
	case out[applications.Login] != applications.In:
		w.seen.Failures[age]++
		w.note("a value of %s of age %d ms was refused to %s %v after it was read, at %s: %s", u.secret, age, client.Name,
			took, time.Now().Format("15:04:05.000"), out[applications.Login])
	default:
		w.seen.Work += len(out)
		w.compare(u, client.Name, out, within)
	}
}

// compare counts work that was answered in another way than before the first rotation. After the
// promise the credential may lose its sessions at any time. The lock is held.
func (w *watcher) compare(u *user, client string, out applications.Outcome, within bool) {
	for name, was := range u.before[client] {
		if out[name] != was && within && !slices.Contains(u.stated, name) {
			w.seen.Rights++
			w.note("%s of %s: %q was %q: %q", client, u.secret, name, was, out[name])
		}
	}
}

// note keeps what the first failures were. The lock is held.
func (w *watcher) note(format string, args ...any) {
	if len(w.seen.Notes) < 5 {
		w.seen.Notes = append(w.seen.Notes, fmt.Sprintf(format, args...))
	}
}

func (w *watcher) read(secret string) (reading, bool) {
	r := reading{at: time.Now()}
	out, err := w.client.GetSecretValue(context.Background(), &kms.GetSecretValueRequest{SecretName: secret})
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.seen.Unread++
		w.note("read %s: %v", secret, err)
		return r, false
	}
	r.value = out.SecretData.Reveal()
	answered := reading{at: r.at, value: r.value}
	w.reads[secret] = append(w.reads[secret], answered)
	if w.watch.Ages[0] == 0 && len(w.watch.Ages) == 1 {
		r.at = time.Now() // with one account the value counts from when it arrived: reads wait through a change
	}
	return r, true
}

// old is the youngest value that was read at least so long ago.
func (w *watcher) old(secret string, age time.Duration) (reading, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.reads[secret]
	for i := len(list) - 1; i >= 0; i-- {
		if time.Since(list[i].at) >= age {
			return list[i], true
		}
	}
	return reading{}, false
}

const (
	// grace is how long the old credential works after a rotation, in milliseconds.
	grace = 2000
	// nearly is the age of the oldest value that a consumer holds.
	nearly = 1600
	// leadOfOracle is how long reads of a secret with one credential are blocked before it changes. It
	// is more than the service has, so that a busy machine does not make a login late that follows a
	// read at once.
	leadOfOracle = 1000
)

// oneOracle is held by the oracle that runs: two at a time would both be too slow.
var oneOracle sync.Mutex

// oracle rotates secrets while an independent process uses them.
func (f fixture) oracle(t *testing.T) {
	kind := map[target.Strategy]string{
		target.Single:  "oracle_failures_single_age_0",
		target.Overlap: "oracle_failures_overlap",
		target.Double:  "oracle_failures_double",
	}[f.strategy]
	for _, name := range []string{
		kind, "oracle_rotations", "oracle_connections", "oracle_connections_" + f.name, "oracle_work",
		"oracle_rights_changed", "oracle_reads_unanswered", "oracle_logins_unanswered", "oracle_refused_after_promise",
	} {
		figures.Count(name, 0)
	}
	oneOracle.Lock()
	defer oneOracle.Unlock()
	p := newPlace(t)
	c := p.start(t, f.order(order{Lead: leadOfOracle, Hold: 8000}))
	f.register(t, c, f.addr)
	w := watch{
		Endpoint:  c.endpoint,
		KeyID:     c.admin.AccessKeyID,
		KeySecret: c.admin.AccessKeySecret.Reveal(),
		Every:     f.turn,
	}
	for range pick(8, 2) {
		w.Secrets = append(w.Secrets, f.watched(t, c, f.create(t, c, fmt.Sprintf("%ds", grace/1000))))
	}
	rotations := pick(10, 1)
	if w.Ages, w.Promise = []int{0, grace / 2, nearly}, grace; f.strategy == target.Single {
		w.Ages, w.Promise = []int{0}, leadOfOracle*3/4 // the rest is for the answer to arrive
		rotations *= 3
	}
	end := startOracle(t, w)
	var work sync.WaitGroup
	for _, watched := range w.Secrets {
		secret := watched.Secret
		work.Go(func() {
			for n := range rotations {
				if _, err := c.RotateSecret(t.Context(), &kms.RotateSecretRequest{
					SecretName: secret,
					VersionID:  version(n + 2),
				}); err != nil {
					t.Errorf("rotate %s: %v", secret, err)
					return
				}
				r, err := c.endOf(t.Context(), secret, version(n+2))
				if err != nil || r.State != "done" {
					t.Errorf("rotation %s of %s: %+v, %v", version(n+2), secret, r, err)
					return
				}
				figures.Count("oracle_rotations", 1)
			}
		})
	}
	work.Wait()
	f.count(t, kind, end(), rotations)
}

// watched is a secret with its application.
func (f fixture) watched(t *testing.T, c *process, secret string) watched {
	t.Helper()
	v, err := applications.Parse(c.value(t, secret, kms.StageCurrent))
	good(t, err)
	d := f.at(c)
	if f.own != nil {
		f.own(&d, v.AccountName)
	}
	applications.Require(t, d.Kind)
	return watched{secret, d, f.stated}
}

// count reports what an oracle has seen.
func (f fixture) count(t *testing.T, kind string, s seen, least int) {
	t.Helper()
	failures, connections := 0, 0
	for _, n := range s.Failures {
		failures += n
	}
	for client, n := range s.Connections {
		connections += n
		figures.Count("oracle_connections_by_"+client, n)
	}
	figures.Count(kind, failures)
	figures.Count("oracle_connections", connections)
	figures.Count("oracle_connections_"+f.name, connections)
	figures.Count("oracle_work", s.Work)
	figures.Count("oracle_rights_changed", s.Rights)
	figures.Count("oracle_reads_unanswered", s.Unread)
	figures.Count("oracle_logins_unanswered", s.Unanswered)
	figures.Count("oracle_refused_after_promise", s.Late)
	if failures+s.Rights+s.Unread+s.Unanswered > 0 || connections < least {
		t.Errorf("the oracle: %+v", s)
	}
}

// endOf waits for the end of a rotation.
func (c *process) endOf(ctx context.Context, secret, version string) (r *kms.DescribeRotationResponse, err error) {
	if !support.Eventually(func() bool {
		r, err = c.DescribeRotation(ctx, &kms.SecretNameRequest{SecretName: secret})
		return err != nil || r.RotationID == version && ended(r.State)
	}) {
		err = fmt.Errorf("it has not ended in %v", support.Patience)
	}
	return r, err
}

// startOracle starts the process and waits until it knows the applications. end stops it and
// returns what it saw.
func startOracle(t *testing.T, w watch) (end func() seen) {
	t.Helper()
	var out strings.Builder // complete when the process has exited
	ready := make(chan struct{})
	c := support.StartSelf(t, []string{childVariable + "=" + childOracle}, func(line string) {
		if line == oracleReady {
			close(ready)
			return
		}
		out.WriteString(line)
	})
	good(t, json.NewEncoder(c.Stdin).Encode(w))
	c.Await(t, ready)
	return func() (s seen) {
		c.Stop(t)
		good(t, c.Err)
		good(t, json.Unmarshal([]byte(out.String()), &s))
		return s
	}
}
