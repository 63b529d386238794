package secret

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

func value(s string) sensitive.Value { return sensitive.New(s) }

const (
	oneAccount  = `{"Accounts":[{"AccountName":"a","AccountPassword":"p"}]}`
	twoAccounts = `{"Accounts":[{"AccountName":"a","AccountPassword":"p"},{"AccountName":"b","AccountPassword":"q"}]}`
	redisConfig = `{"SecretSubType":"DoubleUsers","RegionId":"local","InstanceId":"r-1","AccountName":"u",` +
		`"CloneAccountName":"u_clone","AccountPrivilege":"RoleReadWrite"}`
)

func TestSpecCheck(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		spec  Spec
		param string // "" when it is good
		text  string
	}{
		{"generic", Spec{Name: "a", Type: kms.TypeGeneric}, "", ""},
		{"generic with configuration", Spec{Name: "a", Type: kms.TypeGeneric, ExtendedConfig: "{}"}, "ExtendedConfig",
			"managed types"},
		{"generic reserved", Spec{Name: "acs/x", Type: kms.TypeGeneric}, "SecretName", "reserved"},
		{"generic auto", Spec{Name: kms.Auto, Type: kms.TypeGeneric}, "SecretName", "RAMCredentials"},
		{"rds", Spec{
			Name:           "a",
			Type:           kms.TypeRds,
			ExtendedConfig: `{"SecretSubType":"SingleUser","DBInstanceId":"x"}`,
			Data:           value(oneAccount),
		}, "", ""},
		{"rds two", Spec{
			Name:           "a",
			Type:           kms.TypeRds,
			ExtendedConfig: `{"SecretSubType":"DoubleUsers","DBInstanceId":"x"}`,
			Data:           value(twoAccounts),
		}, "", ""},
		{"rds one of two", Spec{
			Name:           "a",
			Type:           kms.TypeRds,
			ExtendedConfig: `{"SecretSubType":"DoubleUsers","DBInstanceId":"x"}`,
			Data:           value(oneAccount),
		}, "SecretData", "two different accounts"},
		{"rds twice the same", Spec{
			Name:           "a",
			Type:           kms.TypeRds,
			ExtendedConfig: `{"SecretSubType":"DoubleUsers","DBInstanceId":"x"}`,
			Data:           value(strings.ReplaceAll(twoAccounts, `"b"`, `"a"`)),
		}, "SecretData", "different"},
		{"rds no configuration", Spec{Name: "a", Type: kms.TypeRds, Data: value(oneAccount)}, "ExtendedConfig", ""},
		{"rds no instance", Spec{
			Name:           "a",
			Type:           kms.TypeRds,
			ExtendedConfig: `{"SecretSubType":"SingleUser"}`,
			Data:           value(oneAccount),
		}, "ExtendedConfig", "DBInstanceId"},
		{"rds sub type", Spec{
			Name:           "a",
			Type:           kms.TypeRds,
			ExtendedConfig: `{"SecretSubType":"Triple","DBInstanceId":"x"}`,
			Data:           value(oneAccount),
		}, "ExtendedConfig", "SingleUser, DoubleUsers"},
		{"rds not an object", Spec{
			Name:           "a",
			Type:           kms.TypeRds,
			ExtendedConfig: `[]`,
			Data:           value(oneAccount),
		}, "ExtendedConfig", "JSON object"},
		{"rds custom data", Spec{
			Name:           "a",
			Type:           kms.TypeRds,
			ExtendedConfig: `{"SecretSubType":"SingleUser","DBInstanceId":"x","CustomData":{"a":1}}`,
			Data:           value(oneAccount),
		}, "ExtendedConfig", "CustomData"},
		{"binary", Spec{
			Name:     "a",
			Type:     kms.TypeRds,
			DataType: kms.DataBinary,
			Data:     value(oneAccount),
		}, "SecretDataType", "text"},
		{"redis", Spec{Name: "a", Type: kms.TypeRedis, ExtendedConfig: redisConfig, Data: value(kms.Auto)}, "", ""},
		{"redis not auto", Spec{
			Name:           "a",
			Type:           kms.TypeRedis,
			ExtendedConfig: redisConfig,
			Data:           value("x"),
		}, "SecretData", "$Auto"},
		{"polardb type", Spec{
			Name: "a",
			Type: kms.TypePolarDB,
			ExtendedConfig: `{"SecretSubType":"DoubleUsers","RegionId":"r","DBClusterId":"c","DBType":"Oracle",` +
				`"AccountName":"u"}`,
			Data: value(kms.Auto),
		}, "ExtendedConfig", "MySQL, PostgreSQL"},
		{"ram", Spec{
			Name:           kms.Auto,
			Type:           kms.TypeRAMCredentials,
			ExtendedConfig: `{"SecretSubType":"RamUserAccessKey","UserName":"bob"}`,
			Data:           value(`{"AccessKeys":[{"AccessKeyId":"i","AccessKeySecret":"s"}]}`),
		}, "", ""},
		{"ram named",
			Spec{Name: "bob", Type: kms.TypeRAMCredentials,
				ExtendedConfig: `{"SecretSubType":"RamUserAccessKey","UserName":"bob"}`}, "SecretName", "$Auto"},
		{"ecs", Spec{
			Name:           "acs/ecs/h",
			Type:           kms.TypeECS,
			ExtendedConfig: `{"SecretSubType":"Password","RegionId":"r","InstanceId":"i"}`,
			Data:           value(`{"UserName":"u","Password":"p"}`),
		}, "", ""},
		{"ecs key", Spec{
			Name:           "acs/ecs/h",
			Type:           kms.TypeECS,
			ExtendedConfig: `{"SecretSubType":"SSHKey","RegionId":"r","InstanceId":"i"}`,
			Data:           value(`{"UserName":"u","PublicKey":"p","PrivateKey":"k"}`),
		}, "", ""},
		{"ecs shape", Spec{
			Name:           "acs/ecs/h",
			Type:           kms.TypeECS,
			ExtendedConfig: `{"SecretSubType":"SSHKey","RegionId":"r","InstanceId":"i"}`,
			Data:           value(`{"UserName":"u","Password":"p"}`),
		}, "SecretData", "PublicKey"},
		{"ecs name", Spec{
			Name:           "h",
			Type:           kms.TypeECS,
			ExtendedConfig: `{"SecretSubType":"Password","RegionId":"r","InstanceId":"i"}`,
			Data:           value(`{"UserName":"u","Password":"p"}`),
		}, "SecretName", "acs/ecs/"},
		{"no interval", Spec{Name: "a", Type: kms.TypeRds, EnableRotation: true}, "RotationInterval", ""},
		{"instance id", Spec{Name: "a", Type: kms.TypeGeneric, DKMSInstanceID: strings.Repeat("x", 129)}, "DKMSInstanceId",
			"128"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.spec.DataType == "" {
				tt.spec.DataType = kms.DataText
			}
			_, err := tt.spec.Check()
			if tt.param == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			var f *fault.Error
			if !errors.As(err, &f) || f.Param != tt.param || !strings.Contains(f.Msg, tt.text) {
				t.Errorf("err = %v, want one that names %s and says %q", err, tt.param, tt.text)
			}
		})
	}
}

func TestPresent(t *testing.T) {
	t.Parallel()
	v := Version{CreatedAt: t0}
	auto := AutoAccounts(redisConfig, func() sensitive.Value { return value("generated") })
	for _, tt := range []struct{ kind, stored, want string }{
		{kms.TypeGeneric, oneAccount, oneAccount},
		{kms.TypeRds, twoAccounts, `{"AccountName":"a","AccountPassword":"p"}`},
		{kms.TypeRedis, auto.Reveal(), `{"AccountName":"u","AccountPassword":"generated"}`},
		{kms.TypeRAMCredentials, `{"AccessKeys":[{"AccessKeyId":"i","AccessKeySecret":"s"}]}`,
			`{"AccessKeyId":"i","AccessKeySecret":"s","GenerateTimestamp":"2026-01-02T03:04:05Z"}`},
		{kms.TypeECS, `{"UserName":"u","Password":"p"}`, `{"UserName":"u","Password":"p"}`},
	} {
		if got := (Secret{Type: tt.kind}).Present(v, value(tt.stored)).Reveal(); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.kind, got, tt.want)
		}
	}
	if !strings.Contains(auto.Reveal(), `"u_clone"`) {
		t.Error("the second account is not among the data of a Redis secret")
	}
}

func TestUpdateMetadata(t *testing.T) {
	t.Parallel()
	s, text := managed(t), "changed"
	got, err := s.UpdateMetadata(&text, map[string]string{"DBName": "app"}, t0.Add(time.Hour))
	want := `{"CustomData":{"DBName":"app"},"DBInstanceId":"pg-main","SecretSubType":"SingleUser"}`
	if err != nil || got.Description != text || got.ExtendedConfig != want || !got.UpdatedAt.After(s.UpdatedAt) {
		t.Errorf("UpdateMetadata = %q, %s, %v; want %s", got.Description, got.ExtendedConfig, err, want)
	}
	if got, err := s.UpdateMetadata(nil, nil, t0); err != nil || got.Description != s.Description {
		t.Errorf("an absent description is left: %q, %v", got.Description, err)
	}
	many := map[string]string{}
	for i := range 11 {
		many[string(rune('a'+i))] = "x"
	}
	for name, custom := range map[string]map[string]string{"pairs": many, "length": {"k": strings.Repeat("x", 1024)}} {
		if _, err := s.UpdateMetadata(nil, custom, t0); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v, want Invalid", name, err)
		}
	}
	if _, err := generic(t, 1).UpdateMetadata(nil, map[string]string{}, t0); fault.KindOf(err) != fault.Invalid {
		t.Errorf("CustomData of a Generic secret: %v", err)
	}
}

func TestPassword(t *testing.T) {
	t.Parallel()
	random := bytes.NewReader(bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuvwxyz\x00\xff\x80\x42"), 4096))
	for _, spec := range []PasswordSpec{
		{Length: 8}, {Length: 128, EachClass: true}, {Length: 32, NoUpper: true, NoDigits: true, NoPunctuation: true},
		{Length: 32, Exclude: "abc0123456789", EachClass: false}, {Length: 16, NoPunctuation: true, EachClass: true},
	} {
		p, err := Password(spec, random)
		if err != nil || p.Len() != spec.Length || strings.ContainsAny(p.Reveal(), spec.Exclude+" `") {
			t.Errorf("%+v: length %d, %v", spec, p.Len(), err)
		}
		for i, off := range []bool{spec.NoLower, spec.NoUpper, spec.NoDigits, spec.NoPunctuation} {
			if has := strings.ContainsAny(p.Reveal(), classes[i]); has && off || !has && spec.EachClass && !off {
				t.Errorf("%+v: class %d is there: %v", spec, i, has)
			}
		}
	}
	for _, spec := range []PasswordSpec{
		{Length: 8, NoLower: true, NoUpper: true, NoDigits: true, NoPunctuation: true},
		{Length: 8, Exclude: "0123456789", EachClass: true},
	} {
		if _, err := Password(spec, random); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%+v: %v, want Invalid", spec, err)
		}
	}
	if len(classes[3]) != 31 {
		t.Errorf("%d punctuation characters, want the 31 of the reference", len(classes[3]))
	}
}
