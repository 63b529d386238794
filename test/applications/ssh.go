package applications

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"golang.org/x/crypto/ssh"
)

// sshClients log in for a command, for a terminal, and for a connection that the host forwards.
var sshClients = []client{
	{name: "ssh", program: "ssh", debian: "openssh-client", anywhere: true, work: sshProgram},
}

// noSession is how ssh exits when it was not let in.
const noSession = 255

func sshProgram(ctx context.Context, c Config, v Value) (Outcome, error) {
	host, base, err := c.ssh(v)
	if err != nil {
		return nil, err
	}
	run := func(args ...string) (string, int, error) {
		p := base
		p.args = append(base.args[:len(base.args):len(base.args)], args...)
		answer, err := p.run(ctx)
		return strings.Join(strings.Fields(answer.out+" "+answer.errors), " "), answer.exit, err
	}
	text, exit, err := run(host, "id -un; printenv TEAM; echo done")
	if err != nil {
		return nil, err
	}
	if exit == noSession {
		return Outcome{Login: text}, nil
	}
	out := Outcome{Login: In, "command": text}
	if out["terminal"], _, err = run("-tt", host, "tty >/dev/null && echo terminal"); err != nil {
		return nil, err
	}
	text, exit, err = run("-W", c.Address, host)
	out["forwarding"] = fmt.Sprint(exit, strings.HasPrefix(text, "SSH-2.0"))
	return out, err
}

// ssh returns the host, and a call of ssh that lacks what follows the options.
func (c Config) ssh(v Value) (string, program, error) {
	host, port, err := net.SplitHostPort(c.Address)
	if err != nil {
		return "", program{}, err
	}
	p := program{
		name: "ssh",
		args: []string{
			"-F", "none", "-p", port, "-l", v.AccountName, "-o", "UserKnownHostsFile={dir}/known",
			"-o", "StrictHostKeyChecking=yes", "-o", "NumberOfPasswordPrompts=1", "-o", "ConnectTimeout=20",
			"-o", "LogLevel=ERROR",
		},
		env: []string{"SSH_ASKPASS={dir}/ask", "SSH_ASKPASS_REQUIRE=force"},
		files: map[string]string{
			"known":  fmt.Sprintf("[%s]:%s %s\n", host, port, c.HostKey),
			"secret": v.PrivateKey + v.AccountPassword,
			"ask":    "#!/bin/sh\ncat {dir}/secret\n",
		},
	}
	if c.Source != "" {
		p.args = append(p.args, "-b", c.Source)
	}
	if c.Certificate != "" {
		p.args = append(p.args, "-o", "CertificateFile="+c.Certificate)
	}
	if v.PrivateKey == "" {
		p.args = append(p.args, "-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=password")
		return host, p, nil
	}
	p.files["secret"] = v.PrivateKey
	p.args = append(p.args, "-i", "{dir}/secret", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		"-o", "PasswordAuthentication=no")
	return host, p, nil
}

// offer signs with the algorithms of an RSA key in the order in which ssh prefers them: an sshd can
// allow a user fewer of them than it names.
func offer(key ssh.Signer) (ssh.AuthMethod, error) {
	if signer, ok := key.(ssh.AlgorithmSigner); ok && key.PublicKey().Type() == ssh.KeyAlgoRSA {
		var err error
		key, err = ssh.NewSignerWithAlgorithms(signer, []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256})
		if err != nil {
			return nil, err
		}
	}
	return ssh.PublicKeys(key), nil
}

// openSSH returns the end of a session.
func openSSH(ctx context.Context, c Config, v Value) (func() error, error) {
	auth := ssh.Password(v.AccountPassword)
	if v.PrivateKey != "" {
		key, err := ssh.ParsePrivateKey([]byte(v.PrivateKey))
		if err != nil {
			return nil, errors.New("the value holds no key")
		}
		if auth, err = offer(key); err != nil {
			return nil, err
		}
	}
	host, _, _, _, err := ssh.ParseAuthorizedKey([]byte(c.HostKey))
	if err != nil {
		return nil, err
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	session, channels, requests, err := ssh.NewClientConn(conn, c.Address, &ssh.ClientConfig{
		User: v.AccountName, Auth: []ssh.AuthMethod{auth}, HostKeyCallback: ssh.FixedHostKey(host),
	})
	if err != nil {
		_ = conn.Close()
		if strings.Contains(err.Error(), "unable to authenticate") {
			return nil, ErrRejected
		}
		return nil, errors.New("the SSH host did not answer")
	}
	return ssh.NewClient(session, channels, requests).Close, nil
}
