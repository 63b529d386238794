package messy

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	random "crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
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
	plain, p := startSSHHost(t, "messy_ssh")
	hosts := map[string]*sshHost{"with few limits": plain}
	for name, settings := range sshSettings {
		hosts[name] = plain.like(t, settings...)
	}
	p.build = func(t *testing.T, s *scene, r *rand.Rand) {
		name := s.one(r, "host", "with few limits", "with few limits", "with one try", "with few algorithms", "for sftp")
		hosts[name].build(t, p.product, s, r)
	}
	p.play(t)
}

// sshSettings are of hosts with limits; the administrator has none of the algorithms' limit.
var sshSettings = map[string][]string{
	"with one try": {"MaxAuthTries 1", "MaxSessions 1", "LoginGraceTime 20"},
	"with few algorithms": {
		"Match User ktest*", "PubkeyAcceptedAlgorithms rsa-sha2-512,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384",
	},
	"for sftp": {"Subsystem sftp internal-sftp", "Match User ktest*", "ForceCommand internal-sftp", "PermitTTY no"},
}

// startSSHHost starts a host and a product that changes its accounts.
func startSSHHost(t *testing.T, label string) (*sshHost, player) {
	t.Helper()
	host := (*sshHost)(nil).like(t)
	admin := compact(map[string]string{"AccountName": host.User, "PrivateKey": host.AdminKey})
	return host, player{product: start(t, "ssh", admin), label: label}
}

// like starts a host with further settings and the same administrator.
func (h *sshHost) like(t *testing.T, settings ...string) *sshHost {
	t.Helper()
	// The exchange of keys that ssh prefers costs it half a second of a processor.
	common := []string{
		"MaxStartups 200", "PermitUserEnvironment TEAM", "AllowTcpForwarding yes", "KexAlgorithms curve25519-sha256",
	}
	host := &sshHost{SSH: servers.StartSSH(t, append(common, settings...)...)}
	host.key = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(host.HostKey)))
	if h != nil {
		list, err := os.ReadFile(filepath.Join(h.Keys(), h.User))
		good(t, err)
		good(t, os.WriteFile(filepath.Join(host.Keys(), host.User), list, 0o600))
	}
	host.sftp = slices.Contains(settings, "PermitTTY no")
	host.few = !host.sftp && slices.Contains(settings, "Match User ktest*")
	return host
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
	s.app = applications.New(applications.Config{Kind: "ssh", Address: host.Addr(), HostKey: host.key})
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
	key  string // as in known_hosts
	few  bool   // it takes few algorithms
	sftp bool   // it runs no commands
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
	config := map[string]any{
		"address": h.Addr(), "host_keys": []string{h.key}, "sshd_config": filepath.Join(h.Dir, "sshd_config"),
	}
	if h.sftp {
		config["check"] = ""
	}
	s.app = applications.New(applications.Config{Kind: "ssh", Address: h.Addr(), HostKey: h.key})
	if s.trait(r, 4, "a password") {
		p.register(t, s.name, compact(config))
		h.password(t, p, s, r)
		return
	}
	a := h.NewAccount(t, s.one(r, "shell", "/bin/sh", "/bin/bash"), "*")
	types := []string{"ed25519", "ed25519", "rsa", "ecdsa"}
	if h.few {
		types = []string{"rsa", "ecdsa"}
	}
	private, public := newKey(t, s.one(r, "key", types...))
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public)))
	mine := strings.TrimSpace(s.one(r, "options", sshOptions...)+" "+line) + " app@build"
	files := h.files(t, s, r, a, mine)
	for _, f := range files {
		if strings.HasPrefix(f, h.Keys()) {
			config["authorized_keys"] = []string{h.Keys() + "/%u", ".ssh/authorized_keys"}
		}
	}
	p.register(t, s.name, compact(config))
	s.strategy = target.Overlap
	s.first = compact(sshKey{a.Name, private})
	s.attach = func() (string, error) {
		return p.configure(t, s.first, kms.ConfigureRotationRequest{
			TargetName:  s.name,
			Strategy:    string(target.Overlap),
			GracePeriod: "1h",
		})
	}
	s.also = func(_ context.Context, _ string, out outcome) error {
		for _, f := range files {
			text, err := shape(f)
			if err != nil {
				return err
			}
			out["the file "+filepath.Base(filepath.Dir(f))+"/"+filepath.Base(f)] = text
		}
		return nil
	}
}

// files writes the lists of keys of an account, and returns them.
func (h *sshHost) files(t *testing.T, s *scene, r *rand.Rand, a servers.Account, mine string) []string {
	t.Helper()
	dir := filepath.Join(a.Home, ".ssh")
	lines := []string{"# of the account"}
	_, other := servers.NewSSHKey(t)
	of := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(other)))
	if s.trait(r, 2, "comments and a key of others") {
		lines = append(lines, "# managed by hand", "", `command="false" `+of+" other team")
	}
	if s.trait(r, 5, "a certificate authority") {
		lines = append(lines, `cert-authority,principals="deploy,app" `+of+" authority")
	}
	if s.trait(r, 6, "a long file") {
		for n := range 3000 {
			lines = append(lines, fmt.Sprintf("# line %d %s", n, strings.Repeat("x", 100)))
		}
	}
	end := "\n"
	if s.trait(r, 5, "line ends of Windows") {
		end = "\r\n"
	}
	lines = append(lines, mine)
	if s.trait(r, 3, "a line after it") {
		lines = append(lines, "  "+of+"\tlast")
	}
	text := strings.Join(lines, end) + end
	if s.trait(r, 4, "no final line end") {
		text = strings.TrimSuffix(text, end)
	}
	place := s.one(r, "file", "authorized_keys", "authorized_keys", "authorized_keys2", "both", "of root")
	switch place {
	case "of root":
		h.write(t, a, "authorized_keys", "# nothing\n")
		file := filepath.Join(h.Keys(), a.Name)
		good(t, os.WriteFile(file, []byte(text), 0o644))
		return []string{file}
	case "both":
		h.write(t, a, "authorized_keys2", mine+"\n")
		h.write(t, a, "authorized_keys", text)
	default:
		h.write(t, a, place, text)
	}
	if s.trait(r, 6, ".ssh is a link") {
		good(t, os.Rename(dir, dir+"-real"))
		good(t, os.Symlink(dir+"-real", dir))
		t.Cleanup(func() { good(t, os.RemoveAll(dir+"-real")) })
	}
	files, err := filepath.Glob(filepath.Join(dir, "authorized_keys*"))
	good(t, err)
	h.harden(t, s, r, files[0])
	return files
}

// harden gives a list of keys an unusual form.
func (h *sshHost) harden(t *testing.T, s *scene, r *rand.Rand, file string) {
	t.Helper()
	switch s.one(r, "form", "usual", "usual", "usual", "a link", "read-only", "readable by all", "of root", "immutable") {
	case "a link":
		good(t, os.Rename(file, file+".real"))
		good(t, os.Symlink(file+".real", file))
	case "read-only":
		good(t, os.Chmod(file, 0o400))
	case "readable by all":
		good(t, os.Chmod(file, 0o644))
	case "of root":
		good(t, os.Chmod(file, 0o644))
		good(t, os.Chown(file, 0, 0))
	case "immutable":
		if exec.CommandContext(t.Context(), "chattr", "+i", file).Run() == nil {
			t.Cleanup(func() { good(t, exec.Command("chattr", "-i", file).Run()) })
		}
	}
}

// shape is how a list of keys looks but for the application's key.
func shape(file string) (string, error) {
	link, err := os.Lstat(file)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(file)
	if err != nil {
		return "", err
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	digest := sha256.New()
	for line := range strings.SplitSeq(string(content), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if line != "" && !strings.HasSuffix(line, " keyturn") && !strings.HasSuffix(line, " app@build") {
			digest.Write([]byte(line + "\n"))
		}
	}
	owner := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("link %v, mode %o, owner %d:%d, lines %x", link.Mode().Type() == os.ModeSymlink, info.Mode().Perm(),
		owner.Uid, owner.Gid, digest.Sum(nil)[:8]), nil
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
	var key crypto.Signer
	var err error
	switch kind {
	case "rsa":
		key, err = rsa.GenerateKey(random.Reader, 2048)
	case "ecdsa":
		key, err = ecdsa.GenerateKey(elliptic.P256(), random.Reader)
	default:
		return servers.NewSSHKey(t)
	}
	good(t, err)
	block, err := ssh.MarshalPrivateKey(key, "")
	good(t, err)
	public, err := ssh.NewPublicKey(key.Public())
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
