package rotator

import (
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/rotation"
)

// Event is a rotation that has moved, for metrics and the log.
type Event struct {
	Account, Secret, Target string
	ID                      string
	State                   rotation.State
	Trigger                 rotation.Trigger
	Kind                    rotation.EventKind
	// Took is the time from the beginning to the promotion, when this is one.
	Took time.Duration
}

// report logs the events that an operator should know, and passes every event to the observer.
func (w *worker) report(t *api.Turn, r rotation.Record, e rotation.Event) {
	out := Event{
		Account: r.Account,
		Secret:  r.Secret,
		Target:  r.Target,
		ID:      r.ID,
		State:   r.State,
		Trigger: r.Trigger,
		Kind:    e.Kind,
	}
	log := w.rotator.config.Logger.With("secret", r.Secret, "rotation", r.ID, "target", t.Secret.TargetName())
	switch rotation.NoticeOf(t.Record, r, e.Kind) {
	case rotation.NoticeQuarantined, rotation.NoticeDrift:
		log.Error("a rotation is quarantined: an operator must repair it", "reason", r.Reason)
	case rotation.NoticeFailed:
		log.Warn("a rotation was abandoned; the credential in use is untouched", "reason", r.Reason)
	case rotation.NoticeFailing:
		log.Error("a rotation fails again and again; it is tried again automatically",
			"since", r.FailingSince, "reason", r.Reason, "advice", r.Advice())
	case rotation.NoticeOverdue:
		log.Error("a rotation is overdue", "due", t.Secret.Rotation.Next, "reason", r.Reason)
	case rotation.NoticeGraceLimit:
		log.Warn(
			"a grace period has reached its limit: the previous credential is retired, though consumers hold it",
			"consumers", e.Consumers,
		)
	case rotation.NoticeSucceeded:
		out.Took = r.PromotedAt.Sub(r.StartedAt)
		log.Info("a credential was rotated", "took", out.Took.Round(time.Millisecond).String())
	}
	if e.Kind == rotation.Evicting {
		log.Warn("the account of a leaked credential has another password, which is removed: end its sessions")
	}
	w.rotator.config.Observe.Moved(out)
}
