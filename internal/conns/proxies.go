package conns

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// Proxies are the addresses of the reverse proxies whose word about a request counts.
type Proxies []netip.Prefix

// ParseProxies reads networks in CIDR notation, and single addresses.
func ParseProxies(list []string) (Proxies, error) {
	var p Proxies
	var errs []error
	for _, text := range list {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			var one netip.Addr
			if one, err = netip.ParseAddr(text); err == nil && one.Zone() != "" {
				err = errZone
			} else if err == nil {
				network = netip.PrefixFrom(one.Unmap(), one.Unmap().BitLen())
			}
		}
		switch {
		case err != nil || network.Addr().Is4In6():
			errs = append(errs, fmt.Errorf("%q is not an address or a network such as 10.0.0.0/8", text))
		case network.Bits() == 0:
			errs = append(errs, fmt.Errorf("%q would trust everybody", text))
		default:
			p = append(p, network.Masked())
		}
	}
	return p, errors.Join(errs...)
}

// Trusts reports whether an address belongs to a trusted proxy.
func (p Proxies) Trusts(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, network := range p {
		if network.Contains(a) {
			return true
		}
	}
	return false
}

var errZone = errors.New("an address with a zone")

// errForwarded is the error about a trusted proxy that names no address.
var errForwarded = errors.New("the last proxy's entry in X-Forwarded-For is not an address")

// Origin is where a request comes from, and whether it came over TLS: the peer of its connection,
// or what trusted proxies say of the first address that is not one of theirs. Each proxy appends
// the address of its client to X-Forwarded-For, so only what stands to the right of an address that
// is not trusted can be believed.
func (p Proxies) Origin(r *http.Request) (source netip.Addr, secure bool, err error) {
	peer, _ := netip.ParseAddrPort(r.RemoteAddr) // a request without a peer has the zero address
	source, secure = peer.Addr().Unmap(), r.TLS != nil
	if len(p) == 0 || !p.Trusts(source) {
		return source, secure, nil
	}
	if proto := r.Header.Values("X-Forwarded-Proto"); len(proto) > 0 {
		last := proto[len(proto)-1]
		secure = strings.EqualFold(strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:]), "https")
	}
	lines := r.Header.Values("X-Forwarded-For")
	for i := len(lines) - 1; i >= 0; i-- {
		for rest, more := lines[i], true; more; {
			at := strings.LastIndexByte(rest, ',')
			entry := strings.TrimSpace(rest[at+1:])
			if more = at >= 0; more {
				rest = rest[:at]
			}
			a, err := forwarded(entry)
			if err != nil {
				return source, secure, err
			}
			if source = a; !p.Trusts(a) {
				return source, secure, nil
			}
		}
	}
	return source, secure, nil
}

// forwarded reads one entry; some proxies write the port too.
func forwarded(entry string) (netip.Addr, error) {
	if a, err := netip.ParseAddr(strings.Trim(entry, "[]")); err == nil {
		return a.Unmap().WithZone(""), nil
	}
	if at, err := netip.ParseAddrPort(entry); err == nil {
		return at.Addr().Unmap().WithZone(""), nil
	}
	return netip.Addr{}, errForwarded
}
