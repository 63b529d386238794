package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/sensitive"
)

// sshHost is an SSH server inside this process. It knows one account, one public key and one command.
type sshHost struct {
	sshAccount
	listener net.Listener
	config   *ssh.ServerConfig
	tasks    sync.WaitGroup
	close    func() error

	mu         sync.Mutex
	closed     bool
	authorized []byte // the public key in wire form
	conns      map[net.Conn]struct{}
}

// maxConns bounds the connections that are served at the same time; others wait in the listener's queue.
const maxConns = 64

var errNotAuthorized = errors.New("this key is not authorized")

// StartSSHHost starts an SSH server in this process on a free port of loopback.
func StartSSHHost(ctx context.Context) (Target, error) {
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
		listener:   listener,
		conns:      map[net.Conn]struct{}{},
	}
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
	h.authorized = signer.PublicKey().Marshal()
	return nil
}

func (h *sshHost) authorize(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if meta.User() != h.user || !bytes.Equal(key.Marshal(), h.authorized) {
		return nil, errNotAuthorized
	}
	return nil, nil
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
		runSession(channel, requests)
	}
}

// runSession runs the one command of a session. It knows "true", which is all that a login has to prove.
func runSession(channel ssh.Channel, requests <-chan *ssh.Request) {
	defer channel.Close()
	for request := range requests {
		var exec struct{ Command string }
		if request.Type != "exec" || ssh.Unmarshal(request.Payload, &exec) != nil {
			_ = request.Reply(false, nil)
			continue
		}
		status := struct{ Code uint32 }{}
		if exec.Command != "true" {
			status.Code = 127 // what a shell says of a command it does not know
		}
		_ = request.Reply(true, nil)
		_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(&status))
		return
	}
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
	h.tasks.Wait()
	return err
}
