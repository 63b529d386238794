package api

import (
	"errors"
	"slices"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// The engine changes accounts with the rights of the service. So a caller who makes it act needs a
// right on each account that will change, beside the right on the operation: actionRotateAccount on
// an account at a target, or both actions on access keys for a user of this service. A caller who
// decides where the value of a secret is sent needs the right to read it.
const (
	actionRotateAccount   = "kms:RotateAccount"
	actionGetSecretValue  = "kms:GetSecretValue"
	actionRemoveRotation  = "kms:RemoveRotation"
	actionSetSecretPolicy = "kms:SetSecretPolicy"
	actionCreateAccessKey = "ram:CreateAccessKey"
	actionDeleteAccessKey = "ram:DeleteAccessKey"
)

// accountSegment separates the name of a target from that of an account in a resource.
const accountSegment = "/account/"

// changes are the accounts that the engine changes for a secret.
type changes struct {
	target string   // the name of the target, or secret.OwnUsers
	names  []string // sorted, each once
}

// accountResources are what a caller needs rights on to have the accounts changed.
func (c *Call) accountResources(ch changes) []resource {
	var list []resource
	for _, name := range ch.names {
		if ch.target == secret.OwnUsers {
			user := c.ramResource("user/" + name)
			list = append(list, user.needing(actionCreateAccessKey), user.needing(actionDeleteAccessKey))
			continue
		}
		account := resource{arn: c.targetResource(ch.target).arn + accountSegment + name}
		list = append(list, account.needing(actionRotateAccount))
	}
	return list
}

// adopted adds to the resources of every rotation the account of a credential that is to be adopted.
func adopted(c *Call, in *kms.RepairRotationRequest, list []resource) ([]resource, error) {
	list, err := c.andAccounts(list, in.SecretName, nil)
	if err != nil || in.SecretData.IsZero() {
		return list, err
	}
	s, ok, err := c.Snapshot.Secret(c.Account(), in.SecretName, c.At)
	if err != nil || !ok {
		return list, err
	}
	ch, err := c.adoptedChanges(c.Snapshot, s, in.SecretData)
	if err != nil {
		return nil, err
	}
	return c.andChanges(list, ch), nil
}

// adoptedChanges are those of a secret after it has adopted a value; none for a value of another shape,
// which the handler refuses.
func (e *Env) adoptedChanges(tx *store.Tx, s secret.Secret, value sensitive.Value) (changes, error) {
	list, err := s.Credentials(value)
	if err != nil {
		return changes{target: s.TargetName()}, nil
	}
	return e.changesWith(tx, s, list)
}

// andAccounts adds what the rotation of a stored secret needs rights on. settings are those that the
// secret is about to get; nil leaves it as it is.
func (c *Call) andAccounts(list []resource, name string, settings *secret.RotationSettings) ([]resource, error) {
	s, ok, err := c.Snapshot.Secret(c.Account(), name, c.At)
	if err != nil || !ok {
		return list, err
	}
	before := s
	if settings != nil {
		s.Rotation.Settings = settings
	}
	if !s.IsRotated() {
		return list, nil
	}
	bound, err := c.isBound(c.Snapshot, s)
	if err != nil {
		return nil, err
	}
	if !bound || sendsElsewhere(before, s) {
		if s.TargetName() != secret.OwnUsers { // this service knows its own access keys
			list = append(list, c.secretResource(s.Name).needing(actionGetSecretValue))
		}
	}
	ch, err := c.storedChanges(c.Snapshot, s)
	if err != nil {
		return nil, err
	}
	return c.andChanges(list, ch), nil
}

// andChanges adds what the changes need rights on, and remembers them as judged.
func (c *Call) andChanges(list []resource, ch changes) []resource {
	c.judgedChanges = append(c.judgedChanges, ch)
	return append(list, c.accountResources(ch)...)
}

// storedChanges are the accounts that the engine changes for a stored secret. Where its value does not
// have the shape of a credential there are none, and no rotation can begin.
func (e *Env) storedChanges(tx *store.Tx, s secret.Secret) (changes, error) {
	none := changes{target: s.TargetName()}
	if !s.IsRotated() {
		return none, nil
	}
	v, err := s.Select(secret.Current, "")
	if err != nil {
		return none, err
	}
	list, _, err := credentials(e, tx, s, v)
	if kind := fault.KindOf(err); err != nil && (kind == fault.Invalid || kind == fault.InUse) {
		return none, nil
	}
	if err != nil {
		return none, err
	}
	return e.changesWith(tx, s, list)
}

// changesWith are those of a stored secret whose value in use holds these credentials.
func (e *Env) changesWith(tx *store.Tx, s secret.Secret, list []target.Credential) (changes, error) {
	if !s.WantsDouble() {
		return changesOf(s, list, ""), nil
	}
	other, err := e.otherAccount(tx, s, list)
	if err != nil && fault.KindOf(err) != fault.InUse { // InUse: it names one account only, so no rotation can begin
		return changes{target: s.TargetName()}, err
	}
	return changesOf(s, list, other), nil
}

// firstChanges are those of a secret that is made with that value.
func firstChanges(s secret.Secret, data sensitive.Value) changes {
	list, err := s.Credentials(data)
	if err != nil { // a value of another shape makes no secret
		return changes{target: s.TargetName()}
	}
	other := ""
	if s.WantsDouble() {
		other, _ = s.OtherAccount(list, nil) // one account only: no rotation can begin
	}
	return changesOf(s, list, other)
}

func changesOf(s secret.Secret, list []target.Credential, other string) changes {
	ch := changes{target: s.TargetName(), names: []string{list[0].Account}}
	if other != "" && other != list[0].Account {
		ch.names = append(ch.names, other)
		slices.Sort(ch.names)
	}
	return ch
}

// wasJudged refuses accounts that the caller's rights were not judged for: something has changed since.
// So an operation that rotates and does not declare it never succeeds.
func (c *Call) wasJudged(ch changes) error {
	if len(ch.names) > 0 && len(c.judgedChanges) == 0 {
		return errors.New("the operation changes accounts and does not find them among its resources")
	}
	for _, name := range ch.names {
		judged := func(j changes) bool { return j.target == ch.target && slices.Contains(j.names, name) }
		if !slices.ContainsFunc(c.judgedChanges, judged) {
			return fault.New(fault.InUse, "The accounts of the secret have changed at this moment; read DescribeRotation and try again.")
		}
	}
	return nil
}
