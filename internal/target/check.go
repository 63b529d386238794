package target

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/sensitive"
)

// Verdict says what a finding means for a rotation.
type Verdict string

// The verdicts, from the least to the most serious.
const (
	// Note is worth knowing and stands in the way of nothing.
	Note Verdict = "note"
	// NeedsConsent means that a rotation changes something besides the secret part of the credential,
	// or that applications may notice it: it happens only after the operator has agreed.
	NeedsConsent Verdict = "needs-consent"
	// Impossible means that a rotation cannot be done safely until something has changed.
	Impossible Verdict = "impossible"
)

// Finding is one thing that a check found about an account.
type Finding struct {
	// Code is a stable token of lower-case words with hyphens, such as "login-denied".
	Code string `json:"code"`
	// Verdict applies to the strategies in Strategies; empty means to all.
	Verdict    Verdict    `json:"verdict"`
	Strategies []Strategy `json:"strategies,omitempty"`
	// Account is the account at the target, in the target's own form.
	Account string `json:"account,omitempty"`
	// Text is a whole sentence that says what was found and where. It holds no secret.
	Text string `json:"text"`
	// Fix says what to do: a statement to run at the target, or a setting to give; empty for most
	// notes.
	Fix string `json:"fix,omitempty"`
	// Consent is the value of a secret's rotation setting Consent that agrees to this finding: Code
	// for NeedsConsent, empty otherwise.
	Consent string `json:"consent,omitempty"`
	// Drift says that the account does not have the credential in use. The holder of a leaked
	// credential can bring that about, so an emergency does not wait for its correction.
	Drift bool `json:"drift,omitempty"`
	// Missing says that the account in use does not exist, so that its credential is not accepted, and
	// that no rotation is possible before it is created.
	Missing bool `json:"missing,omitempty"`
	// Closed says that no login of Account succeeds before the fix.
	Closed bool `json:"closed,omitempty"`
	// InUse says that Account is the one in use, in whatever form the target shows it: see
	// [CheckRequest.OfCurrent].
	InUse bool `json:"in_use,omitempty"`
	// Others says that a rotation changes accounts that may belong to others than the secret's
	// applications, and that no holder of its credential can bring that about: an emergency waits for
	// the consent of the operator.
	Others bool `json:"others,omitempty"`
	// Outlasts says that the holder of a leaked credential can, by what was found, become active
	// again after an emergency, which leaves it.
	Outlasts bool `json:"outlasts,omitempty"`
}

// CodeNotOurs is the code of the finding that the account that the secret does not use has a
// password that Keyturn did not set.
const CodeNotOurs = "password-not-ours"

// CheckRequest says what to check.
type CheckRequest struct {
	// Current is the credential that applications use now.
	Current Credential
	// Previous is the credential of the same account that the rotation under way retires later; zero
	// for none. It is not one that Keyturn does not know.
	Previous Credential
	// Leaked is the credential that an emergency has made useless for the account; zero otherwise. A
	// check reports accounts that it still opens.
	Leaked Credential
	// Partner is the other account of strategy Double; empty without one.
	Partner string
	// PartnerRetired says that a rotation has left Partner without a password, and that Keyturn has
	// sent it none since.
	PartnerRetired bool
	// Strategies are those to judge: the kind's that the secret may use.
	Strategies []Strategy
	// Secret is the name of the secret, for the commands of findings: see [Named].
	Secret string
	// Emergency says that a leaked credential is replaced. It does not wait for the answer of an
	// endpoint that could at most add a finding which needs consent.
	Emergency bool
}

// Reopening completes the fix of an account that is closed, after which its credential works again:
// in an emergency, that is the leaked one.
func (r CheckRequest) Reopening(fix string) string {
	if !r.Emergency {
		return fix
	}
	return strings.TrimSuffix(fix, ".") +
		". The leaked credential works again from then on, so repeat the emergency at once."
}

// Known returns the secrets of the account that Keyturn knows.
func (r CheckRequest) Known() []sensitive.Value {
	if r.Previous.Secret.IsZero() {
		return []sensitive.Value{r.Current.Secret}
	}
	return []sensitive.Value{r.Current.Secret, r.Previous.Secret}
}

// Checker is a target that can read whether a rotation of an account would be safe.
type Checker interface {
	// CheckAccount reads the account and its partner at the target, and reports what a rotation would
	// meet: the form of the credential, several records for one name, limits, expiry, options that
	// hang on the credential, other places where credentials live, dependents. It changes nothing and
	// does not log in as the account: the engine does that with [Target.Verify]. Errors are of the
	// classes of [Target]; what the administrator may not read is a finding, not an error.
	CheckAccount(ctx context.Context, r CheckRequest) ([]Finding, error)
}

// Bounds of what a check may find.
const (
	maxFindings    = 32
	maxFindingText = 600
)

// CheckAccount asks a target that is a [Checker], and returns nothing for any other. The target
// decides part of what a finding says, so each text is one line of printable characters with
// at most 600 of them, and without the credential in use. There are at most 32 findings, the most
// serious first.
func CheckAccount(ctx context.Context, t Target, r CheckRequest) ([]Finding, error) {
	checker, ok := t.(Checker)
	if !ok {
		return nil, nil
	}
	list, err := checker.CheckAccount(ctx, r)
	for i, f := range list {
		list[i] = f.Named(r.Secret)
	}
	return BoundedFindings(list, r.Current.Secret), err
}

// Named returns f with the name of a secret in its commands, see [fault.Named].
func (f Finding) Named(secret string) Finding {
	f.Text, f.Fix = fault.Named(f.Text, secret), fault.Named(f.Fix, secret)
	return f
}

// Targeted returns f with the name of a target in its commands, see [fault.Targeted].
func (f Finding) Targeted(name string) Finding {
	f.Text, f.Fix = fault.Targeted(f.Text, name), fault.Targeted(f.Fix, name)
	return f
}

// BoundedFindings returns the most serious findings, with texts that can be stored and shown. It
// cuts a text that is too long, and leaves out such a fix, because a part of a command is none: see
// [WholeStatements].
func BoundedFindings(list []Finding, secrets ...sensitive.Value) []Finding {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b Finding) int { return cmp.Compare(b.seriousness(), a.seriousness()) })
	list = list[:min(len(list), maxFindings)]
	for i := range list {
		f := &list[i]
		if !FixFits(f.Fix, secrets...) {
			f.Fix = longFix
		}
		for _, text := range []*string{&f.Text, &f.Fix, &f.Account} {
			*text = cleanTo(maxFindingText, *text, secrets)
		}
	}
	return list
}

// longFix stands for a fix that is too long to be shown.
const longFix = "The statements are longer than a finding can show."

// FixFits reports whether a finding can show a fix.
func FixFits(fix string, secrets ...sensitive.Value) bool {
	return utf8.RuneCountInString(oneLine(fix, secrets)) <= maxFindingText
}

// WholeStatements returns the first of the statements, in full and separated by sep, for which a
// fix has space beside its other text, and how many it leaves out.
func WholeStatements(
	statements []string, sep, besides string, secrets ...sensitive.Value,
) (shown string, left int) {
	for i := range statements {
		more := strings.Join(statements[:i+1], sep)
		if !FixFits(besides+" "+more, secrets...) {
			return shown, len(statements) - i
		}
		shown = more
	}
	return shown, 0
}

// seriousness orders findings. Of notes, those come first that matter after a leak.
func (f Finding) seriousness() int {
	switch {
	case f.Verdict == Impossible:
		return 3
	case f.Verdict == NeedsConsent:
		return 2
	case f.Outlasts:
		return 1
	}
	return 0
}

// Windower is a target that can say how long a credential may be refused with a strategy.
type Windower interface {
	// Window is a sentence such as "One commit: a login with the old password is refused after it."
	Window(s Strategy) string
}
