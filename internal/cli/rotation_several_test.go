package cli

import (
	"reflect"
	"testing"
	"time"

	"github.com/keyturn/keyturn/kms"
)

// TestOneSecretIsListedWhole verifies that a command with one name and --dry-run judges the same
// members as one that has listed the rotations.
func TestOneSecretIsListedWhole(t *testing.T) {
	t.Parallel()
	var r kms.DescribeRotationResponse
	for i, fields := 0, reflect.ValueOf(&r).Elem(); i < fields.NumField(); i++ {
		switch field := fields.Field(i); {
		case field.Type() == reflect.TypeFor[time.Time]():
			field.Set(reflect.ValueOf(time.Unix(1, 0)))
		case field.Kind() == reflect.String:
			field.SetString("x")
		case field.Kind() == reflect.Bool:
			field.SetBool(true)
		case field.Kind() == reflect.Slice:
			field.Set(reflect.MakeSlice(field.Type(), 1, 1))
		}
	}
	row := reflect.ValueOf(listed(&r))
	for i := range row.NumField() {
		if row.Field(i).IsZero() {
			t.Errorf("%s is left out", row.Type().Field(i).Name)
		}
	}
}
