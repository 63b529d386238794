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
	"os"
	"sync/atomic"
	"syscall"
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
	server      *http.Server
	handler     atomic.Pointer[http.Handler]
	certificate atomic.Pointer[tls.Certificate]
	done        chan struct{}
}

func open(p place, log *slog.Logger) (*listener, error) {
	n, err := p.listen()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.role, err)
	}
	l := &listener{place: p, net: n, done: make(chan struct{})}
	if p.secure {
		n = tls.NewListener(n, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return l.certificate.Load(), nil
		}})
	}
	l.server = &http.Server{
		Handler:        http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*l.handler.Load()).ServeHTTP(w, r) }),
		MaxHeaderBytes: maxHeader, ReadHeaderTimeout: headerTime, ReadTimeout: requestTime, WriteTimeout: requestTime, IdleTimeout: idleTime,
		DisableGeneralOptionsHandler: true,
		// What net/http says of single connections may quote a request, and any program of this machine can cause it at will.
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
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

func (p place) listen() (net.Listener, error) {
	if p.network != "unix" {
		return net.Listen(p.network, p.address)
	}
	if err := removeSocket(p.address); err != nil {
		return nil, err
	}
	// Until its mode is set the socket has the one that the umask leaves; the token is asked for in any case.
	return net.Listen("unix", p.address)
}

// removeSocket removes a socket that nobody listens on any more, as after a crash.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is no socket", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("another process listens on %s", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
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
}
