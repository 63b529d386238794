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
	"github.com/keyturn/keyturn/consumer/consumermetrics"
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
	// Config is the file, LoadedAt when what is in force was read from it, ConfigError why the file as
	// it is now is not in force.
	Config      string    `json:"config"`
	LoadedAt    time.Time `json:"loaded_at"`
	ConfigError string    `json:"config_error,omitempty"`
	Warnings    []string  `json:"warnings,omitempty"`
	// NotReady is why the agent is not ready; empty if it is.
	NotReady string            `json:"not_ready,omitempty"`
	Serves   map[string]string `json:"serves,omitempty"`
	Secrets  []consumer.Status `json:"secrets"`
	Files    []FileStatus      `json:"files"`
	Counters consumer.Counters `json:"counters"`
}

func (a *agent) report() Report {
	out := Report{
		Endpoint: a.source.Endpoint(),
		Started:  a.started,
		Config:   a.options.Path,
		Secrets:  a.source.Status(),
		Files:    a.files(),
		Serves:   a.addresses(),
		Counters: a.source.Counters(),
	}
	if err := a.source.ready(); err != nil {
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
	out := make([]FileStatus, 0, len(a.writers))
	for _, k := range a.writers {
		out = append(out, k.Status())
	}
	slices.SortFunc(out, func(a, b FileStatus) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// page serves the state of the agent, as a page, as JSON and as metrics.
func (a *agent) page(anywhere bool) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collected{a}, consumermetrics.New(&a.source), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if err := statusPage.Execute(w, a.report()); err != nil {
			a.log.Debug("page not sent", "err", err)
		}
	})
	mux.HandleFunc("GET /status.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		_ = e.Encode(a.report()) // a caller that has gone needs no answer
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", healthz)
	mux.Handle("GET /readyz", readyz(&a.source))
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

// collected reads the agent's own metrics when they are asked for.
type collected struct{ a *agent }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("keyturn_agent_"+name, help, labels, nil)
}

var (
	fileOK       = describe("file_ok", "1 while the file is correct and its program was notified, else 0.", "path")
	fileRendered = describe("file_rendered_timestamp_seconds", "When the file was last found or made right.", "path")
	fileWrites   = describe("file_writes_total", "How often the file was written by this process.", "path")
	readyMetric  = describe("ready", "1 when the server has confirmed every secret, else 0.")
	configOK     = describe("config_ok", "1 while the configuration on disk is the one in force, else 0.")
)

// Describe sends the descriptions of all metrics.
func (c collected) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{fileOK, fileRendered, fileWrites, readyMetric, configOK} {
		ch <- d
	}
}

// Collect reads them.
func (c collected) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, f := range c.a.files() {
		gauge(fileOK, number(f.Error == "" && !f.RenderedAt.IsZero()), f.Path)
		if !f.RenderedAt.IsZero() {
			gauge(fileRendered, float64(f.RenderedAt.Unix()), f.Path)
		}
		ch <- prometheus.MustNewConstMetric(fileWrites, prometheus.CounterValue, float64(f.Writes), f.Path)
	}
	gauge(readyMetric, number(c.a.source.ready() == nil))
	c.a.mu.Lock()
	inForce := c.a.trouble == ""
	c.a.mu.Unlock()
	gauge(configOK, number(inForce))
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
