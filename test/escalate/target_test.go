package escalate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// system is where a target points: an address with accounts and the passwords that they have. It
// ignores case, quotes and a host part in the name of an account. A system that an attacker owns
// accepts everything and keeps what it is given.
type system struct {
	address    string
	owner      string // an attacker; empty for a system of the operator
	admin      string // the account that changes others
	aliases    map[string]string
	privileged map[string]bool
	accounts   map[string]map[string]bool // account to the passwords that it accepts
	before     map[login]bool             // what it accepted at any time
}

type login struct{ account, password string }

// newSystems are the systems of a world: two of the operator and one of each attacker. Each
// attacker has an ordinary account at the first.
func newSystems() map[string]*system {
	passwords := func(list ...string) map[string]map[string]bool {
		out := map[string]map[string]bool{}
		for i := 0; i < len(list); i += 2 {
			out[list[i]] = map[string]bool{list[i+1]: true}
		}
		return out
	}
	list := []*system{
		{
			address: "op:1", admin: "keyturn", privileged: map[string]bool{"default": true},
			aliases: map[string]string{"cn=keyturn": "keyturn"},
			accounts: passwords("keyturn", administratorPassword, "default", "of-the-superuser", "app", applicationPassword,
				"report", "of-the-report", "mallory", "of-mallory", "eve", "of-eve"),
		},
		{
			address:    "op:2",
			privileged: map[string]bool{"default": true},
			accounts:   passwords("idp", clientPassword, "default", "of-the-manager"),
		},
		{address: "evil:mallory", owner: "mallory"},
		{address: "evil:eve", owner: "eve"},
	}
	out := map[string]*system{}
	for _, s := range list {
		out[s.address], s.before = s, map[login]bool{}
		for account, has := range s.accounts {
			for password := range has {
				s.before[login{account, password}] = true
			}
		}
	}
	return out
}

const (
	administratorPassword = "password-of-the-administrator"
	applicationPassword   = "password-of-the-application"
	clientPassword        = "password-of-the-client"
)

// config is the configuration of a target of the search.
type config struct {
	Address string `json:"address"`
}

// spelled is the name of an account without what the system ignores in it.
func spelled(account string) string {
	account, _, _ = strings.Cut(strings.ToLower(strings.Trim(account, "'")), "@")
	return account
}

// real is the account that a name stands for.
func (s *system) real(account string) string {
	name := spelled(account)
	if alias := s.aliases[name]; alias != "" {
		return alias
	}
	return name
}

// kinds are the kinds of targets in the search: admin, whose administrator changes accounts;
// plain, which is the same and cannot say what an account is; and self, where a credential adds
// the next one to its own account, as a client of an identity provider or a host over SSH does.
func (w *world) kinds() map[string]target.Kind {
	check := func(raw json.RawMessage) error {
		var c config
		if err := target.Decode(raw, &c); err != nil {
			return err
		}
		if w.systems[c.Address] == nil {
			return errors.New("there is nothing at this address")
		}
		return nil
	}
	open := func(kind string) func(target.Settings) (target.Target, error) {
		return func(s target.Settings) (target.Target, error) {
			var c config
			if err := target.Decode(s.Config, &c); err != nil {
				return nil, err
			}
			d := &link{world: w, name: s.Name, admin: s.Admin, system: w.systems[c.Address], guarded: kind != "plain"}
			switch kind {
			case "admin":
				return &guardedLink{&adminLink{d}}, nil
			case "plain":
				return &adminLink{d}, nil
			}
			return d, nil
		}
	}
	kinds := map[string]target.Kind{
		"self": {Name: "self", Strategies: []target.Strategy{target.Overlap}, Check: check, Open: open("self")},
	}
	for _, name := range []string{"admin", "plain"} {
		kinds[name] = target.Kind{
			Name:       name,
			NeedsAdmin: true,
			Strategies: []target.Strategy{target.Single, target.Double},
			Check:      check,
			Open:       open(name),
		}
	}
	return kinds
}

// link is an open target of kind self.
type link struct {
	world   *world
	name    string
	admin   target.Credential
	system  *system
	guarded bool // it says what an account is
}

func (l *link) accepts(c target.Credential) bool {
	return l.system.owner != "" || l.system.accounts[l.system.real(c.Account)][c.Secret.Reveal()]
}

// give is what the system is given of a secret that the engine, or a call, works on.
func (l *link) give(list ...target.Credential) {
	for _, c := range list {
		l.world.arrived(l, c.Secret, "")
	}
}

func (l *link) Apply(_ context.Context, c target.Change) error {
	l.give(c.Old, c.New)
	if !l.accepts(c.Old) {
		return target.Failed(target.Denied, "", "the credential in use is not accepted")
	}
	l.set(c.New, false)
	return nil
}

// set gives an account a credential, beside those that it has or instead of them.
func (l *link) set(c target.Credential, alone bool) {
	if l.system.owner != "" {
		return
	}
	account, password := l.system.real(c.Account), c.Secret.Reveal()
	has := l.system.accounts[account]
	if has[password] && (!alone || len(has) == 1) {
		return
	}
	if has == nil || alone {
		has = map[string]bool{}
	}
	has[password] = true
	l.system.accounts[account] = has
	l.world.changed(l, c.Account)
	if !l.system.before[login{account, password}] {
		l.world.imposed(l, c.Account, password)
	}
	l.system.before[login{account, password}] = true
}

func (l *link) Retire(_ context.Context, c target.Change) error {
	l.give(c.New, c.Old)
	if !l.accepts(c.New) {
		return target.Failed(target.Denied, "", "the credential in use is not accepted")
	}
	l.unset(c.Old)
	return nil
}

func (l *link) unset(c target.Credential) {
	if has := l.system.accounts[l.system.real(c.Account)]; has[c.Secret.Reveal()] {
		delete(has, c.Secret.Reveal())
		l.world.changed(l, c.Account)
	}
}

func (l *link) Verify(_ context.Context, c target.Credential) error {
	l.give(c)
	if !l.accepts(c) {
		return target.Failed(target.Rejected, "", fmt.Sprintf("log in as %q: no such login", c.Account))
	}
	return nil
}

func (l *link) Close() error { return nil }

func (l *link) standing(account string) target.Standing {
	account = l.system.real(account)
	out := target.Standing{Administrator: l.system.owner == "" && account == l.system.admin}
	if l.system.privileged[account] {
		out.Privileged = "is a superuser"
	}
	return out
}

// guardedLink is an open target of kind admin.
type guardedLink struct{ *adminLink }

func (l *guardedLink) Standing(_ context.Context, account string) (target.Standing, error) {
	return l.standing(account), nil
}

// adminLink is an open target of kind plain.
type adminLink struct{ *link }

// login is the administrator's.
func (l *adminLink) login() error {
	l.world.arrived(l.link, l.admin.Secret, "administrator")
	if !l.accepts(l.admin) || l.system.owner == "" && l.system.real(l.admin.Account) != l.system.admin {
		return target.Failed(target.Denied, "", "the administrator is not accepted")
	}
	return nil
}

func (l *adminLink) Test(context.Context) error { return l.login() }

func (l *adminLink) Apply(_ context.Context, c target.Change) error {
	if err := l.login(); err != nil {
		return err
	}
	l.give(c.New)
	if l.system.owner == "" && l.system.accounts[l.system.real(c.New.Account)] == nil {
		return target.Failed(target.Denied, "", "there is no such account")
	}
	l.set(c.New, true)
	return nil
}

func (l *adminLink) Retire(_ context.Context, c target.Change) error {
	if err := l.login(); err != nil {
		return err
	}
	l.give(c.Old)
	l.unset(c.Old)
	return nil
}

func (l *adminLink) PlanAccounts(_ context.Context, r target.PlanRequest) (target.Plan, error) {
	return target.Plan{Request: r, Steps: []target.PlanStep{{Statements: []string{"create " + r.Logins[1]}}}}, l.login()
}

func (l *adminLink) ApplyPlan(_ context.Context, p target.Plan) error {
	clone := p.Request.Logins[1]
	if name := l.system.real(clone); l.system.owner == "" && l.system.accounts[name] == nil {
		l.system.accounts[name] = map[string]bool{}
		l.world.changed(l.link, clone)
	}
	return nil
}

func (l *adminLink) ProveAccounts(
	_ context.Context, r target.PlanRequest, a, b target.Credential,
) (target.Proof, error) {
	if strings.HasPrefix(r.Owner, "unequal") {
		return target.Proof{}, target.Failed(target.Denied, "", "the accounts are not equal")
	}
	return target.Proof{}, nil
}

var _ target.Preparer = &adminLink{}

// arrived checks what an address is given. part is administrator for the target's own credential.
func (w *world) arrived(l *link, secret sensitive.Value, part string) {
	text := secret.Reveal()
	if text == "" {
		return
	}
	name := w.acting
	if t := w.model.targets[l.name]; part != "" && t != nil {
		name = t.admin
	}
	w.model.valueOf(text).secrets[name] = true
	if l.system.owner == "" {
		return
	}
	if why := w.model.mayFlow(w.caller, l, name, text); why != "" {
		w.violate("value-sent", "a value of secret %q arrived at %s through target %q: %s",
			name, l.system.address, l.name, why)
	}
}

// mayFlow returns why a value of a secret must not arrive at the address of an attacker; empty
// when it may. caller is nil while the engine works.
func (m *model) mayFlow(caller *cause, l *link, name, text string) string {
	owner, v := m.people[l.system.owner], m.values[text]
	own, t := m.secrets[name], m.targets[l.name]
	preparing := caller != nil && caller.op == "PrepareTargetAccounts"
	switch {
	case v.had[owner.name]:
		return ""
	case preparing && (v.had[caller.by.name] || v.first == caller.at):
		return "" // the call supplies or makes the value, and names the target
	case own == nil || t == nil:
		return "no caller tied them together"
	}
	for _, u := range owner.users() {
		if ok, _ := m.may(m.rightsOf(u), "kms:GetSecretValue", m.kms("secret/"+name)); ok {
			return ""
		}
	}
	reads := func(c *cause) bool {
		ok, _ := m.may(c.rights, "kms:GetSecretValue", m.kms("secret/"+name))
		return ok
	}
	if b := own.bound[l.name]; b != nil && b.at > t.pointed.at {
		if !b.by.attacker || b == own.maker || reads(b) {
			return ""
		}
		return b.by.name + " tied them together, who may not read the secret"
	}
	if reads(t.pointed) {
		return ""
	}
	return t.pointed.by.name + " pointed the target there, who may not read the secret"
}

// changed checks a change of an account at a system of the operator.
func (w *world) changed(l *link, account string) {
	for _, c := range w.responsible() {
		if c == nil || !c.by.attacker {
			continue
		}
		if why := w.model.mayRotate(c, l, w.acting, account); why != "" {
			w.violate("account-changed", "account %q at %s was changed through target %q for secret %q, because of %s of %s: %s",
				account, l.system.address, l.name, w.acting, c.op, c.by.name, why)
		}
	}
}

// imposed checks a credential that a system of the operator has not accepted before: a right to
// rotate an account is none to choose its credential.
func (w *world) imposed(l *link, account, password string) {
	for _, c := range w.responsible() {
		if c != nil && c.by.attacker && w.model.valueOf(password).chosen[c.by.name] {
			w.violate("credential-imposed",
				"account %q at %s was given a credential that %s chose, for secret %q, because of %s",
				account, l.system.address, c.by.name, w.acting, c.op)
		}
	}
}

// mayRotate says why a cause does not justify a change of an account for a secret; empty when it
// does. A target that cannot say what an account is goes by the spelling of its name.
func (m *model) mayRotate(c *cause, l *link, name, account string) string {
	resource := m.kms("target/" + l.name + "/account/" + account)
	t, real := m.targets[l.name], l.system.real(account)
	administrator := real == l.system.admin && (l.guarded || spelled(account) == real)
	if administrator && (t == nil || t.admin != name) {
		return "it is the administrator's"
	}
	if ok, _ := m.may(c.rights, "kms:RotateAccount", resource); !ok {
		return "no kms:RotateAccount on it"
	}
	privileged := l.guarded && l.system.privileged[real]
	if privileged && (t == nil || t.admin != name && !slices.Contains(t.accounts, account)) {
		return "it is privileged, and the target's account policy does not name it"
	}
	return ""
}
