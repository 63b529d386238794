package policy

import (
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// probes are requests that meet what a document says: its actions and resources with their
// wildcards filled in, and contexts in which its conditions hold, just fail, or have nothing to
// look at.
func probes(doc plainDoc) []Request {
	actions, resources := []string{get, "kms:SetSecretPolicy"}, []string{app, "*", kmsHome + "secret"}
	contexts := []Context{{}, ordinary}
	for _, st := range doc {
		for _, a := range list(st["Action"]) {
			actions = append(actions, filled(a))
		}
		if st["Principal"] == nil {
			for _, r := range list(st["Resource"]) {
				resources = append(resources, filled(r))
			}
		}
		contexts = append(contexts, meeting(st)...)
	}
	var out []Request
	for _, a := range first(actions, 6) {
		for _, r := range first(resources, 6) {
			for _, c := range first(contexts, 10) {
				for _, who := range []Principal{root, alice, renamed, successor, worker, workerSuccessor, engine, mallory} {
					out = append(out, asking(who, a, r, c))
				}
			}
		}
	}
	return out
}

// first takes the first and last of a long list.
func first[T any](list []T, n int) []T {
	if len(list) > n {
		return append(list[:n/2:n/2], list[len(list)-n/2:]...)
	}
	return list
}

func filled(pattern string) string {
	return strings.NewReplacer("*", "x/é:", "?", "y").Replace(pattern)
}

// meeting are contexts made of the values in the conditions of a statement.
func meeting(st map[string]any) (out []Context) {
	operators, _ := st["Condition"].(map[string]any)
	for _, keys := range operators {
		for key, values := range keys.(map[string]any) {
			for _, v := range first(list(values), 4) {
				c := ordinary
				tag, isTag := strings.CutPrefix(key, "kms:tag/")
				switch {
				case isTag:
					c.Tags = map[string]string{tag: filled(v)}
					out = append(out, c)
					c.Tags = map[string]string{tag: strings.ToUpper(v)}
				case key == "acs:CurrentTime":
					c.Now, _ = time.Parse(time.RFC3339, v)
					out = append(out, c)
					c.Now = c.Now.Add(time.Second)
				case key == "acs:SourceIp":
					text, _, _ := strings.Cut(v, "/")
					c.SourceIP, _ = netip.ParseAddr(text)
					out = append(out, c)
					c.SourceIP = c.SourceIP.Next()
				default:
					c.SecureTransport, c.MFAPresent = false, true
				}
				out = append(out, c)
			}
		}
	}
	return out
}

// compareWith holds that both evaluators understand what was accepted in the same way.
func compareWith(t *testing.T, c *compared, requests []Request) {
	t.Helper()
	for _, r := range requests {
		d, differ := c.disagreement(r)
		if describe(t, d); differ != "" {
			t.Fatal(differ)
		}
	}
}

// again writes a document anew, as another program would that read it.
func again(text string) string {
	doc := readPlain(text)
	return encoded(map[string]any{"Version": "1", "Statement": doc})
}

func FuzzParseIdentity(f *testing.F) {
	for _, row := range decisions {
		for _, doc := range row.identity {
			f.Add(doc)
		}
	}
	f.Add(`{"Version":"1","Statement":[{"Effect":"Deny","Action":"*","Resource":"acs:k?s:*::*",` +
		`"Condition":{"NumericNotEquals":{"kms:tag/a":["7","-8.50"]},"IpAddress":{"acs:SourceIp":"::1/0"}}}]}`)
	f.Fuzz(func(t *testing.T, doc string) {
		if _, err := ParseIdentity(doc); err != nil {
			if err.Error() == "" || len(err.Error()) > 400 || !utf8.ValidString(err.Error()) {
				t.Fatalf("an error nobody can read: %q", err)
			}
			return
		}
		texts := []string{doc}
		if s := again(doc); utf8.RuneCountInString(s) <= MaxIdentityChars {
			texts = append(texts, s)
		}
		requests := probes(readPlain(doc))
		for _, text := range texts {
			c, err := readBoth([]string{text}, "")
			if err != nil {
				t.Fatalf("written anew it is refused: %v", err)
			}
			compareWith(t, c, requests)
		}
	})
}

func FuzzParseSecret(f *testing.F) {
	for _, row := range decisions {
		if row.secret != "" {
			f.Add(row.secret)
		}
	}
	f.Add(secretDoc(own, rule("Deny", home+":role/worker", "kms:Get*", when(`{"StringNotLike":{"kms:tag/env":"P*"}}`))))
	f.Fuzz(func(t *testing.T, doc string) {
		if _, err := parseSecret(doc, home); err != nil {
			if err.Error() == "" || len(err.Error()) > 400 || !utf8.ValidString(err.Error()) {
				t.Fatalf("an error nobody can read: %q", err)
			}
			return
		}
		texts := []string{doc}
		if s := again(doc); len(s) <= maxSecretBytes {
			texts = append(texts, s)
		}
		requests := probes(readPlain(doc))
		for _, text := range texts {
			for _, identity := range [][]string{nil, {everything}} {
				c, err := readBoth(identity, text)
				if err != nil {
					t.Fatalf("written anew it is refused: %v", err)
				}
				compareWith(t, c, requests)
			}
		}
		d, err := parseSecret(doc, home)
		if err != nil {
			t.Fatal(err)
		}
		if !Evaluate(asking(root, "kms:SetSecretPolicy", app, Context{}), nil, &d).Allowed {
			t.Error("an accepted policy locks root out of SetSecretPolicy")
		}
	})
}

func FuzzParseARN(f *testing.F) {
	for _, s := range []string{app, "acs:ram::" + home + ":root", "acs:kms:r:a:", "acs:kms:*:*:secret/a:b", "arn:a:b:c:d",
		"*", "acs::::", "acs::r:a:x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, ok := ParseARN(s)
		parts := strings.SplitN(s, ":", 5)
		if want := len(parts) == 5 && parts[0] == "acs" && parts[1] != "" && parts[4] != ""; ok != want {
			t.Fatalf("ParseARN(%q) accepts: %v; want %v", s, ok, want)
		}
		if ok && (ARN(p.Service, p.Region, p.Account, p.Relative) != s ||
			strings.ContainsAny(p.Service+p.Region+p.Account, ":")) {
			t.Fatalf("ParseARN(%q) = %+v, which is not the same name", s, p)
		}
	})
}

// FuzzMatch holds the matcher against the plain definition.
func FuzzMatch(f *testing.F) {
	for _, s := range [][2]string{{"kms:*", get}, {"a*b?c", "axxbyc"}, {"*é?", "èéè"}, {"**", ""}, {"?", "\xff"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, s string) {
		// Documents are UTF-8, and the definition takes exponential time.
		if !utf8.ValidString(pattern) || !utf8.ValidString(s) || strings.Count(pattern, "*") > 3 || len(pattern)+len(s) > 80 {
			return
		}
		if got, want := match(pattern, s), like(pattern, s); got != want {
			t.Fatalf("match(%q, %q) = %v; want %v", pattern, s, got, want)
		}
	})
}

// FuzzCondition puts one value under one operator, so that the fuzzer need not find the way there
// through JSON.
func FuzzCondition(f *testing.F) {
	for _, s := range [][3]string{
		{"DateEquals", "acs:CurrentTime", "2026-01-02T03:04:05Z"},
		{"DateLessThan", "acs:CurrentTime", "2026-01-02T03:04:05+08:00"},
		{"NumericEquals", "kms:tag/n", "-7.50"}, {"NumericGreaterThan", "kms:tag/n", "007"},
		{"IpAddress", "acs:SourceIp", "10.0.0.0/8"},
		{"NotIpAddress", "acs:SourceIp", "2001:db8::/32"}, {"Bool", "acs:MFAPresent", "true"},
		{"StringLike", "kms:tag/n", "a*?"},
		{"StringEqualsIgnoreCase", "kms:tag/n", "K"}, {"DateEquals", "kms:tag/n", "2026-01-02T03:04:05.000Z"},
		{"IpAddress", "kms:tag/n", "::1"},
	} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, operator, key, value string) {
		doc := encoded(map[string]any{"Version": "1", "Statement": map[string]any{
			"Effect": "Allow", "Action": "kms:*", "Resource": "*",
			"Condition": map[string]any{operator: map[string]any{key: value}},
		}})
		c, err := readBoth([]string{doc}, "")
		if err != nil {
			return
		}
		compareWith(t, c, probes(readPlain(doc)))
	})
}
