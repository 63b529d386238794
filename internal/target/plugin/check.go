package plugin

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// MaxFindings is the number of findings that an answer to the step check may have. An answer with
// more breaks the protocol: leaving one out could leave out the one that matters.
const MaxFindings = 20

// FindingPrefix begins the code of each finding of a plug-in, and the consent to it, so that none
// is taken for a finding of this service.
const FindingPrefix = "plugin-"

// Leaves says what an emergency leaves: this service does not know the system behind a plug-in.
const Leaves = "The plug-in decides what of the account is replaced: look for other credentials and open sessions of " +
	"the account at its system."

// Consents stands for all consents that a plug-in may ask for.
const Consents = FindingPrefix + "*"

// finding is one member of findings in an answer.
type finding struct {
	Code    string `json:"code"`
	Verdict string `json:"verdict"`
	Message string `json:"message"`
	Fix     string `json:"fix"`
	Account string `json:"account"`
}

var verdicts = []target.Verdict{target.Note, target.NeedsConsent, target.Impossible}

var codeForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,39}$`)

// CheckAccount is the step check where the plug-in has it. Otherwise a note says that nothing was
// asked.
func (t *Target) CheckAccount(ctx context.Context, r target.CheckRequest) ([]target.Finding, error) {
	f := r.OfCurrent()
	if !t.Settings.Checks {
		f.Note("check-not-made", "The plug-in was not asked what hangs on the credential, such as scopes, address lists "+
			"and expiry. Where it has the step check, set check to true in the configuration of the target.")
		return f.List, nil
	}
	q := request{Step: Check, Account: r.Current.Account, Old: wire(r.Current), Partner: r.Partner}
	answer, err := t.ask(ctx, q)
	if err != nil {
		return nil, err
	}
	for _, said := range answer.Findings {
		of := r.OfCurrent()
		if said.Account != r.Current.Account {
			of = r.OfPartner() // readFindings permits no third one
		}
		said.addTo(of)
		f.List = append(f.List, of.List...)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.window = answer.Window
	return f.List, nil
}

// addTo adds the finding to others, in the words that [Target.readFindings] has left of it.
func (f finding) addTo(to *target.Findings) {
	text := "The plug-in says: " + sentence(f.Message)
	if f.Message == "" {
		text = fmt.Sprintf("The plug-in reports %q; without TLS, its words are not shown.", f.Code)
	}
	code := FindingPrefix + f.Code
	switch target.Verdict(f.Verdict) {
	case target.Impossible:
		to.Impossible(code, text, f.Fix)
	case target.NeedsConsent:
		to.NeedsConsent(code, text, f.Fix)
	default:
		to.Note(code, text)
	}
}

// Window says how long a credential may be refused: in the plug-in's words, if its last answer to
// the step check has some.
func (t *Target) Window(s target.Strategy) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.window != "":
		return "The plug-in says: " + sentence(t.window)
	case s == target.Single:
		return "A login with the old credential is refused from the moment at which the plug-in's step set takes effect."
	}
	return "None: the plug-in leaves the old credential alone until its step retire."
}

// readFindings checks what an answer to the step check has, and leaves of its words what may be
// shown. It returns what is wrong with the answer; empty for nothing.
func (r *reply) readFindings(q request, proven bool, secrets []sensitive.Value) string {
	if len(r.Findings) > MaxFindings {
		return fmt.Sprintf("%d findings, and at most %d are read", len(r.Findings), MaxFindings)
	}
	for i := range r.Findings {
		f := &r.Findings[i]
		if wrong := f.read(q, proven, secrets); wrong != "" {
			return fmt.Sprintf("finding %d with %s", i+1, wrong)
		}
	}
	r.Window = shown(r.Window, proven, secrets)
	return ""
}

func (f *finding) read(q request, proven bool, secrets []sensitive.Value) string {
	if f.Account == "" {
		f.Account = q.Account
	}
	switch {
	case !codeForm.MatchString(f.Code):
		return "a code that is not 1 to 40 lower-case letters, digits and hyphens"
	case !slices.Contains(verdicts, target.Verdict(f.Verdict)):
		return "a verdict that is none of note, needs-consent and impossible"
	case f.Account != q.Account && (q.Partner == "" || f.Account != q.Partner):
		return "an account that was not asked for"
	}
	f.Message = shown(f.Message, proven, secrets)
	f.Fix = shown(f.Fix, proven, secrets)
	if f.Message == "" && proven {
		return "no message"
	}
	return ""
}

// shown returns what operators may read of a plug-in's words: one bounded line of printable
// characters without secrets, and nothing of a sender that has not proved its identity.
func shown(text string, proven bool, secrets []sensitive.Value) string {
	if !proven {
		return ""
	}
	return target.Said(text, secrets...)
}

// sentence returns a text with a period at its end.
func sentence(text string) string {
	if strings.HasSuffix(text, ".") {
		return text
	}
	return text + "."
}

var (
	_ target.Checker  = (*Target)(nil)
	_ target.Windower = (*Target)(nil)
)
