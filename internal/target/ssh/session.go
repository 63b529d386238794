package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/sshkey"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// session is an authenticated connection to a host.
type session struct {
	addr    string
	client  *ssh.Client
	secrets []sensitive.Value
	lost    bool                     // the connection has broken, or its time has ended
	idle    *atomic.Pointer[session] // where it waits for the next call; nil: it ends with its own
}

// dialAs connects and authenticates, by one method and with one attempt.
func (h *host) dialAs(
	ctx context.Context, addr string, c target.Credential, secrets ...sensitive.Value,
) (*session, error) {
	a := &attempt{host: h, c: c}
	if isKey(c) {
		key, err := privateKey(c.Secret)
		if err != nil {
			return nil, target.Denied.Errorf("%v", err)
		}
		a.key = key
	}
	dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := h.dial(dialCtx, "tcp", addr)
	if err != nil {
		return nil, target.NotSent("connect to "+addr, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	sc, channels, requests, err := ssh.NewClientConn(conn, addr, &ssh.ClientConfig{
		User:              c.Account,
		HostKeyCallback:   a.hostKey,
		HostKeyAlgorithms: h.algorithms(),
		AuthCallback:      a.next,
	})
	stop()
	if err != nil {
		_ = conn.Close()
		return nil, a.failed(addr, timedOut(ctx, err), secrets)
	}
	return &session{
		addr:    addr,
		client:  ssh.NewClient(sc, channels, requests),
		secrets: secrets,
	}, nil
}

func (s *session) close() {
	if s.idle == nil || s.lost || !s.idle.CompareAndSwap(nil, s) {
		_ = s.client.Close() // nothing is under way
	}
}

// hide keeps a text out of errors.
func (s *session) hide(text string) { s.secrets = append(s.secrets, sensitive.New(text)) }

// algorithms returns the algorithms of the pinned keys, so that a host with several keys shows one
// that can be compared.
func (h *host) algorithms() []string {
	var out []string
	for _, k := range h.hostKeys {
		names := []string{k.Type()}
		if k.Type() == ssh.KeyAlgoRSA {
			names = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
		}
		for _, name := range names {
			if !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}

// attempt is one login. It offers one method once, so that a wrong credential costs one failed
// login.
type attempt struct {
	host *host
	c    target.Credential
	key  ssh.Signer

	otherKey string // the key that the host showed instead
	offered  bool   // the credential was offered
	accepted bool   // the host took it, and wants more
	obstacle string // why the login did not succeed, other than by the credential
}

func (a *attempt) hostKey(_ string, _ net.Addr, key ssh.PublicKey) error {
	for _, pinned := range a.host.hostKeys {
		if bytes.Equal(pinned.Marshal(), key.Marshal()) {
			return nil
		}
	}
	a.otherKey = ssh.FingerprintSHA256(key)
	return errors.New("the host key is none of host_keys")
}

// next returns the method to try. Without one the driver ends the login with an error that
// distinguishes an answer from a broken connection.
func (a *attempt) next(c *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
	if a.offered {
		if len(c.PartialSuccessMethods) > 0 {
			a.accepted = true
			a.obstacle = "the host wants more than one proof (" + fault.Foreign(strings.Join(c.AllowedMethods, ", ")) + ")"
		}
		return nil, nil
	}
	offers := func(method string) bool { return slices.Contains(c.AllowedMethods, method) }
	a.offered = true
	switch {
	case a.key != nil && offers("publickey"):
		return ssh.PublicKeys(sshkey.Strongest(a.key)), nil
	case a.key == nil && offers("password"):
		return ssh.Password(a.c.Secret.Reveal()), nil
	case a.key == nil && offers("keyboard-interactive"):
		return ssh.KeyboardInteractive(a.answer), nil
	}
	a.offered = false
	if len(c.AllowedMethods) == 0 {
		return nil, nil // the connection broke before the host said what it takes
	}
	kind := "passwords"
	if a.key != nil {
		kind = "keys"
	}
	a.obstacle = "the host takes no " + kind + " (but " + fault.Foreign(strings.Join(c.AllowedMethods, ", ")) + ")"
	return nil, nil
}

// answer gives the password once. A host that asks more, such as for a new one, is not answered.
func (a *attempt) answer(_, _ string, questions []string, echos []bool) ([]string, error) {
	if len(questions) == 0 {
		return nil, nil
	}
	if len(questions) > 1 || echos[0] || a.c.Secret.IsZero() {
		a.obstacle = "the host asks more than for a password"
		return nil, errors.New(a.obstacle)
	}
	password := a.c.Secret.Reveal()
	a.c.Secret = sensitive.Value{}
	return []string{password}, nil
}

func (a *attempt) failed(addr string, err error, secrets []sensitive.Value) error {
	text := fmt.Sprintf("%s: log in as %q", addr, a.c.Account)
	switch {
	case a.otherKey != "":
		e := target.Denied.Errorf("%s: the key of the host is none of host_keys; Keyturn's log has it", text)
		e.Detail = "the host shows the key " + a.otherKey
		return e
	case errors.As(err, new(*ssh.AlgorithmNegotiationError)):
		e := target.Denied.Errorf("%s: no algorithm in common (does the host have one of host_keys?)", text)
		e.Detail = target.Said(err.Error())
		return e
	case a.accepted:
		return target.Failed(target.Admitted, "", text+": "+a.obstacle, secrets...)
	case a.obstacle != "":
		return target.Failed(target.Denied, "", text+": "+a.obstacle, secrets...)
	case a.offered && isRejection(err):
		return target.Failed(target.Rejected, "", text+": "+fault.Foreign(err.Error()), secrets...)
	case !a.offered:
		return target.NotSent(text, err, secrets...)
	}
	return target.NoAnswer(text, err, secrets...)
}

// isRejection reports whether the host has rejected what was offered. With MaxAuthTries 1 it
// disconnects instead of an answer.
func isRejection(err error) bool {
	return strings.Contains(err.Error(), "unable to authenticate") ||
		strings.Contains(err.Error(), "Too many authentication failures")
}

// check runs a command that has to succeed.
func (s *session) check(ctx context.Context, command string) error {
	text := fmt.Sprintf("%s: the login works, and %q", s.addr, command)
	out, err := s.exec(ctx, command, "")
	var exited *ssh.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exited) && exited.ExitStatus() == noSession:
		return target.Failed(
			target.Admitted, "", text+" gets no session (a limit of logins?)"+out.said(), s.secrets...,
		)
	case errors.As(err, new(*ssh.ExitError)):
		return target.Failed(
			target.Denied,
			"",
			fmt.Sprintf(
				"%s fails: %v%s (set check to \"\" for an account that may run no commands)", text, err, out.said(),
			),
			s.secrets...)
	case errors.Is(err, errNotRun):
		return target.Failed(
			target.Admitted, "",
			text+" is refused by the host (set check to \"\" for an account that may run no commands)",
			s.secrets...,
		)
	}
	return target.NoAnswer(text+" gets no answer", err, s.secrets...)
}

// run feeds a script to a shell and returns what it printed. The script says itself how it went,
// since the status of a command is that of whatever the host ran instead.
func (s *session) run(ctx context.Context, attempt string, who as, script string) (string, error) {
	attempt = s.addr + ": " + attempt
	out, err := s.exec(ctx, shell, who.become(script))
	_, printed, ran := strings.Cut(out.stdout.String(), started+"\n")
	if text, ok := strings.CutSuffix(printed, "\n"+done+"\n"); ran && ok {
		return text, nil
	}
	if _, reason, ok := strings.Cut(printed, "\n"+failed); ran && ok {
		return "", target.Failed(
			target.Denied, "", attempt+": "+fault.Foreign(strings.TrimSpace(reason))+out.stderr.said(), s.secrets...,
		)
	}
	exited := err == nil || errors.As(err, new(*ssh.ExitError))
	switch {
	case errors.Is(err, errNotRun):
		return "", target.Failed(
			target.Denied, "", attempt+": the host runs no commands for this account (SFTP only?)", s.secrets...,
		)
	case !ran && exited:
		return "", target.Failed(
			target.Denied,
			"",
			attempt+": the host has not run the commands (a restricted shell, SFTP only, a forced command, or "+
				"sudo that asks?)"+out.said(),
			s.secrets...)
	case err == nil:
		err = errors.New("the host broke off")
	}
	return "", target.NoAnswer(attempt, err, s.secrets...)
}

// noSession is the status with which sshd ends a session that PAM does not open, for example
// because the account has reached its limit of logins (pam_limits).
const noSession = 254

// errNotRun is in the chain of an error that says that the host refused to run a command at all.
var errNotRun = errors.New("not run")

// output is what a command printed.
type output struct{ stdout, stderr limited }

func (o *output) said() string {
	if s := o.stderr.said(); s != "" {
		return s
	}
	return o.stdout.said()
}

func (s *session) exec(ctx context.Context, command, input string) (*output, error) {
	out := &output{}
	defer s.bound(ctx)()
	sess, err := s.newSession(ctx)
	if err != nil {
		if errors.As(err, new(*ssh.OpenChannelError)) {
			err = fmt.Errorf("%w: %w", errNotRun, err)
		}
		return out, timedOut(ctx, err)
	}
	defer sess.Close()
	sess.Stdin, sess.Stdout, sess.Stderr = strings.NewReader(input), &out.stdout, &out.stderr
	if err := sess.Start(command); err != nil {
		if strings.HasPrefix(err.Error(), "ssh: command ") {
			err = errNotRun // the driver's error quotes the command
		}
		return out, timedOut(ctx, err)
	}
	err = sess.Wait()
	s.lost = err != nil && !errors.As(err, new(*ssh.ExitError))
	return out, timedOut(ctx, err)
}

const (
	sessionTries = 6
	sessionPause = 20 * time.Millisecond // after the first try, and twice as long after each
)

// newSession opens a session. A host that permits one at a time (MaxSessions) may need a moment to
// end the one before.
func (s *session) newSession(ctx context.Context) (*ssh.Session, error) {
	pause := sessionPause
	for try := 1; ; try++ {
		sess, err := s.client.NewSession()
		if err == nil || try == sessionTries || !errors.As(err, new(*ssh.OpenChannelError)) {
			return sess, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pause + rand.N(pause)):
		}
		pause *= 2
	}
}

func timedOut(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// limited keeps the beginning of what a host prints.
type limited struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

const outputLimit = 4 << 20

func (l *limited) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Write(p[:min(len(p), outputLimit-l.buf.Len())])
	return len(p), nil
}

func (l *limited) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// said is the first of what was printed, for the text of an error.
func (l *limited) said() string {
	s := strings.Join(strings.Fields(l.String()), " ")
	if s == "" {
		return ""
	}
	return ": " + fault.Foreign(s[:min(len(s), 300)])
}
