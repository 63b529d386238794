package sandbox

import (
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// ErrNoOpenSSH means that sshd is not on this machine.
var ErrNoOpenSSH = errors.New("OpenSSH (sshd) is not installed")

// OpenSSHConfig says what sshd to start. Only Dir is required.
type OpenSSHConfig struct {
	// Dir is where the directory of all its files is made.
	Dir string
	// Settings are lines of sshd_config such as "PermitTTY yes". They go before those that a
	// throw-away server has, and sshd takes the first one of a name. From the first Match on they go
	// behind.
	Settings []string
	// Log gets what the server writes.
	Log io.Writer
}

// OpenSSH is a real sshd on loopback that lets the account of this process in, by key.
type OpenSSH struct {
	Dir string
	// Port is where it listens on 127.0.0.1.
	Port int
	// User is the account that it lets in.
	User string
	// HostKey is its public key.
	HostKey ssh.PublicKey
	// Version is the server's, such as "OpenSSH 9.2p1".
	Version string

	config  OpenSSHConfig
	program string
	server  *Daemon
	close   func() error
}

// StartOpenSSH starts sshd with an empty list of keys. The context bounds the start only. The error
// is ErrNoOpenSSH where sshd is not installed.
func StartOpenSSH(ctx context.Context, config OpenSSHConfig) (_ *OpenSSH, err error) {
	o := &OpenSSH{config: config}
	if o.program, err = findSSHD(); err != nil {
		return nil, err
	}
	me, err := user.Current()
	if err != nil {
		return nil, fmt.Errorf("start OpenSSH: %w", err)
	}
	o.User = me.Username
	o.close = sync.OnceValue(o.shutdown)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start OpenSSH: %w", err), o.Close())
		}
	}()
	if o.Dir, err = MakeDir(config.Dir, "openssh-"); err != nil {
		return nil, err
	}
	if err := o.writeFiles(); err != nil {
		return nil, err
	}
	if err := o.Start(ctx); err != nil {
		return nil, err
	}
	return o, nil
}

// findSSHD looks where distributions put sshd, because sbin is seldom in the PATH of a user. The
// path is absolute: sshd starts itself again for every connection and insists on it.
func findSSHD() (string, error) {
	if runtime.GOOS == "windows" {
		return "", ErrNoOpenSSH
	}
	candidates := []string{
		"/usr/sbin/sshd",
		"/usr/local/sbin/sshd",
		"/usr/lib/ssh/sshd",
		"/opt/homebrew/sbin/sshd",
		"/sbin/sshd",
	}
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

func (o *OpenSSH) file(name string) string { return filepath.Join(o.Dir, name) }

// writeFiles makes the host key and an empty list of keys. As root sshd also wants its directory
// for unprivileged children, which the service would make at boot.
func (o *OpenSSH) writeFiles() error {
	if strings.ContainsAny(o.Dir, "\"\\\n") {
		return errors.New(
			"the path of the directory must not hold quotes, backslashes or line ends: sshd cannot read it",
		)
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return fmt.Errorf("generate the host key: %w", err)
	}
	if o.HostKey, err = ssh.NewPublicKey(public); err != nil {
		return fmt.Errorf("generate the host key: %w", err)
	}
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

// Addr is host:port.
func (o *OpenSSH) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(o.Port)) }

// AuthorizedKeys is the file of the keys that are let in.
func (o *OpenSSH) AuthorizedKeys() string { return o.file("authorized_keys") }

// Start starts the server again after Stop or Kill, at the address it had and with the keys it had.
func (o *OpenSSH) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return startOnPort(ctx, &o.Port, func() error {
		if err := o.configure(ctx); err != nil {
			return err
		}
		cmd := exec.Command(o.program, "-D", "-e", "-f", o.file("sshd_config"))
		cmd.Dir = o.Dir
		var err error
		if o.server, err = StartDaemon(cmd, nil, syscall.SIGTERM, o.config.Log); err != nil {
			return err
		}
		if err = o.server.Ready(ctx, o.readVersion); err == nil || ctx.Err() != nil {
			return err
		}
		return errors.Join(err, o.Stop())
	})
}

// Stop asks the server to end, and kills it when it does not. Open sessions go on.
func (o *OpenSSH) Stop() error { return o.server.Stop(syscall.SIGTERM) }

// Kill is kill -9 of the server. Open sessions go on.
func (o *OpenSSH) Kill() error { return o.server.Kill() }

// configure writes sshd_config and has sshd check it. Since 9.8 sshd turns away an address after
// failed logins; demo and tests make such logins on purpose. Older releases refuse the setting as
// unknown, and then need none.
func (o *OpenSSH) configure(ctx context.Context) error {
	config := o.settings()
	for _, text := range []string{"PerSourcePenalties no\n" + config, config} {
		if err := os.WriteFile(o.file("sshd_config"), []byte(text), 0o600); err != nil {
			return err
		}
		out, err := exec.CommandContext(ctx, o.program, "-t", "-f", o.file("sshd_config")).CombinedOutput()
		if err == nil {
			return nil
		}
		if !strings.Contains(string(out), "PerSourcePenalties") {
			return fmt.Errorf("sshd refuses its configuration: %w: %s", err, strings.TrimSpace(string(out)))
		}
	}
	return errors.New("sshd refuses its configuration")
}

// settings let one account in by key and do nothing else. StrictModes is off because it refuses
// keys below a directory that others can write, such as /tmp; the directory of the keys itself is
// ours alone.
func (o *OpenSSH) settings() string {
	quoted := func(name string) string { return `"` + o.file(name) + `"` }
	lines := []string{
		"Port " + strconv.Itoa(o.Port),
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
		"AllowUsers " + o.User,
		"DisableForwarding yes",
		"PermitTTY no",
		"PermitUserRC no",
		"PrintMotd no",
		"PrintLastLog no",
		// Started by sshd, bash reads ~/.bashrc of a developer, unless it is a shell inside another.
		"SetEnv SHLVL=1",
		"MaxStartups 100",
		"LoginGraceTime 15",
		"LogLevel ERROR",
	}
	own := o.config.Settings
	blocks := slices.IndexFunc(own, func(s string) bool { return strings.HasPrefix(s, "Match ") })
	if blocks < 0 {
		blocks = len(own)
	}
	return strings.Join(slices.Concat(own[:blocks], lines, own[blocks:]), "\n") + "\n"
}

var errGreeted = errors.New("greeted")

// readVersion is done when a server with our host key has greeted ("SSH-2.0-OpenSSH_9.2p1
// Debian-2") and asks who is there. The key matters: another process may have taken the port.
func (o *OpenSSH) readVersion(ctx context.Context) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", o.Addr())
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	var greeting string
	_, _, _, err = ssh.NewClientConn(conn, o.Addr(), &ssh.ClientConfig{
		User:              o.User,
		HostKeyCallback:   ssh.FixedHostKey(o.HostKey),
		HostKeyAlgorithms: []string{o.HostKey.Type()},
		AuthCallback: func(c *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
			greeting = string(c.Metadata.ServerVersion())
			return nil, errGreeted
		},
	})
	if greeting == "" {
		return err
	}
	software, _, _ := strings.Cut(strings.TrimPrefix(greeting, "SSH-2.0-"), " ")
	o.Version = strings.Replace(software, "_", " ", 1)
	return nil
}

// Close stops the server and removes its files. A second call does nothing.
func (o *OpenSSH) Close() error { return o.close() }

func (o *OpenSSH) shutdown() error {
	var errs []error
	if o.server != nil {
		errs = append(errs, o.Stop())
	}
	if o.Dir != "" {
		errs = append(errs, os.RemoveAll(o.Dir))
	}
	return errors.Join(errs...)
}
