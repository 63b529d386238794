package ldap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	driver "github.com/go-ldap/ldap/v3"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// consentToOthers is the consent to remove passwords that are not the secret's.
const consentToOthers = "further-values"

// consentToManage is the operator's word that the administrator lacks the right manage.
const consentToManage = "policy-must-change"

// consentWithoutUndo is the consent to a change that the directory does not let be taken back soon.
const consentWithoutUndo = "password-too-young"

// consentToUnread is the consent to a rotation under a password policy that is not known.
const consentToUnread = "policy-not-read"

// Test binds as the administrator at every address, and reads where accounts are searched for.
func (d *directory) Test(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for _, addr := range d.Addresses() {
		s, err := d.dial(ctx, addr, d.admin.Secret)
		if err != nil {
			return err
		}
		err = s.tryAdmin()
		s.close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *session) tryAdmin() error {
	if err := s.bind(s.d.admin.Account, s.d.admin.Secret); err != nil {
		return target.AsAdmin(err)
	}
	if err := s.refuseActiveDirectory(); err != nil {
		return err
	}
	if s.d.Base == "" {
		return nil
	}
	_, err := s.readEntry(s.d.Base, "1.1")
	return s.failed(fmt.Sprintf("%s: read the base %q", s.addr, s.d.Base), err)
}

// Window says how long a credential may be refused.
func (d *directory) Window(s target.Strategy) string {
	if s == target.Single {
		return "One modification: a bind with the old password is refused after it." +
			d.application.At(d.LoginEndpoints()).Late()
	}
	return "None: the old value works until it is removed at the end of the grace period."
}

// CheckAccount reports what a rotation of an account would meet in the directory.
func (d *directory) CheckAccount(ctx context.Context, r target.CheckRequest) ([]target.Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := d.session(ctx, r.Current.Secret)
	if err != nil {
		return nil, err
	}
	defer s.close()
	f := r.OfCurrent()
	err = f.Denied("active-directory", s.refuseActiveDirectory(), "Rotate it by another kind of target.")
	if err != nil {
		return nil, err
	}
	dn, err := s.find(r.Current.Account)
	if err == nil {
		f.Account = fault.Foreign(dn)
		err = s.checkEntry(f, dn, r)
	}
	fix := "Correct the account, or user_dn_template, base and filter of the target."
	denied := f.Denied("no-entry", err, fix)
	if errors.Is(err, errNoAccount) {
		f.LastMissing()
	}
	return f.List, denied
}

// checkEntry reads the entry of an account, its values and its policy.
func (s *session) checkEntry(f *target.Findings, dn string, r target.CheckRequest) error {
	e, err := s.read(dn)
	if err != nil {
		return err
	}
	result, err := s.readEntry(dn, "objectClass", "aliasedObjectName", "pwdReset", "nsAccountLock", "pwdPolicySubentry",
		"pwdChangedTime")
	if err != nil {
		return s.failed(fmt.Sprintf("%s: read %s", s.addr, fault.Quoted(dn)), err)
	}
	if len(result.Entries) != 1 {
		return noAccount(fmt.Sprintf("%s: the administrator may not see %s", s.addr, fault.Quoted(dn)))
	}
	entry := result.Entries[0]
	has := func(attribute, value string) bool {
		return slices.ContainsFunc(entry.GetEqualFoldAttributeValues(attribute), func(v string) bool {
			return strings.EqualFold(v, value)
		})
	}
	switch {
	case has("objectClass", "alias"):
		f.Impossible("alias", "The entry is an alias, and a bind does not follow aliases.",
			"Use the DN of the entry that it stands for: "+
				fault.Foreign(entry.GetEqualFoldAttributeValue("aliasedObjectName")))
		return nil
	case has("objectClass", "referral"):
		f.Impossible("referral", "The entry is a referral to another server.", "Use the address of that server.")
		return nil
	}
	if e.lockedSince != "" || has("nsAccountLock", "TRUE") {
		f.Closed("account-locked", "The account is locked.",
			"Unlock it: delete its attribute pwdAccountLockedTime or nsAccountLock.")
	}
	if has("pwdReset", "TRUE") {
		f.Impossible("must-change", "The password must be changed at the next login (pwdReset).", "Delete pwdReset.")
	}
	server, err := s.abilities()
	if err != nil {
		return err
	}
	s.d.judgeValues(f, e, r, server)
	changed, _ := time.Parse("20060102150405Z", entry.GetEqualFoldAttributeValue("pwdChangedTime")) // zero: not known
	return s.checkPolicy(f, dn, policySource{
		own:      entry.GetEqualFoldAttributeValue("pwdPolicySubentry"),
		possible: server.policies,
		changed:  changed,
	})
}

// abilities is what the root of the directory says of the server.
type abilities struct {
	// needClear is the SASL mechanisms that need passwords in clear, or what stands for them.
	needClear []string
	// policies reports whether the server may have password policies.
	policies bool
}

// policyControl is the control of servers with password policies
// (draft-behera-ldap-password-policy).
const policyControl = "1.3.6.1.4.1.42.2.27.8.5.1"

// abilities reads the root of the directory. A server that does not show it may have any ability.
func (s *session) abilities() (abilities, error) {
	result, err := s.readEntry("", "supportedSASLMechanisms", "supportedControl")
	if err != nil && !isAnswer(err) {
		return abilities{}, s.failed(s.addr+": read the root of the directory", err)
	}
	if err != nil || len(result.Entries) != 1 ||
		len(result.Entries[0].GetEqualFoldAttributeValues("supportedControl")) == 0 {
		return abilities{needClear: []string{"SASL mechanisms, which the administrator cannot read,"}, policies: true}, nil
	}
	root := result.Entries[0]
	return abilities{
		needClear: slices.DeleteFunc(root.GetEqualFoldAttributeValues("supportedSASLMechanisms"), func(m string) bool {
			return m != "DIGEST-MD5" && m != "CRAM-MD5" && !strings.HasPrefix(m, "SCRAM-")
		}),
		policies: slices.Contains(root.GetEqualFoldAttributeValues("supportedControl"), policyControl),
	}, nil
}

// isAnswer reports whether an error is the server's answer that it does not show something. No
// other error says so: the same question may be answered later.
func isAnswer(err error) bool {
	return driver.IsErrorAnyOf(err, driver.LDAPResultNoSuchObject, driver.LDAPResultInsufficientAccessRights,
		driver.LDAPResultUnwillingToPerform, driver.LDAPResultInappropriateAuthentication)
}

// judgeValues reports what becomes of the stored values.
func (d *directory) judgeValues(f *target.Findings, e entry, r target.CheckRequest, server abilities) {
	password := r.Current.Secret
	switch {
	case len(e.passwords) == 0:
		d.judgeUnread(f, server.needClear)
		return
	case e.elsewhere():
		f.Impossible("password-elsewhere", "A value of userPassword is {SASL}: the password is kept by another system.",
			"Rotate it there.")
		return
	}
	matching, unknown := e.matching(password)
	others := len(e.passwords) - len(matching)
	if !r.Previous.Secret.IsZero() {
		previous, _ := e.matching(r.Previous.Secret)
		others -= len(previous)
	}
	if len(matching) == 0 && len(unknown) > 0 {
		f.Impossible("value-not-compared",
			fmt.Sprintf("The password may be in a value that cannot be compared (%s), so it could not be found to be "+
				"removed.", fault.Foreign(strings.Join(unknown, ", "))),
			"Use the strategy single.", target.Overlap)
		others--
	}
	if others > 0 {
		count := fmt.Sprintf("Besides the password in use, the entry has further values of userPassword (%d), which ", others)
		f.Outlasting(consentToOthers, count+"stay.", "After a leak, remove those that no application needs from the entry.",
			target.Overlap)
		f.NeedsConsent(consentToOthers, count+"the strategy single removes.",
			"Use the strategy overlap.", target.Single)
	}
	d.judgeScheme(f, e.example(password), server.needClear)
}

// judgeUnread reports what follows from values that the administrator cannot read.
func (d *directory) judgeUnread(f *target.Findings, mechanisms []string) {
	const text = "The administrator cannot read the values of userPassword"
	f.Impossible("values-not-read", text+", so the old one could not be found to be removed.",
		"Give it read on userPassword.", target.Overlap)
	f.NeedsConsent(consentToOthers, "The administrator cannot read userPassword. The strategy single removes any further "+
		"password that the entry has.", "Give it read on userPassword.", target.Single)
	switch {
	case d.Scheme == schemeKeep:
		f.NeedsConsent(consentToHash, text+", so their scheme is not known; a rotation stores {CRYPT}$6$.",
			"Give it read on userPassword, or set scheme in the target.", target.Single)
	case len(mechanisms) > 0:
		f.NeedsConsent(consentToHash, fmt.Sprintf("%s needs a password in clear. Keyturn cannot see whether this one is, "+
			"and stores a hash.", fault.Foreign(strings.Join(mechanisms, ", "))),
			"Give it read on userPassword.", target.Single)
	}
}

// judgeScheme reports what becomes of the scheme of a stored value.
func (d *directory) judgeScheme(f *target.Findings, stored string, mechanisms []string) {
	name, _, _ := schemeOf(stored)
	_, err := like(stored, target.Change{ID: "check", New: target.Credential{Secret: sensitive.New("a-password")}})
	keep := d.Scheme == schemeKeep
	switch clear := isClear(stored); {
	case d.Scheme == schemeServer:
		f.Impossible("scheme-server", "The scheme of the target is server, which replaces all values.",
			"Set another scheme in the target, or use the strategy single.", target.Overlap)
	case clear && keep && !slices.Contains(d.consent, consentToHash):
		f.Note("stored-in-clear", "The password is stored in clear, and so will the new one: programs may need it (SASL, "+
			"RADIUS). If all applications use simple binds, give the consent "+consentToHash+" to store a hash.")
	case clear && !keep && len(mechanisms) > 0:
		f.NeedsConsent(consentToHash,
			fmt.Sprintf("The password is stored in clear, which the server's %s need; a rotation stores a hash, with "+
				"which simple binds alone work.", fault.Foreign(strings.Join(mechanisms, ", "))),
			"Set scheme keep in the target, or store a hash, if all applications use simple binds.")
	case clear:
		f.Note("hash-changes", "The password is stored in clear; a rotation stores a hash.")
	case keep && errors.Is(err, errForm):
		f.NeedsConsent(consentToHash,
			fmt.Sprintf("The password is stored in the scheme {%s}, of which no value can be made here; a rotation stores "+
				"{CRYPT}$6$.", fault.Foreign(name)),
			"Set scheme in the target.")
	case !keep && !strings.EqualFold(name, d.Scheme):
		text := fmt.Sprintf("The password is stored in the scheme {%s}; the target sets %s.", fault.Foreign(name), d.Scheme)
		f.Note("hash-changes", text)
	}
}

// policy is the password policy of an account, with the settings that matter to a rotation.
type policy struct {
	dn         string
	mustChange bool
	byManager  bool // the administrator is a manager of the directory
	safeModify bool
	quality    int
	maxAge     time.Duration
	minAge     time.Duration
	changed    time.Time // the password, last; zero: not known
}

// policySource says where the policy of an entry may be.
type policySource struct {
	own      string    // the entry's own policy; empty for the database's
	possible bool      // the server may have password policies
	changed  time.Time // the password, last; zero: not known
}

// checkPolicy reads the policy of an entry: its own, or else the database's.
func (s *session) checkPolicy(f *target.Findings, dn string, source policySource) error {
	database, err := s.database(dn)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(database.constraints, limitsToOne) {
		f.Impossible("one-value", "The directory allows one value of userPassword (overlay constraint).",
			"Use the strategy single.", target.Overlap)
	}
	own := cmp.Or(source.own, database.policy)
	if own == "" {
		if !database.read && source.possible {
			f.NeedsConsent(consentToUnread, "The administrator cannot read cn=config. Keyturn cannot see whether a default "+
				"password policy refuses a rotation or makes the account change its password.",
				"Give it read on olcSuffix and olcPPolicyDefault in cn=config, or agree if there is none.")
		}
		return nil
	}
	result, err := s.readEntry(own, "pwdMustChange", "pwdSafeModify", "pwdCheckQuality", "pwdMaxAge", "pwdMinAge")
	switch {
	case err != nil && !isAnswer(err):
		return s.failed(fmt.Sprintf("%s: read the password policy %s", s.addr, fault.Quoted(own)), err)
	case err != nil, len(result.Entries) != 1:
		f.NeedsConsent(consentToUnread, fmt.Sprintf("The administrator cannot read the password policy %s of the account, "+
			"which may refuse a rotation or make the account change its password.", fault.Quoted(own)),
			"Give it read on the policy.")
		return nil
	}
	managers, err := s.configuredManagers()
	if err != nil {
		return err
	}
	admin := identity{names: []string{normalize(s.d.admin.Account)}}
	p := policyOf(own, result.Entries[0])
	p.byManager = slices.ContainsFunc(managers, admin.is)
	p.changed = source.changed
	s.d.judgePolicy(f, p)
	return nil
}

// policyOf returns the settings of a policy.
func policyOf(dn string, entry *driver.Entry) policy {
	number := func(attribute string) int {
		n, err := strconv.Atoi(entry.GetEqualFoldAttributeValue(attribute))
		if err != nil {
			return 0
		}
		return n
	}
	is := func(attribute string) bool {
		return strings.EqualFold(entry.GetEqualFoldAttributeValue(attribute), "TRUE")
	}
	return policy{
		dn:         dn,
		mustChange: is("pwdMustChange"),
		safeModify: is("pwdSafeModify"),
		quality:    number("pwdCheckQuality"),
		maxAge:     time.Duration(number("pwdMaxAge")) * time.Second,
		minAge:     time.Duration(number("pwdMinAge")) * time.Second,
	}
}

// judgePolicy reports what a password policy does to a rotation.
func (d *directory) judgePolicy(f *target.Findings, p policy) {
	where := "The password policy " + fault.Quoted(p.dn)
	mustChange := where + " makes the account change a password that was set with the right manage (pwdMustChange), so " +
		"no application could use it."
	switch fix := "Set pwdMustChange FALSE, or use an administrator with write and without manage."; {
	case p.mustChange && p.byManager:
		f.Impossible("policy-must-change", mustChange, fix)
	case p.mustChange:
		f.NeedsConsent(consentToManage,
			mustChange+" Keyturn cannot see whether the administrator has that right.", fix)
	}
	if p.safeModify {
		f.Impossible("policy-safe-modify", where+" demands the old password with each change (pwdSafeModify).",
			"Set pwdSafeModify FALSE, or give the account a policy of its own.")
	}
	const onlyClear = 2
	if p.quality == onlyClear {
		if d.Scheme != schemeServer {
			f.Impossible("policy-no-hashes", where+" takes no hashes (pwdCheckQuality 2).",
				`Set scheme "server" in the target, with the strategy single.`)
		} else {
			f.Impossible("policy-no-hashes", where+" takes no hashes (pwdCheckQuality 2).", "Use the strategy single.",
				target.Overlap)
		}
	}
	if p.maxAge > 0 {
		f.Note("password-expires", fmt.Sprintf("%s lets a password expire after %s: rotate it sooner.", where, p.maxAge))
	}
	young := p.changed.Add(p.minAge)
	switch {
	case p.minAge > 0 && !p.changed.IsZero() && young.After(time.Now()):
		f.Impossible(consentWithoutUndo, fmt.Sprintf("%s refuses a change within %s of the last one, until %s.", where,
			p.minAge, young.UTC().Format(time.RFC3339)), "Wait until then, or shorten pwdMinAge.")
	case p.minAge > 0:
		f.NeedsConsent(consentWithoutUndo, fmt.Sprintf(
			"%s refuses another change within %s, so that neither a rehearsal nor a rotation that fails can be taken back, "+
				"and an old value cannot be removed.", where, p.minAge,
		), "Set pwdMinAge 0 for the account.")
	}
}

// database is what the directory's configuration says of the database of an entry.
type database struct {
	read        bool
	policy      string
	constraints []string
}

// limitsToOne reports whether a rule of the overlay constraint allows one password.
func limitsToOne(rule string) bool {
	fields := strings.Fields(rule)
	return len(fields) >= 3 && fields[1] == "count" && fields[2] == "1" &&
		slices.ContainsFunc(strings.Split(fields[0], ","), func(a string) bool { return strings.EqualFold(a, attribute) })
}

// database reads the configuration of OpenLDAP for the database of an entry, where the
// administrator may see it.
func (s *session) database(dn string) (database, error) {
	result, err := s.conn.Search(&driver.SearchRequest{
		BaseDN:       configBase,
		Scope:        driver.ScopeWholeSubtree,
		DerefAliases: driver.NeverDerefAliases,
		SizeLimit:    maxManagers,
		TimeLimit:    int(callTimeout.Seconds()),
		Filter:       "(|(olcSuffix=*)(olcPPolicyDefault=*)(olcConstraintAttribute=*))",
		Attributes:   []string{"olcSuffix", "olcPPolicyDefault", "olcConstraintAttribute"},
	})
	switch {
	case isAnswer(err):
		return database{}, nil
	case err != nil:
		return database{}, s.failed(s.addr+": read "+configBase, err)
	}
	found, suffix, at := database{}, "", ""
	name := normalize(dn)
	for _, e := range result.Entries {
		for _, base := range e.GetEqualFoldAttributeValues("olcSuffix") {
			found.read = true
			base = normalize(base)
			if (name == base || strings.HasSuffix(name, ","+base)) && len(base) >= len(suffix) {
				suffix, at = base, normalize(e.DN)
			}
		}
	}
	for _, e := range result.Entries {
		if at == "" || !strings.HasSuffix(normalize(e.DN), ","+at) {
			continue
		}
		if p := e.GetEqualFoldAttributeValue("olcPPolicyDefault"); p != "" {
			found.policy = p
		}
		found.constraints = append(found.constraints, e.GetEqualFoldAttributeValues("olcConstraintAttribute")...)
	}
	return found, nil
}

var (
	_ target.Checker  = (*directory)(nil)
	_ target.Windower = (*directory)(nil)
	_ target.Copied   = (*directory)(nil)
	_ target.Tester   = (*directory)(nil)
)
