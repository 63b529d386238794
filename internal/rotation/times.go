package rotation

import "time"

// Wake returns when the engine must read the record next; zero means never.
func (r Record) Wake() time.Time {
	var list []time.Time
	switch {
	case r.leaves():
		list = append(list, r.Then.At)
	case r.State == Quarantined:
	case r.State == InGrace && !r.NextAt.IsZero():
		list = append(list, r.NextAt)
	case r.InFlight():
		if r.NextAt.IsZero() {
			return time.Unix(0, 0).UTC() // at once, also when the clock was set back since it began
		}
		return r.NextAt
	case r.Then != nil:
		list = append(list, r.Then.At)
	case !r.Due.IsZero() && !r.Paused:
		list = append(list, r.Due)
	}
	if r.State != Quarantined && !r.Health.NextAt.IsZero() {
		list = append(list, r.Health.NextAt)
	}
	var first time.Time
	for _, t := range list {
		if first.IsZero() || t.Before(first) {
			first = t
		}
	}
	return first
}

// LoginAt is the earliest time at which the engine may try a login that can fail: a window after
// the last one that did. A clock that was set back makes it no later than a window from now.
func (r Record) LoginAt(now time.Time) time.Time {
	return endOf(r.LoginFailedAt, LoginWindow, now)
}

// endOf returns when a time that began at since is over: no later than its length from now, because
// a clock may be set back. It is zero where since is.
func endOf(since time.Time, length time.Duration, now time.Time) time.Time {
	if since.IsZero() {
		return time.Time{}
	}
	at := since.Add(length)
	if latest := now.Add(length); at.After(latest) {
		return latest
	}
	return at
}

// SettledAt is when nothing that was sent is still under way; zero when nothing ever was. A
// clock that was set back makes it no later than that time from now.
func (r Record) SettledAt(now time.Time) time.Time {
	return endOf(r.SentAt, Settle, now)
}

// Earliest returns the first time at which a scheduled rotation may begin: least after the
// beginning of the rotation before it. last is when the credential was changed last; zero when it
// never was, and then any time is early enough. Where the record has no beginning, or one long
// before the change, the change counts.
func (r Record) Earliest(last time.Time, least time.Duration) time.Time {
	if last.IsZero() {
		return last
	}
	if r.Mode == Rotate && !r.PromotedAt.IsZero() && r.StartedAt.Before(last) && last.Sub(r.StartedAt) < Slack {
		last = r.StartedAt
	}
	return last.Add(least)
}
