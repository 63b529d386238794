package ldap

import (
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"hash"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"

	"github.com/keyturn/keyturn/sensitive"
)

// Bounds of the work for a stored value of unknown origin: about a second.
const (
	maxArgonMemory = 128 << 10 // KiB
	maxArgonTime   = 16
	maxArgonLanes  = 16
	maxIterations  = 2_000_000
	maxKey         = 128 // bytes
)

// derived is a value of a key derivation: {ARGON2}$argon2id$v=19$m=7168,t=5,p=1$salt$key, or
// {PBKDF2-SHA256}10000$salt$key.
type derived struct {
	variant   string // "argon2id" or "argon2i"; empty for PBKDF2
	memory    uint32
	time      uint32 // of argon2, or the iterations of PBKDF2
	lanes     uint8
	digest    func() hash.Hash // of PBKDF2
	salt, key []byte
}

var derivations = map[string]func() hash.Hash{
	"PBKDF2":        sha1.New,
	"PBKDF2-SHA1":   sha1.New,
	"PBKDF2-SHA256": sha256.New,
	"PBKDF2-SHA512": sha512.New,
}

// parseDerived reads a value whose scheme is name. ok is false for any other value, and for one
// that would take too long to compute.
func parseDerived(name, rest string) (d derived, ok bool) {
	switch {
	case name == "ARGON2":
		return parseArgon(rest)
	case derivations[name] == nil:
		return d, false
	}
	parts := strings.Split(rest, "$")
	if len(parts) != 3 {
		return d, false
	}
	n, err := strconv.ParseUint(parts[0], 10, 32)
	d = derived{time: uint32(n), digest: derivations[name]}
	return d, err == nil && n > 0 && n <= maxIterations && d.decode(parts[1], parts[2])
}

func parseArgon(rest string) (d derived, ok bool) {
	parts := strings.Split(rest, "$") // "", variant, v=19, costs, salt, key
	if len(parts) != 6 || parts[2] != "v=19" || parts[1] != "argon2id" && parts[1] != "argon2i" {
		return d, false
	}
	d.variant = parts[1]
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &d.memory, &d.time, &d.lanes); err != nil {
		return d, false
	}
	ok = d.memory <= maxArgonMemory && d.time > 0 && d.time <= maxArgonTime && d.lanes > 0 && d.lanes <= maxArgonLanes
	return d, ok && d.decode(parts[4], parts[5])
}

// decode reads salt and key in base 64 without padding, where PBKDF2 has a dot instead of the plus.
func (d *derived) decode(salt, key string) bool {
	var errs [2]error
	plain := strings.NewReplacer(".", "+", "=", "")
	d.salt, errs[0] = base64.RawStdEncoding.DecodeString(plain.Replace(salt))
	d.key, errs[1] = base64.RawStdEncoding.DecodeString(plain.Replace(key))
	return errs == [2]error{} && len(d.key) > 0 && len(d.key) <= maxKey
}

// derive returns the key of a password.
func (d derived) derive(password sensitive.Value) []byte {
	p := []byte(password.Reveal())
	switch d.variant {
	case "argon2id":
		return argon2.IDKey(p, d.salt, d.time, d.memory, d.lanes, uint32(len(d.key)))
	case "argon2i":
		return argon2.Key(p, d.salt, d.time, d.memory, d.lanes, uint32(len(d.key)))
	}
	key, err := pbkdf2.Key(d.digest, password.Reveal(), d.salt, int(d.time), len(d.key))
	if err != nil {
		return nil // FIPS 140 mode refuses short salts: the value matches nothing
	}
	return key
}

// String returns the value without its scheme.
func (d derived) String() string {
	salt, key := base64.RawStdEncoding.EncodeToString(d.salt), base64.RawStdEncoding.EncodeToString(d.key)
	if d.variant == "" {
		dots := strings.NewReplacer("+", ".")
		return fmt.Sprintf("%d$%s$%s", d.time, dots.Replace(salt), dots.Replace(key))
	}
	return fmt.Sprintf("$%s$v=19$m=%d,t=%d,p=%d$%s$%s", d.variant, d.memory, d.time, d.lanes, salt, key)
}
