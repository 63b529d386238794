package consumer

import (
	"path/filepath"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/nodes"
	"github.com/keyturn/keyturn/test/support"
)

// place is a server's data directory and address, for one process after the other.
type place struct{ dir, addr string }

func newPlace(t *testing.T) place {
	t.Helper()
	return place{dir: filepath.Join(t.TempDir(), "data"), addr: support.FreeAddress(t)}
}

// start starts a server and waits until it is ready. kill is kill -9.
func (p place) start(t *testing.T) (kill func()) {
	t.Helper()
	ready := make(chan struct{})
	c := support.StartSelf(t, []string{dataDir + "=" + p.dir, addr + "=" + p.addr},
		func(string) { close(ready) }) // it prints one line
	c.Await(t, ready)
	return sync.OnceFunc(c.Kill)
}

func (p place) config(t *testing.T) kms.Config {
	t.Helper()
	return kms.Config{Endpoint: "http://" + p.addr, Credentials: nodes.Credentials(nodes.ReadAdmin(t, p.dir))}
}
