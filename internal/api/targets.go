package api

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// aTarget is the target that a parameter names.
func aTarget[In any](field func(*In) string) on[In] {
	return on[In]{"target/${TargetName}", func(c *Call, in *In) ([]resource, error) {
		return []resource{c.targetResource(field(in))}, nil
	}}
}

// targets is the collection of all targets.
func targets[In any]() on[In] {
	return on[In]{"target", func(c *Call, _ *In) ([]resource, error) {
		return []resource{{arn: arnPrefix + c.Region + ":" + c.Account() + ":target"}}, nil
	}}
}

func (c *Call) targetResource(name string) resource {
	return resource{arn: arnPrefix + c.Region + ":" + c.Account() + ":target/" + name}
}

// registered are the resources of RegisterTarget: the collection, and the secret with the administrator, which the server will
// read and send to where the target says. So the right on the one is not enough.
func registered() on[kms.RegisterTargetRequest] {
	return on[kms.RegisterTargetRequest]{"target and secret/${AdminSecretName}", func(c *Call, in *kms.RegisterTargetRequest) ([]resource, error) {
		list, err := targets[kms.RegisterTargetRequest]().find(c, in)
		if err != nil {
			return nil, err
		}
		return c.andSecret(list, &in.AdminSecretName)
	}}
}

// retargeted are those of UpdateTarget: the secret that the target names now is sent to the new address too. Where the address
// stays it is read only.
func retargeted() on[kms.UpdateTargetRequest] {
	return on[kms.UpdateTargetRequest]{"target/${TargetName} and secret/${AdminSecretName}", func(c *Call, in *kms.UpdateTargetRequest) ([]resource, error) {
		list := []resource{c.targetResource(in.TargetName)}
		t, ok, err := c.Snapshot.Target(c.Account(), in.TargetName)
		if err != nil {
			return nil, err
		}
		if ok && t.AdminSecret != "" {
			admin := c.secretResource(t.AdminSecret)
			if in.Config == "" {
				admin = admin.unlessDenied()
			}
			list = append(list, admin)
		}
		return c.andSecret(list, &in.AdminSecretName)
	}}
}

// created are the resources of CreateSecret: the collection of secrets, the target of a managed type if it is registered,
// where rotating the secret will change an account, and the secret itself when a policy for it is given.
func created() on[kms.CreateSecretRequest] {
	return on[kms.CreateSecretRequest]{"secret", func(c *Call, in *kms.CreateSecretRequest) ([]resource, error) {
		list := []resource{{arn: c.containerARN()}}
		name := secret.Secret{Type: in.SecretType, ExtendedConfig: in.ExtendedConfig}.TargetName()
		_, ok, err := c.Snapshot.Target(c.Account(), name)
		if err != nil {
			return nil, err
		}
		if ok {
			list = append(list, c.targetResource(name))
		}
		if in.Policy != "" {
			list = append(list, c.secretResource(c.specOf(in).FinalName()).needing(actionSetSecretPolicy))
		}
		return list, nil
	}}
}

// tested are the resources of TestTarget: the target with its administrator, and the secret whose credential is tried.
func tested() on[kms.TestTargetRequest] {
	return on[kms.TestTargetRequest]{"target/${TargetName} and secret/${SecretName}", func(c *Call, in *kms.TestTargetRequest) ([]resource, error) {
		list, err := c.usedTarget(in.TargetName)
		if err != nil {
			return nil, err
		}
		return c.andSecret(list, &in.SecretName)
	}}
}

// usedTarget are the resources of a call that logs in at a target: the target, and the secret of its administrator, which the
// call sends there and does not give away.
func (c *Call) usedTarget(name string) ([]resource, error) {
	list := []resource{c.targetResource(name)}
	t, ok, err := c.Snapshot.Target(c.Account(), name)
	if ok && t.AdminSecret != "" {
		list = append(list, c.secretResource(t.AdminSecret).unlessDenied())
	}
	return list, err
}

// configured are the resources of ConfigureRotation: the secret, and the target that it is tied to.
func configured() on[kms.ConfigureRotationRequest] {
	return on[kms.ConfigureRotationRequest]{"secret/${SecretName} and target/${TargetName}", func(c *Call, in *kms.ConfigureRotationRequest) ([]resource, error) {
		list, err := c.andSecret(nil, &in.SecretName)
		if err == nil && in.TargetName != "" {
			list = append(list, c.targetResource(in.TargetName))
		}
		return list, err
	}}
}

// andSecret adds the secret that a parameter names, if it does. The parameter becomes the name.
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

// existingTarget reads a target that must be there.
func (c *Call) existingTarget(tx *store.Tx, name string) (store.Target, error) {
	t, ok, err := tx.Target(c.Account(), name)
	if err == nil && !ok {
		err = fault.New(fault.NotFound, "There is no target %q; RegisterTarget makes one known.", name)
	}
	return t, err
}

// checkTarget refuses a target that no rotation could use.
func (c *Call) checkTarget(tx *store.Tx, t *store.Target) error {
	kind, ok := c.Kinds[t.Kind]
	if !ok {
		return fault.Parameter("Kind", "use one of %s.", strings.Join(c.kindNames(), ", "))
	}
	if err := kind.Check(t.Config); err != nil {
		return fault.Parameter("Config", "%s.", strings.TrimSuffix(err.Error(), "."))
	}
	if kind.NeedsAdmin && t.AdminSecret == "" {
		return fault.Required("AdminSecretName")
	}
	if t.AdminSecret == "" {
		return nil
	}
	s, err := c.existing(tx, t.AdminSecret)
	if err != nil {
		return err
	}
	return s.Usable()
}

func (c *Call) kindNames() []string {
	var names []string
	for name := range c.Kinds {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func registerTarget(ctx context.Context, c *Call, in *kms.RegisterTargetRequest) (*kms.TargetNameResponse, error) {
	c.resource = c.targetResource(in.TargetName)
	if in.TargetName == secret.OwnUsers {
		return nil, fault.Parameter("TargetName", "the name ram is for the users of this service.")
	}
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*kms.TargetNameResponse, error) {
		if _, ok, err := tx.Target(c.Account(), in.TargetName); err != nil || ok {
			if err == nil {
				err = fault.New(fault.Exists, "There is a target %q already; UpdateTarget changes it.", in.TargetName)
			}
			return nil, err
		}
		t := store.Target{
			Account: c.Account(), Name: in.TargetName, Kind: in.Kind, Config: json.RawMessage(in.Config),
			AdminSecret: in.AdminSecretName, Description: in.Description, CreatedAt: c.At, UpdatedAt: c.At,
		}
		if err := c.checkTarget(tx, &t); err != nil {
			return nil, err
		}
		return c.targetNamed(t.Name), tx.PutTarget(t)
	})
}

func (c *Call) targetNamed(name string) *kms.TargetNameResponse {
	return &kms.TargetNameResponse{ARN: c.targetResource(name).arn, TargetName: name}
}

func describeTarget(_ context.Context, c *Call, in *kms.TargetNameRequest) (*kms.DescribeTargetResponse, error) {
	t, err := c.existingTarget(c.Snapshot, in.TargetName)
	if err != nil {
		return nil, err
	}
	out := &kms.DescribeTargetResponse{
		ARN: c.targetResource(t.Name).arn, TargetName: t.Name, Kind: t.Kind, Config: string(t.Config), AdminSecretName: t.AdminSecret,
		Description: t.Description, Paused: t.Paused, CreateTime: t.CreatedAt, UpdateTime: t.UpdatedAt, Strategies: []string{},
	}
	for _, s := range c.Kinds[t.Kind].Strategies {
		out.Strategies = append(out.Strategies, string(s))
	}
	return out, nil
}

func listTargets(_ context.Context, c *Call, in *kms.ListTargetsRequest) (*kms.ListTargetsResponse, error) {
	after, err := afterToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	p := page[kms.ListedTarget]{rows: []kms.ListedTarget{}, most: in.MaxResults}
	err = c.Snapshot.Targets(c.Account(), following(after), func(t store.Target) bool {
		return p.add(t.Name, kms.ListedTarget{
			TargetName: t.Name, Kind: t.Kind, AdminSecretName: t.AdminSecret, Description: t.Description, Paused: t.Paused, UpdateTime: t.UpdatedAt,
		})
	})
	return &kms.ListTargetsResponse{Targets: p.rows, NextToken: p.marker()}, err
}

// following is the first name that can come after one.
func following(name string) string {
	if name == "" {
		return ""
	}
	return name + "\x00"
}

func afterToken(token string) (string, error) {
	after, err := parseMarker(token)
	if err != nil {
		return "", fault.Parameter("NextToken", "use the token of the page before, as it is.")
	}
	return after, nil
}

func updateTarget(ctx context.Context, c *Call, in *kms.UpdateTargetRequest) (*kms.TargetNameResponse, error) {
	judged, _, err := c.Snapshot.Target(c.Account(), in.TargetName)
	if err != nil {
		return nil, err
	}
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*kms.TargetNameResponse, error) {
		t, err := c.existingTarget(tx, in.TargetName)
		if err != nil {
			return nil, err
		}
		if t.AdminSecret != judged.AdminSecret {
			// The policies were not asked about that other secret.
			return nil, fault.New(fault.InUse, "Somebody else has changed target %q at this moment; look at it and try again.", t.Name)
		}
		if in.Config != "" {
			t.Config = json.RawMessage(in.Config)
		}
		if in.AdminSecretName != "" {
			t.AdminSecret = in.AdminSecretName
		}
		if in.Description != nil {
			t.Description = *in.Description
		}
		if err := c.checkTarget(tx, &t); err != nil {
			return nil, err
		}
		t.UpdatedAt = c.At
		return c.targetNamed(t.Name), tx.PutTarget(t)
	})
}

// deregisterTarget forgets a target. It reads which rotations are under way before it decides; one that begins at this very
// moment finds no target and is abandoned.
func deregisterTarget(ctx context.Context, c *Call, in *kms.TargetNameRequest) (*kms.TargetNameResponse, error) {
	busy := ""
	err := c.Snapshot.Rotations(c.Account(), "", "", func(r rotation.Record) bool {
		if r.Target == in.TargetName && r.InFlight() {
			busy = r.Secret
		}
		return busy == ""
	})
	if err != nil {
		return nil, err
	}
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*kms.TargetNameResponse, error) {
		t, err := c.existingTarget(tx, in.TargetName)
		switch {
		case err != nil:
			return nil, err
		case busy != "":
			return nil, fault.New(fault.InUse, "The rotation of secret %q at target %q has not ended.", busy, t.Name)
		}
		tx.DeleteTarget(t.Account, t.Name)
		return c.targetNamed(t.Name), nil
	})
}

// testTarget makes one login, and says what came of it. That the target says no is an answer, not an error.
func testTarget(ctx context.Context, c *Call, in *kms.TestTargetRequest) (*kms.TestTargetResponse, error) {
	t, err := c.existingTarget(c.Snapshot, in.TargetName)
	if err != nil {
		return nil, err
	}
	system, admin, err := c.openTarget(c.Snapshot, t)
	if err != nil {
		return nil, err
	}
	defer func() { _ = system.Close() }() // it has answered; there is nothing to lose
	credential := admin
	if in.SecretName != "" {
		if credential, err = c.currentCredential(in.SecretName, t.Name); err != nil {
			return nil, err
		}
	}
	out := &kms.TestTargetResponse{TargetName: t.Name, Result: "ok"}
	switch tester, ok := system.(target.Tester); {
	case in.SecretName == "" && ok:
		err = tester.Test(ctx)
	case credential.IsZero():
		return nil, fault.Parameter("SecretName", "target %q has no administrator to try; name a secret.", t.Name)
	default:
		err = system.Verify(ctx, credential)
	}
	if err != nil {
		out.Result, out.Message = target.ClassOf(err).String(), err.Error()
		var failed *target.Error
		if errors.As(err, &failed) {
			out.Code, out.Message = failed.Code, failed.Text
		}
	}
	return out, nil
}

// currentCredential is what consumers of a secret use at that target now.
func (c *Call) currentCredential(name, targetName string) (target.Credential, error) {
	name, err := c.secretName(name)
	if err != nil {
		return target.Credential{}, err
	}
	s, err := c.existing(c.Snapshot, name)
	if err != nil {
		return target.Credential{}, err
	}
	if s.TargetName() != targetName {
		return target.Credential{}, fault.Parameter("SecretName", "the secret %q is not of target %q.", name, targetName)
	}
	v, err := s.Select(secret.Current, "")
	if err != nil {
		return target.Credential{}, err
	}
	list, _, err := credentials(c.Env, c.Snapshot, s, v)
	if err != nil {
		return target.Credential{}, err
	}
	return list[0], nil
}

// openTarget opens a target with its administrator.
func (e *Env) openTarget(tx *store.Tx, t store.Target) (system target.Target, admin target.Credential, err error) {
	kind, ok := e.Kinds[t.Kind]
	if !ok {
		return nil, admin, fault.New(fault.InUse, "This server has no targets of kind %q.", t.Kind)
	}
	if t.AdminSecret != "" {
		if admin, err = e.adminCredential(tx, t); err != nil {
			return nil, admin, err
		}
	}
	system, err = kind.Open(target.Settings{Name: t.Name, Config: t.Config, Admin: admin})
	if err != nil {
		return nil, admin, fault.Wrap(fault.InUse, err, "Target %q cannot be opened: %s", t.Name, err)
	}
	return system, admin, nil
}

// adminCredential is the current version of the secret that a target names. It may be of any type that holds a credential.
func (e *Env) adminCredential(tx *store.Tx, t store.Target) (target.Credential, error) {
	s, ok, err := tx.Secret(t.Account, t.AdminSecret, e.Now().UTC())
	switch {
	case err != nil:
		return target.Credential{}, err
	case !ok || s.Deleting():
		return target.Credential{}, fault.New(fault.InUse, "The secret %q with the administrator of target %q is not there; UpdateTarget names another.", t.AdminSecret, t.Name)
	}
	v, err := s.Select(secret.Current, "")
	if err != nil {
		return target.Credential{}, err
	}
	list, stored, err := credentials(e, tx, s, v)
	if err == nil {
		return list[0], nil
	}
	if fault.KindOf(err) == fault.Invalid && !strings.HasPrefix(strings.TrimSpace(stored.Reveal()), "{") {
		// A bare value: a token or a signing secret, which has no account.
		return target.Credential{Secret: stored}, nil
	}
	return target.Credential{}, fault.New(fault.InUse, "The secret %q does not hold an administrator for target %q: use JSON such as {\"AccountName\":…,\"AccountPassword\":…}.", t.AdminSecret, t.Name)
}

// credentials opens a version and reads what it holds.
func credentials(e *Env, tx *store.Tx, s secret.Secret, v secret.Version) ([]target.Credential, sensitive.Value, error) {
	value, err := e.open(tx, s, v)
	if err != nil {
		return nil, value, err
	}
	list, err := s.Credentials(value)
	return list, value, err
}

// otherAccount is the account that double gives a new credential. Mostly ACSPrevious names it; after a credential was adopted
// that is a version of the same account, and an older one does. A version of another shape names none.
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
