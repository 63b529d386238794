package kms

import (
	"time"

	"github.com/keyturn/keyturn/sensitive"
)

// The operations of this file are Keyturn's own: the cloud does not have them. They are calls of
// the same shape, so every official SDK can make them as a generic request, and a policy allows
// them as kms:RegisterTarget and so on.

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
	TargetID        string   `kms:"TargetId,omitempty"`
	Kind            string   `kms:"Kind"`
	Config          string   `kms:"Config,json"`
	AdminSecretName string   `kms:"AdminSecretName,omitempty"`
	Description     string   `kms:"Description"`
	Paused          bool     `kms:"Paused"`
	Strategies      []string `kms:"Strategies,list=Strategy"`
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
	TargetName      string    `kms:"TargetName"`
	Kind            string    `kms:"Kind"`
	AdminSecretName string    `kms:"AdminSecretName,omitempty"`
	Description     string    `kms:"Description"`
	Paused          bool      `kms:"Paused"`
	UpdateTime      time.Time `kms:"UpdateTime"`
}

// ListTargetsResponse is a page of targets.
type ListTargetsResponse struct {
	Targets []ListedTarget `kms:"Targets,list=Target"`
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
	// OwnerName is the account that owns everything afterwards and cannot log in; empty means
	// AccountName and "_owner".
	OwnerName string `kms:"OwnerName,max=256"`
	// Databases are those in which the proof compares what both may do, at most 100; none means all
	// that they may connect to.
	Databases []string `kms:"Database,flat,min=0,max=100"`
	// AccountPassword is the password that AccountName has. With Apply it is required: it is stored
	// in the secret. Without, it is needed where the target does not let its administrator read
	// verifiers.
	AccountPassword sensitive.Value `kms:"AccountPassword,min=1,max=1024,bytes"`
	// Apply does it; otherwise nothing is changed.
	Apply bool `kms:"Apply,default=false"`
	// SecretName and VersionID are of the new secret of type Rds, DoubleUsers, with both
	// credentials. Both are required with Apply. A repeated call continues where an earlier one was
	// interrupted. SecretName is the name or, if the secret exists, the ARN.
	SecretName string `kms:"SecretName,min=1,max=192,pattern=name,arn"`
	VersionID  string `kms:"VersionId,min=1,max=64,pattern=name"`
}

// TargetStatement is a statement for a target. It holds no secret.
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
	// Applied reports that it was done, Proven that both accounts log in and have equal rights.
	Applied bool `kms:"Applied"`
	Proven  bool `kms:"Proven"`
	// SecretName and VersionID are of the secret with both credentials, with Apply.
	SecretName string `kms:"SecretName,omitempty"`
	VersionID  string `kms:"VersionId,omitempty"`
	RequestID  string `kms:"RequestId"`
}

// ConfigureRotationRequest says how a secret is rotated, beyond what UpdateSecretRotationPolicy can
// say. It replaces what was said before. It rotates nothing. With TargetName, a Generic secret is
// rotated by the service from now on.
type ConfigureRotationRequest struct {
	// SecretName is the name or the ARN.
	SecretName string `kms:"SecretName,required,min=1,max=192,pattern=name,arn,resource=secret"`
	// TargetName is required for a Generic secret; managed types name their target in
	// ExtendedConfig.
	TargetName string `kms:"TargetName,min=1,max=64,pattern=name"`
	// Strategy is single, overlap or double; empty means what the type asks for, or the target's
	// best.
	Strategy string `kms:"Strategy,enum=single|overlap|double"`
	// AccountName is whose credential a value is that is not a JSON object; CloneAccountName is the
	// second account of the strategy double.
	AccountName      string `kms:"AccountName,max=256"`
	CloneAccountName string `kms:"CloneAccountName,max=256"`
	// AccountMember and SecretMember are the members of a JSON value that hold the account and its
	// credential; empty means the usual names.
	AccountMember string `kms:"AccountMember,max=128"`
	SecretMember  string `kms:"SecretMember,max=128"`
	// EnableAutomaticRotation plans rotations by RotationInterval, or by Cron.
	EnableAutomaticRotation bool   `kms:"EnableAutomaticRotation,default=false"`
	RotationInterval        string `kms:"RotationInterval"`
	// Cron has five fields, or is a descriptor such as @weekly.
	Cron string `kms:"Cron,max=128"`
	// TimeZone is the IANA name for Cron, Window and Blackouts; empty means UTC.
	TimeZone string `kms:"TimeZone,max=64"`
	// Window is when a rotation may begin, such as "Sat,Sun 22:00-02:00".
	Window string `kms:"Window,max=64"`
	// Blackouts are days without rotations, such as "2026-12-24..2027-01-02,2027-03-31".
	Blackouts string `kms:"Blackouts,max=1024"`
	// GracePeriod is how long the old credential works after a rotation, at least: a whole number
	// and a unit, d, h, m or s; 0s means that it is retired at once. Empty means the server's
	// default.
	GracePeriod string `kms:"GracePeriod,max=16"`
	// GraceLimit bounds how long the old credential works while consumers still hold another
	// version than the new one. A limit that is not longer than GracePeriod means that the rotation
	// waits for no consumer. Empty means the server's default, or no waiting with a GracePeriod of
	// 0s.
	GraceLimit string `kms:"GraceLimit,max=16"`
	// Group is a set of secrets that never begin to rotate within GroupGap of each other.
	Group    string `kms:"Group,max=64,pattern=name"`
	GroupGap string `kms:"GroupGap,max=16"`
}

// VersionedRequest names a secret and the version that a rotation is to make.
type VersionedRequest struct {
	// SecretName is the name or the ARN.
	SecretName string `kms:"SecretName,required,min=1,max=192,pattern=name,arn,resource=secret"`
	// VersionID identifies the rotation and its version: repeating the call with it does nothing
	// more.
	VersionID string `kms:"VersionId,required,min=1,max=64,pattern=name"`
}

// EmergencyRotationRequest replaces a credential that may have leaked, or says whom that breaks.
type EmergencyRotationRequest struct {
	// SecretName is the name or the ARN.
	SecretName string `kms:"SecretName,required,min=1,max=192,pattern=name,arn,resource=secret"`
	// VersionID identifies the rotation and its version: repeating the call with it does nothing
	// more.
	VersionID string `kms:"VersionId,required,min=1,max=64,pattern=name"`
	// DryRun changes nothing: the answer says who holds a credential that would stop working.
	DryRun bool `kms:"DryRun,default=false"`
}

// EmergencyRotationResponse answers EmergencyRotation. All but the first three are of a dry run.
type EmergencyRotationResponse struct {
	ARN        string `kms:"Arn"`
	SecretName string `kms:"SecretName"`
	VersionID  string `kms:"VersionId"`
	DryRun     bool   `kms:"DryRun,omitempty"`
	// CurrentVersionID is the version whose credential would stop working.
	CurrentVersionID string `kms:"CurrentVersionId,omitempty"`
	// Breaking are consumers that were seen lately, at most 100, and BreakingCount how many there
	// are: they would be refused until they have fetched the new credential. A connection that is
	// open stays so with most targets.
	Breaking      []SecretConsumer `kms:"Breaking,list=Consumer,omitempty"`
	BreakingCount int              `kms:"BreakingCount,omitempty"`
	// Unknown are those that were not seen lately, at most 100, and UnknownCount how many there
	// are: whether they still use the secret is not known. Consumers that have not been seen for
	// days are not known at all.
	Unknown      []SecretConsumer `kms:"Unknown,list=Consumer,omitempty"`
	UnknownCount int              `kms:"UnknownCount,omitempty"`
	RequestID    string           `kms:"RequestId"`
}

// SecretNameRequest names a secret.
type SecretNameRequest struct {
	// SecretName is the name or the ARN.
	SecretName string `kms:"SecretName,required,min=1,max=192,pattern=name,arn,resource=secret"`
}

// The states of a rotation that clients act on. docs/rotation.md has all of them.
const (
	// RotationStateGrace: the new credential is current, and the previous one still works.
	RotationStateGrace = "grace"
	// RotationStateDone: the rotation has ended as was asked.
	RotationStateDone = "done"
	// RotationStateAbandoned: the rotation has ended without a change.
	RotationStateAbandoned = "abandoned"
	// RotationStateQuarantined: the rotation waits for RepairRotation.
	RotationStateQuarantined = "quarantined"
)

// RotationStep is one thing that a rotation did.
type RotationStep struct {
	Time  time.Time `kms:"Time"`
	State string    `kms:"State"`
	// Event is one of the events of docs/rotation.md, and Description what it means.
	Event       string `kms:"Event"`
	Description string `kms:"Description,omitempty"`
	// Text is what the target said; it holds no secret.
	Text string `kms:"Text,omitempty"`
}

// DescribeRotationResponse is the state of a secret's rotation.
type DescribeRotationResponse struct {
	SecretName string `kms:"SecretName"`
	// State is one of the states of docs/rotation.md.
	State string `kms:"State"`
	// WaitsFor says what must happen for the rotation to go on; empty when none is under way.
	WaitsFor string `kms:"WaitsFor,omitempty"`
	// InProgress is true while the server has something left to do for the rotation. A rotation
	// that is quarantined waits for an operator.
	InProgress bool   `kms:"InProgress"`
	RotationID string `kms:"RotationId,omitempty"`
	// Mode is rotate, rehearse or reapply; Trigger is manual, automatic or emergency.
	Mode               string `kms:"Mode,omitempty"`
	Trigger            string `kms:"Trigger,omitempty"`
	Strategy           string `kms:"Strategy,omitempty"`
	TargetName         string `kms:"TargetName,omitempty"`
	CandidateVersionID string `kms:"CandidateVersionId,omitempty"`
	BaseVersionID      string `kms:"BaseVersionId,omitempty"`
	// Attempt counts how often this candidate was sent, Candidates how many there were.
	Attempt     int       `kms:"Attempt,omitempty"`
	Candidates  int       `kms:"Candidates,omitempty"`
	StartTime   time.Time `kms:"StartTime,omitempty"`
	PromoteTime time.Time `kms:"PromoteTime,omitempty"`
	// The previous credential works at least until GraceUntil, and is retired at GraceLimitTime
	// whatever consumers hold. The end of the grace period waits for consumers that hold another
	// version and were seen lately: WaitingFor lists at most 20 of them, and WaitingForCount counts
	// them.
	GraceUntil      time.Time        `kms:"GraceUntil,omitempty"`
	GraceLimitTime  time.Time        `kms:"GraceLimitTime,omitempty"`
	WaitingForCount int              `kms:"WaitingForCount,omitempty"`
	WaitingFor      []SecretConsumer `kms:"WaitingFor,list=Consumer"`
	EndTime         time.Time        `kms:"EndTime,omitempty"`
	NextAttemptTime time.Time        `kms:"NextAttemptTime,omitempty"`
	// AutomaticRotation, NextRotationDate and LastRotationDate are as in [DescribeSecretResponse].
	AutomaticRotation string    `kms:"AutomaticRotation"`
	RotationInterval  string    `kms:"RotationInterval,omitempty"`
	NextRotationDate  time.Time `kms:"NextRotationDate,omitempty"`
	LastRotationDate  time.Time `kms:"LastRotationDate,omitempty"`
	// AccountName to GroupGap are as ConfigureRotation takes them; ConfiguredStrategy is its
	// Strategy.
	ConfiguredStrategy string `kms:"ConfiguredStrategy,omitempty"`
	AccountName        string `kms:"AccountName,omitempty"`
	CloneAccountName   string `kms:"CloneAccountName,omitempty"`
	AccountMember      string `kms:"AccountMember,omitempty"`
	SecretMember       string `kms:"SecretMember,omitempty"`

	Cron        string `kms:"Cron,omitempty"`
	TimeZone    string `kms:"TimeZone,omitempty"`
	Window      string `kms:"Window,omitempty"`
	Blackouts   string `kms:"Blackouts,omitempty"`
	GracePeriod string `kms:"GracePeriod,omitempty"`
	GraceLimit  string `kms:"GraceLimit,omitempty"`
	Group       string `kms:"Group,omitempty"`
	GroupGap    string `kms:"GroupGap,omitempty"`
	Paused      bool   `kms:"Paused"`
	// Reason says what is wrong, and Advice what to do about it.
	Reason string `kms:"Reason,omitempty"`
	Advice string `kms:"Advice,omitempty"`
	// RepairActions are the values of RepairAction that RepairRotation takes now: none unless the
	// rotation is quarantined. It has apply only when the target has accepted the stored credential
	// before, or the service has generated it.
	RepairActions []string `kms:"RepairActions,list=RepairAction"`
	// CredentialState is live, dead or unknown, as the target said at ProbeTime.
	CredentialState string         `kms:"CredentialState"`
	ProbeTime       time.Time      `kms:"ProbeTime,omitempty"`
	Steps           []RotationStep `kms:"Steps,list=Step"`
	RequestID       string         `kms:"RequestId"`
}

// ListRotationsRequest lists the rotations of the account, ordered by the name of the secret.
type ListRotationsRequest struct {
	// State leaves out rotations in other states; empty means all.
	State string `kms:"State,max=32"`
	// TargetName leaves out rotations at other targets; empty means all.
	TargetName string `kms:"TargetName,max=64"`
	// NextToken continues after a page; opaque.
	NextToken string `kms:"NextToken"`
	// MaxResults is 1 to 100; 0 means 100.
	MaxResults int `kms:"MaxResults,min=1,max=100,default=100"`
}

// ListedRotation is one row of ListRotations.
type ListedRotation struct {
	SecretName       string    `kms:"SecretName"`
	State            string    `kms:"State"`
	RotationID       string    `kms:"RotationId,omitempty"`
	Trigger          string    `kms:"Trigger,omitempty"`
	TargetName       string    `kms:"TargetName,omitempty"`
	Paused           bool      `kms:"Paused"`
	StartTime        time.Time `kms:"StartTime,omitempty"`
	PromoteTime      time.Time `kms:"PromoteTime,omitempty"`
	NextAttemptTime  time.Time `kms:"NextAttemptTime,omitempty"`
	NextRotationDate time.Time `kms:"NextRotationDate,omitempty"`
	CredentialState  string    `kms:"CredentialState"`
	Reason           string    `kms:"Reason,omitempty"`
}

// ListRotationsResponse is a page of rotations.
type ListRotationsResponse struct {
	Rotations []ListedRotation `kms:"Rotations,list=Rotation"`
	// NextToken is empty on the last page.
	NextToken string `kms:"NextToken"`
	RequestID string `kms:"RequestId"`
}

// PauseRotationRequest pauses new rotations, or resumes them: of one secret, of one target, or,
// with neither, of all. A rotation in progress is finished. ProbeRotation takes the same request:
// it checks at the targets whether they accept the credentials in use, for example after a store
// was restored from a backup.
type PauseRotationRequest struct {
	// SecretName is the name or the ARN.
	SecretName string `kms:"SecretName,min=1,max=192,pattern=name,arn"`
	TargetName string `kms:"TargetName,min=1,max=64,pattern=name"`
}

// RepairRotationRequest repairs a rotation that is quarantined.
type RepairRotationRequest struct {
	// SecretName is the name or the ARN.
	SecretName string `kms:"SecretName,required,min=1,max=192,pattern=name,arn,resource=secret"`
	// RepairAction is probe (ask the target again what is live), apply (give the target the stored
	// credential again) or adopt (take the credential of SecretData, which the target accepts, into
	// the current value, as a new version).
	RepairAction string `kms:"RepairAction,required,enum=probe|apply|adopt"`
	// SecretData and VersionID are for adopt.
	SecretData sensitive.Value `kms:"SecretData,min=1,max=30720,bytes"`
	VersionID  string          `kms:"VersionId,min=1,max=64,pattern=name"`
}
