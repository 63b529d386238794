package rotation

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// Schedule says when rotations are due. Either Interval or Cron.
type Schedule struct {
	// Interval is the time between rotations.
	Interval time.Duration `json:"interval,omitempty"`
	// Cron is a cron expression of five fields, or a descriptor such as @weekly.
	Cron string `json:"cron,omitempty"`
	// Zone is the IANA name of the time zone of Cron, Window and Blackouts; empty means UTC.
	Zone string `json:"zone,omitempty"`
	// Window is when a rotation may begin; the zero value means at any time. What falls due outside
	// waits for it to open.
	Window Window `json:"window,omitzero"`
	// Blackouts are days on which none begins.
	Blackouts []Blackout `json:"blackouts,omitempty"`
}

// Window is a time of day, on some days of the week.
type Window struct {
	// Days are those on which the window opens; none means every day.
	Days []time.Weekday `json:"days,omitempty"`
	// From and To are minutes after midnight; a window may pass midnight, To is exclusive. Equal means
	// the whole day.
	From int `json:"from,omitempty"`
	To   int `json:"to,omitempty"`
}

// Blackout is a span of days, both included.
type Blackout struct {
	From string `json:"from"` // 2006-01-02
	To   string `json:"to"`
}

// Cron returns the first time after a given one that a cron expression names; zero when there is
// none. Both are what the clocks of the schedule's zone show, written as times in UTC, so that no
// clock change can leave one out or repeat it: see [firstAt].
type Cron func(after time.Time) time.Time

const dayLayout = "2006-01-02"

// Never reports whether nothing is scheduled. It is not called IsZero, because encoding/json would
// then leave out a window, blackouts and a zone that have no expression beside them.
func (s Schedule) Never() bool { return s.Interval == 0 && s.Cron == "" }

// Location is the time zone.
func (s Schedule) Location() (*time.Location, error) {
	if s.Zone == "" {
		return time.UTC, nil
	}
	l, err := time.LoadLocation(s.Zone)
	if err != nil || s.Zone == "Local" {
		return nil, fmt.Errorf("time zone %q is not known; use an IANA name such as Europe/Berlin", s.Zone)
	}
	return l, nil
}

// Slack is how much too soon a time of a cron expression may be and still count. The rotation then
// begins at the earliest time allowed. It covers the hour that a clock change takes from a day; a
// time that is too soon by more is left out.
const Slack = time.Hour

// Next is when the rotation after the one at last is due: not before earliest, not before now, and
// in the window. A zero earliest allows any time. cron is the parsed expression; nil when the
// schedule is an interval. It returns zero when the schedule names no time in the next ten years.
func (s Schedule) Next(last, earliest, now time.Time, cron Cron) time.Time {
	var due time.Time
	if cron != nil {
		zone, err := s.Location()
		if err != nil {
			return time.Time{}
		}
		due = cron.next(last, zone)
		if first := earliest.Add(-Slack); !earliest.IsZero() && due.Before(first) && !due.IsZero() {
			due = cron.next(first.Add(-time.Second), zone)
		}
		if due.IsZero() {
			return due
		}
	} else {
		due = last.Add(s.Interval)
	}
	if due.Before(earliest) {
		due = earliest
	}
	if due.Before(now) {
		due = now
	}
	return s.Open(due)
}

// next returns the first time after a given one at which the clocks of zone reach a time that the
// expression names; zero when there is none. A time that a clock change leaves out counts at the
// change, and one that the clocks show twice counts once.
func (c Cron) next(after time.Time, zone *time.Location) time.Time {
	for local := shown(after, zone); ; {
		if local = c(local); local.IsZero() {
			return local
		}
		if at := firstAt(local, zone); at.After(after) {
			return at
		}
	}
}

// LeastGap returns the shortest time between two times that a cron expression of five fields names,
// over the 28 years after which its days repeat. It takes every day to have 24 hours:
// [Schedule.Next] makes up for a clock change. ok is false when the expression names no time.
func LeastGap(cron Cron) (gap time.Duration, ok bool) {
	const day = 24 * time.Hour
	start := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	end := start.AddDate(28, 0, 0)
	t := cron(start.Add(-time.Second))
	if t.IsZero() {
		return 0, false
	}
	gap = math.MaxInt64
	// The times of day are the same on every day that is named, so one day shows those between two
	// times of a day.
	midnight := t.Truncate(day)
	for next := cron(t); !next.IsZero() && next.Before(midnight.Add(day)); next = cron(t) {
		gap, t = min(gap, next.Sub(t)), next
	}
	lastOfDay := t.Sub(midnight)
	for midnight.Before(end) {
		next := cron(midnight.Add(day - time.Second))
		if next.IsZero() {
			break
		}
		gap = min(gap, next.Sub(midnight.Add(lastOfDay)))
		midnight = next.Truncate(day)
	}
	return gap, true
}

// Take takes one from an allowance of burst at once and one more in each interval. until is what
// the allowance was left with, zero for a full one, and next what this call leaves it with. wait is
// how long the caller must wait when there is none left.
func Take(until, now time.Time, every time.Duration, burst int) (next time.Time, wait time.Duration) {
	if most := now.Add(time.Duration(burst) * every); until.After(most) {
		until = most // the clock was set back
	}
	if until.Before(now) {
		until = now
	}
	next = until.Add(every)
	if wait = next.Sub(now) - time.Duration(burst)*every; wait > 0 {
		return until, wait
	}
	return next, 0
}

// Open is the first time from t on at which a rotation may begin; zero when there is none in the
// next ten years.
func (s Schedule) Open(t time.Time) time.Time {
	zone, err := s.Location()
	if err != nil {
		return time.Time{}
	}
	limit := t.AddDate(10, 0, 0)
	for t.Before(limit) {
		next := s.closedUntil(t.In(zone))
		if next.IsZero() {
			return t.UTC()
		}
		t = next
	}
	return time.Time{}
}

// closedUntil returns the next time to try when t, which is in the schedule's zone, is outside the
// window or in a blackout; zero when t is good.
func (s Schedule) closedUntil(t time.Time) time.Time {
	y, m, d := t.Date()
	tomorrow := later(t, firstAt(time.Date(y, m, d+1, 0, 0, 0, 0, time.UTC), t.Location()))
	day := t.Format(dayLayout)
	for _, b := range s.Blackouts {
		if b.From <= day && day <= b.To {
			return tomorrow
		}
	}
	w := s.Window
	if w.From == w.To {
		if w.opensOn(t.Weekday()) {
			return time.Time{}
		}
		return tomorrow
	}
	next := tomorrow
	for days := -1; days <= 1; days++ { // yesterday's may pass midnight
		midnight := time.Date(y, m, d+days, 0, 0, 0, 0, time.UTC)
		from, until := w.on(midnight, t.Location())
		switch {
		case !w.opensOn(midnight.Weekday()):
		case from.After(t):
			if from.Before(next) {
				next = from
			}
		case t.Before(until):
			return time.Time{}
		}
	}
	return next
}

// on returns when the window of a day opens and when it closes. Where a clock change leaves the
// whole window out, it opens at the change, for as long as on other days.
func (w Window) on(midnight time.Time, zone *time.Location) (from, until time.Time) {
	opens, closes := midnight.Add(time.Duration(w.From)*time.Minute), midnight.Add(time.Duration(w.To)*time.Minute)
	if w.To < w.From {
		closes = closes.AddDate(0, 0, 1)
	}
	from, until = firstAt(opens, zone), firstAt(closes, zone)
	if !until.After(from) {
		until = from.Add(closes.Sub(opens))
	}
	return from, until
}

// later keeps the search moving where the clocks show the beginning of a day before they are set
// back to the day before.
func later(t, next time.Time) time.Time {
	if next.After(t) {
		return next
	}
	return t.Add(time.Minute)
}

// farthest is more than any zone has ever been ahead of UTC or behind it.
const farthest = 26 * time.Hour

// firstAt returns when the clocks of zone first show a local time, which is written as a time in
// UTC. For a local time that a clock change leaves out, that is the change.
func firstAt(local time.Time, zone *time.Location) time.Time {
	for t := local.Add(-farthest).In(zone); ; {
		start, end := t.ZoneBounds()
		_, offset := t.Zone()
		switch at := local.Add(-time.Duration(offset) * time.Second); {
		case !end.IsZero() && !at.Before(end):
			t = end
		case !start.IsZero() && at.Before(start):
			return start
		default:
			return at.In(zone)
		}
	}
}

// shown returns what the clocks of zone show at t, written as a time in UTC.
func shown(t time.Time, zone *time.Location) time.Time {
	_, offset := t.In(zone).Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

func (w Window) opensOn(d time.Weekday) bool {
	if len(w.Days) == 0 {
		return true
	}
	for _, day := range w.Days {
		if day == d {
			return true
		}
	}
	return false
}

var weekdays = map[string]time.Weekday{"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}

// ParseWindow reads "02:00-04:00", or with days "Sat,Sun 22:00-02:00", or days alone.
func ParseWindow(text string) (Window, error) {
	wrong := fmt.Errorf("window %q is not like \"Sat,Sun 22:00-02:00\"", text)
	var w Window
	fields := strings.Fields(text)
	if len(fields) == 0 || len(fields) > 2 {
		return w, wrong
	}
	if hours := fields[len(fields)-1]; strings.Contains(hours, ":") {
		from, to, ok := strings.Cut(hours, "-")
		var err1, err2 error
		w.From, err1 = minutes(from)
		w.To, err2 = minutes(to)
		if !ok || err1 != nil || err2 != nil || w.From == w.To {
			return w, wrong
		}
		w.To %= 24 * 60
		fields = fields[:len(fields)-1]
	}
	if len(fields) > 1 {
		return w, wrong
	}
	if len(fields) == 1 {
		for _, name := range strings.Split(fields[0], ",") {
			d, ok := weekdays[strings.ToLower(name)]
			if !ok || w.opensOn(d) && len(w.Days) > 0 {
				return w, wrong
			}
			w.Days = append(w.Days, d)
		}
	}
	return w, nil
}

func minutes(s string) (int, error) {
	if s == "24:00" {
		return 24 * 60, nil
	}
	t, err := time.Parse("15:04", s)
	return t.Hour()*60 + t.Minute(), err
}

// String is the window as ParseWindow reads it; empty for the zero value.
func (w Window) String() string {
	var parts []string
	if len(w.Days) > 0 {
		names := make([]string, len(w.Days))
		for i, d := range w.Days {
			names[i] = d.String()[:3]
		}
		parts = append(parts, strings.Join(names, ","))
	}
	if w.From != w.To {
		parts = append(parts, fmt.Sprintf("%02d:%02d-%02d:%02d", w.From/60, w.From%60, w.To/60, w.To%60))
	}
	return strings.Join(parts, " ")
}

// ParseBlackouts reads days and spans of days: "2026-12-24..2027-01-02,2027-03-31".
func ParseBlackouts(text string) ([]Blackout, error) {
	if text == "" {
		return nil, nil
	}
	var list []Blackout
	for _, span := range strings.Split(text, ",") {
		from, to, ok := strings.Cut(strings.TrimSpace(span), "..")
		if !ok {
			to = from
		}
		_, err1 := time.Parse(dayLayout, from)
		_, err2 := time.Parse(dayLayout, to)
		if errors.Join(err1, err2) != nil || to < from {
			return nil, fmt.Errorf("blackout %q is not a day or a span of days such as 2026-12-24..2027-01-02", span)
		}
		list = append(list, Blackout{from, to})
	}
	return list, nil
}

// FormatBlackouts is the list as ParseBlackouts reads it.
func FormatBlackouts(list []Blackout) string {
	spans := make([]string, len(list))
	for i, b := range list {
		spans[i] = b.From
		if b.To != b.From {
			spans[i] += ".." + b.To
		}
	}
	return strings.Join(spans, ",")
}
