// Package credential knows where a credential is in the value of a secret. The server, which
// rotates it, and the adapters of consumers, which log in with it, both read values by the one
// table of this package, so that they cannot disagree.
package credential

import (
	"bytes"
	"encoding/json"

	"github.com/keyturn/keyturn/sensitive"
)

// Part is one part of a credential.
type Part int

// The parts of a credential.
const (
	// Account is the account that the credential belongs to.
	Account Part = iota
	// Secret is what proves it: a password, a token, a private key, the secret of an access key.
	Secret
	// PublicKey is the public half of a key pair.
	PublicKey
	// KeyID identifies one key of an account that may have several.
	KeyID
)

// usual is the table: the names that members of a JSON value usually have, the preferred one first.
// docs/consumer-adapters.md lists them.
var usual = [...][]string{
	Account: {"AccountName", "UserName", "username", "user", "client_id", "dn"},
	Secret: {
		"AccountPassword", "Password", "password", "client_secret", "PrivateKey", "private_key", "secret", "token", "api_key",
		"AccessKeySecret",
	},
	PublicKey: {"PublicKey", "public_key"},
	KeyID:     {"AccessKeyId", "key_id"},
}

// Usual returns the usual names of the member for a part, the preferred one first. The caller must
// not change the slice.
func Usual(p Part) []string { return usual[p] }

// Object is a value that is a JSON object.
type Object map[string]json.RawMessage

// Parse returns the members of a value. ok is false for a value that is not a JSON object.
func Parse(value sensitive.Value) (o Object, ok bool) {
	text := bytes.TrimSpace([]byte(value.Reveal()))
	if len(text) == 0 || text[0] != '{' || json.Unmarshal(text, &o) != nil {
		return nil, false
	}
	return o, true
}

// Find returns name and string of the member for a part: the member called asked, or, when asked is
// empty, the first usual one that is a string. ok is false when there is none; name is then the
// first one that is null, if any, for a caller that writes.
func (o Object) Find(p Part, asked string) (name, text string, ok bool) {
	names := usual[p]
	if asked != "" {
		names = []string{asked}
	}
	null := ""
	for _, name := range names {
		switch raw := o[name]; {
		case len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &text) == nil:
			return name, text, true
		case null == "" && bytes.Equal(raw, []byte("null")):
			null = name
		}
	}
	return null, "", false
}
