// Package credential reads an account and what proves it out of the value of a secret. The adapters below it use it; code that
// opens connections by itself can too.
//
// The usual member names are found by themselves: those of the managed types (AccountName and AccountPassword, UserName with
// Password or PrivateKey, AccessKeyId and AccessKeySecret) and those in common use in generic secrets. Format names others.
package credential

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/sensitive"
)

var (
	accountMembers = []string{"AccountName", "UserName", "username", "user", "client_id", "dn", "AccessKeyId", "key_id"}
	secretMembers  = []string{
		"AccountPassword", "Password", "password", "client_secret", "PrivateKey", "private_key", "secret", "token", "api_key", "AccessKeySecret",
	}
)

// Credential is what a target accepts.
type Credential struct {
	// Account is whose credential it is; empty where the value names nobody.
	Account string
	// Secret is the password, token or private key.
	Secret sensitive.Value
}

// Format says where in a value a credential is. The zero Format finds the usual members of a JSON object, and takes any other
// value as the bare credential.
type Format struct {
	// AccountMember and SecretMember name the members of the JSON object; empty means the usual ones.
	AccountMember, SecretMember string
	// Account is whose credential it is where the value does not say.
	Account string
}

// Read returns the credential in a version of a secret. Its errors name members, and hold nothing of the value.
func (f Format) Read(s *consumer.Secret) (Credential, error) {
	value := s.Value()
	if !strings.HasPrefix(strings.TrimSpace(value.Reveal()), "{") {
		if f.AccountMember != "" || f.SecretMember != "" {
			return Credential{}, fmt.Errorf("credential: the value of secret %q, version %s, is not a JSON object, so it has no members", s.Name, s.VersionID)
		}
		if value.Reveal() == "" {
			return Credential{}, fmt.Errorf("credential: the value of secret %q, version %s, is empty", s.Name, s.VersionID)
		}
		return Credential{Account: f.Account, Secret: value}, nil
	}
	var members map[string]json.RawMessage
	if err := s.Decode(&members); err != nil {
		return Credential{}, fmt.Errorf("credential: %w", err)
	}
	account, ok := text(members, f.AccountMember, accountMembers)
	if !ok && f.AccountMember != "" {
		return Credential{}, missing(s, f.AccountMember)
	}
	if account == "" {
		account = f.Account
	}
	secret, _ := text(members, f.SecretMember, secretMembers)
	if secret == "" {
		if f.SecretMember != "" {
			return Credential{}, missing(s, f.SecretMember)
		}
		return Credential{}, fmt.Errorf("credential: the value of secret %q, version %s, has none of the usual members of a credential; name it by SecretMember", s.Name, s.VersionID)
	}
	return Credential{Account: account, Secret: sensitive.New(secret)}, nil
}

func missing(s *consumer.Secret, member string) error {
	return fmt.Errorf("credential: the value of secret %q, version %s, has no member %q that is a text", s.Name, s.VersionID, member)
}

// text is the member that was asked for, or the first of the usual ones, which are texts.
func text(members map[string]json.RawMessage, asked string, usual []string) (value string, ok bool) {
	if asked != "" {
		usual = []string{asked}
	}
	for _, name := range usual {
		raw, there := members[name]
		if there && len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &value) == nil {
			return value, true
		}
	}
	return "", false
}
