package sandbox_test

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/sandbox"
	"github.com/keyturn/keyturn/test/support"
)

func TestPostgresComesBackAfterKill(t *testing.T) {
	t.Parallel()
	log := &support.Log{}
	p, err := sandbox.StartPostgres(t.Context(), sandbox.PostgresConfig{
		Dir: t.TempDir(), Log: log,
		Settings: []string{"synchronous_commit=on", "max_prepared_transactions=3", "log_statement=all"},
	})
	if errors.Is(err, sandbox.ErrNoPostgres) {
		t.Skipf("skipped: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if _, err := os.Stat(p.Dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", p.Dir, err)
		}
	})
	addr := p.Addr()
	if err := p.Exec(t.Context(), "postgres", "CREATE TABLE kept (n int)"); err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.Exec(t.Context(), "postgres", "SELECT 1"); err == nil {
		t.Fatal("a killed server answers")
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p.Addr() != addr {
		t.Errorf("the address was %s and is %s", addr, p.Addr())
	}
	conn, err := p.Admin(t.Context(), "postgres")
	if err != nil {
		t.Fatal(err)
	}
	var prepared string
	var rows int
	if err := conn.QueryRow(t.Context(), "SELECT current_setting('max_prepared_transactions'), (SELECT count(*) FROM kept)").Scan(&prepared, &rows); err != nil ||
		prepared != "3" ||
		rows != 0 {
		t.Errorf("settings and table after a kill: %q, %d, %v", prepared, rows, err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "CREATE TABLE kept") {
		t.Error("the log does not hold the statement")
	}
}

func TestOpenSSHComesBackAfterStop(t *testing.T) {
	t.Parallel()
	o, err := sandbox.StartOpenSSH(
		t.Context(),
		sandbox.OpenSSHConfig{Dir: t.TempDir(), Settings: []string{"MaxAuthTries 2"}},
	)
	if errors.Is(err, sandbox.ErrNoOpenSSH) {
		t.Skipf("skipped: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	greeted := func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", o.Addr())
		if err != nil {
			return false
		}
		defer conn.Close()
		deadline, _ := ctx.Deadline()
		_ = conn.SetDeadline(deadline)
		greeting := make([]byte, 4)
		_, err = conn.Read(greeting)
		return err == nil && string(greeting) == "SSH-"
	}
	if !greeted() {
		t.Fatal("the server does not answer")
	}
	for name, end := range map[string]func() error{"Stop": o.Stop, "Kill": o.Kill} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if greeted() {
			t.Fatalf("the server answers after %s", name)
		}
		if err := o.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !greeted() {
			t.Errorf("the server does not answer after %s and Start", name)
		}
	}
}
