package escalate

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotator"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// ground is the store on which worlds are built, one after the other, each in an account of its
// own.
type ground struct {
	dir     string
	db      *store.DB
	keyring *envelope.Keyring
	lead    *store.Lead
	worlds  int
}

func newGround(ctx context.Context) (*ground, error) {
	dir, err := os.MkdirTemp("", "escalate")
	if err != nil {
		return nil, err
	}
	g := &ground{dir: dir}
	if g.db, err = store.Open(ctx, store.Config{Dir: dir, NoSync: true}); err != nil {
		return nil, err
	}
	key, err := root.New(bytes.Repeat([]byte{7}, 32), "test")
	if err != nil {
		return nil, err
	}
	g.keyring = envelope.New(key)
	records, _, err := g.keyring.NewRecords()
	if err != nil {
		return nil, err
	}
	g.db.Authenticate(records)
	g.lead, err = g.db.Lead(ctx, "search", time.Now)
	return g, err
}

func (g *ground) close() error { return errors.Join(g.db.Close(), os.RemoveAll(g.dir)) }

// renew starts over with an empty store.
func (g *ground) renew(ctx context.Context) error {
	if err := g.close(); err != nil {
		return err
	}
	other, err := newGround(ctx)
	if err == nil {
		*g = *other
	}
	return err
}

// violation is what must not happen.
type violation struct{ kind, text string }

// world is one account with its people, policies, secrets and targets, before the real gate, the
// real store and the real engine. Time is its own.
type world struct {
	*ground
	ctx     context.Context
	now     time.Time
	model   *model
	gate    *api.Gate
	env     *api.Env
	engine  *rotator.Steps
	systems map[string]*system
	counts  map[string]int // calls by operation

	acting  string // the secret that the engine, or a call, works on
	caller  *cause // of the call that is made; nil while the engine works
	record  rotation.Record
	found   *violation
	noted   int
	trouble error // the world itself failed, which says nothing of the product
}

// silent is an audit trail that is nowhere.
type silent struct{}

func (silent) Append(context.Context, audit.Record, bool) error { return nil }

// Worlds begin at different times, each long before the one that was made before it: the store is
// slow to list what is due where many records have been, and so none of an earlier world is in the
// way.
var began = time.Date(2300, 1, 2, 3, 4, 5, 0, time.UTC)

// lifetime is longer than all the waiting of a sequence.
const lifetime = 50 * 24 * time.Hour

func (g *ground) world(ctx context.Context) *world {
	g.worlds++
	w := &world{
		ground:  g,
		ctx:     ctx,
		now:     began.Add(-time.Duration(g.worlds) * lifetime),
		model:   newModel(fmt.Sprintf("%016d", 1e15+g.worlds)),
		systems: newSystems(),
		counts:  map[string]int{},
	}
	now := func() time.Time { return w.now }
	log := slog.New(slog.DiscardHandler)
	w.env = &api.Env{
		DB: g.db, Keyring: g.keyring, Region: region, Now: now, Random: rand.Reader, Log: log, Kinds: w.kinds(),
		Uses: api.NewKeyUses(g.db, log), Consumers: api.NewConsumers(g.db, now, log), Rotation: server.Defaults().Rotation,
	}
	w.env.Rotation.ReadWait = time.Nanosecond
	w.gate = api.NewGate(w.env, silent{})
	w.engine = rotator.New(g.db, w.gate, now, rotator.Config{
		Node:   "search",
		Lead:   time.Nanosecond,
		Region: region,
	}).Steps(g.lead)
	for _, name := range []string{"root", "boss", "app", "alice", "mallory", "eve"} {
		w.model.people[name] = &person{
			name:     name,
			attacker: name == "mallory" || name == "eve",
			keys:     map[string]*user{},
			secrets:  map[string]string{},
		}
	}
	for _, name := range []string{"mallory", "eve"} {
		w.supplied(w.model.people[name], "of-"+name)
	}
	for _, s := range mustSteps(foundation) {
		if err := w.run(s); err != nil && w.trouble == nil {
			w.trouble = fmt.Errorf("foundation: %s: %w", s, err)
		}
	}
	for _, name := range []string{"boss", "app", "alice", "mallory", "eve"} {
		if err := w.handKey(name); err != nil && w.trouble == nil {
			w.trouble = err
		}
	}
	return w
}

// handKey has root make an access key for a user and give it to the person of that name.
func (w *world) handKey(name string) error {
	if err := w.call(step{
		verb:   "call",
		who:    "root",
		op:     "CreateAccessKey",
		params: []param{{"UserName", name}},
	}); err != nil {
		return err
	}
	made := w.model.users[name].keys
	from, to := w.model.people["root"], w.model.people[name]
	w.learnKey(to, made[len(made)-1], from.secrets[made[len(made)-1]])
	return nil
}

func mustSteps(text string) []step {
	list, err := parseSteps(text)
	if err != nil {
		panic(err)
	}
	return list
}

// end deletes the records that the engine acts on, so that the next world is alone.
func (w *world) end() error {
	var names []string
	err := store.Snapshot(w.ctx, w.db).Rotations(w.model.account, "", "", func(r rotation.Record) bool {
		names = append(names, r.Secret)
		return true
	})
	if err != nil {
		return err
	}
	return store.Do(w.ctx, w.db, func(tx *store.Tx) error {
		for _, name := range names {
			if err := tx.DeleteRotation(w.model.account, name); err != nil {
				return err
			}
		}
		return tx.PauseAll(nil)
	})
}

func (w *world) violate(kind, format string, args ...any) {
	if w.found == nil {
		w.found = &violation{kind, fmt.Sprintf(format, args...)}
	}
}

func (p *person) users() []*user {
	var list []*user
	for _, u := range p.keys {
		if !slices.Contains(list, u) {
			list = append(list, u)
		}
	}
	return list
}

// run does one step. An error is the product's answer; what must not happen is in w.found.
func (w *world) run(s step) error {
	switch s.verb {
	case "engine":
		w.settle()
	case "wait":
		w.now = w.now.Add(s.wait)
		w.settle()
	case "allow", "deny":
		return w.attach(s)
	case "remove":
		return w.remove(s.who)
	case "acknowledge":
		return w.acknowledge()
	default:
		var err error
		for range max(1, s.times) {
			if err = w.call(s); w.found != nil {
				break
			}
		}
		return err
	}
	return nil
}

// attach has root make a policy of one statement and attach it.
func (w *world) attach(s step) error {
	words := strings.Fields(s.line)
	if name, ok := strings.CutPrefix(s.line, "system "); ok {
		return w.run(mustSteps("root AttachPolicyToUser PolicyType=System PolicyName=" + name + " UserName=" + s.who)[0])
	}
	effect := map[string]string{"allow": "Allow", "deny": "Deny"}[s.verb]
	d := document{Version: "1", Statement: []documentStatement{{Effect: effect, Action: strings.Split(words[0], ",")}}}
	for _, relative := range words[2:] {
		d.Statement[0].Resource = append(d.Statement[0].Resource, pattern(relative))
	}
	w.noted++
	name := "p" + strconv.Itoa(w.noted)
	create := step{
		verb:   "call",
		who:    "root",
		op:     "CreatePolicy",
		params: []param{{"PolicyName", name}, {"PolicyDocument", compact(d)}},
	}
	use := step{
		verb:   "call",
		who:    "root",
		op:     "AttachPolicyToUser",
		params: []param{{"PolicyType", "Custom"}, {"PolicyName", name}, {"UserName", s.who}},
	}
	if err := w.call(create); err != nil {
		return err
	}
	return w.call(use)
}

// pattern is the ARN pattern of a resource in the short form of a step.
func pattern(relative string) string {
	kind, _, _ := strings.Cut(relative, "/")
	switch kind {
	case "*":
		return "*"
	case "user", "group", "policy":
		return "acs:ram:*:*:" + relative
	}
	return "acs:kms:*:*:" + relative
}

// remove has root delete a user with all that hinders it.
func (w *world) remove(name string) error {
	u := w.model.users[name]
	if u == nil {
		return errors.New("no such user")
	}
	var lines []string
	for _, id := range u.keys {
		lines = append(lines, "root DeleteAccessKey UserName="+name+" UserAccessKeyId="+id)
	}
	for _, a := range u.policies {
		lines = append(lines, "root DetachPolicyFromUser UserName="+name+" PolicyType="+a.kind+" PolicyName="+a.name)
	}
	for _, g := range u.groups {
		lines = append(lines, "root RemoveUserFromGroup UserName="+name+" GroupName="+g.name)
	}
	for _, s := range mustSteps(strings.Join(append(lines, "root DeleteUser UserName="+name), "\n")) {
		if err := w.call(s); err != nil {
			return err
		}
	}
	return nil
}

// acknowledge has the application report which version it uses, and verifies that the server has
// recorded it.
func (w *world) acknowledge() error {
	caller, _, ok := w.principal(step{who: "app"})
	if !ok {
		return errors.New("no key")
	}
	out, err := w.send(caller, "WatchSecrets", sign.Params{
		{Name: "Consumer", Value: "app-1"},
		{Name: "Secret.1.SecretName", Value: "prod/app"},
		{Name: "Secret.1.VersionId", Value: "v1"},
	})
	if err != nil {
		return err
	}
	if list := out.(*kms.WatchSecretsResponse).Changes; len(list) != 1 || list[0].State != kms.StateCurrent {
		return nil // the application may no longer read it
	}
	root := policy.Principal{Kind: policy.KindAccount, Account: w.model.account, ID: w.model.account}
	out, err = w.send(root, "ListSecretConsumers", sign.Params{{Name: "SecretName", Value: "prod/app"}})
	if err != nil {
		return err
	}
	for _, c := range out.(*kms.ListSecretConsumersResponse).Consumers {
		if c.Consumer == "app-1" {
			return nil
		}
	}
	w.violate("consumer-unheard", "the application reported which version it uses, and the server does not show it")
	return nil
}

func (w *world) send(p policy.Principal, op string, params sign.Params) (any, error) {
	return w.gate.Call(w.ctx, protocol.Named(op), protocol.Request{ID: "r", Principal: p, Params: params})
}

// service is the service of an operation, as it begins actions.
func service(op string) string {
	for _, o := range protocol.Operations() {
		if o.Name == op && o.Version == ram.Version {
			return "ram"
		}
	}
	return "kms"
}

// principal returns the principal of a call: the server finds it by the access key, as for a signed
// request.
func (w *world) principal(s step) (policy.Principal, *user, bool) {
	p := w.model.people[s.who]
	if p.name == "root" {
		return policy.Principal{Kind: policy.KindAccount, Account: w.model.account, ID: w.model.account}, nil, true
	}
	as := s.as
	if as == "" {
		as = s.who
	}
	for _, id := range sorted(p.keys) {
		u := p.keys[id]
		key, ok, err := store.Snapshot(w.ctx, w.db).AccessKey(id)
		if err != nil {
			w.trouble = err
			return policy.Principal{}, nil, false
		}
		if !ok || key.Disabled || key.Principal.Name != as || u == nil {
			continue
		}
		found := key.Principal
		found.AccessKeyID = id
		return found, u, true
	}
	return policy.Principal{}, nil, false
}

// call makes one call, checks its answer and takes in what it has changed.
func (w *world) call(s step) error {
	p, u, ok := w.principal(s)
	if !ok {
		return errors.New("no key")
	}
	by := w.model.people[s.who]
	w.model.clock++
	c := &cause{by: by, rights: w.model.rightsOf(u), at: w.model.clock, op: s.op}
	s.params = w.resolved(s, by)
	w.supply(s, by)
	needs := w.model.needs(s, service(s.op), u)
	refused, banned := w.judge(c.rights, needs)
	w.caller, w.acting = c, w.model.secretName(s.get("SecretName"))
	out, err := w.send(p, s.op, w.params(s))
	w.caller, w.acting = nil, ""
	w.counts[s.op]++
	if by.attacker {
		w.checkAnswer(s, by, refused, banned, out, err)
	}
	if err != nil {
		return err
	}
	if by.attacker {
		w.checkAccepted(s, by)
	}
	a := w.read(s, by, out)
	if w.found == nil {
		w.model.learn(s, c, a)
	}
	return nil
}

// judge says which need the rights do not meet, and whether a Deny decided.
func (w *world) judge(r rights, needs []need) (refused string, banned bool) {
	for _, n := range needs {
		if ok, no := w.model.may(r, n.action, n.resource); !ok {
			return n.action + " on " + n.resource, no
		}
	}
	return "", false
}

// passed are the kinds of refusals that come after the policies have allowed a call.
var passed = []fault.Kind{
	fault.OK, fault.NotFound, fault.KeyNotFound, fault.Exists, fault.Deleting, fault.InUse, fault.LimitExceeded,
	fault.Unsupported, fault.DryRunOK,
}

func (w *world) checkAnswer(s step, by *person, refused string, banned bool, out any, err error) {
	if refused != "" && slices.Contains(passed, fault.KindOf(err)) {
		kind := "not-allowed"
		if banned {
			kind = "deny-ignored"
		}
		w.violate(kind, "%s was not refused to %s, who may not %s: %v", s.op, by.name, refused, err)
	}
	var texts []string
	if err != nil {
		code := protocol.CodeFor(err)
		texts = append(texts, code.Message)
	} else {
		texts = textsOf(reflect.ValueOf(out), texts)
	}
	if s.op == "GetSecretValue" || s.op == "CreateAccessKey" {
		return // judged by what it names
	}
	for _, text := range texts {
		for plain, v := range w.model.values {
			if len(plain) > 5 && !v.had[by.name] && strings.Contains(text, plain) {
				w.violate("value-shown", "%s showed %s a value of %v", s.op, by.name, sorted(v.secrets))
			}
		}
	}
}

// checkAccepted checks parameters that the server must not accept from any caller.
func (w *world) checkAccepted(s step, by *person) {
	often := slices.Contains(hasty, s.get("Cron")) || slices.Contains(hasty, s.get("RotationInterval"))
	if often && s.get("EnableAutomaticRotation") == "true" {
		w.violate("too-often", "%s of %s accepted a schedule with times closer than the least interval", s.op, by.name)
	}
	if s.op != "CreateSecret" || s.get("SecretType") != "RAMCredentials" {
		return
	}
	var data struct {
		AccessKeys []struct{ AccessKeyID, AccessKeySecret string }
	}
	if err := json.Unmarshal([]byte(s.get("SecretData")), &data); err != nil {
		w.trouble = err
		return
	}
	u := w.model.users[member(s.get("ExtendedConfig"), "UserName")]
	for _, k := range data.AccessKeys {
		if u == nil || !slices.Contains(u.keys, k.AccessKeyID) || by.secrets[k.AccessKeyID] != k.AccessKeySecret {
			w.violate("key-adopted", "%s of %s made a secret of an access key that %s does not have", s.op, by.name, by.name)
		}
	}
}

var valueType = reflect.TypeFor[sensitive.Value]()

// textsOf collects every text of a response.
func textsOf(v reflect.Value, list []string) []string {
	switch {
	case !v.IsValid():
	case v.Type() == valueType:
		list = append(list, v.Interface().(sensitive.Value).Reveal())
	case v.Kind() == reflect.String:
		list = append(list, v.String())
	case v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface:
		list = textsOf(v.Elem(), list)
	case v.Kind() == reflect.Slice || v.Kind() == reflect.Array:
		for i := range v.Len() {
			list = textsOf(v.Index(i), list)
		}
	case v.Kind() == reflect.Struct && v.Type() != reflect.TypeFor[time.Time]():
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				list = textsOf(v.Field(i), list)
			}
		}
	}
	return list
}

// read takes values and keys out of a response.
func (w *world) read(s step, by *person, out any) (a answer) {
	switch out := out.(type) {
	case *kms.GetSecretValueResponse:
		w.supplied(by, out.SecretData.Reveal())
		w.learnKey(by, member(out.SecretData.Reveal(), "AccessKeyId"), member(out.SecretData.Reveal(), "AccessKeySecret"))
	case *ram.CreateAccessKeyResponse:
		a.keyID, a.key = out.AccessKey.AccessKeyID, out.AccessKey.AccessKeySecret.Reveal()
		w.keysOf(s.get("UserName"))
		w.learnKey(by, a.keyID, a.key)
	case *ram.PolicyVersionResponse:
		a.version = out.PolicyVersion.VersionID
	}
	if s.op == "DeleteAccessKey" {
		w.keysOf(s.get("UserName"))
	}
	return a
}

// keysOf reads again which keys a user has, after a call on keys that was judged.
func (w *world) keysOf(name string) {
	for _, u := range w.model.users {
		if name != "" && u.name != name {
			continue
		}
		stored, _, err := store.Snapshot(w.ctx, w.db).User(w.model.account, u.name)
		if err != nil {
			w.trouble = err
		}
		u.keys = nil
		for _, k := range stored.Keys {
			u.keys = append(u.keys, k.ID)
		}
	}
}

// learnKey gives a principal an access key, if the text is one.
func (w *world) learnKey(by *person, id, key string) {
	stored, ok, err := store.Snapshot(w.ctx, w.db).AccessKey(id)
	if err != nil || !ok || stored.Principal.Account != w.model.account {
		return
	}
	opened, err := w.keyring.OpenAccessKey(id, "secret", stored.Secret)
	if err != nil || opened.Reveal() != key {
		return
	}
	by.keys[id], by.secrets[id] = w.model.users[stored.Principal.Name], key
	w.supplied(by, key)
}

// supply notes the values of a call as its caller's.
func (w *world) supply(s step, by *person) {
	for _, name := range []string{"SecretData", "AccountPassword"} {
		if !s.has(name) {
			continue
		}
		w.supplied(by, s.get(name))
		for _, plain := range append(leaves(s.get(name)), s.get(name)) {
			w.model.valueOf(plain).chosen[by.name] = true
		}
	}
}

func (w *world) supplied(by *person, text string) {
	for _, plain := range append(leaves(text), text) {
		w.model.valueOf(plain).had[by.name] = true
	}
}

// resolved replaces {key:USER:N} by the ID of a key of a user, and {own:USER:N} by the JSON of one
// that the person has.
func (w *world) resolved(s step, by *person) []param {
	out := slices.Clone(s.params)
	for i, p := range out {
		p.value = strings.ReplaceAll(p.value, "ACCOUNT", w.model.account)
		out[i] = p
		start := strings.Index(p.value, "{key:")
		if start < 0 {
			continue
		}
		end := start + strings.Index(p.value[start:], "}")
		words := strings.Split(p.value[start+1:end], ":")
		n, _ := strconv.Atoi(words[2])
		id, key := "none", "unknown-secret"
		if u := w.model.users[words[1]]; u != nil && n < len(u.keys) {
			id = u.keys[n]
			if known := by.secrets[id]; known != "" {
				key = known
			}
		}
		text := p.value[:start] + id + p.value[end+1:]
		out[i].value = strings.ReplaceAll(text, "{secret}", key)
	}
	return out
}

// params are the parameters of the request. Secret.N stands for that many names of secrets that are
// not there.
func (w *world) params(s step) (list sign.Params) {
	for _, p := range s.params {
		if p.name != "Secret.N" {
			list = append(list, sign.Param{Name: p.name, Value: p.value})
			continue
		}
		n, _ := strconv.Atoi(p.value)
		for i := range n {
			w.noted++
			list = append(list, sign.Param{Name: fmt.Sprintf("Secret.%d.SecretName", i+1), Value: "n" + strconv.Itoa(w.noted)})
		}
	}
	return list
}

// mostSteps bounds what the engine does at one time.
const mostSteps = 200

// settle has the engine do what is due now.
func (w *world) settle() {
	failed := map[store.Due]bool{}
	for range mostSteps {
		list, err := w.engine.Due(w.ctx, 64)
		if err != nil {
			w.trouble = err
			return
		}
		list = slices.DeleteFunc(list, func(d store.Due) bool { return failed[d] })
		if len(list) == 0 || w.found != nil {
			return
		}
		for _, due := range list {
			before := w.load(due.Name)
			more, err := w.step(due)
			if after := w.load(due.Name); err != nil || !more && after.Seq == before.Seq {
				failed[due] = true
			}
		}
	}
}

func (w *world) load(name string) rotation.Record {
	r, _, err := store.Snapshot(w.ctx, w.db).Rotation(w.model.account, name)
	if err != nil {
		w.trouble = err
	}
	return r
}

// step has the engine take one step, and checks what it did to the users of the service and to the
// schedule.
func (w *world) step(due store.Due) (more bool, err error) {
	own := w.model.secrets[due.Name]
	w.acting, w.record = due.Name, w.load(due.Name)
	defer func() { w.acting, w.record = "", rotation.Record{} }()
	more, err = w.engine.Step(w.ctx, due)
	after := w.load(due.Name)
	if own == nil {
		return more, err
	}
	if own.user != "" {
		w.checkKeys(own)
	}
	w.checkPace(own, after)
	return more, err
}

// responsible are the calls that the engine's work is due to: the request, or for a rotation of the
// schedule those that made it; the call itself while one is made.
func (w *world) responsible() []*cause {
	if w.caller != nil {
		return []*cause{w.caller}
	}
	own := w.model.secrets[w.acting]
	if own == nil {
		return nil
	}
	if w.record.Trigger == rotation.Automatic && w.record.Mode == rotation.Rotate {
		return []*cause{own.maker, own.schedule}
	}
	return []*cause{own.request}
}

// checkKeys verifies that a change of a user's keys was some principal's right.
func (w *world) checkKeys(own *secretState) {
	u := w.model.users[own.user]
	if u == nil {
		return
	}
	before := u.keys
	w.keysOf(own.user)
	check := func(action string, list, without []string) {
		for _, id := range list {
			if slices.Contains(without, id) {
				continue
			}
			for _, c := range w.responsible() {
				if c == nil || !c.by.attacker {
					continue
				}
				if ok, _ := w.model.may(c.rights, action, w.model.ram("user/"+u.name)); !ok {
					w.violate("key-changed", "a key of user %q was changed for secret %q, because of %s of %s, who may not %s",
						u.name, own.name, c.op, c.by.name, action)
				}
			}
		}
	}
	check("ram:CreateAccessKey", u.keys, before)
	check("ram:DeleteAccessKey", before, u.keys)
}

// checkPace verifies that scheduled rotations are as far apart as the server says.
func (w *world) checkPace(own *secretState, r rotation.Record) {
	if r.PromotedAt.IsZero() || r.StartedAt.Equal(own.began) || r.PromotedAt.Before(r.StartedAt) {
		return
	}
	if r.Trigger == rotation.Automatic && !own.began.IsZero() && r.StartedAt.Sub(own.began) < secret.MinInterval {
		w.violate("too-often", "secret %q was rotated by schedule %s after its last rotation", own.name,
			r.StartedAt.Sub(own.began))
	}
	own.began = r.StartedAt
}
