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

// codes and ownCodes are the one place where an outcome gets its status and code (protocol.md section 5, secrets.md section 6).
var codes = [fault.Kinds]Code{
	fault.OK:             {http.StatusOK, "", ""},
	fault.Internal:       {http.StatusInternalServerError, kms.CodeInternalFailure, "Internal Failure."},
	fault.Unavailable:    {http.StatusServiceUnavailable, kms.CodeUnavailable, "Service Unavailable Temporary."},
	fault.Throttled:      {http.StatusTooManyRequests, kms.CodeThrottling, "QPS Limit Exceeded"},
	fault.Malformed:      {http.StatusBadRequest, "ParseRequestParameterException", "Server parse parameters exception. Please check your input params."},
	fault.Missing:        {http.StatusBadRequest, kms.CodeMissingParameter, `The parameter "%s" is needed but not provided.`},
	fault.Invalid:        {http.StatusBadRequest, kms.CodeInvalidParameter, `The specified parameter "%s" is not valid.`},
	fault.Method:         {http.StatusForbidden, "UnsupportedHTTPMethod", "This http method is not supported."},
	fault.NoAction:       {http.StatusNotFound, kms.CodeActionNotFound, "Specified api is not found, please check your url and method."},
	fault.Version:        {http.StatusBadRequest, "InvalidVersion", "Specified parameter Version is not valid."},
	fault.MissingKey:     {http.StatusBadRequest, "MissingAccessKeyId", ""},
	fault.BadSignature:   {http.StatusBadRequest, kms.CodeIncompleteSignature, "The request signature does not conform to Aliyun standards."},
	fault.WrongSignature: {http.StatusBadRequest, kms.CodeSignatureDoesNotMatch, ""},
	fault.UnknownKey:     {http.StatusNotFound, kms.CodeAccessKeyNotFound, ""},
	fault.DisabledKey:    {http.StatusForbidden, kms.CodeAccessKeyDisabled, ""},
	fault.MissingToken:   {http.StatusBadRequest, "MissingSecurityToken", ""},
	fault.WrongToken:     {http.StatusBadRequest, "InvalidSecurityToken.MismatchWithAccessKey", ""},
	fault.ExpiredToken:   {http.StatusBadRequest, "InvalidSecurityToken.Expired", ""},
	fault.NoTimestamp:    {http.StatusBadRequest, "IllegalTimestamp", ""},
	fault.Expired:        {http.StatusBadRequest, kms.CodeTimestampExpired, ""},
	fault.Replayed:       {http.StatusBadRequest, kms.CodeSignatureNonceUsed, ""},
	fault.Denied:         {http.StatusForbidden, kms.CodeNoPermission, "This operation is forbidden by permission system."},
	fault.NotFound:       {http.StatusNotFound, kms.CodeResourceNotFound, "Resource not found"},
	fault.KeyNotFound:    {http.StatusNotFound, kms.CodeKeyNotFound, "The specified Key is not found."},
	fault.Exists:         {http.StatusConflict, kms.CodeResourceExist, "The resource already exists."},
	fault.Deleting:       {http.StatusConflict, kms.CodeResourceInDeleteWindow, "The secret is planned to be deleted."},
	fault.InUse:          {http.StatusConflict, kms.CodeResourceInUse, ""},
	fault.LimitExceeded:  {http.StatusBadRequest, kms.CodeLimitExceeded, "The request was rejected because user create resource limit was exceeded."},
	fault.Unsupported:    {http.StatusBadRequest, kms.CodeUnsupportedOperation, "This operation is not supported."},
	fault.KeyDisabled:    {http.StatusConflict, "Rejected.Disabled", "The request was rejected because the key state is Disabled."},
	fault.DryRunOK:       {http.StatusBadRequest, kms.CodeDryRunOperation, "The request would have succeeded, but DryRun is true."},
	fault.DryRunInvalid:  {http.StatusBadRequest, "ValidationError", "The request would have been refused."},
	fault.DryRunDenied:   {http.StatusForbidden, "AccessDeniedError", "The request would have been refused by permission system."},
}

// ownCodes are the codes that an error names itself: those of the user service, which has one for each thing that it keeps. A
// * in a code and a %s in its text are the parameter's name.
var ownCodes = map[string]Code{
	users.CodeChars:               {http.StatusBadRequest, users.CodeChars, `The parameter - "%s" contains invalid chars.`},
	users.CodeLength:              {http.StatusBadRequest, users.CodeLength, `The parameter - "%s" beyond the length limit.`},
	users.CodeFormat:              {http.StatusBadRequest, users.CodeFormat, `The format of the parameter - "%s" is incorrect.`},
	ram.CodePolicyType:            {http.StatusBadRequest, ram.CodePolicyType, `The parameter - "PolicyType" is incorrect.`},
	ram.CodeMalformedPolicy:       {http.StatusBadRequest, ram.CodeMalformedPolicy, ""},
	ram.CodeNoPermission:          {http.StatusForbidden, ram.CodeNoPermission, "You are not authorized to do this action."},
	ram.CodeUserNotExist:          {http.StatusNotFound, ram.CodeUserNotExist, "The user does not exist."},
	ram.CodeKeyNotExist:           {http.StatusNotFound, ram.CodeKeyNotExist, "The user access key does not exist."},
	ram.CodeUserWithoutPolicy:     {http.StatusNotFound, ram.CodeUserWithoutPolicy, "The indicate policy of the user does not exist."},
	ram.CodeUserNotInGroup:        {http.StatusNotFound, ram.CodeUserNotInGroup, "The user has not joined the group."},
	ram.CodeGroupNotExist:         {http.StatusNotFound, ram.CodeGroupNotExist, "The group does not exist."},
	ram.CodeGroupWithoutPolicy:    {http.StatusNotFound, ram.CodeGroupWithoutPolicy, "The indicate policy attached to the group does not exist."},
	ram.CodePolicyNotExist:        {http.StatusNotFound, ram.CodePolicyNotExist, "The policy does not exist."},
	ram.CodePolicyVersionNotExist: {http.StatusNotFound, ram.CodePolicyVersionNotExist, "The policy version does not exist."},
	ram.CodeUserExists:            {http.StatusConflict, ram.CodeUserExists, "The user does already EXIST."},
	ram.CodeUserInGroup:           {http.StatusConflict, ram.CodeUserInGroup, "The user has already joined the group."},
	ram.CodeUserHasPolicy:         {http.StatusConflict, ram.CodeUserHasPolicy, "The user has already been attached this policy."},
	ram.CodeGroupExists:           {http.StatusConflict, ram.CodeGroupExists, "The group does already EXIST."},
	ram.CodeGroupHasPolicy:        {http.StatusConflict, ram.CodeGroupHasPolicy, "The group has already been attached this policy."},
	ram.CodePolicyExists:          {http.StatusConflict, ram.CodePolicyExists, "The policy does already EXIST."},
	ram.CodeDeleteUserKey:         {http.StatusConflict, ram.CodeDeleteUserKey, "The user CAN NOT has any access key while deleting the user."},
	ram.CodeDeleteUserPolicy:      {http.StatusConflict, ram.CodeDeleteUserPolicy, "The user CAN NOT has any attached policy while deleting the user."},
	ram.CodeDeleteUserGroup:       {http.StatusConflict, ram.CodeDeleteUserGroup, "The user CAN NOT be in any group while deleting the user."},
	ram.CodeDeleteGroupUser:       {http.StatusConflict, ram.CodeDeleteGroupUser, "The group CAN NOT has any user member while deleting the group."},
	ram.CodeDeleteGroupPolicy:     {http.StatusConflict, ram.CodeDeleteGroupPolicy, "The entity CAN NOT has any attached policy while deleting the group."},
	ram.CodeDeletePolicyUser:      {http.StatusConflict, ram.CodeDeletePolicyUser, "The policy CAN NOT been attached to any user while deleting the policy."},
	ram.CodeDeletePolicyGroup:     {http.StatusConflict, ram.CodeDeletePolicyGroup, "The policy CAN NOT been attached to any group while deleting the policy."},
	ram.CodeDeletePolicyVersion:   {http.StatusConflict, ram.CodeDeletePolicyVersion, "The policy CAN NOT has any version except the default version."},
	ram.CodeDeleteDefaultVersion:  {http.StatusConflict, ram.CodeDeleteDefaultVersion, "The default policy version CAN NOT been deleted directly."},
	ram.CodeUserLimit:             {http.StatusConflict, ram.CodeUserLimit, "The count of users beyond the current limits."},
	ram.CodeKeyLimit:              {http.StatusConflict, ram.CodeKeyLimit, "The access key count of the user access keys beyond the current limits."},
	ram.CodeUserGroupLimit:        {http.StatusConflict, ram.CodeUserGroupLimit, "The count of groups the target user joined beyond the current limits."},
	ram.CodeUserPolicyLimit:       {http.StatusConflict, ram.CodeUserPolicyLimit, "The policy count of the user attached policies beyond the current limits."},
	ram.CodeGroupLimit:            {http.StatusConflict, ram.CodeGroupLimit, "The count of groups beyond the current limits."},
	ram.CodeGroupPolicyLimit:      {http.StatusConflict, ram.CodeGroupPolicyLimit, "The policy count of the group beyond the current limits."},
	ram.CodePolicyLimit:           {http.StatusConflict, ram.CodePolicyLimit, "The count of policy beyond the current limits."},
	ram.CodePolicyVersionLimit:    {http.StatusConflict, ram.CodePolicyVersionLimit, "The count of policy version beyond the current limits."},
}

// CodeFor returns the status, code and message that a caller gets for an error. The documented text comes first, then
// what to change. An error of kind Internal shows nothing of itself.
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
	case e.Msg != "":
		c.Message = strings.TrimSuffix(c.Message, ".") + ". " + strings.ToUpper(e.Msg[:1]) + e.Msg[1:]
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
