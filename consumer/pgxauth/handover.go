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

// takeOver is how long an open connection waits to be taken over, which needs no network.
const takeOver = time.Minute

// handover is a connection that is logged in already, for a client that is about to log in. It
// swallows the startup message of the client and answers it with what the server sent after the
// login. After that it passes everything on.
type handover struct {
	net.Conn
	held  *adapter.Conn
	login *pgconn.PgConn // hijacked; it can still send a cancel request

	abandoned *time.Timer // closes a connection that is not taken over
	closed    sync.Once

	// Only the goroutine that connects uses the fields below.
	startup  []byte // the startup message, as far as it was written
	started  bool   // the startup message is complete
	greeting []byte // the rest of the answer, not read yet
}

func newHandover(login *pgconn.PgConn, held *adapter.Conn) (*handover, error) {
	h := &handover{held: held, login: login}
	hijacked, err := login.Hijack()
	if err != nil {
		held.Closed()
		_ = login.Conn().Close()
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
			_ = h.Close()
			return nil, fmt.Errorf("pgxauth: %w", err)
		}
	}
	h.abandoned = time.AfterFunc(takeOver, func() { _ = h.Close() })
	return h, nil
}

// configure makes the next connection of cc take this one over. It removes the settings that were
// checked at the login: the preferred host, TLS, and the methods of authentication.
func (h *handover) configure(cc *pgx.ConnConfig) {
	var taken atomic.Bool
	cc.DialFunc = func(context.Context, string, string) (net.Conn, error) {
		if taken.CompareAndSwap(false, true) {
			h.abandoned.Stop()
			return h, nil
		}
		return &canceller{login: h.login}, nil // pgx dials again only to cancel
	}
	cc.LookupFunc = func(context.Context, string) ([]string, error) {
		return []string{"127.0.0.1"}, nil // any address: DialFunc ignores it
	}
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
		return 0, errors.New("pgxauth: pgx has sent more than a startup message before the answer to it")
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

// canceller is the connection that pgx gets when it dials the server to cancel a query. It sends
// the request as the login was sent, with TLS if the login used it.
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
		return 0, errors.New("pgxauth: the configuration of an open connection opens no other; " +
			"use the configuration of the pool, or Connect")
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
