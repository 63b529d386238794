package agent

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"

	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/wire"
)

// Config is what the file of an agent says. What may be left out says what zero means.
type Config struct {
	// Endpoint is host[:port], reached over TLS, or a URL. Empty means the cloud's own of Region.
	Endpoint string `yaml:"endpoint"`
	// AllowPlainHTTP permits an http:// endpoint that is not on loopback: values then cross the network in clear.
	AllowPlainHTTP bool `yaml:"allow_plain_http"`
	// CAFile is a PEM file with the certificates to trust; empty means the system's.
	CAFile string `yaml:"ca_file"`
	// Region names the cloud's endpoint when there is no Endpoint.
	Region string `yaml:"region"`
	// AccessKey is what the agent signs with.
	AccessKey KeySource `yaml:"access_key"`
	// Secrets are those that are held from the start, besides those that templates name.
	Secrets []string `yaml:"secrets"`
	// Interval of the refresh without push; 0 means 5 minutes.
	Interval time.Duration `yaml:"interval"`
	// MaxStale is the age past which a value is not given any more; 0 means no bound.
	MaxStale time.Duration `yaml:"max_stale"`
	// Instance is the name by which the agent says what it uses; empty means host name, process and a random part.
	Instance string `yaml:"instance"`
	// LastGood keeps the last known values on disk, sealed; nil means nothing on disk.
	LastGood *LastGood `yaml:"last_good"`
	// Files are rendered from templates.
	Files []File `yaml:"files"`
	// HTTP is the interface for programs; nil means none.
	HTTP *HTTP `yaml:"http"`
	// KMS is the wire API; nil means none.
	KMS *KMS `yaml:"kms"`
	// Status is the page for operators; nil means none.
	Status *Status `yaml:"status"`
	Log    Log     `yaml:"log"`
}

// KeySource says where an access key is read from: exactly one of the three.
type KeySource struct {
	// File is JSON with AccessKeyId and AccessKeySecret, and SecurityToken for a temporary key.
	File string `yaml:"file"`
	// Credential is the name of a credential of systemd with the same content.
	Credential string `yaml:"credential"`
	// Environment is what the names of three variables begin with: KEYTURN means KEYTURN_ACCESS_KEY_ID, KEYTURN_ACCESS_KEY_SECRET and
	// KEYTURN_SECURITY_TOKEN.
	Environment string `yaml:"environment"`
}

// LastGood says where the last known values are kept, and where the key is that seals them.
type LastGood struct {
	Dir string        `yaml:"dir"`
	Key SealKeySource `yaml:"key"`
}

// SealKeySource says where the key of the last known values is: exactly one of the three.
type SealKeySource struct {
	// File is made when there is none. It must not be in the directory that it seals.
	File string `yaml:"file"`
	// Credential is the name of a credential of systemd with at least 32 bytes.
	Credential string `yaml:"credential"`
	// Keyring is the name of a key in the user's keyring of the Linux kernel; it is made when there is none, and is gone after a
	// restart of the machine.
	Keyring string `yaml:"keyring"`
}

// File is one file that is rendered from a template.
type File struct {
	// Path is absolute. Its directory must exist.
	Path string `yaml:"path"`
	// Template is the text, TemplateFile a file with it: exactly one.
	Template     string `yaml:"template"`
	TemplateFile string `yaml:"template_file"`
	// Owner and Group are names or numbers; empty means the agent's own.
	Owner string `yaml:"owner"`
	Group string `yaml:"group"`
	// Mode is octal, in quotes; empty means "0600".
	Mode string `yaml:"mode"`
	// OnChange tells a program when the content has changed; nil means nobody.
	OnChange *Hook `yaml:"on_change"`
}

// Hook tells a program of a change: by a signal, or by a command.
type Hook struct {
	// Signal is HUP, INT, QUIT, USR1, USR2, TERM or WINCH, sent to the process whose number PIDFile holds.
	Signal  string `yaml:"signal"`
	PIDFile string `yaml:"pid_file"`
	// Executable is what the process must run, for Signal; empty means anything.
	Executable string `yaml:"executable"`
	// Command is a program and its arguments; no shell is involved.
	Command []string `yaml:"command"`
	// Timeout bounds one run of the command; 0 means 30 seconds.
	Timeout time.Duration `yaml:"timeout"`
	// Attempts bounds how often it is tried for one change; 0 means 5.
	Attempts int `yaml:"attempts"`
}

// HTTP is the interface for programs on this machine.
type HTTP struct {
	// Listen is an address on loopback, Socket the path of a Unix socket: exactly one.
	Listen string `yaml:"listen"`
	Socket string `yaml:"socket"`
	// SocketMode is octal, in quotes; empty means "0600".
	SocketMode string `yaml:"socket_mode"`
	// TokenFile holds the token that callers send; it is made when there is none.
	TokenFile string `yaml:"token_file"`
}

// KMS is the wire API on this machine.
type KMS struct {
	// Listen is an address on loopback.
	Listen string `yaml:"listen"`
	// CertFile and KeyFile turn TLS on.
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	// AccessKeys are those that callers may sign with; none means the agent's own alone.
	AccessKeys []KeySource `yaml:"access_keys"`
	// AnySecret serves every secret that the agent's access key may read, not only those that the configuration names.
	AnySecret bool `yaml:"any_secret"`
}

// Status is the page for operators. It shows names and versions, and no value.
type Status struct {
	// Listen is an address on loopback, unless AllowAnyAddress is set.
	Listen          string `yaml:"listen"`
	AllowAnyAddress bool   `yaml:"allow_any_address"`
}

// Log says what the agent logs, on standard error.
type Log struct {
	// Level is debug, info, warn or error; empty means info.
	Level string `yaml:"level"`
	// Format is text or json; empty means text.
	Format string `yaml:"format"`
}

// SlogLevel is the level as slog has it.
func (l Log) SlogLevel() slog.Level {
	level := slog.LevelInfo
	_ = level.UnmarshalText([]byte(cmp.Or(l.Level, "info"))) // checked when the file was read
	return level
}

// setup is a configuration that was checked, with what was made of it.
type setup struct {
	Config
	files   []*rendered
	secrets []string // all that are held
	// warnings are for the operator; they stop nothing.
	warnings []string
	// read are the files that the configuration consists of, so that a change of one is noticed.
	read []string
}

// load reads and checks the file of an agent. It contacts nothing and writes nothing. The error is a *ConfigError that tells every
// mistake.
func load(path string) (*setup, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, &ConfigError{[]string{fmt.Sprintf("configuration file: %v", err)}}
	}
	return parseConfig(path, data)
}

func parseConfig(path string, data []byte) (*setup, error) {
	raw, err := yaml.Parser().Unmarshal(data)
	if err != nil {
		return nil, &ConfigError{[]string{fmt.Sprintf("%s is not YAML: %s", path, yamlMistake(err))}}
	}
	var m mistakes
	s := &setup{read: []string{path}}
	decode(raw, reflect.ValueOf(&s.Config).Elem(), "", &m)
	s.check(&m)
	if err := m.err(); err != nil {
		return nil, err
	}
	return s, nil
}

// yamlMistake keeps what the parser says of the place: the rest may quote the file.
func yamlMistake(err error) string {
	text := err.Error()
	if i := strings.Index(text, "line "); i >= 0 {
		number, _, _ := strings.Cut(text[i+len("line "):], ":")
		return "see line " + number
	}
	return "it is not a table of settings"
}

func (s *setup) check(m *mistakes) {
	s.checkEndpoint(m)
	s.AccessKey.check("access_key", m)
	s.readFile("ca_file", s.CAFile, m)
	if s.CAFile != "" {
		if pem, err := os.ReadFile(s.CAFile); err == nil && !x509.NewCertPool().AppendCertsFromPEM(pem) {
			m.add("ca_file", "%s holds no PEM certificate", s.CAFile)
		}
	}
	if s.AccessKey.File != "" {
		s.read = append(s.read, s.AccessKey.File)
	}
	if s.Instance != "" && (!wire.IsName(s.Instance) || len(s.Instance) > 64) {
		m.add("instance", "must be 1 to 64 of A-Z a-z 0-9 _ / + = . @ -")
	}
	for i, name := range s.Secrets {
		checkSecretName(fmt.Sprintf("secrets[%d]", i), name, m)
	}
	s.checkTimes(m)
	s.secrets = slices.Clone(s.Secrets)
	s.checkFiles(m)
	slices.Sort(s.secrets)
	s.secrets = slices.Compact(s.secrets)
	s.checkLastGood(m)
	s.checkListeners(m)
	s.checkLog(m)
	if len(s.secrets) == 0 && s.KMS == nil && len(m.list) == 0 {
		m.add("secrets", "there is nothing to do: name secrets, or files whose templates name them, or set kms")
	}
	if len(s.secrets) == 0 && s.KMS != nil && !s.KMS.AnySecret {
		m.add("secrets", "kms serves the secrets that are named here or in templates, and none is; kms.any_secret serves all that the access key may read")
	}
}

// checkTimes holds the times to what a consumer takes.
func (s *setup) checkTimes(m *mistakes) {
	const leastInterval, leastStale = time.Second, 10 * time.Second
	switch {
	case s.Interval != 0 && s.Interval < leastInterval:
		m.add("interval", "must be at least %s", leastInterval)
	case s.MaxStale != 0 && s.MaxStale < leastStale:
		m.add("max_stale", "must be at least %s", leastStale)
	case s.MaxStale != 0 && s.Interval > s.MaxStale/2:
		m.add("interval", "must be at most half of max_stale, or a value would expire between two reads")
	}
}

func checkSecretName(path, name string, m *mistakes) {
	if (len(name) > 192 || !wire.IsName(name)) && !strings.HasPrefix(name, "acs:kms:") {
		m.add(path, "is not the name of a secret: 1 to 192 of A-Z a-z 0-9 _ / + = . @ -, or an ARN")
	}
}

// readFile notes a file that belongs to the configuration, and checks that it can be read.
func (s *setup) readFile(path, name string, m *mistakes) {
	if name == "" {
		return
	}
	f, err := os.Open(name)
	if err != nil {
		m.add(path, "%v", err)
		return
	}
	f.Close()
	s.read = append(s.read, name)
}

func (s *setup) checkEndpoint(m *mistakes) {
	if s.Endpoint == "" && s.Region == "" {
		m.add("endpoint", "is required: host[:port] or a URL; or set region for the cloud's own")
		return
	}
	if s.Endpoint == "" {
		s.Endpoint = "kms." + s.Region + ".aliyuncs.com"
	}
	endpoint := s.Endpoint
	if !strings.Contains(endpoint, "://") {
		endpoint = "https://" + endpoint
	}
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "":
		m.add("endpoint", "must be host[:port], or an https:// or http:// URL without path, query or user")
	case u.Scheme == "http" && !egress.IsLoopback(u.Hostname()) && !s.AllowPlainHTTP:
		m.add("endpoint", "is plain HTTP and not on loopback: values would cross the network in clear; use https://, or set allow_plain_http if you mean it")
	}
}

// exactlyOne adds a mistake unless one of the settings is there.
func exactlyOne(path string, m *mistakes, names, values []string) bool {
	n := 0
	for _, v := range values {
		if v != "" {
			n++
		}
	}
	if n != 1 {
		m.add(path, "set exactly one of %s", strings.Join(names, ", "))
	}
	return n == 1
}

func (k KeySource) check(path string, m *mistakes) {
	if !exactlyOne(path, m, []string{"file", "credential", "environment"}, []string{k.File, k.Credential, k.Environment}) {
		return
	}
	switch _, err := k.read(); {
	case err == nil:
	case k.Credential != "" && os.Getenv(credentialsDirectory) == "":
		// systemd puts it there when it starts the agent; a check before that cannot see it
	default:
		m.add(path, "%v", err)
	}
}

func (s *setup) checkLastGood(m *mistakes) {
	l := s.LastGood
	if l == nil {
		return
	}
	if l.Dir == "" {
		m.add("last_good.dir", "is required")
	} else if !filepath.IsAbs(l.Dir) {
		m.add("last_good.dir", "must be an absolute path")
	} else if info, err := os.Stat(l.Dir); err == nil && !info.IsDir() {
		m.add("last_good.dir", "%s is not a directory", l.Dir)
	} else if err == nil && info.Mode().Perm()&0o077 != 0 {
		m.add("last_good.dir", "%s has mode %#o; others must not look into it: chmod 700", l.Dir, info.Mode().Perm())
	} else if errors.Is(err, fs.ErrNotExist) {
		if up, err := os.Stat(filepath.Dir(l.Dir)); err != nil || !up.IsDir() {
			m.add("last_good.dir", "neither %s nor the directory above it is there", l.Dir)
		}
	}
	l.Key.check("last_good.key", l.Dir, m)
}

func (k SealKeySource) check(path, dir string, m *mistakes) {
	if !exactlyOne(path, m, []string{"file", "credential", "keyring"}, []string{k.File, k.Credential, k.Keyring}) || k.File == "" {
		return
	}
	if !filepath.IsAbs(k.File) {
		m.add(path+".file", "must be an absolute path")
		return
	}
	if rel, err := filepath.Rel(dir, k.File); err == nil && filepath.IsLocal(rel) {
		m.add(path+".file", "is in last_good.dir: a key beside what it seals protects nothing; keep it elsewhere")
	}
	if _, err := os.Stat(filepath.Dir(k.File)); err != nil {
		m.add(path+".file", "%v", err)
	}
	if info, err := os.Stat(k.File); err == nil && info.Mode().Perm()&0o077 != 0 {
		m.add(path+".file", "has mode %#o; others must not read it: chmod 600", info.Mode().Perm())
	} else if err == nil && info.Size() < 32 {
		m.add(path+".file", "has fewer than 32 bytes")
	}
}

func (s *setup) checkLog(m *mistakes) {
	if l := s.Log.Level; l != "" && !slices.Contains([]string{"debug", "info", "warn", "error"}, l) {
		m.add("log.level", "must be debug, info, warn or error")
	}
	if f := s.Log.Format; f != "" && f != "text" && f != "json" {
		m.add("log.format", "must be text or json")
	}
}

func (s *setup) checkListeners(m *mistakes) {
	taken := map[string]string{}
	address := func(path, address string, anywhere bool) {
		host, port, err := net.SplitHostPort(address)
		switch {
		case err != nil || port == "":
			m.add(path, "must be host:port")
		case !anywhere && !egress.IsLoopback(host):
			m.add(path, "is not on loopback; use 127.0.0.1, [::1] or localhost")
		case port != "0" && taken[address] != "":
			m.add(path, "is the same as %s", taken[address])
		}
		taken[address] = path
	}
	if h := s.HTTP; h != nil {
		s.checkHTTP(m, address)
	}
	if k := s.KMS; k != nil {
		address("kms.listen", k.Listen, false)
		if (k.CertFile == "") != (k.KeyFile == "") {
			m.add("kms", "cert_file and key_file go together")
		}
		s.readFile("kms.cert_file", k.CertFile, m)
		s.readFile("kms.key_file", k.KeyFile, m)
		for i, key := range k.AccessKeys {
			key.check(fmt.Sprintf("kms.access_keys[%d]", i), m)
			if key.File != "" {
				s.read = append(s.read, key.File)
			}
		}
	}
	if s.Status != nil {
		address("status.listen", s.Status.Listen, s.Status.AllowAnyAddress)
	}
}

func (s *setup) checkHTTP(m *mistakes, address func(path, address string, anywhere bool)) {
	h := s.HTTP
	if exactlyOne("http", m, []string{"listen", "socket"}, []string{h.Listen, h.Socket}) {
		if h.Listen != "" {
			address("http.listen", h.Listen, false)
		} else {
			checkPlace("http.socket", h.Socket, m)
		}
	}
	if _, err := parseMode(cmp.Or(h.SocketMode, "0600")); err != nil {
		m.add("http.socket_mode", "%v", err)
	} else if h.SocketMode != "" && h.Socket == "" {
		m.add("http.socket_mode", "is for http.socket, which is not set")
	}
	if h.TokenFile == "" {
		m.add("http.token_file", "is required; the file is made when there is none")
	} else {
		checkPlace("http.token_file", h.TokenFile, m)
	}
}

// checkPlace holds that a file could be made at a path.
func checkPlace(path, name string, m *mistakes) {
	if !filepath.IsAbs(name) {
		m.add(path, "must be an absolute path")
		return
	}
	if info, err := os.Stat(filepath.Dir(name)); err != nil {
		m.add(path, "%v", err)
	} else if !info.IsDir() {
		m.add(path, "%s is not a directory", filepath.Dir(name))
	}
}
