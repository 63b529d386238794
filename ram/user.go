package ram

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/sensitive"
)

// User is one user. Which fields are set depends on the operation, as in the reference.
type User struct {
	UserID      string `kms:"UserId"`
	UserName    string `kms:"UserName"`
	DisplayName string `kms:"DisplayName"`
	MobilePhone string `kms:"MobilePhone,omitempty"`
	Email       string `kms:"Email,omitempty"`
	Comments    string `kms:"Comments,omitempty"`
	// CreateDate and UpdateDate are set but where the user is listed for what they are attached to.
	CreateDate time.Time `kms:"CreateDate,omitempty"`
	UpdateDate time.Time `kms:"UpdateDate,omitempty"`
	// JoinDate is set by ListUsersForGroup, AttachDate by ListEntitiesForPolicy.
	JoinDate   time.Time `kms:"JoinDate,omitempty"`
	AttachDate time.Time `kms:"AttachDate,omitempty"`
}

// CreateUserRequest makes a user, who has no rights and no access key yet.
type CreateUserRequest struct {
	UserName    string `kms:"UserName"`
	DisplayName string `kms:"DisplayName"`
	MobilePhone string `kms:"MobilePhone"`
	Email       string `kms:"Email"`
	Comments    string `kms:"Comments"`
}

// UserResponse answers CreateUser, GetUser and UpdateUser.
type UserResponse struct {
	User      User   `kms:"User"`
	RequestID string `kms:"RequestId"`
}

// GetUserRequest reads a user.
type GetUserRequest struct {
	UserName string `kms:"UserName,resource=user"`
}

// ListUsersRequest lists users in the order of names.
type ListUsersRequest struct {
	// Marker continues after the page that gave it.
	Marker   string `kms:"Marker"`
	MaxItems int    `kms:"MaxItems,min=1,max=1000,default=100"`
}

// ListUsersResponse answers ListUsers and ListUsersForGroup. Marker is set when IsTruncated is.
type ListUsersResponse struct {
	IsTruncated bool   `kms:"IsTruncated"`
	Marker      string `kms:"Marker,omitempty"`
	Users       []User `kms:"Users,list=User"`
	RequestID   string `kms:"RequestId"`
}

// UpdateUserRequest changes what is given; nil leaves a field as it is. A new name changes the
// user's ARN.
type UpdateUserRequest struct {
	UserName       string  `kms:"UserName,resource=user"`
	NewUserName    string  `kms:"NewUserName"`
	NewDisplayName *string `kms:"NewDisplayName"`
	NewMobilePhone *string `kms:"NewMobilePhone"`
	NewEmail       *string `kms:"NewEmail"`
	NewComments    *string `kms:"NewComments"`
}

// DeleteUserRequest deletes a user who has no access key, no policy and no group.
type DeleteUserRequest struct {
	UserName string `kms:"UserName,resource=user"`
}

// AccessKey is a permanent access key. AccessKeySecret is in the answer of CreateAccessKey alone.
type AccessKey struct {
	AccessKeyID     string          `kms:"AccessKeyId"`
	AccessKeySecret sensitive.Value `kms:"AccessKeySecret"`
	Status          string          `kms:"Status"`
	CreateDate      time.Time       `kms:"CreateDate"`
}

// ListedAccessKey is an access key without its secret.
type ListedAccessKey struct {
	AccessKeyID string    `kms:"AccessKeyId"`
	Status      string    `kms:"Status"`
	CreateDate  time.Time `kms:"CreateDate"`
}

// CreateAccessKeyRequest makes an access key; a user has at most two. Without UserName it is the
// caller's own.
type CreateAccessKeyRequest struct {
	UserName string `kms:"UserName,resource=user-or-self"`
}

// CreateAccessKeyResponse answers CreateAccessKey. The secret is never shown again.
type CreateAccessKeyResponse struct {
	AccessKey AccessKey `kms:"AccessKey"`
	RequestID string    `kms:"RequestId"`
}

// ListAccessKeysRequest lists the access keys of a user, or the caller's own.
type ListAccessKeysRequest struct {
	UserName string `kms:"UserName,resource=user-or-self"`
}

// ListAccessKeysResponse answers ListAccessKeys.
type ListAccessKeysResponse struct {
	AccessKeys []ListedAccessKey `kms:"AccessKeys,list=AccessKey"`
	RequestID  string            `kms:"RequestId"`
}

// UpdateAccessKeyRequest switches an access key on or off; it takes effect with the next call.
type UpdateAccessKeyRequest struct {
	UserName        string `kms:"UserName,resource=user-or-self"`
	UserAccessKeyID string `kms:"UserAccessKeyId"`
	Status          string `kms:"Status"`
}

// AccessKeyRequest names an access key, for DeleteAccessKey and GetAccessKeyLastUsed.
type AccessKeyRequest struct {
	UserName        string `kms:"UserName,resource=user-or-self"`
	UserAccessKeyID string `kms:"UserAccessKeyId"`
}

// AccessKeyLastUsed says when an access key was last used; zero for never.
type AccessKeyLastUsed struct {
	LastUsedDate time.Time `kms:"LastUsedDate"`
}

// GetAccessKeyLastUsedResponse answers GetAccessKeyLastUsed. It may lag by a minute behind uses at
// another node.
type GetAccessKeyLastUsedResponse struct {
	AccessKeyLastUsed AccessKeyLastUsed `kms:"AccessKeyLastUsed"`
	RequestID         string            `kms:"RequestId"`
}

// userOperations declares the operations on users and their access keys.
var userOperations = []operation.Declaration{
	declare[CreateUserRequest, UserResponse]("CreateUser").On("user/*").Mutates(),
	declare[GetUserRequest, UserResponse]("GetUser"),
	declare[ListUsersRequest, ListUsersResponse]("ListUsers").On("user/*"),
	declare[UpdateUserRequest, UserResponse]("UpdateUser").Mutates(),
	declare[DeleteUserRequest, EmptyResponse]("DeleteUser").Mutates(),
	declare[CreateAccessKeyRequest, CreateAccessKeyResponse]("CreateAccessKey").Mutates(),
	declare[ListAccessKeysRequest, ListAccessKeysResponse]("ListAccessKeys"),
	declare[UpdateAccessKeyRequest, EmptyResponse]("UpdateAccessKey").Mutates(),
	declare[AccessKeyRequest, EmptyResponse]("DeleteAccessKey").Mutates(),
	declare[AccessKeyRequest, GetAccessKeyLastUsedResponse]("GetAccessKeyLastUsed"),
}

// CreateUser creates a user without rights.
func (c *Client) CreateUser(ctx context.Context, in *CreateUserRequest) (*UserResponse, error) {
	return call[UserResponse](ctx, c, "CreateUser", in)
}

// GetUser returns a user.
func (c *Client) GetUser(ctx context.Context, in *GetUserRequest) (*UserResponse, error) {
	return call[UserResponse](ctx, c, "GetUser", in)
}

// ListUsers returns a page of users.
func (c *Client) ListUsers(ctx context.Context, in *ListUsersRequest) (*ListUsersResponse, error) {
	return call[ListUsersResponse](ctx, c, "ListUsers", in)
}

// UpdateUser changes a user.
func (c *Client) UpdateUser(ctx context.Context, in *UpdateUserRequest) (*UserResponse, error) {
	return call[UserResponse](ctx, c, "UpdateUser", in)
}

// DeleteUser deletes a user that has no access key, policy or group.
func (c *Client) DeleteUser(ctx context.Context, in *DeleteUserRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "DeleteUser", in)
}

// CreateAccessKey creates an access key and returns its secret, once.
func (c *Client) CreateAccessKey(ctx context.Context, in *CreateAccessKeyRequest) (*CreateAccessKeyResponse, error) {
	return call[CreateAccessKeyResponse](ctx, c, "CreateAccessKey", in)
}

// ListAccessKeys returns the access keys of a user.
func (c *Client) ListAccessKeys(ctx context.Context, in *ListAccessKeysRequest) (*ListAccessKeysResponse, error) {
	return call[ListAccessKeysResponse](ctx, c, "ListAccessKeys", in)
}

// UpdateAccessKey enables or disables an access key.
func (c *Client) UpdateAccessKey(ctx context.Context, in *UpdateAccessKeyRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "UpdateAccessKey", in)
}

// DeleteAccessKey deletes an access key.
func (c *Client) DeleteAccessKey(ctx context.Context, in *AccessKeyRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "DeleteAccessKey", in)
}

// GetAccessKeyLastUsed returns when an access key was last used.
func (c *Client) GetAccessKeyLastUsed(
	ctx context.Context, in *AccessKeyRequest,
) (*GetAccessKeyLastUsedResponse, error) {
	return call[GetAccessKeyLastUsedResponse](ctx, c, "GetAccessKeyLastUsed", in)
}
