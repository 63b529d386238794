package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/time/rate"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/deadline"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/ram"
)

// Recorder keeps the audit trail. With durable, Append returns when the record is on disk; without,
// when it has left the process. Append bounds its own wait.
type Recorder interface {
	Append(ctx context.Context, r audit.Record, durable bool) error
}

// Gate is the only way to an operation.
type Gate struct {
	env       *Env
	audit     Recorder
	endpoints map[*operation.Op]*endpoint
	logins    *loginWindows
	admins    *adminLimit
	hurries   *hurries

	// strangers counts the calls of unverified callers by source, keys the calls of verified callers
	// by access key.
	strangers, keys *tallies
	late            []audit.Record // counts that could not be written; used by RunTallies only
	unrecorded      atomic.Bool    // counts wait because the trail refuses records
}

const (
	// Records per second, and how many at once, of calls that have had no effect.
	strangerRecords, strangerRecordsAtOnce       = 1, 20   // of one source without a valid signature
	allStrangerRecords, allStrangerRecordsAtOnce = 40, 200 // of all such sources
	keyRecords, keyRecordsAtOnce                 = 10, 100 // of one access key
)

// NewGate returns the gate of a server.
func NewGate(env *Env, recorder Recorder) *Gate {
	all := rate.NewLimiter(allStrangerRecords, allStrangerRecordsAtOnce)
	return &Gate{
		env:       env,
		audit:     recorder,
		endpoints: byOperation(served),
		logins:    newLoginWindows(),
		admins:    newAdminLimit(),
		hurries:   newHurries(),
		strangers: newTallies(strangerRecords, strangerRecordsAtOnce, all),
		keys:      newTallies(keyRecords, keyRecordsAtOnce, nil),
	}
}

// Call carries out one operation for a verified caller and returns a pointer to its response
// struct. op is nil when the request names no operation. A call that cannot be recorded does not
// happen: when the audit trail refuses its record, Call returns an error.
func (g *Gate) Call(ctx context.Context, op *operation.Op, r protocol.Request) (any, error) {
	c := &Call{
		Env:     g.env,
		gate:    g,
		Request: r,
		At:      g.env.Now().UTC(),
		op:      g.endpoints[op],
		table:   served,
	}
	if c.op != nil {
		c.Action, c.Version = op.Name, op.Version
	}
	defer c.releaseAdmins()
	out, err := g.call(ctx, c)
	if isDryRun(c) {
		err = dryRun(err)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (g *Gate) call(ctx context.Context, c *Call) (any, error) {
	g.env.Uses.Note(c.Principal.AccessKeyID, c.At)
	in, err := g.admit(c)
	if err != nil {
		return nil, g.refuse(ctx, c, "", err)
	}
	c.gone, c.began = ctx.Done(), c.At
	// A caller that hangs up must not stop the call halfway, nor its record. The deadline bounds
	// both.
	bounded := deadline.After(context.WithoutCancel(ctx), c.op.Deadline)
	defer bounded.Cancel()
	return g.judged(bounded, c, in)
}

// judged evaluates the policies and, when they allow the call, carries it out.
func (g *Gate) judged(ctx context.Context, c *Call, in any) (any, error) {
	c.Snapshot = store.Snapshot(ctx, g.env.DB)
	resources, err := c.op.resources(c, in)
	if err != nil {
		return nil, g.refuse(ctx, c, "", err)
	}
	c.resource = audited(c.op, resources)
	if err := g.authorise(c, resources); err != nil {
		return nil, g.refuse(ctx, c, decisionOf(err), err)
	}
	if c.op.Mutates {
		return g.mutate(ctx, c, in)
	}
	c.details = several(resources)
	// The trail has one record of a read, and an agent passes it on: its handler must not write. Only
	// [Consumers.Sync] may, and goroutines that write notes of their own.
	out, err := run(store.ReadOnly(ctx, c.op.Name), c, in)
	return answer(c, out), cmp.Or(g.recordRead(ctx, c, outcome(err)), err)
}

// run calls the handler. A panic in a handler ends this call alone; it is recorded and logged like
// any other internal error.
func run(ctx context.Context, c *Call, in any) (out any, err error) {
	defer func() {
		if r := recover(); r != nil {
			out, err = nil, fmt.Errorf("%s panicked: %v\n%s", c.op.Name, r, debug.Stack())
		}
	}()
	return c.op.run(ctx, c, in)
}

// audited returns the resource that the audit record names. A change of rights names both, the user
// or group and the policy.
func audited(o *endpoint, resources []resource) resource {
	r := resources[0]
	if o.Version == ram.Version && len(resources) == 2 {
		r.arn += "," + resources[1].arn
	}
	return r
}

// admit refuses a call of no operation and decodes the parameters of any other.
func (g *Gate) admit(c *Call) (any, error) {
	if c.op == nil {
		return nil, protocol.NotFound(c.Version, c.Action)
	}
	if c.Method != "" && !slices.Contains(c.op.Methods, c.Method) {
		return nil, fault.New(fault.Method, "%s takes %s.", c.op.Name, strings.Join(c.op.Methods, " or "))
	}
	if err := c.refuseDryRun(); err != nil {
		return nil, err
	}
	version, _ := c.Params.Get("VersionId")
	stage, _ := c.Params.Get("VersionStage")
	c.concerns(version, stage)
	return c.op.Decode(c.Params)
}

// mutate handles a call that changes something, between its two records.
func (g *Gate) mutate(ctx context.Context, c *Call, in any) (out any, err error) {
	c.details = c.parameterDetails()
	err = g.recordTwice(ctx, c, func() error {
		out, err = run(ctx, c, in)
		return err
	})
	return answer(c, out), err
}

// recordTwice records the intent of a change on disk, makes the change, and records its outcome on
// disk. A change whose intent cannot be recorded is not made.
func (g *Gate) recordTwice(ctx context.Context, c *Call, change func() error) error {
	if err := g.record(ctx, c, audit.Intent, "", true); err != nil {
		return err
	}
	c.details = nil // the outcome has the same request ID
	err := change()
	return cmp.Or(g.record(ctx, c, audit.Outcome, outcome(err), true), err)
}

// refuse records a call that does not reach its handler. It changes nothing, so the record need not
// be on disk first.
func (g *Gate) refuse(ctx context.Context, c *Call, d audit.Decision, err error) error {
	if rerr := g.note(ctx, c, d, outcome(err)); rerr != nil {
		return rerr
	}
	return err
}

// Refuse records a request that does not reach the gate. A request without a principal has no
// verified caller: its signature is not valid, or it could not be decoded. The record then marks
// its content as a claim.
func (g *Gate) Refuse(ctx context.Context, r protocol.Request, accessKeyID string, err error) error {
	unverified := r.Principal.Kind == ""
	r.Principal.AccessKeyID = protocol.Clip(accessKeyID)
	r.Action = cmp.Or(protocol.Clip(r.Action), "-")
	return g.refuse(ctx, &Call{Env: g.env, Request: r, unverified: unverified}, audit.Deny, err)
}

// record records a phase of a call that the policies allow.
func (g *Gate) record(ctx context.Context, c *Call, phase audit.Phase, outcome string, durable bool) error {
	return g.append(ctx, c, recordOf(c, phase, audit.Allow, outcome), durable)
}

// recordRead records a read that was allowed. A read that needs no right may be counted instead,
// because any access key can repeat it at will.
func (g *Gate) recordRead(ctx context.Context, c *Call, outcome string) error {
	if c.op.Action == "" {
		return g.note(ctx, c, audit.Allow, outcome)
	}
	return g.record(ctx, c, audit.Call, outcome, false)
}

// recordOf returns the audit record of a call.
func recordOf(c *Call, phase audit.Phase, d audit.Decision, outcome string) audit.Record {
	service, operation := "Kms", c.Action
	if c.op != nil {
		service, operation = c.op.Service.Name, c.op.Name
	}
	p := c.Principal
	return audit.Record{
		RequestID:     c.ID,
		Phase:         phase,
		Principal:     p.ARN(),
		PrincipalType: string(p.Kind),
		AccessKeyID:   p.AccessKeyID,
		Account:       p.Account,
		Source:        c.source(),
		UserAgent:     clippedText(c.UserAgent, maxAgent),
		Service:       service,
		APIVersion:    protocol.Clip(c.Version),
		Operation:     protocol.Clip(cmp.Or(operation, "-")),
		Action:        c.resource.action,
		Resource:      c.resource.arn,
		VersionID:     c.detail.version,
		VersionStage:  c.detail.stage,
		Decision:      d,
		Outcome:       outcome,
		Details:       c.details,
	}
}

func (g *Gate) append(ctx context.Context, c *Call, r audit.Record, durable bool) error {
	err := g.audit.Append(context.WithoutCancel(ctx), r, durable) // a caller that has hung up is recorded too
	if err == nil {
		return nil
	}
	g.env.Log.Error("audit record not written", "request_id", c.ID, "operation", r.Operation, "phase", string(r.Phase),
		"err", err)
	if r.Phase == audit.Outcome {
		return fault.Wrap(fault.Unavailable, err,
			"The change was made, but its outcome could not be recorded; read before trying again.")
	}
	return fault.Wrap(fault.Unavailable, err, "The call could not be recorded, so it was not made; try again.")
}

func (c *Call) source() string {
	if !c.Source.IsValid() {
		return ""
	}
	return c.Source.String()
}

// outcome returns the outcome that an audit record gives for err.
func outcome(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, store.ErrUnknown):
		return "unknown"
	}
	return protocol.CodeFor(err).Code
}

// answer puts the ID of the request into its response.
func answer(c *Call, out any) any {
	if out != nil {
		wire.SetRequestID(reflect.ValueOf(out).Elem(), c.ID)
	}
	return out
}

// authorise evaluates the policies for every resource; one refusal refuses the whole call. It runs
// before any check of existence, so a caller without rights cannot find out which names exist.
func (g *Gate) authorise(c *Call, resources []resource) error {
	c.passed = nil
	return g.permits(c, resources)
}

// permits evaluates the policies for further resources of a call.
func (g *Gate) permits(c *Call, resources []resource) error {
	for _, r := range resources {
		action, err := c.op.needs(r)
		if err != nil {
			return err
		}
		if action == "" {
			continue
		}
		d, err := g.decide(c, r, action)
		if err != nil {
			return err
		}
		if !d.Allowed && (d.Explicit || !r.lenient) {
			c.resource = r
			return denied(c, action, d)
		}
		if r.secret != "" {
			c.passed = append(c.passed, r.secret)
		}
	}
	return nil
}

// decide judges one action on one resource. It returns an error when there is no decision, because
// the store does not answer or a record or policy in it is damaged. The call is refused either way.
func (g *Gate) decide(c *Call, r resource, action string) (policy.Decision, error) {
	if c.identity == nil {
		var err error
		if c.identity, err = loadIdentity(c.Snapshot, c.Principal, r.secret); err != nil {
			return policy.Decision{}, err
		}
	}
	return c.asking(action, r).decide(c.Snapshot)
}

func denied(c *Call, action string, d policy.Decision) error {
	detail := protocol.Denial{
		AuthAction:               action,
		AuthPrincipalType:        principalType(c.Principal.Kind),
		AuthPrincipalOwnerID:     c.Account(),
		AuthPrincipalDisplayName: displayName(c.Principal),
		NoPermissionType:         "ImplicitDeny",
		PolicyType:               "AccountLevelIdentityBasedPolicy",
	}
	if d.Explicit {
		detail.NoPermissionType = "ExplicitDeny"
	}
	if d.Policy == policy.PolicySecret {
		detail.PolicyType = "ResourceBasedPolicy"
	}
	refusal := fault.New(fault.Denied, "")
	if c.op.Version == ram.Version {
		refusal.Code = ram.CodeNoPermission
	}
	return &protocol.DeniedError{Fault: refusal, Detail: detail}
}

func displayName(p policy.Principal) string {
	switch p.Kind {
	case policy.KindAccount:
		return "root"
	case policy.KindAssumedRole:
		return p.Name + ":" + p.Session
	}
	return p.Name
}

func principalType(k policy.PrincipalKind) string {
	if k == policy.KindRAMUser {
		return "SubUser"
	}
	return string(k)
}

func decisionOf(err error) audit.Decision {
	if fault.KindOf(err) == fault.Denied {
		return audit.Deny
	}
	return ""
}
