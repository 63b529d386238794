package api

import (
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/sign"
)

// isDryRun reports whether a call asks for a check alone. Its parameters may not have been decoded
// yet.
func isDryRun(c *Call) bool {
	s, _ := c.Params.Get("DryRun")
	return c.op != nil && c.op.DryRun && strings.EqualFold(s, "true")
}

// refuseDryRun refuses a request for a check alone to an operation that has none: the parameter
// would be ignored like any other unknown one, and the call be made in earnest.
func (c *Call) refuseDryRun() error {
	asked := slices.IndexFunc(c.Params, func(p sign.Param) bool {
		return strings.EqualFold(p.Name, "DryRun") && strings.EqualFold(p.Value, "true")
	})
	if asked < 0 {
		return nil
	}
	has := slices.ContainsFunc(c.op.Params(), func(p wire.Param) bool { return p.Name == "DryRun" })
	switch {
	case !has:
		return fault.Parameter("DryRun", "%s has no dry run; nothing was done.", c.op.Name)
	case c.Params[asked].Name != "DryRun":
		return fault.Parameter("DryRun", "its name is spelled DryRun; nothing was done.")
	}
	return nil
}

// dryRun returns the error that reports the outcome of a dry run, which never succeeds.
func dryRun(err error) error {
	switch kind := fault.KindOf(err); kind {
	case fault.OK:
		return fault.New(fault.DryRunOK, "")
	case fault.Denied:
		return fault.New(fault.DryRunDenied, "")
	case fault.Internal, fault.Unavailable, fault.Throttled:
		return err
	default:
		return fault.New(fault.DryRunInvalid, "%s", fault.Text(protocol.CodeFor(err).Message))
	}
}
