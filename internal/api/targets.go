package api

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

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
		if _, ok, err := tx.Target(c.Account(), in.TargetName); err != nil || ok {
			if err == nil {
				err = fault.New(fault.Exists, "There is a target %q already; UpdateTarget changes it.", in.TargetName)
			}
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

func describeTarget(_ context.Context, c *Call, in *kms.TargetNameRequest) (*kms.DescribeTargetResponse, error) {
	t, err := c.existingTarget(c.Snapshot, in.TargetName)
	if err != nil {
		return nil, err
	}
	out := &kms.DescribeTargetResponse{
		ARN:             c.targetResource(t.Name).arn,
		TargetName:      t.Name,
		TargetID:        t.ID,
		Kind:            t.Kind,
		Config:          string(t.Config),
		AdminSecretName: t.AdminSecret,
		Description:     t.Description,
		Paused:          t.Paused,
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

func listTargets(_ context.Context, c *Call, in *kms.ListTargetsRequest) (*kms.ListTargetsResponse, error) {
	after, err := afterToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	p := page[kms.ListedTarget]{rows: []kms.ListedTarget{}, most: in.MaxResults}
	err = c.Snapshot.Targets(c.Account(), following(after), func(t store.Target) bool {
		return p.add(t.Name, kms.ListedTarget{
			TargetName:      t.Name,
			Kind:            t.Kind,
			AdminSecretName: t.AdminSecret,
			Description:     t.Description,
			Paused:          t.Paused,
			UpdateTime:      t.UpdatedAt,
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
			return nil, fault.New(fault.InUse,
				"Target %q has changed at this moment; "+
					"read DescribeTarget and try again.", t.Name)
		}
		if in.Config != "" {
			sent, err := c.redirected(tx, t)
			if err != nil {
				return nil, err
			}
			if t.ID != before.ID || !slices.Equal(sent, judged) { // rights on other secrets were judged
				return nil, fault.New(fault.InUse,
					"Target %q, or what is attached to it, has changed at this moment; "+
						"read DescribeTarget and try again.", t.Name)
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
