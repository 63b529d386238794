package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
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
	// Target is the registered target of the secret's name. Registered reports that the secret is bound
	// to it; it is false for the service's own users.
	Target     store.Target
	Registered bool
	// AllPaused says that all rotations are paused.
	AllPaused bool

	exists bool // there is a target of that name
	env    *Env
	gate   *Gate
	tx     *store.Tx
}

// Load reads a rotation. ok is false when the secret is gone.
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
	t.AllPaused, err = t.tx.AllPaused()
	return t, true, err
}

// Open opens the turn's target with its administrator.
func (t *Turn) Open() (target.Target, error) {
	switch name := t.Secret.TargetName(); {
	case name == secret.OwnUsers:
		return t.ownUsers()
	case !t.exists:
		return nil, fault.New(fault.InUse, "No target %q is registered.", name)
	case !t.Registered:
		return nil, fault.New(fault.InUse, "Secret %q is not bound to target %q, which was registered after the secret had named it: RotateSecret or ConfigureRotation by a principal with %s on its accounts binds it.",
			t.Secret.Name, name, actionRotateAccount)
	}
	c := (&Engine{gate: t.gate}).call(t, t.doing())
	system, _, err := c.openTarget(t.tx, t.Target, t.versions()...)
	return system, err
}

// Earliest is the first time at which a rotation may begin that nobody asked for.
func (t *Turn) Earliest() time.Time { return t.Record.Earliest(t.Secret.Rotation.Last, t.env.least()) }

// doing says in the trail what a credential is sent for.
func (t *Turn) doing() string {
	if !t.Record.InFlight() {
		return "probe"
	}
	return "rotation " + string(t.Record.State)
}

// versions are those of the secret that an engine may send to the target now.
func (t *Turn) versions() []string {
	if !t.Record.InFlight() {
		return []string{t.Secret.Stages[secret.Current]}
	}
	return slices.DeleteFunc([]string{t.Record.Candidate, t.Record.Base}, func(v string) bool { return v == "" })
}

// Overdue reports whether a rotation was due long ago, and nobody has been told.
func (t *Turn) Overdue(now time.Time) bool {
	p := t.Secret.Rotation
	return p.Enabled && !p.Next.IsZero() && now.Sub(p.Next) > secret.Overdue && !t.Record.Overdue && !t.Record.Paused
}

// strategies are those that an open target has.
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

// Reapply is the strategy by which a target is given again what it should have: nothing else is to be accepted then, where the
// target can do that for this credential.
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

// Credential is the one that a version holds for consumers.
func (t *Turn) Credential(version string) (target.Credential, error) {
	list, _, err := t.version(version)
	if err != nil {
		return target.Credential{}, err
	}
	return list[0], mayUse(t.Secret, list[0])
}

// Admit refuses accounts that this rotation must not change now: those that the secret is not bound to,
// and those that the target does not allow. It asks the target what the accounts are.
func (t *Turn) Admit(ctx context.Context, system target.Target, accounts ...string) error {
	for _, account := range accounts {
		if err := mayUse(t.Secret, target.Credential{Account: account}); err != nil {
			return err
		}
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

// isLocal reports whether a target is a program on this machine, which the operator has chosen: what it
// says tells nothing of the network.
func (e *Env) isLocal(t store.Target) bool { return e.Kinds[t.Kind].Action != "" }

// Proven reports whether the target has answered about this secret since it was last redirected. Until
// then nobody knows what listens there, and callers learn only that there was no answer.
func (t *Turn) Proven() bool {
	return t.env.isLocal(t.Target) || t.Record.Target == t.Target.Name && t.Record.Health.ProbedAt.After(t.Target.UpdatedAt)
}

// Restorable reports whether the engine may give the target the base again, as its only credential: the
// target has accepted it before, or this service generated it. A secret of a release before bindings has
// been probed by that release.
func (t *Turn) Restorable() bool {
	return t.Record.BaseAccepted || t.Secret.Generated(t.Record.Base) || t.Secret.Rotation.Binding == nil
}

// Change is what the target is asked for.
func (t *Turn) Change() (target.Change, error) {
	r := t.Record
	c := target.Change{ID: changeID(r, r.Candidate), Strategy: r.Strategy}
	var err error
	if c.New, err = t.Credential(r.Candidate); err != nil {
		return c, err
	}
	c.Old, err = t.Credential(r.Base)
	return c, err
}

// changeID is the same in every attempt to give the target one candidate.
func changeID(r rotation.Record, candidate string) string {
	sum := sha256.Sum256([]byte(r.Account + "\x00" + r.Secret + "\x00" + candidate))
	return "kt-" + hex.EncodeToString(sum[:16])
}

// VersionFor is the version that the next candidate of a rotation is stored as: the rotation's ID, and for later candidates a
// name made from it.
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
