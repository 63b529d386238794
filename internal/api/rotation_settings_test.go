package api

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/kms"
)

// notKept are the parameters of ConfigureRotation that no row of rotationSettings keeps: they name
// the secret and what happens to the settings, or are kept in the secret itself.
var notKept = []string{
	"SecretName", "TargetName", "Replace", "Reset", "EnableAutomaticRotation", "RotationInterval",
}

// sampleSettings are values of settings that do not take every text.
var sampleSettings = map[string]string{
	"Strategy":    "single",
	"Cron":        "@weekly",
	"TimeZone":    "Europe/Berlin",
	"Window":      "Sat 02:00-05:00",
	"Blackouts":   "2026-12-24..2026-12-26",
	"GracePeriod": "1h",
	"GraceLimit":  "2h",
	"GroupGap":    "30m",
}

// settingParams returns the fields of ConfigureRotationRequest that are settings, by parameter.
func settingParams(t *testing.T) map[string]int {
	t.Helper()
	fields := map[string]int{}
	of := reflect.TypeFor[kms.ConfigureRotationRequest]()
	for i := range of.NumField() {
		param, _, _ := strings.Cut(of.Field(i).Tag.Get("kms"), ",")
		if !slices.Contains(notKept, param) {
			fields[param] = i
		}
	}
	if len(fields) < 15 {
		t.Fatalf("%d settings were found", len(fields))
	}
	return fields
}

// naming returns a request that names these settings.
func naming(t *testing.T, params ...string) *kms.ConfigureRotationRequest {
	t.Helper()
	in := &kms.ConfigureRotationRequest{SecretName: "gen"}
	for _, param := range params {
		value := cmp.Or(sampleSettings[param], "change-plugin")
		switch f := reflect.ValueOf(in).Elem().Field(settingParams(t)[param]).Addr().Interface().(type) {
		case *string:
			*f = value
		case *[]string:
			*f = []string{value}
		default:
			t.Fatalf("%s is of type %T: give it a value here", param, f)
		}
	}
	return in
}

func settingsCall() *Call {
	return &Call{Env: &Env{Rotation: RotationConfig{LeastInterval: 6 * time.Hour}}}
}

// after returns a secret with the settings of a call.
func after(t *testing.T, s secret.Secret, in *kms.ConfigureRotationRequest) secret.Secret {
	t.Helper()
	settings, err := settingsCall().configuredSettings(s, in)
	if err != nil {
		t.Fatalf("%+v: %v", in, err)
	}
	s.Rotation.Settings = &settings
	return s
}

// TestEveryRotationSettingIsKept verifies that each setting of ConfigureRotation is stored, shown
// by DescribeRotation, kept by a call that does not name it, and returned to its default by Reset.
func TestEveryRotationSettingIsKept(t *testing.T) {
	t.Parallel()
	shows := func(s secret.Secret, param string) bool {
		var out kms.DescribeRotationResponse
		describeSettings(s, time.Time{}, &out)
		names := []string{param, param + "s", "Configured" + param}
		v := reflect.ValueOf(out)
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("kms"), ",")
			if slices.Contains(names, name) && !v.Field(i).IsZero() {
				return true
			}
		}
		return false
	}
	none := after(t, secret.Secret{Name: "gen"}, naming(t))
	for param := range settingParams(t) {
		params := []string{param}
		switch param { // they go together
		case "Group":
			params = append(params, "GroupGap")
		case "GroupGap":
			params = append(params, "Group")
		}
		named := after(t, none, naming(t, params...))
		switch {
		case !slices.ContainsFunc(rotationSettings, func(r rotationSetting) bool { return r.param == param }):
			t.Errorf("%s has no row in rotationSettings", param)
		case reflect.DeepEqual(none.Settings(), named.Settings()):
			t.Errorf("ConfigureRotation does not store %s", param)
		case !shows(named, param):
			t.Errorf("DescribeRotation does not show %s", param)
		case !reflect.DeepEqual(named.Settings(), after(t, named, naming(t)).Settings()):
			t.Errorf("a call that does not name %s changes it", param)
		}
		if param == "GroupGap" {
			continue // it is reset with the group
		}
		in := naming(t)
		in.Reset = []string{param}
		if reset := after(t, named, in); !reflect.DeepEqual(none.Settings(), reset.Settings()) {
			t.Errorf("Reset of %s leaves %+v", param, reset.Settings())
		}
	}
}

// TestEveryStoredSettingHasARow verifies that each member of the stored settings is the member of
// one row of rotationSettings.
func TestEveryStoredSettingHasARow(t *testing.T) {
	t.Parallel()
	var params []string
	for param := range settingParams(t) {
		params = append(params, param)
	}
	full := after(t, secret.Secret{Name: "gen"}, naming(t, params...)).Settings()
	// ConfigureRotation has the target apart, an interval is in the secret, and a certificate is read
	// from its secret for each login.
	elsewhere := []string{"Target", "Schedule.Interval", "Login.Certificate"}
	var visit func(path string, v reflect.Value)
	visit = func(path string, v reflect.Value) {
		if slices.Contains(elsewhere, path) {
			return
		}
		if v.IsZero() {
			t.Errorf("no parameter of ConfigureRotation, or no row, sets %s", path)
			return
		}
		if v.Kind() == reflect.Struct && path != "Schedule.Window" {
			for i := range v.NumField() {
				visit(strings.TrimPrefix(path+"."+v.Type().Field(i).Name, "."), v.Field(i))
			}
		}
	}
	visit("", reflect.ValueOf(full))
}

// TestAnotherTargetResetsItsSettings verifies which settings another target resets: those that
// docs/rotation.md names.
func TestAnotherTargetResetsItsSettings(t *testing.T) {
	t.Parallel()
	var params []string
	for param := range settingParams(t) {
		params = append(params, param)
	}
	in := naming(t, params...)
	in.TargetName = "pg"
	before := after(t, secret.Secret{Name: "gen", Type: kms.TypeGeneric}, in)
	in = naming(t)
	in.TargetName = "other"
	settings := after(t, before, in).Settings()
	for _, r := range rotationSettings {
		reset := strings.HasPrefix(r.param, "Login") ||
			slices.Contains([]string{"Strategy", "AccountName", "CloneAccountName", "Consent"}, r.param)
		if got := r.text(&settings) == ""; got != reset {
			t.Errorf("%s: reset %t, want %t", r.param, got, reset)
		}
	}
}
