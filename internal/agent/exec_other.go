//go:build !unix

package agent

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/keyturn/keyturn/kms"
)

// ExitError says that the program could not be run, and the exit code that a shell has for it.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string { return e.Err.Error() }

// Exec needs Unix.
type Exec struct {
	Args, Env             []string
	Secrets               []EnvSecret
	OnChange              string
	Grace, Wait           time.Duration
	Server                kms.Config
	Interval, MaxStale    time.Duration
	LastGood              *LastGood
	Stdin, Stdout, Stderr *os.File
	Terminal              bool
	Log                   *slog.Logger
}

// Check refuses.
func (x *Exec) Check() error { return errUnix }

// Run refuses.
func (x *Exec) Run(context.Context) (int, error) { return 0, errUnix }
