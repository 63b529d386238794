package postgresql

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/sensitive"
)

// TestVerifierOfTheRFC replays the exchange of RFC 7677, section 3: the stored key must accept the
// client's proof, and the server key must make the server's signature.
func TestVerifierOfTheRFC(t *testing.T) {
	t.Parallel()
	b64 := func(s string) []byte {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	v, err := scramVerifier(sensitive.New("pencil"), b64("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
	if err != nil {
		t.Fatal(err)
	}
	keys, found := strings.CutPrefix(v, "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$")
	storedText, serverText, found2 := strings.Cut(keys, ":")
	if !found || !found2 {
		t.Fatalf("the verifier has another form: %q", v)
	}
	const nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	message := "n=user,r=rOprNGfwEbeRWgbNEkqO,r=" + nonce + ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=" + nonce
	const want = "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
	if got := base64.StdEncoding.EncodeToString(hmacSHA256(b64(serverText), message)); got != want {
		t.Errorf("the server's signature is %s, want %s", got, want)
	}
	stored, proof := b64(storedText), b64("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
	for i, b := range hmacSHA256(stored, message) {
		proof[i] ^= b
	}
	if sum := sha256.Sum256(proof); !hmac.Equal(sum[:], stored) {
		t.Error("the stored key does not accept the client's proof")
	}
}

func TestMatches(t *testing.T) {
	t.Parallel()
	right := sensitive.New("right horse")
	v, err := newVerifier(right, 4096)
	if err != nil {
		t.Fatal(err)
	}
	other, err := newVerifier(right, 4096)
	if err != nil || other == v {
		t.Fatalf("two verifiers have the same salt, %v", err)
	}
	for _, tt := range []struct {
		stored       string
		password     string
		match, known bool
	}{
		{v, "right horse", true, true},
		{v, "right horsf", false, true},
		{"md54d45974e13472b5a0be3533de4666414", "password", true, true}, // md5("password" + "user")
		{"md54d45974e13472b5a0be3533de4666414", "passwort", false, true},
		{"", "right horse", false, false},
		{"SCRAM-SHA-256$4096:!!$a:b", "right horse", false, false},
		{"SCRAM-SHA-256$999999999:AAAA$a:b", "right horse", false, false},
		{"SCRAM-SHA-512$4096:AAAA$a:b", "right horse", false, false},
	} {
		match, known := matches(tt.stored, "user", sensitive.New(tt.password))
		if match != tt.match || known != tt.known {
			t.Errorf("matches(%q, %q) = %v, %v", tt.stored, tt.password, match, known)
		}
	}
}

// TestSameSecret verifies that passwords which PostgreSQL prepares to the same text count as one.
func TestSameSecret(t *testing.T) {
	t.Parallel()
	for other, want := range map[string]bool{"pass\u00adword": true, "password": true, "Password": false} {
		if got := (&pg{}).SameSecret(sensitive.New("password"), sensitive.New(other)); got != want {
			t.Errorf("%+q: %t, want %t", other, got, want)
		}
	}
}
