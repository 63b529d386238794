package consumer

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/keyturn/keyturn/sensitive"
)

const minKey, maxKey = 32, 4096 // bytes

type keyFile string

// KeyFile returns a key in a file. If the file does not exist, it is created with mode 0600. The
// file is refused if other users may read it, or if it lies in the directory that it protects,
// because a copy of that directory must not include the key. Keep the file out of backups of the
// data too.
func KeyFile(path string) Key { return keyFile(path) }

// Load implements [Key].
func (k keyFile) Load(dir string) (sensitive.Value, error) {
	path, err := filepath.Abs(string(k))
	if err != nil || k == "" {
		return sensitive.Value{}, fmt.Errorf("key file %q: not a path", string(k))
	}
	parent := filepath.Dir(path)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return sensitive.Value{}, fmt.Errorf("create the directory of the key file: %w", err)
	}
	inside, err := within(parent, dir)
	switch {
	case err != nil:
		return sensitive.Value{}, fmt.Errorf("key file %s: %w", path, err)
	case inside:
		return sensitive.Value{}, fmt.Errorf("key file %s lies in the directory that it protects; name another place", path)
	}
	key, err := readKey(path, true)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := makeKey(path); err != nil {
		return sensitive.Value{}, fmt.Errorf("create key file %s: %w", path, err)
	}
	return readKey(path, true)
}

// within reports whether path is dir or lies below it, after following links.
func within(path, dir string) (bool, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return false, err
	}
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)), nil
}

// readKey reads a key file. It follows links: Load has checked where the file itself lies. If
// private is set, the mode must give other users no permission.
func readKey(path string, private bool) (sensitive.Value, error) {
	f, err := os.Open(path)
	if err != nil {
		return sensitive.Value{}, fmt.Errorf("key file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return sensitive.Value{}, fmt.Errorf("key file: %w", err)
	case !info.Mode().IsRegular():
		return sensitive.Value{}, fmt.Errorf("key file %s is not a regular file", path)
	case private && open(info):
		return sensitive.Value{}, fmt.Errorf("key file %s has mode %#o; others must not read it: chmod 600",
			path, info.Mode().Perm())
	case info.Size() < minKey || info.Size() > maxKey:
		return sensitive.Value{}, fmt.Errorf("key file %s has %d bytes; it must have %d to %d",
			path, info.Size(), minKey, maxKey)
	}
	key, err := io.ReadAll(io.LimitReader(f, maxKey))
	if err != nil {
		return sensitive.Value{}, fmt.Errorf("key file: %w", err)
	}
	return sensitive.New(string(key)), nil
}

// makeKey creates a key file. It links a complete file to path, so no process reads half a key. If
// another process created the file first, that file stays.
func makeKey(path string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix+"*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	key := make([]byte, minKey)
	_, _ = rand.Read(key) // never fails
	_, err = f.Write(key)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(path))
}

type systemdCredential string

// SystemdCredential returns a key that systemd passes to a service (LoadCredentialEncrypted=name),
// which systemd can encrypt with the TPM of the machine. It must have at least 32 bytes.
func SystemdCredential(name string) Key { return systemdCredential(name) }

// Load implements [Key].
func (k systemdCredential) Load(string) (sensitive.Value, error) {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	switch {
	case k == "" || k == "." || k == ".." || strings.ContainsAny(string(k), `/\`):
		return sensitive.Value{}, fmt.Errorf("credential %q: not the name of a credential", string(k))
	case dir == "":
		return sensitive.Value{}, fmt.Errorf("credential %q: CREDENTIALS_DIRECTORY is not set; "+
			"systemd sets it for a service with LoadCredential or LoadCredentialEncrypted", string(k))
	}
	// systemd mounts the directory for this service alone, so the mode of the file does not matter.
	return readKey(filepath.Join(dir, string(k)), false)
}
