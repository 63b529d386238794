package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/sandbox"
	"github.com/keyturn/keyturn/sensitive"
)

// managedAccount is the account whose key the engine rotates.
const managedAccount = "deploy"

// ownShell is how an account that may only change its own files is given a shell, which reads what
// it is to do.
const ownShell = "sh -s"

// sshHost is an SSH server inside this process. It knows two accounts, each with a list of keys,
// and two commands: the account that the engine rotates may also run a shell, since that is how its
// keys are changed. The shell runs as this process does, so whoever has the key can do what the
// person can who started the demo.
type sshHost struct {
	sshAccount
	managed  *sshAccount
	dir      string // of the lists of keys
	listener net.Listener
	config   *ssh.ServerConfig
	running  context.Context // of the shells
	stop     context.CancelFunc
	tasks    sync.WaitGroup
	close    func() error

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{}
}

// maxConns bounds the connections that are served at the same time; others wait in the listener's
// queue.
const maxConns = 64

var errNotAuthorized = errors.New("this key is not authorized")

// StartSSHHost starts an SSH server in this process on a free port of loopback, with its files in a
// new directory inside dir.
func StartSSHHost(ctx context.Context, dir string) (_ Target, err error) {
	_, hostKey, err := newKey()
	if err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start an SSH host: %w", err)
	}
	h := &sshHost{
		sshAccount: sshAccount{user: accountName, address: listener.Addr().String(), hostKey: hostKey.PublicKey()},
		managed:    &sshAccount{user: managedAccount, address: listener.Addr().String(), hostKey: hostKey.PublicKey()},
		listener:   listener,
		conns:      map[net.Conn]struct{}{},
	}
	if h.dir, err = sandbox.MakeDir(dir, "ssh-"); err != nil {
		return nil, errors.Join(fmt.Errorf("start an SSH host: %w", err), listener.Close())
	}
	h.running, h.stop = context.WithCancel(context.WithoutCancel(ctx))
	h.close = sync.OnceValue(h.shutdown)
	h.config = &ssh.ServerConfig{PublicKeyCallback: h.authorize, ServerVersion: "SSH-2.0-Keyturn"}
	h.config.AddHostKey(hostKey)
	h.tasks.Go(h.serve)
	return h, nil
}

func (h *sshHost) Name() string {
	return fmt.Sprintf("SSH host in this process, account %s, %s", h.user, h.address)
}

func (h *sshHost) Registration() string { return "authorized_keys of " + h.user + " replaced" }

func (h *sshHost) Register(ctx context.Context, data sensitive.Value) error {
	signer, err := h.open(data)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return errors.New("register a key: the SSH host is stopped")
	}
	return replaceFile(h.keysOf(h.user), ssh.MarshalAuthorizedKey(signer.PublicKey()))
}

func (h *sshHost) keysOf(account string) string { return filepath.Join(h.dir, account) }

// Managed lets a second account in.
func (h *sshHost) Managed(context.Context) (Managed, error) {
	return h.managed.managed("SSH host in this process", h.keysOf(managedAccount))
}

func (h *sshHost) authorize(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	if meta.User() != h.user && meta.User() != managedAccount {
		return nil, errNotAuthorized
	}
	list, err := os.ReadFile(h.keysOf(meta.User()))
	if err != nil {
		return nil, errNotAuthorized
	}
	for line := range bytes.Lines(list) {
		listed, _, _, _, err := ssh.ParseAuthorizedKey(line)
		if err == nil && bytes.Equal(key.Marshal(), listed.Marshal()) {
			return nil, nil
		}
	}
	return nil, errNotAuthorized
}

func (h *sshHost) serve() {
	slots := make(chan struct{}, maxConns)
	for {
		slots <- struct{}{} // bounded: every connection has a deadline, and Close ends them all
		conn, err := h.listener.Accept()
		if err != nil {
			return
		}
		if !h.track(conn) {
			_ = conn.Close()
			return
		}
		h.tasks.Go(func() {
			defer func() { <-slots }()
			defer h.forget(conn)
			h.handle(conn)
		})
	}
}

// track notes a connection for Close, unless the host is closed already.
func (h *sshHost) track(conn net.Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.conns[conn] = struct{}{}
	}
	return !h.closed
}

func (h *sshHost) forget(conn net.Conn) {
	_ = conn.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, conn)
}

// handle serves one connection. A failed handshake is the client's to report.
func (h *sshHost) handle(conn net.Conn) {
	if err := conn.SetDeadline(deadline()); err != nil {
		return
	}
	transport, channels, requests, err := ssh.NewServerConn(conn, h.config)
	if err != nil {
		return
	}
	defer transport.Close()
	h.tasks.Go(func() { ssh.DiscardRequests(requests) })
	for offered := range channels {
		if offered.ChannelType() != "session" {
			_ = offered.Reject(ssh.UnknownChannelType, "sessions only")
			continue
		}
		channel, requests, err := offered.Accept()
		if err != nil {
			return
		}
		h.runSession(transport.User(), channel, requests)
	}
}

// runSession runs the one command of a session: "true", which is all that a login has to prove, or
// the shell.
func (h *sshHost) runSession(account string, channel ssh.Channel, requests <-chan *ssh.Request) {
	defer channel.Close()
	for request := range requests {
		var asked struct{ Command string }
		if request.Type != "exec" || ssh.Unmarshal(request.Payload, &asked) != nil {
			_ = request.Reply(false, nil)
			continue
		}
		_ = request.Reply(true, nil)
		status := struct{ Code uint32 }{}
		switch {
		case asked.Command == "true":
		case asked.Command == ownShell && account == managedAccount:
			status.Code = h.runShell(channel)
		default:
			status.Code = 127 // what a shell says of a command it does not know
		}
		_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(&status))
		return
	}
}

// runShell gives a session a shell of this machine, and returns how that ended.
func (h *sshHost) runShell(channel ssh.Channel) uint32 {
	ctx, cancel := context.WithTimeout(h.running, loginTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-s")
	cmd.Dir, cmd.Env, cmd.WaitDelay = h.dir, sandbox.Environment("KEYTURN"), time.Second
	cmd.Stdin, cmd.Stdout, cmd.Stderr = channel, channel, channel.Stderr()
	if err := cmd.Run(); err != nil {
		return 1
	}
	return 0
}

func (h *sshHost) Close() error { return h.close() }

func (h *sshHost) shutdown() error {
	h.mu.Lock()
	h.closed = true
	err := h.listener.Close()
	for conn := range h.conns {
		_ = conn.Close()
	}
	h.mu.Unlock()
	h.stop()
	h.tasks.Wait()
	return errors.Join(err, os.RemoveAll(h.dir))
}
