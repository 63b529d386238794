package protocol

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/users"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
)

// Code is how an outcome crosses the wire.
type Code struct {
	Status  int
	Code    string
	Message string // the documented text; a %s in it is the parameter's name
}

// codes and ownCodes are the only place that gives an outcome its status and code. The messages
// come from the public reference.
var codes = [fault.Kinds]Code{
	fault.OK:          {http.StatusOK, "", ""},
	fault.Internal:    {http.StatusInternalServerError, kms.CodeInternalFailure, "Internal Failure."},
	fault.Unavailable: {http.StatusServiceUnavailable, kms.CodeUnavailable, "Service Unavailable Temporary."},
	fault.Throttled:   {http.StatusTooManyRequests, kms.CodeThrottling, "QPS Limit Exceeded"},
	fault.Malformed: {
		Status:  http.StatusBadRequest,
		Code:    "ParseRequestParameterException",
		Message: "Server parse parameters exception. Please check your input params.",
	},
	fault.Missing: {
		Status:  http.StatusBadRequest,
		Code:    kms.CodeMissingParameter,
		Message: `The parameter "%s" is needed but not provided.`,
	},
	fault.Invalid: {
		Status:  http.StatusBadRequest,
		Code:    kms.CodeInvalidParameter,
		Message: `The specified parameter "%s" is not valid.`,
	},
	fault.Method: {http.StatusForbidden, "UnsupportedHTTPMethod", "This http method is not supported."},
	fault.NoAction: {
		Status:  http.StatusNotFound,
		Code:    kms.CodeActionNotFound,
		Message: "Specified api is not found, please check your url and method.",
	},
	fault.Version:    {http.StatusBadRequest, "InvalidVersion", "Specified parameter Version is not valid."},
	fault.MissingKey: {http.StatusBadRequest, "MissingAccessKeyId", ""},
	fault.BadSignature: {
		Status:  http.StatusBadRequest,
		Code:    kms.CodeIncompleteSignature,
		Message: "The request signature does not conform to Aliyun standards.",
	},
	fault.WrongSignature: {http.StatusBadRequest, kms.CodeSignatureDoesNotMatch, ""},
	fault.UnknownKey:     {http.StatusNotFound, kms.CodeAccessKeyNotFound, ""},
	fault.DisabledKey:    {http.StatusForbidden, kms.CodeAccessKeyDisabled, ""},
	fault.MissingToken:   {http.StatusBadRequest, "MissingSecurityToken", ""},
	fault.WrongToken:     {http.StatusBadRequest, "InvalidSecurityToken.MismatchWithAccessKey", ""},
	fault.ExpiredToken:   {http.StatusBadRequest, "InvalidSecurityToken.Expired", ""},
	fault.NoTimestamp:    {http.StatusBadRequest, "IllegalTimestamp", ""},
	fault.Expired:        {http.StatusBadRequest, kms.CodeTimestampExpired, ""},
	fault.Replayed:       {http.StatusBadRequest, kms.CodeSignatureNonceUsed, ""},
	fault.Denied: {
		Status:  http.StatusForbidden,
		Code:    kms.CodeNoPermission,
		Message: "This operation is forbidden by permission system.",
	},
	fault.NotFound:    {http.StatusNotFound, kms.CodeResourceNotFound, "Resource not found"},
	fault.KeyNotFound: {http.StatusNotFound, kms.CodeKeyNotFound, "The specified Key is not found."},
	fault.Exists:      {http.StatusConflict, kms.CodeResourceExist, "The resource already exists."},
	fault.Deleting: {
		Status:  http.StatusConflict,
		Code:    kms.CodeResourceInDeleteWindow,
		Message: "The secret is planned to be deleted.",
	},
	fault.InUse: {http.StatusConflict, kms.CodeResourceInUse, ""},
	fault.LimitExceeded: {
		Status:  http.StatusBadRequest,
		Code:    kms.CodeLimitExceeded,
		Message: "The request was rejected because user create resource limit was exceeded.",
	},
	fault.Unsupported: {http.StatusBadRequest, kms.CodeUnsupportedOperation, "This operation is not supported."},
	fault.KeyDisabled: {
		Status:  http.StatusConflict,
		Code:    "Rejected.Disabled",
		Message: "The request was rejected because the key state is Disabled.",
	},
	fault.DryRunOK: {
		Status:  http.StatusBadRequest,
		Code:    kms.CodeDryRunOperation,
		Message: "The request would have succeeded, but DryRun is true.",
	},
	fault.DryRunInvalid: {http.StatusBadRequest, "ValidationError", "The request would have been refused."},
	fault.DryRunDenied: {
		Status:  http.StatusForbidden,
		Code:    "AccessDeniedError",
		Message: "The request would have been refused by permission system.",
	},
}

// ownCodes are the codes that an error names itself: the codes of the user service, which has one
// for each thing that it keeps. The parameter's name replaces * in a code and %s in its text.
var ownCodes = byCode([]Code{
	{http.StatusBadRequest, users.CodeChars, `The parameter - "%s" contains invalid chars.`},
	{http.StatusBadRequest, users.CodeLength, `The parameter - "%s" beyond the length limit.`},
	{http.StatusBadRequest, users.CodeFormat, `The format of the parameter - "%s" is incorrect.`},
	{http.StatusBadRequest, ram.CodePolicyType, `The parameter - "PolicyType" is incorrect.`},
	{http.StatusBadRequest, ram.CodeMalformedPolicy, ""},
	{http.StatusForbidden, ram.CodeNoPermission, "You are not authorized to do this action."},
	{http.StatusNotFound, ram.CodeUserNotExist, "The user does not exist."},
	{http.StatusNotFound, ram.CodeKeyNotExist, "The user access key does not exist."},
	{http.StatusNotFound, ram.CodeUserWithoutPolicy, "The indicate policy of the user does not exist."},
	{http.StatusNotFound, ram.CodeUserNotInGroup, "The user has not joined the group."},
	{http.StatusNotFound, ram.CodeGroupNotExist, "The group does not exist."},
	{http.StatusNotFound, ram.CodeGroupWithoutPolicy, "The indicate policy attached to the group does not exist."},
	{http.StatusNotFound, ram.CodePolicyNotExist, "The policy does not exist."},
	{http.StatusNotFound, ram.CodePolicyVersionNotExist, "The policy version does not exist."},
	{http.StatusConflict, ram.CodeUserExists, "The user does already EXIST."},
	{http.StatusConflict, ram.CodeUserInGroup, "The user has already joined the group."},
	{http.StatusConflict, ram.CodeUserHasPolicy, "The user has already been attached this policy."},
	{http.StatusConflict, ram.CodeGroupExists, "The group does already EXIST."},
	{http.StatusConflict, ram.CodeGroupHasPolicy, "The group has already been attached this policy."},
	{http.StatusConflict, ram.CodePolicyExists, "The policy does already EXIST."},
	{http.StatusConflict, ram.CodeDeleteUserKey, "The user CAN NOT has any access key while deleting the user."},
	{
		Status:  http.StatusConflict,
		Code:    ram.CodeDeleteUserPolicy,
		Message: "The user CAN NOT has any attached policy while deleting the user.",
	},
	{http.StatusConflict, ram.CodeDeleteUserGroup, "The user CAN NOT be in any group while deleting the user."},
	{http.StatusConflict, ram.CodeDeleteGroupUser, "The group CAN NOT has any user member while deleting the group."},
	{
		Status:  http.StatusConflict,
		Code:    ram.CodeDeleteGroupPolicy,
		Message: "The entity CAN NOT has any attached policy while deleting the group.",
	},
	{
		Status:  http.StatusConflict,
		Code:    ram.CodeDeletePolicyUser,
		Message: "The policy CAN NOT been attached to any user while deleting the policy.",
	},
	{
		Status:  http.StatusConflict,
		Code:    ram.CodeDeletePolicyGroup,
		Message: "The policy CAN NOT been attached to any group while deleting the policy.",
	},
	{
		Status:  http.StatusConflict,
		Code:    ram.CodeDeletePolicyVersion,
		Message: "The policy CAN NOT has any version except the default version.",
	},
	{http.StatusConflict, ram.CodeDeleteDefaultVersion, "The default policy version CAN NOT been deleted directly."},
	{http.StatusConflict, ram.CodeUserLimit, "The count of users beyond the current limits."},
	{
		Status:  http.StatusConflict,
		Code:    ram.CodeKeyLimit,
		Message: "The access key count of the user access keys beyond the current limits.",
	},
	{
		Status:  http.StatusConflict,
		Code:    ram.CodeUserGroupLimit,
		Message: "The count of groups the target user joined beyond the current limits.",
	},
	{
		Status:  http.StatusConflict,
		Code:    ram.CodeUserPolicyLimit,
		Message: "The policy count of the user attached policies beyond the current limits.",
	},
	{http.StatusConflict, ram.CodeGroupLimit, "The count of groups beyond the current limits."},
	{http.StatusConflict, ram.CodeGroupPolicyLimit, "The policy count of the group beyond the current limits."},
	{http.StatusConflict, ram.CodePolicyLimit, "The count of policy beyond the current limits."},
	{http.StatusConflict, ram.CodePolicyVersionLimit, "The count of policy version beyond the current limits."},
})

func byCode(list []Code) map[string]Code {
	codes := make(map[string]Code, len(list))
	for _, c := range list {
		codes[c.Code] = c
	}
	return codes
}

// CodeFor returns the status, code and message that a caller gets for an error. The documented text
// comes first, then what to change. An error of kind Internal shows nothing of itself.
func CodeFor(err error) Code {
	kind := fault.KindOf(err)
	c := codes[kind]
	if kind == fault.Internal || kind == fault.OK {
		return c
	}
	e := AsFault(err)
	if own, ok := ownCodes[e.Code]; ok {
		c = own
		c.Code = strings.Replace(c.Code, "*", e.Param, 1)
	}
	if strings.Contains(c.Message, "%s") {
		c.Message = fmt.Sprintf(c.Message, e.Param)
	}
	switch {
	case c.Message == "":
		c.Message = e.Msg
	case kind == fault.Throttled && e.Msg != "": // the limit is rarely on the rate of requests
		c.Message = fault.Capital(e.Msg)
	case e.Msg != "":
		c.Message = strings.TrimSuffix(c.Message, ".") + ". " + fault.Capital(e.Msg)
	}
	return c
}

// AsFault returns the fault of an error; one of kind Internal for an error that has none.
func AsFault(err error) *fault.Error {
	var e *fault.Error
	if errors.As(err, &e) {
		return e
	}
	return &fault.Error{Kind: fault.Internal}
}
