package redis

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
)

// sent is a connection on which a server has sent a text.
type sent struct {
	net.Conn
	io.Reader
}

func (s sent) Read(p []byte) (int, error) { return s.Reader.Read(p) }
func (s sent) Close() error               { return nil }

// getUser is what ACL GETUSER answers, shortened.
const getUser = "*4\r\n$5\r\nflags\r\n*1\r\n+on\r\n$9\r\nselectors\r\n*1\r\n*2\r\n$1\r\na\r\n*0\r\n"

// TestRepliesAreBounded verifies that no reply makes the driver allocate without end, in whatever
// pieces it arrives.
func TestRepliesAreBounded(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		refused    bool
	}{
		{"what ACL GETUSER answers", getUser, false},
		{"several replies", strings.Repeat("*2\r\n:1\r\n$-1\r\n", 100_000), false},
		{"a bulk string with line ends", "$6\r\n*9999\n\r\n+OK\r\n", false},
		{"an array announced longer than any", "*150000000\r\n", true},
		{"arrays that together are too long", strings.Repeat("*60000\r\n", 2), true},
		{"arrays nested too deeply", strings.Repeat("*1\r\n", 1_000_000), true},
		{"a bulk string longer than any", "$2000000000\r\n", true},
		{"a number that is too long", "*" + strings.Repeat("9", 100) + "\r\n", true},
		{"a map", "%150000000\r\n", true},
		{"an empty line", "\r\n", true},
	}
	for _, test := range tests {
		for _, pieces := range []func(io.Reader) io.Reader{
			func(r io.Reader) io.Reader { return r },
			iotest.OneByteReader,
			iotest.HalfReader,
		} {
			r := &replies{Conn: sent{Reader: pieces(strings.NewReader(test.text))}}
			n, err := io.Copy(io.Discard, r)
			if refused := err != nil; refused != test.refused {
				t.Errorf("%s: refused: %v (%v) after %d bytes", test.name, refused, err, n)
			}
			if err == nil && fmt.Sprint(n) != fmt.Sprint(len(test.text)) {
				t.Errorf("%s: %d bytes of %d arrived", test.name, n, len(test.text))
			}
		}
	}
}
