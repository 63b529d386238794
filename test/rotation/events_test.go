package rotation_test

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotator"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
	"github.com/keyturn/keyturn/test/support"
)

const eventKey = "the key that signs events"

// event is what a receiver gets.
type event struct {
	SpecVersion, ID, Source, Type, Subject, Time string
	Data                                         struct{ Secret, Target, Rotation, Trigger, State, Version, Reason string }
}

// receiver takes events, and refuses the first few.
type receiver struct {
	*httptest.Server
	t *testing.T

	mu     sync.Mutex
	refuse int     // how many more are refused
	taken  []event // in the order of arrival
	bodies string
}

func newReceiver(t *testing.T, refuse int) *receiver {
	r := &receiver{t: t, refuse: refuse}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil ||
		!sign.CheckWebhook(req.Header, eventKey, time.Now(), body) ||
		!strings.HasPrefix(req.Header.Get("Content-Type"), "application/cloudevents+json") {
		r.t.Errorf("an event that is not signed, or of type %q", req.Header.Get("Content-Type"))
	}
	var e event
	if err := json.Unmarshal(body, &e); err != nil {
		r.t.Error(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bodies += string(body)
	if r.refuse > 0 {
		r.refuse--
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	r.taken = append(r.taken, e)
}

// types waits for so many different events about a secret, and returns their types in the order
// of time.
func (r *receiver) types(secret string, n int) []string {
	r.t.Helper()
	byID := map[string]event{}
	support.Eventually(func() bool { // the caller reports what is missing
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, e := range r.taken {
			if e.Subject == secret {
				byID[e.ID] = e
			}
		}
		return len(byID) >= n
	})
	list := slices.SortedFunc(maps.Values(byID), func(a, b event) int { return strings.Compare(a.Time, b.Time) })
	var types []string
	for _, e := range list {
		types = append(types, strings.TrimPrefix(e.Type, "io.keyturn."))
	}
	return types
}

func receivers(list ...*receiver) keyturntest.Option {
	return server.Change(func(c *server.Config) {
		for _, r := range list {
			c.Rotator.Receivers = append(c.Rotator.Receivers, rotator.Receiver{
				URL: r.URL,
				Key: sensitive.New(eventKey),
			})
		}
	})
}

// TestEvents sends the events of a rotation to two receivers, one of which refuses at first, and
// goes on after a restart: each event arrives at each, with no credential in it.
func TestEvents(t *testing.T) {
	t.Parallel()
	ready, late := newReceiver(t, 0), newReceiver(t, 2)
	d, dir := startDatabase(t), t.TempDir()
	s := start(t, receivers(ready, late), keyturntest.WithDataDir(dir))
	register(t, s, d)
	create(t, s, "db", "DoubleUsers", d.app, d.clone)
	rotate(t, s, "db", "v2")
	until(t, s, "db", "grace")
	_, l := current(t, s, "db")
	want := []string{"rotation.started", "rotation.succeeded"}
	if got := ready.types("db", 2); !slices.Equal(got, want) {
		t.Errorf("a receiver that is ready has %v, want %v", got, want)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	start(t, receivers(ready, late), keyturntest.WithDataDir(dir))
	if got := late.types("db", 2); !slices.Equal(got, want) {
		t.Errorf("a receiver that refused at first has %v, want %v", got, want)
	}
	e := ready.taken[slices.IndexFunc(ready.taken, func(e event) bool { return strings.HasSuffix(e.Type, "succeeded") })]
	if e.SpecVersion != "1.0" || e.Source != "/keyturn/local" || e.Data.Secret != "db" || e.Data.Target != "pg-main" ||
		e.Data.Rotation != "v2" || e.Data.Version != "v2" || e.Data.Trigger != "manual" {
		t.Errorf("the event is %+v", e)
	}
	for _, r := range []*receiver{ready, late} {
		for _, secret := range []string{l.AccountPassword, d.app.AccountPassword, d.admin.AccountPassword} {
			if strings.Contains(r.bodies, secret) {
				t.Error("an event holds a credential")
			}
		}
	}
}

// TestDriftEvent changes a password by hand, and repairs it: both are sent as events.
func TestDriftEvent(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, 0)
	d := startDatabase(t)
	s := start(t, receivers(r), server.Change(func(c *server.Config) { c.Rotation.ProbeEvery = 50 * time.Millisecond }))
	register(t, s, d)
	create(t, s, "db", "SingleUser", d.app)
	untilLive(t, s, "db") // a repair sends nothing that the target has not accepted
	if err := d.Exec(t.Context(), "postgres", "ALTER ROLE app PASSWORD 'by hand'"); err != nil {
		t.Fatal(err)
	}
	until(t, s, "db", "quarantined")
	if _, err := s.Client.RepairRotation(t.Context(), &kms.RepairRotationRequest{
		SecretName:   "db",
		RepairAction: "apply",
	}); err != nil {
		t.Fatal(err)
	}
	until(t, s, "db", "done")
	if got, want := r.types("db", 2), []string{"credential.drift", "rotation.repaired"}; !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
	if err := d.login(t.Context(), d.app); err != nil {
		t.Errorf("after the repair: %v", err)
	}
}
