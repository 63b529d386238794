package kms

import "context"

// CreateSecret creates a secret and stores its first version. An existing name is
// [ErrResourceExist].
func (c *Client) CreateSecret(ctx context.Context, in *CreateSecretRequest) (*CreateSecretResponse, error) {
	return call[CreateSecretResponse](ctx, c, "CreateSecret", in)
}

// DeleteSecret schedules the deletion of a secret, or deletes it at once.
func (c *Client) DeleteSecret(ctx context.Context, in *DeleteSecretRequest) (*DeleteSecretResponse, error) {
	return call[DeleteSecretResponse](ctx, c, "DeleteSecret", in)
}

// RestoreSecret cancels a scheduled deletion. A secret without one is [ErrResourceInUse].
func (c *Client) RestoreSecret(ctx context.Context, in *RestoreSecretRequest) (*SecretNameResponse, error) {
	return call[SecretNameResponse](ctx, c, "RestoreSecret", in)
}

// DescribeSecret returns the metadata of a secret.
func (c *Client) DescribeSecret(ctx context.Context, in *DescribeSecretRequest) (*DescribeSecretResponse, error) {
	return call[DescribeSecretResponse](ctx, c, "DescribeSecret", in)
}

// GetRandomPassword returns a random password.
func (c *Client) GetRandomPassword(
	ctx context.Context, in *GetRandomPasswordRequest,
) (*GetRandomPasswordResponse, error) {
	return call[GetRandomPasswordResponse](ctx, c, "GetRandomPassword", in)
}

// GetSecretValue returns one version of the value: [StageCurrent] unless the request names another.
func (c *Client) GetSecretValue(ctx context.Context, in *GetSecretValueRequest) (*GetSecretValueResponse, error) {
	return call[GetSecretValueResponse](ctx, c, "GetSecretValue", in)
}

// ListSecrets returns a page of secrets.
func (c *Client) ListSecrets(ctx context.Context, in *ListSecretsRequest) (*ListSecretsResponse, error) {
	return call[ListSecretsResponse](ctx, c, "ListSecrets", in)
}

// ListSecretVersionIds returns a page of the versions of a secret.
func (c *Client) ListSecretVersionIds(
	ctx context.Context, in *ListSecretVersionIdsRequest,
) (*ListSecretVersionIdsResponse, error) {
	return call[ListSecretVersionIdsResponse](ctx, c, "ListSecretVersionIds", in)
}

// PutSecretValue stores a new version. An existing VersionID with another value is
// [ErrResourceExist].
func (c *Client) PutSecretValue(ctx context.Context, in *PutSecretValueRequest) (*PutSecretValueResponse, error) {
	return call[PutSecretValueResponse](ctx, c, "PutSecretValue", in)
}

// UpdateSecret changes the metadata of a secret.
func (c *Client) UpdateSecret(ctx context.Context, in *UpdateSecretRequest) (*SecretNameResponse, error) {
	return call[SecretNameResponse](ctx, c, "UpdateSecret", in)
}

// UpdateSecretVersionStage adds, moves or removes one label. The client does not repeat it after an
// unknown outcome: with RemoveFromVersion it is a compare-and-swap.
func (c *Client) UpdateSecretVersionStage(
	ctx context.Context, in *UpdateSecretVersionStageRequest,
) (*SecretNameResponse, error) {
	return call[SecretNameResponse](ctx, c, "UpdateSecretVersionStage", in)
}

// RotateSecret starts a rotation of a managed secret.
func (c *Client) RotateSecret(ctx context.Context, in *RotateSecretRequest) (*RotateSecretResponse, error) {
	return call[RotateSecretResponse](ctx, c, "RotateSecret", in)
}

// UpdateSecretRotationPolicy turns automatic rotation on or off.
func (c *Client) UpdateSecretRotationPolicy(
	ctx context.Context, in *UpdateSecretRotationPolicyRequest,
) (*SecretNameResponse, error) {
	return call[SecretNameResponse](ctx, c, "UpdateSecretRotationPolicy", in)
}

// GetSecretPolicy returns the policy of a secret.
func (c *Client) GetSecretPolicy(ctx context.Context, in *GetSecretPolicyRequest) (*GetSecretPolicyResponse, error) {
	return call[GetSecretPolicyResponse](ctx, c, "GetSecretPolicy", in)
}

// SetSecretPolicy replaces the policy of a secret.
func (c *Client) SetSecretPolicy(ctx context.Context, in *SetSecretPolicyRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "SetSecretPolicy", in)
}

// TagResource adds or overwrites tags of one resource.
func (c *Client) TagResource(ctx context.Context, in *TagResourceRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "TagResource", in)
}

// UntagResource removes tags of one resource.
func (c *Client) UntagResource(ctx context.Context, in *UntagResourceRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "UntagResource", in)
}

// ListResourceTags returns the tags of a key.
func (c *Client) ListResourceTags(ctx context.Context, in *ListResourceTagsRequest) (*ListResourceTagsResponse, error) {
	return call[ListResourceTagsResponse](ctx, c, "ListResourceTags", in)
}

// TagResources adds tags to several resources, all or none.
func (c *Client) TagResources(ctx context.Context, in *TagResourcesRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "TagResources", in)
}

// UntagResources removes tags from several resources, all or none.
func (c *Client) UntagResources(ctx context.Context, in *UntagResourcesRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "UntagResources", in)
}

// ListTagResources returns a page of tags.
func (c *Client) ListTagResources(ctx context.Context, in *ListTagResourcesRequest) (*ListTagResourcesResponse, error) {
	return call[ListTagResourcesResponse](ctx, c, "ListTagResources", in)
}

// DescribeRegions returns the region of the server.
func (c *Client) DescribeRegions(ctx context.Context, in *DescribeRegionsRequest) (*DescribeRegionsResponse, error) {
	return call[DescribeRegionsResponse](ctx, c, "DescribeRegions", in)
}

// DescribeAccountKmsStatus returns whether the service is enabled.
func (c *Client) DescribeAccountKmsStatus(
	ctx context.Context, in *DescribeAccountKmsStatusRequest,
) (*DescribeAccountKmsStatusResponse, error) {
	return call[DescribeAccountKmsStatusResponse](ctx, c, "DescribeAccountKmsStatus", in)
}

// GetCallerIdentity returns the identity of the caller.
func (c *Client) GetCallerIdentity(
	ctx context.Context, in *GetCallerIdentityRequest,
) (*GetCallerIdentityResponse, error) {
	return call[GetCallerIdentityResponse](ctx, c, "GetCallerIdentity", in)
}
