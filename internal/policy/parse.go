package policy

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxIdentityChars is the longest identity policy.
const MaxIdentityChars = 6144

// Document is a policy that has been parsed and found valid. It never changes. The zero Document
// was never parsed; Evaluate refuses a request that comes with one.
type Document struct {
	kind       string // PolicyIdentity or PolicySecret
	account    string // owner of the secret, for a secret policy
	statements []statement
	bound      map[string]string // IDs of those whom a secret policy names, by their ARNs
}

type statement struct {
	sid        string
	deny       bool
	principals []principalPattern // secret policies only
	actions    []string
	resources  []resourcePattern // identity policies only; a secret policy is about its secret
	conditions []condition
}

// ParseIdentity reads a policy to be attached to a user or a role.
func ParseIdentity(doc string) (Document, error) {
	if utf8.RuneCountInString(doc) > MaxIdentityChars {
		return Document{}, fmt.Errorf("policy: the document is longer than %d characters; "+
			"shorten it or split it in two policies", MaxIdentityChars)
	}
	statements, err := parseDocument(doc, parseIdentityElement, []string{"Effect", "Action", "Resource"})
	if err != nil {
		return Document{}, fmt.Errorf("policy: %w", err)
	}
	return Document{kind: PolicyIdentity, statements: statements}, nil
}

// element reads one member of a statement into it.
type element func(s *statement, m member, where string) error

func parseDocument(doc string, read element, required []string) ([]statement, error) {
	root, err := decode(doc)
	if err != nil {
		return nil, err
	}
	members, ok := root.(object)
	if !ok {
		return nil, errors.New("the document must be an object with Version and Statement")
	}
	var version, list any
	for _, m := range members {
		switch m.name {
		case "Version":
			version = m.value
		case "Statement":
			list = m.value
		default:
			return nil, fmt.Errorf("unknown element %s; a policy has Version and Statement only", quote(m.name))
		}
	}
	if version != "1" {
		return nil, errors.New(`the Version must be "1"`)
	}
	return parseStatements(list, read, required)
}

// parseStatements reads Statement: a list, or one object where there is one.
func parseStatements(v any, read element, required []string) ([]statement, error) {
	if one, ok := v.(object); ok {
		v = []any{one}
	}
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		return nil, errors.New("the Statement must be a list with at least one statement")
	}
	out := make([]statement, len(list))
	for i, v := range list {
		where := fmt.Sprintf("Statement[%d]", i)
		members, ok := v.(object)
		if !ok {
			return nil, fmt.Errorf("%s must be an object", where)
		}
		if err := parseStatement(&out[i], members, where, read, required); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func parseStatement(s *statement, members object, where string, read element, required []string) error {
	for _, name := range required {
		if !members.has(name) {
			return fmt.Errorf("%s: %s is missing; add it", where, name)
		}
	}
	for _, m := range members {
		if err := read(s, m, where); err != nil {
			return err
		}
	}
	return nil
}

func (o object) has(name string) bool {
	for _, m := range o {
		if m.name == name {
			return true
		}
	}
	return false
}

func parseIdentityElement(s *statement, m member, where string) (err error) {
	switch m.name {
	case "Sid":
		return parseSid(s, m.value, where)
	case "Effect":
		return parseEffect(s, m.value, where)
	case "Action":
		s.actions, err = parseActions(m.value, where+".Action")
	case "Resource":
		s.resources, err = parseResources(m.value, where+".Resource")
	case "Condition":
		s.conditions, err = parseConditions(m.value, where+".Condition")
	default:
		return fmt.Errorf("%s: unknown element %s; an identity policy has Sid, Effect, Action, Resource and Condition only",
			where, quote(m.name))
	}
	return err
}

func parseEffect(s *statement, v any, where string) error {
	if v != "Allow" && v != "Deny" {
		return fmt.Errorf("%s.Effect must be \"Allow\" or \"Deny\"", where)
	}
	s.deny = v == "Deny"
	return nil
}

// parseActions accepts actions of any service, as a policy may be shared with one, but each must
// look like an action: a typing error in a Deny is silent otherwise.
func parseActions(v any, where string) ([]string, error) {
	actions, err := textList(v, where)
	if err != nil {
		return nil, err
	}
	for _, a := range actions {
		service, name, ok := strings.Cut(a, ":")
		if a != "*" && (!ok || service == "" || name == "" || strings.ContainsFunc(a, notInAction)) {
			return nil, fmt.Errorf(`%s: %s is not an action; write "kms:GetSecretValue", "kms:Describe*" or "*"`,
				where, quote(a))
		}
	}
	return actions, nil
}

// notInAction refuses what cannot be part of an action's name: spaces, controls, anything past
// ASCII.
func notInAction(r rune) bool {
	return r <= ' ' || r > '~' || r == '"' || r == '\\' || r == ','
}

func parseResources(v any, where string) ([]resourcePattern, error) {
	texts, err := textList(v, where)
	if err != nil {
		return nil, err
	}
	out := make([]resourcePattern, len(texts))
	for i, text := range texts {
		if text == "*" {
			out[i].all = true
			continue
		}
		parts, ok := ParseARN(text)
		if !ok {
			return nil, fmt.Errorf(`%s: %s is not a resource; write "*" or five parts such as "acs:kms:*:*:secret/app/*"`,
				where, quote(text))
		}
		out[i].ARNParts = parts
	}
	return out, nil
}
