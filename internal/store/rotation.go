package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
)

const (
	engineKey  = "engine"
	pauseKey   = "pause"
	restoreKey = "restored"
	wakePrefix = "wake/"
	leaseTTL   = 20 * time.Second
)

func rotationPrefix(account string) string { return "rotation/" + account + "/" }
func rotationKey(account, n string) string { return rotationPrefix(account) + n }
func targetPrefix(account string) string   { return "target/" + account + "/" }
func targetKey(account, n string) string   { return targetPrefix(account) + n }
func spacingKey(account, n string) string  { return "spacing/" + account + "/" + n }
func holderKey(account, t, user string) string {
	return "holder/" + account + "/" + t + ":" + user
}
func wakeKey(t time.Time, account, n string) string {
	return wakePrefix + t.UTC().Format(dueLayout) + "/" + account + "/" + n
}

// Target is a registered target.
type Target struct {
	Account string `json:"account"`
	Name    string `json:"name"`
	// ID is this registration: secrets are bound to it, not to the name. It is empty for a target
	// that a release before IDs registered.
	ID          string          `json:"id,omitempty"`
	Kind        string          `json:"kind"`
	Config      json.RawMessage `json:"config"`
	AdminSecret string          `json:"admin_secret,omitempty"`
	Description string          `json:"description,omitempty"`
	// Accounts is the account policy: patterns of the accounts that rotations may change; none means
	// every ordinary account. See [target.AllowsAccount].
	Accounts  []string  `json:"accounts,omitempty"`
	Paused    bool      `json:"paused,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// Spacing keeps the members of a group apart.
type Spacing struct {
	Account string    `json:"account"`
	Group   string    `json:"group"`
	Last    time.Time `json:"last"`
	Secret  string    `json:"secret"`
}

// Holder says which secret rotates an account of a target.
type Holder struct {
	Secret string `json:"secret"`
}

// Engine is the node that rotates.
type Engine struct {
	Node  string    `json:"node"`
	Since time.Time `json:"since"`
}

// Pause says whether all rotations are paused.
type Pause struct {
	Paused bool `json:"paused"`
}

// Restored says that the store was restored from a copy, so that what it says of credentials may not be true any more.
type Restored struct {
	At  time.Time `json:"at"`
	Why string    `json:"why"`
}

// TellRestored stores that, for the engine.
func (db *DB) TellRestored(ctx context.Context, r Restored) error {
	return Do(ctx, db, func(tx *Tx) error { return save(tx, restoreKey, r) })
}

// Restored reads it; ok is false when there is nothing to do about it.
func (tx *Tx) Restored() (r Restored, ok bool, err error) { return load[Restored](tx, restoreKey) }

// DeleteRestored removes it.
func (tx *Tx) DeleteRestored() { tx.write(restoreKey, nil) }

// Engine reads which node rotates; the zero value when none ever has.
func (tx *Tx) Engine() (Engine, error) {
	e, _, err := load[Engine](tx, engineKey)
	return e, err
}

// PauseAll stops new rotations of the whole store, or lets them begin again. It has a record of its own: the engine's is a
// fence, and ends with its node.
func (tx *Tx) PauseAll(paused bool) error {
	return save(tx, pauseKey, Pause{Paused: paused})
}

// AllPaused reads whether all rotations are paused.
func (tx *Tx) AllPaused() (bool, error) {
	p, _, err := load[Pause](tx, pauseKey)
	return p.Paused, err
}

// Rotation reads the rotation record of a secret; ok is false when it never had one.
func (tx *Tx) Rotation(account, name string) (rotation.Record, bool, error) {
	return load[rotation.Record](tx, rotationKey(account, name))
}

// PutRotation writes a rotation record that was read in this transaction, and the time at which the
// engine must check it. It increases r.Seq, so that r is the record as stored.
func (tx *Tx) PutRotation(r *rotation.Record) error {
	r.Seq++
	if err := tx.unwake(r.Account, r.Secret); err != nil {
		return err
	}
	if at := r.Wake(); !at.IsZero() {
		if err := save(tx, wakeKey(at, r.Account, r.Secret), Due{Account: r.Account, Name: r.Secret}); err != nil {
			return err
		}
	}
	return save(tx, rotationKey(r.Account, r.Secret), *r)
}

// unwake removes the wake time of the stored record.
func (tx *Tx) unwake(account, name string) error {
	key := rotationKey(account, name)
	stored, ok := tx.reads[key]
	if !ok {
		return fmt.Errorf("the rotation of %q is written without having been read", name)
	}
	if stored.data == nil {
		return nil
	}
	old, err := decode[rotation.Record](tx.db, key, stored.data)
	if err != nil {
		return err
	}
	if at := old.Wake(); !at.IsZero() {
		tx.write(wakeKey(at, account, name), nil)
	}
	return nil
}

// DeleteRotation removes the rotation record of a secret, if it has one.
func (tx *Tx) DeleteRotation(account, name string) error {
	_, ok, err := tx.Rotation(account, name)
	if err != nil || !ok {
		return err
	}
	if err := tx.unwake(account, name); err != nil {
		return err
	}
	tx.write(rotationKey(account, name), nil)
	return nil
}

// WakeBefore lists at most limit secrets that the engine must look at, and says when the next one is due; zero when none is
// in the next minute. It reads nothing of those that are due later.
func (tx *Tx) WakeBefore(now time.Time, limit int) (due []Due, next time.Time, err error) {
	return timed[Due](tx, wakePrefix, now, limit)
}

// Rotations calls visit for each rotation record of an account whose secret's name begins with prefix, in the order of names,
// from the name from on, until visit returns false.
func (tx *Tx) Rotations(account, prefix, from string, visit func(rotation.Record) bool) error {
	start := rotationKey(account, prefix)
	end := clientv3.GetPrefixRangeEnd(start)
	return scan(tx, max(start, rotationKey(account, from)), end, visit)
}

// AllRotations calls visit for each rotation record of every account, until visit returns false.
func (tx *Tx) AllRotations(visit func(rotation.Record) bool) error {
	const start = "rotation/"
	return scan(tx, start, clientv3.GetPrefixRangeEnd(start), visit)
}

// Target reads a registered target.
func (tx *Tx) Target(account, name string) (Target, bool, error) {
	if name == "" {
		return Target{}, false, nil
	}
	return load[Target](tx, targetKey(account, name))
}

// PutTarget writes a target.
func (tx *Tx) PutTarget(t Target) error { return save(tx, targetKey(t.Account, t.Name), t) }

// DeleteTarget removes a target.
func (tx *Tx) DeleteTarget(account, name string) { tx.write(targetKey(account, name), nil) }

// Targets calls visit for each target of an account, in the order of names, from the name from on, until visit returns false.
func (tx *Tx) Targets(account, from string, visit func(Target) bool) error {
	start := targetPrefix(account)
	end := clientv3.GetPrefixRangeEnd(start)
	return scan(tx, max(start, targetKey(account, from)), end, visit)
}

// Spacing reads when a member of the group last began to rotate.
func (tx *Tx) Spacing(account, group string) (Spacing, error) {
	s, _, err := load[Spacing](tx, spacingKey(account, group))
	return s, err
}

// PutSpacing writes it.
func (tx *Tx) PutSpacing(s Spacing) error { return save(tx, spacingKey(s.Account, s.Group), s) }

// Holder reads which secret rotates an account of a target; empty when none does.
func (tx *Tx) Holder(account, target, user string) (string, error) {
	h, _, err := load[Holder](tx, holderKey(account, target, user))
	return h.Secret, err
}

// PutHolder writes it.
func (tx *Tx) PutHolder(account, target, user, secret string) error {
	return save(tx, holderKey(account, target, user), Holder{Secret: secret})
}

// ErrFenced means that another engine has taken over: the caller must stop, and has changed nothing.
var ErrFenced = errors.New("another node's engine has taken over")

// Fence makes the commit of this transaction depend on the engine with that token still being the one. The token is the
// revision at which it became so: a later engine has a greater one.
func (tx *Tx) Fence(token int64) error {
	r, err := tx.get(engineKey)
	if err != nil {
		return err
	}
	if r.rev != token {
		return ErrFenced
	}
	return nil
}

// Lead is the right to rotate, held by one node at a time.
type Lead struct {
	// Token is stored with what this engine writes, and checked in every transaction of it.
	Token int64
	db    *DB
	lease clientv3.LeaseID
	lost  <-chan struct{}
	until func() time.Time
}

// Lost is closed when the right has ended, or cannot be shown to hold; nil for a node that is alone.
func (l *Lead) Lost() <-chan struct{} { return l.lost }

// Left is how long the right holds at least, whatever other nodes do; a year for a node that is alone.
func (l *Lead) Left() time.Duration {
	if l.until == nil {
		return 365 * 24 * time.Hour
	}
	return time.Until(l.until())
}

// Resign gives the right up, so that another node need not wait for its end.
func (l *Lead) Resign(ctx context.Context) error {
	if l.lease == 0 {
		return nil
	}
	if _, err := l.db.client.Revoke(ctx, l.lease); err != nil {
		return unavailable(err)
	}
	return nil
}

// Lead waits until this node may rotate. A node that is alone may at once: nobody else can open its store. In a cluster the
// right is bound to a lease of 20 seconds, which a node that has stopped, or is cut off, cannot renew.
func (db *DB) Lead(ctx context.Context, node string, now func() time.Time) (*Lead, error) {
	if db.mirror != nil && db.mirror.alone {
		token, err := db.becomeEngine(ctx, Engine{Node: node, Since: now()}, 0)
		return &Lead{Token: token, db: db}, err
	}
	lead, err := db.lease(ctx)
	if err != nil {
		return nil, err
	}
	for {
		token, err := db.becomeEngine(ctx, Engine{Node: node, Since: now()}, lead.lease)
		if err != nil {
			return nil, errors.Join(err, lead.Resign(context.WithoutCancel(ctx)))
		}
		if token != 0 {
			lead.Token = token
			return lead, nil
		}
		if err := db.engineGone(ctx, lead.lost); err != nil {
			return nil, errors.Join(err, lead.Resign(context.WithoutCancel(ctx)))
		}
	}
}

// becomeEngine writes the engine's record and returns the revision, or 0 when another node is the engine.
func (db *DB) becomeEngine(ctx context.Context, e Engine, lease clientv3.LeaseID) (int64, error) {
	taken, err := Update(ctx, db, func(tx *Tx) (bool, error) {
		_, ok, err := load[Engine](tx, engineKey)
		if err != nil || ok && lease != 0 {
			return ok, err
		}
		tx.lease = lease
		return false, save(tx, engineKey, e)
	})
	if err != nil || taken {
		return 0, err
	}
	r, err := newTx(ctx, db).get(engineKey)
	return r.rev, err
}

// engineGone waits until there is no engine.
func (db *DB) engineGone(ctx context.Context, lost <-chan struct{}) error {
	tx := newTx(ctx, db)
	r, err := tx.get(engineKey)
	if err != nil || r.data == nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := db.client.Watch(ctx, db.prefix+engineKey, clientv3.WithRev(tx.rev+1), clientv3.WithFilterPut())
	select {
	case <-events:
		return ctx.Err()
	case <-lost:
		return unavailable(errors.New("the lease of this node has ended"))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lease begins a lease that is renewed until it is revoked, ctx ends or the store cannot be reached for too long.
func (db *DB) lease(ctx context.Context) (*Lead, error) {
	asked := time.Now()
	id, err := db.grant(ctx, leaseTTL)
	if err != nil {
		return nil, err
	}
	renewals, err := db.client.KeepAlive(ctx, id)
	if err != nil {
		return nil, unavailable(err)
	}
	lost := make(chan struct{})
	until := newDeadline(asked.Add(leaseTTL))
	go func() {
		defer close(lost)
		for range renewals {
			// The renewal was asked for at most a third of the TTL before its answer, so this errs on the careful side.
			until.set(time.Now().Add(leaseTTL * 2 / 3))
		}
	}()
	return &Lead{db: db, lease: id, lost: lost, until: until.get}, nil
}

// Changed waits until a secret, or its rotation, has changed since the snapshot, or ctx ends. It returns nil for a change.
func (tx *Tx) Changed(ctx context.Context, account, name string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := tx.db.client.Watch(ctx, tx.db.prefix+secretKey(account, name), clientv3.WithRev(tx.rev+1))
	select {
	case e, ok := <-events:
		if !ok || e.Err() != nil {
			return fault.New(fault.Unavailable, "The store did not answer; try again.")
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Wakes tells, until ctx ends, that some wake time was set: the channel holds at most one signal. It is closed when the watch
// breaks; the caller looks by itself then, and asks again.
func (db *DB) Wakes(ctx context.Context) <-chan struct{} {
	out := make(chan struct{}, 1)
	events := db.client.Watch(clientv3.WithRequireLeader(ctx), db.prefix+wakePrefix, clientv3.WithPrefix(), clientv3.WithFilterDelete())
	go func() {
		defer close(out)
		for e := range events {
			if e.Err() != nil {
				return
			}
			select {
			case out <- struct{}{}:
			default:
			}
		}
	}()
	return out
}

// parseDue is the time in a key of an index of times.
func parseDue(prefix, key string) (time.Time, error) {
	at, err := time.Parse(dueLayout, strings.SplitN(strings.TrimPrefix(key, prefix), "/", 2)[0])
	if err != nil {
		return at, fmt.Errorf("stored record %q is damaged", key)
	}
	return at, nil
}
