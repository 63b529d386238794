package server

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/egress"
)

// dialers makes the dialers of everything whose address callers choose, and of the receivers of
// events. A target that is a service of the server would act with the network position of the
// server: targets reach none, and receivers none but themselves and their proxies.
func (s *Server) dialers() (targets, receivers *egress.Dialer) {
	dialer := func(own egress.Config) *egress.Dialer {
		c := s.config.Egress
		c.Own = slices.Concat(c.Own, own.Own)
		c.OwnHTTP = slices.Concat(c.OwnHTTP, own.OwnHTTP)
		d := egress.New(c)
		for _, l := range []net.Listener{s.tls, s.plain, s.pages} {
			if l != nil {
				d.RefuseListener(l.Addr())
			}
		}
		return d
	}
	return dialer(s.config.services(true)), dialer(s.config.services(false))
}

// Services are host:port of everything that the configuration makes the server connect to.
func (c Config) Services() []string {
	own := c.services(true)
	return slices.Concat(own.Own, own.OwnHTTP)
}

// services are the services of [Config.Services]; receivers of events are among them if receivers
// is set.
func (c Config) services(receivers bool) (own egress.Config) {
	add := func(list *[]string, destinations ...string) {
		for _, d := range destinations {
			if address := hostPort(d); address != "" {
				*list = append(*list, address)
			}
		}
	}
	add(&own.Own, c.Etcd.Endpoints...)
	if c.Cluster != nil {
		for _, peer := range c.Cluster.Peers {
			add(&own.Own, peer)
		}
		add(&own.Own, c.Cluster.Listen)
	}
	byHTTP := func(destination string) {
		add(&own.OwnHTTP, destination)
		u, err := url.Parse(destination)
		if err != nil {
			return // nothing is sent there
		}
		if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u}); err == nil && proxy != nil {
			add(&own.Own, proxy.String())
		}
	}
	for _, sink := range c.AuditSinks {
		if d := sink.Destination(); strings.Contains(d, "://") {
			byHTTP(d)
		} else {
			add(&own.Own, d)
		}
	}
	if !receivers {
		return own
	}
	for _, r := range c.Rotator.Receivers {
		byHTTP(r.URL)
	}
	return own
}

// hostPort returns host:port of a URL or of an address; empty when it has none, such as a Unix
// socket. An address without a host stands for every address of this machine.
func hostPort(destination string) string {
	if strings.Contains(destination, "://") {
		u, err := url.Parse(destination)
		if err != nil || u.Host == "" {
			return ""
		}
		port := u.Port()
		switch {
		case port != "":
		case u.Scheme == "http":
			port = "80"
		default:
			port = "443"
		}
		return net.JoinHostPort(u.Hostname(), port)
	}
	host, port, err := net.SplitHostPort(destination)
	switch {
	case err != nil:
		return ""
	case host == "":
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
