package server

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

// How often /metrics counts what the store has: a scrape in between shows the figures before.
const (
	countEvery = 10 * time.Second
	// countShare is the least time between two counts as a multiple of what the last one took.
	countShare = 20
	countLimit = 3 * time.Second
)

var (
	rotationsDesc = prometheus.NewDesc("keyturn_rotations",
		"Secrets that the service rotates, by the state of their rotation.", []string{"state"}, nil)
	failingDesc = prometheus.NewDesc("keyturn_rotations_failing",
		"Rotations under way that wait after a failed step, or for an administrator that was rejected.", nil, nil)
	failingForDesc = prometheus.NewDesc("keyturn_rotation_failing_seconds",
		"Time since a step failed first, of the rotation under way that has failed the longest; 0 if none fails.", nil, nil)
	overdueDesc = prometheus.NewDesc("keyturn_rotations_overdue",
		"Scheduled rotations that were due more than an hour ago, have not been made and are not paused.", nil, nil)
	oldestDesc = prometheus.NewDesc("keyturn_rotation_oldest_seconds",
		"Age of the oldest rotation under way; 0 if there is none. Grace periods, quarantines and rotations that wait "+
			"for the end of a pause do not count.", nil, nil)
	pausedDesc = prometheus.NewDesc("keyturn_rotations_paused",
		"Paused secrets, paused targets, and 1 if all rotations are paused, by scope: secret, target, all.",
		[]string{"scope"}, nil)
	credentialsDesc = prometheus.NewDesc("keyturn_credentials",
		"Credentials in use by what the target said of them last: live, dead, unknown.", []string{"state"}, nil)
	undeliveredDesc = prometheus.NewDesc("keyturn_events_undelivered",
		"Events that a receiver does not have yet.", nil, nil)
)

// rotationMetrics counts rotations, pauses and events in the store. It shows nothing after a count
// that has failed, until one succeeds.
type rotationMetrics struct {
	log *slog.Logger
	// count reads the figures at that time.
	count func(ctx context.Context, now time.Time) (counts, error)

	mu       sync.Mutex
	figures  []prometheus.Metric
	next     time.Time
	counting bool // by a scrape; others show the last figures meanwhile
	failed   bool // the last count
}

func newRotationMetrics(db *store.DB, log *slog.Logger) *rotationMetrics {
	return &rotationMetrics{log: log, count: func(ctx context.Context, now time.Time) (counts, error) {
		return count(store.Snapshot(ctx, db), now)
	}}
}

// Describe implements prometheus.Collector.
func (m *rotationMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		rotationsDesc, failingDesc, failingForDesc, overdueDesc, oldestDesc, pausedDesc, credentialsDesc, undeliveredDesc,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m *rotationMetrics) Collect(out chan<- prometheus.Metric) {
	for _, f := range m.current(time.Now()) {
		out <- f
	}
}

// current returns the figures, and counts anew if it is time and no other scrape is counting.
func (m *rotationMetrics) current(now time.Time) []prometheus.Metric {
	m.mu.Lock()
	figures, mine := m.figures, !m.counting && !now.Before(m.next)
	m.counting = m.counting || mine
	m.mu.Unlock()
	if !mine {
		return figures
	}
	ctx, cancel := context.WithTimeout(context.Background(), countLimit)
	defer cancel()
	began := time.Now()
	c, err := m.count(ctx, now)
	if figures = nil; err == nil {
		figures = c.metrics()
	}
	m.mu.Lock()
	report := err != nil && !m.failed
	m.figures, m.counting, m.failed = figures, false, err != nil
	m.next = now.Add(max(countEvery, countShare*time.Since(began)))
	m.mu.Unlock()
	if report {
		m.log.Error("the figures about rotations are absent from /metrics: the store could not be read", "err", err)
	}
	return figures
}

// counts are what the store has at one moment.
type counts struct {
	states      map[rotation.State]int
	credentials map[string]int
	paused      map[string]int
	failing     int
	overdue     int
	undelivered int
	oldest      time.Duration
	failingFor  time.Duration
}

func newCounts() counts {
	return counts{states: map[rotation.State]int{}, credentials: map[string]int{}, paused: map[string]int{}}
}

func count(tx *store.Tx, now time.Time) (counts, error) {
	c := newCounts()
	all, err := tx.AllPaused()
	if err != nil {
		return c, err
	}
	if all.Paused {
		c.paused[kms.PausedAll] = 1
	}
	type name struct{ account, target string }
	paused := map[name]bool{}
	err = tx.AllTargets(func(t store.Target) bool {
		if t.Paused {
			paused[name{t.Account, t.Name}] = true
			c.paused[kms.PausedTarget]++
		}
		return true
	})
	if err != nil {
		return c, err
	}
	err = tx.AllRotations(func(r rotation.Record) bool {
		c.add(r, all.Paused || paused[name{r.Account, r.Target}], now)
		return true
	})
	if err != nil {
		return c, err
	}
	c.undelivered, err = tx.CountEvents()
	return c, err
}

// add counts a rotation. paused says that the rotations of its target, or all, are paused.
func (c *counts) add(r rotation.Record, paused bool, now time.Time) {
	c.states[r.State]++
	c.credentials[r.Health.State()]++
	if r.Paused {
		c.paused[kms.PausedSecret]++
	}
	if r.CanHurry() {
		c.failing++
		if !r.FailingSince.IsZero() {
			c.failingFor = max(c.failingFor, now.Sub(r.FailingSince))
		}
	}
	if r.IsOverdue(paused, now) {
		c.overdue++
	}
	waits := r.State == rotation.InGrace || r.State.Step() == rotation.Prepare && r.AwaitsResume(paused)
	if r.GoesOn() && !waits && !r.StartedAt.IsZero() {
		c.oldest = max(c.oldest, now.Sub(r.StartedAt))
	}
}

func (c *counts) metrics() (list []prometheus.Metric) {
	add := func(d *prometheus.Desc, value float64, labels ...string) {
		list = append(list, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...))
	}
	for _, s := range rotation.States() {
		add(rotationsDesc, float64(c.states[s]), string(s))
	}
	add(failingDesc, float64(c.failing))
	add(failingForDesc, c.failingFor.Seconds())
	add(overdueDesc, float64(c.overdue))
	add(oldestDesc, c.oldest.Seconds())
	for _, scope := range []string{kms.PausedSecret, kms.PausedTarget, kms.PausedAll} {
		add(pausedDesc, float64(c.paused[scope]), scope)
	}
	for _, s := range []string{rotation.CredentialLive, rotation.CredentialDead, rotation.CredentialUnknown} {
		add(credentialsDesc, float64(c.credentials[s]), s)
	}
	add(undeliveredDesc, float64(c.undelivered))
	return list
}
