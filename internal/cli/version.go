package cli

import (
	"fmt"

	"github.com/alecthomas/kong"

	"github.com/keyturn/keyturn/internal/command"
)

type versionCommand struct{}

func (c *versionCommand) Run(e *env) error {
	_, err := fmt.Fprintln(e.stdout, versionLine())
	return err
}

func versionLine() string { return command.VersionLine("keyturn") }

// versionFlag is --version, which prints what `keyturn version` prints, and ends the program.
type versionFlag bool

// BeforeReset runs before commands and other flags are checked, as for --help.
func (versionFlag) BeforeReset(k *kong.Kong) error {
	if _, err := fmt.Fprintln(k.Stdout, versionLine()); err != nil {
		return err
	}
	k.Exit(exitOK)
	return nil
}
