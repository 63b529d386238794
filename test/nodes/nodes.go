// Package nodes runs Keyturn servers for tests, as processes that a test can kill, and etcd servers
// that several of them share.
package nodes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/sign"
	"github.com/keyturn/keyturn/test/support"
)

// Ready begins the line that [Serve] prints once the server is ready; the address of the plain HTTP
// listener follows.
const Ready = "ready "

// Serve runs a server in this process, which a test has started ([support.StartSelf]), until the
// test closes the standard input or dies. It returns the exit code.
func Serve(c server.Config) int {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	node, err := server.New(ctx, c)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() {
		<-node.Ready()
		fmt.Println(Ready + node.HTTPEndpoint())
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	if err := node.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// ReadAdmin returns what a server has written to its data directory for the administrator.
func ReadAdmin(t testing.TB, dir string) server.Admin {
	t.Helper()
	admin, err := server.ReadAdmin(filepath.Join(dir, "admin.json"))
	if err != nil {
		t.Fatal(err)
	}
	return admin
}

// Credentials returns the access key of the administrator.
func Credentials(a server.Admin) sign.Credentials {
	return sign.Credentials{AccessKeyID: a.AccessKeyID, AccessKeySecret: a.AccessKeySecret}
}

// StartEtcd starts an etcd server. It runs until stop, or until the test ends.
func StartEtcd(t testing.TB) (endpoint string, stop func()) {
	t.Helper()
	var errs []error
	for range 3 { // another process may take the free port meanwhile
		at := url.URL{Scheme: "http", Host: support.FreeAddress(t)}
		c := embed.NewConfig()
		c.Dir = t.TempDir()
		c.UnsafeNoFsync = true
		c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
		c.ListenClientUrls = []url.URL{at}
		c.AdvertiseClientUrls = []url.URL{at}
		c.ListenPeerUrls = nil
		c.InitialCluster = c.InitialClusterFromName(c.Name)
		c.TickMs, c.ElectionMs = 10, 100
		e, err := embed.StartEtcd(c)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		stop = sync.OnceFunc(e.Close)
		t.Cleanup(stop)
		select {
		case <-e.Server.ReadyNotify():
		case <-time.After(support.Patience):
			t.Fatal("etcd does not start")
		}
		return at.String(), stop
	}
	t.Fatal(errors.Join(errs...))
	return "", nil
}
