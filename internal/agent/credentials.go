package agent

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/keyturn/keyturn/internal/ownfile"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// credentialsDirectory is the variable by which systemd says where a unit's credentials are.
const credentialsDirectory = "CREDENTIALS_DIRECTORY"

// maxSmallFile bounds what is read of a file that should hold a key.
const maxSmallFile = 64 << 10

func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxSmallFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxSmallFile)
	}
	return os.ReadFile(path)
}

// readCredential reads a credential of systemd.
func readCredential(name string) ([]byte, error) {
	dir := os.Getenv(credentialsDirectory)
	if dir == "" {
		return nil, errors.New("CREDENTIALS_DIRECTORY is not set: LoadCredential= of a systemd unit sets it")
	}
	if !filepath.IsLocal(name) || strings.ContainsRune(name, '/') {
		return nil, errors.New("the name of a credential has no /")
	}
	return readSmall(filepath.Join(dir, name))
}

// read reads the access key.
func (k KeySource) read() (sign.Credentials, error) {
	if k.Environment != "" {
		prefix := strings.TrimSuffix(k.Environment, "_") + "_"
		c := sign.Credentials{
			AccessKeyID:     os.Getenv(prefix + "ACCESS_KEY_ID"),
			AccessKeySecret: sensitive.New(os.Getenv(prefix + "ACCESS_KEY_SECRET")),
			SecurityToken:   sensitive.New(os.Getenv(prefix + "SECURITY_TOKEN")),
		}
		if c.AccessKeyID == "" || c.AccessKeySecret.IsZero() {
			return c, fmt.Errorf("the variables %sACCESS_KEY_ID and %sACCESS_KEY_SECRET must be set", prefix, prefix)
		}
		return c, nil
	}
	data, err := readCredential(k.Credential)
	from := "credential " + k.Credential
	if k.File != "" {
		from = k.File
		if err := ownfile.CheckSecret(k.File); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return sign.Credentials{}, err
		}
		data, err = readSmall(k.File)
	}
	if err != nil {
		return sign.Credentials{}, err
	}
	c, err := parseAccessKey(data)
	if err != nil {
		return c, fmt.Errorf("%s: %w", from, err)
	}
	return c, nil
}

// accessKeyFile accepts two spellings: the API's, as CreateAccessKey returns it, and the one of
// admin.json.
type accessKeyFile struct {
	AccessKeyID, AccessKeySecret, SecurityToken string
	ID                                          string         `json:"access_key_id"`
	Secret                                      string         `json:"access_key_secret"`
	Token                                       string         `json:"security_token"`
	AccessKey                                   *accessKeyFile `json:"AccessKey"`
}

func parseAccessKey(data []byte) (sign.Credentials, error) {
	var f accessKeyFile
	if json.Unmarshal(data, &f) != nil { // the error may quote the file
		return sign.Credentials{}, errors.New(`is not JSON such as {"AccessKeyId": "…", "AccessKeySecret": "…"}`)
	}
	if f.AccessKey != nil {
		f = *f.AccessKey
	}
	c := sign.Credentials{
		AccessKeyID:     cmp.Or(f.AccessKeyID, f.ID),
		AccessKeySecret: sensitive.New(cmp.Or(f.AccessKeySecret, f.Secret)),
		SecurityToken:   sensitive.New(cmp.Or(f.SecurityToken, f.Token)),
	}
	if c.AccessKeyID == "" || c.AccessKeySecret.IsZero() {
		return c, errors.New("must hold AccessKeyId and AccessKeySecret")
	}
	return c, nil
}

// madeOnce makes a file of random text, mode 0600, which then exists as a whole or not at all. Of
// two that make it, both get what is in the file.
func madeOnce(path string, size int) ([]byte, error) {
	d, err := openDirectory(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer d.close()
	temporary := ".keyturn-" + rand.Text()
	f, err := d.create(temporary)
	if err != nil {
		return nil, err
	}
	defer d.remove(temporary)
	for text := ""; err == nil && len(text) < 2*size; {
		chunk := rand.Text()
		text += chunk
		_, err = f.WriteString(chunk)
	}
	_, werr := f.WriteString("\n")
	if err := errors.Join(err, werr, f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	if err := unix.Linkat(d.fd, temporary, d.fd, filepath.Base(path), 0); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make %s: %w", path, err)
	}
	return readSmall(path)
}
