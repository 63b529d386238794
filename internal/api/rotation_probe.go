package api

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

// recordsAtOnce is how many records a call changes at once where each is a transaction of its own.
const recordsAtOnce = 16

// eachRecord calls change for each name, several at once. An error ends a share of the names.
func eachRecord(names []string, change func(name string) error) error {
	errs := make([]error, min(recordsAtOnce, len(names)))
	var all sync.WaitGroup
	for w := range errs {
		all.Go(func() {
			for i := w; i < len(names) && errs[w] == nil; i += len(errs) {
				errs[w] = change(names[i])
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// probeRotation makes the engine probe credentials now, within its budget, instead of when they are
// due. DescribeRotation shows the result.
func probeRotation(ctx context.Context, c *Call, in *kms.PauseRotationRequest) (*kms.ProbeRotationResponse, error) {
	if in.TargetName != "" {
		if _, err := c.existingTarget(c.Snapshot, in.TargetName); err != nil {
			return nil, err
		}
	}
	names, err := c.probedSecrets(in.SecretName)
	if err != nil {
		return nil, err
	}
	if in.SecretName != "" {
		why, err := c.probeNow(ctx, names[0], in.TargetName)
		if err == nil {
			why, err = c.withoutState(names[0], why)
		}
		switch {
		case err != nil:
			return nil, err
		case why.code == kms.SkippedThrottled:
			return nil, fault.New(fault.Throttled, "%s", why.text)
		case why.code != "":
			return &kms.ProbeRotationResponse{NotAsked: 1, Reason: why.text, AskTime: c.At}, nil
		}
		return &kms.ProbeRotationResponse{Asked: 1, AskTime: c.At}, nil
	}
	var asked, elsewhere atomic.Int64
	err = eachRecord(names, func(name string) error {
		why, err := c.probeNow(ctx, name, in.TargetName)
		switch {
		case err != nil:
		case why.code == "":
			asked.Add(1)
		case why.code == atAnotherTarget:
			elsewhere.Add(1)
		}
		return err
	})
	return &kms.ProbeRotationResponse{
		Asked:    int(asked.Load()),
		NotAsked: len(names) - int(asked.Load()) - int(elsewhere.Load()),
		AskTime:  c.At,
	}, err
}

// probedSecrets returns the secret of that name, or without a name every secret that is rotated.
func (c *Call) probedSecrets(name string) (names []string, err error) {
	if name != "" {
		s, _, err := c.rotated(c.Snapshot, name)
		return []string{s.Name}, err
	}
	withheld, err := c.withheld("")
	if err != nil {
		return nil, err
	}
	err = c.Snapshot.Rotations(c.Account(), "", "", func(r rotation.Record) bool {
		if !withheld[r.Secret] {
			names = append(names, r.Secret)
		}
		return true
	})
	return names, err
}

// probeSkip is why ProbeRotation does not make the probe of a credential due; the zero value if it
// does.
type probeSkip struct {
	code string // of kms.ProbeSkips, or atAnotherTarget
	text string
}

// atAnotherTarget is the code where the secret is not attached to the target that a call names.
const atAnotherTarget = "at-another-target"

// probeNow makes the probe of one credential due, and takes it from the allowance of the secret. A
// probe that was asked for before and waits for its turn stays as it is, or it would lose that
// turn. targetName is the target that the call is about; empty for all. Several goroutines may call
// it.
func (c *Call) probeNow(ctx context.Context, name, targetName string) (why probeSkip, err error) {
	err = store.Do(ctx, c.DB, func(tx *store.Tx) error {
		s, ok, err := tx.Secret(c.Account(), name, c.At)
		if err != nil {
			return err
		}
		if targetName != "" && ok && s.TargetName() != targetName {
			why = probeSkip{atAnotherTarget, "Its target is another one."}
			return nil
		}
		r, err := c.rotationOf(tx, s)
		if err != nil {
			return err
		}
		if why, err = c.probeSkip(tx, s, ok, r, c.At); err != nil || why.code != "" || r.Health.Wanted {
			return err
		}
		if s, err = s.AskProbe(c.checkEvery(), c.At); err != nil {
			return err
		}
		r = r.AskedProbe(c.At)
		return errors.Join(tx.PutRotation(&r), tx.PutSecret(s, nil))
	})
	return why, err
}

// probeSkip returns why ProbeRotation would not make the probe of the credential in use due at now.
// r is the rotation record of s. ok is false for a secret that no longer exists.
func (e *Env) probeSkip(
	tx *store.Tx, s secret.Secret, ok bool, r rotation.Record, now time.Time,
) (probeSkip, error) {
	switch {
	case !ok || s.Deleting():
		return probeSkip{kms.SkippedDeleted, "The secret is deleted."}, nil
	case !s.IsRotated():
		return probeSkip{kms.SkippedNotRotated, "The secret is not rotated."}, nil
	case s.TargetName() == secret.OwnUsers:
		return probeSkip{
			kms.SkippedAccessKey,
			"The credential is an access key of this service, which needs no probe.",
		}, nil
	}
	switch t, account, other, err := e.takenFrom(tx, s); {
	case err != nil:
		return probeSkip{}, err
	case other != "":
		return probeSkip{kms.SkippedTaken, takenFinding(t, account).Text}, nil
	}
	switch {
	case r.State == rotation.Quarantined:
		return probeSkip{
			kms.SkippedQuarantined,
			fault.Message("The rotation is quarantined: keyturn rotation repair %s --probe asks the target.", s.Name),
		}, nil
	case !r.Probeable():
		what := "The credential is being changed: the rotation is"
		if r.HasSentNothing() {
			what = "A rotation is about to change the credential, and has changed nothing at the target yet: it is"
		}
		return probeSkip{
			kms.SkippedChanging,
			fault.Message("%s in state %s. keyturn rotation status %s shows its progress.", what, r.State, s.Name),
		}, nil
	}
	bound, err := e.isBound(tx, s)
	switch {
	case err != nil:
		return probeSkip{}, err
	case !bound:
		return probeSkip{
			kms.SkippedNotBound,
			"Its target is not registered, or the secret is not bound to it.",
		}, nil
	case r.Health.Wanted: // asking again takes nothing from the allowance
		return probeSkip{}, nil
	}
	if _, err := s.AskProbe(e.checkEvery(), now); fault.KindOf(err) == fault.Throttled {
		return probeSkip{kms.SkippedThrottled, err.Error()}, nil
	}
	return probeSkip{}, nil
}

// isForGood reports whether no target is asked about the credential, now or later, unless the
// secret becomes another one.
func (k probeSkip) isForGood() bool {
	switch k.code {
	case kms.SkippedDeleted, kms.SkippedNotRotated, kms.SkippedAccessKey:
		return true
	}
	return false
}

// withoutState returns why without the state of the rotation if the caller may not call
// DescribeRotation.
func (c *Call) withoutState(name string, why probeSkip) (probeSkip, error) {
	if why.code != kms.SkippedQuarantined && why.code != kms.SkippedChanging {
		return why, nil
	}
	d, err := c.gate.decide(c, c.secretResource(name), actionDescribeRotation)
	if err != nil || d.Allowed {
		return why, err
	}
	return probeSkip{kms.SkippedChanging, "A rotation of the secret has not ended."}, nil
}
