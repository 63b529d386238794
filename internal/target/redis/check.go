package redis

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
)

// Consents to findings.
const (
	consentToPartner  = "partner-differs"
	consentToOthers   = "nodes-not-named"
	consentToReplicas = "replication"
	consentToUnread   = "nodes-not-read"
)

// Window says how long a credential may be refused.
func (s *server) Window(target.Strategy) string {
	return "None: the old password works at every node until it is removed at the end of the grace period."
}

// CheckAccount reports what a rotation of a user would meet at the nodes, each of which has an
// access control list of its own.
func (s *server) CheckAccount(ctx context.Context, r target.CheckRequest) ([]target.Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	nodes, err := s.connect(ctx, r.Current.Secret)
	defer closeAll(nodes)
	f := r.OfCurrent()
	if err != nil {
		return f.List, err
	}
	if err := s.checkAdministrator(ctx, f, nodes); err != nil {
		return f.List, f.Denied("user-not-read", err, s.toRead(err))
	}
	places, err := s.checkTopology(ctx, f, nodes)
	if err != nil {
		return nil, err
	}
	var all []user
	for _, of := range []*target.Findings{r.OfCurrent(), r.OfPartner()} {
		if of.Account == "" && len(all) > 0 {
			break
		}
		var strategies []target.Strategy
		if len(all) > 0 {
			strategies = []target.Strategy{target.Double}
		}
		users, err := checkNodes(ctx, of, nodes, strategies...)
		if err != nil {
			return append(f.List, of.List...), of.Denied("user-not-read", err, s.toRead(err))
		}
		f.List = append(f.List, of.List...)
		all = append(all, users...)
	}
	checkPasswords(f, nodes, all, r)
	checkReplication(f, places, all)
	s.checkSaving(f, places)
	if s.Persist == persistNone {
		f.Note("not-saved", "The target's persist is none: a restart of a server loses a change that nothing else saves.")
	}
	return checkPartner(f, r.OfPartner(), nodes, all), nil
}

// toRead says what lets the administrator read users, after an error of ACL GETUSER.
func (s *server) toRead(err error) string {
	if strings.Contains(err.Error(), "unknown command") {
		return "Use Redis 6 or later, or Valkey, and do not rename its command ACL."
	}
	return s.allow("+acl|getuser")
}

// checkAdministrator reports rights that the administrator lacks at a node for a change.
func (s *server) checkAdministrator(ctx context.Context, f *target.Findings, nodes []*node) error {
	needs := []string{"acl|setuser"}
	switch s.Persist {
	case persistAuto, persistACLSave:
		needs = append(needs, "acl|save")
	case persistConfigRewrite:
		needs = append(needs, "config|rewrite")
	}
	for _, n := range nodes {
		u, err := n.user(ctx, s.admin.Account)
		if err != nil {
			return err
		}
		for _, need := range needs {
			if u.exists && !permits(u.commands, need) {
				f.Impossible("administrator-lacks", fmt.Sprintf("At %s the administrator may not run %s.", n.addr, inWords(need)),
					s.allow("+"+need))
			}
		}
	}
	return nil
}

// checkSaving reports servers that cannot save their users in the way that the target says. Whether
// a server has an ACL file is not asked: a user that may run CONFIG GET reads passwords.
func (s *server) checkSaving(f *target.Findings, places []place) {
	for _, p := range places {
		switch {
		case !p.noConfigFile:
		case s.Persist == persistConfigRewrite:
			f.Impossible("no-config-file", fmt.Sprintf("%s has no configuration file that it could write.", p.addr),
				"Start the server with a configuration file that it may write, or set persist of the target to acl-save.")
		case s.Persist == persistAuto:
			f.Impossible("no-config-file", fmt.Sprintf("%s has no configuration file, and Keyturn cannot see whether it has an "+
				"ACL file: a change that it does not save would be lost when it restarts.", p.addr),
				"If the server has an ACL file: keyturn target update TARGET --set persist=acl-save. Otherwise start it with "+
					"an ACL file or with a configuration file that it may write. If something else keeps its users: "+
					"keyturn target update TARGET --set persist=none.")
		}
	}
}

// checkReplication reports a user with which replicas may log in.
func checkReplication(f *target.Findings, places []place, users []user) {
	for i, p := range places {
		if (p.replica || len(p.copies) > 0) && permits(users[i].commands, "psync") {
			f.NeedsConsent(consentToReplicas,
				fmt.Sprintf("Replicas of %s may log in with this user, because it may run PSYNC. Their setting masterauth keeps "+
					"the old password.", fault.Foreign(cmp.Or(p.master, p.addr))),
				"Give replicas a user of their own with the setting masteruser.")
			return
		}
	}
}

// checkNodes reads a user at every node and reports where it cannot be changed, and whether the
// nodes differ.
func checkNodes(
	ctx context.Context, f *target.Findings, nodes []*node, strategies ...target.Strategy,
) ([]user, error) {
	var users []user
	for _, n := range nodes {
		u, err := n.user(ctx, f.Account)
		if err != nil {
			return nil, err
		}
		if text := u.unfit(true); text != "" {
			f.Impossible("unfit", fmt.Sprintf("At %s the user %s.", n.addr, text), "Correct the user at that node.",
				strategies...)
			if !u.exists && len(strategies) == 0 {
				f.LastMissing()
			}
		}
		users = append(users, u)
		if u.exists && users[0].exists && u.rights != users[0].rights {
			f.Note("nodes-differ", fmt.Sprintf("The rules of the user at %s differ from those at %s; a rotation keeps both.",
				n.addr, nodes[0].addr), strategies...)
		}
	}
	return users, nil
}

// checkPasswords reports nodes without the password in use, and further passwords.
func checkPasswords(f *target.Findings, nodes []*node, users []user, r target.CheckRequest) {
	for i, n := range nodes {
		others := len(users[i].passwords)
		for _, s := range r.Known() {
			if slices.Contains(users[i].passwords, hash(s)) {
				others--
			}
		}
		switch {
		case slices.Contains(users[i].passwords, hash(r.Current.Secret)):
		case users[i].exists && !users[i].nopass:
			f.Drifted("password-missing", fmt.Sprintf("The user has no such password at %s.", n.addr),
				"Add it there, or put the password that every node has into the secret.")
		}
		if others > 0 {
			f.Outlasting("further-passwords",
				fmt.Sprintf("Besides the one in use, the user has passwords at %s, which stay: %d.", n.addr, others),
				fmt.Sprintf("ACL GETUSER %[1]s lists their hashes, and ACL SETUSER %[1]s !HASH removes one. After a leak, remove "+
					"each that no application needs.", fault.Quoted(f.Account)))
		}
	}
}

// checkPartner compares the other user of strategy double, whose entries follow in users, with the
// user in use.
func checkPartner(current, partner *target.Findings, nodes []*node, users []user) []target.Finding {
	if partner.Account == "" {
		return current.List
	}
	for i, n := range nodes {
		one, two := users[i], users[len(nodes)+i]
		if one.exists && two.exists && one.rights != two.rights {
			partner.NeedsConsent(consentToPartner,
				fmt.Sprintf("The rules of the user at %s differ from the rules of %s.", n.addr, fault.Quoted(current.Account)),
				"Give both users the same rules with ACL SETUSER.", target.Double)
		}
	}
	return slices.Concat(current.List, partner.List)
}

var (
	_ target.Checker  = (*server)(nil)
	_ target.Windower = (*server)(nil)
)
