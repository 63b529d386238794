// Package server connects the parts of Keyturn into one running process. It is wiring: the
// decisions are made in the packages that it connects. It also holds the table of settings
// (settings.go).
package server

import (
	"crypto/fips140"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/auth"
	"github.com/keyturn/keyturn/internal/conns"
	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/limit"
	"github.com/keyturn/keyturn/internal/ownfile"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/rotator"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/sign"
)

// Config describes how a server runs. Only DataDir is required: [New] sets a field that is zero to
// the default of its setting (settings.go).
type Config struct {
	// DataDir holds everything that the server keeps on this machine; made with mode 0700. Required.
	DataDir string
	// Listen is the address of the TLS listener; empty means no such listener.
	Listen string
	// ListenHTTP is the address of the plain listener; empty means no such listener. It must be on
	// loopback unless AllowPlainHTTP is set.
	ListenHTTP string
	// AllowPlainHTTP permits ListenHTTP on any address: values then cross the network in clear.
	AllowPlainHTTP bool
	// ListenMetrics is the address of a plain listener for /metrics, /healthz and /readyz; empty means
	// that these are on the other listeners, /metrics for loopback only.
	ListenMetrics string
	// Proxies are the reverse proxies that are trusted to report the origin of a request.
	Proxies conns.Proxies
	// Region appears in ARNs; 1 to 32 lower-case letters, digits and hyphens.
	Region string
	// RootKey provides the root key; nil means the file root.key in DataDir.
	RootKey root.Provider
	// Version is the version of the program, for /metrics.
	Version string
	// TLSCertFile and TLSKeyFile are the operator's certificate; empty means one by the local CA.
	TLSCertFile, TLSKeyFile string
	// TLSNames are more host names and addresses for the certificate by the local CA, besides the
	// machine's own.
	TLSNames []string
	// Etcd names an etcd cluster instead of the embedded store.
	Etcd Etcd
	// Cluster makes the embedded store one of several members; nil means that it is alone.
	Cluster *store.Cluster
	// AuditDir holds the audit trail; empty means the directory audit in DataDir.
	AuditDir string
	// AuditStrict refuses to start when the trail has lost records. Otherwise the loss is logged,
	// counted and recorded.
	AuditStrict bool
	// AuditKeep describes how finished segments of the trail are kept; Taken and StoreHead are set
	// here.
	AuditKeep audit.Retention
	// AuditSinks take a copy of the trail.
	AuditSinks []audit.Sink
	// AuditDiskAlert is how many MiB must be free on the disk of the trail, or an error is
	// logged; -1 disables the check.
	AuditDiskAlert int
	// Settings are those in force, for the record of the start. No secret may be in them.
	Settings audit.Details
	// NonceLimit is how many nonces the server remembers.
	NonceLimit int
	// ClockAhead is how far the time of a request may be ahead of the clock.
	ClockAhead time.Duration
	// RefuseV1 refuses signature version 1, whose usual algorithm is HMAC-SHA1.
	RefuseV1 bool
	// SignatureRegions are regions beside Region that the scope of a version 4 signature may name.
	SignatureRegions []string
	// ReadMemory is about how many MiB may hold records that were read lately.
	ReadMemory int
	// StoreQuota is how many MiB the embedded store may take.
	StoreQuota int
	// StoreReserve is how many MiB must be left on the disk of the embedded store for a change to be
	// accepted; -1 disables the check.
	StoreReserve int
	// Limit bounds requests a second; the zero value limits nothing.
	Limit limit.Config
	// MaxConnections is how many connections all listeners together take; 0 means as many as the limit
	// of open files leaves after a reserve, at most 16,384.
	MaxConnections int
	// MaxPerSource is how many connections without a valid signature one address may have; 0 means a
	// sixteenth of MaxConnections.
	MaxPerSource int
	// RefusalRate is how many requests a second of one source are refused without delay for want of a
	// valid signature, and of one access key, twice as many, for want of a right.
	RefusalRate float64
	// Egress restricts the addresses that targets and event receivers may have. The server adds its
	// own services.
	Egress egress.Config
	// Kinds are the kinds of targets that can be registered; nil means none.
	Kinds []target.Kind
	// Rotation describes how credentials are rotated where a secret has no setting of its own.
	Rotation api.RotationConfig
	// Rotator configures the engine; its Node, Logger and Observe are set here.
	Rotator rotator.Config
	// RequestTimeout is how long a client may take to send a request, and to take its answer; 0 means
	// 30 seconds. Its header must come in a third of that.
	RequestTimeout time.Duration
	// Logger is for the operator; nil means nothing is logged.
	Logger *slog.Logger

	// Now is the clock; nil means time.Now. For tests.
	Now func() time.Time
	// NewID makes request IDs; nil means random UUIDs. For tests.
	NewID func() string
	// Random is the source of GetRandomPassword; nil means crypto/rand. For tests.
	Random io.Reader
	// TestTime is [api.Env.TestTime]. For tests.
	TestTime time.Duration
	// KeyStep is called after each step of a rotation of the root key; an error of it stops the
	// rotation there. For tests.
	KeyStep func(step string) error
	// Admin is the administrator's access key of a new store; zero means a random one. AccountID
	// likewise. For tests.
	Admin     sign.Credentials
	AccountID string
	// Trust names the groups that, besides root and the user of the server, may write the files that
	// the server relies on.
	Trust ownfile.Trust

	// NoSync leaves out fsync of the store: for throw-away servers only.
	NoSync bool
}

// Etcd describes how to reach an etcd cluster.
type Etcd struct {
	// Endpoints are URLs or host:port; empty means the embedded store.
	Endpoints []string
	// TLS is nil for plain connections.
	TLS *tls.Config
	// Username and Password are for clusters with authentication.
	Username, Password string
	// Prefix stands before every key; empty means "keyturn/".
	Prefix string
}

// check refuses a user or password inside an endpoint, where errors of libraries would quote it,
// and a password that would cross the network in clear.
func (e Etcd) check() error {
	for i, endpoint := range e.Endpoints {
		if strings.Contains(endpoint, "@") {
			return fmt.Errorf("etcd-endpoints: number %d must not hold a user or password: "+
				"give them by etcd-username and etcd-password-file", i+1)
		}
	}
	if e.Password == "" {
		return nil
	}
	var errs []error
	for _, endpoint := range e.Endpoints {
		address, https := strings.CutPrefix(endpoint, "https://")
		address = strings.TrimPrefix(address, "http://")
		host, _, err := net.SplitHostPort(strings.TrimSuffix(address, "/"))
		if err != nil {
			host = address
		}
		if !https && !egress.IsLoopback(host) {
			errs = append(errs, fmt.Errorf(
				"etcd-endpoints: %q is not https and not on loopback: the password would cross the network in clear", endpoint))
		}
	}
	return errors.Join(errs...)
}

// Check reports every mistake at once.
func (c Config) Check() error {
	set := NewSettings()
	set.Config = c
	errs := []error{c.checkListeners(), c.checkStore(), set.table.Check()}
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.DataDir == "" {
		add("data-dir is required")
	}
	if fips140.Enforced() {
		add("GODEBUG=fips140=only is not possible: etcd names its members by SHA-1; set GODEBUG=fips140=on and " +
			"--no-signature-v1 instead")
	}
	const regionRule = "%s must be 1 to 32 lower-case letters, digits and hyphens, not %q"
	if c.Region != "" && !isRegion(c.Region) {
		add(regionRule, "region", c.Region)
	}
	for _, r := range c.SignatureRegions {
		if !isRegion(r) {
			add(regionRule, "signature-region", r)
		}
	}
	if c.ClockAhead > auth.Window { // the record of used nonces reaches no further
		add("clock-ahead must be at most %v, not %v", auth.Window, c.ClockAhead)
	}
	if c.AccountID != "" && (len(c.AccountID) != 16 || !wire.IsName(c.AccountID)) {
		add("the account ID must be 16 digits")
	}
	return errors.Join(errs...)
}

func (c Config) checkListeners() error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Listen == "" && c.ListenHTTP == "" {
		add("listen or listen-http is required: the server would listen nowhere")
	}
	for _, listener := range [][2]string{
		{"listen", c.Listen},
		{"listen-http", c.ListenHTTP},
		{"listen-metrics", c.ListenMetrics},
	} {
		name, address := listener[0], listener[1]
		if address == "" {
			continue
		}
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			add("%s must be host:port, not %q", name, address)
		} else if name == "listen-http" && !c.AllowPlainHTTP && !egress.IsLoopback(host) {
			add("listen-http %q is not on loopback: values would cross the network in clear; use listen, or set "+
				"allow-plain-http to accept that", address)
		}
	}
	if (c.TLSCertFile == "") != (c.TLSKeyFile == "") {
		add("tls-cert-file and tls-key-file go together: set both or neither")
	}
	return errors.Join(errs...)
}

func (c Config) checkStore() error {
	errs := []error{c.Etcd.check()}
	if c.Cluster != nil {
		errs = append(errs, c.Cluster.Check())
	}
	if len(c.Etcd.Endpoints) == 0 {
		return errors.Join(errs...)
	}
	if c.Cluster != nil {
		errs = append(errs, errors.New("cluster-peers and etcd-endpoints exclude each other: set one of them"))
	}
	if c.StoreQuota != 0 || c.StoreReserve != 0 {
		errs = append(errs, errors.New("store-quota and store-reserve are for the embedded store, not for etcd-endpoints"))
	}
	return errors.Join(errs...)
}

func isRegion(s string) bool {
	return s != "" && len(s) <= 32 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}
