package cli

import (
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/kms"
)

type rotationRetry struct {
	several
	following
}

// Help says what the command does not do.
func (*rotationRetry) Help() string {
	return "Tries again now the step of a rotation that has failed and waits for another try, for example after the " +
		"target was fixed. A step is tried at most once a minute, so this may wait until then. A rotation that waits for " +
		"its grace period, a window or a pause goes on waiting."
}

func (c *rotationRetry) Run(e *env) error {
	name, alone, err := c.one()
	switch {
	case err != nil:
		return err
	case alone:
		return c.retry(e, name)
	}
	return c.run(e, action{what: "tried again", skip: waitsForNothing, do: c.retry}, true)
}

func (c *rotationRetry) retry(e *env, name string) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	before, err := e.readable(client, name)
	if err != nil {
		return err
	}
	if before.State == kms.RotationQuarantined {
		return coded{exitFailed, before.SecretName + ": " + waitsForNothing(listed(before))}
	}
	out, err := client.RepairRotation(e.ctx, &kms.RepairRotationRequest{SecretName: name, RepairAction: kms.RepairProbe})
	switch {
	case err != nil:
		return err
	case !c.Wait:
		text := "The step is tried now"
		switch waits := !out.NextAttemptTime.IsZero() && out.WaitsFor != ""; {
		case waits && out.NextAttemptTime.Equal(before.NextAttemptTime):
			text = "Nothing is tried sooner, because a step is tried at most once a minute: it waits for " + out.WaitsFor
		case waits:
			text = "It waits for " + out.WaitsFor + ", because a step is tried at most once a minute"
		}
		return e.done(out, "%s: %s; keyturn rotation status %s shows its progress.", out.SecretName, fault.Text(text),
			out.SecretName)
	}
	return e.followFrom(client, out, retried, c.Timeout)
}

// retried is the end of the wait for a step that is tried again: the end of the rotation, or of all
// in it that can fail before a grace period.
func retried(r *kms.DescribeRotationResponse) (over, ok bool, text string) {
	if over, ok, text = failedEnd(r); over {
		return over, ok, text
	}
	return !r.InProgress || inGrace(r), true, "The rotation of " + r.SecretName + " is in state " + r.State + "."
}
