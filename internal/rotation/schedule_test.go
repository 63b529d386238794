package rotation_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/robfig/cron/v3"
	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/internal/rotation"
)

func at(t *testing.T, s string) time.Time {
	t.Helper()
	out, err := time.Parse("2006-01-02 15:04", s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestScheduleOpens(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, window, blackouts, zone, from, want string
	}{
		{"no window", "", "", "", "2026-11-24 12:00", "2026-11-24 12:00"},
		{"before it", "14:00-16:00", "", "", "2026-11-24 12:00", "2026-11-24 14:00"},
		{"in it", "14:00-16:00", "", "", "2026-11-24 15:59", "2026-11-24 15:59"},
		{"its end is outside", "14:00-16:00", "", "", "2026-11-24 16:00", "2026-11-25 14:00"},
		{"past midnight, evening", "22:00-02:00", "", "", "2026-11-24 12:00", "2026-11-24 22:00"},
		{"past midnight, night", "22:00-02:00", "", "", "2026-11-25 01:59", "2026-11-25 01:59"},
		{"days alone", "Sat,Sun", "", "", "2026-11-24 12:00", "2026-11-28 00:00"},
		{"night of a Saturday reaches into Sunday", "Sat 22:00-02:00", "", "", "2026-11-29 01:00", "2026-11-29 01:00"},
		{"night of a Saturday, on Monday", "Sat 22:00-02:00", "", "", "2026-11-30 01:00", "2026-12-05 22:00"},
		{"to the end of the day", "Tue 22:00-24:00", "", "", "2026-11-24 23:59", "2026-11-24 23:59"},
		{"blackout", "", "2026-11-24..2026-11-26", "", "2026-11-24 12:00", "2026-11-27 00:00"},
		{"blackout of a day before the window", "14:00-16:00", "2026-11-24", "", "2026-11-24 12:00", "2026-11-25 14:00"},
		{"in a zone", "02:00-04:00", "", "America/New_York", "2026-11-24 12:00", "2026-11-25 07:00"},
		{"the hour that daylight saving skips", "02:15-02:45", "", "Europe/Berlin", "2026-03-28 12:00", "2026-03-29 01:00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := rotation.Schedule{Interval: time.Hour, Zone: tt.zone}
			var err error
			if tt.window != "" {
				if s.Window, err = rotation.ParseWindow(tt.window); err != nil {
					t.Fatal(err)
				}
			}
			if s.Blackouts, err = rotation.ParseBlackouts(tt.blackouts); err != nil {
				t.Fatal(err)
			}
			if got := s.Open(at(t, tt.from)); !got.Equal(at(t, tt.want)) {
				t.Errorf("open from %s: %v, want %s", tt.from, got, tt.want)
			}
		})
	}
}

func TestScheduleNext(t *testing.T) {
	t.Parallel()
	s := rotation.Schedule{Interval: 24 * time.Hour}
	last := at(t, "2026-11-20 12:00")
	if got := s.Next(last, time.Time{}, at(t, "2026-11-20 13:00"), nil); !got.Equal(last.Add(24 * time.Hour)) {
		t.Errorf("an interval after the last one: %v", got)
	}
	if now := at(t, "2026-11-24 13:00"); !s.Next(last, time.Time{}, now, nil).Equal(now) {
		t.Error("what is past is due now")
	}
	hourly := func(after time.Time) time.Time {
		if after.Location() != time.UTC || !after.Equal(last.Add(9*time.Hour)) {
			t.Errorf("cron is asked after %v, not after what the clocks in Tokyo show", after)
		}
		return after.Add(time.Hour)
	}
	s = rotation.Schedule{Cron: "0 * * * *", Zone: "Asia/Tokyo"}
	if got := s.Next(last, time.Time{}, last, hourly); !got.Equal(last.Add(time.Hour)) {
		t.Errorf("cron: %v", got)
	}
	if got := s.Next(last, time.Time{}, last, func(time.Time) time.Time { return time.Time{} }); !got.IsZero() {
		t.Errorf("a cron expression that never comes: %v", got)
	}
	never := rotation.Schedule{
		Interval:  time.Hour,
		Blackouts: []rotation.Blackout{{From: "2000-01-01", To: "2999-12-31"}},
	}
	if got := never.Next(last, time.Time{}, last, nil); !got.IsZero() {
		t.Errorf("a schedule that never opens: %v", got)
	}
}

func TestScheduleTexts(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"02:00-04:00": "02:00-04:00", "sat,SUN 22:00-02:00": "Sat,Sun 22:00-02:00", "Mon": "Mon", "00:00-24:00": "",
	} {
		w, err := rotation.ParseWindow(text)
		if err != nil || w.String() != want {
			t.Errorf("ParseWindow(%q) = %q, %v; want %q", text, w.String(), err, want)
		}
	}
	for _, text := range []string{"", "2-4", "02:00", "02:00-02:00", "25:00-26:00", "Xyz", "Mon,Mon", "Mon Tue 01:00-02:00", "01:00-02:00 Mon", "Mon,"} {
		if w, err := rotation.ParseWindow(text); err == nil {
			t.Errorf("ParseWindow(%q) = %+v", text, w)
		}
	}
	list, err := rotation.ParseBlackouts("2026-12-24..2027-01-02, 2027-03-31")
	if err != nil || rotation.FormatBlackouts(list) != "2026-12-24..2027-01-02,2027-03-31" {
		t.Errorf("blackouts: %v, %v", list, err)
	}
	for _, text := range []string{"2026-13-01", "2026-12-24..2026-12-01", "x", "2026-12-24..", ","} {
		if list, err := rotation.ParseBlackouts(text); err == nil {
			t.Errorf("ParseBlackouts(%q) = %v", text, list)
		}
	}
	if _, err := (rotation.Schedule{Zone: "Nowhere/City"}).Location(); err == nil {
		t.Error("a zone that does not exist")
	}
}

// TestLeastGap verifies the shortest distance of expressions whose closest times lie within a day,
// at a turn of days, of months, and of leap years.
func TestLeastGap(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		expression string
		want       time.Duration
	}{
		{"* * * * *", time.Minute},
		{"0,59 * * * *", time.Minute},
		{"*/7 3 * * *", 7 * time.Minute},
		{"*/7 * * * *", 4 * time.Minute},
		{"0 */6 * * *", 6 * time.Hour},
		{"0 */7 * * *", 3 * time.Hour},
		{"30 0,23 * * *", time.Hour},
		{"0 3 * * *", 24 * time.Hour},
		{"0 3 * * 0", 7 * 24 * time.Hour},
		{"0 3 * * 0,1", 24 * time.Hour},
		{"59 23 31 * *", 31 * 24 * time.Hour},
		{"0 0 1,31 * *", 24 * time.Hour},
		{"0 0 28 2 *", 365 * 24 * time.Hour},
		{"0 0 29 2,3 *", 29 * 24 * time.Hour},
		{"0 0 1 * 1", 24 * time.Hour}, // days of month and week count as either
		{"@monthly", 28 * 24 * time.Hour},
		{"@hourly", time.Hour},
	} {
		parsed, err := cron.ParseStandard(tt.expression)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := rotation.LeastGap(parsed.Next); !ok || got != tt.want {
			t.Errorf("%s: %v, %v; want %v", tt.expression, got, ok, tt.want)
		}
	}
	never, err := cron.ParseStandard("0 0 31 2 *")
	if err != nil {
		t.Fatal(err)
	}
	if gap, ok := rotation.LeastGap(never.Next); ok {
		t.Errorf("the 31st of February comes every %v", gap)
	}
}

// TestLeastGapIsReached compares LeastGap with all times of two years, for random expressions.
func TestLeastGapIsReached(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		list := func(name string, from, to int) string {
			text := ""
			for i, n := range rapid.SliceOfN(rapid.IntRange(from, to), 1, 3).Draw(rt, name) {
				if i > 0 {
					text += ","
				}
				text += fmt.Sprint(n)
			}
			return text
		}
		days := rapid.SampledFrom([]string{"* * *", "1 * *", "* * 1,3", "*/10 * *", "28 2 *", "31 * 5"}).Draw(rt, "days")
		expression := list("minutes", 0, 59) + " " + list("hours", 0, 23) + " " + days
		parsed, err := cron.ParseStandard(expression)
		if err != nil {
			rt.Fatal(err)
		}
		want := time.Duration(math.MaxInt64)
		last := parsed.Next(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
		for next := parsed.Next(last); next.Before(last.AddDate(2, 0, 0)) && next.Year() < 2029; next = parsed.Next(last) {
			want, last = min(want, next.Sub(last)), next
		}
		if got, ok := rotation.LeastGap(parsed.Next); !ok || got > want {
			rt.Errorf("%s: %v, %v; two of its times are %v apart", expression, got, ok, want)
		}
	})
}

// TestNextKeepsItsDistance verifies that nothing a schedule says makes a rotation begin before the
// earliest time, and that a time of a cron expression that is too soon by more than a clock change
// is left out.
func TestNextKeepsItsDistance(t *testing.T) {
	t.Parallel()
	nightly, err := cron.ParseStandard("0 3 * * *")
	if err != nil {
		t.Fatal(err)
	}
	every, err := cron.ParseStandard("@every 1s")
	if err != nil {
		t.Fatal(err)
	}
	last := at(t, "2026-11-24 01:00")
	for _, tt := range []struct {
		name           string
		schedule       rotation.Schedule
		cron           rotation.Cron
		earliest, want string
	}{
		{"interval", rotation.Schedule{Interval: time.Second}, nil, "2026-11-24 07:00", "2026-11-24 07:00"},
		{"longer interval", rotation.Schedule{Interval: 24 * time.Hour}, nil, "2026-11-24 07:00", "2026-11-25 01:00"},
		{
			"every second, of an older release", rotation.Schedule{Cron: "@every 1s"}, every.Next, "2026-11-24 07:00",
			"2026-11-24 07:00",
		},
		{"too soon", rotation.Schedule{Cron: "0 3 * * *"}, nightly.Next, "2026-11-24 07:00", "2026-11-25 03:00"},
		{
			"too soon by a clock change", rotation.Schedule{Cron: "0 3 * * *"}, nightly.Next, "2026-11-24 04:00",
			"2026-11-24 04:00",
		},
		{
			"too soon, in a window", rotation.Schedule{Cron: "0 3 * * *", Window: rotation.Window{From: 180, To: 210}},
			nightly.Next, "2026-11-24 04:00", "2026-11-25 03:00",
		},
		{"late enough", rotation.Schedule{Cron: "0 3 * * *"}, nightly.Next, "2026-11-24 02:00", "2026-11-24 03:00"},
	} {
		if got := tt.schedule.Next(last, at(t, tt.earliest), last, tt.cron); !got.Equal(at(t, tt.want)) {
			t.Errorf("%s: %v; want %s", tt.name, got, tt.want)
		}
	}
}

// TestEarliest verifies from when the least interval counts: from the beginning of the rotation
// before, which its promotion follows.
func TestEarliest(t *testing.T) {
	t.Parallel()
	began := at(t, "2026-11-24 03:00")
	done := rotation.Record{Mode: rotation.Rotate, StartedAt: began, PromotedAt: began.Add(time.Minute)}
	slow, rehearsed, failed := done, done, done
	slow.StartedAt = began.Add(-72 * time.Hour)
	rehearsed.Mode, failed.PromotedAt = rotation.Rehearse, time.Time{}
	last := began.Add(time.Minute)
	for _, tt := range []struct {
		name   string
		record rotation.Record
		last   time.Time
		want   time.Time
	}{
		{"never rotated", rotation.Record{}, time.Time{}, time.Time{}},
		{"no record any more", rotation.Record{}, last, last.Add(6 * time.Hour)},
		{"rotated", done, last, began.Add(6 * time.Hour)},
		{"a rotation that took days", slow, last, last.Add(6 * time.Hour)},
		{"a rehearsal since", rehearsed, last, last.Add(6 * time.Hour)},
		{"one that failed since", failed, last, last.Add(6 * time.Hour)},
	} {
		if got := tt.record.Earliest(tt.last, 6*time.Hour); !got.Equal(tt.want) {
			t.Errorf("%s: %v; want %v", tt.name, got, tt.want)
		}
	}
}

// TestTake verifies that an allowance gives a burst, then one in each interval, and is full again
// after a pause.
func TestTake(t *testing.T) {
	t.Parallel()
	now, until, taken := at(t, "2026-11-24 03:00"), time.Time{}, 0
	for range 600 { // ten hours, a request a minute
		next, wait := rotation.Take(until, now, 10*time.Minute, 5)
		if wait == 0 {
			taken++
		} else if again, rest := rotation.Take(until, now.Add(wait), 10*time.Minute, 5); rest != 0 || again.Before(now) {
			t.Fatalf("after the wait of %v there is another of %v", wait, rest)
		}
		until, now = next, now.Add(time.Minute)
	}
	if taken < 5+59 || taken > 5+60 {
		t.Errorf("%d requests in ten hours; want 5 and one in ten minutes", taken)
	}
	now = now.Add(time.Hour)
	for i := range 6 {
		next, wait := rotation.Take(until, now, 10*time.Minute, 5)
		if (wait == 0) != (i < 5) {
			t.Errorf("request %d after a pause waits %v", i, wait)
		}
		until = next
	}
}
