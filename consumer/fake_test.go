package consumer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/support"
)

// call is one call that the fake got.
type call struct {
	at    time.Time
	name  string
	stage string
	watch *kms.WatchSecretsRequest
}

// fake is an endpoint in memory. It answers at once by default.
type fake struct {
	mu      sync.Mutex
	secrets map[string]*kms.GetSecretValueResponse // name, or name and stage, to the answer
	failure map[string]error                       // of a name, or of all under ""
	latency time.Duration
	noWatch error
	revs    map[string]int
	changed chan struct{}
	calls   []call
	watches int // under way
	onRead  func(stage string)
}

func newFake() *fake {
	return &fake{
		secrets: map[string]*kms.GetSecretValueResponse{}, failure: map[string]error{}, revs: map[string]int{},
		changed: make(chan struct{}), noWatch: problem(404, kms.CodeActionNotFound),
	}
}

func problem(status int, code string) error {
	return &kms.Error{HTTPStatus: status, Code: code, Message: "no", RequestID: "r"}
}

var errAway = errors.New("kms: GetSecretValue: dial tcp 192.0.2.1:443: connection refused")

// put makes a version current.
func (f *fake) put(name, version, value string, change ...func(*kms.GetSecretValueResponse)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	answer := &kms.GetSecretValueResponse{
		SecretName:     name,
		VersionID:      version,
		SecretData:     sensitive.New(value),
		SecretDataType: kms.DataText,
		SecretType:     kms.TypeGeneric,
		VersionStages:  []string{kms.StageCurrent}, CreateTime: time.Now().UTC().Truncate(time.Second),
	}
	for _, edit := range change {
		edit(answer)
	}
	f.secrets[name] = answer
	f.touchLocked(name)
}

// promote makes the candidate current, and what was current previous, all at once.
func (f *fake) promote(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.secrets[name+" ACSPrevious"], f.secrets[name] = f.secrets[name], f.secrets[name+" ACSPending"]
	delete(f.secrets, name+" ACSPending")
	f.touchLocked(name)
}

// stage gives a version under another label; an empty version takes it away.
func (f *fake) stage(name, stage, version, value string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.secrets, name+" "+stage)
	if version != "" {
		f.secrets[name+" "+stage] = &kms.GetSecretValueResponse{
			SecretName:    name,
			VersionID:     version,
			SecretData:    sensitive.New(value),
			VersionStages: []string{stage},
		}
	}
}

func (f *fake) touchLocked(name string) {
	f.revs[name]++
	close(f.changed)
	f.changed = make(chan struct{})
}

// fail makes calls for a name fail; "" is for all names, nil ends it.
func (f *fake) fail(name string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		delete(f.failure, name)
	} else {
		f.failure[name] = err
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fake) slow(d time.Duration) { f.mu.Lock(); defer f.mu.Unlock(); f.latency = d }

// since returns the reads of a name after t; "" stands for all.
func (f *fake) since(t time.Time, name string) []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []call
	for _, c := range f.calls {
		if c.watch == nil && !c.at.Before(t) && (name == "" || c.name == name) {
			out = append(out, c)
		}
	}
	return out
}

func (f *fake) failureLocked(name string) error {
	if err := f.failure[""]; err != nil {
		return err
	}
	return f.failure[name]
}

func (f *fake) GetSecretValue(ctx context.Context, in *kms.GetSecretValueRequest) (*kms.GetSecretValueResponse, error) {
	f.mu.Lock()
	f.calls = append(f.calls, call{at: time.Now(), name: in.SecretName, stage: in.VersionStage})
	latency, onRead := f.latency, f.onRead
	f.mu.Unlock()
	if onRead != nil {
		onRead(in.VersionStage)
	}
	if latency > 0 {
		select {
		case <-time.After(latency):
		case <-ctx.Done():
			return nil, fmt.Errorf("kms: GetSecretValue: %w", ctx.Err())
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err := f.failureLocked(in.SecretName); err != nil {
		return nil, err
	}
	key := in.SecretName
	if in.VersionStage != "" && in.VersionStage != kms.StageCurrent {
		key += " " + in.VersionStage
	}
	answer := f.secrets[key]
	if answer == nil {
		return nil, problem(404, kms.CodeResourceNotFound)
	}
	return answer, nil
}

func (f *fake) WatchSecrets(ctx context.Context, in *kms.WatchSecretsRequest) (*kms.WatchSecretsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, call{at: time.Now(), watch: in})
	if f.noWatch != nil {
		return nil, f.noWatch
	}
	f.watches++
	defer func() { f.watches-- }()
	end := time.NewTimer(time.Duration(in.WaitSeconds) * time.Second)
	defer end.Stop()
	for {
		if err := f.failure[""]; err != nil {
			return nil, err
		}
		out := &kms.WatchSecretsResponse{Changes: f.changesLocked(in)}
		if len(out.Changes) > 0 || in.Leaving {
			return out, nil
		}
		changed := f.changed
		f.mu.Unlock()
		over := false
		select {
		case <-changed:
		case <-end.C:
			over = true
		case <-ctx.Done():
		}
		f.mu.Lock()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("kms: WatchSecrets: %w", ctx.Err())
		}
		if over {
			return out, nil
		}
	}
}

func (f *fake) changesLocked(in *kms.WatchSecretsRequest) []kms.SecretChange {
	var out []kms.SecretChange
	for _, w := range in.Secrets {
		revision := fmt.Sprint("r", f.revs[w.SecretName])
		if revision == w.Revision {
			continue
		}
		change := kms.SecretChange{SecretName: w.SecretName, Revision: revision, State: kms.StateAbsent}
		if s := f.secrets[w.SecretName]; s != nil {
			change.State, change.VersionID, change.NextRotationDate = kms.StateCurrent, s.VersionID, s.NextRotationDate
		}
		out = append(out, change)
	}
	return out
}

// start makes a Consumer that is closed when the test ends. Inside a bubble, close it before the
// bubble ends.
func start(t testing.TB, f API, edit func(*Config)) (*Consumer, *support.Log) {
	t.Helper()
	l := &support.Log{}
	config := Config{
		Client:   f,
		Instance: "test",
		Logger:   slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if edit != nil {
		edit(&config)
	}
	c, err := New(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, l
}

// bubble runs a test with a clock of its own, which moves when everybody waits.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, test)
}

func mustGet(t testing.TB, c *Consumer, name, version string) *Secret {
	t.Helper()
	s, err := c.Get(context.Background(), name)
	if err != nil || s.VersionID != version {
		t.Fatalf("Get(%q) = %+v, %v; want version %s", name, s, err, version)
	}
	return s
}
