package consumer

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

const (
	sealFormat = 1 // the first byte of a file
	sealInfo   = "keyturn consumer: last known good"
	maxFile    = 16 << 20
	tempPrefix = ".new-"
	// saveAgain is how old the confirmation time in a file may become while the value does not
	// change.
	saveAgain = time.Hour
)

// LastGood keeps the last value of each secret on disk, so that an application can start while the
// server is unavailable. Each value is a file of mode 0600, encrypted with AES-256-GCM, bound to
// the name of the secret and to the endpoint, and replaced atomically. A file that is damaged, or
// encrypted with another key, is reported in the log, ignored, and replaced by the next value.
type LastGood struct {
	// Dir is the directory of the files. If it does not exist, it is created with mode 0700. If it
	// does, other users must have no permission on it. Several consumers may share it.
	Dir string
	// Key encrypts the files: [KeyFile], [SystemdCredential], or the kernel's keyring with package
	// keyringkey.
	Key Key
}

// Key is the source of the key that encrypts the files of a [LastGood].
type Key interface {
	// Load returns at least 32 bytes, the same each time. dir is the directory of the encrypted
	// files; the key must not lie there too.
	Load(dir string) (sensitive.Value, error)
}

// disk is an opened LastGood.
type disk struct {
	dir, endpoint string
	aead          cipher.AEAD
}

func (l *LastGood) open(endpoint string) (*disk, error) {
	if l.Dir == "" || l.Key == nil {
		return nil, errors.New("consumer: LastGood needs a Dir and a Key; KeyFile makes one")
	}
	dir, err := filepath.Abs(l.Dir)
	if err != nil {
		return nil, fmt.Errorf("consumer: LastGood.Dir: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("consumer: create LastGood.Dir: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("consumer: LastGood.Dir: %w", err)
	}
	if open(info) {
		return nil, fmt.Errorf("consumer: LastGood.Dir %s has mode %#o; others must not look into it: chmod 700",
			dir, info.Mode().Perm())
	}
	aead, err := l.cipher(dir)
	if err != nil {
		return nil, err
	}
	d := &disk{dir: dir, endpoint: endpoint, aead: aead}
	return d, d.sweep()
}

// cipher returns the cipher of the files in dir.
func (l *LastGood) cipher(dir string) (cipher.AEAD, error) {
	material, err := l.Key.Load(dir)
	if err != nil {
		return nil, fmt.Errorf("consumer: the key of LastGood: %w", err)
	}
	if material.Len() < minKey {
		return nil, fmt.Errorf("consumer: the key of LastGood has %d bytes; it must have at least %d",
			material.Len(), minKey)
	}
	key, err := hkdf.Key(sha256.New, []byte(material.Reveal()), nil, sealInfo, 32)
	if err != nil {
		return nil, fmt.Errorf("consumer: derive the key of LastGood: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("consumer: the key of LastGood: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("consumer: the key of LastGood: %w", err)
	}
	return aead, nil
}

// open reports whether users other than the owner have any permission. Windows has no such mode.
func open(info fs.FileInfo) bool { return runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 }

// sweep removes the temporary files of processes that were killed.
func (d *disk) sweep() error {
	list, err := os.ReadDir(d.dir)
	if err != nil {
		return fmt.Errorf("consumer: LastGood.Dir: %w", err)
	}
	for _, f := range list {
		info, err := f.Info()
		if err == nil && strings.HasPrefix(f.Name(), tempPrefix) && time.Since(info.ModTime()) > time.Hour {
			_ = os.Remove(filepath.Join(d.dir, f.Name())) // fails if another process has removed it
		}
	}
	return nil
}

// record is the content of a file.
type record struct {
	Answer    answer    `json:"answer"`
	FetchedAt time.Time `json:"fetched_at"`
	Confirmed time.Time `json:"confirmed"`
}

// answer is [kms.GetSecretValueResponse] with a value that can be marshalled. Its names are those
// in the files.
type answer struct {
	SecretName, SecretType, SecretData, SecretDataType, VersionID string
	VersionStages                                                 []string
	CreateTime                                                    time.Time
	AutomaticRotation, RotationInterval                           string
	LastRotationDate, NextRotationDate                            time.Time
	ExtendedConfig                                                string
}

func newAnswer(r *kms.GetSecretValueResponse) answer {
	return answer{
		SecretName:        r.SecretName,
		SecretType:        r.SecretType,
		SecretData:        r.SecretData.Reveal(),
		SecretDataType:    r.SecretDataType,
		VersionID:         r.VersionID,
		VersionStages:     r.VersionStages,
		CreateTime:        r.CreateTime,
		AutomaticRotation: r.AutomaticRotation,
		RotationInterval:  r.RotationInterval,
		LastRotationDate:  r.LastRotationDate,
		NextRotationDate:  r.NextRotationDate,
		ExtendedConfig:    r.ExtendedConfig,
	}
}

func (a answer) response() *kms.GetSecretValueResponse {
	return &kms.GetSecretValueResponse{
		SecretName:        a.SecretName,
		SecretType:        a.SecretType,
		SecretData:        sensitive.New(a.SecretData),
		SecretDataType:    a.SecretDataType,
		VersionID:         a.VersionID,
		VersionStages:     a.VersionStages,
		CreateTime:        a.CreateTime,
		AutomaticRotation: a.AutomaticRotation,
		RotationInterval:  a.RotationInterval,
		LastRotationDate:  a.LastRotationDate,
		NextRotationDate:  a.NextRotationDate,
		ExtendedConfig:    a.ExtendedConfig,
	}
}

func (d *disk) path(name string) string {
	sum := sha256.Sum256([]byte(d.endpoint + "\x00" + name))
	return filepath.Join(d.dir, hex.EncodeToString(sum[:16])+".sealed")
}

// bound returns the associated data of a file, so that it opens under no other name, for no other
// endpoint, and as no other format.
func (d *disk) bound(name string) []byte {
	b := append([]byte(sealInfo), 0, sealFormat)
	b = binary.BigEndian.AppendUint32(b, uint32(len(d.endpoint)))
	return append(append(b, d.endpoint...), name...)
}

// write replaces the file of a secret atomically.
func (d *disk) write(s *Secret, confirmed time.Time) (err error) {
	plain, err := json.Marshal(record{
		Answer:    newAnswer(&s.answer),
		FetchedAt: s.FetchedAt.UTC(),
		Confirmed: confirmed.UTC(),
	})
	if err != nil {
		return errors.New("the value cannot be encoded") // package json may quote it
	}
	f, err := os.CreateTemp(d.dir, tempPrefix+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(append([]byte{sealFormat}, d.aead.Seal(nil, nil, plain, d.bound(s.Name))...))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), d.path(s.Name)); err != nil {
		return err
	}
	return syncDir(d.dir)
}

// syncDir makes a rename durable. Windows has no such call.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// read returns the last known good value of a secret and when the server had confirmed it; nil if
// there is none.
func (d *disk) read(name string) (*Secret, time.Time, error) {
	f, err := os.Open(d.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, time.Time{}, nil
	}
	if err != nil {
		return nil, time.Time{}, err
	}
	defer f.Close()
	sealed, err := io.ReadAll(io.LimitReader(f, maxFile))
	switch {
	case err != nil:
		return nil, time.Time{}, err
	case len(sealed) == 0 || sealed[0] != sealFormat:
		return nil, time.Time{}, fmt.Errorf("%s is damaged, or of a later format", f.Name())
	}
	plain, err := d.aead.Open(nil, nil, sealed[1:], d.bound(name))
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("%s is damaged, or encrypted with another key", f.Name())
	}
	var r record
	if json.Unmarshal(plain, &r) != nil || r.Answer.VersionID == "" {
		return nil, time.Time{}, fmt.Errorf("%s holds no value", f.Name())
	}
	return newSecret(name, r.Answer.response(), r.FetchedAt, SourceDisk), r.Confirmed, nil
}

func (d *disk) remove(name string) error {
	if err := os.Remove(d.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(d.dir)
}

// load reads the last known good value, before the first read from the server.
func (c *Consumer) load(e *entry) {
	if c.disk == nil {
		return
	}
	s, confirmed, err := c.disk.read(e.name)
	if err != nil {
		c.diskFailed("a last known good value cannot be read; it is ignored", e, err)
		return
	}
	e.mu.Lock()
	e.disk, e.diskTime = s, confirmed
	e.mu.Unlock()
}

// persist updates the value on disk after a read. It runs after the callers that waited for the
// read have their answer.
func (c *Consumer) persist(e *entry) {
	if c.disk == nil {
		return
	}
	if s := e.current.Load(); s != nil && s.Source == SourceServer {
		c.save(e, s)
	} else if s == nil && e.forbidden {
		c.removeSaved(e)
	}
	e.forbidden = false
}

// save writes a value that is new, or whose confirmation time on disk is old.
func (c *Consumer) save(e *entry, s *Secret) {
	again := saveAgain
	if bound := c.config.MaxStale; bound > 0 {
		again = min(again, bound/4)
	}
	if e.saved != nil && e.saved.sameAs(s) && s.FetchedAt.Sub(e.saved.FetchedAt) < again {
		return
	}
	if err := c.disk.write(s, s.FetchedAt); err != nil {
		c.diskFailed("a last known good value cannot be written", e, err)
		return
	}
	e.saved = s
}

// removeSaved removes a value that the server has taken away.
func (c *Consumer) removeSaved(e *entry) {
	e.saved = nil
	if err := c.disk.remove(e.name); err != nil {
		c.diskFailed("a last known good value cannot be removed", e, err)
	}
}

func (c *Consumer) diskFailed(what string, e *entry, err error) {
	c.counters.diskFailures.Add(1)
	c.log.Error(what, "secret", e.name, "err", err)
}
