package cli

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/keyturn/keyturn/kms"
)

type rotationCheck struct {
	Name string `arg:"" help:"Name or ARN of the secret."`
}

// Help explains what the answer means.
func (*rotationCheck) Help() string {
	return "Logs in at the target as the application does, with the credential in use, and reads what a rotation " +
		"would meet there. Nothing is changed. For each strategy the answer is safe, safe-with-consent (agree with " +
		"keyturn rotation configure --consent), impossible, or unknown if the target did not answer.\n\n" +
		"Exits with 1 unless a rotation now is safe."
}

func (c *rotationCheck) Run(e *env) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	out, err := client.CheckRotation(e.ctx, &kms.SecretNameRequest{SecretName: c.Name})
	if err != nil {
		return err
	}
	if e.json() {
		err = printResponse(e.stdout, out)
	} else {
		err = printCheck(e.stdout, out)
	}
	if err == nil && out.Verdict != kms.VerdictSafe {
		err = coded{exitFailed, ""}
	}
	return err
}

func printCheck(w io.Writer, out *kms.CheckRotationResponse) error {
	fmt.Fprintf(w, "A rotation of %s at target %s, strategy %s: %s.\n", out.SecretName, out.TargetName,
		cmp.Or(out.Strategy, "none"), out.Verdict)
	if out.Unchecked != "" {
		fmt.Fprintf(w, "Not checked: %s.\n", strings.TrimSuffix(out.Unchecked, "."))
	}
	fmt.Fprintln(w)
	t := newTable("STRATEGY", "VERDICT", "WINDOW")
	for _, s := range out.Strategies {
		verdict := s.Verdict
		if len(s.Consents) > 0 {
			verdict += " (" + strings.Join(s.Consents, ", ") + ")"
		}
		t.row(s.Strategy, verdict, s.Window)
	}
	if err := t.write(w); err != nil {
		return err
	}
	return printFindings(w, out.Findings)
}

func printFindings(w io.Writer, list []kms.RotationFinding) error {
	for _, f := range list {
		verdict := f.Verdict
		if f.Agreed {
			verdict += ", agreed"
		}
		if len(f.Strategies) > 0 {
			verdict += ", " + strings.Join(f.Strategies, " and ")
		}
		fmt.Fprintf(w, "\n%s (%s)\n  %s\n", f.Code, verdict, f.Text)
		if f.Fix != "" {
			fmt.Fprintf(w, "  %s\n", f.Fix)
		}
		if f.Consent != "" && !f.Agreed {
			fmt.Fprintf(w, "  To agree: --consent %s\n", f.Consent)
		}
	}
	return nil
}
