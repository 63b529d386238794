// Package root provides the root key, which wraps the customer master keys and the access-key secrets. It is never in
// the store: without it the store is unreadable, and with another one the server refuses to start.
package root

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/keyturn/keyturn/internal/ownfile"
)

const (
	keySize = 32
	prefix  = "keyturn-root-key-v1:"
	// version is the first byte of everything that a root key has wrapped.
	version = 1
)

// Key wraps and unwraps with AES-256-GCM and a random nonce. The additional data binds what is wrapped to its place.
type Key struct {
	aead cipher.AEAD
	name string
}

// Provider finds the root key. create allows it to make one, which the server asks for only when the store is new.
// Name says for people where the key comes from.
type Provider interface {
	Load(create bool) (*Key, error)
	Name() string
}

// New makes a key of 32 bytes. name says where they came from.
func New(material []byte, name string) (*Key, error) {
	if len(material) != keySize {
		return nil, fmt.Errorf("the root key from %s has %d bytes; it needs %d", name, len(material), keySize)
	}
	block, err := aes.NewCipher(material)
	if err != nil {
		return nil, fmt.Errorf("root key from %s: %w", name, err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("root key from %s: %w", name, err)
	}
	return &Key{aead: aead, name: name}, nil
}

// Name says where the key came from.
func (k *Key) Name() string { return k.name }

// Wrap seals plain under the key.
func (k *Key) Wrap(plain, additional []byte) []byte {
	return k.aead.Seal([]byte{version}, nil, plain, additional)
}

// Unwrap opens what Wrap sealed with the same additional data.
func (k *Key) Unwrap(wrapped, additional []byte) ([]byte, error) {
	if len(wrapped) == 0 || wrapped[0] != version {
		return nil, errors.New("wrapped by an unknown format of root key")
	}
	plain, err := k.aead.Open(nil, nil, wrapped[1:], additional)
	if err != nil {
		return nil, fmt.Errorf("does not open with the root key from %s", k.name)
	}
	return plain, nil
}

// Text is the form in which a root key is kept in a file or in the environment.
func Text(material []byte) string { return prefix + base64.StdEncoding.EncodeToString(material) }

// parse reads that form. The error never quotes it.
func parse(text, name string) (*Key, error) {
	material, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(strings.TrimSpace(text), prefix))
	if err != nil {
		return nil, fmt.Errorf("the root key from %s is not %s and Base64 of %d bytes", name, prefix, keySize)
	}
	return New(material, name)
}

// File keeps the root key in a file of mode 0600.
type File struct {
	Path string
	// Trust says who else may write the file.
	Trust ownfile.Trust
}

// Name says where the key comes from.
func (f File) Name() string { return "file " + f.Path }

// Load reads the file. When it is missing and create is set, the file is made: it is complete and on disk before its
// name exists, so that a crash leaves either a whole key or none.
func (f File) Load(create bool) (*Key, error) {
	err := f.Trust.CheckSecret(f.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && create:
		return f.create()
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the root key file %s is missing: put the file back from its copy; a new key cannot open what is sealed with the old one", f.Path)
	case err != nil:
		return nil, fmt.Errorf("root key file: %w", err)
	}
	text, err := os.ReadFile(f.Path)
	if err != nil {
		return nil, fmt.Errorf("root key file: %w", err)
	}
	return parse(string(text), f.Name())
}

func (f File) create() (*Key, error) {
	if err := f.Trust.CheckDir(filepath.Dir(f.Path)); err != nil {
		return nil, fmt.Errorf("root key file: %w", err)
	}
	material := make([]byte, keySize)
	if _, err := rand.Read(material); err != nil {
		return nil, fmt.Errorf("make a root key: %w", err)
	}
	if err := WriteFile(f.Path, []byte(Text(material)+"\n")); err != nil {
		return nil, fmt.Errorf("root key file: %w", err)
	}
	return New(material, f.Name())
}

// WriteFile writes a file of mode 0600 so that after a crash it is there whole or not at all, and is on disk when the
// call returns.
func WriteFile(path string, data []byte) error {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Env takes the root key from an environment variable: the text of a key file, or Base64 of 32 bytes.
type Env struct{ Variable string }

// Name says where the key comes from.
func (e Env) Name() string { return "environment variable " + e.Variable }

// Load reads the variable. It never makes a key: nothing could keep it.
func (e Env) Load(bool) (*Key, error) {
	text := os.Getenv(e.Variable)
	if text == "" {
		return nil, fmt.Errorf("the environment variable %s, which must hold the root key, is not set", e.Variable)
	}
	return parse(text, e.Name())
}
