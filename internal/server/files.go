package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keyturn/keyturn/internal/root"
)

// checkFiles verifies that no other user can have written the files that the server relies on. It
// runs before any of them is read: an access key or a root key that another user has planted would
// make that user the administrator. A file that does not exist yet passes, because the server
// creates it in a directory that was verified.
func checkFiles(c Config) error {
	tree := func(dir string) error {
		_, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return c.Trust.CheckTree(dir)
	}
	errs := []error{tree(c.DataDir), tree(c.AuditDir)}
	secrets := []string{adminPath(c.DataDir), filepath.Join(c.DataDir, tlsDir, caKeyName),
		filepath.Join(c.DataDir, tlsDir, nextName), c.TLSKeyFile}
	if f, ok := c.RootKey.(root.File); ok {
		secrets = append(secrets, f.Path)
	}
	public := []string{c.TLSCertFile, filepath.Join(c.DataDir, tlsDir, caName)}
	if c.Cluster != nil {
		secrets = append(secrets, c.Cluster.KeyFile)
		public = append(public, c.Cluster.CertFile, c.Cluster.CAFile)
	}
	return errors.Join(append(errs, present(c.Trust.CheckSecret, secrets), present(c.Trust.CheckFile, public))...)
}

// present applies check to the files that are there.
func present(check func(string) error, files []string) error {
	var errs []error
	for _, path := range files {
		if path == "" {
			continue
		}
		if err := check(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// makeDataDir makes the data directory if it is missing, and verifies it and what is in it.
func makeDataDir(c Config) error {
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if err := checkFiles(c); err != nil {
		return fmt.Errorf("files that others can change or read are not used:\n%w", err)
	}
	return nil
}

func adminPath(dataDir string) string { return filepath.Join(dataDir, "admin.json") }
