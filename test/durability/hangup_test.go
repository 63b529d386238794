package durability_test

import (
	"net"
	"sync"
	"syscall"
	"testing"

	"github.com/keyturn/keyturn/test/support"
)

// TestHangupDuringTheStart sends SIGHUP to a server that waits for its store, and then SIGTERM: the
// start goes on until SIGTERM, which ends it in order.
func TestHangupDuringTheStart(t *testing.T) {
	t.Parallel()
	started, release := make(chan struct{}), make(chan struct{})
	first := sync.OnceFunc(func() { close(started) })
	store := support.Serve(t, func(net.Conn) { // which never answers
		first()
		<-release
	})
	t.Cleanup(func() { close(release) })
	c := launch(t, t.TempDir(), "--etcd-endpoints", "http://"+store.String())
	c.Await(t, started)
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM} {
		if err := c.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	<-c.Exited
	if s := c.ProcessState.Sys().(syscall.WaitStatus); s.Signaled() {
		t.Errorf("the server was ended by the signal %v", s.Signal())
	}
}
