// Package envelope seals values: root key, customer master key, one data key for each secret
// version, value.
//
// Every seal binds account, secret name, version and key as additional data, so a ciphertext that
// is moved to another record does not open. A stored box begins with its format version; every
// version ever released stays readable.
package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/keyturn/keyturn/internal/cmk"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/sensitive"
)

const (
	format      = 1
	keySize     = 32
	sealSize    = 28 // 12 bytes of nonce, 16 of tag
	wrappedSize = keySize + sealSize
)

// Binding says where a value belongs. All of it is bound into the seal.
type Binding struct {
	Account, Secret, Version string
}

// Root is the root key, wherever it is kept. The additional data binds what is wrapped to its
// place.
type Root interface {
	Wrap(plain, additional []byte) []byte
	Unwrap(wrapped, additional []byte) ([]byte, error)
	// Name says for people where the key is kept.
	Name() string
}

// Keyring opens and seals with the keys of one root key. It keeps unwrapped key material in memory,
// which is what it is for. It is safe for concurrent use.
type Keyring struct {
	root Root

	mu   sync.RWMutex
	keys map[string]*unwrapped // guarded by mu; by the wrapped material

	data dataKeys
}

type unwrapped struct {
	aead   cipher.AEAD
	digest []byte
}

// New returns a keyring under a root key.
func New(k Root) *Keyring {
	return &Keyring{root: k, keys: map[string]*unwrapped{}}
}

// additional joins the parts so that no two lists make the same bytes.
func additional(purpose string, parts ...string) []byte {
	const prefix = "keyturn/"
	size := len(prefix) + len(purpose) + len(parts)*binary.MaxVarintLen16 + wrappedSize // room for a data key to follow
	for _, p := range parts {
		size += len(p)
	}
	b := append(append(make([]byte, 0, size), prefix...), purpose...)
	for _, p := range parts {
		b = binary.AppendUvarint(b, uint64(len(p)))
		b = append(b, p...)
	}
	return b
}

// NewKey makes a customer master key with its first version.
func (r *Keyring) NewKey(account, id, creator string, now time.Time) (cmk.Key, error) {
	material, digest := make([]byte, keySize), make([]byte, keySize)
	if _, err := rand.Read(material); err != nil {
		return cmk.Key{}, fmt.Errorf("make a key: %w", err)
	}
	if _, err := rand.Read(digest); err != nil {
		return cmk.Key{}, fmt.Errorf("make a key: %w", err)
	}
	version := uuid.NewString()
	return cmk.Key{
		Account:   account,
		ID:        id,
		State:     cmk.Enabled,
		Creator:   creator,
		CreatedAt: now,
		Primary:   version,
		Versions:  []cmk.Version{r.version(account, id, version, material, now)},
		DigestKey: r.root.Wrap(digest, additional("digest", account, id)),
	}, nil
}

// material finds the unwrapped form of one version of a key.
func (r *Keyring) material(k cmk.Key, version string) (*unwrapped, error) {
	v, ok := k.Version(version)
	if !ok {
		return nil, fmt.Errorf("key %s has no version %q", k.ID, version)
	}
	r.mu.RLock()
	u := r.keys[string(v.Material)] // the conversion copies nothing here
	r.mu.RUnlock()
	if u != nil {
		return u, nil
	}
	u, err := r.unwrap(k, v)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", k.ID, err)
	}
	r.mu.Lock()
	r.keys[string(v.Material)] = u
	r.mu.Unlock()
	return u, nil
}

func (r *Keyring) unwrap(k cmk.Key, v cmk.Version) (*unwrapped, error) {
	material, err := r.root.Unwrap(v.Material, additional("cmk", k.Account, k.ID, v.ID))
	if err != nil {
		return nil, err
	}
	digest, err := r.root.Unwrap(k.DigestKey, additional("digest", k.Account, k.ID))
	if err != nil {
		return nil, err
	}
	aead, err := newAEAD(material)
	return &unwrapped{aead: aead, digest: digest}, err
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// Seal makes the box of a value: format, key version, wrapped data key, sealed value. The key is
// checked for use.
func (r *Keyring) Seal(k cmk.Key, b Binding, value sensitive.Value) ([]byte, error) {
	if err := k.Usable(); err != nil {
		return nil, err
	}
	u, err := r.material(k, k.Primary)
	if err != nil {
		return nil, err
	}
	dataKey := make([]byte, keySize)
	if _, err := rand.Read(dataKey); err != nil {
		return nil, fmt.Errorf("make a data key: %w", err)
	}
	aead, err := newAEAD(dataKey)
	if err != nil {
		return nil, err
	}
	box := append(make([]byte, 0, 2+len(k.Primary)+wrappedSize+value.Len()+sealSize), format, byte(len(k.Primary)))
	box = append(box, k.Primary...)
	box = u.aead.Seal(box, nil, dataKey, b.additional("datakey", k.ID, k.Primary))
	return aead.Seal(box, nil, []byte(value.Reveal()), b.additional("value", k.ID, k.Primary)), nil
}

func (b Binding) additional(purpose, key, version string) []byte {
	return additional(purpose, b.Account, b.Secret, b.Version, key, version)
}

// ErrDamaged is a box that does not open: it was changed, moved from another record, or sealed
// under another key.
var ErrDamaged = errors.New("the sealed value is damaged or is not this record's")

// Open opens a box. The key is checked for use.
func (r *Keyring) Open(k cmk.Key, b Binding, box []byte) (sensitive.Value, error) {
	if err := k.Usable(); err != nil {
		return sensitive.Value{}, err
	}
	version, rest, err := split(box)
	if err != nil {
		return sensitive.Value{}, err
	}
	u, err := r.material(k, version)
	if err != nil {
		return sensitive.Value{}, errors.Join(ErrDamaged, err)
	}
	aead, err := r.dataKey(u, b.additional("datakey", k.ID, version), rest[:wrappedSize])
	if err != nil {
		return sensitive.Value{}, err
	}
	plain, err := aead.Open(nil, nil, rest[wrappedSize:], b.additional("value", k.ID, version))
	if err != nil {
		return sensitive.Value{}, ErrDamaged
	}
	return sensitive.New(string(plain)), nil
}

// dataKey opens a wrapped data key, or finds it opened. The master key was checked for use before.
func (r *Keyring) dataKey(u *unwrapped, additional, wrapped []byte) (cipher.AEAD, error) {
	id := append(additional, wrapped...) // wrapped has a fixed length, so no two pairs make the same bytes
	if aead, ok := r.data.get(id); ok {
		return aead, nil
	}
	key, err := u.aead.Open(nil, nil, wrapped, additional)
	if err != nil {
		return nil, ErrDamaged
	}
	aead, err := newAEAD(key)
	if err == nil {
		r.data.add(id, aead)
	}
	return aead, err
}

func split(box []byte) (version string, rest []byte, err error) {
	if len(box) < 2 || box[0] != format {
		return "", nil, fmt.Errorf("%w: unknown format", ErrDamaged)
	}
	n := 2 + int(box[1])
	if len(box) < n+wrappedSize {
		return "", nil, fmt.Errorf("%w: too short", ErrDamaged)
	}
	return string(box[2:n]), box[n:], nil
}

// Digest identifies a value under the key of its secret: equal for equal values of the same record.
// Without the key it reveals nothing.
func (r *Keyring) Digest(k cmk.Key, b Binding, value sensitive.Value) (secret.Digest, error) {
	u, err := r.material(k, k.Primary)
	if err != nil {
		return secret.Digest{}, err
	}
	mac := hmac.New(sha256.New, u.digest)
	mac.Write(b.additional("digest", k.ID, ""))
	mac.Write([]byte(value.Reveal()))
	return secret.Digest(mac.Sum(nil)), nil
}

// SealAccessKey wraps a part of an access key (its secret, its token) under the root key.
func (r *Keyring) SealAccessKey(id, part string, value sensitive.Value) []byte {
	return r.root.Wrap([]byte(value.Reveal()), additional("accesskey", id, part))
}

// OpenAccessKey opens what SealAccessKey sealed for the same key and part.
func (r *Keyring) OpenAccessKey(id, part string, wrapped []byte) (sensitive.Value, error) {
	plain, err := r.root.Unwrap(wrapped, additional("accesskey", id, part))
	if err != nil {
		return sensitive.Value{}, fmt.Errorf("access key %s: %w", id, err)
	}
	return sensitive.New(string(plain)), nil
}

// version returns a version of a master key, whose material the root key wraps.
func (r *Keyring) version(account, key, id string, material []byte, now time.Time) cmk.Version {
	return cmk.Version{
		ID:        id,
		CreatedAt: now,
		Material:  r.root.Wrap(material, additional("cmk", account, key, id)),
	}
}

// NewTrailKey makes the key of the audit trails of a new store, in the form to be kept: only the
// root key opens it.
func (r *Keyring) NewTrailKey() (sealed []byte, err error) {
	key := make([]byte, keySize)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return r.root.Wrap(key, additional("trail")), nil
}

// OpenTrailKey opens what NewTrailKey sealed, and returns the key of one node's trail: the nodes of
// a cluster have different ones, so that no line of one trail passes for a line of another.
func (r *Keyring) OpenTrailKey(sealed []byte, node string) ([]byte, error) {
	key, err := r.root.Unwrap(sealed, additional("trail"))
	if err != nil {
		return nil, fmt.Errorf("key of the audit trail: %w", err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(additional("trail-node", node))
	return mac.Sum(nil), nil
}
