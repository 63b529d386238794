package policy

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

const (
	home    = "1234567890123456"
	foreign = "6543210987654321"
	app     = "acs:kms:cn-hangzhou:" + home + ":secret/app/db"
)

var (
	root   = Principal{Kind: KindAccount, Account: home}
	alice  = Principal{Kind: KindRAMUser, Account: home, Name: "alice", ID: idOf(home, "user/alice")}
	bob    = Principal{Kind: KindRAMUser, Account: home, Name: "bob", ID: idOf(home, "user/bob")}
	worker = Principal{
		Kind:    KindAssumedRole,
		Account: home,
		Name:    "worker",
		Session: "s1",
		ID:      idOf(home, "role/worker") + ":s1",
	}
	engine   = Principal{Kind: KindSystem, Account: home, Name: "rotator"}
	mallory  = Principal{Kind: KindRAMUser, Account: foreign, Name: "alice", ID: idOf(foreign, "user/alice")}
	rootAway = Principal{Kind: KindAccount, Account: foreign}

	// renamed is alice under another name, successor another user who has taken hers; likewise for the
	// role.
	renamed         = Principal{Kind: KindRAMUser, Account: home, Name: "alicia", ID: alice.ID}
	successor       = Principal{Kind: KindRAMUser, Account: home, Name: "alice", ID: "another"}
	workerSuccessor = Principal{Kind: KindAssumedRole, Account: home, Name: "worker", Session: "s1", ID: "another:s1"}
)

// idOf is the ID that the name is bound to in the policies of these tests.
func idOf(account, relative string) string { return "id of " + account + " " + relative }

// parseSecret reads the policy of a secret as it is set: checked, and bound to those who have the
// names then.
func parseSecret(doc, account string) (Document, error) {
	d, err := ParseSecret(doc, account)
	if err != nil {
		return d, err
	}
	ids := map[string]string{}
	for _, arn := range d.Named() {
		parts, _ := ParseARN(arn)
		ids[arn] = idOf(parts.Account, parts.Relative)
	}
	return d.Bind(ids), d.CheckOwner(grantable)
}

// grantable are some of the actions that a secret policy may allow.
var grantable = []string{"kms:GetSecretValue", "kms:PutSecretValue", "kms:DescribeSecret", "kms:ListSecretVersionIds",
	"kms:TagResources"}

// asking is a request with what the operation's declaration says of its action.
func asking(who Principal, action, resource string, c Context) Request {
	repairs := strings.EqualFold(action, "kms:SetSecretPolicy") || strings.EqualFold(action, "kms:GetSecretPolicy")
	return Request{
		Principal: who, Action: action, Resource: resource, Context: c, Grantable: hasEffect(action), Repairs: repairs,
		ByName: byName(action),
	}
}

// byName reports whether an action is one on the server itself.
func byName(action string) bool {
	return strings.EqualFold(action, "kms:RotateRootKey") || strings.EqualFold(action, "kms:RotateLocalCA")
}

// allow and deny write identity documents of one statement; extra holds further members.
func allow(action, resource string, extra ...string) string {
	return one("Allow", action, resource, extra...)
}

func deny(action, resource string, extra ...string) string {
	return one("Deny", action, resource, extra...)
}

func one(effect, action, resource string, extra ...string) string {
	return `{"Version":"1","Statement":[{"Effect":"` + effect + `","Action":"` + action + `","Resource":"` + resource +
		`"` +
		strings.Join(extra, "") + `}]}`
}

func when(condition string) string { return `,"Condition":` + condition }

// rule is one statement of a secret policy.
func rule(effect, principal, actions string, extra ...string) string {
	return `{"Sid":"` + effect + `","Effect":"` + effect + `","Principal":{"RAM":"acs:ram::` + principal +
		`"},"Action":["` +
		actions + `"],"Resource":"*"` + strings.Join(extra, "") + `}`
}

func secretDoc(rules ...string) string {
	return `{"Version":"1","Statement":[` + strings.Join(rules, ",") + `]}`
}

var own = rule("Allow", home+":*", "kms:*") // what keeps CheckOwner content

var ordinary = Context{
	Now:             time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC),
	SourceIP:        netip.MustParseAddr("::ffff:10.1.2.3"),
	SecureTransport: true,
	Tags: map[string]string{"env": "Prod", "level": "7", "ip": "10.0.0.1", "net": "10.0.0.0/8",
		"since": "2025-01-01T00:00:00Z", "hot": "true", "word": "seven"},
}

// A document used as what it is not would widen rights: "*" in a secret policy means one secret.
func TestEvaluateMisplacedDocuments(t *testing.T) {
	t.Parallel()
	id, err := ParseIdentity(allow("*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	sec, err := parseSecret(secretDoc(rule("Allow", home+":user/alice", "kms:*")), home)
	if err != nil {
		t.Fatal(err)
	}
	r := Request{Principal: alice, Action: "kms:GetSecretValue", Resource: app}
	for name, got := range map[string]Decision{
		"secret as identity": Evaluate(r, []Document{sec}, nil),
		"identity as secret": Evaluate(r, []Document{id}, &id),
		"zero as identity":   Evaluate(r, []Document{id, {}}, nil),
		"zero as secret":     Evaluate(r, []Document{id}, &Document{}),
	} {
		if got != implicit {
			t.Errorf("%s: %+v; want an implicit deny", name, got)
		}
	}
}

// GetSecretValue asks on every call.
func TestEvaluateDoesNotAllocate(t *testing.T) {
	id, err := ParseIdentity(allow("kms:*", "acs:kms:*:*:secret/app/*"))
	if err != nil {
		t.Fatal(err)
	}
	sec, err := ParseSecret(DefaultSecretDocument(home), home)
	if err != nil {
		t.Fatal(err)
	}
	documents := []Document{id}
	r := Request{Principal: alice, Action: "kms:GetSecretValue", Resource: app, Context: ordinary}
	if n := testing.AllocsPerRun(100, func() { Evaluate(r, documents, &sec) }); n != 0 {
		t.Errorf("Evaluate allocates %v times; want 0", n)
	}
}

func BenchmarkEvaluate(b *testing.B) {
	id, _ := ParseIdentity(allow("kms:*", "acs:kms:*:*:secret/app/*"))
	sec, _ := ParseSecret(DefaultSecretDocument(home), home)
	documents := []Document{id}
	r := Request{Principal: alice, Action: "kms:GetSecretValue", Resource: app, Context: ordinary}
	b.ReportAllocs()
	for b.Loop() {
		Evaluate(r, documents, &sec)
	}
}
