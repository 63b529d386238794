// Package cmk holds customer master keys and their states. A CMK wraps data keys; its own material
// is wrapped by the root key and never here in clear.
package cmk

import (
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
)

// State says what a key may be used for.
type State string

// Enabled keys seal and open. The other states come with the key operations.
const Enabled State = "Enabled"

// DefaultCreator marks the key that the service makes for an account's secrets. Callers cannot use
// or delete it.
const DefaultCreator = "keyturn"

// Key is a customer master key.
type Key struct {
	Account   string    `json:"account"`
	ID        string    `json:"id"`
	State     State     `json:"state"`
	Creator   string    `json:"creator"`
	CreatedAt time.Time `json:"created_at"`
	// Primary is the ID of the version that seals; any version opens what it has sealed.
	Primary  string    `json:"primary"`
	Versions []Version `json:"versions"`
	// DigestKey is wrapped by the root key. It keys the digests of values, so that a digest reveals
	// nothing.
	DigestKey []byte `json:"digest_key"`
}

// Version is one piece of key material.
type Version struct {
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"created_at"`
	// Material is wrapped by the root key.
	Material []byte `json:"material"`
}

// ARN names the key across accounts and regions.
func ARN(region, account, id string) string {
	return "acs:kms:" + region + ":" + account + ":key/" + id
}

// Usable refuses a key that is not enabled.
func (k Key) Usable() error {
	if k.State != Enabled {
		return fault.New(fault.KeyDisabled, "Key %s is %s.", k.ID, k.State)
	}
	return nil
}

// Version finds a version of the key.
func (k Key) Version(id string) (Version, bool) {
	for _, v := range k.Versions {
		if v.ID == id {
			return v, true
		}
	}
	return Version{}, false
}

// WithVersion returns the key with one more version, which seals from now on.
func (k Key) WithVersion(v Version) Key {
	k.Versions = append(slices.Clone(k.Versions), v)
	k.Primary = v.ID
	return k
}
