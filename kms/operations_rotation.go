package kms

import "context"

// RegisterTarget registers a system whose credentials are rotated. It is an operation of Keyturn's
// own.
func (c *Client) RegisterTarget(ctx context.Context, in *RegisterTargetRequest) (*TargetNameResponse, error) {
	return call[TargetNameResponse](ctx, c, "RegisterTarget", in)
}

// DescribeTarget returns a target. It is an operation of Keyturn's own.
func (c *Client) DescribeTarget(ctx context.Context, in *TargetNameRequest) (*DescribeTargetResponse, error) {
	return call[DescribeTargetResponse](ctx, c, "DescribeTarget", in)
}

// ListTargets returns a page of targets. It is an operation of Keyturn's own.
func (c *Client) ListTargets(ctx context.Context, in *ListTargetsRequest) (*ListTargetsResponse, error) {
	return call[ListTargetsResponse](ctx, c, "ListTargets", in)
}

// UpdateTarget changes a target. It is an operation of Keyturn's own.
func (c *Client) UpdateTarget(ctx context.Context, in *UpdateTargetRequest) (*TargetNameResponse, error) {
	return call[TargetNameResponse](ctx, c, "UpdateTarget", in)
}

// DeregisterTarget removes a target. A target with attached secrets, or whose credentials are being
// changed, is [ErrResourceInUse]. It is an operation of Keyturn's own.
func (c *Client) DeregisterTarget(ctx context.Context, in *DeregisterTargetRequest) (*TargetNameResponse, error) {
	return call[TargetNameResponse](ctx, c, "DeregisterTarget", in)
}

// TestTarget tests a target by one login. It is an operation of Keyturn's own.
func (c *Client) TestTarget(ctx context.Context, in *TestTargetRequest) (*TestTargetResponse, error) {
	return call[TestTargetResponse](ctx, c, "TestTarget", in)
}

// PrepareTargetAccounts makes two accounts of equal rights from one, or returns the statements that
// would. It is an operation of Keyturn's own.
func (c *Client) PrepareTargetAccounts(
	ctx context.Context, in *PrepareTargetAccountsRequest,
) (*PrepareTargetAccountsResponse, error) {
	return call[PrepareTargetAccountsResponse](ctx, c, "PrepareTargetAccounts", in)
}

// ConfigureRotation sets how a secret is rotated. It is an operation of Keyturn's own.
func (c *Client) ConfigureRotation(
	ctx context.Context, in *ConfigureRotationRequest,
) (*DescribeRotationResponse, error) {
	return call[DescribeRotationResponse](ctx, c, "ConfigureRotation", in)
}

// RemoveRotation ends the rotation of a [TypeGeneric] secret by the service. It is an operation of
// Keyturn's own.
func (c *Client) RemoveRotation(ctx context.Context, in *SecretNameRequest) (*SecretNameResponse, error) {
	return call[SecretNameResponse](ctx, c, "RemoveRotation", in)
}

// DescribeRotation returns the state of the rotation of a secret. It is an operation of Keyturn's
// own.
func (c *Client) DescribeRotation(ctx context.Context, in *SecretNameRequest) (*DescribeRotationResponse, error) {
	return call[DescribeRotationResponse](ctx, c, "DescribeRotation", in)
}

// ListRotations returns a page of rotations. It is an operation of Keyturn's own.
func (c *Client) ListRotations(ctx context.Context, in *ListRotationsRequest) (*ListRotationsResponse, error) {
	return call[ListRotationsResponse](ctx, c, "ListRotations", in)
}

// PauseRotation stops new rotations. It is an operation of Keyturn's own.
func (c *Client) PauseRotation(ctx context.Context, in *PauseRotationRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "PauseRotation", in)
}

// ResumeRotation allows new rotations again. It is an operation of Keyturn's own.
func (c *Client) ResumeRotation(ctx context.Context, in *PauseRotationRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "ResumeRotation", in)
}

// RehearseRotation rotates up to the promotion and then reverts every step. It is an operation of
// Keyturn's own.
func (c *Client) RehearseRotation(ctx context.Context, in *VersionedRequest) (*RotateSecretResponse, error) {
	return call[RotateSecretResponse](ctx, c, "RehearseRotation", in)
}

// EmergencyRotation replaces a credential that may have leaked, without a grace period, or returns
// the consumers that this would break. It is an operation of Keyturn's own.
func (c *Client) EmergencyRotation(
	ctx context.Context, in *EmergencyRotationRequest,
) (*EmergencyRotationResponse, error) {
	return call[EmergencyRotationResponse](ctx, c, "EmergencyRotation", in)
}

// EndRotationGrace retires the previous credential now. It is an operation of Keyturn's own.
func (c *Client) EndRotationGrace(ctx context.Context, in *SecretNameRequest) (*SecretNameResponse, error) {
	return call[SecretNameResponse](ctx, c, "EndRotationGrace", in)
}

// UndoRotation makes the previous credential current again during its grace period. It is an
// operation of Keyturn's own.
func (c *Client) UndoRotation(ctx context.Context, in *SecretNameRequest) (*SecretNameResponse, error) {
	return call[SecretNameResponse](ctx, c, "UndoRotation", in)
}

// CancelRotation ends a rotation whose candidate has not reached the target; any other is
// [ErrResourceInUse]. It is an operation of Keyturn's own.
func (c *Client) CancelRotation(ctx context.Context, in *SecretNameRequest) (*DescribeRotationResponse, error) {
	return call[DescribeRotationResponse](ctx, c, "CancelRotation", in)
}

// RepairRotation repairs a rotation that is quarantined. It is an operation of Keyturn's own.
func (c *Client) RepairRotation(ctx context.Context, in *RepairRotationRequest) (*DescribeRotationResponse, error) {
	return call[DescribeRotationResponse](ctx, c, "RepairRotation", in)
}

// ProbeRotation checks now, at the targets, whether the credentials in use are accepted. It is an
// operation of Keyturn's own.
func (c *Client) ProbeRotation(ctx context.Context, in *PauseRotationRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "ProbeRotation", in)
}

// RotateRootKey replaces the root key of the store. It is an operation of Keyturn's own.
func (c *Client) RotateRootKey(ctx context.Context, in *RotateRootKeyRequest) (*RootKeyResponse, error) {
	return call[RootKeyResponse](ctx, c, "RotateRootKey", in)
}

// DescribeRootKey returns which root key is in use. It is an operation of Keyturn's own.
func (c *Client) DescribeRootKey(ctx context.Context, in *DescribeRootKeyRequest) (*RootKeyResponse, error) {
	return call[RootKeyResponse](ctx, c, "DescribeRootKey", in)
}

// RotateLocalCA creates a new local CA. It is an operation of Keyturn's own.
func (c *Client) RotateLocalCA(ctx context.Context, in *RotateLocalCARequest) (*RotateLocalCAResponse, error) {
	return call[RotateLocalCAResponse](ctx, c, "RotateLocalCA", in)
}
