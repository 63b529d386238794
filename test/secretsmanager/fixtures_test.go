// Package secretsmanager_test runs the cloud's own Secrets Manager client for Go, unmodified,
// against a real Keyturn server. What it shows of the client is in docs/clients/go.md.
package secretsmanager_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/support"
)

const (
	forever = int64(time.Hour / time.Millisecond)
)

var binary string

// TestMain builds the application.
func TestMain(m *testing.M) { os.Exit(support.RunWithBinary(m, &binary, "./app")) }

// setup, ask and answer are the lines that the application takes and gives: see app/main.go.
type setup struct {
	FromEnvironment              bool
	ConfigFile                   string
	AccessKeyID, AccessKeySecret string
	Region                       string
	Endpoints                    []string
	TTL                          map[string]int64
	JSONTTL                      string
	FileCache                    string
	Remember                     bool
	env                          []string
}

type ask struct {
	Op, Name string
	Parts    []string
}

type answer struct {
	Value, Version, Type, DataType, Created, Config string
	Lines                                           int
	Error, Code                                     string
	Status                                          int
}

// at is a client of one endpoint with the server's administrator.
func at(s *keyturntest.Server, endpoints ...string) setup {
	return setup{
		AccessKeyID: s.Credentials.AccessKeyID, AccessKeySecret: s.Credentials.AccessKeySecret.Reveal(),
		Region: s.Region, Endpoints: endpoints,
	}
}

// app is a running application.
type app struct {
	t      *testing.T
	in     *json.Encoder
	out    *bufio.Reader
	stderr strings.Builder
	cmd    *exec.Cmd
	built  answer
}

// start runs an application until the test ends.
func start(t *testing.T, c setup) *app {
	t.Helper()
	a := launch(t, c)
	if a.built.Error != "" {
		t.Fatalf("build the client: %s", a.built.Error)
	}
	return a
}

// launch does not mind when the client cannot be built.
func launch(t *testing.T, c setup) *app {
	t.Helper()
	a := &app{t: t, cmd: exec.Command(binary)}
	a.cmd.Dir = t.TempDir()
	a.cmd.Env = append(os.Environ(), c.env...)
	a.cmd.Stderr = &a.stderr
	a.cmd.WaitDelay = support.Patience
	in, err := a.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	a.in, a.out = json.NewEncoder(in), bufio.NewReader(out)
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(2*time.Minute, func() { _ = a.cmd.Process.Kill() })
	t.Cleanup(func() {
		in.Close() // the application ends
		_ = a.cmd.Wait()
		kill.Stop()
	})
	a.built, err = a.say(c)
	if err != nil {
		t.Fatalf("start the application: %v\n%s", err, a.stderr.String())
	}
	return a
}

func (a *app) say(line any) (answer, error) {
	var got answer
	if err := a.in.Encode(line); err != nil {
		return got, err
	}
	text, err := a.out.ReadBytes('\n')
	if err != nil {
		return got, err
	}
	return got, json.Unmarshal(text, &got)
}

func (a *app) do(op, name string) answer {
	a.t.Helper()
	got, err := a.say(ask{Op: op, Name: name})
	if err != nil {
		a.t.Fatalf("ask the application to %s: %v", op, err)
	}
	return got
}

// logged is the number of lines in the client's log that hold every part.
func (a *app) logged(parts ...string) int {
	a.t.Helper()
	got, err := a.say(ask{Op: "log", Parts: parts})
	if err != nil {
		a.t.Fatal(err)
	}
	return got.Lines
}

// reads verifies that the client returns a value.
func (a *app) reads(name, want string) {
	a.t.Helper()
	got := a.do("get", name)
	if got.Error != "" {
		a.t.Fatalf("read %s: %s", name, got.Error)
	}
	if got.Value != want {
		a.t.Fatalf("read %s: another value than the test expects", name)
	}
}

// untilReads waits for a value. Reads must not fail meanwhile unless tolerant.
func (a *app) untilReads(name, want string, tolerant bool) {
	a.t.Helper()
	support.Until(a.t, "the client to have the new value", func() bool {
		got := a.do("get", name)
		if got.Error != "" && !tolerant {
			a.t.Fatalf("read %s: %s", name, got.Error)
		}
		return got.Error == "" && got.Value == want
	})
}

// untilFails waits until a read fails, and returns how.
func (a *app) untilFails(name string) (failure answer) {
	a.t.Helper()
	support.Until(a.t, "the client to give up the value", func() bool {
		failure = a.do("get", name)
		return failure.Error != ""
	})
	return failure
}

func create(t *testing.T, s *keyturntest.Server, name, value string) {
	t.Helper()
	_, err := s.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: name,
		VersionID:  "v1",
		SecretData: sensitive.New(value),
	})
	if err != nil {
		t.Fatal(err)
	}
}

// rotate is what a producer does whose value is not live yet: a version with a label of its own,
// then the move of ACSCurrent.
func rotate(t *testing.T, s *keyturntest.Server, name, version, value string) {
	t.Helper()
	_, err := s.Client.PutSecretValue(t.Context(), &kms.PutSecretValueRequest{
		SecretName: name, VersionID: version, SecretData: sensitive.New(value), VersionStages: []string{"next"},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Client.UpdateSecretVersionStage(t.Context(), &kms.UpdateSecretVersionStageRequest{
		SecretName: name, VersionStage: "ACSCurrent", MoveToVersion: version,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// cable is a TCP connection to a server that can be cut: what comes then is refused.
type cable struct {
	Endpoint string
	t        *testing.T

	running  sync.WaitGroup
	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
}

func plug(t *testing.T, target string) *cable {
	t.Helper()
	c := &cable{t: t, conns: map[net.Conn]bool{}, Endpoint: "127.0.0.1:0"}
	c.restore(target)
	t.Cleanup(c.cut)
	return c
}

// cut ends every connection and the listener.
func (c *cable) cut() {
	c.mu.Lock()
	if c.listener != nil {
		c.listener.Close()
		c.listener = nil
	}
	for conn := range c.conns {
		conn.Close()
	}
	c.mu.Unlock()
	c.running.Wait()
}

// restore listens again, at the same port; a port can be taken for a moment by a connection of
// another test.
func (c *cable) restore(target string) {
	c.t.Helper()
	var listener net.Listener
	support.Until(c.t, "the port to be free again", func() (ok bool) {
		var err error
		listener, err = net.Listen("tcp", c.Endpoint)
		return err == nil
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Endpoint, c.listener = listener.Addr().String(), listener
	c.running.Go(func() { c.accept(listener, target) })
}

func (c *cable) accept(listener net.Listener, target string) {
	for {
		from, err := listener.Accept()
		if err != nil {
			return
		}
		to, err := net.DialTimeout("tcp", target, support.Patience)
		if err != nil {
			from.Close()
			continue
		}
		if !c.note(from, to) {
			return
		}
		c.running.Go(func() { c.copy(from, to) })
		c.running.Go(func() { c.copy(to, from) })
	}
}

// note keeps the two ends, unless the cable was cut meanwhile.
func (c *cable) note(conns ...net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range conns {
		if c.listener == nil {
			conn.Close()
		} else {
			c.conns[conn] = true
		}
	}
	return c.listener != nil
}

func (c *cable) copy(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	to.Close()
	from.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, to)
	delete(c.conns, from)
}
