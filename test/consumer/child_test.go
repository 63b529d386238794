package consumer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

const childVariable = "KEYTURN_CONSUMER_CHILD"

// order is what a child is told on standard input.
type order struct{ DataDir, Listen string }

// child is a server in a process of its own, which can be killed.
func child() int {
	var o order
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		fmt.Fprintln(os.Stderr, "no order")
		return 2
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	node, err := server.New(ctx, server.Config{DataDir: o.DataDir, ListenHTTP: o.Listen})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() {
		<-node.Ready()
		fmt.Println("ready")
		_, _ = io.Copy(io.Discard, os.Stdin) // the parent closes it by dying
		stop()
	}()
	if err := node.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// place is a server's data directory and address, for one process after the other.
type place struct{ dir, addr string }

func newPlace(t *testing.T) place {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	good(t, err)
	defer l.Close()
	return place{dir: filepath.Join(t.TempDir(), "data"), addr: l.Addr().String()}
}

// start starts a server and waits until it is ready. kill is kill -9.
func (p place) start(t *testing.T) (kill func()) {
	t.Helper()
	self, err := os.Executable()
	good(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childVariable+"=server")
	var log bytes.Buffer
	cmd.Stderr = &log
	in, err := cmd.StdinPipe()
	good(t, err)
	out, err := cmd.StdoutPipe()
	good(t, err)
	good(t, cmd.Start())
	killed := false
	kill = func() {
		if !killed {
			killed = true
			_ = cmd.Process.Kill() // it may have ended
			_ = in.Close()
			_ = cmd.Wait() // it was killed
		}
	}
	t.Cleanup(kill)
	good(t, json.NewEncoder(in).Encode(order{DataDir: p.dir, Listen: p.addr}))
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "ready" {
		kill()
		t.Fatalf("the server did not start: %q, %v; %s", line, err, log.String())
	}
	return kill
}

// credentials are the administrator's.
func (p place) credentials(t *testing.T) sign.Credentials {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(p.dir, "admin.json"))
	good(t, err)
	var admin struct {
		AccessKeyID     string `json:"access_key_id"`
		AccessKeySecret string `json:"access_key_secret"`
	}
	good(t, json.Unmarshal(text, &admin))
	return sign.Credentials{AccessKeyID: admin.AccessKeyID, AccessKeySecret: sensitive.New(admin.AccessKeySecret)}
}

func (p place) config(t *testing.T) kms.Config {
	t.Helper()
	return kms.Config{Endpoint: "http://" + p.addr, Credentials: p.credentials(t)}
}
