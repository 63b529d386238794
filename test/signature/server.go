package signature

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/keyturn/keyturn/internal/api/rpc"
	"github.com/keyturn/keyturn/internal/auth"
	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sign"
)

// patience bounds one request.
const patience = 30 * time.Second

// Server is a server whose gate notes what reaches it.
type Server struct {
	Now func() time.Time

	http *http.Server
	pipe *listener
	done chan struct{}

	mu   sync.Mutex
	last string // guarded by mu; the meaning of the request that reached the gate last, "" for none
}

// testKeys has the one key.
type testKeys struct{ key *sign.Key }

func (k testKeys) Find(_ context.Context, id string) (auth.Key, bool, error) {
	return auth.Key{
		ID:        id,
		Secret:    k.key,
		Principal: policy.Principal{Kind: policy.KindRAMUser, Account: "1234567890123456", Name: "alice"},
	}, id == credentials.AccessKeyID, nil
}

// Config is how the authenticator of the server is configured.
func Config(now func() time.Time) auth.Config {
	return auth.Config{
		Keys:     testKeys{sign.NewKey(credentials.AccessKeySecret)},
		Now:      now,
		Service:  protocol.Service,
		Harmless: protocol.Harmless,
		Regions:  []string{region},
	}
}

// Start starts a server in this process; no network is used. Close ends it.
func Start(a rpc.Authenticator, now func() time.Time) *Server {
	s := &Server{
		Now:  now,
		pipe: &listener{conns: make(chan net.Conn), closed: make(chan struct{})},
		done: make(chan struct{}),
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s.http = &http.Server{
		Handler:   &rpc.Door{Gate: s, Auth: a, Log: slog.New(slog.DiscardHandler), Now: now},
		Protocols: protocols, MaxHeaderBytes: 1 << 20, ReadTimeout: patience, WriteTimeout: patience,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(s.pipe) // it ends when the server is closed
	}()
	return s
}

// Close ends the server.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.done
	return err
}

// listener accepts connections of this process.
type listener struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error { l.once.Do(func() { close(l.closed) }); return nil }

func (l *listener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// Call notes what reaches the gate.
func (s *Server) Call(_ context.Context, _ *operation.Op, r protocol.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = meaning(r)
	return &kms.DescribeRegionsResponse{}, nil
}

// Refuse answers a refusal.
func (s *Server) Refuse(_ context.Context, _ protocol.Request, _ string, err error) error { return err }

// meaning is what a request that reached the gate means: who, what, with which parameters.
func meaning(r protocol.Request) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s/%s", r.Principal.ARN(), r.Principal.AccessKeyID, r.Version, r.Action)
	p := slices.Clone(r.Params)
	slices.SortFunc(p, func(a, b sign.Param) int { return strings.Compare(a.Name, b.Name) })
	for _, q := range p {
		fmt.Fprintf(&b, " %q=%q", q.Name, q.Value)
	}
	return b.String()
}

func (s *Server) dial() net.Conn {
	client, server := net.Pipe()
	s.pipe.conns <- server
	_ = client.SetDeadline(time.Now().Add(patience)) // a pipe has deadlines
	return client
}

// send sends a message and returns what it meant to the gate; "" when it was refused.
func (s *Server) send(m message) (string, error) {
	if m.http2 {
		return s.sendHTTP2(m)
	}
	return s.sendHTTP1(m.http1())
}

// sendHTTP1 sends bytes, and nothing after them, and returns what the first request in them meant.
func (s *Server) sendHTTP1(b []byte) (string, error) {
	s.forget()
	c := &oneShot{in: bytes.NewReader(b), closed: make(chan struct{})}
	s.pipe.conns <- c
	select {
	case <-c.closed:
		return s.meant(), nil
	case <-time.After(patience):
		return "", fmt.Errorf("no answer to %q", b)
	}
}

// oneShot is the server's end of a connection whose client has sent all that it sends, and reads
// nothing.
type oneShot struct {
	net.Conn // nil: nothing else of it is used
	once     sync.Once
	closed   chan struct{}

	mu sync.Mutex
	in *bytes.Reader // guarded by mu
}

func (c *oneShot) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.in.Read(b)
}

func (c *oneShot) Write(b []byte) (int, error)      { return len(b), nil }
func (c *oneShot) Close() error                     { c.once.Do(func() { close(c.closed) }); return nil }
func (c *oneShot) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (c *oneShot) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (c *oneShot) SetDeadline(time.Time) error      { return nil }
func (c *oneShot) SetReadDeadline(time.Time) error  { return nil }
func (c *oneShot) SetWriteDeadline(time.Time) error { return nil }

func (s *Server) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = ""
}

func (s *Server) meant() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// sendHTTP2 sends a message as one stream, with its fields as they are.
func (s *Server) sendHTTP2(m message) (string, error) {
	s.forget()
	conn := s.dial()
	defer conn.Close()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	write := func(name, value string) { _ = enc.WriteField(hpack.HeaderField{Name: name, Value: value}) } // into memory
	write(":method", m.method)
	write(":scheme", "http")
	write(":path", m.target)
	for _, h := range m.headers {
		if strings.EqualFold(h.name, "host") {
			write(":authority", h.value)
		}
	}
	for _, h := range m.headers {
		if !strings.EqualFold(h.name, "host") {
			write(strings.ToLower(h.name), h.value)
		}
	}
	framer := http2.NewFramer(conn, conn)
	go func() {
		_, _ = io.WriteString(conn, http2.ClientPreface)
		_ = framer.WriteSettings()
		_ = framer.WriteHeaders(http2.HeadersFrameParam{
			StreamID:      1,
			BlockFragment: block.Bytes(),
			EndHeaders:    true,
			EndStream:     m.body == "",
		})
		if m.body != "" {
			_ = framer.WriteData(1, true, []byte(m.body))
		}
	}()
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			return s.meant(), nil // the server has ended the connection
		}
		switch f := f.(type) {
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return s.meant(), nil
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				return s.meant(), nil
			}
		case *http2.DataFrame:
			if f.StreamEnded() {
				return s.meant(), nil
			}
		}
	}
}
