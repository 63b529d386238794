package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/keyturn/keyturn/internal/fault"
)

const (
	DefaultQuota = 8 << 30
	// DefaultReserve is more than etcd takes at once: it makes its write-ahead log longer by files of 64 MB, and ends the
	// process when it cannot.
	DefaultReserve = 128 << 20
	lookEvery      = time.Second
	lookTimeout    = 5 * time.Second
	mendTimeout    = 5 * time.Minute // a large store takes its time
	mendRest       = 10              // times as long as mending took, it is not tried again
	// maxHeadRoom is what etcd may take above the quota, at most: changes are refused at the quota, and
	// the heads of the trails go on.
	maxHeadRoom = 64 << 20
	// headShare is the part of the reserve that is left to etcd: with less, heads are refused too.
	headShare = 8
	// recordOverhead is more than etcd adds to a key and its value.
	recordOverhead = 256
	fullEnough     = 0.9 // of the quota: above it, room would be gone at once
)

// space watches over the room that the embedded store has. etcd ends the process when its disk is full, so changes are
// refused before that; and it refuses them itself, until it is told otherwise, when the store has reached its quota. Then the
// room is what deletions and old revisions have left, and space gets it back.
type space struct {
	dir     string
	reserve int64 // 0 for no look at the disk
	quota   int64
	client  *clientv3.Client
	member  uint64
	// defragment makes the file shorter by what is free in it; the client of an embedded member cannot.
	defragment func() error
	// flush commits the writes that etcd has applied and not yet counted in its size.
	flush     func()
	measuring chan struct{} // of size 1: held by the caller that measures
	log       *slog.Logger

	refusal atomic.Pointer[refusal] // nil while changes are taken
	size    atomic.Int64            // of the store, at the last look
	grown   atomic.Int64            // what was written since
	heads   atomic.Int64            // how many changes were heads of trails

	// The rest belongs to run.
	mended time.Time     // when mending was tried last
	took   time.Duration // and how long that took
	// allocated are the blocks of the store's file.
	allocated preallocated
	at        int64 // how many changes there were when it was tried, other than heads
}

// refusal says why changes are refused.
type refusal struct {
	text string
	// deletes says that changes which only delete are taken: they are what makes room.
	deletes bool
	// heads says that the heads of the trails are taken: what is not stored of them can be cut off
	// from a trail unseen.
	heads bool
}

// headRoom is what etcd may take above a quota.
func headRoom(quota int64) int64 { return min(maxHeadRoom, quota/8) }

// run looks once a second until ctx ends.
func (s *space) run(ctx context.Context) {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			s.look(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// look finds out whether changes can be taken.
func (s *space) look(ctx context.Context) {
	if r := s.disk(); r != nil {
		s.note(r)
		return
	}
	if s.reserve > 0 {
		if err := s.allocated.update(filepath.Join(s.dir, "etcd", "member", "snap", "db")); err != nil {
			s.log.Warn("no disk blocks could be allocated beforehand for the store", "err", err)
		}
	}
	reached, err := s.reached(ctx)
	switch {
	case err != nil: // a store that does not answer says so itself
	case !reached:
		s.note(nil)
	default:
		s.note(s.full())
		if err := s.mend(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("the store's room could not be got back; it will be tried again", "err", err)
		}
	}
}

// full is the refusal of a store that has reached its quota.
func (s *space) full() *refusal {
	text := fmt.Sprintf("the store has reached its quota of %d MiB: delete secrets for good, or raise store-quota", s.quota>>20)
	return &refusal{text: text, deletes: true, heads: true}
}

// disk says what is wrong with the disk; nil when it has room.
func (s *space) disk() *refusal {
	if s.reserve <= 0 {
		return nil
	}
	free, readOnly, ok := freeSpace(s.dir)
	switch {
	case !ok:
		return nil
	case readOnly:
		return &refusal{text: "the file system of the store is read-only"}
	case free < uint64(s.reserve):
		text := fmt.Sprintf("the disk of the store has less than %d MiB left (store-reserve): make room", s.reserve>>20)
		return &refusal{text: text, heads: free >= uint64(s.reserve)/headShare}
	}
	return nil
}

func (s *space) note(now *refusal) {
	before := s.refusal.Swap(now)
	switch {
	case now != nil && (before == nil || before.text != now.text):
		s.log.Error("changes are refused", "why", now.text)
	case now == nil && before != nil:
		s.log.Info("changes are taken again")
	}
}

// reached reports whether the store has reached its quota. While changes are refused for it, that is
// so until there is more room than would be gone at once.
func (s *space) reached(ctx context.Context) (bool, error) {
	status, err := s.measure(ctx)
	if err != nil {
		return false, err
	}
	limit := float64(s.quota)
	if r := s.refusal.Load(); r != nil && r.deletes {
		limit *= fullEnough
	}
	isNoSpace := func(e string) bool { return strings.Contains(e, etcdserverpb.AlarmType_NOSPACE.String()) }
	return float64(status.DbSize) >= limit || slices.ContainsFunc(status.Errors, isNoSpace), nil
}

// measure asks etcd for the size of the store. One caller at a time measures, so that what was written
// is subtracted once.
func (s *space) measure(ctx context.Context) (*clientv3.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	select {
	case s.measuring <- struct{}{}:
		defer func() { <-s.measuring }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	// etcd commits what it applies every 100 ms, or later on a busy disk. Its size does not count it before.
	known := s.grown.Load()
	if known > 0 {
		s.flush()
	}
	status, err := s.client.Status(ctx, "")
	if err != nil {
		return nil, err
	}
	s.size.Store(status.DbSize)
	s.grown.Add(-known)
	return status, nil
}

// nearlyFull reports whether the changes since the last measurement may have filled the store. etcd
// takes more pages than their bytes fill: up to twice as many.
func (s *space) nearlyFull() bool {
	grown := s.grown.Load()
	return grown > 0 && s.size.Load()+2*grown >= s.most()
}

// mend gives up old revisions, makes the file shorter by what is free in it, and lifts the ban when that was enough. It is
// tried again when something has changed since.
func (s *space) mend(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, mendTimeout)
	defer cancel()
	now, err := s.client.Get(ctx, "\x00", clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	changes := now.Header.Revision - s.heads.Load()
	if changes == s.at || time.Since(s.mended) < mendRest*s.took {
		return nil
	}
	began := time.Now()
	defer func() { s.mended, s.took = time.Now(), time.Since(began) }()
	if _, err := s.client.Compact(ctx, now.Header.Revision, clientv3.WithCompactPhysical()); err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("compact: %w", err)
	}
	if err := s.defragment(); err != nil {
		return fmt.Errorf("defragment: %w", err)
	}
	status, err := s.client.Status(ctx, "")
	if err != nil {
		return err
	}
	s.at = changes
	if status.DbSize > s.most() {
		return nil
	}
	if _, err := s.client.AlarmDisarm(ctx, &clientv3.AlarmMember{MemberID: s.member, Alarm: etcdserverpb.AlarmType_NOSPACE}); err != nil {
		return fmt.Errorf("disarm: %w", err)
	}
	s.at = 0
	return nil
}

// most is the size above which no change is taken: the quota, and half of the room for heads.
func (s *space) most() int64 { return s.quota + headRoom(s.quota)/2 }

// Refusing says why changes are refused; it is empty while they are taken.
func (db *DB) Refusing() string {
	if db.space == nil {
		return ""
	}
	if r := db.space.refusal.Load(); r != nil {
		return r.text
	}
	return ""
}

// room refuses a change while there is none for it.
func (tx *Tx) room() error {
	if tx.db.space == nil {
		return nil
	}
	s := tx.db.space
	r := s.refusal.Load()
	if r != nil && r.heads && !r.deletes && tx.isHead() {
		r = s.disk() // another program may have filled the disk since the last look
	}
	if r == nil && !tx.isHead() && s.nearlyFull() {
		if _, err := s.measure(tx.ctx); err != nil {
			return fault.Wrap(fault.Unavailable, err, "The store does not say how large it is, and nothing was changed.")
		}
	}
	if r == nil && s.size.Load() >= s.most() {
		r = s.full() // much was written since the last look
	}
	if r == nil || r.deletes && !tx.puts() || r.heads && tx.isHead() {
		return nil
	}
	return r.fault()
}

func (r *refusal) fault() error {
	return fault.New(fault.Unavailable, "No changes are taken now, and nothing was changed: %s.", r.text)
}

// grant creates a lease of the given length, in whole seconds. A lease takes room in the store, too.
func (db *DB) grant(ctx context.Context, length time.Duration) (clientv3.LeaseID, error) {
	if db.space != nil {
		if r := db.space.refusal.Load(); r != nil {
			return 0, r.fault()
		}
	}
	granted, err := db.client.Grant(ctx, int64(length/time.Second))
	if err != nil {
		return 0, unavailable(err)
	}
	return granted.ID, nil
}

// isHead reports whether the transaction writes what the store knows of a trail, and nothing else.
func (tx *Tx) isHead() bool {
	for key := range tx.writes {
		if k, ok := kindByName[firstPart(key)]; !ok || !k.declared().atQuota {
			return false
		}
	}
	return len(tx.ranges) == 0
}

// grew counts a change that was made.
func (s *space) grew(tx *Tx) {
	for key, data := range tx.writes {
		s.grown.Add(int64(len(key) + len(data) + recordOverhead))
	}
	if tx.isHead() {
		s.heads.Add(1)
	}
}

// puts reports whether the transaction writes anything, and does not only delete.
func (tx *Tx) puts() bool {
	for _, data := range tx.writes {
		if data != nil {
			return true
		}
	}
	return false
}

// untouched reports whether a change that was answered with an error was not made. The store may have made the one that
// takes it over its quota, and say all the same that it has no space.
func (tx *Tx) untouched() bool {
	for key := range tx.writes {
		was, ok := tx.reads[key]
		if !ok {
			continue
		}
		now, err := tx.db.kv.Get(tx.ctx, key, clientv3.WithKeysOnly())
		if err != nil {
			return false
		}
		rev := int64(0)
		if len(now.Kvs) > 0 {
			rev = now.Kvs[0].ModRevision
		}
		return rev == was.rev
	}
	return false
}

// FreeSpace returns how many bytes the file system of dir has left for this process; ok is false if that
// is not known.
func FreeSpace(dir string) (free uint64, ok bool) {
	free, _, ok = freeSpace(dir)
	return free, ok
}
