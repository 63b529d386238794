package kms

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/operation"
)

// The states of a watched secret.
const (
	// StateCurrent means that the secret exists and the caller may read it.
	StateCurrent = "current"
	// StateAbsent means that the secret does not exist, or is scheduled for deletion.
	StateAbsent = "absent"
	// StateDenied means that the caller may not read the secret, whether or not it exists.
	StateDenied = "denied"
)

// WatchedSecret is one secret that a consumer watches, and what the consumer says of it.
type WatchedSecret struct {
	// SecretName is the name or the ARN.
	SecretName string `flat:"SecretName"`
	// Revision is the revision of the last [SecretChange] of this secret that the consumer has seen;
	// empty for none. Any other revision is answered at once, so changes between two calls are not
	// missed.
	Revision string `flat:"Revision"`
	// VersionID is the version that the consumer uses for what is new, such as the next connection;
	// empty for none yet.
	VersionID string `flat:"VersionId"`
	// OldestVersionID is the oldest version that something which is open was opened with; empty
	// means VersionID.
	OldestVersionID string `flat:"OldestVersionId"`
}

// WatchSecretsRequest waits until one of several secrets changes, and says which versions of them
// are in use.
type WatchSecretsRequest struct {
	// Secrets are 1 to 500.
	Secrets []WatchedSecret `kms:"Secret,flat,required,min=1,max=500"`
	// Consumer names this instance of an application: 1 to 64 of A-Z a-z 0-9 _ / + = . @ -. Without
	// it nothing is noted of what is in use.
	Consumer string `kms:"Consumer,min=1,max=64,pattern=name,agent=drop"`
	// WaitSeconds is how long to wait for a change, 0 to 50; 0 answers at once.
	WaitSeconds int `kms:"WaitSeconds,min=0,max=50,default=0"`
	// Leaving reports that this instance ends and holds no versions. The server forgets it and
	// answers at once.
	Leaving bool `kms:"Leaving,default=false,agent=refuse"`
}

// SecretChange is a secret whose revision is not the one that the consumer knows. It holds no
// value: GetSecretValue gives that.
type SecretChange struct {
	SecretName string `kms:"SecretName"`
	// Revision is opaque, and names the state that the other members describe.
	Revision string `kms:"Revision"`
	// State is StateCurrent, StateAbsent or StateDenied. The other members are empty unless it is
	// StateCurrent.
	State string `kms:"State"`
	// VersionID is the version with ACSCurrent, PreviousVersionID the one with ACSPrevious, and
	// PendingVersionID the candidate of a rotation that is under way.
	VersionID         string    `kms:"VersionId,omitempty"`
	PreviousVersionID string    `kms:"PreviousVersionId,omitempty"`
	PendingVersionID  string    `kms:"PendingVersionId,omitempty"`
	NextRotationDate  time.Time `kms:"NextRotationDate,omitempty"`
}

// WatchSecretsResponse holds the changes; none when the time to wait is over.
type WatchSecretsResponse struct {
	Changes   []SecretChange `kms:"Changes,list=Change"`
	RequestID string         `kms:"RequestId"`
}

// ConsumerDays is for how many days at least a consumer is known after it has used a secret.
const ConsumerDays = 2

// ListSecretConsumersRequest lists the consumers that used a secret in the last [ConsumerDays]
// days, in no particular order.
type ListSecretConsumersRequest struct {
	// SecretName is the name or the ARN.
	SecretName string `kms:"SecretName,required,min=1,max=192,pattern=name,arn,resource=secret"`
	// Behind leaves out those that hold nothing but the current version.
	Behind bool `kms:"Behind,default=false"`
	// NextToken continues after a page; opaque.
	NextToken string `kms:"NextToken"`
	// MaxResults is 1 to 100; 0 means 100.
	MaxResults int `kms:"MaxResults,min=1,max=100,default=100"`
}

// The values of Evidence.
const (
	// EvidenceAcknowledged is what the consumer reported.
	EvidenceAcknowledged = "acknowledged"
	// EvidenceInferred is the last read of ACSCurrent by a principal from an address. A consumer
	// that reads rarely, or caches what it has read, may use an older version.
	EvidenceInferred = "inferred"
)

// SecretConsumer is a consumer that was seen to use a secret.
type SecretConsumer struct {
	// Consumer is the name that the instance reported; empty for a consumer that only reads.
	Consumer string `kms:"Consumer,omitempty"`
	// Principal is the ARN of the caller, Source its address.
	Principal string `kms:"Principal"`
	Source    string `kms:"Source,omitempty"`
	// VersionID is the version that it uses, OldestVersionID the oldest that it holds.
	VersionID       string `kms:"VersionId,omitempty"`
	OldestVersionID string `kms:"OldestVersionId,omitempty"`
	// Evidence is EvidenceAcknowledged or EvidenceInferred.
	Evidence string `kms:"Evidence"`
	// LastSeen is at most a minute late.
	LastSeen time.Time `kms:"LastSeen"`
	// Behind reports that the consumer holds a version other than the current one.
	Behind bool `kms:"Behind"`
}

// ListSecretConsumersResponse is a page of consumers.
type ListSecretConsumersResponse struct {
	SecretName string `kms:"SecretName"`
	// VersionID is the current version.
	VersionID string           `kms:"VersionId"`
	Consumers []SecretConsumer `kms:"Consumers,list=Consumer"`
	// NextToken is empty on the last page.
	NextToken string `kms:"NextToken"`
	RequestID string `kms:"RequestId"`
}

// consumerOperations declares the operations for consumers, which are Keyturn's own.
var consumerOperations = []operation.Declaration{
	declare[WatchSecretsRequest, WatchSecretsResponse]("WatchSecrets").On("*").AnyCaller().Waits(50 * time.Second),
	declare[ListSecretConsumersRequest, ListSecretConsumersResponse]("ListSecretConsumers").Grantable(),
}

// WatchSecrets waits until one of several secrets changes. It is an operation of Keyturn's own. The
// timeout of the client's HTTPClient must be longer than WaitSeconds.
func (c *Client) WatchSecrets(ctx context.Context, in *WatchSecretsRequest) (*WatchSecretsResponse, error) {
	return call[WatchSecretsResponse](ctx, c, "WatchSecrets", in)
}

// ListSecretConsumers lists who uses a secret. It is an operation of Keyturn's own.
func (c *Client) ListSecretConsumers(
	ctx context.Context, in *ListSecretConsumersRequest,
) (*ListSecretConsumersResponse, error) {
	return call[ListSecretConsumersResponse](ctx, c, "ListSecretConsumers", in)
}
