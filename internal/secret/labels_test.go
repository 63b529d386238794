package secret

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/kms"
)

var (
	then  = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	later = then.Add(time.Hour)
)

// rotating is a managed secret with the versions v1 and v2; v2 is current.
func rotating() Secret {
	s := Secret{
		Account: "1", Name: "db", Type: kms.TypeRds, CreatedAt: then, UpdatedAt: then, LastOrder: 2,
		Versions: map[string]Version{"v1": {ID: "v1", Order: 1, Digest: Digest{1}},
			"v2": {ID: "v2", Order: 2, Digest: Digest{2}}},
		Stages: map[Stage]string{Current: "v2", Previous: "v1"},
	}
	return s
}

func with(s Secret, change func(*Secret)) Secret {
	s = s.clone()
	change(&s)
	return s
}

func deleting(s *Secret) { s.DeleteAt = later }

func pending(s *Secret) {
	s.Versions["v3"] = Version{ID: "v3", Order: 3, Digest: Digest{3}}
	s.LastOrder, s.Stages[Pending] = 3, "v3"
}

// TestLabelsOfARotation holds where the labels are after each step, and that a step leaves its
// receiver alone.
func TestLabelsOfARotation(t *testing.T) {
	t.Parallel()
	prepare := func(s Secret) (Secret, error) { return s.Prepare(Version{ID: "v3", Digest: Digest{3}}, later) }
	promote := func(id string) func(Secret) (Secret, error) {
		return func(s Secret) (Secret, error) { return s.Promote(id, later) }
	}
	unprepare := func(s Secret) (Secret, error) { return s.Unprepare(later), nil }
	undo := func(s Secret) (Secret, error) { return s.Undo(later) }
	adopt := func(id string, d byte) func(Secret) (Secret, error) {
		return func(s Secret) (Secret, error) { return s.Adopt(Version{ID: id, Digest: Digest{d}}, "", later) }
	}
	for _, tt := range []struct {
		name string
		from Secret
		do   func(Secret) (Secret, error)
		want map[Stage]string
		kind fault.Kind
		text string
	}{
		{"prepare", rotating(), prepare, map[Stage]string{Current: "v2", Previous: "v1", Pending: "v3"}, fault.OK, ""},
		{"prepare the next candidate after one that was refused",
			with(rotating(), func(s *Secret) { s.Stages[Pending] = "v1" }), prepare,
			map[Stage]string{Current: "v2", Previous: "v1", Pending: "v3"}, fault.OK, ""},
		{"prepare an ID that is taken", with(rotating(), pending), prepare, nil, fault.Exists,
			`Secret "db" already has version "v3".`},
		{"prepare in the deletion window", with(rotating(), deleting), prepare, nil, fault.Deleting, ""},
		{"promote", with(rotating(), pending), promote("v3"), map[Stage]string{Current: "v3", Previous: "v2"}, fault.OK, ""},
		{"promote what is current", rotating(), promote("v2"), map[Stage]string{Current: "v2", Previous: "v1"}, fault.OK, ""},
		{"promote another than the pending one", with(rotating(), pending), promote("v1"),
			map[Stage]string{Current: "v1", Previous: "v2", Pending: "v3"}, fault.OK, ""},
		{"promote in the deletion window: it is live already", with(with(rotating(), pending), deleting), promote("v3"),
			map[Stage]string{Current: "v3", Previous: "v2"}, fault.OK, ""},
		{"promote what is not there", rotating(), promote("v9"), nil, fault.NotFound, `Secret "db" has no version "v9".`},
		{"unprepare", with(rotating(), pending), unprepare, map[Stage]string{Current: "v2", Previous: "v1"}, fault.OK, ""},
		{"unprepare without a candidate", rotating(), unprepare, map[Stage]string{Current: "v2", Previous: "v1"}, fault.OK,
			""},
		{"undo", rotating(), undo, map[Stage]string{Current: "v1", Previous: "v2"}, fault.OK, ""},
		{"undo of the first version", with(rotating(), func(s *Secret) { delete(s.Stages, Previous) }), undo, nil,
			fault.NotFound, `Secret "db" has no label "ACSPrevious".`},
		{"adopt", with(rotating(), pending), adopt("v4", 4), map[Stage]string{Current: "v4", Previous: "v2"}, fault.OK, ""},
		{"adopt the candidate", with(rotating(), pending), adopt("v3", 3), map[Stage]string{Current: "v3", Previous: "v2"},
			fault.OK, ""},
		{"adopt what is current", rotating(), adopt("v2", 2), map[Stage]string{Current: "v2", Previous: "v1"}, fault.OK, ""},
		{"adopt the version before", rotating(), adopt("v1", 1), map[Stage]string{Current: "v1", Previous: "v2"}, fault.OK,
			""},
		{"adopt another value for a version", rotating(), adopt("v1", 9), nil, fault.Exists,
			`already has version "v1" with another value; use a new version ID.`},
		{"adopt in the deletion window", with(rotating(), deleting), adopt("v4", 4), nil, fault.Deleting, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			versions, labels := maps.Clone(tt.from.Versions), maps.Clone(tt.from.Stages)
			got, err := tt.do(tt.from)
			if fault.KindOf(err) != tt.kind || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("%v; want kind %d, %q", err, tt.kind, tt.text)
			}
			if !maps.Equal(tt.from.Versions, versions) || !maps.Equal(tt.from.Stages, labels) {
				t.Error("the receiver has changed")
			}
			if err != nil {
				return
			}
			if !maps.Equal(got.Stages, tt.want) {
				t.Errorf("labels %v, want %v", got.Stages, tt.want)
			}
			for stage, id := range got.Stages {
				if _, ok := got.Versions[id]; !ok {
					t.Errorf("%s is on %q, which is not there", stage, id)
				}
			}
		})
	}
}

// TestTimesOfARotation: a promotion is a rotation and counts as the last one; what was prepared or
// taken back is not.
func TestTimesOfARotation(t *testing.T) {
	t.Parallel()
	s := with(rotating(), pending)
	promoted, err := s.Promote("v3", later)
	if err != nil || !promoted.Rotation.Last.Equal(later) || !promoted.UpdatedAt.Equal(later) {
		t.Errorf("promoted: last %v, updated %v, %v", promoted.Rotation.Last, promoted.UpdatedAt, err)
	}
	if got := s.Unprepare(later); !got.Rotation.Last.IsZero() || !got.UpdatedAt.Equal(later) {
		t.Errorf("unprepared: last %v, updated %v", got.Rotation.Last, got.UpdatedAt)
	}
	if got := rotating().Unprepare(later); !got.UpdatedAt.Equal(then) {
		t.Errorf("without a candidate: updated %v; nothing has changed", got.UpdatedAt)
	}
	prepared, err := rotating().Prepare(Version{ID: "v3"}, later)
	if v := prepared.Versions["v3"]; err != nil || v.Order != 3 || !v.CreatedAt.Equal(later) ||
		!prepared.Rotation.Last.IsZero() {
		t.Errorf("prepared: %+v, last %v, %v", v, prepared.Rotation.Last, err)
	}
	adopted, err := rotating().Adopt(Version{ID: "v1", Digest: Digest{1}}, "", later)
	if v := adopted.Versions["v1"]; err != nil || v.Order != 1 || !adopted.UpdatedAt.Equal(later) {
		t.Errorf("adopted again: %+v, %v; the version stays as it was written", v, err)
	}
}

// TestLabelledVersionsStay holds that no version that may be live makes room for another: whatever
// the limit, the labelled ones stay.
func TestLabelledVersionsStay(t *testing.T) {
	t.Parallel()
	s := rotating()
	for i := range 3 * MaxVersions {
		var err error
		id := "c" + string(rune('A'+i))
		if s, err = s.Prepare(Version{ID: id, Digest: Digest{byte(10 + i)}}, later); err != nil {
			t.Fatal(err)
		}
		for stage, want := range map[Stage]string{Current: "v2", Previous: "v1", Pending: id} {
			if _, ok := s.Versions[want]; !ok || s.Stages[stage] != want {
				t.Fatalf("after %d candidates %s is on %q, there: %t", i+1, stage, s.Stages[stage], ok)
			}
		}
		if len(s.Versions) > MaxVersions {
			t.Fatalf("%d versions", len(s.Versions))
		}
	}
	kept, err := s.Adopt(Version{ID: "mine", Digest: Digest{99}}, "v1", later)
	if err != nil || kept.Stages[Previous] != "v1" {
		t.Errorf("adopted while v1 is to be retired: previous %q, %v", kept.Stages[Previous], err)
	}
	adopted, err := s.Adopt(Version{ID: "mine", Digest: Digest{99}}, "", later)
	if _, ok := adopted.Versions["v2"]; err != nil || !ok || adopted.Stages[Previous] != "v2" ||
		len(adopted.Versions) > MaxVersions {
		t.Errorf("adopted with %d versions, previous %q, %v", len(adopted.Versions), adopted.Stages[Previous], err)
	}
}

func TestAttachDetach(t *testing.T) {
	t.Parallel()
	generic := with(rotating(), func(s *Secret) { s.Type = kms.TypeGeneric })
	settings := RotationSettings{Target: "pg", Account: "app", Schedule: rotation.Schedule{Cron: "@daily"}}
	attached, err := generic.Attach(settings, later)
	if err != nil || !attached.IsRotated() || attached.TargetName() != "pg" || attached.Settings().Account != "app" ||
		!attached.UpdatedAt.Equal(later) {
		t.Fatalf("attached: %+v, %v", attached.Rotation, err)
	}
	if generic.IsRotated() || generic.Rotation.Settings != nil {
		t.Error("the receiver has changed")
	}
	if err := attached.CheckRotate(); err != nil {
		t.Errorf("rotate: %v", err)
	}
	if _, err := attached.Put(Version{ID: "v9"}, nil, later); fault.KindOf(err) != fault.Unsupported ||
		!strings.Contains(err.Error(), `"db" is, with target "pg"`) {
		t.Errorf("a version by hand: %v", err)
	}
	if _, err := attached.MoveStage(Current, "v1", "", later); fault.KindOf(err) != fault.Unsupported {
		t.Errorf("a label by hand: %v", err)
	}
	attached = with(attached, pending)
	attached.Rotation.Last, attached.Rotation.Next = then, later
	attached.Rotation.Enabled, attached.Rotation.Broken, attached.Rotation.Hold = true, true, true
	got, err := attached.Detach(later)
	if err != nil || got.IsRotated() || got.Rotation != (RotationPolicy{Last: then, Meant: 3}) ||
		got.Stages[Pending] != "" || got.Stages[Current] != "v2" {
		t.Errorf("detached: %+v, labels %v, %v", got.Rotation, got.Stages, err)
	}
	if attached.Stages[Pending] != "v3" {
		t.Error("the receiver has changed")
	}
	if _, err := got.Put(Version{ID: "v9"}, nil, later); err != nil {
		t.Errorf("a version by hand after that: %v", err)
	}
	for _, tt := range []struct {
		name string
		s    Secret
		kind fault.Kind
		text string
	}{
		{"managed", rotating(), fault.Unsupported,
			"of type Rds, which is always rotated by the service; keyturn rotation configure"},
		{"in the deletion window", with(attached, deleting), fault.Deleting, ""},
	} {
		if _, err := tt.s.Detach(later); fault.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("detach, %s: %v", tt.name, err)
		}
	}
	if _, err := with(generic, deleting).Attach(settings, later); fault.KindOf(err) != fault.Deleting {
		t.Errorf("attach in the deletion window: %v", err)
	}
	if err := generic.CheckRotate(); fault.KindOf(err) != fault.Unsupported ||
		!strings.Contains(err.Error(), `"db" is not rotated yet: keyturn rotation configure db --target=TARGET attaches it`) {
		t.Errorf("rotate what nobody rotates: %v", err)
	}
}

// TestScheduleOfASecret: a cron expression stands in for the interval, and nothing is scheduled
// while it is turned off.
func TestScheduleOfASecret(t *testing.T) {
	t.Parallel()
	s := rotating()
	s.Rotation.Interval = 24 * time.Hour
	if !s.Schedule().Never() || !s.Planned(later, time.Time{}, nil).IsZero() {
		t.Error("turned off, and planned")
	}
	s.Rotation.Enabled = true
	if got := s.Planned(later, time.Time{}, nil); !got.Equal(then.Add(24 * time.Hour)) {
		t.Errorf("by the interval: %v", got)
	}
	s.Rotation.Last = later
	if got := s.Planned(later, time.Time{}, nil); !got.Equal(later.Add(24 * time.Hour)) {
		t.Errorf("after the last one: %v", got)
	}
	if got, now := s.Planned(later.AddDate(1, 0, 0), time.Time{}, nil), later.AddDate(1, 0, 0); !got.Equal(now) {
		t.Errorf("when that is past: %v, want now", got)
	}
	s.Rotation.Settings = &RotationSettings{Schedule: rotation.Schedule{Cron: "0 0 * * *",
		Window: rotation.Window{From: 120, To: 180}}}
	if s.Schedule().Interval != 0 {
		t.Error("an interval beside a cron expression")
	}
	midnight := func(after time.Time) time.Time { return after.Truncate(24 * time.Hour).Add(24 * time.Hour) }
	if got := s.Planned(later, time.Time{}, midnight); got.Hour() != 2 || got.Day() != 3 {
		t.Errorf("by cron, in the window: %v", got)
	}
}
