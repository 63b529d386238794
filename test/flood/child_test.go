package flood

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
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
)

const (
	childVariable = "KEYTURN_FLOOD_CHILD" // the data directory
	openFiles     = 1024
	patience      = time.Minute // the machine may be busy
)

// child is a server in a process of its own.
func child() int {
	limit := syscall.Rlimit{Cur: openFiles, Max: openFiles}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	node, err := server.New(ctx, server.Config{
		DataDir: os.Getenv(childVariable), Listen: "127.0.0.1:0", ListenHTTP: "127.0.0.1:0",
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() {
		<-node.Ready()
		fmt.Println("ready")
		_, _ = io.Copy(io.Discard, os.Stdin) // the parent closes it to stop us, or by dying
		stop()
	}()
	if err := node.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// process is a running child.
type process struct {
	dir        string
	tls, plain string // host:port
	roots      *x509.CertPool
	admin      sign.Credentials
	pid        int
	ended      chan struct{}
}

func start(t *testing.T) *process {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc, and all of 127.0.0.0/8 on loopback")
	}
	p := &process{dir: t.TempDir(), ended: make(chan struct{})}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+p.dir)
	var log bytes.Buffer
	cmd.Stderr = &log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.pid = cmd.Process.Pid
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "ready\n" {
		_ = cmd.Wait()
		t.Fatalf("the server does not start: %q, %v\n%s", line, err, log.String())
	}
	var exit error
	go func() { exit = cmd.Wait(); close(p.ended) }()
	t.Cleanup(func() {
		if !p.alive() {
			t.Errorf("the server ended by itself: %v\n%s", exit, log.String())
		}
		_ = stdin.Close()
		<-p.ended
		if exit != nil {
			t.Errorf("the server did not stop in order: %v\n%s", exit, log.String())
		}
	})
	admin, err := server.ReadAdmin(filepath.Join(p.dir, "admin.json"))
	if err != nil {
		t.Fatal(err)
	}
	p.tls, p.plain = admin.Endpoint, admin.HTTPEndpoint
	p.admin = sign.Credentials{AccessKeyID: admin.AccessKeyID, AccessKeySecret: admin.AccessKeySecret}
	pem, err := os.ReadFile(admin.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	p.roots = x509.NewCertPool()
	p.roots.AppendCertsFromPEM(pem)
	return p
}

func (p *process) alive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// memory is the resident memory of the server in MiB.
func (p *process) memory(t *testing.T) float64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		t.Fatalf("the server is gone: %v", err)
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "VmRSS:" {
			kib, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			return float64(kib) / 1024
		}
	}
	t.Fatal("no VmRSS")
	return 0
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
		HTTPClient: &http.Client{Transport: transport, Timeout: patience},
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
