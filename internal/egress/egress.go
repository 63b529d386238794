// Package egress makes the connections that callers of the API choose the address of: to targets,
// to webhooks and to receivers of events.
//
// Each address is judged when it is connected to, after names have been resolved, so that neither a
// name that resolves to another address later nor a spelling of an address gets around the rules.
// In this order:
//
//  1. Only TCP is spoken: no Unix sockets.
//  2. The server's own listeners and everything that its configuration makes it connect to (the
//     other nodes of its cluster, etcd, audit sinks, receivers of events) are refused.
//  3. What a Deny rule names is refused.
//  4. Link-local, multicast, unspecified and reserved addresses and the metadata services of clouds
//     are refused, unless an Allow rule names an address or network inside those ranges. A wider
//     rule, such as 0.0.0.0/0, does not.
//  5. With Allow rules, everything else is refused that none of them names. Without them, it is
//     permitted, loopback included: databases run beside the server.
//
// An IPv6 address that carries an IPv4 address is judged as both: mapped, compatible and translated
// ones (SIIT), 6to4, NAT64 with the prefixes that are the same everywhere, Teredo and ISATAP. The
// prefixes of 6rd and of NAT64 that a network chooses for itself cannot be recognized.
package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

// lookupTimeout bounds the look-up of the names in rules.
const lookupTimeout = 5 * time.Second

// IsLoopback reports whether a host is localhost or a loopback address, so that what is sent to it
// does not leave this machine.
func IsLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// DialFunc connects to address, which is host:port.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Config says what may be connected to. The zero value refuses what is refused by default.
type Config struct {
	Allow, Deny []Rule
	// Own are host:port of other services of this server, such as the nodes of its cluster. One at an
	// address of this machine is refused under every address of this machine.
	Own []string
	// OwnHTTP are those that speak HTTP. A proxy may serve other hosts at the same address, so an
	// Allow rule of another host name and that port permits the other host.
	OwnHTTP []string
	// Resolver resolves names; nil means the system's.
	Resolver *net.Resolver
}

// Dialer connects to what its rules permit. Its methods may be called from several goroutines.
type Dialer struct {
	config Config

	mu    sync.Mutex
	ports []uint16 // of this process's listeners
}

// New returns a dialer.
func New(c Config) *Dialer {
	if c.Resolver == nil {
		c.Resolver = net.DefaultResolver
	}
	return &Dialer{config: c}
}

// Default has no rules but those that always hold.
var Default = New(Config{})

// RefuseListener refuses connections to a listener of this process under every address of this
// machine.
func (d *Dialer) RefuseListener(a net.Addr) {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return // nothing but TCP is spoken
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ports = append(d.ports, uint16(t.Port))
}

// RefusedError says that the rules refuse a destination.
type RefusedError struct {
	// Host is what the caller asked for: host:port.
	Host string
	// Reason is for the operator.
	Reason string
}

// Literal reports whether the caller asked for an address and not for a name.
func (e *RefusedError) Literal() bool {
	host, _, err := net.SplitHostPort(e.Host)
	if err != nil {
		return false
	}
	_, err = netip.ParseAddr(host)
	return err == nil
}

func (e *RefusedError) Error() string {
	return "connections to " + e.Host + " are refused: " + e.Reason
}

// DialContext connects to address, or returns an error that is or wraps a [*RefusedError].
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if network != "tcp" && network != "tcp4" && network != "tcp6" {
		return nil, &RefusedError{address, "only TCP is spoken"}
	}
	denied, err := d.resolveDenied(ctx)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{
		Resolver: d.config.Resolver,
		ControlContext: func(ctx context.Context, _, resolved string, _ syscall.RawConn) error {
			peer, err := netip.ParseAddrPort(resolved)
			if err != nil {
				return &RefusedError{address, "it did not resolve to an address"}
			}
			reason, err := d.refusal(ctx, host, peer, denied)
			if err != nil {
				return fmt.Errorf("look up the server's own services: %w", err)
			}
			if reason != "" {
				return &RefusedError{address, reason}
			}
			return nil
		},
	}
	return dialer.DialContext(ctx, network, address)
}

// deniedAddr is an address that a host name of a Deny rule has at this moment.
type deniedAddr struct {
	addr netip.Addr
	port uint16
}

// resolveDenied resolves the host names of Deny rules, so that the address of a denied host is
// denied too. A name that does not exist denies itself alone; one that cannot be looked up is an
// error.
func (d *Dialer) resolveDenied(ctx context.Context) ([]deniedAddr, error) {
	var out []deniedAddr
	for _, r := range d.config.Deny {
		if r.host == "" || r.below {
			continue
		}
		list, err := d.lookup(ctx, r.host)
		if err != nil {
			return nil, err
		}
		for _, a := range list {
			out = append(out, deniedAddr{a, r.port})
		}
	}
	return out, nil
}

func (d *Dialer) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{plain(a)}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	list, err := d.config.Resolver.LookupNetIP(ctx, "ip", host)
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return nil, nil
	}
	for i := range list {
		list[i] = plain(list[i])
	}
	return list, err
}

func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// refusal says why the rules refuse a peer; empty when they permit it. host is what the caller
// asked for. An error means that nothing is known: no connection may be made at this moment.
func (d *Dialer) refusal(ctx context.Context, host string, peer netip.AddrPort, denied []deniedAddr) (string, error) {
	addr, port := plain(peer.Addr()), peer.Port()
	forms := append([]netip.Addr{addr}, carried(addr)...)
	for _, r := range d.config.Deny {
		if r.names(host, port) {
			return "egress-deny names the host", nil
		}
	}
	for i, form := range forms {
		own, err := d.isOwn(ctx, host, form, port)
		if err != nil {
			return "", err
		}
		if own {
			return "it is a service of this server", nil
		}
		if slices.ContainsFunc(d.config.Deny, func(r Rule) bool { return r.covers(form, port) }) ||
			slices.ContainsFunc(denied, func(x deniedAddr) bool { return x.addr == form && (x.port == 0 || x.port == port) }) {
			return "egress-deny names the address", nil
		}
		if i > 0 && form.IsLoopback() {
			return "it carries a loopback address", nil
		}
		if reason := d.special(form, port); reason != "" {
			return reason, nil
		}
	}
	if len(d.config.Allow) == 0 {
		return "", nil
	}
	for _, r := range d.config.Allow {
		// The name of an allowed host does not make loopback reachable, whatever it resolves to.
		if r.covers(addr, port) || r.names(host, port) && (!addr.IsLoopback() || r.host == "localhost") {
			return "", nil
		}
	}
	return "no rule of egress-allow names it", nil
}

// specials are refused by default.
var specials = []struct {
	prefix netip.Prefix
	name   string
}{
	{netip.MustParsePrefix("169.254.0.0/16"), "a link-local address, such as the metadata service of a cloud"},
	{netip.MustParsePrefix("fe80::/10"), "a link-local address"},
	{netip.MustParsePrefix("0.0.0.0/8"), "an unspecified address"},
	{netip.MustParsePrefix("::/128"), "an unspecified address"},
	{netip.MustParsePrefix("224.0.0.0/4"), "a multicast address"},
	{netip.MustParsePrefix("ff00::/8"), "a multicast address"},
	{netip.MustParsePrefix("240.0.0.0/4"), "a reserved or broadcast address"},
	{netip.MustParsePrefix("100.100.100.200/32"), "the metadata service of a cloud"},
	{netip.MustParsePrefix("168.63.129.16/32"), "the metadata service of a cloud"},
	{netip.MustParsePrefix("192.0.0.192/32"), "the metadata service of a cloud"},
	{netip.MustParsePrefix("fd00:ec2::/32"), "the metadata service of a cloud"},
	{netip.MustParsePrefix("fd20:ce::254/128"), "the metadata service of a cloud"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "a translated address whose IPv4 address cannot be told"},
}

// special says why an address is refused by default; empty when it is not, or when an Allow rule
// names it closely enough.
func (d *Dialer) special(addr netip.Addr, port uint16) string {
	for _, s := range specials {
		if !s.prefix.Contains(addr) {
			continue
		}
		closely := func(r Rule) bool {
			return r.covers(addr, port) && r.prefix.Bits() >= s.prefix.Bits() && s.prefix.Contains(r.prefix.Addr())
		}
		if !slices.ContainsFunc(d.config.Allow, closely) {
			return "it is " + s.name
		}
	}
	return ""
}

// isOwn reports whether an address is one of this server's services. host is what the caller asked
// for.
func (d *Dialer) isOwn(ctx context.Context, host string, addr netip.Addr, port uint16) (bool, error) {
	local, err := isLocal(addr)
	if err != nil {
		return false, err
	}
	d.mu.Lock()
	listening := slices.Contains(d.ports, port)
	d.mu.Unlock()
	if listening && local {
		return true, nil
	}
	for _, own := range d.config.Own {
		if is, err := d.isService(ctx, own, addr, port, local); is || err != nil {
			return is, err
		}
	}
	exempt := func(r Rule) bool { return r.port == port && !r.below && r.names(host, port) }
	for _, own := range d.config.OwnHTTP {
		name, _, err := net.SplitHostPort(own)
		if err == nil && normalHost(name) != normalHost(host) && slices.ContainsFunc(d.config.Allow, exempt) {
			continue
		}
		if is, err := d.isService(ctx, own, addr, port, local); is || err != nil {
			return is, err
		}
	}
	return false, nil
}

// isService reports whether an address belongs to own, which is host:port. local says that the
// address is one of this machine.
func (d *Dialer) isService(ctx context.Context, own string, addr netip.Addr, port uint16, local bool) (bool, error) {
	host, text, err := net.SplitHostPort(own)
	if err != nil {
		return false, nil // no connection can be made to it
	}
	if n, err := d.config.Resolver.LookupPort(ctx, "tcp", text); err != nil || n != int(port) {
		return false, nil
	}
	list, err := d.lookup(ctx, host)
	if err != nil || slices.Contains(list, addr) {
		return err == nil, err
	}
	if !local {
		return false, nil
	}
	for _, a := range list {
		if is, err := isLocal(a); is || err != nil {
			return is, err
		}
	}
	return false, nil
}

// isLocal reports whether an address is one of this machine.
func isLocal(addr netip.Addr) (bool, error) {
	if addr.IsLoopback() || addr.IsUnspecified() {
		return true, nil
	}
	list, err := net.InterfaceAddrs()
	if err != nil {
		return false, err
	}
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil && plain(p.Addr()) == addr {
			return true, nil
		}
	}
	return false, nil
}

// The prefixes of the addresses that carry an IPv4 address.
var (
	compatible    = netip.MustParsePrefix("::/96")
	translated    = netip.MustParsePrefix("::ffff:0:0:0/96") // SIIT
	sixToFour     = netip.MustParsePrefix("2002::/16")
	teredo        = netip.MustParsePrefix("2001::/32")
	nat64         = netip.MustParsePrefix("64:ff9b::/96")
	nat64LocalUse = netip.MustParsePrefix("64:ff9b:1::/48")
)

// carried are the IPv4 addresses that an IPv6 address can stand for.
func carried(addr netip.Addr) []netip.Addr {
	if !addr.Is6() {
		return nil
	}
	b := addr.As16()
	var out []netip.Addr
	add := func(w, x, y, z byte) { out = append(out, netip.AddrFrom4([4]byte{w, x, y, z})) }
	zero := func(from int) bool { return !slices.ContainsFunc(b[from:], func(x byte) bool { return x != 0 }) }
	switch {
	case sixToFour.Contains(addr):
		add(b[2], b[3], b[4], b[5])
	case nat64.Contains(addr), translated.Contains(addr):
		add(b[12], b[13], b[14], b[15])
	case nat64LocalUse.Contains(addr):
		// RFC 6052: the length of the prefix within it is the network's choice. Byte 8 is skipped, and
		// what follows the IPv4 address is zero.
		if !zero(12) {
			add(b[12], b[13], b[14], b[15])
		}
		if zero(13) {
			add(b[9], b[10], b[11], b[12])
		}
		if zero(12) {
			add(b[7], b[9], b[10], b[11])
		}
		if zero(11) {
			add(b[6], b[7], b[9], b[10])
		}
	case teredo.Contains(addr): // the client's address inverted, and the server's
		add(^b[12], ^b[13], ^b[14], ^b[15])
		add(b[4], b[5], b[6], b[7])
	case compatible.Contains(addr) && addr != netip.IPv6Loopback() && !addr.IsUnspecified():
		add(b[12], b[13], b[14], b[15])
	}
	if b[8]&0xfd == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe { // ISATAP
		add(b[12], b[13], b[14], b[15])
	}
	return out
}
