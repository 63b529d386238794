package api_test

import (
	"bytes"
	"context"
	"crypto/rand"
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
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/users"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sign"
)

const account = "1234567890123456"

// recorder keeps records in memory, and can be made to refuse the records of one phase.
type recorder struct {
	mu      sync.Mutex
	records []audit.Record // guarded by mu
	durable []bool         // guarded by mu
	refuse  audit.Phase    // guarded by mu

	between func(audit.Record) // called before each record; nil for nothing. Set before the calls.
}

func (r *recorder) Append(_ context.Context, rec audit.Record, durable bool) error {
	if r.between != nil {
		r.between(rec)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec.Phase == r.refuse {
		return errors.New("disk full")
	}
	r.records, r.durable = append(r.records, rec), append(r.durable, durable)
	return nil
}

func (r *recorder) refusing(p audit.Phase) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse, r.records, r.durable = p, nil, nil
}

// has reports whether the trail has an operation on a secret.
func (r *recorder) has(operation, name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.records, func(rec audit.Record) bool {
		return rec.Operation == operation && strings.HasSuffix(rec.Resource, "/"+name)
	})
}

type world struct {
	gate  *api.Gate
	env   *api.Env
	trail *recorder
	now   time.Time
}

func newWorld(t *testing.T, kinds ...target.Kind) *world {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	key, err := root.New(bytes.Repeat([]byte{7}, 32), "test")
	if err != nil {
		t.Fatal(err)
	}
	keyring := envelope.New(key)
	records, _, err := keyring.NewRecords()
	if err != nil {
		t.Fatal(err)
	}
	db.Authenticate(records)
	w := &world{trail: &recorder{}, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	w.env = &api.Env{
		DB: db, Keyring: keyring, Region: "local", Now: func() time.Time {
			return w.now
		}, Random: rand.Reader, Log: slog.New(slog.DiscardHandler),
		Kinds: map[string]target.Kind{}, Rotation: server.Defaults().Rotation,
	}
	for _, k := range kinds {
		w.env.Kinds[k.Name] = k
	}
	w.gate = api.NewGate(w.env, w.trail)
	return w
}

var (
	rootPrincipal = policy.Principal{Kind: policy.KindAccount, Account: account, ID: account}
	bob           = policy.Principal{Kind: policy.KindRAMUser, Account: account, Name: "bob", ID: "1"}
)

// user puts a user into the store, with the policies that come with the service.
func (w *world) user(t *testing.T, p policy.Principal, policies ...string) {
	t.Helper()
	err := store.Do(t.Context(), w.env.DB, func(tx *store.Tx) error {
		u, err := users.NewUser(account, p.ID, p.Name, users.Profile{}, w.now)
		for _, name := range policies {
			if err == nil {
				u, err = u.Attach(users.System, name, w.now)
			}
		}
		if err != nil {
			return err
		}
		return tx.PutUser(u)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) call(t *testing.T, p policy.Principal, action string, params ...string) (any, error) {
	t.Helper()
	r := protocol.Request{ID: "r", Principal: p, Action: action, Version: kms.Version}
	for i := 0; i < len(params); i += 2 {
		r.Params = append(r.Params, sign.Param{Name: params[i], Value: params[i+1]})
	}
	return w.gate.Call(t.Context(), protocol.Named(action), r)
}

func (w *world) must(t *testing.T, action string, params ...string) any {
	t.Helper()
	out, err := w.call(t, rootPrincipal, action, params...)
	if err != nil {
		t.Fatalf("%s: %v", action, err)
	}
	return out
}

// TestWhatCannotBeRecorded verifies that it does not happen: without an intent there is no change,
// without a record no value.
func TestWhatCannotBeRecorded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(t, "CreateSecret", "SecretName", "a", "SecretData", "x", "VersionId", "v1")
	for _, tt := range []struct {
		phase  audit.Phase
		action string
		params []string
		text   string
	}{
		{
			audit.Intent, "PutSecretValue", []string{"SecretName", "a", "SecretData", "y", "VersionId", "v2"},
			"so it was not made",
		},
		{audit.Call, "GetSecretValue", []string{"SecretName", "a"}, "so it was not made"},
		{
			audit.Outcome, "PutSecretValue", []string{"SecretName", "a", "SecretData", "z", "VersionId", "v3"},
			"The change was made",
		},
	} {
		w.trail.refusing(tt.phase)
		out, err := w.call(t, rootPrincipal, tt.action, tt.params...)
		if fault.KindOf(err) != fault.Unavailable || !strings.Contains(protocol.CodeFor(err).Message, tt.text) || out != nil {
			t.Errorf("%s without %s: %v, %v", tt.action, tt.phase, out, err)
		}
		if strings.Contains(protocol.CodeFor(err).Message, "disk full") {
			t.Error("the caller learns what is wrong with the disk")
		}
	}
	w.trail.refusing("")
	list := w.must(t, "ListSecretVersionIds", "SecretName", "a",
		"IncludeDeprecated", "true").(*kms.ListSecretVersionIdsResponse)
	if list.TotalCount != 2 || list.VersionIDs[0].VersionID != "v3" {
		t.Errorf("versions = %+v; want v3, whose outcome alone was not recorded, and v1", list.VersionIDs)
	}
}

// TestRecords holds the order and the durability of records: intent and outcome of a change are on
// disk, a read is not waited for.
func TestRecords(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(t, "CreateSecret", "SecretName", "a", "SecretData", "x", "VersionId", "v1")
	w.must(t, "GetSecretValue", "SecretName", "a", "VersionStage", "ACSCurrent")
	_, _ = w.call(t, bob, "GetSecretValue", "SecretName", "a")
	_, _ = w.call(t, rootPrincipal, "NoSuchThing")
	var got []string
	for i, r := range w.trail.records {
		got = append(got,
			fmt.Sprint(r.Operation, " ", r.Phase, " ", r.Decision, " ", r.Outcome, " ", r.VersionID, " ", r.VersionStage, " ",
				w.trail.durable[i]))
	}
	want := []string{
		"CreateSecret intent allow  v1  true", "CreateSecret outcome allow ok v1  true",
		"GetSecretValue call allow ok v1 ACSCurrent false", "GetSecretValue call deny Forbidden.NoPermission   false",
		"NoSuchThing call  InvalidAction.NotFound   false",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("records\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if r := w.trail.records[2]; r.Resource != "acs:kms:local:"+account+":secret/a" ||
		r.Principal != "acs:ram::"+account+":root" {
		t.Errorf("resource %q by %q", r.Resource, r.Principal)
	}
}

// TestAuthorisationBeforeExistence verifies that a caller without rights learns no names.
func TestAuthorisationBeforeExistence(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(t, "CreateSecret", "SecretName", "a", "SecretData", "x", "VersionId", "v1")
	for _, op := range protocol.Operations() {
		if op.Action == "" || op.Version != kms.Version {
			continue
		}
		for _, name := range []string{"a", "none"} {
			_, err := w.call(t, bob, op.Name, "SecretName", name, "VersionId", "v1", "SecretData", "x", "VersionStage",
				"ACSCurrent", "MoveToVersion", "v1",
				"EnableAutomaticRotation", "false", "Policy", policy.DefaultSecretDocument(account), "Tags", "[]", "TagKeys", "[]",
				"RegionId", "local", "ResourceType", "secret", "ResourceId.1", name, "Tag.1.Key", "k", "TagKey.1", "k",
				"TargetName", name, "Kind", "memory", "Config", "{}", "RepairAction", "probe", "AccountName", "app",
				"CloneAccountName", "clone")
			if op.Name == "PauseRotation" ||
				op.Name == "ResumeRotation" ||
				op.Name == "ProbeRotation" { // of one or of the other
				_, err = w.call(t, bob, op.Name, "SecretName", name)
			}
			if op.Name == "ListResourceTags" {
				_, err = w.call(t, bob, op.Name, "KeyId", name)
			}
			var d *protocol.DeniedError
			if !errors.As(err, &d) || d.Detail.AuthAction != op.Action || d.Detail.NoPermissionType != "ImplicitDeny" {
				t.Errorf("%s of %q: %v; want a refusal that names %s", op.Name, name, err, op.Action)
			}
		}
	}
}

// TestSecretPolicy verifies that the policy of a secret is enforced: a Deny binds even the
// administrator, a named user is granted what it says, and no caller can lock itself out of
// changing it.
func TestSecretPolicy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.user(t, bob)
	w.must(t, "CreateSecret", "SecretName", "a", "SecretData", "x", "VersionId", "v1")
	document := `{"Version":"1","Statement":[
		{"Effect":"Allow","Principal":{"RAM":["acs:ram::1234567890123456:*"]},"Action":["kms:*"],"Resource":["*"]},
		{"Effect":"Allow","Principal":{"RAM":["acs:ram::1234567890123456:user/bob"]},
			"Action":["kms:GetSecretValue"],"Resource":["*"]},
		{"Effect":"Deny","Principal":{"RAM":["acs:ram::1234567890123456:root"]},
			"Action":["kms:DeleteSecret"],"Resource":["*"]}]}`
	w.must(t, "SetSecretPolicy", "SecretName", "a", "Policy", document)
	if _, err := w.call(t, bob, "GetSecretValue", "SecretName", "a"); err != nil {
		t.Errorf("a user whom the policy names: %v", err)
	}
	if _, err := w.call(t, bob, "DescribeSecret", "SecretName", "a"); fault.KindOf(err) != fault.Denied {
		t.Errorf("what the policy does not name: %v", err)
	}
	_, err := w.call(t, rootPrincipal, "DeleteSecret", "SecretName", "a")
	var d *protocol.DeniedError
	if !errors.As(err, &d) || d.Detail.NoPermissionType != "ExplicitDeny" {
		t.Errorf("the administrator against a Deny: %v", err)
	}
	w.must(t, "SetSecretPolicy", "SecretName", "a", "Policy", policy.DefaultSecretDocument(account))
	w.must(t, "DeleteSecret", "SecretName", "a")
	if _, err := w.call(t, rootPrincipal, "CreateSecret", "SecretName", "b", "SecretData", "x", "VersionId", "v1",
		"Policy", `{"Version":"2"}`); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a policy that does not parse: %v", err)
	}
}

// TestDryRunIsNeverIgnored verifies that no operation without a dry run carries out a call that
// asks for one, however the parameter is spelled.
func TestDryRunIsNeverIgnored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(t, "CreateSecret", "SecretName", "kept", "SecretData", "x", "VersionId", "v1")
	for _, spelled := range []string{"DryRun", "Dryrun", "dryrun"} {
		for _, value := range []string{"true", "True"} {
			_, err := w.call(t, rootPrincipal, "DeleteSecret",
				"SecretName", "kept", "ForceDeleteWithoutRecovery", "true", spelled, value)
			if c := protocol.CodeFor(err); c.Code != "InvalidParameter" || !strings.Contains(c.Message, "nothing was done") {
				t.Errorf("%s=%s: %v, want a refusal that says that nothing was done", spelled, value, err)
			}
		}
	}
	if _, err := w.call(t, rootPrincipal, "GetSecretValue", "SecretName", "kept", "dryrun", "true"); err == nil {
		t.Error("a dry run in another spelling returned the value")
	}
	w.must(t, "GetSecretValue", "SecretName", "kept", "DryRun", "false")
	w.must(t, "DeleteSecret", "SecretName", "kept", "DryRun", "false")
}

func TestDryRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(t, "CreateSecret", "SecretName", "a", "SecretData", "x", "VersionId", "v1")
	for _, tt := range []struct {
		p          policy.Principal
		name, code string
		status     int
	}{
		{rootPrincipal, "a", "DryRunOperationError", 400}, {rootPrincipal, "none", "ValidationError", 400},
		{bob, "a", "AccessDeniedError", 403},
	} {
		out, err := w.call(t, tt.p, "GetSecretValue", "SecretName", tt.name, "DryRun", "true")
		if c := protocol.CodeFor(err); c.Code != tt.code || c.Status != tt.status || out != nil {
			t.Errorf("dry run of %s: %v, %d %s; want %d %s", tt.name, out, c.Status, c.Code, tt.status, tt.code)
		}
	}
}

// TestCodes verifies that every kind has a code, and that an internal error reveals nothing to the
// caller.
func TestCodes(t *testing.T) {
	t.Parallel()
	seen := map[string]fault.Kind{}
	for kind := fault.Internal; kind < fault.Kinds; kind++ {
		c := protocol.CodeFor(&fault.Error{Kind: kind, Param: "P", Msg: "detail"})
		if c.Status < 400 || c.Code == "" || c.Message == "" {
			t.Errorf("kind %d has no code: %+v", kind, c)
		}
		if other, ok := seen[c.Code]; ok {
			t.Errorf("kinds %d and %d have one code, %s", other, kind, c.Code)
		}
		seen[c.Code] = kind
	}
	for _, err := range []error{errors.New("detail"), &fault.Error{Kind: fault.Internal, Msg: "detail"}} {
		if c := protocol.CodeFor(err); c.Code != "InternalFailure" || strings.Contains(c.Message, "detail") {
			t.Errorf("CodeFor(%v) = %+v", err, c)
		}
	}
}

// TestConcurrentFirstSecrets has many callers make the account's first secrets at once: one default
// key results.
func TestConcurrentFirstSecrets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var wg sync.WaitGroup
	errs := make([]error, 16)
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = w.gate.Call(t.Context(), protocol.Named("CreateSecret"), protocol.Request{ID: "r",
				Principal: rootPrincipal,
				Params: sign.Params{
					{Name: "SecretName", Value: fmt.Sprint("s", i)}, {Name: "SecretData", Value: "x"},
					{Name: "VersionId", Value: "v1"},
				}})
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
		w.must(t, "GetSecretValue", "SecretName", fmt.Sprint("s", i))
	}
}

// TestPagesOfTags walks more rows than a page has, and gets each once.
func TestPagesOfTags(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 30 {
		name := fmt.Sprintf("s%02d", i)
		w.must(t, "CreateSecret", "SecretName", name, "SecretData", "x", "VersionId", "v1")
		params := []string{"RegionId", "local", "ResourceType", "secret", "ResourceId.1", name}
		for k := 1; k <= 15; k++ {
			params = append(params, fmt.Sprintf("Tag.%d.Key", k), fmt.Sprintf("k%02d", k), fmt.Sprintf("Tag.%d.Value", k), "v")
		}
		w.must(t, "TagResources", params...)
	}
	seen, token, pages := map[string]bool{}, "", 0
	for {
		out := w.must(t, "ListTagResources", "RegionId", "local", "ResourceType", "secret",
			"NextToken", token).(*kms.ListTagResourcesResponse)
		for _, r := range out.TagResources {
			if row := r.ResourceID + " " + r.TagKey; seen[row] {
				t.Fatalf("%s came twice", row)
			} else {
				seen[row] = true
			}
		}
		pages++
		if token = out.NextToken; token == "" {
			break
		}
	}
	if len(seen) != 450 || pages != 3 {
		t.Errorf("%d rows in %d pages, want 450 in 3", len(seen), pages)
	}
	if _, err := w.call(t, rootPrincipal, "ListTagResources", "RegionId", "local", "ResourceType", "secret",
		"NextToken", "?"); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a token that is none: %v", err)
	}
}

func TestFilters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, s := range [][3]string{{"app/a", "first", "prod"}, {"app/b", "second", "test"}, {"web/a", "first", "prod"}} {
		w.must(t, "CreateSecret", "SecretName", s[0], "SecretData", "x", "VersionId", "v1", "Description", s[1],
			"Tags", `[{"TagKey":"env","TagValue":"`+s[2]+`"}]`)
	}
	for filters, want := range map[string]string{
		``: "app/a app/b web/a", `[]`: "app/a app/b web/a",
		`[{"Key":"SecretName","Values":["app/"]}]`:                                               "app/a app/b",
		`[{"Key":"SecretName","Values":["web","app/b"]}]`:                                        "app/b web/a",
		`[{"Key":"Description","Values":["irs"]},{"Key":"SecretName","Values":["app"]}]`:         "app/a",
		`[{"Key":"TagKey","Values":["env"]},{"Key":"TagValue","Values":["prod"]}]`:               "app/a web/a",
		`[{"Key":"SecretType","Values":["Rds"]}]`:                                                "",
		`[{"Key":"Creator","Values":["1234567890123456"]},{"Key":"TagValue","Values":["test"]}]`: "app/b",
	} {
		out := w.must(t, "ListSecrets", "Filters", filters).(*kms.ListSecretsResponse)
		var names []string
		for _, s := range out.SecretList {
			names = append(names, s.SecretName)
		}
		if got := strings.Join(names, " "); got != want || out.TotalCount != len(names) {
			t.Errorf("%s: %q of %d, want %q", filters, got, out.TotalCount, want)
		}
	}
	for _, bad := range []string{
		`[{"Key":"Colour","Values":["x"]}]`, `{"Key":"SecretName"}`,
		`[{"Key":"SecretName","Values":["1","2","3","4","5","6","7","8","9","10","11"]}]`,
	} {
		if _, err := w.call(t, rootPrincipal, "ListSecrets", "Filters", bad); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v, want Invalid", bad, err)
		}
	}
	second := w.must(t, "ListSecrets", "Filters", `[{"Key":"TagValue","Values":["prod"]}]`, "PageSize", "1",
		"PageNumber", "2").(*kms.ListSecretsResponse)
	if second.TotalCount != 2 || len(second.SecretList) != 1 || second.SecretList[0].SecretName != "web/a" {
		t.Errorf("second page: %+v", second)
	}
}
