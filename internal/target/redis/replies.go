package redis

import (
	"bytes"
	"fmt"
	"net"
	"strconv"
)

// Bounds of a reply. The driver allocates an array as long as its header says, and reads nested
// arrays recursively, so a target could end this process with a few bytes.
const (
	// maxReceived is how many bytes a connection may receive.
	maxReceived = 4 << 20
	maxElements = 1 << 16
	maxDepth    = 16
	// maxHeader is longer than any number of a header.
	maxHeader = 32
)

// replies reads RESP 2 from a server, and ends with an error before a reply that is too large
// reaches the driver.
type replies struct {
	net.Conn
	header   []byte // the beginning of the current line
	skip     int    // bytes left of a bulk string, with its line end
	open     []int  // elements left of each array that contains the current value
	elements int    // of the current reply
	err      error
}

func (r *replies) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.Conn.Read(p)
	if r.err = r.scan(p[:n]); r.err != nil {
		_ = r.Close()
		return 0, r.err
	}
	return n, err
}

func (r *replies) scan(b []byte) error {
	for len(b) > 0 {
		if r.skip > 0 {
			n := min(r.skip, len(b))
			b, r.skip = b[n:], r.skip-n
			if r.skip == 0 {
				r.ended()
			}
			continue
		}
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		r.header = append(r.header, line[:min(len(line), maxHeader-len(r.header))]...)
		if !whole {
			return nil
		}
		b = rest
		if err := r.began(); err != nil {
			return err
		}
	}
	return nil
}

// began reads the first line of a value.
func (r *replies) began() error {
	line := bytes.TrimSuffix(r.header, []byte("\r"))
	r.header = r.header[:0]
	if len(line) == 0 {
		return fmt.Errorf("the server sent an empty line, which is not RESP 2")
	}
	switch line[0] {
	case '+', '-', ':':
		r.ended()
		return nil
	case '$', '*':
	default:
		return fmt.Errorf("the server sent a value of type %q, which RESP 2 does not have", line[0])
	}
	n, err := strconv.Atoi(string(line[1:]))
	switch {
	case err != nil || n > maxReceived:
		return fmt.Errorf("the server sent a value of a length that is not 0 to %d", maxReceived)
	case n < 0:
		r.ended()
	case line[0] == '$':
		r.skip = n + len("\r\n")
	case n == 0:
		r.ended()
	default:
		r.open, r.elements = append(r.open, n), r.elements+n
		if len(r.open) > maxDepth || r.elements > maxElements {
			return fmt.Errorf("the server sent a reply of more than %d elements or %d levels", maxElements, maxDepth)
		}
	}
	return nil
}

// ended counts a value that is complete, and the arrays that it completes.
func (r *replies) ended() {
	for len(r.open) > 0 {
		last := len(r.open) - 1
		if r.open[last]--; r.open[last] > 0 {
			return
		}
		r.open = r.open[:last]
	}
	r.elements = 0
}
