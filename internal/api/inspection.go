package api

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
)

// inspection is one check of a secret at its open target.
type inspection struct {
	*Call
	tx     *store.Tx
	secret secret.Secret
	record rotation.Record
	target store.Target
	system target.Target

	has     []target.Strategy // the strategies of the target
	method  method            // of the strategy that a rotation would use; zero where it cannot begin
	partner target.Credential // of the other account; without a secret where none is known to work
	check   rotation.Check

	emergency   bool  // the check is of an emergency
	isTaken     bool  // another secret rotates the account: nothing is asked with this one
	loginFailed bool  // a login was rejected, or may have been
	adminFailed bool  // a login of the administrator was: no further one is made
	silence     error // the last error that callers must not learn
}

// inspection opens the target of a secret to check a rotation there.
func (c *Call) inspection(s secret.Secret, r rotation.Record, t store.Target) (*inspection, error) {
	system, err := c.openFor(c.Snapshot, t, s, s.Stages[secret.Current])
	if err != nil {
		return nil, err
	}
	return c.inspecting(c.Snapshot, s, r, t, system), nil
}

func (c *Call) inspecting(
	tx *store.Tx, s secret.Secret, r rotation.Record, t store.Target, system target.Target,
) *inspection {
	k := &inspection{
		Call:   c,
		tx:     tx,
		secret: s,
		record: r,
		target: t,
		system: system,
		has:    c.strategies(t, system),
		check:  rotation.Check{At: c.At, Target: t.Name, Version: s.Stages[secret.Current]},
	}
	k.method, _ = c.methodFor(tx, s, t, k.has) // a finding says why a strategy has none
	k.check.Strategy = k.method.strategy
	if k.method.strategy == target.Double {
		k.partner = k.otherCredential()
	}
	return k
}

// otherCredential returns the credential of the account that is not in use, if it works now: one in
// the current value, which was never rotated, or the previous one in its grace period.
func (k *inspection) otherCredential() target.Credential {
	none := target.Credential{Account: k.method.account}
	versions := []string{k.method.base}
	if k.record.State == rotation.InGrace {
		versions = append(versions, k.record.Base)
	}
	for _, id := range versions {
		v, ok := k.secret.Versions[id]
		if !ok {
			continue
		}
		list, _, err := credentials(k.Env, k.tx, k.secret, v)
		if err != nil {
			continue
		}
		for _, c := range list {
			if c.Account == k.method.account {
				return c
			}
		}
	}
	return none
}

// previous returns the previous credential of an account that keeps it during a grace period; zero
// where there is none.
func (k *inspection) previous() (c target.Credential) {
	version, _, _ := k.record.Previous()
	v, ok := k.secret.Versions[version]
	if !ok || k.method.strategy == target.Double || !k.record.KeepsPrevious() {
		return c
	}
	if list, _, err := credentials(k.Env, k.tx, k.secret, v); err == nil && len(list) > 0 &&
		list[0].Account == k.method.current.Account {
		return list[0]
	}
	return c
}

// retired returns the account that a rotation has left without a credential; empty for none.
func (k *inspection) retired() string { return k.accountIn(k.tx, k.secret, k.record.Retired) }

// everything checks the account, and logs in as the application does.
func (k *inspection) everything(ctx context.Context) {
	k.account(ctx)
	if k.method.base != "" && k.check.Unchecked == "" && !k.isTaken {
		k.logIn(ctx)
	}
}

// refusal returns why the settings of a secret are refused: an account that rotations must not
// change, or a finding that makes a rotation with its strategy impossible. In a quarantine the
// credential in use is known not to work, and settings may be what the repair needs.
func (k *inspection) refusal() error {
	var serious []target.Finding
	for _, f := range k.check.Findings {
		switch {
		case f.Code == codeTaken: // the claim refuses that, and names the secret to a caller who may see it
		case f.Code == codeNotAllowed:
			return fault.New(fault.InUse, "%s", fault.Text(f.Text))
		case k.record.State == rotation.Quarantined && (f.Drift || f.Missing || f.Code == rotation.CodeLoginRejected):
		case f.Verdict == target.Impossible && f.Code != codeNotForSecret && f.Code != codeCheckDenied:
			serious = append(serious, f)
		}
	}
	if reason, ok := rotation.MayBegin(serious, k.method.strategy, nil); k.method.base != "" && !ok {
		return fault.New(fault.InUse, "Target %q cannot rotate secret %q with the strategy %s: %s",
			k.target.Name, k.secret.Name, k.method.strategy, fault.Text(reason))
	}
	return nil
}

// Codes of findings of this service itself.
const (
	codeNotAllowed   = "account-not-allowed"
	codeTaken        = "account-of-another-secret"
	codeNotForSecret = "strategy-not-for-secret"
	codeCheckDenied  = "check-denied"
	codeNotPrepared  = "accounts-not-prepared"
)

// add adds a finding, or its strategies to the same finding, with the name of the secret in its
// commands.
func (k *inspection) add(f target.Finding) {
	f = f.Named(k.secret.Name).Targeted(k.target.Name)
	same := func(g target.Finding) bool { return g.Code == f.Code && g.Account == f.Account && g.Text == f.Text }
	i := slices.IndexFunc(k.check.Findings, same)
	if i < 0 {
		k.check.Findings = append(k.check.Findings, f)
		return
	}
	if g := &k.check.Findings[i]; len(f.Strategies) == 0 {
		g.Strategies = nil
	} else if len(g.Strategies) > 0 {
		g.Strategies = append(slices.Clone(g.Strategies), f.Strategies...)
	}
}

// account checks what this service knows of the secret, and what the target says of its accounts.
// It does not log in as one of them.
func (k *inspection) account(ctx context.Context) {
	k.strategiesOfSecret()
	if k.method.base == "" {
		return
	}
	switch taken, other, err := k.taken(k.tx, k.secret, k.target, k.method.accounts); {
	case err != nil:
		k.check.Unchecked = cmp.Or(k.check.Unchecked, "the store did not answer")
		return
	case other != "":
		k.isTaken = true
		k.add(takenFinding(k.target, taken))
		return
	}
	err := k.admit(ctx, k.tx, k.target, k.system, k.secret.Name, k.method.accounts)
	switch text, final := Impossible(err); {
	case final:
		k.add(target.Finding{
			Code:    codeNotAllowed,
			Verdict: target.Impossible,
			Account: k.method.account,
			Text:    text,
		})
		return
	case err != nil:
		k.failed(err)
		return
	}
	findings, err := target.CheckAccount(ctx, k.system, target.CheckRequest{
		Secret:         k.secret.Name,
		Current:        k.method.current,
		Previous:       k.previous(),
		Partner:        k.partner.Account,
		Strategies:     k.has,
		Emergency:      k.emergency,
		PartnerRetired: !k.record.GoesOn() && k.partner.Account != "" && k.retired() == k.partner.Account,
	})
	for _, f := range findings {
		k.add(f)
	}
	if err != nil {
		k.failed(err)
	} else if _, asks := k.system.(target.Checker); asks {
		k.adminAccepted(k.target)
	}
}

// takenFinding is the finding that another secret rotates an account of a target. It does not name
// that one: a check is stored, also for callers who may not see it.
func takenFinding(t store.Target, account string) target.Finding {
	return target.Finding{
		Code:    codeTaken,
		Verdict: target.Impossible,
		Account: account,
		Text: fmt.Sprintf("The account %q of target %q is rotated by another secret already, and only one secret can "+
			"rotate it.", account, t.Name),
		Fix: "Rotate the account with that secret, or end that secret's rotation first. keyturn rotation list " +
			"--target=" + fault.ShellWord(t.Name) + " lists those that you may see.",
	}
}

// strategiesOfSecret adds a finding for each strategy of the target that the secret cannot use, and
// one if it can use none.
func (k *inspection) strategiesOfSecret() {
	for _, strategy := range k.has {
		s := k.secret
		settings := s.Settings()
		settings.Strategy = strategy
		s.Rotation.Settings = &settings
		m, err := k.methodFor(k.tx, s, k.target, k.has)
		text, final := Impossible(err)
		if err == nil && m.strategy != strategy {
			text, final = fmt.Sprintf("The type of secret %q asks for the strategy %s.", s.Name, m.strategy), true
		}
		if final {
			k.add(target.Finding{
				Code:       codeNotForSecret,
				Verdict:    target.Impossible,
				Strategies: []target.Strategy{strategy},
				Text:       text,
			})
		}
	}
	if _, err := k.methodFor(k.tx, k.secret, k.target, k.has); err != nil {
		if text, final := Impossible(err); final {
			k.add(target.Finding{Code: "cannot-begin", Verdict: target.Impossible, Text: text})
		}
	}
}

// failed notes that the target did not do what the check asked. An administrator that is refused
// makes every rotation impossible; without an answer nothing is known.
func (k *inspection) failed(err error) {
	answer := k.answerFor(k.target, err)
	k.adminFailed = k.adminFailed || target.IsAdminFailed(err)
	if _, withheld := target.ForCaller(err); withheld {
		k.silence = err
	}
	class := target.ClassOf(err)
	isDenied := class == target.Denied || class == target.Rejected || class == target.Refused
	// An emergency waits for its administrator.
	if isDenied && !(k.emergency && target.IsAdminRejected(err)) {
		k.add(deniedCheck(k.target, &answer))
		return
	}
	k.check.Unchecked = cmp.Or(k.check.Unchecked, fault.Named(answer.Error(), k.secret.Name))
}

// deniedCheck is the finding that a target does not let its administrator check an account.
func deniedCheck(t store.Target, why error) target.Finding {
	return target.Finding{
		Code:    codeCheckDenied,
		Verdict: target.Impossible,
		Text:    strings.TrimSuffix(why.Error(), ".") + ".",
		Fix:     "Check the administrator of target " + t.Name + ": " + fault.Command("target test", t.Name),
	}
}

// mayLogInWith returns why a record allows no login now; empty when it allows one. at is when it
// allows one, if that depends on the time alone.
func (k *inspection) mayLogInWith(r rotation.Record) (why string, at time.Time) {
	switch allowed := r.LoginAt(k.At); {
	case r.IsChanging():
		return fmt.Sprintf("a rotation is in state %s, so no login was made", r.State), at
	case allowed.After(k.At):
		return "a login had failed within the minute before, so none was made", allowed
	}
	return "", at
}

// logIn logs in as the application does: with the credential in use, and with the other account's.
func (k *inspection) logIn(ctx context.Context) {
	if k.record.RejectsBase() {
		f := k.deadCredential(k.method.current, target.Impossible,
			"it rejected a login at "+wholeSecond(k.record.LoginFailedAt))
		f.Fix = k.record.Advice()
		k.add(f)
		return
	}
	if why, at := k.mayLogInWith(k.record); why != "" {
		if k.check.Unchecked == "" {
			k.check.Unchecked, k.check.LoginAt = why, at
		}
		return
	}
	if !k.logInWith(ctx, k.method.current, target.Impossible) {
		return
	}
	if copied, ok := k.system.(target.Copied); ok && copied.Lag() > 0 {
		k.logInAtCopies(ctx, copied, k.method.current)
	}
	if !k.partner.Secret.IsZero() {
		k.logInWith(ctx, k.partner, target.Note)
	}
}

// logInAtCopies makes one login at every replica.
func (k *inspection) logInAtCopies(ctx context.Context, copied target.Copied, c target.Credential) {
	_, err := k.logInOnce(k.target, c.Account, func() error { return copied.VerifyCopies(ctx, c) })
	switch {
	case err == nil:
		return
	case fault.KindOf(err) == fault.Throttled:
		k.check.Unchecked = cmp.Or(k.check.Unchecked, err.Error())
		return
	}
	k.loginFailed = k.loginFailed || target.ClassOf(err).MayBeFailedLogin()
	if _, withheld := target.ForCaller(err); withheld {
		k.silence = err
	}
	answer := k.answerFor(k.target, err)
	text := "A replica does not let in the credential in use: " + answer.Error() + "."
	if _, withheld := target.ForCaller(err); withheld {
		known := k.Kinds[k.target.Kind].EndpointsOf(k.target.Config)
		at := k.secret.Settings().Login.At(known).Replicas().Addresses()
		text = "The replica at " + at[0] + " did not answer"
		if len(at) > 1 {
			text = "One of the replicas at " + strings.Join(at, ", ") + " did not answer"
		}
		text += ", so it is not known whether it lets in the credential in use."
	}
	k.add(target.Finding{
		Code:    rotation.CodeReplicaLogin,
		Verdict: target.Note,
		Account: c.Account,
		Text:    text,
	})
}

// logInWith makes one login, and reports whether it showed that the credential works. rejected is
// the verdict on a credential that does not.
func (k *inspection) logInWith(ctx context.Context, c target.Credential, rejected target.Verdict) bool {
	if k.inspect(ctx, c) == target.Dead {
		k.add(k.deadCredential(c, rejected, "its own state says so"))
		return false
	}
	_, err := k.logInOnce(k.target, c.Account, func() error { return k.system.Verify(ctx, c) })
	switch {
	case err == nil:
		return true
	case fault.KindOf(err) == fault.Throttled:
		k.check.Unchecked = cmp.Or(k.check.Unchecked, err.Error())
		return false
	}
	answer := k.answerFor(k.target, err)
	k.loginFailed = k.loginFailed || target.ClassOf(err).MayBeFailedLogin()
	switch target.ClassOf(err) {
	case target.Admitted:
		k.add(target.Finding{
			Code:    rotation.CodeNotAdmitted,
			Verdict: target.Note,
			Account: c.Account,
			Text:    "The target accepts the credential and refuses the session: " + answer.Error() + ".",
			Fix: fault.Message("If applications connect in another way: keyturn rotation configure %s with "+
				"--login-database or --login-endpoint.", k.secret.Name),
		})
		return true
	case target.Rejected:
		k.add(k.deadCredential(c, rejected, answer.Error()))
	case target.Denied, target.Refused:
		code := rotation.CodeLoginDenied
		if target.IsAuthenticated(err) {
			code = rotation.CodeLoginFails
		}
		k.add(target.Finding{
			Code:    code,
			Verdict: target.Impossible,
			Account: c.Account,
			Text:    "A login as the application makes it is not possible: " + answer.Error() + ".",
			Fix: cmp.Or(target.Allowing(err), fault.Message("Change that at the target, or configure how the "+
				"application connects: keyturn rotation configure %s with --login-endpoint, --login-database, --login-role or "+
				"--login-certificate-secret.", k.secret.Name)),
		})
	default:
		if _, withheld := target.ForCaller(err); withheld {
			k.silence = err
		}
		k.check.Unchecked = cmp.Or(k.check.Unchecked, "the login gave no proof: "+fault.Named(answer.Error(), k.secret.Name))
	}
	return false
}

func (k *inspection) deadCredential(c target.Credential, v target.Verdict, said string) target.Finding {
	f := target.Finding{
		Code:    rotation.CodeLoginRejected,
		Verdict: v,
		Account: c.Account,
		Text:    "The target does not accept the stored credential of " + c.Account + ": " + said + ".",
	}
	isClosed := func(f target.Finding) bool { return f.Closed && f.InUse }
	switch i := slices.IndexFunc(k.check.Findings, isClosed); {
	case v != target.Impossible:
	case k.record.State == rotation.Quarantined:
		f.Fix = fault.Command("rotation repair", k.secret.Name) + " shows how to continue."
	case i >= 0: // which may be the whole reason
		f.Fix = fmt.Sprintf("Fix the finding %s first. Then %s shows whether the target accepts the stored "+
			"credential.", k.check.Findings[i].Code, fault.Command("rotation probe", k.secret.Name))
	default:
		f.Fix = "Run " + fault.Command("rotation probe", k.secret.Name) + ", then " +
			fault.Command("rotation repair", k.secret.Name, "--adopt=FILE") + " with a file that has a credential that works."
	}
	return f
}

// checkAccount checks the account of a secret at its target without a login.
func (c *Call) checkAccount(
	ctx context.Context, s secret.Secret, r rotation.Record, t store.Target, emergency bool,
) (*inspection, error) {
	k, err := c.inspection(s, r, t)
	if err != nil {
		return nil, err
	}
	k.emergency = emergency
	defer func() { _ = k.system.Close() }() // nothing was changed
	k.ask(ctx, func(ctx context.Context) {
		k.account(ctx)
		if emergency {
			k.deniedBefore(ctx)
		}
	})
	return k, nil
}

// ask has the target asked within the time that a call waits for it.
func (k *inspection) ask(ctx context.Context, ask func(context.Context)) {
	bounded, ended := k.concealing(ctx, k.target, standingWait)
	ask(bounded)
	ended(k.silence)
}

// accountAndState is [inspection.account], and a finding if the target's own state shows that it
// does not accept the credential in use, unless a rotation is changing that. fix says what to do
// then; empty for a secret that is rotated.
func (k *inspection) accountAndState(ctx context.Context, fix string) {
	k.account(ctx)
	if k.method.base == "" || k.check.Unchecked != "" || k.isTaken || !k.record.Probeable() ||
		k.inspect(ctx, k.method.current) != target.Dead {
		return
	}
	f := k.deadCredential(k.method.current, target.Impossible, "its own state says so")
	f.Fix = cmp.Or(fix, f.Fix)
	k.add(f)
}

// inspect returns what the target's own state shows of a credential.
func (k *inspection) inspect(ctx context.Context, c target.Credential) target.Liveness {
	i, ok := k.system.(target.Inspector)
	if !ok || k.adminFailed {
		return target.NotKnown
	}
	seen, err := i.Inspect(ctx, []target.Credential{c})
	if err != nil || len(seen) != 1 {
		k.adminAnswered(k.target, err)
		k.adminFailed = target.IsAdminFailed(err)
		return target.NotKnown
	}
	if seen[0] != target.NotKnown { // the administrator has read it
		k.adminAccepted(k.target)
	}
	return seen[0]
}
