// Package model is the reference of the secret operations: what each of them answers and leaves
// behind, written from the public API reference alone. It shares no rule with internal/secret, so
// that a mistake there is not made here again. Tests hold a real server against it. It knows
// Generic secrets.
package model

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/keyturn/keyturn/kms"
)

// Kind is an operation.
type Kind string

// The operations.
const (
	Create   Kind = "CreateSecret"
	Put      Kind = "PutSecretValue"
	Move     Kind = "UpdateSecretVersionStage"
	Get      Kind = "GetSecretValue"
	Describe Kind = "DescribeSecret"
	List     Kind = "ListSecretVersionIds"
	Delete   Kind = "DeleteSecret"
	Restore  Kind = "RestoreSecret"

	Update      Kind = "UpdateSecret"
	Tag         Kind = "TagResource"
	Untag       Kind = "UntagResource"
	SetPolicy   Kind = "SetSecretPolicy"
	GetPolicy   Kind = "GetSecretPolicy"
	Rotate      Kind = "RotateSecret"
	SetRotation Kind = "UpdateSecretRotationPolicy"
)

// Op is one call.
type Op struct {
	Kind Kind
	Name string
	// Version and Data are of Create and Put; Version alone of Get.
	Version, Data, DataType string
	Description             string   // Create, Update
	Tags                    []string // Tag: keys and values in turns; Untag: keys
	Policy                  string   // SetPolicy
	Labels                  []string // Put
	Label                   string   // Move, Get
	To, From                string   // Move
	Deprecated              bool     // List
	Page, Size              int      // List
	Force                   bool     // Delete
	Window                  int      // Delete; days
}

// Changes reports whether the operation may change something.
func (o Op) Changes() bool {
	return !slices.Contains([]Kind{Get, Describe, List, GetPolicy}, o.Kind)
}

func (o Op) String() string {
	switch o.Kind {
	case Create, Put:
		return fmt.Sprintf("%s %s %s=%.20q %v", o.Kind, o.Name, o.Version, o.Data, o.Labels)
	case Move:
		return fmt.Sprintf("%s %s %s to %q from %q", o.Kind, o.Name, o.Label, o.To, o.From)
	case Get:
		return fmt.Sprintf("%s %s version %q label %q", o.Kind, o.Name, o.Version, o.Label)
	case Delete:
		return fmt.Sprintf("%s %s force %v window %d", o.Kind, o.Name, o.Force, o.Window)
	}
	return fmt.Sprintf("%s %s", o.Kind, o.Name)
}

// Row is one row of List.
type Row struct {
	Version string
	Labels  []string
	Created time.Time
}

// Reply is what a call answers: Code is empty for a success. Labels are sorted, because their
// order is not documented.
type Reply struct {
	Code                                      string
	Name, Type, Version, Data, DataType, Text string
	Labels                                    []string
	Created, Updated, Planned                 time.Time
	Rows                                      []Row
	Tags                                      []string // "key=value", sorted
	Policy                                    string
	Page, Size, Total                         int
}

// Timeless is the reply without its times, for histories in which they are not known exactly.
func (r Reply) Timeless() Reply {
	r.Created, r.Updated, r.Planned = time.Time{}, time.Time{}, time.Time{}
	r.Rows = slices.Clone(r.Rows)
	for i := range r.Rows {
		r.Rows[i].Created = time.Time{}
	}
	return r
}

func (r Reply) String() string {
	if r.Code != "" {
		return r.Code
	}
	return fmt.Sprintf("ok %s=%.20q %v %v", r.Version, r.Data, r.Labels, r.Rows)
}

type version struct {
	id, data, dataType string
	created            time.Time
}

// Secret is the state of one name. Nil is a name without a secret. It is never changed in place.
type Secret struct {
	name, text       string
	versions         []version   // oldest first
	labels           [][2]string // label and version, sorted by label
	created, updated time.Time
	planned          time.Time // zero when no deletion is planned
	tags             []string  // "key=value", sorted
	policy           string
	key              func() string
}

// Limits (secrets.md section 2).
const (
	maxVersions = 10
	maxCustom   = 6 // 8 labels less the two built-in ones
	maxData     = 30720
)

func refused(s *Secret, code string) (*Secret, Reply) { return s, Reply{Code: code} }

// Apply does one call on the secret of its name at that time, and returns what is there
// afterwards and the answer.
func (s *Secret) Apply(o Op, now time.Time) (*Secret, Reply) {
	if s != nil && !s.planned.IsZero() && !now.Before(s.planned) {
		s = nil // after the planned time it answers like one that never was
	}
	if code := o.malformed(); code != "" {
		return refused(s, code)
	}
	if o.Kind == Create {
		return s.create(o, now)
	}
	if s == nil {
		return refused(s, kms.CodeResourceNotFound)
	}
	inWindow := !s.planned.IsZero()
	switch o.Kind {
	case Describe:
		return s, Reply{
			Name:    s.name,
			Type:    kms.TypeGeneric,
			Text:    s.text,
			Created: s.created,
			Updated: s.updated,
			Planned: s.planned,
			Tags:    s.tags,
		}
	case GetPolicy:
		return s, Reply{Policy: s.policy}
	case Tag, Untag:
		return s.retag(o, now)
	case Rotate, SetRotation:
		return refused(s, kms.CodeUnsupportedOperation) // it is for managed types
	case List:
		return s, s.list(o)
	case Restore:
		if !inWindow {
			return refused(s, kms.CodeResourceInUse)
		}
		n := s.copy(now)
		n.planned = time.Time{}
		return n, Reply{Name: s.name}
	case Delete:
		if o.Force {
			return nil, Reply{Name: s.name, Planned: now}
		}
	}
	if inWindow {
		return refused(s, kms.CodeResourceInDeleteWindow)
	}
	switch o.Kind {
	case Delete:
		n := s.copy(now)
		days := o.Window
		if days == 0 {
			days = 30
		}
		n.planned = now.Add(time.Duration(days) * 24 * time.Hour)
		return n, Reply{Name: s.name, Planned: n.planned}
	case Put:
		return s.put(o, now)
	case Move:
		return s.move(o, now)
	case Get:
		return s, s.get(o)
	case Update:
		n := s.copy(now)
		n.text = o.Description
		return n, Reply{Name: s.name}
	case SetPolicy:
		n := s.copy(now)
		n.policy = o.Policy
		return n, Reply{}
	}
	panic("model: unknown operation " + string(o.Kind))
}

// malformed is the code of a request that is refused whatever is stored: required parameters
// first, then formats.
func (o Op) malformed() string {
	required := []string{o.Name}
	switch o.Kind {
	case Create, Put:
		required = append(required, o.Data, o.Version)
	case Move:
		required = append(required, o.Label)
	case Rotate:
		required = append(required, o.Version)
	case SetPolicy:
		required = append(required, o.Policy)
	}
	if slices.Contains(required, "") {
		return kms.CodeMissingParameter
	}
	ok := named(o.Name, 192)
	switch o.Kind {
	case Create, Put:
		ok = ok && named(o.Version, 64) && len(o.Data) <= maxData && slices.Contains([]string{
			"", "text", "binary",
		}, o.DataType)
		ok = ok && utf8.RuneCountInString(o.Description) <= 8192 && (o.Kind == Put || !strings.HasPrefix(o.Name, "acs/"))
	case Move:
		builtIn := o.Label == kms.StageCurrent || o.Label == kms.StagePrevious
		ok = ok && named(o.Label, 64) && utf8.RuneCountInString(o.To) <= 64 && utf8.RuneCountInString(o.From) <= 64
		ok = ok && (o.To != "" || o.From != "" && !builtIn)
	case Get:
		ok = ok && utf8.RuneCountInString(o.Label) <= 64 && utf8.RuneCountInString(o.Version) <= 64
	case List:
		ok = ok && o.Page >= 0 && o.Size >= 0 && o.Size <= 100
	case Rotate:
		ok = ok && named(o.Version, 64)
	case Update:
		ok = ok && utf8.RuneCountInString(o.Description) <= 8192
	case SetPolicy:
		ok = ok && strings.Contains(o.Policy, `"Version"`) // the documents of these tests are good, or no documents at all
	case Delete:
		ok = ok && (o.Window == 0 || o.Window >= 7 && o.Window <= 30)
	}
	if !ok {
		return kms.CodeInvalidParameter
	}
	return ""
}

func named(s string, most int) bool {
	const set = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_/+=.@-"
	return s != "" && len(s) <= most && strings.Trim(s, set) == "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune(set, r)
	})
}

func dataType(s string) string {
	if s == "" {
		return "text"
	}
	return s
}

func (s *Secret) create(o Op, now time.Time) (*Secret, Reply) {
	switch {
	case s != nil && !s.planned.IsZero():
		return refused(s, kms.CodeResourceInDeleteWindow)
	case s != nil:
		return refused(s, kms.CodeResourceExist)
	}
	n := &Secret{
		name: o.Name, text: o.Description, created: now, updated: now, labels: [][2]string{{kms.StageCurrent, o.Version}},
		versions: []version{{o.Version, o.Data, dataType(o.DataType), now}}, policy: DefaultPolicy,
	}
	n.key = sync.OnceValue(n.describe)
	return n, Reply{Name: o.Name, Type: kms.TypeGeneric, Version: o.Version}
}

func (s *Secret) put(o Op, now time.Time) (*Secret, Reply) {
	if i := s.find(o.Version); i >= 0 {
		if s.versions[i].data != o.Data {
			return refused(s, kms.CodeResourceExist)
		}
		return s, Reply{Name: s.name, Version: o.Version, Labels: s.on(o.Version)}
	}
	labels := o.Labels
	if len(labels) == 0 {
		labels = []string{kms.StageCurrent}
	}
	for _, l := range labels {
		if l == kms.StagePrevious || !named(l, 64) {
			return refused(s, kms.CodeInvalidParameter)
		}
	}
	n := s.copy(now)
	for _, l := range labels {
		if l == kms.StageCurrent && n.holder(l) != o.Version {
			n.point(kms.StagePrevious, n.holder(l))
		}
		n.point(l, o.Version)
	}
	if n.custom() > maxCustom {
		return refused(s, kms.CodeLimitExceeded)
	}
	n.versions = append(n.versions, version{o.Version, o.Data, dataType(o.DataType), now})
	n.evict()
	return n, Reply{Name: s.name, Version: o.Version, Labels: n.on(o.Version)}
}

// evict keeps ten versions: the oldest without a label goes.
func (s *Secret) evict() {
	if len(s.versions) <= maxVersions {
		return
	}
	i := slices.IndexFunc(s.versions, func(v version) bool { return len(s.on(v.id)) == 0 })
	s.versions = slices.Delete(s.versions, i, i+1)
}

func (s *Secret) move(o Op, now time.Time) (*Secret, Reply) {
	switch {
	case o.To != "" && s.find(o.To) < 0, o.From != "" && s.find(o.From) < 0:
		return refused(s, kms.CodeResourceNotFound)
	case o.From != "" && s.holder(o.Label) != o.From:
		return refused(s, kms.CodeInvalidParameter)
	case o.Label == kms.StagePrevious && o.To == s.holder(kms.StageCurrent):
		return refused(s, kms.CodeInvalidParameter)
	case o.To == s.holder(o.Label):
		return s, Reply{Name: s.name}
	}
	n := s.copy(now)
	if o.Label == kms.StageCurrent {
		n.point(kms.StagePrevious, s.holder(kms.StageCurrent))
	}
	n.point(o.Label, o.To)
	if n.custom() > maxCustom {
		return refused(s, kms.CodeLimitExceeded)
	}
	return n, Reply{Name: s.name}
}

// DefaultPolicy stands for the policy of a secret for which none was set.
const DefaultPolicy = "default"

// maxTags is of one secret.
const maxTags = 20

// retag adds or removes tags, in the deletion window too. Keys that are not there are passed over.
func (s *Secret) retag(o Op, now time.Time) (*Secret, Reply) {
	n := s.copy(now)
	n.tags = slices.Clone(s.tags)
	remove := func(key string) {
		n.tags = slices.DeleteFunc(n.tags, func(t string) bool { return strings.HasPrefix(t, key+"=") })
	}
	if o.Kind == Untag {
		for _, key := range o.Tags {
			remove(key)
		}
	} else {
		for i := 0; i < len(o.Tags); i += 2 {
			remove(o.Tags[i])
			n.tags = append(n.tags, o.Tags[i]+"="+o.Tags[i+1])
		}
	}
	if len(n.tags) > maxTags {
		return refused(s, kms.CodeLimitExceeded)
	}
	slices.Sort(n.tags)
	if len(n.tags) == 0 {
		n.tags = nil
	}
	return n, Reply{}
}

func (s *Secret) get(o Op) Reply {
	id, label := o.Version, o.Label
	if id == "" && label == "" {
		label = kms.StageCurrent
	}
	if id == "" {
		id = s.holder(label)
	}
	i := s.find(id)
	if i < 0 || label != "" && s.holder(label) != id {
		return Reply{Code: kms.CodeResourceNotFound}
	}
	v := s.versions[i]
	return Reply{
		Name:     s.name,
		Type:     kms.TypeGeneric,
		Version:  id,
		Data:     v.data,
		DataType: v.dataType,
		Labels:   s.on(id),
		Created:  v.created,
	}
}

func (s *Secret) list(o Op) Reply {
	r := Reply{Name: s.name, Page: max(o.Page, 1), Size: o.Size}
	if r.Size == 0 {
		r.Size = 20
	}
	var rows []Row
	for _, v := range slices.Backward(s.versions) {
		if labels := s.on(v.id); o.Deprecated || len(labels) > 0 {
			rows = append(rows, Row{v.id, labels, v.created})
		}
	}
	r.Total = len(rows)
	for i := (r.Page - 1) * r.Size; i < len(rows) && i < r.Page*r.Size; i++ {
		r.Rows = append(r.Rows, rows[i])
	}
	return r
}

func (s *Secret) copy(now time.Time) *Secret {
	n := *s
	n.versions, n.labels, n.updated = slices.Clone(s.versions), slices.Clone(s.labels), now
	n.key = sync.OnceValue(n.describe)
	return &n
}

func (s *Secret) find(id string) int {
	return slices.IndexFunc(s.versions, func(v version) bool { return v.id == id })
}

// holder is the version that a label points to; empty when no version has it.
func (s *Secret) holder(label string) string {
	for _, l := range s.labels {
		if l[0] == label {
			return l[1]
		}
	}
	return ""
}

// point puts a label on a version, and takes it away when id is empty.
func (s *Secret) point(label, id string) {
	s.labels = slices.DeleteFunc(s.labels, func(l [2]string) bool { return l[0] == label })
	if id != "" {
		s.labels = append(s.labels, [2]string{label, id})
		slices.SortFunc(s.labels, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	}
}

func (s *Secret) custom() (n int) {
	for _, l := range s.labels {
		if l[0] != kms.StageCurrent && l[0] != kms.StagePrevious {
			n++
		}
	}
	return n
}

// on is the sorted list of the labels of a version.
func (s *Secret) on(id string) (labels []string) {
	for _, l := range s.labels {
		if l[1] == id {
			labels = append(labels, l[0])
		}
	}
	return labels
}

// Versions are the IDs that the secret has, oldest first; none when there is no secret.
func (s *Secret) Versions() (ids []string) {
	if s == nil {
		return nil
	}
	for _, v := range s.versions {
		ids = append(ids, v.id)
	}
	return ids
}

// Waits reports whether the secret waits in its deletion window.
func (s *Secret) Waits() bool { return s != nil && !s.planned.IsZero() }

// Key is equal for equal states, times left out.
func (s *Secret) Key() string {
	if s == nil {
		return ""
	}
	return s.key()
}

func (s *Secret) describe() string {
	var b strings.Builder
	for _, v := range s.versions {
		fmt.Fprintf(&b, "%q=%q ", v.id, v.data)
	}
	fmt.Fprintf(&b, "%q %v %q %q %q", s.labels, s.Waits(), s.text, s.tags, s.policy)
	return b.String()
}
