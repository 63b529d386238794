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

// defaultTestTime is how long a target has to answer a test. A caller learns only after this time
// that there was no answer.
const defaultTestTime = 10 * time.Second

// testTarget makes one login, and returns its result. A refusal by the target is an answer and not
// an error.
func testTarget(ctx context.Context, c *Call, in *kms.TestTargetRequest) (*kms.TestTargetResponse, error) {
	t, err := c.existingTarget(c.Snapshot, in.TargetName)
	if err != nil {
		return nil, err
	}
	system, credential, err := c.openTested(t, in.SecretName)
	if err != nil {
		return nil, err
	}
	defer func() { _ = system.Close() }() // nothing of it is needed after its answer
	if in.SecretName != "" {
		if err := c.takeCheck(ctx, in.SecretName); err != nil {
			return nil, err
		}
	}
	ctx, ended := c.concealing(ctx, t, defaultTestTime)
	out := &kms.TestTargetResponse{TargetName: t.Name, Result: "ok"}
	tester, asAdmin := system.(target.Tester)
	if asAdmin = asAdmin && in.SecretName == ""; !asAdmin {
		c.releaseAdmins() // this test does not show whether the administrator is rejected
	}
	switch {
	case asAdmin:
		if err = tester.Test(ctx); err == nil || target.IsAuthenticated(err) {
			c.adminAccepted(t)
		}
	case credential.IsZero():
		ended(nil)
		return nil, fault.Parameter("SecretName",
			"target %q has no administrator to log in as. SecretName must name a secret "+
				"that is attached to the target; its current credential is tried.", t.Name)
	default:
		// Of a kind without a test, this login as an application does not show whether the
		// administrator is rejected: no application has, for example, the credential of a plug-in.
		_, err = c.logInOnce(t, credential.Account, func() error { return system.Verify(ctx, credential) })
	}
	ended(err)
	switch {
	case fault.KindOf(err) == fault.Throttled:
		return nil, err
	case err != nil:
		answer := c.answerFor(t, err)
		out.Result, out.Code, out.Message = answer.Class.String(), answer.Code, fault.Named(answer.Text, in.SecretName)
		if advice := target.Allowing(err); advice != "" {
			out.Message += ". " + fault.Targeted(advice, t.Name)
		}
	}
	return out, nil
}

// openTested opens a target with the credential that a test tries: the administrator's, or, as its
// application uses it, the one of a secret.
func (c *Call) openTested(t store.Target, name string) (target.Target, target.Credential, error) {
	if name == "" {
		return c.openTarget(c.Snapshot, t)
	}
	credential, err := c.currentCredential(name, t.Name)
	if err != nil {
		return nil, credential, err
	}
	s, err := c.existing(c.Snapshot, name)
	if err != nil {
		return nil, credential, err
	}
	if err := c.notTaken(c.Snapshot, s); err != nil {
		return nil, credential, err
	}
	system, err := c.openFor(c.Snapshot, t, s)
	return system, credential, err
}

// answerFor returns the part of a target's error that a caller may learn, and logs the rest for the
// operator. Callers learn all that a program on this machine answers.
func (c *Call) answerFor(t store.Target, err error) target.Error {
	answer := c.answerOf(t, err)
	answer.Text = fault.Targeted(answer.Text, t.Name)
	return answer
}

func (c *Call) answerOf(t store.Target, err error) target.Error {
	c.note(t, err)
	if whole := (*target.Error)(nil); c.isLocal(t) && errors.As(err, &whole) {
		return *whole
	}
	answer, withheld := target.ForCaller(err)
	if withheld {
		answer.Text = "target " + t.Name + ": " + answer.Text
	}
	return answer
}

// concealing bounds a call of a target by d. ended takes its result, and without an answer it
// returns only when d is over: the duration of a call must not reveal what listens at an address.
// Programs on this machine are not bounded by d.
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

// admitWithin is [Env.admit], bounded by d and concealing like any call of a target.
func (c *Call) admitWithin(
	ctx context.Context, d time.Duration, t store.Target, system target.Target, name string, accounts []string,
) error {
	bounded, ended := c.concealing(ctx, t, d)
	err := c.admit(bounded, c.Snapshot, t, system, name, accounts)
	ended(err)
	c.adminAnswered(t, err)
	return err
}

// note logs for the operator what callers must not learn about a target's error, and begins the
// window of an administrator that was rejected.
func (c *Call) note(t store.Target, err error) {
	c.adminAnswered(t, err)
	if target.Withholds(err) && c.Log != nil {
		c.Log.Info("a target did not answer as it should", "target", t.Name, "err", err, "detail", target.DetailOf(err))
	}
}
