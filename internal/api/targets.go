package api

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

// existingTarget reads a target that must exist.
func (c *Call) existingTarget(tx *store.Tx, name string) (store.Target, error) {
	t, ok, err := tx.Target(c.Account(), name)
	if err == nil && !ok {
		err = fault.New(fault.NotFound, "There is no target %q; keyturn target add %s --kind=KIND registers it.", name, name)
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
	if err := s.Usable(); err != nil {
		return err
	}
	return tx.ChangeUse(c.Account(), s.Name)
}

func (c *Call) kindNames() []string { return slices.Sorted(maps.Keys(c.Kinds)) }

func registerTarget(ctx context.Context, c *Call, in *kms.RegisterTargetRequest) (*kms.TargetNameResponse, error) {
	c.resource = c.targetResource(in.TargetName)
	switch {
	case in.TargetName == secret.OwnUsers:
		return nil, fault.Parameter("TargetName", "the name ram is for the users of this service.")
	case strings.Contains(in.TargetName+"/", accountSegment):
		return nil, fault.Parameter("TargetName",
			"it must not contain %q, nor end so, which separates a target from an account in a policy.", accountSegment)
	}
	if err := checkAccounts(in.Accounts); err != nil {
		return nil, err
	}
	id, err := newTargetID(c.Random)
	if err != nil {
		return nil, err
	}
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*kms.TargetNameResponse, error) {
		_, taken, err := tx.Target(c.Account(), in.TargetName)
		if err == nil && taken {
			err = fault.New(fault.Exists, "There is a target %q already; keyturn target update %s changes it.",
				in.TargetName, in.TargetName)
		}
		if err != nil {
			return nil, err
		}
		t := store.Target{
			Account:     c.Account(),
			Name:        in.TargetName,
			ID:          id,
			Kind:        in.Kind,
			Config:      json.RawMessage(in.Config),
			AdminSecret: in.AdminSecretName,
			Description: in.Description,
			Accounts:    in.Accounts,
			CreatedAt:   c.At,
			UpdatedAt:   c.At,
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

func describeTarget(c *Call, in *kms.TargetNameRequest) (*kms.DescribeTargetResponse, error) {
	t, err := c.existingTarget(c.Snapshot, in.TargetName)
	if err != nil {
		return nil, err
	}
	all, err := allPauses(c.Snapshot)
	if err != nil {
		return nil, err
	}
	pauses := pausesAt(all, t)
	out := &kms.DescribeTargetResponse{
		ARN:             c.targetResource(t.Name).arn,
		TargetName:      t.Name,
		TargetID:        t.ID,
		Kind:            t.Kind,
		Config:          string(t.Config),
		AdminSecretName: t.AdminSecret,
		Description:     t.Description,
		Paused:          len(pauses) > 0,
		Pauses:          pauses,
		CreateTime:      t.CreatedAt,
		UpdateTime:      t.UpdatedAt,
		Strategies:      []string{},
		Accounts:        append([]string{}, t.Accounts...),
	}
	for _, s := range c.Kinds[t.Kind].Strategies {
		out.Strategies = append(out.Strategies, string(s))
	}
	return out, nil
}

func listTargets(c *Call, in *kms.ListTargetsRequest) (*kms.ListTargetsResponse, error) {
	p, err := newPage[kms.ListedTarget]("NextToken", in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	all, err := allPauses(c.Snapshot)
	if err != nil {
		return nil, err
	}
	err = c.Snapshot.Targets(c.Account(), nextName(p.after), func(t store.Target) bool {
		pauses := pausesAt(all, t)
		return p.add(t.Name, kms.ListedTarget{
			TargetName:      t.Name,
			Kind:            t.Kind,
			AdminSecretName: t.AdminSecret,
			Description:     t.Description,
			Paused:          len(pauses) > 0,
			Pauses:          pauses,
			UpdateTime:      t.UpdatedAt,
		})
	})
	return &kms.ListTargetsResponse{Targets: p.rows, Pauses: all, NextToken: p.marker()}, err
}

// nextName returns the first name that can come after one.
func nextName(name string) string {
	if name == "" {
		return ""
	}
	return name + "\x00"
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
	changed := false
	out, err := store.Update(ctx, c.DB, func(tx *store.Tx) (*kms.TargetNameResponse, error) {
		t, err := c.existingTarget(tx, in.TargetName)
		if err != nil {
			return nil, err
		}
		former := t
		if err := c.checkUnchanged(tx, t, before, judged, in.Config != ""); err != nil {
			return nil, err
		}
		if in.Config != "" {
			t.Config = json.RawMessage(in.Config)
		}
		t.AdminSecret = cmp.Or(in.AdminSecretName, t.AdminSecret)
		if in.Description != nil {
			t.Description = *in.Description
		}
		if len(in.Accounts) > 0 {
			t.Accounts = in.Accounts
		}
		if err := c.checkTarget(tx, &t); err != nil {
			return nil, err
		}
		if in.Config != "" {
			if err := c.keepsLogins(tx, t); err != nil {
				return nil, err
			}
		}
		t.UpdatedAt = c.At
		changed = isRedirected(former, t)
		return c.targetNamed(t.Name), tx.PutTarget(t)
	})
	if err == nil && changed {
		c.gate.targetChanged(c.Account(), out.TargetName)
	}
	return out, err
}

// isRedirected reports whether a target has another configuration, or its administrator another
// secret, than before.
func isRedirected(before, after store.Target) bool {
	if before.AdminSecret != after.AdminSecret {
		return true
	}
	var configs [2]any
	err := errors.Join(json.Unmarshal(before.Config, &configs[0]), json.Unmarshal(after.Config, &configs[1]))
	return err != nil || !reflect.DeepEqual(configs[0], configs[1])
}

// keepsLogins refuses a configuration of a target that no longer has an address at which the
// application of an attached secret logs in: no login would stand for the application then, and no
// rotation could begin.
func (c *Call) keepsLogins(tx *store.Tx, t store.Target) error {
	attached, err := c.detachable(tx, t)
	if err != nil {
		return err
	}
	var names []string
	for _, s := range attached {
		if c.checkLogin(t, s.Settings().Login) != nil {
			names = append(names, s.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	shown, err := c.shownSecrets(names)
	if err != nil {
		return err
	}
	return fault.New(fault.InUse,
		"Target %q would no longer have addresses at which applications log in with %s. Keep these "+
			"addresses in verify beside the new ones, change each secret (keyturn rotation configure NAME "+
			"--login-endpoint=ADDRESS), and then remove them.", t.Name, shown)
}

// mayDescribe reports whether the caller may learn the name of a secret. The engine may not: what
// it writes is kept with another secret.
func (c *Call) mayDescribe(name string) (bool, error) {
	return c.may(c.secretResource(name), actionDescribeSecret)
}

// may reports whether the caller, who is not the engine, has a right.
func (c *Call) may(r resource, action string) (bool, error) {
	if c.Principal.Kind == policy.KindSystem {
		return false, nil
	}
	d, err := c.gate.decide(c, r, action)
	return d.Allowed, err
}

// shownSecrets names secrets in an error, see [Call.shown].
func (c *Call) shownSecrets(names []string) (string, error) {
	return c.shown("secret", names, c.secretResource, actionDescribeSecret)
}

// shownTargets names targets in an error, see [Call.shown].
func (c *Call) shownTargets(names []string) (string, error) {
	return c.shown("target", names, c.targetResource, actionDescribeTarget)
}

// shown names things in an error: at most mostAttached that the caller may describe, and how many
// others there are.
func (c *Call) shown(what string, names []string, of func(string) resource, action string) (string, error) {
	var shown []string
	for _, name := range names {
		if len(shown) == mostAttached {
			break
		}
		may, err := c.may(of(name), action)
		if err != nil {
			return "", err
		}
		if may {
			shown = append(shown, name)
		}
	}
	switch others := len(names) - len(shown); {
	case len(shown) == 0 && others == 1:
		return fmt.Sprintf("1 %s that you may not describe (%s)", what, action), nil
	case len(shown) == 0:
		return fmt.Sprintf("%d %ss that you may not describe (%s)", others, what, action), nil
	case others > 0:
		return fmt.Sprintf("%s and %d more", strings.Join(shown, ", "), others), nil
	}
	return strings.Join(shown, ", "), nil
}

// checkUnchanged refuses a change of a target when other secrets than those in judged are sent
// there now: the policies were not asked about them. moves reports that the target gets another
// address.
func (c *Call) checkUnchanged(tx *store.Tx, now, before store.Target, judged []string, moves bool) error {
	if now.AdminSecret != before.AdminSecret {
		return fault.New(fault.InUse, "Target %q has changed at this moment; read keyturn target show %s and try again.",
			now.Name, now.Name)
	}
	if !moves {
		return nil
	}
	// A secret that is attached before the commit was not judged.
	if err := tx.GuardAttached(c.Account(), now.Name); err != nil {
		return err
	}
	sent, err := c.redirected(tx, now)
	if err == nil && (now.ID != before.ID || !slices.Equal(sent, judged)) {
		err = fault.New(fault.InUse, "Target %q, or what is attached to it, has changed at this moment; "+
			"read keyturn target show %s and try again.", now.Name, now.Name)
	}
	return err
}

// mostAttached is how many attached secrets an error names.
const mostAttached = 20

// deregisterTarget deletes a target. It is refused while secrets are attached, or, with Detach,
// ends their rotation first. A secret that is attached at this very moment, or waits for its
// deletion, stays bound to the target's ID, which no later target has.
func deregisterTarget(ctx context.Context, c *Call, in *kms.DeregisterTargetRequest) (*kms.TargetNameResponse, error) {
	t, err := c.existingTarget(c.Snapshot, in.TargetName)
	if err != nil {
		return nil, err
	}
	attached, err := c.detachable(c.Snapshot, t)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range attached {
		names = append(names, s.Name)
	}
	if !in.Detach && len(names) > 0 {
		shown, err := c.shownSecrets(names)
		if err != nil {
			return nil, err
		}
		return nil, fault.New(fault.InUse,
			"Secrets are attached to target %q: %s. keyturn rotation detach NAME (a Generic secret) or "+
				"keyturn secret delete NAME detaches one, also while the secret can be restored; keyturn target remove %s "+
				"--detach detaches all.",
			t.Name, shown, t.Name)
	}
	for _, name := range names {
		if err := c.detach(ctx, name, t); err != nil {
			return nil, err
		}
	}
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*kms.TargetNameResponse, error) {
		now, err := c.existingTarget(tx, t.Name)
		if err == nil && now.ID != t.ID {
			err = fault.New(fault.InUse,
				"Target %q was registered anew at this moment; read keyturn target show %s and try again.",
				t.Name, t.Name)
		}
		if err != nil {
			return nil, err
		}
		tx.DeleteTarget(t.Account, t.Name)
		return c.targetNamed(t.Name), nil
	})
}

// detach ends the rotation of one secret at a target that is about to be deleted. A managed secret
// keeps its type and is bound to nothing.
func (c *Call) detach(ctx context.Context, name string, t store.Target) error {
	return store.Do(ctx, c.DB, func(tx *store.Tx) error {
		s, ok, err := tx.Secret(t.Account, name, c.At)
		if err != nil || !ok || s.TargetName() != t.Name || !s.BoundTo(t.ID) {
			return err
		}
		r, err := c.rotationOf(tx, s)
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
		if s, err = c.plan(tx, s); err != nil {
			return err
		}
		return tx.PutSecret(s, nil)
	})
}

// detachedID is the ID of no target.
const detachedID = "none"
