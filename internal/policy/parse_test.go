package policy

import (
	"strings"
	"testing"
)

func TestParseIdentityErrors(t *testing.T) {
	t.Parallel()
	cond := func(c string) string { return allow("kms:*", "*", when(c)) }
	for _, tt := range []struct{ name, doc, want string }{
		{"empty", "", "not JSON: unexpected end of JSON input (byte 0)"},
		{"broken", `{"Version":"1",}`, "not JSON: invalid character '}'"},
		{"trailing", allow("*", "*") + "{}", "invalid character '{' after top-level value"},
		{"not UTF-8", "{\"Version\":\"\xff\"}", "not UTF-8"},
		{"half a surrogate", `{"Version":"\ud800"}`, "broken character"},
		{"half a surrogate in a name", `{"\ud800":"1"}`, "broken character"},
		{"list", `[]`, "must be an object with Version and Statement"},
		{"deep", strings.Repeat("[", 20) + strings.Repeat("]", 20), "nested deeper than 8"},
		{"long", `"` + strings.Repeat("é", 6143) + `"`, "longer than 6144 characters"},
		{"unknown member", `{"Version":"1","Id":"x","Statement":[]}`, `unknown element "Id"`},
		{"member in other case", `{"version":"1","Statement":[]}`, `unknown element "version"`},
		{"duplicate member", `{"Version":"1","Version":"1"}`, `member "Version" occurs twice`},
		{"duplicate by escape", `{"Version":"1","\u0056ersion":"1"}`, `member "Version" occurs twice`},
		{"duplicate inside", `{"Version":"1","Statement":[{"Effect":"Allow","Effect":"Deny"}]}`,
			`member "Effect" occurs twice`},
		{"no version", `{"Statement":[]}`, `Version must be "1"`},
		{"numeric version", `{"Version":1,"Statement":[]}`, `Version must be "1"`},
		{"other version", `{"Version":"2012-10-17","Statement":[]}`, `Version must be "1"`},
		{"list as version", `{"Version":["1"],"Statement":[]}`, `Version must be "1"`},
		{"no statement", `{"Version":"1"}`, "Statement must be a list"},
		{"empty statement", `{"Version":"1","Statement":[]}`, "at least one statement"},
		{"text as statement", `{"Version":"1","Statement":["x"]}`, "Statement[0] must be an object"},
		{"no effect", `{"Version":"1","Statement":[{"Action":"*","Resource":"*"}]}`, "Statement[0]: Effect is missing"},
		{"no action", `{"Version":"1","Statement":[{"Effect":"Deny","Resource":"*"}]}`, "Action is missing"},
		{"no resource", `{"Version":"1","Statement":[{"Effect":"Deny","Action":"*"}]}`, "Resource is missing"},
		{"second statement", strings.Replace(allow("*", "*"), "}]", "},{}]", 1), "Statement[1]: Effect is missing"},
		{"effect in other case", strings.Replace(allow("*", "*"), "Allow", "allow", 1), `Effect must be "Allow" or "Deny"`},
		{"bad Sid", allow("*", "*", `,"Sid":"a,b"`), "Sid must be a string of at most 128"},
		{"NotAction", allow("*", "*", `,"NotAction":"kms:*"`), `unknown element "NotAction"`},
		{"NotResource", allow("*", "*", `,"NotResource":"*"`), `unknown element "NotResource"`},
		{"Principal", allow("*", "*", `,"Principal":{"RAM":"*"}`), `unknown element "Principal"`},
		{"number as action", strings.Replace(allow("X", "*"), `"X"`, "1", 1), "Action must be a string or a list of strings"},
		{"huge number as action", strings.Replace(allow("X", "*"), `"X"`, "1e9999", 1),
			"Action must be a string or a list of strings"},
		{"null in actions", strings.Replace(allow("X", "*"), `"X"`, "[\"*\",null]", 1), "put entry 1 in quotes"},
		{"no actions", strings.Replace(allow("X", "*"), `"X"`, "[]", 1), "Action is empty"},
		{"action without service", allow("GetSecretValue", "*"), `"GetSecretValue" is not an action`},
		{"action with a space", allow("kms:Get SecretValue", "*"), "is not an action"},
		{"action with two in one", allow("kms:Get*,kms:List*", "*"), "is not an action"},
		{"action without name", allow("kms:", "*"), "is not an action"},
		{"resource of four parts", allow("*", "acs:kms:*:secret/app"), "is not a resource"},
		{"resource without acs", allow("*", "secret/app"), "is not a resource"},
		{"empty resource", allow("*", ""), "is not a resource"},
		{"condition list", cond(`[]`), "Condition must be an object"},
		{"condition empty", cond(`{}`), "Condition is empty"},
		{"unknown operator", cond(`{"StringEqualsIfExists":{"kms:tag/a":"b"}}`), `unknown operator "StringEqualsIfExists"`},
		{"operator text", cond(`{"Bool":"true"}`), "Condition.Bool must be an object"},
		{"operator empty", cond(`{"Bool":{}}`), "at least one condition key"},
		{"unknown key", cond(`{"StringEquals":{"acs:UserAgent":"x"}}`), `unknown key "acs:UserAgent"`},
		{"key in other case", cond(`{"IpAddress":{"acs:SourceIP":"10.0.0.1"}}`), `unknown key "acs:SourceIP"`},
		{"tag without name", cond(`{"StringEquals":{"kms:tag/":"x"}}`), `unknown key "kms:tag/"`},
		{"key of another type", cond(`{"StringEquals":{"acs:SourceIp":"10.0.0.1"}}`),
			"acs:SourceIp has type address; use an operator for it, not one for type string"},
		{"boolean", cond(`{"Bool":{"acs:SecureTransport":true}}`), "must be a string or a list of strings"},
		{"no values", cond(`{"Bool":{"acs:SecureTransport":[]}}`), "is empty"},
		{"bad boolean", cond(`{"Bool":{"acs:SecureTransport":"yes"}}`), `"yes" is not a boolean`},
		{"bad number", cond(`{"NumericEquals":{"kms:tag/a":"1e9"}}`), `"1e9" is not a number`},
		{"bad date", cond(`{"DateLessThan":{"acs:CurrentTime":"2026-01-02"}}`), `"2026-01-02" is not a date`},
		{"date with fraction", cond(`{"DateLessThan":{"acs:CurrentTime":"2026-01-02T03:04:05.5Z"}}`), "is not a date"},
		{"date with a fraction of zeros", cond(`{"DateLessThan":{"acs:CurrentTime":"2026-01-02T03:04:05.000Z"}}`),
			"is not a date"},
		{"date with a comma", cond(`{"DateLessThan":{"acs:CurrentTime":"2026-01-02T03:04:05,0Z"}}`), "is not a date"},
		{"date with an hour of one digit", cond(`{"DateLessThan":{"acs:CurrentTime":"2026-01-02T3:04:05Z"}}`),
			"is not a date"},
		{"date with an offset of a day", cond(`{"DateLessThan":{"acs:CurrentTime":"2026-01-02T03:04:05+24:00"}}`),
			"is not a date"},
		{"date that does not exist", cond(`{"DateLessThan":{"acs:CurrentTime":"2026-02-30T03:04:05Z"}}`), "is not a date"},
		{"bad address", cond(`{"IpAddress":{"acs:SourceIp":"10.0.0"}}`), `"10.0.0" is not an address or block`},
		{"second value", cond(`{"IpAddress":{"acs:SourceIp":["10.0.0.1","10.0.0.0/33"]}}`), "value 1:"},
		{"address with zone", cond(`{"IpAddress":{"acs:SourceIp":"fe80::1%eth0"}}`), "not an address"},
		{"IPv4 as IPv6", cond(`{"IpAddress":{"acs:SourceIp":"::ffff:10.0.0.1"}}`), "an IPv4 address written as IPv6"},
		{"long input is cut", allow("kms:"+strings.Repeat("x ", 100), "*"), `…`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseIdentity(tt.doc)
			checkError(t, err, "policy: ", tt.want)
		})
	}
}

// checkError also holds errors to a length that only a long quotation could exceed.
func checkError(t *testing.T, err error, prefix, want string) {
	t.Helper()
	if err == nil {
		t.Fatalf("accepted; want an error with %q", want)
	}
	text := err.Error()
	if !strings.HasPrefix(text, prefix) || !strings.Contains(text, want) || len(text) > 300 {
		t.Errorf("error %q; want %q and in it %q, briefly", text, prefix, want)
	}
}

func TestParseSecretErrors(t *testing.T) {
	t.Parallel()
	named := func(p string) string { return secretDoc(own, rule("Allow", p, "kms:*")) }
	with := func(old, replacement string) string { return secretDoc(strings.Replace(own, old, replacement, 1)) }
	for _, tt := range []struct{ name, doc, want string }{
		{"long", strings.Repeat(" ", 32769), "longer than 32768 bytes"},
		{"broken", "{", "not JSON"},
		{"identity policy", allow("kms:*", "*"), "Principal is missing"},
		{"unknown element", with(`"Sid"`, `"Id"`), `unknown element "Id"`},
		{"bad Sid", with(`"Sid":"Allow"`, `"Sid":"a,b"`), "Sid must be a string of at most 128"},
		{"long Sid", with(`"Sid":"Allow"`, `"Sid":"`+strings.Repeat("a", 129)+`"`), "Sid must be"},
		{"numeric Sid", with(`"Sid":"Allow"`, `"Sid":1`), "Sid must be"},
		{"bad effect", with(`"Effect":"Allow"`, `"Effect":"Maybe"`), "Effect must be"},
		{"no action", with(`"Action":["kms:*"],`, ""), "Action is missing"},
		{"no resource", with(`,"Resource":"*"`, ""), "Resource is missing"},
		{"principal text", with(`{"RAM":"acs:ram::`+home+`:*"}`, `"*"`), "one member RAM"},
		{"principal service", with(`"RAM"`, `"Service"`), "one member RAM"},
		{"principal two kinds", with(`{"RAM":`, `{"Service":"x","RAM":`), "one member RAM"},
		{"principal number", with(`"acs:ram::`+home+`:*"`, `[1]`), "Principal.RAM must be a string or a list"},
		{"principal star", with(`"acs:ram::`+home+`:*"`, `"*"`), `"*" is not a principal`},
		{"principal short account", named("123:user/a"), "is not a principal"},
		{"principal star account", named("*:user/a"), "is not a principal"},
		{"principal session", named(home + ":assumed-role/a/b"), "must end in user/<name>"},
		{"principal pattern", named(home + ":user/*"), "the name in full"},
		{"principal without name", named(home + ":user/"), "the name in full"},
		{"principal other service", with("acs:ram::", "acs:kms::"), "is not a principal"},
		{"principal with region", with("acs:ram::", "acs:ram:cn-hangzhou:"), "is not a principal"},
		{"action star", with(`"kms:*"`, `"*"`), "does not begin with kms:"},
		{"action pattern of service", with(`"kms:*"`, `"km?:*"`), "does not begin with kms:"},
		{"action other service", with(`"kms:*"`, `"oss:*"`), "does not begin with kms:"},
		{"action broken", with(`"kms:*"`, `"kms"`), "is not an action"},
		{"resource ARN", with(`"Resource":"*"`, `"Resource":"`+app+`"`), "which stands for this secret"},
		{"resource number", with(`"Resource":"*"`, `"Resource":1`), "Resource must be a string"},
		{"bad condition", with(`"Resource":"*"`, `"Resource":"*","Condition":{}`), "Condition is empty"},
		{"nothing but a deny", secretDoc(rule("Deny", home+":user/x", "kms:*")), "grants the owning account nothing"},
		{"another account only", secretDoc(rule("Allow", foreign+":*", "kms:*")), "grants the owning account nothing"},
		{"actions without effect", secretDoc(rule("Allow", home+":*", "kms:SetSecretPolicy")),
			"grants the owning account nothing"},
		{"taken again", secretDoc(own, rule("Deny", home+":*", "kms:*")), "grants the owning account nothing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := parseSecret(tt.doc, home)
			checkError(t, err, "secret policy: ", tt.want)
		})
	}
}

func TestParseSecretAccepts(t *testing.T) {
	t.Parallel()
	for name, doc := range map[string]string{
		"default":        DefaultSecretDocument(home),
		"a named user":   secretDoc(rule("Allow", home+":user/a.b_c@d-e", "KMS:GetSecretValue")),
		"no Sid":         secretDoc(strings.Replace(own, `"Sid":"Allow",`, "", 1)),
		"a partial deny": secretDoc(own, rule("Deny", home+":*", "kms:Delete*")),
		"a conditional deny": secretDoc(own,
			rule("Deny", home+":*", "kms:*", when(`{"Bool":{"acs:SecureTransport":"false"}}`))),
		"one statement alone": `{"Version":"1","Statement":` + own + `}`,
	} {
		if _, err := parseSecret(doc, home); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
