package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/cmk"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// prepared returns the resources of PrepareTargetAccounts: the target with its administrator, the
// accounts that are read and changed there, the collection of secrets when one is to be made, and
// that secret, on which a right is needed when an earlier call has made it.
func prepared(c *Call, in *kms.PrepareTargetAccountsRequest, list []resource) ([]resource, error) {
	list, err := c.andAdmin(list, in.TargetName)
	if err != nil {
		return nil, err
	}
	list, err = c.andChanges(list, secret.Secret{}, changes{in.TargetName, preparedAccounts(in)})
	if err != nil {
		return nil, err
	}
	if !in.Apply || in.Undo {
		return list, nil
	}
	list = append(list, resource{arn: c.containerARN()})
	if in.SecretName, err = c.secretName(in.SecretName); err != nil {
		return nil, err
	}
	_, there, err := c.Snapshot.Secret(c.Account(), in.SecretName, c.At)
	own := c.secretResource(in.SecretName)
	if !there {
		own = own.unlessDenied()
	}
	return append(list, own), err
}

// preparation is one call of PrepareTargetAccounts.
type preparation struct {
	*Call
	in      *kms.PrepareTargetAccountsRequest
	target  store.Target
	system  target.Target
	by      target.Preparer
	request target.PlanRequest
	out     *kms.PrepareTargetAccountsResponse
}

// prepareTargetAccounts makes two logins of equal rights from one. It stores both credentials
// before it sends the second one to the target, and readers of the secret get the first one, which
// works before, during and after the change. So a call that was interrupted loses nothing, and a
// repeated call continues it. The rotation of the secret is paused until the accounts are proven
// equal.
func prepareTargetAccounts(
	ctx context.Context, c *Call, in *kms.PrepareTargetAccountsRequest,
) (*kms.PrepareTargetAccountsResponse, error) {
	if err := checkPreparation(in); err != nil {
		return nil, err
	}
	t, err := c.existingTarget(c.Snapshot, in.TargetName)
	if err != nil {
		return nil, err
	}
	system, _, err := c.openTarget(c.Snapshot, t)
	if err != nil {
		return nil, err
	}
	defer func() { _ = system.Close() }() // its answers are returned or stored
	by, ok := system.(target.Preparer)
	if !ok {
		return nil, fault.New(fault.Unsupported, "A target of kind %q cannot make two accounts from one.", t.Kind)
	}
	p := &preparation{Call: c, in: in, target: t, system: system, by: by}
	if err := errors.Join(p.mayUndo(), p.knowPassword()); err != nil {
		return nil, err
	}
	if err := p.admits(ctx, preparedAccounts(in)); err != nil {
		return nil, err
	}
	p.request = planRequest(in)
	plan, err := by.PlanAccounts(ctx, p.request)
	if err != nil {
		return nil, p.refused(err, "")
	}
	if err := p.mayChange(ctx, plan.Others); err != nil {
		return nil, err
	}
	p.describe(plan)
	if !in.Apply {
		return p.out, p.mayClaim(plan)
	}
	if in.Undo {
		return p.out, p.undo(ctx, plan)
	}
	if err := p.othersRotate(); err != nil {
		return nil, err
	}
	return p.out, p.apply(ctx, plan)
}

// admits refuses accounts that the rules of this service or of the target do not let rotations
// change.
func (p *preparation) admits(ctx context.Context, accounts []string) error {
	err := p.admitWithin(ctx, defaultTestTime, p.target, p.system, p.in.SecretName, accounts)
	if err == nil || fault.KindOf(err) == fault.InUse {
		return err
	}
	return p.refused(err, "")
}

// mayChange judges the caller's rights on accounts that the request does not name, as for those
// that it names: only the plan knows them.
func (p *preparation) mayChange(ctx context.Context, others []string) error {
	if len(others) == 0 {
		return nil
	}
	resources, err := p.accountResources(changes{p.target.Name, others})
	if err == nil {
		err = p.gate.permits(p.Call, resources)
	}
	if err != nil {
		return err
	}
	return p.admits(ctx, others)
}

// mayUndo refuses to remove a clone that a secret rotates, and says how that secret lets go of it.
func (p *preparation) mayUndo() error {
	if !p.in.Undo {
		return nil
	}
	clone := p.in.CloneAccountName
	_, name, err := p.taken(p.Snapshot, secret.Secret{Account: p.Account()}, p.target, []string{clone})
	if err != nil || name == "" {
		return err
	}
	s, _, err := p.Snapshot.Secret(p.Account(), name, p.At)
	if err != nil {
		return err
	}
	switch shown, err := p.mayDescribe(name); {
	case err != nil:
		return err
	case !shown:
		return fault.New(fault.InUse, "A secret whose name you have no right to see (%s) rotates account %q of target %q.",
			actionDescribeSecret, clone, p.target.Name)
	}
	release := "detach it: " + fault.Command("rotation detach", name)
	if s.Managed() {
		release = fault.Message("store its credential in another secret, which applications then read, and delete this one "+
			"without recovery (a secret that can be restored keeps its accounts): keyturn secret delete %s --now", name)
	}
	return fault.New(fault.InUse, "Secret %q rotates account %q of target %q. When it serves %q (otherwise: keyturn "+
		"rotation rotate %s --wait, then keyturn rotation end-grace %s), %s",
		name, clone, p.target.Name, p.in.AccountName, name, name, fault.Text(release))
}

// knowPassword takes the password of the account from the secret, where an earlier call like this
// one has stored it.
func (p *preparation) knowPassword() error {
	if !p.in.Apply || p.in.Undo || !p.in.AccountPassword.IsZero() {
		return nil
	}
	s, ok, err := p.Snapshot.Secret(p.Account(), p.in.SecretName, p.At)
	if err != nil {
		return err
	}
	if !ok || s.Deleting() {
		return fault.Required("AccountPassword")
	}
	list, err := p.pair(p.Snapshot, s)
	if err == nil {
		p.in.AccountPassword = list[0].Secret
	}
	return err
}

// mayClaim says in the answer to a call without Apply which other secret rotates one of the
// accounts already, because a call with Apply is refused then. One that such a call has made is no
// other.
func (p *preparation) mayClaim(plan target.Plan) error {
	if len(plan.Steps) == 0 || p.in.Undo {
		return nil
	}
	for _, account := range []string{p.in.AccountName, p.in.CloneAccountName} {
		_, name, err := p.taken(p.Snapshot, secret.Secret{Account: p.Account()}, p.target, []string{account})
		if err != nil {
			return err
		}
		if name == "" {
			continue
		}
		r, _, err := p.Snapshot.Rotation(p.Account(), name)
		if err != nil {
			return err
		}
		if command, _ := continuing(r); command != "" {
			continue
		}
		refusal := p.claimed(p.target, account, name)
		if fault.KindOf(refusal) != fault.Exists {
			return refusal
		}
		p.out.Refused = refusal.Error()
		return nil
	}
	return nil
}

// othersRotate refuses accounts that another secret rotates, before one of them logs in.
func (p *preparation) othersRotate() error {
	own := secret.Secret{Account: p.Account(), Name: p.in.SecretName}
	account, other, err := p.taken(p.Snapshot, own, p.target, []string{p.in.AccountName, p.in.CloneAccountName})
	if err != nil || other == "" {
		return err
	}
	return p.claimed(p.target, account, other)
}

// undo removes the clone.
func (p *preparation) undo(ctx context.Context, plan target.Plan) error {
	if err := p.by.ApplyPlan(ctx, plan); err != nil {
		return p.refused(err, "")
	}
	p.out.Applied = true
	return nil
}

func planRequest(in *kms.PrepareTargetAccountsRequest) target.PlanRequest {
	return target.PlanRequest{
		Account:   in.AccountName,
		Owner:     in.OwnerName,
		Logins:    [2]string{in.AccountName, in.CloneAccountName},
		Databases: in.Databases,
		Undo:      in.Undo,
		Current:   target.Credential{Account: in.AccountName, Secret: in.AccountPassword},
	}
}

// preparedAccounts returns the accounts that a request names.
func preparedAccounts(in *kms.PrepareTargetAccountsRequest) []string {
	names := []string{in.AccountName, in.CloneAccountName}
	if in.OwnerName != "" {
		names = append(names, in.OwnerName)
	}
	return names
}

func checkPreparation(in *kms.PrepareTargetAccountsRequest) error {
	switch {
	case in.AccountName == in.CloneAccountName:
		return fault.Parameter("CloneAccountName", "name another account than AccountName.")
	case in.Undo && (in.SecretName+in.VersionID != "" || !in.AccountPassword.IsZero()):
		return fault.Parameter("Undo", "SecretName, VersionId and AccountPassword are for a call that makes a clone.")
	case in.Undo:
		return nil
	case in.Apply && in.SecretName == "":
		return fault.Required("SecretName")
	case in.Apply && in.VersionID == "":
		return fault.Required("VersionId")
	case !in.Apply && in.SecretName+in.VersionID != "":
		return fault.Parameter("Apply", "SecretName and VersionId are for a call with Apply true; "+
			"without it nothing is changed and no secret made.")
	}
	return nil
}

// refused returns the error of a call whose target has not done what it was asked. advice, if any,
// ends the message.
func (p *preparation) refused(err error, advice string) error {
	return fault.Wrap(fault.InUse, err, "Target %q: %s%s", p.target.Name, fault.Text(p.said(err)), fault.Text(advice))
}

// said returns what a caller may learn of a target's error, and logs the rest for the operator.
func (p *preparation) said(err error) string {
	p.note(p.target, err)
	return fault.Targeted(fault.Named(target.TextForCaller(err), p.in.SecretName), p.target.Name)
}

func (p *preparation) describe(plan target.Plan) {
	p.out = &kms.PrepareTargetAccountsResponse{
		TargetName: p.target.Name,
		OwnerName:  plan.Owner,
		Findings:   append([]string{}, plan.Notes...),
		Statements: []kms.TargetStatement{},
	}
	switch {
	case len(plan.Steps) > 0:
	case p.in.Apply && !p.in.Undo: // the clone gets its password nevertheless
		p.out.Findings = append(p.out.Findings, fault.Message("%s acts as %s already, and was given the password that "+
			"secret %s has for it", p.in.CloneAccountName, p.in.AccountName, p.in.SecretName))
	default:
		p.out.Findings = append(p.out.Findings, "nothing has to be done")
	}
	for _, step := range plan.Steps {
		for _, s := range step.Statements {
			p.out.Statements = append(p.out.Statements, kms.TargetStatement{DatabaseName: step.Database, Statement: s})
		}
	}
}

// adviceNoSession follows the refusal of a session, which proves the password.
const adviceNoSession = ". The password is right, but no session of %q can be opened, and the comparison of before " +
	"and after needs one. Close a session or raise the limit until this call has succeeded, and check that the target's " +
	"settings name a database that this account may open."

// apply stores both credentials, and then carries out the plan.
func (p *preparation) apply(ctx context.Context, plan target.Plan) error {
	one := p.request.Current
	again, err := p.logInOnce(p.target, one.Account, func() error { return p.system.Verify(ctx, one) })
	if err != nil {
		if fault.KindOf(err) == fault.Throttled {
			return err
		}
		next := fmt.Sprintf(". Try again after %s: Keyturn causes at most one failed login a minute.", wholeSecond(again))
		switch class := target.ClassOf(err); {
		case class == target.Rejected:
			return fault.Parameter("AccountPassword", "target %q does not accept it: %s%s", p.target.Name, p.said(err), next)
		case class == target.Admitted:
			return p.refused(err, fmt.Sprintf(adviceNoSession, one.Account))
		case class.MayBeFailedLogin():
			return p.refused(err, next)
		}
		if advice := target.Allowing(err); advice != "" {
			return p.refused(err, ". "+fault.Targeted(advice, p.target.Name))
		}
		return p.refused(err, "")
	}
	other, err := p.second(ctx, one)
	if err != nil {
		return err
	}
	if other, err = p.store(ctx, one, other); err != nil {
		return err
	}
	if err := p.applyPlan(ctx, plan, one, other); err != nil {
		return p.ends(ctx, err, fmt.Sprintf(". Both credentials are in secret %q, whose rotation is paused; "+
			"repeat the call to continue.", p.in.SecretName))
	}
	p.out.Applied = true
	proof := plan.Request
	proof.Owner = plan.Owner
	return p.prove(ctx, proof, one, other)
}

// second generates the credential of the other account.
func (p *preparation) second(ctx context.Context, one target.Credential) (target.Credential, error) {
	generator, ok := p.system.(target.Generator)
	if !ok {
		return target.Credential{Account: p.in.CloneAccountName, Secret: secret.ManagedPassword()}, nil
	}
	other, err := generator.Generate(ctx, p.in.CloneAccountName, one, p.Random)
	if err != nil {
		return other, fmt.Errorf("generate a credential: %w", err)
	}
	return other, nil
}

// applyPlan carries out the plan at the target, gives the second account its credential, and logs
// in with both.
func (p *preparation) applyPlan(ctx context.Context, plan target.Plan, one, other target.Credential) error {
	if err := p.by.ApplyPlan(ctx, plan); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(p.Account() + "\x00" + p.in.SecretName + "\x00" + p.in.VersionID))
	change := target.Change{ID: "prepare-" + hex.EncodeToString(sum[:16]), Strategy: target.Double, New: other, Old: one}
	if err := p.system.Apply(ctx, change); err != nil {
		return err
	}
	for _, c := range []target.Credential{one, other} {
		if err := p.system.Verify(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// prove compares both accounts, and resumes the rotation of the secret when they are equal. A
// difference is an answer and not an error.
func (p *preparation) prove(ctx context.Context, r target.PlanRequest, one, other target.Credential) error {
	proof, err := p.by.ProveAccounts(ctx, r, one, other)
	switch {
	case target.ClassOf(err) == target.Denied && err != nil:
		p.staysPaused(append([]string{p.said(err)}, p.causes(ctx)...)...)
		return p.unfinished(ctx, target.TextForCaller(err))
	case err != nil:
		return p.ends(ctx, err, ". All is set up but not proven; repeat the call to prove it.")
	}
	p.out.Databases = proof.Databases
	p.out.Findings = append(p.out.Findings, proof.Left...)
	check, reason, err := p.check(ctx)
	if err != nil {
		return err
	}
	p.out.Proven = reason == ""
	if !p.out.Proven {
		p.staysPaused(reason)
	} else if err := p.needsConsents(check); err != nil {
		return err
	}
	paused := false
	err = p.keep(ctx, func(r rotation.Record) rotation.Record {
		r.Check = &check
		if !p.out.Proven {
			r = p.notPrepared(r, "a rotation is not possible yet")
			r.Check = keepingNotPrepared(r.Check, &check)
		}
		if p.out.Proven {
			r.Preparing = nil
		}
		if p.out.Proven && r.IsPreparing() { // to end any other pause takes a right of its own
			r = r.WithPause(nil)
		}
		paused = r.Paused
		return r
	})
	if p.out.Proven && paused {
		p.out.Findings = append(p.out.Findings, fault.Message("the rotation of secret %s stays paused, because another call "+
			"than this one has paused it; keyturn rotation resume %s resumes it", p.in.SecretName, p.in.SecretName))
	}
	return err
}

// needsConsents says in the answer what an operator must agree to before a rotation begins.
func (p *preparation) needsConsents(check rotation.Check) error {
	s, err := p.existing(p.Snapshot, p.in.SecretName)
	if err != nil {
		return err
	}
	for _, f := range rotation.Open(check.Findings, target.Double, s.Settings().Consents) {
		p.out.Findings = append(p.out.Findings, f.Code+": "+strings.TrimSpace(f.Text+" "+f.Fix))
		if !slices.Contains(p.out.Consents, f.Consent) {
			p.out.Consents = append(p.out.Consents, f.Consent)
		}
	}
	return nil
}

func (p *preparation) staysPaused(why ...string) {
	p.out.Findings = append(append(p.out.Findings, why...),
		"the rotation of secret "+p.in.SecretName+" stays paused; fix this and repeat the call")
}

// causes returns what a check finds that can make two logins unequal, such as a policy that reads
// session_user, and the command that shows all. A check that fails leaves only that.
func (p *preparation) causes(ctx context.Context) (list []string) {
	check, _, err := p.check(ctx)
	if err != nil {
		check = rotation.Check{}
	}
	for _, f := range rotation.Open(check.Findings, target.Double, nil) {
		list = append(list, "the cause may be "+f.Code+": "+f.Text)
	}
	return append(list, fault.Command("rotation check", p.in.SecretName)+" shows all findings")
}

// ends returns the error of a call that ends before the accounts are proven, and stores why the
// rotation stays paused. advice ends the message.
func (p *preparation) ends(ctx context.Context, err error, advice string) error {
	return errors.Join(p.refused(err, advice), p.unfinished(ctx, target.TextForCaller(err)))
}

// unfinished stores why the rotation of the secret is paused, which the call that completes the
// accounts replaces with a check.
func (p *preparation) unfinished(ctx context.Context, why string) error {
	return p.keep(ctx, func(r rotation.Record) rotation.Record {
		return p.notPrepared(r, why)
	})
}

// keepTimeout bounds how long a call that is over takes to store what came of it.
const keepTimeout = 5 * time.Second

// keep stores what came of the call, also when its caller has gone or its time is over.
func (p *preparation) keep(ctx context.Context, change func(rotation.Record) rotation.Record) error {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepTimeout)
	defer cancel()
	return p.changeRotation(bounded, change)
}

// notPrepared returns the record of a rotation that is paused until the accounts are proven equal.
func (p *preparation) notPrepared(r rotation.Record, why string) rotation.Record {
	r.Preparing = &rotation.Preparing{Continue: p.command(), GiveUp: p.givingUp()}
	r.Clone = p.in.CloneAccountName
	f := target.Finding{
		Code:    codeNotPrepared,
		Verdict: target.Impossible,
		Account: p.in.CloneAccountName,
		Text: "The accounts are not prepared, because prepare-accounts is not finished: " +
			fault.Targeted(fault.Named(why, p.in.SecretName), p.target.Name) + ".",
		Fix: r.Preparing.Continue + continues + " To give up: " + r.Preparing.GiveUp + ".",
	}
	if target.BoundedFindings([]target.Finding{f})[0].Fix != f.Fix { // a part of a command is none
		f.Fix = fault.Command("rotation resume", p.in.SecretName) + " names the command that continues, and those that " +
			"give up."
	}
	check := rotation.Check{At: p.At, Target: p.target.Name, Findings: []target.Finding{f}}.Bounded()
	r.Check = &check
	return r
}

// continues follows the command in the fix of the finding of notPrepared.
const continues = " continues."

// givingUp returns the commands that remove what the call has made: the secret, and then the clone,
// which the secret keeps.
func (p *preparation) givingUp() string {
	return fault.Command("secret delete", p.in.SecretName, "--now") + ", then " +
		removingClone(p.target.Name, p.in.AccountName, p.in.CloneAccountName)
}

// removingClone returns the command that removes the clone of an account.
func removingClone(targetName, account, clone string) string {
	return fault.Command("target prepare-accounts", targetName,
		"--account="+account, "--clone="+clone, "--undo", "--apply")
}

// command returns the command that repeats the call.
func (p *preparation) command() string {
	flags := []string{"--account=" + p.in.AccountName, "--clone=" + p.in.CloneAccountName}
	if p.in.OwnerName != "" {
		flags = append(flags, "--owner="+p.in.OwnerName)
	}
	for _, name := range p.in.Databases {
		flags = append(flags, "--database="+name)
	}
	flags = append(flags, "--secret="+p.in.SecretName, "--version-id="+p.in.VersionID, "--apply")
	return fault.Command("target prepare-accounts", p.target.Name, flags...)
}

// continuing returns the command that completes the preparation of the accounts of r, and those
// that give it up; empty if there is none to complete.
func continuing(r rotation.Record) (command, giveUp string) {
	if r.Check == nil {
		return "", ""
	}
	i := slices.IndexFunc(r.Check.Findings, isNotPrepared)
	switch {
	case i < 0:
		return "", ""
	case r.Preparing == nil: // of an earlier release
		f := r.Check.Findings[i]
		if command, _, whole := strings.Cut(f.Fix, continues); whole {
			return command, ""
		}
		return fault.Command("target prepare-accounts", r.Check.Target,
			"--account=ACCOUNT", "--clone="+f.Account, "--secret="+r.Secret, "--apply"), ""
	}
	return r.Preparing.Continue, r.Preparing.GiveUp
}

// codeNoAccount is the code with which targets report that there is no such account.
const codeNoAccount = "no-such-account"

// keepingNotPrepared returns a check that replaces an earlier one; either is nil for none. It keeps
// the finding that the accounts are not proven equal yet, which says how the second one is made. A
// missing second account is therefore not reported separately.
func keepingNotPrepared(before, check *rotation.Check) *rotation.Check {
	if before == nil {
		return check
	}
	i := slices.IndexFunc(before.Findings, isNotPrepared)
	if i < 0 {
		return check
	}
	kept := rotation.Check{At: before.At, Target: before.Target}
	if check != nil {
		kept = *check
	}
	same := func(f target.Finding) bool {
		return f.Code == codeNoAccount && f.Account == before.Findings[i].Account
	}
	kept.Findings = slices.DeleteFunc(slices.Clone(kept.Findings), same)
	return withFirst(before.Findings[i], kept)
}

func isNotPrepared(f target.Finding) bool { return f.Code == codeNotPrepared }

// check checks a rotation between the two accounts. reason says what makes it impossible; empty for
// nothing. Findings that need consent are left to ConfigureRotation.
func (p *preparation) check(ctx context.Context) (check rotation.Check, reason string, err error) {
	p.Snapshot = store.Snapshot(ctx, p.DB) // the secret may be new
	s, r, err := p.rotated(p.Snapshot, p.in.SecretName)
	if err != nil {
		return check, "", err
	}
	k, err := p.checkAccount(ctx, s, r, p.target, false)
	if err != nil {
		return check, "", err
	}
	if why := k.check.Unchecked; why != "" {
		err := fault.New(fault.InUse, "Target %q: %s. All is set up but not checked; repeat the call to check it.",
			p.target.Name, why)
		return check, "", errors.Join(err, p.unfinished(ctx, why))
	}
	serious := slices.DeleteFunc(slices.Clone(k.check.Findings), func(f target.Finding) bool {
		return f.Verdict != target.Impossible
	})
	reason, _ = rotation.MayBegin(serious, target.Double, nil)
	return k.check.Bounded(), reason, nil
}

// changeRotation changes the record of the rotation of the secret.
func (p *preparation) changeRotation(ctx context.Context, change func(rotation.Record) rotation.Record) error {
	return store.Do(ctx, p.DB, func(tx *store.Tx) error { return p.changeRotationIn(tx, change) })
}

func (p *preparation) changeRotationIn(tx *store.Tx, change func(rotation.Record) rotation.Record) error {
	s, err := p.existing(tx, p.in.SecretName)
	if err != nil {
		return err
	}
	r, err := p.rotationOf(tx, s)
	if err != nil {
		return err
	}
	r = change(r)
	return tx.PutRotation(&r)
}

// store seals both credentials as a new secret, or finds those that an earlier call has stored.
func (p *preparation) store(ctx context.Context, one, other target.Credential) (target.Credential, error) {
	config, err := json.Marshal(map[string]string{"SecretSubType": "DoubleUsers", "DBInstanceId": p.target.Name})
	if err != nil {
		return other, fmt.Errorf("write ExtendedConfig: %w", err)
	}
	data := twoAccounts(one, other)
	spec, err := secret.Spec{
		Name:           p.in.SecretName,
		Type:           kms.TypeRds,
		DataType:       kms.DataText,
		ExtendedConfig: string(config),
		LeastInterval:  p.Rotation.LeastInterval,
		Data:           data,
	}.Check()
	if err != nil {
		return other, err
	}
	p.resource = p.secretResource(spec.Name)
	p.concerns(p.in.VersionID, string(secret.Current))
	p.out.SecretName, p.out.VersionID = spec.Name, p.in.VersionID
	key, err := p.defaultKey(ctx)
	if err != nil {
		return other, err
	}
	return store.Update(ctx, p.DB, func(tx *store.Tx) (target.Credential, error) {
		s, ok, err := tx.Secret(p.Account(), spec.Name, p.At)
		switch {
		case err != nil:
			return other, err
		case ok && !s.Deleting():
			return p.stored(tx, s, one)
		}
		return other, p.storeNew(tx, key, spec, data)
	})
}

func twoAccounts(list ...target.Credential) sensitive.Value {
	type account struct{ AccountName, AccountPassword string }
	accounts := []account{}
	for _, c := range list {
		accounts = append(accounts, account{c.Account, c.Secret.Reveal()})
	}
	text, err := json.Marshal(map[string]any{"Accounts": accounts})
	if err != nil {
		panic("api: " + err.Error()) // strings alone: cannot fail
	}
	return sensitive.New(string(text))
}

// storeNew creates the secret with claims of its accounts. Its rotation is paused.
func (p *preparation) storeNew(tx *store.Tx, key cmk.Key, spec secret.Spec, data sensitive.Value) error {
	if _, err := p.create(tx, key, spec, p.in.VersionID, data); err != nil {
		return err
	}
	s := secret.Secret{Account: p.Account(), Name: spec.Name, UpdatedAt: p.At}
	if err := p.claimAccounts(tx, s, p.target, p.in.AccountName, p.in.CloneAccountName); err != nil {
		return err
	}
	return p.changeRotationIn(tx, func(r rotation.Record) rotation.Record {
		return p.notPrepared(r, interrupted).WithPause(p.pause())
	})
}

// interrupted is why accounts are not prepared until a call says something else.
const interrupted = "the call has not ended, or was interrupted"

// pause is the pause of the rotation until the accounts are prepared.
func (p *preparation) pause() *rotation.Pause {
	return &rotation.Pause{Since: p.At, By: p.Principal.ARN(), Preparation: true}
}

// stored returns the second credential from a secret that an earlier call like this one has
// created, and pauses its rotation if that was resumed since. A secret that has been rotated
// since, or that another call created, is refused.
func (p *preparation) stored(tx *store.Tx, s secret.Secret, one target.Credential) (target.Credential, error) {
	list, err := p.pair(tx, s)
	switch {
	case err != nil:
		return target.Credential{}, err
	case !list[0].Secret.Equal(one.Secret):
		return target.Credential{}, otherSecret(s)
	}
	return list[1], p.changeRotationIn(tx, func(r rotation.Record) rotation.Record {
		// The reason that an earlier call stored may no longer apply.
		return p.notPrepared(r, interrupted).WithPause(p.pause())
	})
}

func otherSecret(s secret.Secret) error {
	return fault.New(fault.Exists,
		"Secret %q exists and does not come from an interrupted call with these parameters. Choose another name.", s.Name)
}

// pair returns the two credentials in a secret that an earlier call like this one has created.
func (p *preparation) pair(tx *store.Tx, s secret.Secret) ([]target.Credential, error) {
	v, ok := s.Versions[p.in.VersionID]
	if !ok ||
		s.Stages[secret.Current] != v.ID ||
		len(s.Versions) > 1 ||
		s.TargetName() != p.target.Name ||
		!s.BoundTo(p.target.ID) {
		return nil, otherSecret(s)
	}
	r, err := p.rotationOf(tx, s)
	if err != nil {
		return nil, err
	}
	if r.State != rotation.Idle {
		return nil, otherSecret(s)
	}
	list, _, err := credentials(p.Env, tx, s, v)
	if err != nil {
		return nil, err
	}
	if len(list) != 2 || list[0].Account != p.in.AccountName || list[1].Account != p.in.CloneAccountName {
		return nil, otherSecret(s)
	}
	return list, nil
}
