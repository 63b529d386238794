package server_test

import (
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// maxUnverified is how much memory unfinished requests of strangers may take at the peak: the 24
// MiB that may be held of them are in buffers that grow by copying, and what was closed is freed by
// the next garbage collection only. Without bounds it was 900 MiB.
const maxUnverified = memoryFactor * 256 << 20

// TestUnfinishedRequestsTakeBoundedMemory plays 300 strangers who send the largest requests there
// are, but for their end. It must run alone: it measures the memory of the process.
func TestUnfinishedRequestsTakeBoundedMemory(t *testing.T) {
	s := keyturntest.Start(t)
	query := strings.Repeat("a", 1<<20-4000)
	form := func(query string) string {
		return "POST /?" + query + " HTTP/1.1\r\nHost: x\r\nContent-Type: " +
			"application/x-www-form-urlencoded\r\nContent-Length: 1048576\r\n\r\nb=" +
			strings.Repeat("c", 1<<20-1000)
	}
	for name, request := range map[string]string{
		"a head":                       "GET /?x=" + query,
		"a form without an access key": form("x=" + query),
		"a form of a known access key": form("AccessKeyId=" + s.Credentials.AccessKeyID + "&Signature=x&x=" + query),
	} {
		payload := []byte(request)
		before, most := live(), uint64(0)
		var all sync.WaitGroup
		var mu sync.Mutex
		var open []net.Conn
		written := make(chan struct{})
		for range 300 {
			all.Go(func() {
				conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.2")}}).Dial("tcp", s.HTTPEndpoint)
				if err != nil {
					return // refused
				}
				mu.Lock()
				open = append(open, conn)
				mu.Unlock()
				_ = conn.SetWriteDeadline(time.Now().Add(10 * time.Second)) // a TCP connection has deadlines
				_, _ = conn.Write(payload)                                  // the server may have closed it
			})
		}
		go func() { all.Wait(); close(written) }()
		for samples := 0; samples < 10; {
			most = max(most, live())
			select {
			case <-written:
				samples++
			default:
			}
		}
		// A client whose request is large and signed is served meanwhile.
		big := sensitive.New(strings.Repeat("中", 10_000))
		_, err := s.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
			SecretName: "big/" + strings.ReplaceAll(name, " ", "-"),
			VersionID:  "v1",
			SecretData: big,
		})
		if err != nil {
			t.Errorf("%s: a large request of a client: %v", name, err)
		}
		for _, conn := range open {
			_ = conn.Close()
		}
		taken := int64(most) - int64(before)
		t.Logf("%s: %d MiB", name, taken>>20)
		if taken > maxUnverified {
			t.Errorf("%s: 300 unfinished requests take %d MiB", name, taken>>20)
		}
	}
}

// live is how much memory is in use.
func live() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
