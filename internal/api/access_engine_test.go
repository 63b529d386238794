package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
)

// spyNet is a network of targets in this process. It remembers what arrived at which address: who
// owns an address reads that.
type spyNet struct {
	mu        sync.Mutex
	passwords map[string]string   // by address and account; guarded by mu
	arrived   map[string][]string // plaintext credentials by address; guarded by mu
}

func newSpyNet() *spyNet {
	return &spyNet{passwords: map[string]string{}, arrived: map[string][]string{}}
}

// kinds are spied, with an administrator, and free, without one.
func (n *spyNet) kinds() []target.Kind {
	var list []target.Kind
	for _, name := range []string{"spied", "free"} {
		list = append(list, target.Kind{
			Name: name, NeedsAdmin: name == "spied", Strategies: []target.Strategy{target.Overlap, target.Double, target.Single},
			Check: func(json.RawMessage) error { return nil },
			Open: func(s target.Settings) (target.Target, error) {
				var c struct{ Address string }
				if err := json.Unmarshal(s.Config, &c); err != nil {
					return nil, err
				}
				return &spied{net: n, address: c.Address, admin: s.Admin.Account}, nil
			},
		})
	}
	return list
}

func (n *spyNet) set(address, account, password string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.passwords[address+"/"+account] = password
}

func (n *spyNet) password(address, account string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.passwords[address+"/"+account]
}

func (n *spyNet) saw(address, credential string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Contains(n.arrived[address], credential)
}

type spied struct {
	net            *spyNet
	address, admin string
}

func (s *spied) arrive(c target.Credential) {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	s.net.arrived[s.address] = append(s.net.arrived[s.address], c.Secret.Reveal())
}

func (s *spied) Apply(_ context.Context, c target.Change) error {
	s.arrive(c.New)
	s.net.set(s.address, c.New.Account, c.New.Secret.Reveal())
	return nil
}

func (s *spied) Retire(context.Context, target.Change) error { return nil }

func (s *spied) Verify(_ context.Context, c target.Credential) error {
	s.arrive(c)
	if s.net.password(s.address, c.Account) != c.Secret.Reveal() {
		return target.Failed(target.Rejected, "", "no")
	}
	return nil
}

// Standing knows the administrator also as alias-of-<name>, and super as a superuser. It gets no
// answer about mute.
func (s *spied) Standing(_ context.Context, account string) (target.Standing, error) {
	if account == "mute" {
		return target.Standing{}, target.Failed(target.Unknown, "", "no answer")
	}
	st := target.Standing{Administrator: account == s.admin || account == "alias-of-"+s.admin}
	if account == "super" {
		st.Privileged = "is a superuser"
	}
	return st, nil
}

func (s *spied) Close() error { return nil }

const (
	prod = `{"address":"prod"}`
	evil = `{"address":"evil"}`
)

// spyWorld is a server with the target idp at prod, whose administrator is keyturn, and the secret
// pay/client attached to it.
func spyWorld(t *testing.T) (*keyturntest.Server, *spyNet, string) {
	t.Helper()
	n, trail := newSpyNet(), t.TempDir()
	n.set("prod", "pay", "the-secret-of-pay")
	s := keyturntest.Start(t, server.Change(func(c *server.Config) {
		c.Kinds, c.AuditDir = n.kinds(), filepath.Join(trail, "audit")
		c.Rotation.ProbeEvery = 20 * time.Millisecond
	}))
	ctx := t.Context()
	must[*kms.CreateSecretResponse](t)(s.Client.CreateSecret(ctx, &kms.CreateSecretRequest{
		SecretName: "idp-admin",
		VersionID:  "v1",
		SecretData: sensitive.New(`{"AccountName":"keyturn","AccountPassword":"the-secret-of-the-administrator"}`),
	}))
	must[*kms.TargetNameResponse](t)(s.Client.RegisterTarget(ctx, &kms.RegisterTargetRequest{
		TargetName:      "idp",
		Kind:            "spied",
		Config:          prod,
		AdminSecretName: "idp-admin",
	}))
	must[*kms.CreateSecretResponse](t)(s.Client.CreateSecret(ctx, &kms.CreateSecretRequest{
		SecretName:     "pay/client",
		SecretType:     kms.TypeRds,
		VersionID:      "v1",
		ExtendedConfig: `{"SecretSubType":"SingleUser","DBInstanceId":"idp"}`,
		SecretData:     sensitive.New(`{"Accounts":[{"AccountName":"pay","AccountPassword":"the-secret-of-pay"}]}`),
	}))
	eventually(t, "the secret is probed at its target", func() bool { return n.saw("prod", "the-secret-of-pay") })
	return s, n, filepath.Join(trail, "audit")
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 20s it is not so that %s", what)
		}
	}
}

func state(t *testing.T, s *keyturntest.Server, name string) *kms.DescribeRotationResponse {
	t.Helper()
	return must[*kms.DescribeRotationResponse](t)(
		s.Client.DescribeRotation(t.Context(), &kms.SecretNameRequest{SecretName: name}))
}

// TestRegisteredAgainGetsNothing verifies that an operator of targets, who has no right on any
// secret, gets no value by registering a target anew, by redirecting it, or by detaching what is
// attached.
func TestRegisteredAgainGetsNothing(t *testing.T) {
	t.Parallel()
	s, n, _ := spyWorld(t)
	ctx := t.Context()
	key := newUser(t, ram.New(s.Client), "targets", document(
		allow("kms:RegisterTarget", "acs:kms:*:*:target"), allow("kms:*", "acs:kms:*:*:target/*"),
	))
	attacker, _ := client(t, s, key, false)
	deregister := func(c *kms.Client, detach bool) error {
		_, err := c.DeregisterTarget(ctx, &kms.DeregisterTargetRequest{TargetName: "idp", Detach: detach})
		return err
	}
	_, err := attacker.UpdateTarget(ctx, &kms.UpdateTargetRequest{TargetName: "idp", Config: evil})
	wantCode(t, "redirect", err, kms.CodeNoPermission)
	err = deregister(attacker, false)
	wantCode(t, "deregister with attached secrets", err, kms.CodeResourceInUse)
	if err == nil || strings.Contains(err.Error(), "pay/client") || !strings.Contains(err.Error(), ": 1 secret that you") {
		t.Errorf("the refusal does not say how many secrets are attached, or names one: %v", err)
	}
	wantCode(t, "deregister and detach", deregister(attacker, true), kms.CodeNoPermission)

	// The operator of the secret detaches it; from then on the name is free for any caller who may
	// register.
	if err := deregister(s.Client, true); err != nil {
		t.Fatal(err)
	}
	must[*kms.TargetNameResponse](t)(attacker.RegisterTarget(ctx, &kms.RegisterTargetRequest{
		TargetName: "idp",
		Kind:       "free",
		Config:     evil,
	}))
	_, err = attacker.ProbeRotation(ctx, &kms.PauseRotationRequest{TargetName: "idp"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = attacker.RotateSecret(ctx, &kms.RotateSecretRequest{SecretName: "pay/client", VersionID: "v2"})
	wantCode(t, "rotate a secret without a right on it", err, kms.CodeNoPermission)
	for range 5 { // the engine reads what is due, and the secret is not due
		must[*kms.DescribeRotationResponse](t)(
			s.Client.DescribeRotation(ctx, &kms.SecretNameRequest{SecretName: "pay/client"}))
		time.Sleep(20 * time.Millisecond)
	}
	if n.saw("evil", "the-secret-of-pay") {
		t.Error("the value of pay/client was sent to a target that was registered anew")
	}
	// With every right on the secret but reading it, the value is not sent there either.
	key = newUser(t, ram.New(s.Client), "rotators", document(
		allow("kms:RotateSecret", "acs:kms:*:*:secret/*"), allow("kms:RotateAccount", "acs:kms:*:*:target/*"),
	))
	rotator, _ := client(t, s, key, false)
	_, err = rotator.RotateSecret(ctx, &kms.RotateSecretRequest{SecretName: "pay/client", VersionID: "v2"})
	wantCode(t, "bind a secret without reading it", err, kms.CodeNoPermission)
}

// TestTargetWithoutAdministratorIsNotRedirected verifies that redirecting a target that has no
// administrator needs rights on the attached secrets.
func TestTargetWithoutAdministratorIsNotRedirected(t *testing.T) {
	t.Parallel()
	s, n, _ := spyWorld(t)
	ctx := t.Context()
	must[*kms.TargetNameResponse](t)(s.Client.RegisterTarget(ctx, &kms.RegisterTargetRequest{
		TargetName: "self",
		Kind:       "free",
		Config:     prod,
	}))
	must[*kms.CreateSecretResponse](t)(s.Client.CreateSecret(ctx, &kms.CreateSecretRequest{
		SecretName: "own",
		VersionID:  "v1",
		SecretData: sensitive.New(`{"username":"own","password":"the-secret-of-own"}`),
	}))
	must[*kms.DescribeRotationResponse](t)(
		s.Client.ConfigureRotation(ctx, &kms.ConfigureRotationRequest{SecretName: "own", TargetName: "self"}))
	key := newUser(t, ram.New(s.Client), "targets",
		document(allow("kms:*", "acs:kms:*:*:target/*"), allow("kms:UpdateTarget", "acs:kms:*:*:secret/*")))
	attacker, seen := client(t, s, key, false)
	_, err := attacker.UpdateTarget(ctx, &kms.UpdateTargetRequest{TargetName: "self", Config: evil})
	wantCode(t, "redirect", err, kms.CodeNoPermission)
	if got := seen.detail(t)["AuthAction"]; got != "kms:GetSecretValue" {
		t.Errorf("the refusal names %q", got)
	}
	if n.saw("evil", "the-secret-of-own") {
		t.Error("the value was sent")
	}
}

// TestRightAtATargetIsOnNamedAccounts verifies that rights on one's own secrets and on a target
// give no account there: neither the administrator's, under any spelling, nor a superuser's, nor
// another one, whether the secret is made before the target or after it.
func TestRightAtATargetIsOnNamedAccounts(t *testing.T) {
	t.Parallel()
	s, n, _ := spyWorld(t)
	ctx := t.Context()
	key := newUser(t, ram.New(s.Client), "mallory", document(
		allow("kms:CreateSecret", "acs:kms:*:*:secret"), allow("kms:*", "acs:kms:*:*:secret/mallory/*"),
		allow("kms:ConfigureRotation", "acs:kms:*:*:target/idp"),
		allow("kms:RotateAccount", "acs:kms:*:*:target/idp/account/team-*"),
		allow("kms:RotateAccount", "acs:kms:*:*:target/later/account/team-*"),
	))
	attacker, _ := client(t, s, key, false)
	configure := func(c *kms.Client, name, account string) error {
		_, err := c.CreateSecret(ctx, &kms.CreateSecretRequest{
			SecretName: name,
			VersionID:  "v1",
			SecretData: sensitive.New(fmt.Sprintf(`{"username":%q,"password":"guess-of-the-attacker"}`, account)),
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.ConfigureRotation(ctx, &kms.ConfigureRotationRequest{SecretName: name, TargetName: "idp"})
		return err
	}
	for i, account := range []string{"keyturn", "KEYTURN", "keyturn@%", "pay", "super", "team-app/../../account/pay"} {
		err := configure(attacker, fmt.Sprintf("mallory/%d", i), account)
		if strings.HasPrefix(account, "team-") {
			continue // a name of its own, whatever it looks like
		}
		wantCode(t, account, err, kms.CodeNoPermission)
	}
	_, err := attacker.CreateSecret(ctx, &kms.CreateSecretRequest{
		SecretName:     "mallory/early",
		SecretType:     kms.TypeRds,
		VersionID:      "v1",
		ExtendedConfig: `{"SecretSubType":"SingleUser","DBInstanceId":"later"}`,
		SecretData:     sensitive.New(`{"Accounts":[{"AccountName":"super","AccountPassword":"guess-of-the-attacker"}]}`),
	})
	wantCode(t, "an account of a target that is not registered", err, kms.CodeNoPermission)

	// With every right, the target itself still refuses.
	for i, tt := range []struct{ account, want string }{
		{"keyturn", "is the administrator"}, {"KeyTurn", "is the administrator"},
		{"keyturn@localhost", "is the administrator"},
	} {
		if err := configure(s.Client, fmt.Sprintf("root/%d", i), tt.account); err == nil ||
			!strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", tt.account, err, tt.want)
		}
	}
	for i, tt := range []struct{ account, want string }{
		{"alias-of-keyturn", "is the administrator"},
		{
			"super",
			`is a superuser. Rotations may change it only when the account policy names it exactly. To add it, run ` +
				`keyturn target update idp --account='*' --account=super.`,
		},
	} {
		name := fmt.Sprintf("root/asked/%d", i)
		n.set("prod", tt.account, "guess-of-the-attacker")
		if err := configure(s.Client, name+"/generic", tt.account); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s is configured: %v; want %q", tt.account, err, tt.want)
		}
		if r := state(t, s, name+"/generic"); r.TargetName != "" {
			t.Errorf("%s, after the refusal: attached to %s", tt.account, r.TargetName)
		}
		must[*kms.CreateSecretResponse](t)(s.Client.CreateSecret(ctx, &kms.CreateSecretRequest{
			SecretName:     name,
			SecretType:     kms.TypeRds,
			VersionID:      "v1",
			ExtendedConfig: `{"SecretSubType":"SingleUser","DBInstanceId":"idp"}`,
			SecretData: sensitive.New(
				fmt.Sprintf(`{"Accounts":[{"AccountName":%q,"AccountPassword":"guess-of-the-attacker"}]}`, tt.account)),
		}))
		must[*kms.RotateSecretResponse](t)(
			s.Client.RotateSecret(ctx, &kms.RotateSecretRequest{SecretName: name, VersionID: "v2"}))
		eventually(t, tt.account+" is refused", func() bool { return state(t, s, name).State == "abandoned" })
		if r := state(t, s, name); !strings.Contains(r.Reason, tt.want) ||
			n.password("prod", tt.account) != "guess-of-the-attacker" {
			t.Errorf("%s: %s; want %q and the password left alone", tt.account, r.Reason, tt.want)
		}
	}
	n.set("prod", "mute", "guess-of-the-attacker")
	if err := configure(s.Client, "root/mute", "mute"); err != nil {
		t.Errorf("a target that does not answer keeps a secret from being configured: %v", err)
	}
	must[*kms.TargetNameResponse](t)(
		s.Client.UpdateTarget(ctx, &kms.UpdateTargetRequest{TargetName: "idp", Accounts: []string{"*", "super"}}))
	if err := configure(s.Client, "root/named", "super"); !strings.Contains(fmt.Sprint(err), "rotated by secret") {
		t.Errorf("a superuser that the account policy names, and another secret rotates: %v", err)
	}
	must[*kms.RotateSecretResponse](t)(
		s.Client.RotateSecret(ctx, &kms.RotateSecretRequest{SecretName: "root/asked/1", VersionID: "v3"}))
	eventually(t, "a superuser that the account policy names is rotated", func() bool {
		return n.password("prod", "super") != "guess-of-the-attacker"
	})
	must[*kms.TargetNameResponse](t)(
		s.Client.UpdateTarget(ctx, &kms.UpdateTargetRequest{TargetName: "idp", Accounts: []string{"web_*"}}))
	if err := configure(s.Client, "root/policy", "batch_1"); err == nil ||
		!strings.Contains(err.Error(), "account policy") {
		t.Errorf("an account outside the account policy: %v", err)
	}
}

// TestEarlySecretIsBoundByNobody verifies that a managed secret that was made before its target
// gets nothing when the target appears: a principal with the right on the account must ask.
func TestEarlySecretIsBoundByNobody(t *testing.T) {
	t.Parallel()
	s, n, _ := spyWorld(t)
	ctx := t.Context()
	n.set("prod", "app", "the-password-of-app")
	must[*kms.CreateSecretResponse](t)(s.Client.CreateSecret(ctx, &kms.CreateSecretRequest{
		SecretName:     "early",
		SecretType:     kms.TypeRds,
		VersionID:      "v1",
		ExtendedConfig: `{"SecretSubType":"SingleUser","DBInstanceId":"later"}`,
		SecretData:     sensitive.New(`{"Accounts":[{"AccountName":"app","AccountPassword":"a-guess-at-the-password"}]}`),
	}))
	must[*kms.TargetNameResponse](t)(s.Client.RegisterTarget(ctx, &kms.RegisterTargetRequest{
		TargetName:      "later",
		Kind:            "spied",
		Config:          prod,
		AdminSecretName: "idp-admin",
	}))
	if _, err := s.Client.ProbeRotation(ctx, &kms.PauseRotationRequest{TargetName: "later"}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond) // several times the time in which the engine probes what is bound
	if n.saw("prod", "a-guess-at-the-password") {
		t.Error("a secret that is bound to nothing was tried at the target")
	}
	must[*kms.RotateSecretResponse](t)(
		s.Client.RotateSecret(ctx, &kms.RotateSecretRequest{SecretName: "early", VersionID: "v2"}))
	eventually(t, "the secret is rotated once it is bound", func() bool {
		return n.password("prod", "app") != "the-password-of-app"
	})
}

// TestRepairImposesNoGuess verifies that a credential which a caller chose, and which the target
// never accepted, is not applied by a repair.
func TestRepairImposesNoGuess(t *testing.T) {
	t.Parallel()
	s, n, _ := spyWorld(t)
	ctx := t.Context()
	n.set("prod", "app", "the-password-of-app")
	must[*kms.CreateSecretResponse](t)(s.Client.CreateSecret(ctx, &kms.CreateSecretRequest{
		SecretName: "guess",
		VersionID:  "v1",
		SecretData: sensitive.New(`{"username":"app","password":"guess-of-the-attacker"}`),
	}))
	must[*kms.DescribeRotationResponse](t)(
		s.Client.ConfigureRotation(ctx, &kms.ConfigureRotationRequest{SecretName: "guess", TargetName: "idp"}))
	eventually(t, "the guess is found out", func() bool { return state(t, s, "guess").State == "quarantined" })
	if got := state(t, s, "guess").RepairActions; slices.Contains(got, "apply") {
		t.Errorf("RepairActions %v", got)
	}
	_, err := s.Client.RepairRotation(ctx, &kms.RepairRotationRequest{SecretName: "guess", RepairAction: "apply"})
	wantCode(t, "apply a guess", err, kms.CodeResourceInUse)
	if got := n.password("prod", "app"); got != "the-password-of-app" {
		t.Error("the guess was applied")
	}
}

// TestAccessKeysNeedRightsOnTheUser verifies that a RAMCredentials secret gives no caller the keys
// of a user on whom he has no rights, takes no key away, and that the trail names the user.
func TestAccessKeysNeedRightsOnTheUser(t *testing.T) {
	t.Parallel()
	s, _, trail := spyWorld(t)
	ctx, admin := t.Context(), ram.New(s.Client)
	boss := newUser(t, admin, "boss")
	key := newUser(t, admin, "attacker", document(allow("kms:*", "acs:kms:*:*:secret*"), allow("kms:RotateAccount", "*")))
	attacker, seen := client(t, s, key, false)
	create := func(c *kms.Client, id, secret string) error {
		_, err := c.CreateSecret(ctx, &kms.CreateSecretRequest{
			SecretName:     kms.Auto,
			SecretType:     kms.TypeRAMCredentials,
			VersionID:      "v0",
			ExtendedConfig: `{"SecretSubType":"RamUserAccessKey","UserName":"boss"}`,
			SecretData:     sensitive.New(fmt.Sprintf(`{"AccessKeys":[{"AccessKeyId":%q,"AccessKeySecret":%q}]}`, id, secret)),
		})
		return err
	}
	wantCode(t, "without rights on the user", create(attacker, boss.AccessKeyID, boss.AccessKeySecret.Reveal()),
		kms.CodeNoPermission)
	if got := seen.detail(t)["AuthAction"]; got != "ram:CreateAccessKey" {
		t.Errorf("the refusal names %q", got)
	}
	for name, err := range map[string]error{
		"no key":                     create(s.Client, "none", "none"),
		"a guessed secret":           create(s.Client, boss.AccessKeyID, "guess"),
		"the key of another user":    create(s.Client, key.AccessKeyID, key.AccessKeySecret.Reveal()),
		"a user that does not exist": createFor(ctx, s.Client, "nobody", boss),
	} {
		wantCode(t, name, err, kms.CodeInvalidParameter)
	}
	if err := create(s.Client, boss.AccessKeyID, boss.AccessKeySecret.Reveal()); err != nil {
		t.Fatal(err)
	}
	const name = "acs/ram/user/boss"
	for what, call := range map[string]func() error{
		"rotate": func() error {
			_, err := attacker.RotateSecret(ctx, &kms.RotateSecretRequest{SecretName: name, VersionID: "v1"})
			return err
		},
		"emergency": func() error {
			_, err := attacker.EmergencyRotation(ctx, &kms.EmergencyRotationRequest{SecretName: name, VersionID: "v1"})
			return err
		},
		"schedule": func() error {
			_, err := attacker.UpdateSecretRotationPolicy(ctx, &kms.UpdateSecretRotationPolicyRequest{
				SecretName:              name,
				EnableAutomaticRotation: true,
				RotationInterval:        "7d",
			})
			return err
		},
		"repair": func() error {
			_, err := attacker.RepairRotation(ctx, &kms.RepairRotationRequest{SecretName: name, RepairAction: "apply"})
			return err
		},
	} {
		wantCode(t, what, call(), kms.CodeNoPermission)
	}
	must[*kms.RotateSecretResponse](t)(
		s.Client.RotateSecret(ctx, &kms.RotateSecretRequest{SecretName: name, VersionID: "v1"}))
	eventually(t, "the key is rotated", func() bool { return state(t, s, name).State == "grace" })
	if !recorded(t, trail, `"operation":"CreateAccessKey"`, `user/boss/accesskey/`, `system/rotation`) {
		t.Error("no record of the engine names the key under its user")
	}

	// A user who takes the name over is not the one that the secret is bound to.
	must[*kms.SecretNameResponse](t)(s.Client.EndRotationGrace(ctx, &kms.SecretNameRequest{SecretName: name}))
	eventually(t, "the old key is deleted", func() bool { return state(t, s, name).State == "done" })
	keys := must[*ram.ListAccessKeysResponse](t)(admin.ListAccessKeys(ctx, &ram.ListAccessKeysRequest{UserName: "boss"}))
	for _, k := range keys.AccessKeys {
		must[*ram.EmptyResponse](t)(
			admin.DeleteAccessKey(ctx, &ram.AccessKeyRequest{UserName: "boss", UserAccessKeyID: k.AccessKeyID}))
	}
	must[*ram.EmptyResponse](t)(admin.DeleteUser(ctx, &ram.DeleteUserRequest{UserName: "boss"}))
	newUser(t, admin, "boss")
	owner, _ := client(t, s, newUser(t, admin, "owner", document(allow("kms:*", "*"))), false)
	_, err := owner.RotateSecret(ctx, &kms.RotateSecretRequest{SecretName: name, VersionID: "v9"})
	wantCode(t, "rotate for the new user of that name", err, kms.CodeNoPermission)
}

func createFor(ctx context.Context, c *kms.Client, user string, key ram.AccessKey) error {
	_, err := c.CreateSecret(ctx, &kms.CreateSecretRequest{
		SecretName:     kms.Auto,
		SecretType:     kms.TypeRAMCredentials,
		VersionID:      "v0",
		ExtendedConfig: fmt.Sprintf(`{"SecretSubType":"RamUserAccessKey","UserName":%q}`, user),
		SecretData: sensitive.New(
			fmt.Sprintf(`{"AccessKeys":[{"AccessKeyId":%q,"AccessKeySecret":%q}]}`, key.AccessKeyID,
				key.AccessKeySecret.Reveal())),
	})
	return err
}

// recorded reports whether a line of the trail holds all of the texts.
func recorded(t *testing.T, dir string, texts ...string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(data), "\n") {
			if !slices.ContainsFunc(texts, func(s string) bool { return !strings.Contains(line, s) }) {
				return true
			}
		}
	}
	return false
}

// TestAdoptForTwoAccounts verifies that a secret of two accounts adopts a credential of either.
func TestAdoptForTwoAccounts(t *testing.T) {
	t.Parallel()
	s, n, _ := spyWorld(t)
	ctx := t.Context()
	n.set("prod", "one", "the-password-of-one")
	must[*kms.CreateSecretResponse](t)(s.Client.CreateSecret(ctx, &kms.CreateSecretRequest{
		SecretName:     "pair",
		SecretType:     kms.TypeRds,
		VersionID:      "v1",
		ExtendedConfig: `{"SecretSubType":"DoubleUsers","DBInstanceId":"idp"}`,
		SecretData: sensitive.New(
			`{"Accounts":[{"AccountName":"one","AccountPassword":"the-password-of-one"},{"AccountName":"two",` +
				`"AccountPassword":"none"}]}`),
	}))
	eventually(t, "the pair is probed", func() bool { return n.saw("prod", "the-password-of-one") })
	n.set("prod", "one", "changed-by-hand")
	eventually(t, "the change by hand is found", func() bool { return state(t, s, "pair").State == "quarantined" })
	must[*kms.DescribeRotationResponse](t)(s.Client.RepairRotation(ctx, &kms.RepairRotationRequest{
		SecretName:   "pair",
		RepairAction: "adopt",
		VersionID:    "v2",
		SecretData:   sensitive.New(`{"Accounts":[{"AccountName":"one","AccountPassword":"changed-by-hand"}]}`),
	}))
	if r := state(t, s, "pair"); r.State != "done" {
		t.Errorf("after the repair: %s, %s", r.State, r.Reason)
	}
}

// TestSimulationJudgesTheWholeCall verifies that a simulated operation is allowed only where the
// call would be: with the rights on the accounts that it changes.
func TestSimulationJudgesTheWholeCall(t *testing.T) {
	t.Parallel()
	s, _, _ := spyWorld(t)
	ctx, admin := t.Context(), ram.New(s.Client)
	newUser(t, admin, "half", document(allow("kms:RotateSecret", "acs:kms:*:*:secret/*")))
	newUser(t, admin, "whole",
		document(allow("kms:RotateSecret", "acs:kms:*:*:secret/*"),
			allow("kms:RotateAccount", "acs:kms:*:*:target/idp/account/pay")))
	for user, allowed := range map[string]bool{"half": false, "whole": true} {
		in := &ram.SimulatePolicyRequest{UserName: user, Operation: "RotateSecret", SecretName: "pay/client"}
		out := must[*ram.SimulatePolicyResponse](t)(admin.SimulatePolicy(ctx, in))
		if out.Allowed != allowed || out.Action != "kms:RotateAccount" && !allowed || len(out.Judged) != 2 {
			t.Errorf("%s: %+v", user, out)
		}
	}
	auditor, _ := client(t, s, newUser(t, admin, "auditor", document(allow("ram:SimulatePolicy", "*"))), false)
	out := must[*ram.SimulatePolicyResponse](t)(ram.New(auditor).SimulatePolicy(ctx, &ram.SimulatePolicyRequest{
		UserName:   "whole",
		Operation:  "RotateSecret",
		SecretName: "pay/client",
	}))
	if !out.Partial || len(out.Judged) != 1 {
		t.Errorf("a caller who may not describe the rotation learns %+v", out)
	}
	in := &ram.SimulatePolicyRequest{
		UserName:  "whole",
		Operation: "RotateAccount",
		Resource:  "acs:kms:local:" + s.AccountID + ":target/idp/account/other",
	}
	if out := must[*ram.SimulatePolicyResponse](t)(admin.SimulatePolicy(ctx, in)); out.Allowed {
		t.Errorf("another account: %+v", out)
	}
	c, _ := client(t, s, newUser(t, admin, "caller", document(allow("kms:RotateSecret", "acs:kms:*:*:secret/*"))), false)
	_, err := c.RotateSecret(ctx, &kms.RotateSecretRequest{SecretName: "pay/client", VersionID: "v2"})
	var denied *kms.Error
	if !errors.As(err, &denied) || denied.DeniedAction != "kms:RotateAccount" {
		t.Errorf("the error of a refused call: %+v", err)
	}
}
