package secret

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

func typed(kind, config string, settings *RotationSettings) Secret {
	return Secret{Name: "s", Type: kind, ExtendedConfig: config, Rotation: RotationPolicy{Settings: settings}}
}

// shown is a list of credentials as a test compares it.
func shown(list []target.Credential) string {
	var b strings.Builder
	for _, c := range list {
		fmt.Fprintf(&b, "%s:%s", c.Account, c.Secret.Reveal())
		if c.ID != "" {
			b.WriteString(" id=" + c.ID)
		}
		if c.Public != "" {
			b.WriteString(" public=" + c.Public)
		}
		b.WriteString(";")
	}
	return b.String()
}

// TestCredentials reads every shape that a value may have, and writes the next one in the same
// shape.
func TestCredentials(t *testing.T) {
	t.Parallel()
	next := target.Credential{Account: "b", Secret: sensitive.New(`n"e<w`), ID: "id2", Public: "pub2"}
	plain := target.Credential{Account: "b", Secret: sensitive.New("new")}
	for _, tt := range []struct {
		name           string
		s              Secret
		stored         string
		want           string
		next           target.Credential
		value, wantErr string
	}{
		{"Rds with one account", typed(kms.TypeRds, "", nil), `{"Accounts":[{"AccountName":"a","AccountPassword":"p"}]}`,
			"a:p;",
			next, `{"Accounts":[{"AccountName":"b","AccountPassword":"n\"e<w"}]}`, ""},
		{"Rds with two", typed(kms.TypeRds, "", nil),
			`{"Accounts":[{"AccountName":"a","AccountPassword":"p"},{"AccountName":"b","AccountPassword":"q"}]}`, "a:p;b:q;",
			plain, `{"Accounts":[{"AccountName":"b","AccountPassword":"new"}]}`, ""},
		{"Redis", typed(kms.TypeRedis, "", nil), `{"Accounts":[{"AccountName":"a","AccountPassword":"p"}]}`, "a:p;", plain,
			`{"Accounts":[{"AccountName":"b","AccountPassword":"new"}]}`, ""},
		{"PolarDB", typed(kms.TypePolarDB, "", nil), `{"Accounts":[{"AccountName":"a","AccountPassword":"p"}]}`, "a:p;",
			plain, `{"Accounts":[{"AccountName":"b","AccountPassword":"new"}]}`, ""},
		{"RAMCredentials", typed(kms.TypeRAMCredentials, `{"UserName":"robot"}`, nil),
			`{"AccessKeys":[{"AccessKeyId":"id1","AccessKeySecret":"k"}]}`, "robot:k id=id1;",
			next, `{"AccessKeys":[{"AccessKeyId":"id2","AccessKeySecret":"n\"e<w"}]}`, ""},
		{"ECS with a password", typed(kms.TypeECS, "", nil), `{"UserName":"root","Password":"p"}`, "root:p;", plain,
			`{"UserName":"b","Password":"new","PublicKey":"","PrivateKey":""}`, ""},
		{"ECS with a key", typed(kms.TypeECS, "", nil), `{"UserName":"root","PublicKey":"pub","PrivateKey":"priv"}`,
			"root:priv public=pub;",
			next, `{"UserName":"b","Password":"","PublicKey":"pub2","PrivateKey":"n\"e<w"}`, ""},

		{"Generic, our own names", typed(kms.TypeGeneric, "", nil), `{"AccountName":"a","AccountPassword":"p"}`, "a:p;", next,
			`{"AccountName":"b","AccountPassword":"n\"e<w"}`, ""},
		{"Generic, common names, others kept", typed(kms.TypeGeneric, "", nil),
			`{"username":"a","password":"p","host":"<h>","port":5432,"big":12345678901234567890,"tls":{"ca":null}}`, "a:p;",
			next, `{"big":12345678901234567890,"host":"<h>","password":"n\"e<w","port":5432,"tls":{"ca":null},"username":"b"}`,
			""},
		{"Generic, an app secret", typed(kms.TypeGeneric, "", nil), `{"client_id":"a","client_secret":"p","key_id":"id1"}`,
			"a:p id=id1;", next, `{"client_id":"b","client_secret":"n\"e<w","key_id":"id2"}`, ""},
		{"Generic, a key pair", typed(kms.TypeGeneric, "", nil), `{"UserName":"a","PublicKey":"pub","PrivateKey":"priv"}`,
			"a:priv public=pub;", next, `{"PrivateKey":"n\"e<w","PublicKey":"pub2","UserName":"b"}`, ""},
		{"Generic, an access key", typed(kms.TypeGeneric, "", &RotationSettings{Account: "a"}),
			`{"AccessKeyId":"id1","AccessKeySecret":"p"}`, "a:p id=id1;",
			next, `{"AccessKeyId":"id2","AccessKeySecret":"n\"e<w"}`, ""},
		{"Generic, an access key of nobody", typed(kms.TypeGeneric, "", nil), `{"AccessKeyId":"id1","AccessKeySecret":"p"}`,
			"", plain, "",
			`parameter AccountMember: the value of secret "s" names a key (member AccessKeyId), but not the account`},
		{"Generic, named members", typed(kms.TypeGeneric, "", &RotationSettings{AccountMember: "who", SecretMember: "word"}),
			`{"who":"a","word":"p","username":"x","password":"y"}`, "a:p;",
			next, `{"password":"y","username":"x","who":"b","word":"n\"e<w"}`, ""},
		{"Generic, unusual names of members",
			typed(kms.TypeGeneric, "", &RotationSettings{AccountMember: "é \"中", SecretMember: ""}),
			`{"é \"中":"a","password":"p"}`, "a:p;",
			plain, `{"password":"new","é \"中":"b"}`, ""},
		{"Generic, the account by the settings", typed(kms.TypeGeneric, "", &RotationSettings{Account: "a"}),
			`{"password":"p"}`, "a:p;", next, `{"password":"n\"e<w"}`, ""},
		{"Generic, the value's account before the settings'", typed(kms.TypeGeneric, "", &RotationSettings{Account: "z"}),
			`{"user":"a","password":"p"}`, "a:p;", plain, `{"password":"new","user":"b"}`, ""},
		{"Generic, a member that is no text is passed over", typed(kms.TypeGeneric, "", nil),
			`{"UserName":7,"user":"a","Password":["x"],"password":"p"}`, "a:p;", plain,
			`{"Password":["x"],"UserName":7,"password":"new","user":"b"}`, ""},
		{"Generic, white space around", typed(kms.TypeGeneric, "", nil), " \n{ \"user\" : \"a\", \"password\" : \"p\" }\n",
			"a:p;", plain, `{"password":"new","user":"b"}`, ""},
		{"Generic, plain text", typed(kms.TypeGeneric, "", &RotationSettings{Account: "a"}), "p w\n", "a:p w\n;", plain,
			"new", ""},
		{"Generic, broken JSON is plain text", typed(kms.TypeGeneric, "", &RotationSettings{Account: "a"}), `{"user":`,
			`a:{"user":;`, plain, "new", ""},
		{"Generic, a JSON list is plain text", typed(kms.TypeGeneric, "", &RotationSettings{Account: "a"}), `["p"]`,
			`a:["p"];`, plain, "new", ""},

		{"Generic, plain text of nobody", typed(kms.TypeGeneric, "", nil), "p", "", plain, "",
			`parameter AccountName: the value of secret "s" is not a JSON object`},
		{"Generic, no account", typed(kms.TypeGeneric, "", nil), `{"password":"p"}`, "", plain, "",
			`parameter AccountMember: the value of secret "s" has no member that names the account`},
		{"Generic, no credential", typed(kms.TypeGeneric, "", nil), `{"user":"a"}`, "", plain, "",
			`parameter SecretMember: the value of secret "s" has no member that holds the credential`},
		{"Generic, an empty credential", typed(kms.TypeGeneric, "", nil), `{"user":"a","password":""}`, "", plain, "",
			"parameter SecretMember"},
		{"Generic, the named member is missing", typed(kms.TypeGeneric, "", &RotationSettings{SecretMember: "word"}),
			`{"user":"a","password":"p"}`, "", plain, "", "parameter SecretMember"},
		{"Generic, the named account is missing", typed(kms.TypeGeneric, "", &RotationSettings{AccountMember: "who"}),
			`{"user":"a","password":"p"}`, "", plain, "", "parameter AccountMember"},
		{"Rds that is no list", typed(kms.TypeRds, "", nil), `{"AccountName":"a","AccountPassword":"p"}`, "", plain, "",
			`The stored value of secret "s" does not have the shape of its type.`},
		{"Rds with an empty list", typed(kms.TypeRds, "", nil), `{"Accounts":[]}`, "", plain, "",
			"does not have the shape of its type"},
		{"RAMCredentials of another shape", typed(kms.TypeRAMCredentials, "", nil), `$Auto`, "", plain, "",
			"does not have the shape of its type"},
		{"ECS of another shape", typed(kms.TypeECS, "", nil), `{"User":"root"}`, "", plain, "",
			"does not have the shape of its type"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := tt.s.Credentials(sensitive.New(tt.stored))
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("%v; want %q", err, tt.wantErr)
				}
				if strings.Contains(err.Error(), `"p"`) {
					t.Error("the error quotes the value")
				}
				return
			}
			if err != nil || shown(got) != tt.want {
				t.Fatalf("read %s, %v; want %s", shown(got), err, tt.want)
			}
			value := tt.s.Value(sensitive.New(tt.stored), tt.next)
			if value.Reveal() != tt.value {
				t.Fatalf("written\n%s, want\n%s", value.Reveal(), tt.value)
			}
			if tt.s.Rotation.Settings != nil && tt.s.Settings().Account != "" {
				return // whose account it is stands in the settings
			}
			again, err := tt.s.Credentials(value)
			if err != nil || again[0].Secret.Reveal() != tt.next.Secret.Reveal() || tt.s.Type != kms.TypeRAMCredentials &&
				again[0].Account != tt.next.Account {
				t.Errorf("read again: %s, %v", shown(again), err)
			}
		})
	}
}

func TestTargetName(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		s    Secret
		want string
	}{
		{typed(kms.TypeRds, `{"DBInstanceId":"rm"}`, nil), "rm"},
		{typed(kms.TypeRedis, `{"InstanceId":"r"}`, nil), "r"},
		{typed(kms.TypeECS, `{"InstanceId":"i"}`, nil), "i"},
		{typed(kms.TypePolarDB, `{"DBClusterId":"pc"}`, nil), "pc"},
		{typed(kms.TypeRAMCredentials, `{"UserName":"u"}`, nil), OwnUsers},
		{typed(kms.TypeGeneric, "", nil), ""},
		{typed(kms.TypeGeneric, "", &RotationSettings{Target: "pg"}), "pg"},
		{typed(kms.TypeRds, `{"DBInstanceId":7}`, nil), ""},
		{typed(kms.TypeRds, `not JSON`, nil), ""},
	} {
		if got := tt.s.TargetName(); got != tt.want {
			t.Errorf("%s %s: %q, want %q", tt.s.Type, tt.s.ExtendedConfig, got, tt.want)
		}
	}
}

func TestStrategy(t *testing.T) {
	t.Parallel()
	const single, overlap, double = target.Single, target.Overlap, target.Double
	one, two := `{"SecretSubType":"SingleUser"}`, `{"SecretSubType":"DoubleUsers"}`
	all := []target.Strategy{overlap, single, double}
	for _, tt := range []struct {
		name string
		s    Secret
		has  []target.Strategy
		want target.Strategy
		text string
	}{
		{"one account: the target's best", typed(kms.TypeRds, one, nil), all, overlap, ""},
		{"one account, no overlap", typed(kms.TypeRds, one, nil), []target.Strategy{double, single}, single, ""},
		{"one account, a target with two alone", typed(kms.TypeRds, one, nil), []target.Strategy{double}, "",
			`secret "s" needs: it has double`},
		{"two accounts", typed(kms.TypeRds, two, nil), all, double, ""},
		{"two accounts, whatever the settings say", typed(kms.TypeRds, two, &RotationSettings{Strategy: single}), all, double,
			""},
		{"two accounts, a target without it", typed(kms.TypeRds, two, nil), []target.Strategy{overlap, single}, "",
			`the strategy double that secret "s" needs: it has overlap and single`},
		{"one account, single asked for", typed(kms.TypeRds, one, &RotationSettings{Strategy: single}), all, single, ""},
		{"one account, double asked for", typed(kms.TypeRds, one, &RotationSettings{Strategy: double}), all, "",
			`Secret "s" has one account, and the strategy double needs two.`},
		{"Redis", typed(kms.TypeRedis, two, nil), all, double, ""},
		{"a host's password", typed(kms.TypeECS, `{"SecretSubType":"Password"}`, nil), []target.Strategy{overlap, single},
			single, ""},
		{"a host's key", typed(kms.TypeECS, `{"SecretSubType":"SSHKey"}`, nil), []target.Strategy{overlap, single}, overlap,
			""},
		{"RAMCredentials", typed(kms.TypeRAMCredentials, `{"SecretSubType":"RamUserAccessKey"}`, nil),
			[]target.Strategy{overlap}, overlap, ""},
		{"Generic", typed(kms.TypeGeneric, "", &RotationSettings{}), all, overlap, ""},
		{"Generic with a second account", typed(kms.TypeGeneric, "", &RotationSettings{CloneAccount: "b"}), all, double, ""},
		{"Generic with a second account, overlap asked for",
			typed(kms.TypeGeneric, "", &RotationSettings{CloneAccount: "b", Strategy: overlap}), all, overlap, ""},
		{"Generic, what the target has not", typed(kms.TypeGeneric, "", &RotationSettings{Strategy: overlap}),
			[]target.Strategy{single}, "", "it has single"},
		{"a target that has nothing", typed(kms.TypeGeneric, "", &RotationSettings{}), nil, "", "it has none"},
	} {
		has := slices.Clone(tt.has)
		got, err := tt.s.Strategy(tt.has)
		if tt.text == "" && err != nil || tt.text != "" &&
			(fault.KindOf(err) != fault.InUse || !strings.Contains(err.Error(), tt.text)) || got != tt.want {
			t.Errorf("%s: %q, %v; want %q, %q", tt.name, got, err, tt.want, tt.text)
		}
		if !slices.Equal(has, tt.has) {
			t.Errorf("%s: the target's list has changed", tt.name)
		}
	}
}

func TestOtherAccount(t *testing.T) {
	t.Parallel()
	of := func(names ...string) []target.Credential {
		var list []target.Credential
		for _, n := range names {
			list = append(list, target.Credential{Account: n, Secret: sensitive.New("x")})
		}
		return list
	}
	config := `{"AccountName":"c","CloneAccountName":"d"}`
	for _, tt := range []struct {
		name              string
		s                 Secret
		current, previous []target.Credential
		want              string
	}{
		{"the second of the current value", typed(kms.TypeRds, "", nil), of("a", "b"), nil, "b"},
		{"that of the version before", typed(kms.TypeRds, "", nil), of("a"), of("b"), "b"},
		{"the version before is of the same account and names another", typed(kms.TypeRds, "", nil), of("a"), of("a", "b"),
			"b"},
		{"the clone by the settings", typed(kms.TypeGeneric, "", &RotationSettings{Account: "a", CloneAccount: "b"}), of("a"),
			nil, "b"},
		{"back to the first by the settings", typed(kms.TypeGeneric, "", &RotationSettings{Account: "a", CloneAccount: "b"}),
			of("b"), nil, "a"},
		{"the clone by the configuration", typed(kms.TypeRedis, config, nil), of("c"), nil, "d"},
		{"back to the first by the configuration", typed(kms.TypeRedis, config, nil), of("d"), nil, "c"},
	} {
		if got, err := tt.s.OtherAccount(tt.current, tt.previous); err != nil || got != tt.want {
			t.Errorf("%s: %q, %v; want %q", tt.name, got, err, tt.want)
		}
	}
	_, err := typed(kms.TypeRds, "", nil).OtherAccount(of("a"), of("a"))
	if fault.KindOf(err) != fault.InUse ||
		!strings.Contains(err.Error(), `Secret "s" names only the account "a", and the strategy double needs a second one.`) {
		t.Errorf("with one account: %v", err)
	}
}

// TestTells: with two accounts in turn, a value that does not name its account would be taken for
// the other one's.
func TestTells(t *testing.T) {
	t.Parallel()
	both := &RotationSettings{Account: "a", CloneAccount: "b"}
	for _, tt := range []struct {
		name, stored string
		s            Secret
		ok           bool
	}{
		{"managed", `{"Accounts":[{"AccountName":"a","AccountPassword":"p"}]}`, typed(kms.TypeRds, "", nil), true},
		{"an object with the account", `{"user":"a","password":"p"}`, typed(kms.TypeGeneric, "", both), true},
		{"an object with a named member", `{"who":"a","password":"p"}`,
			typed(kms.TypeGeneric, "", &RotationSettings{AccountMember: "who", CloneAccount: "b"}), true},
		{"an object without it", `{"password":"p"}`, typed(kms.TypeGeneric, "", both), false},
		{"plain text", `p`, typed(kms.TypeGeneric, "", both), false},
	} {
		err := tt.s.CheckNamesAccount(sensitive.New(tt.stored), "b")
		if tt.ok && err != nil || !tt.ok &&
			(fault.KindOf(err) != fault.InUse ||
				!strings.Contains(err.Error(), `The value of secret "s" does not say whose credential it is`)) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
