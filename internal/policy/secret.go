package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

const maxSecretBytes = 32768

// DefaultSecretDocument is the policy of a secret for which none was set: every principal of the
// owning account may be given rights by identity policies. The spelling is the one that
// GetSecretPolicy answers.
func DefaultSecretDocument(account string) string {
	return `{"Statement":[{"Action":["kms:*"],"Effect":"Allow","Principal":{"RAM":["acs:ram::` + account +
		`:*"]},"Resource":["*"],"Sid":"kms default secret policy"}],"Version":"1"}`
}

// ParseSecret reads the policy of one secret that belongs to account.
func ParseSecret(doc, account string) (Document, error) {
	if len(doc) > maxSecretBytes {
		return Document{}, fmt.Errorf("secret policy: the document is longer than %d bytes; shorten it", maxSecretBytes)
	}
	statements, err := parseDocument(doc, parseSecretElement, []string{"Effect", "Principal", "Action", "Resource"})
	if err != nil {
		return Document{}, fmt.Errorf("secret policy: %w", err)
	}
	return Document{kind: PolicySecret, account: account, statements: statements}, nil
}

// CheckOwner refuses a secret policy that grants the owning account nothing: it would lock out
// everyone who could use the secret. grantable are the actions that a secret policy may allow.
func (d *Document) CheckOwner(grantable []string) error {
	if d.grantsOwner(grantable) {
		return nil
	}
	return fmt.Errorf("secret policy: it grants the owning account nothing; "+
		"allow %s at least one action that has an effect, such as kms:GetSecretValue",
		quote(ARN("ram", "", d.account, "*")))
}

// grantsOwner reports whether some action is allowed to somebody of the owning account and not
// taken from the whole account again by an unconditional Deny.
func (d *Document) grantsOwner(grantable []string) bool {
	for _, action := range grantable {
		allowed, denied := false, false
		for i := range d.statements {
			s := &d.statements[i]
			if !anyAction(s.actions, action) {
				continue
			}
			for _, p := range s.principals {
				allowed = allowed || !s.deny && p.account == d.account
				denied = denied || s.deny && p.account == d.account && p.reach == reachAll && len(s.conditions) == 0
			}
		}
		if allowed && !denied {
			return true
		}
	}
	return false
}

// reach is whom a principal of a secret policy stands for.
type reach string

const (
	reachAll  reach = "*"
	reachRoot reach = "root"
	reachUser reach = "user"
	reachRole reach = "role"
)

type principalPattern struct {
	account string
	reach   reach
	name    string
	text    string // as it was written
}

// fits reports whether p is of the account and kind that the pattern names.
func (pp *principalPattern) fits(p *Principal) bool {
	isKind := pp.reach == reachUser && p.Kind == KindRAMUser ||
		pp.reach == reachRole && p.Kind == KindAssumedRole
	return isKind && pp.account == p.Account
}

// names reports whether the pattern means p itself: the user or role whose ID its name was bound
// to. In an Allow that is a grant. Another user who has taken the name is not meant.
func (pp *principalPattern) names(p *Principal, bound map[string]string) bool {
	id, ok := bound[pp.text]
	return ok && id != "" && pp.fits(p) && id == p.entityID()
}

// entityID is the ID of the user or the role. That of a session is followed by a colon and its
// name.
func (p *Principal) entityID() string {
	id, _, _ := strings.Cut(p.ID, ":")
	return id
}

// Denies reports whether the document has a Deny.
func (d *Document) Denies() bool {
	return slices.ContainsFunc(d.statements, func(s statement) bool { return s.deny })
}

// Named returns the ARNs of the users and roles that a secret policy names, as they are written.
func (d *Document) Named() []string {
	var list []string
	for i := range d.statements {
		for _, p := range d.statements[i].principals {
			if p.reach == reachUser || p.reach == reachRole {
				list = append(list, p.text)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Bind returns the secret policy with the IDs of the users and roles that it names, by their ARNs
// as [Document.Named] returns them. An Allow for a name without an ID grants nothing. A Deny binds
// by the ID and by the name.
func (d *Document) Bind(ids map[string]string) Document {
	b := *d
	b.bound = ids
	return b
}

// delegates reports whether the pattern leaves p to the identity policies of its account. The
// engine is no principal that a secret policy can reach: see Evaluate.
func (pp *principalPattern) delegates(p *Principal) bool {
	return pp.account == p.Account && p.Kind != KindSystem && (pp.reach == reachAll || pp.reach == reachRoot)
}

// binds reports whether a Deny for the pattern meets p. Here * is everyone in the account and root
// is the root principal alone. A user or a role is met by the bound ID, and by the name whoever has
// it now.
func (pp *principalPattern) binds(p *Principal, bound map[string]string) bool {
	switch pp.reach {
	case reachRoot:
		return pp.account == p.Account && p.Kind == KindAccount
	case reachAll:
		return pp.delegates(p)
	}
	return pp.fits(p) && pp.name == p.Name || pp.names(p, bound)
}

func parseSecretElement(s *statement, m member, where string) (err error) {
	switch m.name {
	case "Sid":
		return parseSid(s, m.value, where)
	case "Effect":
		return parseEffect(s, m.value, where)
	case "Principal":
		s.principals, err = parsePrincipals(m.value, where+".Principal")
	case "Action":
		s.actions, err = parseSecretActions(m.value, where+".Action")
	case "Resource":
		return checkSecretResource(m.value, where+".Resource")
	case "Condition":
		s.conditions, err = parseConditions(m.value, where+".Condition")
	default:
		return fmt.Errorf("%s: unknown element %s; "+
			"a secret policy has Sid, Effect, Principal, Action, Resource and Condition only", where, quote(m.name))
	}
	return err
}

var sidForm = regexp.MustCompile(`^[A-Za-z0-9 _/+=.@-]{0,128}$`)

func parseSid(s *statement, v any, where string) error {
	sid, ok := v.(string)
	if !ok || !sidForm.MatchString(sid) {
		return fmt.Errorf("%s.Sid must be a string of at most 128 letters, digits, spaces and _/+=.@-", where)
	}
	s.sid = sid
	return nil
}

func parseSecretActions(v any, where string) ([]string, error) {
	actions, err := parseActions(v, where)
	if err != nil {
		return nil, err
	}
	for _, a := range actions {
		if service, _, _ := strings.Cut(a, ":"); !strings.EqualFold(service, "kms") {
			return nil, fmt.Errorf("%s: %s does not begin with kms:; a secret policy has actions of kms only", where, quote(a))
		}
	}
	return actions, nil
}

func checkSecretResource(v any, where string) error {
	resources, err := textList(v, where)
	if err != nil {
		return err
	}
	for _, r := range resources {
		if r != "*" {
			return fmt.Errorf("%s must be \"*\", which stands for this secret, not %s", where, quote(r))
		}
	}
	return nil
}

func parsePrincipals(v any, where string) ([]principalPattern, error) {
	kinds, ok := v.(object)
	if !ok || len(kinds) != 1 || kinds[0].name != "RAM" {
		return nil, fmt.Errorf("%s must be an object with the one member RAM", where)
	}
	texts, err := textList(kinds[0].value, where+".RAM")
	if err != nil {
		return nil, err
	}
	out := make([]principalPattern, len(texts))
	for i, text := range texts {
		if out[i], err = parsePrincipal(text); err != nil {
			return nil, fmt.Errorf("%s.RAM: %s %w", where, quote(text), err)
		}
	}
	return out, nil
}

var (
	accountForm = regexp.MustCompile(`^[0-9]{16}$`)
	nameForm    = regexp.MustCompile(`^[A-Za-z0-9._@-]{1,128}$`)
)

func parsePrincipal(text string) (principalPattern, error) {
	arn, ok := ParseARN(text)
	if !ok || arn.Service != "ram" || arn.Region != "" || !accountForm.MatchString(arn.Account) {
		return principalPattern{}, errors.New(
			"is not a principal; write acs:ram::<16 digits>:user/<name>, :role/<name>, :root or :*")
	}
	switch arn.Relative {
	case "*":
		return principalPattern{account: arn.Account, reach: reachAll, text: text}, nil
	case "root":
		return principalPattern{account: arn.Account, reach: reachRoot, text: text}, nil
	}
	kind, name, _ := strings.Cut(arn.Relative, "/")
	if kind != "user" && kind != "role" || !nameForm.MatchString(name) {
		return principalPattern{}, errors.New("must end in user/<name>, role/<name>, root or *, the name in full")
	}
	return principalPattern{account: arn.Account, reach: reach(kind), name: name, text: text}, nil
}
