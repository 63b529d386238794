package api

import (
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// currentCredential returns what consumers of a secret use at that target now.
func (c *Call) currentCredential(name, targetName string) (target.Credential, error) {
	s, err := c.existing(c.Snapshot, name)
	if err != nil {
		return target.Credential{}, err
	}
	t, err := c.existingTarget(c.Snapshot, targetName)
	if err != nil {
		return target.Credential{}, err
	}
	if s.TargetName() != targetName || !s.BoundTo(t.ID) {
		return target.Credential{}, fault.Parameter("SecretName", "the secret %q is not bound to target %q.", name,
			targetName)
	}
	_, list, _, err := c.inUse(c.Snapshot, s)
	if err != nil {
		return target.Credential{}, err
	}
	return list[0], mayUse(s, list[0].Account)
}

// openTarget opens a target with its administrator. Every credential that is sent there is recorded
// as sent by c.
func (c *Call) openTarget(tx *store.Tx, t store.Target) (target.Target, target.Credential, error) {
	return c.open(tx, t, &sender{call: c, target: t})
}

// openFor opens a target that logs in as the application does that uses a secret. versions are
// the versions of the secret that may be sent.
func (c *Call) openFor(tx *store.Tx, t store.Target, s secret.Secret, versions ...string) (target.Target, error) {
	return c.openBy(tx, &sender{call: c, target: t, versions: versions}, s)
}

// openUnused opens a target that is asked nothing, so it also opens one whose administrator may not
// log in now.
func (c *Call) openUnused(tx *store.Tx, t store.Target, s secret.Secret) (target.Target, error) {
	return c.openBy(tx, &sender{call: c, target: t, unused: true}, s)
}

func (c *Call) openBy(tx *store.Tx, by *sender, s secret.Secret) (target.Target, error) {
	own, t := s.Settings(), by.target
	by.login, by.consents = own.Login, own.Consents
	if err := c.checkLogin(t, by.login); err != nil {
		return nil, err
	}
	if by.login.CertificateSecret != "" {
		var err error
		if by.login.Certificate, by.certificate, err = c.loginCertificate(tx, s, by.login); err != nil {
			return nil, err
		}
	}
	system, _, err := c.open(tx, t, by)
	return system, err
}

// open opens a target. s records what is sent there.
func (c *Call) open(
	tx *store.Tx, t store.Target, s *sender,
) (system target.Target, admin target.Credential, err error) {
	kind, ok := c.Kinds[t.Kind]
	if !ok {
		return nil, admin, fault.New(fault.InUse, "This server has no targets of kind %q.", t.Kind)
	}
	if t.AdminSecret != "" {
		if admin, s.admin, err = c.adminCredential(tx, t); err != nil {
			return nil, admin, err
		}
		if !s.unused {
			if err := c.adminMayLogIn(t, admin.Account, s.admin); err != nil {
				return nil, admin, err
			}
		}
	}
	system, err = kind.Open(s.settings(admin))
	if err != nil {
		return nil, admin, fault.Wrap(fault.InUse, err, "Target %q cannot be opened: %s", t.Name, err)
	}
	return system, admin, nil
}

// adminCredential returns the credential in the current version of the secret that a target names.
// The secret may be of any type that has a credential.
func (e *Env) adminCredential(tx *store.Tx, t store.Target) (admin target.Credential, version string, err error) {
	s, ok, err := tx.Secret(t.Account, t.AdminSecret, e.Now().UTC())
	switch {
	case err != nil:
		return admin, "", err
	case !ok || s.Deleting():
		return admin, "", fault.New(fault.InUse,
			"The secret with the administrator of target %q is not there; keyturn target show %s names it, and keyturn "+
				"target update %s --admin-secret=SECRET names another.", t.Name, t.Name, t.Name)
	}
	v, err := s.Select(secret.Current, "")
	if err != nil {
		return admin, "", err
	}
	list, stored, err := credentials(e, tx, s, v)
	if err == nil {
		return list[0], v.ID, nil
	}
	if fault.KindOf(err) == fault.Invalid && !strings.HasPrefix(strings.TrimSpace(stored.Reveal()), "{") {
		// A bare value: a token or a signing secret, which has no account.
		return target.Credential{Secret: stored}, v.ID, nil
	}
	return admin, "", fault.New(fault.InUse, "The secret that target %q names does not hold an administrator: "+
		"use JSON such as {\"AccountName\":…,\"AccountPassword\":…}. keyturn target show %s names the secret.",
		t.Name, t.Name)
}

// inUse decrypts the current version of a secret and reads the credentials in it.
func (e *Env) inUse(
	tx *store.Tx, s secret.Secret,
) (v secret.Version, list []target.Credential, value sensitive.Value, err error) {
	if v, err = s.Select(secret.Current, ""); err == nil {
		list, value, err = credentials(e, tx, s, v)
	}
	return v, list, value, err
}

// credentials decrypts a version and reads the credentials in it.
func credentials(
	e *Env, tx *store.Tx, s secret.Secret, v secret.Version,
) ([]target.Credential, sensitive.Value, error) {
	value, err := e.unseal(tx, s, v)
	if err != nil {
		return nil, value, err
	}
	list, err := s.Credentials(value)
	return list, value, err
}

// otherAccount returns the account that the strategy double gives a new credential. Mostly
// ACSPrevious names it. After a credential was adopted, ACSPrevious is a version of the same
// account, and an older version names the other one. A version of another shape names none.
func (e *Env) otherAccount(tx *store.Tx, s secret.Secret, current []target.Credential) (string, error) {
	list := s.List(true)
	if v, ok := s.Versions[s.Stages[secret.Previous]]; ok {
		list = append([]secret.Version{v}, list...)
	}
	for _, v := range list {
		older, _, err := credentials(e, tx, s, v)
		if kind := fault.KindOf(err); err != nil && kind != fault.Invalid && kind != fault.InUse {
			return "", err
		}
		if name, err := s.OtherAccount(current, older); err == nil {
			return name, nil
		}
	}
	return s.OtherAccount(current, nil)
}
