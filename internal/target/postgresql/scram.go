package postgresql

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/xdg-go/stringprep"

	"github.com/keyturn/keyturn/sensitive"
)

const (
	scramPrefix       = "SCRAM-SHA-256$"
	defaultIterations = 4096
	saltLength        = 16
	// maxIterations bounds the work that a stored verifier can cause.
	maxIterations = 1_000_000
)

// passwordProfile is SASLprep (RFC 4013) as PostgreSQL applies it: U+200B, which is both in the
// table of spaces and in the table of dropped characters, counts as a space.
var passwordProfile = stringprep.Profile{
	Mappings:  append([]stringprep.Mapping{{0x200B: []rune{' '}}}, stringprep.SASLprep.Mappings...),
	Normalize: true,
	Prohibits: stringprep.SASLprep.Prohibits,
	CheckBiDi: true,
}

// prepare returns a password in the form that PostgreSQL hashes: prepared by SASLprep, or unchanged
// where SASLprep does not permit it.
func prepare(password string) string {
	if !utf8.ValidString(password) || strings.IndexFunc(password, func(r rune) bool { return r > 127 }) < 0 {
		return password
	}
	prepared, err := passwordProfile.Prepare(password)
	if err != nil || prepared == "" {
		return password
	}
	return prepared
}

// SameSecret reports whether two passwords are one after their preparation.
func (t *pg) SameSecret(a, b sensitive.Value) bool { return prepare(a.Reveal()) == prepare(b.Reveal()) }

// Verifier returns the verifier that PostgreSQL stores for a password (RFC 5802, RFC 7677), with a
// new salt and PostgreSQL's default number of iterations.
func Verifier(password sensitive.Value) (string, error) {
	return newVerifier(password, defaultIterations)
}

// newVerifier returns a verifier with a new salt. It is computed in this process so that the
// password gets into no statement, no log and no memory of the server.
func newVerifier(password sensitive.Value, iterations int) (string, error) {
	salt := make([]byte, saltLength)
	_, _ = rand.Read(salt) // never fails
	return scramVerifier(password, salt, iterations)
}

func scramVerifier(password sensitive.Value, salt []byte, iterations int) (string, error) {
	salted, err := pbkdf2.Key(sha256.New, prepare(password.Reveal()), salt, iterations, sha256.Size)
	if err != nil {
		return "", errors.New("derive SCRAM keys")
	}
	stored := sha256.Sum256(hmacSHA256(salted, "Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	keys := b64(stored[:]) + ":" + b64(hmacSHA256(salted, "Server Key"))
	return scramPrefix + strconv.Itoa(iterations) + ":" + b64(salt) + "$" + keys, nil
}

func hmacSHA256(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

// matches reports whether a stored verifier, SCRAM or MD5, belongs to the account's password. known
// is false for any other form.
func matches(stored, account string, password sensitive.Value) (match, known bool) {
	if digest, ok := strings.CutPrefix(stored, "md5"); ok && len(digest) == 2*md5.Size {
		sum := md5.Sum([]byte(password.Reveal() + account))
		return hmac.Equal([]byte(hex.EncodeToString(sum[:])), []byte(digest)), true
	}
	salt, iterations, ok := parseVerifier(stored)
	if !ok {
		return false, false
	}
	own, err := scramVerifier(password, salt, iterations)
	return err == nil && hmac.Equal([]byte(own), []byte(stored)), err == nil
}

// parseVerifier reads SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>.
func parseVerifier(stored string) (salt []byte, iterations int, ok bool) {
	rest, ok := strings.CutPrefix(stored, scramPrefix)
	parameters, keys, ok2 := strings.Cut(rest, "$")
	count, encoded, ok3 := strings.Cut(parameters, ":")
	if !ok || !ok2 || !ok3 || !strings.Contains(keys, ":") {
		return nil, 0, false
	}
	iterations, err := strconv.Atoi(count)
	if err != nil || iterations < 1 || iterations > maxIterations {
		return nil, 0, false
	}
	salt, err = base64.StdEncoding.DecodeString(encoded)
	return salt, iterations, err == nil
}
