// Package operation describes the operations of the API apart from the code that serves them: name
// and version, request and response type, the resources that a request names, what the policies may
// say, and whether a client may repeat a call.
//
// The tables are in packages kms and ram, one line for each operation. Clients, the agent, the gate
// of the server, the command line and the tests of the documents read them. An operation whose
// declaration is incomplete makes [NewTable] panic, so it fails in the first test of any of them.
package operation

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/sign"
)

const (
	// answerTime bounds the handling of an operation that declares no other bound.
	answerTime = 10 * time.Second
	// targetTime bounds operations that ask a target.
	targetTime = 30 * time.Second
	// onSecret is the resource of an operation on the secret that its parameter SecretName names.
	onSecret = "secret/${SecretName}"
)

// Service is one of the services of the API.
type Service struct {
	// Name is the name in the audit trail, such as Kms. In lower case it begins the actions of the
	// service.
	Name string
	// Version is the API version by which requests choose the service.
	Version string
}

// Permission is an action together with its resource, in the words of the public reference.
type Permission struct{ Action, Resource string }

// Op describes one operation. It is read-only.
type Op struct {
	Service
	// Name is the operation, such as GetSecretValue.
	Name string
	// Methods are the HTTP methods that the operation accepts.
	Methods []string
	// Action is the action that a policy must allow, such as kms:GetSecretValue; empty means that
	// any verified caller may call.
	Action string
	// Resource names the resources of Action in the words of the public reference, such as
	// secret/${SecretName}.
	Resource string
	// Collection is the resource that every request is on, such as * or user/*; empty when the
	// request names it.
	Collection string
	// Also lists the actions that some calls need besides Action.
	Also []Permission
	// Mutates reports that the operation changes something: the trail has a record before and one
	// after it.
	Mutates bool
	// Retryable reports that sending the same request twice has the effect of sending it once.
	Retryable bool
	// Grantable reports that the policy of a secret may allow Action to a principal that it names.
	// A Deny of that policy refuses every operation that has the secret among its resources.
	Grantable bool
	// Repairs reports that the operation reads or replaces the policy of a secret. A Deny of that
	// policy does not take it from the root account.
	Repairs bool
	// ByName reports that the operation is on the server itself: the policies of a user allow it
	// only by a statement that names the resource.
	ByName bool
	// Rotates reports that the operation makes the engine change accounts, on which the caller
	// needs rights too.
	Rotates bool
	// DryRun reports that a request with the parameter DryRun is only checked, and always answered
	// by an error.
	DryRun bool
	// Impersonal reports that the answer reveals nothing of a secret or of the caller of an agent, so
	// that an agent passes the call on for each of its callers.
	Impersonal bool
	// Waits reports that a call may take as long as Deadline because it waits for something to
	// happen.
	Waits bool
	// Deadline bounds the handling.
	Deadline time.Duration

	in, out reflect.Type
	found   bool   // a function of the server finds the resources
	and     string // further resources, which a function of the server finds
}

// NeedsNoRight reports whether any access key may use the operation at will. An operation that
// waits is not among them: a consumer has to use it.
func (o *Op) NeedsNoRight() bool { return o.Action == "" && !o.Waits }

// Found reports whether a function of the server finds the resources: the whole list, or what the
// tags of the request and Collection do not name.
func (o *Op) Found() bool { return o.found || o.and != "" }

// Params describes the parameters of the operation.
func (o *Op) Params() []wire.Param { return wire.Params(o.in) }

// Request returns the type of the request, a struct.
func (o *Op) Request() reflect.Type { return o.in }

// Response returns the type of the response, a struct.
func (o *Op) Response() reflect.Type { return o.out }

// Decode reads parameters into a new request struct and returns a pointer to it.
func (o *Op) Decode(p sign.Params) (any, error) {
	in := reflect.New(o.in).Interface()
	return in, wire.Decode(p, in)
}

// Secret returns the name or ARN of the secret that a request is on, as the caller spelled it. ok
// is false for an operation that is on something else, too or instead.
func (o *Op) Secret(in any) (name string, ok bool) {
	if o.Resource != onSecret || len(o.Also) > 0 {
		return "", false
	}
	for _, p := range o.Params() {
		if p.Resource != "" {
			return *p.Text(in), true
		}
	}
	return "", false
}

// Declaration is an operation that is being declared. Each method returns the declaration with one
// more fact.
type Declaration struct{ op Op }

// Declare begins the declaration of an operation that reads, on the resources that the tags of In
// name.
func Declare[In, Out any](s Service, name string) Declaration {
	return Declaration{Op{
		Service:  s,
		Name:     name,
		Methods:  []string{"GET", "POST"},
		Action:   strings.ToLower(s.Name) + ":" + name,
		Deadline: answerTime,
		in:       reflect.TypeFor[In](),
		out:      reflect.TypeFor[Out](),
	}}
}

// On declares a resource that no parameter names: *, a collection such as secret or user/*, or a
// part of the server.
func (d Declaration) On(collection string) Declaration { d.op.Collection = collection; return d }

// And declares, in words, further resources that a function of the server finds.
func (d Declaration) And(resource string) Declaration { d.op.and = resource; return d }

// OnFound declares, in words, resources that a function of the server finds.
func (d Declaration) OnFound(resource string) Declaration {
	d.op.Resource, d.op.found = resource, true
	return d
}

// AlsoNeeds declares an action that some calls need besides the operation's own, on resource.
func (d Declaration) AlsoNeeds(action, resource string) Declaration {
	d.op.Also = append(d.op.Also[:len(d.op.Also):len(d.op.Also)], Permission{Action: action, Resource: resource})
	return d
}

// Mutates declares an operation that changes something. A client does not repeat it unless it is
// Retryable too.
func (d Declaration) Mutates() Declaration { d.op.Mutates = true; return d }

// Retryable declares an operation that a client may repeat although it changes something.
func (d Declaration) Retryable() Declaration { d.op.Retryable = true; return d }

// Grantable declares an operation that the policy of a secret may allow.
func (d Declaration) Grantable() Declaration { d.op.Grantable = true; return d }

// Repairs declares an operation by which the policy of a secret is corrected.
func (d Declaration) Repairs() Declaration { d.op.Repairs = true; return d }

// ByName declares an operation on the server itself, which no right on everything includes.
func (d Declaration) ByName() Declaration { d.op.ByName = true; return d }

// AnyCaller declares an operation that needs no right.
func (d Declaration) AnyCaller() Declaration { d.op.Action = ""; return d }

// Impersonal declares an operation that an agent passes on for each of its callers.
func (d Declaration) Impersonal() Declaration { d.op.Impersonal = true; return d }

// DryRun declares an operation whose parameter DryRun asks for a check alone.
func (d Declaration) DryRun() Declaration { d.op.DryRun = true; return d }

// Only restricts the operation to one HTTP method.
func (d Declaration) Only(method string) Declaration { d.op.Methods = []string{method}; return d }

// AsksTarget declares an operation that waits for the answer of a target.
func (d Declaration) AsksTarget() Declaration { d.op.Deadline = targetTime; return d }

// Waits declares an operation that waits up to most for something to happen.
func (d Declaration) Waits(most time.Duration) Declaration {
	d.op.Waits, d.op.Deadline = true, most+answerTime
	return d
}

// Rotates declares an operation that makes the engine change accounts: the caller needs a right on
// each account that will change.
func (d Declaration) Rotates() Declaration {
	d.op.Rotates = true
	return d.AlsoNeeds("kms:RotateAccount", "target/${TargetName}/account/${AccountName}").
		AlsoNeeds("ram:CreateAccessKey", "user/${UserName}").
		AlsoNeeds("ram:DeleteAccessKey", "user/${UserName}")
}

// Sends declares an operation that decides where the value of a secret is sent: the caller needs
// the right to read it.
func (d Declaration) Sends() Declaration { return d.AlsoNeeds("kms:GetSecretValue", onSecret) }

// Programs declares an operation that may register a target that runs programs on the server.
func (d Declaration) Programs() Declaration {
	return d.AlsoNeeds("kms:RegisterCommandTarget", "target/${TargetName}")
}

// Op returns the operation. It panics when the declaration names no resource, or names it twice: an
// operation without a resource would be allowed to everybody who may do something.
func (d Declaration) Op() *Op {
	o := d.op
	o.Retryable = o.Retryable || !o.Mutates
	var list []string
	if o.Collection != "" {
		list = append(list, o.Collection)
	}
	for _, p := range o.Params() {
		if p.Resource != "" {
			list = append(list, p.ResourceText())
		}
	}
	switch {
	case o.found && len(list) > 0 || o.Collection != "" && len(list) > 1:
		panic(fmt.Sprintf("operation %s names its resource twice: by On or OnFound, and by a resource tag of %s",
			o.Name, o.in))
	case !o.found && len(list) == 0:
		panic(fmt.Sprintf("operation %s names no resource: add resource=… to the tag of a field of %s, "+
			"or declare On or OnFound", o.Name, o.in))
	}
	if o.and != "" {
		list = append(list, o.and)
	}
	if !o.found {
		o.Resource = strings.Join(list, " and ")
	}
	return &o
}

// Table is the operations of one or more services.
type Table struct {
	list             []*Op
	byName, byAction map[string]*Op
}

// NewTable returns the table of declared operations. It panics when two have the same name: a
// command line names an operation without its service.
func NewTable(declared ...Declaration) *Table {
	list := make([]*Op, len(declared))
	for i, d := range declared {
		list[i] = d.Op()
	}
	return index(list)
}

// Join returns the operations of several tables in one.
func Join(tables ...*Table) *Table {
	var list []*Op
	for _, t := range tables {
		list = append(list, t.list...)
	}
	return index(list)
}

func index(list []*Op) *Table {
	t := &Table{list: list, byName: map[string]*Op{}, byAction: map[string]*Op{}}
	for _, o := range list {
		if t.byName[o.Name] != nil {
			panic("operation " + o.Name + " is declared twice")
		}
		t.byName[o.Name] = o
		if o.Action != "" {
			t.byAction[o.Action] = o
		}
	}
	return t
}

// All returns the operations in the order of their declarations.
func (t *Table) All() []*Op { return t.list }

// Named returns the operation of that name; nil when there is none.
func (t *Table) Named(name string) *Op { return t.byName[name] }

// OfAction returns the operation whose own action that is; nil when it is none's.
func (t *Table) OfAction(action string) *Op { return t.byAction[action] }
