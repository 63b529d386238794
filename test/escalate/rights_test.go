package escalate

import (
	"encoding/json"
	"slices"
	"strings"
)

// statement is one statement of a policy, as the reference model reads it. The model shares no code
// with package policy: it knows "*" in actions and resources, and no conditions.
type statement struct {
	deny       bool
	actions    []string
	resources  []string // of an identity policy
	principals []grantee
}

// grantee is a principal of a secret's policy. user is the user who had the name when the policy
// was set: a later user of that name is another one.
type grantee struct {
	everyone bool // "*"
	root     bool
	name     string
	user     *user
}

// document is the JSON of the policies that the search writes.
type document struct {
	Version   string
	Statement []documentStatement
}

type documentStatement struct {
	Effect    string
	Principal *documentPrincipal `json:",omitempty"`
	Action    list
	Resource  list
}

type documentPrincipal struct{ RAM list }

// list is a string or a list of strings.
type list []string

func (l *list) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*l = list{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(l))
}

// statements reads a document. The product checks documents; one that it accepts and the model
// cannot read grants nothing in the model, so that a call which it allows shows as a violation.
func (m *model) statements(text string) []statement {
	var d document
	if json.Unmarshal([]byte(text), &d) != nil {
		return nil
	}
	var out []statement
	for _, s := range d.Statement {
		st := statement{deny: s.Effect == "Deny", actions: s.Action, resources: s.Resource}
		if s.Principal != nil {
			for _, arn := range s.Principal.RAM {
				st.principals = append(st.principals, m.grantee(arn))
			}
		}
		out = append(out, st)
	}
	return out
}

func (m *model) grantee(arn string) grantee {
	relative := arn[strings.LastIndex(arn, ":")+1:]
	name, isUser := strings.CutPrefix(relative, "user/")
	switch {
	case relative == "*":
		return grantee{everyone: true}
	case relative == "root":
		return grantee{root: true}
	case isUser:
		return grantee{name: name, user: m.users[name]}
	}
	return grantee{}
}

// matches reports whether text fits a pattern in which * stands for any text.
func matches(pattern, text string) bool {
	first, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == text
	}
	if !strings.HasPrefix(text, first) {
		return false
	}
	for i := len(first); i <= len(text); i++ {
		if matches(rest, text[i:]) {
			return true
		}
	}
	return false
}

func (s *statement) covers(action, resource string) bool {
	return s.names(action) && slices.ContainsFunc(s.resources, func(p string) bool { return matches(p, resource) })
}

func (s *statement) names(action string) bool {
	action = strings.ToLower(action)
	return slices.ContainsFunc(s.actions, func(p string) bool { return matches(strings.ToLower(p), action) })
}

// rights are the identity statements of one user at one time; all is set for root, who needs none.
type rights struct {
	all        bool
	user       *user
	statements []statement
}

// may reports whether the rights, together with the policy of the secret that the resource is,
// allow an action. banned says that a Deny decided.
func (m *model) may(r rights, action, resource string) (allowed, banned bool) {
	if own := m.secretOf(resource); own != nil && governed(action) {
		if own.bans(r, action) {
			return false, true
		}
		allowed = own.grants(r, action)
	}
	if r.all {
		return true, false
	}
	for i := range r.statements {
		if s := &r.statements[i]; s.covers(action, resource) {
			if s.deny {
				return false, true
			}
			allowed = true
		}
	}
	return allowed, false
}

// governed reports whether a secret's own policy has a say. The two that correct a policy are
// excepted, or a mistake in one could not be corrected.
func governed(action string) bool {
	return strings.HasPrefix(action, "kms:") && action != "kms:SetSecretPolicy" && action != "kms:GetSecretPolicy"
}

func (m *model) secretOf(resource string) *secretState {
	name, ok := strings.CutPrefix(resource, m.kms("secret/"))
	if !ok {
		return nil
	}
	return m.secrets[name]
}

func (s *secretState) bans(r rights, action string) bool {
	return slices.ContainsFunc(s.policy, func(st statement) bool {
		return st.deny && st.names(action) && slices.ContainsFunc(st.principals, func(g grantee) bool {
			return g.everyone || g.root && r.all || r.user != nil && (g.user == r.user || g.name == r.user.name)
		})
	})
}

func (s *secretState) grants(r rights, action string) bool {
	return r.user != nil && slices.ContainsFunc(s.policy, func(st statement) bool {
		return !st.deny &&
			st.names(action) &&
			slices.ContainsFunc(st.principals, func(g grantee) bool { return g.user == r.user })
	})
}
