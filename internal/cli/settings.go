package cli

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/auth"
	"github.com/keyturn/keyturn/internal/command"
	"github.com/keyturn/keyturn/internal/conns"
	"github.com/keyturn/keyturn/internal/limit"
	"github.com/keyturn/keyturn/internal/ownfile"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/store"
)

const envPrefix = "KEYTURN_"

// clientVariables are the variables that are not settings of the server.
var clientVariables = []string{
	command.ProfileVariable, "KEYTURN_ENDPOINT", "KEYTURN_ACCESS_KEY_ID", "KEYTURN_ACCESS_KEY_SECRET", "KEYTURN_SECURITY_TOKEN",
	"KEYTURN_CA_FILE", "KEYTURN_INSECURE_HTTP", "KEYTURN_CONFIG_DIR", "KEYTURN_CONFIG", "KEYTURN_ROOT_KEY", "KEYTURN_ROOT_KEY" + root.Additional,
}

// settings are what file, environment and flags say together.
type settings struct {
	k     *koanf.Koanf
	hosts []string // settings that are URLs, which may hold a token or a password
}

// setting describes one flag of serve.
type setting struct {
	name  string
	kind  reflect.Kind // String, Bool, Int or Slice
	value any          // nil when the flag was not given
	host  bool         // a URL, of which the audit trail tells the host only
}

// flagName is the name that kong makes of a field.
func flagName(f reflect.StructField) string {
	if name := f.Tag.Get("name"); name != "" {
		return name
	}
	var b strings.Builder
	for i, r := range f.Name {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte('-')
		}
		b.WriteRune(r)
	}
	return strings.ToLower(b.String())
}

func listSettings(c *serveCommand) []setting {
	v := reflect.ValueOf(c).Elem()
	var list []setting
	for i := range v.NumField() {
		f := v.Field(i)
		s := setting{name: flagName(v.Type().Field(i)), kind: f.Kind(), host: v.Type().Field(i).Tag.Get("trail") == "host"}
		if f.Kind() == reflect.Pointer {
			s.kind = f.Type().Elem().Kind()
		}
		if !f.IsNil() {
			s.value = reflect.Indirect(f).Interface()
		}
		list = append(list, s)
	}
	return list
}

// loadSettings merges file, environment and flags, and reports every mistake at once.
func loadSettings(c *serveCommand, environ []string) (settings, error) {
	known := listSettings(c)
	k := koanf.New("\x00") // keys are flat
	environment, errs := fromEnvironment(known, environ)
	path := ""
	if c.Config != nil {
		path = *c.Config
	} else if i := slices.IndexFunc(environ, func(s string) bool { return strings.HasPrefix(s, "KEYTURN_CONFIG=") }); i >= 0 {
		path = strings.TrimPrefix(environ[i], "KEYTURN_CONFIG=")
	}
	if path != "" {
		errs = append(errs, fromFile(k, path, known)...)
	}
	flags := map[string]any{}
	for _, s := range known {
		if s.value != nil {
			flags[s.name] = s.value
		}
	}
	for _, m := range []map[string]any{environment, flags} {
		if err := k.Load(confmap.Provider(m, ""), nil); err != nil {
			errs = append(errs, err)
		}
	}
	if path != "" {
		errs = append(errs, checkConfigFile(path, environment, flags))
	}
	var hosts []string
	for _, s := range known {
		if s.host {
			hosts = append(hosts, s.name)
		}
	}
	return settings{k, hosts}, errors.Join(errs...)
}

// inForce lists the settings that were given, for the audit trail. A setting holds no secret but in
// a URL; files and variables with secrets are named only.
func (s settings) inForce() audit.Details {
	details := audit.Details{{Name: "version", Value: command.Version}}
	for _, key := range slices.Sorted(maps.Keys(s.k.All())) {
		values := s.k.Strings(key)
		if len(values) == 0 {
			values = []string{s.k.String(key)}
		}
		if slices.Contains(s.hosts, key) {
			for i, v := range values {
				values[i] = hostOf(v)
			}
		}
		details = append(details, audit.Detail{Name: key, Value: strings.Join(values, ",")})
	}
	return details
}

// hostOf leaves of a URL, or of host:port, what holds no secret.
func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		if host, port, err := net.SplitHostPort(text); err == nil {
			return net.JoinHostPort(host, port)
		}
		return "?"
	}
	return u.Scheme + "://" + u.Host
}

// checkConfigFile verifies that nobody else can have written the file. The group that may is not read from the file itself.
func checkConfigFile(path string, environment, flags map[string]any) error {
	trust := ownfile.Trust{}
	for _, m := range []map[string]any{environment, flags} {
		if group, ok := m["file-group"].(int); ok {
			trust.Groups = []int{group}
		}
	}
	if err := trust.CheckFile(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("configuration file: %w", err)
	}
	return nil
}

// fromEnvironment reads KEYTURN_… variables; an empty one counts as not set. An unknown one is a mistake, but for those that Kubernetes sets for a
// service named keyturn.
func fromEnvironment(known []setting, environ []string) (map[string]any, []error) {
	out, errs := map[string]any{}, []error(nil)
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		key, ok := strings.CutPrefix(name, envPrefix)
		if !ok || value == "" || slices.Contains(clientVariables, name) || strings.HasPrefix(key, "SERVICE_") || key == "PORT" || strings.HasPrefix(key, "PORT_") {
			continue
		}
		key = strings.ToLower(strings.ReplaceAll(key, "_", "-"))
		i := slices.IndexFunc(known, func(s setting) bool { return s.name == key })
		if i < 0 {
			errs = append(errs, fmt.Errorf("unknown environment variable %s", name))
			continue
		}
		v, err := parseSetting(known[i], value)
		if err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s: %w", name, err))
			continue
		}
		out[key] = v
	}
	return out, errs
}

func parseSetting(s setting, value string) (any, error) {
	switch s.kind {
	case reflect.Bool:
		b, err := strconv.ParseBool(value)
		if err != nil {
			return nil, errors.New("use true or false")
		}
		return b, nil
	case reflect.Int:
		n, err := strconv.Atoi(value)
		if err != nil {
			return nil, errors.New("use a whole number")
		}
		return n, nil
	case reflect.Float64:
		f, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, errors.New("use a number")
		}
		return f, nil
	case reflect.Slice:
		return strings.Split(value, ","), nil
	}
	return value, nil
}

// fromFile reads the YAML file: unknown keys and wrong types are mistakes.
func fromFile(k *koanf.Koanf, path string, known []setting) []error {
	if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
		return []error{fmt.Errorf("configuration file %s: %w", path, err)}
	}
	var errs []error
	for key, value := range k.All() {
		i := slices.IndexFunc(known, func(s setting) bool { return s.name == key && key != "config" })
		if i < 0 {
			errs = append(errs, fmt.Errorf("configuration file %s: unknown setting %q", path, strings.ReplaceAll(key, "\x00", ".")))
			continue
		}
		got := typeName(reflect.ValueOf(value).Kind())
		if want := typeName(known[i].kind); got != want && !(want == "a number" && got == "a whole number") {
			errs = append(errs, fmt.Errorf("configuration file %s: %s must be %s", path, key, want))
			k.Delete(key)
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errs
}

func typeName(k reflect.Kind) string {
	switch k {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Slice:
		return "a list"
	}
	return "text"
}

// trust says who else may write the server's files.
func (s settings) trust() ownfile.Trust {
	if !s.k.Exists("file-group") {
		return ownfile.Trust{}
	}
	return ownfile.Trust{Groups: []int{s.k.Int("file-group")}}
}

// readSecret reads a file that nobody else may read or write.
func (s settings) readSecret(path string) ([]byte, error) {
	if err := s.trust().CheckSecret(path); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

func (s settings) text(key, otherwise string) string {
	if !s.k.Exists(key) {
		return otherwise
	}
	return s.k.String(key)
}

// server makes the server's configuration, and reports every mistake at once.
func (s settings) server(e *env) (server.Config, error) {
	var errs []error
	level := slog.LevelInfo
	if err := level.UnmarshalText([]byte(s.text("log-level", "info"))); err != nil {
		errs = append(errs, fmt.Errorf("log-level %q is not debug, info, warn or error", s.text("log-level", "")))
	}
	format := s.text("log-format", "text")
	if format != "text" && format != "json" {
		errs = append(errs, fmt.Errorf("log-format %q is not text or json", format))
	}
	c := server.Config{
		DataDir: s.text("data-dir", defaultDataDir()), Listen: s.text("listen", "127.0.0.1:7443"), ListenHTTP: s.text("listen-http", ""),
		AllowPlainHTTP: s.k.Bool("allow-plain-http"), Region: s.text("region", "local"),
		TLSCertFile: s.text("tls-cert-file", ""), TLSKeyFile: s.text("tls-key-file", ""), TLSNames: s.k.Strings("tls-name"),
		Settings: s.inForce(), NonceLimit: s.k.Int("nonce-limit"), ReadMemory: s.k.Int("read-memory"),
		StoreQuota: s.k.Int("store-quota"), StoreReserve: s.k.Int("store-reserve"),
		Limit:          limit.Config{PerKey: s.k.Float64("rate-limit"), Total: s.k.Float64("rate-limit-total")},
		MaxConnections: s.k.Int("max-connections"), MaxPerSource: s.k.Int("max-connections-per-source"), RefusalRate: s.k.Float64("refusal-rate"),
		Logger: command.NewLogger(e.stderr, level, format == "json"),
	}
	c.Trust = s.trust()
	var err error
	if c.Proxies, err = conns.ParseProxies(s.k.Strings("trusted-proxies")); err != nil {
		errs = append(errs, err)
	}
	c.ListenMetrics = s.text("listen-metrics", "")
	commands, commandErr := s.commands(c)
	errs = append(errs, commandErr)
	c.Kinds = TargetKinds(commands)
	c.SignatureRegions = s.k.Strings("signature-region")
	c.RefuseV1 = s.k.Exists("signature-v1") && !s.k.Bool("signature-v1")
	errs = append(errs, s.duration("clock-ahead", time.Second, auth.Window, &c.ClockAhead))
	errs = append(errs, s.rotation(&c), s.egress(&c.Egress), s.audit(&c))
	if s.k.Exists("store-quota") && c.StoreQuota == 0 {
		errs = append(errs, errors.New("store-quota 0 leaves no room; it is in MiB"))
	}
	if s.k.Exists("store-reserve") && c.StoreReserve == 0 {
		c.StoreReserve = -1
	} else if c.StoreReserve < 0 {
		errs = append(errs, errors.New("store-reserve must not be negative"))
	}
	if c.RootKey, err = s.rootKey(); err != nil {
		errs = append(errs, err)
	}
	if c.Etcd, err = s.etcd(); err != nil {
		errs = append(errs, err)
	}
	if c.Cluster, err = s.cluster(); err != nil {
		errs = append(errs, err)
	}
	return c, errors.Join(append(errs, c.Check())...)
}

func (s settings) rootKey() (root.Provider, error) {
	path, variable := s.text("root-key-file", ""), s.text("root-key-env", "")
	switch {
	case path != "" && variable != "":
		return nil, errors.New("root-key-file and root-key-env exclude each other")
	case path != "":
		return root.File{Path: path, Trust: s.trust()}, nil
	case variable != "":
		return root.Env{Variable: variable}, nil
	}
	return nil, nil
}

// cluster reads who the members of a cluster of embedded stores are. Settings for one without peers are a mistake.
func (s settings) cluster() (*store.Cluster, error) {
	var errs []error
	peers := map[string]string{}
	for _, pair := range s.k.Strings("cluster-peers") {
		name, url, ok := strings.Cut(pair, "=")
		if _, twice := peers[name]; !ok || twice {
			errs = append(errs, fmt.Errorf("cluster-peers: %q is not NAME=https://HOST:PORT with a name of its own", pair))
		}
		peers[name] = url
	}
	if len(peers) > 0 {
		return &store.Cluster{
			Name: s.text("cluster-name", ""), Peers: peers, Listen: s.text("peer-listen", ""),
			CertFile: s.text("peer-cert-file", ""), KeyFile: s.text("peer-key-file", ""), CAFile: s.text("peer-ca-file", ""),
			AllowedCN: s.text("peer-allowed-cn", ""), AllowedHostname: s.text("peer-allowed-hostname", ""),
		}, errors.Join(errs...)
	}
	for _, key := range []string{"cluster-name", "peer-listen", "peer-cert-file", "peer-key-file", "peer-ca-file", "peer-allowed-cn", "peer-allowed-hostname"} {
		if s.k.Exists(key) {
			errs = append(errs, fmt.Errorf("%s is for cluster-peers, which is not set", key))
		}
	}
	return nil, errors.Join(errs...)
}

// etcd reads what is needed to reach a cluster. Settings for a cluster without endpoints are a mistake.
func (s settings) etcd() (server.Etcd, error) {
	c := server.Etcd{Endpoints: s.k.Strings("etcd-endpoints"), Username: s.text("etcd-username", ""), Prefix: s.text("etcd-prefix", "")}
	var errs []error
	if len(c.Endpoints) == 0 {
		for _, key := range []string{"etcd-ca-file", "etcd-cert-file", "etcd-key-file", "etcd-username", "etcd-password-file", "etcd-prefix"} {
			if s.k.Exists(key) {
				errs = append(errs, fmt.Errorf("%s is for etcd-endpoints, which is not set", key))
			}
		}
		return c, errors.Join(errs...)
	}
	if path := s.text("etcd-password-file", ""); path != "" {
		password, err := s.readSecret(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("etcd-password-file: %w", err))
		}
		c.Password = strings.TrimRight(string(password), "\r\n")
	}
	var err error
	if c.TLS, err = s.etcdTLS(c.Endpoints); err != nil {
		errs = append(errs, err)
	}
	return c, errors.Join(errs...)
}

func (s settings) etcdTLS(endpoints []string) (*tls.Config, error) {
	ca, cert, key := s.text("etcd-ca-file", ""), s.text("etcd-cert-file", ""), s.text("etcd-key-file", "")
	if !slices.ContainsFunc(endpoints, func(e string) bool { return strings.HasPrefix(e, "https://") }) {
		if ca+cert+key != "" {
			return nil, errors.New("etcd-ca-file, etcd-cert-file and etcd-key-file need endpoints that begin with https://")
		}
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		if err := s.trust().CheckFile(ca); err != nil {
			return nil, fmt.Errorf("etcd-ca-file: %w", err)
		}
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("etcd-ca-file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("etcd-ca-file: %s holds no PEM certificate", ca)
		}
	}
	if (cert == "") != (key == "") {
		return nil, errors.New("etcd-cert-file and etcd-key-file go together")
	}
	if cert != "" {
		if err := s.trust().CheckSecret(key); err != nil {
			return nil, fmt.Errorf("etcd-key-file: %w", err)
		}
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("etcd-cert-file: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
