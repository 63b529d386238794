package policy

import (
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/users"
)

// decision is one row of the table: who asks for what, under which documents, and what is decided.
// The text of want names the statement that decided: "identity 0.1" is statement 1 of identity
// document 0, "secret 1 Allow" statement 1 of the secret's policy with that Sid, "deny …" an
// explicit deny, "root" the rights of root, "implicit" a denial by nobody.
type decision struct {
	name             string
	who              Principal
	action, resource string
	identity         []string
	secret           string
	want             string
	context          Context
	// also are further pairs that the operation needs; the call goes through when all of them do, and
	// want is of the first one that does not, or else of the last.
	also []pair
}

type pair struct{ action, resource string }

func d(name string, who Principal, action, resource string, identity []string, secret, want string) decision {
	return decision{
		name:     name,
		who:      who,
		action:   action,
		resource: resource,
		identity: identity,
		secret:   secret,
		want:     want,
		context:  ordinary,
	}
}

// holds and fails are rows about one condition of a statement that allows everything.
func holds(condition string) decision {
	return d("condition "+condition, alice, get, app, []string{allow("kms:*", "*", when(condition))}, "", "identity 0.0")
}

func fails(condition string) decision {
	row := holds(condition)
	row.want = "implicit"
	return row
}

// nowhere is a request that comes from no address at no time, on a resource without tags.
func nowhere(row decision) decision {
	row.name, row.context = "nowhere: "+row.name, Context{}
	return row
}

// needs adds required pairs to a row, action and resource in turns.
func needs(row decision, more ...string) decision {
	for i := 0; i < len(more); i += 2 {
		row.also = append(row.also, pair{more[i], more[i+1]})
	}
	return row
}

// pairs are all that the row asks for.
func (row *decision) pairs() []pair { return append([]pair{{row.action, row.resource}}, row.also...) }

// comes is the document of a policy that comes with the service.
func comes(name string) []string {
	p, ok := users.SystemPolicy(name)
	if !ok {
		panic("no policy " + name + " comes with the service")
	}
	return []string{p.Document()}
}

const (
	get      = "kms:GetSecretValue"
	kmsHome  = "acs:kms:cn-hangzhou:" + home + ":"
	ramHome  = "acs:ram::" + home + ":"
	neighbor = kmsHome + "secret/app/other"
)

var everything = allow("*", "*")

var decisions = slices.Concat(identityDecisions, secretDecisions, pairDecisions, systemDecisions, conditionDecisions)

var identityDecisions = []decision{
	// Identity policies.
	d("nothing given", alice, get, app, nil, "", "implicit"),
	d("everything", alice, get, app, []string{everything}, "", "identity 0.0"),
	d("this secret", alice, get, app, []string{allow(get, app)}, "", "identity 0.0"),
	d("system policy", alice, "ram:GetPolicy", "acs:ram::system:policy/P",
		[]string{allow("ram:*", "acs:ram:*:system:policy/*")}, "", "identity 0.0"),
	d("system policy to root", root, "ram:GetPolicy", "acs:ram::system:policy/P", nil, "", "root"),
	d("a secret of no account", root, get, "acs:kms:cn-hangzhou:system:secret/app", nil, "", "implicit"),
	d("other secret", alice, get, app+"2", []string{allow(get, app)}, "", "implicit"),
	d("other action", alice, "kms:PutSecretValue", app, []string{allow(get, app)}, "", "implicit"),
	d("action in other case", alice, "KMS:getsecretvalue", app, []string{allow(get, app)}, "", "identity 0.0"),
	d("pattern in other case", alice, get, app, []string{allow("KMS:GETSECRET*", app)}, "", "identity 0.0"),
	d("action prefix", alice, get, app, []string{allow("kms:Get*", app)}, "", "identity 0.0"),
	d("action one character", alice, get, app, []string{allow("kms:GetSecretValu?", app)}, "", "identity 0.0"),
	d("action one character too few", alice, get, app, []string{allow("kms:GetSecretValue?", app)}, "", "implicit"),
	d("action of another service", alice, get, app, []string{allow("oss:*", "*")}, "", "implicit"),
	d("action list", alice, get, app, []string{strings.Replace(allow("X", app), `"X"`, `["kms:List*","kms:Get*"]`, 1)}, "",
		"identity 0.0"),
	d("resource in other case", alice, get, app, []string{allow(get, strings.Replace(app, "app", "App", 1))}, "",
		"implicit"),
	d("star crosses slash", alice, get, app, []string{allow(get, "acs:kms:*:*:secret/*")}, "", "identity 0.0"),
	d("star inside", alice, get, app, []string{allow(get, "acs:kms:*:*:*db")}, "", "identity 0.0"),
	d("question mark is one", alice, get, app, []string{allow(get, "acs:kms:*:*:secret/app/d?")}, "", "identity 0.0"),
	d("question mark is not two", alice, get, app, []string{allow(get, "acs:kms:*:*:secret/app?")}, "", "implicit"),
	d("any region and account", alice, get, app, []string{allow(get, "acs:kms:*:*:secret/app/*")}, "", "identity 0.0"),
	d("other region", alice, get, app, []string{allow(get, "acs:kms:cn-beijing:*:secret/app/*")}, "", "implicit"),
	d("region pattern", alice, get, app, []string{allow(get, "acs:kms:cn-*:*:secret/app/*")}, "", "identity 0.0"),
	d("other account in resource", alice, get, app, []string{allow(get, "acs:kms:*:"+foreign+":secret/app/*")}, "",
		"implicit"),
	d("empty region matches only empty", alice, get, app, []string{allow(get, "acs:kms::"+home+":secret/app/*")}, "",
		"implicit"),
	d("empty account matches only empty", alice, get, app, []string{allow(get, "acs:kms:cn-hangzhou::secret/app/*")}, "",
		"implicit"),
	d("empty region meets empty", alice, "sts:AssumeRole", "acs:ram::"+home+":role/w",
		[]string{allow("sts:*", "acs:ram::"+home+":role/*")}, "", "identity 0.0"),
	d("star meets empty region", alice, "sts:AssumeRole", "acs:ram::"+home+":role/w",
		[]string{allow("sts:*", "acs:ram:*:*:role/*")}, "", "identity 0.0"),
	d("star does not cross parts", alice, get, app, []string{allow(get, "acs:kms:*:secret/app/db:x")}, "", "implicit"),
	d("other service in resource", alice, get, app, []string{allow(get, "acs:oss:*:*:*")}, "", "implicit"),
	d("container is not an object", alice, "kms:CreateSecret", "acs:kms:cn-hangzhou:"+home+":secret",
		[]string{allow("kms:*", "acs:kms:*:*:secret/*")}, "", "implicit"),
	d("container", alice, "kms:CreateSecret", "acs:kms:cn-hangzhou:"+home+":secret",
		[]string{allow("kms:*", "acs:kms:*:*:secret")}, "", "identity 0.0"),
	d("container pattern is not for objects", alice, get, app, []string{allow("kms:*", "acs:kms:*:*:secret")}, "",
		"implicit"),
	d("no resource, star", alice, "kms:GetRandomPassword", "*", []string{everything}, "", "identity 0.0"),
	d("no resource, ARN pattern", alice, "kms:GetRandomPassword", "*", []string{allow("kms:*", "acs:kms:*:*:*")}, "",
		"implicit"),
	d("colon in the relative part", alice, get, app+":x", []string{allow(get, "acs:kms:*:*:secret/app/db:?")}, "",
		"identity 0.0"),
	d("deny wins", alice, get, app, []string{everything, deny(get, app)}, "", "deny identity 1.0"),
	d("deny wins in any order", alice, get, app, []string{deny(get, app), everything}, "", "deny identity 0.0"),
	d("deny wins inside one document", alice, get, app,
		[]string{strings.Replace(everything, `}]`, `},{"Effect":"Deny","Action":"kms:Get*","Resource":"*"}]`, 1)}, "",
		"deny identity 0.1"),
	d("deny for another resource", alice, get, app, []string{everything, deny(get, app+"2")}, "", "identity 0.0"),
	d("deny alone", alice, get, app, []string{deny(get, "*")}, "", "deny identity 0.0"),
	d("second document allows", alice, get, app, []string{allow("kms:List*", "*"), everything}, "", "identity 1.0"),
	d("statement as one object", alice, get, app,
		[]string{`{"Version":"1","Statement":{"Effect":"Allow","Action":"*","Resource":["*"]}}`}, "", "identity 0.0"),
	d("role session", worker, get, app, []string{allow(get, app)}, "", "identity 0.0"),
	d("engine by its documents", engine, "kms:RotateSecret", app, []string{allow("kms:*", "acs:kms:*:*:secret/*")}, "",
		"identity 0.0"),
	d("engine without documents", engine, "kms:RotateSecret", app, nil, "", "implicit"),

	// Root.
	d("root", root, get, app, nil, "", "root"),
	d("root without resource", root, "kms:GetRandomPassword", "*", nil, "", "root"),
	d("root is not bound by identity policies", root, get, app, []string{deny("*", "*")}, "", "root"),
	d("root of another account", rootAway, get, app, nil, "", "implicit"),
	d("root with an odd resource", root, get, "secret/app", nil, "", "implicit"),

	// What cannot be judged.
	d("zero principal", Principal{}, get, app, []string{everything}, "", "implicit"),
	d("principal without account", Principal{Kind: KindAccount}, get, "acs:kms:cn-hangzhou::secret/x",
		[]string{everything}, "", "implicit"),
	d("unknown kind", Principal{Kind: "Robot", Account: home}, get, app, []string{everything}, "", "implicit"),
	d("no action", alice, "", app, []string{everything}, "", "implicit"),
	d("resource is no ARN", alice, get, "secret/app", []string{everything}, "", "implicit"),
	d("question mark is not none", alice, get, app, []string{allow(get, "acs:kms:*:*:secret/app/db?")}, "", "implicit"),
	d("question mark is a whole character", alice, get, kmsHome+"secret/é/b",
		[]string{allow(get, "acs:kms:*:*:secret/?/b")}, "", "identity 0.0"),
	d("question mark is no part of a character", alice, get, kmsHome+"secret/é/b",
		[]string{allow(get, "acs:kms:*:*:secret/??/b")}, "", "implicit"),
	d("question mark matches a slash", alice, get, app, []string{allow(get, "acs:kms:*:*:secret?app?db")}, "",
		"identity 0.0"),
	d("star is also none", alice, get, app, []string{allow(get, app+"*")}, "", "identity 0.0"),
	d("several stars", alice, get, app, []string{allow("k*:*Secret*", "acs:*:*:*:s*/*/*")}, "", "identity 0.0"),
	d("star in the service", alice, get, app, []string{allow(get, "acs:*:*:*:secret/*")}, "", "identity 0.0"),
	d("question mark in the account", alice, get, app, []string{allow(get, "acs:kms:*:123456789012345?:secret/*")}, "",
		"identity 0.0"),
	d("region in other case", alice, get, app, []string{allow(get, "acs:kms:CN-Hangzhou:*:secret/*")}, "", "implicit"),
	d("service in other case", alice, get, app, []string{allow(get, "acs:KMS:*:*:secret/*")}, "", "implicit"),
	d("every action of the service", alice, get, app, []string{allow("kms:*", "*")}, "", "identity 0.0"),
	d("a key is another object", alice, "kms:Decrypt", kmsHome+"key/k1", []string{allow("kms:*", "acs:kms:*:*:secret/*")},
		"", "implicit"),
	d("the container of keys", alice, "kms:CreateKey", kmsHome+"key", []string{allow("kms:CreateKey", "acs:kms:*:*:key")},
		"", "identity 0.0"),
	d("a pattern for container and objects", alice, "kms:ListSecrets", kmsHome+"secret",
		[]string{allow("kms:*", "acs:kms:*:*:secret*")}, "", "identity 0.0"),
	d("deny of objects leaves the container", alice, "kms:ListSecrets", kmsHome+"secret",
		[]string{everything, deny("kms:*", "acs:kms:*:*:secret/*")}, "", "identity 0.0"),
	d("deny of the container leaves objects", alice, get, app, []string{everything, deny("kms:*", "acs:kms:*:*:secret")},
		"", "identity 0.0"),
	d("deny under a condition that fails", alice, get, app,
		[]string{everything, deny(get, "*", when(`{"Bool":{"acs:SecureTransport":"false"}}`))}, "", "identity 0.0"),
	d("deny under a condition that holds", alice, get, app,
		[]string{everything, deny(get, "*", when(`{"Bool":{"acs:SecureTransport":"true"}}`))}, "", "deny identity 1.0"),
	d("deny by ARN does not reach what has no resource", alice, "kms:GetRandomPassword", "*",
		[]string{everything, deny("kms:GetRandomPassword", "acs:kms:*:*:*")}, "", "identity 0.0"),
	d("second statement allows", alice, get, app,
		[]string{`{"Version":"1","Statement":[{"Effect":"Allow","Action":"kms:List*","Resource":"*"},{"Effect":"Allow",` +
			`"Action":"kms:Get*","Resource":["` + neighbor + `","` + app + `"]}]}`}, "", "identity 0.1"),
}

var secretDecisions = []decision{
	// Secret policy, own account.
	d("default is no grant", alice, get, app, nil, DefaultSecretDocument(home), "implicit"),
	d("default and identity", alice, get, app, []string{allow(get, app)}, DefaultSecretDocument(home), "identity 0.0"),
	d("root pattern is no grant", alice, get, app, nil, secretDoc(rule("Allow", home+":root", "kms:*")), "implicit"),
	d("named user is a grant", alice, get, app, nil, secretDoc(own, rule("Allow", home+":user/alice", get)),
		"secret 1 Allow"),
	d("grant before delegation", alice, get, app, nil, secretDoc(rule("Allow", home+":user/alice", get), own),
		"secret 0 Allow"),
	d("another user is not named", bob, get, app, nil, secretDoc(own, rule("Allow", home+":user/alice", get)), "implicit"),
	d("user of that name elsewhere", mallory, get, app, []string{everything},
		secretDoc(rule("Allow", home+":user/alice", get)), "implicit"),
	d("named role is a grant", worker, get, app, nil, secretDoc(own, rule("Allow", home+":role/worker", "kms:Get*")),
		"secret 1 Allow"),
	d("role is not user", worker, get, app, nil, secretDoc(own, rule("Allow", home+":user/worker", get)), "implicit"),
	d("user is not role", alice, get, app, nil, secretDoc(own, rule("Allow", home+":role/alice", get)), "implicit"),
	d("grant for another action", alice, get, app, nil, secretDoc(own, rule("Allow", home+":user/alice", "kms:Describe*")),
		"implicit"),
	d("identity deny beats grant", alice, get, app, []string{deny(get, app)},
		secretDoc(own, rule("Allow", home+":user/alice", get)), "deny identity 0.0"),
	d("secret deny beats identity", alice, get, app, []string{everything},
		secretDoc(own, rule("Deny", home+":user/alice", get)), "deny secret 1 Deny"),
	d("secret deny for another user", bob, get, app, []string{everything},
		secretDoc(own, rule("Deny", home+":user/alice", get)), "identity 0.0"),
	d("secret deny for a role", worker, get, app, []string{everything},
		secretDoc(own, rule("Deny", home+":role/worker", get)), "deny secret 1 Deny"),
	d("secret deny for all", alice, get, app, []string{everything}, secretDoc(own, rule("Deny", home+":*", get)),
		"deny secret 1 Deny"),
	d("secret deny for all binds root", root, get, app, nil, secretDoc(own, rule("Deny", home+":*", get)),
		"deny secret 1 Deny"),
	d("secret deny for root binds root", root, get, app, nil, secretDoc(own, rule("Deny", home+":root", get)),
		"deny secret 1 Deny"),
	d("secret deny for root is for root alone", alice, get, app, []string{everything},
		secretDoc(own, rule("Deny", home+":root", get)), "identity 0.0"),
	d("secret deny of a user leaves root", root, get, app, nil, secretDoc(own, rule("Deny", home+":user/alice", get)),
		"root"),
	d("engine is not bound", engine, "kms:UpdateSecretVersionStage", app, []string{everything},
		secretDoc(own, rule("Deny", home+":*", "kms:Update*")), "identity 0.0"),
	d("deny of setting the policy", alice, "kms:SetSecretPolicy", app, []string{everything},
		secretDoc(own, rule("Deny", home+":*", "kms:Set*")), "deny secret 1 Deny"),
	d("deny of everything, setting the policy", alice, "kms:SetSecretPolicy", app, []string{everything},
		secretDoc(own, rule("Deny", home+":user/alice", "kms:*")), "deny secret 1 Deny"),
	d("deny of everything, reading the policy", alice, "kms:GetSecretPolicy", app, []string{everything},
		secretDoc(own, rule("Deny", home+":user/alice", "kms:*")), "deny secret 1 Deny"),
	d("deny of an action that cannot be granted", alice, "kms:Decrypt", app, []string{everything},
		secretDoc(own, rule("Deny", home+":user/alice", "kms:*")), "deny secret 1 Deny"),
	d("root may set the policy whatever it denies", root, "kms:SetSecretPolicy", app, nil,
		secretDoc(own, rule("Deny", home+":*", "kms:Set*")), "root"),
	d("root may read the policy whatever it denies", root, "kms:GetSecretPolicy", app, nil,
		secretDoc(own, rule("Deny", home+":root", "kms:*")), "root"),
	d("grant to a user who was renamed", renamed, get, app, nil, secretDoc(own, rule("Allow", home+":user/alice", get)),
		"secret 1 Allow"),
	d("grant is not of the next user of that name", successor, get, app, nil,
		secretDoc(own, rule("Allow", home+":user/alice", get)), "implicit"),
	d("grant is not of the next role of that name", workerSuccessor, get, app, nil,
		secretDoc(own, rule("Allow", home+":role/worker", get)), "implicit"),
	d("deny of a user who was renamed", renamed, get, app, []string{everything},
		secretDoc(own, rule("Deny", home+":user/alice", get)), "deny secret 1 Deny"),
	d("deny of the next user of that name", successor, get, app, []string{everything},
		secretDoc(own, rule("Deny", home+":user/alice", get)), "deny secret 1 Deny"),
	d("deny of the next role of that name", workerSuccessor, get, app, []string{everything},
		secretDoc(own, rule("Deny", home+":role/worker", get)), "deny secret 1 Deny"),
	d("grant without effect", alice, "kms:SetSecretPolicy", app, nil,
		secretDoc(own, rule("Allow", home+":user/alice", "kms:*")), "implicit"),
	d("governed: list", alice, "kms:ListSecretVersionIds", app, nil, secretDoc(rule("Allow", home+":user/alice", "kms:*")),
		"secret 0 Allow"),
	d("governed: put", alice, "kms:PutSecretValue", app, nil, secretDoc(rule("Allow", home+":user/alice", "kms:*")),
		"secret 0 Allow"),
	d("governed: tag resources", alice, "kms:TagResources", app, nil,
		secretDoc(rule("Allow", home+":user/alice", "kms:*")), "secret 0 Allow"),
	d("governed: update stage", alice, "kms:UpdateSecretVersionStage", app, nil,
		secretDoc(rule("Allow", home+":user/alice", "kms:*")), "secret 0 Allow"),
	d("not governed: decrypt", alice, "kms:Decrypt", app, nil, secretDoc(rule("Allow", home+":user/alice", "kms:*")),
		"implicit"),
	d("not governed: create", alice, "kms:CreateSecret", app, nil, secretDoc(rule("Allow", home+":user/alice", "kms:*")),
		"implicit"),
	d("secret condition holds", alice, get, app, nil,
		secretDoc(own, rule("Allow", home+":user/alice", get, when(`{"IpAddress":{"acs:SourceIp":"10.0.0.0/8"}}`))),
		"secret 1 Allow"),
	d("secret condition fails", alice, get, app, nil,
		secretDoc(own, rule("Allow", home+":user/alice", get, when(`{"IpAddress":{"acs:SourceIp":"11.0.0.0/8"}}`))),
		"implicit"),
	d("secret of another account", alice, get, app, []string{everything}, DefaultSecretDocument(foreign), "implicit"),
	d("secret policy without resource", alice, get, "*", []string{everything}, DefaultSecretDocument(home), "implicit"),

	// Another account.
	d("away: identity alone", mallory, get, app, []string{everything}, DefaultSecretDocument(home), "implicit"),
	d("away: no secret policy", mallory, get, app, []string{everything}, "", "implicit"),
	d("away: secret alone", mallory, get, app, nil, secretDoc(own, rule("Allow", foreign+":user/alice", get)), "implicit"),
	d("away: both", mallory, get, app, []string{allow(get, app)},
		secretDoc(own, rule("Allow", foreign+":user/alice", get)), "secret 1 Allow"),
	d("away: account delegated", mallory, get, app, []string{allow(get, app)},
		secretDoc(own, rule("Allow", foreign+":root", get)), "secret 1 Allow"),
	d("away: identity deny", mallory, get, app, []string{everything, deny(get, "*")},
		secretDoc(own, rule("Allow", foreign+":user/alice", get)), "deny identity 1.0"),
	d("away: secret deny", mallory, get, app, []string{everything},
		secretDoc(own, rule("Allow", foreign+":user/alice", get), rule("Deny", foreign+":*", get)), "deny secret 2 Deny"),
	d("away: not governed", mallory, "kms:SetSecretPolicy", app, []string{everything},
		secretDoc(own, rule("Allow", foreign+":user/alice", "kms:*")), "implicit"),
	d("away: root named", rootAway, get, app, nil, secretDoc(own, rule("Allow", foreign+":root", get)), "secret 1 Allow"),
	d("away: engine is not delegated", Principal{Kind: KindSystem, Account: foreign}, get, app, []string{everything},
		secretDoc(own, rule("Allow", foreign+":*", get)), "implicit"),
	d("away: deny of its root binds it", rootAway, get, app, nil,
		secretDoc(own, rule("Allow", foreign+":root", get), rule("Deny", foreign+":root", get)), "deny secret 2 Deny"),
	d("secret deny beats its own grant", alice, get, app, nil,
		secretDoc(own, rule("Allow", home+":user/alice", "kms:*"), rule("Deny", home+":user/alice", "kms:Get*")),
		"deny secret 2 Deny"),
	d("governed: restore", alice, "kms:RestoreSecret", app, nil, secretDoc(rule("Allow", home+":user/alice", "kms:*")),
		"secret 0 Allow"),
	d("governed: rotate", alice, "kms:RotateSecret", app, nil, secretDoc(rule("Allow", home+":user/alice", "kms:*")),
		"secret 0 Allow"),
	d("not governed: get the policy", alice, "kms:GetSecretPolicy", app, nil,
		secretDoc(rule("Allow", home+":user/alice", "kms:*")), "implicit"),
}

// pairDecisions are calls that need several rights: one that is missing refuses the whole call
// (access.md section 3).
var pairDecisions = []decision{
	needs(d("create under a key: both", alice, "kms:CreateSecret", kmsHome+"secret",
		[]string{allow("kms:CreateSecret", "acs:kms:*:*:secret"), allow("kms:GenerateDataKey", "acs:kms:*:*:key/k1")}, "",
		"identity 1.0"),
		"kms:GenerateDataKey", kmsHome+"key/k1"),
	needs(d("create under a key: not the key", alice, "kms:CreateSecret", kmsHome+"secret",
		[]string{allow("kms:CreateSecret", "acs:kms:*:*:secret")}, "", "implicit"),
		"kms:GenerateDataKey", kmsHome+"key/k1"),
	needs(d("create under a key: another key", alice, "kms:CreateSecret", kmsHome+"secret",
		[]string{allow("kms:*", "acs:kms:*:*:secret"), allow("kms:*", "acs:kms:*:*:key/k2")}, "", "implicit"),
		"kms:GenerateDataKey", kmsHome+"key/k1"),
	needs(d("read under a key: both", alice, get, app,
		[]string{allow(get, app), allow("kms:Decrypt", "acs:kms:*:*:key/*")}, "", "identity 1.0"), "kms:Decrypt", kmsHome+
		"key/k1"),
	needs(d("read under a key: the key denied", alice, get, app, []string{everything, deny("kms:Decrypt", "*")}, "",
		"deny identity 1.0"), "kms:Decrypt", kmsHome+"key/k1"),
	needs(d("encrypt again: a pattern for both", alice, "kms:ReEncryptFrom", kmsHome+"key/k1",
		[]string{allow("kms:ReEncrypt*", "acs:kms:*:*:key/*")}, "", "identity 0.0"), "kms:ReEncryptTo", kmsHome+"key/k2"),
	needs(d("encrypt again: from alone", alice, "kms:ReEncryptFrom", kmsHome+"key/k1",
		[]string{allow("kms:ReEncryptFrom", "*")}, "", "implicit"), "kms:ReEncryptTo", kmsHome+"key/k2"),
	needs(d("tag several: all", alice, "kms:TagResources", app,
		[]string{allow("kms:TagResources", "acs:kms:*:*:secret/app/*")}, "", "identity 0.0"), "kms:TagResources", neighbor),
	needs(d("tag several: one not", alice, "kms:TagResources", app, []string{allow("kms:TagResources", app)}, "",
		"implicit"), "kms:TagResources", neighbor),
	needs(d("attach: user and policy", alice, "ram:AttachPolicyToUser", ramHome+"user/bob",
		[]string{allow("ram:Attach*", ramHome+"user/*"), allow("ram:Attach*", "acs:ram::*:policy/*")}, "", "identity 1.0"),
		"ram:AttachPolicyToUser", "acs:ram::system:policy/AdministratorAccess"),
	needs(d("attach: the user alone", alice, "ram:AttachPolicyToUser", ramHome+"user/bob",
		[]string{allow("ram:*", ramHome+"*")}, "", "implicit"),
		"ram:AttachPolicyToUser", "acs:ram::system:policy/AdministratorAccess"),
}

// systemDecisions are made by the policies that come with the service.
var systemDecisions = []decision{
	d("administrator", alice, "ram:CreateUser", ramHome+"user/*", comes("AdministratorAccess"), "", "identity 0.0"),
	d("administrator, no resource", alice, "kms:GetRandomPassword", "*", comes("AdministratorAccess"), "", "identity 0.0"),
	d("administrator, denied", alice, get, app, append(comes("AdministratorAccess"), deny("kms:Get*", "*")), "",
		"deny identity 1.0"),
	d("full access", alice, "kms:DeleteSecret", app, comes("AliyunKMSFullAccess"), "", "identity 0.0"),
	d("full access, users", alice, "ram:ListUsers", ramHome+"user/*", comes("AliyunKMSFullAccess"), "", "implicit"),
	d("read only, list", alice, "kms:ListSecrets", kmsHome+"secret", comes("AliyunKMSReadOnlyAccess"), "", "identity 0.0"),
	d("read only, policy", alice, "kms:GetSecretPolicy", app, comes("AliyunKMSReadOnlyAccess"), "", "identity 0.0"),
	d("read only, value", alice, get, app, comes("AliyunKMSReadOnlyAccess"), "", "implicit"),
	d("secret administrator, container", alice, "kms:CreateSecret", kmsHome+"secret", comes("AliyunKMSSecretAdminAccess"),
		"", "identity 0.0"),
	d("secret administrator, key", alice, "kms:Decrypt", kmsHome+"key/k1", comes("AliyunKMSSecretAdminAccess"), "",
		"implicit"),
	d("secret administrator, password", alice, "kms:GetRandomPassword", "*", comes("AliyunKMSSecretAdminAccess"), "",
		"identity 0.1"),
	d("secret user, value", alice, get, app, comes("AliyunKMSSecretUserAccess"), "", "identity 0.0"),
	d("secret user, metadata", alice, "kms:DescribeSecret", app, comes("AliyunKMSSecretUserAccess"), "", "identity 0.1"),
	d("secret user, put", alice, "kms:PutSecretValue", app, comes("AliyunKMSSecretUserAccess"), "", "implicit"),
	d("the server itself, administrator", alice, "kms:RotateRootKey", kmsHome+"rootkey", comes("AdministratorAccess"), "",
		"implicit"),
	d("the server itself, full access", alice, "kms:RotateLocalCA", kmsHome+"localca", comes("AliyunKMSFullAccess"), "",
		"implicit"),
	d("the server itself, a pattern", alice, "kms:RotateRootKey", kmsHome+"rootkey",
		[]string{allow("kms:*", "acs:kms:*:*:root*")}, "", "implicit"),
	d("the server itself, by name", alice, "kms:RotateRootKey", kmsHome+"rootkey",
		[]string{allow("kms:*", "acs:kms:*:*:rootkey")}, "", "identity 0.0"),
	d("the server itself, denied on everything", alice, "kms:RotateRootKey", kmsHome+"rootkey",
		[]string{allow("kms:*", "acs:kms:*:*:rootkey"), deny("kms:*", "*")}, "", "deny identity 1.0"),
	d("the server itself, root", root, "kms:RotateRootKey", kmsHome+"rootkey", nil, "", "root"),
	d("two of them", alice, "kms:ListSecrets", kmsHome+"secret",
		append(comes("AliyunKMSSecretUserAccess"), comes("AliyunKMSReadOnlyAccess")...), "", "identity 1.0"),
}

// conditionDecisions have every operator and every key, in a row where the condition holds and in
// one where it fails.
var conditionDecisions = []decision{
	holds(`{"StringEquals":{"kms:tag/env":"Prod"}}`),
	fails(`{"StringEquals":{"kms:tag/env":"prod"}}`),
	holds(`{"StringEquals":{"kms:tag/env":["dev","Prod"]}}`),
	fails(`{"StringEquals":{"kms:tag/none":"Prod"}}`),
	holds(`{"StringNotEquals":{"kms:tag/env":"dev"}}`),
	fails(`{"StringNotEquals":{"kms:tag/env":["dev","Prod"]}}`),
	holds(`{"StringNotEquals":{"kms:tag/none":"Prod"}}`),
	holds(`{"StringEqualsIgnoreCase":{"kms:tag/env":"PROD"}}`),
	fails(`{"StringNotEqualsIgnoreCase":{"kms:tag/env":"PROD"}}`),
	holds(`{"StringLike":{"kms:tag/env":"P*d"}}`),
	fails(`{"StringLike":{"kms:tag/env":"p*"}}`),
	fails(`{"StringNotLike":{"kms:tag/env":["x*","P???"]}}`),
	holds(`{"StringNotLike":{"kms:tag/none":"*"}}`),
	holds(`{"NumericEquals":{"kms:tag/level":"7.0"}}`),
	fails(`{"NumericEquals":{"kms:tag/word":"7"}}`),
	holds(`{"NumericNotEquals":{"kms:tag/level":"8"}}`),
	holds(`{"NumericNotEquals":{"kms:tag/word":"7"}}`),
	fails(`{"NumericLessThan":{"kms:tag/level":"7"}}`),
	fails(`{"NumericLessThan":{"kms:tag/none":"7"}}`),
	holds(`{"NumericLessThanEquals":{"kms:tag/level":"7"}}`),
	holds(`{"NumericGreaterThan":{"kms:tag/level":"-10"}}`),
	fails(`{"NumericGreaterThanEquals":{"kms:tag/level":"7.5"}}`),
	holds(`{"DateEquals":{"acs:CurrentTime":"2026-01-02T11:04:05+08:00"}}`),
	fails(`{"DateEquals":{"acs:CurrentTime":"2026-01-02T03:04:06Z"}}`),
	holds(`{"DateNotEquals":{"acs:CurrentTime":"2026-01-02T03:04:06Z"}}`),
	holds(`{"DateLessThan":{"acs:CurrentTime":"2026-01-02T03:04:06Z"}}`),
	fails(`{"DateLessThan":{"acs:CurrentTime":"2026-01-02T03:04:05Z"}}`),
	holds(`{"DateLessThanEquals":{"acs:CurrentTime":"2026-01-02T03:04:05Z"}}`),
	fails(`{"DateGreaterThan":{"acs:CurrentTime":"2026-01-02T03:04:05Z"}}`),
	holds(`{"DateGreaterThanEquals":{"acs:CurrentTime":"2026-01-02T03:04:05Z"}}`),
	holds(`{"DateLessThan":{"kms:tag/since":"2025-06-01T00:00:00Z"}}`),
	holds(`{"Bool":{"acs:SecureTransport":"true"}}`),
	fails(`{"Bool":{"acs:SecureTransport":"false"}}`),
	fails(`{"Bool":{"acs:MFAPresent":"true"}}`),
	holds(`{"Bool":{"acs:MFAPresent":["true","false"]}}`),
	holds(`{"Bool":{"kms:tag/hot":"true"}}`),
	holds(`{"IpAddress":{"acs:SourceIp":"10.1.2.3"}}`),
	holds(`{"IpAddress":{"acs:SourceIp":["192.168.0.0/16","10.0.0.0/8"]}}`),
	fails(`{"IpAddress":{"acs:SourceIp":"2001:db8::/32"}}`),
	fails(`{"NotIpAddress":{"acs:SourceIp":"10.0.0.0/8"}}`),
	holds(`{"NotIpAddress":{"acs:SourceIp":"11.0.0.0/8"}}`),
	holds(`{"IpAddress":{"kms:tag/ip":"10.0.0.0/24"}}`),
	fails(`{"Bool":{"acs:SecureTransport":"true"},"IpAddress":{"acs:SourceIp":"11.0.0.0/8"}}`),
	fails(`{"Bool":{"acs:SecureTransport":"true","acs:MFAPresent":"true"}}`),
	holds(`{"Bool":{"acs:SecureTransport":"true","acs:MFAPresent":"false"}}`),
	holds(`{"StringNotEquals":{"kms:tag/env":"prod"}}`),
	fails(`{"StringEqualsIgnoreCase":{"kms:tag/env":"dev"}}`),
	holds(`{"StringNotEqualsIgnoreCase":{"kms:tag/env":["dev","test"]}}`),
	holds(`{"StringLike":{"kms:tag/env":["dev*","?rod"]}}`),
	fails(`{"StringLike":{"kms:tag/none":"*"}}`),
	holds(`{"StringNotLike":{"kms:tag/env":"p*"}}`),
	fails(`{"NumericNotEquals":{"kms:tag/level":["1","7.00"]}}`),
	holds(`{"NumericLessThan":{"kms:tag/level":"7.5"}}`),
	fails(`{"NumericLessThanEquals":{"kms:tag/level":"-7"}}`),
	fails(`{"NumericGreaterThan":{"kms:tag/level":"7"}}`),
	holds(`{"NumericGreaterThanEquals":{"kms:tag/level":"7"}}`),
	fails(`{"NumericGreaterThanEquals":{"kms:tag/word":"0"}}`),
	fails(`{"DateNotEquals":{"acs:CurrentTime":["2026-01-02T03:04:05Z","2026-01-02T03:04:06Z"]}}`),
	fails(`{"DateLessThanEquals":{"acs:CurrentTime":"2026-01-02T03:04:04Z"}}`),
	holds(`{"DateGreaterThan":{"acs:CurrentTime":"2026-01-02T11:04:04+08:00"}}`),
	fails(`{"DateGreaterThanEquals":{"acs:CurrentTime":"2026-01-02T03:04:06Z"}}`),
	fails(`{"DateEquals":{"kms:tag/word":"2026-01-02T03:04:05Z"}}`),
	fails(`{"Bool":{"kms:tag/word":["true","false"]}}`),
	fails(`{"Bool":{"kms:tag/none":"false"}}`),
	fails(`{"NotIpAddress":{"acs:SourceIp":["11.0.0.0/8","10.1.2.3"]}}`),
	holds(`{"IpAddress":{"acs:SourceIp":"10.1.2.9/24"}}`),
	holds(`{"NotIpAddress":{"kms:tag/word":"10.0.0.0/8"}}`),
	fails(`{"IpAddress":{"kms:tag/ip":"10.0.0.2"}}`),
	fails(`{"IpAddress":{"kms:tag/net":"10.0.0.0/8"}}`),
	holds(`{"StringEquals":{"kms:tag/env":"Prod","kms:tag/word":"seven"},"NumericLessThan":{"kms:tag/level":"8"}}`),
	fails(`{"StringEquals":{"kms:tag/env":"Prod","kms:tag/word":"eight"},"NumericLessThan":{"kms:tag/level":"8"}}`),
	nowhere(fails(`{"IpAddress":{"acs:SourceIp":["0.0.0.0/0","::/0"]}}`)),
	nowhere(holds(`{"NotIpAddress":{"acs:SourceIp":["0.0.0.0/0","::/0"]}}`)),
	nowhere(fails(`{"DateGreaterThan":{"acs:CurrentTime":"0001-01-01T00:00:00Z"}}`)),
	nowhere(holds(`{"DateNotEquals":{"acs:CurrentTime":"0001-01-01T00:00:00Z"}}`)),
	nowhere(holds(`{"Bool":{"acs:SecureTransport":"false","acs:MFAPresent":"false"}}`)),
}

// TestDecisions is the table: at least 150 decisions, and the statement that made each of them.
func TestDecisions(t *testing.T) {
	t.Parallel()
	if len(decisions) < 150 {
		t.Errorf("the table has %d decisions; want at least 150", len(decisions))
	}
	t.Logf("%d decisions", len(decisions))
	names := map[string]bool{}
	for _, row := range decisions {
		if names[row.name] {
			t.Errorf("two rows are named %q", row.name)
		}
		names[row.name] = true
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got := ""
			for _, p := range row.pairs() {
				r := asking(row.who, p.action, p.resource, row.context)
				got = evaluate(t, r, row.identity, row.secret)
				if got == "implicit" || strings.HasPrefix(got, "deny") {
					break
				}
			}
			if got != row.want {
				t.Errorf("decided by %s; want %s", got, row.want)
			}
		})
	}
}

// TestDecisionsCoverConditions holds that no operator and no key is missing from the table, neither
// where it holds nor where it fails.
func TestDecisionsCoverConditions(t *testing.T) {
	t.Parallel()
	words := []string{`"acs:CurrentTime"`, `"acs:SecureTransport"`, `"acs:SourceIp"`, `"acs:MFAPresent"`, `"kms:tag/`}
	for name := range operators {
		words = append(words, `"`+name+`"`)
	}
	if len(words) != 5+21 {
		t.Errorf("%d words; the contract has 21 operators and 5 keys", len(words))
	}
	for _, word := range words {
		for _, want := range []string{"identity 0.0", "implicit"} {
			if !slices.ContainsFunc(conditionDecisions, func(row decision) bool {
				return row.want == want && strings.Contains(row.name, word)
			}) {
				t.Errorf("no row with %s is decided by %s", word, want)
			}
		}
	}
}
