package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Rule names destinations: a network, an address or a host name, each with or without a port.
type Rule struct {
	prefix netip.Prefix // invalid for a host name
	host   string       // lower case, without a final dot
	below  bool         // host stands for every name below it
	port   uint16       // 0 means every port
}

// ParseRule reads a rule: 10.0.0.0/8, 10.1.2.3, [2001:db8::1]:5432, db.example.com,
// *.example.com:443.
func ParseRule(s string) (Rule, error) {
	host, port, err := cutPort(s)
	if err != nil {
		return Rule{}, fmt.Errorf("%q: %w", s, err)
	}
	r := Rule{port: port}
	if p, err := netip.ParsePrefix(host); err == nil {
		if p != p.Masked() {
			return Rule{}, fmt.Errorf("%q: the network is %s", s, p.Masked())
		}
		return Rule{prefix: unmapped(p), port: port}, nil
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" {
			return Rule{}, fmt.Errorf("%q: an address has no zone here", s)
		}
		a = a.Unmap()
		r.prefix = netip.PrefixFrom(a, a.BitLen())
		return r, nil
	}
	r.host = normalHost(host)
	if rest, ok := strings.CutPrefix(r.host, "*."); ok {
		r.host, r.below = rest, true
	}
	if !isHostName(r.host) {
		return Rule{}, fmt.Errorf("%q is not a network, an address or a host name; "+
			"use 10.0.0.0/8, 10.1.2.3, db.example.com or *.example.com, with or without :PORT", s)
	}
	return r, nil
}

// unmapped turns a network of IPv4-mapped addresses into the one of IPv4 that it is.
func unmapped(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

func cutPort(s string) (host string, port uint16, err error) {
	host = s
	text := ""
	switch i := strings.LastIndexByte(s, ':'); {
	case strings.HasPrefix(s, "["):
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", 0, errors.New("a bracket is not closed")
		}
		host, text = s[1:end], s[end+1:]
		if text == "" {
			return host, 0, nil
		}
		if text[0] != ':' {
			return "", 0, errors.New("after ] only :PORT may follow")
		}
		text = text[1:]
	case i >= 0 && strings.Count(s, ":") == 1:
		host, text = s[:i], s[i+1:]
	default:
		return host, 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("%q is not a port of 1 to 65535", text)
	}
	return host, uint16(n), nil
}

func normalHost(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

// isHostName reports whether a name is one of DNS with a label that is no number, so that no
// spelling of an address (2130706433, 0x7f.1) passes for a name.
func isHostName(host string) bool {
	if host == "" || len(host) > 253 {
		return false
	}
	labels := strings.Split(host, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	last := labels[len(labels)-1]
	return strings.Trim(last, "0123456789") != "" && !strings.HasPrefix(last, "0x")
}

func (r Rule) covers(addr netip.Addr, port uint16) bool {
	return r.prefix.IsValid() && r.prefix.Contains(addr) && (r.port == 0 || r.port == port)
}

// names reports whether the rule is about the host name that a caller asked for.
func (r Rule) names(host string, port uint16) bool {
	if r.host == "" || r.port != 0 && r.port != port {
		return false
	}
	host = normalHost(host)
	if r.below {
		return strings.HasSuffix(host, "."+r.host)
	}
	return host == r.host
}
