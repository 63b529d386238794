package target

import (
	"context"
	"fmt"
	"net"

	"github.com/keyturn/keyturn/internal/egress"
)

// MaxReceived is how many bytes one connection to a target may receive. A check of a database with
// 100,000 objects of the account needs about a tenth of it.
const MaxReceived = 64 << 20

// Bounded returns dial with connections that end when they have received more than limit bytes. A
// target must not be able to use up the memory of the server, and drivers store what they receive.
func Bounded(dial egress.DialFunc, limit int64) egress.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &boundedConn{Conn: conn, address: address, limit: limit, left: limit}, nil
	}
}

// boundedConn is read by one goroutine at a time, as drivers do.
type boundedConn struct {
	net.Conn
	address     string
	limit, left int64
}

func (c *boundedConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		_ = c.Close()
		return 0, fmt.Errorf("%s has sent %d bytes, more than a target may send in one connection", c.address, c.limit)
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}
