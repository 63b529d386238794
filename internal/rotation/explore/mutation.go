package explore

import (
	"errors"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
)

// rules are those of the rotation and the engine, and ways to break them.
type rules struct {
	plan  func(rotation.Record, time.Time) rotation.Step
	next  func(rotation.Record, rotation.Event, time.Time) (rotation.Record, error)
	holds func(rotation.Record) bool

	quiet func(r rotation.Record, unstored, now time.Time) time.Duration

	lost     rotation.Answer // what a lost answer to a candidate is taken for
	rejected rotation.Answer // what a rejected login is taken for
	down     rotation.Answer // what a target is taken for that cannot be reached when it is asked which credential is live
	denied   rotation.Answer // the answer that stands for a refused administrator when the target is asked that

	noIntent       bool // Sending is not stored
	noFence        bool // the right is not checked
	noSeq          bool // the record may have moved on
	labelsLater    bool // the pending label goes in another transaction
	evictLabelled  bool // the version limit knows no labels
	startUpBegins  bool // what is planned begins at start-up
	revertForgets  bool // nothing is taken back
	evictUnknown   bool // a candidate of which nothing is known makes room
	undoUnproven   bool // the previous credential is not tried before an undo
	unproven       bool // nothing is tried before a credential is destroyed
	waitsForNobody bool // a grace ends whatever consumers hold
	emergencyWaits bool // an emergency needs a login with the credential that it replaces
}

// Mutation is a rule that is broken on purpose.
type Mutation struct {
	Name string
	// Breaks is the invariant that it breaks first, and Scope, Most and People the scope in which that
	// is seen.
	Breaks, Scope string
	Most, People  int
	change        func(*rules)
}

func (m *Mutation) rules() *rules {
	r := &rules{
		plan: rotation.Plan, next: rotation.Next, holds: rotation.Record.BlocksReads,
		quiet: rotation.Record.Quiet, lost: lostReply, rejected: rotation.Answer{Class: target.Rejected}, down: unreachable,
		denied: denied,
	}
	if m != nil {
		m.change(r)
	}
	return r
}

// planned is a mutation of what is done in a state.
func planned(s rotation.State, step rotation.Step) func(*rules) {
	return func(r *rules) {
		r.plan = func(rec rotation.Record, now time.Time) rotation.Step {
			if rec.State == s {
				return step
			}
			return rotation.Plan(rec, now)
		}
	}
}

// instead is a mutation of what follows from an event; change gets the record before and after.
func instead(
	kind rotation.EventKind,
	change func(before, after rotation.Record, now time.Time) rotation.Record,
) func(*rules) {
	return func(r *rules) {
		r.next = func(rec rotation.Record, e rotation.Event, now time.Time) (rotation.Record, error) {
			after, err := rotation.Next(rec, e, now)
			if err != nil || e.Kind != kind {
				return after, err
			}
			return change(rec, after, now), nil
		}
	}
}

// goes is a mutation of where an event leads from a state.
func goes(from rotation.State, kind rotation.EventKind, to rotation.State) func(*rules) {
	return instead(kind, func(before, after rotation.Record, _ time.Time) rotation.Record {
		if before.State == from {
			after.State, after.NextAt = to, time.Time{}
		}
		return after
	})
}

// cancelledIn is a mutation that lets a person end a rotation at once in some states.
func cancelledIn(states ...rotation.State) func(*rules) {
	return func(r *rules) {
		r.next = func(rec rotation.Record, e rotation.Event, now time.Time) (rotation.Record, error) {
			if e.Kind == rotation.Cancel && slices.Contains(states, rec.State) {
				rec.State = rotation.Refused
			}
			return rotation.Next(rec, e, now)
		}
	}
}

// undecided is a mutation that tries again for ever in a state, whatever the target answers.
func undecided(s rotation.State) func(*rules) {
	return func(r *rules) {
		r.next = func(rec rotation.Record, e rotation.Event, now time.Time) (rotation.Record, error) {
			if rec.State == s {
				e.Answered = false
			}
			return rotation.Next(rec, e, now)
		}
	}
}

// uncancelled is a mutation that refuses to cancel in a state.
func uncancelled(s rotation.State) func(*rules) {
	return func(r *rules) {
		r.next = func(rec rotation.Record, e rotation.Event, now time.Time) (rotation.Record, error) {
			if rec.State == s && e.Kind == rotation.Cancel {
				return rec, errors.New("cannot be cancelled")
			}
			return rotation.Next(rec, e, now)
		}
	}
}

// forgets is a mutation of an engine that forgets a failed login which it could not store.
func forgets(r *rules) {
	r.quiet = func(rec rotation.Record, _, now time.Time) time.Duration { return rec.Quiet(time.Time{}, now) }
}

// Mutations returns rules that are easy to get wrong, each broken. An explorer that does not see
// one of them is broken itself.
func Mutations() []Mutation { return mutations }

var mutations = []Mutation{
	{"promote before verify", "I2", "single, faults", 1, 1, func(r *rules) {
		planned(rotation.Applied, rotation.Promote)(r)
		r.next = func(rec rotation.Record, e rotation.Event, now time.Time) (rotation.Record, error) {
			if rec.State == rotation.Applied && e.Kind == rotation.Promoted {
				rec.State = rotation.Verified
			}
			return rotation.Next(rec, e, now)
		}
	}},
	{"intent not stored", "I2", "single, faults", 1, 1, func(r *rules) { r.noIntent = true }},
	{
		"a lost answer counts as accepted",
		"I6",
		"single, faults",
		1,
		1,
		func(r *rules) { r.lost = rotation.Answer{OK: true} },
	},
	{"a lost answer counts as not sent", "I6", "single, faults", 1, 1, func(r *rules) { r.lost = unreachable }},
	{
		"a new candidate after a lost answer",
		"I6",
		"single, faults",
		1,
		1,
		func(r *rules) { r.lost = rotation.Answer{Class: target.Refused} },
	},
	{
		"a new candidate after the old one was not found",
		"I2",
		"single, faults",
		1,
		1,
		goes(rotation.Unknown, rotation.Resolved, rotation.Refused),
	},
	{
		"a target that cannot be reached counts as one that rejects",
		"I6",
		"single, by login, faults",
		2,
		1,
		func(r *rules) {
			r.down = rotation.Answer{Class: target.Rejected}
		},
	},
	{
		"a rejected login counts as one that was not answered",
		"I7",
		"single, faults",
		1,
		1,
		func(r *rules) { r.rejected = lostReply },
	},
	{"taken for dead while a request is under way", "I2", "single, late requests", 1, 1, func(r *rules) {
		r.next = func(rec rotation.Record, e rotation.Event, now time.Time) (rotation.Record, error) {
			e.Settled = true
			return rotation.Next(rec, e, now)
		}
	}},
	{
		"given up while it is open what the target has",
		"I6",
		"single, faults",
		1,
		1,
		goes(rotation.Applying, rotation.NoAnswer, rotation.Abandoned),
	},
	{
		"cancelled while it is open what the target has",
		"I6",
		"overlap, faults",
		1,
		1,
		cancelledIn(rotation.Applying, rotation.Unknown),
	},
	{
		"cancelled after an attempt, and nothing is taken back",
		"I6",
		"overlap, by login, faults",
		2,
		1,
		cancelledIn(rotation.Prepared),
	},
	{
		"no hold with one credential",
		"I2",
		"single, faults",
		1,
		1,
		func(r *rules) { r.holds = func(rotation.Record) bool { return false } },
	},
	{"hold ends when the answer is lost", "I2", "single, faults", 1, 1, func(r *rules) {
		r.holds = func(rec rotation.Record) bool { return rec.State != rotation.Unknown && rec.BlocksReads() }
	}},
	{"hold ends before the promotion", "I2", "single, faults", 1, 1, func(r *rules) {
		r.holds = func(rec rotation.Record) bool { return rec.State != rotation.Verified && rec.BlocksReads() }
	}},
	{"labels not moved together", "I5", "single, faults", 1, 1, func(r *rules) { r.labelsLater = true }},
	{"no grace period", "I3", "overlap, faults", 1, 1, goes(rotation.Verified, rotation.Promoted, rotation.Retiring)},
	{
		"retired before the grace period ends",
		"I3",
		"overlap, faults",
		1,
		1,
		instead(rotation.Promoted, func(_, after rotation.Record, now time.Time) rotation.Record {
			if after.State == rotation.InGrace {
				after.NextAt = now.Add(after.Grace.Min / 2)
			}
			return after
		}),
	},
	{
		"retired while a consumer holds the previous credential",
		"I3",
		"overlap, consumers",
		1,
		1,
		func(r *rules) { r.waitsForNobody = true },
	},
	{"a grace without a limit", "I10", "overlap, consumers", 1, 1, func(r *rules) {
		r.next = func(rec rotation.Record, e rotation.Event, now time.Time) (rotation.Record, error) {
			if rec.State == rotation.InGrace && e.Kind == rotation.Overran {
				rec.GraceDeadline = now.Add(grace.Max)
				e = rotation.Event{Kind: rotation.Awaiting, Consumers: 1, Until: now.Add(grace.Max)}
			}
			return rotation.Next(rec, e, now)
		}
	}},
	{"retired without storing it first", "I3", "overlap, faults", 1, 1, func(r *rules) {
		r.plan = func(rec rotation.Record, now time.Time) rotation.Step {
			if step := rotation.Plan(rec, now); step != rotation.Expire {
				return step
			}
			return rotation.Retire
		}
		r.next = func(rec rotation.Record, e rotation.Event, now time.Time) (rotation.Record, error) {
			if rec.State == rotation.InGrace && (e.Kind == rotation.Retired || e.Kind == rotation.Failed) {
				rec.State = rotation.Retiring
			}
			return rotation.Next(rec, e, now)
		}
	}},
	{"undo without proof", "I5", "overlap, faults", 1, 1, func(r *rules) { r.undoUnproven = true }},
	{
		"an emergency waits for the end of grace",
		"I10",
		"overlap, faults",
		1,
		2,
		instead(rotation.LoggedIn, func(before, after rotation.Record, now time.Time) rotation.Record {
			if before.State == rotation.Undoing && before.Grace.Min > 0 {
				after.State, after.GraceUntil = rotation.InGrace, now.Add(before.Grace.Min)
				after.NextAt = after.GraceUntil
			}
			return after
		}),
	},
	{"a stale engine is not fenced", "I4", "single, two engines", 1, 1, func(r *rules) { r.noFence = true }},
	{
		"a stale engine is not fenced, nor its record compared",
		"I4",
		"single, two engines",
		1,
		1,
		func(r *rules) { r.noFence, r.noSeq = true, true },
	},
	{"the record may have moved on", "I4", "overlap, faults", 1, 1, func(r *rules) { r.noSeq = true }},
	{
		"the version limit evicts what is labelled",
		"I5",
		"single, faults",
		1,
		1,
		func(r *rules) { r.evictLabelled = true },
	},
	{"a candidate that may be live is evicted", "I1", "single, faults", 1, 1, func(r *rules) { r.evictUnknown = true }},
	{
		"a candidate that may be live is evicted, with two credentials",
		"I8",
		"overlap, faults",
		1,
		1,
		func(r *rules) { r.evictUnknown = true },
	},
	{"what is planned begins at start-up", "I9", "single, faults", 1, 1, func(r *rules) { r.startUpBegins = true }},
	{"nothing is taken back", "I2", "single, faults", 1, 1, func(r *rules) { r.revertForgets = true }},
	{
		"abandoned instead of taken back",
		"I2",
		"single, faults",
		1,
		1,
		goes(rotation.Applied, rotation.NoLogin, rotation.Abandoned),
	},
	{"a login at once after one that was rejected", "I7", "single, faults", 1, 1, func(r *rules) {
		instead(rotation.NoLogin, func(_, after rotation.Record, _ time.Time) rotation.Record {
			after.NextAt = time.Time{}
			return after
		})(r)
		r.quiet = func(rotation.Record, time.Time, time.Time) time.Duration { return 0 }
	}},
	{"failed logins are not stored, nor remembered", "I7", "single, faults", 2, 1, func(r *rules) {
		instead(rotation.NoLogin, func(before, after rotation.Record, _ time.Time) rotation.Record {
			after.LoginFailedAt = before.LoginFailedAt
			return after
		})(r)
		forgets(r)
	}},
	{"a failed login that could not be stored is forgotten", "I7", "single, faults", 1, 1, forgets},
	{
		"quarantined when nothing is known",
		"I6",
		"single, by login, faults",
		1,
		1,
		goes(rotation.Unknown, rotation.Failed, rotation.Quarantined),
	},
	{
		"quarantined at the first rejection",
		"I10",
		"single, faults",
		1,
		1,
		goes(rotation.Unknown, rotation.Resolved, rotation.Quarantined),
	},
	{"the only credential is destroyed before a login with it", "I11", "single, faults", 1, 1, func(r *rules) {
		r.unproven = true
	}},
	{"the previous credential is retired before a login", "I11", "overlap, faults", 1, 1, func(r *rules) {
		r.unproven = true
	}},
	{"reads stay blocked while logins decide nothing", "I2", "single, by login, moods", 1, 1, instead(rotation.Failed,
		func(before, after rotation.Record, now time.Time) rotation.Record {
			if before.State == rotation.Applied && after.State == rotation.Reverting {
				after.State, after.NextAt = rotation.Applied, now.Add(time.Minute)
			}
			return after
		},
	)},
	{"a candidate that gets no session is kept for ever", "I10", "overlap, moods", 1, 1, undecided(rotation.Applied)},
	{"asked for ever which credential is live", "I10", "single, by login, moods", 1, 1, undecided(rotation.Unknown)},
	{"tried for ever whether the credential in use works", "I10", "single, moods", 1, 1, undecided(rotation.Prepared)},
	{"a replica is waited for without an end", "I10", "overlap, replicas", 1, 1, undecided(rotation.Applied)},
	{"a refused administrator is tried for ever", "I10", "overlap, refused administrator", 1, 1, instead(rotation.Denied,
		func(before, after rotation.Record, now time.Time) rotation.Record {
			if !after.InFlight() {
				before.NextAt = now.Add(time.Minute)
				return before
			}
			return after
		},
	)},
	{
		"a refused administrator keeps logins from deciding",
		"I10",
		"single, refused administrator",
		2,
		1,
		func(r *rules) { r.denied = unreachable },
	},
	{
		"a candidate that is not given up is taken back for ever",
		"I10",
		"single, refused administrator",
		2,
		1,
		undecided(rotation.Reverting),
	},
	{"a base that is rejected is asked about for ever", "I10", "single, moods", 2, 1, func(r *rules) {
		r.next = func(rec rotation.Record, e rotation.Event, now time.Time) (rotation.Record, error) {
			rec.BaseRejected = false
			return rotation.Next(rec, e, now)
		}
	}},
	{"an emergency waits for a login with the leaked credential", "I10", "single, faults", 1, 1, func(r *rules) {
		r.emergencyWaits = true
	}},
	{"an undo does not wait for a retirement under way", "I2", "overlap, late requests", 1, 1, instead(rotation.Undo,
		func(before, after rotation.Record, _ time.Time) rotation.Record {
			if before.State == rotation.Retiring {
				after.NextAt = time.Time{}
			}
			return after
		},
	)},
	{"a retirement cannot be cancelled", "I12", "overlap, faults", 1, 1, uncancelled(rotation.Retiring)},
	{"a candidate that is taken back cannot be left", "I12", "single, faults", 1, 1, uncancelled(rotation.Reverting)},
	{"a rotation of which nothing is known cannot end", "I12", "single, faults", 1, 1, uncancelled(rotation.Unknown)},
	{"a rotation cannot be cancelled without a login", "I12", "double, faults", 1, 1, uncancelled(rotation.Applied)},
	{"no way on from unknown", "I10", "single, faults", 1, 1, planned(rotation.Unknown, rotation.Nothing)},
	{"no way on from refused", "I10", "single, faults", 1, 1, planned(rotation.Refused, rotation.Nothing)},
}
