package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
)

type targetCommand struct {
	globals
	Add    targetAdd    `cmd:"" help:"Register a system whose credentials are to be rotated. The system is not changed."`
	List   targetList   `cmd:"" help:"List targets."`
	Show   targetShow   `cmd:"" help:"Show a target with its configuration."`
	Update targetUpdate `cmd:"" help:"Change the given settings of a target; all others stay as they are."`
	Test   targetTest   `cmd:"" help:"Log in once, as the administrator or with a secret. Exits with 1 on failure."`
	Pause  targetPause  `cmd:"" help:"Stop new rotations at a target; rotations under way are finished."`
	Resume targetResume `cmd:"" help:"Permit rotations again."`
	Remove targetRemove `cmd:"" help:"Remove a target. The system is not changed."`

	PrepareAccounts targetPrepareAccounts `cmd:"" help:"Create a second login with the rights of the first, or show how."`
}

type targetAdd struct {
	Name        string   `arg:"" help:"Name of the target: the DBInstanceId of secrets that are rotated there."`
	Kind        string   `required:"" help:"Kind of system, such as postgresql." placeholder:"KIND"`
	AdminSecret string   `help:"Secret with the administrator's credential, which changes the others." placeholder:"NAME"`
	Description string   `help:"Description of the target." placeholder:"TEXT"`
	Account     []string `help:"Accounts that may be rotated (all ordinary ones)." placeholder:"PATTERN" sep:"none"`
	targetSettings
}

// Help explains what the flags have no room for.
func (*targetAdd) Help() string {
	return "--account names an account that rotations may change, with * for any characters; repeat it for more. " +
		"Without it they may change every ordinary account. A privileged account must be named exactly.\n\n" +
		"--set takes a setting of the kind: JSON, or else text. Names within an object are joined by a dot. " +
		"--tls-ca sets tls.ca: the authorities to trust instead of the machine's."
}

func (c *targetAdd) Run(e *env) error {
	config, err := c.build(e, "")
	if err != nil {
		return err
	}
	client, err := e.connect()
	if err != nil {
		return err
	}
	out, err := client.RegisterTarget(e.ctx, &kms.RegisterTargetRequest{
		TargetName:      c.Name,
		Kind:            c.Kind,
		Config:          config,
		AdminSecretName: c.AdminSecret,
		Description:     c.Description,
		Accounts:        c.Account,
	})
	if err != nil {
		return err
	}
	if c.AdminSecret == "" { // there is no account to log in with yet
		return e.done(out, "Target %[1]s is known. When a secret is attached "+
			"(keyturn rotation configure SECRET --target=%[1]s), keyturn target test %[1]s --secret=SECRET tries it.",
			out.TargetName)
	}
	return e.done(out, "Target %s is known; keyturn target test %s tries it.", out.TargetName, out.TargetName)
}

type targetList struct{}

func (c *targetList) Run(e *env) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	all := &kms.ListTargetsResponse{Targets: []kms.ListedTarget{}}
	for in := (kms.ListTargetsRequest{MaxResults: 100}); ; {
		page, err := client.ListTargets(e.ctx, &in)
		if err != nil {
			return err
		}
		all.Targets, all.RequestID = append(all.Targets, page.Targets...), page.RequestID
		all.Pauses = page.Pauses
		if in.NextToken = page.NextToken; in.NextToken == "" {
			break
		}
	}
	if e.json() {
		return printResponse(e.stdout, all)
	}
	var pauses pauseLines
	pauses.add(all.Pauses, "", "")
	t := newTable("NAME", "KIND", "STATE", "ADMINISTRATOR", "DESCRIPTION")
	for _, g := range all.Targets {
		pauses.add(g.Pauses, "", g.TargetName)
		t.row(g.TargetName, g.Kind, pausedWord(g.Paused), g.AdminSecretName, g.Description)
	}
	return errors.Join(t.write(e.stdout), pauses.write(e.stdout))
}

func pausedWord(paused bool) string {
	if paused {
		return "paused"
	}
	return "active"
}

type targetShow struct {
	Name string `arg:"" help:"Name of the target."`
}

func (c *targetShow) Run(e *env) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	g, err := client.DescribeTarget(e.ctx, &kms.TargetNameRequest{TargetName: c.Name})
	switch {
	case err != nil:
		return err
	case e.json():
		return printResponse(e.stdout, g)
	}
	t := newTable()
	for _, row := range [][2]string{
		{"name", g.TargetName},
		{"arn", g.ARN},
		{"kind", g.Kind},
		{"state", pausedWord(g.Paused)},
		{"administrator", g.AdminSecretName},
		{"id", g.TargetID},
		{"accounts", accountPolicy(g.Accounts)},
		{"strategies", strings.Join(g.Strategies, ", ")},
		{"description", g.Description},
		{"created", when(g.CreateTime)},
		{"updated", when(g.UpdateTime)},
	} {
		if row[1] != "" {
			t.row(row[0], row[1])
		}
	}
	for _, p := range g.Pauses {
		t.row("paused", pauseLine(p, "", g.TargetName))
	}
	if err := t.write(e.stdout); err != nil {
		return err
	}
	fmt.Fprintln(e.stdout)
	return printJSON(e.stdout, []byte(g.Config))
}

func accountPolicy(patterns []string) string {
	if len(patterns) == 0 {
		return "every ordinary account"
	}
	return strings.Join(patterns, ", ")
}

type targetUpdate struct {
	Name        string   `arg:"" help:"Name of the target."`
	AdminSecret string   `help:"Secret with the administrator's credential, which changes the others." placeholder:"NAME"`
	Description *string  `help:"Description of the target."`
	Account     []string `help:"New policy of accounts that may be rotated." placeholder:"PATTERN" sep:"none"`
	Unset       []string `help:"Setting to reset to its default." placeholder:"KEY" sep:"none"`
	targetSettings
}

// Run changes the settings that are named. With --config the file is the whole configuration, as
// with add.
func (c *targetUpdate) Run(e *env) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	in := &kms.UpdateTargetRequest{
		TargetName:      c.Name,
		AdminSecretName: c.AdminSecret,
		Description:     c.Description,
		Accounts:        c.Account,
	}
	switch {
	case c.given() || len(c.Unset) > 0:
		if in.Config, err = c.changed(e, client); err != nil {
			return err
		}
	case c.AdminSecret == "" && c.Description == nil && len(c.Account) == 0:
		return coded{exitUsage, "name what to change: --address, --set, --unset, --config, --tls-ca, --tls-off, " +
			"--admin-secret, --account or --description"}
	}
	out, err := client.UpdateTarget(e.ctx, in)
	if err != nil {
		return err
	}
	err = e.done(out, "Target %s is changed; keyturn target test %s tries it.", c.Name, c.Name)
	if err != nil || e.json() || in.Config == "" {
		return err
	}
	return c.inGrace(e, client)
}

// inGrace names the secrets whose previous credential is still to be retired. It says nothing to a
// caller who may not read that.
func (c *targetUpdate) inGrace(e *env, client *kms.Client) error {
	const most = 20
	page, err := client.ListRotations(e.ctx, &kms.ListRotationsRequest{
		TargetName: c.Name,
		State:      kms.RotationGrace,
		MaxResults: most,
	})
	if err != nil || len(page.Rotations) == 0 {
		return nil
	}
	var names []string
	for _, r := range page.Rotations {
		names = append(names, r.SecretName)
	}
	if page.NextToken != "" {
		names = append(names, "and more")
	}
	return e.report("The previous credential still works, of: %s. It is retired where the target says then; on a server "+
		"that the target no longer names, it stays.", strings.Join(names, ", "))
}

func (c *targetUpdate) changed(e *env, client *kms.Client) (string, error) {
	present := ""
	if c.Config == "" {
		g, err := client.DescribeTarget(e.ctx, &kms.TargetNameRequest{TargetName: c.Name})
		if err != nil {
			return "", err
		}
		present = g.Config
	}
	for _, path := range c.Unset {
		var members map[string]any
		d := json.NewDecoder(strings.NewReader(present))
		d.UseNumber()
		if err := d.Decode(&members); err != nil {
			return "", coded{exitUsage, "--unset is for settings that the target has; leave it out with --config"}
		}
		if !remove(members, path) {
			return "", coded{exitUsage, fmt.Sprintf("target %s has no setting %s", c.Name, path)}
		}
		text, err := marshal(members, "")
		if err != nil {
			return "", err
		}
		present = text
	}
	return c.build(e, present)
}

type targetTest struct {
	Name   string `arg:"" help:"Name of the target."`
	Secret string `help:"Secret whose current credential to try instead of the administrator's." placeholder:"NAME"`
}

func (c *targetTest) Run(e *env) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	out, err := client.TestTarget(e.ctx, &kms.TestTargetRequest{TargetName: c.Name, SecretName: c.Secret})
	if err != nil {
		return err
	}
	who := "the administrator"
	if c.Secret != "" {
		who = "the credential of " + c.Secret
	}
	if err := e.done(out, testVerdict(out), c.Name, who); err != nil {
		return err
	}
	if out.Result == "ok" {
		return nil
	}
	if !e.json() {
		said := out.Message
		if out.Code != "" {
			said += " (" + out.Code + ")"
		}
		fmt.Fprintf(e.stdout, "  %s\n", said)
		if out.Result == "unreachable" && out.Code != target.CodeEgress {
			c.hint(e, client)
		}
	}
	return coded{exitFailed, ""}
}

// hint prints what to check when a target cannot be reached: the server does not say why, because
// a caller could scan ports by its answers.
func (c *targetTest) hint(e *env, client *kms.Client) {
	t, err := client.DescribeTarget(e.ctx, &kms.TargetNameRequest{TargetName: c.Name})
	if err != nil || t.Kind == "command" {
		return // a caller who may only test learns nothing about the target
	}
	var config struct {
		TLS struct {
			Off bool   `json:"off"`
			CA  string `json:"ca"`
		} `json:"tls"`
	}
	switch err := json.Unmarshal([]byte(t.Config), &config); {
	case err != nil, config.TLS.Off, t.Kind == "ssh":
		e.report("  Check address and port: keyturn target show %s", c.Name)
	case config.TLS.CA != "":
		e.report("  Check address and port, and the certificate of the target: it must be by the authority in "+
			"tls.ca and have the host of the address as a name. If it has another name: "+
			"keyturn target update %s --set=tls.server_name=NAME", c.Name)
	default:
		e.report("  Targets are reached over TLS by default. For a system that has its own authority: "+
			"keyturn target update %[1]s --tls-ca=FILE; for one without TLS, on a trusted network: "+
			"keyturn target update %[1]s --tls-off", c.Name)
	}
}

// testVerdict returns the sentence that heads the result of a test, with places for the target and
// for whom it was tried as.
func testVerdict(out *kms.TestTargetResponse) string {
	switch {
	case out.Code == target.CodeEgress:
		return "This server may not connect to target %s for %s: " +
			"its settings egress-allow and egress-deny do not permit the address."
	case out.Result == "ok":
		return "Target %s accepts %s."
	case out.Result == "unreachable":
		return "Target %s could not be reached, so %s was not tried."
	case out.Result == "rejected":
		return "Target %s does not accept %s."
	case out.Result == "denied":
		return "Target %s denies %s what is needed."
	}
	return "It is not known whether target %s accepts %s: there was no answer."
}

type targetPause struct {
	Name string `arg:"" help:"Name of the target."`
}

func (c *targetPause) Run(e *env) error {
	return e.setPaused(kms.PauseRotationRequest{TargetName: c.Name}, true)
}

type targetResume struct {
	Name string `arg:"" help:"Name of the target."`
}

func (c *targetResume) Run(e *env) error {
	return e.setPaused(kms.PauseRotationRequest{TargetName: c.Name}, false)
}

type targetRemove struct {
	Name   string `arg:"" help:"Name of the target."`
	Detach bool   `help:"Also end the rotation of every secret that is attached to the target."`
	Yes    bool   `help:"Do not ask." short:"y"`
}

func (c *targetRemove) Run(e *env) error {
	if !c.Yes {
		if err := e.confirm(fmt.Sprintf(c.question(), c.Name)); err != nil {
			return err
		}
	}
	client, err := e.connect()
	if err != nil {
		return err
	}
	out, err := client.DeregisterTarget(e.ctx, &kms.DeregisterTargetRequest{TargetName: c.Name, Detach: c.Detach})
	if err != nil {
		return err
	}
	return e.done(out, "Target %s is forgotten.", c.Name)
}

func (c *targetRemove) question() string {
	if c.Detach {
		return "Forget target %s and end the rotation of every secret that is attached to it?"
	}
	return "Forget target %s?"
}
