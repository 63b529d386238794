package server

import (
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/rotator"
	"github.com/keyturn/keyturn/internal/store"
)

// metrics is what /metrics shows. No label holds the name of a secret or of a caller.
type metrics struct {
	registry  *prometheus.Registry
	requests  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	rotations *prometheus.CounterVec
	promotion prometheus.Histogram
	leading   prometheus.Gauge

	// successes holds what most calls count, operation -> observed: finding a metric by its labels
	// costs more than counting.
	successes sync.Map
}

// success is the code of a call that has none.
const success = "OK"

// observed are the metrics of the calls of one operation that succeed.
type observed struct {
	count   prometheus.Counter
	seconds prometheus.Observer
}

func newMetrics(s *Server) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keyturn_requests_total", Help: "Requests by operation and by code; OK for success.",
		}, []string{"operation", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "keyturn_request_seconds",
			Help:    "Time from a decoded request to its answer.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"operation"}),
		rotations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keyturn_rotation_steps_total", Help: "Steps of rotations by what happened and by the state that followed.",
		}, []string{"event", "state"}),
		promotion: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "keyturn_rotation_seconds",
			Help:    "Time from the beginning of a rotation to its promotion.",
			Buckets: []float64{.025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200},
		}),
		leading: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "keyturn_rotation_leading", Help: "1 while this node rotates, else 0.",
		}),
	}
	m.registry.MustRegister(
		m.requests, m.seconds, m.rotations, m.promotion, m.leading,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	m.registry.MustRegister(serverMetrics(s)...)
	m.registry.MustRegister(newRotationMetrics(s.db, s.config.Logger))
	m.registry.MustRegister(trailMetrics(s)...)
	for _, f := range s.sinks {
		m.registry.MustRegister(sinkMetrics(f)...)
	}
	return m
}

// gauge and counter are metrics whose values are computed when they are read.
func gauge(name, help string, value func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
}

func counter(name, help string, value func() float64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value)
}

// sometimes returns a gauge that is absent while value returns false: a number in its place would
// trigger alerts.
func sometimes(name, help string, value func() (float64, bool)) prometheus.Collector {
	return optionalGauge{prometheus.NewDesc(name, help, nil, nil), value}
}

type optionalGauge struct {
	desc  *prometheus.Desc
	value func() (float64, bool)
}

// Describe implements prometheus.Collector.
func (g optionalGauge) Describe(out chan<- *prometheus.Desc) { out <- g.desc }

// Collect implements prometheus.Collector.
func (g optionalGauge) Collect(out chan<- prometheus.Metric) {
	if value, ok := g.value(); ok {
		out <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, value)
	}
}

// flag returns a value of 1 while is returns true, else 0.
func flag(is func() bool) func() float64 {
	return func() float64 {
		if is() {
			return 1
		}
		return 0
	}
}

// serverMetrics returns the metrics of connections and of the store.
func serverMetrics(s *Server) []prometheus.Collector {
	return []prometheus.Collector{
		gauge("keyturn_nonces", "Used nonces that are remembered.",
			func() float64 { return float64(s.auth.Nonces()) }),
		gauge("keyturn_watching", "Consumers that wait for a change at this node.",
			func() float64 { return float64(s.db.Following()) }),
		gauge("keyturn_connections", "Open connections of all listeners.",
			func() float64 { return float64(s.conns.Figures().Open) }),
		counter("keyturn_connections_refused_total", "Connections that were closed when they came.",
			func() float64 { return float64(s.conns.Figures().Rejected) }),
		counter("keyturn_connections_evicted_total", "Connections that were closed to make room for others.",
			func() float64 { return float64(s.conns.Figures().Evicted) }),
		gauge("keyturn_store_restored",
			"1 when this process has found at its start that the store was restored from a copy.",
			flag(func() bool { return s.restored != "" })),
		sometimes("keyturn_certificate_expiry_timestamp_seconds",
			"Unix time at which the operator's certificate, or the local CA, expires; absent without TLS.",
			s.certificateExpiry),
		build(s.config.Version),
		gauge("keyturn_changes_refused", "1 while the embedded store has no room for changes.",
			flag(func() bool { return s.db.Refusing() != "" })),
	}
}

// build returns a metric that says which program this is.
func build(version string) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "keyturn_build_info",
		Help:        "1, with the version of the server and of Go.",
		ConstLabels: prometheus.Labels{"version": version, "go": runtime.Version()},
	}, func() float64 { return 1 })
}

// certificateExpiry returns the Unix time from which on clients cannot trust the TLS listener;
// false without one.
func (s *Server) certificateExpiry() (at float64, ok bool) {
	switch {
	case s.own != nil:
		return float64(s.own.leaf().NotAfter.Unix()), true
	case s.ca != nil:
		return float64(s.ca.signer().NotAfter.Unix()), true // its certificates are renewed in time
	}
	return 0, false
}

// trailMetrics returns the metrics of the audit trail.
func trailMetrics(s *Server) []prometheus.Collector {
	return []prometheus.Collector{
		counter("keyturn_audit_losses_total", "Losses of records that this process has found in the audit trail.",
			func() float64 { return float64(s.trail.Losses()) }),
		counter("keyturn_audit_damaged_total",
			"Finished segments of the audit trail that this process has found changed.",
			func() float64 { return float64(s.trail.Damaged()) }),
		gauge("keyturn_audit_head_age_seconds", "Time since the store had the newest head of the audit trail.",
			func() float64 { return s.heads.age().Seconds() }),
		gauge("keyturn_audit_bytes", "Size of the audit trail on disk.",
			func() float64 { return float64(s.trail.Bytes()) }),
		sometimes("keyturn_audit_disk_free_bytes",
			"Free space on the disk of the audit trail; absent while that is not known.",
			func() (float64, bool) {
				free, ok := store.FreeSpace(s.config.AuditDir)
				return float64(free), ok
			}),
	}
}

// sinkMetrics returns the metrics of one sink of the audit trail.
func sinkMetrics(f *audit.Forwarder) []prometheus.Collector {
	labels := prometheus.Labels{"sink": f.Name()}
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "keyturn_audit_sink_lag_records",
			Help:        "Records on disk that the sink does not have yet.",
			ConstLabels: labels,
		}, func() float64 { return float64(f.Lag()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name:        "keyturn_audit_sink_missed_records_total",
			Help:        "Records that the sink did not get, because the trail on disk no longer had them as they were written.",
			ConstLabels: labels,
		}, func() float64 { return float64(f.Missed()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "keyturn_audit_sink_down",
			Help:        "1 while the sink does not take records, else 0.",
			ConstLabels: labels,
		}, flag(f.Down)),
	}
}

// observe counts one call. operation is one that exists, or empty.
func (m *metrics) observe(operation, code string, took time.Duration) {
	if operation == "" {
		operation = "none"
	}
	if code != success {
		m.requests.WithLabelValues(operation, code).Inc()
		m.seconds.WithLabelValues(operation).Observe(took.Seconds())
		return
	}
	o, found := m.successes.Load(operation)
	if !found {
		o, _ = m.successes.LoadOrStore(operation,
			observed{m.requests.WithLabelValues(operation, code), m.seconds.WithLabelValues(operation)})
	}
	o.(observed).count.Inc()
	o.(observed).seconds.Observe(took.Seconds())
}

// Moved counts the steps of the rotation engine.
func (m *metrics) Moved(e rotator.Event) {
	m.rotations.WithLabelValues(string(e.Kind), string(e.State)).Inc()
	if e.Took > 0 {
		m.promotion.Observe(e.Took.Seconds())
	}
}

// Leading records whether this node rotates.
func (m *metrics) Leading(yes bool) {
	if yes {
		m.leading.Set(1)
	} else {
		m.leading.Set(0)
	}
}
