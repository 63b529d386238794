package api_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
)

const (
	adminValue = `{"AccountName":"rotator","AccountPassword":"the-administrators-password"}`
	appValue   = `{"Accounts":[{"AccountName":"app","AccountPassword":"the-applications-password"}]}`
	toMemory   = `{"address":"db.example.test"}`
)

func register(kind, name, admin string) try {
	return func(ctx context.Context, c *kms.Client, dir string) error {
		fill := strings.NewReplacer("$D", dir).Replace
		_, err := c.RegisterTarget(ctx, &kms.RegisterTargetRequest{
			TargetName:      fill(name),
			Kind:            kind,
			Config:          toMemory,
			AdminSecretName: fill(admin),
		})
		return err
	}
}

func update(name string, in kms.UpdateTargetRequest) try {
	return func(ctx context.Context, c *kms.Client, dir string) error {
		fill := strings.NewReplacer("$D", dir).Replace
		in.TargetName, in.AdminSecretName = fill(name), fill(in.AdminSecretName)
		_, err := c.UpdateTarget(ctx, &in)
		return err
	}
}

func createRds(target string) try {
	return func(ctx context.Context, c *kms.Client, dir string) error {
		_, err := c.CreateSecret(ctx, &kms.CreateSecretRequest{
			SecretName: dir + "/new", SecretType: kms.TypeRds, VersionID: "v1", SecretData: sensitive.New(appValue),
			ExtendedConfig: fmt.Sprintf(`{"SecretSubType":"SingleUser","DBInstanceId":%q}`,
				strings.ReplaceAll(target, "$D", dir)),
		})
		return err
	}
}

func configure(ctx context.Context, c *kms.Client, dir string) error {
	_, err := c.ConfigureRotation(ctx, &kms.ConfigureRotationRequest{SecretName: dir + "/app", TargetName: dir + ".db"})
	return err
}

func schedule(ctx context.Context, c *kms.Client, dir string) error {
	_, err := c.UpdateSecretRotationPolicy(ctx, &kms.UpdateSecretRotationPolicyRequest{
		SecretName:              dir + "/rds",
		EnableAutomaticRotation: true,
		RotationInterval:        "7d",
	})
	return err
}

func deregister(detach bool) try {
	return func(ctx context.Context, c *kms.Client, dir string) error {
		_, err := c.DeregisterTarget(ctx, &kms.DeregisterTargetRequest{TargetName: dir + ".db", Detach: detach})
		return err
	}
}

func tryCredential(ctx context.Context, c *kms.Client, dir string) error {
	_, err := c.TestTarget(ctx, &kms.TestTargetRequest{TargetName: dir + ".db", SecretName: dir + "/rds"})
	return err
}

func tryAdmin(ctx context.Context, c *kms.Client, dir string) error {
	_, err := c.TestTarget(ctx, &kms.TestTargetRequest{TargetName: dir + ".db"})
	return err
}

func pause(in kms.PauseRotationRequest) try {
	return func(ctx context.Context, c *kms.Client, dir string) error {
		fill := strings.NewReplacer("$D", dir).Replace
		in.SecretName, in.TargetName = fill(in.SecretName), fill(in.TargetName)
		_, err := c.PauseRotation(ctx, &in)
		return err
	}
}

// TestTargetDecisions: the server sends an administrator's credential to where a target's
// configuration says, and changes accounts there, so the right to say so is not given by the right
// on the target alone. In a text $D is the folder of the case: $D.db is a target registered with
// the secret $D/admin, $D/rds a managed secret of it, $D/app a Generic one.
func TestTargetDecisions(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t, server.Change(func(c *server.Config) {
		c.Kinds = newMemory("rotator", "the-administrators-password").kinds()
	}))
	admin := ram.New(s.Client)
	const (
		targets = "acs:kms:*:*:target"
		db      = "acs:kms:*:*:target/$D.db"
		admins  = "acs:kms:*:*:secret/$D/admin"
		others  = "acs:kms:*:*:secret/$D/other"
		secrets = "acs:kms:*:*:secret/$D/*"
		app     = "acs:kms:*:*:target/$D.db/account/app"
		app2    = "acs:kms:*:*:target/$D.db/account/app2"
		no      = kms.CodeNoPermission
	)
	text := "another"
	for i, tt := range []struct {
		name string
		user []string // statements
		own  string   // a statement of the policy of $D/admin
		do   try
		want string
	}{
		{
			name: "register, targets alone",
			user: []string{allow("kms:RegisterTarget", targets)},
			do:   register("memory", "$D.new", "$D/admin"),
			want: no,
		},
		{
			name: "register, the secret alone",
			user: []string{allow("kms:RegisterTarget", admins)},
			do:   register("memory", "$D.new", "$D/admin"),
			want: no,
		},
		{
			name: "register, reading the secret is another right",
			user: []string{allow("kms:RegisterTarget", targets), allow("kms:GetSecretValue", admins)},
			do:   register("memory", "$D.new", "$D/admin"),
			want: no,
		},
		{
			name: "register, another secret",
			user: []string{allow("kms:RegisterTarget", targets), allow("kms:RegisterTarget", others)},
			do:   register("memory", "$D.new", "$D/admin"),
			want: no,
		},
		{
			name: "register, both",
			user: []string{
				allow("kms:RegisterTarget", targets), allow("kms:RegisterTarget", admins), allow("kms:GetSecretValue", admins),
			},
			do: register("memory", "$D.new", "$D/admin"),
		},
		{
			name: "register, without reading the secret",
			user: []string{allow("kms:RegisterTarget", targets), allow("kms:RegisterTarget", admins)},
			do:   register("memory", "$D.new", "$D/admin"),
			want: no,
		},
		{
			name: "register, both, by ARN",
			user: []string{
				allow("kms:RegisterTarget", targets), allow("kms:RegisterTarget", admins), allow("kms:GetSecretValue", admins),
			},
			do: register("memory", "$D.new", "acs:kms:local:"+s.AccountID+":secret/$D/admin"),
		},
		{
			name: "register, by ARN, targets alone",
			user: []string{allow("kms:RegisterTarget", targets)},
			do:   register("memory", "$D.new", "acs:kms:local:"+s.AccountID+":secret/$D/admin"),
			want: no,
		},
		{
			name: "register, without an administrator",
			user: []string{allow("kms:RegisterTarget", targets)},
			do:   register("open", "$D.new", ""),
		},
		{
			name: "register, one target is not the collection",
			user: []string{allow("kms:RegisterTarget", "acs:kms:*:*:target/*")},
			do:   register("open", "$D.new", ""),
			want: no,
		},
		{
			name: "register, a missing secret",
			user: []string{allow("kms:RegisterTarget", targets)},
			do:   register("memory", "$D.new", "$D/none"),
			want: no,
		},
		{name: "register, the secret's own policy denies", user: []string{allow("kms:*", "*")},
			own:  `{"Effect":"Deny","Principal":{"RAM":"acs:ram::$A:user/$U"},"Action":"kms:RegisterTarget","Resource":"*"}`,
			do:   register("memory", "$D.new", "$D/admin"),
			want: no},
		{name: "register, the secret's own policy grants", user: []string{allow("kms:RegisterTarget", targets)},
			own: `{"Effect":"Allow","Principal":{"RAM":"acs:ram::$A:user/$U"},"Action":["kms:RegisterTarget",` +
				`"kms:GetSecretValue"],"Resource":"*"}`,
			do: register("memory", "$D.new", "$D/admin")},

		{
			name: "update a description, the target alone",
			user: []string{allow("kms:UpdateTarget", db)},
			do:   update("$D.db", kms.UpdateTargetRequest{Description: &text}),
		},
		{
			name: "update the address, the target alone",
			user: []string{allow("kms:UpdateTarget", db)},
			do:   update("$D.db", kms.UpdateTargetRequest{Config: toMemory}),
			want: no,
		},
		{
			name: "update the address, target and administrator",
			user: []string{
				allow("kms:UpdateTarget", db), allow("kms:UpdateTarget", admins), allow("kms:GetSecretValue", admins),
			},
			do:   update("$D.db", kms.UpdateTargetRequest{Config: toMemory}),
			want: no,
		},
		{
			name: "update the address, all secrets, without reading them",
			user: []string{allow("kms:UpdateTarget", db), allow("kms:UpdateTarget", secrets)},
			do:   update("$D.db", kms.UpdateTargetRequest{Config: toMemory}),
			want: no,
		},
		{
			name: "update the address, target, administrator and attached secrets",
			user: []string{
				allow("kms:UpdateTarget", db), allow("kms:UpdateTarget", secrets), allow("kms:GetSecretValue", secrets),
			},
			do: update("$D.db", kms.UpdateTargetRequest{Config: toMemory}),
		},
		{
			name: "update the account policy, the target alone",
			user: []string{allow("kms:UpdateTarget", db)},
			do:   update("$D.db", kms.UpdateTargetRequest{Accounts: []string{"app*"}}),
		},
		{
			name: "update the administrator, the target alone",
			user: []string{allow("kms:UpdateTarget", db)},
			do:   update("$D.db", kms.UpdateTargetRequest{AdminSecretName: "$D/other"}),
			want: no,
		},
		{
			name: "update the administrator, target and the new one",
			user: []string{
				allow("kms:UpdateTarget", db), allow("kms:UpdateTarget", others), allow("kms:GetSecretValue", others),
			},
			do: update("$D.db", kms.UpdateTargetRequest{AdminSecretName: "$D/other"}),
		},
		{
			name: "update both, without the present administrator",
			user: []string{allow("kms:UpdateTarget", db), allow("kms:UpdateTarget", others)},
			do:   update("$D.db", kms.UpdateTargetRequest{Config: toMemory, AdminSecretName: "$D/other"}),
			want: no,
		},
		{
			name: "update both, all three",
			user: []string{
				allow("kms:UpdateTarget", db), allow("kms:UpdateTarget", secrets), allow("kms:GetSecretValue", secrets),
			},
			do: update("$D.db", kms.UpdateTargetRequest{Config: toMemory, AdminSecretName: "$D/other"}),
		},
		{
			name: "update a missing target without rights",
			do:   update("$D.none", kms.UpdateTargetRequest{Config: toMemory}),
			want: no,
		},
		{
			name: "update a missing target with rights",
			user: []string{allow("kms:UpdateTarget", "acs:kms:*:*:target/*")},
			do:   update("$D.none", kms.UpdateTargetRequest{Config: toMemory}),
			want: kms.CodeResourceNotFound,
		},

		{
			name: "managed secret, secrets alone",
			user: []string{allow("kms:CreateSecret", "acs:kms:*:*:secret")},
			do:   createRds("$D.db"),
			want: no,
		},
		{
			name: "managed secret, secrets and the target",
			user: []string{allow("kms:CreateSecret", "acs:kms:*:*:secret"), allow("kms:*", db)},
			do:   createRds("$D.db"),
			want: no,
		},
		{
			name: "managed secret, secrets and the account",
			user: []string{allow("kms:CreateSecret", "acs:kms:*:*:secret"), allow("kms:RotateAccount", app)},
			do:   createRds("$D.db"),
			want: kms.CodeResourceExist, // the rights are enough, and $D/rds holds the account
		},
		{
			name: "managed secret, another account",
			user: []string{allow("kms:CreateSecret", "acs:kms:*:*:secret"), allow("kms:RotateAccount", app2)},
			do:   createRds("$D.db"),
			want: no,
		},
		{
			name: "managed secret, another target",
			user: []string{
				allow("kms:CreateSecret", "acs:kms:*:*:secret"), allow("kms:RotateAccount", "acs:kms:*:*:target/$D.x/account/app"),
			},
			do:   createRds("$D.db"),
			want: no,
		},
		{
			name: "managed secret, of a target that is not registered",
			user: []string{allow("kms:CreateSecret", "acs:kms:*:*:secret")},
			do:   createRds("$D.x"),
			want: no,
		},
		{
			name: "managed secret, the account of a target that is not registered",
			user: []string{
				allow("kms:CreateSecret", "acs:kms:*:*:secret"), allow("kms:RotateAccount", "acs:kms:*:*:target/$D.x/account/app"),
			},
			do: createRds("$D.x"),
		},

		{
			name: "configure, the secret alone",
			user: []string{allow("kms:ConfigureRotation", secrets)},
			do:   configure,
			want: no,
		},
		{name: "configure, the target alone", user: []string{allow("kms:ConfigureRotation", db)}, do: configure, want: no},
		{
			name: "configure, both",
			user: []string{allow("kms:ConfigureRotation", secrets), allow("kms:ConfigureRotation", db)},
			do:   configure,
			want: no,
		},
		{
			name: "configure, without the account",
			user: []string{
				allow("kms:ConfigureRotation", secrets), allow("kms:ConfigureRotation", db), allow("kms:GetSecretValue", secrets),
			},
			do:   configure,
			want: no,
		},
		{
			name: "configure, without reading the value that is sent",
			user: []string{
				allow("kms:ConfigureRotation", secrets), allow("kms:ConfigureRotation", db), allow("kms:RotateAccount", app2),
			},
			do:   configure,
			want: no,
		},
		{
			name: "configure, all",
			user: []string{
				allow("kms:ConfigureRotation", secrets), allow("kms:ConfigureRotation", db), allow("kms:RotateAccount", app2),
				allow("kms:GetSecretValue", secrets),
			},
			do: configure,
		},
		{
			name: "schedule, the secret alone",
			user: []string{allow("kms:UpdateSecretRotationPolicy", secrets)},
			do:   schedule,
			want: no,
		},
		{
			name: "schedule, the secret and the account",
			user: []string{allow("kms:UpdateSecretRotationPolicy", secrets), allow("kms:RotateAccount", app)},
			do:   schedule,
		},
		{
			name: "schedule, another account",
			user: []string{allow("kms:*", secrets), allow("kms:RotateAccount", app2)},
			do:   schedule,
			want: no,
		},
		{
			name: "deregister, the target alone",
			user: []string{allow("kms:DeregisterTarget", db)},
			do:   deregister(false),
			want: kms.CodeResourceInUse,
		},
		{
			name: "deregister and detach, the target alone",
			user: []string{allow("kms:DeregisterTarget", db)},
			do:   deregister(true),
			want: no,
		},
		{
			name: "deregister and detach, target and attached secrets",
			user: []string{allow("kms:DeregisterTarget", db), allow("kms:RemoveRotation", secrets)},
			do:   deregister(true),
		},
		{
			name: "try a credential, the target alone",
			user: []string{allow("kms:TestTarget", db)},
			do:   tryCredential,
			want: no,
		},
		{
			name: "try a credential, both",
			user: []string{allow("kms:TestTarget", db), allow("kms:TestTarget", secrets)},
			do:   tryCredential,
		},
		{name: "try the administrator, the target alone", user: []string{allow("kms:TestTarget", db)}, do: tryAdmin},

		{
			name: "pause a secret",
			user: []string{allow("kms:PauseRotation", secrets)},
			do:   pause(kms.PauseRotationRequest{SecretName: "$D/rds"}),
		},
		{
			name: "pause a target with the right on secrets",
			user: []string{allow("kms:PauseRotation", "acs:kms:*:*:secret/*")},
			do:   pause(kms.PauseRotationRequest{TargetName: "$D.db"}),
			want: no,
		},
		{
			name: "pause everything with the right on secrets and targets",
			user: []string{allow("kms:PauseRotation", "acs:kms:*:*:*")},
			do:   pause(kms.PauseRotationRequest{}),
			want: no,
		},
		{name: "pause everything", user: []string{allow("kms:PauseRotation", "*")}, do: pause(kms.PauseRotationRequest{})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, user, dir := t.Context(), fmt.Sprintf("u%d", i), fmt.Sprintf("d%d", i)
			fill := strings.NewReplacer("$D", dir, "$A", s.AccountID, "$U", user).Replace
			must[*ram.UserResponse](t)(admin.CreateUser(ctx, &ram.CreateUserRequest{UserName: user}))
			in := &kms.CreateSecretRequest{SecretName: dir + "/admin", VersionID: "v1", SecretData: sensitive.New(adminValue)}
			if tt.own != "" {
				in.Policy = document(fill(`{"Effect":"Allow","Principal":{"RAM":"acs:ram::$A:*"},"Action":"kms:*","Resource":"*"}`),
					fill(tt.own))
			}
			must[*kms.CreateSecretResponse](t)(s.Client.CreateSecret(ctx, in))
			for name, value := range map[string]string{"/other": adminValue, "/app": `{"username":"app2","password":"x"}`} {
				must[*kms.CreateSecretResponse](t)(s.Client.CreateSecret(ctx, &kms.CreateSecretRequest{
					SecretName: dir + name,
					VersionID:  "v1",
					SecretData: sensitive.New(value),
				}))
			}
			must[*kms.TargetNameResponse](t)(s.Client.RegisterTarget(ctx, &kms.RegisterTargetRequest{
				TargetName:      dir + ".db",
				Kind:            "memory",
				Config:          toMemory,
				AdminSecretName: dir + "/admin",
			}))
			must[*kms.CreateSecretResponse](t)(s.Client.CreateSecret(ctx, &kms.CreateSecretRequest{
				SecretName: dir + "/rds", SecretType: kms.TypeRds, VersionID: "v1", SecretData: sensitive.New(appValue),
				ExtendedConfig: fmt.Sprintf(`{"SecretSubType":"SingleUser","DBInstanceId":%q}`, dir+".db"),
			}))
			var documents []string
			for _, st := range tt.user {
				documents = append(documents, fill(document(st)))
			}
			c, seen := client(t, s, newKey(t, admin, user, documents...), false)
			err := tt.do(ctx, c, dir)
			if kms.CodeOf(err) != tt.want || tt.want == "" && err != nil {
				t.Fatalf("answered %v; want code %q", err, tt.want)
			}
			if tt.want == no && seen.detail(t)["AuthPrincipalDisplayName"] != user {
				t.Errorf("AccessDeniedDetail %v; want one for %s, status %d", seen.detail(t), user, http.StatusForbidden)
			}
		})
	}
}
