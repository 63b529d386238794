package agent

import (
	"net"
	"os"
	"strings"
)

// notifySystemd reports the state to systemd as sd_notify(3) does: by one datagram to the socket
// that NOTIFY_SOCKET names. It does nothing if that is not set.
func notifySystemd(state string) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	if abstract, ok := strings.CutPrefix(name, "@"); ok {
		name = "\x00" + abstract
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte(state))
	return err
}
