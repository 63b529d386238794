package servers

import (
	"os/exec"
	"syscall"
)

// bind lets a server lead a group and die with the process that started it, so that a killed test
// leaves none behind.
func bind(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
