package rotation

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
)

// maxReasons is how many findings the reason of a rotation names.
const maxReasons = 3

// Check is the result of the last check of a secret's rotation.
type Check struct {
	At time.Time `json:"at"`
	// Target is where it was made.
	Target string `json:"target,omitempty"`
	// Findings are about the account, and about how its application logs in.
	Findings []target.Finding `json:"findings,omitempty"`
	// Unchecked says why the target could not be asked, so that nothing is known beyond Findings;
	// empty when it has answered.
	Unchecked string `json:"unchecked,omitempty"`
	// Version is the one whose credential was tried; empty in a check of an earlier release.
	Version string `json:"version,omitempty"`
	// LoginAt is when a login may be made that Unchecked says was not; zero for another reason.
	LoginAt time.Time `json:"login_at,omitzero"`
	// Strategy is the one that a rotation would use; empty when none could begin, when the target was
	// not asked, and in a check of an earlier release.
	Strategy target.Strategy `json:"strategy,omitempty"`
}

// CodeLoginRejected, and the others, are the codes of findings about one credential.
const (
	CodeLoginRejected = "login-rejected"
	CodeLoginDenied   = "login-denied"
	CodeLoginFails    = "login-fails"
	CodeNotAdmitted   = "login-not-admitted"
	CodeReplicaLogin  = "replica-login"
)

// ofOneCredential are the codes of what a check says no longer once another version is current.
var ofOneCredential = []string{
	CodeLoginRejected, CodeLoginDenied, CodeLoginFails, CodeNotAdmitted, CodeReplicaLogin, target.CodeNotOurs,
}

// For returns what of the check is still so at a time at which version is current: what was said of
// another credential is not. The account of a finding is no help, because a credential may be
// replaced within its account.
func (c Check) For(version string, now time.Time) Check {
	if c.Version != "" && c.Version != version {
		c.Unchecked = ""
		c.Findings = slices.DeleteFunc(slices.Clone(c.Findings), func(f target.Finding) bool {
			return slices.Contains(ofOneCredential, f.Code)
		})
	}
	if c.Unchecked != "" && !c.LoginAt.IsZero() {
		when := "now"
		if c.LoginAt.After(now) {
			when = "at " + c.LoginAt.UTC().Format(time.RFC3339)
		}
		c.Unchecked += "; the next login may be made " + when
	}
	return c
}

// afterRepair returns the check without the findings that the target does not accept the credential
// in use, which it has just accepted.
func (c *Check) afterRepair() *Check {
	if c == nil {
		return nil
	}
	after := *c
	after.Findings = slices.DeleteFunc(slices.Clone(c.Findings), func(f target.Finding) bool {
		return f.Drift || f.Missing || f.Code == CodeLoginRejected
	})
	return &after
}

// Verdict is what a check says of one strategy.
type Verdict string

// The verdicts, from the best to the worst.
const (
	// Safe means that nothing stands in the way of a rotation.
	Safe Verdict = "safe"
	// SafeWithConsent means that a rotation is safe once the operator has agreed to its findings.
	SafeWithConsent Verdict = "safe-with-consent"
	// NotChecked means that the target could not be asked.
	NotChecked Verdict = "unknown"
	// NotPossible means that something must change first.
	NotPossible Verdict = "impossible"
)

// appliesTo reports whether a finding is about a strategy.
func appliesTo(f target.Finding, strategy target.Strategy) bool {
	return len(f.Strategies) == 0 || slices.Contains(f.Strategies, strategy)
}

// HasDrift reports whether findings say that the account does not have the credential in use, or
// does not exist.
func HasDrift(findings []target.Finding) bool {
	return slices.ContainsFunc(findings, func(f target.Finding) bool { return f.Drift || f.Missing })
}

// Agreed reports whether consents has the token that a finding needs. A finding that needs none is
// agreed to, unless it makes the rotation impossible.
func Agreed(f target.Finding, consents []string) bool {
	switch f.Verdict {
	case target.Impossible:
		return false
	case target.NeedsConsent:
		return f.Consent != "" && slices.Contains(consents, f.Consent)
	}
	return true
}

// VerdictFor returns what findings say of a strategy, for a secret with these consents. unchecked
// reports that the target could not be asked.
func VerdictFor(findings []target.Finding, strategy target.Strategy, consents []string, unchecked bool) Verdict {
	verdict := Safe
	if unchecked {
		verdict = NotChecked
	}
	for _, f := range findings {
		switch {
		case !appliesTo(f, strategy), Agreed(f, consents):
		case f.Verdict == target.Impossible:
			return NotPossible
		case verdict == Safe:
			verdict = SafeWithConsent
		}
	}
	return verdict
}

// MayBegin reports whether a rotation with a strategy may send its candidate: no finding makes it
// impossible, and consents, the setting of the secret, agrees to every finding that needs it. The
// reason names what is in the way, and what to do. Notes stand in the way of nothing. See
// [fault.Named] for NAME in it.
func MayBegin(findings []target.Finding, strategy target.Strategy, consents []string) (reason string, ok bool) {
	var reasons []string
	for _, f := range findings {
		if !appliesTo(f, strategy) || Agreed(f, consents) {
			continue
		}
		text := f.Text
		if f.Fix != "" {
			text += " " + f.Fix
		}
		if f.Verdict == target.NeedsConsent {
			text += " To agree: keyturn rotation configure NAME --consent=" + f.Consent + "."
		}
		reasons = append(reasons, text)
	}
	if n := len(reasons); n > maxReasons {
		reasons = append(reasons[:maxReasons], fmt.Sprintf("Further findings: %d.", n-maxReasons))
	}
	return strings.Join(reasons, " "), len(reasons) == 0
}

// Open returns the findings for which a strategy lacks a consent.
func Open(findings []target.Finding, strategy target.Strategy, consents []string) (open []target.Finding) {
	for _, f := range findings {
		if isOpen(f, strategy, consents) {
			open = append(open, f)
		}
	}
	return open
}

func isOpen(f target.Finding, strategy target.Strategy, consents []string) bool {
	return f.Verdict == target.NeedsConsent && !Agreed(f, consents) && appliesTo(f, strategy)
}

// Overridable separates the findings that the holder of a leaked credential can bring about, for
// which an emergency does not wait, from the others: those for which a strategy lacks a consent,
// unless the rotation would change accounts of others, and what is wrong with the account in use. A
// strategy that proves the new credential before it replaces that account may begin with an account
// in any state, and single sets the password that is missing.
func Overridable(
	findings []target.Finding, strategy target.Strategy, consents []string,
) (overridable, others []target.Finding) {
	for _, f := range findings {
		caused := f.Drift || strategy != target.Single && f.InUse
		stops := f.Verdict == target.Impossible && caused && appliesTo(f, strategy)
		if stops || !f.Others && isOpen(f, strategy, consents) {
			overridable = append(overridable, f)
		} else {
			others = append(others, f)
		}
	}
	return overridable, others
}

// Overridden says in words which findings an emergency has not waited for; empty for none.
func Overridden(list []target.Finding) string {
	var codes []string
	for _, f := range list {
		codes = append(codes, f.Code+" of "+f.Account)
	}
	if n := len(codes); n > maxReasons {
		codes = append(codes[:maxReasons], fmt.Sprintf("%d more", n-maxReasons))
	}
	if len(codes) == 0 {
		return ""
	}
	return "in spite of " + strings.Join(codes, ", ") + ": an emergency does not wait for a correction or a consent"
}

// Outlasting returns what the holder of a leaked credential can use after an emergency with that
// strategy.
func Outlasting(list []target.Finding, strategy target.Strategy) []target.Finding {
	return slices.DeleteFunc(slices.Clone(list), func(f target.Finding) bool {
		return !f.Outlasts || !appliesTo(f, strategy)
	})
}

// maxOutlasting is how many findings the reason of an emergency has in full: statements are never
// cut, so their number is.
const maxOutlasting = 8

// Remaining says in sentences what an emergency leaves, see [Outlasting]; empty for nothing. name
// is the secret's.
func Remaining(list []target.Finding, strategy target.Strategy, name string) string {
	list = Outlasting(list, strategy)
	var texts []string
	for _, f := range list[:min(len(list), maxOutlasting)] {
		texts = append(texts, f.Text, f.Fix)
	}
	if n := len(list) - maxOutlasting; n > 0 {
		texts = append(texts, fmt.Sprintf("Further findings: %d; %s shows them.", n, fault.Command("rotation check", name)))
	}
	return strings.TrimSpace(strings.Join(texts, " "))
}

// NotRead says that [Remaining] is not known, and why. name is the secret's.
func NotRead(why, name string) string {
	return fault.Message("Keyturn could not read whether anything of the account outlasts this emergency (%s): "+
		"keyturn rotation check %s reads it again.", fault.Text(strings.TrimSuffix(why, ".")), name)
}

// NotReadAgain is NotRead where an earlier check had found before.
func NotReadAgain(before, why, name string) string {
	return strings.TrimSpace(before + " " + NotRead(why, name))
}

// Bounded returns the check with as many findings, and as much text, as a record may hold.
func (c Check) Bounded() Check {
	c.Findings, c.Unchecked = target.BoundedFindings(c.Findings), target.Clean(c.Unchecked)
	return c
}
