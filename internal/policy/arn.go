package policy

import "strings"

// ARNParts are the parts of acs:<service>:<region>:<account>:<relative>.
type ARNParts struct {
	Service, Region, Account, Relative string
}

// SystemAccount stands in the place of the account in the name of a policy that comes with the
// service, acs:ram::system:policy/<name>. Such a policy belongs to every account.
const SystemAccount = "system"

// ARN joins the parts of a resource name. Region is empty for ram.
func ARN(service, region, account, relative string) string {
	return "acs:" + service + ":" + region + ":" + account + ":" + relative
}

// ParseARN splits at the first four colons, because the relative part may hold colons of its own.
// It reports false unless there are five parts, the first is acs, and service and relative are not
// empty.
func ParseARN(s string) (ARNParts, bool) {
	rest, ok := strings.CutPrefix(s, "acs:")
	if !ok {
		return ARNParts{}, false
	}
	var p ARNParts
	for _, part := range []*string{&p.Service, &p.Region, &p.Account} {
		if *part, rest, ok = strings.Cut(rest, ":"); !ok {
			return ARNParts{}, false
		}
	}
	p.Relative = rest
	if p.Service == "" || p.Relative == "" {
		return ARNParts{}, false
	}
	return p, true
}

// resourcePattern is one entry of Resource: everything, or a pattern for each part of an ARN. Parts
// are matched one by one, so that * in the region cannot swallow the account.
type resourcePattern struct {
	all bool
	ARNParts
}

// match reports whether the resource fits. A bare request, one without a resource ("*"), is covered
// only by a statement for everything. An empty region or account in a pattern matches only an empty
// one.
func (p *resourcePattern) match(bare bool, arn *ARNParts) bool {
	if p.all || bare {
		return p.all
	}
	return match(p.Service, arn.Service) && match(p.Region, arn.Region) &&
		match(p.Account, arn.Account) && match(p.Relative, arn.Relative)
}
