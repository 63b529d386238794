package escalate

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/users"
)

// model is what the reference model knows: who has which policies, what each secret and target is,
// who made the engine act on what, and who supplied which value. It learns from calls that
// succeeded and reads nothing that the product stored.
type model struct {
	account  string
	users    map[string]*user
	groups   map[string]*group
	policies map[string]*policyState // custom policies
	secrets  map[string]*secretState
	targets  map[string]*targetState
	people   map[string]*person
	values   map[string]*value // plaintext to where it comes from
	clock    int               // orders what happened
}

// user is a user, whatever name he has.
type user struct {
	name     string
	policies []attachment
	groups   []*group
	keys     []string
}

type group struct {
	name     string
	policies []attachment
}

type attachment struct{ kind, name string }

type policyState struct {
	versions map[string][]statement
	current  string
}

// person is a party with interests: it may hold keys of several users, and only an attacker's are
// checked.
type person struct {
	name     string
	attacker bool
	keys     map[string]*user // the keys that it has, by ID
	secrets  map[string]string
}

// secretState is a secret. maker and schedule are the calls that made its rotation what it is,
// request is the last call that asked for one.
type secretState struct {
	name                     string
	policy                   []statement
	kind                     string
	user                     string // of RAMCredentials
	target                   string
	deleting                 bool
	maker, schedule, request *cause
	bound                    map[string]*cause // target name to the call that tied the secret to it
	began                    time.Time         // of the last rotation that was promoted
}

// targetState is a registered target. pointed is the call that said last where it points.
type targetState struct {
	name, address, admin string
	accounts             []string
	pointed              *cause
}

// cause is a call, with the rights that its caller had then.
type cause struct {
	by     *person
	rights rights
	at     int
	op     string
}

// value is a plaintext. A person who supplied it, or was given it by right, has it. chosen is by
// whom it was supplied in a call, first is when it was seen first.
type value struct {
	first   int
	had     map[string]bool
	chosen  map[string]bool
	secrets map[string]bool
}

func newModel(account string) *model {
	return &model{
		account:  account,
		users:    map[string]*user{},
		groups:   map[string]*group{},
		policies: map[string]*policyState{},
		secrets:  map[string]*secretState{},
		targets:  map[string]*targetState{},
		people:   map[string]*person{},
		values:   map[string]*value{},
	}
}

// region is in ARNs.
const region = "local"

func (m *model) kms(relative string) string {
	return "acs:kms:" + region + ":" + m.account + ":" + relative
}
func (m *model) ram(relative string) string { return "acs:ram::" + m.account + ":" + relative }

// rightsOf are the rights of a user now, or of root for nil.
func (m *model) rightsOf(u *user) rights {
	if u == nil {
		return rights{all: true}
	}
	r := rights{user: u}
	for _, a := range u.policies {
		r.statements = append(r.statements, m.attached(a)...)
	}
	for _, g := range u.groups {
		for _, a := range g.policies {
			r.statements = append(r.statements, m.attached(a)...)
		}
	}
	return r
}

func (m *model) attached(a attachment) []statement {
	if a.kind == users.System {
		p, _ := users.SystemPolicy(a.name)
		return m.statements(p.Document())
	}
	if p := m.policies[a.name]; p != nil {
		return p.versions[p.current]
	}
	return nil
}

func (m *model) valueOf(text string) *value {
	v := m.values[text]
	if v == nil {
		v = &value{first: m.clock, had: map[string]bool{}, chosen: map[string]bool{}, secrets: map[string]bool{}}
		m.values[text] = v
	}
	return v
}

// need is an action on a resource.
type need struct{ action, resource string }

// needs are what the reference says that a call needs. It is the least that is documented: the
// product may ask for more.
func (m *model) needs(s step, service string, caller *user) []need {
	own := service + ":" + s.op
	on := func(resources ...string) (list []need) {
		for _, r := range resources {
			list = append(list, need{own, r})
		}
		return list
	}
	secret := m.kms("secret/" + m.secretName(s.get("SecretName")))
	target := m.kms("target/" + s.get("TargetName"))
	admin := m.kms("secret/" + m.secretName(s.get("AdminSecretName")))
	if service == "ram" {
		return on(m.ramResources(s, caller)...)
	}
	if slices.Contains(open, s.op) {
		return nil
	}
	switch s.op {
	case "GetRandomPassword", "DescribeAccountKmsStatus", "DescribeAuditTrail":
		return on("*")
	case "ListSecrets", "ListRotations":
		return on(m.kms("secret"))
	case "RotateRootKey", "DescribeRootKey":
		return on(m.kms("rootkey"))
	case "RotateLocalCA":
		return on(m.kms("localca"))
	case "ListTargets":
		return on(m.kms("target"))
	case "CreateSecret":
		list := on(m.kms("secret"))
		if s.has("Policy") {
			list = append(list, need{"kms:SetSecretPolicy", m.kms("secret/" + s.newSecret())})
		}
		if s.get("SecretType") == "RAMCredentials" {
			list = append(list, m.onKeys(member(s.get("ExtendedConfig"), "UserName"))...)
		}
		return list
	case "RegisterTarget":
		list := on(m.kms("target"))
		if s.has("AdminSecretName") {
			list = append(list, need{own, admin}, need{"kms:GetSecretValue", admin})
		}
		return list
	case "UpdateTarget":
		list := on(target)
		if s.has("Config") {
			for _, name := range m.sent(s.get("TargetName")) {
				list = append(list, need{"kms:GetSecretValue", m.kms("secret/" + name)})
			}
		}
		if s.has("AdminSecretName") {
			list = append(list, need{own, admin}, need{"kms:GetSecretValue", admin})
		}
		return list
	case "DeregisterTarget":
		list := on(target)
		for _, name := range sorted(m.secrets) {
			if own := m.secrets[name]; s.get("Detach") == "true" && own.attached(s.get("TargetName")) {
				list = append(list, need{"kms:RemoveRotation", m.kms("secret/" + name)})
			}
		}
		return list
	case "TestTarget", "ConfigureRotation":
		list := []need{}
		if s.has("TargetName") {
			list = append(list, need{own, target})
		}
		if s.has("SecretName") {
			list = append(list, need{own, secret})
		}
		tied := m.secrets[m.secretName(s.get("SecretName"))]
		if s.op != "ConfigureRotation" || tied == nil || tied.kind != "" {
			return list
		}
		if !s.has("TargetName") && tied.target != "" { // the target is kept
			list = append(list, need{own, m.kms("target/" + tied.target)})
		} else if s.has("TargetName") && tied.target != s.get("TargetName") {
			list = append(list, need{"kms:GetSecretValue", secret})
		}
		return list
	case "PrepareTargetAccounts":
		list := on(target)
		if s.get("Apply") == "true" {
			list = append(list, need{own, m.kms("secret")})
			if s.has("SecretName") && m.secrets[m.secretName(s.get("SecretName"))] != nil {
				list = append(list, need{own, secret})
			}
		}
		return list
	case "PauseRotation", "ResumeRotation", "ProbeRotation":
		switch {
		case s.has("SecretName"):
			return on(secret)
		case s.has("TargetName"):
			return on(target)
		}
		return on("*")
	case "TagResource", "UntagResource":
		if s.has("SecretName") {
			return on(secret)
		}
		return nil // of a key or a certificate
	case "ListResourceTags":
		return on(m.kms("key/" + s.get("KeyId")))
	case "TagResources", "UntagResources", "ListTagResources":
		return on(m.kms(s.get("ResourceType") + "/" + s.get("ResourceId.1")))
	}
	switch {
	case s.has("SecretName"):
		list := on(secret)
		if own := m.secrets[m.secretName(s.get("SecretName"))]; own != nil &&
			own.user != "" &&
			slices.Contains(rotating, s.op) {
			list = append(list, m.onKeys(own.user)...)
		}
		return list
	case s.has("TargetName"):
		return on(target)
	}
	return on(unknown)
}

// sent are the secrets whose values are sent to a target: the administrator's and the attached
// ones, also those that wait for their deletion.
func (m *model) sent(target string) (names []string) {
	t := m.targets[target]
	for _, name := range sorted(m.secrets) {
		if t != nil && (t.admin == name || m.secrets[name].receives(target)) {
			names = append(names, name)
		}
	}
	return names
}

// rotating are the operations that make the engine act on the account of a secret.
var rotating = []string{
	"RotateSecret", "RehearseRotation", "EmergencyRotation", "EndRotationGrace", "UndoRotation", "CancelRotation",
	"RepairRotation", "UpdateSecretRotationPolicy",
}

// onKeys are the rights that changing the access keys of a user takes.
func (m *model) onKeys(user string) []need {
	arn := m.ram("user/" + user)
	return []need{{"ram:CreateAccessKey", arn}, {"ram:DeleteAccessKey", arn}}
}

// unknown is the resource of a call about which the model knows nothing.
const unknown = "unknown"

// accounts is the account policy of a target that the call gives.
func (s step) accounts() (list []string) {
	for _, p := range s.params {
		if strings.HasPrefix(p.name, "Account.") {
			list = append(list, p.value)
		}
	}
	return list
}

// newSecret is the name of the secret that CreateSecret makes.
func (s step) newSecret() string {
	if s.get("SecretName") != "$Auto" {
		return s.get("SecretName")
	}
	return "acs/ram/user/" + member(s.get("ExtendedConfig"), "UserName")
}

func (m *model) secretName(s string) string { return strings.TrimPrefix(s, m.kms("secret/")) }

// member reads a string from a JSON object.
func member(text, name string) string {
	var members map[string]any
	_ = json.Unmarshal([]byte(text), &members) // what is no object has no members
	s, _ := members[name].(string)
	return s
}

func (m *model) ramResources(s step, caller *user) []string {
	userName := s.get("UserName")
	if userName == "" && caller != nil && strings.Contains(s.op, "AccessKey") {
		userName = caller.name
	}
	policyARN := m.ram("policy/" + s.get("PolicyName"))
	if s.get("PolicyType") == users.System {
		policyARN = "acs:ram::system:policy/" + s.get("PolicyName")
	}
	switch s.op {
	case "CreateUser", "ListUsers":
		return []string{m.ram("user/*")}
	case "CreateGroup", "ListGroups":
		return []string{m.ram("group/*")}
	case "CreatePolicy", "ListPolicies":
		return []string{m.ram("policy/*")}
	}
	var list []string
	if strings.Contains(s.op, "User") && !strings.HasPrefix(s.op, "ListUsers") ||
		strings.Contains(s.op, "AccessKey") ||
		s.op == "SimulatePolicy" {
		list = append(list, m.ram("user/"+userName))
	}
	if strings.Contains(s.op, "Group") && s.op != "ListGroupsForUser" {
		list = append(list, m.ram("group/"+s.get("GroupName")))
	}
	if strings.Contains(s.op, "Policy") && !strings.HasPrefix(s.op, "ListPolicies") && s.op != "SimulatePolicy" {
		list = append(list, policyARN)
	}
	return list
}

// learn takes in what a call that succeeded has changed.
func (m *model) learn(s step, c *cause, a answer) {
	m.learnUsers(s, a)
	m.learnPolicies(s, a)
	m.learnSecrets(s, c, a)
	m.learnTargets(s, c)
}

// answer is what the model takes from a response.
type answer struct {
	version    string // of a policy
	keyID, key string
}

func (m *model) learnUsers(s step, a answer) {
	u, g := m.users[s.get("UserName")], m.groups[s.get("GroupName")]
	switch s.op {
	case "CreateUser":
		m.users[s.get("UserName")] = &user{name: s.get("UserName")}
	case "UpdateUser":
		if name := s.get("NewUserName"); name != "" && u != nil {
			delete(m.users, u.name)
			u.name = name
			m.users[name] = u
		}
	case "DeleteUser":
		delete(m.users, s.get("UserName"))
	case "CreateGroup":
		m.groups[s.get("GroupName")] = &group{name: s.get("GroupName")}
	case "UpdateGroup":
		if name := s.get("NewGroupName"); name != "" && g != nil {
			delete(m.groups, g.name)
			g.name = name
			m.groups[name] = g
		}
	case "DeleteGroup":
		delete(m.groups, s.get("GroupName"))
	case "AddUserToGroup":
		u.groups = append(u.groups, g)
	case "RemoveUserFromGroup":
		u.groups = slices.DeleteFunc(u.groups, func(o *group) bool { return o == g })
	}
}

func (m *model) learnPolicies(s step, a answer) {
	p := m.policies[s.get("PolicyName")]
	at := attachment{s.get("PolicyType"), s.get("PolicyName")}
	same := func(o attachment) bool { return o == at }
	switch s.op {
	case "CreatePolicy":
		m.policies[s.get("PolicyName")] = &policyState{
			versions: map[string][]statement{"v1": m.statements(s.get("PolicyDocument"))}, current: "v1",
		}
	case "CreatePolicyVersion":
		p.versions[a.version] = m.statements(s.get("PolicyDocument"))
		if s.get("SetAsDefault") == "true" {
			p.current = a.version
		}
	case "SetDefaultPolicyVersion":
		p.current = s.get("VersionId")
	case "DeletePolicy":
		delete(m.policies, s.get("PolicyName"))
		m.detached(attachment{users.Custom, s.get("PolicyName")})
	case "AttachPolicyToUser":
		u := m.users[s.get("UserName")]
		u.policies = append(u.policies, at)
	case "DetachPolicyFromUser":
		u := m.users[s.get("UserName")]
		u.policies = slices.DeleteFunc(slices.Clone(u.policies), same)
	case "AttachPolicyToGroup":
		g := m.groups[s.get("GroupName")]
		g.policies = append(g.policies, at)
	case "DetachPolicyFromGroup":
		g := m.groups[s.get("GroupName")]
		g.policies = slices.DeleteFunc(slices.Clone(g.policies), same)
	}
}

// detached removes a policy that was deleted from everyone, so that a later one of its name is not
// theirs.
func (m *model) detached(at attachment) {
	same := func(o attachment) bool { return o == at }
	for _, u := range m.users {
		u.policies = slices.DeleteFunc(slices.Clone(u.policies), same)
	}
	for _, g := range m.groups {
		g.policies = slices.DeleteFunc(slices.Clone(g.policies), same)
	}
}

func (m *model) learnSecrets(s step, c *cause, _ answer) {
	name := m.secretName(s.get("SecretName"))
	own := m.secrets[name]
	switch s.op {
	case "CreateSecret":
		m.created(s, c)
	case "PrepareTargetAccounts":
		if s.get("Apply") == "true" && own == nil {
			own = &secretState{
				name:   name,
				kind:   "Rds",
				target: s.get("TargetName"),
				maker:  c,
				bound:  map[string]*cause{s.get("TargetName"): c},
			}
			m.secrets[name] = own
		}
	case "DeleteSecret":
		if s.get("ForceDeleteWithoutRecovery") == "true" {
			delete(m.secrets, name)
		} else {
			own.deleting = true
		}
	case "RestoreSecret":
		own.deleting = false
	case "SetSecretPolicy":
		own.policy = m.statements(s.get("Policy"))
	case "ConfigureRotation":
		if s.has("TargetName") {
			own.target = s.get("TargetName")
		}
		own.maker, own.schedule = c, c
		own.bind(c)
	case "RemoveRotation":
		own.target = ""
	case "UpdateSecretRotationPolicy":
		own.schedule = c
	case "RotateSecret", "RehearseRotation", "EmergencyRotation", "RepairRotation", "UndoRotation":
		if s.get("DryRun") != "true" {
			own.request = c
			own.bind(c)
		}
	}
}

// attached reports whether the secret is tied to the target as it is registered now, and in use.
func (o *secretState) attached(target string) bool { return o.receives(target) && !o.deleting }

// receives reports whether the target as it is registered now gets the value of the secret, at the
// latest when the secret is restored.
func (o *secretState) receives(target string) bool {
	return o.target == target && o.bound[target] != nil
}

func (o *secretState) bind(c *cause) {
	if o.target != "" {
		o.bound[o.target] = c
	}
}

func (m *model) created(s step, c *cause) {
	own := &secretState{name: s.newSecret(), kind: s.get("SecretType"), maker: c, schedule: c, bound: map[string]*cause{}}
	config := s.get("ExtendedConfig")
	switch own.kind {
	case "Rds":
		own.target = member(config, "DBInstanceId")
	case "Redis", "ECS":
		own.target = member(config, "InstanceId")
	case "PolarDB":
		own.target = member(config, "DBClusterId")
	case "RAMCredentials":
		own.user = member(config, "UserName")
	}
	if m.targets[own.target] != nil {
		own.bind(c)
	}
	if s.has("Policy") {
		own.policy = m.statements(s.get("Policy"))
	}
	m.secrets[own.name] = own
}

func (m *model) learnTargets(s step, c *cause) {
	name := s.get("TargetName")
	t := m.targets[name]
	switch s.op {
	case "RegisterTarget":
		t = &targetState{
			name:    name,
			address: member(s.get("Config"), "address"),
			admin:   m.secretName(s.get("AdminSecretName")),
			pointed: c,
		}
		t.accounts = s.accounts()
		m.targets[name] = t
		m.bindAdmin(t, c)
	case "UpdateTarget":
		if list := s.accounts(); len(list) > 0 {
			t.accounts = list
		}
		if s.has("Config") {
			t.address, t.pointed = member(s.get("Config"), "address"), c
		}
		if s.has("AdminSecretName") {
			t.admin = m.secretName(s.get("AdminSecretName"))
			m.bindAdmin(t, c)
		}
	case "DeregisterTarget":
		delete(m.targets, name)
		for _, own := range m.secrets {
			delete(own.bound, name)
		}
	}
}

func (m *model) bindAdmin(t *targetState, c *cause) {
	if own := m.secrets[t.admin]; own != nil {
		own.bound[t.name] = c
	}
}
