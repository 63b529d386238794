// Package consumermetrics exports the counters of a [consumer.Consumer] and the state of its
// secrets to Prometheus. The metrics contain names of secrets, and no values.
package consumermetrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyturn/keyturn/consumer"
)

var states = [...]string{
	consumer.StateFresh,
	consumer.StateStale,
	consumer.StateExpired,
	consumer.StateAbsent,
	consumer.StateDenied,
	consumer.StateUnknown,
}

// Source is the source of the metrics. [consumer.Consumer] implements it.
type Source interface {
	Status() []consumer.Status
	Counters() consumer.Counters
}

type collector struct {
	source Source

	state, age, info, next, failures, push *prometheus.Desc

	refreshes, refreshFailures, stale, expired, pushes, polls, pollFailures, disk, logins *prometheus.Desc
}

// New returns a collector for one Consumer. A process with several registers each with
// [prometheus.WrapRegistererWith] and a label of its own.
func New(source Source) prometheus.Collector {
	of := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("keyturn_consumer_"+name, help, labels, nil)
	}
	return &collector{
		source:          source,
		state:           of("secret_state", "1 for the state that a secret is in.", "secret", "state"),
		age:             of("secret_age_seconds", "Time since the server last confirmed the value that is in use.", "secret"),
		info:            of("secret_version_info", "1 for the version that is in use.", "secret", "version", "source"),
		next:            of("secret_next_refresh_timestamp_seconds", "When a secret is read next.", "secret"),
		failures:        of("secret_failures", "Reads of a secret that have failed since the last success.", "secret"),
		push:            of("secret_push", "1 while changes of a secret are pushed.", "secret"),
		refreshes:       of("refreshes_total", "Reads of secrets that have succeeded."),
		refreshFailures: of("refresh_failures_total", "Reads of secrets that have failed."),
		stale:           of("stale_reads_total", "Values handed out though they were stale."),
		expired:         of("expired_reads_total", "Values not handed out because they were too old."),
		pushes:          of("pushes_total", "Changes that were pushed."),
		polls:           of("polls_total", "Long polls that were answered."),
		pollFailures:    of("poll_failures_total", "Long polls that have failed."),
		disk:            of("disk_failures_total", "Last known good values that could not be read or written."),
		logins:          of("logins_total", "Logins with secrets by outcome.", "outcome"),
	}
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.state, c.age, c.info, c.next, c.failures, c.push,
		c.refreshes, c.refreshFailures, c.stale, c.expired, c.pushes, c.polls, c.pollFailures, c.disk, c.logins,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, s := range c.source.Status() {
		for _, state := range states {
			gauge(c.state, number(s.State == state), s.Name, state)
		}
		gauge(c.failures, float64(s.Failures), s.Name)
		gauge(c.push, number(s.Push), s.Name)
		if s.VersionID != "" {
			gauge(c.age, s.AgeSeconds, s.Name)
			gauge(c.info, 1, s.Name, s.VersionID, s.Source)
		}
		if !s.NextRefresh.IsZero() {
			gauge(c.next, float64(s.NextRefresh.UnixMilli())/1000, s.Name)
		}
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	n := c.source.Counters()
	count(c.refreshes, n.Refreshes)
	count(c.refreshFailures, n.Failures)
	count(c.stale, n.StaleReads)
	count(c.expired, n.ExpiredReads)
	count(c.pushes, n.Pushes)
	count(c.polls, n.Polls)
	count(c.pollFailures, n.PollFailures)
	count(c.disk, n.DiskFailures)
	for outcome, v := range n.Logins {
		count(c.logins, v, outcome)
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
