package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// furnished fills a server with secrets and a user, and returns a check that all of it can be used.
func furnished(t *testing.T, s *keyturntest.Server) (check func(t *testing.T, s *keyturntest.Server)) {
	t.Helper()
	for i := range 40 {
		create(t, s, fmt.Sprint("app/", i), fmt.Sprint("value ", i))
	}
	users := ram.New(s.Client)
	if _, err := users.CreateUser(t.Context(), &ram.CreateUserRequest{UserName: "app"}); err != nil {
		t.Fatal(err)
	}
	made, err := users.CreateAccessKey(t.Context(), &ram.CreateAccessKeyRequest{UserName: "app"})
	if err != nil {
		t.Fatal(err)
	}
	credentials := sign.Credentials{AccessKeyID: made.AccessKey.AccessKeyID,
		AccessKeySecret: made.AccessKey.AccessKeySecret}
	return func(t *testing.T, s *keyturntest.Server) {
		t.Helper()
		for i := range 40 {
			got, err := s.Client.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: fmt.Sprint("app/", i)})
			if err != nil || got.SecretData.Reveal() != fmt.Sprint("value ", i) {
				t.Fatalf("secret %d: %v", i, err)
			}
		}
		// The same value again is recognized by its digest, another is refused.
		if _, err := s.Client.PutSecretValue(t.Context(), &kms.PutSecretValueRequest{
			SecretName: "app/1",
			VersionID:  "v1",
			SecretData: sensitive.New("value 1"),
		}); err != nil {
			t.Errorf("the same value again: %v", err)
		}
		client, err := kms.NewClient(kms.Config{
			Endpoint:    "http://" + s.HTTPEndpoint,
			Credentials: credentials,
			MaxAttempts: 1,
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.GetCallerIdentity(t.Context(), &kms.GetCallerIdentityRequest{}); err != nil {
			t.Errorf("the key of a user: %v", err)
		}
	}
}

func rotateRoot(t *testing.T, s *keyturntest.Server) *kms.RootKeyResponse {
	t.Helper()
	out, err := s.Client.RotateRootKey(t.Context(), &kms.RotateRootKeyRequest{ReencryptValues: true, Force: true})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// settled waits for the end of a rotation, and for the former key to be out of the file.
func settled(t *testing.T, s *keyturntest.Server, file string) {
	t.Helper()
	waitFor(t, "the end of the rotation", func() bool {
		out, err := s.Client.DescribeRootKey(t.Context(), &kms.DescribeRootKeyRequest{})
		return err == nil && out.RotationState == kms.RootKeyIdle && len(rootKeys(t, file)) == 1
	})
}

// TestRightsOnEverythingReplaceNoKeyOfTheServer verifies that a user with all rights on
// everything, of a policy of the service or one of the operator's, performs no operation on the
// server itself: a statement must name its resource. A user who has such a statement rotates the
// root key once an hour at most, and cannot force more.
func TestRightsOnEverythingReplaceNoKeyOfTheServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := keyturntest.Start(t, keyturntest.WithDataDir(dir))
	key, ca := filepath.Join(dir, "root.key"), filepath.Join(dir, "tls", "ca.pem")
	before := rootKeys(t, key)
	certificates, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	check := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	users := ram.New(s.Client)
	with := func(name, system, document string) *kms.Client {
		check(users.CreateUser(ctx, &ram.CreateUserRequest{UserName: name}))
		attached := &ram.UserPolicyRequest{UserName: name, PolicyName: system, PolicyType: ram.TypeSystem}
		if system == "" {
			attached.PolicyName, attached.PolicyType = name, ram.TypeCustom
			check(users.CreatePolicy(ctx, &ram.CreatePolicyRequest{PolicyName: name, PolicyDocument: document}))
		}
		check(users.AttachPolicyToUser(ctx, attached))
		made, err := users.CreateAccessKey(ctx, &ram.CreateAccessKeyRequest{UserName: name})
		check(made, err)
		c, err := kms.NewClient(kms.Config{Endpoint: s.Endpoint, RootCAs: s.RootCAs, MaxAttempts: 1,
			Credentials: sign.Credentials{
				AccessKeyID: made.AccessKey.AccessKeyID, AccessKeySecret: made.AccessKey.AccessKeySecret,
			}})
		check(c, err)
		return c
	}
	for name, c := range map[string]*kms.Client{
		"administrator": with("administrator", "AdministratorAccess", ""),
		"full":          with("full", "AliyunKMSFullAccess", ""),
		"everything": with("everything", "",
			`{"Version":"1","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`),
		"patterns": with("patterns", "", `{"Version":"1","Statement":[{"Effect":"Allow","Action":["kms:Rotate*"],
			"Resource":["acs:kms:*:*:*","acs:kms:*:*:root*","acs:kms:*:*:rootke?","acs:kms:*:*:local*"]}]}`),
	} {
		for _, o := range protocol.Operations() {
			if !o.ByName {
				continue
			}
			_, err := c.Do(ctx, kms.Call{Action: o.Name, Version: o.Version})
			if kms.CodeOf(err) != kms.CodeNoPermission {
				t.Errorf("%s: %s: %v, want a refusal", name, o.Name, err)
			}
		}
		out, err := users.SimulatePolicy(ctx, &ram.SimulatePolicyRequest{UserName: name, Operation: "RotateRootKey"})
		if err != nil || out.Allowed || !out.ByName {
			t.Errorf("%s: the simulation says %+v, %v", name, out, err)
		}
	}
	if now, err := os.ReadFile(ca); err != nil ||
		!bytes.Equal(now, certificates) ||
		!slices.Equal(rootKeys(t, key), before) {
		t.Errorf("a key of the server was replaced: %v", err)
	}
	keeper := with("keeper", "",
		`{"Version":"1","Statement":[{"Effect":"Allow","Action":"kms:*","Resource":"acs:kms:*:*:rootkey"}]}`)
	rotate := func(c *kms.Client, force bool) error {
		_, err := c.RotateRootKey(ctx, &kms.RotateRootKeyRequest{Force: force})
		if err == nil {
			settled(t, s, key)
		}
		return err
	}
	check(nil, rotate(keeper, false))
	if err := rotate(keeper, false); kms.CodeOf(err) != kms.CodeResourceInUse {
		t.Errorf("again within the hour: %v", err)
	}
	if err := rotate(keeper, true); kms.CodeOf(err) != kms.CodeInvalidParameter {
		t.Errorf("forced by a user: %v", err)
	}
	if err := rotate(s.Client, false); kms.CodeOf(err) != kms.CodeResourceInUse {
		t.Errorf("again within the hour, by the root account: %v", err)
	}
	check(nil, rotate(s.Client, true))
}

// TestRootKeyInterval verifies when the root key may be rotated again.
func TestRootKeyInterval(t *testing.T) {
	t.Parallel()
	last := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		last  time.Time
		after time.Duration
		force bool
		may   bool
	}{
		{time.Time{}, 0, false, true},
		{last, 0, false, false},
		{last, api.RootKeyInterval - time.Second, false, false},
		{last, api.RootKeyInterval - time.Second, true, true},
		{last, api.RootKeyInterval, false, true},
		{last, -time.Hour, false, true}, // the clock was set back
	} {
		if err := server.MayRotate(store.Meta{RotatedAt: tt.last}, tt.force, last.Add(tt.after)); (err == nil) != tt.may {
			t.Errorf("%+v: %v", tt, err)
		}
	}
	if err := server.MayRotate(store.Meta{Rotation: &store.KeyRotation{}}, true, last); err == nil {
		t.Error("a rotation begins while another is under way")
	}
}

// TestOperationsOnTheServerAreNamed verifies that an operation that changes something other than
// secrets, targets and what the user service has is marked as one on the server itself.
func TestOperationsOnTheServerAreNamed(t *testing.T) {
	t.Parallel()
	marked := 0
	for _, o := range protocol.Operations() {
		resource, _, _ := strings.Cut(o.Resource, "/")
		first := strings.Fields(strings.ReplaceAll(resource, ",", " "))[0]
		known := slices.Contains([]string{"secret", "target", "key", "each", "user", "group", "policy"}, first)
		if o.Mutates && !known && !o.ByName {
			t.Errorf("%s changes %q, and a right on everything includes it", o.Name, o.Resource)
		}
		if o.ByName {
			marked++
		}
	}
	if marked < 2 {
		t.Errorf("%d operations are marked", marked)
	}
}

func rootKeys(t *testing.T, file string) []string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(data))
}

// TestRotateRootKey replaces the root key twice. Each time, what is stored opens with the new one
// alone, and no longer with the one before.
func TestRotateRootKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "root.key")
	s := keyturntest.Start(t, keyturntest.WithDataDir(dir))
	check := furnished(t, s)
	before := rootKeys(t, file)[0]
	for round := range 2 {
		was, err := s.Client.DescribeRootKey(t.Context(), &kms.DescribeRootKeyRequest{})
		if err != nil || was.RecordKeyGeneration != round {
			t.Fatalf("before round %d: %+v, %v", round, was, err)
		}
		out := rotateRoot(t, s)
		if out.RootKeyID == was.RootKeyID || out.RootKeyID == "" || out.RecordKeyGeneration != round+1 {
			t.Errorf("round %d: %+v after %+v", round, out, was)
		}
		settled(t, s, file)
		check(t, s)
	}
	create(t, s, "after", "value")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	after := rootKeys(t, file)
	if len(after) != 1 || after[0] == before {
		t.Errorf("%d keys in the file, want one that is new", len(after))
	}
	s = keyturntest.Start(t, keyturntest.WithDataDir(dir))
	check(t, s)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(t.TempDir(), "old.key")
	if err := os.WriteFile(old, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := server.New(t.Context(), server.Config{
		DataDir:    dir,
		ListenHTTP: "127.0.0.1:0",
		RootKey:    root.File{Path: old},
	})
	if err == nil || !strings.Contains(err.Error(), "is needed") {
		t.Errorf("with the former root key: %v, want a refusal", err)
	}
	if log := trail(t, dir); !strings.Contains(log, `"operation":"RotateRootKey"`) {
		t.Error("the trail does not have the rotation")
	}
}

// TestConflictsEndATurn verifies that a turn of the rotation makes a bounded number of passes over
// a store whose records keep changing, with pauses between them, and that other turns end.
func TestConflictsEndATurn(t *testing.T) {
	t.Parallel()
	conflict := store.Rewritten{Conflicts: 1}
	for _, tt := range []struct {
		name    string
		results []store.Rewritten // of the passes; the last one repeats
		passes  int
		damaged int
		fails   bool
		pauses  bool
	}{
		{"conflicts in every pass", []store.Rewritten{conflict}, server.MaxPasses, 0, true, true},
		{"changes in every pass", []store.Rewritten{{Changed: 1, Damaged: 1}}, server.MaxPasses, 0, true, false},
		{"one conflict", []store.Rewritten{conflict, {}}, 2, 0, false, true},
		{"all at once", []store.Rewritten{{Changed: 9}, {}}, 2, 0, false, false},
		{"damaged records", []store.Rewritten{{Changed: 9, Damaged: 2}, {Damaged: 2}}, 2, 2, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start, passes := time.Now(), 0
				damaged, err := server.RewriteAll(t.Context(), func(context.Context) (store.Rewritten, error) {
					if passes++; passes > 100 {
						return store.Rewritten{}, errors.New("more than 100 passes")
					}
					return tt.results[min(passes, len(tt.results))-1], nil
				})
				if passes != tt.passes || damaged != tt.damaged || (err != nil) != tt.fails {
					t.Errorf("%d passes, %d damaged, %v", passes, damaged, err)
				}
				if waited := time.Since(start); (waited > 0) != tt.pauses || waited > 5*time.Second {
					t.Errorf("the passes took %v", waited)
				}
			})
		})
	}
}

var errCut = errors.New("cut off")

// TestRotateRootKeyCutOff ends the process after each step of a rotation, and starts again.
func TestRotateRootKeyCutOff(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"kept", "switched", "rewritten", "finished"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := filepath.Join(dir, "root.key")
			var cut atomic.Bool
			reached := make(chan struct{})
			hook := func(c *server.Config) {
				c.KeyStep = func(at string) error {
					if at == step && cut.CompareAndSwap(false, true) {
						close(reached)
					}
					if cut.Load() {
						return errCut
					}
					return nil
				}
			}
			s := keyturntest.Start(t, keyturntest.WithDataDir(dir), server.Change(hook))
			check := furnished(t, s)
			_, err := s.Client.RotateRootKey(t.Context(), &kms.RotateRootKeyRequest{ReencryptValues: true})
			if failed := step == "kept" || step == "switched"; (err != nil) != failed {
				t.Fatalf("RotateRootKey: %v", err)
			}
			<-reached
			if err := s.Stop(); err != nil {
				t.Fatal(err)
			}
			if n := len(rootKeys(t, file)); n != 2 {
				t.Errorf("%d root keys in the file while the rotation is under way, want 2", n)
			}
			s = keyturntest.Start(t, keyturntest.WithDataDir(dir))
			check(t, s)
			if step == "kept" {
				was, err := s.Client.DescribeRootKey(t.Context(), &kms.DescribeRootKeyRequest{})
				if err != nil || was.NextRootKeyID == "" {
					t.Fatalf("the key that was kept is not seen: %+v, %v", was, err)
				}
				if out := rotateRoot(t, s); out.RootKeyID != was.NextRootKeyID {
					t.Errorf("another key was made although one was kept: %+v", out)
				}
			}
			settled(t, s, file)
			check(t, s)
			if err := s.Stop(); err != nil {
				t.Fatal(err)
			}
			check(t, keyturntest.Start(t, keyturntest.WithDataDir(dir)))
		})
	}
}

// TestRotateRootKeyAtWork rotates again and again while clients write values, make access keys and
// switch them off. No call fails for another reason than that it is to be tried again, and nothing
// that was acknowledged is lost.
func TestRotateRootKeyAtWork(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "root.key")
	s := keyturntest.Start(t, keyturntest.WithDataDir(dir))
	check := furnished(t, s)
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	var last [4]int
	for w := range last {
		name := fmt.Sprint("work/", w)
		create(t, s, name, "v0")
		users := ram.New(s.Client)
		if _, err := users.CreateUser(t.Context(), &ram.CreateUserRequest{UserName: fmt.Sprint("worker", w)}); err != nil {
			t.Fatal(err)
		}
		writers.Go(func() {
			for i := 1; ctx.Err() == nil; i++ {
				id := fmt.Sprint("w", i)
				if _, err := s.Client.PutSecretValue(t.Context(), &kms.PutSecretValueRequest{
					SecretName: name,
					VersionID:  id,
					SecretData: sensitive.New(id),
				}); err != nil {
					t.Errorf("PutSecretValue: %v", err)
					return
				}
				last[w] = i
				key, err := users.CreateAccessKey(t.Context(), &ram.CreateAccessKeyRequest{UserName: fmt.Sprint("worker", w)})
				if kms.CodeOf(err) == kms.CodeUnavailable {
					continue // the root key was replaced between wrapping and writing
				}
				if err != nil {
					t.Errorf("CreateAccessKey: %v", err)
					return
				}
				id = key.AccessKey.AccessKeyID
				_, off := users.UpdateAccessKey(t.Context(), &ram.UpdateAccessKeyRequest{
					UserName:        fmt.Sprint("worker", w),
					UserAccessKeyID: id,
					Status:          ram.KeyInactive,
				})
				_, gone := users.DeleteAccessKey(t.Context(),
					&ram.AccessKeyRequest{UserName: fmt.Sprint("worker", w), UserAccessKeyID: id})
				if err := errors.Join(off, gone); err != nil {
					t.Errorf("switch off and delete: %v", err)
					return
				}
			}
		})
	}
	for range 5 {
		rotateRoot(t, s)
		settled(t, s, file)
	}
	stop()
	writers.Wait()
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	s = keyturntest.Start(t, keyturntest.WithDataDir(dir))
	check(t, s)
	for w, i := range last {
		got, err := s.Client.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: fmt.Sprint("work/", w)})
		if err != nil || got.SecretData.Reveal() != fmt.Sprint("w", i) {
			t.Errorf("writer %d: %+v, %v; want w%d", w, got, err, i)
		}
	}
	t.Logf("%v versions were written during 5 rotations", last)
}

// TestRotateRootKeyOfCluster has two nodes with a root key file each on one etcd cluster.
func TestRotateRootKeyOfCluster(t *testing.T) {
	t.Parallel()
	endpoint := startEtcd(t)
	shared := rootKey(t)
	text, err := os.ReadFile(shared.Path)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	var nodes []*node
	for range 2 {
		path := filepath.Join(t.TempDir(), "root.key")
		if err := os.WriteFile(path, append(bytes.Clone(text), '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := startNode(t, server.Config{
			DataDir:    t.TempDir(),
			ListenHTTP: "127.0.0.1:0",
			RootKey:    root.File{Path: path},
			Etcd:       server.Etcd{Endpoints: []string{endpoint}, Prefix: "mine/"},
		})
		if err != nil {
			t.Fatal(err)
		}
		files, nodes = append(files, path), append(nodes, n)
	}
	admin, _ := nodes[0].Admin()
	for _, n := range nodes {
		n.connect(t, signCredentials(admin))
	}
	put := func(n *node, name string) {
		t.Helper()
		if _, err := n.client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
			SecretName: name,
			VersionID:  "v1",
			SecretData: sensitive.New(name),
		}); err != nil {
			t.Fatal(err)
		}
	}
	put(nodes[0], "before")
	if _, err := nodes[0].client.RotateRootKey(t.Context(),
		&kms.RotateRootKeyRequest{}); kms.CodeOf(err) != kms.CodeResourceInUse {
		t.Fatalf("without a key that every node has: %v", err)
	}
	next, err := root.Generate("test")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		ring, err := root.File{Path: path}.Load(false)
		if err != nil {
			t.Fatal(err)
		}
		if err := (root.File{Path: path}).Keep(append(ring.Keys(), next)); err != nil {
			t.Fatal(err)
		}
	}
	out, err := nodes[0].client.RotateRootKey(t.Context(), &kms.RotateRootKeyRequest{})
	if err != nil || out.RootKeyID != next.ID() {
		t.Fatalf("RotateRootKey: %+v, %v", out, err)
	}
	put(nodes[1], "by-the-other-node")
	waitFor(t, "the end of the rotation", func() bool {
		out, err := nodes[1].client.DescribeRootKey(t.Context(), &kms.DescribeRootKeyRequest{})
		return err == nil && out.RotationState == kms.RootKeyIdle && out.RootKeyID == next.ID()
	})
	put(nodes[1], "after")
	put(nodes[0], "after-too")
	for i, n := range nodes {
		for _, name := range []string{"before", "by-the-other-node", "after", "after-too"} {
			if got, err := n.client.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: name}); err != nil ||
				got.SecretData.Reveal() != name {
				t.Errorf("node %d: %q: %v", i, name, err)
			}
		}
	}
}
