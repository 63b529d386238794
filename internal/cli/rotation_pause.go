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

// which are the arguments of a command that is for one secret, for several, or for all at once: for
// a target, or for all, the server decides which these are.
type which struct {
	several
}

// atOnce returns the request of one call for all that the arguments name, if there is one.
func (w which) atOnce() (in kms.PauseRotationRequest, ok bool, err error) {
	name, alone, err := w.one()
	switch {
	case err != nil:
		return in, false, err
	case alone:
		return kms.PauseRotationRequest{SecretName: name}, true, nil
	}
	return kms.PauseRotationRequest{TargetName: string(w.Target)}, len(w.Names) == 0 && w.Tag == "" && !w.DryRun, nil
}

// notRotated says why a command does nothing for a secret that this service does not rotate.
func notRotated(r kms.ListedRotation) string {
	if r.TargetName == "" {
		return "it is not rotated"
	}
	return ""
}

type rotationPause struct {
	which
}

func (c *rotationPause) Run(e *env) error { return c.setPaused(e, "paused", true) }

type rotationResume struct {
	which
}

func (c *rotationResume) Run(e *env) error { return c.setPaused(e, "resumed", false) }

func (w which) setPaused(e *env, what string, paused bool) error {
	in, ok, err := w.atOnce()
	switch {
	case err != nil:
		return err
	case ok:
		return e.setPaused(in, paused)
	case len(w.Names) == 0 && w.Tag == "":
		return w.planPause(e, what, paused)
	}
	return w.run(e, action{what: what, skip: notRotated, do: func(e *env, name string) error {
		return e.setPaused(kms.PauseRotationRequest{SecretName: name}, paused)
	}}, true)
}

// planPause shows what a pause of a target or of all rotations, or its end, would do.
func (w which) planPause(e *env, what string, paused bool) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	scope := kms.PausedAll
	if w.Target != "" {
		scope = kms.PausedTarget
	}
	skip := notRotated
	if !paused {
		skip = func(r kms.ListedRotation) string {
			if slices.ContainsFunc(r.Pauses, func(p kms.RotationPause) bool { return p.Scope == scope }) {
				return ""
			}
			return "no such pause holds it"
		}
	}
	list, others, err := w.plan(e, client, skip)
	if err != nil {
		return err
	}
	if err := e.showPlan(action{what: what}, list, others); err != nil || e.json() {
		return err
	}
	whole, resume, _ := rotation.PauseText(scope, "", string(w.Target))
	text := "One pause holds " + whole + ", also of secrets that are attached later. " + resume + " ends it."
	if !paused {
		text = "Only the pause of " + whole + " would end. A secret that has a pause of its own stays paused."
	}
	_, err = fmt.Fprintln(e.stdout, fault.Text(text))
	return err
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
