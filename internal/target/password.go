package target

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/keyturn/keyturn/sensitive"
)

// Alphabet lists the characters of passwords unless the configuration adds punctuation: letters and
// digits, which need no escaping in a URL, a shell, SQL or a configuration file.
const Alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// DefaultLength is the default length of a password: 190 bits of randomness with [Alphabet].
const DefaultLength = 32

// PasswordRule says how a target's passwords are made, as members of a kind's configuration.
type PasswordRule struct {
	// Length is 12 to 128 characters; 0 means [DefaultLength].
	Length int `json:"password_length,omitempty"`
	// Punctuation lists characters to use besides letters and digits; each password has at least one
	// of them. Empty means none. It must be printable ASCII without space, quotation marks,
	// backslash and backtick.
	Punctuation string `json:"password_punctuation,omitempty"`
}

// Check returns an error if the rule is out of range.
func (r PasswordRule) Check() error {
	if r.Length != 0 && (r.Length < 12 || r.Length > 128) {
		return errors.New("password_length is 12 to 128")
	}
	for _, c := range r.Punctuation {
		if c <= ' ' || c > '~' || strings.ContainsRune("'\"\\`"+Alphabet, c) {
			return errors.New(
				"password_punctuation has printable ASCII characters that are not letters, digits, quotation " +
					"marks, backslash or backtick",
			)
		}
	}
	return nil
}

// New returns a password, drawn uniformly from all that the rule allows. It has at least one
// lower-case letter, upper-case letter and digit, and punctuation if the rule names any: targets
// with rules for strength demand them.
func (r PasswordRule) New(random io.Reader) (sensitive.Value, error) {
	length := r.Length
	if length == 0 {
		length = DefaultLength
	}
	classes := []string{Alphabet[:26], Alphabet[26:52], Alphabet[52:]}
	if r.Punctuation != "" {
		classes = append(classes, r.Punctuation)
	}
	for {
		p, err := Draw(Alphabet+r.Punctuation, length, random)
		if err != nil {
			return sensitive.Value{}, err
		}
		missing := false
		for _, class := range classes {
			missing = missing || !strings.ContainsAny(p, class)
		}
		if !missing {
			return sensitive.New(p), nil
		}
	}
}

// Generate implements [Generator]. Kinds with passwords embed the rule in their target.
func (r PasswordRule) Generate(_ context.Context, account string, _ Credential, random io.Reader) (Credential, error) {
	p, err := r.New(random)
	return Credential{Account: account, Secret: p}, err
}

// Draw returns n characters, drawn uniformly from an alphabet of ASCII. It draws again where the
// remainder of a byte would favor the alphabet's first characters.
func Draw(alphabet string, n int, random io.Reader) (string, error) {
	limit := 256 - 256%len(alphabet)
	out, b := make([]byte, 0, n), make([]byte, 2*n)
	for {
		if _, err := io.ReadFull(random, b); err != nil {
			return "", err
		}
		for _, c := range b {
			if int(c) < limit {
				out = append(out, alphabet[int(c)%len(alphabet)])
			}
			if len(out) == n {
				return string(out), nil
			}
		}
	}
}
