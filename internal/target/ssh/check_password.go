package ssh

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/shacrypt"
)

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
		f.Drifted("no-password", "The account has no password to replace.", "Set one with passwd.")
		return
	case isLocked(found.hash):
		f.Closed("password-locked", "The password is locked.", "Unlock it: usermod -U "+f.Account)
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
		f.Closed("password-expired", "The password has expired.", "Renew it: chage -d today "+f.Account)
	case found.max >= 0 && found.max < never:
		f.Note("password-expires", fmt.Sprintf("A password expires %d days after its change: rotate it sooner.", found.max))
	}
	switch {
	case found.expire >= 0 && found.expire <= today:
		f.Closed("account-expired", "The account has expired.", "Renew it: chage -E -1 "+f.Account)
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
