package secret

import (
	"cmp"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/wire"
)

// check refuses a label that no Put can set.
func (s Stage) check() error {
	switch {
	case s == Previous:
		return fault.Parameter("VersionStages", "ACSPrevious cannot be set on a new version; it follows ACSCurrent.")
	case !wire.IsName(string(s)) || len(s) > 64:
		return fault.Parameter("VersionStages", "a label has 1 to 64 letters, digits and _ / + = . @ -")
	}
	return nil
}

// point moves a label of a Put to a version: with Current, Previous takes the version that it
// leaves.
func (s *Secret) point(stage Stage, id string) error {
	if stage == Current {
		s.Stages[Previous] = s.Stages[Current]
	} else if err := s.room(stage); err != nil {
		return err
	}
	s.Stages[stage] = id
	return nil
}

// room refuses a custom label that is new and over the limit. The two built-in labels are always
// counted, so that a version without a label is always there to make room for another.
func (s *Secret) room(stage Stage) error {
	if _, ok := s.Stages[stage]; ok {
		return nil
	}
	custom := len(s.Stages)
	for _, builtIn := range []Stage{Current, Previous} {
		if _, ok := s.Stages[builtIn]; ok {
			custom--
		}
	}
	if custom+1+2 > MaxStages {
		return fault.New(fault.LimitExceeded,
			"A secret has at most %d stage labels, ACSCurrent and ACSPrevious included; remove one first.", MaxStages)
	}
	return nil
}

// MoveStage adds, moves or removes one label: it is put on the version to, and taken from the
// version from, which must carry it. Either may be empty, not both; the built-in labels need to.
// When Current moves, Previous takes the version that it left.
func (s Secret) MoveStage(stage Stage, to, from string, now time.Time) (Secret, error) {
	if err := CheckMove(stage, to, from); err != nil {
		return s, err
	}
	if s.IsRotated() {
		return s, unsupported(s, fault.Message("UpdateSecretVersionStage (keyturn secret stage %s LABEL)", s.Name))
	}
	if err := s.Usable(); err != nil {
		return s, err
	}
	if err := s.checkMove(stage, to, from); err != nil {
		return s, err
	}
	if s.Stages[stage] == to {
		return s, nil
	}
	s = s.clone().touched(now)
	switch {
	case to == "":
		delete(s.Stages, stage)
		return s, nil
	case stage == Current:
		s.Stages[Previous] = s.Stages[Current]
	case stage != Previous:
		if err := cmp.Or(stage.check(), s.room(stage)); err != nil {
			return s, err
		}
	}
	s.Stages[stage] = to
	return s, nil
}

// CheckMove refuses what no MoveStage can do, whatever is stored: a caller learns what is wrong
// with the request itself before anything is looked up.
func CheckMove(stage Stage, to, from string) error {
	builtIn := stage == Current || stage == Previous
	switch {
	case to == "" && from == "":
		return fault.Parameter("MoveToVersion", "give MoveToVersion, RemoveFromVersion or both.")
	case to == "" && builtIn:
		return fault.Parameter("MoveToVersion", "%s can be moved, not removed: give MoveToVersion.", stage)
	}
	return nil
}

func (s Secret) checkMove(stage Stage, to, from string) error {
	for _, id := range []string{to, from} {
		if _, ok := s.Versions[id]; id != "" && !ok {
			return fault.New(fault.NotFound, "Secret %q has no version %q.", s.Name, id)
		}
	}
	switch {
	case from != "" && s.Stages[stage] != from:
		return fault.Parameter("RemoveFromVersion", "version %q does not carry the label %s.", from, stage)
	case from != "" && from == to:
		return nil
	case stage == Previous && to == s.Stages[Current]:
		return fault.Parameter("MoveToVersion", "version %q carries ACSCurrent; ACSPrevious must be on another.", to)
	}
	return nil
}

// Select finds the version that a read asks for. Both empty means Current. With both, the version
// must carry the label. A managed secret knows only the two built-in labels and Pending, and
// ignores id.
func (s Secret) Select(stage Stage, id string) (Version, error) {
	if s.Managed() {
		id = ""
		if stage != "" && stage != Current && stage != Previous && stage != Pending {
			return Version{}, s.noVersion("label", string(stage))
		}
	}
	switch {
	case stage == "" && id == "":
		stage = Current
		fallthrough
	case id == "":
		held, ok := s.Stages[stage]
		if !ok {
			return Version{}, s.noVersion("label", string(stage))
		}
		return s.Versions[held], nil
	}
	v, ok := s.Versions[id]
	switch {
	case !ok:
		return v, s.noVersion("version", id)
	case stage != "" && s.Stages[stage] != id:
		return v, fault.New(fault.NotFound, "Version %q of secret %q does not carry the label %q.", id, s.Name, string(stage))
	}
	return v, nil
}

func (s Secret) noVersion(what, name string) error {
	return fault.New(fault.NotFound, "Secret %q has no %s %q.", s.Name, what, name)
}

// Labels are the labels of a version: ACSCurrent and ACSPrevious first, then by name. Never nil.
func (s Secret) Labels(id string) []string {
	list := []string{}
	for stage, held := range s.Stages {
		if held == id {
			list = append(list, string(stage))
		}
	}
	rank := func(l string) int { return slices.Index([]string{string(Previous), string(Current)}, l) }
	slices.SortFunc(list, func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(b), rank(a)), cmp.Compare(a, b))
	})
	return list
}
