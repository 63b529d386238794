package secret

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

const (
	maxCustomData     = 10
	maxExtendedConfig = 1024
)

// configRules are the members of ExtendedConfig by type (secrets.md section 5). Other members are
// allowed and stored: they describe targets that the cloud does not have.
var configRules = map[string]struct {
	subTypes []string
	required []string
	enum     map[string][]string // values that a member may have
}{
	kms.TypeRds: {
		subTypes: []string{"SingleUser", "DoubleUsers"},
		required: []string{"DBInstanceId"},
	},
	kms.TypeRedis: {
		subTypes: []string{"DoubleUsers"},
		required: []string{"RegionId", "InstanceId", "AccountName", "CloneAccountName", "AccountPrivilege"},
	},
	kms.TypePolarDB: {
		subTypes: []string{"DoubleUsers"},
		required: []string{"RegionId", "DBClusterId", "DBType", "AccountName"},
		enum: map[string][]string{
			"DBType":      {"MySQL", "PostgreSQL"},
			"AccountType": {"Normal"},
		},
	},
	kms.TypeRAMCredentials: {
		subTypes: []string{"RamUserAccessKey"},
		required: []string{"UserName"},
	},
	kms.TypeECS: {
		subTypes: []string{"Password", "SSHKey"},
		required: []string{"RegionId", "InstanceId"},
	},
}

// checkExtendedConfig returns the object as compact JSON, with CustomData in it, and its members
// that are strings.
func checkExtendedConfig(spec Spec) (string, map[string]string, error) {
	invalid := func(format string, args ...any) (string, map[string]string, error) {
		return "", nil, fault.Parameter("ExtendedConfig", format, args...)
	}
	if spec.ExtendedConfig == "" {
		return "", nil, fault.Required("ExtendedConfig")
	}
	var raw map[string]json.RawMessage
	err := json.Unmarshal([]byte(spec.ExtendedConfig), &raw)
	if err != nil || raw == nil || !utf8.ValidString(spec.ExtendedConfig) {
		return invalid("use a JSON object in UTF-8.")
	}
	members := map[string]string{}
	for name, value := range raw {
		var s string
		if json.Unmarshal(value, &s) == nil {
			members[name] = s
		}
	}
	rules := configRules[spec.Type]
	for _, name := range append([]string{"SecretSubType"}, rules.required...) {
		if members[name] == "" {
			return invalid("type %s needs the member %s, a string.", spec.Type, name)
		}
	}
	if !slices.Contains(rules.subTypes, members["SecretSubType"]) {
		return invalid("SecretSubType of type %s is one of %s.", spec.Type, strings.Join(rules.subTypes, ", "))
	}
	for name, allowed := range rules.enum {
		if _, ok := raw[name]; ok && !slices.Contains(allowed, members[name]) {
			return invalid("%s is one of %s.", name, strings.Join(allowed, ", "))
		}
	}
	if err := checkCustomData(raw); err != nil {
		return "", nil, err
	}
	config := string(compact(raw))
	if utf8.RuneCountInString(config) > maxExtendedConfig {
		return invalid("use at most %d characters.", maxExtendedConfig)
	}
	return config, members, nil
}

func checkCustomData(raw map[string]json.RawMessage) error {
	custom := map[string]string{}
	if value, ok := raw["CustomData"]; ok {
		if err := json.Unmarshal(value, &custom); err != nil || custom == nil {
			return fault.Parameter("ExtendedConfig", "CustomData is a JSON object of strings.")
		}
	}
	if len(custom) > maxCustomData {
		return fault.Parameter("ExtendedConfig", "CustomData has at most %d pairs.", maxCustomData)
	}
	raw["CustomData"] = compact(custom)
	return nil
}

// compact is JSON with sorted members and without the escapes meant for HTML.
func compact(v any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("secret: " + err.Error()) // maps of strings and of checked JSON: cannot fail
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// account, accessKey and login are the shapes of SecretData of managed types.
type account struct {
	AccountName     string `json:"AccountName"`
	AccountPassword string `json:"AccountPassword"`
}

func (a account) incomplete() bool { return a.AccountName == "" || a.AccountPassword == "" }

type accessKey struct {
	AccessKeyID     string `json:"AccessKeyId"`
	AccessKeySecret string `json:"AccessKeySecret"`
}

func (k accessKey) incomplete() bool { return k.AccessKeyID == "" || k.AccessKeySecret == "" }

type login struct {
	UserName   string `json:"UserName"`
	Password   string `json:"Password"`
	PublicKey  string `json:"PublicKey"`
	PrivateKey string `json:"PrivateKey"`
}

type managedData struct {
	Accounts   []account   `json:"Accounts,omitempty"`
	AccessKeys []accessKey `json:"AccessKeys,omitempty"`
}

func checkData(spec Spec, subType string) error {
	invalid := func(shape string) error {
		return fault.Parameter("SecretData", "a secret of type %s, %s, is made from %s", spec.Type, subType, shape)
	}
	var data managedData
	switch spec.Type {
	case kms.TypeRedis, kms.TypePolarDB:
		if spec.Data.Reveal() != kms.Auto {
			return invalid("the literal $Auto.")
		}
	case kms.TypeRds:
		want := map[string]int{"SingleUser": 1, "DoubleUsers": 2}[subType]
		if !strict(spec.Data, &data) ||
			len(data.Accounts) != want ||
			slices.ContainsFunc(data.Accounts, account.incomplete) ||
			want == 2 && data.Accounts[0].AccountName == data.Accounts[1].AccountName {
			return invalid(map[int]string{
				1: `{"Accounts":[{"AccountName":"…","AccountPassword":"…"}]}.`,
				2: `{"Accounts":[{"AccountName":"…","AccountPassword":"…"},{…}]} with two different accounts.`,
			}[want])
		}
	case kms.TypeRAMCredentials:
		if !strict(spec.Data, &data) ||
			len(data.AccessKeys) == 0 ||
			slices.ContainsFunc(data.AccessKeys, accessKey.incomplete) {
			return invalid(`{"AccessKeys":[{"AccessKeyId":"…","AccessKeySecret":"…"}]}.`)
		}
	case kms.TypeECS:
		var l login
		ok := strict(spec.Data, &l) && l.UserName != ""
		if subType == "Password" && !(ok && l.Password != "" && l.PublicKey+l.PrivateKey == "") {
			return invalid(`{"UserName":"…","Password":"…"}.`)
		}
		if subType == "SSHKey" && !(ok && l.Password == "" && l.PublicKey != "" && l.PrivateKey != "") {
			return invalid(`{"UserName":"…","PublicKey":"…","PrivateKey":"…"}.`)
		}
	}
	return nil
}

func strict(data sensitive.Value, into any) bool {
	d := json.NewDecoder(strings.NewReader(data.Reveal()))
	d.DisallowUnknownFields()
	return d.Decode(into) == nil && !d.More()
}

// AutoAccounts makes the data of a Redis or PolarDB secret, which is created with $Auto: both
// accounts that ExtendedConfig names, each with a password of its own.
func AutoAccounts(extendedConfig string, password func() sensitive.Value) sensitive.Value {
	var config struct{ AccountName, CloneAccountName string }
	_ = json.Unmarshal([]byte(extendedConfig), &config) // checked when it was stored
	if config.CloneAccountName == "" {
		config.CloneAccountName = config.AccountName + "_clone"
	}
	return sensitive.New(string(compact(managedData{Accounts: []account{
		{config.AccountName, password().Reveal()}, {config.CloneAccountName, password().Reveal()},
	}})))
}

// Present turns the stored value of a version into what GetSecretValue returns: for most types the
// value as it is, for those made from a list the one credential that consumers use, in the
// documented shape.
func (s Secret) Present(v Version, stored sensitive.Value) sensitive.Value {
	switch s.Type {
	case kms.TypeRds, kms.TypeRedis, kms.TypePolarDB:
		var data managedData
		if strict(stored, &data) && len(data.Accounts) > 0 {
			return sensitive.New(string(compact(data.Accounts[0])))
		}
	case kms.TypeRAMCredentials:
		var data managedData
		if strict(stored, &data) && len(data.AccessKeys) > 0 {
			return sensitive.New(string(compact(struct {
				accessKey
				GenerateTimestamp string
			}{data.AccessKeys[0], v.CreatedAt.UTC().Format(wire.TimeFormat)})))
		}
	}
	return stored
}

// stored turns what [Secret.Present] returns into a stored value of one account, and returns any
// other value as it is.
func (s Secret) stored(presented sensitive.Value) sensitive.Value {
	var data managedData
	switch s.Type {
	case kms.TypeRds, kms.TypeRedis, kms.TypePolarDB:
		var one account
		if !strict(presented, &one) || one.incomplete() {
			return presented
		}
		data.Accounts = []account{one}
	case kms.TypeRAMCredentials:
		var one struct {
			accessKey
			GenerateTimestamp string
		}
		if !strict(presented, &one) || one.accessKey.incomplete() {
			return presented
		}
		data.AccessKeys = []accessKey{one.accessKey}
	default:
		return presented
	}
	return sensitive.New(string(compact(data)))
}

// Due returns the time of the next automatic change of the secret: its deletion. Zero means never.
func (s Secret) Due() time.Time { return s.DeleteAt }
