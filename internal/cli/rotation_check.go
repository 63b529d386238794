package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/kms"
)

type rotationCheck struct {
	Name string `arg:"" help:"Name or ARN of the secret."`
}

// Help explains what the answer means.
func (*rotationCheck) Help() string {
	return "Logs in at the target as the application does, with the credential in use, and reads what a rotation " +
		"would meet there. Nothing is changed. For each strategy the answer is safe, safe-with-consent (agree with " +
		"keyturn rotation configure NAME --consent=TOKEN), impossible, or unknown if the target did not answer.\n\n" +
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
	} else if err = printCheck(e.stdout, out); err == nil {
		err = printConsent(e, out)
	}
	if err == nil && out.Verdict != kms.VerdictSafe {
		err = coded{exitFailed, ""}
	}
	return err
}

func printCheck(w io.Writer, out *kms.CheckRotationResponse) error {
	fmt.Fprintf(w, "A rotation of %s at target %s, strategy %s: %s.\n", out.SecretName, out.TargetName,
		cmp.Or(out.Strategy, "none"), out.Verdict)
	isQuarantine := func(f kms.RotationFinding) bool { return f.Code == kms.FindingQuarantined }
	if i := slices.IndexFunc(out.Findings, isQuarantine); i >= 0 {
		fmt.Fprintf(w, "%s\n%s\n", out.Findings[i].Text, out.Findings[i].Fix)
	}
	if out.Unchecked != "" {
		fmt.Fprintf(w, "Not checked: %s.\n", strings.TrimSuffix(out.Unchecked, "."))
	}
	fmt.Fprintln(w)
	t := newTable("STRATEGY", "VERDICT", "WINDOW")
	for _, s := range out.Strategies {
		verdict, why, window := s.Verdict, s.Consents, s.Window
		if s.Verdict == kms.VerdictImpossible {
			why, window = impediments(out.Findings, s.Strategy), ""
		}
		if len(why) > 0 {
			verdict += " (" + strings.Join(why, ", ") + ")"
		}
		t.row(s.Strategy, verdict, window)
	}
	if err := t.write(w); err != nil {
		return err
	}
	own, others := findingsOf(out.Strategy, slices.DeleteFunc(slices.Clone(out.Findings), isQuarantine))
	if err := printFindings(w, own); err != nil || len(others) == 0 {
		return err
	}
	fmt.Fprintf(w, "\nAbout strategies that rotations of %s do not use:\n", out.SecretName)
	return printFindings(w, others)
}

// findingsOf separates the findings about a strategy from those about other strategies alone.
// Without a strategy, all are about it. The table of strategies of a check says which ones the
// secret cannot use.
func findingsOf(strategy string, list []kms.RotationFinding) (own, others []kms.RotationFinding) {
	for _, f := range list {
		switch {
		case f.Code == notForSecret:
		case strategy == "" || len(f.Strategies) == 0 || slices.Contains(f.Strategies, strategy):
			own = append(own, f)
		default:
			others = append(others, f)
		}
	}
	return own, others
}

// impediments returns the codes of the findings that make a strategy impossible.
func impediments(list []kms.RotationFinding, strategy string) []string {
	var codes []string
	for _, f := range list {
		applies := len(f.Strategies) == 0 || slices.Contains(f.Strategies, strategy)
		if applies && f.Verdict == kms.VerdictImpossible && !slices.Contains(codes, f.Code) {
			codes = append(codes, f.Code)
		}
	}
	return codes
}

// notForSecret is the code of a strategy that a secret cannot use.
const notForSecret = "strategy-not-for-secret"

// printConsent prints the command that agrees to what the strategy of the secret lacks consent for.
func printConsent(e *env, out *kms.CheckRotationResponse) error {
	var missing []string
	for _, s := range out.Strategies {
		if s.Strategy == out.Strategy && s.Verdict != kms.VerdictImpossible { // something else comes first there
			missing = s.Consents
		}
	}
	if len(missing) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(e.stdout, "\nTo agree to everything that %s needs:\n  %s\n",
		out.Strategy, agreeing(out.SecretName, missing))
	return err
}

// agreeing returns the command that gives consents.
func agreeing(secret string, tokens []string) string {
	var flags []string
	for _, token := range tokens {
		flags = append(flags, "--consent", token)
	}
	return fault.Command("rotation configure", secret, flags...)
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
