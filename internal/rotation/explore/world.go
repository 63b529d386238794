package explore

import (
	"math/bits"
	"strconv"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// Versions are small numbers here, so that sets of them are bits. In records they have names of one
// letter.
const (
	holdFor    = 2 * time.Second
	lag        = 10 * time.Second
	maxMade    = 8 // versions that one history makes; then nothing new begins
	maxStored  = 3 // the version limit: one for each label
	noVersion  = int8(-1)
	probeEvery = 2 * time.Hour
	gap        = 10 * time.Minute              // of a group of secrets, or until a pause is looked at again
	lingering  = rotation.Settle - time.Second // how long after its answer was lost a target may still do what it was asked
)

// grace is the grace period of every rotation.
var grace = rotation.Grace{Min: time.Hour, Max: 3 * time.Hour}

func name(v int8) string {
	if v == noVersion {
		return ""
	}
	return string(rune('a' + v))
}

func number(name string) int8 {
	if name == "" {
		return noVersion
	}
	return int8(name[0] - 'a')
}

func bit(v int8) uint16 {
	if v == noVersion {
		return 0
	}
	return 1 << v
}

// data is the store: what one transaction changes together. It is never changed once it is in a
// world.
type data struct {
	rec             rotation.Record
	cur, prev, pend int8
	stored          uint16
	hold            bool // as the last transaction of the engine has set it
	// promised is the version that works until promise, by what was agreed when the labels moved.
	promised int8
	promise  time.Time
	// holding is until when it works for a consumer that holds it.
	holding time.Time
}

// flight is a request whose answer the engine does not get any more, and which the target may still
// carry out.
type flight struct {
	retire   bool
	strategy target.Strategy
	in, out  int8 // the credential that comes, and the one that goes
	until    time.Time
}

// world is everything there is. Copying it makes another.
type world struct {
	now     time.Time
	db      *data
	backup  *data
	live    uint16 // the versions that authenticate
	second  uint16 // the versions of the second account
	made    int8
	token   int64 // of the engine that has the right
	engines [2]engine
	flights [2]flight
	// failed is when the engine last caused a failed login of each account, by a clock that nobody
	// sets.
	failed [2]time.Time
	faults int8 // that are left
	people int8 // what people will still ask for
	// holds is the version that the consumer holds, as it has told.
	holds int8
	// touched says that somebody else has changed the target, or the store was put back to an earlier
	// state.
	touched bool
	// lagged says that a login was rejected, while it was open which credential is live, because the
	// target was slow.
	lagged bool
	// mood is how the target answers logins, and behind says that a replica learns of
	// nothing.
	mood   mood
	behind bool
	// locked says that the target refuses the administrator.
	locked bool
	// kept are the versions that an operator has let the target accept.
	kept uint16
	// spared says that an engine stopped between a failed login and its note of it.
	spared bool
	// bad is the invariant that the last transition broke.
	bad string
}

// mood is how a target answers logins.
type mood uint8

const (
	content mood = iota
	denies       // every login is denied
	refuses      // a login that succeeds gets no session
	mumbles      // every answer is one whose meaning is not known
	rejects      // every login is rejected, whatever the target has taken
)

// pc is how far an engine is with one step.
type pc uint8

const (
	off     pc = iota
	ready      // between steps
	loaded     // a record was read and a step chosen
	proved     // a login with what a change relies on has succeeded
	sending    // the intent is stored
	halfway    // a resolution has asked, and asks more
	heard      // the target was asked; the outcome is not stored
)

// evidence is what the target itself has said in a step, apart from what the engine makes of it.
type evidence uint8

const (
	silence evidence = iota
	took
	declined
	untouched // it was certainly not asked
	answered  // about the candidate
)

type engine struct {
	pc       pc
	step     rotation.Step
	token    int64
	seq      int64
	rec      *rotation.Record    // as read
	q        rotation.Resolution // what it has learned in the step Resolve
	event    rotation.Event
	evidence evidence
	proved   bool // a login with what the change relies on has succeeded in this step
	// loginFailed is when this engine saw a login fail; it is lost with the engine.
	loginFailed time.Time
}

func (w *world) account(v int8) int {
	if w.second&bit(v) != 0 {
		return 1
	}
	return 0
}

// credential is the one of a version, as far as it makes a difference.
func (w *world) credential(v int8) target.Credential {
	return target.Credential{Account: strconv.Itoa(w.account(v)), Secret: sensitive.New(name(v))}
}

// sameAccount is the set of versions of the account of v.
func (w *world) sameAccount(v int8) uint16 {
	if w.account(v) == 1 {
		return w.second
	}
	return ^w.second
}

// apply makes the target accept in: with one account and no overlap, and with two accounts, instead
// of what that account had.
func (w *world) apply(s target.Strategy, in int8) {
	if s != target.Overlap {
		w.live &^= w.sameAccount(in)
	}
	w.live |= bit(in)
}

func (w *world) land(f flight) {
	if f.retire {
		w.live &^= bit(f.out) // exactly this one: an account that has another by now keeps it
		return
	}
	w.apply(f.strategy, f.in)
}

// launch leaves a request with the target whose answer is lost.
func (w *world) launch(f flight) bool {
	f.until = w.now.Add(lingering)
	for i := range w.flights {
		if w.flights[i] == (flight{}) {
			w.flights[i] = f
			return true
		}
	}
	return false
}

// newVersion counts one more version; ok is false when a history has made enough.
func (w *world) newVersion(second bool) (v int8, ok bool) {
	if w.made >= maxMade {
		return 0, false
	}
	v = w.made
	w.made++
	if second {
		w.second |= bit(v)
	}
	return v, true
}

// loginFails notes a failed login that the engine has caused. excused is for the login with the
// base after a rejected candidate.
func (w *world) loginFails(v int8, excused bool) {
	last := &w.failed[w.account(v)]
	if !last.IsZero() && w.now.Sub(*last) < rotation.LoginWindow && !excused {
		if !w.spared {
			w.bad = "I7: a second failed login in one window"
		}
		w.spared = false
	}
	*last = w.now
}

// The label rules below are those of package secret; a test holds the two together.

func (d *data) prepare(v int8, r *rules) {
	d.stored |= bit(v)
	d.pend = v
	d.evict(r, maxStored)
}

func (d *data) evict(r *rules, most int) {
	for bits.OnesCount16(d.stored) > most {
		free := d.stored &^ (bit(d.cur) | bit(d.prev) | bit(d.pend))
		if r.evictLabelled {
			free = d.stored &^ bit(d.pend)
		}
		d.stored &^= free & -free // the oldest: versions are numbered as they come
	}
}

func (d *data) promote(candidate int8) {
	if d.cur != candidate {
		d.prev, d.cur = d.cur, candidate
	}
	if d.pend == candidate {
		d.pend = noVersion
	}
}

func (d *data) undo() { d.prev, d.cur = d.cur, d.prev }

func (d *data) adopt(v, kept int8, r *rules, most int) {
	d.stored |= bit(v)
	d.pend = noVersion
	if d.cur != v {
		d.prev, d.cur = d.cur, v
		if kept != noVersion {
			d.prev = kept
		}
	}
	d.evict(r, most)
}

// key is the state of a world, as a hash of all that can make a difference later. Times count from
// now, and what lies behind is one: nothing asks how long ago it was, but for failed logins, which
// matter for one window.
func (w *world) key(all bool) uint64 {
	h := hash(14695981039346656037)
	h.data(w.db, w.now)
	h.word(uint64(w.live) | uint64(w.second)<<16 | uint64(w.made)<<32 | flag(w.touched)<<40 | uint64(w.holds+1)<<48)
	for _, f := range w.flights {
		h.word(flag(f.retire) | uint64(f.in+1)<<8 | uint64(f.out+1)<<16)
		h.time(f.until, w.now)
	}
	if !all {
		return uint64(h)
	}
	h.word(uint64(w.mood) | uint64(w.kept)<<8 | flag(w.behind)<<24 | flag(w.locked)<<25)
	h.word(uint64(w.faults) | uint64(w.people)<<8 | flag(w.spared)<<16 | flag(w.lagged)<<18 | flag(w.backup != nil)<<17)
	if w.backup != nil {
		h.data(w.backup, w.now)
	}
	for i := range w.failed {
		h.past(w.failed[i], w.now)
	}
	for i := range w.engines {
		h.engine(&w.engines[i], w)
	}
	return uint64(h)
}

type hash uint64

func (h *hash) word(x uint64) {
	*h = (*h ^ hash(x)) * 0x9e3779b97f4a7c15
	*h ^= *h >> 29
}

func (h *hash) text(s string) {
	word := uint64(len(s))
	for i := range len(s) {
		if word = word<<8 | uint64(s[i]); i%7 == 6 {
			h.word(word)
			word = 0
		}
	}
	h.word(word)
}

func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func (h *hash) time(t, now time.Time) {
	switch {
	case t.IsZero():
		h.word(0)
	case !t.After(now):
		h.word(1)
	default:
		h.word(uint64(t.Sub(now)) + 2)
	}
}

// past is a time that matters for one login window.
func (h *hash) past(t, now time.Time) {
	if t.IsZero() || now.Sub(t) >= rotation.LoginWindow {
		h.word(0)
		return
	}
	h.word(uint64(now.Sub(t)) + 2)
}

func (h *hash) data(d *data, now time.Time) {
	h.bytes(d.cur+1, d.prev+1, d.pend+1, d.promised+1)
	h.word(uint64(d.stored) | flag(d.hold)<<16)
	h.time(d.promise, now)
	h.time(d.holding, now)
	h.record(&d.rec, now)
}

func (h *hash) record(r *rotation.Record, now time.Time) {
	h.text(string(r.State))
	h.text(string(r.Mode))
	h.text(string(r.Trigger))
	h.text(string(r.Strategy))
	h.text(r.Candidate)
	h.text(r.Base)
	failures := min(r.Failures, 10) // the back-off grows no more then
	h.bytes(int8(r.Attempt), int8(r.Candidates), int8(r.Rejections), int8(failures), int8(min(r.Waiting, 1)))
	h.flags(r.Paused, r.Then != nil, r.Grace.Min > 0, r.StartedAt.After(now), r.Cancelled, r.Imposed)
	h.flags(r.Doubtful, r.BaseRejected, r.BaseRetired, r.GraceOver, r.Interrupted != nil)
	if i := r.Interrupted; i != nil {
		h.text(string(i.State))
		h.text(string(i.Trigger))
		h.text(i.Base)
		h.flags(i.Swapped)
		h.time(i.GraceUntil, now)
		h.time(i.GraceDeadline, now)
	}
	if q := r.Quarantine; q != nil {
		h.text(string(q.Strategy))
		h.text(q.Current)
	}
	h.time(r.NextAt, now)
	h.time(r.GraceUntil, now)
	h.time(r.GraceDeadline, now)
	h.time(r.Due, now)
	h.time(r.Health.NextAt, now)
	h.past(r.LoginFailedAt, now)
	h.time(r.SettledAt(now), now)
	if !r.HeldAt.IsZero() {
		h.time(r.HeldAt.Add(r.Hold), now)
	}
	if !r.CopiesAt.IsZero() {
		h.time(r.CopiesAt.Add(r.Lag), now)
	}
}

// bytes adds at most eight small numbers.
func (h *hash) bytes(list ...int8) {
	var word uint64
	for _, n := range list {
		word = word<<8 | uint64(uint8(n))
	}
	h.word(word)
}

// flags adds at most 64 booleans.
func (h *hash) flags(list ...bool) {
	var word uint64
	for _, b := range list {
		word = word<<1 | flag(b)
	}
	h.word(word)
}

func (h *hash) engine(e *engine, w *world) {
	h.word(uint64(e.pc))
	if e.pc == off {
		return
	}
	h.word(flag(e.token == w.token))
	h.past(e.loginFailed, w.now)
	if e.pc == ready {
		return
	}
	fresh := e.seq == w.db.rec.Seq
	h.word(uint64(e.evidence)<<16 | flag(fresh)<<24 | flag(e.proved)<<25)
	h.text(string(e.step))
	h.text(string(e.event.Kind))
	h.word(
		uint64(e.event.Candidate) | uint64(e.event.Base)<<8 | flag(e.event.LoginFailed)<<16 | flag(e.event.Settled)<<17,
	)
	h.word(
		uint64(
			e.q.Known[0],
		) | uint64(
			e.q.Known[1],
		)<<8 | flag(
			e.q.Inspected,
		)<<16 | flag(
			e.q.Settled,
		)<<17 | flag(
			e.q.LoginFailed,
		)<<18,
	)
	h.word(uint64(e.event.After) | flag(e.event.Answered)<<63)
	if !fresh { // what is stored no more can still be sent
		h.text(string(e.rec.State))
		h.text(string(e.rec.Strategy))
		h.text(e.rec.Candidate)
		h.text(e.rec.Base)
		h.past(e.rec.LoginFailedAt, w.now)
	}
}
