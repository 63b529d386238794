package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/command"
	"github.com/keyturn/keyturn/sensitive"
)

// hostKey is a key that a configuration of kind ssh may pin.
const hostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"

// plainConfigs are the configurations of a kind that is reached over a network, without and with
// TLS, for a target at ADDR.
var plainConfigs = []string{`{"address":"ADDR","tls":{"off":true}}`, `{"address":"ADDR"}`}

// networkKinds has the kinds that need other configurations than plainConfigs.
var networkKinds = map[string][]string{
	"ssh": {`{"address":"ADDR","host_keys":["` + hostKey + `"]}`},
	"ldap": {
		`{"address":"ADDR","tls":{"off":true},"scheme":"ssha"}`, `{"address":"ADDR","scheme":"ssha"}`,
		`{"address":"ADDR","starttls":true,"scheme":"ssha"}`,
	},
	"oauth": {
		`{"token_urls":["http://ADDR/t"],"admin_auth":"none","tls":{"off":true},` +
			`"set":{"method":"PUT","url":"http://ADDR/{client_id}","body":{"s":"{secret}"}}}`,
		`{"token_urls":["https://ADDR/t"],"admin_auth":"none",` +
			`"set":{"method":"PUT","url":"https://ADDR/{client_id}","body":{"s":"{secret}"}}}`,
	},
	"rabbitmq": {
		`{"api":"http://ADDR","amqp":["amqp://ADDR"],"tls":{"off":true}}`, `{"api":"https://ADDR","amqp":["amqps://ADDR"]}`,
	},
	"webhook": {`{"url":"http://ADDR/","strategy":"overlap","tls":{"off":true}}`,
		`{"url":"https://ADDR/","strategy":"overlap"}`},
}

// localKinds are not reached over a network.
var localKinds = []string{"command"}

// eachNetworkKind runs a function with a target of every kind and configuration.
func eachNetworkKind(
	t *testing.T, address string, dial egress.DialFunc, run func(t *testing.T, name string, system target.Target),
) {
	t.Helper()
	for _, kind := range TargetKinds(command.Config{}) {
		if slices.Contains(localKinds, kind.Name) {
			continue
		}
		configs, ok := networkKinds[kind.Name]
		if !ok {
			configs = plainConfigs
		}
		for i, config := range configs {
			system, err := kind.Open(target.Settings{
				Name:   "t",
				Config: json.RawMessage(strings.ReplaceAll(config, "ADDR", address)),
				Dial:   dial,
				Admin:  target.Credential{Account: "cn=admin", Secret: sensitive.New("secret-of-the-admin")},
			})
			if err != nil {
				t.Errorf("%s: %v", kind.Name, err)
				continue
			}
			run(t, fmt.Sprintf("%s/%d", kind.Name, i), system)
			if err := system.Close(); err != nil {
				t.Errorf("%s: %v", kind.Name, err)
			}
		}
	}
}

// calls are the calls of a target that need the network.
func calls(ctx context.Context, system target.Target) map[string]error {
	cred := target.Credential{Account: "cn=app", Secret: sensitive.New("secret-of-the-app")}
	other := target.Credential{Account: "cn=app", Secret: sensitive.New("other-secret-of-the-app")}
	strategy := target.Overlap
	if l, ok := system.(target.Limited); ok {
		strategy = l.Strategies()[0]
	}
	change := target.Change{ID: "c", Strategy: strategy, New: cred, Old: other}
	out := map[string]error{
		"Verify": system.Verify(ctx, cred),
		"Apply":  system.Apply(ctx, change),
		"Retire": system.Retire(ctx, change),
	}
	if i, ok := system.(target.Inspector); ok {
		_, out["Inspect"] = i.Inspect(ctx, []target.Credential{cred})
	}
	if tester, ok := system.(target.Tester); ok {
		out["Test"] = tester.Test(ctx)
	}
	return out
}

// TestNoKindGetsAroundTheDialer verifies that no kind of target makes a connection but through the
// dialer of its settings: with one that refuses, nothing arrives at the address, and the error says
// that the rules refuse it.
func TestNoKindGetsAroundTheDialer(t *testing.T) {
	t.Parallel()
	l := serveBytes(t, nil)
	dialed := 0
	dial := func(_ context.Context, _, address string) (net.Conn, error) {
		dialed++
		return nil, &egress.RefusedError{Host: address, Reason: "a test"}
	}
	eachNetworkKind(t, l.addr, dial, func(t *testing.T, name string, system target.Target) {
		dialed = 0
		for call, err := range calls(t.Context(), system) {
			if (call == "Apply" || call == "Retire") &&
				target.ClassOf(err) == target.Denied &&
				!strings.Contains(err.Error(), "egress") {
				continue // a strategy or call that the kind does not have
			}
			if target.ClassOf(err) != target.Denied || !strings.Contains(fmt.Sprint(err), "egress rules do not permit") {
				t.Errorf("%s: %s: class %v, %v", name, call, target.ClassOf(err), err)
			}
		}
		if dialed == 0 {
			t.Errorf("%s: the dialer was not used", name)
		}
	})
	if n := l.connected.Load(); n != 0 {
		t.Errorf("%d connections arrived although every one was refused", n)
	}
}

// TestTargetsAreNoPortScanners verifies that a caller learns the same from a test of a target where
// nothing listens and of one where another service does, whatever that says.
func TestTargetsAreNoPortScanners(t *testing.T) {
	t.Parallel()
	const marker = "banner-marker"
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	closed := serveBytes(t, nil)
	closed.close()
	services := map[string]string{
		"nothing": closed.addr,
		"closes":  serveBytes(t, []byte{}).addr,
		"SMTP":    serveBytes(t, []byte("220 mail."+marker+" ESMTP\r\n")).addr,
		"SSH":     serveBytes(t, []byte("SSH-2.0-OpenSSH_9."+marker+"\r\n")).addr,
		"HTTP": serveBytes(t, []byte("HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: "+
			"13\r\nConnection: close\r\n\r\n"+marker)).addr,
		"HTTP JSON": serveBytes(t, []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: "+
			"close\r\n\r\n{\"error\":\""+marker+"\",\"result\":\""+marker+"\"}")).addr,
		"no protocol": serveBytes(t, []byte("\x00\x01\x02\x03"+marker)).addr,
		"a long line": serveBytes(t, []byte(strings.Repeat(marker, 10_000))).addr,
	}
	told := map[string]map[string]string{} // of each kind, what it reports about each service
	for service, address := range services {
		eachNetworkKind(t, address, egress.Default.DialContext, func(t *testing.T, name string, system target.Target) {
			cred := target.Credential{Account: "cn=app", Secret: sensitive.New("secret-of-the-app")}
			tests := map[string]error{"Verify": system.Verify(ctx, cred)}
			if tester, ok := system.(target.Tester); ok {
				tests["Test"] = tester.Test(ctx)
			}
			for call, err := range tests {
				if err == nil {
					t.Errorf("%s: %s at %s succeeds", name, call, service)
					continue
				}
				text := err.Error()
				if strings.Contains(text, marker) {
					t.Errorf("%s: %s at %s repeats to the caller what the service said: %s", name, call, service, text)
				}
				key := name + " " + call
				if told[key] == nil {
					told[key] = map[string]string{}
				}
				answer, _ := target.ForCaller(err)
				told[key][service] = fmt.Sprint(answer.Class, answer.Code, answer.Text)
			}
		})
	}
	for key, byService := range told {
		for service, text := range byService {
			if text != byService["nothing"] {
				t.Errorf("%s: of %s the caller learns %q, and of a closed port %q", key, service, text, byService["nothing"])
			}
		}
	}
}

// byteServer sends the same to everybody who connects, and then closes.
type byteServer struct {
	addr      string
	connected atomic.Int64
	close     func()
}

func serveBytes(t *testing.T, greeting []byte) *byteServer {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &byteServer{addr: l.Addr().String()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.connected.Add(1)
			_, _ = c.Write(greeting)
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.CloseWrite()
			}
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			_, _ = io.Copy(io.Discard, io.LimitReader(c, 1<<20))
			_ = c.Close()
		}
	}()
	closed := false
	s.close = func() {
		if !closed {
			closed = true
			_ = l.Close()
			<-done
		}
	}
	t.Cleanup(s.close)
	return s
}

// TestKindsHaveNoOtherWayToTheNetwork verifies that the source of the kinds names no function
// of a library that dials on its own.
func TestKindsHaveNoOtherWayToTheNetwork(t *testing.T) {
	t.Parallel()
	forbidden := []string{
		"net.Dial", "new(net.Dialer)", "net.Dialer{", "net.DefaultResolver", "net.Resolver", "tls.Dial",
		"http.DefaultClient", "http.DefaultTransport", "http.Get(", "http.Post(", "http.PostForm(", "http.Head(",
		"http.ProxyFromEnvironment", "unix.Socket(", "syscall.Socket(",
		"ssh.Dial(", "driver.Dial", "ldap.Dial", "amqp.Dial", "pgx.Connect(", "sql.Open(",
	}
	files, err := filepath.Glob("../target/*/*.go")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || strings.Contains(file, "targettest") {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range forbidden {
			if strings.Contains(string(source), word) {
				t.Errorf("%s has %s: use the dialer of target.Settings", file, word)
			}
		}
	}
}
