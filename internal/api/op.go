package api

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/cmk"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sign"
)

const (
	defaultDeadline = 10 * time.Second
	arnPrefix       = "acs:kms:"
	// onSecret is the resource of an operation on the secret that its parameter SecretName names.
	onSecret = "secret/${SecretName}"
)

// Op is one operation of the API.
type Op struct {
	Name    string
	Version string
	// Methods are the HTTP methods that it takes.
	Methods []string
	// Action is what a policy must allow, such as kms:GetSecretValue; empty means that any caller may.
	Action string
	// Resource says in the words of the contract what the action is on.
	Resource string
	// Also are the actions that some calls need besides Action, each on what its Resource says.
	Also []Permission
	// Change says that the operation changes something: it is recorded before and after.
	Change bool
	// Grantable says that the policy of a secret may allow the action to whom it names. A Deny of that policy counts for every
	// operation that has the secret among its resources.
	Grantable bool
	// Repairs says that the operation reads or replaces the policy of a secret, which no Deny of it takes from the root account.
	Repairs bool
	// ByName says that the operation is on the server itself: of the policies of a user, only a statement
	// that names the resource allows it.
	ByName bool
	// Deadline bounds the handling.
	Deadline time.Duration
	// Waits says that the operation may wait for something to happen, for as long as its caller stays.
	Waits bool

	in, out   reflect.Type
	resources func(c *Call, in any) ([]resource, error)
	run       func(ctx context.Context, c *Call, in any) (any, error)
}

// Permission is an action together with what it is on, in the words of the contract.
type Permission struct{ Action, Resource string }

// Params describes the parameters of the operation.
func (o *Op) Params() []wire.Param { return wire.Params(o.in) }

// Response is the type of its answer.
func (o *Op) Response() reflect.Type { return o.out }

// Secret returns the name or ARN of the secret that a request of the operation is on, as the caller
// has spelled it. ok is false for an operation that is on something else, too or instead.
func (o *Op) Secret(in any) (name string, ok bool) {
	if o.Resource != onSecret || len(o.Also) > 0 {
		return "", false
	}
	field := reflect.ValueOf(in).Elem().FieldByName("SecretName")
	if !field.IsValid() || field.Kind() != reflect.String {
		return "", false
	}
	return field.String(), true
}

// Service is the name of the service that the operation belongs to.
func (o *Op) Service() string { return Service(o.Version) }

// resource is what an operation is about.
type resource struct {
	arn     string // or "*"
	secret  string // the name, when it is a secret
	action  string // what is needed on it, one of Op.Also; empty means Op.Action
	lenient bool   // no Allow is needed; a Deny refuses the call
}

// unlessDenied returns r as a resource on which nothing needs to be allowed, while a Deny of any policy refuses the call: a
// secret that the operation uses and does not give away.
func (r resource) unlessDenied() resource { r.lenient = true; return r }

// needing returns r with another action than the operation's own.
func (r resource) needing(action string) resource { r.action = action; return r }

// needs returns the action that a caller needs on r; empty means that any caller may. An action that the operation does
// not declare is an error: the simulation and the documents would not know it.
func (o *Op) needs(r resource) (string, error) {
	declared := func(p Permission) bool { return p.Action == r.action }
	switch {
	case r.action == "" || r.action == o.Action:
		return o.Action, nil
	case slices.ContainsFunc(o.Also, declared):
		return r.action, nil
	}
	return "", fmt.Errorf("operation %s needs the action %s and does not declare it", o.Name, r.action)
}

// on says how an operation finds its resources in its request.
type on[In any] struct {
	text string
	find func(c *Call, in *In) ([]resource, error)
}

// handler is one operation's function.
type handler[In, Out any] func(ctx context.Context, c *Call, in *In) (*Out, error)

func op[In, Out any](name string, where on[In], h handler[In, Out]) Op {
	return Op{
		Name: name, Version: kms.Version, Methods: []string{"GET", "POST"}, Action: "kms:" + name, Resource: where.text,
		Deadline: defaultDeadline,
		in:       reflect.TypeFor[In](), out: reflect.TypeFor[Out](),
		resources: func(c *Call, in any) ([]resource, error) { return where.find(c, in.(*In)) },
		run: func(ctx context.Context, c *Call, in any) (any, error) {
			out, err := h(ctx, c, in.(*In))
			if err != nil {
				return nil, err
			}
			return out, nil
		},
	}
}

// change marks an operation that changes something.
func change(o Op) Op { o.Change = true; return o }

// open marks an operation that any verified caller may use.
func open(o Op) Op { o.Action = ""; return o }

// also declares an action that some calls of an operation need besides its own. What it is on comes first.
func also(resource, action string, o Op) Op {
	o.Also = append(o.Also, Permission{Action: action, Resource: resource})
	return o
}

// granted marks an operation that the policy of a secret may allow.
func granted(o Op) Op { o.Grantable = true; return o }

// repairs marks an operation by which the policy of a secret is corrected.
func repairs(o Op) Op { o.Repairs = true; return o }

// byName marks an operation on the server itself, which no right on everything includes.
func byName(o Op) Op { o.ByName = true; return o }

// waits marks an operation that waits for something to happen.
func waits(o Op) Op {
	o.Waits, o.Deadline = true, maxWait+defaultDeadline
	return o
}

// only restricts an operation to one HTTP method.
func only(method string, o Op) Op { o.Methods = []string{method}; return o }

// sts moves an operation to the token service.
func sts(o Op) Op { o.Version = kms.STSVersion; return o }

// nothing is for operations without a resource: a policy allows them on "*".
func nothing[In any]() on[In] {
	return on[In]{"*", func(*Call, *In) ([]resource, error) { return []resource{{arn: "*"}}, nil }}
}

// container is the collection of all secrets, which is not matched by patterns for single ones.
func container[In any]() on[In] {
	return on[In]{"secret", func(c *Call, _ *In) ([]resource, error) {
		return []resource{{arn: c.containerARN()}}, nil
	}}
}

func (c *Call) containerARN() string { return arnPrefix + c.Region + ":" + c.Account() + ":secret" }

// named is the secret that a parameter names or whose ARN it is. The parameter becomes the name.
func named[In any](field func(*In) *string) on[In] {
	return on[In]{onSecret, func(c *Call, in *In) ([]resource, error) {
		p := field(in)
		name, err := c.secretName(*p)
		if err != nil {
			return nil, err
		}
		*p = name
		return []resource{c.secretResource(name)}, nil
	}}
}

func (c *Call) secretResource(name string) resource {
	return resource{arn: secret.ARN(c.Region, c.Account(), name), secret: name}
}

// secretName takes an ARN apart. One of another region or account names nothing here.
func (c *Call) secretName(s string) (string, error) {
	if !strings.HasPrefix(s, arnPrefix) {
		return s, nil
	}
	name, ok := strings.CutPrefix(s, secret.ARN(c.Region, c.Account(), ""))
	switch {
	case !ok:
		return "", fault.New(fault.NotFound, "The ARN is not of a secret in region %s and the caller's account.", c.Region)
	case len(name) > 192 || !wire.IsName(name):
		return "", fault.Parameter("SecretName", "the name in the ARN has 1 to 192 letters, digits and _ / + = . @ -")
	}
	return name, nil
}

// tagged are the resources of the older tag calls: exactly one of a key, a secret and a certificate.
func tagged[In any](fields func(*In) (key, name, certificate string)) on[In] {
	return on[In]{"key or secret", func(c *Call, in *In) ([]resource, error) {
		key, name, certificate := fields(in)
		given := slices.DeleteFunc([]string{key, name, certificate}, func(s string) bool { return s == "" })
		switch {
		case len(given) != 1:
			return nil, fault.Parameter("SecretName", "give exactly one of KeyId, SecretName and CertificateId.")
		case name != "":
			return []resource{c.secretResource(name)}, nil
		case key != "":
			return []resource{{arn: cmk.ARN(c.Region, c.Account(), key)}}, nil
		}
		return []resource{{arn: arnPrefix + c.Region + ":" + c.Account() + ":certificate/" + certificate}}, nil
	}}
}

// listed are the resources of the newer tag calls.
func listed[In any](fields func(*In) (kind string, ids []string)) on[In] {
	return on[In]{"each", func(c *Call, in *In) ([]resource, error) {
		kind, ids := fields(in)
		if len(ids) == 0 {
			return []resource{{arn: arnPrefix + c.Region + ":" + c.Account() + ":" + kind}}, nil
		}
		list := make([]resource, len(ids))
		for i, id := range ids {
			list[i] = resource{arn: cmk.ARN(c.Region, c.Account(), id)}
			if kind == kms.ResourceSecret {
				if len(id) > 192 || !wire.IsName(id) {
					return nil, fault.Parameter("ResourceId", "a secret name has 1 to 192 letters, digits and _ / + = . @ -")
				}
				list[i] = c.secretResource(id)
			}
		}
		return list, nil
	}}
}

// key is the customer master key that a parameter names.
func key[In any](field func(*In) string) on[In] {
	return on[In]{"key/${KeyId}", func(c *Call, in *In) ([]resource, error) {
		id := strings.TrimPrefix(field(in), cmk.ARN(c.Region, c.Account(), ""))
		return []resource{{arn: cmk.ARN(c.Region, c.Account(), id)}}, nil
	}}
}

// Decode reads the parameters into a new request struct, to which it returns a pointer.
func (o *Op) Decode(p sign.Params) (any, error) {
	in := reflect.New(o.in).Interface()
	return in, wire.Decode(p, in)
}
