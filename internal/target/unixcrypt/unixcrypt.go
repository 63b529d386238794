// Package unixcrypt reads and makes hashes of crypt(3), so that a password can be replaced by one
// that is stored in the same form: with the same function, cost and spelling. It knows SHA-crypt
// ($5$, $6$) and bcrypt ($2a$, $2b$, $2y$). Others, such as yescrypt, are left to the host.
package unixcrypt

import (
	"errors"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"github.com/keyturn/keyturn/internal/target/shacrypt"
	"github.com/keyturn/keyturn/sensitive"
)

// maxCost bounds the work for a bcrypt hash of unknown origin: about a second.
const maxCost = 14

// maxBcrypt is the number of bytes of a password that bcrypt uses.
const maxBcrypt = 72

// ErrForm means that this package cannot compute hashes of a form.
var ErrForm = errors.New("not a hash that can be computed here")

// ErrPassword means that a form takes no such password.
var ErrPassword = errors.New("bcrypt takes passwords of up to 72 bytes without a zero byte")

// Verify reports whether a hash belongs to a password.
func Verify(password sensitive.Value, hash string) (bool, error) {
	if _, ok := bcryptPrefix(hash); !ok {
		match, err := shacrypt.Verify(password, hash)
		if err != nil {
			err = ErrForm
		}
		return match, err
	}
	err := bcrypt.CompareHashAndPassword([]byte(hash), []byte(password.Reveal()))
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, bcrypt.ErrMismatchedHashAndPassword):
		return false, nil
	}
	return false, ErrForm
}

// Like returns the hash of a password in the form of an example. salt is 16 bytes; bcrypt draws its
// own.
func Like(example string, password sensitive.Value, salt []byte) (string, error) {
	prefix, ok := bcryptPrefix(example)
	if !ok {
		hash, err := shacrypt.Like(example, password, shacrypt.Salt(salt))
		if err != nil {
			err = ErrForm
		}
		return hash, err
	}
	cost, err := bcrypt.Cost([]byte(example))
	if err != nil {
		return "", ErrForm
	}
	if password.Len() > maxBcrypt || strings.Contains(password.Reveal(), "\x00") {
		return "", ErrPassword
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password.Reveal()), cost)
	if err != nil {
		return "", ErrForm
	}
	return prefix + string(hash[len(prefix):]), nil
}

// bcryptPrefix returns the prefix of a bcrypt hash whose cost is bearable. The prefixes name
// implementations that agree on every password of up to 72 bytes.
func bcryptPrefix(hash string) (string, bool) {
	for _, prefix := range []string{"$2a$", "$2b$", "$2y$"} {
		if rest, ok := strings.CutPrefix(hash, prefix); ok {
			number, _, _ := strings.Cut(rest, "$")
			cost, err := strconv.Atoi(number)
			return prefix, err == nil && cost <= maxCost
		}
	}
	return "", false
}
