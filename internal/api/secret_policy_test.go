package api_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sign"
)

// denying is a secret policy that leaves everything to identity policies and denies bob some
// actions.
func denying(action string) string {
	return `{"Version":"1","Statement":[
		{"Effect":"Allow","Principal":{"RAM":["acs:ram::` + account + `:*"]},"Action":["kms:*"],"Resource":["*"]},
		{"Effect":"Deny","Principal":{"RAM":["acs:ram::` + account + `:user/bob"]},"Action":["` + action +
		`"],"Resource":["*"]}]}`
}

// denials is a world in which bob has every right, but for what the policy of one secret denies
// him. The secret is the administrator of the target "t"; the secret and the target "free" deny
// nothing.
func denials(t *testing.T, action string) *world {
	t.Helper()
	w := newWorld(t, newMemory("rotator", "the-administrators-password").kinds()...)
	w.user(t, bob, "AdministratorAccess")
	for _, name := range []string{"denied-one", "free"} {
		w.must(t, "CreateSecret", "SecretName", name, "SecretData", adminValue, "VersionId", "v1",
			"Tags", `[{"TagKey":"k","TagValue":"v"}]`)
		w.must(t, "RegisterTarget", "TargetName", map[string]string{"denied-one": "t", "free": "free"}[name],
			"Kind", "memory", "Config", toMemory, "AdminSecretName", name)
	}
	w.must(t, "SetSecretPolicy", "SecretName", "denied-one", "Policy", denying(action))
	return w
}

// namesSecret says how a parameter names a secret: the value for the one that is denied, and for
// the one that is free. ok is false for a parameter that names none.
func namesSecret(param string) (denied, free string, ok bool) {
	switch {
	case param == "TargetName":
		return "t", "free", true
	case param == "ResourceId", param == "Secret", strings.Contains(param, "Secret") && strings.HasSuffix(param, "Name"):
		return "denied-one", "free", true
	}
	return "", "", false
}

// untouched are the parameters that name a secret, or a target, of which the operation uses no
// secret, each with the reason.
var untouched = map[string]string{
	"CreateSecret SecretName":     "names a secret that is not there yet",
	"DescribeTarget TargetName":   "returns only the name of the administrator's secret",
	"DeregisterTarget TargetName": "forgets the target alone",
	"RegisterTarget TargetName":   "names a target that is not there yet",
	"ListRotations TargetName":    "a filter; rows are left out, see TestListsLeaveOutWhatIsDenied",
	"PauseRotation TargetName":    "stops the target",
	"ResumeRotation TargetName":   "resumes the target",
	"ProbeRotation TargetName":    "leaves out what is denied, see TestListsLeaveOutWhatIsDenied",
	"ConfigureRotation TargetName": "needs the right on the target; its administrator's secret is not sent anywhere, " +
		"and decides " +
		"nothing about another secret",
	"WatchSecrets Secret":       "answers per secret, see TestWatchJudges",
	"SimulatePolicy SecretName": "a question about a user, of the user service",
}

// TestDenyReachesEveryOperation verifies, for every operation and every parameter by which it names
// a secret, also as the administrator of a target, that a Deny in the policy of that secret refuses
// the call, although the caller has every right otherwise. Another secret in the same place is let
// through, so it is the Deny that refuses.
func TestDenyReachesEveryOperation(t *testing.T) {
	t.Parallel()
	tried := map[string]bool{}
	for _, op := range protocol.Operations() {
		for _, p := range op.Params() {
			name := strings.SplitN(p.Name, ".", 2)[0]
			denied, free, ok := namesSecret(name)
			if !ok || untouched[op.Name+" "+name] != "" {
				continue
			}
			t.Run(op.Name+" "+name, func(t *testing.T) {
				t.Parallel()
				w := denials(t, "kms:*")
				tried := func(value string) error {
					_, err := w.gate.Call(t.Context(), op, protocol.Request{
						ID:        "r",
						Principal: bob,
						Params:    paramsOf(op, name, value),
					})
					return err
				}
				var d *protocol.DeniedError
				if err := tried(free); errors.As(err, &d) {
					t.Errorf("with %s: %v", free, err)
				}
				if err := tried(denied); !errors.As(err, &d) ||
					d.Detail.NoPermissionType != "ExplicitDeny" ||
					d.Detail.PolicyType != "ResourceBasedPolicy" {
					t.Errorf("with %s: %v; want a refusal by the policy of the secret", denied, err)
				}
			})
			tried[op.Name] = true
		}
	}
	for _, want := range []string{
		"GetSecretValue", "SetSecretPolicy", "GetSecretPolicy", "PrepareTargetAccounts", "TestTarget", "UpdateTarget",
		"RegisterTarget", "TagResources", "ListSecretConsumers",
	} {
		if !tried[want] {
			t.Errorf("%s was not tried", want)
		}
	}
	for key := range untouched {
		op, param, _ := strings.Cut(key, " ")
		i := slices.IndexFunc(protocol.Operations(), func(o *operation.Op) bool { return o.Name == op })
		if i < 0 || !slices.ContainsFunc(protocol.Operations()[i].Params(), func(p wire.Param) bool {
			return strings.SplitN(p.Name, ".", 2)[0] == param
		}) {
			t.Errorf("%s is excepted, and there is no such parameter", key)
		}
	}
}

// paramsOf are parameters of an operation that is called with one secret or target in a certain
// place, and free ones in all other places that must be filled.
func paramsOf(op *operation.Op, place, value string) sign.Params {
	fixed := map[string]string{
		"VersionId":                  "v9",
		"SecretData":                 adminValue,
		"VersionStage":               "ACSCurrent",
		"MoveToVersion":              "v1",
		"EnableAutomaticRotation":    "false",
		"Policy":                     policy.DefaultSecretDocument(account),
		"Tags":                       `[{"TagKey":"k","TagValue":"v"}]`,
		"TagKeys":                    `["k"]`,
		"RegionId":                   "local",
		"ResourceType":               "secret",
		"Kind":                       "memory",
		"Config":                     toMemory,
		"RepairAction":               "probe",
		"AccountName":                "app",
		"CloneAccountName":           "clone",
		"ForceDeleteWithoutRecovery": "false", "Tag.1.Key": "k", "TagKey.1": "k",
	}
	if op.Name == "TestTarget" && place == "SecretName" {
		fixed["TargetName"] = "free"
	}
	if op.Name == "PrepareTargetAccounts" && place == "SecretName" {
		fixed["Apply"], fixed["AccountPassword"] = "true", "x"
	}
	var list sign.Params
	add := func(name, value string) { list = append(list, sign.Param{Name: name, Value: value}) }
	for name, v := range fixed {
		add(name, v)
	}
	for _, p := range op.Params() {
		name := strings.SplitN(p.Name, ".", 2)[0]
		_, free, ok := namesSecret(name)
		_, is := fixed[name]
		switch {
		case name == place && name == "ResourceId":
			add(name+".1", value)
		case name == place:
			add(name, value)
		case ok && p.Required && !is:
			add(name, free)
		}
	}
	return list
}

// TestListsLeaveOutWhatIsDenied verifies that an operation on a collection shows, counts and uses
// no secret whose policy denies it to the caller.
func TestListsLeaveOutWhatIsDenied(t *testing.T) {
	t.Parallel()
	w := denials(t, "kms:*")
	for _, name := range []string{"a", "z"} {
		w.must(t, "CreateSecret", "SecretName", name, "SecretData", "x", "VersionId", "v1", "Description", "about "+name)
	}
	for _, name := range []string{"denied-app", "free-app"} {
		w.must(t, "CreateSecret", "SecretName", name, "SecretData", `{"username":"`+name+`","password":"x"}`,
			"VersionId", "v1", "Tags", `[{"TagKey":"k","TagValue":"v"}]`)
		w.must(t, "ConfigureRotation", "SecretName", name, "TargetName", "free", "EnableAutomaticRotation", "false")
	}
	w.must(t, "SetSecretPolicy", "SecretName", "denied-app", "Policy", denying("kms:*"))
	for _, tt := range []struct {
		params []string
		total  int
		names  string
	}{
		{nil, 4, "a free free-app z"},
		{[]string{"PageSize", "1", "PageNumber", "2"}, 4, "free"},
		{[]string{"PageSize", "2", "PageNumber", "2"}, 4, "free-app z"},
		{[]string{"Filters", `[{"Key":"SecretName","Values":["denied"]}]`}, 0, ""},
		{[]string{"Filters", `[{"Key":"SecretName","Values":["denied","f"]}]`}, 2, "free free-app"},
		{[]string{"Filters", `[{"Key":"TagKey","Values":["k"]}]`}, 2, "free free-app"},
	} {
		out, err := w.call(t, bob, "ListSecrets", tt.params...)
		if err != nil {
			t.Fatal(err)
		}
		list := out.(*kms.ListSecretsResponse)
		var names []string
		for _, s := range list.SecretList {
			names = append(names, s.SecretName)
		}
		if got := strings.Join(names, " "); got != tt.names || list.TotalCount != tt.total {
			t.Errorf("ListSecrets %v: %q of %d; want %q of %d", tt.params, got, list.TotalCount, tt.names, tt.total)
		}
	}
	if all := w.must(t, "ListSecrets").(*kms.ListSecretsResponse); all.TotalCount != 6 || len(all.SecretList) != 6 {
		t.Errorf("another caller sees %d of %d secrets; want 6", len(all.SecretList), all.TotalCount)
	}
	for _, call := range [][]string{
		{"ListRotations"}, {"ListTagResources", "RegionId", "local", "ResourceType", "secret"},
	} {
		out, err := w.call(t, bob, call[0], call[1:]...)
		if err != nil {
			t.Fatal(err)
		}
		if text := fmt.Sprintf("%+v", out); strings.Contains(text, "denied-") || !strings.Contains(text, "free") {
			t.Errorf("%s shows %s", call[0], text)
		}
	}
	before := w.record(t, "denied-app").Health.NextAt
	w.now = w.now.Add(1)
	if _, err := w.call(t, bob, "ProbeRotation"); err != nil {
		t.Fatal(err)
	}
	if got := w.record(t, "denied-app").Health.NextAt; !got.Equal(before) {
		t.Errorf("ProbeRotation of everything logs in with the secret that is denied")
	}
	if got := w.record(t, "free-app").Health.NextAt; !got.Equal(w.now) {
		t.Errorf("ProbeRotation of everything leaves out the other secret")
	}
}

// TestGrantBelongsToTheUser verifies that a grant is the user's for whom it was set: it moves with
// a new name, and neither a new user nor another one who takes the name gets it. A Deny meets both.
func TestGrantBelongsToTheUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.user(t, bob)
	grant := func(effect string) string {
		return `{"Version":"1","Statement":[
			{"Effect":"Allow","Principal":{"RAM":["acs:ram::` + account + `:*"]},"Action":["kms:*"],"Resource":["*"]},
			{"Effect":"` + effect + `","Principal":{"RAM":["acs:ram::` + account +
			`:user/bob"]},"Action":["kms:GetSecretValue"],"Resource":["*"]}]}`
	}
	w.must(t, "CreateSecret", "SecretName", "a", "SecretData", "x", "VersionId", "v1", "Policy", grant("Allow"))
	w.must(t, "CreateSecret", "SecretName", "b", "SecretData", "x", "VersionId", "v1")
	w.must(t, "SetSecretPolicy", "SecretName", "b", "Policy", grant("Deny"))
	renamed, successor := bob, bob
	renamed.Name, successor.ID = "robert", "2"
	w.user(t, renamed, "AliyunKMSSecretUserAccess")
	w.user(t, successor, "AliyunKMSSecretUserAccess")
	for _, tt := range []struct {
		who           policy.Principal
		name, missing string
	}{{renamed, "a", ""}, {renamed, "b", "renamed"}, {successor, "b", "the next of that name"}} {
		_, err := w.call(t, tt.who, "GetSecretValue", "SecretName", tt.name)
		if (fault.KindOf(err) == fault.Denied) != (tt.missing != "") {
			t.Errorf("%s as %s: %v", tt.name, tt.who.Name, err)
		}
	}
	w.user(t, successor) // without the policy that alone allows it
	if _, err := w.call(t, successor, "GetSecretValue", "SecretName", "a"); fault.KindOf(err) != fault.Denied {
		t.Errorf("the next user of the name reads the secret: %v", err)
	}
	if got := w.must(t, "GetSecretPolicy",
		"SecretName", "a").(*kms.GetSecretPolicyResponse).Policy; got != grant("Allow") {
		t.Errorf("GetSecretPolicy = %s; want the document as it was set", got)
	}
}

// TestPolicyNamesWhoExists verifies that a policy cannot name a user who does not exist, for
// a user who takes the name later is another one.
func TestPolicyNamesWhoExists(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(t, "CreateSecret", "SecretName", "a", "SecretData", "x", "VersionId", "v1")
	for _, who := range []string{account + ":user/nobody", account + ":role/worker", "6543210987654321:user/bob"} {
		for _, effect := range []string{"Allow", "Deny"} {
			document := `{"Version":"1","Statement":[
				{"Effect":"Allow","Principal":{"RAM":["acs:ram::` + account + `:*"]},"Action":["kms:*"],"Resource":["*"]},
				{"Effect":"` + effect + `","Principal":{"RAM":["acs:ram::` + who + `"]},"Action":["kms:*"],"Resource":["*"]}]}`
			_, err := w.call(t, rootPrincipal, "SetSecretPolicy", "SecretName", "a", "Policy", document)
			if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), who) {
				t.Errorf("%s %s: %v; want it named as missing", effect, who, err)
			}
			if _, err = w.call(t, rootPrincipal, "CreateSecret", "SecretName", "b", "SecretData", "x", "VersionId", "v1",
				"Policy", document); fault.KindOf(err) != fault.Invalid {
				t.Errorf("CreateSecret, %s %s: %v", effect, who, err)
			}
		}
	}
}
