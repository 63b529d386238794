package shacrypt_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target/shacrypt"
	"github.com/keyturn/keyturn/sensitive"
)

// TestPublishedVectors verifies the vectors that the scheme was published with.
func TestPublishedVectors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ password, salt, digest string }{
		{
			"Hello world!",
			"saltstring",
			"svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
		},
		{
			"Hello world!",
			"rounds=10000$saltstringsaltst",
			"OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.",
		},
		{
			"This is just a test",
			"rounds=5000$toolongsaltstrin",
			"lQ8jolhgVRVhY4b5pZKaysCLi0QBxGoNeKQzQ3glMhwllF7oGDZxUhx1yxdYcz/e1JSbq3y6JMxxl8audkUEm0",
		},
		{
			"a very much longer text to encrypt.  This one even stretches over morethan one line.",
			"rounds=1400$anotherlongsalts",
			"POfYwTEok97VWcjxIiSOjiykti.o/pQs.wPvMxQ6Fm7I6IoYN3CmLs66x9t0oSwbtEW7o7UmJEiDwGqd8p4ur1",
		},
		{
			"we have a short salt string but not a short password",
			"rounds=77777$short",
			"WuQyW2YR.hBNpjjRhpYD/ifIw05xdfeEyQoMxIXbkvr0gge1a1x3yRULJ5CCaUeOxFmtlcGZelFl5CxtgfiAc0",
		},
		{
			"a short string",
			"rounds=123456$asaltof16chars..",
			"BtCwjqMJGx5hrJhZywWvt0RLE8uZ4oPwcelCjmw2kSYu.Ec6ycULevoBK25fs2xXgMNrCzIMVcgEJAstJeonj1",
		},
		{
			"the minimum number is still observed",
			"rounds=10$roundstoolow",
			"kUMsbe306n21p9R.FRkW3IGn.S9NPN0x50YhH1xhLsPuWGsUSklZt58jaTfF4ZEQpyUNGc0dqbpBYYBaHHrsX.",
		},
	} {
		password, hash := tt.password, "$6$"+tt.salt+"$"+tt.digest
		if ok, err := shacrypt.Verify(sensitive.New(password), hash); err != nil || !ok {
			t.Errorf("%.30s: %v, %v", hash, ok, err)
		}
		if ok, err := shacrypt.Verify(sensitive.New(password+"."), hash); err != nil || ok {
			t.Errorf("%.30s verifies another password: %v", hash, err)
		}
	}
}

// TestOpenSSL compares with an independent program, at every length around the size of the digest.
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
	for _, salt := range []string{"a", "saltsalt", shacrypt.Salt([]byte{1, 255, 64, 63, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})} {
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
			if got := shacrypt.Hash(sensitive.New(passwords[i]), salt); got != want {
				t.Errorf("length %d, salt %q: %s, want %s", len(passwords[i]), salt, got, want)
			}
		}
	}
}

func TestVerifyRefusesOtherForms(t *testing.T) {
	t.Parallel()
	digest := strings.Repeat("a", 86)
	for _, hash := range []string{
		"",
		"$6$",
		"$6$salt",
		"$6$salt$short",
		"$5$salt$" + digest,
		"$6$rounds=x$salt$" + digest,
		"$6$rounds=999999999$salt$" + digest,
		"$6$seventeencharslon$" + digest,
	} {
		if ok, err := shacrypt.Verify(sensitive.New("p"), hash); err == nil || ok {
			t.Errorf("%q is accepted", hash)
		}
	}
}

// TestSHA256 compares with digests of openssl passwd -5.
func TestSHA256(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		salt, password, want string
		rounds               int
	}{
		{"saltstring", "Hello world!", "5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5", 5000},
		{"toolongsaltstrin", "This is just a test", "Un/5jzAHMgOGZ5.mWJpuVolil07guHPvOW8mGRcvxa5", 5000},
		{"saltsaltsaltsalt", "Zürich", "Xc86.qUEnRe9DMyEYMGuRP16MBAPh39DYQh4joMdSd9", 5000},
		{"abc", strings.Repeat("x", 100), "sWSqUH/k7TEPzX.dcr0pxMx49ncHuz9sHn6JV.4bdM0", 5000},
		{"saltstringsaltst", "Hello world!", "3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA", 10000},
	} {
		if got := shacrypt.SHA256(sensitive.New(tt.password), tt.salt, tt.rounds); got != tt.want {
			t.Errorf("%q with salt %q: %s, want %s", tt.password, tt.salt, got, tt.want)
		}
	}
}
