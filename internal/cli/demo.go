package cli

import (
	"time"

	"github.com/keyturn/keyturn/internal/demo"
)

// pace lets people read along.
const pace = 400 * time.Millisecond

type demoCommand struct {
	Exit       bool   `help:"End when all is shown, with exit code 0 only if all of it held."`
	Target     string `help:"Live system to rotate: postgres, openssh or ssh (a host inside this process). Left out: PostgreSQL if the machine has it." enum:",postgres,openssh,ssh" default:""`
	Listen     string `help:"Address of the TLS listener." default:"127.0.0.1:0"`
	ListenHTTP string `name:"listen-http" help:"Address of the plain HTTP listener." default:"127.0.0.1:0"`
}

func (c *demoCommand) Run(e *env) error {
	o := demo.Options{
		Out: e.stdout, Exit: c.Exit, Target: c.Target, Color: isTerminal(e.stdout), Listen: c.Listen, ListenHTTP: c.ListenHTTP,
	}
	if isTerminal(e.stdout) {
		o.Pace = pace
	}
	return demo.Run(e.ctx, o)
}
