package pgxauth

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/keyturn/keyturn/consumer/internal/adapter"
)

// takeOver is how long an open connection waits for who has asked for it, which takes no network.
const takeOver = time.Minute

// handover is a connection on which a session is open, for a client that wants to open one: it
// takes the client's startup message, and gives what the server has said after the login. From then
// on it is the connection.
type handover struct {
	net.Conn
	held  *adapter.Conn
	login *pgconn.PgConn // hijacked; it still knows how to cancel

	abandoned *time.Timer
	closed    sync.Once

	// Of the one goroutine that connects, until it has read the last of greeting.
	startup  []byte // of the startup message, as far as it was written
	started  bool
	greeting []byte // not read yet
}

func newHandover(login *pgconn.PgConn, held *adapter.Conn) (*handover, error) {
	h := &handover{held: held, login: login}
	hijacked, err := login.Hijack()
	if err != nil {
		held.Closed()
		_ = login.Conn().Close() // it is of no use
		return nil, fmt.Errorf("pgxauth: %w", err)
	}
	h.Conn = hijacked.Conn
	messages := []pgproto3.BackendMessage{&pgproto3.AuthenticationOk{}}
	for name, value := range hijacked.ParameterStatuses {
		messages = append(messages, &pgproto3.ParameterStatus{Name: name, Value: value})
	}
	messages = append(messages,
		&pgproto3.BackendKeyData{ProcessID: hijacked.PID, SecretKey: hijacked.SecretKey},
		&pgproto3.ReadyForQuery{TxStatus: hijacked.TxStatus})
	for _, m := range messages {
		if h.greeting, err = m.Encode(h.greeting); err != nil {
			_ = h.Close() // it is of no use
			return nil, fmt.Errorf("pgxauth: %w", err)
		}
	}
	h.abandoned = time.AfterFunc(takeOver, func() { _ = h.Close() })
	return h, nil
}

// configure has the next connection of cc be this one. What was checked at the login is not checked
// again: which host is preferred, TLS, and how the server asks for a password.
func (h *handover) configure(cc *pgx.ConnConfig) {
	var taken atomic.Bool
	cc.DialFunc = func(context.Context, string, string) (net.Conn, error) {
		if taken.CompareAndSwap(false, true) {
			h.abandoned.Stop()
			return h, nil
		}
		return &canceller{login: h.login}, nil // pgx dials again only to cancel
	}
	cc.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil } // nothing is dialled
	cc.TLSConfig, cc.Fallbacks, cc.SSLNegotiation, cc.SSLCertMode = nil, nil, "", ""
	cc.ChannelBinding, cc.RequireAuth, cc.ValidateConnect, cc.AfterNetConnect = "", "", nil, nil
	cc.Password, cc.OAuthTokenProvider = "", nil
}

func (h *handover) Write(p []byte) (int, error) {
	if h.started {
		return h.Conn.Write(p)
	}
	h.startup = append(h.startup, p...)
	if len(h.startup) < 4 {
		return len(p), nil
	}
	switch length := int64(binary.BigEndian.Uint32(h.startup)); {
	case int64(len(h.startup)) > length:
		return 0, errors.New("pgxauth: more was sent than a startup message, before the answer to it")
	case int64(len(h.startup)) == length:
		h.started, h.startup = true, nil
	}
	return len(p), nil
}

func (h *handover) Read(p []byte) (int, error) {
	if len(h.greeting) > 0 {
		n := copy(p, h.greeting)
		h.greeting = h.greeting[n:]
		return n, nil
	}
	return h.Conn.Read(p)
}

func (h *handover) Close() error {
	h.closed.Do(h.held.Closed)
	return h.Conn.Close()
}

// canceller is what pgx gets when it dials a server to cancel what a connection does: the request
// goes the way that the login went, with TLS where that had it.
type canceller struct {
	login    *pgconn.PgConn
	deadline atomic.Pointer[time.Time]
}

const (
	cancelCode    = 80877102
	cancelTimeout = 15 * time.Second
)

func (c *canceller) Write(p []byte) (int, error) {
	if len(p) < 8 || binary.BigEndian.Uint32(p[4:]) != cancelCode {
		return 0, errors.New("pgxauth: the configuration of an open connection opens no other; use that of the pool, or Connect")
	}
	ctx, cancel := context.WithTimeout(context.Background(), cancelTimeout)
	defer cancel()
	if d := c.deadline.Load(); d != nil && !d.IsZero() {
		ctx, cancel = context.WithDeadline(ctx, *d)
		defer cancel()
	}
	if err := c.login.CancelRequest(ctx); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *canceller) Read([]byte) (int, error) { return 0, io.EOF }
func (c *canceller) Close() error             { return nil }
func (c *canceller) LocalAddr() net.Addr      { return c.login.Conn().LocalAddr() }
func (c *canceller) RemoteAddr() net.Addr     { return c.login.Conn().RemoteAddr() }

func (c *canceller) SetDeadline(t time.Time) error      { return c.SetWriteDeadline(t) }
func (c *canceller) SetReadDeadline(time.Time) error    { return nil }
func (c *canceller) SetWriteDeadline(t time.Time) error { c.deadline.Store(&t); return nil }
