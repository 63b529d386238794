package secret

import (
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
)

// Bounds of an interval between automatic rotations (secrets.md section 7, UpdateSecretRotationPolicy).
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
}

// Values of AutomaticRotation.
const (
	RotationEnabled  = "Enabled"
	RotationDisabled = "Disabled"
	RotationInvalid  = "Invalid"
)

// overdue is how long after its due time a rotation that has not begun makes the policy Invalid.
const overdue = time.Hour

// Automatic is the value of AutomaticRotation at that time. Invalid means that the service cannot rotate any more: a
// rotation that is due has not been made.
func (p RotationPolicy) Automatic(now time.Time) string {
	switch {
	case !p.Enabled:
		return RotationDisabled
	case now.Sub(p.Next) > overdue:
		return RotationInvalid
	default:
		return RotationEnabled
	}
}

// IntervalText is the interval as responses give it: seconds and the suffix s.
func (p RotationPolicy) IntervalText() string {
	return strconv.FormatInt(int64(p.Interval/time.Second), 10) + "s"
}

// ParseInterval reads a whole number and a unit, d, h, m or s; a number without a unit is seconds.
func ParseInterval(s string) (time.Duration, error) {
	units := map[byte]time.Duration{'d': 24 * time.Hour, 'h': time.Hour, 'm': time.Minute, 's': time.Second}
	digits, unit := s, time.Second
	if s != "" {
		if u, ok := units[s[len(s)-1]]; ok {
			digits, unit = s[:len(s)-1], u
		}
	}
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || strings.HasPrefix(digits, "+") {
		return 0, fault.Parameter("RotationInterval", "use a whole number and a unit, d, h, m or s, such as 7d.")
	}
	d := time.Duration(n) * unit
	if d < MinInterval || d > MaxInterval {
		return 0, fault.Parameter("RotationInterval", "use 6h to 8760h (365d).")
	}
	return d, nil
}

// policy makes the rotation policy of a new secret or of an update: the next rotation is an interval after the last
// one, or after creation; when that is past, it is due now.
func (s Secret) policy(enable bool, interval string, now time.Time) (RotationPolicy, error) {
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
	if p.Interval, err = ParseInterval(interval); err != nil {
		return p, err
	}
	since := s.CreatedAt
	if !p.Last.IsZero() {
		since = p.Last
	}
	if p.Next = since.Add(p.Interval); p.Next.Before(now) {
		p.Next = now
	}
	return p, nil
}

// SetRotation turns automatic rotation of a managed secret on or off.
func (s Secret) SetRotation(enable bool, interval string, now time.Time) (Secret, error) {
	if !s.Managed() {
		return s, unsupported(s, "UpdateSecretRotationPolicy")
	}
	if err := s.Usable(); err != nil {
		return s, err
	}
	p, err := s.policy(enable, interval, now)
	if err != nil {
		return s, err
	}
	s.Rotation = p
	return s.touched(now), nil
}

// Rotate says whether RotateSecret may begin a rotation that makes that version.
func (s Secret) Rotate() error {
	if !s.Managed() {
		return unsupported(s, "RotateSecret")
	}
	return s.Usable()
}
