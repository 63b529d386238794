package kms

import (
	"context"

	"github.com/keyturn/keyturn/internal/operation"
)

// DescribeAuditTrailRequest asks for the head of the audit trail of the node that answers.
type DescribeAuditTrailRequest struct{}

// DescribeAuditTrailResponse is what the server knows of its audit trail. An auditor compares a
// copy of the trail with it.
type DescribeAuditTrailResponse struct {
	// Node names the trail: each node of a cluster has its own.
	Node string `kms:"Node"`
	// Sequence and Hash are of the last record that is on disk.
	Sequence int    `kms:"Sequence"`
	Hash     string `kms:"Hash"`
	// FirstSequence is the first record that must be there: retention has removed those before.
	FirstSequence int `kms:"FirstSequence"`
	// KeyedFrom is the first record that must have a MAC.
	KeyedFrom int `kms:"KeyedFrom"`
	// Losses counts the losses of records that the node has found since its start.
	Losses    int    `kms:"Losses"`
	RequestID string `kms:"RequestId"`
}

// trailOperations declares the operation on the audit trail, which is Keyturn's own.
var trailOperations = []operation.Declaration{
	declare[DescribeAuditTrailRequest, DescribeAuditTrailResponse]("DescribeAuditTrail").On("*"),
}

// DescribeAuditTrail returns the head of the audit trail. It is an operation of Keyturn's own.
func (c *Client) DescribeAuditTrail(
	ctx context.Context, in *DescribeAuditTrailRequest,
) (*DescribeAuditTrailResponse, error) {
	return call[DescribeAuditTrailResponse](ctx, c, "DescribeAuditTrail", in)
}
