package secret

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/kms"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func version(id string) Version {
	return Version{ID: id, DataType: kms.DataText, Digest: Digest{id[len(id)-1]}}
}

// generic makes a secret with versions v1 … vn, put one after the other.
func generic(t interface{ Fatal(...any) }, n int) Secret {
	s, err := New("1234567890123456", Spec{Name: "app/db", Type: kms.TypeGeneric}, version("v1"), t0)
	for i := 2; i <= n && err == nil; i++ {
		s, err = s.Put(version(fmt.Sprintf("v%d", i)), nil, t0.Add(time.Duration(i)*time.Second))
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func managed(t *testing.T) Secret {
	t.Helper()
	spec, err := Spec{
		Name: "rds/app", Type: kms.TypeRds, DataType: kms.DataText,
		Data:           value(`{"Accounts":[{"AccountName":"a","AccountPassword":"p"}]}`),
		ExtendedConfig: `{"SecretSubType":"SingleUser","DBInstanceId":"pg-main"}`, EnableRotation: true,
		RotationInterval: "7d",
	}.Check()
	if err != nil {
		t.Fatal(err)
	}
	s, err := New("1234567890123456", spec, version("v1"), t0)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestTransitions is the table of secrets.md section 3, row by row.
func TestTransitions(t *testing.T) {
	t.Parallel()
	put := func(id string, stages ...Stage) func(Secret) (Secret, error) {
		return func(s Secret) (Secret, error) { return s.Put(version(id), stages, t0) }
	}
	move := func(stage Stage, to, from string) func(Secret) (Secret, error) {
		return func(s Secret) (Secret, error) { return s.MoveStage(stage, to, from, t0) }
	}
	type labels = map[Stage]string
	for _, tt := range []struct {
		name   string
		before labels // of versions v1 to v5
		call   func(Secret) (Secret, error)
		want   labels
		kind   fault.Kind
	}{
		{"put moves both", labels{Current: "v1"}, put("v6"), labels{Current: "v6", Previous: "v1"}, fault.OK},
		{"put deprecates", labels{Current: "v2", Previous: "v1"}, put("v6"), labels{Current: "v6", Previous: "v2"}, fault.OK},
		{"same value again", labels{Current: "v3", Previous: "v2"}, put("v3", "Blue"), labels{Current: "v3", Previous: "v2"},
			fault.OK},
		{"other value", labels{Current: "v3", Previous: "v2"}, func(s Secret) (Secret, error) {
			return s.Put(Version{ID: "v3", Digest: Digest{99}}, nil, t0)
		}, labels{Current: "v3", Previous: "v2"}, fault.Exists},
		{"custom label only", labels{Current: "v3", Previous: "v2"}, put("v6", "Next"),
			labels{Current: "v3", Previous: "v2", "Next": "v6"}, fault.OK},
		{"custom label moves", labels{Current: "v3", "Next": "v4"}, put("v6", "Next"), labels{Current: "v3", "Next": "v6"},
			fault.OK},
		{"current and custom", labels{Current: "v3", Previous: "v2", "Blue": "v2"}, put("v6", "Blue", Current),
			labels{Current: "v6", Previous: "v3", "Blue": "v6"}, fault.OK},
		{"previous is refused", labels{Current: "v3"}, put("v6", Previous), labels{Current: "v3"}, fault.Invalid},
		{"move current", labels{Current: "v3", Previous: "v2", "Next": "v5"}, move(Current, "v5", ""),
			labels{Current: "v5", Previous: "v3", "Next": "v5"}, fault.OK},
		{"roll back", labels{Current: "v5", Previous: "v3"}, move(Current, "v3", ""), labels{Current: "v3", Previous: "v5"},
			fault.OK},
		{"move previous", labels{Current: "v5", Previous: "v3"}, move(Previous, "v1", ""),
			labels{Current: "v5", Previous: "v1"}, fault.OK},
		{"previous onto current", labels{Current: "v5", Previous: "v3"}, move(Previous, "v5", ""),
			labels{Current: "v5", Previous: "v3"}, fault.Invalid},
		{"remove custom", labels{Current: "v5", "Next": "v4"}, move("Next", "", "v4"), labels{Current: "v5"}, fault.OK},
		{"remove current", labels{Current: "v5"}, move(Current, "", "v5"), labels{Current: "v5"}, fault.Invalid},
		{"remove previous", labels{Current: "v5", Previous: "v4"}, move(Previous, "", "v4"),
			labels{Current: "v5", Previous: "v4"}, fault.Invalid},
		{"remove from another", labels{Current: "v5", "Next": "v4"}, move("Next", "", "v3"),
			labels{Current: "v5", "Next": "v4"}, fault.Invalid},
		{"swap", labels{Current: "v5", "Next": "v4"}, move("Next", "v3", "v4"), labels{Current: "v5", "Next": "v3"},
			fault.OK},
		{"swap lost", labels{Current: "v5", "Next": "v4"}, move(Current, "v3", "v4"), labels{Current: "v5", "Next": "v4"},
			fault.Invalid},
		{"to the holder", labels{Current: "v5", Previous: "v4"}, move(Current, "v5", ""),
			labels{Current: "v5", Previous: "v4"}, fault.OK},
		{"unknown version", labels{Current: "v5"}, move(Current, "v9", ""), labels{Current: "v5"}, fault.NotFound},
		{"nothing asked", labels{Current: "v5"}, move(Current, "", ""), labels{Current: "v5"}, fault.Invalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := generic(t, 5)
			s.Stages = maps.Clone(tt.before)
			got, err := tt.call(s)
			if fault.KindOf(err) != tt.kind {
				t.Errorf("err = %v, want kind %d", err, tt.kind)
			}
			if diff := cmp.Diff(tt.want, got.Stages); diff != "" && err == nil {
				t.Errorf("labels (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.before, s.Stages); diff != "" {
				t.Errorf("the receiver changed (-before +after):\n%s", diff)
			}
		})
	}
}

func TestEviction(t *testing.T) {
	t.Parallel()
	s := generic(t, 3)
	s, err := s.MoveStage("Keep", "v1", "", t0)
	if err != nil {
		t.Fatal(err)
	}
	for i := 4; i <= 12; i++ {
		if s, err = s.Put(version(fmt.Sprintf("v%d", i)), nil, t0); err != nil {
			t.Fatal(err)
		}
	}
	var ids []string
	for _, v := range s.List(true) {
		ids = append(ids, v.ID)
	}
	want := "v12 v11 v10 v9 v8 v7 v6 v5 v4 v1"
	if got := strings.Join(ids, " "); got != want {
		t.Errorf("versions = %s, want %s: the oldest without a label goes first", got, want)
	}
}

func TestStageLimit(t *testing.T) {
	t.Parallel()
	s := generic(t, 1)
	var err error
	for i := range 6 {
		if s, err = s.MoveStage(Stage(fmt.Sprintf("l%d", i)), "v1", "", t0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.MoveStage("l6", "v1", "", t0); fault.KindOf(err) != fault.LimitExceeded ||
		!strings.Contains(err.Error(), "at most 8") {
		t.Errorf("seventh custom label: %v, want LimitExceeded", err)
	}
	if _, err = s.Put(version("v2"), nil, t0); err != nil {
		t.Errorf("with six custom labels ACSPrevious must still have room: %v", err)
	}
}

func TestSelect(t *testing.T) {
	t.Parallel()
	s := generic(t, 3)
	for _, tt := range []struct {
		stage Stage
		id    string
		want  string
		kind  fault.Kind
	}{
		{"", "", "v3", fault.OK}, {Previous, "", "v2", fault.OK}, {"", "v1", "v1", fault.OK}, {Current, "v3", "v3", fault.OK},
		{Current, "v2", "", fault.NotFound}, {"none", "", "", fault.NotFound}, {"", "v9", "", fault.NotFound},
	} {
		got, err := s.Select(tt.stage, tt.id)
		if fault.KindOf(err) != tt.kind || err == nil && got.ID != tt.want {
			t.Errorf("Select(%q, %q) = %q, %v; want %q, kind %d", tt.stage, tt.id, got.ID, err, tt.want, tt.kind)
		}
	}
	if got, err := managed(t).Select("", "v9"); err != nil || got.ID != "v1" {
		t.Errorf("a managed secret ignores VersionId: got %q, %v", got.ID, err)
	}
	if _, err := managed(t).Select("Blue", ""); fault.KindOf(err) != fault.NotFound {
		t.Errorf("a managed secret knows two labels: %v", err)
	}
}

func TestDeletionWindow(t *testing.T) {
	t.Parallel()
	s, err := generic(t, 2).Delete(false, 7*24*time.Hour, t0)
	if err != nil || !s.DeleteAt.Equal(t0.Add(7*24*time.Hour)) {
		t.Fatalf("Delete: %v, %v", s.DeleteAt, err)
	}
	description := "x"
	for name, call := range map[string]func() error{
		"Put":    func() error { _, err := s.Put(version("v3"), nil, t0); return err },
		"Move":   func() error { _, err := s.MoveStage(Current, "v1", "", t0); return err },
		"Update": func() error { _, err := s.UpdateMetadata(&description, nil, t0); return err },
		"Policy": func() error { _, err := s.SetPolicy("{}", nil, t0); return err },
		"Delete": func() error { _, err := s.Delete(false, time.Hour, t0); return err },
		"Usable": s.Usable,
	} {
		if err := call(); fault.KindOf(err) != fault.Deleting || !strings.Contains(err.Error(), "2026-01-09T03:04:05Z") {
			t.Errorf("%s in the deletion window: %v", name, err)
		}
	}
	if _, err := s.Tag([]kms.Tag{{TagKey: "k"}}, t0); err != nil {
		t.Errorf("tags may change in the deletion window: %v", err)
	}
	if s.Gone(t0.Add(7*24*time.Hour-1)) || !s.Gone(t0.Add(7*24*time.Hour)) {
		t.Error("a secret is gone at its planned time, not before")
	}
	if forced, err := s.Delete(true, 0, t0); err != nil || !forced.Gone(t0) {
		t.Errorf("a forced deletion of a scheduled secret: %v", err)
	}
	back, err := s.Restore(t0)
	if err != nil || back.Deleting() || back.Stages[Current] != "v2" {
		t.Errorf("Restore: %+v, %v", back.Stages, err)
	}
	if _, err := back.Restore(t0); fault.KindOf(err) != fault.InUse {
		t.Errorf("Restore of a live secret: %v", err)
	}
}

func TestManagedRefusals(t *testing.T) {
	t.Parallel()
	m, g := managed(t), generic(t, 1)
	for name, err := range map[string]error{
		"put":         second(m.Put(version("v2"), nil, t0)),
		"move":        second(m.MoveStage(Current, "v1", "", t0)),
		"rotation of": second(g.SetRotation(true, "7d", 0, t0)),
		"rotate of":   g.CheckRotate(),
	} {
		if fault.KindOf(err) != fault.Unsupported {
			t.Errorf("%s: %v, want Unsupported", name, err)
		}
	}
}

func second(_ Secret, err error) error { return err }

func TestRotationPolicy(t *testing.T) {
	t.Parallel()
	s := managed(t)
	if want := t0.Add(7 * 24 * time.Hour); !s.Rotation.Next.Equal(want) || s.Rotation.IntervalText() != "604800s" {
		t.Errorf("next %v, interval %s; want %v, 604800s", s.Rotation.Next, s.Rotation.IntervalText(), want)
	}
	for at, want := range map[time.Duration]string{0: RotationEnabled, 7 * 24 * time.Hour: RotationEnabled,
		8 * 24 * time.Hour: RotationInvalid} {
		if got := s.Rotation.Automatic(t0.Add(at)); got != want {
			t.Errorf("after %v: %s, want %s", at, got, want)
		}
	}
	late := t0.Add(30 * 24 * time.Hour)
	s, err := s.SetRotation(true, "8d", 0, late)
	if err != nil || !s.Rotation.Next.Equal(late) || s.Rotation.Automatic(late) != RotationEnabled {
		t.Errorf("a rotation that would be past is due now, and enabling clears Invalid: %v, %v", s.Rotation, err)
	}
	s, err = s.SetRotation(false, "", 0, late)
	if err != nil || s.Rotation.Automatic(late) != RotationDisabled || s.Rotation.Interval != 0 {
		t.Errorf("disabled: %v, %v", s.Rotation, err)
	}
	if _, err = s.SetRotation(true, "", 0, late); fault.KindOf(err) != fault.Missing {
		t.Errorf("enabling without an interval: %v", err)
	}
}

func TestParseInterval(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"6h": 6 * time.Hour, "7d": 168 * time.Hour, "21600": 6 * time.Hour, "360m": 6 * time.Hour,
		"31536000s": 8760 * time.Hour,
		"5h":        0, "366d": 0, "": 0, "d": 0, "-7d": 0, "+7d": 0, "7w": 0, "1.5d": 0, "7 d": 0, "99999999999999d": 0,
	} {
		got, err := ParseInterval(text, 0)
		if got != want || (err == nil) != (want > 0) || err != nil && fault.KindOf(err) != fault.Invalid {
			t.Errorf("ParseInterval(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestTags(t *testing.T) {
	t.Parallel()
	s, err := generic(t, 1).Tag([]kms.Tag{{TagKey: "env", TagValue: "prod"}, {TagKey: "a", TagValue: ""}}, t0)
	if err != nil {
		t.Fatal(err)
	}
	if s, err = s.Tag([]kms.Tag{{TagKey: "env", TagValue: "test"}}, t0); err != nil || s.Tags["env"] != "test" {
		t.Errorf("an existing key gets the new value: %v, %v", s.Tags, err)
	}
	if got := s.Untag([]string{"a", "none"}, false, t0); len(got.Tags) != 1 {
		t.Errorf("Untag: %v", got.Tags)
	}
	if got := s.Untag(nil, true, t0); len(got.Tags) != 0 {
		t.Errorf("Untag all: %v", got.Tags)
	}
	for _, bad := range []kms.Tag{{TagKey: ""}, {TagKey: "aliyunx"}, {TagKey: "acs:x"}, {TagKey: "a b"},
		{TagKey: strings.Repeat("k", 129)}, {TagKey: "k", TagValue: "ü"}} {
		if _, err := s.Tag([]kms.Tag{bad}, t0); fault.KindOf(err) != fault.Invalid {
			t.Errorf("tag %q=%q: %v, want Invalid", bad.TagKey, bad.TagValue, err)
		}
	}
	var many []kms.Tag
	for i := range 21 {
		many = append(many, kms.Tag{TagKey: fmt.Sprint("k", i)})
	}
	if _, err := s.Tag(many, t0); fault.KindOf(err) != fault.LimitExceeded {
		t.Errorf("21 tags: %v", err)
	}
	if _, err := s.Tag(many[:19], t0); fault.KindOf(err) != fault.LimitExceeded {
		t.Errorf("2 and 19 tags: %v", err)
	}
}
