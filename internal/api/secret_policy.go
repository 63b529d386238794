package api

import (
	"cmp"
	"context"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

// policyName is the name of the one policy that a secret has.
const policyName = "default"

func getSecretPolicy(c *Call, in *kms.GetSecretPolicyRequest) (*kms.GetSecretPolicyResponse, error) {
	s, err := c.existing(c.Snapshot, in.SecretName)
	if err != nil {
		return nil, err
	}
	if err := onlyDefault(in.PolicyName); err != nil {
		return nil, err
	}
	return &kms.GetSecretPolicyResponse{Policy: cmp.Or(s.Policy, policy.DefaultSecretDocument(c.Account()))}, nil
}

// checkPolicy refuses a document that cannot be the policy of a secret.
func (c *Call) checkPolicy(document string) (policy.Document, error) {
	d, err := policy.ParseSecret(document, c.Account())
	if err == nil {
		err = d.CheckOwner(grantable())
	}
	if err != nil {
		return d, fault.Parameter("Policy", "%s", err)
	}
	return d, nil
}

// namedIn returns the IDs of the users that the policy of a secret names. A name that no user has
// is refused: a user who takes it later is not the one that was meant.
func (c *Call) namedIn(tx *store.Tx, document string) (map[string]string, error) {
	d, err := c.checkPolicy(document)
	if err != nil {
		return nil, err
	}
	ids := map[string]string{}
	for _, arn := range d.Named() {
		id, err := tx.UserID(c.Account(), arn)
		if err != nil {
			return nil, err
		}
		if id == "" {
			return nil, fault.Parameter("Policy",
				"it names %s, and there is no such principal here; name a user of this account that exists.", arn)
		}
		ids[arn] = id
	}
	return ids, nil
}

func setSecretPolicy(ctx context.Context, c *Call, in *kms.SetSecretPolicyRequest) (*kms.EmptyResponse, error) {
	if _, err := c.checkPolicy(in.Policy); err != nil {
		return nil, err
	}
	_, err := c.alter(ctx, in.SecretName, func(tx *store.Tx, s secret.Secret) (secret.Secret, error) {
		if err := onlyDefault(in.PolicyName); err != nil {
			return s, err
		}
		ids, err := c.namedIn(tx, in.Policy)
		if err != nil {
			return s, err
		}
		return s.SetPolicy(in.Policy, ids, c.At)
	})
	return &kms.EmptyResponse{}, err
}

func onlyDefault(name string) error {
	if name != policyName {
		return fault.New(fault.NotFound, "A secret has one policy, named default.")
	}
	return nil
}
