package keyringkey

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/sensitive"
)

const (
	keyType, keyLength = "user", 32
	// permissions let the owner and any process of the same user read the key, and no other user.
	permissions = 0x3f3f0000
	lockTimeout = 5 * time.Second
)

type key string

// New returns the key of the given name in the keyring of the user. If it does not exist, the first
// Load creates it.
func New(name string) consumer.Key { return key(name) }

// Load implements [consumer.Key].
func (k key) Load(dir string) (sensitive.Value, error) {
	if k == "" {
		return sensitive.Value{}, errors.New("the key of the keyring has no name")
	}
	id, err := k.search()
	if absent(err) {
		id, err = k.make(dir)
	}
	if err != nil {
		return sensitive.Value{}, fmt.Errorf("key %q of the user's keyring: %w", string(k), err)
	}
	material := make([]byte, 4096)
	n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, material, 0)
	if err != nil {
		return sensitive.Value{}, fmt.Errorf("read key %q of the user's keyring: %w", string(k), err)
	}
	if n > len(material) {
		return sensitive.Value{}, fmt.Errorf("key %q of the user's keyring has %d bytes; it must have at most %d",
			string(k), n, len(material))
	}
	return sensitive.New(string(material[:n])), nil
}

func (k key) search() (int, error) {
	return unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, keyType, string(k), 0)
}

func absent(err error) bool {
	return errors.Is(err, unix.ENOKEY) || errors.Is(err, unix.EKEYEXPIRED) || errors.Is(err, unix.EKEYREVOKED)
}

// make creates the key, under a lock of the directory: add_key would replace a key of the same name
// that another process has just created.
func (k key) make(dir string) (int, error) {
	f, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer f.Close() // which also ends the lock
	for deadline := time.Now().Add(lockTimeout); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || time.Now().After(deadline) {
			return 0, fmt.Errorf("lock %s: %w", dir, err)
		}
	}
	if id, err := k.search(); !absent(err) {
		return id, err
	}
	material := make([]byte, keyLength)
	_, _ = rand.Read(material) // never fails
	id, err := unix.AddKey(keyType, string(k), material, unix.KEY_SPEC_USER_KEYRING)
	if err != nil {
		return 0, err
	}
	return id, unix.KeyctlSetperm(id, permissions)
}
