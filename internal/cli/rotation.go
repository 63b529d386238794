package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/kms"
)

type rotationCommand struct {
	globals
	List      rotationList      `cmd:"" help:"List the rotations of all secrets that the service rotates."`
	Status    rotationStatus    `cmd:"" help:"Show the state of a rotation and when the next one is due."`
	Configure rotationConfigure `cmd:"" help:"Change how a secret is rotated: the settings that are named."`
	Check     rotationCheck     `cmd:"" help:"Check whether a rotation would be safe, and what to change if not."`
	Detach    rotationDetach    `cmd:"" help:"Return a Generic secret to its producer: it is no longer rotated."`
	Rotate    rotationRotate    `cmd:"" help:"Replace the credential of a secret."`
	Rehearse  rotationRehearse  `cmd:"" help:"Perform a rotation without the promotion, and undo it."`
	Emergency rotationEmergency `cmd:"" help:"Replace a leaked credential: the previous one stops working at once."`
	EndGrace  rotationEndGrace  `cmd:"" help:"Retire the previous credential now."`
	Undo      rotationUndo      `cmd:"" help:"Make the previous credential current again during its grace period."`
	Cancel    rotationCancel    `cmd:"" help:"End a rotation on the safe way out of its state."`
	Pause     rotationPause     `cmd:"" help:"Stop new rotations: of a secret, at a target, or all."`
	Resume    rotationResume    `cmd:"" help:"Permit rotations again."`
	Retry     rotationRetry     `cmd:"" help:"Try again now what has failed and waits for another try."`
	Probe     rotationProbe     `cmd:"" help:"Check now that targets accept the credentials in use."`
	Repair    rotationRepair    `cmd:"" help:"Explain a quarantine; end it with --probe, --apply or --adopt."`
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
	all, err := listRotations(e.ctx, client, kms.ListRotationsRequest{State: c.State, TargetName: c.Target})
	if err != nil {
		return err
	}
	if e.json() {
		return printResponse(e.stdout, all)
	}
	return printRotations(e.stdout, all)
}

func printRotations(w io.Writer, all *kms.ListRotationsResponse) error {
	var pauses pauseLines
	pauses.add(all.Pauses, "", "")
	t, cut := newTable("SECRET", "TARGET", "STATE", "CREDENTIAL", "NEXT DUE", "REASON"), false
	for _, r := range all.Rotations {
		state := r.State
		if r.Paused {
			state += ", paused"
		}
		if !r.PlannedDeleteTime.IsZero() {
			state += ", to be deleted"
		}
		pauses.add(r.Pauses, r.SecretName, r.TargetName)
		reason := shortened(r.Reason, widestReason)
		cut = cut || reason != r.Reason
		t.row(r.SecretName, r.TargetName, state, credentialWord(r.CredentialState), when(r.NextRotationDate), reason)
	}
	if err := t.write(w); err != nil {
		return err
	}
	if cut {
		fmt.Fprintln(w, "\nkeyturn rotation status NAME shows a reason that ends in … as a whole.")
	}
	return pauses.write(w)
}

// widestReason is how many characters of a reason a line of the list shows.
const widestReason = 60

// shortened returns text with at most that many characters, the last of which is … if some are
// left out.
func shortened(text string, most int) string {
	all := []rune(text)
	if len(all) <= most {
		return text
	}
	return strings.TrimRight(string(all[:most-1]), " .,:;") + "…"
}

// listRotations returns all pages of a list of rotations as one.
func listRotations(
	ctx context.Context, client *kms.Client, in kms.ListRotationsRequest,
) (*kms.ListRotationsResponse, error) {
	all := &kms.ListRotationsResponse{Rotations: []kms.ListedRotation{}}
	for in.MaxResults = 100; ; {
		page, err := client.ListRotations(ctx, &in)
		if err != nil {
			return nil, err
		}
		all.Rotations, all.RequestID = append(all.Rotations, page.Rotations...), page.RequestID
		all.Pauses = page.Pauses
		if in.NextToken = page.NextToken; in.NextToken == "" {
			return all, nil
		}
	}
}

type rotationConfigure struct {
	Name          string `arg:"" help:"Name or ARN of the secret."`
	Target        string `help:"Target of a Generic secret; others name theirs in ExtendedConfig." placeholder:"NAME"`
	Strategy      string `help:"${strategy_help}" enum:"${strategies}" default:"" placeholder:"STRATEGY"`
	Account       string `help:"Account whose credential a value is that is not a JSON object." placeholder:"NAME"`
	CloneAccount  string `help:"Second account for the strategy double." placeholder:"NAME"`
	AccountMember string `help:"Member of the JSON value that holds the account." placeholder:"MEMBER"`
	SecretMember  string `help:"Member of the JSON value that holds the credential." placeholder:"MEMBER"`
	Interval      string `help:"Rotate this often, such as 30d." placeholder:"DURATION"`
	Cron          string `help:"Rotate then: five fields, or @daily, @weekly, @monthly." placeholder:"EXPRESSION"`
	Manual        bool   `help:"Plan no rotations."`
	TimeZone      string `help:"Time zone of cron, window and blackouts (UTC)." placeholder:"Area/City"`
	Window        string `help:"When a rotation may begin, such as 'Sat,Sun 22:00-02:00'." placeholder:"WINDOW"`
	Blackouts     string `help:"Days without rotations, such as 2026-12-24..2027-01-02,2027-03-31." placeholder:"DAYS"`
	Grace         string `help:"How long the previous credential works at least, such as 2h." placeholder:"DURATION"`
	GraceLimit    string `help:"How long it works at most while a consumer holds it." placeholder:"DURATION"`
	Group         string `help:"Set of secrets that do not rotate close together; with --group-gap." placeholder:"NAME"`
	GroupGap      string `help:"Time between rotations in the group, such as 30m." placeholder:"DURATION"`

	LoginEndpoint          []string `help:"Address in verify that applications use (all)." placeholder:"ADDRESS"`
	LoginDatabase          string   `help:"Database, virtual host or base that applications open." placeholder:"NAME"`
	LoginRole              string   `help:"Role that applications take after the login." placeholder:"NAME"`
	LoginCertificateSecret string   `help:"Secret with the client certificate and key of applications." placeholder:"NAME"`
	Consent                []string `help:"Agree to a finding of rotation check; may be repeated." placeholder:"TOKEN"`

	Reset   []string `help:"Return a setting to its default, such as grace-limit; may be repeated." placeholder:"SETTING"`
	Replace bool     `help:"Return all settings that are not named to their defaults."`
}

// Help explains what the flags have no room for.
func (*rotationConfigure) Help() string {
	return "A setting that is not named keeps its value. --interval replaces --cron, and --cron replaces --interval. " +
		"--manual removes an interval; a cron expression is kept and plans nothing until --cron names one again. " +
		"--consent adds to earlier consents; --reset consent withdraws those. Another --target resets the strategy, the " +
		"accounts, the login settings and the consents. --reset takes the name of a flag that sets a value.\n\n" +
		"The previous credential works for --grace after a rotation; 0s retires it at once. While a consumer " +
		"still holds it, it works longer, up to --grace-limit. To wait for no consumer, set --grace-limit no longer " +
		"than --grace.\n\n" +
		"Without --strategy, the type of the secret decides, or the target's best strategy is used."
}

func (c *rotationConfigure) Run(e *env) error {
	in := &kms.ConfigureRotationRequest{
		SecretName:             c.Name,
		TargetName:             c.Target,
		Replace:                c.Replace,
		Strategy:               c.Strategy,
		AccountName:            c.Account,
		CloneAccountName:       c.CloneAccount,
		AccountMember:          c.AccountMember,
		SecretMember:           c.SecretMember,
		RotationInterval:       c.Interval,
		Cron:                   c.Cron,
		TimeZone:               c.TimeZone,
		Window:                 c.Window,
		Blackouts:              c.Blackouts,
		GracePeriod:            c.Grace,
		GraceLimit:             c.GraceLimit,
		Group:                  c.Group,
		GroupGap:               c.GroupGap,
		LoginEndpoints:         c.LoginEndpoint,
		LoginDatabase:          c.LoginDatabase,
		LoginRole:              c.LoginRole,
		LoginCertificateSecret: c.LoginCertificateSecret,
		Consents:               c.Consent,
	}
	if c.Manual {
		if c.Interval+c.Cron != "" {
			return coded{exitUsage, "give one of --interval, --cron and --manual"}
		}
		in.EnableAutomaticRotation = new(false)
	}
	for _, flag := range c.Reset {
		param, err := resetParam(flag)
		if err != nil {
			return err
		}
		in.Reset = append(in.Reset, param)
	}
	client, err := e.connect()
	if err != nil {
		return err
	}
	out, err := client.ConfigureRotation(e.ctx, in)
	if err != nil {
		return err
	}
	next := "by hand only"
	if !out.NextRotationDate.IsZero() {
		next = "next at " + when(out.NextRotationDate)
	}
	switch {
	case len(out.Pauses) > 0:
		next += "; " + pauseLine(out.Pauses[0], out.SecretName, out.TargetName)
	case out.NextRotationDate.IsZero():
		next += "; " + fault.Command("rotation rotate", out.SecretName) + " does it"
	}
	err = e.done(out, "%s is rotated at target %s, %s.", out.SecretName, out.TargetName, next)
	if err != nil || e.json() {
		return err
	}
	err = errors.Join(printSettings(e.stdout, out), printFindings(e.stdout, checked(out)))
	if err == nil && c.Grace+c.GraceLimit != "" && !rotation.State(out.State).Ended() {
		err = e.report("The rotation under way keeps its grace period: the new one counts from the next rotation on.")
	}
	if err != nil || in.LoginDatabase+in.LoginRole+in.LoginCertificateSecret == "" && len(in.LoginEndpoints) == 0 {
		return err
	}
	// The answer is about the account and its state: it comes without a login.
	return e.report("Not tried yet: keyturn rotation check %s logs in as the application does.", out.SecretName)
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
	return e.done(out, "%[1]s is no longer rotated: from now on you store its versions (keyturn secret put %[1]s). Its "+
		"value stays as it is, and is wrong as soon as the credential of its account changes.", c.Name)
}
