package mysql_test

import (
	"database/sql/driver"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/targettest"
)

// TestAdministratorOfFullServer changes a password at a server whose connections are all in use.
// The administrator of these tests has no right to the connection that the server reserves.
func TestAdministratorOfFullServer(t *testing.T) {
	t.Parallel()
	n := start(t, false, "--max-connections=10")
	tt := n.open(t)
	old := n.account(t, "")
	c := target.Change{ID: "x", Strategy: target.Single, Old: old, New: next(t, tt, old)}
	fill := func() (all []driver.Conn) {
		for range 100 {
			conn, err := n.connect(t.Context(), old)
			if err != nil {
				return all
			}
			all = append(all, conn)
		}
		t.Fatal("the server takes any number of connections")
		return nil
	}

	all := fill()
	began := time.Now()
	targettest.Expect(t, tt.Apply(targettest.Within(t), c), target.Unreachable, "1040")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("a full server was noticed after %s", took)
	}

	freed := make(chan error, 1)
	go func() {
		time.Sleep(100 * time.Millisecond)
		freed <- all[0].Close()
	}()
	targettest.Must(t, tt.Apply(targettest.Within(t), c))
	targettest.Must(t, <-freed)
	for _, conn := range all[1:] {
		targettest.Must(t, conn.Close())
	}
}
