package ssh

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/shacrypt"
	"github.com/keyturn/keyturn/internal/target/unixcrypt"
	"github.com/keyturn/keyturn/sensitive"
)

// maker says where hashes of a form are made.
type maker uint8

const (
	madeHere    maker = iota // by this process
	madeByHost               // by crypt(3) of the host
	madeByNoOne              // not at all: the form is obsolete
)

// makerOf returns where a hash in the form of a stored one is made.
func makerOf(stored string) maker {
	if _, err := unixcrypt.Verify(sensitive.Value{}, stored); err == nil {
		return madeHere
	}
	for _, prefix := range []string{"$y$", "$gy$", "$7$"} {
		if strings.HasPrefix(stored, prefix) {
			return madeByHost
		}
	}
	return madeByNoOne
}

// formOfHash names the form of a stored hash without its salt and digest.
func formOfHash(stored string) string {
	parts := strings.Split(stored, "$")
	if len(parts) < 3 {
		return "DES"
	}
	return "$" + parts[1] + "$"
}

// setting returns the setting of crypt(3) for another hash with the function and the cost of a
// stored one.
func setting(stored string, salt []byte) string {
	parts := strings.Split(stored, "$") // "", function, cost, salt, digest
	if parts[1] == "7" && len(parts) == 4 {
		const cost = 11 // characters before the salt
		if len(parts[2]) < cost {
			return ""
		}
		return "$7$" + parts[2][:cost] + cryptSalt(salt)
	}
	if len(parts) != 5 {
		return ""
	}
	return "$" + parts[1] + "$" + parts[2] + "$" + cryptSalt(salt)
}

// cryptSalt returns the spelling of random bytes in the base 64 of crypt(3), the lowest bits first.
func cryptSalt(random []byte) string {
	const alphabet = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	var b strings.Builder
	bits, n := uint(0), 0
	for _, c := range random {
		bits |= uint(c) << n
		for n += 8; n >= 6; n -= 6 {
			b.WriteByte(alphabet[bits&63])
			bits >>= 6
		}
	}
	if n > 0 {
		b.WriteByte(alphabet[bits&63])
	}
	return b.String()
}

func (h *host) setPassword(ctx context.Context, c target.Change) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := h.session(ctx, c.New.Account, target.Credential{}, c.New.Secret)
	if err != nil {
		return err
	}
	defer s.close()
	stored, err := s.hash(ctx, c.New.Account)
	if err != nil {
		return err
	}
	switch {
	case stored == "":
		return target.Denied.Errorf("%s: account %s has no password to replace", s.addr, c.New.Account)
	case isLocked(stored):
		// A hash in its place would unlock the account.
		return target.Denied.Errorf(
			"%s: the password of account %s is locked; unlock it first", s.addr, c.New.Account,
		)
	}
	want, err := h.hashLike(ctx, s, stored, c)
	if err != nil || want == stored {
		return err
	}
	s.hide(want)
	_, err = s.run(ctx, "set the password of "+c.New.Account, asRoot, setHash(c.New.Account, stored, want))
	return err
}

// isLocked reports whether a stored text is no hash but says that no password is right.
func isLocked(stored string) bool {
	return strings.HasPrefix(stored, "!") || strings.HasPrefix(stored, "*")
}

// hash reads the stored hash of an account, and keeps it out of errors.
func (s *session) hash(ctx context.Context, account string) (string, error) {
	text, err := s.run(ctx, "read the hash of "+account, asRoot, readHash(account))
	if err != nil {
		return "", err
	}
	stored := strings.TrimSpace(text)
	s.hide(stored)
	return stored, nil
}

// consentToHash is the consent to a hash of another form.
const consentToHash = "hash-changes"

// hashLike returns a hash of the new password in the form of the stored one: the stored one itself
// if it is of that password already. A form that cannot be kept becomes $6$ if the operator
// consents.
func (h *host) hashLike(ctx context.Context, s *session, stored string, c target.Change) (string, error) {
	made := makerOf(stored)
	if made == madeHere {
		if ok, err := unixcrypt.Verify(c.New.Secret, stored); err == nil && ok {
			return stored, nil
		}
		want, err := unixcrypt.Like(stored, c.New.Secret, c.Salt())
		if errors.Is(err, unixcrypt.ErrPassword) {
			return "", target.Refused.Errorf("%v", err)
		}
		return want, err
	}
	var err error = target.Denied.Errorf(
		"%s: the password of account %s is stored in the obsolete form %s", s.addr, c.New.Account, formOfHash(stored),
	)
	if made == madeByHost {
		var want string
		want, _, err = s.crypt(ctx, c.New, stored, setting(stored, c.Salt()))
		if err == nil || target.ClassOf(err) != target.Denied {
			return want, err
		}
	}
	if !slices.Contains(h.consent, consentToHash) {
		return "", target.WithAdvice(err, "the consent "+consentToHash+" lets a rotation store a hash of the form $6$")
	}
	return shacrypt.Hash(c.New.Secret, shacrypt.Salt(c.Salt())), nil
}

// crypt asks crypt(3) of the host whether a stored hash is of a password. If it is not, crypt
// returns the hash that setting describes.
func (s *session) crypt(
	ctx context.Context, c target.Credential, stored, setting string,
) (hash string, match bool, err error) {
	text, err := s.run(ctx, "hash a password of "+c.Account, asRoot, cryptHash(c.Secret.Reveal(), stored, setting))
	if err != nil {
		return "", false, err
	}
	hash = strings.TrimSpace(text)
	s.hide(hash)
	if hash != stored && setting != "" && !strings.HasPrefix(hash, setting) {
		return "", false, target.Denied.Errorf(
			"%s: crypt(3) of the host makes no hash of the form %s", s.addr, formOfHash(stored),
		)
	}
	return hash, hash == stored, nil
}

func (h *host) inspectPassword(ctx context.Context, s *session, c target.Credential) (target.Liveness, error) {
	stored, err := s.hash(ctx, c.Account)
	if err != nil {
		return target.NotKnown, err
	}
	if isLocked(stored) {
		return target.Dead, nil
	}
	match, err := unixcrypt.Verify(c.Secret, stored)
	if err != nil {
		if makerOf(stored) != madeByHost || !fitsCrypt(c.Secret) {
			return target.NotKnown, nil
		}
		if _, match, err = s.crypt(ctx, c, stored, ""); err != nil {
			return target.NotKnown, err
		}
	}
	if match {
		return target.Live, nil
	}
	return target.Dead, nil
}

// fitsCrypt reports whether crypt(3) takes a password, and a script can hand it over.
func fitsCrypt(password sensitive.Value) bool {
	return password.Len() <= shacrypt.MaxPassword && !strings.ContainsAny(password.Reveal(), "\x00\r\n")
}

// stored is a function of the shell that prints the stored hash of an account.
const stored = `
id -- "$account" >/dev/null 2>&1 || fail "account $account does not exist"
stored() {
  { getent shadow "$account" 2>/dev/null || cat /etc/shadow; } | awk -F: -v a="$account" '$1 == a { print $2 }'
}
hash=$(stored) || fail "the hashes of passwords cannot be read"
`

// setHash replaces the hash of a password by another one, unless it has changed meanwhile.
func setHash(account, have, want string) string {
	return script(stored+`
[ "$hash" = "$have" ] || fail "another program has changed the password of account $account meanwhile"
chpasswd -e <<HASH || fail "chpasswd does not set it"
$account:$want
$account:$want
HASH
[ "$(stored)" = "$want" ] || fail "chpasswd has set another hash"
`, "account", account, "have", have, "want", want)
}

// readHash prints the hash of a password.
func readHash(account string) string {
	return script(stored+"printf '%s\\n' \"$hash\"\n", "account", account)
}

// cryptHash prints what crypt(3) makes of a password: with a stored hash as its setting, if that
// gives the stored hash again; otherwise with another setting.
func cryptHash(password, stored, setting string) string {
	return script(`
command -v perl >/dev/null 2>&1 || fail "the host has no perl, by which its crypt(3) is called; install it"
perl -e '
  chomp(my ($p, $h, $s) = <STDIN>);
  my $c = crypt($p, $h) // "";
  print $c eq $h ? $h : crypt($p, $s) // "", "\n"' <<DATA
$password
$stored
$setting
DATA
`, "password", password, "stored", stored, "setting", setting)
}
