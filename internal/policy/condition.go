package policy

import (
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"regexp"
	"strings"
	"time"
)

// Condition keys. tagKey is a prefix: the name of the tag follows.
const (
	keyCurrentTime     = "acs:CurrentTime"
	keySecureTransport = "acs:SecureTransport"
	keySourceIP        = "acs:SourceIp"
	keyMFAPresent      = "acs:MFAPresent"
	tagKey             = "kms:tag/"
)

type valueType string

const (
	typeString  valueType = "string"
	typeNumber  valueType = "number"
	typeDate    valueType = "date"
	typeBool    valueType = "boolean"
	typeAddress valueType = "address"
)

// value is one condition value, ready to compare; its operator says which field counts.
type value struct {
	text   string
	number *big.Rat
	date   time.Time
	truth  bool
	block  netip.Prefix
}

// operator compares one value of the request with one of the policy. A negated operator holds when
// its positive form holds for none of the values; holds is the positive form.
type operator struct {
	typ     valueType
	negated bool
	holds   func(got, want *value) bool
}

var operators = map[string]operator{
	"StringEquals":              {typeString, false, textEqual},
	"StringNotEquals":           {typeString, true, textEqual},
	"StringEqualsIgnoreCase":    {typeString, false, textEqualFold},
	"StringNotEqualsIgnoreCase": {typeString, true, textEqualFold},
	"StringLike":                {typeString, false, textLike},
	"StringNotLike":             {typeString, true, textLike},
	"NumericEquals":             {typeNumber, false, numbers(func(c int) bool { return c == 0 })},
	"NumericNotEquals":          {typeNumber, true, numbers(func(c int) bool { return c == 0 })},
	"NumericLessThan":           {typeNumber, false, numbers(func(c int) bool { return c < 0 })},
	"NumericLessThanEquals":     {typeNumber, false, numbers(func(c int) bool { return c <= 0 })},
	"NumericGreaterThan":        {typeNumber, false, numbers(func(c int) bool { return c > 0 })},
	"NumericGreaterThanEquals":  {typeNumber, false, numbers(func(c int) bool { return c >= 0 })},
	"DateEquals":                {typeDate, false, dates(func(c int) bool { return c == 0 })},
	"DateNotEquals":             {typeDate, true, dates(func(c int) bool { return c == 0 })},
	"DateLessThan":              {typeDate, false, dates(func(c int) bool { return c < 0 })},
	"DateLessThanEquals":        {typeDate, false, dates(func(c int) bool { return c <= 0 })},
	"DateGreaterThan":           {typeDate, false, dates(func(c int) bool { return c > 0 })},
	"DateGreaterThanEquals":     {typeDate, false, dates(func(c int) bool { return c >= 0 })},
	"Bool":                      {typeBool, false, func(got, want *value) bool { return got.truth == want.truth }},
	"IpAddress":                 {typeAddress, false, inBlock},
	"NotIpAddress":              {typeAddress, true, inBlock},
}

func textEqual(got, want *value) bool     { return got.text == want.text }
func textEqualFold(got, want *value) bool { return strings.EqualFold(got.text, want.text) }
func textLike(got, want *value) bool      { return match(want.text, got.text) }

func inBlock(got, want *value) bool {
	return got.block.IsSingleIP() && want.block.Contains(got.block.Addr())
}

func numbers(ok func(int) bool) func(got, want *value) bool {
	return func(got, want *value) bool { return ok(got.number.Cmp(want.number)) }
}

func dates(ok func(int) bool) func(got, want *value) bool {
	return func(got, want *value) bool { return ok(got.date.Compare(want.date)) }
}

// condition is one key under one operator.
type condition struct {
	op     operator
	key    string
	values []value // any one suffices
}

// holds reports whether the request meets the condition. A key that the request lacks, or a tag
// whose value is not of the operator's type, equals nothing: positive operators are false, negated
// ones true.
func (c *condition) holds(ctx *Context) bool {
	got, present := c.lookup(ctx)
	if !present {
		return c.op.negated
	}
	for i := range c.values {
		if c.op.holds(&got, &c.values[i]) {
			return !c.op.negated
		}
	}
	return c.op.negated
}

func (c *condition) lookup(ctx *Context) (value, bool) {
	switch c.key {
	case keyCurrentTime:
		// Policies know whole seconds only, so DateEquals means "within that second".
		return value{date: ctx.Now.Truncate(time.Second)}, !ctx.Now.IsZero()
	case keySecureTransport:
		return value{truth: ctx.SecureTransport}, true
	case keyMFAPresent:
		return value{truth: ctx.MFAPresent}, true
	case keySourceIP:
		addr := ctx.SourceIP.Unmap().WithZone("")
		return value{block: netip.PrefixFrom(addr, addr.BitLen())}, addr.IsValid()
	}
	tag, present := ctx.Tags[c.key[len(tagKey):]]
	if !present {
		return value{}, false
	}
	v, err := parseValue(c.op.typ, tag)
	return v, err == nil
}

// parseConditions reads {"<operator>": {"<key>": ["<value>", …]}}.
func parseConditions(v any, where string) ([]condition, error) {
	ops, ok := v.(object)
	if !ok {
		return nil, fmt.Errorf("%s must be an object of operators", where)
	}
	if len(ops) == 0 {
		return nil, fmt.Errorf("%s is empty; remove it or give a condition", where)
	}
	var out []condition
	for _, m := range ops {
		op, ok := operators[m.name]
		if !ok {
			return nil, fmt.Errorf("%s: unknown operator %s; use one such as StringEquals, IpAddress or Bool",
				where, quote(m.name))
		}
		keys, ok := m.value.(object)
		if !ok || len(keys) == 0 {
			return nil, fmt.Errorf("%s.%s must be an object with at least one condition key", where, m.name)
		}
		for _, k := range keys {
			c, err := parseCondition(op, k, where+"."+m.name)
			if err != nil {
				return nil, err
			}
			out = append(out, c)
		}
	}
	return out, nil
}

func parseCondition(op operator, m member, where string) (condition, error) {
	if err := checkKey(op.typ, m.name, where); err != nil {
		return condition{}, err
	}
	texts, err := textList(m.value, fmt.Sprintf("%s, key %s,", where, quote(m.name)))
	if err != nil {
		return condition{}, err
	}
	c := condition{op: op, key: m.name, values: make([]value, len(texts))}
	for i, text := range texts {
		if c.values[i], err = parseValue(op.typ, text); err != nil {
			return condition{}, fmt.Errorf("%s: value %d: %w", where, i, err)
		}
	}
	return c, nil
}

// checkKey refuses unknown keys and operators of another type than the key: a comparison that can
// never hold is a mistake, and in a Deny it would go unnoticed. Tags are text that any operator may
// read.
func checkKey(typ valueType, key, where string) error {
	var want valueType
	switch key {
	case keyCurrentTime:
		want = typeDate
	case keySecureTransport, keyMFAPresent:
		want = typeBool
	case keySourceIP:
		want = typeAddress
	default:
		if len(key) > len(tagKey) && strings.HasPrefix(key, tagKey) {
			return nil
		}
		return fmt.Errorf("%s: unknown key %s; use %s, %s, %s, %s or %s<tag>", where, quote(key),
			keyCurrentTime, keySecureTransport, keySourceIP, keyMFAPresent, tagKey)
	}
	if typ != want {
		return fmt.Errorf("%s: %s has type %s; use an operator for it, not one for type %s", where, key, want, typ)
	}
	return nil
}

// numberForm leaves out exponents: "1e999999999" is short to write and long to compute.
var numberForm = regexp.MustCompile(`^-?[0-9]{1,32}(\.[0-9]{1,32})?$`)

// dateForm is stricter than time.Parse, which also takes an hour of one digit, a fraction of zeros
// and an offset of a day: what the contract does not write, a second reader may understand
// otherwise.
var dateForm = regexp.MustCompile(
	`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`)

// parseValue reads text as the type of an operator, both from a policy and from a tag.
func parseValue(typ valueType, text string) (value, error) {
	switch typ {
	case typeNumber:
		if !numberForm.MatchString(text) {
			return value{}, fmt.Errorf("%s is not a number; write digits such as \"10\" or \"-2.5\"", quote(text))
		}
		n, _ := new(big.Rat).SetString(text)
		return value{number: n}, nil
	case typeDate:
		t, err := time.Parse(time.RFC3339, text)
		if err != nil || !dateForm.MatchString(text) {
			return value{}, fmt.Errorf("%s is not a date; write it as 2026-01-02T03:04:05Z", quote(text))
		}
		return value{date: t}, nil
	case typeBool:
		if text != "true" && text != "false" {
			return value{}, fmt.Errorf("%s is not a boolean; write \"true\" or \"false\"", quote(text))
		}
		return value{truth: text == "true"}, nil
	case typeAddress:
		block, err := parseBlock(text)
		if err != nil {
			return value{}, fmt.Errorf("%s is %w; write 10.0.0.7, 10.0.0.0/8 or the same in IPv6", quote(text), err)
		}
		return value{block: block}, nil
	}
	return value{text: text}, nil
}

// parseBlock reads an address as a block of one. An IPv4 address in IPv6 dress is refused, because
// requests are compared without the dress and a block of such addresses would never match.
func parseBlock(text string) (netip.Prefix, error) {
	block, err := netip.ParsePrefix(text)
	if err != nil {
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, errors.New("not an address or block")
		}
		block = netip.PrefixFrom(addr, addr.BitLen())
	}
	if block.Addr().Is4In6() {
		return netip.Prefix{}, errors.New("an IPv4 address written as IPv6")
	}
	return block, nil
}
