package flood

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sign"
	"github.com/keyturn/keyturn/test/nodes"
	"github.com/keyturn/keyturn/test/support"
)

const (
	dataDir   = "KEYTURN_FLOOD_CHILD" // the variable by which a child learns that it is a server
	openFiles = 1024
)

// child is a server in a process of its own.
func child(dir string) int {
	limit := syscall.Rlimit{Cur: openFiles, Max: openFiles}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return nodes.Serve(server.Config{
		DataDir:    dir,
		Listen:     "127.0.0.1:0",
		ListenHTTP: "127.0.0.1:0",
		Logger:     slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
}

// process is a running child.
type process struct {
	*support.Child
	dir        string
	tls, plain string // host:port
	roots      *x509.CertPool
	admin      sign.Credentials
}

func start(t *testing.T) *process {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc, and all of 127.0.0.0/8 on loopback")
	}
	p := &process{dir: t.TempDir()}
	ready := make(chan struct{})
	p.Child = support.StartSelf(t, []string{dataDir + "=" + p.dir},
		func(string) { close(ready) }) // it prints one line
	p.Await(t, ready)
	t.Cleanup(func() {
		if !p.Running() {
			t.Errorf("the server ended during the attacks: %v\n%s", p.Err, p.Log.Tail())
		}
		if p.Stop(t); p.Err != nil {
			t.Errorf("the server did not shut down gracefully: %v\n%s", p.Err, p.Log.Tail())
		}
	})
	admin := nodes.ReadAdmin(t, p.dir)
	p.tls, p.plain, p.admin = admin.Endpoint, admin.HTTPEndpoint, nodes.Credentials(admin)
	pem, err := os.ReadFile(admin.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	p.roots = x509.NewCertPool()
	p.roots.AppendCertsFromPEM(pem)
	return p
}

// memory returns the resident memory of the server in MiB.
func (p *process) memory() (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("the server has ended: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "VmRSS:" {
			kib, err := strconv.Atoi(fields[1])
			return float64(kib) / 1024, err
		}
	}
	return 0, errors.New("no VmRSS")
}

// trail is the size of the audit trail in bytes.
func (p *process) trail(t *testing.T) (size int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(p.dir, "audit", "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	return size
}

// transport connects from an address of loopback.
func (p *process) transport(from string) *http.Transport {
	d := &net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	return &http.Transport{
		DialContext: d.DialContext, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 100,
		TLSClientConfig: &tls.Config{RootCAs: p.roots, MinVersion: tls.VersionTLS13},
	}
}

// client calls the server over TLS from an address of loopback, without trying again.
func (p *process) client(t *testing.T, from string, as sign.Credentials, change ...func(*kms.Config)) *kms.Client {
	t.Helper()
	transport := p.transport(from)
	t.Cleanup(transport.CloseIdleConnections)
	return p.over(t, transport, as, change...)
}

func (p *process) over(
	t *testing.T,
	transport *http.Transport,
	as sign.Credentials,
	change ...func(*kms.Config),
) *kms.Client {
	t.Helper()
	c := kms.Config{
		Endpoint: p.tls, Credentials: as, MaxAttempts: 1,
		HTTPClient: &http.Client{Transport: transport, Timeout: support.Patience},
	}
	for _, f := range change {
		f(&c)
	}
	client, err := kms.NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	return client
}
