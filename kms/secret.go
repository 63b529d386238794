package kms

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/sensitive"
)

// Tag is one label of a resource that people and policies use. The key has 1 to 128 and the value 0
// to 128 characters of letters, digits and / \ _ - . + = : @; a key does not begin with "aliyun" or
// "acs:". A resource has at most 20.
type Tag struct {
	TagKey   string `json:"TagKey" kms:"TagKey"`
	TagValue string `json:"TagValue" kms:"TagValue"`
}

// CreateSecretRequest creates a secret and stores its first version, which takes ACSCurrent.
type CreateSecretRequest struct {
	// SecretName has 1 to 192 of A-Z a-z 0-9 _ / + = . @ -. Names of Generic, Rds and Redis secrets
	// do not begin with "acs/", names of ECS secrets begin with "acs/ecs/", and RAMCredentials
	// secrets are named Auto.
	SecretName string `kms:"SecretName,required,min=1,max=192,pattern=name,literal=$Auto"`
	// SecretData is the value, 1 to 30720 bytes; for managed types the JSON that secrets of that
	// type are made from.
	SecretData sensitive.Value `kms:"SecretData,required,min=1,max=30720,bytes"`
	// VersionID identifies the version within the secret: 1 to 64 characters, the set of
	// SecretName.
	VersionID string `kms:"VersionId,required,min=1,max=64,pattern=name"`
	// EncryptionKeyID names the customer master key; empty means the account's default key.
	EncryptionKeyID string `kms:"EncryptionKeyId"`
	// SecretDataType is DataText (the default) or DataBinary.
	SecretDataType string `kms:"SecretDataType,enum=text|binary,default=text"`
	// Description is free text of at most 8192 characters.
	Description string `kms:"Description,min=0,max=8192"`
	// Tags to start with, at most 20.
	Tags []Tag `kms:"Tags,json"`
	// SecretType is one of the Type constants; empty means TypeGeneric. It never changes.
	SecretType string `kms:"SecretType,enum=Generic|Rds|Redis|RAMCredentials|ECS|PolarDB,default=Generic"`
	// ExtendedConfig is a JSON object of at most 1024 characters, required for managed types and
	// for them alone.
	ExtendedConfig string `kms:"ExtendedConfig,json,max=1024"`
	// EnableAutomaticRotation plans the first rotation for creation plus RotationInterval. Ignored
	// for Generic secrets.
	EnableAutomaticRotation bool `kms:"EnableAutomaticRotation,default=false"`
	// RotationInterval is a whole number and a unit, d, h, m or s (none means seconds): 6h to
	// 8760h.
	RotationInterval string `kms:"RotationInterval"`
	// DKMSInstanceID is stored and returned; Keyturn has no instances.
	DKMSInstanceID string `kms:"DKMSInstanceId"`
	// Policy is the secret's policy document of at most 32768 bytes; empty means the default one.
	Policy string `kms:"Policy,json,max=32768,bytes"`
}

// CreateSecretResponse answers CreateSecret.
type CreateSecretResponse struct {
	ARN               string    `kms:"Arn"`
	SecretName        string    `kms:"SecretName"`
	VersionID         string    `kms:"VersionId"`
	SecretType        string    `kms:"SecretType"`
	AutomaticRotation string    `kms:"AutomaticRotation,omitempty"`
	RotationInterval  string    `kms:"RotationInterval,omitempty"`
	NextRotationDate  time.Time `kms:"NextRotationDate,omitempty"`
	ExtendedConfig    string    `kms:"ExtendedConfig,omitempty"`
	DKMSInstanceID    string    `kms:"DKMSInstanceId,omitempty"`
	RequestID         string    `kms:"RequestId"`
}

// DeleteSecretRequest plans the deletion of a secret, or deletes it at once.
type DeleteSecretRequest struct {
	// SecretName is the name or the ARN.
	SecretName string `kms:"SecretName,required,min=1,max=192,pattern=name,arn,resource=secret"`
	// ForceDeleteWithoutRecovery deletes now; nothing can be recovered, and RecoveryWindowInDays is
	// ignored.
	ForceDeleteWithoutRecovery bool `kms:"ForceDeleteWithoutRecovery,default=false"`
	// RecoveryWindowInDays is how long RestoreSecret remains possible: 7 to 30, 0 means 30.
	RecoveryWindowInDays int `kms:"RecoveryWindowInDays,min=7,max=30,default=30"`
}

// DeleteSecretResponse answers DeleteSecret.
type DeleteSecretResponse struct {
	SecretName        string    `kms:"SecretName"`
	PlannedDeleteTime time.Time `kms:"PlannedDeleteTime"`
	RequestID         string    `kms:"RequestId"`
}

// RestoreSecretRequest cancels a planned deletion.
type RestoreSecretRequest struct {
	// SecretName is the name or the ARN.
	SecretName string `kms:"SecretName,required,min=1,max=192,pattern=name,arn,resource=secret"`
}

// RestoreSecretResponse answers RestoreSecret.
type RestoreSecretResponse struct {
	SecretName string `kms:"SecretName"`
	// Warning says that a secret which this one cannot be rotated without is deleted, or about to be,
	// and what to do; empty where that is not so.
	Warning   string `kms:"Warning,omitempty"`
	RequestID string `kms:"RequestId"`
}

// SecretNameResponse is the answer of operations that return the name alone.
type SecretNameResponse struct {
	SecretName string `kms:"SecretName"`
	RequestID  string `kms:"RequestId"`
}

// DescribeSecretRequest asks for the metadata of a secret.
type DescribeSecretRequest struct {
	// SecretName is the name or the ARN.
	SecretName string `kms:"SecretName,required,min=1,max=192,pattern=name,arn,resource=secret"`
	// FetchTags adds Tags to the answer.
	FetchTags bool `kms:"FetchTags,default=false"`
}

// DescribeSecretResponse is the metadata of a secret, never its value.
type DescribeSecretResponse struct {
	ARN         string `kms:"Arn"`
	SecretName  string `kms:"SecretName"`
	SecretType  string `kms:"SecretType"`
	Description string `kms:"Description"`
	// EncryptionKeyID is absent for the account's default key.
	EncryptionKeyID string    `kms:"EncryptionKeyId,omitempty"`
	CreateTime      time.Time `kms:"CreateTime"`
	UpdateTime      time.Time `kms:"UpdateTime"`
	// PlannedDeleteTime is set while a deletion is planned.
	PlannedDeleteTime time.Time `kms:"PlannedDeleteTime,omitempty"`
	// AutomaticRotation is Enabled, Disabled or Invalid; managed types only.
	AutomaticRotation string `kms:"AutomaticRotation,omitempty"`
	// RotationInterval is in seconds with the suffix s.
	RotationInterval string    `kms:"RotationInterval,omitempty"`
	LastRotationDate time.Time `kms:"LastRotationDate,omitempty"`
	NextRotationDate time.Time `kms:"NextRotationDate,omitempty"`
	// ExtendedConfig is JSON text.
	ExtendedConfig string `kms:"ExtendedConfig,omitempty"`
	DKMSInstanceID string `kms:"DKMSInstanceId,omitempty"`
	// Tags is nil unless FetchTags was set.
	Tags      *[]Tag `kms:"Tags,list=Tag,omitempty"`
	RequestID string `kms:"RequestId"`
}

// Filter narrows ListSecrets. Values of one filter are alternatives; several filters must all hold.
type Filter struct {
	// Key is SecretName (a prefix), Description (a part), TagKey, TagValue, DKMSInstanceId,
	// SecretType or Creator (equal).
	Key string `json:"Key"`
	// Values are at most 10.
	Values []string `json:"Values"`
}

// ListSecretsRequest lists the secrets of the account, ordered by name.
type ListSecretsRequest struct {
	// Filters are at most 10.
	Filters []Filter `kms:"Filters,json"`
	// FetchTags adds Tags to each row.
	FetchTags bool `kms:"FetchTags,default=false"`
	// PageNumber starts at 1; 0 means 1.
	PageNumber int `kms:"PageNumber,min=1,default=1"`
	// PageSize is 1 to 100; 0 means 10.
	PageSize int `kms:"PageSize,min=1,max=100,default=10"`
}

// ListedSecret is one row of ListSecrets.
type ListedSecret struct {
	SecretName        string    `kms:"SecretName"`
	SecretType        string    `kms:"SecretType"`
	CreateTime        time.Time `kms:"CreateTime"`
	UpdateTime        time.Time `kms:"UpdateTime"`
	PlannedDeleteTime time.Time `kms:"PlannedDeleteTime,omitempty"`
	Tags              *[]Tag    `kms:"Tags,list=Tag,omitempty"`
}

// ListSecretsResponse is a page of secrets.
type ListSecretsResponse struct {
	SecretList []ListedSecret `kms:"SecretList,list=Secret"`
	PageNumber int            `kms:"PageNumber"`
	PageSize   int            `kms:"PageSize"`
	// TotalCount counts all that match, on every page.
	TotalCount int    `kms:"TotalCount"`
	RequestID  string `kms:"RequestId"`
}

// UpdateSecretRequest changes the metadata of a secret.
type UpdateSecretRequest struct {
	// SecretName is the name or the ARN.
	SecretName string `kms:"SecretName,required,min=1,max=192,pattern=name,arn,resource=secret"`
	// Description: nil leaves it, a pointer to "" clears it. At most 8192 characters.
	Description *string `kms:"Description,min=0,max=8192"`
	// CustomData replaces that part of ExtendedConfig: at most 10 pairs, managed types only.
	CustomData map[string]string `kms:"ExtendedConfig.CustomData,json,flat"`
}

// RotateSecretRequest starts a rotation of a managed secret now.
type RotateSecretRequest struct {
	// SecretName is the name or the ARN.
	SecretName string `kms:"SecretName,required,min=1,max=192,pattern=name,arn,resource=secret"`
	// VersionID identifies the version that the rotation makes; repeating the call with it does not
	// rotate again.
	VersionID string `kms:"VersionId,required,min=1,max=64,pattern=name"`
}

// RotateSecretResponse answers RotateSecret.
type RotateSecretResponse struct {
	ARN        string `kms:"Arn"`
	SecretName string `kms:"SecretName"`
	VersionID  string `kms:"VersionId"`
	RequestID  string `kms:"RequestId"`
}

// UpdateSecretRotationPolicyRequest turns automatic rotation of a managed secret on or off.
type UpdateSecretRotationPolicyRequest struct {
	// SecretName is the name or the ARN.
	SecretName              string `kms:"SecretName,required,min=1,max=192,pattern=name,arn,resource=secret"`
	EnableAutomaticRotation bool   `kms:"EnableAutomaticRotation,required"`
	// RotationInterval is a whole number and a unit, d, h, m or s (none means seconds): 6h to
	// 8760h. Required to enable.
	RotationInterval string `kms:"RotationInterval"`
}

// EmptyResponse is the answer of operations that return nothing.
type EmptyResponse struct {
	RequestID string `kms:"RequestId"`
}

// secretOperations declares the operations on secrets.
var secretOperations = []operation.Declaration{
	declare[CreateSecretRequest, CreateSecretResponse]("CreateSecret").On("secret").Mutates().
		AlsoNeeds("kms:SetSecretPolicy", "secret/${SecretName}").Rotates(),
	declare[DeleteSecretRequest, DeleteSecretResponse]("DeleteSecret").Mutates().Grantable(),
	declare[RestoreSecretRequest, RestoreSecretResponse]("RestoreSecret").Mutates().Grantable(),
	declare[DescribeSecretRequest, DescribeSecretResponse]("DescribeSecret").Grantable(),
	declare[ListSecretsRequest, ListSecretsResponse]("ListSecrets").On("secret"),
	declare[UpdateSecretRequest, SecretNameResponse]("UpdateSecret").Mutates().Retryable().Grantable(),
	declare[RotateSecretRequest, RotateSecretResponse]("RotateSecret").Mutates().Retryable().Grantable().Rotates().
		Sends(),
	declare[UpdateSecretRotationPolicyRequest, SecretNameResponse]("UpdateSecretRotationPolicy").Mutates().
		Retryable().Grantable().Rotates().Sends(),
}

// CreateSecret creates a secret and stores its first version. An existing name is
// [ErrResourceExist].
func (c *Client) CreateSecret(ctx context.Context, in *CreateSecretRequest) (*CreateSecretResponse, error) {
	return call[CreateSecretResponse](ctx, c, "CreateSecret", in)
}

// DeleteSecret schedules the deletion of a secret, or deletes it at once. It fails with
// Rejected.ResourceInUse for a secret that holds the administrator of a target, or the client
// certificate for another secret's logins.
func (c *Client) DeleteSecret(ctx context.Context, in *DeleteSecretRequest) (*DeleteSecretResponse, error) {
	return call[DeleteSecretResponse](ctx, c, "DeleteSecret", in)
}

// RestoreSecret cancels a scheduled deletion. A secret without one is [ErrResourceInUse].
func (c *Client) RestoreSecret(ctx context.Context, in *RestoreSecretRequest) (*RestoreSecretResponse, error) {
	return call[RestoreSecretResponse](ctx, c, "RestoreSecret", in)
}

// DescribeSecret returns the metadata of a secret.
func (c *Client) DescribeSecret(ctx context.Context, in *DescribeSecretRequest) (*DescribeSecretResponse, error) {
	return call[DescribeSecretResponse](ctx, c, "DescribeSecret", in)
}

// ListSecrets returns a page of secrets.
func (c *Client) ListSecrets(ctx context.Context, in *ListSecretsRequest) (*ListSecretsResponse, error) {
	return call[ListSecretsResponse](ctx, c, "ListSecrets", in)
}

// UpdateSecret changes the metadata of a secret.
func (c *Client) UpdateSecret(ctx context.Context, in *UpdateSecretRequest) (*SecretNameResponse, error) {
	return call[SecretNameResponse](ctx, c, "UpdateSecret", in)
}

// RotateSecret starts a rotation of a managed secret.
func (c *Client) RotateSecret(ctx context.Context, in *RotateSecretRequest) (*RotateSecretResponse, error) {
	return call[RotateSecretResponse](ctx, c, "RotateSecret", in)
}

// UpdateSecretRotationPolicy turns automatic rotation on or off.
func (c *Client) UpdateSecretRotationPolicy(
	ctx context.Context, in *UpdateSecretRotationPolicyRequest,
) (*SecretNameResponse, error) {
	return call[SecretNameResponse](ctx, c, "UpdateSecretRotationPolicy", in)
}
