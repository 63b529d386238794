package server

import (
	"net"
	"net/url"
	"strings"

	"github.com/keyturn/keyturn/internal/egress"
)

// dialer makes the one dialer of everything whose address callers choose. It refuses every service
// of this server: a target that is the server itself would make requests with the network position
// of the server.
func (s *Server) dialer() *egress.Dialer {
	c := s.config.Egress
	c.Own = append(append([]string(nil), c.Own...), s.services()...)
	d := egress.New(c)
	for _, l := range []net.Listener{s.tls, s.plain, s.pages} {
		if l != nil {
			d.RefuseListener(l.Addr())
		}
	}
	return d
}

// services are host:port of the etcd members that this server uses or is part of.
func (s *Server) services() []string {
	list := append([]string(nil), s.config.Etcd.Endpoints...)
	if cluster := s.config.Cluster; cluster != nil {
		for _, peer := range cluster.Peers {
			list = append(list, peer)
		}
		list = append(list, cluster.Listen)
	}
	var out []string
	for _, endpoint := range list {
		if strings.Contains(endpoint, "://") {
			u, err := url.Parse(endpoint)
			if err != nil {
				continue // the store does not open with it
			}
			endpoint = u.Host
		}
		host, port, err := net.SplitHostPort(endpoint)
		switch {
		case err != nil:
			continue
		case host == "":
			host = "localhost"
		}
		out = append(out, net.JoinHostPort(host, port))
	}
	return out
}
