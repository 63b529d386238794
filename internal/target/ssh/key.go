package ssh

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

const comment = "keyturn"

// keyTypes are the types that a configuration may choose.
var keyTypes = []string{"ed25519", "ecdsa-256", "ecdsa-384", "ecdsa-521", "rsa-2048", "rsa-3072", "rsa-4096"}

// Forms of private keys in PEM.
const (
	formOpenSSH = "OPENSSH PRIVATE KEY"
	formPKCS1   = "RSA PRIVATE KEY"
	formSEC1    = "EC PRIVATE KEY"
	formPKCS8   = "PRIVATE KEY"
)

// Bounds of the RSA keys that are made like the key in use.
const (
	minRSA = 2048
	maxRSA = 8192
)

// isKey reports whether the secret is a private key; else it is a password.
func isKey(c target.Credential) bool {
	return strings.Contains(c.Secret.Reveal(), "-----BEGIN ")
}

// SameSecret reports whether two texts have one private key.
func (h *host) SameSecret(a, b sensitive.Value) bool {
	x, errX := privateKey(a)
	y, errY := privateKey(b)
	return errX == nil && errY == nil && bytes.Equal(x.PublicKey().Marshal(), y.PublicKey().Marshal())
}

func privateKey(s sensitive.Value) (ssh.Signer, error) {
	key, err := ssh.ParsePrivateKey([]byte(s.Reveal()))
	if errors.As(err, new(*ssh.PassphraseMissingError)) {
		return nil, errors.New("the private key has a passphrase; store it without")
	}
	if err != nil {
		return nil, errors.New("the private key is not one that SSH uses")
	}
	return key, nil
}

// Generate makes a key pair, or a password when the credential in use is one.
func (h *host) Generate(
	ctx context.Context, account string, old target.Credential, random io.Reader,
) (target.Credential, error) {
	if !old.Secret.IsZero() && !isKey(old) && h.KeyType == "" {
		return h.PasswordRule.Generate(ctx, account, old, random)
	}
	keyType, form := h.KeyType, ""
	if keyType == "" {
		keyType, form = formOf(old)
	}
	block, private, err := newKey(keyType, form, random)
	if err != nil {
		return target.Credential{}, fmt.Errorf("generate a key of type %s: %w", keyType, err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return target.Credential{}, fmt.Errorf("generate a key of type %s: %w", keyType, err)
	}
	return target.Credential{
		Account: account, Secret: sensitive.New(string(pem.EncodeToMemory(block))),
		Public: line(signer.PublicKey(), comment),
	}, nil
}

// formOf returns the type of a key in use and its form in PEM, because programs that read one form
// may not read another.
func formOf(old target.Credential) (keyType, form string) {
	raw, err := ssh.ParseRawPrivateKey([]byte(old.Secret.Reveal()))
	if err != nil {
		return "ed25519", ""
	}
	block, _ := pem.Decode([]byte(old.Secret.Reveal()))
	if block == nil {
		return "ed25519", ""
	}
	switch key := raw.(type) {
	case *rsa.PrivateKey:
		return fmt.Sprintf("rsa-%d", min(max(key.N.BitLen(), minRSA), maxRSA)), block.Type
	case *ecdsa.PrivateKey:
		return fmt.Sprintf("ecdsa-%d", key.Params().BitSize), block.Type
	}
	return "ed25519", block.Type
}

// newKey makes a key of a type. Without a form, an RSA key is in PKCS#1, which the oldest
// programs read, and any other in the form of OpenSSH.
func newKey(keyType, form string, random io.Reader) (*pem.Block, crypto.Signer, error) {
	var bits int
	switch {
	case keyType == "ed25519":
		_, key, err := ed25519.GenerateKey(random)
		if err != nil {
			return nil, nil, err
		}
		return inForm(form, key)
	case strings.HasPrefix(keyType, "ecdsa-"):
		curve := map[string]elliptic.Curve{
			"ecdsa-256": elliptic.P256(), "ecdsa-384": elliptic.P384(), "ecdsa-521": elliptic.P521(),
		}[keyType]
		if curve == nil {
			return nil, nil, fmt.Errorf("%s is no key type", keyType)
		}
		key, err := ecdsa.GenerateKey(curve, random)
		if err != nil {
			return nil, nil, err
		}
		return inForm(form, key)
	}
	if _, err := fmt.Sscanf(keyType, "rsa-%d", &bits); err != nil {
		return nil, nil, err
	}
	key, err := rsa.GenerateKey(random, bits)
	if err != nil {
		return nil, nil, err
	}
	return inForm(cmp.Or(form, formPKCS1), key)
}

// inForm writes a private key in a form of PEM.
func inForm(form string, key crypto.Signer) (*pem.Block, crypto.Signer, error) {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if form == formPKCS1 {
			return &pem.Block{Type: form, Bytes: x509.MarshalPKCS1PrivateKey(k)}, key, nil
		}
	case *ecdsa.PrivateKey:
		if form == formSEC1 {
			der, err := x509.MarshalECPrivateKey(k)
			return &pem.Block{Type: form, Bytes: der}, key, err
		}
	}
	if form == formPKCS8 {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		return &pem.Block{Type: form, Bytes: der}, key, err
	}
	block, err := ssh.MarshalPrivateKey(key, comment)
	return block, key, err
}

func line(key ssh.PublicKey, comment string) string {
	return string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(key))) + " " + comment
}

// authorizedLine is the line to add: the credential's own when it is of the private key, and else
// one that is.
func authorizedLine(c target.Credential, key ssh.PublicKey) string {
	public, text, options, rest, err := ssh.ParseAuthorizedKey([]byte(c.Public))
	if err != nil || len(options) > 0 || len(rest) > 0 || text == "" ||
		strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) ||
		!bytes.Equal(public.Marshal(), key.Marshal()) {
		return line(key, comment)
	}
	return line(key, text)
}
