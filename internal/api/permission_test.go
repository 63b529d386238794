package api

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
)

type lastRecord struct{ audit.Record }

func (l *lastRecord) Append(_ context.Context, r audit.Record, _ bool) error {
	l.Record = r
	return nil
}

// permissionCall is a call of an operation whose second resource needs an action of no operation.
func permissionCall(t *testing.T, declared bool) (*Gate, *lastRecord, *Call, []resource) {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	log := &lastRecord{}
	env := &Env{DB: db, Region: "local", Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	service := operation.Service{Name: "Kms", Version: kms.Version}
	d := operation.Declare[kms.DescribeRegionsRequest, kms.DescribeRegionsResponse](service, "Fly").On("*")
	if declared {
		d = d.AlsoNeeds("kms:LeaveTheGround", "target/${TargetName}")
	}
	e := endpointOf(d.Op(), immediate(describeRegions))
	principal := policy.Principal{Kind: policy.KindRAMUser, Account: "1234567890123456", Name: "bob", ID: "1"}
	c := &Call{Env: env, Request: protocol.Request{Principal: principal}, At: env.Now(), op: e, table: []*endpoint{e}}
	c.Snapshot = store.Snapshot(t.Context(), db)
	allowFly, err := policy.ParseIdentity(
		`{"Version":"1","Statement":[{"Effect":"Allow","Action":"kms:Fly","Resource":"*"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	c.identity = &identity{documents: []policy.Document{allowFly}, sources: []source{{}}}
	return NewGate(env, log), log, c, []resource{{arn: "*"}, c.targetResource("balloon").needing("kms:LeaveTheGround")}
}

// TestPermissionOfItsOwn verifies that a resource may need another action than the operation's: a
// caller with the operation's action alone is refused, and both the refusal and its audit record
// name the action that he lacks.
func TestPermissionOfItsOwn(t *testing.T) {
	t.Parallel()
	g, log, c, resources := permissionCall(t, true)
	err := g.authorise(c, resources)
	var d *protocol.DeniedError
	if !errors.As(err, &d) || d.Detail.AuthAction != "kms:LeaveTheGround" {
		t.Fatalf("authorise = %v; want a refusal that names kms:LeaveTheGround", err)
	}
	if err := g.refuse(t.Context(), c, decisionOf(err), err); !errors.As(err, &d) {
		t.Fatal(err)
	}
	if log.Operation != "Fly" && log.Operation != "-" ||
		log.Action != "kms:LeaveTheGround" ||
		!strings.HasSuffix(log.Resource, ":target/balloon") {
		t.Errorf("recorded: operation %q, action %q, resource %q", log.Operation, log.Action, log.Resource)
	}
	if err := g.authorise(c, resources[:1]); err != nil {
		t.Errorf("without that resource: %v", err)
	}
}

// TestUndeclaredPermission verifies that an action which the operation does not declare refuses the
// call.
func TestUndeclaredPermission(t *testing.T) {
	t.Parallel()
	g, _, c, resources := permissionCall(t, false)
	if err := g.authorise(c, resources); err == nil || !strings.Contains(err.Error(), "does not declare") {
		t.Errorf("authorise = %v; want an error", err)
	}
}

// TestSimulationKnowsPermissions verifies that the simulation takes an action which is no
// operation's own.
func TestSimulationKnowsPermissions(t *testing.T) {
	t.Parallel()
	_, _, c, _ := permissionCall(t, true)
	p, err := c.simulatedPermission("kms:leavetheground")
	if err != nil || p.Action != "kms:LeaveTheGround" {
		t.Fatalf("simulatedPermission = %v, %v", p, err)
	}
	if _, err := c.simulatedResource(p, &ram.SimulatePolicyRequest{}); err == nil {
		t.Error("no resource was named, and none missed")
	}
	if r, err := c.simulatedResource(p,
		&ram.SimulatePolicyRequest{Resource: "acs:kms:local:1234567890123456:target/x"}); err != nil ||
		r.secret != "" {
		t.Errorf("simulatedResource = %v, %v", r, err)
	}
	if _, err := c.simulatedPermission("kms:Land"); err == nil {
		t.Error("an unknown action is taken")
	}
}

// TestRotationFindsItsAccounts verifies that an operation which rotates and does not have its
// accounts judged is refused, for every caller.
func TestRotationFindsItsAccounts(t *testing.T) {
	t.Parallel()
	c := &Call{Env: &Env{Region: "local"}}
	if err := c.wasJudged("db", changes{target: "db", names: []string{"app"}}); err == nil {
		t.Error("accounts that were not judged may be changed")
	}
	c.judgedChanges = []judgement{{changes: changes{target: "db", names: []string{"app"}}}}
	for ch, ok := range map[string]bool{"db/app": true, "db/other": false, "other/app": false} {
		name, account, _ := strings.Cut(ch, "/")
		if err := c.wasJudged("db", changes{target: name, names: []string{account}}); (err == nil) != ok {
			t.Errorf("%s: %v", ch, err)
		}
	}
}
