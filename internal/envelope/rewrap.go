package envelope

import (
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/keyturn/keyturn/internal/cmk"
)

// rewrap opens what the root key has wrapped, and wraps it anew.
func (r *Keyring) rewrap(wrapped, additional []byte) ([]byte, error) {
	plain, err := r.root.Unwrap(wrapped, additional)
	if err != nil {
		return nil, err
	}
	return r.root.Wrap(plain, additional), nil
}

// RewrapRecordKey wraps the key of a generation under the root key that wraps now.
func (r *Keyring) RewrapRecordKey(generation uint32, sealed []byte) ([]byte, error) {
	return r.rewrap(sealed, recordsAdditional(generation))
}

// RewrapTrailKey wraps the key of the audit trails under the root key that wraps now.
func (r *Keyring) RewrapTrailKey(sealed []byte) ([]byte, error) {
	return r.rewrap(sealed, additional("trail"))
}

// RewrapAccessKey wraps a part of an access key under the root key that wraps now.
func (r *Keyring) RewrapAccessKey(id, part string, sealed []byte) ([]byte, error) {
	return r.rewrap(sealed, additional("accesskey", id, part))
}

// RewrapKey wraps every version of a master key, and the key of its digests, under the root key
// that wraps now.
func (r *Keyring) RewrapKey(k cmk.Key) (cmk.Key, error) {
	k.Versions = slices.Clone(k.Versions)
	var err error
	for i, v := range k.Versions {
		if k.Versions[i].Material, err = r.rewrap(v.Material, additional("cmk", k.Account, k.ID, v.ID)); err != nil {
			return k, fmt.Errorf("key %s: %w", k.ID, err)
		}
	}
	if k.DigestKey, err = r.rewrap(k.DigestKey, additional("digest", k.Account, k.ID)); err != nil {
		return k, fmt.Errorf("key %s: %w", k.ID, err)
	}
	return k, nil
}

// AddVersion gives a master key a new version, which seals from now on. The others open what they
// have sealed.
func (r *Keyring) AddVersion(k cmk.Key, now time.Time) (cmk.Key, error) {
	material := make([]byte, keySize)
	if _, err := rand.Read(material); err != nil {
		return k, fmt.Errorf("make a key: %w", err)
	}
	return k.WithVersion(r.version(k.Account, k.ID, uuid.NewString(), material, now)), nil
}

// SealedBy returns the version of the master key that a box is sealed with.
func SealedBy(box []byte) (version string, err error) {
	version, _, err = split(box)
	return version, err
}
