package messy

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"

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
	dir := &directory{LDAP: servers.StartLDAP(t)}
	dir.replica = dir.Replica(t)
	p := player{product: start(t, "ldap", compact(pair{dir.AdminDN, dir.Password})), label: "messy_ldap"}
	p.build = func(t *testing.T, s *scene, r *rand.Rand) { dir.build(t, p.product, s, r) }
	p.play(t)
}

// directory is the server that all scenes share.
type directory struct {
	*servers.LDAP
	replica string // the address of a server that copies the entries below Base
}

// ldapPolicies are attributes of password policies.
var ldapPolicies = map[string][2]string{
	"a history":                         {"pwdInHistory", "3"},
	"a maximum age":                     {"pwdMaxAge", "86400"},
	"a minimum age":                     {"pwdMinAge", "86400"},
	"a change after each reset":         {"pwdMustChange", "TRUE"},
	"the old password with each change": {"pwdSafeModify", "TRUE"},
	"no hashes":                         {"pwdCheckQuality", "2"},
	"a lock-out":                        {"pwdLockout", "TRUE"},
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
	policy := s.trait(r, 3, "a password policy with a lock-out, and one value alone")
	if policy {
		base = d.PolicyBase
	}
	if s.trait(r, 4, "a name with odd characters") {
		uid = `app, "of" ` + s.name + `+#;`
	}
	dn := "uid=" + ldap.EscapeDN(uid) + "," + base
	values := []string{ldapHashes[s.one(r, "stored as", "clear text", "SSHA", "SHA", "CRYPT")](password)}
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
	if policy {
		d.policy(t, s, r, dn)
	} else if s.trait(r, 3, "a member of a group") {
		d.Add(t, "cn=of-"+s.name+",dc=example,dc=org", map[string][]string{
			"objectClass": {"groupOfNames"}, "member": {dn},
		})
	}
	app := applications.Config{Kind: "ldap", Address: d.Addr, Name: dn, Database: d.AdminDN}
	config := d.connection(s, r, &app)
	account := spell(s, r, uid, base, config)
	if !policy && s.trait(r, 4, "a replica") {
		config["verify"] = []any{map[string]string{"address": d.replica, "role": "replica", "lag": "10s"}}
		delete(config, "starttls") // it has a certificate of its own
		config["tls"], config["address"] = map[string]any{"off": true}, d.Addr
	}
	p.register(t, s.name, compact(config))
	s.first = compact(pair{account, password})
	s.strategy = target.Overlap
	configure := kms.ConfigureRotationRequest{TargetName: s.name, Strategy: string(target.Overlap), GracePeriod: "1h"}
	if policy || r.IntN(3) == 0 {
		s.strategy = target.Single
		configure.Strategy, configure.GracePeriod = string(target.Single), "0s"
	}
	if policy && s.trait(r, 2, "the operator knows the administrator") {
		configure.Consents = []string{"policy-must-change"} // it has write, and not manage
	}
	s.attach = func() (string, error) { return p.configure(t, s.first, configure) }
	s.app = applications.New(app)
	s.changes = map[string][]string{
		"hash-changes":   {"forms"},
		"further-values": {"forms", "the other team"},
	}
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

// policy gives an entry a password policy of its own.
func (d *directory) policy(t *testing.T, s *scene, r *rand.Rand, dn string) {
	t.Helper()
	name := s.one(r, "policy", slices.Sorted(maps.Keys(ldapPolicies))...)
	policy := "cn=of-" + s.name + ",dc=policy,dc=org"
	attribute, value := ldapPolicies[name][0], ldapPolicies[name][1]
	d.Add(t, policy, map[string][]string{
		"objectClass":  {"device", "pwdPolicy"},
		"pwdAttribute": {"userPassword"},
		attribute:      {value},
	})
	d.Modify(t, dn, "pwdPolicySubentry", policy)
	if name == "a minimum age" && s.trait(r, 2, "changed today") {
		c, err := d.Bind(t.Context(), d.AdminDN, d.Password)
		good(t, err)
		defer c.Close()
		change := ldap.NewModifyRequest(dn, nil)
		change.Replace("userPassword", d.Values(t, dn, "userPassword"))
		if err := c.Modify(change); !ldap.IsErrorAnyOf(err, ldap.LDAPResultConstraintViolation) {
			good(t, err)
		}
	}
}

// connection returns the configuration of a target that is reached in one of three ways, in which
// the application connects, too.
func (d *directory) connection(s *scene, r *rand.Rand, app *applications.Config) map[string]any {
	switch s.one(r, "connection", "plain", "StartTLS", "TLS") {
	case "StartTLS":
		return map[string]any{"address": d.Addr, "starttls": true, "tls": map[string]any{"ca": d.Authority.CA}}
	case "TLS":
		app.Address, app.CA = d.TLSAddr, d.Authority.CAFile
		return map[string]any{"address": d.TLSAddr, "tls": map[string]any{"ca": d.Authority.CA}}
	}
	return map[string]any{"address": d.Addr, "tls": map[string]bool{"off": true}}
}

// spell returns how a secret names an entry, and sets how the target finds it.
func spell(s *scene, r *rand.Rand, uid, base string, config map[string]any) string {
	escaped := ldap.EscapeDN(uid)
	switch s.one(
		r, "account", "a DN", "a DN in other letters", "an object identifier", "escapes", "a template", "a filter",
	) {
	case "a DN in other letters":
		return "UID=" + strings.ToUpper(escaped) + " , " + strings.ReplaceAll(base, ",", ",  ")
	case "an object identifier":
		return "0.9.2342.19200300.100.1.1=" + escaped + "," + base
	case "escapes":
		return `userid=\61\70p` + strings.TrimPrefix(escaped, "app") + "," + base
	case "a template":
		config["user_dn_template"] = "uid={account}," + base
		return uid
	case "a filter":
		config["base"], config["filter"] = base, "(&(objectClass=*)(uid={account}))"
		return uid
	}
	return "uid=" + escaped + "," + base
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
