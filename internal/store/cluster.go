package store

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/keyturn/keyturn/internal/egress"
)

// Cluster lists the members of a cluster, and how they reach each other.
type Cluster struct {
	// Name is the name of this member.
	Name string
	// Peers are the URLs of all members by name, including this one: https://host:port, or http:// on
	// loopback.
	Peers map[string]string
	// Listen is host:port where this member listens for the others; empty means the address in its own
	// URL.
	Listen string
	// CertFile, KeyFile and CAFile are PEM files: members authenticate each other. Empty for http.
	CertFile, KeyFile, CAFile string
	// AllowedCN and AllowedHostname restrict the certificates of other members to that common name, or
	// to those valid for that host name; empty allows any certificate of CAFile. At most one may be
	// set.
	AllowedCN, AllowedHostname string
}

// Check reports all mistakes at once.
func (c Cluster) Check() error {
	var errs []error
	own, ok := c.Peers[c.Name]
	if !ok {
		errs = append(errs, fmt.Errorf("cluster-peers does not have this node, %q", c.Name))
	}
	if len(c.Peers) < 3 {
		errs = append(errs, errors.New("cluster-peers has fewer than three nodes: none could be lost"))
	}
	for name, peer := range c.Peers {
		u, err := url.Parse(peer)
		switch {
		case err != nil || u.Host == "" || u.Port() == "" || u.Scheme != "https" && u.Scheme != "http":
			errs = append(errs, fmt.Errorf("cluster-peers: %s=%q is not https://host:port", name, peer))
		case u.Scheme == "http" && !egress.IsLoopback(u.Hostname()):
			errs = append(errs, fmt.Errorf("cluster-peers: %s=%q is not https and not on loopback", name, peer))
		}
	}
	if https := strings.HasPrefix(own, "https://"); https != (c.CertFile != "" && c.KeyFile != "" && c.CAFile != "") {
		errs = append(errs, errors.New("peer-cert-file, peer-key-file and peer-ca-file go with https peers, all three"))
	}
	if c.AllowedCN != "" && c.AllowedHostname != "" {
		errs = append(errs, errors.New("peer-allowed-cn and peer-allowed-hostname exclude each other"))
	}
	if c.AllowedCN+c.AllowedHostname != "" && c.CAFile == "" {
		errs = append(errs, errors.New("peer-allowed-cn and peer-allowed-hostname need https peers"))
	}
	return errors.Join(errs...)
}

// apply configures a member of the cluster. It uses etcd's own timing for members on several
// machines: ticks of 0.1 s.
func (c Cluster) apply(e *embed.Config) error {
	own, err := url.Parse(c.Peers[c.Name])
	if err != nil {
		return fmt.Errorf("cluster-peers: %w", err)
	}
	listen := *own
	if c.Listen != "" {
		listen.Host = c.Listen
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(c.Peers)) {
		all = append(all, name+"="+c.Peers[name])
	}
	e.Name, e.InitialCluster, e.InitialClusterToken = c.Name, strings.Join(all, ","), "keyturn"
	e.ListenPeerUrls, e.AdvertisePeerUrls = []url.URL{listen}, []url.URL{*own}
	e.TickMs, e.ElectionMs = clusterTick, clusterElection
	if own.Scheme == "https" {
		e.PeerTLSInfo = transport.TLSInfo{
			CertFile:         c.CertFile,
			KeyFile:          c.KeyFile,
			TrustedCAFile:    c.CAFile,
			ClientCertAuth:   true,
			AllowedCNs:       given(c.AllowedCN),
			AllowedHostnames: given(c.AllowedHostname),
		}
	}
	return nil
}

func given(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}
