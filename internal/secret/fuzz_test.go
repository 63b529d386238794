package secret

import (
	"encoding/json"
	"math/big"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/kms"
)

var plainInterval = regexp.MustCompile(`^([0-9]+)([dhms]?)$`)

// FuzzParseInterval holds the parser against the words of the contract: a whole number and a unit,
// 6 to 8760 hours.
func FuzzParseInterval(f *testing.F) {
	for _, s := range []string{"7d", "6h", "360m", "21600s", "21600", "8760h", "8761h", "-7d", "+7d", "7w", "1.5d", "",
		"d", "99999999999999999999d", "٧d", "0x7d", "1_0d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseInterval(s, 0)
		want := time.Duration(0)
		if m := plainInterval.FindStringSubmatch(s); m != nil {
			n, _ := new(big.Int).SetString(m[1], 10)
			n.Mul(n, big.NewInt(map[string]int64{"d": 86400, "h": 3600, "m": 60, "s": 1, "": 1}[m[2]]))
			if n.IsInt64() && n.Int64() >= 6*3600 && n.Int64() <= 8760*3600 {
				want = time.Duration(n.Int64()) * time.Second
			}
		}
		if got != want || (err == nil) != (want > 0) || err != nil && fault.KindOf(err) != fault.Invalid {
			t.Fatalf("ParseInterval(%q) = %v, %v; want %v", s, got, err, want)
		}
		if err != nil {
			return
		}
		if again, err := ParseInterval(RotationPolicy{Interval: got}.IntervalText(), 0); err != nil || again != got {
			t.Fatalf("the interval %v, written as responses do, is read as %v, %v", got, again, err)
		}
	})
}

// FuzzExtendedConfig holds that what is accepted is an object with the members that its type needs
// and a CustomData of strings, keeps every member that was given, and is the same when it is read
// again.
func FuzzExtendedConfig(f *testing.F) {
	for _, s := range []string{
		`{"SecretSubType":"SingleUser","DBInstanceId":"pg-main"}`,
		`{"SecretSubType":"DoubleUsers","DBInstanceId":"a","CustomData":{"a":"b"},"Port":5432}`,
		`{"SecretSubType":"SingleUser","DBInstanceId":"a","CustomData":null}`,
		`{"SecretSubType":"SingleUser","DBInstanceId":"a","DBInstanceId":"b"}`,
		`{"SecretSubType":"SingleUser","DBInstanceId":"a","CustomData":{"a":1}}`, `null`, `[]`,
		`{"SecretSubType":"SingleUser","DBInstanceId":"\ud800"}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		config, members, err := checkExtendedConfig(Spec{Type: kms.TypeRds, ExtendedConfig: text})
		if err != nil {
			if k := fault.KindOf(err); k != fault.Invalid && k != fault.Missing {
				t.Fatalf("refused with kind %d: %v", k, err)
			}
			return
		}
		var given, stored map[string]any
		if err := json.Unmarshal([]byte(text), &given); err != nil {
			t.Fatalf("accepted what is no object: %q", text)
		}
		if err := json.Unmarshal([]byte(config), &stored); err != nil || !utf8.ValidString(config) ||
			utf8.RuneCountInString(config) > maxExtendedConfig {
			t.Fatalf("stored is %q: %v", config, err)
		}
		for name := range given {
			if _, ok := stored[name]; !ok {
				t.Fatalf("the member %q is lost from %q", name, config)
			}
		}
		custom, ok := stored["CustomData"].(map[string]any)
		for _, v := range custom {
			_, isText := v.(string)
			ok = ok && isText
		}
		if !ok || len(custom) > maxCustomData || members["DBInstanceId"] == "" ||
			stored["DBInstanceId"] != members["DBInstanceId"] {
			t.Fatalf("accepted %q as %q", text, config)
		}
		if again, _, err := checkExtendedConfig(Spec{Type: kms.TypeRds, ExtendedConfig: config}); err != nil ||
			again != config {
			t.Fatalf("read again it is %q, %v; was %q", again, err, config)
		}
	})
}

// FuzzSpec holds that a checked specification makes a sound secret, whatever its strings are.
func FuzzSpec(f *testing.F) {
	rds := `{"SecretSubType":"SingleUser","DBInstanceId":"a"}`
	f.Add("app/db", kms.TypeGeneric, kms.DataBinary, "x", "", "")
	f.Add("rds/app", kms.TypeRds, kms.DataText, `{"Accounts":[{"AccountName":"a","AccountPassword":"p"}]}`, rds, "7d")
	f.Add("$Auto", kms.TypeRAMCredentials, kms.DataText, `{"AccessKeys":[{"AccessKeyId":"a","AccessKeySecret":"b"}]}`,
		`{"SecretSubType":"RamUserAccessKey","UserName":"u"}`, "")
	f.Add("acs/ecs/x", kms.TypeECS, kms.DataText, `{"UserName":"u","Password":"p"}`,
		`{"SecretSubType":"Password","RegionId":"r","InstanceId":"i"}`, "6h")
	f.Add("redis/x", kms.TypeRedis, kms.DataText, "$Auto",
		`{"SecretSubType":"DoubleUsers","RegionId":"r","InstanceId":"i","AccountName":"a","CloneAccountName":"a_clone",`+
			`"AccountPrivilege":"p"}`, "")
	f.Fuzz(func(t *testing.T, name, kind, dataType, data, config, interval string) {
		spec, err := Spec{
			Name:             name,
			Type:             kind,
			DataType:         dataType,
			Data:             value(data),
			ExtendedConfig:   config,
			EnableRotation:   interval != "",
			RotationInterval: interval,
		}.Check()
		if err != nil {
			if k := fault.KindOf(err); k != fault.Invalid && k != fault.Missing {
				t.Fatalf("refused with kind %d: %v", k, err)
			}
			if len(data) > 8 && strings.Contains(err.Error(), data) {
				t.Fatal("the error quotes the value")
			}
			return
		}
		if spec.Type != kms.TypeGeneric && configRules[spec.Type].subTypes == nil {
			return // the door knows the types; this rule does not ask
		}
		s, err := New("1", spec, version("v1"), t0)
		if err != nil || !s.Sound() {
			t.Fatalf("a checked specification makes no sound secret: %+v, %v", s, err)
		}
		s.Present(s.Versions["v1"], value(data))
	})
}

// FuzzDigest reads stored digests.
func FuzzDigest(f *testing.F) {
	text, err := Digest{1, 2}.MarshalText()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(""))
	f.Add(append(text, '='))
	f.Fuzz(func(t *testing.T, text []byte) {
		var d Digest
		if d.UnmarshalText(text) != nil {
			return
		}
		var again Digest
		if back, err := d.MarshalText(); err != nil || again.UnmarshalText(back) != nil || again != d {
			t.Fatalf("%q is read as %x, and not again", text, d[:])
		}
	})
}
