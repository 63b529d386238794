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
	// DefaultReserve is more than etcd takes at once: it extends its write-ahead log by files of 64
	// MB, and ends the process if it cannot.
	DefaultReserve = 128 << 20
	checkEvery     = time.Second
	checkTimeout   = 5 * time.Second
	reclaimTimeout = 5 * time.Minute // for a large store
	// reclaimRest is the pause before the next attempt to reclaim space, as a multiple of the time
	// that the last attempt took.
	reclaimRest = 10
	// maxHeadRoom is the most that etcd may take above the quota. Other changes are refused at the
	// quota; the heads of the trails are still written.
	maxHeadRoom = 64 << 20
	// headShare is the part of the reserve (1/headShare) that is left to etcd: with less, heads are
	// refused too.
	headShare = 8
	// recordOverhead is more than etcd adds to a key and its value.
	recordOverhead = 256
	// reopenShare is the part of the quota below which a full store takes changes again. Closer to the
	// quota, the space would be used up at once.
	reopenShare = 0.9
)

// space guards the disk and the quota of the embedded store. etcd ends the process when the disk is
// full, so space refuses changes before that. At its quota, etcd refuses changes until its alarm is
// disarmed; space refuses them first, reclaims what deletions and old revisions have left, and
// disarms the alarm.
type space struct {
	dir     string
	reserve int64 // 0 or less disables the check of the disk
	quota   int64
	client  *clientv3.Client
	member  uint64
	// defragment returns the free pages of the file to the disk. The client of an embedded member has
	// no such call.
	defragment func() error
	// flush commits the writes that etcd has applied but does not count in its size yet.
	flush     func()
	measuring chan struct{} // of size 1; the caller that measures holds its element
	log       *slog.Logger

	refusal atomic.Pointer[refusal] // nil while changes are taken
	size    atomic.Int64            // of the store, at the last measurement
	grown   atomic.Int64            // bytes written since
	heads   atomic.Int64            // number of changes that were heads of trails

	// Only the goroutine of run uses the rest.
	reclaimed time.Time     // when the last attempt to reclaim space ended
	took      time.Duration // how long it took
	tried     int64         // number of changes, without heads, at that attempt; 0 if it succeeded
	allocated preallocated  // the blocks of the store's file
}

// refusal says why changes are refused.
type refusal struct {
	text string
	// deletes says that changes which only delete are taken: they make room.
	deletes bool
	// heads says that heads of trails are taken: records after the stored head can be cut off a trail
	// undetected.
	heads bool
}

// headRoom returns how much etcd may take above a quota.
func headRoom(quota int64) int64 { return min(maxHeadRoom, quota/8) }

// run checks once a second until ctx ends.
func (s *space) run(ctx context.Context) {
	t := time.NewTicker(checkEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			s.check(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// check decides whether changes are taken. The disk comes first, because nothing can be reclaimed
// without room on it.
func (s *space) check(ctx context.Context) {
	if r := s.disk(); r != nil {
		s.set(r)
		return
	}
	if s.reserve > 0 {
		if err := s.allocated.update(filepath.Join(s.dir, "etcd", "member", "snap", "db")); err != nil {
			s.log.Warn("could not preallocate disk blocks for the store", "err", err)
		}
	}
	reached, err := s.reached(ctx)
	switch {
	case err != nil: // calls report a store that does not answer
	case !reached:
		s.set(nil)
	default:
		s.set(s.full())
		if err := s.reclaim(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("could not reclaim space of the store; the next attempt follows", "err", err)
		}
	}
}

// full returns the refusal of a store that has reached its quota.
func (s *space) full() *refusal {
	text := fmt.Sprintf("the store has reached its quota of %d MiB: "+
		"delete secrets permanently, or raise store-quota", s.quota>>20)
	return &refusal{text: text, deletes: true, heads: true}
}

// disk returns the refusal for a disk that has too little room or is read-only; nil if it has room.
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

// set replaces the refusal and logs a change of it.
func (s *space) set(now *refusal) {
	before := s.refusal.Swap(now)
	switch {
	case now != nil && (before == nil || before.text != now.text):
		s.log.Error("changes are refused", "why", now.text)
	case now == nil && before != nil:
		s.log.Info("changes are taken again")
	}
}

// reached reports whether the store has reached its quota. A store that has stays so until it is
// below reopenShare.
func (s *space) reached(ctx context.Context) (bool, error) {
	status, err := s.measure(ctx)
	if err != nil {
		return false, err
	}
	limit := float64(s.quota)
	if r := s.refusal.Load(); r != nil && r.deletes {
		limit *= reopenShare
	}
	isNoSpace := func(e string) bool { return strings.Contains(e, etcdserverpb.AlarmType_NOSPACE.String()) }
	return float64(status.DbSize) >= limit || slices.ContainsFunc(status.Errors, isNoSpace), nil
}

// measure asks etcd for the size of the store. One caller at a time measures, so that the bytes
// written before are subtracted from grown once.
func (s *space) measure(ctx context.Context) (*clientv3.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	select {
	case s.measuring <- struct{}{}:
		defer func() { <-s.measuring }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	// etcd commits writes every 100 ms, or later on a busy disk. Its size does not count them before.
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
// may use twice as many pages as the bytes fill.
func (s *space) nearlyFull() bool {
	grown := s.grown.Load()
	return grown > 0 && s.size.Load()+2*grown >= s.most()
}

// reclaim deletes old revisions, returns free pages to the disk, and disarms etcd's alarm if that
// made enough room. After an attempt that did not, it waits for a change: without one, the next
// attempt would find nothing more.
func (s *space) reclaim(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reclaimTimeout)
	defer cancel()
	now, err := s.client.Get(ctx, "\x00", clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	changes := now.Header.Revision - s.heads.Load()
	if changes == s.tried || time.Since(s.reclaimed) < reclaimRest*s.took {
		return nil
	}
	began := time.Now()
	defer func() { s.reclaimed, s.took = time.Now(), time.Since(began) }()
	_, err = s.client.Compact(ctx, now.Header.Revision, clientv3.WithCompactPhysical())
	if err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("compact: %w", err)
	}
	if err := s.defragment(); err != nil {
		return fmt.Errorf("defragment: %w", err)
	}
	status, err := s.client.Status(ctx, "")
	if err != nil {
		return err
	}
	s.tried = changes
	if status.DbSize > s.most() {
		return nil
	}
	alarm := &clientv3.AlarmMember{MemberID: s.member, Alarm: etcdserverpb.AlarmType_NOSPACE}
	if _, err := s.client.AlarmDisarm(ctx, alarm); err != nil {
		return fmt.Errorf("disarm: %w", err)
	}
	s.tried = 0
	return nil
}

// most returns the size from which on changes are refused: the quota and half of the room for
// heads.
func (s *space) most() int64 { return s.quota + headRoom(s.quota)/2 }

// Refusing returns why changes are refused; empty while they are taken.
func (db *DB) Refusing() string {
	if db.space == nil {
		return ""
	}
	if r := db.space.refusal.Load(); r != nil {
		return r.text
	}
	return ""
}

// room returns an error if there is no room for the change. The refusal of the last check decides,
// with two exceptions: for a head, the disk is checked again, because another program may have
// filled it; and near the quota the size is measured again, because much may have been written
// since.
func (tx *Tx) room() error {
	if tx.db.space == nil {
		return nil
	}
	s := tx.db.space
	r := s.refusal.Load()
	if r != nil && r.heads && !r.deletes && tx.isHead() {
		r = s.disk()
	}
	if r == nil && !tx.isHead() && s.nearlyFull() {
		if _, err := s.measure(tx.ctx); err != nil {
			return fault.Wrap(fault.Unavailable, err, "The size of the store is not known, and nothing was changed; try again.")
		}
	}
	if r == nil && s.size.Load() >= s.most() {
		r = s.full()
	}
	if r == nil || r.deletes && !tx.puts() || r.heads && tx.isHead() {
		return nil
	}
	return r.fault()
}

func (r *refusal) fault() error {
	return fault.New(fault.Unavailable, "No changes are taken now, and nothing was changed: %s.", r.text)
}

// grant creates a lease of the given length, rounded down to seconds. It needs room like a change.
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

// isHead reports whether the transaction writes only heads of trails.
func (tx *Tx) isHead() bool {
	for key := range tx.writes {
		if k, ok := kindByName[firstPart(key)]; !ok || !k.declared().atQuota {
			return false
		}
	}
	return len(tx.ranges) == 0
}

// grew counts the bytes of a committed change.
func (s *space) grew(tx *Tx) {
	for key, data := range tx.writes {
		s.grown.Add(int64(len(key) + len(data) + recordOverhead))
	}
	if tx.isHead() {
		s.heads.Add(1)
	}
}

// puts reports whether the transaction writes a record, and does not only delete.
func (tx *Tx) puts() bool {
	for _, data := range tx.writes {
		if data != nil {
			return true
		}
	}
	return false
}

// untouched reports whether a change that etcd answered with "no space" was not made. etcd may
// commit the change that takes it over its quota and answer with that error all the same.
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

// FreeSpace returns how many bytes the file system of dir has left for this process; ok is false if
// that is not known.
func FreeSpace(dir string) (free uint64, ok bool) {
	free, _, ok = freeSpace(dir)
	return free, ok
}
