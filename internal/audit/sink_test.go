package audit

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// memorySink takes records until it is told to fail.
type memorySink struct {
	got  []uint64
	fail int // so many calls fail, after they have taken half
}

func (m *memorySink) Name() string        { return "memory" }
func (m *memorySink) Destination() string { return "" }
func (m *memorySink) Close() error        { return nil }

func (m *memorySink) Send(_ context.Context, lines []Line) (uint64, error) {
	failing := m.fail > 0
	if failing {
		m.fail--
		lines = lines[:len(lines)/2]
	}
	for _, l := range lines {
		m.got = append(m.got, l.Seq)
	}
	if len(m.got) == 0 {
		return 0, errors.New("down")
	}
	if failing {
		return m.got[0], errors.New("down")
	}
	return m.got[len(m.got)-1], nil
}

// distinct is how many of the first n records are in got.
func distinct(got []uint64, n uint64) (count int) {
	for seq := uint64(1); seq <= n; seq++ {
		if slices.Contains(got, seq) {
			count++
		}
	}
	return count
}

// TestForwarder sends every record at least once: over segments, compressed ones, failures, and a
// restart, which sends none again that were taken.
func TestForwarder(t *testing.T) {
	t.Parallel()
	sink := &memorySink{fail: 3}
	kept(t, 20, Retention{Compress: true}, func(l *Log, k *keeper, _ Config) {
		steps := func(f *Forwarder) {
			r := f.tailer(l.cfg.Logger)
			for f.Lag() > 0 {
				if _, err := f.step(t.Context(), &r); err != nil {
					r.seek(f.Taken() + 1)
				}
			}
			r.close()
		}
		f := l.Forward(sink, 0)
		if f.Lag() != 20 {
			t.Errorf("lag %d", f.Lag())
		}
		steps(f)
		if distinct(sink.got, 20) != 20 || f.Taken() != 20 || f.Sent() != 20 {
			t.Errorf("got %v", sink.got)
		}
		k.look(t.Context())
		mustAppend(t, l, true, "21", "22")
		sink.got = nil
		again := l.Forward(sink, f.Taken())
		steps(again)
		if !slices.Equal(sink.got, []uint64{21, 22}) {
			t.Errorf("after a restart it sends %v", sink.got)
		}
		for _, from := range []uint64{0, 23, 1e12} { // no sink can have what is behind the end
			sink.got = nil
			again = l.Forward(sink, from)
			steps(again)
			if distinct(sink.got, 22) != 22 {
				t.Errorf("from compressed segments, behind record %d, it sends %v", from, sink.got)
			}
		}
	})
}

// TestForwarderSkipsWhatIsGone: what retention has removed stops nothing.
func TestForwarderSkipsWhatIsGone(t *testing.T) {
	t.Parallel()
	sink := &memorySink{}
	kept(t, 20, Retention{MaxBytes: 5000}, func(l *Log, k *keeper, cfg Config) {
		k.look(t.Context())
		first := verifies(t, l, cfg.Dir).FirstSeq
		var log bytes.Buffer
		f := l.Forward(sink, 0)
		r := f.tailer(slog.New(slog.NewTextHandler(&log, nil)))
		defer r.close()
		for f.Lag() > 0 {
			if _, err := f.step(t.Context(), &r); err != nil {
				t.Fatal(err)
			}
		}
		if first < 2 || sink.got[0] != first || f.Missed() != first-1 {
			t.Errorf("from record %d: %v", first, sink.got)
		}
		missed := fmt.Sprintf("were removed or lost before the sink had them\" first=1 last=%d\n", first-1)
		if !strings.Contains(log.String(), "level=ERROR") || strings.Count(log.String(), missed) != 1 {
			t.Errorf("the log does not have once that records up to %d were missed:\n%s", first-1, log.String())
		}
	})
}

// TestForwarderSkipsDamage verifies that a line that is no record, or longer than any record, costs
// a sink that record alone, in plain and in compressed segments. The log has one error of the line
// and one of the missed record, however often the sink fails meanwhile.
func TestForwarderSkipsDamage(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]string{
		"no record":     "{",
		"another's":     `{"seq":1000000000000}`,
		"overlong":      strings.Repeat("x", maxLine+1),
		"very overlong": strings.Repeat("x", 3*maxLine+7),
	} {
		for _, compressed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, compressed %v", name, compressed), func(t *testing.T) {
				t.Parallel()
				sink := &memorySink{fail: 3}
				kept(t, 20, Retention{Compress: compressed}, func(l *Log, k *keeper, cfg Config) {
					k.look(t.Context())
					damaged := damageSecondLine(t, cfg.Dir, damage)
					f := l.Forward(sink, 0)
					var log bytes.Buffer
					r := f.tailer(slog.New(slog.NewTextHandler(&log, nil)))
					defer r.close()
					for range 20 {
						if f.Lag() == 0 {
							break
						}
						if _, err := f.step(t.Context(), &r); err != nil {
							r.seek(f.Taken() + 1)
						}
					}
					if f.Lag() != 0 || distinct(sink.got, 20) != 19 || slices.Contains(sink.got, damaged) {
						t.Errorf("record %d is damaged; %d records are left; the sink has %v", damaged, f.Lag(), sink.got)
					}
					missed := fmt.Sprintf("were removed or lost before the sink had them\" first=%d last=%d\n", damaged, damaged)
					for _, text := range []string{"is damaged, and the sink does not get it", missed} {
						if n := strings.Count(log.String(), text); n != 1 {
							t.Errorf("the log has %q %d times:\n%s", text, n, log.String())
						}
					}
					if n := strings.Count(log.String(), "level=ERROR"); n != 2 {
						t.Errorf("the log has %d errors, want 2:\n%s", n, log.String())
					}
				})
			})
		}
	}
}

// damageSecondLine replaces the second line of the first segment and returns the number of its
// record.
func damageSecondLine(t *testing.T, dir, text string) (seq uint64) {
	t.Helper()
	files, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := openSegment(files[0])
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	var f frame
	if err := json.Unmarshal(lines[1], &f); err != nil || len(lines) < 4 {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	lines[1] = []byte(text + "\n")
	data = bytes.Join(lines, nil)
	if segmentExtOf(files[0]) == compressedExt {
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		_, err := w.Write(data)
		if err = errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		data = packed.Bytes()
	}
	if err := os.WriteFile(files[0], data, filePerm); err != nil {
		t.Fatal(err)
	}
	return f.Seq
}

// TestBatchIsBounded: a long trail is sent in pieces.
func TestBatchIsBounded(t *testing.T) {
	t.Parallel()
	cfg, head := anchored(t, 1, 1<<20)
	l, stop := resumed(t, cfg, testAnchor(&head))
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 200 {
				if err := l.Append(context.Background(), call("x"), true); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	f := l.Forward(&memorySink{}, 0)
	r := f.tailer(l.cfg.Logger)
	lines, err := r.batch(t.Context(), l.Head().Seq)
	r.close()
	if err != nil || len(lines) != maxSinkLines {
		t.Errorf("%d lines, %v", len(lines), err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// syslogServer is a server that keeps what it gets.
type syslogServer struct {
	net.Listener
	mu    sync.Mutex
	texts []string   // guarded by mu
	conns []net.Conn // guarded by mu
	got   chan struct{}
}

func newSyslogServer(t *testing.T, config *tls.Config) *syslogServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	s := &syslogServer{Listener: l, got: make(chan struct{}, 1000)}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, conn)
			s.mu.Unlock()
			all.Go(func() { s.read(conn) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); s.cut(); all.Wait() })
	return s
}

// cut closes every connection.
func (s *syslogServer) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		_ = c.Close()
	}
}

func (s *syslogServer) read(conn net.Conn) {
	r := bufio.NewReader(conn)
	for {
		size, err := r.ReadString(' ')
		if err != nil {
			return
		}
		n, err := strconv.Atoi(strings.TrimSpace(size))
		if err != nil {
			return
		}
		text := make([]byte, n)
		if _, err := io.ReadFull(r, text); err != nil {
			return
		}
		s.mu.Lock()
		s.texts = append(s.texts, string(text))
		s.mu.Unlock()
		s.got <- struct{}{}
	}
}

// testTLS is a server's certificate for 127.0.0.1, and what trusts it.
func testTLS(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	t.Cleanup(s.Close)
	client = s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	client.ServerName = "127.0.0.1"
	client.NextProtos = nil
	return &tls.Config{Certificates: s.TLS.Certificates}, client
}

func sample(seqs ...uint64) (lines []Line) {
	for _, seq := range seqs {
		lines = append(lines, Line{Seq: seq, Time: testTime, Text: fmt.Appendf(nil, `{"v":2,"seq":%d}`, seq)})
	}
	return lines
}

// TestSyslog sends over TLS, and counts a record as taken when its connection has lived on for a
// while.
func TestSyslog(t *testing.T) {
	t.Parallel()
	serverTLS, clientTLS := testTLS(t)
	server := newSyslogServer(t, serverTLS)
	now := testTime
	s := &Syslog{Address: server.Addr().String(), TLS: clientTLS, Now: func() time.Time { return now }}
	defer func() { _ = s.Close() }()
	if taken, err := s.Send(t.Context(), sample(1, 2, 3)); err != nil || taken != 0 {
		t.Fatalf("taken %d, %v", taken, err)
	}
	for range 3 {
		<-server.got
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`<110>1 2026-01-02T02:04:05.600Z %s keyturn %d audit - {"v":2,"seq":2}`, host, os.Getpid())
	if got := server.texts[1]; got != want {
		t.Errorf("message %q\nwant    %q", got, want)
	}
	now = now.Add(syslogConfirm - time.Millisecond)
	if taken, err := s.Send(t.Context(), sample(4)); err != nil || taken != 0 {
		t.Errorf("taken %d, %v", taken, err)
	}
	<-server.got
	now = now.Add(time.Millisecond)
	if taken, err := s.Send(t.Context(), nil); err != nil || taken != 3 {
		t.Errorf("taken %d, %v", taken, err)
	}
	server.cut()
	<-s.broken
	now = now.Add(time.Hour)
	if taken, err := s.Send(t.Context(), nil); err == nil || taken != 3 {
		t.Errorf("on a broken connection: taken %d, %v", taken, err)
	}
	if taken, err := s.Send(t.Context(), sample(4)); err != nil || taken != 3 {
		t.Errorf("on a new one: taken %d, %v", taken, err)
	}
	<-server.got
	stranger := &Syslog{Address: server.Addr().String(), TLS: &tls.Config{ServerName: "127.0.0.1"}}
	if _, err := stranger.Send(t.Context(), sample(1)); err == nil {
		t.Error("a server whose certificate is not trusted gets records")
	}
	if len(server.texts) != 5 {
		t.Errorf("%d messages", len(server.texts))
	}
}

// TestSyslogTakesSilenceForReceipt is the limit of the protocol: a server that accepts a connection
// and reads nothing is not told from one that reads. What it was sent counts as taken after
// syslogConfirm, and not before.
func TestSyslogTakesSilenceForReceipt(t *testing.T) {
	t.Parallel()
	hung, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts for it
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hung.Close() }()
	now := testTime
	s := &Syslog{Address: hung.Addr().String(), Now: func() time.Time { return now }}
	defer func() { _ = s.Close() }()
	if taken, err := s.Send(t.Context(), sample(1, 2)); err != nil || taken != 0 {
		t.Fatalf("taken %d, %v", taken, err)
	}
	for _, c := range []struct {
		after time.Duration
		want  uint64
	}{{syslogConfirm - time.Millisecond, 0}, {syslogConfirm, 2}} {
		now = testTime.Add(c.after)
		if taken, err := s.Send(t.Context(), nil); err != nil || taken != c.want {
			t.Errorf("after %s: taken %d, %v, want %d", c.after, taken, err, c.want)
		}
	}
}

// TestHTTPSink posts to a real server, which fails first; the token comes from its file each time.
func TestHTTPSink(t *testing.T) {
	t.Parallel()
	var bodies, tokens []string
	status := []int{503, 302, 200, 204}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		bodies, tokens = append(bodies, string(body)), append(tokens, r.Header.Get("Authorization"))
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status[len(bodies)-1])
	}))
	defer server.Close()
	token := filepath.Join(t.TempDir(), "token")
	config := server.Client().Transport.(*http.Transport).TLSClientConfig
	h := &HTTP{URL: server.URL + "/?key=hidden", TokenFile: token, TLS: config}
	defer func() { _ = h.Close() }()
	want := []uint64{0, 0, 2, 2}
	for i := range status {
		if err := os.WriteFile(token, fmt.Appendf(nil, "token-%d\n", i), filePerm); err != nil {
			t.Fatal(err)
		}
		lines := sample(1, 2)
		taken, err := h.Send(t.Context(), lines)
		if taken != want[i] || (err == nil) != (status[i] < 300) {
			t.Errorf("status %d: taken %d, %v", status[i], taken, err)
		}
		if tokens[i] != fmt.Sprintf("Bearer token-%d", i) {
			t.Errorf("token %q", tokens[i])
		}
		var got []map[string]any
		if err := json.Unmarshal([]byte(bodies[i]), &got); err != nil || len(got) != 2 || got[1]["seq"] != 2.0 {
			t.Errorf("body %s, %v", bodies[i], err)
		}
	}
	server.Close()
	if _, err := h.Send(t.Context(), sample(3)); err == nil || strings.Contains(err.Error(), "hidden") ||
		strings.Contains(err.Error(), "token") {
		t.Errorf("error %v", err)
	}
}

// TestHTTPSinkBoundsHeaders verifies that an endpoint cannot make the sink hold a large header.
func TestHTTPSinkBoundsHeaders(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Large", strings.Repeat("x", 1<<20))
	}))
	defer server.Close()
	h := &HTTP{URL: server.URL}
	defer func() { _ = h.Close() }()
	if taken, err := h.Send(t.Context(), sample(1)); err == nil || taken != 0 {
		t.Errorf("with a header of 1 MiB: taken %d, %v", taken, err)
	}
}

// TestForwarderRuns has Run forward to a syslog server that goes away once, beside a running log.
func TestForwarderRuns(t *testing.T) {
	t.Parallel()
	server := newSyslogServer(t, nil)
	cfg := testConfig(t)
	l, stop := resumed(t, cfg, testAnchor(nil))
	f := l.Forward(&Syslog{Address: server.Addr().String()}, 0)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	mustAppend(t, l, true, "1", "2")
	for range 2 {
		<-server.got
	}
	server.cut()
	mustAppend(t, l, true, "3")
	<-server.got // at least the first again: it was not confirmed
	cancel()
	<-done
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if f.Taken() != 0 {
		t.Errorf("taken %d, though no connection lived long enough", f.Taken())
	}
}
