// Package sha512crypt hashes passwords in the form $6$ of crypt(3), which every current Unix
// verifies: the shadow file of a host, and {CRYPT} of an LDAP server. It is the scheme published by
// Ulrich Drepper (SHA-crypt, revision 0.6 of 2016).
package sha512crypt

import (
	"crypto/sha512"
	"crypto/subtle"
	"errors"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/sensitive"
)

const (
	prefix        = "$6$"
	roundsPrefix  = "rounds="
	defaultRounds = 5000
	minRounds     = 1000
	maxRounds     = 999_999_999
	// verifyRounds bounds what Verify computes for a hash that comes from elsewhere: about a
	// second.
	verifyRounds = 2_000_000
	maxSalt      = 16
	alphabet     = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// ErrForm means that a text is not a hash of this scheme, or one that would take too long to
// compute.
var ErrForm = errors.New("not a $6$ hash")

// Salt makes 16 characters of salt from 16 random bytes.
func Salt(random [16]byte) string {
	var b strings.Builder
	for _, c := range random {
		b.WriteByte(alphabet[c%64])
	}
	return b.String()
}

// Hash returns $6$salt$hash with the scheme's 5000 rounds. The salt has up to 16 letters, digits,
// dots and slashes.
func Hash(password sensitive.Value, salt string) string {
	return prefix + salt + "$" + encode(digest(password.Reveal(), salt, defaultRounds))
}

// Verify reports whether a hash is that of the password.
func Verify(password sensitive.Value, hash string) (bool, error) {
	rest, ok := strings.CutPrefix(hash, prefix)
	if !ok {
		return false, ErrForm
	}
	rounds := defaultRounds
	if r, ok := strings.CutPrefix(rest, roundsPrefix); ok {
		number, after, ok := strings.Cut(r, "$")
		n, err := strconv.ParseUint(number, 10, 32)
		if !ok || err != nil {
			return false, ErrForm
		}
		rounds, rest = int(min(max(n, minRounds), maxRounds)), after
	}
	salt, sum, ok := strings.Cut(rest, "$")
	if !ok || len(salt) > maxSalt || rounds > verifyRounds || len(sum) != 86 {
		return false, ErrForm
	}
	return subtle.ConstantTimeCompare([]byte(encode(digest(password.Reveal(), salt, rounds))), []byte(sum)) == 1, nil
}

// digest follows the steps of the published scheme.
func digest(password, salt string, rounds int) [sha512.Size]byte {
	p, s := []byte(password), []byte(salt)
	b := sha512.Sum512([]byte(password + salt + password))

	h := sha512.New()
	h.Write(p)
	h.Write(s)
	h.Write(repeat(b[:], len(p)))
	for n := len(p); n > 0; n >>= 1 {
		if n&1 != 0 {
			h.Write(b[:])
		} else {
			h.Write(p)
		}
	}
	a := [sha512.Size]byte(h.Sum(nil))

	h.Reset()
	for range len(p) {
		h.Write(p)
	}
	pseq := repeat(h.Sum(nil), len(p))
	h.Reset()
	for range 16 + int(a[0]) {
		h.Write(s)
	}
	sseq := repeat(h.Sum(nil), len(s))

	for i := range rounds {
		h.Reset()
		if i&1 != 0 {
			h.Write(pseq)
		} else {
			h.Write(a[:])
		}
		if i%3 != 0 {
			h.Write(sseq)
		}
		if i%7 != 0 {
			h.Write(pseq)
		}
		if i&1 != 0 {
			h.Write(a[:])
		} else {
			h.Write(pseq)
		}
		h.Sum(a[:0])
	}
	return a
}

// repeat returns n bytes of b after b.
func repeat(b []byte, n int) []byte {
	out := make([]byte, 0, n+len(b))
	for len(out) < n {
		out = append(out, b...)
	}
	return out[:n]
}

// encode is the scheme's own base 64: three bytes, taken from three thirds of the hash in a
// rotating order, to four characters.
func encode(a [sha512.Size]byte) string {
	var out strings.Builder
	put := func(b2, b1, b0 byte, n int) {
		for w := uint(b2)<<16 | uint(b1)<<8 | uint(b0); n > 0; n-- {
			out.WriteByte(alphabet[w&63])
			w >>= 6
		}
	}
	x, y, z := 0, 21, 42
	for range 21 {
		put(a[x], a[y], a[z], 4)
		x, y, z = y+1, z+1, x+1
	}
	put(0, 0, a[63], 2)
	return out.String()
}
