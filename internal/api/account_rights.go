package api

import (
	"context"
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
	actionRotateAccount    = "kms:RotateAccount"
	actionDescribeSecret   = "kms:DescribeSecret"
	actionDescribeTarget   = "kms:DescribeTarget"
	actionDescribeRotation = "kms:DescribeRotation"
	actionGetSecretValue   = "kms:GetSecretValue"
	actionRemoveRotation   = "kms:RemoveRotation"
	actionSetSecretPolicy  = "kms:SetSecretPolicy"
	actionCreateAccessKey  = "ram:CreateAccessKey"
	actionDeleteAccessKey  = "ram:DeleteAccessKey"
)

// accountSegment separates the name of a target from the name of an account in a resource.
const accountSegment = "/account/"

// changes names the accounts that the engine changes for a secret.
type changes struct {
	target string   // the name of the target, or secret.OwnUsers
	names  []string // sorted, each once
}

// judgement is what the rights of a caller were judged for.
type judgement struct {
	changes
	at registration
	// bound says that the secret was bound there, so that no right to read its value was asked for.
	bound bool
}

// accountResources returns what a caller needs rights on to have the accounts changed. A Deny also
// counts under the spelling that the target takes for the same account.
func (c *Call) accountResources(ch changes) (list []resource, err error) {
	var t store.Target
	if ch.target != secret.OwnUsers {
		if t, _, err = c.Snapshot.Target(c.Account(), ch.target); err != nil {
			return nil, err
		}
	}
	for _, name := range ch.names {
		if ch.target == secret.OwnUsers {
			user := c.ramResource("user/" + name)
			list = append(list, user.needing(actionCreateAccessKey), user.needing(actionDeleteAccessKey))
			continue
		}
		for _, spelling := range c.spellings(t, name) {
			account := resource{arn: c.targetResource(ch.target).arn + accountSegment + spelling}
			if spelling != name {
				account = account.unlessDenied()
			}
			list = append(list, account.needing(actionRotateAccount))
		}
	}
	return list, nil
}

// adopted adds to the resources of every rotation the account of a credential that is to be
// adopted.
func adopted(c *Call, in *kms.RepairRotationRequest, list []resource) ([]resource, error) {
	list, err := c.andAccounts(list, in.SecretName, nil)
	if err != nil || in.SecretData.IsZero() {
		return list, err
	}
	s, ok, err := c.Snapshot.Secret(c.Account(), in.SecretName, c.At)
	if err != nil || !ok {
		return list, err
	}
	if s, err = c.asBound(c.Snapshot, s); err != nil {
		return nil, err
	}
	ch, err := c.adoptedChanges(c.Snapshot, s, in.SecretData)
	if err != nil {
		return nil, err
	}
	return c.andChanges(list, s, ch)
}

// adoptedChanges returns the changes of a secret after it has adopted a value; none for a value of
// another shape, which the handler refuses.
func (e *Env) adoptedChanges(tx *store.Tx, s secret.Secret, value sensitive.Value) (changes, error) {
	list, err := s.Credentials(value)
	if err != nil {
		return changes{target: s.TargetName()}, nil
	}
	return e.changesWith(tx, s, list)
}

// andAccounts adds what the rotation of a stored secret needs rights on. settings are the ones that
// the secret is about to get; nil means the ones that it has.
func (c *Call) andAccounts(list []resource, name string, settings *secret.RotationSettings) ([]resource, error) {
	s, ok, err := c.Snapshot.Secret(c.Account(), name, c.At)
	if err != nil || !ok {
		return list, err
	}
	before := s
	if settings != nil {
		s.Rotation.Settings = settings
	} else if s, err = c.asBound(c.Snapshot, s); err != nil {
		return nil, err
	}
	if !s.IsRotated() {
		return list, nil
	}
	bound, err := c.isBound(c.Snapshot, s)
	if err != nil {
		return nil, err
	}
	if s.TargetName() != secret.OwnUsers { // this service knows its own access keys
		elsewhere := !bound || sendsElsewhere(before, s)
		for _, name := range sentWith(s) {
			if elsewhere {
				list = append(list, c.secretResource(name).needing(actionGetSecretValue))
			} else if name != s.Name { // it is used, and not given away
				list = append(list, c.secretResource(name).unlessDenied())
			}
		}
	}
	ch, err := c.storedChanges(c.Snapshot, s)
	if err != nil {
		return nil, err
	}
	return c.andChanges(list, s, ch)
}

// andChanges adds what the changes need rights on, and remembers them as judged, with what the
// target of the secret is now.
func (c *Call) andChanges(list []resource, s secret.Secret, ch changes) ([]resource, error) {
	at, err := registered(c.Snapshot, c.Account(), ch.target, s.UserName())
	c.judgedChanges = append(c.judgedChanges, judgement{changes: ch, at: at, bound: at.binds(s)})
	if err != nil {
		return nil, err
	}
	accounts, err := c.accountResources(ch)
	return append(list, accounts...), err
}

// storedChanges returns the accounts that the engine changes for a stored secret. A secret whose
// value does not have the shape of a credential has none, and no rotation of it can begin.
func (e *Env) storedChanges(tx *store.Tx, s secret.Secret) (changes, error) {
	none := changes{target: s.TargetName()}
	if !s.IsRotated() {
		return none, nil
	}
	_, list, _, err := e.inUse(tx, s)
	switch kind := fault.KindOf(err); {
	case err == nil:
		return e.changesWith(tx, s, list)
	case kind == fault.Invalid || kind == fault.InUse:
		return none, nil
	}
	return none, err
}

// changesWith returns the changes of a stored secret whose current value holds these credentials.
func (e *Env) changesWith(tx *store.Tx, s secret.Secret, list []target.Credential) (changes, error) {
	if !s.WantsDouble() {
		return changesOf(s, list, ""), nil
	}
	other, err := e.otherAccount(tx, s, list)
	if err != nil && fault.KindOf(err) != fault.InUse { // InUse: one account only, so no rotation can begin
		return changes{target: s.TargetName()}, err
	}
	return changesOf(s, list, other), nil
}

// firstChanges returns the changes of a secret that is created with that value.
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

// wasJudged refuses accounts that the caller's rights were not judged for, because something has
// changed since. So an operation that rotates and does not declare it never succeeds.
func (c *Call) wasJudged(secretName string, ch changes) error {
	if len(ch.names) > 0 && len(c.judgedChanges) == 0 {
		return errors.New("the operation changes accounts and does not find them among its resources")
	}
	for _, name := range ch.names {
		judged := func(j judgement) bool { return j.target == ch.target && slices.Contains(j.names, name) }
		if !slices.ContainsFunc(c.judgedChanges, judged) {
			return fault.New(fault.InUse,
				"The accounts of secret %q have changed at this moment; read keyturn rotation status %s and try again.",
				secretName, secretName)
		}
	}
	return nil
}

// isAsJudged refuses another registration of a target than the one that the caller's rights were
// judged for: the name may stand for another address since. bound says whether the secret is bound
// to it now.
func (c *Call) isAsJudged(name string, now registration, bound bool) error {
	judged := false
	for _, j := range c.judgedChanges {
		if j.target != name {
			continue
		}
		judged = true
		if j.at != now || j.bound && !bound {
			return targetChanged(name)
		}
	}
	if !judged && now.exists && !bound {
		return targetChanged(name)
	}
	return nil
}

func targetChanged(name string) error {
	return fault.New(fault.InUse, "The target %q has changed meanwhile; repeat the call.", name)
}

// allows refuses accounts that rotations at a target must not change for a secret: those outside
// its account policy, and its administrator's under any spelling. The secret with the administrator
// may change the accounts that it names itself.
func (e *Env) allows(tx *store.Tx, t store.Target, name string, accounts []string) error {
	if t.AdminSecret == name {
		return nil
	}
	admins, err := e.adminAccounts(tx, t)
	if err != nil {
		return err
	}
	for _, account := range accounts {
		if slices.ContainsFunc(admins, func(admin string) bool { return target.SameAccount(account, admin) }) {
			return administratorRefused(t, account)
		}
		if !target.AllowsAccount(t.Accounts, account) {
			return fault.New(fault.InUse,
				"The account policy of target %q does not allow account %q. %s",
				t.Name, account, addToPolicy(t, account))
		}
	}
	return nil
}

// admit refuses accounts as allows does, and asks the open target what they are: the administrator
// under another name, or a privileged account that the account policy does not name exactly.
func (e *Env) admit(
	ctx context.Context, tx *store.Tx, t store.Target, system target.Target, name string, accounts []string,
) error {
	if err := e.allows(tx, t, name, accounts); err != nil || t.AdminSecret == name {
		return err
	}
	guarded, ok := system.(target.Guarded)
	if !ok {
		return nil
	}
	for _, account := range accounts {
		standing, err := guarded.Standing(ctx, account)
		switch {
		case err != nil:
			return err
		case standing.Administrator:
			return administratorRefused(t, account)
		case standing.Privileged != "" && !target.NamesAccount(t.Accounts, account):
			return fault.New(fault.InUse, "Account %q of target %q is privileged: it %s. Rotations may change it only when "+
				"the account policy names it exactly. %s",
				account, t.Name, standing.Privileged, addToPolicy(t, account))
		}
	}
	return nil
}

// addToPolicy says how an account is added to the account policy of a target. It does not name the
// patterns of a policy: the text is kept with the secret, whose readers may not see the target.
func addToPolicy(t store.Target, account string) fault.Text {
	if len(t.Accounts) == 0 { // every ordinary account
		return fault.Text(fault.Message("To add it, run keyturn target update %s --account='*' --account=%s.",
			t.Name, fault.ShellWord(account)))
	}
	return fault.Text(fault.Message("To add it, run keyturn target show %s, and then keyturn target update %s with "+
		"--account for each pattern listed and for %q: --account replaces the policy.", t.Name, t.Name, account))
}

// administratorRefused names no secret, as [addToPolicy] names no pattern.
func administratorRefused(t store.Target, account string) error {
	return fault.New(fault.InUse, "Account %q is the administrator of target %q, which only the secret with the "+
		"administrator may rotate: keyturn target show %s names it.", account, t.Name, t.Name)
}

// adminAccounts are the accounts that the secret with a target's administrator names: the one in
// use and, of a pair, the other.
func (e *Env) adminAccounts(tx *store.Tx, t store.Target) ([]string, error) {
	if t.AdminSecret == "" {
		return nil, nil
	}
	s, ok, err := tx.Secret(t.Account, t.AdminSecret, e.Now().UTC())
	if err != nil || !ok || s.Deleting() {
		return nil, err // nothing can be changed at the target without its administrator
	}
	var names []string
	for _, stage := range []secret.Stage{secret.Current, secret.Previous} {
		v, ok := s.Versions[s.Stages[stage]]
		if !ok {
			continue
		}
		list, _, err := credentials(e, tx, s, v)
		if kind := fault.KindOf(err); err != nil && kind != fault.Invalid && kind != fault.InUse {
			return nil, err
		}
		for _, c := range list {
			names = append(names, c.Account)
		}
	}
	return names, nil
}

// mayUse refuses accounts that the binding of a secret does not name.
func mayUse(s secret.Secret, accounts ...string) error {
	for _, account := range accounts {
		if !s.MayChange(account) {
			return fault.New(fault.InUse, "Secret %q is not bound to account %q; keyturn rotation rotate %s by a "+
				"principal with %s on it binds it.", s.Name, account, s.Name, actionRotateAccount)
		}
	}
	return nil
}
