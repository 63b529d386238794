package mysql

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

var (
	oldPassword, newPassword, otherPassword = sensitive.New(
		"the old one",
	), sensitive.New(
		"the new one",
	), sensitive.New(
		"another one",
	)

	anyHash = regexp.MustCompile(`'\$A\$005\$[^']{63}'`)
)

const whose = "'a'@'%'"

// full returns the statements of clauses for the account of the tests.
func full(clauses []string, err error) ([]string, error) {
	return statements("a", []edit{{account{host: "%"}, clauses}}), err
}

// hashed is an account with these passwords under a plugin.
func hashed(t *testing.T, plugin string, passwords ...sensitive.Value) account {
	t.Helper()
	var a account
	for _, p := range passwords {
		hash, err := newHash(method{plugin: plugin}, p)
		if err != nil {
			t.Fatal(err)
		}
		a.methods = append(a.methods, method{plugin, hash})
	}
	return a
}

// apply does to an account what MySQL's documentation says of a statement.
func apply(t *testing.T, a account, statement string) account {
	t.Helper()
	rest, ok := strings.CutPrefix(statement, "ALTER USER "+whose+" ")
	if !ok {
		t.Fatalf("another account: %s", statement)
	}
	if rest == "DISCARD OLD PASSWORD" {
		return account{methods: a.methods[:1]}
	}
	m := regexp.MustCompile(`^IDENTIFIED WITH (\w+) AS '([^']*)'( RETAIN CURRENT PASSWORD)?$`).FindStringSubmatch(rest)
	if m == nil {
		t.Fatalf("not a statement of MySQL: %s", statement)
	}
	after := account{methods: []method{{m[1], m[2]}}}
	switch {
	case m[3] != "" && m[1] != a.methods[0].plugin:
		t.Fatalf("MySQL retains no password of another plugin: %s", statement)
	case m[3] != "":
		after.methods = append(after.methods, a.methods[0])
	case len(a.methods) > 1:
		after.methods = append(after.methods, a.methods[1])
	}
	return after
}

func TestMySQLStatements(t *testing.T) {
	t.Parallel()
	o, n, x := oldPassword, newPassword, otherPassword
	for _, plugin := range []string{cachingSHA2, sha256Crypt, native} {
		for _, tt := range []struct {
			name  string
			has   []sensitive.Value
			do    string
			want  []sensitive.Value // what works afterwards; nil means that it fails
			dead  []sensitive.Value
			count int
			err   error
		}{
			{"overlap", []sensitive.Value{o}, "add", []sensitive.Value{n, o}, nil, 1, nil},
			{"overlap again", []sensitive.Value{n, o}, "add", []sensitive.Value{n, o}, nil, 0, nil},
			{"overlap, a lost candidate current", []sensitive.Value{x, o}, "add", []sensitive.Value{n, o}, []sensitive.Value{x}, 1, nil},
			{"overlap, something else retained", []sensitive.Value{o, x}, "add", []sensitive.Value{n, o}, []sensitive.Value{x}, 1, nil},
			{"overlap, changed by hand", []sensitive.Value{x}, "add", []sensitive.Value{n, x}, []sensitive.Value{o}, 1, nil},
			{"overlap, two others", []sensitive.Value{x, x}, "add", nil, nil, 0, errOthers},
			{"retire", []sensitive.Value{n, o}, "remove", []sensitive.Value{n}, []sensitive.Value{o}, 1, nil},
			{"retire again", []sensitive.Value{n}, "remove", []sensitive.Value{n}, []sensitive.Value{o}, 0, nil},
			{"retire, the next one is there", []sensitive.Value{x, n}, "remove", []sensitive.Value{x, n}, []sensitive.Value{o}, 0, nil},
			{"retire, the other way round", []sensitive.Value{o, n}, "remove", []sensitive.Value{n}, []sensitive.Value{o}, 2, nil},
			{"retire, no new one", []sensitive.Value{o}, "remove", nil, nil, 0, errLast},
			{"single", []sensitive.Value{o}, "replace", []sensitive.Value{n}, []sensitive.Value{o}, 1, nil},
			{"single, two there", []sensitive.Value{o, x}, "replace", []sensitive.Value{n}, []sensitive.Value{o, x}, 2, nil},
			{"single again", []sensitive.Value{n}, "replace", []sensitive.Value{n}, nil, 0, nil},
			{"single, the new one retained", []sensitive.Value{o, n}, "replace", []sensitive.Value{n}, []sensitive.Value{o}, 2, nil},
			{"double, retire", []sensitive.Value{o}, "remove last", []sensitive.Value{}, []sensitive.Value{o}, 1, nil},
			{"double, retire again", []sensitive.Value{x}, "remove last", []sensitive.Value{x}, []sensitive.Value{o}, 0, nil},
		} {
			a := hashed(t, plugin, tt.has...)
			var todo []string
			var err error
			switch tt.do {
			case "add":
				todo, err = full(mySQL{}.add(a, o, n, false))
			case "replace":
				todo, err = full(mySQL{}.replace(a, o, n))
			default:
				todo, err = full(mySQL{}.remove(a, o, n, tt.do == "remove last"))
			}
			if err != tt.err || len(todo) != tt.count {
				t.Errorf("%s, %s: %d statements, %v", plugin, tt.name, len(todo), err)
				continue
			}
			for _, s := range todo {
				if strings.Contains(s, " one'") {
					t.Errorf("%s, %s: a password is in a statement", plugin, tt.name)
				}
				a = apply(t, a, s)
			}
			for _, p := range tt.want {
				if at, _ := a.find(p); at < 0 {
					t.Errorf("%s, %s: a password that should work does not", plugin, tt.name)
				}
			}
			for _, p := range tt.dead {
				if at, _ := a.find(p); at >= 0 {
					t.Errorf("%s, %s: a password works that should not", plugin, tt.name)
				}
			}
			if err == nil && tt.want != nil && len(a.methods) > max(1, len(tt.want)) {
				t.Errorf("%s, %s: %d passwords are left", plugin, tt.name, len(a.methods))
			}
		}
	}
	todo, err := full(mySQL{}.add(hashed(t, cachingSHA2, o), o, n, false))
	if err != nil ||
		anyHash.ReplaceAllString(
			todo[0],
			"H",
		) != "ALTER USER 'a'@'%' IDENTIFIED WITH caching_sha2_password AS H RETAIN CURRENT PASSWORD" {
		t.Errorf("%q, %v", todo, err)
	}
	if _, err := (mySQL{}).replace(account{methods: []method{{"auth_socket", ""}}}, o, n); err != errPlugin {
		t.Errorf("an account without a password: %v", err)
	}
}

func TestMariaDBStatements(t *testing.T) {
	t.Parallel()
	hash := func(p sensitive.Value) string { return "mysql_native_password USING '" + nativeHash(p) + "'" }
	o, n, x := hash(oldPassword), hash(newPassword), hash(otherPassword)
	const via = "ALTER USER 'a'@'%' IDENTIFIED VIA "
	edHash := func(p sensitive.Value) string { return "ed25519 USING '" + ed25519Hash(p) + "'" }
	edNew := edHash(newPassword)
	foreign := account{methods: []method{{"parsec", "abc"}}}
	both := account{methods: append(hashed(t, ed25519, oldPassword).methods, hashed(t, native, oldPassword).methods...)}
	mixed := func(first, second sensitive.Value) account {
		return account{methods: append(hashed(t, native, first).methods, hashed(t, ed25519, second).methods...)}
	}
	overlap, single := target.Change{Strategy: target.Overlap}, target.Change{Strategy: target.Single}
	double := target.Change{Strategy: target.Double, Old: target.Credential{Account: "b"}}
	for _, tt := range []struct {
		name   string
		has    account
		c      target.Change
		change bool
		want   string
		err    error
	}{
		{"overlap", hashed(t, native, oldPassword), overlap, false, via + o + " OR " + n, nil},
		{"overlap, plugin not known", foreign, overlap, true, "", errUnsure},
		{"overlap, three", hashed(t, native, otherPassword, oldPassword), overlap, false, via + o + " OR " + n, nil},
		{"overlap, others", hashed(t, native, otherPassword, otherPassword), overlap, false, "", errOthers},
		{"overlap, disabled", account{methods: []method{{native, invalid}}}, overlap, false, via + n, nil},
		{"overlap, ed25519", hashed(t, ed25519, oldPassword), overlap, false, "", errForm},
		{"overlap, ed25519, agreed", hashed(t, ed25519, oldPassword), overlap, true, via + o + " OR " + edNew, nil},
		{"overlap, ed25519, abandoned", mixed(oldPassword, otherPassword), overlap, true, via + o + " OR " + edNew, nil},
		{"overlap, ed25519, changed by hand", hashed(t, ed25519, otherPassword), overlap, true, "", errOther},
		{"overlap, both", both, overlap, true, "", errBoth},
		{"single", hashed(t, native, oldPassword, otherPassword), single, false, via + n, nil},
		{"single, done", hashed(t, native, newPassword), single, false, "", nil},
		{"single, ed25519", hashed(t, ed25519, oldPassword), single, false, via + edNew, nil},
		{"single, ed25519, changed by hand", hashed(t, ed25519, otherPassword), single, false, via + edNew, nil},
		{"single, both", both, single, false, via + edNew + " OR " + n, nil},
		{"single, order", account{methods: append([]method{{"unix_socket", ""}}, hashed(t, native, oldPassword).methods...)},
			single, false, via + "unix_socket OR " + n, nil},
		{"single, plugin not known", foreign, single, true, "", errPlugin},
		{"single, no password", account{methods: []method{{"unix_socket", ""}}}, single, false, "", errPlugin},
		{"double", account{methods: []method{{native, invalid}, {"unix_socket", ""}}}, double, false,
			via + n + " OR unix_socket", nil},
	} {
		tt.c.Old.Secret, tt.c.New.Secret = oldPassword, newPassword
		got, err := full(change(mariaDB{}, tt.has, tt.c, tt.change))
		if err != tt.err || strings.Join(got, ";") != tt.want {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
	}
	for _, tt := range []struct {
		name string
		has  account
		last bool
		want string
		err  error
	}{
		{"both", hashed(t, native, oldPassword, newPassword), false, via + n, nil},
		{"gone", hashed(t, native, newPassword), false, "", nil},
		{"only old", hashed(t, native, oldPassword), false, "", errLast},
		{"only old, double", hashed(t, native, oldPassword), true, via + "mysql_native_password USING 'invalid'", nil},
		{"old and another, double", hashed(t, native, oldPassword, otherPassword), true, via + x, nil},
		{"foreign", foreign, true, "", errUnsure},
		{"ed25519", mixed(oldPassword, newPassword), false, via + edNew, nil},
		{"ed25519, taken back", mixed(newPassword, oldPassword), false, via + edNew, nil},
	} {
		got, err := full(mariaDB{}.remove(tt.has, oldPassword, newPassword, tt.last))
		if err != tt.err || strings.Join(got, ";") != tt.want {
			t.Errorf("remove, %s: %q, %v", tt.name, got, err)
		}
	}
}

func TestParseState(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"access":0,"plugin":"mysql_native_password","authentication_string":"*AB","account_locked":true}`:                                                        "[{mysql_native_password *AB}] true",
		`{"plugin":"mysql_native_password","authentication_string":"*A","auth_or":[{"plugin":"unix_socket"},{},{"plugin":"ed25519","authentication_string":"z"}]}`: "[{unix_socket } {mysql_native_password *A} {ed25519 z}] false",
		`{}`: "[{mysql_native_password }] false",
	} {
		a, login, err := parsePriv("%", text)
		if got := fmt.Sprint(a.methods, a.locked); err != nil || got != want || !login || a.host != "%" {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	if _, login, err := parsePriv("", `{"is_role":true}`); err != nil || login {
		t.Errorf("a role is taken for an account: %v", err)
	}
	if _, _, err := parsePriv("%", "*AB"); err == nil {
		t.Error("no JSON is accepted")
	}
	a, err := parseUser(cachingSHA2, "$A$005$x", `{"additional_password": "$A$005$\u0001y", "metadata": {"k": 1}}`, "Y")
	if err != nil || fmt.Sprint(a.methods) != "[{caching_sha2_password $A$005$x} {caching_sha2_password $A$005$\x01y}]" {
		t.Errorf("%v, %v", a, err)
	}
	if a, err = parseUser(native, "*A", "", "N"); err != nil || len(a.methods) != 1 || a.locked {
		t.Errorf("%v, %v", a, err)
	}
	if _, err = parseUser(native, "*A", "{", "N"); err == nil {
		t.Error("no JSON is accepted")
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	maria, my := server{name: "MariaDB", since: [3]int{10, 4, 0}}, server{name: "MySQL", since: [3]int{8, 0, 14}}
	for _, tt := range []struct {
		s       server
		version string
		text    string
	}{
		{maria, "10.11.19-MariaDB-0+deb12u1", ""}, {maria, "5.5.5-10.4.1-MariaDB", ""}, {maria, "11.0.0-MariaDB", ""},
		{maria, "10.3.39-MariaDB", "too old"}, {maria, "8.0.40", "register it as kind mysql"},
		{my, "8.0.14", ""}, {my, "8.4.3-commercial", ""}, {my, "9.1.0", ""}, {my, "8.0.13", "too old"}, {my, "5.7.44-log", "too old"},
		{my, "10.11.2-MariaDB", "register it as kind mariadb"}, {my, "eight", "cannot be read"},
	} {
		err := tt.s.fits([]string{tt.version})
		if tt.text == "" && err != nil || tt.text != "" && (err == nil || !strings.Contains(err.Error(), tt.text)) {
			t.Errorf("%s for %s: %v", tt.version, tt.s.name, err)
		}
	}
	if maria.fits(nil) == nil {
		t.Error("no version is accepted")
	}
}

func TestClasses(t *testing.T) {
	t.Parallel()
	for number, want := range map[uint16]target.Class{
		1045: target.Rejected, 1698: target.Rejected,
		1044: target.Admitted, 1049: target.Admitted, 1203: target.Admitted, 1226: target.Admitted, 1862: target.Admitted,
		3159: target.Admitted,
		3118: target.Denied, 4151: target.Denied, 3955: target.Denied, 1130: target.Denied,
		1040: target.Unreachable, 1053: target.Unreachable, 1129: target.Unreachable,
		1105: target.Unclear, 9001: target.Unclear,
	} {
		if got := loginClass(number, ""); got != want {
			t.Errorf("login %d is %v", number, got)
		}
	}
	for _, message := range []string{
		"ProxySQL Error: Access denied for user 'a'@'b' (using password: YES)",
		"Max connect timeout reached while reaching hostgroup 1 after 503ms",
	} {
		if got := loginClass(1045, message); got != target.Unclear {
			t.Errorf("ProxySQL's own answer is %v: %s", got, message)
		}
	}
	for _, tt := range []struct {
		number  uint16
		message string
		want    target.Class
	}{
		{1819, "", target.Refused}, {3638, "", target.Refused}, {1227, "", target.Denied}, {1396, "", target.Denied}, {1836, "", target.Unreachable},
		{1290, "running with the --read-only option", target.Unreachable}, {1290, "the --super-read-only option", target.Unreachable},
		{1290, "the --skip-grant-tables option", target.Denied}, {1317, "", target.Unknown}, {9999, "", target.Unknown},
	} {
		if got := changeClass(tt.number, tt.message); got != tt.want {
			t.Errorf("change %d %s is %v", tt.number, tt.message, got)
		}
	}
}
