package mysql

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/target"
)

// matchesHost reports whether a login from a client that the server calls host can reach an account
// at a host pattern. Where the server names the client, a pattern of addresses may match.
func (s server) matchesHost(pattern, host string) bool {
	pattern, host = strings.ToLower(pattern), strings.ToLower(host)
	if pattern == "" || pattern == "%" || pattern == host {
		return true
	}
	address, err := netip.ParseAddr(host)
	if err != nil && strings.Trim(pattern, "0123456789.:%_/") == "" {
		return true
	}
	if from, mask, ok := strings.Cut(pattern, "/"); ok {
		return s.inNetwork(address, from, mask)
	}
	return like(pattern, host)
}

// inNetwork reports whether an address is in a network with a mask such as 255.255.255.0, or in
// MySQL a number of bits.
func (s server) inNetwork(address netip.Addr, from, mask string) bool {
	network, err := netip.ParseAddr(from)
	if err != nil || !address.IsValid() || network.BitLen() != address.BitLen() {
		return false
	}
	if !strings.ContainsAny(mask, ".:") {
		prefix, err := netip.ParsePrefix(from + "/" + mask)
		return err == nil && s.name == "MySQL" && prefix.Contains(address)
	}
	bits, err := netip.ParseAddr(mask)
	if err != nil || bits.BitLen() != address.BitLen() {
		return false
	}
	a, n, m := address.AsSlice(), network.AsSlice(), bits.AsSlice()
	for i := range a {
		if a[i]&m[i] != n[i] {
			return false
		}
	}
	return true
}

// like matches a pattern of SQL, in which % stands for any characters and _ for one.
func like(pattern, text string) bool {
	var expression strings.Builder
	expression.WriteString("(?s)^")
	for i := 0; i < len(pattern); i++ {
		switch {
		case pattern[i] == '%':
			expression.WriteString(".*")
		case pattern[i] == '_':
			expression.WriteString(".")
		case pattern[i] == '\\' && i+1 < len(pattern):
			i++
			fallthrough
		default:
			expression.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
		}
	}
	matched, err := regexp.MatchString(expression.String()+"$", text)
	return err == nil && matched
}

// whyRejected says why a login was rejected with a password that the server stores for accounts.
func (t *my) whyRejected(
	ctx context.Context, conn *conn, e target.Endpoint, c target.Credential, all, opens []account,
) string {
	for _, a := range opens {
		if fix := t.unmet(a.terms); fix != "" {
			return fix
		}
	}
	unknown := "a login from here may reach another account of the name, or one of the anonymous user; or the server " +
		"at the endpoint has not applied the change yet (then its role is replica)"
	blocks, never := t.server.blocks()
	row, err := conn.row(ctx, "SELECT SUBSTRING_INDEX(USER(), '@', -1), "+blocks)
	anonymous, err2 := t.accounts(ctx, conn, "")
	if err != nil || err2 != nil || len(row) != 2 || e.Address != t.config.AdminAddress {
		return unknown
	}
	far := func(a account) bool { return !t.server.matchesHost(a.host, row[0]) }
	if !slices.ContainsFunc(opens, func(a account) bool { return !far(a) }) {
		return fmt.Sprintf("Keyturn logs in from %s, for which none of these is; create %s with the same password and rights",
			shownName(row[0]), shown(c.Account, row[0]))
	}
	others := slices.DeleteFunc(slices.Clone(all), func(a account) bool { return far(a) || a.accepts(c.Secret) })
	anonymous = slices.DeleteFunc(anonymous, far)
	switch {
	case len(others)+len(anonymous) > 0:
		list := strings.Trim(whoAll(c.Account, others)+", "+whoAll("", anonymous), ", ")
		text := "Keyturn logs in from " + shownName(row[0]) + ", and such a login can reach " + list + " instead"
		leftOut := slices.DeleteFunc(slices.Clone(others), func(a account) bool { return t.config.AccountHost.has(a.host) })
		if len(leftOut) > 0 {
			text += "; if that is the same application's: keyturn target update TARGET --set " +
				accountHost(t.within(all), leftOut) + ", and the credential is sent there, too"
		}
		if len(others) > 0 && !t.config.AccountHost.chosen() {
			text += "; if that is the same application's: keyturn rotation cancel NAME, keyturn target update TARGET --set " +
				accountHost(opens, others) + ", and then the rotation or keyturn rotation emergency NAME again"
		}
		return text
	case row[1] != fmt.Sprint(never):
		return "the server may block the account after failed logins, until FLUSH PRIVILEGES"
	}
	return unknown
}
