package api

import (
	"context"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/kms"
)

// Trail tells the state of the audit trail.
type Trail interface {
	Head() audit.Head
	Losses() uint64
}

func describeAuditTrail(
	_ context.Context, c *Call, _ *kms.DescribeAuditTrailRequest,
) (*kms.DescribeAuditTrailResponse, error) {
	if c.Trail == nil {
		return nil, fault.New(fault.Unsupported, "This process keeps no audit trail.")
	}
	h := c.Trail.Head()
	return &kms.DescribeAuditTrailResponse{
		Node:          h.Node,
		Sequence:      int(h.Seq),
		Hash:          h.Hash,
		FirstSequence: int(h.First),
		KeyedFrom:     int(h.KeyedFrom),
		Losses:        int(c.Trail.Losses()),
	}, nil
}
