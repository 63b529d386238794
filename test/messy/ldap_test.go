package messy

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/shacrypt"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
)

func TestLDAP(t *testing.T) {
	t.Parallel()
	client, err := exec.LookPath("ldapsearch")
	if err != nil {
		t.Skip("ldapsearch is not installed (Debian package ldap-utils, scripts/test-deps)")
	}
	dir := &directory{LDAP: servers.StartLDAP(t), client: client}
	p := player{product: start(t, "ldap", compact(pair{dir.AdminDN, dir.Password})), label: "messy_ldap"}
	p.open = []string{"stored as clear text"}
	p.build = func(t *testing.T, s *scene, r *rand.Rand) { dir.build(t, p.product, s, r) }
	p.play(t)
}

// directory is the server that all scenes share.
type directory struct {
	*servers.LDAP
	client string
}

// ldapHashes make values of userPassword.
var ldapHashes = map[string]func(password string) string{
	"clear text": func(password string) string { return password },
	"SSHA": func(password string) string {
		sum := sha1.Sum([]byte(password + "salt"))
		return "{SSHA}" + base64.StdEncoding.EncodeToString(append(sum[:], "salt"...))
	},
	"SHA": func(password string) string {
		sum := sha1.Sum([]byte(password))
		return "{SHA}" + base64.StdEncoding.EncodeToString(sum[:])
	},
	"CRYPT": func(password string) string {
		return "{CRYPT}" + shacrypt.Hash(sensitive.New(password), "saltsalt")
	},
}

func (d *directory) build(t *testing.T, p *product, s *scene, r *rand.Rand) {
	base, uid, password := d.Base, "app-"+s.name, "first-password-of-"+s.name
	policy := s.trait(r, 4, "a password policy with a lock-out, and one value alone")
	if policy {
		base = d.PolicyBase
	}
	form := s.one(r, "stored as", "clear text", "SSHA", "SHA", "CRYPT")
	dn := "uid=" + uid + "," + base
	values := []string{ldapHashes[form](password)}
	attributes := map[string][]string{
		"objectClass": {"account", "simpleSecurityObject"},
		"uid":         {uid},
		"description": {"an application"},
	}
	if s.trait(r, 3, "more object classes") {
		attributes["objectClass"] = []string{"organizationalRole", "simpleSecurityObject", "uidObject"}
		attributes["cn"] = []string{"Application"}
	}
	var other string
	if !policy && s.trait(r, 3, "another team's password") {
		other = "password-of-the-other-team-of-" + s.name
		values = append(values, ldapHashes["SSHA"](other))
	}
	attributes["userPassword"] = values
	d.Add(t, dn, attributes)
	account := dn
	config := map[string]any{"address": d.Addr, "tls": map[string]bool{"off": true}}
	switch s.one(r, "account", "a DN", "a DN in other letters", "a template", "a filter") {
	case "a DN in other letters":
		account = "UID=" + strings.ToUpper(uid) + ", " + base
	case "a template":
		account, config["user_dn_template"] = uid, "uid={account},"+base
	case "a filter":
		account, config["base"], config["filter"] = uid, base, "(&(objectClass=*)(uid={account}))"
	}
	p.register(t, s.name, compact(config))
	s.first = compact(pair{account, password})
	s.strategy = target.Overlap
	configure := kms.ConfigureRotationRequest{TargetName: s.name, Strategy: string(target.Overlap), GracePeriod: "1h"}
	if policy || r.IntN(3) == 0 {
		s.strategy = target.Single
		configure.Strategy, configure.GracePeriod = string(target.Single), "0s"
	}
	s.attach = func() (string, error) { return p.configure(t, s.first, configure) }
	s.work = func(ctx context.Context, value string) (outcome, error) {
		return d.work(ctx, t, dn, other, value)
	}
}

// search has ldapsearch read an entry; the password comes from a file.
func (d *directory) search(ctx context.Context, t *testing.T, dn, password, entry string) (string, int, error) {
	dir := t.TempDir()
	file := filepath.Join(dir, "password")
	if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
		return "", 0, err
	}
	cmd := exec.CommandContext(ctx, d.client, "-x", "-LLL", "-o", "ldif-wrap=no", "-o", "nettimeout=10",
		"-H", "ldap://"+d.Addr, "-D", dn, "-y", file, "-s", "base", "-b", entry, "(objectClass=*)", "*", "memberOf")
	cmd.Env = []string{"HOME=" + dir, "LDAPNOINIT=1", "PATH=" + os.Getenv("PATH")}
	text, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return "", 0, ctx.Err()
	}
	if cmd.ProcessState == nil {
		return "", 0, err
	}
	return strings.TrimSpace(string(text)), cmd.ProcessState.ExitCode(), nil
}

const invalidCredentials = 49

// work is what the application does: it reads its own entry, and what it may not read.
func (d *directory) work(ctx context.Context, t *testing.T, dn, other, value string) (outcome, error) {
	a, err := parse(value)
	if err != nil {
		return nil, err
	}
	said, exit, err := d.search(ctx, t, dn, a.AccountPassword, dn)
	switch {
	case err != nil:
		return nil, err
	case exit == invalidCredentials:
		return outcome{"login": "ldapsearch: " + said}, nil
	}
	out := outcome{"login": loggedIn, "own entry": said}
	if out["others"], _, err = d.search(ctx, t, dn, a.AccountPassword, d.AdminDN); err != nil {
		return nil, err
	}
	if other != "" {
		if _, exit, err = d.search(ctx, t, dn, other, dn); err != nil {
			return nil, err
		}
		out["the other team"] = fmt.Sprint(exit)
	}
	out["forms"] = d.forms(t, dn, other != "")
	return out, nil
}

// forms are the ways in which the values of userPassword are stored, without repetition.
func (d *directory) forms(t *testing.T, dn string, others bool) string {
	var list []string
	for _, v := range d.Values(t, dn, "userPassword") {
		scheme, _, hashed := strings.Cut(v, "}")
		if !hashed {
			scheme = "clear text"
		}
		list = append(list, scheme)
	}
	if others {
		list = append(list, "{SSHA")
	}
	slices.Sort(list)
	return strings.Join(slices.Compact(list), " ")
}
