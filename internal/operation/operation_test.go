package operation

import (
	"fmt"
	"strings"
	"testing"
)

type (
	onNothing  struct{}
	onSecretIn struct {
		SecretName string `kms:"SecretName,resource=secret"`
	}
	onTwo struct {
		UserName   string `kms:"UserName,resource=user-or-self"`
		PolicyName string `kms:"PolicyName,resource=policy"`
	}
	answer struct{}
)

var kmsService = Service{Name: "Kms", Version: "1"}

// TestResourceOfADeclaration verifies that what an operation is on comes from its tags and its
// declaration.
func TestResourceOfADeclaration(t *testing.T) {
	t.Parallel()
	for want, d := range map[string]Declaration{
		"secret/${SecretName}":                      Declare[onSecretIn, answer](kmsService, "A"),
		"user/${UserName} and policy/${PolicyName}": Declare[onTwo, answer](kmsService, "A"),
		"*":                          Declare[onNothing, answer](kmsService, "A").On("*"),
		"target and secret/${Admin}": Declare[onNothing, answer](kmsService, "A").On("target").And("secret/${Admin}"),
		"secret/${SecretName} and target/${TargetName}": Declare[onSecretIn, answer](kmsService,
			"A").And("target/${TargetName}"),
		"key or secret": Declare[onNothing, answer](kmsService, "A").OnFound("key or secret"),
	} {
		if o := d.Op(); o.Resource != want || o.Action != "kms:A" {
			t.Errorf("%s on %q; want kms:A on %q", o.Action, o.Resource, want)
		}
	}
}

// TestIncompleteDeclaration verifies that a declaration which would leave a call without a
// resource, or with two meanings, stops the program and says what to add.
func TestIncompleteDeclaration(t *testing.T) {
	t.Parallel()
	a := Declare[onSecretIn, answer](kmsService, "A")
	for want, make := range map[string]func(){
		"operation B names no resource: add resource=… to the tag of a field of operation.onNothing": func() {
			NewTable(a, Declare[onNothing, answer](kmsService, "B"))
		},
		"operation A names its resource twice": func() { NewTable(a.On("*")) },
		"names its resource twice: by On":      func() { NewTable(a.OnFound("each")) },
		"operation A is declared twice":        func() { NewTable(a, a) },
	} {
		if got := panicOf(make); !strings.Contains(got, want) {
			t.Errorf("panic %q; want %q", got, want)
		}
	}
}

func panicOf(f func()) (text string) {
	defer func() { text = fmt.Sprint(recover()) }()
	f()
	return ""
}

// TestDeclarationsShareNothing verifies that a declaration which two others begin with is not
// changed by either.
func TestDeclarationsShareNothing(t *testing.T) {
	t.Parallel()
	base := Declare[onSecretIn, answer](kmsService, "A").Rotates()
	first, second := base.Sends().Op(), base.AlsoNeeds("kms:Other", "*").Op()
	if first.Also[3].Action != "kms:GetSecretValue" || second.Also[3].Action != "kms:Other" {
		t.Errorf("the actions are %v and %v", first.Also, second.Also)
	}
}

// TestRetryable verifies that a client repeats what reads, and of what changes something only what
// is declared to be safe, in whatever order that is declared.
func TestRetryable(t *testing.T) {
	t.Parallel()
	reads := Declare[onSecretIn, answer](kmsService, "A")
	for want, list := range map[bool][]Declaration{
		true:  {reads, reads.Mutates().Retryable(), reads.Retryable().Mutates()},
		false: {reads.Mutates()},
	} {
		for i, d := range list {
			if o := d.Op(); o.Retryable != want {
				t.Errorf("declaration %d, Mutates: %t, Retryable: %t", i, o.Mutates, o.Retryable)
			}
		}
	}
}
