package rotator

import (
	"errors"
	"strings"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
)

// answerOf returns what a call to a target came to.
func answerOf(t *api.Turn, err error) rotation.Answer {
	if err == nil {
		return rotation.Answer{OK: true}
	}
	t.Answered(err)
	return rotation.Answer{Class: target.ClassOf(err), Text: textOf(t, err)}
}

// answerAsAdmin is answerOf for a call that the administrator makes, where there is one. Success
// says that the target accepts the administrator.
func answerAsAdmin(t *api.Turn, err error) rotation.Answer {
	if err == nil {
		t.AdminAccepted()
	}
	return answerOf(t, err)
}

// textOf returns what callers learn of a target's error; it holds no secret. An error that is not
// of a target says nothing.
func textOf(t *api.Turn, err error) string {
	text := target.TextForCaller(err)
	if e := (*target.Error)(nil); t.Proven() && errors.As(err, &e) {
		text = e.Error()
	}
	if advice := target.Allowing(err); advice != "" {
		text += ". " + advice
	}
	return fault.Targeted(fault.Named(text, t.Secret.Name), t.Secret.TargetName())
}

// notOpened returns why a target was not opened.
func notOpened(t *api.Turn, err error) string {
	if text, final := api.Impossible(err); final {
		return strings.TrimSuffix(text, ".")
	}
	if wait := (*api.AdminWaitError)(nil); errors.As(err, &wait) {
		return strings.TrimSuffix(wait.Error(), ".")
	}
	return textOf(t, err)
}

// notBegun returns the event of a step that could not be begun: the target or its administrator is
// gone, the account is not allowed, or the store did not answer.
func notBegun(t *api.Turn, err error) rotation.Event {
	text, final := api.Impossible(err)
	switch {
	case final:
		return rotation.NotBegun(t.Record, rotation.Answer{Text: text}, true)
	case errors.As(err, new(*target.Error)):
		return rotation.NotBegun(t.Record, answerOf(t, err), false)
	}
	return rotation.NotBegun(t.Record, rotation.Answer{Text: "The store or the key of the secret did not answer."}, false)
}
