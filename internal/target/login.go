package target

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/sensitive"
)

// Login says how an application connects, where that differs from the settings of the target. The
// engine's logins that stand for the application follow it: every [Target.Verify], and no other.
// The zero value follows the target's settings alone.
type Login struct {
	// Endpoints are the verify addresses of the target that the application uses; empty means all. No
	// login goes to an address that the target does not name.
	Endpoints []string `json:"endpoints,omitempty"`
	// Database is the database, virtual host or base that the application opens; empty means the
	// target's.
	Database string `json:"database,omitempty"`
	// Role is the role that the application takes after the login (SET ROLE); empty for none.
	Role string `json:"role,omitempty"`
	// CertificateSecret is the name of the secret with the client certificate and its key, in PEM;
	// empty for none. Certificate is its value, which is never stored here.
	CertificateSecret string          `json:"certificate_secret,omitempty"`
	Certificate       sensitive.Value `json:"-"`
}

// LoginField is a member of Login that a kind follows.
type LoginField string

// The members of a Login, as kinds name those that they follow.
const (
	LoginEndpoints   LoginField = "endpoints"
	LoginDatabase    LoginField = "database"
	LoginRole        LoginField = "role"
	LoginCertificate LoginField = "certificate"
)

// fields returns the members that are set.
func (l Login) fields() (set []LoginField) {
	if len(l.Endpoints) > 0 {
		set = append(set, LoginEndpoints)
	}
	if l.Database != "" {
		set = append(set, LoginDatabase)
	}
	if l.Role != "" {
		set = append(set, LoginRole)
	}
	if l.CertificateSecret != "" {
		set = append(set, LoginCertificate)
	}
	return set
}

// IsZero reports whether the login follows the target's settings alone.
func (l Login) IsZero() bool { return len(l.fields()) == 0 }

// CheckLogin returns an error that names a member of l that targets of this kind do not follow.
func (k Kind) CheckLogin(l Login) error {
	for _, f := range l.fields() {
		if slices.Contains(k.Logins, f) {
			continue
		}
		names := make([]string, len(k.Logins))
		for i, known := range k.Logins {
			names[i] = string(known)
		}
		if len(names) == 0 {
			return fmt.Errorf("a target of kind %s has no settings of its logins, so %s cannot be given", k.Name, f)
		}
		return fmt.Errorf(
			"a target of kind %s does not follow %s; its logins follow: %s",
			k.Name,
			f,
			strings.Join(names, ", "),
		)
	}
	return nil
}

// ClientCertificate returns the client certificate of the application for connections as t sets
// their TLS; none without one.
func (l Login) ClientCertificate(t TLS) ([]tls.Certificate, error) {
	if l.CertificateSecret == "" {
		return nil, nil
	}
	if t.Off {
		return nil, errors.New("a client certificate needs TLS, which the target's setting tls turns off")
	}
	pem := []byte(l.Certificate.Reveal())
	certificate, err := tls.X509KeyPair(pem, pem)
	if err != nil {
		return nil, fmt.Errorf("secret %q must hold a client certificate and its key, in PEM", l.CertificateSecret)
	}
	return []tls.Certificate{certificate}, nil
}

// At returns the endpoints of list at which the application logs in.
func (l Login) At(list EndpointList) EndpointList {
	if len(l.Endpoints) == 0 {
		return list
	}
	var out EndpointList
	for _, e := range list {
		if slices.Contains(l.Endpoints, e.Address) {
			out = append(out, e)
		}
	}
	return out
}
