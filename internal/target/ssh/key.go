package ssh

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

const comment = "keyturn"

var keyTypes = []string{"ed25519", "rsa-2048", "rsa-3072", "rsa-4096"}

// isKey reports whether the secret is a private key; else it is a password.
func isKey(c target.Credential) bool {
	return strings.Contains(c.Secret.Reveal(), "-----BEGIN ")
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
	keyType := h.KeyType
	if keyType == "" {
		keyType = typeOf(old)
	}
	block, private, err := newKey(keyType, random)
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

// typeOf is the type of a key in use, if it is one that is made here.
func typeOf(old target.Credential) string {
	raw, err := ssh.ParseRawPrivateKey([]byte(old.Secret.Reveal()))
	if key, ok := raw.(*rsa.PrivateKey); err == nil && ok {
		if t := fmt.Sprintf("rsa-%d", key.N.BitLen()); slices.Contains(keyTypes, t) {
			return t
		}
		return "rsa-4096"
	}
	return "ed25519"
}

// newKey makes an RSA key in the form of PKCS#1, which the oldest programs read, and an Ed25519 key
// in that of OpenSSH.
func newKey(keyType string, random io.Reader) (*pem.Block, crypto.Signer, error) {
	if keyType == "ed25519" {
		_, key, err := ed25519.GenerateKey(random)
		if err != nil {
			return nil, nil, err
		}
		block, err := ssh.MarshalPrivateKey(key, comment)
		return block, key, err
	}
	var bits int
	if _, err := fmt.Sscanf(keyType, "rsa-%d", &bits); err != nil {
		return nil, nil, err
	}
	key, err := rsa.GenerateKey(random, bits)
	if err != nil {
		return nil, nil, err
	}
	return &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}, key, nil
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

// listed says what a list of keys tells of one. Options that may shut a key out (from,
// expiry-time…) leave it unknown.
func listed(text string, key ssh.PublicKey) target.Liveness {
	found := target.Dead
	for l := range strings.Lines(text) {
		public, _, options, _, err := ssh.ParseAuthorizedKey([]byte(l))
		if err != nil || !bytes.Equal(public.Marshal(), key.Marshal()) || slices.Contains(options, "cert-authority") {
			continue
		}
		if !slices.ContainsFunc(options, limits) {
			return target.Live
		}
		found = target.NotKnown
	}
	return found
}

func limits(option string) bool {
	name, _, _ := strings.Cut(strings.ToLower(option), "=")
	return name == "from" || name == "expiry-time" || name == "verify-required"
}
