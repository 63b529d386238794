// Package upgrade_test opens what older releases have written: store, audit trail and the
// consumer's cache of last known values. testdata has an archive for each release whose formats
// differ, made by TestGenerate with that release. Everything in it is made up.
package upgrade_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/postgresql"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/support"
)

// archives calls f with each archive, unpacked.
func archives(t *testing.T, f func(t *testing.T, dir string, m manifest)) {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.tar.gz")
	if err != nil || len(paths) == 0 {
		t.Fatalf("archives: %v, %v", paths, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".tar.gz"), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := unpack(path, dir); err != nil {
				t.Fatal(err)
			}
			original(t, filepath.Join(dir, "data", "store-mark.json"))
			text, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
			if err != nil {
				t.Fatal(err)
			}
			var m manifest
			if err := json.Unmarshal(text, &m); err != nil {
				t.Fatal(err)
			}
			f(t, dir, m)
		})
	}
}

// original makes the mark of a store say that this directory is no copy. The server would probe
// every credential otherwise.
func original(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var mark map[string]any
	if err := json.Unmarshal(text, &mark); err != nil {
		t.Fatal(err)
	}
	delete(mark, "file")
	if text, err = json.Marshal(mark); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// clock goes on from the time at which an archive was written: nothing that it plans has come.
func (m manifest) clock() func() time.Time {
	began := time.Now()
	return func() time.Time { return m.At.Add(time.Minute + time.Since(began)) }
}

// different are the answers that this release gives on purpose otherwise than the one that wrote
// the archive: by caller, action and parameters, the new code, or empty for success.
var different = map[string]string{
	// The policy names a user who was deleted. The old release gave the next user of that name the
	// same rights.
	"carol GetSecretValue SecretName app/stolen": kms.CodeNoPermission,
}

// unread are members that are not compared, by action, each with the reason.
var unread = map[string]string{
	"ListSecretConsumers Consumers":                    "a consumer's record ends with a lease of the store",
	"ListRotations Rotations.Rotation.NextAttemptTime": "a rotation that is under way goes on, see moving",
	"ListRotations Rotations.Rotation.State":           "likewise",
	"ListRotations Rotations.Rotation.Reason":          "likewise",
	"ListRotations Rotations.Rotation.FailingSince":    "likewise",
	"DescribeRotation Steps.Step.Event":                "an event has a token; rotation.Record reads the former text",
	"DescribeRotation Paused":                          "the pause of all counts, which the old release did not show",
	"ListRotations Rotations.Rotation.Paused":          "likewise",
	"DescribeTarget Paused":                            "likewise",
	"ListTargets Targets.Target.Paused":                "likewise",
}

// moving is the secret whose rotation goes on when the server starts, and what changes of it then.
const moving = "root DescribeRotation SecretName db/single"

var moved = []string{
	"State", "Attempt", "NextAttemptTime", "FailingSince", "Steps", "Reason", "Advice", "RepairActions",
}

// TestStore verifies that this release opens a store of an older one, answers every read as that
// one did, goes on writing, and that the audit trail verifies from its first record to its last.
func TestStore(t *testing.T) {
	t.Parallel()
	archives(t, func(t *testing.T, dir string, m manifest) {
		data, now := filepath.Join(dir, "data"), m.clock()
		s, clients := open(t, data, m, now)
		m.compare(t, clients)
		write(t, clients["root"])
		claimed(t, clients["root"])
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		report, err := audit.Verify(filepath.Join(data, "audit"))
		if err != nil || report.Records <= m.Records {
			t.Errorf("the trail has %d records, %v; the old release wrote %d", report.Records, err, m.Records)
		}
		// Once more: what this release has written into the store opens too.
		s = keyturntest.Start(t, keyturntest.WithDataDir(data), keyturntest.WithTime(now))
		got, err := s.Client.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: "app/text"})
		if err != nil || got.VersionID != "new" {
			t.Errorf("after a second start: %+v, %v", got, err)
		}
	})
}

// TestOfflineDoesNotUpgrade verifies that a command on the store of a stopped server refuses the
// store of an older release and changes nothing of it: only the server takes the way back away.
func TestOfflineDoesNotUpgrade(t *testing.T) {
	t.Parallel()
	archives(t, func(t *testing.T, dir string, m manifest) {
		data, now := filepath.Join(dir, "data"), m.clock()
		config := server.Config{DataDir: data, ListenHTTP: "127.0.0.1:0", Now: now}
		list := func() error {
			return server.WithOffline(t.Context(), config, func(o *server.Offline) error {
				_, err := o.ListAccessKeys(t.Context(), &ram.ListAccessKeysRequest{})
				return err
			})
		}
		for range 2 { // the first must not have upgraded it
			if err := list(); !errors.Is(err, store.ErrNotUpgraded) {
				t.Errorf("the error is %v, want ErrNotUpgraded", err)
			}
		}
		s, clients := open(t, data, m, now)
		m.compare(t, clients)
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := list(); err != nil {
			t.Errorf("after the server has upgraded it: %v", err)
		}
	})
}

// open starts this release on an old store, and returns a client for each of its access keys.
func open(t *testing.T, data string, m manifest, now func() time.Time) (*keyturntest.Server, map[string]*kms.Client) {
	t.Helper()
	s := keyturntest.Start(t, keyturntest.WithDataDir(data),
		keyturntest.WithTime(now), server.Change(func(c *server.Config) {
			c.Kinds = []target.Kind{postgresql.Kind()}
		}))
	clients := map[string]*kms.Client{}
	for who, key := range m.Keys {
		c, err := kms.NewClient(kms.Config{
			Endpoint:    "http://" + s.HTTPEndpoint,
			Credentials: key.credentials(),
			Now:         now,
			MaxAttempts: 1,
		})
		if err != nil {
			t.Fatal(err)
		}
		clients[who] = c
	}
	return s, clients
}

// compare asks what the old release was asked, and wants the same answers.
func (m manifest) compare(t *testing.T, clients map[string]*kms.Client) {
	t.Helper()
	list, err := clients["root"].ListRotations(t.Context(), &kms.ListRotationsRequest{})
	if err != nil || len(list.Pauses) != 1 || list.Pauses[0] != (kms.RotationPause{Scope: kms.PausedAll}) {
		t.Errorf("the pause of the old release: %+v, %v", list.Pauses, err)
	}
	for _, r := range m.Reads {
		name := r.Who + " " + r.Action + " " + strings.Join(r.Params, " ")
		answer, code := ask(t.Context(), clients[r.Who], r)
		if want, ok := different[name]; ok {
			if code != want {
				t.Errorf("%s: code %q; want %q", name, code, want)
			}
			continue
		}
		if code != r.Code {
			t.Errorf("%s: code %q; the old release answered %q", name, code, r.Code)
			continue
		}
		if members, ok := r.Answer.(map[string]any); ok && name == moving {
			for _, member := range moved {
				delete(members, member)
			}
		}
		for _, d := range missing(r.Action, "", r.Answer, answer) {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// TestRotateRootKey verifies that the root key, the key of the records and the master keys of an
// older release's store can be rotated: afterwards every read is answered as that release did.
func TestRotateRootKey(t *testing.T) {
	t.Parallel()
	archives(t, func(t *testing.T, dir string, m manifest) {
		data, now := filepath.Join(dir, "data"), m.clock()
		s, clients := open(t, data, m, now)
		if _, err := clients["root"].RotateRootKey(t.Context(), &kms.RotateRootKeyRequest{
			ReencryptValues: true,
		}); err != nil {
			t.Fatal(err)
		}
		support.Retry(t, func() error {
			out, err := clients["root"].DescribeRootKey(t.Context(), &kms.DescribeRootKeyRequest{})
			if err == nil && (out.RotationState != kms.RootKeyIdle || out.RecordKeyGeneration != 1) {
				err = fmt.Errorf("the rotation does not end: %+v", out)
			}
			return err
		})
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		_, clients = open(t, data, m, now)
		m.compare(t, clients)
	})
}

// write changes what the old release has stored.
func write(t *testing.T, c *kms.Client) {
	t.Helper()
	for _, r := range []read{
		{Action: "PutSecretValue", Params: []string{"SecretName", "app/text", "VersionId", "new", "SecretData", "fourth"}},
		{Action: "UpdateSecret", Params: []string{"SecretName", "db/single", "Description", "changed"}},
		{Action: "SetSecretPolicy", Params: []string{"SecretName", "app/granted", "PolicyName", "default", "Policy",
			`{"Version":"1","Statement":[{"Effect":"Allow","Principal":{"RAM":["acs:ram::ACCOUNT:*"]},` +
				`"Action":["kms:*"],"Resource":["*"]}]}`}},
		{Action: "UpdateTarget", Params: []string{"TargetName", "db", "Description", "changed"}},
		{Action: "RestoreSecret", Params: []string{"SecretName", "app/leaving"}},
	} {
		id, _ := ask(t.Context(), c, read{Version: kms.STSVersion, Action: "GetCallerIdentity"})
		account, _ := id.(map[string]any)["AccountId"].(string)
		for i := range r.Params {
			r.Params[i] = strings.ReplaceAll(r.Params[i], "ACCOUNT", account)
		}
		if _, code := ask(t.Context(), c, r); code != "" {
			t.Errorf("%s %v: %s", r.Action, r.Params, code)
		}
	}
}

// claimed verifies that an account which a secret of the old release rotates cannot be given to
// another secret.
func claimed(t *testing.T, c *kms.Client) {
	t.Helper()
	for account, want := range map[string]string{"five": kms.CodeResourceExist, "six": ""} {
		value := sensitive.New(`{"username":"` + account + `","password":"p"}`)
		_, err := c.CreateSecret(t.Context(), &kms.CreateSecretRequest{
			SecretName: account,
			VersionID:  "v1",
			SecretData: value,
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.ConfigureRotation(t.Context(), &kms.ConfigureRotationRequest{SecretName: account, TargetName: "db"})
		if got := kms.CodeOf(err); got != want {
			t.Errorf("a second secret for the account %s: %v; want the code %q", account, err, want)
		}
	}
}

// missing returns what an old answer has and a new one lacks. The new one may have more members.
func missing(action, path string, before, now any) (list []string) {
	if unread[action+" "+path] != "" {
		return nil
	}
	switch b := before.(type) {
	case map[string]any:
		n, ok := now.(map[string]any)
		if !ok {
			return []string{fmt.Sprintf("%s is %v; want an object", path, now)}
		}
		for name, v := range b {
			list = append(list, missing(action, strings.TrimPrefix(path+"."+name, "."), v, n[name])...)
		}
		return list
	case []any:
		n, ok := now.([]any)
		if !ok || len(n) != len(b) {
			return []string{fmt.Sprintf("%s is %v; want %d elements", path, now, len(b))}
		}
		for i := range b {
			list = append(list, missing(action, path, b[i], n[i])...)
		}
		return list
	}
	if !reflect.DeepEqual(before, now) {
		return []string{fmt.Sprintf("%s is %v; want %v", path, now, before)}
	}
	return nil
}

// away is a network on which no server answers.
type away struct{}

func (away) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("the server is away")
}

// TestLastGood verifies that a consumer of this release starts with the last known values that an
// older one has stored.
func TestLastGood(t *testing.T) {
	t.Parallel()
	archives(t, func(t *testing.T, dir string, m manifest) {
		client, err := kms.NewClient(kms.Config{
			Endpoint:    m.Endpoint,
			Credentials: m.Keys["root"].credentials(),
			MaxAttempts: 1,
			HTTPClient:  &http.Client{Transport: away{}},
		})
		if err != nil {
			t.Fatal(err)
		}
		c, err := consumer.New(t.Context(), consumer.Config{
			Client: client, Logger: slog.New(slog.DiscardHandler),
			LastGood: &consumer.LastGood{
				Dir: filepath.Join(dir, "last-good"),
				Key: consumer.KeyFile(filepath.Join(dir, "last-good.key")),
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), support.Patience)
		defer cancel()
		if len(m.LastGood) == 0 {
			t.Error("the archive has no last known values")
		}
		for name, want := range m.LastGood {
			v, err := c.Get(ctx, name)
			if err != nil || v.Value().Reveal() != want {
				t.Errorf("%s: %v, or another value than the old release has stored", name, err)
			}
		}
	})
}
