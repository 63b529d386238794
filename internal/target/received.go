package target

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"

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
		c := &boundedConn{Conn: conn, address: address, limit: limit}
		c.left.Store(limit)
		return c, nil
	}
}

// boundedConn may be read by several goroutines, as pgx does after a timeout. Each of them can
// exceed the limit by one read.
type boundedConn struct {
	net.Conn
	address string
	limit   int64
	left    atomic.Int64
}

func (c *boundedConn) Read(p []byte) (int, error) {
	left := c.left.Load()
	if left <= 0 {
		_ = c.Close()
		return 0, fmt.Errorf("%s has sent %d bytes, more than a target may send in one connection", c.address, c.limit)
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), left)])
	c.left.Add(-int64(n))
	return n, err
}
