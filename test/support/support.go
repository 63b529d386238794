// Package support has what tests of several packages use: a log to read while it is written, the
// program as a binary, the operator's pages, seeds, and the arithmetic of the audit trail. It
// imports the standard library alone, so that tests of every layer may import it.
package support

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Log keeps what is written to it, from several goroutines. The zero value is empty and ready.
type Log struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns what was written.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Take returns what was written since the last call, and forgets it.
func (l *Log) Take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.text.String()
	l.text.Reset()
	return s
}

// RunWithKeyturn builds the program, sets binary to its path and runs the tests: what a TestMain
// exits with.
func RunWithKeyturn(m *testing.M, binary *string) int {
	dir, err := os.MkdirTemp("", "keyturn-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	*binary = filepath.Join(dir, "keyturn")
	build := exec.Command("go", "build", "-o", *binary, "github.com/keyturn/keyturn/cmd/keyturn")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "go build:", err)
		return 1
	}
	return m.Run()
}

// Page reads a page of a server at host:port, such as /readyz. The status is 0 when nobody answers.
func Page(endpoint, path string) (status int, body string) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + endpoint + path)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body) // an answer that is cut off is as good as none
	return resp.StatusCode, string(text)
}

// Serve accepts connections on loopback until the test ends, hands each to handle in a goroutine of
// its own, and closes it afterwards.
func Serve(t testing.TB, handle func(net.Conn)) *net.TCPAddr {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				handle(c)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); all.Wait() })
	return l.Addr().(*net.TCPAddr)
}

// Seed returns the seed of a test's random choices and logs it; KEYTURN_SEED repeats those of a
// failure.
func Seed(t testing.TB) uint64 {
	t.Helper()
	n := rand.Uint64()
	if s := os.Getenv("KEYTURN_SEED"); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("KEYTURN_SEED: %v", err)
		}
	}
	t.Logf("KEYTURN_SEED=%d", n)
	return n
}

// Calls returns how many calls a record of the audit trail with that note stands for.
func Calls(t testing.TB, note string) int {
	t.Helper()
	number, _, many := strings.Cut(note, " calls since ")
	if !many {
		return 1
	}
	n, err := strconv.Atoi(number)
	if err != nil {
		t.Fatalf("note %q", note)
	}
	return n
}
