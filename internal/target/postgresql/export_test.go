package postgresql

import "github.com/keyturn/keyturn/sensitive"

// Verifier is for tests that make roles.
func Verifier(password sensitive.Value) (string, error) {
	return newVerifier(password, defaultIterations)
}
