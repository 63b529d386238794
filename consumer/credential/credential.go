// Package credential finds an account and its password, token or private key in the value of a
// secret. The adapters use it, as can an application that opens connections itself.
//
// It finds the usual member names automatically: the members of the managed types (AccountName and
// AccountPassword, UserName with Password or PrivateKey, AccessKeyId and AccessKeySecret) and those
// in common use in generic secrets. [Format] names others.
package credential

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/internal/credential"
	"github.com/keyturn/keyturn/sensitive"
)

// Credential is an account with its password, token or private key.
type Credential struct {
	// Account is the name of the account; empty if the value names none.
	Account string
	// Secret is the password, token or private key.
	Secret sensitive.Value
}

// Format says where in a value the credential is. The zero Format finds the usual members of a JSON
// object, and uses any other value as the password, token or private key.
type Format struct {
	// AccountMember and SecretMember name the members of the JSON object; empty means the usual
	// ones.
	AccountMember, SecretMember string
	// Account is the account if the value names none.
	Account string
}

// Read returns the credential in a version of a secret. Its errors name members, and quote nothing
// of the value.
func (f Format) Read(s *consumer.Secret) (Credential, error) {
	value := s.Value()
	if !strings.HasPrefix(strings.TrimSpace(value.Reveal()), "{") {
		if f.AccountMember != "" || f.SecretMember != "" {
			return Credential{}, fmt.Errorf("credential: the value of secret %q, version %s, "+
				"is not a JSON object, so it has no members", s.Name, s.VersionID)
		}
		if value.Reveal() == "" {
			return Credential{}, fmt.Errorf("credential: the value of secret %q, version %s, is empty", s.Name, s.VersionID)
		}
		return Credential{Account: f.Account, Secret: value}, nil
	}
	var object credential.Object
	if err := s.Decode(&object); err != nil {
		return Credential{}, fmt.Errorf("credential: %w", err)
	}
	_, account, ok := object.Find(credential.Account, f.AccountMember)
	switch {
	case !ok && f.AccountMember != "":
		return Credential{}, missing(s, f.AccountMember)
	case !ok:
		_, account, _ = object.Find(credential.KeyID, "") // an access key logs in by its ID
	}
	_, secret, _ := object.Find(credential.Secret, f.SecretMember)
	switch {
	case secret == "" && f.SecretMember != "":
		return Credential{}, missing(s, f.SecretMember)
	case secret == "":
		return Credential{}, fmt.Errorf("credential: the value of secret %q, version %s, "+
			"has none of the usual members of a credential (%s); name it by SecretMember",
			s.Name, s.VersionID, strings.Join(credential.Usual(credential.Secret), ", "))
	}
	return Credential{Account: cmp.Or(account, f.Account), Secret: sensitive.New(secret)}, nil
}

func missing(s *consumer.Secret, member string) error {
	return fmt.Errorf("credential: the value of secret %q, version %s, has no member %q that is a string",
		s.Name, s.VersionID, member)
}
