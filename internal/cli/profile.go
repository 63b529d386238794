package cli

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/command"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/kms"
)

// userAgent names this program in requests.
const userAgent = "keyturn-cli"

// connect returns a client for the profile that a flag names, or the one that is found without.
func connect(flag string) (*kms.Client, error) {
	p, err := command.Resolve(flag)
	if err != nil {
		return nil, err
	}
	return p.Client(userAgent)
}

type profileCommand struct {
	Import profileImport `cmd:"" help:"Create a profile from a server's admin.json."`
	Set    profileSet    `cmd:"" help:"Create or change a profile; the access key secret is read from standard input."`
	List   profileList   `cmd:"" help:"List the profiles."`
	Show   profileShow   `cmd:"" help:"Show a profile, without its secret."`
	Use    profileUse    `cmd:"" help:"Select the current profile."`
	Remove profileRemove `cmd:"" help:"Remove a profile."`
	Secret profileSecret `cmd:"" help:"Print the access key secret of a profile, for use by another program."`
	Aliyun profileAliyun `cmd:"" help:"Print the command that configures the official aliyun CLI."`
}

type profileImport struct {
	File     string `arg:"" help:"The file admin.json in the server's data directory, or a copy." type:"existingfile"`
	Name     string `help:"Name of the profile." default:"default"`
	Endpoint string `help:"host:port or URL at which this machine reaches the server." placeholder:"ENDPOINT" xor:"at"`
	CAFile   string `name:"ca-file" help:"Certificate to trust, PEM: a copy of tls/ca.pem." placeholder:"FILE"`
	HTTP     bool   `help:"Use the plain HTTP listener." name:"http" xor:"at"`
	Replace  bool   `help:"Replace a profile of that name that is of another server."`
}

// Help explains what the flags have no room for.
func (*profileImport) Help() string {
	return "On another machine than the server, copy admin.json and tls/ca.pem from the server's data directory, and " +
		"name the copy of tls/ca.pem with --ca-file. Add --endpoint if the server has another address from here."
}

func (c *profileImport) Run(e *env) error {
	a, err := server.ReadAdmin(c.File)
	if err != nil {
		return err
	}
	p, err := c.profile(a)
	if err != nil {
		return err
	}
	all, _, err := command.ReadProfiles()
	if err != nil {
		return err
	}
	old, found := all.Profiles[c.Name]
	// A CA in the same data directory is of the same server, whose access key has changed.
	sameServer := old.AccessKeyID == p.AccessKeyID || p.CAFile != "" && c.CAFile == "" && old.CAFile == p.CAFile
	if found && !sameServer && !c.Replace {
		return fmt.Errorf("there is already a profile %q (%s, access key %s): add --name NAME to keep both, or --replace",
			c.Name, old.Endpoint, old.AccessKeyID)
	}
	return e.saveProfile(c.Name, p)
}

// profile returns the profile for an admin.json. It fails if the certificate to trust cannot be
// read.
func (c *profileImport) profile(a server.Admin) (p command.Profile, err error) {
	p = command.Profile{
		Endpoint:        cmp.Or(c.Endpoint, a.Endpoint),
		AccessKeyID:     a.AccessKeyID,
		AccessKeySecret: a.AccessKeySecret.Reveal(),
		Region:          a.Region,
		CAFile:          cmp.Or(c.CAFile, a.CAFile),
	}
	if c.HTTP || p.Endpoint == "" {
		if a.HTTPEndpoint == "" {
			return p, fmt.Errorf("the server of %s has no plain HTTP listener", c.File)
		}
		p.Endpoint = "http://" + a.HTTPEndpoint
	}
	if strings.HasPrefix(p.Endpoint, "http://") {
		p.CAFile = ""
	}
	if p.CAFile != "" {
		if _, err := os.Stat(p.CAFile); err != nil && c.CAFile == "" {
			return p, fmt.Errorf("the certificate to trust, %s, cannot be read here: copy tls/ca.pem from the server's data "+
				"directory and add --ca-file FILE", p.CAFile)
		}
		if p.CAFile, err = filepath.Abs(p.CAFile); err != nil {
			return p, err
		}
	}
	_, err = p.Client(userAgent)
	return p, err
}

func (e *env) saveProfile(name string, p command.Profile) error {
	all, path, err := command.ReadProfiles()
	if err != nil {
		return err
	}
	all.Profiles[name], all.Current = p, name
	if err := all.Write(path); err != nil {
		return err
	}
	fmt.Fprintf(e.stdout, "Profile %s reaches %s with access key %s; it is the current one.\n", name, p.Endpoint,
		p.AccessKeyID)
	return nil
}

type profileSet struct {
	Name         string `arg:"" help:"Name of the profile."`
	Endpoint     string `required:"" help:"host:port for TLS, or an http:// or https:// URL." placeholder:"ENDPOINT"`
	AccessKeyID  string `required:"" name:"access-key-id" help:"Access key to sign with." placeholder:"ID"`
	Region       string `help:"Region of the server." default:"local"`
	CAFile       string `name:"ca-file" help:"Certificate to trust, PEM." placeholder:"FILE" type:"existingfile"`
	InsecureHTTP bool   `name:"insecure-http" help:"Accept http:// off loopback: values cross the network in clear."`
}

func (c *profileSet) Run(e *env) error {
	secret, err := e.readLine(source{prompt: "Access key secret: "})
	if err != nil {
		return err
	}
	p := command.Profile{
		Endpoint:        c.Endpoint,
		AccessKeyID:     c.AccessKeyID,
		AccessKeySecret: secret.Reveal(),
		Region:          c.Region,
		CAFile:          c.CAFile,
		InsecureHTTP:    c.InsecureHTTP,
	}
	if p.CAFile != "" {
		if p.CAFile, err = filepath.Abs(p.CAFile); err != nil {
			return err
		}
	}
	if _, err := p.Client(userAgent); err != nil {
		return err
	}
	return e.saveProfile(c.Name, p)
}

type profileList struct{}

func (c *profileList) Run(e *env) error {
	all, _, err := command.ReadProfiles()
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
	Name string `arg:"" optional:"" help:"Name of the profile (the current one)."`
}

func (c profileName) find() (command.Profiles, string, string, command.Profile, error) {
	all, path, err := command.ReadProfiles()
	if err != nil {
		return all, path, "", command.Profile{}, err
	}
	name, p, err := all.Find(c.Name)
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
		{"name", name},
		{"endpoint", p.Endpoint},
		{"access key", p.AccessKeyID},
		{"region", p.Region},
		{"ca file", p.CAFile},
		{"kept in", path},
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
	return all.Write(path)
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
	return all.Write(path)
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

// Run prints the command without the secret, which the shell puts in when the command is run: what
// is printed can be shown to others and kept in a history.
func (c *profileAliyun) Run(e *env) error {
	_, _, name, p, err := c.find()
	if err != nil {
		return err
	}
	host, plain := strings.CutPrefix(p.Endpoint, "http://")
	host = strings.TrimSuffix(strings.TrimPrefix(host, "https://"), "/")
	fmt.Fprintf(e.stdout, "aliyun configure set --profile keyturn-%s --mode AK --access-key-id %s --access-key-secret "+
		"\"$(%s)\" --region %s --endpoint %s\n",
		name, p.AccessKeyID, fault.Command("profile secret", name), cmp.Or(p.Region, "local"), host)
	fmt.Fprintln(e.stderr, "aliyun configure set makes the profile current, so later aliyun commands go to Keyturn; to "+
		"return to yours: aliyun configure switch --profile NAME")
	switch {
	case plain:
		fmt.Fprintln(e.stderr, "This endpoint is plain HTTP: add --insecure to each aliyun kms command.")
	case p.CAFile != "":
		fmt.Fprintf(e.stderr, "The server has a certificate by its local CA: export SSL_CERT_FILE=%s\n", p.CAFile)
	}
	return nil
}
