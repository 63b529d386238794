package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"

	"github.com/keyturn/keyturn/internal/audit"
)

// Run serves until ctx ends or a part fails, then finishes the requests that are under way, for at
// most 5 seconds, and stops every part. It returns nil after an orderly stop.
func (s *Server) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	trailCtx, stopTrail := context.WithCancel(context.Background())
	defer stopTrail()
	var trail, parts sync.WaitGroup
	trail.Go(func() {
		if err := s.trail.Run(trailCtx); err != nil {
			stop(fmt.Errorf("audit trail: %w", err))
		}
	})
	<-s.trail.Ready()
	// The server does nothing that it cannot record, so it does not start without a record either.
	if err := s.noteStart(ctx); err != nil {
		stop(fmt.Errorf("record the start: %w", err))
	}
	s.storeRunning(ctx, true)
	stopSinks := s.forwardTrail()
	for _, loop := range s.loops() {
		parts.Go(func() { loop(ctx) })
	}
	servers := s.serve(ctx, &parts, stop)
	close(s.ready)
	<-ctx.Done()
	close(s.stopping)
	s.shutDown(servers)
	parts.Wait()
	if err := s.note(ctx, opStop, audit.Details{{Name: "node", Value: s.node()}}); err != nil {
		s.config.Logger.Warn("the stop could not be recorded", "err", err)
	}
	stopSinks()
	stopTrail()
	trail.Wait()
	s.storeRunning(context.WithoutCancel(ctx), false)
	var failure error
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		failure = cause
	}
	return errors.Join(failure, s.release())
}

// loops are the parts that run beside the listeners, each until its context ends.
func (s *Server) loops() []func(context.Context) {
	loops := []func(context.Context){
		s.headLoop,
		s.keepTrail,
		s.watchDisk,
		s.conns.Run,
		s.purgeLoop,
		s.gate.RunTallies,
		s.gate.RunHurries,
		s.keys.run,
		s.uses.Run,
		s.consumers.Run,
		s.markLoop,
		s.rotator.Run,
	}
	if s.own != nil {
		loops = append(loops, s.own.run)
	}
	if s.ca != nil {
		loops = append(loops, s.ca.run)
	}
	return loops
}

// serve accepts connections at every listener. A listener that fails stops the server.
func (s *Server) serve(ctx context.Context, parts *sync.WaitGroup, stop context.CancelCauseFunc) []*http.Server {
	var servers []*http.Server
	for _, l := range []net.Listener{s.tls, s.plain, s.pages} {
		if l == nil {
			continue
		}
		handler := s.handler()
		if l == s.pages {
			handler = s.operatorPages()
		}
		h := s.httpServer(ctx, handler)
		servers = append(servers, h)
		parts.Go(func() {
			if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				stop(fmt.Errorf("serve %s: %w", l.Addr(), err))
			}
		})
	}
	return servers
}
