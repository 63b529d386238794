// Package redis changes the passwords of users of Redis 6 and later, and of Valkey.
//
// # How
//
// A user of the server's access control list (ACL) may have several passwords at once. A change
// adds the SHA-256 of the new one (ACL SETUSER name #hash), and later removes that of the old one
// (!hash), so the server sees a password only when somebody logs in. Sessions that are open stay
// open. The account has to exist; it is never made, and its rights are never touched.
//
// # A change outlives a restart
//
// The ACL is in the server's memory, and a change that is not written to a file is gone after a
// restart, with the credential that every application uses by then. So before a change the server
// is asked to write down the users as they are; when it cannot, nothing is changed and the error is
// of class Denied. Afterwards it writes them again. Should that fail, the new password is taken out
// again where it was not there before, and the error is of class Unknown.
//
// An ACL is not replicated: each replica and each node of a cluster has its own, so they all have
// to be named. A change that some nodes took and some did not is of class Unknown; doing it again
// mends it.
//
// # Configuration
//
//	address   host or host:port of the server, port 6379 by default.
//	nodes     instead of address: a list of host or host:port, every node where the account is.
//	verify    a list of further addresses where a password must work, such as a proxy. Default none.
//	tls       {"ca": PEM, "server_name": name, "off": true}; on and verified by default.
//	persist   how the server writes the users down: "acl-save" (a server with an ACL file),
//	          "config-rewrite" (a server with users in its configuration file), "auto" (the first
//	          that the server has; the default), or "none": the change is lost on a restart of the
//	          server, unless something else writes it down.
//	password_length, password_punctuation   of new passwords.
//
// # The administrator
//
// A user of the same ACL with +acl|getuser +acl|setuser and +acl|save or +config|rewrite (Redis 6:
// +acl, +config), on every node with the same password; no keys and no channels. An empty account
// means "default".
package redis

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

const (
	defaultPort = "6379"
	callTimeout = 30 * time.Second // of one call of the target, whatever its context allows
	dialTimeout = 5 * time.Second
)

// How a server writes its users down.
const (
	persistAuto          = "auto"
	persistACLSave       = "acl-save"
	persistConfigRewrite = "config-rewrite"
	persistNone          = "none"
)

// Kind returns the kind "redis".
func Kind() target.Kind {
	strategies := []target.Strategy{target.Overlap, target.Double}
	return target.NewKind("redis", strategies, parse, open).WithAdmin()
}

type config struct {
	Address string     `json:"address"`
	Nodes   []string   `json:"nodes"`
	Verify  []string   `json:"verify"`
	TLS     target.TLS `json:"tls"`
	Persist string     `json:"persist"`
	target.PasswordRule
}

// Addresses returns every node and every further address.
func (c config) Addresses() []string { return slices.Concat(c.Nodes, c.Verify) }

// parse returns the configuration with complete addresses, those of Nodes and of Verify each once.
func parse(raw json.RawMessage) (config, error) {
	var c config
	if err := target.Decode(raw, &c); err != nil {
		return c, err
	}
	var errs []error
	switch {
	case c.Address != "" && c.Nodes != nil:
		errs = append(errs, errors.New("give address for one server or nodes for several, not both"))
	case c.Address == "" && len(c.Nodes) == 0:
		errs = append(errs, errors.New("address is required (or nodes for several servers): host or host:port"))
	case c.Nodes == nil:
		c.Nodes = []string{c.Address}
	}
	for _, list := range []*[]string{&c.Nodes, &c.Verify} {
		var complete []string
		for _, s := range *list {
			a, err := target.Address(s, defaultPort)
			if err != nil {
				errs = append(errs, err)
			} else if !slices.Contains(complete, a) && (list != &c.Verify || !slices.Contains(c.Nodes, a)) {
				complete = append(complete, a)
			}
		}
		*list = complete
	}
	if c.Persist == "" {
		c.Persist = persistAuto
	}
	all := []string{persistAuto, persistACLSave, persistConfigRewrite, persistNone}
	if !slices.Contains(all, c.Persist) {
		errs = append(errs, fmt.Errorf("persist %q is none of %q", c.Persist, all))
	}
	errs = append(errs, c.TLS.Check(), c.PasswordRule.Check())
	return c, errors.Join(errs...)
}

type server struct {
	config
	admin target.Credential
	dial  egress.DialFunc
}

func open(c config, s target.Settings) (target.Target, error) {
	if s.Admin.Secret.IsZero() {
		return nil, errors.New("redis: an administrator is required")
	}
	if s.Admin.Account == "" {
		s.Admin.Account = "default"
	}
	return &server{config: c, admin: s.Admin, dial: s.Dialer()}, nil
}

// Close has nothing to release: each call closes what it opened.
func (s *server) Close() error { return nil }

// Apply adds the new password. With both strategies that leaves every other one as it is.
func (s *server) Apply(ctx context.Context, c target.Change) error {
	return s.set(ctx, c.New, true)
}

// Retire removes the old password and no other.
func (s *server) Retire(ctx context.Context, c target.Change) error {
	return s.set(ctx, c.Old, false)
}

// Verify logs in at every node and every further address.
func (s *server) Verify(ctx context.Context, c target.Credential) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return target.VerifyEach(ctx, s.Addresses(), func(ctx context.Context, addr string) error {
		n, err := s.dialNode(ctx, addr, c.Secret)
		if err != nil {
			return err
		}
		defer n.close()
		return n.login(ctx, c)
	})
}

// Inspect compares with the hashes that the servers hold.
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

// set adds or removes a password at every node and has it written down.
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

// plan reads the account at every node and returns the nodes that are to be changed.
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
			unfit = target.Denied.Errorf("%s: user %q %s", n.addr, account, text)
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

// beforehand is the error of a server that cannot write its users down, before anything was changed
// in this attempt.
func (s *server) beforehand(err error, earlier bool) error {
	var e *target.Error
	if !errors.As(err, &e) {
		return err
	}
	out := *e
	if out.Class == target.Denied {
		out.Text += "; nothing was changed, because a change that is not written down is lost when the server restarts"
	}
	if earlier {
		out.Class = target.Unknown // an earlier attempt has changed a node
	}
	return &out
}

// afterwards is an error once a node may have been changed.
func afterwards(err error, earlier bool) error {
	var e *target.Error
	if !earlier || !errors.As(err, &e) {
		return err
	}
	out := *e
	out.Class, out.Text = target.Unknown, out.Text+"; other nodes have taken the change already"
	return &out
}

// unsaved is the error of a server that took a change and could not write it down. A password that
// nobody uses yet is taken out again: better it works nowhere than until the next restart.
func (n *node) unsaved(ctx context.Context, err error, account, h string, takeOut bool) error {
	text := "; the change works now and is lost when the server restarts, until it is done again"
	if takeOut && n.modify(ctx, account, h, false) == nil {
		text = "; the new password was taken out again at this server, because it would be lost on a restart"
	}
	var e *target.Error
	if !errors.As(err, &e) {
		return err
	}
	out := *e
	out.Class, out.Text = target.Unknown, out.Text+text
	return &out
}

// connect logs in as the administrator at every node. What it returns is to be closed, also after
// an error.
func (s *server) connect(ctx context.Context, secrets ...sensitive.Value) ([]*node, error) {
	var nodes []*node
	for _, addr := range s.Nodes {
		n, err := s.dialNode(ctx, addr, append(secrets, s.admin.Secret)...)
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

// hash is how the ACL holds a password.
func hash(secret sensitive.Value) string {
	sum := sha256.Sum256([]byte(secret.Reveal()))
	return hex.EncodeToString(sum[:])
}
