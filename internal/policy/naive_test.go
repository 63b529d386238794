package policy

import (
	"encoding/json"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// This file is a second evaluator, written from the words of the contract in the plainest way, for
// tests to compare with. It reads the text of the documents by itself and shares no code with the
// first.

// verdict is what it answers: which statements let the request through, and which forbid it.
type verdict struct {
	allowed, explicit bool
	allows, denies    []place
}

// place is a statement: of an identity document, or of the secret's policy (document -1).
type place struct{ document, statement int }

// plainDoc is a document as JSON has it.
type plainDoc []map[string]any

func readPlain(text string) plainDoc {
	var doc struct{ Statement any }
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		panic("the naive evaluator is given what is not JSON: " + err.Error())
	}
	switch s := lists(doc.Statement).(type) {
	case map[string]any:
		return plainDoc{s}
	case []any:
		var out plainDoc
		for _, v := range s {
			out = append(out, v.(map[string]any))
		}
		return out
	}
	panic("the naive evaluator is given a document without statements")
}

// lists writes every value that may be a string or a list of strings as a list, once for all
// requests.
func lists(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			if text, ok := member.(string); ok && name != "Effect" && name != "Sid" {
				member = []any{text}
			}
			v[name] = lists(member)
		}
	case []any:
		var out []string
		for i := range v {
			if text, ok := v[i].(string); ok {
				out = append(out, text)
			} else {
				v[i] = lists(v[i])
			}
		}
		if len(out) == len(v) {
			return out
		}
	}
	return v
}

func list(v any) []string { return v.([]string) }

// naively decides a request. secret is nil when the resource has no policy of its own; owner is the
// account whose it is.
func naively(r Request, identity []plainDoc, secret plainDoc, owner string) (v verdict) {
	p := r.Principal
	known := p.Kind == "Account" || p.Kind == "RAMUser" || p.Kind == "AssumedRoleUser" || p.Kind == "System"
	if !known || p.Account == "" || r.Action == "" {
		return v
	}
	parts := strings.SplitN(r.Resource, ":", 5)
	arn := len(parts) == 5 && parts[0] == "acs" && parts[1] != "" && parts[4] != ""
	if r.Resource != "*" && !arn {
		return v
	}
	if secret != nil && (!arn || parts[3] != owner) {
		return v // the policy of another secret than the one asked for
	}
	sameAccount := !arn || parts[3] == p.Account || parts[1] == "ram" && parts[3] == "system"

	identityAllows := false
	for i, doc := range identity {
		if p.Kind == "Account" {
			break // root has no identity policy
		}
		for j, st := range doc {
			if !actionFits(st, r.Action) || !resourceFits(st, r.Resource) || !conditionsHold(st, r.Context) {
				continue
			}
			if st["Effect"] == "Deny" {
				v.denies = append(v.denies, place{i, j})
			} else if !byName(r.Action) || spelledOut(st, r.Resource) {
				v.allows = append(v.allows, place{i, j})
				identityAllows = true
			}
		}
	}
	granted, delegated := false, false
	for j, st := range secret {
		if p.Kind == "System" || !actionFits(st, r.Action) || !conditionsHold(st, r.Context) {
			continue
		}
		named, sameName, whole, rootOnly := concerns(st, p)
		root, policyItself := p.Kind == "Account", []string{"kms:setsecretpolicy", "kms:getsecretpolicy"}
		switch {
		case st["Effect"] == "Deny" && root && slices.Contains(policyItself, strings.ToLower(r.Action)):
			// the means to correct a policy
		case st["Effect"] == "Deny" && (named || sameName || whole || rootOnly && root):
			v.denies = append(v.denies, place{-1, j})
		case st["Effect"] == "Allow" && hasEffect(r.Action) && (named || whole || rootOnly):
			v.allows = append(v.allows, place{-1, j})
			granted, delegated = granted || named, delegated || whole || rootOnly
		}
	}
	v.explicit = len(v.denies) > 0
	own := identityAllows || p.Kind == "Account"
	switch {
	case v.explicit:
	case sameAccount:
		v.allowed = own || granted
	default:
		v.allowed = own && (granted || delegated)
	}
	return v
}

// concerns reports how a statement of a secret policy means the principal: by the ID of the one
// that had the name when the policy was set, by the name alone, as one of the account, or as its
// root.
func concerns(st map[string]any, p Principal) (named, sameName, whole, root bool) {
	for _, who := range list(st["Principal"].(map[string]any)["RAM"]) {
		base := "acs:ram::" + p.Account + ":"
		switch {
		case who == base+"*":
			whole = true
		case who == base+"root":
			root = true
		}
		kind := map[PrincipalKind]string{"RAMUser": "user/", "AssumedRoleUser": "role/"}[p.Kind]
		name, ok := strings.CutPrefix(who, base+kind)
		if kind == "" || !ok {
			continue
		}
		sameName = sameName || name == p.Name
		named = named || strings.TrimSuffix(p.ID, ":"+p.Session) == idOf(p.Account, kind+name)
	}
	return named, sameName, whole, root
}

// hasEffect is the list of section 6, and the two newer tag calls, which do what the older ones do.
func hasEffect(action string) bool {
	a := strings.ToLower(action)
	return strings.HasPrefix(a, "kms:list") || strings.HasPrefix(a, "kms:describe") ||
		strings.HasPrefix(a, "kms:update") ||
		slices.Contains([]string{
			"kms:putsecretvalue", "kms:deletesecret", "kms:restoresecret", "kms:rotatesecret", "kms:tagresource",
			"kms:untagresource",
			"kms:tagresources", "kms:untagresources", "kms:getsecretvalue",
		}, a)
}

func actionFits(st map[string]any, action string) bool {
	return slices.ContainsFunc(list(st["Action"]), func(pattern string) bool {
		return like(strings.ToLower(pattern), strings.ToLower(action))
	})
}

func resourceFits(st map[string]any, resource string) bool {
	return slices.ContainsFunc(list(st["Resource"]), func(pattern string) bool {
		if pattern == "*" || resource == "*" {
			return pattern == "*"
		}
		want, have := strings.SplitN(pattern, ":", 5), strings.SplitN(resource, ":", 5)
		for i := range want {
			if !like(want[i], have[i]) {
				return false
			}
		}
		return true
	})
}

// spelledOut reports whether a statement names a resource by the last part of its ARN, as it is.
func spelledOut(st map[string]any, resource string) bool {
	return slices.ContainsFunc(list(st["Resource"]), func(pattern string) bool {
		want, have := strings.SplitN(pattern, ":", 5), strings.SplitN(resource, ":", 5)
		return len(want) == 5 && len(have) == 5 && want[4] == have[4] &&
			resourceFits(map[string]any{"Resource": []string{pattern}}, resource)
	})
}

// like matches the first character and then the rest: * is nothing, or one character and * again; ?
// is one character.
func like(pattern, s string) bool {
	if pattern == "" {
		return s == ""
	}
	p, n := utf8.DecodeRuneInString(pattern)
	if p == '*' && strings.Trim(pattern, "*") == "" {
		return true
	}
	if p == '*' {
		for {
			if like(pattern[n:], s) {
				return true
			}
			if s == "" {
				return false
			}
			_, m := utf8.DecodeRuneInString(s)
			s = s[m:]
		}
	}
	if s == "" {
		return false
	}
	c, m := utf8.DecodeRuneInString(s)
	return (p == '?' || p == c) && like(pattern[n:], s[m:])
}

func conditionsHold(st map[string]any, ctx Context) bool {
	operators, ok := st["Condition"].(map[string]any)
	if !ok {
		return true
	}
	for operator, keys := range operators {
		for key, values := range keys.(map[string]any) {
			if !conditionHolds(operator, key, list(values), ctx) {
				return false
			}
		}
	}
	return true
}

func conditionHolds(operator, key string, values []string, ctx Context) bool {
	positive := strings.Replace(operator, "Not", "", 1)
	negated := positive != operator
	got, present := lookUp(key, ctx)
	for _, want := range values {
		if present && compare(positive, got, want) {
			return !negated
		}
	}
	return negated
}

// lookUp writes what the request has for a key as a policy would.
func lookUp(key string, ctx Context) (string, bool) {
	truth := map[bool]string{true: "true", false: "false"}
	switch key {
	case "acs:CurrentTime":
		return ctx.Now.UTC().Format("2006-01-02T15:04:05Z"), !ctx.Now.IsZero()
	case "acs:SecureTransport":
		return truth[ctx.SecureTransport], true
	case "acs:MFAPresent":
		return truth[ctx.MFAPresent], true
	case "acs:SourceIp":
		return strings.TrimPrefix(ctx.SourceIP.WithZone("").String(), "::ffff:"), ctx.SourceIP.IsValid()
	}
	v, ok := ctx.Tags[strings.TrimPrefix(key, "kms:tag/")]
	return v, ok
}

// compare is one positive comparison. What is not of the operator's type compares with nothing.
func compare(operator, got, want string) bool {
	switch operator {
	case "StringEquals":
		return got == want
	case "StringEqualsIgnoreCase":
		return strings.EqualFold(got, want)
	case "StringLike":
		return like(want, got)
	case "Bool":
		return got == want && (got == "true" || got == "false")
	case "IpAddress":
		return inside(got, want)
	}
	kind, relation, ok := cutKind(operator)
	if !ok {
		panic("the naive evaluator does not know " + operator)
	}
	order, ok := 0, false
	if kind == "Numeric" {
		order, ok = compareNumbers(got, want)
	} else {
		order, ok = compareDates(got, want)
	}
	switch relation {
	case "Equals":
		return ok && order == 0
	case "LessThan":
		return ok && order < 0
	case "LessThanEquals":
		return ok && order <= 0
	case "GreaterThan":
		return ok && order > 0
	case "GreaterThanEquals":
		return ok && order >= 0
	}
	panic("the naive evaluator does not know " + operator)
}

func cutKind(operator string) (kind, relation string, ok bool) {
	for _, kind := range []string{"Numeric", "Date"} {
		if relation, ok := strings.CutPrefix(operator, kind); ok {
			return kind, relation, true
		}
	}
	return "", "", false
}

func inside(address, block string) bool {
	ip := net.ParseIP(address)
	if ip == nil {
		return false
	}
	if one := net.ParseIP(block); one != nil {
		return ip.Equal(one)
	}
	_, n, err := net.ParseCIDR(block)
	return err == nil && (ip.To4() == nil) == (n.IP.To4() == nil) && n.Contains(ip)
}

var plainNumber = regexp.MustCompile(`^(-?)0*([0-9]*)(?:\.([0-9]+?)0*)?$`)

// compareNumbers compares digit by digit.
func compareNumbers(a, b string) (int, bool) {
	x, y := plainNumber.FindStringSubmatch(a), plainNumber.FindStringSubmatch(b)
	if x == nil || y == nil || !strings.ContainsAny(a, "0123456789") || !strings.ContainsAny(b, "0123456789") {
		return 0, false
	}
	sign := func(m []string) int {
		if m[2]+strings.Trim(m[3], "0") == "" {
			return 0
		}
		return map[string]int{"": 1, "-": -1}[m[1]]
	}
	if sx, sy := sign(x), sign(y); sx != sy || sx == 0 {
		return sx - sy, true
	}
	order := len(x[2]) - len(y[2])
	if order == 0 {
		order = strings.Compare(x[2]+"."+strings.TrimRight(x[3], "0"), y[2]+"."+strings.TrimRight(y[3], "0"))
	}
	return order * sign(x), true
}

var plainDate = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

func compareDates(a, b string) (int, bool) {
	var seconds [2]int64
	for i, s := range []string{a, b} {
		layout := "2006-01-02T15:04:05Z"
		if !strings.HasSuffix(s, "Z") {
			layout = "2006-01-02T15:04:05-07:00"
		}
		t, err := time.Parse(layout, s)
		if err != nil || !plainDate.MatchString(s) {
			return 0, false
		}
		seconds[i] = t.Unix()
	}
	switch {
	case seconds[0] < seconds[1]:
		return -1, true
	case seconds[0] > seconds[1]:
		return 1, true
	}
	return 0, true
}
