package target

import "errors"

// Findings collects what a check finds about one account. [CheckRequest.OfCurrent] and
// [CheckRequest.OfPartner] begin it.
type Findings struct {
	// Account is the account in the target's own form.
	Account string
	List    []Finding
	inUse   bool
	request CheckRequest
}

// OfCurrent begins the findings about the account in use.
func (r CheckRequest) OfCurrent() *Findings {
	return &Findings{Account: r.Current.Account, inUse: true, request: r}
}

// OfPartner begins the findings about the other account of strategy Double.
func (r CheckRequest) OfPartner() *Findings { return &Findings{Account: r.Partner} }

// Note adds a finding that stands in the way of nothing.
func (f *Findings) Note(code, text string, strategies ...Strategy) {
	f.Add(Finding{Code: code, Verdict: Note, Strategies: strategies, Text: text})
}

// Outlasting is Note for what the holder of a leaked credential can use after an emergency, see
// [Finding.Outlasts].
func (f *Findings) Outlasting(code, text, fix string, strategies ...Strategy) {
	f.Note(code, text, strategies...)
	f.last().Fix = fix
	f.LastOutlasts()
}

// LastOutlasts says of the finding that was added last that the holder of a leaked credential can
// use it after an emergency, see [Finding.Outlasts].
func (f *Findings) LastOutlasts() { f.last().Outlasts = true }

// LastMissing says of the finding that was added last that the account in use does not exist, see
// [Finding.Missing].
func (f *Findings) LastMissing() { f.last().Missing = true }

// last returns the finding that was added last, to complete it.
func (f *Findings) last() *Finding { return &f.List[len(f.List)-1] }

// Impossible adds a finding that something must change first.
func (f *Findings) Impossible(code, text, fix string, strategies ...Strategy) {
	f.Add(Finding{Code: code, Verdict: Impossible, Strategies: strategies, Text: text, Fix: fix})
}

// Drifted adds a finding that the account does not have the credential in use.
func (f *Findings) Drifted(code, text, fix string) {
	f.Add(Finding{Code: code, Verdict: Impossible, Text: text, Fix: fix, Drift: true})
}

// NeedsConsent adds a finding that the operator must agree to. Its code is the token that agrees to
// it, which [Kind.Consents] lists.
func (f *Findings) NeedsConsent(code, text, fix string, strategies ...Strategy) {
	f.Add(Finding{
		Code:       code,
		Verdict:    NeedsConsent,
		Strategies: strategies,
		Text:       text,
		Fix:        fix,
		Consent:    code,
	})
}

// Closed is Impossible for an account with which no login succeeds before the fix, see
// [CheckRequest.Reopening].
func (f *Findings) Closed(code, text, fix string) {
	f.Impossible(code, text, f.request.Reopening(fix))
	f.last().Closed = true
}

// ChangesOthers is NeedsConsent for a change to accounts that may belong to others than the
// secret's applications, see [Finding.Others].
func (f *Findings) ChangesOthers(code, text, fix string, strategies ...Strategy) {
	f.NeedsConsent(code, text, fix, strategies...)
	f.last().Others = true
}

// Denied turns an error of class Denied, which an operator can correct, into a finding. It returns
// any other error, one of a failed login of the administrator, which its caller counts, and one of
// the server's egress rules, which fix does not correct.
func (f *Findings) Denied(code string, err error, fix string) error {
	var e *Error
	if !errors.As(err, &e) || e.Class != Denied || IsAdminFailed(err) || e.Code == CodeEgress {
		return err
	}
	f.Impossible(code, "A rotation would fail: "+TextForCaller(err)+".", fix)
	return nil
}

// Add adds a finding, and says whose it is.
func (f *Findings) Add(found Finding) {
	found.Account, found.InUse = f.Account, f.inUse
	f.List = append(f.List, found)
}
