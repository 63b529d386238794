// Package redis changes the passwords of users of Redis 6 and later, and of Valkey.
//
// # How
//
// A user of the server's access control list (ACL) may have several passwords at once. A change
// adds the SHA-256 hash of the new one (ACL SETUSER name #hash), and later removes the hash of the
// old one (!hash), so the server sees a password only in a login. Open sessions stay open. The
// account must exist; this kind never makes it or changes its rights.
//
// # A change outlives a restart
//
// The ACL is in the server's memory. A restart loses a change that was not written to a file, and
// with it the credential that all applications use by then. So before a change the server must save
// its users as they are; if it cannot, nothing is changed and the error has class Denied. After the
// change it saves them again. If that fails, the new password is removed again where this attempt
// added it, and the error has class Unknown.
//
// An ACL is not replicated: each replica and each node of a cluster has its own, so the
// configuration must name them all. A change that only some nodes took has class Unknown; the next
// attempt completes it.
//
// # Configuration
//
//	address   host or host:port of the server, port 6379 by default.
//	nodes     instead of address: a list of host or host:port, every node where the account is.
//	verify    a list of further addresses where a password must work, such as a proxy: strings, or
//	          objects with address, role and lag (see target.Endpoint). Default none.
//	tls       {"ca": PEM, "server_name": name, "off": true}; on and verified by default.
//	persist   how the server saves its users: "acl-save" (a server with an ACL file),
//	          "config-rewrite" (a server with users in its configuration file), "auto" (the first
//	          that the server has; the default), or "none": a restart of the server loses the
//	          change, unless something else saves it.
//	password_length, password_punctuation   of new passwords.
//
// # The administrator
//
// A user of the same ACL with +acl|getuser +acl|setuser and +acl|save or +config|rewrite (Redis 6:
// +acl, +config), on every node with the same password; no keys and no channels. An empty account
// means "default".
package redis

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

const (
	defaultPort = "6379"
	callTimeout = 30 * time.Second // of one call of the target, if its context allows more
)

// How a server saves its users.
const (
	persistAuto          = "auto"
	persistACLSave       = "acl-save"
	persistConfigRewrite = "config-rewrite"
	persistNone          = "none"
)

// Kind returns the kind "redis".
func Kind() target.Kind {
	strategies := []target.Strategy{target.Overlap, target.Double}
	return target.NewKind("redis", strategies, target.Parser((*config).complete), open).WithAdmin().
		Following(target.LoginEndpoints, target.LoginDatabase, target.LoginCertificate).
		Consenting(consentToPartner, consentToOthers, consentToReplicas, consentToUnread).
		Leaving("Other passwords of the user were not touched: keyturn rotation check NAME shows whether there are any.",
			target.OpenSessions)
}

type config struct {
	Address string              `json:"address"`
	Nodes   []string            `json:"nodes"`
	Verify  target.EndpointList `json:"verify"`
	TLS     target.TLS          `json:"tls"`
	Persist string              `json:"persist"`
	target.PasswordRule
}

// Addresses returns every node and every further address.
func (c config) Addresses() []string { return c.LoginEndpoints().Addresses() }

// LoginEndpoints returns every node, and every further address with its role.
func (c config) LoginEndpoints() target.EndpointList {
	return slices.Concat(target.WritersAt(c.Nodes), c.Verify)
}

// complete fills in defaults, removes duplicates from the addresses, and returns every mistake.
func (c *config) complete() error {
	var errs []error
	switch {
	case c.Address != "" && c.Nodes != nil:
		errs = append(errs, errors.New("give address for one server or nodes for several, not both"))
	case c.Address == "" && len(c.Nodes) == 0:
		errs = append(errs, errors.New("address is required (or nodes for several servers): host or host:port"))
	case c.Nodes == nil:
		c.Nodes = []string{c.Address}
	}
	var nodes []string
	for _, node := range c.Nodes {
		a, err := target.Address(node, defaultPort)
		if err != nil {
			errs = append(errs, err)
		} else if !slices.Contains(nodes, a) {
			nodes = append(nodes, a)
		}
	}
	var verify target.EndpointList
	for _, e := range c.Verify {
		a, err := target.Address(e.Address, defaultPort)
		e.Address = a
		if err != nil {
			errs = append(errs, err)
		} else if !slices.Contains(nodes, a) && !slices.Contains(verify.Addresses(), a) {
			verify = append(verify, e)
		}
	}
	c.Nodes, c.Verify = nodes, verify
	if c.Persist == "" {
		c.Persist = persistAuto
	}
	all := []string{persistAuto, persistACLSave, persistConfigRewrite, persistNone}
	if !slices.Contains(all, c.Persist) {
		errs = append(errs, fmt.Errorf("persist %q is none of %q", c.Persist, all))
	}
	return errors.Join(append(errs, c.TLS.Check(), c.PasswordRule.Check())...)
}

type server struct {
	config
	admin       target.Credential
	application target.Login
	certificate []tls.Certificate // of the application; none or one
	dial        egress.DialFunc
}

func open(c config, s target.Settings) (target.Target, error) {
	s.Admin.Account = cmp.Or(s.Admin.Account, defaultUser)
	certificate, err := s.Login.ClientCertificate(c.TLS)
	if err != nil {
		return nil, err
	}
	return &server{
		config:      c,
		admin:       s.Admin,
		application: s.Login,
		certificate: certificate,
		dial:        target.Bounded(s.Dialer(), maxReceived),
	}, nil
}

// Close has nothing to release: each call closes its own connections.
func (s *server) Close() error { return nil }

// Apply adds the new password. With both strategies that leaves every other one as it is.
func (s *server) Apply(ctx context.Context, c target.Change) error {
	return s.set(ctx, c.New, true)
}

// Retire removes the old password and no other.
func (s *server) Retire(ctx context.Context, c target.Change) error {
	return s.set(ctx, c.Old, false)
}

// Inspect compares with the hashes that the servers have. A credential that only some of the nodes
// accept is NotKnown.
func (s *server) Inspect(ctx context.Context, credentials []target.Credential) ([]target.Liveness, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	nodes, err := s.connect(ctx)
	defer closeAll(nodes)
	if err != nil {
		return nil, err
	}
	out := make([]target.Liveness, len(credentials))
	for i, c := range credentials {
		live := 0
		for _, n := range nodes {
			u, err := n.user(ctx, c.Account)
			if err != nil {
				return nil, err
			}
			if u.accepts(hash(c.Secret)) {
				live++
			}
		}
		switch live {
		case 0:
			out[i] = target.Dead
		case len(nodes):
			out[i] = target.Live
		}
	}
	return out, nil
}

// set adds or removes a password at every node and makes each of them save it. All nodes must save
// their users before the first one is changed: see the package comment.
func (s *server) set(ctx context.Context, c target.Credential, present bool) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	nodes, err := s.connect(ctx, c.Secret)
	defer closeAll(nodes)
	if err != nil {
		return err
	}
	h := hash(c.Secret)
	todo, err := plan(ctx, nodes, c.Account, h, present)
	if err != nil {
		return err
	}
	for _, n := range todo {
		if err := n.persist(ctx, s.Persist); err != nil {
			return s.beforehand(err, len(todo) < len(nodes))
		}
	}
	for _, n := range nodes {
		changed := slices.Contains(todo, n)
		if changed {
			if err := n.modify(ctx, c.Account, h, present); err != nil {
				return afterwards(err, n != nodes[0])
			}
		}
		if err := n.persist(ctx, s.Persist); err != nil {
			return n.unsaved(ctx, err, c.Account, h, changed && present)
		}
	}
	return nil
}

// plan reads the account at every node and returns the nodes that need the change.
func plan(ctx context.Context, nodes []*node, account, h string, present bool) ([]*node, error) {
	var todo []*node
	var unfit *target.Error
	accepted := false
	for _, n := range nodes {
		u, err := n.user(ctx, account)
		if err != nil {
			return nil, err
		}
		if text := u.unfit(present); text != "" && unfit == nil {
			unfit = target.Denied.Errorf("%s: user %s %s", n.addr, fault.Quoted(account), text)
		}
		if slices.Contains(u.passwords, h) != present && (u.exists || present) {
			todo = append(todo, n)
		}
		accepted = accepted || u.on && slices.Contains(u.passwords, h)
	}
	if unfit == nil {
		return todo, nil
	}
	if present && accepted {
		unfit.Class = target.Unknown // an earlier attempt has reached another node
	}
	return nil, unfit
}

// beforehand returns the error of a server that cannot save its users, before this attempt has
// changed anything.
func (s *server) beforehand(err error, earlier bool) error {
	var e *target.Error
	if !errors.As(err, &e) {
		return err
	}
	out := *e
	if out.Class == target.Denied {
		out.Text += "; nothing was changed, because a change that is not saved is lost when the server restarts"
	}
	if earlier {
		out.Class = target.Unknown // an earlier attempt has changed a node
	}
	return &out
}

// afterwards returns an error of a node after an earlier node may have been changed.
func afterwards(err error, earlier bool) error {
	var e *target.Error
	if !earlier || !errors.As(err, &e) {
		return err
	}
	out := *e
	out.Class, out.Text = target.Unknown, out.Text+"; other nodes have taken the change already"
	return &out
}

// unsaved returns the error of a server that took a change and could not save it. With undo it
// removes a new password again, which no consumer uses yet: otherwise consumers could come to use a
// password that the next restart loses.
func (n *node) unsaved(ctx context.Context, err error, account, h string, undo bool) error {
	text := "; the change works now and is lost when the server restarts, until it is done again"
	if undo && n.modify(ctx, account, h, false) == nil {
		text = "; the new password was removed again at this server, because it would be lost on a restart"
	}
	var e *target.Error
	if !errors.As(err, &e) {
		return err
	}
	out := *e
	out.Class, out.Text = target.Unknown, out.Text+text
	return &out
}

// connect logs in as the administrator at every node. The caller must close the nodes, also after
// an error.
func (s *server) connect(ctx context.Context, secrets ...sensitive.Value) ([]*node, error) {
	var nodes []*node
	for _, addr := range s.Nodes {
		n, err := s.dialNode(ctx, addr, nil, append(secrets, s.admin.Secret)...)
		if err != nil {
			return nodes, err
		}
		nodes = append(nodes, n)
		if err := n.login(ctx, s.admin); err != nil {
			return nodes, target.AsAdmin(err)
		}
	}
	return nodes, nil
}

func closeAll(nodes []*node) {
	for _, n := range nodes {
		n.close()
	}
}

// hash returns the hash of a password in the ACL's form.
func hash(secret sensitive.Value) string {
	sum := sha256.Sum256([]byte(secret.Reveal()))
	return hex.EncodeToString(sum[:])
}
