package api_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
)

// TestRootKeyLife replaces the access key of the root account: both work for a while, and what
// happens to one counts from the next call on.
func TestRootKeyLife(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := keyturntest.Start(t, keyturntest.WithDataDir(dir))
	ctx, old := t.Context(), ram.New(s.Client)
	first := s.Credentials.AccessKeyID
	made := must[*ram.CreateAccessKeyResponse](t)(old.CreateAccessKey(ctx, &ram.CreateAccessKeyRequest{})).AccessKey
	_, err := old.CreateAccessKey(ctx, &ram.CreateAccessKeyRequest{})
	wantCode(t, "third key", err, ram.CodeKeyLimit)
	c, _ := client(t, s, made, false)
	who := must[*kms.GetCallerIdentityResponse](t)(c.GetCallerIdentity(ctx, &kms.GetCallerIdentityRequest{}))
	if who.IdentityType != "Account" || who.AccountID != s.AccountID {
		t.Errorf("the new key is of %+v, want the root account", who)
	}
	fresh := ram.New(c)
	listed := must[*ram.ListAccessKeysResponse](t)(fresh.ListAccessKeys(ctx, &ram.ListAccessKeysRequest{})).AccessKeys
	if len(listed) != 2 || listed[0].AccessKeyID != first || listed[1].AccessKeyID != made.AccessKeyID {
		t.Errorf("the root account has %+v, want %s and %s", listed, first, made.AccessKeyID)
	}
	if used := must[*ram.GetAccessKeyLastUsedResponse](t)(
		fresh.GetAccessKeyLastUsed(ctx,
			&ram.AccessKeyRequest{UserAccessKeyID: first})); used.AccessKeyLastUsed.LastUsedDate.IsZero() {
		t.Error("the first key was never used, it says")
	}
	must[*ram.EmptyResponse](t)(
		fresh.UpdateAccessKey(ctx, &ram.UpdateAccessKeyRequest{UserAccessKeyID: first, Status: ram.KeyInactive}))
	_, err = old.ListUsers(ctx, &ram.ListUsersRequest{})
	wantCode(t, "switched off", err, kms.CodeAccessKeyDisabled)
	admin := filepath.Join(dir, "admin.json")
	if _, err := os.Stat(admin); err != nil {
		t.Errorf("admin.json was deleted while its key exists: %v", err)
	}
	must[*ram.EmptyResponse](t)(fresh.DeleteAccessKey(ctx, &ram.AccessKeyRequest{UserAccessKeyID: first}))
	if _, err := os.Stat(admin); err == nil {
		t.Error("admin.json is there with a key that was deleted")
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, record := range trail(t, dir) {
		if strings.Contains(strings.Fields(record)[0], "AccessKey") && !strings.Contains(record, ":root") {
			t.Errorf("a record does not name the root account: %s", record)
		}
	}
	want := "DeleteAccessKey outcome acs:ram::" + s.AccountID + ":root/accesskey/" + first + "  ok"
	if got := trail(t, dir); !slices.Contains(got, want) {
		t.Errorf("the trail has no %q:\n%s", want, strings.Join(got, "\n"))
	}
	searchDir(t, dir, []byte(made.AccessKeySecret.Reveal()))
}

// TestRootKeysAreRoots is a user with every right who tries to get, switch off or delete a key of
// the root account.
func TestRootKeysAreRoots(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	ctx, admin := t.Context(), ram.New(s.Client)
	key := newUser(t, admin, "boss", document(allow("*", "*")))
	must[*ram.EmptyResponse](t)(admin.AttachPolicyToUser(ctx, &ram.UserPolicyRequest{
		UserName:   "boss",
		PolicyName: "AdministratorAccess",
		PolicyType: ram.TypeSystem,
	}))
	c, _ := client(t, s, key, false)
	boss, rootKey := ram.New(c), s.Credentials.AccessKeyID
	for _, name := range []string{"", "root", "boss", s.AccountID} {
		made, err := boss.CreateAccessKey(ctx, &ram.CreateAccessKeyRequest{UserName: name})
		if err == nil {
			d, _ := client(t, s, made.AccessKey, false)
			if who := must[*kms.GetCallerIdentityResponse](t)(
				d.GetCallerIdentity(ctx, &kms.GetCallerIdentityRequest{})); who.IdentityType == "Account" {
				t.Fatalf("UserName %q gave boss a key of the root account", name)
			}
			must[*ram.EmptyResponse](t)(
				boss.DeleteAccessKey(ctx, &ram.AccessKeyRequest{UserAccessKeyID: made.AccessKey.AccessKeyID}))
		}
		_, err = boss.UpdateAccessKey(ctx, &ram.UpdateAccessKeyRequest{
			UserName:        name,
			UserAccessKeyID: rootKey,
			Status:          ram.KeyInactive,
		})
		wantNotExist(t, name, err)
		_, err = boss.DeleteAccessKey(ctx, &ram.AccessKeyRequest{UserName: name, UserAccessKeyID: rootKey})
		wantNotExist(t, name, err)
		_, err = boss.GetAccessKeyLastUsed(ctx, &ram.AccessKeyRequest{UserName: name, UserAccessKeyID: rootKey})
		wantNotExist(t, name, err)
	}
	if list := must[*ram.ListAccessKeysResponse](t)(
		boss.ListAccessKeys(ctx, &ram.ListAccessKeysRequest{})).AccessKeys; len(list) != 1 ||
		list[0].AccessKeyID != key.AccessKeyID {
		t.Errorf("boss sees the keys %+v", list)
	}
	if list := must[*ram.ListAccessKeysResponse](t)(
		admin.ListAccessKeys(ctx, &ram.ListAccessKeysRequest{})).AccessKeys; len(list) != 1 ||
		list[0].Status != ram.KeyActive {
		t.Errorf("the root account has the keys %+v", list)
	}
}

func wantNotExist(t *testing.T, name string, err error) {
	t.Helper()
	if code := kms.CodeOf(err); code != ram.CodeKeyNotExist && code != ram.CodeUserNotExist {
		t.Errorf("UserName %q: %v, want that there is no such key or user", name, err)
	}
}

// TestRootKeyOfOldStore takes the list of root keys out of the account, as older releases never
// wrote one.
func TestRootKeyOfOldStore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := keyturntest.Start(t, keyturntest.WithDataDir(dir))
	newUser(t, ram.New(s.Client), "alice")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	editStore(t, dir, func(tx *store.Tx) error {
		a, _, err := tx.Account(s.AccountID)
		if err != nil {
			return err
		}
		a.Keys = nil
		return tx.PutAccount(a)
	})
	s = keyturntest.Start(t, keyturntest.WithDataDir(dir))
	admin := ram.New(s.Client)
	list := must[*ram.ListAccessKeysResponse](t)(
		admin.ListAccessKeys(t.Context(), &ram.ListAccessKeysRequest{})).AccessKeys
	if len(list) != 1 || list[0].AccessKeyID != s.Credentials.AccessKeyID {
		t.Fatalf("the root account has the keys %+v, want the one of admin.json", list)
	}
	must[*ram.CreateAccessKeyResponse](t)(admin.CreateAccessKey(t.Context(), &ram.CreateAccessKeyRequest{}))
	if n := len(
		must[*ram.ListAccessKeysResponse](t)(
			admin.ListAccessKeys(t.Context(), &ram.ListAccessKeysRequest{})).AccessKeys); n != 2 {
		t.Errorf("%d keys after one was made, want 2", n)
	}
}

// TestOffline makes, switches off and deletes root keys on the store of a stopped server, and
// starts it without a key that works.
func TestOffline(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := server.Config{DataDir: dir, ListenHTTP: "127.0.0.1:0"}
	s := keyturntest.Start(t, keyturntest.WithDataDir(dir))
	if err := server.WithOffline(t.Context(), config, func(*server.Offline) error {
		return nil
	}); err == nil || !strings.Contains(err.Error(), "another keyturn uses the audit trail") {
		t.Errorf("beside a running server: %v", err)
	}
	first := s.Credentials.AccessKeyID
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	err := server.WithOffline(ctx, config, func(o *server.Offline) error {
		_, err := o.UpdateAccessKey(ctx, &ram.UpdateAccessKeyRequest{UserAccessKeyID: first, Status: ram.KeyInactive})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s = keyturntest.Start(t, keyturntest.WithDataDir(dir))
	_, err = s.Client.ListSecrets(ctx, &kms.ListSecretsRequest{})
	wantCode(t, "the key that was switched off", err, kms.CodeAccessKeyDisabled)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	err = server.WithOffline(ctx, config, func(o *server.Offline) error {
		made, err := o.CreateAccessKey(ctx, &ram.CreateAccessKeyRequest{})
		if err != nil {
			return err
		}
		if _, err := o.WriteAdmin(made.AccessKey.AccessKeyID, made.AccessKey.AccessKeySecret); err != nil {
			return err
		}
		_, err = o.DeleteAccessKey(ctx, &ram.AccessKeyRequest{UserAccessKeyID: first})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s = keyturntest.Start(t, keyturntest.WithDataDir(dir))
	if s.Credentials.AccessKeyID == first {
		t.Error("admin.json has the old key")
	}
	if _, err := s.Client.ListSecrets(ctx, &kms.ListSecretsRequest{}); err != nil {
		t.Errorf("with the new key of admin.json: %v", err)
	}
	empty := server.Config{DataDir: t.TempDir(), ListenHTTP: "127.0.0.1:0"}
	if err := server.WithOffline(ctx, empty, func(*server.Offline) error { return nil }); err == nil {
		t.Error("a data directory without a store was taken")
	}
	if files, _ := filepath.Glob(filepath.Join(empty.DataDir, "*.key")); len(files) > 0 {
		t.Error("a root key was made")
	}
}

// editStore changes records behind the back of a server that is stopped.
func editStore(t *testing.T, dir string, edit func(*store.Tx) error) {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(dir, "store")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { must[any](t)(nil, db.Close()) }()
	key, err := root.File{Path: filepath.Join(dir, "root.key")}.Load(false)
	if err != nil {
		t.Fatal(err)
	}
	sealed, _, err := db.RecordKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	db.Authenticate(must[*envelope.Records](t)(envelope.New(key).OpenRecords(sealed)))
	must[any](t)(store.Update(t.Context(), db, func(tx *store.Tx) (any, error) { return nil, edit(tx) }))
}
