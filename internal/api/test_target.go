package api

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
)

// defaultTestTime is how long a target has to answer a test, and how long it takes to say that
// it did not.
const defaultTestTime = 10 * time.Second

// testTarget makes one login, and says what came of it. That the target says no is an answer,
// not an error.
func testTarget(ctx context.Context, c *Call, in *kms.TestTargetRequest) (*kms.TestTargetResponse, error) {
	t, err := c.existingTarget(c.Snapshot, in.TargetName)
	if err != nil {
		return nil, err
	}
	system, admin, err := c.openTarget(c.Snapshot, t)
	if err != nil {
		return nil, err
	}
	defer func() { _ = system.Close() }() // it has answered; there is nothing to lose
	credential := admin
	if in.SecretName != "" {
		if credential, err = c.currentCredential(in.SecretName, t.Name); err != nil {
			return nil, err
		}
	}
	ctx, ended := c.concealing(ctx, t, defaultTestTime)
	out := &kms.TestTargetResponse{TargetName: t.Name, Result: "ok"}
	switch tester, ok := system.(target.Tester); {
	case in.SecretName == "" && ok:
		err = tester.Test(ctx)
	case credential.IsZero():
		ended(nil)
		return nil, fault.Parameter("SecretName",
			"target %q has no administrator to log in as. SecretName must name a secret "+
				"that is attached to the target; its current credential is tried.", t.Name)
	default:
		err = system.Verify(ctx, credential)
	}
	ended(err)
	if err != nil {
		c.logDetail(t.Name, err)
		told, withheld := target.ForCaller(err)
		if said := (*target.Error)(nil); c.isLocal(t) && errors.As(err, &said) {
			told, withheld = *said, false
		}
		if withheld {
			told.Text = "target " + t.Name + ": " + told.Text
		}
		out.Result, out.Code, out.Message = told.Class.String(), told.Code, told.Text
	}
	return out, nil
}

// concealing bounds a call of a target by d. ended takes what came of it, and without an answer
// returns only when d is over: the duration of a call must not tell what listens at an address.
// Programs on this machine take their own time.
func (c *Call) concealing(
	ctx context.Context, t store.Target, d time.Duration,
) (bounded context.Context, ended func(error)) {
	if c.isLocal(t) {
		return ctx, func(error) {}
	}
	bounded, cancel := context.WithTimeout(ctx, cmp.Or(c.TestTime, d))
	return bounded, func(err error) {
		defer cancel()
		if _, withheld := target.ForCaller(err); withheld && errors.As(err, new(*target.Error)) {
			<-bounded.Done()
		}
	}
}

// logDetail logs for the operator what callers do not learn about a target's error.
func (e *Env) logDetail(name string, err error) {
	if target.Withholds(err) && e.Log != nil {
		e.Log.Info("a target did not answer as it should", "target", name, "err", err, "detail", target.DetailOf(err))
	}
}
