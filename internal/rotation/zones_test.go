package rotation_test

import (
	"archive/zip"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/keyturn/keyturn/internal/rotation"
)

// zones returns the names of all zones of the tz database.
func zones(t *testing.T) []string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Skipf("the tz database comes with Go's sources: %v", err)
	}
	z, err := zip.OpenReader(filepath.Join(strings.TrimSpace(string(root)), "lib", "time", "zoneinfo.zip"))
	if err != nil {
		t.Skipf("the tz database: %v", err)
	}
	defer func() { _ = z.Close() }()
	var names []string
	for _, f := range z.File {
		if !strings.HasSuffix(f.Name, "/") && f.Name != "Factory" {
			names = append(names, f.Name)
		}
	}
	if len(names) < 300 {
		t.Fatalf("the tz database has %d zones", len(names))
	}
	return names
}

// TestCronAtClockChanges verifies that a local time that does not exist counts at the first one
// that does, and that one which exists twice counts once.
func TestCronAtClockChanges(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, expression, zone, after, want string }{
		{"left out, once a year", "30 2 28 3 *", "Europe/Berlin", "2027-01-01 00:00", "2027-03-28 01:00"},
		{"left out, weekly", "30 2 * * 0", "Europe/Berlin", "2027-03-27 00:00", "2027-03-28 01:00"},
		{"left out, at midnight", "15 0 * * *", "Africa/Cairo", "2027-04-29 12:00", "2027-04-29 22:00"},
		{"twice: the first", "30 2 * * *", "Europe/Berlin", "2027-10-30 12:00", "2027-10-31 00:30"},
		{"twice: not again", "30 2 * * *", "Europe/Berlin", "2027-10-31 00:30", "2027-11-01 01:30"},
		{"half an hour", "15 2 * * *", "Australia/Lord_Howe", "2027-10-02 00:00", "2027-10-02 15:30"},
	} {
		parsed, err := cron.ParseStandard(tt.expression)
		if err != nil {
			t.Fatal(err)
		}
		s := rotation.Schedule{Cron: tt.expression, Zone: tt.zone}
		after := at(t, tt.after)
		if got := s.Next(after, time.Time{}, after, parsed.Next); !got.Equal(at(t, tt.want)) {
			t.Errorf("%s: %v; want %s", tt.name, got.UTC(), tt.want)
		}
	}
}

// TestZones compares times of cron expressions and of windows with what a clock on the wall shows,
// minute by minute around clock changes of every zone. A minute comes when the clock reaches or
// passes it for the first time; a clock that was set back shows no minute for the first time.
func TestZones(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	changes := 0
	for _, name := range zones(t) {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		change := clockChange(random, zone)
		if change.IsZero() {
			continue
		}
		changes++
		if text := differs(random, name, zone, change); text != "" {
			t.Errorf("seed %d: %s", seed, text)
		}
	}
	if changes < 200 {
		t.Errorf("%d zones with a clock change", changes)
	}
}

// clockChange returns a change of the zone's clocks after 1975, since when all are by whole
// minutes; zero when there is none.
func clockChange(random *rand.Rand, zone *time.Location) time.Time {
	after := time.Date(1975+random.IntN(60), 1, 1, 0, 0, 0, 0, time.UTC)
	for range 2 {
		if _, end := after.In(zone).ZoneBounds(); !end.IsZero() {
			return end.UTC()
		}
		after = time.Date(1975, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	return time.Time{}
}

// differs compares one random schedule with the clock on the wall; empty when they agree.
func differs(random *rand.Rand, name string, zone *time.Location, change time.Time) string {
	local := change.In(zone)
	minute := random.IntN(24 * 60)
	if random.IntN(4) > 0 { // near the change
		minute = (local.Hour()*60 + local.Minute() + random.IntN(180) - 120 + 24*60) % (24 * 60)
	}
	days := []string{"* * *", fmt.Sprintf("%d * *", local.Day()), fmt.Sprintf("* * %d", local.Weekday())}
	day, also := random.IntN(3), random.IntN(60)
	expression := fmt.Sprintf("%d,%d %d %s", minute%60, also, minute/60, days[day])
	names := func(t time.Time) bool { // the expression names this minute
		return t.Hour() == minute/60 && (t.Minute() == minute%60 || t.Minute() == also) &&
			(day != 1 || t.Day() == local.Day()) && (day != 2 || t.Weekday() == local.Weekday())
	}
	parsed, err := cron.ParseStandard(expression)
	if err != nil {
		return err.Error()
	}
	w := rotation.Window{From: minute, To: (minute + 1 + random.IntN(200)) % (24 * 60)}
	if random.IntN(2) == 0 {
		w.Days = []time.Weekday{local.Weekday()}
	}
	start := change.Add(-40 * time.Hour).Truncate(time.Minute)
	by := rotation.Schedule{Cron: expression, Zone: name}
	within := rotation.Schedule{Interval: time.Hour, Zone: name, Window: w}
	wall := newWall(zone, start, names, w)
	next := by.Next(start, time.Time{}, start, parsed.Next)
	was := false
	for now := start.Add(time.Minute); now.Before(change.Add(30 * time.Hour)); now = now.Add(time.Minute) {
		due, open := wall.at(now)
		if due != next.Equal(now) {
			return fmt.Sprintf("%q in %s at %v (change %v): the clock reaches a time: %v; next is %v",
				expression, name, now.In(zone), change, due, next)
		}
		if due {
			next = by.Next(now, time.Time{}, now, parsed.Next)
		}
		asks := open != was || random.IntN(60) == 0 // each minute would take most of the time
		was = open
		if asks && wall.warm(now) && open != within.Open(now).Equal(now) {
			return fmt.Sprintf("window %v in %s at %v (change %v): open by the clock: %v; opens at %v",
				w, name, now.In(zone), change, open, within.Open(now).In(zone))
		}
	}
	return ""
}

// wall is a clock on the wall, and what follows from the minutes that it shows.
type wall struct {
	zone           *time.Location
	names          func(time.Time) bool // whether the cron expression names a minute
	window         rotation.Window
	start, reached time.Time // reached is what it has shown at most, as a time in UTC
	open           bool
	opened, closes time.Time // closes is of a window that opened and closed in one moment
}

func newWall(zone *time.Location, start time.Time, names func(time.Time) bool, w rotation.Window) *wall {
	clock := &wall{zone: zone, names: names, window: w, start: start}
	clock.reached = clock.shows(start)
	return clock
}

// warm reports whether a window that was open at the start has closed by now.
func (c *wall) warm(now time.Time) bool { return now.Sub(c.start) > 26*time.Hour }

func (c *wall) shows(now time.Time) time.Time {
	l := now.In(c.zone)
	return time.Date(l.Year(), l.Month(), l.Day(), l.Hour(), l.Minute(), 0, 0, time.UTC)
}

// at returns whether a time of the expression comes at that moment, and whether the window is open.
func (c *wall) at(now time.Time) (due, open bool) {
	for shows := c.shows(now); c.reached.Before(shows); {
		c.reached = c.reached.Add(time.Minute)
		due = due || c.names(c.reached)
		c.pass(now)
	}
	if !c.closes.IsZero() && !now.Before(c.closes) {
		c.open, c.closes = false, time.Time{}
	}
	return due, c.open
}

// pass opens and closes the window at the minute that is reached.
func (c *wall) pass(now time.Time) {
	w, minute := c.window, c.reached.Hour()*60+c.reached.Minute()
	opensToday := len(w.Days) == 0 || w.Days[0] == c.reached.Weekday()
	switch {
	case minute == w.From && opensToday:
		c.open, c.opened, c.closes = true, now, time.Time{}
	case minute == w.To && c.open && c.closes.IsZero():
		if c.opened.Equal(now) {
			c.closes = now.Add(time.Duration((w.To-w.From+24*60)%(24*60)) * time.Minute)
			return
		}
		c.open = false
	}
}
