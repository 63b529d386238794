package server

import "net/http"

// Handler is what the listeners serve.
func (s *Server) Handler() http.Handler { return s.handler() }
