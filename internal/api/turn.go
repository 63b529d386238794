package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// Turn is a rotation that the engine works on, as it was read.
type Turn struct {
	Record rotation.Record
	Secret secret.Secret
	// Target is the target that the secret names. Registered reports that the secret is bound to it;
	// it is false for the service's own users.
	Target     store.Target
	Registered bool
	allPaused  bool

	exists bool // there is a target of that name
	// taken refuses a secret whose account another one rotates: nothing of it is sent.
	taken  error
	opened *Call // by which the target was opened; nil if it was not
	env    *Env
	gate   *Gate
	tx     *store.Tx
}

// Load reads a rotation. ok is false when the secret no longer exists.
func (e *Engine) Load(ctx context.Context, account, name string) (t *Turn, ok bool, err error) {
	env := e.gate.env
	t = &Turn{env: env, gate: e.gate, tx: store.Snapshot(ctx, env.DB)}
	if t.Secret, ok, err = t.tx.Secret(account, name, env.Now().UTC()); err != nil || !ok {
		return nil, false, err
	}
	if t.Record, ok, err = t.tx.Rotation(account, name); err != nil || !ok {
		return nil, false, err
	}
	if t.Target, t.exists, err = t.tx.Target(account, t.Secret.TargetName()); err != nil {
		return nil, false, err
	}
	t.Registered = t.exists && t.Secret.BoundTo(t.Target.ID)
	all, err := t.tx.AllPaused()
	t.allPaused = all.Paused
	if err == nil && t.Registered {
		err = e.holdAccounts(ctx, t)
	}
	return t, err == nil, err
}

// isStale reports whether a caller has stored something after Load that the event depends on: the
// beginning of a step, a quarantine, or the report that a rotation is overdue. r and s are as
// stored now. A step that has already acted at the target is never stale, because its result must
// be stored.
func (t *Turn) isStale(tx *store.Tx, kind rotation.EventKind, r rotation.Record, s secret.Secret) (bool, error) {
	switch kind {
	case rotation.Begun, rotation.Stored, rotation.Sending, rotation.Drift, rotation.Overdue:
	default:
		return false, nil
	}
	now, exists, err := tx.Target(t.Secret.Account, t.Secret.TargetName())
	if err != nil {
		return false, err
	}
	all, err := tx.AllPaused()
	if err != nil {
		return false, err
	}
	paused := all.Paused || now.Paused
	switch {
	case kind == rotation.Overdue:
		return !r.IsOverdue(paused, t.env.Now().UTC()), nil
	case exists != t.exists || exists && (now.ID != t.Target.ID || isRedirected(t.Target, now)),
		!reflect.DeepEqual(s.Rotation.Binding, t.Secret.Rotation.Binding),
		!s.Settings().SameTerms(t.Secret.Settings()):
		return true, nil
	case kind == rotation.Begun && t.Record.Then == nil:
		return r.Paused || paused || !r.Due.Equal(t.Record.Due) ||
			!reflect.DeepEqual(s.Settings(), t.Secret.Settings()), nil
	case kind == rotation.Begun: // an emergency waits for no pause, and has no grace period
		return false, nil
	case kind == rotation.Drift: // the target was asked about one version
		return s.Stages[secret.Current] != t.Secret.Stages[secret.Current], nil
	case kind == rotation.Stored:
		return r.AwaitsResume(paused), nil
	}
	return r.LoginFailedAt.After(t.Record.LoginFailedAt), nil // another login might fail now
}

// isTargetChanged reports whether the target or its administrator has changed since the turn has
// read them, so that what has failed may be fixed. It reports true if the store does not answer:
// another try costs little.
func (t *Turn) isTargetChanged(ctx context.Context) bool {
	if !t.exists {
		return false
	}
	tx := store.Snapshot(ctx, t.env.DB)
	stored, ok, err := tx.Target(t.Target.Account, t.Target.Name)
	switch {
	case err != nil:
		return true
	case !ok:
		return false
	case isRedirected(t.Target, stored):
		return true
	case stored.AdminSecret == "":
		return false
	}
	now := t.env.Now().UTC()
	before, _, err1 := t.tx.Secret(stored.Account, stored.AdminSecret, now)
	after, _, err2 := tx.Secret(stored.Account, stored.AdminSecret, now)
	return err1 != nil || err2 != nil || hasNewCurrent(before, after)
}

// holdAccounts makes sure that the secret of a turn holds the accounts to which it is bound, which
// releases before claims at the binding have left out.
func (e *Engine) holdAccounts(ctx context.Context, t *Turn) error {
	accounts, err := t.env.claimedOf(t.tx, t.Secret)
	if err != nil { // the value cannot be read now, so nothing of it is sent
		return nil
	}
	held := true
	for _, account := range accounts {
		for _, name := range t.env.spellings(t.Target, account) {
			owner, err := t.tx.Claim(t.Secret.Account, t.Target.Name, name)
			if err != nil {
				return err
			}
			held = held && owner == t.Secret.Name
		}
	}
	if held {
		return nil
	}
	err = e.do(ctx, func(tx *store.Tx) error {
		c := t.call(t.purpose())
		s, ok, err := tx.Secret(t.Secret.Account, t.Secret.Name, c.At)
		if err != nil || !ok || !s.BoundTo(t.Target.ID) {
			return err
		}
		return c.claimBound(tx, s, t.Target)
	})
	if fault.KindOf(err) == fault.Exists {
		t.taken = err
		return nil
	}
	return err
}

// Taken returns what puts the finding into a record that another secret rotates the account; ok is
// false where none does.
func (t *Turn) Taken() (into func(rotation.Record) rotation.Record, ok bool) {
	if t.taken == nil {
		return nil, false
	}
	_, account, _, err := t.env.takenFrom(t.tx, t.Secret)
	if err != nil {
		return nil, false
	}
	check := rotation.Check{
		At:       t.env.Now().UTC(),
		Target:   t.Target.Name,
		Version:  t.Secret.Stages[secret.Current],
		Findings: []target.Finding{takenFinding(t.Target, account)},
	}.Bounded()
	return func(r rotation.Record) rotation.Record {
		r.Check = keepingNotPrepared(r.Check, &check)
		return r
	}, true
}

// Open opens the turn's target with its administrator.
func (t *Turn) Open() (target.Target, error) {
	switch name := t.Secret.TargetName(); {
	case name == secret.OwnUsers:
		return t.ownUsers()
	case !t.exists:
		return nil, fault.New(fault.InUse, "No target %q is registered.", name)
	case !t.Registered:
		return nil, notBound(t.Secret, name)
	case t.taken != nil:
		return nil, t.taken
	}
	t.opened = t.call(t.purpose())
	system, err := t.opened.openFor(t.tx, t.Target, t.Secret, t.versions()...)
	return system, err
}

// engineName is the name of the engine's principal.
const engineName = "rotation"

// call returns the call by which the engine carries out an operation of this turn.
func (t *Turn) call(operation string) *Call {
	c := t.gate.systemCall(engineName, operation, t.Secret.Account, t.Secret.Name)
	c.Snapshot = t.tx
	if t.opened != nil {
		c.admins = t.opened.admins
	}
	return c
}

// Earliest returns the first time at which a rotation may begin that no caller requested.
func (t *Turn) Earliest() time.Time { return t.Record.Earliest(t.Secret.Rotation.Last, t.env.least()) }

// purposeProbe is the purpose of what is sent to ask about a credential in use.
const purposeProbe = "probe"

// Answered notes what an answer of the target says of its administrator.
func (t *Turn) Answered(err error) {
	if target.IsAdminFailed(err) {
		t.call(t.purpose()).adminAnswered(t.Target, err)
	}
}

// AdminAccepted notes that the target has let its administrator in.
func (t *Turn) AdminAccepted() { t.call(t.purpose()).adminAccepted(t.Target) }

// End lets other callers try the administrator that the turn might have logged in as.
func (t *Turn) End() {
	if t.opened != nil {
		t.opened.releaseAdmins()
	}
}

// purpose returns what the trail gives as the reason why a credential is sent.
func (t *Turn) purpose() string {
	if !t.Record.InFlight() {
		return purposeProbe
	}
	return "rotation " + string(t.Record.State)
}

// versions returns the versions of the secret that the engine may send to the target now.
func (t *Turn) versions() []string {
	if !t.Record.InFlight() {
		return []string{t.Secret.Stages[secret.Current]}
	}
	return slices.DeleteFunc([]string{t.Record.Candidate, t.Record.Base}, func(v string) bool { return v == "" })
}

// Overdue reports whether a rotation is overdue and has not been reported yet.
func (t *Turn) Overdue(now time.Time) bool {
	return !t.Record.Overdue && t.Record.IsOverdue(t.Paused(), now)
}

// Paused reports whether the rotations of the target, or all, are paused. The secret's own pause is
// in its record.
func (t *Turn) Paused() bool { return t.allPaused || t.Target.Paused }

// strategies returns the strategies of the open target.
func (t *Turn) strategies(system target.Target) []target.Strategy {
	if t.Secret.TargetName() == secret.OwnUsers {
		return []target.Strategy{target.Overlap}
	}
	return t.env.strategies(t.Target, system)
}

func (e *Env) strategies(t store.Target, system target.Target) []target.Strategy {
	if l, ok := system.(target.Limited); ok {
		return l.Strategies()
	}
	return e.Kinds[t.Kind].Strategies
}

// Reapply returns the strategy by which the engine gives a target again the credential that it
// should have. Where the target can do that, no other credential of the account is accepted
// afterwards.
func (t *Turn) Reapply(system target.Target) target.Strategy {
	has := t.strategies(system)
	natural, err := t.Secret.Strategy(has)
	if err != nil {
		return target.Single
	}
	if natural == target.Double && slices.Contains(has, target.Single) {
		return target.Single
	}
	return natural
}

// Credential returns the credential of a version, as its consumers use it.
func (t *Turn) Credential(version string) (target.Credential, error) {
	list, _, err := t.version(version)
	if err != nil {
		return target.Credential{}, err
	}
	return list[0], mayUse(t.Secret, list[0].Account)
}

// Admit refuses accounts that this rotation must not change now, because the secret is not bound to
// them or the target does not allow them. It asks the target what the accounts are.
func (t *Turn) Admit(ctx context.Context, system target.Target, accounts ...string) error {
	if err := mayUse(t.Secret, accounts...); err != nil {
		return err
	}
	if t.Secret.TargetName() == secret.OwnUsers {
		return nil
	}
	return t.env.admit(ctx, t.tx, t.Target, system, t.Secret.Name, accounts)
}

func (t *Turn) version(id string) ([]target.Credential, sensitive.Value, error) {
	v, ok := t.Secret.Versions[id]
	if !ok {
		return nil, sensitive.Value{}, fmt.Errorf("secret %q has no version %q", t.Secret.Name, id)
	}
	return credentials(t.env, t.tx, t.Secret, v)
}

// isLocal reports whether a target is a program on this machine, which the operator has chosen: its
// answers reveal nothing of the network.
func (e *Env) isLocal(t store.Target) bool { return e.Kinds[t.Kind].Action != "" }

// Proven reports whether the target has answered about this secret since it was last redirected.
// Until then anything may listen at its address, and callers learn only that there was no answer.
func (t *Turn) Proven() bool {
	return t.env.isLocal(t.Target) ||
		t.Record.Target == t.Target.Name && t.Record.Health.ProbedAt.After(t.Target.UpdatedAt)
}

// Restorable reports whether the engine may give the target the base again, as its only credential:
// the target has accepted it before, or this service generated it. A secret without a binding comes
// from a release before bindings, which has probed it.
func (t *Turn) Restorable() bool {
	return t.Record.BaseAccepted || t.Secret.Generated(t.Record.Base) || t.Secret.Rotation.Binding == nil
}

// Change returns the change that the target is asked for.
func (t *Turn) Change() (target.Change, error) {
	r := t.Record
	c := target.Change{
		ID:        changeID(r, r.Candidate),
		Strategy:  r.Strategy,
		Emergency: r.Trigger == rotation.Emergency || r.Then != nil, // which waits for the end of this one
	}
	var err error
	if c.New, err = t.Credential(r.Candidate); err != nil {
		return c, err
	}
	c.Old, err = t.Credential(r.Base)
	return c, err
}

// ReplacesEarlier reports whether the candidate is of the account of the earlier credential, see
// [rotation.Aftermath], and takes its place there.
func (t *Turn) ReplacesEarlier() (bool, error) {
	r := t.Record
	if r.Earlier == nil || r.Earlier.Retired || r.Strategy != target.Double || r.Mode != rotation.Rotate {
		return false, nil
	}
	if _, ok := t.Secret.Versions[r.Earlier.Version]; !ok {
		return false, nil
	}
	earlier, err := t.Credential(r.Earlier.Version)
	if err != nil {
		return false, err
	}
	candidate, err := t.Credential(r.Candidate)
	return earlier.Account == candidate.Account, err
}

// changeID returns an ID that is the same in every attempt to give the target one candidate.
func changeID(r rotation.Record, candidate string) string {
	sum := sha256.Sum256([]byte(r.Account + "\x00" + r.Secret + "\x00" + candidate))
	return "kt-" + hex.EncodeToString(sum[:16])
}

// VersionFor returns the version under which the next candidate of a rotation is stored: the
// rotation's ID, and for later candidates a name made from it.
func (t *Turn) VersionFor() string {
	id := t.Record.ID
	if t.Record.Candidates == 0 {
		if _, taken := t.Secret.Versions[id]; !taken {
			return id
		}
	}
	for n := t.Record.Candidates + 1; ; n++ {
		suffix := fmt.Sprintf(".%d", n)
		name := id[:min(len(id), 64-len(suffix))] + suffix
		if _, taken := t.Secret.Versions[name]; !taken {
			return name
		}
	}
}
