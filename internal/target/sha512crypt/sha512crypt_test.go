package sha512crypt_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target/sha512crypt"
	"github.com/keyturn/keyturn/sensitive"
)

// TestPublishedVectors holds against the vectors that the scheme was published with.
func TestPublishedVectors(t *testing.T) {
	t.Parallel()
	for hash, password := range map[string]string{
		"$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1":                     "Hello world!",
		"$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.":  "Hello world!",
		"$6$rounds=5000$toolongsaltstrin$lQ8jolhgVRVhY4b5pZKaysCLi0QBxGoNeKQzQ3glMhwllF7oGDZxUhx1yxdYcz/e1JSbq3y6JMxxl8audkUEm0":   "This is just a test",
		"$6$rounds=1400$anotherlongsalts$POfYwTEok97VWcjxIiSOjiykti.o/pQs.wPvMxQ6Fm7I6IoYN3CmLs66x9t0oSwbtEW7o7UmJEiDwGqd8p4ur1":   "a very much longer text to encrypt.  This one even stretches over morethan one line.",
		"$6$rounds=77777$short$WuQyW2YR.hBNpjjRhpYD/ifIw05xdfeEyQoMxIXbkvr0gge1a1x3yRULJ5CCaUeOxFmtlcGZelFl5CxtgfiAc0":             "we have a short salt string but not a short password",
		"$6$rounds=123456$asaltof16chars..$BtCwjqMJGx5hrJhZywWvt0RLE8uZ4oPwcelCjmw2kSYu.Ec6ycULevoBK25fs2xXgMNrCzIMVcgEJAstJeonj1": "a short string",
		"$6$rounds=10$roundstoolow$kUMsbe306n21p9R.FRkW3IGn.S9NPN0x50YhH1xhLsPuWGsUSklZt58jaTfF4ZEQpyUNGc0dqbpBYYBaHHrsX.":         "the minimum number is still observed",
	} {
		if ok, err := sha512crypt.Verify(sensitive.New(password), hash); err != nil || !ok {
			t.Errorf("%.30s: %v, %v", hash, ok, err)
		}
		if ok, err := sha512crypt.Verify(sensitive.New(password+"."), hash); err != nil || ok {
			t.Errorf("%.30s verifies another password: %v", hash, err)
		}
	}
}

// TestOpenSSL holds against an independent program, at every length about the size of the hash.
func TestOpenSSL(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed (Debian package openssl)")
	}
	var passwords []string
	for _, n := range []int{1, 2, 3, 31, 32, 33, 63, 64, 65, 127, 128, 129} {
		passwords = append(passwords, strings.Repeat("pä$", n)[:n])
	}
	for _, salt := range []string{"a", "saltsalt", sha512crypt.Salt([16]byte{1, 255, 64, 63})} {
		cmd := exec.Command(openssl, "passwd", "-6", "-salt", salt, "-stdin")
		cmd.Stdin = strings.NewReader(strings.Join(passwords, "\n") + "\n")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Fields(string(out))
		if len(lines) != len(passwords) {
			t.Fatalf("openssl wrote %d lines for %d passwords", len(lines), len(passwords))
		}
		for i, want := range lines {
			if got := sha512crypt.Hash(sensitive.New(passwords[i]), salt); got != want {
				t.Errorf("length %d, salt %q: %s, want %s", len(passwords[i]), salt, got, want)
			}
		}
	}
}

func TestVerifyRefusesOtherForms(t *testing.T) {
	t.Parallel()
	for _, hash := range []string{"", "$6$", "$6$salt", "$6$salt$short", "$5$salt$" + strings.Repeat("a", 86), "$6$rounds=x$salt$" + strings.Repeat("a", 86), "$6$rounds=999999999$salt$" + strings.Repeat("a", 86), "$6$seventeencharslon$" + strings.Repeat("a", 86)} {
		if ok, err := sha512crypt.Verify(sensitive.New("p"), hash); err == nil || ok {
			t.Errorf("%q is accepted", hash)
		}
	}
}
