package ssh

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/shacrypt"
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
for tool in awk cat cmp cp dirname id mktemp mv; do
  command -v "$tool" >/dev/null 2>&1 || fail "the host has no $tool"
done
`

// Window says how long a credential may be refused.
func (h *host) Window(s target.Strategy) string {
	if s == target.Single {
		return "One change of the host's shadow file: a login with the old password is refused after it."
	}
	return "None: the old key works until its lines are removed at the end of the grace period."
}

// CheckAccount reports what a rotation of an account would meet at the host.
func (h *host) CheckAccount(ctx context.Context, r target.CheckRequest) ([]target.Finding, error) {
	f := &target.Findings{Account: r.Current.Account}
	if !validAccount.MatchString(r.Current.Account) {
		f.Impossible("account-name", "The account is not a name of letters, digits, dots, hyphens and underscores.",
			"Rename it at the host.")
		return f.List, nil
	}
	if !h.checkForm(f, r) {
		return f.List, nil
	}
	if h.Self {
		f.Note("not-read", "Without an administrator the host is not read before a rotation.")
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
		err = h.checkKeys(ctx, s, f, r.Current)
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
			fmt.Sprintf("Configure the strategy %s.", right), wrong)
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

// checkKeys reads the lists of keys, and what sshd accepts besides.
func (h *host) checkKeys(ctx context.Context, s *session, f *target.Findings, c target.Credential) error {
	key, err := privateKey(c.Secret)
	if err != nil {
		return target.Denied.Errorf("%v", err)
	}
	var lines []keyLine
	for _, path := range h.AuthorizedKeys.of(c.Account) {
		found, err := h.checkFile(ctx, s, f, path, key.PublicKey())
		if target.ClassOf(err) == target.Denied {
			return f.Denied("keys-not-changed", err, "Give the administrator root, or the sudo rule of docs/targets/ssh.md.")
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
	if err := h.checkDaemon(ctx, s, f, daemon, lines, key.PublicKey()); err != nil {
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
	ctx context.Context, s *session, f *target.Findings, path string, key ssh.PublicKey,
) ([]keyLine, error) {
	text, err := s.run(
		ctx, "read the keys of "+f.Account, h.asKeeper(path, f.Account), script(tools+locate+tryFile, "file", path,
			"account", f.Account),
	)
	if err != nil {
		return nil, err
	}
	lines, authority := linesOf(path, text, key)
	if authority {
		f.Note("key-is-authority", fmt.Sprintf(
			"A line of %s trusts the key in use as a certificate authority; a rotation leaves that line.", path,
		))
	}
	if strings.Contains(strings.ToLower(text), "cert-authority") && !authority {
		f.Note("certificate-authority", fmt.Sprintf(
			"A line of %s trusts a certificate authority; a rotation does not end what its certificates permit.", path,
		))
	}
	return lines, nil
}

// tryFile prints a list of keys that a change could replace.
const tryFile = `
if [ -e "$file" ]; then
  [ -f "$file" ] && [ -r "$file" ] || fail "$file is not a file that can be read"
  [ -w "$dir" ] || fail "$dir cannot be written"
  cat -- "$file" || fail "$file cannot be read"
fi
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
			"The lines of the key have the options %s, which the new key gets as they are.", strings.Join(names, ", "),
		))
	}
	if slices.Contains(names, "from") {
		f.Note("key-from", "The key may be used from some addresses only (from); Keyturn's must be one of them.")
	}
	if slices.Contains(names, "expiry-time") {
		f.Note("key-expires", "The key expires (expiry-time), and so will the new one at the same time.")
	}
	if expired == len(lines) {
		f.Impossible("key-expired", "Every line of the key has expired (expiry-time).",
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

// daemon reads the settings of sshd for an account; nil where the administrator may not.
func (h *host) daemon(ctx context.Context, s *session, account string) (map[string]string, error) {
	text, err := s.run(ctx, "read the settings of sshd", asRoot, script(`
sshd=$(command -v sshd) || fail "sshd is not found"
[ -z "$config" ] || set -- -f "$config"
"$sshd" -T "$@" -C "user=$account,host=localhost,addr=127.0.0.1" || fail "sshd does not print its settings"
`, "account", account, "config", h.SSHDConfig))
	switch {
	case target.ClassOf(err) == target.Denied:
		return nil, nil
	case err != nil:
		return nil, err
	}
	settings := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		settings[strings.ToLower(name)] = value
	}
	return settings, nil
}

// checkDaemon reports where sshd finds credentials besides the files of the target.
func (h *host) checkDaemon(
	ctx context.Context, s *session, f *target.Findings, settings map[string]string, lines []keyLine, key ssh.PublicKey,
) error {
	if settings == nil {
		f.Note("sshd-not-read", "The administrator cannot read the settings of sshd (sshd -T needs root), so other places "+
			"of keys are not known.")
		return nil
	}
	set := func(name string) bool { return settings[name] != "" && settings[name] != "none" }
	if set("authorizedkeyscommand") {
		f.Note("keys-by-program", "sshd also accepts the keys that a program returns (AuthorizedKeysCommand).")
	}
	if set("trustedusercakeys") {
		f.Note("trusted-authority", "sshd trusts a certificate authority (TrustedUserCAKeys); a rotation does not end what "+
			"its certificates permit.")
	}
	if set("forcecommand") && *h.config.Check != "" {
		f.Impossible("forced-command", "sshd runs one command for every login of the account (ForceCommand), which the "+
			"check of a login would run.", `Set check to "" in the target.`)
	}
	if !set("authorizedkeysfile") {
		return nil
	}
	return h.checkOtherFiles(ctx, s, f, strings.Fields(settings["authorizedkeysfile"]), lines, key)
}

// checkOtherFiles looks for the key in files that sshd reads and the target does not name, and for
// files that the target names and sshd does not read.
func (h *host) checkOtherFiles(
	ctx context.Context, s *session, f *target.Findings, files []string, lines []keyLine, key ssh.PublicKey,
) error {
	read, err := paths(files).complete()
	if err != nil {
		return nil // a path with tokens that are not followed here
	}
	named := h.AuthorizedKeys.of(f.Account)
	inHome := "/" + f.Account + "/"
	reads := func(file string) bool {
		return slices.ContainsFunc(read.of(f.Account), func(r string) bool {
			return r == file || strings.HasPrefix(r, "/") && strings.HasSuffix(r, inHome+file)
		})
	}
	if len(lines) > 0 && !slices.ContainsFunc(lines, func(l keyLine) bool { return reads(l.file) }) {
		f.Impossible("file-not-read", fmt.Sprintf(
			"The key is listed in %s, and sshd reads %s.", lines[0].file, strings.Join(read.of(f.Account), ", "),
		), "Correct authorized_keys of the target.")
	}
	for _, path := range read.of(f.Account) {
		if slices.Contains(named, path) {
			continue
		}
		text, err := s.run(ctx, "read the keys of "+f.Account, h.asKeeper(path, f.Account), readKeys(path, f.Account))
		if target.ClassOf(err) == target.Denied {
			f.Note("file-not-read", "The administrator cannot read "+path+", which sshd reads.")
			continue
		}
		if err != nil {
			return err
		}
		if found, _ := linesOf(path, text, key); len(found) > 0 {
			f.Impossible("key-elsewhere", fmt.Sprintf("The key in use is also in %s, which the target does not name.", path),
				"Add the file to authorized_keys of the target.")
		}
	}
	return nil
}

// shadow is what the shadow file says of an account.
type shadow struct {
	hash                 string
	changed, max, expire int // days; -1 for none
	local, perl          bool
}

// readShadow prints the fields of the shadow file, and which programs there are.
const readShadow = `
id -- "$account" >/dev/null 2>&1 || fail "account $account does not exist"
command -v chpasswd >/dev/null 2>&1 || fail "the host has no chpasswd"
cat /etc/shadow >/dev/null || fail "the hashes of passwords cannot be read"
line=$(awk -F: -v a="$account" '$1 == a { print $2 ":" $3 ":" $5 ":" $8 }' </etc/shadow)
perl=no
command -v perl >/dev/null 2>&1 && perl=yes
printf '%s\n%s\n' "$perl" "$line"
`

func parseShadow(text string) (shadow, bool) {
	perl, line, ok := strings.Cut(strings.TrimSuffix(text, "\n"), "\n")
	fields := strings.Split(line, ":")
	if !ok || len(fields) != 4 {
		return shadow{perl: perl == "yes"}, ok && line == ""
	}
	days := func(s string) int {
		if n, err := strconv.Atoi(s); err == nil {
			return n
		}
		return -1
	}
	return shadow{
		hash:    fields[0],
		changed: days(fields[1]),
		max:     days(fields[2]),
		expire:  days(fields[3]),
		local:   true,
		perl:    perl == "yes",
	}, true
}

// checkPassword reads the stored hash and the dates of an account.
func (h *host) checkPassword(ctx context.Context, s *session, f *target.Findings, c target.Credential) error {
	text, err := s.run(ctx, "read the hash of "+c.Account, asRoot, script(readShadow, "account", c.Account))
	if err != nil {
		return f.Denied("password-not-changed", err, "Make the administrator root, or permit it sudo of sh -s as root.")
	}
	found, ok := parseShadow(text)
	if !ok {
		return target.Unknown.Errorf("%s: the host's answer about %s cannot be read", s.addr, c.Account)
	}
	s.hide(found.hash)
	h.judgePassword(f, found, time.Now())
	return nil
}

// judgePassword reports what the shadow file says of an account.
func (h *host) judgePassword(f *target.Findings, found shadow, now time.Time) {
	switch {
	case !found.local:
		f.Impossible("not-local", "The account has no line in /etc/shadow: another system keeps its password.",
			"Rotate it there.")
		return
	case found.hash == "":
		f.Impossible("no-password", "The account has no password to replace.", "Set one with passwd.")
		return
	case isLocked(found.hash):
		f.Impossible("password-locked", "The password is locked.", "Unlock it: usermod -U "+f.Account)
		return
	}
	judgeHash(f, found)
	if strings.HasPrefix(found.hash, "$2") && h.Length > 72 {
		f.Impossible("password-length", "The password is stored by bcrypt, which takes 72 bytes.",
			"Set password_length of the target to at most 72.")
	}
	today := int(now.Unix() / (24 * 60 * 60))
	const never = 99999
	switch {
	case found.changed == 0:
		f.Impossible("must-change", "The password must be changed at the next login.",
			"Lift that: chage -d today "+f.Account)
	case found.max >= 0 && found.max < never && found.changed >= 0 && found.changed+found.max < today:
		f.Impossible("password-expired", "The password has expired.", "Renew it: chage -d today "+f.Account)
	case found.max >= 0 && found.max < never:
		f.Note("password-expires", fmt.Sprintf("A password expires %d days after its change: rotate it sooner.", found.max))
	}
	switch {
	case found.expire >= 0 && found.expire <= today:
		f.Impossible("account-expired", "The account has expired.", "Renew it: chage -E -1 "+f.Account)
	case found.expire > today:
		f.Note("account-expires", fmt.Sprintf("The account expires in %d days.", found.expire-today))
	}
}

// judgeHash reports a form of hash that cannot be kept.
func judgeHash(f *target.Findings, found shadow) {
	switch made := makerOf(found.hash); {
	case made == madeByNoOne:
		f.NeedsConsent(consentToHash, fmt.Sprintf(
			"The password is stored in the obsolete form %s; a rotation stores a hash of the form $6$ (%d rounds).",
			formOfHash(found.hash), shacrypt.DefaultRounds,
		), "Set the password once with passwd, which stores it in the form of the host.")
	case made == madeByHost && !found.perl:
		f.NeedsConsent(consentToHash, fmt.Sprintf(
			"The password is stored in the form %s, and the host has no perl, by which its crypt(3) is called; a "+
				"rotation stores a hash of the form $6$.", formOfHash(found.hash),
		), "Install perl at the host.")
	}
}

var (
	_ target.Checker  = (*host)(nil)
	_ target.Windower = (*host)(nil)
	_ target.Copied   = (*host)(nil)
	_ target.Tester   = managed{}
)
