package escalate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/kms"
)

// generator draws the steps of one sequence. It reads the model to make calls that have a
// chance: names that are there, operations that the caller may do.
type generator struct {
	random *rand.Rand
	world  *world
	noted  int
	// planned are the next steps of the works that the attackers have begun.
	planned []step
}

// templates are the policies that attackers are given, a few each: what a team gets that runs its
// own secrets or its own targets, and rights that look harmless. {me} is the attacker.
var templates = []string{
	"kms:* on secret/{me}/*",
	"kms:* on secret/{me}/*",
	"kms:CreateSecret on secret",
	"kms:CreateSecret on secret",
	"kms:*Target on target target/*",
	"kms:*Target on target target/*",
	"kms:RegisterTarget on target",
	"kms:UpdateTarget on target/idp",
	"kms:UpdateTarget,kms:DescribeTarget on target/*",
	"kms:DeregisterTarget on target/*",
	"kms:ConfigureRotation on target/cache",
	"kms:ConfigureRotation on target/*",
	"kms:ConfigureRotation on secret/prod/app target/cache",
	"kms:CreateSecret on target/*",
	"kms:PrepareTargetAccounts on target/cache secret",
	"kms:ProbeRotation on target/* *",
	"kms:ProbeRotation,kms:PauseRotation,kms:ResumeRotation on secret/*",
	"kms:RotateSecret on secret/prod/app",
	"kms:RotateSecret,kms:DescribeRotation,kms:EmergencyRotation on secret/acs/ram/user/*",
	"kms:RotateSecret,kms:RehearseRotation,kms:UndoRotation,kms:EndRotationGrace,kms:CancelRotation on secret/prod/*",
	"kms:RepairRotation on secret/prod/* secret/{me}/*",
	"kms:UpdateSecretRotationPolicy on secret/prod/*",
	"kms:TestTarget on target/*",
	"kms:TestTarget on target/* secret/*",
	"kms:GetSecretValue on secret/{me}/*",
	"kms:GetSecretValue on secret/shared/*",
	"kms:SetSecretPolicy on secret/{me}/*",
	"kms:List*,kms:Describe* on *",
	"kms:GetSecretPolicy,kms:TagResource,kms:TagResources on secret/prod/*",
	"ram:CreateUser on user/*",
	"ram:CreateUser,ram:CreateAccessKey on user/*",
	"ram:CreateAccessKey on user/carol",
	"ram:CreateAccessKey on user/alice",
	"ram:CreateAccessKey,ram:DeleteAccessKey,ram:ListAccessKeys on user/{me}",
	"ram:UpdateUser on user/carol user/{me}",
	"ram:List*,ram:Get* on *",
	"ram:CreateGroup,ram:CreatePolicy on group/* policy/*",
	"kms:RotateAccount on target/*/account/{me}",
	"kms:RotateAccount on target/cache/account/app",
	"kms:RotateAccount on target/idp/account/idp",
	"kms:RotateAccount on target/{me}-t/account/*",
	"kms:RotateAccount on target/*/account/*",
	"system AliyunKMSSecretAdminAccess",
	"system AliyunKMSReadOnlyAccess",
}

// denials are what an identity policy takes away from some attackers.
var denials = []string{
	"kms:RotateSecret,kms:RepairRotation on secret/*",
	"kms:GetSecretValue on *",
	"kms:CreateSecret on secret",
	"kms:*Target on target/idp",
	"kms:RotateAccount on target/cache/account/*",
	"ram:CreateAccessKey on user/*",
}

// errands are what honest people do in between.
var errands = []string{
	`root RegisterTarget TargetName=later Kind=admin Config={"address":"op:1"} AdminSecretName=prod/admin`,
	`root RegisterTarget TargetName=later Kind=admin Config={"address":"op:1"} AdminSecretName=prod/admin`,
	`root RegisterTarget TargetName=idp Kind=self Config={"address":"op:2"}`,
	`root DeregisterTarget TargetName=idp`,
	`root DeregisterTarget TargetName=later`,
	`root UpdateTarget TargetName=cache Config={"address":"op:1"}`,
	`root ConfigureRotation SecretName=prod/client TargetName=idp`,
	`root ConfigureRotation SecretName=prod/app EnableAutomaticRotation=true RotationInterval=6h`,
	`root RotateSecret SecretName=prod/app VersionId=r{n}`,
	`root RotateSecret SecretName=prod/client VersionId=r{n}`,
	`root RehearseRotation SecretName=prod/app VersionId=r{n}`,
	`boss EmergencyRotation SecretName=prod/app VersionId=r{n}`,
	`boss CreateSecret SecretName=prod/{n} VersionId=v1 SecretData=value-number-{n}-of-the-operator`,
	`boss PutSecretValue SecretName=prod/plain VersionId=r{n} SecretData=value-number-{n}-of-the-operator`,
	`boss SetSecretPolicy SecretName=prod/plain Policy={"Version":"1","Statement":[` +
		`{"Effect":"Allow","Principal":{"RAM":["acs:ram::ACCOUNT:*"]},"Action":["kms:*"],"Resource":["*"]},` +
		`{"Effect":"Deny","Principal":{"RAM":["acs:ram::ACCOUNT:user/mallory","acs:ram::ACCOUNT:user/eve"]},` +
		`"Action":["kms:*"],"Resource":["*"]}]}`,
	`boss SetSecretPolicy SecretName=mallory/a Policy={"Version":"1","Statement":[` +
		`{"Effect":"Allow","Principal":{"RAM":["acs:ram::ACCOUNT:*"]},"Action":["kms:*"],"Resource":["*"]},` +
		`{"Effect":"Deny","Principal":{"RAM":["acs:ram::ACCOUNT:user/mallory"]},"Action":["kms:*"],"Resource":["*"]}]}`,
	`root ResumeRotation`,
	`remove alice`,
	`root CreateUser UserName=carol`,
	`root UpdateUser UserName=alice NewUserName=alice-2`,
	`alice GetSecretValue SecretName=shared/alice`,
	`app GetSecretValue SecretName=prod/app`,
	`acknowledge`,
	`acknowledge`,
}

var waits = []time.Duration{time.Minute, 10 * time.Minute, time.Hour, time.Hour, 7 * time.Hour, 25 * time.Hour}

func pick[T any](g *generator, list []T) T { return list[g.random.IntN(len(list))] }

func (g *generator) chance(of float64) bool { return g.random.Float64() < of }

// grants draws the policies of one attacker.
func (g *generator) grants(who string) (list []step) {
	add := func(template string) {
		list = append(list, step{verb: "allow", who: who, line: strings.ReplaceAll(template, "{me}", who)})
	}
	if g.chance(0.01) {
		g.begin(who, stopping)
	}
	if g.chance(0.6) {
		list := works
		if g.chance(0.4) {
			list = works[:onAccounts]
		}
		for _, right := range g.begin(who, pick(g, list)) {
			add(right)
		}
	} else {
		for range 1 + g.random.IntN(3) {
			add(pick(g, templates))
		}
	}
	if g.chance(0.15) {
		list = append(list, step{verb: "allow", who: who, line: g.stray()})
	}
	if g.chance(0.15) {
		list = append(list, step{verb: "deny", who: who, line: pick(g, denials)})
	}
	return list
}

// stray is an arbitrary right: any operation on any resource of its kind.
func (g *generator) stray() string {
	o := pick(g, protocol.Operations())
	if service(o.Name) == "ram" {
		return "ram:" + o.Name + " on " + pick(g, []string{"user/carol", "user/alice", "group/*", "policy/p9", "user/*"})
	}
	return "kms:" + o.Name + " on " + pick(g, []string{
		"secret", "secret/prod/plain", "secret/prod/app", "target/*", "target", "secret/shared/*",
	})
}

// next draws a step.
func (g *generator) next() step {
	if len(g.planned) > 0 && g.chance(0.8) {
		s := g.planned[0]
		g.planned = g.planned[1:]
		return s
	}
	switch n := g.random.Float64(); {
	case n < 0.12:
		return step{verb: "wait", wait: pick(g, waits)}
	case n < 0.24:
		return step{verb: "engine"}
	case n < 0.42:
		g.noted++
		return mustSteps(strings.ReplaceAll(pick(g, errands), "{n}", fmt.Sprint(g.noted)))[0]
	}
	who := pick(g, []string{"mallory", "eve"})
	s := step{verb: "call", who: who, as: who, times: 1}
	users := g.world.model.people[who].users()
	slices.SortFunc(users, func(a, b *user) int { return strings.Compare(a.name, b.name) })
	if len(users) > 0 {
		s.as = pick(g, users).name
	}
	if g.chance(0.2) && g.follow(&s) {
		return s
	}
	o := g.operation(s)
	s.op = o.Name
	g.fill(&s, o)
	return s
}

// follow draws what a caller would do next about a rotation, by its state.
func (g *generator) follow(s *step) bool {
	name := g.secret(s, "kms:RotateSecret")
	switch g.world.load(name).State {
	case rotation.Quarantined:
		s.op = "RepairRotation"
	case rotation.InGrace:
		s.op = pick(g, []string{"UndoRotation", "EndRotationGrace", "EmergencyRotation"})
	case rotation.Idle, rotation.Done, rotation.Abandoned:
		s.op = pick(g, []string{"RotateSecret", "RotateSecret", "RehearseRotation", "EmergencyRotation"})
	default:
		return false
	}
	o := protocol.Find(kms.Version, s.op)
	if o == nil || !g.may(s, o.Action, g.world.model.kms("secret/"+name)) {
		return false
	}
	s.params = append(s.params, param{"SecretName", name})
	g.fill(s, o)
	return true
}

// operation draws one that some statement of the caller allows, mostly.
func (g *generator) operation(s step) *operation.Op {
	u := g.world.model.users[s.as]
	all := protocol.Operations()
	if u == nil || g.chance(0.1) {
		return pick(g, all)
	}
	var weighted []*operation.Op
	for _, st := range g.world.model.rightsOf(u).statements {
		for _, o := range all {
			if !st.deny && st.names(service(o.Name)+":"+o.Name) {
				weighted = append(weighted, o)
				if o.Mutates { // what reads is rarely half of an attack
					weighted = append(weighted, o, o)
				}
			}
		}
	}
	for _, o := range all {
		if slices.Contains([]string{"WatchSecrets", "GetSecretValue", "GetCallerIdentity"}, o.Name) {
			weighted = append(weighted, o)
		}
	}
	return pick(g, weighted)
}

// fill draws the parameters.
func (g *generator) fill(s *step, o *operation.Op) {
	switch o.Name {
	case "CreateSecret":
		g.newSecret(s)
		return
	case "WatchSecrets":
		g.watch(s)
		return
	}
	for _, p := range o.Params() {
		if s.has(p.Name) {
			continue
		}
		if v := g.value(s, o, p); v != "" {
			s.params = append(s.params, param{p.Name + map[string]string{"Tag": ".1.Key"}[p.Name], v})
			if p.Type == "list" && p.Name != "Tag" {
				s.params[len(s.params)-1].name += ".1"
			}
		}
	}
}

func (g *generator) watch(s *step) {
	s.params = []param{
		{"Consumer", pick(g, []string{"app-1", "c2"})},
		{"Secret.1.SecretName", g.secret(s, "kms:GetSecretValue")},
		{"Secret.1.VersionId", "v1"},
	}
	if g.chance(0.3) {
		s.params = append(s.params, param{"Leaving", "true"})
	}
}

// value draws a value for a parameter; empty leaves it out.
func (g *generator) value(s *step, o *operation.Op, p wire.Param) string {
	if !p.Required && g.chance(0.3) && !slices.Contains(always, p.Name) {
		return ""
	}
	if draw := pools[p.Name]; draw != nil {
		return draw(g, s, o)
	}
	switch {
	case len(p.Enum) > 0:
		return pick(g, p.Enum)
	case p.Type == "boolean":
		return pick(g, []string{"true", "false"})
	}
	return ""
}

// always are parameters that the reference calls optional and without which a call is refused.
var always = []string{
	"UserName", "GroupName", "PolicyName", "PolicyType", "PolicyDocument", "UserAccessKeyId", "Status",
	"VersionId", "Apply", "TargetName", "AdminSecretName", "NewUserName", "AccountPassword",
}

// pools are where values of parameters come from, by name. A parameter that is not here is left
// out, or drawn from its own list of values.
var pools = map[string]func(g *generator, s *step, o *operation.Op) string{
	"SecretName":      func(g *generator, s *step, o *operation.Op) string { return g.secretOr(s, o) },
	"AdminSecretName": func(g *generator, s *step, o *operation.Op) string { return g.admin(s, o) },
	"ResourceId":      func(g *generator, s *step, o *operation.Op) string { return g.secret(s, o.Action) },
	"ResourceType":    func(*generator, *step, *operation.Op) string { return "secret" },
	"RegionId":        func(*generator, *step, *operation.Op) string { return region },
	"SecretData":      func(g *generator, s *step, _ *operation.Op) string { return g.data(s) },
	"VersionId":       func(g *generator, s *step, o *operation.Op) string { return g.version(o) },
	"TargetName":      func(g *generator, s *step, o *operation.Op) string { return g.target(s, o) },
	"Kind":            func(g *generator, _ *step, _ *operation.Op) string { return pick(g, []string{"admin", "self"}) },
	"Config":          func(g *generator, s *step, _ *operation.Op) string { return g.config(s) },
	"Account": func(g *generator, _ *step, _ *operation.Op) string {
		return pick(g, []string{"*", "app", "default", "keyturn"})
	},
	"AccountName":      func(g *generator, s *step, o *operation.Op) string { return g.accountOr(s, o) },
	"CloneAccountName": func(g *generator, s *step, _ *operation.Op) string { return g.account(s.who) },
	"OwnerName":        func(g *generator, _ *step, _ *operation.Op) string { return pick(g, []string{"", "unequal"}) },
	"AccountPassword": func(g *generator, s *step, _ *operation.Op) string {
		return pick(g, []string{"of-" + s.who, "guess-" + s.who})
	},
	"Policy": func(g *generator, s *step, _ *operation.Op) string { return g.secretPolicy(s) },
	"RotationInterval": func(g *generator, s *step, _ *operation.Op) string {
		if s.has("Cron") {
			return ""
		}
		return pick(g, append([]string{"6h", "6h", "24h"}, hasty...))
	},
	"Cron": func(g *generator, s *step, _ *operation.Op) string {
		if s.has("RotationInterval") {
			return ""
		}
		return pick(g, append([]string{g.soon(), "0 3 * * *", "0 */6 * * *"}, hasty...))
	},
	"Window": func(g *generator, _ *step, _ *operation.Op) string {
		return pick(g, []string{"", "00:00-06:00"})
	},
	"GracePeriod": func(g *generator, _ *step, _ *operation.Op) string {
		return pick(g, []string{"", "0s", "1h"})
	},
	"EnableAutomaticRotation": func(g *generator, _ *step, _ *operation.Op) string {
		return pick(g, []string{"true", "true", "false"})
	},
	"VersionStage": func(g *generator, _ *step, _ *operation.Op) string {
		return pick(g, []string{"", "ACSPrevious", "ACSPending", "ACSCurrent"})
	},
	"MoveToVersion": func(g *generator, _ *step, _ *operation.Op) string { return "v1" },
	"Tags":          func(*generator, *step, *operation.Op) string { return `[{"TagKey":"k","TagValue":"v"}]` },
	"TagKeys":       func(*generator, *step, *operation.Op) string { return `["k"]` },
	"UserName":      func(g *generator, s *step, o *operation.Op) string { return g.user(s, o) },
	"NewUserName":   func(g *generator, _ *step, _ *operation.Op) string { return pick(g, userNames) },
	"UserAccessKeyId": func(g *generator, s *step, _ *operation.Op) string {
		return fmt.Sprintf("{key:%s:%d}", or(s.get("UserName"), s.as), g.random.IntN(2))
	},
	"Status":       func(g *generator, _ *step, _ *operation.Op) string { return pick(g, []string{"Active", "Inactive"}) },
	"GroupName":    func(g *generator, _ *step, _ *operation.Op) string { return pick(g, groupNames) },
	"NewGroupName": func(g *generator, _ *step, _ *operation.Op) string { return pick(g, groupNames) },
	"PolicyName":   func(g *generator, _ *step, _ *operation.Op) string { return pick(g, policyNames) },
	"PolicyType": func(g *generator, s *step, _ *operation.Op) string {
		if strings.Contains(s.get("PolicyName"), "Access") {
			return "System"
		}
		return "Custom"
	},
	"PolicyDocument":  func(g *generator, s *step, _ *operation.Op) string { return g.policyDocument(s) },
	"Operation":       func(g *generator, _ *step, _ *operation.Op) string { return pick(g, protocol.Operations()).Name },
	"CascadingDelete": func(g *generator, _ *step, _ *operation.Op) string { return "true" },
}

// hasty are schedules with times that are closer than the least interval.
var hasty = []string{"1s", "@every 1m", "* * * * *", "0 */5 * * *"}

// soon is a cron expression of one time a day, in less than five hours.
func (g *generator) soon() string {
	at := g.world.now.Add(time.Duration(1+g.random.IntN(299)) * time.Minute)
	return fmt.Sprintf("%d %d * * *", at.Minute(), at.Hour())
}

var (
	accountNames = []string{
		"app", "report", "default", "default", "keyturn", "idp",
		"KEYTURN", "'keyturn'", "keyturn@%", "cn=keyturn", "cn=keyturn", "Default",
	}
	userNames   = []string{"alice", "carol", "boss", "app", "mallory", "eve"}
	groupNames  = []string{"team", "staff"}
	policyNames = []string{"p1", "p2", "p5", "p9", "AdministratorAccess", "AliyunKMSFullAccess"}
	targetNames = []string{"cache", "store", "idp", "later"}
)

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// favoured draws one of a list, mostly one for which fits says yes.
func favoured(g *generator, list []string, fits func(string) bool) string {
	if g.chance(0.75) {
		good := slices.DeleteFunc(slices.Clone(list), func(s string) bool { return !fits(s) })
		if len(good) > 0 {
			return pick(g, good)
		}
	}
	return pick(g, list)
}

// may reports whether the user whose key signs may do an action on a resource.
func (g *generator) may(s *step, action, resource string) bool {
	m := g.world.model
	u := m.users[s.as]
	if u == nil {
		return false
	}
	ok, _ := m.may(m.rightsOf(u), action, resource)
	return ok
}

func (g *generator) secret(s *step, action string) string {
	return favoured(g, sorted(g.world.model.secrets), func(name string) bool {
		return g.may(s, action, g.world.model.kms("secret/"+name))
	})
}

func (g *generator) secretOr(s *step, o *operation.Op) string {
	switch {
	case o.Name == "PrepareTargetAccounts" && g.chance(0.7):
		return s.who + "/" + pick(g, []string{"a", "b", "c"})
	case (o.Name == "PauseRotation" || o.Name == "ResumeRotation" || o.Name == "ProbeRotation") && g.chance(0.5):
		return ""
	case o.Name == "TestTarget" && g.chance(0.4):
		return ""
	}
	return g.secret(s, o.Action)
}

func (g *generator) admin(s *step, o *operation.Op) string {
	if s.get("Kind") == "self" && g.chance(0.8) || o.Name == "UpdateTarget" && g.chance(0.6) {
		return ""
	}
	return g.secret(s, o.Action)
}

func (g *generator) target(s *step, o *operation.Op) string {
	list := append(slices.Clone(targetNames), s.who+"-t")
	switch {
	case o.Name == "RegisterTarget" && g.chance(0.7):
		missing := slices.DeleteFunc(slices.Clone(list), func(name string) bool { return g.world.model.targets[name] != nil })
		if len(missing) > 0 {
			return pick(g, missing)
		}
	case s.has("SecretName") && strings.HasSuffix(o.Name, "Rotation") && o.Name != "ConfigureRotation":
		return ""
	}
	return favoured(g, list, func(name string) bool { return g.may(s, o.Action, g.world.model.kms("target/"+name)) })
}

func (g *generator) config(s *step) string {
	address := pick(g, []string{"evil:" + s.who, "evil:" + s.who, "op:1", "op:2"})
	return `{"address":"` + address + `"}`
}

// account draws an account: the own one of the attacker, or another.
func (g *generator) account(who string) string {
	if g.chance(0.3) {
		return who
	}
	return pick(g, accountNames)
}

func (g *generator) accountOr(s *step, o *operation.Op) string {
	if o.Name == "ConfigureRotation" && g.chance(0.7) {
		return ""
	}
	if o.Name == "PrepareTargetAccounts" && g.chance(0.6) {
		return s.who
	}
	return g.account(s.who)
}

func (g *generator) version(o *operation.Op) string {
	if o.Name == "GetSecretValue" && g.chance(0.7) {
		return ""
	}
	if o.Mutates && service(o.Name) == "kms" && g.chance(0.9) {
		g.noted++
		return fmt.Sprintf("n%d", g.noted)
	}
	return "v1"
}

func (g *generator) data(s *step) string {
	g.noted++
	text := fmt.Sprintf("guess-%d-of-%s", g.noted, s.who)
	switch g.random.IntN(4) {
	case 0:
		return text
	case 1:
		return `{"client_id":"` + g.account(s.who) + `","client_secret":"` + text + `"}`
	}
	account := g.account(s.who)
	if account == s.who && g.chance(0.7) {
		text = "of-" + s.who
	}
	return `{"AccountName":"` + account + `","AccountPassword":"` + text + `"}`
}

func (g *generator) secretPolicy(s *step) string {
	who := pick(g, []string{s.as, s.as, "alice", "eve"})
	action := pick(g, []string{"kms:*", "kms:RotateSecret\",\"kms:GetSecretValue", "kms:GetSecretValue"})
	return `{"Version":"1","Statement":[{"Effect":"Allow","Principal":{"RAM":["acs:ram::ACCOUNT:user/` +
		who + `"]},"Action":["` + action + `"],"Resource":["*"]}]}`
}

func (g *generator) policyDocument(s *step) string {
	action := pick(g, []string{"kms:*", "*", "ram:*"})
	return `{"Version":"1","Statement":[{"Effect":"Allow","Action":["` + action + `"],"Resource":["*"]}]}`
}

func (g *generator) user(s *step, o *operation.Op) string {
	if strings.Contains(o.Name, "AccessKey") && g.chance(0.3) {
		return ""
	}
	if o.Name == "CreateUser" {
		missing := slices.DeleteFunc(slices.Clone(userNames), func(name string) bool {
			return g.world.model.users[name] != nil
		})
		if len(missing) > 0 {
			return pick(g, missing)
		}
	}
	return favoured(g, userNames, func(name string) bool { return g.may(s, o.Action, g.world.model.ram("user/"+name)) })
}

// newSecret draws a CreateSecret.
func (g *generator) newSecret(s *step) {
	g.noted++
	name := s.who + "/" + pick(g, []string{"a", "b", "c"})
	target := pick(g, append(slices.Clone(targetNames), s.who+"-t"))
	guess := fmt.Sprintf("guess-%d-of-%s", g.noted, s.who)
	add := func(list ...string) {
		for i := 0; i < len(list); i += 2 {
			s.params = append(s.params, param{list[i], list[i+1]})
		}
	}
	add("VersionId", "v1")
	switch g.random.IntN(8) {
	case 0, 1:
		user := pick(g, userNames)
		add("SecretName", "$Auto", "SecretType", "RAMCredentials", "ExtendedConfig",
			`{"SecretSubType":"RamUserAccessKey","UserName":"`+user+`"}`,
			"SecretData", pick(g, []string{
				`{"AccessKeys":[{"AccessKeyId":"none","AccessKeySecret":"none"}]}`,
				fmt.Sprintf(`{"AccessKeys":[{"AccessKeyId":"{key:%s:0}","AccessKeySecret":"{secret}"}]}`, user),
			}))
	case 2, 3:
		add("SecretName", name, "SecretType", "Rds", "ExtendedConfig",
			`{"SecretSubType":"SingleUser","DBInstanceId":"`+target+`"}`,
			"SecretData", `{"Accounts":[{"AccountName":"`+g.account(s.who)+`","AccountPassword":"`+guess+`"}]}`)
	case 4:
		if g.chance(0.5) {
			add("SecretName", name, "SecretType", "Redis", "SecretData", "$Auto", "ExtendedConfig",
				`{"SecretSubType":"DoubleUsers","RegionId":"r","InstanceId":"`+target+`","AccountName":"`+g.account(s.who)+
					`","CloneAccountName":"`+g.account(s.who)+`","AccountPrivilege":"x"}`)
		} else {
			add("SecretName", name, "SecretType", "Rds", "ExtendedConfig",
				`{"SecretSubType":"DoubleUsers","DBInstanceId":"`+target+`"}`,
				"SecretData", `{"Accounts":[{"AccountName":"`+g.account(s.who)+`","AccountPassword":"`+guess+
					`"},{"AccountName":"`+g.account(s.who)+`","AccountPassword":"`+guess+`"}]}`)
		}
	default:
		add("SecretName", name, "SecretData", g.data(s))
	}
	if s.has("SecretType") && g.chance(0.4) {
		add("EnableAutomaticRotation", "true", "RotationInterval", "6h")
	}
	if g.chance(0.35) {
		add("Policy", g.secretPolicy(s))
	}
}
