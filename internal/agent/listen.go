package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	requestTime = 75 * time.Second // a long poll that is passed on takes 50 s
	headerTime  = 10 * time.Second
	idleTime    = 2 * time.Minute
	stopTime    = 5 * time.Second
	maxHeader   = 1 << 20
)

// place is where something is served.
type place struct {
	role    string // http, kms or status
	network string
	address string
	secure  bool
}

// listener serves one place. What it serves can be replaced while it runs.
type listener struct {
	place
	net         net.Listener
	socket      *socketFile // nil without one
	server      *http.Server
	handler     atomic.Pointer[http.Handler]
	certificate atomic.Pointer[tls.Certificate]
	done        chan struct{}
}

// open serves a place. mode applies to a Unix socket.
func open(p place, mode fs.FileMode, log *slog.Logger) (*listener, error) {
	l := &listener{place: p, done: make(chan struct{})}
	var n net.Listener
	var err error
	if p.network == "unix" {
		l.socket = new(socketFile)
		n, *l.socket, err = listenSocket(p.address, mode)
	} else {
		n, err = net.Listen(p.network, p.address)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.role, err)
	}
	l.net = n
	if p.secure {
		n = tls.NewListener(n, &tls.Config{
			MinVersion: tls.VersionTLS12,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				return l.certificate.Load(), nil
			},
		})
	}
	l.server = httpServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		(*l.handler.Load()).ServeHTTP(w, r)
	}))
	l.serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refused(w, http.StatusServiceUnavailable, "the agent is starting")
	}))
	go func() {
		defer close(l.done)
		if err := l.server.Serve(n); !errors.Is(err, http.ErrServerClosed) {
			log.Error("listener stopped", "serves", p.role, "err", err)
		}
	}()
	return l, nil
}

func httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:                      h,
		MaxHeaderBytes:               maxHeader,
		ReadHeaderTimeout:            headerTime,
		ReadTimeout:                  requestTime,
		WriteTimeout:                 requestTime,
		IdleTimeout:                  idleTime,
		DisableGeneralOptionsHandler: true,
		// Messages of net/http about single connections may quote a request, and any local program can
		// cause them at will.
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
}

func (l *listener) serve(h http.Handler) { l.handler.Store(&h) }

// close lets requests under way end, for a while.
func (l *listener) close() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if l.server.Shutdown(ctx) != nil {
		l.server.Close()
	}
	<-l.done
	if l.socket != nil {
		l.socket.remove()
	}
}

// where is the address at which programs find it.
func (l *listener) where() string {
	if l.socket != nil {
		return l.socket.path
	}
	return l.net.Addr().String()
}
