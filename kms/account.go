package kms

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
