// Package root provides the root key, which wraps the customer master keys and the access-key
// secrets. It is never in the store: without it the store is unreadable, and with another one the
// server refuses to start.
package root

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/ownfile"
)

const (
	keySize = 32
	idSize  = 8
	prefix  = "keyturn-root-key-v1:"
	// The first byte of everything that a root key has wrapped. In the second format the ID of the key
	// follows; it is used from the first rotation of the root key on, so that releases that do not
	// know it can share the store until then.
	version   = 1
	versionID = 2
	// maxKeys bounds how many keys a provider may hold: the one in use, one before it and one after
	// it, with some to spare.
	maxKeys = 8
)

// Key wraps and unwraps with AES-256-GCM and a random nonce. The additional data binds what is
// wrapped to its place.
type Key struct {
	aead     cipher.AEAD
	name     string
	id       string
	material []byte
}

// Provider finds the root keys. create allows it to make one, which the server asks for only when
// the store is new. Name says for people where the keys come from.
type Provider interface {
	Load(create bool) (*Ring, error)
	Name() string
}

// Keeper is a provider that can keep other keys than it has.
type Keeper interface {
	Provider
	// Keep replaces the keys, all at once: after a crash there are the ones or the others.
	Keep(keys []*Key) error
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
	mac := hmac.New(sha256.New, material)
	mac.Write([]byte("keyturn root key id"))
	return &Key{
		aead:     aead,
		name:     name,
		id:       hex.EncodeToString(mac.Sum(nil)[:idSize]),
		material: bytes.Clone(material),
	}, nil
}

// Generate makes a new key.
func Generate(name string) (*Key, error) {
	material := make([]byte, keySize)
	if _, err := rand.Read(material); err != nil {
		return nil, fmt.Errorf("make a root key: %w", err)
	}
	return New(material, name)
}

// ID identifies the key. It reveals nothing about the key.
func (k *Key) ID() string { return k.id }

// Name returns where the key came from, for messages.
func (k *Key) Name() string { return k.name }

// Wrap seals plain under the key.
func (k *Key) Wrap(plain, additional []byte) []byte {
	return k.aead.Seal([]byte{version}, nil, plain, additional)
}

// wrapID is Wrap in the format that names the key.
func (k *Key) wrapID(plain, additional []byte) []byte {
	id, err := hex.DecodeString(k.id)
	if err != nil {
		panic("root: " + err.Error()) // the ID is of our own making
	}
	return k.aead.Seal(append([]byte{versionID}, id...), nil, plain, additional)
}

// Unwrap opens what Wrap sealed with the same additional data.
func (k *Key) Unwrap(wrapped, additional []byte) ([]byte, error) {
	id, sealed, err := split(wrapped)
	if err != nil {
		return nil, err
	}
	if id != "" && id != k.id {
		return nil, fmt.Errorf("wrapped by the root key with ID %s, and the one from %s has ID %s", id, k.name, k.id)
	}
	plain, err := k.aead.Open(nil, nil, sealed, additional)
	if err != nil {
		return nil, fmt.Errorf("does not open with the root key from %s", k.name)
	}
	return plain, nil
}

// split takes apart what was wrapped. id is empty in the first format.
func split(wrapped []byte) (id string, sealed []byte, err error) {
	switch {
	case len(wrapped) > 0 && wrapped[0] == version:
		return "", wrapped[1:], nil
	case len(wrapped) > idSize && wrapped[0] == versionID:
		return hex.EncodeToString(wrapped[1 : 1+idSize]), wrapped[1+idSize:], nil
	}
	return "", nil, errors.New("wrapped by an unknown format of root key")
}

// Text is the form in which a root key is kept in a file or in the environment.
func Text(material []byte) string { return prefix + base64.StdEncoding.EncodeToString(material) }

// parseAll reads one key for each line. The error never quotes one.
func parseAll(text, name string) ([]*Key, error) {
	var keys []*Key
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == "" && len(keys) > 0 {
			continue
		}
		k, err := parse(line, name)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(keys, func(other *Key) bool { return other.id == k.id }) {
			return nil, fmt.Errorf("a root key is twice in %s", name)
		}
		if keys = append(keys, k); len(keys) > maxKeys {
			return nil, fmt.Errorf("%s holds more than %d root keys", name, maxKeys)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("there is no root key in %s", name)
	}
	return keys, nil
}

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

// Load reads the file: one key for each line. When it is missing and create is set, the file is
// made: it is complete and on disk before its name exists, so that a crash leaves either a whole
// key or none.
func (f File) Load(create bool) (*Ring, error) {
	keys, err := f.read()
	if errors.Is(err, fs.ErrNotExist) && create {
		keys, err = f.create()
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the root key file %s is missing: restore it from its copy; "+
			"a new key cannot open what is sealed with the old one", f.Path)
	}
	if err != nil {
		return nil, err
	}
	return newRing(keys, f.read), nil
}

func (f File) read() ([]*Key, error) {
	if err := f.Trust.CheckSecret(f.Path); err != nil {
		return nil, fmt.Errorf("root key file: %w", err)
	}
	text, err := os.ReadFile(f.Path)
	if err != nil {
		return nil, fmt.Errorf("root key file: %w", err)
	}
	return parseAll(string(text), f.Name())
}

func (f File) create() ([]*Key, error) {
	if err := f.Trust.CheckDir(filepath.Dir(f.Path)); err != nil {
		return nil, fmt.Errorf("root key file: %w", err)
	}
	k, err := Generate(f.Name())
	if err != nil {
		return nil, err
	}
	return []*Key{k}, f.Keep([]*Key{k})
}

// Keep replaces the file.
func (f File) Keep(keys []*Key) error {
	var b strings.Builder
	for _, k := range keys {
		b.WriteString(Text(k.material) + "\n")
	}
	if err := WriteFile(f.Path, []byte(b.String())); err != nil {
		return fmt.Errorf("root key file: %w", err)
	}
	return nil
}

// WriteFile writes a file of mode 0600 so that after a crash it is there whole or not at all, and
// is on disk when the call returns.
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

// Env reads the root key from an environment variable: the text of a key file, or Base64 of 32
// bytes. During the replacement of the root key, a second variable, whose name ends in
// [Additional], holds the other one.
type Env struct{ Variable string }

// Additional ends the name of the variable with further root keys.
const Additional = "_ADDITIONAL"

// Name says where the key comes from.
func (e Env) Name() string { return "environment variable " + e.Variable }

// Load reads the variables. It never makes a key: nothing could keep it.
func (e Env) Load(bool) (*Ring, error) {
	keys, err := e.read()
	if err != nil {
		return nil, err
	}
	return newRing(keys, e.read), nil
}

func (e Env) read() ([]*Key, error) {
	text := os.Getenv(e.Variable)
	if text == "" {
		return nil, fmt.Errorf("the environment variable %s, which must hold the root key, is not set", e.Variable)
	}
	if more := os.Getenv(e.Variable + Additional); more != "" {
		text += "\n" + more
	}
	return parseAll(text, e.Name())
}
