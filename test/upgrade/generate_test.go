package upgrade_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sign"
	"github.com/keyturn/keyturn/test/support"
)

var (
	old  = flag.String("upgrade.old", "", "the keyturn of an older release, which writes a new archive")
	into = flag.String("upgrade.into", "", "the archive that it writes")
)

// TestGenerate writes an archive with the server of an older release:
//
//	go test ./test/upgrade -run TestGenerate -upgrade.old /path/to/keyturn -upgrade.into testdata/NAME.tar.gz
func TestGenerate(t *testing.T) {
	if *old == "" || *into == "" {
		t.Skip("archives are written by hand, once for each release whose formats differ")
	}
	g := &generator{t: t, dir: t.TempDir(), m: manifest{Keys: map[string]accessKey{}, LastGood: map[string]string{}}}
	stop := g.serve()
	g.fill()
	g.read()
	g.cache()
	g.m.At = time.Now().UTC()
	stop()
	report, err := audit.Verify(filepath.Join(g.dir, "data", "audit"))
	if err != nil {
		t.Fatal(err)
	}
	g.m.Records = report.Records
	text, err := json.MarshalIndent(g.m, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(g.dir, "manifest.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := pack(g.dir, *into); err != nil {
		t.Fatal(err)
	}
}

type generator struct {
	t   *testing.T
	dir string
	m   manifest
}

// serve runs the old server. Its function stops it in order.
func (g *generator) serve() func() {
	data := filepath.Join(g.dir, "data")
	server := exec.CommandContext(g.t.Context(), *old, "serve", "--data-dir", data,
		"--listen", "127.0.0.1:0", "--listen-http", "127.0.0.1:0")
	if err := server.Start(); err != nil {
		g.t.Fatal(err)
	}
	var admin struct {
		Account  string `json:"account_id"`
		ID       string `json:"access_key_id"`
		Secret   string `json:"access_key_secret"`
		Endpoint string `json:"http_endpoint"`
	}
	support.Until(g.t, "the old server to serve", func() bool {
		text, err := os.ReadFile(filepath.Join(data, "admin.json"))
		if err != nil || json.Unmarshal(text, &admin) != nil {
			return false
		}
		g.m.Account, g.m.Endpoint = admin.Account, "http://"+admin.Endpoint
		g.m.Keys["root"] = accessKey{admin.ID, admin.Secret}
		_, code := g.call(read{Who: "root", Action: "DescribeRegions"})
		return code == ""
	})
	return func() {
		if err := server.Process.Signal(syscall.SIGTERM); err != nil {
			g.t.Fatal(err)
		}
		if err := server.Wait(); err != nil {
			g.t.Fatal(err)
		}
	}
}

// call makes a call and returns its answer, or the code of its error.
func (g *generator) call(r read) (answer any, code string) {
	c, err := kms.NewClient(kms.Config{Endpoint: g.m.Endpoint, Credentials: g.m.Keys[r.Who].credentials(), MaxAttempts: 1})
	if err != nil {
		g.t.Fatal(err)
	}
	return ask(g.t.Context(), c, r)
}

func ask(ctx context.Context, c *kms.Client, r read) (answer any, code string) {
	body, err := c.Do(ctx, kms.Call{Action: r.Action, Version: r.Version, Params: r.params()})
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	if err != nil {
		var e *kms.Error
		if errors.As(err, &e) {
			return nil, e.Code
		}
		return nil, err.Error()
	}
	if members, ok := answer.(map[string]any); ok {
		delete(members, "RequestId")
	}
	return answer, ""
}

// do makes a call of the root account that must succeed.
func (g *generator) do(version, action string, params ...string) any {
	g.t.Helper()
	answer, code := g.call(read{Who: "root", Version: version, Action: action, Params: params})
	if code != "" {
		g.t.Fatalf("%s %v: %s", action, params, code)
	}
	return answer
}

func (g *generator) user(name string) {
	g.t.Helper()
	g.do(ram.Version, "CreateUser", "UserName", name, "Email", name+"@example.test")
	answer := g.do(ram.Version, "CreateAccessKey", "UserName", name).(map[string]any)["AccessKey"].(map[string]any)
	g.m.Keys[name] = accessKey{answer["AccessKeyId"].(string), answer["AccessKeySecret"].(string)}
}

// fill makes everything that a store holds.
func (g *generator) fill() {
	principal := func(name string) string { return `{"RAM":["acs:ram::` + g.m.Account + `:` + name + `"]}` }
	policy := func(effect, name, action string) string {
		return `{"Version":"1","Statement":[{"Effect":"Allow","Principal":` + principal("*") +
			`,"Action":["kms:*"],"Resource":["*"]},` +
			`{"Effect":"` + effect + `","Principal":` + principal(name) + `,"Action":["` + action + `"],"Resource":["*"]}]}`
	}
	for _, name := range []string{"alice", "bob", "carol", "robot"} {
		g.user(name)
	}
	g.do(ram.Version, "CreateGroup", "GroupName", "team", "Comments", "those who read")
	g.do(ram.Version, "AddUserToGroup", "GroupName", "team", "UserName", "bob")
	g.do(ram.Version, "AttachPolicyToGroup", "GroupName", "team",
		"PolicyType", "System", "PolicyName", "AliyunKMSSecretUserAccess")
	identity := func(action string) string {
		return `{"Version":"1","Statement":[{"Effect":"Allow","Action":"` + action +
			`","Resource":"acs:kms:*:*:secret/app/*"}]}`
	}
	g.do(ram.Version, "CreatePolicy", "PolicyName", "describe-app", "PolicyDocument", identity("kms:List*"))
	g.do(ram.Version, "CreatePolicyVersion", "PolicyName", "describe-app", "PolicyDocument", identity("kms:Describe*"),
		"SetAsDefault", "true")
	g.do(ram.Version, "AttachPolicyToUser", "UserName", "alice", "PolicyType", "Custom", "PolicyName", "describe-app")

	create := func(name, kind, config, data string, more ...string) {
		params := append([]string{"SecretName", name, "VersionId", "v1", "SecretData", data}, more...)
		if kind != "" {
			params = append(params, "SecretType", kind, "ExtendedConfig", config)
		}
		g.do(kms.Version, "CreateSecret", params...)
	}
	create("app/granted", "", "", "read by alice alone", "Policy", policy("Allow", "user/alice", "kms:GetSecretValue"))
	create("app/denied", "", "", "not read by bob", "Policy", policy("Deny", "user/bob", "kms:Get*"))
	create("app/stolen", "", "", "was carol's", "Policy", policy("Allow", "user/carol", "kms:GetSecretValue"))
	create("app/text", "", "", "first", "Description", "several versions", "Tags", `[{"TagKey":"env","TagValue":"prod"}]`)
	g.do(kms.Version, "PutSecretValue", "SecretName", "app/text", "VersionId", "v2", "SecretData", "second")
	g.do(kms.Version, "PutSecretValue", "SecretName", "app/text", "VersionId", "v3",
		"SecretData", "third", "VersionStages", `["next"]`)
	create("app/binary", "", "", "AAECAw==", "SecretDataType", "binary")
	create("app/leaving", "", "", "deleted in a month")
	g.do(kms.Version, "DeleteSecret", "SecretName", "app/leaving", "RecoveryWindowInDays", "30")
	create("app/restored", "", "", "back again")
	g.do(kms.Version, "DeleteSecret", "SecretName", "app/restored", "RecoveryWindowInDays", "7")
	g.do(kms.Version, "RestoreSecret", "SecretName", "app/restored")
	create("app/gone", "", "", "gone for good")
	g.do(kms.Version, "DeleteSecret", "SecretName", "app/gone", "ForceDeleteWithoutRecovery", "true")

	create("admin", "", "", `{"AccountName":"rotator","AccountPassword":"an-administrators-password"}`)
	// No server listens on this port, so rotations begin and do not end.
	config := `{"address":"127.0.0.1:1","database":"app","tls":{"off":true}}`
	g.target("db", config)
	g.target("forgotten", config)
	g.do(kms.Version, "DeregisterTarget", "TargetName", "forgotten")
	account := func(name string) string {
		return `{"AccountName":"` + name + `","AccountPassword":"password-of-` + name + `"}`
	}
	create("db/single", kms.TypeRds, `{"SecretSubType":"SingleUser","DBInstanceId":"db","CustomData":{"owner":"team"}}`,
		`{"Accounts":[`+account("one")+`]}`,
		"EnableAutomaticRotation", "true", "RotationInterval", "7d")
	create("db/double", kms.TypeRds, `{"SecretSubType":"DoubleUsers","DBInstanceId":"db"}`,
		`{"Accounts":[`+account("two")+`,`+account("three")+`]}`)
	create("db/idle", kms.TypeRds, `{"SecretSubType":"SingleUser","DBInstanceId":"db"}`,
		`{"Accounts":[`+account("four")+`]}`)
	create("db/generic", "", "", `{"username":"five","password":"password-of-five"}`)
	g.do(kms.Version, "ConfigureRotation", "SecretName", "db/generic", "TargetName", "db",
		"EnableAutomaticRotation", "true", "Cron", "0 3 * * 0", "TimeZone", "Europe/Berlin",
		"Window", "Sat,Sun 01:00-05:00", "GracePeriod", "2h",
		"Group", "weekend", "GroupGap", "1d")
	create("$Auto", kms.TypeRAMCredentials, `{"SecretSubType":"RamUserAccessKey","UserName":"robot"}`,
		fmt.Sprintf(`{"AccessKeys":[{"AccessKeyId":%q,"AccessKeySecret":%q}]}`, g.m.Keys["robot"].ID,
			g.m.Keys["robot"].Secret))
	create("acs/ecs/host", kms.TypeECS, `{"SecretSubType":"Password","RegionId":"local","InstanceId":"i-1"}`,
		`{"UserName":"root","Password":"password-of-root"}`)
	g.do(kms.Version, "RotateSecret", "SecretName", "acs/ram/user/robot", "VersionId", "r1")
	g.wait("acs/ram/user/robot", "grace")
	g.do(kms.Version, "RotateSecret", "SecretName", "db/single", "VersionId", "r1")
	g.do(kms.Version, "PauseRotation", "SecretName", "db/idle")
	g.wait("db/single", "")
	g.do(kms.Version, "PauseRotation")

	// The user whom the policy of app/stolen names is another one now.
	g.do(ram.Version, "DeleteAccessKey", "UserName", "carol", "UserAccessKeyId", g.m.Keys["carol"].ID)
	g.do(ram.Version, "DeleteUser", "UserName", "carol")
	g.user("carol")
	g.do(kms.Version, "GetSecretValue", "SecretName", "app/text", "Consumer", "instance-1")
}

func (g *generator) target(name, config string) {
	g.do(kms.Version, "RegisterTarget", "TargetName", name, "Kind", "postgresql", "Config", config,
		"AdminSecretName", "admin", "Description", "a database that is away")
}

// wait waits until a rotation is in a state; with none, until its first attempt has failed.
func (g *generator) wait(name, state string) {
	support.Until(g.t, fmt.Sprintf("the rotation of %s to be in state %q", name, state), func() bool {
		answer := g.do(kms.Version, "DescribeRotation", "SecretName", name).(map[string]any)
		attempt, _ := answer["Attempt"].(float64)
		reason, _ := answer["Reason"].(string)
		return answer["State"] == state || state == "" && (attempt > 0 || reason != "")
	})
}

// read asks everything that can be asked and keeps the answers.
func (g *generator) read() {
	for _, r := range reads() {
		if r.Answer, r.Code = g.call(r); r.Action == "" {
			g.t.Fatal("a call without an action")
		}
		g.m.Reads = append(g.m.Reads, r)
	}
}

// reads are the calls of an archive.
func reads() []read {
	var list []read
	add := func(who, version, action string, params ...string) {
		list = append(list, read{Who: who, Version: version, Action: action, Params: params})
	}
	add("root", kms.Version, "ListSecrets", "PageSize", "100", "FetchTags", "true")
	add("root", kms.Version, "ListRotations", "MaxResults", "100")
	add("root", kms.Version, "ListTargets")
	add("root", kms.Version, "ListTagResources", "RegionId", "local", "ResourceType", "secret")
	for _, name := range []string{
		"app/granted", "app/denied", "app/stolen", "app/text", "app/binary", "app/leaving", "app/restored",
		"app/gone", "admin", "db/single", "db/double", "db/idle", "db/generic", "acs/ram/user/robot", "acs/ecs/host",
	} {
		for _, action := range []string{"DescribeSecret", "GetSecretPolicy", "DescribeRotation", "ListSecretConsumers"} {
			params := []string{"SecretName", name}
			if action == "GetSecretPolicy" {
				params = append(params, "PolicyName", "default")
			}
			add("root", kms.Version, action, params...)
		}
		add("root", kms.Version, "ListSecretVersionIds", "SecretName", name, "IncludeDeprecated", "true")
		for _, version := range []string{"", "v1", "v2", "v3", "r1"} {
			add("root", kms.Version, "GetSecretValue", "SecretName", name, "VersionId", version)
		}
		for _, who := range []string{"alice", "bob", "carol"} {
			add(who, kms.Version, "GetSecretValue", "SecretName", name)
			add(who, kms.Version, "DescribeSecret", "SecretName", name)
		}
	}
	add("root", kms.Version, "DescribeTarget", "TargetName", "db")
	add("root", kms.Version, "DescribeTarget", "TargetName", "forgotten")
	for _, action := range []string{"ListUsers", "ListGroups"} {
		add("root", ram.Version, action)
	}
	add("root", ram.Version, "ListPolicies", "PolicyType", "Custom")
	add("root", ram.Version, "ListPolicyVersions", "PolicyType", "Custom", "PolicyName", "describe-app")
	add("root", ram.Version, "GetPolicy", "PolicyType", "Custom", "PolicyName", "describe-app")
	add("root", ram.Version, "ListEntitiesForPolicy", "PolicyType", "System", "PolicyName", "AliyunKMSSecretUserAccess")
	add("root", ram.Version, "ListUsersForGroup", "GroupName", "team")
	for _, name := range []string{"alice", "bob", "carol", "robot"} {
		for _, action := range []string{"GetUser", "ListAccessKeys", "ListPoliciesForUser", "ListGroupsForUser"} {
			add("root", ram.Version, action, "UserName", name)
		}
	}
	for _, who := range []string{"root", "alice", "bob", "carol"} {
		add(who, kms.STSVersion, "GetCallerIdentity")
	}
	return list
}

// cache has the old agent keep the last known values of two secrets.
func (g *generator) cache() {
	key := g.m.Keys["root"]
	for name, value := range map[string]string{"app/text": "second", "app/restored": "back again"} {
		g.m.LastGood[name] = value
		c := exec.CommandContext(g.t.Context(), *old, "exec", "--secret", name+"=VALUE_", "--last-good",
			filepath.Join(g.dir, "last-good"),
			"--last-good-key", filepath.Join(g.dir, "last-good.key"), "--", "true")
		c.Env = append(os.Environ(), "KEYTURN_CONFIG_DIR="+g.t.TempDir(), "KEYTURN_ENDPOINT="+g.m.Endpoint,
			"KEYTURN_ACCESS_KEY_ID="+key.ID,
			"KEYTURN_ACCESS_KEY_SECRET="+sign.Credentials(key.credentials()).AccessKeySecret.Reveal())
		if out, err := c.CombinedOutput(); err != nil {
			g.t.Fatalf("exec: %v\n%s", err, out)
		}
	}
}
