package store

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/cmk"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/users"
)

// stored are the types of records, each with a way to read one and write it again.
var stored = []func(t *testing.T, key string, data []byte){
	metaKind.reread, accountKind.reread, accessKeyKind.reread, masterKeyKind.reread, secretKind.reread, dueKind.reread,
	userKind.reread, groupKind.reread, policyKind.reread, documentKind.reread, keyUseKind.reread, groupRightsKind.reread,
	rotationKind.reread, targetKind.reread, eventKind.reread,
}

// fuzzed authenticates whatever the fuzzer makes, so that what comes after the tag is tested too.
var fuzzed = func() *DB {
	db := &DB{}
	db.Authenticate(TestTags{})
	return db
}()

func tagged(key string, content []byte) []byte {
	return append(append([]byte{recordFormat}, fuzzed.tag(TestTags{}, recordFormat, 0, key, content)...), content...)
}

// reread verifies that an accepted record is the one of its key, and is the same after it was written and
// read again.
func (k kind[T]) reread(t *testing.T, key string, content []byte) {
	t.Helper()
	got, err := k.decode(fuzzed, key, tagged(key, content))
	if err != nil {
		return
	}
	written, err := k.encode(fuzzed, key, got)
	if err != nil {
		if _, isTime := any(got).(time.Time); isTime {
			return // a year that JSON cannot have
		}
		t.Fatalf("%T was read and cannot be written: %v", got, err)
	}
	again, err := k.decode(fuzzed, key, written)
	if err != nil {
		t.Fatalf("%T is refused when it was written anew: %v\n%s", got, err, written)
	}
	rewritten, err := k.encode(fuzzed, key, again)
	if err != nil || string(rewritten) != string(written) {
		t.Fatalf("%T changes when it is read again, %v (-first +second):\n%s",
			got, err, cmp.Diff(string(written), string(rewritten)))
	}
	if s, ok := any(got).(secret.Secret); ok && (!s.Sound() || key != secretKind.key(in(s.Account, s.Name))) {
		t.Fatalf("an unsound secret was accepted under %q: %+v", key, s)
	}
}

func FuzzRecords(f *testing.F) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	event := Event{ID: "x", Time: now, NextAt: now}
	s := secret.Secret{
		Account: "1", Name: "app/db", Type: "Generic", Tags: map[string]string{"k": "v"}, CreatedAt: now, UpdatedAt: now,
		Versions: map[string]secret.Version{"v1": {ID: "v1", CreatedAt: now, Order: 1}},
		Stages:   map[secret.Stage]string{secret.Current: "v1"},
	}
	add := func(kind byte, key string, v any) {
		data, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(kind, key, data)
	}
	add(0, metaKind.key(""), Meta{Account: "1", RecordKey: []byte("x"), CreatedAt: now})
	add(1, accountKind.key("1"), Account{ID: "1", DefaultKeyID: "k"})
	principal := policy.Principal{Kind: policy.KindRAMUser, Account: "1", Name: "a"}
	add(2, accessKeyKind.key("k"), AccessKey{ID: "k", Principal: principal, Secret: []byte("x")})
	add(3, masterKeyKind.key("1/k"), cmk.Key{Account: "1", ID: "k", Versions: []cmk.Version{{ID: "v"}}})
	add(4, secretKind.key("1/app/db"), s)
	add(4, secretKind.key("1/app/other"), s)
	s.Stages = nil
	add(4, secretKind.key("1/app/db"), s)
	add(5, dueKind.key(duePath(now, "1", "a")), Due{Account: "1", Name: "a"})
	attached := []users.Attachment{{Type: "Custom", Name: "p", At: now}}
	add(6, userKind.key("1/a"), users.User{Account: "1", Name: "a", Keys: []users.Key{{ID: "k"}}, Policies: attached})
	add(7, groupKind.key("1/g"), users.Group{Account: "1", Name: "g", Members: 3})
	versions := []users.Version{{ID: "v1", Document: "{}"}}
	add(8, policyKind.key("1/p"), users.Policy{Account: "1", Type: users.Custom, Name: "p", Versions: versions})
	add(9, documentKind.key("1/p"), `{"Version":"1"}`)
	add(10, keyUseKind.key("k"), now)
	add(11, groupRightsKind.key("1/2"), users.GroupRights{Account: "1", ID: "2", Name: "g"})
	add(12, rotationKind.key("1/a"), rotation.Record{Account: "1", Secret: "a", State: rotation.InGrace, NextAt: now})
	config := json.RawMessage(`{"address":"h"}`)
	add(13, targetKind.key("1/t"), Target{Account: "1", Name: "t", Kind: "redis", Config: config})
	add(14, eventKind.key(eventPath(event)), event)
	f.Add(byte(4), "x", []byte(`{}`))
	f.Fuzz(func(t *testing.T, kind byte, key string, data []byte) {
		stored[int(kind)%len(stored)](t, key, data)
	})
}
