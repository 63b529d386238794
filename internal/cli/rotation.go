package cli

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/keyturn/keyturn/kms"
)

type rotationCommand struct {
	globals
	List      rotationList      `cmd:"" help:"List the rotations of all secrets that the service rotates."`
	Status    rotationStatus    `cmd:"" help:"Show where the rotation of a secret is, what it waits for, and when the next one is due."`
	Configure rotationConfigure `cmd:"" help:"Say how a secret is rotated, instead of what was said before. It rotates nothing."`
	Detach    rotationDetach    `cmd:"" help:"Give a Generic secret back to its producer: it is not rotated any more."`
	Rotate    rotationRotate    `cmd:"" help:"Replace the credential of a secret."`
	Rehearse  rotationRehearse  `cmd:"" help:"Do all of a rotation but the promotion, and take it back."`
	Emergency rotationEmergency `cmd:"" help:"Replace a credential that may have leaked: the old one stops working at once."`
	EndGrace  rotationEndGrace  `cmd:"" help:"Retire the former credential now."`
	Undo      rotationUndo      `cmd:"" help:"Make the former credential current again while its grace lasts."`
	Cancel    rotationCancel    `cmd:"" help:"End a rotation whose candidate is not at the target, such as one that waits for a target which cannot be reached."`
	Pause     rotationPause     `cmd:"" help:"Let no rotation begin: of a secret, at a target, or at all."`
	Resume    rotationResume    `cmd:"" help:"Let rotations begin again."`
	Probe     rotationProbe     `cmd:"" help:"Have targets asked now whether they accept the credentials in use, as after a store was restored from a copy."`
	Repair    rotationRepair    `cmd:"" help:"Explain a quarantine and what can be done; do it with --probe, --apply or --adopt."`
}

type rotationList struct {
	State  string `help:"Only those in this state, such as quarantined." placeholder:"STATE"`
	Target string `help:"Only those at this target." placeholder:"NAME"`
}

func (c *rotationList) Run(e *env) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	all := &kms.ListRotationsResponse{Rotations: []kms.ListedRotation{}}
	for in := (kms.ListRotationsRequest{State: c.State, TargetName: c.Target, MaxResults: 100}); ; {
		page, err := client.ListRotations(e.ctx, &in)
		if err != nil {
			return err
		}
		all.Rotations, all.RequestID = append(all.Rotations, page.Rotations...), page.RequestID
		if in.NextToken = page.NextToken; in.NextToken == "" {
			break
		}
	}
	if e.json() {
		return printResponse(e.stdout, all)
	}
	t := newTable("SECRET", "TARGET", "STATE", "CREDENTIAL", "NEXT DUE", "REASON")
	for _, r := range all.Rotations {
		state := r.State
		if r.Paused {
			state += ", paused"
		}
		t.row(r.SecretName, r.TargetName, state, credentialWord(r.CredentialState), when(r.NextRotationDate), r.Reason)
	}
	return t.write(e.stdout)
}

type rotationConfigure struct {
	Name          string `arg:"" help:"Name or ARN of the secret."`
	Target        string `help:"Target of a Generic secret; managed secrets name theirs in ExtendedConfig." placeholder:"NAME"`
	Strategy      string `help:"single, overlap or double; if left out, what the type asks for, or the target's best." enum:",single,overlap,double" default:""`
	Account       string `help:"Account whose credential a value is that is not a JSON object." placeholder:"NAME"`
	CloneAccount  string `help:"Second account for the strategy double." placeholder:"NAME"`
	AccountMember string `help:"Member of the JSON value that holds the account." placeholder:"MEMBER"`
	SecretMember  string `help:"Member of the JSON value that holds the credential." placeholder:"MEMBER"`
	Interval      string `help:"Rotate this often, such as 30d." placeholder:"DURATION"`
	Cron          string `help:"Rotate at these times: five fields, or @daily, @weekly, @monthly." placeholder:"EXPRESSION"`
	Manual        bool   `help:"Plan no rotations although --interval or --cron is given."`
	TimeZone      string `help:"Time zone of cron, window and blackouts (UTC)." placeholder:"Area/City"`
	Window        string `help:"When a rotation may begin, such as 'Sat,Sun 22:00-02:00'." placeholder:"WINDOW"`
	Blackouts     string `help:"Days without rotations, such as 2026-12-24..2027-01-02,2027-03-31." placeholder:"DAYS"`
	Grace         string `help:"How long the former credential works after a rotation at least, such as 2h; 0s retires it at once." placeholder:"DURATION"`
	GraceLimit    string `help:"How long it works at most when a consumer still holds it, such as 12h; no more than the grace, and nobody is waited for." placeholder:"DURATION"`
	Group         string `help:"Set of secrets that do not rotate close together; with --group-gap." placeholder:"NAME"`
	GroupGap      string `help:"Time between rotations in the group, such as 30m." placeholder:"DURATION"`
}

func (c *rotationConfigure) Run(e *env) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	out, err := client.ConfigureRotation(e.ctx, &kms.ConfigureRotationRequest{
		SecretName: c.Name, TargetName: c.Target, Strategy: c.Strategy, AccountName: c.Account, CloneAccountName: c.CloneAccount,
		AccountMember: c.AccountMember, SecretMember: c.SecretMember, EnableAutomaticRotation: !c.Manual && c.Interval+c.Cron != "",
		RotationInterval: c.Interval, Cron: c.Cron, TimeZone: c.TimeZone, Window: c.Window, Blackouts: c.Blackouts,
		GracePeriod: c.Grace, GraceLimit: c.GraceLimit, Group: c.Group, GroupGap: c.GroupGap,
	})
	if err != nil {
		return err
	}
	next := "by hand only; keyturn rotation rotate " + out.SecretName + " does it"
	if !out.NextRotationDate.IsZero() {
		next = "next at " + when(out.NextRotationDate)
	}
	return e.done(out, "%s is rotated at target %s, %s.", out.SecretName, out.TargetName, next)
}

type rotationDetach struct {
	Name string `arg:"" help:"Name or ARN of the secret."`
	Yes  bool   `help:"Do not ask." short:"y"`
}

func (c *rotationDetach) Run(e *env) error {
	if !c.Yes {
		if err := e.confirm(fmt.Sprintf("Rotate %s no more, and forget how it was to be rotated?", c.Name)); err != nil {
			return err
		}
	}
	client, err := e.connect()
	if err != nil {
		return err
	}
	out, err := client.RemoveRotation(e.ctx, &kms.SecretNameRequest{SecretName: c.Name})
	if err != nil {
		return err
	}
	return e.done(out, "%s is not rotated any more; keyturn secret put stores its versions again.", c.Name)
}

// begin are the arguments of a command that asks for a rotation.
type begin struct {
	Name string `arg:"" help:"Name or ARN of the secret."`
	ID   string `name:"version-id" help:"Identifier of the new version; with the same one the command may be repeated. A random one if left out." placeholder:"ID"`
	following
}

// run asks for a rotation and, if that is wanted, follows it to its end.
func (c *begin) run(e *env, ask func(*kms.Client, *kms.VersionedRequest) (*kms.RotateSecretResponse, error), end verdictOf, text string) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	if c.ID == "" {
		c.ID = uuid.NewString()
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
	begin
}

func (c *rotationRotate) Run(e *env) error {
	return c.run(e, func(client *kms.Client, in *kms.VersionedRequest) (*kms.RotateSecretResponse, error) {
		return client.RotateSecret(e.ctx, &kms.RotateSecretRequest{SecretName: in.SecretName, VersionID: in.VersionID})
	}, promoted, "The rotation of %s to version %s is asked for; keyturn rotation status shows how it goes.")
}

type rotationRehearse struct {
	begin
}

func (c *rotationRehearse) Run(e *env) error {
	return c.run(e, func(client *kms.Client, in *kms.VersionedRequest) (*kms.RotateSecretResponse, error) {
		return client.RehearseRotation(e.ctx, in)
	}, rehearsed, "The rehearsal of a rotation of %s, as version %s, is asked for; keyturn rotation status shows how it goes.")
}

type rotationEmergency struct {
	begin
	Yes bool `help:"Do not ask." short:"y"`
}

func (c *rotationEmergency) Run(e *env) error {
	if c.ID == "" {
		c.ID = uuid.NewString()
	}
	if !c.Yes {
		if err := c.warn(e); err != nil {
			return err
		}
	}
	return c.run(e, func(client *kms.Client, in *kms.VersionedRequest) (*kms.RotateSecretResponse, error) {
		out, err := client.EmergencyRotation(e.ctx, &kms.EmergencyRotationRequest{SecretName: in.SecretName, VersionID: in.VersionID})
		if err != nil {
			return nil, err
		}
		return &kms.RotateSecretResponse{ARN: out.ARN, SecretName: out.SecretName, VersionID: out.VersionID, RequestID: out.RequestID}, nil
	}, retired, "The emergency rotation of %s to version %s is asked for; keyturn rotation status shows how it goes.")
}

// warn says what an emergency breaks, and asks whether it is to be.
func (c *rotationEmergency) warn(e *env) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	out, err := client.EmergencyRotation(e.ctx, &kms.EmergencyRotationRequest{SecretName: c.Name, VersionID: c.ID, DryRun: true})
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stderr, "The credential in version %s of %s would stop working.\n", out.CurrentVersionID, out.SecretName)
	for _, part := range []struct {
		what  string
		count int
		list  []kms.SecretConsumer
	}{
		{"Seen lately, and refused until it has fetched the new one", out.BreakingCount, out.Breaking},
		{"Not seen lately, so nothing is known of it", out.UnknownCount, out.Unknown},
	} {
		if part.count == 0 {
			continue
		}
		fmt.Fprintf(e.stderr, "\n%s (%d):\n", part.what, part.count)
		if err := printConsumers(e.stderr, part.list); err != nil {
			return err
		}
	}
	if out.BreakingCount+out.UnknownCount == 0 {
		fmt.Fprintln(e.stderr, "Nobody was seen to use it in the last days.")
	}
	return e.confirm(fmt.Sprintf("\nReplace the credential of %s?", c.Name))
}

type rotationEndGrace struct {
	Name string `arg:"" help:"Name or ARN of the secret."`
	Yes  bool   `help:"Do not ask." short:"y"`
}

func (c *rotationEndGrace) Run(e *env) error {
	if !c.Yes {
		if err := e.confirm(fmt.Sprintf("Retire the former credential of %s now, also for whoever still uses it?", c.Name)); err != nil {
			return err
		}
	}
	client, err := e.connect()
	if err != nil {
		return err
	}
	out, err := client.EndRotationGrace(e.ctx, &kms.SecretNameRequest{SecretName: c.Name})
	if err != nil {
		return err
	}
	return e.done(out, "The former credential of %s is retired now; keyturn rotation status shows when that is done.", c.Name)
}

type rotationUndo struct {
	Name string `arg:"" help:"Name or ARN of the secret."`
}

func (c *rotationUndo) Run(e *env) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	out, err := client.UndoRotation(e.ctx, &kms.SecretNameRequest{SecretName: c.Name})
	if err != nil {
		return err
	}
	return e.done(out, "The former credential of %s is current again once a login has shown that it works; keyturn rotation status tells.", c.Name)
}

type rotationCancel struct {
	Name string `arg:"" help:"Name or ARN of the secret."`
}

func (c *rotationCancel) Run(e *env) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	out, err := client.CancelRotation(e.ctx, &kms.SecretNameRequest{SecretName: c.Name})
	switch {
	case err != nil:
		return err
	case out.State == kms.RotationStateQuarantined:
		return e.done(out, "The repair of %s is cancelled; it is quarantined again.", out.SecretName)
	case out.State != kms.RotationStateAbandoned:
		return e.done(out, "The rotation of %s ends once the target has taken back what was sent; keyturn rotation status shows when that is done.", out.SecretName)
	}
	return e.done(out, "The rotation of %s is cancelled; the credential in use is untouched.", out.SecretName)
}

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

type rotationProbe struct {
	which
}

func (c *rotationProbe) Run(e *env) error {
	in, err := c.request()
	if err != nil {
		return err
	}
	client, err := e.connect()
	if err != nil {
		return err
	}
	out, err := client.ProbeRotation(e.ctx, &in)
	if err != nil {
		return err
	}
	return e.done(out, "The targets are asked, some a second; keyturn rotation list shows what they say.")
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

type rotationRepair struct {
	Name  string `arg:"" help:"Name or ARN of the secret."`
	Probe bool   `help:"Ask the target again which credential it accepts."`
	Apply bool   `help:"Give the target the stored credential again."`
	Adopt string `help:"Take the credential of the value in this file, which the target accepts, into the current value; - for standard input or a prompt." placeholder:"FILE"`
	ID    string `name:"version-id" help:"Identifier of the adopted version; a random one if left out." placeholder:"ID"`
	Yes   bool   `help:"Do not ask." short:"y"`
	following
}

func (c *rotationRepair) Run(e *env) error {
	action, err := c.action()
	if err != nil {
		return err
	}
	client, err := e.connect()
	if err != nil {
		return err
	}
	in := &kms.RepairRotationRequest{SecretName: c.Name, RepairAction: action, VersionID: c.ID}
	switch action {
	case "":
		return c.explain(e, client)
	case "apply":
		if !c.Yes {
			if err := e.confirm(fmt.Sprintf("Give the target the stored credential of %s, over what it has now?", c.Name)); err != nil {
				return err
			}
		}
	case "adopt":
		if in.SecretData, err = e.readValue(dashless(c.Adopt), "Value: "); err != nil {
			return err
		}
		if in.VersionID == "" {
			in.VersionID = uuid.NewString()
		}
	}
	out, err := client.RepairRotation(e.ctx, in)
	switch {
	case err != nil:
		return err
	case action == "adopt":
		return e.done(out, "Version %s of %s is current; the target accepts it.", out.CandidateVersionID, out.SecretName)
	case !c.Wait:
		return e.done(out, "The repair of %s has begun; keyturn rotation status %s shows how it goes.", out.SecretName, out.SecretName)
	}
	f := &follower{env: e, client: client, secret: out.SecretName, id: out.RotationID, named: true, told: len(out.Steps), verdict: mended}
	return f.follow(c.Timeout)
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
		list = append(list, "probe")
	}
	if c.Apply {
		list = append(list, "apply")
	}
	if c.Adopt != "" {
		list = append(list, "adopt")
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
func (c *rotationRepair) explain(e *env, client *kms.Client) error {
	r, err := client.DescribeRotation(e.ctx, &kms.SecretNameRequest{SecretName: c.Name})
	switch {
	case err != nil:
		return err
	case e.json():
		return printResponse(e.stdout, r)
	case r.State != kms.RotationStateQuarantined:
		_, err := fmt.Fprintf(e.stdout, "Nothing is quarantined: the rotation of %s is in state %s.\n", r.SecretName, r.State)
		return err
	}
	versions := fmt.Sprintf("version %s, which is current", r.CandidateVersionID)
	if r.CandidateVersionID != r.BaseVersionID {
		versions = fmt.Sprintf("version %s, which was to replace version %s", r.CandidateVersionID, r.BaseVersionID)
	}
	apply := fmt.Sprintf(`  keyturn rotation repair %s --apply
      gives the target the credential of %s, over what it has now. Whatever
      uses the credential that was set by hand fails then.
`, r.SecretName, versions)
	if !slices.Contains(r.RepairActions, "apply") {
		apply = ""
	}
	_, err = fmt.Fprintf(e.stdout, `The rotation of %[1]s at target %[2]s needs a person. Nothing was thrown away: every version is kept.

  %[3]s

What can be done:

  keyturn rotation repair %[1]s --probe
      asks the target again which credential it accepts, and goes on from there. It changes nothing at the
      target: for when somebody has set it right there.
%[4]s  keyturn rotation repair %[1]s --adopt FILE
      stores the value in FILE as a new version and makes it current, once a login at the target has shown
      that it works. It changes nothing at the target: for when what was set by hand is to stay.
`, r.SecretName, r.TargetName, r.Reason, apply)
	return errors.Join(err, printSteps(e.stdout, r.Steps))
}
