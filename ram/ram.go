// Package ram is the user service of the API (RAM, version 2015-05-01) in Go: users with access
// keys, groups, and the policies that say what they may do. Client calls it through a kms.Client,
// at the same endpoint.
//
// The `kms` tags of the structs describe the wire, as in package kms. Errors that the service
// answers are *kms.Error; branch on their Code.
package ram

import (
	"context"
	"fmt"

	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/kms"
)

// Version is the API version of this service.
const Version = "2015-05-01"

// Types of a policy (PolicyType).
const (
	// TypeSystem is a policy that comes with the service and never changes.
	TypeSystem = "System"
	// TypeCustom is a policy of the account.
	TypeCustom = "Custom"
)

// States of an access key (Status).
const (
	KeyActive   = "Active"
	KeyInactive = "Inactive"
)

// RotateOldest is the RotateStrategy that makes room for a new policy version by deleting the
// oldest that is not the default; RotateNone refuses the sixth version.
const (
	RotateOldest = "DeleteOldestNonDefaultVersionWhenLimitExceeded"
	RotateNone   = "None"
)

// Client calls the service. It is safe for concurrent use.
type Client struct{ kms *kms.Client }

// New returns a client that calls through c.
func New(c *kms.Client) *Client { return &Client{kms: c} }

// call makes one call of an operation of the table, whose response is an Out.
func call[Out any](ctx context.Context, c *Client, name string, in any) (*Out, error) {
	params, retryable := wire.Encode(in), operations.Named(name).Retryable
	body, err := c.kms.Do(ctx, kms.Call{Action: name, Version: Version, Params: params, Idempotent: retryable})
	if err != nil {
		return nil, err
	}
	out := new(Out)
	if err := wire.DecodeResponse(body, out); err != nil {
		return nil, fmt.Errorf("ram: %s: %w", name, err)
	}
	return out, nil
}

// EmptyResponse answers operations that return nothing.
type EmptyResponse struct {
	RequestID string `kms:"RequestId"`
}
