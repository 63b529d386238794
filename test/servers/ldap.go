package servers

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/keyturn/keyturn/test/support"
)

// LDAP is an OpenLDAP server with two databases of people: below Base anything goes, and below
// PolicyBase a password policy locks an account after three failed logins and wants eight
// characters, and a constraint allows one password at a time. A third one, below dc=other,dc=org,
// is empty and has a manager of its own. AdminDN may read the server's configuration.
type LDAP struct {
	// Addr speaks plain and takes StartTLS; TLSAddr speaks TLS. The certificate is by Authority.
	Addr, TLSAddr string
	Authority     *Authority
	// Base and PolicyBase are where people are.
	Base, PolicyBase string
	// StrictPolicy is for pwdPolicySubentry of an account below PolicyBase that is to take no hashes.
	StrictPolicy string
	// AdminDN may write passwords below both, WriterDN write and not read them, and ReaderDN
	// neither. All three have Password.
	AdminDN, WriterDN, ReaderDN, Password string
	// Schemes are the modules of password schemes that the server has, of those that tests use.
	Schemes []string

	root string
}

const ldapConfig = `
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
modulepath %[2]s
moduleload back_mdb
moduleload ppolicy
moduleload constraint
moduleload memberof
moduleload syncprov
%[4]ssasl-secprops %[5]s
pidfile %[1]s/slapd.pid
argsfile %[1]s/slapd.args
TLSCACertificateFile %[1]s/ca.pem
TLSCertificateFile %[1]s/localhost.crt
TLSCertificateKeyFile %[1]s/localhost.key
access to attrs=userPassword
  by dn.exact="cn=keyturn,dc=example,dc=org" write
  by dn.exact="cn=writer,dc=example,dc=org" =w
  by anonymous auth
access to *
  by dn.exact="cn=keyturn,dc=example,dc=org" read
  by dn.exact="cn=writer,dc=example,dc=org" read
  by dn.exact="cn=reader,dc=example,dc=org" read
  by self read

database config
access to *
  by dn.exact="cn=keyturn,dc=example,dc=org" read
  by dn.exact="cn=root,dc=example,dc=org" read

database ldif
suffix "dc=other,dc=org"
directory %[1]s/other
rootdn "uid=chief,dc=other,dc=org"

database mdb
suffix "dc=example,dc=org"
directory %[1]s/plain
maxsize 16777216
dbnosync
rootdn "cn=root,dc=example,dc=org"
rootpw %[3]s
overlay memberof
overlay syncprov

database mdb
suffix "dc=policy,dc=org"
directory %[1]s/policy
maxsize 16777216
dbnosync
rootdn "cn=root,dc=example,dc=org"
overlay ppolicy
ppolicy_default "cn=default,dc=policy,dc=org"
ppolicy_hash_cleartext
overlay constraint
constraint_attribute userPassword count 1
`

const replicaConfig = `
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
modulepath %[2]s
moduleload back_mdb
moduleload memberof
%[3]s
database mdb
suffix "dc=example,dc=org"
directory %[1]s
maxsize 16777216
dbnosync
rootdn "cn=root,dc=example,dc=org"
syncrepl rid=1 provider=ldap://%[4]s type=refreshAndPersist retry="1 +" searchbase="dc=example,dc=org"
  bindmethod=simple binddn="cn=root,dc=example,dc=org" credentials=%[5]s
updateref ldap://%[4]s
`

const ldapEntries = `
dn: dc=example,dc=org
objectClass: dcObject
objectClass: organization
o: Example

dn: ou=people,dc=example,dc=org
objectClass: organizationalUnit

dn: cn=keyturn,dc=example,dc=org
objectClass: organizationalRole
objectClass: simpleSecurityObject
userPassword: %[1]s

dn: cn=writer,dc=example,dc=org
objectClass: organizationalRole
objectClass: simpleSecurityObject
userPassword: %[1]s

dn: cn=reader,dc=example,dc=org
objectClass: organizationalRole
objectClass: simpleSecurityObject
userPassword: %[1]s

dn: dc=policy,dc=org
objectClass: dcObject
objectClass: organization
o: Policy

dn: ou=people,dc=policy,dc=org
objectClass: organizationalUnit

dn: cn=default,dc=policy,dc=org
objectClass: device
objectClass: pwdPolicy
pwdAttribute: userPassword
pwdLockout: TRUE
pwdMaxFailure: 3
pwdMinLength: 8
pwdCheckQuality: 1

dn: cn=strict,dc=policy,dc=org
objectClass: device
objectClass: pwdPolicy
pwdAttribute: userPassword
pwdCheckQuality: 2
`

// StartLDAP starts slapd. It has no SASL mechanism that needs passwords in clear.
func StartLDAP(t testing.TB) *LDAP { return startLDAP(t, "minssf=256") }

// StartLDAPWithSASL starts slapd with the SASL mechanisms of its system.
func StartLDAPWithSASL(t testing.TB) *LDAP { return startLDAP(t, "none") }

func startLDAP(t testing.TB, sasl string) *LDAP {
	t.Helper()
	bin := program(t, "slapd", "slapd")
	dir := t.TempDir()
	l := &LDAP{
		Authority:    NewAuthority(t, dir),
		Base:         "ou=people,dc=example,dc=org",
		PolicyBase:   "ou=people,dc=policy,dc=org",
		StrictPolicy: "cn=strict,dc=policy,dc=org",
		AdminDN:      "cn=keyturn,dc=example,dc=org",
		WriterDN:     "cn=writer,dc=example,dc=org",
		ReaderDN:     "cn=reader,dc=example,dc=org",
		Password:     "adm1n-of-the-test",
		root:         "r00t-of-the-test",
	}
	for _, d := range []string{"other", "plain", "policy"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	config, modules := filepath.Join(dir, "slapd.conf"), moduleDir(t)
	text := fmt.Sprintf(ldapConfig, dir, modules, l.root, l.loadSchemes(modules), sasl)
	writeFile(t, config, strings.TrimSpace(text)+"\n")
	l.Addr, l.TLSAddr = l.serve(t, bin, dir, config)
	l.load(t, fmt.Sprintf(ldapEntries, l.Password))
	return l
}

// Replica starts a server that copies the entries below Base, and returns its address.
func (l *LDAP) Replica(t testing.TB) string {
	t.Helper()
	bin, dir, modules := program(t, "slapd", "slapd"), t.TempDir(), moduleDir(t)
	config := filepath.Join(dir, "slapd.conf")
	text := fmt.Sprintf(replicaConfig, dir, modules, l.loadSchemes(modules), l.Addr, l.root)
	writeFile(t, config, strings.TrimSpace(text)+"\n")
	addr, _ := l.serve(t, bin, dir, config)
	return addr
}

// serve starts slapd, and returns the addresses where it speaks plain and TLS.
func (l *LDAP) serve(t testing.TB, bin, dir, config string) (plain, secure string) {
	t.Helper()
	var err error
	for range startAttempts {
		ports := support.FreePorts(t, 2)
		plain, secure = net.JoinHostPort("127.0.0.1", ports[0]), net.JoinHostPort("127.0.0.1", ports[1])
		cmd := exec.Command(bin, "-f", config, "-d", "0", "-h", "ldap://"+plain+"/ ldaps://"+secure+"/")
		cmd.Dir = dir
		var c *child
		if c, err = startChild(cmd, func() error { return answersLDAP(plain) }); err == nil {
			t.Cleanup(func() {
				if err := c.stop(); err != nil {
					t.Error(err)
				}
			})
			return plain, secure
		}
	}
	t.Fatal(err)
	return "", ""
}

// answersLDAP reports an error until slapd answers a request: it listens before it does, and
// another process may have taken its port. A refusal is an answer.
func answersLDAP(addr string) error {
	n, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	c := ldap.NewConn(n, false)
	c.SetTimeout(time.Second)
	c.Start()
	defer c.Close()
	if err := c.UnauthenticatedBind(""); ldap.IsErrorWithCode(err, ldap.ErrorNetwork) {
		return err
	}
	return nil
}

// moduleDir is where slapd's modules are.
func moduleDir(t testing.TB) string {
	t.Helper()
	for _, dir := range []string{"/usr/lib/ldap", "/usr/lib64/openldap", "/usr/lib/openldap", "/usr/libexec/openldap"} {
		for _, name := range []string{"back_mdb.la", "back_mdb.so"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				return dir
			}
		}
	}
	t.Skip("the modules of slapd are not where they are looked for (Debian package slapd)")
	return ""
}

// loadSchemes returns the lines that load the modules of password schemes which are installed.
func (l *LDAP) loadSchemes(dir string) string {
	var lines strings.Builder
	for _, name := range []string{"argon2", "pw-sha2", "pw-pbkdf2"} {
		if _, err := os.Stat(filepath.Join(dir, name+".so")); err == nil {
			if !slices.Contains(l.Schemes, name) {
				l.Schemes = append(l.Schemes, name)
			}
			lines.WriteString("moduleload " + name + "\n")
		}
	}
	return lines.String()
}

// Hash returns a value of a password by the server's own program, with the scheme of a module.
func (l *LDAP) Hash(t testing.TB, module, scheme, password string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	writeFile(t, file, password)
	out, err := exec.Command(program(t, "slappasswd", "slapd"), "-n", "-T", file, "-h", scheme,
		"-o", "module-path="+moduleDir(t), "-o", "module-load="+module).Output()
	if err != nil {
		t.Fatalf("slappasswd: %v", err)
	}
	return string(out)
}

// load adds entries in LDIF without its finer points.
func (l *LDAP) load(t testing.TB, ldif string) {
	t.Helper()
	for record := range strings.SplitSeq(strings.TrimSpace(ldif), "\n\n") {
		attributes := map[string][]string{}
		for line := range strings.SplitSeq(record, "\n") {
			name, value, _ := strings.Cut(line, ": ")
			attributes[name] = append(attributes[name], value)
		}
		dn := attributes["dn"][0]
		delete(attributes, "dn")
		l.Add(t, dn, attributes)
	}
}

// Add adds an entry as the one who may do everything.
func (l *LDAP) Add(t testing.TB, dn string, attributes map[string][]string) {
	t.Helper()
	l.asRoot(t, func(c *ldap.Conn) error {
		r := ldap.NewAddRequest(dn, nil)
		for name, values := range attributes {
			r.Attribute(name, values)
		}
		return c.Add(r)
	})
}

// Modify changes one attribute: no values delete it.
func (l *LDAP) Modify(t testing.TB, dn, attribute string, values ...string) {
	t.Helper()
	l.asRoot(t, func(c *ldap.Conn) error {
		m := ldap.NewModifyRequest(dn, nil)
		m.Replace(attribute, values)
		return c.Modify(m)
	})
}

// Values reads one attribute.
func (l *LDAP) Values(t testing.TB, dn, attribute string) (values []string) {
	t.Helper()
	l.asRoot(t, func(c *ldap.Conn) error {
		r, err := c.Search(ldap.NewSearchRequest(dn, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 1,
			5, false, "(objectClass=*)", []string{attribute}, nil))
		if err == nil && len(r.Entries) == 1 {
			values = r.Entries[0].GetAttributeValues(attribute)
		}
		return err
	})
	return values
}

func (l *LDAP) asRoot(t testing.TB, f func(*ldap.Conn) error) {
	t.Helper()
	c, err := l.Bind(t.Context(), "cn=root,dc=example,dc=org", l.root)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := f(c); err != nil {
		t.Fatal(err)
	}
}

// Bind opens a connection and logs in.
func (l *LDAP) Bind(ctx context.Context, dn, password string) (*ldap.Conn, error) {
	n, err := new(net.Dialer).DialContext(ctx, "tcp", l.Addr)
	if err != nil {
		return nil, err
	}
	c := ldap.NewConn(n, false)
	c.SetTimeout(10 * time.Second)
	c.Start()
	if err := c.Bind(dn, password); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// Root returns the manager of the databases, who may do everything.
func (l *LDAP) Root() (dn, password string) { return "cn=root,dc=example,dc=org", l.root }
