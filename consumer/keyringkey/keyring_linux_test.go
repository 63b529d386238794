package keyringkey

import (
	"crypto/rand"
	"errors"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestKey(t *testing.T) {
	t.Parallel()
	name := "keyturn-test-" + rand.Text()
	dir := t.TempDir()
	first, err := New(name).Load(dir)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		t.Skipf("this machine gives no access to the keyring: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if id, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, keyType, name, 0); err == nil {
			_, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_USER_KEYRING, 0, 0)
		}
	})
	again, err := New(name).Load(dir)
	if err != nil || first.Len() != keyLength || !first.Equal(again) {
		t.Errorf("Load = %d bytes, then %d, %v; want the same %d", first.Len(), again.Len(), err, keyLength)
	}
	if _, err := New("").Load(dir); err == nil {
		t.Error("a key without a name is taken")
	}
}

// TestKeyIsMadeOnce verifies that processes that start together agree on one key.
func TestKeyIsMadeOnce(t *testing.T) {
	t.Parallel()
	name := "keyturn-test-" + rand.Text()
	dir := t.TempDir()
	keys := make([]string, 16)
	errs := make([]error, len(keys))
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			v, err := New(name).Load(dir)
			keys[i], errs[i] = v.Reveal(), err
		})
	}
	wg.Wait()
	for i := range keys {
		if errors.Is(errs[i], unix.ENOSYS) || errors.Is(errs[i], unix.EPERM) || errors.Is(errs[i], unix.EACCES) {
			t.Skipf("this machine gives no access to the keyring: %v", errs[i])
		}
		if errs[i] != nil || keys[i] != keys[0] {
			t.Errorf("two keys were made, or %v", errs[i])
		}
	}
	if id, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, keyType, name, 0); err == nil {
		_, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_USER_KEYRING, 0, 0)
	}
}
