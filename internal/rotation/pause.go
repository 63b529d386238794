package rotation

import (
	"fmt"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/kms"
)

// Pause is an operator's order that no new rotation begins: of a secret, at a target, or anywhere.
type Pause struct {
	Since time.Time `json:"since,omitzero"`
	// By is the ARN of the principal.
	By string `json:"by,omitempty"`
	// Preparation says that PrepareTargetAccounts made it, which ends it once the accounts are proven.
	Preparation bool `json:"preparation,omitempty"`
}

// Preparing has the commands about accounts that a preparation has not finished: to continue it,
// and to give it up. A finding about them has no room for every command.
type Preparing struct {
	Continue string `json:"continue"`
	GiveUp   string `json:"give_up"`
}

// Pausing says whether new rotations are paused.
type Pausing struct {
	Paused bool
	// Pause says who asked for it; nil for a pause that an earlier release stored, and for one by the
	// engine.
	Pause *Pause
}

// After returns the state after an order: a pause, or nil to let rotations begin again. A pause
// that is repeated stays what it is, except that an operator's takes the place of a preparation's.
func (p Pausing) After(order *Pause) Pausing {
	if order != nil && p.Paused && (order.Preparation || !p.isPreparing()) {
		return p
	}
	return Pausing{Paused: order != nil, Pause: order}
}

// WithPause returns the record after an order of [Pausing.After].
func (r Record) WithPause(order *Pause) Record {
	p := Pausing{r.Paused, r.Pause}.After(order)
	r.Paused, r.Pause = p.Paused, p.Pause
	return r
}

// pauseScope is everything that depends on the scope of a pause alone.
type pauseScope struct {
	scope string
	// The paused rotations in words, and the command that ends the pause. In both, NAME stands for
	// the name of the secret or target.
	what, resume string
}

var pauseScopes = []pauseScope{
	{kms.PausedSecret, "rotations of secret NAME", "keyturn rotation resume NAME"},
	{kms.PausedTarget, "rotations at target NAME", "keyturn target resume NAME"},
	{kms.PausedAll, "all rotations", "keyturn rotation resume --all"},
}

// PauseText returns what a pause of that scope keeps from beginning, and the command that ends it.
// secret and target are the names that are meant. ok is false for a scope that this release does
// not know, such as one of a later server.
func PauseText(scope, secret, target string) (what, resume string, ok bool) {
	name := map[string]string{kms.PausedSecret: secret, kms.PausedTarget: target}[scope]
	for _, s := range pauseScopes {
		if s.scope == scope {
			resume = fault.Named(s.resume, name)
			return strings.Replace(s.what, "NAME", name, 1), resume, true
		}
	}
	return "", "", false
}

// PausedText says what a pause keeps from beginning, and which command ends it, in a sentence
// without a capital and a full stop. since follows "are paused".
func PausedText(p kms.RotationPause, secret, target, since string) string {
	what, resume, ok := PauseText(p.Scope, secret, target)
	switch {
	case !ok: // of a later server
		return fmt.Sprintf("rotations of scope %q are paused", p.Scope) + since
	case p.Continue != "":
		return what + " are paused" + since + " until their accounts are prepared; " + p.Continue + " continues that"
	}
	return what + " are paused" + since + "; " + resume + " ends the pause"
}

// isPreparing reports whether the pause is one that a preparation of accounts has made.
func (p Pausing) isPreparing() bool { return p.Paused && p.Pause != nil && p.Pause.Preparation }

// IsPreparing reports whether the pause is one that a preparation of accounts has made.
func (r Record) IsPreparing() bool { return Pausing{r.Paused, r.Pause}.isPreparing() }
