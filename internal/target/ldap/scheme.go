package ldap

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"hash"
	"strings"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/shacrypt"
	"github.com/keyturn/keyturn/internal/target/unixcrypt"
	"github.com/keyturn/keyturn/sensitive"
)

// How the value of a new password is stored.
const (
	schemeKeep    = "keep"
	schemeCrypt   = "crypt"
	schemeSSHA    = "ssha"
	schemeSSHA256 = "ssha256"
	schemeSSHA512 = "ssha512"
	schemeServer  = "server"
)

var schemes = []string{schemeKeep, schemeCrypt, schemeSSHA, schemeSSHA256, schemeSSHA512, schemeServer}

// digests has the schemes {NAME}base64(digest(password + salt) + salt). A scheme whose name does
// not begin with S before the digest's name has no salt.
var digests = map[string]func() hash.Hash{
	"MD5":     md5.New,
	"SMD5":    md5.New,
	"SHA":     sha1.New,
	"SSHA":    sha1.New,
	"SHA256":  sha256.New,
	"SSHA256": sha256.New,
	"SHA384":  sha512.New384,
	"SSHA384": sha512.New384,
	"SHA512":  sha512.New,
	"SSHA512": sha512.New,
}

// hashed returns the value to store for the new password of a change in a scheme of the
// configuration. The same change has the same salt, so that a repeated attempt adds no second
// value.
func hashed(scheme string, c target.Change) string {
	salt := c.Salt()
	if scheme == schemeCrypt {
		return "{CRYPT}" + shacrypt.Hash(c.New.Secret, shacrypt.Salt(salt))
	}
	name := strings.ToUpper(scheme)
	return "{" + name + "}" + base64.StdEncoding.EncodeToString(append(digest(name, c.New.Secret, salt), salt...))
}

// errForm means that a value has a scheme whose values cannot be made here.
var errForm = errors.New("values of this scheme cannot be made here")

// like returns the value to store for the new password of a change, in the scheme, with the cost
// and in the spelling of a stored value. A value in clear stays one: programs that read it, such as
// for CHAP or for SASL mechanisms, cannot use a hash.
func like(stored string, c target.Change) (string, error) {
	name, rest, _ := schemeOf(stored)
	if isClear(stored) {
		return clearAs(stored[:len(stored)-len(rest)], c.New.Secret)
	}
	prefix := stored[:len(name)+2]
	switch {
	case name == "CRYPT" || name == "CRYPT-SHA512":
		hash, err := unixcrypt.Like(rest, c.New.Secret, c.Salt())
		if errors.Is(err, unixcrypt.ErrForm) {
			err = errForm
		}
		return prefix + hash, err
	case digests[name] != nil:
		sum, err := base64.StdEncoding.DecodeString(rest)
		size := digests[name]().Size()
		if err != nil || len(sum) < size || len(sum) > size+maxSalt {
			return "", errForm
		}
		salt := saltOf(c, len(sum)-size)
		return prefix + base64.StdEncoding.EncodeToString(append(digest(name, c.New.Secret, salt), salt...)), nil
	}
	if d, ok := parseDerived(name, rest); ok && len(d.salt) <= maxSalt {
		d.salt = saltOf(c, len(d.salt))
		d.key = d.derive(c.New.Secret)
		return prefix + d.String(), nil
	}
	return "", errForm
}

// isClear reports whether a stored value is the password itself. 389 Directory Server writes a
// scheme before one. OpenLDAP accepts no login with {CLEARTEXT}.
func isClear(stored string) bool {
	name, _, scheme := schemeOf(stored)
	return !scheme || name == clearScheme
}

const clearScheme = "CLEAR"

// errClear means that a password cannot be stored in clear.
var errClear = errors.New("a password in clear must not look like a hash ({…}) or contain a zero byte")

// clearAs returns a password in clear, with the scheme of a stored one.
func clearAs(prefix string, password sensitive.Value) (string, error) {
	text := password.Reveal()
	if _, _, scheme := schemeOf(text); scheme && prefix == "" || strings.Contains(text, "\x00") {
		return "", errClear
	}
	return prefix + text, nil
}

// maxSalt is the length of the longest salt that is made here.
const maxSalt = 64

// saltOf returns n bytes of salt, the same in every attempt at the change.
func saltOf(c target.Change, n int) []byte {
	sum := sha512.Sum512(c.Salt())
	return sum[:n]
}

func digest(name string, password sensitive.Value, salt []byte) []byte {
	h := digests[name]()
	h.Write([]byte(password.Reveal()))
	h.Write(salt)
	return h.Sum(nil)
}

// matches reports whether a stored value belongs to a password. known is false for a scheme that
// this package cannot compute.
func matches(value string, password sensitive.Value) (match, known bool) {
	name, rest, ok := schemeOf(value)
	switch {
	case !ok:
		return subtle.ConstantTimeCompare([]byte(value), []byte(password.Reveal())) == 1, true
	case name == clearScheme:
		return subtle.ConstantTimeCompare([]byte(rest), []byte(password.Reveal())) == 1, true
	case name == "CRYPT" || name == "CRYPT-SHA512":
		match, err := unixcrypt.Verify(password, rest)
		return match, err == nil
	case digests[name] == nil:
		d, ok := parseDerived(name, rest)
		return ok && subtle.ConstantTimeCompare(d.derive(password), d.key) == 1, ok
	}
	stored, err := base64.StdEncoding.DecodeString(rest)
	size := digests[name]().Size()
	if err != nil || len(stored) < size || len(stored) > size && !strings.HasPrefix(name, "SS") && name != "SMD5" {
		return false, false
	}
	return subtle.ConstantTimeCompare(digest(name, password, stored[size:]), stored[:size]) == 1, true
}

// schemeOf splits {NAME}rest. ok is false for a value without a scheme, which is a password in
// clear, and the rest.
func schemeOf(value string) (name, rest string, ok bool) {
	name, rest, ok = strings.Cut(strings.TrimPrefix(value, "{"), "}")
	if !ok || !strings.HasPrefix(value, "{") {
		return "", value, false
	}
	return strings.ToUpper(name), rest, true
}

// accepts reports whether the account accepts a password, and whether every value could be
// compared.
func (e entry) accepts(password sensitive.Value) (live, known bool) {
	matching, unknown := e.matching(password)
	return len(matching) > 0, len(unknown) == 0
}

// matching returns the values of a password, and the schemes of values that could not be compared.
func (e entry) matching(password sensitive.Value) (values, unknown []string) {
	for _, v := range e.passwords {
		match, known := matches(v, password)
		if match {
			values = append(values, v)
		}
		if !known {
			name, _, _ := schemeOf(v)
			unknown = append(unknown, "{"+name+"}")
		}
	}
	return values, unknown
}
