package settings_test

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/settings"
)

// program has a setting of each kind.
type program struct {
	name     string
	colour   string
	level    slog.Level
	loud     bool
	refuse   bool
	workers  int
	alert    int
	bytes    int64
	rate     float64
	wait     time.Duration
	age      time.Duration
	peers    []string
	commands []string
	group    []int
	pairs    []string
	token    string
	url      string
}

func (p *program) table() settings.Table {
	return settings.Table{
		settings.Of("name", &p.name, settings.Text("NAME"), "anon", "Name."),
		settings.Of("colour", &p.colour, settings.OneOf("COLOUR", "red", "green", "blue"), "red", "Colour."),
		settings.Of("level", &p.level, settings.Level(), slog.LevelInfo, "Level."),
		settings.Of("loud", &p.loud, settings.Switch(), false, "Loud."),
		settings.Of("accept", &p.refuse, settings.Inverted(), false, "Accept."),
		settings.Of("workers", &p.workers, settings.Whole(2), 16, "Workers.").Formerly("crew"),
		settings.Of("alert", &p.alert, settings.OrOff(), 100, "Alert."),
		settings.Of("size", &p.bytes, settings.MiB(4), 0, "Size."),
		settings.Of("rate", &p.rate, settings.Number(0.5, 10), 2, "Rate."),
		settings.Of("wait", &p.wait, settings.Duration(time.Second, time.Hour), time.Minute, "Wait."),
		settings.Of("age", &p.age, settings.AtLeast(24*time.Hour), 0, "Age.").Shown("never"),
		settings.Of("peers", &p.peers, settings.List("NAME"), nil, "Peers."),
		settings.Of("command", &p.commands, settings.Lines("LINE"), nil, "Commands."),
		settings.Of("group", &p.group, settings.ID("GID"), nil, "Group."),
		settings.Of("pair", &p.pairs, settings.Parsed("PAIR", noPairs), nil, "Pairs."),
		settings.Of("url", &p.url, settings.OneOf("URL", "https://a/?t=x", "https://b/?t=y"), "", "URL.").Secret(),
		settings.Of("token", &p.token, settings.Text("FILE"), "", "Token.").For("url").Literal(),
	}
}

func noPairs(texts []string) ([]string, error) {
	var errs []error
	for _, text := range texts {
		errs = append(errs, fmt.Errorf("%q is no pair", text))
	}
	return nil, errors.Join(errs...)
}

func (p *program) load(flags map[string][]string, environ []string, file string) (settings.Table, error) {
	t := p.table()
	return t, t.Load(settings.Sources{
		Flags:   flags,
		Environ: environ,
		Foreign: func(v string) bool { return v == "KEYTURN_PROFILE" },
		File:    func() (string, error) { return file, nil },
	})
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "settings.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSources(t *testing.T) {
	t.Parallel()
	want := program{
		name:     "a",
		colour:   "blue",
		level:    slog.LevelWarn,
		loud:     true,
		refuse:   true,
		workers:  3,
		alert:    -1,
		bytes:    5 << 20,
		rate:     1.5,
		wait:     90 * time.Second,
		age:      48 * time.Hour,
		peers:    []string{"x", "y"},
		commands: []string{"l"},
		group:    []int{0},
		url:      "https://a/?t=x",
		token:    "f",
	}
	texts := map[string][]string{
		"name":    {"a"},
		"colour":  {"blue"},
		"level":   {"warn"},
		"loud":    {"true"},
		"accept":  {"false"},
		"workers": {"3"},
		"alert":   {"0"},
		"size":    {"5"},
		"rate":    {"1.5"},
		"wait":    {"90s"},
		"age":     {"48h"},
		"peers":   {"x", "y"},
		"command": {"l"},
		"group":   {"0"},
		"url":     {"https://a/?t=x"},
		"token":   {"f"},
	}
	var environ, lines []string
	for name, list := range texts {
		environ = append(environ, settings.Variable(name)+"="+strings.Join(list, ","))
		value := list[0]
		if name == "peers" || name == "command" {
			value = "[" + strings.Join(list, ",") + "]"
		}
		lines = append(lines, name+": "+value)
	}
	file := write(t, strings.Join(lines, "\n"))
	for name, c := range map[string]struct {
		flags   map[string][]string
		environ []string
		file    string
	}{"flags": {flags: texts}, "environment": {environ: environ}, "file": {file: file}} {
		var p program
		table, err := p.load(c.flags, c.environ, c.file)
		if err != nil || !reflect.DeepEqual(p, want) {
			t.Errorf("%s: %+v, %v, want %+v", name, p, err, want)
		}
		if n := len(table.InForce()); n != len(texts) {
			t.Errorf("%s: %d settings are in force, want %d", name, n, len(texts))
		}
	}
}

func TestPrecedence(t *testing.T) {
	t.Parallel()
	var p program
	file := write(t, "name: file\ncolour: green\nworkers: 4\n")
	_, err := p.load(map[string][]string{"name": {"flag"}},
		[]string{"KEYTURN_NAME=env", "KEYTURN_COLOUR=blue", "KEYTURN_WORKERS="}, file)
	if err != nil || p.name != "flag" || p.colour != "blue" || p.workers != 4 {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	p := program{workers: 7, token: "kept"}
	p.table().Fill()
	want := program{
		name:    "anon",
		colour:  "red",
		workers: 7,
		alert:   100,
		rate:    2,
		wait:    time.Minute,
		token:   "kept",
	}
	if !reflect.DeepEqual(p, want) {
		t.Errorf("%+v, want %+v", p, want)
	}
	if _, err := p.load(nil, nil, ""); err != nil || p.token != "" {
		t.Errorf("a literal setting that was not given has the value %q, %v", p.token, err)
	}
}

// TestMistakes verifies what an operator reads of a value that is not permitted.
func TestMistakes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		flags map[string][]string
		env   string
		file  string
		want  string
	}{
		{flags: map[string][]string{"colour": {"pink"}}, want: `--colour must be red, green or blue, not "pink"`},
		{flags: map[string][]string{"level": {"shout"}}, want: `--level must be debug, info, warn or error, not "shout"`},
		{flags: map[string][]string{"workers": {"1"}}, want: `--workers must be a whole number of at least 2, not "1"`},
		{flags: map[string][]string{"workers": {"many"}}, want: `--workers must be a whole number of at least 2, not "many"`},
		{flags: map[string][]string{"alert": {"-1"}}, want: `--alert must be a whole number of at least 0, not "-1"`},
		{flags: map[string][]string{"size": {"3"}}, want: `--size must be a whole number of at least 4, not "3"`},
		{flags: map[string][]string{"rate": {"11"}}, want: `--rate must be a number of 0.5 to 10, not "11"`},
		{flags: map[string][]string{"rate": {"NaN"}}, want: `--rate must be a number of 0.5 to 10, not "NaN"`},
		{flags: map[string][]string{"wait": {"2h"}}, want: `--wait must be a duration of 1s to 1h, not "2h"`},
		{flags: map[string][]string{"age": {"23h"}},
			want: `--age must be a duration of at least 24h, not "23h"`},
		{flags: map[string][]string{"url": {"https://c/?t=z"}}, want: `--url must be https://a/?t=x or https://b/?t=y`},
		{flags: map[string][]string{"loud": {"yes"}}},
		{flags: map[string][]string{"pair": {"a", "b"}}, want: "--pair: \"a\" is no pair\n--pair: \"b\" is no pair"},
		{flags: map[string][]string{"token": {"f"}}, want: `token is for url, which is not set`},
		{env: "KEYTURN_LOUD=maybe", want: `environment variable KEYTURN_LOUD must be true or false, not "maybe"`},
		{env: "KEYTURN_COLOR=red", want: `unknown environment variable KEYTURN_COLOR; did you mean KEYTURN_COLOUR?`},
		{env: "KEYTURN_NOTHING_LIKE_IT=1", want: `unknown environment variable KEYTURN_NOTHING_LIKE_IT`},
		{env: "KEYTURN_PROFILE=p", want: ``},
		{flags: map[string][]string{"crew": {"3"}}, want: `--crew is now --workers`},
		{env: "KEYTURN_CREW=3", want: `unknown environment variable KEYTURN_CREW; it is now KEYTURN_WORKERS`},
		{file: "crew: 3", want: `configuration file FILE: unknown setting "crew"; it is now workers`},
		{file: "worker: 3", want: `configuration file FILE: unknown setting "worker"; did you mean workers?`},
		{file: "workers: three", want: `configuration file FILE: workers must be a whole number`},
		{file: "name: {a: b}", want: `configuration file FILE: name must be text`},
		{file: "peers: x", want: `configuration file FILE: peers must be a list`},
		{file: "loud: 1", want: `configuration file FILE: loud must be true or false`},
	} {
		var environ []string
		if c.env != "" {
			environ = []string{c.env}
		}
		file := ""
		if c.file != "" {
			file = write(t, c.file)
		}
		_, err := new(program).load(c.flags, environ, file)
		got := ""
		if err != nil {
			got = strings.ReplaceAll(err.Error(), file, "FILE")
			if file == "" {
				got = err.Error()
			}
		}
		if got != c.want {
			t.Errorf("%v %s %s: %q, want %q", c.flags, c.env, c.file, got, c.want)
		}
	}
}

// TestSecretsAreNotRecorded verifies that the record of the settings in force has of a URL no more
// than its host, and of a command line no more than the program.
func TestSecretsAreNotRecorded(t *testing.T) {
	t.Parallel()
	var p struct {
		url      string
		commands []string
	}
	for given, want := range map[string]string{
		"https://a/?t=x":   "https://a",
		"https://u:x@a:1/": "https://a:1",
		"token-x@a:1":      "?",
		"https:///t?t=x":   "?",
	} {
		table := settings.Table{
			settings.Of("url", &p.url, settings.Text("URL"), "", "URL.").Secret(),
			settings.Of("command", &p.commands, settings.Lines("LINE"), nil, "Commands.").Program(),
		}
		err := table.Load(settings.Sources{
			Flags: map[string][]string{"url": {given}, "command": {"n=/bin/true --token x"}},
			File:  func() (string, error) { return "", nil },
		})
		wanted := [][2]string{{"command", "n=/bin/true"}, {"url", want}}
		if err != nil || !reflect.DeepEqual(table.InForce(), wanted) {
			t.Errorf("%q: %q, %v, want %q", given, table.InForce(), err, wanted)
		}
	}
}

// TestFileIsNotQuoted verifies that no error about a file repeats what may be a value in the wrong
// place.
func TestFileIsNotQuoted(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"marker-token-1",
		"url=https://h/?t=marker-token-1",
		"url=https://h/?t=marker-token-1: x",
		"name: *marker-token-1",
		"name: [marker-token-1",
		"\"marker-token-1 is long and no name\": x",
	} {
		_, err := new(program).load(nil, nil, write(t, text))
		if err == nil || strings.Contains(err.Error(), "marker") || strings.Contains(err.Error(), "token") {
			t.Errorf("%q: the error is %v", text, err)
		}
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	table := new(program).table()
	for name, want := range map[string]string{
		"wait":  "Wait (1m; 1s to 1h).",
		"age":   "Age (never; at least 24h).",
		"alert": "Alert (100; 0 disables the check).",
		"size":  "Size (none; at least 4).",
		"peers": "Peers (none).",
	} {
		if got := table.Find(name).Usage(); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if k := settings.Of("n", new(float64), settings.Number(0, math.Inf(1)), 0, "N."); k.Bounds != "" {
		t.Errorf("a number without a limit has the bounds %q", k.Bounds)
	}
}

// TestCheck verifies that a negative number is reported when a program has set the field itself.
func TestCheck(t *testing.T) {
	t.Parallel()
	right := program{alert: -1, level: slog.LevelDebug, wait: time.Millisecond}
	if err := right.table().Check(); err != nil {
		t.Errorf("fields that are permitted: %v", err)
	}
	wrong := program{workers: -1, alert: -2, bytes: -3, rate: -4, wait: -5, age: -6}
	err := wrong.table().Check()
	for _, name := range []string{"workers", "alert", "size", "rate", "wait", "age"} {
		if err == nil || !strings.Contains(err.Error(), name+" is -") {
			t.Errorf("%s is not among the mistakes: %v", name, err)
		}
	}
}
