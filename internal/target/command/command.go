// Package command is the kind "command": an executable on the server changes the credentials. Each step of package plugin is
// one run, with the message on standard input and the answer on standard output. docs/plugin.md says what a command has to
// do; examples/command-target is one.
//
// Configuration:
//
//	path                  the executable, absolute. Required.
//	args                  a list of arguments. They are seen by every user of the machine, so they are no place for secrets.
//	env                   an object of environment variables. Each name begins with KEYTURN_. They are no place for secrets.
//	dir                   the working directory, absolute; default "/".
//	strategy              the one that the command implements: "single", "overlap" or "double". Required.
//	generate              true when the command makes new credentials itself; default false: passwords by the rule.
//	password_length       12 to 128, default 32.
//	password_punctuation  characters beside letters and digits; default none.
//
// No shell is involved. Nothing of the server's own environment is passed on: it may hold the root key. The command gets PATH
// (/usr/local/bin:/usr/bin:/bin), LC_ALL=C and what env names; the prefix keeps a configuration from steering the loader or an
// interpreter, since whoever may register a target is not therefore one who may run any program.
//
// For the same reason the file must be below one of the directories that the server setting command-dir lists, after symbolic
// links have been followed; without one no command can be registered. The file, and every directory above it, must belong to
// root or to the server's user, and nobody else may be able to write there (a directory with the sticky bit is good enough).
//
// The command runs as the server's user, in a process group of its own, which gets a SIGTERM when the time is over and SIGKILL two
// seconds later; what it leaves running is killed when it ends. The administrator's credential, where the target names one,
// is the member admin of each message. The command holds whatever rights the change itself takes.
package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/plugin"
	"github.com/keyturn/keyturn/sensitive"
)

const (
	envPrefix = "KEYTURN_"
	path      = "PATH=/usr/local/bin:/usr/bin:/bin"
	maxArgs   = 100
)

// Kind is the kind "command" with executables below the allowed directories, which are absolute. With none of them no command
// is accepted.
func Kind(allowed []string) target.Kind {
	allowed = slices.Clone(allowed)
	return target.Kind{
		Name:       "command",
		Action:     target.ActionRegisterCommand,
		Strategies: []target.Strategy{target.Overlap, target.Single, target.Double},
		Check: func(raw json.RawMessage) error {
			_, err := parse(raw, allowed)
			return err
		},
		Open: func(s target.Settings) (target.Target, error) {
			c, err := parse(s.Config, allowed)
			if err != nil {
				return nil, err
			}
			r := &runner{config: c, name: s.Name, allowed: allowed}
			return &plugin.Target{Settings: c.Settings, Name: s.Name, Admin: s.Admin, Pass: true, Call: r.call}, nil
		},
	}
}

type config struct {
	Path string            `json:"path"`
	Args []string          `json:"args,omitempty"`
	Env  map[string]string `json:"env,omitempty"`
	Dir  string            `json:"dir,omitempty"`
	plugin.Settings
}

func parse(raw json.RawMessage, allowed []string) (config, error) {
	var c config
	if err := target.Decode(raw, &c); err != nil {
		return c, err
	}
	if c.Dir == "" {
		c.Dir = "/"
	}
	_, perr := c.executable(allowed)
	return c, errors.Join(perr, c.checkDir(), c.checkArgs(), c.checkEnv(), c.Settings.Check())
}

func (c config) checkDir() error {
	if !filepath.IsAbs(c.Dir) {
		return fmt.Errorf("dir %q is not absolute", c.Dir)
	}
	return trusted("dir", c.Dir, isDirectory)
}

func (c config) checkArgs() error {
	if len(c.Args) > maxArgs {
		return fmt.Errorf("args has %d members; %d are allowed", len(c.Args), maxArgs)
	}
	if slices.ContainsFunc(c.Args, func(a string) bool { return strings.Contains(a, "\x00") }) {
		return errors.New("args holds a zero byte")
	}
	return nil
}

func (c config) checkEnv() error {
	var bad []string
	for name, value := range c.Env {
		rest, ok := strings.CutPrefix(name, envPrefix)
		if !ok || rest == "" || strings.Trim(rest, target.Alphabet+"_") != "" || strings.Contains(value, "\x00") {
			bad = append(bad, name)
		}
	}
	if bad == nil {
		return nil
	}
	slices.Sort(bad)
	return fmt.Errorf("env: %q: a name is %s followed by letters, digits and underscores, and a value holds no zero byte", bad, envPrefix)
}

// executable is the file to run, or why it may not be run.
func (c config) executable(allowed []string) (string, error) {
	if len(allowed) == 0 {
		return "", errors.New("this server runs no commands; name the directories that hold them in the server setting command-dir")
	}
	if c.Path == "" {
		return "", errors.New("path is required: the executable")
	}
	if !filepath.IsAbs(c.Path) {
		return "", fmt.Errorf("path %q is not absolute", c.Path)
	}
	real, err := filepath.EvalSymlinks(c.Path)
	if err != nil {
		return "", fmt.Errorf("path %q: %w", c.Path, reason(err))
	}
	if !slices.ContainsFunc(allowed, func(dir string) bool { return below(dir, real) }) {
		return "", fmt.Errorf("path %q is %q, which is not below a directory of the server setting command-dir", c.Path, real)
	}
	return real, trusted("path", real, isExecutable)
}

// below reports whether a file is in a directory or further down. The directory is an absolute one that exists.
func below(dir, file string) bool {
	if !filepath.IsAbs(dir) {
		return false
	}
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false
	}
	rel, err := filepath.Rel(dir, file)
	return err == nil && rel != "." && rel != ".." && !strings.HasPrefix(rel, "../")
}

func (c config) environment() []string {
	env := []string{path, "LC_ALL=C"}
	for name, value := range c.Env {
		env = append(env, name+"="+value)
	}
	slices.Sort(env)
	return env
}

type runner struct {
	config  config
	name    string
	allowed []string
}

func (r *runner) call(ctx context.Context, step plugin.Step, message []byte, secrets []sensitive.Value) (plugin.Answer, error) {
	what := fmt.Sprintf("%s of target %s", step, r.name)
	// Looked at again in every call: the file may have been replaced since.
	file, err := r.config.executable(r.allowed)
	if err == nil {
		err = r.config.checkDir()
	}
	if err != nil {
		return plugin.Answer{}, target.Failed(target.Denied, "", what+": "+err.Error(), secrets...)
	}
	if err := ctx.Err(); err != nil {
		return plugin.Answer{}, target.NotSent(what, err, secrets...)
	}
	return r.run(ctx, file, what, message, secrets)
}
