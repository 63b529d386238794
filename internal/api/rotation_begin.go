package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
)

// rotateSecret requests a rotation. The engine carries it out; the answer does not wait for its
// end.
func rotateSecret(ctx context.Context, c *Call, in *kms.RotateSecretRequest) (*kms.RotateSecretResponse, error) {
	return c.begin(ctx, in.SecretName, manual(in.VersionID, rotation.Rotate), request{})
}

func rehearseRotation(ctx context.Context, c *Call, in *kms.VersionedRequest) (*kms.RotateSecretResponse, error) {
	return c.begin(ctx, in.SecretName, manual(in.VersionID, rotation.Rehearse), request{})
}

func manual(id string, mode rotation.Mode) rotation.Request {
	return rotation.Request{ID: id, Mode: mode, Trigger: rotation.Manual}
}

func emergencyRotation(
	ctx context.Context, c *Call, in *kms.EmergencyRotationRequest,
) (*kms.EmergencyRotationResponse, error) {
	q := rotation.Request{ID: in.VersionID, Mode: rotation.Rotate, Trigger: rotation.Emergency}
	begun, err := c.begin(ctx, in.SecretName, q, request{dry: true})
	if err != nil {
		return nil, err
	}
	j, err := c.judge(ctx, in.SecretName, q.ID, in.DryRun || in.AgreeToFindings)
	if err != nil {
		return nil, err
	}
	q.Outlasts = j.outlasts
	if !in.DryRun {
		begun, err = c.begin(ctx, in.SecretName, q, request{takesOver: j.takesOver})
	}
	if err != nil {
		return nil, err
	}
	out := &kms.EmergencyRotationResponse{
		ARN:        begun.ARN,
		SecretName: begun.SecretName,
		VersionID:  begun.VersionID,
		DryRun:     in.DryRun,
	}
	if in.DryRun {
		if len(j.findings) > 0 {
			out.Findings = shownFindings(j.findings, nil)
		}
		out.Unchecked = j.unchecked
		err = c.breaking(ctx, out)
	}
	return out, err
}

// emergencyCheck is what a check says of an emergency.
type emergencyCheck struct {
	// findings are those that the emergency overrides, and those that outlast it.
	findings []target.Finding
	// outlasts says in words what outlasts the emergency.
	outlasts string
	// unchecked says why the target was not asked everything; empty when it was.
	unchecked string
	// takesOver is the rotation under way that the emergency may take over unchecked, because
	// the target may have its candidate already; empty for none.
	takesOver string
}

// judge returns an error if a check finds something that stops an emergency, or, unless agreed,
// something that an emergency overrides. It asks the target and makes no login. Without an answer
// it refuses nothing: the engine asks again before it sends. An emergency that takes over a
// rotation whose candidate the target may have is not judged by what that has left there.
func (c *Call) judge(ctx context.Context, name, id string, agreed bool) (j emergencyCheck, err error) {
	s, r, t, ok, err := c.forEmergency(name, id)
	if err != nil || !ok {
		return j, err
	}
	if r.IsTakenOver() && !r.Unsent() {
		j.takesOver = r.ID
		// An error is for example an administrator's secret that cannot be read: that stops no takeover.
		j.unchecked = "the account could not be checked"
		wait := (*AdminWaitError)(nil)
		switch k, err := c.checkAccount(ctx, s, r, t, true); {
		case err == nil:
			j.findings = rotation.Outlasting(k.check.Findings, r.Strategy)
			j.unchecked = k.check.Unchecked
		case errors.As(err, &wait):
			j.unchecked = wait.Error()
		}
		j.outlasts = j.remaining(s.Name, r.Strategy)
		return j, nil
	}
	if command, _ := continuing(r); command != "" {
		return j, notReplaced(s, "its second account is not prepared yet. "+command+" completes that. Then repeat the "+
			"call.")
	}
	k, err := c.checkAccount(ctx, s, r, t, true)
	// The engine waits, and checks before it sends.
	if wait := (*AdminWaitError)(nil); errors.As(err, &wait) {
		j.unchecked = wait.Error()
		j.outlasts = j.remaining(s.Name, "")
		return j, nil
	}
	if err != nil {
		return j, err
	}
	j.findings, err = k.emergencyFindings(agreed)
	j.unchecked = k.check.Unchecked
	j.outlasts = j.remaining(s.Name, k.method.strategy)
	return j, err
}

// remaining says in words what outlasts the emergency of a secret, as far as it is known.
func (j emergencyCheck) remaining(name string, strategy target.Strategy) string {
	text := rotation.Remaining(j.findings, strategy, name)
	if j.unchecked == "" {
		return text
	}
	return rotation.NotReadAgain(text, j.unchecked, name)
}

// deniedBefore adds what the last check has found of a login that the target does not let happen.
// An emergency makes none before it sends. With one credential at a time, the new one could not be
// proven afterwards, unless the target's own state shows it, and the one before may not be
// restored.
func (k *inspection) deniedBefore(ctx context.Context) {
	last := k.record.Check
	if last == nil || k.method.strategy != target.Single || k.check.Unchecked != "" {
		return
	}
	health := k.record.Health
	if health.Live && health.ProbedAt.After(last.At) || k.inspect(ctx, k.method.current) != target.NotKnown {
		return
	}
	for _, f := range last.For(k.check.Version, k.At).Findings {
		if f.Code == rotation.CodeLoginDenied {
			f.Text += fmt.Sprintf(" That was so at %s; %s tries it again.", last.At.UTC().Format(time.RFC3339),
				fault.Command("rotation check", k.secret.Name))
			k.add(f)
		}
	}
}

// forEmergency returns the records by which a check judges an emergency. ok is false where none
// does: for access keys of this service, for a call that is repeated, and without a registered
// target.
func (c *Call) forEmergency(name, id string) (s secret.Secret, r rotation.Record, t store.Target, ok bool, err error) {
	s, r, err = c.rotated(c.Snapshot, name)
	if err != nil || s.TargetName() == secret.OwnUsers {
		return s, r, t, false, err
	}
	if repeated, err := isRepeated(s, r, id); repeated || err != nil {
		return s, r, t, false, err
	}
	t, ok, err = c.Snapshot.Target(s.Account, s.TargetName())
	return s, r, t, ok && s.BoundTo(t.ID), err
}

// emergencyFindings returns the findings that an emergency does not wait for, and those that
// outlast it, or the refusal of one that cannot begin. Unless agreed, they refuse it, too;
// findings of a drift do not, because nothing of it would change for the worse.
func (k *inspection) emergencyFindings(agreed bool) (overridable []target.Finding, err error) {
	strategy, consents := k.method.strategy, k.secret.Settings().Consents
	overridable, serious := rotation.Overridable(k.check.Findings, strategy, consents)
	agreement := ""
	if !agreed {
		isDrift := func(f target.Finding) bool { return f.Drift }
		serious = slices.DeleteFunc(slices.Clone(k.check.Findings), isDrift)
		if len(overridable) > 0 {
			agreement = " keyturn rotation emergency NAME asks for agreement to those that can be agreed to."
		}
	}
	reason, ok := rotation.MayBegin(serious, strategy, consents)
	if ok {
		return append(overridable, rotation.Outlasting(serious, strategy)...), nil
	}
	return nil, notReplaced(k.secret, fault.Named(reason+" keyturn rotation check NAME shows all findings."+agreement,
		k.secret.Name))
}

// notReplaced refuses an emergency.
func notReplaced(s secret.Secret, why string) error {
	return fault.New(fault.InUse, "The credential of secret %q is not replaced: %s", s.Name, fault.Text(why))
}

// mostBroken is how many consumers a dry run names of each sort.
const mostBroken = 100

// breaking lists the consumers whose credential an emergency rotation would make useless: all of
// them, because none has the new one. Consumers that have not been seen lately count as unknown.
func (c *Call) breaking(ctx context.Context, out *kms.EmergencyRotationResponse) error {
	if err := c.Consumers.Sync(ctx, c.Account(), out.SecretName); err != nil {
		return err
	}
	tx := store.Snapshot(ctx, c.DB)
	s, err := c.existing(tx, out.SecretName)
	if err != nil {
		return err
	}
	grace := c.graceOf(s)
	r, err := c.rotationOf(tx, s)
	if err != nil {
		return err
	}
	out.CurrentVersionID, out.PreviousVersionID = s.Stages[secret.Current], stillWorks(r, c.At)
	return tx.Consumers(s.Account, s.Name, "", func(_ string, u rotation.Sighting) bool {
		shown := shownConsumer(u, out.CurrentVersionID)
		list, count := &out.Breaking, &out.BreakingCount
		switch {
		case !u.GoneAt(grace.Min).After(c.At):
			list, count = &out.Unknown, &out.UnknownCount
		case shown.Evidence == kms.EvidenceInferred:
			out.BreakingInferredCount++
		}
		if *count++; len(*list) < mostBroken {
			*list = append(*list, shown)
		}
		return true
	})
}

// stillWorks returns the version of the previous credential in its grace period, also where that is
// interrupted; empty where none works.
func stillWorks(r rotation.Record, now time.Time) string {
	if r.State != rotation.InGrace && !r.CanUndo(now) || !r.PreviousDeadAt.IsZero() {
		return ""
	}
	previous, _, _ := r.Previous()
	return previous
}

// request is how a rotation is requested.
type request struct {
	// dry only checks whether the rotation would be refused.
	dry bool
	// takesOver is the rotation that an emergency must take over, see [emergencyCheck]; empty for any.
	takesOver string
}

// errDry ends a transaction of which nothing is stored.
var errDry = errors.New("nothing is stored")

// begin starts a rotation, once for each ID.
func (c *Call) begin(
	ctx context.Context, name string, q rotation.Request, how request,
) (*kms.RotateSecretResponse, error) {
	c.concerns(q.ID, "")
	out, err := store.Update(ctx, c.DB, func(tx *store.Tx) (*kms.RotateSecretResponse, error) {
		s, before, err := c.rotated(tx, name)
		if err != nil {
			return nil, err
		}
		out := &kms.RotateSecretResponse{ARN: s.ARN(c.Region), SecretName: s.Name, VersionID: q.ID}
		if repeated, err := isRepeated(s, before, q.ID); repeated || err != nil {
			if slices.Contains(before.TakenOverBy, q.ID) {
				out.VersionID = before.ID
			}
			return out, err
		}
		if how.takesOver != "" && (before.ID != how.takesOver || !before.IsTakenOver()) {
			return nil, notReplaced(s, "its rotation "+how.takesOver+" has ended while the emergency was checked. "+
				"Repeat the call.")
		}
		if err := c.mayRotate(tx, s, before, q); err != nil {
			return nil, err
		}
		if s, _, err = c.bind(tx, s); err != nil {
			return nil, err
		}
		if before, err = c.rotationOf(tx, s); err != nil { // another target makes it forget the former one
			return nil, err
		}
		r, err := c.begun(s, before, q)
		if err != nil {
			return out, err
		}
		if how.dry {
			return out, errDry
		}
		if s, err = s.Ask(q.Trigger == rotation.Emergency, c.Rotation.RequestEvery, c.At); err != nil {
			return nil, err
		}
		s = withReads(s, r)
		if err := c.announce(tx, before, r, began(before)); err != nil {
			return nil, err
		}
		if q.Trigger == rotation.Emergency && before.IsTakenOver() {
			out.VersionID = r.ID
		}
		return out, errors.Join(tx.PutRotation(&r), tx.PutSecret(s, nil))
	})
	if errors.Is(err, errDry) {
		err = nil
	}
	return out, err
}

// isRepeated reports whether the rotation of that ID was requested before. An ID that names another
// version of the secret is refused.
func isRepeated(s secret.Secret, r rotation.Record, id string) (bool, error) {
	switch v, made := s.Versions[id]; {
	case slices.Contains(r.TakenOverBy, id):
		return true, nil
	case r.ID == id, r.GivenUp == id, made && v.MadeByRotation:
		return true, nil
	case made:
		return false, fault.New(fault.Exists,
			"Version %q of secret %q was not made by a rotation; use a new version ID.", id, s.Name)
	}
	return false, nil
}

// began returns the event of a rotation that is requested: it begins, or waits for the end of the
// one before.
func began(before rotation.Record) rotation.EventKind {
	if before.InFlight() && before.State != rotation.Quarantined {
		return ""
	}
	return rotation.Begun
}

// mayRotate refuses a rotation that could not be carried out.
func (c *Call) mayRotate(tx *store.Tx, s secret.Secret, r rotation.Record, q rotation.Request) error {
	name := s.TargetName()
	t, ok, err := tx.Target(s.Account, name)
	if err != nil {
		return err
	}
	if !ok && name != secret.OwnUsers {
		return fault.New(fault.Unsupported,
			"No target %q is registered, so the credential of secret %q cannot be changed there; "+
				"keyturn target add %s --kind=KIND registers it.", name, s.Name, name)
	}
	if q.Trigger == rotation.Emergency {
		return nil // a pause does not keep a leaked credential alive
	}
	all, err := allPauses(tx)
	if err != nil {
		return err
	}
	return pausedRefusal(pausesOf(all, t, r), s.Name, name)
}

// begun returns the record with the requested rotation, either at its beginning or waiting for the
// end of the one before.
func (c *Call) begun(s secret.Secret, r rotation.Record, q rotation.Request) (rotation.Record, error) {
	q.Grace = c.graceOf(s)
	q.At = c.At
	next, ok := r.Ask(q, c.At)
	switch {
	case ok:
		return next, nil
	case r.State == rotation.Quarantined && q.Trigger == rotation.Emergency:
		return r, notReplaced(s, fault.Message("its rotation is quarantined, and an emergency would not remove the previous "+
			"credential of the rotation that this has interrupted, or the candidate. It works once the quarantine is ended: "+
			"keyturn rotation repair %s explains --apply and --adopt. Then repeat keyturn rotation emergency %s. The "+
			"quarantine: %s", s.Name, s.Name, fault.Text(r.Reason)))
	case r.State == rotation.Quarantined:
		return r, fault.New(fault.InUse, "The rotation of secret %q is quarantined: %s keyturn rotation repair %s "+
			"explains what can be done.",
			s.Name, fault.Text(r.Reason), s.Name)
	case r.State == rotation.InGrace:
		until, undo := "works until", ", "+fault.Command("rotation undo", s.Name)+" makes it current again"
		if !r.PreviousDeadAt.IsZero() {
			until, undo = "is retired at", ""
		}
		return r, fault.New(fault.InUse,
			"The previous credential of secret %q %s %s; keyturn rotation end-grace %s retires it now%s, "+
				"keyturn rotation emergency %s replaces both.",
			s.Name, until, graceEnd(r, c.At), s.Name, fault.Text(undo), s.Name)
	}
	return r, fault.New(fault.InUse,
		"The rotation %q of secret %q has not ended: it is in state %s%s. keyturn rotation status %s "+
			"shows what it waits for. %s",
		r.ID, s.Name, r.State, nextTry(r, c.At), s.Name, fault.Text(r.State.WayOut(s.Name)))
}

// nextTry says when the engine repeats an attempt that failed; empty when none has failed.
func nextTry(r rotation.Record, now time.Time) string {
	if !r.NextAt.After(now) {
		return ""
	}
	return ", and is tried again at " + r.NextAt.UTC().Format(time.RFC3339)
}

// graceEnd says in words when a grace period ends.
func graceEnd(r rotation.Record, now time.Time) string {
	if r.Waiting == 0 || r.GraceUntil.After(now) {
		return r.GraceUntil.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("%d of its consumers have moved, or until %s",
		r.Waiting, r.GraceDeadline.UTC().Format(time.RFC3339))
}
