package cli

import (
	"fmt"
	"io"

	"github.com/keyturn/keyturn/kms"
)

// which is what to pause or probe: one thing, named.
type which struct {
	Name   string `arg:"" optional:"" help:"Name or ARN of a secret."`
	Target string `help:"All secrets at this target." placeholder:"NAME"`
	All    bool   `help:"All secrets."`
}

func (w which) request() (kms.PauseRotationRequest, error) {
	n := 0
	for _, given := range []bool{w.Name != "", w.Target != "", w.All} {
		if given {
			n++
		}
	}
	if n != 1 {
		return kms.PauseRotationRequest{}, coded{exitUsage, "give one of a secret's name, --target and --all"}
	}
	return kms.PauseRotationRequest{SecretName: w.Name, TargetName: w.Target}, nil
}

type rotationPause struct {
	which
}

func (c *rotationPause) Run(e *env) error {
	in, err := c.request()
	if err != nil {
		return err
	}
	return e.setPaused(in, true)
}

type rotationResume struct {
	which
}

func (c *rotationResume) Run(e *env) error {
	in, err := c.request()
	if err != nil {
		return err
	}
	return e.setPaused(in, false)
}

// pauseText says since when a pause holds and who asked for it.
func pauseText(p kms.RotationPause) string {
	text := ""
	if !p.PauseTime.IsZero() {
		text = " since " + when(p.PauseTime)
	}
	if p.Principal != "" {
		text += " by " + p.Principal
	}
	return text
}

// pauseLine says what a pause keeps from beginning, and the command that ends it.
func pauseLine(p kms.RotationPause, secret, target string) string {
	what, resume := "all rotations are paused", "keyturn rotation resume --all"
	switch p.Scope {
	case kms.PausedSecret:
		what, resume = "rotations of "+secret+" are paused", "keyturn rotation resume "+shellWord(secret)
	case kms.PausedTarget:
		what, resume = "rotations at target "+target+" are paused", "keyturn target resume "+shellWord(target)
	}
	return what + pauseText(p) + "; " + resume + " ends it"
}

// printAllPaused prints a line if all rotations are paused.
func printAllPaused(w io.Writer, list []kms.RotationPause) error {
	for _, p := range list {
		if p.Scope == kms.PausedAll {
			_, err := fmt.Fprintf(w, "PAUSED: %s.\n", escaped(pauseLine(p, "", ""), ""))
			return err
		}
	}
	return nil
}

func (e *env) setPaused(in kms.PauseRotationRequest, paused bool) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	of := "Rotations"
	switch {
	case in.SecretName != "":
		of = "Rotations of " + in.SecretName
	case in.TargetName != "":
		of = "Rotations at target " + in.TargetName
	}
	call, text := client.ResumeRotation, "%s may begin again."
	if paused {
		call, text = client.PauseRotation, "%s are paused; what is under way is finished."
	}
	out, err := call(e.ctx, &in)
	if err != nil {
		return err
	}
	return e.done(out, text, of)
}
