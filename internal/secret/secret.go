// Package secret holds the rules of secrets, their versions and stage labels.
//
// It is pure: a rule takes a Secret and returns a changed copy or a *fault.Error, and time arrives
// as an argument. It promises that a live secret has exactly one ACSCurrent, that no label is on
// two versions, and that a version is written once. Values are not here: a Version carries a keyed
// digest of its value, which shows whether two are equal. The sentences of the API reference that
// these rules come from are in docs/compat.md.
package secret

import (
	"cmp"
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/kms"
)

// Limits of one secret (secrets.md section 2).
const (
	MaxVersions = 10 // of a Generic secret; storing one more removes the oldest without a label
	MaxStages   = 8  // stage labels of a secret, the two built-in ones always counted
	MaxTags     = 20
)

// Stage is a stage label: a pointer from a name to exactly one version.
type Stage string

// The built-in labels.
const (
	Current  Stage = kms.StageCurrent
	Previous Stage = kms.StagePrevious
)

// Digest identifies a value and reveals nothing about it, because it is keyed. Equal digests mean
// equal values.
type Digest [32]byte

// MarshalText keeps stored records short: Base64.
func (d Digest) MarshalText() ([]byte, error) {
	return base64.RawStdEncoding.AppendEncode(nil, d[:]), nil
}

// UnmarshalText reads what MarshalText wrote.
func (d *Digest) UnmarshalText(text []byte) error {
	b, err := base64.RawStdEncoding.AppendDecode(nil, text)
	if err != nil || len(b) != len(d) {
		return errors.New("not the Base64 of a digest")
	}
	*d = Digest(b)
	return nil
}

// Version is one value, written once, never changed.
type Version struct {
	ID        string    `json:"id"`
	DataType  string    `json:"data_type"`
	Digest    Digest    `json:"digest"`
	CreatedAt time.Time `json:"created_at"`
	// Order counts the versions of a secret from 1: creation times have ties, this has none.
	Order uint64 `json:"order"`
	// MadeByRotation says that a rotation made it: asking for one by its ID again starts nothing.
	MadeByRotation bool `json:"rotated,omitempty"`
}

// Secret is a named object with versions and metadata.
type Secret struct {
	Account        string             `json:"account"`
	Name           string             `json:"name"`
	Type           string             `json:"type"`
	Description    string             `json:"description,omitempty"`
	KeyID          string             `json:"key_id"`
	DefaultKey     bool               `json:"default_key"`
	DKMSInstanceID string             `json:"dkms_instance_id,omitempty"`
	Creator        string             `json:"creator,omitempty"`
	ExtendedConfig string             `json:"extended_config,omitempty"`
	Policy         string             `json:"policy,omitempty"`
	PolicyBinding  *PolicyBinding     `json:"policy_binding,omitempty"`
	Tags           map[string]string  `json:"tags,omitempty"`
	Rotation       RotationPolicy     `json:"rotation"`
	CreatedAt      time.Time          `json:"created_at"`
	UpdatedAt      time.Time          `json:"updated_at"`
	DeleteAt       time.Time          `json:"delete_at,omitzero"`
	Versions       map[string]Version `json:"versions"`
	Stages         map[Stage]string   `json:"stages"`
	LastOrder      uint64             `json:"last_order"`
}

// PolicyBinding records which users the names in a policy meant when it was set. A policy without
// one was written by an earlier release.
type PolicyBinding struct {
	// IDs maps the ARNs in the policy to the IDs of the users.
	IDs map[string]string `json:"ids,omitempty"`
}

// ARN names the secret across accounts and regions.
func (s Secret) ARN(region string) string { return ARN(region, s.Account, s.Name) }

// ARN returns the ARN of the secret with that name.
func ARN(region, account, name string) string {
	return "acs:kms:" + region + ":" + account + ":secret/" + name
}

// Managed reports whether the service changes the credential at its target: every type but Generic.
func (s Secret) Managed() bool { return s.Type != kms.TypeGeneric }

// Deleting reports whether a deletion is planned.
func (s Secret) Deleting() bool { return !s.DeleteAt.IsZero() }

// Gone reports whether the planned deletion time has come. From then on the secret answers like one
// that never existed, even while its record is still stored.
func (s Secret) Gone(now time.Time) bool { return s.Deleting() && !now.Before(s.DeleteAt) }

// Usable refuses a secret that waits in its deletion window.
func (s Secret) Usable() error {
	if s.Deleting() {
		return fault.New(fault.Deleting, "Secret %q will be deleted at %s; RestoreSecret (keyturn secret restore %s) "+
			"brings it back.",
			s.Name, s.DeleteAt.UTC().Format(wire.TimeFormat), s.Name)
	}
	return nil
}

// NotFound returns the error for a secret that does not exist.
func NotFound(name string) error {
	return fault.New(fault.NotFound, "There is no secret %q.", name)
}

// Sound reports whether a secret has an ACSCurrent and each of its labels is on an existing
// version. A stored secret that is not sound was damaged.
func (s Secret) Sound() bool {
	for id, v := range s.Versions {
		if v.ID != id {
			return false
		}
	}
	for _, id := range s.Stages {
		if _, ok := s.Versions[id]; !ok {
			return false
		}
	}
	return s.Stages[Current] != ""
}

func (s Secret) clone() Secret {
	s.Tags = maps.Clone(s.Tags)
	s.Versions = maps.Clone(s.Versions)
	s.Stages = maps.Clone(s.Stages)
	return s
}

func (s Secret) touched(now time.Time) Secret {
	s.UpdatedAt = now
	return s
}

// Put adds v to s and points stages at it, or Current when there are none. When Current moves,
// Previous takes the version that it left. A version is written once: the same value again is a
// no-op, so callers may retry, and no label moves; another value is refused. The eleventh version
// removes the oldest without a label.
func (s Secret) Put(v Version, stages []Stage, now time.Time) (Secret, error) {
	if s.IsRotated() {
		return s, unsupported(s, fault.Message("PutSecretValue (keyturn secret put %s)", s.Name))
	}
	if err := s.Usable(); err != nil {
		return s, err
	}
	if old, ok := s.Versions[v.ID]; ok {
		if old.Digest == v.Digest {
			return s, nil
		}
		return s, fault.New(fault.Exists, "Secret %q already has version %q with another value; "+
			"a version never changes, so use a new version ID.", s.Name, v.ID)
	}
	if len(stages) == 0 {
		stages = []Stage{Current}
	}
	for _, stage := range stages { // all of them before any is moved: a format is wrong whatever the limits say
		if err := stage.check(); err != nil {
			return s, err
		}
	}
	s = s.clone().touched(now)
	s.add(v, now)
	for _, stage := range stages {
		if err := s.point(stage, v.ID); err != nil {
			return s, err
		}
	}
	s.evict()
	return s, nil
}

// add stores v as the newest version. The maps of s must be its own.
func (s *Secret) add(v Version, now time.Time) {
	s.LastOrder++
	v.Order, v.CreatedAt = s.LastOrder, now
	s.Versions[v.ID] = v
}

func (s *Secret) evict() {
	for len(s.Versions) > MaxVersions {
		labelled := map[string]bool{}
		for _, id := range s.Stages {
			labelled[id] = true
		}
		var oldest Version
		for id, v := range s.Versions {
			if !labelled[id] && (oldest.ID == "" || v.Order < oldest.Order) {
				oldest = v
			}
		}
		delete(s.Versions, oldest.ID)
	}
}

// List returns the versions, newest first; those without a label only when deprecated is set.
func (s Secret) List(deprecated bool) []Version {
	var list []Version
	for id, v := range s.Versions {
		if deprecated || len(s.Labels(id)) > 0 {
			list = append(list, v)
		}
	}
	slices.SortFunc(list, func(a, b Version) int { return cmp.Compare(b.Order, a.Order) })
	return list
}

// Delete plans the deletion after the window, or deletes at once with force. A forced deletion also
// succeeds when a deletion is planned already, so that a tool can finish what an operator
// scheduled.
func (s Secret) Delete(force bool, window time.Duration, now time.Time) (Secret, error) {
	if force {
		s.DeleteAt = now
		return s.touched(now), nil
	}
	if err := s.Usable(); err != nil {
		return s, err
	}
	s.DeleteAt = now.Add(window)
	return s.touched(now), nil
}

// Restore cancels a planned deletion and changes nothing else. A rotation that became due meanwhile
// is due now.
func (s Secret) Restore(now time.Time) (Secret, error) {
	if !s.Deleting() {
		return s, fault.New(fault.InUse, "restore normal secret: no deletion of %q is planned.", s.Name)
	}
	s.DeleteAt = time.Time{}
	if s.Rotation.Enabled && s.Rotation.Next.Before(now) {
		s.Rotation.Next = now
	}
	return s.touched(now), nil
}

func unsupported(s Secret, operation string) error {
	switch {
	case s.Managed():
		return fault.New(fault.Unsupported,
			"%s is for Generic secrets; %q is of type %s, which the service itself rotates.", operation, s.Name, s.Type)
	case s.IsRotated():
		return fault.New(fault.Unsupported,
			"%s is for secrets that are not rotated by the service; %q is, with target %q. "+
				"keyturn rotation detach %s ends that.",
			operation, s.Name, s.Settings().Target, s.Name)
	}
	return fault.New(fault.Unsupported, "Secret %q is not rotated yet: keyturn rotation configure %s --target=TARGET "+
		"attaches it to a target. Without --interval and --cron it is rotated by hand only, and its "+
		"credential stays as it is until then.", s.Name, s.Name)
}

// SetPolicy replaces the policy of the secret by a document that package policy has accepted. ids
// maps the ARNs of the users that it names to their IDs.
func (s Secret) SetPolicy(document string, ids map[string]string, now time.Time) (Secret, error) {
	if err := s.Usable(); err != nil {
		return s, err
	}
	s.Policy, s.PolicyBinding = document, &PolicyBinding{IDs: ids}
	return s.touched(now), nil
}
