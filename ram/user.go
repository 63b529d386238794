package ram

import (
	"time"

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
