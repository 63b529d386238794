package server

import (
	"net/http"
	"time"
)

// Handler is what the listeners serve.
func (s *Server) Handler() http.Handler { return s.handler() }

// ClockJumps returns a function that tells by how much a clock has jumped since it was called last.
func ClockJumps(now func() time.Time) func() time.Duration { return newClockWatch(now).jumped }

// ConnectionLimit is how many connections a process takes that may open so many files.
func ConnectionLimit(files uint64, wanted int) (int, error) { return connectionLimit(files, wanted) }
