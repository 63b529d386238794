package secret

import (
	"crypto/rand"
	"io"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// classes is the alphabet of GetRandomPassword: no space and no backtick.
var classes = [4]string{
	"abcdefghijklmnopqrstuvwxyz",
	"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
	"0123456789",
	"!\"#$%&'()*+,-./:;<=>?@[\\]^_{|}~",
}

// PasswordSpec says which characters a random password is made of.
type PasswordSpec struct {
	// Length is 8 to 128 characters.
	Length int
	// Exclude leaves these characters out.
	Exclude string
	// NoLower, NoUpper, NoDigits and NoPunctuation leave out a class.
	NoLower, NoUpper, NoDigits, NoPunctuation bool
	// EachClass asks for at least one character of every class that is left.
	EachClass bool
}

// Password draws a password uniformly from all that the specification allows. random is a
// cryptographic source.
func Password(spec PasswordSpec, random io.Reader) (sensitive.Value, error) {
	var left []string
	for i, off := range []bool{spec.NoLower, spec.NoUpper, spec.NoDigits, spec.NoPunctuation} {
		if off {
			continue
		}
		class := strings.Map(func(r rune) rune {
			if strings.ContainsRune(spec.Exclude, r) {
				return -1
			}
			return r
		}, classes[i])
		if class == "" && spec.EachClass {
			return sensitive.Value{}, fault.Parameter("ExcludeCharacters",
				"it leaves nothing of a class that RequireEachIncludedType asks for.")
		}
		left = append(left, class)
	}
	alphabet := strings.Join(left, "")
	if alphabet == "" {
		return sensitive.Value{}, fault.Parameter("ExcludeCharacters", "the options leave no character to choose from.")
	}
	for {
		p, err := target.Draw(alphabet, spec.Length, random)
		if err != nil || !spec.EachClass || hasEach(p, left) {
			return sensitive.New(p), err
		}
	}
}

// hasEach is likely from the first draw on: with 8 characters of four classes it holds three times
// in ten, and always at some point, since the length is at least the number of classes.
func hasEach(p string, classes []string) bool {
	for _, class := range classes {
		if !strings.ContainsAny(p, class) {
			return false
		}
	}
	return true
}

// ManagedPassword is a password for an account that the service itself sets: 32 letters and digits,
// which survive a connection URL, a shell and every target.
func ManagedPassword() sensitive.Value {
	p, err := Password(PasswordSpec{Length: 32, NoPunctuation: true, EachClass: true}, rand.Reader)
	if err != nil {
		panic("secret: " + err.Error()) // crypto/rand never fails
	}
	return p
}
