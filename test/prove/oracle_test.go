package prove

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
	"github.com/keyturn/keyturn/test/support"
)

// watch configures an oracle; it arrives on standard input.
type watch struct {
	Endpoint, KeyID, KeySecret string
	Door                       door
	Secrets                    []string
	// Ages are how long ago, in milliseconds, the values were read with which it logs in; 0 reads
	// and then logs in at once.
	Ages []int
	// Promise is how long after it was read a value must work, in milliseconds.
	Promise int
}

// seen is what an oracle has seen.
type seen struct {
	Connections int
	// Failures are logins refused within the promise, by age; Late are those refused after it, which
	// are no failure.
	Failures map[int]int
	Late     int
	// Unread and Unanswered are reads, and logins, that got no answer.
	Unread, Unanswered int
	Notes              []string
}

const (
	oracleEvery  = 10 * time.Millisecond
	oracleAtOnce = 24
)

// watcher is a running oracle.
type watcher struct {
	watch  watch
	client *kms.Client

	mu    sync.Mutex
	seen  seen                 // guarded by mu
	reads map[string][]reading // guarded by mu
}

// reading is a value, and when it was asked for: it was current at that time or later.
type reading struct {
	at    time.Time
	value string
}

// oracle is a consumer in a process of its own: every 10 ms it opens a new connection with what a
// consumer holds.
func oracle() int {
	w := &watcher{seen: seen{Failures: map[int]int{}}, reads: map[string][]reading{}}
	err := json.NewDecoder(os.Stdin).Decode(&w.watch)
	if err == nil {
		w.client, err = kms.NewClient(kms.Config{
			Endpoint:    "http://" + w.watch.Endpoint,
			Credentials: sign.Credentials{AccessKeyID: w.watch.KeyID, AccessKeySecret: sensitive.New(w.watch.KeySecret)},
		})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "the order of the oracle cannot be followed")
		return 2
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	tick := time.NewTicker(oracleEvery)
	defer tick.Stop()
	var work sync.WaitGroup
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
	work.Wait()
	fmt.Println(compact(w.seen))
	return 0
}

// look makes one connection.
func (w *watcher) look(turn int) {
	secret := w.watch.Secrets[turn%len(w.watch.Secrets)]
	age := w.watch.Ages[turn/len(w.watch.Secrets)%len(w.watch.Ages)]
	var r reading
	var ok bool
	if age == 0 {
		r, ok = w.read(secret)
	} else {
		r, ok = w.old(secret, time.Duration(age)*time.Millisecond)
	}
	if !ok {
		return
	}
	in, err := w.watch.Door.login(context.Background(), r.value)
	took := time.Since(r.at)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen.Connections++
	switch {
	case err != nil:
		w.seen.Unanswered++
		w.note("login at %s: %v", secret, err)
	case in:
	case took < time.Duration(w.watch.Promise)*time.Millisecond:
		w.seen.Failures[age]++
		w.note("a value of %s of age %d ms was refused %v after it was read, at %s", secret, age, took,
			time.Now().Format("15:04:05.000"))
	default:
		w.seen.Late++
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
	leadOfOracle = 400
)

// oneOracle is held by the oracle that runs: two at a time would both be too slow to log in every
// 10 ms.
var oneOracle sync.Mutex

// oracle rotates secrets while an independent process uses them.
func (f fixture) oracle(t *testing.T) {
	kind := map[target.Strategy]string{
		target.Single:  "oracle_failures_single_age_0",
		target.Overlap: "oracle_failures_overlap",
		target.Double:  "oracle_failures_double",
	}[f.strategy]
	for _, name := range []string{
		kind, "oracle_rotations", "oracle_connections", "oracle_connections_" + f.name,
		"oracle_reads_unanswered", "oracle_logins_unanswered", "oracle_refused_after_promise",
	} {
		figures.Count(name, 0)
	}
	oneOracle.Lock()
	defer oneOracle.Unlock()
	p := newPlace(t)
	c := p.start(t, f.order(order{Lead: leadOfOracle, Hold: 8000}))
	f.register(t, c, f.addr)
	var secrets []string
	for range pick(8, 2) {
		secrets = append(secrets, f.create(t, c, fmt.Sprintf("%ds", grace/1000)))
	}
	w := watch{
		Endpoint:  c.endpoint,
		KeyID:     c.admin.AccessKeyID,
		KeySecret: c.admin.AccessKeySecret.Reveal(),
		Door:      f.at(c),
		Secrets:   secrets,
	}
	rotations := pick(10, 1)
	if w.Ages, w.Promise = []int{0, grace / 2, nearly}, grace; f.strategy == target.Single {
		w.Ages, w.Promise = []int{0}, leadOfOracle*3/4 // the rest is for the answer to arrive
		rotations *= 3
	}
	end := startOracle(t, w)
	var work sync.WaitGroup
	for _, secret := range secrets {
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
	s := end()
	failures := 0
	for _, n := range s.Failures {
		failures += n
	}
	figures.Count(kind, failures)
	figures.Count("oracle_connections", s.Connections)
	figures.Count("oracle_connections_"+f.name, s.Connections)
	figures.Count("oracle_reads_unanswered", s.Unread)
	figures.Count("oracle_logins_unanswered", s.Unanswered)
	figures.Count("oracle_refused_after_promise", s.Late)
	if failures+s.Unread+s.Unanswered > 0 || s.Connections < rotations {
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

// startOracle starts the process. end stops it and returns what it saw.
func startOracle(t *testing.T, w watch) (end func() seen) {
	t.Helper()
	var out strings.Builder // complete when the process has exited
	c := support.StartSelf(t, []string{childVariable + "=" + childOracle}, func(line string) { out.WriteString(line) })
	good(t, json.NewEncoder(c.Stdin).Encode(w))
	return func() (s seen) {
		c.Stop(t)
		good(t, c.Err)
		good(t, json.Unmarshal([]byte(out.String()), &s))
		return s
	}
}
