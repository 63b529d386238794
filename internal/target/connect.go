package target

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/keyturn/keyturn/internal/egress"
)

// DialTimeout bounds the time until a connection is made, with its TLS handshake, so that one
// silent endpoint does not use up the time of a call to several.
const DialTimeout = 5 * time.Second

// Connect makes a connection to host:port, with TLS unless it is off. Its error means that nothing
// was asked of the target: see [NotSent].
func (t TLS) Connect(ctx context.Context, dial egress.DialFunc, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	conn, err := dial(ctx, "tcp", address)
	if err != nil || t.Off {
		return conn, err
	}
	secure := tls.Client(conn, t.Config(host))
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secure, nil
}
