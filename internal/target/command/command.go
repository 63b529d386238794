// Package command is the kind "command": a program on the server's machine changes the credentials.
// Each step of package plugin is one run, with the message on standard input and the answer on
// standard output. docs/plugin.md says what a command has to do, docs/targets/command.md how to
// set one up; examples/command-target is one.
//
// The operator decides what runs: the server setting command maps names to command lines.
// Configuration of a target:
//
//	command               the name of one of them. Required.
//	strategy              the one that the command implements: "single", "overlap" or "double".
//	                      Required.
//	generate              true when the command makes new credentials itself; default false:
//	                      passwords by the rule.
//	check                 true when the command has the step check; default false.
//	password_length       12 to 128, default 32.
//	password_punctuation  characters beside letters and digits; default none.
//
// A target can choose neither arguments nor environment. No shell is involved. The command gets
// PATH (/usr/local/bin:/usr/bin:/bin), LC_ALL=C and the KEYTURN_… variables of its command line;
// nothing of the server's own environment, which may hold the root key.
//
// The command runs as the user of the server setting command-user, who is neither root nor the
// server's user and cannot read the server's directories; this is verified before each run. A
// server that is not root cannot change the user: then the operator must accept in so many words
// (command-user: self) that commands can read what the server can. On Linux, it gains no privileges
// by set-user-ID files, has limits on processes, open files, file size and processor time, and
// writes no core dump. Its process group gets a SIGTERM when the time is over and SIGKILL two
// seconds later. When it ends, all that it has started is killed, in whatever session or process
// group (elsewhere than on Linux, in its own group alone). It inherits no open file.
//
// Commands of one user could read each other's memory. On Linux each gets a PID namespace with its
// own /proc, in which there is no process but its own. Where the server lacks the right to make one
// (CAP_SYS_ADMIN), one command runs at a time, and all that one has started has ended before the
// next.
//
// The executable, every directory above it and every symbolic link on the way must belong to root
// or to the server's user, and nobody else may be able to write there (a directory with the sticky
// bit is good enough).
//
// Configurations of releases up to 0.1 name path, args, env and dir instead of command. They can be
// opened when the server's configuration has a command with the same executable, arguments and
// variables, and cannot be registered any more.
package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/plugin"
	"github.com/keyturn/keyturn/sensitive"
)

const (
	envPrefix = "KEYTURN_"
	path      = "PATH=/usr/local/bin:/usr/bin:/bin"
	maxArgs   = 100
	maxName   = 64
)

// Line is a command line.
type Line struct {
	// Path is the executable, absolute.
	Path string
	// Args are its arguments. Every user of the machine can see them.
	Args []string
	// Env are its variables besides PATH and LC_ALL; each name begins with KEYTURN_.
	Env map[string]string
}

// ParseLine reads NAME=[KEYTURN_X=VALUE …] /PATH [ARGUMENT …]. Words are separated by spaces and
// hold none.
func ParseLine(s string) (name string, l Line, err error) {
	name, rest, ok := strings.Cut(s, "=")
	if !ok || name == "" || len(name) > maxName || strings.Trim(name, target.Alphabet+"-_.") != "" {
		return "", Line{}, fmt.Errorf(
			"%q is not NAME=/PATH [ARGUMENT …], with a name of 1 to %d letters, digits, hyphens, dots and underscores",
			s, maxName,
		)
	}
	words := strings.Fields(rest)
	for len(words) > 0 && strings.HasPrefix(words[0], envPrefix) {
		variable, value, ok := strings.Cut(words[0], "=")
		if !ok || strings.Trim(variable, target.Alphabet+"_") != "" || variable == envPrefix {
			return "", Line{}, fmt.Errorf("command %s: %q is not a variable", name, words[0])
		}
		if l.Env == nil {
			l.Env = map[string]string{}
		}
		l.Env[variable], words = value, words[1:]
	}
	if len(words) == 0 || !filepath.IsAbs(words[0]) || strings.ContainsRune(s, 0) {
		return "", Line{}, fmt.Errorf("command %s: the executable must be an absolute path", name)
	}
	if len(words) > maxArgs {
		return "", Line{}, fmt.Errorf("command %s has more than %d arguments", name, maxArgs-1)
	}
	l.Path, l.Args = words[0], words[1:]
	return name, l, nil
}

// User is the user that commands run as.
type User struct {
	// Self means the server's own user, with all that it can read.
	Self     bool
	UID, GID int
}

// Config says what may run, and how.
type Config struct {
	Commands map[string]Line
	User     User
	// Private are files and directories that User must not be able to read, such as the server's
	// data directory.
	Private []string
}

// Kind is the kind "command". Without commands none can be registered.
func Kind(c Config) target.Kind { return kind(c, newIsolation(canIsolate)) }

func kind(c Config, apart *isolation) target.Kind {
	strategies := []target.Strategy{target.Overlap, target.Single, target.Double}
	open := func(own config, s target.Settings) (target.Target, error) {
		r := &runner{
			config:  c,
			line:    own.line,
			name:    s.Name,
			sending: s.Sending,
			apart:   apart,
		}
		return &plugin.Target{
			Settings: own.Settings,
			Name:     s.Name,
			Admin:    s.Admin,
			Pass:     true,
			Call:     r.call,
		}, nil
	}
	k := target.NewKind("command", strategies, c.parseStored, open).Consenting(plugin.Consents).Leaving(plugin.Leaves)
	k.Action = target.ActionRegisterCommand
	k.Check = func(raw json.RawMessage) error { // configurations of earlier releases are not registered
		_, err := c.parse(raw)
		return err
	}
	return k
}

// config is the configuration of a target.
type config struct {
	Command string `json:"command"`
	plugin.Settings

	line Line
}

// Addresses returns the path of the executable.
func (own config) Addresses() []string { return []string{own.line.Path} }

// legacy is the configuration of releases up to 0.1.
type legacy struct {
	Path string            `json:"path"`
	Args []string          `json:"args,omitempty"`
	Env  map[string]string `json:"env,omitempty"`
	Dir  string            `json:"dir,omitempty"`
	plugin.Settings
}

func (c Config) parse(raw json.RawMessage) (config, error) {
	var own config
	if old := (legacy{}); target.Decode(raw, &old) == nil && old.Path != "" {
		return own, fmt.Errorf(
			"a target names no executable; ask the operator to add it to the server setting command, and use %q",
			`{"command":"NAME"}`,
		)
	}
	if err := target.Decode(raw, &own); err != nil {
		return own, err
	}
	own.line = c.Commands[own.Command]
	return own, errors.Join(c.checkName(own.Command), own.Settings.Check())
}

func (c Config) checkName(name string) error {
	if len(c.Commands) == 0 {
		return errors.New("this server runs no commands; the server setting command names them")
	}
	if name == "" {
		return fmt.Errorf("command is required; it must be a name from the server setting command: %s", c.names())
	}
	l, ok := c.Commands[name]
	if !ok {
		return fmt.Errorf("the server setting command has no %q; it has %s", name, c.names())
	}
	return l.Check()
}

// names lists the commands that a target can name.
func (c Config) names() string {
	return strings.Join(slices.Sorted(maps.Keys(c.Commands)), ", ")
}

// Check reports why the executable may not be run now, such as that it is missing.
func (l Line) Check() error {
	_, err := l.executable()
	return err
}

// parseStored reads a configuration of this release, or finds the command that one of an earlier
// release means.
func (c Config) parseStored(raw json.RawMessage) (config, error) {
	var old legacy
	if target.Decode(raw, &old) != nil || old.Path == "" {
		return c.parse(raw)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Commands)) {
		l := c.Commands[name]
		if l.Path == old.Path && slices.Equal(l.Args, old.Args) && maps.Equal(l.Env, old.Env) &&
			(old.Dir == "" || old.Dir == "/") {
			own := config{Command: name, Settings: old.Settings, line: l}
			return own, errors.Join(c.checkName(name), own.Settings.Check())
		}
	}
	return config{}, fmt.Errorf(
		"it names the executable %q, which no command of the server setting command has with the same arguments "+
			"and variables; add it there",
		old.Path,
	)
}

// executable returns the file to run, or an error that says why it may not be run.
func (l Line) executable() (string, error) { return checkExecutable(l.Path) }

func (l Line) environment() []string {
	env := []string{path, "LC_ALL=C"}
	for name, value := range l.Env {
		env = append(env, name+"="+value)
	}
	slices.Sort(env)
	return env
}

type runner struct {
	config  Config
	line    Line
	name    string
	sending func(ctx context.Context, receiver string) error
	apart   *isolation
}

// isolation keeps commands of one user apart, who could read each other's memory: each has
// namespaces of its own, or they run one at a time where the server has no right to make those.
// Commands of the server's own user are not kept apart: they can read its memory.
type isolation struct {
	turn     chan struct{} // holds an element while a command runs that has no namespaces
	try      func(context.Context) bool
	possible atomic.Bool // try has reported true
}

func newIsolation(try func(context.Context) bool) *isolation {
	return &isolation{turn: make(chan struct{}, 1), try: try}
}

// Isolates reports whether this process can run each command in namespaces of its own, or needs
// none: without commands, and for those of its own user. It waits at most 10 seconds.
func (c Config) Isolates(ctx context.Context) bool {
	return len(c.Commands) == 0 || c.User.Self || canIsolate(ctx)
}

// begin waits for a turn, when there have to be turns. The caller calls end when the command and
// all that it has started have ended.
func (i *isolation) begin(ctx context.Context, u User) (isolate bool, end func(), err error) {
	if u.Self {
		return false, func() {}, nil
	}
	if i.possible.Load() || i.try(ctx) {
		i.possible.Store(true)
		return true, func() {}, nil
	}
	select {
	case i.turn <- struct{}{}:
		return false, func() { <-i.turn }, nil
	case <-ctx.Done():
		return false, nil, ctx.Err()
	}
}

func (r *runner) call(
	ctx context.Context, step plugin.Step, message []byte, secrets []sensitive.Value,
) (plugin.Answer, error) {
	what := fmt.Sprintf("%s of target %s", step, r.name)
	// Checked before each run: files may have been replaced since.
	file, err := r.line.executable()
	if err == nil {
		err = r.config.CheckUser()
	}
	if err != nil {
		return plugin.Answer{}, target.Failed(target.Denied, "", what+": "+err.Error(), secrets...)
	}
	if err := ctx.Err(); err != nil {
		return plugin.Answer{}, target.NotSent(what, err, secrets...)
	}
	isolate, end, err := r.apart.begin(ctx, r.config.User)
	if err != nil {
		return plugin.Answer{}, target.NotSent(what, err, secrets...)
	}
	defer end()
	if r.sending != nil {
		if err := r.sending(ctx, file); err != nil {
			return plugin.Answer{}, target.NotSent(what, err, secrets...)
		}
	}
	return r.run(ctx, file, what, isolate, message, secrets)
}
