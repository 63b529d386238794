package api

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/ram"
)

// simulatePolicy asks the question that the gate would ask if the user made the call, with the same
// code, and returns which statement decides.
func simulatePolicy(c *Call, in *ram.SimulatePolicyRequest) (*ram.SimulatePolicyResponse, error) {
	q, err := c.simulated(in)
	if err != nil {
		return nil, err
	}
	u, err := c.user(c.Snapshot, in.UserName)
	if err != nil {
		return nil, err
	}
	q.principal = policy.Principal{Kind: policy.KindRAMUser, Account: u.Account, Name: u.Name, ID: u.ID}
	// The caller's own policies may be in the snapshot already; the user's are read beside them.
	if q.identity, err = loadIdentity(c.Snapshot, q.principal, q.resource.secret); err != nil {
		return nil, err
	}
	further, partial, err := c.furtherQuestions(in, q)
	if err != nil {
		return nil, err
	}
	d, q, judged, err := c.judgeAll(q, further)
	if err != nil {
		return nil, err
	}
	out := shownDecision(q, d)
	out.Judged, out.Partial = judged, partial
	return out, nil
}

// judgeAll decides questions up to the first refusal, as the gate does. It returns the decision
// that counts with its question, and names the questions that were decided.
func (c *Call) judgeAll(first question, more []question) (d policy.Decision, q question, judged []string, err error) {
	for i, next := range append([]question{first}, more...) {
		judged = append(judged, next.action+" on "+next.resource.arn)
		decision, err := next.decide(c.Snapshot)
		if err != nil {
			return d, q, nil, err
		}
		if i == 0 || !decision.Allowed && (decision.Explicit || !next.resource.lenient) {
			d, q = decision, next
		}
		if !d.Allowed {
			break
		}
	}
	return d, q, judged, nil
}

// shownDecision returns a decision with the statement and the policy that made it.
func shownDecision(q question, d policy.Decision) *ram.SimulatePolicyResponse {
	out := &ram.SimulatePolicyResponse{
		Allowed:        d.Allowed,
		Decision:       ram.ImplicitDeny,
		Sid:            d.Sid,
		StatementIndex: d.Statement,
		Action:         q.action,
		Resource:       q.resource.arn,
		ByName:         isByName(q.action),
	}
	switch {
	case d.Allowed:
		out.Decision = ram.Allow
	case d.Explicit:
		out.Decision = ram.ExplicitDeny
	}
	switch d.Policy {
	case policy.PolicyIdentity:
		s := q.identity.sources[d.Document]
		out.PolicyName, out.PolicyType, out.GroupName = s.name, s.kind, s.group
	case policy.PolicySecret:
		out.PolicyName, out.PolicyType = policyName, ram.PolicyTypeSecret
	}
	return out
}

// furtherQuestions returns the questions about the other resources of the operation, for the secret
// that the request names. There are none when the request asks about a single action. The questions
// reveal accounts and targets of the secret, so the caller needs the right to describe its
// rotation; partial reports that this right is missing.
func (c *Call) furtherQuestions(
	in *ram.SimulatePolicyRequest, first question,
) (list []question, partial bool, err error) {
	i := slices.IndexFunc(c.table, func(e *endpoint) bool { return e.Name == in.Operation })
	if i < 0 || in.SecretName == "" || len(c.table[i].Also) == 0 {
		return nil, false, nil
	}
	name, err := c.secretName(in.SecretName)
	if err != nil {
		return nil, false, err
	}
	d, err := c.asking("kms:DescribeRotation", c.secretResource(name)).decide(c.Snapshot)
	if err != nil || !d.Allowed {
		return nil, true, err
	}
	o := c.table[i]
	request := reflect.New(o.Request())
	field := request.Elem().FieldByName("SecretName")
	if !field.IsValid() || field.Kind() != reflect.String {
		return nil, false, nil
	}
	field.SetString(name)
	resources, err := o.resources(c, request.Interface())
	if err != nil {
		return nil, false, nil // the call is refused for another reason than its rights
	}
	for _, r := range resources {
		action, err := o.needs(r)
		if err != nil || action == "" || action == first.action && r.arn == first.resource.arn {
			continue
		}
		q := first
		q.action, q.resource = action, r
		list = append(list, q)
	}
	return list, false, nil
}

// simulated returns the question of a request: action, resource and context.
func (c *Call) simulated(in *ram.SimulatePolicyRequest) (q question, err error) {
	q.context = c.policyContext()
	if s := in.ContextSourceIP; s != "" {
		address, err := netip.ParseAddr(s)
		if err != nil {
			return q, fault.Parameter("ContextSourceIp", "use an IPv4 or IPv6 address.")
		}
		q.context.SourceIP = address
	}
	if s := in.ContextSecureTransport; s != "" {
		q.context.SecureTransport = s == "true"
	}
	p, err := c.simulatedPermission(in.Operation)
	if err != nil {
		return q, err
	}
	q.action = p.Action
	q.resource, err = c.simulatedResource(p, in)
	return q, err
}

// simulatedPermission finds an action by its own name or by the name of its operation, also an
// action that operations need besides their own.
func (c *Call) simulatedPermission(name string) (operation.Permission, error) {
	if name == "" {
		return operation.Permission{}, fault.Required("Operation")
	}
	i := slices.IndexFunc(c.table, func(e *endpoint) bool {
		return e.Name == name || e.Action != "" && strings.EqualFold(e.Action, name)
	})
	switch {
	case i < 0:
		for _, o := range c.table {
			for _, p := range o.Also {
				if _, bare, _ := strings.Cut(p.Action, ":"); strings.EqualFold(p.Action, name) || bare == name {
					return p, nil
				}
			}
		}
		return operation.Permission{}, fault.Parameter("Operation",
			"there is no such operation or action; write one such as GetSecretValue.")
	case c.table[i].Action == "":
		return operation.Permission{}, fault.Parameter("Operation", "%s needs no permission.", c.table[i].Name)
	}
	return operation.Permission{Action: c.table[i].Action, Resource: c.table[i].Resource}, nil
}

func (c *Call) simulatedResource(p operation.Permission, in *ram.SimulatePolicyRequest) (resource, error) {
	switch {
	case in.Resource != "" && in.SecretName != "":
		return resource{}, fault.Parameter("Resource", "give SecretName or Resource, not both.")
	case containerOf(p.Resource) == "secret" && in.SecretName != "":
		// An operation that creates a secret is judged on the container, whatever the secret's name.
		_, err := c.secretName(in.SecretName)
		return resource{arn: c.containerARN()}, err
	case in.SecretName != "":
		name, err := c.secretName(in.SecretName)
		return c.secretResource(name), err
	case containerOf(p.Resource) != "" && strings.HasPrefix(in.Resource, c.kmsARN(containerOf(p.Resource))+"/"):
		return resource{arn: c.kmsARN(containerOf(p.Resource))}, nil
	case in.Resource != "":
		if _, ok := policy.ParseARN(in.Resource); !ok && in.Resource != "*" {
			return resource{}, fault.Parameter("Resource", "write * or five parts such as acs:kms:%s:%s:secret/app.",
				c.Region, c.Account())
		}
		if name, ok := strings.CutPrefix(in.Resource, c.containerARN()+"/"); ok {
			return c.secretResource(name), nil
		}
		return resource{arn: in.Resource}, nil
	case p.Resource == "*":
		return resource{arn: "*"}, nil
	case p.Resource == "secret":
		return resource{arn: c.containerARN()}, nil
	case isByName(p.Action):
		return resource{arn: c.kmsARN(p.Resource)}, nil
	case strings.HasSuffix(p.Resource, "/*"):
		return c.ramResource(p.Resource), nil
	case strings.HasPrefix(p.Resource, "secret/"):
		return resource{}, fault.Required("SecretName")
	}
	return resource{}, fault.Required("Resource")
}

// containerOf returns the collection that an operation is judged on first, from its declared
// resources; empty when that is a single resource.
func containerOf(declared string) string {
	first, _, _ := strings.Cut(declared, " and ")
	if first == "secret" || first == "target" {
		return first
	}
	return ""
}

// isByName reports whether only a statement that names the resource allows the action.
func isByName(action string) bool {
	o := protocol.OfAction(action)
	return o != nil && o.ByName
}
