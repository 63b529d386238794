package api_test

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
)

// rotating is a world with a target in memory: pg, whose administrator is in pg-admin; db is a
// managed secret of it with the account app, double one with two, gen a Generic secret that no
// engine rotates yet, bare one that is plain text.
func rotating(t *testing.T) (*world, *memory) {
	t.Helper()
	m := newMemory("rotator", "the-administrators-password", "app", "the-applications-password", "gen", "p")
	w := newWorld(t, m.kinds()...)
	w.must(t, "CreateSecret", "SecretName", "pg-admin", "SecretData", adminValue, "VersionId", "v1")
	w.must(t, "RegisterTarget", "TargetName", "pg", "Kind", "memory", "Config", toMemory, "AdminSecretName", "pg-admin")
	w.managed(t, "db", "SingleUser", appValue, "pg")
	w.managed(t, "double", "DoubleUsers",
		`{"Accounts":[{"AccountName":"one","AccountPassword":"x"},{"AccountName":"two","AccountPassword":"y"}]}`, "pg")
	w.must(t, "CreateSecret", "SecretName", "gen", "SecretData", `{"username":"gen","password":"p"}`, "VersionId", "v1")
	w.must(t, "CreateSecret", "SecretName", "bare", "SecretData", "a token", "VersionId", "v1")
	return w, m
}

func (w *world) managed(t *testing.T, name, subType, data, targetName string) {
	t.Helper()
	w.must(t, "CreateSecret", "SecretName", name, "SecretType", kms.TypeRds, "SecretData", data, "VersionId", "v1",
		"ExtendedConfig", fmt.Sprintf(`{"SecretSubType":%q,"DBInstanceId":%q}`, subType, targetName))
}

// accessKey creates a user with an access key, and a secret that has it. It returns the name of the
// secret.
func (w *world) accessKey(t *testing.T) string {
	t.Helper()
	w.must(t, "CreateUser", "UserName", "robot")
	key := w.must(t, "CreateAccessKey", "UserName", "robot").(*ram.CreateAccessKeyResponse).AccessKey
	w.must(t, "CreateSecret", "SecretName", "$Auto", "SecretType", kms.TypeRAMCredentials, "VersionId", "v1",
		"SecretData",
		fmt.Sprintf(`{"AccessKeys":[{"AccessKeyId":%q,"AccessKeySecret":%q}]}`, key.AccessKeyID,
			key.AccessKeySecret.Reveal()), "ExtendedConfig", `{"SecretSubType":"RamUserAccessKey","UserName":"robot"}`)
	return "acs/ram/user/robot"
}

// put changes the stored secret and rotation record of a secret, as the engine would.
func (w *world) put(t *testing.T, name string, change func(*secret.Secret, *rotation.Record)) {
	t.Helper()
	err := store.Do(t.Context(), w.env.DB, func(tx *store.Tx) error {
		s, _, err := tx.Secret(account, name, w.now)
		if err != nil {
			return err
		}
		r, _, err := tx.Rotation(account, name)
		if err != nil {
			return err
		}
		r.Account, r.Secret = account, name
		change(&s, &r)
		if err := tx.PutRotation(&r); err != nil {
			return err
		}
		return tx.PutSecret(s, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// lose deletes a secret although something uses it, as an earlier build did.
func (w *world) lose(t *testing.T, name string) {
	t.Helper()
	err := store.Do(t.Context(), w.env.DB, func(tx *store.Tx) error {
		if _, _, err := tx.Secret(account, name, w.now); err != nil {
			return err
		}
		return tx.DeleteSecret(account, name)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) inState(t *testing.T, name string, state rotation.State) {
	t.Helper()
	w.put(t, name, func(_ *secret.Secret, r *rotation.Record) {
		r.ID = "v2"
		r.State = state
		r.Mode = rotation.Rotate
		r.Trigger = rotation.Manual
		r.Strategy = target.Double
		r.Candidate = "v2"
		r.Base = "v1"
		if state == rotation.InGrace {
			r.GraceUntil = w.now.Add(time.Hour)
			r.NextAt = r.GraceUntil
		}
		if state == rotation.Quarantined {
			r.Reason = "The credential was changed outside of Keyturn."
		}
	})
}

func (w *world) record(t *testing.T, name string) rotation.Record {
	t.Helper()
	r, _, err := store.Snapshot(t.Context(), w.env.DB).Rotation(account, name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (w *world) describe(t *testing.T, name string) *kms.DescribeRotationResponse {
	t.Helper()
	return w.must(t, "DescribeRotation", "SecretName", name).(*kms.DescribeRotationResponse)
}

// refused makes a call and holds the code and the text of its refusal, which begins a sentence with
// a capital letter.
func (w *world) refused(t *testing.T, code, text, action string, params ...string) {
	t.Helper()
	out, err := w.call(t, rootPrincipal, action, params...)
	got := protocol.CodeFor(err)
	if sentence := strings.ToUpper(text[:min(1, len(text))]) +
		text[min(1, len(text)):]; strings.Contains(got.Message, sentence) {
		text = sentence
	}
	if err == nil || got.Code != code || !strings.Contains(got.Message, text) || out != nil {
		t.Errorf("%s %q:\n%d %s %s\nwant %s %s", action, params, got.Status, got.Code, got.Message, code, text)
	}
}

const (
	invalid     = "InvalidParameter"
	missingOne  = "MissingParameter"
	notFound    = "Forbidden.ResourceNotFound"
	exists      = "Rejected.ResourceExist"
	inUse       = "Rejected.ResourceInUse"
	inWindow    = "Rejected.ResourceInDeleteWindow"
	unsupported = "UnsupportedOperation"
)

func TestTargetRefusals(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.must(t, "CreateSecret", "SecretName", "leaving", "SecretData", adminValue, "VersionId", "v1")
	w.must(t, "DeleteSecret", "SecretName", "leaving")
	w.must(t, "RegisterTarget", "TargetName", "free", "Kind", "open", "Config", toMemory)
	w.must(t, "RegisterTarget", "TargetName", "broken", "Kind", "broken", "Config", toMemory,
		"AdminSecretName", "pg-admin")
	register := func(params ...string) []string {
		return append([]string{"TargetName", "new", "Config", toMemory}, params...)
	}
	for _, tt := range []struct {
		code, text, action string
		params             []string
	}{
		{invalid, "use one of broken, memory, open.", "RegisterTarget", register("Kind", "oracle")},
		{
			invalid, `there is no setting "adress".`, "RegisterTarget",
			[]string{"TargetName", "new", "Kind", "memory", "Config", `{"adress":"x"}`},
		},
		{
			invalid, `"Config" is not valid. Address is required.`, "RegisterTarget",
			[]string{"TargetName", "new", "Kind", "open", "Config", `{}`},
		},
		{
			invalid, `"Config" is not valid.`, "RegisterTarget",
			[]string{"TargetName", "new", "Kind", "open", "Config", `not JSON`},
		},
		{
			invalid, `"TargetName" is not valid.`, "RegisterTarget",
			[]string{"TargetName", "a b", "Kind", "open", "Config", toMemory},
		},
		{
			invalid, "separates a target from an account in a policy.", "RegisterTarget",
			[]string{"TargetName", "pg/account", "Kind", "open", "Config", toMemory},
		},
		{
			invalid, "separates a target from an account in a policy.", "RegisterTarget",
			[]string{"TargetName", "pg/account/app", "Kind", "open", "Config", toMemory},
		},
		{
			invalid, "the name ram is for the users of this service.", "RegisterTarget",
			[]string{"TargetName", "ram", "Kind", "open", "Config", toMemory},
		},
		{missingOne, `"AdminSecretName"`, "RegisterTarget", register("Kind", "memory")},
		{missingOne, `"Kind"`, "RegisterTarget", register()},
		{notFound, `There is no secret "none"`, "RegisterTarget", register("Kind", "memory", "AdminSecretName", "none")},
		{
			notFound, "The ARN is not of a secret", "RegisterTarget",
			register("Kind", "memory", "AdminSecretName", "acs:kms:other:1234567890123456:secret/pg-admin"),
		},
		{inWindow, "", "RegisterTarget", register("Kind", "memory", "AdminSecretName", "leaving")},
		{
			exists, `There is a target "pg" already; keyturn target update pg changes it.`, "RegisterTarget",
			[]string{"TargetName", "pg", "Kind", "open", "Config", toMemory},
		},
		{
			notFound, `There is no target "none"; keyturn target add none --kind=KIND registers it.`, "UpdateTarget",
			[]string{"TargetName", "none", "Description", "x"},
		},
		{
			invalid, `there is no setting "port".`, "UpdateTarget",
			[]string{"TargetName", "pg", "Config", `{"address":"x","port":1}`},
		},
		{notFound, `There is no secret "none"`, "UpdateTarget", []string{"TargetName", "pg", "AdminSecretName", "none"}},
		{notFound, `There is no target "none"`, "DescribeTarget", []string{"TargetName", "none"}},
		{notFound, `There is no target "none"`, "DeregisterTarget", []string{"TargetName", "none"}},
		{invalid, "use the token of the page before, as it is.", "ListTargets", []string{"NextToken", "?"}},
		{notFound, `There is no target "none"`, "TestTarget", []string{"TargetName", "none"}},
		{notFound, `There is no secret "none"`, "TestTarget", []string{"TargetName", "pg", "SecretName", "none"}},
		{
			invalid, `the secret "gen" is not bound to target "pg".`, "TestTarget",
			[]string{"TargetName", "pg", "SecretName", "gen"},
		},
		{
			invalid,
			`target "free" has no administrator to log in as. SecretName must name a secret that is attached to the target`,
			"TestTarget", []string{"TargetName", "free"},
		},
		{inUse, `Target "broken" cannot be opened: no driver for it`, "TestTarget", []string{"TargetName", "broken"}},
	} {
		w.refused(t, tt.code, tt.text, tt.action, tt.params...)
	}
	w.inState(t, "db", rotation.Applying)
	w.refused(t, inUse, `Secrets are attached to target "pg": db, double.`, "DeregisterTarget", "TargetName", "pg")
	w.refused(t, inUse, `The rotation of secret "db" at target "pg" has not ended.`, "DeregisterTarget",
		"TargetName", "pg", "Detach", "true")
	w.inState(t, "db", rotation.Done)
	w.must(t, "DeregisterTarget", "TargetName", "pg", "Detach", "true")
	w.refused(t, notFound, `There is no target "pg"`, "DescribeTarget", "TargetName", "pg")
}

// TestTestTarget: a refusal by the target is an answer; a target that cannot be asked makes the
// call fail.
func TestTestTarget(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	try := func(result, code string, params ...string) {
		t.Helper()
		out := w.must(t, "TestTarget", params...).(*kms.TestTargetResponse)
		if out.Result != result ||
			out.Code != code ||
			(out.Message == "") != (result == "ok") ||
			strings.Contains(out.Message, "password-") {
			t.Errorf("%v: %+v; want %s %s", params, out, result, code)
		}
	}
	try("ok", "", "TargetName", "pg")
	try("ok", "", "TargetName", "pg", "SecretName", "db")
	try("ok", "", "TargetName", "pg", "SecretName", "acs:kms:local:"+account+":secret/db")
	m.set("app", "changed-by-hand")
	try("rejected", "28P01", "TargetName", "pg", "SecretName", "db")
	m.mu.Lock()
	m.down = true
	m.mu.Unlock()
	try("unreachable", "", "TargetName", "pg")
	w.must(t, "CreateSecret", "SecretName", "token", "SecretData", "a bare token", "VersionId", "v1")
	w.must(t, "UpdateTarget", "TargetName", "pg", "AdminSecretName", "token")
	try("unreachable", "", "TargetName", "pg")
	if a := m.opened(); a.Account != "" || a.Secret.Reveal() != "a bare token" {
		t.Errorf("the target was opened by account %q; want a bare credential", a.Account)
	}
	w.must(t, "CreateSecret", "SecretName", "shapeless", "SecretData", `{"who":"rotator"}`, "VersionId", "v1")
	w.must(t, "UpdateTarget", "TargetName", "pg", "AdminSecretName", "shapeless")
	w.refused(t, inUse, `The secret that target "pg" names does not hold an administrator: use JSON such as`,
		"TestTarget", "TargetName", "pg")
	w.lose(t, "shapeless")
	w.refused(t, inUse,
		`The secret with the administrator of target "pg" is not there; keyturn target show pg names it, and `+
			`keyturn target update pg --admin-secret=SECRET names another.`,
		"TestTarget", "TargetName", "pg")
	delete(w.env.Kinds, "memory")
	w.refused(t, inUse, `This server has no targets of kind "memory".`, "TestTarget", "TargetName", "pg")
}

// TestTargetsAsTheyWere: what an update does not name stays, pages follow each other, and a
// description can be emptied.
func TestTargetsAsTheyWere(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.must(t, "UpdateTarget", "TargetName", "pg", "Description", "main")
	w.now = w.now.Add(time.Minute)
	w.must(t, "UpdateTarget", "TargetName", "pg", "Config", `{"address":"other.example.test"}`)
	got := w.must(t, "DescribeTarget", "TargetName", "pg").(*kms.DescribeTargetResponse)
	if got.Description != "main" ||
		got.Config != `{"address":"other.example.test"}` ||
		got.AdminSecretName != "pg-admin" ||
		got.Kind != "memory" ||
		!slices.Equal(got.Strategies, []string{"single", "double"}) || got.UpdateTime.Sub(got.CreateTime) != time.Minute {
		t.Errorf("%+v", got)
	}
	w.must(t, "UpdateTarget", "TargetName", "pg", "Description", "")
	if got := w.must(t, "DescribeTarget", "TargetName", "pg").(*kms.DescribeTargetResponse); got.Description != "" {
		t.Errorf("description %q", got.Description)
	}
	for _, name := range []string{"a", "pg2", "z"} {
		w.must(t, "RegisterTarget", "TargetName", name, "Kind", "open", "Config", toMemory)
	}
	var names []string
	for token := ""; ; {
		page := w.must(t, "ListTargets", "MaxResults", "3", "NextToken", token).(*kms.ListTargetsResponse)
		for _, row := range page.Targets {
			names = append(names, row.TargetName)
		}
		if token = page.NextToken; token == "" {
			break
		}
	}
	if strings.Join(names, " ") != "a pg pg2 z" {
		t.Errorf("listed %v", names)
	}
}

func TestRotateRefusals(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.managed(t, "stray", "SingleUser", appValue, "nowhere")
	w.managed(t, "leaving", "SingleUser", strings.Replace(appValue, `"app"`, `"left"`, 1), "pg")
	w.must(t, "DeleteSecret", "SecretName", "leaving")
	for _, action := range []string{"RotateSecret", "RehearseRotation", "EmergencyRotation"} {
		w.refused(t, notFound, `There is no secret "none"`, action, "SecretName", "none", "VersionId", "v2")
		w.refused(t, unsupported, `"gen" is not rotated yet`, action, "SecretName", "gen", "VersionId", "v2")
		w.refused(t, inWindow, "", action, "SecretName", "leaving", "VersionId", "v2")
		w.refused(t, unsupported,
			`No target "nowhere" is registered, so the credential of secret "stray" cannot be changed there; `+
				`keyturn target add nowhere --kind=KIND registers it.`, action, "SecretName", "stray", "VersionId", "v2")
		w.refused(t, exists, `Version "v1" of secret "db" was not made by a rotation; use a new version ID.`, action,
			"SecretName", "db", "VersionId", "v1")
		w.refused(t, missingOne, `"VersionId"`, action, "SecretName", "db")
	}
	for _, tt := range []struct {
		what, text string
		params     []string
	}{
		{
			"secret", "Rotations of secret db are paused; keyturn rotation resume db ends the pause.",
			[]string{"SecretName", "db"},
		},
		{
			"target", "Rotations at target pg are paused; keyturn target resume pg ends the pause.",
			[]string{"TargetName", "pg"},
		},
		{"all", "All rotations are paused; keyturn rotation resume --all ends the pause.", nil},
	} {
		w.must(t, "PauseRotation", tt.params...)
		w.refused(t, inUse, tt.text, "RotateSecret", "SecretName", "db", "VersionId", "v7")
		w.refused(t, inUse, tt.text, "RehearseRotation", "SecretName", "db", "VersionId", "v7")
		w.must(t, "EmergencyRotation", "SecretName", "db", "VersionId", "e-"+tt.what)
		if r := w.record(t, "db"); r.ID != "e-"+tt.what ||
			r.Trigger != rotation.Emergency ||
			r.Grace.Min != 0 ||
			r.State != rotation.Scheduled {
			t.Errorf("emergency while %s paused: %+v", tt.what, r)
		}
		w.inState(t, "db", rotation.Done)
		w.must(t, "ResumeRotation", tt.params...)
	}
	for _, tt := range []struct {
		state rotation.State
		text  string
	}{
		{rotation.Applying, `The rotation "v2" of secret "db" has not ended: it is in state applying.`},
		{rotation.Scheduled, `The rotation "v2" of secret "db" has not ended: it is in state scheduled.`},
		{
			rotation.InGrace,
			`The previous credential of secret "db" works until 2026-01-02T04:04:05Z; ` +
				`keyturn rotation end-grace db retires it now, keyturn rotation undo db makes it current again, ` +
				`keyturn rotation emergency db replaces both.`,
		},
		{
			rotation.Quarantined,
			`The rotation of secret "db" is quarantined: The credential was changed outside of Keyturn. ` +
				`keyturn rotation repair db explains what can be done.`,
		},
	} {
		w.inState(t, "db", tt.state)
		w.refused(t, inUse, tt.text, "RotateSecret", "SecretName", "db", "VersionId", "v3")
		w.refused(t, inUse, tt.text, "RehearseRotation", "SecretName", "db", "VersionId", "v3")
	}
	w.refused(t, inUse, "is quarantined", "EmergencyRotation", "SecretName", "db", "VersionId", "v3")
}

// TestRotateOnce: the same VersionId asks for the same rotation, while it runs and after it has
// ended.
func TestRotateOnce(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.must(t, "RotateSecret", "SecretName", "db", "VersionId", "v2")
	first := w.record(t, "db")
	if first.State != rotation.Scheduled ||
		first.ID != "v2" ||
		first.Grace.Min != time.Hour ||
		!first.StartedAt.Equal(w.now) ||
		first.Target != "pg" {
		t.Errorf("asked for: %+v", first)
	}
	out := w.must(t, "RotateSecret", "SecretName", "acs:kms:local:"+account+":secret/db",
		"VersionId", "v2").(*kms.RotateSecretResponse)
	if again := w.record(t, "db"); again.Seq != first.Seq || out.VersionID != "v2" || out.SecretName != "db" {
		t.Errorf("asked for again: %+v, answer %+v", again, out)
	}
	w.put(t, "db", func(s *secret.Secret, r *rotation.Record) {
		var err error
		if *s, err = s.Prepare(secret.Version{ID: "v2"}, w.now); err != nil {
			t.Error(err)
		}
		delete(s.Stages, secret.Pending) // no value is stored of it, so it never becomes current
		r.State, r.ID = rotation.Done, "v3"
	})
	w.must(t, "RotateSecret", "SecretName", "db", "VersionId", "v2")
	if r := w.record(t, "db"); r.State != rotation.Done {
		t.Errorf("an earlier rotation was made again: %+v", r)
	}
	// A Generic secret has versions that its producer stored; none of them is a rotation.
	w.must(t, "PutSecretValue", "SecretName", "gen", "SecretData", `{"username":"gen","password":"q"}`, "VersionId", "v2")
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg")
	w.refused(t, exists, `Version "v2" of secret "gen" was not made by a rotation`, "RotateSecret", "SecretName", "gen",
		"VersionId", "v2")
}

// TestEmergencies: one that comes while a rotation is under way joins it, or waits for its end.
func TestEmergencies(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	for _, tt := range []struct {
		state   rotation.State
		answers string // the version that will replace what leaked
		waits   bool
	}{
		{rotation.Prepared, "v2", false}, {rotation.Verified, "v2", false},
		{rotation.InGrace, "e", true}, {rotation.Retiring, "e", true}, {rotation.Undoing, "e", true},
		{rotation.Reverting, "e", true},
	} {
		w.inState(t, "double", tt.state)
		out := w.must(t, "EmergencyRotation", "SecretName", "double", "VersionId", "e").(*kms.EmergencyRotationResponse)
		r := w.record(t, "double")
		if out.VersionID != tt.answers || (r.Then != nil) != tt.waits {
			t.Errorf("in %s: answered %q, then %+v", tt.state, out.VersionID, r.Then)
		}
		if !tt.waits && (r.Trigger != rotation.Emergency || r.Grace.Min != 0) {
			t.Errorf("in %s: trigger %s, grace %v", tt.state, r.Trigger, r.Grace.Min)
		}
		if tt.waits && (r.Then.ID != "e" || r.Then.Trigger != rotation.Emergency) {
			t.Errorf("in %s: waits %+v", tt.state, r.Then)
		}
		if tt.state == rotation.InGrace && !r.NextAt.IsZero() {
			t.Errorf("in grace: goes on at %v, want now", r.NextAt)
		}
		w.put(t, "double", func(_ *secret.Secret, r *rotation.Record) { r.Then, r.TakenOverBy = nil, nil })
	}
}

// TestTakeoverIsRepeatable verifies that an emergency that has taken over a rotation answers the
// same when it is asked for again, while the rotation is under way and after its end, and begins
// nothing.
func TestTakeoverIsRepeatable(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.inState(t, "double", rotation.Applied)
	for range 2 {
		w.must(t, "EmergencyRotation", "SecretName", "double", "VersionId", "other")
	}
	for _, state := range []rotation.State{rotation.Applied, rotation.Verified, rotation.Done, rotation.Quarantined} {
		w.put(t, "double", func(_ *secret.Secret, r *rotation.Record) { r.State = state })
		before := w.record(t, "double")
		for _, id := range []string{"e", "other", "e"} {
			out := w.must(t, "EmergencyRotation", "SecretName", "double", "VersionId", id).(*kms.EmergencyRotationResponse)
			if out.VersionID != "v2" {
				t.Errorf("in %s: %s is answered with %q", state, id, out.VersionID)
			}
			if r := w.record(t, "double"); r.Seq > before.Seq+1 || r.ID != "v2" {
				t.Errorf("in %s: %s has begun rotation %s", state, id, r.ID)
			}
		}
	}
}

func TestConfigureRefusals(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.must(t, "CreateSecret", "SecretName", "app2", "SecretData", `{"username":"app","password":"x"}`, "VersionId", "v1")
	w.must(t, "ConfigureRotation", "SecretName", "db") // which now holds the account app
	w.must(t, "CreateSecret", "SecretName", "leaving", "SecretData", adminValue, "VersionId", "v1")
	w.must(t, "DeleteSecret", "SecretName", "leaving")
	w.must(t, "RegisterTarget", "TargetName", "broken", "Kind", "broken", "Config", toMemory,
		"AdminSecretName", "pg-admin")
	for _, tt := range []struct {
		code, text string
		params     []string
	}{
		{notFound, `There is no secret "none"`, []string{"SecretName", "none", "TargetName", "pg"}},
		{missingOne, `"TargetName"`, []string{"SecretName", "gen"}},
		{
			notFound, `There is no target "none"; keyturn target add none --kind=KIND registers it.`,
			[]string{"SecretName", "gen", "TargetName", "none"},
		},
		{inUse, `Target "broken" cannot be opened`, []string{"SecretName", "gen", "TargetName", "broken"}},
		{
			invalid, `a secret of type Rds names its target in ExtendedConfig: "pg".`,
			[]string{"SecretName", "db", "TargetName", "other"},
		},
		{inWindow, "", []string{"SecretName", "leaving", "TargetName", "pg"}},
		{
			exists, `The account "app" of target "pg" is rotated by secret "db" already.`,
			[]string{"SecretName", "app2", "TargetName", "pg"},
		},
		{
			inUse, `Secret "pg-admin" is the only way into target "pg"; only the strategy double may rotate an administrator.`,
			[]string{"SecretName", "pg-admin", "TargetName", "pg"},
		},
		{inUse, "it has single and double", []string{"SecretName", "gen", "TargetName", "pg", "Strategy", "overlap"}},
		{
			inUse, `names only the account "gen", and the strategy double needs a second one.`,
			[]string{"SecretName", "gen", "TargetName", "pg", "Strategy", "double"},
		},
		{
			inUse, `The value of secret "bare" does not say whose credential it is`,
			[]string{"SecretName", "bare", "TargetName", "pg", "AccountName", "one", "CloneAccountName", "two"},
		},
		{
			inUse, `Secret "db" has one account, and the strategy double needs two.`,
			[]string{"SecretName", "db", "Strategy", "double"},
		},
		{
			invalid, `the value of secret "bare" is not a JSON object, so say whose credential it is.`,
			[]string{"SecretName", "bare", "TargetName", "pg"},
		},
		{
			invalid,
			`has no member that names the account, which is usually AccountName, UserName, username, user, client_id, dn; ` +
				`name the member, or give AccountName`, []string{"SecretName", "gen", "TargetName", "pg", "AccountMember", "who"},
		},
		{
			invalid, `has no member that holds the credential, which is usually AccountPassword, `,
			[]string{"SecretName", "gen", "TargetName", "pg", "SecretMember", "word"},
		},
		{invalid, `"Strategy"`, []string{"SecretName", "gen", "TargetName", "pg", "Strategy", "triple"}},
		{invalid, "use five fields, minute hour day month weekday, or @daily", []string{"SecretName", "db", "Cron", "* * *"}},
		{invalid, "the zone goes into TimeZone.", []string{"SecretName", "db", "Cron", "TZ=UTC 0 0 * * *"}},
		{invalid, "the zone goes into TimeZone.", []string{"SecretName", "db", "Cron", "CRON_TZ=UTC 0 0 * * *"}},
		{
			invalid, "give RotationInterval or Cron, not both.",
			[]string{"SecretName", "db", "Cron", "@daily", "RotationInterval", "7d"},
		},
		{
			invalid, `time zone "Mars/North" is not known; use an IANA name such as Europe/Berlin`,
			[]string{"SecretName", "db", "TimeZone", "Mars/North"},
		},
		{invalid, `time zone "Local" is not known`, []string{"SecretName", "db", "TimeZone", "Local"}},
		{
			invalid, `window "25:00-26:00" is not like "Sat,Sun 22:00-02:00"`,
			[]string{"SecretName", "db", "Window", "25:00-26:00"},
		},
		{
			invalid, `blackout "2026-13-01" is not a day or a span of days such as`,
			[]string{"SecretName", "db", "Blackouts", "2026-13-01"},
		},
		{
			invalid, `"GracePeriod" is not valid. Use a whole number and a unit, d, h, m or s`,
			[]string{"SecretName", "db", "GracePeriod", "soon"},
		},
		{invalid, `"GracePeriod" is not valid. Use at most 31536000s.`, []string{"SecretName", "db", "GracePeriod", "366d"}},
		{invalid, "Group and GroupGap go together.", []string{"SecretName", "db", "Group", "g"}},
		{invalid, "Group and GroupGap go together.", []string{"SecretName", "db", "GroupGap", "1h"}},
		{
			invalid, `"GroupGap" is not valid. Use at most 2592000s.`,
			[]string{"SecretName", "db", "Group", "g", "GroupGap", "31d"},
		},
		{invalid, `"Group" is not valid.`, []string{"SecretName", "db", "Group", "a b", "GroupGap", "1h"}},
		{missingOne, `"RotationInterval"`, []string{"SecretName", "db", "EnableAutomaticRotation", "true"}},
		{
			invalid, "use 6h to 8760h (365d).",
			[]string{"SecretName", "db", "EnableAutomaticRotation", "true", "RotationInterval", "5h"},
		},
	} {
		w.refused(t, tt.code, tt.text, "ConfigureRotation", tt.params...)
	}
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg")
	w.must(t, "RegisterTarget", "TargetName", "pg2", "Kind", "memory", "Config", toMemory, "AdminSecretName", "pg-admin")
	w.inState(t, "gen", rotation.Applying)
	w.refused(t, inUse, `The rotation "v2" at target "pg" has not ended.`, "ConfigureRotation", "SecretName", "gen",
		"TargetName", "pg2")
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg", "GracePeriod", "0s")
}

// TestConfigure: the configuration is shown, and the account of a deleted secret is free for
// another.
func TestConfigure(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	got := w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg", "EnableAutomaticRotation", "true",
		"Cron", "0 3 * * 6", "TimeZone", "Europe/Berlin",
		"Window", "Sat 02:00-04:00", "Blackouts", "2026-01-03,2026-12-24..2027-01-02", "GracePeriod", "0s", "Group", "g",
		"GroupGap", "10m").(*kms.DescribeRotationResponse)
	if got.TargetName != "pg" ||
		got.State != "idle" ||
		got.AutomaticRotation != "Enabled" ||
		got.Cron != "0 3 * * 6" ||
		got.TimeZone != "Europe/Berlin" ||
		got.Window != "Sat 02:00-04:00" ||
		got.Blackouts != "2026-01-03,2026-12-24..2027-01-02" ||
		got.GracePeriod != "0s" ||
		got.Group != "g" ||
		got.GroupGap != "600s" ||
		got.RotationInterval != "" {
		t.Errorf("configured %+v", got)
	}
	// Saturday the third is a blackout day, so it waits for the window of the one after, at 2 in
	// Berlin.
	if want := time.Date(2026, 1, 10, 1, 0, 0, 0, time.UTC); !got.NextRotationDate.Equal(want) {
		t.Errorf("next %v, want %v", got.NextRotationDate, want)
	}
	if d := w.must(t, "DescribeSecret",
		"SecretName", "gen").(*kms.DescribeSecretResponse); d.AutomaticRotation != "Enabled" ||
		!d.NextRotationDate.Equal(got.NextRotationDate) {
		t.Errorf("DescribeSecret: %s, %v", d.AutomaticRotation, d.NextRotationDate)
	}
	w.must(t, "UpdateSecretRotationPolicy", "SecretName", "gen", "EnableAutomaticRotation", "true",
		"RotationInterval", "7d")
	if got := w.describe(t, "gen"); got.Cron != "" || got.RotationInterval != "604800s" || got.Group != "g" {
		t.Errorf("an interval after a cron expression: %+v", got)
	}
	w.must(t, "CreateSecret", "SecretName", "gen2", "SecretData", `{"username":"gen","password":"p"}`, "VersionId", "v1")
	w.refused(t, exists, `The account "gen" of target "pg" is rotated by secret "gen" already.`, "ConfigureRotation",
		"SecretName", "gen2", "TargetName", "pg")
	w.must(t, "RemoveRotation", "SecretName", "gen")
	w.must(t, "ConfigureRotation", "SecretName", "gen2", "TargetName", "pg")
	w.must(t, "PutSecretValue", "SecretName", "gen", "SecretData", "mine again", "VersionId", "v2")
	if got := w.describe(t, "gen"); got.AutomaticRotation != "Disabled" ||
		got.TargetName != "" ||
		!got.NextRotationDate.IsZero() {
		t.Errorf("removed: %+v", got)
	}
}

// TestShorterIntervals: a server may be configured to take them.
func TestShorterIntervals(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.env.Rotation.LeastInterval = time.Minute
	w.must(t, "UpdateSecretRotationPolicy", "SecretName", "db", "EnableAutomaticRotation", "true",
		"RotationInterval", "60s")
	w.refused(t, invalid, "Use 1m to 8760h (365d).", "UpdateSecretRotationPolicy", "SecretName", "db",
		"EnableAutomaticRotation", "true", "RotationInterval", "59s")
	w.refused(t, invalid, "Use 1m to 8760h (365d).", "ConfigureRotation", "SecretName", "db",
		"EnableAutomaticRotation", "true", "RotationInterval", "59s")
}

// TestAutomaticRotationInvalid: it says when the service cannot rotate, and no longer than that.
func TestAutomaticRotationInvalid(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.must(t, "UpdateSecretRotationPolicy", "SecretName", "db", "EnableAutomaticRotation", "true",
		"RotationInterval", "6h")
	is := func(want string) {
		t.Helper()
		if d := w.must(t, "DescribeSecret", "SecretName", "db").(*kms.DescribeSecretResponse); d.AutomaticRotation != want {
			t.Errorf("AutomaticRotation %s, want %s", d.AutomaticRotation, want)
		}
	}
	is("Enabled")
	w.now = w.now.Add(7 * time.Hour)
	is("Enabled")
	w.now = w.now.Add(time.Second)
	is("Invalid")
	w.must(t, "UpdateSecretRotationPolicy", "SecretName", "db", "EnableAutomaticRotation", "true",
		"RotationInterval", "6h")
	is("Enabled")
	w.put(t, "db", func(s *secret.Secret, _ *rotation.Record) { s.Rotation.Broken = true })
	is("Invalid")
}

func TestOtherRotationRefusals(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg")
	for _, tt := range []struct {
		state              rotation.State
		code, text, action string
		params             []string
	}{
		{
			rotation.Applying, inUse, `The rotation "v2" of secret "gen" has not ended.`, "RemoveRotation",
			[]string{"SecretName", "gen"},
		},
		{
			rotation.InGrace, inUse, `The rotation "v2" of secret "gen" has not ended.`, "RemoveRotation",
			[]string{"SecretName", "gen"},
		},
		{
			rotation.Idle, unsupported, "of type Rds, which is always rotated by the service", "RemoveRotation",
			[]string{"SecretName", "db"},
		},
		{rotation.Idle, notFound, `There is no secret "none"`, "RemoveRotation", []string{"SecretName", "none"}},
		{rotation.Idle, notFound, `There is no secret "none"`, "DescribeRotation", []string{"SecretName", "none"}},
		{
			rotation.Idle, invalid, fmt.Sprintf("Use one of %s", rotation.States()),
			"ListRotations", []string{"State", "asleep"},
		},
		{rotation.Idle, invalid, "Use the token of the page before", "ListRotations", []string{"NextToken", "?"}},
		{
			rotation.Idle, invalid, "Give SecretName or TargetName, not both.", "PauseRotation",
			[]string{"SecretName", "gen", "TargetName", "pg"},
		},
		{
			rotation.Idle, invalid, "Give SecretName or TargetName, not both.", "ResumeRotation",
			[]string{"SecretName", "gen", "TargetName", "pg"},
		},
		{rotation.Idle, notFound, `There is no secret "none"`, "PauseRotation", []string{"SecretName", "none"}},
		{rotation.Idle, notFound, `There is no target "none"`, "PauseRotation", []string{"TargetName", "none"}},
		{rotation.Idle, unsupported, `"bare" is not rotated yet`, "PauseRotation", []string{"SecretName", "bare"}},
		{
			rotation.Done, inUse, `The rotation of secret "gen" is in state done: it has no grace period now.`,
			"EndRotationGrace", []string{"SecretName", "gen"},
		},
		{
			rotation.Retiring, inUse, "is in state retiring: it has no grace period now.", "EndRotationGrace",
			[]string{"SecretName", "gen"},
		},
		{rotation.Done, unsupported, `"bare" is not rotated yet`, "EndRotationGrace", []string{"SecretName", "bare"}},
		{
			rotation.Done, inUse,
			"is in state done: the previous credential works only in the grace period of the strategies overlap and double.",
			"UndoRotation", []string{"SecretName", "gen"},
		},
		{
			rotation.Done, inUse,
			"nothing is quarantined, and no step of it has failed. keyturn rotation probe gen checks",
			"RepairRotation", []string{"SecretName", "gen", "RepairAction", "probe"},
		},
		{
			rotation.Unknown, inUse,
			"is in state unknown: nothing is quarantined. keyturn rotation cancel gen takes", "RepairRotation",
			[]string{"SecretName", "gen", "RepairAction", "apply"},
		},
		{
			rotation.Quarantined, invalid, `"RepairAction"`, "RepairRotation",
			[]string{"SecretName", "gen", "RepairAction", "pray"},
		},
		{
			rotation.Quarantined, missingOne, `"SecretData"`, "RepairRotation",
			[]string{"SecretName", "gen", "RepairAction", "adopt", "VersionId", "v5"},
		},
		{
			rotation.Quarantined, missingOne, `"VersionId"`, "RepairRotation",
			[]string{"SecretName", "gen", "RepairAction", "adopt", "SecretData", "x"},
		},
		{
			rotation.Quarantined, invalid,
			"It does not have the shape of the secret's values: an account and its credential under the same members",
			"RepairRotation", []string{"SecretName", "gen", "RepairAction", "adopt", "SecretData", "x", "VersionId", "v5"},
		},
		{
			rotation.Quarantined, inUse,
			`Target "pg" does not accept this credential: log in as gen: password authentication failed (28P01)`,
			"RepairRotation",
			[]string{
				"SecretName", "gen", "RepairAction", "adopt", "SecretData", `{"username":"gen","password":"wrong"}`, "VersionId",
				"v5",
			},
		},
		{
			rotation.InGrace, inUse, "is in state grace: nothing is quarantined. The new credential is current.",
			"RepairRotation",
			[]string{"SecretName", "gen", "RepairAction", "apply"},
		},
		{
			rotation.Done, inUse, `The rotation of secret "gen" is in state done: nothing is quarantined.`, "RepairRotation",
			[]string{
				"SecretName", "gen", "RepairAction", "adopt", "SecretData", `{"username":"gen","password":"p"}`, "VersionId", "v5",
			},
		},
		{
			rotation.Quarantined, exists, `already has version "v1" with another value; use a new version ID.`, "RepairRotation",
			[]string{
				"SecretName", "gen", "RepairAction", "adopt", "SecretData", `{"password":"p","username":"gen"}`, "VersionId", "v1",
			},
		},
	} {
		w.now = w.now.Add(rotation.LoginWindow)
		w.inState(t, "gen", tt.state)
		w.refused(t, tt.code, tt.text, tt.action, tt.params...)
	}
	w.managed(t, "stray", "SingleUser", appValue, "nowhere")
	w.inState(t, "stray", rotation.Quarantined)
	w.refused(t, notFound, `There is no target "nowhere"`, "RepairRotation", "SecretName", "stray",
		"RepairAction", "adopt", "SecretData", appValue, "VersionId", "v5")
	w.refused(t, invalid, `{"Accounts":[{"AccountName":"…","AccountPassword":"…"}]}`, "RepairRotation",
		"SecretName", "stray", "RepairAction", "adopt", "SecretData", `{"AccountName":"app"}`, "VersionId", "v5")
}

// TestWhatPeopleAskFor: each request leads from its state to the next one.
func TestWhatPeopleAskFor(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	for _, tt := range []struct {
		from   rotation.State
		action string
		params []string
		to     rotation.State
	}{
		{rotation.InGrace, "EndRotationGrace", nil, rotation.InGrace},
		{rotation.InGrace, "UndoRotation", nil, rotation.Undoing},
		{rotation.Quarantined, "RepairRotation", []string{"RepairAction", "probe"}, rotation.Unknown},
		{rotation.Quarantined, "RepairRotation", []string{"RepairAction", "apply"}, rotation.Prepared},
	} {
		w.inState(t, "double", tt.from)
		w.put(t, "double", func(s *secret.Secret, r *rotation.Record) { r.Candidate, r.Accepted = "v1", "v1" })
		w.must(t, tt.action, append([]string{"SecretName", "double"}, tt.params...)...)
		r := w.record(t, "double")
		if r.State != tt.to || r.Wake().After(w.now) {
			t.Errorf("%s %v: %s, goes on at %v; want %s at once", tt.action, tt.params, r.State, r.Wake(), tt.to)
		}
	}
	w.inState(t, "gen", rotation.Idle)
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg")
	w.inState(t, "gen", rotation.Quarantined)
	w.must(t, "RemoveRotation", "SecretName", "gen") // an operator may give it up
	if got := w.describe(t, "gen"); got.State != "idle" || got.TargetName != "" {
		t.Errorf("removed while quarantined: %+v", got)
	}
}

// TestCancel: what was never sent ends at once, what was is left to the engine, and what the target
// may have is not given up.
func TestCancel(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.must(t, "UpdateSecretRotationPolicy", "SecretName", "db", "EnableAutomaticRotation", "true",
		"RotationInterval", "7d")
	planned := w.record(t, "db").Due
	prepared := func(attempt int, strategy target.Strategy, trigger rotation.Trigger) {
		t.Helper()
		w.put(t, "db", func(s *secret.Secret, r *rotation.Record) {
			if _, there := s.Stages[secret.Pending]; !there {
				var err error
				if *s, err = s.Prepare(secret.Version{ID: fmt.Sprintf("v%d", s.LastOrder+1)}, w.now); err != nil {
					t.Error(err)
				}
			}
			r.ID = "v2"
			r.State = rotation.Prepared
			r.Mode = rotation.Rotate
			r.Trigger = trigger
			r.Strategy = strategy
			r.Candidate = s.Stages[secret.Pending]
			r.Base = "v1"
			r.Attempt, r.NextAt, r.Cancelled = attempt, w.now.Add(time.Minute), false
		})
	}
	pending := func() string {
		t.Helper()
		list := w.must(t, "ListSecretVersionIds", "SecretName", "db").(*kms.ListSecretVersionIdsResponse)
		for _, v := range list.VersionIDs {
			if slices.Contains(v.VersionStages, string(secret.Pending)) {
				return v.VersionID
			}
		}
		return ""
	}
	for _, trigger := range []rotation.Trigger{rotation.Manual, rotation.Automatic} {
		prepared(0, target.Single, trigger)
		got := w.must(t, "CancelRotation", "SecretName", "db").(*kms.DescribeRotationResponse)
		r := w.record(t, "db")
		if got.State != "abandoned" ||
			got.Reason != "Cancelled by an operator." ||
			got.Advice != "" ||
			pending() != "" ||
			!r.Due.Equal(planned) ||
			!got.NextRotationDate.Equal(planned) {
			t.Errorf("cancelled before an attempt: %+v, due %s, want %s; pending %q", got, r.Due, planned, pending())
		}
		w.refused(t, inUse,
			`The rotation of secret "db" is in state abandoned and cannot be cancelled: nothing is under way.`, "CancelRotation",
			"SecretName", "db")
	}
	prepared(1, target.Single, rotation.Manual)
	for range 2 {
		got := w.must(t, "CancelRotation", "SecretName", "db").(*kms.DescribeRotationResponse)
		if r := w.record(t, "db"); got.State != "prepared" ||
			got.Reason != "Cancelled by an operator." ||
			got.Advice == "" ||
			r.Wake().After(w.now) ||
			pending() == "" {
			t.Errorf("cancelled after an attempt: %+v, goes on at %s; pending %q", got, r.Wake(), pending())
		}
	}
	w.must(t, "EmergencyRotation", "SecretName", "db", "VersionId", "e1")
	if r := w.record(t, "db"); r.Then == nil || r.Then.ID != "e1" || r.Trigger != rotation.Manual || !r.Cancelled {
		t.Errorf("an emergency beside what is cancelled: %+v; want one that follows", r)
	}
	prepared(1, target.Double, rotation.Manual)
	if got := w.must(t, "CancelRotation", "SecretName", "db").(*kms.DescribeRotationResponse); got.State != "reverting" ||
		pending() == "" {
		t.Errorf("cancelled after an attempt, two accounts: %+v, pending %q", got, pending())
	}
	for _, tt := range []struct {
		state rotation.State
		text  string
	}{
		{rotation.InGrace, "keyturn rotation undo db makes the previous one current again, keyturn rotation end-grace db"},
		{rotation.Quarantined, "keyturn rotation repair db explains what was found and what can be done."},
	} {
		w.inState(t, "db", tt.state)
		w.refused(t, inUse, tt.text, "CancelRotation", "SecretName", "db")
	}
	for from, want := range map[rotation.State]rotation.State{
		rotation.Applying: rotation.Applying,
		rotation.Unknown:  rotation.Unknown,
		rotation.Applied:  rotation.Reverting,
		rotation.Verified: rotation.Reverting,
		rotation.Undoing:  rotation.InGrace,
		rotation.Retiring: rotation.Done,
	} {
		w.inState(t, "db", from)
		got := w.must(t, "CancelRotation", "SecretName", "db").(*kms.DescribeRotationResponse)
		if got.State != string(want) {
			t.Errorf("cancelled in %s: %s, want %s", from, got.State, want)
		}
	}
	w.refused(t, unsupported, `"bare" is not rotated yet`, "CancelRotation", "SecretName", "bare")
	w.refused(t, notFound, `There is no secret "none"`, "CancelRotation", "SecretName", "none")
}

// TestGraceLimits: how long a grace waits for consumers, by the server's settings and the secret's
// own; and what DescribeRotation says of both.
func TestGraceLimits(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	for n, tt := range []struct {
		grace, limit string
		want         [2]time.Duration
	}{
		{"", "", [2]time.Duration{time.Hour, 24 * time.Hour}},
		{"2d", "", [2]time.Duration{48 * time.Hour, 48 * time.Hour}},
		{"0s", "", [2]time.Duration{0, 0}},
		{"0s", "10m", [2]time.Duration{0, 10 * time.Minute}},
		{"", "10m", [2]time.Duration{time.Hour, time.Hour}},
		{"5m", "0s", [2]time.Duration{5 * time.Minute, 5 * time.Minute}},
	} {
		params := []string{
			"SecretName", "gen", "TargetName", "pg", "Strategy", "single", "AccountMember", "username", "SecretMember",
			"password", "AccountName", "gen", "CloneAccountName", "two", "Replace", "true",
		}
		if tt.grace != "" {
			params = append(params, "GracePeriod", tt.grace)
		}
		if tt.limit != "" {
			params = append(params, "GraceLimit", tt.limit)
		}
		w.must(t, "ConfigureRotation", params...)
		w.must(t, "RotateSecret", "SecretName", "gen", "VersionId", fmt.Sprintf("r%d", n))
		r := w.record(t, "gen")
		if got := [2]time.Duration{r.Grace.Min, r.Grace.Max}; got != tt.want {
			t.Errorf("grace %q, limit %q: %v, want %v", tt.grace, tt.limit, got, tt.want)
		}
		d := w.describe(t, "gen")
		if d.ConfiguredStrategy != "single" ||
			d.AccountMember != "username" ||
			d.SecretMember != "password" ||
			d.AccountName != "gen" ||
			d.CloneAccountName != "two" {
			t.Errorf("described as %+v", d)
		}
		w.must(t, "EmergencyRotation", "SecretName", "gen", "VersionId", fmt.Sprintf("e%d", n))
		if r := w.record(t, "gen"); r.Grace.Min != 0 || r.Grace.Max != 0 {
			t.Errorf("an emergency has a grace of %s, and waits for %s", r.Grace.Min, r.Grace.Max)
		}
		w.inState(t, "gen", rotation.Done)
	}
	w.refused(t, invalid, "Use at most 31536000s.", "ConfigureRotation", "SecretName", "gen", "TargetName", "pg",
		"GraceLimit", "366d")
	w.refused(t, invalid, `"GraceLimit"`, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg",
		"GraceLimit", "soon")
}

// TestEmergencyDryRun: it says whom an emergency breaks, and of whom nothing is known, is refused
// as the emergency would be, and changes nothing.
func TestEmergencyDryRun(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.env.Consumers = api.NewConsumers(w.env.DB, w.env.Now, slog.New(slog.DiscardHandler))
	read := func(source string) {
		t.Helper()
		if _, err := w.by(t.Context(), rootPrincipal, source, "GetSecretValue", "SecretName", "db"); err != nil {
			t.Fatal(err)
		}
	}
	read("192.0.2.1")
	w.now = w.now.Add(time.Hour)
	read("192.0.2.2")
	before := w.record(t, "db")
	for range 2 {
		out := w.must(t, "EmergencyRotation", "SecretName", "db", "VersionId", "v2",
			"DryRun", "true").(*kms.EmergencyRotationResponse)
		if !out.DryRun ||
			out.CurrentVersionID != "v1" ||
			out.BreakingCount != 1 ||
			len(out.Breaking) != 1 ||
			out.Breaking[0].Source != "192.0.2.2" ||
			out.UnknownCount != 1 || len(out.Unknown) != 1 || out.Unknown[0].Source != "192.0.2.1" {
			t.Errorf("a dry run says %+v", out)
		}
	}
	if after := w.record(t, "db"); after.Seq != before.Seq {
		t.Errorf("a dry run has changed the record: %+v", after)
	}
	w.refused(t, exists, "was not made by a rotation", "EmergencyRotation", "SecretName", "db", "VersionId", "v1",
		"DryRun", "true")
	w.inState(t, "db", rotation.Quarantined)
	w.refused(t, inUse, "is quarantined", "EmergencyRotation", "SecretName", "db", "VersionId", "v5", "DryRun", "true")
	w.inState(t, "db", rotation.Done)
	if out := w.must(t, "EmergencyRotation", "SecretName", "db",
		"VersionId", "v3").(*kms.EmergencyRotationResponse); out.DryRun ||
		out.BreakingCount != 0 ||
		w.record(t, "db").ID != "v3" {
		t.Errorf("the emergency itself: %+v", out)
	}
}

// TestDescribeSaysWhetherAnEmergencyBegins verifies for quarantines that EmergencyPossible is what
// an emergency meets.
func TestDescribeSaysWhetherAnEmergencyBegins(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	interrupted := func(state rotation.State, strategy target.Strategy) *rotation.Interrupted {
		return &rotation.Interrupted{State: state, Strategy: strategy, Base: "v1"}
	}
	for _, tt := range []struct {
		mode        rotation.Mode
		interrupted *rotation.Interrupted
		want        bool
	}{
		{rotation.Rotate, nil, false},
		{rotation.Reapply, nil, true},
		{rotation.Reapply, interrupted(rotation.InGrace, target.Overlap), false},
		{rotation.Reapply, interrupted(rotation.Retiring, target.Overlap), false},
		{rotation.Reapply, interrupted(rotation.InGrace, target.Double), true},
	} {
		w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) {
			r.State, r.Mode, r.Strategy, r.Interrupted = rotation.Quarantined, tt.mode, target.Overlap, tt.interrupted
		})
		got := w.describe(t, "db").EmergencyPossible
		_, err := w.by(t.Context(), rootPrincipal, "192.0.2.1",
			"EmergencyRotation", "SecretName", "db", "VersionId", "e1", "DryRun", "true")
		if got != tt.want || (err == nil) != tt.want {
			t.Errorf("%s, %+v: %v, and the emergency: %v", tt.mode, tt.interrupted, got, err)
		}
	}
	if w.describe(t, "bare").EmergencyPossible {
		t.Error("an emergency of a secret that is not rotated")
	}
}

// TestRepairActionsAreThoseTaken verifies that RepairActions has apply exactly where RepairRotation
// takes it, also where the target was registered again.
func TestRepairActionsAreThoseTaken(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	for _, again := range []bool{true, false} {
		w.inState(t, "db", rotation.Quarantined)
		w.put(t, "db", func(s *secret.Secret, r *rotation.Record) {
			r.Accepted = r.Candidate
			if again {
				s.Rotation.Binding.Target += "-former"
			} else {
				s.Rotation.Binding.Target = strings.TrimSuffix(s.Rotation.Binding.Target, "-former")
			}
		})
		listed := slices.Contains(w.describe(t, "db").RepairActions, kms.RepairApply)
		_, err := w.by(t.Context(), rootPrincipal, "192.0.2.1",
			"RepairRotation", "SecretName", "db", "RepairAction", kms.RepairApply)
		if listed == again || (err == nil) != listed {
			t.Errorf("registered again: %v; apply is listed: %v, and answers %v", again, listed, err)
		}
	}
}

// TestDoubt: after a restore each credential is probed now, except for credentials about which no
// target can be asked; a rotation that was under way goes on, and it is done once.
func TestDoubt(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.managed(t, "leaving", "SingleUser", strings.Replace(appValue, `"app"`, `"left"`, 1), "pg")
	w.must(t, "DeleteSecret", "SecretName", "leaving")
	key := w.accessKey(t)
	later := w.now.Add(time.Hour)
	for _, name := range []string{"db", "double", "leaving"} {
		w.put(t, name, func(_ *secret.Secret, r *rotation.Record) {
			r.Health = rotation.Health{ProbedAt: w.now, Live: true, NextAt: later}
		})
	}
	w.put(t, "double", func(s *secret.Secret, r *rotation.Record) {
		r.State, r.Strategy, r.NextAt = rotation.Verified, target.Single, later
		s.Rotation.Hold = true
	})
	lead, err := w.env.DB.Lead(t.Context(), "node", w.env.Now)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.env.DB.SetRestored(t.Context(), store.Restored{At: w.now, Why: "a test"}); err != nil {
		t.Fatal(err)
	}
	for _, token := range []int64{lead.Token - 1, lead.Token} {
		e := w.gate.Engine(token)
		r, ok, err := e.Restored(t.Context())
		if err != nil || !ok || r.Why != "a test" {
			t.Fatalf("restored: %+v, %t, %v", r, ok, err)
		}
		if _, err = e.Doubt(t.Context(), r); (err == nil) != (token == lead.Token) {
			t.Errorf("by the engine with the token %d of %d: %v", token, lead.Token, err)
		}
	}
	if _, ok, err := w.gate.Engine(lead.Token).Restored(t.Context()); ok || err != nil {
		t.Errorf("after it was done it is still to be done: %v", err)
	}
	now := rotation.Health{NextAt: w.now}
	if r := w.record(t, "db"); r.Health != now ||
		r.Wake().After(w.now) ||
		w.describe(t, "db").CredentialState != "unknown" {
		t.Errorf("db: %+v", r)
	}
	if r := w.record(t, "double"); r.Health != now || r.State != rotation.Applied || !r.NextAt.IsZero() {
		t.Errorf("double, which was about to be promoted: %+v", r)
	}
	if r := w.record(t, "leaving"); !r.Health.NextAt.Equal(later) {
		t.Errorf("leaving: %+v", r)
	}
	if r := w.describe(t, key); r.ProbePending || r.ProbeSkippedCode != kms.SkippedAccessKey || len(r.Steps) > 0 {
		t.Errorf("an access key: pending %t, skipped: %q, steps %+v", r.ProbePending, r.ProbeSkipped, r.Steps)
	}
}

// TestAdopt: a value that the target accepts becomes current, the pending label goes, and rotations
// are planned again.
func TestAdopt(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	w.must(t, "UpdateSecretRotationPolicy", "SecretName", "db", "EnableAutomaticRotation", "true",
		"RotationInterval", "7d")
	w.put(t, "db", func(s *secret.Secret, r *rotation.Record) {
		var err error
		if *s, err = s.Prepare(secret.Version{ID: "v2"}, w.now); err != nil {
			t.Error(err)
		}
		s.Rotation.Broken, s.Rotation.Hold = true, true
		r.ID = "v2"
		r.State = rotation.Quarantined
		r.Mode = rotation.Rotate
		r.Strategy = target.Single
		r.Candidate = "v2"
		r.Base = "v1"
	})
	m.set("app", "by-hand")
	got := w.must(t, "RepairRotation", "SecretName", "db", "RepairAction", "adopt",
		"SecretData", strings.Replace(appValue, "the-applications-password", "by-hand", 1),
		"VersionId", "v3").(*kms.DescribeRotationResponse)
	if got.State != "done" ||
		got.CredentialState != "live" ||
		got.CandidateVersionID != "v3" ||
		got.AutomaticRotation != "Enabled" ||
		got.NextRotationDate.IsZero() {
		t.Errorf("adopted: %+v", got)
	}
	value := w.must(t, "GetSecretValue", "SecretName", "db").(*kms.GetSecretValueResponse)
	if value.VersionID != "v3" || value.SecretData.Reveal() != `{"AccountName":"app","AccountPassword":"by-hand"}` {
		t.Errorf("current is %s", value.VersionID)
	}
	if previous := w.must(t, "GetSecretValue", "SecretName", "db", "VersionStage",
		"ACSPrevious").(*kms.GetSecretValueResponse); previous.VersionID != "v1" {
		t.Errorf("previous is %s", previous.VersionID)
	}
	w.refused(t, notFound, `no label "ACSPending"`, "GetSecretValue", "SecretName", "db", "VersionStage", "ACSPending")
	w.must(t, "RotateSecret", "SecretName", "db", "VersionId", "v4")
}

// TestAdoptRefusesALeakedCredential verifies that a credential which an emergency replaces is not
// adopted, also not in another form that the target takes for the same.
func TestAdoptRefusesALeakedCredential(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	w.shows(m)
	w.inState(t, "db", rotation.Quarantined)
	w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) {
		r.Mode, r.Candidate, r.Base, r.Target, r.Strategy = rotation.Reapply, "v2", "v2", "pg", target.Single
		r.Interrupted = &rotation.Interrupted{
			State: rotation.Retiring, Trigger: rotation.Emergency, Strategy: target.Double, Base: "v1",
		}
	})
	for _, form := range []string{"the-applications-password", "The-Applications-Password"} {
		m.set("app", form)
		w.now = w.now.Add(time.Hour)
		w.refused(t, kms.CodeResourceInUse, "because it may have leaked", "RepairRotation", "SecretName", "db",
			"RepairAction", "adopt", "SecretData", strings.Replace(appValue, "the-applications-password", form, 1),
			"VersionId", "v3")
	}
}

// TestAdoptTakesTheCredentialAlone verifies that a caller who may repair a rotation, and may not
// write the secret, changes no member of its value but the credential, and no account.
func TestAdoptTakesTheCredentialAlone(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	w.must(t, "CreateSecret", "SecretName", "host", "VersionId", "v1",
		"SecretData", `{"username":"gen","password":"p","Host":"db.internal","Port":5432}`)
	w.must(t, "ConfigureRotation", "SecretName", "host", "TargetName", "pg")
	m.set("gen", "by-hand")
	m.set("evil", "of-the-attacker")
	adopt := func(value string) []string {
		return []string{"SecretName", "host", "RepairAction", "adopt", "VersionId", "v3", "SecretData", value}
	}
	w.inState(t, "host", rotation.Quarantined)
	w.refused(t, invalid, "for an account that secret \"host\" does not hold", "RepairRotation",
		adopt(`{"username":"evil","password":"of-the-attacker"}`)...)
	failed := w.now.Add(-time.Second)
	w.put(t, "host", func(_ *secret.Secret, r *rotation.Record) { r.LoginFailedAt = failed })
	w.must(t, "RepairRotation", adopt(`{"username":"gen","password":"by-hand","Host":"evil.example","More":"x"}`)...)
	w.put(t, "host", func(_ *secret.Secret, r *rotation.Record) {
		if !r.LoginFailedAt.Equal(failed) {
			t.Errorf("the last failed login is said to be at %v, want %v: the engine would cause another one in its window",
				r.LoginFailedAt, failed)
		}
	})
	value := w.must(t, "GetSecretValue", "SecretName", "host").(*kms.GetSecretValueResponse)
	want := `{"Host":"db.internal","Port":5432,"password":"by-hand","username":"gen"}`
	if got := value.SecretData.Reveal(); got != want || value.VersionID != "v3" {
		t.Errorf("version %s is current: %s", value.VersionID, got)
	}
}

// TestAdoptGuessesFew verifies that a caller who may repair a rotation cannot guess passwords with
// it: three are tried at the target, a login window apart, and then one in each interval, whichever
// calls come at the same time and whether or not the rotation is configured again.
func TestAdoptGuessesFew(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg")
	w.inState(t, "gen", rotation.Quarantined)
	const every = 10 * time.Minute
	begin := w.now
	tried := func() int { return m.logins("gen") }
	before := tried()
	throttled := 0
	guess := func() {
		_, err := w.call(t, rootPrincipal, "RepairRotation", "SecretName", "gen", "RepairAction", "adopt", "VersionId", "v3",
			"SecretData", fmt.Sprintf(`{"username":"gen","password":"guess-%d"}`, throttled))
		if fault.KindOf(err) == fault.Throttled {
			throttled++
		}
	}
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			_, _ = w.call(t, rootPrincipal, "RepairRotation", "SecretName", "gen", "RepairAction", "adopt", "VersionId", "v3",
				"SecretData", `{"username":"gen","password":"guess"}`)
		})
	}
	all.Wait()
	if n := tried() - before; n != 1 {
		t.Errorf("ten guesses at the same time cause %d logins", n)
	}
	var last time.Time
	for w.now.Before(begin.Add(4 * every)) {
		w.now = w.now.Add(10 * time.Second)
		n := tried()
		guess()
		if tried() == n {
			continue
		}
		if !last.IsZero() && w.now.Sub(last) < rotation.LoginWindow {
			t.Errorf("two logins within %s", w.now.Sub(last))
		}
		last = w.now
		w.put(t, "gen", func(_ *secret.Secret, r *rotation.Record) {
			if !r.LoginFailedAt.Equal(w.now) {
				t.Errorf("the engine does not wait after a guess: %v", r.LoginFailedAt)
			}
		})
	}
	if n := tried() - before; n != 3+4 || throttled == 0 {
		t.Errorf("%d logins in %s, %d calls throttled", n, 4*every, throttled)
	}
	w.inState(t, "gen", rotation.Done)
	w.must(t, "RemoveRotation", "SecretName", "gen")
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg")
	w.inState(t, "gen", rotation.Quarantined)
	n := tried()
	if guess(); tried() != n {
		t.Error("a rotation that is configured again gives another guess")
	}
}

// TestListRotations: what is listed is what is rotated, by state and by target, also before the
// first rotation.
func TestListRotations(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg")
	w.managed(t, "elsewhere", "SingleUser", appValue, "other")
	w.inState(t, "double", rotation.Quarantined)
	w.must(t, "PauseRotation", "SecretName", "db")
	for params, want := range map[string]string{
		"": "db double elsewhere gen", "State=idle": "db elsewhere gen", "State=quarantined": "double", "State=done": "",
		"TargetName=pg":            "db double gen",
		"TargetName=other":         "elsewhere",
		"State=idle TargetName=pg": "db gen",
		"TargetName=none":          "",
	} {
		var names []string
		for token := ""; ; {
			var list []string
			for _, p := range strings.Fields(params) {
				name, value, _ := strings.Cut(p, "=")
				list = append(list, name, value)
			}
			page := w.must(t, "ListRotations",
				append(list, "MaxResults", "1", "NextToken", token)...).(*kms.ListRotationsResponse)
			for _, row := range page.Rotations {
				names = append(names, row.SecretName)
				if row.Paused != (row.SecretName == "db") {
					t.Errorf("%s: paused %t", row.SecretName, row.Paused)
				}
			}
			if token = page.NextToken; token == "" {
				break
			}
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %q, want %q", params, got, want)
		}
	}
}

// TestBlockedReads: while the one credential of a secret is being changed, a read of the current
// version waits for the end or for the bound, whichever comes first; other reads do not wait.
func TestBlockedReads(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.env.Rotation.ReadWait = 20 * time.Millisecond
	w.put(t, "db", func(s *secret.Secret, _ *rotation.Record) { s.Rotation.Hold = true })
	w.refused(t,
		"ServiceUnavailableTemporary",
		`The credential in secret "db" is being changed at its target, and its state there is not known yet; `+
			"try again. If this lasts, keyturn rotation status db shows what an operator can do.",
		"GetSecretValue", "SecretName", "db")
	w.must(t, "GetSecretValue", "SecretName", "double")
	w.must(t, "DescribeSecret", "SecretName", "db")

	w.env.Rotation.ReadWait = 20 * time.Second
	answers := make(chan error, 1)
	go func() {
		_, err := w.call(t, rootPrincipal, "GetSecretValue", "SecretName", "db")
		answers <- err
	}()
	w.put(t, "db", func(s *secret.Secret, _ *rotation.Record) { s.Rotation.Hold = false })
	if err := <-answers; err != nil {
		t.Errorf("a read that was held and let go: %v", err)
	}
	w.put(t, "db", func(s *secret.Secret, _ *rotation.Record) { s.Rotation.Hold = true })
	go func() {
		_, err := w.call(t, rootPrincipal, "GetSecretValue", "SecretName", "db")
		answers <- err
	}()
	w.must(t, "DeleteSecret", "SecretName", "db", "ForceDeleteWithoutRecovery", "true")
	if err := <-answers; fault.KindOf(err) != fault.NotFound {
		t.Errorf("a read that was held until the secret was deleted: %v", err)
	}
}

// TestOwnUsersNeedNoTarget: the target of an access key is this service. Its repair asks no target
// else.
func TestOwnUsersNeedNoTarget(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	name := w.accessKey(t)
	if out := w.must(t, "ProbeRotation").(*kms.ProbeRotationResponse); out.Asked != 2 || out.NotAsked != 1 {
		t.Errorf("a probe of all: %+v, want 2 and the access key skipped", out)
	}
	for _, r := range w.must(t, "ListRotations").(*kms.ListRotationsResponse).Rotations {
		if own := r.SecretName == name; own != strings.Contains(r.ProbeSkipped, "access key") || own == r.ProbePending {
			t.Errorf("after a probe of all: %+v", r)
		}
	}
	w.must(t, "RotateSecret", "SecretName", name, "VersionId", "v2")
	w.refused(t, notFound, `There is no target "ram"`, "PauseRotation", "TargetName", "ram")
	w.inState(t, name, rotation.Quarantined)
	w.refused(t, inUse, `Target "ram" does not accept this credential: the access key of user "robot" does not exist`,
		"RepairRotation", "SecretName", name,
		"RepairAction", "adopt", "VersionId", "v3",
		"SecretData", `{"AccessKeys":[{"AccessKeyId":"KTnone","AccessKeySecret":"y"}]}`)
	w.refused(t, invalid, `{"AccessKeys":[{"AccessKeyId":"…","AccessKeySecret":"…"}]}`, "RepairRotation",
		"SecretName", name, "RepairAction", "adopt", "VersionId", "v3", "SecretData", "x")
}

// TestConfigureAfterARotation: a value holds one account once there was a rotation of two; the
// version before names the other.
func TestConfigureAfterARotation(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.must(t, "CreateSecret", "SecretName", "turns", "SecretData", "plain, from a time before it was rotated",
		"VersionId", "v1")
	w.must(t, "PutSecretValue", "SecretName", "turns", "SecretData", `{"username":"x","password":"p"}`, "VersionId", "v2")
	w.refused(t, inUse, `names only the account "x", and the strategy double needs a second one.`, "ConfigureRotation",
		"SecretName", "turns", "TargetName", "pg", "Strategy", "double")
	w.must(t, "PutSecretValue", "SecretName", "turns", "SecretData", `{"username":"y","password":"p"}`, "VersionId", "v3")
	w.must(t, "ConfigureRotation", "SecretName", "turns", "TargetName", "pg", "Strategy", "double")
}

// TestUpdateTargetAtOnce: between the decision and the change another caller gives the target
// another administrator, to whose secret the caller may have no right. It is not sent to the
// caller's address.
func TestUpdateTargetAtOnce(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.must(t, "CreateSecret", "SecretName", "guarded", "SecretData", adminValue, "VersionId", "v1")
	w.trail.between = func(r audit.Record) {
		if r.Operation == "UpdateTarget" && r.Phase == audit.Intent {
			w.trail.between = nil
			w.must(t, "UpdateTarget", "TargetName", "pg", "AdminSecretName", "guarded")
		}
	}
	w.refused(t, inUse, `Target "pg" has changed at this moment`, "UpdateTarget", "TargetName", "pg",
		"Config", `{"address":"mine.example.test"}`)
	if got := w.must(t, "DescribeTarget", "TargetName", "pg").(*kms.DescribeTargetResponse); got.Config != toMemory ||
		got.AdminSecretName != "guarded" {
		t.Errorf("the target is at %s with %s", got.Config, got.AdminSecretName)
	}
}

// TestEarlierReleaseStaysBound verifies that secrets and targets of a release before bindings go on
// rotating, and that a target which is registered anew gets nothing of them.
func TestEarlierReleaseStaysBound(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.put(t, "db", func(s *secret.Secret, _ *rotation.Record) { s.Rotation.Binding = nil })
	setID := func(id string) {
		t.Helper()
		err := store.Do(t.Context(), w.env.DB, func(tx *store.Tx) error {
			g, _, err := tx.Target(account, "pg")
			g.ID = id
			return errors.Join(err, tx.PutTarget(g))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	registered := func() bool {
		t.Helper()
		turn, ok, err := w.gate.Engine(0).Load(t.Context(), account, "db")
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		_, err = turn.Open()
		return err == nil
	}
	if registered() {
		t.Error("a secret without a binding goes to a target that was registered with an ID")
	}
	setID("")
	if !registered() {
		t.Error("a secret and a target of an earlier release are no longer bound")
	}
	w.must(t, "RotateSecret", "SecretName", "db", "VersionId", "v2")
	setID("tgt-another")
	if registered() {
		t.Error("a secret that was bound without an ID goes to a target that was registered anew")
	}
}

// TestNewSecretOfAName verifies that a secret gets nothing of the rotation of one that had its name
// and whose deletion was planned, also before that one was purged.
func TestNewSecretOfAName(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) {
		r.Accepted, r.Paused, r.Reason = "v1", true, "of the former secret"
	})
	w.must(t, "DeleteSecret", "SecretName", "db", "RecoveryWindowInDays", "7")
	w.now = w.now.Add(8 * 24 * time.Hour)
	w.managed(t, "db", "SingleUser", appValue, "pg")
	if r := w.record(t, "db"); r.Accepted != "" || r.Paused || r.Reason != "" {
		t.Errorf("the record of the former secret stays: %+v", r)
	}
}
