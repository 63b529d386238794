package unixcrypt_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target/unixcrypt"
	"github.com/keyturn/keyturn/sensitive"
)

// TestForms verifies against crypt(3) of this machine that a hash keeps function, cost and spelling
// of the example.
func TestForms(t *testing.T) {
	t.Parallel()
	for _, form := range []string{
		"$6$", "$6$rounds=20000$", "$5$", "$5$rounds=1234$", "$2b$05$", "$2y$06$", "$2a$04$",
	} {
		example := crypt(t, "secret", form+strings.Repeat("a", 21)+"e")
		if ok, err := unixcrypt.Verify(sensitive.New("secret"), example); err != nil || !ok {
			t.Errorf("%s: the hash of crypt(3) does not match its password: %v", form, err)
		}
		for _, password := range []string{"another", "pässwörd ☃", strings.Repeat("x", 72)} {
			got, err := unixcrypt.Like(example, sensitive.New(password), []byte("sixteen bytes xx"))
			if err != nil || !strings.HasPrefix(got, form) || len(got) < len(form)+50 {
				t.Errorf("%s: a hash of another password has another form: %v", form, err)
				continue
			}
			if crypt(t, password, got) != got {
				t.Errorf("%s: crypt(3) does not accept the hash of %q", form, password)
			}
			if ok, err := unixcrypt.Verify(sensitive.New(password), got); err != nil || !ok {
				t.Errorf("%s: Verify: %v, %v", form, ok, err)
			}
			if ok, err := unixcrypt.Verify(sensitive.New(password[1:]), got); err != nil || ok {
				t.Errorf("%s: Verify of another password: %v, %v", form, ok, err)
			}
		}
	}
}

func TestUnknownForms(t *testing.T) {
	t.Parallel()
	for _, hash := range []string{
		"", "secret", "$1$saltsalt$x", "$y$j9T$salt$hash", "$2b$31$" + strings.Repeat("a", 53), "$2b$", "$2b$05$short",
		"$6$rounds=999999999$salt$" + strings.Repeat("a", 86), "$5$salt$" + strings.Repeat("a", 86), "$2x$05$" + strings.Repeat("a", 53),
	} {
		if _, err := unixcrypt.Verify(sensitive.New("secret"), hash); err != unixcrypt.ErrForm {
			t.Errorf("Verify of %q: %v", hash, err)
		}
	}
	if _, err := unixcrypt.Like("$2b$05$"+strings.Repeat("a", 53), sensitive.New(strings.Repeat("x", 73)), nil); err != unixcrypt.ErrPassword {
		t.Errorf("a password of 73 bytes for bcrypt: %v", err)
	}
}

// crypt returns what crypt(3) of this machine makes of a password.
func crypt(t *testing.T, password, setting string) string {
	t.Helper()
	perl, err := exec.LookPath("perl")
	if err != nil {
		t.Skip("perl is not on this machine")
	}
	cmd := exec.Command(perl, "-e", `chomp(my ($p, $s) = <STDIN>); print crypt($p, $s)`)
	cmd.Stdin = strings.NewReader(password + "\n" + setting + "\n")
	out, err := cmd.Output()
	if err != nil || len(out) < 20 {
		t.Fatalf("crypt(3) with %q: %v", setting, err)
	}
	return string(out)
}
