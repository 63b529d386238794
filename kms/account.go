package kms

import (
	"context"

	"github.com/keyturn/keyturn/internal/operation"
)

// DescribeRegionsRequest lists the regions.
type DescribeRegionsRequest struct{}

// Region is one row of DescribeRegions.
type Region struct {
	RegionID string `kms:"RegionId"`
}

// DescribeRegionsResponse answers DescribeRegions: Keyturn has one region.
type DescribeRegionsResponse struct {
	Regions   []Region `kms:"Regions,list=Region"`
	RequestID string   `kms:"RequestId"`
}

// DescribeAccountKmsStatusRequest asks whether the service is switched on.
type DescribeAccountKmsStatusRequest struct{}

// DescribeAccountKmsStatusResponse answers DescribeAccountKmsStatus: Keyturn answers Enabled.
type DescribeAccountKmsStatusResponse struct {
	AccountStatus string `kms:"AccountStatus"`
	RequestID     string `kms:"RequestId"`
}

// GetCallerIdentityRequest asks who is calling. It belongs to the token service, STSVersion.
type GetCallerIdentityRequest struct{}

// GetCallerIdentityResponse answers GetCallerIdentity.
type GetCallerIdentityResponse struct {
	AccountID string `kms:"AccountId"`
	ARN       string `kms:"Arn"`
	// IdentityType is Account, RAMUser or AssumedRoleUser.
	IdentityType string `kms:"IdentityType"`
	PrincipalID  string `kms:"PrincipalId"`
	// RoleID is set for AssumedRoleUser, UserID for RAMUser.
	RoleID    string `kms:"RoleId,omitempty"`
	UserID    string `kms:"UserId,omitempty"`
	RequestID string `kms:"RequestId"`
}

// accountOperations declares the operations on the account.
var accountOperations = []operation.Declaration{
	declare[DescribeRegionsRequest, DescribeRegionsResponse]("DescribeRegions").On("*").AnyCaller().Impersonal(),
	declare[DescribeAccountKmsStatusRequest, DescribeAccountKmsStatusResponse]("DescribeAccountKmsStatus").On("*").
		Impersonal(),
	declareToken[GetCallerIdentityRequest, GetCallerIdentityResponse]("GetCallerIdentity").On("*").AnyCaller().
		Impersonal(),
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
