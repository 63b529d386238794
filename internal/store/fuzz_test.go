package store

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/cmk"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/users"
)

// fuzzed authenticates whatever the fuzzer makes, so that the checks that follow it are tested too.
var fuzzed = func() *DB {
	db := &DB{}
	db.Authenticate(TestTags{})
	return db
}()

func tagged(key string, content []byte) []byte {
	return append(append([]byte{recordFormat}, fuzzed.tag(TestTags{}, recordFormat, 0, key, content)...), content...)
}

// reread verifies that an accepted record is the one of its key, and is the same after it was
// written and read again.
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

// zero returns a key of the type's zero record, and that record as it is stored.
func (k kind[T]) zero() (key string, content []byte) {
	var v T
	key = k.prefix
	if k.path != nil {
		key = k.key(k.path(v))
	}
	if k.timed {
		key = k.key(stamp(time.Unix(0, 0)) + "/" + k.path(v))
	}
	content, err := json.Marshal(v)
	if err != nil {
		panic(err) // a type that JSON cannot have cannot be stored
	}
	return key, content
}

// fuzzable is each type of record but sealed values, whose content is not JSON.
type fuzzable interface {
	zero() (key string, content []byte)
	reread(t *testing.T, key string, content []byte)
}

// FuzzRecords reads records of every type in the table: kind selects the type, and path is the rest
// of the key.
func FuzzRecords(f *testing.F) {
	seed := func(kind int, key string, content []byte) {
		f.Add(byte(kind), strings.TrimPrefix(key, kinds[kind].declared().prefix), content)
	}
	for i, k := range kinds {
		if k, ok := k.(fuzzable); ok {
			key, content := k.zero()
			seed(i, key, content)
			seed(i, key+"x", content)
		}
	}
	add := func(key string, v any) {
		content, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		seed(slices.Index(Kinds(), firstPart(key)), key, content)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	s := secret.Secret{
		Account:   "1",
		Name:      "app/db",
		Type:      "Generic",
		Tags:      map[string]string{"k": "v"},
		CreatedAt: now,
		UpdatedAt: now,
		Versions:  map[string]secret.Version{"v1": {ID: "v1", CreatedAt: now, Order: 1}},
		Stages:    map[secret.Stage]string{secret.Current: "v1"},
	}
	add(secretKind.key("1/app/db"), s)
	add(secretKind.key("1/app/other"), s)
	s.Stages = nil // unsound: a secret has a current version
	add(secretKind.key("1/app/db"), s)
	add(metaKind.key(""), Meta{Account: "1", RecordKey: []byte("x"), CreatedAt: now})
	principal := policy.Principal{Kind: policy.KindRAMUser, Account: "1", Name: "a"}
	add(accessKeyKind.key("k"), AccessKey{ID: "k", Principal: principal, Secret: []byte("x")})
	add(masterKeyKind.key("1/k"), cmk.Key{Account: "1", ID: "k", Versions: []cmk.Version{{ID: "v"}}})
	add(dueKind.key(duePath(now, "1", "a")), Due{Account: "1", Name: "a"})
	attached := []users.Attachment{{Type: "Custom", Name: "p", At: now}}
	add(userKind.key("1/a"), users.User{Account: "1", Name: "a", Keys: []users.Key{{ID: "k"}}, Policies: attached})
	versions := []users.Version{{ID: "v1", Document: "{}"}}
	add(policyKind.key("1/p"), users.Policy{Account: "1", Type: users.Custom, Name: "p", Versions: versions})
	add(documentKind.key("1/p"), `{"Version":"1"}`)
	add(keyUseKind.key("k"), now)
	add(rotationKind.key("1/a"), rotation.Record{Account: "1", Secret: "a", State: rotation.InGrace, NextAt: now})
	config := json.RawMessage(`{"address":"h"}`)
	add(targetKind.key("1/t"), Target{Account: "1", Name: "t", Kind: "redis", Config: config})
	event := Event{ID: "x", Time: now, NextAt: now}
	add(eventKind.key(eventPath(event)), event)
	f.Fuzz(func(t *testing.T, kind byte, path string, content []byte) {
		k := kinds[int(kind)%len(kinds)]
		if f, ok := k.(fuzzable); ok {
			f.reread(t, k.declared().prefix+path, content)
		}
	})
}
