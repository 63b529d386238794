// Command keyturn-demo starts a throw-away server, rotates real credentials under load, and checks
// each step.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"github.com/keyturn/keyturn/internal/demo"
)

// pace is the pause after each step at a terminal, so that a reader can follow.
const pace = 400 * time.Millisecond

type flags struct {
	Exit       bool   `help:"End when all steps are shown, with exit code 0 only if every step held."`
	Target     string `help:"Live system: postgres, openssh or ssh." enum:",postgres,openssh,ssh" default:""`
	Listen     string `help:"Address of the TLS listener." default:"127.0.0.1:0"`
	ListenHTTP string `name:"listen-http" help:"Address of the plain HTTP listener." default:"127.0.0.1:0"`
}

func main() {
	var f flags
	kong.Parse(&f,
		kong.Name("keyturn-demo"),
		kong.Description("Rotates real credentials on a throw-away server, step by step."),
		kong.Exit(exit),
	)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, f)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "keyturn-demo:", err)
		os.Exit(1)
	}
}

// exit turns every code of the parser but 0 into 2, the code of keyturn for a wrong command line.
func exit(code int) { os.Exit(min(code, 2)) }

func run(ctx context.Context, f flags) error {
	o := demo.Options{
		Out:        os.Stdout,
		Exit:       f.Exit,
		Target:     f.Target,
		Listen:     f.Listen,
		ListenHTTP: f.ListenHTTP,
	}
	if term.IsTerminal(int(os.Stdout.Fd())) {
		o.Color, o.Pace = true, pace
	}
	return demo.Run(ctx, o)
}
