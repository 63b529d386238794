package rotation_test

import (
	"testing"
	"time"

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
		{"the hour that daylight saving skips", "02:15-02:45", "", "Europe/Berlin", "2026-03-28 12:00", "2026-03-30 00:15"},
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
	if got := s.Next(last, at(t, "2026-11-20 13:00"), nil); !got.Equal(last.Add(24 * time.Hour)) {
		t.Errorf("an interval after the last one: %v", got)
	}
	if now := at(t, "2026-11-24 13:00"); !s.Next(last, now, nil).Equal(now) {
		t.Error("what is past is due now")
	}
	cron := func(after time.Time) time.Time {
		if after.Location().String() != "Asia/Tokyo" {
			t.Errorf("cron is asked in %v", after.Location())
		}
		return after.Add(time.Hour)
	}
	s = rotation.Schedule{Cron: "0 * * * *", Zone: "Asia/Tokyo"}
	if got := s.Next(last, last, cron); !got.Equal(last.Add(time.Hour)) {
		t.Errorf("cron: %v", got)
	}
	if got := s.Next(last, last, func(time.Time) time.Time { return time.Time{} }); !got.IsZero() {
		t.Errorf("a cron expression that never comes: %v", got)
	}
	never := rotation.Schedule{Interval: time.Hour, Blackouts: []rotation.Blackout{{From: "2000-01-01", To: "2999-12-31"}}}
	if got := never.Next(last, last, nil); !got.IsZero() {
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
