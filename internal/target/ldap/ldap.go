// Package ldap changes passwords in an LDAP directory: OpenLDAP, 389 Directory Server and others
// that keep passwords in userPassword. Active Directory is refused: it keeps them elsewhere
// (unicodePwd), and would take a userPassword as a value without meaning.
//
// # How
//
// userPassword may have several values. With Overlap a change adds one and later deletes exactly
// the one that holds the old password, by its stored value, which the server compares itself;
// values that others have set stay. The administrator reads the values for that. With Single the
// one value is replaced. Bound connections stay.
//
// A server that allows one value only refuses Overlap; the error says to use Single. (The password
// policy of OpenLDAP, ppolicy, allows several; its overlay constraint may not.)
//
// # How passwords are stored
//
// The server gets a hash, so that the password is in no log and no backup in clear. The default,
// {CRYPT} with SHA-512 ($6$, 5000 rounds), is the strongest that OpenLDAP verifies without a
// loadable module; it is verified by the crypt(3) of the server's system, which every current Linux
// and FreeBSD has. The others are for servers without it: "ssha" is verified everywhere; "ssha256"
// and "ssha512" by 389 Directory Server and by OpenLDAP with its module pw-sha2. The salt is made
// of the change, so an attempt made twice adds one value.
//
// Some servers take no hashes from anybody (pwdCheckQuality 2 of ppolicy) or from no administrator
// but one (389 Directory Server). For them there is "server": the password goes to the server in a
// Password Modify request (RFC 3062), for it to check and hash. That replaces all values, so it is
// for Single.
//
// # Configuration
//
//	address   host or host:port, port 636 by default, or 389 with starttls or without TLS.
//	verify    a list of further addresses where a password must work, such as replicas. Default
//	          none.
//	starttls  true: begin in clear and change to TLS before anything else. Default false: TLS from
//	          the start (ldaps).
//	tls       {"ca": PEM, "server_name": name, "off": true}; on and verified by default.
//	scheme    "crypt" (default), "ssha", "ssha256", "ssha512" or "server"; see above.
//	user_dn_template   how an account becomes a DN, such as
//	                   "uid={account},ou=people,dc=example,dc=org".
//	base, filter       instead: where and how an account's entry is searched for, such as
//	                   "dc=example,dc=org" and "(&(objectClass=account)(uid={account}))". Without
//	                   either an account is a DN.
//	password_length, password_punctuation   of new passwords.
//
// # The administrator
//
// An account that is a DN, with write on userPassword of the accounts' entries (in OpenLDAP that
// includes read, which Overlap and Inspect need), and read and search on the entries where base and
// filter are used. To say that an account is locked it needs read on pwdAccountLockedTime.
package ldap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	driver "github.com/go-ldap/ldap/v3"

	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/target"
)

const (
	callTimeout = 30 * time.Second // of one call of the target, whatever its context allows
	dialTimeout = 5 * time.Second
	placeholder = "{account}"
	attribute   = "userPassword"
	maxCrypt    = 511 // bytes that crypt(3) of libxcrypt takes
)

// Kind returns the kind "ldap".
func Kind() target.Kind {
	strategies := []target.Strategy{target.Overlap, target.Single}
	return target.NewKind("ldap", strategies, parse, open).WithAdmin()
}

type config struct {
	Address  string     `json:"address"`
	Verify   []string   `json:"verify"`
	StartTLS bool       `json:"starttls"`
	TLS      target.TLS `json:"tls"`
	Scheme   string     `json:"scheme"`
	Template string     `json:"user_dn_template"`
	Base     string     `json:"base"`
	Filter   string     `json:"filter"`
	target.PasswordRule
}

// Addresses returns the address and every further one.
func (c config) Addresses() []string { return slices.Concat([]string{c.Address}, c.Verify) }

// parse returns the configuration with complete addresses.
func parse(raw json.RawMessage) (config, error) {
	var c config
	if err := target.Decode(raw, &c); err != nil {
		return c, err
	}
	var errs []error
	port := driver.DefaultLdapsPort
	if c.StartTLS || c.TLS.Off {
		port = driver.DefaultLdapPort
	}
	if c.StartTLS && c.TLS.Off {
		errs = append(errs, errors.New("starttls contradicts tls: off"))
	}
	a, err := target.Address(c.Address, port)
	errs = append(errs, err)
	c.Address = a
	for i, s := range c.Verify {
		a, err := target.Address(s, port)
		errs = append(errs, err)
		c.Verify[i] = a
	}
	if c.Scheme == "" {
		c.Scheme = schemeCrypt
	}
	if !slices.Contains(schemes, c.Scheme) {
		errs = append(errs, fmt.Errorf("scheme %q is none of %q", c.Scheme, schemes))
	}
	return c, errors.Join(append(errs, c.checkLookup(), c.TLS.Check(), c.PasswordRule.Check())...)
}

// checkLookup refuses what could never find an account.
func (c config) checkLookup() error {
	var errs []error
	if c.Template != "" && (c.Base != "" || c.Filter != "") {
		errs = append(errs, errors.New("give user_dn_template, or base and filter, not both"))
	}
	if (c.Base == "") != (c.Filter == "") {
		errs = append(errs, errors.New("base and filter go together"))
	}
	if _, err := driver.ParseDN(strings.ReplaceAll(c.Template, placeholder, "x")); err != nil ||
		c.Template != "" && !strings.Contains(c.Template, placeholder) {
		errs = append(errs, fmt.Errorf("user_dn_template %q is not a DN with %s in it", c.Template, placeholder))
	}
	if _, err := driver.ParseDN(c.Base); err != nil {
		errs = append(errs, fmt.Errorf("base %q is not a DN", c.Base))
	}
	if c.Filter != "" {
		if _, err := driver.CompileFilter(strings.ReplaceAll(c.Filter, placeholder, "x")); err != nil ||
			!strings.Contains(c.Filter, placeholder) {
			errs = append(errs, fmt.Errorf("filter %q is not an LDAP filter with %s in it", c.Filter, placeholder))
		}
	}
	return errors.Join(errs...)
}

type directory struct {
	config
	admin   target.Credential
	dialTCP egress.DialFunc
}

func open(c config, s target.Settings) (target.Target, error) {
	if s.Admin.Secret.IsZero() || s.Admin.Account == "" {
		return nil, errors.New("ldap: an administrator is required, with a DN as its account")
	}
	return &directory{config: c, admin: s.Admin, dialTCP: s.Dialer()}, nil
}

// Close has nothing to release: each call closes what it opened.
func (d *directory) Close() error { return nil }

// Apply adds a value with Overlap, and replaces all with Single.
func (d *directory) Apply(ctx context.Context, c target.Change) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := d.session(ctx, c.New.Secret)
	if err != nil {
		return err
	}
	defer s.close()
	if d.Scheme == schemeCrypt && (c.New.Secret.Len() > maxCrypt || strings.Contains(c.New.Secret.Reveal(), "\x00")) {
		return target.Refused.Errorf("crypt(3) takes passwords of up to 511 bytes without a zero byte")
	}
	if err := s.refuseActiveDirectory(); err != nil {
		return err
	}
	dn, err := s.find(c.New.Account)
	if err != nil {
		return err
	}
	e, err := s.read(dn)
	if err != nil {
		return err
	}
	live, _ := e.accepts(c.New.Secret)
	if c.Strategy == target.Single {
		if live && len(e.passwords) == 1 {
			return nil
		}
		return s.replace(dn, c)
	}
	switch {
	case live:
		return nil
	case d.Scheme == schemeServer:
		return target.Denied.Errorf(
			`scheme "server" replaces all passwords: use the strategy single with it, or another scheme`,
		)
	case len(e.passwords) == 0:
		return target.Denied.Errorf(
			"%s of %q has no value that the administrator can read; let it read them, because the old one could "+
				"not be found to be removed later, or use the strategy single",
			attribute,
			dn,
		)
	}
	return s.add(dn, c)
}

// Retire deletes the values that hold the old password.
func (d *directory) Retire(ctx context.Context, c target.Change) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := d.session(ctx, c.Old.Secret, c.New.Secret)
	if err != nil {
		return err
	}
	defer s.close()
	dn, err := s.find(c.Old.Account)
	if err != nil {
		return err
	}
	e, err := s.read(dn)
	if err != nil {
		return err
	}
	matching, unknown := e.matching(c.Old.Secret)
	if len(matching) == 0 && len(e.passwords) == 0 {
		return target.Denied.Errorf(
			"%s of %q has no value that the administrator can read; let it read them, so that the old one can be found",
			attribute, dn,
		)
	}
	if len(matching) == 0 && len(unknown) > 0 {
		return target.Denied.Errorf(
			"the old password of %q may be in a value that cannot be compared (%s); remove it by hand if so", dn,
			strings.Join(unknown, ", "),
		)
	}
	for _, value := range matching {
		if err := s.remove(dn, value); err != nil {
			return err
		}
	}
	return nil
}

// Verify binds at the address and at every further one.
func (d *directory) Verify(ctx context.Context, c target.Credential) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	dn, err := d.verifyDN(ctx, c)
	if err != nil {
		return err
	}
	err = target.VerifyEach(ctx, d.Addresses(), func(ctx context.Context, addr string) error {
		s, err := d.dial(ctx, addr, c.Secret)
		if err != nil {
			return err
		}
		defer s.close()
		return s.bind(dn, c.Secret)
	})
	if target.ClassOf(err) == target.Rejected {
		return d.orLocked(ctx, err, dn)
	}
	return err
}

// verifyDN is the DN to log in as. An account without an entry does not authenticate.
func (d *directory) verifyDN(ctx context.Context, c target.Credential) (string, error) {
	s := &session{d: d}
	if d.Filter != "" {
		var err error
		if s, err = d.session(ctx, c.Secret); err != nil {
			return "", err
		}
		defer s.close()
	}
	dn, err := s.find(c.Account)
	if errors.Is(err, errNoAccount) {
		return "", target.Rejected.Errorf("%v", err)
	}
	return dn, err
}

// orLocked turns a rejection into what it may be instead: servers say of a locked account that the
// password is wrong. That tells nothing of the credential, so it is not a rejection.
func (d *directory) orLocked(ctx context.Context, rejected error, dn string) error {
	s, err := d.session(ctx)
	if err != nil {
		return rejected
	}
	defer s.close()
	e, err := s.read(dn)
	if err != nil || e.lockedSince == "" {
		return rejected
	}
	text := fmt.Sprintf(
		"%v; its account was locked by the password policy (pwdAccountLockedTime %s), so this says nothing of "+
			"the password: unlock it, or wait if the lock ends by itself",
		rejected,
		e.lockedSince,
	)
	return target.Denied.Errorf("%s", text)
}

// Inspect compares with the stored values.
func (d *directory) Inspect(ctx context.Context, credentials []target.Credential) ([]target.Liveness, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := d.session(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	out := make([]target.Liveness, len(credentials))
	for i, c := range credentials {
		dn, err := s.find(c.Account)
		if errors.Is(err, errNoAccount) {
			continue // or hidden: a login tells
		}
		if err != nil {
			return nil, err
		}
		e, err := s.read(dn)
		if errors.Is(err, errNoAccount) {
			continue
		}
		if err != nil {
			return nil, err
		}
		switch live, known := e.accepts(c.Secret); {
		case live:
			out[i] = target.Live
		case known && len(e.passwords) > 0:
			out[i] = target.Dead
		}
	}
	return out, nil
}
