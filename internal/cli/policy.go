package cli

import (
	"fmt"
	"io"
	"os"

	"github.com/keyturn/keyturn/ram"
)

type policyCommand struct {
	globals
	List     policyList     `cmd:"" help:"List policies."`
	Show     policyShow     `cmd:"" help:"Show a policy with its versions, its attachments and its document."`
	Create   policyCreate   `cmd:"" help:"Create a policy from a file or standard input."`
	Update   policyUpdate   `cmd:"" help:"Store a new version of a policy. Beyond five versions, the oldest is deleted."`
	Delete   policyDelete   `cmd:"" help:"Delete a policy that is not attached, with all its versions."`
	Simulate policySimulate `cmd:"" help:"Show whether a user may do something, and why. Exits with 1 for no."`
}

type policyList struct {
	Type string `help:"Only policies of this type: Custom or System." enum:",Custom,System" default:""`
}

func (c *policyList) Run(e *env) error {
	client, err := e.users()
	if err != nil {
		return err
	}
	all := &ram.ListPoliciesResponse{Policies: []ram.Policy{}}
	err = everyPage(func(marker string) (string, bool, error) {
		page, err := client.ListPolicies(e.ctx, &ram.ListPoliciesRequest{
			PolicyType: c.Type,
			MaxItems:   pageSize,
			Marker:     marker,
		})
		if err != nil {
			return "", false, err
		}
		all.Policies, all.RequestID = append(all.Policies, page.Policies...), page.RequestID
		return page.Marker, page.IsTruncated, nil
	})
	if err != nil {
		return err
	}
	if e.json() {
		return printResponse(e.stdout, all)
	}
	t := newTable("NAME", "TYPE", "VERSION", "ATTACHED", "DESCRIPTION")
	for _, p := range all.Policies {
		t.row(p.PolicyName, p.PolicyType, p.DefaultVersion, fmt.Sprint(p.AttachmentCount), p.Description)
	}
	return t.write(e.stdout)
}

type policyShow struct {
	Name string `arg:"" help:"Name of the policy."`
}

func (c *policyShow) Run(e *env) error {
	client, err := e.users()
	if err != nil {
		return err
	}
	kind, err := policyType(e, client, c.Name)
	if err != nil {
		return err
	}
	in := ram.PolicyRequest{PolicyName: c.Name, PolicyType: kind}
	p, err := client.GetPolicy(e.ctx, &in)
	switch {
	case err != nil:
		return err
	case e.json():
		return printResponse(e.stdout, p)
	}
	versions, err := client.ListPolicyVersions(e.ctx, &in)
	if err != nil {
		return err
	}
	whom, err := client.ListEntitiesForPolicy(e.ctx, &in)
	if err != nil {
		return err
	}
	t := newTable()
	t.facts([][2]string{
		{"name", p.Policy.PolicyName}, {"type", kind}, {"description", p.Policy.Description},
		{"created", when(p.Policy.CreateDate)}, {"updated", when(p.Policy.UpdateDate)},
		{"versions", names(versions.PolicyVersions, func(v ram.PolicyVersion) string { return v.VersionID })},
		{"default", p.Policy.DefaultVersion},
		{"users", names(whom.Users, func(u ram.User) string { return u.UserName })},
		{"groups", names(whom.Groups, func(g ram.Group) string { return g.GroupName })},
	}...)
	if err := t.write(e.stdout); err != nil {
		return err
	}
	fmt.Fprintln(e.stdout)
	return printJSON(e.stdout, []byte(p.DefaultPolicyVersion.PolicyDocument))
}

// document is where a command finds a policy's document.
type document struct {
	File string `help:"Read the document from this file instead of standard input." placeholder:"PATH" type:"existingfile"`
}

func (d document) read(e *env) (string, error) {
	if d.File == "" {
		return readLimited(e.stdin)
	}
	f, err := os.Open(d.File)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return readLimited(f)
}

// limitDocument is more than a policy may have, so that the server says what is wrong with a longer
// one.
const limitDocument = 64 << 10

func readLimited(r io.Reader) (string, error) {
	data, err := io.ReadAll(io.LimitReader(r, limitDocument))
	if err != nil {
		return "", fmt.Errorf("read the document: %w", err)
	}
	return string(data), nil
}

type policyCreate struct {
	Name        string `arg:"" help:"Name of the policy: letters, digits and -"`
	Description string `help:"Purpose of the policy." placeholder:"TEXT"`
	document
}

func (c *policyCreate) Run(e *env) error {
	text, err := c.read(e)
	if err != nil {
		return err
	}
	return e.callUsers(func(client *ram.Client) (any, error) {
		return client.CreatePolicy(e.ctx, &ram.CreatePolicyRequest{
			PolicyName:     c.Name,
			PolicyDocument: text,
			Description:    c.Description,
		})
	}, "Created policy %[1]s; keyturn user attach USER %[1]s or keyturn group attach GROUP %[1]s attaches it.", c.Name)
}

type policyUpdate struct {
	Name string `arg:"" help:"Name of the policy."`
	document
}

func (c *policyUpdate) Run(e *env) error {
	text, err := c.read(e)
	if err != nil {
		return err
	}
	client, err := e.users()
	if err != nil {
		return err
	}
	out, err := client.CreatePolicyVersion(e.ctx, &ram.CreatePolicyVersionRequest{
		PolicyName:     c.Name,
		PolicyDocument: text,
		SetAsDefault:   true,
		RotateStrategy: ram.RotateOldest,
	})
	if err != nil {
		return err
	}
	return e.done(out, "Policy %s is at version %s.", c.Name, out.PolicyVersion.VersionID)
}

type policyDelete struct {
	Name string `arg:"" help:"Name of the policy."`
	Yes  bool   `help:"Do not ask." short:"y"`
}

func (c *policyDelete) Run(e *env) error {
	if !c.Yes {
		if err := e.confirm(fmt.Sprintf("Delete policy %s with all its versions?", c.Name)); err != nil {
			return err
		}
	}
	return e.callUsers(func(client *ram.Client) (any, error) {
		return client.DeletePolicy(e.ctx, &ram.DeletePolicyRequest{PolicyName: c.Name, CascadingDelete: true})
	}, "Policy %s is deleted.", c.Name)
}

type policySimulate struct {
	User      string `required:"" help:"Name of the user." placeholder:"NAME"`
	Operation string `required:"" help:"Operation, such as GetSecretValue." placeholder:"NAME"`
	Secret    string `help:"Name or ARN of the secret to act on; its tags and its own policy count." placeholder:"NAME"`
	Resource  string `help:"ARN to act on, instead of a secret." placeholder:"ARN"`
	SourceIP  string `name:"source-ip" help:"Address from which the user calls (your own)." placeholder:"ADDRESS"`
	Plain     bool   `help:"The user calls without TLS."`
}

func (c *policySimulate) Run(e *env) error {
	client, err := e.users()
	if err != nil {
		return err
	}
	in := &ram.SimulatePolicyRequest{
		UserName:               c.User,
		Operation:              c.Operation,
		SecretName:             c.Secret,
		Resource:               c.Resource,
		ContextSourceIP:        c.SourceIP,
		ContextSecureTransport: "true",
	}
	if c.Plain {
		in.ContextSecureTransport = "false"
	}
	out, err := client.SimulatePolicy(e.ctx, in)
	if err != nil {
		return err
	}
	if e.json() {
		err = printResponse(e.stdout, out)
	} else {
		_, err = fmt.Fprintln(e.stdout, verdict(out))
		if out.Partial && err == nil {
			_, err = fmt.Fprintln(e.stdout,
				"  The call may need further rights; you need kms:DescribeRotation on the secret to have them judged.")
		}
		for _, right := range out.Judged {
			if len(out.Judged) > 1 && err == nil {
				_, err = fmt.Fprintln(e.stdout, "  needed: "+right)
			}
		}
	}
	if err == nil && !out.Allowed {
		return coded{exitFailed, ""}
	}
	return err
}

// verdict says in one sentence what was decided and by what.
func verdict(d *ram.SimulatePolicyResponse) string {
	what := d.Action + " on " + d.Resource
	if d.Decision == ram.ImplicitDeny {
		if d.ByName {
			what += ", which a statement must name in its Resource: * does not include it"
		}
		return "No: no statement allows " + what + "."
	}
	answer, verb := "Yes", "allows"
	if !d.Allowed {
		answer, verb = "No", "denies"
	}
	by := fmt.Sprintf("statement %d", d.StatementIndex)
	if d.Sid != "" {
		by += fmt.Sprintf(" (%s)", d.Sid)
	}
	switch {
	case d.PolicyType == ram.PolicyTypeSecret:
		by += " of the secret's own policy"
	case d.GroupName != "":
		by += fmt.Sprintf(" of the %s policy %s of group %s", d.PolicyType, d.PolicyName, d.GroupName)
	default:
		by += fmt.Sprintf(" of the %s policy %s", d.PolicyType, d.PolicyName)
	}
	return fmt.Sprintf("%s: %s %s %s.", answer, by, verb, what)
}
