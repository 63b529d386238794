package server_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// TestRightsCountOnEveryNode gives and takes rights at one node of three, and asks the others at
// once.
func TestRightsCountOnEveryNode(t *testing.T) {
	t.Parallel()
	names := []string{"a", "b", "c"}
	peers := map[string]string{}
	for _, name := range names {
		peers[name] = "http://" + freeAddress(t)
	}
	key := rootKey(t)
	dirs := []string{t.TempDir(), t.TempDir(), t.TempDir()}
	nodes, errs := make([]*node, 3), make([]error, 3)
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			nodes[i], errs[i] = startNode(t, server.Config{
				DataDir:    dirs[i],
				ListenHTTP: "127.0.0.1:0",
				RootKey:    key,
				NoSync:     true,
				Cluster:    &store.Cluster{Name: name, Peers: peers},
			})
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	var root sign.Credentials
	for _, n := range nodes {
		if admin, first := n.Admin(); first {
			root = signCredentials(admin)
		}
	}
	admins := make([]*ram.Client, 3)
	for i, n := range nodes {
		n.connect(t, root)
		admins[i] = ram.New(n.client)
	}
	ctx := t.Context()
	check := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(nodes[0].client.CreateSecret(ctx, &kms.CreateSecretRequest{
		SecretName: "app",
		VersionID:  "v1",
		SecretData: sensitive.New("x"),
	}))
	check(admins[0].CreateUser(ctx, &ram.CreateUserRequest{UserName: "alice"}))
	made, err := admins[0].CreateAccessKey(ctx, &ram.CreateAccessKeyRequest{UserName: "alice"})
	check(made, err)
	for _, n := range nodes {
		n.connect(t,
			sign.Credentials{AccessKeyID: made.AccessKey.AccessKeyID, AccessKeySecret: made.AccessKey.AccessKeySecret})
	}
	expect := func(what, code string) {
		t.Helper()
		for i, n := range nodes {
			_, err := n.client.GetSecretValue(ctx, &kms.GetSecretValueRequest{SecretName: "app"})
			if kms.CodeOf(err) != code || code == "" && err != nil {
				t.Fatalf("%s, node %s: %v; want code %q", what, names[i], err, code)
			}
		}
	}
	in := &ram.UserPolicyRequest{UserName: "alice", PolicyName: "AliyunKMSSecretUserAccess", PolicyType: ram.TypeSystem}
	for i := range 15 {
		admin := admins[i%3]
		check(admin.AttachPolicyToUser(ctx, in))
		expect(fmt.Sprint("attached, round ", i), "")
		check(admin.DetachPolicyFromUser(ctx, in))
		expect(fmt.Sprint("detached, round ", i), kms.CodeNoPermission)
	}
	check(admins[1].UpdateAccessKey(ctx, &ram.UpdateAccessKeyRequest{
		UserName:        "alice",
		UserAccessKeyID: made.AccessKey.AccessKeyID,
		Status:          ram.KeyInactive,
	}))
	expect("key switched off", kms.CodeAccessKeyDisabled)
	check(admins[2].DeleteAccessKey(ctx,
		&ram.AccessKeyRequest{UserName: "alice", UserAccessKeyID: made.AccessKey.AccessKeyID}))
	expect("key deleted", kms.CodeAccessKeyNotFound)
}
