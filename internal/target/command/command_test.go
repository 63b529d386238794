//go:build unix

package command_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/command"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/support"
)

// bridge is a command for a system that is reached over a network: it carries each message there,
// and knows whether it may have arrived. Bash has TCP built in.
const bridge = `#!/bin/bash
read -r message
trap '' PIPE
if ! { exec 3<>"/dev/tcp/${KEYTURN_ADDR%:*}/${KEYTURN_ADDR##*:}"; } 2>/dev/null; then
  echo '{"result":"unavailable"}'
elif printf '%s\n' "$message" >&3 && read -r reply <&3; then
  printf '%s\n' "$reply"
else
  echo '{"result":"unknown"}'
fi
`

// service is what the bridge talks to: accounts and the secrets that they have.
type service struct {
	addr string
	n    atomic.Int32
	mu   sync.Mutex
	has  map[string][]string
}

type message struct {
	Step, Strategy   string
	Account, Partner string
	New, Old         struct{ Account, Secret string }
	Credentials      []struct{ Account, Secret string }
}

func startService(t *testing.T) *service {
	t.Helper()
	s := &service{has: map[string][]string{}}
	s.addr = support.Serve(t, func(conn net.Conn) {
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		var m message
		if json.NewDecoder(conn).Decode(&m) == nil {
			fmt.Fprintln(conn, s.step(m))
		}
	}).String()
	return s
}

func (s *service) step(m message) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch m.Step {
	case "set":
		if len(m.New.Secret) < 8 {
			return `{"result":"refused"}`
		}
		if m.Strategy != "overlap" {
			s.has[m.New.Account] = nil
		}
		if !slices.Contains(s.has[m.New.Account], m.New.Secret) {
			s.has[m.New.Account] = append(s.has[m.New.Account], m.New.Secret)
		}
	case "retire":
		s.has[m.Old.Account] = slices.DeleteFunc(s.has[m.Old.Account], func(p string) bool { return p == m.Old.Secret })
	case "verify":
		if !slices.Contains(s.has[m.New.Account], m.New.Secret) {
			return `{"result":"rejected"}`
		}
	case "state":
		var states []string
		for _, c := range m.Credentials {
			states = append(
				states,
				map[bool]string{true: `"live"`, false: `"dead"`}[slices.Contains(s.has[c.Account], c.Secret)],
			)
		}
		return `{"result":"ok","states":[` + strings.Join(states, ",") + `]}`
	case "check":
		for _, name := range []string{m.Account, m.Partner} {
			if name != "" && len(s.has[name]) == 0 {
				return fmt.Sprintf(`{"result":"ok","findings":[{"code":"no-account","verdict":"impossible","account":%q,`+
					`"message":"There is none"}]}`, name)
			}
		}
		return `{"result":"ok","window":"None","findings":[{"code":"keys","verdict":"note","message":"There is a key"}]}`
	}
	return `{"result":"ok"}`
}

func TestConformance(t *testing.T) {
	t.Parallel()
	s := startService(t)
	if _, err := os.Stat("/bin/bash"); err != nil {
		t.Skip("there is no /bin/bash")
	}
	_, self := executable(t, bridge)
	for _, strategy := range command.Kind(command.Config{}).Strategies {
		t.Run(string(strategy), func(t *testing.T) {
			kind := command.Kind(command.Config{})
			kind.Strategies = []target.Strategy{strategy}
			// The suite chooses an address for each test, and a target cannot pass one on: each
			// gets a command line of its own.
			kindOf := func(raw json.RawMessage) (target.Kind, json.RawMessage) {
				addr := addressPattern.FindString(string(raw))
				line := command.Line{Path: self, Env: map[string]string{"KEYTURN_ADDR": addr}}
				commands := command.Config{
					User:     command.User{Self: true},
					Commands: map[string]command.Line{"it": line},
				}
				return command.Kind(commands), json.RawMessage(strings.Replace(string(raw), "it-"+addr, "it", 1))
			}
			kind.Addresses = func(raw json.RawMessage) []string {
				k, raw := kindOf(raw)
				return k.Addresses(raw)
			}
			kind.Check = func(raw json.RawMessage) error {
				k, raw := kindOf(raw)
				return k.Check(raw)
			}
			kind.Open = func(s target.Settings) (target.Target, error) {
				k, raw := kindOf(s.Config)
				s.Config = raw
				return k.Open(s)
			}
			targettest.Run(t, targettest.Harness{
				Unguarded: "the program is not asked what an account is",
				Kind:      kind,
				Addr:      s.addr,
				Config: func(addr string) string {
					return fmt.Sprintf(`{"command":"it-%s","strategy":%q,"check":true}`, addr, strategy)
				},
				Account: func(*testing.T) target.Credential {
					n := s.n.Add(1)
					c := target.Credential{
						Account: fmt.Sprintf("app%d", n),
						Secret:  sensitive.New(fmt.Sprintf("first secret of %d\n<&>", n)),
					}
					s.mu.Lock()
					defer s.mu.Unlock()
					s.has[c.Account] = []string{c.Secret.Reveal()}
					return c
				},
				Login: func(_ context.Context, c target.Credential) (bool, error) {
					s.mu.Lock()
					defer s.mu.Unlock()
					return slices.Contains(s.has[c.Account], c.Secret.Reveal()), nil
				},
				Refused: func(account string) target.Credential {
					return target.Credential{Account: account, Secret: sensitive.New("short")}
				},
			})
		})
	}
}

var addressPattern = regexp.MustCompile(`127\.0\.0\.1:[0-9]+`)

var change = target.Change{
	ID: "c1", Strategy: target.Overlap,
	New: target.Credential{Account: "app", Secret: sensitive.New("new-secret-marker")},
	Old: target.Credential{
		Account: "app",
		Secret:  sensitive.New("-----BEGIN KEY-----\nfirst-line-marker\nsecond-line-marker\n"),
	},
}

func script(t *testing.T, content string) (dir, file string) {
	t.Helper()
	return executable(t, "#!/bin/sh\n"+content)
}

// executable writes one of that content into a directory of its own.
func executable(t *testing.T, content string) (dir, file string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "it")
	// No process starts meanwhile: it would have the file open for writing for a moment, and such a
	// file cannot be run.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(file, []byte(content), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir, file
}

// own is a configuration of this package's tests: commands that run as the tests' user.
func own(lines map[string]command.Line) command.Config {
	return command.Config{User: command.User{Self: true}, Commands: lines}
}

func openScript(t *testing.T, content string, args ...string) (target.Target, string) {
	t.Helper()
	dir, file := script(t, content)
	line := command.Line{Path: file, Args: args, Env: map[string]string{"KEYTURN_OUT": dir}}
	tt, err := command.Kind(own(map[string]command.Line{"it": line})).Open(target.Settings{
		Name: "crm", Config: []byte(`{"command":"it","strategy":"overlap"}`),
		Admin: target.Credential{Account: "root", Secret: sensitive.New("admin-marker")},
	})
	if err != nil {
		t.Fatal(err)
	}
	return tt, dir
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, content string
		class         target.Class
		text          string
	}{
		{"refused", `echo '{"result":"refused","message":"no"}'`, target.Refused, "set of target crm: refused: no"},
		{"refused, exit 1", `echo '{"result":"refused"}'; exit 1`, target.Refused, "refused (exit status 1)"},
		{"says why on stderr", `echo cannot >&2; echo '{"result":"denied"}'`, target.Denied, "set of target crm: denied: cannot"},
		{"ok, exit 1", `echo '{"result":"ok"}'; exit 1`, target.Unknown, "the transport says that it failed (exit status 1)"},
		{"refused, exit 2", `echo '{"result":"refused"}'; exit 2`, target.Unknown, "set of target crm: exit status 2"},
		{"killed", `kill -9 $$`, target.Unknown, "exit status 137"},
		{"a high status", `exit 255`, target.Unknown, "exit status 255"},
		{"nothing", ``, target.Unknown, "not the JSON object of the protocol"},
		{"nothing, exit 1", `echo oops >&2; exit 1`, target.Unknown, "exit status 1: oops"},
		{"endless", `yes`, target.Unknown, "longer than 65536 bytes"},
		{"leaves a child with its output", `sleep 100 & echo '{"result":"refused","message":"no"}'`, target.Refused, "refused: no"},
		{"quotes secrets", `cat >&2; exit 3`, target.Unknown, `"secret":"[redacted]"`},
		{"quotes a line of a key", `echo bad line second-line-marker >&2; exit 3`, target.Unknown, "bad line [redacted]"},
		{"quotes secrets after a lot", `i=0; while [ $i -lt 2000 ]; do echo new-secret-marker; i=$((i+1)); done >&2; exit 3`, target.Unknown, "[redacted]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			target1, _ := openScript(t, tt.content)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err := target1.Apply(ctx, change)
			if err == nil || target.ClassOf(err) != tt.class || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("class %v, %v; want %v, %q", target.ClassOf(err), err, tt.class, tt.text)
			}
			if strings.Contains(fmt.Sprint(err), "marker") || len(fmt.Sprint(err)) > 800 {
				t.Errorf("the error tells a secret or too much: %d bytes", len(fmt.Sprint(err)))
			}
		})
	}
}

// The whole group ends with the context, also what ignores a SIGTERM, and no answer is no verdict.
func TestKilledWithItsChildren(t *testing.T) {
	t.Parallel()
	tt, dir := openScript(t, `trap '' TERM
sh -c 'trap "" TERM; echo $$ >"$0/pid.new"; mv "$0/pid.new" "$0/pid"; while :; do sleep 1; done' "$KEYTURN_OUT" &
while :; do sleep 1; done`)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tt.Apply(ctx, change) }()
	var child int
	for deadline := time.Now().Add(30 * time.Second); child == 0; time.Sleep(5 * time.Millisecond) {
		if b, err := os.ReadFile(filepath.Join(dir, "pid")); err == nil {
			_, _ = fmt.Sscan(string(b), &child)
		}
		if time.Now().After(deadline) {
			t.Fatal("the command does not start")
		}
	}
	cancel()
	began := time.Now()
	err := <-done
	if target.ClassOf(err) != target.Unknown || !strings.Contains(target.DetailOf(err), "context canceled") {
		t.Errorf("class %v, %v", target.ClassOf(err), err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v to end", took)
	}
	for deadline := time.Now().Add(10 * time.Second); syscall.Kill(child, 0) == nil && !zombie(child); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a child of the command is still running")
		}
	}
}

// zombie reports whether a process has ended and nobody has asked how.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(b), ") Z ")
}

// What the command gets: the message on its input, the listed environment and nothing else.
func TestWhatTheCommandGets(t *testing.T) {
	t.Parallel()
	tt, dir := openScript(
		t,
		`cat >"$KEYTURN_OUT/in"; env >"$KEYTURN_OUT/env"; echo "$PWD $*" >"$KEYTURN_OUT/args"; echo '{"result":"ok"}'`,
		"a b",
		"$HOME;id",
	)
	if err := tt.Retire(t.Context(), change); err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	var in map[string]any
	if err := json.Unmarshal([]byte(read("in")), &in); err != nil {
		t.Fatal(err)
	}
	delete(in, "attempt")
	got, _ := json.Marshal(in)
	if want := `{"account":"app","admin":{"account":"root","secret":"admin-marker"},"change_id":"c1","new":{"account":"app","secret":"new-secret-marker"},` +
		`"old":{"account":"app","secret":"-----BEGIN KEY-----\nfirst-line-marker\nsecond-line-marker\n"},"protocol":1,"step":"retire","strategy":"overlap","target":"crm"}`; string(
		got,
	) != want {
		t.Errorf("the message is %s\nwant %s", got, want)
	}
	for _, kv := range strings.Split(strings.TrimSpace(read("env")), "\n") {
		// The shell adds PWD and its like by itself.
		if name, _, _ := strings.Cut(kv, "="); !slices.Contains(
			[]string{"PATH", "LC_ALL", "KEYTURN_OUT", "PWD", "OLDPWD", "SHLVL", "_"},
			name,
		) {
			t.Errorf("the environment has %s", name)
		}
	}
	if got := read("args"); got != "/ a b $HOME;id\n" {
		t.Errorf("directory and arguments are %q", got)
	}
}

// A file that has become replaceable by others is not run any more.
func TestLooksAgainBeforeEachRun(t *testing.T) {
	t.Parallel()
	tt, dir := openScript(t, `echo '{"result":"ok"}'`)
	if err := tt.Apply(t.Context(), change); err != nil {
		t.Fatal(err)
	}
	for what, step := range map[string]struct {
		do, undo func() error
		text     string
	}{
		"file writable":      {func() error { return os.Chmod(dir+"/it", 0o722) }, func() error { return os.Chmod(dir+"/it", 0o700) }, "others can write to it"},
		"directory writable": {func() error { return os.Chmod(dir, 0o770) }, func() error { return os.Chmod(dir, 0o700) }, "others can write to it"},
		"not executable":     {func() error { return os.Chmod(dir+"/it", 0o600) }, func() error { return os.Chmod(dir+"/it", 0o700) }, "is no executable file"},
		"gone":               {func() error { return os.Rename(dir+"/it", dir+"/other") }, func() error { return os.Rename(dir+"/other", dir+"/it") }, "no such file"},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if err := tt.Apply(t.Context(), change); target.ClassOf(err) != target.Denied ||
			!strings.Contains(fmt.Sprint(err), step.text) {
			t.Errorf("%s: class %v, %v; want denied, %q", what, target.ClassOf(err), err, step.text)
		}
		if err := step.undo(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	_, file := script(t, "exit 0")
	lines := map[string]command.Line{
		"it":   {Path: file},
		"gone": {Path: file + "-gone"},
		"args": {Path: file, Args: []string{"a", "b"}, Env: map[string]string{"KEYTURN_A": "x"}},
	}
	for _, tt := range []struct {
		lines  map[string]command.Line
		config string
		want   []string
	}{
		{lines, `{"command":"it","strategy":"double"}`, nil},
		{nil, `{"command":"it","strategy":"single"}`, []string{"this server runs no commands"}},
		{lines, `{"strategy":"none"}`, []string{"command is required; it must be a name from the server setting command: args, gone, it", `strategy "none"`}},
		{lines, `{"command":"other","strategy":"single"}`, []string{`no "other"; it has args, gone, it`}},
		{lines, `{"command":"` + file + `","strategy":"single"}`, []string{"the server setting command has no"}},
		{lines, `{"command":"gone","strategy":"single"}`, []string{"no such file"}},
		{lines, `{"command":"it","args":["x"],"strategy":"single"}`, []string{`there is no setting "args"`}},
		{lines, `{"command":"it","env":{"KEYTURN_A":"x"},"strategy":"single"}`, []string{`there is no setting "env"`}},
		{lines, `{"command":"it","dir":"/","strategy":"single"}`, []string{`there is no setting "dir"`}},
		{lines, `{"path":"` + file + `","strategy":"single"}`, []string{"a target names no executable"}},
	} {
		err := command.Kind(own(tt.lines)).Check([]byte(tt.config))
		if tt.want == nil && err != nil || tt.want != nil && err == nil {
			t.Errorf("%s: %v", tt.config, err)
		}
		for _, text := range tt.want {
			if !strings.Contains(fmt.Sprint(err), text) {
				t.Errorf("%s: %v does not say %q", tt.config, err, text)
			}
		}
	}
	// What an earlier release has stored opens where a command is the same, and nowhere else.
	for config, opens := range map[string]bool{
		`{"path":"` + file + `","strategy":"single"}`:                                                               true,
		`{"path":"` + file + `","strategy":"single","dir":"/"}`:                                                     true,
		`{"path":"` + file + `","args":["a","b"],"env":{"KEYTURN_A":"x"},"strategy":"single"}`:                      true,
		`{"path":"` + file + `","args":["a"],"env":{"KEYTURN_A":"x"},"strategy":"single"}`:                          false,
		`{"path":"` + file + `","args":["a","b"],"strategy":"single"}`:                                              false,
		`{"path":"` + file + `","strategy":"single","dir":"/tmp"}`:                                                  false,
		`{"path":"/bin/sh","args":["-c","id"],"strategy":"single"}`:                                                 false,
		`{"path":"` + filepath.Dir(file) + "/../" + filepath.Base(filepath.Dir(file)) + `/it","strategy":"single"}`: false,
	} {
		_, err := command.Kind(own(lines)).Open(target.Settings{Name: "t", Config: []byte(config)})
		if opens != (err == nil) {
			t.Errorf("%s: %v", config, err)
		}
	}
}

func TestParseLine(t *testing.T) {
	t.Parallel()
	name, l, err := command.ParseLine("rotate.it=KEYTURN_A=b=c  KEYTURN_B=  /bin/x -a  b")
	if err != nil || name != "rotate.it" || l.Path != "/bin/x" || !slices.Equal(l.Args, []string{"-a", "b"}) ||
		len(l.Env) != 2 ||
		l.Env["KEYTURN_A"] != "b=c" ||
		l.Env["KEYTURN_B"] != "" {
		t.Errorf("%q, %+v, %v", name, l, err)
	}
	for _, s := range []string{"", "x", "=/bin/x", "a=", "a=bin/x", "a b=/bin/x", "a=LD_PRELOAD=x /bin/x", "a=KEYTURN_= /bin/x", "a=KEYTURN_A=b", "a=KEYTURN_A-B=c /bin/x", "a=/bin/x\x00"} {
		if _, _, err := command.ParseLine(s); err == nil {
			t.Errorf("ParseLine(%q) succeeds", s)
		}
	}
}

// TestCommandIsConfined runs a hostile command as another user: it can read neither the server's
// directory nor its environment or memory, is in no group, gains no privileges, and its processes
// and files are bounded.
func TestCommandIsConfined(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can run a command as another user")
	}
	const uid, gid = 64123, 64124
	data := t.TempDir()
	if err := errors.Join(os.Chmod(data, 0o700), os.WriteFile(filepath.Join(data, "root.key"), []byte("key-marker"), 0o600)); err != nil {
		t.Fatal(err)
	}
	file := shared(t, `#!/bin/sh
{
  id -u; id -g; id -G
  cat "$1/root.key" && echo READ
  ls "$1" && echo LISTED
  cat /proc/$PPID/environ >/dev/null && echo ENVIRON
  env | grep -v -e '^PWD=' -e '^SHLVL=' -e '^_=' -e '^OLDPWD=' -e '^PATH=' -e '^LC_ALL=' && echo ENV
  grep NoNewPrivs /proc/self/status
  ulimit -c; ulimit -n; ulimit -t
} >/tmp/keyturn-confined.$$ 2>/dev/null
out=$(tr '\n\t' '  ' </tmp/keyturn-confined.$$); rm -f /tmp/keyturn-confined.$$
printf '{"result":"denied","message":"%s"}' "$out"
`)
	c := command.Config{
		Commands: map[string]command.Line{"it": {Path: file, Args: []string{data}}},
		User:     command.User{UID: uid, GID: gid},
		Private:  []string{data},
	}
	if err := c.CheckUser(); err != nil {
		t.Fatal(err)
	}
	tt, err := command.Kind(
		c,
	).Open(
		target.Settings{Name: "crm", Config: []byte(`{"command":"it","strategy":"overlap"}`)},
	)
	if err != nil {
		t.Fatal(err)
	}
	err = tt.Apply(t.Context(), change)
	want := fmt.Sprintf("set of target crm: denied: %d %d %d NoNewPrivs: 1 0 256 120", uid, gid, gid)
	if fmt.Sprint(err) != want {
		t.Errorf("the command tells\n%v\nwant\n%s", err, want)
	}
	// A directory that has become readable for that user stops commands.
	if err := os.Chmod(data, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := tt.Apply(t.Context(), change); target.ClassOf(err) != target.Denied ||
		!strings.Contains(fmt.Sprint(err), "could read") {
		t.Errorf("with a data directory of mode 0750: %v", err)
	}
}

// TestUserOfCommands verifies which users are refused.
func TestUserOfCommands(t *testing.T) {
	t.Parallel()
	lines := map[string]command.Line{"it": {Path: "/bin/true"}}
	for _, u := range []command.User{{}, {UID: 64123}, {GID: 64123}, {UID: os.Geteuid(), GID: 64123}} {
		if err := (command.Config{Commands: lines, User: u}).CheckUser(); err == nil {
			t.Errorf("%+v is accepted", u)
		}
	}
	data := t.TempDir()
	if err := os.Chmod(data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := (command.Config{Commands: lines, User: command.User{UID: 64123, GID: 64123}, Private: []string{data}}).CheckUser(); err == nil {
		t.Error("a data directory that everybody can read is accepted")
	}
}

// shared writes an executable where every user can run it.
func shared(t *testing.T, content string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "keyturn-command-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	file := filepath.Join(dir, "it")
	syscall.ForkLock.RLock() // see executable
	defer syscall.ForkLock.RUnlock()
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(file, []byte(content), 0o755)); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestFileOfAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	_, file := script(t, "exit 0")
	if err := os.Chown(file, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	err := command.Kind(
		own(map[string]command.Line{"it": {Path: file}}),
	).Check(
		[]byte(`{"command":"it","strategy":"single"}`),
	)
	if err == nil || !strings.Contains(err.Error(), "belongs to the user with ID 65534") {
		t.Errorf("%v", err)
	}
}

// Where only the end of what was said is kept, the end of a secret may be its beginning.
func TestEndOfALongSecretIsNotTold(t *testing.T) {
	t.Parallel()
	tt, _ := openScript(t, `cat >&2; exit 3`)
	c := change
	c.New.Secret = sensitive.New(strings.Repeat("long-marker-", 1000))
	c.Old = target.Credential{}
	if err := tt.Apply(t.Context(), c); err == nil || strings.Contains(err.Error(), "marker") {
		t.Errorf("the error tells the end of a secret, or there is none: %d bytes", len(fmt.Sprint(err)))
	}
}
