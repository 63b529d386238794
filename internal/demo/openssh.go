package demo

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/sensitive"
)

// ErrNoOpenSSH means that sshd is not on this machine.
var ErrNoOpenSSH = errors.New("OpenSSH (sshd) is not installed")

// openSSH is a real sshd that lets the account of this process in.
type openSSH struct {
	sshAccount
	dir     string
	version string
	server  *daemon
	close   func() error
}

// StartOpenSSH starts sshd on loopback with all its files in a new directory inside dir. The context
// bounds the start only.
func StartOpenSSH(ctx context.Context, dir string) (_ Target, err error) {
	program, err := findSSHD()
	if err != nil {
		return nil, err
	}
	me, err := user.Current()
	if err != nil {
		return nil, fmt.Errorf("start OpenSSH: %w", err)
	}
	o := &openSSH{sshAccount: sshAccount{user: me.Username}}
	o.close = sync.OnceValue(o.shutdown)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start OpenSSH: %w", err), o.Close())
		}
	}()
	if o.dir, err = makeDir(dir, "openssh-"); err != nil {
		return nil, err
	}
	if err := o.writeFiles(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := o.start(ctx, program); err != nil {
		return nil, err
	}
	if err := o.prove(ctx); err != nil {
		return nil, err
	}
	return o, nil
}

// findSSHD looks where distributions put sshd, because sbin is seldom in the PATH of a user. The path is
// absolute: sshd starts itself again for every connection and insists on it.
func findSSHD() (string, error) {
	if runtime.GOOS == "windows" {
		return "", ErrNoOpenSSH
	}
	candidates := []string{"/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/lib/ssh/sshd", "/opt/homebrew/sbin/sshd", "/sbin/sshd"}
	if path, err := exec.LookPath("sshd"); err == nil {
		if path, err = filepath.Abs(path); err == nil {
			candidates = append([]string{path}, candidates...)
		}
	}
	for _, path := range candidates {
		if executable(path) {
			return path, nil
		}
	}
	return "", ErrNoOpenSSH
}

func (o *openSSH) file(name string) string { return filepath.Join(o.dir, name) }

// writeFiles makes the host key and an empty list of keys. As root sshd also wants its directory for
// unprivileged children, which the service would make at boot.
func (o *openSSH) writeFiles() error {
	if strings.ContainsAny(o.dir, "\"\\\n") {
		return errors.New("the path of the directory must not hold quotes, backslashes or line ends: sshd cannot read it")
	}
	private, signer, err := newKey()
	if err != nil {
		return err
	}
	o.hostKey = signer.PublicKey()
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return errors.New("write the host key")
	}
	if err := os.WriteFile(o.file("host_key"), pem.EncodeToMemory(block), 0o600); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			return err
		}
	}
	return os.WriteFile(o.file("authorized_keys"), nil, 0o600)
}

func (o *openSSH) start(ctx context.Context, program string) error {
	var err error
	for range startAttempts {
		port, err1 := freePort()
		if err1 != nil {
			return err1
		}
		o.address = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if err := o.configure(ctx, program, port); err != nil {
			return err
		}
		cmd := exec.Command(program, "-D", "-e", "-f", o.file("sshd_config"))
		cmd.Dir = o.dir
		if o.server, err = startDaemon(cmd, nil, syscall.SIGTERM); err != nil {
			return err
		}
		if err = o.server.ready(ctx, o.readVersion); err == nil || ctx.Err() != nil {
			return err
		}
		if err := o.server.stop(syscall.SIGTERM); err != nil {
			return err
		}
	}
	return err
}

// configure writes sshd_config and has sshd check it. Since 9.8 sshd turns away an address after failed
// logins; the demo makes such logins on purpose. Older releases refuse the setting as unknown, and then
// need none.
func (o *openSSH) configure(ctx context.Context, program string, port int) error {
	config := o.settings(port)
	for _, text := range []string{config + "PerSourcePenalties no\n", config} {
		if err := os.WriteFile(o.file("sshd_config"), []byte(text), 0o600); err != nil {
			return err
		}
		out, err := exec.CommandContext(ctx, program, "-t", "-f", o.file("sshd_config")).CombinedOutput()
		if err == nil {
			return nil
		}
		if !strings.Contains(string(out), "PerSourcePenalties") {
			return fmt.Errorf("sshd refuses its configuration: %w: %s", err, strings.TrimSpace(string(out)))
		}
	}
	return errors.New("sshd refuses its configuration")
}

// settings let one account in by key and do nothing else. StrictModes is off because it refuses keys below
// a directory that others can write, such as /tmp; the directory of the keys itself is ours alone.
func (o *openSSH) settings(port int) string {
	quoted := func(name string) string { return `"` + o.file(name) + `"` }
	lines := []string{
		"Port " + strconv.Itoa(port),
		"ListenAddress 127.0.0.1",
		"HostKey " + quoted("host_key"),
		"AuthorizedKeysFile " + strings.ReplaceAll(quoted("authorized_keys"), "%", "%%"),
		"PidFile none",
		"StrictModes no",
		"UsePAM no",
		"UseDNS no",
		"PubkeyAuthentication yes",
		"PasswordAuthentication no",
		"KbdInteractiveAuthentication no",
		"PermitRootLogin prohibit-password",
		"AllowUsers " + o.user,
		"DisableForwarding yes",
		"PermitTTY no",
		"PermitUserRC no",
		"PrintMotd no",
		"PrintLastLog no",
		"MaxStartups 100",
		"LoginGraceTime 15",
		"LogLevel ERROR",
	}
	return strings.Join(lines, "\n") + "\n"
}

var errGreeted = errors.New("greeted")

// readVersion is done when a server with our host key has greeted ("SSH-2.0-OpenSSH_9.2p1 Debian-2") and
// asks who is there. The key matters: another process may have taken the port.
func (o *openSSH) readVersion(ctx context.Context) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", o.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	var greeting string
	_, _, _, err = ssh.NewClientConn(conn, o.address, &ssh.ClientConfig{
		User:              o.user,
		HostKeyCallback:   ssh.FixedHostKey(o.hostKey),
		HostKeyAlgorithms: []string{o.hostKey.Type()},
		AuthCallback: func(c *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
			greeting = string(c.Metadata.ServerVersion())
			return nil, errGreeted
		},
	})
	if greeting == "" {
		return err
	}
	software, _, _ := strings.Cut(strings.TrimPrefix(greeting, "SSH-2.0-"), " ")
	o.version = strings.Replace(software, "_", " ", 1)
	return nil
}

// prove logs in once with a key for the occasion. sshd answers a locked account or one without a proper
// shell like a wrong key, and a demo must not learn that from its first rotation.
func (o *openSSH) prove(ctx context.Context) error {
	_, signer, err := newKey()
	if err != nil {
		return err
	}
	path := o.file("authorized_keys")
	if err := replaceFile(path, ssh.MarshalAuthorizedKey(signer.PublicKey())); err != nil {
		return err
	}
	if err := o.run(ctx, signer, "true"); err != nil {
		return fmt.Errorf("sshd does not let account %s in; see whether it is locked or has no shell: %w", o.user, err)
	}
	return replaceFile(path, nil)
}

func (o *openSSH) Name() string {
	return fmt.Sprintf("%s, account %s, %s", o.version, o.user, o.address)
}

func (o *openSSH) Registration() string { return "authorized_keys of " + o.user + " replaced" }

// Register replaces the file by a rename, so that sshd reads the old key or the new one, never half.
func (o *openSSH) Register(ctx context.Context, data sensitive.Value) error {
	signer, err := o.open(data)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := replaceFile(o.file("authorized_keys"), ssh.MarshalAuthorizedKey(signer.PublicKey())); err != nil {
		return fmt.Errorf("register a key: %w", err)
	}
	return nil
}

func replaceFile(path string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the first error counts
	}
	return err
}

func (o *openSSH) Close() error { return o.close() }

func (o *openSSH) shutdown() error {
	var errs []error
	if o.server != nil {
		errs = append(errs, o.server.stop(syscall.SIGTERM))
	}
	if o.dir != "" {
		errs = append(errs, os.RemoveAll(o.dir))
	}
	return errors.Join(errs...)
}
