package server

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/auth"
)

// openHistory opens the history of used nonces. With a store that this start has made, no request
// can have been accepted before.
func (s *Server) openHistory(start time.Time) (err error) {
	if s.firstAdmin {
		start = time.Time{}
	}
	s.history, err = auth.OpenHistory(auth.HistoryConfig{
		Dir:      filepath.Join(s.config.DataDir, "nonces"),
		Boot:     bootID(),
		Identity: fileIdentity,
		Now:      s.config.Now,
		Start:    start,
		Log:      s.config.Logger,
	})
	return err
}

// bootID identifies the time since the machine was started; it is empty where the kernel does not
// provide it.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
