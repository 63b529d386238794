package api

import (
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

// Recorder keeps the audit trail. With durable set, Append returns when the record is on disk;
// without, when it has left the process. It bounds its own wait.
type Recorder interface {
	Append(ctx context.Context, r audit.Record, durable bool) error
}

// Gate is the one way to an operation.
type Gate struct {
	env       *Env
	audit     Recorder
	endpoints map[*operation.Op]*endpoint

	// strangers count calls of unverified callers by source, keys those of verified callers by
	// access key.
	strangers, keys *tallies
	late            []audit.Record // belongs to RunTallies; numbers that could not be written
	unrecorded      atomic.Bool    // numbers wait because the trail takes none
}

const (
	// Records per second, and how many at once, of calls that have had no effect.
	strangerRecords, strangerRecordsAtOnce       = 1, 20   // of one source without a valid signature
	allStrangerRecords, allStrangerRecordsAtOnce = 40, 200 // of all such sources
	keyRecords, keyRecordsAtOnce                 = 10, 100 // of one access key
)

// NewGate returns the gate before the operations.
func NewGate(env *Env, recorder Recorder) *Gate {
	all := rate.NewLimiter(allStrangerRecords, allStrangerRecordsAtOnce)
	return &Gate{
		env:       env,
		audit:     recorder,
		endpoints: byOperation(served),
		strangers: newTallies(strangerRecords, strangerRecordsAtOnce, all),
		keys:      newTallies(keyRecords, keyRecordsAtOnce, nil),
	}
}

// Call does one operation for a verified caller, and returns a pointer to its response struct. op
// is nil when the request names no operation. What cannot be recorded does not happen: when the
// audit trail refuses a record, so does the call.
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
	// A caller who hangs up cannot stop the call halfway, its record least of all: the deadline
	// bounds both.
	bounded := deadline.After(context.WithoutCancel(ctx), c.op.Deadline)
	defer bounded.Cancel()
	return g.judged(bounded, c, in)
}

// judged has the policies decide, and does what they allow.
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
		return g.change(ctx, c, in)
	}
	c.details = several(resources)
	out, err := run(ctx, c, in)
	if rerr := g.recordRead(ctx, c, outcome(err)); rerr != nil {
		return nil, rerr
	}
	return answer(c, out), err
}

// run calls the handler. A panic in it is a fault of ours: it ends this call alone, and is recorded
// and logged like any other failure.
func run(ctx context.Context, c *Call, in any) (out any, err error) {
	defer func() {
		if r := recover(); r != nil {
			out, err = nil, fmt.Errorf("%s panicked: %v\n%s", c.op.Name, r, debug.Stack())
		}
	}()
	return c.op.run(ctx, c, in)
}

// audited is the resource that the audit trail names. A change of who may do what is told in full:
// the user and the policy.
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
	version, _ := c.Params.Get("VersionId")
	stage, _ := c.Params.Get("VersionStage")
	c.concerns(version, stage)
	return c.op.Decode(c.Params)
}

// change records the intent on disk, makes the change, and records its outcome on disk before the
// reply. Once the effect may have happened, its record is finished whatever becomes of the caller.
func (g *Gate) change(ctx context.Context, c *Call, in any) (any, error) {
	c.details = c.told()
	if err := g.record(ctx, c, audit.Intent, audit.Allow, "", true); err != nil {
		return nil, err
	}
	c.details = nil // the outcome has the same request ID
	out, err := run(ctx, c, in)
	if rerr := g.record(context.WithoutCancel(ctx), c, audit.Outcome, audit.Allow, outcome(err), true); rerr != nil {
		return nil, rerr
	}
	return answer(c, out), err
}

// refuse records a call that did not reach its handler. A refusal changes nothing, so it need not
// be on disk first.
func (g *Gate) refuse(ctx context.Context, c *Call, d audit.Decision, err error) error {
	if rerr := g.note(ctx, c, d, outcome(err)); rerr != nil {
		return rerr
	}
	return err
}

// Refuse records a request that does not come to the gate. Without a principal no caller was found
// for it: its signature did not verify, or it could not be decoded. What it claims to be is
// recorded as a claim.
func (g *Gate) Refuse(ctx context.Context, r protocol.Request, accessKeyID string, err error) error {
	unverified := r.Principal.Kind == ""
	r.Principal.AccessKeyID = protocol.Clip(accessKeyID)
	r.Action = protocol.Clip(r.Action)
	if r.Action == "" {
		r.Action = "-"
	}
	return g.refuse(ctx, &Call{Env: g.env, Request: r, unverified: unverified}, audit.Deny, err)
}

func (g *Gate) record(
	ctx context.Context, c *Call, phase audit.Phase, d audit.Decision, outcome string, durable bool,
) error {
	return g.append(ctx, c, recordOf(c, phase, d, outcome), durable)
}

// recordRead records a call that was let through and changes nothing. One that needs no right may
// be counted instead: any access key can make it at will.
func (g *Gate) recordRead(ctx context.Context, c *Call, outcome string) error {
	if c.op.Action == "" {
		return g.note(ctx, c, audit.Allow, outcome)
	}
	return g.record(ctx, c, audit.Call, audit.Allow, outcome, false)
}

// recordOf is what the trail says of a call.
func recordOf(c *Call, phase audit.Phase, d audit.Decision, outcome string) audit.Record {
	service, operation := "Kms", c.Action
	if c.op != nil {
		service, operation = c.op.Service.Name, c.op.Name
	}
	if operation == "" {
		operation = "-"
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
		Operation:     protocol.Clip(operation),
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
	err := g.audit.Append(context.WithoutCancel(ctx), r, durable) // who has gone is recorded like any other
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

// outcome is what the audit trail says of an error.
func outcome(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, store.ErrUnknown):
		return "unknown"
	}
	return protocol.CodeFor(err).Code
}

// answer puts the request's ID into its response.
func answer(c *Call, out any) any {
	if out != nil {
		wire.SetRequestID(reflect.ValueOf(out).Elem(), c.ID)
	}
	return out
}

// authorise evaluates the policies for every resource; one refusal refuses the whole call. It comes
// before existence, so that a caller without rights cannot find out which names there are.
func (g *Gate) authorise(c *Call, resources []resource) error {
	c.passed = nil
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

// decide judges one action on one resource. An error is no decision: a store that does not answer,
// or a record or a policy in it that is damaged, which is logged. Either way the call is refused.
func (g *Gate) decide(c *Call, r resource, action string) (policy.Decision, error) {
	if c.identity == nil {
		var err error
		if c.identity, err = loadIdentity(c.Snapshot, c.Principal, r.secret); err != nil {
			return policy.Decision{}, err
		}
	}
	q := c.asking(action, r)
	return q.decide(c.Snapshot)
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
	switch k {
	case policy.KindRAMUser:
		return "SubUser"
	default:
		return string(k)
	}
}

func decisionOf(err error) audit.Decision {
	if fault.KindOf(err) == fault.Denied {
		return audit.Deny
	}
	return ""
}

// isDryRun reports whether a call asks for a check alone. Its parameters may not have been decoded.
func isDryRun(c *Call) bool {
	s, _ := c.Params.Get("DryRun")
	return c.op != nil && c.op.DryRun && strings.EqualFold(s, "true")
}

// dryRun turns the outcome of a dry run into its error: a dry run never succeeds.
func dryRun(err error) error {
	switch kind := fault.KindOf(err); kind {
	case fault.OK:
		return fault.New(fault.DryRunOK, "")
	case fault.Denied:
		return fault.New(fault.DryRunDenied, "")
	case fault.Internal, fault.Unavailable, fault.Throttled:
		return err
	default:
		return fault.New(fault.DryRunInvalid, "%s", protocol.CodeFor(err).Message)
	}
}
