package kms

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/sensitive"
)

// RegisterTargetRequest makes a system known whose credentials are to be rotated. Nothing is
// changed there.
type RegisterTargetRequest struct {
	// TargetName is what secrets name it by: 1 to 64 of A-Z a-z 0-9 _ / + = . @ -. For managed
	// types it is the value of DBInstanceId, InstanceId or DBClusterId in ExtendedConfig.
	TargetName string `kms:"TargetName,required,min=1,max=64,pattern=name"`
	// Kind is postgresql, mysql, mariadb, redis, ssh, ldap, oauth, rabbitmq, webhook or command.
	Kind string `kms:"Kind,required,min=1,max=32"`
	// Config is a JSON object of at most 16384 bytes; its members depend on the kind
	// (docs/rotation.md).
	Config string `kms:"Config,required,json,max=16384,bytes"`
	// AdminSecretName names the secret whose current version is the credential that changes others.
	// Required by most kinds. It is a name or an ARN, and the caller needs the rights
	// kms:RegisterTarget and kms:GetSecretValue on that secret too: the target's address says where
	// its value is sent.
	AdminSecretName string `kms:"AdminSecretName,min=1,max=192,pattern=name,arn"`
	// Description is free text of at most 8192 characters.
	Description string `kms:"Description,min=0,max=8192"`
	// Accounts is the account policy: patterns of the accounts that rotations may change, at most
	// 100, each of 1 to 256 characters, in which * stands for any characters and ? for one. None
	// means every ordinary account. A privileged account, such as a superuser, must be named
	// exactly. The account of the target's administrator is never changed for another secret.
	Accounts []string `kms:"Account,flat,min=0,max=100"`
}

// TargetNameRequest names a target.
type TargetNameRequest struct {
	TargetName string `kms:"TargetName,required,min=1,max=64,pattern=name,resource=target"`
}

// DeregisterTargetRequest forgets a target. Nothing is changed there.
type DeregisterTargetRequest struct {
	TargetName string `kms:"TargetName,required,min=1,max=64,pattern=name,resource=target"`
	// Detach also ends the rotation of every secret that is attached to the target, which needs the
	// right kms:RemoveRotation on each. Without it, a target with attached secrets is
	// ErrResourceInUse.
	Detach bool `kms:"Detach,default=false"`
}

// TargetNameResponse answers RegisterTarget, UpdateTarget and DeregisterTarget.
type TargetNameResponse struct {
	ARN        string `kms:"Arn"`
	TargetName string `kms:"TargetName"`
	RequestID  string `kms:"RequestId"`
}

// DescribeTargetResponse is what is known of a target.
type DescribeTargetResponse struct {
	ARN        string `kms:"Arn"`
	TargetName string `kms:"TargetName"`
	// TargetID identifies this registration: a target that is registered again under the same name
	// has another one. It is empty for a target that a release before IDs registered.
	TargetID        string `kms:"TargetId,omitempty"`
	Kind            string `kms:"Kind"`
	Config          string `kms:"Config,json"`
	AdminSecretName string `kms:"AdminSecretName,omitempty"`
	Description     string `kms:"Description"`
	// Paused says that no new rotation begins at the target, and Pauses why: a pause of the target, or
	// of all.
	Paused     bool            `kms:"Paused"`
	Pauses     []RotationPause `kms:"Pauses,list=Pause,omitempty"`
	Strategies []string        `kms:"Strategies,list=Strategy"`
	// Accounts is the account policy; empty means every ordinary account.
	Accounts   []string  `kms:"Accounts,list=Account"`
	CreateTime time.Time `kms:"CreateTime"`
	UpdateTime time.Time `kms:"UpdateTime"`
	RequestID  string    `kms:"RequestId"`
}

// ListTargetsRequest lists the targets of the account, ordered by name.
type ListTargetsRequest struct {
	// NextToken continues after a page; opaque.
	NextToken string `kms:"NextToken"`
	// MaxResults is 1 to 100; 0 means 100.
	MaxResults int `kms:"MaxResults,min=1,max=100,default=100"`
}

// ListedTarget is one row of ListTargets.
type ListedTarget struct {
	TargetName      string `kms:"TargetName"`
	Kind            string `kms:"Kind"`
	AdminSecretName string `kms:"AdminSecretName,omitempty"`
	Description     string `kms:"Description"`
	// Paused and Pauses are as in [DescribeTargetResponse].
	Paused     bool            `kms:"Paused"`
	Pauses     []RotationPause `kms:"Pauses,list=Pause,omitempty"`
	UpdateTime time.Time       `kms:"UpdateTime"`
}

// ListTargetsResponse is a page of targets.
type ListTargetsResponse struct {
	Targets []ListedTarget `kms:"Targets,list=Target"`
	// Pauses has the pause of all rotations; it is empty if there is none.
	Pauses []RotationPause `kms:"Pauses,list=Pause,omitempty"`
	// NextToken is empty on the last page.
	NextToken string `kms:"NextToken"`
	RequestID string `kms:"RequestId"`
}

// UpdateTargetRequest changes a target. Absent parameters change nothing.
type UpdateTargetRequest struct {
	TargetName      string  `kms:"TargetName,required,min=1,max=64,pattern=name,resource=target"`
	Config          string  `kms:"Config,json,max=16384,bytes"`
	AdminSecretName string  `kms:"AdminSecretName,min=1,max=192,pattern=name,arn"`
	Description     *string `kms:"Description,min=0,max=8192"`
	// Accounts replaces the account policy; none leaves it as it is, and the single pattern *
	// allows every ordinary account.
	Accounts []string `kms:"Account,flat,min=0,max=100"`
}

// TestTargetRequest tries a target: the administrator's way in, or with SecretName the current
// credential of that secret, by one login. Nothing is changed.
type TestTargetRequest struct {
	TargetName string `kms:"TargetName,required,min=1,max=64,pattern=name,resource=target"`
	SecretName string `kms:"SecretName,min=1,max=192,pattern=name,arn"`
}

// TestTargetResponse says what the target answered.
type TestTargetResponse struct {
	TargetName string `kms:"TargetName"`
	// Result is ok, unreachable, rejected (the credential does not authenticate), denied (the
	// administrator may not) or unknown (no answer).
	Result string `kms:"Result"`
	// Code and Message are the target's own. The code EgressRefused says that the server's egress
	// rules do not permit the address, so that the target was not asked.
	Code      string `kms:"Code,omitempty"`
	Message   string `kms:"Message,omitempty"`
	RequestID string `kms:"RequestId"`
}

// PrepareTargetAccountsRequest makes two accounts of equal rights from one that is in use, for the
// strategy double, or returns the statements that would. The existing account keeps its password.
type PrepareTargetAccountsRequest struct {
	TargetName string `kms:"TargetName,required,min=1,max=64,pattern=name,resource=target"`
	// AccountName is the existing login, CloneAccountName the one to create beside it. A clone that
	// exists already gets a new password.
	AccountName      string `kms:"AccountName,required,min=1,max=256"`
	CloneAccountName string `kms:"CloneAccountName,required,min=1,max=256"`
	// OwnerName is the account that AccountName acts as already, if that is another one; otherwise
	// empty.
	OwnerName string `kms:"OwnerName,max=256"`
	// Databases are those in which the proof compares what both may do, at most 100; none means
	// those that a check reads (docs/targets/postgresql.md).
	Databases []string `kms:"Database,flat,min=0,max=100,each=256"`
	// AccountPassword is the password that AccountName has. With Apply it is stored in the secret, and
	// required unless that has it from an earlier call. Without Apply, it is needed where the target
	// does not let its administrator read verifiers.
	AccountPassword sensitive.Value `kms:"AccountPassword,min=1,max=1024,bytes"`
	// Apply does it; otherwise nothing is changed.
	Apply bool `kms:"Apply,default=false"`
	// Undo removes CloneAccountName, which must have no open session and belong to no secret; its
	// objects go to AccountName. SecretName, VersionID and AccountPassword must be absent.
	Undo bool `kms:"Undo,default=false"`
	// SecretName and VersionID are of the new secret of type Rds, DoubleUsers, with both
	// credentials. Both are required with Apply. A repeated call continues where an earlier one was
	// interrupted. SecretName is the name or, if the secret exists, the ARN.
	SecretName string `kms:"SecretName,min=1,max=192,pattern=name,arn"`
	VersionID  string `kms:"VersionId,min=1,max=64,pattern=name"`
}

// TargetStatement is a statement for a target. It holds no secret: a comment (--) stands for a
// statement with a value that is not shown, and says where to read the value.
type TargetStatement struct {
	DatabaseName string `kms:"DatabaseName"`
	Statement    string `kms:"Statement"`
}

// PrepareTargetAccountsResponse says what was done, or has to be done.
type PrepareTargetAccountsResponse struct {
	TargetName string `kms:"TargetName"`
	OwnerName  string `kms:"OwnerName"`
	// Findings are for the operator. When the proof fails, they say what differs.
	Findings []string `kms:"Findings,list=Finding"`
	// Statements are the statements that the target has executed or would execute, in order. Those
	// of one database are executed as a whole or not at all.
	Statements []TargetStatement `kms:"Statements,list=Statement"`
	// Refused says why a call with Apply would be refused, such as another secret that rotates one of
	// the accounts; empty for no known reason.
	Refused string `kms:"Refused,omitempty"`
	// Databases are those in which the two accounts have been compared and are equal; absent when they
	// differ.
	Databases []string `kms:"Databases,list=Database,omitempty"`
	// Applied reports that it was done, Proven that both accounts log in and have equal rights, and
	// that a check finds nothing that makes a rotation impossible.
	Applied bool `kms:"Applied"`
	Proven  bool `kms:"Proven"`
	// Consents are those without which no rotation of the secret begins, because a check finds what
	// an operator must agree to.
	Consents []string `kms:"Consents,list=Consent,omitempty"`
	// SecretName and VersionID are of the secret with both credentials, with Apply.
	SecretName string `kms:"SecretName,omitempty"`
	VersionID  string `kms:"VersionId,omitempty"`
	RequestID  string `kms:"RequestId"`
}

// targetOperations declares the operations on targets, which are Keyturn's own.
var targetOperations = []operation.Declaration{
	declare[RegisterTargetRequest, TargetNameResponse]("RegisterTarget").On("target").
		And("secret/${AdminSecretName}").Mutates().Grantable().Sends().Programs(),
	declare[TargetNameRequest, DescribeTargetResponse]("DescribeTarget"),
	declare[ListTargetsRequest, ListTargetsResponse]("ListTargets").On("target"),
	declare[UpdateTargetRequest, TargetNameResponse]("UpdateTarget").And("secret/${AdminSecretName}").Mutates().
		Retryable().Grantable().Sends().Programs(),
	declare[DeregisterTargetRequest, TargetNameResponse]("DeregisterTarget").Mutates().
		AlsoNeeds("kms:RemoveRotation", "secret/${SecretName}"),
	declare[TestTargetRequest, TestTargetResponse]("TestTarget").And("secret/${SecretName}").Mutates().Retryable().
		Grantable().AsksTarget(),
	declare[PrepareTargetAccountsRequest, PrepareTargetAccountsResponse]("PrepareTargetAccounts").And("secret").
		Mutates().Retryable().Rotates().AsksTarget(),
}

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
