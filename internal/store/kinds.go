package store

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/keyturn/keyturn/internal/cmk"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/users"
)

// The types of records, each declared once. Load, save, delete and list, the check that a record is
// the one of its key, authentication and rewriting follow from the declaration.
//
// To add a type, declare it here and in [kinds], write the methods of Tx that callers use, add a
// probe to test/tamper and a row to the table in docs/ARCHITECTURE.md. A test fails for each that
// is missing.
var (
	metaKind    = single[Meta]("meta").inFormat(metaFormat)
	accountKind = named("account/", func(a Account) string { return a.ID })

	accessKeyKind = named("accesskey/", func(k AccessKey) string { return k.ID }).
			rewrappedBy(func(w Rewriter) rewrap[AccessKey] { return w.AccessKey })
	keyUseKind    = bare[time.Time]("keyuse/")
	masterKeyKind = named("cmk/", func(k cmk.Key) string { return in(k.Account, k.ID) }).
			rewrappedBy(func(w Rewriter) rewrap[cmk.Key] { return w.Key })

	userKind         = named("user/", func(u users.User) string { return in(u.Account, u.Name) })
	groupKind        = named("group/", func(g users.Group) string { return in(g.Account, g.Name) })
	groupRightsKind  = named("grouprights/", func(g users.GroupRights) string { return in(g.Account, g.ID) })
	policyKind       = named("policy/", policyPath).validIf(isCustom)
	documentKind     = bare[string]("policydoc/")
	systemPolicyKind = named("systempolicy/", policyPath).validIf(isSystem)

	secretKind = named("secret/", func(s secret.Secret) string { return in(s.Account, s.Name) }).
			validIf(secret.Secret.Sound)
	valueKind   = sealedValues{declaration{prefix: "value/"}}
	denyingKind = bare[bool]("denying/")
	upgradeKind = bare[bool]("upgrade/")
	dueKind     = byTime("due/", func(d Due) string { return in(d.Account, d.Name) })

	targetKind   = named("target/", func(t Target) string { return in(t.Account, t.Name) })
	attachedKind = bare[bool]("attached/")
	claimKind    = named("claim/", claimPath)
	spacingKind  = named("spacing/", func(s Spacing) string { return in(s.Account, s.Group) })
	rotationKind = named("rotation/", func(r rotation.Record) string { return in(r.Account, r.Secret) })
	wakeKind     = byTime("wake/", func(d Due) string { return in(d.Account, d.Name) })
	consumerKind = named("consumer/", consumerPath)
	eventKind    = named("event/", eventPath)
	engineKind   = single[Engine]("engine")
	pauseKind    = single[Pause]("pause")
	restoredKind = single[Restored]("restored")

	trailHeadKind = named("trail/", func(h TrailHead) string { return h.Node }).evenAtQuota()
	trailRunKind  = named("trailrun/", func(r TrailRun) string { return r.Node }).evenAtQuota()
)

// kinds is the table of all types of records.
var kinds = []recordType{
	metaKind, accountKind, accessKeyKind, keyUseKind, masterKeyKind,
	userKind, groupKind, groupRightsKind, policyKind, documentKind, systemPolicyKind,
	secretKind, valueKind, denyingKind, upgradeKind, dueKind,
	targetKind, attachedKind, claimKind, spacingKind, rotationKind, wakeKind, consumerKind, eventKind,
	engineKind, pauseKind, restoredKind, trailHeadKind, trailRunKind,
}

// Kinds returns the first part of the keys of each type of record, such as "secret".
func Kinds() []string {
	list := make([]string, len(kinds))
	for i, k := range kinds {
		list[i] = firstPart(k.declared().prefix)
	}
	return list
}

// kindByName finds the type of a record by the first part of its key.
var kindByName = func() map[string]recordType {
	m := map[string]recordType{}
	for _, k := range kinds {
		m[firstPart(k.declared().prefix)] = k
	}
	return m
}()

func firstPart(key string) string {
	part, _, _ := strings.Cut(key, "/")
	return part
}

// recordType is a type of record as the table has it.
type recordType interface {
	declared() declaration
	// rewritten returns the form of a record after a rotation of the keys; nil if it stays as it is.
	rewritten(db *DB, w Rewriter, key string, data []byte) ([]byte, error)
}

// declaration is the part of a kind that does not depend on the Go type.
type declaration struct {
	prefix string // of the key, or the whole key of a record that exists once
	// atQuota says that such a record is written even when the store has reached its quota.
	atQuota bool
}

func (d declaration) declared() declaration { return d }

// key returns the key of the record at a path below the prefix.
func (d declaration) key(path string) string { return d.prefix + path }

// kind is a type of record whose content is JSON. A record is found at prefix + path.
type kind[T any] struct {
	declaration
	// path returns where a record belongs, by its own content; nil for a bare kind.
	path func(T) string
	// timed says that a time stands before the path, see [stamp].
	timed bool
	// valid reports whether a record of this type can exist; nil accepts each.
	valid func(T) bool
	// format is the first byte of new records; 0 stands for the formats that every release reads.
	format byte
	// rule selects the function of a Rewriter that changes records of this type; nil for none.
	rule func(Rewriter) rewrap[T]
}

// named declares a type whose records say themselves where they belong.
func named[T any](prefix string, path func(T) string) kind[T] {
	return kind[T]{declaration: declaration{prefix: prefix}, path: path}
}

// byTime declares an index by time: a record's path is a time and the path that the record says.
func byTime[T any](prefix string, path func(T) string) kind[T] {
	k := named(prefix, path)
	k.timed = true
	return k
}

// single declares a record that exists once in a store. Its path is empty.
func single[T any](key string) kind[T] {
	return named(key, func(T) string { return "" })
}

// bare declares a type whose content is one JSON value without a name. Only its tag binds such a
// record to its key, so a struct, which can carry its name, cannot be bare.
func bare[T string | bool | time.Time](prefix string) kind[T] {
	return kind[T]{declaration: declaration{prefix: prefix}}
}

func (k kind[T]) validIf(valid func(T) bool) kind[T] {
	k.valid = valid
	return k
}

func (k kind[T]) inFormat(format byte) kind[T] {
	k.format = format
	return k
}

// rewrappedBy declares that records of this type contain something that the root key wraps.
func (k kind[T]) rewrappedBy(rule func(Rewriter) rewrap[T]) kind[T] {
	k.rule = rule
	return k
}

func (k kind[T]) evenAtQuota() kind[T] {
	k.atQuota = true
	return k
}

// in returns the path of a record of an account. A name may contain "/" and never ":".
func in(account, name string) string { return account + "/" + name }

func policyPath(p users.Policy) string { return in(p.Account, p.Name) }

func isSystem(p users.Policy) bool { return p.Type == users.System }
func isCustom(p users.Policy) bool { return !isSystem(p) }

// load reads one record. ok is false if there is none. Callers must not change what it returns in
// place: other callers share it.
func (k kind[T]) load(tx *Tx, path string) (out T, ok bool, err error) {
	key := k.key(path)
	r, err := tx.get(key)
	if err != nil || r.data == nil {
		return out, false, err
	}
	if r.kept == nil {
		out, err = k.decode(tx.db, key, r.data)
		return out, err == nil, err
	}
	if d := r.kept.decoded.Load(); d != nil {
		return (*d).(T), true, nil
	}
	if out, err = k.decode(tx.db, key, r.data); err != nil {
		return out, false, err
	}
	var d any = out
	r.kept.decoded.Store(&d)
	return out, true, nil
}

// save writes a record where it belongs.
func (k kind[T]) save(tx *Tx, v T) error { return k.saveAt(tx, k.path(v), v) }

// saveAt writes a record of a bare or timed kind.
func (k kind[T]) saveAt(tx *Tx, path string, v T) error {
	key := k.key(path)
	data, err := k.encode(tx.db, key, v)
	if err != nil {
		return err
	}
	tx.write(key, data)
	return nil
}

func (k kind[T]) delete(tx *Tx, path string) { tx.write(k.key(path), nil) }

// scan calls visit for each record whose path begins with under, from the path from (inclusive) on,
// in the order of keys, until visit returns false. What it reads does not guard a change.
func (k kind[T]) scan(tx *Tx, under, from string, visit func(T) bool) error {
	start, end := k.key(under), clientv3.GetPrefixRangeEnd(k.key(under))
	start = max(start, k.key(from))
	for {
		resp, err := tx.db.kv.Get(tx.ctx, start, tx.options(clientv3.WithRange(end), clientv3.WithLimit(chunk))...)
		if err != nil {
			return unavailable(err)
		}
		tx.seen(resp)
		for _, kv := range resp.Kvs {
			v, err := k.decode(tx.db, string(kv.Key), kv.Value)
			if err != nil {
				return err
			}
			if !visit(v) {
				return nil
			}
		}
		if !resp.More {
			return nil
		}
		start = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

// following returns the path after under+name; under itself if name is empty.
func following(under, name string) string {
	if name == "" {
		return under
	}
	return under + name + "\x00"
}

// count returns the number of records whose path begins with under.
func (k kind[T]) count(tx *Tx, under string) (int, error) {
	resp, err := tx.db.kv.Get(tx.ctx, k.key(under), tx.options(clientv3.WithPrefix(), clientv3.WithCountOnly())...)
	if err != nil {
		return 0, unavailable(err)
	}
	tx.seen(resp)
	return int(resp.Count), nil
}

// maxRecord is the size limit of a record's content. It is less than an etcd cluster takes at once.
const maxRecord = 1 << 20

// encode returns the stored form of a record. It refuses a record at a key that is not its own.
func (k kind[T]) encode(db *DB, key string, v T) ([]byte, error) {
	content, err := json.Marshal(v)
	switch {
	case err != nil:
		return nil, fmt.Errorf("record %q: %w", key, err)
	case len(content) > maxRecord:
		return nil, fault.New(fault.LimitExceeded, "The record %q would have %d bytes; the store takes at most %d.",
			key, len(content), maxRecord)
	case !k.isAt(key, v):
		return nil, fmt.Errorf("a record of the type %q is written at a key that is not its own, %q", k.prefix, key)
	}
	return db.seal(k.format, key, content)
}

// decode opens the stored form of a record. It verifies the tag, that the record is the one of its
// key, and that it is valid: a mistake in this program is found here, and not in what is served.
func (k kind[T]) decode(db *DB, key string, data []byte) (out T, err error) {
	content, err := db.open(key, data)
	if err != nil {
		return out, err
	}
	if json.Unmarshal(content, &out) != nil || !k.isAt(key, out) || k.valid != nil && !k.valid(out) {
		return out, damaged(key)
	}
	return out, nil
}

// isAt reports whether a record belongs at a key.
func (k kind[T]) isAt(key string, v T) bool {
	path, ok := strings.CutPrefix(key, k.prefix)
	if !ok || k.path == nil {
		return ok
	}
	if k.timed {
		at, rest, _ := strings.Cut(path, "/")
		if _, err := time.Parse(stampLayout, at); err != nil {
			return false
		}
		path = rest
	}
	return path == k.path(v)
}

// rewritten applies the rule of the type, and gives the record a tag of the current generation.
func (k kind[T]) rewritten(db *DB, w Rewriter, key string, data []byte) ([]byte, error) {
	if k.rule == nil {
		return retagged(db, key, data)
	}
	v, err := k.decode(db, key, data)
	if err != nil {
		return nil, err
	}
	v, changed, err := k.rule(w)(v)
	if err != nil {
		return nil, err
	}
	if !changed {
		return retagged(db, key, data)
	}
	return k.encode(db, key, v)
}
