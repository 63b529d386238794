package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/keyturn/keyturn/internal/command"
	"github.com/keyturn/keyturn/internal/server"
)

// serveCommand runs the server. Each setting is a flag, a variable of the environment (KEYTURN_ and the flag's name in
// capitals, hyphens as underscores) and a key of the configuration file; the flag wins over the variable, and the
// variable over the file. Settings are pointers so that what was not said can be told from what was.
type serveCommand struct {
	Config                *string  `help:"YAML file with settings, named as these flags." placeholder:"FILE"`
	DataDir               *string  `help:"Directory for everything the server keeps (${default_data_dir})." placeholder:"DIR"`
	Listen                *string  `help:"Address of the TLS listener; empty for none (127.0.0.1:7443)." placeholder:"HOST:PORT"`
	ListenHTTP            *string  `name:"listen-http" help:"Address of a plain HTTP listener, on loopback only (none)." placeholder:"HOST:PORT"`
	ListenMetrics         *string  `help:"Address of a plain HTTP listener for /metrics, /healthz and /readyz; without it /metrics is on the others, for this machine only (none)." placeholder:"HOST:PORT"`
	TrustedProxies        []string `help:"Addresses and networks of reverse proxies whose X-Forwarded-For and X-Forwarded-Proto count; comma-separated (none)." placeholder:"CIDR"`
	AllowPlainHTTP        *bool    `name:"allow-plain-http" help:"Permit the plain HTTP listener on any address: values cross the network in clear."`
	Region                *string  `help:"Region of the server; it appears in ARNs (local)." placeholder:"NAME"`
	RootKeyFile           *string  `help:"File with the root key, made on first run (DATA-DIR/root.key)." placeholder:"FILE"`
	RootKeyEnv            *string  `help:"Variable of the environment with the root key, instead of a file." placeholder:"NAME"`
	TLSCertFile           *string  `name:"tls-cert-file" help:"Certificate of your own, PEM; else one by a local CA." placeholder:"FILE"`
	TLSKeyFile            *string  `name:"tls-key-file" help:"Its key, PEM." placeholder:"FILE"`
	TLSName               []string `name:"tls-name" help:"Another host name or address for the certificate by the local CA; may be repeated." placeholder:"NAME"`
	EtcdEndpoints         []string `trail:"host" help:"Use this etcd cluster instead of the embedded store; comma-separated." placeholder:"URL"`
	EtcdCAFile            *string  `name:"etcd-ca-file" help:"Certificate that the cluster's are checked by, PEM." placeholder:"FILE"`
	EtcdCertFile          *string  `help:"Client certificate for the cluster, PEM." placeholder:"FILE"`
	EtcdKeyFile           *string  `help:"Its key, PEM." placeholder:"FILE"`
	EtcdUsername          *string  `help:"User of the cluster." placeholder:"NAME"`
	EtcdPasswordFile      *string  `help:"File with its password." placeholder:"FILE"`
	EtcdPrefix            *string  `help:"Prefix of all keys in the cluster (keyturn/)." placeholder:"TEXT"`
	ClusterName           *string  `help:"Name of this node in a cluster of embedded stores." placeholder:"NAME"`
	ClusterPeers          []string `help:"All nodes of that cluster, this one included; comma-separated." placeholder:"NAME=https://HOST:PORT"`
	PeerListen            *string  `help:"Where this node listens for the others (as in cluster-peers)." placeholder:"HOST:PORT"`
	PeerCertFile          *string  `help:"Certificate by which the nodes know each other, PEM." placeholder:"FILE"`
	PeerKeyFile           *string  `help:"Its key, PEM." placeholder:"FILE"`
	PeerCAFile            *string  `name:"peer-ca-file" help:"Certificate that the nodes' are checked by, PEM." placeholder:"FILE"`
	PeerAllowedCN         *string  `name:"peer-allowed-cn" help:"Common name that the nodes' certificates must have (any)." placeholder:"NAME"`
	PeerAllowedHostname   *string  `help:"Host name that the nodes' certificates must be valid for (any)." placeholder:"NAME"`
	FileGroup             *int     `help:"ID of a group whose members may read and write the server's files, such as the fsGroup of a pod (none)." placeholder:"GID"`
	AllowCoreDumps        *bool    `help:"Permit core dumps and debuggers of the same user: keys can then leave the process."`
	AuditDir              *string  `help:"Directory of the audit trail (DATA-DIR/audit)." placeholder:"DIR"`
	AuditCompress         *bool    `help:"Compress finished files of the audit trail (true)." negatable:""`
	AuditMaxAge           *string  `help:"Remove files of the audit trail whose records are all older and that every sink has (never)." placeholder:"DURATION"`
	AuditMaxSize          *int     `help:"MiB that the audit trail may take: beyond, its oldest files are removed, whether or not sinks have them (no limit)." placeholder:"N"`
	AuditDiskAlert        *int     `help:"MiB that must be free on the disk of the audit trail, or an error is logged; 0 for no look at it (1024)." placeholder:"N"`
	AuditSyslog           *string  `help:"Syslog server that takes a copy of the audit trail; tcp:// on loopback only (none)." placeholder:"tls://HOST:PORT"`
	AuditSyslogCAFile     *string  `name:"audit-syslog-ca-file" help:"Certificate that the syslog server's is checked by, PEM." placeholder:"FILE"`
	AuditHTTPURL          *string  `name:"audit-http-url" trail:"host" help:"HTTPS endpoint that takes a copy of the audit trail (none)." placeholder:"URL"`
	AuditHTTPTokenFile    *string  `name:"audit-http-token-file" help:"File with a bearer token for that endpoint." placeholder:"FILE"`
	AuditHTTPCAFile       *string  `name:"audit-http-ca-file" help:"Certificate that the endpoint's is checked by, PEM." placeholder:"FILE"`
	AuditStrict           *bool    `help:"Refuse to start when the audit trail has lost records, instead of recording the loss."`
	NonceLimit            *int     `help:"Used nonces to remember (4194304, about 100 MB when full)." placeholder:"N"`
	ClockAhead            *string  `help:"How far the time of a request may be ahead of the server's (2m)." placeholder:"DURATION"`
	SignatureV1           *bool    `name:"signature-v1" negatable:"" help:"Accept signature version 1, which uses HMAC-SHA1 (yes)."`
	SignatureRegion       []string `help:"Another region that the scope of a version 4 signature may name; may be repeated (the server's own)." placeholder:"REGION"`
	ReadMemory            *int     `help:"MiB for records that were read lately (320)." placeholder:"N"`
	StoreQuota            *int     `help:"MiB that the embedded store may take (8192)." placeholder:"N"`
	StoreReserve          *int     `help:"MiB that must be left on its disk for a change to be taken; 0 for no look at it (128)." placeholder:"N"`
	RateLimit             *float64 `help:"Requests a second that one access key may make (no limit)." placeholder:"N"`
	RateLimitTotal        *float64 `help:"Requests a second of all together (no limit)." placeholder:"N"`
	MaxConnections        *int     `help:"Connections that all listeners together take (what the limit of open files allows, at most 16384)." placeholder:"N"`
	MaxPerSource          *int     `name:"max-connections-per-source" help:"Connections without a valid signature that one address may have (a sixteenth of max-connections)." placeholder:"N"`
	RefusalRate           *float64 `help:"Refused requests a second of one address that are answered without delay (50)." placeholder:"N"`
	RotationGrace         *string  `help:"How long an old credential works after a rotation at least (1h)." placeholder:"DURATION"`
	RotationGraceLimit    *string  `help:"How long it works at most while a consumer holds it; no more than the grace, and nobody is waited for (24h)." placeholder:"DURATION"`
	RotationLeastInterval *string  `help:"Shortest interval between automatic rotations (6h)." placeholder:"DURATION"`
	RotationRequests      *string  `name:"rotation-request-interval" help:"How often a rotation of one secret may be asked for, once eight were, and a credential tried by repair --adopt, once three were (10m)." placeholder:"DURATION"`
	RotationProbe         *string  `help:"How often a target is asked whether it accepts the credential in use (1h)." placeholder:"DURATION"`
	RotationHold          *string  `help:"How long a read waits while the only credential of its secret is changed (2s)." placeholder:"DURATION"`
	RotationRate          *float64 `help:"Rotations a second that fall due by themselves and may begin at one target (2)." placeholder:"N"`
	Command               []string `name:"command" sep:"none" help:"Command line that targets of kind command may name; may be repeated (none)." placeholder:"NAME=/PATH ARG…"`
	CommandUser           *string  `help:"User that commands run as, USER or UID:GID; self accepts that they can read the server's keys (none)." placeholder:"USER"`
	CommandDir            []string `help:"Without effect: see command." placeholder:"DIR" hidden:""`
	EventURL              []string `name:"event-url" trail:"host" help:"Endpoint that receives rotations as CloudEvents; may be repeated (none)." placeholder:"URL"`
	EgressAllow           []string `help:"Network, address or host that targets and event receivers may be at; may be repeated (all but special ones)." placeholder:"RULE"`
	EgressDeny            []string `help:"One that they may not be at; may be repeated (none)." placeholder:"RULE"`
	EventKeyFile          *string  `help:"File with the key that signs these requests." placeholder:"FILE"`
	LogLevel              *string  `help:"debug, info, warn or error (info)." placeholder:"LEVEL"`
	LogFormat             *string  `help:"text or json (text)." placeholder:"FORMAT"`
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

func (c *serveCommand) Run(e *env) error {
	set, loadErr := loadSettings(c, os.Environ())
	config, err := set.server(e)
	if err := errors.Join(loadErr, err); err != nil {
		return coded{exitUsage, err.Error()}
	}
	if !set.k.Bool("allow-core-dumps") {
		if err := keepMemory(); err != nil {
			config.Logger.Warn("core dumps could not be switched off", "err", err)
		}
	}
	return serve(e, config)
}

// serve runs the server until it is told to stop. What it prints on standard output is for the person who started it.
func serve(e *env, config server.Config) error {
	node, err := server.New(e.ctx, config)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(e.ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	select {
	case <-node.Ready():
	case err := <-done:
		return err
	}
	announce(e, node, config)
	err = <-done
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	config.Logger.Info("stopped")
	return err
}

func announce(e *env, node *server.Server, config server.Config) {
	if endpoint := node.Endpoint(); endpoint != "" {
		fmt.Fprintf(e.stdout, "Keyturn %s serves https://%s", command.Version, endpoint)
	} else {
		fmt.Fprintf(e.stdout, "Keyturn %s serves http://%s", command.Version, node.HTTPEndpoint())
	}
	if node.Endpoint() != "" && node.HTTPEndpoint() != "" {
		fmt.Fprintf(e.stdout, " and http://%s", node.HTTPEndpoint())
	}
	fmt.Fprintln(e.stdout, "")
	admin, first := node.Admin()
	if !first {
		return
	}
	path := filepath.Join(config.DataDir, "admin.json")
	secret := "(in that file; shown only on a terminal)"
	if isTerminal(e.stdout) {
		secret = admin.AccessKeySecret.Reveal() // anything else that standard output leads to, a journal say, keeps it
	}
	fmt.Fprintf(e.stdout, `
First run: account %s and its administrator were made. The administrator's access key is in
%s (mode 0600), which you may put away.

  access key id      %s
  access key secret  %s

Next:
  keyturn profile import %s
  echo -n 's3cret' | keyturn secret put app/db
  keyturn secret get app/db

`, admin.AccountID, path, admin.AccessKeyID, secret, path)
	if key := config.RootKey; key == nil {
		fmt.Fprintf(e.stdout, "Keep a copy of the root key %s in another place: without it the store cannot be read.\n", filepath.Join(config.DataDir, "root.key"))
	} else {
		fmt.Fprintf(e.stdout, "Keep a copy of the root key (%s) in another place: without it the store cannot be read.\n", key.Name())
	}
}
