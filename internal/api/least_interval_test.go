package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
)

// TestScheduleKeepsLeastInterval verifies that no setting lets a schedule rotate a secret sooner
// than the least interval after the rotation before: not a cron expression, not settings that are
// made again and again, not settings that were removed meanwhile.
func TestScheduleKeepsLeastInterval(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	gen := []string{"SecretName", "gen", "TargetName", "pg", "EnableAutomaticRotation", "true"}
	for _, expression := range []string{
		"@every 1s", "@every 1ns", "@every 24h", "* * * * *", "0 */5 * * *", "@hourly", "59 23 * * 1", "0 0 31 2 *",
	} {
		ok := expression == "59 23 * * 1"
		for _, window := range []string{"", "02:00-04:00", "Sat,Sun"} {
			_, err := w.call(t, rootPrincipal, "ConfigureRotation", append(gen, "Cron", expression, "Window", window)...)
			if ok && err != nil || !ok && (fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "Cron")) {
				t.Errorf("Cron %q, Window %q: %v", expression, window, err)
			}
		}
	}
	last := w.now
	w.put(t, "gen", func(s *secret.Secret, r *rotation.Record) {
		s.Rotation.Last = last
		*r = rotation.Record{
			Account:    account,
			Secret:     "gen",
			State:      rotation.Done,
			Mode:       rotation.Rotate,
			StartedAt:  last,
			PromotedAt: last,
		}
	})
	check := func(what string) {
		t.Helper()
		w.now = w.now.Add(time.Minute)
		s, r := w.stored(t, "gen"), w.record(t, "gen")
		if least := last.Add(6 * time.Hour); s.Rotation.Next.Before(least) || r.Due.Before(least) {
			t.Errorf("%s: due at %v, the engine is due at %v; the last rotation began at %v", what, s.Rotation.Next, r.Due, last)
		}
	}
	for range 3 {
		// The next minutes of the clock, so that each expression names a time very soon.
		soon := fmt.Sprintf("%d %d * * *", w.now.Add(2*time.Minute).Minute(), w.now.Add(2*time.Minute).Hour())
		w.must(t, "ConfigureRotation", append(gen, "Cron", soon)...)
		check("Cron")
		w.must(t, "ConfigureRotation", append(gen, "RotationInterval", "6h")...)
		check("RotationInterval")
		w.must(t, "UpdateSecretRotationPolicy", "SecretName", "gen", "EnableAutomaticRotation", "true",
			"RotationInterval", "6h")
		check("UpdateSecretRotationPolicy")
		w.must(t, "RemoveRotation", "SecretName", "gen")
		w.must(t, "ConfigureRotation", append(gen, "Cron", soon)...)
		check("RemoveRotation, ConfigureRotation")
	}
}

func (w *world) stored(t *testing.T, name string) (s secret.Secret) {
	t.Helper()
	w.put(t, name, func(stored *secret.Secret, _ *rotation.Record) { s = *stored })
	return s
}

// TestRequestsAreBounded verifies that the right to ask for rotations is none to ask without end:
// eight at once and then one in ten minutes, for RotateSecret and RehearseRotation together, over
// the removal of the settings too. EmergencyRotation has an allowance of its own.
func TestRequestsAreBounded(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg", "EnableAutomaticRotation", "false")
	ask := func(action string, i int) error {
		params := []string{"SecretName", "gen", "VersionId", fmt.Sprintf("%s-%d", action, i)}
		_, err := w.call(t, rootPrincipal, action, params...)
		if err == nil {
			w.must(t, action, params...) // the same request again takes nothing
			w.inState(t, "gen", rotation.Done)
		}
		return err
	}
	asked := 0
	for i := range 60 { // two hours
		action := []string{"RotateSecret", "RehearseRotation"}[i%2]
		switch err := ask(action, i); fault.KindOf(err) {
		case fault.OK:
			asked++
		case fault.Throttled:
			if !strings.Contains(err.Error(), "may be asked for at 20") {
				t.Errorf("%v; want the time of the next", err)
			}
		default:
			t.Fatal(err)
		}
		w.must(t, "RemoveRotation", "SecretName", "gen")
		w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg", "EnableAutomaticRotation", "false")
		w.now = w.now.Add(2 * time.Minute)
	}
	if asked < 8+11 || asked > 8+12 {
		t.Errorf("%d rotations in two hours; want 8 and one in ten minutes", asked)
	}
	for i := range 9 {
		if err := ask("EmergencyRotation", i); (err == nil) != (i < 8) {
			t.Errorf("emergency %d: %v", i, err)
		}
	}
}

// TestEngineKeepsLeastInterval verifies that the engine itself begins no scheduled rotation too
// soon, whatever was planned: here the setting has grown since.
func TestEngineKeepsLeastInterval(t *testing.T) {
	t.Parallel()
	dir, name, start := t.TempDir(), "acs/ram/user/app", time.Now()
	serve := func(least, ahead time.Duration) *keyturntest.Server {
		t.Helper()
		now := func() time.Time { return time.Now().Add(ahead) }
		return keyturntest.Start(t, keyturntest.WithDataDir(dir),
			keyturntest.WithTime(now), server.Change(func(c *server.Config) {
				c.Rotation.LeastInterval, c.Rotation.Grace.Min = least, time.Minute
			}))
	}
	row := func(s *keyturntest.Server) kms.ListedRotation {
		t.Helper()
		return must[*kms.ListRotationsResponse](t)(
			s.Client.ListRotations(t.Context(), &kms.ListRotationsRequest{MaxResults: 10})).Rotations[0]
	}
	until := func(what string, s *keyturntest.Server, ok func(kms.ListedRotation) bool) kms.ListedRotation {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			r := row(s)
			if ok(r) {
				return r
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %+v", what, r)
			}
		}
	}
	ctx, s := t.Context(), serve(time.Hour, 0)
	key := newUser(t, ram.New(s.Client), "app")
	must[*kms.CreateSecretResponse](t)(s.Client.CreateSecret(ctx, &kms.CreateSecretRequest{
		SecretName:              kms.Auto,
		SecretType:              kms.TypeRAMCredentials,
		VersionID:               "v1",
		EnableAutomaticRotation: true,
		RotationInterval:        "1h",
		ExtendedConfig:          `{"SecretSubType":"RamUserAccessKey","UserName":"app"}`,
		SecretData: sensitive.New(
			`{"AccessKeys":[{"AccessKeyId":"` + key.AccessKeyID + `","AccessKeySecret":"` + key.AccessKeySecret.Reveal() +
				`"}]}`),
	}))
	must[*kms.RotateSecretResponse](t)(
		s.Client.RotateSecret(ctx, &kms.RotateSecretRequest{SecretName: name, VersionID: "v2"}))
	until("the rotation that was asked for", s, func(r kms.ListedRotation) bool { return !r.PromoteTime.IsZero() })
	must[*kms.SecretNameResponse](t)(s.Client.EndRotationGrace(ctx, &kms.SecretNameRequest{SecretName: name}))
	first := until("its end", s, func(r kms.ListedRotation) bool { return r.State == "done" })
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	// The hour of the old setting is over.
	s = serve(24*time.Hour, 2*time.Hour)
	r := until("the rotation that is due", s, func(r kms.ListedRotation) bool {
		return r.RotationID != first.RotationID || r.NextRotationDate.After(start.Add(23*time.Hour))
	})
	if r.RotationID != first.RotationID {
		t.Fatalf("after two hours a rotation has begun: %+v", r)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	s = serve(24*time.Hour, 25*time.Hour)
	until("a day later", s, func(r kms.ListedRotation) bool {
		return r.RotationID != first.RotationID && !r.PromoteTime.IsZero()
	})
}
