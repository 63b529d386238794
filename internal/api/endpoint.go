package api

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/cmk"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/users"
	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/ram"
)

const arnPrefix = "acs:kms:"

// endpoint is an operation with the functions that serve it.
type endpoint struct {
	*operation.Op

	resources func(c *Call, in any) ([]resource, error)
	run       func(ctx context.Context, c *Call, in any) (any, error)
}

// handler serves one operation.
type handler[In, Out any] func(ctx context.Context, c *Call, in *In) (*Out, error)

// finder adds to list the resources that the declaration of an operation does not name. list holds
// those that it names.
type finder[In any] func(c *Call, in *In, list []resource) ([]resource, error)

func endpointOf[In, Out any](o *operation.Op, h handler[In, Out], find ...finder[In]) *endpoint {
	if o.Rotates && len(find) == 0 {
		find = []finder[In]{func(c *Call, _ *In, list []resource) ([]resource, error) {
			return c.andAccounts(list, list[0].secret, nil)
		}}
	}
	return &endpoint{
		Op: o,
		resources: func(c *Call, in any) ([]resource, error) {
			list, err := c.declared(o, in)
			for _, f := range find {
				if err != nil {
					break
				}
				list, err = f(c, in.(*In), list)
			}
			return list, err
		},
		run: func(ctx context.Context, c *Call, in any) (any, error) {
			out, err := h(ctx, c, in.(*In))
			if err != nil {
				return nil, err
			}
			return out, nil
		},
	}
}

// resource is something that a call needs a right on.
type resource struct {
	arn     string // or "*"
	secret  string // the name, if it is a secret
	action  string // one of Op.Also; empty means Op.Action
	lenient bool   // needs no Allow; a Deny refuses the call
}

// unlessDenied returns r as a resource that needs no Allow, while a Deny of any policy refuses the
// call. It is for a secret that the operation uses and does not reveal, and for another spelling of
// an account.
func (r resource) unlessDenied() resource { r.lenient = true; return r }

// needing returns r with an action other than the one of the operation.
func (r resource) needing(action string) resource { r.action = action; return r }

// needs returns the action that a caller needs on r; empty means that any caller may. It refuses an
// action that the operation does not declare, because the simulation and the documents would not
// know it.
func (e *endpoint) needs(r resource) (string, error) {
	declared := func(p operation.Permission) bool { return p.Action == r.action }
	switch {
	case r.action == "" || r.action == e.Action:
		return e.Action, nil
	case slices.ContainsFunc(e.Also, declared):
		return r.action, nil
	}
	return "", fmt.Errorf("operation %s needs the action %s and does not declare it", e.Name, r.action)
}

// declared returns the resources that the declaration of an operation names: its collection, or the
// resources that the request names in fields with a resource tag. It replaces an ARN in such a
// field by the name.
func (c *Call) declared(o *operation.Op, in any) ([]resource, error) {
	switch {
	case o.Collection == "*":
		return []resource{{arn: "*"}}, nil
	case o.Collection != "" && o.Version == ram.Version:
		return []resource{c.ramResource(o.Collection)}, nil
	case o.Collection != "":
		return []resource{{arn: c.kmsARN(o.Collection)}}, nil
	}
	var list []resource
	params := o.Params()
	for i := range params {
		if params[i].Resource == "" {
			continue
		}
		r, err := c.named(&params[i], params, in)
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, nil
}

// named returns the resource that one parameter of a request names.
func (c *Call) named(p *wire.Param, all []wire.Param, in any) (r resource, err error) {
	name := p.Text(in)
	switch p.Resource {
	case "secret":
		if *name, err = c.secretName(*name); err != nil {
			return r, err
		}
		return c.secretResource(*name), nil
	case "target":
		return c.targetResource(*name), nil
	case "key":
		id := strings.TrimPrefix(*name, cmk.ARN(c.Region, c.Account(), ""))
		return resource{arn: cmk.ARN(c.Region, c.Account(), id)}, nil
	case "user-or-self":
		if *name == "" && c.Principal.Kind == policy.KindRAMUser {
			*name = c.Principal.Name
		}
		if *name == "" && c.Principal.Kind == policy.KindAccount {
			return c.ramResource("root"), nil
		}
		return c.ramResource("user/" + *name), users.CheckUserName(p.Name, *name)
	case "user":
		return c.ramResource("user/" + *name), users.CheckUserName(p.Name, *name)
	case "group":
		return c.ramResource("group/" + *name), users.CheckGroupName(p.Name, *name)
	case "policy":
		return c.policyResource(p.Name, *name, typeOfPolicy(all, in))
	}
	return r, fmt.Errorf("parameter %s names a resource of kind %s, of which nothing is known", p.Name, p.Resource)
}

// typeOfPolicy returns the parameter PolicyType of a request. A request without it is about a
// custom policy.
func typeOfPolicy(all []wire.Param, in any) string {
	for i := range all {
		if all[i].Name == "PolicyType" {
			return *all[i].Text(in)
		}
	}
	return users.Custom
}

func (c *Call) policyResource(parameter, name, kind string) (resource, error) {
	if err := users.CheckPolicyName(parameter, name); err != nil {
		return resource{}, err
	}
	if kind == users.System {
		return resource{arn: policy.ARN("ram", "", policy.SystemAccount, "policy/"+name)}, nil
	}
	return c.ramResource("policy/" + name), users.CheckPolicyType(kind)
}

// kmsARN returns the ARN of a resource of this service, such as a collection, a target or a part of
// the server.
func (c *Call) kmsARN(relative string) string {
	return arnPrefix + c.Region + ":" + c.Account() + ":" + relative
}

func (c *Call) containerARN() string { return c.kmsARN("secret") }

func (c *Call) secretResource(name string) resource {
	return resource{arn: secret.ARN(c.Region, c.Account(), name), secret: name}
}

// secretName returns the name of a secret from its name or ARN. It returns an error of kind
// NotFound for an ARN of another region or account.
func (c *Call) secretName(s string) (string, error) {
	if !strings.HasPrefix(s, arnPrefix) {
		return s, nil
	}
	name, ok := strings.CutPrefix(s, secret.ARN(c.Region, c.Account(), ""))
	switch {
	case !ok:
		return "", fault.New(fault.NotFound, "The ARN is not of a secret in region %s and the caller's account.",
			c.Region)
	case !isSecretName(name):
		return "", fault.Parameter("SecretName", "the name in the ARN has %s", secretNameRule)
	}
	return name, nil
}

// secretNameRule says which names isSecretName accepts.
const secretNameRule = "1 to 192 letters, digits and _ / + = . @ -"

func isSecretName(name string) bool { return len(name) <= 192 && wire.IsName(name) }
