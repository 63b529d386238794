package redis

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/target"
)

// place is what a server says of the servers that it belongs to.
type place struct {
	addr string
	// set identifies the servers that copy from one master; all of a cluster have the set "cluster".
	set     string
	replica bool
	// id is the server's own in a cluster.
	id string
	// copies has the addresses of its replicas, master the address of its master.
	copies []string
	master string
	// peers has the address of every server of its cluster by ID.
	peers map[string]string
	// noConfigFile says that the server was started without a configuration file.
	noConfigFile bool
}

const clusterSet = "cluster"

// checkTopology reports servers that the named ones know and the target does not name: each has an
// access control list of its own.
func (s *server) checkTopology(ctx context.Context, f *target.Findings, nodes []*node) ([]place, error) {
	places := make([]place, len(nodes))
	for i, n := range nodes {
		p, rules, err := n.place(ctx)
		switch {
		case target.ClassOf(err) == target.Denied:
			p = place{addr: n.addr}
			f.NeedsConsent(consentToUnread,
				fmt.Sprintf("Keyturn cannot see whether further servers, such as replicas, belong to %s: %s. A new password "+
					"would not work on servers that the target does not name.", n.addr, target.TextForCaller(err)),
				s.allow(rules))
		case err != nil:
			return nil, err
		}
		places[i] = p
	}
	if others := unnamed(places, s.Addresses(), len(s.config.Verify.Replicas())); len(others) > 0 {
		f.NeedsConsent(consentToOthers,
			fmt.Sprintf("Other servers belong to these nodes, and the target does not name them: %s. A new password does not "+
				"work there, also after one of them has become the master.", inShort(others)),
			"Name every node in the setting nodes of the target, or agree if something else copies the users to them.")
	}
	return places, nil
}

// unnamed returns the servers that places name and that are none of the known addresses. The
// servers may have other names for themselves than the configuration, so a set of servers that is
// as large as what the configuration has of it is complete. copied is how many replicas of the
// configuration get their users from something else.
func unnamed(places []place, known []string, copied int) []string {
	sets := map[string][]place{}
	for _, p := range places {
		sets[p.set] = append(sets[p.set], p)
	}
	var out []string
	for name, set := range sets {
		named, complete := namedReplicas(set, copied)
		if name == clusterSet {
			named, complete = namedPeers(set), false
		}
		for _, a := range named {
			if !complete && !slices.Contains(known, a) {
				out = append(out, a)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// namedReplicas returns the masters and replicas that the servers of a set name, and whether the
// set is complete.
func namedReplicas(set []place, copied int) (named []string, complete bool) {
	size, hasMaster := 1, false
	for _, p := range set {
		size += len(p.copies)
		hasMaster = hasMaster || !p.replica
		named = append(named, p.copies...)
		if p.replica {
			named = append(named, p.master)
		}
	}
	return named, hasMaster && size <= len(set)+copied
}

// namedPeers returns the servers of a cluster without those whose own ID was read.
func namedPeers(set []place) (named []string) {
	own := map[string]bool{}
	for _, p := range set {
		own[p.id] = true
	}
	for _, p := range set {
		for id, addr := range p.peers {
			if !own[id] {
				named = append(named, addr)
			}
		}
	}
	return named
}

// inShort lists the first of several addresses.
func inShort(addresses []string) string {
	const most = 5
	text := target.Said(strings.Join(addresses[:min(len(addresses), most)], ", "))
	if n := len(addresses) - most; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}

// place asks a server for its place. With an error it returns the rules that permit the question.
func (n *node) place(ctx context.Context) (p place, rules string, err error) {
	const info, nodes = "+info", "+cluster|nodes"
	reply, err := n.do(ctx, "read the replication", "INFO")
	if err != nil {
		return place{}, info + " " + nodes, err
	}
	fields := fieldsOf(fmt.Sprint(reply))
	config, shown := fields["config_file"]
	defer func() { p.noConfigFile = shown && config == "" }()
	if fields["cluster_enabled"] != "1" {
		return replicationOf(n.addr, fields), "", nil
	}
	reply, err = n.do(ctx, "read the nodes of the cluster", "CLUSTER", "NODES")
	if err != nil {
		return place{}, nodes, err
	}
	return clusterOf(n.addr, fmt.Sprint(reply)), "", nil
}

// fieldsOf returns the lines name:value of INFO.
func fieldsOf(text string) map[string]string {
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	return fields
}

// replicationOf reads the part of INFO about replication.
func replicationOf(addr string, info map[string]string) place {
	p := place{addr: addr, set: info["master_replid"], replica: info["role"] == "slave"}
	if p.replica {
		p.master = net.JoinHostPort(info["master_host"], info["master_port"])
	}
	for i := 0; ; i++ {
		line, ok := info[fmt.Sprintf("slave%d", i)]
		if !ok {
			return p
		}
		parts := map[string]string{}
		for part := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(part, "=")
			parts[name] = value
		}
		p.copies = append(p.copies, net.JoinHostPort(parts["ip"], parts["port"]))
	}
}

// clusterOf reads CLUSTER NODES: a line for each node with its ID, its address before an @, and its
// flags.
func clusterOf(addr, text string) place {
	p := place{addr: addr, set: clusterSet, peers: map[string]string{}}
	for line := range strings.Lines(text) {
		parts := strings.Fields(line)
		if len(parts) < 3 {
			continue
		}
		flags := strings.Split(parts[2], ",")
		if slices.Contains(flags, "handshake") || slices.Contains(flags, "noaddr") {
			continue
		}
		p.peers[parts[0]], _, _ = strings.Cut(parts[1], "@")
		if slices.Contains(flags, "myself") {
			p.id = parts[0]
		}
	}
	return p
}
