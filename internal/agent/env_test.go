package agent

import (
	"slices"
	"strings"
	"testing"
)

func TestVariable(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"AccountName": "ACCOUNT_NAME",
		"accessKeyID": "ACCESS_KEY_ID",
		"HTTPServer":  "HTTP_SERVER",
		"user":        "USER",
		"a-b.c/d":     "A_B_C_D",
		"v2Token":     "V2_TOKEN",
		"ALREADY_SO":  "ALREADY_SO",
		"größe":       "GR__E",
		"Url2":        "URL2",
		"X":           "X",
		"":            "",
	} {
		if got := variable(name); got != want {
			t.Errorf("variable(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestParseEnvSecret(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]EnvSecret{
		"db_cred=DB_": {"db_cred", "DB_"}, "app/db": {"app/db", "APP_DB_"}, "a=b=X_": {"a=b", "X_"}, "db=": {"db",
			""}, "db=lower": {"db", "lower"},
	} {
		if got, err := ParseEnvSecret(text); err != nil || got != want {
			t.Errorf("ParseEnvSecret(%q) = %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "=DB_", "db=1X", "db=A-B", "a b=X", "db=Ä"} {
		if got, err := ParseEnvSecret(text); err == nil {
			t.Errorf("ParseEnvSecret(%q) = %+v, want an error", text, got)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	base := []string{"PATH=/bin", "LANG=C"}
	const db = `{"AccountName":"app","AccountPassword":"p=w\nx","Port":5432,"None":null,"Options":{"b":1, "a":[true]}}`
	values := of(value("db", "v1", db), value("key", "v1", "plain text"))
	got, err := Environment(base, []EnvSecret{{"db", "DB_"}, {"key", "API_KEY_"}}, nil, values)
	want := []string{"PATH=/bin", "LANG=C", "DB_ACCOUNT_NAME=app", "DB_ACCOUNT_PASSWORD=p=w\nx",
		`DB_OPTIONS={"a":[true],"b":1}`, "DB_PORT=5432", "API_KEY=plain text"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Environment = %q, %v; want %q", got, err, want)
	}
}

func TestEnvironmentRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		secrets []EnvSecret
		allowed []string
		data    string
		want    string
	}{
		"members that meet": {[]EnvSecret{{"s", "DB_"}}, nil, `{"AccountName":"marker","account_name":"marker"}`,
			`member "AccountName" of secret "s" and member "account_name" of secret "s" ` +
				`both make the variable DB_ACCOUNT_NAME: rename one`},
		"one of the base": {[]EnvSecret{{"s", ""}}, []string{"LANG"}, `{"lang":"marker"}`,
			`the environment that keyturn was started with and member "lang" of secret "s" ` +
				`both make the variable LANG: choose another prefix`},
		"what decides": {[]EnvSecret{{"s", "LD_"}}, nil, `{"preload":"marker"}`,
			`member "preload" of secret "s" makes the variable LD_PRELOAD, which decides what runs: choose another prefix`},
		"no name": {[]EnvSecret{{"s", ""}}, []string{"X"}, `marker`,
			`secret "s" makes the variable "", which is no name: give a prefix that begins with a letter`},
		"a name that steers": {[]EnvSecret{{"s", "GIT_"}}, nil, `{"proxyCommand":"marker"}`,
			`member "proxyCommand" of secret "s" makes the variable GIT_PROXY_COMMAND, which may decide what runs: ` +
				`choose another prefix, or name it with --allow`},
		"no list": {[]EnvSecret{{"s", ""}}, nil, `{"a":"marker"}`,
			`--secret s= has an empty prefix: name the variables that it may set with --allow NAME,…, or give a prefix`},
		"a list of nothing": {[]EnvSecret{{"s", ""}}, []string{"A", "B"}, `{"a":"marker"}`,
			`no secret makes the variable B, which --allow names`},
		"the loader named": {[]EnvSecret{{"s", ""}}, []string{"ld_preload"}, `{"a":"marker"}`,
			`--allow: ld_preload decides what runs, so no secret may set it`},
		"a NUL byte": {[]EnvSecret{{"s", "A_"}}, nil, "marker\x00",
			`secret "s" has a NUL byte, which no variable can hold`},
		"a value not there": {[]EnvSecret{{"nothing", "A_"}}, nil, "", `there is no value of secret "nothing"`},
		"the same one twice": {[]EnvSecret{{"s", "A_"}, {"s", "A_"}}, nil, "marker",
			`secret "s" and secret "s" both make the variable A: choose another prefix`},
	} {
		_, err := Environment([]string{"LANG=C"}, tt.secrets, tt.allowed,
			of(value("s", "v1", tt.data), value("other", "v1", "marker")))
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s: error %v\nwant %s", name, err, tt.want)
		}
	}
}

// TestWriterOfASecretChoosesNoVariable verifies that the writer of a secret, who chooses all its
// members, sets no variable that the operator has not named: with an empty prefix only variables of
// the list, with a prefix no variable that steers a runtime or a tool.
func TestWriterOfASecretChoosesNoVariable(t *testing.T) {
	t.Parallel()
	attacks := []string{
		"PYTHONWARNINGS", "PYTHONHOME", "PYTHONSTARTUP", "RUBYLIB", "NODE_PATH", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS",
		"DOTNET_STARTUP_HOOKS", "GIT_SSH_COMMAND", "BROWSER", "SHELLOPTS", "PS4", "LD_PRELOAD", "GCONV_PATH",
		"OPENSSL_CONF", "HTTPS_PROXY", "https_proxy", "A_NAME_OF_TOMORROW",
	}
	for _, name := range attacks {
		got, err := Environment(nil, []EnvSecret{{"s", ""}}, []string{"TOKEN"},
			of(value("s", "v1", `{"token":"t","`+name+`":"evil"}`)))
		if err != nil || !slices.Equal(got, []string{"TOKEN=t"}) {
			t.Errorf("a member %s beside one that is named: %q, %v", name, got, err)
		}
		if name == "A_NAME_OF_TOMORROW" {
			continue
		}
		for cut := 1; cut < len(name); cut++ {
			prefix, rest := name[:cut], name[cut:]
			evil := of(value("s", "v1", `{"`+rest+`":"evil"}`))
			got, err := Environment(nil, []EnvSecret{{"s", prefix}}, nil, evil)
			if err == nil && got[0] == name+"=evil" {
				t.Errorf("the prefix %s and a member %s: %q", prefix, rest, got)
			}
		}
	}
	got, err := Environment(nil, []EnvSecret{{"s", "GIT_"}}, []string{"GIT_TOKEN"}, of(value("s", "v1", `{"token":"t"}`)))
	if err != nil || !slices.Equal(got, []string{"GIT_TOKEN=t"}) {
		t.Errorf("a name that the operator has named: %q, %v", got, err)
	}
}

// FuzzEnvironment verifies that any value leads either to an environment that a program can be
// started with, that keeps what it began with and has no name twice, or to an error without the
// value.
func FuzzEnvironment(f *testing.F) {
	for _, s := range []string{`{"a":"b"}`, `{"A":1,"a":2}`, `plain`, `{"":""}`, `{"LD_PRELOAD":"x"}`, `{"a=b":"c"}`,
		"{\"a\":\"\\u0000\"}", `{"é":null}`, `[1]`, `null`} {
		f.Add("P_", s)
		f.Add("", s)
	}
	f.Fuzz(func(t *testing.T, prefix, data string) {
		s, err := ParseEnvSecret("name=" + prefix)
		if err != nil {
			return
		}
		base := []string{"PATH=/bin", "A=1"}
		env, err := Environment(base, []EnvSecret{s}, []string{"B"}, of(value(s.Name, "v1", data)))
		if err != nil {
			if len(data) > 12 && !strings.HasPrefix(data, "{") && strings.Contains(err.Error(), data) {
				t.Errorf("the error shows the value")
			}
			return
		}
		if !slices.Equal(env[:2], base) {
			t.Errorf("the environment began as %q and is %q", base, env[:2])
		}
		seen := map[string]bool{}
		for _, pair := range env {
			name, v, ok := strings.Cut(pair, "=")
			if !ok ||
				name == "" ||
				strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") != "" ||
				strings.ContainsRune(v, 0) ||
				seen[name] {
				t.Errorf("of %q: the variable %q cannot be set, or is there twice", data, name)
			}
			seen[name] = true
		}
	})
}
