package rotation_test

import (
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// outlives has every field of Record, and whether it outlives the rotation that is over when the
// next one begins. What belongs to the account at the target, to the plan or to the engine
// outlives; what belongs to the rotation does not.
var outlives = map[string]bool{
	"Account":         true,
	"Secret":          true,
	"ID":              false,
	"State":           false,
	"Mode":            false,
	"Trigger":         false,
	"Strategy":        false,
	"Target":          true,
	"Candidate":       false,
	"Base":            false,
	"Fence":           true,
	"Seq":             true,
	"Attempt":         false,
	"Candidates":      false,
	"Rejections":      false,
	"Failures":        false,
	"Abandons":        true,
	"Swapped":         false,
	"Cancelled":       false,
	"Doubtful":        false,
	"BaseRejected":    false,
	"GraceOver":       false,
	"Grace":           false,
	"StartedAt":       false,
	"PromotedAt":      false,
	"GraceUntil":      false,
	"GraceDeadline":   false,
	"EndedAt":         false,
	"NextAt":          false,
	"LoginFailedAt":   true,
	"SentAt":          true,
	"HeldAt":          false,
	"Imposed":         false,
	"Hold":            false,
	"Lag":             false,
	"CopiesAt":        false,
	"Check":           true,
	"Clone":           true,
	"Due":             true,
	"Paused":          true,
	"Pause":           true,
	"Overdue":         true,
	"Interrupted":     false,
	"AdminWait":       false,
	"FailingSince":    false,
	"FailingReported": false,
	"Quarantine":      false,
	"Aftermath":       false,
	"GivenUp":         false,
	"TakenOverBy":     false,
	"Retired":         true,
	"Preparing":       true,
	"Then":            false,
	"Health":          true,
	"Accepted":        true,
	"BaseAccepted":    false,
	"Reason":          false,
	"Steps":           false,
}

// TestWhatOutlivesARotation begins a rotation on a record whose every field is set.
func TestWhatOutlivesARotation(t *testing.T) {
	t.Parallel()
	var before rotation.Record
	fill(reflect.ValueOf(&before).Elem())
	request := rotation.Request{
		ID:      "next",
		Mode:    rotation.Rehearse,
		Trigger: rotation.Manual,
		Grace:   rotation.Grace{Min: time.Minute, Max: time.Hour},
	}
	begun := reflect.ValueOf(before.Begin(request, noon))
	fresh := reflect.ValueOf(rotation.Record{}.Begin(request, noon))
	fields := begun.Type()
	for i := range fields.NumField() {
		name := fields.Field(i).Name
		lasts, known := outlives[name]
		if !known {
			t.Errorf("field %s: add it to outlives, and to Begin if it outlives a rotation", name)
			continue
		}
		want := fresh.Field(i).Interface()
		if lasts {
			want = reflect.ValueOf(before).Field(i).Interface()
		}
		if got := begun.Field(i).Interface(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %v after Begin, want %v", name, got, want)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(outlives)) {
		if _, ok := fields.FieldByName(name); !ok {
			t.Errorf("Record has no field %s", name)
		}
	}
}

// TestClockSetBack verifies that times which lie in the future, because the clock was set back, are
// stored as now by the next event: otherwise each of their delays would begin anew with every read.
func TestClockSetBack(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{-time.Minute, time.Hour} {
		r := record(rotation.Scheduled)
		r.LoginFailedAt, r.SentAt = noon.Add(ahead), noon.Add(ahead)
		want := noon.Add(min(ahead, 0))
		got, err := rotation.Next(r, rotation.Event{Kind: rotation.Failed}, noon)
		if err != nil || !got.LoginFailedAt.Equal(want) || !got.SentAt.Equal(want) {
			t.Errorf("%s ahead: a login failed at %s, sent at %s, %v; want %s", ahead, got.LoginFailedAt, got.SentAt, err, want)
		}
	}
}
