package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/kms"
)

// targetPrepareAccounts turns one login of a target into two of equal rights, for the strategy
// double.
type targetPrepareAccounts struct {
	Name     string   `arg:"" help:"Name of the target."`
	Account  string   `required:"" help:"The existing login. It keeps its password." placeholder:"NAME"`
	Clone    string   `required:"" help:"The login to create beside it." placeholder:"NAME"`
	Owner    string   `help:"Account that ACCOUNT acts as already, if another." placeholder:"NAME"`
	Database []string `help:"Compare in this database only; may be repeated (each that ACCOUNT uses)." placeholder:"NAME"`
	Apply    bool     `help:"Make the changes. Without --apply they are only shown."`
	Undo     bool     `help:"Remove the clone again; its objects go to the account. No secret may rotate it."`
	Secret   string   `help:"With --apply: the secret to create, with both credentials." placeholder:"NAME"`
	Version  string   `name:"version-id" help:"With --apply: ID of its first version." placeholder:"ID" default:"v1"`
	Password string   `name:"password-file" help:"Its password (in the secret, or stdin)." placeholder:"FILE" type:"path"`
}

func (c *targetPrepareAccounts) Run(e *env) error {
	in := &kms.PrepareTargetAccountsRequest{
		TargetName:       c.Name,
		AccountName:      c.Account,
		CloneAccountName: c.Clone,
		OwnerName:        c.Owner,
		Databases:        c.Database,
		Apply:            c.Apply,
		Undo:             c.Undo,
		SecretName:       c.Secret,
	}
	switch {
	case c.Undo && (c.Secret != "" || c.Password != ""):
		return coded{exitUsage, "--secret and --password-file make a clone; --undo takes neither"}
	case c.Undo:
	case c.Apply && c.Secret == "":
		return coded{exitUsage, "--apply needs --secret, the secret to make with both credentials"}
	case !c.Apply && c.Secret != "":
		return coded{exitUsage, "--secret goes with --apply; without it nothing is changed"}
	case c.Apply:
		in.VersionID = c.Version
	}
	client, err := e.connect()
	if err != nil {
		return err
	}
	out, err := c.call(e, client, in)
	if err != nil {
		return err
	}
	if err := c.print(e, out); err != nil {
		return err
	}
	if out.Applied && !out.Proven && !c.Undo {
		return coded{exitFailed, ""}
	}
	return nil
}

// call makes the call. It asks for the password only if the secret does not have it from an earlier
// call.
func (c *targetPrepareAccounts) call(
	e *env, client *kms.Client, in *kms.PrepareTargetAccountsRequest,
) (out *kms.PrepareTargetAccountsResponse, err error) {
	if c.Password == "" {
		out, err = client.PrepareTargetAccounts(e.ctx, in)
		if !c.Apply || !errors.Is(err, kms.ErrMissingParameter) {
			if err == nil && c.Apply && !c.Undo && e.isPiped() {
				fmt.Fprintf(e.stderr, "Standard input was not read: secret %s has the password of %s already.\n",
					c.Secret, c.Account)
			}
			return out, err
		}
	}
	in.AccountPassword, err = e.readLine(source{c.Password, "--password-file", "Password of " + c.Account + ": "})
	if err != nil {
		return nil, err
	}
	return client.PrepareTargetAccounts(e.ctx, in)
}

func (c *targetPrepareAccounts) print(e *env, out *kms.PrepareTargetAccountsResponse) error {
	if e.json() {
		return printResponse(e.stdout, out)
	}
	database := ""
	for _, s := range out.Statements {
		if s.DatabaseName != database {
			database = s.DatabaseName
			fmt.Fprintf(e.stdout, "-- in database %s, in one transaction\n", database)
		}
		end := ";"
		if strings.HasPrefix(s.Statement, "--") {
			end = "" // a comment
		}
		fmt.Fprintf(e.stdout, "%s%s\n", s.Statement, end)
	}
	for _, f := range out.Findings {
		fmt.Fprintf(e.stdout, "-- %s\n", f)
	}
	switch {
	case c.Undo && len(out.Statements) == 0:
		fmt.Fprintf(e.stdout, "Nothing was changed: there is no %s.\n", c.Clone)
	case c.Undo && out.Applied:
		fmt.Fprintf(e.stdout, "Done. %s is removed.\n", c.Clone)
	case c.Undo:
		fmt.Fprintf(e.stdout, "Nothing was changed; --undo --apply does it.\n")
	case out.Proven:
		fmt.Fprintf(e.stdout, "Done. Both logins are shown to be equal%s. Secret %s has their credentials.\n",
			within(out.Databases), out.SecretName)
		fmt.Fprintf(e.stdout, "Before its first rotation, point the applications of %s to %s: the present password of %[1]s "+
			"stops working when the grace period of that rotation ends.\n", c.Account, out.SecretName)
		if len(out.Consents) > 0 {
			fmt.Fprintf(e.stdout, "No rotation begins before you agree to what a check finds (%s):\n  %s\n",
				strings.Join(out.Consents, ", "), agreeing(out.SecretName, out.Consents))
		}
	case out.Applied && len(out.Databases) > 0:
		fmt.Fprintf(e.stdout, "Done. Both logins are shown to be equal%s, but a rotation is not possible yet.\n",
			within(out.Databases))
	case out.Applied:
		fmt.Fprintf(e.stdout, "Done, but the logins are not equal.\n")
	case len(out.Statements) == 0 && out.Refused == "":
		fmt.Fprintf(e.stdout, "Nothing was changed, and nothing has to be: %s acts as %s already.\n", c.Clone, c.Account)
	case out.Refused != "":
		fmt.Fprintf(e.stdout, "Nothing was changed, and --apply would be refused: %s\n", out.Refused)
	default:
		fmt.Fprintf(e.stdout, "Nothing was changed; --apply --secret NAME does it.\n")
	}
	return nil
}

// within says in which databases something is so.
func within(databases []string) string {
	switch len(databases) {
	case 0:
		return ""
	case 1:
		return " in database " + databases[0]
	}
	return " in databases " + strings.Join(databases, ", ")
}
