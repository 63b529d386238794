package api_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sign"
)

// watcher is a world whose consumers are noted.
func watcher(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.env.Consumers = api.NewConsumers(w.env.DB, w.env.Now, slog.New(slog.DiscardHandler))
	for _, name := range []string{"a", "b"} {
		w.must(t, "CreateSecret", "SecretName", name, "SecretData", "x", "VersionId", "v1")
	}
	return w
}

// by makes a call with an access key.
func (w *world) by(ctx context.Context, p policy.Principal, source, action string, params ...string) (any, error) {
	p.AccessKeyID = "key-of-" + p.ID
	r := protocol.Request{ID: "r", Principal: p}
	if source != "" {
		r.Source = netip.MustParseAddr(source)
	}
	for i := 0; i < len(params); i += 2 {
		r.Params = append(r.Params, sign.Param{Name: params[i], Value: params[i+1]})
	}
	return w.gate.Call(ctx, protocol.Named(action), r)
}

func (w *world) watch(t *testing.T, params ...string) []kms.SecretChange {
	t.Helper()
	out, err := w.by(t.Context(), rootPrincipal, "192.0.2.1", "WatchSecrets", params...)
	if err != nil {
		t.Fatal(err)
	}
	return out.(*kms.WatchSecretsResponse).Changes
}

// TestWatchTells: what differs from what the caller knows is answered at once, and nothing else.
func TestWatchTells(t *testing.T) {
	t.Parallel()
	w := watcher(t)
	first := w.watch(t, "Secret.1.SecretName", "a", "Secret.2.SecretName", "acs:kms:local:"+account+":secret/b",
		"Secret.3.SecretName", "none")
	if len(first) != 3 ||
		first[0].State != kms.StateCurrent ||
		first[0].VersionID != "v1" ||
		first[2].State != kms.StateAbsent ||
		!strings.HasSuffix(first[1].SecretName, ":secret/b") {
		t.Fatalf("first answer: %+v", first)
	}
	known := []string{
		"Secret.1.SecretName", "a", "Secret.1.Revision", first[0].Revision, "Secret.2.SecretName", "b", "Secret.2.Revision",
		first[1].Revision, "Secret.3.SecretName", "none", "Secret.3.Revision", first[2].Revision,
	}
	if got := w.watch(t, known...); len(got) != 0 {
		t.Errorf("nothing has changed, and the answer is %+v", got)
	}
	for _, step := range []struct {
		change []string
		want   kms.SecretChange
	}{
		{[]string{"PutSecretValue", "SecretName", "b", "SecretData", "y", "VersionId", "v2"}, kms.SecretChange{
			SecretName:        "b",
			State:             kms.StateCurrent,
			VersionID:         "v2",
			PreviousVersionID: "v1",
		}},
		{[]string{"CreateSecret", "SecretName", "none", "SecretData", "y", "VersionId", "w1"}, kms.SecretChange{
			SecretName: "none",
			State:      kms.StateCurrent,
			VersionID:  "w1",
		}},
		{[]string{"DeleteSecret", "SecretName", "a"}, kms.SecretChange{SecretName: "a", State: kms.StateAbsent}},
		{[]string{"RestoreSecret", "SecretName", "a"}, kms.SecretChange{
			SecretName: "a",
			State:      kms.StateCurrent,
			VersionID:  "v1",
		}},
		{[]string{"TagResource", "SecretName", "a", "Tags", `[{"TagKey":"k","TagValue":"v"}]`}, kms.SecretChange{}},
	} {
		w.must(t, step.change[0], step.change[1:]...)
		got := w.watch(t, known...)
		if step.want.SecretName == "" {
			if len(got) != 0 {
				t.Errorf("%v: %+v; want nothing", step.change, got)
			}
			continue
		}
		if len(got) != 1 {
			t.Fatalf("%v: %+v; want one change", step.change, got)
		}
		for i, p := range known {
			if p == step.want.SecretName && strings.HasSuffix(known[i-1], ".SecretName") {
				known[i+2] = got[0].Revision
			}
		}
		if got[0].Revision = ""; !reflect.DeepEqual(got[0], step.want) {
			t.Errorf("%v: %+v; want %+v", step.change, got[0], step.want)
		}
	}
}

// TestWatchJudges: a secret is shown to a caller who may read it, and denied to others whether or
// not it is there.
func TestWatchJudges(t *testing.T) {
	t.Parallel()
	w := watcher(t)
	w.user(t, bob)
	w.must(t, "SetSecretPolicy", "SecretName", "a",
		"Policy",
		`{"Version":"1","Statement":[{"Effect":"Allow","Action":"kms:GetSecretValue","Resource":"*",`+
			`"Principal":{"RAM":["acs:ram::`+account+`:user/bob"]}}]}`)
	out, err := w.by(t.Context(), bob, "192.0.2.1", "WatchSecrets", "Secret.1.SecretName", "a", "Secret.2.SecretName", "b",
		"Secret.3.SecretName", "none", "Secret.2.VersionId", "v1", "Consumer", "i")
	if err != nil {
		t.Fatal(err)
	}
	var states []string
	for _, c := range out.(*kms.WatchSecretsResponse).Changes {
		states = append(states, c.State)
		if c.State == kms.StateDenied && (c.VersionID != "" || c.PreviousVersionID != "") {
			t.Errorf("%+v reveals a secret that the caller may not read", c)
		}
	}
	if want := []string{kms.StateCurrent, kms.StateDenied, kms.StateDenied}; !reflect.DeepEqual(states, want) {
		t.Errorf("states = %v; want %v", states, want)
	}
	if list := w.consumers(t, "b"); len(list) != 0 {
		t.Errorf("who may not read a secret is noted as its consumer: %+v", list)
	}
}

// TestWatchWaits: a change wakes a waiting caller, and the end of the time, of the caller and of
// the server ends a wait.
func TestWatchWaits(t *testing.T) {
	t.Parallel()
	w := watcher(t)
	stopping := make(chan struct{})
	w.env.Stopping = stopping
	revision := w.watch(t, "Secret.1.SecretName", "a")[0].Revision
	waits := func(ctx context.Context) <-chan []kms.SecretChange {
		done := make(chan []kms.SecretChange, 1)
		before := w.env.DB.Following()
		go func() {
			out, err := w.by(ctx, rootPrincipal, "", "WatchSecrets", "Secret.1.SecretName", "a", "Secret.1.Revision", revision,
				"WaitSeconds", "50")
			if err != nil {
				t.Error(err)
			}
			r, _ := out.(*kms.WatchSecretsResponse)
			if r == nil {
				r = &kms.WatchSecretsResponse{}
			}
			done <- r.Changes
		}()
		until(t, func() bool { return w.env.DB.Following() > before })
		return done
	}
	done := waits(t.Context())
	w.must(t, "PutSecretValue", "SecretName", "b", "SecretData", "y", "VersionId", "v2") // another secret
	w.must(t, "PutSecretValue", "SecretName", "a", "SecretData", "y", "VersionId", "v2")
	if got := receive(t, done); len(got) != 1 || got[0].VersionID != "v2" {
		t.Errorf("woken with %+v", got)
	} else {
		revision = got[0].Revision
	}
	caller, hangUp := context.WithCancel(t.Context())
	done = waits(caller)
	hangUp()
	if got := receive(t, done); len(got) != 0 {
		t.Errorf("after hanging up: %+v", got)
	}
	done = waits(t.Context())
	close(stopping)
	if got := receive(t, done); len(got) != 0 {
		t.Errorf("at the stop: %+v", got)
	}
	until(t, func() bool { return w.env.DB.Following() == 0 })
	w.env.Stopping = nil
	start := time.Now()
	if got := w.watch(t, "Secret.1.SecretName", "a", "Secret.1.Revision", revision, "WaitSeconds", "1"); len(got) != 0 ||
		time.Since(start) < time.Second {
		t.Errorf("after %v: %+v; want nothing after a second", time.Since(start), got)
	}
}

func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came within 20 s")
		panic("unreachable")
	}
}

// until waits for a condition that another goroutine makes true.
func until(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("it did not come true within 20 s")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestWatchRefuses(t *testing.T) {
	t.Parallel()
	w := watcher(t)
	many := []string{}
	for i := range 501 {
		many = append(many, fmt.Sprintf("Secret.%d.SecretName", i+1), fmt.Sprint("s", i))
	}
	for _, tt := range []struct {
		kind   fault.Kind
		text   string
		params []string
	}{
		{fault.Missing, "", nil},
		{fault.Invalid, "500", many},
		{fault.Invalid, "50", []string{"Secret.1.SecretName", "a", "WaitSeconds", "51"}},
		{fault.Invalid, "tem 1: a secret name", []string{"Secret.1.SecretName", "a:b"}},
		{fault.Invalid, "tem 1: a version", []string{"Secret.1.SecretName", "a", "Secret.1.OldestVersionId", "v:1"}},
		{fault.Missing, "which instance", []string{"Secret.1.SecretName", "a", "Leaving", "true"}},
		{
			fault.Invalid, "he name in the ARN",
			[]string{"Secret.1.SecretName", "a", "Secret.2.SecretName", "acs:kms:local:" + account + ":secret/a b"},
		},
	} {
		_, err := w.by(t.Context(), rootPrincipal, "", "WatchSecrets", tt.params...)
		if fault.KindOf(err) != tt.kind || err == nil || !strings.Contains(protocol.CodeFor(err).Message, tt.text) {
			t.Errorf("%.80v: %v; want kind %v and %q", tt.params, err, tt.kind, tt.text)
		}
	}
}

func (w *world) consumers(t *testing.T, name string, params ...string) []kms.SecretConsumer {
	t.Helper()
	out := w.must(t, "ListSecretConsumers",
		append([]string{"SecretName", name}, params...)...).(*kms.ListSecretConsumersResponse)
	return out.Consumers
}

// TestConsumers: who uses which version is known from what instances say, and from the reads of
// others.
func TestConsumers(t *testing.T) {
	t.Parallel()
	w := watcher(t)
	say := func(instance, version, oldest string, more ...string) {
		t.Helper()
		w.watch(t,
			append(
				[]string{
					"Secret.1.SecretName", "a", "Secret.1.VersionId", version, "Secret.1.OldestVersionId", oldest, "Consumer",
					instance,
				}, more...)...)
	}
	read := func(p policy.Principal, source string, params ...string) {
		t.Helper()
		if _, err := w.by(t.Context(), p, source, "GetSecretValue",
			append([]string{"SecretName", "a"}, params...)...); err != nil {
			t.Fatal(err)
		}
	}
	read(rootPrincipal, "192.0.2.7")
	read(rootPrincipal, "192.0.2.7", "Consumer", "app-1")
	say("app-1", "v1", "")
	say("app-2", "v1", "v1")
	w.must(t, "PutSecretValue", "SecretName", "a", "SecretData", "y", "VersionId", "v2")
	say("app-2", "v2", "v1")
	read(rootPrincipal, "192.0.2.8")
	read(rootPrincipal, "192.0.2.9", "VersionStage", "ACSPrevious") // looks, and uses nothing
	read(rootPrincipal, "192.0.2.9", "Consumer", "app-1")           // what app-1 says of itself counts
	if _, err := w.by(t.Context(), rootPrincipal, "192.0.2.10", "GetSecretValue", "SecretName", "a", "DryRun",
		"true"); fault.KindOf(err) != fault.DryRunOK {
		t.Fatal(err)
	}
	w.now = w.now.Add(time.Second)
	got := map[string]string{}
	for _, c := range w.consumers(t, "a") {
		got[c.Consumer+c.Source] = fmt.Sprintf("%s %s %s %t", c.VersionID, c.OldestVersionID, c.Evidence, c.Behind)
		if c.Principal != "acs:ram::"+account+":root" || c.LastSeen.IsZero() {
			t.Errorf("%+v: principal or time is missing", c)
		}
	}
	want := map[string]string{
		"192.0.2.7": "v1 v1 inferred true", "192.0.2.8": "v2 v2 inferred false",
		"app-1192.0.2.7": "v1 v1 acknowledged true", "app-2192.0.2.1": "v2 v1 acknowledged true",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("consumers = %v; want %v", got, want)
	}
	say("app-1", "v2", "")
	say("app-2", "v2", "v1", "Leaving", "true")
	if behind := w.consumers(t, "a", "Behind", "true"); len(behind) != 1 || behind[0].Source != "192.0.2.7" {
		t.Errorf("behind = %+v; want the reader from 192.0.2.7 alone", behind)
	}
	w.must(t, "DeleteSecret", "SecretName", "a", "ForceDeleteWithoutRecovery", "true")
	w.must(t, "CreateSecret", "SecretName", "a", "SecretData", "z", "VersionId", "v1")
	if left := w.consumers(t, "a"); len(left) != 0 {
		t.Errorf("the consumers of a secret that was deleted: %+v", left)
	}
}

// TestConsumersPaged: the pages of the list are the list.
func TestConsumersPaged(t *testing.T) {
	t.Parallel()
	w := watcher(t)
	for i := range 7 {
		w.watch(t, "Secret.1.SecretName", "a", "Secret.1.VersionId", "v1", "Consumer", fmt.Sprint("app-", i))
	}
	seen, token, pages := map[string]bool{}, "", 0
	for {
		out := w.must(t, "ListSecretConsumers", "SecretName", "a", "MaxResults", "3",
			"NextToken", token).(*kms.ListSecretConsumersResponse)
		for _, c := range out.Consumers {
			seen[c.Consumer] = true
		}
		pages++
		if token = out.NextToken; token == "" {
			break
		}
	}
	if len(seen) != 7 || pages != 3 {
		t.Errorf("%d consumers on %d pages; want 7 on 3", len(seen), pages)
	}
	if _, err := w.call(t, rootPrincipal, "ListSecretConsumers", "SecretName", "a",
		"NextToken", "?"); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a token of no list: %v", err)
	}
}

// TestConsumersBounded: one access key cannot fill the store with instances.
func TestConsumersBounded(t *testing.T) {
	t.Parallel()
	w := watcher(t)
	w.env.Consumers.Most = 40
	for i := range 60 {
		if _, err := w.by(t.Context(), rootPrincipal, "", "WatchSecrets", "Secret.1.SecretName", "a", "Secret.1.VersionId",
			"v1", "Consumer", fmt.Sprint("app-", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.env.Consumers.Sync(t.Context(), account, "a"); err != nil {
		t.Fatal(err)
	}
	if list := w.consumers(t, "a"); len(list) != 40 {
		t.Errorf("%d consumers of one secret; want the bound, 40", len(list))
	}
}

// TestConsumersOfTwoKeys verifies that a key that may read a secret cannot use up the places of its
// consumers.
func TestConsumersOfTwoKeys(t *testing.T) {
	t.Parallel()
	w := watcher(t)
	w.user(t, bob, "AliyunKMSFullAccess")
	w.env.Consumers.Most = 40
	say := func(p policy.Principal, instance string) {
		t.Helper()
		if _, err := w.by(t.Context(), p, "", "WatchSecrets", "Secret.1.SecretName", "a", "Secret.1.VersionId", "v1",
			"Consumer", instance); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 60 {
		say(bob, fmt.Sprint("flood-", i))
	}
	for i := range 30 {
		say(rootPrincipal, fmt.Sprint("app-", i))
	}
	found := 0
	for _, c := range w.consumers(t, "a", "MaxResults", "100") {
		if strings.HasPrefix(c.Consumer, "app-") {
			found++
		}
	}
	if found != 20 {
		t.Errorf("%d of 30 consumers are noted, want the half of 40 that is the key's share", found)
	}
}

// TestLeavingNeedsARight reports with a key without rights that instances leave, and verifies
// that the reports and reads of other consumers are still recorded.
func TestLeavingNeedsARight(t *testing.T) {
	t.Parallel()
	w := watcher(t)
	w.user(t, bob)
	var params []string
	for i := range 250 {
		params = append(params, fmt.Sprintf("Secret.%d.SecretName", i+1), fmt.Sprint("name-", i))
	}
	for i := range 420 { // 105,000 names: more than wait to be written
		call := append(params[:len(params):len(params)], "Leaving", "true", "Consumer", fmt.Sprint("instance-", i))
		if _, err := w.by(t.Context(), bob, "", "WatchSecrets", call...); err != nil {
			t.Fatal(err)
		}
	}
	w.watch(t, "Secret.1.SecretName", "a", "Secret.1.VersionId", "v1", "Consumer", "app")
	if _, err := w.by(t.Context(), rootPrincipal, "192.0.2.7", "GetSecretValue", "SecretName", "a"); err != nil {
		t.Fatal(err)
	}
	if list := w.consumers(t, "a"); len(list) != 2 {
		t.Errorf("consumers %+v; want the instance and the reader", list)
	}
}

// TestLeavingWithoutARightIsNotNoted verifies that what a key says of instances that end takes no
// room unless the key may read the secret.
func TestLeavingWithoutARightIsNotNoted(t *testing.T) {
	t.Parallel()
	w := watcher(t)
	w.user(t, bob)
	leave := func(p policy.Principal) {
		t.Helper()
		call := []string{"Secret.1.SecretName", "a", "Secret.2.SecretName", "absent", "Leaving", "true", "Consumer", "app"}
		if _, err := w.by(t.Context(), p, "", "WatchSecrets", call...); err != nil {
			t.Fatal(err)
		}
	}
	leave(bob)
	if n := w.env.Consumers.Waiting(); n != 0 {
		t.Errorf("%d notes of a key without rights; want none", n)
	}
	leave(rootPrincipal)
	if n := w.env.Consumers.Waiting(); n != 2 {
		t.Errorf("%d notes of a key that may read one secret; want that it left, to write and to remember", n)
	}
}

// written are the consumers of a secret in the store, by name and address.
func (w *world) written(t *testing.T, name string) map[string]rotation.Sighting {
	t.Helper()
	found := map[string]rotation.Sighting{}
	err := store.Snapshot(t.Context(), w.env.DB).Consumers(account, name, "", func(_ string, c rotation.Sighting) bool {
		found[c.Instance+c.Source] = c
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestConsumersCoalesced: a thousand reads are written once, a version that is new at once, and
// only the time not before five minutes have passed.
func TestConsumersCoalesced(t *testing.T) {
	t.Parallel()
	w := watcher(t)
	read := func() {
		t.Helper()
		if _, err := w.by(t.Context(), rootPrincipal, "192.0.2.1", "GetSecretValue", "SecretName", "a"); err != nil {
			t.Fatal(err)
		}
	}
	sync := func() time.Time {
		t.Helper()
		if err := w.env.Consumers.Sync(t.Context(), account, "a"); err != nil {
			t.Fatal(err)
		}
		return w.written(t, "a")["192.0.2.1"].Seen
	}
	begin := w.now
	for range 1000 {
		read()
	}
	if at := sync(); !at.Equal(begin) {
		t.Errorf("seen at %v; want %v", at, begin)
	}
	w.now = begin.Add(4 * time.Minute)
	read()
	if at := sync(); !at.Equal(begin) {
		t.Errorf("written again after 4 minutes: %v", at)
	}
	w.now = begin.Add(5 * time.Minute)
	read()
	if at := sync(); !at.Equal(w.now) {
		t.Errorf("not written again after 5 minutes: %v", at)
	}
	w.must(t, "PutSecretValue", "SecretName", "a", "SecretData", "y", "VersionId", "v2")
	w.now = w.now.Add(time.Second)
	read()
	if at := sync(); !at.Equal(w.now) || w.written(t, "a")["192.0.2.1"].Version != "v2" {
		t.Errorf("a new version was not written: %v, %+v", at, w.written(t, "a"))
	}
}

// TestConsumersOfTwoNodes: of what two nodes have noted of a consumer, the later stands, whichever
// is written last; and both write automatically while they run.
func TestConsumersOfTwoNodes(t *testing.T) {
	t.Parallel()
	w := watcher(t)
	early, late := w.env.Consumers, api.NewConsumers(w.env.DB, w.env.Now, slog.New(slog.DiscardHandler))
	say := func(at *api.Consumers, version string) {
		t.Helper()
		w.env.Consumers = at
		w.watch(t, "Secret.1.SecretName", "a", "Secret.1.VersionId", version, "Consumer", "app-1")
	}
	say(early, "v1")
	w.now = w.now.Add(time.Second)
	say(late, "v2")
	for _, k := range []*api.Consumers{late, early} {
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); k.Run(ctx) }()
		if k == late {
			until(t, func() bool { return w.written(t, "a")["app-1192.0.2.1"].Version == "v2" })
		}
		stop()
		<-done // which writes what is left
		if got := w.written(t, "a")["app-1192.0.2.1"]; got.Version != "v2" {
			t.Errorf("the store says %+v; want the version said last", got)
		}
	}
}

// TestWatchSpellings: a secret may be watched by its name and by its ARN at once, and what an ARN
// of elsewhere names is absent.
func TestWatchSpellings(t *testing.T) {
	t.Parallel()
	w := watcher(t)
	arn := "acs:kms:local:" + account + ":secret/a"
	items := []string{
		"Secret.1.SecretName", "a", "Secret.2.SecretName", arn, "Secret.3.SecretName",
		"acs:kms:elsewhere:" + account + ":secret/a",
	}
	first := w.watch(t, items...)
	if len(first) != 3 || first[0].Revision != first[1].Revision || first[2].State != kms.StateAbsent {
		t.Fatalf("first answer: %+v", first)
	}
	for i, c := range first {
		items = append(items, fmt.Sprintf("Secret.%d.Revision", i+1), c.Revision)
	}
	done := make(chan []kms.SecretChange, 1)
	go func() {
		out, err := w.by(context.WithoutCancel(t.Context()), rootPrincipal, "", "WatchSecrets",
			append(items, "WaitSeconds", "20")...)
		if err != nil {
			t.Error(err)
			out = &kms.WatchSecretsResponse{}
		}
		done <- out.(*kms.WatchSecretsResponse).Changes
	}()
	until(t, func() bool { return w.env.DB.Following() == 1 })
	w.must(t, "PutSecretValue", "SecretName", "a", "SecretData", "y", "VersionId", "v2")
	if got := receive(t, done); len(got) != 2 || got[0].SecretName != "a" || got[1].SecretName != arn {
		t.Errorf("woken with %+v; want both spellings", got)
	}
}

// TestConsumersThatLeft: what an instance said before it left, and what it has hung up on, does not
// bring it back; what it says later under its name does.
func TestConsumersThatLeft(t *testing.T) {
	t.Parallel()
	w := watcher(t)
	say := func(ctx context.Context, more ...string) {
		t.Helper()
		_, err := w.by(ctx, rootPrincipal, "", "WatchSecrets",
			append([]string{"Secret.1.SecretName", "a", "Secret.1.VersionId", "v1", "Consumer", "app-1"}, more...)...)
		if err != nil {
			t.Fatal(err)
		}
	}
	say(t.Context())
	if list := w.consumers(t, "a"); len(list) != 1 {
		t.Fatalf("consumers = %+v; want one", list)
	}
	say(t.Context(), "Leaving", "true")
	say(t.Context()) // at the same time by the clock: it was on its way
	w.now = w.now.Add(time.Second)
	hungUp, hangUp := context.WithCancel(t.Context())
	hangUp()
	say(hungUp)
	if list := w.consumers(t, "a"); len(list) != 0 {
		t.Errorf("after it has left: %+v", list)
	}
	say(t.Context())
	if list := w.consumers(t, "a"); len(list) != 1 {
		t.Errorf("after it has come back: %+v; want one", list)
	}
}
