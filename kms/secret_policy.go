package kms

import (
	"context"

	"github.com/keyturn/keyturn/internal/operation"
)

// GetSecretPolicyRequest asks for the policy of a secret.
type GetSecretPolicyRequest struct {
	// SecretName is the name or the ARN.
	SecretName string `kms:"SecretName,required,min=1,max=192,pattern=name,arn,resource=secret"`
	// PolicyName is "default", the only one; empty means it.
	PolicyName string `kms:"PolicyName,default=default"`
}

// GetSecretPolicyResponse answers GetSecretPolicy.
type GetSecretPolicyResponse struct {
	// Policy is the document, JSON text.
	Policy    string `kms:"Policy,json"`
	RequestID string `kms:"RequestId"`
}

// SetSecretPolicyRequest replaces the policy of a secret. POST only.
type SetSecretPolicyRequest struct {
	// SecretName is the name or the ARN.
	SecretName string `kms:"SecretName,required,min=1,max=192,pattern=name,arn,resource=secret"`
	// Policy is a document of at most 32768 bytes.
	Policy string `kms:"Policy,required,json,max=32768,bytes"`
	// PolicyName is "default", the only one; empty means it.
	PolicyName string `kms:"PolicyName,default=default"`
}

// secretPolicyOperations declares the operations on the policies of secrets.
var secretPolicyOperations = []operation.Declaration{
	declare[GetSecretPolicyRequest, GetSecretPolicyResponse]("GetSecretPolicy").Repairs(),
	declare[SetSecretPolicyRequest, EmptyResponse]("SetSecretPolicy").Mutates().Retryable().Repairs().Only("POST"),
}

// GetSecretPolicy returns the policy of a secret.
func (c *Client) GetSecretPolicy(ctx context.Context, in *GetSecretPolicyRequest) (*GetSecretPolicyResponse, error) {
	return call[GetSecretPolicyResponse](ctx, c, "GetSecretPolicy", in)
}

// SetSecretPolicy replaces the policy of a secret.
func (c *Client) SetSecretPolicy(ctx context.Context, in *SetSecretPolicyRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "SetSecretPolicy", in)
}
