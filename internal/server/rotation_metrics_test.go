package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/store"
)

// shown returns what a scrape shows.
func shown(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetGauge().GetValue()
		}
	}
	return got
}

// TestRotationCounts verifies which rotation counts where, as a scrape shows it.
func TestRotationCounts(t *testing.T) {
	t.Parallel()
	s, err := New(t.Context(), Config{DataDir: t.TempDir(), ListenHTTP: "127.0.0.1:0", NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.release() })
	now := time.Now().UTC()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	const account = "1234567890123456"
	put := func(change func(tx *store.Tx) error) {
		t.Helper()
		if err := store.Do(t.Context(), s.db, change); err != nil {
			t.Fatal(err)
		}
	}
	for i, r := range []rotation.Record{
		{State: rotation.Idle, Due: ago(2 * time.Hour)},
		{State: rotation.Idle, Due: ago(2 * time.Hour), Paused: true},
		{State: rotation.Idle, Due: ago(2 * time.Hour), Target: "paused"},
		{State: rotation.Done, Due: ago(30 * time.Minute), Health: rotation.Health{ProbedAt: now, Live: true}},
		{
			State: rotation.Applying, Due: ago(5 * time.Hour), StartedAt: ago(10 * time.Minute), Failures: 3,
			FailingSince: ago(9 * time.Minute),
		},
		{State: rotation.Retiring, Failures: 1}, // stored by a release that did not note since when
		{State: rotation.Scheduled, StartedAt: ago(time.Hour), Target: "paused"},
		{State: rotation.Scheduled, StartedAt: ago(20 * time.Minute), Target: "paused", Trigger: rotation.Emergency},
		{State: rotation.InGrace, StartedAt: ago(48 * time.Hour), Failures: 1, Paused: true},
		{State: rotation.Quarantined, StartedAt: ago(72 * time.Hour), Failures: 1, Health: rotation.Health{ProbedAt: now}},
	} {
		put(func(tx *store.Tx) error {
			r := r
			r.Account, r.Secret = account, fmt.Sprintf("secret-%d", i)
			_, _, err := tx.Rotation(account, r.Secret)
			return errors.Join(err, tx.PutRotation(&r))
		})
	}
	put(func(tx *store.Tx) error {
		for _, target := range []store.Target{{Name: "open"}, {Name: "paused", Paused: true}} {
			target.Account, target.Config = account, []byte("{}")
			_, _, err := tx.Target(account, target.Name)
			if err := errors.Join(err, tx.PutTarget(target)); err != nil {
				return err
			}
		}
		return tx.PutEvent(store.Event{ID: "e1", Account: account, Secret: "secret-0", NextAt: now.Add(time.Hour)})
	})
	expect := func(want map[string]float64) {
		t.Helper()
		got := shown(t, newRotationMetrics(s.db, slog.New(slog.DiscardHandler)))
		for name, want := range want {
			slack := 0.0
			if strings.HasSuffix(name, "_seconds") { // it grows
				slack = 500
			}
			if v, ok := got[name]; !ok || v < want || v > want+slack {
				t.Errorf("%s is %v (shown: %t), want %v", name, v, ok, want)
			}
		}
	}
	expect(map[string]float64{
		"keyturn_rotations idle":           3,
		"keyturn_rotations quarantined":    1,
		"keyturn_rotations prepared":       0, // there is a row for each state
		"keyturn_rotations_failing":        2,
		"keyturn_rotation_failing_seconds": 540,
		"keyturn_rotations_overdue":        2, // one idle, one that is under way
		// The emergency: it does not wait for the end of the pause.
		"keyturn_rotation_oldest_seconds": 1200,
		"keyturn_rotations_paused secret": 2,
		"keyturn_rotations_paused target": 1,
		"keyturn_rotations_paused all":    0,
		"keyturn_credentials live":        1,
		"keyturn_credentials dead":        1,
		"keyturn_credentials unknown":     8,
		"keyturn_events_undelivered":      1,
	})
	put(func(tx *store.Tx) error { return tx.PauseAll(&rotation.Pause{Since: now}) })
	expect(map[string]float64{
		"keyturn_rotations_paused all": 1,
		"keyturn_rotations_overdue":    0,
	})
}

// TestRotationCountsWithoutAnswer verifies that figures that could not be read are absent and
// reported once, and that a scrape does not wait for another one that reads them.
func TestRotationCountsWithoutAnswer(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	m := newRotationMetrics(nil, slog.New(slog.NewTextHandler(&log, nil)))
	now := time.Now()
	scrape := func(after time.Duration, c counts, err error) int {
		m.count = func(context.Context, time.Time) (counts, error) { return c, err }
		now = now.Add(after)
		return len(m.current(now))
	}
	all := scrape(0, newCounts(), nil)
	if all == 0 {
		t.Fatal("no figures")
	}
	failure := errors.New("no answer")
	if n := scrape(time.Second, newCounts(), failure); n != all {
		t.Errorf("%d figures soon after a count, want %d", n, all)
	}
	for range 3 {
		if n := scrape(time.Hour, newCounts(), failure); n != 0 {
			t.Errorf("%d figures although the store does not answer", n)
		}
	}
	if n := strings.Count(log.String(), "no answer"); n != 1 {
		t.Errorf("reported %d times, want once: %s", n, log.String())
	}
	if n := scrape(time.Hour, newCounts(), nil); n != all {
		t.Errorf("%d figures once the store answers again, want %d", n, all)
	}
	scrape(time.Hour, newCounts(), failure)
	if n := strings.Count(log.String(), "no answer"); n != 2 {
		t.Errorf("reported %d times after a second failure, want twice", n)
	}
	scrape(time.Hour, newCounts(), nil)
	m.count = func(context.Context, time.Time) (counts, error) {
		if n := len(m.current(now)); n != all {
			t.Errorf("%d figures during a count, want the %d of the last one", n, all)
		}
		return newCounts(), nil
	}
	now = now.Add(time.Hour)
	m.current(now)
}
