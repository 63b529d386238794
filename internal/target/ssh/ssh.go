// Package ssh changes how accounts of Unix hosts log in over SSH: their keys, or their passwords.
//
// # How
//
// A credential whose secret is a private key is a line of the account's authorized_keys; its
// strategy is Overlap. A change adds the new line and later removes the old one, which is found by
// its key and not by its comment or place; every other line, the mode and the owner stay. A new
// file is written beside the old one and replaces it atomically. If the file is edited meanwhile,
// it is read again, so no edit is lost.
//
// Any other secret is a password; its strategy is Single. The host is given a SHA-512 hash for
// chpasswd, never the password.
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
//	authorized_keys   where the keys of an account are. A path that does not begin with / is below
//	                  its home directory, and is changed as the account; an absolute one is changed
//	                  as root (with self, as the account), and only root should be able to write its
//	                  directory. "%u" stands for the account. Default ".ssh/authorized_keys".
//	check       a command that a login has to be able to run with success; "" for accounts that may
//	            run none (SFTP, tunnels), where the login itself is the proof. Default "true".
//	key_type    of new keys: "ed25519", "rsa-2048", "rsa-3072" or "rsa-4096". Default: as the key in
//	            use, else ed25519.
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
// and for passwords or keys at an absolute path as root. sh, awk, cp, mv, cmp and mktemp are on the
// host, and chpasswd for passwords.
package ssh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/shacrypt"
	"github.com/keyturn/keyturn/sensitive"
)

const (
	defaultPort    = "22"
	defaultKeys    = ".ssh/authorized_keys"
	defaultCheck   = "true"
	callTimeout    = 40 * time.Second // of one call of the target, whatever its context allows
	dialTimeout    = 5 * time.Second
	maxCrypt       = 511 // bytes that crypt(3) of libxcrypt takes
	accountPattern = `^[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}$`
)

// Kind returns the kind "ssh". A target needs an administrator unless its configuration says self.
func Kind() target.Kind {
	strategies := []target.Strategy{target.Overlap, target.Single}
	return target.NewKind("ssh", strategies, parse, open)
}

type config struct {
	Address        string   `json:"address"`
	HostKeys       []string `json:"host_keys"`
	Verify         []string `json:"verify"`
	Self           bool     `json:"self"`
	AuthorizedKeys string   `json:"authorized_keys"`
	Check          *string  `json:"check"`
	KeyType        string   `json:"key_type"`
	target.PasswordRule

	hostKeys []ssh.PublicKey
}

// Addresses returns the address and every further one.
func (c config) Addresses() []string { return slices.Concat([]string{c.Address}, c.Verify) }

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
	for i, s := range c.Verify {
		if c.Verify[i], err = target.Address(s, defaultPort); err != nil {
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
	if c.AuthorizedKeys == "" {
		c.AuthorizedKeys = defaultKeys
	}
	if strings.ContainsAny(c.AuthorizedKeys, "\x00\r\n") ||
		strings.Contains(strings.ReplaceAll(c.AuthorizedKeys, "%u", ""), "%") {
		errs = append(
			errs,
			fmt.Errorf("authorized_keys %q is not a path; of sshd's tokens it may have %%u alone", c.AuthorizedKeys),
		)
	}
	if c.Check == nil {
		check := defaultCheck
		c.Check = &check
	}
	if c.KeyType != "" && !slices.Contains(keyTypes, c.KeyType) {
		errs = append(errs, fmt.Errorf("key_type %q is none of %q", c.KeyType, keyTypes))
	}
	return c, errors.Join(append(errs, c.PasswordRule.Check())...)
}

type host struct {
	config
	admin target.Credential
	dial  egress.DialFunc
}

func open(c config, s target.Settings) (target.Target, error) {
	switch {
	case c.Self && !s.Admin.IsZero():
		return nil, errors.New("ssh: self excludes an administrator")
	case !c.Self && (s.Admin.Account == "" || s.Admin.Secret.IsZero()):
		return nil, errors.New("ssh: an administrator is required, or self: true where accounts change their own keys")
	}
	return &host{config: c, admin: s.Admin, dial: s.Dialer()}, nil
}

// Close has nothing to release: each call closes what it opened.
func (h *host) Close() error { return nil }

// Apply adds the line of a key, or sets a password.
func (h *host) Apply(ctx context.Context, c target.Change) error {
	if isKey(c.New) {
		if c.Strategy != target.Overlap {
			return target.Denied.Errorf("keys are replaced with the strategy overlap")
		}
		return h.edit(ctx, "add", c.New, c.Old)
	}
	switch {
	case c.Strategy != target.Single:
		return target.Denied.Errorf("an account has one password: replace it with the strategy single")
	case h.Self:
		return target.Denied.Errorf(
			"an account cannot set its own password here: name an administrator instead of self",
		)
	case c.New.Secret.Len() > maxCrypt || strings.ContainsAny(c.New.Secret.Reveal(), "\x00\r\n"):
		return target.Refused.Errorf("a password has up to 511 bytes and no zero byte or line end")
	}
	return h.setPassword(ctx, c)
}

// Retire removes the line of a key.
func (h *host) Retire(ctx context.Context, c target.Change) error {
	if !isKey(c.Old) {
		return target.Denied.Errorf("a password is replaced, not retired: use the strategy single")
	}
	return h.edit(ctx, "remove", c.Old, c.New)
}

// edit changes the account's list of keys. as is who logs in where an account changes its own.
func (h *host) edit(ctx context.Context, action string, c, as target.Credential) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	key, err := privateKey(c.Secret)
	if err != nil {
		return target.Denied.Errorf("%v", err)
	}
	who := h.admin
	if h.Self {
		who = as
	}
	s, err := h.session(ctx, c.Account, who, c.Secret)
	if err != nil {
		return err
	}
	defer s.close()
	_, err = s.run(
		ctx, action+" a key of "+c.Account, h.keysLauncher(c.Account),
		editKeys(action, h.path(c.Account), c.Account, authorizedLine(c, key.PublicKey())),
	)
	return err
}

func (h *host) setPassword(ctx context.Context, c target.Change) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := h.session(ctx, c.New.Account, h.admin, c.New.Secret)
	if err != nil {
		return err
	}
	defer s.close()
	hash := shacrypt.Hash(c.New.Secret, shacrypt.Salt(c.Salt()))
	s.hide(hash)
	_, err = s.run(ctx, "set the password of "+c.New.Account, rootLauncher, setPassword(c.New.Account, hash))
	return err
}

// Verify logs in at every address and runs the check.
func (h *host) Verify(ctx context.Context, c target.Credential) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return target.VerifyEach(ctx, h.Addresses(), func(ctx context.Context, addr string) error {
		s, err := h.login(ctx, addr, c, c.Secret)
		if err != nil {
			return err
		}
		defer s.close()
		if *h.config.Check == "" {
			return nil
		}
		return s.check(ctx, *h.config.Check)
	})
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
	s, err := h.login(ctx, h.Address, h.admin, h.admin.Secret)
	if err != nil {
		return nil, target.AsAdmin(err)
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
	text, err := s.run(
		ctx, "read the keys of "+c.Account, h.keysLauncher(c.Account), readKeys(h.path(c.Account), c.Account),
	)
	if err != nil {
		return target.NotKnown, err
	}
	return listed(text, key.PublicKey()), nil
}

func (h *host) inspectPassword(ctx context.Context, s *session, c target.Credential) (target.Liveness, error) {
	text, err := s.run(ctx, "read the hash of "+c.Account, rootLauncher, readHash(c.Account))
	if err != nil {
		return target.NotKnown, err
	}
	hash := strings.TrimSpace(text)
	if strings.HasPrefix(hash, "!") || strings.HasPrefix(hash, "*") {
		return target.Dead, nil
	}
	ok, err := shacrypt.Verify(c.Secret, hash)
	switch {
	case err != nil:
		return target.NotKnown, nil
	case ok:
		return target.Live, nil
	}
	return target.Dead, nil
}

// validAccount matches names that a shell does not interpret.
var validAccount = regexp.MustCompile(accountPattern)

// session logs in as the account that changes another one.
func (h *host) session(
	ctx context.Context, account string, as target.Credential, secrets ...sensitive.Value,
) (*session, error) {
	if !validAccount.MatchString(account) {
		return nil, target.Denied.Errorf(
			"account %q is not a name of letters, digits, dots, hyphens and underscores", account,
		)
	}
	s, err := h.login(ctx, h.Address, as, append(secrets, as.Secret)...)
	if err != nil {
		return nil, target.AsAdmin(err)
	}
	return s, nil
}

func (h *host) path(account string) string {
	return strings.ReplaceAll(h.AuthorizedKeys, "%u", account)
}
