// Package ssh changes how accounts of Unix hosts log in over SSH: their keys, or their passwords.
//
// # How
//
// A credential whose secret is a private key is a line of the account's authorized_keys; its
// strategy is Overlap. A change adds a line of the new key after each line of the old one, with the
// same options as they are written, in each file that lists it, and later removes the old lines.
// They are found by their key and not by comment or place; every other line, the mode and the owner
// stay. A new file is written beside the old one and replaces it atomically. If the file is edited
// meanwhile, it is read again, so no edit is lost.
//
// That a key is in no file does not prove that it is dead, because sshd may read other files, ask a
// program or trust a certificate. A removed key is tried once.
//
// Any other secret is a password; its strategy is Single. The host is given a hash for chpasswd, in
// the form of the stored one. Forms that this process cannot compute are computed by crypt(3) of
// the host, which gets the password as the input of a program.
//
// What is to be done goes to a shell on the host as its input; what shows in the host's list of
// processes holds no secret. Open sessions stay.
//
// # Configuration
//
//	address     host or host:port, port 22 by default.
//	host_keys   required: a list of the host's public keys ("ssh-ed25519 AAAA…", as ssh-keyscan
//	            prints them without the name). A host with another key is refused.
//	verify      a list of further addresses where a credential must work; with the same host keys.
//	            Default none.
//	self        true: there is no administrator, an account changes its own keys. It has to have a
//	            shell. Default false.
//	authorized_keys   where the keys of an account are: a path or a list. A path that does not begin
//	                  with / is below its home directory, and is changed as the account; an absolute
//	                  one is changed as root (with self, as the account), and only root should be
//	                  able to write its directory. "%u" stands for the account. Default
//	                  ".ssh/authorized_keys" and ".ssh/authorized_keys2".
//	sshd_config   the configuration of sshd, which a check reads. Default: sshd's own.
//	key_options   options of the new line when no file lists the key in use; "" for none. Default:
//	              such a change is denied.
//	check       a command that a login has to be able to run with success; "" for accounts that may
//	            run none (SFTP, tunnels), where the login itself is the proof. Default "true".
//	key_type    of new keys: one of keyTypes. Default: as the key in use, else ed25519.
//	password_length, password_punctuation   of new passwords.
//
// # The administrator
//
// An account of the host, with a private key (PEM, without a passphrase) or a password as its
// secret. It is root, or may run a shell by sudo without being asked: for keys as the accounts
// concerned, such as
//
//	keyturn ALL=(app1,app2) NOPASSWD: /usr/bin/sh -s
//
// and for passwords or keys at an absolute path as root. sh, awk, cp, mv, cmp, grep, ls and mktemp
// are on the host, and chpasswd for passwords (perl for some forms of hashes).
package ssh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

const (
	defaultPort    = "22"
	defaultCheck   = "true"
	callTimeout    = 40 * time.Second // of one call of the target, whatever its context allows
	dialTimeout    = 5 * time.Second
	sampleKey      = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN4CU7zTXxhu1L+xGCdFjvhKmhCXk9ug3CgMWpS4EANU"
	accountPattern = `^[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}$`
)

// Kind returns the kind "ssh". A target needs an administrator unless its configuration says self.
func Kind() target.Kind {
	strategies := []target.Strategy{target.Overlap, target.Single}
	return target.NewKind("ssh", strategies, parse, open).Following(target.LoginEndpoints).
		Consenting(consentToHash, consentToSharedKeys).
		Leaving("Other keys and passwords of the account were not touched: the files of authorized_keys at the host have "+
			"the keys, and keyturn rotation check NAME shows further ways in, such as certificate authorities.",
			target.OpenSessions)
}

type config struct {
	Address        string              `json:"address"`
	HostKeys       []string            `json:"host_keys"`
	VerifyAt       target.EndpointList `json:"verify"`
	Self           bool                `json:"self"`
	AuthorizedKeys paths               `json:"authorized_keys"`
	KeyOptions     *string             `json:"key_options"`
	SSHDConfig     string              `json:"sshd_config"`
	Check          *string             `json:"check"`
	KeyType        string              `json:"key_type"`
	target.PasswordRule

	hostKeys []ssh.PublicKey
}

// Addresses returns the address and every further one.
func (c config) Addresses() []string { return c.LoginEndpoints().Addresses() }

// LoginEndpoints returns where a credential must work: the address first.
func (c config) LoginEndpoints() target.EndpointList {
	return append(target.EndpointList{{Address: c.Address, Role: target.Writer}}, c.VerifyAt...)
}

// parse returns the configuration with complete addresses and defaults.
func parse(raw json.RawMessage) (config, error) {
	var c config
	if err := target.Decode(raw, &c); err != nil {
		return c, err
	}
	var errs []error
	var err error
	if c.Address, err = target.Address(c.Address, defaultPort); err != nil {
		errs = append(errs, err)
	}
	for i, e := range c.VerifyAt {
		if c.VerifyAt[i].Address, err = target.Address(e.Address, defaultPort); err != nil {
			errs = append(errs, err)
		}
	}
	if len(c.HostKeys) == 0 {
		errs = append(
			errs,
			errors.New(
				`host_keys is required: a list of the host's public keys, such as "ssh-ed25519 AAAA…" (see `+
					`ssh-keyscan)`,
			),
		)
	}
	for i, s := range c.HostKeys {
		key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(s))
		if err != nil || len(options) > 0 || len(rest) > 0 {
			errs = append(
				errs,
				fmt.Errorf(
					"host_keys: number %d is not one public key in the form of authorized_keys, without a host's "+
						"name before it",
					i+1,
				),
			)
			continue
		}
		c.hostKeys = append(c.hostKeys, key)
	}
	if c.AuthorizedKeys, err = c.AuthorizedKeys.complete(); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, c.checkPlaces())
	if c.Check == nil {
		check := defaultCheck
		c.Check = &check
	}
	if c.KeyType != "" && !slices.Contains(keyTypes, c.KeyType) {
		errs = append(errs, fmt.Errorf("key_type %q is none of %q", c.KeyType, keyTypes))
	}
	return c, errors.Join(append(errs, c.PasswordRule.Check())...)
}

// checkPlaces returns an error for options or a path that sshd could not read.
func (c config) checkPlaces() error {
	var errs []error
	if c.KeyOptions != nil && *c.KeyOptions != "" {
		sample := *c.KeyOptions + " " + sampleKey
		_, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(sample))
		if err != nil || len(rest) > 0 || len(options) == 0 || strings.ContainsAny(*c.KeyOptions, "\x00\r\n") ||
			optionName(options[0]) == "cert-authority" {
			errs = append(errs, errors.New(`key_options is not a list of options of authorized_keys, such as "restrict"`))
		}
	}
	if c.SSHDConfig != "" && (!strings.HasPrefix(c.SSHDConfig, "/") || strings.ContainsAny(c.SSHDConfig, "\x00\r\n")) {
		errs = append(errs, fmt.Errorf("sshd_config %q is not an absolute path", c.SSHDConfig))
	}
	return errors.Join(errs...)
}

type host struct {
	config
	admin       target.Credential
	application target.Login
	consent     []string
	dial        egress.DialFunc
	idle        atomic.Pointer[session] // the administrator's
}

func open(c config, s target.Settings) (target.Target, error) {
	switch {
	case c.Self && !s.Admin.IsZero():
		return nil, errors.New("ssh: self excludes an administrator")
	case !c.Self && (s.Admin.Account == "" || s.Admin.Secret.IsZero()):
		return nil, errors.New("ssh: an administrator is required, or self: true where accounts change their own keys")
	}
	h := &host{config: c, admin: s.Admin, application: s.Login, consent: s.Consent, dial: s.Dialer()}
	if c.Self {
		return h, nil
	}
	return managed{h}, nil
}

// Apply adds a line for a key, or sets a password.
func (h *host) Apply(ctx context.Context, c target.Change) error {
	if isKey(c.New) {
		switch {
		case c.Strategy != target.Overlap:
			return target.Denied.Errorf("keys are replaced with the strategy overlap")
		case !isKey(c.Old):
			return target.Denied.Errorf("the credential in use is a password, which no key replaces; remove key_type")
		}
		return h.changeKeys(ctx, c, c.Old, h.addKey)
	}
	switch {
	case c.Strategy != target.Single:
		return target.Denied.Errorf("an account has one password: replace it with the strategy single")
	case h.Self:
		return target.Denied.Errorf(
			"an account cannot set its own password here: name an administrator instead of self",
		)
	case !fitsCrypt(c.New.Secret):
		return target.Refused.Errorf("a password has up to 511 bytes and no zero byte or line end")
	}
	return h.setPassword(ctx, c)
}

// Retire removes the lines of a key, and tries one login with it.
func (h *host) Retire(ctx context.Context, c target.Change) error {
	if !isKey(c.Old) {
		return target.Denied.Errorf("a password is replaced, not retired: use the strategy single")
	}
	if err := h.changeKeys(ctx, c, c.New, h.removeKey); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return h.shutOut(ctx, c.Old)
}

// changeKeys changes the account's lists of keys. self logs in where an account changes its own.
func (h *host) changeKeys(
	ctx context.Context, c target.Change, self target.Credential,
	change func(ctx context.Context, s *session, account string, e edit) error,
) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	old, err := privateKey(c.Old.Secret)
	if err != nil {
		return target.Denied.Errorf("%v", err)
	}
	key, err := privateKey(c.New.Secret)
	if err != nil {
		return target.Denied.Errorf("%v", err)
	}
	s, err := h.session(ctx, c.Old.Account, self, c.Old.Secret, c.New.Secret)
	if err != nil {
		return err
	}
	defer s.close()
	return change(ctx, s, c.Old.Account, edit{
		old:  line(old.PublicKey(), comment),
		line: authorizedLine(c.New, key.PublicKey()),
	})
}

// Verify logs in at every address that decides, and runs the check.
func (h *host) Verify(ctx context.Context, c target.Credential) error {
	deciding := h.application.At(h.LoginEndpoints()).Deciding()
	check := *h.config.Check
	if check != "" && h.forced(ctx, c) {
		check = ""
	}
	err := h.verify(ctx, c, deciding, check)
	switch {
	case target.ClassOf(err) != target.Rejected:
		return err
	case isKey(c):
		return h.orShutOut(ctx, err, c)
	case len(deciding) == 1 && deciding[0].Address == h.Address:
		return h.orLockedOut(ctx, err, c)
	}
	return err
}

// VerifyCopies logs in at the addresses that learn of a change later.
func (h *host) VerifyCopies(ctx context.Context, c target.Credential) error {
	return h.verify(ctx, c, h.application.At(h.LoginEndpoints()).Replicas(), "")
}

// Lag returns how long those addresses may need.
func (h *host) Lag() time.Duration { return h.application.At(h.LoginEndpoints()).Lag() }

func (h *host) verify(
	ctx context.Context, c target.Credential, endpoints target.EndpointList, check string,
) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return target.VerifyEach(ctx, endpoints.Addresses(), func(ctx context.Context, addr string) error {
		s, err := h.dialAs(ctx, addr, c, c.Secret)
		if err != nil {
			return err
		}
		defer s.close()
		if check == "" {
			return nil
		}
		return s.check(ctx, check)
	})
}

// linesAsAdmin reads the lines of a key as the administrator; nil if there is none.
func (h *host) linesAsAdmin(ctx context.Context, c target.Credential) []keyLine {
	if h.Self || !isKey(c) || !validAccount.MatchString(c.Account) {
		return nil
	}
	key, err := privateKey(c.Secret)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := h.session(ctx, c.Account, target.Credential{})
	if err != nil {
		return nil
	}
	defer s.close()
	lines, err := h.keyLines(ctx, s, c.Account, key.PublicKey())
	if err != nil {
		return nil
	}
	return lines
}

// forced reports whether a line of the key has a command of its own, which a check would run
// instead: the work of an application must not run because a login is tried. There the login is the
// proof.
func (h *host) forced(ctx context.Context, c target.Credential) bool {
	return slices.ContainsFunc(h.linesAsAdmin(ctx, c), func(l keyLine) bool { return l.has("command") })
}

// orShutOut returns a Denied error instead of a rejection if every line of the key may shut out a
// login from here or now, which says nothing about the key.
func (h *host) orShutOut(ctx context.Context, rejected error, c target.Credential) error {
	lines := h.linesAsAdmin(ctx, c)
	if len(lines) == 0 || liveness(lines) == target.Live {
		return rejected
	}
	return target.Denied.Errorf(
		"%v; the options of its line in %s (from, expiry-time or verify-required) shut out this login, which says "+
			"nothing about the key: add this server's address to from, or correct the line",
		rejected, lines[0].file,
	)
}

// orLockedOut returns a Denied error instead of a rejection if the host has stored the password:
// then it rejects the account, which says nothing about the password.
func (h *host) orLockedOut(ctx context.Context, rejected error, c target.Credential) error {
	if h.Self {
		return rejected
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := h.session(ctx, c.Account, target.Credential{}, c.Secret)
	if err != nil {
		return rejected
	}
	defer s.close()
	if live, err := h.inspectPassword(ctx, s, c); err != nil || live != target.Live {
		return rejected
	}
	return target.Denied.Errorf(
		"%v; the host has stored this password, so it keeps the account out (pam_faillock, AllowUsers, DenyUsers, "+
			"pam_access): lift that, or wait if the lock ends automatically", rejected,
	)
}

// Inspect reads the lists of keys and the hashes of passwords. An account that is its own
// administrator would have to log in for that, so there nothing is known.
func (h *host) Inspect(ctx context.Context, credentials []target.Credential) ([]target.Liveness, error) {
	out := make([]target.Liveness, len(credentials))
	if h.Self {
		return out, nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := h.administrator(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	for i, c := range credentials {
		if !validAccount.MatchString(c.Account) {
			continue
		}
		if isKey(c) {
			out[i], err = h.inspectKey(ctx, s, c)
		} else {
			out[i], err = h.inspectPassword(ctx, s, c)
		}
		if class := target.ClassOf(err); err != nil && class != target.Denied {
			return nil, err
		}
	}
	return out, nil
}

func (h *host) inspectKey(ctx context.Context, s *session, c target.Credential) (target.Liveness, error) {
	key, err := privateKey(c.Secret)
	if err != nil {
		return target.NotKnown, nil
	}
	lines, err := h.keyLines(ctx, s, c.Account, key.PublicKey())
	return liveness(lines), err
}

// validAccount matches names that a shell does not interpret.
var validAccount = regexp.MustCompile(accountPattern)

// session returns a session of the administrator; of self where accounts change their own keys.
func (h *host) session(
	ctx context.Context, account string, self target.Credential, secrets ...sensitive.Value,
) (*session, error) {
	if !validAccount.MatchString(account) {
		return nil, target.Denied.Errorf(
			"account %q is not a name of letters, digits, dots, hyphens and underscores", account,
		)
	}
	if !h.Self {
		return h.administrator(ctx, secrets...)
	}
	s, err := h.dialAs(ctx, h.Address, self, append(secrets, self.Secret)...)
	if err != nil {
		return nil, target.AsAdmin(err)
	}
	return s, nil
}
