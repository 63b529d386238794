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
	root     = Principal{Kind: KindAccount, Account: home}
	alice    = Principal{Kind: KindRAMUser, Account: home, Name: "alice"}
	bob      = Principal{Kind: KindRAMUser, Account: home, Name: "bob"}
	worker   = Principal{Kind: KindAssumedRole, Account: home, Name: "worker", Session: "s1"}
	engine   = Principal{Kind: KindSystem, Account: home, Name: "rotator"}
	mallory  = Principal{Kind: KindRAMUser, Account: foreign, Name: "alice"}
	rootAway = Principal{Kind: KindAccount, Account: foreign}
)

// allow and deny write identity documents of one statement; extra holds further members.
func allow(action, resource string, extra ...string) string {
	return one("Allow", action, resource, extra...)
}

func deny(action, resource string, extra ...string) string {
	return one("Deny", action, resource, extra...)
}

func one(effect, action, resource string, extra ...string) string {
	return `{"Version":"1","Statement":[{"Effect":"` + effect + `","Action":"` + action + `","Resource":"` + resource + `"` +
		strings.Join(extra, "") + `}]}`
}

func when(condition string) string { return `,"Condition":` + condition }

// rule is one statement of a secret policy.
func rule(effect, principal, actions string, extra ...string) string {
	return `{"Sid":"` + effect + `","Effect":"` + effect + `","Principal":{"RAM":"acs:ram::` + principal + `"},"Action":["` +
		actions + `"],"Resource":"*"` + strings.Join(extra, "") + `}`
}

func secretDoc(rules ...string) string {
	return `{"Version":"1","Statement":[` + strings.Join(rules, ",") + `]}`
}

var own = rule("Allow", home+":*", "kms:*") // what keeps ParseSecret content

func TestEvaluate(t *testing.T) {
	const get = "kms:GetSecretValue"
	everything := allow("*", "*")
	for _, tt := range []struct {
		name     string
		who      Principal
		action   string
		resource string
		identity []string
		secret   string
		want     string
	}{
		// Identity policies.
		{"nothing given", alice, get, app, nil, "", "implicit"},
		{"everything", alice, get, app, []string{everything}, "", "identity 0.0"},
		{"this secret", alice, get, app, []string{allow(get, app)}, "", "identity 0.0"},
		{"system policy", alice, "ram:GetPolicy", "acs:ram::system:policy/P", []string{allow("ram:*", "acs:ram:*:system:policy/*")}, "", "identity 0.0"},
		{"system policy to root", root, "ram:GetPolicy", "acs:ram::system:policy/P", nil, "", "root"},
		{"a secret of no account", root, get, "acs:kms:cn-hangzhou:system:secret/app", nil, "", "implicit"},
		{"other secret", alice, get, app + "2", []string{allow(get, app)}, "", "implicit"},
		{"other action", alice, "kms:PutSecretValue", app, []string{allow(get, app)}, "", "implicit"},
		{"action in other case", alice, "KMS:getsecretvalue", app, []string{allow(get, app)}, "", "identity 0.0"},
		{"pattern in other case", alice, get, app, []string{allow("KMS:GETSECRET*", app)}, "", "identity 0.0"},
		{"action prefix", alice, get, app, []string{allow("kms:Get*", app)}, "", "identity 0.0"},
		{"action one character", alice, get, app, []string{allow("kms:GetSecretValu?", app)}, "", "identity 0.0"},
		{"action one character too few", alice, get, app, []string{allow("kms:GetSecretValue?", app)}, "", "implicit"},
		{"action of another service", alice, get, app, []string{allow("oss:*", "*")}, "", "implicit"},
		{"action list", alice, get, app, []string{strings.Replace(allow("X", app), `"X"`, `["kms:List*","kms:Get*"]`, 1)}, "", "identity 0.0"},
		{"resource in other case", alice, get, app, []string{allow(get, strings.Replace(app, "app", "App", 1))}, "", "implicit"},
		{"star crosses slash", alice, get, app, []string{allow(get, "acs:kms:*:*:secret/*")}, "", "identity 0.0"},
		{"star inside", alice, get, app, []string{allow(get, "acs:kms:*:*:*db")}, "", "identity 0.0"},
		{"question mark is one", alice, get, app, []string{allow(get, "acs:kms:*:*:secret/app/d?")}, "", "identity 0.0"},
		{"question mark is not two", alice, get, app, []string{allow(get, "acs:kms:*:*:secret/app?")}, "", "implicit"},
		{"any region and account", alice, get, app, []string{allow(get, "acs:kms:*:*:secret/app/*")}, "", "identity 0.0"},
		{"other region", alice, get, app, []string{allow(get, "acs:kms:cn-beijing:*:secret/app/*")}, "", "implicit"},
		{"region pattern", alice, get, app, []string{allow(get, "acs:kms:cn-*:*:secret/app/*")}, "", "identity 0.0"},
		{"other account in resource", alice, get, app, []string{allow(get, "acs:kms:*:"+foreign+":secret/app/*")}, "", "implicit"},
		{"empty region matches only empty", alice, get, app, []string{allow(get, "acs:kms::"+home+":secret/app/*")}, "", "implicit"},
		{"empty account matches only empty", alice, get, app, []string{allow(get, "acs:kms:cn-hangzhou::secret/app/*")}, "", "implicit"},
		{"empty region meets empty", alice, "sts:AssumeRole", "acs:ram::" + home + ":role/w", []string{allow("sts:*", "acs:ram::"+home+":role/*")}, "", "identity 0.0"},
		{"star meets empty region", alice, "sts:AssumeRole", "acs:ram::" + home + ":role/w", []string{allow("sts:*", "acs:ram:*:*:role/*")}, "", "identity 0.0"},
		{"star does not cross parts", alice, get, app, []string{allow(get, "acs:kms:*:secret/app/db:x")}, "", "implicit"},
		{"other service in resource", alice, get, app, []string{allow(get, "acs:oss:*:*:*")}, "", "implicit"},
		{"container is not an object", alice, "kms:CreateSecret", "acs:kms:cn-hangzhou:" + home + ":secret", []string{allow("kms:*", "acs:kms:*:*:secret/*")}, "", "implicit"},
		{"container", alice, "kms:CreateSecret", "acs:kms:cn-hangzhou:" + home + ":secret", []string{allow("kms:*", "acs:kms:*:*:secret")}, "", "identity 0.0"},
		{"container pattern is not for objects", alice, get, app, []string{allow("kms:*", "acs:kms:*:*:secret")}, "", "implicit"},
		{"no resource, star", alice, "kms:GetRandomPassword", "*", []string{everything}, "", "identity 0.0"},
		{"no resource, ARN pattern", alice, "kms:GetRandomPassword", "*", []string{allow("kms:*", "acs:kms:*:*:*")}, "", "implicit"},
		{"colon in the relative part", alice, get, app + ":x", []string{allow(get, "acs:kms:*:*:secret/app/db:?")}, "", "identity 0.0"},
		{"deny wins", alice, get, app, []string{everything, deny(get, app)}, "", "deny identity 1.0"},
		{"deny wins in any order", alice, get, app, []string{deny(get, app), everything}, "", "deny identity 0.0"},
		{"deny wins inside one document", alice, get, app, []string{strings.Replace(everything, `}]`, `},{"Effect":"Deny","Action":"kms:Get*","Resource":"*"}]`, 1)}, "", "deny identity 0.1"},
		{"deny for another resource", alice, get, app, []string{everything, deny(get, app+"2")}, "", "identity 0.0"},
		{"deny alone", alice, get, app, []string{deny(get, "*")}, "", "deny identity 0.0"},
		{"second document allows", alice, get, app, []string{allow("kms:List*", "*"), everything}, "", "identity 1.0"},
		{"statement as one object", alice, get, app, []string{`{"Version":"1","Statement":{"Effect":"Allow","Action":"*","Resource":["*"]}}`}, "", "identity 0.0"},
		{"role session", worker, get, app, []string{allow(get, app)}, "", "identity 0.0"},
		{"engine by its documents", engine, "kms:RotateSecret", app, []string{allow("kms:*", "acs:kms:*:*:secret/*")}, "", "identity 0.0"},
		{"engine without documents", engine, "kms:RotateSecret", app, nil, "", "implicit"},

		// Root.
		{"root", root, get, app, nil, "", "root"},
		{"root without resource", root, "kms:GetRandomPassword", "*", nil, "", "root"},
		{"root is not bound by identity policies", root, get, app, []string{deny("*", "*")}, "", "root"},
		{"root of another account", rootAway, get, app, nil, "", "implicit"},
		{"root with an odd resource", root, get, "secret/app", nil, "", "implicit"},

		// What cannot be judged.
		{"zero principal", Principal{}, get, app, []string{everything}, "", "implicit"},
		{"principal without account", Principal{Kind: KindAccount}, get, "acs:kms:cn-hangzhou::secret/x", []string{everything}, "", "implicit"},
		{"unknown kind", Principal{Kind: "Robot", Account: home}, get, app, []string{everything}, "", "implicit"},
		{"no action", alice, "", app, []string{everything}, "", "implicit"},
		{"resource is no ARN", alice, get, "secret/app", []string{everything}, "", "implicit"},

		// Secret policy, own account.
		{"default is no grant", alice, get, app, nil, DefaultSecretDocument(home), "implicit"},
		{"default and identity", alice, get, app, []string{allow(get, app)}, DefaultSecretDocument(home), "identity 0.0"},
		{"root pattern is no grant", alice, get, app, nil, secretDoc(rule("Allow", home+":root", "kms:*")), "implicit"},
		{"named user is a grant", alice, get, app, nil, secretDoc(own, rule("Allow", home+":user/alice", get)), "secret 1 Allow"},
		{"grant before delegation", alice, get, app, nil, secretDoc(rule("Allow", home+":user/alice", get), own), "secret 0 Allow"},
		{"another user is not named", bob, get, app, nil, secretDoc(own, rule("Allow", home+":user/alice", get)), "implicit"},
		{"user of that name elsewhere", mallory, get, app, []string{everything}, secretDoc(rule("Allow", home+":user/alice", get)), "implicit"},
		{"named role is a grant", worker, get, app, nil, secretDoc(own, rule("Allow", home+":role/worker", "kms:Get*")), "secret 1 Allow"},
		{"role is not user", worker, get, app, nil, secretDoc(own, rule("Allow", home+":user/worker", get)), "implicit"},
		{"user is not role", alice, get, app, nil, secretDoc(own, rule("Allow", home+":role/alice", get)), "implicit"},
		{"grant for another action", alice, get, app, nil, secretDoc(own, rule("Allow", home+":user/alice", "kms:Describe*")), "implicit"},
		{"identity deny beats grant", alice, get, app, []string{deny(get, app)}, secretDoc(own, rule("Allow", home+":user/alice", get)), "deny identity 0.0"},
		{"secret deny beats identity", alice, get, app, []string{everything}, secretDoc(own, rule("Deny", home+":user/alice", get)), "deny secret 1 Deny"},
		{"secret deny for another user", bob, get, app, []string{everything}, secretDoc(own, rule("Deny", home+":user/alice", get)), "identity 0.0"},
		{"secret deny for a role", worker, get, app, []string{everything}, secretDoc(own, rule("Deny", home+":role/worker", get)), "deny secret 1 Deny"},
		{"secret deny for all", alice, get, app, []string{everything}, secretDoc(own, rule("Deny", home+":*", get)), "deny secret 1 Deny"},
		{"secret deny for all binds root", root, get, app, nil, secretDoc(own, rule("Deny", home+":*", get)), "deny secret 1 Deny"},
		{"secret deny for root binds root", root, get, app, nil, secretDoc(own, rule("Deny", home+":root", get)), "deny secret 1 Deny"},
		{"secret deny for root is for root alone", alice, get, app, []string{everything}, secretDoc(own, rule("Deny", home+":root", get)), "identity 0.0"},
		{"secret deny of a user leaves root", root, get, app, nil, secretDoc(own, rule("Deny", home+":user/alice", get)), "root"},
		{"engine is not bound", engine, "kms:UpdateSecretVersionStage", app, []string{everything}, secretDoc(own, rule("Deny", home+":*", "kms:Update*")), "identity 0.0"},
		{"deny without effect", alice, "kms:SetSecretPolicy", app, []string{everything}, secretDoc(own, rule("Deny", home+":*", "kms:Set*")), "identity 0.0"},
		{"deny of everything leaves SetSecretPolicy", alice, "kms:SetSecretPolicy", app, []string{everything},
			secretDoc(own, rule("Deny", home+":user/alice", "kms:*")), "identity 0.0"},
		{"grant without effect", alice, "kms:SetSecretPolicy", app, nil, secretDoc(own, rule("Allow", home+":user/alice", "kms:*")), "implicit"},
		{"governed: list", alice, "kms:ListSecretVersionIds", app, nil, secretDoc(rule("Allow", home+":user/alice", "kms:*")), "secret 0 Allow"},
		{"governed: put", alice, "kms:PutSecretValue", app, nil, secretDoc(rule("Allow", home+":user/alice", "kms:*")), "secret 0 Allow"},
		{"governed: tag resources", alice, "kms:TagResources", app, nil, secretDoc(rule("Allow", home+":user/alice", "kms:*")), "secret 0 Allow"},
		{"governed: update stage", alice, "kms:UpdateSecretVersionStage", app, nil, secretDoc(rule("Allow", home+":user/alice", "kms:*")), "secret 0 Allow"},
		{"not governed: decrypt", alice, "kms:Decrypt", app, nil, secretDoc(rule("Allow", home+":user/alice", "kms:*")), "implicit"},
		{"not governed: create", alice, "kms:CreateSecret", app, nil, secretDoc(rule("Allow", home+":user/alice", "kms:*")), "implicit"},
		{"secret condition holds", alice, get, app, nil, secretDoc(own, rule("Allow", home+":user/alice", get, when(`{"IpAddress":{"acs:SourceIp":"10.0.0.0/8"}}`))), "secret 1 Allow"},
		{"secret condition fails", alice, get, app, nil, secretDoc(own, rule("Allow", home+":user/alice", get, when(`{"IpAddress":{"acs:SourceIp":"11.0.0.0/8"}}`))), "implicit"},
		{"secret of another account", alice, get, app, []string{everything}, DefaultSecretDocument(foreign), "implicit"},
		{"secret policy without resource", alice, get, "*", []string{everything}, DefaultSecretDocument(home), "implicit"},

		// Another account.
		{"away: identity alone", mallory, get, app, []string{everything}, DefaultSecretDocument(home), "implicit"},
		{"away: no secret policy", mallory, get, app, []string{everything}, "", "implicit"},
		{"away: secret alone", mallory, get, app, nil, secretDoc(own, rule("Allow", foreign+":user/alice", get)), "implicit"},
		{"away: both", mallory, get, app, []string{allow(get, app)}, secretDoc(own, rule("Allow", foreign+":user/alice", get)), "secret 1 Allow"},
		{"away: account delegated", mallory, get, app, []string{allow(get, app)}, secretDoc(own, rule("Allow", foreign+":root", get)), "secret 1 Allow"},
		{"away: identity deny", mallory, get, app, []string{everything, deny(get, "*")}, secretDoc(own, rule("Allow", foreign+":user/alice", get)), "deny identity 1.0"},
		{"away: secret deny", mallory, get, app, []string{everything}, secretDoc(own, rule("Allow", foreign+":user/alice", get), rule("Deny", foreign+":*", get)), "deny secret 2 Deny"},
		{"away: not governed", mallory, "kms:SetSecretPolicy", app, []string{everything}, secretDoc(own, rule("Allow", foreign+":user/alice", "kms:*")), "implicit"},
		{"away: root named", rootAway, get, app, nil, secretDoc(own, rule("Allow", foreign+":root", get)), "secret 1 Allow"},
		{"away: engine is not delegated", Principal{Kind: KindSystem, Account: foreign}, get, app, []string{everything}, secretDoc(own, rule("Allow", foreign+":*", get)), "implicit"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := Request{Principal: tt.who, Action: tt.action, Resource: tt.resource, Context: ordinary}
			if got := evaluate(t, r, tt.identity, tt.secret); got != tt.want {
				t.Errorf("Evaluate = %s; want %s", got, tt.want)
			}
		})
	}
}

var ordinary = Context{
	Now:             time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC),
	SourceIP:        netip.MustParseAddr("::ffff:10.1.2.3"),
	SecureTransport: true,
	Tags:            map[string]string{"env": "Prod", "level": "7", "ip": "10.0.0.1", "since": "2025-01-01T00:00:00Z", "hot": "true", "word": "seven"},
}

func TestConditions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		condition string
		want      bool
	}{
		{`{"StringEquals":{"kms:tag/env":"Prod"}}`, true},
		{`{"StringEquals":{"kms:tag/env":"prod"}}`, false},
		{`{"StringEquals":{"kms:tag/env":["dev","Prod"]}}`, true},
		{`{"StringEquals":{"kms:tag/none":"Prod"}}`, false},
		{`{"StringNotEquals":{"kms:tag/env":"dev"}}`, true},
		{`{"StringNotEquals":{"kms:tag/env":["dev","Prod"]}}`, false},
		{`{"StringNotEquals":{"kms:tag/none":"Prod"}}`, true},
		{`{"StringEqualsIgnoreCase":{"kms:tag/env":"PROD"}}`, true},
		{`{"StringNotEqualsIgnoreCase":{"kms:tag/env":"PROD"}}`, false},
		{`{"StringLike":{"kms:tag/env":"P*d"}}`, true},
		{`{"StringLike":{"kms:tag/env":"p*"}}`, false},
		{`{"StringNotLike":{"kms:tag/env":["x*","P???"]}}`, false},
		{`{"StringNotLike":{"kms:tag/none":"*"}}`, true},
		{`{"NumericEquals":{"kms:tag/level":"7.0"}}`, true},
		{`{"NumericEquals":{"kms:tag/word":"7"}}`, false},
		{`{"NumericNotEquals":{"kms:tag/level":"8"}}`, true},
		{`{"NumericNotEquals":{"kms:tag/word":"7"}}`, true},
		{`{"NumericLessThan":{"kms:tag/level":"7"}}`, false},
		{`{"NumericLessThan":{"kms:tag/none":"7"}}`, false},
		{`{"NumericLessThanEquals":{"kms:tag/level":"7"}}`, true},
		{`{"NumericGreaterThan":{"kms:tag/level":"-10"}}`, true},
		{`{"NumericGreaterThanEquals":{"kms:tag/level":"7.5"}}`, false},
		{`{"DateEquals":{"acs:CurrentTime":"2026-01-02T11:04:05+08:00"}}`, true},
		{`{"DateEquals":{"acs:CurrentTime":"2026-01-02T03:04:06Z"}}`, false},
		{`{"DateNotEquals":{"acs:CurrentTime":"2026-01-02T03:04:06Z"}}`, true},
		{`{"DateLessThan":{"acs:CurrentTime":"2026-01-02T03:04:06Z"}}`, true},
		{`{"DateLessThan":{"acs:CurrentTime":"2026-01-02T03:04:05Z"}}`, false},
		{`{"DateLessThanEquals":{"acs:CurrentTime":"2026-01-02T03:04:05Z"}}`, true},
		{`{"DateGreaterThan":{"acs:CurrentTime":"2026-01-02T03:04:05Z"}}`, false},
		{`{"DateGreaterThanEquals":{"acs:CurrentTime":"2026-01-02T03:04:05Z"}}`, true},
		{`{"DateLessThan":{"kms:tag/since":"2025-06-01T00:00:00Z"}}`, true},
		{`{"Bool":{"acs:SecureTransport":"true"}}`, true},
		{`{"Bool":{"acs:SecureTransport":"false"}}`, false},
		{`{"Bool":{"acs:MFAPresent":"true"}}`, false},
		{`{"Bool":{"acs:MFAPresent":["true","false"]}}`, true},
		{`{"Bool":{"kms:tag/hot":"true"}}`, true},
		{`{"IpAddress":{"acs:SourceIp":"10.1.2.3"}}`, true},
		{`{"IpAddress":{"acs:SourceIp":["192.168.0.0/16","10.0.0.0/8"]}}`, true},
		{`{"IpAddress":{"acs:SourceIp":"2001:db8::/32"}}`, false},
		{`{"NotIpAddress":{"acs:SourceIp":"10.0.0.0/8"}}`, false},
		{`{"NotIpAddress":{"acs:SourceIp":"11.0.0.0/8"}}`, true},
		{`{"IpAddress":{"kms:tag/ip":"10.0.0.0/24"}}`, true},
		{`{"Bool":{"acs:SecureTransport":"true"},"IpAddress":{"acs:SourceIp":"11.0.0.0/8"}}`, false},
		{`{"Bool":{"acs:SecureTransport":"true","acs:MFAPresent":"true"}}`, false},
		{`{"Bool":{"acs:SecureTransport":"true","acs:MFAPresent":"false"}}`, true},
	} {
		r := Request{Principal: alice, Action: "kms:GetSecretValue", Resource: app, Context: ordinary}
		want := "implicit"
		if tt.want {
			want = "identity 0.0"
		}
		if got := evaluate(t, r, []string{allow("kms:*", "*", when(tt.condition))}, ""); got != want {
			t.Errorf("%s: %s; want %s", tt.condition, got, want)
		}
	}
}

// A request from nowhere at no time has neither an address nor a time.
func TestAbsentKeys(t *testing.T) {
	t.Parallel()
	for condition, want := range map[string]string{
		`{"IpAddress":{"acs:SourceIp":["0.0.0.0/0","::/0"]}}`:               "implicit",
		`{"NotIpAddress":{"acs:SourceIp":["0.0.0.0/0","::/0"]}}`:            "identity 0.0",
		`{"DateGreaterThan":{"acs:CurrentTime":"0001-01-01T00:00:00Z"}}`:    "implicit",
		`{"DateNotEquals":{"acs:CurrentTime":"0001-01-01T00:00:00Z"}}`:      "identity 0.0",
		`{"Bool":{"acs:SecureTransport":"false","acs:MFAPresent":"false"}}`: "identity 0.0",
	} {
		r := Request{Principal: alice, Action: "kms:GetSecretValue", Resource: app}
		if got := evaluate(t, r, []string{allow("kms:*", "*", when(condition))}, ""); got != want {
			t.Errorf("%s: %s; want %s", condition, got, want)
		}
	}
}

// A document used as what it is not would widen rights: "*" in a secret policy means one secret.
func TestEvaluateMisplacedDocuments(t *testing.T) {
	t.Parallel()
	id, err := ParseIdentity(allow("*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	sec, err := ParseSecret(secretDoc(rule("Allow", home+":user/alice", "kms:*")), home)
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
