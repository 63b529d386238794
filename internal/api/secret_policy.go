package api

import (
	"context"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

// policyName is the name of the one policy that a secret has.
const policyName = "default"

func getSecretPolicy(_ context.Context, c *Call, in *kms.GetSecretPolicyRequest) (*kms.GetSecretPolicyResponse, error) {
	s, err := c.existing(c.Snapshot, in.SecretName)
	if err != nil {
		return nil, err
	}
	if err := onlyDefault(in.PolicyName); err != nil {
		return nil, err
	}
	if s.Policy == "" {
		return &kms.GetSecretPolicyResponse{Policy: policy.DefaultSecretDocument(c.Account())}, nil
	}
	return &kms.GetSecretPolicyResponse{Policy: s.Policy}, nil
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

// namedIDs returns the IDs of the users that a policy names. A name that nobody has is refused:
// whoever takes it later is not the one who was meant.
func (c *Call) namedIDs(tx *store.Tx, d policy.Document) (map[string]string, error) {
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
	d, err := c.checkPolicy(in.Policy)
	if err != nil {
		return nil, err
	}
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*kms.EmptyResponse, error) {
		s, err := c.existing(tx, in.SecretName)
		if err != nil {
			return nil, err
		}
		if err := onlyDefault(in.PolicyName); err != nil {
			return nil, err
		}
		ids, err := c.namedIDs(tx, d)
		if err != nil {
			return nil, err
		}
		if s, err = s.SetPolicy(in.Policy, ids, c.At); err != nil {
			return nil, err
		}
		return &kms.EmptyResponse{}, tx.PutSecret(s, nil)
	})
}

func onlyDefault(name string) error {
	if name != policyName {
		return fault.New(fault.NotFound, "A secret has one policy, named default.")
	}
	return nil
}
