package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
)

type rotationRepair struct {
	several
	Probe bool   `help:"Ask the target again which credential it accepts, or try again now what has failed."`
	Apply bool   `help:"Give the target the stored credential again."`
	Adopt string `help:"File with a value that the target accepts, as secret get shows it; - is stdin." placeholder:"FILE"`
	ID    string `name:"version-id" help:"Identifier of the adopted version; a random one if left out." placeholder:"ID"`
	Yes   bool   `help:"Do not ask." short:"y"`
	following
}

func (c *rotationRepair) Run(e *env) error {
	doing, err := c.action()
	if err != nil {
		return err
	}
	name, alone, err := c.one()
	switch {
	case err != nil:
		return err
	case alone:
		return c.repair(e, name, doing)
	case doing != kms.RepairProbe && doing != kms.RepairApply:
		return coded{exitUsage, "several secrets, and --dry-run, take --probe or --apply"}
	}
	all := action{what: "checked again", skip: nothingToRepair(doing)}
	if doing == kms.RepairApply {
		all.what = "given the stored credential again"
		all.question = "Give the target the stored credentials of %s? If they may have leaked, an emergency " +
			"of each replaces them instead."
	}
	answered := *c
	answered.Yes = true
	all.do = func(e *env, name string) error { return answered.repair(e, name, doing) }
	return c.run(e, all, c.Yes)
}

// repair takes an action for one secret; without one it explains what can be done.
func (c *rotationRepair) repair(e *env, name, action string) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	if action == "" {
		return c.explain(e, client, name)
	}
	in, err := c.request(e, name, action)
	if err != nil {
		return err
	}
	out, err := client.RepairRotation(e.ctx, in)
	switch {
	case err != nil:
		return err
	case action == kms.RepairAdopt:
		return e.done(out, "Version %s of %s is current; the target accepts it.", out.CandidateVersionID, out.SecretName)
	case !c.Wait:
		return e.done(out, "%s; keyturn rotation status %s shows its progress.", fault.Text(repairBegun(out)), out.SecretName)
	}
	return e.followFrom(client, out, repaired, c.Timeout)
}

// followFrom follows the rotation that out describes, from its next step on.
func (e *env) followFrom(
	client *kms.Client, out *kms.DescribeRotationResponse, verdict verdictOf, timeout time.Duration,
) error {
	f := &follower{
		env:     e,
		client:  client,
		secret:  out.SecretName,
		id:      out.RotationID,
		named:   true,
		shown:   len(out.Steps),
		verdict: verdict,
	}
	return f.follow(timeout)
}

// repairBegun says what follows a repair: a step that waits for another try is not made before the
// limits of the engine allow it.
func repairBegun(r *kms.DescribeRotationResponse) string {
	if r.NextAttemptTime.IsZero() || r.WaitsFor == "" {
		return "The repair of " + r.SecretName + " has begun"
	}
	return "The repair of " + r.SecretName + " waits for " + r.WaitsFor
}

// request returns the request for an action, with what it needs from the operator.
func (c *rotationRepair) request(e *env, name, action string) (in *kms.RepairRotationRequest, err error) {
	in = &kms.RepairRotationRequest{SecretName: name, RepairAction: action, VersionID: c.ID}
	switch {
	case action == kms.RepairApply && !c.Yes:
		return in, e.confirm(fault.Message("Give the target the stored credential of %s? If that may have leaked, keyturn "+
			"rotation emergency %s replaces it instead.", name, name))
	case action == kms.RepairAdopt:
		if in.SecretData, err = e.readValue(source{dashless(c.Adopt), "--adopt", "Value: "}, false); err != nil {
			return in, err
		}
		if in.VersionID == "" {
			in.VersionID = e.newID()
		}
	}
	return in, nil
}

// dashless is a file's name; none for standard input.
func dashless(path string) string {
	if path == "-" {
		return ""
	}
	return path
}

func (c *rotationRepair) action() (string, error) {
	var list []string
	if c.Probe {
		list = append(list, kms.RepairProbe)
	}
	if c.Apply {
		list = append(list, kms.RepairApply)
	}
	if c.Adopt != "" {
		list = append(list, kms.RepairAdopt)
	}
	switch {
	case len(list) > 1:
		return "", coded{exitUsage, "give one of --probe, --apply and --adopt"}
	case c.ID != "" && c.Adopt == "":
		return "", coded{exitUsage, "--version-id is for --adopt"}
	case len(list) == 0:
		return "", nil
	}
	return list[0], nil
}

// explain says what was found, and what each action would do.
func (c *rotationRepair) explain(e *env, client *kms.Client, name string) error {
	r, err := client.DescribeRotation(e.ctx, &kms.SecretNameRequest{SecretName: name})
	switch {
	case err != nil:
		return err
	case e.json():
		return printResponse(e.stdout, r)
	case r.Outcome != kms.OutcomeNeedsOperator:
		_, err := fmt.Fprintf(e.stdout, "Nothing is quarantined: the rotation of %s is in state %s.\n", r.SecretName, r.State)
		if err == nil && r.Advice != "" {
			_, err = fmt.Fprintln(e.stdout, r.Advice)
		}
		return err
	}
	if r.ProbeSkippedCode == kms.SkippedTaken {
		_, err = fmt.Fprintf(e.stdout, "The rotation of %s at target %s needs an operator, and no repair is possible: "+
			"another secret has its account.\n\n  %s\n", r.SecretName, r.TargetName, r.Reason)
		return errors.Join(err, printSteps(e.stdout, r.Steps))
	}
	_, err = io.WriteString(e.stdout, explanation(r))
	return errors.Join(err, printSteps(e.stdout, r.Steps))
}

// explanation says why a rotation is quarantined, and what each action would do.
func explanation(r *kms.DescribeRotationResponse) string {
	versions := fmt.Sprintf("version %s, which is current", r.CandidateVersionID)
	if r.CandidateVersionID != r.BaseVersionID && !isRepair(r) {
		versions = fmt.Sprintf("version %s, which was to replace version %s", r.CandidateVersionID, r.BaseVersionID)
	}
	after := `over what it has now. Whatever
      uses the credential that was set by hand fails then.`
	if r.Strategy == string(target.Overlap) {
		after = `beside what it has now. A
      credential that was set by hand goes on working: remove it at the target if nothing needs it.`
	}
	apply := fault.Message(`  keyturn rotation repair %s --apply
      gives the target the credential of %s, %s
`, r.SecretName, fault.Text(versions), fault.Text(after))
	if !slices.Contains(r.RepairActions, kms.RepairApply) {
		apply = ""
	}
	again := ""
	if apply != "" {
		again = ", and --apply would set it again"
	}
	others := ""
	if r.Strategy != string(target.Single) {
		others = `      Where an account has several credentials, one that was set by hand may go on working: the end of the
      emergency names what it has left.
`
	}
	emergency := fault.Message(`  keyturn rotation emergency %s
      replaces the credential at once, by one that only Keyturn knows: use it if it is not known who has changed
      the credential. The stored one may have leaked then%s.
%s`, r.SecretName, again, fault.Text(others))
	if !r.EmergencyPossible {
		emergency = fault.Message(`  keyturn rotation emergency %s
      not now: end the quarantine first by one of the ways above.
`, r.SecretName)
	}
	undo := ""
	switch {
	case !undoable(r):
	case r.PreviousDeadTime.IsZero():
		undo = fault.Message(`  keyturn rotation undo %s
      makes the previous credential, of version %s, current again, once a login with it has succeeded. It
      changes nothing at the target.
`, r.SecretName, r.BaseVersionID)
	default:
		undo = fmt.Sprintf("  An undo would probably fail: the target has rejected the previous credential, of version "+
			"%s, or its account may have got another one, at %s.\n", r.BaseVersionID, when(r.PreviousDeadTime))
	}
	return fault.Message(`The rotation of %[1]s at target %[2]s needs an operator. Every version is kept.

  %[3]s

What can be done:

  keyturn rotation check %[1]s
      reads at the target whether the account is locked, has expired or may not log in. If so, correct that
      there first, and then use --probe: nothing else below opens the account.
  keyturn rotation repair %[1]s --probe
      asks the target again which credential it accepts, and goes on from there. It changes nothing at the
      target: use it after the credential was corrected there.
%[4]s  keyturn rotation repair %[1]s --adopt=FILE
      stores the value in FILE, of the form that keyturn secret get %[1]s prints, as a new version and makes it
      current, once a login at the target has shown that it works. It changes nothing at the target: use it to
      keep what was set by hand.
%[5]s`, r.SecretName, r.TargetName, fault.Text(r.Reason), fault.Text(apply), fault.Text(undo+emergency))
}
