package messy

import (
	"context"
	random "crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/applications"
	"github.com/keyturn/keyturn/test/servers"
)

func TestSSH(t *testing.T) {
	t.Parallel()
	applications.Require(t, "ssh")
	host, p := startSSHHost(t, "messy_ssh")
	p.build = func(t *testing.T, s *scene, r *rand.Rand) { host.build(t, p.product, s, r) }
	p.play(t)
}

// startSSHHost starts a host and a product that changes its accounts.
func startSSHHost(t *testing.T, label string) (*sshHost, player) {
	t.Helper()
	// The exchange of keys that ssh prefers costs it half a second of a processor.
	host := &sshHost{SSH: servers.StartSSH(t, "MaxStartups 200", "PermitUserEnvironment TEAM", "AllowTcpForwarding yes",
		"KexAlgorithms curve25519-sha256")}
	host.key = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(host.HostKey)))
	admin := compact(map[string]string{"AccountName": host.User, "PrivateKey": host.AdminKey})
	return host, player{product: start(t, "ssh", admin), label: label}
}

// TestSlowLogin verifies that reads are blocked no longer than they may be where a login takes
// longer: the hash that the host has stored proves the password.
func TestSlowLogin(t *testing.T) {
	t.Parallel()
	applications.Require(t, "ssh")
	host, p := startSSHHost(t, "messy_ssh_slow")
	s := &scene{name: "slow"}
	p.register(t, s.name, compact(map[string]any{
		"address": host.Addr(), "host_keys": []string{host.key}, "check": "sleep 6",
	}))
	host.password(t, p.product, s, rand.New(rand.NewPCG(1, 0)))
	f := &performance{player: p, scene: s, t: t, n: 1}
	f.before = f.worked("before", s.first)
	secret, err := s.attach()
	good(t, err)
	f.secret = secret
	if !f.act("rotation", f.begin) {
		t.Error("the rotation has changed nothing")
	}
}

// sshHost is the host that all scenes share.
type sshHost struct {
	*servers.SSH
	key string // as in known_hosts
}

// sshKey is a value that holds a key.
type sshKey struct{ AccountName, PrivateKey string }

// sshOptions are options of a line of authorized_keys.
var sshOptions = []string{
	``, `restrict`, `restrict,pty`, `no-port-forwarding,no-agent-forwarding`, `command="echo forced"`,
	`restrict,command="echo only \"this\" \\ and a comma, too"`, `from="127.0.0.0/8"`, `environment="TEAM=blue"`,
	`expiry-time="20990101"`, `permitopen="127.0.0.1:1"`, `from="127.0.0.1,::1",restrict,command="id -un"`,
}

func (h *sshHost) build(t *testing.T, p *product, s *scene, r *rand.Rand) {
	config := map[string]any{"address": h.Addr(), "host_keys": []string{h.key}}
	p.register(t, s.name, compact(config))
	if s.trait(r, 4, "a password") {
		h.password(t, p, s, r)
		return
	}
	a := h.NewAccount(t, s.one(r, "shell", "/bin/sh", "/bin/bash"), "*")
	private, public := newKey(t, s.one(r, "key", "ed25519", "ed25519", "ed25519", "rsa"))
	options := s.one(r, "options", sshOptions...)
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public)))
	mine := strings.TrimSpace(options+" "+line) + " app@build"
	_, other := servers.NewSSHKey(t)
	var lines []string
	if s.trait(r, 2, "comments and a key of others") {
		lines = append(lines, "# managed by hand", "", `command="false" `+
			strings.TrimSpace(string(ssh.MarshalAuthorizedKey(other)))+" other team")
	}
	file := "authorized_keys"
	switch s.one(r, "file", "authorized_keys", "authorized_keys", "authorized_keys2", "both") {
	case "authorized_keys2":
		h.Authorize(t, a, strings.Join(lines, "\n")+"\n")
		file, lines = "authorized_keys2", nil
	case "both":
		h.write(t, a, "authorized_keys2", mine+"\n")
	}
	h.write(t, a, file, strings.Join(append(lines, mine), "\n")+map[bool]string{true: "\n"}[r.IntN(3) > 0])
	s.strategy = target.Overlap
	s.first = compact(sshKey{a.Name, private})
	s.attach = func() (string, error) {
		return p.configure(t, s.first, kms.ConfigureRotationRequest{
			TargetName:  s.name,
			Strategy:    string(target.Overlap),
			GracePeriod: "1h",
		})
	}
	s.app = applications.New(applications.Config{Kind: "ssh", Address: h.Addr(), HostKey: h.key})
}

// password makes a scene of an account with a password.
func (h *sshHost) password(t *testing.T, p *product, s *scene, r *rand.Rand) {
	password := "first-password-of-" + s.name
	form := s.one(r, "hash", "yescrypt", "sha512crypt", "sha256crypt", "bcrypt")
	hash, err := exec.CommandContext(t.Context(), "perl", "-e", `print crypt($ARGV[0], $ARGV[1])`, password,
		map[string]string{
			"yescrypt":    "$y$j9T$saltsaltsaltsalt$",
			"sha512crypt": "$6$rounds=20000$saltsalt$",
			"sha256crypt": "$5$saltsalt$",
			"bcrypt":      "$2b$06$abcdefghijklmnopqrstuu",
		}[form]).Output()
	good(t, err)
	a := h.NewAccount(t, "/bin/sh", string(hash))
	s.strategy = target.Single
	s.first = compact(pair{a.Name, password})
	s.attach = func() (string, error) {
		return p.configure(t, s.first, kms.ConfigureRotationRequest{
			TargetName:  s.name,
			Strategy:    string(target.Single),
			GracePeriod: "0s",
		})
	}
	s.app = applications.New(applications.Config{Kind: "ssh", Address: h.Addr(), HostKey: h.key})
	s.also = func(_ context.Context, _ string, out outcome) (err error) {
		out["hash"], err = hashForm(a.Name)
		return err
	}
}

// hashForm is the scheme and cost of an account's stored hash.
func hashForm(name string) (string, error) {
	text, err := os.ReadFile("/etc/shadow")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(line, ":")
		if fields[0] == name {
			parts := strings.Split(fields[1], "$")
			if len(parts) > 3 && !strings.HasPrefix(parts[2], "rounds=") && parts[1] != "y" && parts[1] != "2b" {
				parts = parts[:3] // the salt follows the scheme
				parts[2] = ""
			}
			return strings.Join(parts[:min(len(parts), 3)], "$"), nil
		}
	}
	return "none", nil
}

// newKey makes a key pair of a type.
func newKey(t *testing.T, kind string) (string, ssh.PublicKey) {
	t.Helper()
	if kind != "rsa" {
		return servers.NewSSHKey(t)
	}
	key, err := rsa.GenerateKey(random.Reader, 2048)
	good(t, err)
	block, err := ssh.MarshalPrivateKey(key, "")
	good(t, err)
	public, err := ssh.NewPublicKey(&key.PublicKey)
	good(t, err)
	return string(pem.EncodeToMemory(block)), public
}

// write writes a further file of keys of an account.
func (h *sshHost) write(t *testing.T, a servers.Account, name, text string) {
	t.Helper()
	dir := filepath.Join(a.Home, ".ssh")
	good(t, os.MkdirAll(dir, 0o700))
	good(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	if out, err := exec.CommandContext(t.Context(), "chown", "-R", a.Name+":", dir).CombinedOutput(); err != nil {
		t.Fatalf("chown: %v: %s", err, out)
	}
}
