package server

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/auth"
	"github.com/keyturn/keyturn/internal/conns"
	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/rotator"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/settings"
	"github.com/keyturn/keyturn/internal/store"
)

// Settings are what an operator sets: fields of [Config], and others that name files and addresses,
// of which [Settings.Resolve] makes fields of Config.
type Settings struct {
	Config

	File           string // of settings
	AllowCoreDumps bool
	LogLevel       slog.Level
	LogFormat      string

	rootKeyFile, rootKeyEnv string

	etcdCAFile, etcdCertFile, etcdKeyFile, etcdPasswordFile string

	clusterPeers []string
	member       store.Cluster // this node in the cluster

	sinks map[string]*sinkSettings // by the name of the kind

	Commands    []string
	CommandUser string
	CommandDirs []string // without effect

	eventURLs    []string
	eventKeyFile string

	table settings.Table
}

// NewSettings returns the settings of a server as they are when nothing is set.
func NewSettings() *Settings {
	s := &Settings{sinks: map[string]*sinkSettings{}}
	s.table = s.rows()
	return s
}

// Table returns every setting of the server.
func (s *Settings) Table() settings.Table { return s.table }

// RootKeyFile is the file that the operator names for the root key; empty for none.
func (s *Settings) RootKeyFile() string { return s.rootKeyFile }

// Defaults returns the configuration that [New] completes a configuration with.
func Defaults() Config { return Config{}.withDefaults() }

const (
	year = 365 * 24 * time.Hour
	// leastTrailAge keeps a mistyped duration from emptying the trail.
	leastTrailAge = 24 * time.Hour
)

// rows is the table of settings, in the order of help and documents. A setting is one row here,
// with the field that its value goes to, and what uses that field.
func (s *Settings) rows() settings.Table {
	// The kinds of values; settings.Of is the row.
	var (
		text, list, lines = settings.Text, settings.List, settings.Lines
		whole, duration   = settings.Whole, settings.Duration
		positive          = settings.Number(0, math.Inf(1))
	)
	c := &s.Config
	rows := settings.Table{
		settings.Of("config", &s.File, text("FILE"), "",
			"YAML file with settings, named as the flags.").NotInFile(),
		settings.Of("data-dir", &c.DataDir, text("DIR"), defaultDataDir(),
			"Directory for everything that the server keeps on this machine.").Shown("~/.local/share/keyturn").Literal(),
		settings.Of("listen", &c.Listen, text("HOST:PORT"), "127.0.0.1:7443",
			"Address of the TLS listener; empty for none.").Literal(),
		settings.Of("listen-http", &c.ListenHTTP, text("HOST:PORT"), "",
			"Address of a plain HTTP listener, on loopback only."),
		settings.Of("allow-plain-http", &c.AllowPlainHTTP, settings.Switch(), false,
			"Permit the plain HTTP listener on any address: values cross the network in clear."),
		settings.Of("listen-metrics", &c.ListenMetrics, text("HOST:PORT"), "",
			"Address of a plain HTTP listener for /metrics, /healthz and /readyz. "+
				"Without it the other listeners serve /metrics, to this machine only."),
		settings.Of("trusted-proxies", &c.Proxies, settings.Parsed("CIDR", conns.ParseProxies), nil,
			"Addresses and networks of reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are trusted."),
		settings.Of("region", &c.Region, text("NAME"), "local",
			"Region of the server; it appears in ARNs."),
		settings.Of("root-key-file", &s.rootKeyFile, text("FILE"), "",
			"File with the root key; the first run creates it.").Shown("DATA_DIR/root.key"),
		settings.Of("root-key-env", &s.rootKeyEnv, text("NAME"), "",
			"Variable of the environment with the root key, instead of a file."),
		settings.Of("tls-cert-file", &c.TLSCertFile, text("FILE"), "",
			"Certificate of the TLS listener, PEM; read again every 10 s, and on SIGHUP.").
			Shown("one by a local CA"),
		settings.Of("tls-key-file", &c.TLSKeyFile, text("FILE"), "",
			"Key of that certificate, PEM."),
		settings.Of("tls-name", &c.TLSNames, list("NAME"), nil,
			"Another host name or address for the certificate by the local CA; may be repeated."),

		settings.Of("etcd-endpoints", &c.Etcd.Endpoints, list("URL"), nil,
			"Use this etcd cluster instead of the embedded store; comma-separated.").Secret(),
		settings.Of("etcd-ca-file", &s.etcdCAFile, text("FILE"), "",
			"CA certificate that verifies the etcd cluster, PEM.").For("etcd-endpoints"),
		settings.Of("etcd-cert-file", &s.etcdCertFile, text("FILE"), "",
			"Client certificate for the etcd cluster, PEM.").For("etcd-endpoints"),
		settings.Of("etcd-key-file", &s.etcdKeyFile, text("FILE"), "",
			"Key of the client certificate, PEM.").For("etcd-endpoints"),
		settings.Of("etcd-username", &c.Etcd.Username, text("NAME"), "",
			"User of the etcd cluster.").For("etcd-endpoints"),
		settings.Of("etcd-password-file", &s.etcdPasswordFile, text("FILE"), "",
			"File with the password of that user.").For("etcd-endpoints"),
		settings.Of("etcd-prefix", &c.Etcd.Prefix, text("TEXT"), "",
			"Prefix of all keys in the etcd cluster.").Shown("keyturn/").For("etcd-endpoints"),

		settings.Of("cluster-name", &s.member.Name, text("NAME"), "",
			"Name of this node in a cluster of embedded stores.").For("cluster-peers"),
		settings.Of("cluster-peers", &s.clusterPeers, list("NAME=https://HOST:PORT"), nil,
			"All nodes of that cluster, this one included; comma-separated."),
		settings.Of("peer-listen", &s.member.Listen, text("HOST:PORT"), "",
			"Address where this node listens for the others.").Shown("as in cluster-peers").For("cluster-peers"),
		settings.Of("peer-cert-file", &s.member.CertFile, text("FILE"), "",
			"Certificate that identifies this node to the others, PEM.").For("cluster-peers"),
		settings.Of("peer-key-file", &s.member.KeyFile, text("FILE"), "",
			"Key of that certificate, PEM.").For("cluster-peers"),
		settings.Of("peer-ca-file", &s.member.CAFile, text("FILE"), "",
			"CA certificate that verifies the other nodes, PEM.").For("cluster-peers"),
		settings.Of("peer-allowed-cn", &s.member.AllowedCN, text("NAME"), "",
			"Common name that the certificates of the other nodes must have.").Shown("any").For("cluster-peers"),
		settings.Of("peer-allowed-hostname", &s.member.AllowedHostname, text("NAME"), "",
			"Host name that the certificates of the other nodes must be valid for.").Shown("any").For("cluster-peers"),

		settings.Of("file-group", &c.Trust.Groups, settings.ID("GID"), nil,
			"ID of a group whose members may read and write the server's files, such as the fsGroup of a pod."),
		settings.Of("allow-core-dumps", &s.AllowCoreDumps, settings.Switch(), false,
			"Permit core dumps and debuggers of the same user: keys can then leave the process."),

		settings.Of("audit-dir", &c.AuditDir, text("DIR"), "",
			"Directory of the audit trail.").Shown("DATA_DIR/audit"),
		settings.Of("audit-compress", &c.AuditKeep.Compress, settings.Switch(), true,
			"Compress finished files of the audit trail.").Literal(),
		settings.Of("audit-max-age", &c.AuditKeep.MaxAge, settings.AtLeast(leastTrailAge), 0,
			"Remove a file of the audit trail once all its records are older and every sink has them.").Shown("never"),
		settings.Of("audit-max-size", &c.AuditKeep.MaxBytes, settings.MiB(256), 0,
			"MiB that the audit trail may take. "+
				"Beyond, its oldest files of 64 MiB are removed, even if a sink does not have them."),
		settings.Of("audit-disk-alert", &c.AuditDiskAlert, settings.OrOff(), 1024,
			"MiB that must be free on the disk of the audit trail, or an error is logged."),
		settings.Of("audit-strict", &c.AuditStrict, settings.Switch(), false,
			"Refuse to start when the audit trail has lost records. Otherwise the loss is logged, counted and recorded."),
	}
	for _, k := range sinkKinds {
		rows = append(rows, k.rows(s)...)
	}
	return append(rows,
		settings.Of("nonce-limit", &c.NonceLimit, whole(0), auth.DefaultNonces,
			"Used nonces to remember, about 100 MB for 4194304 of them."),
		settings.Of("clock-ahead", &c.ClockAhead, duration(time.Second, auth.Window), auth.DefaultAhead,
			"How far the time of a request may be ahead of the server's clock."),
		settings.Of("signature-v1", &c.RefuseV1, settings.Inverted(), false,
			"Accept signature version 1, whose usual algorithm is HMAC-SHA1."),
		settings.Of("signature-region", &c.SignatureRegions, list("REGION"), nil,
			"Another region that the scope of a version 4 signature may name; may be repeated.").Shown("the server's own"),

		settings.Of("read-memory", &c.ReadMemory, whole(0), store.DefaultMirror>>20,
			"MiB for recently read records; a secret takes about 2.7 KiB."),
		settings.Of("store-quota", &c.StoreQuota, whole(1), store.DefaultQuota>>20,
			"MiB that the embedded store may take."),
		settings.Of("store-reserve", &c.StoreReserve, settings.OrOff(), store.DefaultReserve>>20,
			"MiB that must be left on the disk of the embedded store for a change to be accepted."),

		settings.Of("rate-limit", &c.Limit.PerKey, positive, 0,
			"Requests a second that one access key may make."),
		settings.Of("rate-limit-total", &c.Limit.Total, positive, 0,
			"Requests a second of all access keys together."),
		settings.Of("max-connections", &c.MaxConnections, whole(0), 0,
			"Connections that all listeners together accept.").
			Shown(fmt.Sprintf("what the limit of open files allows, at most %d", mostConnections)),
		settings.Of("max-connections-per-source", &c.MaxPerSource, whole(0), 0,
			"Connections without a valid signature that one address may have.").Shown("a sixteenth of max-connections"),
		settings.Of("refusal-rate", &c.RefusalRate, positive, 50,
			"Refused requests a second of one address that are answered without delay."),

		settings.Of("rotation-grace", &c.Rotation.Grace.Min, duration(time.Second, year), time.Hour,
			"How long the previous credential works after a rotation at least; a secret may have its own."),
		settings.Of("rotation-grace-limit", &c.Rotation.Grace.Max, duration(time.Second, year), 24*time.Hour,
			"How long the previous credential works at most while a consumer holds it; a secret may have its own. "+
				"To wait for no consumer, set it no longer than the grace."),
		settings.Of("rotation-least-interval", &c.Rotation.LeastInterval, duration(time.Second, year), secret.MinInterval,
			"Shortest interval between automatic rotations, for every kind of schedule."),
		settings.Of("rotation-request-interval", &c.Rotation.RequestEvery,
			duration(time.Second, 24*time.Hour), 10*time.Minute,
			"How often a rotation of one secret may be requested, after the first 8, "+
				"and a credential be tried by repair --adopt, after the first 3."),
		settings.Of("rotation-probe", &c.Rotation.ProbeEvery, duration(time.Second, 30*24*time.Hour), time.Hour,
			"How often the server checks that a target accepts the credential in use."),
		settings.Of("rotation-read-wait", &c.Rotation.ReadWait,
			duration(10*time.Millisecond, 8*time.Second), 2*time.Second,
			"How long a read waits while the only credential of its secret is changed.").Formerly("rotation-hold"),
		settings.Of("rotation-rate", &c.Rotator.Rate, settings.Number(0.001, 1000), rotator.DefaultRate,
			"Scheduled rotations a second that may begin at one target."),

		settings.Of("command", &s.Commands, lines("NAME=/PATH ARG…"), nil,
			"Command line that targets of kind command may name; may be repeated.").Program(),
		settings.Of("command-user", &s.CommandUser, text("USER"), "",
			"User that commands run as: USER or UID:GID. self accepts that they can read the server's keys."),
		settings.Of("command-dir", &s.CommandDirs, list("DIR"), nil,
			"Without effect: see command.").Undocumented(),

		settings.Of("egress-allow", &c.Egress.Allow, settings.Parsed("RULE", parseRules), nil,
			"Network, address or host that targets and event receivers may be at; may be repeated.").
			Shown("all but special ones"),
		settings.Of("egress-deny", &c.Egress.Deny, settings.Parsed("RULE", parseRules), nil,
			"Network, address or host that targets and event receivers may not be at; may be repeated."),
		settings.Of("event-url", &s.eventURLs, list("URL"), nil,
			"Endpoint that receives rotations as CloudEvents; may be repeated.").Secret(),
		settings.Of("event-key-file", &s.eventKeyFile, text("FILE"), "",
			"File with the key that signs these requests.").For("event-url"),

		settings.Of("log-level", &s.LogLevel, settings.Level(), slog.LevelInfo,
			"Lowest level that is logged, on standard error."),
		settings.Of("log-format", &s.LogFormat, settings.OneOf("FORMAT", "text", "json"), "text",
			"Format of the log.").Literal(),
	)
}

func defaultDataDir() string {
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "keyturn")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "keyturn-data"
	}
	return filepath.Join(home, ".local", "share", "keyturn")
}

func parseRules(texts []string) ([]egress.Rule, error) {
	var list []egress.Rule
	var errs []error
	for _, text := range texts {
		r, err := egress.ParseRule(text)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list = append(list, r)
	}
	return list, errors.Join(errs...)
}

// Load reads the settings from flags and environment, and from the file that they name.
func (s *Settings) Load(flags map[string][]string, environ []string, foreign func(variable string) bool) error {
	return s.table.Load(settings.Sources{Flags: flags, Environ: environ, Foreign: foreign, File: s.checkFile})
}

// checkFile verifies that no other user can have written the file of settings. A group that may
// write it must come from a flag or a variable: the file itself is not read yet.
func (s *Settings) checkFile() (string, error) {
	if s.File == "" {
		return "", nil
	}
	if err := s.Trust.CheckFile(s.File); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.File, fmt.Errorf("configuration file: %w", err)
	}
	return s.File, nil
}

// InForce returns the settings that were given, for the audit trail.
func (s *Settings) InForce() audit.Details {
	var details audit.Details
	for _, setting := range s.table.InForce() {
		details = append(details, audit.Detail{Name: setting[0], Value: setting[1]})
	}
	return details
}

// withDefaults returns c with the default of its setting in every field that is zero.
func (c Config) withDefaults() Config {
	s := NewSettings()
	s.Config = c
	s.table.Fill()
	c = s.Config
	if c.RootKey == nil {
		c.RootKey = root.File{Path: filepath.Join(c.DataDir, "root.key"), Trust: c.Trust}
	}
	if c.AuditDir == "" {
		c.AuditDir = filepath.Join(c.DataDir, "audit")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.RequestTimeout <= 0 {
		c.RequestTimeout = requestTimeout
	}
	return c
}
