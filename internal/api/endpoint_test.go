package api

import (
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/ram"
)

// TestDeclaredResources verifies for every operation that the gate asks the policies about what the
// declaration says: the collection, and what the tagged parameters of the request name.
func TestDeclaredResources(t *testing.T) {
	t.Parallel()
	const account = "1234567890123456"
	c := &Call{Env: &Env{Region: "local"}, Request: protocol.Request{Principal: policy.Principal{Account: account}}}
	for _, o := range protocol.Operations() {
		in := reflect.New(o.Request()).Interface()
		for _, p := range o.Params() {
			switch {
			case p.Resource != "":
				*p.Text(in) = "x"
			case p.Name == "PolicyType":
				*p.Text(in) = ram.TypeCustom
			}
		}
		list, err := c.declared(o, in)
		if err != nil {
			t.Errorf("%s: %v", o.Name, err)
		}
		words := strings.Split(regexp.MustCompile(`\$\{\w+\}`).ReplaceAllString(o.Resource, "x"), " and ")
		if o.Collection == "" && !strings.Contains(o.Resource, "${") {
			words = nil // OnFound
		}
		for i, r := range list {
			want := "acs:kms:local:" + account + ":" + words[i]
			switch {
			case words[i] == "*":
				want = "*"
			case o.Version == ram.Version:
				want = "acs:ram::" + account + ":" + words[i]
			}
			if r.arn != want || r.secret != "" != strings.HasPrefix(words[i], "secret/") || r.action != "" || r.lenient {
				t.Errorf("%s is judged on %+v; it is declared on %s", o.Name, r, o.Resource)
			}
		}
		if (len(list) == 0) != (words == nil) || len(list) < len(words) && !o.Found() {
			t.Errorf("%s is judged on %d resources; it is declared on %s", o.Name, len(list), o.Resource)
		}
	}
}

// TestNameFromARN verifies that a parameter which names a resource by its ARN holds the name for
// the handler.
func TestNameFromARN(t *testing.T) {
	t.Parallel()
	c := &Call{Env: &Env{Region: "local"}, Request: protocol.Request{Principal: policy.Principal{Account: "1"}}}
	for _, o := range protocol.Operations() {
		in := reflect.New(o.Request()).Interface()
		if _, ok := o.Secret(in); !ok {
			continue
		}
		field := reflect.ValueOf(in).Elem().FieldByName("SecretName")
		field.SetString(c.secretResource("app/db").arn)
		if _, err := c.declared(o, in); err != nil || field.String() != "app/db" {
			t.Errorf("%s: the handler gets %q, %v", o.Name, field, err)
		}
		field.SetString("acs:kms:elsewhere:1:secret/app")
		if _, err := c.declared(o, in); err == nil {
			t.Errorf("%s: takes a secret of another region", o.Name)
		}
	}
}

// TestEveryOperationIsServed verifies that an operation without a handler is found at the start, by
// its name.
func TestEveryOperationIsServed(t *testing.T) {
	t.Parallel()
	for want, table := range map[string][]*endpoint{
		"operation " + served[0].Name + " has no handler":             served[1:],
		"operation " + served[len(served)-1].Name + " has no handler": served[:len(served)-1],
		"two handlers": append(served[:len(served):len(served)], served[0]),
	} {
		func() {
			defer func() {
				if text, _ := recover().(string); !strings.Contains(text, want) {
					t.Errorf("panic %q; want %q", text, want)
				}
			}()
			serve(table...)
		}()
	}
}
