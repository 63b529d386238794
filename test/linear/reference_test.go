// Package linear_test holds a real server against a reference model of the secret operations: one
// client at a time, every answer; many clients at once, every history.
package linear_test

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
	"github.com/keyturn/keyturn/test/linear/model"
)

// TestMain asks for fewer histories than rapid draws by default: the rest of the suite wants the
// machine too. The flag -rapid.checks asks for more.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "45"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// clock is a time that a test moves; it has whole seconds, as the wire has.
type clock struct{ unix atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.unix.Store(time.Now().Unix())
	return c
}

func (c *clock) Now() time.Time { return time.Unix(c.unix.Load(), 0).UTC() }

func (c *clock) Add(d time.Duration) { c.unix.Add(int64(d / time.Second)) }

// connect returns a client that sends each call once.
func connect(t *testing.T, endpoint string, credentials sign.Credentials, now func() time.Time) *kms.Client {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	t.Cleanup(transport.CloseIdleConnections)
	c, err := kms.NewClient(kms.Config{
		Endpoint: "http://" + endpoint, Credentials: credentials, MaxAttempts: 1, Now: now,
		HTTPClient: &http.Client{Transport: transport, Timeout: 20 * time.Second},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// step is one step of a random history: a call, or time that passes.
type step struct {
	op   model.Op
	wait time.Duration
}

// few makes choices that meet often, and some that no server should take.
var (
	few      = rapid.Map(rapid.IntRange(1, 24), func(n int) string { return fmt.Sprint("v", n) })
	versions = rapid.OneOf(few, few, few, few, few, few, few, few, few, rapid.SampledFrom([]string{
		"", "none", "v 1", "vé", strings.Repeat("v", 64), strings.Repeat("v", 65),
	}))
	known  = rapid.SampledFrom([]string{"ACSCurrent", "ACSPrevious", "a", "b", "c", "d", "e", "f", "g", "A0"})
	labels = rapid.OneOf(known, known, known, known, known, known, known, known, known, rapid.SampledFrom([]string{
		"", "a b", "acscurrent", strings.Repeat("l", 65),
	}))
	values = rapid.OneOf(
		rapid.SampledFrom([]string{"one", "two", "three"}), rapid.SampledFrom([]string{"one", "two", "three"}),
		rapid.SampledFrom([]string{
			"",
			"\x00\x01",
			"é中\u2028",
			strings.Repeat("x", 30720),
			strings.Repeat("x", 30721),
			strings.Repeat("é", 15361),
			" a=b&c+d%20 ",
		}),
	)
	types   = rapid.SampledFrom([]string{"", "", "", "", "text", "binary", "binary", "json"})
	windows = rapid.SampledFrom([]int{0, 7, 30, 6, 31, -1})
	kinds   = rapid.SampledFrom([]model.Kind{
		model.Create, model.Put, model.Put, model.Put, model.Put, model.Put, model.Put, model.Put, model.Put, model.Put,
		model.Put, model.Put, model.Move, model.Move, model.Move,
		model.Get, model.Get, model.Describe, model.List, model.Delete, model.Delete, model.Restore, model.Restore,
		model.Update, model.Tag, model.Tag, model.Untag, model.SetPolicy, model.GetPolicy, model.Rotate, model.SetRotation,
	})
	policies = rapid.SampledFrom([]string{policy(""), policy("app"), policy("other"), "", "{}", "[]", "no JSON"})
)

const account = "1234567890123456"

// policy is a policy of a secret that denies something to a user, which leaves the account's root
// as it was.
func policy(user string) string {
	deny := ""
	if user != "" {
		deny = `,{"Effect":"Deny","Principal":{"RAM":["acs:ram::` + account + `:user/` + user +
			`"]},"Action":["kms:Get*"],"Resource":["*"]}`
	}
	return `{"Version":"1","Statement":[{"Effect":"Allow","Principal":{"RAM":["acs:ram::` + account +
		`:*"]},"Action":["kms:*"],"Resource":["*"]}` + deny + `]}`
}

// drawTags draws n tags, keys and values in turns, or keys alone.
func drawTags(t *rapid.T, values bool) (list []string) {
	first, n := rapid.IntRange(0, 10).Draw(t, "first"), rapid.SampledFrom([]int{1, 2, 8, 15, 21}).Draw(t, "tags")
	for i := range n {
		list = append(list, fmt.Sprint("k", first+i))
		if values {
			list = append(list, fmt.Sprint(n))
		}
	}
	return list
}

func drawStep(names []string) *rapid.Generator[step] {
	return rapid.Custom(func(t *rapid.T) step {
		o := model.Op{Kind: kinds.Draw(t, "operation"), Name: rapid.SampledFrom(names).Draw(t, "name")}
		switch o.Kind {
		case model.Create:
			o.Description = rapid.SampledFrom([]string{
				"", "text", "text", strings.Repeat("é", 8192), strings.Repeat("é", 8193),
			}).Draw(t, "description")
			fallthrough
		case model.Put:
			o.Version, o.Data, o.DataType = versions.Draw(t, "version"), values.Draw(t, "value"), types.Draw(t, "type")
			if o.Kind == model.Put {
				o.Labels = rapid.SliceOfN(labels, 0, 3).Draw(t, "labels")
			}
		case model.Move:
			o.Label = labels.Draw(t, "label")
			o.To = rapid.OneOf(few, versions, rapid.Just("")).Draw(t, "to")
			o.From = rapid.OneOf(rapid.Just(""), few, versions).Draw(t, "from")
		case model.Get:
			o.Version = rapid.OneOf(rapid.Just(""), versions).Draw(t, "version")
			o.Label = rapid.OneOf(rapid.Just(""), labels).Draw(t, "label")
		case model.List:
			o.Deprecated = rapid.Bool().Draw(t, "deprecated")
			o.Page = rapid.IntRange(-1, 4).Draw(t, "page")
			o.Size = rapid.SampledFrom([]int{0, 1, 3, 100, 101}).Draw(t, "size")
		case model.Update:
			o.Description = rapid.SampledFrom([]string{
				"", "other", strings.Repeat("é", 8192), strings.Repeat("é", 8193),
			}).Draw(t, "description")
		case model.Tag, model.Untag:
			o.Tags = drawTags(t, o.Kind == model.Tag)
		case model.SetPolicy:
			o.Policy = policies.Draw(t, "policy")
		case model.Rotate:
			o.Version = versions.Draw(t, "version")
		case model.Delete:
			o.Force, o.Window = rapid.IntRange(0, 3).Draw(t, "force") == 0, windows.Draw(t, "window")
		}
		wait := rapid.SampledFrom([]time.Duration{
			0, 0, 0, 0, 0, 0, time.Second, time.Minute, time.Hour, 7*24*time.Hour - time.Hour, 7 * 24 * time.Hour,
		}).Draw(t, "wait")
		return step{o, wait}
	})
}

// drawBeginning makes a secret with up to 16 versions, because a history that begins from nothing
// rarely comes to limits.
func drawBeginning(t *rapid.T, name string) []step {
	steps := []step{{op: model.Op{Kind: model.Create, Name: name, Version: "v1", Data: "one"}}}
	for i := range rapid.IntRange(0, 15).Draw(t, "beginning") {
		l := rapid.SliceOfN(rapid.SampledFrom([]string{
			"ACSCurrent", "a", "b", "c", "d", "e", "f", "g", "A0",
		}), 0, 3).Draw(t, "labels")
		steps = append(steps, step{
			op: model.Op{Kind: model.Put, Name: name, Version: fmt.Sprint("v", i+2), Data: "two", Labels: l},
		})
	}
	return steps
}

// TestReference draws histories and holds every answer against the model's. A failure prints the
// smallest history that shows it and the seed to draw it again.
func TestReference(t *testing.T) {
	t.Parallel()
	now := newClock()
	admin := sign.Credentials{AccessKeyID: "KTreference", AccessKeySecret: sensitive.New("dummy-for-the-reference")}
	s := keyturntest.Start(t, keyturntest.WithTime(now.Now), keyturntest.WithAdmin(account, admin))
	for _, name := range []string{"app", "other"} { // whom the policies name
		if _, err := ram.New(s.Client).CreateUser(t.Context(), &ram.CreateUserRequest{UserName: name}); err != nil {
			t.Fatal(err)
		}
	}
	c := connect(t, s.HTTPEndpoint, s.Credentials, now.Now)
	var histories, calls, evicted int
	codes := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		histories++
		names := []string{fmt.Sprintf("history/%d/a", histories), fmt.Sprintf("history/%d/b", histories)}
		steps := append(drawBeginning(rt, names[0]), rapid.SliceOfN(drawStep(names), 20, 40).Draw(rt, "history")...)
		state := map[string]*model.Secret{}
		expect := func(o model.Op) {
			rt.Helper()
			got, _, known, err := model.Send(t.Context(), c, o)
			if known != model.Answered {
				rt.Fatalf("%v: no answer: %v", o, err)
			}
			next, want := state[o.Name].Apply(o, now.Now())
			if o.Kind == model.Put && len(state[o.Name].Versions()) == 10 && len(next.Versions()) == 10 &&
				state[o.Name] != next {
				evicted++
			}
			state[o.Name] = next
			calls++
			codes[want.Code]++
			if d := cmp.Diff(want, got); d != "" {
				rt.Fatalf("%v answers otherwise than the reference (-reference +server):\n%s", o, d)
			}
			if o.Kind == model.List && o.Deprecated && got.Code == "" && got.Total == len(got.Rows) {
				if err := consistent(got.Rows); err != nil {
					rt.Fatalf("after %v: %v", o, err)
				}
			}
		}
		for _, st := range steps {
			now.Add(st.wait)
			expect(st.op)
			if st.op.Changes() {
				look := model.Op{Kind: model.List, Name: st.op.Name, Deprecated: true}
				if st.op.Kind != model.Create && st.op.Kind != model.Put && st.op.Kind != model.Move {
					look = model.Op{Kind: model.Describe, Name: st.op.Name}
				}
				expect(look)
			}
		}
		if err := listed(t.Context(), c, fmt.Sprintf("history/%d/", histories), state, now.Now()); err != nil {
			rt.Fatal(err)
		}
		for _, name := range names {
			expect(model.Op{Kind: model.Describe, Name: name})
			expect(model.Op{Kind: model.GetPolicy, Name: name})
			if state[name].Waits() {
				expect(model.Op{Kind: model.Restore, Name: name})
			}
			for _, id := range state[name].Versions() {
				expect(model.Op{Kind: model.Get, Name: name, Version: id})
			}
			expect(model.Op{Kind: model.Delete, Name: name, Force: true})
		}
	})
	t.Logf("%d histories, %d calls compared, %d versions evicted; codes %v", histories, calls, evicted, codes)
	if evicted == 0 {
		t.Error("no history has met an eviction: the generator is too tame")
	}
	for _, code := range []string{
		"", kms.CodeMissingParameter, kms.CodeInvalidParameter, kms.CodeResourceNotFound, kms.CodeResourceExist,
		kms.CodeResourceInDeleteWindow, kms.CodeResourceInUse, kms.CodeLimitExceeded, kms.CodeUnsupportedOperation,
	} {
		if codes[code] == 0 {
			t.Errorf("no history has met the code %q: the generator is too tame", code)
		}
	}
}

// listed verifies that ListSecrets and ListTagResources show the secrets and tags of a history, and
// no others.
func listed(ctx context.Context, c *kms.Client, prefix string, state map[string]*model.Secret, now time.Time) error {
	all, err := c.ListSecrets(ctx, &kms.ListSecretsRequest{
		Filters:   []kms.Filter{{Key: "SecretName", Values: []string{prefix}}},
		FetchTags: true,
	})
	if err != nil {
		return err
	}
	var got, want []string
	for _, s := range all.SecretList {
		for _, t := range *s.Tags {
			got = append(got, s.SecretName+" "+t.TagKey+"="+t.TagValue)
		}
		got = append(got, s.SecretName)
	}
	for name, s := range state {
		s, reply := s.Apply(model.Op{Kind: model.Describe, Name: name}, now)
		if s == nil {
			continue
		}
		want = append(want, name)
		for _, t := range reply.Tags {
			want = append(want, name+" "+t)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		return fmt.Errorf("ListSecrets shows otherwise than the reference (-reference +server):\n%s", d)
	}
	if len(want) == 0 {
		return nil
	}
	return tagsListed(ctx, c, want)
}

// tagsListed holds the tags of ListTagResources against those that are wanted, "name key=value".
func tagsListed(ctx context.Context, c *kms.Client, want []string) error {
	var names, got []string
	tags := slices.DeleteFunc(slices.Clone(want), func(s string) bool { return !strings.Contains(s, " ") })
	for _, s := range want {
		if !strings.Contains(s, " ") {
			names = append(names, s)
		}
	}
	out, err := c.ListTagResources(ctx, &kms.ListTagResourcesRequest{
		RegionID:     "local",
		ResourceType: kms.ResourceSecret,
		ResourceIDs:  names,
	})
	if err != nil {
		return err
	}
	for _, t := range out.TagResources {
		got = append(got, t.ResourceID+" "+t.TagKey+"="+t.TagValue)
	}
	slices.Sort(got)
	if !slices.Equal(got, tags) {
		return fmt.Errorf("ListTagResources shows %v; the reference has %v", got, tags)
	}
	return nil
}

// consistent holds what is true of every secret at any time: a label is on one version,
// ACSCurrent is on one exactly, and there are at most ten versions.
func consistent(rows []model.Row) error {
	holders := map[string]string{}
	for _, r := range rows {
		for _, l := range r.Labels {
			if other, ok := holders[l]; ok {
				return fmt.Errorf("the label %s is on %s and on %s", l, other, r.Version)
			}
			holders[l] = r.Version
		}
	}
	switch {
	case holders[kms.StageCurrent] == "":
		return fmt.Errorf("no version has ACSCurrent: %v", rows)
	case len(rows) > 10 || len(holders) > 8:
		return fmt.Errorf("%d versions, %d labels", len(rows), len(holders))
	case slices.ContainsFunc(rows, func(r model.Row) bool { return r.Version == "" }):
		return fmt.Errorf("a version without an ID: %v", rows)
	}
	return nil
}
