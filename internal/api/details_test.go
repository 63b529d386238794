package api_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/target"
)

// dialing is a kind of target whose methods connect, and send nothing.
func dialing() target.Kind {
	address := func(raw json.RawMessage) string {
		var c struct {
			Address string `json:"address"`
			Token   string `json:"token"`
		}
		_ = target.Decode(raw, &c)
		return c.Address
	}
	return target.Kind{
		Name: "dialing", NeedsAdmin: true, Strategies: []target.Strategy{target.Overlap},
		Check: func(json.RawMessage) error { return nil },
		Addresses: func(raw json.RawMessage) []string {
			return []string{address(raw), "https://user:pw@api.example.test/x?token=hidden"}
		},
		Open: func(s target.Settings) (target.Target, error) {
			return &dialed{address: address(s.Config), dial: s.Dialer()}, nil
		},
	}
}

type dialed struct {
	address string
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
}

func (d *dialed) connect(ctx context.Context) error {
	c, err := d.dial(ctx, "tcp", d.address)
	if err != nil {
		return target.NotSent("connect", err)
	}
	return c.Close()
}

func (d *dialed) Apply(ctx context.Context, _ target.Change) error      { return d.connect(ctx) }
func (d *dialed) Retire(ctx context.Context, _ target.Change) error     { return d.connect(ctx) }
func (d *dialed) Verify(ctx context.Context, _ target.Credential) error { return d.connect(ctx) }
func (d *dialed) Close() error                                          { return nil }

// last returns the last record of an operation.
func (r *recorder) last(t *testing.T, operation string, phase audit.Phase) audit.Record {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range slices.Backward(r.records) {
		if rec.Operation == operation && rec.Phase == phase {
			return rec
		}
	}
	t.Fatalf("no record %s %s", operation, phase)
	return audit.Record{}
}

// TestSendIsRecordedBefore: where a credential goes is on the trail before anything is sent there,
// by an operator's call and by the engine; and what the trail refuses is not sent.
func TestSendIsRecordedBefore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dialing())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	address := l.Addr().String()
	var dialled atomic.Int64
	w.env.Dial = func(ctx context.Context, network, to string) (net.Conn, error) {
		dialled.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, to)
	}
	w.must(t, "CreateSecret", "SecretName", "admin", "SecretData", adminValue, "VersionId", "a1")
	w.must(t, "RegisterTarget", "TargetName", "t", "Kind", "dialing", "Config", `{"address":"`+address+`"}`,
		"AdminSecretName", "admin")
	w.must(t, "CreateSecret", "SecretName", "db", "SecretData", `{"AccountName":"app","AccountPassword":"s3cret-marker"}`,
		"VersionId", "v1")
	w.must(t, "ConfigureRotation", "SecretName", "db", "TargetName", "t")
	w.trail.between = func(r audit.Record) {
		if r.Operation == "SendCredential" && dialled.Load() != 0 {
			t.Error("the record comes after the connection")
		}
	}
	w.must(t, "TestTarget", "TargetName", "t", "SecretName", "db")
	sent := w.trail.last(t, "SendCredential", audit.Call)
	for name, want := range map[string]string{
		"during":        "TestTarget",
		"address":       address,
		"target":        "t",
		"kind":          "dialing",
		"admin_secret":  "admin",
		"admin_version": "a1",
	} {
		if got := sent.Details.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if sent.Details.Get("target_id") == "" || sent.Principal != rootPrincipal.ARN() || dialled.Load() != 1 {
		t.Errorf("%+v, %d connections", sent, dialled.Load())
	}
	dialled.Store(0)
	turn, ok, err := w.gate.Engine(0).Load(t.Context(), account, "db")
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	system, err := turn.Open()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // one record for each address that is opened
		if err := system.Verify(t.Context(), target.Credential{}); err != nil {
			t.Fatal(err)
		}
		w.trail.between = nil
	}
	sent = w.trail.last(t, "SendCredential", audit.Call)
	if sent.Details.Get("during") != "probe" || sent.Details.Get("versions") != "v1" || sent.PrincipalType != "System" ||
		!strings.HasSuffix(sent.Resource, "secret/db") {
		t.Errorf("of the engine: %+v", sent)
	}
	w.trail.refusing(audit.Call)
	dialled.Store(0)
	if system, err = turn.Open(); err != nil {
		t.Fatal(err)
	}
	if err := system.Verify(t.Context(), target.Credential{}); err == nil || dialled.Load() != 0 {
		t.Errorf("with a full disk: %v, %d connections", err, dialled.Load())
	}
	var failed *target.Error
	if err := system.Verify(t.Context(), target.Credential{}); !errors.As(err, &failed) ||
		failed.Class != target.Unreachable ||
		dialled.Load() != 0 {
		t.Errorf("tried again: %v, %d connections", err, dialled.Load())
	}
}

// TestChangesAreTold: the trail says what a change was, and holds no value and no configuration.
func TestChangesAreTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dialing())
	w.must(t, "CreateSecret", "SecretName", "admin", "SecretData", adminValue, "VersionId", "a1")
	policy := `{"Version":"1","Statement":[{"Effect":"Allow","Principal":{"RAM":["acs:ram::` + account +
		`:*"]},"Action":["kms:*"],"Resource":["*"]}]}`
	document := `{"Version":"1","Statement":[{"Effect":"Allow","Action":["kms:Get*"],"Resource":["*"]}]}`
	long := `{"Version":"1",` + strings.Repeat(" ", maxTold) + strings.TrimPrefix(document, `{"Version":"1",`)
	for _, tt := range []struct {
		operation string
		params    []string
		want      map[string]string
	}{
		{"RegisterTarget",
			[]string{
				"TargetName", "t", "Kind", "dialing", "AdminSecretName", "admin", "Config", `{"address":"db:1","token":"marker"}`,
			},
			map[string]string{
				"TargetName":      "t",
				"Kind":            "dialing",
				"AdminSecretName": "admin",
				"addresses":       "db:1,https://api.example.test",
				"Config":          "",
			}},
		{"UpdateTarget", []string{"TargetName", "t", "Config", `{"address":"db:2","token":"marker"}`},
			map[string]string{"addresses": "db:2,https://api.example.test", "Config": ""}},
		{"CreateSecret",
			[]string{"SecretName", "db", "SecretData", `{"AccountName":"app","AccountPassword":"marker"}`, "VersionId", "v1"},
			map[string]string{"SecretData": ""}},
		{"PutSecretValue",
			[]string{"SecretName", "db", "SecretData", `{"AccountName":"app","AccountPassword":"marker-2"}`, "VersionId", "v2"},
			map[string]string{"SecretData": ""}},
		{"ConfigureRotation",
			[]string{"SecretName", "db", "TargetName", "t", "GracePeriod", "2h", "Window", "Mon-Fri 01:00-05:00"},
			map[string]string{"TargetName": "t", "GracePeriod": "2h", "Window": "Mon-Fri 01:00-05:00"}},
		{"SetSecretPolicy", []string{"SecretName", "db", "Policy", policy}, map[string]string{"Policy": policy}},
		{
			"CreatePolicy", []string{"PolicyName", "p", "PolicyDocument", document},
			map[string]string{"PolicyName": "p", "PolicyDocument": document},
		},
		{"CreatePolicyVersion", []string{"PolicyName", "p", "PolicyDocument", long, "SetAsDefault", "true"},
			map[string]string{"PolicyDocument": long[:maxTold], "SetAsDefault": "true"}},
	} {
		_, err := w.call(t, rootPrincipal, tt.operation, tt.params...)
		r := w.trail.last(t, tt.operation, audit.Intent)
		for name, want := range tt.want {
			if got := r.Details.Get(name); got != want {
				t.Errorf("%s (%v): %s is %q, want %q", tt.operation, err, name, got, want)
			}
		}
		if text, err := json.Marshal(r); err != nil || strings.Contains(string(text), "marker") {
			t.Errorf("%s: a value is on the trail: %s, %v", tt.operation, text, err)
		}
		if digest := r.Details.Get("PolicyDocument.sha256"); (digest != "") != (tt.operation == "CreatePolicyVersion") {
			t.Errorf("%s: digest %q", tt.operation, digest)
		}
	}
	w.must(t, "WatchSecrets", "Secret.1.SecretName", "admin", "Secret.2.SecretName", "none", "WaitSeconds", "0")
	if r := w.trail.last(t, "WatchSecrets", audit.Call); r.Details.Get("admin") != "a1" {
		t.Errorf("the record of what was reported: %+v", r.Details)
	}
}

// maxTold is how many bytes of one parameter the trail has.
const maxTold = 4096

// TestNoSecretIsTold holds for every change: no parameter with a value is on the trail.
func TestNoSecretIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(t, "CreateSecret", "SecretName", "a", "SecretData", "first", "VersionId", "v1")
	for _, name := range []string{"PutSecretValue", "CreateSecret", "RepairRotation", "PrepareTargetAccounts"} {
		_, _ = w.call(t, rootPrincipal, name, "SecretName", "a", "VersionId", "v9", "SecretData", "hidden-marker",
			"RepairAction", "adopt",
			"TargetName", "t", "AccountName", "x", "CloneAccountName", "y", "AccountPassword", "hidden-marker")
	}
	w.trail.mu.Lock()
	defer w.trail.mu.Unlock()
	for _, r := range w.trail.records {
		for _, d := range r.Details {
			if strings.Contains(d.Value, "hidden-marker") {
				t.Errorf("the record of %s has %s", r.Operation, d.Name)
			}
		}
	}
	if !slices.ContainsFunc(w.trail.records, func(r audit.Record) bool { return r.Operation == "RepairRotation" }) {
		t.Error("nothing was recorded")
	}
}

// TestValueInExtendedConfigIsNotTold verifies that a value which is given as ExtendedConfig by
// mistake does not reach the trail: its digest does.
func TestValueInExtendedConfigIsNotTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.call(t, rootPrincipal, "CreateSecret", "SecretName", "a", "VersionId", "v1", "SecretData", "x",
		"ExtendedConfig", `{"AccountName":"a","AccountPassword":"the-password-of-a"}`)
	if err == nil {
		t.Fatal("a Generic secret takes ExtendedConfig")
	}
	told := w.trail.last(t, "CreateSecret", audit.Intent).Details
	digest := slices.ContainsFunc(told, func(d audit.Detail) bool { return d.Name == "ExtendedConfig.sha256" })
	if !digest || slices.ContainsFunc(told, func(d audit.Detail) bool {
		return strings.Contains(d.Value, "the-password-of-a")
	}) {
		t.Errorf("the trail has %v", told)
	}
}

func detailsSize(d audit.Details) (n int) {
	for _, m := range d {
		n += len(m.Name) + len(m.Value)
	}
	return n
}

// TestLongParametersHideNothing changes a target with parameters that are as long as a caller may
// make them: the short ones are whole, each long one has its digest, and nothing is cut off.
func TestLongParametersHideNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dialing())
	w.must(t, "CreateSecret", "SecretName", "admin", "SecretData", adminValue, "VersionId", "a1")
	w.must(t, "RegisterTarget", "TargetName", "t", "Kind", "dialing", "AdminSecretName", "admin",
		"Config", `{"address":"db:1"}`)
	params := []string{
		"AdminSecretName", "other", "Config", `{"address":"db:6666","token":"marker"}`, "Description",
		strings.Repeat("d", 8192), "TargetName", "t",
	}
	var all strings.Builder
	for i := range 20 {
		name, value := fmt.Sprint("Account.", i+1), fmt.Sprint(i, strings.Repeat("x", 1000))
		params = append(params, name, value)
		fmt.Fprintf(&all, "%s=%s\n", name, value)
	}
	_, _ = w.call(t, rootPrincipal, "UpdateTarget", params...)
	told := w.trail.last(t, "UpdateTarget", audit.Intent).Details
	sum := func(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) }
	for name, want := range map[string]string{
		"AdminSecretName": "other", "TargetName": "t", "addresses": "db:6666,https://api.example.test",
		"Account.count": "20", "Account.sha256": sum(all.String()), "Account.1": "0" + strings.Repeat("x", 1000),
		"Description.sha256": sum(strings.Repeat("d", 8192)), "Description": strings.Repeat("d", 4096),
	} {
		if got := told.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if n := detailsSize(told); n > audit.MaxDetails {
		t.Errorf("the details have %d bytes: the trail cuts them", n)
	}
}

// TestShortParametersFit verifies of every change that its parameters, each as long as one may be
// that is recorded whole, and each longer, fit into a record.
func TestShortParametersFit(t *testing.T) {
	t.Parallel()
	for _, op := range protocol.Operations() {
		if !op.Mutates {
			continue
		}
		for _, size := range []int{512, 513, 20_000} {
			var params []string
			for _, p := range op.Params() {
				if p.Name == "Config" { // TestLongParametersHideNothing has one
					continue
				}
				params = append(params, p.Name, strings.Repeat("x", size))
			}
			if n := detailsSize(api.ParameterDetails(op, params...)); n > audit.MaxDetails {
				t.Errorf("%s with parameters of %d bytes: %d bytes of details", op.Name, size, n)
			}
		}
	}
}

// TestEveryResourceOfAReadIsRecorded: a read of several secrets names them all.
func TestEveryResourceOfAReadIsRecorded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	params := []string{"RegionId", "local", "ResourceType", "secret"}
	var arns []string
	for i := range 3 {
		name := fmt.Sprint("secret-", i)
		w.must(t, "CreateSecret", "SecretName", name, "SecretData", "x", "VersionId", "v1")
		params = append(params, fmt.Sprint("ResourceId.", i+1), name)
		arns = append(arns, name)
	}
	_, err := w.call(t, rootPrincipal, "ListTagResources", params...)
	told := w.trail.last(t, "ListTagResources", audit.Call)
	for i, name := range arns {
		if got := told.Details.Get(fmt.Sprint("resources.", i+1)); !strings.HasSuffix(got, "/"+name) {
			t.Errorf("%v: resource %d is %q, want the one of %s", err, i+1, got, name)
		}
	}
}
