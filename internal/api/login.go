package api

import (
	"slices"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// checkLogin refuses settings of logins that the kind of a target does not follow, and addresses
// that the target does not name. A login that is made nowhere would prove every credential.
func (e *Env) checkLogin(t store.Target, l target.Login) error {
	kind := e.Kinds[t.Kind]
	if err := kind.CheckLogin(l); err != nil {
		return fault.Parameter("Login", "%s.", err)
	}
	if len(l.Endpoints) == 0 {
		return nil
	}
	known := kind.EndpointsOf(t.Config)
	for _, address := range l.Endpoints {
		if !slices.Contains(known.Addresses(), address) {
			return fault.Parameter("LoginEndpoint.N",
				"target %q does not log in at %q; keyturn target show %s lists the addresses (address and verify).",
				t.Name, address, t.Name)
		}
	}
	if len(l.At(known).Deciding()) == 0 {
		return fault.Parameter("LoginEndpoint.N", "they are only replicas of target %q; add one that is none.", t.Name)
	}
	return nil
}

// loginCertificate returns the client certificate of the logins of a secret's application, and its
// version.
func (e *Env) loginCertificate(
	tx *store.Tx, of secret.Secret, l target.Login,
) (value sensitive.Value, version string, err error) {
	s, ok, err := tx.Secret(of.Account, l.CertificateSecret, e.Now().UTC())
	switch {
	case err != nil:
		return value, "", err
	case !ok || s.Deleting():
		return value, "", fault.New(fault.InUse,
			"The secret %q with the client certificate of the application is not there; keyturn rotation "+
				"configure %s --login-certificate-secret=SECRET names another.", l.CertificateSecret, of.Name)
	}
	v, err := s.Select(secret.Current, "")
	if err != nil {
		return value, "", err
	}
	value, err = e.unseal(tx, s, v)
	return value, v.ID, err
}
