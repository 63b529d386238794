package policy

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var seed = flag.Uint64("policy.seed", 20260102, "where the random policies of TestEvaluatorsAgree begin")

// compared is a set of documents, read by both evaluators.
type compared struct {
	texts    []string
	secret   string
	identity []Document
	own      *Document
	plain    []plainDoc
	plainOwn plainDoc
}

// readBoth parses documents for both. It fails when one is refused.
func readBoth(identity []string, secret string) (*compared, error) {
	c := &compared{texts: identity, secret: secret}
	for _, text := range identity {
		doc, err := ParseIdentity(text)
		if err != nil {
			return nil, fmt.Errorf("%w\n%s", err, text)
		}
		c.identity, c.plain = append(c.identity, doc), append(c.plain, readPlain(text))
	}
	if secret != "" {
		doc, err := parseSecret(secret, owner(secret))
		if err != nil {
			return nil, fmt.Errorf("%w\n%s", err, secret)
		}
		c.own, c.plainOwn = &doc, readPlain(secret)
	}
	return c, nil
}

// disagreement asks both and says how they differ; it is empty when they do not.
func (c *compared) disagreement(r Request) (Decision, string) {
	d := Evaluate(r, c.identity, c.own)
	v := naively(r, c.plain, c.plainOwn, owner(c.secret))
	decider := v.allows
	if d.Explicit {
		decider = v.denies
	}
	agreed := d.Allowed == v.allowed && d.Explicit == v.explicit &&
		(d.Policy == "" || slices.Contains(decider, place{d.Document, d.Statement}))
	if agreed {
		return d, ""
	}
	return d, fmt.Sprintf(
		"Evaluate says %+v, the naive evaluator %+v\nrequest %+v\nidentity policies:\n%s\nsecret policy:\n%s",
		d, v, r, strings.Join(c.texts, "\n"), c.secret)
}

// The naive evaluator is held to the table too: otherwise both could share a mistake.
func TestNaiveMakesTheDecisions(t *testing.T) {
	t.Parallel()
	for _, row := range decisions {
		c, err := readBoth(row.identity, row.secret)
		if err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		for _, p := range row.pairs() {
			r := asking(row.who, p.action, p.resource, row.context)
			if _, differ := c.disagreement(r); differ != "" {
				t.Errorf("%s: %s", row.name, differ)
			}
		}
	}
}

const (
	batches  = 4000
	perBatch = 250 // requests to each set of documents: a million in all
)

// TestEvaluatorsAgree compares a million decisions of random documents. Each set is drawn from its
// own seed, so a failure is found again with the seed that is printed.
func TestEvaluatorsAgree(t *testing.T) {
	t.Parallel()
	t.Logf("seed %d; another with -policy.seed", *seed)
	begin := time.Now()
	var next, allowed, explicit, implied, failed atomic.Int64
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for n := next.Add(1); n <= batches && failed.Load() < 3; n = next.Add(1) {
				g := generator{rand.New(rand.NewPCG(*seed, uint64(n)))}
				c, err := g.documents()
				if err != nil {
					failed.Add(1)
					t.Errorf("set %d: a generated document is refused: %v", n, err)
					continue
				}
				for range perBatch {
					d, differ := c.disagreement(g.request())
					switch {
					case differ != "":
						failed.Add(1)
						t.Errorf("seed %d, set %d: %s", *seed, n, differ)
						return
					case d.Allowed:
						allowed.Add(1)
					case d.Explicit:
						explicit.Add(1)
					default:
						implied.Add(1)
					}
				}
			}
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	total := allowed.Load() + explicit.Load() + implied.Load()
	t.Logf("%d decisions in %v: %d allowed, %d denied explicitly, %d implicitly", total,
		time.Since(begin).Round(time.Millisecond), allowed.Load(), explicit.Load(), implied.Load())
	if total != batches*perBatch || total < 1_000_000 {
		t.Errorf("%d decisions were compared; want a million", total)
	}
	for what, n := range map[string]int64{"allowed": allowed.Load(), "denied explicitly": explicit.Load(),
		"denied implicitly": implied.Load()} {
		if n*20 < total {
			t.Errorf("only %d of %d requests are %s; the generator must reach at least 5%%", n, total, what)
		}
	}
}

// generator draws documents and requests from few words, so that they meet.
type generator struct{ *rand.Rand }

func (g generator) of(words ...string) string { return words[g.IntN(len(words))] }

// some draws one to three words, as a string or as a list.
func (g generator) some(draw func() string) any {
	if g.IntN(2) == 0 {
		return draw()
	}
	out := make([]string, 1+g.IntN(3))
	for i := range out {
		out[i] = draw()
	}
	return out
}

func (g generator) documents() (*compared, error) {
	var identity []string
	for range g.IntN(5) {
		identity = append(identity, g.document(func() map[string]any {
			st := g.statement(func() string {
				return g.of("*", "*:*", "kms:*", "kms:Get*", "KMS:getsecret*", "kms:GetSecretValue", "kms:?etSecretValue",
					"kms:Describe*", "kms:*Secret*",
					"kms:PutSecretValue", "kms:List*", "kms:*Value", "oss:*", "ram:*", "kms:Tag*", "kms:GetRandomPassword")
			})
			st["Resource"] = g.some(g.resourcePattern)
			return st
		}))
	}
	secret := ""
	if g.IntN(2) == 0 {
		rules := []map[string]any{{"Effect": "Allow", "Principal": map[string]any{"RAM": "acs:ram::" + home + ":*"},
			"Action": "kms:ListSecretVersionIds", "Resource": "*"}}
		for range g.IntN(4) {
			st := g.statement(func() string {
				return g.of("kms:*", "kms:Get*", "kms:GetSecretValue", "KMS:Describe*", "kms:Put*", "kms:Tag*", "kms:Set*",
					"kms:*Secret*", "kms:Decrypt")
			})
			st["Resource"] = g.of("*", "*")
			st["Principal"] = map[string]any{"RAM": g.some(g.principalPattern)}
			rules = append(rules, st)
		}
		g.Shuffle(len(rules), func(i, j int) { rules[i], rules[j] = rules[j], rules[i] })
		secret = encoded(map[string]any{"Version": "1", "Statement": rules})
		if _, err := parseSecret(secret, home); err != nil { // it takes everything from the owner again
			secret = DefaultSecretDocument(home)
		}
	}
	return readBoth(identity, secret)
}

func (g generator) document(statement func() map[string]any) string {
	if g.IntN(4) == 0 {
		return encoded(map[string]any{"Version": "1", "Statement": statement()})
	}
	var list []any
	for range 1 + g.IntN(4) {
		list = append(list, statement())
	}
	return encoded(map[string]any{"Version": "1", "Statement": list})
}

func (g generator) statement(action func() string) map[string]any {
	st := map[string]any{"Effect": "Allow", "Action": g.some(action)}
	if g.IntN(3) == 0 {
		st["Effect"] = "Deny"
	}
	if g.IntN(3) == 0 {
		st["Sid"] = g.of("a", "b c", "")
	}
	if g.IntN(3) == 0 {
		st["Condition"] = g.conditions()
	}
	return st
}

func (g generator) resourcePattern() string {
	if g.IntN(3) == 0 {
		return "*"
	}
	return "acs:" + g.of("kms", "kms", "kms", "*", "k?s", "oss", "ram") + ":" +
		g.of("*", "*", "*", "*", "cn-hangzhou", "cn-*", "cn-beijing", "") + ":" +
		g.of("*", "*", "*", "*", home, foreign, "", "1*6", "system") + ":" +
		g.of("*", "secret", "secret/*", "secret*", "secret/app/*", "secret/app/d?", "secret/App/*", "*/db", "secret/a*b",
			"key/*", "secret/app/db", "*:?", "secret/é*", "secret/?/b", "policy/*")
}

func (g generator) principalPattern() string {
	return "acs:ram::" + g.of(home, home, foreign) + ":" +
		g.of("*", "root", "user/alice", "user/bob", "role/worker", "role/alice", "user/worker")
}

// conditions draws one or two operators, each with one or two keys of its type.
func (g generator) conditions() map[string]any {
	out := map[string]any{}
	for range 1 + g.IntN(2) {
		keys := map[string]any{}
		kind := g.of("string", "number", "date", "boolean", "address")
		for range 1 + g.IntN(2) {
			key := "kms:tag/" + g.of("env", "level", "since", "hot", "ip", "none")
			if own := map[string][]string{
				"date": {"acs:CurrentTime"}, "boolean": {"acs:SecureTransport", "acs:MFAPresent"}, "address": {"acs:SourceIp"},
			}[kind]; own != nil && g.IntN(3) > 0 {
				key = g.of(own...)
			}
			keys[key] = g.some(func() string { return g.value(kind) })
		}
		out[g.operator(kind)] = keys
	}
	return out
}

// operatorsOf are the operators of the product for each type of values, so that a new one is
// compared too.
var operatorsOf = func() map[valueType][]string {
	m := map[valueType][]string{}
	for _, name := range slices.Sorted(maps.Keys(operators)) {
		m[operators[name].typ] = append(m[operators[name].typ], name)
	}
	return m
}()

func (g generator) operator(kind string) string { return g.of(operatorsOf[valueType(kind)]...) }

func (g generator) value(kind string) string {
	switch kind {
	case "string":
		return g.of("Prod", "prod", "dev", "p*", "P?od", "*", "", "7", "true")
	case "number":
		return g.of("7", "7.0", "007", "-7", "6.99", "0", "-0.0", "70", "12345678901234567890.5")
	case "date":
		return g.of("2026-01-02T03:04:05Z", "2026-01-02T11:04:05+08:00", "2026-01-02T03:04:06Z", "2025-12-31T23:59:59-12:00",
			"2027-01-01T00:00:00Z", "0001-01-01T00:00:00Z")
	case "boolean":
		return g.of("true", "false")
	}
	return g.of("10.1.2.3", "10.0.0.0/8", "10.1.2.9/30", "192.168.0.0/16", "0.0.0.0/0", "::/0", "2001:db8::/32",
		"2001:db8::7", "2001:db8:8000::/33")
}

func (g generator) request() Request {
	kinds := []Principal{root, alice, alice, alice, alice, alice, alice, alice, alice, renamed, successor, bob,
		workerSuccessor, worker, worker, worker, engine, mallory, rootAway,
		{Kind: KindAssumedRole, Account: foreign, Name: "worker"}, {Kind: "Robot", Account: home}, {}}
	r := asking(
		kinds[g.IntN(len(kinds))],
		g.of("kms:GetSecretValue", "kms:GetSecretValue", "kms:GetSecretValue", "kms:GetSecretValue", "kms:PutSecretValue",
			"kms:PutSecretValue", "kms:DescribeSecret", "kms:DescribeSecret", "kms:ListSecrets", "kms:SetSecretPolicy",
			"KMS:TagResources",
			"kms:GetRandomPassword", "oss:GetObject", "ram:GetPolicy", "kms:UpdateSecretVersionStage", "kms:Decrypt", ""),
		"",
		Context{SecureTransport: g.IntN(2) == 0, MFAPresent: g.IntN(4) == 0},
	)
	if g.IntN(12) == 0 {
		r.Resource = g.of("*", "*", "secret/app", "acs:kms:cn-hangzhou", "acs:ram::system:policy/P",
			"acs:kms::system:secret/x", "acs::x:"+home+":y")
	} else {
		r.Resource = "acs:kms:" + g.of("cn-hangzhou", "cn-hangzhou", "cn-beijing", "") + ":" +
			g.of(home, home, home, home, foreign, "") + ":" +
			g.of("secret", "secret/app/db", "secret/app/db", "secret/app/other", "secret/App/db", "secret/é/b", "key/k1",
				"secret/app/db:x", "secret/a/b")
	}
	if g.IntN(8) > 0 {
		r.Context.Now = time.Date(2026, 1, 2, 3, 4, g.IntN(3)+4, g.IntN(2)*999, time.UTC)
	}
	if g.IntN(8) > 0 {
		r.Context.SourceIP = netip.MustParseAddr(g.of("10.1.2.3", "::ffff:10.1.2.9", "192.168.7.7", "2001:db8::7",
			"2001:db8:ffff::1%eth0", "11.0.0.1"))
	}
	if g.IntN(4) > 0 {
		r.Context.Tags = map[string]string{"env": g.of("Prod", "prod", "dev", ""),
			"level": g.of("7", "07.00", "-7", "seven", "70"), "since": g.of("2026-01-02T03:04:05Z", "yesterday"),
			"hot": g.of("true", "True"), "ip": g.of("10.1.2.3", "2001:db8::7", "here", "10.0.0.0/8")}
	}
	return r
}

// encoded writes JSON without the escapes meant for HTML, which would make a document longer.
func encoded(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return b.String()
}
