package kms

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/sensitive"
)

// The operations of this file are Keyturn's own: the cloud does not have them. They are calls of
// the same shape, so every official SDK can make them as a generic request, and a policy allows
// them as kms:RegisterTarget and so on.

// ConfigureRotationRequest says how a secret is rotated, beyond what UpdateSecretRotationPolicy can
// say. A setting that a call does not name keeps its value. It rotates nothing. With TargetName, a
// Generic secret is rotated by the service from now on.
type ConfigureRotationRequest struct {
	// SecretName is the name or the ARN.
	SecretName string `kms:"SecretName,required,min=1,max=192,pattern=name,arn,resource=secret"`
	// TargetName is required the first time for a Generic secret; managed types name their target in
	// ExtendedConfig. Another target than before, or another registration of its name, resets what
	// belongs to the former one: Strategy, AccountName, CloneAccountName, LoginEndpoint to
	// LoginCertificateSecret, and Consent.
	TargetName string `kms:"TargetName,min=1,max=64,pattern=name"`
	// Replace resets all settings that the call does not name, and Reset those that it lists by the
	// names of their parameters, such as GraceLimit.
	Replace bool     `kms:"Replace,default=false"`
	Reset   []string `kms:"Reset,flat,min=0,max=20,each=64"`
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
	// EnableAutomaticRotation plans rotations by RotationInterval, or by Cron. Without it, they are
	// planned if the call names one of the two, and otherwise go on as they are. RotationInterval
	// replaces Cron, and Cron replaces RotationInterval.
	EnableAutomaticRotation *bool  `kms:"EnableAutomaticRotation"`
	RotationInterval        string `kms:"RotationInterval"`
	// Cron has five fields, or is a descriptor such as @weekly.
	Cron string `kms:"Cron,max=128"`
	// TimeZone is the IANA name for Cron, Window and Blackouts; empty means UTC.
	TimeZone string `kms:"TimeZone,max=64"`
	// Window is when a rotation may begin, such as "Sat,Sun 22:00-02:00".
	Window string `kms:"Window,max=64"`
	// Blackouts are days without rotations, such as "2026-12-24..2027-01-02,2027-03-31".
	Blackouts string `kms:"Blackouts,max=1024"`
	// GracePeriod is how long the previous credential works after a rotation, at least: a whole number
	// and a unit, d, h, m or s; 0s means that it is retired at once. Empty means the server's
	// default.
	GracePeriod string `kms:"GracePeriod,max=16"`
	// GraceLimit bounds how long the previous credential works while consumers still hold another
	// version than the new one. A limit that is not longer than GracePeriod means that the rotation
	// waits for no consumer. Empty means the server's default, or no waiting with a GracePeriod of
	// 0s.
	GraceLimit string `kms:"GraceLimit,max=16"`
	// Group is a set of secrets that never begin to rotate within GroupGap of each other.
	Group    string `kms:"Group,max=64,pattern=name"`
	GroupGap string `kms:"GroupGap,max=16"`
	// LoginEndpoints to LoginCertificateSecret say how the application connects, where that differs
	// from the settings of the target: every login by which the service proves a credential follows
	// them. A kind of target that does not follow one refuses it. LoginEndpoints are addresses of the
	// target's setting verify; none means all. LoginDatabase is the database, virtual host or base,
	// and LoginRole the role that the application takes after its login.
	LoginEndpoints []string `kms:"LoginEndpoint,flat,min=0,max=20,each=320"`
	LoginDatabase  string   `kms:"LoginDatabase,max=256"`
	LoginRole      string   `kms:"LoginRole,max=256"`
	// LoginCertificateSecret names the secret with the client certificate and its key, in PEM, as a
	// name or an ARN. The caller needs the right kms:GetSecretValue on it.
	LoginCertificateSecret string `kms:"LoginCertificateSecret,min=1,max=192,pattern=name,arn"`
	// Consents are tokens by which findings of CheckRotation are agreed to, such as
	// change-auth-plugin, in addition to the earlier ones: a rotation does not begin while a finding
	// needs another one. Reset=Consent withdraws the earlier ones. A secret keeps at most MaxConsents.
	Consents []string `kms:"Consent,flat,min=0,max=20,each=64"`
}

// MaxConsents is how many consents a secret keeps.
const MaxConsents = 32

// RotationSettingChange is a setting that a call of ConfigureRotation has changed.
type RotationSettingChange struct {
	// Setting is the name of the parameter.
	Setting string `kms:"Setting"`
	// Before and After are values as the parameter takes them, elements of a list with ", " between
	// them; empty means the default.
	Before string `kms:"Before"`
	After  string `kms:"After"`
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
	// AgreeToFindings agrees, for this rotation, to all findings of a check that need a consent.
	// Without it a call is refused while a consent is missing. A finding that appears afterwards does
	// not stop the rotation: the holder of a leaked credential may have made it.
	AgreeToFindings bool `kms:"AgreeToFindings,default=false"`
}

// EmergencyRotationResponse answers EmergencyRotation. All but the first three are of a dry run.
type EmergencyRotationResponse struct {
	ARN        string `kms:"Arn"`
	SecretName string `kms:"SecretName"`
	VersionID  string `kms:"VersionId"`
	DryRun     bool   `kms:"DryRun,omitempty"`
	// CurrentVersionID is the version whose credential would stop working. PreviousVersionID is the
	// one before, if its credential works in a grace period and would stop working, too.
	CurrentVersionID  string `kms:"CurrentVersionId,omitempty"`
	PreviousVersionID string `kms:"PreviousVersionId,omitempty"`
	// Breaking are consumers that were seen lately, at most 100, and BreakingCount how many there
	// are: they would be refused until they have fetched the new credential. A connection that is
	// open stays so with most targets. Of BreakingCount, BreakingInferredCount are known by their
	// reads alone, see [EvidenceInferred].
	Breaking              []SecretConsumer `kms:"Breaking,list=Consumer,omitempty"`
	BreakingCount         int              `kms:"BreakingCount,omitempty"`
	BreakingInferredCount int              `kms:"BreakingInferredCount,omitempty"`
	// Unknown are those that were not seen lately, at most 100, and UnknownCount how many there
	// are: whether they still use the secret is not known. Consumers that have not been seen for
	// [ConsumerDays] days may not be known at all.
	Unknown      []SecretConsumer `kms:"Unknown,list=Consumer,omitempty"`
	UnknownCount int              `kms:"UnknownCount,omitempty"`
	// Findings are what the emergency overrides, and what outlasts it ([RotationFinding.Outlasts]): of
	// a check, those that need a consent which the secret does not have, those that make a planned
	// rotation impossible and this emergency not, and notes about what the holder of the credential
	// can use afterwards. One that takes over a rotation has only those that outlast it.
	Findings []RotationFinding `kms:"Findings,list=Finding,omitempty"`
	// Unchecked says why the target could not be asked for all of that; empty when it was. The
	// emergency begins nevertheless, and asks again before it sends.
	Unchecked string `kms:"Unchecked,omitempty"`
	RequestID string `kms:"RequestId"`
}

// SecretNameRequest names a secret.
type SecretNameRequest struct {
	// SecretName is the name or the ARN.
	SecretName string `kms:"SecretName,required,min=1,max=192,pattern=name,arn,resource=secret"`
}

// The outcomes of a rotation: [DescribeRotationResponse.Outcome].
const (
	// OutcomeSucceeded means that the rotation ended as requested.
	OutcomeSucceeded = "succeeded"
	// OutcomeUnchanged means that the rotation ended without a change at the target.
	OutcomeUnchanged = "unchanged"
	// OutcomeNeedsOperator means that the rotation waits for RepairRotation.
	OutcomeNeedsOperator = "needs-operator"
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
	// Outcome is succeeded, unchanged or needs-operator; empty while the rotation continues without
	// an operator, and before the first one.
	Outcome string `kms:"Outcome,omitempty"`
	// WaitsFor says what must happen before the rotation continues; empty when none is under way.
	WaitsFor string `kms:"WaitsFor,omitempty"`
	// InProgress is true while the server has something left to do for the rotation. A rotation
	// that is quarantined waits for an operator.
	InProgress bool   `kms:"InProgress"`
	RotationID string `kms:"RotationId,omitempty"`
	// EndedRotationID is the emergency that has replaced nothing and has ended in the quarantine in
	// which it began, until that is over. RotationID is then the rotation that the quarantine has
	// interrupted, and empty if it has interrupted none.
	EndedRotationID string `kms:"EndedRotationId,omitempty"`
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
	// them. In a quarantine they are of the grace period that a repair continues.
	GraceUntil      time.Time        `kms:"GraceUntil,omitempty"`
	GraceLimitTime  time.Time        `kms:"GraceLimitTime,omitempty"`
	WaitingForCount int              `kms:"WaitingForCount,omitempty"`
	WaitingFor      []SecretConsumer `kms:"WaitingFor,list=Consumer"`
	// UndoPossible says that UndoRotation is taken now. It succeeds if the target accepts the previous
	// credential.
	UndoPossible bool `kms:"UndoPossible,omitempty"`
	// EmergencyPossible says that the state of the rotation does not refuse EmergencyRotation now.
	// A finding of a check, or a preparation of the accounts that is not finished, may refuse it.
	EmergencyPossible bool `kms:"EmergencyPossible,omitempty"`
	// PreviousRetired says that the rotation has made the previous credential useless.
	PreviousRetired bool `kms:"PreviousRetired,omitempty"`
	// PreviousDeadTime is when the target rejected the previous credential, such as at an undo, or
	// when its account may have got another one, such as in an emergency that was given up.
	PreviousDeadTime time.Time `kms:"PreviousDeadTime,omitempty"`
	// EarlierVersionID is the version of the previous credential of the rotation whose end this
	// emergency has waited for, or which a quarantine had interrupted when this emergency began in
	// it. EarlierRetired reports that this credential is useless, too.
	EarlierVersionID string    `kms:"EarlierVersionId,omitempty"`
	EarlierRetired   bool      `kms:"EarlierRetired,omitempty"`
	EndTime          time.Time `kms:"EndTime,omitempty"`
	NextAttemptTime  time.Time `kms:"NextAttemptTime,omitempty"`
	// FailingSince is when a step of the rotation, or of the retirement after it, failed first; zero
	// if none has, and for what is not in progress.
	FailingSince time.Time `kms:"FailingSince,omitempty"`
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

	LoginEndpoints         []string `kms:"LoginEndpoints,list=LoginEndpoint,omitempty"`
	LoginDatabase          string   `kms:"LoginDatabase,omitempty"`
	LoginRole              string   `kms:"LoginRole,omitempty"`
	LoginCertificateSecret string   `kms:"LoginCertificateSecret,omitempty"`
	Consents               []string `kms:"Consents,list=Consent,omitempty"`
	// Changes are the settings that this call of ConfigureRotation has changed.
	Changes []RotationSettingChange `kms:"Changes,list=Change,omitempty"`
	// CheckTime to CheckFindings are the result of the last check, as CheckRotation answers it.
	// CheckStrategy is the strategy that a rotation would use; empty when that is not known.
	CheckTime      time.Time         `kms:"CheckTime,omitempty"`
	CheckStrategy  string            `kms:"CheckStrategy,omitempty"`
	CheckUnchecked string            `kms:"CheckUnchecked,omitempty"`
	CheckFindings  []RotationFinding `kms:"CheckFindings,list=Finding,omitempty"`
	// Paused says that no new rotation begins, and Pauses why: of this secret, at its target, of all.
	Paused bool            `kms:"Paused"`
	Pauses []RotationPause `kms:"Pauses,list=Pause,omitempty"`
	// Reason says what is wrong, and Advice what to do about it.
	Reason string `kms:"Reason,omitempty"`
	Advice string `kms:"Advice,omitempty"`
	// Remains says what stays at the target when the secret is deleted now, and which command removes
	// it; empty for a secret that is not bound to a target.
	Remains string `kms:"Remains,omitempty"`
	// PlannedDeleteTime is when the secret is deleted; zero for one that is not to be deleted.
	PlannedDeleteTime time.Time `kms:"PlannedDeleteTime,omitempty"`
	// RepairActions are the values of RepairAction that RepairRotation takes now: probe alone where a
	// step waits before it is tried again, and none unless the rotation is quarantined otherwise. It
	// has apply only when the target has accepted the stored credential
	// before, or the service has generated it.
	RepairActions []string `kms:"RepairActions,list=RepairAction"`
	// CredentialState is live, dead or unknown, as the target said at ProbeTime.
	CredentialState string    `kms:"CredentialState"`
	ProbeTime       time.Time `kms:"ProbeTime,omitempty"`
	// ProbeAttemptTime is when the service last tried to ask the target about the credential in use:
	// it is later than ProbeTime where the target did not answer. ProbePending says that the service
	// is to ask as soon as its limits on probes and failed logins allow, and ProbeSkipped why
	// ProbeRotation would not make it ask now; it is empty where it would. ProbeSkippedCode is the
	// code of that, see [ProbeSkips].
	ProbeAttemptTime time.Time      `kms:"ProbeAttemptTime,omitempty"`
	ProbePending     bool           `kms:"ProbePending"`
	ProbeSkipped     string         `kms:"ProbeSkipped,omitempty"`
	ProbeSkippedCode string         `kms:"ProbeSkippedCode,omitempty"`
	Steps            []RotationStep `kms:"Steps,list=Step"`
	RequestID        string         `kms:"RequestId"`
}

// FindingQuarantined is the code of the finding that a rotation is quarantined:
// [RotationFinding.Code].
const FindingQuarantined = "quarantined"

// The verdicts of a check on a strategy: [CheckedStrategy.Verdict].
const (
	// VerdictSafe means that nothing stands in the way of a rotation.
	VerdictSafe = "safe"
	// VerdictSafeWithConsent means that a rotation is safe once the operator has agreed to findings.
	VerdictSafeWithConsent = "safe-with-consent"
	// VerdictImpossible means that something must change before a rotation can be safe.
	VerdictImpossible = "impossible"
	// VerdictUnknown means that the target did not answer.
	VerdictUnknown = "unknown"
)

// RotationFinding is one thing that a check has found.
type RotationFinding struct {
	// Code is a stable token, such as login-denied.
	Code string `kms:"Code"`
	// Verdict is note, needs-consent or impossible. It applies to Strategies; none means all.
	Verdict    string   `kms:"Verdict"`
	Strategies []string `kms:"Strategies,list=Strategy"`
	// AccountName is the account at the target.
	AccountName string `kms:"AccountName,omitempty"`
	// Text says what was found, and Fix what to do: neither holds a secret.
	Text string `kms:"Text"`
	Fix  string `kms:"Fix,omitempty"`
	// Consent is the value of Consent of ConfigureRotation that agrees to the finding. Agreed reports
	// that the secret has it.
	Consent string `kms:"Consent,omitempty"`
	Agreed  bool   `kms:"Agreed"`
	// Outlasts reports that who holds a leaked credential can use what was found after an
	// EmergencyRotation has replaced that credential.
	Outlasts bool `kms:"Outlasts,omitempty"`
}

// CheckedStrategy is what a check says of one strategy.
type CheckedStrategy struct {
	Strategy string `kms:"Strategy"`
	// Verdict is safe, safe-with-consent, impossible or unknown.
	Verdict string `kms:"Verdict"`
	// Window says how long a credential from this service may be refused.
	Window string `kms:"Window"`
	// Consents are those that are missing.
	Consents []string `kms:"Consents,list=Consent"`
}

// CheckRotationResponse says whether a rotation of a secret would be safe.
type CheckRotationResponse struct {
	SecretName string    `kms:"SecretName"`
	TargetName string    `kms:"TargetName"`
	CheckTime  time.Time `kms:"CheckTime"`
	// Strategy is the one that a rotation would use, and Verdict what the check says of it. Strategy
	// is empty when no rotation can begin.
	Strategy string `kms:"Strategy,omitempty"`
	Verdict  string `kms:"Verdict"`
	// Unchecked says why the target could not be asked everything; empty when it was.
	Unchecked string `kms:"Unchecked,omitempty"`
	// Strategies has each strategy of the target.
	Strategies []CheckedStrategy `kms:"Strategies,list=Strategy"`
	Findings   []RotationFinding `kms:"Findings,list=Finding"`
	RequestID  string            `kms:"RequestId"`
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
	SecretName string `kms:"SecretName"`
	State      string `kms:"State"`
	RotationID string `kms:"RotationId,omitempty"`
	Trigger    string `kms:"Trigger,omitempty"`
	TargetName string `kms:"TargetName,omitempty"`
	// InProgress to Pauses, and FailingSince, are as in [DescribeRotationResponse]. Servers of earlier
	// releases return neither InProgress nor RepairActions.
	InProgress       bool            `kms:"InProgress"`
	RepairActions    []string        `kms:"RepairActions,list=RepairAction,omitempty"`
	Paused           bool            `kms:"Paused"`
	Pauses           []RotationPause `kms:"Pauses,list=Pause,omitempty"`
	StartTime        time.Time       `kms:"StartTime,omitempty"`
	PromoteTime      time.Time       `kms:"PromoteTime,omitempty"`
	NextAttemptTime  time.Time       `kms:"NextAttemptTime,omitempty"`
	FailingSince     time.Time       `kms:"FailingSince,omitempty"`
	NextRotationDate time.Time       `kms:"NextRotationDate,omitempty"`
	// PlannedDeleteTime is when the secret is deleted; until then, it is not rotated.
	PlannedDeleteTime time.Time `kms:"PlannedDeleteTime,omitempty"`
	// CredentialState to ProbeSkippedCode are as in [DescribeRotationResponse].
	CredentialState  string    `kms:"CredentialState"`
	ProbeTime        time.Time `kms:"ProbeTime,omitempty"`
	ProbeAttemptTime time.Time `kms:"ProbeAttemptTime,omitempty"`
	ProbePending     bool      `kms:"ProbePending"`
	ProbeSkipped     string    `kms:"ProbeSkipped,omitempty"`
	ProbeSkippedCode string    `kms:"ProbeSkippedCode,omitempty"`
	Reason           string    `kms:"Reason,omitempty"`
}

// ListRotationsResponse is a page of rotations.
type ListRotationsResponse struct {
	Rotations []ListedRotation `kms:"Rotations,list=Rotation"`
	// Pauses has the pause of all rotations; it is empty if there is none.
	Pauses []RotationPause `kms:"Pauses,list=Pause,omitempty"`
	// NextToken is empty on the last page.
	NextToken string `kms:"NextToken"`
	RequestID string `kms:"RequestId"`
}

// The scopes of a pause.
const (
	PausedSecret = "secret"
	PausedTarget = "target"
	PausedAll    = "all"
)

// RotationPause is a pause that holds.
type RotationPause struct {
	// Scope is secret, target or all.
	Scope string `kms:"Scope"`
	// PauseTime is since when, and Principal the ARN of who asked for it. A release before these
	// members did not store them.
	PauseTime time.Time `kms:"PauseTime,omitempty"`
	Principal string    `kms:"Principal,omitempty"`
	// Continue is the command that completes a preparation of accounts. Until then, the pause of the
	// secret does not end.
	Continue string `kms:"Continue,omitempty"`
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

// ResumeRotationResponse says whether there was a pause to end.
type ResumeRotationResponse struct {
	// NothingPaused says that there was no pause to end. Servers of earlier releases do not return it.
	NothingPaused bool   `kms:"NothingPaused"`
	RequestID     string `kms:"RequestId"`
}

// ProbeRotationResponse says how many credentials the service asks the targets about, up to 10 a
// second. DescribeRotation and ListRotations show the results once ProbePending is false.
type ProbeRotationResponse struct {
	// Asked counts the credentials that the targets are asked about.
	Asked int `kms:"Asked"`
	// NotAsked counts the credentials that are skipped: [ProbeSkips] has the causes. Reason says why
	// where the request names a secret, without the state of the rotation for a caller without
	// kms:DescribeRotation; ProbeSkipped of a rotation says so for each. A request that names a
	// secret which was asked about too often a moment ago gets Rejected.Throttling.
	NotAsked int    `kms:"NotAsked"`
	Reason   string `kms:"Reason,omitempty"`
	// AskTime is the server's time of the call: the target was asked about a credential since then if
	// ProbeAttemptTime is not before it.
	AskTime   time.Time `kms:"AskTime,omitempty"`
	RequestID string    `kms:"RequestId"`
}

// The values of ProbeSkippedCode.
const (
	SkippedDeleted     = "deleted"
	SkippedNotRotated  = "not-rotated"
	SkippedAccessKey   = "access-key"
	SkippedChanging    = "changing"
	SkippedQuarantined = "quarantined"
	SkippedNotBound    = "not-bound"
	SkippedTaken       = "account-of-another-secret"
	SkippedThrottled   = "throttled"
)

// ProbeSkip is a cause for which ProbeRotation skips a credential.
type ProbeSkip struct {
	// Code is a value of ProbeSkippedCode, and Text completes "a credential is skipped because".
	Code, Text string
	// Unknown says that the credential should work, and that nothing shows now whether it does: a
	// program that checks all credentials must not report success.
	Unknown bool
}

// ProbeSkips has all causes for which ProbeRotation skips a credential.
var ProbeSkips = []ProbeSkip{
	{SkippedDeleted, "its secret is deleted", false},
	{SkippedNotRotated, "its secret is not rotated", false},
	{SkippedAccessKey, "it is an access key of this service", false},
	{SkippedChanging, "a rotation is changing it, or is about to", false},
	{SkippedQuarantined, "its rotation is quarantined", true},
	{SkippedNotBound, "its target is not registered, or the secret is not bound to it", true},
	{SkippedTaken, "another secret rotates its account", true},
	{SkippedThrottled, "too many probes of it were asked for a moment ago", true},
}

// The values of RepairAction.
const (
	RepairProbe = "probe"
	RepairApply = "apply"
	RepairAdopt = "adopt"
)

// RepairRotationRequest repairs a rotation that is quarantined. With RepairAction probe it also
// makes the service try again now what has failed and waits.
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

// rotationOperations declares the operations on rotations, which are Keyturn's own.
var rotationOperations = []operation.Declaration{
	declare[ConfigureRotationRequest, DescribeRotationResponse]("ConfigureRotation").And("target/${TargetName}").
		Mutates().Retryable().Grantable().Rotates().Sends(),
	declare[SecretNameRequest, CheckRotationResponse]("CheckRotation").Mutates().Grantable().Rotates().Sends().
		AsksTarget(),
	declare[SecretNameRequest, SecretNameResponse]("RemoveRotation").Mutates().Retryable().Grantable(),
	declare[SecretNameRequest, DescribeRotationResponse]("DescribeRotation").Grantable(),
	declare[ListRotationsRequest, ListRotationsResponse]("ListRotations").On("secret"),
	declare[PauseRotationRequest, EmptyResponse]("PauseRotation").OnFound("secret, target or *").Mutates().
		Retryable().Grantable(),
	declare[PauseRotationRequest, ResumeRotationResponse]("ResumeRotation").OnFound("secret, target or *").Mutates().
		Retryable().Grantable(),
	declare[PauseRotationRequest, ProbeRotationResponse]("ProbeRotation").OnFound("secret, target or *").Mutates().
		Retryable().Grantable().AsksTarget(),
	declare[VersionedRequest, RotateSecretResponse]("RehearseRotation").Mutates().Retryable().Grantable().
		Rotates().Sends(),
	declare[EmergencyRotationRequest, EmergencyRotationResponse]("EmergencyRotation").Mutates().Retryable().
		Grantable().Rotates().Sends(),
	declare[SecretNameRequest, SecretNameResponse]("EndRotationGrace").Mutates().Retryable().Grantable().Rotates().
		Sends(),
	declare[SecretNameRequest, SecretNameResponse]("UndoRotation").Mutates().Grantable().Rotates().Sends(),
	declare[SecretNameRequest, DescribeRotationResponse]("CancelRotation").Mutates().Grantable().Rotates().Sends(),
	declare[RepairRotationRequest, DescribeRotationResponse]("RepairRotation").Mutates().Grantable().Rotates().
		Sends().AsksTarget(),
}

// ConfigureRotation sets how a secret is rotated. It is an operation of Keyturn's own.
func (c *Client) ConfigureRotation(
	ctx context.Context, in *ConfigureRotationRequest,
) (*DescribeRotationResponse, error) {
	return call[DescribeRotationResponse](ctx, c, "ConfigureRotation", in)
}

// CheckRotation says whether a rotation of a secret would be safe with each strategy, and what to
// do where it is not. It logs in as the application does and changes nothing at the target. It is
// an operation of Keyturn's own.
func (c *Client) CheckRotation(ctx context.Context, in *SecretNameRequest) (*CheckRotationResponse, error) {
	return call[CheckRotationResponse](ctx, c, "CheckRotation", in)
}

// RemoveRotation ends the rotation of a [TypeGeneric] secret by the service. It is an operation of
// Keyturn's own.
func (c *Client) RemoveRotation(ctx context.Context, in *SecretNameRequest) (*SecretNameResponse, error) {
	return call[SecretNameResponse](ctx, c, "RemoveRotation", in)
}

// DescribeRotation returns the state of the rotation of a secret. It is an operation of Keyturn's
// own.
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

// ResumeRotation allows new rotations again. It is an operation of Keyturn's own.
func (c *Client) ResumeRotation(ctx context.Context, in *PauseRotationRequest) (*ResumeRotationResponse, error) {
	return call[ResumeRotationResponse](ctx, c, "ResumeRotation", in)
}

// ProbeRotation checks now, at the targets, whether the credentials in use are accepted. It is an
// operation of Keyturn's own.
func (c *Client) ProbeRotation(ctx context.Context, in *PauseRotationRequest) (*ProbeRotationResponse, error) {
	return call[ProbeRotationResponse](ctx, c, "ProbeRotation", in)
}

// RehearseRotation rotates up to the promotion and then reverts every step. It is an operation of
// Keyturn's own.
func (c *Client) RehearseRotation(ctx context.Context, in *VersionedRequest) (*RotateSecretResponse, error) {
	return call[RotateSecretResponse](ctx, c, "RehearseRotation", in)
}

// EmergencyRotation replaces a credential that may have leaked, without a grace period, or returns
// the consumers that this would break. It is an operation of Keyturn's own.
func (c *Client) EmergencyRotation(
	ctx context.Context, in *EmergencyRotationRequest,
) (*EmergencyRotationResponse, error) {
	return call[EmergencyRotationResponse](ctx, c, "EmergencyRotation", in)
}

// EndRotationGrace retires the previous credential now. It is an operation of Keyturn's own.
func (c *Client) EndRotationGrace(ctx context.Context, in *SecretNameRequest) (*SecretNameResponse, error) {
	return call[SecretNameResponse](ctx, c, "EndRotationGrace", in)
}

// UndoRotation makes the previous credential current again during its grace period. It is an
// operation of Keyturn's own.
func (c *Client) UndoRotation(ctx context.Context, in *SecretNameRequest) (*SecretNameResponse, error) {
	return call[SecretNameResponse](ctx, c, "UndoRotation", in)
}

// CancelRotation ends a rotation whose candidate has not reached the target; any other is
// [ErrResourceInUse]. It is an operation of Keyturn's own.
func (c *Client) CancelRotation(ctx context.Context, in *SecretNameRequest) (*DescribeRotationResponse, error) {
	return call[DescribeRotationResponse](ctx, c, "CancelRotation", in)
}

// RepairRotation repairs a rotation that is quarantined. It is an operation of Keyturn's own.
func (c *Client) RepairRotation(ctx context.Context, in *RepairRotationRequest) (*DescribeRotationResponse, error) {
	return call[DescribeRotationResponse](ctx, c, "RepairRotation", in)
}
