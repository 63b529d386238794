package agent

import (
	"crypto/rand"
	"fmt"

	"golang.org/x/sys/unix"
)

// keyringKey reads a key of the user's keyring, and makes it when there is none.
func keyringKey(name string) ([]byte, error) {
	id, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, "user", name, 0)
	if err != nil {
		fresh := make([]byte, sealKeySize)
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
	if n != sealKeySize {
		return nil, fmt.Errorf("the key %q of the user's keyring has %d bytes and not %d: name another", name, n, sealKeySize)
	}
	return sealKey(data[:n])
}
