package secret

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/credential"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// config reads the members of ExtendedConfig that are strings.
func (s Secret) config() map[string]string {
	var raw map[string]any
	_ = json.Unmarshal([]byte(s.ExtendedConfig), &raw) // checked when it was stored
	members := map[string]string{}
	for name, v := range raw {
		if text, ok := v.(string); ok {
			members[name] = text
		}
	}
	return members
}

// OwnUsers is the name of the target of RAMCredentials secrets: the users of this service.
const OwnUsers = rotation.OwnUsers

// TargetName is the registered target that the secret's credential is for.
func (s Secret) TargetName() string {
	switch s.Type {
	case kms.TypeRds:
		return s.config()["DBInstanceId"]
	case kms.TypeRedis, kms.TypeECS:
		return s.config()["InstanceId"]
	case kms.TypePolarDB:
		return s.config()["DBClusterId"]
	case kms.TypeRAMCredentials:
		return OwnUsers
	}
	return s.Settings().Target
}

// UserName is the user whose access key a RAMCredentials secret holds.
func (s Secret) UserName() string { return s.config()["UserName"] }

// WantsDouble reports whether the secret is rotated between two accounts.
func (s Secret) WantsDouble() bool {
	switch own := s.Settings(); {
	case s.Type == kms.TypeRAMCredentials:
		return false
	case s.config()["SecretSubType"] == "DoubleUsers", own.Strategy == target.Double:
		return true
	default:
		return own.Strategy == "" && !s.Managed() && own.CloneAccount != ""
	}
}

// Generated reports whether this service generated the credential of a version, so that no caller
// chose it. Of a version that is older than the settings which name the credential, that is not
// known.
func (s Secret) Generated(version string) bool {
	v, ok := s.Versions[version]
	return ok && v.Order > s.Rotation.Meant &&
		(v.MadeByRotation || s.Type == kms.TypeRedis || s.Type == kms.TypePolarDB)
}

// Strategy chooses one of the strategies that the target has, which are sorted with the best for
// one account first.
func (s Secret) Strategy(has []target.Strategy) (target.Strategy, error) {
	want := s.Settings().Strategy
	config := s.config()
	switch {
	case s.Type == kms.TypeRAMCredentials:
		want = target.Overlap
	case config["SecretSubType"] == "DoubleUsers":
		want = target.Double
	case want == "" && s.Managed(), want == "" && s.Settings().CloneAccount == "":
		one := slices.DeleteFunc(slices.Clone(has), func(t target.Strategy) bool { return t == target.Double })
		if config["SecretSubType"] == "Password" { // of a host: there is one password
			want = target.Single
		} else if len(one) > 0 {
			want = one[0]
		}
	case want == "":
		want = target.Double
	}
	if s.Managed() && want == target.Double && config["SecretSubType"] != "DoubleUsers" {
		return "", fault.New(fault.InUse, "Secret %q has one account, and the strategy double needs two.", s.Name)
	}
	if !slices.Contains(has, want) {
		return "", fault.New(fault.InUse, "The target %q does not have the strategy %s that secret %q needs: it has %s.",
			s.TargetName(), want, s.Name, listed(has))
	}
	return want, nil
}

// listed returns strategies as a sentence has them.
func listed(all []target.Strategy) string {
	if len(all) == 0 {
		return "none"
	}
	var names []string
	for _, s := range all {
		names = append(names, string(s))
	}
	return strings.Join(names, " and ")
}

// Credentials returns the credentials in a stored value. The first is the one that consumers use.
func (s Secret) Credentials(stored sensitive.Value) ([]target.Credential, error) {
	var list []target.Credential
	var data managedData
	switch s.Type {
	case kms.TypeRds, kms.TypeRedis, kms.TypePolarDB:
		if strict(stored, &data) {
			for _, a := range data.Accounts {
				list = append(list, target.Credential{Account: a.AccountName, Secret: sensitive.New(a.AccountPassword)})
			}
		}
	case kms.TypeRAMCredentials:
		if strict(stored, &data) {
			for _, k := range data.AccessKeys {
				list = append(list, target.Credential{
					Account: s.config()["UserName"],
					ID:      k.AccessKeyID,
					Secret:  sensitive.New(k.AccessKeySecret),
				})
			}
		}
	case kms.TypeECS:
		var l login
		if strict(stored, &l) {
			c := target.Credential{Account: l.UserName, Secret: sensitive.New(l.Password), Public: l.PublicKey}
			if l.PrivateKey != "" {
				c.Secret = sensitive.New(l.PrivateKey)
			}
			list = append(list, c)
		}
	default:
		return s.generic(stored)
	}
	if len(list) == 0 {
		return nil, fault.New(fault.InUse, "The stored value of secret %q does not have the shape of its type.", s.Name)
	}
	return list, nil
}

// Shape describes the values of the secret, for messages.
func (s Secret) Shape() string {
	switch s.Type {
	case kms.TypeRds, kms.TypeRedis, kms.TypePolarDB:
		return `{"Accounts":[{"AccountName":"…","AccountPassword":"…"}]}`
	case kms.TypeRAMCredentials:
		return `{"AccessKeys":[{"AccessKeyId":"…","AccessKeySecret":"…"}]}`
	case kms.TypeECS:
		return `{"UserName":"…","Password":"…"} or {"UserName":"…","PublicKey":"…","PrivateKey":"…"}`
	}
	return "an account and its credential under the same members as in the version before"
}

func (s Secret) generic(stored sensitive.Value) ([]target.Credential, error) {
	settings := s.Settings()
	object, ok := credential.Parse(stored)
	if !ok {
		if settings.Account == "" {
			return nil, fault.Parameter("AccountName",
				"the value of secret %q is not a JSON object, so say whose credential it is.", s.Name)
		}
		return []target.Credential{{Account: settings.Account, Secret: stored}}, nil
	}
	_, account, _ := object.Find(credential.Account, settings.AccountMember)
	if account == "" {
		account = settings.Account
	}
	_, secret, _ := object.Find(credential.Secret, settings.SecretMember)
	keyMember, keyID, _ := object.Find(credential.KeyID, "")
	_, public, _ := object.Find(credential.PublicKey, "")
	switch {
	case account == "" && keyID != "" && settings.AccountMember == "":
		return nil, fault.Parameter("AccountMember", "the value of secret %q names a key (member %s), but not the account "+
			"that the key belongs to; add a member such as AccountName, or give AccountName.", s.Name, keyMember)
	case account == "":
		return nil, fault.Parameter("AccountMember", "the value of secret %q has no member that names the account, "+
			"which is usually %s; name the member, or give AccountName.", s.Name, usual(credential.Account))
	case secret == "":
		return nil, fault.Parameter("SecretMember", "the value of secret %q has no member that holds the credential, "+
			"which is usually %s; name the member.", s.Name, usual(credential.Secret))
	}
	return []target.Credential{{Account: account, ID: keyID, Secret: sensitive.New(secret), Public: public}}, nil
}

func usual(p credential.Part) string { return strings.Join(credential.Usual(p), ", ") }

// Value is the value of a version with credential c, in the shape of the stored one that it
// follows.
func (s Secret) Value(old sensitive.Value, c target.Credential) sensitive.Value {
	secret := c.Secret.Reveal()
	switch s.Type {
	case kms.TypeRds, kms.TypeRedis, kms.TypePolarDB:
		return text(managedData{Accounts: []account{{c.Account, secret}}})
	case kms.TypeRAMCredentials:
		return text(managedData{AccessKeys: []accessKey{{c.ID, secret}}})
	case kms.TypeECS:
		if c.Public != "" {
			return text(login{UserName: c.Account, PublicKey: c.Public, PrivateKey: secret})
		}
		return text(login{UserName: c.Account, Password: secret})
	}
	object, ok := credential.Parse(old)
	if !ok {
		return c.Secret
	}
	settings := s.Settings()
	set := func(p credential.Part, asked, value string) {
		if name, _, _ := object.Find(p, asked); name != "" && value != "" {
			object[name] = compact(value)
		}
	}
	set(credential.Account, settings.AccountMember, c.Account)
	set(credential.Secret, settings.SecretMember, secret)
	set(credential.PublicKey, "", c.Public)
	set(credential.KeyID, "", c.ID)
	return text(object)
}

// Adopted is the current value with the credential of a value that a caller gives, and with nothing
// else of it: other members, such as a host, stay. accounts are those that the secret is rotated
// for.
func (s Secret) Adopted(current, given sensitive.Value, accounts []string) (sensitive.Value, target.Credential, error) {
	list, err := s.Credentials(given)
	if err != nil {
		list, err = s.Credentials(s.stored(given))
	}
	if err != nil {
		return given, target.Credential{}, fault.Parameter("SecretData",
			"it does not have the shape of the secret's values: %s, or as GetSecretValue (keyturn secret get %s) returns them.",
			fault.Text(s.Shape()), s.Name)
	}
	if !slices.Contains(accounts, list[0].Account) {
		return given, target.Credential{}, fault.Parameter("SecretData",
			"it is for an account that secret %q does not hold.", s.Name)
	}
	value := s.Value(current, list[0])
	if list, err = s.Credentials(value); err != nil {
		return given, target.Credential{}, err
	}
	return value, list[0], nil
}

func text(v any) sensitive.Value { return sensitive.New(string(compact(v))) }

// CheckNamesAccount refuses a stored value whose successor could not name its account: text, or an
// object without a member for the account. With target.Double only the value says which of the two
// accounts a credential belongs to, and a credential that is taken for the other account's would
// replace the one in use.
func (s Secret) CheckNamesAccount(stored sensitive.Value, account string) error {
	list, err := s.Credentials(s.Value(stored, target.Credential{Account: account, Secret: sensitive.New("x"), ID: "x"}))
	if err != nil || list[0].Account != account {
		return fault.New(fault.InUse, `The value of secret %q does not say whose credential it is, and the strategy double `+
			`takes turns between two accounts; store a JSON object such as {"AccountName":…,"AccountPassword":…}.`, s.Name)
	}
	return nil
}

// OtherAccount returns the account that gets the new credential under target.Double: the one not in
// use. current and previous are the credentials of the two labelled versions; previous may be
// empty.
func (s Secret) OtherAccount(current, previous []target.Credential) (string, error) {
	use := current[0].Account
	for _, c := range slices.Concat(current[1:], previous) {
		if c.Account != use {
			return c.Account, nil
		}
	}
	settings := s.Settings()
	for _, name := range []string{
		settings.CloneAccount,
		settings.Account,
		s.config()["CloneAccountName"],
		s.config()["AccountName"],
	} {
		if name != "" && name != use {
			return name, nil
		}
	}
	return "", fault.New(fault.InUse,
		"Secret %q names only the account %q, and the strategy double needs a second one.", s.Name, use)
}
