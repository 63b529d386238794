package agent

import (
	"embed"
	"encoding/json"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/keyturn/keyturn/consumer"
)

//go:embed status.html
var pages embed.FS

var statusPage = template.Must(template.New("status.html").Funcs(template.FuncMap{
	"ago": func(t time.Time) string {
		if t.IsZero() {
			return "never"
		}
		return time.Since(t).Round(time.Second).String() + " ago"
	},
	"until": func(t time.Time) string {
		if t.IsZero() {
			return "not planned"
		}
		return "in " + max(0, time.Until(t)).Round(time.Second).String()
	},
}).ParseFS(pages, "status.html"))

// Report is the state of an agent. It holds names and versions, and no value.
type Report struct {
	Endpoint string    `json:"endpoint"`
	Started  time.Time `json:"started"`
	// Config is the file, LoadedAt when what is in force was read from it, ConfigError why the file as it is now is not in force.
	Config      string    `json:"config"`
	LoadedAt    time.Time `json:"loaded_at"`
	ConfigError string    `json:"config_error,omitempty"`
	Warnings    []string  `json:"warnings,omitempty"`
	// NotReady says why the agent is not ready; empty when it is.
	NotReady string            `json:"not_ready,omitempty"`
	Serves   map[string]string `json:"serves,omitempty"`
	Secrets  []consumer.Status `json:"secrets"`
	Files    []FileStatus      `json:"files"`
	Counters consumer.Counters `json:"counters"`
}

func (a *agent) report(r *http.Request) Report {
	out := Report{Endpoint: a.hub.Endpoint(), Started: a.started, Config: a.options.Path, Secrets: a.hub.status(), Files: a.files(), Serves: a.addresses(),
		Counters: a.hub.state.Load().consumer.Counters()}
	if err := a.hub.ready(r.Context()); err != nil {
		out.NotReady = err.Error()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	out.LoadedAt, out.ConfigError = a.loadedAt, a.trouble
	if a.setup != nil {
		out.Warnings = a.setup.warnings
	}
	return out
}

func (a *agent) files() []FileStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]FileStatus, 0, len(a.keepers))
	for _, k := range a.keepers {
		out = append(out, k.Status())
	}
	slices.SortFunc(out, func(a, b FileStatus) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// page serves the state of the agent, as a page, as JSON and as metrics.
func (a *agent) page(anywhere bool) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collected{a}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if err := statusPage.Execute(w, a.report(r)); err != nil {
			a.log.Debug("page not sent", "err", err)
		}
	})
	mux.HandleFunc("GET /status.json", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		_ = e.Encode(a.report(r)) // a caller that has gone needs no answer
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", healthz)
	mux.Handle("GET /readyz", readyz(&a.hub))
	mux.HandleFunc("GET /startz", func(w http.ResponseWriter, r *http.Request) {
		if !a.complete.Load() {
			refused(w, http.StatusServiceUnavailable, "not every value is there and every file written yet")
			return
		}
		healthz(w, r)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refused(w, http.StatusNotFound, "there are /, /status.json, /metrics, /healthz, /readyz and /startz")
	})
	return local(anywhere, mux)
}

// collected reads the metrics when they are asked for.
type collected struct{ a *agent }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("keyturn_agent_"+name, help, labels, nil)
}

var (
	secretAge      = describe("secret_age_seconds", "Time since the server last said that the value is current.", "secret")
	secretInfo     = describe("secret_info", "Always 1; state, version and source of the value.", "secret", "state", "version", "source")
	secretNext     = describe("secret_next_refresh_timestamp_seconds", "When the value is read next, unless a push comes first.", "secret")
	secretPush     = describe("secret_push", "1 while changes of the secret are pushed, else 0.", "secret")
	secretFailures = describe("secret_failures", "Reads that have failed since the last success.", "secret")
	fileOK         = describe("file_ok", "1 while the file is as it should be and its program was told, else 0.", "path")
	fileRendered   = describe("file_rendered_timestamp_seconds", "When the file was last found or made right.", "path")
	fileWrites     = describe("file_writes_total", "How often the file was written by this process.", "path")
	readyMetric    = describe("ready", "1 when the server has confirmed every secret, else 0.")
	configOK       = describe("config_ok", "1 while the configuration on disk is the one in force, else 0.")
	readsMetric    = describe("reads_total", "Reads of values from the server, by outcome.", "outcome")
	servedMetric   = describe("served_late_total", "Values that were given though stale, or refused because expired.", "what")
	pollsMetric    = describe("polls_total", "Long polls for changes, by outcome.", "outcome")
	pushesMetric   = describe("pushes_total", "Changes that a long poll has brought.")
	diskMetric     = describe("disk_failures_total", "Last known values that could not be written or read.")
)

// Describe tells which metrics there are.
func (c collected) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		secretAge, secretInfo, secretNext, secretPush, secretFailures, fileOK, fileRendered, fileWrites, readyMetric, configOK, readsMetric,
		servedMetric, pollsMetric, pushesMetric, diskMetric,
	} {
		ch <- d
	}
}

// Collect reads them.
func (c collected) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	for _, s := range c.a.hub.status() {
		if !s.Confirmed.IsZero() {
			gauge(secretAge, s.AgeSeconds, s.Name)
		}
		gauge(secretInfo, 1, s.Name, s.State, s.VersionID, s.Source)
		if !s.NextRefresh.IsZero() {
			gauge(secretNext, float64(s.NextRefresh.Unix()), s.Name)
		}
		gauge(secretPush, number(s.Push), s.Name)
		gauge(secretFailures, float64(s.Failures), s.Name)
	}
	for _, f := range c.a.files() {
		gauge(fileOK, number(f.Error == "" && !f.RenderedAt.IsZero()), f.Path)
		if !f.RenderedAt.IsZero() {
			gauge(fileRendered, float64(f.RenderedAt.Unix()), f.Path)
		}
		count(fileWrites, uint64(f.Writes), f.Path)
	}
	gauge(readyMetric, number(c.a.hub.ready(nil) == nil))
	c.a.mu.Lock()
	inForce := c.a.trouble == ""
	c.a.mu.Unlock()
	gauge(configOK, number(inForce))
	n := c.a.hub.state.Load().consumer.Counters()
	count(readsMetric, n.Refreshes, "ok")
	count(readsMetric, n.Failures, "failed")
	count(servedMetric, n.StaleReads, "stale")
	count(servedMetric, n.ExpiredReads, "expired")
	count(pollsMetric, n.Polls, "ok")
	count(pollsMetric, n.PollFailures, "failed")
	count(pushesMetric, n.Pushes)
	count(diskMetric, n.DiskFailures)
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
