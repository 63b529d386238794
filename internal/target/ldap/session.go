package ldap

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	driver "github.com/go-ldap/ldap/v3"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// errNoAccount is in the chain of an error that says that an account has no entry.
var errNoAccount = errors.New("no entry")

// session is a connection to one server.
type session struct {
	d       *directory
	ctx     context.Context // of the one call that the session is for
	addr    string
	conn    *driver.Conn
	stop    func() bool
	secrets []sensitive.Value
}

// dial connects, with TLS unless it is switched off, and asks nothing.
func (d *directory) dial(ctx context.Context, addr string, secrets ...sensitive.Value) (*session, error) {
	attempt := "connect to " + addr
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, target.NotSent(attempt, err)
	}
	dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := d.dialTCP(dialCtx, "tcp", addr)
	if err != nil {
		return nil, target.NotSent(attempt, err)
	}
	conn := driver.NewConn(c, false)
	config := d.TLS.Config(host)
	if config != nil && !d.StartTLS {
		secure := tls.Client(c, config)
		if err := secure.HandshakeContext(dialCtx); err != nil {
			_ = c.Close()
			return nil, target.NotSent(attempt, err)
		}
		conn = driver.NewConn(secure, true)
	}
	conn.SetTimeout(callTimeout)
	conn.Start()
	s := &session{
		d:       d,
		ctx:     ctx,
		addr:    addr,
		conn:    conn,
		secrets: secrets,
	}
	if config != nil && d.StartTLS {
		// The driver takes no context: the connection is closed when time is up, which ends its
		// wait.
		stop := context.AfterFunc(dialCtx, func() { _ = c.Close() })
		err := conn.StartTLS(config)
		if !stop() && err == nil {
			err = context.DeadlineExceeded
		}
		if err != nil {
			_ = conn.Close()
			return nil, target.NotSent(attempt+": start TLS", timedOut(dialCtx, err))
		}
	}
	s.stop = context.AfterFunc(ctx, func() { _ = c.Close() })
	return s, nil
}

func timedOut(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.DeadlineExceeded
	}
	return err
}

func (s *session) close() {
	s.stop()
	_ = s.conn.Close() // nothing is under way
}

// session connects and binds as the administrator.
func (d *directory) session(ctx context.Context, secrets ...sensitive.Value) (*session, error) {
	s, err := d.dial(ctx, d.Address, append(secrets, d.admin.Secret)...)
	if err != nil {
		return nil, err
	}
	err = s.bind(d.admin.Account, d.admin.Secret)
	if err == nil {
		return s, nil
	}
	s.close()
	return nil, target.AsAdmin(err)
}

// What a password policy and Active Directory say of a bind beside its result code.
var (
	policyErrors = map[int8]string{
		0: "the password has expired",
		1: "the account is locked",
		2: "the password policy demands that it is changed first (pwdReset)",
	}
	adData   = regexp.MustCompile(`\bdata ([0-9a-f]+)\b`)
	adErrors = map[string]string{
		"530": "not permitted to log in at this time",
		"531": "not permitted to log in from here",
		"532": "the password has expired",
		"533": "the account is disabled",
		"701": "the account has expired",
		"773": "the password has to be changed first",
		"775": "the account is locked",
	}
)

// bind logs in. An account that is locked, expired or disabled is of class Denied, because that
// says nothing of the password.
func (s *session) bind(dn string, password sensitive.Value) error {
	attempt := fmt.Sprintf("%s: bind as %q", s.addr, dn)
	err := s.tryBind(attempt, dn, password)
	if err == nil || !s.d.TLS.Off {
		return err
	}
	return target.Unproven(attempt, err)
}

func (s *session) tryBind(attempt, dn string, password sensitive.Value) error {
	if dn == "" || password.IsZero() {
		// Servers answer such a bind with success, and it proves nothing (RFC 4513, 5.1.1 and
		// 5.1.2).
		return target.Rejected.Errorf("%s: a DN and a password are required", attempt)
	}
	result, err := s.conn.SimpleBind(&driver.SimpleBindRequest{
		Username: dn, Password: password.Reveal(),
		Controls: []driver.Control{driver.NewControlBeheraPasswordPolicy()},
	})
	if result != nil {
		for _, c := range result.Controls {
			policy, ok := c.(*driver.ControlBeheraPasswordPolicy)
			if ok && policyErrors[policy.Error] != "" {
				return target.Failed(target.Denied, code(err), attempt+": "+policyErrors[policy.Error], s.secrets...)
			}
		}
	}
	if err == nil {
		return nil
	}
	if driver.IsErrorAnyOf(err, driver.LDAPResultInvalidCredentials) {
		text := attempt + ": " + diagnostic(err)
		if m := adData.FindStringSubmatch(text); m != nil && adErrors[m[1]] != "" {
			return target.Failed(
				target.Denied, "49 data "+m[1], attempt+": "+adErrors[m[1]]+": "+diagnostic(err), s.secrets...,
			)
		} else if m != nil {
			return target.Failed(target.Rejected, "49 data "+m[1], text, s.secrets...)
		}
		return target.Failed(target.Rejected, code(err), text, s.secrets...)
	}
	if driver.IsErrorAnyOf(
		err, driver.LDAPResultInvalidDNSyntax, driver.LDAPResultNoSuchObject,
		driver.LDAPResultInappropriateAuthentication,
	) {
		return target.Failed(target.Rejected, code(err), attempt+": "+diagnostic(err), s.secrets...)
	}
	if driver.IsErrorAnyOf(err, driver.LDAPResultConstraintViolation) {
		// 389 Directory Server says so of an account with too many failed logins.
		return target.Failed(target.Denied, code(err), attempt+": "+diagnostic(err), s.secrets...)
	}
	return s.failed(attempt, err)
}

// find makes a DN of an account.
func (s *session) find(account string) (string, error) {
	switch {
	case s.d.Filter != "":
		return s.search(account)
	case s.d.Template != "":
		if account == "" {
			return "", noAccount("the account is empty")
		}
		return strings.ReplaceAll(s.d.Template, placeholder, driver.EscapeDN(account)), nil
	}
	if dn, err := driver.ParseDN(account); err != nil || len(dn.RDNs) == 0 {
		return "", noAccount(
			fmt.Sprintf("account %q is not a DN; write one, or set user_dn_template, or base and filter", account),
		)
	}
	return account, nil
}

func (s *session) search(account string) (string, error) {
	filter := strings.ReplaceAll(s.d.Filter, placeholder, driver.EscapeFilter(account))
	result, err := s.conn.Search(
		driver.NewSearchRequest(
			s.d.Base, driver.ScopeWholeSubtree, driver.NeverDerefAliases, 2, int(callTimeout.Seconds()), false,
			filter, []string{"1.1"}, nil,
		),
	)
	attempt := fmt.Sprintf("%s: search below %q with %s", s.addr, s.d.Base, filter)
	if err != nil && !driver.IsErrorAnyOf(err, driver.LDAPResultSizeLimitExceeded) {
		return "", s.failed(attempt, err)
	}
	switch n := len(result.Entries); {
	case err != nil || n > 1:
		return "", target.Denied.Errorf("%s: more than one entry; make the filter tell them apart", attempt)
	case n == 0:
		return "", noAccount(attempt + ": no entry")
	}
	return result.Entries[0].DN, nil
}

// noAccount is of class Denied: a person may make the account.
func noAccount(text string) error {
	return fmt.Errorf("%w%w", target.Denied.Errorf("%s", text), quiet{errNoAccount})
}

// quiet is an error that can be found and is not read.
type quiet struct{ error }

func (quiet) Error() string   { return "" }
func (q quiet) Unwrap() error { return q.error }

// entry is what is known of an account.
type entry struct {
	passwords   []string
	lockedSince string
}

func (s *session) read(dn string) (entry, error) {
	result, err := s.conn.Search(
		driver.NewSearchRequest(
			dn, driver.ScopeBaseObject, driver.NeverDerefAliases, 1, int(callTimeout.Seconds()), false,
			"(objectClass=*)", []string{attribute, "pwdAccountLockedTime"}, nil,
		),
	)
	attempt := fmt.Sprintf("%s: read %q", s.addr, dn)
	switch {
	case driver.IsErrorAnyOf(err, driver.LDAPResultNoSuchObject):
		return entry{}, noAccount(attempt + ": there is no such entry, or the administrator may not see it")
	case err != nil:
		return entry{}, s.failed(attempt, err)
	case len(result.Entries) != 1:
		return entry{}, noAccount(attempt + ": the administrator may not see the entry")
	}
	e := entry{lockedSince: result.Entries[0].GetAttributeValue("pwdAccountLockedTime")}
	for _, v := range result.Entries[0].GetEqualFoldRawAttributeValues(attribute) {
		e.passwords = append(e.passwords, string(v))
		s.secrets = append(s.secrets, sensitive.New(string(v)))
	}
	return e, nil
}

// add adds one value. That it is there already is no error: the same change was made before.
func (s *session) add(dn string, c target.Change) error {
	value := hashed(s.d.Scheme, c)
	m := driver.NewModifyRequest(dn, nil)
	m.Add(attribute, []string{value})
	err := s.modify(fmt.Sprintf("%s: add a password of %q", s.addr, dn), m, value)
	if e := new(target.Error); errors.As(err, &e) && e.Code == strconv.Itoa(driver.LDAPResultAttributeOrValueExists) {
		return nil
	}
	return err
}

// remove deletes one stored value. That it is not there is no error: somebody has deleted it
// meanwhile.
func (s *session) remove(dn, value string) error {
	m := driver.NewModifyRequest(dn, nil)
	m.Delete(attribute, []string{value})
	err := s.modify(fmt.Sprintf("%s: remove a password of %q", s.addr, dn), m, value)
	if e := new(target.Error); errors.As(err, &e) && e.Code == strconv.Itoa(driver.LDAPResultNoSuchAttribute) {
		return nil
	}
	return err
}

// replace makes the new password the only one.
func (s *session) replace(dn string, c target.Change) error {
	attempt := fmt.Sprintf("%s: replace the password of %q", s.addr, dn)
	if s.d.Scheme == schemeServer {
		_, err := s.conn.PasswordModify(driver.NewPasswordModifyRequest(dn, "", c.New.Secret.Reveal()))
		return s.failed(attempt, err)
	}
	value := hashed(s.d.Scheme, c)
	m := driver.NewModifyRequest(dn, nil)
	m.Replace(attribute, []string{value})
	return s.modify(attempt, m, value)
}

// modify sends a change of hashed values. A server cannot judge the password in a hash, so when its
// policy refuses one, it would refuse every other candidate as well: a person is needed.
func (s *session) modify(attempt string, m *driver.ModifyRequest, value string) error {
	s.secrets = append(s.secrets, sensitive.New(value))
	err := s.failed(attempt, s.conn.Modify(m))
	if e := new(target.Error); errors.As(err, &e) && e.Class == target.Refused {
		e.Class = target.Denied
		e.Text += `; if the server allows one password at a time, use the strategy single; if it takes no ` +
			`hashes, use it with scheme "server"`
	}
	return err
}

// refuseActiveDirectory asks the server what it is.
func (s *session) refuseActiveDirectory() error {
	result, err := s.conn.Search(
		driver.NewSearchRequest(
			"", driver.ScopeBaseObject, driver.NeverDerefAliases, 1, int(callTimeout.Seconds()), false,
			"(objectClass=*)", []string{"supportedCapabilities"}, nil,
		),
	)
	if err != nil {
		return nil // one that does not tell is none: Active Directory tells everybody
	}
	for _, e := range result.Entries {
		if slices.Contains(e.GetAttributeValues("supportedCapabilities"), "1.2.840.113556.1.4.800") {
			return target.Denied.Errorf("%s is Active Directory, which this kind of target does not serve", s.addr)
		}
	}
	return nil
}

// classes are what the result codes mean that are not in the table of nothing known.
var classes = map[uint16]target.Class{
	driver.LDAPResultConstraintViolation:          target.Refused,
	driver.LDAPResultBusy:                         target.Unreachable,
	driver.LDAPResultUnavailable:                  target.Unreachable,
	driver.LDAPResultInsufficientAccessRights:     target.Denied,
	driver.LDAPResultUnwillingToPerform:           target.Denied,
	driver.LDAPResultNoSuchObject:                 target.Denied,
	driver.LDAPResultNoSuchAttribute:              target.Denied,
	driver.LDAPResultUndefinedAttributeType:       target.Denied,
	driver.LDAPResultInvalidAttributeSyntax:       target.Denied,
	driver.LDAPResultAttributeOrValueExists:       target.Denied,
	driver.LDAPResultObjectClassViolation:         target.Denied,
	driver.LDAPResultInvalidDNSyntax:              target.Denied,
	driver.LDAPResultStrongAuthRequired:           target.Denied,
	driver.LDAPResultConfidentialityRequired:      target.Denied,
	driver.LDAPResultInappropriateAuthentication:  target.Denied,
	driver.LDAPResultAuthMethodNotSupported:       target.Denied,
	driver.LDAPResultProtocolError:                target.Denied,
	driver.LDAPResultReferral:                     target.Denied,
	driver.LDAPResultUnavailableCriticalExtension: target.Denied,
}

// failed classifies the error of a request: by its result code when the server answered, and
// otherwise as no answer.
func (s *session) failed(attempt string, err error) error {
	if err == nil {
		return nil
	}
	var e *driver.Error
	if s.ctx.Err() != nil || !errors.As(err, &e) || e.ResultCode >= driver.ErrorNetwork {
		return target.NoAnswer(attempt, timedOut(s.ctx, err), s.secrets...)
	}
	text := attempt + ": " + diagnostic(err)
	if e.ResultCode == driver.LDAPResultReferral {
		text += "; this server is a replica: use the address of one that takes changes"
	}
	return target.Failed(classes[e.ResultCode], code(err), text, s.secrets...)
}

// code is the result code, when a server gave one.
func code(err error) string {
	var e *driver.Error
	if !errors.As(err, &e) || e.ResultCode >= driver.ErrorNetwork {
		return ""
	}
	return strconv.Itoa(int(e.ResultCode))
}

// diagnostic is the name of the result code and the server's own text.
func diagnostic(err error) string {
	var e *driver.Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	name := driver.LDAPResultCodeMap[e.ResultCode]
	if e.Err == nil || e.Err.Error() == "" {
		return name
	}
	return name + ": " + strings.TrimRight(e.Err.Error(), "\x00")
}
