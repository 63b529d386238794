package kms

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/operation"
)

// RotateRootKeyRequest replaces the root key of the store, the key of the records' tags, and the
// versions of the master keys that seal new values. It returns when the new keys are in use; keys
// that the previous ones wrapped are wrapped again afterwards.
type RotateRootKeyRequest struct {
	// ReencryptValues also seals every stored value again, under a new data key and the new version
	// of its master key.
	ReencryptValues bool `kms:"ReencryptValues,default=false"`
	// Force rotates less than an hour after the last rotation. Only the root account may set it.
	Force bool `kms:"Force,default=false"`
}

// DescribeRootKeyRequest asks for the root key and its rotation.
type DescribeRootKeyRequest struct{}

// States of the rotation of the root key.
const (
	RootKeyIdle     = "Idle"
	RootKeyRotating = "Rotating"
)

// RootKeyResponse says which root key is in use and how far its rotation is. It contains no key.
type RootKeyResponse struct {
	RootKeyID string `kms:"RootKeyId"`
	// RotationState is Idle or Rotating. While it is Rotating, the previous root key is still
	// needed.
	RotationState string `kms:"RotationState"`
	// StartedAt is when the rotation that is under way began.
	StartedAt time.Time `kms:"StartedAt,omitempty"`
	// FormerRootKeyID is the key that is replaced; empty while no rotation is under way.
	FormerRootKeyID string `kms:"FormerRootKeyId,omitempty"`
	// NextRootKeyID is a key that this node accepts and that was never used: the next rotation
	// takes it.
	NextRootKeyID string `kms:"NextRootKeyId,omitempty"`
	// RecordKeyGeneration counts how often the key of the records' tags was replaced.
	RecordKeyGeneration int    `kms:"RecordKeyGeneration"`
	RequestID           string `kms:"RequestId"`
}

// RotateLocalCARequest makes a new local CA at the node that is called.
type RotateLocalCARequest struct {
	// OverlapDays is for how long the server still uses the old CA, while clients learn to trust
	// the new one.
	OverlapDays int `kms:"OverlapDays,min=1,max=365,default=30"`
}

// RotateLocalCAResponse says when the new CA takes over.
type RotateLocalCAResponse struct {
	// Certificate is the new CA, PEM: clients must trust it, beside the old one, before SwitchAt.
	Certificate string    `kms:"Certificate"`
	SwitchAt    time.Time `kms:"SwitchAt"`
	RequestID   string    `kms:"RequestId"`
}

// serverOperations declares the operations on the server itself, which are Keyturn's own.
var serverOperations = []operation.Declaration{
	declare[RotateRootKeyRequest, RootKeyResponse]("RotateRootKey").On("rootkey").Mutates().ByName(),
	declare[RotateLocalCARequest, RotateLocalCAResponse]("RotateLocalCA").On("localca").Mutates().ByName(),
	declare[DescribeRootKeyRequest, RootKeyResponse]("DescribeRootKey").On("rootkey"),
}

// RotateRootKey replaces the root key of the store. It is an operation of Keyturn's own.
func (c *Client) RotateRootKey(ctx context.Context, in *RotateRootKeyRequest) (*RootKeyResponse, error) {
	return call[RootKeyResponse](ctx, c, "RotateRootKey", in)
}

// RotateLocalCA creates a new local CA. It is an operation of Keyturn's own.
func (c *Client) RotateLocalCA(ctx context.Context, in *RotateLocalCARequest) (*RotateLocalCAResponse, error) {
	return call[RotateLocalCAResponse](ctx, c, "RotateLocalCA", in)
}

// DescribeRootKey returns which root key is in use. It is an operation of Keyturn's own.
func (c *Client) DescribeRootKey(ctx context.Context, in *DescribeRootKeyRequest) (*RootKeyResponse, error) {
	return call[RootKeyResponse](ctx, c, "DescribeRootKey", in)
}
