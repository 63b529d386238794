package secret_test

import (
	"testing"

	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// TestAdoptsWhatGetSecretValueReturns verifies that a repair takes a value in the form in which
// callers see it, too.
func TestAdoptsWhatGetSecretValueReturns(t *testing.T) {
	t.Parallel()
	const one = `{"AccountName":"app","AccountPassword":"by-hand"}`
	s := secret.Secret{Name: "db", Type: kms.TypeRds}
	current := sensitive.New(`{"Accounts":[{"AccountName":"app","AccountPassword":"stored"}]}`)
	for _, given := range []string{one, `{"Accounts":[` + one + `]}`} {
		value, c, err := s.Adopted(current, sensitive.New(given), []string{"app"})
		if err != nil || c.Secret.Reveal() != "by-hand" || value.Reveal() != `{"Accounts":[`+one+`]}` {
			t.Errorf("%s: %v, %v", given, value.Reveal(), err)
		}
	}
	if _, _, err := s.Adopted(current, sensitive.New(`{"AccountName":"app"}`), []string{"app"}); err == nil {
		t.Error("a value without a password is adopted")
	}
}
