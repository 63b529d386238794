package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// node is a connection to one server.
type node struct {
	addr    string
	client  *redis.Client
	conn    *redis.Conn
	stop    func() bool
	secrets []sensitive.Value
	// proven says that TLS has proved the server's identity.
	proven bool
	// greeting is the error with which a server refused to serve, such as too many clients.
	greeting error
}

// dialNode connects to a server and asks nothing of it. It makes the connection and hands it to the
// driver, so that a failure before a request can be distinguished from a failure after it, and so
// that the driver does not dial again.
func (s *server) dialNode(
	ctx context.Context, addr string, certificate []tls.Certificate, secrets ...sensitive.Value,
) (*node, error) {
	c, err := s.TLS.Connect(ctx, s.dial, addr, certificate...)
	if err != nil {
		return nil, target.NotSent("connect to "+addr, err)
	}
	c = &replies{Conn: c}
	n := &node{addr: addr, secrets: secrets, proven: !s.TLS.Off}
	made := false
	n.client = redis.NewClient(&redis.Options{
		Addr:                     addr,
		Protocol:                 2,
		PoolSize:                 1,
		MaxRetries:               -1,
		DialerRetries:            1,
		DialTimeout:              target.DialTimeout,
		ReadTimeout:              -1,
		WriteTimeout:             -1,
		ContextTimeoutEnabled:    true,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		Dialer: func(context.Context, string, string) (net.Conn, error) {
			if made {
				return nil, errors.New("the connection broke")
			}
			made = true
			return c, nil
		},
	})
	n.client.AddHook(greetingHook{n})
	n.conn = n.client.Conn()
	n.stop = context.AfterFunc(ctx, func() { _ = c.Close() })
	return n, nil
}

func (n *node) close() {
	n.stop()
	_ = n.conn.Close()   // a connection that broke has nothing to flush
	_ = n.client.Close() // its only connection is the one above
}

// login authenticates.
func (n *node) login(ctx context.Context, c target.Credential) error {
	err := n.authenticate(ctx, c)
	if err == nil || n.proven {
		return err
	}
	return target.Unproven(fmt.Sprintf("%s: log in as %s", n.addr, fault.Quoted(c.Account)), err)
}

func (n *node) authenticate(ctx context.Context, c target.Credential) error {
	_, err := n.do(ctx, fmt.Sprintf("log in as %s", fault.Quoted(c.Account)), "AUTH", c.Account, c.Secret.Reveal())
	var e *target.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e) && e.Class == target.Denied && e.Code == "WRONGPASS":
		e.Class = target.Rejected
	case errors.As(err, &e) && e.Class == target.Denied:
		e.Class = target.Unclear // an answer that no Redis gives, such as a proxy's
	case errors.As(err, &e) && e.Class == target.Unknown && n.greeting != nil:
		// The server has refused to serve, and then closed the connection.
		text := n.addr + ": " + fault.Foreign(n.greeting.Error())
		return target.Failed(target.Unreachable, code(n.greeting), text, n.secrets...)
	}
	return err
}

// user is a user of a server's ACL.
type user struct {
	exists, on, nopass bool
	passwords          []string
	// commands has the rules for commands, of the user and of each of its selectors.
	commands []string
	// rights has everything but the passwords: flags, commands, keys, channels and selectors.
	rights string
}

// accepts reports whether a login with the password of a hash succeeds.
func (u user) accepts(h string) bool {
	return u.exists && u.on && (u.nopass || slices.Contains(u.passwords, h))
}

// unfit says why a password of the account cannot be added, or removed; empty when it can.
func (u user) unfit(adding bool) string {
	switch {
	case adding && !u.exists:
		return "does not exist; make it first (ACL SETUSER), on every node"
	case adding && !u.on:
		return "is switched off; switch it on first (ACL SETUSER name on)"
	case u.exists && u.nopass:
		return "logs in with any password (nopass); give it a password first"
	}
	return ""
}

// inOrder returns rules as text that is equal for equal rules: a server returns them in an order
// that depends on its own hash seed.
func inOrder(rules any) string {
	var parts []string
	if list, ok := rules.([]any); ok {
		for _, r := range list {
			parts = append(parts, "("+inOrder(r)+")")
		}
	} else {
		parts = strings.Fields(fmt.Sprint(rules))
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}

// user reads an account.
func (n *node) user(ctx context.Context, account string) (user, error) {
	reply, err := n.do(ctx, fmt.Sprintf("read user %s", fault.Quoted(account)), "ACL", "GETUSER", account)
	if err != nil || reply == nil {
		return user{}, err
	}
	u := user{exists: true}
	u.commands, _ = rulesOf(reply)
	fields, _ := reply.([]any)
	for i := 0; i+1 < len(fields); i += 2 {
		if fields[i] != "passwords" {
			u.rights += fmt.Sprint(fields[i], "=", inOrder(fields[i+1]), "\n")
		}
		values, _ := fields[i+1].([]any)
		for _, v := range values {
			switch s := fmt.Sprint(v); fields[i] {
			case "flags":
				u.on = u.on || s == "on"
				u.nopass = u.nopass || s == "nopass"
			case "passwords":
				u.passwords = append(u.passwords, s)
			}
		}
	}
	return u, nil
}

// modify adds or removes the hash of a password. It succeeds when another client has removed the
// hash meanwhile.
func (n *node) modify(ctx context.Context, account, h string, add bool) error {
	attempt, modifier := "add a password of user %s", "#"+h
	if !add {
		attempt, modifier = "remove a password of user %s", "!"+h
	}
	n.secrets = append(n.secrets, sensitive.New(h)) // the server quotes it
	_, err := n.do(ctx, fmt.Sprintf(attempt, fault.Quoted(account)), "ACL", "SETUSER", account, modifier)
	var e *target.Error
	if !add && errors.As(err, &e) && e.Class == target.Denied && strings.Contains(e.Text, "does not exist") {
		return nil
	}
	return err
}

// persist makes the server save its users.
func (n *node) persist(ctx context.Context, how string) error {
	if how == persistNone {
		return nil
	}
	if how != persistConfigRewrite {
		_, err := n.do(ctx, "save the users (ACL SAVE)", "ACL", "SAVE")
		var e *target.Error
		noFile := errors.As(err, &e) && e.Class == target.Denied &&
			strings.Contains(e.Text, "not configured to use an ACL file")
		if how == persistACLSave || !noFile {
			return err
		}
	}
	_, err := n.do(ctx, "save the users (CONFIG REWRITE)", "CONFIG", "REWRITE")
	var e *target.Error
	if errors.As(err, &e) && e.Class == target.Denied && e.Code != "NOPERM" {
		e.Text += ` (start the server with an ACL file or a configuration file that it may write, or set persist ` +
			`to "none" if something else keeps its users)`
	}
	return err
}

// do sends one command. A server that answers with an error has not carried out the command: the
// class is Denied, or Unreachable when the server does not serve now. Anything else is no answer.
func (n *node) do(ctx context.Context, attempt string, args ...any) (any, error) {
	reply, err := n.conn.Do(ctx, args...).Result()
	attempt = n.addr + ": " + attempt
	var answered redis.Error
	switch {
	case err == nil:
		return reply, nil
	case errors.Is(err, redis.Nil):
		return nil, nil
	case ctx.Err() != nil:
		return nil, target.NoAnswer(attempt, context.Cause(ctx), n.secrets...)
	case !errors.As(err, &answered):
		return nil, target.NoAnswer(attempt, err, n.secrets...)
	}
	class := target.Denied
	if slices.Contains([]string{"LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"}, code(err)) || busy(err) {
		class = target.Unreachable
	}
	return nil, target.Failed(class, code(err), attempt+": "+fault.Foreign(err.Error()), n.secrets...)
}

// code returns the first word of an error, which is its name in Redis.
func code(err error) string {
	first, _, _ := strings.Cut(err.Error(), " ")
	if first == "" || strings.Trim(first, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return ""
	}
	return first
}

func busy(err error) bool { return strings.Contains(err.Error(), "max number of clients") }

// greetingHook stores the server's answer to the driver's first command, which the driver ignores.
type greetingHook struct{ n *node }

func (h greetingHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h greetingHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (h greetingHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		var answered redis.Error
		if cmd.Name() == "hello" && errors.As(err, &answered) && code(err) != "NOAUTH" {
			h.n.greeting = err
		}
		return err
	}
}
