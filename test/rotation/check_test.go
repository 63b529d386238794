package rotation_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/kms"
)

// codes returns the codes of the findings that are about strategy single, and their texts.
func codes(r *kms.CheckRotationResponse) (list []string, texts string) {
	for _, f := range r.Findings {
		if len(f.Strategies) == 0 || slices.Contains(f.Strategies, "single") {
			list, texts = append(list, f.Code), texts+f.Text+"\n"
		}
	}
	return list, texts
}

// TestCheck verifies that a check of a real server says beforehand what would put an application
// out of work, and changes nothing there: a login path that is closed, one that is configured, and
// a password that was changed by hand.
func TestCheck(t *testing.T) {
	t.Parallel()
	s, d := start(t), startDatabase(t)
	register(t, s, d)
	x := d.system("single")
	x.create(t, s, "app")
	check := func() *kms.CheckRotationResponse {
		t.Helper()
		r, err := s.Client.CheckRotation(t.Context(), name("app"))
		must(t, err)
		return r
	}
	before := x.stored(t, "app")
	if r := check(); r.Verdict != kms.VerdictSafe || r.Strategy != "single" || r.Unchecked != "" {
		t.Errorf("an ordinary account: %+v", r)
	}
	d.run(t, "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC; GRANT CONNECT ON DATABASE postgres TO rotator")
	r := check()
	list, texts := codes(r)
	if len(list) == 0 || !strings.Contains(texts, "42501") && !strings.Contains(texts, "CONNECT") {
		t.Errorf("without the right to connect: %s, %v, %s", r.Verdict, list, texts)
	}
	d.run(t, "CREATE DATABASE shop")
	_, err := s.Client.ConfigureRotation(t.Context(), &kms.ConfigureRotationRequest{
		SecretName:    "app",
		LoginDatabase: "shop",
	})
	must(t, err)
	r = check()
	if list, texts := codes(r); r.Verdict != kms.VerdictSafe || strings.Contains(texts, "42501") {
		t.Errorf("with the database of the application: %s, %v, %s", r.Verdict, list, texts)
	}
	if x.stored(t, "app") != before {
		t.Error("a check has changed what the target has stored")
	}
	x.set(t, "app", "changed-by-hand")
	r = check()
	if list, _ := codes(r); r.Verdict != kms.VerdictImpossible || !slices.Contains(list, "login-rejected") {
		t.Errorf("after a change by hand: %s, %v", r.Verdict, list)
	}
	shown, err := s.Client.DescribeRotation(t.Context(), name("app"))
	must(t, err)
	if shown.LoginDatabase != "shop" || len(shown.CheckFindings) == 0 {
		t.Errorf("status: %+v", shown)
	}
}

// TestCheckFindsAPasswordOutOfUse verifies that a check notices a password that was given by
// hand to the login that the last rotation left without one.
func TestCheckFindsAPasswordOutOfUse(t *testing.T) {
	t.Parallel()
	d := startDatabase(t)
	x := d.system("double")
	s := x.run(t, briefly)
	const code = "password-not-ours"
	found := func() bool {
		t.Helper()
		r, err := s.Client.CheckRotation(t.Context(), name("app"))
		must(t, err)
		return slices.ContainsFunc(r.Findings, func(f kms.RotationFinding) bool { return f.Code == code })
	}
	if found() {
		t.Error("before the first rotation, each login has a password of its own")
	}
	rotate(t, s, "app", "v2")
	until(t, s, "app", "done")
	if found() {
		t.Error("after a retirement, the login has no password")
	}
	d.run(t, "ALTER ROLE app PASSWORD 'set-by-a-session-that-stayed'")
	if !found() {
		t.Errorf("a password of the login that is out of use: no finding %s", code)
	}
	d.run(t, "ALTER ROLE app_clone PASSWORD 'set-by-hand'")
	_, err := s.Client.ProbeRotation(t.Context(), &kms.PauseRotationRequest{SecretName: "app"})
	must(t, err)
	until(t, s, "app", "quarantined")
	must(t, second(s.Client.RepairRotation(t.Context(),
		&kms.RepairRotationRequest{SecretName: "app", RepairAction: kms.RepairApply})))
	until(t, s, "app", "done")
	if !found() {
		t.Errorf("after a repair of the login in use: no finding %s", code)
	}
	rotate(t, s, "app", "v3")
	until(t, s, "app", "done")
	r, err := s.Client.DescribeRotation(t.Context(), name("app"))
	must(t, err)
	if slices.ContainsFunc(r.CheckFindings, func(f kms.RotationFinding) bool { return f.Code == code }) {
		t.Errorf("the login that was out of use is in use, and status still says: %+v", r.CheckFindings)
	}
}
