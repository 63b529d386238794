package audit

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// syslogConfirm is how long a connection must have lived after a record was written to it for the
// record to count as taken: syslog has no acknowledgement. When it breaks before, the record is
// sent again.
const syslogConfirm = 10 * time.Second

// syslogPriority is facility 13 (log audit), severity 6 (informational).
const syslogPriority = "<110>1 "

// Syslog sends records to a syslog server: RFC 5424 over TCP or TLS, framed by octet counting (RFC
// 5425, RFC 6587).
type Syslog struct {
	// Address is host:port.
	Address string
	// TLS is nil for a plain connection.
	TLS *tls.Config
	// Dial connects; nil means [net.Dialer.DialContext].
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Now is the clock; nil means time.Now.
	Now func() time.Time

	conn    net.Conn
	broken  chan struct{} // closed when the server has closed the connection
	head    string        // of each message, behind the time
	written []mark        // not yet confirmed, oldest first
	taken   uint64
	buf     bytes.Buffer
}

// mark says that records up to seq were written from from on, and the last of them at at.
type mark struct {
	seq      uint64
	from, at time.Time
}

// Name is "syslog".
func (s *Syslog) Name() string { return "syslog" }

// Destination is where the records go.
func (s *Syslog) Destination() string { return s.Address }

// Close ends the connection.
func (s *Syslog) Close() error {
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	<-s.broken // watch has ended
	s.conn, s.written = nil, nil
	return err
}

// Send writes the lines, and confirms those that were written long enough ago.
func (s *Syslog) Send(ctx context.Context, lines []Line) (taken uint64, err error) {
	if s.Now == nil {
		s.Now = time.Now
	}
	if err := s.connect(ctx, len(lines) > 0); err != nil {
		return s.taken, err
	}
	if s.conn == nil {
		return s.taken, nil
	}
	select {
	case <-s.broken:
		return s.taken, errors.Join(errors.New("the syslog server has closed the connection"), s.Close())
	default:
	}
	now := s.Now()
	for len(s.written) > 0 && now.Sub(s.written[0].at) >= syslogConfirm {
		s.taken, s.written = s.written[0].seq, s.written[1:]
	}
	if len(lines) == 0 {
		return s.taken, nil
	}
	s.buf.Reset()
	for _, l := range lines {
		s.append(l)
	}
	deadline, _ := ctx.Deadline()
	if err = s.conn.SetWriteDeadline(deadline); err == nil {
		_, err = s.conn.Write(s.buf.Bytes())
	}
	if err != nil {
		return s.taken, errors.Join(err, s.Close())
	}
	s.wrote(lines[len(lines)-1].Seq, now)
	return s.taken, nil
}

// wrote notes what was written. Batches of one second share a mark, so that there are few.
func (s *Syslog) wrote(seq uint64, at time.Time) {
	if n := len(s.written); n > 0 && at.Sub(s.written[n-1].from) < time.Second {
		s.written[n-1].seq, s.written[n-1].at = seq, at
		return
	}
	s.written = append(s.written, mark{seq, at, at})
}

func (s *Syslog) append(l Line) {
	const layout = "2006-01-02T15:04:05.000Z "
	size := len(syslogPriority) + len(layout) + len(s.head) + len(l.Text)
	s.buf.WriteString(strconv.Itoa(size))
	s.buf.WriteByte(' ')
	s.buf.WriteString(syslogPriority)
	s.buf.WriteString(l.Time.UTC().Format(layout))
	s.buf.WriteString(s.head)
	s.buf.Write(l.Text)
}

// connect makes the connection when there is something to send.
func (s *Syslog) connect(ctx context.Context, needed bool) error {
	if s.conn != nil || !needed {
		return nil
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "-"
	}
	s.head = fmt.Sprintf("%s keyturn %d audit - ", host, os.Getpid())
	dial := s.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	conn, err := dial(ctx, "tcp", s.Address)
	if err != nil {
		return err
	}
	if s.TLS != nil {
		secure := tls.Client(conn, s.TLS)
		if err := secure.HandshakeContext(ctx); err != nil {
			return errors.Join(fmt.Errorf("TLS: %w", err), conn.Close())
		}
		conn = secure
	}
	s.conn, s.broken = conn, make(chan struct{})
	go watch(conn, s.broken)
	return nil
}

// watch reads until the server closes the connection. A syslog server says nothing.
func watch(conn net.Conn, broken chan struct{}) {
	defer close(broken)
	b := make([]byte, 512)
	for {
		if _, err := conn.Read(b); err != nil {
			return
		}
	}
}
