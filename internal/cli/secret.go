package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

type secretCommand struct {
	globals
	List      secretList      `cmd:"" help:"List secrets."`
	Show      secretShow      `cmd:"" help:"Show the metadata of a secret, without its value."`
	Get       secretGet       `cmd:"" help:"Print the value of a secret."`
	Put       secretPut       `cmd:"" help:"Store a new version, from standard input or a file; creates a missing secret."`
	Versions  secretVersions  `cmd:"" help:"List the versions of a secret."`
	Stage     secretStage     `cmd:"" help:"Move or remove a stage label."`
	Consumers secretConsumers `cmd:"" help:"List the consumers of a secret, and the version that each holds."`
	Delete    secretDelete    `cmd:"" help:"Schedule the deletion of a secret, or delete it at once."`
	Restore   secretRestore   `cmd:"" help:"Cancel a planned deletion."`
}

// json reports whether the result is to be printed as JSON.
func (e *env) json() bool { return e.Output == "json" }

// connect returns a client of the server that the profile of the command's group names.
func (e *env) connect() (*kms.Client, error) {
	if e.client != nil {
		return e.client, nil
	}
	return connect(e.Profile)
}

type secretList struct {
	Prefix string `arg:"" optional:"" help:"Only names with this prefix."`
	Tag    string `help:"Only secrets with this tag key." placeholder:"KEY"`
}

func (c *secretList) Run(e *env) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	in := &kms.ListSecretsRequest{}
	if c.Prefix != "" {
		in.Filters = append(in.Filters, kms.Filter{Key: "SecretName", Values: []string{c.Prefix}})
	}
	if c.Tag != "" {
		in.Filters = append(in.Filters, kms.Filter{Key: "TagKey", Values: []string{c.Tag}})
	}
	all, err := listSecrets(e.ctx, client, in)
	if err != nil {
		return err
	}
	if e.json() {
		return printResponse(e.stdout, all)
	}
	t := newTable("NAME", "TYPE", "UPDATED", "DELETED AT")
	for _, s := range all.SecretList {
		t.row(s.SecretName, s.SecretType, when(s.UpdateTime), when(s.PlannedDeleteTime))
	}
	return t.write(e.stdout)
}

// listSecrets returns all pages of a list of secrets as one.
func listSecrets(
	ctx context.Context, client *kms.Client, in *kms.ListSecretsRequest,
) (*kms.ListSecretsResponse, error) {
	all := &kms.ListSecretsResponse{SecretList: []kms.ListedSecret{}, PageNumber: 1}
	for in.PageNumber, in.PageSize = 1, 100; ; in.PageNumber++ {
		page, err := client.ListSecrets(ctx, in)
		if err != nil {
			return nil, err
		}
		all.SecretList = append(all.SecretList, page.SecretList...)
		all.TotalCount, all.RequestID, all.PageSize = page.TotalCount, page.RequestID, len(all.SecretList)
		if len(page.SecretList) < in.PageSize {
			return all, nil
		}
	}
}

type secretShow struct {
	Name string `arg:"" help:"Name or ARN of the secret."`
}

func (c *secretShow) Run(e *env) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	s, err := client.DescribeSecret(e.ctx, &kms.DescribeSecretRequest{SecretName: c.Name, FetchTags: true})
	if err != nil {
		return err
	}
	if e.json() {
		return printResponse(e.stdout, s)
	}
	t := newTable()
	add := func(name, value string) {
		if value != "" {
			t.row(name, value)
		}
	}
	add("name", s.SecretName)
	add("arn", s.ARN)
	add("type", s.SecretType)
	add("description", s.Description)
	add("created", when(s.CreateTime))
	add("updated", when(s.UpdateTime))
	add("deleted at", when(s.PlannedDeleteTime))
	add("rotation", s.AutomaticRotation)
	add("interval", span(s.RotationInterval))
	add("last rotation", when(s.LastRotationDate))
	add("next rotation", when(s.NextRotationDate))
	add("configuration", s.ExtendedConfig)
	if s.Tags != nil {
		for _, tag := range *s.Tags {
			add("tag "+tag.TagKey, tag.TagValue)
		}
	}
	return t.write(e.stdout)
}

type secretGet struct {
	Name  string `arg:"" help:"Name or ARN of the secret."`
	Stage string `help:"Read the version with this label (ACSCurrent)." placeholder:"LABEL"`
	ID    string `name:"version-id" help:"Read this version." placeholder:"ID"`
	File  string `help:"Write the value to a new file of mode 0600 instead of standard output." placeholder:"PATH"`
}

// Run prints the value and nothing else, so that a shell can take it; a newline follows only on a
// terminal.
func (c *secretGet) Run(e *env) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	s, err := client.GetSecretValue(e.ctx, &kms.GetSecretValueRequest{
		SecretName:   c.Name,
		VersionStage: c.Stage,
		VersionID:    c.ID,
	})
	switch {
	case err != nil:
		return err
	case e.json() && c.File == "":
		return printResponse(e.stdout, s)
	case c.File != "":
		return writeNew(c.File, s.SecretData)
	}
	_, err = io.WriteString(e.raw, s.SecretData.Reveal())
	if isTerminal(e.raw) {
		fmt.Fprintln(e.stdout)
	}
	return err
}

// writeNew refuses to write over a file: a typing error must not cost another secret.
func writeNew(path string, value sensitive.Value) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, value.Reveal())
	return errors.Join(err, f.Close())
}

type secretPut struct {
	Name        string   `arg:"" help:"Name of the secret."`
	File        string   `help:"File with the value, instead of standard input." placeholder:"PATH" type:"existingfile"`
	ID          string   `name:"version-id" help:"ID of the new version (random)." placeholder:"ID"`
	Stage       []string `help:"Label of the new version instead of ACSCurrent; may be repeated." placeholder:"LABEL"`
	Raw         bool     `help:"Keep the line end of a single line from standard input, too."`
	Binary      bool     `help:"The value is binary; by convention it is Base64 text."`
	Description string   `help:"Description of a new secret." placeholder:"TEXT"`
}

// Help says which bytes become the value.
func (*secretPut) Help() string {
	return "A file and several lines from standard input are stored byte for byte, so that keys and certificates stay " +
		"whole. A single line from standard input, such as echo writes, is stored without its line end, which a note " +
		"on standard error says; --raw keeps the line end."
}

// Run stores a version, and makes the secret when there is none.
func (c *secretPut) Run(e *env) error {
	value, err := e.readValue(source{c.File, "--file", "Value: "}, c.Raw)
	if err != nil {
		return err
	}
	client, err := e.connect()
	if err != nil {
		return err
	}
	if c.ID == "" {
		c.ID = e.newID()
	}
	kind := kms.DataText
	if c.Binary {
		kind = kms.DataBinary
	}
	put, err := client.PutSecretValue(e.ctx, &kms.PutSecretValueRequest{
		SecretName:     c.Name,
		SecretData:     value,
		VersionID:      c.ID,
		SecretDataType: kind,
		VersionStages:  c.Stage,
	})
	if errors.Is(err, kms.ErrResourceNotFound) && len(c.Stage) == 0 {
		return c.create(e, client, value, kind)
	}
	switch {
	case err != nil:
		return err
	case e.json():
		return printResponse(e.stdout, put)
	}
	fmt.Fprintf(e.stdout, "Stored version %s of %s: %s.\n", put.VersionID, put.SecretName,
		strings.Join(put.VersionStages, ", "))
	return nil
}

func (c *secretPut) create(e *env, client *kms.Client, value sensitive.Value, kind string) error {
	made, err := client.CreateSecret(e.ctx, &kms.CreateSecretRequest{
		SecretName:     c.Name,
		SecretData:     value,
		VersionID:      c.ID,
		SecretDataType: kind,
		Description:    c.Description,
	})
	switch {
	case err != nil:
		return err
	case e.json():
		return printResponse(e.stdout, made)
	}
	fmt.Fprintf(e.stdout, "Created %s with version %s: %s.\n", made.SecretName, made.VersionID, kms.StageCurrent)
	return nil
}

type secretVersions struct {
	Name string `arg:"" help:"Name or ARN of the secret."`
	All  bool   `help:"Also versions without a label."`
}

func (c *secretVersions) Run(e *env) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	list, err := client.ListSecretVersionIds(e.ctx, &kms.ListSecretVersionIdsRequest{
		SecretName:        c.Name,
		IncludeDeprecated: c.All,
		PageSize:          100,
	})
	switch {
	case err != nil:
		return err
	case e.json():
		return printResponse(e.stdout, list)
	}
	t := newTable("VERSION", "CREATED", "LABELS")
	for _, v := range list.VersionIDs {
		t.row(v.VersionID, when(v.CreateTime), strings.Join(v.VersionStages, ", "))
	}
	return t.write(e.stdout)
}

type secretStage struct {
	Name  string `arg:"" help:"Name or ARN of the secret."`
	Label string `arg:"" help:"ACSCurrent, ACSPrevious or a label of your own."`
	To    string `help:"Version that gets the label." placeholder:"VERSION"`
	From  string `help:"Version that loses the label; refused if it does not have the label." placeholder:"VERSION"`
}

func (c *secretStage) Run(e *env) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	out, err := client.UpdateSecretVersionStage(e.ctx, &kms.UpdateSecretVersionStageRequest{
		SecretName:        c.Name,
		VersionStage:      c.Label,
		MoveToVersion:     c.To,
		RemoveFromVersion: c.From,
	})
	switch {
	case err != nil:
		return err
	case e.json():
		return printResponse(e.stdout, out)
	case c.To == "":
		fmt.Fprintf(e.stdout, "%s of %s is removed from version %s.\n", c.Label, out.SecretName, c.From)
	default:
		fmt.Fprintf(e.stdout, "%s of %s is version %s.\n", c.Label, out.SecretName, c.To)
	}
	return nil
}

type secretDelete struct {
	Name string `arg:"" help:"Name or ARN of the secret."`
	Days int    `help:"Days during which the secret can be restored, 7 to 30." default:"30"`
	Now  bool   `help:"Delete at once; the secret cannot be restored."`
	Yes  bool   `help:"Do not ask." short:"y"`
}

// Help says what a deletion means for those who read the secret.
func (*secretDelete) Help() string {
	return "Reads of the value are refused from now on, also while the secret can be restored. So the command asks " +
		"before the deletion of a secret that is rotated, or whose consumers were seen lately, and always with --now. " +
		"A secret with the administrator of a target, or the client certificate of an application's logins, is not deleted."
}

func (c *secretDelete) Run(e *env) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	in := &kms.DeleteSecretRequest{SecretName: c.Name, RecoveryWindowInDays: c.Days}
	if c.Now {
		in.ForceDeleteWithoutRecovery, in.RecoveryWindowInDays = true, 0
	}
	before, err := e.readable(client, c.Name)
	if err != nil {
		return err
	}
	asked, err := c.ask(e, client, before)
	if err != nil {
		return err
	}
	if c.Now && !asked && before.Remains != "" { // afterwards its commands find no secret
		fmt.Fprintln(e.stderr, before.Remains)
	}
	out, err := client.DeleteSecret(e.ctx, in)
	switch {
	case err != nil:
		return err
	case e.json():
		return printResponse(e.stdout, out)
	case c.Now:
		_, err = fmt.Fprintf(e.stdout, "%s is deleted.\n", out.SecretName)
	default:
		if err = e.report("%s will be deleted at %s; keyturn secret restore %s cancels it. Reads of its value are refused "+
			"from now on.", out.SecretName, when(out.PlannedDeleteTime), out.SecretName); err != nil {
			return err
		}
		if after, failed := e.readable(client, c.Name); failed == nil { // its commands are those that are taken now
			before = after
		}
	}
	if err == nil && before.Remains != "" && !c.Now {
		_, err = fmt.Fprintln(e.stdout, before.Remains)
	}
	return err
}

// ask asks about a deletion that cannot be undone, or that stops applications. It says first what
// remains at the target of the secret, of which before is the rotation, and who reads it.
func (c *secretDelete) ask(e *env, client *kms.Client, before *kms.DescribeRotationResponse) (asked bool, err error) {
	if c.Yes {
		return false, nil
	}
	seen, err := c.seen(e, client)
	if err != nil || !c.Now && before.TargetName == "" && seen == "" {
		return false, err
	}
	for _, text := range []string{before.Remains, seen} {
		if text != "" {
			fmt.Fprintln(e.stderr, text)
		}
	}
	question := fault.Message("Delete %s after %d days, and refuse reads of its value from now on?", c.Name, c.Days)
	if c.Now {
		question = fault.Message("Delete %s and all its versions now, for good?", c.Name)
	}
	return true, e.confirm(question)
}

// seen says how many consumers of the secret were seen lately; nothing without one, and for a
// caller who may not read that.
func (c *secretDelete) seen(e *env, client *kms.Client) (string, error) {
	page, err := client.ListSecretConsumers(e.ctx, &kms.ListSecretConsumersRequest{SecretName: c.Name})
	switch {
	case errors.Is(err, kms.ErrNoPermission):
		return "", nil
	case err != nil || len(page.Consumers) == 0:
		return "", err
	}
	count := fmt.Sprint(len(page.Consumers))
	if page.NextToken != "" {
		count = "More than " + count
	}
	return fmt.Sprintf("Consumers that read it in the last %d days, and get an error when they read it again: %s; %s "+
		"lists them.", kms.ConsumerDays, count, fault.Command("secret consumers", c.Name)), nil
}

type secretRestore struct {
	Name string `arg:"" help:"Name or ARN of the secret."`
}

func (c *secretRestore) Run(e *env) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	out, err := client.RestoreSecret(e.ctx, &kms.RestoreSecretRequest{SecretName: c.Name})
	switch {
	case err != nil:
		return err
	case e.json():
		return printResponse(e.stdout, out)
	}
	fmt.Fprintf(e.stdout, "%s is restored.\n", out.SecretName)
	if out.Warning != "" {
		fmt.Fprintln(e.stdout, out.Warning)
	}
	return nil
}
