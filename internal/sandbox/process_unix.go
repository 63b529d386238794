//go:build unix

package sandbox

import (
	"os"
	"os/exec"
	"syscall"
)

// detach gives the child a process group of its own, so that Ctrl-C in a terminal reaches this
// process alone, which then stops the child in order.
func detach(cmd *exec.Cmd, as *Account, onDeath syscall.Signal) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if as != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(as.UID), Gid: uint32(as.GID)}
	}
	signalOnDeath(cmd.SysProcAttr, onDeath)
}

func killGroup(p *os.Process) {
	_ = syscall.Kill(-p.Pid, syscall.SIGKILL) // fails only when nobody is left
}
