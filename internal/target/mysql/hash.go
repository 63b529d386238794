package mysql

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"filippo.io/edwards25519"

	"github.com/keyturn/keyturn/internal/target/shacrypt"
	"github.com/keyturn/keyturn/sensitive"
)

// The plugins whose hashes this package can make and compare.
const (
	native      = "mysql_native_password"
	cachingSHA2 = "caching_sha2_password"
	sha256Crypt = "sha256_password"
	ed25519     = "ed25519"
)

const (
	sha2SaltLength = 20
	maxSHA2Rounds  = 4095 * 1000
	ed25519Length  = 43
)

// newHash returns the hash of a password that the server stores for the plugin of a method, with as
// many rounds as the method's own hash. Its salt has no character that needs quoting in SQL.
func newHash(like method, password sensitive.Value) (string, error) {
	switch like.plugin {
	case native:
		return nativeHash(password), nil
	case ed25519:
		return ed25519Hash(password), nil
	case cachingSHA2:
		rounds := shacrypt.DefaultRounds
		if _, _, stored, ok := parseSHA2(cachingSHA2, like.hash); ok {
			rounds = stored
		}
		salt := newSalt()
		return fmt.Sprintf("$A$%03X$%s%s", rounds/1000, salt, shacrypt.SHA256(password, salt, rounds)), nil
	case sha256Crypt:
		salt := newSalt()
		return "$5$" + salt + "$" + shacrypt.SHA256(password, salt, shacrypt.DefaultRounds), nil
	}
	return "", errors.New("passwords of plugin " + like.plugin + " cannot be made")
}

func newSalt() string {
	random := make([]byte, sha2SaltLength)
	_, _ = rand.Read(random) // never fails
	return shacrypt.Salt(random)
}

// ed25519Hash returns the public key that belongs to a password, as MariaDB stores it: the key of
// Ed25519, whose seed is the password of any length.
func ed25519Hash(password sensitive.Value) string {
	expanded := sha512.Sum512([]byte(password.Reveal()))
	scalar, err := edwards25519.NewScalar().SetBytesWithClamping(expanded[:32])
	if err != nil {
		panic(err) // only for another length than 32
	}
	key := new(edwards25519.Point).ScalarBaseMult(scalar).Bytes()
	return base64.RawStdEncoding.EncodeToString(key)
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
	case ed25519:
		if _, err := base64.RawStdEncoding.DecodeString(stored); err != nil || len(stored) != ed25519Length {
			return false, false
		}
		return !password.IsZero() && hmac.Equal([]byte(stored), []byte(ed25519Hash(password))), true
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
