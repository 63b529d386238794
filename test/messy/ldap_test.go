package messy

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/shacrypt"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/applications"
	"github.com/keyturn/keyturn/test/servers"
)

func TestLDAP(t *testing.T) {
	t.Parallel()
	applications.Require(t, "ldap")
	dir := &directory{servers.StartLDAP(t)}
	p := player{product: start(t, "ldap", compact(pair{dir.AdminDN, dir.Password})), label: "messy_ldap"}
	p.build = func(t *testing.T, s *scene, r *rand.Rand) { dir.build(t, p.product, s, r) }
	p.play(t)
}

// directory is the server that all scenes share.
type directory struct{ *servers.LDAP }

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
	// The administrator's entry is one that the application may not read.
	s.app = applications.New(applications.Config{Kind: "ldap", Address: d.Addr, Name: dn, Database: d.AdminDN})
	s.also = func(ctx context.Context, _ string, out outcome) error {
		out["forms"] = d.forms(t, dn, other != "")
		if other == "" {
			return nil
		}
		in, err := s.app.Login(ctx, compact(pair{dn, other}))
		out["the other team"] = fmt.Sprint(in)
		return err
	}
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
