package api

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
)

// Code is how an outcome crosses the wire.
type Code struct {
	Status  int
	Code    string
	Message string // the documented text; a %s in it is the parameter's name
}

// codes is the one place where a kind gets its status and code (protocol.md section 5, secrets.md section 6).
var codes = [fault.Kinds]Code{
	fault.OK:             {http.StatusOK, "", ""},
	fault.Internal:       {http.StatusInternalServerError, "InternalFailure", "Internal Failure."},
	fault.Unavailable:    {http.StatusServiceUnavailable, "ServiceUnavailableTemporary", "Service Unavailable Temporary."},
	fault.Throttled:      {http.StatusTooManyRequests, "Rejected.Throttling", "QPS Limit Exceeded"},
	fault.Malformed:      {http.StatusBadRequest, "ParseRequestParameterException", "Server parse parameters exception. Please check your input params."},
	fault.Missing:        {http.StatusBadRequest, "MissingParameter", `The parameter "%s" is needed but not provided.`},
	fault.Invalid:        {http.StatusBadRequest, "InvalidParameter", `The specified parameter "%s" is not valid.`},
	fault.Method:         {http.StatusForbidden, "UnsupportedHTTPMethod", "This http method is not supported."},
	fault.NoAction:       {http.StatusNotFound, "InvalidAction.NotFound", "Specified api is not found, please check your url and method."},
	fault.Version:        {http.StatusBadRequest, "InvalidVersion", "Specified parameter Version is not valid."},
	fault.MissingKey:     {http.StatusBadRequest, "MissingAccessKeyId", ""},
	fault.BadSignature:   {http.StatusBadRequest, "IncompleteSignature", "The request signature does not conform to Aliyun standards."},
	fault.WrongSignature: {http.StatusBadRequest, "SignatureDoesNotMatch", ""},
	fault.UnknownKey:     {http.StatusNotFound, "InvalidAccessKeyId.NotFound", ""},
	fault.DisabledKey:    {http.StatusForbidden, "Forbidden.AccessKey", ""},
	fault.MissingToken:   {http.StatusBadRequest, "MissingSecurityToken", ""},
	fault.WrongToken:     {http.StatusBadRequest, "InvalidSecurityToken.MismatchWithAccessKey", ""},
	fault.ExpiredToken:   {http.StatusBadRequest, "InvalidSecurityToken.Expired", ""},
	fault.NoTimestamp:    {http.StatusBadRequest, "IllegalTimestamp", ""},
	fault.Expired:        {http.StatusBadRequest, "InvalidTimeStamp.Expired", ""},
	fault.Replayed:       {http.StatusBadRequest, "SignatureNonceUsed", ""},
	fault.Denied:         {http.StatusForbidden, "Forbidden.NoPermission", "This operation is forbidden by permission system."},
	fault.NotFound:       {http.StatusNotFound, "Forbidden.ResourceNotFound", "Resource not found"},
	fault.KeyNotFound:    {http.StatusNotFound, "Forbidden.KeyNotFound", "The specified Key is not found."},
	fault.Exists:         {http.StatusConflict, "Rejected.ResourceExist", "The resource already exists."},
	fault.Deleting:       {http.StatusConflict, "Rejected.ResourceInDeleteWindow", "The secret is planned to be deleted."},
	fault.InUse:          {http.StatusConflict, "Rejected.ResourceInUse", ""},
	fault.LimitExceeded:  {http.StatusBadRequest, "Rejected.LimitExceeded", "The request was rejected because user create resource limit was exceeded."},
	fault.Unsupported:    {http.StatusBadRequest, "UnsupportedOperation", "This operation is not supported."},
	fault.KeyDisabled:    {http.StatusConflict, "Rejected.Disabled", "The request was rejected because the key state is Disabled."},
	fault.DryRunOK:       {http.StatusBadRequest, "DryRunOperationError", "The request would have succeeded, but DryRun is true."},
	fault.DryRunInvalid:  {http.StatusBadRequest, "ValidationError", "The request would have been refused."},
	fault.DryRunDenied:   {http.StatusForbidden, "AccessDeniedError", "The request would have been refused by permission system."},
}

// CodeFor returns the status, code and message that a caller gets for an error. The documented text comes first, then
// what to change. An error of kind Internal shows nothing of itself.
func CodeFor(err error) Code {
	kind := fault.KindOf(err)
	c := codes[kind]
	if kind == fault.Internal || kind == fault.OK {
		return c
	}
	e := asFault(err)
	if kind == fault.Missing || kind == fault.Invalid {
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
