package agent

import (
	"crypto/rand"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/keyturn/keyturn/sensitive"
)

// keySize is what a key that is made here has.
const keySize = 32

// Load reads a key of the user's keyring, and makes it when there is none.
func (k keyring) Load(string) (sensitive.Value, error) {
	data, err := k.find()
	if err != nil {
		return sensitive.Value{}, err
	}
	return sensitive.New(string(data)), nil
}

func (k keyring) find() ([]byte, error) {
	name := string(k)
	id, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, "user", name, 0)
	if err != nil {
		fresh := make([]byte, keySize)
		if _, err := rand.Read(fresh); err != nil {
			return nil, err
		}
		if id, err = unix.AddKey("user", name, fresh, unix.KEY_SPEC_USER_KEYRING); err != nil {
			return nil, fmt.Errorf("make the key %q in the user's keyring: %w", name, err)
		}
	}
	data := make([]byte, 1024)
	n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, data, 0)
	if err != nil {
		return nil, fmt.Errorf("read the key %q of the user's keyring: %w", name, err)
	}
	if n != keySize {
		return nil, fmt.Errorf("the key %q of the user's keyring has %d bytes and not %d: name another", name, n, keySize)
	}
	return data[:n], nil
}
