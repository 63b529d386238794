package ldap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	driver "github.com/go-ldap/ldap/v3"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
)

// managers lists the names that directories usually give to entries that may change all others.
// They count as the value of the first part of a DN.
var managers = []string{
	"admin",
	"administrator",
	"directory manager",
	"ldapadmin",
	"manager",
	"replication manager",
	"root",
	"rootdn",
	"superuser",
}

// managerGroups lists the names that directories usually give to groups of such entries.
var managerGroups = []string{
	"admins",
	"administrators",
	"directory administrators",
	"domain admins",
	"enterprise admins",
	"ldap admins",
	"schema admins",
}

// configBase is the suffix of a directory's own configuration, in OpenLDAP and 389 Directory
// Server.
const configBase = "cn=config"

// maxManagers bounds the number of managers that are read from the configuration.
const maxManagers = 100

// Standing reports the standing of an account by its DN. Directories keep the rights of entries in
// rules that cannot be evaluated from outside, so names decide: see managers and managerGroups.
func (d *directory) Standing(ctx context.Context, account string) (target.Standing, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := d.session(ctx, d.admin.Secret)
	if err != nil {
		return target.Standing{}, err
	}
	defer s.close()
	admin, err := s.identify(d.admin.Account)
	if err != nil {
		return target.Standing{}, err
	}
	dn, err := s.find(account)
	if errors.Is(err, errNoAccount) {
		return target.Standing{Administrator: normalize(account) == normalize(d.admin.Account)}, nil
	}
	if err != nil {
		return target.Standing{}, err
	}
	who, err := s.identify(dn)
	if err != nil {
		return target.Standing{}, err
	}
	standing := target.Standing{Administrator: who.is(admin), Privileged: who.privileged()}
	if standing.Privileged != "" {
		return standing, nil
	}
	configured, err := s.configuredManagers()
	if err != nil {
		return target.Standing{}, err
	}
	if slices.ContainsFunc(configured, who.is) {
		standing.Privileged = "is a manager of the directory by its configuration"
	}
	return standing, nil
}

// identity is an entry as the directory shows it.
type identity struct {
	// names are the normalized DN as it was given, and as the directory spells it.
	names []string
	// groups are the normalized DNs of the groups in memberOf.
	groups []string
}

// is reports whether two identities are one entry.
func (i identity) is(other identity) bool {
	return slices.ContainsFunc(i.names, func(name string) bool { return slices.Contains(other.names, name) })
}

// privileged says why the entry is a manager; empty if it is not.
func (i identity) privileged() string {
	for _, name := range i.names {
		switch {
		case name == configBase || strings.HasSuffix(name, ","+configBase):
			return "belongs to the directory's configuration"
		case namedLike(name, managers):
			return "has a name that directories give to their managers"
		}
	}
	for _, group := range i.groups {
		if namedLike(group, managerGroups) {
			return "is a member of a group of administrators"
		}
	}
	return ""
}

// identify reads an entry by its DN. A DN without an entry can still be a manager's: OpenLDAP's
// rootdn needs no entry.
func (s *session) identify(dn string) (identity, error) {
	who := identity{names: []string{normalize(dn)}}
	result, err := s.readEntry(dn, "memberOf")
	attempt := fmt.Sprintf("%s: find out what %s is", s.addr, fault.Quoted(dn))
	switch {
	case driver.IsErrorAnyOf(err,
		driver.LDAPResultNoSuchObject,
		driver.LDAPResultInvalidDNSyntax,
		driver.LDAPResultInsufficientAccessRights,
		driver.LDAPResultReferral,
	):
		return who, nil
	case err != nil:
		return identity{}, s.failed(attempt, err)
	}
	for _, e := range result.Entries {
		who.names = append(who.names, normalize(e.DN))
		for _, group := range e.GetEqualFoldAttributeValues("memberOf") {
			who.groups = append(who.groups, normalize(group))
		}
	}
	return who, nil
}

// configuredManagers reads the managers from the directory's configuration, where the administrator
// may see it.
func (s *session) configuredManagers() ([]identity, error) {
	attributes := []string{"olcRootDN", "nsslapd-rootdn"}
	result, err := s.conn.Search(&driver.SearchRequest{
		BaseDN:       configBase,
		Scope:        driver.ScopeWholeSubtree,
		DerefAliases: driver.NeverDerefAliases,
		SizeLimit:    maxManagers,
		TimeLimit:    int(callTimeout.Seconds()),
		Filter:       "(|(olcRootDN=*)(nsslapd-rootdn=*))",
		Attributes:   attributes,
	})
	switch {
	case driver.IsErrorAnyOf(err,
		driver.LDAPResultNoSuchObject,
		driver.LDAPResultInsufficientAccessRights,
		driver.LDAPResultUnwillingToPerform,
		driver.LDAPResultReferral,
		driver.LDAPResultInvalidDNSyntax,
	):
		return nil, nil
	case err != nil:
		return nil, s.failed(s.addr+": read the managers in "+configBase, err)
	}
	var out []identity
	for _, e := range result.Entries {
		for _, a := range attributes {
			for _, dn := range e.GetEqualFoldAttributeValues(a) {
				out = append(out, identity{names: []string{normalize(dn)}})
			}
		}
	}
	return out, nil
}

// attributeNames has the short names of the attribute types in DNs, by long name and by object
// identifier.
var attributeNames = map[string]string{
	"commonname":                 "cn",
	"2.5.4.3":                    "cn",
	"surname":                    "sn",
	"2.5.4.4":                    "sn",
	"countryname":                "c",
	"2.5.4.6":                    "c",
	"localityname":               "l",
	"2.5.4.7":                    "l",
	"stateorprovincename":        "st",
	"2.5.4.8":                    "st",
	"streetaddress":              "street",
	"2.5.4.9":                    "street",
	"organizationname":           "o",
	"2.5.4.10":                   "o",
	"organizationalunitname":     "ou",
	"2.5.4.11":                   "ou",
	"userid":                     "uid",
	"0.9.2342.19200300.100.1.1":  "uid",
	"rfc822mailbox":              "mail",
	"0.9.2342.19200300.100.1.3":  "mail",
	"domaincomponent":            "dc",
	"0.9.2342.19200300.100.1.25": "dc",
}

// normalize returns the one spelling of a DN: short names of attribute types, folded values, sorted
// parts of each relative DN. A text that is not a DN is folded as a whole.
func normalize(dn string) string {
	parsed, err := driver.ParseDN(dn)
	if err != nil {
		return fold(dn)
	}
	var parts []string
	for _, rdn := range parsed.RDNs {
		var pairs []string
		for _, a := range rdn.Attributes {
			name := strings.TrimPrefix(strings.ToLower(strings.TrimSpace(a.Type)), "oid.")
			if short, ok := attributeNames[name]; ok {
				name = short
			}
			pairs = append(pairs, name+"="+driver.EscapeDN(fold(a.Value)))
		}
		slices.Sort(pairs)
		parts = append(parts, strings.Join(pairs, "+"))
	}
	return strings.Join(parts, ",")
}

// CanonicalAccount returns the one spelling of an account: directories ignore case and spaces in
// names, and attribute types have several names.
func (c config) CanonicalAccount(account string) string { return normalize(account) }

// namedLike reports whether a value in the first part of a normalized DN is one of the names.
func namedLike(dn string, names []string) bool {
	parsed, err := driver.ParseDN(dn)
	if err != nil || len(parsed.RDNs) == 0 {
		return false
	}
	return slices.ContainsFunc(parsed.RDNs[0].Attributes, func(a *driver.AttributeTypeAndValue) bool {
		return slices.Contains(names, a.Value)
	})
}

// fold prepares a text for comparison in the way of directories (RFC 4518): compatibility forms,
// case, runs of spaces, and invisible characters.
func fold(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Variation_Selector, r) {
			return -1
		}
		return r
	}, text)
	text = norm.NFKC.String(cases.Fold().String(norm.NFKC.String(text)))
	return strings.Join(strings.Fields(text), " ")
}

var _ target.Guarded = (*directory)(nil)
