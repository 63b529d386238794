package demo

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"
)

// The exchange printed in RFC 7677, section 3: our keys must produce its proof and its signature.
func TestScramKeys(t *testing.T) {
	t.Parallel()
	salt, err := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	if err != nil {
		t.Fatal(err)
	}
	const nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	message := "n=user,r=rOprNGfwEbeRWgbNEkqO,r=" + nonce + ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=" + nonce
	stored, server, err := scramKeys("pencil", salt)
	if err != nil {
		t.Fatal(err)
	}
	if got := base64.StdEncoding.EncodeToString(hmacSHA256(server, message)); got != "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=" {
		t.Errorf("server signature %s", got)
	}
	// The proof is the client key under the client signature; its hash must be the stored key.
	proof, err := base64.StdEncoding.DecodeString("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range hmacSHA256(stored, message) {
		proof[i] ^= b
	}
	if sum := sha256.Sum256(proof); !hmac.Equal(sum[:], stored) {
		t.Error("the stored key does not verify the proof")
	}
}

func TestScramVerifier(t *testing.T) {
	t.Parallel()
	got, err := scramVerifier("pencil", []byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(got, "SCRAM-SHA-256$4096:MDEyMzQ1Njc4OWFiY2RlZg==$") || strings.Count(got, "$") != 2 || strings.Count(got, ":") != 2 {
		t.Errorf("verifier %q", got)
	}
}

func TestQuote(t *testing.T) {
	t.Parallel()
	if got := quoteIdentifier(`a"b`); got != `"a""b"` {
		t.Error(got)
	}
	if got := quoteLiteral(`a'b`); got != `'a''b'` {
		t.Error(got)
	}
}
