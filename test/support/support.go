// Package support has what tests of several packages use: a log to read while it is written,
// binaries and child processes, waiting with a bound, the figures of `make prove`, free ports,
// the operator's pages, seeds, and the arithmetic of the audit trail. It imports the standard
// library alone, so that tests of every layer may import it.
package support

import (
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Page reads a page of a server at host:port, such as /readyz. The status is 0 when there is no
// answer.
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

// seedVariable names the seed of a failure to repeat.
const seedVariable = "KEYTURN_SEED"

// Seed returns the seed of a test's random choices and logs it; KEYTURN_SEED repeats the choices
// of a failure.
func Seed(t testing.TB) uint64 {
	t.Helper()
	n := rand.Uint64()
	if s := os.Getenv(seedVariable); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("%s: %v", seedVariable, err)
		}
	}
	t.Logf("%s=%d", seedVariable, n)
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

// FreeAddresses returns n addresses of loopback that were free a moment ago, as host:port, for
// servers that cannot choose a port themselves.
func FreeAddresses(t testing.TB, n int) []string {
	t.Helper()
	var list []string
	for range n {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // only now, so that no address comes twice
		list = append(list, l.Addr().String())
	}
	return list
}

// FreeAddress returns one address as [FreeAddresses] does.
func FreeAddress(t testing.TB) string {
	t.Helper()
	return FreeAddresses(t, 1)[0]
}

// FreePorts returns the ports of n free addresses.
func FreePorts(t testing.TB, n int) []string {
	t.Helper()
	ports := FreeAddresses(t, n)
	for i, address := range ports {
		_, ports[i], _ = net.SplitHostPort(address)
	}
	return ports
}
