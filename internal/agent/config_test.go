package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// write makes a file of the test.
func write(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

const accessKey = `{"AccessKeyId": "KTtest", "AccessKeySecret": "marker-secret"}`

// scene is a directory with an access key, and a replacer of DIR in texts.
func scene(t *testing.T) (dir string, here func(string) string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "key.json"), accessKey)
	return dir, func(s string) string { return strings.ReplaceAll(s, "DIR", dir) }
}

func TestConfigWhole(t *testing.T) {
	t.Parallel()
	_, here := scene(t)
	s, err := parseConfig("agent.yaml", []byte(here(`
endpoint: 127.0.0.1:7443
access_key: {file: DIR/key.json}
secrets: plain
interval: 1m
max_stale: 12h
instance: web-1
last_good:
  dir: DIR/last
  key: {file: DIR/seal.key}
files:
  - path: DIR/app.env
    template: |
      DB={{ member "db" "Password" | env }}
    mode: "0640"
    on_change: {signal: HUP, pid_file: DIR/app.pid}
  - path: DIR/other
    template: '{{ secret "other" }}'
    on_change: {command: [/bin/true, -x], timeout: 5s, attempts: 2}
http: {listen: "127.0.0.1:0", token_file: DIR/token}
kms: {listen: "[::1]:0", access_keys: [{file: DIR/key.json}]}
status: {listen: "localhost:0"}
log: {level: debug, format: json}
`)))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(s.secrets, " "); got != "db other plain" {
		t.Errorf("secrets %q, want the secrets of the list and of the templates", got)
	}
	if f := s.files[0]; f.mode != 0o640 || f.notify.Attempts != 5 || f.notify.Timeout != 30*time.Second {
		t.Errorf("file %+v", f)
	}
	if f := s.files[1]; f.mode != 0o600 || f.notify.Attempts != 2 {
		t.Errorf("file %+v", f)
	}
}

// TestConfigMistakes verifies that every mistake is reported at once, by its path, and that no part
// of the file is quoted.
func TestConfigMistakes(t *testing.T) {
	t.Parallel()
	dir, here := scene(t)
	if err := os.Symlink(filepath.Join(dir, "key.json"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "empty.json"), "{}")
	for name, tt := range map[string]struct{ text, want string }{
		"nothing": {"", `endpoint: is required: host[:port] or a URL; or set region for the cloud's own
access_key: set exactly one of file, credential, environment`},
		"many at once": {`
endpoint: http://kms.example.test
access_key: {file: DIR/key.json, environment: KEYTURN, secret: marker}
secrets: ["a b", ok]
interval: 5
max_stale: -1s
colour: blue
files:
  - path: DIR/a
    template: '{{ secret "x" }}'
    mode: 0640
    owner: nobody-of-that-name
  - path: relative
    template: '{{ secret "x" }}'
    template_file: DIR/nowhere
  - path: DIR/a
    template: 'plain'
    on_change: {}
  - path: DIR/link
    template: '{{ secret (print "x") }} {{ frobnicate }}'
  - path: DIR/nowhere/a
    template: '{{ if true }}{{ member }}{{ secret (print "x") }}{{ end }}'
    on_change: {signal: KILL, pid_file: DIR/pid}
  - path: DIR/b
    template: '{{ secret "x" }}'
    on_change: {command: [sh, -c, marker], attempts: 1000}
http: {listen: "0.0.0.0:1", socket: DIR/s}
kms: {listen: "127.0.0.1:7", cert_file: DIR/key.json}
status: {listen: "127.0.0.1:7"}
last_good: {dir: DIR/last, key: {file: DIR/last/seal}}
log: {level: loud, format: 3}
`, `access_key.secret: unknown setting; known are credential, environment, file
colour: unknown setting; known are access_key, allow_plain_http, ca_file, endpoint, files, http, instance, interval, kms, last_good, log, max_stale, region, secrets, status
files[0].mode: must be text; put it in quotes
interval: must be a duration longer than zero, such as 30s, 5m or 12h
log.format: must be text; put it in quotes
max_stale: must be a duration longer than zero, such as 30s, 5m or 12h
endpoint: is plain HTTP and not on loopback: values would cross the network in clear; use https://, or set allow_plain_http to accept that
access_key: set exactly one of file, credential, environment
secrets[0]: is not the name of a secret: 1 to 192 of A-Z a-z 0-9 _ / + = . @ -, or an ARN
files[0].owner: there is no user "nobody-of-that-name"
files[1].path: must be an absolute path
files[1]: set exactly one of template, template_file
files[2].template: names no secret: write {{ secret "NAME" }} or {{ member "NAME" "MEMBER" }}
files[2].on_change: set exactly one of signal, command
files[2].path: is also the path of files[0]
files[3].path: DIR/link is not a regular file; a link would be replaced, so name the file itself
files[3].template: line 1: function "frobnicate" not defined
files[4].path: stat DIR/nowhere: no such file or directory
files[4].template: line 1:16: member needs the name of a secret, in quotes
files[4].template: line 1:28: the name that secret gets must be written there in quotes
files[4].on_change.signal: must be HUP, INT, QUIT, USR1, USR2, TERM or WINCH
files[5].on_change.command[0]: must be an absolute path
files[5].on_change.attempts: must be 1 to 100
last_good.key.file: is in last_good.dir: a key beside what it seals protects nothing; keep it elsewhere
last_good.key.file: stat DIR/last: no such file or directory
http: set exactly one of listen, socket
http.token_file: is required; a missing file is created
kms: cert_file and key_file go together: set both or neither
status.listen: is the same as kms.listen
log.level: must be debug, info, warn or error`},
		"what the consumer would refuse": {`
region: cn-hangzhou
access_key: {file: DIR/empty.json}
secrets: [a]
last_good: {dir: DIR, key: {file: DIR/empty.json}}
interval: 1ms
http: {listen: "192.0.2.1:7480", token_file: DIR/token, socket_mode: "0660"}
`, `access_key: DIR/empty.json: must hold AccessKeyId and AccessKeySecret
interval: must be at least 1s
last_good.dir: DIR has mode 0755; others must not look into it: chmod 700
last_good.key.file: is in last_good.dir: a key beside what it seals protects nothing; keep it elsewhere
last_good.key.file: has fewer than 32 bytes
http.listen: is not on loopback; use 127.0.0.1, [::1] or localhost
http.socket_mode: is for http.socket, which is not set`},
		"nothing to do": {`
endpoint: 127.0.0.1:7443
access_key: {file: DIR/key.json}
`, "secrets: there is nothing to do: name secrets, or files whose templates name them, or set kms"},
		"not YAML":    {"a: [marker", "agent.yaml is not YAML: see line 1"},
		"twice":       {"region: a\nregion: b", "agent.yaml is not YAML: see line 2"},
		"not a table": {"- marker", "agent.yaml is not YAML: see line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parseConfig("agent.yaml", []byte(here(tt.text)))
			var all *ConfigError
			if !errors.As(err, &all) {
				t.Fatalf("error %v, want a *ConfigError", err)
			}
			want := here(tt.want)
			if all.Error() != want {
				t.Errorf("mistakes\n%s\nwant\n%s", all, want)
			}
			if strings.Contains(all.Error(), "marker") {
				t.Error("a mistake quotes the file")
			}
		})
	}
}

// TestCheckWritesNothing verifies that reading a configuration leaves no trace.
func TestCheckWritesNothing(t *testing.T) {
	t.Parallel()
	dir, here := scene(t)
	before, _ := os.ReadDir(dir)
	if _, err := parseConfig("agent.yaml", []byte(here(`
endpoint: 127.0.0.1:1
access_key: {file: DIR/key.json}
files: [{path: DIR/a, template: '{{ secret "a" }}'}]
http: {socket: DIR/sock, token_file: DIR/token}
last_good: {dir: DIR/last, key: {file: DIR/seal}}
`))); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadDir(dir)
	if err != nil || len(after) != len(before) {
		t.Errorf("%d files after the check, %d before, %v", len(after), len(before), err)
	}
}

func TestAccessKeySpellings(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"of the API":         accessKey,
		"of CreateAccessKey": `{"RequestId": "r", "AccessKey": ` + accessKey + `}`,
		"of admin.json":      `{"account_id": "1", "access_key_id": "KTtest", "access_key_secret": "marker-secret"}`,
	} {
		c, err := parseAccessKey([]byte(text))
		if err != nil || c.AccessKeyID != "KTtest" || c.AccessKeySecret.Reveal() != "marker-secret" {
			t.Errorf("%s: %v, %v", name, c.AccessKeyID, err)
		}
	}
	for _, text := range []string{"marker", `{"AccessKeyId": 5}`, `{}`} {
		if _, err := parseAccessKey([]byte(text)); err == nil || strings.Contains(err.Error(), "marker") {
			t.Errorf("%q: error %v, want one that does not quote", text, err)
		}
	}
}
