package agent

import (
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
)

// Config is what the file of an agent says. What may be left out says what zero means.
type Config struct {
	// Endpoint is host[:port], reached over TLS, or a URL. Empty means the cloud's own of Region.
	Endpoint string `yaml:"endpoint"`
	// AllowPlainHTTP permits an http:// endpoint that is not on loopback: values then cross the
	// network in clear.
	AllowPlainHTTP bool `yaml:"allow_plain_http"`
	// CAFile is a PEM file with the certificates to trust; empty means the system's.
	CAFile string `yaml:"ca_file"`
	// Region names the cloud's endpoint when there is no Endpoint.
	Region string `yaml:"region"`
	// AccessKey is what the agent signs with.
	AccessKey KeySource `yaml:"access_key"`
	// Secrets are those that are held from the start, besides those that templates name.
	Secrets []string `yaml:"secrets"`
	// Interval of the refresh without push; 0 means the default of [consumer.Config].
	Interval time.Duration `yaml:"interval"`
	// MaxStale is the age beyond which a value is no longer served; 0 means no bound.
	MaxStale time.Duration `yaml:"max_stale"`
	// Instance is the name by which the agent says what it uses; empty means host name, process and a
	// random part.
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
	// Environment is what the names of three variables begin with: KEYTURN means
	// KEYTURN_ACCESS_KEY_ID, KEYTURN_ACCESS_KEY_SECRET and KEYTURN_SECURITY_TOKEN.
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
	// Keyring is the name of a key in the user's keyring of the Linux kernel; it is made when there is
	// none, and is lost when the machine restarts.
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
	// Mode is octal, in quotes.
	Mode string `yaml:"mode" default:"0600"`
	// OnChange notifies a program when the content has changed; nil means none.
	OnChange *Hook `yaml:"on_change"`
}

// Hook notifies a program of a change by a signal or a command.
type Hook struct {
	// Signal is HUP, INT, QUIT, USR1, USR2, TERM or WINCH, sent to the process whose number PIDFile
	// holds.
	Signal  string `yaml:"signal"`
	PIDFile string `yaml:"pid_file"`
	// Executable is what the process must run, for Signal; empty means anything.
	Executable string `yaml:"executable"`
	// Command is a program and its arguments; no shell is involved.
	Command []string `yaml:"command"`
	// Timeout bounds one run of the command.
	Timeout time.Duration `yaml:"timeout" default:"30s"`
	// Attempts bounds how often the agent tries to notify the program of one change.
	Attempts int `yaml:"attempts" default:"5"`
}

// HTTP is the interface for programs on this machine.
type HTTP struct {
	// Listen is an address on loopback, Socket the path of a Unix socket: exactly one.
	Listen string `yaml:"listen"`
	Socket string `yaml:"socket"`
	// SocketMode is octal, in quotes.
	SocketMode string `yaml:"socket_mode" default:"0600"`
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
	// AnySecret serves every secret that the agent's access key may read, not only those that the
	// configuration names.
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
	// Level is debug, info, warn or error.
	Level string `yaml:"level" default:"info"`
	// Format is text or json.
	Format string `yaml:"format" default:"text"`
}

// SlogLevel is the level as slog has it.
func (l Log) SlogLevel() slog.Level {
	level := slog.LevelInfo
	_ = level.UnmarshalText([]byte(l.Level)) // checked when the file was read
	return level
}

// setup is a configuration that was checked, with what was made of it.
type setup struct {
	Config
	files   []*rendered
	secrets []string // all that are held
	// socketModeGiven reports whether http.socket_mode is not its default.
	socketModeGiven bool
	// warnings are for the operator; they stop nothing.
	warnings []string
	// read are the files that the configuration consists of, so that a change of one is noticed.
	read []string
}

// load reads and checks the file of an agent. It contacts nothing and writes nothing. The error is
// a *ConfigError with every mistake.
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
	s.socketModeGiven = s.HTTP != nil && s.HTTP.SocketMode != ""
	fill(reflect.ValueOf(&s.Config).Elem())
	s.check(&m)
	if err := m.err(); err != nil {
		return nil, err
	}
	return s, nil
}

// yamlMistake returns the place of the mistake only: the rest of the message may quote the file.
func yamlMistake(err error) string {
	text := err.Error()
	if i := strings.Index(text, "line "); i >= 0 {
		number, _, _ := strings.Cut(text[i+len("line "):], ":")
		return "see line " + number
	}
	return "it is not a table of settings"
}
