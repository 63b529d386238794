package mysql

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/sensitive"
)

// The plugins whose hashes are made and compared here.
const (
	native      = "mysql_native_password"
	cachingSHA2 = "caching_sha2_password"
	sha256Crypt = "sha256_password"
)

const (
	sha2SaltLength = 20
	sha2Rounds     = 5000
	maxSHA2Rounds  = 4095 * 1000
	// cryptAlphabet is the base 64 of crypt(3).
	cryptAlphabet = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// newHash is what the server stores of a password under a plugin. The salts have no character that
// needs quoting.
func newHash(plugin string, password sensitive.Value) (string, error) {
	if plugin == native {
		return nativeHash(password), nil
	}
	b := make([]byte, sha2SaltLength)
	_, _ = rand.Read(b) // never fails
	for i := range b {
		b[i] = cryptAlphabet[b[i]%64]
	}
	switch plugin {
	case cachingSHA2:
		return fmt.Sprintf(
			"$A$%03X$%s%s", sha2Rounds/1000, b, sha2Digest(password.Reveal(), string(b), sha2Rounds),
		), nil
	case sha256Crypt:
		return "$5$" + string(b) + "$" + sha2Digest(password.Reveal(), string(b), sha2Rounds), nil
	}
	return "", errors.New("passwords of plugin " + plugin + " cannot be made")
}

func nativeHash(password sensitive.Value) string {
	one := sha1.Sum([]byte(password.Reveal()))
	two := sha1.Sum(one[:])
	return "*" + strings.ToUpper(hex.EncodeToString(two[:]))
}

// matches reports whether a stored hash is of the password. It cannot tell (known is false) of a
// plugin or form it does not know. An empty hash lets in without a password.
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
		return hmac.Equal([]byte(digest), []byte(sha2Digest(password.Reveal(), salt, rounds))), true
	}
	return false, false
}

// parseSHA2 reads $A$005$<20 bytes of salt><digest>, the rounds in thousands and hexadecimal, or
// $5$<salt>$<digest>.
func parseSHA2(plugin, stored string) (salt, digest string, rounds int, ok bool) {
	const digestLength = 43
	if plugin == sha256Crypt {
		rest, ok := strings.CutPrefix(stored, "$5$")
		if len(rest) < digestLength+1 || rest[len(rest)-digestLength-1] != '$' {
			return "", "", 0, false
		}
		return rest[:len(rest)-digestLength-1], rest[len(rest)-digestLength:], sha2Rounds, ok
	}
	if len(stored) != len("$A$005$")+sha2SaltLength+digestLength || !strings.HasPrefix(stored, "$A$") ||
		stored[6] != '$' {
		return "", "", 0, false
	}
	thousands, err := strconv.ParseUint(stored[3:6], 16, 16)
	if rounds = int(thousands) * 1000; err != nil || rounds < 1000 || rounds > maxSHA2Rounds {
		return "", "", 0, false
	}
	return stored[7 : 7+sha2SaltLength], stored[7+sha2SaltLength:], rounds, true
}

// sha2Digest is the digest of crypt(3) with SHA-256, which MySQL uses with a longer salt.
func sha2Digest(password, salt string, rounds int) string {
	p, s := []byte(password), []byte(salt)
	alternate := sha256.New()
	alternate.Write(p)
	alternate.Write(s)
	alternate.Write(p)
	b := alternate.Sum(nil)

	first := sha256.New()
	first.Write(p)
	first.Write(s)
	first.Write(repeated(b, len(p)))
	for n := len(p); n > 0; n >>= 1 {
		if n&1 != 0 {
			first.Write(b)
		} else {
			first.Write(p)
		}
	}
	a := first.Sum(nil)

	ofPassword, ofSalt := sha256.New(), sha256.New()
	for range len(p) {
		ofPassword.Write(p)
	}
	for range 16 + int(a[0]) {
		ofSalt.Write(s)
	}
	pSequence, sSequence := repeated(ofPassword.Sum(nil), len(p)), repeated(ofSalt.Sum(nil), len(s))
	for i := range rounds {
		h := sha256.New()
		write := func(when bool, yes, no []byte) {
			if when {
				h.Write(yes)
			} else {
				h.Write(no)
			}
		}
		write(i&1 != 0, pSequence, a)
		write(i%3 != 0, sSequence, nil)
		write(i%7 != 0, pSequence, nil)
		write(i&1 != 0, a, pSequence)
		a = h.Sum(nil)
	}
	return cryptBase64(a)
}

// repeated is b over and over, up to n bytes.
func repeated(b []byte, n int) []byte {
	out := make([]byte, 0, n+len(b))
	for len(out) < n {
		out = append(out, b...)
	}
	return out[:n]
}

// cryptBase64 writes a digest in the order of crypt(3) with SHA-256.
func cryptBase64(d []byte) string {
	var out []byte
	write := func(w uint, n int) {
		for range n {
			out = append(out, cryptAlphabet[w&63])
			w >>= 6
		}
	}
	for i := range 10 {
		// Each group holds the bytes i, i+10 and i+20, and begins with another one of them.
		j := [3]int{i, i + 10, i + 20}
		at := i % 3
		// 0,10,20; 21,1,11; 12,22,2; 3,13,23; …
		first, second, third := j[(3-at)%3], j[(4-at)%3], j[(5-at)%3]
		write(uint(d[first])<<16|uint(d[second])<<8|uint(d[third]), 4)
	}
	write(uint(d[31])<<8|uint(d[30]), 3)
	return string(out)
}
