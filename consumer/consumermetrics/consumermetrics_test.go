package consumermetrics

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/keyturn/keyturn/consumer"
)

type fixed struct{}

func (fixed) Status() []consumer.Status {
	return []consumer.Status{
		{
			Name:        "db",
			State:       consumer.StateStale,
			VersionID:   "v2",
			Source:      consumer.SourceDisk,
			AgeSeconds:  90,
			NextRefresh: time.Unix(1000, 5e8),
			Failures:    3,
			Push:        true,
		},
		{Name: "none", State: consumer.StateAbsent},
	}
}

func (fixed) Counters() consumer.Counters {
	return consumer.Counters{
		Refreshes: 1, Failures: 2, StaleReads: 3, ExpiredReads: 4, Pushes: 5, Polls: 6, PollFailures: 7, DiskFailures: 8,
		Logins: map[string]uint64{consumer.LoginCandidate: 9, consumer.LoginLimited: 10},
	}
}

func TestCollect(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(New(fixed{})); err != nil {
		t.Fatal(err)
	}
	const want = `
# HELP keyturn_consumer_disk_failures_total Last known good values that could not be read or written.
# TYPE keyturn_consumer_disk_failures_total counter
keyturn_consumer_disk_failures_total 8
# HELP keyturn_consumer_expired_reads_total Values not handed out because they were too old.
# TYPE keyturn_consumer_expired_reads_total counter
keyturn_consumer_expired_reads_total 4
# HELP keyturn_consumer_logins_total Logins with secrets by outcome.
# TYPE keyturn_consumer_logins_total counter
keyturn_consumer_logins_total{outcome="candidate"} 9
keyturn_consumer_logins_total{outcome="limited"} 10
# HELP keyturn_consumer_poll_failures_total Long polls that have failed.
# TYPE keyturn_consumer_poll_failures_total counter
keyturn_consumer_poll_failures_total 7
# HELP keyturn_consumer_polls_total Long polls that were answered.
# TYPE keyturn_consumer_polls_total counter
keyturn_consumer_polls_total 6
# HELP keyturn_consumer_pushes_total Changes that were pushed.
# TYPE keyturn_consumer_pushes_total counter
keyturn_consumer_pushes_total 5
# HELP keyturn_consumer_refresh_failures_total Reads of secrets that have failed.
# TYPE keyturn_consumer_refresh_failures_total counter
keyturn_consumer_refresh_failures_total 2
# HELP keyturn_consumer_refreshes_total Reads of secrets that have succeeded.
# TYPE keyturn_consumer_refreshes_total counter
keyturn_consumer_refreshes_total 1
# HELP keyturn_consumer_secret_age_seconds Time since the server last confirmed the value that is in use.
# TYPE keyturn_consumer_secret_age_seconds gauge
keyturn_consumer_secret_age_seconds{secret="db"} 90
# HELP keyturn_consumer_secret_failures Reads of a secret that have failed since the last success.
# TYPE keyturn_consumer_secret_failures gauge
keyturn_consumer_secret_failures{secret="db"} 3
keyturn_consumer_secret_failures{secret="none"} 0
# HELP keyturn_consumer_secret_next_refresh_timestamp_seconds When a secret is read next.
# TYPE keyturn_consumer_secret_next_refresh_timestamp_seconds gauge
keyturn_consumer_secret_next_refresh_timestamp_seconds{secret="db"} 1000.5
# HELP keyturn_consumer_secret_push 1 while changes of a secret are pushed.
# TYPE keyturn_consumer_secret_push gauge
keyturn_consumer_secret_push{secret="db"} 1
keyturn_consumer_secret_push{secret="none"} 0
# HELP keyturn_consumer_secret_state 1 for the state that a secret is in.
# TYPE keyturn_consumer_secret_state gauge
keyturn_consumer_secret_state{secret="db",state="absent"} 0
keyturn_consumer_secret_state{secret="db",state="denied"} 0
keyturn_consumer_secret_state{secret="db",state="expired"} 0
keyturn_consumer_secret_state{secret="db",state="fresh"} 0
keyturn_consumer_secret_state{secret="db",state="stale"} 1
keyturn_consumer_secret_state{secret="db",state="unknown"} 0
keyturn_consumer_secret_state{secret="none",state="absent"} 1
keyturn_consumer_secret_state{secret="none",state="denied"} 0
keyturn_consumer_secret_state{secret="none",state="expired"} 0
keyturn_consumer_secret_state{secret="none",state="fresh"} 0
keyturn_consumer_secret_state{secret="none",state="stale"} 0
keyturn_consumer_secret_state{secret="none",state="unknown"} 0
# HELP keyturn_consumer_secret_version_info 1 for the version that is in use.
# TYPE keyturn_consumer_secret_version_info gauge
keyturn_consumer_secret_version_info{secret="db",source="disk",version="v2"} 1
# HELP keyturn_consumer_stale_reads_total Values handed out though they were stale.
# TYPE keyturn_consumer_stale_reads_total counter
keyturn_consumer_stale_reads_total 3
`
	answer := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	if diff := cmp.Diff(strings.TrimSpace(want), strings.TrimSpace(answer.Body.String())); diff != "" {
		t.Error(diff)
	}
}
