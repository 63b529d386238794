package applications

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// program is one call of an unmodified client, in a directory of its own.
type program struct {
	name  string
	args  []string
	env   []string
	input string
	// files are made in the directory, for the eyes of this user alone. "{dir}" in args, env and
	// files is the directory.
	files map[string]string
}

// said is what a program has answered.
type said struct {
	out, errors string
	exit        int
}

// run runs it. The error says that it could not be started, or that the context has ended.
func (p program) run(ctx context.Context) (said, error) {
	dir, err := os.MkdirTemp("", "keyturn-application-")
	if err != nil {
		return said{}, err
	}
	defer os.RemoveAll(dir)
	here := strings.NewReplacer("{dir}", dir)
	for name, text := range p.files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(here.Replace(text)), 0o700); err != nil {
			return said{}, err
		}
	}
	var args []string
	for _, arg := range p.args {
		args = append(args, here.Replace(arg))
	}
	cmd := exec.CommandContext(ctx, p.name, args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(p.input)
	cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	for _, variable := range p.env {
		cmd.Env = append(cmd.Env, here.Replace(variable))
	}
	var out, errors bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errors
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return said{}, ctx.Err()
	case cmd.ProcessState == nil:
		return said{}, err
	}
	return said{out.String(), errors.String(), cmd.ProcessState.ExitCode()}, nil
}

// line returns a text on one line, and without the account's name: the accounts of a pair differ in
// it alone.
func line(text, account string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(text, account, "app")), " ")
}

// probe is a piece of work of an application, as statements for a client.
type probe struct{ name, script string }

// sectionMark begins a line that names the probe whose answers follow.
const sectionMark = "=== "

// sections splits what a client printed by the marks of its script.
func sections(text string) Outcome {
	out, name := Outcome{}, ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if now, ok := strings.CutPrefix(line, sectionMark); ok {
			name = now
			out[name] = ""
			continue
		}
		if name != "" && line != "" && line != "00000" {
			out[name] = strings.TrimSpace(out[name] + " " + line)
		}
	}
	return out
}
