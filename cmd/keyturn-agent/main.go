// Command keyturn-agent has the commands of keyturn that run beside applications: agent and exec.
// It links no server.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/keyturn/keyturn/internal/command"
)

const name = "keyturn-agent"

type commands struct {
	Agent   command.Agent `cmd:"" help:"Provide secrets to programs on this machine: files, HTTP, wire API."`
	Exec    command.Exec  `cmd:"" help:"Run a program with secrets in its environment."`
	Version version       `cmd:"" help:"Print the version."`
}

type version struct{}

func (version) Run(e *command.Env) error {
	_, err := fmt.Fprintln(e.Stdout, command.VersionLine(name))
	return err
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(&command.Env{Ctx: ctx, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(e *command.Env, args []string) int {
	parser := kong.Must(&commands{},
		kong.Name(name),
		kong.Description("Provides the secrets of a Keyturn server to programs."),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Vars{"profile_variable": command.ProfileVariable},
		kong.Bind(e),
	)
	if len(args) == 0 {
		args = []string{"--help"}
	}
	selected, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(e.Stderr, "%s: %s\n", name, command.Usage(name, err))
		return command.ExitUsage
	}
	return command.Report(e.Stderr, name, selected.Run())
}
