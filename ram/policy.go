package ram

import "time"

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

// ListPoliciesRequest lists the policies of the service, then those of the account, each in the
// order of names.
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
