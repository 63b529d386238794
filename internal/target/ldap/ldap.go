// Package ldap changes passwords in an LDAP directory: OpenLDAP, 389 Directory Server and others
// that keep passwords in userPassword. Active Directory is refused: it keeps them elsewhere
// (unicodePwd), and would take a userPassword as a value without meaning.
//
// # How
//
// userPassword may have several values. With Overlap a change adds one and later deletes exactly
// the value of the old password. It names that value as it is stored, and the server compares it;
// all other values stay. For that the administrator must be able to read the values. With Single
// the one value is replaced. Bound connections stay.
//
// A server that allows only one value refuses Overlap; the error says to use Single. (The password
// policy of OpenLDAP, ppolicy, allows several; its overlay constraint may not.)
//
// # How passwords are stored
//
// By default the new value has the scheme, the cost and the spelling of the one in use ("keep"). A
// value in clear stays one, because programs may need it, unless the operator consents to a hash:
// then it becomes {CRYPT} with SHA-512 ($6$, 5000 rounds), the strongest scheme that OpenLDAP
// verifies without a loadable module; the server's crypt(3) verifies it, which every current Linux
// and FreeBSD has. A value that cannot be made here is kept unless the operator consents. With
// another scheme than "keep" all new values have that: every server verifies "ssha"; 389 Directory
// Server, and OpenLDAP with its module pw-sha2, verify "ssha256" and "ssha512". The salt depends on
// the change, so a repeated attempt adds no second value.
//
// Some servers take no hashes at all (pwdCheckQuality 2 of ppolicy) or from one administrator only
// (389 Directory Server). For them there is "server": the server gets the password in a Password
// Modify request (RFC 3062), checks it and hashes it. That replaces all values, so it is for
// Single.
//
// # Configuration
//
//	address   host or host:port, port 636 by default, or 389 with starttls or without TLS.
//	verify    a list of further addresses where a password must work, such as replicas. Default
//	          none.
//	starttls  true: begin in clear and change to TLS before anything else. Default false: TLS from
//	          the start (ldaps).
//	tls       {"ca": PEM, "server_name": name, "off": true}; on and verified by default.
//	scheme    "keep" (default), "crypt", "ssha", "ssha256", "ssha512" or "server"; see above.
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
// includes read, which Overlap and Inspect need), and read and search on the entries if base and
// filter are used. To report that an account is locked it needs read on pwdAccountLockedTime.
package ldap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	driver "github.com/go-ldap/ldap/v3"

	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/shacrypt"
	"github.com/keyturn/keyturn/internal/target/unixcrypt"
)

const (
	callTimeout = 30 * time.Second // of one call of the target, if its context allows more
	placeholder = "{account}"
	attribute   = "userPassword"
)

// Kind returns the kind "ldap".
func Kind() target.Kind {
	strategies := []target.Strategy{target.Overlap, target.Single}
	return target.NewKind("ldap", strategies, target.Parser((*config).complete), open).
		WithAdmin().Following(target.LoginEndpoints).
		Consenting(consentToHash, consentToOthers, consentToManage, consentWithoutUndo, consentToUnread).
		Leaving("With the strategy overlap, other values of userPassword were not touched: keyturn rotation check NAME "+
			"shows whether there are any.", target.OpenSessions)
}

type config struct {
	Address  string              `json:"address"`
	VerifyAt target.EndpointList `json:"verify"`
	StartTLS bool                `json:"starttls"`
	TLS      target.TLS          `json:"tls"`
	Scheme   string              `json:"scheme"`
	Template string              `json:"user_dn_template"`
	Base     string              `json:"base"`
	Filter   string              `json:"filter"`
	target.PasswordRule
}

// Addresses returns the address and every further one.
func (c config) Addresses() []string { return c.LoginEndpoints().Addresses() }

// LoginEndpoints returns where a password must work: the address first.
func (c config) LoginEndpoints() target.EndpointList {
	return append(target.EndpointList{{Address: c.Address, Role: target.Writer}}, c.VerifyAt...)
}

// complete fills in defaults and returns every mistake.
func (c *config) complete() error {
	port := driver.DefaultLdapsPort
	if c.StartTLS || c.TLS.Off {
		port = driver.DefaultLdapPort
	}
	var errs []error
	complete := func(address *string) {
		full, err := target.Address(*address, port)
		*address, errs = full, append(errs, err)
	}
	complete(&c.Address)
	for i := range c.VerifyAt {
		complete(&c.VerifyAt[i].Address)
	}
	if c.StartTLS && c.TLS.Off {
		errs = append(errs, errors.New("starttls contradicts tls: off"))
	}
	c.Scheme = cmp.Or(c.Scheme, schemeKeep)
	if !slices.Contains(schemes, c.Scheme) {
		errs = append(errs, fmt.Errorf("scheme %q is none of %q", c.Scheme, schemes))
	}
	return errors.Join(append(errs, c.checkLookup(), c.TLS.Check(), c.PasswordRule.Check())...)
}

// checkLookup returns an error for settings that could never find an account.
func (c *config) checkLookup() error {
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

// maxReceived is how many bytes a connection may receive. The driver needs up to 150 times as much
// memory for an answer of many small values.
const maxReceived = 1 << 20

type directory struct {
	config
	admin       target.Credential
	application target.Login
	consent     []string
	dialTCP     egress.DialFunc
}

func open(c config, s target.Settings) (target.Target, error) {
	if s.Admin.Account == "" {
		return nil, errors.New("ldap: the administrator's credential must have a DN as its account")
	}
	return &directory{
		config:      c,
		admin:       s.Admin,
		application: s.Login,
		consent:     s.Consent,
		dialTCP:     target.Bounded(s.Dialer(), maxReceived),
	}, nil
}

// Close has nothing to release: each call closes its own connection.
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
	if err := s.refuseActiveDirectory(); err != nil {
		return err
	}
	dn, e, err := s.account(c.New.Account)
	if err != nil {
		return err
	}
	live, _ := e.accepts(c.New.Secret)
	if c.Strategy == target.Single {
		if live && len(e.passwords) == 1 {
			return nil
		}
		value, err := d.newValue(e, dn, c)
		if err != nil {
			return err
		}
		return s.replace(dn, c, value)
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
			"%s of %s has no value that the administrator can read; give it that right, without which the old "+
				"value cannot be found to be removed later, or use the strategy single",
			attribute,
			fault.Quoted(dn),
		)
	}
	value, err := d.newValue(e, dn, c)
	if err != nil {
		return err
	}
	return s.add(dn, value)
}

// consentToHash is the consent to a hash of another form.
const consentToHash = "hash-changes"

// newValue returns the value to store for the new password; empty if the server makes it.
func (d *directory) newValue(e entry, dn string, c target.Change) (string, error) {
	var value string
	err := errForm
	switch {
	case d.Scheme == schemeServer:
		return "", nil
	case d.Scheme == schemeKeep && len(e.passwords) > 0:
		example := e.example(c.Old.Secret)
		if isClear(example) && slices.Contains(d.consent, consentToHash) {
			break // it becomes a hash
		}
		value, err = like(example, c)
	}
	switch {
	case errors.Is(err, unixcrypt.ErrPassword), errors.Is(err, errClear):
		return "", target.Refused.Errorf("%v", err)
	case err == nil && !strings.HasPrefix(strings.ToUpper(value), "{CRYPT}"):
		return value, nil
	case c.New.Secret.Len() > shacrypt.MaxPassword || strings.Contains(c.New.Secret.Reveal(), "\x00"):
		return "", target.Refused.Errorf(
			"crypt(3) takes passwords of up to %d bytes without a zero byte", shacrypt.MaxPassword,
		)
	case err == nil:
		return value, nil
	case d.Scheme != schemeKeep:
		return hashed(d.Scheme, c), nil
	case slices.Contains(d.consent, consentToHash) && !e.elsewhere():
		return hashed(schemeCrypt, c), nil
	}
	return "", target.Denied.Errorf(
		"%s of %s is stored %s; set scheme, or give the consent %s to store a hash of another form",
		attribute, fault.Quoted(dn), e.howStored(c.Old.Secret), consentToHash,
	)
}

// Retire deletes the values of the old password.
func (d *directory) Retire(ctx context.Context, c target.Change) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := d.session(ctx, c.Old.Secret, c.New.Secret)
	if err != nil {
		return err
	}
	defer s.close()
	dn, e, err := s.account(c.Old.Account)
	if err != nil {
		return err
	}
	matching, unknown := e.matching(c.Old.Secret)
	if len(matching) == 0 && len(e.passwords) == 0 {
		return target.Denied.Errorf(
			"%s of %s has no value that the administrator can read; give it that right, so that the old value "+
				"can be found",
			attribute,
			fault.Quoted(dn),
		)
	}
	if len(matching) == 0 && len(unknown) > 0 {
		return target.Denied.Errorf(
			"the old password of %s may be in a value that cannot be compared (%s); remove it by hand if so", fault.Quoted(dn),
			fault.Foreign(strings.Join(unknown, ", ")),
		)
	}
	for _, value := range matching {
		if err := s.remove(dn, value); err != nil {
			return err
		}
	}
	return nil
}

// Verify binds at every address that decides.
func (d *directory) Verify(ctx context.Context, c target.Credential) error {
	err := d.verify(ctx, c, d.application.At(d.LoginEndpoints()).Deciding())
	if target.ClassOf(err) == target.Rejected {
		return d.orLocked(ctx, err, c)
	}
	return err
}

// VerifyCopies binds at the addresses that learn of a change later.
func (d *directory) VerifyCopies(ctx context.Context, c target.Credential) error {
	return d.verify(ctx, c, d.application.At(d.LoginEndpoints()).Replicas())
}

// Lag returns how long those addresses may need.
func (d *directory) Lag() time.Duration { return d.application.At(d.LoginEndpoints()).Lag() }

func (d *directory) verify(ctx context.Context, c target.Credential, endpoints target.EndpointList) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	dn, err := d.verifyDN(ctx, c)
	if err != nil {
		return err
	}
	return target.VerifyEach(ctx, endpoints.Addresses(), func(ctx context.Context, addr string) error {
		s, err := d.dial(ctx, addr, c.Secret)
		if err != nil {
			return err
		}
		defer s.close()
		return s.bind(dn, c.Secret)
	})
}

// verifyDN returns the DN to log in as. An account without an entry does not authenticate.
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

// orLocked returns a Denied error instead of a rejection if the account is locked. Servers report a
// wrong password for a locked account, which says nothing about the credential.
func (d *directory) orLocked(ctx context.Context, rejected error, c target.Credential) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := d.session(ctx, c.Secret)
	if err != nil {
		return rejected
	}
	defer s.close()
	_, e, err := s.account(c.Account)
	if err != nil || e.lockedSince == "" {
		return rejected
	}
	text := fmt.Sprintf(
		"%v; its account was locked by the password policy (pwdAccountLockedTime %s), so this says nothing about "+
			"the password: unlock it, or wait if the lock ends automatically",
		rejected,
		fault.Foreign(e.lockedSince),
	)
	return target.Denied.Errorf("%s", text)
}

// Inspect compares with the stored values. A credential whose entry is not found is NotKnown,
// because the directory may hide the entry from the administrator.
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
		_, e, err := s.account(c.Account)
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
