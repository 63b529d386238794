package rpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/api/rpc"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/auth"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

var update = flag.Bool("update", false, "write the goldens anew; review the difference")

const (
	account  = "1234567890123456"
	host     = "kms.example.test"
	goldenID = "6a3e9c36-1150-4881-84d3-eb8672fcafad"
	formType = "application/x-www-form-urlencoded"
	jsonType = "application/json;charset=utf-8"
	xmlType  = "text/xml;charset=utf-8"
)

var (
	goldenTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	admin      = key("testid")
)

func key(id string) sign.Credentials {
	return sign.Credentials{AccessKeyID: id, AccessKeySecret: sensitive.New("testsecret")}
}

func temporary(id, token string) sign.Credentials {
	c := key(id)
	c.SecurityToken = sensitive.New(token)
	return c
}

// fixture is a door with all that lies behind it, the store included; clock, keys, IDs and random
// bytes are fixed.
type fixture struct {
	door  *rpc.Door
	db    *store.DB
	trail *trail
	nonce int
	keyID string // of the access key that was made last
}

// trail takes every record, or none.
type trail struct{ err error }

// fixedTrail is the trail that DescribeAuditTrail describes.
type fixedTrail struct{}

func (fixedTrail) Head() audit.Head {
	return audit.Head{Node: "local", Seq: 42, Hash: strings.Repeat("0a", 32), First: 7, KeyedFrom: 9}
}
func (fixedTrail) Losses() uint64 { return 1 }

// fixedCA is the answer of RotateLocalCA.
func fixedCA(_ context.Context, overlap time.Duration) (kms.RotateLocalCAResponse, error) {
	return kms.RotateLocalCAResponse{Certificate: "PEM", SwitchAt: goldenTime.Add(overlap)}, nil
}

// fixedRootKeys are the root keys that RotateRootKey and DescribeRootKey describe.
type fixedRootKeys struct{}

func (fixedRootKeys) Rotate(context.Context, bool, bool, time.Time) error { return nil }

func (fixedRootKeys) Describe(context.Context) (kms.RootKeyResponse, error) {
	return kms.RootKeyResponse{
		RootKeyID:           "00112233445566ff",
		RotationState:       kms.RootKeyRotating,
		StartedAt:           goldenTime,
		FormerRootKeyID:     "ff66554433221100",
		RecordKeyGeneration: 2,
	}, nil
}

func (r *trail) Append(context.Context, audit.Record, bool) error { return r.err }

func newFixture(t *testing.T) *fixture {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), NoSync: true})
	if err != nil {
		t.Fatalf("open a store: %v", err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	material, err := root.New(make([]byte, 32), "test")
	if err != nil {
		t.Fatal(err)
	}
	keyring := envelope.New(material)
	now := func() time.Time { return goldenTime }
	log := slog.New(slog.DiscardHandler)
	f := &fixture{db: db, trail: &trail{}}
	records, _, err := keyring.NewRecords()
	if err != nil {
		t.Fatal(err)
	}
	db.Authenticate(records)
	f.putKey(t, keyring)
	env := &api.Env{
		DB:        db,
		Keyring:   keyring,
		Region:    "cn-hangzhou",
		Now:       now,
		Random:    rand.NewChaCha8([32]byte{}),
		Log:       log,
		Uses:      api.NewKeyUses(db, log),
		Consumers: api.NewConsumers(db, now, log),
		Kinds:     map[string]target.Kind{"memory": memoryKind()},
		Trail:     fixedTrail{},
		RootKeys:  fixedRootKeys{},
		RotateCA:  fixedCA,
		Rotation:  server.Defaults().Rotation,
	}
	f.door = &rpc.Door{
		Gate: api.NewGate(env, f.trail), Auth: auth.New(auth.Config{
			Keys:     goldenKeys(),
			Now:      now,
			Service:  protocol.Service,
			Harmless: protocol.Harmless,
			Log:      log,
		}), Log: log, NewID: func() string { return goldenID },
	}
	return f
}

// keys are the administrator's access key and one for each way to be refused.
type keys map[string]auth.Key

func (k keys) Find(_ context.Context, id string) (auth.Key, bool, error) {
	found, ok := k[id]
	return found, ok, nil
}

func goldenKeys() keys {
	owner := policy.Principal{Kind: policy.KindAccount, Account: account, ID: account}
	user := policy.Principal{Kind: policy.KindRAMUser, Account: account, Name: "robot", ID: "200000000000000001"}
	list := []auth.Key{
		{ID: "testid", Principal: owner},
		{ID: "disabledid", Principal: owner, Disabled: true},
		{ID: "userid", Principal: user},
		{ID: "STS.testid", Principal: owner, Token: sensitive.New("token")},
		{ID: "STS.expiredid", Principal: owner, Token: sensitive.New("token"), ExpiresAt: goldenTime.Add(-time.Second)},
	}
	m := keys{}
	for _, k := range list {
		k.Secret = sign.NewKey(sensitive.New("testsecret"))
		m[k.ID] = k
	}
	return m
}

// putKey stores a customer master key, which no operation can make yet.
func (f *fixture) putKey(t *testing.T, keyring *envelope.Keyring) {
	t.Helper()
	k, err := keyring.NewKey(account, "key-1", account, goldenTime)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Do(t.Context(), f.db, func(tx *store.Tx) error { return tx.PutKey(k) }); err != nil {
		t.Fatalf("store a key: %v", err)
	}
}

// call is one operation with its parameters, name and value in turns.
type call struct {
	op     string
	params []string
}

func (c call) form() string {
	v := url.Values{}
	for i := 0; i < len(c.params); i += 2 {
		v.Set(c.params[i], c.params[i+1])
	}
	return v.Encode()
}

func (c call) version() string {
	for _, o := range protocol.Operations() {
		if o.Name == c.op {
			return o.Version
		}
	}
	return kms.Version
}

// signed makes the request of a call under signature version 3, its parameters in the form.
func (f *fixture) signed(t *testing.T, c call, by sign.Credentials, at time.Time, asXML bool) *http.Request {
	t.Helper()
	body := []byte(strings.ReplaceAll(c.form(), "%24KEY", f.keyID))
	r := httptest.NewRequest(http.MethodPost, "http://"+host+"/", bytes.NewReader(body))
	r.Header.Set("Accept", "application/json")
	if asXML {
		r.Header.Set("Accept", "application/xml")
	}
	if len(body) > 0 {
		r.Header.Set("Content-Type", formType)
	}
	if err := by.SignHTTP(r, sign.Call{
		Action:  c.op,
		Version: c.version(),
		Body:    body,
		Time:    at,
		Nonce:   f.next(),
	}); err != nil {
		t.Fatalf("sign: %v", err)
	}
	return r
}

// next is a nonce that was not used.
func (f *fixture) next() string {
	f.nonce++
	return strconv.Itoa(f.nonce)
}

// plain makes a request whose parameters are in the query, as under signature version 1; signed or
// not is up to them.
func plain(method string, params sign.Params, asXML bool) *http.Request {
	v := url.Values{}
	if asXML {
		v.Set("Format", "XML")
	}
	for _, p := range params {
		v.Set(p.Name, p.Value)
	}
	return httptest.NewRequest(method, "http://"+host+"/?"+v.Encode(), nil)
}

func (f *fixture) answer(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	f.door.ServeHTTP(w, r)
	return w
}

var madeKey = regexp.MustCompile(`"AccessKeyId":"([^"]+)"`)

// prepare makes the calls that a golden stands on.
func (f *fixture) prepare(t *testing.T, calls []call) {
	t.Helper()
	for _, c := range calls {
		w := f.answer(f.signed(t, c, admin, goldenTime, false))
		if w.Code != http.StatusOK {
			t.Fatalf("prepare with %s: %d %s", c.op, w.Code, w.Body)
		}
		if m := madeKey.FindSubmatch(w.Body.Bytes()); m != nil {
			f.keyID = string(m[1])
		}
	}
}

const (
	rdsConfig = `{"SecretSubType":"DoubleUsers","DBInstanceId":"rm-1","CustomData":{"DBName":"app"}}`
	rdsData   = `{"Accounts":[{"AccountName":"app","AccountPassword":"dummy-1"},{"AccountName":"app_clone",` +
		`"AccountPassword":"dummy-2"}]}`
	docPolicy = `{"Version":"1","Statement":[{"Effect":"Allow","Principal":{"RAM":["acs:ram::1234567890123456:*"]},` +
		`"Action":["kms:*"],"Resource":["*"]}]}`
)

var (
	createGeneric = call{
		"CreateSecret",
		[]string{
			"SecretName", "app/db", "VersionId", "v1", "SecretData", `{"user":"app","password":"<dummy> & \"é中\""}`,
			"Description", "main database", "Tags", `[{"TagKey":"env","TagValue":"prod"}]`,
		},
	}
	createRds = call{
		"CreateSecret",
		[]string{
			"SecretName", "rds/app", "SecretType", "Rds", "VersionId", "v1", "SecretData", rdsData, "ExtendedConfig", rdsConfig,
			"EnableAutomaticRotation", "true", "RotationInterval", "7d", "DKMSInstanceId", "kst-1",
		},
	}
	putNext = call{
		"PutSecretValue",
		[]string{"SecretName", "app/db", "VersionId", "v2", "SecretData", "dummy", "VersionStages", `["ACSCurrent","Next"]`},
	}
	deleteGeneric = call{"DeleteSecret", []string{"SecretName", "app/db", "RecoveryWindowInDays", "7"}}
)

// memoryKind is a kind of target that accepts one password, in this process.
func memoryKind() target.Kind {
	return target.Kind{
		Name: "memory", Strategies: []target.Strategy{target.Overlap, target.Double, target.Single}, NeedsAdmin: true,
		Check:    func(raw json.RawMessage) error { return target.Decode(raw, &struct{ Address string }{}) },
		Open:     func(target.Settings) (target.Target, error) { return memory{}, nil },
		Consents: []string{"change-auth-plugin"},
	}
}

type memory struct{}

func (memory) Apply(context.Context, target.Change) error  { return nil }
func (memory) Retire(context.Context, target.Change) error { return nil }
func (memory) Close() error                                { return nil }
func (memory) PlanAccounts(_ context.Context, r target.PlanRequest) (target.Plan, error) {
	return target.Plan{
		Request: r,
		Steps:   []target.PlanStep{{Database: "postgres", Statements: []string{"CREATE ROLE app_clone LOGIN"}}},
		Notes:   []string{"nobody logs in as <app_owner> afterwards"},
	}, nil
}
func (memory) ApplyPlan(context.Context, target.Plan) error { return nil }
func (memory) ProveAccounts(
	context.Context, target.PlanRequest, target.Credential, target.Credential,
) (target.Proof, error) {
	return target.Proof{}, nil
}
func (memory) Verify(_ context.Context, c target.Credential) error {
	if c.Secret.Reveal() != "dummy-2" {
		return target.Failed(target.Rejected, "28P01", "log in as "+c.Account+": password authentication failed")
	}
	return nil
}

// inState stores a rotation of rds/app that has come to a state, as the engine would have left it.
func inState(r rotation.Record) func(*testing.T, *fixture) {
	return func(t *testing.T, f *fixture) {
		err := store.Do(t.Context(), f.db, func(tx *store.Tx) error {
			old, _, err := tx.Rotation(account, "rds/app")
			if err != nil {
				return err
			}
			r.Account, r.Secret, r.Seq, r.Due = old.Account, old.Secret, old.Seq, old.Due
			return tx.PutRotation(&r)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

var (
	createAdmin = call{
		"CreateSecret",
		[]string{
			"SecretName", "pg-admin", "VersionId", "v1", "SecretData", `{"AccountName":"rotator","AccountPassword":"dummy"}`,
		},
	}
	registerMemory = call{
		"RegisterTarget",
		[]string{
			"TargetName", "rm-1", "Kind", "memory", "Config", `{"Address":"db.example.test:5432"}`, "AdminSecretName",
			"pg-admin", "Description", "main database",
		},
	}
	withTarget   = []call{createAdmin, registerMemory, createRds}
	configureRds = call{
		"ConfigureRotation",
		[]string{
			"SecretName", "rds/app", "EnableAutomaticRotation", "true", "Cron", "30 3 * * 6", "TimeZone", "Europe/Berlin",
			"Window", "Sat,Sun 22:00-06:00", "Blackouts", "2026-12-24..2027-01-02", "GracePeriod", "2h", "GraceLimit", "12h",
			"Group", "databases", "GroupGap", "30m", "Consent.1", "change-auth-plugin",
		},
	}
	inGrace = rotation.Record{
		ID:            "v2",
		State:         rotation.InGrace,
		Mode:          rotation.Rotate,
		Trigger:       rotation.Manual,
		Strategy:      target.Double,
		Target:        "rm-1",
		Candidate:     "v2",
		Base:          "v1",
		Attempt:       1,
		Candidates:    1,
		Grace:         rotation.Grace{Min: time.Hour, Max: 12 * time.Hour},
		GraceDeadline: goldenTime.Add(12 * time.Hour),
		StartedAt:     goldenTime.Add(-2 * time.Minute),
		PromotedAt:    goldenTime.Add(-time.Minute),
		GraceUntil:    goldenTime.Add(59 * time.Minute),
		NextAt:        goldenTime.Add(59 * time.Minute),
		Health:        rotation.Health{ProbedAt: goldenTime.Add(-time.Minute), Live: true},
		Steps: []rotation.Entry{
			{At: goldenTime.Add(-2 * time.Minute), State: rotation.Scheduled, Event: "begun", Text: "manual"},
			{At: goldenTime.Add(-time.Minute), State: rotation.InGrace, Event: "promoted", Text: "<by> \"hand\""},
		},
	}
	quarantined = rotation.Record{
		ID:        "v2",
		State:     rotation.Quarantined,
		Mode:      rotation.Rotate,
		Trigger:   rotation.Automatic,
		Strategy:  target.Double,
		Target:    "rm-1",
		Candidate: "v2",
		Base:      "v1",
		StartedAt: goldenTime.Add(-time.Minute), Reason: "The target accepts neither the candidate nor the version before.",
	}
)

// golden is a call whose answer is kept, and the calls that it stands on.
type golden struct {
	call
	before []call
}

// goldens have one call of every operation, the one that shows the most members.
var goldens = slices.Concat(secretGoldens, ramGoldens)

// setUps put a rotation into the state that the call of an operation needs.
var setUps = map[string]func(*testing.T, *fixture){
	"DescribeRotation":  inState(inGrace),
	"ListRotations":     inState(quarantined),
	"EmergencyRotation": inState(inGrace),
	"EndRotationGrace":  inState(inGrace),
	"UndoRotation":      inState(inGrace),
	"RepairRotation":    inState(quarantined),
}

var secretGoldens = []golden{
	{createRds, nil},
	{deleteGeneric, []call{createGeneric}},
	{call{"RestoreSecret", []string{"SecretName", "app/db"}}, []call{createGeneric, deleteGeneric}},
	{call{"DescribeSecret", []string{"SecretName", "app/db", "FetchTags", "true"}}, []call{createGeneric, deleteGeneric}},
	{call{"GetRandomPassword", []string{"PasswordLength", "40", "RequireEachIncludedType", "true"}}, nil},
	{call{"GetSecretValue", []string{"SecretName", "rds/app", "FetchExtendedConfig", "true"}}, []call{createRds}},
	{call{"ListSecrets", []string{"FetchTags", "true", "PageSize", "2"}}, []call{createGeneric, createRds}},
	{
		call{"ListSecretVersionIds", []string{"SecretName", "app/db", "IncludeDeprecated", "true"}},
		[]call{
			createGeneric, putNext,
			{
				"PutSecretValue",
				[]string{
					"SecretName", "app/db", "VersionId", "v3", "SecretData", "dummy-3", "VersionStages", `{"VersionStage":["Next"]}`,
				},
			},
		},
	},
	{putNext, []call{createGeneric}},
	{
		call{
			"UpdateSecret",
			[]string{"SecretName", "rds/app", "Description", "", "ExtendedConfig.CustomData", `{"DBName":"other"}`},
		}, []call{createRds},
	},
	{
		call{
			"UpdateSecretVersionStage",
			[]string{"SecretName", "app/db", "VersionStage", "Next", "RemoveFromVersion", "v2", "MoveToVersion", "v1"},
		}, []call{createGeneric, putNext},
	},
	{call{"RotateSecret", []string{"SecretName", "rds/app", "VersionId", "v2"}}, withTarget},
	{
		call{
			"UpdateSecretRotationPolicy",
			[]string{"SecretName", "rds/app", "EnableAutomaticRotation", "true", "RotationInterval", "30d"},
		}, []call{createRds},
	},
	{call{"GetSecretPolicy", []string{"SecretName", "app/db"}}, []call{createGeneric}},
	{call{"SetSecretPolicy", []string{"SecretName", "app/db", "Policy", docPolicy}}, []call{createGeneric}},
	{
		call{"TagResource", []string{"SecretName", "app/db", "Tags", `[{"TagKey":"env","TagValue":"test"}]`}},
		[]call{createGeneric},
	},
	{call{"UntagResource", []string{"SecretName", "app/db", "TagKeys", `["env"]`}}, []call{createGeneric}},
	{call{"ListResourceTags", []string{"KeyId", "key-1"}}, nil},
	{
		call{
			"TagResources",
			[]string{
				"RegionId", "cn-hangzhou", "ResourceType", "secret", "ResourceId.1", "app/db", "ResourceId.2", "rds/app",
				"Tag.1.Key", "team", "Tag.1.Value", "a",
			},
		}, []call{createGeneric, createRds},
	},
	{
		call{
			"UntagResources",
			[]string{"RegionId", "cn-hangzhou", "ResourceType", "secret", "ResourceId.1", "app/db", "All", "true"},
		}, []call{createGeneric},
	},
	{call{"ListTagResources", []string{"RegionId", "cn-hangzhou", "ResourceType", "secret"}}, []call{createGeneric}},
	{call{"DescribeRegions", nil}, nil},
	{call{"DescribeAccountKmsStatus", nil}, nil},
	{call{"GetCallerIdentity", nil}, nil},
	{registerMemory, []call{createAdmin}},
	{call{"DescribeTarget", []string{"TargetName", "rm-1"}}, withTarget},
	{
		call{"ListTargets", []string{"MaxResults", "1"}},
		append(withTarget[:3:3],
			call{
				"RegisterTarget", []string{"TargetName", "rm-2", "Kind", "memory", "Config", "{}", "AdminSecretName", "pg-admin"},
			}),
	},
	{
		call{"UpdateTarget", []string{"TargetName", "rm-1", "Config", `{"Address":"other.example.test"}`, "Description", ""}},
		withTarget,
	},
	{call{"DeregisterTarget", []string{"TargetName", "rm-1"}}, withTarget},
	{call{"TestTarget", []string{"TargetName", "rm-1", "SecretName", "rds/app"}}, withTarget},
	{
		call{"PrepareTargetAccounts", []string{"TargetName", "rm-1", "AccountName", "app", "CloneAccountName", "app_clone"}},
		withTarget,
	},
	{configureRds, withTarget},
	{call{"CheckRotation", []string{"SecretName", "rds/app"}}, withTarget},
	{
		call{"RemoveRotation", []string{"SecretName", "app/db"}},
		[]call{
			createAdmin, registerMemory, createGeneric,
			{"ConfigureRotation", []string{"SecretName", "app/db", "TargetName", "rm-1"}},
		},
	},
	{
		call{"DescribeRotation", []string{"SecretName", "rds/app"}},
		append(withTarget[:3:3], configureRds,
			call{"GetSecretValue", []string{"SecretName", "rds/app", "Consumer", "app-1"}}),
	},
	{call{"ListRotations", []string{"State", "quarantined"}}, withTarget},
	{
		call{"WatchSecrets", []string{"Secret.1.SecretName", "app/db", "Secret.2.SecretName", "none", "WaitSeconds", "0"}},
		[]call{createGeneric},
	},
	{
		call{"ListSecretConsumers", []string{"SecretName", "app/db"}},
		[]call{createGeneric, {"GetSecretValue", []string{"SecretName", "app/db", "Consumer", "app-1"}}},
	},
	{call{"DescribeAuditTrail", nil}, nil},
	{call{"RotateRootKey", []string{"ReencryptValues", "true"}}, nil},
	{call{"DescribeRootKey", nil}, nil},
	{call{"RotateLocalCA", []string{"OverlapDays", "7"}}, nil},
	{call{"PauseRotation", []string{"SecretName", "rds/app"}}, withTarget},
	{call{"ResumeRotation", nil}, withTarget},
	{call{"ProbeRotation", []string{"TargetName", "rm-1"}}, withTarget},
	{call{"RehearseRotation", []string{"SecretName", "rds/app", "VersionId", "v2"}}, withTarget},
	{
		call{"EmergencyRotation", []string{"SecretName", "rds/app", "VersionId", "v3", "DryRun", "true"}},
		append(withTarget[:3:3], call{"GetSecretValue", []string{"SecretName", "rds/app", "Consumer", "app-1"}}),
	},
	{call{"EndRotationGrace", []string{"SecretName", "rds/app"}}, withTarget},
	{call{"UndoRotation", []string{"SecretName", "rds/app"}}, withTarget},
	{
		call{"CancelRotation", []string{"SecretName", "rds/app"}},
		append(withTarget[:3:3], call{"RotateSecret", []string{"SecretName", "rds/app", "VersionId", "v2"}}),
	},
	{
		call{
			"RepairRotation",
			[]string{
				"SecretName", "rds/app", "RepairAction", "adopt", "VersionId", "v3", "SecretData",
				`{"Accounts":[{"AccountName":"app","AccountPassword":"dummy-2"}]}`,
			},
		}, withTarget,
	},
}

// allGoldens returns goldens, and a call on a secret of every other operation that only reads one.
func allGoldens() []golden {
	list := slices.Clone(goldens)
	for _, o := range protocol.Operations() {
		reads := !o.Mutates && o.Resource == "secret/${SecretName}"
		for _, p := range o.Params() {
			reads = reads && (!p.Required || p.Resource != "")
		}
		if reads && !slices.ContainsFunc(goldens, func(g golden) bool { return g.op == o.Name }) {
			list = append(list, golden{call{o.Name, []string{"SecretName", "app/db"}}, []call{createGeneric}})
		}
	}
	return list
}

// TestGolden compares the answer to one call of every operation with a file, in JSON and in XML.
func TestGolden(t *testing.T) {
	t.Parallel()
	have := map[string]bool{}
	for _, g := range allGoldens() {
		have[g.op] = true
		t.Run(g.op, func(t *testing.T) {
			t.Parallel()
			var b strings.Builder
			fmt.Fprintf(&b, "%s %s\n", g.op, g.version())
			for i := 0; i < len(g.params); i += 2 {
				fmt.Fprintf(&b, "%s=%s\n", g.params[i], g.params[i+1])
			}
			for _, asXML := range []bool{false, true} {
				f := newFixture(t)
				f.prepare(t, g.before)
				if setUp := setUps[g.op]; setUp != nil {
					setUp(t, f)
				}
				writeAnswer(&b, f.answer(f.signed(t, g.call, admin, goldenTime, asXML)))
			}
			compare(t, "op-"+g.op, b.String())
		})
	}
	for _, o := range protocol.Operations() {
		if !have[o.Name] {
			t.Errorf("%s has no golden: add a call of it to goldens", o.Name)
		}
	}
}

func writeAnswer(b *strings.Builder, w *httptest.ResponseRecorder) {
	fmt.Fprintf(b, "\n%d\nContent-Type: %s\n", w.Code, w.Header().Get("Content-Type"))
	if s := w.Header().Get("x-acs-retry-after"); s != "" {
		fmt.Fprintf(b, "x-acs-retry-after: %s\n", s)
	}
	fmt.Fprintf(b, "\n%s\n", w.Body)
}

// compare holds text against a golden, or writes it.
func compare(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; make it with -update", err)
	}
	if got != string(want) {
		t.Errorf("%s differs; write it anew with -update if that is meant.\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

// request makes the request that is refused.
type request func(t *testing.T, f *fixture, asXML bool) *http.Request

// by is a call signed with version 3.
func by(c sign.Credentials, op string, params ...string) request {
	return func(t *testing.T, f *fixture, asXML bool) *http.Request {
		return f.signed(t, call{op, params}, c, goldenTime, asXML)
	}
}

// parameters is a request as it is, without a signature of its own.
func parameters(method string, params ...string) request {
	return func(_ *testing.T, _ *fixture, asXML bool) *http.Request {
		var p sign.Params
		for i := 0; i < len(params); i += 2 {
			p = append(p, sign.Param{Name: params[i], Value: params[i+1]})
		}
		return plain(method, p, asXML)
	}
}

// refusals have one way to each code that a caller can meet.
var refusals = []struct {
	kind   fault.Kind
	what   string
	before []call
	setUp  func(t *testing.T, f *fixture)
	send   request
}{
	{
		fault.Internal, "a read of a value that does not open", []call{createGeneric}, spoil,
		by(admin, "GetSecretValue", "SecretName", "app/db"),
	},
	{fault.Unavailable, "a call that cannot be recorded", nil, func(_ *testing.T, f *fixture) {
		f.trail.err = errors.New("disk full")
	}, by(admin, "DescribeRegions")},
	{
		fault.Throttled, "a call over a rate limit; no limit is built in yet, so the test makes the refusal", nil,
		func(_ *testing.T, f *fixture) { f.door.Auth = busy{} }, by(admin, "DescribeRegions"),
	},
	{fault.Malformed, "a body that is neither form nor JSON", nil, nil,
		func(t *testing.T, f *fixture, asXML bool) *http.Request {
			body := []byte("SecretName=app/db")
			r := httptest.NewRequest(http.MethodPost, "http://"+host+"/", bytes.NewReader(body))
			r.Header.Set("Content-Type", "text/plain")
			if asXML {
				r.Header.Set("Accept", "application/xml")
			}
			if err := admin.SignHTTP(r, sign.Call{
				Action:  "DescribeSecret",
				Version: kms.Version,
				Body:    body,
				Time:    goldenTime,
				Nonce:   f.next(),
			}); err != nil {
				t.Fatal(err)
			}
			return r
		}},
	{fault.Missing, "GetSecretValue without SecretName", nil, nil, by(admin, "GetSecretValue")},
	{
		fault.Invalid, "GetSecretValue with a space in SecretName", nil, nil,
		by(admin, "GetSecretValue", "SecretName", "a b"),
	},
	{fault.Method, "the method PUT", nil, nil, parameters(http.MethodPut)},
	{fault.NoAction, "an operation that does not exist", nil, nil, by(admin, "GetSecret")},
	{fault.Version, "a version that does not exist", nil, nil, func(t *testing.T, f *fixture, asXML bool) *http.Request {
		p, err := admin.SignV1("GET", formatted(asXML, "Action", "DescribeRegions", "Version", "2017-01-20"), goldenTime,
			f.next())
		if err != nil {
			t.Fatal(err)
		}
		return plain("GET", p, asXML)
	}},
	{
		fault.MissingKey, "a signature of version 1 without AccessKeyId", nil, nil,
		parameters("GET", "Action", "DescribeRegions", "Version", kms.Version, "Signature", "x"),
	},
	{
		fault.BadSignature, "a request without a signature", nil, nil,
		parameters("GET", "Action", "DescribeRegions", "Version", kms.Version),
	},
	{fault.WrongSignature, "a signature of version 1 with another secret", nil, nil,
		func(t *testing.T, f *fixture, asXML bool) *http.Request {
			other := sign.Credentials{AccessKeyID: "testid", AccessKeySecret: sensitive.New("another")}
			p, err := other.SignV1("GET", formatted(asXML, "Action", "DescribeRegions", "Version", kms.Version), goldenTime,
				f.next())
			if err != nil {
				t.Fatal(err)
			}
			return plain("GET", p, asXML)
		}},
	{fault.UnknownKey, "an access key that does not exist", nil, nil, by(key("unknownid"), "DescribeRegions")},
	{fault.DisabledKey, "an access key that is switched off", nil, nil, by(key("disabledid"), "DescribeRegions")},
	{fault.MissingToken, "a temporary key without its token", nil, nil, by(key("STS.testid"), "DescribeRegions")},
	{
		fault.WrongToken, "a temporary key with another token", nil, nil,
		by(temporary("STS.testid", "another"), "DescribeRegions"),
	},
	{
		fault.ExpiredToken, "a temporary key past its time", nil, nil,
		by(temporary("STS.expiredid", "token"), "DescribeRegions"),
	},
	{
		fault.NoTimestamp, "a signature of version 1 without Timestamp", nil, nil,
		parameters("GET", "Action", "DescribeRegions", "Version", kms.Version, "AccessKeyId", "testid", "Signature", "x",
			"SignatureVersion", "1.0"),
	},
	{fault.Expired, "a signature of 16 minutes ago", nil, nil, func(t *testing.T, f *fixture, asXML bool) *http.Request {
		return f.signed(t, call{op: "DescribeRegions"}, admin, goldenTime.Add(-16*time.Minute), asXML)
	}},
	{fault.Replayed, "the same request again", nil, nil, func(t *testing.T, f *fixture, asXML bool) *http.Request {
		r := by(admin, "DescribeRegions")(t, f, asXML)
		if w := f.answer(r.Clone(t.Context())); w.Code != http.StatusOK {
			t.Fatalf("the first of two equal requests: %d %s", w.Code, w.Body)
		}
		return r
	}},
	{
		fault.Denied, "a user without a policy", []call{createGeneric}, nil,
		by(key("userid"), "GetSecretValue", "SecretName", "app/db"),
	},
	{fault.NotFound, "a secret that does not exist", nil, nil, by(admin, "GetSecretValue", "SecretName", "none")},
	{
		fault.KeyNotFound, "a key that does not exist", nil, nil,
		by(admin, "CreateSecret", "SecretName", "app/db", "VersionId", "v1", "SecretData", "dummy", "EncryptionKeyId",
			"key-unknown"),
	},
	{
		fault.Exists, "CreateSecret of a name that is taken", []call{createGeneric}, nil,
		by(admin, "CreateSecret", "SecretName", "app/db", "VersionId", "v1", "SecretData", "dummy"),
	},
	{
		fault.Deleting, "a read in the deletion window", []call{createGeneric, deleteGeneric}, nil,
		by(admin, "GetSecretValue", "SecretName", "app/db"),
	},
	{
		fault.InUse, "RestoreSecret of a live secret", []call{createGeneric}, nil,
		by(admin, "RestoreSecret", "SecretName", "app/db"),
	},
	{
		fault.LimitExceeded, "a seventh custom label", []call{createGeneric}, nil,
		by(admin, "PutSecretValue", "SecretName", "app/db", "VersionId", "v2", "SecretData", "dummy", "VersionStages",
			`["1","2","3","4","5","6","7"]`),
	},
	{
		fault.Unsupported, "RotateSecret of a Generic secret", []call{createGeneric}, nil,
		by(admin, "RotateSecret", "SecretName", "app/db", "VersionId", "v2"),
	},
	{
		fault.DryRunOK, "a dry run that would have succeeded", []call{createGeneric}, nil,
		by(admin, "GetSecretValue", "SecretName", "app/db", "DryRun", "true"),
	},
	{
		fault.DryRunInvalid, "a dry run of a secret that does not exist", nil, nil,
		by(admin, "GetSecretValue", "SecretName", "none", "DryRun", "true"),
	},
	{
		fault.DryRunDenied, "a dry run by a user without a policy", nil, nil,
		by(key("userid"), "GetSecretValue", "SecretName", "app/db", "DryRun", "true"),
	},
}

// unreachable are the kinds that no caller can meet yet, and why.
var unreachable = map[fault.Kind]string{
	fault.KeyDisabled: "there are no customer keys yet, and the default key cannot be disabled"}

func formatted(asXML bool, params ...string) sign.Params {
	p := sign.Params{}
	for i := 0; i < len(params); i += 2 {
		p = append(p, sign.Param{Name: params[i], Value: params[i+1]})
	}
	if asXML {
		p = append(p, sign.Param{Name: "Format", Value: "XML"})
	}
	return p
}

// spoil replaces the sealed value of app/db.
func spoil(t *testing.T, f *fixture) {
	t.Helper()
	err := store.Do(t.Context(), f.db, func(tx *store.Tx) error {
		s, ok, err := tx.Secret(account, "app/db", goldenTime)
		if err != nil || !ok {
			return errors.Join(err, errors.New("there is no secret to spoil"))
		}
		return tx.PutSecret(s, map[string][]byte{"v1": []byte("spoilt")})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// busy refuses every caller.
type busy struct{}

func (busy) Authenticate(context.Context, auth.Request) (auth.Result, error) {
	return auth.Result{}, fault.New(fault.Throttled, "")
}

// TestGoldenErrors holds a refusal of every code against a file, in JSON and in XML.
func TestGoldenErrors(t *testing.T) {
	t.Parallel()
	have := map[fault.Kind]bool{}
	for _, g := range refusals {
		have[g.kind] = true
		code := protocol.CodeFor(&fault.Error{Kind: g.kind})
		t.Run(code.Code, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.prepare(t, g.before)
			if g.setUp != nil {
				g.setUp(t, f)
			}
			var b strings.Builder
			fmt.Fprintf(&b, "%s\n", g.what)
			for _, asXML := range []bool{false, true} {
				w := f.answer(g.send(t, f, asXML))
				want := jsonType
				if asXML {
					want = xmlType
				}
				if w.Code != code.Status ||
					!strings.Contains(w.Body.String(), code.Code) ||
					w.Header().Get("Content-Type") != want {
					t.Errorf("%s: %d %s %s; want %d %s in %s", g.what, w.Code, w.Header().Get("Content-Type"), w.Body, code.Status,
						code.Code, want)
				}
				writeAnswer(&b, w)
			}
			compare(t, "error-"+code.Code, b.String())
		})
	}
	for kind := fault.OK + 1; kind < fault.Kinds; kind++ {
		if _, no := unreachable[kind]; have[kind] == no {
			t.Errorf("kind %d, %s: has a golden: %t; listed as unreachable: %t", kind,
				protocol.CodeFor(&fault.Error{Kind: kind}).Code, have[kind], no)
		}
	}
}

var (
	placeholder = regexp.MustCompile(`<[A-Za-z]+>`)
	message     = regexp.MustCompile(`"Message":"((?:[^"\\]|\\.)*)"`)
)

// TestGoldenMessages: the message of every error golden begins with the text of the reference.
func TestGoldenMessages(t *testing.T) {
	t.Parallel()
	if *update {
		t.Skip("the goldens are being written")
	}
	documented := documentedMessages(t)
	for _, g := range refusals {
		code := protocol.CodeFor(&fault.Error{Kind: g.kind}).Code
		want, ok := documented[code]
		if !ok {
			continue // in the text of the reference, not in its data: the contract test lists them
		}
		golden, err := os.ReadFile(filepath.Join("testdata", "golden", "error-"+code+".txt"))
		if err != nil {
			t.Error(err)
			continue
		}
		found := message.FindSubmatch(golden)
		if found == nil {
			t.Errorf("%s: the golden has no message", code)
			continue
		}
		got, err := strconv.Unquote(`"` + string(found[1]) + `"`)
		if err != nil || !want.MatchString(got) {
			t.Errorf("%s: message %q, %v; want one that begins as %s", code, got, err, want)
		}
	}
}

func documentedMessages(t *testing.T) map[string]*regexp.Regexp {
	t.Helper()
	type documented struct{ Code, Message string }
	var contract struct {
		CommonErrors []documented `json:"commonErrors"`
		Operations   []struct{ Errors []documented }
	}
	data, err := os.ReadFile(filepath.Join("..", "testdata", "operations.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &contract); err != nil {
		t.Fatal(err)
	}
	list := contract.CommonErrors
	for _, o := range contract.Operations {
		list = append(list, o.Errors...)
	}
	out := map[string]*regexp.Regexp{}
	for _, e := range list {
		var pattern strings.Builder
		rest := e.Message
		for _, at := range placeholder.FindAllString(e.Message, -1) {
			head, tail, _ := strings.Cut(rest, at)
			pattern.WriteString(regexp.QuoteMeta(head) + ".+")
			rest = tail
		}
		out[e.Code] = regexp.MustCompile("^" + pattern.String() + regexp.QuoteMeta(rest))
	}
	return out
}

// TestLastPage: a page as far past the end as a number can say is empty.
func TestLastPage(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.prepare(t, []call{createGeneric})
	page := []string{"PageNumber", strconv.Itoa(math.MaxInt), "PageSize", "100"}
	for _, c := range []call{
		{"ListSecrets", page},
		{"ListSecrets", append([]string{"Filters", `[{"Key":"TagKey","Values":["env"]}]`}, page...)},
		{"ListSecretVersionIds", append([]string{"SecretName", "app/db"}, page...)},
	} {
		w := f.answer(f.signed(t, c, admin, goldenTime, false))
		if w.Code != http.StatusOK ||
			!strings.Contains(w.Body.String(), `":[]}`) ||
			!strings.Contains(w.Body.String(), `"TotalCount":1,`) {
			t.Errorf("%s: %d %s; want an empty page and TotalCount 1", c.op, w.Code, w.Body)
		}
	}
}

// TestXMLControlCharacter: a value that XML cannot carry is refused, and the parameter to change is
// named.
func TestXMLControlCharacter(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.prepare(t, []call{{"CreateSecret", []string{"SecretName", "app/db", "VersionId", "v1", "SecretData", "dummy\x01"}}})
	get := call{"GetSecretValue", []string{"SecretName", "app/db"}}
	w := f.answer(f.signed(t, get, admin, goldenTime, true))
	const want = `<Code>InvalidParameter</Code><Message>The specified parameter &#34;Format&#34; is not valid.`
	if w.Code != http.StatusBadRequest ||
		!strings.Contains(w.Body.String(), want) ||
		strings.Contains(w.Body.String(), "dummy") {
		t.Errorf("GetSecretValue in XML: %d %s; want 400 with %s", w.Code, w.Body, want)
	}
	if w = f.answer(
		f.signed(t, get, admin, goldenTime, false)); !strings.Contains(w.Body.String(), `"SecretData":"dummy\u0001"`) {
		t.Errorf("GetSecretValue in JSON: %d %s; want the value", w.Code, w.Body)
	}
}

// TestGoldenFiles: every file is of a test.
func TestGoldenFiles(t *testing.T) {
	t.Parallel()
	want := map[string]bool{}
	for _, g := range allGoldens() {
		want["op-"+g.op+".txt"] = true
	}
	for _, g := range refusals {
		want["error-"+protocol.CodeFor(&fault.Error{Kind: g.kind}).Code+".txt"] = true
	}
	for _, g := range ramRefusals {
		want[ramFile(g.code)+".txt"] = true
	}
	want[ramFile(ram.CodeNoPermission)+".txt"] = true
	files, err := os.ReadDir(filepath.Join("testdata", "golden"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !want[f.Name()] {
			t.Errorf("testdata/golden/%s is of no test; delete it", f.Name())
		}
	}
}
