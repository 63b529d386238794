package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
)

// begin are the arguments of a command that asks for a rotation.
type begin struct {
	Name string `arg:"" help:"Name or ARN of the secret."`
	ID   string `name:"version-id" help:"ID of the new version, to repeat the command safely (random)." placeholder:"ID"`
	following
}

// run asks for a rotation and, if that is wanted, follows it to its end.
func (c *begin) run(
	e *env, ask func(*kms.Client, *kms.VersionedRequest) (*kms.RotateSecretResponse, error), end verdictOf, text string,
) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	if c.ID == "" {
		c.ID = e.newID()
	}
	out, err := ask(client, &kms.VersionedRequest{SecretName: c.Name, VersionID: c.ID})
	switch {
	case err != nil:
		return err
	case !c.Wait:
		return e.done(out, text, out.SecretName, out.VersionID)
	}
	f := &follower{env: e, client: client, secret: out.SecretName, id: out.VersionID, named: true, verdict: end}
	return f.follow(c.Timeout)
}

type rotationRotate struct {
	several
	ID  string `name:"version-id" help:"ID of the new version, to repeat the command safely (random)." placeholder:"ID"`
	Yes bool   `help:"Do not ask before rotations of several secrets." short:"y"`
	following
}

func (c *rotationRotate) Run(e *env) error {
	name, alone, err := c.one()
	switch {
	case err != nil:
		return err
	case alone:
		return c.rotate(e, name)
	case c.ID != "":
		return coded{exitUsage, "--version-id is for one secret, without --dry-run"}
	}
	return c.run(e, action{
		what:     "rotated",
		skip:     cannotRotate,
		question: "Replace the credentials of %s?",
		do:       c.rotate,
	}, c.Yes)
}

func (c *rotationRotate) rotate(e *env, name string) error {
	b := begin{Name: name, ID: c.ID, following: c.following}
	return b.run(e, func(client *kms.Client, in *kms.VersionedRequest) (*kms.RotateSecretResponse, error) {
		return client.RotateSecret(e.ctx, &kms.RotateSecretRequest{SecretName: in.SecretName, VersionID: in.VersionID})
	}, promoted, "The rotation of %[1]s to version %[2]s was requested; keyturn rotation status %[1]s shows its progress.")
}

type rotationRehearse struct {
	begin
}

func (c *rotationRehearse) Run(e *env) error {
	return c.run(e, func(client *kms.Client, in *kms.VersionedRequest) (*kms.RotateSecretResponse, error) {
		return client.RehearseRotation(e.ctx, in)
	}, rehearsed, "The rehearsal of a rotation of %[1]s, as version %[2]s, was requested; keyturn rotation status %[1]s "+
		"shows its progress.")
}

type rotationEmergency struct {
	begin
	Yes bool `help:"Do not ask, and agree to findings that need a consent." short:"y"`
}

func (c *rotationEmergency) Run(e *env) error {
	if c.ID == "" {
		c.ID = e.newID()
	}
	client, err := e.connect()
	if err != nil {
		return err
	}
	if !c.Yes {
		if err := c.warn(e, client); err != nil {
			return err
		}
	}
	return c.run(e, func(client *kms.Client, in *kms.VersionedRequest) (*kms.RotateSecretResponse, error) {
		out, err := client.EmergencyRotation(e.ctx,
			&kms.EmergencyRotationRequest{SecretName: in.SecretName, VersionID: in.VersionID, AgreeToFindings: true})
		if err != nil {
			return nil, err
		}
		return &kms.RotateSecretResponse{
			ARN:        out.ARN,
			SecretName: out.SecretName,
			VersionID:  out.VersionID,
			RequestID:  out.RequestID,
		}, nil
	}, retired, "The emergency rotation of %[1]s to version %[2]s was requested; keyturn rotation status "+
		"%[1]s shows its progress.")
}

// warn says what an emergency breaks, and asks whether it is to be.
func (c *rotationEmergency) warn(e *env, client *kms.Client) error {
	out, err := client.EmergencyRotation(e.ctx, &kms.EmergencyRotationRequest{
		SecretName: c.Name,
		VersionID:  c.ID,
		DryRun:     true,
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(e.stderr, wouldStop(out))
	if err := printBroken(e.stderr, out); err != nil {
		return err
	}
	printEmergencyFindings(e.stderr, out.Findings)
	if out.Unchecked != "" {
		fmt.Fprintf(e.stderr, "\nThe target could not be asked what would stop a planned rotation, and what the emergency "+
			"does not remove: %s. It is asked again before anything is sent, and the answer yes overrides what it says "+
			"then.\n", strings.TrimSuffix(out.Unchecked, "."))
	}
	fmt.Fprintln(e.stderr)
	return e.confirm(fmt.Sprintf("Replace the credential of %s?", c.Name))
}

// printEmergencyFindings prints what an emergency overrides, and what it leaves. A finding of both
// sorts is printed in full once.
func printEmergencyFindings(w io.Writer, findings []kms.RotationFinding) {
	overridden := func(f kms.RotationFinding) bool { return f.Verdict != string(target.Note) }
	for _, part := range []struct {
		what string
		has  func(kms.RotationFinding) bool
		text func(kms.RotationFinding) string
	}{
		{
			"These findings would stop a planned rotation. The answer yes overrides them:",
			overridden,
			func(f kms.RotationFinding) string { return f.Text + " " + f.Fix },
		},
		{
			"The emergency does not remove these, and the holder of the credential can use them afterwards:",
			func(f kms.RotationFinding) bool { return f.Outlasts },
			func(f kms.RotationFinding) string {
				if overridden(f) {
					return strings.TrimPrefix(f.AccountName+", see above.", ", ")
				}
				return f.Text + " " + f.Fix
			},
		},
	} {
		list := slices.DeleteFunc(slices.Clone(findings), func(f kms.RotationFinding) bool { return !part.has(f) })
		if len(list) > 0 {
			fmt.Fprintln(w, "\n"+part.what)
		}
		for _, f := range list {
			fmt.Fprintf(w, "%s: %s\n", f.Code, part.text(f))
		}
	}
}

// wouldStop says which credentials an emergency makes useless.
func wouldStop(out *kms.EmergencyRotationResponse) string {
	if previous := out.PreviousVersionID; previous != "" {
		return fmt.Sprintf("The credentials in versions %s and %s of %s would stop working.", out.CurrentVersionID, previous,
			out.SecretName)
	}
	return fmt.Sprintf("The credential in version %s of %s would stop working.", out.CurrentVersionID, out.SecretName)
}

// printBroken names those whose credential an emergency makes useless. A principal that is known by
// its reads alone, such as an operator, gets the new credential when it reads again.
func printBroken(w io.Writer, out *kms.EmergencyRotationResponse) error {
	isReader := func(c kms.SecretConsumer) bool { return c.Evidence == kms.EvidenceInferred }
	readers := slices.DeleteFunc(slices.Clone(out.Breaking), func(c kms.SecretConsumer) bool { return !isReader(c) })
	consumers := slices.DeleteFunc(slices.Clone(out.Breaking), isReader)
	for _, part := range []struct {
		what  string
		list  []kms.SecretConsumer
		count int // with those that are not in list
	}{
		{
			"Consumers seen lately, refused until they have fetched the new one",
			consumers,
			out.BreakingCount - out.BreakingInferredCount,
		},
		{
			"Readers seen lately, applications or people, which get the new one when they read again",
			readers,
			out.BreakingInferredCount,
		},
		{"Not seen lately, so nothing is known of them", out.Unknown, out.UnknownCount},
	} {
		if part.count == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s (%d):\n", part.what, part.count)
		if len(part.list) > 0 {
			if err := printConsumers(w, part.list); err != nil {
				return err
			}
		}
		if more := part.count - len(part.list); more > 0 {
			fmt.Fprintf(w, "%d more; %s lists all.\n", more, fault.Command("secret consumers", out.SecretName))
		}
	}
	if out.BreakingCount+out.UnknownCount == 0 {
		fmt.Fprintf(w, "No consumer was seen to use it in the last %d days.\n", kms.ConsumerDays)
	}
	return nil
}

type rotationEndGrace struct {
	Name string `arg:"" help:"Name or ARN of the secret."`
	Yes  bool   `help:"Do not ask." short:"y"`
	following
}

func (c *rotationEndGrace) Run(e *env) error {
	if !c.Yes {
		if err := e.confirm(fmt.Sprintf("Retire the previous credential of %s now, even if it is still used?",
			c.Name)); err != nil {
			return err
		}
	}
	client, err := e.connect()
	if err != nil {
		return err
	}
	shown := 0 // of the steps so far
	if c.Wait {
		before, err := e.readable(client, c.Name)
		if err != nil {
			return err
		}
		shown = len(before.Steps)
	}
	out, err := client.EndRotationGrace(e.ctx, &kms.SecretNameRequest{SecretName: c.Name})
	if err != nil {
		return err
	}
	if c.Wait {
		f := &follower{env: e, client: client, secret: out.SecretName, shown: shown, verdict: graceEnded}
		return f.follow(c.Timeout)
	}
	return e.done(out, "The previous credential of %[1]s is being retired; keyturn rotation status %[1]s shows when "+
		"that is done.", c.Name)
}

type rotationUndo struct {
	Name string `arg:"" help:"Name or ARN of the secret."`
	Yes  bool   `help:"Do not ask." short:"y"`
	following
}

func (c *rotationUndo) Run(e *env) error {
	if !c.Yes {
		if err := e.confirm(fmt.Sprintf("Make the previous credential of %s current again?", c.Name)); err != nil {
			return err
		}
	}
	client, err := e.connect()
	if err != nil {
		return err
	}
	// Each undo exchanges the same two versions, so the answer says which one becomes current.
	before, err := e.readable(client, c.Name)
	if err != nil {
		return err
	}
	out, err := client.UndoRotation(e.ctx, &kms.SecretNameRequest{SecretName: c.Name})
	switch {
	case err != nil:
		return err
	case c.Wait:
		f := &follower{
			env:     e,
			client:  client,
			secret:  out.SecretName,
			shown:   len(before.Steps),
			verdict: undone(before.BaseVersionID),
		}
		return f.follow(c.Timeout)
	case before.BaseVersionID == "" || before.CandidateVersionID == "":
		return e.done(out, "The previous credential of %[1]s becomes current again once a login with it succeeds; keyturn "+
			"rotation status %[1]s shows when.", c.Name)
	}
	another := ""
	if before.Outcome != kms.OutcomeNeedsOperator { // in a quarantine, the target rejects the one that is replaced
		another = " Another undo would return to " + before.CandidateVersionID + "."
	}
	return e.done(out, "Version %[1]s of %[2]s becomes current again instead of %[3]s once a login with it succeeds; "+
		"keyturn rotation status %[2]s shows when.%[4]s",
		before.BaseVersionID, c.Name, before.CandidateVersionID, another)
}

type rotationCancel struct {
	Name string `arg:"" help:"Name or ARN of the secret."`
}

// Help says what the command leaves, and why it asks nothing.
func (*rotationCancel) Help() string {
	return "Ends a rotation on the safe way out of its state, and asks nothing, because the current credential stays " +
		"current. Before the promotion, what was sent is taken back. An undo is given up, and the grace period goes on. " +
		"A retirement ends, and the previous credential keeps working at the target: in an emergency, the one that may " +
		"have leaked. In the grace period itself the command is refused and names those that end it."
}

func (c *rotationCancel) Run(e *env) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	out, err := client.CancelRotation(e.ctx, &kms.SecretNameRequest{SecretName: c.Name})
	if err != nil {
		return err
	}
	return e.done(out, "%s", fault.Text(cancelled(out)))
}

// cancelled says what a cancelled rotation is now, and what it has left.
func cancelled(r *kms.DescribeRotationResponse) string {
	status := fault.Command("rotation status", r.SecretName)
	switch {
	case r.Outcome == kms.OutcomeUnchanged:
		return fmt.Sprintf("The rotation of %s is cancelled; the credential in use is untouched.", r.SecretName)
	case r.Outcome == kms.OutcomeNeedsOperator && isRepair(r):
		return fmt.Sprintf("The repair of %s is cancelled; it is quarantined again.", r.SecretName)
	case r.Outcome == kms.OutcomeNeedsOperator:
		return fmt.Sprintf("%s is quarantined. %s %s explains what can be done.", r.SecretName, r.Reason,
			fault.Command("rotation repair", r.SecretName))
	case r.Outcome == kms.OutcomeSucceeded:
		text := fmt.Sprintf("The rotation of %s is done, and version %s stays current. %s", r.SecretName,
			r.CandidateVersionID, r.Reason)
		if r.Trigger == string(rotation.Emergency) && !r.PreviousRetired {
			text += fmt.Sprintf(" The credential of version %s may have leaked: make it useless at the target.",
				r.BaseVersionID)
		}
		return text
	case inGrace(r):
		return fmt.Sprintf("The undo is cancelled: version %s of %s stays current, and the grace period goes on until %s.",
			r.CandidateVersionID, r.SecretName, when(r.GraceUntil))
	case r.State == kms.RotationRetiring:
		return fmt.Sprintf("The undo is cancelled: version %s of %s stays current, and the previous credential is being "+
			"retired; %s shows when that is done.", r.CandidateVersionID, r.SecretName, status)
	}
	return fmt.Sprintf("The rotation of %s ends once the target has taken back what was sent; %s shows when that is done.",
		r.SecretName, status)
}
