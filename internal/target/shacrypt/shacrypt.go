// Package shacrypt hashes passwords by the scheme of Ulrich Drepper (SHA-crypt, revision 0.6 of
// 2016): in the forms $5$ and $6$ of crypt(3), which every current Unix verifies (the shadow file
// of a host, {CRYPT} of an LDAP server), and as the digests with SHA-256 that MySQL stores.
package shacrypt

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"errors"
	"hash"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/sensitive"
)

// DefaultRounds is the scheme's number of rounds for a hash that names none.
const DefaultRounds = 5000

// MaxPassword is the length of the longest password that crypt(3) of libxcrypt takes, in bytes.
const MaxPassword = 511

// Length256 is the length of what [SHA256] returns.
const Length256 = 43

const (
	prefix256    = "$5$"
	prefix512    = "$6$"
	roundsPrefix = "rounds="
	minRounds    = 1000
	maxRounds    = 999_999_999
	// verifyRounds bounds the work of [Verify] for a hash of unknown origin: about a second.
	verifyRounds = 2_000_000
	maxSalt      = 16
	length512    = 86
	alphabet     = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// ErrForm means that a text is not a $5$ or $6$ hash, or that it would take too long to compute.
var ErrForm = errors.New("not a $5$ or $6$ hash")

// Salt returns a character of salt for each random byte. [Hash] takes up to 16 of them.
func Salt(random []byte) string {
	var b strings.Builder
	for _, c := range random {
		b.WriteByte(alphabet[c%64])
	}
	return b.String()
}

// Hash returns $6$salt$digest with [DefaultRounds]. The salt must have up to 16 letters, digits,
// dots and slashes.
func Hash(password sensitive.Value, salt string) string {
	return form{prefix: prefix512, rounds: DefaultRounds}.hash(password.Reveal(), salt)
}

// Like returns the hash of a password with the digest and the rounds of an example, spelled as
// there. The salt is as for [Hash].
func Like(example string, password sensitive.Value, salt string) (string, error) {
	f, _, _, err := parse(example)
	if err != nil {
		return "", err
	}
	return f.hash(password.Reveal(), salt), nil
}

// form is how a hash was made.
type form struct {
	prefix string
	rounds int
	named  string // the rounds as the hash names them, with their "$"; empty for the default
}

func (f form) hash(password, salt string) string {
	return f.prefix + f.named + salt + "$" + f.sum(password, salt)
}

func (f form) sum(password, salt string) string {
	if f.prefix == prefix256 {
		return encode256(digest(sha256.New(), password, salt, f.rounds))
	}
	return encode512(digest(sha512.New(), password, salt, f.rounds))
}

// parse splits a hash.
func parse(hash string) (f form, salt, sum string, err error) {
	f = form{prefix: prefix512, rounds: DefaultRounds}
	length := length512
	rest, ok := strings.CutPrefix(hash, prefix512)
	if !ok {
		if rest, ok = strings.CutPrefix(hash, prefix256); !ok {
			return f, "", "", ErrForm
		}
		f.prefix, length = prefix256, Length256
	}
	if r, ok := strings.CutPrefix(rest, roundsPrefix); ok {
		number, after, ok := strings.Cut(r, "$")
		n, err := strconv.ParseUint(number, 10, 32)
		if !ok || err != nil {
			return f, "", "", ErrForm
		}
		f.rounds, f.named, rest = int(min(max(n, minRounds), maxRounds)), roundsPrefix+number+"$", after
	}
	salt, sum, ok = strings.Cut(rest, "$")
	if !ok || len(salt) > maxSalt || f.rounds > verifyRounds || len(sum) != length {
		return f, "", "", ErrForm
	}
	return f, salt, sum, nil
}

// SHA256 returns the digest with SHA-256 in the scheme's base 64, for a salt of any length.
func SHA256(password sensitive.Value, salt string, rounds int) string {
	return encode256(digest(sha256.New(), password.Reveal(), salt, rounds))
}

// Verify reports whether a $5$ or $6$ hash belongs to the password.
func Verify(password sensitive.Value, hash string) (bool, error) {
	f, salt, sum, err := parse(hash)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare([]byte(f.sum(password.Reveal(), salt)), []byte(sum)) == 1, nil
}

// digest follows the steps of the published scheme with the digest function h.
func digest(h hash.Hash, password, salt string, rounds int) []byte {
	p, s := []byte(password), []byte(salt)
	h.Write(p)
	h.Write(s)
	h.Write(p)
	b := h.Sum(nil)

	h.Reset()
	h.Write(p)
	h.Write(s)
	h.Write(repeat(b, len(p)))
	for n := len(p); n > 0; n >>= 1 {
		write(h, n&1 != 0, b, p)
	}
	a := h.Sum(nil)

	h.Reset()
	for range len(p) {
		h.Write(p)
	}
	pSequence := repeat(h.Sum(nil), len(p))
	h.Reset()
	for range 16 + int(a[0]) {
		h.Write(s)
	}
	sSequence := repeat(h.Sum(nil), len(s))

	for i := range rounds {
		h.Reset()
		write(h, i&1 != 0, pSequence, a)
		write(h, i%3 != 0, sSequence, nil)
		write(h, i%7 != 0, pSequence, nil)
		write(h, i&1 != 0, a, pSequence)
		a = h.Sum(a[:0])
	}
	return a
}

func write(h hash.Hash, condition bool, yes, no []byte) {
	if condition {
		h.Write(yes)
	} else {
		h.Write(no)
	}
}

// repeat returns the first n bytes of b repeated.
func repeat(b []byte, n int) []byte {
	out := make([]byte, 0, n+len(b))
	for len(out) < n {
		out = append(out, b...)
	}
	return out[:n]
}

// encode512 returns the base 64 of a digest with SHA-512: three bytes, taken from the three thirds
// of the digest in a rotating order, give four characters.
func encode512(a []byte) string {
	var out strings.Builder
	x, y, z := 0, 21, 42
	for range 21 {
		put(&out, a[x], a[y], a[z], 4)
		x, y, z = y+1, z+1, x+1
	}
	put(&out, 0, 0, a[63], 2)
	return out.String()
}

// encode256 returns the base 64 of a digest with SHA-256, whose order rotates the other way round.
func encode256(a []byte) string {
	var out strings.Builder
	x, y, z := 0, 10, 20
	for range 10 {
		put(&out, a[x], a[y], a[z], 4)
		x, y, z = z+1, x+1, y+1
	}
	put(&out, 0, a[31], a[30], 3)
	return out.String()
}

// put writes n characters for 24 bits, the lowest bits first.
func put(out *strings.Builder, b2, b1, b0 byte, n int) {
	for w := uint(b2)<<16 | uint(b1)<<8 | uint(b0); n > 0; n-- {
		out.WriteByte(alphabet[w&63])
		w >>= 6
	}
}
