package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/keyturn/keyturn/internal/api/rpc"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/conns"
	"github.com/keyturn/keyturn/internal/policy"
)

const (
	maxHeader       = 1 << 20 // of the request line and the headers: values travel in the query
	requestTimeout  = 30 * time.Second
	idleTimeout     = time.Minute
	shutdownTimeout = 5 * time.Second
	readyTimeout    = 2 * time.Second
	maxStreams      = 64        // of one HTTP/2 connection; a client that needs more opens another
	maxReceive      = 256 << 10 // of the bodies of one HTTP/2 connection that were not read yet
	maxMetrics      = 2         // scrapes at the same time
)

// shutDown waits for requests under way, for at most shutdownTimeout, and then closes their
// connections: a client may have stopped sending.
func (s *Server) shutDown(servers []*http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	var all sync.WaitGroup
	for _, h := range servers {
		all.Go(func() {
			if h.Shutdown(ctx) != nil {
				s.config.Logger.Warn("requests were cut off: their clients were too slow")
				_ = h.Close() // what it reports, Shutdown has reported
			}
		})
	}
	all.Wait()
}

func (s *Server) httpServer(ctx context.Context, handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: s.config.RequestTimeout / 3,
		ReadTimeout:       s.config.RequestTimeout,
		WriteTimeout:      s.config.RequestTimeout,
		IdleTimeout:       idleTimeout,
		ConnContext:       s.conns.ConnContext,
		ConnState:         s.conns.ConnState,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          maxStreams,
			MaxReceiveBufferPerConnection: maxReceive,
			MaxReceiveBufferPerStream:     maxReceive / 2,
			SendPingTimeout:               idleTimeout,
			WriteByteTimeout:              s.config.RequestTimeout,
		},
		DisableGeneralOptionsHandler: true, // or "OPTIONS *" were a success
		// Requests under way are finished when the server stops, so they do not hang on its context.
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
		ErrorLog:    slog.NewLogLogger(quiet{s.config.Logger.Handler()}, slog.LevelDebug),
	}
}

// quiet drops the messages of net/http about single connections: they may quote a request, and an
// anonymous client can cause them at will.
type quiet struct{ slog.Handler }

func (quiet) Handle(context.Context, slog.Record) error { return nil }

// operatorPages need no signature and show no secret.
func (s *Server) operatorPages() *http.ServeMux {
	m := http.NewServeMux()
	m.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	m.HandleFunc("/readyz", s.readyz)
	m.Handle("/metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxMetrics}))
	return m
}

// handler serves the operator's pages at their paths and the API at all others. Metrics are served
// to this machine only, or by a listener of their own.
func (s *Server) handler() http.Handler {
	door := &rpc.Door{
		Gate:     s.gate,
		Auth:     s.auth,
		Log:      s.config.Logger,
		Limit:    s.limit,
		Now:      s.config.Now,
		Observe:  s.metrics.observe,
		NewID:    s.config.NewID,
		Origin:   s.config.Proxies.Origin,
		Admit:    conns.Verified,
		Refusals: s.refusals,
		Useless:  s.useless,
	}
	pages := s.operatorPages()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/metrics":
			source, _, err := s.config.Proxies.Origin(r)
			if err != nil || s.pages != nil || !source.IsLoopback() {
				break
			}
			fallthrough
		case "/healthz", "/readyz":
			if s.paced(w, r) {
				pages.ServeHTTP(w, r)
			}
			return
		}
		door.ServeHTTP(w, r)
	})
}

// paced delays a page that is asked for too often. It returns false when it has answered instead.
func (s *Server) paced(w http.ResponseWriter, r *http.Request) bool {
	source, _, err := s.config.Proxies.Origin(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return false
	}
	if !s.refusals.Wait(r.Context(), conns.Source(source).String()) {
		w.Header().Set("Connection", "close")
		http.Error(w, "too many requests", http.StatusTooManyRequests)
		return false
	}
	return true
}

// readyz answers 200 when a linearizable read succeeds and the trail takes records: a call would be
// served.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	if err := s.db.Ready(ctx); err != nil {
		http.Error(w, "the store does not answer", http.StatusServiceUnavailable)
		return
	}
	if s.trail.Failing() && s.trail.Append(ctx, auditProbe, true) != nil {
		http.Error(w, "the audit trail cannot be written", http.StatusServiceUnavailable)
		return
	}
	if s.heads.age() > maxHeadAge {
		http.Error(w, "the store does not take the head of the audit trail", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// auditProbe is written by readyz while the trail fails: only writing a record shows whether
// records can be written again.
var auditProbe = audit.Record{Phase: audit.Call, Operation: "audit.probe", PrincipalType: string(policy.KindSystem)}
