package server

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyturn/keyturn/internal/rotation"
)

// TestRotationCounts verifies which rotation counts where.
func TestRotationCounts(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	c := newCounts()
	for _, r := range []rotation.Record{
		{State: rotation.Idle, Due: ago(2 * time.Hour)},
		{State: rotation.Done, Due: ago(30 * time.Minute), Health: rotation.Health{ProbedAt: now, Live: true}},
		{State: rotation.Applying, Due: ago(5 * time.Hour), StartedAt: ago(10 * time.Minute), Failures: 3},
		{State: rotation.InGrace, StartedAt: ago(48 * time.Hour), Failures: 1, Paused: true},
		{State: rotation.Quarantined, StartedAt: ago(72 * time.Hour), Failures: 1, Health: rotation.Health{ProbedAt: now}},
	} {
		c.add(r, now)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(shown(c.metrics()))
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
	for name, want := range map[string]float64{
		"keyturn_rotations idle":          1,
		"keyturn_rotations quarantined":   1,
		"keyturn_rotations prepared":      0, // there is a row for each state
		"keyturn_rotations_failing":       1,
		"keyturn_rotations_overdue":       1,
		"keyturn_rotation_oldest_seconds": 600,
		"keyturn_rotations_paused secret": 1,
		"keyturn_rotations_paused all":    0,
		"keyturn_credentials live":        1,
		"keyturn_credentials dead":        1,
		"keyturn_credentials unknown":     3,
		"keyturn_events_undelivered":      0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v (shown: %t), want %v", name, v, ok, want)
		}
	}
}

// shown are metrics that are what they are.
type shown []prometheus.Metric

// Describe implements prometheus.Collector.
func (shown) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (f shown) Collect(out chan<- prometheus.Metric) {
	for _, m := range f {
		out <- m
	}
}
