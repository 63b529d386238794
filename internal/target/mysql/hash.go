package mysql

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/internal/target/shacrypt"
	"github.com/keyturn/keyturn/sensitive"
)

// The plugins whose hashes this package can make and compare.
const (
	native      = "mysql_native_password"
	cachingSHA2 = "caching_sha2_password"
	sha256Crypt = "sha256_password"
)

const (
	sha2SaltLength = 20
	maxSHA2Rounds  = 4095 * 1000
)

// newHash returns the hash of a password that the server stores for a plugin. Its salt has no
// character that needs quoting in SQL.
func newHash(plugin string, password sensitive.Value) (string, error) {
	switch plugin {
	case native:
		return nativeHash(password), nil
	case cachingSHA2:
		salt, digest := newDigest(password)
		return fmt.Sprintf("$A$%03X$%s%s", shacrypt.DefaultRounds/1000, salt, digest), nil
	case sha256Crypt:
		salt, digest := newDigest(password)
		return "$5$" + salt + "$" + digest, nil
	}
	return "", errors.New("passwords of plugin " + plugin + " cannot be made")
}

func newDigest(password sensitive.Value) (salt, digest string) {
	random := make([]byte, sha2SaltLength)
	_, _ = rand.Read(random) // never fails
	salt = shacrypt.Salt(random)
	return salt, shacrypt.SHA256(password, salt, shacrypt.DefaultRounds)
}

func nativeHash(password sensitive.Value) string {
	one := sha1.Sum([]byte(password.Reveal()))
	two := sha1.Sum(one[:])
	return "*" + strings.ToUpper(hex.EncodeToString(two[:]))
}

// matches reports whether a stored hash belongs to the password. known is false for a plugin or
// form that this package cannot compute. With an empty hash the server demands no password.
func matches(plugin, stored string, password sensitive.Value) (match, known bool) {
	switch plugin {
	case native:
		if stored == "" {
			return password.IsZero(), true
		}
		return !password.IsZero() && hmac.Equal([]byte(strings.ToUpper(stored)), []byte(nativeHash(password))), true
	case cachingSHA2, sha256Crypt:
		if stored == "" {
			return password.IsZero(), true
		}
		salt, digest, rounds, ok := parseSHA2(plugin, stored)
		if !ok {
			return false, false
		}
		return hmac.Equal([]byte(digest), []byte(shacrypt.SHA256(password, salt, rounds))), true
	}
	return false, false
}

// parseSHA2 reads $A$005$<20 bytes of salt><digest>, the rounds in thousands and hexadecimal, or
// $5$<salt>$<digest>.
func parseSHA2(plugin, stored string) (salt, digest string, rounds int, ok bool) {
	const digestLength = shacrypt.Length256
	if plugin == sha256Crypt {
		rest, ok := strings.CutPrefix(stored, "$5$")
		if len(rest) < digestLength+1 || rest[len(rest)-digestLength-1] != '$' {
			return "", "", 0, false
		}
		return rest[:len(rest)-digestLength-1], rest[len(rest)-digestLength:], shacrypt.DefaultRounds, ok
	}
	if len(stored) != len("$A$005$")+sha2SaltLength+digestLength ||
		!strings.HasPrefix(stored, "$A$") ||
		stored[6] != '$' {
		return "", "", 0, false
	}
	thousands, err := strconv.ParseUint(stored[3:6], 16, 16)
	if rounds = int(thousands) * 1000; err != nil || rounds < 1000 || rounds > maxSHA2Rounds {
		return "", "", 0, false
	}
	return stored[7 : 7+sha2SaltLength], stored[7+sha2SaltLength:], rounds, true
}
