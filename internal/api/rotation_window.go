package api

import (
	"cmp"
	"fmt"

	"github.com/keyturn/keyturn/internal/settings"
	"github.com/keyturn/keyturn/internal/target"
)

// windowOf says how long a credential from this service may be refused with a strategy: in the
// words of the target, and then for how long reads wait, or the previous credential works.
func (k *inspection) windowOf(s target.Strategy) string {
	text := ""
	if w, ok := k.system.(target.Windower); ok {
		text = w.Window(s)
	}
	if s == target.Single {
		text = cmp.Or(text, "A credential that was read before the change is refused after it.")
		return fmt.Sprintf("%s Reads wait meanwhile, for at most %s. An application that keeps what it has read must read "+
			"again.", text, settings.ShortDuration(k.Rotation.ReadWait))
	}
	return cmp.Or(text, "None: the previous credential works until the grace period ends.") + " " + k.graceText()
}

// graceText says how long the previous credential of the secret works after a rotation.
func (k *inspection) graceText() string {
	grace := k.graceOf(k.secret)
	switch {
	case grace.Max == 0:
		return "The grace period is 0s: an application that keeps the previous credential is refused at once."
	case grace.Max > grace.Min:
		return fmt.Sprintf("The grace period lasts %s, and while a consumer holds the previous credential up to %s.",
			settings.ShortDuration(grace.Min), settings.ShortDuration(grace.Max))
	}
	return fmt.Sprintf("The grace period lasts %s.", settings.ShortDuration(grace.Min))
}
