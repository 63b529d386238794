package messy

import (
	"regexp"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
)

// check asks the product beforehand what a rotation would meet.
func (f *performance) check() {
	f.t.Helper()
	release := func() {}
	if f.occupy != nil {
		release = f.occupy(f.current())
	}
	r, err := f.CheckRotation(f.t.Context(), &kms.SecretNameRequest{SecretName: f.secret})
	release()
	good(f.t, err)
	f.said, f.safe = r, r.Verdict == kms.VerdictSafe && !f.misled
	f.count("check_"+r.Verdict, 1)
	for _, s := range r.Strategies {
		f.count("check_"+s.Strategy+"_"+s.Verdict, 1)
	}
	var words []string
	for _, finding := range r.Findings {
		words = append(words, finding.Code)
		if finding.Verdict != string(target.Note) {
			f.count("check_finding:"+finding.Code, 1)
		}
	}
	f.t.Logf("the check says %s: %s %s", r.Verdict, strings.Join(words, ", "), r.Unchecked)
	f.same("after the check", f.current())
}

// checked returns what the last check has said of the strategy that a rotation would use.
func (f *performance) checked() (s kms.CheckedStrategy) {
	for _, s = range f.said.Strategies {
		if s.Strategy == f.said.Strategy {
			return s
		}
	}
	return kms.CheckedStrategy{}
}

// windowless reports whether the check has said that no credential is refused at any time.
func (f *performance) windowless() bool {
	return f.said != nil && strings.HasPrefix(f.checked().Window, "None")
}

// consent shows that a rotation does not begin without the consents that the check names, and gives
// them as an operator would. It reports whether the check says that it is safe then.
func (f *performance) consent() bool {
	f.t.Helper()
	missing := f.checked().Consents
	if f.rotate() {
		f.fails(f.t, "check_missed_a_consent", "a rotation began without %s", strings.Join(missing, ", "))
	}
	if f.t.Failed() || !*full || !f.agrees(missing) {
		return false
	}
	in := kms.ConfigureRotationRequest{SecretName: f.secret, Consents: missing}
	if _, err := f.ConfigureRotation(f.t.Context(), &in); err != nil {
		f.fails(f.t, "check_missed_a_consent", "the consents %s were not taken: %v", strings.Join(missing, ", "), err)
		return false
	}
	f.agreed = append(f.agreed, missing...)
	f.count("agreed", 1)
	for _, consent := range missing {
		f.count("agreed:"+consent, 1)
	}
	f.check()
	if f.said.Verdict != kms.VerdictSafe {
		f.fails(f.t, "check_missed_a_consent", "with the consents %s the check says %s", strings.Join(missing, ", "),
			f.said.Verdict)
	}
	return f.safe
}

// agrees reports whether the scene says what each of the consents lets a rotation change.
func (f *performance) agrees(consents []string) bool {
	for _, consent := range consents {
		if _, ok := f.changes[consent]; !ok {
			return false
		}
	}
	return true
}

// others compares what the check has said of each other strategy with what comes of it.
func (f *performance) others() {
	f.t.Helper()
	if f.t.Failed() {
		return
	}
	f.check() // a rotation may have ended what a finding was about, such as a second password
	for _, s := range f.said.Strategies {
		if f.t.Failed() || s.Strategy == string(f.strategy) {
			continue
		}
		in := kms.ConfigureRotationRequest{SecretName: f.secret, Strategy: s.Strategy, GracePeriod: "1h", GraceLimit: "1h"}
		if s.Strategy == string(target.Single) {
			in.GracePeriod, in.GraceLimit = "0s", "0s"
		}
		f.safe = s.Verdict == kms.VerdictSafe
		_, err := f.ConfigureRotation(f.t.Context(), &in)
		f.same("after a change of the strategy to "+s.Strategy, f.current())
		if err != nil {
			if f.safe {
				f.fails(f.t, "check_said_safe_and_was_not", "strategy %s: %v", s.Strategy, err)
			}
			continue
		}
		f.check()
		if f.said.Strategy != s.Strategy {
			continue // the type of the secret decides
		}
		f.strategy = target.Strategy(s.Strategy)
		if f.said.Verdict != s.Verdict && f.said.Verdict != kms.VerdictUnknown {
			f.fails(f.t, "check_said_safe_and_was_not", "strategy %s: the check said %s before, and %s now", s.Strategy,
				s.Verdict, f.said.Verdict)
			return
		}
		if f.rotate() && s.Verdict == kms.VerdictImpossible {
			f.fails(f.t, "check_said_impossible_and_was_not", "strategy %s", s.Strategy)
		}
		return // it was about the strategy before
	}
}

// reasons are the codes of the findings that are in the way of a rotation, or the text without
// them.
func (f *performance) reasons(text string) (codes []string) {
	if f.said != nil {
		for _, finding := range f.said.Findings {
			if finding.Verdict != string(target.Note) && !finding.Agreed && f.concerns(finding) {
				codes = append(codes, finding.Code)
			}
		}
	}
	if len(codes) == 0 {
		return []string{short(text)}
	}
	slices.Sort(codes)
	return slices.Compact(codes)
}

// concerns reports whether a finding is about the strategy of the secret.
func (f *performance) concerns(finding kms.RotationFinding) bool {
	return len(finding.Strategies) == 0 || slices.Contains(finding.Strategies, f.said.Strategy)
}

// refused counts why the product did not rotate.
func (f *performance) refused(reason string) {
	f.t.Helper()
	if f.safe {
		f.fails(f.t, "check_said_safe_and_was_not", "%s", reason)
	}
	f.count("refused", 1)
	for _, key := range f.reasons(reason) {
		f.count("refused:"+key, 1)
	}
	f.t.Logf("refused: %s; traits: %s", reason, strings.Join(f.traits, ", "))
}

var (
	quoted = regexp.MustCompile(`"[^"]*"|'[^']*'|\bs[0-9]+|_s[0-9]+|[0-9]+|[0-9a-f-]{36}`)
	spaces = regexp.MustCompile(`[^A-Za-z]+`)
)

// short is a reason without what differs between scenes, as one word.
func short(reason string) string {
	reason = quoted.ReplaceAllString(reason, "")
	key := strings.Trim(spaces.ReplaceAllString(strings.ToLower(reason), "-"), "-")
	return key[:min(len(key), 70)]
}
