package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/kms"
)

const (
	defaultGrace = 10 * time.Second
	defaultWait  = 30 * time.Second
)

// Exec says what keyturn exec runs, and what it does when a secret changes.
type Exec struct {
	// Args are the program and its arguments. Env is the environment that the secrets are added to.
	Args    []string
	Env     []string
	Secrets []EnvSecret
	// Allow names the variables that secrets without a prefix may set, see [Environment].
	Allow []string
	// OnChange is restart, ignore, or signal: and the name of a signal; empty means restart.
	OnChange string
	// Grace is how long the program has to end before it is killed, for a restart; 0 means 10 seconds.
	Grace time.Duration
	// Wait is how long the first values may take; 0 means 30 seconds.
	Wait time.Duration
	// Server describes how the server is reached.
	Server kms.Config
	// Interval and MaxStale are as in an agent's configuration, and so is LastGood.
	Interval, MaxStale time.Duration
	LastGood           *LastGood
	// Stdin, Stdout and Stderr are passed on to the program.
	Stdin, Stdout, Stderr *os.File
	// Terminal reports that Stdin is a terminal, which sends its signals to the program itself.
	Terminal bool
	Log      *slog.Logger
}

// Check reports every mistake at once. It contacts no server.
func (x *Exec) Check() error {
	_, err := x.child()
	return err
}

func (x *Exec) child() (*child, error) {
	var m mistakes
	c := &child{
		args:     x.Args,
		base:     x.Env,
		secrets:  x.Secrets,
		allowed:  x.Allow,
		grace:    cmp.Or(x.Grace, defaultGrace),
		terminal: x.Terminal,
		log:      x.Log,
		onChange: cmp.Or(x.OnChange, "restart"),
		files:    []uintptr{x.Stdin.Fd(), x.Stdout.Fd(), x.Stderr.Fd()},
	}
	if len(x.Args) == 0 {
		m.add("command", "is required, after --")
	}
	if len(x.Secrets) == 0 {
		m.add("--secret", "is required: NAME=PREFIX")
	}
	if err := CheckAllowed(x.Secrets, x.Allow); err != nil {
		m.list = append(m.list, strings.Split(err.Error(), "\n")...)
	}
	if name, ok := cutSignal(c.onChange); ok {
		var err error
		if c.signal, err = signalNamed(name); err != nil {
			m.add("--on-change", "the signal %v", err)
		}
		c.onChange = "signal"
	} else if c.onChange != "restart" && c.onChange != "ignore" {
		m.add("--on-change", "must be restart, ignore or signal:NAME")
	}
	if x.Grace < 0 || x.Wait < 0 || x.Interval < 0 || x.MaxStale < 0 {
		m.add("--grace, --wait, --interval, --max-stale", "must not be negative")
	}
	if x.LastGood != nil {
		s := &setup{Config: Config{LastGood: x.LastGood}}
		s.checkLastGood(&m)
	}
	return c, m.err()
}

func cutSignal(s string) (string, bool) {
	const before = "signal:"
	if len(s) < len(before) || s[:len(before)] != before {
		return "", false
	}
	return s[len(before):], true
}

// Run runs the program to its end, and returns its exit code: its own, or 128 and the number of the
// signal that ended it. An *ExitError has the code for a program that could not be started.
func (x *Exec) Run(ctx context.Context) (int, error) {
	c, err := x.child()
	if err != nil {
		return 0, err
	}
	if err := c.find(); err != nil {
		return 0, err
	}
	h, err := x.source(ctx)
	if err != nil {
		return 0, err
	}
	defer func() {
		if err := h.state.Load().consumer.Close(); err != nil {
			x.Log.Warn("consumer not closed", "err", err)
		}
	}()
	wait, cancel := context.WithTimeoutCause(ctx, cmp.Or(x.Wait, defaultWait),
		errors.New("the time to wait for the first values is over"))
	defer cancel()
	if err := h.complete(wait, true); err != nil {
		return 0, fmt.Errorf("%s is not started: %w", x.Args[0], err)
	}
	told, stop := h.state.Load().consumer.Changes()
	defer stop()
	c.world, c.changed = h, told
	return c.run(ctx)
}

func (x *Exec) source(ctx context.Context) (*secretSource, error) {
	client, err := consumer.NewClient(x.Server)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range x.Secrets {
		names = append(names, s.Name)
	}
	c, err := consumer.New(ctx, consumer.Config{
		Client:   client,
		Secrets:  names,
		Interval: x.Interval,
		MaxStale: x.MaxStale,
		LastGood: x.LastGood.open(),
		Logger:   x.Log,
	})
	if err != nil {
		return nil, err
	}
	h := &secretSource{}
	h.state.Store(&backend{c, client, names, false})
	return h, nil
}

// stopped is the exit code of who was stopped by a signal before the program ran.
const stopped = 128 + int(syscall.SIGTERM)
