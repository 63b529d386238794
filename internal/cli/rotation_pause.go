package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
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

// pauseLine says what a pause keeps from beginning, since when it holds, who asked for it, and
// which command ends it.
func pauseLine(p kms.RotationPause, secret, target string) string {
	since := ""
	if !p.PauseTime.IsZero() {
		since = " since " + when(p.PauseTime)
	}
	if p.Principal != "" {
		since += " by " + p.Principal
	}
	return rotation.PausedText(p, secret, target, since)
}

// pauseLines are the lines of the pauses in a list, each once.
type pauseLines []string

func (l *pauseLines) add(list []kms.RotationPause, secret, target string) {
	for _, p := range list {
		if line := pauseLine(p, secret, target); !slices.Contains(*l, line) {
			*l = append(*l, line)
		}
	}
}

// write prints the lines below the table that they belong to.
func (l *pauseLines) write(w io.Writer) error {
	if len(*l) == 0 {
		return nil
	}
	var text strings.Builder
	for _, line := range *l {
		fmt.Fprintf(&text, "\nPAUSED: %s.", escaped(line, ""))
	}
	_, err := fmt.Fprintln(w, text.String())
	return err
}

func (e *env) setPaused(in kms.PauseRotationRequest, paused bool) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	scope := kms.PausedAll
	switch {
	case in.SecretName != "":
		scope = kms.PausedSecret
	case in.TargetName != "":
		scope = kms.PausedTarget
	}
	what, _, _ := rotation.PauseText(scope, in.SecretName, in.TargetName)
	if paused {
		out, err := client.PauseRotation(e.ctx, &in)
		if err != nil {
			return err
		}
		paused := rotation.PausedText(kms.RotationPause{Scope: scope}, in.SecretName, in.TargetName, "")
		return e.done(out, "%s. A rotation that has begun is finished.", fault.Text(fault.Capital(paused)))
	}
	out, err := client.ResumeRotation(e.ctx, &in)
	switch {
	case err != nil:
		return err
	case out.NothingPaused:
		return e.done(out, "There was no pause of %s; keyturn rotation list shows all pauses.", what)
	}
	return e.done(out, "The pause of %s has ended. A rotation that is due begins within a minute, unless another pause "+
		"holds: keyturn rotation list shows all.", what)
}
