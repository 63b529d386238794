package api

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
)

// checkTime is how long a target has to answer everything that a check asks.
const checkTime = 20 * time.Second

// checkRotation checks whether a rotation of a secret would be safe. It changes nothing at the
// target. It logs in at most once with each credential, at each endpoint.
func checkRotation(
	ctx context.Context, c *Call, in *kms.SecretNameRequest,
) (*kms.CheckRotationResponse, error) {
	s, r, err := c.rotated(c.Snapshot, in.SecretName)
	if err != nil {
		return nil, err
	}
	if s.TargetName() == secret.OwnUsers {
		if err := c.takeCheck(ctx, s.Name); err != nil {
			return nil, err
		}
		return c.checkOwn(s, r)
	}
	t, err := c.existingTarget(c.Snapshot, s.TargetName())
	if err != nil {
		return nil, err
	}
	if !s.BoundTo(t.ID) {
		return nil, notBound(s, t.Name)
	}
	k, err := c.inspection(s, r, t)
	if err != nil {
		return nil, err
	}
	defer func() { _ = k.system.Close() }() // its answers are stored
	if k.record, err = c.startCheck(ctx, k); err != nil {
		return nil, err
	}
	bounded, ended := c.concealing(ctx, t, checkTime)
	k.everything(bounded)
	k.check = k.check.Bounded()
	ended(k.silence)
	if err := c.keepCheck(ctx, k, k.record.LoginFailedAt); err != nil {
		return nil, err
	}
	return k.answer(), nil
}

func notBound(s secret.Secret, targetName string) error {
	return fault.New(fault.InUse,
		"Secret %q is not bound to target %q, which was registered after the secret had named it: keyturn rotation "+
			"configure %s, or rotate, by a principal with %s on its accounts binds it.",
		s.Name, targetName, s.Name, actionRotateAccount)
}

// startCheck takes a check from the allowance of the secret, and reserves the login that may fail.
// Both are stored first, so neither simultaneous calls nor a crash make more logins. It returns the
// record as it was, by which the check judges whether it may log in.
func (c *Call) startCheck(ctx context.Context, k *inspection) (rotation.Record, error) {
	return store.Update(ctx, c.DB, func(tx *store.Tx) (rotation.Record, error) {
		s, r, err := c.rotated(tx, k.secret.Name)
		if err != nil {
			return r, err
		}
		if s, err = c.askCheck(s); err != nil {
			return r, err
		}
		if err := c.claimBound(tx, s, k.target); err != nil {
			_, _, other, _ := c.takenFrom(c.Snapshot, s)
			if fault.KindOf(err) != fault.Exists || other == "" { // a finding says the rest
				return r, err
			}
		}
		before := r
		if why, _ := k.mayLogInWith(r); why == "" {
			r = r.Trying(c.At)
			err = tx.PutRotation(&r)
		}
		return before, errors.Join(err, tx.PutSecret(s, nil))
	})
}

func (c *Call) askCheck(s secret.Secret) (secret.Secret, error) {
	return s.AskCheck(c.checkEvery(), c.At)
}

// checkEvery is how often a caller may have a target asked about a secret, after the first few
// times.
func (e *Env) checkEvery() time.Duration { return min(e.Rotation.RequestEvery, rotation.LoginWindow) }

// takeCheck takes a check from the allowance of a secret.
func (c *Call) takeCheck(ctx context.Context, name string) error {
	return store.Do(ctx, c.DB, func(tx *store.Tx) error {
		s, err := c.existing(tx, name)
		if err != nil {
			return err
		}
		if s, err = c.askCheck(s); err != nil {
			return err
		}
		return tx.PutSecret(s, nil)
	})
}

// keepCheck stores the result of a check, unless the credential or the target has changed
// meanwhile. lastFailed is when a login failed before the check.
func (c *Call) keepCheck(ctx context.Context, k *inspection, lastFailed time.Time) error {
	kept, err := store.Update(ctx, c.DB, func(tx *store.Tx) (*rotation.Check, error) {
		s, r, err := c.rotated(tx, k.secret.Name)
		if err != nil {
			return nil, err
		}
		if !k.loginFailed && r.LoginFailedAt.Equal(c.At) {
			r = r.NotFailed(lastFailed, c.At)
		}
		if s.Stages[secret.Current] != k.secret.Stages[secret.Current] || s.TargetName() != k.secret.TargetName() {
			return nil, fault.New(fault.InUse,
				"The credential of secret %q has changed during the check; repeat the call.", s.Name)
		}
		now, err := registered(tx, s.Account, s.TargetName(), s.UserName())
		if err == nil && now != registrationOf(k.target) {
			err = targetChanged(s.TargetName())
		}
		if err != nil {
			return nil, err
		}
		r.Check = keepingNotPrepared(r.Check, &k.check)
		return r.Check, tx.PutRotation(&r)
	})
	if err == nil {
		k.check = *kept
	}
	return err
}

// answer returns the result of a check.
func (k *inspection) answer() *kms.CheckRotationResponse {
	consents := k.secret.Settings().Consents
	out := &kms.CheckRotationResponse{
		SecretName: k.secret.Name,
		TargetName: k.target.Name,
		CheckTime:  k.check.At,
		Unchecked:  k.check.For(k.check.Version, k.At).Unchecked,
	}
	findings := k.check.Findings
	if k.record.State == rotation.Quarantined {
		findings = append([]target.Finding{quarantinedFinding(k.record)}, findings...)
	}
	out.Findings = shownFindings(findings, consents)
	for _, strategy := range k.has {
		row := kms.CheckedStrategy{
			Strategy: string(strategy),
			Verdict:  string(rotation.VerdictFor(findings, strategy, consents, k.check.Unchecked != "")),
			Window:   k.windowOf(strategy),
			Consents: []string{},
		}
		for _, f := range rotation.Open(k.check.Findings, strategy, consents) {
			if f.Consent != "" && !slices.Contains(row.Consents, f.Consent) {
				row.Consents = append(row.Consents, f.Consent)
			}
		}
		if strategy == k.method.strategy {
			out.Strategy, out.Verdict = row.Strategy, row.Verdict
		}
		out.Strategies = append(out.Strategies, row)
	}
	out.Verdict = cmp.Or(out.Verdict, string(rotation.NotPossible))
	return out
}

// quarantinedFinding says that a rotation is quarantined. It is not part of the check that is
// stored: it holds until the repair.
func quarantinedFinding(r rotation.Record) target.Finding {
	since := ""
	if at := r.QuarantinedAt(); !at.IsZero() {
		since = " since " + at.UTC().Format(time.RFC3339)
	}
	return target.Finding{
		Code:    kms.FindingQuarantined,
		Verdict: target.Impossible,
		Text:    "Quarantined" + since + ": " + strings.TrimSuffix(r.Reason, ".") + ".",
		Fix:     fault.Command("rotation repair", r.Secret) + " explains what can be done.",
	}
}

func shownFindings(list []target.Finding, consents []string) []kms.RotationFinding {
	out := []kms.RotationFinding{}
	for _, f := range list {
		row := kms.RotationFinding{
			Code:        f.Code,
			Verdict:     string(f.Verdict),
			Strategies:  []string{},
			AccountName: f.Account,
			Text:        f.Text,
			Fix:         f.Fix,
			Consent:     f.Consent,
			Agreed:      f.Verdict == target.NeedsConsent && rotation.Agreed(f, consents),
			Outlasts:    f.Outlasts,
		}
		for _, s := range f.Strategies {
			row.Strategies = append(row.Strategies, string(s))
		}
		out = append(out, row)
	}
	return out
}

// MayBegin returns an error of a kind that ends the rotation if a check of the account finds that
// its candidate must not be sent. Without an answer it returns the target's error. A candidate that
// may have reached the target is sent again without a check: what it left there, such as a second
// password at one of several hosts, would be a finding that keeps the rotation from completing it.
// An emergency does not wait for what the holder of the leaked credential can bring about: the
// event says in words what that is, and what the emergency leaves that the holder can use. With an
// error, its Base says whether the account was found to lack the credential in use.
func (t *Turn) MayBegin(
	ctx context.Context, system target.Target, sending rotation.Event,
) (rotation.Event, error) {
	if t.Record.Mode == rotation.Reapply || t.Record.MayHaveArrived() {
		return sending, nil
	}
	request, err := t.checkRequest(system)
	if err != nil {
		return sending, err
	}
	findings, err := t.findings(ctx, system, request)
	if err != nil {
		return sending, err
	}
	sending.Checked = true
	strategy, consents := t.Record.Strategy, t.Secret.Settings().Consents
	if t.Record.Trigger == rotation.Emergency {
		sending.Outlasts = rotation.Remaining(findings, t.Record.Strategy, t.Secret.Name)
		var list []target.Finding
		list, findings = rotation.Overridable(findings, strategy, consents)
		sending.Text = rotation.Overridden(list)
	}
	if reason, ok := rotation.MayBegin(findings, strategy, consents); !ok {
		if rotation.HasDrift(findings) {
			sending.Base = target.Dead
		}
		return sending, fault.New(fault.InUse, "%s keyturn rotation check %s shows all findings.",
			fault.Text(fault.Named(reason, t.Secret.Name)), t.Secret.Name)
	}
	return sending, nil
}

// Outlasts says in words what the holder of a leaked credential can use once the emergency has
// ended. With two accounts, the leaked one is no longer the one in use; with two credentials of one
// account, the leaked one may be accepted elsewhere.
func (t *Turn) Outlasts(ctx context.Context, system target.Target) (string, error) {
	request, err := t.checkRequest(system)
	if err != nil {
		return "", err
	}
	if t.Secret.TargetName() != secret.OwnUsers {
		if request.Leaked, err = t.Credential(t.Record.Base); err != nil {
			return "", err
		}
		if t.Record.Strategy == target.Double {
			request.Current, request.Partner = request.Leaked, request.Current.Account
		}
	}
	findings, err := t.findings(ctx, system, request)
	return rotation.Remaining(findings, t.Record.Strategy, t.Secret.Name), err
}

// findings checks an account without a login.
func (t *Turn) findings(
	ctx context.Context, system target.Target, request target.CheckRequest,
) ([]target.Finding, error) {
	findings, err := target.CheckAccount(ctx, system, request)
	if _, asks := system.(target.Checker); asks && err == nil {
		t.AdminAccepted()
	}
	for i, f := range findings {
		findings[i] = f.Targeted(t.Secret.TargetName())
	}
	return findings, err
}

// checkRequest returns what a check of the account under rotation asks.
func (t *Turn) checkRequest(system target.Target) (r target.CheckRequest, err error) {
	r.Secret = t.Secret.Name
	r.Strategies = []target.Strategy{t.Record.Strategy}
	r.Emergency = t.Record.Trigger == rotation.Emergency
	if t.Secret.TargetName() == secret.OwnUsers {
		r.Current, err = t.Credential(t.Secret.Stages[secret.Current])
		return r, err
	}
	k := t.call(t.purpose()).inspecting(t.tx, t.Secret, t.Record, t.Target, system)
	r.Current, r.Partner = k.method.current, k.partner.Account
	return r, nil
}

// Check checks a secret on which no rotation is under way, and returns what puts the result into
// its record. Unless loggedIn says that a login has just succeeded, it logs in as the application
// does.
func (t *Turn) Check(
	ctx context.Context, system target.Target, loggedIn bool,
) (into func(rotation.Record) rotation.Record) {
	k := t.call(t.purpose()).inspecting(t.tx, t.Secret, t.Record, t.Target, system)
	if loggedIn {
		k.account(ctx)
	} else {
		k.everything(ctx)
	}
	k.check = k.check.Bounded()
	return func(r rotation.Record) rotation.Record {
		if r.Check == nil || !r.Check.At.After(k.check.At) { // else a caller has just checked it
			r.Check = keepingNotPrepared(r.Check, &k.check)
		}
		if k.loginFailed {
			r.LoginFailedAt = k.At
		}
		return r
	}
}
