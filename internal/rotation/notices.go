package rotation

// Notice is what a change of a rotation means to those outside: operators who read the log, and
// receivers of events. Its value is the type of the CloudEvent, less the prefix of the product.
type Notice string

// The notices.
const (
	NoNotice          Notice = ""
	NoticeStarted     Notice = "rotation.started"
	NoticeSucceeded   Notice = "rotation.succeeded"
	NoticeFailed      Notice = "rotation.failed"
	NoticeFailing     Notice = "rotation.failing"
	NoticeOverdue     Notice = "rotation.overdue"
	NoticeQuarantined Notice = "rotation.quarantined"
	NoticeRehearsed   Notice = "rotation.rehearsed"
	NoticeRepaired    Notice = "rotation.repaired"
	NoticeUndone      Notice = "rotation.undone"
	NoticeGraceLimit  Notice = "rotation.grace-limit"
	NoticeDrift       Notice = "credential.drift"
)

// noticed are the events that are always reported.
var noticed = map[EventKind]Notice{
	Begun:    NoticeStarted,
	Promoted: NoticeSucceeded,
	Overran:  NoticeGraceLimit,
	Overdue:  NoticeOverdue,
	Drift:    NoticeDrift,
}

// NoticeOf returns what the change from old to r by an event means to those outside; NoNotice for
// most.
func NoticeOf(old, r Record, kind EventKind) Notice {
	ends := func(s State) bool { return r.State == s && old.State != s }
	switch n := noticed[kind]; {
	case n != NoNotice:
		return n
	case ends(Quarantined):
		return NoticeQuarantined
	case ends(Abandoned):
		return NoticeFailed
	case r.FailingReported && !old.FailingReported:
		return NoticeFailing
	case kind.proves() && old.State == Undoing:
		return NoticeUndone
	case ends(Done) && r.Mode == Rehearse:
		return NoticeRehearsed
	case ends(Done) && r.Mode == Reapply, kind == Adopted,
		old.Interrupted != nil && r.Interrupted == nil && kind != Promoted:
		return NoticeRepaired
	}
	return NoNotice
}
