package secret

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
)

// Bounds of an interval between automatic rotations (secrets.md section 7,
// UpdateSecretRotationPolicy).
const (
	MinInterval = 6 * time.Hour
	MaxInterval = 8760 * time.Hour
)

// RotationPolicy says whether and how often a managed secret is rotated.
type RotationPolicy struct {
	Enabled  bool          `json:"enabled,omitempty"`
	Interval time.Duration `json:"interval,omitempty"`
	Last     time.Time     `json:"last,omitzero"`
	Next     time.Time     `json:"next,omitzero"`
	// Asked and AskedUrgently are the remaining allowances of requests, as [rotation.Take] keeps them:
	// for RotateSecret and RehearseRotation, and for EmergencyRotation.
	Asked         time.Time `json:"asked,omitzero"`
	AskedUrgently time.Time `json:"asked_urgently,omitzero"`
	// Tried is the remaining allowance of logins with credentials that a caller gave, as
	// [rotation.Take] keeps it. TriedAt is when the last one began that is not known to have
	// succeeded.
	Tried   time.Time `json:"tried,omitzero"`
	TriedAt time.Time `json:"tried_at,omitzero"`
	// Checked and Probed are the remaining allowances of checks and of probes that callers ask for, as
	// [rotation.Take] keeps them.
	Checked time.Time `json:"checked,omitzero"`
	Probed  time.Time `json:"probed,omitzero"`
	// Hold says that reads wait: the credential is being changed at this moment, and there is only
	// one.
	Hold bool `json:"hold,omitempty"`
	// Broken says that the service cannot rotate until an operator has repaired something.
	Broken bool `json:"broken,omitempty"`
	// Binding is where the engine may change which accounts; nil for a secret that is not bound yet,
	// and for a secret of a release before bindings.
	Binding *Binding `json:"binding,omitempty"`
	// Meant is LastOrder when the settings last changed which account or which members of a value are
	// the credential: what was known of older versions was about another credential.
	Meant uint64 `json:"meant,omitempty"`
	// Settings are those that the cloud does not have; nil means none.
	Settings *RotationSettings `json:"settings,omitempty"`
}

// Binding ties a secret to one target and to the accounts there that the engine may change for it.
// A principal with the right on each of the accounts has made it. A target that is registered again
// under the same name has another ID, so the secret is not bound to it.
type Binding struct {
	// Target is the ID of the target; for RAMCredentials it is the ID of the user. It is empty for a
	// target without an ID, which a release before bindings registered.
	Target string `json:"target,omitempty"`
	// Accounts are sorted, each once.
	Accounts []string `json:"accounts"`
}

// BoundTo reports whether the secret is bound to the target with that ID. A secret without a
// binding is bound only to a target without an ID: both come from a release before bindings.
func (s Secret) BoundTo(id string) bool {
	b := s.Rotation.Binding
	if b == nil {
		return id == ""
	}
	return b.Target == id
}

// MayChange reports whether the engine may change that account for the secret. A secret without a
// binding names no accounts: its rights were judged when it was configured, by an earlier release.
func (s Secret) MayChange(account string) bool {
	b := s.Rotation.Binding
	return b == nil || slices.Contains(b.Accounts, account)
}

// Bind returns s bound to the target with that ID and to the accounts. changed reports whether that
// differs from its present binding.
func (s Secret) Bind(id string, accounts []string) (bound Secret, changed bool) {
	if b := s.Rotation.Binding; b != nil && b.Target == id && slices.Equal(b.Accounts, accounts) {
		return s, false
	}
	s.Rotation.Binding = &Binding{Target: id, Accounts: accounts}
	return s, true
}

// Values of AutomaticRotation.
const (
	RotationEnabled  = "Enabled"
	RotationDisabled = "Disabled"
	RotationInvalid  = "Invalid"
)

// Automatic returns the value of AutomaticRotation at that time. Invalid means that the service can
// no longer rotate: a rotation that is due has not been made.
func (p RotationPolicy) Automatic(now time.Time) string {
	switch {
	case !p.Enabled:
		return RotationDisabled
	case p.Broken, p.Next.IsZero(), now.Sub(p.Next) > rotation.OverdueAfter:
		return RotationInvalid
	default:
		return RotationEnabled
	}
}

// IntervalText is the interval as responses give it: seconds and the suffix s.
func (p RotationPolicy) IntervalText() string {
	return strconv.FormatInt(int64(p.Interval/time.Second), 10) + "s"
}

// ParseInterval reads an interval between rotations, of least (0 means MinInterval) to MaxInterval.
func ParseInterval(s string, least time.Duration) (time.Duration, error) {
	if least <= 0 {
		least = MinInterval
	}
	d, err := ParseDuration("RotationInterval", s)
	if err == nil && (d < least || d > MaxInterval) {
		shown := strings.TrimSuffix(strings.TrimSuffix(least.String(), "0s"), "0m")
		return 0, fault.Parameter("RotationInterval", "use %s to 8760h (365d).", shown)
	}
	return d, err
}

// ParseDuration reads a whole number and a unit, d, h, m or s; a number without a unit is seconds.
func ParseDuration(param, s string) (time.Duration, error) {
	units := map[byte]time.Duration{'d': 24 * time.Hour, 'h': time.Hour, 'm': time.Minute, 's': time.Second}
	digits, unit := s, time.Second
	if s != "" {
		if u, ok := units[s[len(s)-1]]; ok {
			digits, unit = s[:len(s)-1], u
		}
	}
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || n < 0 || n > int64(math.MaxInt64/unit) || strings.HasPrefix(digits, "+") {
		return 0, fault.Parameter(param, "use a whole number and a unit, d, h, m or s, such as 7d.")
	}
	return time.Duration(n) * unit, nil
}

// policy makes the rotation policy of a new secret or of an update: the next rotation is an
// interval after the last one, or after creation; when that is past, it is due now.
func (s Secret) policy(enable bool, interval string, least time.Duration, now time.Time) (RotationPolicy, error) {
	p := s.Rotation
	p.Enabled = enable
	if !enable {
		p.Interval, p.Next = 0, time.Time{}
		return p, nil
	}
	if interval == "" {
		return p, fault.Required("RotationInterval")
	}
	var err error
	if p.Interval, err = ParseInterval(interval, least); err != nil {
		return p, err
	}
	s.Rotation = p
	p.Next = s.Planned(now, time.Time{}, nil)
	return p, nil
}

// Planned returns when the next rotation is due: after the last one, or after creation; when that
// is past, now; and not before earliest. cron is the parsed expression of the schedule; nil when it
// has none. Zero means never.
func (s Secret) Planned(now, earliest time.Time, cron rotation.Cron) time.Time {
	schedule := s.Schedule()
	if schedule.Never() {
		return time.Time{}
	}
	since := s.CreatedAt
	if !s.Rotation.Last.IsZero() {
		since = s.Rotation.Last
	}
	return schedule.Next(since, earliest, now, cron)
}

// SetRotation turns automatic rotation on or off, for a secret that the engine rotates. least is
// the shortest interval that the server allows; 0 means MinInterval.
func (s Secret) SetRotation(enable bool, interval string, least time.Duration, now time.Time) (Secret, error) {
	if !s.IsRotated() {
		return s, unsupported(s, "UpdateSecretRotationPolicy")
	}
	if err := s.Usable(); err != nil {
		return s, err
	}
	p, err := s.policy(enable, interval, least, now)
	if err != nil {
		return s, err
	}
	s.Rotation = p
	return s.touched(now), nil
}

// requestBurst is how many rotations of one secret may be asked for at once; more come one by one.
// It is less than MaxVersions, so that a burst leaves versions from before it.
const requestBurst = 8

// Ask takes a request for a rotation from the allowance of the secret: eight at once, and one more
// in each interval. Without that bound, a caller with the right to ask could push out every older
// version and keep the target busy.
func (s Secret) Ask(urgent bool, every time.Duration, now time.Time) (Secret, error) {
	if urgent {
		return s.take(&s.Rotation.AskedUrgently, "emergency rotations", "", every, now)
	}
	return s.take(&s.Rotation.Asked, "rotations", "", every, now)
}

// take takes one of what callers may ask for from an allowance, which is a member of s. counted
// says which calls do, where that is not clear.
func (s *Secret) take(
	allowance *time.Time, what, counted string, every time.Duration, now time.Time,
) (Secret, error) {
	next, wait := rotation.Take(*allowance, now, every, requestBurst)
	if wait > 0 {
		return *s, fault.New(fault.Throttled, "%d %s of secret %q were asked for%s; the next one may be asked for at %s.",
			requestBurst, what, s.Name, counted, now.Add(wait).UTC().Truncate(time.Second).Add(time.Second).Format(time.RFC3339))
	}
	*allowance = next
	return *s, nil
}

// AskCheck takes a check of the rotation from the allowance of the secret: eight at once, and one
// more in each interval. Each check asks the target several things, and logs in there.
func (s Secret) AskCheck(every time.Duration, now time.Time) (Secret, error) {
	return s.take(&s.Rotation.Checked, "checks",
		" (rotation check, rotation configure and target test --secret count together)", every, now)
}

// AskProbe takes a probe of the credential in use from the allowance of the secret, in the way of
// [Secret.AskCheck].
func (s Secret) AskProbe(every time.Duration, now time.Time) (Secret, error) {
	return s.take(&s.Rotation.Probed, "probes", "", every, now)
}

// tryBurst is how many logins with a credential that a caller gives are allowed before they come
// one in each interval.
const tryBurst = 3

// Try takes a login with a credential that a caller gives from the allowance of the secret: three,
// a [rotation.LoginWindow] apart while they fail, and then one in each interval. Without that, the
// right to repair would be one to guess passwords and to lock the account.
func (s Secret) Try(every time.Duration, now time.Time) (Secret, error) {
	next, wait := rotation.Take(s.Rotation.Tried, now, every, tryBurst)
	if !s.Rotation.TriedAt.IsZero() {
		left := s.Rotation.TriedAt.Add(rotation.LoginWindow).Sub(now)
		wait = max(wait, min(left, rotation.LoginWindow)) // at most a window after the clock was set back
	}
	if wait > 0 {
		return s, fault.New(fault.Throttled,
			"A credential for secret %q was tried at its target before; the next one may be tried at %s.", s.Name,
			now.Add(wait).UTC().Truncate(time.Second).Add(time.Second).Format(time.RFC3339))
	}
	s.Rotation.Tried, s.Rotation.TriedAt = next, now
	return s, nil
}

// CheckRotate says whether RotateSecret may begin a rotation that makes that version.
func (s Secret) CheckRotate() error {
	if !s.IsRotated() {
		return unsupported(s, "RotateSecret")
	}
	return s.Usable()
}
