package applications

import (
	"context"
	"fmt"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// ldapClients read the application's own entry, Config.Name, and one that is not: Config.Database.
var ldapClients = []client{
	{name: "ldapsearch", program: "ldapsearch", debian: "ldap-utils", work: ldapsearch},
}

// entry returns the DN of the application; its secret may hold another name.
func (c Config) entry(v Value) string {
	if c.Name != "" {
		return c.Name
	}
	return v.AccountName
}

const invalidCredentials = 49

func ldapsearch(ctx context.Context, c Config, v Value) (Outcome, error) {
	own, err := c.ldapsearch(ctx, v, c.entry(v))
	switch {
	case err != nil:
		return nil, err
	case own.exit == invalidCredentials:
		return Outcome{Login: strings.TrimSpace(own.errors)}, nil
	}
	others, err := c.ldapsearch(ctx, v, c.Database)
	return Outcome{Login: In, "own entry": own.text(), "others": others.text()}, err
}

// text is all that a program has printed, and how it ended.
func (s said) text() string {
	return fmt.Sprintf("%s (%d)", strings.TrimSpace(s.errors+s.out), s.exit)
}

// ldapsearch reads an entry; the password comes from a file.
func (c Config) ldapsearch(ctx context.Context, v Value, entry string) (said, error) {
	p := program{
		name:  "ldapsearch",
		files: map[string]string{"password": v.AccountPassword},
		env:   []string{"LDAPNOINIT=1"},
	}
	scheme := "ldap"
	if c.CA != "" {
		scheme, p.env = "ldaps", []string{"LDAPTLS_CACERT=" + c.CA}
		if c.Certificate != "" {
			p.env = append(p.env, "LDAPTLS_CERT="+c.Certificate, "LDAPTLS_KEY="+c.Key)
		}
	}
	p.args = []string{
		"-x", "-LLL", "-o", "ldif-wrap=no", "-o", "nettimeout=10", "-H", scheme + "://" + c.Address,
		"-D", c.entry(v), "-y", "{dir}/password", "-s", "base", "-b", entry, "(objectClass=*)", "*", "memberOf",
	}
	return p.run(ctx)
}

func openLDAP(ctx context.Context, c Config, v Value) (func() error, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	session := ldap.NewConn(conn, c.CA != "")
	session.Start()
	if err = session.Bind(c.entry(v), v.AccountPassword); err == nil {
		return session.Close, nil
	}
	_ = session.Close()
	if ldap.IsErrorAnyOf(err, ldap.LDAPResultInvalidCredentials) {
		return nil, ErrRejected
	}
	return nil, err
}
