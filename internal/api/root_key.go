package api

import (
	"context"
	"errors"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/kms"
)

// RootKeys rotates the keys of the store. It is the wiring's, since the root key is at its
// provider.
type RootKeys interface {
	// Rotate puts new keys into use, and has what the former ones wrapped wrapped anew. It is
	// refused less than [RootKeyInterval] after the last rotation, unless force is set.
	Rotate(ctx context.Context, values, force bool, at time.Time) error
	// Describe tells how far that is.
	Describe(ctx context.Context) (kms.RootKeyResponse, error)
}

// RootKeyInterval is the least time between two rotations of the root key. Each makes the copies
// of the root key useless that the operator keeps elsewhere.
const RootKeyInterval = time.Hour

var errNoRootKeys = errors.New("this server has no root key of its own")

func rotateRootKey(ctx context.Context, c *Call, in *kms.RotateRootKeyRequest) (*kms.RootKeyResponse, error) {
	if c.RootKeys == nil {
		return nil, errNoRootKeys
	}
	if in.Force && c.Principal.Kind != policy.KindAccount {
		return nil, fault.Parameter("Force", "only the root account may rotate the root key again within %s.",
			RootKeyInterval)
	}
	if err := c.RootKeys.Rotate(ctx, in.ReencryptValues, in.Force, c.At); err != nil {
		return nil, err
	}
	return describeRootKey(ctx, c, &kms.DescribeRootKeyRequest{})
}

func describeRootKey(ctx context.Context, c *Call, _ *kms.DescribeRootKeyRequest) (*kms.RootKeyResponse, error) {
	if c.RootKeys == nil {
		return nil, errNoRootKeys
	}
	out, err := c.RootKeys.Describe(ctx)
	return &out, err
}

func rotateLocalCA(_ context.Context, c *Call, in *kms.RotateLocalCARequest) (*kms.RotateLocalCAResponse, error) {
	if c.RotateCA == nil {
		return nil, errors.New("this server has no certificates")
	}
	out, err := c.RotateCA(time.Duration(in.OverlapDays) * 24 * time.Hour)
	return &out, err
}
