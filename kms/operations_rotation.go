package kms

import "context"

// RegisterTarget makes a system known whose credentials are to be rotated. It is an operation of
// Keyturn's own.
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

// DeregisterTarget forgets a target; one with attached secrets, or whose credentials are being
// changed, is ErrResourceInUse. It is an operation of Keyturn's own.
func (c *Client) DeregisterTarget(ctx context.Context, in *DeregisterTargetRequest) (*TargetNameResponse, error) {
	return call[TargetNameResponse](ctx, c, "DeregisterTarget", in)
}

// TestTarget tries a target by one login. It is an operation of Keyturn's own.
func (c *Client) TestTarget(ctx context.Context, in *TestTargetRequest) (*TestTargetResponse, error) {
	return call[TestTargetResponse](ctx, c, "TestTarget", in)
}

// PrepareTargetAccounts makes two accounts of equal rights from one, or tells how. It is an
// operation of Keyturn's own.
func (c *Client) PrepareTargetAccounts(
	ctx context.Context, in *PrepareTargetAccountsRequest,
) (*PrepareTargetAccountsResponse, error) {
	return call[PrepareTargetAccountsResponse](ctx, c, "PrepareTargetAccounts", in)
}

// ConfigureRotation says how a secret is rotated. It is an operation of Keyturn's own.
func (c *Client) ConfigureRotation(
	ctx context.Context, in *ConfigureRotationRequest,
) (*DescribeRotationResponse, error) {
	return call[DescribeRotationResponse](ctx, c, "ConfigureRotation", in)
}

// RemoveRotation ends the rotation of a Generic secret by the service. It is an operation of
// Keyturn's own.
func (c *Client) RemoveRotation(ctx context.Context, in *SecretNameRequest) (*SecretNameResponse, error) {
	return call[SecretNameResponse](ctx, c, "RemoveRotation", in)
}

// DescribeRotation returns the state of a secret's rotation. It is an operation of Keyturn's own.
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

// ResumeRotation lets rotations begin again. It is an operation of Keyturn's own.
func (c *Client) ResumeRotation(ctx context.Context, in *PauseRotationRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "ResumeRotation", in)
}

// RehearseRotation rotates without the promotion, and takes it back. It is an operation of
// Keyturn's own.
func (c *Client) RehearseRotation(ctx context.Context, in *VersionedRequest) (*RotateSecretResponse, error) {
	return call[RotateSecretResponse](ctx, c, "RehearseRotation", in)
}

// EmergencyRotation replaces a credential that may have leaked, without grace, or says whom that
// breaks. It is an operation of Keyturn's own.
func (c *Client) EmergencyRotation(
	ctx context.Context, in *EmergencyRotationRequest,
) (*EmergencyRotationResponse, error) {
	return call[EmergencyRotationResponse](ctx, c, "EmergencyRotation", in)
}

// EndRotationGrace retires the former credential now. It is an operation of Keyturn's own.
func (c *Client) EndRotationGrace(ctx context.Context, in *SecretNameRequest) (*SecretNameResponse, error) {
	return call[SecretNameResponse](ctx, c, "EndRotationGrace", in)
}

// UndoRotation makes the former credential current again while its grace lasts. It is an operation
// of Keyturn's own.
func (c *Client) UndoRotation(ctx context.Context, in *SecretNameRequest) (*SecretNameResponse, error) {
	return call[SecretNameResponse](ctx, c, "UndoRotation", in)
}

// CancelRotation ends a rotation whose candidate the target does not have; any other is
// ErrResourceInUse. It is an operation of Keyturn's own.
func (c *Client) CancelRotation(ctx context.Context, in *SecretNameRequest) (*DescribeRotationResponse, error) {
	return call[DescribeRotationResponse](ctx, c, "CancelRotation", in)
}

// RepairRotation mends a rotation that is quarantined. It is an operation of Keyturn's own.
func (c *Client) RepairRotation(ctx context.Context, in *RepairRotationRequest) (*DescribeRotationResponse, error) {
	return call[DescribeRotationResponse](ctx, c, "RepairRotation", in)
}

// ProbeRotation has targets asked now whether they accept the credentials in use. It is an
// operation of Keyturn's own.
func (c *Client) ProbeRotation(ctx context.Context, in *PauseRotationRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "ProbeRotation", in)
}

// RotateRootKey replaces the root key of the store. It is an operation of Keyturn's own.
func (c *Client) RotateRootKey(ctx context.Context, in *RotateRootKeyRequest) (*RootKeyResponse, error) {
	return call[RootKeyResponse](ctx, c, "RotateRootKey", in)
}

// DescribeRootKey tells which root key is in use. It is an operation of Keyturn's own.
func (c *Client) DescribeRootKey(ctx context.Context, in *DescribeRootKeyRequest) (*RootKeyResponse, error) {
	return call[RootKeyResponse](ctx, c, "DescribeRootKey", in)
}

// RotateLocalCA makes a new local CA. It is an operation of Keyturn's own.
func (c *Client) RotateLocalCA(ctx context.Context, in *RotateLocalCARequest) (*RotateLocalCAResponse, error) {
	return call[RotateLocalCAResponse](ctx, c, "RotateLocalCA", in)
}
