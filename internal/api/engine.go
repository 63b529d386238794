package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// Engine is what the rotation engine does with the store: it looks at rotations and moves them on. Like every caller it is
// recorded, as a principal of the service itself.
type Engine struct {
	gate  *Gate
	token int64
}

// Engine returns the door of the engine that holds the right with that token.
func (g *Gate) Engine(token int64) *Engine { return &Engine{gate: g, token: token} }

// ErrMoved means that the rotation is not any more as the engine read it: it reads again and repeats the decision.
var ErrMoved = errors.New("the rotation has moved on")

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

// Due lists at most limit rotations whose time has come, and says when the next one's comes.
func (e *Engine) Due(ctx context.Context, limit int) ([]store.Due, time.Time, error) {
	env := e.gate.env
	return store.Snapshot(ctx, env.DB).WakeBefore(env.Now().UTC(), limit)
}

// Now is the time by the server's clock.
func (e *Engine) Now() time.Time { return e.gate.env.Now().UTC() }

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

// Candidate is a new credential, ready to be stored.
type Candidate struct {
	Strategy   target.Strategy
	Base       string
	Credential target.Credential
	value      sensitive.Value
	users      []string
}

// NewCandidate makes a candidate by the target's own rules. Nothing is stored, and nothing is changed at the target.
func (t *Turn) NewCandidate(ctx context.Context, system target.Target) (*Candidate, error) {
	strategy, err := t.Secret.Strategy(t.strategies(system))
	if err != nil {
		return nil, err
	}
	if t.Registered && t.Target.AdminSecret == t.Secret.Name && strategy != target.Double {
		return nil, fault.New(fault.InUse, "Secret %q is the only way into target %q; only the strategy double may rotate an administrator.", t.Secret.Name, t.Target.Name)
	}
	c := &Candidate{Strategy: strategy, Base: t.Secret.Stages[secret.Current]}
	current, stored, err := t.version(c.Base)
	if err != nil {
		return nil, err
	}
	account := current[0].Account
	c.users = []string{account}
	if strategy == target.Double {
		if account, err = t.env.otherAccount(t.tx, t.Secret, current); err != nil {
			return nil, err
		}
		if err := t.Secret.Tells(stored, account); err != nil {
			return nil, err
		}
		c.users = append(c.users, account)
	}
	for _, account := range c.users {
		if err := mayUse(t.Secret, target.Credential{Account: account}); err != nil {
			return nil, err
		}
	}
	if t.Registered { // what the accounts are, the target is asked before a candidate is sent
		if err := t.env.allows(t.tx, t.Target, t.Secret.Name, c.users); err != nil {
			return nil, err
		}
	}
	if g, ok := system.(target.Generator); ok {
		c.Credential, err = g.Generate(ctx, account, current[0], rand.Reader)
	} else {
		c.Credential, err = target.PasswordRule{}.Generate(ctx, account, current[0], rand.Reader)
	}
	c.value = t.Secret.Value(stored, c.Credential)
	return c, err
}

// Move stores what follows from an event: record, labels and schedule together, if the engine is still the one and the
// rotation is still as it was read. candidate is for the event Stored.
func (e *Engine) Move(ctx context.Context, t *Turn, event rotation.Event, candidate *Candidate) (rotation.Record, error) {
	durable := event.Kind.Recording() == rotation.RecordedTwice
	c := e.call(t, event.Kind.Operation())
	if event.Kind == rotation.Stored {
		c.concerns(event.Version, string(secret.Pending))
	} else {
		c.concerns(t.Record.Candidate, "")
	}
	if durable {
		if err := e.gate.record(ctx, c, audit.Intent, audit.Allow, "", true); err != nil {
			return t.Record, err
		}
	}
	r, err := e.store(ctx, c, t, func(r rotation.Record) (rotation.Record, error) { return rotation.Next(r, event, c.At) }, event, candidate)
	phase := audit.Outcome
	if !durable {
		phase = audit.Call
	}
	said := outcome(err)
	if errors.Is(err, ErrMoved) || errors.Is(err, store.ErrFenced) {
		said = "moved"
	}
	if rerr := e.gate.record(context.WithoutCancel(ctx), c, phase, audit.Allow, said, durable); rerr != nil {
		return r, rerr
	}
	return r, err
}

// Begin starts a rotation that is due, or one that waited for the end of another.
func (e *Engine) Begin(ctx context.Context, t *Turn, q rotation.Request) (rotation.Record, error) {
	q.Grace, q.Wait = t.env.graceOf(t.Secret)
	c := e.call(t, rotation.Begun.Operation())
	r, err := e.store(ctx, c, t, func(r rotation.Record) (rotation.Record, error) { return r.Begin(q, c.At), nil }, rotation.Event{Kind: rotation.Begun}, nil)
	if rerr := e.gate.record(context.WithoutCancel(ctx), c, audit.Call, audit.Allow, outcome(err), true); rerr != nil {
		return r, rerr
	}
	return r, err
}

// Note stores a change of the record that is no step: a postponement, or what a probe found. kind is the event, empty for none.
// The audit trail does not have it.
func (e *Engine) Note(ctx context.Context, t *Turn, kind rotation.EventKind, change func(rotation.Record) rotation.Record) (rotation.Record, error) {
	c := e.call(t, kind.Operation())
	return e.store(ctx, c, t, func(r rotation.Record) (rotation.Record, error) { return change(r), nil }, rotation.Event{Kind: kind}, nil)
}

func (e *Engine) call(t *Turn, operation string) *Call {
	env := e.gate.env
	c := &Call{Env: env, gate: e.gate, At: env.Now().UTC(), Request: protocol.Request{
		ID: uuid.NewString(), Action: operation, Version: kms.Version,
		Principal: policy.Principal{Kind: policy.KindSystem, Account: t.Secret.Account, Name: "rotation"},
	}}
	c.resource = resource{arn: secret.ARN(env.Region, t.Secret.Account, t.Secret.Name), secret: t.Secret.Name}
	return c
}

// store makes one transaction of all that follows.
func (e *Engine) store(ctx context.Context, c *Call, t *Turn, next func(rotation.Record) (rotation.Record, error), event rotation.Event, candidate *Candidate) (rotation.Record, error) {
	return store.Update(ctx, c.DB, func(tx *store.Tx) (rotation.Record, error) {
		if err := tx.Fence(e.token); err != nil {
			return t.Record, err
		}
		old, ok, err := tx.Rotation(t.Secret.Account, t.Secret.Name)
		if err != nil {
			return t.Record, err
		}
		s, there, err := tx.Secret(t.Secret.Account, t.Secret.Name, c.At)
		switch {
		case err != nil:
			return t.Record, err
		case !ok || !there || old.Seq != t.Record.Seq:
			return t.Record, ErrMoved
		}
		r, err := next(old)
		if err != nil {
			return t.Record, err
		}
		r.Fence = e.token
		if err := c.announce(tx, old, r, event.Kind); err != nil {
			return t.Record, err
		}
		changed, values, err := c.follow(tx, s, old, &r, event, candidate)
		if err != nil {
			return t.Record, err
		}
		if err := tx.PutRotation(&r); err != nil {
			return t.Record, err
		}
		if changed == nil {
			return r, nil
		}
		return r, tx.PutSecret(*changed, values)
	})
}

// follow is what a step of the rotation means for the secret: labels, hold, schedule. It returns nil when nothing changes.
func (c *Call) follow(tx *store.Tx, s secret.Secret, old rotation.Record, r *rotation.Record, event rotation.Event, candidate *Candidate) (*secret.Secret, map[string][]byte, error) {
	before := s.Rotation
	var values map[string][]byte
	var err error
	move := rotation.LabelsAfter(old, *r, event.Kind)
	switch move {
	case rotation.LabelCandidate:
		s, values, err = c.prepare(tx, s, r, event.Version, candidate)
	case rotation.PromoteCandidate:
		s, err = s.Promote(r.Candidate, c.At)
	case rotation.SwapLabels:
		s, err = s.Undo(c.At)
	case rotation.DropCandidate:
		s = s.Unprepare(c.At)
	}
	if err != nil {
		return nil, nil, err
	}
	s.Rotation.Hold = r.BlocksReads()
	s.Rotation.Broken = r.State == rotation.Quarantined
	if rotation.PlansAgain(old, *r, event.Kind) {
		if err := c.dueAgain(&s, r); err != nil {
			return nil, nil, err
		}
	}
	if r.State == rotation.Grace && old.State != rotation.Grace {
		*r = r.Bounded(r.Due, c.At)
	}
	if move == rotation.KeepLabels && s.Rotation == before {
		return nil, nil, nil
	}
	return &s, values, nil
}

// Holders counts the consumers for whom the end of a grace period waits, and says when all of them count as gone. What is damaged may be anybody,
// until the deadline.
func (e *Engine) Holders(ctx context.Context, t *Turn) (n int, until time.Time, err error) {
	env, r, now := e.gate.env, t.Record, e.Now()
	if err := env.Consumers.Sync(ctx, r.Account, r.Secret); err != nil {
		return 0, until, err
	}
	err = store.Snapshot(ctx, env.DB).Consumers(r.Account, r.Secret, "", func(_ string, c rotation.Consumer) bool {
		if gone, yes := r.Awaits(c, now); yes {
			n++
			if gone.After(until) {
				until = gone
			}
		}
		return true
	})
	if err != nil && fault.KindOf(err) != fault.Unavailable {
		env.Log.Error("what is known of the consumers of a secret cannot be read", "secret", r.Secret, "err", err)
		return n + 1, r.GraceLimit, nil
	}
	return n, until, err
}

// releaseGrace has the engine look at a grace period at once, when nobody holds the former credential any more for whom its end waits. It is
// called after what is known of a consumer has changed.
func releaseGrace(ctx context.Context, db *store.DB, account, name string, now time.Time) error {
	return store.Do(ctx, db, func(tx *store.Tx) error {
		r, ok, err := tx.Rotation(account, name)
		if err != nil || !ok {
			return err
		}
		next, changed := r.Released(now)
		if !changed {
			return nil
		}
		held := false
		err = tx.Consumers(account, name, "", func(_ string, c rotation.Consumer) bool {
			_, held = r.Awaits(c, now)
			return !held
		})
		if err != nil || held {
			return err
		}
		return tx.PutRotation(&next)
	})
}

// dueAgain plans the next rotation after one has ended. After one that was abandoned it is tried again sooner than planned,
// with a growing pause.
func (c *Call) dueAgain(s *secret.Secret, r *rotation.Record) error {
	every, err := parseCron(s.Settings().Schedule)
	if err != nil {
		return err
	}
	s.Rotation.Next = s.Planned(c.At, r.Earliest(s.Rotation.Last, c.least()), every)
	if r.State == rotation.Abandoned && !s.Rotation.Next.IsZero() {
		if retry := s.Schedule().Open(c.At.Add(rotation.Retry(r.Abandons))); s.Rotation.Next.Before(retry) {
			s.Rotation.Next = retry
		}
	}
	r.Due = s.Rotation.Next
	if s.Deleting() {
		r.Due = time.Time{}
	}
	r.Overdue = false
	return nil
}

// prepare stores the candidate of a rotation, and claims its accounts and its group's turn.
func (c *Call) prepare(tx *store.Tx, s secret.Secret, r *rotation.Record, version string, candidate *Candidate) (secret.Secret, map[string][]byte, error) {
	if s.Stages[secret.Current] != candidate.Base {
		return s, nil, ErrMoved
	}
	if err := c.claim(tx, s, candidate.users); err != nil {
		return s, nil, err
	}
	if g := s.Settings(); g.Group != "" && r.Trigger != rotation.Emergency {
		spacing, err := tx.Spacing(s.Account, g.Group)
		if err != nil {
			return s, nil, err
		}
		if free := spacing.Last.Add(g.Gap); spacing.Secret != s.Name && c.At.Before(free) {
			return s, nil, &TooSoonError{Until: free}
		}
		if err := tx.PutSpacing(store.Spacing{Account: s.Account, Group: g.Group, Last: c.At, Secret: s.Name}); err != nil {
			return s, nil, err
		}
	}
	key, err := loadKey(tx, s.Account, s.KeyID)
	if err != nil {
		return s, nil, err
	}
	v, box, err := c.seal(key, s.Name, secret.Version{ID: version, DataType: kms.DataText}, candidate.value)
	if err != nil {
		return s, nil, err
	}
	if s, err = s.Prepare(v, c.At); err != nil {
		return s, nil, err
	}
	return s, map[string][]byte{version: box}, nil
}

// claim makes the secret the one that rotates the accounts, if it is bound to them and to its target now.
func (c *Call) claim(tx *store.Tx, s secret.Secret, accounts []string) error {
	for _, account := range accounts {
		if err := mayUse(s, target.Credential{Account: account}); err != nil {
			return err
		}
	}
	name := s.TargetName()
	if name == secret.OwnUsers {
		return nil
	}
	t, ok, err := tx.Target(s.Account, name)
	if err != nil {
		return err
	}
	if !ok || !s.BoundTo(t.ID) {
		return ErrMoved
	}
	return hold(tx, s, t, accounts...)
}

// TooSoonError means that another member of the group rotated a moment ago.
type TooSoonError struct{ Until time.Time }

func (e *TooSoonError) Error() string {
	return "another secret of its group rotates; waiting until " + e.Until.UTC().Format(time.RFC3339)
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

// Impossible tells a refusal that trying again does not change from one that may pass: what a rule says with a kind that a
// person can act on, against everything else.
func Impossible(err error) (text string, ok bool) {
	kinds := []fault.Kind{fault.InUse, fault.Exists, fault.Invalid, fault.NotFound, fault.Deleting, fault.Unsupported, fault.KeyNotFound}
	var e *fault.Error
	if errors.As(err, &e) && slices.Contains(kinds, e.Kind) {
		return e.Msg, true
	}
	return "", false
}

// ProbeEvery is how often a credential in use is probed.
func (e *Engine) ProbeEvery() time.Duration {
	return e.gate.env.Rotation.ProbeEvery
}

// Restored reports whether the store was restored from a copy and nothing has handled that yet.
func (e *Engine) Restored(ctx context.Context) (store.Restored, bool, error) {
	return store.Snapshot(ctx, e.gate.env.DB).Restored()
}

// Doubt makes the credentials of all secrets unknown and has each looked at as soon as its turn comes, after the store was restored from a
// copy. It can be done again after it was cut off. It returns how many there are.
func (e *Engine) Doubt(ctx context.Context, r store.Restored) (int, error) {
	env := e.gate.env
	var list []store.Due
	err := store.Snapshot(ctx, env.DB).AllRotations(func(r rotation.Record) bool {
		list = append(list, store.Due{Account: r.Account, Name: r.Secret})
		return true
	})
	if err != nil {
		return 0, err
	}
	for _, d := range list {
		if err := e.doubt(ctx, d); err != nil {
			return 0, err
		}
	}
	err = store.Do(ctx, env.DB, func(tx *store.Tx) error {
		if err := tx.Fence(e.token); err != nil {
			return err
		}
		now, ok, err := tx.Restored()
		if err == nil && ok && now.At.Equal(r.At) { // another may have happened meanwhile
			tx.DeleteRestored()
		}
		return err
	})
	return len(list), err
}

// doubt makes one credential unknown. One that is gone, or of the service's own users, is not asked about.
func (e *Engine) doubt(ctx context.Context, d store.Due) error {
	env := e.gate.env
	now := env.Now().UTC()
	return store.Do(ctx, env.DB, func(tx *store.Tx) error {
		if err := tx.Fence(e.token); err != nil {
			return err
		}
		s, ok, err := tx.Secret(d.Account, d.Name, now)
		if err != nil || !ok || s.Deleting() || !s.Rotated() || s.TargetName() == secret.OwnUsers {
			return err
		}
		r, ok, err := tx.Rotation(d.Account, d.Name)
		if err != nil || !ok {
			return err
		}
		r = r.Restored(now)
		return tx.PutRotation(&r)
	})
}
