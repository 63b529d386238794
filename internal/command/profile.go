package command

import (
	"cmp"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// Profile describes how one server is reached.
type Profile struct {
	// Endpoint is host:port, reached over TLS, or a URL.
	Endpoint        string `json:"endpoint"`
	AccessKeyID     string `json:"access_key_id"`
	AccessKeySecret string `json:"access_key_secret"`
	SecurityToken   string `json:"security_token,omitempty"`
	Region          string `json:"region,omitempty"`
	CAFile          string `json:"ca_file,omitempty"`
	// InsecureHTTP permits an http:// endpoint off loopback: values then cross the network in
	// clear.
	InsecureHTTP bool `json:"insecure_http,omitempty"`
}

// checkTransport refuses plain HTTP off loopback, unless the profile permits it.
func (p Profile) checkTransport() error {
	if p.InsecureHTTP || !strings.HasPrefix(strings.ToLower(p.Endpoint), "http://") {
		return nil
	}
	u, err := url.Parse(p.Endpoint)
	if err != nil || !egress.IsLoopback(u.Hostname()) {
		return fmt.Errorf("the endpoint %s is plain HTTP and not on loopback: values would cross the "+
			"network in clear; use TLS, or accept that with "+
			"keyturn profile set --insecure-http (KEYTURN_INSECURE_HTTP=true with KEYTURN_ENDPOINT)", p.Endpoint)
	}
	return nil
}

// Profiles is the file of profiles, mode 0600, since it holds access keys.
type Profiles struct {
	Current  string             `json:"current"`
	Profiles map[string]Profile `json:"profiles"`
}

func profilesPath() (string, error) {
	if dir := os.Getenv("KEYTURN_CONFIG_DIR"); dir != "" {
		return filepath.Join(dir, "profiles.json"), nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find the profiles: %w; set KEYTURN_CONFIG_DIR", err)
	}
	return filepath.Join(dir, "keyturn", "profiles.json"), nil
}

// ReadProfiles returns the profiles of the user and the path of their file; without a file there
// are none.
func ReadProfiles() (Profiles, string, error) {
	all := Profiles{Profiles: map[string]Profile{}}
	path, err := profilesPath()
	if err != nil {
		return all, "", err
	}
	data, err := os.ReadFile(path)
	if err == nil {
		err = checkPrivate(path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return all, path, nil
	case err != nil:
		return all, path, fmt.Errorf("profiles: %w", err)
	case json.Unmarshal(data, &all) != nil || all.Profiles == nil:
		return all, path, fmt.Errorf("%s is not a file of profiles: correct it, or remove it and import again", path)
	}
	return all, path, nil
}

// checkPrivate verifies that only root and the user can read or write a file. Its directories are
// the user's affair: a home that a group may write in is common.
func checkPrivate(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s holds access keys and is open to other users (mode %04o): run chmod 600 %s; "+
			"if others could read it, change the access keys", path, mode, path)
	}
	if owner := fileOwner(info); owner > 0 && owner != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d: remove it, or run chown", path, owner)
	}
	return nil
}

// Write writes the file of profiles.
func (all Profiles) Write(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("profiles: %w", err)
	}
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return root.WriteFile(path, append(data, '\n'))
}

// Find returns the profile that a flag or the environment names, or the current one.
func (all Profiles) Find(flag string) (string, Profile, error) {
	name := cmp.Or(NamedProfile(flag), all.Current)
	p, ok := all.Profiles[name]
	switch {
	case name == "":
		return "", p,
			errors.New("there is no profile: run keyturn profile import DATA_DIR/admin.json, or set KEYTURN_ENDPOINT, " +
				"KEYTURN_ACCESS_KEY_ID and KEYTURN_ACCESS_KEY_SECRET")
	case !ok:
		return name, p, fmt.Errorf("there is no profile %q; keyturn profile list shows them", name)
	}
	return name, p, nil
}

// ProfileVariable names the profile where no flag does.
const ProfileVariable = "KEYTURN_PROFILE"

// NamedProfile returns the name that a flag gives, or else the environment; empty if neither does.
func NamedProfile(flag string) string { return cmp.Or(flag, os.Getenv(ProfileVariable)) }

// Resolve finds how to reach the server: by the profile if a flag or the environment names one,
// by the environment if it names an endpoint, and else by the current profile.
func Resolve(flag string) (Profile, error) {
	if endpoint := os.Getenv("KEYTURN_ENDPOINT"); endpoint != "" && NamedProfile(flag) == "" {
		return Profile{
			Endpoint:        endpoint,
			AccessKeyID:     os.Getenv("KEYTURN_ACCESS_KEY_ID"),
			AccessKeySecret: os.Getenv("KEYTURN_ACCESS_KEY_SECRET"),
			SecurityToken:   os.Getenv("KEYTURN_SECURITY_TOKEN"),
			Region:          os.Getenv("KEYTURN_REGION"),
			CAFile:          os.Getenv("KEYTURN_CA_FILE"),
			InsecureHTTP:    os.Getenv("KEYTURN_INSECURE_HTTP") == "true",
		}, nil
	}
	all, _, err := ReadProfiles()
	if err != nil {
		return Profile{}, err
	}
	_, p, err := all.Find(flag)
	return p, err
}

// Config returns how the server of a profile is reached. Requests name userAgent and the release.
func (p Profile) Config(userAgent string) (kms.Config, error) {
	if err := p.checkTransport(); err != nil {
		return kms.Config{}, err
	}
	config := kms.Config{
		Endpoint:  p.Endpoint,
		UserAgent: userAgent + "/" + Version,
		Credentials: sign.Credentials{
			AccessKeyID:     p.AccessKeyID,
			AccessKeySecret: sensitive.New(p.AccessKeySecret),
			SecurityToken:   sensitive.New(p.SecurityToken),
		},
	}
	if p.CAFile != "" {
		pem, err := os.ReadFile(p.CAFile)
		if err != nil {
			return config, fmt.Errorf("certificate to trust: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return config, fmt.Errorf("certificate to trust: %s holds no PEM certificate", p.CAFile)
		}
	}
	return config, nil
}

// Client returns a client for a profile.
func (p Profile) Client(userAgent string) (*kms.Client, error) {
	config, err := p.Config(userAgent)
	if err != nil {
		return nil, err
	}
	client, err := kms.NewClient(config)
	if err != nil {
		return nil, fmt.Errorf("%w; complete the profile with keyturn profile set, or set KEYTURN_ENDPOINT, "+
			"KEYTURN_ACCESS_KEY_ID and KEYTURN_ACCESS_KEY_SECRET", err)
	}
	return client, nil
}
