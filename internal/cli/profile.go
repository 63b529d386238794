package cli

import (
	"cmp"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// profile says how one server is reached.
type profile struct {
	// Endpoint is host:port, reached over TLS, or a URL.
	Endpoint        string `json:"endpoint"`
	AccessKeyID     string `json:"access_key_id"`
	AccessKeySecret string `json:"access_key_secret"`
	SecurityToken   string `json:"security_token,omitempty"`
	Region          string `json:"region,omitempty"`
	CAFile          string `json:"ca_file,omitempty"`
	// InsecureHTTP permits an http:// endpoint off loopback: values then cross the network in clear.
	InsecureHTTP bool `json:"insecure_http,omitempty"`
}

// checkTransport refuses plain HTTP off loopback, unless the profile permits it.
func (p profile) checkTransport() error {
	if p.InsecureHTTP || !strings.HasPrefix(strings.ToLower(p.Endpoint), "http://") {
		return nil
	}
	u, err := url.Parse(p.Endpoint)
	if err != nil || !egress.IsLoopback(u.Hostname()) {
		return fmt.Errorf("the endpoint %s is plain HTTP and not on loopback: values would cross the network in clear; use TLS, or accept that with "+
			"keyturn profile set --insecure-http (KEYTURN_INSECURE_HTTP=true with KEYTURN_ENDPOINT)", p.Endpoint)
	}
	return nil
}

// profiles is the file, mode 0600, since it holds access keys.
type profiles struct {
	Current  string             `json:"current"`
	Profiles map[string]profile `json:"profiles"`
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

func readProfiles() (profiles, string, error) {
	all := profiles{Profiles: map[string]profile{}}
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
		return all, path, fmt.Errorf("%s is not a file of profiles: mend it, or remove it and import again", path)
	}
	return all, path, nil
}

// checkPrivate verifies that only root and the user can read or write a file. Its directories are the user's affair: a home that
// a group may write in is common.
func checkPrivate(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s holds access keys and is open to other users (mode %04o): run chmod 600 %s; if others could read it, change the access keys", path, mode, path)
	}
	if owner := fileOwner(info); owner > 0 && owner != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d: remove it, or run chown", path, owner)
	}
	return nil
}

func (all profiles) write(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("profiles: %w", err)
	}
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return root.WriteFile(path, append(data, '\n'))
}

// find returns the profile that a flag or the environment names, or the current one.
func (all profiles) find(flag string) (string, profile, error) {
	name := cmp.Or(namedProfile(flag), all.Current)
	p, ok := all.Profiles[name]
	switch {
	case name == "":
		return "", p, errors.New("there is no profile: run keyturn profile import DATA_DIR/admin.json, or set KEYTURN_ENDPOINT, KEYTURN_ACCESS_KEY_ID and KEYTURN_ACCESS_KEY_SECRET")
	case !ok:
		return name, p, fmt.Errorf("there is no profile %q; keyturn profile list shows them", name)
	}
	return name, p, nil
}

// profileVariable names the profile where no flag does.
const profileVariable = "KEYTURN_PROFILE"

// namedProfile returns the name that a flag gives, or else the environment; empty if neither does.
func namedProfile(flag string) string { return cmp.Or(flag, os.Getenv(profileVariable)) }

// resolve finds how to reach the server: by the profile if a flag or the environment names one,
// by the environment if it names an endpoint, and else by the current profile.
func resolve(flag string) (profile, error) {
	if endpoint := os.Getenv("KEYTURN_ENDPOINT"); endpoint != "" && namedProfile(flag) == "" {
		return profile{
			Endpoint: endpoint, AccessKeyID: os.Getenv("KEYTURN_ACCESS_KEY_ID"), AccessKeySecret: os.Getenv("KEYTURN_ACCESS_KEY_SECRET"),
			SecurityToken: os.Getenv("KEYTURN_SECURITY_TOKEN"), Region: os.Getenv("KEYTURN_REGION"), CAFile: os.Getenv("KEYTURN_CA_FILE"),
			InsecureHTTP: os.Getenv("KEYTURN_INSECURE_HTTP") == "true",
		}, nil
	}
	all, _, err := readProfiles()
	if err != nil {
		return profile{}, err
	}
	_, p, err := all.find(flag)
	return p, err
}

// config says how the server of a profile is reached.
func (p profile) config() (kms.Config, error) {
	if err := p.checkTransport(); err != nil {
		return kms.Config{}, err
	}
	config := kms.Config{Endpoint: p.Endpoint, UserAgent: "keyturn-cli/" + Version, Credentials: sign.Credentials{
		AccessKeyID: p.AccessKeyID, AccessKeySecret: sensitive.New(p.AccessKeySecret), SecurityToken: sensitive.New(p.SecurityToken),
	}}
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

// client returns a client for a profile.
func (p profile) client() (*kms.Client, error) {
	config, err := p.config()
	if err != nil {
		return nil, err
	}
	client, err := kms.NewClient(config)
	if err != nil {
		return nil, fmt.Errorf("the profile or the environment is incomplete: %w", err)
	}
	return client, nil
}

// connect returns a client for the profile that a flag names, or the one that is found without.
func connect(flag string) (*kms.Client, error) {
	p, err := resolve(flag)
	if err != nil {
		return nil, err
	}
	return p.client()
}

type profileCommand struct {
	Import profileImport `cmd:"" help:"Make a profile of a server's admin.json."`
	Set    profileSet    `cmd:"" help:"Make or change a profile; the access key secret is read from standard input."`
	List   profileList   `cmd:"" help:"List the profiles."`
	Show   profileShow   `cmd:"" help:"Show a profile, without its secret."`
	Use    profileUse    `cmd:"" help:"Make a profile the current one."`
	Remove profileRemove `cmd:"" help:"Remove a profile."`
	Secret profileSecret `cmd:"" help:"Print the access key secret of a profile, for another program to read."`
	Aliyun profileAliyun `cmd:"" help:"Print the command that configures the official aliyun CLI."`
}

type profileImport struct {
	File string `arg:"" help:"The file admin.json in the server's data directory." type:"existingfile"`
	Name string `help:"Name of the profile." default:"default"`
	HTTP bool   `help:"Use the plain HTTP listener." name:"http"`
}

func (c *profileImport) Run(e *env) error {
	a, err := server.ReadAdmin(c.File)
	if err != nil {
		return err
	}
	p := profile{
		Endpoint: a.Endpoint, AccessKeyID: a.AccessKeyID, AccessKeySecret: a.AccessKeySecret.Reveal(), Region: a.Region, CAFile: a.CAFile,
	}
	if c.HTTP || a.Endpoint == "" {
		if a.HTTPEndpoint == "" {
			return fmt.Errorf("the server of %s has no plain HTTP listener", c.File)
		}
		p.Endpoint, p.CAFile = "http://"+a.HTTPEndpoint, ""
	}
	if p.CAFile != "" {
		if p.CAFile, err = filepath.Abs(p.CAFile); err != nil {
			return err
		}
	}
	return e.saveProfile(c.Name, p)
}

func (e *env) saveProfile(name string, p profile) error {
	all, path, err := readProfiles()
	if err != nil {
		return err
	}
	all.Profiles[name], all.Current = p, name
	if err := all.write(path); err != nil {
		return err
	}
	fmt.Fprintf(e.stdout, "Profile %s reaches %s with access key %s; it is the current one.\n", name, p.Endpoint, p.AccessKeyID)
	return nil
}

type profileSet struct {
	Name         string `arg:"" help:"Name of the profile."`
	Endpoint     string `required:"" help:"host:port for TLS, or an http:// or https:// URL."`
	AccessKeyID  string `required:"" name:"access-key-id" help:"Access key to sign with."`
	Region       string `help:"Region of the server." default:"local"`
	CAFile       string `name:"ca-file" help:"PEM file with the certificate to trust." type:"existingfile"`
	InsecureHTTP bool   `name:"insecure-http" help:"Accept an http:// endpoint off loopback: values cross the network in clear."`
}

func (c *profileSet) Run(e *env) error {
	secret, err := e.readValue("", "Access key secret: ")
	if err != nil {
		return err
	}
	p := profile{
		Endpoint: c.Endpoint, AccessKeyID: c.AccessKeyID, AccessKeySecret: strings.TrimSpace(secret.Reveal()), Region: c.Region, CAFile: c.CAFile,
		InsecureHTTP: c.InsecureHTTP,
	}
	if p.CAFile != "" {
		if p.CAFile, err = filepath.Abs(p.CAFile); err != nil {
			return err
		}
	}
	if _, err := p.client(); err != nil {
		return err
	}
	return e.saveProfile(c.Name, p)
}

type profileList struct{}

func (c *profileList) Run(e *env) error {
	all, _, err := readProfiles()
	if err != nil {
		return err
	}
	t := newTable("", "NAME", "ENDPOINT", "ACCESS KEY", "REGION")
	for _, name := range slices.Sorted(maps.Keys(all.Profiles)) {
		mark, p := "", all.Profiles[name]
		if name == all.Current {
			mark = "*"
		}
		t.row(mark, name, p.Endpoint, p.AccessKeyID, p.Region)
	}
	return t.write(e.stdout)
}

type profileName struct {
	Name string `arg:"" optional:"" help:"Name of the profile; the current one if left out."`
}

func (c profileName) find() (profiles, string, string, profile, error) {
	all, path, err := readProfiles()
	if err != nil {
		return all, path, "", profile{}, err
	}
	name, p, err := all.find(c.Name)
	return all, path, name, p, err
}

type profileShow struct{ profileName }

func (c *profileShow) Run(e *env) error {
	_, path, name, p, err := c.find()
	if err != nil {
		return err
	}
	t := newTable()
	for _, row := range [][2]string{
		{"name", name}, {"endpoint", p.Endpoint}, {"access key", p.AccessKeyID}, {"region", p.Region}, {"ca file", p.CAFile}, {"kept in", path},
	} {
		t.row(row[0], row[1])
	}
	return t.write(e.stdout)
}

type profileUse struct {
	Name string `arg:"" help:"Name of the profile."`
}

func (c *profileUse) Run(e *env) error {
	all, path, name, p, err := profileName{c.Name}.find()
	if err != nil {
		return err
	}
	all.Current = name
	fmt.Fprintf(e.stdout, "Profile %s, %s, is the current one.\n", name, p.Endpoint)
	return all.write(path)
}

type profileRemove struct {
	Name string `arg:"" help:"Name of the profile."`
}

func (c *profileRemove) Run(e *env) error {
	all, path, name, _, err := profileName{c.Name}.find()
	if err != nil {
		return err
	}
	delete(all.Profiles, name)
	if all.Current == name {
		all.Current = ""
	}
	fmt.Fprintf(e.stdout, "Profile %s is removed.\n", name)
	return all.write(path)
}

type profileSecret struct{ profileName }

func (c *profileSecret) Run(e *env) error {
	_, _, _, p, err := c.find()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(e.stdout, p.AccessKeySecret)
	return err
}

type profileAliyun struct{ profileName }

// Run prints the command without the secret, which the shell puts in when the command is run: what is printed can be
// shown to others and kept in a history.
func (c *profileAliyun) Run(e *env) error {
	_, _, name, p, err := c.find()
	if err != nil {
		return err
	}
	host, plain := strings.CutPrefix(p.Endpoint, "http://")
	host = strings.TrimSuffix(strings.TrimPrefix(host, "https://"), "/")
	fmt.Fprintf(e.stdout, "aliyun configure set --profile keyturn-%s --mode AK --access-key-id %s --access-key-secret \"$(keyturn profile secret %s)\" --region %s --endpoint %s\n",
		name, p.AccessKeyID, name, cmp.Or(p.Region, "local"), host)
	switch {
	case plain:
		fmt.Fprintln(e.stderr, "This endpoint is plain HTTP: add --insecure to each aliyun kms command.")
	case p.CAFile != "":
		fmt.Fprintf(e.stderr, "The server has a certificate by its local CA: export SSL_CERT_FILE=%s\n", p.CAFile)
	}
	return nil
}
