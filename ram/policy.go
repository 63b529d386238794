package ram

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/operation"
)

// Tag is a tag of a policy.
type Tag struct {
	Key   string `flat:"Key"`
	Value string `flat:"Value"`
}

// Policy is a policy without its document.
type Policy struct {
	PolicyName      string    `kms:"PolicyName"`
	PolicyType      string    `kms:"PolicyType"`
	Description     string    `kms:"Description"`
	DefaultVersion  string    `kms:"DefaultVersion"`
	CreateDate      time.Time `kms:"CreateDate"`
	UpdateDate      time.Time `kms:"UpdateDate"`
	AttachmentCount int       `kms:"AttachmentCount"`
	// PolicyDocument is the default version's, and set by GetPolicy alone.
	PolicyDocument string `kms:"PolicyDocument,omitempty"`
}

// AttachedPolicy is a policy as it is attached to a user or a group.
type AttachedPolicy struct {
	PolicyName     string    `kms:"PolicyName"`
	PolicyType     string    `kms:"PolicyType"`
	Description    string    `kms:"Description"`
	DefaultVersion string    `kms:"DefaultVersion"`
	AttachDate     time.Time `kms:"AttachDate"`
}

// PolicyVersion is one version of a policy's document. The document is left out where versions are
// listed.
type PolicyVersion struct {
	VersionID        string    `kms:"VersionId"`
	IsDefaultVersion bool      `kms:"IsDefaultVersion"`
	PolicyDocument   string    `kms:"PolicyDocument,omitempty"`
	CreateDate       time.Time `kms:"CreateDate"`
}

// CreatePolicyRequest makes a custom policy. Its document is checked as a whole: what the service
// would not understand is refused.
type CreatePolicyRequest struct {
	PolicyName     string `kms:"PolicyName"`
	PolicyDocument string `kms:"PolicyDocument"`
	Description    string `kms:"Description"`
	Tags           []Tag  `kms:"Tag,flat,max=20"`
}

// CreatePolicyResponse answers CreatePolicy.
type CreatePolicyResponse struct {
	Policy    Policy `kms:"Policy"`
	RequestID string `kms:"RequestId"`
}

// PolicyRequest names a policy, for GetPolicy, ListPolicyVersions and ListEntitiesForPolicy.
type PolicyRequest struct {
	PolicyName string `kms:"PolicyName,resource=policy"`
	PolicyType string `kms:"PolicyType"`
}

// GetPolicyResponse answers GetPolicy.
type GetPolicyResponse struct {
	Policy               Policy        `kms:"Policy"`
	DefaultPolicyVersion PolicyVersion `kms:"DefaultPolicyVersion"`
	RequestID            string        `kms:"RequestId"`
}

// ListPoliciesRequest lists the policies of the service, then the policies of the account, each
// sorted by name.
type ListPoliciesRequest struct {
	PolicyType string `kms:"PolicyType"`
	Marker     string `kms:"Marker"`
	MaxItems   int    `kms:"MaxItems,min=1,max=1000,default=100"`
	Tags       []Tag  `kms:"Tag,flat,max=20"`
}

// ListPoliciesResponse answers ListPolicies.
type ListPoliciesResponse struct {
	IsTruncated bool     `kms:"IsTruncated"`
	Marker      string   `kms:"Marker,omitempty"`
	Policies    []Policy `kms:"Policies,list=Policy"`
	RequestID   string   `kms:"RequestId"`
}

// UpdatePolicyDescriptionRequest changes the description of a custom policy.
type UpdatePolicyDescriptionRequest struct {
	PolicyName     string `kms:"PolicyName,resource=policy"`
	NewDescription string `kms:"NewDescription"`
}

// DeletePolicyRequest deletes a custom policy that is not attached and has one version.
// CascadingDelete deletes the other versions with it.
type DeletePolicyRequest struct {
	PolicyName      string `kms:"PolicyName,resource=policy"`
	CascadingDelete bool   `kms:"CascadingDelete"`
}

// CreatePolicyVersionRequest adds a version to a custom policy, which has at most five.
type CreatePolicyVersionRequest struct {
	PolicyName     string `kms:"PolicyName,resource=policy"`
	PolicyDocument string `kms:"PolicyDocument"`
	SetAsDefault   bool   `kms:"SetAsDefault"`
	RotateStrategy string `kms:"RotateStrategy"`
}

// PolicyVersionResponse answers CreatePolicyVersion and GetPolicyVersion.
type PolicyVersionResponse struct {
	PolicyVersion PolicyVersion `kms:"PolicyVersion"`
	RequestID     string        `kms:"RequestId"`
}

// GetPolicyVersionRequest reads a version with its document.
type GetPolicyVersionRequest struct {
	PolicyName string `kms:"PolicyName,resource=policy"`
	PolicyType string `kms:"PolicyType"`
	VersionID  string `kms:"VersionId"`
}

// ListPolicyVersionsResponse answers ListPolicyVersions.
type ListPolicyVersionsResponse struct {
	PolicyVersions []PolicyVersion `kms:"PolicyVersions,list=PolicyVersion"`
	RequestID      string          `kms:"RequestId"`
}

// PolicyVersionRequest names a version, for SetDefaultPolicyVersion and DeletePolicyVersion.
type PolicyVersionRequest struct {
	PolicyName string `kms:"PolicyName,resource=policy"`
	VersionID  string `kms:"VersionId"`
}

// UserPolicyRequest names a policy and a user, for AttachPolicyToUser and DetachPolicyFromUser. A
// resource group other than the account is refused: there are none.
type UserPolicyRequest struct {
	UserName        string `kms:"UserName,resource=user"`
	PolicyName      string `kms:"PolicyName,resource=policy"`
	PolicyType      string `kms:"PolicyType"`
	ResourceGroupID string `kms:"ResourceGroupId"`
}

// GroupPolicyRequest names a policy and a group, for AttachPolicyToGroup and DetachPolicyFromGroup.
type GroupPolicyRequest struct {
	GroupName       string `kms:"GroupName,resource=group"`
	PolicyName      string `kms:"PolicyName,resource=policy"`
	PolicyType      string `kms:"PolicyType"`
	ResourceGroupID string `kms:"ResourceGroupId"`
}

// ListPoliciesForUserRequest lists what is attached to the user alone, without what the groups
// bring.
type ListPoliciesForUserRequest struct {
	UserName string `kms:"UserName,resource=user"`
}

// ListPoliciesForGroupRequest lists what is attached to a group.
type ListPoliciesForGroupRequest struct {
	GroupName string `kms:"GroupName,resource=group"`
}

// AttachedPoliciesResponse answers ListPoliciesForUser and ListPoliciesForGroup.
type AttachedPoliciesResponse struct {
	Policies  []AttachedPolicy `kms:"Policies,list=Policy"`
	RequestID string           `kms:"RequestId"`
}

// Role is part of ListEntitiesForPolicy; there are no roles yet, so the list is empty.
type Role struct {
	RoleName string `kms:"RoleName"`
}

// ListEntitiesForPolicyResponse answers ListEntitiesForPolicy.
type ListEntitiesForPolicyResponse struct {
	Groups    []Group `kms:"Groups,list=Group"`
	Users     []User  `kms:"Users,list=User"`
	Roles     []Role  `kms:"Roles,list=Role"`
	RequestID string  `kms:"RequestId"`
}

// Decisions of SimulatePolicy.
const (
	Allow        = "Allow"
	ImplicitDeny = "ImplicitDeny"
	ExplicitDeny = "ExplicitDeny"
)

// PolicyTypeSecret is the PolicyType of SimulatePolicy for the secret's own policy.
const PolicyTypeSecret = "Secret"

// SimulatePolicyRequest asks whether a user may do something, and which statement says so. Nothing
// is done. It is an operation of Keyturn's own.
type SimulatePolicyRequest struct {
	UserName string `kms:"UserName,resource=user"`
	// Operation is an operation such as GetSecretValue, or an action such as kms:GetSecretValue.
	Operation string `kms:"Operation"`
	// SecretName is what it is on; its tags and its own policy count. Resource is an ARN instead.
	SecretName string `kms:"SecretName,max=192,pattern=name,arn"`
	Resource   string `kms:"Resource"`
	// ContextSourceIP and ContextSecureTransport are what conditions see; empty means as this call
	// came.
	ContextSourceIP        string `kms:"ContextSourceIp"`
	ContextSecureTransport string `kms:"ContextSecureTransport,enum=true|false"`
}

// SimulatePolicyResponse answers SimulatePolicy.
type SimulatePolicyResponse struct {
	Allowed bool `kms:"Allowed"`
	// Decision is Allow, ImplicitDeny (no statement allows it) or ExplicitDeny (a statement forbids
	// it).
	Decision string `kms:"Decision"`
	// PolicyName and PolicyType name the policy that decided, GroupName the group that brought it;
	// empty for ImplicitDeny.
	PolicyName string `kms:"PolicyName"`
	PolicyType string `kms:"PolicyType"`
	GroupName  string `kms:"GroupName,omitempty"`
	// Sid and StatementIndex are of the statement; -1 for ImplicitDeny.
	Sid            string `kms:"Sid"`
	StatementIndex int    `kms:"StatementIndex"`
	// Action and Resource are what was decided last: of a call that needs several rights, the first
	// that is missing.
	Action   string `kms:"Action"`
	Resource string `kms:"Resource"`
	// Judged are the rights that were judged, each an action and what it is on. Of an operation on
	// a secret these are all that the call needs, up to the first that is missing.
	Judged []string `kms:"Judged,list=Right"`
	// Partial reports that the call may need further rights, on accounts and targets of the secret:
	// the caller needs kms:DescribeRotation on the secret to have them judged.
	Partial bool `kms:"Partial"`
	// ByName reports that Action is on the server itself: a statement allows it only when its
	// Resource names the last part of the ARN, and * does not.
	ByName    bool   `kms:"ByName,omitempty"`
	RequestID string `kms:"RequestId"`
}

// policyOperations declares the operations on policies.
var policyOperations = []operation.Declaration{
	declare[CreatePolicyRequest, CreatePolicyResponse]("CreatePolicy").On("policy/*").Mutates(),
	declare[PolicyRequest, GetPolicyResponse]("GetPolicy"),
	declare[ListPoliciesRequest, ListPoliciesResponse]("ListPolicies").On("policy/*"),
	declare[UpdatePolicyDescriptionRequest, CreatePolicyResponse]("UpdatePolicyDescription").Mutates(),
	declare[DeletePolicyRequest, EmptyResponse]("DeletePolicy").Mutates(),
	declare[CreatePolicyVersionRequest, PolicyVersionResponse]("CreatePolicyVersion").Mutates(),
	declare[GetPolicyVersionRequest, PolicyVersionResponse]("GetPolicyVersion"),
	declare[PolicyRequest, ListPolicyVersionsResponse]("ListPolicyVersions"),
	declare[PolicyVersionRequest, EmptyResponse]("SetDefaultPolicyVersion").Mutates(),
	declare[PolicyVersionRequest, EmptyResponse]("DeletePolicyVersion").Mutates(),
	declare[UserPolicyRequest, EmptyResponse]("AttachPolicyToUser").Mutates(),
	declare[UserPolicyRequest, EmptyResponse]("DetachPolicyFromUser").Mutates(),
	declare[GroupPolicyRequest, EmptyResponse]("AttachPolicyToGroup").Mutates(),
	declare[GroupPolicyRequest, EmptyResponse]("DetachPolicyFromGroup").Mutates(),
	declare[ListPoliciesForUserRequest, AttachedPoliciesResponse]("ListPoliciesForUser"),
	declare[ListPoliciesForGroupRequest, AttachedPoliciesResponse]("ListPoliciesForGroup"),
	declare[PolicyRequest, ListEntitiesForPolicyResponse]("ListEntitiesForPolicy"),
	declare[SimulatePolicyRequest, SimulatePolicyResponse]("SimulatePolicy"),
}

// CreatePolicy creates a custom policy.
func (c *Client) CreatePolicy(ctx context.Context, in *CreatePolicyRequest) (*CreatePolicyResponse, error) {
	return call[CreatePolicyResponse](ctx, c, "CreatePolicy", in)
}

// GetPolicy returns a policy with its default version.
func (c *Client) GetPolicy(ctx context.Context, in *PolicyRequest) (*GetPolicyResponse, error) {
	return call[GetPolicyResponse](ctx, c, "GetPolicy", in)
}

// ListPolicies returns a page of policies.
func (c *Client) ListPolicies(ctx context.Context, in *ListPoliciesRequest) (*ListPoliciesResponse, error) {
	return call[ListPoliciesResponse](ctx, c, "ListPolicies", in)
}

// UpdatePolicyDescription changes the description of a custom policy.
func (c *Client) UpdatePolicyDescription(
	ctx context.Context, in *UpdatePolicyDescriptionRequest,
) (*CreatePolicyResponse, error) {
	return call[CreatePolicyResponse](ctx, c, "UpdatePolicyDescription", in)
}

// DeletePolicy deletes a custom policy.
func (c *Client) DeletePolicy(ctx context.Context, in *DeletePolicyRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "DeletePolicy", in)
}

// CreatePolicyVersion adds a version to a custom policy.
func (c *Client) CreatePolicyVersion(
	ctx context.Context, in *CreatePolicyVersionRequest,
) (*PolicyVersionResponse, error) {
	return call[PolicyVersionResponse](ctx, c, "CreatePolicyVersion", in)
}

// GetPolicyVersion returns a version of a policy.
func (c *Client) GetPolicyVersion(ctx context.Context, in *GetPolicyVersionRequest) (*PolicyVersionResponse, error) {
	return call[PolicyVersionResponse](ctx, c, "GetPolicyVersion", in)
}

// ListPolicyVersions returns the versions of a policy.
func (c *Client) ListPolicyVersions(ctx context.Context, in *PolicyRequest) (*ListPolicyVersionsResponse, error) {
	return call[ListPolicyVersionsResponse](ctx, c, "ListPolicyVersions", in)
}

// SetDefaultPolicyVersion makes a version the default. It takes effect from the next call on.
func (c *Client) SetDefaultPolicyVersion(ctx context.Context, in *PolicyVersionRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "SetDefaultPolicyVersion", in)
}

// DeletePolicyVersion deletes a version that is not the default.
func (c *Client) DeletePolicyVersion(ctx context.Context, in *PolicyVersionRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "DeletePolicyVersion", in)
}

// AttachPolicyToUser attaches a policy to a user.
func (c *Client) AttachPolicyToUser(ctx context.Context, in *UserPolicyRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "AttachPolicyToUser", in)
}

// DetachPolicyFromUser detaches a policy from a user.
func (c *Client) DetachPolicyFromUser(ctx context.Context, in *UserPolicyRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "DetachPolicyFromUser", in)
}

// AttachPolicyToGroup attaches a policy to a group.
func (c *Client) AttachPolicyToGroup(ctx context.Context, in *GroupPolicyRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "AttachPolicyToGroup", in)
}

// DetachPolicyFromGroup detaches a policy from a group.
func (c *Client) DetachPolicyFromGroup(ctx context.Context, in *GroupPolicyRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "DetachPolicyFromGroup", in)
}

// ListPoliciesForUser returns the policies that are attached to a user.
func (c *Client) ListPoliciesForUser(
	ctx context.Context, in *ListPoliciesForUserRequest,
) (*AttachedPoliciesResponse, error) {
	return call[AttachedPoliciesResponse](ctx, c, "ListPoliciesForUser", in)
}

// ListPoliciesForGroup returns the policies that are attached to a group.
func (c *Client) ListPoliciesForGroup(
	ctx context.Context, in *ListPoliciesForGroupRequest,
) (*AttachedPoliciesResponse, error) {
	return call[AttachedPoliciesResponse](ctx, c, "ListPoliciesForGroup", in)
}

// ListEntitiesForPolicy returns the users and groups that a policy is attached to.
func (c *Client) ListEntitiesForPolicy(ctx context.Context, in *PolicyRequest) (*ListEntitiesForPolicyResponse, error) {
	return call[ListEntitiesForPolicyResponse](ctx, c, "ListEntitiesForPolicy", in)
}

// SimulatePolicy returns whether a user may do something, and which statement decides.
func (c *Client) SimulatePolicy(ctx context.Context, in *SimulatePolicyRequest) (*SimulatePolicyResponse, error) {
	return call[SimulatePolicyResponse](ctx, c, "SimulatePolicy", in)
}
