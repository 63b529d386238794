package policy

import "slices"

// Evaluate decides one request by the identity documents of the principal and the policy of the
// secret that it concerns (nil when the resource is not a secret).
//
// A Deny that applies wins. Within an account an Allow of either side is enough; a principal of
// another account needs both. Root needs no Allow in its own account and knows no identity policy,
// but a Deny in a secret policy binds it, unless the action repairs that policy (Request.Repairs).
// In a secret policy, :* and :root of an account leave the matter to the identity policies of that
// account; naming a user or a role is a grant to the one that the name was bound to
// ([Document.Bind]), of those actions that a secret policy may allow (Request.Grantable). Some
// actions need an Allow that names the resource (Request.ByName).
//
// The engine (KindSystem) has the rights of the documents it is given, and no secret policy reaches
// it: a Deny meant for people must not strand a rotation between two steps.
//
// A session policy narrows a role: the caller evaluates it as a second set of identity documents,
// without the secret policy, and needs both answers to be Allowed.
//
// A question that cannot be judged is denied: an unproven principal, a resource that is neither an
// ARN nor "*", a document that was not parsed as what it is used for, the secret policy of another
// account's secret.
func Evaluate(r Request, identity []Document, secret *Document) Decision {
	q, ok := ask(&r, identity, secret)
	if !ok {
		return implicit
	}
	if d, ok := q.identity(true); ok {
		return d
	}
	if d, _, ok := q.secret(true); ok {
		return d
	}
	return q.allow()
}

// implicit is the answer when nothing speaks for a request.
var implicit = Decision{Document: -1, Statement: -1}

// question is a request whose parts have been found in order.
type question struct {
	*Request
	bare      bool // the operation has no resource: "*"
	arn       ARNParts
	own       bool // the resource belongs to the principal's account
	documents []Document
	policy    *Document
}

func ask(r *Request, identity []Document, secret *Document) (question, bool) {
	q := question{Request: r, bare: r.Resource == "*", own: true, documents: identity, policy: secret}
	if !q.bare {
		var ok bool
		if q.arn, ok = ParseARN(r.Resource); !ok {
			return q, false
		}
		q.own = q.arn.Account == r.Principal.Account || q.arn.Service == "ram" && q.arn.Account == SystemAccount
	}
	if secret != nil && (secret.kind != PolicySecret || q.bare || secret.account != q.arn.Account) {
		return q, false
	}
	for i := range identity {
		if identity[i].kind != PolicyIdentity {
			return q, false
		}
	}
	switch r.Principal.Kind {
	case KindAccount:
		q.documents = nil
	case KindRAMUser, KindAssumedRole, KindSystem:
	default:
		return q, false
	}
	return q, r.Principal.Account != "" && r.Action != ""
}

// allow looks for the Allows, once no Deny was found.
func (q *question) allow() Decision {
	own, allowed := q.identity(false)
	if q.Principal.Kind == KindAccount {
		own, allowed = implicit, true
		own.Allowed = true
	}
	if allowed && q.own {
		return own
	}
	granted, named, ok := q.secret(false)
	switch {
	case !ok:
		return implicit
	case q.own && named:
		return granted
	case !q.own && allowed:
		return granted
	}
	return implicit
}

// identity finds the first statement of the identity documents with this effect that applies.
func (q *question) identity(deny bool) (Decision, bool) {
	for i := range q.documents {
		for j := range q.documents[i].statements {
			s := &q.documents[i].statements[j]
			if s.deny == deny && q.applies(s) && q.reaches(s) && (deny || !q.ByName || q.isNamedBy(s)) {
				return Decision{Allowed: !deny, Explicit: deny, Policy: PolicyIdentity, Document: i, Statement: j, Sid: s.sid}, true
			}
		}
	}
	return implicit, false
}

// secret finds the first statement of the secret policy with this effect that applies. For an Allow
// it prefers one that names the principal over one that delegates, and reports which it is.
func (q *question) secret(deny bool) (found Decision, named, ok bool) {
	found = implicit
	if q.policy == nil || !deny && !q.Grantable || deny && q.Repairs && q.Principal.Kind == KindAccount {
		return found, false, false
	}
	for j := range q.policy.statements {
		s := &q.policy.statements[j]
		if s.deny != deny || !q.applies(s) {
			continue
		}
		for k := range s.principals {
			p := &s.principals[k]
			names := p.names(&q.Principal, q.policy.bound)
			fits := names || !deny && p.delegates(&q.Principal) || deny && p.binds(&q.Principal, q.policy.bound)
			if !fits || ok && !names {
				continue
			}
			found = Decision{Allowed: !deny, Explicit: deny, Policy: PolicySecret, Document: -1, Statement: j, Sid: s.sid}
			if names || deny {
				return found, names, true
			}
			ok = true
		}
	}
	return found, false, ok
}

// applies reports whether action and conditions of s meet the request.
func (q *question) applies(s *statement) bool {
	if !anyAction(s.actions, q.Action) {
		return false
	}
	for i := range s.conditions {
		if !s.conditions[i].holds(&q.Context) {
			return false
		}
	}
	return true
}

func (q *question) reaches(s *statement) bool {
	for i := range s.resources {
		if s.resources[i].match(q.bare, &q.arn) {
			return true
		}
	}
	return false
}

// isNamedBy reports whether s names the resource, at least by the last part of its ARN.
func (q *question) isNamedBy(s *statement) bool {
	return slices.ContainsFunc(s.resources, func(p resourcePattern) bool {
		return !p.all && p.Relative == q.arn.Relative && p.match(q.bare, &q.arn)
	})
}

func anyAction(patterns []string, action string) bool {
	for _, p := range patterns {
		if matchFold(p, action) {
			return true
		}
	}
	return false
}
