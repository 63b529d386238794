package secret

import (
	"cmp"
	"reflect"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
)

// Pending is the label of the candidate of a rotation. Only the engine moves it.
const Pending Stage = kms.StagePending

// RotationSettings say how a secret is rotated, beyond what the API of the cloud knows.
type RotationSettings struct {
	// Target is the registered target. Managed types name it in ExtendedConfig, and leave it empty
	// here.
	Target string `json:"target,omitempty"`
	// Strategy is one that the target has; empty means the one that the type asks for, or the target's
	// best.
	Strategy target.Strategy `json:"strategy,omitempty"`
	// Account is whose credential a value is that is not JSON, and CloneAccount the other one with
	// target.Double.
	Account      string `json:"account,omitempty"`
	CloneAccount string `json:"clone_account,omitempty"`
	// AccountMember and SecretMember are the members of a JSON value that hold the account and its
	// secret; empty means the first of the usual names that there is.
	AccountMember string `json:"account_member,omitempty"`
	SecretMember  string `json:"secret_member,omitempty"`
	// Schedule has what an interval cannot say; its own Interval is unused.
	Schedule rotation.Schedule `json:"schedule,omitzero"`
	// Grace is how long the previous credential works after a rotation at least; nil means the
	// server's default.
	Grace *time.Duration `json:"grace,omitempty"`
	// GraceLimit is how long it works at most when a consumer still holds it; nil means the server's
	// default.
	GraceLimit *time.Duration `json:"grace_limit,omitempty"`
	// Group is a set of secrets that never rotate within Gap of each other.
	Group string        `json:"group,omitempty"`
	Gap   time.Duration `json:"gap,omitempty"`
	// Login is how the application connects that uses the secret; the zero value follows the target.
	Login target.Login `json:"login,omitzero"`
	// Consents are the tokens of the findings of a check to which the operator has agreed, sorted.
	Consents []string `json:"consents,omitempty"`
}

// SameTerms reports whether a candidate that was decided on with s may be made and sent with o. The
// schedule, the grace period and the group decide when a rotation begins and ends, and change
// neither.
func (s RotationSettings) SameTerms(o RotationSettings) bool {
	for _, p := range []*RotationSettings{&s, &o} {
		p.Schedule, p.Grace, p.GraceLimit, p.Group, p.Gap = rotation.Schedule{}, nil, nil, "", 0
	}
	return reflect.DeepEqual(s, o)
}

// settings returns the settings of the secret, or the zero value.
func (p RotationPolicy) settings() RotationSettings {
	if p.Settings == nil {
		return RotationSettings{}
	}
	return *p.Settings
}

// IsRotated reports whether the engine changes the credential: a managed secret, or one that a
// rotation was attached to.
func (s Secret) IsRotated() bool {
	return s.Managed() || s.Rotation.settings().Target != ""
}

// Settings are the rotation settings of the secret; the zero value when it has none.
func (s Secret) Settings() RotationSettings { return s.Rotation.settings() }

// Schedule returns when the secret is rotated automatically; the zero value means never.
func (s Secret) Schedule() rotation.Schedule {
	if !s.Rotation.Enabled {
		return rotation.Schedule{}
	}
	schedule := s.Settings().Schedule
	if schedule.Cron == "" {
		schedule.Interval = s.Rotation.Interval
	}
	return schedule
}

// Prepare stores the candidate of a rotation under the pending label. No other label moves.
func (s Secret) Prepare(v Version, now time.Time) (Secret, error) {
	if err := s.Usable(); err != nil {
		return s, err
	}
	if _, ok := s.Versions[v.ID]; ok {
		return s, fault.New(fault.Exists, "Secret %q already has version %q.", s.Name, v.ID)
	}
	s = s.clone().touched(now)
	v.MadeByRotation = true
	s.add(v, now)
	s.Stages[Pending] = v.ID
	s.evict()
	return s, nil
}

// Promote makes the candidate current: ACSPrevious moves to the version that ACSCurrent leaves, and
// the pending label is removed. It sets the time of the last rotation to now.
func (s Secret) Promote(candidate string, now time.Time) (Secret, error) {
	if _, ok := s.Versions[candidate]; !ok {
		return s, s.noVersion("version", candidate)
	}
	s = s.clone().touched(now)
	if s.Stages[Current] != candidate {
		s.Stages[Previous] = s.Stages[Current]
		s.Stages[Current] = candidate
	}
	if s.Stages[Pending] == candidate {
		delete(s.Stages, Pending)
	}
	s.Rotation.Last = now
	return s, nil
}

// Unprepare takes the pending label away. The version stays for as long as there is room.
func (s Secret) Unprepare(now time.Time) Secret {
	if _, ok := s.Stages[Pending]; !ok {
		return s
	}
	s = s.clone().touched(now)
	delete(s.Stages, Pending)
	return s
}

// Undo exchanges ACSCurrent and ACSPrevious.
func (s Secret) Undo(now time.Time) (Secret, error) {
	previous, ok := s.Stages[Previous]
	if !ok {
		return s, s.noVersion("label", string(Previous))
	}
	s = s.clone().touched(now)
	s.Stages[Previous], s.Stages[Current] = s.Stages[Current], previous
	return s, nil
}

// Adopt stores a version that was found to authenticate, and makes it current: a repair. The
// pending label goes. previous is the version that becomes the previous one; empty means the one
// that was current.
func (s Secret) Adopt(v Version, previous string, now time.Time) (Secret, error) {
	if old, ok := s.Versions[v.ID]; ok && old.Digest != v.Digest {
		return s, fault.New(fault.Exists,
			"Secret %q already has version %q with another value; use a new version ID.", s.Name, v.ID)
	}
	if err := s.Usable(); err != nil {
		return s, err
	}
	s = s.clone().touched(now)
	if _, ok := s.Versions[v.ID]; !ok {
		s.add(v, now)
	}
	s.Rotation.TriedAt = time.Time{}
	delete(s.Stages, Pending)
	if s.Stages[Current] != v.ID {
		s.Stages[Previous], s.Stages[Current] = cmp.Or(previous, s.Stages[Current]), v.ID
	}
	s.evict()
	return s, nil
}

// Attach sets the rotation settings, and thereby lets the engine rotate a Generic secret.
func (s Secret) Attach(settings RotationSettings, now time.Time) (Secret, error) {
	if err := s.Usable(); err != nil {
		return s, err
	}
	if !s.Settings().SameCredential(settings) {
		s.Rotation.Meant = s.LastOrder
	}
	s.Rotation.Settings = &settings
	return s.touched(now), nil
}

// SameCredential reports whether a value has the same credential with other settings.
func (a RotationSettings) SameCredential(b RotationSettings) bool {
	return a.Account == b.Account && a.CloneAccount == b.CloneAccount && a.AccountMember == b.AccountMember &&
		a.SecretMember == b.SecretMember
}

// Detach ends the rotation of a Generic secret; its producer stores versions again.
func (s Secret) Detach(now time.Time) (Secret, error) {
	if s.Managed() {
		return s, fault.New(fault.Unsupported, "Secret %q is of type %s, which is always rotated by the service; "+
			"keyturn rotation configure %s --manual turns the schedule off.", s.Name, s.Type, s.Name)
	}
	if err := s.Usable(); err != nil {
		return s, err
	}
	s = s.clone().touched(now)
	delete(s.Stages, Pending)
	s.Rotation = RotationPolicy{
		Last:          s.Rotation.Last,
		Asked:         s.Rotation.Asked,
		AskedUrgently: s.Rotation.AskedUrgently,
		Tried:         s.Rotation.Tried,
		TriedAt:       s.Rotation.TriedAt,
		Checked:       s.Rotation.Checked,
		Meant:         s.LastOrder,
	}
	return s, nil
}
