package kms

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Error is what the service answered instead of a result.
type Error struct {
	// HTTPStatus is the status of the answer; it follows from Code.
	HTTPStatus int
	// Code is the documented code to branch on, such as Forbidden.ResourceNotFound.
	Code string
	// Message is for people. It changes between releases.
	Message string
	// RequestID finds the call in the audit trail.
	RequestID string
	// HostID is the host that was called.
	HostID string
	// Recommend may point to more about the error.
	Recommend string
	// Header is the header of the answer.
	Header http.Header
	// DeniedAction is the action that no policy allowed, such as kms:RotateAccount; empty unless
	// the call was refused by a policy. It may not be the operation's own action: some calls need
	// several.
	DeniedAction string
}

// Error returns code, message, status and request ID.
func (e *Error) Error() string {
	return fmt.Sprintf("%s: %s (status %d, request %s)", e.Code, e.Message, e.HTTPStatus, e.RequestID)
}

// Is reports whether target is an *Error of the same code, so that errors.Is works with the Err
// variables.
func (e *Error) Is(target error) bool {
	var t *Error
	return errors.As(target, &t) && t.Code == e.Code
}

// Temporary reports whether the same call may succeed later: throttled, unavailable, or a fault of
// the service.
func (e *Error) Temporary() bool {
	return e.HTTPStatus == http.StatusTooManyRequests || e.HTTPStatus >= http.StatusInternalServerError
}

// MaxRetryAfter is the longest time for which a client respects the wait that a service asks for.
const MaxRetryAfter = time.Hour

// RetryAfter returns how long the service asks to wait, from x-acs-retry-after in milliseconds, up
// to [MaxRetryAfter]; 0 when it does not ask.
func (e *Error) RetryAfter() time.Duration {
	ms, err := strconv.ParseUint(e.Header.Get("X-Acs-Retry-After"), 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0
	}
	return time.Duration(min(ms, uint64(MaxRetryAfter/time.Millisecond))) * time.Millisecond
}

// UnansweredError is the error of a call that was sent and to which no answer came: the service may
// have carried it out.
type UnansweredError struct {
	// Action is the operation.
	Action string
	// Idempotent says that sending the same call once more has no further effect.
	Idempotent bool
	// Err is what the client met last. It may be the refusal of a later connection.
	Err error
}

// Error returns the text of Err.
func (e *UnansweredError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *UnansweredError) Unwrap() error { return e.Err }

// CodeOf returns the code of an error that the service answered, and "" for any other.
func CodeOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// Codes that a client may want to branch on. docs/compat.md lists every code.
const (
	CodeMissingParameter       = "MissingParameter"
	CodeInvalidParameter       = "InvalidParameter"
	CodeSignatureDoesNotMatch  = "SignatureDoesNotMatch"
	CodeIncompleteSignature    = "IncompleteSignature"
	CodeSignatureNonceUsed     = "SignatureNonceUsed"
	CodeTimestampExpired       = "InvalidTimeStamp.Expired"
	CodeAccessKeyNotFound      = "InvalidAccessKeyId.NotFound"
	CodeAccessKeyDisabled      = "Forbidden.AccessKey"
	CodeNoPermission           = "Forbidden.NoPermission"
	CodeResourceNotFound       = "Forbidden.ResourceNotFound"
	CodeKeyNotFound            = "Forbidden.KeyNotFound"
	CodeResourceExist          = "Rejected.ResourceExist"
	CodeResourceInDeleteWindow = "Rejected.ResourceInDeleteWindow"
	CodeResourceInUse          = "Rejected.ResourceInUse"
	CodeLimitExceeded          = "Rejected.LimitExceeded"
	CodeThrottling             = "Rejected.Throttling"
	CodeUnsupportedOperation   = "UnsupportedOperation"
	CodeActionNotFound         = "InvalidAction.NotFound"
	CodeDryRunOperation        = "DryRunOperationError"
	CodeInternalFailure        = "InternalFailure"
	CodeUnavailable            = "ServiceUnavailableTemporary"
)

// For errors.Is.
var (
	ErrAccessKeyNotFound      error = &Error{Code: CodeAccessKeyNotFound}
	ErrInvalidParameter       error = &Error{Code: CodeInvalidParameter}
	ErrMissingParameter       error = &Error{Code: CodeMissingParameter}
	ErrSignatureDoesNotMatch  error = &Error{Code: CodeSignatureDoesNotMatch}
	ErrNoPermission           error = &Error{Code: CodeNoPermission}
	ErrResourceNotFound       error = &Error{Code: CodeResourceNotFound}
	ErrKeyNotFound            error = &Error{Code: CodeKeyNotFound}
	ErrResourceExist          error = &Error{Code: CodeResourceExist}
	ErrResourceInDeleteWindow error = &Error{Code: CodeResourceInDeleteWindow}
	ErrResourceInUse          error = &Error{Code: CodeResourceInUse}
	ErrLimitExceeded          error = &Error{Code: CodeLimitExceeded}
	ErrThrottling             error = &Error{Code: CodeThrottling}
	ErrUnsupportedOperation   error = &Error{Code: CodeUnsupportedOperation}
	ErrUnavailable            error = &Error{Code: CodeUnavailable}
)
