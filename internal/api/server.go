package api

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/kms"
)

// Trail reports the state of the audit trail of this node.
type Trail interface {
	Head() audit.Head
	Losses() uint64
}

func describeAuditTrail(c *Call, _ *kms.DescribeAuditTrailRequest) (*kms.DescribeAuditTrailResponse, error) {
	if c.Trail == nil {
		return nil, fault.New(fault.Unsupported, "This process keeps no audit trail.")
	}
	h := c.Trail.Head()
	return &kms.DescribeAuditTrailResponse{
		Node:          h.Node,
		Sequence:      int(h.Seq),
		Hash:          h.Hash,
		FirstSequence: int(h.First),
		KeyedFrom:     int(h.KeyedFrom),
		Losses:        int(c.Trail.Losses()),
	}, nil
}

// RootKeys rotates the keys of the store. The wiring implements it, because the root key is at its
// provider.
type RootKeys interface {
	// Rotate puts new keys into use, and rewraps everything that the previous ones wrapped. It is
	// refused less than [RootKeyInterval] after the last rotation, unless force is set.
	Rotate(ctx context.Context, values, force bool, at time.Time) error
	// Describe returns the progress of the last rotation.
	Describe(ctx context.Context) (kms.RootKeyResponse, error)
}

// RootKeyInterval is the least time between two rotations of the root key. Each rotation makes
// useless the copies of the root key that the operator keeps elsewhere.
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

func rotateLocalCA(ctx context.Context, c *Call, in *kms.RotateLocalCARequest) (*kms.RotateLocalCAResponse, error) {
	if c.RotateCA == nil {
		return nil, errors.New("this server has no certificates")
	}
	out, err := c.RotateCA(ctx, time.Duration(in.OverlapDays)*24*time.Hour)
	return &out, err
}

func describeRegions(c *Call, _ *kms.DescribeRegionsRequest) (*kms.DescribeRegionsResponse, error) {
	return &kms.DescribeRegionsResponse{Regions: []kms.Region{{RegionID: c.Region}}}, nil
}

func describeAccountKmsStatus(
	_ *Call, _ *kms.DescribeAccountKmsStatusRequest,
) (*kms.DescribeAccountKmsStatusResponse, error) {
	return &kms.DescribeAccountKmsStatusResponse{AccountStatus: "Enabled"}, nil
}

func getCallerIdentity(c *Call, _ *kms.GetCallerIdentityRequest) (*kms.GetCallerIdentityResponse, error) {
	p := c.Principal
	out := &kms.GetCallerIdentityResponse{
		AccountID:    p.Account,
		ARN:          p.ARN(),
		IdentityType: string(p.Kind),
		PrincipalID:  p.ID,
	}
	switch out.IdentityType {
	case "RAMUser":
		out.UserID = p.ID
	case "AssumedRoleUser":
		out.RoleID, _, _ = strings.Cut(p.ID, ":")
	}
	return out, nil
}
