package api

import (
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

// allPauses returns the pause of all rotations; none if there is none.
func allPauses(tx *store.Tx) ([]kms.RotationPause, error) {
	all, err := tx.AllPaused()
	return withPause(nil, kms.PausedAll, all.Paused, &all.Pause), err
}

// pausesAt returns what keeps rotations at a target from beginning: the pauses of all, and its own.
func pausesAt(all []kms.RotationPause, t store.Target) []kms.RotationPause {
	return withPause(all, kms.PausedTarget, t.Paused, t.Pause)
}

// pausesOf returns what keeps rotations of a secret at its target from beginning.
func pausesOf(all []kms.RotationPause, t store.Target, r rotation.Record) []kms.RotationPause {
	list := withPause(pausesAt(all, t), kms.PausedSecret, r.Paused, r.Pause)
	if r.Paused {
		list[len(list)-1].Continue, _ = continuing(r)
	}
	return list
}

// pausedRefusal refuses a rotation that these pauses keep from beginning; nil without a pause.
func pausedRefusal(list []kms.RotationPause, secret, target string) error {
	var sentences []string
	for _, p := range list {
		sentences = append(sentences, fault.Capital(rotation.PausedText(p, secret, target, ""))+".")
	}
	if len(sentences) == 0 {
		return nil
	}
	return fault.New(fault.InUse, "%s", fault.Text(strings.Join(sentences, " ")))
}

func withPause(list []kms.RotationPause, scope string, paused bool, p *rotation.Pause) []kms.RotationPause {
	if !paused {
		return list
	}
	row := kms.RotationPause{Scope: scope}
	if p != nil {
		row.PauseTime, row.Principal = p.Since, p.By
	}
	return append(list[:len(list):len(list)], row)
}
