package target

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"time"

	"github.com/keyturn/keyturn/internal/egress"
)

// DialTimeout bounds the time until a connection is made, with its TLS handshake, so that one
// silent endpoint does not use up the time of a call to several.
const DialTimeout = 5 * time.Second

// alertTime is how long a server may need to refuse a connection without a client certificate.
const alertTime = 300 * time.Millisecond

// CertificateError says that a peer does not accept a connection with the client certificate that
// it got, or without one.
type CertificateError struct{ cause error }

func (e *CertificateError) Error() string { return "client certificate: " + e.cause.Error() }

// Connect makes a connection to host:port, with TLS unless it is off, and with client certificates
// if there are any. Its error means that nothing was asked of the target: see [NotSent]. The
// protocol must be one in which the client speaks first.
func (t TLS) Connect(
	ctx context.Context, dial egress.DialFunc, address string, certificates ...tls.Certificate,
) (net.Conn, error) {
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
	config, asked := t.Config(host), false
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		asked = true
		if len(certificates) > 0 {
			return &certificates[0], nil
		}
		return &tls.Certificate{}, nil
	}
	secure := tls.Client(conn, config)
	err = secure.HandshakeContext(ctx)
	if err == nil && asked {
		err = awaitAlert(secure)
	}
	if err == nil {
		return secure, nil
	}
	_ = conn.Close()
	if refused := (*net.OpError)(nil); asked && errors.As(err, &refused) && refused.Op == "remote error" {
		return nil, &CertificateError{err}
	}
	return nil, err
}

// awaitAlert waits for what a server may say of the client certificate. With TLS 1.3 that comes
// after the handshake, and a request that is sent meanwhile may hide it.
func awaitAlert(conn *tls.Conn) error {
	if err := conn.SetReadDeadline(time.Now().Add(alertTime)); err != nil {
		return err
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		return cmp.Or(err, errors.New("the server speaks first"))
	}
	return conn.SetReadDeadline(time.Time{})
}
