package api

import (
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/kms"
)

func (c *Call) targetResource(name string) resource {
	return resource{arn: c.kmsARN("target/" + name)}
}

// registering adds to the collection of targets the secret with the administrator. The server sends
// the value of that secret to where the target says, so the caller needs the right to read it too.
func registering(c *Call, in *kms.RegisterTargetRequest, list []resource) ([]resource, error) {
	return c.andSent(c.andKind(list, in.TargetName, in.Kind), &in.AdminSecretName)
}

// andKind adds the action that a kind of target needs beside the ordinary ones.
func (c *Call) andKind(list []resource, name, kind string) []resource {
	if action := c.Kinds[kind].Action; action != "" {
		list = append(list, c.targetResource(name).needing(action))
	}
	return list
}

// andSent adds a secret whose value the server will send to a target, if the parameter names one.
// It replaces an ARN in the parameter by the name.
func (c *Call) andSent(list []resource, name *string) ([]resource, error) {
	list, err := c.andSecret(list, name)
	if err != nil || *name == "" {
		return list, err
	}
	return append(list, c.secretResource(*name).needing(actionGetSecretValue)), nil
}

// retargeted returns the resources of UpdateTarget: the target, and every secret whose value is
// sent to the new place from now on.
func retargeted(c *Call, in *kms.UpdateTargetRequest, list []resource) ([]resource, error) {
	t, ok, err := c.Snapshot.Target(c.Account(), in.TargetName)
	if err != nil {
		return nil, err
	}
	if ok && t.AdminSecret != "" && in.Config == "" {
		list = append(list, c.secretResource(t.AdminSecret).unlessDenied())
	}
	if ok && in.Config != "" {
		names, err := c.redirected(c.Snapshot, t)
		if err != nil {
			return nil, err
		}
		list = c.andKind(list, t.Name, t.Kind)
		for _, name := range names {
			s := c.secretResource(name)
			list = append(list, s, s.needing(actionGetSecretValue))
		}
	}
	return c.andSent(list, &in.AdminSecretName)
}

// deregistered returns the resources of DeregisterTarget: the target, and with Detach every
// attached secret, whose rotation ends.
func deregistered(c *Call, in *kms.DeregisterTargetRequest, list []resource) ([]resource, error) {
	t, ok, err := c.Snapshot.Target(c.Account(), in.TargetName)
	if err != nil || !ok || !in.Detach {
		return list, err
	}
	attached, err := c.detachable(c.Snapshot, t)
	for _, s := range attached {
		list = append(list, c.secretResource(s.Name).needing(actionRemoveRotation))
	}
	return list, err
}

// created returns the resources of CreateSecret: the collection of secrets, the accounts that
// rotating a managed secret will change, whether or not its target is registered, and the secret
// itself when a policy for it is given.
func created(c *Call, in *kms.CreateSecretRequest, list []resource) ([]resource, error) {
	if s := (secret.Secret{Type: in.SecretType, ExtendedConfig: in.ExtendedConfig}); s.Managed() {
		var err error
		if list, err = c.andChanges(list, s, firstChanges(s, firstData(in))); err != nil {
			return nil, err
		}
	}
	if in.Policy != "" {
		list = append(list, c.secretResource(c.specOf(in).FinalName()).needing(actionSetSecretPolicy))
	}
	return list, nil
}

// tested returns the resources of TestTarget: the target with its administrator, and the secret
// whose credential is tried.
func tested(c *Call, in *kms.TestTargetRequest, list []resource) ([]resource, error) {
	list, err := c.andAdmin(list, in.TargetName)
	if err != nil {
		return nil, err
	}
	if list, err = c.andSecret(list, &in.SecretName); err != nil || in.SecretName == "" {
		return list, err
	}
	s, _, err := c.Snapshot.Secret(c.Account(), in.SecretName, c.At)
	if certificate := s.Settings().Login.CertificateSecret; certificate != "" {
		list = append(list, c.secretResource(certificate).unlessDenied())
	}
	return list, err
}

// andAdmin adds the secret of a target's administrator: a call that logs in at the target sends it
// there and does not give it away.
func (c *Call) andAdmin(list []resource, name string) ([]resource, error) {
	t, ok, err := c.Snapshot.Target(c.Account(), name)
	if ok && t.AdminSecret != "" {
		list = append(list, c.secretResource(t.AdminSecret).unlessDenied())
	}
	return list, err
}

// configured returns the resources of ConfigureRotation: the secret, the target that it is tied to,
// and the accounts there that will change.
func configured(c *Call, in *kms.ConfigureRotationRequest, list []resource) ([]resource, error) {
	s, ok, err := c.Snapshot.Secret(c.Account(), in.SecretName, c.At)
	if err != nil {
		return nil, err
	}
	name := in.TargetName
	if name == "" && ok && !s.Managed() {
		name = s.TargetName()
	}
	if name != "" {
		list = append(list, c.targetResource(name))
	}
	if in.LoginCertificateSecret != "" { // its value is sent to the target
		var err error
		if in.LoginCertificateSecret, err = c.secretName(in.LoginCertificateSecret); err != nil {
			return nil, err
		}
		list = append(list, c.secretResource(in.LoginCertificateSecret).needing(actionGetSecretValue))
	}
	settings, err := c.configuredSettings(s, in)
	if err != nil {
		return list, nil // the handler refuses the same settings, after the caller was authorised
	}
	return c.andAccounts(list, in.SecretName, &settings)
}

// andSecret adds the secret that a parameter names, if it names one. It replaces an ARN in the
// parameter by the name.
func (c *Call) andSecret(list []resource, name *string) ([]resource, error) {
	if *name == "" {
		return list, nil
	}
	var err error
	if *name, err = c.secretName(*name); err != nil {
		return nil, err
	}
	return append(list, c.secretResource(*name)), nil
}
