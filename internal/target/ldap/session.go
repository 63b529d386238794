package ldap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	driver "github.com/go-ldap/ldap/v3"

	"github.com/keyturn/keyturn/internal/fault"
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

// dial connects, with TLS unless it is off, and asks nothing.
func (d *directory) dial(ctx context.Context, addr string, secrets ...sensitive.Value) (*session, error) {
	attempt := "connect to " + addr
	atOnce := d.TLS
	if d.StartTLS {
		atOnce = target.TLS{Off: true}
	}
	c, err := atOnce.Connect(ctx, d.dialTCP, addr)
	if err != nil {
		return nil, target.NotSent(attempt, err)
	}
	conn := driver.NewConn(c, !atOnce.Off)
	conn.SetTimeout(callTimeout)
	conn.Start()
	if d.StartTLS {
		if err := d.startTLS(ctx, conn, c, addr); err != nil {
			_ = conn.Close()
			return nil, target.NotSent(attempt+": start TLS", err)
		}
	}
	return &session{
		d:       d,
		ctx:     ctx,
		addr:    addr,
		conn:    conn,
		stop:    context.AfterFunc(ctx, func() { _ = c.Close() }),
		secrets: secrets,
	}, nil
}

// startTLS changes a connection to TLS.
func (d *directory) startTLS(ctx context.Context, conn *driver.Conn, c net.Conn, addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, target.DialTimeout)
	defer cancel()
	// The driver waits without a context. Closing the connection ends its wait.
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	err = conn.StartTLS(d.TLS.Config(host))
	if !stop() && err == nil {
		err = context.DeadlineExceeded
	}
	return timedOut(ctx, err)
}

func timedOut(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.DeadlineExceeded
	}
	return err
}

func (s *session) close() {
	s.stop()
	_ = s.conn.Close() // every request of the session has its answer
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

// A password policy, or Active Directory, gives these reasons for a refused bind besides the result
// code.
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

// bind logs in. The error has class Denied for an account that is locked, expired or disabled,
// because that says nothing about the password.
func (s *session) bind(dn string, password sensitive.Value) error {
	attempt := fmt.Sprintf("%s: bind as %s", s.addr, fault.Quoted(dn))
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
		Username: dn,
		Password: password.Reveal(),
		Controls: []driver.Control{driver.NewControlBeheraPasswordPolicy()},
	})
	if result != nil {
		for _, c := range result.Controls {
			policy, ok := c.(*driver.ControlBeheraPasswordPolicy)
			if ok && policyErrors[policy.Error] != "" {
				class := target.Denied
				if err == nil {
					class = target.Admitted // the password is right, and opens nothing but its own change
				}
				return target.Failed(class, code(err), attempt+": "+policyErrors[policy.Error], s.secrets...)
			}
		}
	}
	if err == nil {
		return nil
	}
	return s.bindFailed(attempt, err)
}

// bindFailed classifies the error of a bind.
func (s *session) bindFailed(attempt string, err error) error {
	text := attempt + ": " + diagnostic(err)
	switch {
	case driver.IsErrorAnyOf(err, driver.LDAPResultInvalidCredentials):
		m := adData.FindStringSubmatch(text)
		switch {
		case m == nil:
			return target.Failed(target.Rejected, code(err), text, s.secrets...)
		case adErrors[m[1]] != "":
			return target.Failed(
				target.Denied, "49 data "+m[1], attempt+": "+adErrors[m[1]]+": "+diagnostic(err), s.secrets...,
			)
		}
		return target.Failed(target.Rejected, "49 data "+m[1], text, s.secrets...)
	case driver.IsErrorAnyOf(err,
		driver.LDAPResultInvalidDNSyntax,
		driver.LDAPResultNoSuchObject,
		driver.LDAPResultInappropriateAuthentication,
	):
		return target.Failed(target.Rejected, code(err), text, s.secrets...)
	case driver.IsErrorAnyOf(err, driver.LDAPResultConstraintViolation):
		// 389 Directory Server answers this for an account with too many failed logins.
		return target.Failed(target.Denied, code(err), text, s.secrets...)
	}
	return s.failed(attempt, err)
}

// account finds and reads an account.
func (s *session) account(name string) (dn string, e entry, err error) {
	if dn, err = s.find(name); err == nil {
		e, err = s.read(dn)
	}
	return dn, e, err
}

// find returns the DN of an account.
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
			fmt.Sprintf("account %s is not a DN; write one, or set user_dn_template, or base and filter",
				fault.Quoted(account)),
		)
	}
	return account, nil
}

func (s *session) search(account string) (string, error) {
	filter := strings.ReplaceAll(s.d.Filter, placeholder, driver.EscapeFilter(account))
	result, err := s.conn.Search(&driver.SearchRequest{
		BaseDN:       s.d.Base,
		Scope:        driver.ScopeWholeSubtree,
		DerefAliases: driver.NeverDerefAliases,
		SizeLimit:    2, // to detect a filter that matches more than one entry
		TimeLimit:    int(callTimeout.Seconds()),
		Filter:       filter,
		Attributes:   []string{"1.1"}, // none (RFC 4511, 4.5.1.8)
	})
	attempt := fmt.Sprintf("%s: search below %q with %s", s.addr, s.d.Base, fault.Foreign(filter))
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

// noAccount returns an error of class Denied with errNoAccount in its chain: an operator may make
// the account.
func noAccount(text string) error {
	return fmt.Errorf("%w%w", target.Denied.Errorf("%s", text), quiet{errNoAccount})
}

// quiet adds an error to a chain without text.
type quiet struct{ error }

func (quiet) Error() string   { return "" }
func (q quiet) Unwrap() error { return q.error }

// entry is the entry of an account.
type entry struct {
	passwords   []string // the values of userPassword that the administrator may read
	lockedSince string   // empty unless the password policy has locked the account
}

// example returns the value of a password, or else the first one.
func (e entry) example(password sensitive.Value) string {
	if matching, _ := e.matching(password); len(matching) > 0 {
		return matching[0]
	}
	return e.passwords[0]
}

// elsewhere reports whether a value says that the password is not stored in the directory.
func (e entry) elsewhere() bool {
	return slices.ContainsFunc(e.passwords, func(v string) bool {
		name, _, _ := schemeOf(v)
		return name == "SASL"
	})
}

// howStored describes the value of a password.
func (e entry) howStored(password sensitive.Value) string {
	if len(e.passwords) == 0 {
		return "in values that the administrator cannot read"
	}
	name, _, _ := schemeOf(e.example(password))
	if e.elsewhere() {
		return "at another system ({SASL}), where it must be changed"
	}
	return "in the scheme {" + fault.Foreign(name) + "}, of which no value can be made here"
}

// readEntry reads attributes of one entry.
func (s *session) readEntry(dn string, attributes ...string) (*driver.SearchResult, error) {
	return s.conn.Search(&driver.SearchRequest{
		BaseDN:       dn,
		Scope:        driver.ScopeBaseObject,
		DerefAliases: driver.NeverDerefAliases,
		SizeLimit:    1,
		TimeLimit:    int(callTimeout.Seconds()),
		Filter:       "(objectClass=*)",
		Attributes:   attributes,
	})
}

func (s *session) read(dn string) (entry, error) {
	result, err := s.readEntry(dn, attribute, "pwdAccountLockedTime")
	attempt := fmt.Sprintf("%s: read %s", s.addr, fault.Quoted(dn))
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

// add adds one value. It succeeds when the value exists already, because then an earlier attempt at
// the change has added it.
func (s *session) add(dn, value string) error {
	m := driver.NewModifyRequest(dn, nil)
	m.Add(attribute, []string{value})
	err := s.modify(fmt.Sprintf("%s: add a password of %s", s.addr, fault.Quoted(dn)), m, value)
	if e := new(target.Error); errors.As(err, &e) && e.Code == strconv.Itoa(driver.LDAPResultAttributeOrValueExists) {
		return nil
	}
	return err
}

// remove deletes one stored value. It succeeds when another client has deleted the value meanwhile.
func (s *session) remove(dn, value string) error {
	m := driver.NewModifyRequest(dn, nil)
	m.Delete(attribute, []string{value})
	err := s.modify(fmt.Sprintf("%s: remove a password of %s", s.addr, fault.Quoted(dn)), m, value)
	if e := new(target.Error); errors.As(err, &e) && e.Code == strconv.Itoa(driver.LDAPResultNoSuchAttribute) {
		return nil
	}
	return err
}

// replace makes the new password the only one.
func (s *session) replace(dn string, c target.Change, value string) error {
	attempt := fmt.Sprintf("%s: replace the password of %s", s.addr, fault.Quoted(dn))
	if s.d.Scheme == schemeServer {
		_, err := s.conn.PasswordModify(driver.NewPasswordModifyRequest(dn, "", c.New.Secret.Reveal()))
		return s.failed(attempt, err)
	}
	m := driver.NewModifyRequest(dn, nil)
	m.Replace(attribute, []string{value})
	return s.modify(attempt, m, value)
}

// modify sends a change of hashed values. A server cannot judge the password in a hash. When its
// policy refuses one, it would refuse every other candidate too, so the class is Denied and an
// operator must act.
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

// refuseActiveDirectory returns an error if the server is Active Directory. A server that does not
// answer the question is not: Active Directory answers it for every client.
func (s *session) refuseActiveDirectory() error {
	result, err := s.readEntry("", "supportedCapabilities")
	if err != nil {
		return nil
	}
	for _, e := range result.Entries {
		if slices.Contains(e.GetAttributeValues("supportedCapabilities"), "1.2.840.113556.1.4.800") {
			return target.Denied.Errorf("%s is Active Directory, which this kind of target does not serve", s.addr)
		}
	}
	return nil
}

// classes has the classes of result codes. Any other code is Unknown.
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

// code returns the result code; empty when the server gave none.
func code(err error) string {
	var e *driver.Error
	if !errors.As(err, &e) || e.ResultCode >= driver.ErrorNetwork {
		return ""
	}
	return strconv.Itoa(int(e.ResultCode))
}

// diagnostic returns the name of the result code and the server's own text.
func diagnostic(err error) string {
	var e *driver.Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	name := driver.LDAPResultCodeMap[e.ResultCode]
	if e.Err == nil || e.Err.Error() == "" {
		return name
	}
	return name + ": " + fault.Foreign(strings.TrimRight(e.Err.Error(), "\x00"))
}
