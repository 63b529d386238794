package secrecy_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sign"
	"github.com/keyturn/keyturn/test/nodes"
	"github.com/keyturn/keyturn/test/support"
)

// node is a server in this process, so that a test can put its faults in.
type node struct {
	dir  string
	log  support.Log
	c    *caller
	key  sign.Credentials
	stop func()
}

func newNode(t *testing.T, change func(*server.Config)) *node {
	t.Helper()
	n := &node{dir: filepath.Join(t.TempDir(), "data")}
	config := server.Config{
		DataDir:    n.dir,
		ListenHTTP: "127.0.0.1:0",
		NoSync:     true,
		Logger:     slog.New(slog.NewTextHandler(&n.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	change(&config)
	s, err := server.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	<-s.Ready()
	n.stop = sync.OnceFunc(func() { cancel(); <-ended }) // how it ends is not this test's matter
	t.Cleanup(n.stop)
	admin, _ := s.Admin()
	n.key = sign.Credentials{AccessKeyID: admin.AccessKeyID, AccessKeySecret: admin.AccessKeySecret}
	n.c = newCaller(s.HTTPEndpoint(), admin.AccountID)
	return n
}

// call makes a call with values in it, which must be answered with the code.
func (n *node) call(t *testing.T, action, code string, params ...string) {
	t.Helper()
	got, err := n.c.call(n.key, declared(t, action), append(params, "Misspelt", both))
	if err != nil || got != code {
		t.Errorf("%s: %q, %v; want %q", action, got, err, code)
	}
}

// clean stops the server and searches all that it wrote. The log must have the words that report
// the fault.
func (n *node) clean(t *testing.T, words string) {
	t.Helper()
	n.stop()
	if !strings.Contains(n.log.String(), words) {
		t.Errorf("the log does not say %q:\n%s", words, n.log.String())
	}
	h := haystack{"log": []byte(n.log.String()), "errors": []byte(n.c.errors.String())}
	h.walk(t, n.dir)
	h.search(t, needles(t, n.c, n.key, nil), map[string][]string{"the administrator's key": {"data/admin.json"}})
}

// broken is a source of randomness that is not one.
type broken struct{}

func (broken) Read([]byte) (int, error) { panic("no randomness is left") }

// TestPanic breaks the server inside a handler, while it has values in its hands.
func TestPanic(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(c *server.Config) { c.Random = broken{} })
	n.call(t, "CreateSecret", "", "SecretName", "a", "VersionId", "v1", "SecretData", both)
	n.call(t, "CreateUser", kms.CodeInternalFailure, "UserName", "ann", "SecretData", both)
	n.call(t, "GetRandomPassword", kms.CodeInternalFailure, "SecretData", both)
	n.call(t, "GetSecretValue", "", "SecretName", "a")
	n.clean(t, "panicked: no randomness is left")
}

// TestAuditUnwritable fills the disk of the trail, and makes every call.
func TestAuditUnwritable(t *testing.T) {
	t.Parallel()
	room := t.TempDir()
	if err := syscall.Mount("keyturn-test", room, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV,
		"size=256k,mode=0700"); err != nil {
		t.Skipf("a full disk needs a small file system, which cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(room, syscall.MNT_DETACH) })
	n := newNode(t, func(c *server.Config) { c.AuditDir = filepath.Join(room, "audit") })
	n.call(t, "CreateSecret", "", "SecretName", "a", "VersionId", "v1", "SecretData", both)
	rest, err := os.Create(filepath.Join(room, "rest"))
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 4096); err == nil; {
		_, err = rest.Write(block)
	}
	if err := rest.Close(); err != nil {
		t.Fatal(err)
	}
	// The rest of the last page takes some records.
	for code := ""; code != kms.CodeUnavailable; {
		if code, err = n.c.call(n.key, declared(t, "GetSecretValue"), []string{"SecretName", "a"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range append(steps(), last()...) {
		if code, err := n.c.call(n.key, declared(t, s.action), s.params); err != nil || code != kms.CodeUnavailable {
			t.Errorf("%s: %q, %v; want %s", s.action, code, err, kms.CodeUnavailable)
		}
	}
	n.clean(t, "audit trail cannot be written")
}

// TestStoreAway takes the store away, and makes every call.
func TestStoreAway(t *testing.T) {
	t.Parallel()
	endpoint, stop := nodes.StartEtcd(t)
	n := newNode(t, func(c *server.Config) { c.Etcd.Endpoints = []string{endpoint} })
	n.call(t, "CreateSecret", "", "SecretName", "a", "VersionId", "v1", "SecretData", both)
	stop()
	var all sync.WaitGroup
	for _, o := range protocol.Operations() {
		all.Go(func() {
			c := newCaller(n.c.endpoint, n.c.account)
			code, err := c.call(n.key, o, []string{"SecretName", "a", "VersionId", "v2", "SecretData", both})
			if err != nil || code == "" {
				t.Errorf("%s without a store: %q, %v; want a refusal", o.Name, code, err)
			}
			_, _ = n.c.errors.Write([]byte(c.errors.String())) // never fails
		})
	}
	all.Wait()
	n.clean(t, "call not served")
}
