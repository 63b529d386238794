//go:build unix && !linux

package command

import (
	"context"
	"os"
	"os/exec"
	"syscall"
)

// waitDelay is how long after the end of its time a command is waited for.
const waitDelay = grace

// prepare starts the command directly: without the limits and the bar to new privileges, which are
// Linux's.
func (r *runner) prepare(cmd *exec.Cmd, file string, _ bool) (failure *os.File, close func(), err error) {
	cmd.Path, cmd.Args, cmd.Env = file, append([]string{r.line.Path}, r.line.Args...), r.line.environment()
	if !r.config.User.Self {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(r.config.User.UID), Gid: uint32(r.config.User.GID)}
	}
	return nil, func() {}, nil
}

// canIsolate reports false: namespaces are Linux's.
func canIsolate(context.Context) bool { return false }
