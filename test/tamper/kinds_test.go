package tamper_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// tenant is an account with records of every kind, at least two of each: the user ann reads the
// secret a by a policy of her own, bob reads b by one of his group.
type tenant struct {
	id   string
	root *kms.Client
	user map[string]*kms.Client
	keys map[string]*kms.Client // by access key ID
	own  map[string]string      // user of an access key; empty for root's
	all  []sign.Credentials
	// groups are the names of groups by their IDs.
	groups map[string]string
}

// connect makes the clients of all access keys anew, after a start of the server.
func (n *tenant) connect(s *site) {
	for _, c := range n.all {
		client := s.client(c)
		n.keys[c.AccessKeyID] = client
		if name := n.own[c.AccessKeyID]; name != "" {
			n.user[name] = client
		} else {
			n.root = client
		}
	}
}

// reads is the secret that a user may read, group the group that the user is in, owner whom a
// policy is for.
var (
	reads = map[string]string{"ann": "a", "bob": "b"}
	group = map[string]string{"ann": "idle", "bob": "readers"}
	owner = map[string]string{"read-a": "ann", "read-b": "bob", "idle": "ann", "readers": "bob"}
)

const document = `{"Version":"1","Statement":[` +
	`{"Effect":"Allow","Action":"kms:GetSecretValue","Resource":"acs:kms:*:*:secret/%s"}]}`

// furnish fills an account. Its last calls note uses of access keys, which are written down when
// the server stops.
func (s *site) furnish(id string, credentials sign.Credentials) *tenant {
	s.t.Helper()
	n := &tenant{
		id:     id,
		user:   map[string]*kms.Client{},
		keys:   map[string]*kms.Client{},
		own:    map[string]string{},
		groups: map[string]string{},
		all:    []sign.Credentials{credentials},
	}
	n.connect(s)
	ctx, users := s.t.Context(), ram.New(n.root)
	var errs []error
	must := func(_ any, err error) { errs = append(errs, err) }
	for _, name := range []string{"a", "b", "late", "later"} {
		create(s.t, n.root, id, name)
	}
	for _, name := range []string{"late", "later"} {
		must(n.root.DeleteSecret(ctx, &kms.DeleteSecretRequest{SecretName: name, RecoveryWindowInDays: 7}))
	}
	for _, name := range []string{"ann", "bob"} {
		p := "read-" + reads[name]
		must(users.CreateUser(ctx, &ram.CreateUserRequest{UserName: name}))
		made, err := users.CreateGroup(ctx, &ram.CreateGroupRequest{GroupName: group[name]})
		if errs = append(errs, err); err == nil {
			n.groups[made.Group.GroupID] = group[name]
		}
		must(users.AddUserToGroup(ctx, &ram.MembershipRequest{UserName: name, GroupName: group[name]}))
		must(users.CreatePolicy(ctx, &ram.CreatePolicyRequest{
			PolicyName:     p,
			PolicyDocument: fmt.Sprintf(document, reads[name]),
		}))
		key, err := users.CreateAccessKey(ctx, &ram.CreateAccessKeyRequest{UserName: name})
		if errs = append(errs, err); err == nil {
			k := key.AccessKey
			n.own[k.AccessKeyID] = name
			n.all = append(n.all, sign.Credentials{AccessKeyID: k.AccessKeyID, AccessKeySecret: k.AccessKeySecret})
		}
	}
	must(users.AttachPolicyToUser(ctx, &ram.UserPolicyRequest{
		UserName:   "ann",
		PolicyName: "read-a",
		PolicyType: ram.TypeCustom,
	}))
	must(users.AttachPolicyToGroup(ctx, &ram.GroupPolicyRequest{
		GroupName:  "readers",
		PolicyName: "read-b",
		PolicyType: ram.TypeCustom,
	}))
	for _, name := range []string{"AliyunKMSReadOnlyAccess", "AliyunKMSSecretUserAccess"} {
		must(users.CreateUser(ctx, &ram.CreateUserRequest{UserName: "of-" + name}))
		must(users.AttachPolicyToUser(ctx, &ram.UserPolicyRequest{
			UserName:   "of-" + name,
			PolicyName: name,
			PolicyType: ram.TypeSystem,
		}))
	}
	for _, name := range []string{"x", "y"} {
		secret := "rotated-" + name
		must(n.root.CreateSecret(ctx, &kms.CreateSecretRequest{
			SecretName: secret,
			VersionID:  "v1",
			SecretData: sensitive.New(`{"AccountName":"` + name + `","AccountPassword":"` + marker + `"}`),
		}))
		must(n.root.RegisterTarget(ctx, &kms.RegisterTargetRequest{
			TargetName:      name,
			Kind:            "redis",
			AdminSecretName: "a",
			Config:          `{"nodes":["127.0.0.1:1"],"tls":{"off":true}}`,
		}))
		must(n.root.ConfigureRotation(ctx, &kms.ConfigureRotationRequest{
			SecretName: secret,
			TargetName: name,
			Group:      "group-" + name,
			GroupGap:   "1h",
		}))
		must(n.root.RotateSecret(ctx, &kms.RotateSecretRequest{SecretName: secret, VersionID: "v2"}))
	}
	must(n.root.PauseRotation(ctx, &kms.PauseRotationRequest{}))
	must(n.root.ResumeRotation(ctx, &kms.PauseRotationRequest{}))
	n.connect(s)
	for name, c := range n.user {
		must(c.GetSecretValue(ctx, &kms.GetSecretValueRequest{SecretName: reads[name]}))
	}
	if err := errors.Join(errs...); err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *site) client(credentials sign.Credentials) *kms.Client {
	s.t.Helper()
	transport := &http.Transport{}
	s.t.Cleanup(transport.CloseIdleConnections)
	c, err := s.connect(s.http, credentials, transport)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// furnished is a site with two accounts, served by a server that was started after they were
// filled.
func furnished(t *testing.T) (*site, map[string]*tenant) {
	t.Helper()
	s, second := newSite(t), "2222222222222222"
	_, stop, err := s.serve()
	if err != nil {
		t.Fatal(err)
	}
	credentials := map[string]sign.Credentials{s.account: s.credentials, second: s.secondAccount(second)}
	tenants := map[string]*tenant{}
	for id, c := range credentials {
		tenants[id] = s.furnish(id, c)
	}
	stop()
	s.quiet()
	if _, _, err := s.serve(); err != nil {
		t.Fatal(err)
	}
	for _, n := range tenants {
		n.connect(s)
	}
	return s, tenants
}

// quiet takes the right to rotate, so that no engine writes records while they are inspected.
func (s *site) quiet() {
	s.t.Helper()
	db, err := store.Open(s.t.Context(), store.Config{Endpoints: []string{s.endpoint}, Prefix: s.prefix})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = db.Close() }) // the lease has ended with the test
	if _, err := s.unlock(db); err != nil {
		s.t.Fatal(err)
	}
	if _, err := db.Lead(s.t.Context(), "nobody", time.Now); err != nil {
		s.t.Fatal(err)
	}
}

// ofAll are the kinds whose records are of no account, or are found by time.
var ofAll = []string{"meta", "due", "wake", "event", "engine", "pause", "trail", "trailrun", "upgrade"}

// unprobed are the types of records that nothing asks for, each with the reason.
var unprobed = map[string]string{
	"attached": "only its revision counts: a change of a target is decided again when it differs at the commit",
	"denying":  "only the keys are read: a list finds by them what it may have to leave out",
	"restored": "exists only after a restore from a backup, until the engine has handled it",
}

// probe asks for something that a record decides.
type probe func() error

// probes ask for all that a record of each kind decides. A record is found by account and name,
// or by its name alone.
var probes = map[string]func(s *site, n *tenant, name string) []probe{
	"meta":    func(s *site, _ *tenant, _ string) []probe { return s.opens(func(*store.Tx) error { return nil }) },
	"due":     func(s *site, _ *tenant, _ string) []probe { return s.opens(allDue) },
	"account": func(s *site, n *tenant, _ string) []probe { return []probe{func() error { return s.anotherSecret(n) }} },
	"accesskey": func(s *site, n *tenant, id string) []probe {
		return one(func() (any, error) {
			return n.keys[id].GetCallerIdentity(s.t.Context(), &kms.GetCallerIdentityRequest{})
		})
	},
	"keyuse": func(s *site, n *tenant, id string) []probe {
		if n.own[id] == "" {
			return nil // no operation returns the last use of root's keys
		}
		return one(func() (any, error) {
			return ram.New(n.root).GetAccessKeyLastUsed(s.t.Context(), &ram.AccessKeyRequest{
				UserName:        n.own[id],
				UserAccessKeyID: id,
			})
		})
	},
	"user": func(s *site, n *tenant, name string) []probe {
		shown := one(func() (any, error) {
			return ram.New(n.root).GetUser(s.t.Context(), &ram.GetUserRequest{UserName: name})
		})
		return append(shown, s.decides(n, name)...)
	},
	"group": func(s *site, n *tenant, name string) []probe {
		return one(func() (any, error) {
			return ram.New(n.root).GetGroup(s.t.Context(), &ram.GetGroupRequest{GroupName: name})
		})
	},
	"grouprights": func(s *site, n *tenant, id string) []probe { return s.decides(n, owner[n.groups[id]]) },
	"target": func(s *site, n *tenant, name string) []probe {
		return one(func() (any, error) {
			return n.root.DescribeTarget(s.t.Context(), &kms.TargetNameRequest{TargetName: name})
		})
	},
	"rotation": func(s *site, n *tenant, name string) []probe {
		return one(func() (any, error) {
			return n.root.DescribeRotation(s.t.Context(), &kms.SecretNameRequest{SecretName: name})
		})
	},
	"consumer": func(s *site, n *tenant, name string) []probe {
		name, _, _ = strings.Cut(name, ":")
		return one(func() (any, error) {
			return n.root.ListSecretConsumers(s.t.Context(), &kms.ListSecretConsumersRequest{SecretName: name})
		})
	},
	"claim": func(s *site, n *tenant, name string) []probe {
		return s.opens(func(tx *store.Tx) error { _, err := tx.Claim(n.id, name[:1], name[2:]); return err })
	},
	"spacing": func(s *site, n *tenant, name string) []probe {
		return s.opens(func(tx *store.Tx) error { _, err := tx.Spacing(n.id, name); return err })
	},
	"wake": func(s *site, _ *tenant, _ string) []probe {
		return s.opens(func(tx *store.Tx) error { _, _, err := tx.WakeBefore(future, 1000); return err })
	},
	"event": func(s *site, _ *tenant, _ string) []probe {
		return s.opens(func(tx *store.Tx) error { _, _, err := tx.EventsBefore(future, 1000); return err })
	},
	"engine": func(s *site, _ *tenant, _ string) []probe {
		return s.opens(func(tx *store.Tx) error { _, err := tx.Engine(); return err })
	},
	"upgrade": func(s *site, _ *tenant, _ string) []probe {
		return s.opens(func(tx *store.Tx) error {
			_, err := tx.PoliciesBound()
			_, errUses := tx.UsesNoted()
			return errors.Join(err, errUses)
		})
	},
	"trail": func(s *site, _ *tenant, node string) []probe {
		return s.opens(func(tx *store.Tx) error { _, _, err := tx.TrailHead(node); return err })
	},
	"trailrun": func(s *site, _ *tenant, node string) []probe {
		return s.opens(func(tx *store.Tx) error { _, _, err := tx.TrailRun(node); return err })
	},
	"pause": func(s *site, _ *tenant, _ string) []probe {
		return s.opens(func(tx *store.Tx) error { _, err := tx.AllPaused(); return err })
	},
	"policy": func(s *site, n *tenant, name string) []probe {
		return one(func() (any, error) {
			return ram.New(n.root).GetPolicy(s.t.Context(), &ram.PolicyRequest{PolicyName: name, PolicyType: ram.TypeCustom})
		})
	},
	"policydoc": func(s *site, n *tenant, name string) []probe { return s.decides(n, owner[name]) },
	"systempolicy": func(s *site, n *tenant, name string) []probe {
		return one(func() (any, error) {
			return ram.New(n.root).GetPolicy(s.t.Context(), &ram.PolicyRequest{PolicyName: name, PolicyType: ram.TypeSystem})
		})
	},
	"cmk": func(s *site, n *tenant, _ string) []probe { return s.holds(n.root, n.id, "a", "v1") },
	"secret": func(s *site, n *tenant, name string) []probe {
		shown := one(func() (any, error) {
			return n.root.DescribeSecret(s.t.Context(), &kms.DescribeSecretRequest{SecretName: name})
		})
		if strings.HasPrefix(name, "late") || strings.HasPrefix(name, "rotated") {
			return shown
		}
		return append(shown, s.holds(n.root, n.id, name, "")...)
	},
	"value": func(s *site, n *tenant, name string) []probe {
		name, version, _ := strings.Cut(name, ":")
		if strings.HasPrefix(name, "late") {
			return nil // not given out while the secret waits for its deletion
		}
		if strings.HasPrefix(name, "rotated") {
			return nil // a managed value, of another shape than the others
		}
		return s.holds(n.root, n.id, name, version)
	},
}

func one(call func() (any, error)) []probe {
	return []probe{func() error { _, err := call(); return err }}
}

// decides reads the secret that a user may read.
func (s *site) decides(n *tenant, user string) []probe {
	if n.user[user] == nil {
		return nil
	}
	return s.holds(n.user[user], n.id, reads[user], "")
}

var errOther = errors.New("the answer is a value of another record")

// holds reads a version, or the current one, and holds its value against what was stored.
func (s *site) holds(c *kms.Client, account, name, version string) []probe {
	return []probe{func() error {
		got, err := c.GetSecretValue(s.t.Context(), &kms.GetSecretValueRequest{SecretName: name, VersionID: version})
		want := cmp.Or(version, "v1")
		if err == nil && (got.VersionID != want || got.SecretData.Reveal() != value(account, name, want)) {
			return errOther
		}
		return err
	}}
}

// future is past all that is due.
var future = time.Now().Add(1000 * 24 * time.Hour)

func allDue(tx *store.Tx) error {
	_, _, err := tx.DueBefore(future, 1000)
	return err
}

// opens opens the store as a server does at its start, and reads.
func (s *site) opens(read func(*store.Tx) error) []probe {
	return []probe{func() error { return s.open(read) }}
}

func (s *site) open(read func(*store.Tx) error) error {
	db, err := store.Open(s.t.Context(), store.Config{Endpoints: []string{s.endpoint}, Prefix: s.prefix})
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := s.unlock(db); err != nil {
		return err
	}
	tx := store.Snapshot(s.t.Context(), db)
	_, ok, err := tx.Meta()
	if err == nil && !ok {
		err = errors.New("the store is not described")
	}
	return errors.Join(err, read(tx))
}

// anotherSecret makes a secret, for which the account's record is read, and removes it again.
func (s *site) anotherSecret(n *tenant) error {
	_, err := n.root.CreateSecret(s.t.Context(), &kms.CreateSecretRequest{
		SecretName: "another",
		VersionID:  "v1",
		SecretData: sensitive.New(marker),
	})
	if err == nil {
		_, err = n.root.DeleteSecret(s.t.Context(), &kms.DeleteSecretRequest{
			SecretName:                 "another",
			ForceDeleteWithoutRecovery: true,
		})
	}
	return err
}

// probes finds what asks for a record.
func (s *site) probes(tenants map[string]*tenant, key string) []probe {
	kind, rest, _ := strings.Cut(key, "/")
	find := probes[kind]
	if find == nil {
		s.t.Fatalf("%s: there is no probe for records of this kind: give it one", key)
	}
	id, name, _ := strings.Cut(rest, "/")
	n := tenants[id]
	for _, other := range tenants {
		if n == nil && (slices.Contains(ofAll, kind) || other.keys[id] != nil) {
			n, name = other, id
		}
	}
	if n == nil {
		s.t.Fatalf("%s: no account has this record", key)
	}
	return find(s, n, name)
}

// mustFail verifies that each call fails, that a call reports only a fault of the server,
// that the log names the record, and that neither holds a value.
func (s *site) mustFail(what, key string, probes []probe) (failed int) {
	s.t.Helper()
	kind, _, _ := strings.Cut(key, "/")
	s.log.Take()
	for i, ask := range probes {
		err := ask()
		log := s.log.Take()
		var e *kms.Error
		isCall := errors.As(err, &e)
		switch {
		case err == nil || errors.Is(err, errOther):
			s.t.Errorf("%s, %s: answer %d is no error, but %v", key, what, i, err)
		case isCall && (e.Code != kms.CodeInternalFailure || !strings.Contains(log, key)):
			s.t.Errorf("%s, %s: answer %d is %s; want %s, and a line in the log that names the record, not\n%s",
				key, what, i, e.Code, kms.CodeInternalFailure, log)
		case !isCall &&
			!strings.Contains(err.Error(), `stored record "`+kind) &&
			!strings.Contains(err.Error(), "another root key"):
			s.t.Errorf("%s, %s: %v does not name a record of that kind", key, what, err)
		case strings.Contains(fmt.Sprint(err, log), marker):
			s.t.Errorf("%s, %s: a value is in the answer or in the log", key, what)
		case strings.Contains(log, "panicked"):
			s.t.Errorf("%s, %s: %s", key, what, log)
		}
		failed++
	}
	if s.t.Failed() {
		s.t.FailNow()
	}
	return failed
}

func (s *site) mustSucceed(key string, probes []probe) {
	s.t.Helper()
	for _, ask := range probes {
		if err := ask(); err != nil {
			s.t.Fatalf("%s, as it was: %v", key, err)
		}
	}
}

// records are the keys of all records, by kind.
func (s *site) records() map[string][]string {
	s.t.Helper()
	r, err := s.kv.Get(s.t.Context(), s.prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		s.t.Fatal(err)
	}
	found := map[string][]string{}
	for _, kv := range r.Kvs {
		key := strings.TrimPrefix(string(kv.Key), s.prefix)
		if kind, _, _ := strings.Cut(key, "/"); unprobed[kind] == "" {
			found[kind] = append(found[kind], key)
		}
	}
	want := slices.DeleteFunc(store.Kinds(), func(kind string) bool { return unprobed[kind] != "" })
	if got, want := slices.Sorted(maps.Keys(found)), slices.Sorted(slices.Values(want)); !slices.Equal(got, want) {
		s.t.Fatalf("there are records of the types %v; the store has the types %v: make one of each", got, want)
	}
	if got := slices.Sorted(maps.Keys(probes)); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		s.t.Fatalf("there are probes for %v; the store has the types %v: write one for each", got, want)
	}
	return found
}

// TestEveryByte flips a bit of every byte of a record of each kind, and cuts it short: each time
// whatever asks for it is answered with an error.
func TestEveryByte(t *testing.T) {
	t.Parallel()
	s, tenants := furnished(t)
	random := seed(t)
	for kind, keys := range s.records() {
		// The one that most is asked of: nobody can ask for the value of a secret that waits for its
		// deletion.
		key := slices.MaxFunc(keys, func(a, b string) int { return len(s.probes(tenants, a)) - len(s.probes(tenants, b)) })
		asks := s.probes(tenants, key)
		s.mustSucceed(key, asks)
		whole, failed := s.read(key), 0
		check := func(what string, changed []byte) {
			t.Helper()
			s.write(key, changed)
			ask := asks[failed%len(asks)] // in turns
			failed += s.mustFail(what, key, []probe{func() error {
				err := ask()
				if err == nil && !bytes.Equal(s.read(key), changed) {
					s.write(key, changed) // the server has stored the head of its trail meanwhile
					err = ask()
				}
				return err
			}})
		}
		flips(random, whole, func(changed []byte, at int) {
			check(fmt.Sprintf("byte %d of %d flipped, %q", at, len(whole), around(changed, at)), changed)
		})
		for _, n := range []int{0, 1, 2, 32, 33, 34, len(whole) / 2, len(whole) - 1} {
			check(fmt.Sprintf("cut to %d bytes", n), whole[:n])
		}
		check("one byte more", append(bytes.Clone(whole), 0))
		s.write(key, whole)
		s.mustSucceed(key, s.probes(tenants, key))
		t.Logf("%s: %d bytes, %d answers, all errors", kind, len(whole), failed)
	}
}

// TestSwapped puts every two records of one kind in each other's place, of one account and of
// two: whatever asks for either is answered with an error.
func TestSwapped(t *testing.T) {
	t.Parallel()
	s, tenants := furnished(t)
	for kind, keys := range s.records() {
		pairs, failed := 0, 0
		for _, key := range keys {
			s.mustSucceed(key, s.probes(tenants, key)) // what waits to be written of a consumer, which would mend its record, is
		}
		for i, one := range keys {
			for _, other := range keys[:i] {
				first, second := s.read(one), s.read(other)
				s.write(one, second)
				s.write(other, first)
				failed += s.mustFail("swapped with "+other, one, s.probes(tenants, one))
				failed += s.mustFail("swapped with "+one, other, s.probes(tenants, other))
				s.write(one, first)
				s.write(other, second)
				pairs++
			}
			s.mustSucceed(one, s.probes(tenants, one))
		}
		if !slices.Contains([]string{"meta", "engine", "pause", "trail", "trailrun", "upgrade"}, kind) &&
			(pairs == 0 || failed == 0) {
			t.Errorf("%s: %d pairs, %d answers: the test says nothing", kind, pairs, failed)
		}
		t.Logf("%s: %d pairs swapped, %d answers, all errors", kind, pairs, failed)
	}
}

// TestPutElsewhere puts a record where there was none: under a new name, in another account, and
// as another kind.
func TestPutElsewhere(t *testing.T) {
	t.Parallel()
	s, tenants := furnished(t)
	first := tenants[s.account]
	stranger := first.all[1]
	key := stranger.AccessKeyID
	stranger.AccessKeyID = "KTstranger"
	first.keys["KTstranger"], first.own["KTstranger"] = s.client(stranger), "ann"
	at := func(kind, name string) string { return kind + "/" + s.account + "/" + name }
	for from, to := range map[string]string{
		at("secret", "a"):           at("secret", "c"),
		"secret/2222222222222222/a": at("secret", "d"),
		at("user", "ann"):           at("user", "eve"),
		at("group", "readers"):      at("group", "writers"),
		at("policy", "read-a"):      at("policy", "read-c"),
		"accesskey/" + key:          "accesskey/KTstranger",
		at("user", "bob"):           at("group", "bob"),
		at("policydoc", "read-a"):   at("policy", "read-d"),
	} {
		s.write(to, s.read(from))
		s.mustFail("a copy of "+from, to, s.probes(tenants, to))
	}
}

// TestOlderRecord shows what is not noticed, and is documented so: a record as a whole put back
// to what it was before under the same key, and a record removed.
func TestOlderRecord(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c, _, err := s.serve()
	if err != nil {
		t.Fatal(err)
	}
	create(t, c, s.account, "a")
	key := "secret/" + s.account + "/a"
	before := s.read(key)
	if _, err := c.UpdateSecretVersionStage(t.Context(), &kms.UpdateSecretVersionStageRequest{
		SecretName:    "a",
		VersionStage:  "ACSCurrent",
		MoveToVersion: "v0",
	}); err != nil {
		t.Fatal(err)
	}
	s.write(key, before)
	s.mustSucceed(key, s.holds(c, s.account, "a", "v1"))
	s.mustSucceed(key, s.holds(c, s.account, "a", ""))
	if _, err := s.kv.Delete(t.Context(), s.prefix+key); err != nil {
		t.Fatal(err)
	}
	if _, err := c.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{
		SecretName: "a",
	}); kms.CodeOf(err) != kms.CodeResourceNotFound {
		t.Errorf("a record that was removed: %v", err)
	}
}
