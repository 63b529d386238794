package server

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
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
		"Rotations under way whose last step has failed and is tried again later.", nil, nil)
	overdueDesc = prometheus.NewDesc("keyturn_rotations_overdue",
		"Scheduled rotations that should have begun more than an hour ago.", nil, nil)
	oldestDesc = prometheus.NewDesc("keyturn_rotation_oldest_seconds",
		"Age of the oldest rotation under way, without grace periods and quarantines; 0 if there is none.", nil, nil)
	pausedDesc = prometheus.NewDesc("keyturn_rotations_paused",
		"Paused secrets, paused targets, and 1 if all rotations are paused, by scope: secret, target, all.",
		[]string{"scope"}, nil)
	credentialsDesc = prometheus.NewDesc("keyturn_credentials",
		"Credentials in use by what the target said of them last: live, dead, unknown.", []string{"state"}, nil)
	undeliveredDesc = prometheus.NewDesc("keyturn_events_undelivered",
		"Events that a receiver does not have yet.", nil, nil)
)

// rotationMetrics counts rotations, pauses and events in the store. It shows nothing while the
// store cannot be read.
type rotationMetrics struct {
	db *store.DB

	mu      sync.Mutex
	figures []prometheus.Metric
	next    time.Time
}

// Describe implements prometheus.Collector.
func (m *rotationMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		rotationsDesc, failingDesc, overdueDesc, oldestDesc, pausedDesc, credentialsDesc, undeliveredDesc,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m *rotationMetrics) Collect(out chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if began := time.Now(); !began.Before(m.next) {
		ctx, cancel := context.WithTimeout(context.Background(), countLimit)
		defer cancel()
		c, err := count(store.Snapshot(ctx, m.db), began)
		m.figures = nil
		if err == nil {
			m.figures = c.metrics()
		}
		m.next = time.Now().Add(max(countEvery, countShare*time.Since(began)))
	}
	for _, f := range m.figures {
		out <- f
	}
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
}

func newCounts() counts {
	return counts{states: map[rotation.State]int{}, credentials: map[string]int{}, paused: map[string]int{}}
}

func count(tx *store.Tx, now time.Time) (counts, error) {
	c := newCounts()
	err := tx.AllRotations(func(r rotation.Record) bool {
		c.add(r, now)
		return true
	})
	if err != nil {
		return c, err
	}
	err = tx.AllTargets(func(t store.Target) bool {
		if t.Paused {
			c.paused[kms.PausedTarget]++
		}
		return true
	})
	if err != nil {
		return c, err
	}
	all, err := tx.AllPaused()
	if err != nil {
		return c, err
	}
	if all.Paused {
		c.paused[kms.PausedAll] = 1
	}
	c.undelivered, err = tx.CountEvents()
	return c, err
}

func (c *counts) add(r rotation.Record, now time.Time) {
	c.states[r.State]++
	c.credentials[r.Health.State()]++
	if r.Paused {
		c.paused[kms.PausedSecret]++
	}
	if r.CanHurry() {
		c.failing++
	}
	if !r.InFlight() && !r.Due.IsZero() && now.Sub(r.Due) > secret.Overdue {
		c.overdue++
	}
	if r.GoesOn() && r.State != rotation.InGrace && !r.StartedAt.IsZero() {
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
