package ssh

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
)

// managed is a host with an administrator, who can try what a rotation will do.
type managed struct{ *host }

// Test logs in as the administrator and looks for what the scripts of a rotation need.
func (m managed) Test(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := m.dialAs(ctx, m.Address, m.admin, m.admin.Secret)
	if err != nil {
		return target.AsAdmin(err)
	}
	defer s.close()
	_, err = s.run(ctx, "try what a rotation needs", asLogin, script(tools+`
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null 2>&1 || fail "the administrator is not root, and the host has no sudo"
  sudo -n -l >/dev/null 2>&1 || fail "sudo permits nothing to the administrator, or asks for a password"
fi
`))
	return err
}

// tools fails where a program is missing that every change of keys uses.
const tools = `
for tool in awk cat cmp cp dirname grep head id ls mktemp mv; do
  command -v "$tool" >/dev/null 2>&1 || fail "the host has no $tool"
done
`

// Window says how long a credential may be refused.
func (h *host) Window(s target.Strategy) string {
	if s == target.Single {
		return "One change of the host's shadow file: a login with the old password is refused after it." +
			h.application.At(h.LoginEndpoints()).Late()
	}
	return "None: the old key works until its lines are removed at the end of the grace period."
}

// CheckAccount reports what a rotation of an account would meet at the host.
func (h *host) CheckAccount(ctx context.Context, r target.CheckRequest) ([]target.Finding, error) {
	f := r.OfCurrent()
	if !validAccount.MatchString(r.Current.Account) {
		f.Impossible("account-name", "The account is not a name of letters, digits, dots, hyphens and underscores.",
			"Rename it at the host.")
		return f.List, nil
	}
	if !h.checkForm(f, r) {
		return f.List, nil
	}
	if h.Self {
		f.Note("not-read", "Without an administrator the host is not read before a rotation. Keyturn cannot see whether the "+
			"account's keys open other accounts, too.")
		return f.List, nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := h.session(ctx, r.Current.Account, target.Credential{}, r.Current.Secret)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if isKey(r.Current) {
		err = h.checkKeys(ctx, s, f, r)
	} else {
		err = h.checkPassword(ctx, s, f, r.Current)
	}
	return f.List, err
}

// checkForm finds a strategy, or a target, that cannot serve the form of a credential. It reports
// whether the account is worth reading.
func (h *host) checkForm(f *target.Findings, r target.CheckRequest) bool {
	form, right, wrong := "password", target.Single, target.Overlap
	if isKey(r.Current) {
		form, right, wrong = "private key", target.Overlap, target.Single
	}
	if slices.Contains(r.Strategies, wrong) {
		f.Impossible("wrong-strategy",
			fmt.Sprintf("The credential is a %s, which the strategy %s cannot replace.", form, wrong),
			fmt.Sprintf("keyturn rotation configure NAME --strategy=%s replaces it.", right), wrong)
	}
	switch {
	case isKey(r.Current):
		_, err := privateKey(r.Current.Secret)
		if err != nil {
			f.Impossible("key-form", fmt.Sprintf("The key in use cannot be read: %v.", err),
				"Store an RSA, ECDSA or Ed25519 key without a passphrase.")
		}
		return err == nil
	case h.Self:
		f.Impossible("no-administrator", "An account cannot set its own password here.",
			"Give the target an administrator instead of self.")
		return false
	case h.KeyType != "":
		f.Impossible("key-type", "The credential is a password, and the target makes keys (key_type).",
			"Remove key_type from the target, or store a key.")
		return false
	}
	return true
}

// askedKey is a key that the lists of keys are read for, and what to call it.
type askedKey struct {
	ssh.PublicKey
	called string
}

// askedOf returns the key to read the lists for: at the end of an emergency, what the leaked key
// still opens.
func askedOf(r target.CheckRequest) (askedKey, error) {
	c, called := r.Current, "key in use"
	if isKey(r.Leaked) {
		c, called = r.Leaked, "leaked key"
	}
	key, err := privateKey(c.Secret)
	if err != nil {
		return askedKey{}, target.Denied.Errorf("%v", err)
	}
	return askedKey{key.PublicKey(), called}, nil
}

// checkKeys reads the lists of keys, and what sshd accepts besides.
func (h *host) checkKeys(ctx context.Context, s *session, f *target.Findings, r target.CheckRequest) error {
	c := r.Current
	key, err := askedOf(r)
	if err != nil {
		return err
	}
	var lines []keyLine
	for _, file := range h.AuthorizedKeys.of(c.Account) {
		found, err := h.checkFile(ctx, s, f, file, key)
		if target.ClassOf(err) == target.Denied {
			return f.Denied("keys-not-changed", err, "Fix that at the host; docs/targets/ssh.md has the sudo rule.")
		}
		if err != nil {
			return err
		}
		lines = append(lines, found...)
	}
	daemon, err := h.daemon(ctx, s, c.Account)
	if err != nil {
		return err
	}
	if err := h.checkDaemon(ctx, s, f, daemon, lines, key); err != nil {
		return err
	}
	h.checkAlgorithms(f, daemon, c)
	if err := h.checkOwner(ctx, s, f, lines); err != nil {
		return err
	}
	if len(lines) == 0 {
		if h.KeyOptions == nil {
			f.Impossible("key-not-listed", fmt.Sprintf(
				"The key in use is in none of %s, so the options that a new line must have are not known.",
				strings.Join(h.AuthorizedKeys.of(c.Account), ", "),
			), "Name the file in authorized_keys of the target, or set key_options there.")
		} else {
			f.Note("key-not-listed", "The key in use is in no file; the new line gets the options in key_options.")
		}
		return nil
	}
	checkOptions(f, lines, time.Now())
	return nil
}

// checkFile reads one list of keys in the way of a change, and returns the lines of a key.
func (h *host) checkFile(
	ctx context.Context, s *session, f *target.Findings, path string, key askedKey,
) ([]keyLine, error) {
	text, err := s.run(
		ctx, "read the keys of "+f.Account, h.asKeeper(path, f.Account), script(tools+own+locate+tryFile, "file", path,
			"account", f.Account, "blob", strings.Fields(line(key.PublicKey, comment))[1]),
	)
	if err != nil {
		return nil, err
	}
	lines, authority := linesOf(path, text, key)
	if authority {
		f.Outlasting("key-is-authority", fmt.Sprintf(
			"A line of %s trusts the %s as a certificate authority; a rotation leaves that line, so certificates that "+
				"this key has signed or will sign open the account.", path, key.called,
		), "After a leak, remove that line, or replace its key.")
	}
	if strings.Contains(strings.ToLower(text), "cert-authority") && !authority {
		f.Outlasting("certificate-authority", fmt.Sprintf(
			"A line of %s trusts a certificate authority; a rotation does not end what its certificates permit.", path,
		), "After a leak, remove the line if that authority is not yours.")
	}
	return lines, nil
}

// tryFile prints a list of keys that a change could replace.
const tryFile = `
if [ -f "$file" ]; then
  readable
  if bounded grep -qF -- "$blob" "$file"; then
    [ -w "$dir" ] || fail "$dir cannot be written"
    own
    for each in "$file" "$dir"; do
      case $(lsattr -d -- "$each" 2>/dev/null | awk '{ print $1 }') in
      *[ai]*) fail "$each cannot be replaced (chattr +i or +a)" ;;
      esac
    done
  fi
  ` + printFile + `fi
`

// checkOptions reports the options of the lines of a key.
func checkOptions(f *target.Findings, lines []keyLine, now time.Time) {
	var names []string
	expired := 0
	for _, l := range lines {
		for _, o := range l.options {
			if name := optionName(o); !slices.Contains(names, name) {
				names = append(names, name)
			}
			if until, ok := expiry(o); ok && until.Before(now) {
				expired++
				break
			}
		}
	}
	if len(names) > 0 {
		f.Note("key-options", fmt.Sprintf(
			"The lines of the key have the options %s, which the new key gets as they are.",
			fault.Foreign(strings.Join(names, ", ")),
		))
	}
	if slices.Contains(names, "from") {
		f.Note("key-from", "The key may be used from some addresses only (from); Keyturn's must be one of them.")
	}
	if slices.Contains(names, "expiry-time") {
		f.Note("key-expires", "The key expires (expiry-time), and so will the new one at the same time.")
	}
	if expired == len(lines) {
		f.Closed("key-expired", "Every line of the key has expired (expiry-time).",
			"Correct or remove expiry-time of its line.")
	}
}

// expiry returns the end that an option sets. A time without a zone counts in UTC.
func expiry(option string) (time.Time, bool) {
	if optionName(option) != "expiry-time" {
		return time.Time{}, false
	}
	_, value, _ := strings.Cut(option, "=")
	value = strings.TrimSuffix(strings.Trim(value, `"`), "Z")
	for _, form := range []string{"20060102", "200601021504", "20060102150405"} {
		if t, err := time.Parse(form, value); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// consentToSharedKeys is the consent to change keys that open other accounts, too.
const consentToSharedKeys = "shared-keys"

// checkOwner reports other accounts that have the same files of keys, and an account that cannot
// run the check.
func (h *host) checkOwner(ctx context.Context, s *session, f *target.Findings, lines []keyLine) error {
	text, err := s.run(ctx, "read the account "+f.Account, asLogin, script(readAccount, "account", f.Account))
	if err != nil {
		return f.Denied("keys-not-changed", err, "Give the administrator a shell with getent and awk.")
	}
	shell, others, _ := strings.Cut(strings.TrimSuffix(text, "\n"), "\n")
	relative := func(l keyLine) bool { return !strings.HasPrefix(l.file, "/") }
	others = fault.Foreign(strings.Join(strings.Fields(others), ", "))
	if others != "" && slices.ContainsFunc(lines, relative) {
		f.ChangesOthers(consentToSharedKeys, fmt.Sprintf(
			"The account has its home directory, and so its keys, in common with %s: a rotation changes what opens them, too.",
			others,
		), "Give each account a home directory of its own.")
	}
	noShell := strings.HasSuffix(shell, "/nologin") || strings.HasSuffix(shell, "/false")
	forced := slices.ContainsFunc(lines, func(l keyLine) bool { return l.has("command") })
	if noShell && !forced && *h.config.Check != "" {
		f.Impossible("no-shell",
			fmt.Sprintf("The login shell of the account is %s, so it cannot run the check.", fault.Foreign(shell)),
			`Set check to "" in the target.`)
	}
	return nil
}

// readAccount prints the login shell of an account, and the other accounts with its home directory.
const readAccount = `
list() { getent passwd 2>/dev/null || cat /etc/passwd; }
entry() { getent passwd "$account" 2>/dev/null || awk -F: -v a="$account" '$1 == a' /etc/passwd; }
entry | awk -F: '{ print $7 }'
home=$(entry | awk -F: '{ print $6 }')
uid=$(entry | awk -F: '{ print $3 }')
list | awk -F: -v h="$home" -v u="$uid" 'h != "" && $6 == h && $3 != u { print $1 }'
`

var (
	_ target.Checker  = (*host)(nil)
	_ target.Windower = (*host)(nil)
	_ target.Copied   = (*host)(nil)
	_ target.Tester   = managed{}
)
