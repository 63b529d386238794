package protocol

import (
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
)

// TestNoParameterBelongsToTheSignature verifies that no operation declares a parameter that
// signature version 1 has itself: a caller could not send it.
func TestNoParameterBelongsToTheSignature(t *testing.T) {
	t.Parallel()
	for _, o := range Operations() {
		for _, p := range o.Params() {
			if p.Name == "SecurityToken" || p.Name != "RegionId" && slices.Contains(common, p.Name) {
				t.Errorf("%s declares %s", o.Name, p.Name)
			}
		}
	}
}

// TestNotHere verifies that no operation is both declared and refused as unsupported.
func TestNotHere(t *testing.T) {
	t.Parallel()
	for version, names := range map[string][]string{kms.Version: notHere, ram.Version: ramNotHere} {
		for _, name := range names {
			if o := Named(name); o != nil && o.Version == version {
				t.Errorf("%s is declared, and among those that are not here", name)
			}
		}
	}
}

// TestSecretPoliciesReachEveryOperation verifies that the policy of a secret may allow each
// operation that names a secret, unless the operation is by which that policy is corrected, and no
// other operation.
func TestSecretPoliciesReachEveryOperation(t *testing.T) {
	t.Parallel()
	for _, o := range Operations() {
		on := false
		for part := range strings.SplitSeq(o.Resource, " and ") {
			on = on || part == "each" || part != "secret" && strings.Contains(part, "secret")
		}
		if policies := o.Grantable || o.Repairs; policies != on || o.Grantable && o.Repairs {
			t.Errorf("%s is on %q, Grantable: %t, Repairs: %t; an operation on a secret is either, another is none",
				o.Name, o.Resource, o.Grantable, o.Repairs)
		}
	}
}

// names are the parameters that name a resource, with the kind of it.
var names = map[string]string{
	"SecretName":      "secret",
	"AdminSecretName": "secret",
	"TargetName":      "target",
	"UserName":        "user",
	"GroupName":       "group",
	"PolicyName":      "policy",
}

// noResource are parameters that name something on which the call needs no right.
var noResource = map[string]string{
	"CreateSecret SecretName":          "is created; the right is on the collection",
	"RegisterTarget TargetName":        "is created; the right is on the collection",
	"CreateUser UserName":              "is created; the right is on the collection",
	"CreateGroup GroupName":            "is created; the right is on the collection",
	"CreatePolicy PolicyName":          "is created; the right is on the collection",
	"PrepareTargetAccounts SecretName": "is created; the right is on the collection",
	"ListRotations TargetName":         "leaves out rotations of other targets",
	"GetSecretPolicy PolicyName":       "is always default",
	"SetSecretPolicy PolicyName":       "is always default",
	"SimulatePolicy SecretName":        "is what the question is about; the right is on the user",
}

// TestNamesAreResources verifies that an operation needs a right on everything that its parameters
// name, and that its declaration says so: by the tag of the parameter, or by the resources that a
// function finds.
func TestNamesAreResources(t *testing.T) {
	t.Parallel()
	for _, o := range Operations() {
		if o.Collection == "" && !strings.Contains(o.Resource, "${") {
			continue // OnFound names the alternatives
		}
		for _, p := range o.Params() {
			kind, named := names[p.Name]
			key := o.Name + " " + p.Name
			declared := strings.Contains(o.Resource, kind+"/${"+p.Name+"}")
			switch {
			case named && !declared && noResource[key] == "":
				t.Errorf("%s is on %q: the tag of parameter %s lacks resource=%s", o.Name, o.Resource, p.Name, kind)
			case named && declared && noResource[key] != "":
				t.Errorf("%s: parameter %s is a resource, and excepted", o.Name, p.Name)
			}
		}
	}
	for key := range noResource {
		name, param, _ := strings.Cut(key, " ")
		o := Named(name)
		if o == nil || !slices.ContainsFunc(o.Params(), func(p wire.Param) bool { return p.Name == param }) {
			t.Errorf("%s is excepted, and there is no such parameter", key)
		}
	}
}

// TestWhatReads verifies that exactly the operations whose names say so change nothing: the others
// have records before and after them, and an agent refuses them.
func TestWhatReads(t *testing.T) {
	t.Parallel()
	for _, o := range Operations() {
		reads := slices.ContainsFunc([]string{"Describe", "Get", "List", "Watch", "Simulate"}, func(verb string) bool {
			return strings.HasPrefix(o.Name, verb)
		})
		if o.Mutates == reads {
			t.Errorf("%s, Mutates: %t", o.Name, o.Mutates)
		}
		if !o.Mutates && !o.Retryable {
			t.Errorf("%s changes nothing and is not Retryable", o.Name)
		}
	}
}

// TestRights verifies that a call needs no right only where it changes nothing and names nothing,
// that a right on everything includes no change of the server itself, and that an agent passes on
// for its callers only what names nothing.
func TestRights(t *testing.T) {
	t.Parallel()
	for _, o := range Operations() {
		harmless := o.Collection == "*" && !o.Mutates
		if o.Action == "" && !harmless {
			t.Errorf("%s is on %s and needs no right", o.Name, o.Resource)
		}
		if o.Impersonal && !harmless {
			t.Errorf("%s is on %s and is Impersonal", o.Name, o.Resource)
		}
		many := slices.Contains([]string{"", "*", "secret", "target", "user/*", "group/*", "policy/*"}, o.Collection)
		if onServer := !many && o.Mutates; o.ByName != onServer {
			t.Errorf("%s changes %s, ByName: %t", o.Name, o.Resource, o.ByName)
		}
	}
}

// TestConsumersSpeakForThemselves verifies that every parameter by which a consumer speaks of
// itself says what an agent does with it: to the server, an agent is one consumer.
func TestConsumersSpeakForThemselves(t *testing.T) {
	t.Parallel()
	found := 0
	for _, o := range Operations() {
		for _, p := range o.Params() {
			if p.Name != "Consumer" && p.Name != "Leaving" {
				continue
			}
			found++
			if p.Agent == "" {
				t.Errorf("%s: the tag of parameter %s lacks agent=drop or agent=refuse", o.Name, p.Name)
			}
		}
	}
	if found == 0 {
		t.Error("no operation has such a parameter")
	}
}

// TestFind verifies that a request names an operation by its name together with the version of its
// service.
func TestFind(t *testing.T) {
	t.Parallel()
	for _, o := range Operations() {
		if Find(o.Version, o.Name) != o {
			t.Errorf("%s of version %s is not found", o.Name, o.Version)
		}
		for _, other := range []string{kms.Version, kms.STSVersion, ram.Version, "2020-01-01", ""} {
			if other != o.Version && Find(other, o.Name) != nil {
				t.Errorf("%s of version %q is found", o.Name, other)
			}
		}
	}
}
