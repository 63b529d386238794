package kms

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/sensitive"
)

// GetRandomPasswordRequest asks for a random password. It touches no secret.
type GetRandomPasswordRequest struct {
	// PasswordLength is 8 to 128; 0 means 32.
	PasswordLength int `kms:"PasswordLength,min=8,max=128,default=32"`
	// ExcludeCharacters are left out one by one: at most 100.
	ExcludeCharacters  string `kms:"ExcludeCharacters,max=100"`
	ExcludeLowercase   bool   `kms:"ExcludeLowercase,default=false"`
	ExcludeUppercase   bool   `kms:"ExcludeUppercase,default=false"`
	ExcludeNumbers     bool   `kms:"ExcludeNumbers,default=false"`
	ExcludePunctuation bool   `kms:"ExcludePunctuation,default=false"`
	// RequireEachIncludedType asks for at least one character of each class that is not excluded.
	RequireEachIncludedType bool `kms:"RequireEachIncludedType,default=false"`
}

// GetRandomPasswordResponse answers GetRandomPassword.
type GetRandomPasswordResponse struct {
	RandomPassword sensitive.Value `kms:"RandomPassword"`
	RequestID      string          `kms:"RequestId"`
}

// GetSecretValueRequest asks for one version of the value.
type GetSecretValueRequest struct {
	// SecretName is the name or the ARN.
	SecretName string `kms:"SecretName,required,min=1,max=192,pattern=name,arn,resource=secret"`
	// VersionStage is the label to read; empty means ACSCurrent, unless VersionID is given.
	VersionStage string `kms:"VersionStage,min=1,max=64"`
	// VersionID is the exact version. With VersionStage too, that version must carry the label.
	// Ignored for managed types.
	VersionID string `kms:"VersionId,min=1,max=64"`
	// FetchExtendedConfig adds ExtendedConfig; managed types only.
	FetchExtendedConfig bool `kms:"FetchExtendedConfig,default=false"`
	// DryRun checks and authorises, and always answers an error: DryRunOperationError when the call
	// would have worked.
	DryRun bool `kms:"DryRun,default=false"`
	// Consumer names this instance of an application, as in WatchSecrets: 1 to 64 of A-Z a-z 0-9 _
	// / + = . @ -. It is Keyturn's own; other endpoints ignore it.
	Consumer string `kms:"Consumer,min=1,max=64,pattern=name,agent=drop"`
}

// GetSecretValueResponse is one version of the value.
type GetSecretValueResponse struct {
	SecretName string          `kms:"SecretName"`
	SecretType string          `kms:"SecretType"`
	SecretData sensitive.Value `kms:"SecretData"`
	// SecretDataType is DataText or DataBinary.
	SecretDataType string   `kms:"SecretDataType"`
	VersionID      string   `kms:"VersionId"`
	VersionStages  []string `kms:"VersionStages,list=VersionStage"`
	// CreateTime is when this version was created.
	CreateTime        time.Time `kms:"CreateTime"`
	AutomaticRotation string    `kms:"AutomaticRotation,omitempty"`
	RotationInterval  string    `kms:"RotationInterval,omitempty"`
	LastRotationDate  time.Time `kms:"LastRotationDate,omitempty"`
	NextRotationDate  time.Time `kms:"NextRotationDate,omitempty"`
	ExtendedConfig    string    `kms:"ExtendedConfig,omitempty"`
	RequestID         string    `kms:"RequestId"`
}

// ListSecretVersionIdsRequest lists the versions of a secret, newest first.
type ListSecretVersionIdsRequest struct {
	// SecretName is the name or the ARN.
	SecretName string `kms:"SecretName,required,min=1,max=192,pattern=name,arn,resource=secret"`
	// IncludeDeprecated also lists versions without a label.
	IncludeDeprecated bool `kms:"IncludeDeprecated,default=false"`
	// PageNumber starts at 1; 0 means 1.
	PageNumber int `kms:"PageNumber,min=1,default=1"`
	// PageSize is 1 to 100; 0 means 20.
	PageSize int `kms:"PageSize,min=1,max=100,default=20"`
}

// ListedVersion is one row of ListSecretVersionIds.
type ListedVersion struct {
	VersionID     string    `kms:"VersionId"`
	CreateTime    time.Time `kms:"CreateTime"`
	VersionStages []string  `kms:"VersionStages,list=VersionStage"`
}

// ListSecretVersionIdsResponse is a page of versions.
type ListSecretVersionIdsResponse struct {
	SecretName string          `kms:"SecretName"`
	VersionIDs []ListedVersion `kms:"VersionIds,list=VersionId"`
	PageNumber int             `kms:"PageNumber"`
	PageSize   int             `kms:"PageSize"`
	TotalCount int             `kms:"TotalCount"`
	RequestID  string          `kms:"RequestId"`
}

// PutSecretValueRequest stores a new version of a Generic secret. The same VersionID with the same
// value is a no-op, so it may be retried; with another value it is refused.
type PutSecretValueRequest struct {
	// SecretName is the name or the ARN.
	SecretName string `kms:"SecretName,required,min=1,max=192,pattern=name,arn,resource=secret"`
	// SecretData is the value, 1 to 30720 bytes.
	SecretData sensitive.Value `kms:"SecretData,required,min=1,max=30720,bytes"`
	// VersionID is new and unique in the secret: 1 to 64 characters, the set of SecretName.
	VersionID string `kms:"VersionId,required,min=1,max=64,pattern=name"`
	// SecretDataType is DataText (the default) or DataBinary.
	SecretDataType string `kms:"SecretDataType,enum=text|binary,default=text"`
	// VersionStages are the labels of the new version; empty means ACSCurrent. Without ACSCurrent
	// among them, the current and the previous version stay where they are.
	VersionStages []string `kms:"VersionStages,json,default=[\"ACSCurrent\"]"`
}

// PutSecretValueResponse answers PutSecretValue.
type PutSecretValueResponse struct {
	SecretName string `kms:"SecretName"`
	VersionID  string `kms:"VersionId"`
	// VersionStages are the labels that the version carries now.
	VersionStages []string `kms:"VersionStages,list=VersionStage"`
	RequestID     string   `kms:"RequestId"`
}

// UpdateSecretVersionStageRequest adds, moves or removes one label of a Generic secret.
type UpdateSecretVersionStageRequest struct {
	// SecretName is the name or the ARN.
	SecretName string `kms:"SecretName,required,min=1,max=192,pattern=name,arn,resource=secret"`
	// VersionStage is the label: ACSCurrent, ACSPrevious or a custom one of 1 to 64 characters.
	VersionStage string `kms:"VersionStage,required,min=1,max=64,pattern=name"`
	// MoveToVersion gets the label. Required for the two built-in ones.
	MoveToVersion string `kms:"MoveToVersion,min=1,max=64"`
	// RemoveFromVersion loses the label, and must carry it: with MoveToVersion, a compare-and-swap.
	RemoveFromVersion string `kms:"RemoveFromVersion,min=1,max=64"`
}

// valueOperations declares the operations on the values and versions of secrets.
var valueOperations = []operation.Declaration{
	declare[GetRandomPasswordRequest, GetRandomPasswordResponse]("GetRandomPassword").On("*").Impersonal(),
	declare[GetSecretValueRequest, GetSecretValueResponse]("GetSecretValue").Grantable().DryRun(),
	declare[ListSecretVersionIdsRequest, ListSecretVersionIdsResponse]("ListSecretVersionIds").Grantable(),
	declare[PutSecretValueRequest, PutSecretValueResponse]("PutSecretValue").Mutates().Retryable().Grantable(),
	declare[UpdateSecretVersionStageRequest, SecretNameResponse]("UpdateSecretVersionStage").Mutates().Grantable(),
}

// GetRandomPassword returns a random password.
func (c *Client) GetRandomPassword(
	ctx context.Context, in *GetRandomPasswordRequest,
) (*GetRandomPasswordResponse, error) {
	return call[GetRandomPasswordResponse](ctx, c, "GetRandomPassword", in)
}

// GetSecretValue returns one version of the value: [StageCurrent] unless the request names another.
func (c *Client) GetSecretValue(ctx context.Context, in *GetSecretValueRequest) (*GetSecretValueResponse, error) {
	return call[GetSecretValueResponse](ctx, c, "GetSecretValue", in)
}

// ListSecretVersionIds returns a page of the versions of a secret.
func (c *Client) ListSecretVersionIds(
	ctx context.Context, in *ListSecretVersionIdsRequest,
) (*ListSecretVersionIdsResponse, error) {
	return call[ListSecretVersionIdsResponse](ctx, c, "ListSecretVersionIds", in)
}

// PutSecretValue stores a new version. An existing VersionID with another value is
// [ErrResourceExist].
func (c *Client) PutSecretValue(ctx context.Context, in *PutSecretValueRequest) (*PutSecretValueResponse, error) {
	return call[PutSecretValueResponse](ctx, c, "PutSecretValue", in)
}

// UpdateSecretVersionStage adds, moves or removes one label. The client does not repeat it after an
// unknown outcome: with RemoveFromVersion it is a compare-and-swap.
func (c *Client) UpdateSecretVersionStage(
	ctx context.Context, in *UpdateSecretVersionStageRequest,
) (*SecretNameResponse, error) {
	return call[SecretNameResponse](ctx, c, "UpdateSecretVersionStage", in)
}
