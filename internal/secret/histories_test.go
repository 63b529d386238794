package secret

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/kms"
)

// plain is the reference: one secret, written from the words of the contract without the rules of
// this package. Versions are oldest first; a label is a pair of its name and a version.
type plain struct {
	managed          bool
	versions         []plainVersion
	labels           [][2]string
	text, policy     string
	tags             map[string]string
	custom           map[string]string
	created, updated time.Time
	planned          time.Time
	rotates          bool
	interval         time.Duration
	last, next       time.Time
}

type plainVersion struct {
	id    string
	value byte
	at    time.Time
}

// act is one call on a secret: on this package, and on the reference, which says how it must end.
type act struct {
	name string
	do   func(s Secret, now time.Time) (Secret, error)
	ref  func(p *plain, now time.Time) fault.Kind
}

func (p *plain) find(id string) int {
	return slices.IndexFunc(p.versions, func(v plainVersion) bool { return v.id == id })
}

func (p *plain) holder(label string) string {
	for _, l := range p.labels {
		if l[0] == label {
			return l[1]
		}
	}
	return ""
}

func (p *plain) point(label, id string) {
	p.labels = slices.DeleteFunc(p.labels, func(l [2]string) bool { return l[0] == label })
	if id != "" {
		p.labels = append(p.labels, [2]string{label, id})
	}
}

func (p *plain) customLabels() int {
	return len(p.labels) - len(slices.DeleteFunc(slices.Clone(p.labels),
		func(l [2]string) bool { return l[0] != "ACSCurrent" && l[0] != "ACSPrevious" }))
}

func (p *plain) put(id string, value byte, labels []Stage, now time.Time) fault.Kind {
	switch i := p.find(id); {
	case p.managed:
		return fault.Unsupported
	case !p.planned.IsZero():
		return fault.Deleting
	case i >= 0 && p.versions[i].value == value:
		return fault.OK
	case i >= 0:
		return fault.Exists
	case slices.Contains(labels, "ACSPrevious"):
		return fault.Invalid
	}
	if len(labels) == 0 {
		labels = []Stage{"ACSCurrent"}
	}
	for _, l := range labels {
		if l == "ACSCurrent" && p.holder("ACSCurrent") != id {
			p.point("ACSPrevious", p.holder("ACSCurrent"))
		}
		p.point(string(l), id)
	}
	if p.customLabels() > 6 {
		return fault.LimitExceeded
	}
	p.versions, p.updated = append(p.versions, plainVersion{id, value, now}), now
	if len(p.versions) > 10 {
		i := slices.IndexFunc(p.versions, func(v plainVersion) bool {
			return !slices.ContainsFunc(p.labels, func(l [2]string) bool { return l[1] == v.id })
		})
		p.versions = slices.Delete(p.versions, i, i+1)
	}
	return fault.OK
}

func (p *plain) move(label, to, from string, now time.Time) fault.Kind {
	builtIn := label == "ACSCurrent" || label == "ACSPrevious"
	switch {
	case to == "" && (from == "" || builtIn):
		return fault.Invalid
	case p.managed:
		return fault.Unsupported
	case !p.planned.IsZero():
		return fault.Deleting
	case to != "" && p.find(to) < 0, from != "" && p.find(from) < 0:
		return fault.NotFound
	case from != "" && p.holder(label) != from:
		return fault.Invalid
	case to == p.holder(label):
		return fault.OK
	case label == "ACSPrevious" && to == p.holder("ACSCurrent"):
		return fault.Invalid
	}
	if label == "ACSCurrent" {
		p.point("ACSPrevious", p.holder("ACSCurrent"))
	}
	p.point(label, to)
	if p.customLabels() > 6 {
		return fault.LimitExceeded
	}
	p.updated = now
	return fault.OK
}

func (p *plain) selects(label, id string) (string, fault.Kind) {
	if p.managed {
		id = ""
	}
	if label == "" && id == "" {
		label = "ACSCurrent"
	}
	if id == "" {
		id = p.holder(label)
	}
	if p.find(id) < 0 || label != "" && p.holder(label) != id {
		return "", fault.NotFound
	}
	return id, fault.OK
}

func (p *plain) rotation(enable bool, interval string, now time.Time) fault.Kind {
	hours := map[string]int{"6h": 6, "7d": 168, "365d": 8760}
	switch {
	case !p.managed:
		return fault.Unsupported
	case !p.planned.IsZero():
		return fault.Deleting
	case enable && interval == "":
		return fault.Missing
	case enable && hours[interval] == 0:
		return fault.Invalid
	}
	p.rotates, p.interval, p.next, p.updated = enable, 0, time.Time{}, now
	if enable {
		p.interval = time.Duration(hours[interval]) * time.Hour
		since := p.created
		if !p.last.IsZero() {
			since = p.last
		}
		if p.next = since.Add(p.interval); p.next.Before(now) {
			p.next = now
		}
	}
	return fault.OK
}

// drawAct draws a call of any of the operations on a secret.
func drawAct(t *rapid.T) act {
	id := rapid.SampledFrom([]string{"v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "w0", "w1", "w2", "w3", "w4"})
	maybe := rapid.OneOf(rapid.Just(""), id)
	label := rapid.SampledFrom([]Stage{Current, Previous, "a", "b", "c", "d", "e", "f", "g"})
	changed := func(p *plain, now time.Time) fault.Kind { p.updated = now; return fault.OK }
	switch op := rapid.SampledFrom([]string{
		"put", "put", "put", "put", "put", "put", "move", "move", "move", "select", "list", "delete", "restore", "restore",
		"update", "policy", "tag", "tag", "tag", "untag", "rotation", "rotation", "rotation", "rotate",
	}).Draw(t, "operation"); op {
	case "put":
		v, value := id.Draw(t, "version"), byte(rapid.IntRange(1, 2).Draw(t, "value"))
		labels := slices.Compact(slices.Sorted(slices.Values(rapid.SliceOfN(label, 0, 3).Draw(t, "labels"))))
		put := func(s Secret, now time.Time) (Secret, error) {
			return s.Put(Version{ID: v, Digest: Digest{value}}, labels, now)
		}
		return act{
			fmt.Sprintf("put %s=%d %v", v, value, labels),
			func(s Secret, now time.Time) (Secret, error) {
				once, err := put(s, now)
				if err != nil {
					return once, err
				}
				// The same Put twice is one Put, whenever the second comes and whatever labels it asks for.
				twice, err := put(once, now.Add(time.Hour))
				if err == nil {
					twice, err = twice.Put(Version{ID: v, Digest: Digest{value}}, []Stage{"g"}, now.Add(2*time.Hour))
				}
				if d := cmp.Diff(once, twice); d != "" || err != nil {
					t.Fatalf("the same Put twice is not one Put: %v\n%s", err, d)
				}
				return once, nil
			},
			func(p *plain, now time.Time) fault.Kind { return p.put(v, value, labels, now) },
		}
	case "move":
		l, to, from := label.Draw(t, "label"), maybe.Draw(t, "to"), rapid.OneOf(rapid.Just(""), maybe).Draw(t, "from")
		return act{
			fmt.Sprintf("move %s to %q from %q", l, to, from),
			func(s Secret, now time.Time) (Secret, error) { return s.MoveStage(l, to, from, now) },
			func(p *plain, now time.Time) fault.Kind { return p.move(string(l), to, from, now) },
		}
	case "select":
		l, v := rapid.OneOf(rapid.Just(Stage("")), label).Draw(t, "label"), maybe.Draw(t, "version")
		var got string
		return act{
			fmt.Sprintf("select %q %q", l, v),
			func(s Secret, now time.Time) (Secret, error) {
				chosen, err := s.Select(l, v)
				got = chosen.ID
				return s, err
			},
			func(p *plain, now time.Time) fault.Kind {
				want, kind := p.selects(string(l), v)
				if kind == fault.OK && want != got {
					t.Fatalf("select %q %q = %q; want %q", l, v, got, want)
				}
				return kind
			},
		}
	case "list":
		deprecated := rapid.Bool().Draw(t, "deprecated")
		var got []string
		return act{
			fmt.Sprint("list ", deprecated),
			func(s Secret, now time.Time) (Secret, error) {
				for _, v := range s.List(deprecated) {
					got = append(got, v.ID)
				}
				return s, nil
			},
			func(p *plain, now time.Time) fault.Kind {
				var want []string
				for _, v := range slices.Backward(p.versions) {
					if deprecated || slices.ContainsFunc(p.labels, func(l [2]string) bool { return l[1] == v.id }) {
						want = append(want, v.id)
					}
				}
				if !slices.Equal(got, want) {
					t.Fatalf("list %v = %v; want %v", deprecated, got, want)
				}
				return fault.OK
			},
		}
	case "delete":
		window := time.Duration(rapid.IntRange(7, 30).Draw(t, "days")) * 24 * time.Hour
		return act{
			fmt.Sprint("delete in ", window),
			func(s Secret, now time.Time) (Secret, error) { return s.Delete(false, window, now) },
			func(p *plain, now time.Time) fault.Kind {
				if !p.planned.IsZero() {
					return fault.Deleting
				}
				p.planned = now.Add(window)
				return changed(p, now)
			},
		}
	case "restore":
		return act{
			"restore",
			func(s Secret, now time.Time) (Secret, error) { return s.Restore(now) },
			func(p *plain, now time.Time) fault.Kind {
				if p.planned.IsZero() {
					return fault.InUse
				}
				p.planned = time.Time{}
				if p.rotates && p.next.Before(now) {
					p.next = now
				}
				return changed(p, now)
			},
		}
	case "update":
		text, pairs := rapid.SampledFrom([]string{"", "one", "two"}).Draw(t, "description"),
			rapid.IntRange(-1, 11).Draw(t, "pairs")
		var custom map[string]string
		for i := range max(pairs, 0) {
			if custom == nil {
				custom = map[string]string{}
			}
			custom[fmt.Sprint("k", i)] = text
		}
		return act{
			fmt.Sprintf("update %q with %d pairs", text, len(custom)),
			func(s Secret, now time.Time) (Secret, error) { return s.UpdateMetadata(&text, custom, now) },
			func(p *plain, now time.Time) fault.Kind {
				switch {
				case !p.planned.IsZero():
					return fault.Deleting
				case custom != nil && (!p.managed || len(custom) > 10):
					return fault.Invalid
				case custom != nil:
					p.custom = custom
				}
				p.text = text
				return changed(p, now)
			},
		}
	case "policy":
		document := rapid.SampledFrom([]string{"{}", "other"}).Draw(t, "policy")
		return act{
			"policy " + document,
			func(s Secret, now time.Time) (Secret, error) { return s.SetPolicy(document, nil, now) },
			func(p *plain, now time.Time) fault.Kind {
				if !p.planned.IsZero() {
					return fault.Deleting
				}
				p.policy = document
				return changed(p, now)
			},
		}
	case "tag", "untag":
		return drawTag(t, op, changed)
	case "rotation":
		enable, interval := rapid.IntRange(0, 3).Draw(t, "disable") > 0,
			rapid.SampledFrom([]string{"", "", "", "", "", "6h", "7d", "365d", "5h", "366d", "x"}).Draw(t, "interval")
		return act{
			fmt.Sprintf("rotation %v %q", enable, interval),
			func(s Secret, now time.Time) (Secret, error) { return s.SetRotation(enable, interval, 0, now) },
			func(p *plain, now time.Time) fault.Kind { return p.rotation(enable, interval, now) },
		}
	}
	return act{
		"rotate",
		func(s Secret, now time.Time) (Secret, error) { return s, s.CheckRotate() },
		func(p *plain, now time.Time) fault.Kind {
			switch {
			case !p.managed:
				return fault.Unsupported
			case !p.planned.IsZero():
				return fault.Deleting
			}
			return fault.OK
		},
	}
}

func drawTag(t *rapid.T, op string, changed func(*plain, time.Time) fault.Kind) act {
	from, n := rapid.IntRange(0, 20).Draw(t, "first"), rapid.SampledFrom([]int{1, 2, 5, 10, 20, 21}).Draw(t, "tags")
	var tags []kms.Tag
	var keys []string
	for i := range n {
		keys = append(keys, fmt.Sprint("k", from+i))
		tags = append(tags, kms.Tag{TagKey: keys[i], TagValue: fmt.Sprint(n)})
	}
	if op == "untag" {
		all := rapid.IntRange(0, 3).Draw(t, "all") == 0
		return act{
			fmt.Sprint("untag ", keys, all),
			func(s Secret, now time.Time) (Secret, error) { return s.Untag(keys, all, now), nil },
			func(p *plain, now time.Time) fault.Kind {
				maps.DeleteFunc(p.tags, func(k, _ string) bool { return all || slices.Contains(keys, k) })
				return changed(p, now)
			},
		}
	}
	return act{
		fmt.Sprint("tag ", keys),
		func(s Secret, now time.Time) (Secret, error) { return s.Tag(tags, now) },
		func(p *plain, now time.Time) fault.Kind {
			for _, tag := range tags {
				p.tags[tag.TagKey] = tag.TagValue
			}
			if len(p.tags) > 20 {
				return fault.LimitExceeded
			}
			return changed(p, now)
		},
	}
}

// copy is a state that a refused call falls back to.
func (p *plain) copy() *plain {
	n := *p
	n.versions, n.labels, n.tags = slices.Clone(p.versions), slices.Clone(p.labels), maps.Clone(p.tags)
	return &n
}

// same says in what a secret differs from the reference.
func (p *plain) same(s Secret) string {
	labels := map[Stage]string{}
	for _, l := range p.labels {
		labels[Stage(l[0])] = l[1]
	}
	var versions []plainVersion
	for _, v := range slices.Backward(s.List(true)) {
		versions = append(versions, plainVersion{v.ID, v.Digest[0], v.CreatedAt})
	}
	tags := map[string]string{}
	maps.Copy(tags, s.Tags)
	diff := cmp.Diff(labels, s.Stages) + cmp.Diff(fmt.Sprint(p.versions), fmt.Sprint(versions)) + cmp.Diff(p.tags, tags) +
		cmp.Diff([]any{p.text, p.policy, p.created, p.updated, p.planned},
			[]any{s.Description, s.Policy, s.CreatedAt, s.UpdatedAt, s.DeleteAt}) +
		cmp.Diff([]any{p.rotates, p.interval, p.next}, []any{s.Rotation.Enabled, s.Rotation.Interval, s.Rotation.Next})
	if p.managed {
		var config struct{ CustomData map[string]string }
		if err := json.Unmarshal([]byte(s.ExtendedConfig), &config); err != nil {
			return diff + err.Error()
		}
		diff += cmp.Diff(p.custom, config.CustomData)
	}
	return diff
}

// TestHistories draws histories of every operation on a secret, Generic and managed, holds each
// outcome and the state that it leaves against the reference, and after each call what is promised
// of every secret: there is an ACSCurrent, a label is on one version that is there, a version never
// changes, what is evicted is the oldest without a label, and the value that a rule was given is
// untouched. The same Put twice is one Put: see drawAct.
func TestHistories(t *testing.T) {
	t.Parallel()
	kinds, evictions := map[fault.Kind]int{}, 0
	rapid.Check(t, func(t *rapid.T) {
		now := t0
		// Every other history of a Generic secret begins with nine versions more: from nothing it rarely
		// comes to limits.
		s, p := beginning(t, rapid.IntRange(0, 2).Draw(t, "managed") == 0)
		for range rapid.IntRange(10, 60).Draw(t, "calls") {
			now = now.Add(time.Duration(rapid.SampledFrom([]int{0, 0, 1, 3600, 86400}).Draw(t, "pause")) * time.Second)
			if s.Gone(now) != (!p.planned.IsZero() && !p.planned.After(now)) {
				t.Fatalf("gone: %v; planned %v, now %v", s.Gone(now), p.planned, now)
			}
			a := drawAct(t)
			before, wanted := s.clone(), p.copy()
			next, err := a.do(s, now)
			kind := wanted.ref(a, now)
			kinds[kind]++
			if fault.KindOf(err) != kind {
				t.Fatalf("%s ends with %v; want kind %d", a.name, err, kind)
			}
			if d := cmp.Diff(before, s); d != "" {
				t.Fatalf("%s changed the value that it was given:\n%s", a.name, d)
			}
			if err != nil {
				continue
			}
			if d := wanted.same(next); d != "" {
				t.Fatalf("after %s (-reference +secret):\n%s", a.name, d)
			}
			evictions += promised(t, a.name, before, next)
			s, p = next, wanted
		}
	})
	t.Logf("outcomes by kind %v, %d evictions", kinds, evictions)
	for _, kind := range []fault.Kind{fault.OK, fault.Invalid, fault.Missing, fault.NotFound, fault.Exists, fault.Deleting,
		fault.InUse, fault.LimitExceeded, fault.Unsupported} {
		if kinds[kind] == 0 {
			t.Errorf("no history has met kind %d: the generator is too tame", kind)
		}
	}
	if evictions == 0 {
		t.Error("no history has met an eviction: the generator is too tame")
	}
}

func (p *plain) ref(a act, now time.Time) fault.Kind { return a.ref(p, now) }

// beginning is a secret as CreateSecret makes it.
func beginning(t *rapid.T, isManaged bool) (Secret, *plain) {
	spec := Spec{Name: "app/db", Type: kms.TypeGeneric, DataType: kms.DataText}
	if isManaged {
		spec = Spec{
			Name: "rds/app", Type: kms.TypeRds, DataType: kms.DataText,
			Data:           value(`{"Accounts":[{"AccountName":"a","AccountPassword":"p"}]}`),
			ExtendedConfig: `{"SecretSubType":"SingleUser","DBInstanceId":"pg-main"}`,
		}
	}
	spec, err := spec.Check()
	if err != nil {
		t.Fatal(err)
	}
	s, err := New("1234567890123456", spec, Version{ID: "v1", Digest: Digest{1}}, t0)
	if err != nil {
		t.Fatal(err)
	}
	p := &plain{
		managed: isManaged, versions: []plainVersion{{"v1", 1, t0}}, labels: [][2]string{{"ACSCurrent", "v1"}},
		tags: map[string]string{}, custom: map[string]string{},
		created: t0, updated: t0,
	}
	if !rapid.Bool().Draw(t, "used") {
		return s, p
	}
	if isManaged { // it was rotated, as the engine leaves it
		p.last = t0.Add(time.Hour)
		s.Rotation.Last = p.last
		return s, p
	}
	for i := range MaxVersions - 1 {
		id := fmt.Sprint("x", i)
		if s, err = s.Put(Version{ID: id, Digest: Digest{1}}, nil, t0); err != nil || p.put(id, 1, nil, t0) != fault.OK {
			t.Fatal(err)
		}
	}
	return s, p
}

// promised holds the promises of the package from one state to the next, without the reference. It
// returns how many versions were evicted.
func promised(t *rapid.T, what string, before, after Secret) int {
	if _, ok := after.Versions[after.Stages[Current]]; !ok || !after.Sound() {
		t.Fatalf("after %s ACSCurrent names %q, which is not there", what, after.Stages[Current])
	}
	if len(after.Versions) > MaxVersions || len(after.Stages) > MaxStages {
		t.Fatalf("after %s there are %d versions, %d labels", what, len(after.Versions), len(after.Stages))
	}
	seen := 0
	for id := range after.Versions {
		seen += len(after.Labels(id))
		if old, ok := before.Versions[id]; ok && old != after.Versions[id] {
			t.Fatalf("%s changed version %s", what, id)
		}
	}
	if seen != len(after.Stages) {
		t.Fatalf("after %s %d labels are on versions; there are %d", what, seen, len(after.Stages))
	}
	evicted := 0
	for id, v := range before.Versions {
		if _, ok := after.Versions[id]; ok {
			continue
		}
		evicted++
		for other, w := range before.Versions {
			if w.Order < v.Order && len(after.Labels(other)) == 0 {
				t.Fatalf("%s evicted %s; %s is older and has no label", what, id, other)
			}
		}
		for stage, held := range after.Stages {
			if held == id {
				t.Fatalf("%s evicted %s, which has the label %s", what, id, stage)
			}
		}
	}
	if evicted > 1 || evicted == 1 && len(before.Versions) < MaxVersions {
		t.Fatalf("%s evicted %d of %d versions", what, evicted, len(before.Versions))
	}
	return evicted
}
