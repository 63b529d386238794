package api

import (
	"context"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/sign"
)

// Bounds of the numbers of calls without records of their own.
const (
	MaxTallies    = maxTallies
	TallyInterval = tallyInterval
)

// ParameterDetails returns what the trail has of the parameters of a change, given as names and
// values.
func ParameterDetails(op *operation.Op, params ...string) audit.Details {
	c := &Call{op: &endpoint{Op: op}}
	for i := 0; i < len(params); i += 2 {
		c.Params = append(c.Params, sign.Param{Name: params[i], Value: params[i+1]})
	}
	return c.parameterDetails()
}

// Waiting returns how many notes wait to be written or remember that an instance has left.
func (k *Consumers) Waiting() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.soon.count + k.later.count + k.left.count
}

// Hurry is one pass of [Gate.RunHurries].
func (g *Gate) Hurry(ctx context.Context) { g.hurry(ctx) }
