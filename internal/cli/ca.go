package cli

import (
	"fmt"

	"github.com/keyturn/keyturn/kms"
)

type caCommand struct {
	globals
	Rotate caRotate `cmd:"" help:"Create a new local CA, which takes over after an overlap."`
}

type caRotate struct {
	OverlapDays int `help:"Days during which the old CA stays in use." default:"30"`
}

func (c *caRotate) Run(e *env) error {
	if c.OverlapDays < 1 || c.OverlapDays > 365 {
		return coded{exitUsage, "--overlap-days must be 1 to 365; docs/operations.md, \"Rotate the local CA\", says how to " +
			"replace a stolen CA at once"}
	}
	client, err := e.connect()
	if err != nil {
		return err
	}
	out, err := client.RotateLocalCA(e.ctx, &kms.RotateLocalCARequest{OverlapDays: c.OverlapDays})
	if err != nil {
		return err
	}
	if e.json() {
		return printResponse(e.stdout, out)
	}
	fmt.Fprintf(e.stderr, "The new CA takes over at %s. Until then clients must trust this certificate too; "+
		"DATA_DIR/tls/ca.pem on the server holds both.\n", when(out.SwitchAt))
	_, err = fmt.Fprint(e.stdout, out.Certificate)
	return err
}
