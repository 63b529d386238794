package target

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/keyturn/keyturn/sensitive"
)

// Alphabet is what passwords are made of unless a target has rules of its own: letters and digits,
// which survive a connection URL, a shell, SQL and every configuration file.
const Alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// DefaultLength is the length of a password unless a target has rules of its own: 190 bits of
// Alphabet.
const DefaultLength = 32

// PasswordRule says what a target's passwords look like; members of a kind's configuration.
type PasswordRule struct {
	// Length is 12 to 128 characters; 0 means 32.
	Length int `json:"password_length,omitempty"`
	// Punctuation are characters to use beside letters and digits, at least one of them in each
	// password. Empty means none. Printable ASCII without space, quotation marks, backslash and
	// backtick.
	Punctuation string `json:"password_punctuation,omitempty"`
}

// Check refuses a rule out of range.
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

// New draws a password uniformly from all that the rule allows, with at least one lower-case
// letter, upper-case letter and digit, and punctuation if the rule names any.
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

// Generate makes a credential with a password by the rule. Kinds with passwords embed it in their
// target.
func (r PasswordRule) Generate(_ context.Context, account string, _ Credential, random io.Reader) (Credential, error) {
	p, err := r.New(random)
	return Credential{Account: account, Secret: p}, err
}

// Draw draws n characters uniformly from an alphabet of ASCII; a byte that would favour its first
// characters is drawn again.
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
