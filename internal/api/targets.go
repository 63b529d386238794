package api

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

func (c *Call) targetResource(name string) resource {
	return resource{arn: c.kmsARN("target/" + name)}
}

// registered adds to the collection of targets the secret with the administrator. The server sends the
// value of that secret to where the target says, so the caller needs the right to read it too.
func registered(c *Call, in *kms.RegisterTargetRequest, list []resource) ([]resource, error) {
	return c.andSent(c.andKind(list, in.TargetName, in.Kind), &in.AdminSecretName)
}

// andKind adds the action that a kind of target needs beside the ordinary ones.
func (c *Call) andKind(list []resource, name, kind string) []resource {
	if action := c.Kinds[kind].Action; action != "" {
		list = append(list, c.targetResource(name).needing(action))
	}
	return list
}

// andSent adds a secret whose value the server will send to a target, if the parameter names one. The
// parameter becomes the name.
func (c *Call) andSent(list []resource, name *string) ([]resource, error) {
	list, err := c.andSecret(list, name)
	if err != nil || *name == "" {
		return list, err
	}
	return append(list, c.secretResource(*name).needing(actionGetSecretValue)), nil
}

// retargeted are those of UpdateTarget: the target, and every secret whose value is sent to the new
// place from now on.
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

// deregistered are those of DeregisterTarget: the target, and with Detach every attached secret, whose
// rotation ends.
func deregistered(c *Call, in *kms.DeregisterTargetRequest, list []resource) ([]resource, error) {
	t, ok, err := c.Snapshot.Target(c.Account(), in.TargetName)
	if err != nil || !ok || !in.Detach {
		return list, err
	}
	err = c.attachedSecrets(c.Snapshot, t, func(s secret.Secret) bool {
		list = append(list, c.secretResource(s.Name).needing(actionRemoveRotation))
		return true
	})
	return list, err
}

// created are the resources of CreateSecret: the collection of secrets, the accounts that rotating a
// managed secret will change, whether or not its target is registered, and the secret itself when a
// policy for it is given.
func created(c *Call, in *kms.CreateSecretRequest, list []resource) ([]resource, error) {
	if s := (secret.Secret{Type: in.SecretType, ExtendedConfig: in.ExtendedConfig}); s.Managed() {
		data := in.SecretData
		if in.SecretType == kms.TypeRedis || in.SecretType == kms.TypePolarDB {
			data = secret.AutoAccounts(in.ExtendedConfig, secret.ManagedPassword)
		}
		list = c.andChanges(list, firstChanges(s, data))
	}
	if in.Policy != "" {
		list = append(list, c.secretResource(c.specOf(in).FinalName()).needing(actionSetSecretPolicy))
	}
	return list, nil
}

// tested are the resources of TestTarget: the target with its administrator, and the secret whose credential is tried.
func tested(c *Call, in *kms.TestTargetRequest, list []resource) ([]resource, error) {
	list, err := c.andAdmin(list, in.TargetName)
	if err != nil {
		return nil, err
	}
	return c.andSecret(list, &in.SecretName)
}

// andAdmin adds the secret of a target's administrator: a call that logs in at the target sends it there and does not give
// it away.
func (c *Call) andAdmin(list []resource, name string) ([]resource, error) {
	t, ok, err := c.Snapshot.Target(c.Account(), name)
	if ok && t.AdminSecret != "" {
		list = append(list, c.secretResource(t.AdminSecret).unlessDenied())
	}
	return list, err
}

// configured are the resources of ConfigureRotation: the secret, the target that it is tied to, and the
// accounts there that will change.
func configured(c *Call, in *kms.ConfigureRotationRequest, list []resource) ([]resource, error) {
	if in.TargetName != "" {
		list = append(list, c.targetResource(in.TargetName))
	}
	settings, err := c.rotationSettings(in)
	if err != nil {
		return list, nil // the handler refuses the same settings, after the caller was authorised
	}
	return c.andAccounts(list, in.SecretName, &settings)
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
	switch {
	case in.TargetName == secret.OwnUsers:
		return nil, fault.Parameter("TargetName", "the name ram is for the users of this service.")
	case strings.Contains(in.TargetName+"/", accountSegment):
		return nil, fault.Parameter("TargetName", "it must not contain %q, nor end so, which separates a target from an account in a policy.", accountSegment)
	}
	if err := checkAccounts(in.Accounts); err != nil {
		return nil, err
	}
	id, err := newTargetID(c.Random)
	if err != nil {
		return nil, err
	}
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*kms.TargetNameResponse, error) {
		if _, ok, err := tx.Target(c.Account(), in.TargetName); err != nil || ok {
			if err == nil {
				err = fault.New(fault.Exists, "There is a target %q already; UpdateTarget changes it.", in.TargetName)
			}
			return nil, err
		}
		t := store.Target{
			Account: c.Account(), Name: in.TargetName, ID: id, Kind: in.Kind, Config: json.RawMessage(in.Config),
			AdminSecret: in.AdminSecretName, Description: in.Description, Accounts: in.Accounts, CreatedAt: c.At, UpdatedAt: c.At,
		}
		if err := c.checkTarget(tx, &t); err != nil {
			return nil, err
		}
		return c.targetNamed(t.Name), tx.PutTarget(t)
	})
}

// newTargetID draws the ID of a registration.
func newTargetID(random io.Reader) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("draw a target ID: %w", err)
	}
	return "tgt-" + hex.EncodeToString(b[:]), nil
}

// checkAccounts refuses an account policy with a pattern that can match nothing.
func checkAccounts(patterns []string) error {
	for _, p := range patterns {
		if p == "" || utf8.RuneCountInString(p) > 256 || !utf8.ValidString(p) {
			return fault.Parameter("Account", "a pattern has 1 to 256 characters.")
		}
	}
	return nil
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
		ARN: c.targetResource(t.Name).arn, TargetName: t.Name, TargetID: t.ID, Kind: t.Kind, Config: string(t.Config), AdminSecretName: t.AdminSecret,
		Description: t.Description, Paused: t.Paused, CreateTime: t.CreatedAt, UpdateTime: t.UpdatedAt, Strategies: []string{},
		Accounts: append([]string{}, t.Accounts...),
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
	if err := checkAccounts(in.Accounts); err != nil {
		return nil, err
	}
	before, _, err := c.Snapshot.Target(c.Account(), in.TargetName)
	if err != nil {
		return nil, err
	}
	judged, err := c.redirected(c.Snapshot, before)
	if err != nil {
		return nil, err
	}
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*kms.TargetNameResponse, error) {
		t, err := c.existingTarget(tx, in.TargetName)
		if err != nil {
			return nil, err
		}
		if t.AdminSecret != before.AdminSecret {
			// The policies were not asked about that other secret.
			return nil, fault.New(fault.InUse, "Target %q has changed at this moment; read DescribeTarget and try again.", t.Name)
		}
		if in.Config != "" {
			sent, err := c.redirected(tx, t)
			if err != nil {
				return nil, err
			}
			if t.ID != before.ID || !slices.Equal(sent, judged) { // rights on other secrets were judged
				return nil, fault.New(fault.InUse, "Target %q, or what is attached to it, has changed at this moment; read DescribeTarget and try again.", t.Name)
			}
			t.Config = json.RawMessage(in.Config)
		}
		if in.AdminSecretName != "" {
			t.AdminSecret = in.AdminSecretName
		}
		if in.Description != nil {
			t.Description = *in.Description
		}
		if len(in.Accounts) > 0 {
			t.Accounts = in.Accounts
		}
		if err := c.checkTarget(tx, &t); err != nil {
			return nil, err
		}
		t.UpdatedAt = c.At
		return c.targetNamed(t.Name), tx.PutTarget(t)
	})
}

// mostAttached is how many attached secrets an error names.
const mostAttached = 20

// deregisterTarget forgets a target. It is refused while secrets are attached, or, with Detach, ends
// their rotation first. A secret that is attached at this very moment stays bound to the target's ID,
// which no later target has.
func deregisterTarget(ctx context.Context, c *Call, in *kms.DeregisterTargetRequest) (*kms.TargetNameResponse, error) {
	t, err := c.existingTarget(c.Snapshot, in.TargetName)
	if err != nil {
		return nil, err
	}
	var names []string
	err = c.attachedSecrets(c.Snapshot, t, func(s secret.Secret) bool {
		names = append(names, s.Name)
		return true
	})
	if err != nil {
		return nil, err
	}
	if !in.Detach && len(names) > 0 {
		return nil, fault.New(fault.InUse, "Secrets are attached to target %q: %s. RemoveRotation or DeleteSecret detaches one; DeregisterTarget with Detach detaches all.",
			t.Name, shortList(names, mostAttached))
	}
	for _, name := range names {
		if err := c.detach(ctx, name, t); err != nil {
			return nil, err
		}
	}
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*kms.TargetNameResponse, error) {
		now, err := c.existingTarget(tx, t.Name)
		if err == nil && now.ID != t.ID {
			err = fault.New(fault.InUse, "Target %q was registered anew at this moment; read DescribeTarget and try again.", t.Name)
		}
		if err != nil {
			return nil, err
		}
		tx.DeleteTarget(t.Account, t.Name)
		return c.targetNamed(t.Name), nil
	})
}

func shortList(names []string, most int) string {
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

// detach ends the rotation of one secret at a target that is about to go. A managed secret keeps its
// type and is bound to nothing.
func (c *Call) detach(ctx context.Context, name string, t store.Target) error {
	return store.Do(ctx, c.DB, func(tx *store.Tx) error {
		s, ok, err := tx.Secret(t.Account, name, c.At)
		if err != nil || !ok || s.TargetName() != t.Name || !s.BoundTo(t.ID) {
			return err
		}
		r, err := c.record(tx, s)
		if err != nil {
			return err
		}
		if r.InFlight() && r.State != rotation.Quarantined {
			return fault.New(fault.InUse, "The rotation of secret %q at target %q has not ended.", s.Name, t.Name)
		}
		if s.Managed() {
			s, _ = s.Bind(detachedID, nil)
		} else if s, err = s.Detach(c.At); err != nil {
			return err
		}
		if err := c.plan(tx, &s, c.At); err != nil {
			return err
		}
		return tx.PutSecret(s, nil)
	})
}

// detachedID is the ID of no target.
const detachedID = "none"

// defaultTestTime is how long a target has to answer a test, and how long it takes to say that
// it did not.
const defaultTestTime = 10 * time.Second

// testTarget makes one login, and says what came of it. That the target says no is an answer,
// not an error.
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
	ctx, ended := c.concealing(ctx, t, defaultTestTime)
	out := &kms.TestTargetResponse{TargetName: t.Name, Result: "ok"}
	switch tester, ok := system.(target.Tester); {
	case in.SecretName == "" && ok:
		err = tester.Test(ctx)
	case credential.IsZero():
		ended(nil)
		return nil, fault.Parameter("SecretName", "target %q has no administrator to log in as. SecretName must name a secret "+
			"that is attached to the target; its current credential is tried.", t.Name)
	default:
		err = system.Verify(ctx, credential)
	}
	ended(err)
	if err != nil {
		c.logDetail(t.Name, err)
		told, withheld := target.ForCaller(err)
		if said := (*target.Error)(nil); c.isLocal(t) && errors.As(err, &said) {
			told, withheld = *said, false
		}
		if withheld {
			told.Text = "target " + t.Name + ": " + told.Text
		}
		out.Result, out.Code, out.Message = told.Class.String(), told.Code, told.Text
	}
	return out, nil
}

// concealing bounds a call of a target by d. ended takes what came of it, and without an answer
// returns only when d is over: the duration of a call must not tell what listens at an address.
// Programs on this machine take their own time.
func (c *Call) concealing(
	ctx context.Context, t store.Target, d time.Duration,
) (bounded context.Context, ended func(error)) {
	if c.isLocal(t) {
		return ctx, func(error) {}
	}
	bounded, cancel := context.WithTimeout(ctx, cmp.Or(c.TestTime, d))
	return bounded, func(err error) {
		defer cancel()
		if _, withheld := target.ForCaller(err); withheld && errors.As(err, new(*target.Error)) {
			<-bounded.Done()
		}
	}
}

// logDetail logs for the operator what callers do not learn about a target's error.
func (e *Env) logDetail(name string, err error) {
	if target.Withholds(err) && e.Log != nil {
		e.Log.Info("a target did not answer as it should", "target", name, "err", err, "detail", target.DetailOf(err))
	}
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
	t, err := c.existingTarget(c.Snapshot, targetName)
	if err != nil {
		return target.Credential{}, err
	}
	if s.TargetName() != targetName || !s.BoundTo(t.ID) {
		return target.Credential{}, fault.Parameter("SecretName", "the secret %q is not bound to target %q.", name, targetName)
	}
	v, err := s.Select(secret.Current, "")
	if err != nil {
		return target.Credential{}, err
	}
	list, _, err := credentials(c.Env, c.Snapshot, s, v)
	if err != nil {
		return target.Credential{}, err
	}
	return list[0], mayUse(s, list[0])
}

// openTarget opens a target with its administrator.
// What it sends is recorded as sent by c; versions are those of c's secret that may be among it.
func (c *Call) openTarget(tx *store.Tx, t store.Target, versions ...string) (system target.Target, admin target.Credential, err error) {
	kind, ok := c.Kinds[t.Kind]
	if !ok {
		return nil, admin, fault.New(fault.InUse, "This server has no targets of kind %q.", t.Kind)
	}
	s := &sender{call: c, target: t, versions: versions}
	if t.AdminSecret != "" {
		if admin, s.admin, err = c.adminCredential(tx, t); err != nil {
			return nil, admin, err
		}
	}
	system, err = kind.Open(s.settings(admin))
	if err != nil {
		return nil, admin, fault.Wrap(fault.InUse, err, "Target %q cannot be opened: %s", t.Name, err)
	}
	return system, admin, nil
}

// adminCredential is the current version of the secret that a target names. It may be of any type that holds a credential.
func (e *Env) adminCredential(tx *store.Tx, t store.Target) (admin target.Credential, version string, err error) {
	s, ok, err := tx.Secret(t.Account, t.AdminSecret, e.Now().UTC())
	switch {
	case err != nil:
		return admin, "", err
	case !ok || s.Deleting():
		return admin, "", fault.New(fault.InUse, "The secret %q with the administrator of target %q is not there; UpdateTarget names another.", t.AdminSecret, t.Name)
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
	return admin, "", fault.New(fault.InUse, "The secret %q does not hold an administrator for target %q: use JSON such as {\"AccountName\":…,\"AccountPassword\":…}.", t.AdminSecret, t.Name)
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
